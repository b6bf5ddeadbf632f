//! Members that request buffer classes which are none, and primaries that pass such classes on.

use std::os::fd::AsFd;

use rustix::fs::SealFlags;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::layout::control_len;
use vdi_shm::ipc::segment::{Segment, SegmentError};
use vdi_shm::set::secondary::Secondary;

use super::*;
use crate::common::descriptors::{SEALED, duplicate, no_segments};
use crate::common::{TEST_TIMEOUT, await_abort, lay_out, negotiated};

/// A spec whose area is exactly as long as the control segment of a set of one device.
pub(super) fn spec_of_control_segment() -> ClassSpec {
    let spec = ClassSpec { buffer_len: control_len(1) as u32 - 4096, alignment: 4096, count: 1 };
    assert_eq!(lay_out(spec, 0).area_len(), control_len(1));
    spec
}

/// Memory for a class.
pub(super) fn area(spec: ClassSpec) -> Segment {
    Segment::create("vdi-area", lay_out(spec, 0).area_len()).expect("memory")
}

/// Requests a class with this descriptor. Returns the primary's answer.
fn request(server: &RawMember, index: u32, spec: ClassSpec, descriptor: Option<&OwnedFd>) -> Result<(), VdError> {
    let index = class_index(index);
    let encoded = Message::Class { index, spec }.encode();
    server.link.send(encoded.bytes(), descriptor.map(AsFd::as_fd)).expect("a set that listens");
    let packet = receive(&server.link).expect("an answer");
    match message(&packet) {
        Message::ClassAnswer { index: answered, answer } if answered == index => {
            answer.map_err(|refusal| refusal.status)
        }
        other => panic!("{other:?}"),
    }
}

const REFUSED: Result<(), VdError> = Err(VdError::Invalid);

/// Two classes in one memory would give two owners the same bytes.
#[test]
fn the_same_memfd_is_refused_as_a_second_class() {
    let set = Set::new();
    let server = set.raw_server();
    let first = area(SPEC);
    assert_eq!(request(&server, 0, SPEC, Some(&duplicate(&first))), Ok(()));
    assert_eq!(request(&server, 1, SPEC, Some(&duplicate(&first))), REFUSED);
    assert_eq!(set.classes(), 1);
    // Nothing else is wrong with the request.
    assert_eq!(request(&server, 1, SPEC, Some(&duplicate(&area(SPEC)))), Ok(()));
    assert_eq!(request(&server, 2, SPEC, Some(&duplicate(&first))), REFUSED);
    assert_eq!(set.classes(), 2);
    assert_eq!(set.primary.session().abort_reason(), None);
}

/// A buffer there would have words and rings among its bytes.
#[test]
fn the_control_segment_is_refused_as_a_class() {
    let set = Set::new();
    let server = set.raw_server();
    let spec = spec_of_control_segment();
    assert_eq!(request(&server, 0, spec, Some(&duplicate(&server.control))), REFUSED);
    assert_eq!(set.classes(), 0);
    // Other memory of that length is none.
    assert_eq!(request(&server, 0, spec, Some(&duplicate(&area(spec)))), Ok(()));
    assert_eq!(set.classes(), 1);
    assert_eq!(set.primary.session().abort_reason(), None);
}

/// Without F_SEAL_SEAL a process can add F_SEAL_WRITE or F_SEAL_FUTURE_WRITE later.
#[test]
fn a_segment_without_f_seal_seal_is_refused() {
    let set = Set::new();
    let server = set.raw_server();
    let len = lay_out(SPEC, 0).area_len();
    let open = memfd(len, SealFlags::SHRINK | SealFlags::GROW);
    assert_eq!(request(&server, 0, SPEC, Some(&open)), REFUSED);
    rustix::fs::fcntl_add_seals(&open, SealFlags::SEAL).expect("seals");
    assert_eq!(request(&server, 0, SPEC, Some(&open)), Ok(()));
    assert_eq!(set.classes(), 1);
    let control = memfd(control_len(1), SealFlags::SHRINK | SealFlags::GROW);
    assert!(matches!(Segment::from_peer(control, control_len(1)), Err(SegmentError::NotSealed { .. })));
}

