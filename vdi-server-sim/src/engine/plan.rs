//! What a BACKUP will write, settled before the first byte goes out: the families' pages, the log, and all headers but what is known only at
//! the end (backup checksums, the finish date).
//!
//! | module | what it holds |
//! |---|---|
//! | `dealing` | which family gets which pages |
//! | `configuration` | the configurations at the beginning and at the end |
//! | `family` | the stream of one family, part after part |
//!
//! # The stream of a family
//!
//! ```text
//! TAPE SFMB * SSET VOLB MSCI MSDA pages MSTL log .. MSLS SFMB * ESET ESET SFMB *
//! label       headers             | dealt to all | family 1 |      set map         *: a filemark of a tape stands here, too
//! ```
//!
//! On a virtual device pages begin and the set ends at a multiple of BLOCKSIZE: see [`Cuts`]. A set that is appended to a medium has no label.

mod configuration;
mod dealing;
mod family;

use std::sync::{Mutex, PoisonError};

use vdi_mtf::builder::Builder;
use vdi_mtf::media::{MediaSet, Tape};
use vdi_mtf::medium::Medium;
use vdi_mtf::set::{SetStart, Volume, attributes};
use vdi_mtf::sqlserver::config::{Config, FileType};
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::{FileId, Guid, Text};

pub(super) use configuration::Kind;
pub(super) use dealing::{Dealing, Segment};
pub(super) use family::{FamilyStream, Part};

use super::clock::{self, Moment};
use super::{Failure, new_set_id};
use crate::storage::BackupSource;
use crate::tsql::{Backup, Expiry};

/// The label of SQL Server's volume block: the root of the file system.
const VOLUME: &str = "/";

/// What a plan is made from, beside the database.
pub(super) struct Terms<'a> {
    pub(super) statement: &'a Backup,
    /// The server's name.
    pub(super) server: String,
    /// MAXTRANSFERSIZE.
    pub(super) transfer: u32,
    /// Sums of the frozen files, in the order of the configuration: BACKUP WITH SNAPSHOT.
    pub(super) snapshot: Option<Vec<Option<u32>>>,
}

/// The media of a backup: the beginnings of the families' streams, before it is known what will be in the set.
#[derive(Debug)]
pub(super) struct Media {
    /// The streams, in the order of the devices.
    pub(super) streams: Vec<FamilyStream>,
    /// When the backup began.
    now: Moment,
    /// The label and the media set of the first.
    label: Tape,
    media_set: MediaSet,
    /// The position of the set on the media, from 1.
    position: u16,
}

/// Where a stream is cut: its bytes up to there are a multiple of BLOCKSIZE, so that Writes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cuts {
    /// Nowhere: a file takes any length.
    None,
    /// Before the pages, behind them, and at the end.
    Pages,
    /// Also at the marks: for a device with filemarks of its own, and for a snapshot, whose label goes out alone.
    Marks,
}

/// The length of the filemarks of new media: BLOCKSIZE, but at most 4096, since the header of a filemark has its length in 16 bits and
/// backups of SQL Server have 512 or 4096.
pub(super) fn filemark_len(block_size: u32) -> u32 {
    block_size.min(4096)
}

impl Media {
    /// New media for the devices of a statement.
    pub(super) fn new(statement: &Backup, block_size: u32, cuts: Cuts) -> Result<Media, Failure> {
        let filemark_len = filemark_len(block_size);
        let (now, media_set, families) = (Moment::now()?, Guid(new_set_id()?), statement.devices.names.len() as u16);
        let family = |number: u16| {
            let id = new_set_id()?;
            let label = Tape {
                name: text(&statement.options.media_name),
                description: text(&statement.options.media_description),
                ..Tape::new(u32::from_le_bytes([id[0], id[1], id[2], id[3]]), filemark_len, now.date)
            };
            Ok((label, MediaSet::new(media_set, number, families)))
        };
        let families = (1..=families).map(family).collect::<Result<Vec<_>, Failure>>()?;
        let (label, media_set) = families.first().cloned().unwrap_or_default();
        let stream = |(at, (label, media_set)): (usize, (Tape, MediaSet))| {
            let builder = Builder::new(label, media_set);
            let builder = match cuts {
                Cuts::None => builder,
                Cuts::Pages => builder.cut_at(block_size.into(), false),
                Cuts::Marks => builder.cut_at(block_size.into(), true),
            };
            FamilyStream::new(builder, at as u32, at == 0)
        };
        Ok(Media {
            streams: families.into_iter().enumerate().map(stream).collect(),
            now,
            label,
            media_set,
            position: 1,
        })
    }

    /// Media whose labels stay, in the order of the devices: families of one media set. Their sets are replaced.
    pub(super) fn overwritten(media: &[Medium]) -> Result<Media, Failure> {
        let now = Moment::now()?;
        let stream = |(at, medium): (usize, &Medium)| {
            let builder = Builder::new(medium.label.clone(), medium.media_set.clone());
            FamilyStream::new(builder, at as u32, medium.media_set.family_number == 1)
        };
        let first = media.first().cloned().unwrap_or_default();
        let streams = media.iter().enumerate().map(stream).collect();
        Ok(Media { streams, now, label: first.label, media_set: first.media_set, position: 1 })
    }

