//! Linux: memfd, mmap, futex, credentials.
#![allow(unsafe_code)]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::thread::futex;

use crate::doorbell::Futex;
use crate::link::Peer;

/// The seals of a segment: its length can never change, nor can the seals.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// What the system says of a descriptor in huge pages.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// What every mapping's address is a multiple of: the greatest alignment that a set's buffers can have, so that a data
/// start that is aligned within its area is aligned in every process's memory.
const MAP_ALIGNMENT: usize = vdi_proto::config::MAX_BLOCK_SIZE as usize;

/// The size of a huge page, and what the address of a mapping that could have one is a multiple of: only there does a huge page take
/// one entry of the page table.
const HUGE_PAGE: usize = 2 << 20;
const _: () = assert!(HUGE_PAGE.is_multiple_of(MAP_ALIGNMENT));

/// How often to look for an aligned range, when others in this process take those that were found.
const MAP_TRIES: u32 = 32;

/// A new memfd of `len` bytes, zeroed and sealed. With `reserve` its memory is allocated now, so that a lack of it shows
/// here and not as a fault at some later access; in huge pages, where the system has such for it.
pub(crate) fn create_sealed(name: &str, len: u64, reserve: bool) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Never to be executed, which systems may insist on; kernels before 6.3 do not know the flag.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        made => made?,
    };
    rustix::fs::ftruncate(&fd, len)?;
    if reserve {
        take_huge_pages(&fd, len);
        // All that has no page yet. Long enough to be interrupted by a signal.
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len))?;
    }
    rustix::fs::fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}

/// Gives a new memfd huge pages, as far as whole ones fit into `len` bytes and the system has them for shared memory that asks for them.
/// They have to be asked for through a mapping that is populated; `fallocate` has none. Where they cannot be had, this costs a mapping
/// and one page fault, and what is missing is left to `fallocate`, which also says when there is no memory.
fn take_huge_pages(fd: &OwnedFd, len: u64) {
    let whole = len - len % HUGE_PAGE as u64;
    let Some(len) = usize::try_from(whole).ok().and_then(NonZeroUsize::new) else { return };
    let Ok(mapped) = map_shared(fd, len) else { return };
    let address = mapped.as_ptr().cast();
    let advise = |bytes: usize, advice| {
        // SAFETY: `bytes` is `len` at most, so that the range lies within the mapping that was just made and that nobody else knows.
        // Neither advice changes a byte of it: one is about the size of pages to come, one has them come.
        rustix::io::retry_on_intr(|| unsafe { rustix::mm::madvise(address, bytes, advice) }).is_ok()
    };
    let has_huge_page = || rustix::fs::fstat(fd).is_ok_and(|found| found.st_blocks * 512 >= HUGE_PAGE as i64);
    // Whether there are such shows by what one byte takes.
    if advise(len.get(), Advice::LinuxHugepage) && advise(1, Advice::LinuxPopulateWrite) && has_huge_page() {
        advise(len.get(), Advice::LinuxPopulateWrite);
    }
    // SAFETY: it is one whole mapping by `map_shared`, and nothing refers to it.
    unsafe { unmap(mapped, len) }
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

/// Who is at the other end of a socket.
///
/// By the system's own structure: rustix has a process id that is never 0, but the system says 0 of a process that has none
/// here, since it lives outside of this process's container.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` is `len` bytes that the call may write, and any bytes are a valid `ucred`: it consists of integers.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast::<libc::c_void>(),
            &raw mut len,
        )
    };
    if outcome != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    if len as usize != size_of::<libc::ucred>() {
        return Err(Errno::NOTSUP);
    }
    Ok(Peer { pid: found.pid, uid: found.uid, gid: found.gid })
}

/// The monotonic clock as of the last tick. By the system's library: rustix asks the kernel's page itself, which ends programs
/// that run under valgrind.
pub(crate) fn coarse_now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a `timespec` that the call may write. Where it fails, it stays as it is: a clock that stands still, by
    // which nothing is ever due; but each Linux since 2.6.32 has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// A shared, writable mapping of a descriptor's first `len` bytes, at a multiple of [`MAP_ALIGNMENT`], and of [`HUGE_PAGE`] where one fits
/// into it.
pub(crate) fn map_shared(fd: impl AsFd, len: NonZeroUsize) -> Result<NonNull<u8>> {
    // Two threads that look at the same time would find the same range, again and again.
    static LOOKING: Mutex<()> = Mutex::new(());
    let _alone = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let alignment = if len.get() < HUGE_PAGE { MAP_ALIGNMENT } else { HUGE_PAGE };
    for _ in 0..MAP_TRIES {
        let wanted = free_range(len, alignment)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED_NOREPLACE;
        // SAFETY: whatever the arguments, a call with this flag either fails or returns a range that nothing else in this
        // process uses, so no existing object is touched.
        let mapped = match unsafe { rustix::mm::mmap(wanted, len.get(), protection, flags, &fd, 0) } {
            Ok(mapped) => mapped,
            // Another thread has got it meanwhile.
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(errno),
        };
        if mapped == wanted {
            return NonNull::new(mapped.cast()).ok_or(Errno::INVAL);
        }
        // A kernel before 4.17 takes the address for a wish.
        // SAFETY: the mapping was just made, and nobody knows it.
        unsafe { rustix::mm::munmap(mapped, len.get())? };
    }
    Err(Errno::NOMEM)
}

/// The address of an aligned range that was free a moment ago.
fn free_range(len: NonZeroUsize, alignment: usize) -> Result<*mut core::ffi::c_void> {
    let room = len.get().checked_add(alignment).ok_or(Errno::NOMEM)?;
    // Addresses only, without memory.
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a null hint lets the kernel choose a range that nothing else in this process uses, so no existing object is
    // touched.
    let found = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), room, ProtFlags::empty(), flags)? };
    // SAFETY: the range was just reserved, and nobody knows it.
    unsafe { rustix::mm::munmap(found, room)? };
    Ok(found.wrapping_byte_add(found.align_offset(alignment)))
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
