//! Processes that are killed: who is left hears it at once and with the right name, and keeps nothing of the dead.

mod common;

use common::{Child, eventually};

/// How fast the death of a process must be known to all others.
const AT_ONCE: u64 = 200_000_000;

/// A machine that is busy with other things may be slow once; it is not slow three times in a row.
const TRIES: usize = 3;

#[test]
fn child_entry() {
    common::child_entry();
}

struct House {
    dir: tempfile::TempDir,
    primary: Child,
    server: Child,
    secondaries: [Child; 2],
}

fn house() -> House {
    let dir = tempfile::tempdir().expect("a directory");
    let [mut primary, mut server, mut first, mut second] = [(); 4].map(|()| Child::new(dir.path()));
    primary.ok("create nightly");
    server.ok("join server nightly");
    server.ok("area 0");
    server.ok("configure");
    primary.ok("admit");
    assert_eq!(first.ok("join secondary nightly"), "2");
    assert_eq!(second.ok("join secondary nightly"), "3");
    House { dir, primary, server, secondaries: [first, second] }
}

/// Kills one of four, and returns how long the slowest of the others took to hear of it.
fn kill(victim: fn(House) -> (Child, Vec<Child>, tempfile::TempDir), reason: &str) -> u64 {
    let (mut victim, mut others, dir) = victim(house());
    for other in &mut others {
        other.send("await-abort");
        assert_eq!(other.answer(), "waiting");
    }
    let killed = victim.kill_at_once();
    let mut slowest = 0;
    for other in &mut others {
        let answer = other.answer();
        let (seen, why) =
            answer.strip_prefix("ok ").and_then(|rest| rest.split_once(' ')).expect("a time and a reason");
        assert_eq!(why, reason);
        let seen: u64 = seen.parse().expect("nanoseconds");
        slowest = slowest.max(seen.checked_sub(killed).expect("nobody hears of a death before it"));
    }
    drop(others);
    drop(victim);
    eventually("an empty runtime directory", || common::names(dir.path()).is_empty());
    slowest
}

fn killing(victim: fn(House) -> (Child, Vec<Child>, tempfile::TempDir), reason: &str) {
    let times: Vec<u64> = (0..TRIES).map(|_| kill(victim, reason)).collect();
    println!("{reason}: heard within {times:?} ns");
    assert!(times.iter().any(|time| *time < AT_ONCE), "{reason}: heard after {times:?} ns");
}

#[test]
fn the_servers_death() {
    killing(
        |House { dir, primary, server, secondaries: [first, second] }| (server, vec![primary, first, second], dir),
        "the server died",
    );
}

#[test]
fn a_secondarys_death() {
    killing(
        |House { dir, primary, server, secondaries: [first, second] }| (second, vec![primary, server, first], dir),
        "secondary client 3 died",
    );
}

#[test]
fn the_primarys_death() {
    killing(
        |House { dir, primary, server, secondaries: [first, second] }| (primary, vec![server, first, second], dir),
        "the primary client died",
    );
}

/// Leaving in order has other names.
#[test]
fn leaving_early_is_no_death() {
    let House { dir: _dir, mut primary, mut server, secondaries: [mut first, mut second] } = house();
    first.ok("leave");
    for other in [&mut primary, &mut second] {
        other.send("await-abort");
        assert_eq!(other.answer(), "waiting");
    }
    server.ok("leave");
    for other in [&mut primary, &mut second] {
        let answer = other.answer();
        assert!(answer.ends_with(" the server closed the set before the work had ended"), "{answer}");
    }
    let House { dir: _dir, mut primary, mut server, secondaries: [mut first, _second] } = house();
    for other in [&mut server, &mut first] {
        other.send("await-abort");
        assert_eq!(other.answer(), "waiting");
    }
    primary.ok("close");
    for other in [&mut server, &mut first] {
        let answer = other.answer();
        assert!(answer.ends_with(" the primary client closed the set before the work had ended"), "{answer}");
    }
}

/// A process in which set after set ends, by the death of others or in order, is in the end what it was before.
#[test]
fn survivors_keep_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut primary = Child::new(dir.path());
    let mut secondary = Child::new(dir.path());
    let before = [primary.ok("resources"), secondary.ok("resources")];
    for round in 0..3 {
        primary.ok("create nightly");
        assert_ne!(primary.ok("resources"), before[0], "a set costs something, or nothing is measured");
        let mut server = Child::new(dir.path());
        server.ok("join server nightly");
        server.ok("area 0");
        server.ok("configure");
        primary.ok("admit");
        secondary.ok("join secondary nightly");
        let loan = server.ok("lend 1");
        let handle = primary.ok(&format!("take {loan}"));
        secondary.ok(&format!("map {handle}"));
        server.kill();
        for child in [&mut primary, &mut secondary] {
            child.send("await-abort");
            assert_eq!(child.answer(), "waiting");
            assert!(child.answer().ends_with("the server died"));
        }
        // Buffers outlive the set, and go when they are dropped.
        secondary.ok("leave");
        secondary.ok("fill 3");
        secondary.ok("unmap");
        primary.ok("close");
        primary.ok("drop-command");
        let after = [primary.ok("resources"), secondary.ok("resources")];
        assert_eq!(after, before, "round {round}");
    }
    // And where the primary is killed under the others.
    for round in 0..3 {
        let mut doomed = Child::new(dir.path());
        doomed.ok("create nightly");
        secondary.ok("join server nightly");
        secondary.ok("area 0");
        doomed.kill();
        secondary.send("await-abort");
        assert_eq!(secondary.answer(), "waiting");
        assert!(secondary.answer().ends_with("the primary client died"));
        secondary.ok("leave");
        assert_eq!(secondary.ok("resources"), before[1], "round {round}");
    }
    // Refusals cost nothing either.
    for _ in 0..10 {
        secondary.err("join server weekly", "Invalid");
    }
    primary.ok("create nightly");
    for _ in 0..10 {
        secondary.err("join secondary nightly", "Protocol");
        secondary.err("create nightly", "Protocol");
    }
    primary.ok("close");
    let after = [primary.ok("resources"), secondary.ok("resources")];
    assert_eq!(after, before);
}
