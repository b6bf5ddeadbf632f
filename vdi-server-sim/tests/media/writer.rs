//! A database in use: `vdi-sim write` in a process of its own, and what it leaves in the files.
// Each test binary uses a part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use vdi_server_sim::storage::content::Stamp;

use crate::common::bench::Bench;
use crate::common::tasks::wait_until_asleep;

pub(crate) use crate::common::databases::PAGE;

/// `vdi-sim write` in a process of its own.
pub(crate) struct Writer {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Writer {
    pub(crate) fn start(bench: &Bench, database: &str, more: &[&str]) -> Writer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
        command.arg("write").arg("--data").arg(bench.data()).args(["--database", database]).args(more);
        command.env("VDI_RUNTIME_DIR", bench.runtime()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Writer { process, output }
    }

    /// The next report: so many pages are written.
    #[track_caller]
    pub(crate) fn wrote(&mut self) -> u64 {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().strip_prefix("wrote ").unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
    }

    /// Waits until it has written something more than what it had reported.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, reported: u64) -> u64 {
        loop {
            let now = self.wrote();
            if now > reported {
                return now;
            }
        }
    }

    /// Waits until it sleeps: it is stopped at a lock, or its reports are not read.
    pub(crate) fn wait_until_asleep(&self) {
        wait_until_asleep(self.process.id(), self.process.id() as i32);
    }

    /// Closes its input.
    #[track_caller]
    pub(crate) fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The stamps of all pages with content; each page is whole, in its place, and of a sequence of its own.
#[track_caller]
pub(crate) fn stamps(bench: &Bench, database: &str) -> Vec<Stamp> {
    bench.databases().stamps(database)
}

/// How many pages are written, by what the pages say.
pub(crate) fn written(stamps: &[Stamp]) -> u64 {
    stamps.iter().map(|stamp| stamp.sequence + 1).max().unwrap()
}
