//! What the agents in C and Python do to their targets.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::c_interface::{CAPI, Program, python};
use crate::common::bench::Bench;
use crate::common::native::{has, skipped};
use crate::common::targets;

/// Calls an agent with a set and a target.
type Agent<'a> = &'a dyn Fn(&str, &str) -> Command;

fn for_each_agent(assert: fn(Agent<'_>)) {
    let agent = Program::compile(&CAPI.join("examples/agent.c"), &["-lvdi_c"]);
    assert(&|set, target| agent.command(&[set, target]));
    match has("python3") {
        true => assert(&|set, target| python(&CAPI.join("examples/agent.py"), set, Path::new(target))),
        false => skipped("the Python agent: python3 is not installed"),
    }
}

#[test]
fn standard_output_gets_the_backup_and_nothing_else() {
    for_each_agent(|agent| targets::assert_agent_pipes(agent));
}

#[test]
fn messages_that_nobody_reads_change_nothing() {
    for_each_agent(|agent| targets::assert_agent_needs_no_listener(agent));
}

#[test]
fn what_an_agent_prints_to_is_no_target() {
    for_each_agent(|agent| targets::assert_agent_refuses_its_own_streams(agent));
}

#[test]
fn nothing_but_files_is_replaced() {
    for_each_agent(|agent| targets::assert_agent_replaces_files_only(agent));
}

#[test]
fn two_agents_with_one_file_do_not_destroy_each_others_backup() {
    for_each_agent(|agent| targets::assert_agent_has_its_target_alone(agent));
}

#[test]
fn a_partial_file_of_another_program_is_neither_renamed_nor_removed() {
    for_each_agent(|agent| targets::assert_agent_keeps_a_foreign_partial(agent));
}

/// The agents with no patience at all.
#[test]
fn a_named_pipe_without_its_other_end_ends_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    for (name, long, short) in [
        ("agent.c", "#define PIPE_TWENTIETHS 600", "#define PIPE_TWENTIETHS 0"),
        ("agent.py", "PIPE_SECONDS = 30", "PIPE_SECONDS = 0"),
    ] {
        let source = fs::read_to_string(CAPI.join("examples").join(name)).unwrap();
        assert!(source.contains(long), "{long} is not in {name}");
        let path = folder.path().join(name);
        fs::write(&path, source.replace(long, short)).unwrap();
        let program = (name == "agent.c").then(|| Program::compile(&path, &["-lvdi_c"]));
        if program.is_none() && !has("python3") {
            return skipped("the Python agent: python3 is not installed");
        }
        let bench = Bench::new();
        bench.database("db", 1 << 20);
        let fifo = bench.out().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
        for (statement, remedy) in [
            ("BACKUP DATABASE db TO VIRTUAL_DEVICE = 'c'", "start its reader first"),
            ("RESTORE DATABASE copy FROM VIRTUAL_DEVICE = 'c'", "start its writer first"),
        ] {
            let mut agent = bench.run(match &program {
                Some(program) => program.command(&["c", fifo.to_str().unwrap()]),
                None => python(&path, "c", &fifo),
            });
            agent.wait_for_output("ready");
            bench.sql(statement).outcome().assert_failure(&[]);
            let outcome = agent.outcome();
            assert!(!outcome.status.success() && outcome.text.contains(remedy), "{outcome:?}");
        }
        bench.assert_output(&["fifo"]);
    }
}
