//! The virtual device set, as the server uses it: IServerVirtualDeviceSet2.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vdi_proto::abort::Cause;
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::name::check_name;
use vdi_proto::set::Opening;
use vdi_proto::set::server::{Call, State};
use vdi_proto::status::VdError;
use vdi_shm::ipc::runtime::{EnvironmentError, Options};
use vdi_shm::set::error::JoinError;
use vdi_shm::set::pool::ServerBuffer;
use vdi_shm::set::server::Server;
use vdi_shm::set::session::Session;

use super::agent;
use super::completions::{CompletionPort, CompletionReader, ReaderWaker};
use super::configuration::Configuration;
use super::device::ServerVirtualDevice;
use super::device_core::DeviceCore;
use super::error::VdsError;
use super::open_set::{AgentFaults, OpenSet};
use crate::trace;

/// How often it is looked whether a set that is waited for is there.
const SET_POLL: Duration = Duration::from_millis(5);

/// A set that did not come.
#[derive(Debug, thiserror::Error)]
#[error("waited {:.1} s for the set to be created: {source}", waited.as_secs_f64())]
struct Missed {
    waited: Duration,
    source: JoinError,
}

/// A virtual device set that a client created: IServerVirtualDeviceSet2.
///
/// The object may be used from any thread, and for another set after [`ServerVirtualDeviceSet::close`]. Dropping it closes
/// the set.
#[derive(Debug)]
#[doc(alias("IServerVirtualDeviceSet2", "IServerVirtualDeviceSet"))]
pub struct ServerVirtualDeviceSet {
    /// An environment that cannot be understood is reported by [`ServerVirtualDeviceSet::open`].
    options: Result<Options, EnvironmentError>,
    agent_faults: Mutex<AgentFaults>,
    open: Mutex<Option<Arc<Opened>>>,
}

/// The parts of a set that is open.
#[derive(Debug)]
struct Opened {
    set: Arc<OpenSet>,
    port: Arc<CompletionPort>,
    configuration: Configuration,
}

impl Opened {
    /// One step of the table for a call that does nothing else when it is refused.
    fn step(&self, call: &'static str, step: Call) -> Result<(), VdsError> {
        self.set.step(step).map_err(|code| self.set.error(call, code))
    }

    /// Makes the caller the completion agent.
    fn begin_agent(&self, call: &'static str) -> Result<(), VdsError> {
        self.set.step(Call::ExecuteCompletionAgent).map_err(|code| {
            if self.set.is_aborted() {
                // The abort came before the agent. What was sent before ends all the same.
                self.set.abort_devices();
            }
            self.set.error(call, code)
        })?;
        let what = "it runs already, or ran until the end";
        self.port.begin_agent().then_some(()).ok_or_else(|| self.set.error_with(call, VdError::Protocol, what))
    }
}

impl Default for ServerVirtualDeviceSet {
    fn default() -> Self {
        Self::with(Options::from_env())
    }
}

