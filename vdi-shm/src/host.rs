//! The primary's side: it owns the set, lets others join, and notices when they go.
//!
//! A *keeper* thread serves the set's socket from Create to Close. It answers joiners, passes buffer areas on, and turns
//! the end of a link into what it means.
//!
//! # Invariants
//!
//! 1. A joiner gets the control segment only after its credentials, the names that it gave, and the state of the set were
//!    checked. Before that it costs a connection of [`MAX_PENDING`], for [`HELLO_PATIENCE`] at most; more joiners wait in
//!    the socket's queue. Those who will be refused for who they are have as many connections of their own, and beyond
//!    these are sent away: they keep nobody waiting.
//! 2. An area is sent to every secondary before the server learns that it was accepted. So when a handle of that area
//!    arrives anywhere, the announcement is on its way or there.
//! 3. A member whose link ends without Leave has died: its leases are void, and the set is aborted with its name, unless the
//!    server had closed every device before, or every device that this member had opened. One that leaves with a device open
//!    aborts the set as well.
//! 4. Every member is told of an abort over its link, whoever aborted and whatever the control segment says of it since.
//! 5. The keeper never waits for a member: what cannot be sent at once is a dead member.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::join::{Message, Role};
use vdi_proto::layout::{MAX_AREAS, MAX_MEMBERS, PRIMARY_MEMBER, SERVER_MEMBER};
use vdi_proto::seal::Seals;
use vdi_proto::status::VdError;

use crate::area::Keep;
use crate::control::Control;
use crate::error::{Blame, ShmError};
use crate::link::{Link, Packet, Peer, Received, poll_readable};
use crate::runtime::{Access, Options, Place, RuntimeDir};
use crate::segment::Segment;
use crate::session::{Session, Teller};
use crate::wait;

/// Joiners that have not said who they are.
pub const MAX_PENDING: usize = 32;
/// How long a joiner has for that. Less than joiners wait for an answer, so that one who waits in the queue behind silent
/// ones is still served.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// How many joiners the keeper takes before it listens to the members again.
const ACCEPTED_A_TURN: u32 = 64;

/// How long the keeper takes no joiners after the system had no descriptor for one.
const DEAF: Duration = Duration::from_millis(50);

/// The stack of a keeper thread: it calls nothing deep.
pub(crate) const KEEPER_STACK: usize = 256 * 1024;

/// Calls the keeper from its links.
#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    /// The set ends.
    stop: AtomicBool,
}

impl Bell {
    fn new() -> Result<Arc<Bell>, ShmError> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| ShmError::system("create an event descriptor", errno))?;
        Ok(Arc::new(Bell { event, stop: AtomicBool::new(false) }))
    }

    fn ring(&self) {
        // Refused only where it was rung so often that the keeper is called anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    /// The keeper has come; whether the set ends.
    fn answer(&self) -> bool {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.stop.load(Ordering::Acquire)
    }
}

/// Has the keeper tell the members of an abort.
#[derive(Debug)]
struct ToMembers(Arc<Bell>);

impl Teller for ToMembers {
    fn tell(&self, _: AbortReason) {
        self.0.ring();
    }
}

/// A set, in the process that created it.
#[derive(Debug)]
pub struct Host {
    session: Arc<Session>,
    /// A primary cannot leave: its leases keep its buffers alone.
    keep: Arc<Keep>,
    admitting: Arc<AtomicBool>,
    bell: Arc<Bell>,
    keeper: Option<JoinHandle<()>>,
}

