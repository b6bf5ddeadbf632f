//! The end of a link: what was sent before it is received, and a dead set's socket is removed.

mod common;

use common::{SET, await_abort, message, names, options, receive, requested, send, socket_name};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::index::MemberIndex;
use vdi_proto::status::VdError;
use vdi_proto::wire::checksum::Checksums;
use vdi_proto::wire::join::Message;
use vdi_shm::ipc::link::{Link, Received};
use vdi_shm::ipc::runtime::{Access, RuntimeDir};
use vdi_shm::set::control::Control;
use vdi_shm::set::server::Server;

/// A peer that disconnects without having read everything resets the connection. What it sent before still counts.
#[test]
fn a_reset_does_not_lose_the_reason() {
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a pair");
    let (ours, theirs) = (Link::new(pair.0), Link::new(pair.1));
    send(&ours, &Message::Leave, None);
    send(&theirs, &Message::Refused { status: VdError::Memory }, None);
    drop(theirs);
    let packet = receive(&ours).expect("a reason");
    assert_eq!(message(&packet), Message::Refused { status: VdError::Memory });
    assert!(matches!(ours.receive(), Ok(Received::HungUp)));
    assert!(ours.send(Message::Leave.encode().bytes(), None).is_err());
}

/// The system closes a dead process's descriptors one after the other, so its link may be gone while its socket still
/// listens. A member that leaves meanwhile removes the socket all the same.
#[test]
fn a_socket_that_dies_after_its_links_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = RuntimeDir::open(&options(dir.path()), true).expect("a directory");
    let listener = runtime.listen(&socket_name(), &Access::default()).expect("a socket");
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| Server::join(&options(dir.path()), common::INSTANCE, SET));
        rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("a joiner");
        let link = Link::new(rustix::net::accept(&listener).expect("a joiner"));
        let (_control, segment) = Control::create(1, Checksums::new(1)).expect("memory");
        let welcome = Message::Welcome {
            member: MemberIndex::SERVER,
            secret: 1,
            requested: requested(),
            negotiated: None,
            classes: 0,
        };
        send(&link, &welcome, Some(&segment));
        let server = joining.join().expect("no panic").expect("a server");
        drop(link);
        assert_eq!(await_abort(server.session()), AbortReason { process: Process::Primary, cause: Cause::Died });
        // The server's first attempt to remove the socket connects to it.
        rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("an attempt");
        let leaving = scope.spawn(move || drop(server));
        drop(listener);
        leaving.join().expect("no panic");
    });
    assert_eq!(names(dir.path()), [""; 0], "the dead set's socket is left behind");
}
