//! Model checks: rings, doorbells and slots over all interleavings and all stale values that the memory model allows.
//!
//! Loom's sequentially consistent fences also order what is not atomic between them, so a data race that such a fence hides
//! by accident would not be found here; the words themselves are all atomic.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::time::Duration;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use vdi_proto::command::Loan;
use vdi_proto::handle::{SlotState, SlotWord};
use vdi_proto::layout::RawPlace;
use vdi_proto::seal::{Ring, SealKey, Seals};

use crate::atomics::{AtomicU32, Ordering};
use crate::doorbell::{Doorbell, Futex, Word};
use crate::ring::{Consumer, Producer, PushError, RingMemory};
use crate::slots::{Slot, TakeBackError};

/// Checks a model, with at most this many preemptions where that is given. Fails unless at least `floor` executions were
/// explored, so that a model that became trivial is noticed.
fn check(name: &str, preemptions: Option<usize>, floor: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = StdArc::new(AtomicUsize::new(0));
    let counter = StdArc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.check(move || {
        counter.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
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

// ---- Rings

const RECORDS: u64 = 5;

fn key() -> SealKey {
    Seals::new(1).ring(0, Ring::Submission)
}

fn record(n: u64) -> [u64; 4] {
    [n + 1, n + 101, n + 201, n + 301]
}

#[test]
fn loom_ring_two_entries_two_laps() {
    // Two entries, five records: two laps and a half.
    check("ring", Some(3), 2000, || {
        let memory = Arc::new(RingMemory::<2>::new());
        let mut producer = Producer::new(Arc::clone(&memory), key());
        let sender = thread::spawn(move || {
            let mut sent = 0;
            // Full is an answer like any other here: bounded tries keep the model finite.
            for _ in 0..RECORDS + 2 {
                if sent == RECORDS {
                    break;
                }
                match producer.push(record(sent)) {
                    Ok(()) => sent += 1,
                    Err(PushError::Full) => {
                        assert!(sent >= 2, "a ring that was never filled is full");
                        thread::yield_now();
                    }
                    Err(PushError::Violation(violation)) => panic!("{violation}"),
                }
            }
            sent
        });
        let mut consumer = Consumer::new(memory, key());
        let mut received = 0;
        let mut drain = |received: &mut u64| {
            while let Some(words) = consumer.pop().expect("an honest producer") {
                assert_eq!(words, record(*received), "a record is torn, lost, or out of order");
                *received += 1;
            }
        };
        for _ in 0..3 {
            drain(&mut received);
            thread::yield_now();
        }
        let sent = sender.join().expect("the producer");
        drain(&mut received);
        assert_eq!(received, sent, "a record that was pushed is not there");
    });
}

#[test]
fn loom_ring_full_is_true() {
    // What Full must not be: a ring whose consumer's cursor the producer has already been told.
    check("ring full", None, 4, || {
        let memory = Arc::new(RingMemory::<2>::new());
        let mut producer = Producer::new(Arc::clone(&memory), key());
        producer.push(record(0)).expect("room");
        producer.push(record(1)).expect("room");
        let reader = thread::spawn(move || {
            let mut consumer = Consumer::new(memory, key());
            assert_eq!(consumer.pop(), Ok(Some(record(0))));
            consumer
        });
        let early = producer.push(record(2));
        assert!(matches!(early, Ok(()) | Err(PushError::Full)));
        let mut consumer = reader.join().expect("the consumer");
        if early.is_err() {
            assert_eq!(producer.push(record(2)), Ok(()), "an entry that was consumed counts as taken");
        }
        assert_eq!(producer.push(record(3)), Err(PushError::Full), "two records wait in two entries");
        assert_eq!(consumer.pop(), Ok(Some(record(1))));
        assert_eq!(consumer.pop(), Ok(Some(record(2))));
        assert_eq!(consumer.pop(), Ok(None));
    });
}

// ---- Doorbells

/// Sleeps on the doorbell until the flag is up.
fn sleep_until_up(doorbell: &Doorbell, futex: &ModelFutex, flag: &AtomicU32, up: u32) {
    while flag.load(Ordering::Acquire) < up {
        let armed = doorbell.arm();
        if flag.load(Ordering::Acquire) >= up {
            return;
        }
        doorbell.sleep(armed, Duration::MAX, futex);
    }
}

struct Scene {
    doorbell: Doorbell,
    futex: ModelFutex,
    flags: [AtomicU32; 2],
}

impl Scene {
    fn new() -> Arc<Scene> {
        Arc::new(Scene {
            doorbell: Doorbell::new(),
            futex: ModelFutex::default(),
            flags: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    fn publish(&self, flag: usize, value: u32) {
        self.flags[flag].store(value, Ordering::Release);
        self.doorbell.ring(&self.futex);
    }

    fn sleep(&self, flag: usize, value: u32) {
        sleep_until_up(&self.doorbell, &self.futex, &self.flags[flag], value);
    }
}

#[test]
fn loom_doorbell_one_ringer_one_sleeper() {
    check("doorbell 1:1", None, 80, || {
        let scene = Scene::new();
        let ringer = Arc::clone(&scene);
        let ringer = thread::spawn(move || ringer.publish(0, 1));
        scene.sleep(0, 1);
        ringer.join().expect("the ringer");
    });
}

#[test]
fn loom_doorbell_is_armed_again() {
    check("doorbell re-armed", None, 50_000, || {
        let scene = Scene::new();
        let ringer = Arc::clone(&scene);
        let ringer = thread::spawn(move || {
            ringer.publish(0, 1);
            ringer.publish(0, 2);
        });
        scene.sleep(0, 1);
        scene.sleep(0, 2);
        ringer.join().expect("the ringer");
    });
}

#[test]
fn loom_doorbell_two_sleepers() {
    check("doorbell 1:2", Some(3), 3000, || {
        let scene = Scene::new();
        let ringer = Arc::clone(&scene);
        let ringer = thread::spawn(move || ringer.publish(0, 1));
        let sleeper = Arc::clone(&scene);
        let sleeper = thread::spawn(move || sleeper.sleep(0, 1));
        scene.sleep(0, 1);
        ringer.join().expect("the ringer");
        sleeper.join().expect("the sleeper");
    });
}

#[test]
fn loom_doorbell_two_ringers() {
    check("doorbell 2:1", Some(3), 3000, || {
        let scene = Scene::new();
        let ringers = [0, 1].map(|flag| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.publish(flag, 1))
        });
        scene.sleep(0, 1);
        scene.sleep(1, 1);
        for ringer in ringers {
            ringer.join().expect("a ringer");
        }
    });
}

#[test]
fn loom_doorbell_alarm_after_an_interrupted_ring() {
    check("doorbell alarm", None, 400, || {
        let scene = Scene::new();
        let others = Arc::clone(&scene);
        let others = thread::spawn(move || {
            // One publishes and dies ringing; another notices, and tells.
            others.flags[1].store(1, Ordering::Release);
            others.doorbell.ring(&DiesBeforeWaking);
            others.flags[0].store(1, Ordering::Release);
            others.doorbell.alarm(&others.futex);
        });
        scene.sleep(0, 1);
        others.join().expect("the others");
    });
}

// ---- Slots

const PLACE: RawPlace = RawPlace { area: 3, len: 4096, offset: 8192 };
const SEAL: u32 = 77;

const LOAN: Loan = Loan { slot: 0, generation: 1 };

fn lent() -> Arc<Slot> {
    let slot = Arc::new(Slot::new());
    slot.lend(LOAN.generation);
    slot
}

fn word(state: SlotState) -> Option<SlotWord> {
    Some(SlotWord { generation: LOAN.generation, state })
}

#[test]
fn loom_slot_lease_and_return_exclude_each_other() {
    check("slot", None, 20, || {
        let slot = lent();
        let lessee = Arc::clone(&slot);
        let lessee = thread::spawn(move || lessee.lease(LOAN, 2).is_ok());
        let returned = slot.take_back(LOAN.generation);
        let leased = lessee.join().expect("the lessee");
        assert!(!(returned.is_ok() && leased), "the slot is home, and leased");
        assert_eq!(slot.is_leased_by(2), leased, "a refused lease left its bit, or a granted one none");
        match returned {
            Ok(()) => assert_eq!(slot.look(), word(SlotState::Home)),
            Err(TakeBackError::Leased { leases }) => {
                assert_eq!(leases, 1 << 2);
                assert_eq!(slot.look(), word(SlotState::Lent), "a refused return left the word changed");
            }
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn loom_slot_two_members() {
    check("slot, two members", None, 300, || {
        let slot = lent();
        // Members in different words of the table.
        let lessees = [3, 70].map(|member| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.lease(LOAN, member).is_ok())
        });
        let returned = slot.take_back(LOAN.generation);
        let leased = lessees.map(|lessee| lessee.join().expect("a lessee"));
        assert!(!(returned.is_ok() && leased.contains(&true)), "the slot is home, and leased");
        assert_eq!([3, 70].map(|member| slot.is_leased_by(member)), leased);
        if let Err(TakeBackError::Leased { leases }) = returned {
            assert_eq!(leases & !(1 << 3 | 1 << 70), 0, "a lease of somebody who asked for none");
            assert_eq!(slot.look(), word(SlotState::Lent));
        }
    });
}

#[test]
fn loom_slot_lessees_bytes_are_visible_after_release() {
    check("slot bytes", None, 400, || {
        let slot = lent();
        // A byte of the buffer: as plain memory, so that loom reports a race if nothing orders the accesses.
        let byte = Arc::new(loom::cell::UnsafeCell::new(0u8));
        let lessee = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let leased = slot.lease(LOAN, 2).is_ok();
                if leased {
                    write_byte(&byte, 7);
                    slot.release(2);
                }
                leased
            })
        };
        let mut returned = false;
        for _ in 0..3 {
            match slot.take_back(LOAN.generation) {
                Ok(()) => {
                    returned = true;
                    break;
                }
                Err(TakeBackError::Leased { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        // Whoever took it back owns the bytes, without waiting for anything else.
        let seen = returned.then(|| read_byte(&byte));
        let leased = lessee.join().expect("the lessee");
        if let Some(seen) = seen {
            assert_eq!(seen, if leased { 7 } else { 0 }, "the lessee's byte is not there");
        }
        assert!(!slot.is_leased_by(2));
    });
}

#[test]
fn loom_slot_stale_handle_against_the_next_loan() {
    check("slot, next loan", None, 70, || {
        let slot = lent();
        let stale = Arc::clone(&slot);
        let stale = thread::spawn(move || stale.lease(LOAN, 2).is_ok());
        let returned = slot.take_back(LOAN.generation).is_ok();
        if returned {
            slot.lend(LOAN.generation + 1);
        }
        let leased = stale.join().expect("the lessee");
        assert!(!(returned && leased), "a handle of the last loan is good for the next one");
        assert_eq!(slot.is_leased_by(2), leased);
    });
}

#[test]
fn loom_slot_place_is_visible_to_the_lessee() {
    check("slot place", None, 80, || {
        let slot = Arc::new(Slot::new());
        let lessee = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.lease(LOAN, 2).is_ok().then(|| (slot.place(), slot.seal())))
        };
        slot.set_place(PLACE, SEAL);
        slot.lend(LOAN.generation);
        // A return that may be refused writes the word again.
        let returned = slot.take_back(LOAN.generation).is_ok();
        if let Some(place) = lessee.join().expect("the lessee") {
            assert!(!returned);
            assert_eq!(place, (PLACE, SEAL), "the lessee sees another place than the one that was lent");
        }
    });
}

/// Writes plain memory under loom's eyes.
#[allow(unsafe_code)]
fn write_byte(cell: &loom::cell::UnsafeCell<u8>, value: u8) {
    // SAFETY: loom checks that no other thread accesses the cell meanwhile, and fails the model otherwise.
    cell.with_mut(|byte| unsafe { *byte = value });
}

/// Reads plain memory under loom's eyes.
#[allow(unsafe_code)]
fn read_byte(cell: &loom::cell::UnsafeCell<u8>) -> u8 {
    // SAFETY: as in `write_byte`.
    cell.with(|byte| unsafe { *byte })
}
