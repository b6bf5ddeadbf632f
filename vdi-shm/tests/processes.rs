//! Sets shared by real processes: joining, refusing, classes, sharing buffers, ending.

mod common;

use std::path::Path;

use common::{
    Child, INSTANCE, RawMember, SET, SPEC, TEST_TIMEOUT, class_index, connect, eventually, expect, is_root,
    member_index, names, negotiated, now, options, receive, requested, send, skip,
};
use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::wire::join::{JoinRole, Message};
use vdi_shm::ipc::link::Received;
use vdi_shm::set::primary::{HELLO_TIMEOUT, MAX_PENDING, Primary};
use vdi_shm::set::secondary::Secondary;
use vdi_shm::set::server::Server;

#[test]
fn child_entry() {
    common::child_entry();
}

/// Primary, server and secondary of a configured set with one class.
struct Processes {
    dir: tempfile::TempDir,
    primary: Child,
    server: Child,
    secondary: Child,
}

fn processes() -> Processes {
    let dir = tempfile::tempdir().expect("a directory");
    let mut primary = Child::new(dir.path());
    let mut server = Child::new(dir.path());
    let mut secondary = Child::new(dir.path());
    primary.ok("create nightly");
    assert_eq!(server.ok("join server nightly"), "0");
    server.ok("class 4096 4096 4");
    server.ok("configure");
    primary.ok("admit");
    assert_eq!(secondary.ok("join secondary nightly"), "2");
    Processes { dir, primary, server, secondary }
}

#[test]
fn a_buffer_passes_through_three_processes() {
    let Processes { dir: _dir, mut primary, mut server, mut secondary } = processes();
    for process in [&mut primary, &mut server, &mut secondary] {
        assert_eq!(process.ok("classes"), "1");
    }
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    assert_eq!(secondary.ok(&format!("map {handle}")), "1");
    secondary.ok("fill 2");
    assert_eq!(primary.ok("reclaim"), "leased 0b100");
    secondary.ok("unmap");
    assert_eq!(primary.ok("reclaim"), "free");
    assert_eq!(server.ok("reclaim-lent"), "2");
    // The handle ended with its command.
    secondary.err(&format!("map {handle}"), "Invalid");
}

/// A member that leaves while it has a buffer mapped stays a member until it has dropped it: its lease holds, and its index
/// goes to nobody else.
#[test]
fn a_mapped_buffer_keeps_the_membership() {
    let Processes { dir, mut primary, mut server, mut secondary } = processes();
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    secondary.ok(&format!("map {handle}"));
    secondary.ok("leave");
    let mut other = Child::new(dir.path());
    assert_eq!(other.ok("join secondary nightly"), "3");
    assert_eq!(primary.ok("reclaim"), "leased 0b100");
    assert_eq!(other.ok(&format!("map {handle}")), "1");
    secondary.ok("unmap");
    assert_eq!(primary.ok("reclaim"), "leased 0b1000");
    other.ok("unmap");
    assert_eq!(primary.ok("reclaim"), "free");
    // It has left now, in order, and its index is free.
    let mut next = Child::new(dir.path());
    eventually("the index to be free", || {
        let index = next.ok("join secondary nightly");
        if index != "2" {
            next.ok("leave");
        }
        index == "2"
    });
    for process in [&mut primary, &mut server, &mut other] {
        process.await_abort();
    }
    next.ok("abort");
    for process in [&mut primary, &mut server, &mut other] {
        assert_eq!(process.abort_seen().1, "secondary client 2 called SignalAbort");
    }
}

/// The lease of a process that was killed is void.
#[test]
fn a_dead_process_has_no_lease() {
    let Processes { dir: _dir, mut primary, mut server, mut secondary } = processes();
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    secondary.ok(&format!("map {handle}"));
    assert_eq!(primary.ok("reclaim"), "leased 0b100");
    secondary.kill();
    eventually("the lease to be void", || primary.ok("reclaim") == "free");
}

