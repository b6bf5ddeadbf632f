//! SQL Server's library as a back end of the client, shown on libraries that stand in for it: one of our own that plays a
//! script and records its calls, and the drop-in library, against `vdi-sim sql`. No SQL Server is needed, and none was there.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::examples::{Client, Folders, build};
use common::{eventually, native};
use vdi_client::raw::RawDevice;
use vdi_client::{
    BackEnd, BufferHandle, ClientVirtualDevice, ClientVirtualDeviceSet, CommandCode, Completion, CompletionCode, Error,
    ErrorKind, INFINITE, SqlServer, TimeOutUnit, VdConfig, VdError,
};
use vdi_proto::set::client::State;

/// Compiles a source of `tests/programs` into a shared library.
#[track_caller]
fn compile(source: &str, arguments: &[&str]) -> PathBuf {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vdi-client/sqlvdi/include");
    let include = format!("-I{}", include.display());
    let shared = ["-std=c++11", "-shared", "-fPIC", &include];
    native::cpp_compilers();
    native::compile("g++", source, &shared.iter().chain(arguments).map(AsRef::as_ref).collect::<Vec<_>>())
}

/// The library that plays scripts.
fn recorder() -> &'static Path {
    static RECORDER: OnceLock<PathBuf> = OnceLock::new();
    RECORDER.get_or_init(|| compile("recording_sqlvdi.cpp", &[]))
}

/// The library that brings vdi-client to C++ programs.
fn drop_in() -> PathBuf {
    native::library_folder("vdi-sqlvdi").join("libsqlvdi.so")
}

/// An example of vdi-client that can use a library. In a place of its own, since others build it without.
fn example(name: &str) -> PathBuf {
    let built = build(&["-p", "vdi-client", "--example", name, "--features", "sqlserver"]).join("examples").join(name);
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sqlserver-{name}"));
    fs::copy(built, &copy).unwrap();
    copy
}

/// What is agreed on: one device, the features, the prefix zone; transfers of 64 KiB at most.
fn agreed(features: u32, prefix: u32) -> String {
    format!("config 1 {features} {prefix} 512 0 0 0 512 4 65536 262144\n")
}

const WRITE_MEDIA: u32 = 0x1_0000;

/// A folder with a script, which is a set's name.
struct Played(tempfile::TempDir);

impl Played {
    fn new(script: &str) -> Played {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("script"), script).unwrap();
        Played(folder)
    }

    fn name(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn count(&self, beginning: &str) -> usize {
        self.calls().iter().filter(|call| call.starts_with(beginning)).count()
    }

    fn object() -> ClientVirtualDeviceSet {
        let vendor = SqlServer { library: Some(recorder().into()), ..SqlServer::default() };
        ClientVirtualDeviceSet::with_back_end(BackEnd::SqlServer(vendor)).unwrap()
    }

    /// A set with its device open.
    fn open(&self) -> (ClientVirtualDeviceSet, ClientVirtualDevice) {
        let set = Played::object();
        set.create(self.name(), &VdConfig::default()).unwrap();
        set.get_configuration(INFINITE).unwrap();
        let device = set.open_device(self.name()).unwrap();
        (set, device)
    }
}

/// A script of a backup without prefix zones.
fn backup(script: &str) -> Played {
    Played::new(&(agreed(WRITE_MEDIA, 0) + script))
}

#[track_caller]
fn assert_calls(played: &Played, expected: &[&str]) {
    assert_eq!(played.calls(), expected);
}

#[track_caller]
fn assert_violation(error: &Error, evidence: &str) {
    let text = error.to_string();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Violation, VdError::Abort), "{text}");
    assert!(text.contains(evidence) && text.contains("broke the interface"), "{text}");
}

// ---- the agent on the library that records

fn run_agent(played: &Played, file: &Path) -> Output {
    let agent = agent();
    let mut command = Command::new(agent);
    command.args([played.name(), file.to_str().unwrap()]).env("VDI_LIBRARY", recorder()).output().unwrap()
}

fn agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| example("agent"))
}

