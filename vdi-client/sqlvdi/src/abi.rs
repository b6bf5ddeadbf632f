//! The memory that the library shares with the C++ program: arguments, objects, and command blocks.
//!
//! # Invariants
//!
//! 1. An [`Argument`] is made by C++ callers only, never in Rust. What it points to is read and written in the call that got it,
//!    and never kept.
//! 2. The library never believes what it reads from an object: a [`Key`] is looked up, not followed.
//! 3. A [`Block`] is written only by its device, while the program has no claim on it, and never read: the program may do
//!    with it what it likes.
//!
//! Source of the layouts: the published C++ header of the interface on Linux.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};
use core::mem::{align_of, offset_of, size_of};
use core::ptr::{self, NonNull};

use vdi_client::VdError;

use crate::report::Refusal;

/// The most bytes of a name, with its end.
pub(crate) const NAME_LIMIT: usize = 1024;

/// VDConfig: eleven numbers, in the order of the published struct.
pub(crate) type ConfigBlock = [u32; 11];

/// What an object of either class holds: the name, never reused, of what the library has for it; 0 for nothing.
pub(crate) type Key = u64;

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
    assert!(size_of::<ConfigBlock>() == 44 && size_of::<Key>() == size_of::<*const u8>());
};

/// A pointer as the C++ program passed it: null, or to something that it lets the call use, as the header demands.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Argument<T>(*mut T);

impl<T: Copy> Argument<T> {
    pub(crate) fn address(self) -> *mut T {
        self.0
    }

    /// VD_E_INVALID for null.
    pub(crate) fn check(self, name: &str) -> Result<(), Refusal> {
        if self.0.is_null() { Err(Refusal::new(VdError::Invalid, format!("{name} is null"))) } else { Ok(()) }
    }

    pub(crate) fn read(self, name: &str) -> Result<T, Refusal> {
        self.check(name)?;
        // SAFETY: not null, so it points to a `T` that the caller lets this call read (invariant 1); it need not be aligned, and
        // all `T` here are numbers, for which every bit pattern is a value.
        Ok(unsafe { self.0.read_unaligned() })
    }

    pub(crate) fn write(self, name: &str, value: T) -> Result<(), Refusal> {
        self.check(name)?;
        // SAFETY: not null, so it points to a `T` that the caller lets this call write (invariant 1); it need not be aligned.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }
}

impl Argument<c_char> {
    /// A text that ends with a zero byte. At most [`NAME_LIMIT`] bytes are looked at.
    pub(crate) fn text(self, name: &str) -> Result<String, Refusal> {
        self.check(name)?;
        let invalid = |what: String| Refusal::new(VdError::Invalid, format!("{name} {what}"));
        let mut bytes = Vec::new();
        for at in 0..NAME_LIMIT {
            // SAFETY: the caller lets this call read a text up to its zero byte, or where there is none, NAME_LIMIT bytes
            // (invariant 1); none was found before `at`, which is below that limit, so this byte is one of them.
            let byte = unsafe { self.0.add(at) };
            // SAFETY: as above: the byte is the text's.
            match unsafe { byte.read() } {
                0 => {
                    return String::from_utf8(bytes)
                        .map_err(|error| invalid(format!("is no UTF-8: {}", error.utf8_error())));
                }
                byte => bytes.push(byte as u8),
            }
        }
        Err(invalid(format!("does not end within {NAME_LIMIT} bytes; end it with a zero byte")))
    }
}

/// A command block, at one address for as long as it lives.
#[derive(Debug)]
pub(crate) struct Block(NonNull<VdcCommand>);

// SAFETY: a block is memory of its own; nothing in it belongs to a thread.
unsafe impl Send for Block {}

impl Block {
    pub(crate) fn new() -> Block {
        let empty = VdcCommand { code: 0, size: 0, position: 0, buffer: ptr::null_mut() };
        Block(NonNull::from(Box::leak(Box::new(empty))))
    }

    pub(crate) fn address(&self) -> *mut VdcCommand {
        self.0.as_ptr()
    }

