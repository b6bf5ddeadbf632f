//! The objects of the program, by the pointers that C has: numbers of a registry, which point at nothing.

use core::marker::PhantomData;
use std::sync::Arc;

use vdi_ffi::{Failure, Key, Missing, Registry};

/// All objects of one kind; `H` is the opaque type that C knows.
pub(crate) struct Objects<H, T> {
    what: &'static str,
    registry: Registry<T>,
    kind: PhantomData<fn(*mut H)>,
}

impl<H, T> Objects<H, T> {
    /// Without objects; `what` is the kind in messages.
    pub(crate) const fn new(what: &'static str) -> Self {
        Objects { what, registry: Registry::new(), kind: PhantomData }
    }

    pub(crate) fn insert(&self, object: T) -> *mut H {
        core::ptr::without_provenance_mut(self.registry.insert(|_| object).0 as usize)
    }

    /// VD_E_INVALID for a pointer to no object of this kind and process.
    pub(crate) fn get(&self, pointer: *const H) -> Result<Arc<T>, Failure> {
        self.registry.get(pointer.addr() as Key).map_err(|missing| self.missing(pointer, missing))
    }

    /// As [`Objects::get`]. The pointer is freed.
    pub(crate) fn remove(&self, pointer: *const H) -> Result<Arc<T>, Failure> {
        self.registry.remove(pointer.addr() as Key).map_err(|missing| self.missing(pointer, missing))
    }

    #[cold]
    fn missing(&self, pointer: *const H, missing: Missing) -> Failure {
        let what = self.what;
        Failure::invalid(match missing {
            _ if pointer.is_null() => format!("the {what} is NULL; pass one that this library gave out"),
            Missing::Inherited => format!(
                "the {what} is another process's, of which this one is a fork; create or join a set in this process"
            ),
            Missing::Unknown => format!(
                "{pointer:p} is no {what} that this library gave out, or it was freed; use each until it is freed, once"
            ),
        })
    }
}
