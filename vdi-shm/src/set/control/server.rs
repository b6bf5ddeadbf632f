//! What only the server does in the control segment.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use vdi_proto::index::DeviceIndex;
use vdi_proto::name::MAX_NAME_BYTES;
use vdi_proto::wire::checksum::{DeviceWord, Ring};
use vdi_proto::wire::layout::ServerWord;

use super::Control;
use crate::set::record_ring::{CommandSender, CompletionReceiver};

/// The control segment, as the server uses it.
#[derive(Debug)]
pub struct ServerControl {
    control: Arc<Control>,
    /// One bit a device whose ring ends were taken.
    taken: AtomicU64,
}

/// The server's ring ends of a device.
#[derive(Debug)]
pub struct ServerRings {
    /// Sends commands.
    pub commands: CommandSender,
    /// Receives completions.
    pub completions: CompletionReceiver,
}

impl Deref for ServerControl {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl ServerControl {
    /// One a process and set.
    #[must_use]
    pub fn new(control: Arc<Control>) -> Self {
        ServerControl { control, taken: AtomicU64::new(0) }
    }

    /// The ring ends of a device; `None` the second time.
    #[must_use]
    pub fn take_rings(&self, device: DeviceIndex) -> Option<ServerRings> {
        let bit = 1 << device.get();
        if self.taken.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return None;
        }
        let (parts, key) = (self.parts(device), |ring| self.checksums.ring(device, ring));
        Some(ServerRings {
            commands: CommandSender::new(parts.submission.clone(), key(Ring::Submission)),
            completions: CompletionReceiver::new(parts.completion.clone(), key(Ring::Completion)),
        })
    }

    fn write_word(&self, device: DeviceIndex, word: ServerWord) {
        let word = self.checksums.word(device, DeviceWord::Server, word.to_word());
        self.block(device).server.0.store(word);
    }

    /// Announces a device by its name. From now on a client can open it.
    pub fn announce_device(&self, device: DeviceIndex, name: &str) {
        let bytes = &name.as_bytes()[..name.len().min(MAX_NAME_BYTES)];
        self.block(device).name.0.write(bytes, self.checksums.name(device, bytes));
        self.write_word(device, ServerWord::Open);
        self.set_event().notify();
    }

    /// Closes a device. Once its ring is empty, GetCommand returns VD_E_CLOSE.
    pub fn close_device(&self, device: DeviceIndex) {
        self.write_word(device, ServerWord::Closed);
        self.device_event(device).notify();
        self.set_event().notify();
    }

    /// Tells clients that the server needs every CPU, so that their waits do not spin.
    pub fn needs_cpus(&self) {
        self.header.hints.0.server_needs_cpus.store(1, Ordering::Relaxed);
    }
}
