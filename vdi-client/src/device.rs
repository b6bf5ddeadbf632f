//! A virtual device, as a client uses it.
//!
//! Source of the rules: VDI specification, IClientVirtualDevice; [`vdi_proto::device`] for errors of the device.
//!
//! # Invariants
//!
//! 1. One `&mut` user gets commands: it is the one consumer of the submission ring. Completions come from any thread; the
//!    core's seat makes them one producer of the completion ring.
//! 2. Nothing is delivered once this process has seen an abort, and nothing after VD_E_CLOSE.
//! 3. A device that is dropped before the server closed it aborts the set: nobody would ever answer it.

use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use vdi_proto::abort::{Cause, Party};
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::config::VdConfig;
use vdi_proto::device::{ClientDevice, Entry, Limits, Receipt};
use vdi_proto::layout::{LayoutError, ServerWord};
use vdi_proto::set::client::{Call, Got};
use vdi_proto::status::VdError;
use vdi_shm::area::BufferError;
use vdi_shm::control::DeviceBlock;
use vdi_shm::error::ShmError;
use vdi_shm::ring::{Consumer, Producer, RingMemory};
use vdi_shm::seat::Seat;
use vdi_shm::segment::Shared;
use vdi_shm::wait;

use crate::command::{Command, CompleteError, Completion};
use crate::error::{Error, ErrorKind};
#[cfg(feature = "sqlserver")]
use crate::sqlserver;
use crate::state::Attached;
use crate::trace;

/// Commands that a device's table has room for at once: an allocation of the least size.
const FEW: usize = 2;

/// What a device and its commands share.
#[derive(Debug)]
pub(crate) struct DeviceShared {
    pub(crate) set: Arc<Attached>,
    index: u32,
    name: String,
    block: Shared<DeviceBlock>,
    core: Seat<Core>,
    /// A ClearError is held back until the program has completed what it holds.
    holding: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Core {
    /// Its table grows: few devices ever have all places in use.
    pub(crate) machine: ClientDevice<Vec<Entry>>,
    pub(crate) completions: Producer<Shared<RingMemory>>,
}

impl DeviceShared {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[inline]
    pub(crate) fn core(&self) -> impl DerefMut<Target = Core> {
        // Both parts are whole at every moment.
        self.core.take()
    }

    fn set_name(&self) -> &str {
        self.set.session.set_name()
    }

    fn abandon(&self) {
        if !self.set.is_closed() && self.set.session.abort_reason().is_none() {
            self.set.abort(Cause::AbandonedDevice);
        }
    }

    /// The error of completing something that is no command, unless the session is over.
    fn refuse_unknown(&self, what: &str) -> Error {
        const CALL: &str = "CompleteCommand";
        if let Some(interruption) = self.set.interruption(CALL)
            && interruption.code() != VdError::Timeout
        {
            return interruption.of_device(&self.name);
        }
        Error::new(ErrorKind::Misuse, VdError::Invalid, CALL, self.set.session.set_name(), what.to_owned())
            .of_device(&self.name)
    }

    /// A completion was pushed: tell the server, and whoever waits here for the program to hold nothing.
    #[inline]
    pub(crate) fn announce_completion(&self) {
        wait::ring(self.set.session.control().agent_doorbell());
        if self.holding.load(Ordering::Relaxed) {
            wait::ring(self.block.doorbell());
        }
    }
}

/// A virtual device: IClientVirtualDevice.
///
/// A device is meant for one thread; several devices of a set work side by side, in one process or in several.
#[derive(Debug)]
pub struct ClientVirtualDevice(Inner);

/// The back end of a device.
#[derive(Debug)]
enum Inner {
    Own(Own),
    #[cfg(feature = "sqlserver")]
    SqlServer(sqlserver::Device),
}

/// What a device and its commands share, of whichever back end.
#[derive(Debug, Clone)]
pub(crate) enum Anchor {
    Own(Arc<DeviceShared>),
    #[cfg(feature = "sqlserver")]
    SqlServer(Arc<sqlserver::DeviceShared>),
}

macro_rules! anchored {
    ($anchor:expr, $it:ident => $call:expr) => {
        match $anchor {
            Anchor::Own($it) => $call,
            #[cfg(feature = "sqlserver")]
            Anchor::SqlServer($it) => $call,
        }
    };
}

impl Anchor {
    pub(crate) fn name(&self) -> &str {
        anchored!(self, shared => shared.name())
    }

    pub(crate) fn set_name(&self) -> &str {
        anchored!(self, shared => shared.set_name())
    }