    /// The length of the filemarks.
    pub(super) fn filemark_len(&self) -> u32 {
        self.label.filemark_len()
    }

    /// Media that the set is appended to, in the order of the devices: families of one media set with as many complete sets each.
    pub(super) fn appended(media: &[Medium]) -> Result<Media, Failure> {
        let now = Moment::now()?;
        let stream = |(at, medium): (usize, &Medium)| {
            FamilyStream::new(Builder::append(medium), at as u32, medium.media_set.family_number == 1)
        };
        let first = media.first().cloned().unwrap_or_default();
        Ok(Media {
            streams: media.iter().enumerate().map(stream).collect(),
            now,
            label: first.label,
            media_set: first.media_set,
            position: first.sets.len() as u16 + 1,
        })
    }
}

fn text(text: &Option<String>) -> Text {
    text.as_deref().unwrap_or_default().into()
}

/// A backup that is about to be written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) dealing: Dealing,
    /// The data files, in the order of [`Segment::File`].
    pub(super) files: Vec<FileId>,
    pub(super) log: Vec<Vlf>,
    pub(super) checksum: bool,
    pub(super) label: Tape,
    pub(super) media_set: MediaSet,
    pub(super) start: SetStart,
    pub(super) volume: Volume,
    pub(super) leading: Config,
    kind: Kind,
    copy_only: bool,
    /// BackupSize: of all families together.
    size: u64,
    /// The configuration at the end, once a family has come there.
    trailing: Mutex<Option<Config>>,
}

impl Plan {
    /// The plan of a backup to media.
    pub(super) fn new(source: BackupSource, terms: &Terms<'_>, media: &Media) -> Result<Plan, Failure> {
        let (options, families, now) = (&terms.statement.options, media.streams.len() as u32, media.now);
        let kind = match (&terms.snapshot, terms.statement.parts.is_empty()) {
            (Some(_), _) => Kind::Snapshot,
            (None, true) => Kind::Full,
            (None, false) => Kind::Files,
        };
        let checksum = options.checksum == Some(true) && kind != Kind::Snapshot;
        let (data, log) = configuration::content(&source, &terms.statement.parts, kind)?;
        let set_id = Guid(new_set_id()?);
        let leading = configuration::leading(&source.configuration, terms, kind, checksum, &data, &log, &now);

        let major = leading.database.software_major;
        let expiration = match &options.expires {
            None => None,
            Some(Expiry::Days(days)) => Some(clock::in_days(*days)?),
            Some(Expiry::Date(text)) => clock::parse(text),
        };
        let start = SetStart {
            attributes: if options.copy_only { attributes::COPY } else { attributes::NORMAL },
            software_minor: leading.database.software_minor,
            time_zone: now.time_zone,
            expiration: expiration.unwrap_or_default(),
            name: text(&options.name),
            description: text(&options.description),
            user: user().as_str().into(),
            ..SetStart::new(media.position, set_id, now.date, major)
        };
        let volume = Volume {
            attributes: 2,
            date: now.date,
            device: VOLUME.into(),
            machine: machine().as_str().into(),
            ..Volume::default()
        };

        let file_bytes =
            leading.files.iter().filter(|file| file.file_type() == FileType::Data).map(|file| file.size).sum();
        let mut plan = Plan {
            dealing: Dealing::new(&data, file_bytes, families, terms.transfer),
            files: data.iter().map(|file| file.file).collect(),
            log,
            checksum,
            label: media.label.clone(),
            media_set: media.media_set.clone(),
            start,
            volume,
            leading,
            kind,
            copy_only: options.copy_only,
            size: 0,
            trailing: Mutex::default(),
        };
        plan.size = media.streams.iter().map(|stream| stream.size(&plan)).sum::<Result<u64, _>>()?;
        Ok(plan)
    }

    /// Whether there are pages and log in the stream.
    pub(super) fn has_content(&self) -> bool {
        self.kind != Kind::Snapshot
    }

    /// Bytes of pages and log in the backup.
    pub(super) fn bytes(&self) -> u64 {
        self.dealing.total_len() + self.log.iter().map(Vlf::range_len).sum::<u64>()
    }

    /// The configuration at the end, the same for all families: it is made when the first of them asks for it, after all pages were read.
    /// `damaged`: there are damaged pages among them.
    pub(super) fn trailing(&self, damaged: bool) -> Result<Config, Failure> {
        let mut trailing = self.trailing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*trailing {
            return Ok(config.clone());
        }
        let config = configuration::trailing(self, &Moment::now()?, damaged);
        *trailing = Some(config.clone());
        Ok(config)
    }
}

/// The name of the machine.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user that the server runs as.
fn user() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests;
