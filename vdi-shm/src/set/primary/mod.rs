//! The primary: the process that creates a set, owns it, and lets others join.
//!
//! A monitor thread serves the set's socket from Create to Close (`monitor.rs`).

mod monitor;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vdi_proto::abort::Cause;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::index::MemberIndex;
use vdi_proto::set::SetPhase;
use vdi_proto::wire::checksum::Checksums;

use self::monitor::{Monitor, Wake};
use super::abort::Abort;
use super::buffers::BufferError;
use super::claim::Claim;
use super::control::{ClientControl, Control};
use super::error::CreateError;
use super::mapped_buffer::MappedBuffer;
use super::name::SetName;
use super::session::{AbortNotifier, Founding, MONITOR_STACK, Session};
use crate::ipc::error::SystemError;
use crate::ipc::runtime::{ListenError, Listener, Options, RuntimeDir};
use crate::ipc::wait;

/// The most connections that have not sent Hello.
pub const MAX_PENDING: usize = 32;
/// How long a connection has to send Hello. Shorter than a joiner waits for its answer, so that a joiner in the socket's
/// queue is served in time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest wait for a turn of the monitor thread, which never waits itself.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// The set's socket. Dropping it removes the socket, also when creating the set fails half way.
#[derive(Debug)]
struct SetSocket {
    runtime: RuntimeDir,
    /// `None` once it is removed.
    listener: Option<Listener>,
}

impl SetSocket {
    fn bind(options: &Options, name: &SetName) -> Result<SetSocket, CreateError> {
        let runtime = RuntimeDir::open(options, true)?;
        let listener = runtime.listen(name.socket(), &options.access).map_err(|error| match error {
            ListenError::InUse { path } => {
                CreateError::Exists { set: name.set().to_owned(), instance: name.instance().to_owned(), path }
            }
            ListenError::Untrusted(error) => error.into(),
            ListenError::System(error) => error.into(),
        })?;
        Ok(SetSocket { runtime, listener: Some(listener) })
    }
}

impl Drop for SetSocket {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.runtime.remove(listener);
        }
    }
}

/// Has the monitor thread report an abort to the members.
#[derive(Debug)]
struct ToMembers(Arc<Wake>);

impl AbortNotifier for ToMembers {
    fn notify(&self, _: &Abort) {
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
        let socket = SetSocket::bind(options, &name)?;
        let mut secret = [0; 8];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| SystemError::new("get random numbers", errno))?;
        let founding = Founding { secret: u64::from_ne_bytes(secret), requested: *requested };
        let (control, segment) = Control::create(requested.device_count, Checksums::new(founding.secret))?;
        // Memory that was just made belongs to no set.
        let memory = Claim::control(segment.identity())
            .ok_or_else(|| SystemError::new("claim new memory", rustix::io::Errno::EXIST))?;
        let path = socket.runtime.path_of(name.socket());
        let session = Session::new(control, memory, name, path, MemberIndex::PRIMARY, founding);
        let wake = Wake::new()?;
        session.set_notifier(Box::new(ToMembers(Arc::clone(&wake))));
        let admitting = Arc::new(AtomicBool::new(false));
        let access = options.access.clone();
        let mut monitor =
            Monitor::new(Arc::clone(&session), access, Arc::clone(&admitting), segment, socket, Arc::clone(&wake));
        let monitor = std::thread::Builder::new()
            .name("vdi-monitor".to_owned())
            .stack_size(MONITOR_STACK)
            .spawn(move || monitor.run())
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

    /// Waits until the monitor thread has processed what happened to the links before this call: a process that died before
    /// is gone, and its devices count as closed if the work had ended.
    pub fn process_links(&self) {
        let request = self.wake.request_turn();
        let turned = || self.wake.has_turned(request).then_some(());
        let alive = self.monitor.as_ref().is_some_and(|monitor| !monitor.is_finished());
        if alive {
            wait::wait_until(self.session.control().set_event(), wait::deadline(TURN_TIMEOUT), turned);
        }
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
