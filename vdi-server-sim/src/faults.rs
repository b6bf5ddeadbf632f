//! Faults: everything that a server can do to a client, switched on by name, in one place.
//!
//! ```text
//! vdi-sim sql --data DIR --seed 7 --fault delay=3 --fault abort-at=12 -Q "BACKUP DATABASE d TO VIRTUAL_DEVICE='set'"
//! ```
//!
//! and the same from code:
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
//! [`TABLE`] names them all, as `vdi-sim faults` does.
//!
//! # Invariants
//!
//! 1. Without faults nothing changes, and the statement's threads pay one look at a bool for a command.
//! 2. What is drawn at random depends on the seed, the fault, and where it strikes (which command or Read of which device,
//!    which piece of a backup, which offset of a file), and not on which thread comes first. What strikes at a number that
//!    counts over the whole statement (`abort-at`, `die-at`, `delay-at`, `read-error`, `ignore-completion`) strikes at that
//!    number always; with several devices it is the threads' affair which of them has it.
//! 3. No fault makes a statement succeed that has not moved every byte: faults change what a server does, never what it counts
//!    as success.
//! 4. A fault's text and the fault are the same thing: whatever [`Display`](std::fmt::Display) writes,
//!    [`FromStr`](std::str::FromStr) reads back.

mod running;
#[cfg(test)]
mod tests;
mod text;

use vdi_proto::status::VdError;

pub(crate) use running::{Act, CommandFault, Running};
pub use text::FaultError;

/// The faults of a statement, and the seed of whatever is random in them. None by default.
///
/// Of several faults of one kind each counts, but of several `server-timeout`s only the least, and of several
/// `ignore-completion`s only the first to strike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    seed: u64,
    list: Vec<Fault>,
}

impl Faults {
    /// No faults yet, with this seed. The same seed gives the same delays, sizes and moments.
    #[must_use]
    pub fn seeded(seed: u64) -> Faults {
        Faults { seed, list: Vec::new() }
    }

    /// One fault more.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Faults {
        self.list.push(fault);
        self
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The faults, in the order in which they were added.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.list
    }
}

/// Something that a server does to its client. Commands, reads and completions count from 1, over all devices of the statement;
/// 0 never strikes, and is no valid text. Times are in milliseconds.
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
        /// Which command.
        command: u64,
        /// How long.
        wait: u32,
    },
    /// `abort-at=N`: SignalAbort instead of a command.
    AbortAt {
        /// Which command.
        command: u64,
    },
    /// `die-at=N`: SIGKILL instead of a command. It ends the whole process that the engine runs in, so it is for the vdi-sim
    /// program; in a test's own process it ends the test.
    DieAt {
        /// Which command.
        command: u64,
    },
    /// `read-error=N`: a read of a database file fails with EIO.
    ReadError {
        /// Which read.
        read: u64,
    },
    /// `short-reads`: reads of database files give a part only, so that the rest has to be read after it.
    ShortReads,
    /// `queue-full`: once a device, Flushes until SendCommand answers VD_E_QUEUE_FULL. These Flushes are not counted, and no other
    /// fault strikes them.
    QueueFull,
    /// `small-transfers`: Writes of random smaller sizes: whole pages, multiples of BLOCKSIZE.
    SmallTransfers,
    /// `read-sizes`: Reads of random sizes, multiples of BLOCKSIZE up to MAXTRANSFERSIZE.
    ReadSizes,
    /// `flushes=N`: more Flushes than one, as with FILESTREAM data.
    Flushes {
        /// A Flush follows every so many Writes of a device; two come at the end.
        writes: u64,
    },
    /// `server-timeout=MS`: the server's time-out is this, whatever the client asked for.
    ServerTimeOut {
        /// The interval; the set is aborted when no command completes in two.
        interval: u32,
    },
    /// `slow-configuration=MS`: a wait before each call of the configuration.
    SlowConfiguration {
        /// How long.
        wait: u32,
    },
    /// `refuse=CALL:CODE`: every call of this function fails.
    Refuse {
        /// Which function.
        call: ServerCall,
        /// The status that it fails with.
        code: VdError,
    },
    /// `ignore-completion=N`: a completion of a client is not noticed, as if the command were still outstanding.
    IgnoreCompletion {
        /// Which completion.
        completion: u64,
    },
    /// `fail-after-close`: all is done as for a success, every device is closed in order, and then the statement fails. A client that
    /// takes VD_E_CLOSE for the success of the statement is wrong here; only the statement's messages tell.
    FailAfterClose,
}

/// The functions of the server interface that [`Fault::Refuse`] can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerCall {
    /// Opening the client's set.
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
    /// Every function.
    pub const ALL: [ServerCall; 6] = [
        ServerCall::Open,
        ServerCall::BeginConfiguration,
        ServerCall::RequestBuffers,
        ServerCall::EndConfiguration,
        ServerCall::OpenDevice,
        ServerCall::SendCommand,
    ];

    /// Its published name.
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

/// A line of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultHelp {
    /// The fault's name.
    pub name: &'static str,
    /// The syntax of its value, empty where it has none.
    pub value: &'static str,
    /// What the server does.
    pub effect: &'static str,
}

/// Every fault that there is, for help texts.
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
        effect: "gets a random part only from each read of a database file (backup of data)",
    },
    FaultHelp {
        name: "queue-full",
        value: "",
        effect: "sends Flushes, once a device, until SendCommand answers VD_E_QUEUE_FULL (backup)",
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
        effect: "uses a serverTimeOut of MS ms, whatever the client asked for: aborts when no command completes in two such \
                 intervals",
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
        effect: "ignores completion N, as if the command were still outstanding; give server-timeout too, or the server waits \
                 for ever",
    },
    FaultHelp {
        name: "fail-after-close",
        value: "",
        effect: "closes every device in order, so that the client sees nothing but VD_E_CLOSE, and then fails the statement",
    },
];
