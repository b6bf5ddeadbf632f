//! What travels over the links of a set, and what their end means.

mod common;

use std::path::Path;

use common::{INSTANCE, RawMember, SET, await_abort, expect, names, negotiated, options, requested, send, socket_name};
use rustix::event::{PollFd, PollFlags, Timespec};
use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::index::MemberIndex;
use vdi_proto::wire::checksum::Checksums;
use vdi_proto::wire::join::{JoinRole, Message};
use vdi_shm::ipc::link::Link;
use vdi_shm::ipc::runtime::{Access, Listener, RuntimeDir};
use vdi_shm::ipc::segment::Segment;
use vdi_shm::set::control::Control;
use vdi_shm::set::primary::Primary;
use vdi_shm::set::server::Server;

fn reason(process: Process, cause: Cause) -> AbortReason {
    AbortReason { process, cause }
}

/// The message of an abort without a text.
fn aborted(reason: AbortReason) -> Message<'static> {
    Message::Aborted { reason, code: 0, text: "" }
}

/// Joins as a server; this process plays the primary.
fn join_server(dir: &Path, listener: &Listener) -> (Server, Link, Segment) {
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| Server::join(&options(dir), INSTANCE, SET));
        rustix::event::poll(&mut [PollFd::new(listener, PollFlags::IN)], None).expect("a joiner");
        let link = Link::new(rustix::net::accept(listener).expect("a joiner"));
        expect(&link, &Message::Hello { role: JoinRole::Server, instance: INSTANCE, set: SET });
        let (_control, segment) = Control::create(1, Checksums::new(1)).expect("memory");
        let welcome = Message::Welcome {
            member: MemberIndex::SERVER,
            secret: 1,
            requested: requested(),
            negotiated: None,
            classes: 0,
        };
        send(&link, &welcome, Some(&segment));
        (joining.join().expect("no panic").expect("a server"), link, segment)
    })
}

/// The system closes a dead process's descriptors one after the other, so its link may be gone while its socket still
/// listens. A member that leaves meanwhile removes the socket all the same.
#[test]
fn a_socket_that_dies_after_its_links_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = RuntimeDir::open(&options(dir.path()), true).expect("a directory");
    let listener = runtime.listen(&socket_name(), &Access::default()).expect("a socket");
    let (server, link, _segment) = join_server(dir.path(), &listener);
    drop(link);
    assert_eq!(await_abort(server.session()), reason(Process::Primary, Cause::Died));
    // An attempt to remove the socket connects to it.
    let attempt = || {
        let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ready = rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&timeout));
        assert_eq!(ready, Ok(1), "the dead set's socket is given up");
        drop(rustix::net::accept(&listener).expect("an attempt"));
    };
    attempt();
    let leaving = std::thread::spawn(move || drop(server));
    // Leaving does not end the attempts.
    (0..5).for_each(|_| attempt());
    drop(listener);
    leaving.join().expect("no panic");
    assert_eq!(names(dir.path()), [""; 0], "the dead set's socket is left behind");
}

/// A member reports an abort to the primary, and takes one from it, without the abort word of the control segment.
#[test]
fn a_member_reports_and_takes_aborts_over_its_link() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = RuntimeDir::open(&options(dir.path()), true).expect("a directory");
    let listener = runtime.listen(&socket_name(), &Access::default()).expect("a socket");
    let signalled = reason(Process::Server, Cause::Signalled);
    let (server, link, segment) = join_server(dir.path(), &listener);
    server.session().abort(Cause::Signalled);
    expect(&link, &aborted(signalled));
    // A stray write clears the word. A reason that was seen stays.
    let at = vdi_proto::wire::layout::ABORT_OFFSET;
    assert_eq!(rustix::io::pwrite(segment.fd(), &[0; 4], at), Ok(4));
    assert_eq!(server.session().control().abort_reason(), None);
    assert_eq!(server.session().abort_reason(), Some(signalled));
    drop((server, link));

    let (server, link, _segment) = join_server(dir.path(), &listener);
    let died = reason(Process::Secondary(common::member_index(7)), Cause::Died);
    send(&link, &aborted(died), None);
    assert_eq!(await_abort(server.session()), died);
    drop((server, link));
}

/// The primary passes an abort that one member reported on to all others.
#[test]
fn a_primary_passes_aborts_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let primary = Primary::create(&options(dir.path()), INSTANCE, SET, &requested()).expect("a set");
    let server = RawMember::join(dir.path(), JoinRole::Server);
    server.send(&Message::Configured(negotiated()), None);
    server.expect(&Message::ConfiguredAnswer(Ok(())));
    primary.admit_secondaries();
    let secondaries = [(); 2].map(|()| RawMember::join(dir.path(), JoinRole::Secondary));
    let signalled = reason(Process::Secondary(secondaries[0].index), Cause::Signalled);
    secondaries[0].send(&aborted(signalled), None);
    for member in [&server, &secondaries[0], &secondaries[1]] {
        member.expect(&aborted(signalled));
    }
    assert_eq!(primary.session().abort_reason(), Some(signalled));
}

/// The text that a member sends with an abort reaches the primary and the other members. Texts come from peers: control
/// characters are blanks, and what is too long is cut.
#[test]
fn a_primary_passes_the_text_of_an_abort_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let primary = Primary::create(&options(dir.path()), INSTANCE, SET, &requested()).expect("a set");
    let server = RawMember::join(dir.path(), JoinRole::Server);
    server.send(&Message::Configured(negotiated()), None);
    server.expect(&Message::ConfiguredAnswer(Ok(())));
    primary.admit_secondaries();
    let secondary = RawMember::join(dir.path(), JoinRole::Secondary);
    let gave_up = reason(Process::Server, Cause::GaveUp);
    let text = "could not read sales.mdf:\r\nI/O error \u{1b}[31m";
    server.send(&Message::Aborted { reason: gave_up, code: 1117, text }, None);
    let printable = "could not read sales.mdf:  I/O error  [31m";
    secondary.expect(&Message::Aborted { reason: gave_up, code: 1117, text: printable });
    let abort = primary.session().aborted().expect("an abort");
    assert_eq!((abort.code, &*abort.text), (1117, printable));
    assert_eq!(abort.to_string(), format!("the server gave up: {printable}"));
    // A joiner that comes later gets it, too.
    let joiner = common::connect(dir.path());
    send(&joiner, &Message::Hello { role: JoinRole::Secondary, instance: INSTANCE, set: SET }, None);
    expect(&joiner, &Message::Aborted { reason: gave_up, code: 1117, text: printable });
}
