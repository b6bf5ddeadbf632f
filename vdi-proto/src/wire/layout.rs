//! The control segment: one piece of shared memory per set.
//!
//! | part | begins at | length |
//! |---|---|---|
//! | header | 0 | [`HEADER_LEN`] |
//! | one block per device | [`device_offset`] | [`DEVICE_LEN`] each |
//! | slot table, one slot per buffer | [`slots_offset`] | [`SLOT_LEN`] each, [`MAX_SLOTS`] of them |
//!
//! Words that different roles write are in different cache lines. The set's creator initialises the identity, the device
//! words and the device names before another process joins; the rest starts as zeros.
//!
//! # Trust
//!
//! Every member can write anywhere. So the identity is loaded and checked once ([`RawIdentity::check`]), device words,
//! names and ring records have checksums ([`super::checksum`]), and buffer addresses are never in shared memory
//! ([`super::class`]). The configuration, the secret and the class table travel in messages ([`super::join`]).

use static_assertions::const_assert;
use thiserror::Error;

use crate::abort::MAX_REASON_BYTES;
use crate::device::QUEUE_DEPTH;
use crate::index::{DeviceIndex, MAX_DEVICES, MAX_SLOTS, MemberIndex};
use crate::name::MAX_NAME_BYTES;
use crate::status::VdError;

/// The first bytes of a control segment: "VDISET" and two digits.
pub const MAGIC: u64 = u64::from_le_bytes(*b"VDISET01");
/// The version of everything in [`crate::wire`], and of handles. All processes of a set have the same.
pub const VERSION: u32 = 6;
/// The unit in which CPUs share memory, in bytes.
pub const CACHE_LINE: u64 = 64;

/// Length of the header.
pub const HEADER_LEN: u64 = 4096;
/// In the header: magic (8 bytes), version (4), device count (4), length of the segment (8).
pub const IDENTITY_OFFSET: u64 = 0;
/// In the header: the abort word ([`crate::abort::AbortReason::to_word`]), 4 bytes.
pub const ABORT_OFFSET: u64 = 64;
/// In the header: the event count of changes to the whole set.
pub const SET_EVENTS_OFFSET: u64 = 128;
/// In the header: the event count of the server's completion agent.
pub const AGENT_EVENTS_OFFSET: u64 = 192;
/// In the header: how many devices clients have opened (4 bytes). A hint: every value is valid.
pub const DEVICES_OPENED_OFFSET: u64 = 256;
/// In the header: 1 if the server needs every CPU, so that waits for commands and completions do not spin (4 bytes).
/// A hint: every value is valid.
pub const SERVER_NEEDS_CPUS_OFFSET: u64 = 260;

/// In the header: 1 once a process writes the text of the abort (4 bytes), the abort's code (4), then the length of the text
/// (4), the checksum of all of them (4), and the text in UTF-8.
pub const ABORT_TEXT_OFFSET: u64 = 320;

/// Length of an event count.
pub const EVENT_COUNT_LEN: u64 = 4;

/// In a device's block: the server's word ([`ServerWord`]), 8 bytes with its checksum.
pub const DEVICE_SERVER_OFFSET: u64 = 0;
/// In a device's block: the client's word ([`ClientWord`]), 8 bytes with its checksum.
pub const DEVICE_CLIENT_OFFSET: u64 = 64;
/// In a device's block: the event count of waits for commands.
pub const DEVICE_EVENTS_OFFSET: u64 = 128;
/// In a device's block: length of the name (4 bytes), its checksum (4), then the name in UTF-8.
pub const DEVICE_NAME_OFFSET: u64 = 192;
/// In a device's block: the ring from server to client.
pub const SUBMISSION_OFFSET: u64 = 768;
/// In a device's block: the ring from client to server.
pub const COMPLETION_OFFSET: u64 = SUBMISSION_OFFSET + RING_LEN;
/// Length of a device's block.
pub const DEVICE_LEN: u64 = COMPLETION_OFFSET + RING_LEN;

/// Entries of a ring: one for each outstanding command of a device.
pub const RING_CAPACITY: u32 = QUEUE_DEPTH;
/// Length of a ring's entry: the sequence number (8 bytes) and the record's four words ([`super::record`]).
pub const RING_ENTRY_LEN: u64 = CACHE_LINE;
/// In a ring: the consumer's position; the entries begin in the next cache line.
pub const RING_HEAD_OFFSET: u64 = 0;
/// In a ring: the first entry.
pub const RING_ENTRIES_OFFSET: u64 = CACHE_LINE;
/// Length of a ring.
pub const RING_LEN: u64 = RING_ENTRIES_OFFSET + RING_ENTRY_LEN * RING_CAPACITY as u64;

