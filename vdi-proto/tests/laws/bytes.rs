//! Laws over plain bytes. Each function returns whether the input was valid, so that a test can check its seeds.

use std::string::ToString;
use std::vec::Vec;

use vdi_proto::command::Loan;
use vdi_proto::config::{Author, ConfigError, ServerTerms, VdConfig};
use vdi_proto::features::Features;
use vdi_proto::handle::{self, BufferHandle, HandleCodec, SlotState};
use vdi_proto::index::{Generation, SlotIndex};
use vdi_proto::set::SetPhase;
use vdi_proto::status::VdError;
use vdi_proto::wire::class::{Class, ClassError, ClassSpec};
use vdi_proto::wire::join::{JoinError, MAX_MESSAGE, Message};
use vdi_proto::wire::layout::{LayoutError, RawIdentity, control_len, slot_word, slots_offset};

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

/// The input of the law of layouts.
#[derive(Clone, Copy)]
pub(crate) struct LayoutInput {
    pub(crate) identity: RawIdentity,
    pub(crate) mapped_len: u64,
    pub(crate) spec: ClassSpec,
    pub(crate) prefix: u32,
    pub(crate) first_slot: u32,
    pub(crate) offset: u64,
}

impl LayoutInput {
    fn read(bytes: &[u8]) -> Self {
        let mut n = Numbers(bytes);
        LayoutInput {
            identity: RawIdentity { magic: n.u64(), version: n.u32(), device_count: n.u32(), len: n.u64() },
            mapped_len: n.u64(),
            spec: ClassSpec { buffer_len: n.u32(), alignment: n.u32(), count: n.u32() },
            prefix: n.u32(),
            first_slot: n.u32(),
            offset: n.u64(),
        }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let LayoutInput { identity, mapped_len, spec, prefix, first_slot, offset } = *self;
        let mut bytes = Vec::new();
        bytes.extend(identity.magic.to_le_bytes());
        bytes.extend(identity.version.to_le_bytes());
        bytes.extend(identity.device_count.to_le_bytes());
        bytes.extend(identity.len.to_le_bytes());
        bytes.extend(mapped_len.to_le_bytes());
        for number in [spec.buffer_len, spec.alignment, spec.count, prefix, first_slot] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(offset.to_le_bytes());
        bytes
    }
}

/// Identities and classes are accepted exactly if a second definition, in wider arithmetic, accepts them.
pub(crate) fn layout(bytes: &[u8]) -> bool {
    let LayoutInput { identity, mapped_len, spec, prefix, first_slot, offset } = LayoutInput::read(bytes);
    let class = class_law(&spec, prefix, first_slot);
    if let Some(class) = class {
        offset_law(&class, offset);
    }
    identity_law(&identity, mapped_len) & class.is_some()
}

