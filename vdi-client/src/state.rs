//! A set that this process created or joined, as its set object and its devices share it.
//!
//! # Invariants
//!
//! 1. The state changes only by [`vdi_proto::set::client`]: by `step` for this process's calls, by `observe` for what
//!    others did, which is looked up before every step.
//! 2. Which devices this process opened, and which returned VD_E_CLOSE here, it knows by itself: what others write into
//!    their words changes nothing about it.
//! 3. `closed` is set once, before the membership is dropped; from then on every call of a device is VD_E_PROTOCOL.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::set::View;
use vdi_proto::set::client::{self, Call, Observation, State};
use vdi_proto::status::VdError;
use vdi_shm::area::Keep;
use vdi_shm::control::ClientWord;
use vdi_shm::host::Host;
use vdi_shm::member::Member;
use vdi_shm::session::Session;

use crate::error::{Error, ErrorKind};
use crate::trace;

/// How this process belongs to the set. Dropping a primary's ends the set; a secondary leaves once nobody has its keep any more,
/// which leases have, and the set object, which lets go of it first.
#[derive(Debug)]
pub(crate) enum Membership {
    Primary(Host),
    Secondary(Member),
}

impl Membership {
    pub(crate) fn session(&self) -> &Arc<Session> {
        match self {
            Membership::Primary(host) => host.session(),
            Membership::Secondary(member) => member.session(),
        }
    }

    /// What leases keep.
    pub(crate) fn keep(&self) -> &Arc<Keep> {
        match self {
            Membership::Primary(host) => host.keep(),
            Membership::Secondary(member) => member.keep(),
        }
    }

    pub(crate) fn is_primary(&self) -> bool {
        matches!(self, Membership::Primary(_))
    }
}

/// A set that exists.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) session: Arc<Session>,
    pub(crate) membership: Mutex<Option<Membership>>,
    pub(crate) primary: bool,
    state: AtomicU8,
    closed: AtomicBool,
    /// The devices that this process opened, a bit each. Locked while one is opened, so that none is missed by a close.
    opened_here: Mutex<u64>,
    /// Those of them that are closed.
    closed_here: AtomicU64,
    /// A subscriber was told of the abort: once is enough.
    abort_told: AtomicBool,
}

impl Attached {
    /// A set in the state that Create or OpenInSecondary left it in.
    pub(crate) fn new(membership: Membership, state: State) -> Arc<Attached> {
        Arc::new(Attached {
            session: Arc::clone(membership.session()),
            primary: membership.is_primary(),
            membership: Mutex::new(Some(membership)),
            state: AtomicU8::new(state as u8),
            closed: AtomicBool::new(false),
            opened_here: Mutex::new(0),
            closed_here: AtomicU64::new(0),
            abort_told: AtomicBool::new(false),
        })
    }

    #[inline]
    fn load(&self) -> State {
        let number = self.state.load(Ordering::Acquire);
        // Only numbers of states are ever stored.
        State::ALL.get(usize::from(number)).copied().unwrap_or(State::DoesNotExist)
    }

    /// The state after what others did.
    fn observed(&self, state: State) -> State {
        let control = self.session.control();
        let mut state = state;
        if self.session.abort_reason().is_some() {
            state = client::observe(state, Observation::Aborted);
        }
        if control.counts().0 > 0 {
            state = client::observe(state, Observation::DeviceOpened);
            if self.all_closed() {
                state = client::observe(state, Observation::AllClosed);
            }
        }
        state
    }

    /// Opens a device for this process; false when somebody has it.
    pub(crate) fn open_device(&self, device: u32) -> bool {
        let mut opened_here = self.opened_here.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.session.control().open_device(device, self.session.member());
        *opened_here |= u64::from(opened) << device;
        opened
    }

    /// VD_E_CLOSE was returned for a device that this process had opened.
    pub(crate) fn close_device(&self, device: u32) {
        self.closed_here.fetch_or(1 << device, Ordering::AcqRel);
        self.session.control().close_device(device);
    }

    /// Whether a device that this process opened is not closed.
    pub(crate) fn has_open_devices(&self) -> bool {
        let opened_here = self.opened_here.lock().unwrap_or_else(PoisonError::into_inner);
        *opened_here & !self.closed_here.load(Ordering::Acquire) != 0
    }

    /// Whether every device of the set has returned VD_E_CLOSE.
    pub(crate) fn all_closed(&self) -> bool {
        let (control, here) = (self.session.control(), self.closed_here.load(Ordering::Acquire));
        (0..control.device_count())
            .all(|device| here >> device & 1 == 1 || control.client_word(device) == Ok(ClientWord::Closed))
    }

    /// The state now.
    pub(crate) fn state(&self) -> State {
        loop {
            let before = self.load();
            let state = self.observed(before);
            // What was observed may come from a call that has changed the state meanwhile, as a close that aborts does.
            fence(Ordering::Acquire);
            if self.load() == before {
                return state;
            }
        }
    }

    /// One step of the table.
    pub(crate) fn step(&self, call: Call) -> Result<(), VdError> {
        loop {
            let before = self.load();
            let step = client::step(self.observed(before), call);
            let swapped =
                self.state.compare_exchange(before as u8, step.next as u8, Ordering::AcqRel, Ordering::Acquire);
            if swapped.is_ok() {
                return step.answer;
            }
        }
    }

