//! What pages hold: stamps that can be checked, and files of a user.
//!
//! | function | what it does |
//! |---|---|
//! | [`create_sample`] | a database of [`Stamp`]ed pages |
//! | [`import`], [`export`] | a user's files into a database, and out of it, byte for byte |
//! | [`check`] | every page of a database, by its checksum and by what it says |
//! | [`compare`] | two databases, page for page |

mod archive;
mod carry;
mod check;
mod sample;
mod stamp;
#[cfg(test)]
mod tests;

pub use carry::{export, import};
pub(super) use check::check_pages;
pub use check::{check, compare};
pub use sample::create_sample;
pub use stamp::Stamp;

/// What a database holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// The number of stamped pages.
    pub stamps: u64,
    /// The smallest sequence of a stamp; 0 if there is none.
    pub first: u64,
    /// The largest sequence of a stamp; 0 if there is none.
    pub last: u64,
    /// Files of a user, in the order of their paths.
    pub files: Vec<CarriedFile>,
}

/// A file of a user that a database carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedFile {
    /// The path below the imported folder, with `/` between its parts; of a single file, its name.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
    /// Its permissions, `0o000` to `0o777`.
    pub mode: u32,
    /// The CRC-32 of its bytes (the polynomial of IEEE 802.3).
    pub crc32: u32,
}
