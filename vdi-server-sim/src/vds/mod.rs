//! The server's side of the interface, as a library: IServerVirtualDeviceSet2 and IServerVirtualDevice.
//!
//! A server that needs no engine (a test that sends certain commands, another database) uses this module alone:
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use vdi_proto::command::CommandCode;
//! use vdi_proto::config::ServerTerms;
//! use vdi_server_sim::vds::{Completed, ServerVirtualDeviceSet, VdsCommand};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let set = Arc::new(ServerVirtualDeviceSet::new());
//! set.open("", "nightly")?;
//! set.begin_configuration(&ServerTerms::default(), Duration::from_secs(10))?;
//! set.request_buffers(65536, 0, 4)?;
//! set.end_configuration()?;
//! let device = set.open_device("nightly")?;
//! let agent = std::thread::spawn({
//!     let set = Arc::clone(&set);
//!     move || set.execute_completion_agent()
//! });
//! let (sender, completions) = std::sync::mpsc::channel();
//! let routine = Arc::new(move |completed: Completed| drop(sender.send(completed)));
//! let mut buffer = set.allocate_buffer(65536, 0)?;
//! buffer.data_mut().fill(7);
//! device.send_command(VdsCommand::transfer(CommandCode::WRITE, buffer, 65536, routine.clone()))?;
//! println!("{}", completions.recv()?.code);
//! device.close_device()?;
//! set.close()?;
//! # Ok(()) }
//! ```
//!
//! Source of the rules: VDI specification, IServerVirtualDeviceSet2 and IServerVirtualDevice.
//!
//! # Layers
//!
//! A file uses only the files before it: `error`, `command`; `device_core` (state of one device); `open_set` (shared state of
//! an open set); `completions` (completion processing); `device` (IServerVirtualDevice); `agent`; `configuration`; `set`
//! (IServerVirtualDeviceSet2). No other module of this crate uses `vdi-shm`, except for tracing.

mod agent;
mod command;
mod completions;
mod configuration;
mod device;
mod device_core;
mod error;
mod open_set;
mod set;

pub use command::{Completed, CompletionRoutine, VdsCommand};
pub(crate) use completions::{CompletionReader, ReaderWaker};
pub use device::ServerVirtualDevice;
pub use error::VdsError;
pub(crate) use open_set::AgentFaults;
pub use set::ServerVirtualDeviceSet;
pub use vdi_shm::ipc::runtime::{Access, EnvironmentError, Options};
pub(crate) use vdi_shm::set::abort::Abort;
pub use vdi_shm::set::pool::ServerBuffer;
pub use vdi_shm::set::session::Session;
