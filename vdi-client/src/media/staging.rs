//! A directory on its way to its name: its files are written unnamed (or in a hidden directory), synced, gathered in a hidden
//! directory, and that takes the place of the target in one step.
//!
//! # Invariants
//!
//! 1. The target is at every moment what it was before, or the complete new directory; the one step is a rename, or, where an
//!    old set has to go, the exchange of the two directories.
//! 2. Nothing is ever deleted but media of a volume set, and directories that are empty then.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use vdi_proto::completion::CompletionCode;

use super::error::MediaError;
use super::lock::TargetLock;
use super::partial::{CommitError, Naming};
use super::places::{
    copy_permissions, open_directory, open_unnamed, proc_path, refuse_dangling, split, sync_if_possible,
    with_hidden_name,
};
use super::steps::{Step, checkpoint};
use super::{special, stale};

/// Descriptors that a commit, or clearing up, has open at a time beside the media: the hidden directory and its parent, and a
/// directory that is listed, twice.
const COMMIT_NEEDS: usize = 4;

/// The name of a medium's file.
pub(super) fn medium_name(number: usize) -> String {
    format!("medium-{number:03}")
}

/// The number of the medium whose file has this name.
pub(super) fn medium_number(name: &str) -> Option<usize> {
    let number = name.strip_prefix("medium-")?.parse().ok().filter(|number| *number > 0)?;
    (medium_name(number) == name).then_some(number)
}

/// The numbers of the media in a directory, in order, and the name of something else that is there.
pub(super) fn list_media(directory: &File) -> io::Result<(Vec<usize>, Option<OsString>)> {
    let mut media = Vec::new();
    let mut foreign = None;
    // A directory of its own: reading moves its position.
    let again =
        rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::new(again)? {
        let name: CString = entry?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let number = name.to_str().ok().and_then(medium_number);
        let found = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match number.filter(|_| FileType::from_raw_mode(found.st_mode).is_file()) {
            Some(number) => media.push(number),
            None => foreign = Some(OsString::from_vec(name.into_bytes())),
        }
    }
    media.sort_unstable();
    Ok((media, foreign))
}

/// A hidden directory. Dropped, it vanishes with the media in it, unless it has to stay.
#[derive(Debug)]
struct Hidden {
    parent: File,
    name: OsString,
    directory: File,
    stays: bool,
}

impl Hidden {
    fn create(parent: &File, target: &OsStr, mode: Mode) -> io::Result<Hidden> {
        let parent = parent.try_clone()?;
        let (opened, name) = with_hidden_name(target, |name| {
            retry_on_intr(|| rustix::fs::mkdirat(&parent, name, mode))?;
            match open_at(&parent, name) {
                Ok(made) if !stale::lock_named(&parent, name, &made) => Err(Errno::EXIST),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(Errno::EXIST),
                opened => Ok(opened),
            }
        })?;
        match opened {
            Ok(directory) => Ok(Hidden { parent, name, directory, stays: false }),
            Err(error) => {
                let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR);
                Err(error)
            }
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let _ = checkpoint(Step::Remove);
        // After an exchange the name stands for another directory than at first. An error here can be reported to no caller.
        let Ok(directory) = open_at(&self.parent, &self.name) else { return };
        if let Ok((media, _)) = list_media(&directory) {
            for number in media {
                let _ = checkpoint(Step::Remove);
                let _ = rustix::fs::unlinkat(&directory, medium_name(number), AtFlags::empty());
            }
        }
        let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}

fn open_at(parent: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(retry_on_intr(|| rustix::fs::openat(parent, name, flags, Mode::empty()))?))
}

/// A new directory of media. Dropped without a commit, it vanishes.
#[derive(Debug)]
pub(super) struct Staging {
    /// The directory of the target; held open, so that it may be renamed and this process may change its own.
    parent: File,
    target: OsString,
    /// The old set, and its first medium: their permissions are taken over.
    old: Option<Metadata>,
    old_medium: Option<Metadata>,
    /// Descriptors reserved for the commit, so that media cannot take the last ones. Released before anything below is dropped.
    reserve: Vec<File>,
    /// Where the files are, unless they are unnamed.
    hidden: Option<Hidden>,
    files: Vec<File>,
    /// Dropped when the rest is gone.
    lock: Option<TargetLock>,
}

