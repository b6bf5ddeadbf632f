//! The virtual device set, as the server uses it: IServerVirtualDeviceSet2.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vdi_proto::abort::Cause;
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::handle::{HandleCodec, MAX_SLOT_BITS};
use vdi_proto::join::{Agreement, Role};
use vdi_proto::layout::BufferRules;
use vdi_proto::name::check_name;
use vdi_proto::set::Opening;
use vdi_proto::set::server::{self, Call, State};
use vdi_proto::status::VdError;
use vdi_shm::allocator::{BufferPool, ServerBuffer, area_len};
use vdi_shm::error::ShmError;
use vdi_shm::member::Member;
use vdi_shm::runtime::Options;
use vdi_shm::session::Session;
use vdi_shm::wait;

use super::agent::Completions;
use super::device::{DeviceCore, ServerVirtualDevice};
use super::error::VdsError;
use super::help::Helping;
use crate::trace;

/// How long the client has to map an area that is added after the configuration.
const LATE_AREA_PATIENCE: Duration = Duration::from_secs(10);

/// A virtual device set that a client created: IServerVirtualDeviceSet2.
///
/// The object may be used from any thread, and for another set after [`ServerVirtualDeviceSet::close`]. Dropping it closes
/// the set.
#[derive(Debug, Default)]
pub struct ServerVirtualDeviceSet {
    options: Options,
    pretence: Mutex<Pretence>,
    open: Mutex<Option<Arc<OpenSet>>>,
}

/// What the completion agent is to get wrong, for tests of clients.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pretence {
    /// The client's serverTimeOut, in milliseconds, instead of what it asked for.
    pub(super) server_time_out: Option<u32>,
    /// Which completion, counted from 1, is passed over as if it had not come.
    pub(super) ignored_completion: Option<u64>,
}

/// A set that is open.
#[derive(Debug)]
pub(crate) struct OpenSet {
    pub(crate) session: Arc<Session>,
    pub(super) pretence: Pretence,
    /// A subscriber was told of the abort: once is enough.
    abort_told: AtomicBool,
    member: Mutex<Option<Member>>,
    state: AtomicU8,
    closed: AtomicBool,
    plan: Mutex<Plan>,
    pool: OnceLock<Arc<BufferPool>>,
    pub(super) devices: Vec<Arc<DeviceCore>>,
    opened: AtomicU32,
    /// Held by whoever closes a device.
    closing: Mutex<()>,
    /// Devices that were closed in order.
    devices_closed: AtomicU32,
    /// While no agent has them.
    pub(super) completions: Mutex<Option<Completions>>,
    /// Between the agent and those who help it.
    pub(super) helping: Helping,
    /// Completions so far.
    pub(super) seen: AtomicU64,
}

/// What was configured so far.
#[derive(Debug, Default)]
struct Plan {
    config: Option<VdConfig>,
    timeout: Duration,
    /// Buffers requested: size, alignment, count.
    requests: Vec<(u32, u32, u32)>,
    areas: u32,
    /// Bytes of all areas.
    bytes: u64,
}

impl OpenSet {
    fn load(&self) -> State {
        let number = self.state.load(Ordering::Acquire);
        State::ALL.into_iter().find(|state| *state as u8 == number).unwrap_or(State::DoesNotExist)
    }

    /// The state now: an abort by whomever shows.
    fn state(&self) -> State {
        match self.load() {
            State::DoesNotExist => State::DoesNotExist,
            _ if self.session.abort_reason().is_some() => State::AbnormallyTerminated,
            state => state,
        }
    }

