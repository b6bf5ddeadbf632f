//! Where sets are found: a runtime directory with one socket a live set.
//!
//! The directory is `VDI_RUNTIME_DIR` where that is set, else `vdi` in `XDG_RUNTIME_DIR`, else `vdi-UID` in the system's
//! directory for temporary files. It is created with mode 0700 when missing.
//!
//! # Invariants
//!
//! 1. The directory is trusted before anything in it is: it is a real directory, owned by this user, by root, or by
//!    somebody whom the access rule names, and writable by others only with the sticky bit set. Where its path leads over
//!    a link, that is no stranger's, and no directory of its path is everybody's without the sticky bit. What a trusted
//!    link leads over is the matter of who made it.
//! 2. A set's socket is bound, replaced and removed only under an exclusive lock on the directory. A socket on which nobody
//!    listens (connecting is refused) belongs to the dead, and whoever finds it removes it.
//! 3. Two live sets never share a socket: while somebody listens, another set of the same name is refused.
//! 4. What is done in the directory is done by way of its open descriptor, never by its path again: whoever swaps it, or one
//!    above it, between two steps leads nobody elsewhere. A file in it is held before it is judged and used, and never
//!    followed where it is a link. Only where no /proc is mounted sockets are found by their path.
//! 5. A stranger who takes a set's name first keeps it: nothing of his is removed, and the error says who he is. He gets
//!    nobody's trust by it, since a joiner asks the system who listens.
//! 6. Names travel in the Hello message; the file's name is only where to look, so any name will do for a set.

use std::fs::DirBuilder;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
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

    /// Whether what a user owns is trusted: he may be allowed to join, and against root nothing helps.
    fn trusts_owner(&self, uid: u32) -> bool {
        uid == rustix::process::geteuid().as_raw() || uid == 0 || self.uids.contains(&uid)
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

/// How many joiners the system queues before they have to knock again.
const QUEUE: i32 = 64;

/// What to do about a runtime directory that is closed to a user.
const OPEN_UP: &str = "run as the same user as the other side, or have its owner give this user read and search permission \
                       (chmod 0755)";

fn this_user() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

/// Creates what is missing of a directory and of those above it, with mode 0700 whatever the umask is.
fn create_private(path: &Path) -> std::io::Result<()> {
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && std::fs::symlink_metadata(dir).is_err())
        .collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            // Another process was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            created => created?,
        }
        // A umask can have taken this user's own permissions away. Held, so that it is what was made, and not a link by now.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::open(dir, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&made)?;
        if stat.st_mode & 0o7777 != 0o700 && stat.st_uid == rustix::process::geteuid().as_raw() {
            rustix::fs::chmod(path_of_descriptor(&made), Mode::RWXU)?;
        }
    }
    Ok(())
}

/// Why a directory cannot be opened that may not be.
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

