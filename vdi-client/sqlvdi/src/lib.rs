// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[..]: ../vdi_client/index.html"]
#![doc = "[../../vdi-server-sim]: ../vdi_server_sim/index.html"]
#![doc = "[../../vdi-shm/docs/runtime-directory.md#root-beside-a-service-user]: ../vdi_shm/docs/runtime_directory/index.html#root-beside-a-service-user"]
#![doc = "[../../vdi-server-sim/docs/sqlcmd.md]: ../vdi_server_sim/docs/sqlcmd/index.html"]
#![doc = "[../../vdi-server-sim/tests/programs]: docs"]
#![doc = "[include/vdi.h]: docs::header"]
#![doc = "[../ffi-base]: ../vdi_ffi/index.html"]
#![doc = include_str!("../README.md")]
//! # Invariants of the implementation
//!
//! 1. Exactly the 19 functions below are exported. The classes have no virtual functions, and an object is 8 bytes: a
//!    key, which its constructor writes, and by which the library looks up what the object stands for
//!    ([`vdi_ffi::registry`]). No call follows a pointer that it read from an object.
//! 2. No call crashes the program. Null pointers, objects that were never constructed or are destroyed, names without
//!    an end, pointers that are no commands: VD_E_INVALID or VD_E_PROTOCOL.
//! 3. No panic crosses the boundary: it is VD_E_UNEXPECTED ([`vdi_ffi::call`](mod@vdi_ffi::call)).
//! 4. The library needs no destructor: Close, or the end of the process, ends a set.
//! 5. A set belongs to the process that created or joined it. In a fork the objects are without a set, and neither its
//!    calls nor its end change anything for the first process.
//!
//! | module | what it holds |
//! |---|---|
//! | `abi` | layouts, objects, command blocks; all `unsafe` code of this crate |
//! | `set`, `device` | what objects stand for |
//! | `report` | messages, time-outs |
//!
//! Source: VDI specification, and for names and layouts the published C++ header of the interface on Linux. A mangled
//! name stands for `Class::Function(argument types)`; the functions of one pair of constructors or destructors do the
//! same, since the classes have no bases.

mod abi;
mod device;
#[cfg(doc)]
pub mod docs {
    //! The header. The agents in C++ are in the repository, in `vdi-server-sim/tests/programs`.

    pub mod header {
        //! `include/vdi.h`
        //! ```cpp
        #![doc = include_str!("../include/vdi.h")]
        //! ```
    }
}
mod report;
mod set;

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::Arc;

use vdi_client::{BufferHandle, VdConfig, VdError};
use vdi_ffi::{Argument, Failure, Key, Missing};

use crate::abi::{ConfigBlock, VdcCommand};
use crate::device::{DEVICES, Device};
use crate::report::{answer, command_advice, command_timeout, configuration_timeout};
use crate::set::{SETS, Set};

/// `this` of both classes.
type This = Argument<Key>;

fn set_of(this: This) -> Result<Arc<Set>, Failure> {
    let key = this.read("the set")?;
    let set = SETS.get(key).or_else(|missing| match missing {
        Missing::Unknown => Err(missing),
        // The set stays with the process that made it. The fork may use the object for another set.
        Missing::Inherited => SETS.replace_inherited(key, Set::new()),
    });
    set.map_err(|_| Failure::invalid("the set was destroyed, or never constructed"))
}

fn device_of(this: This) -> Result<Arc<Device>, Failure> {
    DEVICES.get(this.read("the device")?).map_err(|missing| match missing {
        Missing::Unknown => Failure::invalid("not a device that OpenDevice returned, or one that is long over"),
        Missing::Inherited => {
            let what =
                "the device is open in the process of which this one is a fork; open devices here to use them here";
            Failure::new(VdError::Protocol, what)
        }
    })
}

// Constructors and destructors.

fn construct_set(this: This) {
    answer("ClientVirtualDeviceSet", || {
        report::read_environment();
        this.check("the set")?;
        let (key, _) = SETS.insert(|_| Set::new());
        this.write("the set", key)
    });
}

fn destroy_set(this: This) {
    answer("~ClientVirtualDeviceSet", || {
        let key = this.read("the set")?;
        if let Ok(set) = SETS.remove(key) {
            this.write("the set", 0)?;
            // It may have no set. The other processes hear from the abort that devices were open.
            let _ = set.close();
        }
        Ok(())
    });
}

/// A device that the program constructs has no set: only OpenDevice makes devices.
fn construct_device(this: This) {
    answer("ClientVirtualDevice", || this.write("the device", 0));
}

fn destroy_device(this: This) {
    answer("~ClientVirtualDevice", || {
        let key = this.read("the device")?;
        this.write("the device", 0)?;
        Device::destroy(key, this.address().addr());
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
        report::options()?;
        Ok(set.client.create(&name, &config)?)
    })
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet16GetConfigurationElP8VDConfig")]
extern "C" fn set_get_configuration(this: This, timeout: c_long, config: Argument<ConfigBlock>) -> c_int {
    answer("GetConfiguration", || {
        let set = set_of(this)?;
        config.check("the configuration")?;
        let negotiated = set.client.get_configuration(configuration_timeout(timeout))?;
        config.write("the configuration", negotiated.to_words())
    })
}

#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet10OpenDeviceEPcPP19ClientVirtualDevice")]
extern "C" fn set_open_device(this: This, name: Argument<c_char>, device: Argument<*mut c_void>) -> c_int {
    answer("OpenDevice", || {
        // A program that ignores the status finds a null pointer, which later calls refuse.
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
        report::options()?;
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

/// Takes no lease, since the interface has no call that ends one: the command could never be completed (VD_E_BUSY).
#[unsafe(export_name = "_ZN22ClientVirtualDeviceSet15MapBufferHandleEiPPh")]
extern "C" fn set_map_buffer_handle(this: This, handle: c_int, buffer: Argument<*mut u8>) -> c_int {
    answer("MapBufferHandle", || {
        let set = set_of(this)?;
        buffer.write("the place for the buffer", core::ptr::null_mut())?;
        let handle = BufferHandle::from_number(handle.cast_unsigned());
        buffer.write("the place for the buffer", set.client.map_buffer_address(handle)?.as_ptr())
    })
}

/// Does nothing: the library learns from GetCommand that a device was closed.
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
        let timeout = command_timeout(timeout);
        let got = device.get_command(timeout).map_err(|failure| {
            let advice = command_advice(timeout, &failure);
            failure.with_advice(advice)
        })?;
        command.write("the place for the command", got)
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
