//! The one door through which atomics come, so that loom can stand in for them in the model checks, and so that each
//! ordering that matters has a name there.
//!
//! # Sites
//!
//! An ordering is written `ordering("ring.lap", Ordering::Release)`, a fence `fence("doorbell.arm", Ordering::SeqCst)`, and one
//! that stands directly behind a read-modify-write is one call with it, `fetch_or_fenced("slot.lease", ...)`; steps whose order
//! matters are written with [`in_order`] or [`try_in_order`], and one that must not be left out with [`step`].
//! Outside of model checks these are the plain ordering, the plain fence, and the steps as they stand: they inline to nothing.
//! In model checks the variable `VDI_WEAKEN` names one site that is weakened, and a model has to notice:
//! `loom_tests/weakened.rs` has the table.

#[cfg(not(loom))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(all(loom, test))]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8};

#[cfg(loom)]
pub(crate) use seeded::{fence, in_order, ordering, step, try_in_order};

/// An ordering that another one pairs with; `site` is its name in the model checks.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn ordering(_site: &'static str, ordering: Ordering) -> Ordering {
    ordering
}

/// A fence that another one pairs with; `site` is its name in the model checks.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn fence(_site: &'static str, ordering: Ordering) {
    core::sync::atomic::fence(ordering);
}

/// Two steps that must be taken in this order.
#[inline(always)]
#[cfg(not(loom))]
pub(crate) fn in_order<A, B>(_site: &'static str, first: impl FnOnce() -> A, second: impl FnOnce() -> B) -> (A, B) {
    let first = first();
    (first, second())
}

/// Two steps that must be taken in this order, the second one only if the first one succeeds.
#[inline(always)]
#[cfg(not(loom))]
pub(crate) fn try_in_order<A, B, E>(
    _site: &'static str,
    first: impl FnOnce() -> Result<A, E>,
    second: impl FnOnce() -> B,
) -> Result<(A, B), E> {
    let first = first()?;
    Ok((first, second()))
}

/// A step that must not be left out.
#[inline(always)]
#[cfg(not(loom))]
pub(crate) fn step(_site: &'static str, step: impl FnOnce()) {
    step();
}

pub(crate) use fenced::{compare_exchange_fenced, fetch_or_fenced};

/// Read-modify-writes with a sequentially consistent fence directly behind them. Nobody else has that fence: it is none where it
/// stands alone.
mod fenced {
    use super::{AtomicU64, Ordering};

    /// Sets bits; the fence behind it pairs with another one, and `site` is its name in the model checks.
    #[inline(always)]
    pub(crate) fn fetch_or_fenced(site: &'static str, word: &AtomicU64, bits: u64) {
        word.fetch_or(bits, Ordering::Relaxed);
        fence_after_rmw(site);
    }

    /// Changes a word from one value to another, if it has the first; the fence behind it, which stands there either way, pairs
    /// with another one, and `site` is its name in the model checks.
    #[inline(always)]
    pub(crate) fn compare_exchange_fenced(
        site: &'static str,
        word: &AtomicU64,
        current: u64,
        new: u64,
    ) -> Result<u64, u64> {
        let exchanged = word.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed);
        fence_after_rmw(site);
        exchanged
    }

    /// The fence directly behind an atomic read-modify-write of the same thread, whichever its ordering and whether it succeeded.
    ///
    /// On x86 it costs nothing more. A read-modify-write is an instruction with a lock there, also a compare-and-exchange that
    /// fails, and such an instruction is all that the fence is: the store buffer is empty when it has been executed, no later
    /// load was executed before it, and all of them have one order, with the fences by instruction among them (Intel 64 and
    /// IA-32 Architectures Software Developer's Manual, volume 3A, "Memory Ordering"; AMD64 Architecture Programmer's Manual,
    /// volume 2, "Multiprocessor Memory Access Ordering"). What is left to do is to keep the compiler from moving an access
    /// across. Elsewhere, and wherever the language's rules are checked and not the machine's, it is the fence.
    #[cfg(not(loom))]
    #[inline(always)]
    fn fence_after_rmw(_site: &'static str) {
        #[cfg(all(any(target_arch = "x86_64", target_arch = "x86"), not(miri)))]
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "x86"), not(miri))))]
        core::sync::atomic::fence(Ordering::SeqCst);
    }

    /// The model's machine has no stronger read-modify-writes than the language has.
    #[cfg(loom)]
    fn fence_after_rmw(site: &'static str) {
        super::fence(site, Ordering::SeqCst);
    }
}

/// The same with one site weakened.
#[cfg(loom)]
mod seeded {
    use std::sync::OnceLock;

    use super::Ordering;

    /// How the site is to be weakened, if it is the one: what follows its name and a colon in `VDI_WEAKEN`.
    fn weakened(site: &str) -> Option<&'static str> {
        static SEED: OnceLock<Option<(String, String)>> = OnceLock::new();
        let seed = SEED.get_or_init(|| {
            let seed = std::env::var("VDI_WEAKEN").ok()?;
            seed.split_once(':').map(|(site, how)| (site.into(), how.into()))
        });
        seed.as_ref().filter(|(seeded, _)| seeded == site).map(|(_, how)| how.as_str())
    }

    pub(crate) fn ordering(site: &'static str, ordering: Ordering) -> Ordering {
        match weakened(site) {
            None => ordering,
            Some("Relaxed") => Ordering::Relaxed,
            Some(how) => panic!("an ordering cannot be weakened to {how}"),
        }
    }

    pub(crate) fn fence(site: &'static str, ordering: Ordering) {
        match weakened(site) {
            None => loom::sync::atomic::fence(ordering),
            Some("AcqRel") => loom::sync::atomic::fence(Ordering::AcqRel),
            Some("left out") => {}
            Some(how) => panic!("a fence cannot be weakened to {how}"),
        }
    }

    pub(crate) fn in_order<A, B>(site: &'static str, first: impl FnOnce() -> A, second: impl FnOnce() -> B) -> (A, B) {
        let Ok(both) = try_in_order(site, || Ok::<A, core::convert::Infallible>(first()), second);
        both
    }

    pub(crate) fn try_in_order<A, B, E>(
        site: &'static str,
        first: impl FnOnce() -> Result<A, E>,
        second: impl FnOnce() -> B,
    ) -> Result<(A, B), E> {
        match weakened(site) {
            None => {
                let first = first()?;
                Ok((first, second()))
            }
            Some("swapped") => {
                let second = second();
                Ok((first()?, second))
            }
            Some(how) => panic!("two steps cannot be {how}"),
        }
    }

    pub(crate) fn step(site: &'static str, step: impl FnOnce()) {
        match weakened(site) {
            None => step(),
            Some("left out") => {}
            Some(how) => panic!("a step cannot be {how}"),
        }
    }
}

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
