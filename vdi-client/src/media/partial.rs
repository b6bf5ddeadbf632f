//! A file on its way to its name: written unnamed (or under a hidden name), synced, then renamed over the target.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::hash::BuildHasher;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::MediaError;
use super::stale;
#[cfg(test)]
pub(super) use super::tests::checkpoint;

/// The steps on the way to a committed file; tests watch them and have them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Write,
    /// Of a volume set: a file for another medium.
    AddFile,
    SyncFile,
    /// Of a volume set: the hidden directory.
    Stage,
    Link,
    /// Of a volume set: the hidden directory becomes durable.
    SyncStage,
    Rename,
    SyncDirectory,
    /// Of a volume set: a file of the old one, or of one that failed, is removed. Tests are killed here, nothing fails.
    Remove,
}

#[cfg(not(test))]
#[inline]
pub(super) fn checkpoint(_step: Step) -> io::Result<()> {
    Ok(())
}

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
    /// A pipe, a terminal, a device: there is nothing to be renamed.
    Special(File),
}

impl Output {
    /// Opens what `path` stands for; nothing that is there already is changed, apart from special files being opened.
    pub(super) fn create(path: &Path, naming: Naming) -> Result<Output, MediaError> {
        let cannot = |error| MediaError::io(format!("cannot create {}", path.display()), error);
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(is_directory(path)),
            Ok(found) if found.is_file() => {
                let real = path.canonicalize().map_err(cannot)?;
                Partial::create(&real, Some(&found), naming).map(Output::Partial)
            }
            Ok(found) => {
                // Only what has positions can be read back; a pipe opened both ways would wait for nobody.
                let access = if found.file_type().is_block_device() { OFlags::RDWR } else { OFlags::WRONLY };
                let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
                let opened = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
                Ok(Output::Special(File::from(opened.map_err(|error| cannot(error.into()))?)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_dangling(path)?;
                if path.as_os_str().as_bytes().ends_with(b"/") {
                    return Err(is_directory(path));
                }
                Partial::create(path, None, naming).map(Output::Partial)
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

    /// Puts a file into its place, and makes what was written durable.
    pub(super) fn commit(self) -> Result<(), CommitError> {
        match self {
            Output::Partial(partial) => partial.commit(),
            Output::Special(_) => {
                self.sync().map_err(|source| CommitError { doing: "syncing it", in_place: false, source })
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

/// Refuses a symbolic link to what does not exist.
pub(super) fn refuse_dangling(path: &Path) -> Result<(), MediaError> {
    let Ok(link) = fs::read_link(path) else { return Ok(()) };
    let what =
        format!("cannot create {}: it is a symbolic link to {}, which does not exist", path.display(), link.display());
    Err(MediaError::io(what, ErrorKind::NotFound.into()).with_remedy("name what it points to, or remove the link"))
}

/// The directory that a path is in, and its name there; `None` for what has no name, as `..`.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.file_name().map(|name| (parent, name))
}

pub(super) fn open_directory(path: &Path) -> Result<File, MediaError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
        .map(File::from)
        .map_err(|error| MediaError::io(format!("cannot open the target's directory {}", path.display()), error.into()))
}

pub(super) fn is_directory(path: &Path) -> MediaError {
    MediaError::io(format!("cannot open {}", path.display()), ErrorKind::IsADirectory.into())
        .with_remedy("name a file, not a directory")
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
}

impl Partial {
    /// A new, empty file that may later take the place of `path`, where at present `old` is.
    fn create(path: &Path, old: Option<&Metadata>, naming: Naming) -> Result<Partial, MediaError> {
        let Some((parent, target)) = split(path) else { return Err(is_directory(path)) };
        let cannot = |what: &str, error| MediaError::io(format!("{what} {}", parent.display()), error);
        let directory = open_directory(parent)?;
        if old.is_some() {
            rustix::fs::accessat(&directory, target, Access::WRITE_OK, AtFlags::empty()).map_err(|error| {
                MediaError::io(format!("{} exists and may not be overwritten", path.display()), error.into())
                    .with_remedy("permit this user to write to it, remove it, or choose another name")
            })?;
        }

        stale::remove_files(&directory, target);

        // Where there is an old file, its permissions are taken over below; until then nobody else gets at the new one.
        let mode = if old.is_some() { Mode::from_raw_mode(0o600) } else { Mode::from_raw_mode(0o666) };
        let unnamed = match naming {
            Naming::Unnamed => open_unnamed(&directory, mode),
            Naming::Hidden => Ok(None),
        };
        let partial = match unnamed.map_err(|error| cannot("cannot create a file in", error))? {
            Some(file) => {
                stale::claim(&file);
                Partial { file, directory, target: target.to_owned(), hidden: None }
            }
            None => {
                let (file, hidden) = with_hidden_name(target, |name| {
                    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    let file = retry_on_intr(|| rustix::fs::openat(&directory, name, flags, mode)).map(File::from)?;
                    if stale::claim_named(&directory, name, &file) { Ok(file) } else { Err(Errno::EXIST) }
                })
                .map_err(|error| cannot("cannot create a file in", error))?;
                Partial { file, directory, target: target.to_owned(), hidden: Some(hidden) }
            }
        };
        if let Some(old) = old {
            take_over(&partial.file, old).map_err(|error| {
                MediaError::io(format!("cannot give the new {} the permissions of the old", path.display()), error)
            })?;
        }
        Ok(partial)
    }

    /// Puts the file into its place: first its content is made durable, then it gets its name, then that is made durable.
    pub(super) fn commit(mut self) -> Result<(), CommitError> {
        let failed = |doing, in_place| move |source| CommitError { doing, in_place, source };
        checkpoint(Step::SyncFile).and_then(|()| self.file.sync_all()).map_err(failed("syncing its content", false))?;

        let hidden = match &self.hidden {
            Some(hidden) => hidden.clone(),
            None => checkpoint(Step::Link)
                .and_then(|()| self.link())
                .map_err(failed("linking it into its directory", false))?,
        };
        checkpoint(Step::Rename)
            .and_then(|()| {
                retry_on_intr(|| rustix::fs::renameat(&self.directory, &hidden, &self.directory, &self.target))
                    .map_err(io::Error::from)
            })
            .map_err(failed("renaming it to its final name", false))?;
        self.hidden = None;

        checkpoint(Step::SyncDirectory)
            .and_then(|()| sync_if_possible(&self.directory))
            .map_err(failed("syncing its directory", true))
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

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Nobody is left who could be told.
            let _ = rustix::fs::unlinkat(&self.directory, hidden, AtFlags::empty());
        }
    }
}

/// A file without a name in `directory`; `None` where it could not be made or not be given a name later.
pub(super) fn open_unnamed(directory: &File, mode: Mode) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match retry_on_intr(|| rustix::fs::openat(directory, ".", flags, mode)) {
        Ok(file) => {
            let file = File::from(file);
            // Without /proc it could not be linked. Learning that after hours of writing would be too late.
            let linkable = match fs::metadata(proc_path(&file)) {
                Ok(seen) => {
                    let own = file.metadata()?;
                    (seen.dev(), seen.ino()) == (own.dev(), own.ino())
                }
                Err(error) => match error.kind() {
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory => false,
                    _ => return Err(error),
                },
            };
            Ok(linkable.then_some(file))
        }
        // File systems and kernels without O_TMPFILE say so in many ways.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn proc_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The longest part of the target's name that a hidden name repeats, in bytes.
const NAME_PART: usize = 64;

/// What the hidden names for `target` begin with.
pub(super) fn hidden_prefix(target: &OsStr) -> Vec<u8> {
    let target = target.as_bytes();
    let mut end = target.len().min(NAME_PART);
    // Never cut through a character of UTF-8: some file systems refuse such names.
    while end > 0 && target.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
        end -= 1;
    }
    [b".", target.get(..end).unwrap_or_default(), b".vdi-partial-"].concat()
}

/// Calls `make` with hidden names for `target` until one is free.
pub(super) fn with_hidden_name<T>(
    target: &OsStr,
    mut make: impl FnMut(&OsStr) -> Result<T, Errno>,
) -> io::Result<(T, OsString)> {
    let prefix = hidden_prefix(target);
    let mut last = Errno::EXIST;
    for _ in 0..16 {
        let mut name = prefix.clone();
        name.extend_from_slice(format!("{:016x}", RandomState::new().hash_one(0)).as_bytes());
        let name = OsString::from_vec(name);
        match make(&name) {
            Ok(made) => return Ok((made, name)),
            Err(Errno::EXIST) => last = Errno::EXIST,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}

/// Gives `file` the owner, group and permissions of `old`, as far as this process may. Where the group cannot be kept, it
/// gets no more permissions than everybody else.
pub(super) fn take_over(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    // Of a directory also that its files get its group, and who may remove them.
    let bits = if old.is_dir() { 0o7777 } else { 0o777 };
    let mut mode = old.mode() & bits;
    let owned =
        (new.uid(), new.gid()) == (old.uid(), old.gid()) || fchown(file, Some(old.uid()), Some(old.gid())).is_ok();
    if !owned && new.gid() != old.gid() && fchown(file, None, Some(old.gid())).is_err() {
        mode = for_another_group(mode);
    }
    // Not where it is right already: file systems without permissions refuse to change them.
    if new.mode() & bits == mode { Ok(()) } else { file.set_permissions(Permissions::from_mode(mode)) }
}

/// `mode` for a file whose group had to change: no more for the new group than for everybody else.
pub(super) fn for_another_group(mode: u32) -> u32 {
    mode & (0o707 | (mode & 0o007) << 3)
}

/// Syncs what may be something that cannot be synced, as pipes and some network file systems' directories cannot.
pub(super) fn sync_if_possible(file: &File) -> io::Result<()> {
    match file.sync_all().map_err(|error| (Errno::from_io_error(&error), error)) {
        Ok(()) | Err((Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::ROFS), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}
