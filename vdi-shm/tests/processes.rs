//! Sets shared by real processes: joining, refusing, sharing buffers, dying.

mod common;

use std::path::Path;

use common::{Child, eventually, is_root, names, skip};
use vdi_shm::host::{HELLO_PATIENCE, MAX_PENDING};

#[test]
fn child_entry() {
    common::child_entry();
}

/// Primary, server and secondary of a configured set with one area.
struct House {
    dir: tempfile::TempDir,
    primary: Child,
    server: Child,
    secondary: Child,
}

fn house() -> House {
    let dir = tempfile::tempdir().expect("a directory");
    let mut primary = Child::new(dir.path());
    let mut server = Child::new(dir.path());
    let mut secondary = Child::new(dir.path());
    primary.ok("create nightly");
    assert_eq!(server.ok("join server nightly"), "0");
    server.ok("area 0");
    server.ok("configure");
    primary.ok("admit");
    assert_eq!(secondary.ok("join secondary nightly"), "2");
    House { dir, primary, server, secondary }
}

#[test]
fn a_buffer_passes_through_three_processes() {
    let House { dir: _dir, mut primary, mut server, mut secondary } = house();
    for process in [&mut primary, &mut server, &mut secondary] {
        assert_eq!(process.ok("areas"), "1");
    }
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    assert_eq!(secondary.ok(&format!("map {handle}")), "1");
    secondary.ok("fill 2");
    assert_eq!(primary.ok("give-back"), "Leased { leases: 4 }");
    secondary.ok("unmap");
    assert_eq!(primary.ok("give-back"), "home");
    assert_eq!(server.ok("look"), "2");
    assert_eq!(secondary.ok(&format!("map {handle}")), "Invalid", "the handle died with its command");
}

/// Areas that are added while a secondary is there reach it before anybody can name a buffer in them.
#[test]
fn late_areas_reach_everybody() {
    let House { dir: _dir, mut primary, mut server, mut secondary } = house();
    server.ok("area 1");
    assert_eq!(server.ok("areas"), "2");
    assert_eq!(primary.ok("areas"), "2");
    eventually("the second area", || secondary.ok("areas") == "2");
    // Out of turn: the client refuses, and nothing is spoilt by it.
    server.err("area 5", "Invalid");
    server.ok("area 2");
    assert_eq!(primary.ok("areas"), "3");
}

/// A member that leaves while it has a buffer mapped stays a member until it has dropped it: its lease holds, and its number
/// goes to nobody else.
#[test]
fn a_lease_outlives_its_members_object() {
    let House { dir, mut primary, mut server, mut secondary } = house();
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    secondary.ok(&format!("map {handle}"));
    secondary.ok("leave");
    let mut other = Child::new(dir.path());
    assert_eq!(other.ok("join secondary nightly"), "3");
    assert_eq!(primary.ok("give-back"), "Leased { leases: 4 }");
    assert_eq!(other.ok(&format!("map {handle}")), "1");
    secondary.ok("unmap");
    assert_eq!(primary.ok("give-back"), "Leased { leases: 8 }");
    other.ok("unmap");
    assert_eq!(primary.ok("give-back"), "home");
    // It has left now, in order, and its number is free.
    let mut next = Child::new(dir.path());
    eventually("the number to be free", || {
        let number = next.ok("join secondary nightly");
        if number != "2" {
            next.ok("leave");
        }
        number == "2"
    });
    for process in [&mut primary, &mut server, &mut other] {
        process.send("await-abort");
        assert_eq!(process.answer(), "waiting");
    }
    next.ok("abort");
    for process in [&mut primary, &mut server, &mut other] {
        let seen = process.answer();
        assert!(seen.ends_with("secondary client 2 called SignalAbort"), "{seen}");
    }
}

/// The lease of a process that was killed is void.
#[test]
fn a_dead_process_has_no_lease() {
    let House { dir: _dir, mut primary, mut server, mut secondary } = house();
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    secondary.ok(&format!("map {handle}"));
    assert_eq!(primary.ok("give-back"), "Leased { leases: 4 }");
    secondary.kill();
    eventually("the lease to be void", || primary.ok("give-back") == "home");
}

#[test]
fn a_name_has_one_live_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut first = Child::new(dir.path());
    let mut second = Child::new(dir.path());
    first.ok("create nightly");
    let answer = second.ask("create nightly");
    assert!(answer.starts_with("err Protocol ") && answer.contains("exists already"), "{answer}");
    // Names are case-sensitive.
    second.ok("create Nightly");
    assert_eq!(names(dir.path()).len(), 2);
    // The refused one took nothing from the first.
    let mut server = Child::new(dir.path());
    assert_eq!(server.ok("join server nightly"), "0");
    server.ok("leave");
    first.ok("close");
    second.ok("close");
    assert_eq!(names(dir.path()), [""; 0], "sockets are left behind");
    second.ok("create nightly");
}

#[test]
fn a_killed_primarys_name_is_free_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut first = Child::new(dir.path());
    first.ok("create nightly");
    let mut other = Child::new(dir.path());
    other.ok("create weekly");
    first.kill();
    assert_eq!(names(dir.path()).len(), 2, "nobody was left to remove the socket");
    let mut second = Child::new(dir.path());
    second.ok("create nightly");
    let mut server = Child::new(dir.path());
    assert_eq!(server.ok("join server nightly"), "0");
    // A dead set is removed by whoever looks for it, and a create removes any.
    second.kill();
    other.kill();
    let mut late = Child::new(dir.path());
    late.err("join server weekly", "Invalid");
    late.ok("create third");
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn survivors_remove_a_dead_primarys_socket() {
    let House { dir, primary, server: _server, secondary: _secondary } = house();
    assert_eq!(names(dir.path()).len(), 1);
    primary.kill();
    eventually("an empty runtime directory", || names(dir.path()).is_empty());
}

