//! Work on a long range that signals interrupt.

use rustix::io::Errno;

/// The longest piece: long enough that the calls cost nothing beside the work, and a multiple of a huge page.
const LONGEST: u64 = 4 << 20;
/// The shortest piece: a page.
const SHORTEST: u64 = 4096;
/// Interrupted attempts at a piece before it is halved.
const ATTEMPTS: u32 = 8;

/// Calls `work` with offset and length of consecutive pieces that cover `len` bytes.
///
/// Older versions of Linux undo all that a `fallocate` has done when a signal is pending. A profiler's timer interrupts a
/// long call each time, so that repeating it would never end. Here only a piece is repeated, and halved after
/// [`ATTEMPTS`] interruptions. The number of calls is bounded by the length.
///
/// # Errors
/// The first error that is no interruption; `EINTR` when the shortest piece is always interrupted.
pub(crate) fn in_pieces(len: u64, mut work: impl FnMut(u64, u64) -> Result<(), Errno>) -> Result<(), Errno> {
    let (mut offset, mut piece, mut interrupted) = (0, LONGEST, 0);
    while offset < len {
        let next = piece.min(len - offset);
        match work(offset, next) {
            Ok(()) => {
                offset += next;
                interrupted = 0;
            }
            Err(Errno::INTR) if interrupted < ATTEMPTS => interrupted += 1,
            Err(Errno::INTR) if piece > SHORTEST => {
                piece /= 2;
                interrupted = 0;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A kernel that undoes a call which is interrupted: a call gets `budget` bytes done before the next signal.
    struct Kernel {
        budget: u64,
        done: u64,
        calls: u64,
    }

    impl Kernel {
        fn allocate(&mut self, offset: u64, len: u64) -> Result<(), Errno> {
            self.calls += 1;
            assert_eq!(offset, self.done, "the pieces are consecutive");
            if len > self.budget {
                return Err(Errno::INTR);
            }
            self.done += len;
            Ok(())
        }
    }

    proptest! {
        /// Repeating the whole range would never end here.
        #[test]
        fn signals_do_not_make_reserving_endless(len in 1u64..64 << 20, budget in SHORTEST..LONGEST * 2) {
            let mut kernel = Kernel { budget, done: 0, calls: 0 };
            prop_assert_eq!(in_pieces(len, |offset, len| kernel.allocate(offset, len)), Ok(()));
            prop_assert_eq!(kernel.done, len);
            prop_assert!(kernel.calls <= len / SHORTEST + 200);
        }
    }

    #[test]
    fn constant_interruption_is_an_error() {
        let mut kernel = Kernel { budget: SHORTEST - 1, done: 0, calls: 0 };
        assert_eq!(in_pieces(64 << 20, |offset, len| kernel.allocate(offset, len)), Err(Errno::INTR));
        assert!(kernel.calls < 200);
    }

    #[test]
    fn other_errors_end_it_at_once() {
        let mut calls = 0;
        let refuse = |_, _| {
            calls += 1;
            Err(Errno::NOSPC)
        };
        assert_eq!(in_pieces(64 << 20, refuse), Err(Errno::NOSPC));
        assert_eq!(calls, 1);
    }
}
