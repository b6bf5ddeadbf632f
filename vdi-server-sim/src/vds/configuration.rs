//! The configuration of a set and its buffers.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::handle::{HandleCodec, MAX_SLOT_BITS};
use vdi_proto::join::Agreement;
use vdi_proto::layout::BufferRules;
use vdi_proto::set::server::{self, Call};
use vdi_proto::status::VdError;
use vdi_shm::allocator::{BufferPool, ServerBuffer, area_len};
use vdi_shm::error::ShmError;
use vdi_shm::member::Member;

use super::error::VdsError;
use super::open_set::OpenSet;
use crate::trace;

/// How long the client has to map an area that is added after the configuration.
const LATE_AREA_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest alignment of a buffer.
const MAX_ALIGNMENT: u32 = 1 << 16;

/// The configuration of a set, and its buffers.
#[derive(Debug)]
pub(super) struct Configuration {
    set: Arc<OpenSet>,
    plan: Mutex<Plan>,
    /// Set by EndConfiguration.
    pool: OnceLock<Arc<BufferPool>>,
    /// The server's membership; `None` once the set is closed.
    member: Mutex<Option<Member>>,
}

/// What was configured so far.
#[derive(Debug, Default)]
struct Plan {
    config: Option<VdConfig>,
    timeout: Duration,
    requests: Vec<BufferRequest>,
    areas: u32,
    /// Bytes of all areas.
    bytes: u64,
}

/// RequestBuffers during the configuration.
#[derive(Debug, Clone, Copy)]
struct BufferRequest {
    size: u32,
    alignment: u32,
    count: u32,
}

impl BufferRequest {
    /// Bytes of area that the buffers take.
    fn area_len(self, config: &VdConfig) -> Option<u64> {
        let rules = BufferRules::new(config);
        let rules = BufferRules { alignment: rules.alignment.max(self.alignment), ..rules };
        area_len(self.size, self.count, &rules)
    }
}

