//! What the threads of one statement share: the set, its devices, the first failure, and the signal that all is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select};
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::features::DeviceKind;
use vdi_shm::session::Session;

use super::{Engine, Failure};
use crate::vds::{ServerVirtualDevice, ServerVirtualDeviceSet};

/// How long the client's process has to take each part of the configuration.
const CONFIGURATION_PATIENCE: Duration = Duration::from_secs(30);

/// The set of one statement.
pub(super) struct Work {
    pub(super) set: ServerVirtualDeviceSet,
    session: Arc<Session>,
    first_device: String,
    /// Never sent on; dropping the sender is the signal.
    stop: Receiver<()>,
    state: Mutex<State>,
}

struct State {
    running: Option<Sender<()>>,
    failure: Option<Failure>,
}

/// The work is over because of a failure that is recorded.
#[derive(Debug)]
pub(super) struct Stopped;

impl Work {
    /// Opens the set that the statement names.
    pub(super) fn open(engine: &Engine, devices: &[String]) -> Result<Work, Failure> {
        let set = ServerVirtualDeviceSet::with_options(engine.options.clone());
        // The grammar lets no statement pass without a device.
        let first_device = devices.first().cloned().unwrap_or_default();
        set.open(&engine.instance, &first_device)?;
        let asked = set.get_configuration()?;
        let session = set.session().ok_or_else(|| Failure::System {
            action: "keep the set",
            source: std::io::ErrorKind::NotConnected.into(),
        })?;
        let (running, stop) = bounded(0);
        let state = Mutex::new(State { running: Some(running), failure: None });
        let work = Work { set, session, first_device, stop, state };
        // From here on the client hears of a failure: dropping the work aborts the set.
        let created = asked.device_count;
        if created as usize != devices.len() {
            return Err(Failure::DeviceCount { named: devices.len(), created, device: work.first_device.clone() });
        }
        if asked.features.device_kind() != Ok(DeviceKind::PipeLike) {
            return Err(Failure::DeviceKind { features: asked.features, device: work.first_device.clone() });
        }
        Ok(work)
    }

    /// Configures the set with these terms and buffers (size, count), and opens its devices.
    pub(super) fn configure(
        &self,
        terms: &ServerTerms,
        buffers: &[(u32, u32)],
        devices: &[String],
    ) -> Result<(VdConfig, Vec<ServerVirtualDevice>), Failure> {
        let configure = || {
            self.set.begin_configuration(terms, CONFIGURATION_PATIENCE)?;
            for (size, count) in buffers {
                self.set.request_buffers(*size, 0, *count)?;
            }
            let config = self.set.end_configuration()?;
            let devices = devices.iter().map(|name| self.set.open_device(name)).collect::<Result<_, _>>()?;
            Ok((config, devices))
        };
        configure().map_err(|error| self.explain(Failure::Set(error)))
    }

    /// The cause of a failure: a call that an abort has made impossible failed because of the abort.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Set(_) if self.is_aborted() => self.aborted(),
            failure => failure,
        }
    }

    fn aborted(&self) -> Failure {
        Failure::Aborted {
            device: self.first_device.clone(),
            reason: self.session.abort_reason(),
            evidence: self.session.evidence(),
        }
    }

    /// Runs the completion agent until the set is closed; an abort is a failure of the statement.
    pub(super) fn run_agent(&self) {
        if self.set.execute_completion_agent().is_err() {
            self.fail(self.aborted());
        }
    }

    /// Starts a thread of the work. That it cannot be started, or panics, is a failure like any other: it ends all threads.
    pub(super) fn spawn<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, body: impl FnOnce() + Send + 'scope) {
        struct Watch<'a>(&'a Work);
        impl Drop for Watch<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let source = std::io::Error::other("it panicked, which is a defect of this program");
                    self.0.fail(Failure::System { action: "carry on with a thread", source });
                }
            }
        }
        let watched = move || {
            let _watch = Watch(self);
            body();
        };
        if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, watched) {
            self.fail(Failure::System { action: "start a thread", source });
        }
    }

    /// Records a failure, unless there is one already, aborts the set, and ends every thread.
    pub(super) fn fail(&self, failure: Failure) {
        let failure = self.explain(failure);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failure.get_or_insert(failure);
        let running = state.running.take();
        drop(state);
        // Before anybody closes the set, so that clients hear of an abort and not of a hasty close. Fails only when the set is
        // closed already.
        let _ = self.set.signal_abort();
        drop(running);
    }

    /// As [`Work::fail`], for use with `?`.
    pub(super) fn stop(&self, failure: impl Into<Failure>) -> Stopped {
        self.fail(failure.into());
        Stopped
    }

    /// Whether the set was aborted. Then the agent records why, and every thread learns that the work is over.
    pub(super) fn is_aborted(&self) -> bool {
        self.session.abort_reason().is_some()
    }

    /// A channel that is disconnected once the work is over.
    pub(super) fn over(&self) -> &Receiver<()> {
        &self.stop
    }

    /// Waits until the work is over.
    pub(super) fn wait_until_over(&self) -> Stopped {
        let _ = self.stop.recv();
        Stopped
    }

    /// Receives, or learns that the work is over. A channel whose senders are gone gives `None`.
    pub(super) fn receive<T>(&self, channel: &Receiver<T>) -> Result<Option<T>, Stopped> {
        select! {
            recv(channel) -> received => Ok(received.ok()),
            recv(self.stop) -> _ => Err(Stopped),
        }
    }

    /// Closes the set in order. What failed, if something did.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let closed = self.set.close();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(state.running.take());
        match state.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(closed?),
        }
    }
}

impl Drop for Work {
    /// A client whose set was not closed in order must not wait for what never comes.
    fn drop(&mut self) {
        if self.set.session().is_some() {
            let _ = self.set.signal_abort();
        }
    }
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
    pub(super) fn pass(&self, work: &Work) -> Result<(), Stopped> {
        let _ = self.arrive.send(());
        work.receive(&self.opened).map(|_| ())
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
