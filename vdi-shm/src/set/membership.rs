//! The membership of a process that joined a set: the link to the primary, and the monitor thread that reads it.
//!
//! # Invariants
//!
//! 1. Nothing of the set is used before its control segment and its classes were received and validated.
//! 2. The primary's death aborts the set here, unless the server had closed every device. The process that notices it also
//!    removes the dead set's socket.
//! 3. A process sends Leave before it closes its link, also when it cannot complete joining. A link that ends without Leave
//!    is a death.
//! 4. An abort that this process sees first is reported to the primary. An abort that the primary reports is taken over,
//!    whatever the control segment says.
//! 5. At most one request of the server has no answer yet. An answer takes effect when it arrives, also when the request
//!    has timed out. So the server and the primary have the same classes and the same configuration.

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use vdi_proto::abort::{Cause, Process};
use vdi_proto::config::VdConfig;
use vdi_proto::index::{ClassIndex, MAX_CLASSES, MemberIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::checksum::Checksums;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_proto::wire::layout::control_len;

use super::abort::{Abort, printable};
use super::claim::Claim;
use super::class_table::MappedClass;
use super::control::Control;
use super::error::{Fault, JoinError, RequestError, Violation};
use super::name::SetName;
use super::session::{AbortNotifier, Founding, MONITOR_STACK, Session};
use crate::ipc::error::SystemError;
use crate::ipc::link::{Link, LinkError, Packet, Received, poll_readable};
use crate::ipc::runtime::{ConnectError, DirError, Options, RuntimeDir, near_misses};
use crate::ipc::segment::Segment;
use crate::ipc::wait;

/// How long the primary has to answer a joiner.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// What is found instead of a message when the peer closed its end.
const HUNG_UP: &str = "the end of the connection";

/// The membership of a process. Dropping it leaves the set.
#[derive(Debug)]
pub struct Membership {
    shared: Arc<Shared>,
    monitor: Option<JoinHandle<()>>,
}

/// What the membership and its monitor thread share.
#[derive(Debug)]
struct Shared {
    session: Arc<Session>,
    link: Link,
    leaving: AtomicBool,
    /// Locked during a request: there is one at a time.
    requesting: Mutex<()>,
    requests: Mutex<Requests>,
}

/// A request of the server to the primary, with what it adds to this process once the primary accepts it.
#[derive(Debug)]
pub(crate) enum Request {
    /// RequestBuffers.
    Class(MappedClass),
    /// EndConfiguration.
    Configure(VdConfig),
}

impl Request {
    fn message(&self) -> Message<'static> {
        match self {
            Request::Class(row) => Message::Class { index: row.index(), spec: row.class().spec() },
            Request::Configure(config) => Message::Configured(*config),
        }
    }

    /// What was requested, and what the client has to do, for messages.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Request::Class(_) => ("a buffer class", "the client to map a buffer class"),
            Request::Configure(_) => ("the configuration", "the client to take the configuration"),
        }
    }

    /// Whether this message answers the request.
    fn is_answered_by(&self, message: &Message<'_>) -> bool {
        match (self, message) {
            (Request::Class(row), Message::ClassAnswer { index, .. }) => row.index() == *index,
            (Request::Configure(_), Message::ConfiguredAnswer(_)) => true,
            _ => false,
        }
    }
}

/// The server's requests.
#[derive(Debug, Default)]
struct Requests {
    /// The request that has no answer yet.
    pending: Option<Request>,
    /// The answer to the last request.
    answer: Option<Result<(), (VdError, String)>>,
}

/// The right to make one request: the requests before it were answered.
pub(crate) struct RequestTurn<'a> {
    shared: &'a Shared,
    deadline: Option<Instant>,
    _one_at_a_time: MutexGuard<'a, ()>,
}

/// Reports an abort to the primary.
#[derive(Debug)]
struct ToPrimary(Weak<Shared>);

impl AbortNotifier for ToPrimary {
    fn notify(&self, abort: &Abort) {
        if let Some(shared) = self.0.upgrade() {
            // A primary that does not take it is dead, or reported it itself.
            let _ = shared.send(&abort.message(), None);
        }
    }
}

