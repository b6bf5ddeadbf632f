//! The words of a control segment, as a process sees them that has its descriptor: where they are, and what is there now.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use vdi_proto::index::DeviceIndex;
use vdi_proto::wire::layout::{
    self, COMPLETION_OFFSET, RING_CAPACITY, RING_ENTRIES_OFFSET, RING_ENTRY_LEN, RING_HEAD_OFFSET, SLOT_LEN,
    SLOT_WORD_OFFSET, SUBMISSION_OFFSET,
};

/// In an entry of a ring: the record's words, after the sequence number.
pub(crate) const ENTRY_WORDS: u64 = 8;

/// Slots that a small set may have lent; those behind them are nobody's.
pub(crate) const SLOTS_IN_USE: u32 = 64;

/// A control segment. It is written through its descriptor, which everybody's mappings show at once.
#[derive(Debug)]
pub(crate) struct Words {
    file: File,
    pub(crate) devices: u32,
}

impl Words {
    pub(crate) fn new(descriptor: OwnedFd, devices: u32) -> Words {
        Words { file: File::from(descriptor), devices }
    }

    pub(crate) fn try_clone(&self) -> Words {
        Words { file: self.file.try_clone().unwrap(), devices: self.devices }
    }

    pub(crate) fn len(&self) -> u64 {
        layout::control_len(self.devices)
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn put_u32(&self, at: u64, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put_u64(&self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub(crate) fn get_u32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn get_u64(&self, at: u64) -> u64 {
        u64::from(self.get_u32(at)) | u64::from(self.get_u32(at + 4)) << 32
    }

    pub(crate) fn slot(&self, slot: u32) -> u64 {
        layout::slots_offset(self.devices) + u64::from(slot) * SLOT_LEN
    }

    /// The slots that are lent now.
    pub(crate) fn lent(&self) -> Vec<u32> {
        let is_lent = |slot: &u32| self.get_u32(self.slot(*slot) + SLOT_WORD_OFFSET) == 1;
        (0..SLOTS_IN_USE).filter(is_lent).collect()
    }
}

/// The offset of a device's block.
pub(crate) fn device_offset(device: u32) -> u64 {
    layout::device_offset(DeviceIndex::new(device).unwrap())
}

/// A ring of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring(u64);

impl Ring {
    pub(crate) fn of(device: u32, completions: bool) -> Ring {
        Ring(device_offset(device) + if completions { COMPLETION_OFFSET } else { SUBMISSION_OFFSET })
    }

    pub(crate) fn cursor(self) -> u64 {
        self.0 + RING_HEAD_OFFSET
    }

    /// The entry of a record by its number in the ring, from 0.
    pub(crate) fn entry(self, number: u64) -> u64 {
        self.0 + RING_ENTRIES_OFFSET + number % u64::from(RING_CAPACITY) * RING_ENTRY_LEN
    }
}
