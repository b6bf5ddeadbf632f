//! Devices of the library, and the commands that came to them.

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdi_proto::command::{CommandCode, CommandId, CommandRecord};
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::name::check_name;
use vdi_proto::status::VdError;

use super::buffers::{Buffer, Unavailable};
use super::library::{Block, BlockAddress, Bytes, DeviceObject};
use super::session::{Poll, Session};
use crate::completion::{Outcome, Refused};
use crate::error::{Error, ErrorKind};

/// A device, for its commands and for threads beside its user.
pub(crate) type DeviceRef = Arc<DeviceShared>;

/// What a device and its commands share.
#[derive(Debug)]
pub(crate) struct DeviceShared {
    session: Arc<Session>,
    object: DeviceObject,
    name: String,
    config: VdConfig,
    outstanding: AtomicU32,
    commands: AtomicU32,
}

impl DeviceShared {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn set_name(&self) -> &str {
        self.session.set_name()
    }

    pub(crate) fn refuse_unknown(&self, what: &str) -> Error {
        const CALL: &str = "CompleteCommand";
        let interruption = self.session.interruption(CALL).filter(|error| error.code() != VdError::Timeout);
        let error = interruption
            .unwrap_or_else(|| self.session.error(ErrorKind::Misuse, VdError::Invalid, CALL, what.to_owned()));
        error.of_device(&self.name)
    }

    pub(crate) fn abandon(&self) {
        self.session.abort();
    }

    /// Makes a command of what the library gave.
    fn receive(self: &Arc<Self>, address: BlockAddress, block: Block) -> Result<(CommandRecord, HeldCommand), Error> {
        const CALL: &str = "GetCommand";
        let record = CommandRecord {
            code: CommandCode::new(block.code.cast_unsigned()),
            id: CommandId(self.commands.fetch_add(1, Ordering::Relaxed)),
            size: block.size,
            position: block.position.cast_unsigned(),
            loan: None,
        };
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        let mut held = HeldCommand { device: Arc::clone(self), block: address, buffer: None };
        if !record.code.is_transfer() || block.size == 0 {
            return Ok((record, held));
        }
        let limit = self.config.max_transfer_size;
        let buffer = match u32::try_from(block.size) {
            Ok(size) if size <= limit => self.session.register(block.buffer, size as usize),
            _ => Err(Unavailable::Invalid(format!("{} bytes of at most {limit} (maxTransferSize)", block.size))),
        };
        let evidence = match buffer {
            Ok(buffer) => {
                held.buffer = Some(buffer);
                return Ok((record, held));
            }
            Err(Unavailable::Closed) => {
                held.forget();
                return Err(self.session.closed_now(CALL));
            }
            Err(Unavailable::Invalid(evidence)) => evidence,
            Err(Unavailable::Registered) => {
                format!("a buffer at {:#x} that this process has already", block.buffer.addr())
            }
        };
        let error = self.session.violation(CALL, &format!("it sent {} with {evidence}", record.code));
        // The library gets an answer all the same, and nothing more can be done about the command.
        let answer = held.complete(&record, Outcome::failed(CompletionCode::OPERATION_ABORTED));
        if answer.is_err_and(|refused| refused.outstanding) {
            held.forget();
        }
        Err(error.of_command(record.code))
    }
}

impl Session {
    pub(crate) fn open_device(self: &Arc<Self>, name: &str) -> Result<Device, Error> {
        Device::open(Arc::clone(self), name).map_err(|error| error.of_device(name))
    }
}

/// A device, as its one user has it.
#[derive(Debug)]
pub(crate) struct Device {
    shared: Arc<DeviceShared>,
    closed: bool,
}

impl Device {
    /// The caller adds the name to an error.
    fn open(session: Arc<Session>, name: &str) -> Result<Device, Error> {
        const CALL: &str = "OpenDevice";
        let config = session.negotiated(CALL)?;
        check_name(name).map_err(|error| {
            session.error(ErrorKind::Misuse, error.code(), CALL, format!("device {name:?}: {error}"))
        })?;
        if let Some(interruption) = session.interruption(CALL) {
            return Err(interruption);
        }
        let object = match session.opening(|| session.object().open_device(name)) {
            Some(Ok(Some(object))) => object,
            Some(Ok(None)) => return Err(session.violation(CALL, "OpenDevice gave no device")),
            Some(Err(answer)) => return Err(session.refused(CALL, answer)),
            None => return Err(session.closed_now(CALL)),
        };
        let (outstanding, commands) = (AtomicU32::new(0), AtomicU32::new(0));
        let shared = DeviceShared { session, object, name: name.to_owned(), config, outstanding, commands };
        Ok(Device { shared: Arc::new(shared), closed: false })
    }

    pub(crate) fn reference(&self) -> DeviceRef {
        Arc::clone(&self.shared)
    }

    pub(crate) fn gave(&self, command: &HeldCommand) -> bool {
        Arc::ptr_eq(&self.shared, &command.device)
    }

    pub(crate) fn name(&self) -> &str {
        self.shared.name()
    }

    pub(crate) fn set_name(&self) -> &str {
        self.shared.set_name()
    }

