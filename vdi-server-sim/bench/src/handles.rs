//! Buffer handles: what it costs to get one and to map it.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdi_client::{ClientVirtualDeviceSet, Command, CommandCode, INFINITE, MappedBuffer};
use vdi_server_sim::vds::{Completed, CompletionRoutine, VdsCommand};

use crate::processes::{Fallible, rounds};
use crate::set::{SET, Server, answer, create, options};

/// Buffers that are mapped between two looks at the clock.
const BUFFERS: u32 = 32;
/// Bytes of each.
const SIZE: u32 = 64 << 10;

/// Gets handles and maps them: of the command (`by_address` false), or of the address of its data. The leases are released
/// outside of the clock. A second membership in this process stands for the other process: its part of the work is the same.
pub(crate) fn drive(dir: &Path, by_address: bool) -> Fallible<()> {
    let set = create(dir, 1)?;
    let server = Server::open(dir, 1, SIZE, BUFFERS)?;
    set.get_configuration(INFINITE)?;
    let mut device = set.open_device(SET)?;
    let routine: Arc<dyn CompletionRoutine> = Arc::new(|_: Completed| {});
    let mut held: Vec<(Command, *const u8)> = Vec::new();
    for _ in 0..BUFFERS {
        let buffer = server.set.allocate_buffer(SIZE, 0)?;
        server.devices[0].send_command(VdsCommand::transfer(CommandCode::WRITE, buffer, SIZE, Arc::clone(&routine)))?;
        let command = device.get_command(INFINITE)?;
        let address = command.buffer_address().ok_or("a Write without a buffer")?;
        held.push((command, address));
    }
    let other = ClientVirtualDeviceSet::with_options(options(dir));
    other.open_in_secondary(SET)?;
    let mut mapped: Vec<MappedBuffer> = Vec::with_capacity(held.len());
    rounds(|count| {
        let (mut elapsed, mut done) = (Duration::ZERO, 0);
        while done < count {
            let started = Instant::now();
            for (command, address) in black_box(&held) {
                let handle = if by_address { set.get_buffer_handle(*address)? } else { command.buffer_handle()? };
                mapped.push(other.map_buffer_handle(black_box(handle))?);
            }
            elapsed += started.elapsed();
            mapped.clear();
            done += held.len() as u64;
        }
        Ok(elapsed.mul_f64(count as f64 / done as f64))
    })?;
    other.close()?;
    for (command, _) in held {
        answer(command)?;
    }
    drop(server);
    while device.get_command(INFINITE).is_ok() {}
    set.close()?;
    Ok(())
}
