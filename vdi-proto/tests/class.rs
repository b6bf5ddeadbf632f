//! Buffer classes: every rule of a class with its error, and all addresses against a model that is a list of extents.

#![allow(clippy::unwrap_used)]

mod laws;

use laws::bytes::{class_law, offset_law};
use proptest::prelude::*;
use vdi_proto::index::{MAX_SLOTS, SlotIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::{Class, ClassError, ClassSpec, MAX_ALIGNMENT};

const SPEC: ClassSpec = ClassSpec { buffer_len: 65536, alignment: 4096, count: 10 };

#[test]
fn each_broken_rule_has_its_error() {
    let rows = [
        (ClassSpec { buffer_len: 0, ..SPEC }, 0, 0, ClassError::BufferLen, VdError::Invalid),
        (ClassSpec { count: 0, ..SPEC }, 0, 0, ClassError::Count, VdError::Invalid),
        (SPEC, 0, 4087, ClassError::Slots { first_slot: 4087, count: 10 }, VdError::Memory),
        (SPEC, 0, u32::MAX, ClassError::Slots { first_slot: u32::MAX, count: 10 }, VdError::Memory),
        (ClassSpec { count: 4097, ..SPEC }, 0, 0, ClassError::Slots { first_slot: 0, count: 4097 }, VdError::Memory),
        (
            ClassSpec { buffer_len: 1 << 30, alignment: 4096, count: 4 },
            0,
            0,
            ClassError::Area { area_len: 1 << 32 },
            VdError::Memory,
        ),
        (
            ClassSpec { buffer_len: u32::MAX, alignment: 1, count: 4096 },
            u32::MAX,
            0,
            ClassError::Area { area_len: (4096 * 2 * (u64::from(u32::MAX))).next_multiple_of(4096) },
            VdError::Memory,
        ),
    ];
    for (spec, prefix, first_slot, error, status) in rows {
        assert_eq!(spec.lay_out(prefix, first_slot), Err(error), "{spec:?}");
        assert_eq!(error.code(), status);
    }
    assert!(SPEC.lay_out(0, 4086).is_ok(), "the last slots");
    let largest = ClassSpec { buffer_len: u32::MAX - 4095, alignment: 1, count: 1 };
    assert_eq!(largest.lay_out(0, 0).map(|class| class.area_len()), Ok((1 << 32) - 4096), "the largest area");
}

/// Memory is mapped with an alignment of 64 KiB, so no greater alignment can be kept.
#[test]
fn alignment_above_64_kib_is_refused() {
    for bits in 0..32 {
        let spec = ClassSpec { alignment: 1 << bits, ..SPEC };
        assert_eq!(spec.lay_out(0, 0).is_ok(), bits <= 16, "{spec:?}");
    }
    for alignment in [0, 3, 4095, 65535, 65537, 3 << 16, 1 << 17, u32::MAX] {
        let error = ClassSpec { alignment, ..SPEC }.lay_out(0, 0).unwrap_err();
        assert_eq!(error, ClassError::Alignment { found: alignment });
        assert_eq!(error.code(), VdError::Invalid);
    }
    let class = ClassSpec { alignment: MAX_ALIGNMENT, ..SPEC }.lay_out(0, 0).unwrap();
    assert!(class.fits(65536, 65536));
    assert!(!class.fits(65536, 1 << 17));
}

/// Processes of different builds share these numbers.
#[test]
fn addresses_are_stable() {
    let rows = [
        (SPEC, 0, (0, 65536, 655_360)),
        (SPEC, 16, (4096, 69632, 696_320)),
        (ClassSpec { buffer_len: 1000, alignment: 512, count: 3 }, 600, (1024, 2048, 8192)),
        (ClassSpec { buffer_len: 1, alignment: 1, count: 1 }, 0, (0, 1, 4096)),
        (ClassSpec { buffer_len: 1, alignment: 65536, count: 2 }, 65536, (65536, 131_072, 200_704)),
    ];
    for (spec, prefix, expected) in rows {
        let class = spec.lay_out(prefix, 0).unwrap();
        assert_eq!((class.data_offset(), class.stride(), class.area_len()), expected, "{spec:?} {prefix}");
    }
}

#[test]
fn class_fits_smaller_requests() {
    let class = SPEC.lay_out(0, 0).unwrap();
    let rows = [
        (65536, 4096, true),
        (65536, 0, true),
        (1, 1, true),
        (512, 512, true),
        (0, 1, false),
        (65537, 1, false),
        (65536, 8192, false),
        (1, 3, false),
        (u32::MAX, 1 << 31, false),
    ];
    for (len, alignment, fits) in rows {
        assert_eq!(class.fits(len, alignment), fits, "{len} aligned to {alignment}");
    }
}

/// Lengths near powers of two and multiples of the alignment, and any others.
fn spec() -> impl Strategy<Value = ClassSpec> {
    let len = prop_oneof![
        4 => (0u32..40, 0u32..3).prop_map(|(blocks, odd)| (blocks * 512).saturating_sub(1) + odd),
        3 => (0u32..23, 0u32..3).prop_map(|(bits, odd)| (1u32 << bits).saturating_sub(1) + odd),
        1 => any::<u32>(),
    ];
    let alignment = prop_oneof![8 => (0u32..=16).prop_map(|bits| 1 << bits), 1 => (17u32..32).prop_map(|bits| 1 << bits), 1 => any::<u32>()];
    let count = prop_oneof![6 => 1u32..40, 2 => 0u32..=4096, 1 => any::<u32>()];
    (len, alignment, count).prop_map(|(buffer_len, alignment, count)| ClassSpec { buffer_len, alignment, count })
}

fn prefix() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 3 => 1u32..2000, 2 => 0u32..=65536, 1 => any::<u32>()]
}

