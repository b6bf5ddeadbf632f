//! What processes cost besides time: CPU and memory.

use std::fs;
use std::io;
use std::time::Duration;

use crate::processes::Fallible;

/// CPU time of this process, and of its children that have ended and were waited for.
pub(crate) fn cpu_time() -> Fallible<Duration> {
    let mut total = Duration::ZERO;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: any bytes are a valid `rusage`, zeros too.
        let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
        // SAFETY: the call writes into `usage` only.
        if unsafe { libc::getrusage(who, &raw mut usage) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        for time in [usage.ru_utime, usage.ru_stime] {
            total += Duration::new(time.tv_sec.try_into()?, u32::try_from(time.tv_usec)? * 1000);
        }
    }
    Ok(total)
}

/// A process and its descendants.
pub(crate) fn family(process: u32) -> Fallible<Vec<u32>> {
    let mut family = vec![process];
    let mut at = 0;
    while at < family.len() {
        for task in fs::read_dir(format!("/proc/{}/task", family[at]))? {
            let children = fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace() {
                family.push(child.parse()?);
            }
        }
        at += 1;
    }
    Ok(family)
}

/// The kilobytes that a process maps of sets.
pub(crate) fn shared_memory(process: u32) -> Fallible<f64> {
    kilobytes(process, "smaps", "Size:", |mapping| mapping.contains("memfd:vdi-"))
}

/// The kilobytes that a process has written to and shares with nobody. Anonymous pages only: the pages of a file that was
/// just built are dirty, too.
pub(crate) fn private_memory(process: u32) -> Fallible<f64> {
    kilobytes(process, "smaps_rollup", "Anonymous:", |_| true)
}

/// The sum of a field over the mappings of a process whose first line is `wanted`.
fn kilobytes(process: u32, file: &str, field: &str, wanted: impl Fn(&str) -> bool) -> Fallible<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let mut inside = false;
    let mut total = 0.0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(name) if name == field => {
                let value: f64 = words.next().unwrap_or("0").parse()?;
                total += if inside { value } else { 0.0 };
            }
            Some(name) if !name.ends_with(':') => inside = wanted(line),
            _ => {}
        }
    }
    Ok(total)
}