pub(crate) fn identity_law(identity: &RawIdentity, mapped_len: u64) -> bool {
    let RawIdentity { magic, version, device_count, len } = *identity;
    let devices = u64::from(device_count);
    // Header, a block of 9088 bytes per device, 4096 slots of 32 bytes, in whole pages.
    let expected = (4096 + u128::from(devices) * 9088 + 4096 * 32).div_ceil(4096) * 4096;
    let good = magic == u64::from_le_bytes(*b"VDISET01")
        && version == 6
        && (1..=64).contains(&device_count)
        && u128::from(len) == expected
        && u128::from(mapped_len) == expected;
    match identity.check(mapped_len) {
        Ok(geometry) => {
            assert!(good, "{identity:?} in {mapped_len} bytes");
            assert_eq!((geometry.device_count(), u128::from(geometry.segment_len())), (device_count, expected));
            assert!(slots_offset(device_count) + 4096 * 32 <= control_len(device_count));
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

/// The model of a class: the extents of its buffers, prefix zone and data, packed one after the other as tightly as
/// the alignment allows.
fn extents(spec: &ClassSpec, prefix: u32) -> Vec<(u128, u128)> {
    let (prefix, len, alignment) = (u128::from(prefix), u128::from(spec.buffer_len), u128::from(spec.alignment));
    let mut end = 0;
    let mut extents = Vec::new();
    for _ in 0..spec.count {
        let data = (end + prefix).div_ceil(alignment) * alignment;
        end = data + len;
        extents.push((data - prefix, end));
    }
    extents
}

/// A class is accepted exactly if its arguments are in range and the model's extents fit an area; then its addresses are
/// those of the model.
pub(crate) fn class_law(spec: &ClassSpec, prefix: u32, first_slot: u32) -> Option<Class> {
    let ClassSpec { buffer_len, alignment, count } = *spec;
    let bad_argument = buffer_len == 0 || count == 0 || !pow2(alignment, 1, 65536);
    let too_many = u64::from(first_slot) + u64::from(count) > 4096;
    let extents = if bad_argument || too_many { Vec::new() } else { extents(spec, prefix) };
    let area_len = extents.last().map_or(0, |(_, end)| end.div_ceil(4096) * 4096);
    let expected = match (bad_argument, too_many || area_len >= 1 << 32) {
        (true, _) => Err(VdError::Invalid),
        (false, true) => Err(VdError::Memory),
        (false, false) => Ok(()),
    };
    let laid_out = spec.lay_out(prefix, first_slot);
    assert_eq!(
        laid_out.map(|_| ()).map_err(|error: ClassError| error.code()),
        expected,
        "{spec:?} {prefix} {first_slot}"
    );
    let class = laid_out.ok()?;
    assert_eq!((class.spec(), class.first_slot(), u128::from(class.area_len())), (*spec, first_slot, area_len));
    assert_eq!(class.slots().len(), extents.len());
    let mut end_before = 0;
    for (slot, (begin, end)) in class.slots().zip(extents) {
        let slot = SlotIndex::new(slot).expect("a set has that many slots");
        let data = class.data_start(slot).expect("a slot of the class");
        assert_eq!((u128::from(data), u128::from(data) + u128::from(buffer_len)), (begin + u128::from(prefix), end));
        assert!(data.is_multiple_of(u64::from(alignment)), "{slot} of {class:?} is not aligned");
        assert!(begin >= end_before, "{slot} of {class:?} overlaps the slot before it");
        assert!(end <= area_len, "{slot} of {class:?} exceeds its area");
        assert_eq!(class.slot_at(data), Some(slot));
        end_before = end;
    }
    for slot in [first_slot.checked_sub(1), Some(first_slot + count)].into_iter().flatten() {
        assert_eq!(SlotIndex::new(slot).and_then(|slot| class.data_start(slot)), None, "{slot} is of another class");
    }
    Some(class)
}

/// An offset is that of a slot exactly if that slot's data starts there.
pub(crate) fn offset_law(class: &Class, offset: u64) {
    let expected = class.slots().filter_map(SlotIndex::new).find(|slot| class.data_start(*slot) == Some(offset));
    assert_eq!(class.slot_at(offset), expected, "{offset} in {class:?}");
}

/// A codec's two directions are inverse to each other, and MapBufferHandle accepts exactly the handles of lent slots.
pub(crate) fn handle(bytes: &[u8]) -> bool {
    let mut n = Numbers(bytes);
    let codec = HandleCodec::new(n.u64());
    let number = BufferHandle::from_number(n.u32());
    let loan =
        Loan { slot: SlotIndex::new(n.u32() % 4096).expect("in range"), generation: Generation::from_bits(n.u32()) };
    let (word, slots) = (n.u64(), n.u32());
    let phase =
        [SetPhase::Open, SetPhase::Open, SetPhase::Open, SetPhase::Closed, SetPhase::Aborted][n.u32() as usize % 5];

    assert_eq!(codec.encode(codec.decode(number)), number);
    assert_eq!(codec.decode(codec.encode(loan)), loan);
    let state = slot_word::decode(word);
    assert_eq!(state.is_some(), (word as u32) < 3 && word >> 52 == 0);
    if let Some(state) = state {
        assert_eq!(slot_word::encode(state), word);
    }

    let mut good = false;
    for handle in [number, codec.encode(loan)] {
        // A table of `slots` slots, all with the same word.
        let named = codec.decode(handle);
        let state = state.filter(|_| named.slot.get() < slots);
        let lent = match state {
            Some(SlotState::Lent(generation) | SlotState::Reclaiming(generation)) => generation == named.generation,
            Some(SlotState::Free(_)) | None => false,
        };
        let expected = match (phase, lent) {
            (SetPhase::Open, true) => Ok(()),
            (SetPhase::Open, false) => Err(VdError::Invalid),
            (SetPhase::Closed | SetPhase::Aborted, _) => Err(VdError::Protocol),
        };
        assert_eq!(handle::map(phase, named, state), expected);
        good |= expected.is_ok();
    }
    let held = codec.encode(loan);
    let open = phase == SetPhase::Open;
    assert_eq!(handle::get(phase, Some(held)), if open { Ok(held) } else { Err(VdError::Protocol) });
    assert_eq!(handle::get(phase, None), Err(if open { VdError::Invalid } else { VdError::Protocol }));
    good
}

const fn pow2(value: u32, least: u32, most: u32) -> bool {
    value.count_ones() == 1 && value >= least && value <= most
}

/// Whether a client may request this: a second definition from the documents and decisions.
pub(crate) fn client_may_request(requested: &VdConfig) -> bool {
    let bits = requested.features.bits();
    let kind = bits & !(0x80 | 0x400 | 0x800 | 0x2000);
    (1..=64).contains(&requested.device_count)
        && [0, 1, 0x200, 0x201, 0x173].contains(&kind)
        && requested.prefix_zone_size <= 65536
        && (requested.alignment == 0 || pow2(requested.alignment, 1, 65536))
        && (requested.soft_file_mark_block_size == 0
            || (bits & 0x100 != 0 && pow2(requested.soft_file_mark_block_size, 512, 65536)))
        && (requested.eom_warning_size == 0 || bits & 1 != 0)
}

/// Whether a server may offer this at BeginConfiguration: a second definition.
pub(crate) fn server_may_offer(terms: &ServerTerms) -> bool {
    [0x1_0000, 0x2_0000, 0x3_0000].contains(&terms.features.bits())
        && pow2(terms.block_size, 512, 65536)
        && (terms.alignment == 0 || pow2(terms.alignment, terms.block_size, 65536))
        && (1..=64).any(|units| terms.max_transfer_size == units * 65536)
}

/// What is negotiated follows from what was requested and offered, and a client accepts exactly that.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let mut n = Numbers(bytes);
    let requested = VdConfig::from_words(core::array::from_fn(|_| n.u32()));
    let terms = ServerTerms {
        features: Features::from_bits_retain(n.u32()),
        alignment: n.u32(),
        block_size: n.u32(),
        max_transfer_size: n.u32(),
    };
    let (field, change, area) = (n.u32() as usize % 11, n.u32(), n.u32());
    config_law(&requested, &terms, field, change, area)
}

/// As [`config`]; then one field of the answer is changed by `change`.
pub(crate) fn config_law(requested: &VdConfig, terms: &ServerTerms, field: usize, change: u32, area: u32) -> bool {
    assert_eq!(VdConfig::from_words(requested.to_words()), *requested);
    let may_request = client_may_request(requested);
    assert_eq!(requested.validate_client().is_ok(), may_request, "{requested:?}");
    let negotiated = match terms.negotiate(requested) {
        Ok(negotiated) => negotiated,
        Err(error) => {
            assert!(!(may_request && server_may_offer(terms)), "{requested:?} {terms:?}: {error}");
            let client = matches!(error, ConfigError::Features(_) | ConfigError::Field { author: Author::Client, .. });
            assert_eq!(client, !may_request, "the client's fields are validated first: {error}");
            assert_eq!(error.code(), if client { VdError::NotSupported } else { VdError::Invalid });
            return false;
        }
    };
    assert!(may_request && server_may_offer(terms), "{requested:?} {terms:?}");
    let backup = terms.features.bits() & 0x1_0000 != 0;
    let complete = if requested.features.bits() & 0x2000 != 0 && backup { 0x4_0000 } else { 0 };
    let mut expected = requested.to_words();
    expected[1] |= terms.features.bits() | complete;
    expected[3] = terms.block_size.max(terms.alignment).max(requested.alignment);
    expected[7..].copy_from_slice(&[terms.block_size, 4, terms.max_transfer_size, 0]);
    assert_eq!(negotiated.to_words(), expected);
    assert_eq!(negotiated.features.device_kind(), requested.features.device_kind());

    // The buffer area's size is added later.
    let with_area = VdConfig { buffer_area_size: area, ..negotiated };
    assert_eq!(with_area.validate_answer(requested), Ok(()));
    // A changed answer is refused, unless the change is one that the server could have chosen.
    let mut words = with_area.to_words();
    words[field] ^= change;
    let changed = VdConfig::from_words(words);
    let other_terms = ServerTerms {
        features: Features::from_bits_retain(words[1] & 0x3_0000),
        alignment: words[3],
        block_size: words[7],
        max_transfer_size: words[9],
    };
    let possible = other_terms.negotiate(requested).is_ok_and(|again| {
        // VDF_CompleteEnabled may be left out by a server that will not send Complete.
        let complete = again.features & changed.features & Features::COMPLETE_ENABLED;
        let features = again.features.difference(Features::COMPLETE_ENABLED) | complete;
        VdConfig { buffer_area_size: words[10], features, ..again } == changed
    });
    assert_eq!(changed.validate_answer(requested).is_ok(), possible, "{requested:?} {with_area:?} {changed:?}");
    true
}