    /// The error of completing a command that the program does not hold.
    pub(crate) fn not_active(&self, id: CommandId) -> Error {
        self.refuse_unknown(&format!("command {:#x} is not an active command of this device", id.0))
    }

    /// The error of completing something that is no command, unless the session is over.
    pub(crate) fn refuse_unknown(&self, what: &str) -> Error {
        let error = anchored!(self, shared => shared.refuse_unknown(what));
        trace::trace_refused(&error);
        error
    }

    /// Aborts the set, unless it has ended, because the device is used no longer.
    pub(crate) fn abandon(&self) {
        anchored!(self, shared => shared.abandon());
    }
}

/// The same call of whichever back end.
macro_rules! either {
    ($device:expr, $it:ident => $call:expr) => {
        match $device {
            Inner::Own($it) => $call,
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer($it) => $call,
        }
    };
}

/// A device in this library's own shared memory.
#[derive(Debug)]
struct Own {
    shared: Arc<DeviceShared>,
    /// What the next command has of `shared`: taken while there is nothing else to do.
    spare: Option<Arc<DeviceShared>>,
    submissions: Consumer<Shared<RingMemory>>,
    closed: bool,
    /// When it was last made sure that the server can still see what this process told it.
    checked: Duration,
}

/// What a look at the ring gave.
enum Look {
    /// A command that the machine has entered, to be delivered. Its record lies beside this, not in it: the parts of an enum are
    /// put into memory and moved by more words at once than were written, and such a move waits until what was written has left
    /// the processor, several nanoseconds of some two hundred. Beside it, where all is one function, it stays in registers.
    Command,
    Closed,
    Interrupted(Error),
}

/// What a record is before a look has found one.
const NOTHING: CommandRecord = CommandRecord::from_words([0; 4]);

impl ClientVirtualDevice {
    /// The caller adds the device's name to an error.
    pub(crate) fn new(set: Arc<Attached>, index: u32, name: &str) -> Result<Self, Error> {
        const CALL: &str = "OpenDevice";
        let session = &set.session;
        let failed = |error: ShmError| Error::from_shm(CALL, session.set_name(), error);
        let Some(agreement) = session.agreement() else { return Err(set.refuse(CALL, VdError::Protocol)) };
        let limits = Limits::new(&agreement.config, agreement.slot_bits);
        let control = session.control();
        let Some(block) = control.device(index).cloned() else { return Err(set.refuse(CALL, VdError::Invalid)) };
        let completions = control.completion_producer(index).map_err(failed)?;
        let submissions = control.submission_consumer(index).map_err(failed)?;
        let core = Seat::new(Core { machine: ClientDevice::with_table(limits, Vec::with_capacity(FEW)), completions });
        let holding = AtomicBool::new(false);
        let shared = Arc::new(DeviceShared { set, index, name: name.to_owned(), block, core, holding });
        Ok(ClientVirtualDevice(Inner::Own(Own {
            shared,
            spare: None,
            submissions,
            closed: false,
            checked: wait::coarse_now(),
        })))
    }

    #[cfg(feature = "sqlserver")]
    pub(crate) fn of_vendor(device: sqlserver::Device) -> Self {
        ClientVirtualDevice(Inner::SqlServer(device))
    }

    pub(crate) fn anchor(&self) -> Anchor {
        match &self.0 {
            Inner::Own(device) => Anchor::Own(Arc::clone(&device.shared)),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(device) => Anchor::SqlServer(Arc::clone(device.shared())),
        }
    }

    /// Whether a wait of this device must end now.
    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        either!(&self.0, device => device.interruption(call)).map(|error| error.of_device(self.name()))
    }

    pub(crate) fn set_name(&self) -> &str {
        either!(&self.0, device => device.set_name())
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        either!(&self.0, device => device.name())
    }

    /// What client and server agreed on for the set.
    #[must_use]
    pub fn config(&self) -> VdConfig {
        either!(&self.0, device => device.config())
    }

