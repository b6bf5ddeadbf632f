//! Binding a name, and removing sockets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::{
    Access, ListenError, OpenFile, RuntimeDir, SocketName, new_socket, own_uid, path_of_descriptor, this_user,
};
use crate::ipc::error::{SystemError, Untrusted};
use crate::ipc::link::Link;

/// The connections that the system queues before a connecting process has to try again.
const QUEUE: i32 = 64;

/// A listening socket, and its file in the runtime directory.
///
/// Dropping it closes the socket and leaves the file, as the death of a process does; [`RuntimeDir::remove`] removes it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    name: String,
    /// The file that was bound. It stays open, so that no other file gets its inode number.
    file: OpenFile,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl RuntimeDir {
    /// Binds a name and listens. Sockets of dead processes are removed first.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(&self, name: &SocketName, access: &Access) -> Result<Listener, ListenError> {
        let failed = |action: &str, errno: Errno| {
            SystemError::new(format!("{action} the socket {}", self.path_of(name).display()), errno)
        };
        let _locked = self.lock()?;
        self.remove_dead();
        let address = self.new_address(&name.file)?;
        let socket = new_socket()?;
        match rustix::net::bind(&socket, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Err(self.taken(name, access)),
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(ListenError::Untrusted(Untrusted {
                    what: format!("no socket may be made in {} by {}", self.path.display(), this_user()),
                    remedy: "have its owner let this user write to it, or set VDI_RUNTIME_DIR to a directory of your own",
                }));
            }
            Err(errno) => return Err(failed("bind", errno).into()),
        }
        // Whatever the umask is. Each peer's credentials are checked as well.
        let mode = if access.is_exclusive() { 0o600 } else { 0o666 };
        let opened = self.open_file(&name.file).and_then(|file| {
            self.chmod(&file, &name.file, Mode::from_bits_truncate(mode))?;
            rustix::net::listen(&socket, QUEUE)?;
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Listener { socket, name: name.file.clone(), file }),
            Err(Errno::STALE) => Err(ListenError::Untrusted(Untrusted {
                what: format!("the socket {} was replaced while it was made", self.path_of(name).display()),
                remedy: "set VDI_RUNTIME_DIR to a directory of your own",
            })),
            Err(errno) => {
                self.unlink(&name.file);
                Err(failed("listen on", errno).into())
            }
        }
    }

    /// Closes a listener and removes its socket, if the file is still the one that was bound.
    pub fn remove(&self, listener: Listener) {
        // Without the lock the file stays. The next process that listens here finds it dead and removes it.
        let Ok(_locked) = self.lock() else { return };
        let stat = &listener.file.stat;
        if self
            .open_file(&listener.name)
            .is_ok_and(|found| (found.stat.st_dev, found.stat.st_ino) == (stat.st_dev, stat.st_ino))
        {
            self.unlink(&listener.name);
        }
    }

    /// Removes a socket if nothing listens on it any more, for processes that outlive the listener. True when there is no such
    /// socket afterwards.
    pub fn remove_if_dead(&self, name: &SocketName) -> bool {
        if let Ok(_locked) = self.lock()
            && self.is_dead(&name.file)
        {
            self.unlink(&name.file);
        }
        matches!(rustix::fs::statat(&self.dir, &*name.file, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// The socket address of a new file in this directory, by way of the open directory.
    fn new_address(&self, file: &str) -> Result<SocketAddrUnix, SystemError> {
        let open = path_of_descriptor(&self.dir);
        let dir = if Path::new(&open).exists() { Path::new(&open) } else { &self.path };
        SocketAddrUnix::new(dir.join(file))
            .map_err(|errno| SystemError::new(format!("form a socket address below {}", self.path.display()), errno))
    }

    /// Sets the mode of a socket that this process has made. What was put there instead is left as it is: the directory's
    /// owner, who need not be this user, can put a link to any file there.
    pub(super) fn chmod(&self, found: &OpenFile, file: &str, mode: Mode) -> Result<(), Errno> {
        if !found.is_socket() || found.stat.st_uid != own_uid() {
            return Err(Errno::STALE);
        }
        let open = path_of_descriptor(&found.fd);
        if Path::new(&open).exists() {
            rustix::fs::chmod(&open, mode)
        } else {
            rustix::fs::chmodat(&self.dir, file, mode, AtFlags::empty())
        }
    }

    /// Why a name cannot be bound whose file is no socket of a dead process that this one may remove.
    fn taken(&self, name: &SocketName, access: &Access) -> ListenError {
        let path = self.path_of(name);
        let in_use = || ListenError::InUse { path: path.clone() };
        let Ok(found) = self.open_file(&name.file) else { return in_use() };
        let owner = found.stat.st_uid;
        if !found.is_socket() {
            return ListenError::Untrusted(Untrusted {
                what: format!("{} is {} of uid {owner} where the socket would be", path.display(), found.kind()),
                remedy: "remove it, or choose another name or another VDI_RUNTIME_DIR",
            });
        }
        let Ok(socket) = new_socket() else { return in_use() };
        match self.connect_to(&socket, &found, &name.file) {
            Err(Errno::CONNREFUSED) => ListenError::Untrusted(Untrusted {
                what: format!(
                    "a dead process of uid {owner} left the socket {}, which {} may not remove",
                    path.display(),
                    this_user()
                ),
                remedy: "have it removed by that user or root, or choose another name or another VDI_RUNTIME_DIR",
            }),
            Err(Errno::PROTOTYPE) => ListenError::Untrusted(Untrusted {
                what: format!("{} is a socket of uid {owner}, but of another program", path.display()),
                remedy: "end the program that listens there, or choose another name or another VDI_RUNTIME_DIR",
            }),
            // The system may not let this process ask who listens.
            connected if !access.trusts_owner(owner) => ListenError::Untrusted(Untrusted {
                what: format!(
                    "the name is taken: the socket {} belongs to {}uid {owner}, whom this process does not trust",
                    path.display(),
                    match connected.ok().and_then(|()| Link::new(socket).peer().ok()) {
                        Some(peer) => format!("process {} of ", peer.pid),
                        None => String::new(),
                    }
                ),
                remedy: "have it removed by root, choose another name, or use a runtime directory that only trusted users \
                         can write to",
            }),
            _ => in_use(),
        }
    }

    /// Removes the sockets of dead processes. Only under the lock.
    fn remove_dead(&self) {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.dir) else { return };
        for entry in entries.flatten() {
            if let Ok(file) = entry.file_name().to_str()
                && Path::new(file).extension().is_some_and(|extension| extension == "vdi")
                && self.is_dead(file)
            {
                self.unlink(file);
            }
        }
    }

    /// Whether a file is a socket on which nothing listens.
    fn is_dead(&self, file: &str) -> bool {
        // A connection to a file that is no socket is refused as well.
        let Ok(found) = self.open_file(file) else { return false };
        if !found.is_socket() {
            return false;
        }
        let Ok(socket) = new_socket() else { return false };
        matches!(self.connect_to(&socket, &found, file), Err(Errno::CONNREFUSED))
    }

    /// Removes a file. Only under the lock.
    fn unlink(&self, file: &str) {
        // Where it is gone already, or this user may not remove it, nothing is left to do.
        let _ = rustix::fs::unlinkat(&self.dir, file, AtFlags::empty());
    }
}
