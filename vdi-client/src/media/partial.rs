//! A file on its way to its name: written unnamed (or under a hidden name), synced, then renamed over the target.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use vdi_proto::completion::CompletionCode;

use super::error::MediaError;
use super::lock::TargetLock;
use super::places::{
    copy_permissions, is_directory, open_directory, open_unnamed, proc_path, refuse_dangling, split, sync_if_possible,
    with_hidden_name,
};
use super::steps::{Step, checkpoint};
use super::{special, stale, standard};

/// What becomes of the data of a backup that is not committed.
pub(super) const DISCARDED: &str = "the new data was discarded, and what was there before was kept";

/// How the new file is named until it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Without a name where the file system can do that, else under a hidden one.
    Unnamed,
    /// Under a hidden name.
    #[cfg_attr(not(test), allow(dead_code, reason = "what file systems without O_TMPFILE lead to; tests ask for it"))]
    Hidden,
}

/// What a backup is written to.
#[derive(Debug)]
pub(super) enum Output {
    /// A regular file, not in place yet.
    Partial(Partial),
    /// A pipe or a device: there is nothing to be renamed.
    Special(File),
}

impl Output {
    /// Opens what `path` stands for; nothing that is there already is changed, apart from special files being opened.
    pub(super) fn create(path: &Path, naming: Naming, fifo_timeout: Duration) -> Result<Output, MediaError> {
        let cannot = |error| MediaError::io(format!("cannot create {}", path.display()), error);
        if path.as_os_str().is_empty() {
            return Err(MediaError::new(CompletionCode::IO_DEVICE, "no file is named")
                .with_remedy("name a file for the backup"));
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(is_directory(path)),
            Ok(found) if found.is_file() => {
                standard::refuse_printed(path, &found)?;
                let real = path.canonicalize().map_err(cannot)?;
                Partial::create(&real, naming).map(Output::Partial)
            }
            Ok(found) => {
                standard::refuse_printed(path, &found)?;
                special::create(path, &found, fifo_timeout).map(Output::Special)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_dangling(path)?;
                if path.as_os_str().as_bytes().ends_with(b"/") {
                    return Err(is_directory(path));
                }
                Partial::create(path, naming).map(Output::Partial)
            }
            Err(error) => Err(cannot(error)),
        }
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Output::Partial(partial) => &partial.file,
            Output::Special(file) => file,
        }
    }

    /// Makes what was written durable, as far as a special file knows what that is.
    pub(super) fn sync(&self) -> io::Result<()> {
        checkpoint(Step::SyncFile)?;
        match self {
            Output::Partial(partial) => partial.file.sync_data(),
            Output::Special(file) => sync_if_possible(file),
        }
    }

    /// Puts a file into its place, and makes what was written durable. The lock on the target is still held.
    pub(super) fn commit(self) -> Result<Option<TargetLock>, CommitError> {
        match self {
            Output::Partial(partial) => partial.commit(),
            Output::Special(_) => {
                let synced = self.sync().map(|()| None);
                synced.map_err(|source| CommitError { doing: "syncing it", in_place: false, source })
            }
        }
    }

    /// What becomes of the data if the work ends now.
    pub(super) fn fate(&self) -> &'static str {
        match self {
            Output::Partial(_) => DISCARDED,
            Output::Special(_) => "what had been written to it cannot be taken back",
        }
    }
}

/// A commit that did not succeed.
#[derive(Debug)]
pub(super) struct CommitError {
    /// What was being done.
    pub(super) doing: &'static str,
    /// Whether the new file had taken the target's place already.
    pub(super) in_place: bool,
    pub(super) source: io::Error,
}

/// A new regular file. Dropped without a commit, it vanishes.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    /// The directory of the target; held open, so that it may be renamed and this process may change its own.
    directory: File,
    target: OsString,
    /// The name that it has at present, if any.
    hidden: Option<OsString>,
    /// Dropped when the rest is gone.
    lock: Option<TargetLock>,
}

