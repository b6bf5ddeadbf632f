//! Virtual device sets, for C.

use core::ffi::c_char;
use std::sync::OnceLock;

use vdi_client::{BackEnd, ClientVirtualDeviceSet, CompletionCode, EnvironmentError, VdConfig};
use vdi_ffi::{Argument, Failure};

use crate::device;
use crate::errors::call;
use crate::objects::Objects;
use crate::types::{Config, DeviceHandle, SetHandle, timeout};

/// All sets of the program.
pub(crate) static SETS: Objects<SetHandle, ClientVirtualDeviceSet> = Objects::new("set");

/// Makes a set object on the back end that the environment names, and has `start` create or join a set with it.
fn begin(
    instance: Argument<c_char>,
    name: Argument<c_char>,
    set: Argument<*mut SetHandle>,
    start: impl FnOnce(&ClientVirtualDeviceSet, Option<&str>, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Read once: a program may change its environment later, while other threads read it.
    static BACK_END: OnceLock<Result<BackEnd, EnvironmentError>> = OnceLock::new();
    const PLACE: &str = "the place for the set";
    set.write(PLACE, core::ptr::null_mut())?;
    let instance = instance.optional_text("the instance")?;
    let name = name.text("the name")?;
    let back_end = BACK_END.get_or_init(BackEnd::from_env).clone();
    let back_end = back_end.map_err(|error| Failure::invalid(error.to_string()))?;
    let object = ClientVirtualDeviceSet::with_back_end(back_end)?;
    start(&object, instance.as_deref(), &name)?;
    set.write(PLACE, SETS.insert(object))
}

/// Creates a set, so that the server can find it when it gets BACKUP or RESTORE ... VIRTUAL_DEVICE='name'. This process
/// becomes the set's primary.
///
/// instance: the server's instance; NULL or "" for the default one. name: 1 to 128 characters without backslashes and
/// control characters; the first device has this name, too. config: what the client requests. set: where the set goes;
/// NULL goes there on failure. Free it with vdi_set_free.
///
/// Returns 0; VD_E_INVALID for a NULL or bad name; VD_E_INSTANCE_NAME for what no instance could be called, and for any
/// name with SQL Server's library; VD_E_NOTSUPPORTED for a configuration that no server serves; VD_E_PROTOCOL when a
/// live set has this name; VD_E_SECURITY when the runtime directory is not to be trusted; VD_E_MEMORY and
/// VD_E_UNEXPECTED when the system refuses. VD_E_INVALID, VD_E_NOTSUPPORTED and VD_E_UNEXPECTED when the library that
/// VDI_LIBRARY names cannot be used; VD_E_INVALID when VDI_ALLOW_UID or VDI_ALLOW_GID is no list of numbers.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::CreateEx.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_create(
    instance: *const c_char,
    name: *const c_char,
    config: *const Config,
    set: *mut *mut SetHandle,
) -> i32 {
    // SAFETY: the caller promises NULL or a string (header, "MEMORY").
    let instance = unsafe { Argument::new(instance) };
    // SAFETY: as above.
    let name = unsafe { Argument::new(name) };
    // SAFETY: the caller promises NULL or a configuration.
    let config = unsafe { Argument::new(config) };
    // SAFETY: the caller promises NULL or memory for a pointer.
    let set = unsafe { Argument::new(set) };
    call("vdi_set_create", || {
        begin(instance, name, set, |object, instance, name| {
            let config = VdConfig::from(config.read("the configuration")?);
            Ok(object.create_ex(instance, name, &config)?)
        })
    })
}

/// Joins a set that another process created and configured, to open devices of it here or to work on buffers by their
/// handles. This process becomes a secondary.
///
/// instance, name: as the primary passed them to vdi_set_create. set: where the set goes; NULL goes there on failure.
/// Free it with vdi_set_free.
///
/// Returns 0; VD_E_INVALID and VD_E_INSTANCE_NAME for bad names; VD_E_PROTOCOL when there is no such set, when its
/// primary has not got the configuration yet, and when its work has ended; VD_E_ABORT when it was aborted;
/// VD_E_SECURITY when this process may not join, or does not trust the creator; VD_E_MEMORY when the set has as many
/// processes as it can; for VDI_LIBRARY, VDI_ALLOW_UID and VDI_ALLOW_GID as vdi_set_create.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::OpenInSecondaryEx.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_open_in_secondary(
    instance: *const c_char,
    name: *const c_char,
    set: *mut *mut SetHandle,
) -> i32 {
    // SAFETY: the caller promises NULL or a string (header, "MEMORY").
    let instance = unsafe { Argument::new(instance) };
    // SAFETY: as above.
    let name = unsafe { Argument::new(name) };
    // SAFETY: the caller promises NULL or memory for a pointer.
    let set = unsafe { Argument::new(set) };
    call("vdi_set_open_in_secondary", || {
        begin(instance, name, set, |object, instance, name| Ok(object.open_in_secondary_ex(instance, name)?))
    })
}

