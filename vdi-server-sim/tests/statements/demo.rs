//! `vdi-sim demo`: what it says is true, and nothing of it stays behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::processes::ignoring_sigchld;

fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
    command.arg("demo").args(arguments).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The processes whose environment has this folder as TMPDIR: the demo's and all of its children's.
fn processes_of(folder: &Path) -> Vec<String> {
    let wanted = format!("TMPDIR={}", folder.display());
    let has_it = |process: &Path| {
        fs::read(process.join("environ"))
            .is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()))
    };
    let name = |process: &Path| fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ");
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|process| has_it(process)).map(|process| name(&process)).collect()
}

/// Looks until it is so, for half a minute.
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        // Looking costs more than what is looked for; a pause lets that go on.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn assert_nothing_left(folder: &Path) {
    wait_until("processes end", || processes_of(folder).is_empty());
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_database_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--size", "5M", "--devices", "3", "--workers", "2"];
    let output = demo(folder.path(), &arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("identical  the database came back byte for byte"), "{}", text(&output));
    assert_nothing_left(folder.path());
}

/// The demo and its primary waited for their children in vain, after good work.
#[test]
fn a_demo_works_where_its_parent_ignored_sigchld() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = demo(folder.path(), &["--size", "5M", "--workers", "2"]);
    ignoring_sigchld(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("identical  the database came back byte for byte"), "{}", text(&output));
    assert_nothing_left(folder.path());
}

#[test]
fn a_folder_of_the_users_is_backed_up_and_kept() {
    let (temporary, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = root.path().join("mine");
    fs::create_dir_all(database.join("below")).unwrap();
    fs::write(database.join("a"), b"some bytes").unwrap();
    fs::write(database.join("below/b"), vec![7; 100_000]).unwrap();
    let keep = root.path().join("keep");
    let arguments = ["--database", database.to_str().unwrap(), "--keep", keep.to_str().unwrap()];
    let output = demo(temporary.path(), &arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(keep.join("restored/below/b")).unwrap(), vec![7; 100_000]);
    assert_nothing_left(temporary.path());
}

#[test]
fn a_folder_to_keep_within_the_database_is_refused() {
    let (temporary, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(root.path().join("a"), b"some bytes").unwrap();
    let keep = root.path().join("keep");
    let arguments = ["--database", root.path().to_str().unwrap(), "--keep", keep.to_str().unwrap()];
    let output = demo(temporary.path(), &arguments).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("lies within the database"), "{}", text(&output));
}

#[test]
fn what_is_neither_file_nor_folder_is_refused() {
    let (temporary, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("/", root.path().join("everything")).unwrap();
    let output = demo(temporary.path(), &["--database", root.path().to_str().unwrap()]).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("neither a file nor a folder"), "{}", text(&output));
    assert_nothing_left(temporary.path());
}

/// A large demo, until all of its processes are at work; then the demo alone gets a signal.
fn interrupted(signal: Signal) -> (tempfile::TempDir, std::process::ExitStatus) {
    let (folder, database) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    // Large, but made in no time.
    database.as_file().set_len(1 << 28).unwrap();
    let mut child = demo(folder.path(), &["--database", database.path().to_str().unwrap(), "--workers", "3"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The demo, the server, the primary, and three workers.
    wait_until("six processes run", || processes_of(folder.path()).len() >= 6);
    kill_process(Pid::from_child(&child), signal).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    (folder, status)
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let (folder, status) = interrupted(signal);
        assert_eq!(status.code(), Some(1), "it ends by itself");
        assert_nothing_left(folder.path());
    }
}

#[test]
fn a_demo_that_is_killed_leaves_no_process() {
    let (folder, _) = interrupted(Signal::KILL);
    wait_until("processes end", || processes_of(folder.path()).is_empty());
}
