//! Virtual device sets, for C.

use core::ffi::c_char;

use vdi_client::{ClientVirtualDeviceSet, VdConfig};

use crate::boundary::{self, Failure, Out, call};
use crate::device;
use crate::registry::Registry;
use crate::types::{Config, DeviceHandle, SetHandle};

/// All sets that the program has.
pub(crate) static SETS: Registry<SetHandle, ClientVirtualDeviceSet> = Registry::new("set");

/// The name of an instance, which may be NULL.
///
/// # Safety
/// As [`boundary::string`].
unsafe fn instance<'a>(instance: *const c_char) -> Result<Option<&'a str>, Failure> {
    if instance.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller promises what this asks for.
    unsafe { boundary::string("the instance", instance) }.map(Some)
}

/// Creates a set, so that the server can find it when it gets BACKUP or RESTORE ... VIRTUAL_DEVICE='name'. This process
/// becomes the set's primary.
///
/// instance: the server's instance; NULL or "" for the default one. name: 1 to 128 characters without backslashes and
/// control characters; the first device has this name, too. config: what the client asks for. set: where the set goes; NULL
/// goes there on failure. Free it with vdi_set_free.
///
/// Returns 0; VD_E_INVALID for a NULL or bad name; VD_E_INSTANCE_NAME for what no instance could be called;
/// VD_E_NOTSUPPORTED for a configuration that no server serves; VD_E_PROTOCOL when a live set has this name; VD_E_SECURITY
/// when the runtime directory is not to be trusted; VD_E_MEMORY and VD_E_UNEXPECTED when the system refuses.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::CreateEx.
///
/// # Safety
/// The pointers are NULL or point at two strings, a vdi_config, and a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_create(
    instance: *const c_char,
    name: *const c_char,
    config: *const Config,
    set: *mut *mut SetHandle,
) -> i32 {
    call("vdi_set_create", || {
        // SAFETY: the caller promises that it is NULL or a place for a pointer.
        let out = unsafe { Out::new("set", set) }?;
        out.set(core::ptr::null_mut());
        // SAFETY: the caller promises that it is NULL or a string.
        let instance = unsafe { self::instance(instance) }?;
        // SAFETY: the caller promises that it is NULL or a string.
        let name = unsafe { boundary::string("the name", name) }?;
        // SAFETY: the caller promises that it is NULL or a configuration.
        let config = unsafe { boundary::value("the configuration", config) }?;
        let set = ClientVirtualDeviceSet::new();
        set.create_ex(instance, name, &VdConfig::from(config))?;
        out.set(SETS.insert(set));
        Ok(())
    })
}

/// Joins a set that another process created and configured, to open devices of it here or to work on buffers by their
/// handles. This process becomes a secondary.
///
/// instance, name: as the primary passed them to vdi_set_create. set: where the set goes; NULL goes there on failure. Free it
/// with vdi_set_free.
///
/// Returns 0; VD_E_INVALID and VD_E_INSTANCE_NAME for bad names; VD_E_PROTOCOL when there is no such set, when its primary
/// has not got the configuration yet, and when its work has ended; VD_E_ABORT when it was aborted; VD_E_SECURITY when this
/// process may not join, or does not trust the creator; VD_E_MEMORY when the set has as many processes as it can.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::OpenInSecondaryEx.
///
/// # Safety
/// The pointers are NULL or point at two strings and a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_open_in_secondary(
    instance: *const c_char,
    name: *const c_char,
    set: *mut *mut SetHandle,
) -> i32 {
    call("vdi_set_open_in_secondary", || {
        // SAFETY: the caller promises that it is NULL or a place for a pointer.
        let out = unsafe { Out::new("set", set) }?;
        out.set(core::ptr::null_mut());
        // SAFETY: the caller promises that it is NULL or a string.
        let instance = unsafe { self::instance(instance) }?;
        // SAFETY: the caller promises that it is NULL or a string.
        let name = unsafe { boundary::string("the name", name) }?;
        let set = ClientVirtualDeviceSet::new();
        set.open_in_secondary_ex(instance, name)?;
        out.set(SETS.insert(set));
        Ok(())
    })
}

