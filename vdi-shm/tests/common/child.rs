//! What a child process does: it executes one command a line.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::net::SocketAddrUnix;
use vdi_proto::abort::Cause;
use vdi_proto::command::Loan;
use vdi_proto::handle::BufferHandle;
use vdi_proto::index::{Generation, SlotIndex};
use vdi_proto::set::SetPhase;
use vdi_proto::status::VdError;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinRole, Message};
use vdi_shm::ipc::link::Link;
use vdi_shm::ipc::runtime::{Access, ConnectError, DirError, Options, RuntimeDir};
use vdi_shm::ipc::wait;
use vdi_shm::set::buffers::{BufferError, CommandBuffer};
use vdi_shm::set::error::{CreateError, JoinError, RequestError};
use vdi_shm::set::mapped_buffer::MappedBuffer;
use vdi_shm::set::name::SetName;
use vdi_shm::set::pool::{LentBuffer, NotFree};
use vdi_shm::set::primary::Primary;
use vdi_shm::set::secondary::Secondary;
use vdi_shm::set::server::Server;
use vdi_shm::set::session::Session;
use vdi_shm::set::slots::ReclaimError;

use super::{
    DIR, INSTANCE, MARK, TEST_TIMEOUT, message, negotiated, now, options, receive, requested, send, seqpacket,
};

/// Why a command failed: a status, or what happened instead of one, and the text of the error.
struct Failure(String);

impl Failure {
    fn new(status: impl core::fmt::Debug, error: impl core::fmt::Display) -> Failure {
        Failure(format!("{status:?} {error}"))
    }
}

macro_rules! with_code {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::new(error.code(), error)
            }
        })+
    };
}

with_code!(CreateError, JoinError, RequestError, BufferError);

impl From<NotFree> for Failure {
    fn from(error: NotFree) -> Failure {
        Failure::new(VdError::Abort, error)
    }
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Failure {
        Failure::new(VdError::Security, error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match error {
            ConnectError::Untrusted(error) => Failure::new(VdError::Security, error),
            error => Failure::new(VdError::Unexpected, error),
        }
    }
}

/// The set that a child belongs to, by its role.
enum Role {
    Primary(Primary),
    Secondary(Secondary),
    Server(Server),
}

/// What a child has.
#[derive(Default)]
struct State {
    options: Options,
    role: Option<Role>,
    lent: Option<LentBuffer>,
    command: Option<CommandBuffer>,
    mapped: Option<MappedBuffer>,
    connections: Vec<Link>,
    listener: Option<OwnedFd>,
}

fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

type Answer = Result<String, Failure>;

/// The answer of a command that has nothing to say.
fn done() -> Answer {
    Ok(String::new())
}

impl State {
    fn session(&self) -> Arc<Session> {
        Arc::clone(match self.role.as_ref().expect("a set") {
            Role::Primary(primary) => primary.session(),
            Role::Secondary(secondary) => secondary.session(),
            Role::Server(server) => server.session(),
        })
    }

    fn server(&self) -> &Server {
        match &self.role {
            Some(Role::Server(server)) => server,
            _ => panic!("this child is no server"),
        }
    }

    fn execute(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["resources"] => Ok(resources()),
            ["allow" | "allow-group" | "umask" | "become" | "become-member", value] => {
                self.change_identity(words[0], value)
            }
            [
                "connect" | "connect-and-close" | "hello" | "send-connection" | "listen" | "link" | "remove"
                | "open-descriptors",
                ..,
            ] => self.outside(words),
            [
                "create" | "admit" | "join" | "class" | "configure" | "end-work" | "abort" | "give-up" | "close"
                | "leave",
                ..,
            ] => self.set(words),
            ["classes"] => Ok(super::classes_of(&self.session()).to_string()),
            ["aborted"] => Ok(self.session().aborted().map_or("none".to_owned(), |abort| abort.to_string())),
            ["joiners"] => Ok(self.session().joiners().to_string()),
            // Two answers: before the wait begins, and with the time and the reason.
            ["await-abort"] => {
                println!("{MARK}waiting");
                let session = self.session();
                let deadline = wait::deadline(TEST_TIMEOUT);
                let reason = wait::wait_until(session.control().set_event(), deadline, || session.abort_reason());
                Ok(format!("{} {}", now(), reason.map_or("none".to_owned(), |reason| reason.to_string())))
            }
            _ => self.buffer(words),
        }
    }

