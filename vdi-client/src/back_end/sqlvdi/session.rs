//! A set that this process created or joined through the library, as its set object and its devices share it.
//!
//! # Invariants
//!
//! 1. The state is what this process knows: it changes by [`vdi_proto::set::client`] for calls that the library answered.
//!    What other processes did shows only in answers.
//! 2. `buffers` has every buffer of the set in this process; see [`super::buffers`].
//! 3. The library's set is closed once: by `close`, or, where there were buffers then, when the last of them is dropped.

use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{MAX_PREFIX_ZONE, VdConfig};
use vdi_proto::set::Opening;
use vdi_proto::set::client::{Call, CommandPoll, Observation, State, observe, step};
use vdi_proto::status::VdError;

use super::super::options::TimeOutUnit;
use super::library::{Library, SetObject};
use crate::error::{Error, ErrorKind};
use crate::trace;

/// The longest single wait in the library, where its unit allows: how long a cancelled wait may go on.
const SLICE: Duration = Duration::from_millis(100);
/// The same while other threads may want to complete commands, and the pause between two polls that do not wait.
const SHORT: Duration = Duration::from_millis(1);
/// The largest transfer that is accepted: the documents have 4 MiB.
const MAX_TRANSFER: u32 = 64 << 20;
/// How long a secondary waits for a configuration that was negotiated before it joined.
const AT_ONCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Known {
    state: State,
    /// Devices opened here that have not returned VD_E_CLOSE.
    open: u32,
    /// Devices opened here that have.
    ended: u32,
    /// Buffers of this set that this process has: where they begin, prefix zones included.
    pub(super) buffers: BTreeSet<usize>,
    /// The library's Close waits for `buffers` to be empty.
    pub(super) close_due: bool,
}

/// A set in the library.
#[derive(Debug)]
pub(crate) struct Session {
    object: Arc<SetObject>,
    name: String,
    primary: bool,
    get_command_unit: TimeOutUnit,
    config: OnceLock<VdConfig>,
    known: Mutex<Known>,
    closed: AtomicBool,
    cancelled: AtomicBool,
    /// Threads inside OpenDevice, whose wait in the library only an abort ends.
    opening: AtomicU32,
}

/// How one poll of a wait ended.
pub(super) enum Poll<T> {
    Ready(T),
    Answer(i32),
    Failed(Error),
}

impl Session {
    /// A session whose object is about to get its set.
    pub(super) fn new(library: &Arc<Library>, unit: TimeOutUnit, name: &str, primary: bool) -> Arc<Session> {
        let state = if primary { State::Configurable } else { State::Initializing };
        let known = Known { state, open: 0, ended: 0, buffers: BTreeSet::new(), close_due: false };
        Arc::new(Session {
            object: Arc::new(SetObject::new(library)),
            name: name.to_owned(),
            primary,
            get_command_unit: unit,
            config: OnceLock::new(),
            known: Mutex::new(known),
            closed: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            opening: AtomicU32::new(0),
        })
    }

    pub(crate) fn set_name(&self) -> &str {
        &self.name
    }

    pub(super) fn object(&self) -> &Arc<SetObject> {
        &self.object
    }

