//! The words of a set: the abort, its latch, and the names of devices.

use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::command::Loan;
use vdi_proto::index::{Generation, MemberIndex, SlotIndex};
use vdi_proto::wire::checksum::Checksums;

use super::weakened::{ACQ_REL, LEFT_OUT, RELAXED, Source, Weakening};
use super::*;
use crate::set::abort_word::{AbortLatch, AbortText, AbortWord};
use crate::set::device_name::{Announcement, Name};
use crate::set::slots::Slot;

pub(super) const WEAKENINGS: &[Weakening] = &[
    ("abort.store", RELAXED, "announcements::loom_abort_shows_what_the_aborter_did"),
    ("abort.load", RELAXED, "announcements::loom_abort_shows_what_the_aborter_did"),
    ("abort.store", RELAXED, "announcements::loom_the_text_of_an_abort_is_whole"),
    ("abort.load", RELAXED, "announcements::loom_the_text_of_an_abort_is_whole"),
    ("abort.stands", RELAXED, "announcements::loom_abort_shows_what_the_aborter_did"),
    ("latch.store", RELAXED, "announcements::loom_latch_shows_what_the_aborter_did"),
    ("latch.load", RELAXED, "announcements::loom_latch_shows_what_the_aborter_did"),
    ("name.store", RELAXED, "announcements::loom_name_is_whole_once_it_is_announced"),
    ("name.load", RELAXED, "announcements::loom_name_is_whole_once_it_is_announced"),
    ("name.store", RELAXED, "announcements::loom_closed_is_seen_after_the_commands"),
    ("name.load", RELAXED, "announcements::loom_closed_is_seen_after_the_commands"),
    ("event_count.notify_always", ACQ_REL, "announcements::loom_abort_wakes_everybody"),
    ("event_count.notify_always", LEFT_OUT, "announcements::loom_abort_wakes_everybody"),
];

pub(super) const SOURCES: [Source; 2] = [include_str!("../set/abort_word.rs"), include_str!("../set/device_name.rs")];

const SIGNALLED: AbortReason = AbortReason { process: Process::Server, cause: Cause::Signalled };
const DIED: AbortReason = AbortReason { process: Process::Primary, cause: Cause::Died };

/// A set with the event counts that two processes sleep on.
#[derive(Default)]
struct Set {
    abort: AbortWord,
    events: [EventCount; 2],
    futexes: [ModelFutex; 2],
}

impl Set {
    fn abort(&self, reason: AbortReason) -> AbortReason {
        let stands = self.abort.set(reason);
        for (event, futex) in self.events.iter().zip(&self.futexes) {
            event.notify_always_with(futex);
        }
        stands
    }

    fn sleep(&self, event: usize) -> AbortReason {
        wait_until(&self.events[event], &self.futexes[event], || self.abort.load())
    }
}