#[test]
fn the_agent_calls_what_it_should() {
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("db.bak");
    let played = Played::new(&(agreed(0x5_2000, 0) + "write 1024 65\nwrite 512 66\ncommand 12 0 0\ncommand 19 0 0\n"));
    let Output { status, stdout, stderr } = run_agent(&played, &file);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(String::from_utf8_lossy(&stdout).ends_with("1536 bytes written, 0 bytes read, 4 commands\n"));
    assert_eq!(fs::read(&file).unwrap(), [vec![b'A'; 1024], vec![b'B'; 512]].concat());
    let beginning = ["Create 1 8192 0 0 0 0 0 0 0 0 0", "GetConfiguration", "OpenDevice (the set's name)"];
    let end = ["Close, 0 outstanding", "destroyed"];
    let calls = [
        "GetCommand -> write 1024 65",
        "CompleteCommand of 2: code 0, 1024 bytes, position 0, sum 0, prefix 0",
        "GetCommand -> write 512 66",
        "CompleteCommand of 2: code 0, 512 bytes, position 0, sum 0, prefix 0",
        "GetCommand -> command 12 0 0",
        "CompleteCommand of 12: code 0, 0 bytes, position 0, sum 0, prefix 0",
        "GetCommand -> command 19 0 0",
        "CompleteCommand of 19: code 0, 0 bytes, position 0, sum 0, prefix 0",
    ];
    assert_calls(&played, &[&beginning[..], &calls, &end].concat());

    let played = Played::new(&(agreed(0x2_0000, 0) + "read 1024\nread 1024\n"));
    let Output { status, stderr, .. } = run_agent(&played, &file);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let calls = [
        "GetCommand -> read 1024".to_owned(),
        format!("CompleteCommand of 1: code 0, 1024 bytes, position 0, sum {}, prefix 0", 1024 * 65),
        "GetCommand -> read 1024".to_owned(),
        format!("CompleteCommand of 1: code 38, 512 bytes, position 0, sum {}, prefix 0", 512 * 66),
    ];
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    assert_calls(&played, &[&beginning[..], &calls, &end].concat());
}

#[test]
fn the_agent_tells_what_the_library_refused() {
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("db.bak");
    let played = backup("answer OpenDevice 0x80770004\n");
    let Output { status, stderr, .. } = run_agent(&played, &file);
    let text = String::from_utf8_lossy(&stderr);
    assert!(!status.success() && text.contains("OpenDevice") && text.contains("group"), "{text}");
    assert!(!file.exists());
}

#[test]
fn an_exception_ends_the_process_with_a_message() {
    let file = tempfile::tempdir().unwrap();
    let played = backup("throw\n");
    let Output { status, stderr, .. } = run_agent(&played, &file.path().join("db.bak"));
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!(status.signal(), Some(6), "{text}");
    assert!(text.contains("GetCommand of SQL Server's library ended with a C++ exception"), "{text}");
}

/// The library's own calls go to itself, also where another one is in the global scope.
#[test]
fn a_preloaded_library_of_the_same_names_is_not_in_the_way() {
    let drop_in = drop_in();
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("db.bak");
    let played = backup("write 1024 65\ncommand 12 0 0\n");
    let mut command = Command::new(agent());
    command.args([played.name(), file.to_str().unwrap()]).env("VDI_LIBRARY", recorder()).env("LD_PRELOAD", drop_in);
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(fs::read(&file).unwrap(), vec![b'A'; 1024]);
    assert_eq!(played.calls().last().unwrap(), "destroyed");
}

// ---- waits

#[test]
fn waits_are_made_of_short_ones() {
    let played = backup("quiet 100000\n");
    let (_set, mut device) = played.open();
    let begun = Instant::now();
    let error = device.get_command(Duration::from_secs(1)).unwrap_err();
    assert_eq!((error.code(), error.kind()), (VdError::Timeout, ErrorKind::NotYet));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(played.count("GetCommand(100) -> VD_E_TIMEOUT") >= 2 && played.calls().len() < 20, "{:?}", played.calls());
    let error = device.get_command(Duration::ZERO).unwrap_err();
    assert_eq!(error.code(), VdError::Timeout);
    assert_eq!(played.calls().last().unwrap(), "GetCommand(0) -> VD_E_TIMEOUT");
}

