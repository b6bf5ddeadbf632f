//! What the library tells a subscriber of `tracing`, with the feature of that name; see "Tracing" in the crate's
//! documentation.
//!
//! # Invariants
//!
//! 1. Without the feature a site is a branch that is never taken, known as such when it is compiled, and a [`Clock`] is empty.
//! 2. With it, a site is one relaxed load while nobody listens: fields are evaluated, and clocks read, for listeners only.

use crate::error::Error;
use vdi_proto::status::VdError;

/// Tells something: a level, fields (`%` before what is shown by its `Display`), and what happened.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {
        tracing::event!(target: "vdi_client", tracing::Level::$level, $($fields)+)
    };
}

/// Only has the compiler look at the fields, so that none of them is unused.
#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($level:ident, $($name:ident = $(%)? $value:expr,)+ $happened:literal) => {
        if false {
            let _ = ($(&$value,)+);
        }
    };
}

/// Whether anybody would hear an event of this level.
#[cfg(feature = "tracing")]
macro_rules! listening {
    ($level:ident) => {
        tracing::enabled!(target: "vdi_client", tracing::Level::$level)
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! listening {
    ($level:ident) => {
        false
    };
}

pub(crate) use {event, listening};

/// How long something took, if anybody listened when it began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "tracing")]
    started: Option<std::time::Instant>,
}

impl Clock {
    #[inline]
    pub(crate) fn start() -> Clock {
        Clock {
            #[cfg(feature = "tracing")]
            started: listening!(TRACE).then(std::time::Instant::now),
        }
    }

    /// Microseconds since the start; 0 for a clock that was not started.
    #[cfg(feature = "tracing")]
    pub(crate) fn us(self) -> u64 {
        self.started.map_or(0, |started| started.elapsed().as_micros() as u64)
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn us(self) -> u64 {
        0
    }
}

/// Tells of a call that failed. The end of a device is none, and whoever looks for commands again and again is no news.
pub(crate) fn refused(error: &Error) {
    match error.code() {
        VdError::Close => {}
        VdError::Timeout => event!(
            TRACE,
            call = error.call(),
            set = error.set(),
            device = error.device(),
            code = error.code().name(),
            error = %error,
            "call timed out"
        ),
        code => event!(
            DEBUG,
            call = error.call(),
            set = error.set(),
            device = error.device(),
            code = code.name(),
            error = %error,
            "call refused"
        ),
    }
}
