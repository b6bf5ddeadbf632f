//! Processes that may have few descriptors or little memory, and a single CPU.

use std::fs;
use std::process::Command;

use super::trial::{Trial, Verb, attempt, attempt_with, is_complete, nothing, set_for, target};
use crate::common::behaviour::MediaKind;
use crate::common::bench::Bench;
use crate::common::native::{has, skipped};
use crate::common::processes::{after, within};

/// What a statement comes to under a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// The process did not come as far as its own code.
    NotBegun,
    /// It ended by a small allocation that failed, or by one for a new thread's signals or destructors: no program in Rust survives any.
    Starved,
    /// It ended without an error of its own.
    Died,
    Failed,
    Succeeded,
}

/// Whether a process ended because it could not have a few bytes. Where it wants more, it has to cope.
fn starved(said: &str) -> bool {
    // The standard library's own, at the start of a thread, and the C library's, when the thread first has something to be dropped.
    if ["failed to allocate an alternative stack", "failed to register TLS destructor"]
        .iter()
        .any(|it| said.contains(it))
    {
        return true;
    }
    let wanted = said.split_once("memory allocation of ").and_then(|(_, rest)| rest.split_once(" bytes failed"));
    // Headers and trailers of a backup are built in memory, a few of 64 KiB at a time.
    wanted.is_some_and(|(bytes, _)| bytes.parse::<u64>().unwrap() <= 128 << 10)
}

/// One side of a backup under a limit: whatever comes of it, the old backup stays, or the new one is complete.
fn under(bench: &Bench, in_the_agent: bool, limit: &str, options: &str) -> (Came, Trial) {
    fs::write(target(bench), b"old").unwrap();
    let limited = |command: &mut Command| {
        // To print where it is, a panic takes memory under a lock of the standard library; where there is none, it reports that
        // under the same lock, and stands for ever.
        command.env("RUST_BACKTRACE", "0");
        after(command, limit);
    };
    let trial = match in_the_agent {
        true => attempt_with(bench, Verb::Backup, "file", options, limited, nothing),
        false => attempt_with(bench, Verb::Backup, "file", options, nothing, limited),
    };
    let clear = |outcome: &crate::common::processes::Outcome| {
        outcome.text.contains("Msg ") || outcome.text.contains("vdi-sim: ")
    };
    let agent_clear = trial.agent.as_ref().is_err_and(|told| told.starts_with("failed "));
    let came = match (&trial.statement, &trial.agent) {
        (Some(outcome), agent) if outcome.status.success() => {
            outcome.assert_success();
            assert!(agent.is_ok(), "{limit}: {trial:#?}");
            Came::Succeeded
        }
        (_, Ok(())) => panic!("{limit}: the agent has a backup, and the server none: {trial:#?}"),
        (Some(outcome), _) if agent_clear && clear(outcome) => Came::Failed,
        (None, _) if agent_clear => Came::Failed,
        (None, Err(told)) if in_the_agent && !told.contains("memory allocation of") && !told.contains("panicked") => {
            Came::NotBegun
        }
        (Some(outcome), _) if !in_the_agent && outcome.text.contains("error while loading shared libraries") => {
            Came::NotBegun
        }
        (Some(outcome), Err(_)) if !in_the_agent && outcome.status.code() != Some(1) && outcome.text.is_empty() => {
            Came::NotBegun
        }
        // The other side tells of the death.
        (outcome, Err(told)) if in_the_agent && starved(told) && outcome.as_ref().is_none_or(clear) => Came::Starved,
        (Some(outcome), _) if !in_the_agent && starved(&outcome.text) && agent_clear => Came::Starved,
        _ => Came::Died,
    };
    match came {
        Came::Succeeded => assert!(is_complete(bench, MediaKind::File), "{limit}: {trial:#?}"),
        _ => assert_eq!(fs::read(target(bench)).unwrap(), b"old", "{limit}: {trial:#?}"),
    }
    bench.assert_output(&["stripe-00"]);
    if in_the_agent && came == Came::Starved {
        // As after a kill, its socket is left, and the name is free all the same.
        bench.create("nightly", &set_for(MediaKind::File)).close().unwrap();
    }
    bench.assert_nothing_left();
    (came, trial)
}