    /// What a call would answer now, without making it.
    pub(crate) fn would_answer(&self, call: Call) -> Result<(), VdError> {
        client::step(self.state(), call).answer
    }

    /// The view for buffer handles: cheap while the set is open.
    #[inline]
    pub(crate) fn view(&self) -> View {
        if self.session.abort_reason().is_some() { View::Aborted } else { self.load().view() }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn config(&self) -> Option<&VdConfig> {
        self.session.agreement().map(|agreement| &agreement.config)
    }

    /// Aborts the set for something that this process did.
    pub(crate) fn abort(&self, cause: Cause) {
        self.session.abort(cause);
        self.tell_abort();
    }

    /// Aborts the set because `party` broke the protocol.
    pub(crate) fn accuse(&self, party: Party, evidence: impl core::fmt::Display) {
        self.session.accuse(party, evidence);
        self.tell_abort();
    }

    fn tell_abort(&self) {
        if trace::listening!(INFO)
            && let Some(reason) = self.session.abort_reason()
            && !self.abort_told.swap(true, Ordering::Relaxed)
        {
            let evidence = self.session.evidence();
            let set = self.session.set_name();
            trace::event!(INFO, set = set, reason = %reason, evidence = evidence.as_deref(), "set aborted");
        }
    }

    /// An error of a call in this set, by its code alone.
    pub(crate) fn refuse(&self, call: &'static str, code: VdError) -> Error {
        let set = self.session.set_name();
        match code {
            VdError::Abort => self.aborted(call),
            VdError::Close => {
                Error::new(ErrorKind::Ended, code, call, set, "the server closed the device; its work is done")
            }
            VdError::Protocol => {
                let state = self.state();
                let what = format!("this call does not belong into state {state:?}{}", remedy(call, state));
                Error::new(ErrorKind::Misuse, code, call, set, what)
            }
            VdError::Open => Error::new(
                ErrorKind::Misuse,
                code,
                call,
                set,
                match call {
                    "Close" => {
                        "devices were still open, so the set was aborted; close after every device returned VD_E_CLOSE"
                    }
                    _ => "all devices of the set are open",
                },
            ),
            code => Error::new(ErrorKind::Misuse, code, call, set, code.meaning()),
        }
    }

    /// VD_E_ABORT with the reason, and the evidence where a peer broke the protocol.
    pub(crate) fn aborted(&self, call: &'static str) -> Error {
        self.tell_abort();
        let set = self.session.set_name();
        let Some(reason) = self.session.abort_reason() else {
            return Error::new(ErrorKind::Ended, VdError::Abort, call, set, "the set was aborted");
        };
        let AbortReason { cause, .. } = reason;
        let mut what = format!("the set was aborted: {reason}");
        if let Some(evidence) = self.session.evidence() {
            what = format!("{what} ({evidence})");
        }
        what.push_str(match cause {
            Cause::Died => {
                "; look for the end of that process in its log and the system's, then run the statement again"
            }
            Cause::TimedOut => "; this client did not complete its commands in time: raise serverTimeOut or be faster",
            Cause::BrokeProtocol => "; check that all processes use the same version of this library",
            _ => "; run the statement again with a new set",
        });
        let kind = if cause == Cause::BrokeProtocol { ErrorKind::Violation } else { ErrorKind::Ended };
        Error::new(kind, VdError::Abort, call, set, what)
    }

    /// Why a wait in this set must end now, if it must.
    #[inline]
    pub(crate) fn interruption(&self, call: &'static str) -> Option<Error> {
        let must_end = self.session.is_cancelled() || self.is_closed() || self.session.abort_reason().is_some();
        if must_end { self.interrupted(call) } else { None }
    }

    #[cold]
    fn interrupted(&self, call: &'static str) -> Option<Error> {
        // Before the close is looked for: a close that came too early aborts the set as well, and each cancels the waits, after it
        // has been marked as a close. Who sees one of these has to see the mark, and whoever closed is told of the close.
        let (cancelled, aborted) = (self.session.is_cancelled(), self.session.abort_reason().is_some());
        fence(Ordering::Acquire);
        if self.is_closed() {
            let what = "the set was closed in this process";
            return Some(Error::new(ErrorKind::Misuse, VdError::Protocol, call, self.session.set_name(), what));
        }
        if aborted {
            return Some(self.aborted(call));
        }
        if cancelled {
            return Some(Error::new(
                ErrorKind::NotYet,
                VdError::Timeout,
                call,
                self.session.set_name(),
                format!("the wait{} was cancelled by this process", waiting_for(call)),
            ));
        }
        None
    }
}

/// States are found by their numbers.
const _: () = {
    let mut number = 0;
    while number < State::ALL.len() {
        assert!(State::ALL[number] as usize == number);
        number += 1;
    }
};

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
        ("Create" | "CreateEx" | "OpenInSecondary" | "OpenInSecondaryEx", _) => {
            ": this object has this set already; close it first, or use another object"
        }
        ("OpenDevice", State::Configurable) => ": call GetConfiguration first",
        ("OpenDevice", State::Initializing | State::Active) => {
            ": the device is open already, here or in another process"
        }
        (_, State::NormallyTerminated) => ": every device has returned VD_E_CLOSE, so the work is done; close the set",
        _ => "",
    }
}
