//! The words of a set: why it was aborted, and what its devices are called.

use vdi_proto::abort::{AbortReason, Cause, Party};

use super::*;
use crate::abort_word::AbortWord;
use crate::device_name::{Announcement, Name};
use crate::slots::Slot;

const DIED: AbortReason = AbortReason { party: Party::Secondary(3), cause: Cause::Died };

const SIGNALLED: AbortReason = AbortReason { party: Party::Server, cause: Cause::Signalled };

/// A set with the doorbells that two processes sleep on.
#[derive(Default)]
struct Set {
    abort: AbortWord,
    doorbells: [Doorbell; 2],
    futexes: [ModelFutex; 2],
}

impl Set {
    fn abort(&self, reason: AbortReason) -> AbortReason {
        self.abort.set(reason, || {
            for (doorbell, futex) in self.doorbells.iter().zip(&self.futexes) {
                doorbell.alarm(futex);
            }
        })
    }

    fn sleep(&self, doorbell: usize) -> AbortReason {
        wait_until(&self.doorbells[doorbell], &self.futexes[doorbell], || self.abort.look())
    }
}

#[test]
fn loom_abort_wakes_everybody() {
    check("abort, two sleepers", Some(4), 8_000, || {
        let set = Arc::new(Set::default());
        let aborter = Arc::clone(&set);
        let aborter = thread::spawn(move || {
            // A ring that is cut short takes the wake-up away from whoever sleeps already.
            aborter.doorbells[0].ring(&DiesBeforeWaking);
            aborter.abort(DIED)
        });
        let sleeper = Arc::clone(&set);
        let sleeper = thread::spawn(move || sleeper.sleep(1));
        assert_eq!(set.sleep(0), DIED);
        assert_eq!(sleeper.join().expect("the sleeper"), DIED);
        assert_eq!(aborter.join().expect("the aborter"), DIED);
    });
}

#[test]
fn loom_abort_has_one_reason() {
    check("abort, two aborters", Some(4), 20_000, || {
        let set = Arc::new(Set::default());
        let aborters = [DIED, SIGNALLED].map(|reason| {
            let set = Arc::clone(&set);
            thread::spawn(move || set.abort(reason))
        });
        let seen = set.sleep(0);
        for aborter in aborters {
            assert_eq!(aborter.join().expect("an aborter"), seen, "two reasons stand");
        }
    });
}

#[test]
fn loom_abort_comes_after_what_the_aborter_did() {
    // The primary voids the leases of the dead and aborts then; whoever learns of it may rely on that, by looking or by
    // being second.
    check("abort, leases", None, 8, || {
        let set = Arc::new(Set::default());
        let slot = Arc::new(Slot::new());
        slot.lend(1);
        slot.lease(vdi_proto::command::Loan { slot: 0, generation: 1 }, 3).expect("it is lent");
        let primary = {
            let (set, slot) = (Arc::clone(&set), Arc::clone(&slot));
            thread::spawn(move || {
                slot.void_lease(3);
                set.abort.set(DIED, || ());
            })
        };
        let seen = set.abort.look();
        assert!(seen.is_none() || !slot.is_leased_by(3), "the set is aborted, and the dead has a lease");
        if seen.is_none() && set.abort.set(SIGNALLED, || ()) == DIED {
            assert!(!slot.is_leased_by(3), "the set was aborted already, and the dead has a lease");
        }
        primary.join().expect("the primary");
    });
}

#[test]
fn loom_name_is_whole_once_it_is_announced() {
    const OPEN: u64 = 5;
    const CLOSED: u64 = 6;
    check("device name", None, 8, || {
        let device = Arc::new((Announcement::default(), Name::<3>::new()));
        let server = {
            let device = Arc::clone(&device);
            thread::spawn(move || {
                device.1.announce(b"a1", 77, &device.0, OPEN);
                device.0.write(CLOSED);
            })
        };
        let word = device.0.look();
        let name = (word != 0).then(|| device.1.read());
        assert!(matches!(word, 0 | OPEN | CLOSED));
        if let Some(name) = name {
            assert_eq!(name, Ok((b"a1".to_vec(), 77)), "it is announced, and its name is not there");
        }
        server.join().expect("the server");
    });
}

#[test]
fn loom_closed_comes_after_the_commands() {
    // The server sends a command and closes the device; the client, as it waits for commands.
    const CLOSED: u64 = 6;
    check("device closed", None, 2_500, || {
        let (mut producer, mut consumer) = ring::ends::<2>();
        let device = Arc::new((Announcement::default(), Doorbell::new(), ModelFutex::default()));
        let server = {
            let device = Arc::clone(&device);
            thread::spawn(move || {
                let send = || producer.push(ring::record(0)).expect("room");
                in_order("caller.send-close", send, || device.0.write(CLOSED));
                device.1.ring(&device.2);
            })
        };
        let mut received = 0;
        loop {
            let ready = wait_until(&device.1, &device.2, || {
                if consumer.is_ready() {
                    return Some(true);
                }
                let (word, ready) = in_order("caller.closed-look", || device.0.look(), || consumer.is_ready());
                (ready || word == CLOSED).then_some(ready)
            });
            if !ready {
                break;
            }
            assert_eq!(consumer.pop(), Ok(Some(ring::record(received))));
            received += 1;
        }
        assert_eq!(received, 1, "the device is closed, and a command is lost");
        server.join().expect("the server");
    });
}