    /// Waits for the server's next command; a `timeout` of zero only looks. Several commands may be held at a time.
    ///
    /// # Errors
    /// VD_E_CLOSE when the server closed the device: the normal end, see [`Error::is_close`]; VD_E_TIMEOUT when `timeout`
    /// passes first, or the wait is cancelled; VD_E_ABORT; VD_E_PROTOCOL after the set was closed, and once all devices of
    /// the set returned VD_E_CLOSE.
    #[inline]
    pub fn get_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        either!(&mut self.0, device => device.get_command(timeout))
    }

    /// GetCommand that only looks: `None` while no command is there. For threads that serve several devices in turn, which
    /// would get an error to throw away for each look that finds nothing.
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
        either!(&mut self.0, device => device.try_get_command())
    }

    /// CompleteCommand: tells the server how a command of this device ended, and gives its buffer back.
    ///
    /// # Errors
    /// VD_E_INVALID for another device's command and for a completion that does not fit the command; VD_E_BUSY while another
    /// process has the buffer mapped; VD_E_ABORT, VD_E_PROTOCOL. The command comes back where it is still outstanding.
    pub fn complete_command(&self, command: Command, completion: Completion) -> Result<(), CompleteError> {
        let here = match &self.0 {
            Inner::Own(device) => command.is_of(&device.shared),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(device) => command.is_of_vendor(device.shared()),
        };
        if here {
            return command.complete(completion);
        }
        let what = format!("the command came to device {:?}; complete it there", command.device());
        let error = Error::new(ErrorKind::Misuse, VdError::Invalid, "CompleteCommand", self.set_name(), what);
        let error = error.of_device(self.name()).of_command(command.code());
        trace::trace_refused(&error);
        Err(CompleteError { error, command: Some(command) })
    }

    /// An error about this device that did not come from a call of the interface.
    pub(crate) fn error(&self, kind: ErrorKind, call: &'static str, what: String) -> Error {
        Error::new(kind, VdError::Unexpected, call, self.set_name(), what).of_device(self.name())
    }

    /// Aborts the set, unless it has ended, because this device's work failed.
    pub(crate) fn abandon(&self) {
        either!(&self.0, device => device.abandon());
    }

    /// Ends the work of this device, before its time unless the server has closed it.
    pub(crate) fn leave(&mut self) {
        either!(&mut self.0, device => device.leave());
    }

    /// How many commands the program holds.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        either!(&self.0, device => device.outstanding())
    }
}

/// Whose fault it is that a command's buffer cannot be had: the server's, unless somebody wrote over where it is.
fn lender(error: &BufferError) -> Party {
    match error {
        BufferError::Place(LayoutError::PlaceSeal { .. }) => Party::Somebody,
        _ => Party::Server,
    }
}

impl Own {
    fn interruption(&self, call: &'static str) -> Option<Error> {
        self.shared.set.interruption(call)
    }

    fn set_name(&self) -> &str {
        self.shared.set.session.set_name()
    }

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn config(&self) -> VdConfig {
        // A device is only ever made with an agreement.
        self.shared.set.config().copied().unwrap_or_default()
    }

    #[inline]
    fn try_get_command(&mut self) -> Result<Option<Command>, Error> {
        let mut record = NOTHING;
        match self.look_unless_closed(&mut record).or_else(|| self.check_written()) {
            Some(look) => self.seen(look, record, trace::Clock::default()).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    fn get_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        // A command that is there, or comes within a microsecond, needs no clock.
        if !timeout.is_zero() && !self.submissions.is_ready() && !self.closed {
            self.spare.get_or_insert_with(|| Arc::clone(&self.shared));
            wait::briefly(|| self.submissions.is_ready());
        }
        let mut record = NOTHING;
        match self.look_unless_closed(&mut record) {
            Some(look) => self.seen(look, record, trace::Clock::default()),
            None => self.wait_for_command(timeout),
        }
    }

    /// GetCommand when no command came at once.
    #[inline(never)]
    fn wait_for_command(&mut self, timeout: Duration) -> Result<Command, Error> {
        let waited = trace::Clock::start();
        let mut record = NOTHING;
        let look = if timeout.is_zero() {
            self.check_written()
        } else {
            self.wait_for_look(wait::deadline(timeout), &mut record)
        };
        match look {
            Some(look) => self.seen(look, record, waited),
            None => Err(self.nothing_within(timeout)),
        }
    }

    /// What a look gives to the program.
    #[inline(always)]
    fn seen(&mut self, look: Look, record: CommandRecord, waited: trace::Clock) -> Result<Command, Error> {
        match look {
            Look::Command => match self.deliver(record) {
                Ok(command) => {
                    command.tell_received(waited);
                    Ok(command)
                }
                Err(error) => Err(self.refused(error)),
            },
            Look::Interrupted(error) => Err(self.refused(error)),
            Look::Closed => {
                let error = self.closed();
                trace::trace_refused(&error);
                Err(error)
            }
        }
    }

    #[cold]
    fn refused(&self, error: Error) -> Error {
        let error = error.of_device(&self.shared.name);
        trace::trace_refused(&error);
        error
    }

    /// Waits for a look that gives something; `None` when `deadline` has passed.
    fn wait_for_look(&mut self, deadline: Option<Instant>, record: &mut CommandRecord) -> Option<Look> {
        let shared = Arc::clone(&self.shared);
        loop {
            let look = wait::wait_once(shared.block.doorbell(), shared.set.session.control().spin(), deadline, || {
                self.look_aside(record)
            });
            let look = look.or_else(|| self.check_written());
            if look.is_some() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return look;
            }
        }
    }

