//! Joiners: which connections are accepted, who is admitted, and who is told why not. Invariant 1 of the monitor thread is kept here.

use core::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use vdi_proto::index::{ClassIndex, MAX_MEMBERS, MemberIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};

use super::{Connection, MAX_PENDING, Monitor, bit};
use crate::ipc::link::Link;
use crate::set::abort::Abort;
use crate::set::joiners::{show_access, show_process};
use crate::set::name::show_instance;

/// How many joiners are accepted before the members are served again.
const ACCEPTED_A_TURN: u32 = 64;

/// How long no joiner is accepted after the system had no descriptor for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a joiner is not admitted.
pub(super) enum NotAdmitted {
    Refused(VdError, String),
    /// The set was aborted before it came.
    Aborted(Abort),
}

impl Monitor {
    /// How many connections have not sent Hello, of those that the access rule allows or does not allow.
    pub(super) fn pending(&self, allowed: bool) -> usize {
        let is_one = |other: &&Connection| other.member.is_none() && self.access.allows(&other.peer) == allowed;
        self.connections.iter().filter(is_one).count()
    }

    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTED_A_TURN {
            if self.pending(true) >= MAX_PENDING {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Some(listener) = &self.socket.listener else { return };
            let socket = match rustix::net::accept_with(listener, flags) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // No descriptor is left. The joiner stays in the queue.
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            };
            let link = Link::new(socket);
            let Ok(peer) = link.peer() else { continue };
            let allowed = self.access.allows(&peer);
            if allowed || self.pending(allowed) < MAX_PENDING {
                self.connections.push(Connection { link, peer, since: Instant::now(), member: None, left: false });
            }
        }
    }

    /// Admits a joiner, or says why not.
    pub(super) fn admit(&mut self, from: usize, role: JoinRole, instance: &str, set: &str) -> Result<(), NotAdmitted> {
        let refused = |status, why: String| Err(NotAdmitted::Refused(status, why));
        let (name, peer) = (self.session.name(), &self.connections[from].peer);
        // First: who is not allowed learns nothing about the set.
        if !self.access.allows(peer) {
            let why = format!(
                "the set admits {}, not uid {} with gid {}; set VDI_ALLOW_UID={} where the set is created, or run both as the \
                 same user",
                show_access(&self.access),
                peer.uid,
                peer.gid,
                peer.uid
            );
            return refused(VdError::Security, why);
        }
        if name.set() != set || name.instance() != instance {
            let found = format!("it asked for set {set:?} of {}", show_instance(instance));
            let why = format!("this is set {:?} of {}, {found}", name.set(), show_instance(name.instance()));
            return refused(VdError::Invalid, why);
        }
        if let Some(abort) = self.session.aborted() {
            return Err(NotAdmitted::Aborted(abort));
        }
        let member = match role {
            // A set has one server, and a configured set gets no other.
            JoinRole::Server if self.members & bit(MemberIndex::SERVER) != 0 => {
                let server = self.session.joiners().server().map(show_process).unwrap_or_default();
                return refused(VdError::Invalid, format!("the set has a server: {server}"));
            }
            JoinRole::Server if self.session.negotiated().is_some() => {
                return refused(VdError::Invalid, "a server has configured the set and left it".to_owned());
            }
            JoinRole::Server => MemberIndex::SERVER,
            JoinRole::Secondary if self.session.work_has_ended() => {
                return refused(VdError::Protocol, "the work of the set has ended".to_owned());
            }
            JoinRole::Secondary if !self.admitting.load(Ordering::Acquire) => {
                let why = "the primary has not got the configuration; join after its GetConfiguration";
                return refused(VdError::Protocol, why.to_owned());
            }
            JoinRole::Secondary => {
                let free = (self.members | bit(MemberIndex::SERVER)).trailing_ones();
                let full = || NotAdmitted::Refused(VdError::Memory, format!("the set has {MAX_MEMBERS} processes"));
                MemberIndex::new(free).ok_or_else(full)?
            }
        };
        let founding = self.session.founding();
        let welcome = Message::Welcome {
            member,
            secret: founding.secret,
            requested: founding.requested,
            negotiated: self.session.negotiated().copied(),
            classes: self.classes.len() as u32,
        };
        let connection = &self.connections[from];
        if member == MemberIndex::SERVER {
            // Before the server has an answer: it may act at once.
            self.session.joiners_mut().server_joined(connection.peer);
        }
        let mut sent = connection.send(&welcome, Some(&self.segment));
        for (index, (spec, area)) in ClassIndex::all(self.classes.len() as u32).zip(&self.classes) {
            let message = Message::Class { index, spec: *spec };
            sent = sent.and_then(|()| connection.send(&message, Some(area)));
        }
        sent.map_err(|error| {
            if member == MemberIndex::SERVER {
                self.session.joiners_mut().server_left();
            }
            NotAdmitted::Refused(VdError::Unexpected, format!("it took no message: {error}"))
        })?;
        self.members |= bit(member);
        self.connections[from].member = Some(member);
        Ok(())
    }

    /// Tells a joiner, and the set's creator, why it is not admitted.
    pub(super) fn refuse(&self, from: usize, role: Option<JoinRole>, refusal: &NotAdmitted) {
        let connection = &self.connections[from];
        let (status, why) = match refusal {
            NotAdmitted::Refused(status, why) => (*status, why.clone()),
            NotAdmitted::Aborted(abort) => (VdError::Abort, format!("the set was aborted before: {abort}")),
        };
        self.session.joiners_mut().was_refused(&connection.peer, role, status, &why);
        let message = match refusal {
            NotAdmitted::Refused(status, why) => Message::Refused(Refusal::new(*status, why)),
            NotAdmitted::Aborted(abort) => abort.message(),
        };
        // A joiner that is gone needs no answer.
        let _ = connection.send(&message, None);
    }
}
