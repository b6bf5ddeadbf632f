//! Packets: what is sent is received, with its descriptor, also when the peer is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use vdi_shm::ipc::link::{Link, LinkError, MAX_PACKET, Packet, Received};
use vdi_shm::ipc::segment::{Segment, SegmentError};

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn sockets() -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair")
}

fn links() -> (Link, Link) {
    let (ours, theirs) = sockets();
    (Link::new(ours), Link::new(theirs))
}

fn packet(link: &Link) -> Packet {
    match link.receive_until(Instant::now() + TEST_TIMEOUT).expect("a packet") {
        Received::Packet(packet) => packet,
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_keep_their_boundaries() {
    let (ours, theirs) = links();
    assert!(matches!(ours.receive(), Ok(Received::Nothing)));
    let longest = [7; MAX_PACKET];
    for bytes in [&b"a"[..], b"bc", &longest] {
        theirs.send(bytes, None).expect("a peer");
    }
    for bytes in [&b"a"[..], b"bc", &longest] {
        let mut packet = packet(&ours);
        assert_eq!(packet.bytes(), bytes);
        assert!(packet.take_descriptor().is_none());
        assert!(matches!(packet.take_segment(1), Err(SegmentError::NoDescriptor { expected: 1 })));
    }
    assert!(matches!(ours.receive_until(Instant::now()), Err(LinkError::Timeout)));
    assert_eq!(ours.peer().expect("a peer").pid, rustix::process::getpid().as_raw_nonzero().get());
}

/// A packet without bytes would look like the end of the link, and one that is too long would be cut.
#[test]
fn packets_have_a_length() {
    let (ours, theirs) = sockets();
    let link = Link::new(ours);
    assert!(matches!(link.send(&[], None), Err(LinkError::System(_))));
    assert!(matches!(link.send(&[0; MAX_PACKET + 1], None), Err(LinkError::System(_))));
    rustix::net::send(&theirs, &[1; MAX_PACKET + 9], rustix::net::SendFlags::empty()).expect("a peer");
    assert_eq!(packet(&link).bytes(), [1; MAX_PACKET + 1], "longer than every packet");
    drop(theirs);
    assert!(matches!(link.receive(), Ok(Received::HungUp)));
}

#[test]
fn a_segment_travels_in_a_packet() {
    let (ours, theirs) = links();
    let segment = Segment::create("vdi-test", 5000).expect("memory");
    theirs.send(b"memory", Some(segment.fd())).expect("a peer");
    theirs.send(b"memory", Some(segment.fd())).expect("a peer");
    let received = packet(&ours).take_segment(5000).expect("a segment");
    assert_eq!(received.identity(), segment.identity());
    let refused = packet(&ours).take_segment(4999);
    assert!(matches!(refused, Err(SegmentError::NotSealed { expected: 4999, found: Some(5000) })), "{refused:?}");
}

/// Which one of several descriptors is meant cannot be known.
#[test]
fn several_descriptors_are_none() {
    let (ours, theirs) = sockets();
    let link = Link::new(ours);
    let (one, other) = std::io::pipe().expect("a pipe");
    let descriptors = [one.as_fd(), other.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
    ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = [std::io::IoSlice::new(b"two")];
    rustix::net::sendmsg(&theirs, &bytes, &mut ancillary, rustix::net::SendFlags::empty()).expect("a peer");
    let mut received = packet(&link);
    assert_eq!(received.bytes(), b"two");
    assert!(received.take_descriptor().is_none());
    assert!(matches!(received.take_segment(1), Err(SegmentError::NoDescriptor { .. })));
}

/// A peer that hangs up without having read everything resets the connection. The packets that it sent still arrive.
#[test]
fn a_reset_does_not_swallow_the_last_packet() {
    let (ours, theirs) = links();
    ours.send(b"unread", None).expect("a peer");
    theirs.send(b"the reason", None).expect("a peer");
    drop(theirs);
    assert_eq!(packet(&ours).bytes(), b"the reason");
    assert!(matches!(ours.receive(), Ok(Received::HungUp)));
    assert!(ours.send(b"late", None).is_err());
}

#[test]
fn shutting_down_ends_both_sides() {
    let (ours, theirs) = links();
    ours.shut_down();
    for link in [&ours, &theirs] {
        assert!(matches!(link.receive_until(Instant::now() + TEST_TIMEOUT), Ok(Received::HungUp)));
    }
    ours.shut_down();
}