    pub(super) fn config(&self) -> Option<&VdConfig> {
        self.config.get()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // No panic can leave it half updated.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library gives processes no numbers.
    pub(crate) fn member(&self) -> Option<u32> {
        None
    }

    pub(crate) fn state(&self) -> State {
        if self.closed.load(Ordering::Acquire) { State::DoesNotExist } else { self.known().state }
    }

    fn step(&self, call: Call) {
        let mut known = self.known();
        known.state = step(known.state, call).next;
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn resume(&self) {
        self.cancelled.store(false, Ordering::Release);
    }

    // ---- answers

    /// The error of an answer other than success. `None` for an answer is that of a closed set.
    pub(super) fn check(&self, call: &'static str, answer: Option<i32>) -> Result<(), Error> {
        match answer {
            Some(0) => Ok(()),
            Some(answer) => Err(self.refused(call, answer)),
            None => Err(self.closed_now(call)),
        }
    }

    pub(super) fn refused(&self, call: &'static str, answer: i32) -> Error {
        let number = answer.cast_unsigned();
        let Some(code) = VdError::from_hresult(number) else {
            let what = format!(
                "the library answered {number:#010x}{}; see SQL Server's error log (/var/opt/mssql/log/errorlog)",
                foreign(number)
            );
            return self.error(ErrorKind::System, VdError::Unexpected, call, what);
        };
        if code == VdError::Abort {
            self.aborted();
        }
        let kind = match code {
            VdError::Timeout | VdError::Busy => ErrorKind::NotYet,
            VdError::Abort | VdError::Close => ErrorKind::Ended,
            VdError::Security | VdError::Memory | VdError::Unexpected => ErrorKind::System,
            _ => ErrorKind::Misuse,
        };
        self.error(kind, code, call, format!("{}{}", code.meaning(), remedy(call, code)))
    }

    pub(super) fn error(
        &self,
        kind: ErrorKind,
        code: VdError,
        call: &'static str,
        what: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::new(kind, code, call, &self.name, what)
    }

    pub(super) fn closed_now(&self, call: &'static str) -> Error {
        self.error(ErrorKind::Misuse, VdError::Protocol, call, "the set was closed in this process")
    }

    /// The error of a call on a set that this process has closed.
    pub(crate) fn closed_error(&self, call: &'static str) -> Option<Error> {
        self.closed.load(Ordering::Acquire).then(|| self.closed_now(call))
    }

    /// Why a wait must end now, if it must.
    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        if let Some(closed) = self.closed_error(call) {
            return Some(closed);
        }
        if self.state() == State::Abort {
            return Some(self.refused(call, VdError::Abort.hresult().cast_signed()));
        }
        if self.cancelled.load(Ordering::Acquire) {
            let what = "the wait was cancelled by this process";
            return Some(self.error(ErrorKind::Cancelled, VdError::Timeout, call, what));
        }
        None
    }

    /// The set is known to be aborted.
    fn aborted(&self) {
        let mut known = self.known();
        if known.state == State::Abort {
            return;
        }
        known.state = observe(known.state, Observation::Aborted);
        drop(known);
        trace::event!(INFO, set = self.set_name(), reason = "the library said so, or this process", "set aborted");
    }

    /// Aborts the set, unless it has ended.
    pub(crate) fn abort(&self) {
        if self.closed.load(Ordering::Acquire) || matches!(self.state(), State::Abort | State::NormallyTerminated) {
            return;
        }
        let _ = self.object.signal_abort();
        self.aborted();
    }

    /// The library gave something that cannot be: the set is aborted.
    pub(super) fn violation(&self, call: &'static str, evidence: &str) -> Error {
        self.abort();
        let library = self.object.library().path().display();
        let what = format!(
            "the library {library} broke the interface: {evidence}; the set was aborted. Check that it is the library of the \
             SQL Server that runs, and of a version that this program knows"
        );
        self.error(ErrorKind::Violation, VdError::Abort, call, what)
    }

    // ---- waits

    /// Polls until there is something, in waits of the library that are short. `busy` tells that another thread may have to
    /// call the same object meanwhile.
    pub(super) fn wait<T>(
        &self,
        call: &'static str,
        unit: TimeOutUnit,
        timeout: Duration,
        busy: impl Fn() -> bool,
        mut poll: impl FnMut(i64) -> Option<Poll<T>>,
    ) -> Result<T, Error> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(interruption) = self.interruption(call) {
                return Err(interruption);
            }
            let begun = Instant::now();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(begun));
            let (argument, pause) = slice(unit, left, busy());
            match poll(argument) {
                None => return Err(self.closed_now(call)),
                Some(Poll::Ready(found)) => return Ok(found),
                Some(Poll::Failed(error)) => return Err(error),
                Some(Poll::Answer(answer))
                    if VdError::from_hresult(answer.cast_unsigned()) == Some(VdError::Timeout) =>
                {
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(self.refused(call, answer));
                    }
                    // Also where a library answers before the time has passed.
                    std::thread::sleep(pause.saturating_sub(begun.elapsed()));
                }
                Some(Poll::Answer(answer)) => return Err(self.refused(call, answer)),
            }
        }
    }

    pub(super) fn get_command_unit(&self) -> TimeOutUnit {
        self.get_command_unit
    }

    pub(crate) fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        const CALL: &str = "GetConfiguration";
        let poll = |timeout| {
            let (answer, config) = self.object.get_configuration(timeout)?;
            Some(if answer == 0 { Poll::Ready(config) } else { Poll::Answer(answer) })
        };
        let config = self.wait(CALL, TimeOutUnit::Milliseconds, timeout, || false, poll)?;
        check_config(&config).map_err(|evidence| self.violation(CALL, &evidence))?;
        let config = *self.config.get_or_init(|| config);
        self.step(Call::GetConfiguration);
        Ok(config)
    }

    /// The negotiated configuration. A primary has to have asked; a secondary may come after that.
    pub(super) fn negotiated(&self, call: &'static str) -> Result<VdConfig, Error> {
        match self.config.get() {
            Some(config) => Ok(*config),
            None if self.primary => Err(self.error(
                ErrorKind::Misuse,
                VdError::Protocol,
                call,
                "this call does not belong into a set without a configuration: call GetConfiguration first",
            )),
            None => self.get_configuration(AT_ONCE),
        }
    }

    // ---- devices

    /// Runs OpenDevice, which a close can end: `None` where the set is closed. What was opened counts as open at once.
    pub(super) fn opening<T>(
        &self,
        work: impl FnOnce() -> Option<Result<Option<T>, i32>>,
    ) -> Option<Result<Option<T>, i32>> {
        self.opening.fetch_add(1, Ordering::SeqCst);
        // Either this sees the close, or the close sees this (SeqCst): else it would wait for a call without end.
        let answer = if self.closed.load(Ordering::SeqCst) { None } else { work() };
        if matches!(answer, Some(Ok(Some(_)))) {
            self.known().open += 1;
            self.step(Call::OpenDevice(Opening::Unopened));
        }
        self.opening.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    pub(super) fn device_ended(&self) {
        // A library that leaves the field out has one.
        let devices = self.config.get().map_or(1, |config| config.device_count);
        let mut known = self.known();
        known.open = known.open.saturating_sub(1);
        known.ended += 1;
        let got = if known.ended >= devices { CommandPoll::LastClosed } else { CommandPoll::Closed };
        drop(known);
        self.step(Call::GetCommand(got));
    }

    // ---- the end

    pub(crate) fn signal_abort(&self) -> Result<(), Error> {
        self.check("SignalAbort", self.object.signal_abort())?;
        self.aborted();
        Ok(())
    }

    /// The library takes no reason.
    pub(crate) fn signal_abort_because(&self, _code: CompletionCode, _why: &str) -> Result<(), Error> {
        self.signal_abort()
    }

    /// Aborts a set whose devices are open, or being opened; whether any is open. Also ends the waits inside the library, for
    /// which Close has to wait.
    fn abort_what_is_open(&self) -> bool {
        let opening = self.opening.load(Ordering::SeqCst) > 0;
        let known = self.known();
        let (state, devices_open) = (known.state, known.open > 0 && known.state != State::Abort);
        drop(known);
        if (devices_open || opening) && !matches!(state, State::Abort | State::NormallyTerminated) {
            let _ = self.object.signal_abort();
            self.aborted();
        }
        devices_open
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        const CALL: &str = "Close";
        let devices_open = self.abort_what_is_open();
        self.closed.store(true, Ordering::SeqCst);
        // Also what was opened, or began to open, before `closed` was visible.
        let devices_open = self.abort_what_is_open() || devices_open;
        let mut known = self.known();
        known.close_due = true;
        let now = known.buffers.is_empty();
        drop(known);
        // Else it is closed when the last buffer is dropped.
        let answer = if now { self.object.close().unwrap_or(0) } else { 0 };
        if devices_open {
            let what = "devices were still open, so the set was aborted; close after every device returned VD_E_CLOSE";
            return Err(self.error(ErrorKind::Misuse, VdError::Open, CALL, what));
        }
        match answer {
            0 => Ok(()),
            answer => Err(self.refused(CALL, answer)),
        }
    }
}