    pub(crate) fn config(&self) -> VdConfig {
        self.shared.config
    }

    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        self.shared.session.interruption(call)
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.shared.outstanding.load(Ordering::Relaxed)
    }

    /// The library does not tell.
    pub(crate) fn unopened(&self) -> Vec<String> {
        Vec::new()
    }

    /// The library takes no reason.
    pub(crate) fn give_up(&self, _code: CompletionCode, _why: &str) {
        self.abandon();
    }

    fn abandon(&self) {
        if !self.closed {
            self.shared.abandon();
        }
    }

    pub(crate) fn leave(&mut self) {
        let ended = self.interruption("GetCommand").is_some_and(|end| end.code() != VdError::Timeout);
        if self.closed || ended {
            return;
        }
        // The server may have closed it already, without this program having asked. A command that is found ends with the abort.
        let found = self.get_command(Duration::ZERO);
        self.abandon();
        drop(found);
    }

    pub(crate) fn try_get_command(&mut self) -> Result<Option<(CommandRecord, HeldCommand)>, Error> {
        match self.get_command(Duration::ZERO) {
            Ok(received) => Ok(Some(received)),
            // Unless a cancelled wait ended so.
            Err(error) if error.code() == VdError::Timeout && self.interruption("GetCommand").is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn get_command(&mut self, timeout: Duration) -> Result<(CommandRecord, HeldCommand), Error> {
        const CALL: &str = "GetCommand";
        let shared = &self.shared;
        let session = &shared.session;
        let got = if self.closed {
            Err(session.refused(CALL, VdError::Close.hresult().cast_signed()))
        } else {
            let busy = || shared.outstanding.load(Ordering::Relaxed) > 0;
            session.wait(CALL, session.get_command_unit(), timeout, busy, |timeout| {
                Some(match shared.object.get_command(timeout)? {
                    Err(answer) => Poll::Answer(answer),
                    Ok(None) => Poll::Failed(session.violation(CALL, "GetCommand gave no command")),
                    Ok(Some((address, block))) => match shared.receive(address, block) {
                        Ok(received) => Poll::Ready(received),
                        Err(error) => Poll::Failed(error),
                    },
                })
            })
        };
        got.map_err(|error| {
            if error.is_close() && !self.closed {
                self.closed = true;
                self.shared.session.device_ended();
            }
            error.of_device(&self.shared.name)
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A command of the library that was not completed yet.
#[derive(Debug)]
pub(crate) struct HeldCommand {
    device: Arc<DeviceShared>,
    block: BlockAddress,
    buffer: Option<Buffer>,
}

impl HeldCommand {
    pub(crate) fn device_name(&self) -> &str {
        self.device.name()
    }

    pub(crate) fn set_name(&self) -> &str {
        self.device.set_name()
    }

    fn bytes(&self) -> Option<&Bytes> {
        self.buffer.as_ref().map(|buffer| &buffer.bytes)
    }

    fn bytes_mut(&mut self) -> Option<&mut Bytes> {
        self.buffer.as_mut().map(|buffer| &mut buffer.bytes)
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.bytes().map_or(&[], Bytes::data)
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        self.bytes_mut().map_or(&mut [], Bytes::data_mut)
    }

    pub(crate) fn prefix_mut(&mut self) -> &mut [u8] {
        self.bytes_mut().map_or(&mut [], Bytes::prefix_mut)
    }

    pub(crate) fn address(&self) -> Option<NonNull<u8>> {
        self.bytes().map(Bytes::start)
    }

    pub(crate) fn handle(&self) -> Result<Option<BufferHandle>, Error> {
        let handle = |start: NonNull<u8>| self.device.session.get_buffer_handle(start.as_ptr());
        self.address().map(handle).transpose()
    }

    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        self.device.session.interruption(call)
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        self.device.session.closed_error("CompleteCommand")
    }

    pub(crate) fn abandon(&self) {
        self.device.abandon();
    }

    /// The library takes no reason.
    pub(crate) fn give_up(&self, _code: CompletionCode, _why: &str) {
        self.device.abandon();
    }

    /// The program is done with it.
    fn forget(&self) {
        self.device.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// CompleteCommand. The buffer is released before: the library may give it out again at once.
    pub(crate) fn complete(&mut self, _record: &CommandRecord, outcome: Outcome) -> Result<(), Refused> {
        const CALL: &str = "CompleteCommand";
        let Outcome { code, bytes, position } = outcome;
        let session = &self.device.session;
        let buffer = self.buffer.take().map(|buffer| (buffer.bytes.start().as_ptr(), buffer.bytes.data().len()));
        let answer = self.device.object.complete_command(self.block, code.number(), u64::from(bytes), position);
        let Err(error) = session.check(CALL, answer) else {
            self.forget();
            return Ok(());
        };
        let over = matches!(error.code(), VdError::Abort | VdError::Protocol | VdError::Close | VdError::NotOpen);
        let outstanding = !over
            && buffer.is_none_or(|(start, len)| match session.register(start, len) {
                Ok(buffer) => {
                    self.buffer = Some(buffer);
                    true
                }
                Err(Unavailable::Closed) => false,
                // The library has given it out again although it refused. The command cannot be completed any more, and the
                // server must not wait for that.
                Err(_) => {
                    session.abort();
                    false
                }
            });
        if !outstanding {
            self.forget();
        }
        Err(Refused { error, outstanding })
    }
}
