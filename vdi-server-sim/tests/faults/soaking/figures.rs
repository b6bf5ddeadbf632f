//! What the processes have, and whether it grows.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use super::Times;

/// What has to be the same after each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    descriptors: usize,
    /// Of the sets' memory.
    shared_mappings: usize,
    threads: usize,
    children: usize,
}

impl Held {
    /// Whether something is more than it was. A thread that was about to end may have been counted before.
    pub(super) fn exceeds(&self, before: &Held) -> bool {
        self.descriptors > before.descriptors
            || self.shared_mappings > before.shared_mappings
            || self.threads > before.threads
            || self.children > before.children
    }

    pub(super) fn of(process: u32) -> Held {
        let count = |what: &str| fs::read_dir(format!("/proc/{process}/{what}")).unwrap().count();
        let children = fs::read_dir(format!("/proc/{process}/task"))
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .map(|children| children.split_whitespace().count())
            .sum();
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        Held {
            descriptors: count("fd"),
            shared_mappings: maps.matches("memfd:vdi-").count(),
            threads: count("task"),
            children,
        }
    }
}

/// One process's memory, in KiB, and its mappings.
#[derive(Debug, Clone, Copy)]
struct Memory {
    anonymous: f64,
    shared: f64,
    addresses: f64,
    mappings: f64,
}

impl Memory {
    fn of(process: u32) -> Memory {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let mappings = fs::read_to_string(format!("/proc/{process}/maps")).unwrap().lines().count() as f64;
        Memory { anonymous: field("RssAnon"), shared: field("RssShmem"), addresses: field("VmSize"), mappings }
    }
}

/// What was seen after a reference round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    memory: [Memory; 2],
    times: Times,
    /// How long something took right behind the round that never changes.
    yardstick: Duration,
}

impl Sample {
    pub(super) fn take(agent: u32, server: u32, times: Times, yardstick: Duration) -> Sample {
        Sample { memory: [Memory::of(agent), Memory::of(server)], times, yardstick }
    }
}

/// How much more than in the second quarter there may be in the fourth: so many times, and so much.
#[derive(Debug, Clone, Copy)]
struct Margin {
    ratio: f64,
    more: f64,
}

/// Memory: what an allocator keeps varies by less, in KiB.
const MEMORY: Margin = Margin { ratio: 1.03, more: 256.0 };
const MEMORY_OF_A_SHORT_RUN: Margin = Margin { ratio: 1.03, more: 1024.0 };
/// Shared memory: none is kept.
const SHARED: Margin = Margin { ratio: 1.0, more: 0.0 };
/// Addresses: an allocator reserves them by 64 MiB, for one more thread that allocates at the same time.
const ADDRESSES: Margin = Margin { ratio: 1.0, more: 140_000.0 };
/// Mappings: pieces of the allocator's and stacks that wait for another thread.
const MAPPINGS: Margin = Margin { ratio: 1.0, more: 10.0 };
/// Times: other work on the machine moves them, and medians of a long run less.
const TIMES: Margin = Margin { ratio: 1.5, more: 0.0 };
const TIMES_OF_A_SHORT_RUN: Margin = Margin { ratio: 3.0, more: 30.0 };
const QUOTIENT_OF_A_SHORT_RUN: Margin = Margin { ratio: 3.0, more: 3.0 };
/// Not judged: beside it stands what is.
const ANYTHING: Margin = Margin { ratio: f64::INFINITY, more: 0.0 };
/// What is a long run.
const LONG: Duration = Duration::from_secs(300);

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Series {
    samples: Vec<Sample>,
    pub(super) rounds: usize,
    pub(super) troubled: usize,
    pub(super) bytes: u64,
}

