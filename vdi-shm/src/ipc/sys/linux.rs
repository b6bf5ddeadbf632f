//! Linux: memfd, mmap, futex, credentials.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::num::NonZeroUsize;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::AtomicU32;
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags};
use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::thread::futex;

use super::pieces::in_pieces;

/// The seals of a segment: neither its length nor its seals can change.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The seals that a segment must not have: it could not be mapped for writing.
const NO_WRITE: SealFlags = SealFlags::WRITE.union(SealFlags::FUTURE_WRITE);

/// The type of the file system of memfds in huge pages.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// The address of every mapping is a multiple of this. It is at least the size of a page on every Linux.
pub const MAP_ALIGNMENT: usize = 64 * 1024;

/// The size of a huge page. A mapping that can have one lies at a multiple of this, since only there does it take one entry
/// of the page table.
const HUGE_PAGE: usize = 2 << 20;
const _: () = assert!(HUGE_PAGE.is_multiple_of(MAP_ALIGNMENT));

/// Which memory a segment is: the same for every descriptor of it, in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentIdentity {
    device: u64,
    inode: u64,
}

/// The process at the other end of a socket.
///
/// The system records it when the link is made: for the accepting side the process that connected, for the connecting side
/// the process that began to listen. A later change of its user changes nothing here, nor does passing the socket on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 for a process outside of this process's container.
    pub pid: i32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// Creates a memfd of `len` bytes, zeroed, sealed and with all of its memory allocated.
pub(crate) fn create_sealed(name: &str, len: u64) -> Result<(OwnedFd, SegmentIdentity)> {
    if len == 0 {
        return Err(Errno::INVAL);
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Systems may insist on memory that is never executed; Linux before 6.3 does not know the flag.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        created => created?,
    };
    rustix::fs::ftruncate(&fd, len)?;
    take_huge_pages(&fd, len);
    // The pages that are still missing.
    in_pieces(len, |offset, len| rustix::fs::fallocate(&fd, FallocateFlags::empty(), offset, len))?;
    rustix::fs::fcntl_add_seals(&fd, SEALS)?;
    let identity = identity_of(&rustix::fs::fstat(&fd)?);
    Ok((fd, identity))
}

fn identity_of(stat: &rustix::fs::Stat) -> SegmentIdentity {
    SegmentIdentity { device: stat.st_dev, inode: stat.st_ino }
}

/// Gives a new memfd huge pages, as far as whole ones fit into `len` bytes and the system has them for shared memory that
/// asks for them. Only a mapping can ask for them; `fallocate` cannot. What is missing is left to `fallocate`, which also
/// reports a lack of memory.
fn take_huge_pages(fd: &OwnedFd, len: u64) {
    let whole = len - len % HUGE_PAGE as u64;
    let Some(len) = usize::try_from(whole).ok().and_then(NonZeroUsize::new) else { return };
    let Ok(mapped) = map_shared(fd, len) else { return };
    let advise = |offset: u64, bytes: u64, advice| {
        let address = mapped.as_ptr().wrapping_add(offset as usize).cast();
        // SAFETY: the range lies within the first `len` bytes of the mapping, which was just made and is known to nobody else.
        // Neither advice changes a byte: one is about the size of pages to come, the other makes them come.
        unsafe { rustix::mm::madvise(address, bytes as usize, advice) }
    };
    let populate = |bytes| in_pieces(bytes, |offset, bytes| advise(offset, bytes, Advice::LinuxPopulateWrite));
    let has_huge_page = || rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_blocks * 512 >= HUGE_PAGE as i64);
    // The first byte shows whether there are huge pages.
    if advise(0, whole, Advice::LinuxHugepage).is_ok() && populate(1).is_ok() && has_huge_page() {
        let _ = populate(whole);
    }
    // SAFETY: it is one whole mapping by `map_shared`, and nothing refers to it.
    unsafe { unmap(mapped, len) }
}

