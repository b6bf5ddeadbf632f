//! The drop-in libsqlvdi.so under C++ programs, as real agents are: compiled against our header, run against `vdi-sim sql`.
#![allow(clippy::unwrap_used, missing_docs)]

use crate::common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::bench::Bench;
use common::client::moves;
use common::examples::copied;
use common::native::{compile, cpp_compilers, has, library_folder, skipped};
use common::processes::Outcome;

const SIM: &str = env!("CARGO_BIN_EXE_vdi-sim");

/// The functions of the two classes, as g++ and clang++ name them.
const SYMBOLS: [&str; 19] = [
    "_ZN19ClientVirtualDevice10GetCommandElPP11VDC_Command",
    "_ZN19ClientVirtualDevice15CompleteCommandEP11VDC_Commandiml",
    "_ZN19ClientVirtualDeviceC1Ev",
    "_ZN19ClientVirtualDeviceC2Ev",
    "_ZN19ClientVirtualDeviceD1Ev",
    "_ZN19ClientVirtualDeviceD2Ev",
    "_ZN22ClientVirtualDeviceSet10OpenDeviceEPcPP19ClientVirtualDevice",
    "_ZN22ClientVirtualDeviceSet11SignalAbortEv",
    "_ZN22ClientVirtualDeviceSet15GetBufferHandleEPhPj",
    "_ZN22ClientVirtualDeviceSet15MapBufferHandleEiPPh",
    "_ZN22ClientVirtualDeviceSet15OpenInSecondaryEPc",
    "_ZN22ClientVirtualDeviceSet16GetConfigurationElP8VDConfig",
    "_ZN22ClientVirtualDeviceSet20RegisterDeviceClosedEv",
    "_ZN22ClientVirtualDeviceSet5CloseEv",
    "_ZN22ClientVirtualDeviceSet6CreateEPcP8VDConfig",
    "_ZN22ClientVirtualDeviceSetC1Ev",
    "_ZN22ClientVirtualDeviceSetC2Ev",
    "_ZN22ClientVirtualDeviceSetD1Ev",
    "_ZN22ClientVirtualDeviceSetD2Ev",
];

#[track_caller]
fn folder() -> PathBuf {
    library_folder("vdi-sqlvdi")
}

/// A program of tests/programs, linked to the library, ready to be run with it.
#[track_caller]
fn program(compiler: &str, source: &str, flags: &[&str]) -> Command {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vdi-client/sqlvdi/include");
    let folder = folder();
    let mut arguments: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
    arguments.extend([OsStr::new("-I"), include.as_os_str(), OsStr::new("-L"), folder.as_os_str()]);
    arguments.extend(["-lsqlvdi", "-lpthread"].map(OsStr::new));
    let mut command = Command::new(compile(compiler, source, &arguments));
    command.env("LD_LIBRARY_PATH", &folder);
    command
}

