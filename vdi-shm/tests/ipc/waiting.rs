//! Waiting and waking with the system's own futex, and what a process has seen of an abort.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vdi_proto::abort::{Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::join::{Message, Role};
use vdi_proto::layout::{ABORT_OFFSET, control_len};
use vdi_shm::doorbell::{Doorbell, Futex, Word};
use vdi_shm::host::Host;
use vdi_shm::link::Received;
use vdi_shm::runtime::{Access, Options, Place, RuntimeDir};
use vdi_shm::segment::{Segment, Shared, SharedLayout};
use vdi_shm::wait::{self, SLICE};

const PATIENCE: Duration = Duration::from_secs(60);

#[repr(C)]
struct Flag(AtomicU32);

// SAFETY: `repr(C)` and an atomic.
unsafe impl SharedLayout for Flag {}

struct Scene {
    flag: Shared<Flag>,
    doorbell: Shared<Doorbell>,
}

/// The same flag and doorbell, in two mappings.
fn scenes() -> [Scene; 2] {
    let segment = Segment::create("vdi-test", 4096, true).expect("memory");
    [(); 2].map(|()| {
        let mapping = Arc::new(segment.map().expect("a mapping"));
        Scene { flag: mapping.place(0).expect("a flag"), doorbell: mapping.place(64).expect("a doorbell") }
    })
}

impl Scene {
    fn wait_for(&self, value: u32, deadline: Option<Instant>) -> Option<u32> {
        wait::wait_until(&self.doorbell, deadline, || {
            let found = self.flag.0.load(Ordering::Acquire);
            (found >= value).then_some(found)
        })
    }
}

/// Best of three: a machine that is busy is not busy with this all the time.
fn quickest(mut attempt: impl FnMut() -> Duration) -> Duration {
    (0..3).map(|_| attempt()).min().expect("three attempts")
}

/// How long somebody who sleeps takes to hear of what `wake` publishes.
fn time_to_wake(wake: impl Fn(&Scene)) -> Duration {
    let [waker, sleeper] = scenes();
    std::thread::scope(|scope| {
        let asleep = scope.spawn(|| {
            assert_eq!(sleeper.wait_for(1, wait::deadline(PATIENCE)), Some(1));
            Instant::now()
        });
        // Long enough for the other to have fallen asleep, as a rule; where it has not, there is only less to see.
        std::thread::sleep(SLICE / 10);
        let begun = Instant::now();
        waker.flag.0.store(1, Ordering::Release);
        wake(&waker);
        asleep.join().expect("no panic").saturating_duration_since(begun)
    })
}

#[test]
fn a_ring_wakes_across_mappings() {
    let took = quickest(|| time_to_wake(|scene| wait::ring(&scene.doorbell)));
    assert!(took < SLICE / 4, "{took:?}: the sleep ended by itself");
}

/// A process that dies between changing the word and waking leaves sleepers that no ring reaches; an alarm does.
#[test]
fn an_alarm_wakes_whom_an_interrupted_ring_left() {
    struct Dies;
    impl Futex for Dies {
        fn wait(&self, _word: &Word, _expected: u32, _timeout: Duration) {}
        fn wake_all(&self, _word: &Word) {}
    }
    let took = quickest(|| {
        time_to_wake(|scene| {
            scene.doorbell.ring(&Dies);
            wait::alarm(&scene.doorbell);
        })
    });
    assert!(took < SLICE / 4, "{took:?}: the sleep ended by itself");
}

/// Two threads hand a number back and forth; each wait would take a slice if its wake-up were lost.
#[test]
fn ping_pong() {
    const ROUNDS: u32 = 2000;
    let [ping, pong] = scenes();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                assert_eq!(pong.wait_for(2 * round + 1, wait::deadline(PATIENCE)), Some(2 * round + 1));
                pong.flag.0.store(2 * round + 2, Ordering::Release);
                wait::ring(&pong.doorbell);
            }
        });
        for round in 0..ROUNDS {
            ping.flag.0.store(2 * round + 1, Ordering::Release);
            wait::ring(&ping.doorbell);
            assert_eq!(ping.wait_for(2 * round + 2, wait::deadline(PATIENCE)), Some(2 * round + 2));
        }
    });
    assert!(begun.elapsed() < SLICE * ROUNDS / 20, "{:?}: wake-ups were lost", begun.elapsed());
}

#[test]
fn deadlines() {
    let [scene, _other] = scenes();
    assert_eq!(wait::deadline(Duration::MAX), None, "for ever");
    let mut looks = 0;
    let nothing = wait::wait_until(&scene.doorbell, wait::deadline(Duration::ZERO), || {
        looks += 1;
        None::<()>
    });
    assert_eq!(nothing, None);
    assert!(looks >= 1, "a wait without time looks once all the same");
    let begun = Instant::now();
    assert_eq!(scene.wait_for(1, Some(begun)), None, "a deadline that has passed");
    assert_eq!(scene.wait_for(1, wait::deadline(Duration::from_millis(20))), None);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    scene.flag.0.store(1, Ordering::Release);
    assert_eq!(scene.wait_for(1, None), Some(1));
    assert_eq!(scene.wait_for(1, Some(begun)), Some(1), "what is there is found also after the deadline");
}

