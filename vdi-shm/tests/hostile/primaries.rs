//! Hostile primaries, towards joiners and members.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::SealFlags;
use vdi_proto::wire::checksum::Checksums;
use vdi_proto::wire::layout::control_len;
use vdi_shm::ipc::link::Received;
use vdi_shm::ipc::runtime::{Access, RuntimeDir};
use vdi_shm::ipc::segment::Segment;
use vdi_shm::set::control::Control;
use vdi_shm::set::error::{Fault, JoinError, RequestError};

use super::*;
use crate::common::descriptors::SEALED;
use crate::common::{TEST_TIMEOUT, await_abort, deadline, expect, lay_out, negotiated, send, socket_name};

/// Listens as a primary does. The first joiner's link goes to `primary`.
pub(super) fn with_primary<T: Send, M>(
    primary: impl FnOnce(Link) -> T + Send,
    join: impl FnOnce(&Path) -> Result<M, JoinError>,
) -> (Result<M, JoinError>, T) {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = RuntimeDir::open(&options(dir.path()), true).expect("a directory");
    let listener = runtime.listen(&socket_name(), &Access::default()).expect("a socket");
    std::thread::scope(|scope| {
        let primary = scope.spawn(|| {
            rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("a joiner");
            primary(Link::new(rustix::net::accept(&listener).expect("a joiner")))
        });
        let member = join(dir.path());
        (member, primary.join().expect("no panic"))
    })
}

fn join_server(dir: &Path) -> Result<Server, JoinError> {
    Server::join(&options(dir), INSTANCE, SET)
}

pub(super) fn expect_hello(link: &Link, role: JoinRole) {
    expect(link, &Message::Hello { role, instance: INSTANCE, set: SET });
}

fn welcome(member: MemberIndex, classes: u32) -> Message<'static> {
    let negotiated = (member != MemberIndex::SERVER).then(negotiated);
    Message::Welcome { member, secret: 1, requested: requested(), negotiated, classes }
}

/// The control segment of a set.
fn control_segment(device_count: u32) -> Segment {
    Control::create(device_count, Checksums::new(1)).expect("memory").1
}

/// Sends Welcome with a good control segment. Returns the segment.
pub(super) fn send_welcome(link: &Link, member: MemberIndex, classes: u32) -> Segment {
    let segment = control_segment(1);
    send(link, &welcome(member, classes), Some(&segment));
    segment
}

fn send_welcome_with(link: &Link, descriptor: &OwnedFd) {
    let encoded = welcome(MemberIndex::SERVER, 0).encode();
    link.send(encoded.bytes(), Some(descriptor.as_fd())).expect("a joiner");
}

type Play = fn(&Link);

#[test]
fn primaries_that_do_not_welcome() {
    const SERVER: MemberIndex = MemberIndex::SERVER;
    let cases: [(&str, Play, VdError, Fault); 13] = [
        // The set ended while the process joined: there is no such set.
        ("a hang-up", |_| {}, VdError::Invalid, Fault::Caller),
        ("another message", |link| send(link, &Message::Leave, None), VdError::Unexpected, Fault::Peer),
        (
            "a refusal",
            |link| send(link, &Message::Refused(Refusal::new(VdError::Memory, "")), None),
            VdError::Memory,
            Fault::Caller,
        ),
        ("no segment", |link| send(link, &welcome(SERVER, 0), None), VdError::Unexpected, Fault::Peer),
        (
            "an unsealed segment",
            |link| send_welcome_with(link, &memfd(control_len(1), SealFlags::empty())),
            VdError::Abort,
            Fault::Peer,
        ),
        (
            "a segment that takes more seals",
            |link| send_welcome_with(link, &memfd(control_len(1), SealFlags::SHRINK | SealFlags::GROW)),
            VdError::Abort,
            Fault::Peer,
        ),
        (
            "a segment of another set",
            |link| send(link, &welcome(SERVER, 0), Some(&control_segment(2))),
            VdError::Abort,
            Fault::Peer,
        ),
        (
            "a segment without a header",
            |link| send_welcome_with(link, &memfd(control_len(1), SEALED)),
            VdError::Unexpected,
            Fault::Peer,
        ),
        (
            "another role's index",
            |link| drop(send_welcome(link, MemberIndex::PRIMARY, 0)),
            VdError::Unexpected,
            Fault::Peer,
        ),
        (
            "more classes than a set has",
            |link| send(link, &welcome(SERVER, 65), Some(&control_segment(1))),
            VdError::Unexpected,
            Fault::Peer,
        ),
        ("classes that do not come", |link| drop(send_welcome(link, SERVER, 1)), VdError::Invalid, Fault::Caller),
        (
            "a class whose memory is not sealed",
            |link| {
                send_welcome(link, SERVER, 1);
                let encoded = Message::Class { index: class_index(0), spec: SPEC }.encode();
                let area = memfd(lay_out(SPEC, 0).area_len(), SealFlags::empty());
                link.send(encoded.bytes(), Some(area.as_fd())).expect("a joiner");
            },
            VdError::Abort,
            Fault::Peer,
        ),
        (
            "a class in the control segment",
            |link| {
                let segment = send_welcome(link, SERVER, 1);
                let spec = classes::spec_of_control_segment();
                send(link, &Message::Class { index: class_index(0), spec }, Some(&segment));
            },
            VdError::Invalid,
            Fault::Peer,
        ),
    ];
    for (what, play, status, fault) in cases {
        let play = |link: Link| {
            expect_hello(&link, JoinRole::Server);
            play(&link);
        };
        let (server, ()) = with_primary(play, join_server);
        let error = server.expect_err(what);
        assert_eq!((error.code(), error.fault()), (status, fault), "{what}: {error}");
    }
}

