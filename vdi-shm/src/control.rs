//! The control segment as typed memory: [`vdi_proto::layout`] with addresses.
//!
//! # Invariants
//!
//! 1. Offsets are computed from the geometry that was judged when attaching, never from shared words.
//! 2. The abort word goes from 0 to a reason once, by whoever comes first, and every doorbell is rung after it. A member
//!    that clears it fools only those who have not looked: [`crate::session::Session`] latches it.
//! 3. A device's name is written before its server word becomes `Open`, and read after that was seen: `device_name.rs`.
//! 4. Whoever opens a device changes its client word from 0 by compare-and-swap, so one process gets it.
//! 5. The words of a device, its name, and the places of buffers are believed only with their seals ([`vdi_proto::seal`]).
#![allow(unsafe_code)]

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use static_assertions::const_assert_eq;
use vdi_proto::abort::AbortReason;
use vdi_proto::layout::{self, Geometry, LayoutError, RawIdentity, RawPlace, ServerWord};
use vdi_proto::name::{MAX_NAME_BYTES, check_name};
use vdi_proto::seal::{DeviceWord, Ring, Seals};

use crate::abort_word::AbortWord;
use crate::device_name::{Announcement, Name};
use crate::doorbell::Doorbell;
use crate::error::ShmError;
use crate::ring::{Consumer, Producer, RingMemory};
use crate::segment::{Mapping, Segment, Shared, SharedLayout};
use crate::slots::Slot;
use crate::wait;

/// Alone in its cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line<T>(T);

#[derive(Debug)]
#[repr(C)]
struct Counts {
    opened: AtomicU32,
    closed: AtomicU32,
    cpus_wanted: AtomicU32,
}

/// The header of the control segment.
#[derive(Debug)]
#[repr(C)]
struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    device_count: AtomicU32,
    len: AtomicU64,
    abort: Line<AbortWord>,
    set_doorbell: Doorbell,
    agent_doorbell: Doorbell,
    counts: Line<Counts>,
}

/// The block of a device.
#[derive(Debug)]
#[repr(C)]
pub struct DeviceBlock {
    server: Line<Announcement>,
    client: Line<AtomicU64>,
    doorbell: Doorbell,
    name: Line<Name>,
    submission: RingMemory,
    completion: RingMemory,
}

const_assert_eq!(offset_of!(Header, magic), layout::IDENTITY_OFFSET as usize);
const_assert_eq!(offset_of!(Header, abort), layout::ABORT_OFFSET as usize);
const_assert_eq!(offset_of!(Header, set_doorbell), layout::SET_DOORBELL_OFFSET as usize);
const_assert_eq!(offset_of!(Header, agent_doorbell), layout::AGENT_DOORBELL_OFFSET as usize);
const_assert_eq!(offset_of!(Header, counts), layout::COUNTS_OFFSET as usize);
const_assert_eq!(offset_of!(Header, counts) + offset_of!(Counts, cpus_wanted), layout::CPUS_WANTED_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, server), layout::DEVICE_SERVER_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, client), layout::DEVICE_CLIENT_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, doorbell), layout::DEVICE_DOORBELL_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, name), layout::DEVICE_NAME_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, submission), layout::SUBMISSION_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, completion), layout::COMPLETION_OFFSET as usize);
const_assert_eq!(size_of::<RingMemory>(), layout::RING_LEN as usize);
const_assert_eq!(size_of::<Slot>(), layout::SLOT_LEN as usize);
const_assert_eq!(layout::SLOT_WORD_OFFSET, 0);

// SAFETY: `repr(C)`, atomics and structs of atomics only; any bytes are valid.
unsafe impl SharedLayout for Header {}
// SAFETY: as above; rings and doorbells are `repr(C)` structs of atomics.
unsafe impl SharedLayout for DeviceBlock {}
// SAFETY: a ring is `repr(C)` and consists of atomics.
unsafe impl<const N: usize> SharedLayout for RingMemory<N> {}
// SAFETY: a doorbell is `repr(C)` and one atomic.
unsafe impl SharedLayout for Doorbell {}
// SAFETY: a slot is `repr(C)` and consists of atomics.
unsafe impl SharedLayout for Slot {}

#[derive(Debug)]
#[repr(C)]
struct SlotTable([Slot; layout::MAX_SLOTS as usize]);

// SAFETY: an array of slots, each of atomics.
unsafe impl SharedLayout for SlotTable {}

