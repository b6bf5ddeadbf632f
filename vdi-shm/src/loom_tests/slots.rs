//! Slots: the serial order of map and complete, and the bytes that loans and leases guard.

use loom::cell::UnsafeCell;
use vdi_proto::command::Loan;
use vdi_proto::handle::SlotState;
use vdi_proto::index::{Generation, MemberIndex, SlotIndex};

use super::weakened::{ACQ_REL, LEFT_OUT, RELAXED, Source, Weakening};
use super::*;
use crate::set::slots::{LeaseError, ReclaimError, Slot};

pub(super) const WEAKENINGS: &[Weakening] = &[
    ("slot.lend", RELAXED, "slots::loom_slot_bytes_are_visible_to_the_lease"),
    ("slot.lease", ACQ_REL, "slots::loom_slot_map_and_complete_are_linearizable"),
    ("slot.lease", LEFT_OUT, "slots::loom_slot_map_and_complete_are_linearizable"),
    ("slot.lease.load", RELAXED, "slots::loom_slot_bytes_are_visible_at_an_address"),
    ("slot.release", RELAXED, "slots::loom_slot_bytes_are_visible_after_the_release"),
    ("slot.reclaim", ACQ_REL, "slots::loom_slot_map_and_complete_are_linearizable"),
    ("slot.reclaim", LEFT_OUT, "slots::loom_slot_map_and_complete_are_linearizable"),
    ("slot.reclaim.load", RELAXED, "slots::loom_slot_bytes_are_visible_after_the_release"),
    ("slot.free", RELAXED, "slots::loom_slot_bytes_are_visible_once_it_is_free"),
    ("slot.state", RELAXED, "slots::loom_slot_bytes_are_visible_once_it_is_free"),
];

pub(super) const SOURCE: Source = include_str!("../set/slots.rs");

/// A byte of a buffer: plain memory, for loom to see races.
#[derive(Default)]
struct Byte(UnsafeCell<u8>);

// SAFETY: the models order the accesses; loom fails where they do not.
#[allow(unsafe_code)]
unsafe impl Sync for Byte {}
// SAFETY: as for Sync.
#[allow(unsafe_code)]
unsafe impl Send for Byte {}

impl Byte {
    fn read(&self) -> u8 {
        // SAFETY: loom checks that no write is concurrent.
        #[allow(unsafe_code)]
        self.0.with(|byte| unsafe { *byte })
    }

    fn write(&self, value: u8) {
        // SAFETY: loom checks that no other access is concurrent.
        #[allow(unsafe_code)]
        self.0.with_mut(|byte| unsafe { *byte = value });
    }
}

fn generation(number: u32) -> Generation {
    Generation::from_bits(number)
}

fn loan(number: u32) -> Loan {
    Loan { slot: SlotIndex::new(0).expect("a slot"), generation: generation(number) }
}

fn member(number: u32) -> MemberIndex {
    MemberIndex::new(number).expect("a member")
}

/// Members whose bits lie in different words.
const MEMBERS: [u32; 2] = [3, 70];

fn lent() -> Arc<Slot> {
    let slot = Arc::new(Slot::new());
    slot.lend(generation(1));
    slot
}

/// The outcome of a lease; `None` while the slot is being reclaimed.
fn outcome(leased: Result<(), LeaseError>) -> Option<bool> {
    match leased {
        Ok(()) => Some(true),
        Err(LeaseError::NotLent { .. }) => Some(false),
        Err(LeaseError::Reclaiming) => None,
    }
}

/// MapBufferHandle: waits for the outcome.
fn map(slot: &Slot, number: u32, lessee: u32) -> bool {
    let mut leased = slot.lease(loan(number), member(lessee));
    loop {
        if let Some(outcome) = outcome(leased) {
            return outcome;
        }
        thread::yield_now();
        leased = slot.confirm_lease(loan(number), member(lessee));
    }
}

/// MapBufferHandle that gives up where it would have to wait. Models with several members use it, to stay finite.
fn try_map(slot: &Slot, number: u32, lessee: u32) -> bool {
    outcome(slot.lease(loan(number), member(lessee))).unwrap_or_else(|| {
        slot.release(member(lessee));
        false
    })
}

