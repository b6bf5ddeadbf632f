//! The client's side of SQL Server's Virtual Device Interface: be the device that SQL Server backs up to and restores
//! from.
//!
//! The names are the interface's own, in Rust's case. A backup agent creates a set, waits for the statement
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
//! | [`BackEnd`] | what carries a set: this library's shared memory, or SQL Server's library |
//! | [`workers`] | worker processes that get buffers by their handles |
//! | [`raw`] | commands as plain blocks, for adapters to foreign interfaces |
//! | [`error`] | [`Error`]: which call, set, device and command, what went wrong, what to do |
//!
//! # Invariants
//!
//! - A [`Command`] is completed exactly once; dropping it completes it as aborted.
//! - A short or failed write cannot be reported as success: see [`Completion`].
//! - A buffer that another process has mapped by its handle cannot be completed away under it: VD_E_BUSY.
//! - Any process of the set may die at any moment: the others get VD_E_ABORT with the reason.
//! - Waits can be ended from another thread: [`ClientVirtualDeviceSet::canceller`], or by aborting or closing the set.
//!
#![doc = include_str!("../docs/back-ends.md")]
#![doc = include_str!("../docs/tracing.md")]
// Only the adapter to SQL Server's library has unsafe code.
#![cfg_attr(not(feature = "sqlserver"), forbid(unsafe_code))]
#![cfg_attr(feature = "sqlserver", deny(unsafe_code))]

mod back_end;
mod buffer;
mod canceller;
pub mod command;
mod completion;
pub mod device;
pub mod error;
pub mod media;
mod progress;
pub mod pump;
pub mod raw;
mod serve;
pub mod set;
mod trace;
mod unserved;
mod work;
pub mod workers;

use core::time::Duration;

pub use back_end::{Access, BackEnd, EnvironmentError, Options, SqlServer, TimeOutUnit};
pub use buffer::MappedBuffer;
pub use canceller::Canceller;
pub use command::{Command, CompleteError, Completion};
pub use device::ClientVirtualDevice;
pub use error::{Error, ErrorKind, ErrorReport};
pub use progress::Progress;
pub use pump::{Report, pump};
pub use set::ClientVirtualDeviceSet;
pub use vdi_proto::command::CommandCode;
pub use vdi_proto::completion::CompletionCode;
pub use vdi_proto::config::VdConfig;
pub use vdi_proto::features::Features;
pub use vdi_proto::handle::BufferHandle;
pub use vdi_proto::status::VdError;

/// The time-out that never passes.
pub const INFINITE: Duration = Duration::MAX;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
