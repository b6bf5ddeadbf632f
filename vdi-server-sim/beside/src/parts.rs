//! The parts of a run: who takes part, and what is asked of ours.

use std::path::Path;
use std::time::Duration;

use vdi_beside::processes::{Fallible, Process, Start};

use crate::backup;
use crate::costs;
use crate::measure::{Effort, Participant, Spread, take_turns};
use crate::report::Goal::{AtLeast, AtMost};
use crate::report::{Goal, Point, Report, Row, Unit};
use crate::roles::cores;

/// How a run is made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Only a check that everything runs.
    pub(crate) quick: bool,
}

impl Plan {
    fn effort(&self, rounds: usize, milliseconds: u64) -> Effort {
        if self.quick {
            Effort { rounds: 2, round: Duration::from_millis(10) }
        } else {
            Effort { rounds, round: Duration::from_millis(milliseconds) }
        }
    }

    /// Bytes of the database.
    fn database(&self) -> u64 {
        if self.quick { 8 << 20 } else { 512 << 20 }
    }

    /// How long an idle set is watched.
    fn idle(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 10_000 })
    }
}

/// The parts, in the order of a run.
pub(crate) const PARTS: [&str; 9] =
    ["round-trip", "asleep", "crowded", "streaming", "backup", "touch", "handles", "devices", "costs"];

/// Runs one part.
pub(crate) fn run(part: &'static str, scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    match part {
        "round-trip" => round_trip(scratch, plan, report),
        "asleep" => asleep(scratch, plan, report),
        "crowded" => crowded(scratch, plan, report),
        "streaming" => streaming(scratch, plan, report),
        "backup" => backups(scratch, plan, report),
        "touch" => touch(scratch, plan, report),
        "handles" => handles(scratch, plan, report),
        "devices" => devices(scratch, plan, report),
        _ => costs(scratch, plan, report),
    }
}

