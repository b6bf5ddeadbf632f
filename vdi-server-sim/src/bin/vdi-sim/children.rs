//! Child processes of the demo. No child outlives the demo.
//!
//! # Invariants
//!
//! 1. A child is on the list from its start until it is reaped. It is reaped under the lock of the list. So the process id of a
//!    child on the list is not reused, and no signal goes to another process. No other code reaps children, and the system does
//!    not either ([`reap_own_children`]).
//! 2. The first signal kills the children. The demo then fails, and cleans up. The second signal ends the demo at once.
//! 3. The standard input of a child is a pipe from the demo. The child ends when the pipe closes ([`end_with_input`]), so it also
//!    ends when the demo is killed.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a child that is on the list.
fn kill(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Makes sure that only this process reaps its children. If the parent process ignored SIGCHLD, the system would reap them.
/// Called before the first child starts.
pub(crate) fn reap_own_children() -> std::io::Result<()> {
    // Any handler replaces the disposition. This one does nothing of use.
    flag::register(SIGCHLD, Arc::default()).map(drop)
}

/// Makes SIGINT, SIGTERM and SIGHUP kill the children. The demo then ends by itself, with an error.
pub(crate) fn watch_signals() -> std::io::Result<()> {
    let (ending, second) = ([SIGINT, SIGTERM, SIGHUP], Arc::<AtomicBool>::default());
    for signal in ending {
        // The order matters: the second signal must see the flag that the first one set.
        flag::register_conditional_default(signal, Arc::clone(&second))?;
        flag::register(signal, Arc::clone(&second))?;
    }
    let mut signals = Signals::new(ending)?;
    std::thread::Builder::new().spawn(move || {
        for _ in signals.forever() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            running().iter().copied().for_each(kill);
        }
    })?;
    Ok(())
}

/// Returns an error after a signal.
pub(crate) fn check_interrupted() -> Result<(), String> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err("interrupted".to_owned()) } else { Ok(()) }
}

/// A child. Dropping it kills and reaps it, unless it was reaped.
pub(crate) struct Guard(pub(crate) Child);

/// Starts a child.
pub(crate) fn start(program: &mut Command) -> Result<Guard, Box<dyn std::error::Error>> {
    // Under the lock, so that a signal is either seen here or finds the child on the list.
    let mut list = running();
    check_interrupted()?;
    let child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    list.push(child.id());
    Ok(Guard(child))
}

impl Guard {
    pub(crate) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        // `Child::wait` closes the pipe first, which ends the child. So the pipe is closed after the child has ended.
        let input = self.0.stdin.take();
        let id = self.0.id();
        let ended = || waitid(WaitId::Pid(Pid::from_child(&self.0)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // `Child::wait` below returns the same error.
        let _ = rustix::io::retry_on_intr(ended);
        drop(input);
        let mut list = running();
        list.retain(|other| *other != id);
        self.0.wait()
    }
}

/// Kills a child by its process id, unless it was reaped.
pub(crate) fn kill_if_running(id: u32) {
    let list = running();
    if list.contains(&id) {
        kill(id);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if running().contains(&self.0.id()) {
            let _ = self.0.kill();
            let _ = self.wait();
        }
    }
}

/// Ends this process when its standard input closes. Called in a child.
pub(crate) fn end_with_input() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        std::process::exit(1);
    });
}