    /// Only while the program has no claim on the block.
    pub(crate) fn fill(&mut self, command: VdcCommand) {
        // SAFETY: the memory is this block's own, and `&mut self` keeps other writers of this library away. The program gave up
        // its claim by the GetCommand that this is part of (invariant 3).
        unsafe { self.0.as_ptr().write(command) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: from `Box::leak` in `new`, and freed only here.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn malloc(size: usize) -> *mut c_void;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, before: *mut SignalSet) -> c_int;
    fn sigpending(set: *mut SignalSet) -> c_int;
    fn sigtimedwait(set: *const SignalSet, information: *mut c_void, timeout: *const [i64; 2]) -> c_int;
}

/// sigset_t: a bit a signal, from signal 1 on.
type SignalSet = [u64; 16];

/// Does something that writes to wherever the program's standard error leads. If nobody reads there any more the system sends
/// the thread a SIGPIPE, which ends programs that have not asked for it to be ignored; this one is taken away.
pub(crate) fn without_sigpipe(work: impl FnOnce()) {
    const SIG_BLOCK: c_int = 0;
    const SIG_SETMASK: c_int = 2;
    const SIGPIPE: SignalSet = {
        let mut set = [0; 16];
        set[0] = 1 << (13 - 1);
        set
    };
    let (mut pending, mut mask) = ([0; 16], [0; 16]);
    // SAFETY: `pending` is as large as a sigset_t.
    let known = unsafe { sigpending(&mut pending) } == 0;
    // SAFETY: both are sigset_t, which live during the call.
    let blocked = unsafe { pthread_sigmask(SIG_BLOCK, &SIGPIPE, &mut mask) } == 0;
    work();
    // One that was there before is the program's own.
    if known && blocked && pending[0] & SIGPIPE[0] == 0 {
        // SAFETY: the set and the time live during the call; nobody asks for information. It returns at once.
        unsafe { sigtimedwait(&SIGPIPE, ptr::null_mut(), &[0, 0]) };
    }
    if blocked {
        // SAFETY: the mask is what pthread_sigmask filled in above; a null pointer stands for no interest in the present one.
        unsafe { pthread_sigmask(SIG_SETMASK, &mask, ptr::null_mut()) };
    }
}

/// The memory of a ClientVirtualDevice that the library made: one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceObject(NonNull<Key>);

// SAFETY: it is an address; who may write there is for the users of this type to see to, in whatever thread.
unsafe impl Send for DeviceObject {}
// SAFETY: `&DeviceObject` gives out nothing but the address.
unsafe impl Sync for DeviceObject {}

impl DeviceObject {
    /// Memory as C++'s `new` makes it, so that a program may `delete` it; `malloc`'s in a program without C++. Nobody else
    /// frees it.
    pub(crate) fn allocate() -> Result<DeviceObject, Refusal> {
        const SIZE: usize = size_of::<Key>();
        // SAFETY: a null library stands for the default search order; the name ends with a zero byte.
        let operator_new = unsafe { dlsym(ptr::null_mut(), c"_ZnwmRKSt9nothrow_t".as_ptr()) };
        let memory = if operator_new.is_null() {
            // SAFETY: any size is fine.
            unsafe { malloc(SIZE) }
        } else {
            // SAFETY: by the C++ binary interface this name is `void *operator new(unsigned long, const std::nothrow_t &)
            // noexcept`. It throws nothing, which nobody could catch here.
            let operator_new = unsafe {
                core::mem::transmute::<*mut c_void, unsafe extern "C" fn(usize, *const u8) -> *mut c_void>(operator_new)
            };
            // SAFETY: any size is fine; a `nothrow_t` is one byte without a meaning, which lives during the call.
            unsafe { operator_new(SIZE, &0) }
        };
        let memory = NonNull::new(memory.cast::<Key>());
        memory.map(DeviceObject).ok_or_else(|| Refusal::new(VdError::Memory, "there is no memory for the object"))
    }

    pub(crate) fn address(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// Only while the memory is the library's: just allocated, or never deleted by the program.
    pub(crate) fn write(self, key: Key) {
        // SAFETY: the memory has the size and alignment of a key, and by this function's rule nobody has freed it.
        unsafe { self.0.as_ptr().write(key) };
    }
}

/// `int`, as every function returns it.
pub(crate) fn status(code: VdError) -> c_int {
    code.hresult().cast_signed()
}
