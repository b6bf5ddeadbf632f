//! The server's time-out.
//!
//! Source: VDI specification, `serverTimeOut`: if the server's completion agent waits longer than two intervals with
//! requests pending and none completing, the set is aborted. 0 waits for ever.

use core::time::Duration;

/// Watches over the completions of a set. Time is an argument: any monotonic clock, as a duration since whenever.
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
    /// The last moment at which something completed, or nothing was pending.
    quiet_since: Duration,
    was_pending: bool,
}

impl ServerTimeOut {
    /// Watches from `now` on with an interval of `server_time_out` ms; 0 never expires.
    #[must_use]
    pub const fn new(server_time_out: u32, now: Duration) -> Self {
        let limit = match server_time_out {
            0 => None,
            ms => Some(Duration::from_millis(ms as u64 * 2)),
        };
        ServerTimeOut { limit, quiet_since: now, was_pending: false }
    }

    /// The agent looked at `now`, and found that something had completed, or not.
    pub const fn completed(&mut self, now: Duration, any: bool) {
        if any {
            self.quiet_since = now;
        }
    }

    /// Whether the time-out has passed at `now`, given whether commands are pending.
    pub fn expired(&mut self, now: Duration, pending: bool) -> bool {
        if !pending || !self.was_pending {
            self.quiet_since = now;
            self.was_pending = pending;
        }
        self.limit.is_some_and(|limit| now.saturating_sub(self.quiet_since) > limit)
    }

    /// How long to wait at most before [`ServerTimeOut::expired`] has to be asked again.
    #[must_use]
    pub fn look_again_after(&self) -> Option<Duration> {
        // An eighth of the limit: the abort comes at most that much late.
        self.limit.map(|limit| (limit / 8).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn nought_never_expires() {
        let mut watch = ServerTimeOut::new(0, MS(0));
        assert!(!watch.expired(MS(0), true));
        assert!(!watch.expired(MS(u64::MAX), true));
        assert_eq!(watch.look_again_after(), None);
    }

    #[test]
    fn each_completion_starts_it_anew() {
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