    /// While no command comes, twice a second at most: makes sure that the server can still see what this process told it. If
    /// it could not, both would wait for each other.
    fn check_written(&mut self) -> Option<Look> {
        let now = wait::coarse_now();
        if now.saturating_sub(self.checked) < wait::SLICE {
            return None;
        }
        self.checked = now;
        let written = self.shared.core().completions.check_written();
        written.err().map(|violation| Look::Interrupted(self.accuse(Party::Somebody, violation)))
    }

    #[inline(always)]
    fn look_unless_closed(&mut self, record: &mut CommandRecord) -> Option<Look> {
        if self.closed { Some(Look::Closed) } else { self.look(record) }
    }

    /// A look for those who have the time.
    #[inline(never)]
    fn look_aside(&mut self, record: &mut CommandRecord) -> Option<Look> {
        self.look(record)
    }

    /// The server closed the device.
    #[cold]
    fn closed(&mut self) -> Error {
        const CALL: &str = "GetCommand";
        if self.closed {
            return self.refuse(CALL, Got::Closed, VdError::Close);
        }
        self.closed = true;
        self.shared.core().machine.closed();
        let set = &self.shared.set;
        set.close_device(self.shared.index);
        let got = if set.all_closed() { Got::LastClosed } else { Got::Closed };
        // The table's answer is VD_E_CLOSE, or where another device was closed at the same moment, and saw all closed, that
        // the set has ended; this call returns VD_E_CLOSE either way.
        let _ = set.step(Call::GetCommand(got));
        trace::event!(DEBUG, call = CALL, set = self.set_name(), device = self.name(), "device closed");
        set.refuse(CALL, VdError::Close).of_device(&self.shared.name)
    }

    /// No command came in time.
    #[cold]
    fn nothing_within(&self, timeout: Duration) -> Error {
        const CALL: &str = "GetCommand";
        match self.shared.set.would_answer(Call::GetCommand(Got::Nothing)) {
            Ok(()) | Err(VdError::Timeout) => {}
            Err(code) => return self.refused(self.shared.set.refuse(CALL, code)),
        }
        // Whoever looks at many devices in turn gets this all the time, and does not read it.
        let what = if timeout.is_zero() && self.outstanding() == 0 {
            Cow::Borrowed("no command is there now; look again, or wait for one with a time-out")
        } else {
            format!("the server sent no command within {timeout:?}{}", self.held()).into()
        };
        self.refused(Error::new(ErrorKind::NotYet, VdError::Timeout, CALL, self.set_name(), what))
    }

    /// What may be the reason that no command comes.
    fn held(&self) -> String {
        match self.outstanding() {
            0 => String::new(),
            held => format!("; this program holds {held} of its commands, for which it may be waiting"),
        }
    }

    fn refuse(&self, call: &'static str, got: Got, otherwise: VdError) -> Error {
        let set = &self.shared.set;
        let code = set.would_answer(Call::GetCommand(got)).err().unwrap_or(otherwise);
        set.refuse(call, code).of_device(&self.shared.name)
    }

    /// One look: a command, the end, or a reason to stop; `None` while there is nothing.
    #[inline(always)]
    fn look(&mut self, record: &mut CommandRecord) -> Option<Look> {
        const CALL: &str = "GetCommand";
        if let Some(interruption) = self.shared.set.interruption(CALL) {
            return Some(Look::Interrupted(interruption));
        }
        if self.shared.holding.load(Ordering::Relaxed) {
            let released = self.shared.core().machine.released();
            if let Some(released) = released {
                *record = released;
                self.shared.holding.store(false, Ordering::Relaxed);
                return Some(Look::Command);
            }
        }
        loop {
            if !self.submissions.is_ready() {
                match self.shared.set.session.control().server_word(self.shared.index) {
                    Ok(ServerWord::Closed) => {}
                    Ok(_) => return None,
                    Err(violation) => return Some(Look::Interrupted(self.accuse(Party::Somebody, violation))),
                }
                // What was sent before the device was closed is visible now.
                if !self.submissions.is_ready() {
                    return (!self.shared.holding.load(Ordering::Relaxed)).then_some(Look::Closed);
                }
            }
            match self.submissions.pop() {
                Ok(None) => return None,
                Ok(Some(words)) => {
                    let received = CommandRecord::from_words(words);
                    *record = received;
                    if let Some(look) = self.receive(received) {
                        return Some(look);
                    }
                }
                Err(violation) => return Some(Look::Interrupted(self.accuse(Party::Somebody, violation))),
            }
        }
    }

