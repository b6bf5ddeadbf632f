//! The client's side of SQL Server's Virtual Device Interface: be the device that SQL Server backs up to and restores
//! from.
//!
//! The names are the interface's own, in Rust's case. A backup agent creates a set, has somebody send
//! `BACKUP DATABASE ... TO VIRTUAL_DEVICE='name'`, and serves the commands of each device:
//!
//! ```no_run
#![doc = include_str!("../examples/agent.rs")]
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`set`] | [`ClientVirtualDeviceSet`]: create, configure, open, handles, abort, close |
//! | [`device`] | [`ClientVirtualDevice`]: get and complete commands |
//! | [`command`] | [`Command`], which must be completed, and [`Completion`], built from what was really transferred |
//! | [`media`], [`mod@pump`] | what commands are carried out on, and the loop that does it |
//! | [`workers`] | worker processes that get buffers by their handles |
//! | [`raw`] | commands as plain blocks, for adapters to foreign interfaces |
//! | [`error`] | [`Error`]: which call, set, device and command, what went wrong, what to do |
//!
//! # What the library sees to
//!
//! - A [`Command`] is completed exactly once; dropping it completes it as aborted.
//! - A short or failed write cannot be reported as success: see [`Completion`].
//! - A buffer that another process has mapped by its handle cannot be completed away under it: VD_E_BUSY.
//! - Any process of the set may die at any moment: the others get VD_E_ABORT with the reason.
//! - Waits can be ended from another thread: [`ClientVirtualDeviceSet::canceller`], or by aborting or closing the set.
//!
//! # Tracing
//!
//! With the feature `tracing`, which is off by default, the library tells a subscriber of the `tracing` crate what happens.
//! All events have the target `vdi_client` and, where it applies, the fields `set`, `device` and `call` (the published name):
//!
//! | level | event | further fields |
//! |---|---|---|
//! | INFO | `set aborted`, once a set and process, when it is first seen here | `reason`, `evidence` (where a peer broke the protocol) |
//! | DEBUG | `set created` | `instance`, `devices`, `features` and `server_time_out_ms` as asked for |
//! | DEBUG | `set joined` | `instance`, `member`: this secondary's number |
//! | DEBUG | `configuration agreed` | `devices`, `features`, `block_size`, `max_transfer_size`, `alignment`, `buffer_area_size` |
//! | DEBUG | `device opened`, `device closed` (VD_E_CLOSE was returned), `set closed` | |
//! | DEBUG | `call refused` | `code` (`VD_E_...`), `error` |
//! | TRACE | `call timed out`: VD_E_TIMEOUT, which is no news to who looks again and again | `code`, `error` |
//! | TRACE | `command received` | `id`, `command`, `size`, `position`, `bytes`, `waited_us`: how long GetCommand waited |
//! | TRACE | `command completed` | `id`, `command`, `code`, `bytes`, `position`, `held_us`: how long the program had it |
//! | TRACE | `command rejected`: after an error of the device, unseen by the program | `id`, `command`, `code` |
//! | TRACE | `handle given` | `handle`, `id` where it was asked of a command |
//! | TRACE | `buffer mapped` | `handle`, `bytes` |
//!
//! What the pump of a device tells, and what a media tells meanwhile, is in a span `pump` (INFO) with `set` and `device`.
//!
//! An `id` names a command on its device, and is the server's number of it as well. Times are in microseconds, and 0 where
//! nobody listened when they began.
//!
//! Without the feature none of this is in the program. With it, and while nobody listens, an event costs one relaxed load:
//! nothing is formatted and no clock is read. That is some 10 ns a command on each side, of a round trip of more than a
//! microsecond. A subscriber is called in the middle of calls of this library, partly while
//! they hold locks, and must not call the library itself.
// With SQL Server's library as a back end there is one module that may, the adapter to it.
#![cfg_attr(not(feature = "sqlserver"), forbid(unsafe_code))]
#![cfg_attr(feature = "sqlserver", deny(unsafe_code))]

mod back_end;
mod buffer;
pub mod command;
pub mod device;
pub mod error;
pub mod media;
pub mod pump;
pub mod raw;
pub mod set;
#[cfg(feature = "sqlserver")]
mod sqlserver;
mod state;
mod trace;
pub mod workers;

use core::time::Duration;

pub use back_end::{BackEnd, SqlServer, TimeOutUnit};
pub use buffer::MappedBuffer;
pub use command::{Command, CompleteError, Completion};
pub use device::ClientVirtualDevice;
pub use error::{Error, ErrorKind};
pub use pump::pump;
pub use set::{Canceller, ClientVirtualDeviceSet};
pub use vdi_proto::command::CommandCode;
pub use vdi_proto::completion::CompletionCode;
pub use vdi_proto::config::VdConfig;
pub use vdi_proto::features::Features;
pub use vdi_proto::handle::BufferHandle;
pub use vdi_proto::status::VdError;
pub use vdi_shm::runtime::{Access, Options};

/// The time-out that never passes.
pub const INFINITE: Duration = Duration::MAX;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
