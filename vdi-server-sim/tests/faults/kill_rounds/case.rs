//! What a seed stands for: a database, a set, who serves it, and who is struck when.

use fastrand::Rng;
use vdi_client::{Features, VdConfig};

use crate::common::behaviour::MediaKind;
use crate::common::client::{backup_statement, config, restore_statement};
use crate::common::databases::Holds;

/// The set of all rounds.
pub(crate) const SET: &str = "mortal";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Backup,
    Restore,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Backup => "BACKUP",
            Verb::Restore => "RESTORE",
        }
    }
}

/// A process of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `vdi-sim sql`.
    Server,
    /// Creates the set; serves the first devices itself or by workers.
    Primary,
    /// Serves devices of its own.
    Secondary(u32),
    /// Works on the primary's buffers, by their handles.
    Worker(u32),
}

impl Role {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Primary => "primary",
            Role::Secondary(_) => "secondary",
            Role::Worker(_) => "worker",
        }
    }
}

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Kill,
    Terminate,
    /// SIGSTOP, and SIGCONT so many milliseconds later.
    Stop {
        millis: u64,
    },
}

impl How {
    pub(crate) fn is_fatal(self) -> bool {
        !matches!(self, How::Stop { .. })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            How::Kill => "SIGKILL",
            How::Terminate => "SIGTERM",
            How::Stop { .. } => "SIGSTOP",
        }
    }
}

/// What a medium is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    Write,
    Read,
    Flush,
    Complete,
    Close,
}

impl Doing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Doing::Write => "Write",
            Doing::Read => "Read",
            Doing::Flush => "Flush",
            Doing::Complete => "Complete",
            Doing::Close => "close",
        }
    }
}

/// A place in the work of a device: before or behind the n-th time that its media does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) device: u32,
    pub(crate) doing: Doing,
    pub(crate) nth: u64,
    pub(crate) behind: bool,
    /// Whether the media waits there until the blow was struck.
    pub(crate) held: bool,
}

/// When somebody is struck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    /// After this share of the time that the statement takes undisturbed.
    Share(f64),
    /// So many microseconds after the [`Point`] of the case was reached.
    AtPoint { micros: u64 },
    /// So many microseconds after the blow before.
    Next { micros: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Blow {
    pub(crate) moment: Moment,
    pub(crate) how: How,
    /// Whom, by kind; anybody else where there is none alive. `None` is the one who reached the point.
    pub(crate) victim: Option<&'static str>,
    /// Which of several.
    pub(crate) which: usize,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) verb: Verb,
    /// What the database holds before the statement that is disturbed, and, for a backup, while it runs.
    pub(crate) holds: Holds,
    pub(crate) changed: Holds,
    pub(crate) devices: u32,
    /// The first devices are the primary's; the others have these many secondaries.
    pub(crate) own: u32,
    pub(crate) secondaries: u32,
    pub(crate) workers: u32,
    pub(crate) block: u32,
    pub(crate) options: String,
    pub(crate) features: Features,
    pub(crate) kept: MediaKind,
    pub(crate) eom_warning_size: u32,
    /// In milliseconds; 0 for none.
    pub(crate) server_time_out: u32,
    /// Whether the target, or the database, exists before.
    pub(crate) replaces: bool,
    pub(crate) faults: Vec<String>,
    pub(crate) point: Option<Point>,
    pub(crate) blows: Vec<Blow>,
}

const KINDS: [Features; 5] = [
    Features::NONE,
    Features::REMOVABLE,
    Features::RANDOM_ACCESS,
    Features::from_bits_retain(Features::RANDOM_ACCESS.bits() | Features::REMOVABLE.bits()),
    Features::TAPE,
];

