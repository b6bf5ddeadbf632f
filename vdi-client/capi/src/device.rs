//! Devices and their commands, for C.
//!
//! # Invariants
//!
//! 1. A command is in `outstanding` from when C gets it until it is completed. A completion takes it out first: of two
//!    threads that complete a command, one gets VD_E_INVALID.
//! 2. A device is not freed while a thread waits for its commands. Where the thread and the free come at the same
//!    moment, the wait ends with VD_E_ABORT or VD_E_CLOSE.

use core::ffi::c_char;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vdi_client::raw::RawDevice;
use vdi_client::{ClientVirtualDevice, CommandCode, CompletionCode, VdError};
use vdi_ffi::{Argument, Failure};
use vdi_proto::command::CommandId;

use crate::errors::call;
use crate::objects::Objects;
use crate::types::{Command, DeviceHandle, timeout};

/// All devices of the program.
static DEVICES: Objects<DeviceHandle, Device> = Objects::new("device");

pub(crate) fn insert(device: ClientVirtualDevice) -> *mut DeviceHandle {
    DEVICES.insert(Device {
        // OpenDevice finds no name with a zero byte.
        name: CString::new(device.name()).unwrap_or_default(),
        prefix_size: device.config().prefix_zone_size,
        raw: RawDevice::new(device),
        waiting: AtomicU32::new(0),
        outstanding: Mutex::default(),
    })
}

/// A device that C has.
struct Device {
    raw: RawDevice,
    name: CString,
    prefix_size: u32,
    /// How many threads are in GetCommand.
    waiting: AtomicU32,
    outstanding: Mutex<HashMap<CommandId, Outstanding>>,
}

/// A command that C has not completed.
#[derive(Clone, Copy)]
struct Outstanding {
    code: CommandCode,
    size: i32,
}

/// A thread in GetCommand.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Device {
    fn outstanding(&self) -> MutexGuard<'_, HashMap<CommandId, Outstanding>> {
        // Each change is one step, so a poisoned lock is safe to use.
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, code: VdError, what: String) -> Failure {
        Failure::new(code, what).of_device(self.raw.name(), self.raw.set_name())
    }

    fn get_command(&self, timeout: Duration) -> Result<Command, Failure> {
        let _waiting = Waiting::new(&self.waiting);
        let command = self.raw.get_command(timeout)?;
        let prefix_size = if command.buffer.is_null() { 0 } else { self.prefix_size };
        let prefix = match prefix_size {
            0 => core::ptr::null_mut(),
            size => command.buffer.wrapping_sub(size as usize),
        };
        self.outstanding().insert(command.id, Outstanding { code: command.code, size: command.size });
        Ok(Command {
            id: command.id.0,
            code: command.code.number(),
            size: command.size,
            prefix_size,
            position: command.position,
            data: command.buffer,
            prefix,
        })
    }

    fn complete(&self, id: CommandId, code: CompletionCode, bytes: u64, position: u64) -> Result<(), Failure> {
        let command = self.outstanding().get(&id).copied();
        let command = command.ok_or_else(|| self.not_active(id))?;
        if let Err(what) = validate(command, code, bytes) {
            return Err(self.failure(VdError::Invalid, format!("{}, command {}: {what}", command.code, id.0)));
        }
        self.outstanding().remove(&id).ok_or_else(|| self.not_active(id))?;
        // Only a command that moves the position reports one.
        let position = if command.code.is_transfer() || !code.is_success() { 0 } else { position };
        self.raw.complete_command(id, code, bytes, position).map_err(|error| {
            // All other errors end the command.
            if matches!(error.code(), VdError::Invalid | VdError::Busy) {
                self.outstanding().insert(id, command);
            }
            error.into()
        })
    }

    fn not_active(&self, id: CommandId) -> Failure {
        let what = format!(
            "command {} is not active: it never came to this device, or was completed already; complete each once",
            id.0
        );
        self.failure(VdError::Invalid, what)
    }
}

