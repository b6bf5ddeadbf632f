//! Devices: opening one, and getting its commands.
//!
//! Source of the rules: VDI specification, IClientVirtualDevice; [`vdi_proto::device`] for errors of the device.
//!
//! # Invariants
//!
//! 1. One `&mut` user gets commands: it is the one consumer of the submission ring. Completions come from any thread; the
//!    lock of [`super::device_core`] makes them one producer of the completion ring.
//! 2. Nothing is delivered once this process has seen an abort, and nothing after VD_E_CLOSE.
//! 3. A device that is dropped before the server closed it aborts the set: no thread would answer its commands.

use core::fmt::Display;
use core::time::Duration;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use vdi_proto::abort::{Cause, Process};
use vdi_proto::command::CommandRecord;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::device::Receipt;
use vdi_proto::index::DeviceIndex;
use vdi_proto::set::Opening;
use vdi_proto::set::client::{Call, CommandPoll};
use vdi_proto::status::VdError;
use vdi_proto::wire::layout::{ClientWord, LayoutError, ServerWord};
use vdi_shm::ipc::wait;
use vdi_shm::set::buffers::CommandBuffer;
use vdi_shm::set::control::ClientRings;
use vdi_shm::set::record_ring::CommandReceiver;
use vdi_shm::set::slots::ReclaimError;

use super::attachment::Attachment;
use super::command::HeldCommand;
use super::device_core::{DeviceRef, DeviceShared};
use crate::error::{Error, ErrorKind, show_duration};
use crate::trace;

const CALL: &str = "GetCommand";

/// The longest that a map of a stale handle keeps its lease bit, on a machine that is busy.
const STALE_LEASE: Duration = Duration::from_secs(1);

/// A device, as its one user has it.
#[derive(Debug)]
pub(crate) struct Device {
    shared: Arc<DeviceShared>,
    commands: CommandReceiver,
    /// A copy of the core's, read without the lock.
    holds_back: bool,
    closed: bool,
}

impl Device {
    /// Waits for the server to announce its devices, and opens the one of this name. The caller adds the name to an error.
    pub(super) fn open(set: Arc<Attachment>, call: &'static str, name: &str) -> Result<Device, Error> {
        set.would_answer(Call::OpenDevice(Opening::Unopened)).map_err(|code| set.refuse(call, code))?;
        let found =
            set.wait(call, None, || find(&set, name).map_err(|error| set.violation(call, Process::Unknown, error)))?;
        // A wait without a deadline ends with something found.
        let (opening, opened) = found.unwrap_or((Opening::NoSuchDevice, None));
        set.step(call, Call::OpenDevice(opening)).map_err(|error| match error.code() {
            VdError::Invalid => {
                let what = "the statement names no such device; names are case-sensitive";
                set.error(ErrorKind::Misuse, VdError::Invalid, call, what)
            }
            _ => error,
        })?;
        let Some((index, rings)) = opened else { return Err(set.refuse(call, VdError::Protocol)) };
        let ClientRings { commands, completions } = rings;
        let shared = DeviceShared::new(set, call, index, name, completions)?;
        Ok(Device { shared, commands, holds_back: false, closed: false })
    }

    pub(crate) fn reference(&self) -> DeviceRef {
        Arc::clone(&self.shared)
    }

    pub(crate) fn gave(&self, command: &HeldCommand) -> bool {
        Arc::ptr_eq(&self.shared, command.device())
    }

    pub(crate) fn name(&self) -> &str {
        self.shared.name()
    }

    pub(crate) fn set_name(&self) -> &str {
        self.shared.set_name()
    }

