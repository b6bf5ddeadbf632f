//! The file of a DISK device of a BACKUP: written beside the old one, or appended to it.
//!
//! # Invariants
//!
//! 1. What was there before a backup stays as it was until the backup is complete and durable. A new medium is written to a file of another
//!    name, which [`Target::commit`] renames. What is appended lies behind the old end, and is cut off again if the target is dropped
//!    before.
//! 2. No file is overwritten that belongs to a database, or that is no backup (but WITH FORMAT).
//! 3. One statement at a time appends to a file: it holds the file's lock (`flock`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, OFlags, flock, linkat};
use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::Medium;

use super::super::clock::Moment;
use super::super::from_files;
use super::super::job::Job;
use super::super::plan::filemark_len;
use super::super::{Engine, Failure, new_set_id};
use crate::catalog;
use crate::tsql::BackupOptions;

/// Bytes of a filemark that come before its list of filemarks, and of an entry.
const FILEMARK_HEAD: usize = 72;
const FILEMARK_ENTRY: usize = 8;

/// Bytes that are read at once.
const PIECE: u64 = 65536;

/// What is done with the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// NOINIT: a set more.
    Append,
    /// INIT: the sets are replaced, the label stays.
    Overwrite,
    /// FORMAT, or there is no medium.
    Format,
}

/// The file of one device.
#[derive(Debug)]
pub(super) struct Target {
    name: String,
    path: PathBuf,
    /// The medium that is there, unless it is formatted anew.
    pub(super) medium: Option<Medium>,
    mode: Mode,
    file: File,
    /// A new medium: the name that it has until it is renamed.
    beside: Option<PathBuf>,
    /// The new medium has that name. It gets it at the end, so that a process that is killed leaves nothing, where the file system can
    /// do that (`O_TMPFILE`).
    named: bool,
    /// Where the next byte goes.
    position: u64,
    committed: bool,
}

impl Target {
    /// Opens the file of a device, and looks at what is in it.
    pub(super) fn open(name: &str, path: PathBuf, options: &BackupOptions, job: &Job) -> Result<Target, Failure> {
        let old = match from_files::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("open", name)(error)),
        };
        let is_empty = match &old {
            Some(file) => file.metadata().map_err(failed("open", name))?.len() == 0,
            None => true,
        };
        let mode = match (options.format == Some(true) || is_empty, options.init == Some(true)) {
            (true, _) => Mode::Format,
            (false, true) => Mode::Overwrite,
            (false, false) => Mode::Append,
        };
        let medium = match old.as_ref().filter(|_| mode != Mode::Format) {
            Some(file) => Some(inspect(file, name, job)?),
            None => None,
        };
        let mut target = match mode {
            Mode::Append => Target::append(name, path, options, medium)?,
            Mode::Overwrite | Mode::Format => Target::beside(name, path, old.as_ref(), medium)?,
        };
        target.mode = mode;
        target.check(options)?;
        Ok(target)
    }

    /// The old file, to be written behind its end.
    fn append(name: &str, path: PathBuf, options: &BackupOptions, medium: Option<Medium>) -> Result<Target, Failure> {
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        let file = file.map_err(failed("open", name))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| failed("open", name)(errno.into()))?;
        let position = medium.as_ref().map_or(0, |medium| medium.len);
        let len = file.metadata().map_err(failed("open", name))?.len();
        let name = name.to_owned();
        // A longer file has the beginning of a set whose backup was killed, or something else.
        if position == 0 || position != len {
            let what = format!("its last complete backup set ends at byte {position}, the file has {len} bytes");
            return Err(Failure::NotAppendable { device: name, what });
        }
        if let Some(medium) = &medium {
            let found = medium.label.filemark_len();
            if let Some(requested) = options.block_size.filter(|requested| filemark_len(*requested) != found) {
                return Err(Failure::BlockSize { device: name, found, requested });
            }
            let room = (found as usize).saturating_sub(FILEMARK_HEAD) / FILEMARK_ENTRY;
            if medium.filemarks.len() + 1 > room {
                let what = format!(
                    "its filemarks have room for {room} earlier ones, and there are {}",
                    medium.filemarks.len()
                );
                return Err(Failure::NotAppendable { device: name, what });
            }
        }
        Ok(Target {
            name,
            path,
            medium,
            mode: Mode::Append,
            file,
            beside: None,
            named: true,
            position,
            committed: false,
        })
    }

    /// A new file beside the old one, with its permissions.
    fn beside(name: &str, path: PathBuf, old: Option<&File>, medium: Option<Medium>) -> Result<Target, Failure> {
        let id = new_set_id()?;
        let mut beside = path.clone().into_os_string();
        beside.push(format!(".{:08x}.new", u32::from_le_bytes([id[0], id[1], id[2], id[3]])));
        let (beside, permissions) = (PathBuf::from(beside), rustix::fs::Mode::from(0o660));
        let parent = path.parent().unwrap_or(Path::new("/"));
        let unnamed = rustix::fs::open(parent, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, permissions);
        let (file, named) = match unnamed {
            Ok(file) => (File::from(file), false),
            Err(_) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::open(&beside, flags, permissions);
                (file.map_err(|errno| failed("open", name)(errno.into()))?.into(), true)
            }
        };
        let (mode, name, beside) = (Mode::Format, name.to_owned(), Some(beside));
        let target = Target { name, path, medium, mode, file, beside, named, position: 0, committed: false };
        if let Some(old) = old {
            let kept = old.metadata().and_then(|old| target.file.set_permissions(old.permissions()));
            kept.map_err(failed("open", &target.name))?;
        }
        Ok(target)
    }

    /// INIT: whether the sets may be replaced.
    fn check(&self, options: &BackupOptions) -> Result<(), Failure> {
        let Some(medium) = self.medium.as_ref().filter(|_| self.mode == Mode::Overwrite) else { return Ok(()) };
        if options.skip == Some(true) {
            return Ok(());
        }
        let now = Moment::now()?.date;
        match medium.sets.iter().map(|set| set.start.expiration).max().filter(|expires| *expires > now) {
            Some(expires) => Err(Failure::NotExpired { device: self.name.clone(), expires: expires.to_string() }),
            None => Ok(()),
        }
    }

    /// Whether the set is appended to the medium.
    pub(super) fn appends(&self) -> bool {
        self.mode == Mode::Append
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all_at(bytes, self.position).map_err(failed("write to", &self.name))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Everything written is durable then.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        self.file.sync_all().map_err(failed("write to", &self.name))
    }

    /// What is written and durable becomes the medium.
    pub(super) fn commit(mut self) -> Result<(), Failure> {
        if let Some(beside) = &self.beside {
            if !self.named {
                // The path of an unnamed file, by which it gets a name: open(2).
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, unnamed, CWD, beside, AtFlags::SYMLINK_FOLLOW)
                    .map_err(|errno| failed("rename", &self.name)(errno.into()))?;
                self.named = true;
            }
            std::fs::rename(beside, &self.path).map_err(failed("rename", &self.name))?;
            self.committed = true;
            let parent = self.path.parent().unwrap_or(Path::new("/"));
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed("rename", &self.name))?;
        }
        self.committed = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.committed || !self.named {
            return;
        }
        let cut_off = || {
            self.file.set_len(self.medium.as_ref().map_or(0, |medium| medium.len)).and_then(|()| self.file.sync_all())
        };
        // There is no one to tell: the statement has failed for another reason.
        let _ = self.beside.as_ref().map_or_else(cut_off, std::fs::remove_file);
    }
}

