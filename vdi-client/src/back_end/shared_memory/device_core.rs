//! What a device and its commands share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_proto::abort::Cause;
use vdi_proto::device::{ClientDevice, Entry, Limits};
use vdi_proto::status::VdError;
use vdi_shm::control::DeviceBlock;
use vdi_shm::doorbell::Doorbell;
use vdi_shm::ring::{Producer, RingMemory};
use vdi_shm::segment::Shared;
use vdi_shm::wait;

use super::attachment::Attachment;
use crate::error::{Error, ErrorKind};

/// A device, for its commands and for threads beside its user.
pub(crate) type DeviceRef = Arc<DeviceShared>;

/// What a device and its commands share.
#[derive(Debug)]
pub(crate) struct DeviceShared {
    pub(super) set: Arc<Attachment>,
    pub(super) index: u32,
    name: String,
    block: Shared<DeviceBlock>,
    core: Mutex<Core>,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) machine: ClientDevice<Vec<Entry>>,
    pub(super) completions: Producer<Shared<RingMemory>>,
    /// The machine holds a ClearError back until the program has completed what it has.
    pub(super) holds_back: bool,
}

impl DeviceShared {
    /// `index` is that of a device of the set.
    pub(super) fn new(set: Arc<Attachment>, call: &'static str, index: u32, name: &str) -> Result<DeviceRef, Error> {
        let Some(agreement) = set.session().agreement() else { return Err(set.refuse(call, VdError::Protocol)) };
        let limits = Limits::new(&agreement.config, agreement.slot_bits);
        let Some(block) = set.control().device(index).cloned() else { return Err(set.refuse(call, VdError::Invalid)) };
        let completions = set.control().completion_producer(index);
        let completions = completions.map_err(|error| Error::lower(call, set.set_name(), error))?;
        let machine = ClientDevice::with_table(limits, Vec::new());
        let core = Mutex::new(Core { machine, completions, holds_back: false });
        Ok(Arc::new(DeviceShared { set, index, name: name.to_owned(), block, core }))
    }

    /// What is notified when the device has news for its user.
    pub(super) fn event(&self) -> &Doorbell {
        self.block.doorbell()
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
        wait::ring(self.set.control().agent_doorbell());
        if holds_back {
            wait::ring(self.block.doorbell());
        }
    }
}
