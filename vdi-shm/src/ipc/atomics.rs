//! The atomics of this crate. Loom's replace them in the model checks, and each ordering that matters has a name.
//!
//! # Sites
//!
//! An ordering is written `ordering("ring.push.sequence", Ordering::Release)`, a fence
//! `fence("event_count.arm", Ordering::SeqCst)`. Outside of model checks these are the plain ordering and the plain fence.
//! In model checks the variable `VDI_WEAKEN` names one site that is weakened, and a model has to fail:
//! `loom_tests/weakened.rs` has the table.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(all(loom, test))]
pub(crate) use loom::sync::atomic::AtomicU8;

#[cfg(loom)]
pub(crate) use weakening::{fence, ordering};

/// An ordering that pairs with another one; `site` is its name in the model checks.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn ordering(_site: &'static str, ordering: Ordering) -> Ordering {
    ordering
}

/// A fence that pairs with another one; `site` is its name in the model checks.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn fence(_site: &'static str, ordering: Ordering) {
    core::sync::atomic::fence(ordering);
}

/// Orderings and fences of which one can be weakened.
#[cfg(loom)]
mod weakening {
    use std::sync::OnceLock;

    use super::Ordering;

    /// How `site` is weakened, if it is the site that `VDI_WEAKEN` names: the text after the name and a colon.
    fn weakened(site: &str) -> Option<&'static str> {
        static WEAKENED: OnceLock<Option<(String, String)>> = OnceLock::new();
        let weakened = WEAKENED.get_or_init(|| {
            let value = std::env::var("VDI_WEAKEN").ok()?;
            value.split_once(':').map(|(site, how)| (site.into(), how.into()))
        });
        weakened.as_ref().filter(|(name, _)| name == site).map(|(_, how)| how.as_str())
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
}

/// Shows loom the accesses of words that other words must order.
///
/// The words of a record are atomics, so that a hostile peer cannot cause a data race. Honest peers never access one from
/// two sides at once. Loom does not let a load see a later store, as hardware may, so it would not notice an access that
/// moved past the word that guards it. It does notice this for plain memory. Outside of model checks a witness is empty.
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

// SAFETY: the cell has no content; loom checks the accesses.
#[cfg(loom)]
#[allow(unsafe_code)]
unsafe impl Sync for Witness {}
