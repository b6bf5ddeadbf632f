//! Tape images as media.

use std::fs;
use std::path::Path;

use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;

use super::MediaError;
use super::drive::MediaDrive;
use super::file::OneFile;
use super::partial::Naming;

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
pub struct TapeImage(MediaDrive<OneFile>);

const KINDS: &[DeviceKind] = &[DeviceKind::TapeLike];

impl TapeImage {
    /// A media for a backup onto an empty tape, kept in `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL, as of [`FileMedia::create`](super::FileMedia::create), and where
    /// `path` is something else than a file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), Naming::Unnamed)
    }

    pub(super) fn create_as(path: &Path, naming: Naming) -> Result<Self, MediaError> {
        refuse_special(path)?;
        OneFile::create(path, naming)?.into_drive(KINDS).map(TapeImage)
    }

    /// A media for a restore from the image in `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if `path` does not exist, is no file, may not be read, or is no whole tape image.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        refuse_special(path.as_ref())?;
        OneFile::open(path.as_ref())?.into_drive(KINDS).map(TapeImage)
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

super::forward!(impl() TapeImage, media => media.0);

/// Opening a pipe would wait for its other end.
fn refuse_special(path: &Path) -> Result<(), MediaError> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let what = format!("{} cannot hold a tape image: it is neither a file nor free", path.display());
        return Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("name a file"));
    }
    Ok(())
}
