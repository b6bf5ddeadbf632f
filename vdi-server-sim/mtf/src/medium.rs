//! The contents of a medium, as the [inspector](crate::inspector) reads them.

use crate::media::{MediaSet, Tape};
use crate::page::PageCounts;
use crate::set::{SetEnd, SetMap, SetStart, Volume};
use crate::sqlserver::config::Config;
use crate::sqlserver::log::Vlf;

/// What is on a medium: one family of a media set, with its backup sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Medium {
    /// The label.
    pub label: Tape,
    /// The media set and the family.
    pub media_set: MediaSet,
    /// The backup sets, in their order.
    pub sets: Vec<BackupSet>,
    /// Where the filemarks begin.
    pub filemarks: Vec<u64>,
    /// Bytes up to the end of the last complete set: where a set can be appended.
    pub len: u64,
}

/// A backup set on a medium.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackupSet {
    /// Where its SSET begins.
    pub offset: u64,
    /// The start of the set.
    pub start: SetStart,
    /// The volume.
    pub volume: Volume,
    /// The configuration when the backup began.
    pub leading: Config,
    /// The configuration when the backup ended. `None` until it was read.
    pub trailing: Option<Config>,
    /// The streams of pages.
    pub data: Vec<DataStream>,
    /// The virtual log files, each with its stream, if it has one.
    pub log: Vec<(Vlf, Option<LogStream>)>,
    /// Where its MSLS begins.
    pub summary_offset: u64,
    /// The set map.
    pub map: SetMap,
    /// The second ESET.
    pub end: SetEnd,
    /// Whether the set was read to its end.
    pub complete: bool,
}

impl BackupSet {
    /// The configuration to go by: the trailing one, or the leading one while there is no other.
    pub fn config(&self) -> &Config {
        self.trailing.as_ref().unwrap_or(&self.leading)
    }
}

/// A stream of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataStream {
    /// Where the first page begins on the medium.
    pub offset: u64,
    /// Bytes of pages.
    pub len: u64,
    /// What the pages are.
    pub pages: PageCounts,
    /// The backup checksum, if the backup has one.
    pub checksum: Option<u32>,
}

/// A stream of log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStream {
    /// Where the first log byte begins on the medium.
    pub offset: u64,
    /// Bytes of log and padding.
    pub len: u64,
    /// Complete log blocks.
    pub blocks: u64,
    /// The backup checksum, if the backup has one.
    pub checksum: Option<u32>,
}
