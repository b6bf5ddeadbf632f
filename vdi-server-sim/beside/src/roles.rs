//! What each process does, by the name of its role.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use vdi_beside::pollers::at_work;
use vdi_beside::processes::{Fallible, Process, Start, die_with_parent, on_demand, rounds, stay_on_cpu};
use vdi_beside::set::{self, DEPTH, Paused, Repeat, Server, Serving};

use crate::backup;
use crate::bare_backup;
use crate::handles;
use crate::touch;
use crate::ways::iceoryx::{self, Pattern};
use crate::ways::wires::{self, Kind};
use crate::ways::{WARM_UP, bare, semaphores};

/// Bytes of the least Write that a set can have here: a block.
const BLOCK: u32 = 4096;

/// Threads that serve several devices: as many as there are cores.
pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Runs this process's role. `words` begin with its name and directory.
pub(crate) fn run(words: &[String]) -> Fallible<()> {
    die_with_parent()?;
    stay_on_cpu()?;
    let [role, dir, rest @ ..] = words else { return Err("a role has a name and a directory".into()) };
    let dir = Path::new(dir);
    let word = |index: usize| rest.get(index).map(String::as_str).ok_or("an argument of the role is missing");
    let number = |index: usize| -> Fallible<usize> { Ok(word(index)?.parse()?) };
    let path = |index: usize| word(index).map(PathBuf::from);
    let pause = || -> Fallible<Duration> { Ok(Duration::from_micros(number(0)? as u64)) };
    match role.as_str() {
        "set-records" => drive_set(dir, 1, Bytes::None, pause()?),
        "set-from-routine" => drive_from_routine(dir, pause()?),
        "set-writes" => drive_set(dir, 1, Bytes::Written, Duration::ZERO),
        "set-data" => drive_set(dir, DEPTH as u32, Bytes::Copied(number(0)? as u32), Duration::ZERO),
        "set-many" => drive_many(dir, number(0)? as u32, number(1)? as u32, word(2)?, (BLOCK, 1)),
        // Commands without data: the buffers are there, and nobody touches them.
        "set-memory" => drive_many(dir, number(0)? as u32, number(1)? as u32, word(2)?, (1 << 20, DEPTH as u32)),
        "set-client" => set::client(dir, number(0)? as u32, serving(word(1)?)),
        "set-starts" => drive_starts(dir),
        "set-starts-client" => starts_client(dir),
        "nothing" => rounds(|_| Ok(Duration::ZERO)),
        "busy" => busy(),
        "handles" => handles::drive(dir, word(0)?, false),
        "handles-fast" => handles::drive(dir, word(0)?, true),
        "handles-bare" => handles::drive_bare(word(0)?),
        "touch" => touch::drive(word(0)?, word(1)? == "populated"),
        "backup" => backup::drive(dir, &path(0)?, word(1)?, word(2)?),
        "backup-client" => backup::client(dir, word(0)?),
        "bare-backup" => bare_backup::drive(dir, &path(0)?, word(1)? == "summed"),
        "bare-backup-peer" => bare_backup::peer(&path(0)?),
        "read" => backup::drive_read(&path(0)?),
        "program" => backup::drive_program(dir, &path(0)?, word(1)?),

        "ping-pong" => bare::drive_ping_pong(dir),
        "ping-pong-peer" => bare::ping_pong_peer(&path(0)?),
        "rings" => bare::drive_rings(dir),
        "rings-peer" => bare::rings_peer(&path(0)?),
        "ping-pong-many" => bare::drive_many(dir, number(0)?, number(1)?),
        "ping-pong-many-peer" => bare::many_peer(&path(0)?, number(1)?, number(2)?),
        "futex" => bare::drive_futex(dir, pause()?, false),
        "futex-sliced" => bare::drive_futex(dir, pause()?, true),
        "futex-threads" => bare::drive_futex_threads(dir, pause()?, false),
        "futex-threads-sliced" => bare::drive_futex_threads(dir, pause()?, true),
        "futex-peer" => bare::futex_peer(&path(0)?, word(1)? == "true"),
        "ring" => bare::drive_ring(dir, number(0)?),
        "ring-peer" => bare::ring_peer(&path(0)?, number(1)?),
        "semaphores" => semaphores::drive_records(dir, pause()?),
        "semaphores-peer" => semaphores::records_peer(&path(0)?),
        "semaphores-data" => semaphores::drive_data(dir, number(0)?),
        "semaphores-data-peer" => semaphores::data_peer(&path(0)?, number(1)?),
        "wire" => wires::drive_records(dir, Kind::parse(word(0)?)?),
        "wire-peer" => wires::records_peer(dir, Kind::parse(word(0)?)?),
        "wire-data" => wires::drive_data(dir, Kind::parse(word(0)?)?, number(1)?),
        "wire-data-peer" => wires::data_peer(dir, Kind::parse(word(0)?)?, number(1)?),
        "iceoryx" => iceoryx::drive_records(dir, Pattern::parse(word(1)?)?, pause()?),
        "iceoryx-peer" => iceoryx::records_peer(dir, Pattern::parse(word(0)?)?),
        "iceoryx-many" => iceoryx::drive_many(dir, number(0)?, number(1)?),
        "iceoryx-many-peer" => iceoryx::many_peer(dir, number(0)?, number(1)?),
        other => Err(format!("no role is called {other}").into()),
    }
}

