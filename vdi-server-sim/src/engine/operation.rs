//! What the threads of one statement share: the set, its devices, the first failure, and the signal that all is over.
//!
//! # How a statement fails
//!
//! 1. The first failure is kept, and every thread that waits for something learns that the operation is over.
//! 2. Where the failure is the server's own and the devices of a backup can do it (VDF_Discard), each gets Discard, so that
//!    the client throws away what it has. Nothing is sent to it after that. **Decision**: the documents do not say when Discard
//!    comes. A device in IO-ERROR cannot take it, and hears only of the abort.
//! 3. The set is aborted. Only then may a thread close it, so that clients see an abort and not an early close.
//!
//! A statement that changes something takes that step behind [`Operation::settle`]: either something has failed before, and the step is not
//! taken, or the step decides alone. So no failure is reported of what has taken place, whichever process dies meanwhile.
//!
//! # How a statement is cancelled
//!
//! As by a failure, without Discard, at any moment before it decides ([`Operation::decide`], which [`Operation::settle`] includes). Only then are
//! devices closed in order. So a client of a cancelled statement never finds its devices closed, and a cancel that comes later
//! changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, select, unbounded};
use vdi_proto::command::CommandCode;
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::features::Features;

use super::cancel::{Cancel, Registered};
use super::reporting::START_A_THREAD;
use super::{Engine, Failure};
use crate::faults::Running;
use crate::storage::{Database, Frozen};
use crate::trace::{Span, event};
use crate::vds::{
    AgentFaults, Completed, CompletionReader, ServerVirtualDevice, ServerVirtualDeviceSet, Session, VdsCommand,
    VdsError,
};

/// How long the client's process has to take each part of the configuration.
const CONFIGURATION_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a wait of the configuration, during which no agent runs, looks whether the set was aborted.
const LOOK: Duration = Duration::from_millis(10);

/// How long writers have to end what they have begun before a statement that needs the database at rest gives up.
pub(super) const FREEZE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the clients have, all together, to answer Discard.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The set of one statement.
pub(super) struct Operation {
    pub(super) set: Arc<ServerVirtualDeviceSet>,
    pub(super) faults: Running,
    /// The devices that are to discard what they have when the server fails.
    discarding: Mutex<Vec<Arc<ServerVirtualDevice>>>,
    /// Shared while a command is sent to such a device, and exclusive while Discard is sent.
    sending: RwLock<()>,
    /// Held by the thread that ends the operation after a failure.
    failing: Mutex<()>,
    session: Arc<Session>,
    first_device: String,
    /// Never sent on; dropping the sender is the signal.
    stop: Receiver<()>,
    state: Arc<Mutex<State>>,
    _cancel: Registered,
}

struct State {
    running: Option<Sender<()>>,
    failure: Option<Failure>,
    /// The last step is being taken, or was taken: nothing else fails the statement any more.
    settled: bool,
    /// The statement has decided, or is over: it can be cancelled no more.
    decided: bool,
    /// It was cancelled before.
    cancelled: bool,
}

/// The operation is over because of a failure that is recorded.
#[derive(Debug)]
pub(super) struct Stopped;

impl Operation {
    /// Opens the set that the statement names, waits for it as long as the engine is to, and does the statement's operation on it. The
    /// client learns why that fails.
    pub(super) fn with<T>(
        engine: &Engine,
        devices: &[String],
        cancel: &Cancel,
        body: impl FnOnce(&Operation) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (operation, created) = Operation::open(engine, devices, cancel)?;
        let (named, device) = (devices.len(), operation.first_device.clone());
        let counted =
            if created as usize == named { Ok(()) } else { Err(Failure::DeviceCount { named, created, device }) };
        counted.and_then(|()| body(&operation)).inspect_err(|failure| operation.give_up(failure))
    }

