//! Peers pass other descriptors than the one of a segment: none is taken, and none is kept open.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use vdi_proto::index::MemberIndex;
use vdi_proto::status::VdError;
use vdi_proto::wire::checksum::Checksums;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_proto::wire::layout::control_len;
use vdi_shm::ipc::link::Link;
use vdi_shm::ipc::runtime::{Access, RuntimeDir};
use vdi_shm::set::control::Control;
use vdi_shm::set::primary::Primary;

use super::common::descriptors::{SEALED, huge_pages, memfd, no_segments};
use super::common::{
    Child, INSTANCE, SET, SPEC, class_index, connect, eventually, lay_out, message, options, receive, requested, send,
    skip, socket_name,
};
use super::directory;

/// Sends a message with any number of descriptors.
fn send_with(link: &Link, message: &Message<'_>, descriptors: &[OwnedFd]) {
    let encoded = message.encode();
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = [std::io::IoSlice::new(encoded.bytes())];
    rustix::net::sendmsg(link, &bytes, &mut ancillary, SendFlags::NOSIGNAL).expect("a peer");
}

/// What may come in place of the one descriptor of a segment: with what it is.
fn wrong(len: u64) -> Vec<(&'static str, Vec<OwnedFd>)> {
    let mut all: Vec<_> = no_segments(len).into_iter().map(|(what, fd)| (what, vec![fd])).collect();
    let good = |count: usize| (0..count).map(|_| memfd(len, SEALED)).collect::<Vec<_>>();
    all.push(("two good ones", good(2)));
    all.push(("more than there is room for", good(12)));
    all.push(("none", Vec::new()));
    match huge_pages(2 << 20) {
        Ok(fd) => all.push(("huge pages", vec![fd])),
        Err(error) => skip("huge pages as a segment", &error.to_string()),
    }
    all
}

fn class() -> Message<'static> {
    Message::Class { index: class_index(0), spec: SPEC }
}

/// The answer to [`class`].
fn answer(link: &Link) -> Result<(), VdError> {
    let packet = receive(link).expect("an answer");
    match message(&packet) {
        Message::ClassAnswer { answer, .. } => answer.map_err(|refusal| refusal.status),
        other => panic!("{other:?}"),
    }
}

/// A server passes them to the primary.
#[test]
fn a_primary_takes_no_wrong_descriptors() {
    let dir = directory(0o700);
    let mut primary = Child::new(dir.path());
    primary.ok("create nightly");
    let mut descriptors = || -> u32 {
        let resources = primary.ok("resources");
        resources.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    };
    let alone = descriptors();
    let link = connect(dir.path());
    // A Hello has no descriptor.
    let hello = Message::Hello { role: JoinRole::Server, instance: INSTANCE, set: SET };
    send_with(&link, &hello, &[memfd(1, SEALED)]);
    assert!(matches!(message(&receive(&link).expect("an answer")), Message::Welcome { .. }));
    // The connection stays.
    eventually("the Hello's descriptor to be closed", || descriptors() == alone + 1);
    let before = primary.ok("resources");
    let len = lay_out(SPEC, 0).area_len();
    for _ in 0..20 {
        for (what, descriptors) in wrong(len) {
            send_with(&link, &class(), &descriptors);
            assert_eq!(answer(&link), Err(VdError::Invalid), "{what}");
        }
    }
    assert_eq!(primary.ok("resources"), before, "descriptors or mappings that were refused are kept");
    send_with(&link, &class(), &[memfd(len, SEALED)]);
    assert_eq!(answer(&link), Ok(()), "the next good class");
    assert_eq!(primary.ok("classes"), "1");
}

/// A primary passes them to joiners, with the Welcome or as a class. They do not join.
#[test]
fn joiners_take_no_wrong_descriptors() {
    let dir = directory(0o700);
    let runtime = RuntimeDir::open(&options(dir.path()), true).expect("a directory");
    let listener = runtime.listen(&socket_name(), &Access::default()).expect("a socket");
    let mut joiner = Child::new(dir.path());
    let welcome = |classes| Message::Welcome {
        member: MemberIndex::SERVER,
        secret: 1,
        requested: requested(),
        negotiated: None,
        classes,
    };
    let mut join = |what: &str, primary: &dyn Fn(&Link)| {
        joiner.send("join server nightly");
        rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("a joiner");
        let link = Link::new(rustix::net::accept(&listener).expect("a joiner"));
        primary(&link);
        let answer = joiner.answer();
        let refused = ["Abort", "Unexpected"].iter().any(|code| answer.starts_with(&format!("err {code} ")));
        assert!(refused, "{what}: {answer}");
        joiner.ok("resources")
    };
    let before = join("a refusal", &|link| {
        send_with(link, &Message::Refused(Refusal::new(VdError::Abort, "")), &[memfd(1, SEALED)]);
    });
    for (what, descriptors) in wrong(control_len(1)) {
        let after = join(what, &|link| send_with(link, &welcome(0), &descriptors));
        assert_eq!(after, before, "{what} with the Welcome");
    }
    for (what, descriptors) in wrong(lay_out(SPEC, 0).area_len()) {
        let after = join(what, &|link| {
            let (_control, segment) = Control::create(1, Checksums::new(1)).expect("memory");
            send(link, &welcome(1), Some(&segment));
            send_with(link, &class(), &descriptors);
        });
        assert_eq!(after, before, "{what} as a class");
    }
    drop(listener);
    let primary = Primary::create(&options(dir.path()), INSTANCE, SET, &requested()).expect("a set");
    assert_eq!(joiner.ok("join server nightly"), "0", "the next good set");
    drop(primary);
}
