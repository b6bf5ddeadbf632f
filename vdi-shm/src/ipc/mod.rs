//! Memory, records, waiting and packets between processes that need not trust each other's words.
//!
//! | module | what it has |
//! |---|---|
//! | [`segment`] | sealed memfds, their mappings, typed references into them |
//! | [`ring`] | single-producer, single-consumer rings of records |
//! | [`event_count`], [`wait`] | waking and waiting: spin briefly, then sleep on a shared futex |
//! | [`link`] | packets with descriptors over a Unix socket |
//! | [`runtime`] | a directory in which processes find each other by name |

pub(crate) mod atomics;
#[cfg(not(loom))]
pub mod error;
pub mod event_count;
pub(crate) mod futex;
#[cfg(not(loom))]
pub mod link;
pub mod ring;
#[cfg(not(loom))]
pub mod runtime;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod shared_layout;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
pub mod wait;
