//! The state of one device: its state machine, its submission ring, and its outstanding commands.
//!
//! # Invariants
//!
//! 1. The routine of every command given to [`DeviceCore::send`] runs exactly once: for the client's completion, for
//!    CloseDevice, or for an abort. A command that is refused is returned to the caller, which runs its routine.
//! 2. An outstanding command has a [`LentBuffer`]. An abort and CloseDevice drop it, which retires the buffer.
//! 3. The lock makes all senders one producer of the submission ring. Routines run without the lock.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vdi_proto::abort::Process;
use vdi_proto::command::{CommandId, CommandRecord, CompletionRecord};
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::{Finished, SendRefusal, ServerDevice};
use vdi_proto::index::{DeviceIndex, MemberIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::layout::ClientWord;
use vdi_shm::set::pool::{LentBuffer, ServerBuffer};
use vdi_shm::set::record_ring::CommandSender;
use vdi_shm::set::session::Session;

use super::command::{Completed, CompletionRoutine, VdsCommand};
use crate::trace;

/// A device. Its [`super::ServerVirtualDevice`] and completion processing share it.
pub(super) struct DeviceCore {
    pub(super) index: DeviceIndex,
    session: Arc<Session>,
    /// Set when the device is opened.
    name: OnceLock<String>,
    state: Mutex<DeviceState>,
}

struct DeviceState {
    machine: ServerDevice,
    commands: CommandSender,
    /// At most [`vdi_proto::device::QUEUE_DEPTH`].
    pending: Vec<Pending>,
}

/// An outstanding command.
struct Pending {
    id: CommandId,
    routine: Arc<dyn CompletionRoutine>,
    context: u64,
    lent: Option<LentBuffer>,
    sent: trace::Clock,
}

impl DeviceState {
    fn take(&mut self, id: CommandId) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.id == id)?;
        Some(self.pending.swap_remove(index))
    }
}

impl core::fmt::Debug for DeviceCore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceCore").field("index", &self.index).finish_non_exhaustive()
    }
}

impl DeviceCore {
    pub(super) fn new(index: DeviceIndex, session: &Arc<Session>, commands: CommandSender) -> Self {
        let state = DeviceState { machine: ServerDevice::new(), commands, pending: Vec::new() };
        DeviceCore { index, session: Arc::clone(session), name: OnceLock::new(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, DeviceState> {
        // No panic can leave machine, ring and table half updated.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the device's name. Called once.
    pub(super) fn set_name(&self, name: &str) {
        let _ = self.name.set(name.to_owned());
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.name.get().is_some_and(|own| own == name)
    }

    pub(super) fn name(&self) -> &str {
        self.name.get().map_or("", String::as_str)
    }

    /// The client process that has opened the device; the primary before that.
    pub(super) fn client(&self) -> Process {
        match self.session.control().client_word(self.index) {
            Ok(ClientWord::Open { member }) if member != MemberIndex::PRIMARY => Process::Secondary(member),
            Ok(_) => Process::Primary,
            Err(_) => Process::Unknown,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().machine.is_closed()
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.state().machine.outstanding()
    }

    pub(super) fn in_io_error(&self) -> bool {
        self.state().machine.in_io_error()
    }

    /// Sends a command and lends its buffer. Returns a command that the device's state does not allow.
    pub(super) fn send(&self, command: VdsCommand) -> Result<(), (VdsCommand, SendRefusal)> {
        let mut state = self.state();
        let bytes = if command.buffer.is_some() { command.size as u32 } else { 0 };
        let id = match state.machine.send(command.code, bytes) {
            Ok(id) => id,
            Err(refusal) => return Err((command, refusal)),
        };
        let VdsCommand { code, size, position, buffer, routine, context } = command;
        let lent = buffer.map(ServerBuffer::lend);
        let loan = lent.as_ref().map(LentBuffer::loan);
        trace::event!(
            TRACE,
            set = self.session.set_name(),
            device = self.name(),
            id = id.0,
            command = %code,
            size = size,
            position = position,
            bytes = bytes,
            "command sent"
        );
        let sent = trace::Clock::start();
        let pushed = state.commands.push(&CommandRecord { code, id, size, position, loan });
        // The client may have completed the command already. Its completion is processed after the lock is released.
        state.pending.push(Pending { id, routine, context, lent, sent });
        drop(state);
        match pushed {
            Ok(()) => self.session.control().device_event(self.index).notify(),
            // The state machine allows fewer commands than the ring has entries. So a ring that is full, or has an impossible
            // cursor, was overwritten. The abort ends the command.
            Err(error) => self.session.report_violation(Process::Unknown, error),
        }
        Ok(())
    }

    /// Processes a completion. Returns false after a protocol violation of the client, which aborts the set.
    pub(super) fn completed(&self, record: CompletionRecord) -> bool {
        let mut state = self.state();
        if state.machine.is_closed() || state.machine.is_aborted() {
            // CloseDevice or the abort ends the command.
            return true;
        }
        let finished = match state.machine.completed(record) {
            Ok(finished) => finished,
            Err(violation) => {
                drop(state);
                self.session.report_violation(self.client(), violation);
                return false;
            }
        };
        let Some(mut pending) = state.take(finished.id) else { return true };
        drop(state);
        match pending.lent.take().map(LentBuffer::reclaim).transpose() {
            Ok(buffer) => {
                self.finish(finished, pending, buffer);
                true
            }
            Err(error) => {
                // Before the routine runs, so that the routine sees the reason of the abort.
                self.session.report_violation(self.client(), error);
                let code = CompletionCode::OPERATION_ABORTED;
                self.finish(Finished { code, bytes: 0, position: 0, ..finished }, pending, None);
                false
            }
        }
    }

    /// Closes the device, and runs `closed` under the lock. The caller then calls [`DeviceCore::drain`].
    pub(super) fn close(&self, closed: impl FnOnce()) -> Result<(), VdError> {
        let mut state = self.state();
        state.machine.close()?;
        closed();
        Ok(())
    }

    /// Ends all outstanding commands because the set was aborted.
    pub(super) fn abort(&self) {
        let mut state = self.state();
        if state.machine.is_closed() {
            // CloseDevice ends the outstanding commands.
            return;
        }
        state.machine.abort();
        drop(state);
        self.drain();
    }

    /// Ends all outstanding commands, after the device was closed or the set was aborted.
    pub(super) fn drain(&self) {
        loop {
            let mut state = self.state();
            let Some(finished) = state.machine.next_aborted() else { return };
            let pending = state.take(finished.id);
            drop(state);
            if let Some(mut pending) = pending {
                // Retires the buffer: the client may still use it.
                drop(pending.lent.take());
                self.finish(finished, pending, None);
            }
        }
    }

    /// Runs the routine of a command that has ended.
    fn finish(&self, finished: Finished, pending: Pending, buffer: Option<ServerBuffer>) {
        let Finished { id, command, code, bytes, position } = finished;
        trace::event!(
            TRACE,
            set = self.session.set_name(),
            device = self.name(),
            id = id.0,
            command = %command,
            code = %code,
            bytes = bytes,
            position = position,
            outstanding_us = pending.sent.us(),
            "command completed"
        );
        let Pending { routine, context, .. } = pending;
        routine.completed(Completed { device: self.index.get(), command, code, bytes, position, buffer, context });
    }
}