#[test]
fn a_library_that_wants_seconds_gets_seconds() {
    let played = backup("quiet 100000\n");
    let vendor = SqlServer { library: Some(recorder().into()), get_command_unit: TimeOutUnit::Seconds };
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::SqlServer(vendor)).unwrap();
    set.create(played.name(), &VdConfig::default()).unwrap();
    set.get_configuration(INFINITE).unwrap();
    let mut device = set.open_device(played.name()).unwrap();
    let begun = Instant::now();
    assert_eq!(device.get_command(Duration::from_millis(1500)).unwrap_err().code(), VdError::Timeout);
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert!(played.count("GetCommand(1) -> VD_E_TIMEOUT") >= 1, "{:?}", played.calls());
    assert_eq!(played.count("GetCommand(100)"), 0);
}

#[test]
fn waits_end_when_this_program_wants() {
    let played = backup("answer GetConfiguration 0x80770003\nquiet 100000\n");
    let set = Played::object();
    set.create(played.name(), &VdConfig::default()).unwrap();
    let canceller = set.canceller().unwrap();
    canceller.cancel();
    assert_eq!(set.get_configuration(INFINITE).unwrap_err().code(), VdError::Timeout);
    canceller.resume();
    // The library timed out once, and that was not the end.
    set.get_configuration(INFINITE).unwrap();
    assert_eq!(played.count("GetConfiguration"), 2);
    let mut device = set.open_device(played.name()).unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| device.get_command(INFINITE));
        eventually("the wait begins", || if played.count("GetCommand(") > 0 { Ok(()) } else { Err("not yet".into()) });
        canceller.cancel();
        let error = wait.join().unwrap().unwrap_err();
        assert_eq!(error.code(), VdError::Timeout);
        assert!(error.to_string().contains("cancelled"), "{error}");
    });
    canceller.resume();
    std::thread::scope(|scope| {
        let begun = played.count("GetCommand(");
        let wait = scope.spawn(|| device.get_command(INFINITE));
        let more = || if played.count("GetCommand(") > begun { Ok(()) } else { Err("not yet".into()) };
        eventually("the wait begins", more);
        set.signal_abort().unwrap();
        assert_eq!(wait.join().unwrap().unwrap_err().code(), VdError::Abort);
    });
    assert_eq!(set.state(), State::Abort);
}

#[test]
fn a_close_ends_the_waits_of_other_threads() {
    let played = backup("quiet 100000\n");
    let (set, mut device) = played.open();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| device.get_command(INFINITE));
        eventually("the wait begins", || if played.count("GetCommand(") > 0 { Ok(()) } else { Err("not yet".into()) });
        assert_eq!(set.close().unwrap_err().code(), VdError::Open);
        let code = wait.join().unwrap().unwrap_err().code();
        assert!(matches!(code, VdError::Abort | VdError::Protocol), "{code:?}");
    });
    assert_eq!(device.get_command(INFINITE).unwrap_err().code(), VdError::Protocol);
    assert_eq!(played.count("SignalAbort"), 1);
    assert_eq!(played.count("Close"), 1);
}

#[test]
fn commands_are_completed_while_another_thread_waits_for_more() {
    let played = backup("write 512 1\nquiet 100000\n");
    let (set, mut device) = played.open();
    let command = device.get_command(INFINITE).unwrap();
    let canceller = set.canceller().unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| device.get_command(INFINITE));
        eventually(
            "the wait begins",
            || if played.count("GetCommand(1)") > 1 { Ok(()) } else { Err("not yet".into()) },
        );
        command.complete(Completion::transferred(512)).unwrap();
        eventually(
            "nothing is held",
            || if played.count("GetCommand(100)") > 0 { Ok(()) } else { Err("not yet".into()) },
        );
        canceller.cancel();
        assert_eq!(wait.join().unwrap().unwrap_err().code(), VdError::Timeout);
    });
    assert_eq!(device.outstanding(), 0);
}

// ---- answers

#[test]
fn every_code_is_told_with_its_name() {
    for code in VdError::ALL {
        let played = Played::new(&format!("answer Create {:#x}\n", code.hresult()));
        let error = Played::object().create(played.name(), &VdConfig::default()).unwrap_err();
        assert_eq!((error.code(), error.call(), error.set()), (code, "Create", played.name()));
        // What was not created is not closed.
        assert_eq!(played.calls()[1..], ["destroyed"]);
    }
}