    /// The set that the statement names, and with how many devices the client created it.
    fn open(engine: &Engine, devices: &[String], cancel: &Cancel) -> Result<(Operation, u32), Failure> {
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let faults = Running::new(&engine.faults);
        let set = Arc::new(ServerVirtualDeviceSet::with_options(engine.options.clone()));
        let (server_time_out, ignored_completion) = (faults.server_time_out(), faults.ignored_completion());
        set.inject(AgentFaults { server_time_out, ignored_completion });
        // The grammar lets no statement pass without a device.
        let first_device = devices.first().cloned().unwrap_or_default();
        if let (_, Some(code)) = faults.configuration("Open") {
            return Err(refused("Open", &first_device, code).into());
        }
        set.open_within(&engine.instance, &first_device, engine.set_timeout, || cancel.is_cancelled())
            .map_err(|error| if cancel.is_cancelled() { Failure::Cancelled } else { error.into() })?;
        let asked = set.get_configuration()?;
        let session = set.session().ok_or_else(|| Failure::System {
            action: "keep the set",
            source: std::io::ErrorKind::NotConnected.into(),
        })?;
        let (running, stop) = bounded(0);
        let state = State { running: Some(running), failure: None, settled: false, decided: false, cancelled: false };
        let state = Arc::new(Mutex::new(state));
        let (discarding, sending, failing) = (Mutex::default(), RwLock::default(), Mutex::default());
        let registered = cancel.on_cancel({
            let (set, session, state) = (Arc::clone(&set), Arc::clone(&session), Arc::clone(&state));
            move || be_cancelled(&set, &session, &state)
        });
        let operation = Operation {
            set,
            faults,
            discarding,
            sending,
            failing,
            session,
            first_device,
            stop,
            state,
            _cancel: registered,
        };
        Ok((operation, asked.device_count))
    }

