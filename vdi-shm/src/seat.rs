//! Values that one thread has at a time, for moments.
//!
//! Every command takes the parts of its device twice on either side, while nobody else wants them. A lock that can put threads to
//! sleep has to learn on its way out whether one does, by an exchange that waits for all stores before it; a seat is left by a plain
//! store. With seats instead of mutexes the round trip of a command took 237 ns where it had taken 248 (medians of eight pairs of
//! processes of either, in turn, on two cores of a virtual machine).
//!
//! # Invariants
//!
//! 1. *One at a time*: what the one before has written is seen by the next.
//! 2. *For moments*: whoever has a seat waits for nobody, and makes no system call but for events that somebody listens to, for a
//!    table that grows, and for errors. Those who want it look `LOOKS` times, since it is mostly free by then.
//! 3. *Without an end to spinning*: the system may take the CPU from whoever has the seat. So after that many looks in vain those who
//!    want it sleep for `NAP`, and give way whatever their priority, before they look again.
//! 4. A panic gives the seat up, and leaves the value as it is.

use core::fmt;
use core::ops::DerefMut;
use core::time::Duration;

use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Looks before a sleep, with a rest of the processor before each.
const LOOKS: u32 = 64;

/// How long those sleep who looked in vain; the system makes it some 50 microseconds more.
const NAP: Duration = Duration::from_micros(10);

/// A value that one thread has at a time, for moments.
///
/// ```
/// use vdi_shm::seat::Seat;
///
/// let seat = Seat::new(1);
/// *seat.take() += 1;
/// assert_eq!(*seat.take(), 2);
/// ```
pub struct Seat<T>(SpinMutex<T>);

impl<T> fmt::Debug for Seat<T> {
    /// Without the value, which would have to be taken for as long as somebody writes it down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl<T> Seat<T> {
    /// A seat that is free.
    pub const fn new(value: T) -> Self {
        Seat(SpinMutex::new(value))
    }

    /// Takes the seat until the result is dropped. Who has it already and wants it again waits for ever.
    #[inline]
    pub fn take(&self) -> impl DerefMut<Target = T> {
        self.0.try_lock().unwrap_or_else(|| self.wait())
    }

    /// Somebody has it.
    #[cold]
    fn wait(&self) -> SpinMutexGuard<'_, T> {
        loop {
            for _ in 0..LOOKS {
                core::hint::spin_loop();
                // Only looking leaves the line where it is.
                if !self.0.is_locked()
                    && let Some(had) = self.0.try_lock()
                {
                    return had;
                }
            }
            std::thread::sleep(NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        const TIMES: u64 = 20_000;
        let seat = Seat::new([0u64; 8]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        let mut counts = seat.take();
                        assert!(
                            counts.iter().all(|count| *count == counts[0]),
                            "somebody else was at it: {:?}",
                            *counts
                        );
                        counts.iter_mut().for_each(|count| *count += 1);
                    }
                });
            }
        });
        assert_eq!(seat.take()[0], 4 * TIMES);
    }

    #[test]
    fn a_panic_gives_it_up() {
        let seat = Seat::new(1);
        let panics = || {
            let mut value = seat.take();
            *value = 2;
            std::panic::resume_unwind(Box::new(()));
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(*seat.take(), 2);
    }

    /// How often a thread of this process has gone to sleep.
    fn slept(thread: u32) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("a thread");
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse().ok()).expect("a number")
    }

    /// Whoever waits for long gives way: it does not keep the CPU from the one that has the seat.
    #[test]
    fn who_has_to_wait_sleeps() {
        let seat = Seat::new(());
        let had = seat.take();
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            scope.spawn({
                let seat = &seat;
                move || {
                    tell.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).expect("the test waits");
                    drop(seat.take());
                }
            });
            let thread = told.recv().expect("a thread");
            let (before, until) = (slept(thread), Instant::now() + Duration::from_secs(60));
            while slept(thread) < before + 10 {
                assert!(Instant::now() < until, "it spins, or has the seat");
                std::thread::yield_now();
            }
            drop(had);
        });
    }
}
