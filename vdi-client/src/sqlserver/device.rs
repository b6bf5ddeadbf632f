//! A device of the library, and the commands that came to it.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdi_proto::command::{CommandCode, CommandId, CommandRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::name::check_name;
use vdi_proto::status::VdError;

use super::buffers::{Buffer, Unheld};
use super::library::{BlockAddress, DeviceObject, Given};
use super::session::{Look, Session};
use crate::command::{Command, Refused};
use crate::error::{Error, ErrorKind};
use crate::trace;

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

/// A device, as its one user has it.
#[derive(Debug)]
pub(crate) struct Device {
    shared: Arc<DeviceShared>,
    closed: bool,
}

impl DeviceShared {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn set_name(&self) -> &str {
        self.session.set_name()
    }

    /// The error of completing something that is no command, unless the session is over.
    pub(crate) fn refuse_unknown(&self, what: &str) -> Error {
        const CALL: &str = "CompleteCommand";
        let error = match self.session.interruption(CALL) {
            Some(interruption) if interruption.code() != VdError::Timeout => interruption,
            _ => self.session.error(ErrorKind::Misuse, VdError::Invalid, CALL, what.to_owned()),
        };
        error.of_device(&self.name)
    }

    /// Aborts the set, unless it has ended.
    pub(crate) fn abandon(&self) {
        self.session.abort();
    }

    /// Turns what the library gave into a command, once it is seen to be one.
    fn receive(self: &Arc<Self>, address: BlockAddress, block: &super::library::Block) -> Result<Command, Error> {
        const CALL: &str = "GetCommand";
        let record = CommandRecord {
            code: CommandCode::new(block.code.cast_unsigned()),
            id: CommandId(self.commands.fetch_add(1, Ordering::Relaxed)),
            size: block.size,
            position: block.position.cast_unsigned(),
            loan: Loan { slot: 0, generation: 0 },
        };
        let mut held = Held { device: Arc::clone(self), block: address, buffer: None };
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        if record.code.is_transfer() && block.size != 0 {
            let limit = self.config.max_transfer_size;
            let buffer = match u32::try_from(block.size) {
                Ok(size) if size <= limit => self.session.hold(block.buffer, size as usize),
                _ => Err(Unheld::Nonsense(format!("{} bytes of at most {limit} (maxTransferSize)", block.size))),
            };
            let evidence = match buffer {
                Ok(buffer) => {
                    held.buffer = Some(buffer);
                    None
                }
                Err(Unheld::Nonsense(evidence)) => Some(evidence),
                Err(Unheld::Here(address)) => Some(format!("a buffer at {address:#x} that this process has already")),
                Err(Unheld::Closed) => {
                    held.forget();
                    return Err(self
                        .session
                        .closed_error(CALL)
                        .unwrap_or_else(|| self.refuse_unknown("the set was closed")));
                }
            };
            if let Some(evidence) = evidence {
                let error = self.session.accuse(CALL, &format!("it sent {} with {evidence}", record.code));
                // It is not kept from the server: the answer is a failure, whatever the library makes of it.
                if held.complete(CompletionCode::OPERATION_ABORTED, 0, 0).is_err_and(|refused| !refused.answered) {
                    // Nor is there anything more to be done about it.
                    held.forget();
                }
                return Err(error.of_command(record.code));
            }
        }
        Ok(Command::of_vendor(record, held))
    }
}

impl Device {
    pub(super) fn open(session: Arc<Session>, name: &str) -> Result<Device, Error> {
        const CALL: &str = "OpenDevice";
        let open = || {
            let config = session.agreed(CALL)?;
            check_name(name).map_err(|error| {
                session.error(ErrorKind::Misuse, error.code(), CALL, format!("device {name:?}: {error}"))
            })?;
            if let Some(interruption) = session.interruption(CALL) {
                return Err(interruption);
            }
            let opened = match session.opening(|| session.object().open_device(name)) {
                Some(Err(answer)) => return Err(session.refused(CALL, answer)),
                Some(Ok(opened)) => opened,
                None => {
                    return Err(session.judge(CALL, None).err().unwrap_or_else(|| session.accuse(CALL, "no answer")));
                }
            };
            let object = opened.ok_or_else(|| {
                session.accuse(CALL, "OpenDevice gave no device, or a device that it has given before")
            })?;
            Ok((object, config))
        };
        let (object, config) = open().map_err(|error: Error| error.of_device(name))?;
        trace::event!(DEBUG, call = CALL, set = session.set_name(), device = name, "device opened");
        let (outstanding, commands) = (AtomicU32::new(0), AtomicU32::new(0));
        let shared = DeviceShared { session, object, name: name.to_owned(), config, outstanding, commands };
        Ok(Device { shared: Arc::new(shared), closed: false })
    }

