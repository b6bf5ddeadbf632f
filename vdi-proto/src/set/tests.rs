//! One cell for every pair of state and call, in the order of the specification's tables, with the decisions. A cell is
//! what the call returns and, after `>`, the next state; without `>` the state does not change.

use std::string::String;
use std::vec::Vec;

use super::{Opening, SetPhase, Step, client, server};
use crate::status::VdError;

/// Parses a cell: the next state (by its short name, if it changes) and the answer.
fn read(cell: &str) -> (Option<&str>, Result<(), VdError>) {
    let (answer, next) = match cell.split_once('>') {
        Some((answer, next)) => (answer, Some(next)),
        None => (cell, None),
    };
    let answer = match answer {
        "ok" => Ok(()),
        "PROTOCOL" => Err(VdError::Protocol),
        "ABORT" => Err(VdError::Abort),
        "OPEN" => Err(VdError::Open),
        "CLOSE" => Err(VdError::Close),
        "INVALID" => Err(VdError::Invalid),
        "TIMEOUT" => Err(VdError::Timeout),
        "MEMORY" => Err(VdError::Memory),
        other => panic!("no answer is called {other}"),
    };
    (next, answer)
}

/// Compares every cell of a table with `step`. Returns the number of cells.
fn compare<S, C, const COLUMNS: usize>(
    columns: [(&str, S); COLUMNS],
    rows: &[(C, [&str; COLUMNS])],
    step: fn(S, C) -> Step<S>,
) -> usize
where
    S: Copy + PartialEq + core::fmt::Debug,
    C: Copy + core::fmt::Debug,
{
    let mut wrong: Vec<String> = Vec::new();
    let mut cells = 0;
    for (call, row) in rows {
        for ((_, state), cell) in columns.iter().zip(row) {
            let (next, answer) = read(cell);
            let next = match next {
                None => *state,
                Some(name) => columns.iter().find(|(short, _)| *short == name).expect("a column's name").1,
            };
            let found = step(*state, *call);
            if found != (Step { next, answer }) {
                wrong.push(std::format!("{call:?} in {state:?}: {found:?}, and the table says {cell}"));
            }
            cells += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    cells
}

/// Checks that `rows` has each of `all` exactly once.
fn each_once<C: PartialEq + core::fmt::Debug>(rows: impl Iterator<Item = C>, all: &[C]) {
    let rows: Vec<C> = rows.collect();
    assert_eq!(rows.len(), all.len());
    for call in all {
        assert_eq!(rows.iter().filter(|row| *row == call).count(), 1, "{call:?}");
    }
}

mod client_table {
    use super::client::{Call, CommandPoll, Observation, State, observe, step};
    use super::*;

    const COLUMNS: [(&str, State); 6] = [
        ("DNE", State::DoesNotExist),
        ("Config", State::Configurable),
        ("Init", State::Initializing),
        ("Active", State::Active),
        ("Normal", State::NormallyTerminated),
        ("Abort", State::Abort),
    ];

    #[rustfmt::skip]
    const ROWS: [(Call, [&str; 6]); 15] = [
        //                                          DNE          Configurable  Initializing  Active          Norm. Term.  Abort
        (Call::Create,                            ["ok>Config", "PROTOCOL",   "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "PROTOCOL"]),
        (Call::OpenInSecondary,                   ["ok>Init",   "PROTOCOL",   "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "PROTOCOL"]),
        (Call::GetConfiguration,                  ["PROTOCOL",  "ok>Init",    "ok",         "ok",           "ok",        "ABORT"]),
        (Call::OpenDevice(Opening::Unopened),     ["PROTOCOL",  "PROTOCOL",   "ok>Active",  "ok",           "PROTOCOL",  "ABORT"]),
        (Call::OpenDevice(Opening::AlreadyOpen),  ["PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "ABORT"]),
        (Call::OpenDevice(Opening::AllOpen),      ["PROTOCOL",  "PROTOCOL",   "OPEN",       "OPEN",         "PROTOCOL",  "ABORT"]),
        (Call::OpenDevice(Opening::NoSuchDevice), ["PROTOCOL",  "PROTOCOL",   "INVALID",    "INVALID",      "PROTOCOL",  "ABORT"]),
        (Call::GetCommand(CommandPoll::Command),  ["PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "ok",           "PROTOCOL",  "ABORT"]),
        (Call::GetCommand(CommandPoll::Nothing),  ["PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "TIMEOUT",      "PROTOCOL",  "ABORT"]),
        (Call::GetCommand(CommandPoll::Closed),   ["PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "CLOSE",        "PROTOCOL",  "ABORT"]),
        (Call::GetCommand(CommandPoll::LastClosed), ["PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "CLOSE>Normal", "PROTOCOL",  "ABORT"]),
        (Call::CompleteCommand,                   ["PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "ok",           "PROTOCOL",  "ABORT"]),
        (Call::SignalAbort,                       ["PROTOCOL",  "ok>Abort",   "ok>Abort",   "ok>Abort",     "ok>Abort",  "ok"]),
        (Call::Close { devices_open: false },     ["PROTOCOL",  "ok>DNE",     "ok>DNE",     "ok>DNE",       "ok>DNE",    "ok>DNE"]),
        (Call::Close { devices_open: true },      ["PROTOCOL",  "ok>DNE",     "ok>DNE",     "OPEN>DNE",     "ok>DNE",    "ok>DNE"]),
    ];

    #[test]
    fn every_cell() {
        assert_eq!(compare(COLUMNS, &ROWS, step), 90);
    }

    #[test]
    fn every_state_and_call_once() {
        each_once(COLUMNS.iter().map(|(_, state)| *state), &State::ALL);
        each_once(ROWS.iter().map(|(call, _)| *call), &Call::ALL);
        assert_eq!(State::ALL.len() * Call::ALL.len(), 90);
    }

    /// The state of this process's object after an observation.
    #[rustfmt::skip]
    const OBSERVED: [(Observation, [&str; 6]); 3] = [
        //                            DNE   Configurable  Initializing  Active      Norm. Term.  Abort
        (Observation::Aborted,      ["ok", "ok>Abort",   "ok>Abort",   "ok>Abort", "ok>Abort",  "ok"]),
        (Observation::DeviceOpened, ["ok", "ok",         "ok>Active",  "ok",       "ok",        "ok"]),
        (Observation::AllClosed,    ["ok", "ok",         "ok>Normal",  "ok>Normal", "ok",       "ok"]),
    ];

    #[test]
    fn every_observation() {
        let step = |state, seen| Step { next: observe(state, seen), answer: Ok(()) };
        assert_eq!(compare(COLUMNS, &OBSERVED, step), 18);
    }

    #[test]
    fn handles_need_an_open_set() {
        let phases = [
            (State::DoesNotExist, SetPhase::Closed, Err(VdError::Protocol)),
            (State::Configurable, SetPhase::Closed, Err(VdError::Protocol)),
            (State::Initializing, SetPhase::Open, Ok(())),
            (State::Active, SetPhase::Open, Ok(())),
            (State::NormallyTerminated, SetPhase::Closed, Err(VdError::Protocol)),
            (State::Abort, SetPhase::Aborted, Err(VdError::Protocol)),
        ];
        each_once(phases.iter().map(|(state, ..)| *state), &State::ALL);
        for (state, phase, allowed) in phases {
            assert_eq!((state.phase(), state.phase().handles_allowed()), (phase, allowed), "{state:?}");
        }
    }
}

mod server_table {
    use super::server::{Call, Closing, State, step};
    use super::*;

    const COLUMNS: [(&str, State); 7] = [
        ("DNE", State::DoesNotExist),
        ("Connected", State::Connected),
        ("Config", State::Configurable),
        ("Init", State::Initializing),
        ("Active", State::Active),
        ("Normal", State::NormallyTerminated),
        ("Abort", State::AbnormallyTerminated),
    ];

    #[rustfmt::skip]
    const ROWS: [(Call, [&str; 7]); 20] = [
        //                                           DNE             Connected    Configurable  Initializing  Active          Norm. Term.  Abn. Term.
        (Call::Open,                               ["ok>Connected", "PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "PROTOCOL"]),
        (Call::GetConfiguration,                   ["PROTOCOL",     "ok",        "ok",         "ok",         "ok",           "ok",        "ABORT"]),
        (Call::BeginConfiguration,                 ["PROTOCOL",     "ok>Config", "PROTOCOL",   "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "PROTOCOL"]),
        (Call::RequestBuffers,                     ["PROTOCOL",     "PROTOCOL",  "ok",         "ok",         "ok",           "PROTOCOL",  "PROTOCOL"]),
        (Call::QueryAvailableBuffers,              ["PROTOCOL",     "PROTOCOL",  "ok",         "ok",         "ok",           "PROTOCOL",  "PROTOCOL"]),
        (Call::EndConfiguration { memory: true },  ["PROTOCOL",     "PROTOCOL",  "ok>Init",    "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "PROTOCOL"]),
        (Call::EndConfiguration { memory: false }, ["PROTOCOL",     "PROTOCOL",  "MEMORY",     "PROTOCOL",   "PROTOCOL",     "PROTOCOL",  "PROTOCOL"]),
        (Call::OpenDevice(Opening::Unopened),      ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "ok>Active",  "ok",           "PROTOCOL",  "PROTOCOL"]),
        (Call::OpenDevice(Opening::AlreadyOpen),   ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "INVALID",    "INVALID",      "PROTOCOL",  "PROTOCOL"]),
        (Call::OpenDevice(Opening::AllOpen),       ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "OPEN",       "OPEN",         "PROTOCOL",  "PROTOCOL"]),
        (Call::OpenDevice(Opening::NoSuchDevice),  ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "INVALID",    "INVALID",      "PROTOCOL",  "PROTOCOL"]),
        (Call::ExecuteCompletionAgent,             ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "ok>Active",  "ok",           "PROTOCOL",  "PROTOCOL"]),
        (Call::AllocateBuffer,                     ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "ok",         "ok",           "PROTOCOL",  "ABORT"]),
        (Call::FreeBuffer,                         ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "ok",         "ok",           "ok",        "ok"]),
        (Call::SendCommand,                        ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "ok",           "PROTOCOL",  "ABORT"]),
        (Call::CloseDevice(Closing::One),          ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "ok",           "CLOSE",     "ABORT"]),
        (Call::CloseDevice(Closing::Last),         ["PROTOCOL",     "PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "ok>Normal",    "CLOSE",     "ABORT"]),
        (Call::CloseDevice(Closing::AlreadyClosed), ["PROTOCOL",    "PROTOCOL",  "PROTOCOL",   "PROTOCOL",   "CLOSE",        "CLOSE",     "ABORT"]),
        (Call::SignalAbort,                        ["PROTOCOL",     "ok>Abort",  "ok>Abort",   "ok>Abort",   "ok>Abort",     "ok>Abort",  "ok"]),
        (Call::Close,                              ["PROTOCOL",     "ok>DNE",    "ok>DNE",     "ok>DNE",     "PROTOCOL>DNE", "ok>DNE",    "ok>DNE"]),
    ];

    #[test]
    fn every_cell() {
        assert_eq!(compare(COLUMNS, &ROWS, step), 140);
    }

    #[test]
    fn every_state_and_call_once() {
        each_once(COLUMNS.iter().map(|(_, state)| *state), &State::ALL);
        each_once(ROWS.iter().map(|(call, _)| *call), &Call::ALL);
        assert_eq!(State::ALL.len() * Call::ALL.len(), 140);
    }
}