impl Host {
    /// Creates a set, so that a server can find it.
    ///
    /// # Errors
    /// [`ShmError::Config`] for a configuration that no server can serve, [`ShmError::SetExists`] while a live set has this
    /// name, and whatever the runtime directory or the system refuses.
    pub fn create(options: &Options, instance: &str, set: &str, asked: &VdConfig) -> Result<Host, ShmError> {
        asked.validate_client()?;
        let place = Place::new(instance, set)?;
        let runtime = RuntimeDir::open(options, true)?;
        let listener = runtime.listen(&place, &options.access)?;
        // From here on the socket has to go when something fails.
        let created = Host::serve(&options.access, &place, asked, listener);
        match created {
            Ok((session, admitting, bell, mut keeper)) => {
                let keep = Arc::new(Keep::new(None));
                session.set_keep(&keep);
                let path = place.clone();
                let thread = std::thread::Builder::new()
                    .name("vdi-keeper".to_owned())
                    .stack_size(KEEPER_STACK)
                    .spawn(move || {
                        keeper.run();
                        runtime.remove(&path);
                    })
                    .map_err(|error| ShmError::system("start the keeper thread", error));
                match thread {
                    Ok(thread) => Ok(Host { session, keep, admitting, bell, keeper: Some(thread) }),
                    Err(error) => {
                        RuntimeDir::open(options, false)?.remove(&place);
                        Err(error)
                    }
                }
            }
            Err(error) => {
                runtime.remove(&place);
                Err(error)
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn serve(
        access: &Access,
        place: &Place,
        asked: &VdConfig,
        listener: OwnedFd,
    ) -> Result<(Arc<Session>, Arc<AtomicBool>, Arc<Bell>, Keeper), ShmError> {
        let mut secret = [0; 8];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| ShmError::system("get random numbers", errno))?;
        let secret = u64::from_ne_bytes(secret);
        let (control, segment) = Control::create(asked.device_count, Seals::new(secret))?;
        let session = Session::new(control, place.clone(), Party::Primary, PRIMARY_MEMBER, secret, *asked);
        let bell = Bell::new()?;
        session.set_teller(Box::new(ToMembers(Arc::clone(&bell))));
        let admitting = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            session: Arc::clone(&session),
            access: access.clone(),
            admitting: Arc::clone(&admitting),
            secret,
            segment,
            listener,
            bell: Arc::clone(&bell),
            told: false,
            areas: Vec::new(),
            connections: Vec::new(),
            deaf_until: None,
            members: 1 << PRIMARY_MEMBER,
        };
        Ok((session, admitting, bell, keeper))
    }

    /// What leases of this process keep, for [`crate::area::ClientBuffers::map_kept`]: the buffers mapped.
    #[must_use]
    pub fn keep(&self) -> &Arc<Keep> {
        &self.keep
    }

    /// What this process knows of the set.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Lets secondaries join from now on: the primary has got the configuration.
    pub fn admit_secondaries(&self) {
        self.admitting.store(true, Ordering::Release);
    }
}

impl Drop for Host {
    /// Ends the set: all links are cut, and its name is free again. Before the work has ended this aborts it.
    fn drop(&mut self) {
        if !self.session.work_has_ended() {
            self.session.abort(Cause::ClosedEarly);
        }
        self.bell.stop();
        if let Some(keeper) = self.keeper.take() {
            // A keeper that panicked has dropped its links, which is all that is left to do.
            let _ = keeper.join();
        }
    }
}

#[derive(Debug)]
struct Connection {
    link: Link,
    peer: Peer,
    since: Instant,
    /// As what it joined, and its place.
    joined: Option<(Role, u32)>,
    left: bool,
}

fn party(role: Role, member: u32) -> Party {
    match role {
        Role::Server => Party::Server,
        Role::Secondary => Party::Secondary(member as u16),
    }
}

struct Keeper {
    session: Arc<Session>,
    access: Access,
    admitting: Arc<AtomicBool>,
    secret: u64,
    segment: Segment,
    listener: OwnedFd,
    bell: Arc<Bell>,
    /// The members were told of an abort.
    told: bool,
    areas: Vec<Segment>,
    connections: Vec<Connection>,
    /// While this process has no descriptor left for a joiner.
    deaf_until: Option<Instant>,
    /// A bit a member that exists.
    members: u128,
}

const _: () = assert!(MAX_MEMBERS == u128::BITS);

impl Keeper {
    fn run(&mut self) {
        loop {
            let now = Instant::now();
            self.deaf_until = self.deaf_until.filter(|until| now < *until);
            let patience = self
                .connections
                .iter()
                .filter(|connection| connection.joined.is_none())
                .map(|connection| connection.since + HELLO_PATIENCE)
                .chain(self.deaf_until)
                .map(|until| until.saturating_duration_since(now))
                .min();
            let open = self.deaf_until.is_none() && self.pending(true) < MAX_PENDING;
            let knocking = if open { PollFlags::IN } else { PollFlags::empty() };
            let mut descriptors =
                vec![PollFd::new(&self.bell.event, PollFlags::IN), PollFd::new(&self.listener, knocking)];
            descriptors.extend(self.connections.iter().map(|c| PollFd::new(&c.link, PollFlags::IN)));
            if poll_readable(&mut descriptors, patience).is_err() {
                // The system cannot even wait any more: nobody would notice a death, so end the set.
                self.session.abort(Cause::Died);
                return;
            }
            let ready = |index: usize| !descriptors[index].revents().is_empty();
            let (called, knocked) = (ready(0), ready(1));
            let talking: Vec<bool> = (0..self.connections.len()).map(|index| ready(index + 2)).collect();
            let stopped = called && self.bell.answer();
            self.tell_abort();
            if stopped {
                return;
            }
            let now = Instant::now();
            // All stay in their places meanwhile: what one says may have to be passed on to any other.
            let over: Vec<bool> = (0..talking.len())
                .map(|index| {
                    let connection = &self.connections[index];
                    let silent = connection.joined.is_none() && now >= connection.since + HELLO_PATIENCE;
                    if talking[index] { !self.listen_to(index) } else { silent }
                })
                .collect();
            for index in (0..over.len()).rev().filter(|index| over[*index]) {
                let connection = self.connections.swap_remove(index);
                self.gone(&connection);
            }
            if knocked {
                self.accept();
            }
        }
    }

