//! Event counts: no thread sleeps on when something was published.

use super::weakened::{ACQ_REL, LEFT_OUT, Source, Weakening};
use super::*;

pub(super) const WEAKENINGS: &[Weakening] = &[
    ("event_count.notify", LEFT_OUT, "event_count::loom_event_count_one_notifier_one_sleeper"),
    ("event_count.arm", LEFT_OUT, "event_count::loom_event_count_one_notifier_one_sleeper"),
    ("event_count.notify_always", ACQ_REL, "event_count::loom_event_count_notify_always"),
    ("event_count.notify_always", LEFT_OUT, "event_count::loom_event_count_notify_always"),
];

pub(super) const SOURCE: Source = include_str!("../ipc/event_count.rs");

struct Scene {
    event_count: EventCount,
    futex: ModelFutex,
    flags: [AtomicU32; 2],
}

impl Scene {
    fn new() -> Arc<Scene> {
        Arc::new(Scene {
            event_count: EventCount::new(),
            futex: ModelFutex::default(),
            flags: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    fn publish(&self, flag: usize, value: u32) {
        self.flags[flag].store(value, Ordering::Release);
        self.event_count.notify_with(&self.futex);
    }

    fn sleep(&self, flag: usize, value: u32) {
        let published = || (self.flags[flag].load(Ordering::Acquire) >= value).then_some(());
        wait_until(&self.event_count, &self.futex, published);
    }
}

#[test]
fn loom_event_count_one_notifier_one_sleeper() {
    check("event count 1:1", None, 80, || {
        let scene = Scene::new();
        let notifier = Arc::clone(&scene);
        let notifier = thread::spawn(move || notifier.publish(0, 1));
        scene.sleep(0, 1);
        notifier.join().expect("the notifier");
    });
}

#[test]
fn loom_event_count_is_armed_again() {
    check("event count re-armed", None, 50_000, || {
        let scene = Scene::new();
        let notifier = Arc::clone(&scene);
        let notifier = thread::spawn(move || {
            notifier.publish(0, 1);
            notifier.publish(0, 2);
        });
        scene.sleep(0, 1);
        scene.sleep(0, 2);
        notifier.join().expect("the notifier");
    });
}

#[test]
fn loom_event_count_two_sleepers() {
    check("event count 1:2", Some(4), 15_000, || {
        let scene = Scene::new();
        let notifier = Arc::clone(&scene);
        let notifier = thread::spawn(move || notifier.publish(0, 1));
        let sleeper = Arc::clone(&scene);
        let sleeper = thread::spawn(move || sleeper.sleep(0, 1));
        scene.sleep(0, 1);
        notifier.join().expect("the notifier");
        sleeper.join().expect("the sleeper");
    });
}

#[test]
fn loom_event_count_two_notifiers() {
    check("event count 2:1", Some(4), 15_000, || {
        let scene = Scene::new();
        let notifiers = [0, 1].map(|flag| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.publish(flag, 1))
        });
        scene.sleep(0, 1);
        scene.sleep(1, 1);
        for notifier in notifiers {
            notifier.join().expect("a notifier");
        }
    });
}

#[test]
fn loom_event_count_notify_always() {
    check("event count, notify_always", None, 50, || {
        let scene = Scene::new();
        let notifier = Arc::clone(&scene);
        let notifier = thread::spawn(move || {
            notifier.flags[0].store(1, Ordering::Release);
            notifier.event_count.notify_always_with(&notifier.futex);
        });
        scene.sleep(0, 1);
        notifier.join().expect("the notifier");
    });
}

#[test]
fn loom_event_count_notify_always_after_an_interrupted_notification() {
    check("event count, interrupted", None, 400, || {
        let scene = Scene::new();
        let others = Arc::clone(&scene);
        let others = thread::spawn(move || {
            // One process publishes and dies while it notifies. Another one sees the death and publishes it.
            others.flags[1].store(1, Ordering::Release);
            others.event_count.notify_with(&DiesBeforeWaking);
            others.flags[0].store(1, Ordering::Release);
            others.event_count.notify_always_with(&others.futex);
        });
        scene.sleep(0, 1);
        others.join().expect("the others");
    });
}
