//! One statement with all its processes: starts them, strikes, lets them go on, and notes when each ended and how.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::case::{Blow, Case, How, Moment, Role, Verb};
use super::parties::{Play, hold};
use crate::common::bench::Bench;
use crate::common::processes::{Outcome, Part, Statement};
use crate::common::{TEST_TIMEOUT, now_ns};

/// How often the play looks around while nobody says anything.
const LOOK: Duration = Duration::from_micros(500);

/// A process of the play.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) role: Role,
    pid: u32,
    /// `None` where it was gone already.
    descriptor: Option<Arc<OwnedFd>>,
    /// Whether the set knows it.
    pub(crate) joined: bool,
    /// How it said that it ended.
    pub(crate) ended: Option<Result<(), String>>,
    /// When its process was gone.
    gone: Option<u64>,
    pub(crate) struck: Option<How>,
    /// Stopped, until then.
    stopped: Option<u64>,
}

impl Party {
    /// Whether it was made to die.
    pub(crate) fn is_slain(&self) -> bool {
        self.struck.is_some_and(How::is_fatal)
    }
}

/// A blow that was struck.
#[derive(Debug)]
pub(crate) struct Struck {
    pub(crate) how: How,
    pub(crate) role: Role,
    /// How far the statement had come.
    pub(crate) phase: &'static str,
}

/// What a play came to.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) outcome: Outcome,
    pub(crate) parties: Vec<Party>,
    pub(crate) blows: Vec<Struck>,
    pub(crate) configured: bool,
    /// From the first process's start to the last one's end.
    pub(crate) took: Duration,
    /// From the last signal to the last one's end, where somebody was made to die.
    pub(crate) lateness: Option<Duration>,
    /// What the processes printed besides.
    #[expect(dead_code, reason = "shown where the law is broken")]
    pub(crate) log: Vec<String>,
}

impl Played {
    pub(crate) fn of(&self, role: Role) -> Option<&Party> {
        self.parties.iter().find(|party| party.role == role)
    }

    /// Whether the server said that it succeeded.
    pub(crate) fn server_succeeded(&self) -> bool {
        self.outcome.status.success()
    }

    /// Whether the primary did, which speaks for all clients.
    pub(crate) fn client_succeeded(&self) -> bool {
        self.of(Role::Primary).is_some_and(|primary| primary.ended == Some(Ok(())))
    }

    pub(crate) fn has_slain(&self) -> bool {
        self.parties.iter().any(Party::is_slain)
    }
}

/// Carries out a statement. Undisturbed unless it is told how long the statement takes when it is.
pub(crate) fn play(bench: &Bench, case: &Case, verb: Verb, undisturbed: Option<Duration>) -> Played {
    let hold = hold(&bench.out());
    if !hold.exists() {
        rustix::fs::mknodat(rustix::fs::CWD, &hold, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }
    let arguments = Play::arguments(case, verb, undisturbed.is_some(), &bench.out());
    let begun = now_ns();
    let part = bench.part("primary", &arguments.each_ref().map(String::as_str));
    let (tell, gone) = channel();
    let mut stage = Scene {
        case,
        begun,
        undisturbed,
        parties: Vec::new(),
        blows: Vec::new(),
        due: if undisturbed.is_some() { case.blows.clone() } else { Vec::new() },
        struck_at: None,
        last_signal: None,
        at_point: None,
        holding: false,
        configured: false,
        phase: "before the set is created",
        tell,
    };
    let primary = part.process.id();
    stage.enter(primary, Role::Primary);
    stage.run(bench, verb, part, &gone, &hold)
}

struct Scene<'a> {
    case: &'a Case,
    begun: u64,
    undisturbed: Option<Duration>,
    parties: Vec<Party>,
    blows: Vec<Struck>,
    /// Blows to be struck, in this order.
    due: Vec<Blow>,
    struck_at: Option<u64>,
    last_signal: Option<u64>,
    /// Since when, and who.
    at_point: Option<(u64, Role)>,
    /// Somebody waits for the blow.
    holding: bool,
    configured: bool,
    phase: &'static str,
    tell: Sender<(Role, u64)>,
}

