//! The parts of a run: which roles take turns, and which rows come of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::against;
use crate::costs::{family, private_memory, shared_memory};
use crate::database;
use crate::measure::{Effort, Participant, host, together};
use crate::processes::Fallible;
use crate::report::Goal::{AtLeast, AtMost};
use crate::report::{Report, Row, Unit};
use crate::set;

/// How a run is made.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Only a check that everything runs.
    pub(crate) quick: bool,
    /// The directory of all files.
    pub(crate) scratch: PathBuf,
}

impl Plan {
    fn effort(&self, rounds: usize, milliseconds: u64) -> Effort {
        if self.quick {
            Effort { rounds: 2, round: Duration::from_millis(10) }
        } else {
            Effort { rounds, round: Duration::from_millis(milliseconds) }
        }
    }

    /// Of statements: a round is one statement.
    fn statements(&self) -> Effort {
        self.effort(11, 1)
    }

    /// The data folder, and the bytes of the database in it.
    fn database(&self) -> Fallible<(PathBuf, u64)> {
        let data = self.scratch.join("data");
        let bytes = database::make(&data, if self.quick { 8 << 20 } else { 512 << 20 })?;
        Ok((data, bytes))
    }

    /// The file of the backup WITH `checksum`.
    fn backup(&self, checksum: &str) -> PathBuf {
        self.scratch.join(format!("{checksum}.bak"))
    }
}

/// The parts, in the order of a run.
pub(crate) const PARTS: [&str; 8] =
    ["command", "streaming", "backup", "restore", "disk", "statement", "handles", "set"];

/// Runs one part.
pub(crate) fn run(part: &str, plan: &Plan, report: &mut Report) -> Fallible<()> {
    match part {
        "command" => command(plan, report),
        "streaming" => streaming(plan, report),
        "backup" => backup(plan, report),
        "restore" => restore(plan, report),
        "disk" => disk(plan, report),
        "statement" => statement(plan, report),
        "handles" => handles(plan, report),
        _ => costs(plan, report),
    }
}

/// A path as an argument of a role.
fn text(path: &Path) -> Fallible<&str> {
    path.to_str().ok_or_else(|| format!("{} is not in UTF-8", path.display()).into())
}

fn command(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "round trip of a command, both sides awake";
    let roles: [&[&str]; 3] = [&["set-commands", "1"], &["ping-pong"], &["iceoryx"]];
    let [ours, bare, iceoryx] = together(&plan.scratch, roles, plan.effort(15, 120))?;
    let row = |what| Row::new(PART, what, Unit::Time, &ours.elapsed);
    report.add([
        row("command").cost_of("bare ping-pong", &bare.elapsed).goal(AtMost(3.0)),
        row("command: times as fast").speed_of("iceoryx2, polling", &iceoryx.elapsed).goal(AtLeast(3.0)),
    ]);
    Ok(())
}

fn streaming(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "streaming: copied into a buffer, summed by the other side";
    for (kib, of_the_ring) in [(64, 0.85), (1024, 0.95)] {
        let bytes = kib << 10;
        let size = bytes.to_string();
        let roles: [&[&str]; 3] = [&["set-data", &size], &["ring", &size], &["socket", &size]];
        let [ours, ring, socket] = together(&plan.scratch, roles, plan.effort(15, 100))?;
        let row = |what| Row::new(PART, what, Unit::Throughput(bytes), &ours.elapsed);
        report.add([
            row(format!("{kib} KiB")).speed_of("bare ring", &ring.elapsed).goal(AtLeast(of_the_ring)),
            row(format!("{kib} KiB")).speed_of("Unix socket", &socket.elapsed).goal(AtLeast(5.0)),
        ]);
    }
    Ok(())
}

const PLAIN: &str = "NO_CHECKSUM";
const SUMMED: &str = "CHECKSUM";