/// Where the file of a device is: a relative path begins at the data folder. The folder that it is in exists, and it is no file of a
/// database, nor of the catalog.
pub(super) fn place(engine: &Engine, name: &str) -> Result<PathBuf, Failure> {
    find(engine, name).map_err(failed("open", name))
}

fn find(engine: &Engine, name: &str) -> io::Result<PathBuf> {
    let path = engine.folder.path().join(name);
    let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
    };
    let path = parent.canonicalize()?.join(file);
    let busy = |what: String| Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
    let folder = engine.folder.path().canonicalize()?;
    if path.parent() == Some(&*folder) && file.to_string_lossy().starts_with("catalog.") {
        return busy(format!("it is a file of the catalog {}", catalog::FILE_NAME));
    }
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    for row in engine.folder.catalog().databases().map_err(io::Error::other)? {
        if row.files.iter().any(|file| file.path == path || file.path == real) {
            return busy(format!("it is a file of the database '{}'", row.name));
        }
    }
    Ok(path)
}

/// Reads the headers of a medium.
fn inspect(file: &File, name: &str, job: &Job) -> Result<Medium, Failure> {
    let len = file.metadata().map_err(failed("read", name))?.len();
    let (mut inspector, mut at) = (Inspector::headers_only(), 0);
    let mut buffer = vec![0; PIECE as usize];
    let broken = |source| Failure::Medium { device: name.to_owned(), database: String::new(), source };
    while at < len {
        if job.is_over() {
            return Err(Failure::Cancelled);
        }
        let piece = &mut buffer[..PIECE.min(len - at) as usize];
        file.read_exact_at(piece, at).map_err(failed("read", name))?;
        at += piece.len() as u64;
        match inspector.read(piece) {
            Ok(()) => at += inspector.skip(len - at),
            // What follows a complete set is no part of the medium.
            Err(_) if inspector.medium().len > 0 => break,
            Err(error) => return Err(broken(error)),
        }
    }
    if inspector.medium().filemarks.is_empty() {
        // Not even a label.
        inspector.finish().map_err(broken)?;
    }
    if let Some(source) = inspector.take_damages().into_iter().next() {
        return Err(broken(source));
    }
    Ok(inspector.into_medium())
}

fn failed(action: &'static str, name: &str) -> impl Fn(io::Error) -> Failure {
    let path = name.to_owned();
    move |source| Failure::DiskTarget { action, path: path.clone(), source }
}