#[test]
fn every_limit_on_descriptors_ends_in_success_or_in_a_clear_error() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    for in_the_agent in [true, false] {
        let who = if in_the_agent { "agent" } else { "server" };
        let (mut failed, mut in_a_row, mut least) = (0, 0, 0);
        for limit in 4..100 {
            let (came, trial) = under(&bench, in_the_agent, &format!("ulimit -n {limit}"), "");
            assert!(!matches!(came, Came::Died | Came::Starved), "{who}, {limit} descriptors: {trial:#?}");
            // So an agent refused an area whose descriptor it could not take, as if the server had sent none.
            assert!(!trial.text().contains("VD_E_INVALID"), "{who}, {limit} descriptors: {trial:#?}");
            if came == Came::Failed {
                failed += 1;
            }
            in_a_row = if came == Came::Succeeded { in_a_row + 1 } else { 0 };
            if in_a_row == 1 {
                least = limit;
            }
            if in_a_row == 3 {
                break;
            }
        }
        assert!(in_a_row == 3 && failed >= 3, "{who}: {failed} limits failed clearly, {in_a_row} succeeded");
        eprintln!("{who}: {least} descriptors are enough; {failed} limits below failed clearly");
    }
}

#[test]
fn every_limit_on_memory_ends_in_success_or_in_a_clear_error() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    // Areas of 32 MiB, so that most limits lie within them.
    let options = "MAXTRANSFERSIZE = 4194304, BUFFERCOUNT = 8";
    for in_the_agent in [true, false] {
        let who = if in_the_agent { "agent" } else { "server" };
        let (mut tally, mut of_areas) = ([0; 5], 0);
        // KiB of address space: from too little for any program, to what is always enough.
        for limit in (2_000..).step_by(if super::calls::all() { 250 } else { 2_000 }) {
            let (came, trial) = under(&bench, in_the_agent, &format!("ulimit -v {limit}"), options);
            if super::calls::all() {
                eprintln!("{who} with {limit} KiB: {came:?} {:?} {}", trial.agent, trial.text());
            }
            assert_ne!(came, Came::Died, "{who}, {limit} KiB: {trial:#?}");
            tally[came as usize] += 1;
            of_areas += usize::from(came == Came::Failed && trial.text().contains("VD_E_MEMORY"));
            if tally[Came::Succeeded as usize] == 3 {
                break;
            }
            assert!(limit < 1_000_000, "{who}: {tally:?}");
        }
        let [not_begun, starved, _, failed, _] = tally;
        eprintln!(
            "{who}: {not_begun} limits did not let it begin, {starved} starved it, {failed} failed clearly, {of_areas} of them with VD_E_MEMORY"
        );
        assert!(of_areas > 0);
    }
}

#[test]
fn one_cpu_is_enough() {
    if !has("taskset") {
        skipped("taskset is not installed");
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    bench.database("copy", 1_000);
    let pinned = |command: &mut Command| {
        within(command, &["taskset".as_ref(), "-c".as_ref(), "0".as_ref()]);
        // Spinning on the CPU that the peer needs would make every command last so long.
        command.env("VDI_SPIN_US", "1000000");
    };
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        assert!(attempt(&bench, Verb::Backup, "file", pinned, pinned).judge());
        assert!(attempt(&bench, Verb::Restore, "file", pinned, pinned).judge());
        bench.assert_identical("sales", "copy");
    }
    eprintln!("six statements on one CPU: {:?}", begin.elapsed());
    // Each has some fifty commands, which would each wait for a second.
    assert!(begin.elapsed() < crate::common::TEST_TIMEOUT);
}
