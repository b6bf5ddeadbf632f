//! The objects that the program has, by the numbers that it knows them by.
//!
//! # Invariants
//!
//! 1. A number is given out once in the life of a process: what was freed is never found again, and no number is of two
//!    kinds.
//! 2. A number has its highest bit set, where no program has memory on 64-bit Linux: none of its own pointers is one.
//! 3. Who found an object keeps it alive until the call is over, whoever frees it meanwhile.
//! 4. An object works in the process that put it here. A fork copies it into a process without its threads, where it is never
//!    found, and never dropped: that would end what the first process goes on using.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry::Occupied;
use std::sync::{Arc, PoisonError, RwLock};

use crate::boundary::Failure;

/// The highest bit.
const MARK: usize = 1 << (usize::BITS - 1);

/// The next number, of whichever kind.
static NEXT: AtomicUsize = AtomicUsize::new(MARK | 1);

/// An object, and the process that put it here.
struct Entry<T> {
    process: u32,
    is: Arc<T>,
}

impl<T> Entry<T> {
    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }
}

/// All objects of one kind; `H` is the kind that C knows.
pub(crate) struct Registry<H, T> {
    what: &'static str,
    objects: RwLock<BTreeMap<usize, Entry<T>>>,
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
        let entry = Entry { process: std::process::id(), is: Arc::new(object) };
        // A map is whole whenever its lock is free: inserting and removing do not panic half way.
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(number, entry);
        core::ptr::without_provenance_mut(number)
    }

    /// The object.
    ///
    /// # Errors
    /// VD_E_INVALID for NULL, for what was freed, for what a fork inherited, and for anything else that is none.
    pub(crate) fn get(&self, pointer: *const H) -> Result<Arc<T>, Failure> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        match objects.get(&pointer.addr()) {
            Some(entry) if entry.is_ours() => Ok(Arc::clone(&entry.is)),
            found => Err(self.missing(pointer, found.is_some())),
        }
    }

    /// Takes the object out.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub(crate) fn remove(&self, pointer: *const H) -> Result<Arc<T>, Failure> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        match objects.entry(pointer.addr()) {
            Occupied(entry) if entry.get().is_ours() => Ok(entry.remove().is),
            found => Err(self.missing(pointer, matches!(found, Occupied(_)))),
        }
    }

    #[cold]
    fn missing(&self, pointer: *const H, inherited: bool) -> Failure {
        let what = self.what;
        if pointer.is_null() {
            Failure::invalid(format_args!("the {what} is NULL; pass one that this library gave out"))
        } else if inherited {
            Failure::invalid(format_args!(
                "the {what} is another process's, of which this one is a fork; create or join a set in this process"
            ))
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
