//! The virtual device set of the server: IServerVirtualDeviceSet2.

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

/// The interval of checks for a set that does not exist yet.
const SET_POLL: Duration = Duration::from_millis(5);

/// The set was not created in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {:.1} s for the set to be created: {source}", waited.as_secs_f64())]
struct NotCreated {
    waited: Duration,
    source: JoinError,
}

/// A virtual device set that a client created: IServerVirtualDeviceSet2.
///
/// All calls may be made from any thread. After [`ServerVirtualDeviceSet::close`] the object can open another set. Dropping it
/// closes the set.
///
/// Every call returns VD_E_PROTOCOL if no set is open or if the state does not allow the call, and VD_E_ABORT if the set was
/// aborted. The error's text has the reason of the abort.
#[derive(Debug)]
#[doc(alias("IServerVirtualDeviceSet2", "IServerVirtualDeviceSet"))]
pub struct ServerVirtualDeviceSet {
    /// An error of the environment is reported by [`ServerVirtualDeviceSet::open`].
    options: Result<Options, EnvironmentError>,
    agent_faults: Mutex<AgentFaults>,
    open: Mutex<Option<Arc<Opened>>>,
}

/// The parts of an open set.
#[derive(Debug)]
struct Opened {
    set: Arc<OpenSet>,
    port: Arc<CompletionPort>,
    configuration: Configuration,
}

impl Opened {
    /// Applies a call to the state table.
    fn step(&self, call: &'static str, step: Call) -> Result<(), VdsError> {
        self.set.step(step).map_err(|code| self.set.error(call, code))
    }

    /// Makes the caller the completion agent.
    fn begin_agent(&self, call: &'static str) -> Result<(), VdsError> {
        self.set.step(Call::ExecuteCompletionAgent).map_err(|code| {
            if self.set.is_aborted() {
                // The abort came before the agent. The commands sent before it must end.
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
    /// An object without a set, with the options of the environment ([`Options::from_env`]). If a variable is invalid,
    /// [`ServerVirtualDeviceSet::open`] returns VD_E_INVALID and names the variable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An object without a set, with these options.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        Self::with(Ok(options))
    }

    fn with(options: Result<Options, EnvironmentError>) -> Self {
        ServerVirtualDeviceSet { options, agent_faults: Mutex::default(), open: Mutex::default() }
    }

    /// Sets the faults of the completion agent. They apply to the set that is opened next.
    pub(crate) fn inject(&self, faults: AgentFaults) {
        *self.agent_faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Opened>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, call: &'static str) -> Result<Arc<Opened>, VdsError> {
        self.slot().clone().ok_or_else(|| VdsError::new(call, "", VdError::Protocol, "no set is open: call Open first"))
    }

    /// Applies a call to the state table of the open set.
    fn step(&self, call: &'static str, step: Call) -> Result<Arc<Opened>, VdsError> {
        let opened = self.opened(call)?;
        opened.step(call, step)?;
        Ok(opened)
    }

    /// Opens the set `name` that a client has created for `instance`. An empty `instance` is the default instance.
    ///
    /// # Errors
    /// VD_E_INVALID if there is no such set; VD_E_SECURITY if its access rule or this process's excludes the other side;
    /// VD_E_ABORT if it was aborted; VD_E_PROTOCOL if this object has an open set.
    #[doc(alias = "Open")]
    pub fn open(&self, instance: &str, name: &str) -> Result<(), VdsError> {
        self.open_within(instance, name, Duration::ZERO, || false)
    }

    /// As [`ServerVirtualDeviceSet::open`], but waits up to `timeout` for the client to create the set. The wait ends early when
    /// `stop` returns true; it is called every few milliseconds.
    ///
    /// # Errors
    /// As [`ServerVirtualDeviceSet::open`].
    pub(crate) fn open_within(
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
                    // The check for the path is cheaper than another join, which also searches for similar names.
                    std::thread::sleep(SET_POLL);
                    if path.exists() || begin.elapsed() >= timeout || stop() {
                        break;
                    }
                },
                source @ JoinError::NoSuchSet { .. } if !timeout.is_zero() => {
                    return Err(VdsError::lower(CALL, name, code, NotCreated { waited, source }));
                }
                error => return Err(VdsError::lower(CALL, name, code, error)),
            }
        }
    }

    /// Stores the set that was joined.
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

    /// The configuration: the client's request before BeginConfiguration, the configuration so far after it, and the negotiated
    /// one after EndConfiguration.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if no set is open; VD_E_ABORT.
    #[doc(alias = "GetConfiguration")]
    pub fn get_configuration(&self) -> Result<VdConfig, VdsError> {
        let opened = self.step("GetConfiguration", Call::GetConfiguration)?;
        Ok(opened.configuration.current())
    }