fn backup(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "BACKUP of a database in the page cache";
    let (data, bytes) = plan.database()?;
    let data = text(&data)?;
    let roles: [&[&str]; 3] =
        [&["backup", data, PLAIN, "count", ""], &["backup", data, SUMMED, "count", ""], &["read", data]];
    let [plain, summed, read] = together(&plan.scratch, roles, plan.statements())?;
    for (what, ours) in [(PLAIN, &plain), (SUMMED, &summed)] {
        let row = |unit, values| Row::new(PART, format!("to a client that counts, {what}"), unit, values);
        let cpu = row(Unit::CpuPerGigabyte(bytes), &ours.cpu).cost_of("reading the files", &read.cpu);
        let speed = row(Unit::Throughput(bytes), &ours.elapsed).speed_of("reading the files", &read.elapsed);
        report.add([speed.goal(AtLeast(0.95)), cpu]);
    }
    let files = [plan.backup(PLAIN), plan.backup(SUMMED)];
    let roles: [&[&str]; 3] = [
        &["backup", data, PLAIN, "create", text(&files[0])?],
        &["backup", data, SUMMED, "create", text(&files[1])?],
        &["copy", data],
    ];
    let [plain, summed, copy] = together(&plan.scratch, roles, plan.statements())?;
    for (what, ours) in [(PLAIN, &plain), (SUMMED, &summed)] {
        let row = Row::new(PART, format!("durable in a file, {what}"), Unit::Throughput(bytes), &ours.elapsed);
        report.add([row.speed_of("cp, then sync", &copy.elapsed).goal(AtLeast(0.95))]);
    }
    Ok(())
}

/// Makes the backup WITH `checksum`, unless it is there.
fn make_backup(plan: &Plan, data: &str, checksum: &str) -> Fallible<PathBuf> {
    let file = plan.backup(checksum);
    if !file.exists() {
        let mut once = Participant::new(&plan.scratch, &["backup", data, checksum, "create", text(&file)?])?;
        once.process()?.run(1)?;
        once.end()?;
    }
    Ok(file)
}

fn restore(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "RESTORE of a backup, durable";
    let (data, bytes) = plan.database()?;
    let data = text(&data)?;
    let files = [make_backup(plan, data, PLAIN)?, make_backup(plan, data, SUMMED)?];
    let (plain, summed) = (text(&files[0])?, text(&files[1])?);
    let roles: [&[&str]; 3] = [&["restore", data, "open", plain], &["restore", data, "open", summed], &["copy", data]];
    let [from_plain, from_summed, copy] = together(&plan.scratch, roles, plan.statements())?;
    for (what, ours) in [(PLAIN, &from_plain), (SUMMED, &from_summed)] {
        let row = Row::new(PART, format!("from a file, {what}"), Unit::Throughput(bytes), &ours.elapsed);
        report.add([row.speed_of("cp, then sync", &copy.elapsed).goal(AtLeast(0.95))]);
    }
    let roles: [&[&str]; 3] =
        [&["restore", data, "memory", plain], &["restore", data, "memory", summed], &["write", data]];
    let [from_plain, from_summed, write] = together(&plan.scratch, roles, plan.statements())?;
    for (what, ours) in [(PLAIN, &from_plain), (SUMMED, &from_summed)] {
        let row = |unit, values| Row::new(PART, format!("from the client's memory, {what}"), unit, values);
        let cpu = row(Unit::CpuPerGigabyte(bytes), &ours.cpu).cost_of("writing the files, then sync", &write.cpu);
        let speed = row(Unit::Throughput(bytes), &ours.elapsed);
        report.add([speed.speed_of("writing the files, then sync", &write.elapsed).goal(AtLeast(0.85)), cpu]);
    }
    Ok(())
}

fn disk(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "DISK: without a client, durable";
    let (data, bytes) = plan.database()?;
    let data = text(&data)?;
    let (new, old) = (plan.scratch.join("disk.bak"), make_backup(plan, data, PLAIN)?);
    let roles: [&[&str]; 3] =
        [&["disk", "backup", data, text(&new)?], &["disk", "restore", data, text(&old)?], &["copy", data]];
    let [backup, restore, copy] = together(&plan.scratch, roles, plan.statements())?;
    for (what, ours) in [("BACKUP", &backup), ("RESTORE", &restore)] {
        let row = Row::new(PART, what, Unit::Throughput(bytes), &ours.elapsed);
        report.add([row.speed_of("cp, then sync", &copy.elapsed).goal(AtLeast(0.85))]);
    }
    database::remove(&new)
}

