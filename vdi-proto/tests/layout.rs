//! The control segment: its identity, its offsets, and its words.

#![allow(clippy::unwrap_used)]

mod laws;

use laws::bytes::identity_law;
use proptest::prelude::*;
use vdi_proto::abort::MAX_REASON_BYTES;
use vdi_proto::handle::SlotState;
use vdi_proto::index::{DeviceIndex, Generation, MAX_DEVICES, MAX_MEMBERS, MAX_SLOTS, MemberIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::layout::{
    ABORT_OFFSET, ABORT_TEXT_OFFSET, AGENT_EVENTS_OFFSET, CACHE_LINE, COMPLETION_OFFSET, ClientWord,
    DEVICE_CLIENT_OFFSET, DEVICE_EVENTS_OFFSET, DEVICE_LEN, DEVICE_NAME_OFFSET, DEVICE_SERVER_OFFSET,
    DEVICES_OPENED_OFFSET, EVENT_COUNT_LEN, HEADER_LEN, IDENTITY_OFFSET, LayoutError, RING_ENTRIES_OFFSET,
    RING_HEAD_OFFSET, RING_LEN, RawIdentity, SET_EVENTS_OFFSET, SLOT_LEASES_OFFSET, SLOT_LEN, SLOT_WORD_OFFSET,
    SUBMISSION_OFFSET, ServerWord, VERSION, control_len, device_offset, slot_word, slots_offset,
};

#[test]
fn each_wrong_field_of_an_identity_is_named() {
    for devices in 1..=MAX_DEVICES {
        let good = RawIdentity::new(devices);
        let len = control_len(devices);
        assert_eq!(good.check(len).unwrap().device_count(), devices);
        let magic = good.magic ^ 1 << 63;
        let rows = [
            (RawIdentity { magic: 0, ..good }, len, LayoutError::Magic { found: 0 }),
            (RawIdentity { magic, ..good }, len, LayoutError::Magic { found: magic }),
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
        let wrong = RawIdentity { device_count: other, ..good };
        assert!(matches!(wrong.check(len), Err(LayoutError::Length { .. })) || control_len(other) == len);
    }
    assert_eq!(LayoutError::Version { found: 2 }.code(), VdError::NotSupported);
    assert_eq!(LayoutError::DeviceCount { found: 0 }.code(), VdError::Unexpected);
}

/// Parts of a segment do not overlap, and words that different roles write are in different cache lines.
#[test]
fn parts_are_in_different_cache_lines() {
    let header = [
        (IDENTITY_OFFSET, 24),
        (ABORT_OFFSET, 4),
        (SET_EVENTS_OFFSET, EVENT_COUNT_LEN),
        (AGENT_EVENTS_OFFSET, EVENT_COUNT_LEN),
        (DEVICES_OPENED_OFFSET, 4),
        (ABORT_TEXT_OFFSET, 16 + MAX_REASON_BYTES as u64),
    ];
    let device = [
        (DEVICE_SERVER_OFFSET, 8),
        (DEVICE_CLIENT_OFFSET, 8),
        (DEVICE_EVENTS_OFFSET, EVENT_COUNT_LEN),
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
        (RING_HEAD_OFFSET, 8, RING_ENTRIES_OFFSET),
        (SLOT_WORD_OFFSET, 8, SLOT_LEASES_OFFSET),
        (SLOT_LEASES_OFFSET, 16, SLOT_LEN),
    ];
    for (at, len, next) in ring_and_slot {
        assert!(at + len <= next && at.is_multiple_of(8));
    }
    for devices in 1..=MAX_DEVICES {
        let mut end = HEADER_LEN;
        for device in DeviceIndex::all(devices) {
            assert_eq!(device_offset(device), end);
            end += DEVICE_LEN;
        }
        assert_eq!(slots_offset(devices), end);
        let len = control_len(devices);
        assert!(end + u64::from(MAX_SLOTS) * SLOT_LEN <= len && len.is_multiple_of(4096));
    }
}

/// Processes of different builds share these numbers.
#[test]
fn offsets_are_stable() {
    assert_eq!((DEVICE_LEN, RING_LEN, SUBMISSION_OFFSET, COMPLETION_OFFSET), (9088, 4160, 768, 4928));
    assert_eq!((SLOT_LEN, VERSION, ABORT_TEXT_OFFSET), (32, 6, 320));
    assert_eq!((control_len(1), control_len(64)), (147_456, 716_800));
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
        assert!(expected.is_none_or(|known| known.to_word() == word));
    }
}

#[test]
fn words_of_the_client() {
    for word in (0..300).chain([1 << 31, 1 << 31 | 1, u32::MAX]) {
        let expected = match word {
            0 => Some(ClientWord::Unopened),
            1..=MAX_MEMBERS => Some(ClientWord::Open { member: MemberIndex::new(word - 1).unwrap() }),
            0x8000_0001..=0x8000_0080 => {
                Some(ClientWord::Closed { member: MemberIndex::new((word & 0x7fff_ffff) - 1).unwrap() })
            }
            _ => None,
        };
        assert_eq!(ClientWord::from_word(word), expected, "{word:#x}");
        assert!(expected.is_none_or(|known| known.to_word() == word));
    }
}

#[test]
fn words_of_slots() {
    let generation = Generation::from_bits(0xa_bcde);
    for (state, word) in [
        (SlotState::Free(Generation::default()), 0),
        (SlotState::Free(generation), 0xa_bcde_0000_0000),
        (SlotState::Lent(generation), 0xa_bcde_0000_0001),
        (SlotState::Reclaiming(generation), 0xa_bcde_0000_0002),
    ] {
        assert_eq!((slot_word::encode(state), slot_word::decode(word)), (word, Some(state)));
    }
    for word in [3, 4, 0xffff_ffff, 0x8000_0001, 0xf_ffff_0000_0003, 1 << 52 | 1, u64::MAX] {
        let generation_is_wide = word >> 52 != 0;
        let state_is_unknown = word as u32 > 2;
        assert_eq!(slot_word::decode(word).is_none(), generation_is_wide || state_is_unknown, "{word:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn identities_equal_their_model(
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
        // The identity of a new segment is valid.
        prop_assert!(!(1..=64).contains(&devices) || identity_law(&RawIdentity::new(devices), real));
    }

    #[test]
    fn slot_words_decode_to_themselves(word: u64) {
        if let Some(state) = slot_word::decode(word) {
            prop_assert_eq!(slot_word::encode(state), word);
        }
    }

    #[test]
    fn law_of_layouts(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        laws::bytes::layout(&bytes);
    }
}
