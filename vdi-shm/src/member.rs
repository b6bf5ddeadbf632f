//! The side of those who join a set: the server, and secondary clients.
//!
//! A *keeper* thread reads the link to the primary for as long as the membership lasts: answers, areas that are added
//! later, and the hang-up that means that the primary is gone.
//!
//! # Invariants
//!
//! 1. Nothing of the set is touched before its control segment and areas were received as sealed segments, and judged.
//! 2. The primary's death aborts the set here, unless the server had closed every device before. Whoever notices it also
//!    removes the dead set's socket.
//! 3. Leaving in order sends Leave first, so that it is no death; so does whoever cannot complete joining.
//! 4. An abort that this process sees first is told to the primary, and one that the primary tells is believed, whatever
//!    the control segment says.
//! 5. The primary answers each question once and in order. Questions are counted, so that an answer that comes after its
//!    asker gave up is not taken for the next one's.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::join::{Agreement, Message, Role};
use vdi_proto::layout::{MAX_AREAS, SERVER_MEMBER};
use vdi_proto::seal::Seals;
use vdi_proto::status::VdError;

use crate::area::{Keep, Stay};
use crate::control::Control;
use crate::error::{Blame, ShmError};
use crate::host::KEEPER_STACK;
use crate::link::{Link, Packet, Received, poll_readable};
use crate::runtime::{Options, Place, RuntimeDir};
use crate::segment::Segment;
use crate::session::{Session, Teller};
use crate::wait;

/// How long the primary has to answer a joiner.
const WELCOME_PATIENCE: Duration = Duration::from_secs(5);

/// A set, in a process that joined it. Dropping it leaves the set, once the last buffer is dropped that was mapped by a
/// handle, and nobody else holds on to [`Member::keep`].
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    /// The membership, which leases share.
    keep: Arc<Keep>,
}

/// What makes a process a member: dropping it leaves.
#[derive(Debug)]
struct Membership {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    session: Arc<Session>,
    link: Link,
    leaving: AtomicBool,
    /// Held while the server asks, one thing at a time.
    asking: Mutex<()>,
    answers: Mutex<Answers>,
}

/// Tells the primary of an abort.
#[derive(Debug)]
struct ToPrimary(Weak<Shared>);

impl Teller for ToPrimary {
    fn tell(&self, reason: AbortReason) {
        if let Some(shared) = self.0.upgrade() {
            // A primary that does not take it is dead, or told it itself.
            let _ = shared.link.send(&Message::Aborted { reason }, None);
        }
    }
}

/// The primary's answers to the server.
#[derive(Debug, Default)]
struct Answers {
    asked: u64,
    answered: u64,
    last: Option<Result<(), VdError>>,
}

/// What is found instead of a message where the peer hung up.
const HUNG_UP: &str = "the end of the connection";

fn next_packet(link: &Link, deadline: Instant, step: &'static str) -> Result<Packet, ShmError> {
    match link.receive_until(deadline, step)? {
        Received::Packet(packet) => Ok(packet),
        Received::HungUp | Received::Nothing => Err(ShmError::OutOfTurn { found: HUNG_UP, expected: "an answer" }),
    }
}

/// Whether sending failed because nobody is at the other end any more.
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

