//! What the tests of sets share: child processes ([`Child`]), members that are driven by hand ([`RawMember`]), and helpers.
#![allow(dead_code, unreachable_pub, unused_imports)] // each test binary uses its part

mod child;
pub mod descriptors;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub use child::child_entry;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::index::{ClassIndex, MemberIndex};
use vdi_proto::wire::class::{Class, ClassSpec};
use vdi_proto::wire::join::{JoinRole, Message};
use vdi_shm::ipc::link::{Link, Packet, Received};
use vdi_shm::ipc::runtime::{Access, Options, RuntimeDir, SocketName};
use vdi_shm::ipc::segment::Segment;
use vdi_shm::set::name::SetName;
use vdi_shm::set::session::Session;

/// The longest time that any step of a test may take.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The group of a process that became another user.
pub const OTHER_GID: u32 = 65534;

/// The variable that makes this binary a child process, with the runtime directory in it.
const DIR: &str = "VDI_TEST_DIR";
/// What an answer of a child begins with. The test harness writes to the same output.
const MARK: &str = "vdi:";

pub const INSTANCE: &str = "TEST";
pub const SET: &str = "nightly";

/// The class of buffers that tests add where any will do.
pub const SPEC: ClassSpec = ClassSpec { buffer_len: 4096, alignment: 4096, count: 4 };

pub fn options(dir: &Path) -> Options {
    Options { runtime_dir: Some(dir.to_owned()), access: Access::default() }
}

pub fn requested() -> VdConfig {
    VdConfig { prefix_zone_size: 16, ..VdConfig::default() }
}

pub fn negotiated() -> VdConfig {
    ServerTerms::default().negotiate(&requested()).expect("terms")
}

/// The socket of the set [`SET`].
pub fn socket_name() -> SocketName {
    SetName::new(INSTANCE, SET).expect("a name").socket().clone()
}

pub fn device(number: u32) -> vdi_proto::index::DeviceIndex {
    vdi_proto::index::DeviceIndex::new(number).expect("a device")
}

pub fn class_index(number: u32) -> ClassIndex {
    ClassIndex::new(number).expect("a class")
}

pub fn member_index(number: u32) -> MemberIndex {
    MemberIndex::new(number).expect("a member")
}

/// The layout of a class in a set of [`requested`].
pub fn lay_out(spec: ClassSpec, first_slot: u32) -> Class {
    spec.lay_out(requested().prefix_zone_size, first_slot).expect("a class")
}

/// How many classes a process has.
pub fn classes_of(session: &Session) -> usize {
    session.classes().iter().count()
}

/// Nanoseconds on the clock that all processes share.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn deadline() -> Instant {
    Instant::now() + TEST_TIMEOUT
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = deadline();
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a set is aborted.
pub fn await_abort(session: &Session) -> vdi_proto::abort::AbortReason {
    let event = session.control().set_event();
    vdi_shm::ipc::wait::wait_until(event, Some(deadline()), || session.abort_reason()).expect("an abort")
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
    // Not by a macro: the test harness shows the output of those for failed tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A socket of the kind that sets have.
pub fn seqpacket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket")
}

// ---- links that are driven by hand

/// A link to the set [`SET`] that has not sent Hello.
pub fn connect(dir: &Path) -> Link {
    let runtime = RuntimeDir::open(&options(dir), false).expect("a directory");
    runtime.connect(&socket_name(), &Access::default()).expect("a set")
}

pub fn send(link: &Link, message: &Message<'_>, segment: Option<&Segment>) {
    link.send(message.encode().bytes(), segment.map(Segment::fd)).expect("a peer");
}

/// The next packet; `None` for a hang-up.
pub fn receive(link: &Link) -> Option<Packet> {
    match link.receive_until(deadline()).expect("a packet") {
        Received::Packet(packet) => Some(packet),
        Received::HungUp => None,
        Received::Nothing => unreachable!("it waits"),
    }
}

/// The message of a packet.
pub fn message(packet: &Packet) -> Message<'_> {
    Message::decode(packet.bytes()).expect("a message")
}

/// The next packet, which has to be this message.
pub fn expect(link: &Link, expected: &Message<'_>) -> Packet {
    let packet = receive(link).expect("a message");
    assert_eq!(message(&packet), *expected);
    packet
}

