//! The configuration of a set and its buffers.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::index::MAX_SLOTS;
use vdi_proto::set::server::{self, Call};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::{ClassSpec, MAX_ALIGNMENT};
use vdi_shm::set::error::RequestError;
use vdi_shm::set::pool::{BufferPool, ServerBuffer};
use vdi_shm::set::server::Server;

use super::error::VdsError;
use super::open_set::OpenSet;
use crate::trace;

/// How long the client has to map a class that is added after the configuration.
const LATE_CLASS_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration of a set, and its buffers.
#[derive(Debug)]
pub(super) struct Configuration {
    set: Arc<OpenSet>,
    plan: Mutex<Plan>,
    /// Set by EndConfiguration.
    pool: OnceLock<Arc<BufferPool>>,
    /// The server's membership in the set; `None` once the set is closed.
    server: Mutex<Option<Server>>,
}

/// The configuration so far.
#[derive(Debug, Default)]
struct Plan {
    config: Option<VdConfig>,
    timeout: Duration,
    /// The classes requested by RequestBuffers: one class for all buffers of one size and alignment.
    requests: Vec<ClassSpec>,
    /// Number of buffers in the classes that exist.
    buffers: u32,
    /// Bytes of the areas of those classes.
    bytes: u64,
}

impl Plan {
    /// The number of buffers and bytes of the set with these classes added. `None` if that exceeds the limits of a set.
    fn with(&self, specs: &[ClassSpec], prefix: u32) -> Option<(u32, u64)> {
        let (mut buffers, mut bytes) = (self.buffers, self.bytes);
        for spec in specs {
            let class = spec.lay_out(prefix, buffers).ok()?;
            buffers = class.slots().end;
            bytes += class.area_len();
        }
        // A set's buffer space is counted in 32 bits.
        (bytes <= u64::from(u32::MAX)).then_some((buffers, bytes))
    }
}

