//! What the library tells a subscriber of `tracing`, with the feature of that name; see "Tracing" in the crate's
//! documentation.
//!
//! # Invariants
//!
//! 1. Without the feature a site is a branch that is never taken, known as such when it is compiled, and a [`Clock`] is empty.
//! 2. With it, a site is one relaxed load while nobody listens: fields are evaluated, and clocks read, for listeners only,
//!    and out of the way of the code around.

use crate::error::Error;
use vdi_proto::status::VdError;

/// Tells something: a level, fields (`%` before what is shown by its `Display`), and what happened.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {
        if tracing::Level::$level <= tracing::level_filters::LevelFilter::current() {
            $crate::trace::for_listeners(|| tracing::event!(target: "vdi_client", tracing::Level::$level, $($fields)+));
        }
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
        tracing::Level::$level <= tracing::level_filters::LevelFilter::current()
            && $crate::trace::for_listeners(|| tracing::enabled!(target: "vdi_client", tracing::Level::$level))
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! listening {
    ($level:ident) => {
        false
    };
}

pub(crate) use {event, listening};

/// Keeps what is done for listeners out of the code that runs without them.
#[cfg(feature = "tracing")]
#[cold]
#[inline(never)]
pub(crate) fn for_listeners<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// How long something took, if anybody listened when it began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    /// Nanoseconds on the process's clock. In one word, because every command carries it.
    #[cfg(feature = "tracing")]
    started: Option<core::num::NonZeroU64>,
}

/// Nanoseconds since this process first asked.
#[cfg(feature = "tracing")]
fn now() -> u64 {
    static FIRST: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    FIRST.elapsed().as_nanos() as u64
}

impl Clock {
    #[inline]
    pub(crate) fn start() -> Clock {
        Clock {
            #[cfg(feature = "tracing")]
            started: if listening!(TRACE) { for_listeners(|| core::num::NonZeroU64::new(now().max(1))) } else { None },
        }
    }

    /// Microseconds since the start; 0 for a clock that was not started.
    #[cfg(feature = "tracing")]
    pub(crate) fn us(self) -> u64 {
        self.started.map_or(0, |started| now().saturating_sub(started.get()) / 1000)
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn us(self) -> u64 {
        0
    }
}

/// Tells of a call that failed. The end of a device is none, and whoever looks for commands again and again is no news.
#[cold]
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

/// Has what `work` tells, and what a media tells meanwhile, belong to the span of a device's pump.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "there is nobody to tell"))]
pub(crate) fn pumping<T>(set: &str, device: &str, work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "tracing")]
    return tracing::info_span!(target: "vdi_client", "pump", set, device).in_scope(work);
    #[cfg(not(feature = "tracing"))]
    work()
}