    /// Begins the configuration with the server's terms. Returns the configuration so far. `timeout` limits the time in which the
    /// client's process must answer each later step: the mapping of buffers, and the configuration.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if the configuration has begun already, or no set is open; VD_E_ABORT; VD_E_INVALID if a term is out of
    /// range; VD_E_NOTSUPPORTED if the server cannot meet the client's request. An error leaves the state unchanged.
    #[doc(alias = "BeginConfiguration")]
    pub fn begin_configuration(&self, terms: &ServerTerms, timeout: Duration) -> Result<VdConfig, VdsError> {
        const CALL: &str = "BeginConfiguration";
        self.opened(CALL)?.configuration.begin(CALL, terms, timeout)
    }

    /// Requests `count` buffers of `size` bytes. During the configuration EndConfiguration creates them; after it this call does.
    /// `alignment` is in bytes; 0 is the set's alignment.
    ///
    /// # Errors
    /// VD_E_INVALID if `size` or `count` is 0, or `alignment` is not 0 and not a power of two up to 65536; VD_E_MEMORY if the set
    /// would exceed 4 GiB or its number of buffers; VD_E_TIMEOUT if the client does not map buffers requested after the
    /// configuration; VD_E_PROTOCOL before BeginConfiguration; VD_E_ABORT.
    #[doc(alias = "RequestBuffers")]
    pub fn request_buffers(&self, size: u32, alignment: u32, count: u32) -> Result<(), VdsError> {
        const CALL: &str = "RequestBuffers";
        self.step(CALL, Call::RequestBuffers)?.configuration.request(CALL, size, alignment, count)
    }

    /// The number of free buffers of at least `size` bytes with this alignment. 0 before EndConfiguration.
    ///
    /// # Errors
    /// VD_E_INVALID if `alignment` is not 0 and not a power of two up to 65536; VD_E_PROTOCOL; VD_E_ABORT.
    #[doc(alias = "QueryAvailableBuffers")]
    pub fn query_available_buffers(&self, size: u32, alignment: u32) -> Result<u32, VdsError> {
        const CALL: &str = "QueryAvailableBuffers";
        self.step(CALL, Call::QueryAvailableBuffers)?.configuration.available(CALL, size, alignment)
    }

    /// Creates the requested buffers, and sends the configuration to the client. Returns the negotiated configuration.
    ///
    /// # Errors
    /// VD_E_MEMORY if the buffers cannot be allocated: the set stays in configuration, and the server may request fewer buffers.
    /// VD_E_TIMEOUT if the client's process does not answer in time. VD_E_PROTOCOL outside of the configuration. VD_E_ABORT.
    #[doc(alias = "EndConfiguration")]
    pub fn end_configuration(&self) -> Result<VdConfig, VdsError> {
        const CALL: &str = "EndConfiguration";
        self.opened(CALL)?.configuration.end(CALL)
    }

    /// Opens the next device and gives it this name. Then a client can open it.
    ///
    /// # Errors
    /// VD_E_OPEN if all devices are open; VD_E_INVALID if the name is invalid, or another device of the set has it;
    /// VD_E_PROTOCOL before EndConfiguration; VD_E_ABORT.
    #[doc(alias = "OpenDevice")]
    pub fn open_device(&self, name: &str) -> Result<ServerVirtualDevice, VdsError> {
        const CALL: &str = "OpenDevice";
        let set = Arc::clone(&self.opened(CALL)?.set);
        let lock = set.device_lock();
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
        drop(lock);
        Ok(ServerVirtualDevice::new(set, core))
    }

    /// Allocates a buffer of at least `size` bytes, not counting the client's prefix zone. `alignment` is in bytes; 0 is the set's
    /// alignment.
    ///
    /// # Errors
    /// VD_E_MEMORY if no such buffer is free; VD_E_INVALID if `size` is 0, or `alignment` is not 0 and not a power of two up to
    /// 65536; VD_E_PROTOCOL before EndConfiguration; VD_E_ABORT.
    #[doc(alias = "AllocateBuffer")]
    pub fn allocate_buffer(&self, size: u32, alignment: u32) -> Result<ServerBuffer, VdsError> {
        const CALL: &str = "AllocateBuffer";
        self.step(CALL, Call::AllocateBuffer)?.configuration.allocate(CALL, size, alignment)
    }

    /// Frees a buffer. Dropping it does the same.
    ///
    /// # Errors
    /// VD_E_INVALID if the buffer belongs to another set; it is freed in that set. VD_E_PROTOCOL before EndConfiguration.
    #[doc(alias = "FreeBuffer")]
    pub fn free_buffer(&self, buffer: ServerBuffer) -> Result<(), VdsError> {
        const CALL: &str = "FreeBuffer";
        let opened = self.step(CALL, Call::FreeBuffer)?;
        if opened.configuration.pool().is_some_and(|pool| buffer.is_of(pool)) {
            return Ok(());
        }
        Err(opened.set.error_with(CALL, VdError::Invalid, "the buffer belongs to another set"))
    }

