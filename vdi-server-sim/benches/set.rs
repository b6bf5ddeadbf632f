//! What a virtual device set costs, between two processes, beside the limits of the machine: each row has its bare
//! counterpart in the same run, and the ratios are printed at the end.
//!
//! - *Round trip*: a command to the client's process and its completion back; bare: two processes that spin on two words.
//! - *Streaming*: the server copies a page-cached source into each buffer, the client sums it; bare: the same copy and sum over
//!   the same number of shared buffers, with nothing but two counters between the processes.
//! - *Handles*: GetBufferHandle, MapBufferHandle and giving the lease up.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashMap;
use std::hint::{black_box, spin_loop};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use vdi_client::{BufferHandle, ClientVirtualDeviceSet, Completion, INFINITE, MappedBuffer, Options, VdConfig};
use vdi_proto::command::CommandCode;
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_server_sim::vds::VdsCommand;
use vdi_server_sim::vds::{Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, ServerVirtualDeviceSet};
use vdi_shm::segment::{Segment, Shared};

/// Buffers in flight when streaming.
const DEPTH: usize = 4;
/// Bytes streamed for one measurement.
const STREAM: u64 = 256 << 20;
const SIZES: [(u32, &str); 3] = [(64 << 10, "64 KiB"), (1 << 20, "1 MiB"), (4 << 20, "4 MiB")];

fn main() {
    if let Ok(role) = std::env::var("VDI_BENCH_ROLE") {
        let arguments: Vec<String> = std::env::args().collect();
        match role.as_str() {
            "client" => client(&arguments[1]),
            "words" => answer_words(&arguments[1]),
            _ => sum_mapped(&arguments[1], &arguments[2..]),
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(4));
    round_trip(&mut criterion);
    streaming(&mut criterion);
    handles(&mut criterion);
    criterion.final_summary();
    print_ratios();
    // Only without a filter: it takes a while.
    if std::env::args().skip(1).all(|argument| argument.starts_with('-')) {
        print_idle();
    }
}

/// The times of each row, in nanoseconds, one a sample.
static TIMES: Mutex<Option<HashMap<String, Vec<f64>>>> = Mutex::new(None);

/// Samples with fewer iterations measure mostly the clock.
const LEAST_ITERATIONS: u64 = 10;

fn note(row: &str, elapsed: Duration, iterations: u64) -> Duration {
    if iterations >= LEAST_ITERATIONS {
        let each = elapsed.as_nanos() as f64 / iterations as f64;
        TIMES.lock().unwrap().get_or_insert_default().entry(row.to_owned()).or_default().push(each);
    }
    elapsed
}

fn print_ratios() {
    let times = TIMES.lock().unwrap().take().unwrap_or_default();
    // The lower quartile: on a shared machine the rest measures the neighbours.
    let row = |name: &str| {
        let mut times = times.get(name)?.clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 4).copied()
    };
    println!("\nratios of this run (lower quartiles of the samples):");
    if let Some(bare) = row("bare ping-pong") {
        for name in ["Flush round trip", "Write round trip"] {
            if let Some(ours) = row(name) {
                println!("  {name}: {ours:.0} ns, {:.2} x the bare ping-pong ({bare:.0} ns)", ours / bare);
            }
        }
    }
    for (size, name) in SIZES {
        if let (Some(ours), Some(bare)) = (row(&format!("stream {name}")), row(&format!("bare stream {name}"))) {
            println!(
                "  streaming at {name}: {:.2} GB/s, {:.1} % of the bare ring ({:.2} GB/s)",
                f64::from(size) / ours,
                bare / ours * 100.0,
                f64::from(size) / bare
            );
        }
    }
    if let Some(ours) = row("get + map + release") {
        println!("  GetBufferHandle + MapBufferHandle + release: {ours:.1} ns");
    }
}

/// CPU time of all threads of a process so far, in nanoseconds.
fn cpu_time(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default())
        .filter_map(|stat| stat.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// What a set costs while nothing happens: both sides wait, for as long as this sleeps.
fn print_idle() {
    const WATCHED: Duration = Duration::from_secs(10);
    let server = Server::start("bench-idle", 1 << 20);
    let client = server._client.as_ref().unwrap().0.id();
    // The client opens its device and falls asleep; there is no sign of that but time.
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu_time(client) + cpu_time(std::process::id());
    std::thread::sleep(WATCHED);
    let spent = Duration::from_nanos(cpu_time(client) + cpu_time(std::process::id()) - before);
    println!("  an idle set of one device: {spent:.1?} of CPU in {WATCHED:?}, both processes together");

    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut control = maps.lines().skip_while(|line| !line.contains("memfd:vdi-control"));
    let mut kilobytes = |name: &str| {
        let line = control.find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or("?").to_owned()
    };
    println!(
        "  its memory beyond the buffer area: {} KiB mapped, {} KiB resident",
        kilobytes("Size:"),
        kilobytes("Rss:")
    );
    server.device.close_device().unwrap();
}

// --- children ---------------------------------------------------------------------------------------------------------

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program in a role, and waits until it says that it is there.
fn start(role: &str, arguments: &[&str], runtime: &Path) -> Guard {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(arguments).env("VDI_BENCH_ROLE", role).env("VDI_RUNTIME_DIR", runtime).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    Guard(child)
}

fn ready() {
    println!("ready");
    std::io::stdout().flush().unwrap();
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).fold(0, u64::wrapping_add)
}