#[track_caller]
fn tool(name: &str, arguments: &[&str], file: &Path) -> String {
    assert!(has(name), "{name} is missing; install it, on Debian and Ubuntu by: apt-get install binutils");
    let output = Command::new(name).args(arguments).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_good(outcome: &Outcome) {
    assert!(outcome.status.success(), "{}\n{}", outcome.status, outcome.text);
}

/// A statement that the shell of an agent runs.
fn shell(bench: &Bench, arguments: &str) -> String {
    format!("'{SIM}' sql --data '{}' {arguments} -Q", bench.data().display())
}

#[test]
fn exactly_the_published_functions_are_exported() {
    let library = folder().join("libsqlvdi.so");
    let text = tool("nm", &["-D", "--defined-only"], &library);
    let found: BTreeSet<_> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(found, BTreeSet::from(SYMBOLS));
    // No data, no weak symbols: functions.
    assert!(text.lines().all(|line| line.split_whitespace().nth(1) == Some("T")), "{text}");
}

#[test]
fn the_library_has_its_name_and_needs_no_cpp_library() {
    let text = tool("readelf", &["-dW"], &folder().join("libsqlvdi.so"));
    assert!(text.contains("Library soname: [libsqlvdi.so]"), "{text}");
    let needed: Vec<_> = text.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(!needed.is_empty() && !needed.iter().any(|line| line.contains("c++")), "{needed:?}");
}

#[test]
fn the_header_has_the_published_layout_in_every_language_version() {
    let bench = Bench::new();
    for compiler in cpp_compilers() {
        for version in ["-std=c++11", "-std=c++14", "-std=c++17", "-std=c++20"] {
            assert_good(&bench.run(program(compiler, "layout.cpp", &[version, "-pedantic"])).outcome());
        }
    }
}

/// Runs the agent with a statement of its own.
#[track_caller]
fn agent(
    bench: &Bench,
    compiler: &str,
    direction: &str,
    statement: &str,
    change: impl FnOnce(&mut Command),
) -> Outcome {
    let mut command = program(compiler, "file_agent.cpp", &["-std=c++11"]);
    let statement = format!("{} \"{statement}\"", shell(bench, "--fault delay-at=5:300"));
    command.args([direction, "agent"]).arg(bench.out().join("db.bak")).arg(statement);
    change(&mut command);
    bench.run(command).outcome()
}

const BACKUP: &str = "BACKUP DATABASE db TO VIRTUAL_DEVICE='agent' WITH FORMAT, MAXTRANSFERSIZE=1048576";
const RESTORE: &str = "RESTORE DATABASE copy FROM VIRTUAL_DEVICE='agent' WITH REPLACE, MAXTRANSFERSIZE=1048576, MOVE 'db' TO 'copy.mdf', \
                       MOVE 'db_1' TO 'copy_1.ndf', MOVE 'db_log' TO 'copy_log.ldf'";

#[test]
fn an_agent_with_a_file_backs_up_and_restores() {
    for compiler in cpp_compilers() {
        let bench = Bench::new();
        bench.database("db", 5_000_000);
        for (direction, statement, said) in [("b", BACKUP, "direction 1 0"), ("r", RESTORE, "direction 0 1")] {
            let outcome = agent(&bench, compiler, direction, statement, |command| {
                _ = command.env("VDI_GETCOMMAND_TIMEOUT_UNIT", "s")
            });
            assert_good(&outcome);
            assert!(outcome.text.contains(said), "{outcome:#?}");
            assert!(outcome.text.contains("DATABASE successfully processed"), "{outcome:#?}");
            assert!(outcome.text.contains("the last GetCommand: 0x8077000e"), "{outcome:#?}");
            assert!(!outcome.text.contains("libsqlvdi:"), "no messages were requested: {outcome:#?}");
        }
        bench.assert_identical("db", "copy");
        bench.assert_output(&["db.bak"]);
    }
}

#[test]
fn an_agent_that_runs_sqlcmd_needs_no_change() {
    let bench = Bench::new();
    bench.database("db", 5_000_000);
    let programs = tempfile::tempdir().unwrap();
    symlink(SIM, programs.path().join("sqlcmd")).unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    for (direction, statement) in [("b", BACKUP), ("r", RESTORE)] {
        let mut command = program("g++", "file_agent.cpp", &["-std=c++11"]);
        command.args([direction, "agent"]).arg(bench.out().join("db.bak"));
        command.arg(format!("sqlcmd -U sa -P MyPassword1! -S . -Q \"{statement} \""));
        command.env("PATH", &path).env("VDI_SIM_DATA", bench.data()).env("VDI_GETCOMMAND_TIMEOUT_UNIT", "s");
        let outcome = bench.run(command).outcome();
        assert_good(&outcome);
        assert!(outcome.text.contains("DATABASE successfully processed"), "{outcome:#?}");
        assert!(!outcome.text.contains("MyPassword1"), "{outcome:#?}");
    }
    bench.assert_identical("db", "copy");
}

#[test]
fn time_outs_of_get_command_are_milliseconds_unless_told() {
    let bench = Bench::new();
    bench.database("db", 5_000_000);
    // The server waits 300 ms, once; the agent waits 90.
    for unit in ["", "ms"] {
        let outcome = agent(&bench, "g++", "b", BACKUP, |command| {
            command.env("VDI_GETCOMMAND_TIMEOUT_UNIT", unit).env("VDI_LOG", "1");
        });
        assert_eq!(outcome.status.code(), Some(1), "{outcome:#?}");
        for text in [
            "the last GetCommand: 0x80770003",
            "libsqlvdi: GetCommand on device \"agent\" of set \"agent\": VD_E_TIMEOUT (0x80770003): the server sent no command within 0.09 s",
            "milliseconds: if it means seconds, set VDI_GETCOMMAND_TIMEOUT_UNIT=s",
            "libsqlvdi: Close of set \"agent\": VD_E_OPEN (0x8077000d): devices were still open",
            "terminating abnormally",
        ] {
            assert!(outcome.text.contains(text), "{text:?} is missing in {outcome:#?}");
        }
    }
}

/// VDI_LOG has the reason of the server, which the interface itself cannot carry.
#[test]
fn the_log_says_why_the_server_gave_up() {
    let bench = Bench::new();
    bench.database("db", 1_000_000);
    let statement = "BACKUP DATABASE db TO VIRTUAL_DEVICE='agent', VIRTUAL_DEVICE='agent-1'";
    let outcome = agent(&bench, "g++", "b", statement, |command| _ = command.env("VDI_LOG", "1"));
    let reason =
        "the set was aborted: the server gave up: the statement names 2 devices, the client created the set with 1";
    let logged = outcome.text.lines().find(|line| line.starts_with("libsqlvdi: ") && line.contains(reason));
    assert!(logged.is_some_and(|line| line.contains("VD_E_ABORT (0x80770004)")), "{outcome:#?}");
}

#[test]
fn a_program_without_a_umask_makes_no_folder_that_others_may_use() {
    let bench = Bench::new();
    bench.database("db", 1_000_000);
    let runtime = bench.out().join("sockets");
    let outcome = agent(&bench, "g++", "b", BACKUP, |command| {
        command.env("VDI_RUNTIME_DIR", &runtime).env("VDI_GETCOMMAND_TIMEOUT_UNIT", "s");
    });
    assert_good(&outcome);
    assert_eq!(fs::metadata(&runtime).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&runtime).unwrap().count(), 0, "sockets are left");
}