/// A member that sends what a test says, and nothing of its own accord.
pub struct RawMember {
    pub link: Link,
    pub index: MemberIndex,
    pub control: Segment,
    /// The classes that came with the Welcome.
    pub classes: Vec<ClassSpec>,
}

impl RawMember {
    /// Joins the set [`SET`], which has to be one of a single device.
    pub fn join(dir: &Path, role: JoinRole) -> RawMember {
        let link = connect(dir);
        send(&link, &Message::Hello { role, instance: INSTANCE, set: SET }, None);
        let mut packet = receive(&link).expect("a Welcome");
        let Message::Welcome { member, classes, .. } = message(&packet) else { panic!("{:?}", message(&packet)) };
        let control = packet.take_segment(vdi_proto::wire::layout::control_len(1)).expect("a control segment");
        let classes = ClassIndex::all(classes).map(|expected| {
            let packet = receive(&link).expect("a class");
            let Message::Class { index, spec } = message(&packet) else { panic!("{:?}", message(&packet)) };
            assert_eq!(index, expected);
            spec
        });
        let classes = classes.collect();
        RawMember { link, index: member, control, classes }
    }

    pub fn send(&self, message: &Message<'_>, segment: Option<&Segment>) {
        send(&self.link, message, segment);
    }

    /// The next packet, which has to be this message.
    pub fn expect(&self, expected: &Message<'_>) -> Packet {
        expect(&self.link, expected)
    }
}

// ---- child processes

/// A child process: this test binary again, run as its test `child_entry`. It reads one command a line and writes one answer
/// a line ([`child`]).
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

    /// A child with these variables in its environment.
    pub fn with_environment(dir: &Path, variables: &[(&str, &Path)]) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.envs(variables.iter().copied());
        Child::start(dir, command)
    }

    /// A child with process ids of its own, as in a container: processes outside have no process id there.
    pub fn in_a_container(dir: &Path) -> Child {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(std::env::current_exe().expect("this binary"));
        Child::start(dir, command)
    }

    /// A child in a mount namespace of its own, where a tmpfs with these options is mounted.
    pub fn with_tmpfs(dir: &Path, mount_point: &Path, options: &str) -> Child {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs -o \"$0\" none \"$1\" && shift && exec \"$@\"", options]);
        command.arg(mount_point).arg(std::env::current_exe().expect("this binary"));
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
        let input = self.input.as_mut().expect("a child that is not to end");
        writeln!(input, "{command}").and_then(|()| input.flush()).expect("a child that listens");
    }

    pub fn answer(&mut self) -> String {
        let deadline = deadline();
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                // The harness may have begun the line.
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

    /// Runs a command that must succeed.
    pub fn ok(&mut self, command: &str) -> String {
        let answer = self.ask(command);
        match answer.strip_prefix("ok") {
            Some(rest) => rest.trim_start().to_owned(),
            None => panic!("{command}: {answer}"),
        }
    }

    /// Runs a command that must fail with this status.
    pub fn err(&mut self, command: &str, status: &str) {
        self.refused(command, status, &[]);
    }

    /// Runs a command that must fail with this status, and for a reason that has all these parts.
    pub fn refused(&mut self, command: &str, status: &str, reasons: &[&str]) {
        let answer = self.ask(command);
        assert!(answer.starts_with(&format!("err {status} ")), "{command}: {answer}, where {status} was expected");
        for reason in reasons {
            assert!(answer.contains(reason), "{command}: {answer}, where {reason:?} was expected");
        }
    }

    /// Begins to wait for an abort. [`Child::abort_seen`] has the outcome.
    pub fn await_abort(&mut self) {
        self.send("await-abort");
        assert_eq!(self.answer(), "waiting");
    }

    /// The time at which the child saw the abort that it waited for, and the reason.
    pub fn abort_seen(&mut self) -> (u64, String) {
        let answer = self.answer();
        let (seen, reason) =
            answer.strip_prefix("ok ").and_then(|rest| rest.split_once(' ')).expect("a time and a reason");
        (seen.parse().expect("nanoseconds"), reason.to_owned())
    }

    /// SIGKILL. Returns when the child is dead.
    pub fn kill(mut self) {
        self.send_kill();
        self.process.wait().expect("a dead child");
    }

    /// SIGKILL without waiting for the end. Returns the time.
    pub fn send_kill(&mut self) -> u64 {
        let sent = now();
        self.process.kill().expect("a child to kill");
        sent
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The end of its input ends the child.
        drop(self.input.take());
        if std::thread::panicking() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
