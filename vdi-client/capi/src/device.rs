//! Devices and their commands, for C.
//!
//! # Invariants
//!
//! 1. One thread at a time is in GetCommand: it has taken the device out of its slot, and puts it back however the call ends.
//!    Others wait for their turn, but not longer than their own time-out.
//! 2. A command is in `held` from when C gets it until it is completed. Who completes it takes it out first, so that of two
//!    threads one is told that it is not active.

use core::ffi::c_char;
use core::time::Duration;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vdi_client::{ClientVirtualDevice, Command as Held, Completion, CompletionCode, VdError};
use vdi_proto::command::CommandId;

use crate::boundary::{Failure, Out, call, timeout};
use crate::registry::Registry;
use crate::types::{Command, DeviceHandle};

/// All devices that the program has.
static DEVICES: Registry<DeviceHandle, Device> = Registry::new("device");

/// Takes a device in.
pub(crate) fn insert(device: ClientVirtualDevice) -> *mut DeviceHandle {
    // No name of a device has a zero byte: OpenDevice has found it.
    let name = CString::new(device.name()).unwrap_or_default();
    let slot = Mutex::new(Slot { device: Some(device), freed: false });
    DEVICES.insert(Device { name, slot, turn: Condvar::new(), held: Mutex::default() })
}

/// A device that C has.
struct Device {
    name: CString,
    slot: Mutex<Slot>,
    turn: Condvar,
    held: Mutex<HashMap<CommandId, Held>>,
}

struct Slot {
    /// `None` while a thread is in GetCommand with it.
    device: Option<ClientVirtualDevice>,
    freed: bool,
}

/// A thread's turn with the device.
struct Turn<'a> {
    of: &'a Device,
    device: Option<ClientVirtualDevice>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.slot().device = self.device.take();
        self.of.turn.notify_one();
    }
}

impl Device {
    /// Both locks guard what is whole at every moment.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<CommandId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, code: VdError, text: impl core::fmt::Display) -> Failure {
        Failure::new(code, format_args!("device {:?}: {text}", self.name))
    }

    fn freed(&self) -> Failure {
        self.refusal(VdError::Invalid, "another thread has freed it")
    }

    /// Waits for this thread's turn.
    fn turn(&self, deadline: Option<Instant>) -> Result<Turn<'_>, Failure> {
        let mut slot = self.slot();
        loop {
            if slot.freed {
                return Err(self.freed());
            }
            if let Some(device) = slot.device.take() {
                return Ok(Turn { of: self, device: Some(device) });
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            slot = match left {
                None => self.turn.wait(slot).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    let text = "another thread waits for this device's commands; give each device one thread";
                    return Err(self.refusal(VdError::Timeout, text));
                }
                Some(left) => self.turn.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn get_command(&self, timeout: Duration) -> Result<Command, Failure> {
        // A time-out that no clock can hold never passes.
        let deadline = Instant::now().checked_add(timeout);
        let mut turn = self.turn(deadline)?;
        let Some(device) = turn.device.as_mut() else { return Err(self.freed()) };
        let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
        let mut command = device.get_command(left)?;
        let prefix = command.prefix_mut();
        let prefix_size = prefix.len() as u32;
        let prefix = if prefix.is_empty() { core::ptr::null_mut() } else { prefix.as_mut_ptr() };
        let block = Command {
            id: command.id().0,
            code: command.code().number(),
            size: command.size(),
            prefix_size,
            position: command.position(),
            data: command.buffer_address().map_or(core::ptr::null_mut(), <*const u8>::cast_mut),
            prefix,
        };
        self.held().insert(command.id(), command);
        Ok(block)
    }

    fn complete(&self, id: CommandId, code: u32, bytes: u64, position: u64) -> Result<(), Failure> {
        let mut held = self.held();
        let Some(command) = held.get(&id) else {
            let text = format_args!(
                "command {} is not active: it never came to this device, or was completed already; complete each once",
                id.0
            );
            return Err(self.refusal(VdError::Invalid, text));
        };
        let completion = self.completion(command, code, bytes, position)?;
        let Some(command) = held.remove(&id) else { return Ok(()) };
        // Completing may wait for nothing, but another thread may want to complete meanwhile.
        drop(held);
        command.complete(completion).map_err(|refused| {
            if let Some(command) = refused.command {
                self.held().insert(id, command);
            }
            Failure::from(refused.error)
        })
    }

    /// What C says as a completion that says no more than was done.
    fn completion(&self, command: &Held, code: u32, bytes: u64, position: u64) -> Result<Completion, Failure> {
        let (code, number) = (CompletionCode::new(code), command.code());
        let of_command = |text: &dyn core::fmt::Display| {
            self.refusal(VdError::Invalid, format_args!("{number}, command {}: {text}", command.id().0))
        };
        if !number.is_transfer() {
            return match (bytes, code.is_success()) {
                (1.., _) => Err(of_command(&"it transfers no bytes; pass 0")),
                (0, true) => Ok(Completion::at(position)),
                (0, false) => Ok(Completion::failed(code)),
            };
        }
        // The size of a transfer is an unsigned number in a signed field.
        let size = u64::from(command.size() as u32);
        if bytes > size {
            return Err(of_command(&format_args!("{bytes} bytes are more than the {size} of the command")));
        }
        if !code.is_success() {
            return Ok(Completion::failed_after(code, bytes as usize));
        }
        if bytes < size {
            return Err(of_command(&format_args!(
                "{bytes} of {size} bytes are no success; say why: VDI_ERROR_HANDLE_EOF at the end of what is read, \
                 VDI_ERROR_DISK_FULL where no more can be written"
            )));
        }
        Ok(Completion::transferred(bytes as usize))
    }
}

/// The device's name.
///
/// name: where the pointer to it goes; untouched on failure. Lifetime of *name: until vdi_device_free.
///
/// Returns 0; VD_E_INVALID for bad pointers.
///
/// # Safety
/// name is NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_device_name(device: *mut DeviceHandle, name: *mut *const c_char) -> i32 {
    call("vdi_device_name", || {
        let device = DEVICES.get(device)?;
        // SAFETY: the caller promises that it is NULL or a place for a pointer.
        let out = unsafe { Out::new("name", name) }?;
        out.set(device.name.as_ptr());
        Ok(())
    })
}

