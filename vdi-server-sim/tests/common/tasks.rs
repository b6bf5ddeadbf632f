//! Threads of tests. Waits for their end have a time limit.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::{TEST_TIMEOUT, eventually};

/// A thread of a test.
pub(crate) struct Task<T> {
    name: String,
    thread: i32,
    result: Receiver<std::thread::Result<T>>,
}

/// Starts a thread.
pub(crate) fn task<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let (thread_sender, thread) = channel();
    let (sender, result) = channel();
    std::thread::spawn(move || {
        thread_sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // A test that has failed has dropped the receiver.
        let _ = sender.send(result);
    });
    Task { name: name.to_owned(), thread: thread.recv().unwrap(), result }
}

impl<T> Task<T> {
    /// Waits until the thread sleeps, which it does in its blocking call.
    #[track_caller]
    pub(crate) fn wait_until_asleep(&self) {
        wait_until_asleep(std::process::id(), self.thread);
    }

    /// Waits for the thread, and returns its result. Resumes its panic.
    #[track_caller]
    pub(crate) fn result(self) -> T {
        match self.result.recv_timeout(TEST_TIMEOUT) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => panic!("{} did not end within {TEST_TIMEOUT:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended without a result", self.name),
        }
    }
}

/// Waits until a thread of a process sleeps.
#[track_caller]
pub(crate) fn wait_until_asleep(process: u32, thread: i32) {
    eventually("a thread to be in its blocking call", || {
        let stat = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).unwrap_or_default();
        // The state follows the name, which is in brackets.
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if state.starts_with('S') { Ok(()) } else { Err(format!("its status is {stat:?}")) }
    });
}
