//! The hot path, without anything that depends on time: the program whose instructions `instructions.sh` counts.
//!
//! `hot-path WHAT COUNT` does one thing so many times. Both sides are in this one process.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{Thread, current, park};

use vdi_beside::set::{SET, Server, answer, create, device_name, options};
use vdi_client::{ClientVirtualDeviceSet, Command, CommandCode, Completion, INFINITE, MappedBuffer};
use vdi_proto::seal::{Ring, Seals};
use vdi_server_sim::vds::{Completed, CompletionRoutine, ServerBuffer, VdsCommand};
use vdi_shm::ring::{Consumer, Producer, RingMemory};

/// Commands that are sent, got and completed before the completion agent has its turn.
const BATCH: u32 = 32;
/// Bytes of a buffer.
const SIZE: u32 = 4096;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, count] = &words[..] else { return Err("hot-path WHAT COUNT".into()) };
    let count: u32 = count.parse()?;
    let dir = tempfile::tempdir()?;
    match what.as_str() {
        "flush" => round_trips(dir.path(), count, false),
        "write" => round_trips(dir.path(), count, true),
        "handle" => handles(dir.path(), count),
        "look" => looks(dir.path(), count),
        "ring" => ring(count),
        other => Err(format!("nothing is called {other}").into()),
    }
}

/// Holds the completion agent up until a whole batch is completed, so that it does the same steps each time.
struct Gate {
    agent: OnceLock<Thread>,
    main: Thread,
    /// Completions that the agent may handle.
    open: AtomicU32,
    handled: AtomicU32,
    /// Buffers that are home.
    buffers: Mutex<Vec<ServerBuffer>>,
}

impl CompletionRoutine for Gate {
    fn completed(&self, completed: Completed) {
        assert!(completed.code.is_success());
        let _ = self.agent.set(current());
        while self.open.load(Ordering::Acquire) == self.handled.load(Ordering::Relaxed) {
            park();
        }
        if let (Some(buffer), Ok(mut buffers)) = (completed.buffer, self.buffers.lock()) {
            buffers.push(buffer);
        }
        if self.handled.fetch_add(1, Ordering::Release) + 1 == self.open.load(Ordering::Relaxed) {
            self.main.unpark();
        }
    }
}

/// SendCommand, GetCommand, CompleteCommand and the routine.
fn round_trips(dir: &Path, count: u32, with_buffers: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let set = create(dir, 1)?;
    let server = Server::open(dir, 1, SIZE, BATCH)?;
    set.get_configuration(INFINITE)?;
    let mut device = set.open_device(&device_name(0))?;
    let mut buffers = Vec::with_capacity(BATCH as usize);
    for _ in 0..if with_buffers { BATCH } else { 0 } {
        buffers.push(server.set.allocate_buffer(SIZE, 0)?);
    }
    let gate = Arc::new(Gate {
        agent: OnceLock::new(),
        main: current(),
        open: AtomicU32::new(0),
        handled: AtomicU32::new(0),
        buffers: buffers.into(),
    });
    for _ in 0..count.div_ceil(BATCH) {
        for _ in 0..BATCH {
            let routine: Arc<dyn CompletionRoutine> = Arc::<Gate>::clone(&gate);
            let buffer = gate.buffers.lock().ok().and_then(|mut buffers| buffers.pop());
            server.devices[0].send_command(match buffer {
                Some(buffer) => VdsCommand::transfer(CommandCode::WRITE, buffer, SIZE, routine),
                None => VdsCommand::plain(CommandCode::FLUSH, routine),
            })?;
        }
        for _ in 0..BATCH {
            // Not what the client does with the bytes is counted here.
            let command = device.get_command(INFINITE)?;
            let bytes = command.data().len();
            let done = Completion::transferred(bytes);
            command.complete(if bytes > 0 { done } else { Completion::done() })?;
        }
        let all = gate.open.fetch_add(BATCH, Ordering::Release) + BATCH;
        if let Some(agent) = gate.agent.get() {
            agent.unpark();
        }
        while gate.handled.load(Ordering::Acquire) != all {
            park();
        }
    }
    if let Ok(mut buffers) = gate.buffers.lock() {
        buffers.clear();
    }
    drop(server);
    while device.get_command(INFINITE).is_ok() {}
    set.close()?;
    Ok(())
}

/// GetBufferHandle, MapBufferHandle and giving the lease up.
fn handles(dir: &Path, count: u32) -> Result<(), Box<dyn Error + Send + Sync>> {
    let set = create(dir, 1)?;
    let server = Server::open(dir, 1, SIZE, BATCH)?;
    set.get_configuration(INFINITE)?;
    let mut device = set.open_device(&device_name(0))?;
    let routine: Arc<dyn CompletionRoutine> = Arc::new(|_: Completed| {});
    for _ in 0..BATCH {
        let buffer: ServerBuffer = server.set.allocate_buffer(SIZE, 0)?;
        server.devices[0].send_command(VdsCommand::transfer(CommandCode::WRITE, buffer, SIZE, Arc::clone(&routine)))?;
    }
    let held: Vec<Command> = (0..BATCH).map(|_| device.get_command(INFINITE)).collect::<Result<_, _>>()?;
    let other = ClientVirtualDeviceSet::with_options(options(dir));
    other.open_in_secondary(SET)?;
    let mut mapped: Vec<MappedBuffer> = Vec::with_capacity(BATCH as usize);
    for _ in 0..count.div_ceil(BATCH) {
        for command in &held {
            let address = command.buffer_address().ok_or("a Write without a buffer")?;
            let handle = set.get_buffer_handle(black_box(address))?;
            mapped.push(other.map_buffer_handle(black_box(handle))?);
        }
        mapped.clear();
    }
    drop(other);
    held.into_iter().try_for_each(answer)?;
    drop(server);
    while device.get_command(INFINITE).is_ok() {}
    set.close()?;
    Ok(())
}

/// GetCommand that only looks, and finds nothing: what a thread does that serves several devices in turn.
fn looks(dir: &Path, count: u32) -> Result<(), Box<dyn Error + Send + Sync>> {
    let set = create(dir, 1)?;
    let server = Server::open(dir, 1, SIZE, BATCH)?;
    set.get_configuration(INFINITE)?;
    let mut device = set.open_device(&device_name(0))?;
    for _ in 0..count {
        if black_box(device.try_get_command()?).is_some() {
            return Err("a command that nobody has sent".into());
        }
    }
    drop(server);
    while device.get_command(INFINITE).is_ok() {}
    set.close()?;
    Ok(())
}

/// A record pushed and popped.
fn ring(count: u32) -> Result<(), Box<dyn Error + Send + Sync>> {
    let memory = Arc::new(RingMemory::<64>::new());
    let key = Seals::new(42).ring(0, Ring::Submission);
    let mut producer = Producer::new(Arc::clone(&memory), key);
    let mut consumer = Consumer::new(memory, key);
    for number in 0..count {
        let number = u64::from(number);
        producer.push(black_box([number; 4]))?;
        black_box(consumer.pop()?);
    }
    Ok(())
}
