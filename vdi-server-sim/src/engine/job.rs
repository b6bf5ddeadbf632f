//! The threads of a statement that works on files: its first failure, and the signal that all is over.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select};

use super::Failure;
use super::operation::Stopped;

/// What the threads of a statement share.
pub(super) struct Job {
    state: Mutex<State>,
    /// Never sent on; disconnected once the operation is over because of a failure.
    over: Receiver<()>,
}

struct State {
    running: Option<Sender<()>>,
    failure: Option<Failure>,
    /// The statement has decided: it cannot be cancelled any more.
    decided: bool,
}

impl Job {
    pub(super) fn new() -> Job {
        let (running, over) = bounded(0);
        Job { state: Mutex::new(State { running: Some(running), failure: None, decided: false }), over }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the first failure, and ends all threads.
    pub(super) fn fail(&self, failure: Failure) {
        let mut state = self.state();
        if state.failure.is_none() && !state.decided {
            state.failure = Some(failure);
            state.running = None;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.try_recv() == Err(TryRecvError::Disconnected)
    }

    pub(super) fn wait(&self, channel: &Receiver<()>) -> Result<(), Stopped> {
        select! {
            recv(channel) -> _ => Ok(()),
            recv(self.over) -> _ => Err(Stopped),
        }
    }

    /// Takes the step that decides, unless the operation has failed: from then on nothing fails it, and it cannot be cancelled.
    pub(super) fn decide(&self) -> Result<(), Failure> {
        let mut state = self.state();
        state.decided = state.failure.is_none();
        state.failure.take().map_or(Ok(()), Err)
    }
}
