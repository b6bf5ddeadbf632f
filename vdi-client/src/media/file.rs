//! Files as media.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, SeekFrom};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};

use super::cursor::Cursor;
use super::partial::{Keep, Output, Step, checkpoint, is_directory};
use super::progress::{self, Direction, Progress};
use super::{Media, MediaError, fill, store};

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
pub struct FileMedia {
    path: PathBuf,
    state: State,
    random_access: bool,
    /// Means something on a disk-like device only.
    cursor: Cursor,
    progress: Progress,
    bytes: u64,
}

#[derive(Debug)]
enum State {
    Reading(File),
    Writing(Output),
    /// Committed, or closed after reading.
    Done,
    /// Failed for this reason: never committed, and good for nothing any more.
    Failed(String),
}

impl FileMedia {
    /// A media for a backup into `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE or ERROR_DISK_FULL if no file can be created there: the directory does not exist or
    /// may not be written to, `path` is a directory or a dangling symbolic link, or the old file may not be overwritten.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        Self::create_as(path.as_ref(), Keep::Unnamed)
    }

    pub(super) fn create_as(path: &Path, keep: Keep) -> Result<Self, MediaError> {
        Ok(Self::new(path, State::Writing(Output::create(path, keep)?)))
    }

    /// A media for a restore from `path`.
    ///
    /// # Errors
    /// [`MediaError`] with ERROR_IO_DEVICE if `path` does not exist, is a directory, or may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let path = path.as_ref();
        let cannot = |error| MediaError::io(format!("cannot open {} for reading", path.display()), error);
        if fs::metadata(path).map_err(cannot)?.is_dir() {
            return Err(is_directory(path));
        }
        let file = File::open(path).map_err(cannot)?;
        // Only advice: whatever comes of it, reading works.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self::new(path, State::Reading(file)))
    }

    fn new(path: &Path, state: State) -> Self {
        FileMedia {
            path: path.to_owned(),
            state,
            random_access: false,
            cursor: Cursor::default(),
            progress: Progress::default(),
            bytes: 0,
        }
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes written or, in a restore, read so far, those of a command that failed half-way included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a backup is being written to.
    fn output(&self, what: impl fmt::Display) -> Result<&Output, MediaError> {
        match &self.state {
            State::Writing(output) => Ok(output),
            State::Reading(_) => Err(MediaError::not_supported(format_args!("{what} in a restore"))
                .with_remedy(format!("open {} with FileMedia::create for a backup", self.path.display()))),
            State::Done => Err(self.too_late(what)),
            State::Failed(first) => Err(self.failed_before(first)),
        }
    }

    fn too_late(&self, what: impl fmt::Display) -> MediaError {
        MediaError::new(CompletionCode::IO_DEVICE, format!("{what} came after {} was finished", self.path.display()))
            .with_remedy("the server must not send it after Complete or close; report that with the server's version")
    }

    fn failed_before(&self, first: &str) -> MediaError {
        MediaError::new(
            CompletionCode::IO_DEVICE,
            format!("{} is of no use any more since an earlier failure: {first}", self.path.display()),
        )
        .with_remedy("remove the cause of that, then start again")
    }

    /// Fails for good: what was written vanishes now.
    fn fail(&mut self, error: MediaError) -> MediaError {
        self.state = State::Failed(error.to_string());
        error
    }

    fn commit(&mut self) -> Result<(), MediaError> {
        let path = self.path.display().to_string();
        match std::mem::replace(&mut self.state, State::Done) {
            State::Writing(Output::Partial(partial)) => partial.commit().map_err(|error| {
                let fate = if error.in_place {
                    "the new file is in its place, but may not survive a crash of the system"
                } else {
                    "the new data was discarded, and what was there before was kept"
                };
                let what = format!("cannot finish {path} ({}; {fate})", error.doing);
                self.fail(MediaError::io(what, error.source))
            }),
            State::Writing(output @ Output::Special(_)) => output.sync().map_err(|error| {
                let what = format!("cannot finish {path} (syncing it; {})", output.fate());
                self.fail(MediaError::io(what, error))
            }),
            other => {
                self.state = other;
                Ok(())
            }
        }
    }
}

