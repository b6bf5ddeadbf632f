//! Other users, and what they can put in the way of an honest process. Each is refused with the reason, the set is not
//! harmed, and the next honest process is served. Where this user is not root the tests that need another user are skipped
//! visibly.

#[path = "../common/mod.rs"]
mod common;

mod descriptors;
mod file_systems;
mod groups;
mod near_misses;

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{
    Child, INSTANCE, SET, eventually, is_root, message, names, options, receive, send, seqpacket, skip, socket_name,
};
use rustix::event::{PollFd, PollFlags};
use rustix::net::SocketAddrUnix;
use vdi_proto::status::VdError;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_shm::ipc::link::Link;
use vdi_shm::ipc::runtime::{Access, RuntimeDir};
use vdi_shm::set::primary::{HELLO_TIMEOUT, MAX_PENDING};
use vdi_shm::set::server::Server;

const NO_ROOT: &str = "only root can become another user";

#[test]
fn child_entry() {
    common::child_entry();
}

/// A directory in the system's one for temporary files, with a mode.
fn directory(mode: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    chmod(dir.path(), mode);
    dir
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own");
}

/// A process of another user, which trusts root.
fn other_user(dir: &Path, uid: u32) -> Child {
    let mut child = Child::new(dir);
    child.ok(&format!("become {uid}"));
    child.ok("allow 0");
    child
}

/// Where the set [`SET`] would have its socket in this directory.
fn socket_in(dir: &Path) -> PathBuf {
    // The file has the same name in each directory. This one is trusted, so it can be opened.
    let trusted = directory(0o700);
    let path = RuntimeDir::open(&options(trusted.path()), false).expect("a directory").path_of(&socket_name());
    dir.join(path.file_name().expect("a name"))
}

/// An honest server can join and leave.
fn serves(dir: &Path) {
    let mut server = Child::new(dir);
    eventually("the server's index to be free", || server.ask("join server nightly") == "ok 0");
    server.ok("leave");
}

/// Without permission to read the runtime directory, to search it, or to search one above it.
#[test]
fn directories_that_are_closed_to_a_user() {
    if !is_root() {
        return skip("directories_that_are_closed_to_a_user", NO_ROOT);
    }
    let above = directory(0o755);
    let dir = above.path().join("vdi");
    std::fs::create_dir(&dir).expect("a directory");
    let mut primary = Child::new(&dir);
    // The set allows this user. Only the directory is closed.
    primary.ok("allow 65534");
    primary.ok("create nightly");
    let mut user = other_user(&dir, 65534);
    let remedies = ["by uid 65534", "run as the same user", "VDI_ALLOW_UID=0 for this process and VDI_ALLOW_UID=65534"];
    for (mode, reason) in [(0o700, "(mode 700)"), (0o711, "(mode 711)"), (0o744, "may not be searched by uid 65534")] {
        chmod(&dir, mode);
        user.refused("join server nightly", "Security", &[&[reason][..], &remedies[..]].concat());
    }
    chmod(&dir, 0o755);
    chmod(above.path(), 0o700);
    let which = format!("{} of uid 0, gid 0 (mode 700), may not be searched by uid 65534", above.path().display());
    user.refused("join server nightly", "Security", &["a directory above", &which]);
    chmod(above.path(), 0o755);
    // A user that may only read cannot make a set there, or the directory.
    let whose = format!("{} of uid 0, gid 0 (mode 755) by uid 65534", dir.display());
    user.refused("create weekly", "Security", &["no socket may be made in", &whose, "VDI_RUNTIME_DIR"]);
    let mut elsewhere = other_user(&above.path().join("none/vdi"), 65534);
    let whose = format!("in {} of uid 0, gid 0 (mode 755)", above.path().display());
    elsewhere.refused("create weekly", "Security", &["may not be created by uid 65534", &whose, "VDI_RUNTIME_DIR"]);
    assert_eq!(names(above.path()), ["vdi"]);
    assert_eq!(names(&dir).len(), 1);
    assert_eq!(user.ok("join server nightly"), "0");
}

