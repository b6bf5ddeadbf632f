//! Sets as C++ programs use them: they own their devices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_client::ClientVirtualDeviceSet;
use vdi_client::raw::RawDevice;

use crate::abi::DeviceObject;
use crate::device::Device;
use crate::report::Refusal;

/// What a ClientVirtualDeviceSet stands for.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) client: ClientVirtualDeviceSet,
    devices: Mutex<Vec<Arc<Device>>>,
}

impl Set {
    fn devices(&self) -> MutexGuard<'_, Vec<Arc<Device>>> {
        // Whole at every moment.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open_device(&self, name: &str) -> Result<DeviceObject, Refusal> {
        let (device, object) = Device::open(RawDevice::new(self.client.open_device(name)?))?;
        self.devices().push(device);
        Ok(object)
    }

    pub(crate) fn close(&self) -> Result<(), Refusal> {
        let answer = self.client.close();
        // After the close: a device that ends before it would abort the set for another reason.
        let devices = core::mem::take(&mut *self.devices());
        Device::bury(devices);
        Ok(answer?)
    }

    /// The program destroys the object: waits of other threads end.
    pub(crate) fn destroy(&self) {
        // It has no set, or the others hear from the abort that devices were open.
        let _ = self.close();
    }
}