    #[cold]
    fn accuse(&self, party: Party, evidence: impl core::fmt::Display) -> Error {
        let set = &self.shared.set;
        set.accuse(party, evidence);
        set.aborted("GetCommand")
    }

    /// What becomes of a command that arrived; `None` when the program does not see it.
    #[inline(always)]
    fn receive(&mut self, record: CommandRecord) -> Option<Look> {
        let mut core = self.shared.core();
        let receipt = core.machine.received(record);
        match receipt {
            Ok(Receipt::Deliver(_)) => {
                drop(core);
                Some(Look::Command)
            }
            Ok(Receipt::Hold) => {
                self.shared.holding.store(true, Ordering::Relaxed);
                None
            }
            Ok(Receipt::Reject(completion)) => {
                let CommandRecord { code, size, loan, .. } = record;
                self.reject(core, completion, code, size, loan)
            }
            Err(violation) => {
                drop(core);
                Some(Look::Interrupted(self.accuse(Party::Server, violation)))
            }
        }
    }

    /// Completes a command that the program never sees. Its record comes in parts, so that it need not lie in memory before.
    #[cold]
    fn reject(
        &self,
        mut core: impl DerefMut<Target = Core>,
        completion: CompletionRecord,
        code: CommandCode,
        size: i32,
        loan: Loan,
    ) -> Option<Look> {
        trace::event!(
            TRACE,
            set = self.set_name(),
            device = self.name(),
            id = completion.id.0,
            command = %code,
            code = %completion.code,
            "command rejected"
        );
        let returned = if code.is_transfer() { self.return_unseen(loan, size as u32) } else { Ok(()) };
        let pushed = returned.and_then(|()| {
            core.completions.push(completion.to_words()).map_err(|error| (Party::Somebody, error.to_string()))
        });
        drop(core);
        self.shared.announce_completion();
        pushed.err().map(|(party, evidence)| Look::Interrupted(self.accuse(party, evidence)))
    }

    /// Gives back the buffer of a command that the program never sees.
    fn return_unseen(&self, loan: Loan, size: u32) -> Result<(), (Party, String)> {
        let Some(buffers) = self.shared.set.session.buffers() else { return Ok(()) };
        let buffer = buffers.take(loan, size).map_err(|error| (lender(&error), error.to_string()))?;
        buffer.give_back().map_err(|(error, _)| (Party::Somebody, error.to_string()))
    }

    /// The command as the program gets it.
    #[inline(always)]
    fn deliver(&mut self, record: CommandRecord) -> Result<Command, Error> {
        let buffer = if record.code.is_transfer() {
            match self.shared.set.session.buffers().map(|buffers| buffers.take(record.loan, record.size as u32)) {
                Some(Ok(buffer)) => Some(buffer),
                Some(Err(error)) => return Err(self.accuse(lender(&error), error)),
                None => return Err(self.accuse(Party::Server, "it sent a transfer before the set was configured")),
            }
        } else {
            None
        };
        let shared = self.spare.take().unwrap_or_else(|| Arc::clone(&self.shared));
        Ok(Command::new(record, buffer, shared))
    }

    fn abandon(&self) {
        let set = &self.shared.set;
        if !self.closed && set.session.abort_reason().is_none() {
            set.abort(Cause::AbandonedDevice);
        }
    }

    fn leave(&mut self) {
        let set = &self.shared.set;
        if !self.closed && !set.is_closed() && set.session.abort_reason().is_none() {
            // The server may have closed it already, without this program having asked.
            if let Some(Look::Closed) = self.look_aside(&mut { NOTHING }) {
                self.closed = true;
                self.shared.set.close_device(self.shared.index);
            } else {
                // A command that was found ends with the abort, whose reason tells the server more than a lone failure would.
                self.shared.set.abort(Cause::AbandonedDevice);
            }
        }
    }

    fn outstanding(&self) -> u32 {
        self.shared.core().machine.outstanding()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.leave();
    }
}