/// By uid or by gid, by the primary and by the joiner. The permission of one side is not enough.
#[test]
fn both_sides_have_to_allow_each_other() {
    if !is_root() {
        return skip("both_sides_have_to_allow_each_other", NO_ROOT);
    }
    let dir = directory(0o755);
    for (primary_allows, joiner_allows, reasons) in [
        ("", "", &["may not be used by uid 65533", "(mode 600)"][..]),
        ("", "allow 0", &["may not be used by uid 65533"]),
        (
            "allow 65532",
            "allow 0",
            &["refused this process", "not uid 65533", "set VDI_ALLOW_UID=65533 where the set is created"],
        ),
        ("allow-group 4", "allow 0", &["admits uid 0, gid 4, not uid 65533", "set VDI_ALLOW_UID=65533"]),
        ("allow 65533", "", &["of uid 0, whom this process does not trust"]),
        ("allow 65533", "allow 1", &["of uid 0, whom this process does not trust"]),
        ("allow-group 65534", "allow-group 1", &["of uid 0, whom this process does not trust"]),
        ("allow 65533", "allow 0", &[]),
        ("allow 65533", "allow-group 0", &[]),
        ("allow-group 65534", "allow 0", &[]),
        ("allow-group 65534", "allow-group 0", &[]),
    ] {
        let what = format!("primary: {primary_allows:?}, joiner: {joiner_allows:?}");
        let mut primary = Child::new(dir.path());
        let mut joiner = Child::new(dir.path());
        joiner.ok("become 65533");
        for (child, allows) in [(&mut primary, primary_allows), (&mut joiner, joiner_allows)] {
            if !allows.is_empty() {
                child.ok(allows);
            }
        }
        primary.ok("create nightly");
        let before = primary.ok("resources");
        if reasons.is_empty() {
            assert_eq!(joiner.ok("join server nightly"), "0", "{what}");
            continue;
        }
        joiner.refused("join server nightly", "Security", reasons);
        if reasons.contains(&"refused this process") {
            let joiners = primary.ok("joiners");
            let told = format!(
                "uid 65533 (process {}) tried to join as the server and was refused: VD_E_SECURITY",
                joiner.pid()
            );
            assert!(joiners.contains(&told), "{joiners}");
        }
        serves(dir.path());
        eventually(&what, || primary.ok("resources") == before);
    }
}

