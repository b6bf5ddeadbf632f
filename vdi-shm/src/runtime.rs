//! Where sets are found: a runtime directory with one socket a live set.
//!
//! The directory is `VDI_RUNTIME_DIR` where that is set, else `vdi` in `XDG_RUNTIME_DIR`, else `vdi-UID` in the system's
//! directory for temporary files. It is created with mode 0700 when missing.
//!
//! # Invariants
//!
//! 1. The directory is trusted before anything in it is: it is a real directory, owned by this user, by root, or by
//!    somebody whom the access rule names, and writable by others only with the sticky bit set.
//! 2. A set's socket is bound, replaced and removed only under an exclusive lock on the directory. A socket on which nobody
//!    listens (connecting is refused) belongs to the dead, and whoever finds it removes it.
//! 3. Two live sets never share a socket: while somebody listens, another set of the same name is refused.
//! 4. Names travel in the Hello message; the file's name is only where to look, so any name will do for a set.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vdi_proto::name::{check_instance, check_name};

use crate::error::ShmError;
use crate::link::{Link, Peer};

/// Who may join a set, and whom a joiner trusts.
///
/// The same user is always allowed; others on request. A gid is the peer's effective one.
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
        peer.uid == rustix::process::geteuid().as_raw()
            || self.uids.contains(&peer.uid)
            || self.gids.contains(&peer.gid)
    }

    fn is_exclusive(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

/// How a process takes part in sets: where they are found and who is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The runtime directory; `None` for the default.
    pub runtime_dir: Option<PathBuf>,
    /// Who may join (at the primary), or whose sets may be joined.
    pub access: Access,
}

impl Options {
    /// The runtime directory that these options mean.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        if let Some(dir) = &self.runtime_dir {
            return dir.clone();
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("VDI_RUNTIME_DIR")
            .or_else(|| set("XDG_RUNTIME_DIR").map(|dir| dir.join("vdi")))
            .unwrap_or_else(|| std::env::temp_dir().join(format!("vdi-{}", rustix::process::geteuid().as_raw())))
    }
}

/// How long to knock at a set whose queue of joiners is full.
const KNOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for the directory's lock, which is only ever held for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A trusted runtime directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    dir: OwnedFd,
}

/// A set's place in a runtime directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The set's name.
    pub set: String,
    /// The instance, empty for the default.
    pub instance: String,
    file: String,
}

impl Place {
    /// The place of a set.
    ///
    /// # Errors
    /// [`ShmError::Name`] for names that no set or instance can have.
    pub fn new(instance: &str, set: &str) -> Result<Place, ShmError> {
        let name = |what, name: &str, source| ShmError::Name { what, name: name.to_owned(), source };
        check_instance(instance).map_err(|source| name("instance", instance, source))?;
        check_name(set).map_err(|source| name("set", set, source))?;
        // A readable beginning, and a hash of all of it (FNV-1a): different names may share a file name, which costs the
        // second one a refusal and nothing else.
        let readable: String =
            set.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(36).collect();
        let hash = instance
            .bytes()
            .chain([0])
            .chain(set.bytes())
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(Place { set: set.to_owned(), instance: instance.to_owned(), file: format!("{readable}-{hash:016x}.vdi") })
    }
}

/// Holds the directory's lock until dropped.
struct Locked<'a>(&'a OwnedFd);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

