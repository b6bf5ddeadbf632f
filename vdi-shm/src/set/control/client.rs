//! What only a client does in the control segment.

use core::ops::Deref;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use vdi_proto::index::{DeviceIndex, MemberIndex};
use vdi_proto::wire::checksum::{DeviceWord, Ring};
use vdi_proto::wire::layout::{ClientWord, LayoutError};

use super::Control;
use crate::set::record_ring::{CommandReceiver, CompletionSender};

/// The control segment, as a client uses it.
#[derive(Debug, Clone)]
pub struct ClientControl {
    control: Arc<Control>,
    member: MemberIndex,
}

/// The client's ring ends of a device.
#[derive(Debug)]
pub struct ClientRings {
    /// Receives commands.
    pub commands: CommandReceiver,
    /// Sends completions.
    pub completions: CompletionSender,
}

impl Deref for ClientControl {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl ClientControl {
    /// For the process that is `member` of the set.
    #[must_use]
    pub fn new(control: Arc<Control>, member: MemberIndex) -> Self {
        ClientControl { control, member }
    }

    /// Opens a device. `None` if a member has opened it already.
    ///
    /// # Errors
    /// [`LayoutError::ClientWord`] for a word that no client of this set wrote.
    pub fn open_device(&self, device: DeviceIndex) -> Result<Option<ClientRings>, LayoutError> {
        let (ClientWord::Unopened, found) = self.load_client_word(device)? else { return Ok(None) };
        let block = self.block(device);
        let word = ClientWord::Open { member: self.member }.to_word();
        let word = self.checksums.word(device, DeviceWord::Client, word);
        if block.client.0.compare_exchange(found, word, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Ok(None);
        }
        self.header.hints.0.devices_opened.fetch_add(1, Ordering::AcqRel);
        let (parts, key) = (self.parts(device), |ring| self.checksums.ring(device, ring));
        Ok(Some(ClientRings {
            commands: CommandReceiver::new(parts.submission.clone(), key(Ring::Submission)),
            completions: CompletionSender::new(parts.completion.clone(), key(Ring::Completion)),
        }))
    }

    /// Records that VD_E_CLOSE was returned for a device that this member opened. Nothing changes for another member's device.
    /// A word with a wrong checksum stays as it is, for the others to find.
    pub fn close_device(&self, device: DeviceIndex) {
        let Ok((ClientWord::Open { member }, found)) = self.load_client_word(device) else { return };
        if member != self.member {
            return;
        }
        let word = ClientWord::Closed { member }.to_word();
        let word = self.checksums.word(device, DeviceWord::Client, word);
        let _ = self.block(device).client.0.compare_exchange(found, word, Ordering::AcqRel, Ordering::Acquire);
        self.set_event().notify();
    }
}
