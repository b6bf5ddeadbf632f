//! Processes that are killed: all others learn of it within 200 ms, with the right reason, and keep no resources.

mod common;

use common::{Child, eventually};

/// The longest time from the death of a process until all others know of it, in nanoseconds.
const LIMIT: u64 = 200_000_000;

/// A busy machine may delay one of them.
const TRIES: usize = 3;

#[test]
fn child_entry() {
    common::child_entry();
}

/// The processes of a configured set with one class.
struct Processes {
    dir: tempfile::TempDir,
    primary: Child,
    server: Child,
    secondaries: [Child; 2],
}

fn processes() -> Processes {
    let dir = tempfile::tempdir().expect("a directory");
    let [mut primary, mut server, mut first, mut second] = [(); 4].map(|()| Child::new(dir.path()));
    primary.ok("create nightly");
    server.ok("join server nightly");
    server.ok("class 4096 4096 4");
    server.ok("configure");
    primary.ok("admit");
    assert_eq!(first.ok("join secondary nightly"), "2");
    assert_eq!(second.ok("join secondary nightly"), "3");
    Processes { dir, primary, server, secondaries: [first, second] }
}

/// Separates the process that dies from the others.
type Split = fn(Processes) -> (Child, Vec<Child>, tempfile::TempDir);

/// Kills one of four. Returns after how many nanoseconds the last of the others knew.
fn kill(split: Split, expected: &str) -> u64 {
    let (mut victim, mut others, dir) = split(processes());
    others.iter_mut().for_each(Child::await_abort);
    let killed = victim.send_kill();
    let mut last = 0;
    for other in &mut others {
        let (seen, reason) = other.abort_seen();
        assert_eq!(reason, expected);
        last = last.max(seen.checked_sub(killed).expect("nobody learns of a death before it"));
    }
    drop(others);
    drop(victim);
    eventually("an empty runtime directory", || common::names(dir.path()).is_empty());
    last
}

fn is_noticed_at_once(split: Split, reason: &str) {
    let times: Vec<u64> = (0..TRIES).map(|_| kill(split, reason)).collect();
    println!("{reason}: known within {times:?} ns");
    assert!(times.iter().any(|time| *time < LIMIT), "{reason}: known after {times:?} ns");
}

#[test]
fn the_servers_death() {
    is_noticed_at_once(
        |Processes { dir, primary, server, secondaries: [first, second] }| (server, vec![primary, first, second], dir),
        "the server died",
    );
}

#[test]
fn a_secondarys_death() {
    is_noticed_at_once(
        |Processes { dir, primary, server, secondaries: [first, second] }| (second, vec![primary, server, first], dir),
        "secondary client 3 died",
    );
}

#[test]
fn the_primarys_death() {
    is_noticed_at_once(
        |Processes { dir, primary, server, secondaries: [first, second] }| (primary, vec![server, first, second], dir),
        "the primary client died",
    );
}

/// A process that leaves aborts the set with another cause than one that dies; a secondary without a device may leave.
#[test]
fn leaving_early_is_no_death() {
    let Processes { dir: _dir, mut primary, mut server, secondaries: [mut first, mut second] } = processes();
    first.ok("leave");
    for other in [&mut primary, &mut second] {
        other.await_abort();
    }
    server.ok("leave");
    for other in [&mut primary, &mut second] {
        assert_eq!(other.abort_seen().1, "the server closed the set before the work had ended");
    }
    let Processes { dir: _dir, mut primary, mut server, secondaries: [mut first, _second] } = processes();
    for other in [&mut server, &mut first] {
        other.await_abort();
    }
    primary.ok("close");
    for other in [&mut server, &mut first] {
        assert_eq!(other.abort_seen().1, "the primary client closed the set before the work had ended");
    }
}

/// Processes in which sets end, because others died or in order, have the resources in the end that they had before.
#[test]
fn survivors_keep_no_resources() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut primary = Child::new(dir.path());
    let mut secondary = Child::new(dir.path());
    let before = [primary.ok("resources"), secondary.ok("resources")];
    for round in 0..3 {
        server_dies(&dir, &mut primary, &mut secondary, &before[0]);
        assert_eq!([primary.ok("resources"), secondary.ok("resources")], before, "round {round}");
    }
    for round in 0..3 {
        let mut doomed = Child::new(dir.path());
        doomed.ok("create nightly");
        secondary.ok("join server nightly");
        secondary.ok("class 4096 4096 4");
        doomed.kill();
        secondary.await_abort();
        assert_eq!(secondary.abort_seen().1, "the primary client died");
        secondary.ok("leave");
        assert_eq!(secondary.ok("resources"), before[1], "round {round}");
    }
    for _ in 0..10 {
        secondary.err("join server weekly", "Invalid");
    }
    primary.ok("create nightly");
    for _ in 0..10 {
        secondary.err("join secondary nightly", "Protocol");
        secondary.err("create nightly", "Protocol");
    }
    primary.ok("close");
    assert_eq!([primary.ok("resources"), secondary.ok("resources")], before, "after refusals");
}

/// A set whose server is killed while a buffer is lent and mapped. The buffers outlive the set.
fn server_dies(dir: &tempfile::TempDir, primary: &mut Child, secondary: &mut Child, before: &str) {
    primary.ok("create nightly");
    assert_ne!(primary.ok("resources"), before, "a set needs resources, or nothing is measured");
    let mut server = Child::new(dir.path());
    server.ok("join server nightly");
    server.ok("class 4096 4096 4");
    server.ok("configure");
    primary.ok("admit");
    secondary.ok("join secondary nightly");
    let loan = server.ok("lend 1");
    let handle = primary.ok(&format!("take {loan}"));
    secondary.ok(&format!("map {handle}"));
    server.kill();
    for child in [&mut *primary, &mut *secondary] {
        child.await_abort();
        assert_eq!(child.abort_seen().1, "the server died");
    }
    secondary.ok("leave");
    secondary.ok("fill 3");
    secondary.ok("unmap");
    primary.ok("close");
    primary.ok("drop-command");
}
