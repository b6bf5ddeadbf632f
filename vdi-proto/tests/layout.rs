//! The control segment: its identity, the places of buffers, and the way in which buffers are laid out.

#![allow(clippy::unwrap_used)]

mod laws;

use laws::bytes::{identity_law, place_law, stride_law};
use proptest::prelude::*;
use vdi_proto::config::{MAX_DEVICES, ServerTerms, VdConfig};
use vdi_proto::layout::{
    ABORT_OFFSET, AGENT_DOORBELL_OFFSET, BufferRules, CACHE_LINE, COMPLETION_OFFSET, COUNTS_OFFSET,
    DEVICE_CLIENT_OFFSET, DEVICE_DOORBELL_OFFSET, DEVICE_LEN, DEVICE_NAME_OFFSET, DEVICE_SERVER_OFFSET, HEADER_LEN,
    IDENTITY_OFFSET, LayoutError, MAX_SLOTS, RING_ENTRIES_OFFSET, RING_HEAD_OFFSET, RING_LEN, RawIdentity, RawPlace,
    SET_DOORBELL_OFFSET, SLOT_LEASES_OFFSET, SLOT_PLACE_OFFSET, SLOT_WORD_OFFSET, SUBMISSION_OFFSET, ServerWord,
    VERSION, control_len, device_offset, first_data_start, slot_offset, slots_offset, stride,
};
use vdi_proto::status::VdError;

#[test]
fn each_wrong_field_of_an_identity_is_named() {
    for devices in 1..=MAX_DEVICES {
        let good = RawIdentity::new(devices);
        let len = control_len(devices);
        assert_eq!(good.check(len).unwrap().device_count(), devices);
        let rows = [
            (RawIdentity { magic: 0, ..good }, len, LayoutError::Magic { found: 0 }),
            (
                RawIdentity { magic: good.magic ^ 1 << 63, ..good },
                len,
                LayoutError::Magic { found: good.magic ^ 1 << 63 },
            ),
            (RawIdentity { version: 0, ..good }, len, LayoutError::Version { found: 0 }),
            (RawIdentity { version: VERSION - 1, ..good }, len, LayoutError::Version { found: VERSION - 1 }),
            (RawIdentity { version: VERSION + 1, ..good }, len, LayoutError::Version { found: VERSION + 1 }),
            (RawIdentity { device_count: 0, ..good }, len, LayoutError::DeviceCount { found: 0 }),
            (RawIdentity { device_count: 65, ..good }, len, LayoutError::DeviceCount { found: 65 }),
            (RawIdentity { device_count: u32::MAX, ..good }, len, LayoutError::DeviceCount { found: u32::MAX }),
            (RawIdentity { len: len - 1, ..good }, len, LayoutError::Length { found: len - 1, expected: len }),
            (RawIdentity { len: u64::MAX, ..good }, len, LayoutError::Length { found: u64::MAX, expected: len }),
            (good, len - 1, LayoutError::Length { found: len - 1, expected: len }),
            (good, len + 4096, LayoutError::Length { found: len + 4096, expected: len }),
            (good, 0, LayoutError::Length { found: 0, expected: len }),
        ];
        for (identity, mapped, error) in rows {
            assert_eq!(identity.check(mapped), Err(error), "{identity:?} in {mapped} bytes");
        }
        let other = devices % MAX_DEVICES + 1;
        let lying = RawIdentity { device_count: other, ..good };
        assert!(matches!(lying.check(len), Err(LayoutError::Length { .. })) || control_len(other) == len);
    }
    assert_eq!(LayoutError::Version { found: 2 }.code(), VdError::NotSupported);
    assert_eq!(LayoutError::DeviceCount { found: 0 }.code(), VdError::Unexpected);
}

/// No two parts of a segment overlap, and what different parties write lies in different cache lines.
#[test]
fn the_parts_lie_apart() {
    let header = [
        (IDENTITY_OFFSET, 24),
        (ABORT_OFFSET, 4),
        (SET_DOORBELL_OFFSET, 4),
        (AGENT_DOORBELL_OFFSET, 4),
        (COUNTS_OFFSET, 8),
    ];
    let device = [
        (DEVICE_SERVER_OFFSET, 8),
        (DEVICE_CLIENT_OFFSET, 8),
        (DEVICE_DOORBELL_OFFSET, 4),
        (DEVICE_NAME_OFFSET, 8 + 512),
        (SUBMISSION_OFFSET, RING_LEN),
        (COMPLETION_OFFSET, RING_LEN),
    ];
    for (parts, len) in [(header.as_slice(), HEADER_LEN), (&device, DEVICE_LEN)] {
        let mut end = 0;
        for (at, part) in parts {
            assert!(at.is_multiple_of(CACHE_LINE) && *at >= end, "{at}");
            end = (at + part).next_multiple_of(CACHE_LINE);
        }
        assert!(end <= len);
    }
    let ring_and_slot = [
        (RING_HEAD_OFFSET, 4, RING_ENTRIES_OFFSET),
        (SLOT_WORD_OFFSET, 8, SLOT_LEASES_OFFSET),
        (SLOT_LEASES_OFFSET, 16, SLOT_PLACE_OFFSET),
    ];
    for (at, len, next) in ring_and_slot {
        assert!(at + len <= next && at.is_multiple_of(8));
    }
    for devices in 1..=MAX_DEVICES {
        let mut end = HEADER_LEN;
        for number in 0..devices {
            assert_eq!(device_offset(number), end);
            end += DEVICE_LEN;
        }
        assert_eq!((slots_offset(devices), slot_offset(devices, 0)), (end, end));
        let len = control_len(devices);
        assert!(slot_offset(devices, MAX_SLOTS) <= len && len.is_multiple_of(4096));
    }
    // The numbers themselves: processes of different builds share them.
    assert_eq!((DEVICE_LEN, RING_LEN, SUBMISSION_OFFSET, COMPLETION_OFFSET), (9088, 4160, 768, 4928));
    assert_eq!((control_len(1), control_len(64)), (278_528, 847_872));
}

