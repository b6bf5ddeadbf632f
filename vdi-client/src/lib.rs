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
//! | [`BackEnd`] | who carries a set: this library's shared memory, or SQL Server's library |
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
//! # Back ends
//!
//! Who carries a set is chosen when its object is made: [`ClientVirtualDeviceSet::with_back_end`]. The types and the rest of
//! a program are the same.
//!
//! | | [`BackEnd::SharedMemory`], the default | [`BackEnd::SqlServer`] |
//! |---|---|---|
//! | server | `vdi-sim`, and others that use `vdi-shm` | SQL Server on Linux, on the same machine |
//! | by | this library's own shared memory | Microsoft's `libsqlvdi.so`, loaded at run time |
//! | takes | nothing | the feature `sqlserver`; `LD_LIBRARY_PATH=/opt/mssql/lib` where the library's own needs are not found |
//! | instances | as named | none: a name is VD_E_INSTANCE_NAME |
//! | a wait that is cancelled, or times out, ends | at once | within 100 ms (1 s where the library takes seconds), but OpenDevice, which only an abort ends |
//! | [`ClientVirtualDeviceSet::map_buffer_handle`] | all of the buffer | VD_E_NOTSUPPORTED: use [`ClientVirtualDeviceSet::map_buffer_handle_sized`] |
//! | a [`MappedBuffer`] | a lease: the command cannot be completed meanwhile | no lease: whoever completes the command has to wait for who mapped it |
//! | the death of a process | shows at once | shows as the library shows it |
//! | [`ClientVirtualDeviceSet::state`] | of the set | what this process knows from answers |
//!
//! With [`BackEnd::from_env`] the environment chooses: `VDI_LIBRARY=PATH` names a library.
//!
//! What the library answers is told as it is: its `VD_E_*` codes with what to do about them, other numbers in the text of
//! a VD_E_UNEXPECTED. What it gives is looked at before it is used: commands and buffers at addresses where there is no
//! memory, sizes beyond maxTransferSize, and buffers that this process has already abort the set, with
//! [`ErrorKind::Violation`]. What cannot be looked at is a bet: that a library with the interface's functions keeps to the
//! published layouts, and that a buffer has as many bytes as its command, or as `map_buffer_handle_sized` is told. An exception
//! that the library lets out cannot be handled: the process ends, with a message that names the call.
//!
//! The library stays loaded until the process ends. It is told of a close when the program has dropped the buffers that it
//! held then, since it takes their memory away.
//!
//! **This back end was tested against stand-ins only**, a library that plays scripts and the drop-in library of this project:
//! no SQL Server was there.
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
mod canceller;
pub mod command;
mod completion;
pub mod device;
pub mod error;
pub mod media;
pub mod pump;
pub mod raw;
pub mod set;
mod trace;
mod work;
pub mod workers;

use core::time::Duration;

pub use back_end::{Access, BackEnd, Options, SqlServer, TimeOutUnit};
pub use buffer::MappedBuffer;
pub use canceller::Canceller;
pub use command::{Command, CompleteError, Completion};
pub use device::ClientVirtualDevice;
pub use error::{Error, ErrorKind};
pub use pump::pump;
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