    /// One step of the table.
    pub(crate) fn step(&self, call: Call) -> Result<(), VdError> {
        loop {
            let before = self.load();
            let aborted = before != State::DoesNotExist && self.session.abort_reason().is_some();
            let step = server::step(if aborted { State::AbnormallyTerminated } else { before }, call);
            let swapped =
                self.state.compare_exchange(before as u8, step.next as u8, Ordering::AcqRel, Ordering::Acquire);
            if swapped.is_ok() {
                return step.answer;
            }
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While nobody opens or closes a device: what this process has told of each, `None` where somebody is at it.
    pub(super) fn told<T>(&self, look: impl FnOnce(u32) -> T) -> Option<T> {
        let _plan = self.plan.try_lock().ok()?;
        let _closing = self.closing.try_lock().ok()?;
        Some(look(self.opened()))
    }

    /// The turn to close a device.
    pub(crate) fn closing(&self) -> MutexGuard<'_, ()> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn agreed(&self) -> Option<&VdConfig> {
        self.session.agreement().map(|agreement| &agreement.config)
    }

    pub(crate) fn devices(&self) -> &[Arc<DeviceCore>] {
        &self.devices
    }

    pub(crate) fn opened(&self) -> u32 {
        self.opened.load(Ordering::Acquire)
    }

    /// Whether every device was closed in order.
    pub(crate) fn has_ended(&self) -> bool {
        self.devices_closed.load(Ordering::Acquire) as usize == self.devices.len()
    }

    /// A device was closed in order, by who has the turn to close.
    pub(super) fn device_closed(&self) {
        self.devices_closed.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Tells of the abort, when this process sees it.
    pub(crate) fn tell_abort(&self) {
        if trace::listening!(DEBUG)
            && let Some(reason) = self.session.abort_reason()
            && !self.abort_told.swap(true, Ordering::Relaxed)
        {
            let evidence = self.session.evidence();
            let set = self.session.set_name();
            trace::event!(DEBUG, set = set, reason = %reason, evidence = evidence.as_deref(), "set aborted");
        }
    }

    pub(super) fn error(&self, call: &'static str, code: VdError) -> VdsError {
        VdsError::new(call, self.session.set_name(), code, self.explain(code))
    }

    /// What is wrong with a call, by its code alone.
    fn explain(&self, code: VdError) -> String {
        match (code, self.session.abort_reason()) {
            (VdError::Abort, Some(reason)) => match self.session.evidence() {
                Some(evidence) => format!("the set was aborted: {reason} ({evidence})"),
                None => format!("the set was aborted: {reason}"),
            },
            (VdError::Protocol, Some(reason)) => format!("this call comes too late, the set was aborted: {reason}"),
            (VdError::Protocol, None) => format!("this call does not belong into state {:?}", self.state()),
            _ => code.meaning().to_owned(),
        }
    }

    /// Adds an area of `len` bytes, with the client's consent.
    fn add_area(&self, index: u32, len: u64, timeout: Duration) -> Result<(), ShmError> {
        let member = self.member.lock().unwrap_or_else(PoisonError::into_inner);
        match &*member {
            Some(member) => member.add_area(index, len, timeout),
            None => Err(ShmError::Timeout { step: "a set that is closed" }),
        }
    }
}

impl ServerVirtualDeviceSet {
    /// An object without a set, with the default [`Options`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An object without a set.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        ServerVirtualDeviceSet { options, pretence: Mutex::default(), open: Mutex::default() }
    }

    /// For tests of clients: has the completion agent of the set that is opened next take `server_time_out` (milliseconds)
    /// for what the client asked for, and pass over one completion, counted from 1, as if it had not come.
    pub fn pretend(&self, server_time_out: Option<u32>, ignored_completion: Option<u64>) {
        *self.pretence() = Pretence { server_time_out, ignored_completion };
    }

    fn pretence(&self) -> MutexGuard<'_, Pretence> {
        self.pretence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<OpenSet>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn opened(&self, call: &'static str) -> Result<Arc<OpenSet>, VdsError> {
        self.slot().clone().ok_or_else(|| VdsError::new(call, "", VdError::Protocol, "no set is open: call Open first"))
    }

    /// One step of the table for a call that does nothing else when it is refused.
    fn step(&self, call: &'static str, step: Call) -> Result<Arc<OpenSet>, VdsError> {
        let set = self.opened(call)?;
        set.step(step).map_err(|code| set.error(call, code))?;
        Ok(set)
    }

    /// Opens a set that a client created for this instance (empty: the default one).
    ///
    /// # Errors
    /// VD_E_INVALID when there is no such set; VD_E_SECURITY when it may not be used; VD_E_ABORT when it was aborted;
    /// VD_E_PROTOCOL when this object has one already.
    pub fn open(&self, instance: &str, name: &str) -> Result<(), VdsError> {
        const CALL: &str = "Open";
        let mut slot = self.slot();
        if let Some(set) = &*slot {
            return set.step(Call::Open).map_err(|code| set.error(CALL, code));
        }
        let failed = |error| VdsError::from_shm(CALL, name, error);
        let member = Member::join(&self.options, Role::Server, instance, name).map_err(failed)?;
        let session = Arc::clone(member.session());
        let control = session.control();
        let mut devices = Vec::new();
        let mut completions = Vec::new();
        for index in 0..control.device_count() {
            devices.push(Arc::new(DeviceCore::new(
                index,
                &session,
                control.submission_producer(index).map_err(failed)?,
            )));
            completions.push(control.completion_consumer(index).map_err(failed)?);
        }
        *slot = Some(Arc::new(OpenSet {
            pretence: *self.pretence(),
            abort_told: AtomicBool::new(false),
            member: Mutex::new(Some(member)),
            state: AtomicU8::new(State::Connected as u8),
            closed: AtomicBool::new(false),
            plan: Mutex::default(),
            pool: OnceLock::new(),
            devices,
            opened: AtomicU32::new(0),
            closing: Mutex::default(),
            devices_closed: AtomicU32::new(0),
            completions: Mutex::new(Some(completions)),
            helping: Helping::default(),
            seen: AtomicU64::new(0),
            session: Arc::clone(&session),
        }));
        let asked = session.asked();
        trace::event!(
            DEBUG,
            call = CALL,
            set = name,
            instance = instance,
            devices = asked.device_count,
            features = %asked.features,
            server_time_out_ms = asked.server_time_out,
            "set opened"
        );
        Ok(())
    }

    /// The configuration: what the client asked for, then what was agreed.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set, VD_E_ABORT.
    pub fn get_configuration(&self) -> Result<VdConfig, VdsError> {
        let set = self.step("GetConfiguration", Call::GetConfiguration)?;
        let planned = set.plan().config;
        Ok(set.agreed().copied().or(planned).unwrap_or(*set.session.asked()))
    }

    /// Begins the configuration with the server's terms. `timeout` is how long the client's process has to take each part of
    /// it.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set was just opened, VD_E_ABORT; VD_E_INVALID for terms out of range, VD_E_NOTSUPPORTED for what
    /// the client asked: the set then stays as it was.
    pub fn begin_configuration(&self, terms: &ServerTerms, timeout: Duration) -> Result<VdConfig, VdsError> {
        const CALL: &str = "BeginConfiguration";
        let set = self.opened(CALL)?;
        let config = terms.negotiate(set.session.asked());
        // Out of turn comes before out of range.
        server::step(set.state(), Call::BeginConfiguration).answer.map_err(|code| set.error(CALL, code))?;
        let config = config.map_err(|error| VdsError::from_shm(CALL, set.session.set_name(), error.into()))?;
        set.step(Call::BeginConfiguration).map_err(|code| set.error(CALL, code))?;
        let mut plan = set.plan();
        plan.config = Some(config);
        plan.timeout = timeout;
        trace::event!(
            DEBUG,
            call = CALL,
            set = set.session.set_name(),
            features = %config.features,
            block_size = config.block_size,
            max_transfer_size = config.max_transfer_size,
            alignment = config.alignment,
            "configuration begun"
        );
        Ok(config)
    }

    /// Asks for `count` buffers of `size` bytes. During the configuration requests are summed into one area, which
    /// EndConfiguration allocates; later ones are allocated at once. `alignment` 0 is the set's.
    ///
    /// # Errors
    /// VD_E_MEMORY, VD_E_PROTOCOL, VD_E_ABORT; VD_E_INVALID for a size or count of 0, or an alignment that is no power of two.
    pub fn request_buffers(&self, size: u32, alignment: u32, count: u32) -> Result<(), VdsError> {
        const CALL: &str = "RequestBuffers";
        let set = self.step(CALL, Call::RequestBuffers)?;
        if size == 0 || count == 0 || (alignment != 0 && !alignment.is_power_of_two()) {
            let what = format!("{count} buffers of {size} bytes aligned to {alignment} cannot be had");
            return Err(VdsError::new(CALL, set.session.set_name(), VdError::Invalid, what));
        }
        let mut plan = set.plan();
        let Some(pool) = set.pool.get() else {
            plan.requests.push((size, alignment, count));
            return Ok(());
        };
        let Some(config) = plan.config else { return Err(set.error(CALL, VdError::Protocol)) };
        let len = area_len(size, count, &rules(&config, alignment)).ok_or_else(|| set.error(CALL, VdError::Memory))?;
        self.grow(&set, pool, &mut plan, len, LATE_AREA_PATIENCE)
            .map_err(|error| VdsError::from_shm(CALL, set.session.set_name(), error))
    }

    fn grow(
        &self,
        set: &OpenSet,
        pool: &BufferPool,
        plan: &mut Plan,
        len: u64,
        timeout: Duration,
    ) -> Result<(), ShmError> {
        // A set's buffer space is counted in 32 bits, whenever it is requested.
        let limit = u64::from(u32::MAX);
        let bytes = plan.bytes.checked_add(len).filter(|bytes| *bytes <= limit);
        let bytes = bytes.ok_or(ShmError::Exhausted { what: "bytes of buffer space", limit })?;
        set.add_area(plan.areas, len.next_multiple_of(4096), timeout)?;
        if let Some(mapping) = set.session.areas().get(plan.areas) {
            pool.add_area(mapping);
        }
        plan.areas += 1;
        plan.bytes = bytes;
        Ok(())
    }

    /// How many buffers of this size could be allocated now. Before EndConfiguration there are none.
    ///
    /// # Errors
    /// VD_E_PROTOCOL, VD_E_ABORT.
    pub fn query_available_buffers(&self, size: u32, alignment: u32) -> Result<u32, VdsError> {
        let set = self.step("QueryAvailableBuffers", Call::QueryAvailableBuffers)?;
        Ok(set.pool.get().map_or(0, |pool| pool.available(size, alignment)))
    }

    /// Allocates the buffer area and tells the client the configuration.
    ///
    /// # Errors
    /// VD_E_MEMORY: the set stays in configuration without buffer space, and the server may request less. VD_E_PROTOCOL,
    /// VD_E_ABORT, VD_E_TIMEOUT when the client's process does not answer.
    pub fn end_configuration(&self) -> Result<VdConfig, VdsError> {
        const CALL: &str = "EndConfiguration";
        let set = self.opened(CALL)?;
        let name = set.session.set_name().to_owned();
        // One at a time, and judged under the lock.
        let mut plan = set.plan();
        server::step(set.state(), Call::EndConfiguration { memory: true })
            .answer
            .map_err(|code| set.error(CALL, code))?;
        let Some(mut config) = plan.config else { return Err(set.error(CALL, VdError::Protocol)) };
        let requests = core::mem::take(&mut plan.requests);
        let no_memory = |what: String| {
            let code = set.step(Call::EndConfiguration { memory: false }).err().unwrap_or(VdError::Memory);
            VdsError::new(CALL, &name, code, what)
        };
        let total = requests.iter().try_fold(0u64, |total, (size, alignment, count)| {
            total.checked_add(area_len(*size, *count, &rules(&config, *alignment))?)
        });
        let buffers: u64 = requests.iter().map(|(_, _, count)| u64::from(*count)).sum();
        let fits = total.is_some_and(|total| u32::try_from(total).is_ok()) && buffers <= 1 << MAX_SLOT_BITS;
        let (Some(total), true) = (total, fits) else {
            return Err(no_memory(format!(
                "{buffers} buffers of {total:?} bytes in all are more than the {} buffers and 4 GiB that a set can have; \
                 request less",
                1 << MAX_SLOT_BITS
            )));
        };
        config.buffer_area_size = total as u32;
        // Twice the buffers asked for leaves room for requests that come later.
        let slot_bits = HandleCodec::slot_bits_for((buffers as u32).saturating_mul(2));
        let session = &set.session;
        let pool = BufferPool::new(
            Arc::clone(session.control()),
            Arc::clone(session.areas()),
            BufferRules::new(&config),
            slot_bits,
        );
        let timeout = plan.timeout;
        if total > 0 {
            self.grow(&set, &pool, &mut plan, total, timeout).map_err(|error| match error.code() {
                VdError::Memory => no_memory(error.to_string()),
                _ => VdsError::from_shm(CALL, &name, error),
            })?;
        }
        let member = set.member.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = &*member {
            member
                .configure(Agreement { config, slot_bits }, timeout)
                .map_err(|error| VdsError::from_shm(CALL, &name, error))?;
        }
        drop(member);
        plan.config = Some(config);
        // Only EndConfiguration sets it, and the table lets it succeed once.
        let _ = set.pool.set(pool);
        set.step(Call::EndConfiguration { memory: true }).map_err(|code| set.error(CALL, code))?;
        trace::event!(
            DEBUG,
            call = CALL,
            set = &*name,
            buffers = buffers,
            buffer_area_size = config.buffer_area_size,
            "configuration ended"
        );
        Ok(config)
    }

    /// Opens the next device, which gets this name: from now on a client can open it.
    ///
    /// # Errors
    /// VD_E_OPEN when all are open; VD_E_INVALID for a name that is none, or that another device of the set has; VD_E_PROTOCOL,
    /// VD_E_ABORT.
    pub fn open_device(&self, name: &str) -> Result<ServerVirtualDevice, VdsError> {
        const CALL: &str = "OpenDevice";
        let set = self.opened(CALL)?;
        // One at a time: the plan's lock serves for that.
        let plan = set.plan();
        let control = set.session.control();
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
        set.devices[index as usize].name_it(name);
        trace::event!(DEBUG, call = CALL, set = set.session.set_name(), device = name, "device opened");
        control.announce_device(index, name);
        set.opened.store(index + 1, Ordering::Release);
        wait::ring(control.agent_doorbell());
        drop(plan);
        Ok(ServerVirtualDevice { core: Arc::clone(&set.devices[index as usize]), set })
    }

    /// Allocates a buffer of `size` bytes, not counting the client's prefix zone. `alignment` 0 is the set's.
    ///
    /// # Errors
    /// VD_E_MEMORY; VD_E_INVALID for a size of 0 or an alignment that is no power of two; VD_E_PROTOCOL, VD_E_ABORT.
    pub fn allocate_buffer(&self, size: u32, alignment: u32) -> Result<ServerBuffer, VdsError> {
        const CALL: &str = "AllocateBuffer";
        let set = self.step(CALL, Call::AllocateBuffer)?;
        if size == 0 || (alignment != 0 && !alignment.is_power_of_two()) {
            let what = format!("{size} bytes aligned to {alignment}");
            return Err(VdsError::new(CALL, set.session.set_name(), VdError::Invalid, what));
        }
        let pool = set.pool.get().ok_or_else(|| set.error(CALL, VdError::Protocol))?;
        pool.allocate(size, alignment).map_err(|error| VdsError::from_shm(CALL, set.session.set_name(), error))
    }

    /// Frees a buffer; dropping it does the same.
    ///
    /// # Errors
    /// VD_E_INVALID for a buffer of another set; VD_E_PROTOCOL before the configuration.
    pub fn free_buffer(&self, buffer: ServerBuffer) -> Result<(), VdsError> {
        const CALL: &str = "FreeBuffer";
        let set = self.step(CALL, Call::FreeBuffer)?;
        if set.pool.get().is_some_and(|pool| buffer.is_of(pool)) {
            return Ok(());
        }
        let what = "the buffer belongs to another set";
        Err(VdsError::new(CALL, set.session.set_name(), VdError::Invalid, what))
    }

    /// Whether an address lies in the set's buffer space.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn is_shared_buffer(&self, address: *const u8) -> Result<bool, VdsError> {
        let set = self.opened("IsSharedBuffer")?;
        Ok(set.pool.get().is_some_and(|pool| pool.is_shared(address)))
    }

