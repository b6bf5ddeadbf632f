//! The control segment as typed memory: [`vdi_proto::wire::layout`] with addresses.
//!
//! | part | written by |
//! |---|---|
//! | identity | the primary, before anybody joins |
//! | abort word and text | any member, once |
//! | event counts | any member |
//! | a device's server word and name, its submission ring | the server ([`ServerControl`]) |
//! | a device's client word, its completion ring | the member that opened the device ([`ClientControl`]) |
//! | slot table | see [`crate::set::slots`] |
//!
//! # Invariants
//!
//! 1. Offsets follow from the geometry, which is validated when the segment is attached. No offset is read from shared
//!    memory.
//! 2. The words of a device, its name, and the records in its rings carry checksums. A word with a wrong checksum is a
//!    violation. The creator writes the initial words, so memory that was zeroed is a violation, too.
//! 3. A device is opened by a compare-and-swap on its client word. One member gets it, and gets its ring ends with it.
//! 4. The server takes the ring ends of each device once.
#![allow(unsafe_code)] // `SharedLayout` of the structs below

mod client;
mod server;

#[cfg(all(test, not(loom)))]
mod tests;

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use static_assertions::{const_assert, const_assert_eq};
use thiserror::Error;
use vdi_proto::abort::AbortReason;
use vdi_proto::index::{DeviceIndex, MAX_SLOTS, MemberIndex, SlotIndex};
use vdi_proto::name::check_name;
use vdi_proto::wire::checksum::{Checksums, DeviceWord};
use vdi_proto::wire::layout::{self, ClientWord, Geometry, LayoutError, RawIdentity, ServerWord};

pub use self::client::{ClientControl, ClientRings};
pub use self::server::{ServerControl, ServerRings};
use super::abort::Abort;
use super::abort_word::{AbortText, AbortWord};
use super::device_name::{Announcement, Name};
use super::record_ring::Ring;
use super::slots::Slot;
use crate::ipc::event_count::EventCount;
use crate::ipc::segment::{Mapping, Segment, SegmentError, Shared, SharedLayout};
use crate::ipc::wait;

/// Padded to a cache line (false sharing).
#[derive(Debug)]
#[repr(C, align(64))]
struct Line<T>(T);

#[derive(Debug)]
#[repr(C)]
struct Hints {
    devices_opened: AtomicU32,
    server_needs_cpus: AtomicU32,
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
    set_event: EventCount,
    agent_event: EventCount,
    hints: Line<Hints>,
    abort_text: Line<AbortText>,
}

const_assert_eq!(offset_of!(Header, magic), layout::IDENTITY_OFFSET as usize);
const_assert_eq!(offset_of!(Header, abort), layout::ABORT_OFFSET as usize);
const_assert_eq!(offset_of!(Header, set_event), layout::SET_EVENTS_OFFSET as usize);
const_assert_eq!(offset_of!(Header, agent_event), layout::AGENT_EVENTS_OFFSET as usize);
const_assert_eq!(offset_of!(Header, hints) + offset_of!(Hints, devices_opened), layout::DEVICES_OPENED_OFFSET as usize);
const_assert_eq!(
    offset_of!(Header, hints) + offset_of!(Hints, server_needs_cpus),
    layout::SERVER_NEEDS_CPUS_OFFSET as usize
);
const_assert_eq!(offset_of!(Header, abort_text), layout::ABORT_TEXT_OFFSET as usize);

/// The block of a device, up to its rings.
#[derive(Debug)]
#[repr(C)]
struct DeviceBlock {
    server: Line<Announcement>,
    client: Line<AtomicU64>,
    event: EventCount,
    name: Line<Name>,
}

const_assert_eq!(offset_of!(DeviceBlock, server), layout::DEVICE_SERVER_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, client), layout::DEVICE_CLIENT_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, event), layout::DEVICE_EVENTS_OFFSET as usize);
const_assert_eq!(offset_of!(DeviceBlock, name), layout::DEVICE_NAME_OFFSET as usize);
const_assert!(size_of::<DeviceBlock>() <= layout::SUBMISSION_OFFSET as usize);

/// The slot table.
#[derive(Debug)]
#[repr(C)]
struct SlotTable([Slot; MAX_SLOTS as usize]);

const_assert_eq!(size_of::<Slot>(), layout::SLOT_LEN as usize);

// SAFETY: `repr(C)`, atomics and structs of atomics only, so any bytes are valid.
unsafe impl SharedLayout for Header {}
// SAFETY: as above; rings, event counts and names are `repr(C)` structs of atomics.
unsafe impl SharedLayout for DeviceBlock {}
// SAFETY: an array of slots, which are `repr(C)` structs of atomics.
unsafe impl SharedLayout for SlotTable {}