/// Every process of the set learns why the server gave up.
#[test]
fn every_process_has_the_text_of_an_abort() {
    let Processes { dir, mut primary, mut server, mut secondary } = processes();
    server.ok("give-up 1117 could not read sales.mdf: I/O error");
    let expected = "the server gave up: could not read sales.mdf: I/O error";
    for process in [&mut server, &mut primary, &mut secondary] {
        assert_eq!(process.ok("aborted"), expected);
    }
    // A process that comes now, too. The creator hears of it.
    let mut late = Child::new(dir.path());
    late.refused("join secondary nightly", "Abort", &[expected]);
    let joiners = primary.ok("joiners");
    assert!(joiners.contains(" tried to join as a secondary client and was refused: VD_E_ABORT: "), "{joiners}");
    assert!(joiners.contains(expected), "{joiners}");
}

// ---- classes that are requested while secondaries are members

/// The message about a class of [`SPEC`].
fn class(index: u32) -> Message<'static> {
    Message::Class { index: class_index(index), spec: SPEC }
}

fn mapped(index: u32) -> Message<'static> {
    Message::ClassAnswer { index: class_index(index), answer: Ok(()) }
}

/// Server::add_class returns only when every secondary that is present has answered. Otherwise a buffer could be lent whose
/// memory a secondary has not mapped yet.
#[test]
fn a_class_is_requested_while_secondaries_are_members() {
    let Processes { dir, mut primary, mut server, mut secondary } = processes();
    let late = RawMember::join(dir.path(), JoinRole::Secondary);
    assert_eq!((late.index, &late.classes[..]), (member_index(3), &[SPEC][..]));
    server.send("class 4096 4096 4");
    late.expect(&class(1));
    eventually("the class to be mapped by another secondary", || secondary.ok("classes") == "2");
    // A process that joins meanwhile has the class with its Welcome, and is not waited for.
    let mut joiner = Child::new(dir.path());
    assert_eq!(joiner.ok("join secondary nightly"), "4");
    assert_eq!(joiner.ok("classes"), "2");
    let answered = now();
    late.send(&mapped(1), None);
    let answer = server.answer();
    let returned: u64 = answer.strip_prefix("ok ").and_then(|time| time.parse().ok()).expect("a time");
    assert!(returned >= answered, "the request returned before a secondary had mapped the class");
    for process in [&mut primary, &mut server, &mut secondary, &mut joiner] {
        assert_eq!(process.ok("classes"), "2");
    }
    // And again. A secondary that leaves instead of answering is not waited for any more.
    server.send("class 4096 4096 4");
    late.expect(&class(2));
    let left = now();
    late.send(&Message::Leave, None);
    drop(late);
    let answer = server.answer();
    let returned: u64 = answer.strip_prefix("ok ").and_then(|time| time.parse().ok()).expect("a time");
    assert!(returned >= left, "the request returned before a secondary had mapped the class");
}

/// A secondary dies in place of answering: the request ends at once, with the abort.
#[test]
fn a_secondary_dies_while_a_class_is_requested() {
    let Processes { dir, primary: _primary, mut server, secondary: _secondary } = processes();
    let dying = RawMember::join(dir.path(), JoinRole::Secondary);
    server.send("class 4096 4096 4");
    dying.expect(&class(1));
    drop(dying);
    let answer = server.answer();
    assert!(answer.starts_with("err Abort ") && answer.ends_with("secondary client 3 died"), "{answer}");
}