fn send(link: &Link, message: &Message<'_>, segment: Option<&Segment>) -> Result<(), LinkError> {
    link.send(message.encode().bytes(), segment.map(Segment::fd))
}

/// Whether sending failed because the peer is gone.
fn is_gone(error: &LinkError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error, LinkError::System(SystemError { source, .. }) if matches!(source.kind(), BrokenPipe | ConnectionReset))
}

fn link_error(error: LinkError, step: &'static str) -> JoinError {
    match error {
        LinkError::Timeout => JoinError::Timeout { step },
        LinkError::System(error) => JoinError::System(error),
    }
}

fn next_packet(link: &Link, deadline: Instant, step: &'static str) -> Result<Packet, JoinError> {
    match link.receive_until(deadline).map_err(|error| link_error(error, step))? {
        Received::Packet(packet) => Ok(packet),
        Received::HungUp | Received::Nothing => {
            Err(Violation::OutOfTurn { found: HUNG_UP, expected: "an answer" }.into())
        }
    }
}

impl Membership {
    /// Joins a set by its name.
    pub(crate) fn join(options: &Options, role: JoinRole, instance: &str, set: &str) -> Result<Membership, JoinError> {
        let name = SetName::new(instance, set)?;
        let socket = name.socket().clone();
        let no_such_set = |path| JoinError::NoSuchSet {
            set: set.to_owned(),
            instance: instance.to_owned(),
            path,
            near_misses: near_misses(options, &socket),
        };
        let runtime = RuntimeDir::open(options, false).map_err(|error| match error {
            DirError::NotFound { path } => no_such_set(path),
            DirError::System(error) => error.into(),
            DirError::Untrusted(error) => error.into(),
        })?;
        let path = runtime.path_of(name.socket());
        let link = runtime.connect(name.socket(), &options.access).map_err(|error| match error {
            ConnectError::NotFound { path } => {
                runtime.remove_if_dead(name.socket());
                no_such_set(path)
            }
            ConnectError::Untrusted(error) => error.into(),
            ConnectError::Timeout { .. } => JoinError::Timeout { step: "the set's creator to accept a joiner" },
            ConnectError::System(error) => error.into(),
        })?;
        match send(&link, &Message::Hello { role, instance, set }, None) {
            // The primary may have closed its end already. What it sent before is read below.
            Err(error) if is_gone(&error) => {}
            sent => sent.map_err(|error| link_error(error, "the set's creator to take a message"))?,
        }
        let session = receive_set(&link, role, name, &path).map_err(|error| {
            // The primary may have counted this process as a member. Not joining is no death.
            let _ = send(&link, &Message::Leave, None);
            match error {
                // The set ended while this process joined.
                JoinError::Violation(Violation::OutOfTurn { found: HUNG_UP, .. }) => no_such_set(path),
                error => error,
            }
        })?;
        Membership::start(session, link, runtime)
    }

    fn start(session: Arc<Session>, link: Link, runtime: RuntimeDir) -> Result<Membership, JoinError> {
        let shared = Arc::new(Shared {
            session,
            link,
            leaving: AtomicBool::new(false),
            requesting: Mutex::default(),
            requests: Mutex::default(),
        });
        shared.session.set_notifier(Box::new(ToPrimary(Arc::downgrade(&shared))));
        let monitor = std::thread::Builder::new()
            .name("vdi-monitor".to_owned())
            .stack_size(MONITOR_STACK)
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.monitor(&runtime)
            })
            .map_err(|error| SystemError::new("start the monitor thread", error));
        let monitor = monitor.inspect_err(|_| drop(shared.send(&Message::Leave, None)))?;
        Ok(Membership { shared, monitor: Some(monitor) })
    }

    /// What this process knows of the set.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.shared.session
    }

    /// Server: begins a request, which ends after `timeout`. Waits for the answer to a request that timed out before.
    pub(crate) fn begin_request(&self, timeout: Duration) -> Result<RequestTurn<'_>, RequestError> {
        let shared = &*self.shared;
        let one_at_a_time = shared.requesting.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = RequestTurn { shared, deadline: wait::deadline(timeout), _one_at_a_time: one_at_a_time };
        turn.wait("the answer to an earlier request", || shared.requests().pending.is_none().then_some(()))?;
        Ok(turn)
    }
}

