//! The end of a set after one of its processes is gone.

use std::time::{Duration, Instant};

/// How long a process that is gone may stay unknown to the set: its pipes close before its connection.
const DEATH_NOTICE: Duration = Duration::from_millis(200);

/// Waits until the set has ended, which it does when one of its processes dies. The death of a process that had not joined does not
/// end it.
pub(super) fn wait_for_end_of_set<T>(mut ended: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEATH_NOTICE;
    loop {
        let found = ended();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
