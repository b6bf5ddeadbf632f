//! Processes, memory and waiting for the Virtual Device Interface.
//!
//! Two floors:
//!
//! | floor | what it holds |
//! |---|---|
//! | [`ipc`] | segments, rings, event counts, links, the runtime directory; knows nothing of the interface, usable alone |
//! | [`set`] | a virtual device set: its control segment, buffers, and the three roles of a process |
//!
//! What records and configurations mean is for [`vdi_proto`]. The interface that programs use is `vdi-client`, the server's
//! is `vdi-server-sim`.
//!
//! # Trust
//!
//! - A set's creator decides who joins, by the credentials of the socket's peer. By default that is the same user.
//! - A member can write all memory of its set. Each process stays memory-safe whatever a member writes: a shared word is
//!   loaded once, validated, and not read again. Segments are sealed, so no member can truncate them.
//! - A stray write into the control segment is found by a checksum and ends the set with a typed violation, or does no harm.
//! - The bytes of a buffer belong to the holder of the command. Shared memory cannot enforce that: see [`set::buffers`].
//!
//! # Platforms
//!
//! Linux, 64-bit.
#![deny(unsafe_code)]

pub mod ipc;
pub mod set;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod trace;

#[cfg(all(test, loom))]
mod loom_tests;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
