//! Files as media, and a file as the one medium of a drive.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Advice;
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;

use super::drive::{MediaDrive, Store};
use super::error::MediaError;
use super::interface::forward;
use super::lock::TargetLock;
use super::partial::{CommitError, Naming, Output};
use super::places::is_directory;
use super::target::Direction;
use super::{special, standard};

/// A file that a backup is written to, or that a restore reads: [Files](super#files).
///
/// [`FileMedia::create`] leaves the target as it is. The data goes to a file without a name, which takes the target's place
/// when the backup is complete. Named pipes and devices are written and read straight away; [`FileMedia::stdout`] and
/// [`FileMedia::stdin`] are for pipelines.
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
/// What standard input and output can be.
const STREAM: &[DeviceKind] = &[DeviceKind::PipeLike];

impl FileMedia {
    /// A medium for a backup into `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL if no file can be created there: the directory does not exist or
    /// may not be written to, `path` is a directory, a terminal, a dangling symbolic link, or what this process prints to; the old
    /// file may not be overwritten; another medium writes to it; or a named pipe has no reader after 30 seconds.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), Naming::Unnamed)
    }

    pub(super) fn create_as(path: &Path, naming: Naming) -> Result<Self, MediaError> {
        OneFile::create(path, naming, special::FIFO_TIMEOUT)?.into_drive(KINDS).map(FileMedia)
    }

    /// A medium for a backup to standard output, what `-` means to many programs: see [Files](super#files).
    ///
    /// From here on standard output leads to standard error, so that nothing that the program prints gets into the backup. What
    /// it has printed before is in front of the backup: a program that offers this prints to standard error only.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if standard output is a terminal, is closed, is the same file as standard error, or
    /// was taken before.
    pub fn stdout() -> Result<Self, MediaError> {
        let source = Source::Backup(Output::Special(standard::take_stdout()?));
        OneFile { path: standard::STDOUT.into(), source, special: true }.into_drive(STREAM).map(FileMedia)
    }

    /// A medium for a restore from standard input, what `-` means to many programs. From here on nothing else can be read from
    /// there.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if standard input is a terminal, is closed, or was taken before.
    pub fn stdin() -> Result<Self, MediaError> {
        let source = Source::Restore(standard::take_stdin()?);
        OneFile { path: standard::STDIN.into(), source, special: true }.into_drive(STREAM).map(FileMedia)
    }

    /// A medium for a restore from `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if `path` does not exist, is a directory or a terminal, or may not be read; or a named
    /// pipe has no writer after 30 seconds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let file = OneFile::open(path.as_ref(), special::FIFO_TIMEOUT)?;
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
    /// It is a pipe or a device.
    special: bool,
}

#[derive(Debug)]
enum Source {
    Restore(File),
    Backup(Output),
}

impl OneFile {
    pub(super) fn create(path: &Path, naming: Naming, fifo_timeout: Duration) -> Result<OneFile, MediaError> {
        let output = Output::create(path, naming, fifo_timeout)?;
        let special = matches!(output, Output::Special(_));
        Ok(OneFile { path: path.to_owned(), source: Source::Backup(output), special })
    }

    pub(super) fn open(path: &Path, fifo_timeout: Duration) -> Result<OneFile, MediaError> {
        let cannot = |error| MediaError::io(format!("cannot open {} for reading", path.display()), error);
        let found = fs::metadata(path).map_err(cannot)?;
        if found.is_dir() {
            return Err(is_directory(path));
        }
        let special = !found.is_file();
        let file =
            if special { special::open(path, &found, fifo_timeout)? } else { File::open(path).map_err(cannot)? };
        Ok(OneFile { path: path.to_owned(), source: Source::Restore(file), special })
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

    fn commit(self) -> Result<Option<TargetLock>, CommitError> {
        match self.source {
            Source::Restore(_) => Ok(None),
            Source::Backup(output) => output.commit(),
        }
    }
}
