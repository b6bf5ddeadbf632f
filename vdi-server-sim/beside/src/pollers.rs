//! Threads that poll: for as long as something may come, and never in the way of those whom they wait for.
//!
//! A peer's pollers are at work from the line [`GO`] on, until the line [`REST`]; in between they sleep on what the lines are
//! told by, and not on a clock. There are more of them than CPUs, the driver's thread included, so one that finds nothing
//! leaves its CPU to whoever may have something to send.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::processes::{Fallible, Process, next_line, tell};

/// Said to a peer before something is sent.
const GO: &str = "go";
/// Said to a peer when nothing is under way any more; it answers with the same.
const REST: &str = "rest";

/// Has the pollers of a peer work for as long as `work` takes.
pub fn at_work<T>(peer: &mut Process, work: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    peer.say(GO)?;
    let worked = work()?;
    peer.say(REST)?;
    match peer.hear()?.as_str() {
        REST => Ok(worked),
        other => Err(format!("a peer that was to rest said {other:?}").into()),
    }
}

/// Whether the pollers of this process have anything to look for.
#[derive(Debug, Default)]
pub struct Shift {
    /// Changed with the lock, and read without.
    on: AtomicBool,
    lock: Mutex<()>,
    begun: Condvar,
}

impl Shift {
    /// Begins and ends the pollers' work as the lines say, until they end. From then on the pollers work until they have found
    /// their own end.
    pub fn follow_lines(&self) -> Fallible<()> {
        let followed = self.follow();
        self.begin();
        followed
    }

    fn follow(&self) -> Fallible<()> {
        while let Some(line) = next_line()? {
            match line.as_str() {
                GO => self.begin(),
                REST => {
                    self.on.store(false, Ordering::Relaxed);
                    tell(REST)?;
                }
                other => return Err(format!("pollers were told to {other}").into()),
            }
        }
        Ok(())
    }

    fn begin(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.on.store(true, Ordering::Relaxed);
        drop(lock);
        self.begun.notify_all();
    }

    /// Sleeps until there is something to look for.
    #[cold]
    fn rest(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = |(): &mut ()| !self.on.load(Ordering::Relaxed);
        drop(self.begun.wait_while(lock, resting).unwrap_or_else(PoisonError::into_inner));
    }
}

/// How often in a row a poller looks in vain before it leaves its CPU to others for once.
const LOOKS: u32 = 16;

/// What a poller does between two looks over everything.
#[derive(Debug, Default)]
pub struct Poller<'a> {
    shift: Option<&'a Shift>,
    in_vain: u32,
}

impl<'a> Poller<'a> {
    /// One of a peer's pollers. That of a driver, which polls only while something is under way, is the default.
    #[must_use]
    pub fn of_peer(shift: &'a Shift) -> Self {
        Poller { shift: Some(shift), in_vain: 0 }
    }

    /// A look over everything has found something, or nothing.
    #[inline]
    pub fn looked(&mut self, found: bool) {
        if found {
            self.in_vain = 0;
            return;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        if self.in_vain >= LOOKS {
            match self.shift {
                Some(shift) if !shift.on.load(Ordering::Relaxed) => shift.rest(),
                _ => std::thread::yield_now(),
            }
        } else {
            std::hint::spin_loop();
        }
    }
}
