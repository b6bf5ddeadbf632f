//! The control segment: one piece of shared memory a set, described as plain numbers.
//!
//! # The parts, in this order
//!
//! | part | at | length |
//! |---|---|---|
//! | header | 0 | [`HEADER_LEN`] |
//! | a block a device | [`device_offset`] | [`DEVICE_LEN`] each |
//! | slot table, a slot a buffer | [`slots_offset`] | [`SLOT_LEN`] each, [`MAX_SLOTS`] of them |
//!
//! Words that different parties write lie in different cache lines. All of it starts as zeros; zeros are a valid state
//! of everything but the header's identity, which the primary writes before anybody joins.
//!
//! # What may be believed
//!
//! Any process that joined can write anywhere. So nothing here is believed twice: the identity is loaded once when
//! attaching and judged by [`RawIdentity::check`], places of buffers by [`RawPlace::check`]; what follows from them is
//! kept privately; what cannot be judged by itself bears a seal ([`crate::seal`]). Everything that could be kept out of the segment (the configuration, the handles' secret, the
//! segments' sizes) travels in [`crate::join`] messages instead.

use static_assertions::const_assert;
use thiserror::Error;

use crate::config::{MAX_DEVICES, VdConfig};
use crate::device::QUEUE_DEPTH;
use crate::handle::MAX_SLOT_BITS;
use crate::name::MAX_NAME_BYTES;
use crate::status::VdError;

/// Tells a control segment: "VDISET" and two digits.
pub const MAGIC: u64 = u64::from_le_bytes(*b"VDISET01");
/// The version of the layout, of the join messages, and of how handles and seals are made. All processes of a set must have the
/// same.
pub const VERSION: u32 = 4;
/// Bytes that one CPU takes exclusively when it writes.
pub const CACHE_LINE: u64 = 64;
/// The most slots that a set's slot table has, and that the segment has room for.
pub const MAX_SLOTS: u32 = 1 << MAX_SLOT_BITS;
/// The most buffer areas of a set.
pub const MAX_AREAS: u32 = 64;
/// The most processes in a set: the server is member 0, the primary member 1, secondaries follow.
pub const MAX_MEMBERS: u32 = 128;
/// The server's place among the members.
pub const SERVER_MEMBER: u32 = 0;
/// The primary's place among the members.
pub const PRIMARY_MEMBER: u32 = 1;

/// Length of the header.
pub const HEADER_LEN: u64 = 4096;
/// In the header: magic (8 bytes), version (4), device count (4), length of the segment (8).
pub const IDENTITY_OFFSET: u64 = 0;
/// In the header: the abort word ([`crate::abort::AbortReason::to_word`]), alone in its line since everybody reads it.
pub const ABORT_OFFSET: u64 = 64;
/// In the header: the doorbell for all that happens to the set as a whole.
pub const SET_DOORBELL_OFFSET: u64 = 128;
/// In the header: the doorbell of the server's completion agent.
pub const AGENT_DOORBELL_OFFSET: u64 = 192;
/// In the header: how many devices clients have opened (4 bytes), and how many have returned VD_E_CLOSE (4).
pub const COUNTS_OFFSET: u64 = 256;
/// In the header: 1 where the server has use for every CPU, so that whoever waits for a command or a completion does not spin (4
/// bytes). Advice; a server that never writes it leaves waits as they are.
pub const CPUS_WANTED_OFFSET: u64 = 264;

/// A doorbell is one 32-bit word.
pub const DOORBELL_LEN: u64 = 4;

/// In a device's block: the server's word ([`ServerWord`]), 8 bytes with its seal ([`crate::seal`]).
pub const DEVICE_SERVER_OFFSET: u64 = 0;
/// In a device's block: the client's word: 0 unopened, else the opener's member number plus 1, with
/// [`CLIENT_CLOSED`] once VD_E_CLOSE was returned; 8 bytes with its seal.
pub const DEVICE_CLIENT_OFFSET: u64 = 64;
/// In a device's block: the doorbell of whoever waits for commands.
pub const DEVICE_DOORBELL_OFFSET: u64 = 128;
/// In a device's block: length of the name (4 bytes), its seal (4), then the name in UTF-8.
pub const DEVICE_NAME_OFFSET: u64 = 192;
/// In a device's block: the ring from server to client.
pub const SUBMISSION_OFFSET: u64 = 768;
/// In a device's block: the ring from client to server.
pub const COMPLETION_OFFSET: u64 = SUBMISSION_OFFSET + RING_LEN;
/// Length of a device's block.
pub const DEVICE_LEN: u64 = COMPLETION_OFFSET + RING_LEN;
/// The bit of the client's word that says that VD_E_CLOSE was returned.
pub const CLIENT_CLOSED: u32 = 1 << 31;

