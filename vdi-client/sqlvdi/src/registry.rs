//! What the objects of the C++ program stand for, by the key in them.
//!
//! # Invariants
//!
//! 1. Keys are never used again, so a key is either of a live object or of none. Whatever else stands where an object is
//!    said to be, it names nothing, and the call is refused.
//! 2. A call holds on to what it works on: destroying an object takes it out of here, and no more.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::abi::Key;
use crate::device::Device;
use crate::set::Set;

pub(crate) static SETS: Registry<Set> = Registry::new();
pub(crate) static DEVICES: Registry<Device> = Registry::new();

/// A key that was never used before; none that memory holds by chance.
pub(crate) fn new_key() -> Key {
    static NEXT: AtomicU64 = AtomicU64::new(0x7664_6900_0000_0001);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug)]
pub(crate) struct Registry<T> {
    entries: RwLock<BTreeMap<Key, Arc<T>>>,
}

impl<T> Registry<T> {
    const fn new() -> Self {
        Registry { entries: RwLock::new(BTreeMap::new()) }
    }

    pub(crate) fn insert(&self, key: Key, entry: Arc<T>) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<T>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    pub(crate) fn remove(&self, key: Key) -> Option<Arc<T>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(&key)
    }
}
