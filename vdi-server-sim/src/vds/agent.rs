//! The completion agent: the thread that processes the completions of a set. It stands by while readers process them.

use std::time::{Duration, Instant};

use vdi_proto::abort::{Cause, Process};
use vdi_proto::timeout::ServerTimeOut;
use vdi_shm::ipc::wait;

use super::completions::CompletionPort;
use super::open_set::OpenSet;
use crate::trace;

/// Processes completions until the set is closed or aborted. Returns true if the set was closed in order.
pub(super) fn run(port: &CompletionPort) -> bool {
    let set = port.set();
    let mut housekeeping = Housekeeping::new(set);
    loop {
        if set.was_aborted() {
            // Completions that the client sent before it saw the abort count.
            port.process();
            set.abort_devices();
            return false;
        }
        if port.process() {
            continue;
        }
        if set.is_closed() {
            return true;
        }
        housekeeping.run(port);
        if port.has_readers() {
            port.stand_by(housekeeping.due_in());
            continue;
        }
        let opened = set.opened();
        // Processes completions in the check itself. A separate check would take the lock of the rings twice.
        let check = || {
            let woken = port.process() || set.was_aborted() || set.is_closed();
            (woken || port.has_readers() || set.opened() != opened).then_some(())
        };
        let deadline = housekeeping.due_in().and_then(wait::deadline);
        let control = set.session.control();
        wait::wait_once(control.agent_event(), control.spin(), deadline, check);
    }
}

/// Watches serverTimeOut. When it has passed, the set is aborted.
struct Housekeeping {
    started: Instant,
    /// In milliseconds; 0 for no time-out.
    time_out: u32,
    watch: ServerTimeOut,
    /// Completions processed by the agent and by readers, as of the last run.
    processed: u64,
}

impl Housekeeping {
    fn new(set: &OpenSet) -> Housekeeping {
        let time_out = set.agent_faults.server_time_out.unwrap_or(set.session.requested().server_time_out);
        let watch = ServerTimeOut::new(time_out, Duration::ZERO);
        Housekeeping { started: Instant::now(), time_out, watch, processed: 0 }
    }

    /// The time until the next run is due; `None` for never.
    fn due_in(&self) -> Option<Duration> {
        self.watch.check_interval()
    }

    fn run(&mut self, port: &CompletionPort) {
        if self.time_out == 0 {
            return;
        }
        let (set, now) = (port.set(), self.started.elapsed());
        let processed = port.processed();
        self.watch.completed(now, processed != self.processed);
        self.processed = processed;
        let pending = set.devices.iter().any(|device| device.outstanding() > 0);
        if self.watch.expired(now, pending) {
            let name = set.session.set_name();
            trace::event!(INFO, set = name, server_time_out_ms = self.time_out, "serverTimeOut passed");
            set.session.abort_for(Process::Server, Cause::TimedOut);
        }
    }
}