/// Length of a slot.
pub const SLOT_LEN: u64 = 32;
/// In a slot: its word ([`slot_word`]), 8 bytes.
pub const SLOT_WORD_OFFSET: u64 = 0;
/// In a slot: one lease bit per member, 16 bytes.
pub const SLOT_LEASES_OFFSET: u64 = 8;

const_assert!(DEVICE_NAME_OFFSET + 8 + MAX_NAME_BYTES as u64 <= SUBMISSION_OFFSET);
const_assert!(SERVER_NEEDS_CPUS_OFFSET + 4 <= ABORT_TEXT_OFFSET);
const_assert!(ABORT_TEXT_OFFSET + 16 + MAX_REASON_BYTES as u64 <= HEADER_LEN);
const_assert!(8 * (SLOT_LEN - SLOT_LEASES_OFFSET) >= crate::index::MAX_MEMBERS as u64);
const_assert!(CACHE_LINE.is_multiple_of(SLOT_LEN));
const_assert!(RING_CAPACITY.is_power_of_two());
const_assert!(SUBMISSION_OFFSET.is_multiple_of(CACHE_LINE) && DEVICE_LEN.is_multiple_of(CACHE_LINE));
// A set needs less than 1 MB beyond its buffer areas, even with 64 devices.
const_assert!(control_len(MAX_DEVICES) < 1 << 20);

/// The offset of a device's block.
#[must_use]
pub const fn device_offset(device: DeviceIndex) -> u64 {
    HEADER_LEN + device.get() as u64 * DEVICE_LEN
}

/// The offset of the slot table in a set of `device_count` devices.
#[must_use]
pub const fn slots_offset(device_count: u32) -> u64 {
    HEADER_LEN + device_count as u64 * DEVICE_LEN
}

/// The length of the control segment of a set of `device_count` devices.
#[must_use]
pub const fn control_len(device_count: u32) -> u64 {
    (slots_offset(device_count) + MAX_SLOTS as u64 * SLOT_LEN).next_multiple_of(4096)
}

/// The server's word of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerWord {
    /// The server has not opened the device; its name is not set.
    Unopened,
    /// The server has opened the device and set its name.
    Open,
    /// The server has closed the device. Once its ring is empty, GetCommand returns VD_E_CLOSE.
    Closed,
}

impl ServerWord {
    /// The value of the word.
    #[must_use]
    pub const fn to_word(self) -> u32 {
        match self {
            ServerWord::Unopened => 0,
            ServerWord::Open => 1,
            ServerWord::Closed => 2,
        }
    }

    /// The word with this value; `None` if no server writes it.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        match word {
            0 => Some(ServerWord::Unopened),
            1 => Some(ServerWord::Open),
            2 => Some(ServerWord::Closed),
            _ => None,
        }
    }
}

/// The client's word of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientWord {
    /// No process has opened the device.
    Unopened,
    /// A process has opened the device.
    Open {
        /// The process.
        member: MemberIndex,
    },
    /// VD_E_CLOSE was returned to the process that had opened the device.
    Closed {
        /// The process.
        member: MemberIndex,
    },
}

impl ClientWord {
    const CLOSED: u32 = 1 << 31;

    /// The value of the word.
    #[must_use]
    pub const fn to_word(self) -> u32 {
        match self {
            ClientWord::Unopened => 0,
            ClientWord::Open { member } => member.get() + 1,
            ClientWord::Closed { member } => Self::CLOSED | (member.get() + 1),
        }
    }

    /// The word with this value; `None` if no client writes it.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        if word == 0 {
            return Some(ClientWord::Unopened);
        }
        match (MemberIndex::new((word & !Self::CLOSED).wrapping_sub(1)), word & Self::CLOSED) {
            (Some(member), 0) => Some(ClientWord::Open { member }),
            (Some(member), _) => Some(ClientWord::Closed { member }),
            (None, _) => None,
        }
    }
}

/// The word of a slot: the state in the lower half, the generation in the upper half.
pub mod slot_word {
    use crate::handle::SlotState;
    use crate::index::Generation;

    /// The word of a state.
    #[must_use]
    #[inline]
    pub const fn encode(state: SlotState) -> u64 {
        let (generation, number) = match state {
            SlotState::Free(generation) => (generation, 0),
            SlotState::Lent(generation) => (generation, 1),
            SlotState::Reclaiming(generation) => (generation, 2),
        };
        (generation.get() as u64) << 32 | number
    }