/// A role with its words.
fn role<'a>(words: &'a [&'a str]) -> impl Fn(&Path) -> Start + 'a {
    move |dir| words[1..].iter().fold(Start::new(words[0], dir), |start, word| start.with(word))
}

/// Starts the participants, has them take turns, and ends them.
fn together<F: Fn(&Path) -> Start>(
    scratch: &Path,
    starts: impl IntoIterator<Item = F>,
    effort: Effort,
) -> Fallible<Vec<Vec<f64>>> {
    let mut participants =
        starts.into_iter().map(|start| Participant::new(scratch, start)).collect::<Fallible<Vec<_>>>()?;
    let times = take_turns(&mut participants, effort)?;
    participants.into_iter().try_for_each(Participant::end)?;
    Ok(times)
}

fn round_trip(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "round trip of a command, both sides awake";
    let words: [&[&str]; 11] = [
        &["set-records", "0"],
        &["set-writes"],
        &["ping-pong"],
        &["rings"],
        &["iceoryx", "0", "topics"],
        &["iceoryx", "0", "requests"],
        &["iceoryx", "0", "events"],
        &["semaphores", "0"],
        &["wire", "unix"],
        &["wire", "seqpacket"],
        &["wire", "pipe"],
    ];
    let times = together(scratch, words.map(role), plan.effort(15, 120))?;
    let [ours, writes, bare, rings, topics, requests, events, semaphores, unix, packets, pipe] = &times[..] else {
        return Err("a participant is missing".into());
    };
    let faster =
        |what: &str, other: (&str, &[f64]), goal: Goal| Row::faster(PART, what, Unit::Nanoseconds, ours, other, goal);
    report.add(vec![
        Row::times(PART, "command", Unit::Nanoseconds, ours, ("ping-pong", bare), AtMost(2.5)),
        Row::times(PART, "command", Unit::Nanoseconds, ours, ("its rings alone", rings), Goal::None),
        Row::times(PART, "Write of 4 KiB, summed", Unit::Nanoseconds, writes, ("ping-pong", bare), Goal::None),
        faster("command: times faster", ("iceoryx2 polling, topics", topics), AtLeast(3.0)),
        faster("command: times faster", ("iceoryx2 polling, requests", requests), AtLeast(3.0)),
        faster("command: times faster", ("iceoryx2 events", events), Goal::None),
        faster("command: times faster", ("POSIX semaphores", semaphores), Goal::None),
        faster("command: times faster", ("Unix stream socket", unix), Goal::None),
        faster("command: times faster", ("Unix packet socket", packets), Goal::None),
        faster("command: times faster", ("pipe", pipe), Goal::None),
    ]);
    Ok(())
}

fn asleep(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "round trip of a command, both sides asleep";
    // Ten times as long as a wait spins.
    const PAUSE: &str = "200";
    let us = Unit::Microseconds;
    // Where the processes are decides more than what they do, so it is the same for all; left to the system, a process that
    // is woken often comes to the CPU of the one that wakes it, or not, and a CPU that sleeps is slow to wake.
    let everywhere = [("one CPU", Some((0, 0))), ("a CPU each", Some((0, 1))), ("CPUs left to the system", None)];
    for (places, cpus) in everywhere {
        if cpus.is_some_and(|(_, peer)| peer >= cores()) {
            continue;
        }
        for (pause, how) in [("0", "at once"), (PAUSE, "200 us after the one before")] {
            let words: [&[&str]; 8] = [
                &["set-records", pause],
                &["futex", pause],
                &["futex-sliced", pause],
                &["semaphores", pause],
                &["iceoryx", pause, "events"],
                &["set-from-routine", pause],
                &["futex-threads", pause],
                &["futex-threads-sliced", pause],
            ];
            // At once, each command is sent by the routine of the one before.
            let words = if pause == "0" { &words[..5] } else { &words[..] };
            let starts = words.iter().map(|words| {
                move |dir: &Path| {
                    let start = role(words)(dir);
                    // What comes at once would find waits that still spin.
                    let start = if pause == "0" { start.env("VDI_SPIN_US", "0") } else { start };
                    cpus.into_iter().fold(start, |start, (driver, peer)| start.on_cpus(driver, peer))
                }
            });
            let times = together(scratch, starts, plan.effort(11, 80))?;
            let [ours, futex, sliced, semaphores, events, more @ ..] = &times[..] else {
                return Err("a participant is missing".into());
            };
            let what = format!("{how}, {places}");
            let faster = format!("{what}: times faster");
            let goal = AtMost(1.15);
            let mut rows = vec![
                Row::times(PART, &what, us, ours, ("futex", futex), goal),
                Row::times(PART, &what, us, ours, ("futex with a time-out", sliced), Goal::None),
                Row::faster(PART, &faster, us, ours, ("POSIX semaphores", semaphores), Goal::None),
                Row::faster(PART, &faster, us, ours, ("iceoryx2 events", events), Goal::None),
            ];
            if let [routine, threads, threads_sliced] = more {
                let sent = format!("{how}, sent by its routine, {places}");
                rows.extend([
                    Row::times(PART, &what, us, ours, ("futex, three threads", threads), Goal::None),
                    Row::times(PART, &what, us, ours, ("the same with a time-out", threads_sliced), Goal::None),
                    Row::times(PART, &sent, us, routine, ("futex", futex), goal),
                    Row::times(PART, &sent, us, routine, ("futex with a time-out", sliced), Goal::None),
                ]);
            }
            report.add(rows);
        }
    }
    Ok(())
}

/// Where there is one CPU for both sides, and where others want the CPUs as well: whoever spins keeps the peer from running.
fn crowded(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "round trip of a command, without a CPU for each side";
    let us = Unit::Microseconds;
    let words: [&[&str]; 4] =
        [&["set-records", "0"], &["semaphores", "0"], &["ping-pong"], &["iceoryx", "0", "topics"]];
    for loaded in [false, true] {
        let mut others = Vec::new();
        for _ in 0..if loaded { 2 * cores() } else { 0 } {
            others.push(Start::new("busy", scratch).start()?);
        }
        let starts = words.map(|words| {
            move |dir: &Path| {
                let start = role(words)(dir);
                if loaded { start } else { start.on_cpus(0, 0) }
            }
        });
        let times = together(scratch, starts, plan.effort(7, 200))?;
        others.into_iter().try_for_each(Process::end)?;
        let [ours, semaphores, bare, topics] = &times[..] else { return Err("a participant is missing".into()) };
        let what = match loaded {
            false => "one CPU for both: times faster".to_owned(),
            true => format!("beside {} busy processes: times faster", 2 * cores()),
        };
        let faster = |other| Row::faster(PART, &what, us, ours, other, Goal::None);
        report.add(vec![
            faster(("POSIX semaphores", semaphores)),
            faster(("ping-pong", bare)),
            faster(("iceoryx2 polling, topics", topics)),
        ]);
    }
    Ok(())
}

fn streaming(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "streaming: copied into the buffer, summed by the other side";
    const KIB: u64 = 1 << 10;
    const SIZES: [u64; 6] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB];
    for size in SIZES {
        let goal = match size / KIB {
            64 => AtLeast(0.85),
            1024 => AtLeast(0.95),
            _ => Goal::None,
        };
        let asked = !matches!(goal, Goal::None);
        if plan.quick && !asked {
            continue;
        }
        let words = size.to_string();
        let words: [&[&str]; 5] = [
            &["set-data", &words],
            &["ring", &words],
            &["semaphores-data", &words],
            &["wire-data", "unix", &words],
            &["wire-data", "pipe", &words],
        ];
        let times = together(scratch, words.map(role), plan.effort(if asked { 15 } else { 7 }, 100))?;
        for (series, times) in ["set", "bare ring", "POSIX semaphores", "Unix socket", "pipe"].into_iter().zip(&times) {
            let speeds: Vec<f64> = times.iter().map(|time| size as f64 / time).collect();
            report.points.push(Point { plot: "throughput", series, x: size as f64, y: Spread::of(&speeds) });
        }
        let [ours, ring, semaphores, unix, pipe] = &times[..] else { return Err("a participant is missing".into()) };
        let wires = if asked { AtLeast(5.0) } else { Goal::None };
        let what = format!("{} KiB", size / KIB);
        let row = |other, goal| Row::throughput(PART, &what, size, ours, other, goal);
        report.add(vec![
            row(("bare ring", ring), goal),
            row(("POSIX semaphores", semaphores), Goal::None),
            row(("Unix socket", unix), wires),
            row(("pipe", pipe), wires),
        ]);
    }
    Ok(())
}

