//! Completion processing, by the completion agent or by a reader that waits for the result of a completion.
//!
//! A reader that waits for a buffer may process completions itself. This saves two wake-ups: of the agent, and of the
//! reader by the agent.
//!
//! # Invariants
//!
//! 1. One thread at a time processes completions: it holds the lock of the rings. So the completions of a device are
//!    processed in their order.
//! 2. A completion waits at most [`STANDBY`] for a thread that processes it, even if all readers are busy. While there are
//!    readers the agent stands by for that long, and then processes the completions that are there.
//! 3. Only the agent handles the time-out, the abort and the close. The last reader that leaves wakes it.
//! 4. A reader that sleeps misses no completion. It sleeps on the agent's event count, which clients notify, and checks the
//!    rings after it has armed the event count. The result that it waits for may come from a routine that another thread ran,
//!    so the routine wakes readers afterwards ([`ReaderWaker`]).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vdi_proto::abort::Process;
use vdi_proto::device::QUEUE_DEPTH;
use vdi_shm::ipc::wait;
use vdi_shm::set::record_ring::{CompletionReceiver, RecordViolation};
use vdi_shm::set::session::Session;

use super::open_set::OpenSet;

/// How long the agent stands by. Long compared to a transfer, short compared to a time-out.
const STANDBY: Duration = Duration::from_millis(10);

/// The completion rings of a set, and the threads that process them.
#[derive(Debug)]
pub(super) struct CompletionPort {
    set: Arc<OpenSet>,
    rings: Mutex<Rings>,
    /// An agent runs, or has run until the end of the set.
    agent: AtomicBool,
    /// The number of readers. Changes under the lock.
    readers: AtomicU32,
    /// Notified when the last reader has left.
    no_readers: Condvar,
}

#[derive(Debug)]
struct Rings {
    /// By device.
    consumers: Vec<CompletionReceiver>,
    /// Completions received, including an ignored one ([`super::AgentFaults`]).
    received: u64,
    /// Completions that were processed.
    processed: u64,
}

impl CompletionPort {
    pub(super) fn new(set: Arc<OpenSet>, consumers: Vec<CompletionReceiver>) -> CompletionPort {
        CompletionPort {
            set,
            rings: Mutex::new(Rings { consumers, received: 0, processed: 0 }),
            agent: AtomicBool::new(false),
            readers: AtomicU32::new(0),
            no_readers: Condvar::new(),
        }
    }

    pub(super) fn set(&self) -> &OpenSet {
        &self.set
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        // A routine that panics leaves the rings between two completions, so a poisoned lock is safe to use.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the caller the agent. Returns false if an agent runs, or has run until the end of the set.
    pub(super) fn begin_agent(&self) -> bool {
        !self.agent.swap(true, Ordering::Acquire)
    }

    /// The caller is no longer the agent. Another thread may become the agent.
    pub(super) fn leave_agent(&self) {
        self.agent.store(false, Ordering::Release);
    }

    /// Whether a completion is there.
    pub(super) fn is_ready(&self) -> bool {
        self.rings().is_ready(&self.set)
    }

    /// The number of completions processed so far.
    pub(super) fn processed(&self) -> u64 {
        self.rings().processed
    }

    /// Processes the completions that are there. Returns whether there were any. A protocol violation of the client aborts the
    /// set. After every device was closed in order, completions are ignored.
    pub(super) fn process(&self) -> bool {
        let mut rings = self.rings();
        let before = rings.received;
        if !self.set.has_ended()
            && let Err(violation) = rings.process(&self.set)
            && !self.set.has_ended()
        {
            // The sender of a record with a wrong checksum is unknown.
            self.set.session.report_violation(Process::Unknown, violation);
            return true;
        }
        rings.received != before
    }

    /// Whether the agent may stand by.
    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Waits until there are no readers, for at most [`STANDBY`] and at most `limit`. Called by the agent.
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

    /// Processes the completions that are there, up to the first protocol violation.
    fn process(&mut self, set: &OpenSet) -> Result<(), RecordViolation> {
        let opened = set.opened() as usize;
        for (device, consumer) in set.devices.iter().zip(&mut self.consumers[..opened]) {
            // At most as many as can be outstanding, so that a fast client does not delay the other devices.
            for _ in 0..QUEUE_DEPTH {
                let Some(record) = consumer.pop()? else { break };
                self.received += 1;
                if set.agent_faults.ignored_completion == Some(self.received) {
                    continue;
                }
                self.processed += 1;
                if !device.completed(record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A thread that processes completions while it waits for their results. The thread is counted as a reader until this is dropped.
#[derive(Debug)]
pub(crate) struct CompletionReader(Arc<CompletionPort>);

impl CompletionReader {
    pub(super) fn new(port: &Arc<CompletionPort>) -> CompletionReader {
        let rings = port.rings();
        port.readers.fetch_add(1, Ordering::Relaxed);
        drop(rings);
        CompletionReader(Arc::clone(port))
    }

    /// Processes the completions that are there. Returns whether there were any.
    pub(crate) fn process(&self) -> bool {
        self.0.process()
    }

    /// Processes completions until `ready` returns a value. Returns `None` once the set is aborted or closed. A thread that
    /// makes `ready` return a value wakes readers afterwards ([`ReaderWaker`]).
    pub(crate) fn wait<T>(&self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let (port, set) = (&*self.0, self.0.set());
        let control = set.session.control();
        let is_over = || set.is_aborted() || set.is_closed();
        loop {
            if let Some(value) = ready() {
                return Some(value);
            }
            if is_over() {
                return None;
            }
            if port.process() {
                continue;
            }
            let check = || match ready() {
                Some(value) => Some(Some(value)),
                None => (is_over() || port.is_ready()).then_some(None),
            };
            if let Some(Some(value)) = wait::wait_once(control.agent_event(), control.spin(), None, check) {
                return Some(value);
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

/// Wakes readers. Used after a change that a reader waits for and that is not a completion.
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