impl RuntimeDir {
    /// Opens the runtime directory, creating it when `create` is set.
    ///
    /// # Errors
    /// [`ShmError::Security`] (VD_E_SECURITY) when it is not to be trusted; [`ShmError::System`] when it cannot be opened.
    pub fn open(options: &Options, create: bool) -> Result<RuntimeDir, ShmError> {
        // By its components: a slash at the end would make the system follow a link that is refused below.
        let path: PathBuf = options.runtime_dir().components().collect();
        if create {
            match DirBuilder::new().recursive(true).mode(0o700).create(&path) {
                Ok(()) => {}
                // Whatever is there instead of a directory is judged below.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(ShmError::system(
                        format!("create the runtime directory {} (set VDI_RUNTIME_DIR to another)", path.display()),
                        error,
                    ));
                }
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => ShmError::Security {
                what: format!("the runtime directory {} is no directory but a link or a file", path.display()),
                remedy: "set VDI_RUNTIME_DIR to a directory of your own",
            },
            errno => ShmError::system(format!("open the runtime directory {}", path.display()), errno),
        })?;
        let stat = rustix::fs::fstat(&dir)
            .map_err(|errno| ShmError::system(format!("inspect the runtime directory {}", path.display()), errno))?;
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid != own && stat.st_uid != 0 && !options.access.uids.contains(&stat.st_uid) {
            return Err(ShmError::Security {
                what: format!(
                    "the runtime directory {} belongs to uid {}, this process runs as uid {own}",
                    path.display(),
                    stat.st_uid
                ),
                remedy: "allow that uid, or set VDI_RUNTIME_DIR to a directory of your own",
            });
        }
        if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 {
            return Err(ShmError::Security {
                what: format!(
                    "the runtime directory {} is writable by others (mode {:o}) without the sticky bit",
                    path.display(),
                    stat.st_mode & 0o7777
                ),
                remedy: "chmod it to 0700, or to 1777 where several users share it",
            });
        }
        Ok(RuntimeDir { path, dir })
    }

    /// Where a set's socket is.
    #[must_use]
    pub fn path_of(&self, place: &Place) -> PathBuf {
        self.path.join(&place.file)
    }

    fn lock(&self) -> Result<Locked<'_>, ShmError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match rustix::fs::flock(&self.dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked(&self.dir)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                Err(errno) => {
                    return Err(ShmError::system(format!("lock the runtime directory {}", self.path.display()), errno));
                }
            }
        }
    }

    /// The socket address of a file in this directory. Socket addresses are short, so a long path goes by way of the open
    /// directory.
    fn address(&self, file: &str) -> Result<SocketAddrUnix, ShmError> {
        use std::os::fd::AsRawFd;
        SocketAddrUnix::new(self.path.join(file))
            .or_else(|_| SocketAddrUnix::new(format!("/proc/self/fd/{}/{file}", self.dir.as_raw_fd())))
            .map_err(|errno| ShmError::system(format!("form a socket address below {}", self.path.display()), errno))
    }

    fn socket() -> Result<OwnedFd, ShmError> {
        rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|errno| ShmError::system("create a socket", errno))
    }

    /// Binds and listens for a set. Sockets of the dead are removed on the way.
    ///
    /// # Errors
    /// [`ShmError::SetExists`] while a live set of this name exists; [`ShmError::System`].
    pub fn listen(&self, place: &Place, access: &Access) -> Result<OwnedFd, ShmError> {
        let failed = |what: &str, errno: Errno| {
            ShmError::system(format!("{what} the socket {}", self.path_of(place).display()), errno)
        };
        let _locked = self.lock()?;
        self.sweep();
        let address = self.address(&place.file)?;
        let listener = Self::socket()?;
        match rustix::net::bind(&listener, &address) {
            Ok(()) => {}
            // The sweep left it, so somebody lives there.
            Err(Errno::ADDRINUSE) => {
                return Err(ShmError::SetExists {
                    set: place.set.clone(),
                    instance: place.instance.clone(),
                    path: self.path_of(place),
                });
            }
            Err(errno) => return Err(failed("bind", errno)),
        }
        // Whatever the umask is: others may connect only where others may join; who joins is checked anyway.
        let mode = if access.is_exclusive() { 0o600 } else { 0o666 };
        rustix::fs::chmodat(&self.dir, &*place.file, Mode::from_bits_truncate(mode), AtFlags::empty())
            .and_then(|()| rustix::net::listen(&listener, 64))
            .map_err(|errno| {
                self.unlink(&place.file);
                failed("listen on", errno)
            })?;
        Ok(listener)
    }

    /// Connects to a set.
    ///
    /// # Errors
    /// [`ShmError::NoSuchSet`], [`ShmError::Security`] when somebody listens there who is not trusted,
    /// [`ShmError::System`].
    pub fn connect(&self, place: &Place, access: &Access) -> Result<Link, ShmError> {
        let socket = Self::socket()?;
        let address = self.address(&place.file)?;
        let deadline = Instant::now() + KNOCK_PATIENCE;
        let connected = loop {
            match rustix::net::connect(&socket, &address) {
                Err(Errno::INTR) => {}
                // The primary takes joiners as they come: its queue is full for a moment only.
                Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                connected => break connected,
            }
        };
        match connected {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(ShmError::Timeout { step: "the set's creator to take a joiner" }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => {
                return Err(ShmError::NoSuchSet {
                    set: place.set.clone(),
                    instance: place.instance.clone(),
                    path: self.path_of(place),
                });
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(ShmError::Security {
                    what: format!("the socket {} may not be used by this user", self.path_of(place).display()),
                    remedy: "run as the same user, or have the set's creator allow this uid or gid",
                });
            }
            Err(errno) => {
                return Err(ShmError::system(format!("connect to {}", self.path_of(place).display()), errno));
            }
        }
        let link = Link::new(socket);
        let peer = link.peer()?;
        if !access.allows(&peer) {
            return Err(ShmError::Security {
                what: format!(
                    "the socket {} belongs to process {} of uid {}, whom this process does not trust",
                    self.path_of(place).display(),
                    peer.pid,
                    peer.uid
                ),
                remedy: "allow that uid, or use a runtime directory that only trusted users can write to",
            });
        }
        Ok(link)
    }

    /// Removes a live set's own socket.
    pub(crate) fn remove(&self, place: &Place) {
        self.unlink(&place.file);
    }

    /// Removes a set's socket if nobody listens on it any more: for those who outlive the primary. True when it is gone,
    /// by this or otherwise.
    pub(crate) fn remove_if_dead(&self, place: &Place) -> bool {
        if let Ok(_locked) = self.lock()
            && self.is_dead(&place.file)
        {
            self.unlink(&place.file);
        }
        matches!(rustix::fs::statat(&self.dir, &*place.file, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// Removes the sockets of the dead. Only under the lock.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if let Some(file) = name.to_str()
                && Path::new(file).extension().is_some_and(|extension| extension == "vdi")
                && self.is_dead(file)
            {
                self.unlink(file);
            }
        }
    }

    /// Whether a file is a socket on which nobody listens.
    fn is_dead(&self, file: &str) -> bool {
        // Connecting to a file that is no socket is refused as well, and such a file is somebody's.
        let is_socket = rustix::fs::statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
        if !is_socket {
            return false;
        }
        let Ok(socket) = Self::socket() else { return false };
        let Ok(address) = self.address(file) else { return false };
        matches!(rustix::net::connect(&socket, &address), Err(Errno::CONNREFUSED))
    }

    fn unlink(&self, file: &str) {
        // Gone already, or not ours to remove: either way there is nothing more to do.
        let _ = rustix::fs::unlinkat(&self.dir, file, AtFlags::empty());
    }
}
