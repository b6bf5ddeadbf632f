//! What a seed stands for: a database, a set, who is hostile, and what it does when.

use fastrand::Rng;
use vdi_client::{Features, VdConfig};

use crate::common::behaviour::MediaKind;
use crate::common::client::{backup_statement, config, restore_statement};
use crate::common::databases::Holds;

/// What is hostile in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A secondary, beside an honest primary and an honest server.
    Secondary,
    /// The server.
    Server,
    /// The primary.
    Primary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Backup,
    Restore,
}

impl Verb {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verb::Backup => "BACKUP",
            Verb::Restore => "RESTORE",
        }
    }

    pub(crate) fn of(word: &str) -> Verb {
        if word == "BACKUP" { Verb::Backup } else { Verb::Restore }
    }
}

/// One thing that a hostile process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    /// Words anywhere in the control segment.
    Anywhere,
    /// Words that nobody uses in a small set: what has to go unnoticed.
    Unused,
    /// Sequence numbers of rings.
    Sequence,
    /// Published cursors of rings.
    Cursor,
    /// Fields of records that are, or will be, in flight.
    Record,
    /// A record of before in the place of one in flight.
    Replay,
    /// A record with an invented id, in the next place.
    Invent,
    /// States and generations of slots.
    SlotWord,
    /// Leases set, as by one who never gives them up, and cleared.
    Lease,
    /// What the server says of a device.
    ServerWord,
    /// What clients say of a device.
    ClientWord,
    /// Names of devices.
    Name,
    /// How many are opened and closed.
    Counts,
    /// An abort for no reason, or one that is none.
    Abort,
    /// The abort word is cleared again and again.
    ClearAbort,
    /// Event counts are notified, armed and disarmed in a loop.
    EventCounts,
    /// The segment's identity.
    Identity,
    /// Says that it leaves, again and again, and stays.
    Leave,
    /// Packets that are no message.
    Malformed,
    /// Messages that are not its to send.
    OutOfTurn,
    /// Joins a thousand times, or as often as there is room.
    Joins,
    /// Dies.
    Die,
}

impl Act {
    /// Each, and how often it comes relative to the others.
    pub(crate) const ALL: [(Act, u32); 22] = [
        (Act::Anywhere, 3),
        (Act::Unused, 2),
        (Act::Sequence, 5),
        (Act::Cursor, 4),
        (Act::Record, 6),
        (Act::Replay, 5),
        (Act::Invent, 4),
        (Act::SlotWord, 4),
        (Act::Lease, 4),
        (Act::ServerWord, 5),
        (Act::ClientWord, 5),
        (Act::Name, 3),
        (Act::Counts, 3),
        (Act::Abort, 2),
        (Act::ClearAbort, 4),
        (Act::EventCounts, 4),
        (Act::Identity, 2),
        (Act::Leave, 1),
        (Act::Malformed, 1),
        (Act::OutOfTurn, 1),
        (Act::Joins, 1),
        (Act::Die, 1),
    ];

    fn any(random: &mut Rng) -> Act {
        let tickets: u32 = Act::ALL.iter().map(|(_, weight)| weight).sum();
        let mut ticket = random.u32(..tickets);
        for (act, weight) in Act::ALL {
            match ticket.checked_sub(weight) {
                Some(left) => ticket = left,
                None => return act,
            }
        }
        Act::Anywhere
    }
}

/// When a burst comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The set is configured, no device is open.
    Opening,
    /// The client holds this command of this device; commands count from 1.
    Command { device: u32, number: u64 },
}

/// What a hostile process does at one moment.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) moment: Moment,
    /// Each act, and how often.
    pub(crate) acts: Vec<(Act, u32)>,
    /// Whether the others go on meanwhile.
    pub(crate) free: bool,
}

/// All that a hostile process does to one statement.
#[derive(Debug)]
pub(crate) struct Raid {
    pub(crate) bursts: Vec<Burst>,
}