/// Memory of the length that a class would have if every spec described one.
fn area_without_rules(spec: ClassSpec) -> OwnedFd {
    let (prefix, alignment) = (u64::from(requested().prefix_zone_size), u64::from(spec.alignment.max(1)));
    let (len, count) = (u64::from(spec.buffer_len), u64::from(spec.count));
    let stride = (prefix + len).next_multiple_of(alignment);
    let end = prefix.next_multiple_of(alignment) + count.saturating_sub(1) * stride + len;
    memfd(end.next_multiple_of(4096), SEALED)
}

#[test]
fn specs_that_describe_no_class_are_refused() {
    let set = Set::new();
    let server = set.raw_server();
    let specs = [
        ClassSpec { buffer_len: 0, ..SPEC },
        ClassSpec { count: 0, ..SPEC },
        ClassSpec { alignment: 0, ..SPEC },
        ClassSpec { alignment: 3, ..SPEC },
        ClassSpec { alignment: 128 << 10, ..SPEC },
        ClassSpec { alignment: u32::MAX, ..SPEC },
        ClassSpec { count: 4097, ..SPEC },
        ClassSpec { count: u32::MAX, ..SPEC },
        // 4 GiB.
        ClassSpec { buffer_len: 1 << 20, alignment: 4096, count: 4096 },
        ClassSpec { buffer_len: u32::MAX, alignment: 65536, count: 1 },
    ];
    for spec in specs {
        assert_eq!(request(&server, 0, spec, Some(&area_without_rules(spec))), REFUSED, "{spec:?}");
        assert_eq!(set.classes(), 0, "{spec:?}");
    }
    assert_eq!(request(&server, 0, SPEC, Some(&area_without_rules(SPEC))), Ok(()));
    // Slots that are in use count.
    let rest = ClassSpec { buffer_len: 1, alignment: 1, count: 4096 - SPEC.count };
    let more = ClassSpec { count: rest.count + 1, ..rest };
    assert_eq!(request(&server, 1, more, Some(&area_without_rules(more))), REFUSED);
    assert_eq!(request(&server, 1, rest, Some(&duplicate(&area(rest)))), Ok(()));
    assert_eq!(set.classes(), 2);
    assert_eq!(set.primary.session().abort_reason(), None);
}

/// Classes of a configured set keep its alignment. One that does not leaves no trace.
#[test]
fn a_class_below_the_negotiated_alignment_is_refused() {
    let set = Set::new();
    let server = set.raw_server();
    server.send(&Message::Configured(negotiated()), None);
    server.expect(&Message::ConfiguredAnswer(Ok(())));
    let low = ClassSpec { alignment: negotiated().alignment / 2, ..SPEC };
    assert_eq!(request(&server, 0, low, Some(&duplicate(&area(low)))), REFUSED);
    assert_eq!(set.classes(), 0);
    assert_eq!(request(&server, 0, SPEC, Some(&duplicate(&area(SPEC)))), Ok(()));
    assert_eq!(set.classes(), 1);
}

#[test]
fn descriptors_that_are_no_segment() {
    let set = Set::new();
    let server = set.raw_server();
    assert_eq!(request(&server, 0, SPEC, None), REFUSED, "no descriptor");
    let len = lay_out(SPEC, 0).area_len();
    for (what, fd) in no_segments(len) {
        assert_eq!(request(&server, 0, SPEC, Some(&fd)), REFUSED, "{what}");
        assert!(matches!(Segment::from_peer(fd, len), Err(SegmentError::NotSealed { .. })), "{what}");
    }
    let good = memfd(len, SEALED);
    for index in [1, 63] {
        assert_eq!(request(&server, index, SPEC, Some(&good)), REFUSED, "class {index} before class 0");
    }
    assert_eq!(request(&server, 0, SPEC, Some(&good)), Ok(()));
    assert_eq!(request(&server, 0, SPEC, Some(&duplicate(&area(SPEC)))), REFUSED, "a second class 0");
    assert_eq!(set.classes(), 1);
    assert_eq!(set.primary.session().abort_reason(), None, "each was refused, and nothing else happened");
    // The descriptor of a message that has none is closed.
    server.link.send(Message::Leave.encode().bytes(), Some(good.as_fd())).expect("a set that listens");
    drop(server);
    // No other server can go on with this set.
    assert_eq!(set.aborted(), AbortReason { process: Process::Server, cause: Cause::ClosedEarly });
}

/// An access to a huge page faults where the system has no more of them.
#[test]
fn huge_pages_are_no_segment() {
    const LEN: u64 = 2 << 20;
    match huge_pages(LEN) {
        Ok(fd) => assert!(matches!(Segment::from_peer(fd, LEN), Err(SegmentError::NotSealed { .. }))),
        Err(error) => common::skip("huge_pages_are_no_segment", &error.to_string()),
    }
}

