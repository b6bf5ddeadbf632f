//! Opening a runtime directory, and which are trusted.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Access, DirError, Options, RuntimeDir, own_uid, owner_and_mode, path_of_descriptor, this_user};
use crate::ipc::error::{Operation, SystemError, Untrusted};

impl RuntimeDir {
    /// Opens the runtime directory; with `create` it is created when missing.
    ///
    /// # Errors
    /// [`DirError`].
    pub fn open(options: &Options, create: bool) -> Result<RuntimeDir, DirError> {
        // By its components: a slash at the end would make the system follow a link that is refused below.
        let path: PathBuf = options.runtime_dir().components().collect();
        validate_parents(&path, &options.access)?;
        if create {
            create_missing(&path)?;
        }
        let dir = open_directory(&path)?;
        validate_directory(&path, &dir, &options.access)?;
        Ok(RuntimeDir { path, dir, threads: Mutex::new(()) })
    }
}

/// Checks the directories above. Their owners can take them away, which is an error for this process. But no link of an
/// untrusted user and no directory that everybody can rename may lead to another runtime directory.
fn validate_parents(path: &Path, access: &Access) -> Result<(), Untrusted> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        // What is missing, or may not be inspected, is reported when the runtime directory is opened.
        let Ok(found) = std::fs::symlink_metadata(above) else { continue };
        if found.is_symlink() && !access.trusts_owner(found.uid()) {
            return Err(Untrusted::new(
                format!(
                    "the way to the runtime directory {} leads over {}, a link of uid {}, whom this process does not trust",
                    path.display(),
                    above.display(),
                    found.uid()
                ),
                "set VDI_RUNTIME_DIR to a directory of your own, without that link",
            ));
        }
        let Ok(found) = std::fs::metadata(above) else { continue };
        if found.is_dir() && found.mode() & 0o002 != 0 && found.mode() & 0o1000 == 0 {
            return Err(Untrusted::new(
                format!(
                    "{}, above the runtime directory {}, is writable by everybody (mode {:o}) without the sticky bit",
                    above.display(),
                    path.display(),
                    found.mode() & 0o7777
                ),
                "chmod it to 1777, or set VDI_RUNTIME_DIR to a directory of your own",
            ));
        }
    }
    Ok(())
}

fn create_missing(path: &Path) -> Result<(), DirError> {
    match create_private(path) {
        Ok(()) => Ok(()),
        // Something that is no directory is refused when it is opened.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ACCESS) => Err(DirError::Untrusted(Untrusted::new(
            format!(
                "the runtime directory {} may not be created by {} in {}",
                path.display(),
                this_user(),
                above(path)
            ),
            "set VDI_RUNTIME_DIR to a directory that this user can create or write to",
        ))),
        Err(error) => Err(system("create", path, error)),
    }
}

/// Creates the missing ones of a directory and those above it, with mode 0700 whatever the umask is.
fn create_private(path: &Path) -> std::io::Result<()> {
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && std::fs::symlink_metadata(dir).is_err())
        .collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            created => created?,
        }
        // A umask can have taken this user's own permissions away. Opened first, so that it is not a link by now.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::open(dir, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&made)?;
        if stat.st_mode & 0o7777 != 0o700 && stat.st_uid == own_uid() {
            rustix::fs::chmod(path_of_descriptor(&made), Mode::RWXU)?;
        }
    }
    Ok(())
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, DirError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => DirError::NotFound { path: path.to_owned() },
        Errno::LOOP | Errno::NOTDIR => DirError::Untrusted(Untrusted::new(
            format!("the runtime directory {} is no directory but a link or a file", path.display()),
            "set VDI_RUNTIME_DIR to a directory of your own",
        )),
        Errno::ACCESS | Errno::PERM => DirError::Untrusted(Untrusted::new(closed(path), open_up(path))),
        errno => system("open", path, errno),
    })
}

fn system(action: &str, path: &Path, source: impl Into<std::io::Error>) -> DirError {
    let action = format!("{action} the runtime directory {}", path.display());
    DirError::System(SystemError::of(Operation::Directory, action, source))
}

/// The lowest directory above a path that is there, with its owner and mode. Where what is below it cannot be inspected, it is
/// the one that may not be searched.
fn above(path: &Path) -> String {
    let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    let found = above.find(|above| std::fs::symlink_metadata(above).is_ok()).unwrap_or(Path::new("."));
    format!("{}{}", found.display(), owner_and_mode(found))
}

/// What to do where a process may not use what belongs to a user: that user's process is the other side, or it is not.
pub(super) fn both_sides(owner: u32) -> String {
    format!(
        "run both sides as the same user, or set VDI_ALLOW_UID={} for the process of uid {owner}, and VDI_ALLOW_UID={owner} \
         for this one",
        own_uid()
    )
}

/// What to do about a runtime directory that is closed to this user.
pub(super) fn open_up(path: &Path) -> String {
    let owner = std::fs::symlink_metadata(path).map(|found| found.uid()).ok();
    let remedy = "run as the same user as the other side, or have its owner give this user read and search permission (chmod \
                  0755, or 2770 where both sides are of its group)";
    match owner.filter(|owner| *owner != own_uid()) {
        Some(owner) => format!(
            "{remedy}; where the other side runs as uid {owner}, set VDI_ALLOW_UID={owner} for this process and \
             VDI_ALLOW_UID={} for that",
            own_uid()
        ),
        None => remedy.to_owned(),
    }
}

/// Why a directory may not be opened.
fn closed(path: &Path) -> String {
    let (shown, user) = (path.display(), this_user());
    match owner_and_mode(path) {
        of if of.is_empty() => {
            format!("a directory above the runtime directory {shown}, {}, may not be searched by {user}", above(path))
        }
        of => format!("the runtime directory {shown}{of} may not be read by {user}"),
    }
}

fn validate_directory(path: &Path, dir: &OwnedFd, access: &Access) -> Result<(), DirError> {
    let stat = rustix::fs::fstat(dir).map_err(|errno| system("inspect", path, errno))?;
    let (owner, group, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
    let refuse = |what: String, remedy: String| {
        Err(DirError::Untrusted(Untrusted::new(format!("the runtime directory {} {what}", path.display()), remedy)))
    };
    if !access.trusts_owner(owner) {
        return refuse(
            format!("belongs to uid {owner}, this process runs as {}", this_user()),
            format!(
                "set VDI_ALLOW_UID={owner} for this process to trust that user, or set VDI_RUNTIME_DIR to a directory of \
                 your own"
            ),
        );
    }
    // With the sticky bit nobody can remove or rename what belongs to others.
    if mode & 0o1000 != 0 {
        return Ok(());
    }
    if mode & 0o002 != 0 {
        return refuse(
            format!("is writable by everybody (mode {mode:o}) without the sticky bit"),
            "chmod it to 0700, to 2770 for a group that VDI_ALLOW_GID names, or to 1777 where several users share it"
                .to_owned(),
        );
    }
    if mode & 0o020 != 0 && !access.gids.contains(&group) {
        return refuse(
            format!("is writable by the group {group} (mode {mode:o}) without the sticky bit"),
            format!("set VDI_ALLOW_GID={group} for both sides to trust that group, or chmod the directory to 0700"),
        );
    }
    Ok(())
}