/// Entries of a ring: room for as many commands as a device can hold.
pub const RING_CAPACITY: u32 = QUEUE_DEPTH;
/// Length of a ring's entry: a lap word (8 bytes: the lap, and above it the record's seal), and the record's four words.
pub const RING_ENTRY_LEN: u64 = CACHE_LINE;
/// In a ring: the consumer's published cursor; the entries follow in the next line.
pub const RING_HEAD_OFFSET: u64 = 0;
/// In a ring: the first entry.
pub const RING_ENTRIES_OFFSET: u64 = CACHE_LINE;
/// Length of a ring.
pub const RING_LEN: u64 = RING_ENTRIES_OFFSET + RING_ENTRY_LEN * RING_CAPACITY as u64;

/// Length of a slot.
pub const SLOT_LEN: u64 = CACHE_LINE;
/// In a slot: its word ([`crate::handle::SlotWord`]), 8 bytes.
pub const SLOT_WORD_OFFSET: u64 = 0;
/// In a slot: a bit a member that has a lease, 16 bytes.
pub const SLOT_LEASES_OFFSET: u64 = 8;
/// In a slot: the buffer's place: area (4 bytes), length (4), offset of the data start (8), seal (4).
pub const SLOT_PLACE_OFFSET: u64 = 24;

const_assert!(DEVICE_NAME_OFFSET + 8 + MAX_NAME_BYTES as u64 <= SUBMISSION_OFFSET);
const_assert!(CPUS_WANTED_OFFSET + 4 <= HEADER_LEN);
const_assert!(SLOT_PLACE_OFFSET + 20 <= SLOT_LEN);
const_assert!(RING_CAPACITY.is_power_of_two());
const_assert!(SUBMISSION_OFFSET.is_multiple_of(CACHE_LINE) && DEVICE_LEN.is_multiple_of(CACHE_LINE));
// A set needs less than 1 MB beyond its buffer areas, even with 64 devices.
const_assert!(control_len(MAX_DEVICES) < 1 << 20);

/// Where a device's block begins.
#[must_use]
pub const fn device_offset(device: u32) -> u64 {
    HEADER_LEN + device as u64 * DEVICE_LEN
}

/// Where the slot table begins.
#[must_use]
pub const fn slots_offset(device_count: u32) -> u64 {
    device_offset(device_count)
}

/// Where a slot begins.
#[must_use]
pub const fn slot_offset(device_count: u32, slot: u32) -> u64 {
    slots_offset(device_count) + slot as u64 * SLOT_LEN
}

/// The length of the control segment of a set.
#[must_use]
pub const fn control_len(device_count: u32) -> u64 {
    slot_offset(device_count, MAX_SLOTS).next_multiple_of(4096)
}

/// The word by which the server tells the state of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ServerWord {
    /// The server has not opened it; its name means nothing.
    Unopened = 0,
    /// The server opened it; its name stands.
    Open = 1,
    /// The server closed it: once its ring is empty GetCommand returns VD_E_CLOSE.
    Closed = 2,
}

impl ServerWord {
    /// From the word; `None` for one that no server writes.
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

/// What the shared memory says and must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Not a control segment.
    #[error("the segment begins with {found:#018x}, not with a control segment's magic {MAGIC:#018x}")]
    Magic {
        /// What it begins with.
        found: u64,
    },
    /// Another version.
    #[error("the segment has version {found}, this side has {VERSION}; use the same version on both sides")]
    Version {
        /// The segment's version.
        found: u32,
    },
    /// A number of devices that no set has.
    #[error("the segment has {found} devices; a set has 1 to {MAX_DEVICES}")]
    DeviceCount {
        /// The segment's number.
        found: u32,
    },
    /// A length that does not fit the number of devices, or the memory that was really received.
    #[error("the segment says that it has {found} bytes; it must have {expected}")]
    Length {
        /// The segment's length as it says.
        found: u64,
        /// The length that it must have.
        expected: u64,
    },
    /// A buffer's place that lies outside its area, or is not aligned.
    #[error(
        "a buffer of {len} bytes at offset {offset} of area {area} ({area_len} bytes) breaks the set's alignment \
         {alignment} or prefix zone {prefix}, or leaves the area"
    )]
    Place {
        /// The area's number.
        area: u32,
        /// The area's length, 0 where there is no such area.
        area_len: u64,
        /// The data start.
        offset: u64,
        /// The length of the data.
        len: u32,
        /// The set's alignment.
        alignment: u32,
        /// The set's prefix zone.
        prefix: u32,
    },
    /// A buffer's place that does not bear its seal.
    #[error("the place of buffer slot {slot} does not bear the set's seal: somebody wrote over it")]
    PlaceSeal {
        /// The slot.
        slot: u32,
    },
    /// A device's name that is none, or does not bear its seal.
    #[error(
        "the name of device {device} has {len} bytes, is no text that a name may be, or does not bear the set's seal"
    )]
    DeviceName {
        /// The device's index.
        device: u32,
        /// The length that it says.
        len: u32,
    },
    /// A device's word with a value that no server writes, or without its seal.
    #[error("the server's word of device {device} is {found:#x}, which no server of this set wrote")]
    ServerWord {
        /// The device's index.
        device: u32,
        /// The word.
        found: u64,
    },
    /// A device's word with a value that no client writes, or without its seal.
    #[error("the client's word of device {device} is {found:#x}, which no client of this set wrote")]
    ClientWord {
        /// The device's index.
        device: u32,
        /// The word.
        found: u64,
    },
}