impl Series {
    pub(super) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The table; what grows instead, with it.
    pub(super) fn judge(&self, elapsed: Duration) -> Result<String, String> {
        let (memory, times, quotient) = if elapsed < LONG {
            (MEMORY_OF_A_SHORT_RUN, TIMES_OF_A_SHORT_RUN, QUOTIENT_OF_A_SHORT_RUN)
        } else {
            (MEMORY, TIMES, TIMES)
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let mut table = format!(
            "{} rounds in {elapsed:.0?}, {} of them disturbed; {} MB out and back; medians of {} reference rounds, by quarters:\n\
             {:<34}{:>12}{:>12}{:>12}{:>12}\n",
            self.rounds,
            self.troubled,
            self.bytes / 1_000_000,
            self.len(),
            "",
            "first",
            "second",
            "third",
            "fourth",
        );
        let mut wrong = Vec::new();
        let mut row = |name: String, margin: Margin, value: &dyn Fn(&Sample) -> f64| {
            let quarters = quarters(&self.samples.iter().map(value).collect::<Vec<_>>());
            let cells: String = quarters.iter().map(|median| format!("{median:>12.1}")).collect();
            let _ = writeln!(table, "{name:<34}{cells}");
            wrong.extend(judge(&name, quarters, margin).err());
        };
        for (index, who) in ["agent", "server"].into_iter().enumerate() {
            row(format!("{who}: RssAnon, KiB"), memory, &|sample| sample.memory[index].anonymous);
            row(format!("{who}: RssShmem, KiB"), SHARED, &|sample| sample.memory[index].shared);
            row(format!("{who}: VmSize, KiB"), ADDRESSES, &|sample| sample.memory[index].addresses);
            row(format!("{who}: mappings"), MAPPINGS, &|sample| sample.memory[index].mappings);
        }
        row("agent: CPU of a round, ms".to_owned(), times, &|sample| milliseconds(sample.times.agent));
        row("server: CPU of a round, ms".to_owned(), times, &|sample| milliseconds(sample.times.server));
        row("a round, ms".to_owned(), ANYTHING, &|sample| milliseconds(sample.times.wall));
        row("a round / the yardstick".to_owned(), quotient, &|sample| {
            sample.times.wall.as_secs_f64() / sample.yardstick.as_secs_f64()
        });
        if wrong.is_empty() { Ok(table) } else { Err(format!("{}\n{table}", wrong.join("\n"))) }
    }
}

/// The medians of a series' four quarters.
fn quarters(values: &[f64]) -> [f64; 4] {
    std::array::from_fn(|quarter| {
        let mut part = values[values.len() * quarter / 4..values.len() * (quarter + 1) / 4].to_vec();
        part.sort_by(f64::total_cmp);
        part[part.len() / 2]
    })
}

/// Whether the fourth quarter has no more than the second, within the margin.
fn judge(name: &str, [_, second, _, fourth]: [f64; 4], margin: Margin) -> Result<(), String> {
    if fourth <= second * margin.ratio + margin.more {
        return Ok(());
    }
    Err(format!(
        "{name} grew from {second:.1} in the second quarter to {fourth:.1} in the fourth, which {margin:?} does not allow"
    ))
}

#[test]
fn a_series_that_grows_is_refused() {
    let growing: Vec<f64> = (0..400).map(|round| 5000.0 + 10.0 * f64::from(round)).collect();
    assert!(judge("it", quarters(&growing), MEMORY).is_err());
    let slow: Vec<f64> = (0..400).map(|round| 20.0 + 0.1 * f64::from(round)).collect();
    assert!(judge("it", quarters(&slow), TIMES).is_err());
    let kept: Vec<f64> = (0..400).map(|round| if round < 300 { 0.0 } else { 4.0 }).collect();
    assert!(judge("it", quarters(&kept), SHARED).is_err());
}

#[test]
fn a_series_that_varies_or_grows_at_first_is_not() {
    let settling: Vec<f64> = (0..400).map(|round| 9000.0 - 5000.0 / f64::from(1 + round)).collect();
    assert!(judge("it", quarters(&settling), MEMORY).is_ok());
    let noisy: Vec<f64> = (0..400).map(|round| if round % 3 == 0 { 90.0 } else { 20.0 }).collect();
    assert!(judge("it", quarters(&noisy), TIMES).is_ok());
    assert_eq!(quarters(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), [2.0, 4.0, 6.0, 8.0]);
}
