//! Commands as plain blocks, for adapters to foreign interfaces: there a command is a piece of memory that the program keeps
//! as long as it likes, and may complete twice, wrongly, or never. Such a program knows no leases either: see
//! [`ClientVirtualDeviceSet::map_buffer_address`](crate::ClientVirtualDeviceSet::map_buffer_address).

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use vdi_proto::command::{CommandCode, CommandId};
use vdi_proto::completion::CompletionCode;
use vdi_proto::status::VdError;

use crate::back_end::DeviceRef;
use crate::command::{Command, Completion};
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind, show_duration};
use crate::trace;

/// A command as a block of numbers: VDC_Command, with its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "VDC_Command")]
#[non_exhaustive]
pub struct RawCommand {
    /// Which command.
    pub code: CommandCode,
    /// The overloaded size.
    pub size: i32,
    /// The position.
    pub position: u64,
    /// The address of the data; null without a buffer.
    pub buffer: *mut u8,
    /// The identity, by which it is completed.
    pub id: CommandId,
}

/// A device whose commands are blocks. Commands that are never completed end with the device.
#[derive(Debug)]
pub struct RawDevice {
    device: Mutex<ClientVirtualDevice>,
    turns: Mutex<Turns>,
    free: Condvar,
    reference: DeviceRef,
    held: Mutex<HashMap<CommandId, Command>>,
}

/// The right to get a command: one thread at a time.
#[derive(Debug, Default)]
struct Turns {
    taken: bool,
    waiting: u32,
}

/// The turn of one thread.
struct Turn<'a>(&'a RawDevice);

impl<'a> Turn<'a> {
    /// Waits for it; gives how much of `timeout` is left, `None` when that passes first.
    fn take(device: &'a RawDevice, timeout: Duration) -> Option<(Self, Duration)> {
        let mut left = timeout;
        let mut turns = device.turns();
        if turns.taken {
            let start = Instant::now();
            turns.waiting += 1;
            let waited = device.free.wait_timeout_while(turns, timeout, |turns| turns.taken);
            (turns, _) = waited.unwrap_or_else(PoisonError::into_inner);
            turns.waiting -= 1;
            if turns.taken {
                return None;
            }
            left = timeout.saturating_sub(start.elapsed());
        }
        turns.taken = true;
        Some((Turn(device), left))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns();
        turns.taken = false;
        if turns.waiting > 0 {
            self.0.free.notify_one();
        }
    }
}

impl RawDevice {
    /// Takes over a device.
    #[must_use]
    pub fn new(device: ClientVirtualDevice) -> Self {
        RawDevice {
            reference: device.reference(),
            device: Mutex::new(device.without_warnings()),
            turns: Mutex::default(),
            free: Condvar::new(),
            held: Mutex::default(),
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<CommandId, Command>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.reference.name()
    }

    /// The name of its set.
    #[must_use]
    pub fn set_name(&self) -> &str {
        self.reference.set_name()
    }

    /// GetCommand: see [`ClientVirtualDevice::get_command`]. A second thread waits for the first, as long as its own time-out
    /// says.
    ///
    /// # Errors
    /// As [`ClientVirtualDevice::get_command`].
    #[doc(alias = "GetCommand")]
    pub fn get_command(&self, timeout: Duration) -> Result<RawCommand, Error> {
        let Some((_turn, left)) = Turn::take(self, timeout) else {
            let what = match timeout.is_zero() {
                true => "another thread of this program waits for this device's commands".to_owned(),
                false => {
                    let waited = show_duration(timeout);
                    format!("for {waited} another thread of this program has waited for this device's commands")
                }
            };
            let error = Error::new(ErrorKind::NotYet, VdError::Timeout, "GetCommand", self.set_name(), what);
            let error = error.of_device(self.name());
            trace::trace_refused(&error);
            return Err(error);
        };
        let command = self.device.lock().unwrap_or_else(PoisonError::into_inner).get_command(left)?;
        let raw = RawCommand {
            code: command.code(),
            size: command.size(),
            position: command.position(),
            buffer: command.buffer_address().map_or(core::ptr::null_mut(), <*const u8>::cast_mut),
            id: command.id(),
        };
        self.held().insert(raw.id, command);
        Ok(raw)
    }

    /// CompleteCommand with the values of a foreign program: any code and position, but no more bytes than the command has.
    ///
    /// # Errors
    /// VD_E_INVALID for a command that is not active (any more) and for more bytes than it has; VD_E_BUSY while another process
    /// has the buffer mapped; VD_E_ABORT, VD_E_PROTOCOL.
    #[doc(alias = "CompleteCommand")]
    pub fn complete_command(
        &self,
        id: CommandId,
        code: CompletionCode,
        bytes: u64,
        position: u64,
    ) -> Result<(), Error> {
        let Some(command) = self.held().remove(&id) else {
            return Err(self.refuse_unknown(&format!("command {:#x} is not an active command of this device", id.0)));
        };
        command.complete(Completion::raw(code, bytes, position)).map_err(|refused| {
            if let Some(command) = refused.command {
                self.held().insert(id, command);
            }
            refused.error
        })
    }

    /// What CompleteCommand answers for something that is no command of this device at all: VD_E_INVALID, or VD_E_ABORT or
    /// VD_E_PROTOCOL when the session is over.
    #[must_use]
    pub fn refuse_unknown(&self, what: &str) -> Error {
        let error = self.reference.refuse_unknown(what);
        trace::trace_refused(&error);
        error
    }

    /// Ends the device's work, as dropping it does: the set is aborted unless the server has closed the device. A thread that
    /// waits in [`RawDevice::get_command`] returns. For programs that destroy a device while its commands are held, or while
    /// a thread waits.
    pub fn abandon(&self) {
        match self.device.try_lock() {
            Ok(mut device) => device.leave(),
            Err(TryLockError::Poisoned(device)) => device.into_inner().leave(),
            // A waiting thread has the lock. The server has not closed the device then.
            Err(TryLockError::WouldBlock) => self.reference.abandon(),
        }
    }
}
