//! Who in this process holds a slot's buffer, and where it is here: words of this process alone, without a lock.
//!
//! # Invariants
//!
//! 1. The word goes from `NOBODY` to `CLAIMED` by whoever wins it, and from there to `NOBODY`, a command, `LEASE` or `FINDING`
//!    by the same; from a command back to `NOBODY`, and from `LEASE` and `FINDING` through `CLAIMED` to `NOBODY`, by the
//!    holder. Nobody else writes it. So one thread at a time has a claim, or holds the slot.
//! 2. The place is written only under a claim, or under the lock of places while the word is `FINDING`: a lease whose buffer is
//!    still looked for. Its holder uses no place, and forgets the old one under that lock before it goes on; so whoever has
//!    the lock may forget the old place as well, and must not take it for one that is held. `FINDING` becomes `LEASE` under the
//!    lock. So the place stands for as long as a command or a `LEASE` holds the slot.
//! 3. A claim ends soon: whoever has one waits for no lock and sleeps for nothing, and makes no other claim, unless it has the
//!    lock of places, which one thread has at a time. So whoever meets a claim waits for its end, and never takes it for a
//!    holder.
//! 4. Whoever wins a claim sees what all before did with the buffer, and they do nothing more with it (release, acquire).
//! 5. A lease in the slot table and `LEASE` or `FINDING` here begin and end under one claim. So nobody in this process sees the one without
//!    the other: not who maps the buffer again, nor who gets it with a new command.
//!
//! The loom tests check 1, 4, 5 and [`Holding::command_at`] over all interleavings.

use core::ptr::NonNull;

use vdi_proto::handle::BufferHandle;
use vdi_proto::layout::RawPlace;

use crate::atomics::{AtomicPtr, AtomicU32, AtomicU64, Ordering, in_order, ordering, spin_loop};

/// What is in the word's lower half; where somebody holds the slot, the number of its handle is in the upper one. The loans of a
/// slot have different handles until the generations come round: whoever looks twice at a word, as [`Holding::command_at`] does, and
/// takes another loan for the same, has slept through a multiple of 2^20 loans of that slot in between.
const KIND: u64 = u32::MAX as u64;
const NOBODY: u64 = 0;
const CLAIMED: u64 = 1;
const LEASE: u64 = 2;
const COMMAND: u64 = 3;
/// A lease whose buffer is not known yet: its place is written under the lock of places alone, by whoever has that.
const FINDING: u64 = 4;

/// How a slot is held, and the handle of what it is lent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// By a command of this process.
    Command(BufferHandle),
    /// By the handle.
    Lease(BufferHandle),
    /// By the handle, and where the buffer is will be known soon.
    Finding(BufferHandle),
}

/// A slot, as this process has it.
#[derive(Debug)]
pub(crate) struct Holding {
    word: AtomicU64,
    /// Where the buffer starts in this process; null while that is not known.
    start: AtomicPtr<u8>,
    /// Where the buffer was when it was last held: judged, and apart from all other known places.
    offset: AtomicU64,
    area: AtomicU32,
    len: AtomicU32,
}

/// The right to change a slot that nobody holds; dropping it gives the slot back as it is.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claim<'a>(&'a Holding);

#[inline]
fn handle_of(word: u64) -> BufferHandle {
    BufferHandle::from_number((word >> u32::BITS) as u32)
}

/// Lets the thread go on that has a claim; it may have lost its CPU.
fn wait_for_claim(tries: u32) {
    // A thread that goes before all others by its priority would not let it go on by yielding alone.
    #[cfg(not(loom))]
    if tries.is_multiple_of(4096) {
        std::thread::sleep(core::time::Duration::from_micros(50));
    } else if tries.is_multiple_of(128) {
        std::thread::yield_now();
    }
    let _ = tries;
    spin_loop();
}

impl Holding {
    pub(crate) fn new() -> Holding {
        Holding {
            word: AtomicU64::new(NOBODY),
            start: AtomicPtr::new(core::ptr::null_mut()),
            offset: AtomicU64::new(0),
            area: AtomicU32::new(0),
            len: AtomicU32::new(0),
        }
    }

