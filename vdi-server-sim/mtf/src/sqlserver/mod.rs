//! What SQL Server puts into the tape format: configuration, pages of data files, log.
//!
//! | module | block, stream |
//! |---|---|
//! | [`config`] | `MSCI` and `MSLS`, stream `MQCI`: records `SCIN`, `SFGI`, `SFIN` |
//! | [`data`] | `MSDA`, stream `MQDA`: extents of pages |
//! | [`log`] | `MSTL`, stream `MQTL`: virtual log files and their blocks |

pub mod config;
pub mod data;
mod database;
mod file;
pub mod log;