/// A joiner that was counted as a member and cannot join sends Leave, so that nobody takes it for dead.
#[test]
fn a_joiner_that_cannot_join_leaves_in_order() {
    let (server, last) = with_primary(
        |link| {
            expect_hello(&link, JoinRole::Server);
            send(&link, &welcome(MemberIndex::SERVER, 0), Some(&control_segment(2)));
            receive(&link).is_some_and(|packet| message(&packet) == Message::Leave)
        },
        join_server,
    );
    assert!(server.is_err());
    assert!(last, "it disconnected without Leave");
}

#[test]
fn a_silent_primary() {
    let (server, ()) = with_primary(
        |link| {
            expect_hello(&link, JoinRole::Server);
            // Until the joiner gives up: Leave, then its end.
            while !matches!(link.receive_until(deadline()), Ok(Received::HungUp)) {}
        },
        join_server,
    );
    let error = server.expect_err("no answer");
    assert!(matches!(error, JoinError::Timeout { .. }), "{error}");
}

fn class(index: u32) -> Message<'static> {
    Message::Class { index: class_index(index), spec: SPEC }
}

fn class_answer(index: u32, answer: Result<(), Refusal<'static>>) -> Message<'static> {
    Message::ClassAnswer { index: class_index(index), answer }
}

/// Refused requests change nothing, and may be made again.
#[test]
fn a_refused_class_is_no_class() {
    let primary = |link: Link| {
        expect_hello(&link, JoinRole::Server);
        let control = send_welcome(&link, MemberIndex::SERVER, 0);
        expect(&link, &class(0));
        send(&link, &class_answer(0, Err(Refusal::new(VdError::Memory, "no memory for it"))), None);
        expect(&link, &class(0));
        send(&link, &class_answer(0, Ok(())), None);
        expect(&link, &Message::Configured(negotiated()));
        send(&link, &Message::ConfiguredAnswer(Err(Refusal::new(VdError::NotSupported, "not like this"))), None);
        (link, control)
    };
    let (server, _link) = with_primary(primary, |dir| {
        let server = join_server(dir)?;
        let refused = server.add_class(SPEC, TEST_TIMEOUT).expect_err("refused");
        assert_eq!(refused.code(), VdError::Memory);
        assert!(refused.to_string().ends_with("refused a buffer class: VD_E_MEMORY: no memory for it"), "{refused}");
        assert_eq!((classes_of(server.session()), server.pool().available(1, 0)), (0, 0));
        server.add_class(SPEC, TEST_TIMEOUT).expect("a class");
        assert_eq!((classes_of(server.session()), server.pool().available(1, 0)), (1, SPEC.count));
        let refused = server.configure(negotiated(), TEST_TIMEOUT).expect_err("refused");
        assert_eq!(refused.code(), VdError::NotSupported);
        assert!(
            refused.to_string().ends_with("refused the configuration: VD_E_NOTSUPPORTED: not like this"),
            "{refused}"
        );
        assert_eq!(server.session().negotiated(), None);
        Ok(server)
    });
    drop(server);
}

/// The answer to a request that timed out is not taken for the answer to the next one.
#[test]
fn late_answers_are_taken_for_their_own_request() {
    let (proceed, timed_out) = std::sync::mpsc::channel::<()>();
    let primary = move |link: Link| {
        expect_hello(&link, JoinRole::Server);
        let control = send_welcome(&link, MemberIndex::SERVER, 0);
        expect(&link, &class(0));
        timed_out.recv().expect("the test");
        send(&link, &class_answer(0, Err(Refusal::new(VdError::Memory, "no memory for it"))), None);
        expect(&link, &Message::Configured(negotiated()));
        send(&link, &Message::ConfiguredAnswer(Ok(())), None);
        (link, control)
    };
    let (server, _link) = with_primary(primary, |dir| {
        let server = join_server(dir)?;
        let early = server.add_class(SPEC, Duration::ZERO).expect_err("no time to answer");
        assert!(matches!(early, RequestError::Timeout { .. }), "{early}");
        // As long as it has no answer no other request is made.
        let next = server.configure(negotiated(), Duration::ZERO).expect_err("an earlier request has no answer");
        assert!(matches!(next, RequestError::Timeout { .. }), "{next}");
        proceed.send(()).expect("the primary");
        server.configure(negotiated(), TEST_TIMEOUT).expect("the answer to this request, not to the one before");
        assert_eq!(classes_of(server.session()), 0);
        Ok(server)
    });
    assert_eq!(server.expect("a server").session().negotiated(), Some(&negotiated()));
}

/// Answers that nobody requested, or to another request, are violations.
#[test]
fn answers_that_were_not_requested() {
    for request in [false, true] {
        for answer in [class_answer(1, Ok(())), Message::ConfiguredAnswer(Ok(()))] {
            let primary = |link: Link| {
                expect_hello(&link, JoinRole::Server);
                let control = send_welcome(&link, MemberIndex::SERVER, 0);
                if request {
                    expect(&link, &class(0));
                }
                send(&link, &answer, None);
                (link, control)
            };
            let (server, _link) = with_primary(primary, |dir| {
                let server = join_server(dir)?;
                if request {
                    let error = server.add_class(SPEC, TEST_TIMEOUT).expect_err("another answer");
                    assert_eq!(error.code(), VdError::Abort);
                }
                Ok(server)
            });
            let session = Arc::clone(server.expect("a server").session());
            assert_eq!(await_abort(&session), violation_of(Process::Primary), "{answer:?}");
        }
    }
}