/// The server dies before the secondaries have answered its request. Their answers are no violation.
#[test]
fn the_server_dies_while_it_requests_a_class() {
    let Processes { dir, mut primary, mut server, secondary: _secondary } = processes();
    let honest = RawMember::join(dir.path(), JoinRole::Secondary);
    server.send("class 4096 4096 4");
    honest.expect(&class(1));
    primary.await_abort();
    server.kill();
    assert_eq!(primary.abort_seen().1, "the server died");
    let aborted =
        Message::Aborted { reason: AbortReason { process: Process::Server, cause: Cause::Died }, code: 0, text: "" };
    honest.expect(&aborted);
    honest.send(&mapped(1), None);
    // The primary handles what comes later after the answer.
    let joiner = connect(dir.path());
    send(&joiner, &Message::Hello { role: JoinRole::Secondary, instance: INSTANCE, set: SET }, None);
    expect(&joiner, &aborted);
    assert!(matches!(honest.link.receive(), Ok(Received::Nothing)), "an honest member was disconnected");
    assert_eq!(primary.ok("aborted"), "the server died");
}

/// A secondary answers a class twice, or one that it was not asked about.
#[test]
fn answers_about_classes_out_of_turn_are_violations() {
    for unasked in [0, 1, 2] {
        let Processes { dir, mut primary, mut server, secondary: _secondary } = processes();
        let member = RawMember::join(dir.path(), JoinRole::Secondary);
        if unasked == 1 {
            server.send("class 4096 4096 4");
            member.expect(&class(1));
            member.send(&mapped(1), None);
            assert!(server.answer().starts_with("ok "));
        }
        for process in [&mut primary, &mut server] {
            process.await_abort();
        }
        member.send(&mapped(unasked), None);
        for process in [&mut primary, &mut server] {
            assert_eq!(process.abort_seen().1, "secondary client 3 broke the protocol");
        }
        let evidence = primary.ok("aborted");
        assert_eq!(
            evidence,
            "secondary client 3 broke the protocol: it answered a buffer class that it was not asked about"
        );
        assert!(receive(&member.link).is_none());
    }
}

/// A member that joins later has all classes, and maps the buffers of each.
#[test]
fn a_member_that_joins_later_has_all_classes() {
    let Processes { dir, mut primary, mut server, mut secondary } = processes();
    secondary.ok("leave");
    for _ in 0..3 {
        server.ok("class 8192 4096 2");
    }
    let mut late = Child::new(dir.path());
    late.ok("join secondary nightly");
    assert_eq!(late.ok("classes"), "4");
    // A buffer that was lent before is not used again here, so this takes all buffers of all classes.
    for byte in 1..=4 + 3 * 2 {
        let loan = server.ok(&format!("lend {byte}"));
        let handle = primary.ok(&format!("take {loan}"));
        assert_eq!(late.ok(&format!("map {handle}")), byte.to_string());
        late.ok("unmap");
        assert_eq!(primary.ok("reclaim"), "free");
    }
    server.err("lend 1", "Memory");
}

