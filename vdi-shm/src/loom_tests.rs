//! Model checks: rings, doorbells, slots and the words of the set over all interleavings and all stale values that the
//! memory model allows.
//!
//! Loom's sequentially consistent fences also order what is not atomic between them, so a data race that such a fence hides
//! by accident would not be found here; the words themselves are all atomic. Loom takes a sequentially consistent *access*
//! for an acquire and release one, so there are none: where two sides write first and look then, a fence stands between.
//!
//! Each model fails when something that it needs is weakened: `weakened.rs` goes through the list, one at a time.

mod announcements;
mod doorbell;
mod holding;
mod ring;
mod slots;
mod weakened;

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::atomics::{AtomicU32, Ordering, in_order};
use crate::doorbell::{Doorbell, Futex, Word};

/// Checks a model, with at most this many preemptions where that is given. Fails unless at least `floor` executions were
/// explored, so that a model that became trivial is noticed.
fn check(name: &str, preemptions: Option<usize>, floor: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = StdArc::new(AtomicUsize::new(0));
    let counter = StdArc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.max_permutations = weakened::most_executions(&executions);
    builder.check(move || {
        counter.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    if weakened::is_seeded() {
        return;
    }
    let executions = executions.load(StdOrdering::Relaxed);
    println!("{name}: {executions} executions");
    assert!(executions >= floor, "{name} explored {executions} executions only, {floor} at least were expected");
}

/// The futex as the system has it: looking at the word and falling asleep are one step, with the waking. Nobody wakes by
/// time or for no reason, so a wake-up that is lost is a deadlock, which loom reports.
#[derive(Default)]
struct ModelFutex {
    /// Wake-ups so far.
    wakes: Mutex<u32>,
    bed: Condvar,
}

impl Futex for ModelFutex {
    fn wait(&self, word: &Word, expected: u32, _timeout: Duration) {
        let mut wakes = self.wakes.lock().expect("no thread panics");
        if word.load(Ordering::Relaxed) != expected {
            return;
        }
        let before = *wakes;
        while *wakes == before {
            wakes = self.bed.wait(wakes).expect("no thread panics");
        }
    }

    fn wake_all(&self, _word: &Word) {
        *self.wakes.lock().expect("no thread panics") += 1;
        self.bed.notify_all();
    }
}

/// The futex of a process that dies between changing the word and waking.
struct DiesBeforeWaking;

impl Futex for DiesBeforeWaking {
    fn wait(&self, _word: &Word, _expected: u32, _timeout: Duration) {
        unreachable!("it rings only");
    }

    fn wake_all(&self, _word: &Word) {}
}

/// Waits as [`crate::wait::wait_until`] does that has no deadline and does not spin.
fn wait_until<T>(doorbell: &Doorbell, futex: &ModelFutex, mut ready: impl FnMut() -> Option<T>) -> T {
    if let Some(found) = ready() {
        return found;
    }
    loop {
        if let Some(found) = doorbell.wait(Duration::MAX, futex, &mut ready) {
            return found;
        }
    }
}

/// A byte of a buffer: as plain memory, so that loom reports a race if nothing orders the accesses.
#[derive(Default)]
struct Byte(UnsafeCell<u8>);

#[allow(unsafe_code)]
impl Byte {
    fn write(&self, value: u8) {
        // SAFETY: loom checks that no other thread accesses the cell meanwhile, and fails the model otherwise.
        self.0.with_mut(|byte| unsafe { *byte = value });
    }

    fn read(&self) -> u8 {
        // SAFETY: as in `write`.
        self.0.with(|byte| unsafe { *byte })
    }
}

// SAFETY: as in `Byte::write`.
#[allow(unsafe_code)]
unsafe impl Sync for Byte {}
