//! The rules of SQL Server's Virtual Device Interface (VDI), without I/O.
//!
//! VDI is the protocol by which a backup program acts as SQL Server's storage device. The *client* (the backup program)
//! creates a named *virtual device set* of 1 to 64 *virtual devices*. The *server* (SQL Server) opens the set, configures
//! it, and sends commands to each device. The data passes through shared memory without a copy.
//!
//! The crate has no I/O, no clock, no allocation, no `unsafe` and no `std`. It has two floors:
//!
//! - The modules at the root are the interface's rules. They can be used with any transport.
//! - [`wire`] is this project's own layout and messages. It depends on the rules; the rules do not depend on it.
//!
//! | module | what it defines |
//! |---|---|
//! | [`status`] | the `VD_E_*` status codes |
//! | [`completion`] | the Win32 codes with which commands complete |
//! | [`features`], [`config`], [`name`] | feature bits, device kinds, `VDConfig` and its negotiation, names |
//! | [`parse`] | codes and features read back from text |
//! | [`command`] | the 19 commands: fields, buffers, required features |
//! | [`set`] | the state tables of client and server |
//! | [`device`] | a device on each side: outstanding commands, IO-ERROR, ClearError, closing, aborting |
//! | [`handle`] | process-independent buffer handles |
//! | [`index`] | bounded indices and generations |
//! | [`abort`], [`timeout`] | why a set was aborted; the server's time-out |
//! | [`decisions`] | where the documents are silent: decisions of this project |
//!
//! # Sources
//!
//! The docs cite the published VDI specification by section. Where it is silent or contradicts itself, this project decides:
//! such points are marked **Decision** and listed in [`decisions`].
//!
//! # Example
//!
//! ```
//! use vdi_proto::config::VdConfig;
//! use vdi_proto::set::client::{self, Call, State};
//! use vdi_proto::status::VdError;
//!
//! // A set of four pipe-like devices.
//! let config = VdConfig { device_count: 4, ..VdConfig::default() };
//! assert!(config.validate_client().is_ok());
//!
//! // Creating a set that exists already is refused, and changes nothing.
//! let step = client::step(State::Active, Call::Create);
//! assert_eq!(step.answer, Err(VdError::Protocol));
//! assert_eq!(step.next, State::Active);
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

/// The README's example is a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod abort;
pub mod command;
pub mod completion;
pub mod config;
pub mod decisions;
pub mod device;
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