/// Waits for the server to configure the set, and gives the negotiated configuration. Once it has succeeded it does so
/// again at once. A set's primary calls it before anything else.
///
/// timeout_ms: see TIME-OUTS. config: where the configuration goes; untouched on failure.
///
/// Returns 0; VD_E_TIMEOUT when no server came in time: check whether the statement failed; VD_E_ABORT; VD_E_PROTOCOL
/// when the set is closed; VD_E_INVALID for bad pointers.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::GetConfiguration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_get_configuration(set: *mut SetHandle, timeout_ms: i64, config: *mut Config) -> i32 {
    // SAFETY: the caller promises NULL or memory for a configuration (header, "MEMORY").
    let config = unsafe { Argument::new(config) };
    call("vdi_set_get_configuration", || {
        const PLACE: &str = "the place for the configuration";
        let set = SETS.get(set)?;
        config.check(PLACE)?;
        config.write(PLACE, set.get_configuration(timeout(timeout_ms))?.into())
    })
}

/// Opens a device by its name, for this process. Waits for the server to announce its devices, which it does right
/// after it has configured the set.
///
/// name: as in the statement; case-sensitive; the first device has the set's name. device: where the device goes; NULL
/// goes there on failure. Free it with vdi_device_free.
///
/// Returns 0; VD_E_OPEN when all devices are open; VD_E_PROTOCOL when this one is, before the configuration, and when
/// the set is closed; VD_E_INVALID when the set has no device of this name, and for bad pointers; VD_E_ABORT.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::OpenDevice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_open_device(
    set: *mut SetHandle,
    name: *const c_char,
    device: *mut *mut DeviceHandle,
) -> i32 {
    // SAFETY: the caller promises NULL or a string (header, "MEMORY").
    let name = unsafe { Argument::new(name) };
    // SAFETY: the caller promises NULL or memory for a pointer.
    let device = unsafe { Argument::new(device) };
    call("vdi_set_open_device", || {
        const PLACE: &str = "the place for the device";
        device.write(PLACE, core::ptr::null_mut())?;
        let opened = SETS.get(set)?.open_device(&name.text("the device's name")?)?;
        device.write(PLACE, device::insert(opened))
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

/// As vdi_set_signal_abort, and says why: the messages of the statement and the errors of the other processes have the
/// reason.
///
/// code: the completion code that stands for it, such as VDI_ERROR_DISK_FULL. reason: a string; the others get its first 512
/// bytes. With VDI_LIBRARY the reason stays here: the interface has no place for it.
///
/// Returns 0; VD_E_PROTOCOL when the set is closed or its work has ended; VD_E_INVALID for a bad pointer or string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_signal_abort_because(set: *mut SetHandle, code: u32, reason: *const c_char) -> i32 {
    // SAFETY: the caller promises NULL or a string (header, "MEMORY").
    let reason = unsafe { Argument::new(reason) };
    call("vdi_set_signal_abort_because", || {
        let reason = reason.text("the reason")?;
        Ok(SETS.get(set)?.signal_abort_because(CompletionCode::new(code), &reason)?)
    })
}

/// Closes the set in this process. The waits of other threads end with VD_E_PROTOCOL, or VD_E_ABORT where the close
/// aborted the set. A primary ends the set for all processes, a secondary leaves it. The set, its devices and its
/// mapped buffers still have to be freed; data of commands and mapped buffers stay readable until then.
///
/// Returns 0, also when the set was aborted before; VD_E_OPEN when a device had not returned VD_E_CLOSE: the set was
/// aborted, and is closed all the same; VD_E_PROTOCOL when it is closed already; VD_E_INVALID for a bad pointer.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::Close.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_set_close(set: *mut SetHandle) -> i32 {
    call("vdi_set_close", || Ok(SETS.get(set)?.close()?))
}

/// Frees a set, and closes it unless vdi_set_close has: with open devices that aborts it. Devices and mapped buffers
/// are freed apart from it, before or after.
///
/// Returns 0; VD_E_INVALID for what is no set, or was freed already.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_set_free(set: *mut SetHandle) -> i32 {
    call("vdi_set_free", || {
        // Calls of other threads may go on with the set: the close ends their waits. Its own result, such as that the
        // set is closed already, is for callers of vdi_set_close.
        let _ = SETS.remove(set)?.close();
        Ok(())
    })
}
