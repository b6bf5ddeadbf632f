//! Other users, and what they can put into an honest process's way: each is refused with the reason, nothing of the set is
//! spoilt by it, and the next honest process is served. Where this is not root nobody can become another user, and the tests
//! that need one say so.

mod common;

use std::fs::Permissions;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::descriptors::{SEALED, huge_pages, memfd, no_segments};
use common::{AREA_LEN, Child, INSTANCE, PATIENCE, eventually, is_root, names, options, seqpacket, skip};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::SealFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use vdi_proto::config::VdConfig;
use vdi_proto::join::{Message, Role};
use vdi_proto::layout::{SERVER_MEMBER, control_len};
use vdi_proto::status::VdError;
use vdi_shm::control::Control;
use vdi_shm::host::{HELLO_PATIENCE, Host, MAX_PENDING};
use vdi_shm::link::{Link, Received};
use vdi_shm::member::Member;
use vdi_shm::runtime::{Access, Options, Place, RuntimeDir};

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

/// A process of another user, who trusts root.
fn stranger(dir: &Path, uid: u32) -> Child {
    let mut child = Child::new(dir);
    child.ok(&format!("become {uid}"));
    child.ok("allow 0");
    child
}

/// Where the set "nightly" of these tests has its socket.
fn socket_in(dir: &Path) -> PathBuf {
    let place = Place::new(INSTANCE, "nightly").expect("a name");
    // In a directory that is trusted, since the name is the same in each.
    let trusted = directory(0o700);
    let path = RuntimeDir::open(&options(trusted.path()), false).expect("a directory").path_of(&place);
    dir.join(path.file_name().expect("a name"))
}

/// An honest server is served by the set.
fn serves(dir: &Path) {
    let mut server = Child::new(dir);
    eventually("the server's place to be free", || server.ask("join server nightly") == "ok 0");
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
    // Whom the set lets in: it is the directory alone that is closed.
    primary.ok("allow 65534");
    primary.ok("create nightly");
    let mut guest = stranger(&dir, 65534);
    for (mode, reason) in [(0o700, "mode 700"), (0o711, "mode 711"), (0o744, "may not be used by uid 65534")] {
        chmod(&dir, mode);
        guest.refused("join server nightly", "Security", &[reason, "by uid 65534", "run as the same user"]);
    }
    chmod(&dir, 0o755);
    chmod(above.path(), 0o700);
    guest.refused("join server nightly", "Security", &["a directory above", "may not be searched by uid 65534"]);
    chmod(above.path(), 0o755);
    // Nor can one who may only read make a set there, or the directory.
    guest.refused("create weekly", "Security", &["no socket may be made in", "by uid 65534", "VDI_RUNTIME_DIR"]);
    let mut elsewhere = stranger(&above.path().join("none/vdi"), 65534);
    elsewhere.refused("create weekly", "Security", &["may not be created by uid 65534", "VDI_RUNTIME_DIR"]);
    assert_eq!(names(above.path()), ["vdi"]);
    assert_eq!(names(&dir).len(), 1);
    assert_eq!(guest.ok("join server nightly"), "0");
}

/// By uid or by gid, by the primary and by the joiner: one side's permission is none.
#[test]
fn both_sides_have_to_allow_each_other() {
    if !is_root() {
        return skip("both_sides_have_to_allow_each_other", NO_ROOT);
    }
    let dir = directory(0o755);
    for (primary_allows, joiner_allows, reasons) in [
        ("", "", &["may not be used by uid 65533", "(mode 600)"][..]),
        ("", "allow 0", &["may not be used by uid 65533"]),
        ("allow 65532", "allow 0", &["refused this process", "allow this uid or gid"]),
        ("allow-group 4", "allow 0", &["refused this process", "allow this uid or gid"]),
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
        serves(dir.path());
        eventually(&what, || primary.ok("resources") == before);
    }
}