/// What to pass to the library for one poll, and how long a poll has to take at least.
fn slice(unit: TimeOutUnit, left: Option<Duration>, busy: bool) -> (i64, Duration) {
    let left = left.unwrap_or(Duration::MAX);
    let pause = SHORT.min(left);
    match unit {
        TimeOutUnit::Milliseconds => {
            let slice = if busy { SHORT } else { SLICE };
            (i64::try_from(slice.min(left).as_micros().div_ceil(1000)).unwrap_or(1), pause)
        }
        TimeOutUnit::Seconds => (i64::from(!busy && left >= Duration::from_secs(1)), pause),
    }
}

/// Checks the sizes that this library relies on.
fn check_config(config: &VdConfig) -> Result<(), String> {
    let fields = [
        ("prefixZoneSize", config.prefix_zone_size, 0, MAX_PREFIX_ZONE),
        ("maxTransferSize", config.max_transfer_size, 1, MAX_TRANSFER),
    ];
    for (field, found, least, most) in fields {
        if !(least..=most).contains(&found) {
            return Err(format!("GetConfiguration gave {found} for {field}, which is {least} to {most}"));
        }
    }
    Ok(())
}

/// The meaning of an answer that is no code of the interface.
fn foreign(number: u32) -> &'static str {
    match number {
        0x8007_0005 => " (E_ACCESSDENIED: run this program as the user mssql, or in its group)",
        _ => ", which is no code of the interface",
    }
}

