//! Connecting to a name.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Access, ConnectError, OpenFile, RETRY, RuntimeDir, SocketName, new_socket, this_user};
use crate::ipc::error::{SystemError, Untrusted};
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
        let found = self.find(name)?;
        let owner = found.stat.st_uid;
        let socket = new_socket()?;
        match self.connect_patiently(&socket, &found, name) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(ConnectError::Timeout { path }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(ConnectError::NotFound { path }),
            Err(Errno::ACCESS | Errno::PERM) => {
                let mode = found.stat.st_mode & 0o7777;
                return Err(self.closed(name, &format!(" of uid {owner} (mode {mode:o})")));
            }
            Err(Errno::PROTOTYPE) => {
                return Err(ConnectError::Untrusted(Untrusted {
                    what: format!("{} is a socket of uid {owner}, but of another program", path.display()),
                    remedy: "end the program that listens there, and use a runtime directory that only trusted users can \
                             write to",
                }));
            }
            Err(errno) => return Err(SystemError::new(format!("connect to {}", path.display()), errno).into()),
        }
        let link = Link::new(socket);
        let peer = link.peer()?;
        if !access.allows(&peer) {
            return Err(ConnectError::Untrusted(Untrusted {
                what: format!(
                    "the socket {} belongs to process {} of uid {}, whom this process does not trust",
                    path.display(),
                    peer.pid,
                    peer.uid
                ),
                remedy: "allow that uid, or use a runtime directory that only trusted users can write to",
            }));
        }
        Ok(link)
    }

    /// The socket file of a name.
    fn find(&self, name: &SocketName) -> Result<OpenFile, ConnectError> {
        let path = self.path_of(name);
        let found = self.open_file(&name.file).map_err(|errno| match errno {
            Errno::NOENT => ConnectError::NotFound { path: path.clone() },
            Errno::ACCESS | Errno::PERM => self.closed(name, ""),
            errno => SystemError::new(format!("inspect {}", path.display()), errno).into(),
        })?;
        if found.is_socket() {
            return Ok(found);
        }
        Err(ConnectError::Untrusted(Untrusted {
            what: format!("{} is no socket but {} of uid {}", path.display(), found.kind(), found.stat.st_uid),
            remedy: "remove it, and use a runtime directory that only trusted users can write to",
        }))
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

    fn closed(&self, name: &SocketName, of: &str) -> ConnectError {
        ConnectError::Untrusted(Untrusted {
            what: format!("the socket {}{of} may not be used by {}", self.path_of(name).display(), this_user()),
            remedy: "run as the same user, or have the creator of the socket allow this uid or gid",
        })
    }
}