// ---- names, joining, ending

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
    // A process that looks for a dead set removes it, and Create removes all dead ones.
    second.kill();
    other.kill();
    let mut late = Child::new(dir.path());
    late.err("join server weekly", "Invalid");
    late.ok("create third");
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn survivors_remove_a_dead_primarys_socket() {
    let Processes { dir, primary, server: _server, secondary: _secondary } = processes();
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
    assert!(!dir.path().join("missing").exists(), "joining creates nothing");
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
    // A server that has not configured anything may leave, and another may join.
    server.ok("leave");
    eventually("the server's index to be free", || joiner.ask("join server nightly") == "ok 0");
    server.err("join server nightly", "Invalid");
    joiner.ok("leave");
    eventually("the server's index to be free", || server.ask("join server nightly") == "ok 0");
    server.ok("class 4096 4096 4");
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

/// Once the server has closed every device, the end of a process aborts nothing.
#[test]
fn no_death_after_the_work_is_an_abort() {
    let Processes { dir, mut primary, mut server, secondary } = processes();
    server.ok("end-work");
    secondary.kill();
    server.kill();
    let mut third = Child::new(dir.path());
    third.err("join secondary nightly", "Protocol");
    primary.ok("close");
    assert!(names(dir.path()).is_empty());
}

/// A secondary that dies after the server closed every device never returns VD_E_CLOSE for its device. The primary counts the
/// device as closed, so its Close is no VD_E_OPEN.
#[test]
fn a_dead_secondarys_device_counts_as_closed_after_the_work() {
    let dir = tempfile::tempdir().expect("a directory");
    let primary = Primary::create(&options(dir.path()), INSTANCE, SET, &requested()).expect("a set");
    let server = Server::join(&options(dir.path()), INSTANCE, SET).expect("the set");
    server.configure(negotiated(), TEST_TIMEOUT).expect("a configuration");
    primary.admit_secondaries();
    let secondary = Secondary::join(&options(dir.path()), INSTANCE, SET).expect("the set");
    let device = server.control().device(0).expect("a device");
    server.control().announce_device(device, "nightly");
    let opened = secondary.client_control().open_device(device).expect("a good word");
    assert!(opened.is_some());
    server.control().close_device(device);
    // The membership ends, and the device's word stays as the dead process left it.
    drop(secondary);
    primary.process_links();
    assert!(primary.session().control().all_closed());
}

/// The monitor thread waits when the request comes. The turn follows at once, and no time-out has to pass.
#[test]
fn a_requested_turn_of_the_monitor_thread_is_never_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let primary = Primary::create(&options(dir.path()), INSTANCE, SET, &requested()).expect("a set");
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        primary.process_links();
    }
    // One lost turn of the hundred would take 2 s.
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn other_users_are_refused_unless_allowed() {
    if !is_root() {
        return skip("other_users_are_refused_unless_allowed", "only root can become another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    open_to_all(dir.path());
    let mut primary = Child::new(dir.path());
    primary.ok("create closed");
    let mut other = Child::new(dir.path());
    other.ok("become 65534");
    // The system refuses others the socket, and a process that trusts only its own user does not trust root.
    other.err("join server closed", "Security");
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65533");
    primary.ok("create other");
    other.err("join server other", "Security");
    other.ok("allow 0");
    // Now the joiner trusts the primary, but the primary allows another user.
    other.err("join server other", "Security");
    let mut primary = Child::new(dir.path());
    primary.ok("allow 65534");
    primary.ok("create open");
    assert_eq!(other.ok("join server open"), "0");
    other.ok("class 4096 4096 4");
    other.ok("configure");
    assert_eq!(primary.ok("classes"), "1");
}

/// Any number of connections of users that may not join delays nobody.
#[test]
fn refused_users_delay_nobody() {
    if !is_root() {
        return skip("refused_users_delay_nobody", "only root can become another user");
    }
    let dir = tempfile::tempdir().expect("a directory");
    open_to_all(dir.path());
    let mut primary = Child::new(dir.path());
    // Another user is allowed, so the socket is open to all.
    primary.ok("allow 65533");
    primary.ok("create nightly");
    let mut refused = Child::new(dir.path());
    refused.ok("become 65534");
    refused.ok("allow 0");
    let mut server = Child::new(dir.path());
    let begun = std::time::Instant::now();
    refused.ok(&format!("connect {} nightly", MAX_PENDING * 3));
    server.ok("join server nightly");
    assert!(begun.elapsed() < HELLO_TIMEOUT, "the server waited behind refused users");
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("our own directory");
}

/// The modes of the runtime directory and of sockets do not depend on the umask.
#[test]
fn modes_do_not_depend_on_the_umask() {
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
        let mut open = Child::new(&dir);
        open.ok(&format!("umask {umask}"));
        open.ok("allow 65534");
        open.ok("create shared");
        let shared = names(&dir).into_iter().find(|name| name.starts_with("shared")).expect("its socket");
        assert_eq!(mode(&dir.join(shared)), 0o666, "umask {umask}");
        let mut server = Child::new(&dir);
        assert_eq!(server.ok("join server nightly"), "0");
    }
}
