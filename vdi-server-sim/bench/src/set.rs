//! Ours: a virtual device set. The server is in the driver, the client in the peer.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdi_client::{ClientVirtualDevice, ClientVirtualDeviceSet, Command, Completion, INFINITE, Options, VdConfig};
use vdi_proto::command::CommandCode;
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_server_sim::vds::{
    Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, ServerVirtualDeviceSet, VdsCommand,
};

use crate::baselines::{DEPTH, WARM_UP, source, sum};
use crate::processes::{Fallible, Process, Start, on_demand, rounds, tell};

/// The set's name. Each set has a runtime directory of its own.
pub(crate) const SET: &str = "bench";
/// The smallest MAXTRANSFERSIZE.
const LEAST_TRANSFER: u32 = 64 << 10;
/// The length of a buffer where no command has data.
const UNUSED_BUFFER: u32 = 1 << 20;
/// The bytes of all buffers of such a set.
pub(crate) const UNUSED_BYTES: u64 = UNUSED_BUFFER as u64 * DEPTH as u64;
/// How long each side waits for the other during the configuration.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Both sides use the runtime directory `dir`.
pub(crate) fn options(dir: &Path) -> Options {
    Options { runtime_dir: Some(dir.into()), ..Options::default() }
}

fn device_name(index: u32) -> String {
    if index == 0 { SET.to_owned() } else { format!("{SET}-{index}") }
}

// --- the client's side ------------------------------------------------------------------------------------------------

/// Creates the set, as the primary.
pub(crate) fn create(dir: &Path, devices: u32) -> Fallible<ClientVirtualDeviceSet> {
    let set = ClientVirtualDeviceSet::with_options(options(dir));
    set.create(SET, &VdConfig { device_count: devices, ..VdConfig::default() })?;
    Ok(set)
}

/// Sums a command's data, and completes it.
#[inline]
pub(crate) fn answer(command: Command) -> Result<(), vdi_client::Error> {
    let bytes = command.data().len();
    let completion = if bytes > 0 {
        black_box(sum(command.data()));
        Completion::transferred(bytes)
    } else {
        Completion::done()
    };
    Ok(command.complete(completion)?)
}

/// The peer: for each line a set, which it serves until the server closes the devices.
pub(crate) fn client(dir: &Path, devices: u32) -> Fallible<()> {
    on_demand(|_| {
        let set = create(dir, devices)?;
        tell("created")?;
        set.get_configuration(INFINITE)?;
        let mut opened =
            (0..devices).map(|index| set.open_device(&device_name(index))).collect::<Result<Vec<_>, _>>()?;
        serve(&mut opened)?;
        set.close()?;
        tell("closed")
    })
}

