//! The server's time-out.
//!
//! Source: VDI specification, `serverTimeOut`: if requests are pending and none completes for more than two intervals, the
//! server aborts the set. With 0 it never does.

use core::time::Duration;

/// Finds the time-out of a set. Time is an argument: a monotonic clock, as a duration since any fixed moment.
///
/// ```
/// use core::time::Duration;
/// use vdi_proto::timeout::ServerTimeOut;
///
/// let ms = Duration::from_millis;
/// let mut watch = ServerTimeOut::new(100, ms(0));
/// assert!(!watch.expired(ms(900), false)); // nothing is pending
/// assert!(!watch.expired(ms(1000), true)); // pending since at most now
/// assert!(!watch.expired(ms(1200), true));
/// assert!(watch.expired(ms(1201), true)); // longer than two intervals
/// ```
#[derive(Debug, Clone)]
pub struct ServerTimeOut {
    limit: Option<Duration>,
    /// The last moment at which a command completed, or none was pending.
    quiet_since: Duration,
    was_pending: bool,
}

impl ServerTimeOut {
    /// Starts at `now` with an interval of `server_time_out` ms; 0 never expires.
    #[must_use]
    pub const fn new(server_time_out: u32, now: Duration) -> Self {
        let limit = match server_time_out {
            0 => None,
            ms => Some(Duration::from_millis(ms as u64 * 2)),
        };
        ServerTimeOut { limit, quiet_since: now, was_pending: false }
    }

    /// The agent reports at `now` whether a command has completed since the last report.
    pub const fn completed(&mut self, now: Duration, any: bool) {
        if any {
            self.quiet_since = now;
        }
    }

    /// Whether the time-out has passed at `now`; `pending` is whether commands are pending.
    pub fn expired(&mut self, now: Duration, pending: bool) -> bool {
        if !pending || !self.was_pending {
            self.quiet_since = now;
            self.was_pending = pending;
        }
        self.limit.is_some_and(|limit| now.saturating_sub(self.quiet_since) > limit)
    }

    /// How often to call [`ServerTimeOut::expired`]; `None` if it never expires.
    #[must_use]
    pub fn check_interval(&self) -> Option<Duration> {
        // The abort is late by at most an eighth of the limit.
        self.limit.map(|limit| (limit / 8).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn zero_never_expires() {
        let mut watch = ServerTimeOut::new(0, MS(0));
        assert!(!watch.expired(MS(0), true));
        assert!(!watch.expired(MS(u64::MAX), true));
        assert_eq!(watch.check_interval(), None);
    }

    #[test]
    fn completion_restarts_the_interval() {
        let mut watch = ServerTimeOut::new(10, MS(0));
        assert!(!watch.expired(MS(0), true));
        watch.completed(MS(15), false);
        watch.completed(MS(19), true);
        watch.completed(MS(30), false);
        assert!(!watch.expired(MS(39), true));
        assert!(watch.expired(MS(40), true));
    }

    #[test]
    fn idle_time_does_not_count() {
        let mut watch = ServerTimeOut::new(10, MS(0));
        assert!(!watch.expired(MS(500), false));
        assert!(!watch.expired(MS(510), true));
        assert!(!watch.expired(MS(530), true));
        assert!(watch.expired(MS(531), true));
    }
}