impl Member {
    /// Joins a set by its name.
    ///
    /// # Errors
    /// [`ShmError::NoSuchSet`], [`ShmError::Refused`] with the primary's reason, [`ShmError::Security`] when its creator or the
    /// runtime directory is not trusted, and whatever the system refuses.
    pub fn join(options: &Options, role: Role, instance: &str, set: &str) -> Result<Member, ShmError> {
        let place = Place::new(instance, set)?;
        let runtime = RuntimeDir::open(options, false).map_err(|error| match error {
            ShmError::System { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ShmError::NoSuchSet { set: set.to_owned(), instance: instance.to_owned(), path: options.runtime_dir() }
            }
            error => error,
        })?;
        let link = runtime.connect(&place, &options.access).inspect_err(|error| {
            if matches!(error, ShmError::NoSuchSet { .. }) {
                runtime.remove_if_dead(&place);
            }
        })?;
        match link.send(&Message::Hello { role, instance, set }, None) {
            // It hung up already, or died without ever having answered the knock: what it said before, if anything, is read below.
            Err(ShmError::System { source, .. }) if is_gone(&source) => {}
            sent => sent?,
        }
        let path = runtime.path_of(&place);
        let session = Self::attach(&link, role, place).map_err(|error| {
            // The primary may have counted this process in already; that it cannot come is no death.
            let _ = link.send(&Message::Leave, None);
            match error {
                // The set ended while this process knocked, and is no more.
                ShmError::OutOfTurn { found: HUNG_UP, .. } => {
                    ShmError::NoSuchSet { set: set.to_owned(), instance: instance.to_owned(), path }
                }
                error => error,
            }
        })?;
        let shared = Arc::new(Shared {
            session,
            link,
            leaving: AtomicBool::new(false),
            asking: Mutex::default(),
            answers: Mutex::default(),
        });
        shared.session.set_teller(Box::new(ToPrimary(Arc::downgrade(&shared))));
        let keeper = std::thread::Builder::new()
            .name("vdi-keeper".to_owned())
            .stack_size(KEEPER_STACK)
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.keep(&runtime)
            })
            .map_err(|error| ShmError::system("start the keeper thread", error));
        let keeper = keeper.inspect_err(|_| drop(shared.link.send(&Message::Leave, None)))?;
        let membership = Membership { shared: Arc::clone(&shared), keeper: Some(keeper) };
        let keep = Arc::new(Keep::new(Some(Box::new(membership))));
        shared.session.set_keep(&keep);
        Ok(Member { shared, keep })
    }

    /// Takes the Welcome and what comes with it.
    fn attach(link: &Link, role: Role, place: Place) -> Result<Arc<Session>, ShmError> {
        let deadline = Instant::now() + WELCOME_PATIENCE;
        let mut packet = next_packet(link, deadline, "the set's creator to answer")?;
        let (member, secret, asked, agreement, areas) = match packet.message()? {
            Message::Welcome { member, secret, asked, agreement, areas } => (member, secret, asked, agreement, areas),
            Message::Refused { status } => return Err(ShmError::Refused { set: place.set, status }),
            Message::Aborted { reason } => return Err(ShmError::Aborted(reason)),
            _ => return Err(ShmError::OutOfTurn { found: "another message", expected: "Welcome" }),
        };
        asked.validate_client()?;
        let segment = packet.take_segment(vdi_proto::layout::control_len(asked.device_count))?;
        let control = Control::attach(&segment, Seals::new(secret))?;
        if (member == SERVER_MEMBER) != (role == Role::Server) || areas > MAX_AREAS {
            return Err(ShmError::OutOfTurn { found: "another's Welcome", expected: "Welcome" });
        }
        let party = match role {
            Role::Server => Party::Server,
            Role::Secondary => Party::Secondary(member as u16),
        };
        let session = Session::new(control, place, party, member, secret, asked);
        if let Some(agreement) = agreement {
            session.agree(agreement)?;
        }
        for expected in 0..areas {
            let mut packet = next_packet(link, deadline, "the set's buffer areas")?;
            match packet.message()? {
                Message::Area { index, len } if index == expected => {
                    let segment = packet.take_segment(len)?;
                    session.add_area(index, &segment)?;
                }
                _ => return Err(ShmError::OutOfTurn { found: "another message", expected: "the next area" }),
            }
        }
        Ok(session)
    }

    /// What leases of this process keep, for [`crate::area::ClientBuffers::map_kept`]: the process stays a member until the caller
    /// has let go of it too.
    #[must_use]
    pub fn keep(&self) -> &Arc<Keep> {
        &self.keep
    }

    /// What this process knows of the set.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.shared.session
    }

    /// Server: adds a buffer area of `len` bytes, and waits until the client has it.
    ///
    /// # Errors
    /// VD_E_MEMORY when the memory cannot be had on either side, VD_E_ABORT, VD_E_TIMEOUT.
    pub fn add_area(&self, index: u32, len: u64, timeout: Duration) -> Result<(), ShmError> {
        if index >= MAX_AREAS {
            return Err(ShmError::Exhausted { what: "buffer areas", limit: u64::from(MAX_AREAS) });
        }
        let shared = &self.shared;
        if shared.session.areas().get(index).is_some() {
            return Err(ShmError::OutOfTurn { found: "an area that exists already", expected: "the next area" });
        }
        let segment = Segment::create("vdi-area", len, true)?;
        let mapping = segment.map()?;
        let deadline = wait::deadline(timeout);
        shared.ask(&Message::Area { index, len }, Some(&segment), deadline, "the client to map a buffer area")?;
        // Only now, so that the same number can be asked for again after a refusal.
        shared.session.adopt_area(index, mapping)
    }

    /// Server: tells the client the configuration, and waits until it has taken it.
    ///
    /// # Errors
    /// The client's refusal, VD_E_ABORT, VD_E_TIMEOUT.
    pub fn configure(&self, agreement: Agreement, timeout: Duration) -> Result<(), ShmError> {
        let shared = &self.shared;
        shared.session.agree(agreement)?;
        let deadline = wait::deadline(timeout);
        shared.ask(&Message::Configured(agreement), None, deadline, "the client to take the configuration")
    }
}

