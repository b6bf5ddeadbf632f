//! What the media promise, tested beside them; here is what the tests share.
#![allow(clippy::unwrap_used, reason = "tests")]

mod file;
mod process;
mod property;
mod sharing;
mod special;
mod target;
mod volumes;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vdi_proto::config::VdConfig;
use vdi_proto::features::Features;

use super::partial::Naming;
use super::steps::Step;
use super::*;

thread_local! {
    static TRACE: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
    static FAIL: Cell<Option<Step>> = const { Cell::new(None) };
    /// How many steps this thread may go before its process is killed.
    static LIFE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Called by the code under test before each step.
pub(super) fn checkpoint(step: Step) -> io::Result<()> {
    if let Some(left) = LIFE.get() {
        if left == 0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        LIFE.set(left.checked_sub(1));
    }
    TRACE.with_borrow_mut(|trace| trace.push(step));
    if FAIL.get() == Some(step) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}

/// The steps since the last call.
fn trace() -> Vec<Step> {
    TRACE.take()
}

/// Runs `action` while `step` fails with EIO.
fn failing<T>(step: Step, action: impl FnOnce() -> T) -> T {
    FAIL.set(Some(step));
    let result = action();
    FAIL.set(None);
    result
}

const NAMINGS: [Naming; 2] = [Naming::Unnamed, Naming::Hidden];

/// A directory with, or without, an old backup in it.
struct Place {
    directory: TempDir,
    target: PathBuf,
}

impl Place {
    fn new(old: Option<&[u8]>) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.bak");
        if let Some(old) = old {
            fs::write(&target, old).unwrap();
        }
        Place { directory, target }
    }

    fn names(&self) -> Vec<String> {
        names(self.directory.path())
    }

    fn content(&self) -> Option<Vec<u8>> {
        fs::read(&self.target).ok()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn backup(extra: Features) -> VdConfig {
    VdConfig { features: Features::WRITE_MEDIA | extra, ..VdConfig::default() }
}

fn restore() -> VdConfig {
    VdConfig { features: Features::READ_MEDIA, ..VdConfig::default() }
}
