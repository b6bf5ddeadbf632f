//! What a device and its commands share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_proto::abort::Cause;
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::{ClientDevice, Limits};
use vdi_proto::index::DeviceIndex;
use vdi_proto::status::VdError;
use vdi_shm::ipc::event_count::EventCount;
use vdi_shm::set::record_ring::CompletionSender;

use super::attachment::Attachment;
use crate::error::{Error, ErrorKind};

/// A device, for its commands and for threads beside its user.
pub(crate) type DeviceRef = Arc<DeviceShared>;

/// What a device and its commands share.
#[derive(Debug)]
pub(crate) struct DeviceShared {
    pub(super) set: Arc<Attachment>,
    pub(super) index: DeviceIndex,
    name: String,
    core: Mutex<Core>,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) machine: ClientDevice,
    pub(super) completions: CompletionSender,
    /// The machine holds a ClearError back until the program has completed what it has.
    pub(super) holds_back: bool,
}

impl DeviceShared {
    pub(super) fn new(
        set: Arc<Attachment>,
        call: &'static str,
        index: DeviceIndex,
        name: &str,
        completions: CompletionSender,
    ) -> Result<DeviceRef, Error> {
        let Some(config) = set.config() else { return Err(set.refuse(call, VdError::Protocol)) };
        let core = Core { machine: ClientDevice::new(Limits::new(&config)), completions, holds_back: false };
        Ok(Arc::new(DeviceShared { set, index, name: name.to_owned(), core: Mutex::new(core) }))
    }

    /// What is notified when the device has news for its user.
    pub(super) fn event(&self) -> &EventCount {
        self.set.control().device_event(self.index)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn set_name(&self) -> &str {
        self.set.set_name()
    }

    #[inline]
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        // Its parts are whole at every moment.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn abandon(&self) {
        if !self.set.is_over() {
            self.set.abort(Cause::AbandonedDevice);
        }
    }

    pub(super) fn give_up(&self, code: CompletionCode, why: &str) {
        if !self.set.is_over() {
            self.set.give_up(code, &format!("device {:?}: {why}", self.name));
        }
    }

    pub(crate) fn refuse_unknown(&self, what: &str) -> Error {
        const CALL: &str = "CompleteCommand";
        let interruption = self.set.interruption(CALL).filter(|error| error.code() != VdError::Timeout);
        let error =
            interruption.unwrap_or_else(|| self.set.error(ErrorKind::Misuse, VdError::Invalid, CALL, what.to_owned()));
        error.of_device(&self.name)
    }

    /// A completion was pushed: wakes the server's agent, and a thread here that waits for the program to have no command.
    #[inline]
    pub(super) fn notify_completion(&self, core: MutexGuard<'_, Core>) {
        let holds_back = core.holds_back;
        drop(core);
        self.set.control().agent_event().notify();
        if holds_back {
            self.event().notify();
        }
    }
}