impl Configuration {
    pub(super) fn new(set: &Arc<OpenSet>, member: Member) -> Configuration {
        Configuration {
            set: Arc::clone(set),
            plan: Mutex::default(),
            pool: OnceLock::new(),
            member: Mutex::new(Some(member)),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self) -> MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shm_error(&self, call: &'static str, error: ShmError) -> VdsError {
        VdsError::from_shm(call, self.set.session.set_name(), error)
    }

    /// The buffers, once EndConfiguration has succeeded.
    pub(super) fn pool(&self) -> Option<&Arc<BufferPool>> {
        self.pool.get()
    }

    /// Ends the membership.
    pub(super) fn leave(&self) {
        let member = self.member().take();
        drop(member);
    }

    /// What the client requested, then what is being configured, then what was negotiated.
    pub(super) fn current(&self) -> VdConfig {
        let planned = self.plan().config;
        self.set.negotiated().copied().or(planned).unwrap_or(*self.set.session.asked())
    }

    pub(super) fn begin(
        &self,
        call: &'static str,
        terms: &ServerTerms,
        timeout: Duration,
    ) -> Result<VdConfig, VdsError> {
        let set = &self.set;
        let config = terms.negotiate(set.session.asked());
        // A call out of turn is refused before terms out of range.
        server::step(set.state(), Call::BeginConfiguration).answer.map_err(|code| set.error(call, code))?;
        let config = config.map_err(|error| self.shm_error(call, error.into()))?;
        set.step(Call::BeginConfiguration).map_err(|code| set.error(call, code))?;
        let mut plan = self.plan();
        plan.config = Some(config);
        plan.timeout = timeout;
        trace::event!(
            DEBUG,
            call = call,
            set = set.session.set_name(),
            features = %config.features,
            block_size = config.block_size,
            max_transfer_size = config.max_transfer_size,
            alignment = config.alignment,
            "configuration begun"
        );
        Ok(config)
    }

    pub(super) fn request(&self, call: &'static str, size: u32, alignment: u32, count: u32) -> Result<(), VdsError> {
        if size == 0 || count == 0 || !is_alignment(alignment) {
            let what = format!("{count} buffers of {size} bytes aligned to {alignment} cannot be had");
            return Err(self.set.error_with(call, VdError::Invalid, what));
        }
        let request = BufferRequest { size, alignment, count };
        let mut plan = self.plan();
        let Some(pool) = self.pool.get() else {
            plan.requests.push(request);
            return Ok(());
        };
        let Some(config) = plan.config else { return Err(self.set.error(call, VdError::Protocol)) };
        let len = request.area_len(&config).ok_or_else(|| self.set.error(call, VdError::Memory))?;
        self.grow(pool, &mut plan, len, LATE_AREA_TIMEOUT).map_err(|error| self.shm_error(call, error))
    }

    /// Adds an area of `len` bytes, with the client's consent.
    fn grow(&self, pool: &BufferPool, plan: &mut Plan, len: u64, timeout: Duration) -> Result<(), ShmError> {
        // A set's buffer space is counted in 32 bits.
        let limit = u64::from(u32::MAX);
        let bytes = plan.bytes.checked_add(len).filter(|bytes| *bytes <= limit);
        let bytes = bytes.ok_or(ShmError::Exhausted { what: "bytes of buffer space", limit })?;
        match &*self.member() {
            Some(member) => member.add_area(plan.areas, len.next_multiple_of(4096), timeout)?,
            None => return Err(ShmError::Timeout { step: "a set that is closed" }),
        }
        if let Some(mapping) = self.set.session.areas().get(plan.areas) {
            pool.add_area(mapping);
        }
        plan.areas += 1;
        plan.bytes = bytes;
        Ok(())
    }

    pub(super) fn end(&self, call: &'static str) -> Result<VdConfig, VdsError> {
        let set = &self.set;
        // One thread at a time ends the configuration, and checks the state under the lock.
        let mut plan = self.plan();
        server::step(set.state(), Call::EndConfiguration { memory: true })
            .answer
            .map_err(|code| set.error(call, code))?;
        let Some(mut config) = plan.config else { return Err(set.error(call, VdError::Protocol)) };
        let requests = core::mem::take(&mut plan.requests);
        let buffers: u64 = requests.iter().map(|request| u64::from(request.count)).sum();
        let total = self.total_len(call, &requests, &config)?;
        config.buffer_area_size = total;
        // Twice the requested buffers leaves room for later requests.
        let slot_bits = HandleCodec::slot_bits_for((buffers as u32).saturating_mul(2));
        let (control, areas) = (Arc::clone(set.session.control()), Arc::clone(set.session.areas()));
        let pool = BufferPool::new(control, areas, BufferRules::new(&config), slot_bits);
        let timeout = plan.timeout;
        if total > 0 {
            self.grow(&pool, &mut plan, total.into(), timeout).map_err(|error| match error.code() {
                VdError::Memory => self.no_memory(call, error.to_string()),
                _ => self.shm_error(call, error),
            })?;
        }
        if let Some(member) = &*self.member() {
            let agreement = Agreement { config, slot_bits };
            member.configure(agreement, timeout).map_err(|error| self.shm_error(call, error))?;
        }
        plan.config = Some(config);
        // Only EndConfiguration sets it, and the table lets it succeed once.
        let _ = self.pool.set(pool);
        set.step(Call::EndConfiguration { memory: true }).map_err(|code| set.error(call, code))?;
        trace::event!(
            DEBUG,
            call = call,
            set = set.session.set_name(),
            buffers = buffers,
            buffer_area_size = config.buffer_area_size,
            "configuration ended"
        );
        Ok(config)
    }

    /// Bytes of area that all requests take together.
    fn total_len(&self, call: &'static str, requests: &[BufferRequest], config: &VdConfig) -> Result<u32, VdsError> {
        let total = requests.iter().try_fold(0u64, |total, request| total.checked_add(request.area_len(config)?));
        let buffers: u64 = requests.iter().map(|request| u64::from(request.count)).sum();
        match total.and_then(|total| u32::try_from(total).ok()) {
            Some(total) if buffers <= 1 << MAX_SLOT_BITS => Ok(total),
            _ => Err(self.no_memory(
                call,
                format!(
                    "{buffers} buffers of {total:?} bytes in all are more than the {} buffers and 4 GiB that a set can \
                     have; request less",
                    1 << MAX_SLOT_BITS
                ),
            )),
        }
    }

    /// EndConfiguration fails: the set stays in configuration.
    fn no_memory(&self, call: &'static str, what: String) -> VdsError {
        let code = self.set.step(Call::EndConfiguration { memory: false }).err().unwrap_or(VdError::Memory);
        self.set.error_with(call, code, what)
    }

    pub(super) fn allocate(&self, call: &'static str, size: u32, alignment: u32) -> Result<ServerBuffer, VdsError> {
        if size == 0 || !is_alignment(alignment) {
            return Err(self.set.error_with(call, VdError::Invalid, format!("{size} bytes aligned to {alignment}")));
        }
        let pool = self.pool.get().ok_or_else(|| self.set.error(call, VdError::Protocol))?;
        pool.allocate(size, alignment).map_err(|error| self.shm_error(call, error))
    }
}

/// Whether an alignment may be requested: 0, which stands for the set's, or a power of two up to 64 KiB.
fn is_alignment(alignment: u32) -> bool {
    alignment == 0 || alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT
}
