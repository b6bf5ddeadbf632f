//! Linux: memfd, mmap, futex.
#![allow(unsafe_code)]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::thread::futex;

use crate::doorbell::Futex;

/// The seals of a segment: its length can never change, nor can the seals.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A new memfd of `len` bytes, zeroed and sealed. With `reserve` its memory is allocated now, so that a lack of it shows
/// here and not as a fault at some later access.
pub(crate) fn create_sealed(name: &str, len: u64, reserve: bool) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, len)?;
    if reserve {
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len)?;
    }
    rustix::fs::fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}

/// The length of a descriptor that is a memfd sealed as ours are, and whether it is one.
pub(crate) fn sealed_len(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    // Anything but a memfd answers EINVAL.
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SealFlags::SHRINK | SealFlags::GROW) => {}
        Ok(_) | Err(Errno::INVAL) => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(u64::try_from(rustix::fs::fstat(fd)?.st_size).ok())
}

/// A shared, writable mapping of a whole descriptor.
pub(crate) fn map_shared(fd: impl AsFd, len: NonZeroUsize) -> Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint lets the kernel choose a range that nothing else in this process uses, so no existing object is
    // touched; whatever the arguments, the call either fails or returns such a range.
    let address =
        unsafe { rustix::mm::mmap(core::ptr::null_mut(), len.get(), protection, MapFlags::SHARED, fd, 0)? };
    NonNull::new(address.cast()).ok_or(Errno::INVAL)
}

/// Ends a mapping.
///
/// # Safety
/// `address` and `len` are those of one mapping by [`map_shared`], and nothing refers to it any more.
pub(crate) unsafe fn unmap(address: NonNull<u8>, len: NonZeroUsize) {
    // SAFETY: the caller vouches that the range is one whole mapping that nobody uses.
    let result = unsafe { rustix::mm::munmap(address.as_ptr().cast(), len.get()) };
    debug_assert!(result.is_ok(), "a mapping of this crate could not be unmapped");
}

/// The system's futex, for words in memory that several processes map.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SharedFutex;

impl Futex for SharedFutex {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Every outcome (woken, word changed, timed out, signal) means the same to the caller: look again.
        let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&timeout));
    }

    fn wake_all(&self, word: &AtomicU32) {
        // The word is valid memory, so waking cannot fail.
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
    }
}
