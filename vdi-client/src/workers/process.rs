//! The process of a worker.
//!
//! # Invariants
//!
//! 1. A signal reaches the worker or no process. A process's number is another's once it was waited for, and that may happen at any time: by
//!    the system, where this process ignores SIGCHLD, or by a host that waits for all of its children. So the worker is held by a
//!    descriptor (pidfd), and only a child of this process that was not waited for gets a signal.
//! 2. That somebody else has waited for it is no failure: how it ended is unknown then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, pidfd_open, pidfd_send_signal, waitid,
};

pub(super) struct Process {
    id: Pid,
    /// `None` where the system has none (Linux before 5.4, or forbidden): then the number has to do.
    descriptor: Option<OwnedFd>,
}

impl Process {
    /// The process of a child that was just started, without its pipes.
    pub(super) fn new(child: &Child) -> Process {
        let id = Pid::from_child(child);
        let process = Process { id, descriptor: pidfd_open(id, PidfdFlags::empty()).ok() };
        match waitid(process.wait_id(), Process::LOOK) {
            // The system can open descriptors and cannot wait by them.
            Err(Errno::INVAL) => Process { id, descriptor: None },
            _ => process,
        }
    }

    /// Looks at a child, and leaves it as it is.
    const LOOK: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);

    fn wait_id(&self) -> WaitId<'_> {
        match &self.descriptor {
            Some(descriptor) => WaitId::PidFd(descriptor.as_fd()),
            None => WaitId::Pid(self.id),
        }
    }

    /// Its number, for messages.
    pub(super) fn id(&self) -> u32 {
        self.id.as_raw_nonzero().get().unsigned_abs()
    }

    /// SIGKILL, unless it was waited for.
    pub(super) fn kill(&self) {
        if waitid(self.wait_id(), Process::LOOK).is_ok() {
            let _ = match &self.descriptor {
                Some(descriptor) => pidfd_send_signal(descriptor, Signal::KILL),
                None => kill_process(self.id, Signal::KILL),
            };
        }
    }

    /// Waits for its end; `None` where somebody else did.
    pub(super) fn wait(&self) -> io::Result<Option<ExitStatus>> {
        match retry_on_intr(|| waitid(self.wait_id(), WaitIdOptions::EXITED)) {
            Ok(ended) => Ok(ended.map(|ended| status(&ended))),
            Err(Errno::CHILD) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The status in the form that `wait` has it.
fn status(ended: &WaitIdStatus) -> ExitStatus {
    const DUMPED: i32 = 0x80;
    let signal = ended.terminating_signal().unwrap_or(0) | if ended.dumped() { DUMPED } else { 0 };
    ExitStatus::from_raw(ended.exit_status().map_or(signal, |code| (code & 0xFF) << 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn start(program: &str, argument: &str) -> Child {
        Command::new(program).arg(argument).stdin(Stdio::null()).spawn().expect("a child")
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "what is tested here waits")]
    fn the_end_of_a_process_is_what_the_system_says() {
        let ends = |script: &str| {
            let child = Command::new("sh").args(["-c", script]).spawn().expect("a shell");
            Process::new(&child).wait().expect("a wait").expect("a status")
        };
        assert!(ends("exit 0").success());
        assert_eq!(ends("exit 3").code(), Some(3));
        assert_eq!(ends("kill -TERM $$").signal(), Some(15));
        let child = start("sleep", "1000");
        let process = Process::new(&child);
        process.kill();
        assert_eq!(process.wait().expect("a wait").and_then(|status| status.signal()), Some(9));
    }

    #[test]
    fn a_process_that_another_part_of_the_host_waited_for_has_an_unknown_end() {
        for descriptor in [true, false] {
            let mut child = start("true", "");
            let mut process = Process::new(&child);
            if !descriptor {
                process.descriptor = None;
            }
            child.wait().expect("a wait");
            assert!(process.wait().expect("no failure").is_none());
            process.kill();
        }
    }

    /// The number of a worker that is gone is another process's by then, which was killed with the pool.
    #[test]
    fn a_process_with_the_number_of_a_worker_that_is_gone_lives() {
        let mut worker = start("true", "");
        let process = Process::new(&worker);
        worker.wait().expect("a wait");
        if process.descriptor.is_none() {
            eprintln!("skipped: this system has no descriptors of processes");
            return;
        }
        // Asks the system for the same number; other processes may be faster.
        let before = (process.id() - 1).to_string();
        for _ in 0..1000 {
            if std::fs::write("/proc/sys/kernel/ns_last_pid", &before).is_err() {
                eprintln!("skipped: only root may choose the numbers of processes");
                return;
            }
            let mut other = start("sleep", "1000");
            let same = other.id() == process.id();
            if same {
                process.kill();
            }
            let ended = other.try_wait();
            let _ = other.kill();
            let _ = other.wait();
            if same {
                assert!(matches!(ended, Ok(None)), "{ended:?}");
                return;
            }
        }
        eprintln!("skipped: the number of the worker is taken again and again");
    }
}