/// Takes a command of each device in turn. The server sends as many to each.
fn serve(devices: &mut [ClientVirtualDevice]) -> Fallible<()> {
    let mut closed = 0;
    while closed < devices.len() {
        for device in &mut *devices {
            match device.get_command(INFINITE) {
                Ok(command) => answer(command)?,
                Err(error) if error.is_close() => closed += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

// --- the server's side ------------------------------------------------------------------------------------------------

/// A server of a set that a client has created.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) set: Arc<ServerVirtualDeviceSet>,
    pub(crate) devices: Vec<Arc<ServerVirtualDevice>>,
    agent: Option<JoinHandle<()>>,
}

impl Server {
    /// Configures the set with `buffers` buffers of `size` bytes, and opens its devices.
    pub(crate) fn open(dir: &Path, devices: u32, size: u32, buffers: u32) -> Fallible<Server> {
        let set = Arc::new(ServerVirtualDeviceSet::with_options(options(dir)));
        set.open("", SET)?;
        let features = Features::WRITE_MEDIA | Features::READ_MEDIA;
        let max_transfer_size = size.max(LEAST_TRANSFER);
        let terms = ServerTerms { features, alignment: 4096, block_size: 4096, max_transfer_size };
        set.begin_configuration(&terms, TIMEOUT)?;
        set.request_buffers(size, 0, buffers)?;
        set.end_configuration()?;
        let devices = (0..devices)
            .map(|index| set.open_device(&device_name(index)).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let agent = std::thread::spawn({
            let set = Arc::clone(&set);
            move || drop(set.execute_completion_agent())
        });
        Ok(Server { set, devices, agent: Some(agent) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for device in &self.devices {
            let _ = device.close_device();
        }
        let _ = self.set.close();
        if let Some(agent) = self.agent.take() {
            let _ = agent.join();
        }
    }
}

/// A command under way: its device, and its buffer if it has one.
type UnderWay = (u32, Option<ServerBuffer>);

/// Sends the next command from the completion routine of the one before. The agent's thread does all work of the server.
struct Repeat {
    devices: Vec<Arc<ServerVirtualDevice>>,
    source: Vec<u8>,
    /// Commands that are still to be sent. Set before the first is sent; then only the agent's thread changes it.
    left: AtomicU64,
    done: Mutex<Sender<(UnderWay, Instant)>>,
    wait: Mutex<Receiver<(UnderWay, Instant)>>,
    /// Itself, as the routine of its commands. It lives as long as the process.
    this: OnceLock<Arc<Repeat>>,
}

impl Repeat {
    /// Before a command with a buffer is sent, `copies` bytes are copied into that.
    fn new(server: &Server, copies: usize) -> Arc<Repeat> {
        let (done, wait) = channel();
        let repeat = Arc::new(Repeat {
            devices: server.devices.clone(),
            source: source(copies),
            left: AtomicU64::new(0),
            done: Mutex::new(done),
            wait: Mutex::new(wait),
            this: OnceLock::new(),
        });
        let _ = repeat.this.set(Arc::clone(&repeat));
        repeat
    }

    #[inline(always)]
    fn send(&self, device: u32, buffer: Option<ServerBuffer>) {
        let Some(this) = self.this.get() else { return };
        let routine: Arc<dyn CompletionRoutine> = Arc::<Repeat>::clone(this);
        let command = match buffer {
            Some(mut buffer) => {
                let bytes = buffer.len();
                buffer.data_mut().copy_from_slice(&self.source[..bytes]);
                VdsCommand::transfer(CommandCode::WRITE, buffer, bytes as u32, routine)
            }
            None => VdsCommand::plain(CommandCode::FLUSH, routine),
        };
        if let Err(error) = self.devices[device as usize].send_command(command) {
            panic!("a command was refused: {error}");
        }
    }

    /// Runs `count` commands, `commands.len()` of them at a time, until the last is completed.
    fn run(&self, count: u64, commands: &mut Vec<UnderWay>) -> Duration {
        let sent = (commands.len() as u64).min(count);
        self.left.store(count - sent, Ordering::Relaxed);
        let started = Instant::now();
        for (device, buffer) in commands.drain(..sent as usize) {
            self.send(device, buffer);
        }
        let wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = started;
        for _ in 0..sent {
            let (command, at) = wait.recv().expect("the sender lives as long as the receiver");
            commands.push(command);
            ended = ended.max(at);
        }
        ended - started
    }
}

impl CompletionRoutine for Repeat {
    fn completed(&self, completed: Completed) {
        assert!(completed.code.is_success(), "a command ended with {}", completed.code);
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            self.send(completed.device, completed.buffer);
        } else {
            let ended = ((completed.device, completed.buffer), Instant::now());
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.send(ended).expect("the receiver lives as long as the sender");
        }
    }
}

// --- roles ------------------------------------------------------------------------------------------------------------

/// A peer that has created a set.
fn start_client(dir: &Path, devices: u32) -> Fallible<Process> {
    let mut client = Start::new("set-client", dir).with(devices.to_string()).start()?;
    create_at(&mut client)?;
    Ok(client)
}

fn create_at(client: &mut Process) -> Fallible<()> {
    client.say("create")?;
    client.hear().map(drop)
}

/// Commands without data: a Flush on each device at a time.
pub(crate) fn drive_commands(dir: &Path, devices: u32) -> Fallible<()> {
    let mut client = start_client(dir, devices)?;
    let server = Server::open(dir, devices, UNUSED_BUFFER, DEPTH as u32)?;
    let repeat = Repeat::new(&server, 0);
    let mut commands: Vec<_> = (0..devices).map(|device| (device, None)).collect();
    rounds(|count| {
        // Both sides are awake when the clock starts.
        repeat.run((count / WARM_UP).max(devices.into()), &mut commands);
        Ok(repeat.run(count, &mut commands))
    })?;
    drop(server);
    client.hear()?;
    client.end()
}

/// Writes of `size` bytes, one for each buffer at a time.
pub(crate) fn drive_data(dir: &Path, size: u32) -> Fallible<()> {
    let mut client = start_client(dir, 1)?;
    let server = Server::open(dir, 1, size, DEPTH as u32)?;
    let repeat = Repeat::new(&server, size as usize);
    let mut commands = Vec::new();
    for _ in 0..DEPTH {
        commands.push((0, Some(server.set.allocate_buffer(size, 0)?)));
    }
    rounds(|count| {
        repeat.run(DEPTH as u64, &mut commands);
        Ok(repeat.run(count, &mut commands))
    })?;
    drop((commands, server));
    client.hear()?;
    client.end()
}

/// Sets that are created, joined, configured, opened and closed, one after the other.
pub(crate) fn drive_starts(dir: &Path) -> Fallible<()> {
    let mut client = Start::new("set-client", dir).with("1").start()?;
    rounds(|count| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            let started = Instant::now();
            create_at(&mut client)?;
            drop(Server::open(dir, 1, LEAST_TRANSFER, DEPTH as u32)?);
            client.hear()?;
            elapsed += started.elapsed();
        }
        Ok(elapsed)
    })?;
    client.end()
}
