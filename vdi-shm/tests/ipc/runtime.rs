//! Which runtime directories are trusted, who gets a name, and which sockets are removed.

use std::fs::{File, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vdi_shm::ipc::link::Received;
use vdi_shm::ipc::runtime::{Access, ConnectError, DirError, ListenError, Listener, Options, RuntimeDir, SocketName};

use super::skip;

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn options(dir: &Path) -> Options {
    Options { runtime_dir: Some(dir.to_owned()), access: Access::default() }
}

fn open(dir: &Path) -> RuntimeDir {
    RuntimeDir::open(&options(dir), true).expect("a trusted directory")
}

fn name() -> SocketName {
    SocketName::new("", "nightly")
}

fn listen(runtime: &RuntimeDir, name: &SocketName) -> Listener {
    runtime.listen(name, &Access::default()).expect("a free name")
}

fn refused_for(dir: &Path, why: &str) {
    for create in [true, false] {
        let error = RuntimeDir::open(&options(dir), create).expect_err("untrusted");
        assert!(matches!(error, DirError::Untrusted(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// A packet that is sent to a name arrives at this listener.
fn is_reached(runtime: &RuntimeDir, name: &SocketName, listener: &Listener) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let link = runtime.connect(name, &Access::default()).expect("a listener");
            link.send(&number, None).expect("a listener");
            link
        });
        loop {
            if connecting.is_finished() && !is_readable(listener) {
                connecting.join().expect("a connection");
                panic!("the connection went to another listener");
            }
            let Some(accepted) = listener.accept().expect("a connection") else {
                std::thread::yield_now();
                continue;
            };
            match accepted.receive_until(Instant::now() + TEST_TIMEOUT).expect("a packet or an end") {
                Received::Packet(packet) if packet.bytes() == number => break,
                // A process that listens connects only to see whether this one lives.
                Received::HungUp => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Whether a connection waits.
fn is_readable(listener: &Listener) -> bool {
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    rustix::event::poll(&mut waiting, Some(&Timespec::default())).expect("its state") == 1
}

fn works_in(dir: &Path) {
    let runtime = open(dir);
    let listener = listen(&runtime, &name());
    is_reached(&runtime, &name(), &listener);
    runtime.remove(listener);
    assert_eq!(entries(dir), 0, "something is left behind");
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("a directory").count()
}

fn mode(dir: &Path, mode: u32) {
    std::fs::set_permissions(dir, Permissions::from_mode(mode)).expect("our own directory");
}

/// Binds and listens as another program would, without the lock.
fn bind_at(path: &Path) -> OwnedFd {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a socket");
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a free name");
    rustix::net::listen(&socket, 8).expect("its own socket");
    socket
}

#[test]
fn links_and_files_are_refused() {
    let parent = tempfile::tempdir().expect("a directory");
    let (real, link, file) = (parent.path().join("real"), parent.path().join("link"), parent.path().join("file"));
    std::fs::create_dir(&real).expect("a directory");
    symlink(&real, &link).expect("a link");
    std::fs::write(&file, "").expect("a file");
    refused_for(&link, "no directory but a link or a file");
    refused_for(&file, "no directory but a link or a file");
    // A slash at the end makes the system follow the link.
    let mut slashed = link.into_os_string();
    slashed.push("/");
    refused_for(&PathBuf::from(slashed), "no directory but a link or a file");
    works_in(&real);
}

#[test]
fn directories_that_others_can_change_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for (open, who) in [(0o777, "everybody"), (0o770, "the group"), (0o702, "everybody"), (0o720, "the group")] {
        mode(dir.path(), open);
        refused_for(dir.path(), &format!("is writable by {who}"));
    }
    for good in [0o700, 0o755, 0o1777, 0o1770] {
        mode(dir.path(), good);
        works_in(dir.path());
    }
}

#[test]
fn directories_of_others_are_refused() {
    if !rustix::process::geteuid().is_root() {
        return skip("directories_of_others_are_refused", "only root can give a directory away");
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(dir.path(), Some(65534), None).expect("root can");
    refused_for(dir.path(), "belongs to uid 65534");
    let allowed = Options { access: Access { uids: vec![65534], gids: Vec::new() }, ..options(dir.path()) };
    RuntimeDir::open(&allowed, false).expect("a trusted directory");
}

/// A group's directory is trusted where the group was named, and never where everybody can write to it.
#[test]
fn the_directory_of_a_named_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let group = std::fs::metadata(dir.path()).expect("a directory").gid();
    let allowing = |gid| Options { access: Access { uids: Vec::new(), gids: vec![gid] }, ..options(dir.path()) };
    for open in [0o2770, 0o770, 0o775, 0o2775] {
        mode(dir.path(), open);
        let refused = RuntimeDir::open(&allowing(group + 1), false).expect_err("another group was named").to_string();
        for part in [format!("writable by the group {group}"), format!("VDI_ALLOW_GID={group}")] {
            assert!(refused.contains(&part), "{refused}");
        }
        let runtime = RuntimeDir::open(&allowing(group), false).expect("the group was named");
        let listener = listen(&runtime, &name());
        is_reached(&runtime, &name(), &listener);
        runtime.remove(listener);
    }
    for open in [0o2777, 0o772] {
        mode(dir.path(), open);
        let refused = RuntimeDir::open(&allowing(group), false).expect_err("it is everybody's").to_string();
        assert!(refused.contains("is writable by everybody"), "{refused}");
    }
}

#[test]
fn a_missing_directory_is_created_on_request_only() {
    let parent = tempfile::tempdir().expect("a directory");
    let missing = parent.path().join("a/b");
    let error = RuntimeDir::open(&options(&missing), false).expect_err("there is none");
    assert!(matches!(&error, DirError::NotFound { path } if *path == missing), "{error}");
    assert_eq!(entries(parent.path()), 0);
    works_in(&missing);
    for made in [&missing, &parent.path().join("a")] {
        assert_eq!(std::fs::metadata(made).expect("it was made").permissions().mode() & 0o777, 0o700);
    }
}

/// The address of a socket has room for 107 bytes; longer paths work all the same, and so does each length around.
#[test]
fn paths_of_every_length() {
    let parent = tempfile::tempdir().expect("a directory");
    let base = parent.path().as_os_str().len() + 1;
    for len in (60..=110).chain([300, 1000]) {
        let mut dir = parent.path().to_owned();
        let mut left = len - base;
        while left > 200 {
            dir.push("d".repeat(199));
            left -= 200;
        }
        dir.push("d".repeat(left));
        works_in(&dir);
    }
}

#[test]
fn names_have_their_own_files_and_any_name_will_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = open(dir.path());
    let names = ["", "a", "A", "..", "/etc/passwd", "a/b", "a\nb", "Größe", "\u{10348}", "{0F8FAD5B-D9CB-469F-A165}"];
    let mut listeners = Vec::new();
    for name in names.map(str::to_owned).into_iter().chain(["x".repeat(300), "\u{10348}".repeat(128)]) {
        for namespace in ["", "other"] {
            let name = SocketName::new(namespace, &name);
            listeners.push((listen(&runtime, &name), name));
        }
    }
    assert_eq!(entries(dir.path()), listeners.len());
    for (listener, name) in &listeners {
        is_reached(&runtime, name, listener);
    }
    for (listener, _) in listeners {
        runtime.remove(listener);
    }
    assert_eq!(entries(dir.path()), 0);
}

/// Dead sockets are removed; nothing else is, whatever it is called.
#[test]
fn other_files_are_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("target");
    std::fs::write(&target, "mine").expect("a file");
    std::fs::write(dir.path().join("notes.vdi"), "mine").expect("a file");
    symlink(&target, dir.path().join("link.vdi")).expect("a link");
    std::fs::create_dir(dir.path().join("folder.vdi")).expect("a folder");
    drop(UnixListener::bind(dir.path().join("dead.vdi")).expect("a socket"));
    drop(UnixListener::bind(dir.path().join("other.sock")).expect("a socket"));
    let live = UnixListener::bind(dir.path().join("live.vdi")).expect("a socket");
    let runtime = open(dir.path());
    runtime.remove(listen(&runtime, &name()));
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["folder.vdi", "link.vdi", "live.vdi", "notes.vdi", "other.sock", "target"]);
    assert_eq!(std::fs::read(dir.path().join("notes.vdi")).expect("a file"), b"mine");
    drop(live);
}

/// What is at a name and is no socket of this crate is neither removed nor followed nor connected to.
#[test]
fn other_things_at_a_name_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = open(dir.path());
    let path = runtime.path_of(&name());
    let refused = |fragments: [&str; 2]| {
        let listening = runtime.listen(&name(), &Access::default()).expect_err("not free");
        assert!(matches!(listening, ListenError::Untrusted(_)), "{listening:?}");
        let connecting = runtime.connect(&name(), &Access::default()).expect_err("no listener");
        assert!(matches!(connecting, ConnectError::Untrusted(_)), "{connecting:?}");
        for (text, fragment) in [listening.to_string(), connecting.to_string()].iter().zip(fragments) {
            assert!(text.contains(fragment), "{text}");
        }
    };
    std::fs::write(&path, "mine").expect("a file");
    refused(["is a file of uid", "is no socket but a file"]);
    std::fs::remove_file(&path).expect("our own");
    symlink("nowhere", &path).expect("a link");
    refused(["is a link of uid", "is no socket but a link"]);
    std::fs::remove_file(&path).expect("our own");
    let other = UnixListener::bind(&path).expect("a socket");
    refused(["is a socket of uid", "but of another program"]);
    drop(other);
    // Nothing listens there any more.
    assert!(matches!(runtime.connect(&name(), &Access::default()), Err(ConnectError::NotFound { .. })));
    works_in(dir.path());
}

/// Many at once listen under one name: one gets it.
#[test]
fn one_winner() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = open(dir.path());
    for _ in 0..5 {
        let won: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|index| {
                    let runtime = &runtime;
                    // With a directory of its own, as another process has, and with a shared one.
                    let own = (index % 2 == 0).then(|| open(dir.path()));
                    scope.spawn(move || own.as_ref().unwrap_or(runtime).listen(&name(), &Access::default()))
                })
                .collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let lost = won.iter().filter_map(|listener| listener.as_ref().err());
        assert!(lost.clone().all(|error| matches!(error, ListenError::InUse { .. })), "{:?}", lost.collect::<Vec<_>>());
        let mut won = won.into_iter().filter_map(Result::ok);
        let listener = won.next().expect("a winner");
        assert!(won.next().is_none(), "two listeners have the name");
        is_reached(&runtime, &name(), &listener);
        runtime.remove(listener);
        assert_eq!(entries(dir.path()), 0);
    }
}

