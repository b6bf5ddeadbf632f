//! The allocator's laws, against sequences of calls.

use proptest::prelude::*;
use vdi_proto::handle::{SlotState, SlotWord};

use super::*;
use crate::segment::Segment;

const AREA_LEN: u64 = 256 * 1024;

struct Server {
    control: Arc<Control>,
    areas: Arc<Areas>,
    pool: Arc<BufferPool>,
}

fn mapping(len: u64) -> Arc<Mapping> {
    Arc::new(Segment::create("vdi-test-area", len, false).expect("memory").map().expect("a mapping"))
}

fn server(rules: BufferRules, area_lens: &[u64]) -> Server {
    let (control, _segment) = Control::create(1, vdi_proto::seal::Seals::new(7)).expect("memory");
    let control = Arc::new(control);
    let areas = Arc::new(Areas::default());
    let pool = BufferPool::new(Arc::clone(&control), Arc::clone(&areas), rules, 6);
    for (index, len) in area_lens.iter().enumerate() {
        assert!(areas.add(index as u32, mapping(*len)));
        pool.add_area(areas.get(index as u32).expect("just added"));
    }
    Server { control, areas, pool }
}

fn extent(buffer: &ServerBuffer, rules: &BufferRules) -> (u32, u64, u64) {
    let place = &buffer.place;
    (place.area(), place.offset() - u64::from(rules.prefix), place.offset() + u64::from(place.len()))
}

/// How many buffers can really be had; all go back.
fn count(pool: &Arc<BufferPool>, len: u32, alignment: u32) -> u32 {
    let mut all = Vec::new();
    loop {
        match pool.allocate(len, alignment) {
            Ok(buffer) => all.push(buffer),
            Err(error) => {
                assert_eq!(error.code(), vdi_proto::status::VdError::Memory);
                return all.len() as u32;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(u32, u32),
    Free(usize),
    Lend(usize),
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..2000, Just(u32::MAX), Just(4096), Just(65536), 1u32..300_000]
}

fn alignment() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0u32), 1 => Just(512), 1 => Just(4096), 1 => Just(65536), 1 => Just(768)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            5 => (size(), alignment()).prop_map(|(len, alignment)| Step::Allocate(len, alignment)),
            3 => any::<usize>().prop_map(Step::Free),
            2 => any::<usize>().prop_map(Step::Lend),
        ],
        1..150,
    )
}

