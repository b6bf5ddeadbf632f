//! A set that this process created or joined, as its set object and its devices share it.
//!
//! # Invariants
//!
//! 1. The state changes only by [`vdi_proto::set::client`]: by `step` for this process's calls, by `observe` for what
//!    other processes did, which is loaded before every step.
//! 2. This process knows by itself which devices it opened, and which returned VD_E_CLOSE here. What other members write into
//!    the devices' words changes nothing about it.
//! 3. `closed` is set once, before the waits are cancelled and the membership is dropped. From then on every call of a device is
//!    VD_E_PROTOCOL.

use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use vdi_proto::abort::{Cause, Process};
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::index::DeviceIndex;
use vdi_proto::set::SetPhase;
use vdi_proto::set::client::{self, Call, Observation, State};
use vdi_proto::status::VdError;
use vdi_proto::wire::layout::{ClientWord, LayoutError};
use vdi_shm::ipc::wait;
use vdi_shm::set::buffers::{BufferError, ClientBuffers};
use vdi_shm::set::control::{ClientControl, ClientRings};
use vdi_shm::set::mapped_buffer::MappedBuffer;
use vdi_shm::set::primary::Primary;
use vdi_shm::set::secondary::Secondary;
use vdi_shm::set::session::Session;

use crate::error::{Error, ErrorKind, LowerError};
use crate::trace;

/// How this process belongs to the set. Dropping a primary's ends the set. A secondary leaves when nothing keeps its membership:
/// neither this nor a mapped buffer.
#[derive(Debug)]
pub(super) enum Membership {
    Primary(Primary),
    Secondary(Secondary),
}

/// What this process knows by itself.
#[derive(Debug)]
struct Known {
    state: State,
    /// The devices that this process opened, a bit each.
    opened: u64,
    /// The devices that returned VD_E_CLOSE here.
    ended: u64,
}

/// A set that exists.
#[derive(Debug)]
pub(crate) struct Attachment {
    session: Arc<Session>,
    control: ClientControl,
    primary: bool,
    membership: RwLock<Option<Arc<Membership>>>,
    known: Mutex<Known>,
    closed: AtomicBool,
    /// The event of the abort was sent.
    abort_traced: AtomicBool,
}

