//! Connecting to a name.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::trust::{both_sides, open_up};
use super::{Access, ConnectError, OpenFile, RETRY, RuntimeDir, SocketName, new_socket, this_user};
use crate::ipc::error::{Operation, SystemError, Untrusted};
use crate::ipc::link::Link;

/// How long to try a listener whose queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl RuntimeDir {
    /// Connects to the listener of a name, and checks who it is.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(&self, name: &SocketName, access: &Access) -> Result<Link, ConnectError> {
        let path = self.path_of(name);
        let mut found = self.find(name)?;
        let mut socket = new_socket()?;
        let mut connected = self.connect_patiently(&socket, &found, name);
        if matches!(connected, Err(Errno::ACCESS | Errno::PERM | Errno::CONNREFUSED)) {
            // A process that makes the socket holds the lock until others may connect. Without the lock the answer stands.
            drop(self.lock());
            found = self.find(name)?;
            socket = new_socket()?;
            connected = self.connect_patiently(&socket, &found, name);
        }
        let owner = found.stat.st_uid;
        match connected {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(ConnectError::Timeout { path }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(ConnectError::NotFound { path }),
            Err(Errno::ACCESS | Errno::PERM) => return Err(self.closed(name, &found)),
            Err(Errno::PROTOTYPE) => {
                return Err(ConnectError::Untrusted(Untrusted::new(
                    format!("{} is a socket of uid {owner}, but of another program", path.display()),
                    "end the program that listens there, and use a runtime directory that only trusted users can write to",
                )));
            }
            Err(errno) => {
                let action = format!("connect to {}", path.display());
                return Err(SystemError::of(Operation::Directory, action, errno).into());
            }
        }
        let link = Link::new(socket);
        let peer = link.peer()?;
        if !access.allows(&peer) {
            let (path, pid, uid) = (path.display(), peer.pid, peer.uid);
            return Err(ConnectError::Untrusted(Untrusted::new(
                format!("the socket {path} belongs to process {pid} of uid {uid}, whom this process does not trust"),
                format!(
                    "set VDI_ALLOW_UID={uid} for this process if that is the program you mean; if it is not, use a runtime \
                     directory that only trusted users can write to"
                ),
            )));
        }
        Ok(link)
    }

    /// The socket file of a name.
    fn find(&self, name: &SocketName) -> Result<OpenFile, ConnectError> {
        let path = self.path_of(name);
        let found = self.open_file(&name.file).map_err(|errno| match errno {
            Errno::NOENT => ConnectError::NotFound { path: path.clone() },
            Errno::ACCESS | Errno::PERM => ConnectError::Untrusted(Untrusted::new(
                format!("the runtime directory {} may not be searched by {}", self.path.display(), this_user()),
                open_up(&self.path),
            )),
            errno => SystemError::of(Operation::Directory, format!("inspect {}", path.display()), errno).into(),
        })?;
        if found.is_socket() {
            return Ok(found);
        }
        Err(ConnectError::Untrusted(Untrusted::new(
            format!("{} is no socket but {} of uid {}", path.display(), found.kind(), found.stat.st_uid),
            "remove it, and use a runtime directory that only trusted users can write to",
        )))
    }

    /// Connects, and tries again while the listener's queue is full.
    fn connect_patiently(&self, socket: &OwnedFd, found: &OpenFile, name: &SocketName) -> Result<(), Errno> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            match self.connect_to(socket, found, &name.file) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(RETRY),
                connected => return connected,
            }
        }
    }

    /// A socket that its creator has opened to its own user only.
    fn closed(&self, name: &SocketName, found: &OpenFile) -> ConnectError {
        let (path, owner, mode) = (self.path_of(name), found.stat.st_uid, found.stat.st_mode & 0o7777);
        ConnectError::Untrusted(Untrusted::new(
            format!("the socket {} of uid {owner} (mode {mode:o}) may not be used by {}", path.display(), this_user()),
            both_sides(owner),
        ))
    }
}
