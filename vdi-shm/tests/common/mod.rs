//! Child processes that do as they are told: each is this test binary again, run as its test `child_entry`, with the
//! runtime directory in its environment, one command a line on its input and one answer a line on its output.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

pub mod descriptors;

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vdi_proto::command::Loan;
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::handle::BufferHandle;
use vdi_proto::join::{Agreement, Message, Role};
use vdi_proto::layout::BufferRules;
use vdi_proto::set::View;
use vdi_shm::allocator::{BufferPool, ServerBuffer};
use vdi_shm::area::{LentBuffer, MappedBuffer};
use vdi_shm::error::ShmError;
use vdi_shm::host::Host;
use vdi_shm::link::{Link, Received};
use vdi_shm::member::Member;
use vdi_shm::runtime::{Access, Options, Place, RuntimeDir};
use vdi_shm::session::Session;
use vdi_shm::wait;

/// How long anything may take before a test gives up on it. Nothing should ever take it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The group of those who become another user.
pub const STRANGERS: u32 = 65534;

const DIR: &str = "VDI_TEST_DIR";
const MARK: &str = "vdi:";

pub const INSTANCE: &str = "TEST";
pub const AREA_LEN: u64 = 64 * 1024;

pub fn options(dir: &Path) -> Options {
    Options { runtime_dir: Some(dir.to_owned()), access: Access::default() }
}

pub fn asked() -> VdConfig {
    VdConfig { prefix_zone_size: 16, ..VdConfig::default() }
}

pub fn agreement() -> Agreement {
    Agreement { config: ServerTerms::default().negotiate(&asked()).expect("terms"), slot_bits: 6 }
}

