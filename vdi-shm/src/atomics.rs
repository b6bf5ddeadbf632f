//! The one door through which atomics come, so that loom can stand in for them in the model checks.

#[cfg(not(loom))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bears witness to the accesses of words that other words must order.
///
/// The words of a record are atomics, so that a hostile peer cannot cause a data race; but honest peers never access one
/// from two sides at once. Loom does not let a load see a store that comes later, as hardware may, so it would not notice
/// an access that moved past the word that guards it. As accesses to plain memory it does. Outside of model checks this is
/// nothing at all.
#[derive(Debug, Default)]
pub(crate) struct Witness(#[cfg(loom)] loom::cell::UnsafeCell<()>);

impl Witness {
    /// The words are about to be written.
    #[inline]
    pub(crate) fn writes(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
    }

    /// The words are about to be read.
    #[inline]
    pub(crate) fn reads(&self) {
        #[cfg(loom)]
        self.0.with(|_| ());
    }
}

// SAFETY: nothing lies in it; it only tells loom who is there.
#[cfg(loom)]
#[allow(unsafe_code)]
unsafe impl Sync for Witness {}