    /// Aborts the set: every blocked call on both sides returns VD_E_ABORT.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn signal_abort(&self) -> Result<(), VdsError> {
        const CALL: &str = "SignalAbort";
        let set = self.step(CALL, Call::SignalAbort)?;
        trace::event!(DEBUG, call = CALL, set = set.session.set_name(), "abort signalled");
        set.session.abort(Cause::Signalled);
        Ok(())
    }

    /// Closes the set. The completion agent returns, and commands that are outstanding end with ERROR_OPERATION_ABORTED.
    ///
    /// # Errors
    /// VD_E_PROTOCOL when devices are open: the set was aborted, and is closed all the same; and without a set.
    pub fn close(&self) -> Result<(), VdsError> {
        const CALL: &str = "Close";
        let Some(set) = self.slot().take() else { return self.opened(CALL).map(drop) };
        let answer = set.step(Call::Close).map_err(|code| {
            let what = "devices were open, so the set was aborted; close each device first";
            VdsError::new(CALL, set.session.set_name(), code, what)
        });
        if answer.is_err() {
            set.session.abort(Cause::ClosedEarly);
        }
        set.closed.store(true, Ordering::Release);
        wait::ring(set.session.control().agent_doorbell());
        if set.session.abort_reason().is_some() && !set.has_ended() {
            // The agent does the same; whoever comes first. It comes never where the set is closed before it begins.
            set.tell_abort();
            set.devices.iter().for_each(|device| device.abort());
        }
        let member = set.member.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(member);
        trace::event!(DEBUG, call = CALL, set = set.session.set_name(), "set closed");
        answer
    }

    /// What this process knows of the set: for whoever wants to know why it was aborted, or by whom.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.slot().as_ref().map(|set| Arc::clone(&set.session))
    }

    /// The state, by the specification's table.
    #[must_use]
    pub fn state(&self) -> State {
        self.slot().as_ref().map_or(State::DoesNotExist, |set| set.state())
    }
}

impl Drop for ServerVirtualDeviceSet {
    fn drop(&mut self) {
        if self.slot().is_some() {
            // Nobody is left to hear that devices were open; the client hears it from the abort.
            let _ = self.close();
        }
    }
}

/// The rules of a request with an alignment of its own.
fn rules(config: &VdConfig, alignment: u32) -> BufferRules {
    let set = BufferRules::new(config);
    BufferRules { alignment: set.alignment.max(alignment), ..set }
}
