//! Doorbells: nobody sleeps on when something was published.

use super::*;

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
        let publish = || self.flags[flag].store(value, Ordering::Release);
        in_order("caller.publish-ring", publish, || self.doorbell.ring(&self.futex));
    }

    fn sleep(&self, flag: usize, value: u32) {
        let up = || (self.flags[flag].load(Ordering::Acquire) >= value).then_some(());
        wait_until(&self.doorbell, &self.futex, up);
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
    check("doorbell 1:2", Some(4), 15_000, || {
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
    check("doorbell 2:1", Some(4), 15_000, || {
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
