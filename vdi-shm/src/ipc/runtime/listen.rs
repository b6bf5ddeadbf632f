//! Binding a name, and removing sockets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags};

use super::socket_name::is_socket_file;
use super::{
    Access, ListenError, OpenFile, RuntimeDir, SocketName, new_socket, own_uid, owner_and_mode, path_of_descriptor,
    this_user,
};
use crate::ipc::error::{Operation, SystemError, Untrusted};
use crate::ipc::link::Link;

/// The connections that the system queues before a connecting process has to try again.
const QUEUE: i32 = 64;

/// Attempts to bind where a dead socket is in the way. Only a process that ignores the lock makes a third one necessary.
const BIND_ATTEMPTS: u32 = 8;

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

impl Listener {
    /// Accepts the next connection, without waiting; `None` where there is none. The listener is readable while there is one.
    /// The caller checks the peer ([`Link::peer`], [`Access::allows`]). A connection can end at once: a process that wants the
    /// name connects to see whether the listener lives.
    ///
    /// # Errors
    /// [`SystemError`], as where this process has no descriptor left. The connection stays in the queue.
    pub fn accept(&self) -> Result<Option<Link>, SystemError> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => return Ok(Some(Link::new(socket))),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(SystemError::new("accept a connection", errno)),
            }
        }
    }
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
            let action = format!("{action} the socket {}", self.path_of(name).display());
            SystemError::of(Operation::Directory, action, errno)
        };
        let _locked = self.lock()?;
        self.remove_dead();
        let address = self.new_address(&name.file)?;
        let socket = new_socket()?;
        let mut attempts = 0;
        while let Err(errno) = rustix::net::bind(&socket, &address) {
            attempts += 1;
            match errno {
                Errno::ADDRINUSE if attempts < BIND_ATTEMPTS => self.remove_dead_or_refuse(name, access)?,
                Errno::ACCESS => {
                    let of = owner_and_mode(&self.path);
                    return Err(ListenError::Untrusted(Untrusted::new(
                        format!("no socket may be made in {}{of} by {}", self.path.display(), this_user()),
                        "have its owner let this user write to it, or set VDI_RUNTIME_DIR to a directory of your own",
                    )));
                }
                errno => return Err(failed("bind", errno).into()),
            }
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
            Err(Errno::STALE) => Err(ListenError::Untrusted(Untrusted::new(
                format!("the socket {} was replaced while it was made", self.path_of(name).display()),
                "set VDI_RUNTIME_DIR to a directory of your own",
            ))),
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
        // Needs no descriptor: the process may have none left.
        let bound = &listener.file.stat;
        if rustix::fs::statat(&self.dir, &*listener.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (bound.st_dev, bound.st_ino))
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
        SocketAddrUnix::new(dir.join(file)).map_err(|errno| {
            let action = format!("form a socket address below {}", self.path.display());
            SystemError::of(Operation::Directory, action, errno)
        })
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

    /// Removes the socket at a name whose process has died since [`RuntimeDir::remove_dead`]. Only under the lock.
    ///
    /// # Errors
    /// [`ListenError`], saying what is there instead.
    fn remove_dead_or_refuse(&self, name: &SocketName, access: &Access) -> Result<(), ListenError> {
        let path = self.path_of(name);
        let refuse = |what: String, remedy: &str| Err(ListenError::Untrusted(Untrusted::new(what, remedy)));
        let in_use = || ListenError::InUse { path: path.clone() };
        let found = self.open_file(&name.file).map_err(|_| in_use())?;
        let (shown, owner) = (path.display(), found.stat.st_uid);
        if !found.is_socket() {
            return refuse(
                format!("{shown} is {} of uid {owner} where the socket would be", found.kind()),
                "remove it, or choose another name or another VDI_RUNTIME_DIR",
            );
        }
        let socket = new_socket().map_err(|_| in_use())?;
        match self.connect_to(&socket, &found, &name.file) {
            Err(Errno::CONNREFUSED) if self.unlink(&name.file) => Ok(()),
            Err(Errno::CONNREFUSED) => refuse(
                format!("a dead process of uid {owner} left the socket {shown}, which {} may not remove", this_user()),
                "have it removed by that user or root, or choose another name or another VDI_RUNTIME_DIR",
            ),
            Err(Errno::PROTOTYPE) => refuse(
                format!("{shown} is a socket of uid {owner}, but of another program"),
                "end the program that listens there, or choose another name or another VDI_RUNTIME_DIR",
            ),
            connected => {
                // The system may not let this process ask who listens.
                let peer = connected.ok().and_then(|()| Link::new(socket).peer().ok());
                if access.trusts_owner(owner) || peer.is_some_and(|peer| access.allows(&peer)) {
                    return Err(in_use());
                }
                let process = peer.map_or_else(String::new, |peer| format!("process {} of ", peer.pid));
                refuse(
                    format!(
                        "the name is taken: the socket {shown} belongs to {process}uid {owner}, whom this process does not \
                         trust"
                    ),
                    "have it removed by root, choose another name, or use a runtime directory that only trusted users can \
                     write to",
                )
            }
        }
    }

    /// Removes the sockets of dead processes. Only under the lock.
    fn remove_dead(&self) {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.dir) else { return };
        for entry in entries.flatten() {
            if let Ok(file) = entry.file_name().to_str()
                && is_socket_file(file)
                && self.is_dead(file)
            {
                self.unlink(file);
            }
        }
    }

    /// Whether a file is a socket on which nothing listens.
    fn is_dead(&self, file: &str) -> bool {
        self.open_file(file).is_ok_and(|found| self.is_live(&found, file) == Some(false))
    }

    /// Removes a file, if this user may; whether it did. Only under the lock.
    fn unlink(&self, file: &str) -> bool {
        rustix::fs::unlinkat(&self.dir, file, AtFlags::empty()).is_ok()
    }
}
