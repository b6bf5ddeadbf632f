//! Reads and writes SQL Server's uncompressed backups.
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
pub mod page;
pub mod parser;
pub mod set;
pub mod sqlserver;
pub mod stream;
pub mod value;
pub mod writer;

pub use error::Error;