/// Asserts that one serial order explains the outcomes of one completion and of the maps beside it, which keep their leases:
/// either a map came first, and the completion is refused; or the completion came first, and every map is refused.
fn assert_serial(slot: &Slot, reclaimed: Result<(), ReclaimError>, mapped: &[(u32, bool)]) {
    let any = mapped.iter().any(|(_, mapped)| *mapped);
    match reclaimed {
        Ok(()) => {
            assert!(!any, "the command is completed, and its buffer is mapped");
            assert_eq!(slot.state(), Some(SlotState::Free(generation(1))));
        }
        Err(ReclaimError::Leased { .. }) => {
            assert!(any, "VD_E_BUSY, and no map succeeded: no serial order has both answers");
            assert_eq!(slot.state(), Some(SlotState::Lent(generation(1))), "a refused reclaim changed the state");
        }
        Err(error) => panic!("{error}"),
    }
    for (lessee, mapped) in mapped {
        assert_eq!(slot.is_leased_by(member(*lessee)), *mapped, "a refused map left its bit, or a granted one none");
    }
}

#[test]
fn loom_slot_map_and_complete_are_linearizable() {
    check("slot", None, 40, || {
        let slot = lent();
        let mapper = Arc::clone(&slot);
        let mapper = thread::spawn(move || map(&mapper, 1, 3));
        let reclaimed = slot.reclaim(generation(1));
        let mapped = mapper.join().expect("the mapper");
        assert_serial(&slot, reclaimed, &[(3, mapped)]);
    });
}

/// A completion that was refused for a lease is refused again while the lease lasts.
#[test]
fn loom_slot_a_refused_completion_stays_refused() {
    check("slot, two completions", None, 40, || {
        let slot = lent();
        let mapper = Arc::clone(&slot);
        let mapper = thread::spawn(move || map(&mapper, 1, 3));
        let first = slot.reclaim(generation(1));
        if first.is_err() {
            assert_eq!(slot.reclaim(generation(1)), first, "VD_E_BUSY for a lease that is not granted");
        }
        let mapped = mapper.join().expect("the mapper");
        assert_serial(&slot, first, &[(3, mapped)]);
    });
}

#[test]
fn loom_slot_two_maps_and_complete_are_linearizable() {
    check("slot, two maps", Some(3), 1_000, || {
        let slot = lent();
        let mappers = MEMBERS.map(|lessee| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || (lessee, outcome(slot.lease(loan(1), member(lessee)))))
        });
        let reclaimed = slot.reclaim(generation(1));
        let mapped = mappers.map(|mapper| {
            let (lessee, mapped) = mapper.join().expect("a mapper");
            // The completion has its outcome, so the lease has one.
            let confirmed = || outcome(slot.confirm_lease(loan(1), member(lessee))).expect("an outcome");
            (lessee, mapped.unwrap_or_else(confirmed))
        });
        assert_serial(&slot, reclaimed, &mapped);
    });
}

/// The reported defect: one process has a lease all the time, and the holder tries to complete. A third process's map must
/// succeed, since every completion is refused.
#[test]
fn loom_slot_a_valid_handle_maps_beside_refused_completions() {
    check("slot, leased", None, 5, || {
        let slot = lent();
        assert!(map(&slot, 1, 3));
        let mapper = Arc::clone(&slot);
        let mapper = thread::spawn(move || map(&mapper, 1, 70));
        let reclaimed = slot.reclaim(generation(1));
        assert!(matches!(reclaimed, Err(ReclaimError::Leased { .. })), "{reclaimed:?}");
        assert!(mapper.join().expect("the mapper"), "VD_E_INVALID for the handle of an outstanding command");
    });
}