/// A client that sums what it is given.
fn client(name: &str) {
    let set = ClientVirtualDeviceSet::new();
    set.create(name, &VdConfig::default()).unwrap();
    ready();
    set.get_configuration(INFINITE).unwrap();
    let mut device = set.open_device(name).unwrap();
    loop {
        let Ok(command) = device.get_command(INFINITE) else { return };
        let bytes = command.data().len();
        let completion = if bytes > 0 {
            black_box(sum(command.data()));
            Completion::transferred(bytes)
        } else {
            Completion::done()
        };
        command.complete(completion).unwrap();
    }
}

/// Two words, a cache line each.
type WordPair = [AtomicU64; 16];
const THERE: usize = 0;
const BACK: usize = 8;

fn attach(path: &str) -> Shared<WordPair> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let segment = Segment::from_peer(file.into(), 4096).unwrap();
    Arc::new(segment.map().unwrap()).place(0).unwrap()
}

/// Answers each new value of one word in the other.
fn answer_words(path: &str) {
    let words = attach(path);
    ready();
    let mut last = 0;
    loop {
        let value = words[THERE].load(Ordering::Acquire);
        if value == last {
            spin_loop();
        } else {
            words[BACK].store(value, Ordering::Release);
            last = value;
        }
    }
}

/// Sums mapped buffers in turn, as one word counts them up.
fn sum_mapped(path: &str, arguments: &[String]) {
    let words = attach(path);
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary(&arguments[0]).unwrap();
    let map = |number: &String| set.map_buffer_handle(BufferHandle::from_number(number.parse().unwrap())).unwrap();
    let buffers: Vec<MappedBuffer> = arguments[1..].iter().map(map).collect();
    ready();
    let mut done = 0;
    loop {
        if words[THERE].load(Ordering::Acquire) == done {
            spin_loop();
            continue;
        }
        black_box(sum(buffers[done as usize % buffers.len()].data()));
        done += 1;
        words[BACK].store(done, Ordering::Release);
    }
}

// --- the server's side ------------------------------------------------------------------------------------------------

/// A server on a set that a client's process created.
struct Server {
    set: Arc<ServerVirtualDeviceSet>,
    device: Arc<ServerVirtualDevice>,
    agent: Option<std::thread::JoinHandle<()>>,
    _client: Option<Guard>,
    _runtime: tempfile::TempDir,
}

impl Server {
    fn start(name: &str, transfer: u32) -> Server {
        let runtime = tempfile::tempdir().unwrap();
        let client = start("client", &[name], runtime.path());
        let options = Options { runtime_dir: Some(runtime.path().into()), ..Options::default() };
        Server::open(name, transfer, &options, Some(client), runtime)
    }

    fn open(name: &str, transfer: u32, options: &Options, client: Option<Guard>, runtime: tempfile::TempDir) -> Server {
        let set = Arc::new(ServerVirtualDeviceSet::with_options(options.clone()));
        set.open("", name).unwrap();
        let features = Features::WRITE_MEDIA | Features::READ_MEDIA;
        let terms = ServerTerms { features, alignment: 4096, block_size: 4096, max_transfer_size: transfer };
        set.begin_configuration(&terms, Duration::from_secs(10)).unwrap();
        set.request_buffers(transfer, 0, DEPTH as u32).unwrap();
        set.end_configuration().unwrap();
        let device = Arc::new(set.open_device(name).unwrap());
        let agent = std::thread::spawn({
            let set = Arc::clone(&set);
            move || drop(set.execute_completion_agent())
        });
        Server { set, device, agent: Some(agent), _client: client, _runtime: runtime }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.set.close();
        self.agent.take().unwrap().join().unwrap();
    }
}

/// Sends the next command from the completion of the one before, so that the agent's thread alone does the server's work.
struct Repeat {
    device: Arc<ServerVirtualDevice>,
    source: Vec<u8>,
    left: Mutex<u64>,
    done: Mutex<Sender<Option<ServerBuffer>>>,
    this: std::sync::Weak<Repeat>,
}