#[test]
fn codes_without_a_name_are_kept() {
    for (code, told) in
        [("0x80070005", "E_ACCESSDENIED"), ("1", "0x00000001"), ("-1", "0xffffffff"), ("0x80770008", "0x80770008")]
    {
        let played = backup(&format!("code {code}\n"));
        let (_set, mut device) = played.open();
        let error = device.get_command(INFINITE).unwrap_err();
        assert_eq!(
            (error.code(), error.kind(), error.device()),
            (VdError::Unexpected, ErrorKind::System, Some(played.name()))
        );
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn nonsense_is_a_violation_and_never_followed() {
    for (script, evidence) in [
        ("block 0\n", "a command at 0x0"),
        ("block 0x1000\n", "a command at 0x1000"),
        ("block 0x7fffffffeff1\n", "a command at 0x7fffffffeff1"),
        ("block -8\n", "a command at 0x"),
        ("buffer 0 512\n", "a buffer of 512 bytes at 0x0"),
        ("buffer 0x1000 512\n", "no such memory"),
        ("buffer -1 512\n", "a buffer of 512 bytes at 0x"),
        ("write 65537 1\n", "65537 bytes of at most 65536"),
        ("buffer 0x1000 -1\n", "-1 bytes of at most 65536"),
    ] {
        let played = backup(script);
        let (set, mut device) = played.open();
        assert_violation(&device.get_command(INFINITE).unwrap_err(), evidence);
        assert_eq!(played.count("SignalAbort"), 1, "{script}");
        assert_eq!(set.state(), State::Abort);
        assert_eq!(device.get_command(INFINITE).unwrap_err().code(), VdError::Abort);
        drop(device);
        set.close().unwrap();
        assert_eq!(played.calls().last().unwrap(), "destroyed");
    }
}

#[test]
fn a_buffer_that_is_held_cannot_come_again() {
    let played = backup("write 512 1\nagain 512\n");
    let (_set, mut device) = played.open();
    let first = device.get_command(INFINITE).unwrap();
    assert_violation(&device.get_command(INFINITE).unwrap_err(), "already");
    assert_eq!(first.data(), [1; 512]);
    drop(first);
    // After its completion it may.
    let played = backup("write 512 1\nagain 512\n");
    let (_set, mut device) = played.open();
    for _ in 0..2 {
        let command = device.get_command(INFINITE).unwrap();
        assert_eq!(command.data(), [1; 512]);
        command.complete(Completion::transferred(512)).unwrap();
    }
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
}

#[test]
fn configurations_that_cannot_be_are_violations() {
    for (fields, field) in [
        ("1 65536 99999999 512 0 0 0 512 4 65536 262144", "prefixZoneSize"),
        ("1 65536 0 512 0 0 0 512 4 0 0", "maxTransferSize"),
    ] {
        let played = Played::new(&format!("config {fields}\n"));
        let set = Played::object();
        set.create(played.name(), &VdConfig::default()).unwrap();
        assert_violation(&set.get_configuration(INFINITE).unwrap_err(), field);
    }
}

// ---- commands

#[test]
fn prefix_zones_lie_right_before_the_data() {
    let played = Played::new(&(agreed(0x2_0000, 32) + "read 512\n"));
    let (set, mut device) = played.open();
    let mut command = device.get_command(INFINITE).unwrap();
    assert_eq!(command.prefix_mut(), [0xee; 32]);
    command.prefix_mut().fill(2);
    command.data_mut().fill(3);
    assert_eq!(command.data(), [3; 512]);
    command.complete(Completion::transferred(512)).unwrap();
    assert_eq!(
        played.calls().last().unwrap(),
        "CompleteCommand of 1: code 0, 512 bytes, position 0, sum 1536, prefix 64"
    );
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    assert_eq!(set.state(), State::NormallyTerminated);
    set.close().unwrap();
    assert_eq!(set.state(), State::DoesNotExist);
    assert_eq!(played.count("SignalAbort"), 0);
}

#[test]
fn sizes_and_positions_come_as_they_are() {
    let played = backup("command 6 -3 0\ncommand 10 2 -4096\ncommand 9 0 0\ncommand 77 1 2\n");
    let (_set, mut device) = played.open();
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((command.code(), command.size(), command.data().len()), (CommandCode::SKIP_MARKS, -3, 0));
    command.complete(Completion::failed(CompletionCode::FILEMARK_DETECTED)).unwrap();
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((command.code(), command.position().cast_signed()), (CommandCode::SET_POSITION, -4096));
    command.complete(Completion::at(1 << 40)).unwrap();
    assert!(played.calls().last().unwrap().contains("position 1099511627776"));
    assert!(played.count("CompleteCommand of 6: code 1101, 0 bytes") == 1);
    let command = device.get_command(INFINITE).unwrap();
    assert!(command.buffer_address().is_none() && command.buffer_handle().unwrap_err().code() == VdError::Invalid);
    // More bytes than it has: refused before the library hears of it.
    let refused = command.complete(Completion::transferred(1)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Invalid);
    refused.command.unwrap().complete(Completion::at(0)).unwrap();
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((command.code().number(), command.size(), command.position()), (77, 1, 2));
    command.complete(Completion::failed(CompletionCode::NOT_SUPPORTED)).unwrap();
    assert_eq!(played.count("CompleteCommand"), 4);
}

#[test]
fn what_is_dropped_ends_as_on_the_own_back_end() {
    let played = backup("write 512 1\nwrite 512 2\n");
    let (set, mut device) = played.open();
    drop(device.get_command(INFINITE).unwrap());
    assert!(played.calls().last().unwrap().starts_with("CompleteCommand of 2: code 995, 0 bytes"));
    assert_eq!(played.count("SignalAbort"), 0);
    drop(device);
    assert_eq!(played.count("SignalAbort"), 1);
    drop(set);
    assert_eq!(played.calls()[played.calls().len() - 2..], ["Close, 1 outstanding", "destroyed"]);
    // A device that the server had closed, although nobody asked any more, is no reason to abort.
    let played = backup("");
    let (set, device) = played.open();
    drop(device);
    assert_eq!(played.count("SignalAbort"), 0);
    set.close().unwrap();
}

#[test]
fn a_refused_completion_gives_the_command_back_where_it_is_outstanding() {
    let played = backup("answer CompleteCommand 0x8077000f\nwrite 512 1\n");
    let (_set, mut device) = played.open();
    let refused = device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap_err();
    assert_eq!((refused.error.code(), device.outstanding()), (VdError::Busy, 1));
    let command = refused.command.unwrap();
    assert_eq!(command.data(), [1; 512]);
    command.complete(Completion::transferred(512)).unwrap();
    assert_eq!(device.outstanding(), 0);
    // No command stays unanswered: where even its failure is refused, the set is aborted.
    let played = backup("answer CompleteCommand 0x80770006\nanswer CompleteCommand 0x80770006\nwrite 512 1\n");
    let (_set, mut device) = played.open();
    drop(device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap_err());
    assert_eq!((played.count("CompleteCommand"), played.count("SignalAbort")), (2, 1));
}

#[test]
fn buffers_outlive_the_close_and_the_library_is_told_after_them() {
    let played = backup("write 512 1\nread 512\ncommand 12 0 0\n");
    let (set, mut device) = played.open();
    let first = device.get_command(INFINITE).unwrap();
    let mut second = device.get_command(INFINITE).unwrap();
    let flush = device.get_command(INFINITE).unwrap();
    assert_eq!(set.close().unwrap_err().code(), VdError::Open);
    assert_eq!((played.count("SignalAbort"), played.count("Close")), (1, 0));
    second.data_mut().fill(7);
    assert_eq!((first.data(), second.data()), (&[1; 512][..], &[7; 512][..]));
    assert_eq!(first.complete(Completion::transferred(512)).unwrap_err().error.code(), VdError::Protocol);
    assert_eq!(played.count("Close"), 0);
    drop(second);
    assert_eq!(played.count("Close"), 1);
    drop((flush, device));
    assert_eq!(played.count("CompleteCommand"), 0);
    assert_eq!(played.count("destroyed"), 1);
    // The object is good for another set.
    let again = backup("");
    set.create(again.name(), &VdConfig::default()).unwrap();
    set.close().unwrap();
    assert_eq!(again.calls().len(), 3);
}

#[test]
fn blocks_of_numbers_work_too() {
    let played = backup("write 512 1\n");
    let (_set, device) = played.open();
    let device = RawDevice::new(device);
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((device.name(), command.size), (played.name(), 512));
    device.complete_command(command.id, CompletionCode::SUCCESS, 512, 0).unwrap();
    let twice = device.complete_command(command.id, CompletionCode::SUCCESS, 512, 0);
    assert_eq!(twice.unwrap_err().code(), VdError::Invalid);
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
}

// ---- handles, secondaries, names

#[test]
fn buffers_pass_by_their_handles() {
    let played = backup("write 512 1\n");
    let (set, mut device) = played.open();
    let command = device.get_command(INFINITE).unwrap();
    let handle = set.get_buffer_handle(command.buffer_address().unwrap()).unwrap();
    assert_eq!((handle.number(), command.buffer_handle().unwrap()), (4711, handle));
    assert_eq!(set.get_buffer_handle(&raw const handle as *const u8).unwrap_err().code(), VdError::Invalid);
    assert_eq!(played.count("GetBufferHandle of the last buffer"), 2);
    assert_eq!(played.count("GetBufferHandle of something else"), 0);

    let map = |number, bytes| set.map_buffer_handle_sized(BufferHandle::from_number(number), bytes);
    assert_eq!(map(4711, 512).unwrap_err().code(), VdError::Busy);
    let mut mapped = map(7000, 1000).unwrap();
    assert_eq!(mapped.data(), [0x5a; 1000]);
    mapped.data_mut().fill(1);
    assert_eq!(mapped.address().as_ptr().cast_const(), mapped.data().as_ptr());
    assert_eq!(map(1, 512).unwrap_err().code(), VdError::Invalid);
    assert_eq!(map(7000, 65537).unwrap_err().code(), VdError::Invalid);
    // The library does not tell how long a buffer is, and nobody guesses.
    let error = set.map_buffer_handle(BufferHandle::from_number(7000)).unwrap_err();
    assert_eq!(error.code(), VdError::NotSupported);
    assert!(error.to_string().contains("map_buffer_handle_sized"), "{error}");
    command.complete(Completion::transferred(512)).unwrap();
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    set.close().unwrap();
    assert_eq!(played.count("Close"), 0, "a buffer is still mapped");
    assert_eq!(mapped.data(), [1; 1000]);
    drop(mapped);
    assert_eq!(played.count("Close"), 1);

    for handle in [7001, 7002] {
        let played = backup("");
        let (set, _device) = played.open();
        let error = set.map_buffer_handle_sized(BufferHandle::from_number(handle), 512).unwrap_err();
        assert_violation(&error, "MapBufferHandle gave");
    }
}

#[test]
fn secondaries_join_by_the_library() {
    let played = backup("write 512 1\n");
    let set = Played::object();
    set.open_in_secondary(played.name()).unwrap();
    assert_eq!(set.state(), State::Initializing);
    // A secondary need not ask for the configuration first.
    let mut device = set.open_device("dev1").unwrap();
    assert_eq!(device.config().max_transfer_size, 65536);
    device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap();
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    set.close().unwrap();
    assert_eq!(played.calls()[..3], ["OpenInSecondary", "GetConfiguration", "OpenDevice dev1"]);
}

#[test]
fn names_and_order_are_checked_before_the_library_hears_of_them() {
    let set = Played::object();
    let played = backup("");
    let config = VdConfig::default();
    let code = |result: Result<(), Error>| result.unwrap_err().code();
    assert_eq!(set.state(), State::DoesNotExist);
    assert_eq!(code(set.create_ex(Some("SQL2"), played.name(), &config)), VdError::InstanceName);
    assert_eq!(code(set.open_in_secondary_ex(Some("SQL2"), played.name())), VdError::InstanceName);
    assert_eq!(code(set.create("", &config)), VdError::Invalid);
    assert_eq!(code(set.create("a\\b", &config)), VdError::Invalid);
    assert_eq!(code(set.create("a\0b", &config)), VdError::Invalid);
    assert_eq!(code(set.close()), VdError::Protocol);
    assert_eq!(code(set.signal_abort()), VdError::Protocol);
    assert_eq!(code(set.open_device("x").map(drop)), VdError::Protocol);
    assert_eq!(played.calls(), [""; 0]);
    set.create_ex(Some(""), played.name(), &config).unwrap();
    assert_eq!(set.state(), State::Configurable);
    assert_eq!(code(set.create("another", &config)), VdError::Protocol);
    assert_eq!(code(set.open_device("x").map(drop)), VdError::Protocol);
    set.get_configuration(INFINITE).unwrap();
    assert_eq!(code(set.open_device("a\\b").map(drop)), VdError::Invalid);
    let device = set.open_device("x").unwrap();
    let elsewhere = Played::open(&backup("write 512 1\n"));
    let mut other = elsewhere.1;
    let refused =
        device.complete_command(other.get_command(INFINITE).unwrap(), Completion::transferred(512)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Invalid);
    refused.command.unwrap().complete(Completion::transferred(512)).unwrap();
}

// ---- libraries that cannot be used

#[track_caller]
fn refused(library: &Path) -> (VdError, String) {
    let vendor = SqlServer { library: Some(library.into()), ..SqlServer::default() };
    let error = ClientVirtualDeviceSet::with_back_end(BackEnd::SqlServer(vendor)).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn wrong_libraries_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (code, text) = refused(&path("none.so"));
    assert!(code == VdError::Invalid && text.contains("none.so") && text.contains("mssql-server"), "{text}");
    let (code, text) = refused(folder.path());
    assert!(code == VdError::Invalid && text.contains("no regular file"), "{text}");
    fs::write(path("text.so"), "INPUT(libsqlvdi.so.1)").unwrap();
    let (code, text) = refused(&path("text.so"));
    assert!(code == VdError::Invalid && text.contains("no ELF header"), "{text}");
    fs::write(path("empty.so"), "").unwrap();
    assert_eq!(refused(&path("empty.so")).0, VdError::Invalid);
    let (code, text) = refused(&std::env::current_exe().unwrap());
    assert!(code != VdError::Timeout && text.contains("library"), "{text}");

    // Another machine's: by its header, since nobody has a compiler for it.
    let mut library = fs::read(recorder()).unwrap();
    library[18..20].copy_from_slice(&(if cfg!(target_arch = "aarch64") { 62u16 } else { 183 }).to_le_bytes());
    fs::write(path("foreign.so"), &library).unwrap();
    let (code, text) = refused(&path("foreign.so"));
    assert!(code == VdError::Invalid && text.contains("aarch64") && text.contains("x86_64"), "{text}");
    // Cut short: the loader itself would crash on it.
    let library = fs::read(recorder()).unwrap();
    for len in [19, 63, 100, 2000, 8192] {
        fs::write(path("short.so"), &library[..len]).unwrap();
        let (code, text) = refused(&path("short.so"));
        assert!(code == VdError::Invalid && text.contains("cut short"), "{len}: {text}");
    }
}

#[test]
fn what_a_library_lacks_is_named() {
    // No symbol of the interface, or one too few.
    let other = compile("lacking.cpp", &["-DNEEDED", "-Wl,-soname,libnowhere.so.7"]);
    let (code, text) = refused(&other);
    assert!(code == VdError::NotSupported && text.contains("_ZN22ClientVirtualDeviceSetC1Ev"), "{text}");
    let (code, text) = refused(&compile("recording_sqlvdi.cpp", &["-DSignalAbort=Signal"]));
    assert!(code == VdError::NotSupported && text.contains("_ZN22ClientVirtualDeviceSet11SignalAbortEv"), "{text}");

    // It needs a library that is nowhere.
    let library = compile("lacking.cpp", &[other.to_str().unwrap()]);
    let (code, text) = refused(&library);
    assert!(code == VdError::Unexpected && text.contains("needs libnowhere.so.7"), "{text}");
    let remedy = format!("LD_LIBRARY_PATH={}", library.parent().unwrap().canonicalize().unwrap().display());
    assert!(text.contains(&remedy), "{text}");

    // It needs a symbol, and does not say of what library.
    let (code, text) = refused(&compile("lacking.cpp", &[]));
    assert!(code == VdError::Unexpected && text.contains("the symbol _Z7nowherev"), "{text}");
}

// ---- the drop-in library against the simulator

/// The same agents, on the shared memory of vdi-client and on the drop-in library that brings it to C++ programs.
#[test]
fn the_same_agents_run_on_either_back_end() {
    let drop_in = drop_in();
    let folders = Folders::new();
    let (backup, runtime) = (folders.path("backup"), folders.path("runtime"));
    let run = |program: &Path, arguments: &[&str], statement: &str, library: Option<&Path>, said: &str| {
        let environment: Vec<_> = library.map(|library| ("VDI_LIBRARY", library)).into_iter().collect();
        let client = Client::start_with(program, arguments, &runtime, &environment);
        folders.sql(statement);
        let text = client.finish();
        assert!(text.contains(said), "{text}");
    };
    // What one back end wrote, the other one reads, and the files are the same.
    let mut files = Vec::new();
    for (name, library) in [("own", None), ("library", Some(&*drop_in))] {
        let file = backup.join(name);
        let arguments = ["agent", file.to_str().unwrap()];
        run(agent(), &arguments, "BACKUP DATABASE db TO VIRTUAL_DEVICE='agent'", library, "bytes written");
        let other = if library.is_none() { Some(&*drop_in) } else { None };
        for (copy, library) in [("same", library), ("other", other)] {
            let statement = format!("RESTORE DATABASE {name}_{copy} FROM VIRTUAL_DEVICE='agent'");
            run(agent(), &arguments, &statement, library, "bytes read");
            assert_eq!(folders.files("db"), folders.files(&format!("{name}_{copy}")));
        }
        files.push(fs::metadata(&file).unwrap().len());
    }
    assert_eq!(files[0], files[1]);
    folders.assert_clean(2);
}

#[test]
fn every_example_runs_on_a_library() {
    let drop_in = drop_in();
    let start = |program: &Path, arguments: &[&str], folders: &Folders| {
        Client::start_with(program, arguments, &folders.path("runtime"), &[("VDI_LIBRARY", &drop_in)])
    };
    let kinds = example("kinds");
    for kind in ["disk", "tape", "volumes"] {
        let folders = Folders::new();
        let path = folders.path("backup").join("db");
        for (statement, said) in [
            ("BACKUP DATABASE db TO VIRTUAL_DEVICE='kinds' WITH MAXTRANSFERSIZE = 1048576", "bytes written"),
            ("RESTORE DATABASE copy FROM VIRTUAL_DEVICE='kinds'", "bytes read"),
        ] {
            let client = start(&kinds, &["kinds", kind, path.to_str().unwrap()], &folders);
            folders.sql(statement);
            assert!(client.finish().contains(said));
        }
        assert_eq!(folders.files("db"), folders.files("copy"));
        folders.assert_clean(1);
    }

    let folders = Folders::new();
    let backup = folders.path("backup");
    let client = start(&example("handles"), &["handles", "3"], &folders);
    folders.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE='handles' WITH MAXTRANSFERSIZE=131072, NO_CHECKSUM");
    assert!(client.finish().contains("buffers summed by workers"));
    let secondaries = example("secondaries");
    for statement in [
        "BACKUP DATABASE db TO VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
        "RESTORE DATABASE copy FROM VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
    ] {
        let client = start(&secondaries, &["many", "3", backup.to_str().unwrap()], &folders);
        folders.sql(statement);
        assert!(client.finish().contains("all 3 devices are done"));
    }
    assert_eq!(folders.files("db"), folders.files("copy"));
    folders.assert_clean(3);

    let folders = Folders::new();
    let (database, backup) = (folders.path("data/db"), folders.path("backup"));
    let before = folders.files("db");
    let snapshot = example("snapshot");
    for (statement, said) in [
        ("BACKUP DATABASE db TO VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT", "taken"),
        ("RESTORE DATABASE db FROM VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT, REPLACE", "mounted"),
    ] {
        let client = start(&snapshot, &["snapshot", database.to_str().unwrap(), backup.to_str().unwrap()], &folders);
        folders.sql(statement);
        assert!(client.finish().contains(said));
    }
    assert_eq!(folders.files("db"), before);
}
