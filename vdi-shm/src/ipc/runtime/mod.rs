//! The runtime directory: where processes find each other, one socket per name.
//!
//! The directory is `VDI_RUNTIME_DIR` where that is set, else `vdi` in `XDG_RUNTIME_DIR`, else `vdi-UID` in the system's
//! directory for temporary files. It is created with mode 0700 when missing.
//!
//! # Invariants
//!
//! 1. *The directory is trusted before anything in it is.* It is a real directory, owned by this user, by root, or by a user
//!    of the access rule. Others can write to it only with the sticky bit, or where they are of a group of the access rule.
//!    Links on its path belong to trusted users. No directory of its path is writable by everybody without the sticky bit. The
//!    target of a trusted link is not checked.
//! 2. *A socket is bound and removed only under an exclusive lock on the directory.* A socket is removed only by its own
//!    listener, or when it is found dead under the same lock: a connection to it is refused. So a socket that another process
//!    has bound anew is never removed.
//! 3. *Two live listeners never share a name.* While one listens, the next is refused.
//! 4. *No path is followed twice.* Everything is done by way of the directory's open descriptor, so a directory that is swapped
//!    between two steps changes nothing. A file in it is opened before it is validated and used, and is never followed where
//!    it is a link. Only where no /proc is mounted sockets are found by their path.
//! 5. *An untrusted user that takes a name first keeps it.* Nothing of that user is removed, and the error says who it is. A
//!    connecting process asks the system who listens, so it does not trust that user.
//! 6. *A user that can write to the directory can disturb, and not deceive.* Members of a group that was named can take a name
//!    first, and can remove or rename the sockets of others, so that these are not found. They cannot play another user: each
//!    connection is checked by what the system says of the peer (5), and a mode is set on this user's own socket only (4).
//!    Where no /proc is mounted, they could swap a file between this check and the change of its mode.
//! 7. The name of a socket's file is only where to look: two names can share a file, so peers exchange their full names.

mod connect;
mod error;
mod listen;
mod near_misses;
mod options;
mod socket_name;
#[cfg(test)]
mod tests;
mod trust;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::ipc::error::{Operation, SystemError};
pub use error::{ConnectError, DirError, ListenError};
pub use listen::Listener;
pub use near_misses::{NearMiss, near_misses};
pub use options::{Access, EnvironmentError, Options};
pub use socket_name::SocketName;

/// A trusted runtime directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    dir: OwnedFd,
    /// The lock on the directory is one per open descriptor, so the threads that share this one need their own.
    threads: Mutex<()>,
}

/// How long to wait for the directory's lock, which is held for a few system calls.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval of attempts where the system cannot wait.
const RETRY: Duration = Duration::from_millis(1);

/// A file in the directory, kept open so that it stays the same one.
#[derive(Debug)]
struct OpenFile {
    fd: OwnedFd,
    stat: Stat,
}

impl OpenFile {
    fn is_socket(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Socket
    }

    /// Its type, for messages.
    fn kind(&self) -> &'static str {
        match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::RegularFile => "a file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a link",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            _ => "a device",
        }
    }
}

/// Holds the directory's lock until dropped.
struct Locked<'a> {
    dir: &'a OwnedFd,
    _threads: MutexGuard<'a, ()>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.dir, FlockOperation::Unlock);
    }
}

impl RuntimeDir {
    /// Where the socket of a name is.
    #[must_use]
    pub fn path_of(&self, name: &SocketName) -> PathBuf {
        self.path.join(&name.file)
    }

    fn lock(&self) -> Result<Locked<'_>, SystemError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match rustix::fs::flock(&self.dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked { dir: &self.dir, _threads: threads }),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Err(errno) => {
                    let action = format!("lock the runtime directory {}", self.path.display());
                    return Err(SystemError::of(Operation::Directory, action, errno));
                }
            }
        }
    }

    /// Opens a file in this directory as it is, without following or using it.
    fn open_file(&self, file: &str) -> Result<OpenFile, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, file, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(OpenFile { fd, stat })
    }

    /// Whether a process listens on an open file. `None` where this user cannot find that out: it may not connect, it has no
    /// descriptor left, or the file is another program's socket.
    fn is_live(&self, found: &OpenFile, file: &str) -> Option<bool> {
        // A connection to a file that is no socket is refused as well.
        if !found.is_socket() {
            return None;
        }
        let socket = new_socket().ok()?;
        match self.connect_to(&socket, found, file) {
            // A full queue is a live process's.
            Ok(()) | Err(Errno::AGAIN) => Some(true),
            Err(Errno::CONNREFUSED) => Some(false),
            Err(_) => None,
        }
    }

    /// Connects a socket to an open socket file, without waiting.
    fn connect_to(&self, socket: &OwnedFd, found: &OpenFile, file: &str) -> Result<(), Errno> {
        let open = path_of_descriptor(&found.fd);
        let open = if Path::new(&open).exists() { PathBuf::from(open) } else { self.path.join(file) };
        rustix::net::connect(socket, &SocketAddrUnix::new(open)?)
    }
}

/// The path of what a descriptor of this process is open on, whatever its name leads to by now.
fn path_of_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn new_socket() -> Result<OwnedFd, SystemError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|errno| SystemError::new("create a socket", errno))
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Owner and mode of what a path leads to, without following a link, for messages; empty where it cannot be inspected.
fn owner_and_mode(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map_or_else(
        |_| String::new(),
        |found| format!(" of uid {}, gid {} (mode {:o})", found.uid(), found.gid(), found.mode() & 0o7777),
    )
}

/// This process's user, for messages.
fn this_user() -> String {
    format!("uid {}", own_uid())
}