/// The devices as the programs name them.
fn devices(set: &str, count: u32) -> String {
    let names = (0..count).map(|i| if i == 0 { set.to_owned() } else { format!("{set}{i}") });
    names.map(|name| format!("VIRTUAL_DEVICE='{name}'")).collect::<Vec<_>>().join(", ")
}

/// Runs a statement beside a program that waits for it; both must succeed.
#[track_caller]
fn beside(bench: &Bench, command: Command, statement: &str) -> Outcome {
    let mut client = bench.run(command);
    client.wait_for_output("ready");
    let statement = bench.sql(statement).outcome();
    let client = client.outcome();
    assert_good(&client);
    statement.assert_success();
    client
}

#[test]
fn a_thread_serves_each_of_many_devices() {
    for compiler in cpp_compilers() {
        for count in [1, 2, 32] {
            let bench = Bench::new();
            bench.database("db", 8_000_000);
            let start = |direction| {
                let mut command = program(compiler, "threads.cpp", &["-std=c++11"]);
                command.args([direction, "many", &count.to_string()]).arg(bench.out());
                command
            };
            beside(&bench, start("b"), &format!("BACKUP DATABASE db TO {}", devices("many", count)));
            beside(
                &bench,
                start("r"),
                &format!("RESTORE DATABASE copy FROM {} WITH {}", devices("many", count), moves("db", "copy")),
            );
            bench.assert_identical("db", "copy");
            assert_eq!(common::bench::names(&bench.out()).len(), count as usize);
        }
    }
}

#[test]
fn a_process_serves_each_of_several_devices() {
    for compiler in cpp_compilers() {
        let bench = Bench::new();
        bench.database("db", 8_000_000);
        let start = || {
            let mut command = program(compiler, "processes.cpp", &["-std=c++11"]);
            command.args(["family", "4"]).arg(bench.out());
            command
        };
        beside(&bench, start(), &format!("BACKUP DATABASE db TO {}", devices("family", 4)));
        beside(
            &bench,
            start(),
            &format!("RESTORE DATABASE copy FROM {} WITH {}", devices("family", 4), moves("db", "copy")),
        );
        bench.assert_identical("db", "copy");
        bench.assert_output(&["process", "process1", "process2", "process3"]);
    }
}

