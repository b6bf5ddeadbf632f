//! Tape images as media.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;

use super::drive::MediaDrive;
use super::error::MediaError;
use super::file::OneFile;
use super::interface::forward;
use super::partial::Naming;

/// A tape in a file: the media of a tape-like device with one medium: [Tape images](super#tape-images).
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
    /// A medium for a backup onto an empty tape, kept in `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL, as of [`FileMedia::create`](super::FileMedia::create), and where
    /// `path` is something else than a file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), Naming::Unnamed)
    }

    pub(super) fn create_as(path: &Path, naming: Naming) -> Result<Self, MediaError> {
        refuse_special(path)?;
        OneFile::create(path, naming, Duration::ZERO)?.into_drive(KINDS).map(TapeImage)
    }

    /// A medium for a restore from the image in `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if `path` does not exist, is no file, may not be read, or is no whole tape image.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        refuse_special(path.as_ref())?;
        OneFile::open(path.as_ref(), Duration::ZERO)?.into_drive(KINDS).map(TapeImage)
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

forward!(impl() TapeImage, media => media.0);

/// Opening a pipe would wait for its other end.
fn refuse_special(path: &Path) -> Result<(), MediaError> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let what = format!("{} cannot hold a tape image: it is neither a file nor free", path.display());
        return Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("name a file"));
    }
    Ok(())
}
