//! System calls that fail by number: `programs/failing_calls.c`, which see.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::common::native::{compile, skipped};
use crate::common::processes::within;

/// Which calls of a program count, and which of those fail.
#[derive(Debug, Clone)]
pub(crate) struct Rules<'a> {
    pub(crate) calls: &'a [&'a str],
    /// Files elsewhere do not count.
    pub(crate) under: &'a Path,
    /// The number of the first that fails; 0 for none.
    pub(crate) at: usize,
    /// Whether all that follow fail as well.
    pub(crate) persists: bool,
    pub(crate) error: Errno,
}

/// A call that counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) failed: bool,
    pub(crate) name: String,
    pub(crate) path: String,
}

fn launcher() -> PathBuf {
    compile("gcc", "failing_calls.c", &[])
}

/// Whether the system can do it; says so if not.
pub(crate) fn can_fail_calls() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let tried = Command::new(launcher()).args(["/dev/null", "calls=fsync", "--", "true"]).status().unwrap();
        if !tried.success() {
            skipped("this system has no filters that report system calls (seccomp)");
        }
        tried.success()
    })
}

impl Rules<'_> {
    /// Has a program run under these rules. Its calls are in `report` when it has ended.
    pub(crate) fn apply(&self, command: &mut Command, report: &Path) {
        let mut outer: Vec<OsString> = vec![launcher().into(), report.into()];
        outer.push(format!("calls={}", self.calls.join(",")).into());
        let mut under = OsString::from("under=");
        under.push(self.under);
        outer.push(under);
        outer.push(format!("at={}", self.at).into());
        if self.persists {
            outer.push("on".into());
        }
        outer.extend([format!("error={}", self.error.raw_os_error()).into(), "--".into()]);
        within(command, &outer.iter().map(OsString::as_os_str).collect::<Vec<_>>());
    }
}

/// Has a program run in a system that refuses a call always.
pub(crate) fn refuse(command: &mut Command, call: &str, error: Errno) {
    let rule = format!("refuse={call}:{}", error.raw_os_error());
    let launcher = launcher();
    let outer: [&OsStr; 4] = [launcher.as_ref(), "/dev/null".as_ref(), rule.as_ref(), "--".as_ref()];
    within(command, &outer);
}

/// The calls that counted, in their order.
pub(crate) fn reported(report: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(report).unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.splitn(4, ' ').skip(1).map(str::to_owned);
            let mut word = || words.next().unwrap();
            Call { failed: word() == "failed", name: word(), path: word() }
        })
        .collect()
}

/// Whether all calls are to be failed, and not only some.
pub(crate) fn all() -> bool {
    std::env::var_os("VDI_MACHINE_FAULTS").is_some_and(|value| value == "all")
}

/// One way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) persists: bool,
    pub(crate) error: Errno,
}

/// The ways to fail the calls of an undisturbed run: each in turn, alone and with all that follow, with each error. In an ordinary
/// run the first and the last of each name, with one error after the other.
pub(crate) fn faults(calls: &[Call], errors: &[Errno]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let same = |other: &Call| other.name == call.name;
        let edge = !calls[..index].iter().any(same) || !calls[index + 1..].iter().any(same);
        for (turn, error) in errors.iter().enumerate() {
            for persists in [false, true] {
                if all() || edge && (index + turn) % errors.len() == 0 && (!persists || index % 4 == 0) {
                    faults.push(Fault { at: index + 1, persists, error: *error });
                }
            }
        }
    }
    faults
}
