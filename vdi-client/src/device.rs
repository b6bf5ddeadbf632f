//! A virtual device, as a client uses it.

use core::time::Duration;
use std::sync::Arc;

use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::status::VdError;

use crate::INFINITE;
use crate::back_end::{self, DeviceRef, Received};
use crate::command::{Command, CompleteError, Completion};
use crate::error::{Error, ErrorKind};
use crate::trace;
use crate::unserved::{QUIET, Unserved};

/// A virtual device: IClientVirtualDevice.
///
/// A device is meant for one thread. Several devices of a set work side by side, in one process or in several, and each needs
/// a thread of its own: [`ClientVirtualDeviceSet::serve`](crate::ClientVirtualDeviceSet::serve) starts them. A device that is
/// dropped before the server closed it aborts the set.
#[derive(Debug)]
#[doc(alias = "IClientVirtualDevice")]
pub struct ClientVirtualDevice {
    device: back_end::Device,
    /// VD_E_CLOSE was returned.
    closed: bool,
    unserved: Arc<Unserved>,
    /// GetCommand was called.
    served: bool,
    /// GetCommand may still have to warn of devices that no thread serves.
    watchful: bool,
}

impl ClientVirtualDevice {
    pub(crate) fn new(device: back_end::Device, unserved: Arc<Unserved>) -> Self {
        unserved.opened(device.name());
        ClientVirtualDevice { device, closed: false, unserved, served: false, watchful: true }
    }

    /// The device gives no warning: its program did not ask for messages.
    pub(crate) fn without_warnings(mut self) -> Self {
        self.watchful = false;
        self
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.name()
    }

    pub(crate) fn set_name(&self) -> &str {
        self.device.set_name()
    }

    /// What client and server negotiated for the set.
    #[must_use]
    pub fn config(&self) -> VdConfig {
        self.device.config()
    }

    /// Waits for the server's next command; a `timeout` of zero does not wait. Several commands may be held at a time.
    ///
    /// A wait without a time-out that has lasted 10 seconds looks once for devices that are not served: opened by this process,
    /// and never asked for a command; or opened by no process. It then warns, by the event `no command comes` of `tracing`, or on
    /// standard error where no subscriber listens, and goes on waiting.
    ///
    /// # Errors
    /// VD_E_CLOSE when the server closed the device: the normal end, see [`Error::is_close`]; VD_E_TIMEOUT when `timeout`
    /// passes first, or the wait is cancelled ([`ErrorKind::Cancelled`]); VD_E_ABORT; VD_E_PROTOCOL after the set was closed, and once all devices of
    /// the set returned VD_E_CLOSE.
    #[inline]
    #[doc(alias = "GetCommand")]
    pub fn get_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        let waited = trace::Clock::start();
        self.serve();
        let received = match self.watchful && timeout == INFINITE {
            true => self.get_command_watching(),
            false => self.device.get_command(timeout),
        };
        match received {
            Ok(received) => Ok(Command::new(received, waited)),
            Err(error) => Err(self.ended(error)),
        }
    }

    /// GetCommand that does not wait: `None` while no command is there. For threads that serve several devices in turn: they
    /// need no error for each device without a command.
    ///
    /// # Errors
    /// As [`ClientVirtualDevice::get_command`]; VD_E_TIMEOUT only when waits are cancelled.
    ///
    /// ```no_run
    /// use vdi_client::{ClientVirtualDevice, Completion};
    ///
    /// # fn pass(devices: &mut [ClientVirtualDevice]) -> Result<(), vdi_client::Error> {
    /// for device in devices {
    ///     while let Some(command) = device.try_get_command()? {
    ///         let bytes = command.data().len(); // ... store them ...
    ///         command.complete(if bytes > 0 { Completion::transferred(bytes) } else { Completion::done() })?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_get_command(&mut self) -> Result<Option<Command>, Error> {
        self.serve();
        match self.device.try_get_command() {
            Ok(received) => Ok(received.map(|received| Command::new(received, trace::Clock::default()))),
            Err(error) => Err(self.ended(error)),
        }
    }

    /// A thread gets this device's commands.
    #[inline]
    fn serve(&mut self) {
        if !self.served {
            self.served = true;
            self.unserved.remove(self.device.name());
        }
    }

    /// GetCommand without a time-out, which warns of devices that no thread serves.
    #[inline]
    fn get_command_watching(&mut self) -> Result<Received, Error> {
        match self.device.get_command(QUIET) {
            Err(quiet) if quiet.kind() == ErrorKind::NotYet => {
                // Devices that are served now stay so: one look is enough, unless all is well.
                self.watchful = !self.unserved.warn(self.set_name(), self.name(), &self.device.unopened());
                self.device.get_command(INFINITE)
            }
            received => received,
        }
    }

    /// GetCommand gave an error.
    #[cold]
    fn ended(&mut self, error: Error) -> Error {
        if error.is_close() && !self.closed {
            self.closed = true;
            trace::event!(DEBUG, call = error.call(), set = self.set_name(), device = self.name(), "device closed");
        }
        trace::trace_refused(&error);
        error
    }

    /// CompleteCommand: reports to the server how a command of this device ended, and releases its buffer.
    ///
    /// # Errors
    /// VD_E_INVALID for another device's command and for a completion that does not fit the command; VD_E_BUSY while another
    /// process has the buffer mapped; VD_E_ABORT, VD_E_PROTOCOL. The command comes back where it is still outstanding.
    #[doc(alias = "CompleteCommand")]
    pub fn complete_command(&self, command: Command, completion: Completion) -> Result<(), CompleteError> {
        if self.device.gave(command.held()) {
            return command.complete(completion);
        }
        let what = format!("the command came to device {:?}; complete it there", command.device());
        let error = Error::new(ErrorKind::Misuse, VdError::Invalid, "CompleteCommand", self.set_name(), what);
        let error = error.of_device(self.name()).of_command(command.code());
        trace::trace_refused(&error);
        Err(CompleteError { error, command: Some(command) })
    }

    /// How many commands the program holds.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.device.outstanding()
    }

    /// GetCommand has returned VD_E_CLOSE.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The device for threads beside the one that gets its commands.
    pub(crate) fn reference(&self) -> DeviceRef {
        self.device.reference()
    }

    /// Why a wait of this device must end now, if it must.
    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        self.device.interruption(call).map(|error| error.of_device(self.name()))
    }

    /// An error about this device that did not come from a call of the interface.
    pub(crate) fn error(&self, kind: ErrorKind, call: &'static str, what: String) -> Error {
        Error::new(kind, VdError::Unexpected, call, self.set_name(), what).of_device(self.name())
    }

    /// Aborts the set, unless it has ended, because this device's work failed.
    pub(crate) fn give_up(&self, code: CompletionCode, why: &str) {
        self.device.give_up(code, why);
    }

    /// Ends the work of this device, before its time unless the server has closed it.
    pub(crate) fn leave(&mut self) {
        self.device.leave();
    }
}

impl Drop for ClientVirtualDevice {
    fn drop(&mut self) {
        self.serve();
    }
}