/// One step of a wait sleeps until its deadline, or for a slice where that comes sooner, and goes back to its caller.
#[test]
fn a_step_of_a_wait() {
    let [scene, _other] = scenes();
    let step = |deadline| {
        let begun = Instant::now();
        let found = wait::wait_once(&scene.doorbell, wait::spin(), deadline, || {
            (scene.flag.0.load(Ordering::Acquire) == 1).then_some(())
        });
        (found, begun.elapsed())
    };
    let short = Duration::from_millis(20);
    let took = quickest(|| {
        let (found, took) = step(wait::deadline(short));
        assert_eq!(found, None);
        took
    });
    assert!((short..SLICE).contains(&took), "{took:?} until a deadline in {short:?}");
    for far in [None, wait::deadline(PATIENCE)] {
        let took = quickest(|| {
            let (found, took) = step(far);
            assert_eq!(found, None);
            took
        });
        assert!((SLICE..SLICE * 3).contains(&took), "{took:?} with the deadline {far:?}");
    }
    scene.flag.0.store(1, Ordering::Release);
    for deadline in [None, Some(Instant::now())] {
        assert_eq!(step(deadline).0, Some(()), "what is there is found, also after the deadline");
    }
}

/// Memory that does not fit is refused, and what is mapped lies where every alignment of a set is kept.
#[test]
fn places_in_a_mapping() {
    for len in [1, 100, 4096, 4097, 65536, 65537, 1 << 20] {
        let segment = Segment::create("vdi-test", len, false).expect("memory");
        assert_eq!(segment.len(), len);
        let mapping = Arc::new(segment.map().expect("a mapping"));
        assert_eq!(mapping.len() as u64, len);
        assert_eq!(mapping.address().as_ptr() as usize % 65536, 0, "{len} bytes");
        let size = size_of::<Doorbell>() as u64;
        for offset in [len.saturating_sub(size - 1), len, len + 1, u64::MAX, u64::MAX - size + 1, 1, 32] {
            assert!(mapping.place::<Doorbell>(offset).is_err(), "offset {offset} of {len}");
        }
        assert_eq!(mapping.place::<Doorbell>(0).is_ok(), len >= size);
        if let Some(last) = len.checked_sub(size) {
            let fits = mapping.place::<Doorbell>(last / 64 * 64).expect("the last place");
            // To the last byte: whatever was mapped can be touched.
            wait::ring(&fits);
        }
    }
    // Threads that map at the same time do not get into each other's way.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let segment = Segment::create("vdi-test", 100_000, false).expect("memory");
                let mut kept = Vec::new();
                for round in 0..200 {
                    let mapping = segment.map().expect("a mapping");
                    assert_eq!(mapping.address().as_ptr() as usize % 65536, 0);
                    if round % 2 == 0 {
                        kept.push(mapping);
                    }
                }
            });
        }
    });
    assert!(Segment::create("vdi-test", 0, false).and_then(|segment| segment.map()).is_err());
    assert!(Segment::create("vdi-test", u64::MAX, true).is_err());
}

/// An abort that was seen stays seen, though any member can clear the word.
#[test]
fn an_abort_stays_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { runtime_dir: Some(dir.path().to_owned()), access: Access::default() };
    let host = Host::create(&options, "", "nightly", &VdConfig::default()).expect("a set");
    let runtime = RuntimeDir::open(&options, false).expect("a directory");
    let link = runtime.connect(&Place::new("", "nightly").expect("a name"), &options.access).expect("a set");
    link.send(&Message::Hello { role: Role::Server, instance: "", set: "nightly" }, None).expect("a set");
    let Ok(Received::Packet(mut welcome)) = link.receive_until(Instant::now() + PATIENCE, "Welcome") else {
        panic!("no Welcome");
    };
    let segment = Segment::from_peer(welcome.take_descriptor().expect("a segment"), control_len(1)).expect("sealed");
    let word: Shared<Flag> = Arc::new(segment.map().expect("a mapping")).place(ABORT_OFFSET).expect("the abort word");

    let session = host.session();
    assert_eq!(session.abort_reason(), None);
    session.abort(Cause::Signalled);
    let reason = session.abort_reason().expect("an abort");
    assert_eq!((reason.party, reason.cause), (Party::Primary, Cause::Signalled));
    assert_eq!(word.0.swap(0, Ordering::Relaxed), reason.to_word());
    assert_eq!(session.abort_reason(), Some(reason));
    // A second reason comes too late, here and for all.
    session.abort_for(Party::Server, Cause::Died);
    assert_eq!(session.abort_reason(), Some(reason));
    // Whatever a scribbler leaves there is an abort to those who have not looked.
    word.0.store(u32::MAX, Ordering::Relaxed);
    assert!(host.session().control().abort_reason().is_some());
    assert_eq!(session.abort_reason(), Some(reason));
}
