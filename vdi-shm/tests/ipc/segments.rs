//! The memory of segments: all of it there from the beginning, in huge pages where the system has such.
#![allow(unsafe_code)] // reading and writing memory that these tests alone have mapped

use std::os::fd::AsFd;

use proptest::prelude::*;
use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use vdi_shm::segment::{Mapping, Segment};

const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;
/// For whom the system has huge pages of shared memory.
const POLICY: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// The policy in force; `None` where there is none.
fn policy() -> Option<String> {
    let text = std::fs::read_to_string(POLICY).ok()?;
    Some(text.split('[').nth(1)?.split(']').next()?.to_owned())
}

fn map(name: &str, len: u64) -> (Segment, Mapping) {
    let segment = Segment::create(name, len, true).expect("memory");
    let mapping = segment.map().expect("a mapping");
    (segment, mapping)
}

/// Bytes that the system has allocated for it.
fn allocated(segment: &Segment) -> u64 {
    rustix::fs::fstat(segment.fd().as_fd()).expect("what the system says of it").st_blocks.unsigned_abs() * 512
}

/// Reads the first byte of each page, and writes it.
fn touch(mapping: &Mapping) -> Vec<u8> {
    let touch = |offset| {
        // SAFETY: the offset lies within the mapping.
        let place = unsafe { mapping.address().add(offset) };
        // SAFETY: the memory is mapped, and nobody else knows it.
        let found = unsafe { place.read_volatile() };
        // SAFETY: as for reading.
        unsafe { place.write_volatile(1) };
        found
    };
    (0..mapping.len()).step_by(PAGE as usize).map(touch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Whatever its length, memory that was reserved is there, zeroed, and not more of it than was asked for.
    #[test]
    fn what_is_reserved_is_there(huge in 0..3u64, pages in 0..512u64, bytes in 0..PAGE) {
        let len = (huge * HUGE_PAGE + pages * PAGE + bytes).max(1);
        let (segment, mapping) = map("vdi-test-reserved", len);
        prop_assert!(allocated(&segment) >= len, "{} of {len} bytes", allocated(&segment));
        // Otherwise `fallocate` may get a huge page where a small one would do.
        if policy().is_none_or(|policy| policy == "never" || policy == "advise") {
            prop_assert!(allocated(&segment) < len + PAGE, "{} for {len} bytes", allocated(&segment));
        }
        prop_assert_eq!(mapping.len() as u64, len);
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
fn the_system_has_such() -> bool {
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
    let found = rustix::fs::fstat(&memfd).expect("what the system says of it").st_blocks.unsigned_abs() * 512;
    // SAFETY: nobody knows the mapping.
    unsafe { munmap(mapped, len as usize) }.expect("an end");
    advised && found >= HUGE_PAGE
}

#[test]
fn areas_have_huge_pages_where_the_system_has_such() {
    if !the_system_has_such() {
        use std::io::Write;
        let skipped = "areas_have_huge_pages_where_the_system_has_such";
        let _ = writeln!(std::io::stderr(), "SKIPPED {skipped}: {POLICY} is {:?}", policy());
        return;
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
