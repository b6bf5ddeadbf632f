//! The memory of segments: sealed, all of it there from the beginning, in huge pages where the system has them.
#![allow(unsafe_code)] // reading and writing memory that these tests alone have mapped

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use vdi_shm::ipc::event_count::EventCount;
use vdi_shm::ipc::segment::{MAP_ALIGNMENT, Mapping, Segment, SegmentError};

use super::skip;

const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;
/// Which processes get huge pages of shared memory.
const POLICY: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The policy in force; `None` where there is none.
fn policy() -> Option<String> {
    let text = std::fs::read_to_string(POLICY).ok()?;
    Some(text.split('[').nth(1)?.split(']').next()?.to_owned())
}

fn map(name: &str, len: u64) -> (Segment, Mapping) {
    let segment = Segment::create(name, len).expect("memory");
    let mapping = segment.map().expect("a mapping");
    (segment, mapping)
}

/// Bytes that the system has allocated for it.
fn allocated(segment: &Segment) -> u64 {
    rustix::fs::fstat(segment.fd().as_fd()).expect("its state").st_blocks.unsigned_abs() * 512
}

/// Reads the first byte of each page, and writes it.
fn touch(mapping: &Mapping) -> Vec<u8> {
    let touch = |offset| {
        // SAFETY: the offset lies within the mapping.
        let byte = unsafe { mapping.address().add(offset) };
        // SAFETY: the memory is mapped, and nobody else knows it.
        let found = unsafe { byte.read_volatile() };
        // SAFETY: as for reading.
        unsafe { byte.write_volatile(1) };
        found
    };
    (0..mapping.len()).step_by(PAGE as usize).map(touch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Whatever the length: the memory is there, zeroed, and not more of it than was asked for.
    #[test]
    fn memory_is_reserved(huge in 0..3u64, pages in 0..512u64, bytes in 0..PAGE) {
        let len = (huge * HUGE_PAGE + pages * PAGE + bytes).max(1);
        let (segment, mapping) = map("vdi-test-reserved", len);
        prop_assert!(allocated(&segment) >= len, "{} of {len} bytes", allocated(&segment));
        // With another policy `fallocate` may get a huge page where a small one would do.
        if policy().is_none_or(|policy| policy == "never" || policy == "advise") {
            prop_assert!(allocated(&segment) < len + PAGE, "{} for {len} bytes", allocated(&segment));
        }
        prop_assert_eq!(mapping.len() as u64, len);
        prop_assert_eq!(mapping.address().as_ptr() as usize % MAP_ALIGNMENT, 0);
        let before = allocated(&segment);
        prop_assert!(touch(&mapping).iter().all(|byte| *byte == 0));
        prop_assert_eq!(allocated(&segment), before, "touching it takes nothing more");
    }
}

/// The kilobytes that the one mapping of this name has in huge pages.
fn in_huge_pages(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("the mappings of this process");
    let mapping = text.lines().skip_while(|line| !line.contains(name));
    let line =
        mapping.skip(1).find(|line| line.starts_with("ShmemPmdMapped:")).expect("a kernel that knows huge pages");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Whether the system gives this process huge pages of shared memory: a memfd of the test's own gets one for its first byte.
fn the_system_has_huge_pages() -> bool {
    let (len, protection) = (2 * HUGE_PAGE, ProtFlags::READ | ProtFlags::WRITE);
    let memfd = rustix::fs::memfd_create("vdi-test-control", MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&memfd, len).expect("a length");
    // SAFETY: without an address, the system takes one where nothing is.
    let mapped = unsafe { mmap(std::ptr::null_mut(), len as usize, protection, MapFlags::SHARED, &memfd, 0) };
    let mapped = mapped.expect("a mapping");
    // SAFETY: the range is the mapping, which nobody else knows; the advice changes no byte.
    let advised = unsafe { madvise(mapped, len as usize, Advice::LinuxHugepage) }.is_ok();
    // SAFETY: in the middle of the mapping, where a huge page can be around it wherever the mapping begins.
    let middle = unsafe { mapped.cast::<u8>().add(HUGE_PAGE as usize) };
    // SAFETY: the memory is mapped, and nobody else knows it.
    unsafe { middle.write_volatile(1) };
    let found = rustix::fs::fstat(&memfd).expect("its state").st_blocks.unsigned_abs() * 512;
    // SAFETY: nobody knows the mapping.
    unsafe { munmap(mapped, len as usize) }.expect("an end");
    advised && found >= HUGE_PAGE
}

#[test]
fn segments_have_huge_pages_where_the_system_has_them() {
    if !the_system_has_huge_pages() {
        let why = format!("{POLICY} is {:?}", policy());
        return skip("segments_have_huge_pages_where_the_system_has_them", &why);
    }
    let name = "vdi-test-huge";
    let (_segment, mapping) = map(name, 2 * HUGE_PAGE + 3 * PAGE);
    touch(&mapping);
    assert_eq!(in_huge_pages(name), 2 * HUGE_PAGE / 1024, "all that is whole huge pages");
    // Not only in the process that made it.
    let name = "vdi-test-again";
    let (segment, mapping) = map(name, HUGE_PAGE);
    drop(mapping);
    let again = segment.map().expect("a mapping");
    touch(&again);
    assert_eq!(in_huge_pages(name), HUGE_PAGE / 1024);
}

fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("vdi-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    rustix::fs::ftruncate(&fd, len).expect("a length");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
    fd
}

/// A descriptor from a peer is a memfd of the right length that can change neither its length nor its seals, or it is refused.
#[test]
fn peers_segments_are_sealed() {
    const LEN: u64 = 3 * PAGE;
    let file = tempfile::tempfile().expect("a file");
    file.set_len(LEN).expect("a length");
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let directory = rustix::fs::open(".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("a directory");
    for (what, fd) in [
        ("a pipe", reader.into()),
        ("a file", file.into()),
        ("a directory", directory),
        ("an unsealed memfd", memfd(LEN, SealFlags::empty())),
        ("one that can grow", memfd(LEN, SealFlags::SHRINK | SealFlags::SEAL)),
        ("one that can shrink", memfd(LEN, SealFlags::GROW | SealFlags::SEAL)),
        ("one that can be sealed against writing", memfd(LEN, SealFlags::SHRINK | SealFlags::GROW)),
        ("a shorter one", memfd(LEN - 1, SEALED)),
        ("a longer one", memfd(LEN + 1, SEALED)),
        ("an empty one", memfd(0, SEALED)),
    ] {
        let refused = Segment::from_peer(fd, LEN);
        assert!(matches!(refused, Err(SegmentError::NotSealed { expected: LEN, .. })), "{what}: {refused:?}");
    }
    assert!(Segment::from_peer(memfd(LEN, SEALED), LEN).is_ok());
    assert!(Segment::from_peer(memfd(0, SEALED), 0).is_err());
    // What this crate makes is what it accepts.
    let segment = Segment::create("vdi-test", LEN).expect("memory");
    let fd = segment.fd().try_clone_to_owned().expect("a descriptor");
    assert!(rustix::fs::ftruncate(&fd, PAGE).is_err() && rustix::fs::ftruncate(&fd, LEN + PAGE).is_err());
    assert!(Segment::from_peer(fd, LEN).is_ok());
}

/// The same memory is recognised in whatever descriptor it comes.
#[test]
fn the_same_memory_has_one_identity() {
    let segment = Segment::create("vdi-test", PAGE).expect("memory");
    let again = Segment::from_peer(segment.fd().try_clone_to_owned().expect("a descriptor"), PAGE).expect("sealed");
    // By a new open file, and not only by another descriptor of it.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&segment.fd()));
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("our own");
    let opened = Segment::from_peer(opened.into(), PAGE).expect("sealed");
    let other = Segment::create("vdi-test", PAGE).expect("memory");
    assert_eq!(again.identity(), segment.identity());
    assert_eq!(opened.identity(), segment.identity());
    assert_ne!(other.identity(), segment.identity());
}

/// References that do not fit are refused, and lengths that the system cannot have.
#[test]
fn references_into_a_mapping() {
    for len in [1, 100, 4096, 4097, 65536, 65537, 1 << 20] {
        let (segment, mapping) = map("vdi-test", len);
        assert_eq!(segment.len(), len);
        let mapping = Arc::new(mapping);
        let size = size_of::<EventCount>() as u64;
        for offset in [len.saturating_sub(size - 1), len, len + 1, u64::MAX, u64::MAX - size + 1, 1, 32] {
            assert!(mapping.shared::<EventCount>(offset).is_err(), "offset {offset} of {len}");
        }
        assert_eq!(mapping.shared::<EventCount>(0).is_ok(), len >= size);
        if let Some(last) = len.checked_sub(size) {
            // To the last byte: what was mapped can be touched.
            mapping.shared::<EventCount>(last / 64 * 64).expect("it fits").notify();
        }
    }
    assert!(Segment::create("vdi-test", 0).is_err());
    assert!(Segment::create("vdi-test", u64::MAX).is_err());
}

/// Threads that map at the same time do not get into each other's way.
#[test]
fn mapping_does_not_race() {
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                let segment = Segment::create("vdi-test", 100_000).expect("memory");
                let mut kept = Vec::new();
                for round in 0..200 {
                    let mapping = segment.map().expect("a mapping");
                    assert_eq!(mapping.address().as_ptr() as usize % MAP_ALIGNMENT, 0);
                    // SAFETY: the memory is mapped, and only this thread knows it.
                    unsafe { mapping.address().write_volatile(thread) };
                    if round % 2 == 0 {
                        kept.push(mapping);
                    }
                }
                // SAFETY: as above.
                assert!(kept.iter().all(|mapping| unsafe { mapping.address().read_volatile() } == thread));
            });
        }
    });
}