/// What to do about a code.
fn remedy(call: &str, code: VdError) -> &'static str {
    match (call, code) {
        ("GetConfiguration", VdError::Timeout) => {
            "; check that the statement was sent, names this set in its first VIRTUAL_DEVICE, and did not fail"
        }
        ("OpenDevice", VdError::Abort) => {
            "; read what the statement said, and SQL Server's error log. Where it could not open this program's shared memory \
             (error 2 or 5), run the program as the user mssql or in its group, with umask 0 while it creates the set"
        }
        (_, VdError::Abort) => "; read what the statement said, and run it again with a new set",
        (_, VdError::Security) => "; run this program as the user mssql, or in its group",
        (_, VdError::Memory) => "; close sets that are not needed, or give the system more shared memory",
        (_, VdError::Unexpected) => "; see SQL Server's error log (/var/opt/mssql/log/errorlog)",
        ("Create" | "CreateEx", VdError::Protocol) => "; a set of this name may exist already: choose another",
        ("OpenDevice", VdError::Invalid) => ": the statement names no such device; names are case-sensitive",
        (_, VdError::Protocol) => "; see the state of the set",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_short_whatever_the_unit() {
        use TimeOutUnit::{Milliseconds, Seconds};
        let ms = Duration::from_millis;
        let argument = |unit, left, busy| slice(unit, left, busy).0;
        assert_eq!(argument(Milliseconds, None, false), 100);
        assert_eq!(argument(Milliseconds, None, true), 1);
        assert_eq!(argument(Milliseconds, Some(ms(30)), false), 30);
        assert_eq!(argument(Milliseconds, Some(Duration::from_micros(200)), false), 1);
        assert_eq!(argument(Milliseconds, Some(Duration::ZERO), true), 0);
        assert_eq!(argument(Seconds, None, false), 1);
        assert_eq!(argument(Seconds, Some(ms(5000)), true), 0);
        assert_eq!(argument(Seconds, Some(ms(999)), false), 0);
        assert_eq!(slice(Seconds, Some(Duration::ZERO), false), (0, Duration::ZERO));
    }
}
