//! Sets as C++ programs use them: a set owns its devices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_client::ClientVirtualDeviceSet;
use vdi_client::raw::RawDevice;
use vdi_ffi::{Failure, Registry};

use crate::abi::DeviceObject;
use crate::device::{Device, retire};
use crate::report::options;

/// All sets of the program, by the keys in its objects.
pub(crate) static SETS: Registry<Set> = Registry::new();

/// What a ClientVirtualDeviceSet stands for.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) client: ClientVirtualDeviceSet,
    devices: Mutex<Vec<Arc<Device>>>,
}

impl Set {
    /// An object without a set. Where the environment cannot be understood, `options` fails the calls that make a set.
    pub(crate) fn new() -> Set {
        let client = ClientVirtualDeviceSet::with_options(options().unwrap_or_default());
        Set { client, devices: Mutex::default() }
    }

    fn devices(&self) -> MutexGuard<'_, Vec<Arc<Device>>> {
        // Each change is one step, so a poisoned lock is safe to use.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open_device(&self, name: &str) -> Result<DeviceObject, Failure> {
        let (device, object) = Device::open(RawDevice::new(self.client.open_device(name)?))?;
        self.devices().push(device);
        Ok(object)
    }

    /// Close: ends the waits of other threads, and retires the devices.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let result = self.client.close();
        // After the close: a device that is retired before it would abort the set for another reason.
        retire(core::mem::take(&mut *self.devices()));
        Ok(result?)
    }
}