/// A mapping leaves nothing reserved beside it, and nothing when it ends.
#[test]
fn mapping_leaves_no_reservation() {
    // Bytes of addresses, in a process of its own: other tests map at the same time.
    const MARK: &str = "VDI_TEST_RESERVATION";
    if std::env::var_os(MARK).is_none() {
        let output = std::process::Command::new(std::env::current_exe().expect("this binary"))
            .args(["segments::mapping_leaves_no_reservation", "--exact", "--nocapture", "--test-threads=1"])
            .env(MARK, "1")
            .output()
            .expect("this binary runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("running 1 test"), "{said}");
        return;
    }
    let mappings = |name: &str| {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings of this process");
        // A reservation is anonymous memory that may not be accessed.
        let reserved = maps.lines().filter(|line| line.contains("---p") && line.trim_end().ends_with(" 0")).count();
        (reserved, maps.lines().filter(|line| line.contains(name)).count())
    };
    let name = "vdi-test-reservation";
    let before = mappings(name).0;
    for len in [1, PAGE, 65536, 65537, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 1] {
        let (segment, mapping) = map(name, len);
        assert_eq!(mappings(name), (before, 1), "{len} bytes");
        drop(mapping);
        assert_eq!(mappings(name), (before, 0), "{len} bytes");
        drop(segment);
    }
}
