//! What the devices of a RESTORE bring: the media families of one media set, and in them a backup set.
//!
//! Each device has a [`MediumReader`], which takes the bytes of its medium in pieces of any size and carries out what they say at once:
//! everything is verified, pages go to where their headers say, log bytes to the range of their virtual log file. What concerns all
//! devices is in [`Incoming`].
//!
//! # Rules
//!
//! | rule | refused with |
//! |---|---|
//! | the devices are all families of one media set, each once, in any order | 3132, 3231, 3227, 3258 |
//! | all families have the same backup set, with the same configuration | 3258, 3241 |
//! | each extent comes once in a pass, in a data file of the configuration, and none is missing | 3241, 3189 |
//! | each range of the log comes, in family 1, and lies in its virtual log file | 3241, 3189 |
//! | pages, log blocks, headers and backup checksums are sound | 3183, 3189, 3241 |
//!
//! # Two passes
//!
//! A set may bring some extents a second time, and the last image of a page wins. The families do not say how their extents follow each
//! other in time, so no device begins its second pass before all devices have ended their first: see [`Fed::SecondPass`](super::feed::Fed::SecondPass).

mod coverage;
mod medium;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded};
use vdi_mtf::families;
use vdi_mtf::medium::{BackupSet, Medium};
use vdi_mtf::sqlserver::config::{BackupKind, Config, FileType, database_flags};
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::{FileId, Guid, PageAddress};

use super::plan::filemark_len;
use super::{Failure, FamilyError};
use coverage::Coverage;
pub(super) use coverage::data_bytes;
pub(super) use medium::MediumReader;

/// Where the content of a backup set goes.
pub(super) trait Destination: Sync {
    /// A header was read, of which nothing but the content follows. Called once, by the device that has it first.
    fn begin(&self, set: &BackupSet) -> Result<(), Failure>;

    /// Writes bytes of pages or log at their place in a file. Several devices write at once.
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Failure>;
}

/// What is asked of a backup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The position of the set on its media, from 1.
    pub(super) file: u32,
    /// CHECKSUM or NO_CHECKSUM. By default backup checksums are verified where the backup has them.
    pub(super) checksum: Option<bool>,
    /// CONTINUE_AFTER_ERROR.
    pub(super) continue_after_error: bool,
    /// BLOCKSIZE, where the statement gives one.
    pub(super) block_size: Option<u32>,
    /// Whether the set has to be one WITH SNAPSHOT, or one without.
    pub(super) snapshot: Option<bool>,
    /// Only a full backup of a database will do.
    pub(super) full: bool,
}

/// What the devices of one statement bring.
pub(super) struct Incoming<'a> {
    wanted: Wanted,
    /// The database, for messages.
    database: &'a str,
    devices: usize,
    destination: &'a dyn Destination,
    /// The labels that were read, with their devices.
    families: Mutex<Vec<(Device, Medium)>>,
    /// The set, once a device has its header. Held while the destination is prepared, so that no device goes on before.
    set: Mutex<Option<(Device, BackupSet)>>,
    coverage: Mutex<Coverage>,
    ended: Mutex<Ended>,
    first_pass: FirstPass,
}

/// A device of the statement.
#[derive(Debug, Clone)]
struct Device {
    /// Its place in the statement, from 0.
    index: usize,
    name: String,
}

/// What the devices that are through have brought.
#[derive(Debug, Default)]
struct Ended {
    count: usize,
    /// The configuration at the end.
    trailing: Option<Config>,
    /// The log's virtual files, from family 1.
    log: Vec<Vlf>,
    damages: u64,
}

/// A backup set that is complete.
#[derive(Debug)]
pub(super) struct Received {
    /// The set of the family that came first; with the leading configuration.
    pub(super) set: BackupSet,
    /// The configuration at the end.
    pub(super) trailing: Config,
    /// The virtual log files.
    pub(super) log: Vec<Vlf>,
    /// Damages that CONTINUE_AFTER_ERROR has passed over.
    pub(super) damages: u64,
    /// Pages of each file, data files and then log files, by logical name: what message 4035 says.
    pub(super) pages: Vec<(String, u64)>,
}

