//! The rules and numbers of SQL Server's Virtual Device Interface (VDI).
//!
//! VDI is the protocol by which a backup program acts as SQL Server's storage device: the *client* (the backup
//! program) creates a named *virtual device set* of 1 to 64 *virtual devices*; the *server* (SQL Server) opens the
//! set, configures it, and sends commands to each device, whose data passes through shared memory without a copy.
//!
//! This crate holds what both sides must agree on and nothing else: no I/O, no clock, no allocation, no `unsafe`,
//! no `std`. Whoever moves the bytes (another transport, a verifier, a kernel) can build on it alone.
//!
//! | module | what it holds |
//! |---|---|
//! | [`status`] | the `VD_E_*` status codes |
//! | [`completion`] | the Win32 codes that a command is completed with |
//! | [`features`], [`config`], [`name`] | feature bits, device kinds, `VDConfig` and its validation, names |
//! | [`command`] | the 19 commands: inputs, outputs, required features; the records that carry them |
//! | [`set`] | the state tables of client and server, and what they mean for buffer handles |
//! | [`device`] | one device on each side: outstanding commands, IO-ERROR, ClearError, closing, aborting |
//! | [`handle`] | process-independent buffer handles |
//! | [`abort`], [`timeout`] | why a set was aborted; the server's time-out |
//!
//! # Facts and decisions
//!
//! Docs cite the published VDI specification by section. Where it is silent or contradicts itself this project had to
//! decide; such places are marked **Decision** and listed in [`decisions`].
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

// The laws that unit tests, integration tests and fuzz targets share name this crate from outside.
#[cfg(test)]
extern crate self as vdi_proto;

/// The README's example is compiled and run with the other examples.
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
pub mod set;
mod spread;
pub mod status;
pub mod timeout;
pub mod wire;
