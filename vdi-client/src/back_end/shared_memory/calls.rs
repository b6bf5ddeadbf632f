//! The calls of a set.

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::Arc;

use vdi_proto::abort::Cause;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::set::client::Call;
use vdi_proto::status::VdError;
use vdi_shm::ipc::wait;
use vdi_shm::set::mapped_buffer::MappedBuffer;

use super::attachment::Attachment;
use super::device::Device;
use crate::error::{Error, ErrorKind, show_duration};

impl Attachment {
    pub(crate) fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        const CALL: &str = "GetConfiguration";
        let config = self
            .wait(CALL, wait::deadline(timeout), || Ok(self.config()))?
            .ok_or_else(|| self.error(ErrorKind::NotYet, VdError::Timeout, CALL, self.no_configuration(timeout)))?;
        self.step(CALL, Call::GetConfiguration)?;
        self.admit_secondaries();
        Ok(config)
    }

    pub(crate) fn open_device(self: &Arc<Self>, name: &str) -> Result<Device, Error> {
        Device::open(Arc::clone(self), "OpenDevice", name).map_err(|error| error.of_device(name))
    }

    #[inline]
    pub(crate) fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        self.with_buffers("GetBufferHandle", |buffers, phase| buffers.get_handle(phase, address))
    }

    #[inline]
    pub(crate) fn map_buffer_handle(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        const CALL: &str = "MapBufferHandle";
        let mut buffer = self.map_buffer(CALL, handle)?;
        if let Some(bytes) = bytes {
            if bytes > buffer.len() {
                let what = format!("{bytes} bytes of a buffer that has {}: ask the command's holder", buffer.len());
                return Err(self.error(ErrorKind::Misuse, VdError::Invalid, CALL, what));
            }
            buffer.truncate(bytes);
        }
        Ok(buffer)
    }

    #[inline]
    pub(crate) fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        self.with_buffers("MapBufferHandle", |buffers, phase| buffers.map_address(phase, handle))
    }

    pub(crate) fn signal_abort(&self) -> Result<(), Error> {
        self.step("SignalAbort", Call::SignalAbort)?;
        self.abort(Cause::Signalled);
        Ok(())
    }

    pub(crate) fn signal_abort_because(&self, code: CompletionCode, reason: &str) -> Result<(), Error> {
        self.step("SignalAbort", Call::SignalAbort)?;
        self.give_up(code, reason);
        Ok(())
    }

    /// Where GetConfiguration waited, what came meanwhile, and what to look for.
    fn no_configuration(&self, timeout: Duration) -> String {
        let (session, joiners) = (self.session(), self.session().joiners());
        let (waited, path, user) =
            (show_duration(timeout), session.socket_path().display(), rustix::process::geteuid().as_raw());
        let instance = match session.name().instance() {
            "" => "the default instance".to_owned(),
            instance => format!("instance {instance:?}"),
        };
        let look = match joiners.server() {
            // It came to the right place.
            Some(_) => "look at the messages of the statement and at what its server waits for",
            None => {
                "check that the statement was sent and did not fail, that its first VIRTUAL_DEVICE is this name (letter case \
                 counts) and its instance this one, that the server looks in the same directory (VDI_RUNTIME_DIR, else \
                 XDG_RUNTIME_DIR, else TMPDIR, as each side has them), and that each side allows the other where they run as \
                 different users (VDI_ALLOW_UID)"
            }
        };
        format!(
            "no server configured the set within {waited}; it waits at {path} ({instance}, uid {user}); {joiners}; {look}"
        )
    }

    pub(crate) fn cancel(&self) {
        self.session().cancel();
    }

    pub(crate) fn resume(&self) {
        self.session().resume();
    }
}