impl Case {
    pub(crate) fn new(seed: u64) -> Case {
        let mut random = Rng::with_seed(seed);
        // Neighbouring seeds begin alike.
        let mut random = Rng::with_seed(random.u64(..));
        let random = &mut random;
        let verb = if random.u8(..5) < 3 { Verb::Backup } else { Verb::Restore };
        let most = if random.u8(..8) == 0 { 4_000_000 } else { 1_000_000 };
        let holds = Holds::random(random, most);
        let changed = if random.bool() { holds } else { Holds::random(random, most) };
        let devices = if random.u8(..16) == 0 { random.u32(5..=9) } else { random.u32(1..=4) };
        let secondaries = if random.bool() { random.u32(1..=2).min(devices) } else { 0 };
        let own = if secondaries > 0 { random.u32(0..=devices - secondaries) } else { devices };
        let workers = random.u32(0..=3).min(own);
        let transfer: u32 = [65536, 131_072, 262_144][random.usize(..3)];
        let block: u32 = [512, 1024, 4096, 65536][random.usize(..4)];
        let mut options = format!("MAXTRANSFERSIZE = {transfer}, BLOCKSIZE = {block}");
        if random.bool() {
            options += &format!(", BUFFERCOUNT = {}", random.u32(1..=8));
        }
        let complete = if random.u8(..3) < 2 { Features::REQUEST_COMPLETE } else { Features::NONE };
        let discard = if random.bool() { Features::DISCARD } else { Features::NONE };
        let kind = if random.bool() { Features::NONE } else { KINDS[random.usize(..KINDS.len())] };
        // As many bytes as a server has on their way at a time.
        let eom_warning_size = if kind.contains(Features::REMOVABLE) { 2 * transfer } else { 0 };
        let kept = match kind {
            Features::TAPE => MediaKind::Tape,
            kind if kind.contains(Features::REMOVABLE) => MediaKind::Volumes(
                u64::from(eom_warning_size) + u64::from(block) * random.u64(1..1_000_000 / u64::from(block)),
            ),
            _ => MediaKind::File,
        };
        let server_time_out = if random.u8(..4) == 0 { random.u32(20..100) } else { 0 };
        let mut faults = Vec::new();
        match random.u8(..8) {
            0 => faults.push(format!("delay={}", random.u8(1..=2))),
            1 => faults.push("small-transfers".to_owned()),
            2 => faults.push("short-reads".to_owned()),
            3 => faults.push(format!("flushes={}", random.u8(1..=6))),
            4 => faults.push(format!("slow-configuration={}", random.u8(1..=4))),
            _ => {}
        }
        let point = (random.u8(..8) < 5).then(|| point(random, verb, devices, complete != Features::NONE));
        let mut blows = vec![Blow { moment: first(random, point), ..blow(random, point.is_some()) }];
        while blows.len() < 3 && random.u8(..4) == 0 {
            let micros = if random.bool() { 0 } else { random.u64(..8000) };
            blows.push(Blow { moment: Moment::Next { micros }, ..blow(random, false) });
        }
        Case {
            seed,
            verb,
            holds,
            changed,
            devices,
            own,
            secondaries,
            workers,
            block,
            options,
            features: kind | complete | discard,
            kept,
            eom_warning_size,
            server_time_out,
            replaces: random.u8(..3) < 2,
            faults,
            point,
            blows,
        }
    }

    pub(crate) fn config(&self) -> VdConfig {
        let (eom_warning_size, server_time_out) = (self.eom_warning_size, self.server_time_out);
        VdConfig { features: self.features, eom_warning_size, server_time_out, ..config(self.devices) }
    }

    /// The statement; a restore goes into the database `copy`.
    pub(crate) fn statement(&self, verb: Verb, replaces: bool) -> String {
        match verb {
            Verb::Backup => backup_statement("sales", SET, self.devices, &self.options),
            Verb::Restore => {
                let replace = if replaces { ", REPLACE" } else { "" };
                let moves = self.holds.moves("sales", "copy");
                restore_statement("copy", SET, self.devices, &format!("{}{replace}, {moves}", self.options))
            }
        }
    }

    /// Whose a device is.
    pub(crate) fn secondary_of(&self, device: u32) -> Option<u32> {
        (device >= self.own).then(|| (device - self.own) % self.secondaries)
    }

    pub(crate) fn completes(&self) -> bool {
        self.features.contains(Features::REQUEST_COMPLETE)
    }

    /// What to type to get this seed again.
    pub(crate) fn repeat(&self) -> String {
        format!(
            "VDI_KILL_FIRST_SEED={} VDI_KILL_ROUNDS=1 cargo test -p vdi-server-sim --test faults -- kill_rounds --nocapture\n\
             The case: {self:#?}",
            self.seed
        )
    }
}

fn point(random: &mut Rng, verb: Verb, devices: u32, completes: bool) -> Point {
    let (doing, nth) = match (verb, random.u8(..8)) {
        (Verb::Backup, 0..=2) => (Doing::Write, random.u64(1..=4)),
        (Verb::Backup, 3..=4) => (Doing::Flush, 1),
        (Verb::Backup, 5..=6) if completes => (Doing::Complete, 1),
        (Verb::Restore, 0..=3) => (Doing::Read, 1),
        (Verb::Restore, 4..=5) => (Doing::Read, random.u64(2..=4)),
        _ => (Doing::Close, 1),
    };
    let (device, behind, held) = (random.u32(..devices), random.bool(), random.bool());
    Point { device, doing, nth, behind, held }
}

fn first(random: &mut Rng, point: Option<Point>) -> Moment {
    match point {
        None => Moment::Share(f64::from(random.u32(..1_100_000)) / 1_000_000.0),
        // Where nobody waits, the work goes on meanwhile: into a commit, for example.
        Some(Point { held: false, .. }) => Moment::AtPoint { micros: random.u64(..3000) },
        Some(_) => Moment::AtPoint { micros: 0 },
    }
}

/// Who is struck, and how.
fn blow(random: &mut Rng, at_point: bool) -> Blow {
    let how = match random.u8(..8) {
        0..=3 => How::Kill,
        4..=5 => How::Terminate,
        _ => How::Stop { millis: random.u64(1..150) },
    };
    let victim = match random.u8(..12) {
        0..=1 if at_point => None,
        0..=3 => Some("server"),
        4..=5 => Some("primary"),
        6..=8 => Some("secondary"),
        _ => Some("worker"),
    };
    Blow { moment: Moment::Share(0.0), how, victim, which: random.usize(..8) }
}
