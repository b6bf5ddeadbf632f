//! The runtime directory: where processes find each other, one socket per name.
//!
//! The directory is `VDI_RUNTIME_DIR` where that is set, else `vdi` in `XDG_RUNTIME_DIR`, else `vdi-UID` in the system's
//! directory for temporary files. It is created with mode 0700 when missing.
//!
//! # Invariants
//!
//! 1. *The directory is trusted before anything in it is.* It is a real directory, owned by this user, by root, or by a user
//!    of the access rule, and writable by others only with the sticky bit. Links on its path belong to trusted users. No
//!    directory of its path is writable by everybody without the sticky bit. The target of a trusted link is not checked.
//! 2. *A socket is bound and removed only under an exclusive lock on the directory.* A socket is removed only by its own
//!    listener, or when it is found dead under the same lock: a connection to it is refused. So a socket that another process
//!    has bound anew is never removed.
//! 3. *Two live listeners never share a name.* While one listens, the next is refused.
//! 4. *No path is followed twice.* Everything is done by way of the directory's open descriptor, so a directory that is swapped
//!    between two steps changes nothing. A file in it is opened before it is validated and used, and is never followed where
//!    it is a link. Only where no /proc is mounted sockets are found by their path.
//! 5. *An untrusted user that takes a name first keeps it.* Nothing of that user is removed, and the error says who it is. A
//!    connecting process asks the system who listens, so it does not trust that user.
//! 6. The name of a socket's file is only where to look: two names can share a file, so peers exchange their full names.

mod connect;
mod error;
mod listen;
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

use crate::ipc::error::SystemError;
use crate::ipc::link::Peer;
pub use error::{ConnectError, DirError, ListenError};
pub use listen::Listener;

/// The users that may connect, and whose sockets may be connected to.
///
/// The user of this process is always allowed. A gid is compared with the peer's effective one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Other users.
    pub uids: Vec<u32>,
    /// Groups.
    pub gids: Vec<u32>,
}

impl Access {
    /// Whether a peer is allowed.
    #[must_use]
    pub fn allows(&self, peer: &Peer) -> bool {
        peer.uid == own_uid() || self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid)
    }

    /// Whether this rule trusts the files of a user. Nothing protects against root.
    fn trusts_owner(&self, uid: u32) -> bool {
        uid == own_uid() || uid == 0 || self.uids.contains(&uid)
    }

    /// Whether only the user of this process is allowed.
    fn is_exclusive(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

/// Where processes find each other, and which users are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The runtime directory; `None` for the default.
    pub runtime_dir: Option<PathBuf>,
    /// The users that are trusted.
    pub access: Access,
}

impl Options {
    /// The path of the runtime directory.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        if let Some(dir) = &self.runtime_dir {
            return dir.clone();
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("VDI_RUNTIME_DIR")
            .or_else(|| set("XDG_RUNTIME_DIR").map(|dir| dir.join("vdi")))
            .unwrap_or_else(|| std::env::temp_dir().join(format!("vdi-{}", own_uid())))
    }
}

/// The name of a socket in a runtime directory: a name within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketName {
    namespace: String,
    name: String,
    file: String,
}

impl SocketName {
    /// A name within a namespace, which may be empty. Any text will do.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> SocketName {
        // A readable beginning, and a hash of all of it (FNV-1a). Where two names share a file, the second one is refused.
        let readable: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(36).collect();
        let hash = namespace
            .bytes()
            .chain([0])
            .chain(name.bytes())
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let file = format!("{readable}-{hash:016x}.vdi");
        SocketName { namespace: namespace.to_owned(), name: name.to_owned(), file }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

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
                    return Err(SystemError::new(action, errno));
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

/// This process's user, for messages.
fn this_user() -> String {
    format!("uid {}", own_uid())
}
