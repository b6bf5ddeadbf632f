//! Helpers of the completion agent: threads that handle completions themselves rather than wait until the agent has.
//!
//! Whoever waits for a buffer waits for a completion, and the agent's thread in between is a detour: each completion wakes the
//! agent, and the agent wakes whoever waits. A thread that sends many commands and needs their buffers again registers as
//! a helper ([`ServerVirtualDeviceSet::help`]), and looks at the rings whenever it has nothing better to do.
//!
//! # Invariants
//!
//! 1. *One at a time.* The reading ends of the rings belong to the agent, which lends them to helpers when it would sleep
//!    otherwise. Who uses lent ones holds the lock, so each device's completions are handled in their order, whoever does it.
//! 2. *The agent answers for everything.* It lends for at most [`STANDBY`], and then looks at all that it always looks at: a
//!    completion waits no longer than that for its routine, whatever helpers do meanwhile (a read of a slow disk, say); and
//!    time-out, watch, abort and close are nobody else's. The last helper that leaves wakes it.
//! 3. *No completion is slept over.* A helper sleeps on the agent's doorbell, which clients ring: it arms, then looks at what it
//!    waits for and, under the lock, at the rings. If the agent has the ends at that moment, it looks at the rings under the
//!    lock when it lends them, and rings if something came; what comes later finds the bell armed. What a helper waits for
//!    comes from a routine that another may have run: so whoever provides it rings behind it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vdi_shm::ring::Consumer;
use vdi_shm::wait;

use super::agent::{Completions, take};
use super::error::VdsError;
use super::set::{OpenSet, ServerVirtualDeviceSet};

/// How long the agent relies on its helpers. Long beside a transfer, short beside whatever a client or a person waits for.
const STANDBY: Duration = Duration::from_millis(10);

/// What the agent shares with its helpers.
#[derive(Debug, Default)]
pub(super) struct Helping {
    /// How many there are. Changes under the lock.
    helpers: AtomicU32,
    lent: Mutex<Lent>,
    /// The last helper has left.
    alone: Condvar,
}

#[derive(Debug, Default)]
struct Lent {
    /// While the agent stands by.
    completions: Option<Completions>,
    /// A helper has handled something since the agent knew.
    handled: bool,
}

impl Helping {
    fn lent(&self) -> MutexGuard<'_, Lent> {
        // A routine that panicked has left the rings as they are between two completions.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the agent may stand by rather than sleep.
    pub(super) fn has_helpers(&self) -> bool {
        self.helpers.load(Ordering::Relaxed) > 0
    }
}

/// The agent stands by for a while, at most for `patience`, or until the last helper has left; true when helpers handled something
/// meanwhile.
pub(super) fn stand_by(set: &OpenSet, completions: &mut Completions, patience: Option<Duration>) -> bool {
    let mut lent = set.helping.lent();
    let came = completions[..set.opened() as usize].iter().any(Consumer::is_ready);
    lent.completions = Some(std::mem::take(completions));
    drop(lent);
    if came {
        wait::ring(set.session.control().agent_doorbell());
    }
    let helped = |_: &mut Lent| set.helping.has_helpers();
    let waited =
        set.helping.alone.wait_timeout_while(set.helping.lent(), patience.unwrap_or(STANDBY).min(STANDBY), helped);
    let (mut lent, _) = waited.unwrap_or_else(PoisonError::into_inner);
    *completions = lent.completions.take().unwrap_or_default();
    std::mem::take(&mut lent.handled)
}

/// A helper of the completion agent, until it is dropped.
#[derive(Debug)]
pub(crate) struct Helper(Arc<OpenSet>);

impl ServerVirtualDeviceSet {
    /// Registers the caller as a helper of the completion agent.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub(crate) fn help(&self) -> Result<Helper, VdsError> {
        let set = self.opened("ExecuteCompletionAgent")?;
        let lent = set.helping.lent();
        set.helping.helpers.fetch_add(1, Ordering::Relaxed);
        drop(lent);
        Ok(Helper(set))
    }
}

impl Helper {
    /// Handles the completions that are there, unless the agent is at it; true when there were any.
    pub(crate) fn handle(&self) -> bool {
        let (set, opened) = (&*self.0, self.0.opened() as usize);
        let mut lent = set.helping.lent();
        let Some(completions) = &mut lent.completions else { return false };
        let any = take(set, &mut completions[..opened]);
        lent.handled |= any;
        any
    }