#[test]
fn loom_slot_bytes_are_visible_after_the_release() {
    check("slot, bytes of a lease", Some(3), 150, || {
        let slot = lent();
        let byte = Arc::new(Byte::default());
        let mapper = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let mapped = map(&slot, 1, 3);
                if mapped {
                    byte.write(7);
                    slot.release(member(3));
                }
                mapped
            })
        };
        let mut reclaimed = false;
        for _ in 0..3 {
            match slot.reclaim(generation(1)) {
                Ok(()) => {
                    reclaimed = true;
                    break;
                }
                Err(ReclaimError::Leased { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        let seen = reclaimed.then(|| byte.read());
        let mapped = mapper.join().expect("the mapper");
        if let Some(seen) = seen {
            assert_eq!(seen, if mapped { 7 } else { 0 }, "the byte of the lease is not there");
        }
        assert!(!slot.is_leased_by(member(3)));
    });
}

#[test]
fn loom_slot_a_stale_map_does_not_get_the_next_loan() {
    check("slot, next loan", None, 70, || {
        let slot = lent();
        let stale = Arc::clone(&slot);
        let stale = thread::spawn(move || map(&stale, 1, 3));
        let reclaimed = slot.reclaim(generation(1)).is_ok();
        if reclaimed {
            slot.lend(generation(2));
        }
        let mapped = stale.join().expect("the mapper");
        assert!(!(reclaimed && mapped), "a handle of the last loan is good for the next one");
        assert_eq!(slot.is_leased_by(member(3)), mapped);
        if reclaimed {
            assert_eq!(slot.reclaim(generation(2)), Ok(()), "a lease of the last loan is left");
        }
    });
}

/// The server writes the bytes of a Write before it lends.
#[test]
fn loom_slot_bytes_are_visible_to_the_lease() {
    check("slot, bytes of a loan", None, 5, || {
        let slot = Arc::new(Slot::new());
        let byte = Arc::new(Byte::default());
        let mapper = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || map(&slot, 1, 3).then(|| byte.read()))
        };
        byte.write(5);
        slot.lend(generation(1));
        if let Some(seen) = mapper.join().expect("the mapper") {
            assert_eq!(seen, 5, "the server's byte is not there");
        }
    });
}

/// MapBufferHandle for C and C++ takes no lease.
#[test]
fn loom_slot_bytes_are_visible_at_an_address() {
    check("slot, bytes at an address", None, 3, || {
        let slot = Arc::new(Slot::new());
        let byte = Arc::new(Byte::default());
        let mapper = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || slot.check_lent(loan(1)).is_ok().then(|| byte.read()))
        };
        byte.write(5);
        slot.lend(generation(1));
        if let Some(seen) = mapper.join().expect("the mapper") {
            assert_eq!(seen, 5, "the server's byte is not there");
        }
    });
}

/// The server lends, the holder is refused a completion, and a map then loads the word that the holder restored.
#[test]
fn loom_slot_bytes_are_visible_after_a_refused_reclaim() {
    check("slot, restored", Some(3), 400, || {
        let slot = Arc::new(Slot::new());
        let (byte, command) = (Arc::new(Byte::default()), Arc::new(AtomicU32::new(0)));
        let server = {
            let (slot, byte, command) = (Arc::clone(&slot), Arc::clone(&byte), Arc::clone(&command));
            thread::spawn(move || {
                byte.write(5);
                slot.lend(generation(1));
                // The command, as the ring delivers it.
                command.store(1, Ordering::Release);
            })
        };
        let holder = {
            let (slot, command) = (Arc::clone(&slot), Arc::clone(&command));
            thread::spawn(move || {
                if command.load(Ordering::Acquire) == 1 {
                    let _ = slot.reclaim(generation(1));
                }
            })
        };
        // Two maps of one process: the second may meet the word that the refused completion restored.
        if map(&slot, 1, 3) {
            assert_eq!(byte.read(), 5, "the server's byte is not there");
        }
        if map(&slot, 1, 70) {
            assert_eq!(byte.read(), 5, "the server's byte is not there");
        }
        server.join().expect("the server");
        holder.join().expect("the holder");
    });
}

