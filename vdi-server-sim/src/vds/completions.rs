//! Completion processing: by the completion agent, or by a reader that waits for what a completion brings.
//!
//! A reader that waits for a buffer may process completions itself. This saves two wake-ups: of the agent, and of the
//! reader by the agent.
//!
//! # Invariants
//!
//! 1. One thread at a time processes completions: it holds the lock of the rings. So the completions of a device are
//!    processed in their order.
//! 2. While there are readers the agent does not wait for completions: it stands by for at most [`STANDBY`], and then
//!    processes what it finds. So a completion waits no longer than that, even if all readers are busy. The agent alone
//!    sees to the time-out, the abort and the close. The last reader that leaves wakes it.
//! 3. No completion is missed by a reader that sleeps: it sleeps on the agent's event count, which clients notify, and
//!    looks at the rings after it has armed it. What a reader waits for may come from a routine that another thread ran, so the
//!    routine wakes readers afterwards ([`ReaderWaker`]).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vdi_proto::abort::Process;
use vdi_proto::device::QUEUE_DEPTH;
use vdi_shm::ipc::wait;
use vdi_shm::set::record_ring::CompletionReceiver;
use vdi_shm::set::session::Session;

use super::open_set::OpenSet;

/// How long the agent relies on readers: long beside a transfer, short beside what a client or a person waits for.
const STANDBY: Duration = Duration::from_millis(10);

/// The completion rings of a set, and who processes them.
#[derive(Debug)]
pub(super) struct CompletionPort {
    set: Arc<OpenSet>,
    rings: Mutex<Rings>,
    /// An agent runs, or ran until the end.
    agent: AtomicBool,
    /// How many readers there are. Changes under the lock.
    readers: AtomicU32,
    /// The last reader has left.
    no_readers: Condvar,
}

#[derive(Debug)]
struct Rings {
    /// By device.
    consumers: Vec<CompletionReceiver>,
    /// Completions that came, the ignored one among them.
    came: u64,
    /// Completions that were processed.
    processed: u64,
}

impl CompletionPort {
    pub(super) fn new(set: Arc<OpenSet>, consumers: Vec<CompletionReceiver>) -> CompletionPort {
        CompletionPort {
            set,
            rings: Mutex::new(Rings { consumers, came: 0, processed: 0 }),
            agent: AtomicBool::new(false),
            readers: AtomicU32::new(0),
            no_readers: Condvar::new(),
        }
    }

    pub(super) fn set(&self) -> &OpenSet {
        &self.set
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        // A routine that panicked has left the rings between two completions.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the caller the agent; false when there is one, or one ran until the end.
    pub(super) fn begin_agent(&self) -> bool {
        !self.agent.swap(true, Ordering::Acquire)
    }

    /// The caller, which is the agent, may be followed by another one.
    pub(super) fn leave_agent(&self) {
        self.agent.store(false, Ordering::Release);
    }

    /// Whether there is something to process.
    pub(super) fn is_ready(&self) -> bool {
        self.rings().is_ready(&self.set)
    }

    /// How many completions were processed so far.
    pub(super) fn processed(&self) -> u64 {
        self.rings().processed
    }

    /// Processes the completions that are there; true when there were any. A client that breaks the protocol aborts the
    /// set. Once every device was closed in order, nothing is processed any more.
    pub(super) fn process(&self) -> bool {
        let mut rings = self.rings();
        let before = rings.came;
        if !self.set.has_ended()
            && let Err((process, evidence)) = rings.process(&self.set)
        {
            if !self.set.has_ended() {
                self.set.session.report_violation(process, evidence);
            }
            return true;
        }
        rings.came != before
    }

    /// Whether the agent may stand by.
    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Agent: stands by while there are readers, for at most [`STANDBY`] and at most `limit`.
    pub(super) fn stand_by(&self, limit: Option<Duration>) {
        let time = limit.map_or(STANDBY, |limit| limit.min(STANDBY));
        drop(self.no_readers.wait_timeout_while(self.rings(), time, |_| self.has_readers()));
    }
}

impl Rings {
    fn is_ready(&self, set: &OpenSet) -> bool {
        // A ring that was overwritten stays ready.
        !set.has_ended() && self.consumers[..set.opened() as usize].iter().any(CompletionReceiver::is_ready)
    }

    /// Processes what is there; who broke the protocol, and the evidence, if it was broken.
    fn process(&mut self, set: &OpenSet) -> Result<(), (Process, String)> {
        let opened = set.opened() as usize;
        for (device, consumer) in set.devices.iter().zip(&mut self.consumers[..opened]) {
            // At most what can be outstanding, so that a fast client does not keep the other devices waiting.
            for _ in 0..QUEUE_DEPTH {
                // The sender of a record with a wrong checksum is unknown.
                let popped = consumer.pop().map_err(|violation| (Process::Unknown, violation.to_string()))?;
                let Some(record) = popped else { break };
                self.came += 1;
                if set.agent_faults.ignored_completion == Some(self.came) {
                    continue;
                }
                self.processed += 1;
                device.completed(record).map_err(|evidence| (device.client(), evidence))?;
            }
        }
        Ok(())
    }
}

/// A thread that processes completions while it waits for what they bring.
#[derive(Debug)]
pub(crate) struct CompletionReader(Arc<CompletionPort>);

impl CompletionReader {
    pub(super) fn new(port: &Arc<CompletionPort>) -> CompletionReader {
        let rings = port.rings();
        port.readers.fetch_add(1, Ordering::Relaxed);
        drop(rings);
        CompletionReader(Arc::clone(port))
    }

    /// Processes the completions that are there; true when there were any.
    pub(crate) fn process(&self) -> bool {
        self.0.process()
    }

    /// Processes completions until `ready` gives something; `None` once the set is aborted or closed. What provides it
    /// wakes readers afterwards.
    pub(crate) fn wait<T>(&self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let (port, set) = (&*self.0, self.0.set());
        let control = set.session.control();
        let is_over = || set.is_aborted() || set.is_closed();
        loop {
            if let Some(found) = ready() {
                return Some(found);
            }
            if is_over() {
                return None;
            }
            if port.process() {
                continue;
            }
            let look = || match ready() {
                Some(found) => Some(Some(found)),
                None => (is_over() || port.is_ready()).then_some(None),
            };
            if let Some(Some(found)) = wait::wait_once(control.agent_event(), control.spin(), None, look) {
                return Some(found);
            }
        }
    }
}

impl Drop for CompletionReader {
    fn drop(&mut self) {
        let rings = self.0.rings();
        let last = self.0.readers.fetch_sub(1, Ordering::Relaxed) == 1;
        drop(rings);
        if last {
            self.0.no_readers.notify_one();
        }
    }
}

/// Wakes readers that wait for something other than a completion.
#[derive(Debug, Clone)]
pub(crate) struct ReaderWaker(Arc<Session>);

impl ReaderWaker {
    pub(super) fn new(session: &Arc<Session>) -> ReaderWaker {
        ReaderWaker(Arc::clone(session))
    }

    pub(crate) fn wake(&self) {
        self.0.control().agent_event().notify();
    }
}

#[cfg(test)]
mod tests;