impl RequestTurn<'_> {
    /// Sends the request, and waits for the answer.
    pub(crate) fn request(self, request: Request, segment: Option<&Segment>) -> Result<(), RequestError> {
        let shared = self.shared;
        let (message, (request_name, step)) = (request.message(), request.names());
        *shared.requests() = Requests { pending: Some(request), answer: None };
        match shared.send(&message, segment) {
            // The primary is gone. The monitor thread aborts the set, which ends the wait below.
            Err(error) if is_gone(&error) => {}
            Err(LinkError::System(error)) => {
                // A message that was not sent gets no answer.
                shared.requests().pending = None;
                return Err(error.into());
            }
            Err(LinkError::Timeout) | Ok(()) => {}
        }
        let answer = self.wait(step, || shared.requests().answer.take())?;
        let set = || shared.session.set_name().to_owned();
        answer.map_err(|(status, why)| RequestError::Refused { set: set(), request: request_name, status, why })
    }

    /// Waits until `ready` returns something, the set is aborted, or the time is over.
    fn wait<T>(&self, step: &'static str, mut ready: impl FnMut() -> Option<T>) -> Result<T, RequestError> {
        let session = &self.shared.session;
        let ready = || match session.aborted() {
            Some(abort) => Some(Err(RequestError::Aborted(abort))),
            None => ready().map(Ok),
        };
        let event = session.control().set_event();
        wait::wait_until(event, self.deadline, ready).unwrap_or(Err(RequestError::Timeout { step }))
    }
}

/// Receives Welcome, the control segment, and the classes that exist.
fn receive_set(link: &Link, role: JoinRole, name: SetName, path: &Path) -> Result<Arc<Session>, JoinError> {
    let deadline = Instant::now() + WELCOME_TIMEOUT;
    let mut packet = next_packet(link, deadline, "the set's creator to answer")?;
    let (member, secret, requested, negotiated, classes) =
        match Message::decode(packet.bytes()).map_err(Violation::from)? {
            Message::Welcome { member, secret, requested, negotiated, classes } => {
                (member, secret, requested, negotiated, classes)
            }
            Message::Refused(Refusal { status, text }) => {
                let (set, why) = (name.set().to_owned(), printable(text));
                return Err(JoinError::Refused { set, status, why });
            }
            Message::Aborted { reason, code, text } => {
                return Err(JoinError::Aborted(Abort::new(reason, code, text)));
            }
            _ => return Err(Violation::OutOfTurn { found: "another message", expected: "Welcome" }.into()),
        };
    requested.validate_client().map_err(|error| Violation::Configure(error.into()))?;
    let segment = packet.take_segment(control_len(requested.device_count)).map_err(Violation::from)?;
    let memory = Claim::control(segment.identity()).ok_or(Violation::ControlInUse)?;
    let control = Control::attach(&segment, Checksums::new(secret)).map_err(Violation::from)?;
    let is_server = member == MemberIndex::SERVER;
    if is_server != (role == JoinRole::Server) || member == MemberIndex::PRIMARY || classes > MAX_CLASSES {
        return Err(Violation::OutOfTurn { found: "the Welcome of another process", expected: "Welcome" }.into());
    }
    let session = Session::new(control, memory, name, path.to_owned(), member, Founding { secret, requested });
    for expected in ClassIndex::all(classes) {
        let mut packet = next_packet(link, deadline, "the set's buffer classes")?;
        match Message::decode(packet.bytes()).map_err(Violation::from)? {
            Message::Class { index, spec } if index == expected => add_class(&session, &mut packet, index, spec)?,
            _ => return Err(Violation::OutOfTurn { found: "another message", expected: "the next class" }.into()),
        }
    }
    if let Some(config) = negotiated {
        session.configure(config).map_err(Violation::from)?;
    }
    Ok(session)
}

