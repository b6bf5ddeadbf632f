//! Live objects of foreign code, by number.
//!
//! # Invariants
//!
//! 1. A key is given out once in the life of a process, for whatever kind: a key names one object or none.
//! 2. A key is no address: its highest bit is set, which user memory on 64-bit Linux never has. Nor is it a value that
//!    memory holds by chance.
//! 3. A call keeps its object alive until it ends, also when another thread removes the object meanwhile.
//! 4. An object belongs to the process that inserted it. A fork inherits a copy without the process's threads: there it
//!    is not found, and never dropped, since its destructor would end what the first process still uses.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// The number of an object; 0 is none.
pub type Key = u64;

fn new_key() -> Key {
    static NEXT: AtomicU64 = AtomicU64::new(0xf664_6900_0000_0001);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Why a key names no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It was never given out here, or its object was removed.
    Unknown,
    /// Its object belongs to the process of which this one is a fork.
    Inherited,
}

/// An object, and the process that inserted it.
#[derive(Debug)]
struct Entry<T> {
    process: u32,
    object: Arc<T>,
}

impl<T> Entry<T> {
    fn new(object: Arc<T>) -> Self {
        Entry { process: std::process::id(), object }
    }

    fn own(&self) -> Result<&Arc<T>, Missing> {
        if self.process == std::process::id() { Ok(&self.object) } else { Err(Missing::Inherited) }
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Registry<T>(RwLock<BTreeMap<Key, Entry<T>>>);

impl<T> Registry<T> {
    /// Without objects.
    #[must_use]
    pub const fn new() -> Self {
        Registry(RwLock::new(BTreeMap::new()))
    }

    fn entries(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Entry<T>>> {
        // Each change is one insertion or removal, so a poisoned lock is safe to use.
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts the object that `make` makes for a new key.
    pub fn insert(&self, make: impl FnOnce(Key) -> T) -> (Key, Arc<T>) {
        let key = new_key();
        let object = Arc::new(make(key));
        self.entries().insert(key, Entry::new(Arc::clone(&object)));
        (key, object)
    }

    /// Gives a key that a fork inherited an object of the fork's own, unless another thread has done so.
    ///
    /// # Errors
    /// [`Missing::Unknown`] for a key that names nothing.
    pub fn replace_inherited(&self, key: Key, object: T) -> Result<Arc<T>, Missing> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&key).ok_or(Missing::Unknown)?;
        if entry.own().is_err() {
            // Invariant 4: the inherited object is not dropped.
            core::mem::forget(core::mem::replace(entry, Entry::new(Arc::new(object))));
        }
        Ok(Arc::clone(&entry.object))
    }

    /// The object of a key.
    ///
    /// # Errors
    /// [`Missing`] for a key that names no object of this process.
    pub fn get(&self, key: Key) -> Result<Arc<T>, Missing> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&key).ok_or(Missing::Unknown)?.own().map(Arc::clone)
    }

    /// Removes the object of a key.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub fn remove(&self, key: Key) -> Result<Arc<T>, Missing> {
        let mut entries = self.entries();
        let object = Arc::clone(entries.get(&key).ok_or(Missing::Unknown)?.own()?);
        entries.remove(&key);
        Ok(object)
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_foreign_keys_name_nothing() {
        let (ones, others) = (Registry::new(), Registry::<u32>::new());
        let (first, _) = ones.insert(|_| 1);
        let held = ones.get(first).unwrap();
        assert_eq!(others.get(first), Err(Missing::Unknown));
        ones.remove(first).unwrap();
        assert_eq!(*held, 1, "a call keeps its object");
        let (second, _) = ones.insert(|key| u32::from(key != first));
        let local = 0u8;
        for bad in [first, 0, (&raw const local).addr() as Key, second + 1] {
            assert_eq!(ones.get(bad), Err(Missing::Unknown));
            assert_eq!(ones.remove(bad), Err(Missing::Unknown));
            assert_eq!(ones.replace_inherited(bad, 2), Err(Missing::Unknown));
        }
        assert_eq!(*ones.remove(second).unwrap(), 1);
    }

    #[test]
    fn inherited_objects_are_neither_found_nor_dropped() {
        struct Dropped;
        impl Drop for Dropped {
            fn drop(&mut self) {
                panic!("an inherited object was dropped");
            }
        }
        let objects = Registry::new();
        let (key, object) = objects.insert(|_| Some(Dropped));
        // As in a fork: the entry is another process's.
        objects.entries().get_mut(&key).unwrap().process = 0;
        core::mem::forget(object);
        assert_eq!(objects.get(key).err(), Some(Missing::Inherited));
        assert_eq!(objects.remove(key).err(), Some(Missing::Inherited));
        assert!(objects.replace_inherited(key, None).unwrap().is_none());
        assert!(objects.get(key).unwrap().is_none());
        // An object of this process stays.
        assert!(objects.replace_inherited(key, None).unwrap().is_none());
        assert!(objects.remove(key).unwrap().is_none());
    }
}
