//! Laws over plain bytes. Each function answers whether the input got past the first judgement, so that a seed which
//! does not can be told from one that does.

use std::string::ToString;

use vdi_proto::command::Loan;
use vdi_proto::config::{Author, ConfigError, ServerTerms, VdConfig};
use vdi_proto::features::Features;
use vdi_proto::handle::{BufferHandle, HandleCodec, SlotState, SlotWord};
use vdi_proto::join::{JoinError, MAX_MESSAGE, Message};
use vdi_proto::layout::{
    BufferRules, LayoutError, RawIdentity, RawPlace, control_len, device_offset, first_data_start, slot_offset, stride,
};
use vdi_proto::set::View;
use vdi_proto::status::VdError;

/// Reads little-endian numbers; zeros where the bytes run out.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let len = self.0.len().min(N);
        taken[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Decoding is total, and a message decodes only from exactly the bytes that it encodes to.
pub(crate) fn join_message(bytes: &[u8]) -> bool {
    match Message::decode(bytes) {
        Ok(message) => {
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(message.encode().bytes(), bytes);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            match error {
                JoinError::Truncated { found, expected } => assert!(found == bytes.len() && expected > found),
                JoinError::Oversized { found, expected } => assert!(found == bytes.len() && expected < found),
                _ => {}
            }
            let statuses = [VdError::NotSupported, VdError::Invalid, VdError::InstanceName, VdError::Unexpected];
            assert!(statuses.contains(&error.code()));
            false
        }
    }
}

/// What the layout's law takes.
#[derive(Clone, Copy)]
pub(crate) struct LayoutInput {
    pub(crate) identity: RawIdentity,
    pub(crate) mapped_len: u64,
    /// Whether the area exists, and its length.
    pub(crate) area_len: Option<u64>,
    pub(crate) place: RawPlace,
    pub(crate) rules: BufferRules,
}

impl LayoutInput {
    fn read(bytes: &[u8]) -> Self {
        let mut n = Numbers(bytes);
        let identity = RawIdentity { magic: n.u64(), version: n.u32(), device_count: n.u32(), len: n.u64() };
        let mapped_len = n.u64();
        let exists = n.u32() % 8 != 0;
        let area_len = exists.then_some(n.u64());
        let place = RawPlace { area: n.u32(), len: n.u32(), offset: n.u64() };
        let rules = BufferRules { alignment: n.u32(), prefix: n.u32() };
        LayoutInput { identity, mapped_len, area_len, place, rules }
    }

    pub(crate) fn write(&self) -> std::vec::Vec<u8> {
        let mut bytes = std::vec::Vec::new();
        bytes.extend(self.identity.magic.to_le_bytes());
        bytes.extend(self.identity.version.to_le_bytes());
        bytes.extend(self.identity.device_count.to_le_bytes());
        bytes.extend(self.identity.len.to_le_bytes());
        bytes.extend(self.mapped_len.to_le_bytes());
        bytes.extend(u32::from(self.area_len.is_some()).to_le_bytes());
        if let Some(area_len) = self.area_len {
            bytes.extend(area_len.to_le_bytes());
        }
        bytes.extend(self.place.area.to_le_bytes());
        bytes.extend(self.place.len.to_le_bytes());
        bytes.extend(self.place.offset.to_le_bytes());
        bytes.extend(self.rules.alignment.to_le_bytes());
        bytes.extend(self.rules.prefix.to_le_bytes());
        bytes
    }
}

/// Identities and places are judged as wider arithmetic judges them; buffers laid out by the stride lie apart.
pub(crate) fn layout(bytes: &[u8]) -> bool {
    let LayoutInput { identity, mapped_len, area_len, place, rules } = LayoutInput::read(bytes);
    let good = identity_law(&identity, mapped_len) & place_law(&place, area_len, &rules);
    stride_law(place.len, &rules, area_len.unwrap_or(1 << 20));
    good
}

pub(crate) fn identity_law(identity: &RawIdentity, mapped_len: u64) -> bool {
    let RawIdentity { magic, version, device_count, len } = *identity;
    let devices = u64::from(device_count);
    // Header, a block of 9088 bytes a device, 4096 slots of 64 bytes, in whole pages.
    let expected = (4096 + u128::from(devices) * 9088 + 4096 * 64).div_ceil(4096) * 4096;
    let good = magic == u64::from_le_bytes(*b"VDISET01")
        && version == 4
        && (1..=64).contains(&device_count)
        && u128::from(len) == expected
        && u128::from(mapped_len) == expected;
    match identity.check(mapped_len) {
        Ok(geometry) => {
            assert!(good, "{identity:?} in {mapped_len} bytes");
            assert_eq!((geometry.device_count(), u128::from(geometry.len())), (device_count, expected));
            assert!(!geometry.is_empty());
            // The last device's block ends where the slots begin, and the last slot within the segment.
            assert_eq!(device_offset(device_count), slot_offset(device_count, 0));
            assert!(slot_offset(device_count, 4096) <= control_len(device_count));
        }
        Err(error) => {
            assert!(!good, "{identity:?} in {mapped_len} bytes: {error}");
            let expected = match error {
                LayoutError::Version { .. } => VdError::NotSupported,
                _ => VdError::Unexpected,
            };
            assert_eq!(error.code(), expected);
        }
    }
    good
}

pub(crate) fn place_law(place: &RawPlace, area_len: Option<u64>, rules: &BufferRules) -> bool {
    let (offset, len) = (u128::from(place.offset), u128::from(place.len));
    let (alignment, prefix) = (u128::from(rules.alignment), u128::from(rules.prefix));
    let good = len > 0
        && area_len.is_some_and(|area_len| offset + len <= u128::from(area_len))
        && alignment > 0
        && offset % alignment == 0
        && offset >= prefix;
    match place.check(area_len, rules) {
        Ok(judged) => {
            assert!(good, "{place:?} in {area_len:?} under {rules:?}");
            assert_eq!(judged.to_raw(), *place);
            assert_eq!((judged.area(), judged.len(), judged.offset()), (place.area, place.len, place.offset));
            assert!(!judged.is_empty());
        }
        Err(error) => {
            assert!(!good, "{place:?} in {area_len:?} under {rules:?}: {error}");
            assert_eq!(error.code(), VdError::Abort);
        }
    }
    good
}

/// How many buffers were laid out.
pub(crate) fn stride_law(len: u32, rules: &BufferRules, area_len: u64) -> u32 {
    let (Some(stride), Some(first)) = (stride(len, rules), first_data_start(rules)) else {
        assert_eq!(rules.alignment, 0, "{rules:?}");
        return 0;
    };
    let prefix = u64::from(rules.prefix);
    // As tight as the alignment allows.
    assert!(stride - (u64::from(len) + prefix) < u64::from(rules.alignment));
    assert!(first - prefix < u64::from(rules.alignment));
    let (mut start, mut end_before, mut laid) = (first, 0, 0);
    while len > 0 && laid < 8 && start + u64::from(len) <= area_len {
        let place = RawPlace { area: 0, len, offset: start };
        assert!(place.check(Some(area_len), rules).is_ok(), "{place:?} under {rules:?}");
        assert!(start - prefix >= end_before, "{place:?} overlaps the buffer before it under {rules:?}");
        end_before = start + u64::from(len);
        start += stride;
        laid += 1;
    }
    laid
}

/// A codec's two directions undo each other, and MapBufferHandle takes exactly the handles of what is lent.
pub(crate) fn handle(bytes: &[u8]) -> bool {
    let mut n = Numbers(bytes);
    let codec = HandleCodec::new(n.u64(), n.u32() % 16);
    let (number, loan) = (BufferHandle::from_number(n.u32()), Loan { slot: n.u32(), generation: n.u32() });
    let (word, slots) = (n.u64(), n.u32());
    let view = [View::Open, View::Open, View::Open, View::Closed, View::Aborted][n.u32() as usize % 5];

    let bits = codec.slot_bits();
    assert!((6..=12).contains(&bits));
    let named = codec.decode(number);
    assert!(named.slot < 1 << bits && named.generation <= codec.generation_mask());
    assert_eq!(codec.encode(named), number);
    let cut = Loan { slot: loan.slot & ((1 << bits) - 1), generation: loan.generation & codec.generation_mask() };
    assert_eq!(codec.decode(codec.encode(loan)), cut);

    if let Some(slot_word) = SlotWord::from_word(word) {
        assert_eq!(slot_word.to_word(), word);
    }
    let mut good = false;
    for handle in [number, codec.encode(loan)] {
        // A table of `slots` slots, all with the same word.
        let mut looks = 0;
        let answer = codec.map(view, handle, |slot| {
            looks += 1;
            assert!(slot < 1 << bits);
            if slot < slots { SlotWord::from_word(word) } else { None }
        });
        let named = codec.decode(handle);
        let lent = match SlotWord::from_word(word) {
            Some(SlotWord { generation, state: SlotState::Lent }) if named.slot < slots => {
                Some(Loan { slot: named.slot, generation }).filter(|loan| codec.encode(*loan) == handle)
            }
            _ => None,
        };
        let expected = match view {
            View::Open => lent.ok_or(VdError::Invalid),
            View::Closed | View::Aborted => Err(VdError::Protocol),
        };
        assert_eq!(answer, expected);
        assert_eq!(looks, u32::from(view == View::Open), "the slot is looked at once");
        good |= answer.is_ok();
    }
    let held = codec.encode(loan);
    let expected = if view == View::Open { Ok(held) } else { Err(VdError::Protocol) };
    assert_eq!(HandleCodec::get(view, Some(held)), expected);
    assert_eq!(
        HandleCodec::get(view, None),
        Err(if view == View::Open { VdError::Invalid } else { VdError::Protocol })
    );
    good
}

const fn pow2(value: u32, least: u32, most: u32) -> bool {
    value.count_ones() == 1 && value >= least && value <= most
}

/// Whether a client may ask for this, written once more from the documents and decisions.
pub(crate) fn client_may_ask(asked: &VdConfig) -> bool {
    let bits = asked.features.bits();
    let kind = bits & !(0x80 | 0x400 | 0x800 | 0x2000);
    (1..=64).contains(&asked.device_count)
        && [0, 1, 0x200, 0x201, 0x173].contains(&kind)
        && asked.prefix_zone_size <= 65536
        && (asked.alignment == 0 || pow2(asked.alignment, 1, 65536))
        && (asked.soft_file_mark_block_size == 0
            || (bits & 0x100 != 0 && pow2(asked.soft_file_mark_block_size, 512, 65536)))
        && (asked.eom_warning_size == 0 || bits & 1 != 0)
}

/// Whether a server may bring this to BeginConfiguration, written once more.
pub(crate) fn server_may_offer(terms: &ServerTerms) -> bool {
    [0x1_0000, 0x2_0000, 0x3_0000].contains(&terms.features.bits())
        && pow2(terms.block_size, 512, 65536)
        && (terms.alignment == 0 || pow2(terms.alignment, terms.block_size, 65536))
        && (1..=64).any(|units| terms.max_transfer_size == units * 65536)
}

/// What is agreed follows from what was asked and offered, and a client takes exactly that.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let mut n = Numbers(bytes);
    let asked = VdConfig::from_words(core::array::from_fn(|_| n.u32()));
    let terms = ServerTerms {
        features: Features::from_bits(n.u32()),
        alignment: n.u32(),
        block_size: n.u32(),
        max_transfer_size: n.u32(),
    };
    let (field, change, area) = (n.u32() as usize % 11, n.u32(), n.u32());
    config_law(&asked, &terms, field, change, area)
}