/// A set's control segment, attached.
#[derive(Debug)]
pub struct Control {
    mapping: Arc<Mapping>,
    header: Shared<Header>,
    devices: Vec<Shared<DeviceBlock>>,
    slots: Shared<SlotTable>,
    geometry: Geometry,
    seals: Seals,
    /// The words that a server may write, of each device: looked at for as long as somebody waits for a command.
    server_words: Vec<[u64; 3]>,
}

const SERVER_WORDS: [ServerWord; 3] = [ServerWord::Unopened, ServerWord::Open, ServerWord::Closed];

/// What a device is, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientWord {
    /// Nobody opened it.
    Unopened,
    /// A member opened it.
    Open {
        /// The member's number.
        member: u32,
    },
    /// VD_E_CLOSE was returned to the member that had opened it.
    Closed,
}

impl Control {
    /// A new control segment for a set of `device_count` devices, 1 to 64, whose words bear these seals.
    ///
    /// # Errors
    /// [`ShmError`] when the system refuses the memory.
    pub fn create(device_count: u32, seals: Seals) -> Result<(Control, Segment), ShmError> {
        let segment = Segment::create("vdi-control", layout::control_len(device_count), false)?;
        let mapping = Arc::new(segment.map()?);
        let header: Shared<Header> = mapping.place(0)?;
        let identity = RawIdentity::new(device_count);
        header.magic.store(identity.magic, Ordering::Relaxed);
        header.version.store(identity.version, Ordering::Relaxed);
        header.device_count.store(identity.device_count, Ordering::Relaxed);
        header.len.store(identity.len, Ordering::Release);
        Ok((Control::attach_mapping(mapping, seals)?, segment))
    }

    /// Attaches a control segment that a peer passed.
    ///
    /// # Errors
    /// [`ShmError`] when it is no control segment, or one of another version.
    pub fn attach(segment: &Segment, seals: Seals) -> Result<Control, ShmError> {
        Control::attach_mapping(Arc::new(segment.map()?), seals)
    }

    fn attach_mapping(mapping: Arc<Mapping>, seals: Seals) -> Result<Control, ShmError> {
        let header: Shared<Header> = mapping.place(0)?;
        let identity = RawIdentity {
            magic: header.magic.load(Ordering::Acquire),
            version: header.version.load(Ordering::Relaxed),
            device_count: header.device_count.load(Ordering::Relaxed),
            len: header.len.load(Ordering::Relaxed),
        };
        let geometry = identity.check(mapping.len() as u64)?;
        let count = geometry.device_count();
        let devices =
            (0..count).map(|device| mapping.place(layout::device_offset(device))).collect::<Result<_, _>>()?;
        let slots = mapping.place(layout::slots_offset(count))?;
        let sealed = |device| SERVER_WORDS.map(|word| seals.seal_word(device, DeviceWord::Server, word as u32));
        let server_words = (0..count).map(sealed).collect();
        Ok(Control { mapping, header, devices, slots, geometry, seals, server_words })
    }

    /// Devices of the set.
    #[must_use]
    pub fn device_count(&self) -> u32 {
        self.geometry.device_count()
    }

    /// The doorbell for all that happens to the set as a whole.
    #[must_use]
    pub fn set_doorbell(&self) -> &Doorbell {
        &self.header.set_doorbell
    }

    /// The doorbell of the server's completion agent.
    #[must_use]
    pub fn agent_doorbell(&self) -> &Doorbell {
        &self.header.agent_doorbell
    }

    /// Why the set was aborted, if it was.
    #[must_use]
    #[inline]
    pub fn abort_reason(&self) -> Option<AbortReason> {
        self.header.abort.0.look()
    }

    /// Aborts the set unless it is aborted already, and wakes everybody. Returns the reason that stands.
    pub fn abort(&self, reason: AbortReason) -> AbortReason {
        self.header.abort.0.set(reason, || self.ring_all())
    }

    /// Wakes everybody who waits for anything of this set, also those whom a process left asleep that died ringing.
    pub fn ring_all(&self) {
        wait::alarm(self.set_doorbell());
        wait::alarm(self.agent_doorbell());
        for device in &self.devices {
            wait::alarm(&device.doorbell);
        }
    }

    /// A device's block.
    #[must_use]
    pub fn device(&self, device: u32) -> Option<&Shared<DeviceBlock>> {
        self.devices.get(device as usize)
    }

