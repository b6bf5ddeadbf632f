//! Events for subscribers of `tracing`, as the two sides of a set send them. No part of the public interface.
//!
//! A crate that sends events enables the feature `tracing` of this one from its own, and gives its target to the macros.
//!
//! # Invariants
//!
//! 1. Without the feature an event is a branch that is never taken, known as such at compile time, and a [`Clock`] is empty.
//! 2. With it an event is one relaxed load while nobody listens. Fields are evaluated, and clocks read, for subscribers only,
//!    and out of line.

#[cfg(feature = "tracing")]
pub use tracing;

/// Sends an event: a target, a level, fields (`%` before what is shown by its `Display`), and what happened.
#[cfg(feature = "tracing")]
#[macro_export]
#[doc(hidden)]
macro_rules! trace_event {
    ($target:expr, $level:ident, $($fields:tt)+) => {
        if $crate::trace_listening!($level) {
            $crate::trace::for_subscribers(|| {
                $crate::trace::tracing::event!(target: $target, $crate::trace::tracing::Level::$level, $($fields)+)
            });
        }
    };
}

/// Only has the compiler look at the fields, so that none of them is unused.
#[cfg(not(feature = "tracing"))]
#[macro_export]
#[doc(hidden)]
macro_rules! trace_event {
    ($target:expr, $level:ident, $($name:ident = $(%)? $value:expr,)* $happened:literal) => {
        if false {
            let _ = ($(&$value,)*);
        }
    };
}

/// Whether a subscriber may want events of this level: one relaxed load.
#[cfg(feature = "tracing")]
#[macro_export]
#[doc(hidden)]
macro_rules! trace_listening {
    ($level:ident) => {
        $crate::trace::tracing::Level::$level <= $crate::trace::tracing::level_filters::LevelFilter::current()
    };
}

#[cfg(not(feature = "tracing"))]
#[macro_export]
#[doc(hidden)]
macro_rules! trace_listening {
    ($level:ident) => {
        false
    };
}

/// A span of level INFO: a target, its name, and fields.
#[cfg(feature = "tracing")]
#[macro_export]
#[doc(hidden)]
macro_rules! trace_span {
    ($target:expr, $name:literal, $($field:ident = $value:expr),+) => {
        $crate::trace::Span::new($crate::trace::tracing::info_span!(target: $target, $name, $($field = $value),+))
    };
}

#[cfg(not(feature = "tracing"))]
#[macro_export]
#[doc(hidden)]
macro_rules! trace_span {
    ($target:expr, $name:literal, $($field:ident = $value:expr),+) => {{
        let _ = ($(&$value,)+);
        $crate::trace::Span::current()
    }};
}

/// Keeps what is done for subscribers out of the code that runs without them.
#[cfg(feature = "tracing")]
#[cold]
#[inline(never)]
pub fn for_subscribers<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// How long something took, if a subscriber listened to TRACE when it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// Nanoseconds on the process's clock. One word, because every command carries it.
    #[cfg(feature = "tracing")]
    started: Option<core::num::NonZeroU64>,
}

/// Nanoseconds since the first call in this process.
#[cfg(feature = "tracing")]
fn now() -> u64 {
    static FIRST: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    FIRST.elapsed().as_nanos() as u64
}

impl Clock {
    /// Reads the clock only where a subscriber listens.
    #[inline]
    #[must_use]
    pub fn start() -> Clock {
        Clock {
            #[cfg(feature = "tracing")]
            started: if trace_listening!(TRACE) {
                for_subscribers(|| core::num::NonZeroU64::new(now().max(1)))
            } else {
                None
            },
        }
    }

    /// Microseconds since the start; 0 for a clock that was not started.
    #[must_use]
    pub fn us(self) -> u64 {
        #[cfg(feature = "tracing")]
        return self.started.map_or(0, |started| now().saturating_sub(started.get()) / 1000);
        #[cfg(not(feature = "tracing"))]
        0
    }
}

/// What events belong to.
#[derive(Debug, Clone)]
pub struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Span {
    /// Wraps a span.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn new(span: tracing::Span) -> Span {
        Span { span }
    }

    /// The span that the thread is in, for another thread of the same work.
    #[must_use]
    pub fn current() -> Span {
        Span {
            #[cfg(feature = "tracing")]
            span: tracing::Span::current(),
        }
    }

    /// The events of `work` belong to this span.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        return self.span.in_scope(work);
        #[cfg(not(feature = "tracing"))]
        work()
    }
}