/// A listener that ends removes its own socket, and not one that another process has bound since at the same name.
#[test]
fn a_socket_that_was_bound_anew_is_not_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (runtime, other) = (open(dir.path()), open(dir.path()));
    let old = listen(&runtime, &name());
    std::fs::remove_file(runtime.path_of(&name())).expect("our own");
    let new = listen(&other, &name());
    runtime.remove(old);
    is_reached(&runtime, &name(), &new);
    other.remove(new);
    assert_eq!(entries(dir.path()), 0);
}

/// Whether a socket is dead is checked under the lock. A socket that another process binds under its lock stays.
#[test]
fn a_dead_socket_is_removed_under_the_lock_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = open(dir.path());
    let path = runtime.path_of(&name());
    drop(listen(&runtime, &name()));
    let lock = File::open(dir.path()).expect("our own");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| runtime.remove_if_dead(&name()));
        // As a process that listens does under the lock.
        std::fs::remove_file(&path).expect("the dead one is still there");
        let socket = bind_at(&path);
        rustix::fs::flock(&lock, FlockOperation::Unlock).expect("our own");
        assert!(!removing.join().expect("no panic"), "a live socket is not dead");
        assert!(path.exists());
        drop(socket);
    });
    assert!(runtime.remove_if_dead(&name()) && !path.exists());
    assert!(runtime.remove_if_dead(&name()), "gone already");
}

