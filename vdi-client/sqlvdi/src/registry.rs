//! What the objects of the C++ program stand for, by the key in them.
//!
//! # Invariants
//!
//! 1. Keys are never used again, so a key is either of a live object or of none. Whatever else stands where an object is
//!    said to be, it names nothing, and the call is refused.
//! 2. A call holds on to what it works on: destroying an object takes it out of here, and no more.
//! 3. What is here works in the process that put it here. A fork copies it into a process without its threads, whose calls, and
//!    whose destructors at its end above all, must not touch what the first process goes on using.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

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

/// Why a key gives nothing.
#[derive(Debug)]
pub(crate) enum Missing {
    Unknown,
    /// This process is a fork of the one that has it.
    Forked,
}

/// Something, and the process that put it here.
#[derive(Debug)]
struct Entry<T> {
    process: u32,
    is: Arc<T>,
}

#[derive(Debug)]
pub(crate) struct Registry<T> {
    entries: RwLock<BTreeMap<Key, Entry<T>>>,
}

impl<T> Registry<T> {
    const fn new() -> Self {
        Registry { entries: RwLock::new(BTreeMap::new()) }
    }

    fn entries(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Entry<T>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the place of what another process put here under the same key, if anything.
    pub(crate) fn insert(&self, key: Key, is: Arc<T>) {
        let before = self.entries().insert(key, Entry { process: std::process::id(), is });
        // To drop it would end what that process still uses.
        core::mem::forget(before);
    }

    pub(crate) fn get(&self, key: Key) -> Result<Arc<T>, Missing> {
        match self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            None => Err(Missing::Unknown),
            Some(entry) if entry.process == std::process::id() => Ok(Arc::clone(&entry.is)),
            Some(_) => Err(Missing::Forked),
        }
    }

    /// Takes something out. Another process's stays.
    pub(crate) fn remove(&self, key: Key) -> Option<Arc<T>> {
        let mut entries = self.entries();
        let own = entries.get(&key).is_some_and(|entry| entry.process == std::process::id());
        if own { entries.remove(&key).map(|entry| entry.is) } else { None }
    }
}