/// A link on the way is followed where it is one's own or root's, and not where a stranger could turn it.
#[test]
fn links_on_the_way() {
    let above = directory(0o1777);
    let real = above.path().join("real");
    std::fs::create_dir_all(real.join("vdi")).expect("a directory");
    let own = above.path().join("own");
    symlink(&real, &own).expect("a link");
    let mut primary = Child::new(&own.join("vdi"));
    primary.ok("create nightly");
    serves(&own.join("vdi/"));
    if !is_root() {
        return skip("links_on_the_way, of strangers", NO_ROOT);
    }
    let theirs = above.path().join("theirs");
    stranger(above.path(), 65534).ok(&format!("link {} {}", real.display(), theirs.display()));
    for dir in ["theirs/vdi", "theirs/vdi/", "theirs/made/vdi", "theirs/./made/../vdi"] {
        let mut honest = Child::new(&above.path().join(dir));
        for command in ["create weekly", "join server nightly"] {
            honest.refused(command, "Security", &["a link of uid 65534", "set VDI_RUNTIME_DIR"]);
        }
        // Whoever trusts that user trusts his links.
        honest.ok("allow 65534");
        honest.ask("create weekly");
        honest.ask("close");
    }
    assert_eq!(names(&real.join("vdi")).len(), 1);
    serves(&real.join("vdi"));
}

