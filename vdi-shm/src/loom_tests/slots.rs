//! Slots: loans, leases, and the bytes that they guard.

use vdi_proto::command::Loan;
use vdi_proto::handle::{SlotState, SlotWord};
use vdi_proto::layout::RawPlace;

use super::*;
use crate::slots::{Slot, TakeBackError};

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
    check("slot, two members", None, 40_000, || {
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
        let byte = Arc::new(Byte::default());
        let lessee = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let leased = slot.lease(LOAN, 2).is_ok();
                if leased {
                    in_order("caller.write-release", || byte.write(7), || slot.release(2));
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
        let seen = returned.then(|| byte.read());
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
        in_order("caller.place-lend", || slot.set_place(PLACE, SEAL), || slot.lend(LOAN.generation));
        // A return that may be refused writes the word again.
        let returned = slot.take_back(LOAN.generation).is_ok();
        if let Some(place) = lessee.join().expect("the lessee") {
            assert!(!returned);
            assert_eq!(place, (PLACE, SEAL), "the lessee sees another place than the one that was lent");
        }
    });
}

#[test]
fn loom_slot_seen_home_means_that_the_bytes_are_back() {
    check("slot, home", Some(4), 20_000, || {
        let slot = lent();
        let byte = Arc::new(Byte::default());
        let lessee = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let leased = slot.lease(LOAN, 2).is_ok();
                if leased {
                    byte.write(7);
                    slot.release(2);
                }
                leased
            })
        };
        // Neither the lessee nor the holder: all that it knows of either is the word.
        let watcher = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || (slot.look() == word(SlotState::Home)).then(|| byte.read()))
        };
        for _ in 0..2 {
            if slot.take_back(LOAN.generation).is_ok() {
                break;
            }
            thread::yield_now();
        }
        let leased = lessee.join().expect("the lessee");
        if let Some(seen) = watcher.join().expect("the watcher") {
            assert_eq!(seen, if leased { 7 } else { 0 }, "the slot is home, and the lessee's byte is not there");
        }
    });
}

#[test]
fn loom_slot_place_is_visible_also_after_a_refused_return() {
    // The server lends, the holder of the command tries to give back, and who leases then sees the word that the holder wrote.
    check("slot place, kept", Some(3), 500, || {
        let slot = Arc::new(Slot::new());
        let told = Arc::new(AtomicU32::new(0));
        let server = {
            let (slot, told) = (Arc::clone(&slot), Arc::clone(&told));
            thread::spawn(move || {
                slot.set_place(PLACE, SEAL);
                slot.lend(LOAN.generation);
                // A lease of somebody who keeps it, so that the return is refused.
                slot.lease(LOAN, 5).expect("it is lent");
                // The command, as the ring would bring it.
                told.store(1, Ordering::Release);
            })
        };
        let holder = {
            let (slot, told) = (Arc::clone(&slot), Arc::clone(&told));
            thread::spawn(move || {
                if told.load(Ordering::Acquire) == 1 {
                    let refused = slot.take_back(LOAN.generation);
                    assert!(matches!(refused, Err(TakeBackError::Leased { .. })), "{refused:?}");
                }
            })
        };
        if slot.lease(LOAN, 2).is_ok() {
            assert_eq!(
                (slot.place(), slot.seal()),
                (PLACE, SEAL),
                "the lessee sees another place than the one that was lent"
            );
        }
        server.join().expect("the server");
        holder.join().expect("the holder");
    });
}

#[test]
fn loom_slot_lease_of_the_dead_is_voided() {
    // One member leases and dies, another leases, writes and releases; the holder takes the slot back meanwhile, and it is
    // lent again.
    check("slot, a death", Some(4), 30_000, || {
        let slot = lent();
        let byte = Arc::new(Byte::default());
        let dying = Arc::clone(&slot);
        let dying = thread::spawn(move || dying.lease(LOAN, 3).is_ok());
        let lessee = {
            let (slot, byte) = (Arc::clone(&slot), Arc::clone(&byte));
            thread::spawn(move || {
                let leased = slot.lease(LOAN, 70).is_ok();
                if leased {
                    byte.write(7);
                    slot.release(70);
                }
                leased
            })
        };
        let mut returned = slot.take_back(LOAN.generation).is_ok();
        // The primary is told of the death by the system, which orders it after all that the dead did.
        let (leased, ()) = in_order("caller.death-void", || dying.join().expect("the dead"), || slot.void_lease(3));
        assert!(!(returned && leased), "the slot is home, and leased");
        assert!(!slot.is_leased_by(3), "the dead has a lease");
        if !returned {
            match slot.take_back(LOAN.generation) {
                Ok(()) => returned = true,
                Err(TakeBackError::Leased { leases }) => assert_eq!(leases, 1 << 70, "it is the other's alone"),
                Err(error) => panic!("{error}"),
            }
        }
        if !returned {
            let leased = lessee.join().expect("the lessee");
            assert_eq!(slot.take_back(LOAN.generation), Ok(()), "nobody is left who could have it");
            assert_eq!(byte.read(), if leased { 7 } else { 0 });
            return;
        }
        slot.lend(LOAN.generation + 1);
        let seen = byte.read();
        let leased = lessee.join().expect("the lessee");
        assert_eq!(seen, if leased { 7 } else { 0 }, "a lessee of the last loan writes into the next one");
        assert!(!slot.is_leased_by(70));
        assert_eq!(slot.take_back(LOAN.generation + 1), Ok(()), "a lease of the last loan is left");
    });
}

/// A command's way: the server lends a buffer, the client finds its place, fills it, gives it back and says so; the server
/// lends the slot again, for another buffer.
#[test]
fn loom_slot_goes_out_and_home_with_its_command() {
    const ELSEWHERE: RawPlace = RawPlace { area: 4, len: 512, offset: 1024 };
    check("slot, a command", Some(4), 250, || {
        let slot = Arc::new(Slot::new());
        let byte = Arc::new(Byte::default());
        let bells = Arc::new([(); 2].map(|()| (Doorbell::new(), ModelFutex::default())));
        let (mut commands, mut to_serve) = ring::ends::<1>();
        let (mut completions, mut completed) = ring::ends::<1>();
        let client = {
            let (slot, byte, bells) = (Arc::clone(&slot), Arc::clone(&byte), Arc::clone(&bells));
            thread::spawn(move || {
                let [(doorbell, futex), (server, servers)] = &*bells;
                let command = wait_until(doorbell, futex, || to_serve.pop().expect("an honest server"));
                assert_eq!((command, slot.place(), slot.seal()), (ring::record(0), PLACE, SEAL));
                assert_eq!(byte.read(), 1, "the server's byte is not there");
                byte.write(2);
                let give_back = || slot.take_back(LOAN.generation).expect("it is lent, and nobody has a lease");
                in_order("caller.return-complete", give_back, || completions.push(ring::record(1)).expect("room"));
                server.ring(servers);
            })
        };
        let [(clients, sleeping), (doorbell, futex)] = &*bells;
        byte.write(1);
        slot.set_place(PLACE, SEAL);
        let lend = || slot.lend(LOAN.generation);
        in_order("caller.lend-command", lend, || commands.push(ring::record(0)).expect("room"));
        clients.ring(sleeping);
        assert_eq!(wait_until(doorbell, futex, || completed.pop().expect("an honest client")), ring::record(1));
        assert_eq!(byte.read(), 2, "the client's byte is not there");
        assert_eq!(slot.look(), word(SlotState::Home));
        slot.set_place(ELSEWHERE, SEAL + 1);
        slot.lend(LOAN.generation + 1);
        client.join().expect("the client");
    });
}