/// Waits for the server to configure the set, and gives what was agreed. Repeatable at once from then on. A set's primary
/// calls it before anything else.
///
/// timeout_ms: milliseconds; 0 only looks, negative waits for ever. config: where the configuration goes; untouched on
/// failure.
///
/// Returns 0; VD_E_TIMEOUT when no server came in time: look whether the statement failed; VD_E_ABORT; VD_E_PROTOCOL when
/// the set is closed; VD_E_INVALID for bad pointers.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::GetConfiguration.
///
/// # Safety
/// config is NULL or a place for a vdi_config.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_get_configuration(set: *mut SetHandle, timeout_ms: i64, config: *mut Config) -> i32 {
    call("vdi_set_get_configuration", || {
        let set = SETS.get(set)?;
        // SAFETY: the caller promises that it is NULL or a place for a configuration.
        let out = unsafe { Out::new("config", config) }?;
        out.set(set.get_configuration(boundary::timeout(timeout_ms))?.into());
        Ok(())
    })
}

/// Opens a device by its name, for this process. Waits for the server to announce its devices, which it does right after it
/// has configured the set.
///
/// name: as in the statement; case-sensitive; the first device has the set's name. device: where the device goes; NULL goes
/// there on failure. Free it with vdi_device_free.
///
/// Returns 0; VD_E_OPEN when all devices are open; VD_E_PROTOCOL when this one is, before the configuration, and when the set
/// is closed; VD_E_INVALID when the set has no device of this name, and for bad pointers; VD_E_ABORT.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::OpenDevice.
///
/// # Safety
/// The pointers are NULL or point at a string and a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_open_device(
    set: *mut SetHandle,
    name: *const c_char,
    device: *mut *mut DeviceHandle,
) -> i32 {
    call("vdi_set_open_device", || {
        // SAFETY: the caller promises that it is NULL or a place for a pointer.
        let out = unsafe { Out::new("device", device) }?;
        out.set(core::ptr::null_mut());
        let set = SETS.get(set)?;
        // SAFETY: the caller promises that it is NULL or a string.
        let name = unsafe { boundary::string("the device's name", name) }?;
        out.set(device::insert(set.open_device(name)?));
        Ok(())
    })
}

/// Aborts the set: every wait in every process of it returns VD_E_ABORT, and the statement fails.
///
/// Returns 0; VD_E_PROTOCOL when the set is closed or its work has ended; VD_E_INVALID for a bad pointer.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::SignalAbort.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_set_signal_abort(set: *mut SetHandle) -> i32 {
    call("vdi_set_signal_abort", || Ok(SETS.get(set)?.signal_abort()?))
}

/// Closes the set in this process; the waits of other threads end with VD_E_PROTOCOL, or VD_E_ABORT where closing aborted
/// the set. A primary ends the set for everybody, a
/// secondary leaves it. The set, its devices and its mapped buffers still have to be freed; data of commands and mapped
/// buffers stay readable until then.
///
/// Returns 0; VD_E_OPEN when a device had not returned VD_E_CLOSE: the set was aborted, and is closed all the same;
/// VD_E_PROTOCOL when it is closed already; VD_E_INVALID for a bad pointer. That a set was aborted before is not told again.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::Close.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_set_close(set: *mut SetHandle) -> i32 {
    call("vdi_set_close", || Ok(SETS.get(set)?.close()?))
}

/// Frees a set, and closes it before if vdi_set_close has not: where devices are open that aborts it. Devices and mapped
/// buffers are freed apart from it, before or after.
///
/// Returns 0; VD_E_INVALID for what is no set, or was freed already.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_set_free(set: *mut SetHandle) -> i32 {
    call("vdi_set_free", || {
        // Calls of other threads may go on with it: closing ends what they wait for. What it says (closed already, aborted)
        // is for those who call vdi_set_close.
        let _ = SETS.remove(set)?.close();
        Ok(())
    })
}
