//! Media: where the bytes of a device go to in a backup, and where they come from in a restore.
//!
//! # Ready-made media
//!
//! | media | for |
//! |---|---|
//! | [`FileMedia`] | pipe-like and disk-like sets: files, with atomic replacement; also named pipes, `/dev/null`, block devices, and standard input and output |
//! | [`TapeImage`] | tape-like sets with one medium: a tape in a file that other tools read, too |
//! | [`VolumeSet`] | removable sets of all kinds: several media of limited capacity, committed as one |
//! | [`StreamMedia`] | whatever implements [`Write`](std::io::Write) or [`Read`](std::io::Read): compressors, sockets, pipes; with [`std::io::sink`] it is a medium that only counts |
//! | [`SnapshotMedia`] | `WITH SNAPSHOT`: any of these for the metadata, and your [`Snapshots`] for the rest |
//!
//! ```
//! use vdi_client::media::{FileMedia, Media};
//! use vdi_proto::config::VdConfig;
//! use vdi_proto::features::Features;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let path = directory.path().join("sales.bak");
//! let negotiated = VdConfig { features: Features::WRITE_MEDIA | Features::COMPLETE_ENABLED, ..VdConfig::default() };
//!
//! let mut media = FileMedia::create(&path)?;
//! media.begin(&negotiated)?;
//! media.write(0, b"some of the backup")?;
//! assert!(!path.exists());
//! media.complete()?;
//! assert!(path.exists());
//! media.close()?;
//! # Ok(())
//! # }
//! ```
//!
#![doc = include_str!("../../docs/media.md")]

mod drive;
mod error;
mod file;
mod interface;
mod lock;
mod medium;
mod partial;
mod places;
mod snapshot;
mod special;
mod staging;
mod stale;
mod standard;
mod steps;
mod stream;
mod tape;
mod tape_image;
mod target;
#[cfg(test)]
mod tests;
mod transfer;
mod volume_set;
pub(crate) mod waiting;

pub use error::MediaError;
pub use file::FileMedia;
pub use interface::Media;
pub use snapshot::{SnapshotMedia, Snapshots};
pub use stream::{Sink, Source, StreamMedia};
pub use tape_image::TapeImage;
pub use volume_set::VolumeSet;