/// Waits for the server's next command. Several may be held at a time; each is completed by its id, in any order, from any
/// thread. Threads that wait for the same device take turns.
///
/// timeout_ms: milliseconds; 0 only looks, negative waits for ever. command: where the command goes; untouched on failure.
///
/// Returns 0; VD_E_CLOSE when the server closed the device: the normal end of its work; VD_E_TIMEOUT; VD_E_ABORT;
/// VD_E_PROTOCOL after the set was closed, and after all its devices have returned VD_E_CLOSE; VD_E_INVALID for bad
/// pointers.
///
/// Source: VDI specification, IClientVirtualDevice::GetCommand.
///
/// # Safety
/// command is NULL or a place for a vdi_command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_device_get_command(
    device: *mut DeviceHandle,
    timeout_ms: i64,
    command: *mut Command,
) -> i32 {
    call("vdi_device_get_command", || {
        let device = DEVICES.get(device)?;
        // SAFETY: the caller promises that it is NULL or a place for a command.
        let out = unsafe { Out::new("command", command) }?;
        out.set(device.get_command(timeout(timeout_ms))?);
        Ok(())
    })
}

/// Tells the server how a command ended, and gives its buffer back: its data must not be touched any more. What is reported
/// as written must be stored: before VDC_FLUSH is a success, durably.
///
/// id: of the command. code: VDI_ERROR_SUCCESS, or why it was not carried out; anything but success puts the device into the
/// state of an error, which the server ends with VDC_CLEAR_ERROR or an abort. bytes: VDC_READ and VDC_WRITE: how many were
/// really transferred; fewer than the command's size are no success. All others: 0. position: VDC_GET_POSITION and
/// VDC_SET_POSITION: where the device is now. All others: 0.
///
/// Returns 0; VD_E_INVALID for a command that is not active any more or another device's, for more bytes than it has, for
/// success with fewer, and for a bad pointer; VD_E_BUSY while another process has the buffer mapped: the command stays
/// active, complete it again; VD_E_ABORT and VD_E_PROTOCOL when the set was aborted or closed: it is done with.
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
    call("vdi_device_complete_command", || DEVICES.get(device)?.complete(CommandId(id), code, bytes, position))
}

/// Frees a device. If the server has not closed it, the set is aborted: nobody would answer its commands. The data of its
/// commands, and its name, must not be touched any more.
///
/// Returns 0; VD_E_INVALID for what is no device, or was freed already; VD_E_BUSY while another thread waits for its
/// commands: end that wait with vdi_set_signal_abort or vdi_set_close, then free it.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_device_free(device: *mut DeviceHandle) -> i32 {
    call("vdi_device_free", || {
        let object = DEVICES.get(device)?;
        let mut slot = object.slot();
        if slot.freed {
            return Err(object.freed());
        }
        let Some(open) = slot.device.take() else {
            let text = "another thread waits for its commands; abort or close the set, then free the device";
            return Err(object.refusal(VdError::Busy, text));
        };
        slot.freed = true;
        drop(slot);
        // Threads that wait for their turn hear that there will be none.
        object.turn.notify_all();
        DEVICES.remove(device)?;
        // The device first: the abort, where there is one, then names it as the reason.
        drop(open);
        let held = core::mem::take(&mut *object.held());
        drop(held);
        Ok(())
    })
}