/// Judges what lies on the way to the runtime directory. Who owns a directory above can take it away, which is an error for
/// those who look for it; but nobody is to be led astray by a link of a stranger, or by what everybody can rename.
fn judge_way(path: &Path, access: &Access) -> Result<(), ShmError> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        // What is missing is made, or missed, by whoever opens the directory; so is what may not be looked at.
        let Ok(found) = std::fs::symlink_metadata(above) else { continue };
        if found.is_symlink() && !access.trusts_owner(found.uid()) {
            return Err(ShmError::Security {
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
            return Err(ShmError::Security {
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

/// A file in the directory, held so that it stays the same one.
struct Pinned {
    fd: OwnedFd,
    stat: Stat,
}

impl Pinned {
    fn is_socket(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Socket
    }

    /// What it is, in words.
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

/// The path of what a descriptor of this process is open on: the thing itself, whatever its name leads to by now.
fn path_of_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
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
        judge_way(&path, &options.access)?;
        if create {
            match create_private(&path) {
                Ok(()) => {}
                // Whatever is there instead of a directory is judged below.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(ShmError::Security {
                        what: format!("the runtime directory {} may not be created by {}", path.display(), this_user()),
                        remedy: "set VDI_RUNTIME_DIR to a directory that this user can create or write to",
                    });
                }
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
            Errno::ACCESS | Errno::PERM => ShmError::Security { what: closed(&path), remedy: OPEN_UP },
            errno => ShmError::system(format!("open the runtime directory {}", path.display()), errno),
        })?;
        let stat = rustix::fs::fstat(&dir)
            .map_err(|errno| ShmError::system(format!("inspect the runtime directory {}", path.display()), errno))?;
        let own = rustix::process::geteuid().as_raw();
        if !options.access.trusts_owner(stat.st_uid) {
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

    /// The socket address of a new file in this directory, by way of the open directory.
    fn address(&self, file: &str) -> Result<SocketAddrUnix, ShmError> {
        let open = path_of_descriptor(&self.dir);
        let dir = if Path::new(&open).exists() { Path::new(&open) } else { &self.path };
        SocketAddrUnix::new(dir.join(file))
            .map_err(|errno| ShmError::system(format!("form a socket address below {}", self.path.display()), errno))
    }

    /// Takes hold of a file in this directory, without following or opening it.
    fn pin(&self, file: &str) -> Result<Pinned, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, file, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Pinned { fd, stat })
    }

    /// Connects a socket to a pinned one, without waiting.
    fn knock(&self, socket: &OwnedFd, pinned: &Pinned, file: &str) -> Result<(), Errno> {
        let open = path_of_descriptor(&pinned.fd);
        let open = if Path::new(&open).exists() { PathBuf::from(open) } else { self.path.join(file) };
        rustix::net::connect(socket, &SocketAddrUnix::new(open)?)
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
            Err(Errno::ADDRINUSE) => return Err(self.taken(place, access)),
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(ShmError::Security {
                    what: format!("no socket may be made in {} by {}", self.path.display(), this_user()),
                    remedy: "have its owner let this user write to it, or set VDI_RUNTIME_DIR to a directory of your own",
                });
            }
            Err(errno) => return Err(failed("bind", errno)),
        }
        // Whatever the umask is: others may connect only where others may join; who joins is checked anyway.
        let mode = if access.is_exclusive() { 0o600 } else { 0o666 };
        self.pin(&place.file)
            .and_then(|pinned| self.chmod(&pinned, &place.file, Mode::from_bits_truncate(mode)))
            .and_then(|()| rustix::net::listen(&listener, QUEUE))
            .map_err(|errno| match errno {
                Errno::STALE => ShmError::Security {
                    what: format!("the socket {} was replaced while it was made", self.path_of(place).display()),
                    remedy: "set VDI_RUNTIME_DIR to a directory of your own",
                },
                errno => {
                    self.unlink(&place.file);
                    failed("listen on", errno)
                }
            })?;
        Ok(listener)
    }

    /// Sets the mode of a socket that this process has made. What is there instead by now is left as it is: the directory's
    /// owner, who need not be this user, can put a link to anything into its place.
    fn chmod(&self, pinned: &Pinned, file: &str, mode: Mode) -> Result<(), Errno> {
        if !pinned.is_socket() || pinned.stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::STALE);
        }
        let open = path_of_descriptor(&pinned.fd);
        if Path::new(&open).exists() {
            rustix::fs::chmod(&open, mode)
        } else {
            rustix::fs::chmodat(&self.dir, file, mode, AtFlags::empty())
        }
    }

    /// Why a set cannot be made where something is that the sweep has left.
    fn taken(&self, place: &Place, access: &Access) -> ShmError {
        let path = self.path_of(place);
        let exists =
            || ShmError::SetExists { set: place.set.clone(), instance: place.instance.clone(), path: path.clone() };
        let Ok(pinned) = self.pin(&place.file) else { return exists() };
        let owner = pinned.stat.st_uid;
        if !pinned.is_socket() {
            return ShmError::Security {
                what: format!("{} is {} of uid {owner} where the set's socket would be", path.display(), pinned.kind()),
                remedy: "remove it, or choose another name or another VDI_RUNTIME_DIR",
            };
        }
        let Ok(socket) = Self::socket() else { return exists() };
        let knocked = self.knock(&socket, &pinned, &place.file);
        match knocked {
            Err(Errno::CONNREFUSED) => ShmError::Security {
                what: format!(
                    "a dead process of uid {owner} left the socket {}, which {} may not remove",
                    path.display(),
                    this_user()
                ),
                remedy: "have it removed by that user or root, or choose another name or another VDI_RUNTIME_DIR",
            },
            Err(Errno::PROTOTYPE) => ShmError::Security {
                what: format!("{} is a socket of uid {owner}, but not one of a set", path.display()),
                remedy: "end the program that listens there, or choose another name or another VDI_RUNTIME_DIR",
            },
            // The system may not let this process ask who listens.
            knocked if !access.trusts_owner(owner) => ShmError::Security {
                what: format!(
                    "the set's name is taken: the socket {} belongs to {}uid {owner}, whom this process does not trust",
                    path.display(),
                    match knocked.ok().and_then(|()| Link::new(socket).peer().ok()) {
                        Some(peer) => format!("process {} of ", peer.pid),
                        None => String::new(),
                    }
                ),
                remedy: "have it removed by root, choose another name, or use a runtime directory that only trusted users \
                         can write to",
            },
            _ => exists(),
        }
    }

    /// Connects to a set.
    ///
    /// # Errors
    /// [`ShmError::NoSuchSet`], [`ShmError::Security`] when somebody listens there who is not trusted,
    /// [`ShmError::System`].
    pub fn connect(&self, place: &Place, access: &Access) -> Result<Link, ShmError> {
        let path = self.path_of(place);
        let no_such_set =
            || ShmError::NoSuchSet { set: place.set.clone(), instance: place.instance.clone(), path: path.clone() };
        let not_for_us = |owner: &str| ShmError::Security {
            what: format!("the socket {}{owner} may not be used by {}", path.display(), this_user()),
            remedy: "run as the same user, or have the set's creator allow this uid or gid",
        };
        let pinned = match self.pin(&place.file) {
            Ok(pinned) => pinned,
            Err(Errno::NOENT) => return Err(no_such_set()),
            Err(Errno::ACCESS | Errno::PERM) => return Err(not_for_us("")),
            Err(errno) => return Err(ShmError::system(format!("look at {}", path.display()), errno)),
        };
        let owner = pinned.stat.st_uid;
        if !pinned.is_socket() {
            return Err(ShmError::Security {
                what: format!("{} is no socket but {} of uid {owner}", path.display(), pinned.kind()),
                remedy: "remove it, and use a runtime directory that only trusted users can write to",
            });
        }
        let socket = Self::socket()?;
        let deadline = Instant::now() + KNOCK_PATIENCE;
        let connected = loop {
            match self.knock(&socket, &pinned, &place.file) {
                Err(Errno::INTR) => {}
                // The primary takes joiners as they come: its queue is full for a moment only.
                Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                connected => break connected,
            }
        };
        match connected {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(ShmError::Timeout { step: "the set's creator to take a joiner" }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(no_such_set()),
            Err(Errno::ACCESS | Errno::PERM) => {
                let mode = pinned.stat.st_mode & 0o7777;
                return Err(not_for_us(&format!(" of uid {owner} (mode {mode:o})")));
            }
            Err(Errno::PROTOTYPE) => {
                return Err(ShmError::Security {
                    what: format!("{} is a socket of uid {owner}, but not one of a set", path.display()),
                    remedy: "end the program that listens there, and use a runtime directory that only trusted users can \
                             write to",
                });
            }
            Err(errno) => return Err(ShmError::system(format!("connect to {}", path.display()), errno)),
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

    /// Whether a file is a socket on which nobody listens.
    fn is_dead(&self, file: &str) -> bool {
        // Connecting to a file that is no socket is refused as well, and such a file is somebody's.
        let Ok(pinned) = self.pin(file) else { return false };
        if !pinned.is_socket() {
            return false;
        }
        let Ok(socket) = Self::socket() else { return false };
        matches!(self.knock(&socket, &pinned, file), Err(Errno::CONNREFUSED))
    }

    fn unlink(&self, file: &str) {
        // Gone already, or not ours to remove: either way there is nothing more to do.
        let _ = rustix::fs::unlinkat(&self.dir, file, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests;
