use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

/// Takes transfers at once while it has room; a drain makes room.
#[derive(Default)]
struct Device {
    sent: Vec<u64>,
    room: u32,
    /// How much room a wait makes.
    window: u32,
    waits: u32,
}

impl Sink<u64> for Device {
    type Error = &'static str;

    fn takes_at_once(&mut self, _: &u64) -> bool {
        self.room > 0
    }

    fn make_ready(&mut self) -> Result<(), &'static str> {
        if self.room == 0 {
            self.waits += 1;
            self.room = self.window;
            thread::yield_now();
        }
        Ok(())
    }

    fn send(&mut self, item: u64) -> Result<(), &'static str> {
        self.room = self.room.checked_sub(1).ok_or("sent without room")?;
        self.sent.push(item);
        Ok(())
    }
}

#[test]
fn transfers_go_out_in_order() {
    let ordered = Ordered::new(Device { room: 10, window: 10, ..Device::default() }, 4);
    for at in [2, 1, 3] {
        ordered.deliver(at, at + 1, at).unwrap();
        assert!(ordered.lock().sent.is_empty());
    }
    ordered.deliver(0, 1, 0).unwrap();
    assert_eq!(ordered.lock().sent, [0, 1, 2, 3]);
    assert!(ordered.is_complete());
    assert!(ordered.woken().try_recv().is_ok(), "the writer learns of the end");
}

#[test]
fn a_device_that_has_to_be_waited_for_wakes_the_writer() {
    let ordered = Ordered::new(Device { room: 1, window: 1, ..Device::default() }, 3);
    ordered.deliver(0, 1, 0).unwrap();
    assert!(ordered.woken().try_recv().is_err());
    ordered.deliver(1, 2, 1).unwrap();
    assert_eq!(ordered.lock().sent, [0]);
    assert!(ordered.woken().try_recv().is_ok());
    ordered.drain().unwrap();
    assert_eq!(ordered.lock().sent, [0, 1]);
}

#[test]
fn a_reader_does_not_wait_for_the_writer() {
    let ordered = Ordered::new(Device { room: 10, window: 10, ..Device::default() }, 2);
    let held = ordered.lock();
    ordered.deliver(0, 1, 0).unwrap();
    ordered.deliver(1, 2, 1).unwrap();
    assert!(held.sent.is_empty());
    drop(held);
    ordered.drain().unwrap();
    assert_eq!(ordered.lock().sent, [0, 1]);
}

#[test]
fn a_failure_of_the_sink_is_the_readers() {
    struct Broken;
    impl Sink<u64> for Broken {
        type Error = &'static str;
        fn takes_at_once(&mut self, _: &u64) -> bool {
            true
        }
        fn make_ready(&mut self) -> Result<(), &'static str> {
            Ok(())
        }
        fn send(&mut self, _: u64) -> Result<(), &'static str> {
            Err("broken")
        }
    }
    assert_eq!(Ordered::new(Broken, 1).deliver(0, 1, 0), Err("broken"));
}

/// A transfer comes when the holder of the lock has looked at the list for the last time, and not yet let go of the lock. The reader
/// that brings it cannot send it.
#[test]
fn what_comes_before_the_unlock_is_found_after_it() {
    for by_writer in [false, true] {
        let ordered = Arc::new(Ordered::new(Device { room: 10, window: 10, ..Device::default() }, 2));
        let other = Arc::clone(&ordered);
        let deliver = move || thread::spawn(move || other.deliver(1, 2, 1).unwrap()).join().unwrap();
        *ordered.before_unlock.lock().unwrap() = Some(Box::new(deliver));
        if by_writer {
            let held = ordered.lock();
            ordered.deliver(0, 1, 0).unwrap();
            drop(held);
            ordered.drain().unwrap();
        } else {
            ordered.deliver(0, 1, 0).unwrap();
        }
        assert_eq!(ordered.lock().sent, [0, 1], "by the writer: {by_writer}");
    }
}

/// Readers bring transfers in the order in which they took them, more or less; a writer does what they leave to it. Were a transfer
/// forgotten, the writer would wait for ever.
#[test]
fn no_transfer_is_forgotten_when_readers_finish_at_once() {
    const TRANSFERS: u64 = 20_000;
    for (readers, window) in [(2, 1000), (2, 1), (4, 3), (8, 64)] {
        let ordered = Ordered::new(Device { room: window, window, ..Device::default() }, TRANSFERS);
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= TRANSFERS {
                            return;
                        }
                        ordered.deliver(at, at + 1, at).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                ordered.drain().unwrap();
                while !ordered.is_complete() {
                    ordered.woken().recv().unwrap();
                    ordered.drain().unwrap();
                }
            });
        });
        let device = ordered.lock();
        assert!(device.sent.iter().copied().eq(0..TRANSFERS), "{readers} readers, a window of {window}");
        assert!(device.waits > 0);
    }
}
