//! Tape images as media.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;

use super::MediaError;
use super::deck::{Deck, Store};
use super::partial::{CommitError, Keep, Output, Partial, is_directory};
use super::progress::Direction;

/// A tape in a file: the media of a tape-like device with one medium.
///
/// # The file
///
/// It is a tape image in the format of the SIMH simulators, which other tools read and write, too. Numbers are unsigned, of 32
/// bits, little-endian:
///
/// | on the tape | in the file |
/// |---|---|
/// | a record, here: what one Write stored | its length in bytes (at most 0xFFFFFF), the bytes, one byte of padding if the length is odd, the length again |
/// | a filemark | 0 |
/// | the end of the medium | the end of the file, or 0xFFFFFFFF, whatever follows it |
///
/// [`TapeImage::open`] reads all lengths and checks them; an image in which they do not fit together, as in one that was cut within
/// a record, is refused with the place and with what ought to be there. An image that was cut between two records is a shorter
/// tape, which only the server can notice: it meets the end of the data too early.
///
/// # The tape
///
/// It implements every command of tape-like devices. Source: VDI specification, tape-like devices.
///
/// - The position, and the address that GetPosition returns, is the number of blocks (of the set's `blockSize`) and filemarks
///   before it. The beginning is 0.
/// - A Write or WriteMark discards all that followed the position.
/// - A Read goes on through the boundaries of records, but never through a filemark: the bytes before it are returned with
///   ERROR_FILEMARK_DETECTED, and the tape is behind the mark then. At the end of the data they are returned with
///   ERROR_NO_DATA_DETECTED.
/// - SkipMarks goes behind the n-th next filemark or, with a negative count, to before the n-th one backwards. SkipBlocks
///   goes over blocks; a filemark ends it with ERROR_FILEMARK_DETECTED, behind that mark or, backwards, before it. Skips that
///   meet the end of the data end there with ERROR_NO_DATA_DETECTED, and at the beginning with ERROR_BEGINNING_OF_MEDIA.
/// - Load knows medium 1 only, and rewinds; for more media see [`VolumeSet`](super::VolumeSet). Discard has a backup vanish.
/// - Filemarks are written as such whatever `softFileMarkBlockSize` says.
/// - Errors of position are conditions; a SetPosition beyond the end of the data is answered with a recoverable
///   ERROR_IO_DEVICE. See [`MediaError::is_final`].
///
/// # The target
///
/// [The invariant](super#the-invariant) holds as it does for [`FileMedia`](super::FileMedia), and so do the rules of the new
/// file's permissions. Pipes and devices are refused.
///
/// ```
/// use vdi_client::CommandCode;
/// use vdi_client::media::{Media, TapeImage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("sales.tap");
/// let mut tape = TapeImage::create(&path)?;
/// tape.write(0, b"catalog!")?;
/// tape.other(CommandCode::WRITE_MARK, 0, 0)?;
/// tape.complete()?;
/// assert_eq!(std::fs::read(&path)?, b"\x08\0\0\0catalog!\x08\0\0\0\0\0\0\0");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TapeImage(Deck<OneFile>);

/// The one medium of a tape image.
#[derive(Debug)]
enum OneFile {
    Reading(PathBuf, File),
    Writing(PathBuf, Partial),
}

impl TapeImage {
    /// A media for a backup onto an empty tape, kept in `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL, as of [`FileMedia::create`](super::FileMedia::create), and where
    /// `path` is something else than a file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), Keep::Unnamed)
    }

    pub(super) fn create_as(path: &Path, keep: Keep) -> Result<Self, MediaError> {
        // Opening a pipe would wait for its reader.
        let special = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        match if special { None } else { Some(Output::create(path, keep)?) } {
            Some(Output::Partial(partial)) => Self::new(path, OneFile::Writing(path.to_owned(), partial)),
            _ => Err(no_file(path)),
        }
    }

    /// A media for a restore from the image in `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if `path` does not exist, is no file, may not be read, or is no whole tape image.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let path = path.as_ref();
        let cannot = |error| MediaError::io(format!("cannot open {} for reading", path.display()), error);
        let found = fs::metadata(path).map_err(cannot)?;
        match found.is_file() {
            true => Self::new(path, OneFile::Reading(path.to_owned(), File::open(path).map_err(cannot)?)),
            false if found.is_dir() => Err(is_directory(path)),
            false => Err(no_file(path)),
        }
    }

    fn new(path: &Path, store: OneFile) -> Result<Self, MediaError> {
        Deck::new(path.to_owned(), store, &[DeviceKind::TapeLike], u64::MAX).map(TapeImage)
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The bytes of data written or, in a restore, read so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

super::forward!(impl() TapeImage, 0);

fn no_file(path: &Path) -> MediaError {
    let what = format!("{} cannot hold a tape image: it is neither a file nor free", path.display());
    MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("name a file")
}

impl fmt::Display for OneFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (OneFile::Reading(path, _) | OneFile::Writing(path, _)) = self;
        path.display().fmt(f)
    }
}

impl Store for OneFile {
    fn direction(&self) -> Direction {
        match self {
            OneFile::Reading(..) => Direction::Restore,
            OneFile::Writing(..) => Direction::Backup,
        }
    }

    fn file(&self) -> &File {
        match self {
            OneFile::Reading(_, file) => file,
            OneFile::Writing(_, partial) => partial.file(),
        }
    }

    fn load(&mut self, number: i32) -> Result<bool, MediaError> {
        if number == 1 {
            return Ok(false);
        }
        let what = format!("medium {number} cannot be loaded: the tape image {self} is one medium, number 1");
        Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("use a volume set for several media"))
    }

    fn commit(self) -> Result<(), CommitError> {
        match self {
            OneFile::Reading(..) => Ok(()),
            OneFile::Writing(_, partial) => partial.commit(),
        }
    }
}