fn rules() -> impl Strategy<Value = BufferRules> {
    (prop_oneof![Just(512u32), Just(4096)], prop_oneof![Just(0u32), Just(16), 0u32..70_000])
        .prop_map(|(alignment, prefix)| BufferRules { alignment, prefix })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn laws(rules in rules(), steps in steps(), last_len in size(), last_alignment in alignment()) {
        let server = server(rules, &[AREA_LEN, 4096, AREA_LEN / 2]);
        let pool = &server.pool;
        let fresh = pool.available(last_len, last_alignment);
        let mut live: Vec<ServerBuffer> = Vec::new();
        let mut lent = std::collections::HashMap::new();
        for step in steps {
            match step {
                Step::Allocate(len, alignment) => {
                    let available = pool.available(len, alignment);
                    match pool.allocate(len, alignment) {
                        Ok(buffer) => {
                            prop_assert!(available > 0);
                            prop_assert_eq!(pool.available(len, alignment), available - 1);
                            prop_assert_eq!(buffer.len(), len as usize);
                            let (area, begin, end) = extent(&buffer, &rules);
                            let mapping = server.areas.get(area).expect("an area of the set");
                            prop_assert!(end <= mapping.len() as u64);
                            let address = buffer.address().as_ptr() as usize;
                            let effective = rules.alignment.max(alignment.next_power_of_two());
                            prop_assert_eq!(address % rules.alignment.max(effective) as usize, 0);
                            prop_assert_eq!(address, mapping.address().as_ptr() as usize + buffer.place.offset() as usize);
                            for other in &live {
                                let (area2, begin2, end2) = extent(other, &rules);
                                prop_assert!(area != area2 || end <= begin2 || end2 <= begin, "buffers overlap");
                                prop_assert_ne!(buffer.slot, other.slot);
                            }
                            prop_assert_eq!(server.control.place(buffer.slot), Ok(buffer.place.to_raw()));
                            prop_assert!(pool.is_shared(buffer.address().as_ptr()));
                            live.push(buffer);
                        }
                        Err(error) => {
                            prop_assert_eq!(available, 0);
                            prop_assert_eq!(error.code(), vdi_proto::status::VdError::Memory);
                        }
                    }
                }
                Step::Free(which) if !live.is_empty() => drop(live.swap_remove(which % live.len())),
                Step::Lend(which) if !live.is_empty() => {
                    let which = which % live.len();
                    let loan = live[which].lend();
                    let last = lent.insert(loan.slot, loan.generation).unwrap_or(0);
                    prop_assert!(loan.generation > last, "a generation came again");
                    let word = SlotWord { generation: loan.generation, state: SlotState::Lent };
                    prop_assert_eq!(server.control.slot(loan.slot).and_then(crate::slots::Slot::look), Some(word));
                }
                Step::Free(_) | Step::Lend(_) => {}
            }
        }
        // What is said to be available can be had, also in the middle of things.
        prop_assert_eq!(pool.available(last_len, last_alignment), count(pool, last_len, last_alignment));
        // When all are back, the areas are whole again.
        live.clear();
        prop_assert_eq!(pool.available(last_len, last_alignment), fresh);
        prop_assert_eq!(count(pool, last_len, last_alignment), fresh);
    }

    /// An area made for so many buffers has room for them.
    #[test]
    fn area_len_is_enough(rules in rules(), len in 1u32..70_000, n in 1u32..=16) {
        let area = area_len(len, n, &rules).expect("no overflow");
        let server = server(rules, &[area]);
        prop_assert!(server.pool.available(len, 0) >= n);
    }
}

#[test]
fn slots_run_out_before_bytes_do_and_cost_none() {
    let rules = BufferRules { alignment: 512, prefix: 0 };
    let server = server(rules, &[1 << 20, 1 << 20]);
    let mut all: Vec<_> = (0..64).map(|_| server.pool.allocate(512, 0).expect("64 slots")).collect();
    assert_eq!(server.pool.available(512, 0), 0);
    for _ in 0..1000 {
        assert!(matches!(server.pool.allocate(4096, 0), Err(ShmError::Exhausted { what: "buffers", limit: 64 })));
    }
    all.pop();
    // Had the refusals cut anything, a buffer of a whole area would not fit any more.
    drop(server.pool.allocate(1 << 20, 0).expect("the second area is untouched"));
}

#[test]
fn a_foreign_mapping_is_no_area() {
    let rules = BufferRules { alignment: 512, prefix: 0 };
    let server = server(rules, &[4096]);
    // Another one, longer: places in it would lie outside the set's own area.
    server.pool.add_area(&mapping(1 << 20));
    assert_eq!(server.pool.available(512, 0), 8);
    // The same one again would be handed out twice.
    server.pool.add_area(server.areas.get(0).expect("the area"));
    assert_eq!(server.pool.available(512, 0), 8);
    assert_eq!(count(&server.pool, 512, 0), 8);
}

#[test]
fn one_book_for_the_same_bytes() {
    let rules = BufferRules { alignment: 512, prefix: 0 };
    let server = server(rules, &[4096]);
    let (control, areas) = (Arc::clone(&server.control), Arc::clone(&server.areas));
    let again = std::panic::catch_unwind(move || BufferPool::new(control, areas, rules, 6));
    assert!(again.is_err(), "two pools over the same areas");
    // A pool lives as long as its buffers do; after that, the areas are free for another.
    let buffer = server.pool.allocate(512, 0).expect("room");
    let Server { control, areas, pool } = server;
    drop(pool);
    let (c, a) = (Arc::clone(&control), Arc::clone(&areas));
    assert!(std::panic::catch_unwind(move || BufferPool::new(c, a, rules, 6)).is_err());
    drop(buffer);
    drop(BufferPool::new(control, areas, rules, 6));
}