#[test]
fn words_of_the_server() {
    for (word, expected) in [
        (0, Some(ServerWord::Unopened)),
        (1, Some(ServerWord::Open)),
        (2, Some(ServerWord::Closed)),
        (3, None),
        (u32::MAX, None),
    ] {
        assert_eq!(ServerWord::from_word(word), expected);
        assert!(expected.is_none_or(|known| known as u32 == word));
    }
}

#[test]
fn a_bad_place_is_shown_in_full() {
    let rules = BufferRules { alignment: 4096, prefix: 16 };
    let place = RawPlace { area: 3, len: 65536, offset: 4096 };
    assert!(place.check(Some(4096 + 65536), &rules).is_ok());
    for (wrong, area_len) in [
        (place, Some(4096 + 65535)),
        (place, None),
        (RawPlace { offset: 4095, ..place }, Some(1 << 20)),
        (RawPlace { offset: 0, ..place }, Some(1 << 20)),
        (RawPlace { len: 0, ..place }, Some(1 << 20)),
        (RawPlace { offset: u64::MAX - 4095, ..place }, Some(u64::MAX)),
    ] {
        let RawPlace { area, len, offset } = wrong;
        let area_len_shown = area_len.unwrap_or(0);
        let error = LayoutError::Place { area, area_len: area_len_shown, offset, len, alignment: 4096, prefix: 16 };
        assert_eq!(wrong.check(area_len, &rules), Err(error));
        assert_eq!(error.code(), VdError::Abort);
    }
    // Rules that no configuration has are refused, not divided by.
    assert!(place.check(Some(1 << 20), &BufferRules { alignment: 0, prefix: 0 }).is_err());
    assert_eq!(stride(512, &BufferRules { alignment: 0, prefix: 0 }), None);
    assert_eq!(first_data_start(&BufferRules { alignment: 0, prefix: 0 }), None);
}

#[test]
fn rules_come_from_the_agreement() {
    let asked = VdConfig { prefix_zone_size: 100, alignment: 1024, ..VdConfig::default() };
    let agreed = ServerTerms { block_size: 4096, ..ServerTerms::default() }.negotiate(&asked).unwrap();
    assert_eq!(BufferRules::new(&agreed), BufferRules { alignment: 4096, prefix: 100 });
}

/// Numbers near each other, so that all sides of every comparison are met.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0u64..40, 0u64..3).prop_map(|(blocks, odd)| (blocks * 512).saturating_sub(1) + odd),
        1 => any::<u64>(),
        1 => (0u64..70_000).prop_map(|less| u64::MAX - less),
    ]
}

fn rules() -> impl Strategy<Value = BufferRules> {
    let alignment = prop_oneof![4 => (9u32..=16).prop_map(|bits| 1 << bits), 1 => any::<u32>(), 1 => 0u32..3];
    let prefix = prop_oneof![2 => 0u32..2000, 1 => 0u32..=65536, 1 => any::<u32>()];
    (alignment, prefix).prop_map(|(alignment, prefix)| BufferRules { alignment, prefix })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn places_are_judged_as_wider_arithmetic_does(
        area: u32,
        len in prop_oneof![3 => 0u32..5000, 1 => any::<u32>()],
        offset in offset(),
        area_len in prop::option::weighted(0.9, offset()),
        rules in rules(),
    ) {
        place_law(&RawPlace { area, len, offset }, area_len, &rules);
        // An area that ends exactly with the buffer, and one that is a byte too short.
        if let Some(end) = offset.checked_add(u64::from(len)) {
            place_law(&RawPlace { area, len, offset }, Some(end), &rules);
            place_law(&RawPlace { area, len, offset }, end.checked_sub(1), &rules);
        }
    }

    #[test]
    fn identities_are_judged_as_wider_arithmetic_does(
        devices in prop_oneof![3 => 0u32..70, 1 => any::<u32>()],
        version in VERSION - 2..=VERSION + 1,
        lens: (bool, bool),
        len: u64,
        magic: bool,
    ) {
        let real = if devices <= 64 { control_len(devices) } else { len };
        let magic = if magic { RawIdentity::new(1).magic } else { len };
        let identity =
            RawIdentity { magic, version, device_count: devices, len: if lens.0 { real } else { len } };
        identity_law(&identity, if lens.1 { real } else { len });
        // Whatever else was drawn, the identity that this side writes is taken.
        prop_assert!(!(1..=64).contains(&devices) || identity_law(&RawIdentity::new(devices), real));
    }

    #[test]
    fn buffers_laid_out_lie_apart(len in 1u32..=4 << 20, rules in rules(), buffers in 1u64..6) {
        let area = stride(len, &rules).map_or(1 << 20, |stride| stride * (buffers + 1));
        let laid = stride_law(len, &rules, area);
        prop_assert!(rules.alignment == 0 || u64::from(laid) >= buffers.min(8), "{laid} of {buffers}");
    }

    #[test]
    fn the_law_of_layouts(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        laws::bytes::layout(&bytes);
    }
}