impl Staging {
    /// A directory without media that may later take the place of `path`.
    pub(super) fn create(path: &Path, naming: Naming) -> Result<Staging, MediaError> {
        let cannot = |error| MediaError::io(format!("cannot create {}", path.display()), error);
        // With a slash at its end, a link would be what it points to.
        let path = path.components().as_path();
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_dangling(path)?;
                path.to_owned()
            }
            Err(error) => return Err(cannot(error)),
        };
        let (parent, target) = split(&real).ok_or_else(|| {
            MediaError::new(CompletionCode::IO_DEVICE, format!("cannot create {}", path.display()))
                .with_remedy("name a directory that may be replaced")
        })?;
        let directory = open_directory(parent)?;
        let lock = TargetLock::acquire(&directory, target).map_err(cannot)?.ok_or_else(|| special::taken(path))?;
        // Not before it is locked: the end of another backup may have changed it.
        let old = match fs::symlink_metadata(&real) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(cannot(error)),
        };
        stale::remove_directories(&directory, target, |name, left| {
            if let Ok(parent) = directory.try_clone() {
                drop(Hidden { parent, name, directory: left, stays: false });
            }
        });
        let mut old_medium = None;
        if let Some(found) = &old {
            check_old(&directory, target, path, found)?;
            old_medium = fs::metadata(real.join(medium_name(1))).ok();
        }
        let reserve = (0..COMMIT_NEEDS).map(|_| directory.try_clone()).collect::<Result<_, _>>().map_err(cannot)?;
        let (parent, target, files) = (directory, target.to_owned(), Vec::new());
        let mut staging = Staging { parent, target, old, old_medium, reserve, hidden: None, files, lock: Some(lock) };
        let unnamed = match naming {
            Naming::Unnamed => open_unnamed(&staging.parent, staging.file_mode()).map_err(cannot)?.is_some(),
            Naming::Hidden => false,
        };
        if !unnamed {
            staging.hidden = Some(staging.make_hidden().map_err(cannot)?);
        }
        Ok(staging)
    }

    /// Creates a medium, empty.
    pub(super) fn create_medium(&self, number: usize) -> io::Result<File> {
        checkpoint(Step::AddFile)?;
        let mode = self.file_mode();
        let file = match &self.hidden {
            Some(hidden) => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let name = medium_name(number);
                File::from(retry_on_intr(|| rustix::fs::openat(&hidden.directory, &name, flags, mode))?)
            }
            None => open_unnamed(&self.parent, mode)?.ok_or(ErrorKind::Unsupported)?,
        };
        if let Some(old) = &self.old_medium {
            copy_permissions(&file, old)?;
        }
        Ok(file)
    }

    /// Keeps the next medium for the commit, in the order of their numbers.
    pub(super) fn keep(&mut self, medium: File) {
        self.files.push(medium);
    }

    /// Where there is an old set, its permissions are copied; until then no other user has access.
    fn file_mode(&self) -> Mode {
        Mode::from_raw_mode(if self.old.is_some() && self.old_medium.is_some() { 0o600 } else { 0o666 })
    }

    fn make_hidden(&self) -> io::Result<Hidden> {
        checkpoint(Step::Stage)?;
        let mode = Mode::from_raw_mode(if self.old.is_some() { 0o700 } else { 0o777 });
        let hidden = Hidden::create(&self.parent, &self.target, mode)?;
        if let Some(old) = &self.old {
            copy_permissions(&hidden.directory, old)?;
        }
        Ok(hidden)
    }

    /// Puts the directory into its place: its files are made durable, get their names, the directory is made durable, takes the
    /// target's place, and that is made durable. What was there before is removed then. The lock on the target is still held.
    pub(super) fn commit(mut self) -> Result<Option<TargetLock>, CommitError> {
        let failed = |doing, in_place| move |source| CommitError { doing, in_place, source };
        for file in &self.files {
            checkpoint(Step::SyncFile).and_then(|()| file.sync_all()).map_err(failed("syncing its media", false))?;
        }
        self.reserve.clear();
        let mut hidden = match self.hidden.take() {
            Some(hidden) => hidden,
            None => self.gather().map_err(failed("linking its media into a directory", false))?,
        };
        checkpoint(Step::SyncStage)
            .and_then(|()| sync_if_possible(&hidden.directory))
            .map_err(failed("syncing the directory of its media", false))?;
        checkpoint(Step::Rename)
            .and_then(|()| self.replace_target(&hidden))
            .map_err(failed("putting its directory into place", false))?;
        checkpoint(Step::SyncDirectory).and_then(|()| sync_if_possible(&self.parent)).map_err(|source| {
            // A crash might bring the old set back to its name: what is there then has to be whole.
            hidden.stays = true;
            failed("syncing the directory above it; an old set is kept under a hidden name", true)(source)
        })?;
        Ok(self.lock.take())
    }

    /// Gives the unnamed files their names in a hidden directory.
    fn gather(&self) -> io::Result<Hidden> {
        let hidden = self.make_hidden()?;
        for (index, file) in self.files.iter().enumerate() {
            checkpoint(Step::Link)?;
            let (unnamed, name) = (proc_path(file), medium_name(index + 1));
            retry_on_intr(|| rustix::fs::linkat(CWD, &unnamed, &hidden.directory, &name, AtFlags::SYMLINK_FOLLOW))?;
        }
        Ok(hidden)
    }

    /// The one step.
    fn replace_target(&self, hidden: &Hidden) -> io::Result<()> {
        match open_at(&self.parent, &self.target) {
            Ok(old) => {
                // Another process may have put something there since.
                refuse_foreign(&old)?;
                exchange(&self.parent, &hidden.name, &self.target)
            }
            // What is no directory by now is not replaced by one: the system refuses that.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                let renamed =
                    retry_on_intr(|| rustix::fs::renameat(&self.parent, &hidden.name, &self.parent, &self.target));
                renamed.map_err(io::Error::from)
            }
            Err(error) => Err(error),
        }
    }
}

