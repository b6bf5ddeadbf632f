//! Faults: failures and unusual behaviour of the server, for tests of clients. Each is switched on by name.
//!
//! ```text
//! vdi-sim sql --data DIR --seed 7 --fault delay=3 --fault abort-at=12 -Q "BACKUP DATABASE d TO VIRTUAL_DEVICE='set'"
//! ```
//!
//! The same in code:
//!
//! ```
//! use vdi_server_sim::engine::Engine;
//! use vdi_server_sim::faults::{Fault, Faults};
//! use vdi_server_sim::vds::Options;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let faults = Faults::seeded(7).with("delay=3".parse()?).with(Fault::AbortAt { command: 12 });
//! let engine = Engine::new(std::env::temp_dir(), Options::default())?.with_faults(faults);
//! # Ok(()) }
//! ```
//!
//! [`TABLE`] lists all faults, as `vdi-sim faults` does.
//!
//! # Invariants
//!
//! 1. Without faults the statement is unchanged.
//! 2. A random choice depends on the seed, the fault and its point: the command or Read of a device, the piece of a backup, the
//!    offset in a file. It does not depend on the order of the threads. A fault with a number (`abort-at`, `die-at`, `delay-at`,
//!    `read-error`, `ignore-completion`) acts at that number, counted over all devices of the statement. The device that has
//!    this number depends on the order of the threads.
//! 3. A fault never turns a failure into a success: a statement succeeds only if every byte was transferred.
//! 4. [`FromStr`](std::str::FromStr) parses the text that [`Display`](std::fmt::Display) writes, and returns the same fault. The
//!    exception is a number or serverTimeOut of 0, which it rejects.

mod running;
#[cfg(test)]
mod tests;
mod text;

use vdi_proto::status::VdError;

pub(crate) use running::{Act, CommandFault, Running};
pub use text::FaultError;

/// The faults of a statement, and the seed of their random choices. The default has no faults.
///
/// Several faults of one kind all act, with two exceptions: of several `server-timeout` the shortest counts, and of several
/// `ignore-completion` the lowest number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    seed: u64,
    list: Vec<Fault>,
}

impl Faults {
    /// No faults, with this seed. The same seed gives the same delays, sizes and positions.
    #[must_use]
    pub fn seeded(seed: u64) -> Faults {
        Faults { seed, list: Vec::new() }
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Faults {
        self.list.push(fault);
        self
    }

    /// Whether there are no faults.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The faults, in the order in which they were added.
    #[must_use]
    pub(crate) fn list(&self) -> &[Fault] {
        &self.list
    }
}

/// A fault of the server. Commands, reads and completions count from 1, over all devices of the statement. A fault with the
/// number 0 never acts, and 0 is rejected in a text. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// `delay=MS`: a random wait before each command.
    Delay {
        /// The longest wait.
        up_to: u32,
    },
    /// `delay-at=N:MS`: a wait before one command.
    DelayAt {
        /// The number of the command.
        command: u64,
        /// The wait.
        wait: u32,
    },
    /// `abort-at=N`: SignalAbort instead of a command.
    AbortAt {
        /// The number of the command.
        command: u64,
    },
    /// `die-at=N`: SIGKILL instead of a command. It kills the process that the engine runs in. So it is for the vdi-sim program,
    /// not for an engine in the process of a test.
    DieAt {
        /// The number of the command.
        command: u64,
    },
    /// `read-error=N`: a read of a database file fails with EIO.
    ReadError {
        /// The number of the read.
        read: u64,
    },
    /// `short-reads`: each read of a database file returns a random part. The server reads the rest afterwards.
    ShortReads,
    /// `queue-full`: once per device, Flushes until SendCommand returns VD_E_QUEUE_FULL. These Flushes are not counted, and no
    /// other fault acts on them.
    QueueFull,
    /// `small-transfers`: Writes of random smaller sizes: whole pages, multiples of BLOCKSIZE.
    SmallTransfers,
    /// `read-sizes`: Reads of random sizes, multiples of BLOCKSIZE up to MAXTRANSFERSIZE.
    ReadSizes,
    /// `flushes=N`: Flushes between the Writes, and two at the end, as with FILESTREAM data.
    Flushes {
        /// The number of Writes of a device before each Flush.
        writes: u64,
    },
    /// `server-timeout=MS`: a serverTimeOut that replaces the client's.
    ServerTimeOut {
        /// The interval. The set is aborted if no command completes in two intervals.
        interval: u32,
    },
    /// `slow-configuration=MS`: a wait before each call of the configuration.
    SlowConfiguration {
        /// The wait.
        wait: u32,
    },
    /// `refuse=CALL:CODE`: every call of a function fails.
    Refuse {
        /// The function.
        call: ServerCall,
        /// The status of the calls.
        code: VdError,
    },
    /// `ignore-completion=N`: a completion of the client is ignored. The command stays outstanding.
    IgnoreCompletion {
        /// The number of the completion.
        completion: u64,
    },
    /// `fail-after-close`: the server closes every device in order, as after a success, and then the statement fails. VD_E_CLOSE does
    /// not prove the success of the statement; its messages do.
    FailAfterClose,
}

