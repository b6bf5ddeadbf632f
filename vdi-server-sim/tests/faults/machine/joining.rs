//! A system that refuses memory, descriptors, sockets or threads while a set is made, joined and left.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use super::calls::{Rules, all, can_fail_calls, refuse, reported};
use super::trial::{Verb, attempt, is_complete, nothing, target};
use crate::common::behaviour::MediaKind;
use crate::common::bench::Bench;

/// Calls that a set is made of, and with what a system refuses them.
const REFUSALS: &[(&str, Errno)] = &[
    ("memfd_create", Errno::MFILE),
    ("ftruncate", Errno::NOMEM),
    ("fallocate", Errno::NOSPC),
    ("fcntl", Errno::NOMEM),
    ("mmap", Errno::NOMEM),
    ("eventfd2", Errno::MFILE),
    ("socket", Errno::NFILE),
    ("bind", Errno::NOMEM),
    ("listen", Errno::NOBUFS),
    ("connect", Errno::NOMEM),
    ("accept4", Errno::MFILE),
    ("getsockopt", Errno::NOBUFS),
    ("sendmsg", Errno::NOBUFS),
    ("recvmsg", Errno::NOMEM),
    ("flock", Errno::NOLCK),
    ("clone3", Errno::AGAIN),
    ("getrandom", Errno::NOSYS),
];

/// The calls of each name fail in their turn, alone and with all that follow, in the agent or in the server.
fn fail_each_call(in_the_agent: bool) {
    if !can_fail_calls() {
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 100_000);
    let report = bench.out().with_file_name("calls");
    let (mut trials, mut succeeded) = (0, 0);
    for (name, error) in REFUSALS {
        let names = [*name];
        // Of those that are on files: shared memory, or the runtime directory.
        let runtime = bench.runtime();
        let on_memory = ["ftruncate", "fallocate", "fcntl"].contains(name);
        let under = if on_memory { Path::new("/memfd:vdi-") } else { &*runtime };
        let rules = |at, persists| Rules { calls: &names, under, at, persists, error: *error };
        let run = |rules: &Rules<'_>| {
            fs::write(target(&bench), b"old").unwrap();
            let trial = if in_the_agent {
                attempt(&bench, Verb::Backup, "file", |command| rules.apply(command, &report), nothing)
            } else {
                attempt(&bench, Verb::Backup, "file", nothing, |command| rules.apply(command, &report))
            };
            let calls = if report.exists() { reported(&report) } else { Vec::new() };
            let _ = fs::remove_file(&report);
            (trial, calls)
        };
        let (trial, seen) = run(&rules(0, false));
        assert!(trial.judge(), "{trial:#?}");
        // A server has no socket that listens, and an agent connects to none.
        let not_mine: &[&str] = match in_the_agent {
            true => &["fallocate", "connect"],
            false => &["eventfd2", "bind", "listen", "accept4", "flock"],
        };
        assert!(not_mine.contains(name) || !seen.is_empty(), "{name} is never called");
        // An ordinary run fails the first call alone, and the last one.
        let turns = (1..=seen.len()).flat_map(|at| [(at, false), (at, true)]);
        for (at, persists) in turns.filter(|turn| all() || [(1, false), (seen.len(), true)].contains(turn)) {
            let (trial, calls) = run(&rules(at, persists));
            let story = format!("{name} {at} {persists}: {trial:#?}");
            let good = trial.judge();
            if good {
                assert!(is_complete(&bench, MediaKind::File), "{story}");
            } else {
                assert_eq!(fs::read(target(&bench)).unwrap(), b"old", "{story}");
                let system = std::io::Error::from(*error).to_string();
                let told = format!("{:?} {}", trial.agent, trial.text());
                assert!(told.contains(&system) || told.contains("VD_E_"), "no evidence: {story}");
            }
            if all() {
                eprintln!("{name} {at} of {} {persists}: {good} {:?} {}", calls.len(), trial.agent, trial.text());
            }
            bench.assert_nothing_left();
            trials += 1;
            succeeded += usize::from(good);
        }
    }
    let who = if in_the_agent { "agent" } else { "server" };
    eprintln!("{who}: {trials} trials, {succeeded} succeeded");
    assert!(succeeded < trials);
}

#[test]
fn every_call_that_an_agent_makes_a_set_by_may_fail() {
    fail_each_call(true);
}

#[test]
fn every_call_that_a_server_joins_a_set_by_may_fail() {
    fail_each_call(false);
}

#[test]
fn a_system_without_memfds_refuses_the_set_clearly() {
    if !can_fail_calls() {
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 100_000);
    fs::write(target(&bench), b"old").unwrap();
    for error in [Errno::PERM, Errno::NOSYS, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS] {
        let system = std::io::Error::from(error).to_string();
        let trial = attempt(&bench, Verb::Backup, "file", |command| refuse(command, "memfd_create", error), nothing);
        let told = trial.agent.as_ref().unwrap_err();
        assert!(!trial.judge() && trial.statement.is_none(), "{trial:#?}");
        assert!(told.starts_with("failed Create of set \"nightly\": VD_E_MEMORY") && told.contains(&system), "{told}");
        let trial = attempt(&bench, Verb::Backup, "file", nothing, |command| refuse(command, "memfd_create", error));
        assert!(!trial.judge(), "{trial:#?}");
        assert!(trial.text().contains("VD_E_MEMORY") && trial.text().contains(&system), "{trial:#?}");
        assert_eq!(fs::read(target(&bench)).unwrap(), b"old", "{trial:#?}");
        bench.assert_nothing_left();
    }
}