impl Configuration {
    pub(super) fn new(set: &Arc<OpenSet>, server: Server) -> Configuration {
        Configuration {
            set: Arc::clone(set),
            plan: Mutex::default(),
            pool: OnceLock::new(),
            server: Mutex::new(Some(server)),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lower_error(&self, call: &'static str, code: VdError, error: impl Error + Send + Sync + 'static) -> VdsError {
        VdsError::lower(call, self.set.session.set_name(), code, error)
    }

    fn request_error(&self, call: &'static str, error: RequestError) -> VdsError {
        self.lower_error(call, error.code(), error)
    }

    /// The buffers, once EndConfiguration has succeeded.
    pub(super) fn pool(&self) -> Option<&Arc<BufferPool>> {
        self.pool.get()
    }

    /// Ends the server's membership in the set.
    pub(super) fn leave(&self) {
        let server = self.server().take();
        drop(server);
    }

    /// The requested configuration before BeginConfiguration, then the configuration so far, then the negotiated one.
    pub(super) fn current(&self) -> VdConfig {
        let planned = self.plan().config;
        self.set.negotiated().copied().or(planned).unwrap_or(*self.set.session.requested())
    }

    pub(super) fn begin(
        &self,
        call: &'static str,
        terms: &ServerTerms,
        timeout: Duration,
    ) -> Result<VdConfig, VdsError> {
        let set = &self.set;
        let config = terms.negotiate(set.session.requested());
        // The state is checked before the terms, so a call in a wrong state returns VD_E_PROTOCOL.
        server::step(set.state(), Call::BeginConfiguration).answer.map_err(|code| set.error(call, code))?;
        let config = config.map_err(|error| self.lower_error(call, error.code(), error))?;
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
        let mut plan = self.plan();
        let Some(config) = plan.config else { return Err(self.set.error(call, VdError::Protocol)) };
        let spec = ClassSpec { buffer_len: size, alignment: config.alignment.max(alignment), count };
        if self.pool.get().is_some() {
            let late = [spec];
            let (buffers, bytes) =
                plan.with(&late, config.prefix_zone_size).ok_or_else(|| self.set.error(call, VdError::Memory))?;
            self.add_classes(&late, LATE_CLASS_TIMEOUT).map_err(|error| self.request_error(call, error))?;
            (plan.buffers, plan.bytes) = (buffers, bytes);
            return Ok(());
        }
        let is_same = |other: &&mut ClassSpec| (other.buffer_len, other.alignment) == (spec.buffer_len, spec.alignment);
        match plan.requests.iter_mut().find(is_same) {
            Some(same) => same.count = same.count.saturating_add(count),
            None => plan.requests.push(spec),
        }
        Ok(())
    }

    /// Adds classes. Returns when the client has mapped them.
    fn add_classes(&self, specs: &[ClassSpec], timeout: Duration) -> Result<(), RequestError> {
        match &*self.server() {
            Some(server) => server.add_classes(specs, timeout),
            None => Err(RequestError::Timeout { step: "a set that is closed" }),
        }
    }

    pub(super) fn end(&self, call: &'static str) -> Result<VdConfig, VdsError> {
        let set = &self.set;
        // The lock lets one thread at a time check the state and end the configuration.
        let mut plan = self.plan();
        server::step(set.state(), Call::EndConfiguration { memory: true })
            .answer
            .map_err(|code| set.error(call, code))?;
        let Some(mut config) = plan.config else { return Err(set.error(call, VdError::Protocol)) };
        let (requests, timeout) = (core::mem::take(&mut plan.requests), plan.timeout);
        let Some((buffers, bytes)) = plan.with(&requests, config.prefix_zone_size) else {
            let requested: u64 = requests.iter().map(|spec| u64::from(spec.count)).sum();
            let what = format!(
                "{requested} buffers are more than the {MAX_SLOTS} buffers and 4 GiB that a set can have; request less"
            );
            return Err(self.no_memory(call, what));
        };
        self.add_classes(&requests, timeout).map_err(|error| match error.code() {
            VdError::Memory => self.no_memory(call, error.to_string()),
            _ => self.request_error(call, error),
        })?;
        (plan.buffers, plan.bytes) = (buffers, bytes);
        // `Plan::with` limits `bytes` to 32 bits.
        config.buffer_area_size = bytes as u32;
        if let Some(server) = &*self.server() {
            server.configure(config, timeout).map_err(|error| self.request_error(call, error))?;
            // Cannot fail: only EndConfiguration sets it, and EndConfiguration succeeds once.
            let _ = self.pool.set(Arc::clone(server.pool()));
        }
        plan.config = Some(config);
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

    /// The error of an EndConfiguration that lacks memory. The set stays in configuration.
    fn no_memory(&self, call: &'static str, what: String) -> VdsError {
        let code = self.set.step(Call::EndConfiguration { memory: false }).err().unwrap_or(VdError::Memory);
        self.set.error_with(call, code, what)
    }

    pub(super) fn available(&self, call: &'static str, size: u32, alignment: u32) -> Result<u32, VdsError> {
        if !is_alignment(alignment) {
            return Err(self.set.error_with(call, VdError::Invalid, format!("{size} bytes aligned to {alignment}")));
        }
        Ok(self.pool().map_or(0, |pool| pool.available(size, alignment)))
    }

    pub(super) fn allocate(&self, call: &'static str, size: u32, alignment: u32) -> Result<ServerBuffer, VdsError> {
        if size == 0 || !is_alignment(alignment) {
            return Err(self.set.error_with(call, VdError::Invalid, format!("{size} bytes aligned to {alignment}")));
        }
        let pool = self.pool.get().ok_or_else(|| self.set.error(call, VdError::Protocol))?;
        pool.allocate(size, alignment).map_err(|error| self.lower_error(call, error.code(), error))
    }
}

/// Whether an alignment is valid: 0, which stands for the set's alignment, or a power of two up to 64 KiB.
fn is_alignment(alignment: u32) -> bool {
    alignment == 0 || alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT
}
