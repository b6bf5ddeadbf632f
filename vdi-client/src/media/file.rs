//! Files as media, and a file as the one medium of a drive.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;
#[cfg(doc)]
use vdi_proto::features::Features;

#[cfg(doc)]
use super::Media;
use super::MediaError;
use super::drive::{MediaDrive, Store};
use super::partial::{CommitError, Naming, Output, is_directory};
use super::progress::Direction;

/// A file that a backup is written to, or that a restore reads.
///
/// # Backup
///
/// [`FileMedia::create`] leaves the target as it is. The data goes to a file without a name in the target's directory, which
/// vanishes with the process, however that ends. When the backup is complete (see [the invariant](super#the-invariant)),
/// the new file is synced, linked under a hidden name, renamed over the target, and the directory is synced.
///
/// - File systems that know no unnamed files (NFS for example) get one under the hidden name
///   `.NAME.vdi-partial-RANDOM` instead, which a killed process leaves behind; so does a kill exactly between link and rename.
///   The next backup to the same target removes it. It tells what was left behind by a lock (`flock`) that its owner holds; where
///   the file system knows no locks it stays, and may be removed by hand. Where locks hold on one machine only (NFS mounted
///   with `nolock` or `local_lock`), back up to a target from one machine at a time.
/// - A new file gets the permissions 0666 less the umask. One that replaces another gets that one's permissions, and its
///   owner and group where the process may set them. An old file that this process may not write to is refused.
///   Other hard links to the old file keep the old data.
/// - If the path is a symbolic link, the file that it points to is replaced; a dangling link is refused.
/// - A pipe, a terminal or a device is written straight away. Opening a named pipe waits for its reader. What of it
///   can be synced is synced.
///
/// The disk has to hold the old and the new backup together.
///
/// # Restore
///
/// [`FileMedia::open`] reads the file from its beginning; a named pipe is waited for and read until its writers are gone.
///
/// # Device kinds
///
/// Pipe-like sets write and read in sequence, whatever position a command carries. Disk-like ones
/// ([`Features::RANDOM_ACCESS`]) write and read at the position given, and read in a backup, too. Other kinds, and a set that
/// goes the other way than the file was opened for, are refused by [`Media::begin`].
///
/// For disk-like sets:
///
/// - GetPosition returns the end of the last transfer, or what SetPosition set. SetPosition takes positions from 0 to the
///   end; others, and an unknown `whence`, are answered with a recoverable ERROR_IO_DEVICE and change nothing.
/// - The file ends at the highest byte written. Flush has nothing to cut off: no other length ever comes about.
/// - A Read beyond the end gets no bytes, which is the end of the data. No position beyond 2^63 - 1 exists: ERROR_IO_DEVICE,
///   recoverable for a Read, final for a Write, whose bytes are lost.
///
/// With [`Features::DISCARD`], Discard has what was written vanish at once; nothing is committed after it.
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
    /// A media for a backup into `path`.
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

    /// A media for a restore from `path`.
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

super::forward!(impl() FileMedia, media => media.0);

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