    pub(crate) fn shared(&self) -> &Arc<DeviceShared> {
        &self.shared
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
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

    pub(crate) fn abandon(&self) {
        if !self.closed {
            self.shared.session.abort();
        }
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.shared.outstanding.load(Ordering::Relaxed)
    }

    pub(crate) fn get_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        let waited = trace::Clock::start();
        let got = self.wait_for_command(timeout);
        match &got {
            Ok(command) => command.tell_received(waited),
            Err(error) => trace::trace_refused(error),
        }
        got
    }

    pub(crate) fn try_get_command(&mut self) -> Result<Option<Command>, Error> {
        let got = self.wait_for_command(Duration::ZERO);
        match got {
            // Unless that is how a cancelled wait ends.
            Err(error) if error.code() == VdError::Timeout && self.interruption("GetCommand").is_none() => Ok(None),
            Err(error) => {
                trace::trace_refused(&error);
                Err(error)
            }
            Ok(command) => {
                command.tell_received(trace::Clock::default());
                Ok(Some(command))
            }
        }
    }

    fn wait_for_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        const CALL: &str = "GetCommand";
        let shared = &self.shared;
        let session = &shared.session;
        let of_device = |error: Error| error.of_device(&shared.name);
        if self.closed {
            return Err(of_device(session.refused(CALL, VdError::Close.hresult().cast_signed())));
        }
        let busy = || shared.outstanding.load(Ordering::Relaxed) > 0;
        let got = session.wait(CALL, session.get_command_unit(), timeout, busy, |timeout| {
            let given = shared.object.get_command(timeout, |start, len| session.memory().can_read(start, len))?;
            Some(match given {
                Given::Answer(answer) => Look::Answer(answer),
                Given::Nonsense(address) => {
                    Look::Failed(session.accuse(CALL, &format!("GetCommand gave a command at {address:#x}")))
                }
                Given::Command(address, block) => match shared.receive(address, &block) {
                    Ok(command) => Look::Found(command),
                    Err(error) => Look::Failed(error),
                },
            })
        });
        if let Err(error) = &got
            && error.is_close()
        {
            self.closed = true;
            session.device_ended();
            trace::event!(DEBUG, call = CALL, set = session.set_name(), device = shared.name(), "device closed");
        }
        got.map_err(of_device)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Device {
    /// Ends the work of this device, before its time unless the server has closed it.
    pub(crate) fn leave(&mut self) {
        if self.closed
            || self.shared.session.interruption("GetCommand").is_some_and(|end| end.code() != VdError::Timeout)
        {
            return;
        }
        // The server may have closed it already, without this program having asked.
        let look = self.wait_for_command(Duration::ZERO);
        if !self.closed {
            self.shared.session.abort();
        }
        // A command that was found ends with the abort.
        drop(look);
    }
}

/// A command of the library that was not completed yet.
#[derive(Debug)]
pub(crate) struct Held {
    device: Arc<DeviceShared>,
    block: BlockAddress,
    buffer: Option<Buffer>,
}

impl Held {
    pub(crate) fn device(&self) -> &Arc<DeviceShared> {
        &self.device
    }

    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }

    pub(crate) fn buffer_mut(&mut self) -> Option<&mut Buffer> {
        self.buffer.as_mut()
    }

    /// The program is done with it.
    fn forget(&self) {
        self.device.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// CompleteCommand. The buffer goes back before: the library may give it out again at once.
    pub(crate) fn complete(&mut self, code: CompletionCode, bytes: u32, position: u64) -> Result<(), Refused> {
        const CALL: &str = "CompleteCommand";
        let session = &self.device.session;
        let place = self.buffer.take().map(|buffer| (buffer.address().as_ptr(), buffer.data().len()));
        let answer = self.device.object.complete_command(self.block, code.number(), u64::from(bytes), position);
        let Err(error) = session.judge(CALL, answer) else {
            self.forget();
            return Ok(());
        };
        let over = matches!(error.code(), VdError::Abort | VdError::Protocol | VdError::Close | VdError::NotOpen);
        let over = over
            || place.is_some_and(|(start, len)| match session.hold(start, len) {
                Ok(buffer) => {
                    self.buffer = Some(buffer);
                    false
                }
                Err(Unheld::Closed) => true,
                // The library has given it out again although it refused. Nobody can complete it any more, and the server must
                // not wait for that.
                Err(_) => {
                    session.abort();
                    true
                }
            });
        if over {
            self.forget();
        }
        Err(Refused { error, answered: over })
    }
}
