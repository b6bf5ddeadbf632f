//! Names and files in a directory: unnamed files, hidden names, permissions.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::hash::BuildHasher;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::error::MediaError;

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

/// A file without a name in `directory`; `None` where it could not be made or not be given a name later.
pub(super) fn open_unnamed(directory: &File, mode: Mode) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match retry_on_intr(|| rustix::fs::openat(directory, ".", flags, mode)) {
        Ok(file) => {
            let file = File::from(file);
            // Without /proc it could not be linked: checked before the first Write.
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
        // File systems and kernels without O_TMPFILE have many errors for it.
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
/// gets no more permissions than all others.
pub(super) fn copy_permissions(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    // Of a directory also the set-group-id and sticky bits.
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

/// `mode` for a file whose group had to change: no more for the new group than for all others.
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
