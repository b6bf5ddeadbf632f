//! The drop-in libsqlvdi.so: the two C++ classes of SQL Server's Virtual Device Interface on Linux, with the binary interface
//! that programs compiled against Microsoft's header expect, over [`vdi_client`]. Our own header is `include/vdi.h`.
//!
//! # Invariants
//!
//! 1. Exactly the 19 functions below are exported. The classes have no virtual functions, and an object is 8 bytes: a key, which
//!    its constructor writes, and by which the library finds what the object stands for (`registry`). No call follows a pointer
//!    that it found in an object.
//! 2. No call crashes the program. Null pointers, objects that were never made, that are over or destroyed, names without an
//!    end, commands that are no commands: VD_E_INVALID or VD_E_PROTOCOL.
//! 3. No panic crosses the boundary: VD_E_UNEXPECTED (`report::answer`).
//! 4. The library needs no destructor: Close, or the end of the process, ends a set.
//! 5. A set belongs to the process that created or joined it: a fork of that process has objects without a set, and neither its
//!    calls nor its end change anything for the first one.
//!
//! | module | what it holds |
//! |---|---|
//! | `abi` | all `unsafe` code: arguments, objects, command blocks |
//! | `registry` | keys |
//! | `set`, `device` | what objects stand for |
//! | `report` | status codes, messages, time-outs |
//!
//! Source: VDI specification, and for names and layouts the published C++ header of the interface on Linux. A mangled name stands
//! for `Class::Function(argument types)`; the functions of one pair of constructors or destructors do the same, since the
//! classes have no bases.

mod abi;
mod device;
mod registry;
mod report;
mod set;

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong};
use std::sync::Arc;

use vdi_client::{BufferHandle, VdConfig, VdError};

use crate::abi::{Argument, ConfigBlock, Key, VdcCommand};
use crate::device::Device;
use crate::registry::{DEVICES, Missing, SETS, new_key};
use crate::report::{Refusal, answer, get_command_timeout, milliseconds};
use crate::set::Set;

/// `this` of both classes.
type This = Argument<Key>;

fn set_of(this: This) -> Result<Arc<Set>, Refusal> {
    let key = this.read("the set")?;
    SETS.get(key).or_else(|missing| match missing {
        Missing::Unknown => Err(Refusal::new(VdError::Invalid, "the set was destroyed, or never constructed")),
        // The set stays with the process that made it. The object is this one's to use: to join the set, for example.
        Missing::Forked => {
            let set = Arc::<Set>::default();
            SETS.insert(key, Arc::clone(&set));
            Ok(set)
        }
    })
}

fn device_of(this: This) -> Result<Arc<Device>, Refusal> {
    DEVICES.get(this.read("the device")?).map_err(|missing| match missing {
        Missing::Unknown => {
            Refusal::new(VdError::Invalid, "not a device that OpenDevice returned, or one that is long over")
        }
        Missing::Forked => {
            let what =
                "the device is open in the process of which this one is a fork; open devices here to use them here";
            Refusal::new(VdError::Protocol, what)
        }
    })
}

// Constructors and destructors.

fn construct_set(this: This) {
    answer("ClientVirtualDeviceSet", || {
        report::settle();
        this.check("the set")?;
        let key = new_key();
        SETS.insert(key, Arc::default());
        this.write("the set", key)
    });
}

fn destroy_set(this: This) {
    answer("~ClientVirtualDeviceSet", || {
        let key = this.read("the set")?;
        if let Some(set) = SETS.remove(key) {
            this.write("the set", 0)?;
            set.destroy();
        }
        Ok(())
    });
}

/// A device that OpenDevice did not make is none: it has no set.
fn construct_device(this: This) {
    answer("ClientVirtualDevice", || this.write("the device", 0));
}

