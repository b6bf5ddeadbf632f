//! A secondary: a client process that joined a set that another process created.

use std::sync::Arc;

use vdi_proto::handle::BufferHandle;
use vdi_proto::set::SetPhase;
use vdi_proto::wire::join::JoinRole;

use super::buffers::BufferError;
use super::control::ClientControl;
use super::error::JoinError;
use super::mapped_buffer::MappedBuffer;
use super::membership::Membership;
use super::session::Session;
use crate::ipc::runtime::Options;

/// A set, in a client process that joined it. Dropping it leaves the set, once the last mapped buffer is dropped.
#[derive(Debug)]
pub struct Secondary {
    membership: Arc<Membership>,
}

impl Secondary {
    /// OpenInSecondary: joins a set by its name.
    ///
    /// # Errors
    /// [`JoinError`]: VD_E_INVALID when there is no such set, VD_E_PROTOCOL before the primary has the configuration and
    /// after the end of the work, VD_E_SECURITY, VD_E_ABORT, VD_E_MEMORY, VD_E_TIMEOUT, VD_E_UNEXPECTED.
    pub fn join(options: &Options, instance: &str, set: &str) -> Result<Secondary, JoinError> {
        let membership = Membership::join(options, JoinRole::Secondary, instance, set)?;
        Ok(Secondary { membership: Arc::new(membership) })
    }

    /// What this process knows of the set.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        self.membership.session()
    }

    /// The control segment, as a client uses it.
    #[must_use]
    pub fn client_control(&self) -> ClientControl {
        ClientControl::new(Arc::clone(self.session().control()), self.session().member())
    }

    /// MapBufferHandle: see [`crate::set::buffers::ClientBuffers::map`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn map_buffer(&self, phase: SetPhase, handle: BufferHandle) -> Result<MappedBuffer, BufferError> {
        let buffers = self.session().buffers().ok_or(BufferError::NotOpen)?;
        Ok(MappedBuffer::new(buffers.map(phase, handle)?, Some(Arc::clone(&self.membership))))
    }
}
