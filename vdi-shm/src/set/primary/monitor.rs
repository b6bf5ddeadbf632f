//! The primary's monitor thread: it admits joiners, passes buffer classes on, and turns the end of a link into its meaning.
//!
//! # Invariants
//!
//! 1. A joiner gets the control segment only after its credentials, the names that it sent, and the state of the set were
//!    checked. Before that it costs one of [`MAX_PENDING`] connections for at most [`HELLO_TIMEOUT`]. More joiners wait in
//!    the socket's queue. Joiners whose credentials will be refused have as many connections of their own; more of them are
//!    disconnected at once, so they delay nobody.
//! 2. The server's request for a class is answered when every secondary has mapped the class, or has gone. So a buffer is
//!    lent only when every present member has its memory mapped. A joiner gets all classes before it is admitted.
//! 3. A member whose link ends without Leave has died. Its leases are void. The set is aborted with its name, unless the
//!    server had closed every device, or every device that this member had opened. A member that leaves with a device open
//!    aborts the set as well.
//! 4. Every member is notified of an abort over its link, whatever the control segment says.
//! 5. The monitor never waits for a member. A member that does not take a message is dead.

mod admission;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use vdi_proto::abort::{Cause, Process};
use vdi_proto::index::{ClassIndex, MAX_MEMBERS, MemberIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{Message, Refusal};
use vdi_proto::wire::layout::ClientWord;

use admission::NotAdmitted;

use super::{HELLO_TIMEOUT, MAX_PENDING, SetSocket};
use crate::ipc::error::SystemError;
use crate::ipc::link::{Link, LinkError, Packet, Peer, Received, poll_readable};
use crate::ipc::runtime::Access;
use crate::ipc::segment::Segment;
use crate::set::abort::Abort;
use crate::set::control::ClientControl;
use crate::set::error::Violation;
use crate::set::session::{Session, process_of};

/// How many messages of one connection are handled before the others are served again.
const MESSAGES_A_TURN: u32 = 16;

/// Wakes the monitor thread.
#[derive(Debug)]
pub(super) struct Wake {
    event: OwnedFd,
    /// The set ends.
    stop: AtomicBool,
    /// Turns that were requested, and the last request that a whole turn came after.
    requested: AtomicU64,
    turned: AtomicU64,
}

impl Wake {
    pub(super) fn new() -> Result<Arc<Wake>, SystemError> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| SystemError::new("create an event descriptor", errno))?;
        let (requested, turned) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Arc::new(Wake { event, stop: AtomicBool::new(false), requested, turned }))
    }

    pub(super) fn wake(&self) {
        // Fails only when the counter is full, and then the thread wakes anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Requests a turn of the monitor thread; the number of the request.
    pub(super) fn request_turn(&self) -> u64 {
        let request = self.requested.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        request
    }

    /// Whether a whole turn came after the request.
    pub(super) fn has_turned(&self, request: u64) -> bool {
        self.turned.load(Ordering::Acquire) >= request
    }

    /// Resets the event. Returns whether the set ends.
    fn reset(&self) -> bool {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.stop.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Connection {
    link: Link,
    peer: Peer,
    since: Instant,
    /// Its number among the members, once it was admitted.
    member: Option<MemberIndex>,
    left: bool,
}

impl Connection {
    fn send(&self, message: &Message<'_>, segment: Option<&Segment>) -> Result<(), LinkError> {
        self.link.send(message.encode().bytes(), segment.map(Segment::fd))
    }

    fn is_secondary(&self) -> bool {
        self.member.is_some_and(|member| member != MemberIndex::SERVER)
    }
}

/// A class that not every secondary has mapped yet.
#[derive(Debug)]
struct PendingClass {
    index: ClassIndex,
    /// The secondaries that have not answered, one bit a member.
    waiting: u128,
}

pub(super) struct Monitor {
    session: Arc<Session>,
    access: Access,
    admitting: Arc<AtomicBool>,
    segment: Segment,
    socket: SetSocket,
    wake: Arc<Wake>,
    /// The members were notified of an abort.
    abort_sent: bool,
    classes: Vec<(ClassSpec, Segment)>,
    pending_class: Option<PendingClass>,
    connections: Vec<Connection>,
    /// No joiner is accepted before.
    accept_after: Option<Instant>,
    /// One bit a member.
    members: u128,
}

const _: () = assert!(MAX_MEMBERS == u128::BITS);

const fn bit(member: MemberIndex) -> u128 {
    1 << member.get()
}

impl Monitor {
    pub(super) fn new(
        session: Arc<Session>,
        access: Access,
        admitting: Arc<AtomicBool>,
        segment: Segment,
        socket: SetSocket,
        wake: Arc<Wake>,
    ) -> Monitor {
        Monitor {
            session,
            access,
            admitting,
            segment,
            socket,
            wake,
            abort_sent: false,
            classes: Vec::new(),
            pending_class: None,
            connections: Vec::new(),
            accept_after: None,
            members: bit(MemberIndex::PRIMARY),
        }
    }

    /// Serves the set until it ends.
    pub(super) fn run(&mut self) {
        loop {
            // A request during the wait gets the turn after it, which does not wait: a turn serves only what was requested before
            // it looked at the links.
            let requested = self.wake.requested.load(Ordering::Acquire);
            let at_once = !self.wake.has_turned(requested);
            let Some((woken, joiner, readable)) = self.wait(at_once) else {
                // The system cannot wait any more, so no death would be noticed.
                return self.session.abort(Cause::Died);
            };
            let stopped = woken && self.wake.reset();
            self.send_abort();
            if stopped {
                return;
            }
            let now = Instant::now();
            // The indices stay valid: a message of one connection may be passed on to any other.
            let over: Vec<bool> = (0..readable.len())
                .map(|index| {
                    let connection = &self.connections[index];
                    let silent = connection.member.is_none() && now >= connection.since + HELLO_TIMEOUT;
                    if readable[index] { !self.receive(index) } else { silent }
                })
                .collect();
            for index in (0..over.len()).rev().filter(|index| over[*index]) {
                let connection = self.connections.swap_remove(index);
                self.disconnected(&connection);
            }
            if joiner {
                self.accept();
            }
            if self.wake.turned.swap(requested, Ordering::AcqRel) != requested {
                self.session.control().set_event().notify();
            }
        }
    }

    /// Waits for something to do: whether the thread was woken, whether a joiner came, and which connections are readable. Only
    /// looks where `at_once` is set.
    fn wait(&mut self, at_once: bool) -> Option<(bool, bool, Vec<bool>)> {
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|until| now < *until);
        let deadlines = self.connections.iter().filter(|connection| connection.member.is_none());
        let deadlines = deadlines.map(|connection| connection.since + HELLO_TIMEOUT).chain(self.accept_after);
        let timeout =
            deadlines.map(|until| until.saturating_duration_since(now)).chain(at_once.then_some(Duration::ZERO)).min();
        let open = self.accept_after.is_none() && self.pending(true) < MAX_PENDING;
        let accept = if open { PollFlags::IN } else { PollFlags::empty() };
        let listener = self.socket.listener.as_ref()?;
        let mut descriptors = vec![PollFd::new(&self.wake.event, PollFlags::IN), PollFd::new(listener, accept)];
        descriptors.extend(self.connections.iter().map(|connection| PollFd::new(&connection.link, PollFlags::IN)));
        poll_readable(&mut descriptors, timeout).ok()?;
        let mut ready = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty());
        Some((ready.next()?, ready.next()?, ready.collect()))
    }

    /// Notifies every member of an abort that this process has seen, once.
    fn send_abort(&mut self) {
        if self.abort_sent {
            return;
        }
        let Some(abort) = self.session.aborted() else { return };
        self.abort_sent = true;
        for connection in self.connections.iter().filter(|connection| connection.member.is_some()) {
            if connection.send(&abort.message(), None).is_err() {
                connection.link.shut_down();
            }
        }
    }

    // ---- messages

    /// Handles what a connection sent. Returns false when the connection is over.
    fn receive(&mut self, index: usize) -> bool {
        for _ in 0..MESSAGES_A_TURN {
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
        let bytes = packet.bytes().to_vec();
        let message = Message::decode(&bytes);
        let Some(member) = self.connections[from].member else {
            let (role, answer) = match message {
                Ok(Message::Hello { role, instance, set }) => (Some(role), self.admit(from, role, instance, set)),
                Ok(_) => {
                    (None, Err(NotAdmitted::Refused(VdError::Unexpected, "its first message is no Hello".to_owned())))
                }
                Err(error) => (None, Err(NotAdmitted::Refused(error.code(), error.to_string()))),
            };
            let Err(refusal) = answer else { return true };
            self.refuse(from, role, &refusal);
            return false;
        };
        let server = member == MemberIndex::SERVER;
        match message {
            Ok(Message::Class { index, spec }) if server => self.request_class(from, &mut packet, index, spec),
            Ok(Message::ClassAnswer { index, answer: Ok(()) }) if !server => self.class_mapped(from, member, index),
            Ok(Message::Configured(config)) if server => {
                let configured = self.session.configure(config).map_err(|error| (error.code(), error.to_string()));
                let answer = configured.as_ref().map_err(|(status, why)| Refusal::new(*status, why)).copied();
                self.session.control().set_event().notify();
                self.connections[from].send(&Message::ConfiguredAnswer(answer), None).is_ok()
            }
            Ok(Message::Aborted { reason, code, text }) => {
                self.session.abort_with(Abort::new(reason, code, text));
                true
            }
            Ok(Message::Leave) => {
                self.connections[from].left = true;
                true
            }
            Ok(_) => self.violation(from, member, "it sent a join message out of turn"),
            Err(error) => self.violation(from, member, error),
        }
    }

    /// Aborts the set for a member that broke the protocol. The connection is over.
    fn violation(&mut self, from: usize, member: MemberIndex, evidence: impl core::fmt::Display) -> bool {
        self.connections[from].left = true;
        self.session.report_violation(process_of(member), evidence);
        false
    }

    // ---- classes

    /// The server requests a class: maps it, passes it on to the secondaries, and answers once they have mapped it.
    fn request_class(&mut self, from: usize, packet: &mut Packet, index: ClassIndex, spec: ClassSpec) -> bool {
        let answer = |answer| Message::ClassAnswer { index, answer };
        if self.pending_class.is_some() {
            let refusal = Refusal::new(VdError::Protocol, "the class before is not mapped everywhere");
            return self.connections[from].send(&answer(Err(refusal)), None).is_ok();
        }
        if let Err(error) = self.add_class(packet, index, spec) {
            // VD_E_INVALID for a class that breaks the protocol, VD_E_MEMORY for a lack of memory here. The set stays as it was.
            let status = if error.code() == VdError::Memory { VdError::Memory } else { VdError::Invalid };
            let why = error.to_string();
            return self.connections[from].send(&answer(Err(Refusal::new(status, &why))), None).is_ok();
        }
        let waiting = self.connections.iter().filter(|connection| connection.is_secondary());
        let waiting = waiting.filter_map(|connection| connection.member).fold(0, |bits, member| bits | bit(member));
        self.pending_class = Some(PendingClass { index, waiting });
        self.answer_class();
        true
    }

    fn add_class(&mut self, packet: &mut Packet, index: ClassIndex, spec: ClassSpec) -> Result<(), Violation> {
        let class = self.session.classes().lay_out(index, spec)?;
        let segment = packet.take_segment(class.area_len())?;
        self.session.add_class(index, spec, &segment)?;
        for connection in self.connections.iter().filter(|connection| connection.is_secondary()) {
            if connection.send(&Message::Class { index, spec }, Some(&segment)).is_err() {
                connection.link.shut_down();
            }
        }
        self.classes.push((spec, segment));
        Ok(())
    }

    /// A secondary has mapped the pending class.
    fn class_mapped(&mut self, from: usize, member: MemberIndex, index: ClassIndex) -> bool {
        match &mut self.pending_class {
            Some(pending) if pending.index == index && pending.waiting & bit(member) != 0 => {
                pending.waiting &= !bit(member);
                self.answer_class();
                true
            }
            _ => self.violation(from, member, "it answered a buffer class that it was not asked about"),
        }
    }

    /// Answers the server if every secondary has mapped the pending class.
    fn answer_class(&mut self) {
        let Some(PendingClass { index, waiting: 0 }) = self.pending_class else { return };
        self.pending_class = None;
        let server = self.connections.iter().find(|connection| connection.member == Some(MemberIndex::SERVER));
        if let Some(server) = server
            && server.send(&Message::ClassAnswer { index, answer: Ok(()) }, None).is_err()
        {
            server.link.shut_down();
        }
    }

    // ---- ends

    fn disconnected(&mut self, connection: &Connection) {
        let Some(member) = connection.member else { return };
        self.members &= !bit(member);
        if member == MemberIndex::SERVER {
            self.session.joiners_mut().server_left();
            // A pending class stays: the answers of the secondaries may be on their way, and are no violation.
            return self.server_gone(connection.left);
        }
        self.secondary_gone(member, connection.left);
        if let Some(pending) = &mut self.pending_class {
            pending.waiting &= !bit(member);
        }
        self.answer_class();
    }

    fn server_gone(&self, left: bool) {
        if self.session.work_has_ended() {
            return;
        }
        if !left {
            self.session.abort_for(Process::Server, Cause::Died);
        } else if self.session.negotiated().is_some() || !self.classes.is_empty() {
            // It left a set that it had begun to configure. No other server can go on with it.
            self.session.abort_for(Process::Server, Cause::ClosedEarly);
        }
    }

    fn secondary_gone(&self, member: MemberIndex, left: bool) {
        let (session, control) = (&self.session, self.session.control());
        let ended = session.work_has_ended();
        control.void_leases(member);
        let (mut open, mut closed, mut violation) = (0u32, 0u32, None);
        for device in control.devices() {
            match control.client_word(device) {
                Ok(ClientWord::Open { member: opener }) if opener == member => open += 1,
                Ok(ClientWord::Closed { member: opener }) if opener == member => closed += 1,
                Ok(_) => {}
                // The device's opener is not known any more.
                Err(error) => violation = Some(error),
            }
        }
        if ended {
            // No process returns VD_E_CLOSE for these any more.
            let gone = ClientControl::new(Arc::clone(control), member);
            control.devices().for_each(|device| gone.close_device(device));
            return;
        }
        match (left, open, closed) {
            (true, 1.., _) => session.abort_for(process_of(member), Cause::AbandonedDevice),
            // It left in order, or its work had ended: all devices that it had opened were closed.
            (true, 0, _) | (false, 0, 1..) => {
                if let Some(error) = violation {
                    session.report_violation(Process::Unknown, error);
                }
            }
            (false, ..) => session.abort_for(process_of(member), Cause::Died),
        }
    }
}
