//! Peers that do not keep to the protocol. The other side refuses with a status or aborts the set with a reason, and serves
//! the next peer.
//!
//! | module | what is hostile |
//! |---|---|
//! | [`joiners`] | joiners and members, towards the primary |
//! | [`classes`] | members that request buffer classes, and primaries that pass them on |
//! | [`primaries`] | primaries, towards joiners and members |

#[path = "../common/mod.rs"]
mod common;

mod classes;
mod joiners;
mod primaries;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use common::descriptors::{huge_pages, memfd};
use common::{
    INSTANCE, RawMember, SET, SPEC, class_index, classes_of, connect, message, names, options, receive, requested,
};
use rustix::net::{SendFlags, SocketAddrUnix};
use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::index::MemberIndex;
use vdi_proto::status::VdError;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_shm::ipc::link::Link;
use vdi_shm::set::primary::Primary;
use vdi_shm::set::server::Server;

const HELLO: Message<'static> = Message::Hello { role: JoinRole::Server, instance: INSTANCE, set: SET };

/// A set whose primary is this process.
struct Set {
    dir: tempfile::TempDir,
    primary: Primary,
}

impl Set {
    fn new() -> Set {
        let dir = tempfile::tempdir().expect("a directory");
        let primary = Primary::create(&options(dir.path()), INSTANCE, SET, &requested()).expect("a set");
        Set { dir, primary }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A socket that is connected to the set and can send any bytes.
    fn connect(&self) -> OwnedFd {
        let socket = common::seqpacket();
        let path = self.path().join(names(self.path()).first().expect("a socket"));
        let address = SocketAddrUnix::new(path).expect("a short path");
        rustix::net::connect(&socket, &address).expect("a set that listens");
        socket
    }

    /// A server that is driven by hand.
    fn raw_server(&self) -> RawMember {
        RawMember::join(self.path(), JoinRole::Server)
    }

    fn join_server(&self) -> Server {
        Server::join(&options(self.path()), INSTANCE, SET).expect("an honest server")
    }

    /// An honest server can join and leave.
    fn serves(&self) {
        let server = self.join_server();
        assert_eq!(self.primary.session().abort_reason(), None);
        drop(server);
    }

    /// Waits until the set is aborted.
    fn aborted(&self) -> AbortReason {
        common::await_abort(self.primary.session())
    }

    /// How many classes the primary has.
    fn classes(&self) -> usize {
        classes_of(self.primary.session())
    }
}

/// What a process that broke the protocol aborts a set with.
fn violation_of(process: Process) -> AbortReason {
    AbortReason { process, cause: Cause::BrokeProtocol }
}

/// The answer to a joiner.
#[derive(Debug, PartialEq)]
enum Answer {
    Welcome,
    Refused(VdError),
    Other,
}

/// The next answer; `None` for a hang-up.
fn next_answer(link: &Link) -> Option<Answer> {
    receive(link).map(|packet| match message(&packet) {
        Message::Welcome { .. } => Answer::Welcome,
        Message::Refused(refusal) => Answer::Refused(refusal.status),
        Message::Aborted { .. } => Answer::Refused(VdError::Abort),
        _ => Answer::Other,
    })
}
