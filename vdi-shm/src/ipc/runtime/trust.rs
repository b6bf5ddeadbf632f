//! Opening a runtime directory, and which are trusted.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Access, DirError, Options, RuntimeDir, own_uid, path_of_descriptor, this_user};
use crate::ipc::error::{SystemError, Untrusted};

/// What to do about a runtime directory that is closed to a user.
const OPEN_UP: &str = "run as the same user as the other side, or have its owner give this user read and search permission \
                       (chmod 0755)";

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
            return Err(Untrusted {
                what: format!(
                    "the way to the runtime directory {} leads over {}, a link of uid {}, whom this process does not trust",
                    path.display(),
                    above.display(),
                    found.uid()
                ),
                remedy: "set VDI_RUNTIME_DIR to a directory of your own, without that link",
            });
        }
        let Ok(found) = std::fs::metadata(above) else { continue };
        if found.is_dir() && found.mode() & 0o002 != 0 && found.mode() & 0o1000 == 0 {
            return Err(Untrusted {
                what: format!(
                    "{}, above the runtime directory {}, is writable by everybody (mode {:o}) without the sticky bit",
                    above.display(),
                    path.display(),
                    found.mode() & 0o7777
                ),
                remedy: "chmod it to 1777, or set VDI_RUNTIME_DIR to a directory of your own",
            });
        }
    }
    Ok(())
}

fn create_missing(path: &Path) -> Result<(), DirError> {
    match create_private(path) {
        Ok(()) => Ok(()),
        // Something that is no directory is refused when it is opened.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(DirError::Untrusted(Untrusted {
            what: format!("the runtime directory {} may not be created by {}", path.display(), this_user()),
            remedy: "set VDI_RUNTIME_DIR to a directory that this user can create or write to",
        })),
        Err(error) => {
            let action = format!("create the runtime directory {} (set VDI_RUNTIME_DIR to another)", path.display());
            Err(DirError::System(SystemError::new(action, error)))
        }
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

fn open_directory(path: &Path) -> Result<OwnedFd, DirError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => DirError::NotFound { path: path.to_owned() },
        Errno::LOOP | Errno::NOTDIR => DirError::Untrusted(Untrusted {
            what: format!("the runtime directory {} is no directory but a link or a file", path.display()),
            remedy: "set VDI_RUNTIME_DIR to a directory of your own",
        }),
        Errno::ACCESS | Errno::PERM => DirError::Untrusted(Untrusted { what: closed(path), remedy: OPEN_UP }),
        errno => DirError::System(SystemError::new(format!("open the runtime directory {}", path.display()), errno)),
    })
}

/// Why a directory may not be opened.
fn closed(path: &Path) -> String {
    match std::fs::symlink_metadata(path) {
        Ok(found) => format!(
            "the runtime directory {} of uid {} (mode {:o}) may not be read by {}",
            path.display(),
            found.uid(),
            found.mode() & 0o7777,
            this_user()
        ),
        Err(_) => {
            format!("a directory above the runtime directory {} may not be searched by {}", path.display(), this_user())
        }
    }
}

fn validate_directory(path: &Path, dir: &OwnedFd, access: &Access) -> Result<(), DirError> {
    let stat = rustix::fs::fstat(dir)
        .map_err(|errno| SystemError::new(format!("inspect the runtime directory {}", path.display()), errno))?;
    if !access.trusts_owner(stat.st_uid) {
        return Err(DirError::Untrusted(Untrusted {
            what: format!(
                "the runtime directory {} belongs to uid {}, this process runs as {}",
                path.display(),
                stat.st_uid,
                this_user()
            ),
            remedy: "allow that uid, or set VDI_RUNTIME_DIR to a directory of your own",
        }));
    }
    if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 {
        return Err(DirError::Untrusted(Untrusted {
            what: format!(
                "the runtime directory {} is writable by others (mode {:o}) without the sticky bit",
                path.display(),
                stat.st_mode & 0o7777
            ),
            remedy: "chmod it to 0700, or to 1777 where several users share it",
        }));
    }
    Ok(())
}
