//! Volume sets as media: several media of limited capacity for one device.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use vdi_proto::completion::CompletionCode;
#[cfg(doc)]
use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};

use super::drive::{MediaDrive, Store};
use super::error::MediaError;
use super::interface::forward;
use super::lock::TargetLock;
use super::partial::{CommitError, DISCARDED, Naming};
use super::places::open_directory;
use super::staging::{Staging, list_media, medium_name};
use super::target::Direction;

/// Several media of one capacity for one removable device, in a directory: [Volume sets](super#volume-sets). The whole set is
/// committed or nothing is.
///
/// ```
/// use vdi_client::media::{Media, VolumeSet};
/// use vdi_client::{CommandCode, CompletionCode, Features, VdConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("sales");
/// let features = Features::REMOVABLE | Features::WRITE_MEDIA | Features::COMPLETE_ENABLED;
/// let mut set = VolumeSet::create(&path, 1024)?;
/// set.begin(&VdConfig { features, block_size: 512, ..VdConfig::default() })?;
/// let full = set.write(0, &[7; 1536]).unwrap_err();
/// assert_eq!((full.code, full.bytes), (CompletionCode::END_OF_MEDIA, 1024));
/// set.other(CommandCode::LOAD, 2, 0)?;
/// set.write(0, &[7; 512])?;
/// set.complete()?;
/// assert_eq!(std::fs::read(path.join("medium-002"))?, [7; 512]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VolumeSet(MediaDrive<Volumes>);

const KINDS: &[DeviceKind] = &[DeviceKind::PipeLike, DeviceKind::DiskLike, DeviceKind::TapeLike];

impl VolumeSet {
    /// A medium for a backup into the directory `path`, on media of `capacity` bytes of data.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL if no directory can be created there, or the one that is there
    /// may not be replaced: it has something else than media in it, is no directory, or another medium writes to it.
    pub fn create(path: impl AsRef<Path>, capacity: u64) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), capacity, Naming::Unnamed)
    }

    pub(super) fn create_as(path: &Path, capacity: u64, naming: Naming) -> Result<Self, MediaError> {
        let staging = Box::new(Staging::create(path, naming)?);
        let medium = new_medium(path, &staging, 1)?;
        Self::new(path, Source::Backup(staging, medium), Direction::Backup, capacity)
    }

    fn new(path: &Path, source: Source, direction: Direction, capacity: u64) -> Result<Self, MediaError> {
        let volumes = Volumes { path: path.to_owned(), source, number: 1 };
        MediaDrive::new(path.to_owned(), volumes, direction, DISCARDED, KINDS, capacity).map(VolumeSet)
    }

    /// A medium for a restore from the volume set in the directory `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if there is no such directory, a medium is missing, or the first may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let path = path.as_ref();
        let directory = open_directory(path)?;
        let (media, _) = list_media(&directory)
            .map_err(|error| MediaError::io(format!("cannot read the directory {}", path.display()), error))?;
        let last = media.last().copied().unwrap_or(1);
        if let Some(missing) = (1..=last).find(|number| media.get(number - 1) != Some(number)) {
            let (name, count) = (medium_name(missing), media.len());
            let what =
                format!("{} is no whole volume set: {name} is missing ({count} others are there)", path.display());
            return Err(MediaError::new(CompletionCode::IO_DEVICE, what)
                .with_remedy("name the directory that the backup was made into, with all its files"));
        }
        let medium = open_medium(path, &directory, 1)?;
        Self::new(path, Source::Restore { directory, last, medium }, Direction::Restore, u64::MAX)
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The bytes of data written or, in a restore, read so far, on all media.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The number of the medium in the device; `None` once the set was committed, or has failed.
    #[must_use]
    pub fn medium(&self) -> Option<u32> {
        self.0.store().and_then(|store| u32::try_from(store.number).ok())
    }
}

forward!(impl() VolumeSet, media => media.0);

/// The media of a set.
#[derive(Debug)]
struct Volumes {
    path: PathBuf,
    source: Source,
    /// Which is in the device.
    number: usize,
}

#[derive(Debug)]
enum Source {
    /// The last one is in the device.
    Backup(Box<Staging>, File),
    Restore {
        directory: File,
        last: usize,
        medium: File,
    },
}

impl Volumes {
    fn cannot_load(&self, number: i32, why: fmt::Arguments<'_>) -> MediaError {
        let what = format!("medium {number} of {} cannot be loaded: {why}", self.path.display());
        MediaError::new(CompletionCode::IO_DEVICE, what)
    }
}

/// Opens a medium for a restore.
fn open_medium(path: &Path, directory: &File, number: usize) -> Result<File, MediaError> {
    let name = medium_name(number);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::openat(directory, &name, flags, Mode::empty()))
        .map(File::from)
        .map_err(|error| MediaError::io(format!("cannot open {} for reading", path.join(name).display()), error.into()))
}

/// Creates a medium of a backup.
fn new_medium(path: &Path, staging: &Staging, number: usize) -> Result<File, MediaError> {
    staging.create_medium(number).map_err(|error| {
        let too_many = matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE));
        let error = MediaError::io(format!("cannot create medium {number} for {}", path.display()), error);
        match too_many {
            true => error.with_remedy("raise the limit of open files (ulimit -n), or have fewer and larger media"),
            false => error,
        }
    })
}

impl fmt::Display for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.join(medium_name(self.number)).display().fmt(f)
    }
}

impl Store for Volumes {
    fn check(&self, features: Features) -> Result<(), MediaError> {
        if features.contains(Features::REMOVABLE) {
            return Ok(());
        }
        Err(MediaError::not_supported(format_args!(
            "a set without VDF_Removable on the media of {}",
            self.path.display()
        ))
        .with_remedy("create the set with Features::REMOVABLE, or use one file a device"))
    }

    fn file(&self) -> &File {
        match &self.source {
            Source::Backup(_, medium) | Source::Restore { medium, .. } => medium,
        }
    }

    fn load(&mut self, _kind: DeviceKind, number: i32) -> Result<bool, MediaError> {
        if matches!(self.source, Source::Backup(..)) {
            self.sync().map_err(|error| MediaError::io(format!("cannot sync {self}"), error))?;
        }
        let wanted = usize::try_from(number).unwrap_or(0);
        match &mut self.source {
            Source::Backup(staging, medium) if wanted == self.number + 1 => {
                let next = new_medium(&self.path, staging, wanted)?;
                staging.keep(std::mem::replace(medium, next));
            }
            Source::Restore { directory, last, medium } if (1..=*last).contains(&wanted) => {
                *medium = open_medium(&self.path, directory, wanted)?;
            }
            Source::Backup(..) => {
                let next = self.number + 1;
                return Err(self
                    .cannot_load(number, format_args!("a backup goes on with the next medium, which is {next}"))
                    .with_remedy("report that with the server's version"));
            }
            Source::Restore { last, .. } => {
                let last = *last;
                return Err(self
                    .cannot_load(number, format_args!("the set has media 1 to {last}"))
                    .with_remedy("find the missing media of the backup, and put their files beside the others"));
            }
        }
        self.number = wanted;
        Ok(true)
    }

    fn commit(self) -> Result<Option<TargetLock>, CommitError> {
        match self.source {
            Source::Backup(mut staging, medium) => {
                staging.keep(medium);
                staging.commit()
            }
            Source::Restore { .. } => Ok(None),
        }
    }
}
