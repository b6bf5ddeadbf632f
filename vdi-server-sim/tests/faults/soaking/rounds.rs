//! What a round does.

use fastrand::Rng;

use crate::common::client::{backup_statement, restore_statement};
use crate::common::databases::{Databases, Holds};

/// The kinds of media, as the agent's orders name them.
pub(super) const KINDS: [&str; 3] = ["file", "volumes", "tape"];

/// A database out and back again.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) bytes: u64,
    seed: u64,
    devices: u32,
    kind: &'static str,
    /// Worker processes; none where the agent's threads do the work.
    workers: u32,
    options: String,
    trouble: Trouble,
}

/// What goes wrong in the backup, or the restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    in_the_restore: bool,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    /// A device's media fails at this command.
    MediaFails(u64),
    /// The agent drops a device at this command.
    Drops(u64),
    /// The agent aborts the set at this command.
    Aborts(u64),
    /// A fault of the server's, by its text.
    Server(&'static str),
}

impl Round {
    pub(super) fn reference() -> Round {
        Round {
            bytes: 1_000_000,
            seed: 7,
            devices: 2,
            kind: KINDS[0],
            workers: 0,
            options: "MAXTRANSFERSIZE = 65536".to_owned(),
            trouble: Trouble { in_the_restore: false, what: What::Nothing },
        }
    }

    pub(super) fn random(random: &mut Rng) -> Round {
        let bytes = match random.u8(..16) {
            0 => 0,
            1..=5 => random.u64(1..200_000),
            6..=12 => random.u64(200_000..4_000_000),
            13..=14 => random.u64(4_000_000..12_000_000),
            _ => random.u64(12_000_000..40_000_000),
        };
        let workers = if random.u8(..5) == 0 { random.u32(1..=3) } else { 0 };
        // Its workers are the demo's, which write files.
        let kind = if workers > 0 { KINDS[0] } else { KINDS[random.usize(..KINDS.len())] };
        let transfer = 65536 * [1, 2, 4, 16, 64][random.usize(..5)];
        let at = random.u64(1..12);
        let what = match random.u8(..24) {
            0 if workers == 0 => What::MediaFails(at),
            1 if workers == 0 => What::Drops(at),
            2 if workers == 0 => What::Aborts(at),
            3 => What::Server("abort-at=3"),
            4 => What::Server("read-error=2"),
            5 => What::Server("refuse=OpenDevice:VD_E_MEMORY"),
            6 => What::Server("refuse=EndConfiguration:VD_E_UNEXPECTED"),
            _ => What::Nothing,
        };
        Round {
            bytes,
            seed: random.u64(..),
            devices: random.u32(1..=8),
            kind,
            workers,
            options: format!("MAXTRANSFERSIZE = {transfer}, BLOCKSIZE = {}", [512, 4096, 65536][random.usize(..3)]),
            trouble: Trouble { in_the_restore: random.bool(), what },
        }
    }

    pub(super) fn has_trouble(&self) -> bool {
        self.trouble.what != What::Nothing
    }

    /// Makes the database, in place of the one of the round before.
    pub(super) fn make_database(&self, databases: &Databases) {
        databases.make("sales", self.holds(), self.seed);
    }

    fn holds(&self) -> Holds {
        if self.bytes > 0 { Holds::Sample(self.bytes) } else { Holds::Nothing }
    }

    pub(super) fn statement(&self, restore: bool) -> String {
        match restore {
            false => backup_statement("sales", "soak", self.devices, &self.options),
            true => {
                let moves = self.holds().moves("sales", "copy");
                restore_statement("copy", "soak", self.devices, &format!("{}, {moves}", self.options))
            }
        }
    }

    pub(super) fn server_fault(&self, restore: bool) -> &'static str {
        match self.trouble {
            Trouble { in_the_restore, what: What::Server(fault) } if in_the_restore == restore => fault,
            _ => "",
        }
    }

    /// The agent's order: direction, kind, devices, workers, what it does wrong and at which command.
    pub(super) fn order(&self, restore: bool) -> String {
        let (wrong, at) = match self.trouble.what {
            _ if self.trouble.in_the_restore != restore => ("pump", 0),
            What::MediaFails(at) => ("fails", at),
            What::Drops(at) => ("drops", at),
            What::Aborts(at) => ("aborts", at),
            What::Nothing | What::Server(_) => ("pump", 0),
        };
        let direction = if restore { "restore" } else { "backup" };
        format!("{direction} {} {} {} {wrong} {at}", self.kind, self.devices, self.workers)
    }
}
