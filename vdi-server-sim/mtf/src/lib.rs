#![doc = include_str!("../README.md")]
//!
//! # The format
//!
//! From the outside in:
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
pub mod medium;
pub mod page;
pub mod parser;
pub mod set;
pub mod sqlserver;
pub mod stream;
pub mod value;
pub mod writer;

pub use error::Error;
