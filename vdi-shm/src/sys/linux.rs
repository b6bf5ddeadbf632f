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

/// What the system says of a descriptor in huge pages.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// What every mapping's address is a multiple of: the greatest alignment that a set's buffers can have, so that a data
/// start that is aligned within its area is aligned in every process's memory.
const MAP_ALIGNMENT: usize = vdi_proto::config::MAX_BLOCK_SIZE as usize;

/// A new memfd of `len` bytes, zeroed and sealed. With `reserve` its memory is allocated now, so that a lack of it shows
/// here and not as a fault at some later access.
pub(crate) fn create_sealed(name: &str, len: u64, reserve: bool) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Never to be executed, which systems may insist on; kernels before 6.3 do not know the flag.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        made => made?,
    };
    rustix::fs::ftruncate(&fd, len)?;
    if reserve {
        // Long enough to be interrupted by a signal.
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len))?;
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
    // A memfd of huge pages can be sealed as well, but touching it may fault where the system has no such page left.
    if rustix::fs::fstatfs(fd)?.f_type as u64 == HUGETLBFS_MAGIC {
        return Ok(None);
    }
    Ok(u64::try_from(rustix::fs::fstat(fd)?.st_size).ok())
}

/// A shared, writable mapping of a whole descriptor, at a multiple of [`MAP_ALIGNMENT`].
pub(crate) fn map_shared(fd: impl AsFd, len: NonZeroUsize) -> Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let room = len.get().checked_add(MAP_ALIGNMENT).ok_or(Errno::NOMEM)?;
    // Addresses only, without memory: room enough to find an aligned one in.
    let reserve = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a null hint lets the kernel choose a range that nothing else in this process uses, so no existing object is
    // touched; whatever the arguments, the call either fails or returns such a range.
    let reserved = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), room, ProtFlags::empty(), reserve)? };
    let before = reserved.align_offset(MAP_ALIGNMENT);
    // SAFETY: `before` is less than the alignment, so this and `len` bytes after it lie within the range just reserved.
    let aligned = unsafe { reserved.byte_add(before) };
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: the range lies within the one just reserved, which nobody else knows: what it replaces is nobody's object.
    let mapped = unsafe { rustix::mm::mmap(aligned, len.get(), protection, flags, fd, 0) };
    if let Err(errno) = mapped {
        // SAFETY: the whole reservation goes back; nobody knows it.
        let _ = unsafe { rustix::mm::munmap(reserved, room) };
        return Err(errno);
    }
    // The kernel maps whole pages, so the rest of the reservation begins at the next one.
    let end = (before + len.get()).next_multiple_of(rustix::param::page_size());
    if before > 0 {
        // SAFETY: the part of the reservation before the mapping, which nobody uses. That it fails costs addresses only.
        let _ = unsafe { rustix::mm::munmap(reserved, before) };
    }
    if end < room {
        // SAFETY: `end` is less than the reservation's length.
        let rest = unsafe { reserved.byte_add(end) };
        // SAFETY: the part of the reservation after the mapping, as before it.
        let _ = unsafe { rustix::mm::munmap(rest, room - end) };
    }
    NonNull::new(aligned.cast()).ok_or(Errno::INVAL)
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
