//! The completion agent: one thread that handles the completions of all devices of a set, or stands by while others do
//! ([`super::help`]).

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use vdi_proto::abort::{Cause, Party};
use vdi_proto::command::CompletionRecord;
use vdi_proto::device::QUEUE_DEPTH;
use vdi_proto::set::server::Call;
use vdi_proto::status::VdError;
use vdi_proto::timeout::ServerTimeOut;
use vdi_shm::ring::{Consumer, RingMemory};
use vdi_shm::segment::Shared;
use vdi_shm::wait;

use super::error::VdsError;
use super::help::stand_by;
use super::set::{OpenSet, ServerVirtualDeviceSet};
use super::watch::Watch;
use crate::trace;

/// The reading ends of all completion rings.
pub(super) type Completions = Vec<Consumer<Shared<RingMemory>>>;

/// Why the agent stops looking.
enum Event {
    Completions,
    Closed,
    Aborted,
}

impl ServerVirtualDeviceSet {
    /// Handles completions on the caller's thread until Close (`Ok`) or an abort. It has to run for commands to complete, and
    /// calls their routines.
    ///
    /// # Errors
    /// VD_E_ABORT when the set was aborted: everything outstanding has ended with ERROR_OPERATION_ABORTED by then. VD_E_PROTOCOL
    /// when it runs already, or is called too early.
    pub fn execute_completion_agent(&self) -> Result<(), VdsError> {
        const CALL: &str = "ExecuteCompletionAgent";
        let (set, mut completions) = self.begin_agent(CALL)?;
        if run(&set, &mut completions) { Ok(()) } else { Err(set.error(CALL, VdError::Abort)) }
    }

    /// Handles the completions that are there, on the caller's thread, and returns whether there were any: the completion agent
    /// in single steps, for servers that have no thread for it. Neither the client's time-out nor whether anybody takes back what
    /// was sent is watched meanwhile.
    ///
    /// # Errors
    /// As of [`ServerVirtualDeviceSet::execute_completion_agent`].
    pub fn handle_completions(&self) -> Result<bool, VdsError> {
        const CALL: &str = "HandleCompletions";
        let (set, mut completions) = self.begin_agent(CALL)?;
        let opened = set.opened() as usize;
        let any = take(&set, &mut completions[..opened]);
        // Before it is looked whether they brought an abort: it is told by the next call as well.
        *set.completions.lock().unwrap_or_else(PoisonError::into_inner) = Some(completions);
        if set.session.abort_reason().is_some() && !set.has_ended() {
            set.tell_abort();
            set.devices().iter().for_each(|device| device.abort());
            return Err(set.error(CALL, VdError::Abort));
        }
        Ok(any)
    }

    /// The set, and the reading ends, which one agent has at a time.
    fn begin_agent(&self, call: &'static str) -> Result<(Arc<OpenSet>, Completions), VdsError> {
        let set = self.opened(call)?;
        set.step(Call::ExecuteCompletionAgent).map_err(|code| {
            if set.session.abort_reason().is_some() {
                set.tell_abort();
                // The abort was faster than the agent; what was sent before has to end all the same.
                set.devices().iter().for_each(|device| device.abort());
            }
            set.error(call, code)
        })?;
        let taken = set.completions.lock().unwrap_or_else(PoisonError::into_inner).take();
        let what = "it runs already, or ran until the end";
        let completions = taken.ok_or_else(|| VdsError::new(call, set.session.set_name(), VdError::Protocol, what))?;
        Ok((set, completions))
    }
}

/// How often all devices are looked through between two looks at the clock: reading it takes longer than a client needs to answer.
const TURNS: u32 = 64;

