//! What needs a process of its own: limits, and sudden death.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use vdi_proto::completion::CompletionCode;

use super::*;

/// Names the target to the child: this test program, called again for one test.
const TARGET: &str = "VDI_MEDIA_TEST_TARGET";

/// A shell command that prepares, then becomes the child that runs `test`.
fn child(prepare: &str, test: &str, target: &Path) -> Command {
    let module = module_path!().split_once("::").unwrap().1;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{prepare}; exec \"$0\" \"$@\""), std::env::current_exe().unwrap().to_str().unwrap()])
        .args(["--exact", "--nocapture", "--test-threads=1", &format!("{module}::{test}")])
        .env(TARGET, target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

#[test]
fn child_writes_beyond_the_limit() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let mut media = FileMedia::create(PathBuf::from(target)).unwrap();
    media.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    let mut stored = 0;
    let error = loop {
        match media.write(0, &[7; 3000]) {
            Ok(()) => stored += 3000,
            Err(error) => break error,
        }
    };
    stored += u64::from(error.bytes);
    assert_eq!(error.code, CompletionCode::DISK_FULL, "{error}");
    assert_eq!(stored, media.bytes());
    // Shells count in units of 512 or of 1024 bytes.
    assert!(stored == 8192 || stored == 16384, "{stored}");
    assert_ne!(error.bytes, 0);
    assert!(media.complete().is_err());
    println!("\nthe limit was met");
}

#[test]
fn a_limit_in_the_middle_of_a_write_is_a_full_disk_with_the_exact_count() {
    let place = Place::new(Some(b"old"));
    let mut command = child("trap '' XFSZ; ulimit -f 16", "child_writes_beyond_the_limit", &place.target);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("the limit was met"), "{text}");
    assert_eq!(place.names(), ["a.bak"]);
    assert_eq!(place.content().unwrap(), b"old");
}

#[test]
fn child_creates_beside() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let directory = PathBuf::from(target).parent().unwrap().to_owned();
    for (name, keep) in [("unnamed", Keep::Unnamed), ("hidden", Keep::Hidden)] {
        FileMedia::create_as(&directory.join(name), keep).unwrap().complete().unwrap();
    }
}

#[test]
fn the_umask_decides_on_the_permissions_of_new_files() {
    for (umask, mode) in [("000", 0o666), ("002", 0o664), ("027", 0o640), ("077", 0o600)] {
        let place = Place::new(None);
        assert!(child(&format!("umask {umask}"), "child_creates_beside", &place.target).status().unwrap().success());
        for name in ["unnamed", "hidden"] {
            let found = fs::metadata(place.directory.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name} with umask {umask}");
        }
    }
}

#[test]
fn child_writes_and_waits() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let mut media = FileMedia::create(PathBuf::from(target)).unwrap();
    media.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    media.write(0, &[7; 100_000]).unwrap();
    media.flush().unwrap();
    println!("\nwritten");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn child_writes_a_volume_set_and_waits() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let mut set = VolumeSet::create(PathBuf::from(target).with_extension("set"), 65536).unwrap();
    set.begin(&backup(Features::REMOVABLE | Features::COMPLETE_ENABLED)).unwrap();
    set.write(0, &[7; 60_000]).unwrap();
    set.other(vdi_proto::command::CommandCode::LOAD, 2, 0).unwrap();
    set.write(0, &[7; 60_000]).unwrap();
    println!("\nwritten");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing() {
    for old in [None, Some(&b"old"[..])] {
        let place = Place::new(old);
        let before = place.names();
        let probe = FileMedia::create(&place.target).unwrap();
        let unnamed = place.names() == before;
        drop(probe);
        if !unnamed {
            eprintln!("skipped: the file system of the temporary directory has no unnamed files");
            return;
        }
        for test in ["child_writes_and_waits", "child_writes_a_volume_set_and_waits"] {
            let mut child = child(":", test, &place.target).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let written = lines.map_while(Result::ok).any(|line| line == "written");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(written);
            assert_eq!(place.names(), before);
            assert_eq!(place.content().as_deref(), old);
        }
    }
}