    /// A slot of the slot table.
    #[must_use]
    #[inline]
    pub fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.0.get(slot as usize)
    }

    /// Server: says where a slot's buffer is. Only while the slot is home.
    pub fn set_place(&self, slot: u32, place: RawPlace) {
        if let Some(shared) = self.slot(slot) {
            shared.set_place(place, self.seals.place(slot, &place));
        }
    }

    /// Where a slot says that its buffer is, once its seal was found good.
    ///
    /// # Errors
    /// [`LayoutError::PlaceSeal`], also for a slot that the table does not have.
    #[inline]
    pub fn place(&self, slot: u32) -> Result<RawPlace, LayoutError> {
        let shared = self.slot(slot).ok_or(LayoutError::PlaceSeal { slot })?;
        let place = shared.place();
        if shared.seal() == self.seals.place(slot, &place) { Ok(place) } else { Err(LayoutError::PlaceSeal { slot }) }
    }

    /// Gives up whatever leases a member has: it left or died.
    pub fn void_leases(&self, member: u32) {
        for slot in &self.slots.0 {
            slot.void_lease(member);
        }
    }

    /// How many devices clients have opened, and how many of them have returned VD_E_CLOSE. Advice: a member can write here.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        let counts = &self.header.counts.0;
        (counts.opened.load(Ordering::Acquire), counts.closed.load(Ordering::Acquire))
    }

    /// Tells all who wait for commands or completions that threads of the server's process have use for every CPU: who spins until
    /// the next command is there takes a CPU from those who make it.
    pub fn want_cpus(&self) {
        self.header.counts.0.cpus_wanted.store(1, Ordering::Relaxed);
    }

    /// How long a wait for a command or a completion spins: [`wait::spin`], or not at all where the server has use for every CPU.
    /// Advice: a member can write here, and have others spin or not.
    #[must_use]
    pub fn spin(&self) -> Duration {
        if self.header.counts.0.cpus_wanted.load(Ordering::Relaxed) == 0 { wait::spin() } else { Duration::ZERO }
    }

    /// Whether every device has returned VD_E_CLOSE.
    #[must_use]
    pub fn all_closed(&self) -> bool {
        (0..self.device_count()).all(|device| self.client_word(device) == Ok(ClientWord::Closed))
    }

    /// Whether the server has closed every device.
    #[must_use]
    pub fn server_closed_all(&self) -> bool {
        (0..self.device_count()).all(|device| self.server_word(device) == Ok(ServerWord::Closed))
    }

    /// What the server says of a device; unopened for one that the set does not have.
    ///
    /// # Errors
    /// [`LayoutError::ServerWord`] for a word that no server of this set wrote.
    #[inline]
    pub fn server_word(&self, device: u32) -> Result<ServerWord, LayoutError> {
        let (Some(block), Some(words)) = (self.device(device), self.server_words.get(device as usize)) else {
            return Ok(ServerWord::Unopened);
        };
        let found = block.server.0.look();
        let known = SERVER_WORDS.into_iter().zip(words).find(|(_, word)| **word == found);
        known.map(|(word, _)| word).ok_or(LayoutError::ServerWord { device, found })
    }

    fn sealed_server_word(&self, device: u32, word: ServerWord) -> u64 {
        self.seals.seal_word(device, DeviceWord::Server, word as u32)
    }

    /// What the client's word of a device says: its opener's number plus 1 and [`layout::CLIENT_CLOSED`], and the word as
    /// it was found.
    fn client_value(&self, device: u32) -> Result<(u32, u64), LayoutError> {
        let Some(block) = self.device(device) else { return Ok((0, 0)) };
        let found = block.client.0.load(Ordering::Acquire);
        let value = self.seals.open_word(device, DeviceWord::Client, found);
        value.map(|value| (value, found)).ok_or(LayoutError::ClientWord { device, found })
    }

    /// Who has a device, on the client's side; nobody where the set does not have it.
    ///
    /// # Errors
    /// [`LayoutError::ClientWord`] for a word that no client of this set wrote.
    pub fn client_word(&self, device: u32) -> Result<ClientWord, LayoutError> {
        Ok(match self.client_value(device)?.0 {
            0 => ClientWord::Unopened,
            value if value & layout::CLIENT_CLOSED != 0 => ClientWord::Closed,
            value => ClientWord::Open { member: value - 1 },
        })
    }

    /// The member that opened a device, and whether VD_E_CLOSE was returned to it.
    ///
    /// # Errors
    /// [`LayoutError::ClientWord`] for a word that no client of this set wrote.
    pub fn opener(&self, device: u32) -> Result<(Option<u32>, bool), LayoutError> {
        let (value, _) = self.client_value(device)?;
        Ok(((value & !layout::CLIENT_CLOSED).checked_sub(1), value & layout::CLIENT_CLOSED != 0))
    }

    /// Client: opens a device for `member`; false when somebody has it.
    pub fn open_device(&self, device: u32, member: u32) -> bool {
        let Some(block) = self.device(device) else { return false };
        let word = self.seals.seal_word(device, DeviceWord::Client, member + 1);
        let opened = block.client.0.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if opened {
            self.header.counts.0.opened.fetch_add(1, Ordering::AcqRel);
        }
        opened
    }

    /// Client: VD_E_CLOSE was returned for a device that this process opened. Call it once.
    pub fn close_device(&self, device: u32) {
        // A word that was written over stays as it is, for others to find.
        if let (Some(block), Ok((value, found))) = (self.device(device), self.client_value(device)) {
            let word = self.seals.seal_word(device, DeviceWord::Client, value | layout::CLIENT_CLOSED);
            let _ = block.client.0.compare_exchange(found, word, Ordering::AcqRel, Ordering::Acquire);
            self.header.counts.0.closed.fetch_add(1, Ordering::AcqRel);
            wait::ring(self.set_doorbell());
        }
    }

    /// Server: announces a device by its name; clients can open it from now on.
    pub fn announce_device(&self, device: u32, name: &str) {
        if let Some(block) = self.device(device) {
            let bytes = &name.as_bytes()[..name.len().min(MAX_NAME_BYTES)];
            let (seal, open) = (self.seals.name(device, bytes), self.sealed_server_word(device, ServerWord::Open));
            block.name.0.announce(bytes, seal, &block.server.0, open);
            wait::ring(self.set_doorbell());
        }
    }

    /// Server: closes a device; once its ring is empty GetCommand returns VD_E_CLOSE.
    pub fn server_close_device(&self, device: u32) {
        if let Some(block) = self.device(device) {
            block.server.0.write(self.sealed_server_word(device, ServerWord::Closed));
            wait::ring(&block.doorbell);
            wait::ring(self.set_doorbell());
        }
    }

    /// The name of a device, `None` while the server has not opened it.
    ///
    /// # Errors
    /// [`LayoutError`] when the words are none that a server writes.
    pub fn device_name(&self, device: u32) -> Result<Option<String>, LayoutError> {
        let Some(block) = self.device(device) else { return Ok(None) };
        if self.server_word(device)? == ServerWord::Unopened {
            return Ok(None);
        }
        let bad = |len| LayoutError::DeviceName { device, len };
        let (bytes, seal) = block.name.0.read().map_err(bad)?;
        let bad = bad(bytes.len() as u32);
        if seal != self.seals.name(device, &bytes) {
            return Err(bad);
        }
        let name = String::from_utf8(bytes).map_err(|_| bad)?;
        check_name(&name).map_err(|_| bad)?;
        Ok(Some(name))
    }

    fn ring(&self, device: u32, offset: u64) -> Result<Shared<RingMemory>, ShmError> {
        Ok(self.mapping.place(layout::device_offset(device) + offset)?)
    }

    /// Server: sends commands to a device. One a device.
    ///
    /// # Errors
    /// [`ShmError`] never for a device that exists.
    pub fn submission_producer(&self, device: u32) -> Result<Producer<Shared<RingMemory>>, ShmError> {
        let ring = self.ring(device, layout::SUBMISSION_OFFSET)?;
        Ok(Producer::new(ring, self.seals.ring(device, Ring::Submission)))
    }

    /// Client: receives the commands of a device. One a device.
    ///
    /// # Errors
    /// [`ShmError`] never for a device that exists.
    pub fn submission_consumer(&self, device: u32) -> Result<Consumer<Shared<RingMemory>>, ShmError> {
        let ring = self.ring(device, layout::SUBMISSION_OFFSET)?;
        Ok(Consumer::new(ring, self.seals.ring(device, Ring::Submission)))
    }

    /// Client: sends completions from a device. One a device.
    ///
    /// # Errors
    /// [`ShmError`] never for a device that exists.
    pub fn completion_producer(&self, device: u32) -> Result<Producer<Shared<RingMemory>>, ShmError> {
        let ring = self.ring(device, layout::COMPLETION_OFFSET)?;
        Ok(Producer::new(ring, self.seals.ring(device, Ring::Completion)))
    }

    /// Server: receives the completions of a device. One a device.
    ///
    /// # Errors
    /// [`ShmError`] never for a device that exists.
    pub fn completion_consumer(&self, device: u32) -> Result<Consumer<Shared<RingMemory>>, ShmError> {
        let ring = self.ring(device, layout::COMPLETION_OFFSET)?;
        Ok(Consumer::new(ring, self.seals.ring(device, Ring::Completion)))
    }
}

impl DeviceBlock {
    /// The doorbell of whoever waits for this device's commands.
    #[must_use]
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

#[cfg(test)]
mod tests;