fn backups(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "BACKUP of a database in the page cache";
    let data = backup::make_database(scratch, plan.database())?;
    let (_, bytes) = backup::files(&data)?;
    let data = data.to_str().ok_or("the directory's name is not in UTF-8")?;
    let bare = ", NO_CHECKSUM";
    let words: [&[&str]; 6] = [
        &["backup", data, "count", bare],
        &["backup", data, "count", ""],
        &["bare-backup", data, ""],
        &["bare-backup", data, "summed"],
        &["read", data],
        &["program", data, "cat"],
    ];
    let times = together(scratch, words.map(role), plan.effort(15, 1))?;
    let [ours, summed, pair, summed_pair, read, cat] = &times[..] else {
        return Err("a participant is missing".into());
    };
    let row = |what, ours, other, goal| Row::throughput(PART, what, bytes, ours, other, goal);
    report.add(vec![
        row("client counts, NO_CHECKSUM", ours, ("reading blocks of 1 MB", read), AtLeast(0.95)),
        row("client counts, with checksums", summed, ("reading blocks of 1 MB", read), AtLeast(0.95)),
        row("client counts, NO_CHECKSUM", ours, ("bare pair of processes", pair), Goal::None),
        row("client counts, with checksums", summed, ("bare pair, with a CRC of each byte", summed_pair), Goal::None),
        row("client counts, NO_CHECKSUM", ours, ("cat > /dev/null", cat), Goal::None),
        row("client counts, with checksums", summed, ("cat > /dev/null", cat), Goal::None),
    ]);
    let words: [&[&str]; 3] =
        [&["backup", data, "file", bare], &["backup", data, "file", ""], &["program", data, "cp"]];
    let times = together(scratch, words.map(role), plan.effort(7, 1))?;
    let [ours, summed, cp] = &times[..] else { return Err("a participant is missing".into()) };
    report.add(vec![
        row("durable in a file, NO_CHECKSUM", ours, ("cp, then sync", cp), AtLeast(0.95)),
        row("durable in a file, with checksums", summed, ("cp, then sync", cp), AtLeast(0.95)),
    ]);
    Ok(())
}

fn touch(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "an area of 4 MiB, for the first time";
    for (what, part, unit) in [
        ("made", "making", Unit::Microseconds),
        ("a byte written into each page", "touching", Unit::Microseconds),
        ("given back", "giving back", Unit::Microseconds),
        ("page faults", "faults", Unit::Count),
    ] {
        let words: [&[&str]; 2] = [&["touch", part, ""], &["touch", part, "populated"]];
        let times = together(scratch, words.map(role), plan.effort(7, 50))?;
        report.add(vec![Row::times(PART, what, unit, &times[0], ("populated by one call", &times[1]), Goal::None)]);
    }
    Ok(())
}