/// A process that is not allowed learns nothing about the set, not even that it asked for another one.
#[test]
fn users_that_are_not_allowed_are_told_nothing_of_the_set() {
    if !is_root() {
        return skip("users_that_are_not_allowed_are_told_nothing_of_the_set", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("create weekly");
    let weekly = dir.path().join(&names(dir.path())[0]);
    primary.ok("close");
    primary.ok("allow 65532");
    primary.ok("create nightly");
    std::fs::hard_link(socket_in(dir.path()), &weekly).unwrap();
    let said = other_user(dir.path(), 65533).ask("join server weekly");
    assert!(said.contains("Security") && said.contains("not uid 65533"), "{said}");
    assert!(!said.contains("nightly"), "{said}");
    std::fs::remove_file(weekly).unwrap();
    serves(dir.path());
}

/// A link on the path is followed where this user or root owns it, and not where another user could change it.
#[test]
fn links_on_the_path() {
    let above = directory(0o1777);
    let real = above.path().join("real");
    std::fs::create_dir_all(real.join("vdi")).expect("a directory");
    let own = above.path().join("own");
    symlink(&real, &own).expect("a link");
    let mut primary = Child::new(&own.join("vdi"));
    primary.ok("create nightly");
    serves(&own.join("vdi/"));
    if !is_root() {
        return skip("links_on_the_path, of other users", NO_ROOT);
    }
    let theirs = above.path().join("theirs");
    other_user(above.path(), 65534).ok(&format!("link {} {}", real.display(), theirs.display()));
    for dir in ["theirs/vdi", "theirs/vdi/", "theirs/made/vdi", "theirs/./made/../vdi"] {
        let mut honest = Child::new(&above.path().join(dir));
        for command in ["create weekly", "join server nightly"] {
            honest.refused(command, "Security", &["a link of uid 65534", "set VDI_RUNTIME_DIR"]);
        }
        // A process that trusts that user trusts its links.
        honest.ok("allow 65534");
        honest.ask("create weekly");
        honest.ask("close");
    }
    assert_eq!(names(&real.join("vdi")).len(), 1);
    serves(&real.join("vdi"));
}

#[test]
fn a_directory_that_everybody_can_rename_is_on_no_path() {
    let above = directory(0o755);
    let between = above.path().join("between");
    let dir = between.join("vdi");
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut primary = Child::new(&dir);
    primary.ok("create nightly");
    chmod(&between, 0o777);
    let mut other = Child::new(&dir);
    for command in ["create weekly", "join server nightly"] {
        other.refused(
            command,
            "Security",
            &["above the runtime directory", "(mode 777) without the sticky bit", "chmod"],
        );
    }
    chmod(&between, 0o1777);
    serves(&dir);
}

/// Another user owns the directory. It is refused even where it is sticky.
#[test]
fn sticky_directories_of_others() {
    if !is_root() {
        return skip("sticky_directories_of_others", "only root can give a directory away");
    }
    let dir = directory(0o1777);
    std::os::unix::fs::chown(dir.path(), Some(65534), None).expect("root can");
    let mut honest = Child::new(dir.path());
    for command in ["create nightly", "join server nightly"] {
        honest.refused(
            command,
            "Security",
            &["belongs to uid 65534, this process runs as uid 0", "VDI_ALLOW_UID=65534"],
        );
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

/// After the directory was validated another one is put in its place. The set is made in, and found in, the one that was
/// validated.
#[test]
fn a_swapped_directory_is_not_used() {
    let above = directory(0o755);
    let (dir, aside) = (above.path().join("vdi"), above.path().join("aside"));
    std::fs::create_dir(&dir).expect("a directory");
    let name = socket_name();
    let runtime = RuntimeDir::open(&options(&dir), false).expect("a directory");
    let swap = || {
        std::fs::rename(&dir, &aside).expect("our own");
        std::fs::create_dir(&dir).expect("a directory");
    };
    swap();
    let listener = runtime.listen(&name, &Access::default()).expect("a socket");
    assert_eq!((names(&dir).len(), names(&aside).len()), (0, 1), "the set was made in the wrong directory");
    // The attacker listens in the other directory.
    let theirs = seqpacket();
    rustix::net::bind(&theirs, &SocketAddrUnix::new(socket_in(&dir)).expect("a short path")).expect("a free name");
    rustix::net::listen(&theirs, 8).expect("a socket");
    drop(runtime.connect(&name, &Access::default()).expect("the honest set"));
    let mut waiting = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&theirs, PollFlags::IN)];
    rustix::event::poll(&mut waiting, None).expect("a connection");
    assert!(!waiting[0].revents().is_empty() && waiting[1].revents().is_empty(), "the attacker's set was joined");
    // Dead sockets are removed from the directory that was validated, too.
    drop(theirs);
    drop(listener);
    let again = runtime.listen(&name, &Access::default()).expect("the dead one's name is free");
    assert_eq!((names(&dir).len(), names(&aside).len()), (1, 1));
    drop(again);
}

/// In a directory that users share another user takes the set's name first.
#[test]
fn names_that_another_user_took() {
    if !is_root() {
        return skip("names_that_another_user_took", NO_ROOT);
    }
    let dir = directory(0o1777);
    let socket = socket_in(dir.path());
    let mut squatter = Child::new(dir.path());
    squatter.ok("become 65534");
    squatter.ok(&format!("listen {}", socket.display()));
    let who = format!("process {} of uid 65534", squatter.pid());
    let mut honest = Child::new(dir.path());
    let mut weak = other_user(dir.path(), 65533);
    for primary in [&mut honest, &mut weak] {
        let before = primary.ok("resources");
        primary.refused("create nightly", "Security", &["the name is taken", &who, "removed by root"]);
        primary.refused("join server nightly", "Security", &[&who, "whom this process does not trust"]);
        assert_eq!(primary.ok("resources"), before);
    }
    // A socket whose listener cannot even be asked for.
    chmod(&socket, 0o600);
    weak.refused("create nightly", "Security", &["the name is taken", "belongs to uid 65534", "removed by root"]);
    weak.refused("join server nightly", "Security", &["of uid 65534 (mode 600) may not be used by uid 65533"]);
    chmod(&socket, 0o666);
    assert!(std::fs::metadata(&socket).expect("the squatter's").file_type().is_socket(), "it was removed");
    // Other names are free.
    honest.ok("create weekly");
    honest.ok("close");
    // Root can remove the dead squatter's socket, another user cannot.
    squatter.kill();
    weak.refused(
        "create nightly",
        "Security",
        &["a dead process of uid 65534 left the socket", "removed by that user"],
    );
    honest.ok("create nightly");
    serves(dir.path());
}

/// Other files of this user at the name of a set's socket are neither removed nor followed.
#[test]
fn other_files_at_the_name_of_a_set() {
    let elsewhere = directory(0o700);
    let mut other = Child::new(elsewhere.path());
    other.ok("create nightly");
    let live = socket_in(elsewhere.path());
    let dir = directory(0o700);
    let path = socket_in(dir.path());
    type Make<'a> = Box<dyn Fn(&Path) + 'a>;
    let made: [(&str, Make<'_>); 6] = [
        ("a file", Box::new(|path| std::fs::write(path, "mine").expect("a file"))),
        ("a directory", Box::new(|path| std::fs::create_dir(path).expect("a directory"))),
        ("a link", Box::new(|path| symlink(&live, path).expect("a link"))),
        ("a link", Box::new(|path| symlink("nowhere", path).expect("a link"))),
        ("a FIFO", Box::new(|path| rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).expect("a FIFO"))),
        ("a socket", Box::new(|path| drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")))),
    ];
    let mut honest = Child::new(dir.path());
    let before = honest.ok("resources");
    for (kind, make) in made {
        make(&path);
        // A socket of any kind on which nobody listens is a dead one.
        if kind == "a socket" {
            break;
        }
        let inode = std::fs::symlink_metadata(&path).expect("it was made").ino();
        honest.refused("create nightly", "Security", &[kind, "where the socket would be", "remove it"]);
        honest.refused("join server nightly", "Security", &["is no socket but", kind, "remove it"]);
        assert_eq!(std::fs::symlink_metadata(&path).expect("it was removed").ino(), inode, "{kind}");
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).expect("our own");
    }
    std::fs::remove_file(&path).expect("our own");
    // A live program that has nothing to do with sets.
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    honest.refused("create nightly", "Security", &["is a socket of uid", "but of another program", "end the program"]);
    honest.refused("join server nightly", "Security", &["is a socket of uid", "but of another program"]);
    assert_eq!(honest.ok("resources"), before);
    drop(listener);
    honest.ok("create nightly");
    serves(dir.path());
    serves(elsewhere.path());
}

/// Credentials are those of the process that connected, when it connected. Later changes of its user, and passing the
/// connection on, change nothing.
#[test]
fn credentials_are_those_of_the_process_that_connected() {
    if !is_root() {
        return skip("credentials_are_those_of_the_process_that_connected", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65533");
    primary.ok("create nightly");
    // Allowed when it connected, another user when it sends Hello.
    let mut changed = Child::new(dir.path());
    changed.ok("connect 1 nightly");
    changed.ok("become 65534");
    assert_eq!(changed.ok("hello nightly"), "welcome");
    changed.refused("connect 1 nightly", "Security", &["uid 0, whom this process does not trust"]);
    primary.await_abort();
    drop(changed);
    assert_eq!(primary.abort_seen().1, "the server died");
    primary.ok("close");
    // The connection of a user that is not allowed, in the hands of one that is.
    primary.ok("create nightly");
    let path = dir.path().join("post");
    let listener = seqpacket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("a free name");
    rustix::net::listen(&listener, 1).expect("a socket");
    chmod(&path, 0o666);
    let mut refused = other_user(dir.path(), 65534);
    refused.ok("connect 1 nightly");
    refused.ok(&format!("send-connection {}", path.display()));
    let link = Link::new(rustix::net::accept(&listener).expect("a connection"));
    let mut packet = receive(&link).expect("a connection");
    let passed = Link::new(packet.take_descriptor().expect("a connection"));
    send(&passed, &Message::Hello { role: JoinRole::Server, instance: INSTANCE, set: SET }, None);
    let packet = receive(&passed).expect("an answer");
    assert!(matches!(message(&packet), Message::Refused(Refusal { status: VdError::Security, .. })));
    serves(dir.path());
}

/// Users that are not allowed connect as fast as they can. Joiners and members are served meanwhile, and no resources are
/// kept.
#[test]
fn refused_users_that_connect_without_end() {
    if !is_root() {
        return skip("refused_users_that_connect_without_end", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65532");
    primary.ok("create nightly");
    let before = primary.ok("resources");
    let mut users = [65533, 65534].map(|uid| other_user(dir.path(), uid));
    for user in &mut users {
        // Some connections stay, and fill what is kept for such users.
        user.ok(&format!("connect {MAX_PENDING} nightly"));
        user.send("connect-and-close 20000 nightly");
    }
    let begun = Instant::now();
    let mut server = Child::new(dir.path());
    server.ok("join server nightly");
    server.ok("class 4096 4096 4");
    let served = begun.elapsed();
    server.ok("configure");
    primary.await_abort();
    server.kill();
    assert_eq!(primary.abort_seen().1, "the server died");
    let noticed = begun.elapsed();
    for user in &mut users {
        assert!(user.answer().starts_with("ok "));
    }
    assert!(served < HELLO_TIMEOUT, "the server waited {served:?} behind refused users");
    assert!(noticed < 2 * HELLO_TIMEOUT, "a death was noticed after {noticed:?}");
    drop(users);
    primary.ok("close");
    primary.ok("create nightly");
    eventually("the connections of refused users to be closed", || primary.ok("resources") == before);
    serves(dir.path());
}

/// A process that could open the descriptors of a member would have the set's memory.
#[test]
fn other_users_cannot_open_descriptors() {
    if !is_root() {
        return skip("other_users_cannot_open_descriptors", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65534");
    primary.ok("create nightly");
    let open = format!("open-descriptors {}", primary.pid());
    // Not even a user that may join. It gets them from the primary or not at all.
    assert_eq!(other_user(dir.path(), 65534).ok(&open), "0 false false");
    let own = Child::new(dir.path()).ok(&open);
    assert!(own.ends_with("true true") && !own.starts_with("0 "), "the test opens the wrong files: {own}");
}

/// A process in a container of its own has no process id outside. It joins by its uid all the same.
#[test]
fn peers_without_a_process_id() {
    const TEST: &str = "peers_without_a_process_id";
    let can = std::process::Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip(TEST, "this user cannot give a child process ids of its own");
    }
    let dir = directory(0o755);
    let mut outside = Child::new(dir.path());
    outside.ok("create nightly");
    let mut inside = Child::in_a_container(dir.path());
    assert_eq!(inside.ok("join server nightly"), "0");
    inside.ok("leave");
    // And the other way round.
    inside.ok("create weekly");
    outside.ok("close");
    assert_eq!(outside.ok("join server weekly"), "0");
    outside.ok("leave");
    if !is_root() {
        return skip("peers_without_a_process_id, of other users", NO_ROOT);
    }
    outside.ok("allow 65533");
    outside.ok("create nightly");
    inside.ok("become 65534");
    inside.refused("join server nightly", "Security", &["process 0 of uid 0, whom this process does not trust"]);
    inside.ok("allow 0");
    inside.refused("join server nightly", "Security", &["refused this process"]);
    serves(dir.path());
}

/// A umask that takes this user's own permissions away, and one that takes none away.
#[test]
fn extreme_umasks() {
    let above = directory(0o1777);
    for umask in ["0", "777"] {
        let dir = above.path().join(umask).join("vdi");
        let mut primary = Child::new(&dir);
        // Root may do everything with every mode.
        if is_root() {
            primary.ok("become 65533");
        } else {
            skip("extreme_umasks, as another user", NO_ROOT);
        }
        primary.ok(&format!("umask {umask}"));
        primary.ok("create nightly");
        for (path, mode) in [(dir.clone(), 0o700), (dir.join("..").clone(), 0o700), (socket_in(&dir), 0o600)] {
            let found = std::fs::metadata(&path).expect("it was made").mode() & 0o7777;
            assert_eq!(found, mode, "{} with umask {umask}: {found:o}", path.display());
        }
        let mut server = Child::new(&dir);
        if is_root() {
            server.ok("become 65533");
        }
        assert_eq!(server.ok("join server nightly"), "0");
    }
}

/// A process of the same user that listens at a set's name and never answers: joiners time out, and creators find the name
/// taken.
#[test]
fn a_silent_squatter_of_the_same_user() {
    let dir = directory(0o700);
    let mut squatter = Child::new(dir.path());
    squatter.ok(&format!("listen {}", socket_in(dir.path()).display()));
    let mut honest = Child::new(dir.path());
    honest.refused("create nightly", "Protocol", &["exists already", "choose another name"]);
    let begun = Instant::now();
    let error = Server::join(&options(dir.path()), INSTANCE, SET).expect_err("no answer");
    assert_eq!(error.code(), VdError::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(30));
    squatter.kill();
    honest.ok("create nightly");
    serves(dir.path());
}
