//! The layouts of the C++ interface, and the memory that the library shares with the program: objects and command
//! blocks.
//!
//! # Invariants
//!
//! 1. The library follows no pointer that it reads from an object: a [`Key`] is looked up.
//! 2. A [`Block`] is written only by its device, while the program has no claim on it. It is never read: the program
//!    may write into it.
//!
//! Source of the layouts: the published C++ header of the interface on Linux.

use core::ffi::{c_char, c_void};
use core::mem::{align_of, offset_of, size_of};
use core::ptr::{self, NonNull};

use vdi_client::VdError;
use vdi_ffi::{Failure, Key};

/// VDConfig: eleven numbers, in the order of the published struct.
pub(crate) type ConfigBlock = [u32; 11];

/// VDC_Command.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct VdcCommand {
    pub(crate) code: i32,
    pub(crate) size: i32,
    pub(crate) position: i64,
    pub(crate) buffer: *mut u8,
}

const _: () = {
    assert!(size_of::<VdcCommand>() == 24 && align_of::<VdcCommand>() == 8);
    assert!(offset_of!(VdcCommand, code) == 0 && offset_of!(VdcCommand, size) == 4);
    assert!(offset_of!(VdcCommand, position) == 8 && offset_of!(VdcCommand, buffer) == 16);
    // An object of either class: one private pointer, in which the library keeps a key.
    assert!(size_of::<ConfigBlock>() == 44 && size_of::<Key>() == size_of::<*const u8>());
};

/// The memory of a command, at one address for as long as it lives.
#[derive(Debug)]
pub(crate) struct Block(NonNull<VdcCommand>);

// SAFETY: a block owns its memory, and a `VdcCommand` belongs to no thread.
unsafe impl Send for Block {}

impl Block {
    pub(crate) fn new() -> Block {
        let empty = VdcCommand { code: 0, size: 0, position: 0, buffer: ptr::null_mut() };
        Block(NonNull::from(Box::leak(Box::new(empty))))
    }

    pub(crate) fn address(&self) -> *mut VdcCommand {
        self.0.as_ptr()
    }

    /// Call it only while the program has no claim on the block.
    pub(crate) fn fill(&mut self, command: VdcCommand) {
        // SAFETY: the block owns the memory, and `&mut self` excludes other writers of this library. The program gave
        // up its claim by the GetCommand that this is part of (invariant 2).
        unsafe { self.0.as_ptr().write(command) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the pointer is from `Box::leak` in `new`, and only this frees it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn malloc(size: usize) -> *mut c_void;
}

/// The memory of a ClientVirtualDevice that the library made: one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceObject(NonNull<Key>);

// SAFETY: it is an address. `write`, the one access, says when it is allowed, in whatever thread.
unsafe impl Send for DeviceObject {}

impl DeviceObject {
    /// Memory from the program's own `operator new`, so that the program may `delete` it; from `malloc` in a program
    /// without C++. The library never frees it.
    pub(crate) fn allocate() -> Result<DeviceObject, Failure> {
        const SIZE: usize = size_of::<Key>();
        // SAFETY: a null library stands for the default search order, and the name ends with a zero byte.
        let operator_new = unsafe { dlsym(ptr::null_mut(), c"_ZnwmRKSt9nothrow_t".as_ptr()) };
        let memory = if operator_new.is_null() {
            // SAFETY: malloc takes any size.
            unsafe { malloc(SIZE) }
        } else {
            // SAFETY: by the C++ binary interface this name is `void *operator new(unsigned long, const std::nothrow_t
            // &) noexcept`: it has this signature, and throws nothing.
            let operator_new = unsafe {
                core::mem::transmute::<*mut c_void, unsafe extern "C" fn(usize, *const u8) -> *mut c_void>(operator_new)
            };
            // SAFETY: it takes any size. A `nothrow_t` is one byte without a meaning, which lives during the call.
            unsafe { operator_new(SIZE, &0) }
        };
        let memory = NonNull::new(memory.cast::<Key>());
        memory.map(DeviceObject).ok_or_else(|| Failure::new(VdError::Memory, "there is no memory for the object"))
    }

    pub(crate) fn address(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// Call it only while the memory is the library's: just allocated, or never deleted by the program.
    pub(crate) fn write(self, key: Key) {
        // SAFETY: the memory has the size and alignment of a key, and by this function's rule the program has not freed
        // it.
        unsafe { self.0.as_ptr().write(key) };
    }
}
