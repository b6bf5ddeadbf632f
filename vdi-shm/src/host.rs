//! The primary's side: it owns the set, lets others join, and notices when they go.
//!
//! A *keeper* thread serves the set's socket from Create to Close. It answers joiners, passes buffer areas on, and turns
//! the end of a link into what it means.
//!
//! # Invariants
//!
//! 1. A joiner gets the control segment only after its credentials, the names that it gave, and the state of the set were
//!    checked. Before that it costs a connection of [`MAX_PENDING`], for [`HELLO_PATIENCE`] at most.
//! 2. An area is sent to every secondary before the server learns that it was accepted. So when a handle of that area
//!    arrives anywhere, the announcement is on its way or there.
//! 3. A member whose link ends without Leave has died: its leases are void, and the set is aborted with its name, unless the
//!    server had closed every device before.
//! 4. The keeper never waits for a member: what cannot be sent at once is a dead member.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::net::SocketFlags;
use vdi_proto::abort::{Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::join::{Message, Role};
use vdi_proto::layout::{MAX_AREAS, MAX_MEMBERS, PRIMARY_MEMBER, SERVER_MEMBER};
use vdi_proto::status::VdError;

use crate::control::Control;
use crate::error::ShmError;
use crate::link::{Link, Packet, Peer, Received, poll_readable};
use crate::runtime::{Access, Options, Place, RuntimeDir};
use crate::segment::Segment;
use crate::session::Session;
use crate::wait;

/// Joiners that have not said who they are.
pub const MAX_PENDING: usize = 32;
/// How long a joiner has for that.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// The stack of a keeper thread: it calls nothing deep.
pub(crate) const KEEPER_STACK: usize = 256 * 1024;

/// A set, in the process that created it.
#[derive(Debug)]
pub struct Host {
    session: Arc<Session>,
    admitting: Arc<AtomicBool>,
    stop: Arc<OwnedFd>,
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
            Ok((session, admitting, stop, mut keeper)) => {
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
                    Ok(thread) => Ok(Host { session, admitting, stop, keeper: Some(thread) }),
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
    ) -> Result<(Arc<Session>, Arc<AtomicBool>, Arc<OwnedFd>, Keeper), ShmError> {
        let (control, segment) = Control::create(asked.device_count)?;
        let mut secret = [0; 8];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| ShmError::system("get random numbers", errno))?;
        let secret = u64::from_ne_bytes(secret);
        let session = Session::new(control, place.clone(), Party::Primary, PRIMARY_MEMBER, secret, *asked);
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| ShmError::system("create an event descriptor", errno))?;
        let stop = Arc::new(stop);
        let admitting = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            session: Arc::clone(&session),
            access: access.clone(),
            admitting: Arc::clone(&admitting),
            secret,
            segment,
            listener,
            stop: Arc::clone(&stop),
            areas: Vec::new(),
            connections: Vec::new(),
            members: 1 << PRIMARY_MEMBER,
        };
        Ok((session, admitting, stop, keeper))
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
    /// Ends the set: all links are cut, and its name is free again.
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
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
    stop: Arc<OwnedFd>,
    areas: Vec<Segment>,
    connections: Vec<Connection>,
    /// A bit a member that exists.
    members: u128,
}

const _: () = assert!(MAX_MEMBERS == u128::BITS);