#[test]
fn loom_slot_bytes_are_visible_once_it_is_free() {
    check("slot, free", Some(3), 2_000, || {
        let slot = lent();
        let byte = Arc::new(Byte::default());
        let mapper = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let mapped = map(&slot, 1, 3);
                if mapped {
                    byte.write(7);
                    slot.release(member(3));
                }
                mapped
            })
        };
        // The server: all that it knows is the slot's state.
        let server = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || (slot.state() == Some(SlotState::Free(generation(1)))).then(|| byte.read()))
        };
        for _ in 0..2 {
            if slot.reclaim(generation(1)).is_ok() {
                break;
            }
            thread::yield_now();
        }
        let mapped = mapper.join().expect("the mapper");
        if let Some(seen) = server.join().expect("the server") {
            assert_eq!(seen, if mapped { 7 } else { 0 }, "the slot is free, and the byte of the lease is not there");
        }
    });
}

#[test]
fn loom_slot_the_lease_of_a_dead_member_is_void() {
    // One member leases and dies, another leases, writes and releases; the holder completes meanwhile, and the slot is lent
    // again.
    check("slot, a death", Some(3), 2_000, || {
        let slot = lent();
        let byte = Arc::new(Byte::default());
        let dying = Arc::clone(&slot);
        let dying = thread::spawn(move || map(&dying, 1, 3));
        let mapper = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let mapped = try_map(&slot, 1, 70);
                if mapped {
                    byte.write(7);
                    slot.release(member(70));
                }
                mapped
            })
        };
        let mut reclaimed = slot.reclaim(generation(1)).is_ok();
        // The system reports the death after everything that the dead process did.
        let died_with_lease = dying.join().expect("the dead member");
        slot.void_lease(member(3));
        assert!(!(reclaimed && died_with_lease), "the command is completed, and its buffer is mapped");
        assert!(!slot.is_leased_by(member(3)), "a dead member has a lease");
        if !reclaimed {
            match slot.reclaim(generation(1)) {
                Ok(()) => reclaimed = true,
                Err(ReclaimError::Leased { leases }) => assert_eq!(leases, 1 << 70, "the other member's alone"),
                Err(error) => panic!("{error}"),
            }
        }
        if reclaimed {
            slot.lend(generation(2));
            let seen = byte.read();
            assert_eq!(seen, if mapper.join().expect("the mapper") { 7 } else { 0 });
        } else {
            let mapped = mapper.join().expect("the mapper");
            assert_eq!(slot.reclaim(generation(1)), Ok(()), "no member is left that could have a lease");
            assert_eq!(byte.read(), if mapped { 7 } else { 0 });
        }
    });
}

/// A command's way: the server lends a buffer, the client fills it, reclaims it and completes; the server lends it again.
#[test]
fn loom_slot_a_command_and_its_completion() {
    check("slot, a command", Some(4), 200, || {
        let slot = Arc::new(Slot::new());
        let byte = Arc::new(Byte::default());
        let events = Arc::new([(); 2].map(|()| (EventCount::new(), ModelFutex::default())));
        let (mut commands, mut to_client) = ring::ends::<1>();
        let (mut completions, mut to_server) = ring::ends::<1>();
        let client = {
            let (slot, byte, events) = (Arc::clone(&slot), Arc::clone(&byte), Arc::clone(&events));
            thread::spawn(move || {
                let [(event, futex), (server_event, server_futex)] = &*events;
                let command = wait_until(event, futex, || to_client.pop().expect("an honest server"));
                assert_eq!(command.1, ring::record(0));
                assert_eq!(byte.read(), 1, "the server's byte is not there");
                byte.write(2);
                slot.reclaim(generation(1)).expect("no member has a lease");
                completions.push(ring::record(1)).expect("room");
                server_event.notify_with(server_futex);
            })
        };
        let [(client_event, client_futex), (event, futex)] = &*events;
        byte.write(1);
        slot.lend(generation(1));
        commands.push(ring::record(0)).expect("room");
        client_event.notify_with(client_futex);
        let completion = wait_until(event, futex, || to_server.pop().expect("an honest client"));
        assert_eq!(completion.1, ring::record(1));
        assert_eq!(slot.state(), Some(SlotState::Free(generation(1))), "completed, and not reclaimed");
        assert_eq!(byte.read(), 2, "the client's byte is not there");
        slot.lend(generation(2));
        client.join().expect("the client");
    });
}