/// The length and identity of a descriptor that is a memfd sealed as by [`create_sealed`] and open for writing; `None` for
/// anything else.
pub(crate) fn inspect_sealed(fd: BorrowedFd<'_>) -> Result<Option<(u64, SegmentIdentity)>> {
    // Anything but a memfd answers EINVAL.
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SEALS) && !seals.intersects(NO_WRITE) => {}
        Ok(_) | Err(Errno::INVAL) => return Ok(None),
        Err(error) => return Err(error),
    }
    if rustix::fs::fcntl_getfl(fd)? & OFlags::RWMODE != OFlags::RDWR {
        return Ok(None);
    }
    // A memfd of huge pages can be sealed as well, but an access may fault where the system has no such page left.
    if rustix::fs::fstatfs(fd)?.f_type as u64 == HUGETLBFS_MAGIC {
        return Ok(None);
    }
    let stat = rustix::fs::fstat(fd)?;
    Ok(u64::try_from(stat.st_size).ok().map(|len| (len, identity_of(&stat))))
}

/// The process at the other end of a socket.
///
/// Uses the system's own structure: rustix has no process id 0, which the system reports for a process outside of this
/// process's container.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` is `len` bytes that the call may write, and any bytes are a valid `ucred`: it consists of integers.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast::<c_void>(),
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

/// Maps the first `len` bytes of a descriptor, shared and writable, at a multiple of [`MAP_ALIGNMENT`], and of
/// [`HUGE_PAGE`] where one fits.
///
/// It reserves more addresses than it needs, maps over the aligned part of its own reservation, and gives the rest back. So
/// no other thread can get the addresses meanwhile.
pub(crate) fn map_shared(fd: impl AsFd, len: NonZeroUsize) -> Result<NonNull<u8>> {
    let alignment = if len.get() < HUGE_PAGE { MAP_ALIGNMENT } else { HUGE_PAGE };
    // Whole pages, whatever their size is.
    let pages = len.get().checked_next_multiple_of(page_size()).ok_or(Errno::NOMEM)?;
    let reserved = pages.checked_add(alignment).ok_or(Errno::NOMEM)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a null hint lets the kernel choose a range that nothing else in this process uses.
    let start = unsafe { rustix::mm::mmap_anonymous(null_mut(), reserved, ProtFlags::empty(), flags)? };
    let before = start.align_offset(alignment);
    let wanted = start.wrapping_byte_add(before);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the range lies within the reservation, which is this function's own.
    let mapped = unsafe { rustix::mm::mmap(wanted, len.get(), protection, MapFlags::SHARED | MapFlags::FIXED, &fd, 0) };
    // SAFETY: the reservation in front of the mapping is this function's own.
    unsafe { give_back(start, before) };
    // SAFETY: as is the reservation behind it.
    unsafe { give_back(wanted.wrapping_byte_add(pages), alignment - before) };
    // Where mapping failed, the middle stays reserved: the kernel may have discarded the reservation there, and another
    // thread may have got the addresses since.
    NonNull::new(mapped?.cast()).ok_or(Errno::INVAL)
}

/// Gives a part of a reservation back.
///
/// # Safety
/// The range is reserved by the caller and by nobody else.
unsafe fn give_back(start: *mut c_void, len: usize) {
    if len > 0 {
        // SAFETY: the caller vouches for the range.
        let result = unsafe { rustix::mm::munmap(start, len) };
        debug_assert!(result.is_ok(), "a reservation of this crate could not be given back");
    }
}

/// The size of a page of this system.
fn page_size() -> usize {
    // SAFETY: the call only reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // Every Linux has it; the largest page that there is serves as well.
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(MAP_ALIGNMENT)
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

/// Sleeps while `word` is `expected`, at most for `timeout`; may return early. The word may be shared with other processes.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = futex::Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // Every outcome (woken, word changed, timed out, signal) means the same to the caller: load again.
    let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&timeout));
}

/// Wakes all threads of all processes that sleep on `word`.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    // The word is valid memory, so waking cannot fail.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}
