//! An open set: the state that devices, completion processing and [`super::ServerVirtualDeviceSet`] share.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_proto::config::VdConfig;
use vdi_proto::set::server::{self, Call, State};
use vdi_proto::status::VdError;
use vdi_shm::set::control::ServerControl;
use vdi_shm::set::session::Session;

use super::device_core::DeviceCore;
use super::error::VdsError;
use crate::trace;

/// Faults of the completion agent, for tests of clients.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgentFaults {
    /// A serverTimeOut in milliseconds that replaces the client's.
    pub(crate) server_time_out: Option<u32>,
    /// The number, from 1, of a completion that is ignored.
    pub(crate) ignored_completion: Option<u64>,
}

/// An open set.
#[derive(Debug)]
pub(super) struct OpenSet {
    pub(super) session: Arc<Session>,
    pub(super) control: Arc<ServerControl>,
    pub(super) agent_faults: AgentFaults,
    pub(super) devices: Vec<Arc<DeviceCore>>,
    state: AtomicU8,
    /// Close was called.
    closed: AtomicBool,
    /// Devices that OpenDevice opened.
    opened: AtomicU32,
    /// Devices that were closed in order.
    devices_closed: AtomicU32,
    /// Held while a device is opened or closed.
    device_lock: Mutex<()>,
    /// The abort was traced. It is traced once.
    abort_traced: AtomicBool,
}

impl OpenSet {
    pub(super) fn new(
        session: Arc<Session>,
        control: Arc<ServerControl>,
        devices: Vec<Arc<DeviceCore>>,
        agent_faults: AgentFaults,
    ) -> OpenSet {
        OpenSet {
            session,
            control,
            agent_faults,
            devices,
            state: AtomicU8::new(State::Connected as u8),
            closed: AtomicBool::new(false),
            opened: AtomicU32::new(0),
            devices_closed: AtomicU32::new(0),
            device_lock: Mutex::default(),
            abort_traced: AtomicBool::new(false),
        }
    }

    fn load(&self) -> State {
        let number = self.state.load(Ordering::Acquire);
        State::ALL.into_iter().find(|state| *state as u8 == number).unwrap_or(State::DoesNotExist)
    }

    /// The state. An abort by any process counts.
    pub(super) fn state(&self) -> State {
        match self.load() {
            State::DoesNotExist => State::DoesNotExist,
            _ if self.is_aborted() => State::AbnormallyTerminated,
            state => state,
        }
    }

    /// Applies a call to the state table, and returns the table's answer.
    pub(super) fn step(&self, call: Call) -> Result<(), VdError> {
        loop {
            let before = self.load();
            let aborted = before != State::DoesNotExist && self.is_aborted();
            let step = server::step(if aborted { State::AbnormallyTerminated } else { before }, call);
            let swapped =
                self.state.compare_exchange(before as u8, step.next as u8, Ordering::AcqRel, Ordering::Acquire);
            if swapped.is_ok() {
                return step.answer;
            }
        }
    }

    /// The table's answer to a call, without a change of the state.
    pub(super) fn would_answer(&self, call: Call) -> Result<(), VdError> {
        server::step(self.state(), call).answer
    }

    /// The configuration, once EndConfiguration has succeeded.
    pub(super) fn negotiated(&self) -> Option<&VdConfig> {
        self.session.negotiated()
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.session.abort_reason().is_some()
    }

    /// Whether every device was closed in order. A later abort has no effect.
    pub(super) fn has_ended(&self) -> bool {
        self.devices_closed.load(Ordering::Acquire) as usize == self.devices.len()
    }

    /// Whether the set was aborted before its end.
    pub(super) fn was_aborted(&self) -> bool {
        self.is_aborted() && !self.has_ended()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The number of devices that OpenDevice has opened.
    pub(super) fn opened(&self) -> u32 {
        self.opened.load(Ordering::Acquire)
    }

    /// Held while a device is opened or closed.
    pub(super) fn device_lock(&self) -> MutexGuard<'_, ()> {
        self.device_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next device is open. Called by the holder of [`OpenSet::device_lock`].
    pub(super) fn device_opened(&self) {
        self.opened.fetch_add(1, Ordering::Release);
        self.wake_agent();
    }

    /// A device was closed in order. Called by the holder of [`OpenSet::device_lock`].
    pub(super) fn device_closed(&self) {
        self.devices_closed.fetch_add(1, Ordering::Release);
    }

    /// Close was called: the completion agent returns.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_agent();
    }

    /// Wakes the completion agent and the readers that wait for completions.
    pub(super) fn wake_agent(&self) {
        self.control.agent_event().notify();
    }

    /// Ends all outstanding commands, after an abort.
    pub(super) fn abort_devices(&self) {
        self.trace_abort();
        self.devices.iter().for_each(|device| device.abort());
    }

    fn trace_abort(&self) {
        if trace::listening!(DEBUG)
            && let Some(abort) = self.session.aborted()
            && !self.abort_traced.swap(true, Ordering::Relaxed)
        {
            let set = self.session.set_name();
            trace::event!(DEBUG, set = set, reason = %abort.reason, text = Some(&*abort.text).filter(|text| !text.is_empty()), "set aborted");
        }
    }

    pub(super) fn error(&self, call: &'static str, code: VdError) -> VdsError {
        self.error_with(call, code, self.explain(code))
    }

    pub(super) fn error_with(&self, call: &'static str, code: VdError, what: impl Into<String>) -> VdsError {
        VdsError::new(call, self.session.set_name(), code, what)
    }

    /// The text for a status that has no further evidence.
    pub(super) fn explain(&self, code: VdError) -> String {
        match (code, self.session.aborted()) {
            (VdError::Abort, Some(abort)) => format!("the set was aborted: {abort}"),
            (VdError::Protocol, Some(abort)) => format!("this call comes too late, the set was aborted: {abort}"),
            (VdError::Protocol, None) => format!("this call does not belong into state {:?}", self.state()),
            _ => code.meaning().to_owned(),
        }
    }
}