#[test]
fn what_everybody_can_rename_is_on_no_way() {
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

/// Another user owns the directory: also where it is sticky, and also when he made it for this user.
#[test]
fn sticky_directories_of_others() {
    if !is_root() {
        return skip("sticky_directories_of_others", "only root can give a directory away");
    }
    let dir = directory(0o1777);
    std::os::unix::fs::chown(dir.path(), Some(65534), None).expect("root can");
    let mut honest = Child::new(dir.path());
    for command in ["create nightly", "join server nightly"] {
        honest.refused(command, "Security", &["belongs to uid 65534, this process runs as uid 0", "allow that uid"]);
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

/// Between the look at the directory and what is done in it somebody puts another one into its place: the set is made in,
/// and found in, the one that was looked at.
#[test]
fn swapped_directories_lead_nobody_elsewhere() {
    let above = directory(0o755);
    let (dir, aside) = (above.path().join("vdi"), above.path().join("aside"));
    std::fs::create_dir(&dir).expect("a directory");
    let place = Place::new(INSTANCE, "nightly").expect("a name");
    let runtime = RuntimeDir::open(&options(&dir), false).expect("a directory");
    let swap = || {
        std::fs::rename(&dir, &aside).expect("our own");
        std::fs::create_dir(&dir).expect("a directory");
    };
    swap();
    let listener = runtime.listen(&place, &Access::default()).expect("a socket");
    assert_eq!((names(&dir).len(), names(&aside).len()), (0, 1), "the set was made in the wrong directory");
    // The attacker listens in his own.
    let theirs = seqpacket();
    rustix::net::bind(&theirs, &SocketAddrUnix::new(socket_in(&dir)).expect("a short path")).expect("a free name");
    rustix::net::listen(&theirs, 8).expect("a socket");
    drop(runtime.connect(&place, &Access::default()).expect("the honest set"));
    let has_joiner = |listener: &OwnedFd| {
        let mut knocking = [PollFd::new(listener, PollFlags::IN)];
        rustix::event::poll(&mut knocking, Some(&rustix::event::Timespec::default())).expect("a look") == 1
    };
    assert!(has_joiner(&listener) && !has_joiner(&theirs), "the attacker's set was joined");
    // What is swept is what lies in the directory that was looked at, too.
    drop(theirs);
    drop(listener);
    let again = runtime.listen(&place, &Access::default()).expect("the dead one's name is free");
    assert_eq!((names(&dir).len(), names(&aside).len()), (1, 1));
    drop(again);
}

/// In a directory that users share another one takes the set's name first.
#[test]
fn squatted_names() {
    if !is_root() {
        return skip("squatted_names", NO_ROOT);
    }
    let dir = directory(0o1777);
    let socket = socket_in(dir.path());
    let mut squatter = Child::new(dir.path());
    squatter.ok("become 65534");
    squatter.ok(&format!("squat {}", socket.display()));
    let who = format!("process {} of uid 65534", squatter.pid());
    let mut honest = Child::new(dir.path());
    let mut weak = stranger(dir.path(), 65533);
    for primary in [&mut honest, &mut weak] {
        let before = primary.ok("resources");
        primary.refused("create nightly", "Security", &["the set's name is taken", &who, "removed by root"]);
        primary.refused("join server nightly", "Security", &[&who, "whom this process does not trust"]);
        assert_eq!(primary.ok("resources"), before);
    }
    // One that may not even be asked who it is.
    chmod(&socket, 0o600);
    weak.refused("create nightly", "Security", &["the set's name is taken", "belongs to uid 65534", "removed by root"]);
    weak.refused("join server nightly", "Security", &["of uid 65534 (mode 600) may not be used by uid 65533"]);
    chmod(&socket, 0o666);
    assert!(std::fs::metadata(&socket).expect("the squatter's").file_type().is_socket(), "it was removed");
    // Other names are free.
    honest.ok("create weekly");
    honest.ok("close");
    // What the squatter leaves is no longer in root's way, but a user's who may not remove it.
    squatter.kill();
    weak.refused(
        "create nightly",
        "Security",
        &["a dead process of uid 65534 left the socket", "removed by that user"],
    );
    honest.ok("create nightly");
    serves(dir.path());
}

/// Other things than a set's socket at its name, of this user: neither removed nor followed.
#[test]
fn what_is_no_socket_of_a_set() {
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
        // A socket on which nobody listens belongs to the dead, whatever kind it was.
        if kind == "a socket" {
            break;
        }
        let inode = std::fs::symlink_metadata(&path).expect("it was made").ino();
        honest.refused("create nightly", "Security", &[kind, "where the set's socket would be", "remove it"]);
        honest.refused("join server nightly", "Security", &["is no socket but", kind, "remove it"]);
        assert_eq!(std::fs::symlink_metadata(&path).expect("it was removed").ino(), inode, "{kind}");
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).expect("our own");
    }
    std::fs::remove_file(&path).expect("our own");
    // A program that has nothing to do with sets, and lives.
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    honest.refused("create nightly", "Security", &["is a socket of uid", "but not one of a set", "end the program"]);
    honest.refused("join server nightly", "Security", &["is a socket of uid", "but not one of a set"]);
    assert_eq!(honest.ok("resources"), before);
    drop(listener);
    honest.ok("create nightly");
    serves(dir.path());
    serves(elsewhere.path());
}

/// Credentials are those of the moment of connecting: what becomes of the process, or of its socket, changes nothing.
#[test]
fn credentials_are_those_of_who_connected() {
    if !is_root() {
        return skip("credentials_are_those_of_who_connected", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65533");
    primary.ok("create nightly");
    // Who was allowed when it connected is let in, as whomever it speaks then.
    let mut turned = Child::new(dir.path());
    turned.ok("crowd 1 nightly");
    turned.ok("become 65534");
    assert_eq!(turned.ok("hello nightly"), "welcome");
    turned.refused("crowd 1 nightly", "Security", &["uid 0, whom this process does not trust"]);
    drop(turned);
    primary.send("await-abort");
    assert_eq!(primary.answer(), "waiting");
    assert!(primary.answer().contains("server"), "a member that ends without a word has died");
    primary.ok("close");
    // A stranger's connection is a stranger's in whatever hands.
    primary.ok("create nightly");
    let post = dir.path().join("post");
    let listener = seqpacket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&post).expect("a short path")).expect("a free name");
    rustix::net::listen(&listener, 1).expect("a socket");
    chmod(&post, 0o666);
    let mut thief = stranger(dir.path(), 65534);
    thief.ok("crowd 1 nightly");
    thief.ok(&format!("pass-on {}", post.display()));
    let link = Link::new(rustix::net::accept(&listener).expect("the stranger"));
    let Received::Packet(mut packet) = link.receive_until(deadline(), "a socket").expect("a socket") else {
        panic!("no socket came");
    };
    let passed = Link::new(packet.take_descriptor().expect("a socket"));
    passed.send(&Message::Hello { role: Role::Server, instance: INSTANCE, set: "nightly" }, None).expect("a set");
    let answer = passed.receive_until(deadline(), "an answer").expect("an answer");
    let Received::Packet(packet) = answer else { panic!("{answer:?}") };
    assert_eq!(packet.message().expect("a message"), Message::Refused { status: VdError::Security });
    serves(dir.path());
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Strangers who may connect and do so as fast as they can: joiners and members are served meanwhile, and nothing of it stays.
#[test]
fn a_flood_of_strangers() {
    if !is_root() {
        return skip("a_flood_of_strangers", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65532");
    primary.ok("create nightly");
    let before = primary.ok("resources");
    let mut strangers = [65533, 65534].map(|uid| stranger(dir.path(), uid));
    for stranger in &mut strangers {
        // Some stay, to fill what there is for those who do not say who they are.
        stranger.ok(&format!("crowd {MAX_PENDING} nightly"));
        stranger.send("flood 20000 nightly");
    }
    let begun = Instant::now();
    let mut server = Child::new(dir.path());
    server.ok("join server nightly");
    server.ok("area 0");
    let served = begun.elapsed();
    server.ok("configure");
    primary.send("await-abort");
    assert_eq!(primary.answer(), "waiting");
    server.kill();
    assert!(primary.answer().contains("the server"), "the death of a member was missed");
    let heard = begun.elapsed();
    for stranger in &mut strangers {
        assert!(stranger.answer().starts_with("ok "));
    }
    assert!(served < HELLO_PATIENCE, "the server waited {served:?} behind strangers");
    assert!(heard < 2 * HELLO_PATIENCE, "a death was heard of after {heard:?}");
    drop(strangers);
    primary.ok("close");
    primary.ok("create nightly");
    eventually("the strangers' connections to be gone", || primary.ok("resources") == before);
    serves(dir.path());
}

/// The memory is in descriptors, and whoever can open those is in the set.
#[test]
fn descriptors_are_not_for_others_to_open() {
    if !is_root() {
        return skip("descriptors_are_not_for_others_to_open", NO_ROOT);
    }
    let dir = directory(0o755);
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65534");
    primary.ok("create nightly");
    let peek = format!("peek {}", primary.pid());
    // Not even for one who may join: he gets them from the primary or not at all.
    assert_eq!(stranger(dir.path(), 65534).ok(&peek), "0 false false");
    let own = Child::new(dir.path()).ok(&peek);
    assert!(own.ends_with("true true") && !own.starts_with("0 "), "the test looks in the wrong place: {own}");
}

/// A process in a container of its own has no process id for those outside: it joins by its uid all the same.
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
    // The same the other way round.
    inside.ok("create weekly");
    outside.ok("close");
    assert_eq!(outside.ok("join server weekly"), "0");
    outside.ok("leave");
    if !is_root() {
        return skip("peers_without_a_process_id, of strangers", NO_ROOT);
    }
    outside.ok("allow 65533");
    outside.ok("create nightly");
    inside.ok("become 65534");
    inside.refused("join server nightly", "Security", &["process 0 of uid 0, whom this process does not trust"]);
    inside.ok("allow 0");
    inside.refused("join server nightly", "Security", &["refused this process"]);
    serves(dir.path());
}

/// A umask that takes this user's own permissions away, and one that takes nothing away from anybody.
#[test]
fn extreme_umasks() {
    let above = directory(0o1777);
    for umask in ["0", "777"] {
        let dir = above.path().join(umask).join("vdi");
        let mut primary = Child::new(&dir);
        // For root no mode is too strict.
        if is_root() {
            primary.ok("become 65533");
        } else {
            skip("extreme_umasks, as somebody else than root", NO_ROOT);
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

// ---- Descriptors of the wrong kind

/// Sends a message with any number of descriptors.
fn send_with(link: &Link, message: &Message<'_>, descriptors: &[BorrowedFd<'_>]) {
    let encoded = message.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let bytes = [std::io::IoSlice::new(encoded.bytes())];
    rustix::net::sendmsg(link, &bytes, &mut ancillary, SendFlags::NOSIGNAL).expect("a peer");
}

/// Everything that may come instead of the one descriptor of a segment: with what it is.
fn wrong(len: u64) -> Vec<(&'static str, Vec<OwnedFd>)> {
    let mut all: Vec<_> = no_segments(len).into_iter().map(|(what, fd)| (what, vec![fd])).collect();
    let good = |count: usize| (0..count).map(|_| memfd(len, SEALED)).collect::<Vec<_>>();
    all.push(("two good ones", good(2)));
    all.push(("more than there is room for", good(12)));
    all.push(("one that cannot be written to", vec![memfd(len, SEALED | SealFlags::WRITE)]));
    all.push(("none", Vec::new()));
    match huge_pages(2 << 20) {
        Ok(fd) => all.push(("huge pages", vec![fd])),
        Err(error) => skip("huge pages as a segment", &error.to_string()),
    }
    all
}

fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

/// A server passes them to the primary: each is refused, and the set goes on.
#[test]
fn primaries_take_no_wrong_descriptors() {
    let dir = directory(0o700);
    let mut primary = Child::new(dir.path());
    primary.ok("create nightly");
    let mut descriptors = || -> u32 {
        let resources = primary.ok("resources");
        resources.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    };
    let alone = descriptors();
    let place = Place::new(INSTANCE, "nightly").expect("a name");
    let runtime = RuntimeDir::open(&options(dir.path()), false).expect("a directory");
    let link = runtime.connect(&place, &Access::default()).expect("a set");
    // With a descriptor that belongs to no Hello.
    let hello = Message::Hello { role: Role::Server, instance: INSTANCE, set: "nightly" };
    send_with(&link, &hello, &[memfd(1, SEALED).as_fd()]);
    let answer = |link: &Link| match link.receive_until(deadline(), "an answer").expect("an answer") {
        Received::Packet(packet) => format!("{:?}", packet.message().expect("a message")),
        other => format!("{other:?}"),
    };
    assert!(answer(&link).starts_with("Welcome"));
    // What came with the Hello is closed a moment after the Welcome; what stays is the connection.
    eventually("the Hello's descriptor to be closed", || descriptors() == alone + 1);
    let before = primary.ok("resources");
    for _ in 0..20 {
        for (what, descriptors) in wrong(AREA_LEN) {
            send_with(&link, &Message::Area { index: 0, len: AREA_LEN }, &borrowed(&descriptors));
            let answer = answer(&link);
            assert!(answer.starts_with("AreaAnswer") && answer.contains("Err"), "{what}: {answer}");
        }
    }
    assert_eq!(primary.ok("resources"), before, "descriptors or mappings of what was refused are kept");
    send_with(&link, &Message::Area { index: 0, len: AREA_LEN }, &[memfd(AREA_LEN, SEALED).as_fd()]);
    assert!(answer(&link).contains("Ok"), "the next honest area");
    assert_eq!(primary.ok("areas"), "1");
}

/// A primary passes them to joiners, with the Welcome or as an area: they do not join, and keep nothing.
#[test]
fn joiners_take_no_wrong_descriptors() {
    let dir = directory(0o700);
    let place = Place::new(INSTANCE, "nightly").expect("a name");
    let runtime = RuntimeDir::open(&options(dir.path()), true).expect("a directory");
    let listener = runtime.listen(&place, &Access::default()).expect("a socket");
    let mut joiner = Child::new(dir.path());
    let welcome = |areas| Message::Welcome {
        member: SERVER_MEMBER,
        secret: 1,
        asked: VdConfig::default(),
        agreement: None,
        areas,
    };
    let mut join = |what: &str, play: &dyn Fn(&Link)| {
        joiner.send("join server nightly");
        rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("a joiner");
        let link = Link::new(rustix::net::accept(&listener).expect("a joiner"));
        play(&link);
        let answer = joiner.answer();
        let refused = ["Abort", "Unexpected", "Memory"].iter().any(|code| answer.starts_with(&format!("err {code} ")));
        assert!(refused, "{what}: {answer}");
        joiner.ok("resources")
    };
    let before = join("a refusal", &|link| {
        send_with(link, &Message::Refused { status: VdError::Abort }, &[memfd(1, SEALED).as_fd()]);
    });
    for (what, descriptors) in wrong(control_len(1)) {
        let after = join(what, &|link| send_with(link, &welcome(0), &borrowed(&descriptors)));
        assert_eq!(after, before, "{what} with the Welcome");
    }
    for (what, descriptors) in wrong(AREA_LEN) {
        let after = join(what, &|link| {
            let (_control, segment) = Control::create(1, vdi_proto::seal::Seals::new(1)).expect("memory");
            send_with(link, &welcome(1), &[segment.fd()]);
            send_with(link, &Message::Area { index: 0, len: AREA_LEN }, &borrowed(&descriptors));
        });
        assert_eq!(after, before, "{what} as an area");
    }
    drop(listener);
    let host = Host::create(&options(dir.path()), INSTANCE, "nightly", &VdConfig::default()).expect("a set");
    assert_eq!(joiner.ok("join server nightly"), "0", "the next honest set");
    drop(host);
}

/// A squatter of the same user who listens and says nothing costs a joiner its patience, and a creator the name.
#[test]
fn a_silent_squatter_of_the_same_user() {
    let dir = directory(0o700);
    let mut squatter = Child::new(dir.path());
    squatter.ok(&format!("squat {}", socket_in(dir.path()).display()));
    let mut honest = Child::new(dir.path());
    honest.refused("create nightly", "Protocol", &["exists already", "choose another name"]);
    let begun = Instant::now();
    let error = Member::join(
        &Options { runtime_dir: Some(dir.path().to_owned()), ..Options::default() },
        Role::Server,
        INSTANCE,
        "nightly",
    );
    assert_eq!(error.expect_err("nobody answers").code(), VdError::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(30));
    squatter.kill();
    honest.ok("create nightly");
    serves(dir.path());
}