/// Whether the thread of this name sleeps.
fn sleeps(thread: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    tasks
        .map(|task| task.path())
        .any(|task| read(task.join("comm")).trim() == thread && read(task.join("status")).contains("State:\tS"))
}

/// A process that connects between another one's steps of making the socket waits until it is made.
#[test]
fn a_socket_that_is_being_made_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = open(dir.path());
    let path = runtime.path_of(&name());
    // As a process that listens does under the lock.
    let lock = File::open(dir.path()).expect("our own");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a socket");
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path).expect("a short path")).expect("a free name");
    std::thread::scope(|scope| {
        let connect = || runtime.connect(&name(), &Access::default());
        let connecting = std::thread::Builder::new().name("connects".to_owned()).spawn_scoped(scope, connect);
        let connecting = connecting.expect("a thread");
        while !sleeps("connects") && !connecting.is_finished() {
            std::thread::yield_now();
        }
        rustix::net::listen(&socket, 8).expect("its own socket");
        rustix::fs::flock(&lock, FlockOperation::Unlock).expect("our own");
        connecting.join().expect("no panic").expect("the listener");
    });
}

/// Listeners begin, end and die at one name, while others remove dead sockets. Each listener is reached as long as it lives.
#[test]
fn a_live_socket_is_never_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let listened = AtomicU32::new(0);
    let shared = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            // With a directory of its own, as another process has, and with a shared one.
            let (own, shared, listened) = ((thread < 2).then(|| open(dir.path())), &shared, &listened);
            scope.spawn(move || {
                let runtime = own.as_ref().unwrap_or(shared);
                while listened.load(Ordering::Relaxed) < 200 {
                    match runtime.listen(&name(), &Access::default()) {
                        Ok(listener) => {
                            is_reached(runtime, &name(), &listener);
                            let number = listened.fetch_add(1, Ordering::Relaxed);
                            // Every other one dies without a word.
                            if number % 2 == 0 { runtime.remove(listener) } else { drop(listener) }
                        }
                        Err(ListenError::InUse { .. }) if thread % 2 == 0 => {
                            runtime.remove_if_dead(&name());
                        }
                        Err(ListenError::InUse { .. }) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    open(dir.path()).remove_if_dead(&name());
    assert_eq!(entries(dir.path()), 0);
}

/// A socket is for others to connect to only where the access rule names others, whatever the umask is.
#[test]
fn the_mode_follows_the_access_rule() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = open(dir.path());
    for (access, expected) in [
        (Access::default(), 0o600),
        (Access { uids: vec![65534], gids: Vec::new() }, 0o666),
        (Access { uids: Vec::new(), gids: vec![4] }, 0o666),
    ] {
        let listener = runtime.listen(&name(), &access).expect("a free name");
        let found = std::fs::metadata(runtime.path_of(&name())).expect("a socket").permissions().mode() & 0o777;
        assert_eq!(found, expected, "{access:?}");
        assert!(listener.as_fd().try_clone_to_owned().is_ok());
        runtime.remove(listener);
    }
}
