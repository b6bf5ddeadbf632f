//! Model checks: all interleavings, and all stale values that the memory model allows.
//!
//! Loom's sequentially consistent fences also order plain memory between them, so a data race that such a fence hides by
//! accident is not found here; the words themselves are all atomic. Loom takes a sequentially consistent *access* for an
//! acquire and release one, so there are none: where two sides write first and load then, a fence stands between.
//!
//! Each model fails when an ordering that it needs is weakened: `weakened.rs` weakens them one at a time.

mod announcements;
mod event_count;
mod ring;
mod slots;
mod weakened;

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::time::Duration;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::ipc::atomics::{AtomicU32, Ordering};
use crate::ipc::event_count::EventCount;
use crate::ipc::futex::Futex;

/// Checks a model, with at most this many preemptions where that is given. Fails unless at least `floor` executions were
/// explored, so that a model that became trivial is noticed.
fn check(name: &str, preemptions: Option<usize>, floor: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = StdArc::new(AtomicUsize::new(0));
    let counter = StdArc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.max_permutations = weakened::max_executions(&executions);
    builder.check(move || {
        counter.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    if weakened::is_weakened() {
        return;
    }
    let executions = executions.load(StdOrdering::Relaxed);
    println!("{name}: {executions} executions");
    assert!(executions >= floor, "{name} explored {executions} executions only, {floor} at least were expected");
}

/// The futex as the system has it: the comparison of the word and falling asleep are one step with respect to waking. It
/// never wakes by time or for no reason, so a lost wake-up is a deadlock, which loom reports.
#[derive(Default)]
struct ModelFutex {
    /// Wake-ups so far.
    wakes: Mutex<u32>,
    sleepers: Condvar,
}

impl Futex for ModelFutex {
    fn wait(&self, word: &AtomicU32, expected: u32, _timeout: Duration) {
        let mut wakes = self.wakes.lock().expect("no thread panics");
        if word.load(Ordering::Relaxed) != expected {
            return;
        }
        let before = *wakes;
        while *wakes == before {
            wakes = self.sleepers.wait(wakes).expect("no thread panics");
        }
    }

    fn wake_all(&self, _word: &AtomicU32) {
        *self.wakes.lock().expect("no thread panics") += 1;
        self.sleepers.notify_all();
    }
}

/// The futex of a process that dies between changing the word and waking.
struct DiesBeforeWaking;

impl Futex for DiesBeforeWaking {
    fn wait(&self, _word: &AtomicU32, _expected: u32, _timeout: Duration) {
        unreachable!("it only notifies");
    }

    fn wake_all(&self, _word: &AtomicU32) {}
}

/// Waits as [`crate::ipc::wait::wait_until`] does without a deadline and without spinning.
fn wait_until<T>(event_count: &EventCount, futex: &ModelFutex, mut ready: impl FnMut() -> Option<T>) -> T {
    if let Some(found) = ready() {
        return found;
    }
    loop {
        if let Some(found) = event_count.wait(Duration::MAX, futex, &mut ready) {
            return found;
        }
    }
}