impl<'a> Incoming<'a> {
    /// Nothing has come yet from so many devices, at least one.
    pub(super) fn new(
        wanted: Wanted,
        database: &'a str,
        devices: usize,
        destination: &'a dyn Destination,
    ) -> Incoming<'a> {
        Incoming {
            wanted,
            database,
            devices,
            destination,
            families: Mutex::default(),
            set: Mutex::default(),
            coverage: Mutex::new(Coverage::new(&Config::default())),
            ended: Mutex::default(),
            first_pass: FirstPass::new(devices),
        }
    }

    /// The reader of one device, by its place in the statement, from 0, and its name.
    pub(super) fn reader(&self, index: usize, name: &str) -> MediumReader<'_> {
        MediumReader::new(self, Device { index, name: name.to_owned() })
    }

    /// A channel that is disconnected once all devices have ended their first pass.
    pub(super) fn first_pass_over(&self) -> &Receiver<()> {
        &self.first_pass.over
    }

    /// A device has read the label of its medium.
    fn label(&self, at: &Device, medium: &Medium) -> Result<(), Failure> {
        let device = &*at.name;
        let refused =
            |earlier: Option<String>, source| Err(Failure::Families { device: device.to_owned(), earlier, source });
        let (found, provided) = (usize::from(medium.media_set.family_count), self.devices);
        if found != provided {
            return refused(None, FamilyError::Count { families: found, provided });
        }
        let filemark = medium.label.filemark_len();
        if let Some(requested) = self.wanted.block_size.filter(|&requested| filemark_len(requested) != filemark) {
            return Err(Failure::BlockSize { device: device.to_owned(), found: filemark, requested });
        }
        let mut families = lock(&self.families);
        let label = Medium { label: medium.label.clone(), media_set: medium.media_set.clone(), ..Medium::default() };
        let all: Vec<&Medium> = families.iter().map(|(_, medium)| medium).chain([&label]).collect();
        match families::validate(&all) {
            Ok(_) | Err(vdi_mtf::Error::MissingFamily { .. }) => {
                families.push((at.clone(), label));
                Ok(())
            }
            Err(vdi_mtf::Error::RepeatedFamily { number }) => {
                let earlier = families.iter().find(|(_, medium)| medium.media_set.family_number == number);
                refused(earlier.map(|(device, _)| device.name.clone()), FamilyError::Repeated { family: number })
            }
            Err(vdi_mtf::Error::ForeignFamily { expected, found, .. }) => {
                let first = families.first().map_or(at, |(device, _)| device);
                Err(foreign("media set", (first, expected), (at, found)))
            }
            Err(error) => Err(self.broken(device, error)),
        }
    }

    /// A device has read the header of the set.
    fn begin(&self, at: &Device, set: &BackupSet) -> Result<(), Failure> {
        let (device, mut first) = (&*at.name, lock(&self.set));
        if let Some((earlier, first)) = &*first {
            if first.start.id != set.start.id {
                return Err(foreign("backup set", (earlier, first.start.id), (at, set.start.id)));
            }
            if first.leading != set.leading {
                return Err(self.content(device, "its configuration is not that of the other devices".to_owned()));
            }
            return Ok(());
        }
        let database = &set.leading.database;
        let is_snapshot = database.flags & database_flags::SNAPSHOT != 0;
        if self.wanted.snapshot.is_some_and(|wanted| wanted != is_snapshot) {
            return Err(Failure::SnapshotMismatch { device: device.to_owned(), is_snapshot });
        }
        if self.wanted.full && database.kind() != BackupKind::Full {
            return Err(Failure::Kind { device: device.to_owned(), kind: database.kind() });
        }
        if self.wanted.checksum == Some(true) && !database.has_checksums() {
            return Err(Failure::NoChecksums { device: device.to_owned() });
        }
        self.refuse_damaged(device, &set.leading)?;
        // A snapshot has no pages.
        if !is_snapshot {
            *lock(&self.coverage) = Coverage::new(&set.leading);
        }
        self.destination.begin(set)?;
        *first = Some((at.clone(), set.clone()));
        Ok(())
    }

    /// Refuses a backup of damaged pages. The configuration before the pages says so of a database whose damage was known; that behind
    /// them, if BACKUP itself met the damage.
    fn refuse_damaged(&self, device: &str, configuration: &Config) -> Result<(), Failure> {
        let is_damaged = configuration.database.flags & database_flags::DAMAGED != 0;
        match self.wanted.full && !self.wanted.continue_after_error && is_damaged {
            true => Err(Failure::DamagedBackup { device: device.to_owned() }),
            false => Ok(()),
        }
    }

    /// An extent of pages begins, in a pass from 0.
    fn extent(&self, device: &str, pass: usize, first: PageAddress) -> Result<(), Failure> {
        lock(&self.coverage).add(pass, first).map_err(|what| self.content(device, what))
    }

    /// A device has read the set to its end.
    fn end(&self, device: &str, family: u16, set: &BackupSet, damages: u64) -> Result<(), Failure> {
        let mut ended = lock(&self.ended);
        ended.count += 1;
        ended.damages = ended.damages.saturating_add(damages);
        match &ended.trailing {
            Some(trailing) if trailing != set.config() => {
                return Err(self.content(device, "its last configuration is not that of the other devices".to_owned()));
            }
            Some(_) => {}
            None => ended.trailing = Some(set.config().clone()),
        }
        self.refuse_damaged(device, set.config())?;
        if family == 1 {
            if let Some((vlf, _)) = set.log.iter().find(|(vlf, stream)| vlf.range_len() > 0 && stream.is_none()) {
                let what = format!("the log from {} to {} is missing", vlf.start, vlf.end);
                return Err(self.content(device, what));
            }
            ended.log = set.log.iter().map(|(vlf, _)| vlf.clone()).collect();
        }
        Ok(())
    }

    /// All devices are through: whether the set is complete.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn finish(&self) -> Result<Received, Failure> {
        let mut ended = lock(&self.ended);
        let incomplete = |what| Failure::Incomplete { database: self.database.to_owned(), what };
        let (Some((_, set)), Some(trailing)) = (lock(&self.set).take(), ended.trailing.take()) else {
            return Err(incomplete("no device brought a backup set".to_owned()));
        };
        if ended.count != self.devices {
            return Err(incomplete(format!("{} of {} devices came to their end", ended.count, self.devices)));
        }
        let coverage = lock(&self.coverage);
        coverage.check(&trailing).map_err(incomplete)?;
        check_log(&set.leading, &ended.log).map_err(incomplete)?;
        let log_bytes = |id: FileId| -> u64 {
            ended.log.iter().filter(|vlf| vlf.file_id == id).map(Vlf::range_len).fold(0, u64::saturating_add)
        };
        let is_snapshot = set.leading.database.flags & database_flags::SNAPSHOT != 0;
        let pages = set.leading.files.iter().map(|file| {
            let pages = match file.file_type() {
                // Its files are in the client's hands, and count as a whole.
                _ if is_snapshot => file.size.div_ceil(crate::messages::PAGE_BYTES),
                FileType::Log => log_bytes(file.file_id).div_ceil(crate::messages::PAGE_BYTES),
                _ => coverage.pages(file.file_id),
            };
            (file.logical_name.to_string(), pages)
        });
        let pages = pages.collect();
        drop(coverage);
        Ok(Received { set, trailing, log: std::mem::take(&mut ended.log), damages: ended.damages, pages })
    }

    fn broken(&self, device: &str, source: vdi_mtf::Error) -> Failure {
        Failure::Medium { device: device.to_owned(), database: self.database.to_owned(), source }
    }

    fn content(&self, device: &str, what: String) -> Failure {
        Failure::Content { device: device.to_owned(), what }
    }
}

