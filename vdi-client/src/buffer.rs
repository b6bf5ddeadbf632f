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
pub struct MappedBuffer(Inner);

#[derive(Debug)]
enum Inner {
    Own(area::MappedBuffer),
    #[cfg(feature = "sqlserver")]
    SqlServer(Box<(sqlserver::Buffer, BufferHandle)>),
}

impl MappedBuffer {
    #[inline]
    pub(crate) fn own(buffer: area::MappedBuffer) -> Self {
        MappedBuffer(Inner::Own(buffer))
    }

    #[cfg(feature = "sqlserver")]
    pub(crate) fn of_vendor(buffer: sqlserver::Buffer, handle: BufferHandle) -> Self {
        MappedBuffer(Inner::SqlServer(Box::new((buffer, handle))))
    }

    /// The bytes of the buffer: as many as [`crate::ClientVirtualDeviceSet::map_buffer_handle_sized`] was told, else all of
    /// them; the command may have fewer, which its holder knows.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.0 {
            Inner::Own(buffer) => buffer.data(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(vendor) => vendor.0.data(),
        }
    }

    /// The same bytes, to be changed or filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Inner::Own(buffer) => buffer.data_mut(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(vendor) => vendor.0.data_mut(),
        }
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Inner::Own(buffer) => buffer.prefix_mut(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(vendor) => vendor.0.prefix_mut(),
        }
    }

    /// The address of the data start in this process.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        match &self.0 {
            Inner::Own(buffer) => buffer.address(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(vendor) => vendor.0.address(),
        }
    }

    /// The handle that it was mapped by.
    #[must_use]
    pub fn handle(&self) -> BufferHandle {
        match &self.0 {
            Inner::Own(buffer) => buffer.handle(),
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer(vendor) => vendor.1,
        }
    }
}