/// Checks that what is at the target may be replaced.
fn check_old(parent: &File, target: &OsStr, path: &Path, found: &Metadata) -> Result<(), MediaError> {
    let path = path.display();
    let cannot = |error| MediaError::io(format!("cannot create {path}"), error);
    rustix::fs::accessat(parent, target, Access::WRITE_OK, AtFlags::empty()).map_err(|error| {
        MediaError::io(format!("{path} exists and may not be replaced"), error.into())
            .with_remedy("permit this user to write to it, remove it, or choose another name")
    })?;
    if parent.metadata().map_err(cannot)?.dev() != found.dev() {
        let what = format!("{path} may not be replaced: a file system is mounted there");
        return Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("name a directory in it"));
    }
    let refused = |error, remedy| MediaError::io(format!("{path} may not be replaced"), error).with_remedy(remedy);
    let set =
        open_at(parent, target).map_err(|error| refused(error, "name a directory, and one that this user may read"))?;
    refuse_foreign(&set)
        .map_err(|error| refused(error, "choose another directory, or move what is in that one elsewhere"))?;
    probe_exchange(parent, target).map_err(cannot)
}

fn exchange(parent: &File, one: &OsStr, other: &OsStr) -> io::Result<()> {
    let exchanged = retry_on_intr(|| rustix::fs::renameat_with(parent, one, parent, other, RenameFlags::EXCHANGE));
    exchanged.map_err(|error| match error {
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => io::Error::new(
            ErrorKind::Unsupported,
            "this file system cannot exchange two directories in one step; remove the old set first",
        ),
        error => error.into(),
    })
}

/// Checks before the first Write that directories can be exchanged there.
fn probe_exchange(parent: &File, target: &OsStr) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o700);
    let (one, other) = (Hidden::create(parent, target, mode)?, Hidden::create(parent, target, mode)?);
    exchange(parent, &one.name, &other.name)
}

/// A directory that has something else in it than media is no volume set.
fn refuse_foreign(directory: &File) -> io::Result<()> {
    match list_media(directory)? {
        (_, None) => Ok(()),
        (_, Some(foreign)) => Err(io::Error::new(
            ErrorKind::DirectoryNotEmpty,
            format!("it is no volume set: it has {} in it", foreign.display()),
        )),
    }
}