#[test]
fn loom_abort_wakes_everybody() {
    check("abort, two sleepers", Some(4), 8_000, || {
        let set = Arc::new(Set::default());
        let aborter = Arc::clone(&set);
        let aborter = thread::spawn(move || {
            // A notification that is cut short takes the wake-up away from a process that sleeps already.
            aborter.events[0].notify_with(&DiesBeforeWaking);
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

/// A slot that a member leased which has died.
fn leased() -> (Arc<Slot>, MemberIndex) {
    let (slot, member) = (Arc::new(Slot::new()), MemberIndex::new(3).expect("a member"));
    let loan = Loan { slot: SlotIndex::new(0).expect("a slot"), generation: Generation::from_bits(1) };
    slot.lend(loan.generation);
    slot.lease(loan, member).expect("it is lent");
    (slot, member)
}

#[test]
fn loom_abort_shows_what_the_aborter_did() {
    // The primary voids the leases of a dead member and then aborts. A process that sees the abort relies on that.
    check("abort, leases", None, 8, || {
        let set = Arc::new(Set::default());
        let (slot, member) = leased();
        let primary = {
            let (set, slot) = (Arc::clone(&set), Arc::clone(&slot));
            thread::spawn(move || {
                slot.void_lease(member);
                set.abort.set(DIED);
            })
        };
        let seen = set.abort.load();
        assert!(seen.is_none() || !slot.is_leased_by(member), "the set is aborted, and the dead member has a lease");
        if seen.is_none() && set.abort.set(SIGNALLED) == DIED {
            assert!(!slot.is_leased_by(member), "the set was aborted already, and the dead member has a lease");
        }
        primary.join().expect("the primary");
    });
}

#[test]
fn loom_latch_shows_what_the_aborter_did() {
    // One thread of a process sees the abort word and latches the reason. Another thread reads the latch only.
    check("latch, leases", None, 20, || {
        let (set, latch) = (Arc::new(Set::default()), Arc::new(AbortLatch::default()));
        let (slot, member) = leased();
        let primary = {
            let (set, slot) = (Arc::clone(&set), Arc::clone(&slot));
            thread::spawn(move || {
                slot.void_lease(member);
                set.abort.set(DIED);
            })
        };
        let first = {
            let (set, latch) = (Arc::clone(&set), Arc::clone(&latch));
            thread::spawn(move || set.abort.load().is_some_and(|reason| latch.set(reason)))
        };
        let seen = latch.load();
        assert!(seen.is_none() || !slot.is_leased_by(member), "the abort is latched, and the dead member has a lease");
        first.join().expect("the first thread");
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
                device.1.write(b"a1", 77);
                device.0.store(OPEN);
                device.0.store(CLOSED);
            })
        };
        let word = device.0.load();
        let name = (word != 0).then(|| device.1.read());
        assert!(matches!(word, 0 | OPEN | CLOSED));
        if let Some(name) = name {
            assert_eq!(name, Ok((b"a1".to_vec(), 77)), "it is announced, and its name is not there");
        }
        server.join().expect("the server");
    });
}

#[test]
fn loom_closed_is_seen_after_the_commands() {
    // The server sends a command and closes the device; the client waits as GetCommand does.
    const CLOSED: u64 = 6;
    check("device closed", None, 2_500, || {
        let (mut producer, mut consumer) = ring::ends::<2>();
        let device = Arc::new((Announcement::default(), EventCount::new(), ModelFutex::default()));
        let server = {
            let device = Arc::clone(&device);
            thread::spawn(move || {
                producer.push(ring::record(0)).expect("room");
                device.0.store(CLOSED);
                device.1.notify_with(&device.2);
            })
        };
        let mut received = 0;
        loop {
            let ready = wait_until(&device.1, &device.2, || {
                if consumer.is_ready() {
                    return Some(true);
                }
                let word = device.0.load();
                let ready = consumer.is_ready();
                (ready || word == CLOSED).then_some(ready)
            });
            if !ready {
                break;
            }
            let popped = consumer.pop().expect("an honest server");
            assert_eq!(popped.map(|(_, words)| words), Some(ring::record(received)));
            received += 1;
        }
        assert_eq!(received, 1, "the device is closed, and a command is lost");
        server.join().expect("the server");
    });
}

#[test]
fn loom_the_text_of_an_abort_is_that_of_its_reason() {
    // Two processes abort the set at once, each with its text. A third one sees the abort.
    check("abort, two texts", Some(4), 5_000, || {
        let checksums = Checksums::new(7);
        let set = Arc::new((AbortWord::default(), AbortText::<2>::new()));
        let aborters = [(DIED, "a1"), (SIGNALLED, "b2")].map(|(reason, text)| {
            let set = Arc::clone(&set);
            thread::spawn(move || {
                set.1.write(checksums, reason, 5, text);
                set.0.set(reason)
            })
        });
        if let Some(reason) = set.0.load() {
            let own = if reason == DIED { "a1" } else { "b2" };
            let found = set.1.read(checksums, reason);
            assert!(found.is_none() || found == Some((5, own.to_owned())), "{found:?}");
        }
        let seen = aborters.map(|aborter| aborter.join().expect("an aborter"));
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn loom_the_text_of_an_abort_is_whole() {
    check("abort, its text", None, 5, || {
        let checksums = Checksums::new(7);
        let set = Arc::new((AbortWord::default(), AbortText::<2>::new()));
        let aborter = {
            let set = Arc::clone(&set);
            thread::spawn(move || {
                set.1.write(checksums, DIED, 5, "a1");
                set.0.set(DIED);
            })
        };
        if let Some(reason) = set.0.load() {
            assert_eq!(
                set.1.read(checksums, reason),
                Some((5, "a1".to_owned())),
                "it is aborted, and its text is not there"
            );
        }
        aborter.join().expect("the aborter");
    });
}