fn handles(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "handles";
    let words: [&[&str]; 9] = [
        &["handles", "of-command"],
        &["handles", "by-address"],
        &["handles", "map"],
        &["handles", "release"],
        &["handles-bare", "map"],
        &["handles-fast", "of-command"],
        &["handles-fast", "by-address"],
        &["handles", "without-lease"],
        &["handles-bare", "by-address"],
    ];
    let times = together(scratch, words.map(role), plan.effort(15, 100))?;
    let row = |what, at: usize, goal| Row::alone(PART, what, Unit::Nanoseconds, &times[at], goal);
    report.add(vec![
        row("GetBufferHandle of a command, MapBufferHandle", 0, AtMost(25.0)),
        row("GetBufferHandle of an address, MapBufferHandle", 1, AtMost(25.0)),
        row("of a command, while the core is as fast as ever", 5, Goal::None),
        row("of an address, while the core is as fast as ever", 6, Goal::None),
        row("of an address, mapped without a lease, as C++ does", 7, Goal::None),
        row("the locked instructions of an address and its mapping", 8, Goal::None),
        row("MapBufferHandle alone", 2, Goal::None),
        row("its locked instructions alone", 4, Goal::None),
        row("a lease given up", 3, AtMost(25.0)),
    ]);
    Ok(())
}

fn devices(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "a command, of several devices";
    const COUNTS: [usize; 4] = [1, 4, 16, 64];
    let counts = if plan.quick { &COUNTS[..2] } else { &COUNTS };
    let threads = cores().to_string();
    type Words = Vec<String>;
    fn owned(words: &[&str]) -> Words {
        words.iter().map(|word| (*word).to_owned()).collect()
    }
    type Ways = (&'static str, Box<dyn Fn(&str, usize) -> Words>);
    let ways: [Ways; 5] = [
        ("set, polled", Box::new(|n, _| owned(&["set-many", n, "1", "polling"]))),
        ("set, a thread a device", Box::new(|n, _| owned(&["set-many", n, "1", "threads"]))),
        ("set, 64 under way", Box::new(|n, count| owned(&["set-many", n, &(64 / count).to_string(), "polling"]))),
        ("bare words", Box::new(|n, count| owned(&["ping-pong-many", n, &threads_for(count).to_string()]))),
        ("iceoryx2, polled", Box::new(|n, count| owned(&["iceoryx-many", n, &threads_for(count).to_string()]))),
    ];
    for (series, words) in ways {
        let starts = counts.iter().map(|count| {
            let words = words(&count.to_string(), *count);
            move |dir: &Path| words[1..].iter().fold(Start::new(&words[0], dir), |start, word| start.with(word))
        });
        let times = together(scratch, starts, plan.effort(11, 100))?;
        // As many threads as there are cores are asked for.
        let goal = if series.starts_with("set") && !series.contains("a thread") { AtMost(1.5) } else { Goal::None };
        let mut rows = Vec::new();
        for (count, times_of_count) in counts.iter().zip(&times) {
            if series != "set, 64 under way" {
                let (x, y) = (*count as f64, Spread::of(times_of_count));
                report.points.push(Point { plot: "devices", series, x, y });
            }
            if *count > 1 {
                let what = format!("{series}: {count} devices, {threads} threads");
                let what = if series.contains("a thread") { format!("{series}: {count} devices") } else { what };
                let goal = if count == counts.last().unwrap_or(&0) { goal } else { Goal::None };
                rows.push(Row::times(PART, &what, Unit::Nanoseconds, times_of_count, ("of 1", &times[0]), goal));
            }
        }
        report.add(rows);
    }
    Ok(())
}

fn threads_for(devices: usize) -> usize {
    cores().min(devices)
}

fn costs(scratch: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "what a set costs";
    let (counter, calls) = costs::calls(scratch, if plan.quick { 2_000 } else { 50_000 })?;
    let what = format!("system calls of a command, busy ({counter})");
    report.add(vec![Row::alone(PART, &what, Unit::Calls, &calls, AtMost(0.05))]);
    let watched = plan.idle();
    let what = format!("CPU of an idle set in {watched:?}");
    // In proportion to 10 s, where less is watched.
    let goal = AtMost(5.0 * watched.as_secs_f64() / 10.0);
    let idle = costs::idle(scratch, watched)?;
    report.add(vec![
        Row::alone(PART, &what, Unit::Milliseconds, &[idle.one], goal),
        Row::alone(PART, &format!("{what}, 64 devices"), Unit::Milliseconds, &[idle.many], Goal::None),
    ]);
    let starts = costs::starts(scratch, if plan.quick { 1 } else { 20 })?;
    let what = "start: create, join, configure, open, close";
    report.add(vec![Row::alone(PART, what, Unit::Milliseconds, &starts, AtMost(2.0))]);
    let memory = |devices| costs::memory(scratch, devices);
    report.add(vec![
        Row::alone(PART, "memory beyond the buffers, 1 device", Unit::Kilobytes, &[memory(1)?], AtMost(1024.0)),
        Row::alone(PART, "memory beyond the buffers, 64 devices", Unit::Kilobytes, &[memory(64)?], AtMost(1024.0)),
    ]);
    Ok(())
}
