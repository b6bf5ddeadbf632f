// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[..]: ../vdi_client/index.html"]
#![doc = "[../sqlvdi]: ../sqlvdi/index.html"]
#![doc = "[../capi]: ../vdi_c/index.html"]
#![doc = include_str!("../README.md")]
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | [`argument`] | pointers that foreign code passes: values, results, C strings |
//! | [`call`](mod@call) | the body of an exported function: panics, failures, status codes, time-outs |
//! | [`registry`] | live objects by number: stale and foreign pointers are refused |
//! | [`log`] | messages on standard error, without SIGPIPE |

pub mod argument;
pub mod call;
pub mod log;
pub mod registry;

pub use argument::Argument;
pub use call::{Failure, call};
pub use registry::{Key, Missing, Registry};