#[test]
fn another_process_works_on_buffers_by_their_handles() {
    for compiler in cpp_compilers() {
        let bench = Bench::new();
        bench.database("db", 8_000_000);
        let start = || {
            let mut command = program(compiler, "handles.cpp", &["-std=c++11"]);
            command.arg("handles").arg(bench.out().join("db.bak"));
            command
        };
        for statement in [
            "BACKUP DATABASE db TO VIRTUAL_DEVICE='handles' WITH MAXTRANSFERSIZE=131072",
            &*copied("VIRTUAL_DEVICE='handles'"),
        ] {
            let outcome = beside(&bench, start(), statement);
            let passed = outcome.text.lines().find_map(|line| line.strip_suffix(" buffers passed")).unwrap();
            assert!(passed.parse::<u32>().unwrap() > 50, "{outcome:#?}");
            // The set was closed by then, or at least the last command completed.
            assert!(!outcome.text.contains("a stale handle: 0\n"), "{outcome:#?}");
        }
        bench.assert_identical("db", "copy");
    }
}

/// Runs the program whose medium answers `times` Writes with an error, beside a backup; both outcomes.
#[track_caller]
fn failing(bench: &Bench, compiler: &str, code: &str, times: u32) -> (Outcome, Outcome) {
    let mut command = program(compiler, "errors.cpp", &["-std=c++11"]);
    command.arg("failing").arg(bench.out().join("db.bak")).args([code, "4", &times.to_string()]);
    let mut client = bench.run(command);
    client.wait_for_output("ready");
    let statement = bench.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE='failing' WITH MAXTRANSFERSIZE=65536").outcome();
    let client = client.outcome();
    assert_good(&client);
    (statement, client)
}

#[test]
fn error_codes_of_a_program_fail_the_statement_and_are_in_its_messages() {
    for compiler in cpp_compilers() {
        for (code, text) in [("full", "failed: 112("), ("io", "failed: 1117(")] {
            let bench = Bench::new();
            bench.database("db", 5_000_000);
            let (statement, client) = failing(&bench, compiler, code, u32::MAX >> 1);
            statement.assert_failure(&["Msg 3202,", "Write on \"failing\"", text]);
            assert!(client.text.contains("the end: 0x80770004\n"), "VD_E_ABORT: {client:#?}");
            // A full disk stays full: the server does not try again.
            assert_eq!(client.text.contains(" 0 cleared\n"), code == "full", "{client:#?}");
        }
    }
}

#[test]
fn an_error_that_passes_costs_nothing() {
    let bench = Bench::new();
    bench.database("db", 5_000_000);
    let (statement, client) = failing(&bench, "g++", "io", 1);
    statement.assert_success();
    assert!(client.text.contains("\nthe end: 0x8077000e\n"), "VD_E_CLOSE: {client:#?}");
    assert!(client.text.contains("1 failed, 1 cleared\n"), "{client:#?}");
    let mut command = program("g++", "file_agent.cpp", &["-std=c++11"]);
    command.args(["r", "agent"]).arg(bench.out().join("db.bak"));
    command.arg(format!("{} \"{RESTORE}\"", shell(&bench, ""))).env("VDI_GETCOMMAND_TIMEOUT_UNIT", "s");
    assert_good(&bench.run(command).outcome());
    bench.assert_identical("db", "copy");
}

/// Runs the program that does everything wrong.
#[track_caller]
fn misuse(bench: &Bench, mut command: Command) -> Outcome {
    bench.database("db", 2_000_000);
    command.arg(shell(bench, ""));
    let outcome = bench.run(command).outcome();
    assert_good(&outcome);
    assert!(outcome.text.contains("\n0 surprises\n") && !outcome.text.contains("SURPRISE"), "{outcome:#?}");
    outcome
}

#[test]
fn every_misuse_gets_its_error() {
    for compiler in cpp_compilers() {
        let bench = Bench::new();
        let outcome = misuse(&bench, program(compiler, "misuse.cpp", &["-std=c++11"]));
        assert!(!outcome.text.contains("libsqlvdi:"), "no messages were requested: {outcome:#?}");
    }
}

