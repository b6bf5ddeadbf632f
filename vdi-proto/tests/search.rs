//! Exhaustive search: the real machines of server and client, joined by queues, through every order of events, with an
//! error of a command, an abort and the death of each process possible at every step. See `docs/search.md`.
//!
//! The default run is small. `VDI_SEARCH=full` runs the large setups as well; use `--release` for them.

#[path = "search/client.rs"]
mod client;
#[path = "search/explore.rs"]
mod explore;
#[path = "search/server.rs"]
mod server;
#[path = "search/world.rs"]
mod world;

use explore::{Report, explore};
use vdi_proto::command::CommandCode;
use world::{Bug, Secondary, Setup};

const WRITES: &[CommandCode] = &[CommandCode::WRITE, CommandCode::WRITE];
const WRITE: &[CommandCode] = &[CommandCode::WRITE];
const READ_FLUSH: &[CommandCode] = &[CommandCode::READ, CommandCode::FLUSH];

const ONE: Setup = Setup { devices: 1, commands: WRITES, buffers: 2, secondary: Secondary::None, errors: 2, bug: None };
const TWO: Setup = Setup { devices: 2, buffers: 1, errors: 1, ..ONE };

/// Searches a setup, and prints its figures as a row of `docs/search.md`.
fn search(setup: Setup) -> Report {
    let started = std::time::Instant::now();
    let report = explore(&setup).unwrap_or_else(|failure| panic!("{setup:?}: {failure:?}"));
    let Setup { devices, commands, buffers, secondary, errors, .. } = setup;
    let commands: Vec<String> = commands.iter().map(|code| code.to_string().replace("VDC_", "")).collect();
    let Report { states, transitions, depth, .. } = report;
    let (commands, seconds) = (commands.join(", "), started.elapsed().as_secs_f32());
    eprintln!(
        "| {devices} | {commands} | {buffers} | {errors} | {secondary:?} | {states} | {transitions} | {depth} | {seconds:.1} s |"
    );
    report
}

fn search_in_full_runs(setups: &[Setup]) {
    if std::env::var("VDI_SEARCH").is_ok_and(|run| run == "full") {
        setups.iter().for_each(|setup| drop(search(*setup)));
    }
}

/// The search reaches every end that processes can agree on.
#[test]
fn one_device() {
    let report = search(ONE);
    let ends: Vec<&str> = report.ends.keys().map(String::as_str).collect();
    let expected = [
        "server Aborted, clients Aborted",
        "server Aborted, clients Dead",
        "server Dead, clients Aborted",
        "server Dead, clients Dead",
        "server Dead, clients Normal",
        // The client aborts after the server has closed the device.
        "server Normal, clients Aborted",
        "server Normal, clients Dead",
        "server Normal, clients Normal",
    ];
    assert_eq!(ends, expected);
    search(Setup { buffers: 1, ..ONE });
    search(Setup { commands: READ_FLUSH, ..ONE });
}

#[test]
fn one_device_and_a_secondary_that_maps_buffers() {
    let setup = Setup { secondary: Secondary::Mapper, ..ONE };
    search(Setup { commands: WRITE, errors: 0, ..setup });
    search_in_full_runs(&[Setup { commands: READ_FLUSH, ..setup }, setup]);
}

#[test]
fn two_devices() {
    search(Setup { commands: WRITE, ..TWO });
    search_in_full_runs(&[
        Setup { commands: READ_FLUSH, ..TWO },
        TWO,
        Setup { commands: READ_FLUSH, buffers: 2, ..TWO },
        Setup { buffers: 2, ..TWO },
    ]);
}

#[test]
fn two_devices_and_a_secondary_that_works_on_one() {
    let setup = Setup { secondary: Secondary::Device, ..TWO };
    search(Setup { commands: &[], errors: 0, ..setup });
    search_in_full_runs(&[
        Setup { commands: WRITE, ..setup },
        Setup { commands: READ_FLUSH, errors: 0, ..setup },
        Setup { errors: 0, ..setup },
    ]);
}

/// The search finds each of these faults, by the rule that it breaks.
#[test]
fn planted_faults_are_found() {
    let two = Setup { commands: WRITE, ..TWO };
    let mapper = Setup { secondary: Secondary::Mapper, commands: WRITE, ..ONE };
    let with_secondary = Setup { secondary: Secondary::Device, commands: &[], ..TWO };
    let rows = [
        (two, Bug::RelendAfterClose, "slot 0 has 2 owners"),
        (ONE, Bug::CloseIgnoresAbort, "the primary ended Aborted, and the set otherwise"),
        (ONE, Bug::LateCompletionIsAViolation, "an honest client breaks a rule"),
        (ONE, Bug::DeathUnnoticed, "the primary waits for something that cannot come"),
        (ONE, Bug::ClearErrorForgotten, "the server waits for something that cannot come"),
        (ONE, Bug::RejectKeepsBuffer, "a command completes before its buffer is reclaimed"),
        (mapper, Bug::LeasesCheckedOnce, "a buffer is mapped, and its slot is not lent"),
        (mapper, Bug::MapWaitsAfterEnd, "the secondary waits for something that cannot come"),
        (with_secondary, Bug::DeadSecondaryStaysOpen, "the primary ended Aborted, and the set otherwise"),
    ];
    for (setup, bug, rule) in rows {
        let failure = explore(&Setup { bug: Some(bug), ..setup }).expect_err(&format!("{bug:?} is not found"));
        assert_eq!(failure.rule, rule, "{bug:?}: {failure:?}");
        assert!(!failure.actions.is_empty());
    }
}
