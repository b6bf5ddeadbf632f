//! SQL Server's library as a back end of the client: the agents on libraries that stand in for it, the drop-in library against
//! `vdi-sim sql` among them, and libraries that cannot be used.
#![allow(clippy::unwrap_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use common::client::moves;
use common::examples::{Client, Folders, copied};
use common::recorder::{Played, assert_calls, backup, compile, drop_in, example, negotiated, recorder};
use vdi_client::{BackEnd, ClientVirtualDeviceSet, SqlServer, VdError};

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
    let played =
        Played::new(&(negotiated(0x5_2000, 0) + "write 1024 65\nwrite 512 66\ncommand 12 0 0\ncommand 19 0 0\n"));
    let Output { status, stdout, stderr } = run_agent(&played, &file);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(
        (String::from_utf8_lossy(&stderr).lines().last(), &*stdout),
        (Some("1536 bytes written, 0 bytes read, 4 commands"), &b""[..])
    );
    assert_eq!(fs::read(&file).unwrap(), [vec![b'A'; 1024], vec![b'B'; 512]].concat());
    // The agent waits with a time-out, and `serve` asks again, which the interface allows.
    let configuration = ["GetConfiguration"; 2];
    let beginning =
        [&["Create 1 8192 0 0 0 0 0 0 0 0 0"][..], &configuration, &["OpenDevice (the set's name)"]].concat();
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

    let played = Played::new(&(negotiated(0x2_0000, 0) + "read 1024\nread 1024\n"));
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
    // Whoever opened this would wait for a writer.
    assert!(Command::new("mkfifo").arg(path("pipe.so")).status().unwrap().success());
    let (code, text) = refused(&path("pipe.so"));
    assert!(code == VdError::Invalid && text.contains("no regular file"), "{text}");
    // What the loader says is the evidence.
    fs::write(path("text.so"), "INPUT(libsqlvdi.so.1)").unwrap();
    let (code, text) = refused(&path("text.so"));
    assert!(code == VdError::Unexpected && text.contains("cannot load the library"), "{text}");
    fs::write(path("empty.so"), "").unwrap();
    assert_eq!(refused(&path("empty.so")).0, VdError::Unexpected);
    let (code, text) = refused(&std::env::current_exe().unwrap());
    assert!(code != VdError::Timeout && text.contains("library"), "{text}");
}

#[test]
fn what_a_library_lacks_is_named() {
    let other = compile("lacking.cpp", &["-DNEEDED", "-Wl,-soname,libnowhere.so.7"]);
    // It needs a library that is nowhere, as long as nobody has loaded it.
    let library = compile("lacking.cpp", &[other.to_str().unwrap()]);
    let (code, text) = refused(&library);
    assert!(code == VdError::Unexpected && text.contains("libnowhere.so.7: cannot open shared object file"), "{text}");
    let remedy = format!("LD_LIBRARY_PATH={}", library.parent().unwrap().canonicalize().unwrap().display());
    assert!(text.contains(&remedy), "{text}");

    // No symbol of the interface, or one too few.
    let (code, text) = refused(&other);
    assert!(code == VdError::NotSupported && text.contains("_ZN22ClientVirtualDeviceSetC1Ev"), "{text}");
    let (code, text) = refused(&compile("recording_sqlvdi.cpp", &["-DSignalAbort=Signal"]));
    assert!(code == VdError::NotSupported && text.contains("_ZN22ClientVirtualDeviceSet11SignalAbortEv"), "{text}");
    // A symbol without an address is no function.
    let null = "-Wl,--defsym=_ZN22ClientVirtualDeviceSet11SignalAbortEv=0";
    let (code, text) = refused(&compile("recording_sqlvdi.cpp", &["-DSignalAbort=Signal", null]));
    assert!(code == VdError::NotSupported && text.contains("_ZN22ClientVirtualDeviceSet11SignalAbortEv"), "{text}");

    // It needs a symbol, and does not say of what library.
    let (code, text) = refused(&compile("lacking.cpp", &[]));
    assert!(code == VdError::Unexpected && text.contains("undefined symbol: _Z7nowherev"), "{text}");
}

/// Its initialisers have run before it is found lacking: a thread that they started would need its code from then on.
#[test]
fn a_library_that_is_refused_stays_loaded() {
    let library = compile("lacking.cpp", &["-DNEEDED"]);
    assert_eq!(refused(&library).0, VdError::NotSupported);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains(library.file_name().unwrap().to_str().unwrap()), "{maps}");
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
            let target = format!("{name}_{copy}");
            let moves = moves("db", &target);
            let statement = format!("RESTORE DATABASE {target} FROM VIRTUAL_DEVICE='agent' WITH {moves}");
            run(agent(), &arguments, &statement, library, "bytes read");
            folders.databases().assert_identical("db", &format!("{name}_{copy}"));
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
            (&*copied("VIRTUAL_DEVICE='kinds'"), "bytes read"),
        ] {
            let client = start(&kinds, &["kinds", kind, path.to_str().unwrap()], &folders);
            folders.sql(statement);
            assert!(client.finish().contains(said));
        }
        folders.databases().assert_identical("db", "copy");
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
        &*copied("VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'"),
    ] {
        let client = start(&secondaries, &["many", "3", backup.to_str().unwrap()], &folders);
        folders.sql(statement);
        assert!(client.finish().contains("all 3 devices are done"));
    }
    folders.databases().assert_identical("db", "copy");
    folders.assert_clean(3);

    let folders = Folders::new();
    let (files, backup) = (folders.databases().files("db"), folders.path("backup"));
    let files = files.iter().map(|path| path.to_str().unwrap());
    let arguments: Vec<_> = ["snapshot", backup.to_str().unwrap()].into_iter().chain(files).collect();
    let before = folders.pages("db");
    let snapshot = example("snapshot");
    for (statement, said) in [
        ("BACKUP DATABASE db TO VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT", "taken"),
        ("RESTORE DATABASE db FROM VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT, REPLACE", "mounted"),
    ] {
        let client = start(&snapshot, &arguments, &folders);
        folders.sql(statement);
        assert!(client.finish().contains(said));
    }
    assert!(folders.pages("db") == before);
}