/// A device's parts of the control segment.
#[derive(Debug)]
struct Device {
    block: Shared<DeviceBlock>,
    submission: Shared<Ring>,
    completion: Shared<Ring>,
}

/// Why a segment could not be made or attached as a control segment.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The memory could not be made, taken or mapped.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// It is no control segment, or one of another version.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The control segment of a set, attached. What every member may do; [`ServerControl`] and [`ClientControl`] have the rest.
#[derive(Debug)]
pub struct Control {
    header: Shared<Header>,
    devices: Vec<Device>,
    slots: Shared<SlotTable>,
    geometry: Geometry,
    checksums: Checksums,
}

impl Control {
    /// A new control segment for a set of `device_count` devices, 1 to 64.
    ///
    /// # Errors
    /// [`AttachError`] (VD_E_MEMORY) when the system refuses the memory.
    pub fn create(device_count: u32, checksums: Checksums) -> Result<(Control, Segment), AttachError> {
        let segment = Segment::create("vdi-control", layout::control_len(device_count))?;
        let mapping = Arc::new(segment.map()?);
        let header: Shared<Header> = mapping.shared(0)?;
        let identity = RawIdentity::new(device_count);
        header.magic.store(identity.magic, Ordering::Relaxed);
        header.version.store(identity.version, Ordering::Relaxed);
        header.device_count.store(identity.device_count, Ordering::Relaxed);
        header.len.store(identity.len, Ordering::Relaxed);
        let control = Control::attach_mapping(mapping, checksums)?;
        for device in control.devices() {
            let Device { block, submission, completion } = control.parts(device);
            let unopened = |which| control.checksums.word(device, which, 0);
            block.server.0.store(unopened(DeviceWord::Server));
            block.client.0.store(unopened(DeviceWord::Client), Ordering::Relaxed);
            submission.init();
            completion.init();
        }
        Ok((control, segment))
    }

    /// Attaches a control segment that a peer passed.
    ///
    /// # Errors
    /// [`AttachError`] when it is no control segment, or one of another version.
    pub fn attach(segment: &Segment, checksums: Checksums) -> Result<Control, AttachError> {
        Control::attach_mapping(Arc::new(segment.map()?), checksums)
    }

    fn attach_mapping(mapping: Arc<Mapping>, checksums: Checksums) -> Result<Control, AttachError> {
        let header: Shared<Header> = mapping.shared(0)?;
        let identity = RawIdentity {
            magic: header.magic.load(Ordering::Relaxed),
            version: header.version.load(Ordering::Relaxed),
            device_count: header.device_count.load(Ordering::Relaxed),
            len: header.len.load(Ordering::Relaxed),
        };
        let geometry = identity.check(mapping.len() as u64)?;
        let count = geometry.device_count();
        let device = |device| {
            let offset = layout::device_offset(device);
            Ok::<_, SegmentError>(Device {
                block: mapping.shared(offset)?,
                submission: mapping.shared(offset + layout::SUBMISSION_OFFSET)?,
                completion: mapping.shared(offset + layout::COMPLETION_OFFSET)?,
            })
        };
        let devices = DeviceIndex::all(count).map(device).collect::<Result<_, _>>()?;
        let slots = mapping.shared(layout::slots_offset(count))?;
        Ok(Control { header, devices, slots, geometry, checksums })
    }

    /// Devices of the set.
    #[must_use]
    pub fn device_count(&self) -> u32 {
        self.geometry.device_count()
    }

    /// All devices of the set.
    pub fn devices(&self) -> impl Iterator<Item = DeviceIndex> + use<> {
        DeviceIndex::all(self.device_count())
    }

    /// The device with this number; `None` if the set has fewer.
    #[must_use]
    pub fn device(&self, number: u32) -> Option<DeviceIndex> {
        DeviceIndex::new(number).filter(|device| device.get() < self.device_count())
    }

    /// # Panics
    /// Never for a device of this set, which [`Control::device`] and [`Control::devices`] give.
    #[inline]
    fn parts(&self, device: DeviceIndex) -> &Device {
        &self.devices[device.as_usize()]
    }

    #[inline]
    fn block(&self, device: DeviceIndex) -> &DeviceBlock {
        &self.parts(device).block
    }

    /// A slot of the slot table.
    #[must_use]
    #[inline]
    pub fn slot(&self, slot: SlotIndex) -> &Slot {
        &self.slots.0[slot.as_usize()]
    }

    /// Primary: clears the leases of a member that left or died.
    pub(crate) fn void_leases(&self, member: MemberIndex) {
        for slot in &self.slots.0 {
            slot.void_lease(member);
        }
    }

    // ---- events and the abort

    /// Notified of everything that happens to the set as a whole.
    #[must_use]
    pub fn set_event(&self) -> &EventCount {
        &self.header.set_event
    }

