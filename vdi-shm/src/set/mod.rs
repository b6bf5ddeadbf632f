//! The upper floor: a virtual device set in shared memory.
//!
//! | module | what it holds |
//! |---|---|
//! | [`primary`], [`secondary`], [`server`] | the three roles of a process; each starts here |
//! | [`session`], [`abort`], [`joiners`] | what one process knows of its set: why it was aborted, who came |
//! | [`control`], [`record_ring`] | the control segment: devices, events, the abort, the rings of commands and completions |
//! | [`slots`], [`class_table`] | who has a buffer, and where it is |
//! | `claim` | which set of this process a segment belongs to |
//! | [`buffers`], [`mapped_buffer`] | a client's buffers: the handle pair, leases |
//! | [`pool`] | the server's buffers: allocating, lending, reclaiming |
//! | [`membership`] | the link of a process that joined, and its monitor thread |
//! | [`name`], [`error`] | names; one error type an operation |
//! | `near_misses` | what an error says about sets that may be meant |

#[cfg(not(loom))]
pub mod abort;
#[cfg(any(test, not(loom)))]
pub(crate) mod abort_word;
#[cfg(not(loom))]
pub mod buffers;
#[cfg(not(loom))]
mod claim;
#[cfg(not(loom))]
pub mod class_table;
#[cfg(not(loom))]
pub mod control;
#[cfg(any(test, not(loom)))]
pub(crate) mod device_name;
#[cfg(not(loom))]
pub mod error;
#[cfg(all(test, not(loom)))]
mod fixture;
#[cfg(not(loom))]
pub mod joiners;
#[cfg(not(loom))]
pub mod mapped_buffer;
#[cfg(not(loom))]
pub mod membership;
#[cfg(not(loom))]
pub mod name;
#[cfg(not(loom))]
mod near_misses;
#[cfg(not(loom))]
pub mod pool;
#[cfg(not(loom))]
pub mod primary;
#[cfg(not(loom))]
pub mod record_ring;
#[cfg(not(loom))]
pub mod secondary;
#[cfg(not(loom))]
pub mod server;
#[cfg(not(loom))]
pub mod session;
#[cfg(any(test, not(loom)))]
pub(crate) mod shared_text;
pub mod slots;

#[cfg(all(test, not(loom)))]
mod model;