/// How far a statement can come, in the order in which that happens.
pub(crate) const PHASES: [&str; 10] = [
    "before the set is created",
    "waiting for the server",
    "configured",
    "data",
    "Flush",
    "Complete",
    "close",
    "a device is closed",
    "the server has ended",
    "the primary has ended",
];

impl Scene<'_> {
    fn run(mut self, bench: &Bench, verb: Verb, mut part: Part, gone: &Receiver<(Role, u64)>, hold: &Path) -> Played {
        let mut server: Option<Statement> = None;
        let (mut speaking, mut cancelled) = (true, false);
        let deadline = self.begun + TEST_TIMEOUT.as_nanos() as u64;
        loop {
            match part.report_within(if speaking { LOOK } else { Duration::ZERO }) {
                Ok(Some(report)) => self.note(&report),
                Ok(None) => {}
                // Leaves the processor to those who are waited for; nothing depends on how long.
                Err(_) if !speaking => std::thread::sleep(LOOK),
                Err(_) => speaking = false,
            }
            for (role, at) in gone.try_iter() {
                let party = self.parties.iter_mut().find(|party| party.role == role).unwrap();
                party.gone = Some(at);
                match role {
                    Role::Server => self.advance("the server has ended"),
                    Role::Primary => self.advance("the primary has ended"),
                    _ => {}
                }
            }
            if server.is_none() && (self.phase != PHASES[0] || self.is_gone(Role::Primary)) {
                let statement = self.case.statement(verb, self.case.replaces && self.undisturbed.is_some());
                let faults = self.case.faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]);
                let seed = self.case.seed.to_string();
                let begun = bench.sql_with(&statement, |command| _ = command.args(faults).args(["--seed", &seed]));
                self.enter(begun.process.id(), Role::Server);
                server = Some(begun);
            }
            if self.is_gone(Role::Server) && !self.configured && !cancelled {
                part.try_order("cancel");
                cancelled = true;
            }
            self.strike();
            self.go_on(now_ns());
            if self.holding && self.due.first().is_none_or(|blow| matches!(blow.moment, Moment::Next { .. })) {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                // Refused until somebody reads; the one who waits may be stopped, or dead.
                self.holding = rustix::fs::open(hold, flags, Mode::empty()).is_err();
            }
            if !speaking && server.is_some() && self.parties.iter().all(|party| party.gone.is_some()) {
                break;
            }
            assert!(now_ns() < deadline, "somebody did not end within {TEST_TIMEOUT:?}: {self:#?}, {:#?}", part.log());
        }
        let _ = part.process.wait();
        self.parties.iter_mut().for_each(|party| party.descriptor = None);
        let over = self.parties.iter().filter_map(|party| party.gone).max().unwrap();
        let slain = self.parties.iter().any(Party::is_slain);
        let lateness = self.last_signal.filter(|_| slain).map(|since| Duration::from_nanos(over.saturating_sub(since)));
        Played {
            outcome: server.unwrap().outcome(),
            parties: self.parties,
            blows: self.blows,
            configured: self.configured,
            took: Duration::from_nanos(over - self.begun),
            lateness,
            log: part.log(),
        }
    }

    fn is_gone(&self, role: Role) -> bool {
        self.parties.iter().any(|party| party.role == role && party.gone.is_some())
    }

    /// A process has begun; it is watched until it is gone.
    fn enter(&mut self, pid: u32, role: Role) {
        let descriptor = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).ok().map(Arc::new);
        let (tell, watched) = (self.tell.clone(), descriptor.clone());
        std::thread::spawn(move || {
            if let Some(descriptor) = watched {
                let patience = Timespec { tv_sec: 2 * TEST_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&patience));
            }
            let _ = tell.send((role, now_ns()));
        });
        let (ended, gone, struck, stopped) = (None, None, None, None);
        self.parties.push(Party { role, pid, descriptor, joined: false, ended, gone, struck, stopped });
    }

    fn advance(&mut self, phase: &'static str) {
        let place = |phase| PHASES.iter().position(|known| *known == phase);
        if place(phase) > place(self.phase) {
            self.phase = phase;
        }
    }

    /// Somebody reports.
    fn note(&mut self, report: &str) {
        let mut words = report.splitn(3, ' ');
        let pid: u32 = words.next().unwrap().parse().unwrap();
        let (word, rest) = (words.next().unwrap(), words.next().unwrap_or_default());
        if word == "hello" {
            let (role, number) = rest.split_once(' ').unwrap();
            let number = number.parse().unwrap();
            match role {
                "secondary" => self.enter(pid, Role::Secondary(number)),
                "worker" => self.enter(pid, Role::Worker(number)),
                _ => {}
            }
            return;
        }
        let party = self.parties.iter_mut().find(|party| party.pid == pid).unwrap();
        match word {
            "created" => {
                party.joined = true;
                self.advance("waiting for the server");
            }
            "configured" => {
                self.configured = true;
                self.advance("configured");
            }
            "joined" => party.joined = true,
            "doing" => self.advance(match rest {
                "Write" | "Read" => "data",
                "Flush" => "Flush",
                "Complete" => "Complete",
                _ => "close",
            }),
            "closed" => self.advance("a device is closed"),
            "at" => {
                self.at_point.get_or_insert((now_ns(), party.role));
                self.holding = self.case.point.is_some_and(|point| point.held);
            }
            "ended" => {
                let ended = rest.strip_prefix("badly ").map_or(Ok(()), |text| Err(text.to_owned()));
                party.ended = Some(ended);
            }
            _ => panic!("{report}"),
        }
    }

    /// Strikes, if it is time.
    fn strike(&mut self) {
        while let Some(blow) = self.due.first().copied() {
            let now = now_ns();
            let undisturbed = self.undisturbed.unwrap_or_default();
            let due = match blow.moment {
                Moment::Share(share) => Some(self.begun + undisturbed.mul_f64(share).as_nanos() as u64),
                Moment::AtPoint { micros } => self.at_point.map(|(since, _)| since + micros * 1000),
                Moment::Next { micros } => self.struck_at.map(|since| since + micros * 1000),
            };
            let Some(due) = due else { return };
            if due > now {
                // A moment that is nearer than the next look is worth waiting for.
                if due - now > LOOK.as_nanos() as u64 {
                    return;
                }
                while now_ns() < due {
                    std::hint::spin_loop();
                }
            }
            self.due.remove(0);
            self.struck_at = Some(now_ns());
            let wanted = |party: &&mut Party| match blow.victim {
                None => self.at_point.is_some_and(|(_, role)| role == party.role),
                Some(kind) => party.role.kind() == kind,
            };
            let mut alive: Vec<_> =
                self.parties.iter_mut().filter(|party| party.gone.is_none() && !party.is_slain()).collect();
            if alive.iter().any(wanted) {
                alive.retain(wanted);
            }
            if alive.is_empty() {
                continue;
            }
            let which = blow.which % alive.len();
            let party = &mut alive[which];
            let signal = match blow.how {
                How::Kill => Signal::KILL,
                How::Terminate => Signal::TERM,
                How::Stop { .. } => Signal::STOP,
            };
            let at = now_ns();
            if party.descriptor.as_ref().is_none_or(|process| pidfd_send_signal(process, signal).is_err()) {
                continue;
            }
            party.struck = Some(blow.how);
            match blow.how {
                How::Stop { millis } => party.stopped = Some(at + millis * 1_000_000),
                _ => self.last_signal = Some(at),
            }
            self.blows.push(Struck { how: blow.how, role: party.role, phase: self.phase });
        }
    }

    /// Those who were stopped for long enough go on.
    fn go_on(&mut self, now: u64) {
        for party in &mut self.parties {
            if party.stopped.is_some_and(|until| until <= now) {
                party.stopped = None;
                let going =
                    party.descriptor.as_ref().is_some_and(|process| pidfd_send_signal(process, Signal::CONT).is_ok());
                if going && party.gone.is_none() {
                    // Whoever was stopped could not hear of a death.
                    self.last_signal = Some(now);
                }
            }
        }
    }
}

impl std::fmt::Debug for Scene<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Scene { parties, blows, due, at_point, phase, .. } = self;
        write!(f, "{phase}, at point {at_point:?}, to come {due:?}, struck {blows:#?}, {parties:#?}")
    }
}

/// Whether a process died of a signal that it was sent.
pub(crate) fn died(outcome: &Outcome) -> bool {
    outcome.status.signal().is_some()
}