    /// Whether an address is inside a buffer area of the set.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if no set is open.
    #[doc(alias = "IsSharedBuffer")]
    pub fn is_shared_buffer(&self, address: *const u8) -> Result<bool, VdsError> {
        let opened = self.opened("IsSharedBuffer")?;
        Ok(opened.configuration.pool().is_some_and(|pool| pool.is_shared(address)))
    }

    /// Processes completions on the caller's thread, and runs the completion routines. Returns `Ok` after Close. Commands complete
    /// only while it runs.
    ///
    /// # Errors
    /// VD_E_ABORT after an abort of the set: all outstanding commands have ended with ERROR_OPERATION_ABORTED. VD_E_PROTOCOL if it
    /// runs already, has run until the end, or is called before EndConfiguration.
    #[doc(alias = "ExecuteCompletionAgent")]
    pub fn execute_completion_agent(&self) -> Result<(), VdsError> {
        const CALL: &str = "ExecuteCompletionAgent";
        let opened = self.opened(CALL)?;
        opened.begin_agent(CALL)?;
        if agent::run(&opened.port) { Ok(()) } else { Err(opened.set.error(CALL, VdError::Abort)) }
    }

    /// Processes the completions that are there, on the caller's thread. Returns whether there were any. A server without a thread
    /// for the completion agent calls this repeatedly. serverTimeOut is not watched.
    ///
    /// # Errors
    /// As [`ServerVirtualDeviceSet::execute_completion_agent`].
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

    /// Registers the caller as a reader: a thread that processes completions while it waits for their results.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if no set is open.
    pub(crate) fn completion_reader(&self) -> Result<CompletionReader, VdsError> {
        Ok(CompletionReader::new(&self.opened("ExecuteCompletionAgent")?.port))
    }

    /// A [`ReaderWaker`] of the set; `None` if no set is open.
    pub(crate) fn reader_waker(&self) -> Option<ReaderWaker> {
        self.slot().as_ref().map(|opened| ReaderWaker::new(&opened.set.session))
    }

    /// Makes waits of the set sleep without spinning. For a process that has work for every CPU.
    pub(crate) fn want_cpus(&self) {
        if let Some(opened) = &*self.slot() {
            opened.set.control.needs_cpus();
        }
    }

    /// Aborts the set. Every blocked call on both sides returns VD_E_ABORT.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if no set is open.
    #[doc(alias = "SignalAbort")]
    pub fn signal_abort(&self) -> Result<(), VdsError> {
        self.abort_by(|session| session.abort(Cause::Signalled))
    }

    /// As [`ServerVirtualDeviceSet::signal_abort`], with a reason for the client: its errors contain `reason`, cut at 512 bytes.
    /// `code` is the system error or the status (HRESULT) that caused the abort, or 0.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if no set is open.
    pub(crate) fn signal_abort_because(&self, code: u32, reason: impl std::fmt::Display) -> Result<(), VdsError> {
        self.abort_by(|session| session.give_up(code, reason))
    }

    // The abort itself changes the state. So a call that is refused because of it sees the reason.
    fn abort_by(&self, abort: impl FnOnce(&Session)) -> Result<(), VdsError> {
        const CALL: &str = "SignalAbort";
        let opened = self.opened(CALL)?;
        opened.set.would_answer(Call::SignalAbort).map_err(|code| opened.set.error(CALL, code))?;
        trace::event!(DEBUG, call = CALL, set = opened.set.session.set_name(), "abort signalled");
        abort(&opened.set.session);
        Ok(())
    }

    /// Closes the set. The completion agent returns, and outstanding commands end with ERROR_OPERATION_ABORTED.
    ///
    /// # Errors
    /// VD_E_PROTOCOL if devices are open: the set is aborted and closed. VD_E_PROTOCOL if no set is open.
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
            // A running agent does the same.
            set.abort_devices();
        }
        opened.configuration.leave();
        trace::event!(DEBUG, call = CALL, set = set.session.set_name(), "set closed");
        answer
    }

    /// The session of the set: its members, its configuration and the reason of its abort. `None` if no set is open.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.slot().as_ref().map(|opened| Arc::clone(&opened.set.session))
    }

    /// The state in the specification's state table.
    #[must_use]
    pub fn state(&self) -> State {
        self.slot().as_ref().map_or(State::DoesNotExist, |opened| opened.set.state())
    }
}

impl Drop for ServerVirtualDeviceSet {
    fn drop(&mut self) {
        if self.slot().is_some() {
            // If devices are open, the abort reports it to the client.
            let _ = self.close();
        }
    }
}
