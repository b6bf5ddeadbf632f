//! Ours: a virtual device set, the server's side in the driver, the client's in the peer.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdi_client::{ClientVirtualDevice, ClientVirtualDeviceSet, Command, Completion, INFINITE, Options, VdConfig};
use vdi_proto::command::CommandCode;
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_server_sim::vds::{
    Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, ServerVirtualDeviceSet, VdsCommand,
};

use crate::pollers::{Poller, Shift};
use crate::processes::{Fallible, tell};

/// The set's name; each set has a runtime directory of its own.
pub const SET: &str = "beside";
/// Buffers in flight when streaming.
pub const DEPTH: usize = 4;
/// The least MAXTRANSFERSIZE.
const LEAST_TRANSFER: u32 = 64 << 10;
/// How long the other side has for its part of the configuration.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both sides meet here.
pub fn options(dir: &Path) -> Options {
    Options { runtime_dir: Some(dir.into()), ..Options::default() }
}

/// What every receiver of data does with it.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add)
}

/// What every sender of data copies from.
#[must_use]
pub fn source(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// The name of a device.
#[must_use]
pub fn device_name(index: u32) -> String {
    if index == 0 { SET.to_owned() } else { format!("{SET}-{index}") }
}

// --- the client's side ------------------------------------------------------------------------------------------------

/// Creates the set, as the primary.
pub fn create(dir: &Path, devices: u32) -> Fallible<ClientVirtualDeviceSet> {
    let set = ClientVirtualDeviceSet::with_options(options(dir));
    set.create(SET, &VdConfig { device_count: devices, ..VdConfig::default() })?;
    Ok(set)
}

/// Sums what a command brings, and completes it.
#[inline]
pub fn answer(command: Command) -> Result<(), vdi_client::Error> {
    let bytes = command.data().len();
    let completion = if bytes > 0 {
        black_box(sum(command.data()));
        Completion::transferred(bytes)
    } else {
        Completion::done()
    };
    Ok(command.complete(completion)?)
}

/// How a client's threads serve its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Each device has a thread, which sleeps when there is nothing to do.
    ThreadADevice,
    /// So many threads look at their share of the devices in turn.
    Polling(usize),
}

impl Serving {
    /// Whether devices are polled, by pollers that have to be told that something comes.
    #[must_use]
    pub fn polls(self) -> bool {
        matches!(self, Serving::Polling(_))
    }

    fn threads(self, devices: usize) -> usize {
        match self {
            Serving::ThreadADevice => devices,
            Serving::Polling(threads) => threads.min(devices),
        }
    }
}

/// A client that answers until the server closes its devices.
pub fn client(dir: &Path, devices: u32, serving: Serving) -> Fallible<()> {
    let set = create(dir, devices)?;
    tell("ready")?;
    set.get_configuration(INFINITE)?;
    let opened: Vec<_> = (0..devices).map(|index| set.open_device(&device_name(index))).collect::<Result<_, _>>()?;
    if serving.polls() {
        poll_all(opened, serving)?;
    } else {
        wait_all(opened)?;
    }
    set.close()?;
    Ok(())
}

/// Waits for each device by a thread of its own.
fn wait_all(devices: Vec<ClientVirtualDevice>) -> Fallible<()> {
    let mut devices = devices.into_iter();
    // This thread has nothing else to do.
    let own = devices.next();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = devices.map(|device| scope.spawn(|| wait(device))).collect();
        own.map_or(Ok(()), wait)?;
        waiting.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client's thread panicked")?)
    })
}