    /// The user of this process, and which users it allows.
    fn change_identity(&mut self, what: &str, value: &str) -> Answer {
        match what {
            "allow" => self.options.access.uids.push(number(value)),
            "allow-group" => self.options.access.gids.push(number(value)),
            "umask" => {
                let mask = u32::from_str_radix(value, 8).expect("a mask");
                rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask));
            }
            // Only this thread, and those that it starts. The system checks the thread that connects.
            "become" | "become-member" => {
                let uid = rustix::process::Uid::from_raw(number(value));
                let other = rustix::process::Gid::from_raw(super::OTHER_GID);
                // Root's groups would still give access. A member has the other users' group beside its own.
                let (gid, groups) = match what {
                    "become" => (other, vec![]),
                    _ => (rustix::process::Gid::from_raw(number(value)), vec![other]),
                };
                rustix::thread::set_thread_groups(&groups).expect("root can change its groups");
                rustix::thread::set_thread_res_gid(gid, gid, gid).expect("root can be in any group");
                rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root can become any user");
            }
            unknown => panic!("no such command: {unknown:?}"),
        }
        done()
    }

    fn connect(&self, set: &str) -> Result<Link, Failure> {
        let runtime = RuntimeDir::open(&self.options, false)?;
        let name = SetName::new(INSTANCE, set).expect("a name");
        Ok(runtime.connect(name.socket(), &self.options.access)?)
    }

    /// What processes do that are no members.
    fn outside(&mut self, words: &[&str]) -> Answer {
        match *words {
            // Connects, and sends nothing.
            ["connect", count, set] => {
                for _ in 0..number(count) {
                    self.connections.push(self.connect(set)?);
                }
                done()
            }
            // Connects and disconnects. Answers how often this succeeded.
            ["connect-and-close", count, set] => {
                Ok((0..number(count)).filter(|_| self.connect(set).is_ok()).count().to_string())
            }
            // Sends Hello over one of the connections.
            ["hello", set] => {
                let link = self.connections.pop().expect("a connection");
                send(&link, &Message::Hello { role: JoinRole::Server, instance: INSTANCE, set }, None);
                let answer = receive(&link).expect("an answer");
                Ok(match message(&answer) {
                    Message::Welcome { .. } => "welcome".to_owned(),
                    other => format!("{other:?}"),
                })
            }
            // Passes one of the connections to the process that listens there.
            ["send-connection", path] => {
                let socket = seqpacket();
                rustix::net::connect(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a listener");
                let connection = self.connections.pop().expect("a connection");
                let encoded = Message::Leave.encode();
                Link::new(socket).send(encoded.bytes(), Some(connection.as_fd())).expect("a listener");
                done()
            }
            // Listens at the path of a set, and never answers.
            ["listen", path] => {
                let socket = seqpacket();
                rustix::net::bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a free name");
                rustix::fs::chmod(path, rustix::fs::Mode::from_bits_truncate(0o666)).expect("its own socket");
                rustix::net::listen(&socket, 8).expect("its own socket");
                self.listener = Some(socket);
                done()
            }
            ["link", target, path] => {
                std::os::unix::fs::symlink(target, path).expect("a directory that is writable by everybody");
                done()
            }
            ["remove", path] => {
                std::fs::remove_file(path).expect("a directory that this user can write to");
                done()
            }
            // How many of a process's first descriptors can be opened from outside, and whether they can be listed, and its
            // memory be opened.
            ["open-descriptors", pid] => {
                let open = |number: &u32| File::open(format!("/proc/{pid}/fd/{number}")).is_ok();
                let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok();
                let memory = File::open(format!("/proc/{pid}/mem")).is_ok();
                Ok(format!("{} {listed} {memory}", (0..64).filter(open).count()))
            }
            ref unknown => panic!("no such command: {unknown:?}"),
        }
    }

    /// Creating, joining, configuring, ending.
    fn set(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["create", set] => {
                self.role = Some(Role::Primary(Primary::create(&self.options, INSTANCE, set, &requested())?));
                done()
            }
            ["admit"] => match &self.role {
                Some(Role::Primary(primary)) => {
                    primary.admit_secondaries();
                    done()
                }
                _ => panic!("this child is no primary"),
            },
            ["join", role, set] => {
                self.role = Some(match role {
                    "server" => Role::Server(Server::join(&self.options, INSTANCE, set)?),
                    _ => Role::Secondary(Secondary::join(&self.options, INSTANCE, set)?),
                });
                Ok(self.session().member().to_string())
            }
            // Answers the time at which the request returned.
            ["class", buffer_len, alignment, count] => {
                let [buffer_len, alignment, count] = [buffer_len, alignment, count].map(number);
                self.server().add_class(ClassSpec { buffer_len, alignment, count }, TEST_TIMEOUT)?;
                Ok(now().to_string())
            }
            ["configure"] => {
                self.server().configure(negotiated(), TEST_TIMEOUT)?;
                done()
            }
            ["end-work"] => {
                self.server().control().close_device(super::device(0));
                done()
            }
            ["abort"] => {
                self.session().abort(Cause::Signalled);
                done()
            }
            ["give-up", code, ..] => {
                self.session().give_up(number(code), words[2..].join(" "));
                done()
            }
            ["close" | "leave"] => {
                self.role = None;
                done()
            }
            ref unknown => panic!("no such command: {unknown:?}"),
        }
    }

    fn buffer(&mut self, words: &[&str]) -> Answer {
        match *words {
            // Server: fills a buffer with a byte and lends it.
            ["lend", byte] => {
                let mut buffer =
                    self.server().pool().allocate(4096, 0).map_err(|error| Failure::new(error.code(), error))?;
                buffer.data_mut().fill(byte.parse().expect("a byte"));
                let lent = buffer.lend();
                let Loan { slot, generation } = lent.loan();
                self.lent = Some(lent);
                Ok(format!("{slot} {generation}"))
            }
            // Server: reclaims the lent buffer. Answers its byte.
            ["reclaim-lent"] => {
                let buffer = self.lent.take().expect("a lent buffer").reclaim()?;
                let first = buffer.data()[0];
                assert!(buffer.data().iter().all(|byte| *byte == first));
                Ok(first.to_string())
            }
            // Client: takes the buffer of a command. Answers its handle.
            ["take", slot, generation] => {
                let slot = SlotIndex::new(number(slot)).expect("a slot");
                let loan = Loan { slot, generation: Generation::from_bits(number(generation)) };
                let command = self.session().buffers().expect("a configured set").take(loan, 4096)?;
                let handle = command.handle().number();
                self.command = Some(command);
                Ok(handle.to_string())
            }
            // Client: reclaims the buffer of its command for the server.
            ["reclaim"] => match self.command.take().expect("a command").reclaim() {
                Ok(()) => Ok("free".to_owned()),
                Err((ReclaimError::Leased { leases }, command)) => {
                    self.command = Some(command);
                    Ok(format!("leased {leases:#b}"))
                }
                Err((error, _)) => Err(Failure::new(VdError::Abort, error)),
            },
            ["drop-command"] => {
                self.command = None;
                done()
            }
            // Answers the first byte.
            ["map", handle] => {
                let handle = BufferHandle::from_number(number(handle));
                let mapped = match self.role.as_ref().expect("a set") {
                    Role::Primary(primary) => primary.map_buffer(SetPhase::Open, handle)?,
                    Role::Secondary(secondary) => secondary.map_buffer(SetPhase::Open, handle)?,
                    Role::Server(_) => panic!("a server maps no handle"),
                };
                let first = mapped.data()[0];
                self.mapped = Some(mapped);
                Ok(first.to_string())
            }
            ["fill", byte] => {
                self.mapped.as_mut().expect("a mapping").data_mut().fill(byte.parse().expect("a byte"));
                done()
            }
            ["unmap"] => {
                self.mapped = None;
                done()
            }
            ref unknown => panic!("no such command: {unknown:?}"),
        }
    }
}

/// Descriptors, mappings of sets, and threads of this process.
fn resources() -> String {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, |entries| entries.flatten().count());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter(|line| line.contains("vdi-")).filter(|line| line.contains("memfd")).count();
    format!("{} descriptors, {mapped} mappings, {} threads", count("/proc/self/fd"), count("/proc/self/task"))
}

/// Executes commands in a child process; returns at once in the test run itself.
pub fn child_entry() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let access = Access::default();
    let mut state = State { options: Options { access, ..options(&PathBuf::from(dir)) }, ..State::default() };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match state.execute(&words) {
            Ok(answer) => format!("ok {answer}"),
            Err(Failure(failure)) => format!("err {failure}"),
        };
        println!("{MARK}{answer}");
        // The output is a pipe, which is not flushed at the end of a line.
        let _ = std::io::stdout().flush();
    }
}
