//! Standard input and output as media, and the check that a target is not what this process prints to.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::stdio;
use vdi_proto::completion::CompletionCode;

use super::error::MediaError;
use super::special;

/// What the two are called, in errors, too.
pub(super) const STDIN: &str = "/dev/stdin";
pub(super) const STDOUT: &str = "/dev/stdout";

static STDIN_TAKEN: AtomicBool = AtomicBool::new(false);
static STDOUT_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes standard output for a backup: descriptor 1 leads to standard error from then on.
pub(super) fn take_stdout() -> Result<File, MediaError> {
    let path = Path::new(STDOUT);
    let file = duplicate(&STDOUT_TAKEN, io::stdout().as_fd(), path, OFlags::RDONLY)?;
    if file.metadata().is_ok_and(|found| is_same(&found, io::stderr().as_fd())) {
        let what = "standard output and standard error lead to the same file, so messages would get into the backup";
        return Err(MediaError::new(CompletionCode::IO_DEVICE, what)
            .with_remedy("redirect standard error to another file, with 2>agent.log for example"));
    }
    if file.metadata().is_ok_and(|found| found.is_file()) {
        special::lock_open(&file, path)?;
    }
    replace(&STDOUT_TAKEN, path, io::stderr().as_fd(), |other| stdio::dup2_stdout(other))?;
    Ok(file)
}

/// Takes standard input for a restore: descriptor 0 leads to nothing from then on.
pub(super) fn take_stdin() -> Result<File, MediaError> {
    let path = Path::new(STDIN);
    let file = duplicate(&STDIN_TAKEN, io::stdin().as_fd(), path, OFlags::WRONLY)?;
    let null = File::open("/dev/null").map_err(|error| MediaError::io("cannot open /dev/null", error))?;
    replace(&STDIN_TAKEN, path, null.as_fd(), |other| stdio::dup2_stdin(other))?;
    Ok(file)
}

fn taken_before(path: &Path) -> MediaError {
    let what = format!("{} serves another device of this process already", path.display());
    MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("give every device a file of its own")
}

/// A descriptor of its own for what may not have been opened for `other_way` only.
fn duplicate(taken: &AtomicBool, stream: BorrowedFd<'_>, path: &Path, other_way: OFlags) -> Result<File, MediaError> {
    if taken.load(Ordering::Relaxed) {
        return Err(taken_before(path));
    }
    let cannot = |error: Errno| MediaError::io(format!("cannot use {}", path.display()), error.into());
    if rustix::fs::fcntl_getfl(stream).map_err(cannot)? & OFlags::RWMODE == other_way {
        return Err(cannot(Errno::BADF).with_remedy("redirect it to a file or a pipe"));
    }
    // Above the three standard ones, which something else might be put to.
    let copy: OwnedFd = fcntl_dupfd_cloexec(stream, 3).map_err(cannot)?;
    special::refuse_terminal(File::from(copy), path)
}

/// Puts another file to a standard descriptor, once in the life of a process.
fn replace(
    taken: &AtomicBool,
    path: &Path,
    other: BorrowedFd<'_>,
    put: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>,
) -> Result<(), MediaError> {
    if taken.swap(true, Ordering::Relaxed) {
        return Err(taken_before(path));
    }
    put(other).map_err(|error| MediaError::io(format!("cannot use {}", path.display()), error.into()))
}

/// Refuses a target that descriptor 1 or 2 leads to: what the process prints would get into the backup, or be lost by it.
pub(super) fn refuse_printed(path: &Path, found: &Metadata) -> Result<(), MediaError> {
    for (name, stream, remedy) in [
        (
            "standard output",
            io::stdout().as_fd(),
            "name another file; programs that can back up to standard output take - for it",
        ),
        ("standard error", io::stderr().as_fd(), "name another file, or redirect standard error to another one"),
    ] {
        if is_same(found, stream) {
            let what =
                format!("{} is where this process's {name} goes, which is no place for a backup", path.display());
            return Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy(remedy));
        }
    }
    Ok(())
}

/// Whether `stream` leads to this file. Devices are not meant: what is printed to /dev/null harms nothing.
fn is_same(found: &Metadata, stream: BorrowedFd<'_>) -> bool {
    let kind = found.file_type();
    let device = kind.is_char_device() || kind.is_block_device();
    !device && rustix::fs::fstat(stream).is_ok_and(|other| (other.st_dev, other.st_ino) == (found.dev(), found.ino()))
}
