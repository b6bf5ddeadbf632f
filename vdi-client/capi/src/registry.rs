//! The objects that the program has, by the numbers that it knows them by.
//!
//! # Invariants
//!
//! 1. A number is given out once in the life of a process: what was freed is never found again, and no number is of two
//!    kinds.
//! 2. A number has its highest bit set, where no program has memory on 64-bit Linux: none of its own pointers is one.
//! 3. Who found an object keeps it alive until the call is over, whoever frees it meanwhile.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::boundary::Failure;

/// The highest bit.
const MARK: usize = 1 << (usize::BITS - 1);

/// The next number, of whichever kind.
static NEXT: AtomicUsize = AtomicUsize::new(MARK | 1);

/// All objects of one kind; `H` is the kind that C knows.
pub(crate) struct Registry<H, T> {
    what: &'static str,
    objects: RwLock<BTreeMap<usize, Arc<T>>>,
    kind: core::marker::PhantomData<fn(*mut H)>,
}

impl<H, T> Registry<H, T> {
    /// None yet; `what` is what C calls them.
    pub(crate) const fn new(what: &'static str) -> Self {
        Registry { what, objects: RwLock::new(BTreeMap::new()), kind: core::marker::PhantomData }
    }

    /// Takes an object in, and gives its number as a pointer that points at nothing.
    pub(crate) fn insert(&self, object: T) -> *mut H {
        // 2^63 of them are enough for any process.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A map is whole whenever its lock is free: inserting and removing do not panic half way.
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(object));
        core::ptr::without_provenance_mut(number)
    }

    /// The object.
    ///
    /// # Errors
    /// VD_E_INVALID for NULL, for what was freed, and for anything else that is none.
    pub(crate) fn get(&self, pointer: *const H) -> Result<Arc<T>, Failure> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&pointer.addr()).cloned().ok_or_else(|| self.unknown(pointer))
    }

    /// Takes the object out.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub(crate) fn remove(&self, pointer: *const H) -> Result<Arc<T>, Failure> {
        let removed = self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(&pointer.addr());
        removed.ok_or_else(|| self.unknown(pointer))
    }

    #[cold]
    fn unknown(&self, pointer: *const H) -> Failure {
        let what = self.what;
        if pointer.is_null() {
            Failure::invalid(format_args!("the {what} is NULL; pass one that this library gave out"))
        } else {
            Failure::invalid(format_args!(
                "{pointer:p} is no {what} that this library gave out, or it was freed; use each until it is freed, once"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use vdi_client::VdError;

    use super::*;

    struct One;
    struct Other;

    #[test]
    fn what_was_freed_or_is_foreign_is_never_found() {
        static ONES: Registry<One, u32> = Registry::new("one");
        static OTHERS: Registry<Other, u32> = Registry::new("other");
        let first = ONES.insert(1);
        let held = ONES.get(first).unwrap();
        assert!(OTHERS.get(first.cast()).is_err());
        ONES.remove(first).unwrap();
        assert_eq!(*held, 1, "who found it keeps it");
        let second = ONES.insert(2);
        assert_ne!(first, second);
        let local = 0u8;
        for bad in [first, core::ptr::null_mut(), (&raw const local).cast_mut().cast(), second.wrapping_byte_add(1)] {
            assert_eq!(ONES.get(bad).unwrap_err().code(), VdError::Invalid);
            assert_eq!(ONES.remove(bad).unwrap_err().code(), VdError::Invalid);
        }
        assert_eq!(*ONES.remove(second).unwrap(), 2);
    }
}
