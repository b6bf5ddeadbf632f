//! Plays SQL Server's side of the Virtual Device Interface.
#![forbid(unsafe_code)]

pub mod database;
pub mod engine;
pub mod faults;
pub mod messages;
pub mod sample;
pub mod stream;
pub mod tsql;
pub mod vds;