    /// Configures the set with these terms and buffers (size, count), and opens its devices.
    pub(super) fn configure(
        &self,
        terms: &ServerTerms,
        buffers: &[(u32, u32)],
        devices: &[String],
    ) -> Result<(VdConfig, Vec<Arc<ServerVirtualDevice>>), Failure> {
        let configure = || {
            self.may_call("BeginConfiguration")?;
            self.set.begin_configuration(terms, CONFIGURATION_TIMEOUT)?;
            for (size, count) in buffers {
                self.may_call("RequestBuffers")?;
                self.set.request_buffers(*size, 0, *count)?;
            }
            self.may_call("EndConfiguration")?;
            let config = self.set.end_configuration()?;
            let open = |name: &String| {
                self.may_call("OpenDevice")?;
                self.set.open_device(name).map(Arc::new)
            };
            let devices = devices.iter().map(open).collect::<Result<Vec<_>, VdsError>>()?;
            Ok((config, devices))
        };
        let (config, devices) = configure().map_err(|error| self.explain(Failure::Set(error)))?;
        if Operation::discards(&config) {
            self.discarding.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&devices);
        }
        Ok((config, devices))
    }

    /// What the faults that are switched on do before a call of the configuration.
    fn may_call(&self, call: &'static str) -> Result<(), VdsError> {
        let (delay, refusal) = self.faults.configuration(call);
        let begin = Instant::now();
        // An abort meanwhile makes the call itself fail.
        while !self.is_aborted() {
            let left = delay.saturating_sub(begin.elapsed());
            if left.is_zero() || self.pause(left.min(LOOK)).is_err() {
                break;
            }
        }
        refusal.map_or(Ok(()), |code| Err(refused(call, &self.first_device, code)))
    }

    /// Stops the writers of a database. An abort meanwhile is what the statement fails by.
    pub(super) fn freeze<'a>(&self, database: &'a Database) -> Result<Frozen<'a>, Failure> {
        database
            .freeze(FREEZE_TIMEOUT, || self.is_aborted())
            .map_err(|error| if self.is_aborted() { self.aborted() } else { error.into() })
    }

    /// The name of the set.
    pub(super) fn set_name(&self) -> &str {
        self.session.set_name()
    }

    /// Whether the devices of such a set are told to discard what they have when the server fails.
    pub(super) fn discards(config: &VdConfig) -> bool {
        config.features.contains(Features::DISCARD | Features::WRITE_MEDIA)
    }

    /// To be held while a command is sent to a device that may get Discard, so that nothing comes behind that.
    pub(super) fn may_send(&self) -> Result<RwLockReadGuard<'_, ()>, Stopped> {
        let sending = self.sending.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() { Err(Stopped) } else { Ok(sending) }
    }

    /// Waits for a while, or until the operation is over.
    pub(super) fn pause(&self, delay: Duration) -> Result<(), Stopped> {
        if delay.is_zero() {
            return Ok(());
        }
        match self.stop.recv_timeout(delay) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Stopped),
        }
    }

    /// The cause of a failure: a call that an abort has made impossible failed because of the abort.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Set(_) if self.is_aborted() => self.aborted(),
            failure => failure,
        }
    }

    fn aborted(&self) -> Failure {
        if self.state().cancelled {
            return Failure::Cancelled;
        }
        Failure::Aborted { device: self.first_device.clone(), abort: self.session.aborted() }
    }

    /// Runs the completion agent until the set is closed; an abort is a failure of the statement.
    pub(super) fn run_agent(&self) {
        if self.set.execute_completion_agent().is_err() {
            self.fail(self.aborted());
        }
    }

    /// The calling thread processes completions itself from now on, when it waits for what they bring.
    pub(super) fn completion_reader(&self) -> Result<CompletionReader, Stopped> {
        // A thread that begins late is not told of the end as of a failure.
        if self.is_over() {
            return Err(Stopped);
        }
        self.set.completion_reader().map_err(|error| self.stop(error))
    }

    /// Starts a thread of the operation. That it cannot be started, or panics, is a failure like any other: it ends all threads.
    pub(super) fn spawn<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, body: impl FnOnce() + Send + 'scope) {
        struct Watch<'a>(&'a Operation);
        impl Drop for Watch<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let source = std::io::Error::other("it panicked, which is a defect of this program");
                    self.0.fail(Failure::System { action: "carry on with a thread", source });
                }
            }
        }
        let span = Span::current();
        let watched = move || {
            let _watch = Watch(self);
            span.within(body);
        };
        if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, watched) {
            self.fail(Failure::System { action: START_A_THREAD, source });
        }
    }

    /// Takes the step that decides: not if something has failed, or the set was aborted; and what fails later is no failure of the
    /// statement.
    pub(super) fn settle<T>(&self, step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Stopped> {
        let may = {
            let mut state = self.state();
            state.settled = state.failure.is_none() && !self.is_aborted();
            state.decided |= state.settled;
            state.settled
        };
        if !may {
            return Err(self.stop(self.aborted()));
        }
        step().map_err(|failure| {
            self.state().settled = false;
            self.stop(failure)
        })
    }

    /// All that the statement does is done, and the devices may be closed: it cannot be cancelled any more. Other failures end it as
    /// before.
    pub(super) fn decide(&self) -> Result<(), Stopped> {
        let mut state = self.state();
        if state.cancelled {
            return Err(Stopped);
        }
        state.decided = true;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a failure, unless there is one already or the statement is settled, ends every thread, and aborts the set.
    pub(super) fn fail(&self, failure: Failure) {
        let failure = self.explain(failure);
        let _failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let own = failure.is_the_servers_own();
        let mut state = self.state();
        let first = state.failure.is_none() && !state.settled;
        let (code, why) = (failure.code(), failure.evidence());
        if first {
            event!(INFO, set = self.set_name(), failure = %failure, "statement fails");
            state.failure = Some(failure);
        }
        let running = state.running.take();
        drop(state);
        drop(running);
        if first && own {
            self.discard();
        }
        // Fails only when the set is closed already.
        let _ = self.set.signal_abort_because(code, why);
    }

    /// The statement fails before its threads run, or after: the client learns why, unless the set has ended.
    fn give_up(&self, failure: &Failure) {
        let _ = self.set.signal_abort_because(failure.code(), failure.evidence());
    }

    /// Tells the devices that can do it to throw away what they have.
    fn discard(&self) {
        let devices = std::mem::take(&mut *self.discarding.lock().unwrap_or_else(PoisonError::into_inner));
        let (answered, answers) = unbounded();
        let routine = Arc::new(move |_: Completed| {
            // The receiver is gone once the time-out has passed.
            let _ = answered.send(());
        });
        let sending = self.sending.write().unwrap_or_else(PoisonError::into_inner);
        for device in &devices {
            // A device that cannot take it any more answers with a refusal.
            let _ = device.send_command(VdsCommand::plain(CommandCode::DISCARD, routine.clone()));
        }
        drop(sending);
        drop(routine);
        let deadline = Instant::now() + DISCARD_TIMEOUT;
        for _ in &devices {
            if self.is_aborted() || answers.recv_deadline(deadline).is_err() {
                return;
            }
        }
    }

    /// As [`Operation::fail`], for use with `?`.
    pub(super) fn stop(&self, failure: impl Into<Failure>) -> Stopped {
        self.fail(failure.into());
        Stopped
    }

    /// Whether the set was aborted. Then the agent records why, and every thread learns that the operation is over.
    pub(super) fn is_aborted(&self) -> bool {
        self.session.abort_reason().is_some()
    }

    /// A channel that is disconnected once the operation is over.
    pub(super) fn over(&self) -> &Receiver<()> {
        &self.stop
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until the operation is over.
    pub(super) fn wait_until_over(&self) -> Stopped {
        let _ = self.stop.recv();
        Stopped
    }

    /// Receives, or learns that the operation is over. A channel whose senders are gone gives `None`.
    pub(super) fn receive<T>(&self, channel: &Receiver<T>) -> Result<Option<T>, Stopped> {
        select! {
            recv(channel) -> received => Ok(received.ok()),
            recv(self.stop) -> _ => Err(Stopped),
        }
    }

    /// Closes the set in order. What failed, if something did.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        // Only waits: closing ends commands whose routines may wait for a thread that is about to fail.
        drop(self.failing.lock().unwrap_or_else(PoisonError::into_inner));
        let closed = self.set.close();
        let mut state = self.state();
        state.decided = true;
        drop(state.running.take());
        match state.failure.take() {
            Some(failure) => Err(failure),
            // What could not be closed in order any more is the client's business.
            None if state.settled => Ok(()),
            None => Ok(closed?),
        }
    }
}

impl Drop for Operation {
    /// A client whose set was not closed in order must not wait for what never comes.
    fn drop(&mut self) {
        if self.set.session().is_some() {
            let _ = self.set.signal_abort();
        }
    }
}

/// The statement's user cancels it: it fails with that, unless it has failed or decided already.
fn be_cancelled(set: &ServerVirtualDeviceSet, session: &Session, state: &Mutex<State>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.decided || state.failure.is_some() {
        return;
    }
    event!(INFO, set = session.set_name(), failure = %Failure::Cancelled, "statement fails");
    state.cancelled = true;
    state.failure = Some(Failure::Cancelled);
    // Under the lock, so that nothing is decided meanwhile; and before any thread hears that the operation is over, so that it finds the abort.
    let _ = set.signal_abort_because(Failure::Cancelled.code(), Failure::Cancelled);
    drop(state.running.take());
}

fn refused(call: &'static str, set: &str, code: vdi_proto::status::VdError) -> VdsError {
    VdsError::new(call, set, code, "a fault refuses it")
}

/// Lets threads go on together: each says that it is there, and goes on when all are.
pub(super) struct Gate {
    arrive: Sender<()>,
    arrived: Receiver<()>,
    open: Mutex<Option<Sender<()>>>,
    /// Disconnected once the gate is open.
    opened: Receiver<()>,
}

impl Gate {
    pub(super) fn new() -> Gate {
        let (arrive, arrived) = crossbeam::channel::unbounded();
        let (open, opened) = bounded(0);
        Gate { arrive, arrived, open: Mutex::new(Some(open)), opened }
    }

    /// A thread arrives and waits for the gate to open.
    pub(super) fn pass(&self, operation: &Operation) -> Result<(), Stopped> {
        let _ = self.arrive.send(());
        operation.receive(&self.opened).map(|_| ())
    }

    /// Where the keeper of the gate learns of arrivals.
    pub(super) fn arrivals(&self) -> &Receiver<()> {
        &self.arrived
    }

    /// Opens the gate for good.
    pub(super) fn open(&self) {
        drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