/// Of two devices that do not belong together, the one that the statement names later is refused. Which was read first is luck.
fn foreign(what: &'static str, one: (&Device, Guid), two: (&Device, Guid)) -> Failure {
    let ((other, expected), (device, found)) = if one.0.index <= two.0.index { (one, two) } else { (two, one) };
    let source = FamilyError::Foreign { what, other: other.name.clone(), expected, found };
    Failure::Families { device: device.name.clone(), earlier: None, source }
}

/// The virtual log files of a log file fill it from its first 8 KiB on, and their ranges lie in them.
fn check_log(leading: &Config, log: &[Vlf]) -> Result<(), String> {
    for file in leading.files.iter().filter(|file| file.file_type() == FileType::Log) {
        let mut vlfs: Vec<&Vlf> = log.iter().filter(|vlf| vlf.file_id == file.file_id).collect();
        vlfs.sort_by_key(|vlf| vlf.offset);
        let mut end = FIRST_VLF;
        for vlf in vlfs {
            let at = format!("the virtual log file at {} of file '{}'", vlf.offset, file.logical_name);
            if vlf.offset != end {
                return Err(format!("{at} should begin at {end}"));
            }
            end = vlf.offset.saturating_add(vlf.size);
            check_range(vlf).map_err(|what| format!("{at}: {what}"))?;
        }
        // A snapshot has none.
        if end != file.size && !log.is_empty() {
            return Err(format!(
                "the virtual log files of '{}' end at {end}, the file at {}",
                file.logical_name, file.size
            ));
        }
    }
    Ok(())
}

/// Where the first virtual log file begins.
const FIRST_VLF: u64 = 8192;

fn check_range(vlf: &Vlf) -> Result<(), String> {
    if vlf.range_len() > 0 && (vlf.start < vlf.offset || vlf.end > vlf.offset.saturating_add(vlf.size)) {
        return Err(format!("its log from {} to {} lies outside", vlf.start, vlf.end));
    }
    Ok(())
}

/// Devices that end their first pass.
struct FirstPass {
    /// How many have not, and what is dropped when all have.
    left: Mutex<(usize, Option<Sender<()>>)>,
    over: Receiver<()>,
}

impl FirstPass {
    fn new(devices: usize) -> FirstPass {
        let (sender, over) = bounded(0);
        FirstPass { left: Mutex::new((devices, Some(sender))), over }
    }

    /// One more has ended it.
    fn ended(&self) {
        let mut left = lock(&self.left);
        left.0 = left.0.saturating_sub(1);
        if left.0 == 0 {
            left.1 = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
