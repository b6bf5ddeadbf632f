//! Sets in this library's own shared memory.
//!
//! | file | what it holds |
//! |---|---|
//! | `attachment` | a set that this process created or joined |
//! | `device` | getting commands |
//! | `command` | completing them |
//! | `errors` | the errors of `vdi_shm` for the calls of this library |

mod attachment;
mod command;
mod device;
mod errors;

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::name::check_name;
use vdi_proto::set::client::{Call, State};
use vdi_proto::status::VdError;
pub use vdi_shm::ipc::runtime::{Access, Options};
use vdi_shm::ipc::{event_count::EventCount, wait};
use vdi_shm::set::primary::Primary;
use vdi_shm::set::secondary::Secondary;

use self::attachment::{Attachment, Membership};
pub(crate) use self::command::HeldCommand;
pub(crate) use self::device::{Device, DeviceRef};
use crate::error::{Error, ErrorKind};

/// A buffer mapped by its handle, with a lease on it.
pub(crate) type MappedBuffer = vdi_shm::set::mapped_buffer::MappedBuffer;
/// What ends the waits of this process.
pub(crate) type Waits = Arc<vdi_shm::set::session::Session>;

/// A set object.
#[derive(Debug)]
pub(crate) struct Set {
    options: Options,
    attachment: RwLock<Option<Arc<Attachment>>>,
}

impl Set {
    pub(crate) fn new(options: Options) -> Set {
        Set { options, attachment: RwLock::default() }
    }

    fn slot(&self) -> RwLockWriteGuard<'_, Option<Arc<Attachment>>> {
        // The option is whole at every moment.
        self.attachment.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something short with the set.
    #[inline]
    fn with<T>(&self, call: &'static str, work: impl FnOnce(&Arc<Attachment>) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.attachment.read().unwrap_or_else(PoisonError::into_inner) {
            Some(attachment) => work(attachment),
            None => Err(Error::without_set(call)),
        }
    }

    /// The set, for calls that wait.
    fn attached(&self, call: &'static str) -> Result<Arc<Attachment>, Error> {
        self.with(call, |attachment| Ok(Arc::clone(attachment)))
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.with("name", |attachment| Ok(attachment.set_name().to_owned())).ok()
    }

    pub(crate) fn state(&self) -> State {
        self.with("state", |attachment| Ok(attachment.state())).unwrap_or(State::DoesNotExist)
    }

    pub(crate) fn create(
        &self,
        call: &'static str,
        instance: Option<&str>,
        name: &str,
        config: &VdConfig,
    ) -> Result<(), Error> {
        let mut slot = self.slot();
        if let Some(attachment) = &*slot {
            return attachment.step(call, Call::Create);
        }
        let primary = Primary::create(&self.options, instance.unwrap_or(""), name, config)
            .map_err(|error| Error::lower(call, name, error))?;
        *slot = Some(Attachment::new(Membership::Primary(primary), State::Configurable));
        Ok(())
    }

    pub(crate) fn join(&self, call: &'static str, instance: Option<&str>, name: &str) -> Result<Option<u32>, Error> {
        let mut slot = self.slot();
        if let Some(attachment) = &*slot {
            return attachment.step(call, Call::OpenInSecondary).map(|()| None);
        }
        let secondary = Secondary::join(&self.options, instance.unwrap_or(""), name).map_err(|error| {
            let error = Error::lower(call, name, error);
            // A set that does not exist was "not created": VD_E_PROTOCOL for a secondary.
            let no_such_set = error.code() == VdError::Invalid && check_name(name).is_ok();
            if no_such_set { error.with_code(VdError::Protocol) } else { error }
        })?;
        let number = secondary.session().member().get();
        *slot = Some(Attachment::new(Membership::Secondary(secondary), State::Initializing));
        Ok(Some(number))
    }

    pub(crate) fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        const CALL: &str = "GetConfiguration";
        let attachment = self.attached(CALL)?;
        let deadline = wait::deadline(timeout);
        let outcome = attachment.wait(CALL, deadline, || Ok(attachment.config()));
        let config = outcome?.ok_or_else(|| {
            let what = format!(
                "no server configured the set within {timeout:?}; check that the statement was sent, names this set in \
                 its first VIRTUAL_DEVICE, and did not fail"
            );
            attachment.error(ErrorKind::NotYet, VdError::Timeout, CALL, what)
        })?;
        attachment.step(CALL, Call::GetConfiguration)?;
        attachment.admit_secondaries();
        Ok(config)
    }

    pub(crate) fn open_device(&self, name: &str) -> Result<Device, Error> {
        const CALL: &str = "OpenDevice";
        let attachment = self.attached(CALL)?;
        let opened = Device::open(attachment, CALL, name);
        opened.map_err(|error| error.of_device(name))
    }

    #[inline]
    pub(crate) fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        self.with("GetBufferHandle", |attachment| {
            attachment.with_buffers("GetBufferHandle", |buffers, phase| buffers.get_handle(phase, address))
        })
    }

    #[inline]
    pub(crate) fn map_buffer_handle(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        const CALL: &str = "MapBufferHandle";
        self.with(CALL, |attachment| {
            let mut buffer = attachment.map_buffer(CALL, handle)?;
            if let Some(bytes) = bytes {
                if bytes > buffer.len() {
                    let what = format!("{bytes} bytes of a buffer that has {}: ask the command's holder", buffer.len());
                    return Err(attachment.error(ErrorKind::Misuse, VdError::Invalid, CALL, what));
                }
                buffer.truncate(bytes);
            }
            Ok(buffer)
        })
    }

    #[inline]
    pub(crate) fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        self.with("MapBufferHandle", |attachment| {
            attachment.with_buffers("MapBufferHandle", |buffers, phase| buffers.map_address(phase, handle))
        })
    }

    pub(crate) fn signal_abort(&self) -> Result<(), Error> {
        const CALL: &str = "SignalAbort";
        let attachment = self.attached(CALL)?;
        attachment.step(CALL, Call::SignalAbort)?;
        attachment.abort(vdi_proto::abort::Cause::Signalled);
        Ok(())
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        const CALL: &str = "Close";
        let attachment = self.slot().take().ok_or_else(|| Error::without_set(CALL))?;
        attachment.close(CALL)
    }

    pub(crate) fn canceller(&self) -> Result<Waits, Error> {
        self.with("canceller", |attachment| Ok(Arc::clone(attachment.session())))
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // The program hears no more that devices were open; the other processes hear it from the abort.
        let _ = self.close();
    }
}

/// Waits until `ready` gives something; `None` when `deadline` has passed. `window` is how long each part of the wait spins.
fn wait_for<T>(
    event: &EventCount,
    window: Duration,
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        let found = wait::wait_once(event, window, deadline, &mut ready);
        if found.is_some() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return found;
        }
    }
}
