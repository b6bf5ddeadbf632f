//! File systems in which no socket can be made: the error names what the file system lacks, and what helps.

use super::common::{Child, skip};
use super::directory;

#[test]
fn a_full_or_read_only_file_system_is_named_with_what_helps() {
    const TEST: &str = "a_full_or_read_only_file_system_is_named_with_what_helps";
    let can = std::process::Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip(TEST, "this user cannot mount a file system");
    }
    let above = directory(0o700);
    let (there, missing) = (above.path().to_owned(), above.path().join("vdi"));
    let full = ["No space left on device", "free space and inodes in its file system", "VDI_RUNTIME_DIR"];
    let read_only = ["Read-only file system", "its file system is read-only", "VDI_RUNTIME_DIR"];
    for (dir, options, action, parts) in [
        (&there, "mode=0700,nr_inodes=1", "could not bind the socket", full),
        (&missing, "mode=0700,nr_inodes=1", "could not create the runtime directory", full),
        (&there, "mode=0700,ro", "could not bind the socket", read_only),
        (&missing, "mode=0700,ro", "could not create the runtime directory", read_only),
    ] {
        let mut child = Child::with_tmpfs(dir, &there, options);
        let answer = child.ask("create nightly");
        assert!(answer.starts_with(&format!("err Unexpected {action}")), "{answer}");
        for part in parts {
            assert_eq!(answer.matches(part).count(), 1, "{part:?}: {answer}");
        }
        assert!(!answer.contains("ulimit") && !answer.contains("memory"), "{answer}");
    }
}

#[test]
fn a_path_that_is_too_long_is_named_with_what_helps() {
    let above = directory(0o700);
    let mut child = Child::new(&above.path().join("d".repeat(300)));
    let parts = ["could not create the runtime directory", "File name too long", "a directory with a shorter path"];
    child.refused("create nightly", "Unexpected", &parts);
}