/// Refuses a completion that does not fit its command, or reports more than was done.
fn validate(command: Outstanding, code: CompletionCode, bytes: u64) -> Result<(), String> {
    if !command.code.is_transfer() {
        return if bytes == 0 { Ok(()) } else { Err("it transfers no bytes; pass 0".to_owned()) };
    }
    // The size of a transfer is an unsigned number in a signed field.
    let size = u64::from(command.size.cast_unsigned());
    if bytes > size {
        return Err(format!("{bytes} bytes are more than the {size} of the command"));
    }
    if code.is_success() && bytes < size {
        return Err(format!(
            "{bytes} of {size} bytes are no success; say why: VDI_ERROR_HANDLE_EOF at the end of what is read, \
             VDI_ERROR_DISK_FULL where no more can be written"
        ));
    }
    Ok(())
}

/// The device's name.
///
/// name: where the pointer to it goes; untouched on failure. Lifetime of *name: until vdi_device_free.
///
/// Returns 0; VD_E_INVALID for bad pointers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_device_name(device: *mut DeviceHandle, name: *mut *const c_char) -> i32 {
    // SAFETY: the caller promises NULL or memory for a pointer (header, "MEMORY").
    let name = unsafe { Argument::new(name) };
    call("vdi_device_name", || name.write("the place for the name", DEVICES.get(device)?.name.as_ptr()))
}

/// Waits for the server's next command. Several may be outstanding at a time; each is completed by its id, in any
/// order, from any thread. Threads that wait for the same device take turns.
///
/// timeout_ms: see TIME-OUTS. command: where the command goes; untouched on failure.
///
/// Returns 0; VD_E_CLOSE when the server closed the device: the normal end of its work; VD_E_TIMEOUT; VD_E_ABORT;
/// VD_E_PROTOCOL after the set was closed, and after all its devices have returned VD_E_CLOSE; VD_E_INVALID for bad
/// pointers.
///
/// Source: VDI specification, IClientVirtualDevice::GetCommand.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_device_get_command(
    device: *mut DeviceHandle,
    timeout_ms: i64,
    command: *mut Command,
) -> i32 {
    // SAFETY: the caller promises NULL or memory for a command (header, "MEMORY").
    let command = unsafe { Argument::new(command) };
    call("vdi_device_get_command", || {
        const PLACE: &str = "the place for the command";
        let device = DEVICES.get(device)?;
        command.check(PLACE)?;
        command.write(PLACE, device.get_command(timeout(timeout_ms))?)
    })
}

/// Reports to the server how a command ended, and returns its buffer: its data must not be touched any more. What is
/// reported as written must be stored: before VDC_FLUSH is a success, durably.
///
/// id: of the command. code: VDI_ERROR_SUCCESS, or why it was not carried out; anything but success puts the device
/// into the state of an error, which the server ends with VDC_CLEAR_ERROR or an abort. bytes: VDC_READ and VDC_WRITE:
/// how many were really transferred; fewer than the command's size are no success. All others: 0. position:
/// VDC_GET_POSITION and VDC_SET_POSITION: where the device is now. All others: 0.
///
/// Returns 0; VD_E_INVALID for a command that is not active any more or another device's, for more bytes than it has,
/// for success with fewer, and for a bad pointer; VD_E_BUSY while another process has the buffer mapped: the command
/// stays active, complete it again; VD_E_ABORT and VD_E_PROTOCOL when the set was aborted or closed: the command has
/// ended.
///
/// Source: VDI specification, IClientVirtualDevice::CompleteCommand.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_device_complete_command(
    device: *mut DeviceHandle,
    id: u32,
    code: u32,
    bytes: u64,
    position: u64,
) -> i32 {
    call("vdi_device_complete_command", || {
        DEVICES.get(device)?.complete(CommandId(id), CompletionCode::new(code), bytes, position)
    })
}

/// Frees a device. If the server has not closed it, the set is aborted: nothing would answer its commands. The data of
/// its commands, and its name, must not be touched any more.
///
/// Returns 0; VD_E_INVALID for what is no device, or was freed already; VD_E_BUSY while another thread waits for its
/// commands: end that wait with vdi_set_signal_abort or vdi_set_close, then free it.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_device_free(device: *mut DeviceHandle) -> i32 {
    call("vdi_device_free", || {
        let object = DEVICES.get(device)?;
        if object.waiting.load(Ordering::Relaxed) > 0 {
            let what = "another thread waits for its commands; abort or close the set, then free the device";
            return Err(object.failure(VdError::Busy, what.to_owned()));
        }
        DEVICES.remove(device)?;
        // Before its commands end with the object: so the abort, where there is one, names the device as the reason.
        object.raw.abandon();
        Ok(())
    })
}