#[test]
fn every_failed_call_is_reported_on_request() {
    let bench = Bench::new();
    let mut command = program("g++", "misuse.cpp", &["-std=c++11"]);
    command.env("VDI_LOG", "1");
    let outcome = misuse(&bench, command);
    for text in [
        "libsqlvdi: Create: VD_E_INVALID (0x80770006): the set is null",
        "libsqlvdi: Create: VD_E_INVALID (0x80770006): the set's name does not end within 1024 bytes; end it with a zero byte",
        "libsqlvdi: Create: VD_E_INVALID (0x80770006): the set's name is no UTF-8",
        "libsqlvdi: Close: VD_E_PROTOCOL (0x8077000c): this object has no set: create or join one first",
        "libsqlvdi: Create of set \"order\": VD_E_PROTOCOL (0x8077000c): this call does not belong into state Configurable: this \
         object has this set already; close it first, or use another object",
        "libsqlvdi: CompleteCommand on device \"commands\" of set \"commands\": VD_E_INVALID (0x80770006): this pointer did not \
         come from GetCommand of this device",
        "libsqlvdi: GetCommand on device \"commands\" of set \"commands\": VD_E_CLOSE (0x8077000e): the server closed the device",
        "libsqlvdi: CompleteCommand on device \"commands\" of set \"commands\": VD_E_PROTOCOL (0x8077000c): the set was closed",
    ] {
        assert!(outcome.text.contains(text), "{text:?} is missing in {}", outcome.text);
    }
    // Every failure was reported, with its code.
    let returned = |line: &&str| line.contains(": 0x807700") && line.starts_with("  ");
    let reported =
        |line: &&str| line.starts_with("libsqlvdi: ") && line.contains("VD_E_") && line.contains("(0x807700");
    let count = |pattern: &dyn Fn(&&str) -> bool| outcome.text.lines().filter(|line| pattern(line)).count();
    assert!(count(&reported) >= count(&returned) && count(&returned) > 60, "{}", outcome.text);
}

#[test]
fn no_misuse_touches_memory_that_it_must_not() {
    let bench = Bench::new();
    if has("valgrind") {
        let plain = program("g++", "misuse.cpp", &["-std=c++11"]);
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--error-exitcode=99"]).arg(plain.get_program());
        command.env("LD_LIBRARY_PATH", folder());
        misuse(&bench, command);
    } else {
        skipped("valgrind is not installed");
    }
}

#[test]
fn a_storm_of_calls_from_many_threads_crashes_nothing() {
    for seed in ["1", "1000", "2000"] {
        let bench = Bench::new();
        bench.database("db", 2_000_000);
        let mut command = program("g++", "storm.cpp", &["-std=c++11"]);
        command.arg(shell(&bench, "")).arg(seed);
        let outcome = bench.run(command).outcome();
        assert_good(&outcome);
        assert!(outcome.text.contains("32000 calls"), "{outcome:#?}");
    }
}

/// Runs a scene of corners.cpp, in which nothing must be a surprise.
#[track_caller]
fn corner(scene: &str, change: impl FnOnce(&mut Command)) {
    let bench = Bench::new();
    bench.database("db", 2_000_000);
    let mut command = program("g++", "corners.cpp", &["-std=c++11"]);
    command.arg(scene).arg(shell(&bench, ""));
    change(&mut command);
    let outcome = bench.run(command).outcome();
    assert_good(&outcome);
    assert!(outcome.text.contains("\n0 surprises\n") && !outcome.text.contains("SURPRISE"), "{outcome:#?}");
    assert!(!outcome.text.contains("panicked"), "{outcome:#?}");
}

#[test]
fn a_fork_and_its_end_change_nothing_for_the_process_with_the_set() {
    corner("fork", |_| {});
}

#[test]
fn a_second_thread_of_a_device_waits_no_longer_than_it_asked_for() {
    corner("threads", |_| {});
}

#[test]
fn a_device_that_was_closed_stays_closed_when_the_set_is_aborted() {
    corner("closed", |_| {});
}

#[test]
fn a_program_s_operator_new_that_has_no_memory_is_an_error() {
    corner("memory", |_| {});
}

#[test]
fn messages_that_no_process_reads_end_no_program() {
    corner("deaf", |command| _ = command.env("VDI_LOG", "1"));
}

#[test]
fn what_the_library_allocates_may_be_deleted() {
    let bench = Bench::new();
    // An address sanitizer comes with most compilers, and not with all.
    let probe = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dropin-probe.cpp");
    fs::write(&probe, "int main() {}\n").unwrap();
    let mut works = Command::new("g++");
    works.arg("-fsanitize=address").arg(&probe).arg("-o").arg(probe.with_extension("out"));
    if !works.output().unwrap().status.success() {
        skipped("g++ has no address sanitizer");
        return;
    }
    let mut command = program("g++", "misuse.cpp", &["-std=c++11", "-fsanitize=address"]);
    // The program leaves objects behind on purpose.
    command.env("ASAN_OPTIONS", "detect_leaks=0:alloc_dealloc_mismatch=1");
    misuse(&bench, command);
}
