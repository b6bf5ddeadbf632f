//! Child processes of the demo, none of which outlives it.
//!
//! # Invariants
//!
//! 1. A child is on the list from its start until it was waited for, and is waited for under the list's lock. So the number of a child
//!    on the list is its own, and no signal goes to another process. No other code waits for a child: the system does not either ([`wait_for_own`]).
//! 2. A signal that ends the demo kills the children first. What the demo then does is to fail, and to clean up on the way. The second
//!    signal ends it at once.
//! 3. A child that is started by [`start`] has a pipe from the demo as its standard input, and ends when that closes: also
//!    when the demo is killed without a chance to do anything ([`end_with_input`]).

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

/// Kills one that is on the list.
fn kill(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// To be called before the first child starts. Where the parent process ignored SIGCHLD, and the system would wait for this process's
/// children itself, this process waits for them from now on.
pub(crate) fn wait_for_own() -> std::io::Result<()> {
    // A handler takes the place of the disposition; what it does is of no interest.
    flag::register(SIGCHLD, Arc::default()).map(drop)
}

/// From now on, signals that ask the demo to end kill its children instead, so that it ends by itself.
pub(crate) fn watch_signals() -> std::io::Result<()> {
    let (ending, second) = ([SIGINT, SIGTERM, SIGHUP], Arc::<AtomicBool>::default());
    for signal in ending {
        // In this order: what the first signal sets counts for the second.
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

/// An error once a signal has asked the demo to end.
pub(crate) fn check_interrupted() -> Result<(), String> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err("interrupted".to_owned()) } else { Ok(()) }
}

/// A child that is killed unless it was waited for.
pub(crate) struct Guard(pub(crate) Child);

/// Starts a child.
pub(crate) fn start(program: &mut Command) -> Result<Guard, Box<dyn std::error::Error>> {
    // Under the lock, so that a signal finds it on the list or is seen below.
    let mut list = running();
    check_interrupted()?;
    let child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    list.push(child.id());
    Ok(Guard(child))
}

impl Guard {
    pub(crate) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        // Waiting would close the pipe, which the child takes for the end; so it is closed only afterwards.
        let input = self.0.stdin.take();
        let id = self.0.id();
        let ended = || waitid(WaitId::Pid(Pid::from_child(&self.0)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // An error comes again below.
        let _ = rustix::io::retry_on_intr(ended);
        drop(input);
        let mut list = running();
        list.retain(|other| *other != id);
        self.0.wait()
    }
}

/// Kills a child by its number if it was not waited for yet.
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

/// In a child: ends this process when its standard input closes.
pub(crate) fn end_with_input() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        std::process::exit(1);
    });
}
