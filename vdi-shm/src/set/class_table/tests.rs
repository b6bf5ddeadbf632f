//! Classes that are refused.

use vdi_proto::wire::checksum::Checksums;

use super::*;
use crate::set::control::Control;

const SPEC: ClassSpec = ClassSpec { buffer_len: 512, alignment: 512, count: 4 };

fn claim(control: &Segment) -> Claim {
    Claim::control(control.identity()).expect("no other set's")
}

fn index(number: u32) -> ClassIndex {
    ClassIndex::new(number).expect("a class")
}

/// Two classes over the same memory would give two owners to the same bytes.
#[test]
fn memory_that_is_in_use_is_refused() {
    let (_control, control) = Control::create(1, Checksums::new(1)).expect("memory");
    let table = ClassTable::new(0, claim(&control));
    let len = table.lay_out(index(0), SPEC).expect("a class").area_len();
    let area = Segment::create("vdi-area", len).expect("memory");
    table.push(table.map(index(0), SPEC, &area).expect("a class")).expect("the first class");
    // The same memfd by another descriptor.
    let again = rustix::io::fcntl_dupfd_cloexec(area.fd(), 0).expect("a descriptor");
    let again = Segment::from_peer(again, len).expect("a segment");
    let refused = table.map(index(1), SPEC, &again).expect_err("class 0 has it");
    assert!(matches!(&refused, AddClassError::SameMemory { other, .. } if other == "class 0's"), "{refused}");
    let refused = table.map(index(1), SPEC, &control).expect_err("the control segment");
    assert!(matches!(&refused, AddClassError::SameMemory { other, .. } if other == "the control segment"), "{refused}");
    assert_eq!((table.iter().count(), refused.code()), (1, VdError::Invalid));
}

#[test]
fn classes_arrive_in_order_and_with_their_length() {
    let (_control, control) = Control::create(1, Checksums::new(1)).expect("memory");
    let table = ClassTable::new(0, claim(&control));
    let len = table.lay_out(index(0), SPEC).expect("a class").area_len();
    let area = Segment::create("vdi-area", len).expect("memory");
    assert!(matches!(table.map(index(1), SPEC, &area), Err(AddClassError::Order { expected: 0, .. })));
    let short = Segment::create("vdi-area", len - 512).expect("memory");
    let refused = table.map(index(0), SPEC, &short).expect_err("too short");
    assert!(matches!(refused, AddClassError::Segment(SegmentError::NotSealed { .. })), "{refused}");
    let [first, second] = [&area, &area].map(|area| table.map(index(0), SPEC, area).expect("a class"));
    table.push(first).expect("the first class");
    assert!(matches!(table.push(second), Err(AddClassError::Order { expected: 1, .. })), "a second class 0");
    assert!(matches!(table.check_alignment(4096), Err(AddClassError::Alignment { found: 512, expected: 4096, .. })));
    assert!(table.check_alignment(512).is_ok());
}

/// A process that is in two sets hands out no bytes twice, although a peer passes the same memory to both.
#[test]
fn memory_of_another_set_is_refused() {
    let [(_first_control, first), (_second_control, second)] =
        [1, 2].map(|secret| Control::create(1, Checksums::new(secret)).expect("memory"));
    let [one, other] = [&first, &second].map(|control| ClassTable::new(0, claim(control)));
    let len = one.lay_out(index(0), SPEC).expect("a class").area_len();
    let area = Segment::create("vdi-area", len).expect("memory");
    let row = one.map(index(0), SPEC, &area).expect("a class");
    // Another member of the first set is in this process as well.
    drop(ClassTable::new(0, claim(&first)).map(index(0), SPEC, &area).expect("the same set"));
    let refused = other.map(index(0), SPEC, &area).expect_err("the first set has it");
    assert!(matches!(&refused, AddClassError::SameMemory { other, .. } if other == "another set's"), "{refused}");
    assert!(Claim::control(area.identity()).is_none(), "a control segment among the buffers of another set");
    let control = other.map(index(0), SPEC, &first).expect_err("the first set's control segment");
    assert_eq!(control.code(), VdError::Invalid);
    drop((row, one));
    drop(other.map(index(0), SPEC, &area).expect("no set has it any more"));
}