    /// The state of a word; `None` if no process writes it.
    #[must_use]
    #[inline]
    pub const fn decode(word: u64) -> Option<SlotState> {
        let bits = (word >> 32) as u32;
        let generation = Generation::from_bits(bits);
        if generation.get() != bits {
            return None;
        }
        match word as u32 {
            0 => Some(SlotState::Free(generation)),
            1 => Some(SlotState::Lent(generation)),
            2 => Some(SlotState::Reclaiming(generation)),
            _ => None,
        }
    }
}

/// What is wrong in a control segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// It is no control segment.
    #[error("the segment begins with {found:#018x}, not with a control segment's magic {MAGIC:#018x}")]
    Magic {
        /// Its first 8 bytes.
        found: u64,
    },
    /// It has another version.
    #[error("the segment has version {found}, this side has {VERSION}; use the same version on both sides")]
    Version {
        /// Its version.
        found: u32,
    },
    /// No set has that many devices.
    #[error("the segment has {found} devices; a set has 1 to {MAX_DEVICES}")]
    DeviceCount {
        /// Its number of devices.
        found: u32,
    },
    /// Its length does not match its devices.
    #[error("the segment has {found} bytes; it must have {expected}")]
    Length {
        /// The length that it states, or the length of the memory.
        found: u64,
        /// The length for its devices.
        expected: u64,
    },
    /// A device's name is invalid.
    #[error("the name of device {device} ({len} bytes) is no valid name, or its checksum is wrong")]
    DeviceName {
        /// The device.
        device: DeviceIndex,
        /// The length that it states.
        len: u32,
    },
    /// The server's word of a device is invalid.
    #[error("the server's word of device {device} is {found:#x}, which no server of this set wrote")]
    ServerWord {
        /// The device.
        device: DeviceIndex,
        /// The word with its checksum.
        found: u64,
    },
    /// The client's word of a device is invalid.
    #[error("the client's word of device {device} is {found:#x}, which no client of this set wrote")]
    ClientWord {
        /// The device.
        device: DeviceIndex,
        /// The word with its checksum.
        found: u64,
    },
}

impl LayoutError {
    /// The status of the call: VD_E_NOTSUPPORTED for another version, VD_E_UNEXPECTED for a segment that cannot be used,
    /// VD_E_ABORT for a word that was overwritten.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            LayoutError::Version { .. } => VdError::NotSupported,
            LayoutError::Magic { .. } | LayoutError::DeviceCount { .. } | LayoutError::Length { .. } => {
                VdError::Unexpected
            }
            LayoutError::DeviceName { .. } | LayoutError::ServerWord { .. } | LayoutError::ClientWord { .. } => {
                VdError::Abort
            }
        }
    }
}

/// The identity of a control segment, as loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawIdentity {
    /// Must be [`MAGIC`].
    pub magic: u64,
    /// Must be [`VERSION`].
    pub version: u32,
    /// Devices of the set.
    pub device_count: u32,
    /// Length of the segment in bytes.
    pub len: u64,
}

/// The geometry of a control segment, validated. Each process keeps it in private memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    device_count: u32,
}

impl RawIdentity {
    /// The identity of a new segment.
    #[must_use]
    pub const fn new(device_count: u32) -> Self {
        RawIdentity { magic: MAGIC, version: VERSION, device_count, len: control_len(device_count) }
    }

    /// Validates the identity; `mapped_len` is the length of the memory.
    ///
    /// ```
    /// use vdi_proto::wire::layout::{control_len, LayoutError, RawIdentity};
    ///
    /// let identity = RawIdentity::new(4);
    /// assert_eq!(identity.check(control_len(4)).unwrap().device_count(), 4);
    /// assert!(matches!(identity.check(4096), Err(LayoutError::Length { .. })));
    /// ```
    ///
    /// # Errors
    /// [`LayoutError`] for the first field that is wrong.
    pub const fn check(&self, mapped_len: u64) -> Result<Geometry, LayoutError> {
        if self.magic != MAGIC {
            return Err(LayoutError::Magic { found: self.magic });
        }
        if self.version != VERSION {
            return Err(LayoutError::Version { found: self.version });
        }
        if self.device_count == 0 || self.device_count > MAX_DEVICES {
            return Err(LayoutError::DeviceCount { found: self.device_count });
        }
        let expected = control_len(self.device_count);
        if self.len != expected {
            return Err(LayoutError::Length { found: self.len, expected });
        }
        if mapped_len != expected {
            return Err(LayoutError::Length { found: mapped_len, expected });
        }
        Ok(Geometry { device_count: self.device_count })
    }
}

impl Geometry {
    /// Devices of the set: 1 to [`MAX_DEVICES`].
    #[must_use]
    pub const fn device_count(&self) -> u32 {
        self.device_count
    }

    /// The length of the control segment in bytes.
    #[must_use]
    pub const fn segment_len(&self) -> u64 {
        control_len(self.device_count)
    }
}
