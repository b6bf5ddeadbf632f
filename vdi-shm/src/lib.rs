// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[`docs/runtime-directory.md`]: docs::runtime_directory"]
#![doc = "[`docs/memory.md`]: docs::memory"]
#![doc = "[`docs/orderings.md`]: docs::orderings"]
#![doc = include_str!("../README.md")]
//! # Layers
//!
//! [`ipc`] knows nothing of the interface and is usable alone. [`set`] is a virtual device set. What records and configurations
//! mean is for [`vdi_proto`]. Linux, 64-bit.
#![deny(unsafe_code)]

#[cfg(doc)]
pub mod docs {
    //! The pages of the folder `docs`.

    #[doc = include_str!("../docs/memory.md")]
    pub mod memory {}
    #[doc = include_str!("../docs/orderings.md")]
    pub mod orderings {}
    #[doc = include_str!("../docs/runtime-directory.md")]
    pub mod runtime_directory {}
}
pub mod ipc;
pub mod set;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod trace;

#[cfg(all(test, loom))]
mod loom_tests;
