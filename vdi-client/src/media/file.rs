//! Files as media, and a file as the one medium of a drive.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;

use super::drive::{MediaDrive, Store};
use super::error::MediaError;
use super::interface::forward;
use super::partial::{CommitError, Naming, Output};
use super::places::is_directory;
use super::target::Direction;

/// A file that a backup is written to, or that a restore reads: [Files](super#files).
///
/// [`FileMedia::create`] leaves the target as it is. The data goes to a file without a name, which takes the target's place
/// when the backup is complete. Named pipes, terminals and devices are written and read straight away.
///
/// ```
/// use vdi_client::media::{FileMedia, Media};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("sales.bak");
/// std::fs::write(&path, b"the old backup")?;
/// let mut media = FileMedia::create(&path)?;
/// media.write(0, b"half of the new one")?;
/// drop(media);
/// assert_eq!(std::fs::read(&path)?, b"the old backup");
///
/// let mut media = FileMedia::open(&path)?;
/// let mut buffer = [0; 64];
/// assert_eq!(media.read(0, &mut buffer)?, 14);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FileMedia(MediaDrive<OneFile>);

const KINDS: &[DeviceKind] = &[DeviceKind::PipeLike, DeviceKind::DiskLike];

impl FileMedia {
    /// A medium for a backup into `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL if no file can be created there: the directory does not exist or
    /// may not be written to, `path` is a directory or a dangling symbolic link, or the old file may not be overwritten.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), Naming::Unnamed)
    }

    pub(super) fn create_as(path: &Path, naming: Naming) -> Result<Self, MediaError> {
        OneFile::create(path, naming)?.into_drive(KINDS).map(FileMedia)
    }

    /// A medium for a restore from `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if `path` does not exist, is a directory, or may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let file = OneFile::open(path.as_ref())?;
        // Only advice: without it reading works, too.
        let _ = rustix::fs::fadvise(file.file(), 0, None, Advice::Sequential);
        file.into_drive(KINDS).map(FileMedia)
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The bytes written or, in a restore, read so far, those of a command that failed half-way included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

forward!(impl() FileMedia, media => media.0);

/// A file as the one medium of a drive.
#[derive(Debug)]
pub(super) struct OneFile {
    path: PathBuf,
    source: Source,
    /// It is a pipe, a terminal, a device.
    special: bool,
}

#[derive(Debug)]
enum Source {
    Restore(File),
    Backup(Output),
}

impl OneFile {
    pub(super) fn create(path: &Path, naming: Naming) -> Result<OneFile, MediaError> {
        let output = Output::create(path, naming)?;
        let special = matches!(output, Output::Special(_));
        Ok(OneFile { path: path.to_owned(), source: Source::Backup(output), special })
    }

    pub(super) fn open(path: &Path) -> Result<OneFile, MediaError> {
        let cannot = |error| MediaError::io(format!("cannot open {} for reading", path.display()), error);
        let found = fs::metadata(path).map_err(cannot)?;
        if found.is_dir() {
            return Err(is_directory(path));
        }
        let source = Source::Restore(File::open(path).map_err(cannot)?);
        Ok(OneFile { path: path.to_owned(), source, special: !found.is_file() })
    }

    pub(super) fn into_drive(self, kinds: &'static [DeviceKind]) -> Result<MediaDrive<OneFile>, MediaError> {
        let (direction, fate) = match &self.source {
            Source::Restore(_) => (Direction::Restore, ""),
            Source::Backup(output) => (Direction::Backup, output.fate()),
        };
        MediaDrive::new(self.path.clone(), self, direction, fate, kinds, u64::MAX)
    }
}

impl fmt::Display for OneFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Store for OneFile {
    fn file(&self) -> &File {
        match &self.source {
            Source::Restore(file) => file,
            Source::Backup(output) => output.file(),
        }
    }

    fn is_stream(&self) -> bool {
        self.special
    }

    fn sync(&self) -> io::Result<()> {
        match &self.source {
            Source::Restore(_) => Ok(()),
            Source::Backup(output) => output.sync(),
        }
    }

    /// Only a tape image knows Load: it has medium 1.
    fn load(&mut self, kind: DeviceKind, number: i32) -> Result<bool, MediaError> {
        match number {
            _ if kind != DeviceKind::TapeLike => Err(MediaError::not_supported(CommandCode::LOAD)),
            1 => Ok(false),
            _ => {
                let what = format!("medium {number} cannot be loaded: the tape image {self} is one medium, number 1");
                Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("use a volume set for several media"))
            }
        }
    }

    fn commit(self) -> Result<(), CommitError> {
        match self.source {
            Source::Restore(_) => Ok(()),
            Source::Backup(output) => output.commit(),
        }
    }
}
