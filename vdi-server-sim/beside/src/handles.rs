//! Handles of buffers: what getting and mapping one costs, and giving a lease up.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use vdi_beside::processes::{Fallible, rounds};
use vdi_beside::set::{SET, Server, create, device_name, options};
use vdi_client::{ClientVirtualDeviceSet, Command, CommandCode, INFINITE, MappedBuffer};
use vdi_server_sim::vds::{Completed, CompletionRoutine, VdsCommand};

/// Buffers that are mapped between two looks at the clock.
const BUFFERS: u32 = 32;
/// Bytes of each.
const SIZE: u32 = 64 << 10;

/// Tells whether the core is as fast as this process has ever seen it: where a core runs a second thread, of another guest of the
/// host perhaps, instructions that wait for nothing take up to twice as long, and locked ones about as long as before.
struct Core {
    state: [u64; 8],
    fastest: Duration,
}

impl Core {
    fn new() -> Core {
        Core { state: [1, 2, 3, 4, 5, 6, 7, 8], fastest: Duration::MAX }
    }

    /// Whether eight chains of shifts went about as fast as they ever did.
    fn is_fast(&mut self) -> bool {
        let started = Instant::now();
        for _ in 0..128 {
            for word in &mut self.state {
                *word ^= *word << 13;
                *word ^= *word >> 7;
                *word ^= *word << 17;
            }
        }
        black_box(&self.state);
        let elapsed = started.elapsed();
        self.fastest = self.fastest.min(elapsed);
        elapsed <= self.fastest.mul_f64(1.1)
    }
}

/// Times the locked instructions that our way of mapping a buffer has, and nothing else: a look at what another thread may take away,
/// behind a lock, what keeps it there, a word of this process and a word of all: "map"; "by-address" with the look before that gets a
/// handle.
pub(crate) fn drive_bare(part: &str) -> Fallible<()> {
    let by_address = match part {
        "map" => false,
        "by-address" => true,
        other => return Err(format!("nothing of handles is called {other}").into()),
    };
    let keeper = Arc::new(());
    let set = RwLock::new(Arc::downgrade(&keeper));
    let words: Vec<[AtomicU64; 2]> = (0..BUFFERS).map(|_| Default::default()).collect();
    let mut mapped = Vec::with_capacity(words.len());
    rounds(|count| {
        let (mut elapsed, mut done) = (Duration::ZERO, 0);
        while done < count {
            let started = Instant::now();
            for [own, shared] in black_box(&words) {
                if by_address {
                    black_box(&*set.read().map_err(|_| "nobody panics")?);
                }
                let set = set.read().map_err(|_| "nobody panics")?;
                let keeper = set.upgrade().ok_or("it is kept")?;
                own.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).map_err(|_| "nobody has it")?;
                shared.fetch_or(1, Ordering::Relaxed);
                mapped.push(keeper);
            }
            elapsed += started.elapsed();
            mapped.clear();
            words.iter().for_each(|[own, _]| own.store(0, Ordering::Release));
            done += words.len() as u64;
        }
        Ok(elapsed.mul_f64(count as f64 / done as f64))
    })
}

/// Times `part`, of the same buffers in turn: "by-address" is getting a handle for an address and mapping it, "of-command" the same
/// of a command that the program holds, "map" the mapping alone, "release" giving up; "without-lease" is
/// getting and mapping for an address alone, as foreign interfaces have it. A second membership in this
/// process stands for the other process, whose part of the work is the same. With `fast` only what is done counts while the core
/// is fast before and after.
pub(crate) fn drive(dir: &Path, part: &str, fast: bool) -> Fallible<()> {
    let set = create(dir, 1)?;
    let server = Server::open(dir, 1, SIZE, BUFFERS)?;
    set.get_configuration(INFINITE)?;
    let mut device = set.open_device(&device_name(0))?;
    let routine: Arc<dyn CompletionRoutine> = Arc::new(|_: Completed| {});
    for _ in 0..BUFFERS {
        let buffer = server.set.allocate_buffer(SIZE, 0)?;
        server.devices[0].send_command(VdsCommand::transfer(CommandCode::WRITE, buffer, SIZE, Arc::clone(&routine)))?;
    }
    let held: Vec<Command> = (0..BUFFERS).map(|_| device.get_command(INFINITE)).collect::<Result<_, _>>()?;
    let addresses: Vec<*const u8> = held.iter().filter_map(Command::buffer_address).collect();
    let other = ClientVirtualDeviceSet::with_options(options(dir));
    other.open_in_secondary(SET)?;
    let mut mapped: Vec<MappedBuffer> = Vec::with_capacity(addresses.len());
    let mut handles = Vec::with_capacity(addresses.len());
    let mut core = Core::new();
    rounds(|count| {
        let (mut elapsed, mut done, mut counted, mut in_vain) = (Duration::ZERO, 0, 0, 0);
        while done < count || counted == 0 {
            if in_vain > 8 * count {
                // One look was luckier than any since.
                (core, in_vain) = (Core::new(), 0);
            }
            let counts = !fast || core.is_fast();
            let started = Instant::now();
            for address in &addresses {
                handles.push(set.get_buffer_handle(black_box(*address))?);
            }
            let by_address = started.elapsed();
            handles.clear();
            let started = Instant::now();
            for command in &held {
                handles.push(black_box(command).buffer_handle()?);
            }
            let of_command = started.elapsed();
            let started = Instant::now();
            for handle in handles.drain(..) {
                mapped.push(other.map_buffer_handle(black_box(handle))?);
            }
            let mapping = started.elapsed();
            let started = Instant::now();
            mapped.clear();
            let releasing = started.elapsed();
            let started = Instant::now();
            for address in &addresses {
                black_box(other.map_buffer_address(set.get_buffer_handle(black_box(*address))?)?);
            }
            let without_lease = started.elapsed();
            done += addresses.len() as u64;
            in_vain += addresses.len() as u64;
            if counts && (!fast || core.is_fast()) {
                counted += addresses.len() as u64;
                in_vain = 0;
                elapsed += match part {
                    "by-address" => by_address + mapping,
                    "of-command" => of_command + mapping,
                    "map" => mapping,
                    "without-lease" => without_lease,
                    "release" => releasing,
                    other => return Err(format!("nothing of handles is called {other}").into()),
                };
            }
        }
        Ok(elapsed.mul_f64(count as f64 / counted as f64))
    })?;
    drop(other);
    for command in held {
        vdi_beside::set::answer(command)?;
    }
    // The server closes the device, and the client sees that.
    drop(server);
    while device.get_command(INFINITE).is_ok() {}
    set.close()?;
    Ok(())
}