impl Raid {
    fn new(random: &mut Rng, devices: u32, verb: Verb) -> Raid {
        let latest = match verb {
            Verb::Backup => 8,
            Verb::Restore => 3,
        };
        let mut bursts: Vec<Burst> = (0..random.usize(1..=3))
            .map(|_| {
                let moment = match random.u8(..5) {
                    0 => Moment::Opening,
                    _ => Moment::Command { device: random.u32(..devices), number: random.u64(1..=latest) },
                };
                let acts = match random.u8(..3) {
                    // A single word.
                    0 => vec![(Act::any(random), 1)],
                    // Many of a kind.
                    1 => vec![(Act::any(random), random.u32(50..250))],
                    _ => (0..random.usize(2..5)).map(|_| (Act::any(random), random.u32(1..8))).collect(),
                };
                Burst { moment, acts, free: random.u8(..3) == 0 }
            })
            .collect();
        // Many words in every raid; in most of them where they meet no one.
        let many = if random.u8(..4) == 0 { Act::Anywhere } else { Act::Unused };
        bursts[0].acts.insert(0, (many, 120));
        Raid { bursts }
    }
}

/// What a seed stands for.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) role: Role,
    pub(crate) devices: u32,
    /// What the database holds.
    pub(crate) holds: Holds,
    options: String,
    features: Features,
    pub(crate) kept: MediaKind,
    eom_warning_size: u32,
    backup: Option<Raid>,
    restore: Option<Raid>,
}

impl Case {
    pub(crate) fn new(seed: u64) -> Case {
        let mut random = Rng::with_seed(seed);
        // Neighbouring seeds begin alike.
        let mut random = Rng::with_seed(random.u64(..));
        let devices = random.u32(1..=3);
        let holds = Holds::random(&mut random, 400_000);
        let block: u32 = [512, 4096, 65536][random.usize(..3)];
        let mut options = format!("MAXTRANSFERSIZE = 65536, BLOCKSIZE = {block}");
        if random.bool() {
            options += &format!(", BUFFERCOUNT = {}", random.u32(2..=8));
        }
        // Without them nothing but the protocol itself stands between a hostile word and the data.
        if random.bool() {
            options += ", NO_CHECKSUM";
        }
        let kind = KINDS[random.usize(..KINDS.len())];
        let complete = if random.bool() { Features::REQUEST_COMPLETE } else { Features::NONE };
        let eom_warning_size = if kind.contains(Features::REMOVABLE) { 2 * 65536 } else { 0 };
        let kept = match kind {
            Features::TAPE if random.bool() => MediaKind::Tape,
            kind if kind.contains(Features::REMOVABLE) => MediaKind::Volumes(
                u64::from(eom_warning_size) + u64::from(block) * random.u64(1..200_000 / u64::from(block)),
            ),
            _ => MediaKind::File,
        };
        let role = match random.u8(..10) {
            0..=5 => Role::Secondary,
            6..=7 => Role::Server,
            _ => Role::Primary,
        };
        let raided = random.u8(..3);
        let backup = (raided != 2).then(|| Raid::new(&mut random, devices, Verb::Backup));
        let restore = (raided != 1).then(|| Raid::new(&mut random, devices, Verb::Restore));
        let features = kind | complete;
        Case { seed, role, devices, holds, options, features, kept, eom_warning_size, backup, restore }
    }

    pub(crate) fn config(&self) -> VdConfig {
        VdConfig { features: self.features, eom_warning_size: self.eom_warning_size, ..config(self.devices) }
    }

    pub(crate) fn raid(&self, verb: Verb) -> Option<&Raid> {
        match verb {
            Verb::Backup => self.backup.as_ref(),
            Verb::Restore => self.restore.as_ref(),
        }
    }

    pub(crate) fn statement(&self, set: &str, verb: Verb) -> String {
        match verb {
            Verb::Backup => backup_statement("sales", set, self.devices, &self.options),
            Verb::Restore => {
                let moves = self.holds.moves("sales", "copy");
                restore_statement("copy", set, self.devices, &format!("{}, {moves}", self.options))
            }
        }
    }
}

/// The kinds of devices.
const KINDS: [Features; 5] = [
    Features::NONE,
    Features::REMOVABLE,
    Features::RANDOM_ACCESS,
    Features::from_bits_retain(Features::RANDOM_ACCESS.bits() | Features::REMOVABLE.bits()),
    Features::TAPE,
];