/// Handles completions until the set is closed or aborted; true when it was closed in order.
fn run(set: &OpenSet, completions: &mut Completions) -> bool {
    let mut books = Books::new(set);
    loop {
        let opened = set.opened() as usize;
        let there = || are_there(set, &completions[..opened]);
        let look = || {
            if set.session.abort_reason().is_some() && !set.has_ended() {
                Some(Event::Aborted)
            } else if there() {
                Some(Event::Completions)
            } else if set.is_closed() {
                Some(Event::Closed)
            } else if set.opened() as usize != opened {
                // More devices to look at.
                Some(Event::Completions)
            } else {
                None
            }
        };
        let mut event = look().or_else(|| wait::briefly(there).then_some(Event::Completions));
        if event.is_none() {
            // Before it sleeps, the clock has to know what came.
            if books.turns > 0 {
                books.keep(set);
            }
            if set.helping.has_helpers() {
                books.completed = stand_by(set, completions, books.time_out_watch.look_again_after());
                // What came while all helpers had something else to do is no sign of a client that takes its time.
                event = are_there(set, &completions[..opened]).then_some(Event::Completions);
            } else {
                let control = set.session.control();
                event = wait::wait_once(control.agent_doorbell(), control.spin(), books.deadline(), look);
            }
        }
        match event {
            Some(Event::Completions) => {
                books.completed |= take(set, &mut completions[..opened]);
                books.turns += 1;
                if books.turns == TURNS {
                    books.keep(set);
                }
            }
            Some(Event::Closed) => return true,
            Some(Event::Aborted) => {
                set.tell_abort();
                // What the client completed before it saw the abort counts.
                take(set, completions);
                set.devices().iter().for_each(|device| device.abort());
                return false;
            }
            None => books.keep(set),
        }
    }
}

/// What the agent has to do now and then: it watches the client's time-out, and whether what was told is still there. What it finds
/// aborts the set, which the agent sees as it sees anybody's abort.
struct Books {
    started: Instant,
    /// In milliseconds; 0 for none.
    time_out: u32,
    time_out_watch: ServerTimeOut,
    watch: Watch,
    /// Times that completions came, or devices, since this was done.
    turns: u32,
    /// Whether any of them was a completion.
    completed: bool,
}

impl Books {
    fn new(set: &OpenSet) -> Books {
        let time_out = set.pretence.server_time_out.unwrap_or(set.session.asked().server_time_out);
        Books {
            started: Instant::now(),
            time_out,
            time_out_watch: ServerTimeOut::new(time_out, Duration::ZERO),
            watch: Watch::new(set),
            turns: 0,
            completed: false,
        }
    }

    /// When the time-out has to be looked at again.
    fn deadline(&self) -> Option<Instant> {
        self.time_out_watch.look_again_after().and_then(wait::deadline)
    }

    fn keep(&mut self, set: &OpenSet) {
        // Without a time-out nobody asks what time it is, nor whether anything is pending.
        let timed = self.time_out != 0;
        let now = if timed { self.started.elapsed() } else { Duration::ZERO };
        self.time_out_watch.completed(now, self.completed);
        (self.turns, self.completed) = (0, false);
        if let Some(evidence) = self.watch.look(set) {
            set.session.accuse(Party::Somebody, evidence);
            return;
        }
        let pending = timed && set.devices().iter().any(|device| device.outstanding() > 0);
        if self.time_out_watch.expired(now, pending) {
            let (name, time_out) = (set.session.set_name(), self.time_out);
            trace::event!(INFO, set = name, server_time_out_ms = time_out, "serverTimeOut passed");
            set.session.abort_for(Party::Server, Cause::TimedOut);
        }
    }
}

/// Whether there are completions to handle. What anybody does after every device was closed changes nothing, and a ring that was
/// written over stays so.
fn are_there(set: &OpenSet, completions: &[Consumer<Shared<RingMemory>>]) -> bool {
    completions.iter().any(Consumer::is_ready) && !set.has_ended()
}

/// Handles what there is; true when something completed.
pub(super) fn take(set: &OpenSet, completions: &mut [Consumer<Shared<RingMemory>>]) -> bool {
    let mut any = false;
    for (device, consumer) in set.devices().iter().zip(completions) {
        // Not more than can be outstanding: a client that answers as fast as routines send again does not keep the others waiting.
        for _ in 0..QUEUE_DEPTH {
            let handled = match consumer.pop() {
                Ok(None) => break,
                Ok(Some(words)) => {
                    if let Some(ignored) = set.pretence.ignored_completion
                        && set.seen.fetch_add(1, Ordering::Relaxed) + 1 == ignored
                    {
                        continue;
                    }
                    let handled = device.completed(CompletionRecord::from_words(words));
                    handled.map_err(|violation| (device.client(), violation.to_string()))
                }
                // What bears no seal may be anybody's.
                Err(violation) => Err((Party::Somebody, violation.to_string())),
            };
            any = true;
            if let Err((party, evidence)) = handled {
                if !set.has_ended() {
                    set.session.accuse(party, evidence);
                }
                return any;
            }
        }
    }
    any
}
