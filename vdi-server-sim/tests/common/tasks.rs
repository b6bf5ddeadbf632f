//! Threads whose end is waited for with a deadline.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::{PATIENCE, eventually};

/// A thread of a test.
pub(crate) struct Task<T> {
    name: String,
    thread: i32,
    result: Receiver<std::thread::Result<T>>,
}

/// Starts a thread.
pub(crate) fn task<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let (tell_thread, thread) = channel();
    let (tell, result) = channel();
    std::thread::spawn(move || {
        tell_thread.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // A test that failed meanwhile does not listen any more.
        let _ = tell.send(result);
    });
    Task { name: name.to_owned(), thread: thread.recv().unwrap(), result }
}

impl<T> Task<T> {
    /// Waits until the thread sleeps: it is in its blocking call, or as good as.
    #[track_caller]
    pub(crate) fn wait_until_asleep(&self) {
        wait_until_asleep(std::process::id(), self.thread);
    }

    /// What the thread came to.
    #[track_caller]
    pub(crate) fn result(self) -> T {
        match self.result.recv_timeout(PATIENCE) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => panic!("{} did not end within {PATIENCE:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} vanished", self.name),
        }
    }
}

/// Waits until a thread of some process sleeps.
#[track_caller]
pub(crate) fn wait_until_asleep(process: u32, thread: i32) {
    eventually("a thread to be in its blocking call", || {
        let stat = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).unwrap_or_default();
        // The state follows the name, which stands in brackets.
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if state.starts_with('S') { Ok(()) } else { Err(format!("its status is {stat:?}")) }
    });
}