/// Takes a class out of its packet.
fn add_class(session: &Session, packet: &mut Packet, index: ClassIndex, spec: ClassSpec) -> Result<(), Violation> {
    let class = session.classes().lay_out(index, spec)?;
    let segment = packet.take_segment(class.area_len())?;
    session.add_class(index, spec, &segment)
}

impl Drop for Membership {
    /// Leaves the set.
    fn drop(&mut self) {
        self.shared.leaving.store(true, Ordering::Release);
        let _ = self.shared.send(&Message::Leave, None);
        self.shared.link.shut_down();
        if let Some(monitor) = self.monitor.take() {
            let _ = monitor.join();
        }
    }
}

impl Shared {
    fn send(&self, message: &Message<'_>, segment: Option<&Segment>) -> Result<(), LinkError> {
        send(&self.link, message, segment)
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor thread: reads the link until it ends.
    fn monitor(&self, runtime: &RuntimeDir) {
        loop {
            if poll_readable(&mut [PollFd::new(&self.link, PollFlags::IN)], None).is_err() {
                self.session.abort(Cause::Died);
                return;
            }
            match self.link.receive() {
                Ok(Received::Nothing) => {}
                Ok(Received::Packet(packet)) => match self.handle(packet) {
                    Ok(()) => {}
                    // A lack of memory in this process is no violation.
                    Err(error) if error.fault() == Fault::System => {
                        return self.session.give_up(error.code().hresult(), error);
                    }
                    Err(error) => return self.session.report_violation(Process::Primary, error),
                },
                Ok(Received::HungUp) | Err(_) => break,
            }
        }
        if self.leaving.load(Ordering::Acquire) {
            return;
        }
        if !self.session.work_has_ended() {
            self.session.abort_for(Process::Primary, Cause::Died);
        }
        // The system may close a dead process's socket a moment later than its links. Leaving waits for this thread, for less
        // than a second: after that, the next process that listens removes the socket.
        for pause in [0, 1, 2, 5, 10, 20, 50, 100, 200, 400].map(Duration::from_millis) {
            std::thread::sleep(pause);
            if runtime.remove_if_dead(self.session.name().socket()) {
                return;
            }
        }
    }

    fn handle(&self, mut packet: Packet) -> Result<(), Violation> {
        let server = self.session.member() == MemberIndex::SERVER;
        let message = Message::decode(packet.bytes())?;
        match message {
            Message::ClassAnswer { answer, .. } | Message::ConfiguredAnswer(answer) if server => {
                self.answered(&message, answer)?;
            }
            Message::Class { index, spec } if !server => {
                add_class(&self.session, &mut packet, index, spec)?;
                // A primary that does not take the answer is dead.
                let _ = self.send(&Message::ClassAnswer { index, answer: Ok(()) }, None);
            }
            Message::Aborted { reason, code, text } => self.session.abort_with(Abort::new(reason, code, text)),
            _ => {
                let expected = "a class, an answer or an abort";
                return Err(Violation::OutOfTurn { found: "another message", expected });
            }
        }
        self.session.control().set_event().notify();
        Ok(())
    }

    /// The primary has answered a request of the server.
    fn answered(&self, message: &Message<'_>, answer: Result<(), Refusal<'_>>) -> Result<(), Violation> {
        let mut requests = self.requests();
        let request = requests.pending.take().filter(|request| request.is_answered_by(message));
        let request =
            request.ok_or(Violation::OutOfTurn { found: "an answer", expected: "no answer, or that to a request" })?;
        match (answer, request) {
            (Ok(()), Request::Class(row)) => self.session.classes().push(row)?,
            (Ok(()), Request::Configure(config)) => self.session.configure(config)?,
            (Err(_), _) => {}
        }
        requests.answer = Some(answer.map_err(|Refusal { status, text }| (status, printable(text))));
        Ok(())
    }
}
