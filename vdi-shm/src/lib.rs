//! Processes, memory and waiting for the Virtual Device Interface.
//!
//! A virtual device set lives in shared memory: one *control segment* with rings, doorbells and a slot table, and any
//! number of *buffer areas* whose bytes server and clients work on without a copy. This crate makes that memory, lets
//! processes join it, notices when one dies, and moves records between them. What the records mean is for
//! [`vdi_proto`]; the interface that programs use is `vdi-client`, the server's is `vdi-server-sim`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`segment`] | sealed memfd segments and their mappings |
//! | [`ring`] | single-producer, single-consumer rings of records |
//! | [`doorbell`], [`wait`] | waking and waiting: spin briefly, then sleep on a shared futex |
//! | [`slots`] | the slot table: loans, generations, leases |
//! | [`seat`] | what the threads of a process have one at a time, for moments |
//! | [`area`], [`allocator`] | buffer areas as mapped; the server's allocator over them |
//! | [`control`], [`session`] | the control segment; what one process knows of a set |
//! | [`runtime`], [`link`] | where sets are found; packets with descriptors between processes |
//! | [`host`], [`member`] | the primary's side of joining; the server's and the secondaries' |
//!
//! # Who trusts whom
//!
//! Whoever may join a set may read and write all of its memory: that is what sharing it without a copy means. The
//! crate therefore checks *who* joins (credentials of the socket's peer, by default the same user), and it keeps its
//! own process sound whatever a member does to the shared words: they are loaded once, judged, and never trusted
//! again; segments are sealed against shrinking, so that no access can fault. What it cannot prevent is that a member
//! scribbles into a *buffer* that somebody else holds. The interface documents buffers as owned by the holder of the
//! command, and this crate bets on that where it hands out slices: see [`area`].
//!
//! # Platforms
//!
//! Linux. The system calls sit behind one small module.
#![deny(unsafe_code)]

#[cfg(any(test, not(loom)))]
mod abort_word;
#[cfg(any(test, not(loom)))]
#[cfg(not(loom))]
pub mod allocator;
#[cfg(not(loom))]
pub mod area;
mod atomics;
#[cfg(not(loom))]
pub mod control;
#[cfg(any(test, not(loom)))]
mod device_name;
pub mod doorbell;
#[cfg(not(loom))]
pub mod error;
#[cfg(any(test, not(loom)))]
mod holding;
#[cfg(not(loom))]
pub mod host;
#[cfg(not(loom))]
pub mod link;
#[cfg(not(loom))]
pub mod member;
pub mod ring;
#[cfg(not(loom))]
pub mod runtime;
#[cfg(not(loom))]
pub mod seat;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod session;
pub mod slots;
#[cfg(not(loom))]
mod sys;
#[doc(hidden)]
pub mod trace;
#[cfg(not(loom))]
pub mod wait;

#[cfg(all(test, loom))]
mod loom_tests;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
