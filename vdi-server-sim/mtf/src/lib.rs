//! Reads and writes SQL Server's uncompressed backups: the Microsoft Tape Format, as SQL Server uses it.
//!
//! The crate has no I/O: bytes come in pieces of any size, from files, pipes or virtual devices, and events go out. Page data is passed
//! through without a copy. Every length is bounded, no input makes it panic, and it has no `unsafe`.
//!
//! | module | what it does |
//! |---|---|
//! | [`parser`] | bytes in, events out: blocks, streams, data. Validates headers and the order |
//! | [`writer`] | the mirror: the events of a medium give the same bytes |
//! | [`inspector`] | typed contents of a medium; verifies pages, log, backup checksums |
//! | [`listing`] | what RESTORE LABELONLY, HEADERONLY and FILELISTONLY show |
//! | [`builder`] | lays backups out: addresses, alignment, filemarks, set map, checksums |
//! | [`families`] | striped backups |
//!
//! The format, from the outside in:
//!
//! | module | what it describes |
//! |---|---|
//! | [`block`], [`stream`] | the headers that all blocks and streams have |
//! | [`media`], [`set`] | label, filemarks; start, volume, end and map of backup sets |
//! | [`sqlserver`] | configuration, extents of pages, virtual log files and log blocks |
//! | [`page`], [`checksum`] | page headers, checksums and torn-page bits |
//! | [`value`] | names, texts, dates, GUIDs, log sequence numbers, addresses of pages |
//!
//! # A medium
//!
//! ```text
//! TAPE SFMB   SSET VOLB MSCI MSDA.. MSTL.. MSLS SFMB ESET ESET SFMB   SSET ..
//! label       a backup set: start, volume, configuration,             the next set
//!             pages, log, configuration again, set map
//! ```
//!
//! A full backup has one `MSDA` with the allocated extents of all data files; a differential one those that changed; a log backup none. SQL
//! Server 2019 and later may write a second `MSDA` with some extents again: the last image of a page wins. Each virtual log file has an
//! `MSTL`. Several sets may lie on one medium (NOINIT). Each device of a striped backup is a medium of its own, a *family*.
//!
//! # What is refused
//!
//! Compressed backups (container `MSSQLBAK`), encrypted and compressed sets, and media that continue on other media are recognised, and
//! refused by name. Backups with FILESTREAM data and mirrored media were never observed.
//!
//! # Sources
//!
//! Rules are marked with their source: "Microsoft Tape Format 1.00a", the published specification, with its section; or
//! "observed in backups of SQL Server 2005 to 2022". A structure keeps the bytes whose meaning is not known in its field `raw`, so that
//! writing it gives the bytes that were read.
#![forbid(unsafe_code)]

/// The README's example is a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod layout;
mod sequence;

pub mod block;
pub mod builder;
pub mod checksum;
pub mod error;
pub mod families;
pub mod inspector;
pub mod listing;
pub mod media;
pub mod page;
pub mod parser;
pub mod set;
pub mod sqlserver;
pub mod stream;
pub mod value;
pub mod writer;

pub use error::Error;
