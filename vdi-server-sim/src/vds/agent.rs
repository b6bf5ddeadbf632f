//! The completion agent: one thread that handles the completions of all devices of a set.

use std::time::{Duration, Instant};

use vdi_proto::abort::{Cause, Party};
use vdi_proto::command::CompletionRecord;
use vdi_proto::timeout::ServerTimeOut;
use vdi_shm::ring::{Consumer, RingMemory};
use vdi_shm::segment::Shared;
use vdi_shm::wait;

use super::set::OpenSet;
use crate::trace;

/// The reading ends of all completion rings.
pub(super) type Completions = Vec<Consumer<Shared<RingMemory>>>;

/// Why the agent stops looking.
enum Event {
    Completions,
    Closed,
    Aborted,
}

/// Handles completions until the set is closed or aborted; true when it was closed in order.
pub(super) fn run(set: &OpenSet, completions: &mut Completions) -> bool {
    let started = Instant::now();
    let now = || started.elapsed();
    let time_out = set.pretence.server_time_out.unwrap_or(set.session.asked().server_time_out);
    let mut watch = ServerTimeOut::new(time_out, Duration::ZERO);
    let mut seen = 0;
    loop {
        let opened = set.opened() as usize;
        let deadline = watch.look_again_after().and_then(|patience| Instant::now().checked_add(patience));
        let event = wait::wait_until(set.session.control().agent_doorbell(), deadline, || {
            // What anybody does after every device was closed changes nothing.
            if set.session.abort_reason().is_some() && !set.has_ended() {
                Some(Event::Aborted)
            } else if completions[..opened].iter().any(Consumer::is_ready) {
                Some(Event::Completions)
            } else if set.is_closed() {
                Some(Event::Closed)
            } else if set.opened() as usize != opened {
                // More devices to look at.
                Some(Event::Completions)
            } else {
                None
            }
        });
        match event {
            Some(Event::Completions) => {
                let completed = take(set, &mut completions[..opened], &mut seen);
                watch.completed(now(), completed);
            }
            Some(Event::Closed) => return true,
            Some(Event::Aborted) => {
                set.tell_abort();
                // What the client completed before it saw the abort counts.
                take(set, completions, &mut seen);
                set.devices().iter().for_each(|device| device.abort());
                return false;
            }
            None => {}
        }
        let pending = set.devices().iter().any(|device| device.outstanding() > 0);
        if watch.expired(now(), pending) {
            let name = set.session.set_name();
            trace::event!(INFO, set = name, server_time_out_ms = time_out, "serverTimeOut passed");
            set.session.abort_for(Party::Server, Cause::TimedOut);
        }
    }
}

/// Handles what there is, and counts it in `seen`; true when something completed.
fn take(set: &OpenSet, completions: &mut [Consumer<Shared<RingMemory>>], seen: &mut u64) -> bool {
    let mut any = false;
    for (device, consumer) in set.devices().iter().zip(completions) {
        loop {
            let handled = match consumer.pop() {
                Ok(None) => break,
                Ok(Some(words)) => {
                    *seen += 1;
                    if set.pretence.ignored_completion == Some(*seen) {
                        continue;
                    }
                    device.completed(CompletionRecord::from_words(words)).map_err(|violation| violation.to_string())
                }
                Err(violation) => Err(violation.to_string()),
            };
            any = true;
            if let Err(evidence) = handled {
                set.session.accuse(device.client(), evidence);
                return any;
            }
        }
    }
    any
}