    /// Whether there is something to handle.
    fn is_ready(&self) -> bool {
        let opened = self.0.opened() as usize;
        let lent = self.0.helping.lent();
        lent.completions.as_ref().is_some_and(|completions| completions[..opened].iter().any(Consumer::is_ready))
    }

    /// Handles completions until `ready` gives something; `None` once the set is aborted or closed. Whoever provides what `ready`
    /// looks for rings the agent's doorbell afterwards.
    pub(crate) fn wait<T>(&self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let (set, control) = (&*self.0, self.0.session.control());
        let is_over = || set.session.abort_reason().is_some() || set.is_closed();
        loop {
            // What is there is taken before anything is handled: others may be waiting for it in vain meanwhile.
            if let Some(found) = ready() {
                return Some(found);
            }
            // Before anything is handled: a ring that was written over is ready for ever.
            if is_over() {
                return None;
            }
            if self.handle() {
                continue;
            }
            let look = || {
                if let Some(found) = ready() {
                    return Some(Some(found));
                }
                (is_over() || self.is_ready()).then_some(None)
            };
            match wait::wait_once(control.agent_doorbell(), control.spin(), None, look) {
                Some(None) | None => {}
                Some(found) => return found,
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let helping = &self.0.helping;
        let lent = helping.lent();
        let last = helping.helpers.fetch_sub(1, Ordering::Relaxed) == 1;
        drop(lent);
        if last {
            helping.alone.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::{JoinHandle, ThreadId, current, spawn, yield_now};
    use std::time::Instant;

    use tempfile::TempDir;
    use vdi_client::{ClientVirtualDeviceSet, Completion, INFINITE};
    use vdi_proto::abort::Cause;
    use vdi_proto::command::CommandCode;
    use vdi_proto::completion::CompletionCode;
    use vdi_proto::config::{ServerTerms, VdConfig};
    use vdi_shm::runtime::Options;

    use super::*;
    use crate::vds::{Completed, ServerVirtualDevice, VdsCommand};

    const PATIENCE: Duration = Duration::from_secs(60);
    const NAME: &str = "helped";

    /// A set whose client answers each command, and whose agent runs.
    struct Pair {
        set: Arc<ServerVirtualDeviceSet>,
        device: ServerVirtualDevice,
        agent: JoinHandle<bool>,
        client: JoinHandle<()>,
        _dir: TempDir,
    }

    impl Pair {
        fn open() -> Pair {
            Pair::with(&VdConfig::default(), false)
        }

        /// With a client that answers, all but the first command if it `keeps` that until the set ends.
        fn with(config: &VdConfig, keeps: bool) -> Pair {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { runtime_dir: Some(dir.path().to_owned()), ..Options::default() };
            let client = ClientVirtualDeviceSet::with_options(options.clone());
            client.create(NAME, config).unwrap();
            let client = spawn(move || {
                client.get_configuration(INFINITE).unwrap();
                let mut device = client.open_device(NAME).unwrap();
                let mut kept = None;
                while let Ok(command) = device.get_command(INFINITE) {
                    if keeps && kept.is_none() {
                        kept = Some(command);
                    } else if command.complete(Completion::done()).is_err() {
                        return;
                    }
                }
            });
            let set = Arc::new(ServerVirtualDeviceSet::with_options(options));
            set.open("", NAME).unwrap();
            set.begin_configuration(&ServerTerms::default(), PATIENCE).unwrap();
            set.end_configuration().unwrap();
            let device = set.open_device(NAME).unwrap();
            let agent = Arc::clone(&set);
            let agent = spawn(move || agent.execute_completion_agent().is_ok());
            Pair { set, device, agent, client, _dir: dir }
        }

        /// Sends a Flush; which thread ran its routine, once that has run.
        fn flush(&self) -> Receiver<ThreadId> {
            let (tell, told) = channel();
            let session = self.set.session().unwrap();
            let routine = Arc::new(move |completed: Completed| {
                assert!(completed.code.is_success(), "{}", completed.code);
                let _ = tell.send(current().id());
                wait::ring(session.control().agent_doorbell());
            });
            self.device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)).unwrap();
            told
        }

        /// Sends a Flush that the client keeps; with which code it ended.
        fn flush_that_is_kept(&self) -> Receiver<CompletionCode> {
            let (tell, told) = channel();
            let routine = Arc::new(move |completed: Completed| tell.send(completed.code).unwrap_or_default());
            self.device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)).unwrap();
            told
        }

        /// Closes the set in order.
        fn close(self) {
            self.device.close_device().unwrap();
            self.set.close().unwrap();
            assert!(self.agent.join().unwrap(), "the agent ends in order");
            self.client.join().unwrap();
        }
    }

