// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[../vdi-server-sim]: ../vdi_server_sim/index.html"]
#![doc = "[docs/media.md]: media"]
#![doc = "[docs/back-ends.md]: docs::back_ends"]
#![doc = "[docs/tracing.md]: docs::tracing"]
#![doc = "[docs/sql-server.md]: docs::sql_server"]
#![doc = "[docs/environment.md]: docs::environment"]
#![doc = "[docs/trust.md]: docs::trust"]
#![doc = "[../vdi-server-sim/docs/promises.md]: ../vdi_server_sim/docs/promises/index.html"]
#![doc = "[examples/kinds.rs]: docs::examples#kinds"]
#![doc = "[examples/stripes.rs]: docs::examples#stripes"]
#![doc = "[examples/snapshot.rs]: docs::examples#snapshot"]
#![doc = "[examples/secondaries.rs]: docs::examples#secondaries"]
#![doc = "[examples/handles.rs]: docs::examples#handles"]
#![doc = "[capi]: ../vdi_c/index.html"]
#![doc = "[sqlvdi]: ../sqlvdi/index.html"]
#![doc = "[ffi-base]: ../vdi_ffi/index.html"]
#![doc = include_str!("../README.md")]
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | [`set`] | [`ClientVirtualDeviceSet`]: create, configure, open, serve, handles, abort, close |
//! | [`device`] | [`ClientVirtualDevice`]: get and complete commands |
//! | [`command`] | [`Command`], which must be completed, and [`Completion`], built from what was really transferred |
//! | [`media`], [`mod@pump`] | what commands are carried out on, and the loop that does it |
//! | [`BackEnd`] | what carries a set: this library's shared memory, or SQL Server's library |
//! | [`workers`] | worker processes that get buffers by their handles |
//! | [`raw`] | commands as plain blocks, for adapters to foreign interfaces |
//! | [`error`] | [`Error`]: which call, set, device and command, what went wrong, what to do |
//!
//! # A backup, by hand
//!
//! What [`ClientVirtualDeviceSet::serve`] and [`pump`](fn@pump) do for you. This example runs: a server in the same process, which is not
//! shown, writes 64 KiB.
//!
//! ```
//! # // A server that writes one buffer, and closes the device.
//! # fn server(options: &vdi_client::Options) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! #     use vdi_client::vdi_proto::{command::*, config::*, index::*, wire::class::ClassSpec};
//! #     let (server, time_out) = (vdi_shm::set::server::Server::join(options, "", "nightly")?, Duration::from_secs(30));
//! #     server.add_class(ClassSpec { buffer_len: 65536, alignment: 4096, count: 4 }, time_out)?;
//! #     let terms = ServerTerms { features: Features::WRITE_MEDIA, ..ServerTerms::default() };
//! #     server.configure(terms.negotiate(&VdConfig::default())?, time_out)?;
//! #     let (control, device) = (server.control(), DeviceIndex::new(0).unwrap());
//! #     control.announce_device(device, "nightly");
//! #     let mut rings = control.take_rings(device).unwrap();
//! #     let mut buffer = server.pool().allocate(65536, 0)?;
//! #     buffer.data_mut().fill(7);
//! #     let (lent, id) = (buffer.lend(), CommandId(0));
//! #     let loan = Some(lent.loan());
//! #     rings.commands.push(&CommandRecord { code: CommandCode::WRITE, id, size: 65536, position: 0, loan })?;
//! #     control.device_event(device).notify();
//! #     while rings.completions.pop()?.is_none() { std::thread::yield_now() }
//! #     control.close_device(device);
//! #     while !server.session().work_has_ended() && server.session().abort_reason().is_none() { std::thread::yield_now() }
//! #     Ok(())
//! # }
//! use std::time::Duration;
//!
//! use vdi_client::{ClientVirtualDeviceSet, CommandCode, Completion, Features, INFINITE, Options, VdConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = tempfile::tempdir()?;
//! # let options = Options { runtime_dir: Some(runtime.path().into()), ..Options::default() };
//! let set = ClientVirtualDeviceSet::with_options(options.clone());
//! set.create("nightly", &VdConfig::default())?;
//! # let server = std::thread::spawn(move || server(&options));
//! let agreed = set.get_configuration(Duration::from_secs(60))?;
//! assert!(agreed.features.contains(Features::WRITE_MEDIA), "a backup");
//! let mut device = set.open_device("nightly")?;
//! let mut stored = Vec::new();
//! loop {
//!     let command = match device.get_command(INFINITE) {
//!         Ok(command) => command,
//!         Err(end) if end.is_close() => break,
//!         Err(error) => return Err(error.into()),
//!     };
//!     let completion = match command.code() {
//!         CommandCode::WRITE => {
//!             stored.extend_from_slice(command.data());
//!             Completion::transferred(command.data().len())
//!         }
//!         _ => Completion::done(),
//!     };
//!     command.complete(completion)?;
//! }
//! set.close()?;
//! assert_eq!(stored, [7; 65536]);
//! # server.join().unwrap().map_err(|error| error.to_string())?;
//! # Ok(())
//! # }
//! ```
// Only the adapter to SQL Server's library has unsafe code.
#![cfg_attr(not(feature = "sqlserver"), forbid(unsafe_code))]
#![cfg_attr(feature = "sqlserver", deny(unsafe_code))]

mod back_end;
mod buffer;
mod canceller;
pub mod command;
mod completion;
pub mod device;
#[cfg(any(doc, doctest))]
pub mod docs;
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
/// The rules and numbers of the interface. Re-exported, so that a program needs one dependency.
#[doc(no_inline)]
pub use vdi_proto;
pub use vdi_proto::command::{CommandCode, CommandId};
pub use vdi_proto::completion::CompletionCode;
pub use vdi_proto::config::VdConfig;
pub use vdi_proto::features::Features;
pub use vdi_proto::handle::BufferHandle;
pub use vdi_proto::status::VdError;

/// The time-out that never passes.
pub const INFINITE: Duration = Duration::MAX;
