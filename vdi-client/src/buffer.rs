//! Buffers mapped by their handles, of whichever back end.

use core::ptr::NonNull;

use vdi_proto::handle::BufferHandle;
use vdi_shm::area;

#[cfg(feature = "sqlserver")]
use crate::sqlserver;

/// A buffer that another process's command holds, mapped by its handle: a lease. Until it is dropped the command cannot be
/// completed (VD_E_BUSY).
///
/// With [`crate::BackEnd::SqlServer`] there are no leases: nothing keeps the command from being completed while this is
/// there. Drop it before the holder of the command is told to complete it, as on any back end.
#[derive(Debug)]
pub struct MappedBuffer {
    inner: Inner,
    /// How many bytes of it are shown.
    bytes: usize,
}

#[derive(Debug)]
enum Inner {
    Own(area::MappedBuffer),
    #[cfg(feature = "sqlserver")]
    SqlServer(sqlserver::Buffer, BufferHandle),
}

impl MappedBuffer {
    /// The first `bytes` of a buffer, which has as many.
    #[inline]
    pub(crate) fn own(buffer: area::MappedBuffer, bytes: usize) -> Self {
        MappedBuffer { inner: Inner::Own(buffer), bytes }
    }

    #[cfg(feature = "sqlserver")]
    pub(crate) fn of_vendor(buffer: sqlserver::Buffer, handle: BufferHandle) -> Self {
        MappedBuffer { bytes: buffer.data().len(), inner: Inner::SqlServer(buffer, handle) }
    }

    /// The bytes of the buffer: as many as [`crate::ClientVirtualDeviceSet::map_buffer_handle_sized`] was told, else all of
    /// them; the command may have fewer, which its holder knows.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let data = match &self.inner {
            Inner::Own(buffer) => buffer.data(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(buffer, _) => buffer.data(),
        };
        &data[..self.bytes]
    }

    /// The same bytes, to be changed or filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let data = match &mut self.inner {
            Inner::Own(buffer) => buffer.data_mut(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(buffer, _) => buffer.data_mut(),
        };
        &mut data[..self.bytes]
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        match &mut self.inner {
            Inner::Own(buffer) => buffer.prefix_mut(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(buffer, _) => buffer.prefix_mut(),
        }
    }

    /// The address of the data start in this process.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        match &self.inner {
            Inner::Own(buffer) => buffer.address(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(buffer, _) => buffer.address(),
        }
    }

    /// The handle that it was mapped by.
    #[must_use]
    pub fn handle(&self) -> BufferHandle {
        match &self.inner {
            Inner::Own(buffer) => buffer.handle(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(_, handle) => *handle,
        }
    }
}
