//! Buffers mapped by their handles.

use core::ptr::NonNull;

use vdi_proto::handle::BufferHandle;

use crate::back_end;

/// A buffer that a command of another process holds, mapped by its handle: a lease. Until it is dropped the command cannot be
/// completed (VD_E_BUSY).
///
/// With [`crate::BackEnd::SqlServer`] there are no leases: nothing keeps the command from being completed while the buffer is
/// mapped. Drop it before the holder of the command is told to complete it, as on any back end.
#[derive(Debug)]
pub struct MappedBuffer(back_end::MappedBuffer);

impl MappedBuffer {
    #[inline]
    pub(crate) fn new(buffer: back_end::MappedBuffer) -> Self {
        MappedBuffer(buffer)
    }

    /// The bytes of the buffer: as many as [`crate::ClientVirtualDeviceSet::map_buffer_handle_sized`] was told, else all of
    /// them. The command may have fewer, which its holder knows.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.0.data()
    }

    /// The same bytes, to be changed or filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.0.prefix_mut()
    }

    /// The address of the data start in this process.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.0.address()
    }

    /// The handle that it was mapped by.
    #[must_use]
    pub fn handle(&self) -> BufferHandle {
        self.0.handle()
    }
}