impl Partial {
    /// A new, empty file that may later take the place of `path`, where at most a regular file is.
    fn create(path: &Path, naming: Naming) -> Result<Partial, MediaError> {
        let Some((parent, target)) = split(path) else { return Err(is_directory(path)) };
        let cannot = |what: &str, error| MediaError::io(format!("{what} {}", parent.display()), error);
        let directory = open_directory(parent)?;
        let lock = TargetLock::acquire(&directory, target).map_err(|error| cannot("cannot lock a name in", error))?;
        let lock = lock.ok_or_else(|| special::taken(path))?;
        // Not before it is locked: the end of another backup may have changed it.
        let old = match fs::symlink_metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(MediaError::io(format!("cannot create {}", path.display()), error)),
        };
        check_replaceable(&directory, target)
            .map_err(|error| MediaError::io(format!("cannot create {}", path.display()), error))?;
        if old.is_some() {
            rustix::fs::accessat(&directory, target, Access::WRITE_OK, AtFlags::empty()).map_err(|error| {
                MediaError::io(format!("{} exists and may not be overwritten", path.display()), error.into())
                    .with_remedy("permit this user to write to it, remove it, or choose another name")
            })?;
        }

        stale::remove_files(&directory, target);

        // Where there is an old file, its permissions are copied below; until then no other user has access.
        let mode = if old.is_some() { Mode::from_raw_mode(0o600) } else { Mode::from_raw_mode(0o666) };
        let unnamed = match naming {
            Naming::Unnamed => open_unnamed(&directory, mode),
            Naming::Hidden => Ok(None),
        };
        let partial = match unnamed.map_err(|error| cannot("cannot create a file in", error))? {
            Some(file) => {
                stale::lock(&file);
                Partial { file, directory, target: target.to_owned(), hidden: None, lock: Some(lock) }
            }
            None => {
                let (file, hidden) = with_hidden_name(target, |name| {
                    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    let file = retry_on_intr(|| rustix::fs::openat(&directory, name, flags, mode)).map(File::from)?;
                    if stale::lock_named(&directory, name, &file) { Ok(file) } else { Err(Errno::EXIST) }
                })
                .map_err(|error| cannot("cannot create a file in", error))?;
                Partial { file, directory, target: target.to_owned(), hidden: Some(hidden), lock: Some(lock) }
            }
        };
        if let Some(old) = &old {
            copy_permissions(&partial.file, old).map_err(|error| {
                MediaError::io(format!("cannot give the new {} the permissions of the old", path.display()), error)
            })?;
        }
        Ok(partial)
    }

    /// Puts the file into its place: first its content is made durable, then it gets its name, then that is made durable.
    fn commit(mut self) -> Result<Option<TargetLock>, CommitError> {
        let failed = |doing, in_place| move |source| CommitError { doing, in_place, source };
        checkpoint(Step::SyncFile).and_then(|()| self.file.sync_all()).map_err(failed("syncing its content", false))?;

        let hidden = match &self.hidden {
            Some(hidden) => hidden.clone(),
            None => checkpoint(Step::Link)
                .and_then(|()| self.link())
                .map_err(failed("linking it into its directory", false))?,
        };
        checkpoint(Step::Rename)
            .and_then(|()| check_replaceable(&self.directory, &self.target))
            .and_then(|()| {
                retry_on_intr(|| rustix::fs::renameat(&self.directory, &hidden, &self.directory, &self.target))
                    .map_err(io::Error::from)
            })
            .map_err(failed("renaming it to its final name", false))?;
        self.hidden = None;

        checkpoint(Step::SyncDirectory)
            .and_then(|()| sync_if_possible(&self.directory))
            .map_err(failed("syncing its directory", true))?;
        Ok(self.lock.take())
    }

    /// Gives the unnamed file a hidden name.
    fn link(&mut self) -> io::Result<OsString> {
        let unnamed = proc_path(&self.file);
        let ((), hidden) = with_hidden_name(&self.target, |name| {
            let follow = AtFlags::SYMLINK_FOLLOW;
            retry_on_intr(|| rustix::fs::linkat(CWD, &unnamed, &self.directory, name, follow))
        })?;
        self.hidden = Some(hidden.clone());
        Ok(hidden)
    }
}

/// Only a regular file is replaced by one. What it was at first may have changed while the backup was made.
fn check_replaceable(directory: &File, target: &OsStr) -> io::Result<()> {
    match rustix::fs::statat(directory, target, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if !FileType::from_raw_mode(found.st_mode).is_file() => {
            Err(io::Error::new(ErrorKind::AlreadyExists, "what has this name by now is no regular file"))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // An error here can be reported to no caller.
            let _ = rustix::fs::unlinkat(&self.directory, hidden, AtFlags::empty());
        }
    }
}
