//! What is no regular file as a target or a source: named pipes, devices. They are opened, written and read, never replaced.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, IsTerminal};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use vdi_proto::completion::CompletionCode;

use super::error::MediaError;
use super::waiting;
use crate::error::show_duration;

/// How long a named pipe's other end is waited for.
pub(super) const FIFO_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at it.
const INTERVAL: Duration = Duration::from_millis(20);

/// Opens what `found` tells about for a backup.
pub(super) fn create(path: &Path, found: &Metadata, fifo_timeout: Duration) -> Result<File, MediaError> {
    let kind = found.file_type();
    let cannot = |error: Errno| MediaError::io(format!("cannot create {}", path.display()), error.into());
    let open = |flags: OFlags| {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).map(File::from)
    };
    if kind.is_fifo() {
        let deadline = Instant::now() + fifo_timeout;
        let pipe = loop {
            match open(OFlags::WRONLY | OFlags::NONBLOCK) {
                Err(Errno::NXIO) if goes_on(deadline) => std::thread::sleep(INTERVAL),
                Err(Errno::NXIO) => return Err(no_other_end(path, fifo_timeout, "reads", "reader")),
                opened => break opened.map_err(cannot)?,
            }
        };
        lock_open(&pipe, path)?;
        return blocking(pipe).map_err(|error| MediaError::io(format!("cannot create {}", path.display()), error));
    }
    // Only what has positions can be read back. The system opens a block device with EXCL for one program only, and not while it is
    // mounted.
    let flags = if kind.is_block_device() { OFlags::RDWR | OFlags::EXCL } else { OFlags::WRONLY };
    refuse_terminal(open(flags).map_err(cannot)?, path)
}

/// Opens a named pipe or a device for a restore.
pub(super) fn open(path: &Path, found: &Metadata, fifo_timeout: Duration) -> Result<File, MediaError> {
    let is_fifo = found.file_type().is_fifo();
    let cannot = |error| MediaError::io(format!("cannot open {} for reading", path.display()), error);
    let wait = if is_fifo { OFlags::NONBLOCK } else { OFlags::empty() };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | wait;
    let opened = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).map(File::from);
    let file = refuse_terminal(opened.map_err(|error| cannot(error.into()))?, path)?;
    if !is_fifo {
        return Ok(file);
    }
    let deadline = Instant::now() + fifo_timeout;
    while !has_writer(&file).map_err(cannot)? {
        if !goes_on(deadline) {
            return Err(no_other_end(path, fifo_timeout, "writes", "writer"));
        }
        std::thread::sleep(INTERVAL);
    }
    blocking(file).map_err(cannot)
}

/// Whether a pipe, opened without waiting, has or had a writer. Before its first one a read finds an end that is none.
fn has_writer(pipe: &File) -> io::Result<bool> {
    let (_reader, copy) = pipe_with(PipeFlags::CLOEXEC)?;
    // The only call that tells the two apart and leaves the data where they are.
    match tee(pipe, &copy, 1, SpliceFlags::NONBLOCK) {
        Ok(0) => {
            // One that came and went without a byte.
            let mut polled = [PollFd::new(pipe, PollFlags::IN)];
            retry_on_intr(|| poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
            let [polled] = polled;
            Ok(polled.revents().contains(PollFlags::HUP))
        }
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the other end of a pipe is still waited for.
fn goes_on(deadline: Instant) -> bool {
    Instant::now() < deadline && !waiting::has_ended()
}

fn no_other_end(path: &Path, waited: Duration, does: &str, role: &str) -> MediaError {
    let waited = show_duration(waited);
    let what = format!("cannot open the named pipe {}: no process {does} it after {waited}", path.display());
    MediaError::io(what, ErrorKind::TimedOut.into()).with_remedy(format!("start its {role} first"))
}

/// From here on reads and writes wait.
fn blocking(file: File) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Locks what a backup is written to straight away, and not put into place later: two in one pipe would be mixed.
pub(super) fn lock_open(file: &File, path: &Path) -> Result<(), MediaError> {
    match retry_on_intr(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Err(Errno::WOULDBLOCK) => Err(taken(path)),
        // Where there are no locks, nothing is locked.
        _ => Ok(()),
    }
}

/// The error of a second medium for one target.
pub(super) fn taken(path: &Path) -> MediaError {
    let what = format!(
        "{} is being written by another backup, of this process or of another; each would destroy the other's data",
        path.display()
    );
    MediaError::new(CompletionCode::IO_DEVICE, what)
        .with_remedy("give every device a target of its own, or wait for the other backup to end")
}

pub(super) fn refuse_terminal(file: File, path: &Path) -> Result<File, MediaError> {
    if !file.is_terminal() {
        return Ok(file);
    }
    let what = format!("{} is a terminal, which can neither hold a backup nor hand one out", path.display());
    Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("name a file, or redirect it to a file or a pipe"))
}