impl Repeat {
    fn new(device: &Arc<ServerVirtualDevice>, source: usize) -> (Arc<Repeat>, Receiver<Option<ServerBuffer>>) {
        let (done, wait) = channel();
        let repeat = Arc::new_cyclic(|this| Repeat {
            device: Arc::clone(device),
            source: (0..source).map(|i| (i % 251) as u8).collect(),
            left: Mutex::new(0),
            done: Mutex::new(done),
            this: this.clone(),
        });
        (repeat, wait)
    }

    fn send(&self, buffer: Option<ServerBuffer>) {
        let routine: Arc<Repeat> = self.this.upgrade().unwrap();
        let command = match buffer {
            Some(mut buffer) => {
                let bytes = buffer.len();
                if !self.source.is_empty() {
                    buffer.data_mut().copy_from_slice(&self.source[..bytes]);
                }
                VdsCommand::transfer(CommandCode::WRITE, buffer, bytes as u32, routine)
            }
            None => VdsCommand::plain(CommandCode::FLUSH, routine),
        };
        self.device.send_command(command).unwrap();
    }

    /// Runs `count` commands over these buffers.
    fn run(
        &self,
        count: u64,
        buffers: &mut Vec<Option<ServerBuffer>>,
        wait: &Receiver<Option<ServerBuffer>>,
    ) -> Duration {
        let under_way = buffers.len() as u64;
        *self.left.lock().unwrap() = count.saturating_sub(under_way);
        let started = Instant::now();
        let sent = under_way.min(count);
        for buffer in buffers.drain(..sent as usize) {
            self.send(buffer);
        }
        buffers.extend((0..sent).map(|_| wait.recv().unwrap()));
        started.elapsed()
    }
}

impl CompletionRoutine for Repeat {
    fn completed(&self, completed: Completed) {
        assert!(completed.code.is_success());
        let again = {
            let mut left = self.left.lock().unwrap();
            let again = *left > 0;
            *left = left.saturating_sub(1);
            again
        };
        if again {
            self.send(completed.buffer);
        } else {
            self.done.lock().unwrap().send(completed.buffer).unwrap();
        }
    }
}

fn words() -> (Segment, Shared<WordPair>) {
    let segment = Segment::create("bench-words", 4096, true).unwrap();
    let words = Arc::new(segment.map().unwrap()).place(0).unwrap();
    (segment, words)
}

fn path_of(segment: &Segment) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), segment.fd().as_raw_fd())
}

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip");
    let (segment, words) = words();
    let runtime = tempfile::tempdir().unwrap();
    let child = start("words", &[&path_of(&segment)], runtime.path());
    let mut value = 0;
    group.bench_function("bare ping-pong", |b| {
        b.iter_custom(|iterations| {
            let started = Instant::now();
            for _ in 0..iterations {
                value += 1;
                words[THERE].store(value, Ordering::Release);
                while words[BACK].load(Ordering::Acquire) != value {
                    spin_loop();
                }
            }
            note("bare ping-pong", started.elapsed(), iterations)
        });
    });
    drop(child);
    for (row, with_buffer) in [("Flush round trip", false), ("Write round trip", true)] {
        let server = Server::start("bench-round-trip", 64 << 10);
        let (repeat, wait) = Repeat::new(&server.device, 0);
        // A page is the least that a Write can have here; the client sums it.
        let buffer = with_buffer.then(|| server.set.allocate_buffer(4096, 0).unwrap());
        let mut buffers = vec![buffer];
        group.bench_function(row, |b| {
            b.iter_custom(|iterations| note(row, repeat.run(iterations, &mut buffers, &wait), iterations));
        });
        buffers.clear();
        server.device.close_device().unwrap();
    }
    group.finish();
}

