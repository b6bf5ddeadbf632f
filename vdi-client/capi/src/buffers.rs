//! Buffer handles and leases, for C.

use core::ffi::c_void;

use vdi_client::{BufferHandle, ClientVirtualDeviceSet, Error, MappedBuffer};
use vdi_ffi::{Argument, Failure};

use crate::errors::call;
use crate::objects::Objects;
use crate::set::SETS;
use crate::types::{MappedHandle, SetHandle};

/// All buffers that the program has mapped.
static MAPPED: Objects<MappedHandle, Mapped> = Objects::new("mapped buffer");

/// A mapped buffer. Its bytes are counted once: later no reference to memory that the program writes to exists here.
struct Mapped {
    buffer: MappedBuffer,
    bytes: u64,
}

/// Maps a buffer by its handle, as `map` does it.
fn map_buffer(
    set: *mut SetHandle,
    mapped: Argument<*mut MappedHandle>,
    map: impl FnOnce(&ClientVirtualDeviceSet) -> Result<MappedBuffer, Error>,
) -> Result<(), Failure> {
    const PLACE: &str = "the place for the mapped buffer";
    mapped.write(PLACE, core::ptr::null_mut())?;
    let buffer = map(&*SETS.get(set)?)?;
    let bytes = buffer.data().len() as u64;
    mapped.write(PLACE, MAPPED.insert(Mapped { buffer, bytes }))
}

/// The handle of a command's buffer, by which another process of the set maps it with vdi_set_map_buffer_handle. Pass
/// the number on by any way; the caller stays responsible for completing the command. The handle dies with the command.
///
/// data: vdi_command.data of an outstanding command of this process. handle: where the handle goes; untouched on
/// failure.
///
/// Returns 0; VD_E_INVALID unless data is that, and for bad pointers; VD_E_PROTOCOL unless the set is open; VD_E_ABORT.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::GetBufferHandle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_get_buffer_handle(set: *mut SetHandle, data: *const c_void, handle: *mut u32) -> i32 {
    // SAFETY: the caller promises NULL or memory for a number (header, "MEMORY").
    let handle = unsafe { Argument::new(handle) };
    call("vdi_set_get_buffer_handle", || {
        const PLACE: &str = "the place for the handle";
        let set = SETS.get(set)?;
        handle.check(PLACE)?;
        handle.write(PLACE, set.get_buffer_handle(data.cast())?.number())
    })
}

/// Maps the buffer that another process of this set got with a command. Until vdi_mapped_release that command cannot be
/// completed: VD_E_BUSY there. Not with SQL Server's library, which does not know how many bytes a buffer has:
/// vdi_set_map_buffer_handle_sized works everywhere.
///
/// handle: from vdi_set_get_buffer_handle of the other process. mapped: where the lease goes; NULL goes there on
/// failure.
///
/// Returns 0; VD_E_INVALID for a handle that is stale, forged or another set's, and for bad pointers; VD_E_BUSY when
/// this process has the buffer already; VD_E_NOTSUPPORTED with SQL Server's library; VD_E_PROTOCOL unless the set is
/// open; VD_E_ABORT.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::MapBufferHandle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_map_buffer_handle(
    set: *mut SetHandle,
    handle: u32,
    mapped: *mut *mut MappedHandle,
) -> i32 {
    // SAFETY: the caller promises NULL or memory for a pointer (header, "MEMORY").
    let mapped = unsafe { Argument::new(mapped) };
    call("vdi_set_map_buffer_handle", || {
        map_buffer(set, mapped, |set| set.map_buffer_handle(BufferHandle::from_number(handle)))
    })
}

/// As vdi_set_map_buffer_handle, with the number of bytes that the command has. Works with SQL Server's library, too.
/// That library has no leases: nothing there keeps the command from being completed, so the process that got the
/// command must wait until this one is done with the buffer.
///
/// handle: from vdi_set_get_buffer_handle of the other process. size: vdi_command.size of the command, which the other
/// process passes on with the handle. mapped: where the lease goes; NULL goes there on failure.
///
/// Returns 0; as vdi_set_map_buffer_handle; VD_E_INVALID when the buffer cannot have so many bytes.
///
/// Source: VDI specification, IClientVirtualDeviceSet2::MapBufferHandle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_set_map_buffer_handle_sized(
    set: *mut SetHandle,
    handle: u32,
    size: u64,
    mapped: *mut *mut MappedHandle,
) -> i32 {
    // SAFETY: the caller promises NULL or memory for a pointer (header, "MEMORY").
    let mapped = unsafe { Argument::new(mapped) };
    call("vdi_set_map_buffer_handle_sized", || {
        map_buffer(set, mapped, |set| set.map_buffer_handle_sized(BufferHandle::from_number(handle), size as usize))
    })
}

/// Where a mapped buffer is in this process, and how many bytes it has: those of vdi_set_map_buffer_handle_sized, else
/// all of the buffer. The command may have fewer; the process that got it knows its size.
///
/// data: where the address goes. size: where the number of bytes goes; may be NULL. Both untouched on failure.
///
/// Lifetime of *data: until vdi_mapped_release, also when the set is closed.
///
/// Returns 0; VD_E_INVALID for bad pointers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdi_mapped_data(mapped: *mut MappedHandle, data: *mut *mut c_void, size: *mut u64) -> i32 {
    // SAFETY: the caller promises NULL or memory for a pointer (header, "MEMORY").
    let data = unsafe { Argument::new(data) };
    // SAFETY: the caller promises NULL or memory for a number.
    let size = unsafe { Argument::new(size) };
    call("vdi_mapped_data", || {
        let mapped = MAPPED.get(mapped)?;
        data.write("the place for the address", mapped.buffer.address().as_ptr().cast())?;
        if size.address().is_null() { Ok(()) } else { size.write("the place for the size", mapped.bytes) }
    })
}

/// Ends a lease and frees the pointer: the command may be completed. The data must not be touched any more.
///
/// Returns 0; VD_E_INVALID for what is no mapped buffer, or was released already.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_mapped_release(mapped: *mut MappedHandle) -> i32 {
    call("vdi_mapped_release", || MAPPED.remove(mapped).map(drop))
}