#[test]
fn unknown_sets() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Child::new(dir.path());
    child.err("join server nightly", "Invalid");
    child.err("join secondary nightly", "Invalid");
    let mut nowhere = Child::new(&dir.path().join("missing"));
    nowhere.err("join server nightly", "Invalid");
    assert!(!dir.path().join("missing").exists(), "who only joins creates nothing");
    let mut primary = Child::new(dir.path());
    primary.ok("create nightly");
    child.err("join server weekly", "Invalid");
}

#[test]
fn joining_is_refused_in_each_state_where_it_must_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut primary = Child::new(dir.path());
    let mut server = Child::new(dir.path());
    let mut joiner = Child::new(dir.path());
    primary.ok("create nightly");
    joiner.err("join secondary nightly", "Protocol");
    server.ok("join server nightly");
    joiner.err("join server nightly", "Invalid");
    joiner.err("join secondary nightly", "Protocol");
    // A server that only looked may leave, and another come.
    server.ok("leave");
    eventually("the server's place to be free", || joiner.ask("join server nightly") == "ok 0");
    server.err("join server nightly", "Invalid");
    joiner.ok("leave");
    eventually("the server's place to be free", || server.ask("join server nightly") == "ok 0");
    server.ok("area 0");
    server.ok("configure");
    joiner.err("join secondary nightly", "Protocol");
    primary.ok("admit");
    assert_eq!(joiner.ok("join secondary nightly"), "2");
    joiner.ok("leave");
    server.ok("end-work");
    joiner.err("join secondary nightly", "Protocol");
    server.ok("abort");
    joiner.err("join secondary nightly", "Abort");
    joiner.err("join server nightly", "Abort");
}

/// Once the server has closed every device nobody's end is an abort any more.
#[test]
fn after_the_work_nobody_is_missed() {
    let House { dir, mut primary, mut server, secondary } = house();
    server.ok("end-work");
    secondary.kill();
    server.kill();
    let mut third = Child::new(dir.path());
    third.err("join secondary nightly", "Protocol");
    primary.ok("close");
    assert!(names(dir.path()).is_empty());
}

/// Users other than the primary's.
#[test]
fn strangers_are_refused_and_guests_let_in() {
    const TEST: &str = "strangers_are_refused_and_guests_let_in";
    if !is_root() {
        return skip(TEST, "only root can become another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    open_to_all(dir.path());
    let mut primary = Child::new(dir.path());
    primary.ok("create closed");
    let mut stranger = Child::new(dir.path());
    stranger.ok("become 65534");
    // The system keeps strangers off the socket; and who trusts only himself would not trust root either.
    stranger.err("join server closed", "Security");
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65533");
    primary.ok("create other");
    stranger.err("join server other", "Security");
    stranger.ok("allow 0");
    // Now the joiner trusts the primary, but the primary allows somebody else.
    stranger.err("join server other", "Security");
    let mut host = Child::new(dir.path());
    host.ok("allow 65534");
    host.ok("create open");
    assert_eq!(stranger.ok("join server open"), "0");
    stranger.ok("area 0");
    stranger.ok("configure");
    assert_eq!(host.ok("areas"), "1");
}

/// A crowd of those who may not join keeps nobody waiting who may.
#[test]
fn strangers_keep_nobody_waiting() {
    if !is_root() {
        return skip("strangers_keep_nobody_waiting", "only root can become another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    open_to_all(dir.path());
    let mut primary = Child::new(dir.path());
    // Somebody is allowed, so everybody can connect.
    primary.ok("allow 65533");
    primary.ok("create nightly");
    let mut stranger = Child::new(dir.path());
    stranger.ok("become 65534");
    stranger.ok("allow 0");
    let mut server = Child::new(dir.path());
    let begun = std::time::Instant::now();
    stranger.ok(&format!("crowd {} nightly", MAX_PENDING * 3));
    server.ok("join server nightly");
    assert!(begun.elapsed() < HELLO_PATIENCE, "the server waited behind strangers");
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("our own directory");
}

/// Whatever the umask: the sockets are as they must be.
#[test]
fn umasks_change_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("a directory");
    for umask in ["0", "77", "22"] {
        let dir = parent.path().join(umask).join("vdi");
        let mut primary = Child::new(&dir);
        primary.ok(&format!("umask {umask}"));
        primary.ok("create nightly");
        let mode = |path: &Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700, "umask {umask}");
        assert_eq!(mode(&dir.join(&names(&dir)[0])), 0o600, "umask {umask}");
        let mut guests = Child::new(&dir);
        guests.ok(&format!("umask {umask}"));
        guests.ok("allow 65534");
        guests.ok("create shared");
        let shared = names(&dir).into_iter().find(|name| name.starts_with("shared")).expect("its socket");
        assert_eq!(mode(&dir.join(shared)), 0o666, "umask {umask}");
        let mut server = Child::new(&dir);
        assert_eq!(server.ok("join server nightly"), "0");
    }
}