    pub(crate) fn config(&self) -> VdConfig {
        // A device is only ever made with a configuration.
        self.shared.set.config().unwrap_or_default()
    }

    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        self.shared.set.interruption(call)
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.shared.core().machine.outstanding()
    }

    pub(crate) fn unopened(&self) -> Vec<String> {
        let control = self.shared.set.control();
        let unopened = |device: &DeviceIndex| matches!(control.client_word(*device), Ok(ClientWord::Unopened));
        let name = |device| control.device_name(device).ok().flatten();
        control.devices().filter(unopened).filter_map(name).collect()
    }

    pub(crate) fn give_up(&self, code: CompletionCode, why: &str) {
        if !self.closed {
            self.shared.give_up(code, why);
        }
    }

    pub(crate) fn leave(&mut self) {
        if self.closed || self.shared.set.is_over() {
            return;
        }
        // The server may have closed it already, without this program having asked. A command that is found ends with the abort,
        // which has a better reason than a failed command.
        let found = self.poll_ring();
        if !self.closed {
            self.shared.set.abort(Cause::AbandonedDevice);
        }
        drop(found);
    }

    #[inline]
    pub(crate) fn try_get_command(&mut self) -> Result<Option<(CommandRecord, HeldCommand)>, Error> {
        self.poll()?.map(|record| self.deliver(record)).transpose()
    }

    #[inline]
    pub(crate) fn get_command(&mut self, timeout: Duration) -> Result<(CommandRecord, HeldCommand), Error> {
        let record = match self.poll()? {
            Some(record) => record,
            None if timeout.is_zero() => return Err(self.nothing_within(timeout)),
            None => self.wait(timeout)?,
        };
        self.deliver(record)
    }

    fn wait(&mut self, timeout: Duration) -> Result<CommandRecord, Error> {
        let shared = Arc::clone(&self.shared);
        let (event, window) = (shared.event(), shared.set.control().spin());
        let deadline = wait::deadline(timeout);
        loop {
            let found = wait::wait_once(event, window, deadline, || self.poll().transpose());
            if let Some(found) = found {
                return found;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.nothing_within(timeout));
            }
        }
    }

    /// Takes the next command for the program; `None` while there is none.
    #[inline]
    fn poll(&mut self) -> Result<Option<CommandRecord>, Error> {
        if self.closed {
            return Err(self.closed_again());
        }
        if let Some(interruption) = self.shared.set.interruption(CALL) {
            return Err(interruption.of_device(self.name()));
        }
        self.poll_ring()
    }

    /// As `poll`, whatever interrupts the waits of this process.
    #[inline]
    fn poll_ring(&mut self) -> Result<Option<CommandRecord>, Error> {
        if self.holds_back
            && let Some(released) = self.release()
        {
            return Ok(Some(released));
        }
        loop {
            let mut record = self.pop()?;
            if record.is_none() {
                let server = self.shared.set.control().server_word(self.shared.index);
                if server.map_err(|error| self.violation(Process::Unknown, error))? != ServerWord::Closed {
                    return Ok(None);
                }
                // What was sent before the device was closed is visible now.
                record = self.pop()?;
            }
            match record {
                Some(record) => {
                    if let Some(record) = self.receive(record)? {
                        return Ok(Some(record));
                    }
                }
                None if self.holds_back => return Ok(None),
                None => return Err(self.close()),
            }
        }
    }

    #[inline]
    fn pop(&mut self) -> Result<Option<CommandRecord>, Error> {
        self.commands.pop().map_err(|error| self.violation(Process::Unknown, error))
    }

    /// The ClearError that was held back, once the program has completed what it has.
    #[cold]
    fn release(&mut self) -> Option<CommandRecord> {
        let mut core = self.shared.core();
        let released = core.machine.released()?;
        core.holds_back = false;
        self.holds_back = false;
        Some(released)
    }

    /// What becomes of a command that arrived; `None` when the program does not see it now.
    #[inline]
    fn receive(&mut self, record: CommandRecord) -> Result<Option<CommandRecord>, Error> {
        let mut core = self.shared.core();
        match core.machine.received(record) {
            Ok(Receipt::Deliver(record)) => Ok(Some(record)),
            Ok(Receipt::Hold) => {
                core.holds_back = true;
                self.holds_back = true;
                Ok(None)
            }
            Ok(Receipt::Reject(completion)) => {
                let code = completion.code;
                let returned = self.return_unseen(&record);
                let pushed = returned.and_then(|()| {
                    core.completions.push(&completion).map_err(|error| (Process::Unknown, error.to_string()))
                });
                self.shared.notify_completion(core);
                self.trace_rejected(&record, code);
                pushed.map_err(|(process, evidence)| self.violation(process, evidence)).map(|()| None)
            }
            Err(violation) => {
                drop(core);
                Err(self.violation(Process::Server, violation))
            }
        }
    }

    #[cold]
    fn trace_rejected(&self, record: &CommandRecord, code: CompletionCode) {
        trace::event!(
            TRACE,
            set = self.set_name(),
            device = self.name(),
            id = record.id.0,
            command = %record.code,
            code = %code,
            "command rejected"
        );
    }

    /// Reclaims the buffer of a command that the program never sees. No process has its handle, so a lease is that of a map of
    /// the last loan, which ends at once.
    fn return_unseen(&self, record: &CommandRecord) -> Result<(), (Process, String)> {
        let Some(mut buffer) = self.take(record)? else { return Ok(()) };
        let deadline = Instant::now() + STALE_LEASE;
        loop {
            match buffer.reclaim() {
                Ok(()) => return Ok(()),
                Err((ReclaimError::Leased { .. }, leased)) if Instant::now() < deadline => buffer = leased,
                Err((error, _)) => return Err((Process::Unknown, error.to_string())),
            }
        }
    }

    /// The buffer of a command; the evidence where the server cannot have lent it.
    #[inline]
    fn take(&self, record: &CommandRecord) -> Result<Option<CommandBuffer>, (Process, String)> {
        let Some(loan) = record.loan.filter(|_| record.code.is_transfer()) else { return Ok(None) };
        let Some(buffers) = self.shared.set.buffers() else {
            return Err((Process::Server, "it sent a transfer before the set was configured".to_owned()));
        };
        let taken = buffers.take(loan, record.size as u32);
        taken.map(Some).map_err(|error| (Process::Server, error.to_string()))
    }

    #[inline]
    fn deliver(&mut self, record: CommandRecord) -> Result<(CommandRecord, HeldCommand), Error> {
        let buffer = self.take(&record).map_err(|(process, evidence)| self.violation(process, evidence))?;
        Ok((record, HeldCommand::new(buffer, Arc::clone(&self.shared))))
    }

    #[cold]
    fn violation(&self, process: Process, evidence: impl Display) -> Error {
        self.shared.set.violation(CALL, process, evidence).of_device(self.name())
    }

    /// The server closed the device.
    #[cold]
    fn close(&mut self) -> Error {
        self.closed = true;
        self.shared.core().machine.closed();
        self.shared.set.mark_closed(self.shared.index);
        self.shared.set.refuse(CALL, VdError::Close).of_device(self.name())
    }

    #[cold]
    fn closed_again(&self) -> Error {
        let set = &self.shared.set;
        let code = set.would_answer(Call::GetCommand(CommandPoll::Closed)).err().unwrap_or(VdError::Close);
        set.refuse(CALL, code).of_device(self.name())
    }

    /// No command came in time.
    #[cold]
    fn nothing_within(&self, timeout: Duration) -> Error {
        let set = &self.shared.set;
        let error = match set.would_answer(Call::GetCommand(CommandPoll::Nothing)) {
            Ok(()) | Err(VdError::Timeout) => {
                let (outstanding, waited) = (self.outstanding(), show_duration(timeout));
                let what: Cow<'static, str> = match outstanding {
                    0 if timeout.is_zero() => {
                        "no command is there now; try again, or wait for one with a time-out".into()
                    }
                    0 => format!("the server sent no command within {waited}").into(),
                    _ => format!(
                        "the server sent no command within {waited}; this program holds {outstanding} of its \
                         commands, for which it may be waiting"
                    )
                    .into(),
                };
                set.error(ErrorKind::NotYet, VdError::Timeout, CALL, what)
            }
            Err(code) => set.refuse(CALL, code),
        };
        error.of_device(self.name())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What OpenDevice found: the circumstance, and the device if this process opened it.
type Found = (Opening, Option<(DeviceIndex, ClientRings)>);

/// Finds a device and opens it: `None` while the server has not announced all its devices.
fn find(set: &Attachment, name: &str) -> Result<Option<Found>, LayoutError> {
    let control = set.control();
    let all_open = || -> Result<bool, LayoutError> {
        for device in control.devices() {
            if control.client_word(device)? == ClientWord::Unopened {
                return Ok(false);
            }
        }
        Ok(true)
    };
    if all_open()? {
        return Ok(Some((Opening::AllOpen, None)));
    }
    let mut announced = 0;
    for device in control.devices() {
        match control.device_name(device)? {
            Some(found) if found == name => {
                let found = match set.mark_opened(device)? {
                    Some(rings) => (Opening::Unopened, Some((device, rings))),
                    None if all_open()? => (Opening::AllOpen, None),
                    None => (Opening::AlreadyOpen, None),
                };
                return Ok(Some(found));
            }
            Some(_) => announced += 1,
            None => {}
        }
    }
    Ok((announced == control.device_count()).then_some((Opening::NoSuchDevice, None)))
}