/// Keeps a CPU busy until the input ends.
fn busy() -> Fallible<()> {
    // It ends with the process.
    std::thread::spawn(|| {
        loop {
            std::hint::black_box(());
        }
    });
    on_demand(|_| Ok(()))
}

// --- sets -------------------------------------------------------------------------------------------------------------

/// How a client's threads serve several devices, by a word.
fn serving(word: &str) -> Serving {
    if word == "threads" { Serving::ThreadADevice } else { Serving::Polling(cores()) }
}

fn set_client(dir: &Path, devices: u32, serving: &str) -> Fallible<Process> {
    Start::new("set-client", dir).with(devices.to_string()).with(serving).start()
}

/// What the commands of a driver have.
enum Bytes {
    None,
    /// A block, which stays as it is.
    Written,
    /// So many, which are copied from a source each time.
    Copied(u32),
}

fn drive_set(dir: &Path, under_way: u32, bytes: Bytes, pause: Duration) -> Fallible<()> {
    let (size, copies) = match bytes {
        Bytes::None | Bytes::Written => (BLOCK, 0),
        Bytes::Copied(size) => (size, size as usize),
    };
    let client = set_client(dir, 1, "threads")?;
    let server = Server::open(dir, 1, size, DEPTH as u32)?;
    let repeat = Repeat::new(&server, copies);
    let buffer = || match bytes {
        Bytes::None => Ok(None),
        Bytes::Written | Bytes::Copied(_) => server.set.allocate_buffer(size, 0).map(Some),
    };
    let mut commands =
        (0..under_way).map(|_| Ok((0, buffer()?))).collect::<Result<Vec<_>, vdi_server_sim::vds::VdsError>>()?;
    rounds(|count| {
        if !pause.is_zero() {
            let once = || {
                std::thread::sleep(pause);
                repeat.run(1, &mut commands)
            };
            return Ok(std::iter::repeat_with(once).take(count as usize).sum());
        }
        // Both are awake when the clock starts.
        let before = if copies == 0 { count / WARM_UP } else { 0 };
        repeat.run(before.max(under_way.into()), &mut commands);
        Ok(repeat.run(count, &mut commands))
    })?;
    drop((commands, server));
    client.end()
}

/// Commands that are sent by the completion routine of the one before, which pauses first.
fn drive_from_routine(dir: &Path, pause: Duration) -> Fallible<()> {
    let client = set_client(dir, 1, "threads")?;
    let server = Server::open(dir, 1, BLOCK, DEPTH as u32)?;
    let paused = Paused::new(&server, pause);
    rounds(|count| Ok(paused.run(count)))?;
    drop(server);
    client.end()
}

/// Several devices; `each` commands are under way on each of them.
fn drive_many(dir: &Path, devices: u32, each: u32, serving: &str, (size, buffers): (u32, u32)) -> Fallible<()> {
    let mut client = set_client(dir, devices, serving)?;
    let polls = self::serving(serving).polls();
    let server = Server::open(dir, devices, size, buffers)?;
    let repeat = Repeat::new(&server, 0);
    let mut commands: Vec<_> = (0..devices * each).map(|number| (number % devices, None)).collect();
    let mut run = |count| {
        // All are awake when the clock starts.
        repeat.run(commands.len() as u64, &mut commands);
        Ok(repeat.run(count, &mut commands))
    };
    rounds(|count| if polls { at_work(&mut client, || run(count)) } else { run(count) })?;
    drop(server);
    client.end()
}

/// Sets that are created, joined, configured, opened and closed, one after the other.
fn drive_starts(dir: &Path) -> Fallible<()> {
    let mut client = Start::new("set-starts-client", dir).start()?;
    rounds(|count| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            let started = Instant::now();
            client.say("create")?;
            client.hear()?;
            drop(Server::open(dir, 1, 64 << 10, DEPTH as u32)?);
            client.hear()?;
            elapsed += started.elapsed();
        }
        Ok(elapsed)
    })?;
    client.end()
}

/// Says `ready` when it has created a set, and `ready` again when it has closed it.
fn starts_client(dir: &Path) -> Fallible<()> {
    on_demand(|_| {
        set::client(dir, 1, Serving::ThreadADevice)?;
        vdi_beside::processes::tell("closed")
    })
}