/// The classes of one set, as a process makes them one after the other. Refused classes are skipped.
fn classes(specs: &[ClassSpec], prefix: u32) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for spec in specs {
        let first_slot = classes.last().map_or(0, |class| class.slots().end);
        classes.extend(class_law(spec, prefix, first_slot));
    }
    classes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// One class anywhere among the slots.
    #[test]
    fn class_equals_its_model(spec in spec(), prefix in prefix(), first_slot in prop_oneof![0u32..4200, any::<u32>()]) {
        class_law(&spec, prefix, first_slot);
    }

    /// Offsets near data starts, and any others.
    #[test]
    fn only_data_starts_have_a_slot(spec in spec(), prefix in prefix(), which in 0u64..5000, near in -2i64..3, any: u64) {
        if let Some(class) = class_law(&spec, prefix, 0) {
            let start = class.data_offset() + which * class.stride();
            offset_law(&class, start);
            offset_law(&class, start.saturating_add_signed(near));
            offset_law(&class, any);
            offset_law(&class, any % class.area_len());
        }
    }

    /// Many classes of one set: every slot is in exactly one of them, and there are at most 4096.
    #[test]
    fn classes_of_a_set_share_the_slots(specs in prop::collection::vec(spec(), 1..64), prefix in 0u32..=65536) {
        let classes = classes(&specs, prefix);
        let slots = classes.last().map_or(0, |class| class.slots().end);
        prop_assert!(slots <= MAX_SLOTS);
        for slot in SlotIndex::all(MAX_SLOTS) {
            let of: Vec<&Class> = classes.iter().filter(|class| class.data_start(slot).is_some()).collect();
            prop_assert_eq!(of.len(), usize::from(slot.get() < slots), "slot {}", slot);
            prop_assert!(of.iter().all(|class| class.slots().contains(&slot.get())));
        }
    }
}

/// The strategies above reach valid and invalid classes, and many classes in one set.
#[test]
fn strategies_reach_valid_and_invalid_classes() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut good, mut invalid, mut memory, mut most) = (0, 0, 0, 0);
    for _ in 0..1000 {
        let (spec, prefix) = (spec(), prefix()).new_tree(&mut runner).unwrap().current();
        match spec.lay_out(prefix, 0).map_err(|error| error.code()) {
            Ok(_) => good += 1,
            Err(VdError::Invalid) => invalid += 1,
            Err(_) => memory += 1,
        }
    }
    for _ in 0..20 {
        let specs = prop::collection::vec(spec(), 64).new_tree(&mut runner).unwrap().current();
        most = most.max(classes(&specs, 16).len());
    }
    assert!(good >= 500 && invalid >= 50 && memory >= 50 && most >= 20, "{good} {invalid} {memory} {most}");
}