fn destroy_device(this: This) {
    answer("~ClientVirtualDevice", || {
        let key = this.read("the device")?;
        this.write("the device", 0)?;
        Device::destroy(key, this.address() as usize);
        Ok(())
    });
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSetC1Ev")]
extern "C" fn set_c1(this: This) {
    construct_set(this);
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSetC2Ev")]
extern "C" fn set_c2(this: This) {
    construct_set(this);
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSetD1Ev")]
extern "C" fn set_d1(this: This) {
    destroy_set(this);
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSetD2Ev")]
extern "C" fn set_d2(this: This) {
    destroy_set(this);
}

#[unsafe(export_name = "_ZN19ClientVirtualDeviceC1Ev")]
extern "C" fn device_c1(this: This) {
    construct_device(this);
}

#[unsafe(export_name = "_ZN19ClientVirtualDeviceC2Ev")]
extern "C" fn device_c2(this: This) {
    construct_device(this);
}

#[unsafe(export_name = "_ZN19ClientVirtualDeviceD1Ev")]
extern "C" fn device_d1(this: This) {
    destroy_device(this);
}

#[unsafe(export_name = "_ZN19ClientVirtualDeviceD2Ev")]
extern "C" fn device_d2(this: This) {
    destroy_device(this);
}

// ClientVirtualDeviceSet.

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet6CreateEPcP8VDConfig")]
extern "C" fn set_create(this: This, name: Argument<c_char>, config: Argument<ConfigBlock>) -> c_int {
    answer("Create", || {
        let (set, name) = (set_of(this)?, name.text("the set's name")?);
        let config = VdConfig::from_words(config.read("the configuration")?);
        Ok(set.client.create(&name, &config)?)
    })
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet16GetConfigurationElP8VDConfig")]
extern "C" fn set_get_configuration(this: This, timeout: c_long, config: Argument<ConfigBlock>) -> c_int {
    answer("GetConfiguration", || {
        let set = set_of(this)?;
        config.check("the configuration")?;
        let agreed = set.client.get_configuration(milliseconds(timeout))?;
        config.write("the configuration", agreed.to_words())
    })
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet10OpenDeviceEPcPP19ClientVirtualDevice")]
extern "C" fn set_open_device(this: This, name: Argument<c_char>, device: Argument<*mut core::ffi::c_void>) -> c_int {
    answer("OpenDevice", || {
        // A program that does not look at the status finds a null pointer, which later calls refuse.
        device.write("the place for the device", core::ptr::null_mut())?;
        let (set, name) = (set_of(this)?, name.text("the device's name")?);
        device.write("the place for the device", set.open_device(&name)?.address())
    })
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet5CloseEv")]
extern "C" fn set_close(this: This) -> c_int {
    answer("Close", || set_of(this)?.close())
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet11SignalAbortEv")]
extern "C" fn set_signal_abort(this: This) -> c_int {
    answer("SignalAbort", || Ok(set_of(this)?.client.signal_abort()?))
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet15OpenInSecondaryEPc")]
extern "C" fn set_open_in_secondary(this: This, name: Argument<c_char>) -> c_int {
    answer("OpenInSecondary", || {
        let (set, name) = (set_of(this)?, name.text("the set's name")?);
        Ok(set.client.open_in_secondary(&name)?)
    })
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet15GetBufferHandleEPhPj")]
extern "C" fn set_get_buffer_handle(this: This, buffer: Argument<u8>, handle: Argument<c_uint>) -> c_int {
    answer("GetBufferHandle", || {
        let set = set_of(this)?;
        buffer.check("the buffer")?;
        handle.check("the place for the handle")?;
        handle.write("the place for the handle", set.client.get_buffer_handle(buffer.address())?.number())
    })
}

/// Without a lease, since the interface has no way to end one: a lease that nobody ends would keep the command from being
/// completed (VD_E_BUSY) for ever.
#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet15MapBufferHandleEiPPh")]
extern "C" fn set_map_buffer_handle(this: This, handle: c_int, buffer: Argument<*mut u8>) -> c_int {
    answer("MapBufferHandle", || {
        let set = set_of(this)?;
        buffer.write("the place for the buffer", core::ptr::null_mut())?;
        let handle = BufferHandle::from_number(handle.cast_unsigned());
        buffer.write("the place for the buffer", set.client.map_buffer_address(handle)?.as_ptr())
    })
}

/// For the interface's own use, with nothing to do here: the library learns from GetCommand that a device was closed.
#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet20RegisterDeviceClosedEv")]
extern "C" fn set_register_device_closed(this: This) {
    answer("RegisterDeviceClosed", || set_of(this).map(drop));
}

// ClientVirtualDevice.

#[unsafe(export_name = "_ZN19ClientVirtualDevice10GetCommandElPP11VDC_Command")]
extern "C" fn device_get_command(this: This, timeout: c_long, command: Argument<*mut VdcCommand>) -> c_int {
    answer("GetCommand", || {
        let device = device_of(this)?;
        command.check("the place for the command")?;
        command.write("the place for the command", device.get_command(get_command_timeout(timeout))?)
    })
}

#[unsafe(export_name = "_ZN19ClientVirtualDevice15CompleteCommandEP11VDC_Commandiml")]
extern "C" fn device_complete_command(
    this: This,
    command: Argument<VdcCommand>,
    code: c_int,
    bytes: c_ulong,
    position: c_long,
) -> c_int {
    answer("CompleteCommand", || {
        let device = device_of(this)?;
        command.check("the command")?;
        device.complete_command(command.address(), code, bytes, position)
    })
}
