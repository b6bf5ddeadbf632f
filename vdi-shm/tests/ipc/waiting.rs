//! Waiting and waking with the system's own futex, across mappings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vdi_shm::ipc::event_count::EventCount;
use vdi_shm::ipc::segment::{Segment, Shared};
use vdi_shm::ipc::wait::{self, SLICE};

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

struct Scene {
    flag: Shared<AtomicU32>,
    event_count: Shared<EventCount>,
    /// The word of the event count.
    word: Shared<AtomicU32>,
}

/// The same flag and event count, in two mappings.
fn scenes() -> [Scene; 2] {
    let segment = Segment::create("vdi-test", 4096).expect("memory");
    [(); 2].map(|()| {
        let mapping = Arc::new(segment.map().expect("a mapping"));
        Scene {
            flag: mapping.shared(0).expect("a flag"),
            event_count: mapping.shared(64).expect("an event count"),
            word: mapping.shared(64).expect("a word"),
        }
    })
}

impl Scene {
    fn wait_for(&self, value: u32, deadline: Option<Instant>) -> Option<u32> {
        wait::wait_until(&self.event_count, deadline, || {
            let found = self.flag.load(Ordering::Acquire);
            (found >= value).then_some(found)
        })
    }
}

/// Best of three: a machine that is busy is not busy with this all the time.
fn quickest(mut attempt: impl FnMut() -> Duration) -> Duration {
    (0..3).map(|_| attempt()).min().expect("three attempts")
}

/// How long a sleeper takes to see what `wake` publishes.
fn time_to_wake(wake: impl Fn(&Scene)) -> Duration {
    let [waker, sleeper] = scenes();
    std::thread::scope(|scope| {
        let asleep = scope.spawn(|| {
            assert_eq!(sleeper.wait_for(1, wait::deadline(TEST_TIMEOUT)), Some(1));
            Instant::now()
        });
        // It is armed now, so it sleeps or is about to.
        while waker.word.load(Ordering::Relaxed) & 1 == 0 {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        waker.flag.store(1, Ordering::Release);
        wake(&waker);
        asleep.join().expect("no panic").saturating_duration_since(begun)
    })
}

#[test]
fn a_notification_wakes_across_mappings() {
    let took = quickest(|| time_to_wake(|scene| scene.event_count.notify()));
    assert!(took < SLICE / 4, "{took:?}: the sleep ended by itself");
}

/// A process that dies between changing the word and waking leaves sleepers that no `notify` reaches.
#[test]
fn notify_always_wakes_after_an_interrupted_notification() {
    let took = quickest(|| {
        time_to_wake(|scene| {
            scene.word.fetch_add(1, Ordering::Relaxed);
            scene.event_count.notify_always();
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
                assert_eq!(pong.wait_for(2 * round + 1, wait::deadline(TEST_TIMEOUT)), Some(2 * round + 1));
                pong.flag.store(2 * round + 2, Ordering::Release);
                pong.event_count.notify();
            }
        });
        for round in 0..ROUNDS {
            ping.flag.store(2 * round + 1, Ordering::Release);
            ping.event_count.notify();
            assert_eq!(ping.wait_for(2 * round + 2, wait::deadline(TEST_TIMEOUT)), Some(2 * round + 2));
        }
    });
    assert!(begun.elapsed() < SLICE * ROUNDS / 20, "{:?}: wake-ups were lost", begun.elapsed());
}

#[test]
fn deadlines() {
    let [scene, _other] = scenes();
    assert_eq!(wait::deadline(Duration::MAX), None, "for ever");
    let mut calls = 0;
    let nothing = wait::wait_until(&scene.event_count, wait::deadline(Duration::ZERO), || {
        calls += 1;
        None::<()>
    });
    assert_eq!(nothing, None);
    assert!(calls >= 1, "a wait without time calls `ready` all the same");
    let begun = Instant::now();
    assert_eq!(scene.wait_for(1, Some(begun)), None, "a deadline that has passed");
    assert_eq!(scene.wait_for(1, wait::deadline(Duration::from_millis(20))), None);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    scene.flag.store(1, Ordering::Release);
    assert_eq!(scene.wait_for(1, None), Some(1));
    assert_eq!(scene.wait_for(1, Some(begun)), Some(1), "what is there is found also after the deadline");
}

/// One step of a wait sleeps until its deadline, or for a slice where that comes sooner, and goes back to its caller.
#[test]
fn a_step_of_a_wait() {
    let [scene, _other] = scenes();
    let step = |deadline| {
        let begun = Instant::now();
        let found = wait::wait_once(&scene.event_count, wait::spin(), deadline, || {
            (scene.flag.load(Ordering::Acquire) == 1).then_some(())
        });
        (found, begun.elapsed())
    };
    let time_in_vain = |timeout| {
        quickest(|| {
            let (found, took) = step(wait::deadline(timeout));
            assert_eq!(found, None);
            took
        })
    };
    let short = Duration::from_millis(20);
    let took = time_in_vain(short);
    assert!((short..SLICE).contains(&took), "{took:?} until a deadline in {short:?}");
    for far in [Duration::MAX, TEST_TIMEOUT] {
        let took = time_in_vain(far);
        assert!((SLICE..SLICE * 3).contains(&took), "{took:?} with the time-out {far:?}");
    }
    scene.flag.store(1, Ordering::Release);
    for deadline in [None, Some(Instant::now())] {
        assert_eq!(step(deadline).0, Some(()), "what is there is found, also after the deadline");
    }
}