impl Media for FileMedia {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        let direction = match self.state {
            State::Reading(_) => Direction::Restore,
            _ => Direction::Backup,
        };
        let kinds = [DeviceKind::PipeLike, DeviceKind::DiskLike];
        progress::check(config, direction, &kinds, &self.path.display()).map_err(|error| self.fail(error))?;
        self.random_access = config.features.contains(Features::RANDOM_ACCESS);
        self.progress.begin(config);
        if self.random_access
            && let State::Reading(file) = &self.state
        {
            // Not the length in its metadata, which is 0 for a block device.
            let end = rustix::fs::seek(file, SeekFrom::End(0)).map_err(|error| {
                MediaError::io(format!("cannot find the end of {}", self.path.display()), error.into())
                    .with_remedy("a disk-like set needs a file or a block device")
            });
            self.cursor = Cursor::at_beginning(end.map_err(|error| self.fail(error))?);
        }
        Ok(())
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.output("a Write")?;
        if self.random_access {
            Cursor::check(position, data.len()).map_err(|error| self.fail(error))?;
        }
        let output = self.output("a Write")?;
        let mut file = output.file();
        let stored = checkpoint(Step::Write).map_err(|error| (0, error)).and_then(|()| {
            store(data, |done, rest| match self.random_access {
                true => file.write_at(rest, position + done as u64),
                false => file.write(rest),
            })
        });
        match stored {
            Ok(()) => {
                self.bytes += data.len() as u64;
                self.cursor.written(position, data.len());
                self.progress.written();
                Ok(())
            }
            Err((done, error)) => {
                let offset = if self.random_access { position } else { self.bytes } + done as u64;
                let path = self.path.display();
                let what = format!("cannot write to {path} at byte {offset} ({})", output.fate());
                self.bytes += done as u64;
                Err(self.fail(MediaError::io(what, error).with_bytes(done)))
            }
        }
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        let (mut file, restore) = match &self.state {
            State::Reading(file) => (file, true),
            State::Writing(output) if self.random_access => (output.file(), false),
            State::Writing(_) => {
                return Err(MediaError::not_supported("a Read in a backup")
                    .with_remedy(format!("open {} with FileMedia::open for a restore", self.path.display())));
            }
            State::Done => return Err(self.too_late("a Read")),
            State::Failed(first) => return Err(self.failed_before(first)),
        };
        if self.random_access {
            Cursor::check(position, buffer.len()).map_err(MediaError::recoverable)?;
        }
        let filled = fill(buffer, |done, rest| match self.random_access {
            true => file.read_at(rest, position + done as u64),
            false => file.read(rest),
        });
        let (done, error) = match filled {
            Ok(done) => (done, None),
            Err((done, error)) => (done, Some(error)),
        };
        let offset = if self.random_access { position } else { self.bytes };
        if restore {
            self.bytes += done as u64;
        }
        match error {
            None => {
                self.cursor.read(position, done);
                Ok(done)
            }
            Some(error) => {
                let what = format!("cannot read {} at byte {}", self.path.display(), offset + done as u64);
                Err(self.fail(MediaError::io(what, error).with_bytes(done)))
            }
        }
    }

    /// Syncs the data. In a restore, and after Complete, there is nothing to be synced.
    fn flush(&mut self) -> Result<(), MediaError> {
        let output = match &self.state {
            State::Reading(_) | State::Done => return Ok(()),
            State::Writing(output) => output,
            State::Failed(first) => return Err(self.failed_before(first)),
        };
        match output.sync() {
            Ok(()) => {
                self.progress.flushed();
                Ok(())
            }
            Err(error) => {
                let path = self.path.display();
                let what = format!("cannot sync {path} after {} bytes ({})", self.bytes, output.fate());
                Err(self.fail(MediaError::io(what, error)))
            }
        }
    }

    /// Commits, whether Complete was agreed on or not. In a restore, and the second time, there is nothing to be done.
    fn complete(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Failed(first) => Err(self.failed_before(first)),
            _ => self.commit(),
        }
    }

    /// Succeeds unless a failure made the media useless.
    fn clear_error(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Failed(first) => Err(self.failed_before(first)),
            _ => Ok(()),
        }
    }

    /// GetPosition and SetPosition of disk-like sets, and Discard in a backup.
    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        match (code, &self.state) {
            (_, State::Failed(first)) => Err(self.failed_before(first)),
            (CommandCode::GET_POSITION, _) if self.random_access => Ok(self.cursor.position),
            (CommandCode::SET_POSITION, _) if self.random_access => self.cursor.seek(size, position),
            (CommandCode::DISCARD, State::Writing(output)) => {
                self.state = State::Failed(format!("the server discarded the backup ({})", output.fate()));
                Ok(0)
            }
            _ => Err(MediaError::not_supported(code)),
        }
    }

    fn close(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Done => Ok(()),
            State::Failed(first) => Err(self.failed_before(first)),
            State::Reading(_) => {
                self.state = State::Done;
                Ok(())
            }
            State::Writing(output) => match self.progress.judge_close() {
                Ok(()) => self.commit(),
                Err(unproven) => {
                    let (path, bytes, fate) = (self.path.display(), self.bytes, output.fate());
                    let what = format!(
                        "the server closed the device {unproven}, so {path} is not complete after {bytes} bytes ({fate})"
                    );
                    let error = MediaError::new(CompletionCode::IO_DEVICE, what)
                        .with_remedy("look in the server's error log why it ended the backup");
                    Err(self.fail(error))
                }
            },
        }
    }
}