fn wait(mut device: ClientVirtualDevice) -> Fallible<()> {
    loop {
        match device.get_command(INFINITE) {
            Ok(command) => answer(command)?,
            Err(error) if error.is_close() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Looks at all devices by a few threads, while the lines say that there is something to look for.
fn poll_all(devices: Vec<ClientVirtualDevice>, serving: Serving) -> Fallible<()> {
    let threads = serving.threads(devices.len());
    let share = devices.len().div_ceil(threads);
    let mut shares: Vec<Vec<ClientVirtualDevice>> = (0..threads).map(|_| Vec::with_capacity(share)).collect();
    for (index, device) in devices.into_iter().enumerate() {
        shares[index % threads].push(device);
    }
    let shift = Shift::default();
    std::thread::scope(|scope| {
        let polling: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| poll(share, &shift))).collect();
        shift.follow_lines()?;
        polling.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client's thread panicked")?)
    })
}

fn poll(mut devices: Vec<ClientVirtualDevice>, shift: &Shift) -> Fallible<()> {
    let mut poller = Poller::of_peer(shift);
    while !devices.is_empty() {
        let mut at = 0;
        let mut found = false;
        while at < devices.len() {
            match devices[at].try_get_command() {
                Ok(Some(command)) => {
                    answer(command)?;
                    found = true;
                }
                Ok(None) => {}
                Err(error) if error.is_close() => {
                    devices.remove(at);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            at += 1;
        }
        poller.looked(found);
    }
    Ok(())
}

// --- the server's side ------------------------------------------------------------------------------------------------

/// A server on a set that a client has created.
#[derive(Debug)]
pub struct Server {
    /// The set.
    pub set: Arc<ServerVirtualDeviceSet>,
    /// Its devices.
    pub devices: Vec<Arc<ServerVirtualDevice>>,
    agent: Option<JoinHandle<()>>,
}

impl Server {
    /// Configures the set with `buffers` buffers of `size` bytes, and opens its devices.
    pub fn open(dir: &Path, devices: u32, size: u32, buffers: u32) -> Fallible<Server> {
        let set = Arc::new(ServerVirtualDeviceSet::with_options(options(dir)));
        set.open("", SET)?;
        let features = Features::WRITE_MEDIA | Features::READ_MEDIA;
        let max_transfer_size = size.max(LEAST_TRANSFER);
        let terms = ServerTerms { features, alignment: 4096, block_size: 4096, max_transfer_size };
        set.begin_configuration(&terms, PATIENCE)?;
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

/// A command on its way round: the device, and its buffer where it has one.
type UnderWay = (u32, Option<ServerBuffer>);

/// Sends the next command from the completion of the one before, so that the agent's thread alone does the server's work.
pub struct Repeat {
    devices: Vec<Arc<ServerVirtualDevice>>,
    source: Vec<u8>,
    /// Commands still to be sent. Set before the first is sent, and changed by the agent's thread only.
    left: AtomicU64,
    done: Mutex<Sender<(UnderWay, Instant)>>,
    wait: Mutex<Receiver<(UnderWay, Instant)>>,
    /// Itself, for the commands; it lives as long as the process.
    this: OnceLock<Arc<Repeat>>,
}

impl Repeat {
    /// With `copies`, each command's buffer is filled from a source before it is sent.
    pub fn new(server: &Server, copies: usize) -> Arc<Repeat> {
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
        let device = &self.devices[device as usize];
        let sent = match buffer {
            Some(mut buffer) => {
                let bytes = buffer.len();
                if !self.source.is_empty() {
                    buffer.data_mut().copy_from_slice(&self.source[..bytes]);
                }
                device.send_command(VdsCommand::transfer(CommandCode::WRITE, buffer, bytes as u32, routine))
            }
            None => device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)),
        };
        if let Err(error) = sent {
            panic!("a command was refused: {error}");
        }
    }

    /// Runs `count` commands round over those that are under way; until the last one was completed.
    pub fn run(&self, count: u64, commands: &mut Vec<UnderWay>) -> Duration {
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

/// Sends the next command from the completion routine of the one before, after a pause: the agent's thread alone does the server's
/// work, and sleeps for another reason in between.
pub struct Paused {
    device: Arc<ServerVirtualDevice>,
    pause: Duration,
    round: Mutex<Round>,
    done: Mutex<Sender<Duration>>,
    wait: Mutex<Receiver<Duration>>,
    this: OnceLock<Arc<Paused>>,
}

/// What a round has come to; the agent's thread only changes it.
struct Round {
    left: u64,
    /// When the last was sent; `None` for the one that begins a round, which nobody measures.
    sent: Option<Instant>,
    elapsed: Duration,
}

impl Paused {
    /// Of the first device.
    pub fn new(server: &Server, pause: Duration) -> Arc<Paused> {
        let (done, wait) = channel();
        let paused = Arc::new(Paused {
            device: Arc::clone(&server.devices[0]),
            pause,
            round: Mutex::new(Round { left: 0, sent: None, elapsed: Duration::ZERO }),
            done: Mutex::new(done),
            wait: Mutex::new(wait),
            this: OnceLock::new(),
        });
        let _ = paused.this.set(Arc::clone(&paused));
        paused
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self) {
        let Some(this) = self.this.get() else { return };
        let routine: Arc<dyn CompletionRoutine> = Arc::<Paused>::clone(this);
        if let Err(error) = self.device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)) {
            panic!("a command was refused: {error}");
        }
    }

    /// Has `count` commands follow one that is not measured.
    pub fn run(&self, count: u64) -> Duration {
        *self.round() = Round { left: count, sent: None, elapsed: Duration::ZERO };
        self.send();
        let wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        wait.recv().expect("the sender lives as long as the receiver")
    }
}

impl CompletionRoutine for Paused {
    fn completed(&self, completed: Completed) {
        let ended = Instant::now();
        assert!(completed.code.is_success(), "a command ended with {}", completed.code);
        let mut round = self.round();
        if let Some(sent) = round.sent {
            round.elapsed += ended - sent;
        }
        if round.left == 0 {
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.send(round.elapsed).expect("the receiver lives as long as the sender");
            return;
        }
        round.left -= 1;
        std::thread::sleep(self.pause);
        round.sent = Some(Instant::now());
        drop(round);
        self.send();
    }
}