    #[test]
    fn a_helper_handles_what_it_waits_for() {
        let pair = Pair::open();
        let helper = pair.set.help().unwrap();
        let by_itself = |_: &u32| {
            let told = pair.flush();
            helper.wait(|| told.try_recv().ok()) == Some(current().id())
        };
        // The agent handles what comes before it stands by.
        assert_eq!((0..1000).filter(by_itself).take(10).count(), 10);
        drop(helper);
        pair.close();
    }

    #[test]
    fn the_agent_answers_for_helpers_that_do_nothing() {
        let pair = Pair::open();
        let helper = pair.set.help().unwrap();
        for _ in 0..20 {
            assert_ne!(pair.flush().recv_timeout(PATIENCE), Ok(current().id()));
        }
        drop(helper);
        pair.close();
    }

    #[test]
    fn several_helpers_hear_of_everything_once() {
        let pair = Pair::open();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let helper = pair.set.help().unwrap();
                    for _ in 0..500 {
                        let told = pair.flush();
                        assert!(helper.wait(|| told.try_recv().ok()).is_some());
                        assert!(told.recv_timeout(PATIENCE).is_err(), "its routine runs once, and then is gone");
                    }
                });
            }
        });
        assert_eq!(pair.device.outstanding(), 0);
        pair.close();
    }

    /// Time-outs are the agent's, whatever helpers do: it stands by and no longer.
    #[test]
    fn a_helper_hears_of_the_time_out() {
        let pair = Pair::with(&VdConfig { server_time_out: 50, ..VdConfig::default() }, true);
        let helper = pair.set.help().unwrap();
        let told = pair.flush_that_is_kept();
        assert_eq!(helper.wait(|| None::<()>), None);
        let session = pair.set.session().unwrap();
        assert_eq!(session.abort_reason().map(|reason| reason.cause), Some(Cause::TimedOut));
        assert_eq!(told.recv_timeout(PATIENCE), Ok(CompletionCode::OPERATION_ABORTED));
        assert!(!pair.agent.join().unwrap(), "the agent hears of it as well");
        pair.client.join().unwrap();
    }

    /// A completion that a helper handles is one that the agent knows of.
    #[test]
    fn completions_that_helpers_handle_keep_the_time_out_away() {
        let time_out = Duration::from_millis(600);
        let asked = VdConfig { server_time_out: time_out.as_millis() as u32, ..VdConfig::default() };
        let pair = Pair::with(&asked, true);
        let kept = pair.flush_that_is_kept();
        let helper = pair.set.help().unwrap();
        let open = pair.set.opened("a test").unwrap();
        let stands_by = || open.helping.lent().completions.is_some();
        let mut helped = 0;
        let until = Instant::now() + time_out * 4;
        while Instant::now() < until {
            // Once the agent has just begun to stand by, a completion comes long before it looks again, so a helper handles it. That
            // moment is short, and may be missed a few times in a row.
            let soon = Instant::now() + time_out / 6;
            for standing in [true, false] {
                while stands_by() == standing && Instant::now() < soon {
                    yield_now();
                }
            }
            let told = pair.flush();
            let by = helper.wait(|| told.try_recv().ok());
            helped += u32::from(by == Some(current().id()));
            assert!(by.is_some(), "{:?}", pair.set.session().unwrap().abort_reason());
        }
        assert!(helped > 0, "a helper handled none");
        pair.set.signal_abort().unwrap();
        assert_eq!(kept.recv_timeout(PATIENCE), Ok(CompletionCode::OPERATION_ABORTED));
        assert!(!pair.agent.join().unwrap());
        pair.client.join().unwrap();
    }

    #[test]
    fn a_helper_that_waits_for_nothing_hears_of_the_abort() {
        let pair = Pair::open();
        let helper = pair.set.help().unwrap();
        // Or the client would hear of it before it has opened its device.
        assert!(pair.flush().recv_timeout(PATIENCE).is_ok());
        let (tell, told) = channel();
        let helping = spawn(move || tell.send(helper.wait(|| None::<()>)));
        pair.set.signal_abort().unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(None));
        helping.join().unwrap().unwrap();
        assert!(!pair.agent.join().unwrap(), "the agent hears of it as well");
        pair.client.join().unwrap();
    }
}