/// A request while another has no answer yet is refused, and changes nothing.
#[test]
fn two_requests_at_a_time() {
    let set = Set::new();
    let server = set.raw_server();
    server.send(&Message::Configured(negotiated()), None);
    server.expect(&Message::ConfiguredAnswer(Ok(())));
    set.primary.admit_secondaries();
    let secondary = RawMember::join(set.path(), JoinRole::Secondary);
    let class = |index| Message::Class { index: class_index(index), spec: SPEC };
    server.send(&class(0), Some(&area(SPEC)));
    secondary.expect(&class(0));
    assert_eq!(request(&server, 1, SPEC, Some(&duplicate(&area(SPEC)))), Err(VdError::Protocol));
    assert_eq!(set.classes(), 1);
    let answer = Message::ClassAnswer { index: class_index(0), answer: Ok(()) };
    secondary.send(&answer, None);
    server.expect(&answer);
}

/// A request times out, and the client accepts the class later. Server and client have the same classes afterwards, in the
/// same memory.
#[test]
fn a_class_that_is_accepted_after_the_time_out() {
    let set = Set::new();
    let server = set.join_server();
    server.configure(negotiated(), TEST_TIMEOUT).expect("a configuration");
    set.primary.admit_secondaries();
    let secondary = RawMember::join(set.path(), JoinRole::Secondary);
    let class = |index| Message::Class { index: class_index(index), spec: SPEC };
    let answer = |index| secondary.send(&Message::ClassAnswer { index: class_index(index), answer: Ok(()) }, None);
    for spec in [SPEC, ClassSpec { count: 1, ..SPEC }] {
        // Also the second one waits for the answer to the first.
        let error = server.add_class(spec, Duration::ZERO).expect_err("no time to answer");
        assert_eq!(error.code(), VdError::Timeout);
        assert_eq!(server.pool().available(1, 0), 0, "buffers that a secondary has not mapped");
    }
    std::thread::scope(|scope| {
        let request = scope.spawn(|| server.add_class(SPEC, TEST_TIMEOUT));
        for index in [0, 1] {
            secondary.expect(&class(index));
            answer(index);
        }
        request.join().expect("no panic").expect("a class");
    });
    assert_eq!((set.classes(), classes_of(server.session())), (2, 2));
    let count = 2 * SPEC.count;
    assert_eq!(server.pool().available(SPEC.buffer_len, 0), count);
    let buffers: Vec<_> = (0..count)
        .map(|byte| {
            let mut buffer = server.pool().allocate(SPEC.buffer_len, 0).expect("a free buffer");
            buffer.data_mut().fill(byte as u8);
            buffer
        })
        .collect();
    let client = set.primary.session().buffers().expect("a configured set");
    for (byte, buffer) in buffers.into_iter().enumerate() {
        let lent = buffer.lend();
        let command = client.take(lent.loan(), SPEC.buffer_len).expect("a loan");
        assert!(command.data().iter().all(|found| usize::from(*found) == byte), "it has other memory");
        drop(lent);
    }
}

/// A primary that passes the same memory on twice, or the control segment, to a secondary.
#[test]
fn a_secondary_refuses_the_same_memory() {
    for control in [false, true] {
        let (secondary, link) = primaries::with_primary(
            move |link| {
                primaries::expect_hello(&link, JoinRole::Secondary);
                let segment = primaries::send_welcome(&link, MemberIndex::new(2).expect("a member"), 1);
                let first = area(SPEC);
                let class = |index, spec| Message::Class { index: class_index(index), spec };
                common::send(&link, &class(0, SPEC), Some(&first));
                if control {
                    common::send(&link, &class(1, spec_of_control_segment()), Some(&segment));
                } else {
                    common::send(&link, &class(1, SPEC), Some(&first));
                }
                link
            },
            |dir| Secondary::join(&options(dir), INSTANCE, SET),
        );
        let secondary = secondary.expect("the first class is good");
        assert_eq!(await_abort(secondary.session()), violation_of(Process::Primary));
        assert_eq!(classes_of(secondary.session()), 1);
        let evidence = secondary.session().aborted().expect("an abort").text;
        let memory = if control { "the control segment" } else { "class 0's" };
        assert!(evidence.contains(memory), "{evidence}");
        drop(link);
    }
}