impl LayoutError {
    /// The status that the call returns: the peer broke the protocol, which ends the session with VD_E_ABORT; a segment
    /// that cannot be attached at all is VD_E_NOTSUPPORTED (another version) or VD_E_UNEXPECTED.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            LayoutError::Version { .. } => VdError::NotSupported,
            LayoutError::Magic { .. } | LayoutError::DeviceCount { .. } | LayoutError::Length { .. } => {
                VdError::Unexpected
            }
            LayoutError::Place { .. }
            | LayoutError::PlaceSeal { .. }
            | LayoutError::DeviceName { .. }
            | LayoutError::ServerWord { .. }
            | LayoutError::ClientWord { .. } => VdError::Abort,
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

/// The geometry of a control segment: judged, and private from then on.
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

    /// Judges the identity against the length that the memory really has.
    ///
    /// ```
    /// use vdi_proto::layout::{control_len, LayoutError, RawIdentity};
    ///
    /// let good = RawIdentity::new(4);
    /// assert_eq!(good.check(control_len(4)).unwrap().device_count(), 4);
    /// assert!(matches!(good.check(4096), Err(LayoutError::Length { .. })));
    /// ```
    ///
    /// # Errors
    /// [`LayoutError`] for the first thing that is wrong.
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
    pub const fn len(&self) -> u64 {
        control_len(self.device_count)
    }

    /// Never: a control segment has a header at least.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// What every buffer of a set keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferRules {
    /// A power of two; each data start is a multiple of it, counted from the area's start.
    pub alignment: u32,
    /// Bytes before each data start that belong to the buffer.
    pub prefix: u32,
}

impl BufferRules {
    /// From the agreed configuration.
    #[must_use]
    pub const fn new(config: &VdConfig) -> Self {
        BufferRules { alignment: config.alignment, prefix: config.prefix_zone_size }
    }
}

/// The place of a buffer, as loaded from its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPlace {
    /// The area's number.
    pub area: u32,
    /// Length of the data in bytes.
    pub len: u32,
    /// Data start, in bytes from the area's start.
    pub offset: u64,
}

/// The place of a buffer: judged against the area as this process mapped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    area: u32,
    len: u32,
    offset: u64,
}

impl RawPlace {
    /// Judges the place against the length of the area, as mapped (`None` where there is no such area), and the set's rules.
    ///
    /// # Errors
    /// [`LayoutError::Place`].
    #[inline]
    pub const fn check(&self, area_len: Option<u64>, rules: &BufferRules) -> Result<Place, LayoutError> {
        let RawPlace { area, len, offset } = *self;
        let area_len = match area_len {
            Some(area_len) => area_len,
            None => 0,
        };
        let within = match offset.checked_add(len as u64) {
            Some(end) => end <= area_len,
            None => false,
        };
        // Alignments that are agreed on are powers of two, and dividing takes longer than all the rest; rules made by hand may have others.
        let aligned = match rules.alignment as u64 {
            0 => false,
            alignment if alignment.is_power_of_two() => offset & (alignment - 1) == 0,
            alignment => offset.is_multiple_of(alignment),
        };
        if len == 0 || !within || !aligned || offset < rules.prefix as u64 {
            let BufferRules { alignment, prefix } = *rules;
            return Err(LayoutError::Place { area, area_len, offset, len, alignment, prefix });
        }
        Ok(Place { area, len, offset })
    }
}

impl Place {
    /// The area's number.
    #[must_use]
    pub const fn area(&self) -> u32 {
        self.area
    }

    /// Length of the data in bytes: at least 1.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Never: a buffer has at least a byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Data start, in bytes from the area's start.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// As it is written into a slot.
    #[must_use]
    #[inline]
    pub const fn to_raw(&self) -> RawPlace {
        RawPlace { area: self.area, len: self.len, offset: self.offset }
    }
}

/// How the server lays buffers of one size into an area: the distance from one data start to the next, and the first.
///
/// ```
/// use vdi_proto::layout::{stride, BufferRules};
///
/// let rules = BufferRules { alignment: 4096, prefix: 16 };
/// // Each buffer has its prefix zone right before an aligned data start.
/// assert_eq!(stride(65536, &rules), Some(69632));
/// ```
#[must_use]
pub const fn stride(len: u32, rules: &BufferRules) -> Option<u64> {
    (len as u64 + rules.prefix as u64).checked_next_multiple_of(rules.alignment as u64)
}

/// The first data start of an area: room for the prefix zone, aligned.
#[must_use]
pub const fn first_data_start(rules: &BufferRules) -> Option<u64> {
    (rules.prefix as u64).checked_next_multiple_of(rules.alignment as u64)
}
