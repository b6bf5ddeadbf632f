//! What the binary interfaces of [`vdi_client`] share: the drop-in C++ library (`vdi-sqlvdi`) and the C interface
//! (`vdi-capi`). It exports no symbol and knows no layout of either interface.
//!
//! | module | what it holds |
//! |---|---|
//! | [`argument`] | pointers that foreign code passes: values, results, C strings |
//! | [`call`](mod@call) | the body of an exported function: panics, failures, status codes, time-outs |
//! | [`registry`] | live objects by number: stale and foreign pointers are refused |
//! | [`log`] | messages on standard error, without SIGPIPE |
//!
//! Commands that foreign code holds are in [`vdi_client::raw`], which both interfaces use.

pub mod argument;
pub mod call;
pub mod log;
pub mod registry;

pub use argument::Argument;
pub use call::{Failure, call};
pub use registry::{Key, Missing, Registry};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