    /// Tells every member of an abort that this process has seen, once.
    fn tell_abort(&mut self) {
        let Some(reason) = self.session.latched().filter(|_| !self.told) else { return };
        self.told = true;
        for connection in self.connections.iter().filter(|connection| connection.joined.is_some()) {
            if connection.link.send(&Message::Aborted { reason }, None).is_err() {
                // It will be noticed as hung up, here and by itself.
                connection.link.shut_down();
            }
        }
    }

    /// How many have not said who they are, of those who may join or of those who may not.
    fn pending(&self, allowed: bool) -> usize {
        let is_one = |other: &&Connection| other.joined.is_none() && self.access.allows(&other.peer) == allowed;
        self.connections.iter().filter(is_one).count()
    }

    fn accept(&mut self) {
        // A bounded number a turn: strangers who knock as fast as they are sent away cannot keep the members waiting.
        for _ in 0..ACCEPTED_A_TURN {
            if self.pending(true) >= MAX_PENDING {
                return;
            }
            let socket = match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // No descriptor left. The joiner stays in the queue; asking for it again at once would be in vain.
                    self.deaf_until = Some(Instant::now() + DEAF);
                    return;
                }
            };
            let link = Link::new(socket);
            let Ok(peer) = link.peer() else { continue };
            let allowed = self.access.allows(&peer);
            if allowed || self.pending(allowed) < MAX_PENDING {
                let since = Instant::now();
                self.connections.push(Connection { link, peer, since, joined: None, left: false });
            }
        }
    }

    /// Handles what a connection sent; false when it is over.
    fn listen_to(&mut self, index: usize) -> bool {
        // A bounded number of messages a turn, so that a talkative member cannot starve the others.
        for _ in 0..16 {
            match self.connections[index].link.receive() {
                Ok(Received::Packet(packet)) => {
                    if !self.handle(index, packet) {
                        return false;
                    }
                }
                Ok(Received::Nothing) => return true,
                Ok(Received::HungUp) | Err(_) => return false,
            }
        }
        true
    }

    fn handle(&mut self, from: usize, mut packet: Packet) -> bool {
        let joined = self.connections[from].joined;
        match (joined, packet.message()) {
            (None, Ok(Message::Hello { role, instance, set })) => match self.admit(from, role, instance, set) {
                Ok(()) => true,
                Err(answer) => self.refuse(from, &answer),
            },
            (None, Ok(_)) => self.refuse(from, &Message::Refused { status: VdError::Unexpected }),
            (None, Err(error)) => self.refuse(from, &Message::Refused { status: error.code() }),
            (Some((Role::Server, _)), Ok(Message::Area { index, len })) => {
                let answer = packet.take_segment(len).and_then(|segment| self.add_area(index, segment));
                let answer = answer.map_err(|error| match error {
                    // No lack of this process's, but nothing that a segment could be.
                    error if error.blame() == Blame::Peer => VdError::Invalid,
                    error => error.code(),
                });
                self.connections[from].link.send(&Message::AreaAnswer { index, answer }, None).is_ok()
            }
            (Some((Role::Server, _)), Ok(Message::Configured(agreement))) => {
                let answer = self.session.agree(agreement).map_err(|error| error.code());
                wait::ring(self.session.control().set_doorbell());
                self.connections[from].link.send(&Message::ConfiguredAnswer(answer), None).is_ok()
            }
            (Some(_), Ok(Message::Aborted { reason })) => {
                self.session.abort_for(reason.party, reason.cause);
                true
            }
            (Some(_), Ok(Message::Leave)) => {
                self.connections[from].left = true;
                true
            }
            (Some(who), Ok(_)) => self.accuse(from, who, "it sent a join message out of turn"),
            (Some(who), Err(error)) => self.accuse(from, who, error),
        }
    }

    /// Tells a joiner why not. False: it is over.
    fn refuse(&self, connection: usize, answer: &Message<'_>) -> bool {
        // One that is gone needs no answer.
        let _ = self.connections[connection].link.send(answer, None);
        false
    }

    /// Aborts the set for a member that broke the protocol. False: it is over.
    fn accuse(&mut self, connection: usize, (role, member): (Role, u32), evidence: impl core::fmt::Display) -> bool {
        self.connections[connection].left = true;
        self.session.accuse(party(role, member), evidence);
        false
    }

    /// Decides on a joiner and welcomes it. Else gives the answer that refuses it.
    fn admit(&mut self, from: usize, role: Role, instance: &str, set: &str) -> Result<(), Message<'static>> {
        let refused = |status| Err(Message::Refused { status });
        let place = self.session.place();
        if place.set != set || place.instance != instance {
            return refused(VdError::Invalid);
        }
        if !self.access.allows(&self.connections[from].peer) {
            return refused(VdError::Security);
        }
        if let Some(reason) = self.session.abort_reason() {
            return Err(Message::Aborted { reason });
        }
        let member = match role {
            // A set serves one server, and one that was configured no other.
            Role::Server if self.members & 1 << SERVER_MEMBER != 0 => return refused(VdError::Invalid),
            Role::Server if self.session.agreement().is_some() => return refused(VdError::Invalid),
            Role::Server => SERVER_MEMBER,
            Role::Secondary if !self.admitting.load(Ordering::Acquire) || self.session.work_has_ended() => {
                return refused(VdError::Protocol);
            }
            Role::Secondary => match (self.members | 1 << SERVER_MEMBER).trailing_ones() {
                MAX_MEMBERS => return refused(VdError::Memory),
                member => member,
            },
        };
        let welcome = Message::Welcome {
            member,
            secret: self.secret,
            asked: *self.session.asked(),
            agreement: self.session.agreement().copied(),
            areas: self.areas.len() as u32,
        };
        let link = &self.connections[from].link;
        let mut sent = link.send(&welcome, Some(self.segment.fd()));
        for (index, area) in self.areas.iter().enumerate() {
            sent =
                sent.and_then(|()| link.send(&Message::Area { index: index as u32, len: area.len() }, Some(area.fd())));
        }
        sent.map_err(|error| Message::Refused { status: error.code() })?;
        self.members |= 1 << member;
        self.connections[from].joined = Some((role, member));
        Ok(())
    }

    /// Takes an area from the server and passes it on to the secondaries.
    fn add_area(&mut self, index: u32, segment: Segment) -> Result<(), ShmError> {
        if index as usize != self.areas.len() || index >= MAX_AREAS {
            return Err(ShmError::OutOfTurn { found: "another area", expected: "the next area" });
        }
        let len = segment.len();
        self.session.add_area(index, &segment)?;
        for connection in &self.connections {
            if let Some((Role::Secondary, _)) = connection.joined
                && connection.link.send(&Message::Area { index, len }, Some(segment.fd())).is_err()
            {
                // It will be noticed as hung up.
                connection.link.shut_down();
            }
        }
        self.areas.push(segment);
        Ok(())
    }

    /// A connection is over: what that means depends on who it was.
    fn gone(&mut self, connection: &Connection) {
        let Some((role, member)) = connection.joined else { return };
        let ended = self.session.work_has_ended();
        self.members &= !(1 << member);
        match role {
            Role::Server => {
                if !connection.left && !ended {
                    self.session.abort_for(Party::Server, Cause::Died);
                } else if (self.session.agreement().is_some() || !self.areas.is_empty()) && !ended {
                    // It left a set that it had begun to configure: no command will ever come, and none of its areas suits
                    // another server.
                    self.session.abort_for(Party::Server, Cause::ClosedEarly);
                }
            }
            Role::Secondary => {
                let control = self.session.control();
                control.void_leases(member);
                let (mut open, mut closed, mut violation) = (0u32, 0u32, None);
                for device in 0..control.device_count() {
                    match control.opener(device) {
                        Ok((opener, has_closed)) if opener == Some(member) => {
                            *(if has_closed { &mut closed } else { &mut open }) += 1;
                        }
                        Ok(_) => {}
                        // Nobody knows any more whose device that was, nor who wrote over it.
                        Err(error) => violation = Some(error),
                    }
                }
                match (connection.left, open, closed) {
                    _ if ended => {}
                    // Nobody would answer its devices any more.
                    (true, 1.., _) => self.session.abort_for(party(role, member), Cause::AbandonedDevice),
                    // It left in order, or its work had ended: all the devices that it had opened were closed.
                    (true, 0, _) | (false, 0, 1..) => {
                        violation.into_iter().for_each(|error| self.session.accuse(Party::Somebody, error));
                    }
                    (false, ..) => self.session.abort_for(party(role, member), Cause::Died),
                }
            }
        }
    }
}