/// A function of the server interface that [`Fault::Refuse`] makes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerCall {
    /// Open.
    Open,
    /// BeginConfiguration.
    BeginConfiguration,
    /// RequestBuffers.
    RequestBuffers,
    /// EndConfiguration.
    EndConfiguration,
    /// OpenDevice.
    OpenDevice,
    /// SendCommand.
    SendCommand,
}

impl ServerCall {
    /// All functions.
    pub const ALL: [ServerCall; 6] = [
        ServerCall::Open,
        ServerCall::BeginConfiguration,
        ServerCall::RequestBuffers,
        ServerCall::EndConfiguration,
        ServerCall::OpenDevice,
        ServerCall::SendCommand,
    ];

    /// The published name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ServerCall::Open => "Open",
            ServerCall::BeginConfiguration => "BeginConfiguration",
            ServerCall::RequestBuffers => "RequestBuffers",
            ServerCall::EndConfiguration => "EndConfiguration",
            ServerCall::OpenDevice => "OpenDevice",
            ServerCall::SendCommand => "SendCommand",
        }
    }
}

/// A row of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultHelp {
    /// The fault's name.
    pub name: &'static str,
    /// The syntax of its value; empty for a fault without a value.
    pub value: &'static str,
    /// The behaviour of the server, as a sentence without its subject.
    pub effect: &'static str,
}

/// All faults, for help texts.
pub const TABLE: &[FaultHelp] = &[
    FaultHelp { name: "delay", value: "MS", effect: "waits a random time of up to MS ms before each command" },
    FaultHelp { name: "delay-at", value: "N:MS", effect: "waits MS ms before command N" },
    FaultHelp { name: "abort-at", value: "N", effect: "aborts the set (SignalAbort) instead of sending command N" },
    FaultHelp {
        name: "die-at",
        value: "N",
        effect: "kills its own process (SIGKILL) instead of sending command N; for the vdi-sim program only",
    },
    FaultHelp { name: "read-error", value: "N", effect: "fails read N of a database file with EIO (backup of data)" },
    FaultHelp {
        name: "short-reads",
        value: "",
        effect: "gets only a random part from each read of a database file (backup of data)",
    },
    FaultHelp {
        name: "queue-full",
        value: "",
        effect: "sends Flushes, once per device, until SendCommand returns VD_E_QUEUE_FULL (backup)",
    },
    FaultHelp {
        name: "small-transfers",
        value: "",
        effect: "sends Writes of random smaller sizes, whole pages and multiples of BLOCKSIZE (backup of data)",
    },
    FaultHelp {
        name: "read-sizes",
        value: "",
        effect: "sends Reads of random sizes, multiples of BLOCKSIZE up to MAXTRANSFERSIZE (restore)",
    },
    FaultHelp {
        name: "flushes",
        value: "N",
        effect: "sends a Flush after every N Writes of a device, and two at the end, as with FILESTREAM (backup; with SNAPSHOT none at the end)",
    },
    FaultHelp {
        name: "server-timeout",
        value: "MS",
        effect: "uses a serverTimeOut of MS ms in place of the client's: aborts when no command completes in two such intervals",
    },
    FaultHelp {
        name: "slow-configuration",
        value: "MS",
        effect: "waits MS ms before each BeginConfiguration, RequestBuffers, EndConfiguration and OpenDevice",
    },
    FaultHelp {
        name: "refuse",
        value: "CALL:CODE",
        effect: "makes CALL (Open, BeginConfiguration, RequestBuffers, EndConfiguration, OpenDevice or SendCommand) fail with \
                 CODE, VD_E_MEMORY for example",
    },
    FaultHelp {
        name: "ignore-completion",
        value: "N",
        effect: "ignores completion N, so that the command stays outstanding; use it with server-timeout, or the server waits \
                 for ever",
    },
    FaultHelp {
        name: "fail-after-close",
        value: "",
        effect: "closes every device in order, so that the client sees VD_E_CLOSE everywhere, and then fails the statement",
    },
];
