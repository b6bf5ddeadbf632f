//! What a set costs besides time: system calls, CPU while nothing happens, its start, and memory.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use vdi_beside::processes::{Fallible, Start};
use vdi_beside::set::DEPTH;

use crate::measure::{Participant, host};

/// How often the system calls are counted.
const COUNTS: usize = 5;

/// A process and those that it has started.
fn family(process: u32) -> Fallible<Vec<u32>> {
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

/// Sums what a function finds in the files of this name of all threads.
fn of_threads(family: &[u32], name: &str, find: impl Fn(&str) -> Option<u64>) -> Fallible<u64> {
    let mut total = 0;
    for process in family {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end meanwhile.
            let text = fs::read_to_string(task?.path().join(name)).unwrap_or_default();
            total += find(&text).unwrap_or_default();
        }
    }
    Ok(total)
}

/// What can count system calls, the one that disturbs least first: each with its arguments, and with what finds the number in
/// what it writes to a file. Under strace whoever sleeps or wakes is stopped for longer than a wait spins, so that one sleep
/// brings the next.
const COUNTERS: [Counter; 2] = [
    Counter { words: &["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"], find: of_perf },
    Counter { words: &["strace", "-f", "-c", "-o"], find: of_strace },
];

struct Counter {
    words: &'static [&'static str],
    find: fn(&str) -> Option<&str>,
}

/// The first field of the line with the event.
fn of_perf(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains("raw_syscalls"))?.split(',').next()
}

/// The calls of the line `total`.
fn of_strace(text: &str) -> Option<&str> {
    text.lines().rev().find(|line| line.trim_end().ends_with("total"))?.split_whitespace().nth(3)
}

/// System calls of a command, both sides together, while commands follow each other; and what counted them. Where nothing can
/// count them, how often threads went to sleep, which is a lower bound.
pub(crate) fn calls(scratch: &Path, commands: u64) -> Fallible<(&'static str, Vec<f64>)> {
    for counter in &COUNTERS {
        // The difference of a long run and a short one, so that start and end do not count.
        let counts: Fallible<Vec<f64>> = (0..COUNTS)
            .map(|_| {
                let more = counter.count(scratch, commands * 4)? - counter.count(scratch, commands)?;
                Ok(more.max(0.0) / (commands * 3) as f64)
            })
            .collect();
        match counts {
            Ok(counts) => return Ok((counter.words[0], counts)),
            Err(error) => eprintln!("{} cannot count system calls here: {error}", counter.words[0]),
        }
    }
    Ok(("threads that slept", sleeps(scratch, commands)?))
}

impl Counter {
    /// System calls of a whole run of so many commands, its start and end included.
    fn count(&self, scratch: &Path, commands: u64) -> Fallible<f64> {
        let counts = tempfile::NamedTempFile::new_in(scratch)?;
        let mut words: Vec<&OsStr> = self.words.iter().map(OsStr::new).collect();
        words.push(counts.path().as_os_str());
        let mut run = Participant::new(scratch, |dir| Start::new("set-records", dir).with("0").under(&words))?;
        run.run(commands)?;
        run.end()?;
        let text = fs::read_to_string(counts.path())?;
        Ok((self.find)(&text).ok_or("it has counted nothing")?.parse()?)
    }
}

fn sleeps(scratch: &Path, commands: u64) -> Fallible<Vec<f64>> {
    let find = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let mut run = Participant::new(scratch, |dir| Start::new("set-records", dir).with("0"))?;
    let family = family(run.process()?.id())?;
    let counts = (0..COUNTS).map(|_| {
        let before = of_threads(&family, "status", find)?;
        run.run(commands)?;
        Ok((of_threads(&family, "status", find)? - before) as f64 / commands as f64)
    });
    let counts = counts.collect::<Fallible<_>>()?;
    run.end()?;
    Ok(counts)
}

/// Milliseconds of CPU of both sides together while nothing happens.
pub(crate) struct Idle {
    pub(crate) one: f64,
    /// Of a set of 64 devices, with a thread each at the client.
    pub(crate) many: f64,
}

pub(crate) fn idle(scratch: &Path, watched: Duration) -> Fallible<Idle> {
    let nanoseconds = |text: &str| text.split_whitespace().next()?.parse().ok();
    let mut one = Participant::new(scratch, |dir| Start::new("set-records", dir).with("0"))?;
    let words = ["64", "1", "threads"];
    let mut many = Participant::new(scratch, |dir| {
        words.iter().fold(Start::new("set-many", dir), |start, word| start.with(word))
    })?;
    // Everybody has had something to do, and falls asleep afterwards; there is no sign of that but time.
    one.run(1)?;
    many.run(64)?;
    std::thread::sleep(Duration::from_secs(1));
    let families = [family(one.process()?.id())?, family(many.process()?.id())?];
    let spent = || -> Fallible<[u64; 2]> {
        Ok([of_threads(&families[0], "schedstat", nanoseconds)?, of_threads(&families[1], "schedstat", nanoseconds)?])
    };
    let before = spent()?;
    std::thread::sleep(watched);
    let after = spent()?;
    one.end()?;
    many.end()?;
    let [one, many] = std::array::from_fn(|at| (after[at] - before[at]) as f64 / 1e6);
    Ok(Idle { one, many })
}

/// Milliseconds that a set takes from Create to Close, both sides together, in so many turns of ten.
pub(crate) fn starts(scratch: &Path, turns: usize) -> Fallible<Vec<f64>> {
    let mut starts = Participant::new(scratch, |dir| Start::new("set-starts", dir))?;
    starts.run(1)?;
    // Turns are short, and so are the times in which the host leaves this machine alone.
    let (mut found, mut again) = (Vec::new(), 10 * turns);
    for _ in 0..turns {
        let ten = || (0..10).map(|_| Ok(starts.run(1)? / 1e6)).collect::<Fallible<Vec<f64>>>();
        found.extend(host::undisturbed(&mut again, ten)?);
    }
    starts.end()?;
    Ok(found)
}

/// Kilobytes that a set has beyond its buffers: what both sides map of it, and what each has for itself more than a process of
/// this program that is told to do nothing.
pub(crate) fn memory(scratch: &Path, devices: u32) -> Fallible<f64> {
    let mut nothing = Participant::new(scratch, |dir| Start::new("nothing", dir))?;
    nothing.run(1)?;
    let alone = private(nothing.process()?.id())?;
    nothing.end()?;
    let words = [devices.to_string(), "1".to_owned(), "polling".to_owned()];
    let mut set = Participant::new(scratch, |dir| {
        words.iter().fold(Start::new("set-memory", dir), |start, word| start.with(word))
    })?;
    set.run(u64::from(devices))?;
    let family = family(set.process()?.id())?;
    let shared = shared(set.process()?.id())?;
    let mut own = 0.0;
    for process in &family {
        own += (private(*process)? - alone).max(0.0);
    }
    set.end()?;
    let buffers = (DEPTH << 20 >> 10) as f64;
    Ok(shared - buffers + own)
}

/// The kilobytes of a field of a process's mappings, where their first line is wanted.
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

/// What a process maps of sets.
fn shared(process: u32) -> Fallible<f64> {
    kilobytes(process, "smaps", "Size:", |line| line.contains("memfd:vdi-"))
}

/// What a process has written to for itself. Not all that is dirty: pages of a program that was just built are that as well.
fn private(process: u32) -> Fallible<f64> {
    kilobytes(process, "smaps_rollup", "Anonymous:", |_| true)
}