fn statement(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "what a statement costs: a database without content";
    let roles: [&[&str]; 2] = [&["empty", "backup"], &["empty", "restore"]];
    let [backup, restore] = together(&plan.scratch, roles, plan.effort(21, 1))?;
    let row = |what, values| Row::new(PART, what, Unit::Time, values).goal(AtMost(5e6));
    report.add([row("BACKUP", &backup.elapsed), row("RESTORE", &restore.elapsed)]);
    Ok(())
}

fn handles(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "a handle got, and mapped by another process";
    let roles: [&[&str]; 2] = [&["handles", "of-command"], &["handles", "by-address"]];
    let [of_command, by_address] = together(&plan.scratch, roles, plan.effort(15, 100))?;
    let row = |what, values| Row::new(PART, what, Unit::Time, values).goal(AtMost(250.0));
    report.add([row("of a command", &of_command.elapsed), row("of an address", &by_address.elapsed)]);
    Ok(())
}

fn costs(plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "what a set costs";
    let starts = starts(plan)?;
    let start = Row::new(PART, "start: create, join, configure, open, close", Unit::Time, &starts);
    let memory = [memory(plan, 64)?];
    let memory = Row::new(PART, "memory beyond the buffers, 64 devices", Unit::Kibibytes, &memory);
    report.add([start.goal(AtMost(2e6)), memory.goal(AtMost(1024.0))]);
    Ok(())
}

/// Nanoseconds of starts, in short turns: the host of a virtual machine leaves it alone for short times only.
fn starts(plan: &Plan) -> Fallible<Vec<f64>> {
    let mut starts = Participant::new(&plan.scratch, &["set-starts"])?;
    let driver = starts.process()?;
    driver.run(1)?;
    let turns = if plan.quick { 1 } else { 20 };
    let (mut found, mut again) = (Vec::new(), 10 * turns);
    for _ in 0..turns {
        let mut ten = || (0..10).map(|_| Ok(driver.run(1)?.elapsed.as_nanos() as f64)).collect::<Fallible<Vec<_>>>();
        found.extend(host::undisturbed(&mut again, &mut ten)?);
    }
    starts.end()?;
    Ok(found)
}

/// Kilobytes of a set beyond its buffers: what both sides map of it, and what each has for itself beyond a process of this
/// program that does nothing.
fn memory(plan: &Plan, devices: u32) -> Fallible<f64> {
    let mut nothing = Participant::new(&plan.scratch, &["nothing"])?;
    nothing.process()?.run(1)?;
    let alone = private_memory(nothing.process()?.id())?;
    nothing.end()?;
    let mut set = Participant::new(&plan.scratch, &["set-commands", &devices.to_string()])?;
    let driver = set.process()?;
    driver.run(devices.into())?;
    let mut total = shared_memory(driver.id())? - (set::UNUSED_BYTES >> 10) as f64;
    for process in family(driver.id())? {
        total += (private_memory(process)? - alone).max(0.0);
    }
    set.end()?;
    Ok(total)
}

/// Rows of two builds of `vdi-sim`.
pub(crate) fn against(ours: &Path, other: &Path, plan: &Plan, report: &mut Report) -> Fallible<()> {
    const PART: &str = "this build and another one of vdi-sim";
    let (data, bytes) = plan.database()?;
    let folders = plan.scratch.join("folders");
    against::link_files(&data, &folders)?;
    let (data, folders, ours, other) = (text(&data)?, text(&folders)?, text(ours)?, text(other)?);
    for (words, what) in
        [("BACKUP to /dev/null", "discarded"), ("BACKUP to a file", "durable"), ("RESTORE", "restored")]
    {
        for checksum in [PLAIN, SUMMED] {
            let roles: [&[&str]; 2] =
                [&["build", ours, data, folders, what, checksum], &["build", other, data, folders, what, checksum]];
            let [ours, other] = together(&plan.scratch, roles, plan.statements())?;
            let row = |unit, values| Row::new(PART, format!("{words}, {checksum}"), unit, values);
            let cpu = row(Unit::CpuPerGigabyte(bytes), &ours.cpu).cost_of("the other", &other.cpu);
            let speed = row(Unit::Throughput(bytes), &ours.elapsed).speed_of("the other", &other.elapsed);
            report.add([speed.goal(AtLeast(0.9)), cpu]);
        }
    }
    Ok(())
}