/// Nanoseconds on the clock that all processes share.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The names in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Whether this process may become another user.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says visibly that a test did not run.
pub fn skip(test: &str, why: &str) {
    // Past the test harness, which shows the output of failed tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A child.
pub struct Child {
    process: Process,
    input: Option<ChildStdin>,
    output: ChildStdout,
    read: Vec<u8>,
}

impl Child {
    pub fn new(dir: &Path) -> Child {
        Child::start(dir, Command::new(std::env::current_exe().expect("this binary")))
    }

    /// A child that numbers processes by itself, as one in a container does: others have no process id there.
    pub fn in_a_container(dir: &Path) -> Child {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(std::env::current_exe().expect("this binary"));
        Child::start(dir, command)
    }

    fn start(dir: &Path, mut command: Command) -> Child {
        let mut process = command
            .args(["--exact", "child_entry", "--nocapture", "--test-threads", "1"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let input = process.stdin.take();
        let output = process.stdout.take().expect("its output");
        Child { process, input, output, read: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn send(&mut self, command: &str) {
        let input = self.input.as_mut().expect("a child that was not told to end");
        writeln!(input, "{command}").and_then(|()| input.flush()).expect("a child that listens");
    }

    pub fn answer(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                // The harness writes beside the child, and not always whole lines.
                if let Some((_, answer)) = String::from_utf8_lossy(&line).split_once(MARK) {
                    return answer.trim_end().to_owned();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "a child did not answer");
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let _ = rustix::event::poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&left));
            let mut bytes = [0; 4096];
            let count = self.output.read(&mut bytes).expect("output");
            assert!(count > 0, "a child ended without an answer");
            self.read.extend_from_slice(&bytes[..count]);
        }
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.answer()
    }

    /// Asks for something that must succeed.
    pub fn ok(&mut self, command: &str) -> String {
        let answer = self.ask(command);
        match answer.strip_prefix("ok") {
            Some(rest) => rest.trim_start().to_owned(),
            None => panic!("{command}: {answer}"),
        }
    }

    /// Asks for something that must fail with this status.
    pub fn err(&mut self, command: &str, status: &str) {
        let answer = self.ask(command);
        assert!(answer.starts_with(&format!("err {status} ")), "{command}: {answer}, where {status} was due");
    }

    /// Asks for something that must fail with this status, for reasons that name all of these.
    pub fn refused(&mut self, command: &str, status: &str, reasons: &[&str]) {
        let answer = self.ask(command);
        assert!(answer.starts_with(&format!("err {status} ")), "{command}: {answer}, where {status} was due");
        for reason in reasons {
            assert!(answer.contains(reason), "{command}: {answer}, where {reason:?} was due");
        }
    }

    /// SIGKILL. Returns when it was sent.
    pub fn kill(mut self) -> u64 {
        let sent = now();
        self.process.kill().expect("a child to kill");
        self.process.wait().expect("a dead child");
        sent
    }

    /// SIGKILL without waiting for the end, as those who are left would see it.
    pub fn kill_at_once(&mut self) -> u64 {
        let sent = now();
        self.process.kill().expect("a child to kill");
        sent
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The end of its input ends it; whatever it does instead, nothing is left behind.
        drop(self.input.take());
        if !std::thread::panicking() {
            return drop(self.process.wait());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a child has.
#[derive(Default)]
struct Doll {
    options: Options,
    host: Option<Host>,
    member: Option<Member>,
    pool: Option<Arc<BufferPool>>,
    buffer: Option<ServerBuffer>,
    command: Option<LentBuffer>,
    mapped: Option<MappedBuffer>,
    crowd: Vec<Link>,
    squatter: Option<OwnedFd>,
}

fn failed(error: &ShmError) -> String {
    format!("err {:?} {error}", error.code())
}

impl Doll {
    fn session(&self) -> Arc<Session> {
        let session = self.host.as_ref().map(Host::session).or_else(|| self.member.as_ref().map(Member::session));
        Arc::clone(session.expect("a set"))
    }

    fn obey(&mut self, words: &[&str]) -> Result<String, ShmError> {
        let done = Ok(String::new());
        match *words {
            ["allow", uid] => {
                self.options.access.uids.push(uid.parse().expect("a uid"));
                done
            }
            ["allow-group", gid] => {
                self.options.access.gids.push(gid.parse().expect("a gid"));
                done
            }
            ["forget-allowed"] => {
                self.options.access = Access::default();
                done
            }
            ["umask", mask] => {
                let mask = u32::from_str_radix(mask, 8).expect("a mask");
                rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask));
                done
            }
            // This thread alone, and those that it starts: what the system looks at when this thread connects.
            ["become", uid] => {
                let uid = rustix::process::Uid::from_raw(uid.parse().expect("a uid"));
                // Root's groups would go on opening doors.
                let gid = rustix::process::Gid::from_raw(STRANGERS);
                rustix::thread::set_thread_groups(&[]).expect("root can leave any group");
                rustix::thread::set_thread_res_gid(gid, gid, gid).expect("root can be in any group");
                rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root can become anybody");
                done
            }
            ["create", set] => {
                self.host = Some(Host::create(&self.options, INSTANCE, set, &asked())?);
                done
            }
            ["admit"] => {
                self.host.as_ref().expect("a set").admit_secondaries();
                done
            }
            ["join", role, set] => {
                let role = if role == "server" { Role::Server } else { Role::Secondary };
                let member = Member::join(&self.options, role, INSTANCE, set)?;
                let number = member.session().member();
                self.member = Some(member);
                Ok(number.to_string())
            }
            // Connects this often and says nothing.
            ["crowd", count, set] => {
                let runtime = RuntimeDir::open(&self.options, false)?;
                let place = Place::new(INSTANCE, set)?;
                for _ in 0..count.parse().expect("a number") {
                    self.crowd.push(runtime.connect(&place, &self.options.access)?);
                }
                done
            }
            // Knocks this often without staying.
            ["flood", count, set] => {
                let runtime = RuntimeDir::open(&self.options, false)?;
                let place = Place::new(INSTANCE, set)?;
                let count: u32 = count.parse().expect("a number");
                Ok((0..count).filter(|_| runtime.connect(&place, &self.options.access).is_ok()).count().to_string())
            }
            // One of the crowd says who it is.
            ["hello", set] => {
                let link = self.crowd.pop().expect("a crowd");
                link.send(&Message::Hello { role: Role::Server, instance: INSTANCE, set }, None)?;
                Ok(match link.receive_until(Instant::now() + PATIENCE, "an answer")? {
                    Received::Packet(packet) => match packet.message()? {
                        Message::Welcome { .. } => "welcome".to_owned(),
                        other => format!("{other:?}"),
                    },
                    other => format!("{other:?}"),
                })
            }
            // Passes one of the crowd on to whoever listens there.
            ["pass-on", path] => {
                let socket = seqpacket();
                rustix::net::connect(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a listener");
                Link::new(socket).send(&Message::Leave, Some(self.crowd.pop().expect("a crowd").as_fd()))?;
                done
            }
            // Listens where a set would, and never answers.
            ["squat", path] => {
                let socket = seqpacket();
                rustix::net::bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a free name");
                rustix::fs::chmod(path, rustix::fs::Mode::from_bits_truncate(0o666)).expect("its own socket");
                rustix::net::listen(&socket, 8).expect("its own socket");
                self.squatter = Some(socket);
                done
            }
            ["link", target, path] => {
                std::os::unix::fs::symlink(target, path).expect("a directory for everybody");
                done
            }
            // How many of a process's first descriptors can be opened from outside of it.
            ["peek", pid] => {
                let open = |number: &u32| File::open(format!("/proc/{pid}/fd/{number}")).is_ok();
                let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok();
                let memory = File::open(format!("/proc/{pid}/mem")).is_ok();
                Ok(format!("{} {listed} {memory}", (0..64).filter(open).count()))
            }
            ["area", index] => {
                let member = self.member.as_ref().expect("a set");
                member.add_area(index.parse().expect("a number"), AREA_LEN, PATIENCE)?;
                done
            }
            ["configure"] => {
                self.member.as_ref().expect("a set").configure(agreement(), PATIENCE)?;
                done
            }
            ["areas"] => {
                let session = self.session();
                Ok((0..).take_while(|index| session.areas().get(*index).is_some()).count().to_string())
            }
            ["lend", byte] => {
                let session = self.session();
                let pool = self.pool.get_or_insert_with(|| {
                    let rules = BufferRules::new(&agreement().config);
                    let pool = BufferPool::new(Arc::clone(session.control()), Arc::clone(session.areas()), rules, 6);
                    pool.add_area(session.areas().get(0).expect("an area"));
                    pool
                });
                let mut buffer = pool.allocate(4096, 0)?;
                buffer.data_mut().fill(byte.parse().expect("a byte"));
                let loan = buffer.lend();
                self.buffer = Some(buffer);
                Ok(format!("{} {}", loan.slot, loan.generation))
            }
            ["look"] => {
                let buffer = self.buffer.take().expect("a buffer");
                let first = buffer.data()[0];
                assert!(buffer.data().iter().all(|byte| *byte == first));
                Ok(first.to_string())
            }
            ["take", slot, generation] => {
                let loan =
                    Loan { slot: slot.parse().expect("a slot"), generation: generation.parse().expect("a generation") };
                let command = self.session().buffers().expect("a configured set").take(loan, 4096).expect("a loan");
                let handle = command.handle().number();
                self.command = Some(command);
                Ok(handle.to_string())
            }
            ["give-back"] => match self.command.take().expect("a command").give_back() {
                Ok(()) => Ok("home".to_owned()),
                Err((error, command)) => {
                    self.command = Some(command);
                    Ok(format!("{error:?}"))
                }
            },
            ["drop-command"] => {
                self.command = None;
                done
            }
            ["map", handle] => {
                let handle = BufferHandle::from_number(handle.parse().expect("a number"));
                match self.session().buffers().expect("a configured set").map(View::Open, handle) {
                    Ok(mapped) => {
                        let first = mapped.data()[0];
                        self.mapped = Some(mapped);
                        Ok(first.to_string())
                    }
                    Err(error) => Ok(format!("{:?}", error.code())),
                }
            }
            ["fill", byte] => {
                self.mapped.as_mut().expect("a mapping").data_mut().fill(byte.parse().expect("a byte"));
                done
            }
            ["unmap"] => {
                self.mapped = None;
                done
            }
            ["end-work"] => {
                self.session().control().server_close_device(0);
                done
            }
            ["abort"] => {
                self.session().abort(vdi_proto::abort::Cause::Signalled);
                done
            }
            // Answers twice: when it is about to wait, and with the reason and the time at which it was seen.
            ["await-abort"] => {
                println!("{MARK}waiting");
                let session = self.session();
                let deadline = wait::deadline(PATIENCE);
                let reason = wait::wait_until(session.control().set_doorbell(), deadline, || session.abort_reason());
                Ok(format!("{} {}", now(), reason.map_or("none".to_owned(), |reason| reason.to_string())))
            }
            ["close"] => {
                self.host = None;
                done
            }
            ["leave"] => {
                self.member = None;
                done
            }
            ["resources"] => Ok(resources()),
            ref unknown => panic!("no such command: {unknown:?}"),
        }
    }
}

/// A socket of the kind that sets have.
pub fn seqpacket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// Descriptors, mappings of sets, and threads of this process.
pub fn resources() -> String {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, |entries| entries.flatten().count());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter(|line| line.contains("vdi-")).filter(|line| line.contains("memfd")).count();
    format!("{} descriptors, {mapped} mappings, {} threads", count("/proc/self/fd"), count("/proc/self/task"))
}

/// What a child does; nothing in the test run itself.
pub fn child_entry() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut doll = Doll { options: options(&PathBuf::from(dir)), ..Doll::default() };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match doll.obey(&words) {
            Ok(answer) => format!("ok {answer}"),
            Err(error) => failed(&error),
        };
        println!("{MARK}{answer}");
        // A pipe is written to in lines only where it is a terminal.
        let _ = std::io::stdout().flush();
    }
}
