//! Commands: completing them.
//!
//! # Invariant
//!
//! The buffer is reclaimed before the completion goes out: the server never gets a buffer that this process still holds.

use core::ptr::NonNull;
use std::sync::Arc;

use vdi_proto::abort::{Cause, Process};
use vdi_proto::command::CommandRecord;
use vdi_proto::completion::CompletionCode;
use vdi_proto::handle::BufferHandle;
use vdi_proto::set::client::Call;
use vdi_proto::status::VdError;
use vdi_shm::set::buffers::CommandBuffer;
use vdi_shm::set::slots::ReclaimError;

use super::device_core::{DeviceRef, DeviceShared};
use crate::completion::{Outcome, Refused};
use crate::error::{Error, ErrorKind};

const CALL: &str = "CompleteCommand";

/// What a command holds until it is completed.
#[derive(Debug)]
pub(crate) struct HeldCommand {
    buffer: Option<CommandBuffer>,
    device: DeviceRef,
}

impl HeldCommand {
    #[inline]
    pub(super) fn new(buffer: Option<CommandBuffer>, device: DeviceRef) -> HeldCommand {
        HeldCommand { buffer, device }
    }

    pub(super) fn device(&self) -> &Arc<DeviceShared> {
        &self.device
    }

    pub(crate) fn device_name(&self) -> &str {
        self.device.name()
    }

    pub(crate) fn set_name(&self) -> &str {
        self.device.set_name()
    }

    #[inline]
    pub(crate) fn data(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], CommandBuffer::data)
    }

    #[inline]
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], CommandBuffer::data_mut)
    }

    pub(crate) fn prefix_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], CommandBuffer::prefix_mut)
    }

    pub(crate) fn address(&self) -> Option<NonNull<u8>> {
        self.buffer.as_ref().map(CommandBuffer::address)
    }

    pub(crate) fn handle(&self) -> Result<Option<BufferHandle>, Error> {
        let set = &self.device.set;
        set.phase().handles_allowed().map_err(|code| set.refuse("GetBufferHandle", code))?;
        Ok(self.buffer.as_ref().map(CommandBuffer::handle))
    }

    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        self.device.set.interruption(call)
    }

    pub(crate) fn abandon(&self) {
        self.device.set.abort(Cause::AbandonedCommand);
    }

    pub(crate) fn give_up(&self, code: CompletionCode, why: &str) {
        self.device.give_up(code, why);
    }

    #[inline]
    pub(crate) fn ended(&self) -> Option<Error> {
        let set = &self.device.set;
        set.is_over().then(|| {
            let code = set.step(CALL, Call::CompleteCommand).err();
            code.unwrap_or_else(|| set.refuse(CALL, VdError::Protocol))
        })
    }

    /// Reclaims the buffer, pushes the completion, and notifies the server.
    #[inline]
    pub(crate) fn complete(&mut self, record: &CommandRecord, outcome: Outcome) -> Result<(), Refused> {
        let HeldCommand { buffer, device } = self;
        let set = &device.set;
        let Outcome { code, bytes, position } = outcome;
        let over = |error| Refused { error, outstanding: false };
        let not_active =
            |code| over(set.error(ErrorKind::Misuse, code, CALL, "it is not an active command of this device"));
        let mut core = device.core();
        // Before the buffer is reclaimed.
        if let Err(code) = core.machine.may_complete(record.id, bytes) {
            if core.machine.is_closed() {
                // The handle ends with the command. The server does not use the buffer again.
                drop(buffer.take().map(CommandBuffer::reclaim));
            }
            return Err(not_active(code));
        }
        match buffer.take().map(CommandBuffer::reclaim) {
            None | Some(Ok(())) => {}
            Some(Err((error @ ReclaimError::Leased { .. }, leased))) => {
                *buffer = Some(leased);
                let what = format!("{error}; let them drop it, then complete the command again");
                let error = set.error(ErrorKind::NotYet, VdError::Busy, CALL, what).because(error);
                return Err(Refused { error, outstanding: true });
            }
            Some(Err((error @ ReclaimError::NotLent { .. }, _))) => {
                drop(core);
                return Err(over(set.violation(CALL, Process::Unknown, error)));
            }
        }
        let completed = core.machine.complete(record.id, code, bytes, position).map_err(not_active)?;
        match core.completions.push(&completed) {
            Ok(()) => device.notify_completion(core),
            Err(error) => {
                drop(core);
                return Err(over(set.violation(CALL, Process::Unknown, error)));
            }
        }
        Ok(())
    }
}
