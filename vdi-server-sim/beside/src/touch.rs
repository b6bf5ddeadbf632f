//! The memory of a set's areas: what making it, touching it for the first time and giving it back cost.

use std::time::{Duration, Instant};

use rustix::mm::Advice;
use vdi_beside::processes::{Fallible, rounds};
use vdi_shm::segment::Segment;

/// Bytes of an area: the four buffers of 1 MB that a backup has by default.
const AREA: u64 = 4 << 20;
const PAGE: usize = 4096;

/// Makes areas as sets do, and writes into each page; with `populated` all pages enter the page table by one call before.
/// Times `part`, or counts page faults, as if each took a nanosecond.
pub(crate) fn drive(part: &str, populated: bool) -> Fallible<()> {
    rounds(|count| {
        let (mut making, mut touching, mut giving_back, mut faults) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
        for _ in 0..count {
            let faults_before = page_faults()?;
            let started = Instant::now();
            let segment = Segment::create("beside", AREA, true)?;
            let mapping = segment.map()?;
            making += started.elapsed();
            let started = Instant::now();
            if populated {
                let address = mapping.address().as_ptr().cast();
                // SAFETY: the range is this mapping, which lives on; populating changes no byte.
                unsafe { rustix::mm::madvise(address, mapping.len(), Advice::LinuxPopulateWrite) }?;
            }
            for offset in (0..mapping.len()).step_by(PAGE) {
                // SAFETY: the offset lies within the mapping.
                let place = unsafe { mapping.address().add(offset) };
                // SAFETY: the memory is mapped, and nobody else has it. Volatile, so that each page is written.
                unsafe { place.write_volatile(1) };
            }
            touching += started.elapsed();
            let started = Instant::now();
            drop((mapping, segment));
            giving_back += started.elapsed();
            faults += page_faults()? - faults_before;
        }
        Ok(match part {
            "making" => making,
            "touching" => touching,
            "giving back" => giving_back,
            _ => Duration::from_nanos(faults),
        })
    })
}

/// Page faults of this process so far that needed no disk.
fn page_faults() -> Fallible<u64> {
    // SAFETY: any bytes are a valid `rusage`, zeros too.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: the call writes into `usage` only.
    let outcome = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(u64::try_from(usage.ru_minflt)?)
}