    /// Claims the slot, if nobody holds it.
    #[inline]
    pub(crate) fn claim(&self) -> Option<Claim<'_>> {
        let mut tries = 0u32;
        loop {
            // SYNC holding.claim: pairs with holding.free.
            let acquire = ordering("holding.claim", Ordering::Acquire);
            match self.word.compare_exchange(NOBODY, CLAIMED, acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Claim(self)),
                Err(CLAIMED) => {
                    tries = tries.wrapping_add(1);
                    wait_for_claim(tries);
                }
                Err(_) => return None,
            }
        }
    }

    /// The holder of a command, or a claim's owner: nobody holds the slot now.
    #[inline]
    pub(crate) fn free(&self) {
        // SYNC holding.free: pairs with holding.claim.
        self.word.store(NOBODY, ordering("holding.free", Ordering::Release));
    }

    /// The holder by a lease: ends it, there by `release`, and here.
    #[inline]
    pub(crate) fn free_lease(&self, release: impl FnOnce()) {
        let release = || in_order("holding.lease.release-free", release, || self.free());
        in_order("holding.lease.claim-release", || self.word.store(CLAIMED, Ordering::Relaxed), release);
    }

    /// The handle of the command's buffer that is held here, if it starts at this address. From any thread.
    #[inline]
    pub(crate) fn command_at(&self, address: *const u8) -> Option<BufferHandle> {
        // SYNC holding.command: pairs with holding.hold, for the place.
        let word = self.word.load(ordering("holding.command", Ordering::Acquire));
        // SYNC holding.start.look: pairs with holding.start; who sees a later place sees the claim that it was written under.
        let start = self.start.load(ordering("holding.start.look", Ordering::Acquire));
        // Null is the start of none: it may be seen where a place was forgotten, beside the word of the command before.
        let is_it = word & KIND == COMMAND && !start.is_null() && start.cast_const() == address;
        (is_it && self.word.load(Ordering::Relaxed) == word).then(|| handle_of(word))
    }

    /// Whether it is a lease whose buffer is still looked for. Under the lock of places.
    pub(crate) fn is_finding(&self) -> bool {
        self.word.load(Ordering::Relaxed) & KIND == FINDING
    }

    /// The holder of a lease whose place is known now; under the lock of places.
    pub(crate) fn found(&self) {
        let word = self.word.load(Ordering::Relaxed) & !KIND | LEASE;
        self.word.store(word, Ordering::Relaxed);
    }

    /// The handle that the slot is held by; for its holder.
    #[inline]
    pub(crate) fn handle(&self) -> BufferHandle {
        handle_of(self.word.load(Ordering::Relaxed))
    }

    /// The buffer's start in this process; for its holder.
    #[inline]
    pub(crate) fn start(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.start.load(Ordering::Relaxed))
    }

    /// Where the buffer is known to be. Under a claim, or the lock of places.
    pub(crate) fn place(&self) -> Option<RawPlace> {
        (!self.start.load(Ordering::Relaxed).is_null()).then(|| self.raw())
    }

    #[inline]
    fn raw(&self) -> RawPlace {
        RawPlace {
            area: self.area.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            offset: self.offset.load(Ordering::Relaxed),
        }
    }

    /// The buffer's start in this process, if it is known to be in this place. Under a claim or a lease.
    #[inline]
    pub(crate) fn start_of(&self, place: RawPlace) -> Option<NonNull<u8>> {
        let start = self.start()?;
        (self.raw() == place).then_some(start)
    }

    /// Takes note of the place. Under a claim, or the lock of places while the word is `FINDING`.
    pub(crate) fn learn(&self, place: RawPlace, start: NonNull<u8>) {
        self.area.store(place.area, Ordering::Relaxed);
        self.len.store(place.len, Ordering::Relaxed);
        self.offset.store(place.offset, Ordering::Relaxed);
        // SYNC holding.start: pairs with holding.start.look.
        self.start.store(start.as_ptr(), ordering("holding.start", Ordering::Release));
    }

    /// The place is known no more. Under a claim, or the lock of places while the word is `FINDING`.
    pub(crate) fn forget(&self) {
        self.start.store(core::ptr::null_mut(), Ordering::Relaxed);
    }
}

impl core::ops::Deref for Claim<'_> {
    type Target = Holding;

    fn deref(&self) -> &Holding {
        self.0
    }
}

impl Claim<'_> {
    /// The slot is held from now on.
    #[inline]
    pub(crate) fn hold(self, holder: Holder) {
        let (handle, kind) = match holder {
            Holder::Lease(handle) => (handle, LEASE),
            Holder::Finding(handle) => (handle, FINDING),
            Holder::Command(handle) => (handle, COMMAND),
        };
        let word = u64::from(handle.number()) << u32::BITS | kind;
        // SYNC holding.hold: pairs with holding.command.
        self.0.word.store(word, ordering("holding.hold", Ordering::Release));
        core::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.free();
    }
}