impl Keeper {
    fn run(&mut self) {
        loop {
            let patience = self
                .connections
                .iter()
                .filter(|connection| connection.joined.is_none())
                .map(|connection| (connection.since + HELLO_PATIENCE).saturating_duration_since(Instant::now()))
                .min();
            let mut descriptors = vec![
                PollFd::new(&*self.stop, PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
            ];
            descriptors.extend(self.connections.iter().map(|c| PollFd::new(&c.link, PollFlags::IN)));
            if poll_readable(&mut descriptors, patience).is_err() {
                // The system cannot even wait any more: nobody would notice a death, so end the set.
                self.session.abort(Cause::Died);
                return;
            }
            let ready = |index: usize| !descriptors[index].revents().is_empty();
            let (stopped, knocked) = (ready(0), ready(1));
            let talking: Vec<bool> = (0..self.connections.len()).map(|index| ready(index + 2)).collect();
            if stopped {
                return;
            }
            let now = Instant::now();
            for (mut connection, talking) in core::mem::take(&mut self.connections).into_iter().zip(talking) {
                let alive = if talking {
                    self.listen_to(&mut connection)
                } else {
                    connection.joined.is_some() || now < connection.since + HELLO_PATIENCE
                };
                if alive {
                    self.connections.push(connection);
                } else {
                    self.gone(&connection);
                }
            }
            if knocked {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        while let Ok(socket) =
            rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            let link = Link::new(socket);
            let pending = self.connections.iter().filter(|connection| connection.joined.is_none()).count();
            if pending < MAX_PENDING
                && let Ok(peer) = link.peer()
            {
                let since = Instant::now();
                self.connections.push(Connection { link, peer, since, joined: None, left: false });
            }
        }
    }

    /// Handles what a connection sent; false when it is over.
    fn listen_to(&mut self, connection: &mut Connection) -> bool {
        // A bounded number of messages a turn, so that a talkative member cannot starve the others.
        for _ in 0..16 {
            match connection.link.receive() {
                Ok(Received::Packet(packet)) => {
                    if !self.handle(connection, packet) {
                        return false;
                    }
                }
                Ok(Received::Nothing) => return true,
                Ok(Received::HungUp) | Err(_) => return false,
            }
        }
        true
    }

    fn handle(&mut self, connection: &mut Connection, mut packet: Packet) -> bool {
        let descriptor = packet.take_descriptor();
        let message = match packet.message() {
            Ok(message) => message,
            Err(error) => {
                match connection.joined {
                    None => drop(connection.link.send(&Message::Refused { status: error.code() }, None)),
                    Some((role, member)) => {
                        connection.left = true;
                        self.session.accuse(party(role, member), error);
                    }
                }
                return false;
            }
        };
        match (connection.joined, message) {
            (None, Message::Hello { role, instance, set }) => match self.admit(connection, role, instance, set) {
                Ok(()) => true,
                Err(status) => {
                    let _ = connection.link.send(&Message::Refused { status }, None);
                    false
                }
            },
            (None, _) => false,
            (Some((Role::Server, _)), Message::Area { index, len }) => {
                let answer = self.add_area(index, len, descriptor);
                connection.link.send(&Message::AreaAnswer { index, answer }, None).is_ok()
            }
            (Some((Role::Server, _)), Message::Configured(agreement)) => {
                let answer = self.session.agree(agreement).map_err(|error| error.code());
                wait::ring(self.session.control().set_doorbell());
                connection.link.send(&Message::ConfiguredAnswer(answer), None).is_ok()
            }
            (Some(_), Message::Leave) => {
                connection.left = true;
                true
            }
            (Some((role, member)), _) => {
                connection.left = true;
                self.session.accuse(party(role, member), "it sent a join message out of turn");
                false
            }
        }
    }

    /// Decides on a joiner and welcomes it.
    fn admit(&mut self, connection: &mut Connection, role: Role, instance: &str, set: &str) -> Result<(), VdError> {
        let place = self.session.place();
        if place.set != set || place.instance != instance {
            return Err(VdError::Invalid);
        }
        if !self.access.allows(&connection.peer) {
            return Err(VdError::Security);
        }
        if self.session.abort_reason().is_some() {
            return Err(VdError::Abort);
        }
        let member = match role {
            // A set serves one server, and one that was configured no other.
            Role::Server if self.members & 1 << SERVER_MEMBER != 0 => return Err(VdError::Invalid),
            Role::Server if self.session.agreement().is_some() => return Err(VdError::Invalid),
            Role::Server => SERVER_MEMBER,
            Role::Secondary if !self.admitting.load(Ordering::Acquire) || self.session.work_has_ended() => {
                return Err(VdError::Protocol);
            }
            Role::Secondary => match (self.members | 1 << SERVER_MEMBER).trailing_ones() {
                MAX_MEMBERS => return Err(VdError::Memory),
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
        let link = &connection.link;
        let mut sent = link.send(&welcome, Some(self.segment.fd()));
        for (index, area) in self.areas.iter().enumerate() {
            sent = sent.and_then(|()| {
                link.send(&Message::Area { index: index as u32, len: area.len() }, Some(area.fd()))
            });
        }
        sent.map_err(|error| error.code())?;
        self.members |= 1 << member;
        connection.joined = Some((role, member));
        Ok(())
    }

    /// Takes an area from the server and passes it on to the secondaries.
    fn add_area(&mut self, index: u32, len: u64, descriptor: Option<OwnedFd>) -> Result<(), VdError> {
        if index as usize != self.areas.len() || index >= MAX_AREAS {
            return Err(VdError::Invalid);
        }
        let segment = Segment::from_peer(descriptor.ok_or(VdError::Invalid)?, len).map_err(|_| VdError::Invalid)?;
        self.session.add_area(index, &segment).map_err(|error| error.code())?;
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
                } else if self.session.agreement().is_some() && !ended {
                    // It left a set that it had configured: no command will ever come.
                    self.session.abort_for(Party::Server, Cause::ClosedEarly);
                }
            }
            Role::Secondary => {
                self.session.control().void_leases(member);
                if !connection.left && !ended {
                    self.session.abort_for(party(role, member), Cause::Died);
                }
            }
        }
    }
}