impl Stay for Membership {}

impl Drop for Membership {
    /// Leaves the set.
    fn drop(&mut self) {
        self.shared.leaving.store(true, Ordering::Release);
        let _ = self.shared.link.send(&Message::Leave, None);
        self.shared.link.shut_down();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the primary and waits for the answer.
    fn ask(
        &self,
        message: &Message<'_>,
        segment: Option<&Segment>,
        deadline: Option<Instant>,
        step: &'static str,
    ) -> Result<(), ShmError> {
        let _turn = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let number = {
            let mut answers = self.answers();
            answers.asked += 1;
            answers.last = None;
            answers.asked
        };
        match self.link.send(message, segment.map(Segment::fd)) {
            // The primary is gone. The keeper is about to say how, which ends the wait below.
            Err(ShmError::System { source, .. }) if is_gone(&source) => {}
            // Nobody answers what was not sent.
            sent => sent.inspect_err(|_| self.answers().asked -= 1)?,
        }
        let outcome = wait::wait_until(self.session.control().set_doorbell(), deadline, || {
            if let Some(aborted) = self.session.aborted() {
                return Some(Err(aborted));
            }
            let mut answers = self.answers();
            let answer = if answers.answered == number { answers.last.take() } else { None };
            answer.map(|answer| {
                answer.map_err(|status| ShmError::Refused { set: self.session.set_name().to_owned(), status })
            })
        });
        outcome.unwrap_or(Err(ShmError::Timeout { step }))
    }

    fn keep(&self, runtime: &RuntimeDir) {
        loop {
            if poll_readable(&mut [PollFd::new(&self.link, PollFlags::IN)], None).is_err() {
                self.session.abort(Cause::Died);
                return;
            }
            match self.link.receive() {
                Ok(Received::Nothing) => {}
                Ok(Received::Packet(packet)) => {
                    match self.handle(packet) {
                        Ok(()) => {}
                        // What this process cannot have is nobody else's fault.
                        Err(error) if error.blame() == Blame::System => {
                            self.session.give_up(error);
                            return;
                        }
                        Err(error) => {
                            self.session.accuse(Party::Primary, error);
                            return;
                        }
                    }
                }
                Ok(Received::HungUp) | Err(_) => break,
            }
        }
        if self.leaving.load(Ordering::Acquire) {
            return;
        }
        if !self.session.work_has_ended() {
            self.session.abort_for(Party::Primary, Cause::Died);
        }
        // The system may close a dead process's socket a moment later than its links. Somebody has to be there then, also
        // when this process is about to leave.
        for wait in [0, 1, 2, 5, 10, 20, 50, 100, 200, 400].map(Duration::from_millis) {
            std::thread::sleep(wait);
            if runtime.remove_if_dead(self.session.place()) {
                return;
            }
        }
    }

    fn handle(&self, mut packet: Packet) -> Result<(), ShmError> {
        let server = self.session.member() == SERVER_MEMBER;
        let area = match packet.message()? {
            Message::AreaAnswer { answer, .. } | Message::ConfiguredAnswer(answer) if server => {
                let mut answers = self.answers();
                answers.answered += 1;
                if answers.answered > answers.asked {
                    return Err(ShmError::OutOfTurn { found: "an answer", expected: "nothing: nothing was asked" });
                }
                answers.last = Some(answer);
                None
            }
            Message::Area { index, len } if !server => Some((index, len)),
            Message::Aborted { reason } => {
                self.session.abort_for(reason.party, reason.cause);
                None
            }
            _ => {
                return Err(ShmError::OutOfTurn {
                    found: "another message",
                    expected: "an area, an answer or an abort",
                });
            }
        };
        if let Some((index, len)) = area {
            let segment = packet.take_segment(len)?;
            self.session.add_area(index, &segment)?;
        }
        wait::ring(self.session.control().set_doorbell());
        Ok(())
    }
}