    /// Notified of completions, for the server's completion agent.
    #[must_use]
    pub fn agent_event(&self) -> &EventCount {
        &self.header.agent_event
    }

    /// Notified of commands and of the closing of one device.
    #[must_use]
    pub fn device_event(&self, device: DeviceIndex) -> &EventCount {
        &self.block(device).event
    }

    /// Wakes every sleeper of the set. Also wakes sleepers whose notifier died between its two steps.
    pub fn notify_all(&self) {
        self.set_event().notify_always();
        self.agent_event().notify_always();
        for device in &self.devices {
            device.block.event.notify_always();
        }
    }

    /// Why the set was aborted, if it was. [`crate::set::session::Session::abort_reason`] also knows an abort whose word was
    /// overwritten.
    #[must_use]
    #[inline]
    pub fn abort_reason(&self) -> Option<AbortReason> {
        self.header.abort.0.load()
    }

    /// The code and the text that a process wrote with the abort for this reason.
    pub(crate) fn abort_text(&self, reason: AbortReason) -> Option<(u32, String)> {
        self.header.abort_text.0.read(self.checksums, reason)
    }

    /// Aborts the set unless it is aborted already, and wakes everybody. Returns the reason that stands. One thread of a process
    /// calls it at a time.
    pub fn abort(&self, abort: &Abort) -> AbortReason {
        let Abort { reason, code, text } = abort;
        if (*code, &**text) != (0, "") && self.abort_reason().is_none() {
            self.header.abort_text.0.write(self.checksums, *reason, *code, text);
        }
        let stands = self.header.abort.0.set(*reason);
        self.notify_all();
        stands
    }

    // ---- what a device says

    /// The server's word of a device.
    ///
    /// # Errors
    /// [`LayoutError::ServerWord`] for a word that no server of this set wrote.
    #[inline]
    pub fn server_word(&self, device: DeviceIndex) -> Result<ServerWord, LayoutError> {
        let found = self.block(device).server.0.load();
        let value = self.checksums.check_word(device, DeviceWord::Server, found);
        value.and_then(ServerWord::from_word).ok_or(LayoutError::ServerWord { device, found })
    }

    /// The client's word of a device: which member opened it, and whether VD_E_CLOSE was returned there.
    ///
    /// # Errors
    /// [`LayoutError::ClientWord`] for a word that no client of this set wrote.
    pub fn client_word(&self, device: DeviceIndex) -> Result<ClientWord, LayoutError> {
        self.load_client_word(device).map(|(word, _)| word)
    }

    /// The client's word, and as it was found.
    fn load_client_word(&self, device: DeviceIndex) -> Result<(ClientWord, u64), LayoutError> {
        let found = self.block(device).client.0.load(Ordering::Acquire);
        let value = self.checksums.check_word(device, DeviceWord::Client, found);
        let word = value.and_then(ClientWord::from_word).ok_or(LayoutError::ClientWord { device, found })?;
        Ok((word, found))
    }

    /// Whether every device has returned VD_E_CLOSE.
    #[must_use]
    pub fn all_closed(&self) -> bool {
        self.devices().all(|device| matches!(self.client_word(device), Ok(ClientWord::Closed { .. })))
    }

    /// Whether the server has closed every device.
    #[must_use]
    pub fn server_closed_all(&self) -> bool {
        self.devices().all(|device| self.server_word(device) == Ok(ServerWord::Closed))
    }

    /// The name of a device; `None` until the server opens it.
    ///
    /// # Errors
    /// [`LayoutError`] for a word or a name that no server of this set wrote.
    pub fn device_name(&self, device: DeviceIndex) -> Result<Option<String>, LayoutError> {
        if self.server_word(device)? == ServerWord::Unopened {
            return Ok(None);
        }
        let bad = |len| LayoutError::DeviceName { device, len };
        let (bytes, checksum) = self.block(device).name.0.read().map_err(bad)?;
        let bad = bad(bytes.len() as u32);
        if checksum != self.checksums.name(device, &bytes) {
            return Err(bad);
        }
        let name = String::from_utf8(bytes).map_err(|_| bad)?;
        check_name(&name).map_err(|_| bad)?;
        Ok(Some(name))
    }

    // ---- hints: any member can write them, and nothing but speed depends on them

    /// Whether a client has opened a device.
    #[must_use]
    pub fn any_device_opened(&self) -> bool {
        self.header.hints.0.devices_opened.load(Ordering::Acquire) > 0
    }

    /// How long a wait for a command or a completion spins before it sleeps: [`wait::spin`], or zero if the server needs
    /// every CPU.
    #[must_use]
    pub fn spin(&self) -> Duration {
        if self.header.hints.0.server_needs_cpus.load(Ordering::Relaxed) == 0 { wait::spin() } else { Duration::ZERO }
    }
}
