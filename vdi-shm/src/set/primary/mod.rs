//! The primary: the process that creates a set, owns it, and lets others join.
//!
//! A monitor thread serves the set's socket from Create to Close (`monitor.rs`).

mod monitor;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vdi_proto::abort::{AbortReason, Cause};
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::index::MemberIndex;
use vdi_proto::set::SetPhase;
use vdi_proto::wire::checksum::Checksums;

use self::monitor::{Monitor, Wake};
use super::buffers::BufferError;
use super::control::{ClientControl, Control};
use super::error::CreateError;
use super::mapped_buffer::MappedBuffer;
use super::name::SetName;
use super::session::{AbortNotifier, Founding, Session};
use crate::ipc::error::SystemError;
use crate::ipc::runtime::{ListenError, Options, RuntimeDir};

/// The most connections that have not sent Hello.
pub const MAX_PENDING: usize = 32;
/// How long a connection has to send Hello. Shorter than a joiner waits for its answer, so that a joiner in the socket's
/// queue is served in time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The stack of a monitor thread.
pub(crate) const MONITOR_STACK: usize = 256 * 1024;

/// Has the monitor thread report an abort to the members.
#[derive(Debug)]
struct ToMembers(Arc<Wake>);

impl AbortNotifier for ToMembers {
    fn notify(&self, _: AbortReason) {
        self.0.wake();
    }
}

/// A set, in the process that created it. Dropping it ends the set.
#[derive(Debug)]
pub struct Primary {
    session: Arc<Session>,
    admitting: Arc<AtomicBool>,
    wake: Arc<Wake>,
    monitor: Option<JoinHandle<()>>,
}

impl Primary {
    /// Create: makes a set that a server can find.
    ///
    /// # Errors
    /// [`CreateError`]: VD_E_NOTSUPPORTED, VD_E_PROTOCOL while a live set has this name, VD_E_INVALID and
    /// VD_E_INSTANCE_NAME for bad names, VD_E_SECURITY, VD_E_MEMORY, VD_E_UNEXPECTED.
    pub fn create(options: &Options, instance: &str, set: &str, requested: &VdConfig) -> Result<Primary, CreateError> {
        requested.validate_client()?;
        let name = SetName::new(instance, set)?;
        let runtime = RuntimeDir::open(options, true).map_err(CreateError::from)?;
        let listener = runtime.listen(name.socket(), &options.access).map_err(|error| match error {
            ListenError::InUse { path } => {
                CreateError::Exists { set: set.to_owned(), instance: instance.to_owned(), path }
            }
            ListenError::Untrusted(error) => error.into(),
            ListenError::System(error) => error.into(),
        })?;
        let mut secret = [0; 8];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| SystemError::new("get random numbers", errno))?;
        let founding = Founding { secret: u64::from_ne_bytes(secret), requested: *requested };
        let (control, segment) = Control::create(requested.device_count, Checksums::new(founding.secret))?;
        let session = Session::new(control, segment.identity(), name, MemberIndex::PRIMARY, founding);
        let wake = Wake::new()?;
        session.set_notifier(Box::new(ToMembers(Arc::clone(&wake))));
        let admitting = Arc::new(AtomicBool::new(false));
        let access = options.access.clone();
        let mut monitor =
            Monitor::new(Arc::clone(&session), access, Arc::clone(&admitting), segment, listener, Arc::clone(&wake));
        let monitor = std::thread::Builder::new()
            .name("vdi-monitor".to_owned())
            .stack_size(MONITOR_STACK)
            .spawn(move || {
                monitor.run();
                runtime.remove(monitor.into_listener());
            })
            .map_err(|error| SystemError::new("start the monitor thread", error))?;
        Ok(Primary { session, admitting, wake, monitor: Some(monitor) })
    }

    /// What this process knows of the set.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The control segment, as a client uses it.
    #[must_use]
    pub fn client_control(&self) -> ClientControl {
        ClientControl::new(Arc::clone(self.session.control()), self.session.member())
    }

    /// Lets secondaries join from now on. Called when the primary has got the configuration.
    pub fn admit_secondaries(&self) {
        self.admitting.store(true, Ordering::Release);
    }

    /// MapBufferHandle: see [`crate::set::buffers::ClientBuffers::map`].
    ///
    /// # Errors
    /// As there; VD_E_PROTOCOL before the set is configured.
    #[inline]
    pub fn map_buffer(&self, phase: SetPhase, handle: BufferHandle) -> Result<MappedBuffer, BufferError> {
        let buffers = self.session.buffers().ok_or(BufferError::NotOpen)?;
        Ok(MappedBuffer::new(buffers.map(phase, handle)?, None))
    }
}

impl Drop for Primary {
    /// Ends the set: cuts all links and frees its name. Aborts the set unless its work has ended.
    fn drop(&mut self) {
        if !self.session.work_has_ended() {
            self.session.abort(Cause::ClosedEarly);
        }
        self.wake.stop();
        if let Some(monitor) = self.monitor.take() {
            // A monitor that panicked has dropped its links, and nothing else is left to do.
            let _ = monitor.join();
        }
    }
}