impl ServerVirtualDeviceSet {
    /// An object without a set, with the options of the environment ([`Options::from_env`]). Where that cannot be understood,
    /// [`ServerVirtualDeviceSet::open`] fails with VD_E_INVALID and the name of the variable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An object without a set.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        Self::with(Ok(options))
    }

    fn with(options: Result<Options, EnvironmentError>) -> Self {
        ServerVirtualDeviceSet { options, agent_faults: Mutex::default(), open: Mutex::default() }
    }

    /// For tests of clients: the completion agent of the set that is opened next has these faults.
    pub fn inject(&self, faults: AgentFaults) {
        *self.agent_faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Opened>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, call: &'static str) -> Result<Arc<Opened>, VdsError> {
        self.slot().clone().ok_or_else(|| VdsError::new(call, "", VdError::Protocol, "no set is open: call Open first"))
    }

    /// One step of the table for a call that does nothing else when it is refused.
    fn step(&self, call: &'static str, step: Call) -> Result<Arc<Opened>, VdsError> {
        let opened = self.opened(call)?;
        opened.step(call, step)?;
        Ok(opened)
    }

    /// Opens a set that a client created for this instance (empty: the default one).
    ///
    /// # Errors
    /// VD_E_INVALID when there is no such set; VD_E_SECURITY when it may not be used; VD_E_ABORT when it was aborted;
    /// VD_E_PROTOCOL when this object has one already.
    #[doc(alias = "Open")]
    pub fn open(&self, instance: &str, name: &str) -> Result<(), VdsError> {
        self.open_within(instance, name, Duration::ZERO, || false)
    }

    /// As [`ServerVirtualDeviceSet::open`]; where there is no such set it waits up to `timeout` for the client to create it, or until
    /// `stop` says so, which is asked every few milliseconds.
    ///
    /// # Errors
    /// As of [`ServerVirtualDeviceSet::open`].
    pub fn open_within(
        &self,
        instance: &str,
        name: &str,
        timeout: Duration,
        stop: impl Fn() -> bool,
    ) -> Result<(), VdsError> {
        const CALL: &str = "Open";
        let begin = Instant::now();
        let options = self.options.as_ref();
        let options = options.map_err(|error| VdsError::new(CALL, name, VdError::Invalid, error.to_string()))?;
        loop {
            let last = begin.elapsed() >= timeout;
            let mut slot = self.slot();
            if let Some(opened) = &*slot {
                return opened.step(CALL, Call::Open);
            }
            let error = match Server::join(options, instance, name) {
                Ok(server) => {
                    self.joined(&mut slot, server, instance, name);
                    return Ok(());
                }
                Err(error) => error,
            };
            drop(slot);
            let (code, waited) = (error.code(), begin.elapsed());
            match error {
                JoinError::NoSuchSet { ref path, .. } if !last && !stop() => loop {
                    // Whether anything is there costs less than another try, which also looks for near misses.
                    std::thread::sleep(SET_POLL);
                    if path.exists() || begin.elapsed() >= timeout || stop() {
                        break;
                    }
                },
                source @ JoinError::NoSuchSet { .. } if !timeout.is_zero() => {
                    return Err(VdsError::lower(CALL, name, code, Missed { waited, source }));
                }
                error => return Err(VdsError::lower(CALL, name, code, error)),
            }
        }
    }

    /// The set is this object's from now on.
    fn joined(&self, slot: &mut Option<Arc<Opened>>, server: Server, instance: &str, name: &str) {
        let (session, control) = (Arc::clone(server.session()), Arc::clone(server.control()));
        let mut devices = Vec::new();
        let mut completions = Vec::new();
        for (index, rings) in control.devices().filter_map(|index| Some((index, control.take_rings(index)?))) {
            devices.push(Arc::new(DeviceCore::new(index, &session, rings.commands)));
            completions.push(rings.completions);
        }
        let agent_faults = *self.agent_faults.lock().unwrap_or_else(PoisonError::into_inner);
        let set = Arc::new(OpenSet::new(Arc::clone(&session), control, devices, agent_faults));
        let port = Arc::new(CompletionPort::new(Arc::clone(&set), completions));
        let configuration = Configuration::new(&set, server);
        *slot = Some(Arc::new(Opened { set, port, configuration }));
        let requested = session.requested();
        trace::event!(
            DEBUG,
            call = "Open",
            set = name,
            instance = instance,
            devices = requested.device_count,
            features = %requested.features,
            server_time_out_ms = requested.server_time_out,
            "set opened"
        );
    }

    /// The configuration: what the client requested, then what was negotiated.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set, VD_E_ABORT.
    #[doc(alias = "GetConfiguration")]
    pub fn get_configuration(&self) -> Result<VdConfig, VdsError> {
        let opened = self.step("GetConfiguration", Call::GetConfiguration)?;
        Ok(opened.configuration.current())
    }

    /// Begins the configuration with the server's terms. `timeout` is how long the client's process has to take each part of
    /// it.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set was just opened, VD_E_ABORT; VD_E_INVALID for terms out of range, VD_E_NOTSUPPORTED for what
    /// the client requested: the set then stays as it was.
    #[doc(alias = "BeginConfiguration")]
    pub fn begin_configuration(&self, terms: &ServerTerms, timeout: Duration) -> Result<VdConfig, VdsError> {
        const CALL: &str = "BeginConfiguration";
        self.opened(CALL)?.configuration.begin(CALL, terms, timeout)
    }

    /// Requests `count` buffers of `size` bytes. Those of the configuration are made by EndConfiguration, later ones at once.
    /// `alignment` 0 is the set's.
    ///
    /// # Errors
    /// VD_E_MEMORY, VD_E_PROTOCOL, VD_E_ABORT; VD_E_INVALID for a size or count of 0, or an alignment that is no power of two
    /// up to 65536.
    #[doc(alias = "RequestBuffers")]
    pub fn request_buffers(&self, size: u32, alignment: u32, count: u32) -> Result<(), VdsError> {
        const CALL: &str = "RequestBuffers";
        self.step(CALL, Call::RequestBuffers)?.configuration.request(CALL, size, alignment, count)
    }

    /// How many buffers of this size could be allocated now. Before EndConfiguration there are none.
    ///
    /// # Errors
    /// VD_E_PROTOCOL, VD_E_ABORT; VD_E_INVALID for an alignment that is no power of two up to 65536.
    #[doc(alias = "QueryAvailableBuffers")]
    pub fn query_available_buffers(&self, size: u32, alignment: u32) -> Result<u32, VdsError> {
        const CALL: &str = "QueryAvailableBuffers";
        self.step(CALL, Call::QueryAvailableBuffers)?.configuration.available(CALL, size, alignment)
    }

    /// Makes the buffers that were requested, and sends the configuration to the client.
    ///
    /// # Errors
    /// VD_E_MEMORY: the set stays in configuration, and the server may request less. VD_E_PROTOCOL,
    /// VD_E_ABORT, VD_E_TIMEOUT when the client's process does not answer.
    #[doc(alias = "EndConfiguration")]
    pub fn end_configuration(&self) -> Result<VdConfig, VdsError> {
        const CALL: &str = "EndConfiguration";
        self.opened(CALL)?.configuration.end(CALL)
    }

    /// Opens the next device, which gets this name. From now on a client can open it.
    ///
    /// # Errors
    /// VD_E_OPEN when all are open; VD_E_INVALID for a name that is none, or that another device of the set has; VD_E_PROTOCOL,
    /// VD_E_ABORT.
    #[doc(alias = "OpenDevice")]
    pub fn open_device(&self, name: &str) -> Result<ServerVirtualDevice, VdsError> {
        const CALL: &str = "OpenDevice";
        let set = Arc::clone(&self.opened(CALL)?.set);
        let turn = set.device_turn();
        let control = &set.control;
        let index = set.opened();
        let taken = set.devices.iter().any(|device| device.has_name(name));
        let opening = if index == control.device_count() {
            Opening::AllOpen
        } else if check_name(name).is_err() {
            Opening::NoSuchDevice
        } else if taken {
            Opening::AlreadyOpen
        } else {
            Opening::Unopened
        };
        set.step(Call::OpenDevice(opening)).map_err(|code| {
            let what = match code {
                VdError::Invalid => "not a device's name, or another device of the set has it".to_owned(),
                _ => set.explain(code),
            };
            VdsError::on_device(CALL, set.session.set_name(), name, code, what)
        })?;
        let core = Arc::clone(&set.devices[index as usize]);
        core.set_name(name);
        trace::event!(DEBUG, call = CALL, set = set.session.set_name(), device = name, "device opened");
        control.announce_device(core.index, name);
        set.device_opened();
        drop(turn);
        Ok(ServerVirtualDevice::new(set, core))
    }

    /// Allocates a buffer of at least `size` bytes, not counting the client's prefix zone. `alignment` 0 is the set's.
    ///
    /// # Errors
    /// VD_E_MEMORY; VD_E_INVALID for a size of 0, or an alignment that is no power of two up to 65536; VD_E_PROTOCOL,
    /// VD_E_ABORT.
    #[doc(alias = "AllocateBuffer")]
    pub fn allocate_buffer(&self, size: u32, alignment: u32) -> Result<ServerBuffer, VdsError> {
        const CALL: &str = "AllocateBuffer";
        self.step(CALL, Call::AllocateBuffer)?.configuration.allocate(CALL, size, alignment)
    }

    /// Frees a buffer; dropping it does the same.
    ///
    /// # Errors
    /// VD_E_INVALID for a buffer of another set; VD_E_PROTOCOL before the configuration.
    #[doc(alias = "FreeBuffer")]
    pub fn free_buffer(&self, buffer: ServerBuffer) -> Result<(), VdsError> {
        const CALL: &str = "FreeBuffer";
        let opened = self.step(CALL, Call::FreeBuffer)?;
        if opened.configuration.pool().is_some_and(|pool| buffer.is_of(pool)) {
            return Ok(());
        }
        Err(opened.set.error_with(CALL, VdError::Invalid, "the buffer belongs to another set"))
    }

    /// Whether an address lies in the set's buffer space.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    #[doc(alias = "IsSharedBuffer")]
    pub fn is_shared_buffer(&self, address: *const u8) -> Result<bool, VdsError> {
        let opened = self.opened("IsSharedBuffer")?;
        Ok(opened.configuration.pool().is_some_and(|pool| pool.is_shared(address)))
    }

    /// Processes completions on the caller's thread until Close (`Ok`) or an abort. It has to run for commands to complete, and
    /// calls their routines.
    ///
    /// # Errors
    /// VD_E_ABORT when the set was aborted: everything outstanding has ended with ERROR_OPERATION_ABORTED by then. VD_E_PROTOCOL
    /// when it runs already, or is called too early.
    #[doc(alias = "ExecuteCompletionAgent")]
    pub fn execute_completion_agent(&self) -> Result<(), VdsError> {
        const CALL: &str = "ExecuteCompletionAgent";
        let opened = self.opened(CALL)?;
        opened.begin_agent(CALL)?;
        if agent::run(&opened.port) { Ok(()) } else { Err(opened.set.error(CALL, VdError::Abort)) }
    }

    /// Processes the completions that are there, on the caller's thread, and returns whether there were any: the completion agent
    /// in single steps, for servers that have no thread for it. The client's time-out is not watched meanwhile.
    ///
    /// # Errors
    /// As of [`ServerVirtualDeviceSet::execute_completion_agent`].
    pub fn handle_completions(&self) -> Result<bool, VdsError> {
        const CALL: &str = "HandleCompletions";
        let opened = self.opened(CALL)?;
        opened.begin_agent(CALL)?;
        let any = opened.port.process();
        opened.port.leave_agent();
        if opened.set.was_aborted() {
            opened.set.abort_devices();
            return Err(opened.set.error(CALL, VdError::Abort));
        }
        Ok(any)
    }

    /// Registers the caller as a thread that processes completions while it waits for what they bring.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub(crate) fn completion_reader(&self) -> Result<CompletionReader, VdsError> {
        Ok(CompletionReader::new(&self.opened("ExecuteCompletionAgent")?.port))
    }

    /// Wakes readers that wait for something other than a completion; `None` without a set.
    pub(crate) fn reader_waker(&self) -> Option<ReaderWaker> {
        self.slot().as_ref().map(|opened| ReaderWaker::new(&opened.set.session))
    }

    /// This process has work for every CPU, so that waits of the set do not spin.
    pub(crate) fn want_cpus(&self) {
        if let Some(opened) = &*self.slot() {
            opened.set.control.needs_cpus();
        }
    }

    /// Aborts the set: every blocked call on both sides returns VD_E_ABORT.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    #[doc(alias = "SignalAbort")]
    pub fn signal_abort(&self) -> Result<(), VdsError> {
        self.abort_by(|session| session.abort(Cause::Signalled))
    }

    /// As [`ServerVirtualDeviceSet::signal_abort`], and tells the client why: its errors have `reason`. `code` is the system error
    /// or the status (HRESULT) behind it, 0 where there is none. The reason is cut at 512 bytes on its way.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn signal_abort_because(&self, code: u32, reason: impl std::fmt::Display) -> Result<(), VdsError> {
        self.abort_by(|session| session.give_up(code, reason))
    }

    /// The abort changes the state by itself: a call of another thread that is refused because of it finds the reason.
    fn abort_by(&self, abort: impl FnOnce(&Session)) -> Result<(), VdsError> {
        const CALL: &str = "SignalAbort";
        let opened = self.opened(CALL)?;
        opened.set.would_answer(Call::SignalAbort).map_err(|code| opened.set.error(CALL, code))?;
        trace::event!(DEBUG, call = CALL, set = opened.set.session.set_name(), "abort signalled");
        abort(&opened.set.session);
        Ok(())
    }

    /// Closes the set. The completion agent returns, and commands that are outstanding end with ERROR_OPERATION_ABORTED.
    ///
    /// # Errors
    /// VD_E_PROTOCOL when devices are open: the set was aborted, and is closed all the same; and without a set.
    #[doc(alias = "Close")]
    pub fn close(&self) -> Result<(), VdsError> {
        const CALL: &str = "Close";
        let Some(opened) = self.slot().take() else { return self.opened(CALL).map(drop) };
        let set = &opened.set;
        let answer = set.step(Call::Close).map_err(|code| {
            set.error_with(CALL, code, "devices were open, so the set was aborted; close each device first")
        });
        if answer.is_err() {
            set.session.abort(Cause::ClosedEarly);
        }
        set.close();
        if set.was_aborted() {
            // The agent does the same, if it has begun.
            set.abort_devices();
        }
        opened.configuration.leave();
        trace::event!(DEBUG, call = CALL, set = set.session.set_name(), "set closed");
        answer
    }

    /// The session of the set: who takes part, and why it was aborted.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.slot().as_ref().map(|opened| Arc::clone(&opened.set.session))
    }

    /// The state, by the specification's table.
    #[must_use]
    pub fn state(&self) -> State {
        self.slot().as_ref().map_or(State::DoesNotExist, |opened| opened.set.state())
    }
}

impl Drop for ServerVirtualDeviceSet {
    fn drop(&mut self) {
        if self.slot().is_some() {
            // That devices were open the client learns from the abort.
            let _ = self.close();
        }
    }
}