fn streaming(criterion: &mut Criterion) {
    for (size, name) in SIZES {
        let mut group = criterion.benchmark_group("streaming");
        group.sample_size(10).throughput(Throughput::Bytes(u64::from(size)));
        let least = STREAM / u64::from(size);
        // Both in turn, so that what disturbs one disturbs the other.
        {
            let server = Server::start("bench-stream", size);
            let (repeat, wait) = Repeat::new(&server.device, size as usize);
            let mut buffers: Vec<_> = (0..DEPTH).map(|_| Some(server.set.allocate_buffer(size, 0).unwrap())).collect();
            let row = format!("stream {name}");
            group.bench_function(&row, |b| {
                b.iter_custom(|iterations| {
                    let count = iterations.max(least);
                    let elapsed = note(&row, repeat.run(count, &mut buffers, &wait), count);
                    elapsed.mul_f64(iterations as f64 / count as f64)
                });
            });
            buffers.clear();
            server.device.close_device().unwrap();
        }
        bare_stream(&mut group, size, name, least);
        group.finish();
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// The same bytes over the same number of shared buffers, with two counters between the processes.
fn bare_stream(group: &mut Group<'_>, size: u32, name: &str, least: u64) {
    let (mut held, child, words, _server, _set) = lent_buffers(size);
    let source: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let mut sent = 0;
    let row = format!("bare stream {name}");
    group.bench_function(&row, |b| {
        b.iter_custom(|iterations| {
            let count = iterations.max(least);
            let started = Instant::now();
            for _ in 0..count {
                while sent - words[BACK].load(Ordering::Acquire) >= DEPTH as u64 {
                    spin_loop();
                }
                held[sent as usize % DEPTH].data_mut().copy_from_slice(&source);
                sent += 1;
                words[THERE].store(sent, Ordering::Release);
            }
            while words[BACK].load(Ordering::Acquire) != sent {
                spin_loop();
            }
            let elapsed = note(&row, started.elapsed(), count);
            elapsed.mul_f64(iterations as f64 / count as f64)
        });
    });
    drop(child);
}

/// Buffers of Reads that this process holds as the client, mapped by a child that sums them.
fn lent_buffers(size: u32) -> (Vec<vdi_client::Command>, Guard, Shared<WordPair>, Server, ClientVirtualDeviceSet) {
    let (set, server, mut device, options) = own_client("bench-bare", size);
    let routine: Arc<dyn CompletionRoutine> = Arc::new(|_: Completed| {});
    for _ in 0..DEPTH {
        let buffer = server.set.allocate_buffer(size, 0).unwrap();
        let command = VdsCommand::transfer(CommandCode::READ, buffer, size, Arc::clone(&routine));
        server.device.send_command(command).unwrap();
    }
    let held: Vec<_> = (0..DEPTH).map(|_| device.get_command(INFINITE).unwrap()).collect();
    let (segment, words) = words();
    let path = path_of(&segment);
    let handles: Vec<String> =
        held.iter().map(|command| command.buffer_handle().unwrap().number().to_string()).collect();
    let mut arguments = vec![&*path, "bench-bare"];
    arguments.extend(handles.iter().map(String::as_str));
    let child = start("sum", &arguments, &options.runtime_dir.unwrap());
    // The device ends with the set, which the caller drops.
    std::mem::forget(device);
    (held, child, words, server, set)
}

/// Client and server in one process.
fn own_client(
    name: &'static str,
    size: u32,
) -> (ClientVirtualDeviceSet, Server, vdi_client::ClientVirtualDevice, Options) {
    let runtime = tempfile::tempdir().unwrap();
    let options = Options { runtime_dir: Some(runtime.path().into()), ..Options::default() };
    let set = ClientVirtualDeviceSet::with_options(options.clone());
    set.create(name, &VdConfig::default()).unwrap();
    let server = Server::open(name, size, &options, None, runtime);
    set.get_configuration(INFINITE).unwrap();
    let device = set.open_device(name).unwrap();
    (set, server, device, options)
}

fn handles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handles");
    let (set, server, mut device, options) = own_client("bench-handles", 64 << 10);
    let routine: Arc<dyn CompletionRoutine> = Arc::new(|_: Completed| {});
    let buffer = server.set.allocate_buffer(64 << 10, 0).unwrap();
    server.device.send_command(VdsCommand::transfer(CommandCode::WRITE, buffer, 64 << 10, routine)).unwrap();
    let command = device.get_command(INFINITE).unwrap();
    let address = command.buffer_address().unwrap();
    // Mapping is for other processes; a second membership in this one stands for such a process.
    let other = ClientVirtualDeviceSet::with_options(options);
    other.open_in_secondary("bench-handles").unwrap();
    group.bench_function("get", |b| b.iter(|| set.get_buffer_handle(black_box(address)).unwrap()));
    let handle = set.get_buffer_handle(address).unwrap();
    group.bench_function("map + release", |b| b.iter(|| drop(other.map_buffer_handle(black_box(handle)).unwrap())));
    group.bench_function("get + map + release", |b| {
        b.iter_custom(|iterations| {
            let started = Instant::now();
            for _ in 0..iterations {
                let handle = set.get_buffer_handle(black_box(address)).unwrap();
                drop(other.map_buffer_handle(black_box(handle)).unwrap());
            }
            note("get + map + release", started.elapsed(), iterations)
        });
    });
    drop(other);
    drop(command);
    group.finish();
}
