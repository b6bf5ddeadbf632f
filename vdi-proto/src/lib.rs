// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[`docs/search.md`]: docs::search"]
#![doc = include_str!("../README.md")]
//! # Sources
//!
//! The docs cite the published VDI specification by section. Where it is silent or contradicts itself, this project decides:
//! such points are marked **Decision** and listed in [`decisions`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod abort;
pub mod command;
pub mod completion;
pub mod config;
pub mod decisions;
pub mod device;
#[cfg(doc)]
pub mod docs {
    //! The pages of the folder `docs`.

    #[doc = include_str!("../docs/search.md")]
    pub mod search {}
}
pub mod features;
pub mod handle;
pub mod index;
pub mod name;
pub mod parse;
pub mod set;
mod spread;
pub mod status;
pub mod timeout;
pub mod wire;