impl Attachment {
    /// A set in the state that Create or OpenInSecondary left it in.
    pub(super) fn new(membership: Membership, state: State) -> Arc<Attachment> {
        let (session, control, primary) = match &membership {
            Membership::Primary(primary) => (primary.session(), primary.client_control(), true),
            Membership::Secondary(secondary) => (secondary.session(), secondary.client_control(), false),
        };
        Arc::new(Attachment {
            session: Arc::clone(session),
            control,
            primary,
            membership: RwLock::new(Some(Arc::new(membership))),
            known: Mutex::new(Known { state, opened: 0, ended: 0 }),
            closed: AtomicBool::new(false),
            abort_traced: AtomicBool::new(false),
        })
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn control(&self) -> &ClientControl {
        &self.control
    }

    pub(crate) fn set_name(&self) -> &str {
        self.session.set_name()
    }

    /// The number of this secondary.
    pub(crate) fn member(&self) -> Option<u32> {
        (!self.primary).then(|| self.session.member().get())
    }

    /// What server and client negotiated, once the server has configured the set.
    pub(super) fn config(&self) -> Option<VdConfig> {
        self.session.negotiated().copied()
    }

    fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn buffers(&self) -> Option<&Arc<ClientBuffers>> {
        self.session.buffers()
    }

    /// The primary has got the configuration: others may join.
    pub(super) fn admit_secondaries(&self) {
        if let Some(Membership::Primary(primary)) = self.membership().as_deref() {
            primary.admit_secondaries();
        }
    }

    /// Maps a buffer by its handle. The buffer keeps this process a member of the set.
    #[inline]
    pub(super) fn map_buffer(&self, call: &'static str, handle: BufferHandle) -> Result<MappedBuffer, Error> {
        let phase = self.phase();
        // No lock is held: a map can wait.
        let mapped = match self.membership().as_deref() {
            Some(Membership::Primary(primary)) => primary.map_buffer(phase, handle),
            Some(Membership::Secondary(secondary)) => secondary.map_buffer(phase, handle),
            None => Err(BufferError::NotOpen),
        };
        mapped.map_err(|error| self.buffer_error(call, error))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No panic can leave it half updated.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the state

    /// The state after what other processes did.
    fn observed(&self, known: &Known) -> State {
        let mut state = known.state;
        if self.session.abort_reason().is_some() {
            state = client::observe(state, Observation::Aborted);
        }
        if self.control().any_device_opened() {
            state = client::observe(state, Observation::DeviceOpened);
            if self.all_closed(known) {
                state = client::observe(state, Observation::AllClosed);
            }
        }
        state
    }

    pub(crate) fn state(&self) -> State {
        self.observed(&self.known())
    }

    /// One step of the state table.
    pub(super) fn step(&self, name: &'static str, call: Call) -> Result<(), Error> {
        let mut known = self.known();
        let step = client::step(self.observed(&known), call);
        known.state = step.next;
        drop(known);
        step.answer.map_err(|code| self.refuse(name, code))
    }

    /// What a call would answer now, without making it.
    pub(super) fn would_answer(&self, call: Call) -> Result<(), VdError> {
        client::step(self.state(), call).answer
    }

    /// The phase of the set for buffer handles. It need not know of an end by other processes.
    #[inline]
    pub(super) fn phase(&self) -> SetPhase {
        if self.session.abort_reason().is_some() { SetPhase::Aborted } else { self.known().state.phase() }
    }

    // ---- devices

    /// Opens a device for this process; `None` when a process has it.
    pub(super) fn mark_opened(&self, device: DeviceIndex) -> Result<Option<ClientRings>, LayoutError> {
        // Locked meanwhile, so that a close misses no device.
        let mut known = self.known();
        let rings = self.control().open_device(device)?;
        known.opened |= u64::from(rings.is_some()) << device.get();
        Ok(rings)
    }

    /// VD_E_CLOSE is returned for a device that this process had opened.
    pub(super) fn mark_closed(&self, device: DeviceIndex) {
        let mut known = self.known();
        known.ended |= 1 << device.get();
        self.control().close_device(device);
        let got = if self.all_closed(&known) { client::CommandPoll::LastClosed } else { client::CommandPoll::Closed };
        known.state = client::step(self.observed(&known), Call::GetCommand(got)).next;
    }

    /// Whether every device of the set has returned VD_E_CLOSE.
    fn all_closed(&self, known: &Known) -> bool {
        let control = self.control();
        control.devices().all(|device| {
            let ended_here = known.ended >> device.get() & 1 == 1;
            ended_here || matches!(control.client_word(device), Ok(ClientWord::Closed { .. }))
        })
    }

    // ---- the end

    /// Whether this process has closed the set, or has seen it aborted.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.session.abort_reason().is_some()
    }

    /// Aborts the set for something that this process did.
    pub(super) fn abort(&self, cause: Cause) {
        self.session.abort(cause);
        self.trace_abort();
    }

    /// Aborts the set because this process cannot go on. Every process of the set gets the code and the text.
    pub(super) fn give_up(&self, code: CompletionCode, text: &str) {
        self.session.give_up(code.number(), text);
        self.trace_abort();
    }

    /// Aborts the set because `process` broke the protocol; the error for the caller.
    #[cold]
    pub(super) fn violation(&self, call: &'static str, process: Process, evidence: impl Display) -> Error {
        self.session.report_violation(process, evidence);
        self.aborted(call)
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        if let Some(Membership::Primary(primary)) = self.membership().as_deref()
            && self.session.work_has_ended()
        {
            // A secondary that died since then fetches no VD_E_CLOSE.
            primary.process_links();
        }
        let mut known = self.known();
        // A primary has to wait for all devices, a secondary for its own.
        let devices_open = if self.primary { !self.all_closed(&known) } else { known.opened & !known.ended != 0 };
        let state = self.observed(&known);
        let step = client::step(state, Call::Close { devices_open });
        known.state = step.next;
        drop(known);
        // Before the abort: a thread that it wakes reports the close, not what follows from it.
        self.closed.store(true, Ordering::Release);
        if devices_open && state != State::NormallyTerminated {
            // Also where no device is open yet: a server may be waiting for this client.
            self.abort(Cause::ClosedEarly);
        }
        self.session.cancel();
        let membership = self.membership.write().unwrap_or_else(PoisonError::into_inner).take();
        // It ends here, or with a map in another thread that waits meanwhile.
        drop(membership);
        step.answer.map_err(|code| self.refuse("Close", code))
    }

    fn trace_abort(&self) {
        if trace::listening!(INFO)
            && let Some(abort) = self.session.aborted()
            && !self.abort_traced.swap(true, Ordering::Relaxed)
        {
            let set = self.set_name();
            trace::event!(INFO, set = set, reason = %abort.reason, text = Some(&*abort.text).filter(|text| !text.is_empty()), "set aborted");
        }
    }

    // ---- waits

    /// Waits for what happens to the set as a whole; `None` when `deadline` has passed.
    pub(super) fn wait<T>(
        &self,
        call: &'static str,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let found = wait::wait_until(self.control().set_event(), deadline, || {
            self.interruption(call).map_or_else(|| ready().transpose(), |interruption| Some(Err(interruption)))
        });
        found.transpose()
    }

    /// Why a wait in this set must end now, if it must.
    #[inline]
    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        if self.is_over() || self.session.is_cancelled() { self.interrupted(call) } else { None }
    }

    #[cold]
    fn interrupted(&self, call: &'static str) -> Option<Error> {
        // A close aborts and cancels after it has set `closed`. So what was seen of these is loaded before `closed`.
        let (cancelled, aborted) = (self.session.is_cancelled(), self.session.abort_reason().is_some());
        if self.closed.load(Ordering::Acquire) {
            let what = "the set was closed in this process";
            return Some(self.error(ErrorKind::Misuse, VdError::Protocol, call, what));
        }
        if aborted {
            return Some(self.aborted(call));
        }
        let what = || format!("the wait{} was cancelled by this process", waiting_for(call));
        cancelled.then(|| self.error(ErrorKind::Cancelled, VdError::Timeout, call, what()))
    }

    // ---- errors

    pub(super) fn error(
        &self,
        kind: ErrorKind,
        code: VdError,
        call: &'static str,
        what: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::new(kind, code, call, self.set_name(), what)
    }

    /// An error of a call in this set, by its code alone.
    pub(super) fn refuse(&self, call: &'static str, code: VdError) -> Error {
        let what = match (code, call) {
            (VdError::Abort, _) => return self.aborted(call),
            (VdError::Close, _) => {
                return self.error(ErrorKind::Ended, code, call, "the server closed the device; its work is done");
            }
            (VdError::Protocol, _) => {
                let state = self.state();
                format!("this call does not belong into state {state:?}{}", remedy(call, state)).into()
            }
            (VdError::Open, "Close") => {
                "devices were still open, so the set was aborted; close after every device returned VD_E_CLOSE".into()
            }
            (VdError::Open, _) => "all devices of the set are open".into(),
            (code, _) => Cow::Borrowed(code.meaning()),
        };
        self.error(ErrorKind::Misuse, code, call, what)
    }

    /// VD_E_ABORT with the reason, in the words of the process that aborted the set, and with what to do.
    pub(super) fn aborted(&self, call: &'static str) -> Error {
        self.trace_abort();
        let Some(abort) = self.session.aborted() else {
            return self.error(ErrorKind::Ended, VdError::Abort, call, "the set was aborted");
        };
        let remedy = match abort.reason.cause {
            Cause::Died => {
                "; look for the end of that process in its log and the system's, then run the statement again with \
                 a new set"
            }
            Cause::TimedOut => "; this client did not complete its commands in time: raise serverTimeOut or be faster",
            Cause::BrokeProtocol => "; check that all processes use the same version of this library",
            // The process that gave up says what to do.
            Cause::GaveUp => "",
            Cause::Signalled if abort.reason.process == Process::Server => {
                "; the messages of the statement say why; run it again with a new set"
            }
            _ => "; run the statement again with a new set",
        };
        let refused = self.session.joiners().refused().map(|refused| format!("; {refused}")).unwrap_or_default();
        let kind = if abort.reason.cause == Cause::BrokeProtocol { ErrorKind::Violation } else { ErrorKind::Ended };
        self.error(kind, VdError::Abort, call, format!("the set was aborted: {abort}{remedy}{refused}"))
    }

    /// Makes a call about buffers.
    #[inline]
    pub(super) fn with_buffers<T>(
        &self,
        call: &'static str,
        work: impl FnOnce(&Arc<ClientBuffers>, SetPhase) -> Result<T, BufferError>,
    ) -> Result<T, Error> {
        let buffers = self.buffers().ok_or(BufferError::NotOpen);
        buffers.and_then(|buffers| work(buffers, self.phase())).map_err(|error| self.buffer_error(call, error))
    }

    #[cold]
    fn buffer_error(&self, call: &'static str, error: BufferError) -> Error {
        // Where `phase` was open, the state may know of an end.
        let open = self.state().phase().handles_allowed().is_ok();
        let error = if open { error } else { BufferError::NotOpen };
        if error.kind() == ErrorKind::Violation {
            self.session.report_violation(Process::Server, error);
            self.trace_abort();
        }
        Error::lower(call, self.set_name(), error)
    }
}

/// What a call that waits is waiting for.
fn waiting_for(call: &str) -> &'static str {
    match call {
        "GetConfiguration" => " for the server to configure the set",
        "OpenDevice" => " for the server to announce its devices",
        "GetCommand" => " for the server's next command",
        _ => "",
    }
}

/// What to do about a call that came in the wrong state.
fn remedy(call: &str, state: State) -> &'static str {
    match (call, state) {
        ("OpenDevice", State::Configurable) => ": call GetConfiguration first",
        ("OpenDevice", State::Initializing | State::Active) => {
            ": the device is open already, here or in another process"
        }
        (_, State::NormallyTerminated) => ": every device has returned VD_E_CLOSE, so the work is done; close the set",
        _ => "",
    }
}