/// As [`config`]; then one field of the answer is changed by `change`.
pub(crate) fn config_law(asked: &VdConfig, terms: &ServerTerms, field: usize, change: u32, area: u32) -> bool {
    assert_eq!(VdConfig::from_words(asked.to_words()), *asked);
    let may_ask = client_may_ask(asked);
    assert_eq!(asked.validate_client().is_ok(), may_ask, "{asked:?}");
    let agreed = match terms.negotiate(asked) {
        Ok(agreed) => agreed,
        Err(error) => {
            assert!(!(may_ask && server_may_offer(terms)), "{asked:?} {terms:?}: {error}");
            let client = matches!(error, ConfigError::Features(_) | ConfigError::Field { author: Author::Client, .. });
            assert_eq!(client, !may_ask, "the client's fields are judged first: {error}");
            assert_eq!(error.code(), if client { VdError::NotSupported } else { VdError::Invalid });
            return false;
        }
    };
    assert!(may_ask && server_may_offer(terms), "{asked:?} {terms:?}");
    let backup = terms.features.bits() & 0x1_0000 != 0;
    let complete = if asked.features.bits() & 0x2000 != 0 && backup { 0x4_0000 } else { 0 };
    let mut expected = asked.to_words();
    expected[1] |= terms.features.bits() | complete;
    expected[3] = terms.block_size.max(terms.alignment).max(asked.alignment);
    expected[7..].copy_from_slice(&[terms.block_size, 4, terms.max_transfer_size, 0]);
    assert_eq!(agreed.to_words(), expected);
    assert_eq!(agreed.features.device_kind(), asked.features.device_kind());

    // The buffer area's size is added later.
    let with_area = VdConfig { buffer_area_size: area, ..agreed };
    assert_eq!(with_area.validate_answer(asked), Ok(()));
    // A changed answer is refused, unless the change is one that the server could have chosen.
    let mut words = with_area.to_words();
    words[field] ^= change;
    let changed = VdConfig::from_words(words);
    let other_terms = ServerTerms {
        features: Features::from_bits(words[1] & 0x3_0000),
        alignment: words[3],
        block_size: words[7],
        max_transfer_size: words[9],
    };
    let possible = other_terms.negotiate(asked).is_ok_and(|again| {
        // VDF_CompleteEnabled may be left out by a server that will not send Complete.
        let complete = again.features & changed.features & Features::COMPLETE_ENABLED;
        let features = again.features.without(Features::COMPLETE_ENABLED) | complete;
        VdConfig { buffer_area_size: words[10], features, ..again } == changed
    });
    assert_eq!(changed.validate_answer(asked).is_ok(), possible, "{asked:?} {with_area:?} {changed:?}");
    true
}
