//! Buffer handles and leases, for C.

use core::ffi::c_void;

use vdi_client::{BufferHandle, MappedBuffer};

use crate::boundary::{Out, call};
use crate::registry::Registry;
use crate::set::SETS;
use crate::types::{MappedHandle, SetHandle};

/// A buffer that is mapped. Its bytes are reached through these numbers only, so that no reference to memory that the
/// program writes to exists here.
struct Mapped {
    address: *mut u8,
    bytes: u64,
    /// Holds the lease, and the memory.
    _buffer: MappedBuffer,
}

// SAFETY: the pointer is only ever handed to the program, never followed here; the buffer may go to other threads itself,
// which the compiler checks below.
unsafe impl Send for Mapped {}
// SAFETY: as above: nothing can be done through a shared reference but to read two numbers.
unsafe impl Sync for Mapped {}

const _: () = {
    const fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<MappedBuffer>();
};

/// All buffers that the program has mapped.
static MAPPED: Registry<MappedHandle, Mapped> = Registry::new("mapped buffer");

/// The handle of a command's buffer, by which another process of the set maps it with vdi_set_map_buffer_handle. Pass the
/// number on by any way; the caller stays responsible for completing the command. The handle dies with the command.
///
/// data: vdi_command.data of an outstanding command of this process. handle: where the handle goes; untouched on failure.
///
/// Returns 0; VD_E_INVALID unless data is that, and for bad pointers; VD_E_PROTOCOL unless the set is open; VD_E_ABORT.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::GetBufferHandle.
///
/// # Safety
/// handle is NULL or a place for a number. data is only compared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_get_buffer_handle(set: *mut SetHandle, data: *const c_void, handle: *mut u32) -> i32 {
    call("vdi_set_get_buffer_handle", || {
        let set = SETS.get(set)?;
        // SAFETY: the caller promises that it is NULL or a place for a number.
        let out = unsafe { Out::new("handle", handle) }?;
        out.set(set.get_buffer_handle(data.cast())?.number());
        Ok(())
    })
}

/// Maps the buffer that another process of this set got with a command. Until vdi_mapped_release that command cannot be
/// completed: VD_E_BUSY there.
///
/// handle: from vdi_set_get_buffer_handle of the other process. mapped: where the lease goes; NULL goes there on failure.
///
/// Returns 0; VD_E_INVALID for a handle that is stale, forged or another set's, and for bad pointers; VD_E_BUSY when this
/// process has the buffer already; VD_E_PROTOCOL unless the set is open; VD_E_ABORT.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::MapBufferHandle.
///
/// # Safety
/// mapped is NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_map_buffer_handle(
    set: *mut SetHandle,
    handle: u32,
    mapped: *mut *mut MappedHandle,
) -> i32 {
    call("vdi_set_map_buffer_handle", || {
        // SAFETY: the caller promises that it is NULL or a place for a pointer.
        let out = unsafe { Out::new("mapped", mapped) }?;
        out.set(core::ptr::null_mut());
        let set = SETS.get(set)?;
        let buffer = set.map_buffer_handle(BufferHandle::from_number(handle))?;
        let (address, bytes) = (buffer.address().as_ptr(), buffer.data().len() as u64);
        out.set(MAPPED.insert(Mapped { address, bytes, _buffer: buffer }));
        Ok(())
    })
}

/// Where a mapped buffer is in this process, and how large it is. The command may have fewer bytes; the process that got it
/// knows its size.
///
/// data: where the address goes. size: where the number of bytes goes; may be NULL. Both untouched on failure.
///
/// Lifetime of *data: until vdi_mapped_release, whatever becomes of the set.
///
/// Returns 0; VD_E_INVALID for bad pointers.
///
/// # Safety
/// data and size are NULL or places for a pointer and a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_mapped_data(mapped: *mut MappedHandle, data: *mut *mut c_void, size: *mut u64) -> i32 {
    call("vdi_mapped_data", || {
        let mapped = MAPPED.get(mapped)?;
        // SAFETY: the caller promises that it is NULL or a place for a pointer.
        let data = unsafe { Out::new("data", data) }?;
        if !size.is_null() {
            // SAFETY: it is not NULL, and the caller promises that it is a place for a number.
            unsafe { Out::new("size", size) }?.set(mapped.bytes);
        }
        data.set(mapped.address.cast());
        Ok(())
    })
}

/// Ends a lease and frees the pointer: the command may be completed. The data must not be touched any more.
///
/// Returns 0; VD_E_INVALID for what is no mapped buffer, or was released already.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_mapped_release(mapped: *mut MappedHandle) -> i32 {
    call("vdi_mapped_release", || MAPPED.remove(mapped).map(drop))
}
