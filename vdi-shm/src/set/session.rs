//! What one process knows of a set that it belongs to.
//!
//! # Invariants
//!
//! 1. An abort that this process has seen stays seen. [`Session::abort_reason`] latches it in private memory and reports it
//!    over the links once, so clearing the shared word hides it from nobody.
//! 2. The negotiated configuration arrives once, over the link. It is validated and never changes.
//! 3. Every event that can end a wait wakes the sleepers: an abort, a cancellation, closing, a message.

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::config::VdConfig;
use vdi_proto::handle::HandleCodec;
use vdi_proto::index::{ClassIndex, MemberIndex};
use vdi_proto::wire::class::ClassSpec;

use super::abort::Abort;
use super::abort_word::AbortLatch;
use super::buffers::ClientBuffers;
use super::claim::Claim;
use super::class_table::ClassTable;
use super::control::Control;
use super::error::{ConfigureError, Violation};
use super::joiners::Joiners;
use super::name::SetName;
use crate::ipc::segment::Segment;

/// Reports an abort to the other processes of a set.
pub(crate) trait AbortNotifier: core::fmt::Debug + Send + Sync {
    /// Called from any thread. Does not wait.
    fn notify(&self, abort: &Abort);
}

/// The stack of a monitor thread.
pub(crate) const MONITOR_STACK: usize = 256 * 1024;

/// What the primary decided when it created the set. Every member has the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Founding {
    /// The secret of handles and checksums.
    pub(crate) secret: u64,
    /// What the client requested with Create.
    pub(crate) requested: VdConfig,
}

/// What one process knows of a set.
#[derive(Debug)]
pub struct Session {
    control: Arc<Control>,
    classes: Arc<ClassTable>,
    name: SetName,
    socket: PathBuf,
    process: Process,
    member: MemberIndex,
    founding: Founding,
    negotiated: OnceLock<VdConfig>,
    buffers: OnceLock<Arc<ClientBuffers>>,
    aborted: AbortLatch,
    notifier: OnceLock<Box<dyn AbortNotifier>>,
    cancelled: AtomicBool,
    /// The aborts that this process made or heard of over its link, one a reason, at most [`MAX_ABORTS`]. The latch says which
    /// of them stands. Locked while this process aborts the set.
    aborts: Mutex<Vec<Abort>>,
    joiners: Mutex<Joiners>,
}

/// The set is aborted once. A few processes can abort it at the same time, each with its reason.
const MAX_ABORTS: usize = 8;

/// The process that a member is.
pub(crate) fn process_of(member: MemberIndex) -> Process {
    match member {
        MemberIndex::SERVER => Process::Server,
        MemberIndex::PRIMARY => Process::Primary,
        member => Process::Secondary(member),
    }
}

impl Session {
    pub(crate) fn new(
        control: Control,
        memory: Claim,
        name: SetName,
        socket: PathBuf,
        member: MemberIndex,
        founding: Founding,
    ) -> Arc<Session> {
        Arc::new(Session {
            control: Arc::new(control),
            classes: Arc::new(ClassTable::new(founding.requested.prefix_zone_size, memory)),
            name,
            socket,
            process: process_of(member),
            member,
            founding,
            negotiated: OnceLock::new(),
            buffers: OnceLock::new(),
            aborted: AbortLatch::default(),
            notifier: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            aborts: Mutex::default(),
            joiners: Mutex::default(),
        })
    }

    /// The control segment.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// The buffer classes.
    #[must_use]
    pub fn classes(&self) -> &Arc<ClassTable> {
        &self.classes
    }

    /// The set's name.
    #[must_use]
    pub fn set_name(&self) -> &str {
        self.name.set()
    }

    /// The set's name and instance.
    #[must_use]
    pub fn name(&self) -> &SetName {
        &self.name
    }

    /// The path of the set's socket.
    #[must_use]
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// This process's role in the set.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// This process's number among the members.
    #[must_use]
    pub fn member(&self) -> MemberIndex {
        self.member
    }

    pub(crate) fn founding(&self) -> &Founding {
        &self.founding
    }

    /// What the client requested with Create.
    #[must_use]
    pub fn requested(&self) -> &VdConfig {
        &self.founding.requested
    }

    /// What was negotiated; `None` until the server has configured the set.
    #[must_use]
    #[inline]
    pub fn negotiated(&self) -> Option<&VdConfig> {
        self.negotiated.get()
    }

    /// Validates and keeps the negotiated configuration.
    pub(crate) fn configure(&self, config: VdConfig) -> Result<(), ConfigureError> {
        config.validate_answer(self.requested())?;
        self.classes.check_alignment(config.alignment)?;
        self.negotiated.set(config).map_err(|_| ConfigureError::Twice)
    }

    /// Maps a class that came with a message. A class that is refused leaves no trace.
    pub(crate) fn add_class(&self, index: ClassIndex, spec: ClassSpec, segment: &Segment) -> Result<(), Violation> {
        let row = self.classes.map(index, spec, segment)?;
        if let Some(config) = self.negotiated() {
            row.check_alignment(config.alignment)?;
        }
        Ok(self.classes.push(row)?)
    }

    /// The buffers as a client sees them; `None` before the set is configured, and in the server's process, which has a
    /// [`crate::set::pool::BufferPool`].
    #[must_use]
    #[inline]
    pub fn buffers(&self) -> Option<&Arc<ClientBuffers>> {
        if self.member == MemberIndex::SERVER || self.negotiated.get().is_none() {
            return None;
        }
        Some(self.buffers.get_or_init(|| {
            let codec = HandleCodec::new(self.founding.secret);
            ClientBuffers::new(Arc::clone(&self.control), Arc::clone(&self.classes), codec, self.member)
        }))
    }

    // ---- aborting

    /// Sets what reports an abort to the other processes. Called once, right after creating or joining.
    pub(crate) fn set_notifier(&self, notifier: Box<dyn AbortNotifier>) {
        let _ = self.notifier.set(notifier);
    }

    /// Why the set was aborted, if it was.
    #[must_use]
    #[inline]
    pub fn abort_reason(&self) -> Option<AbortReason> {
        self.aborted.load().or_else(|| self.latch(self.control.abort_reason()?))
    }

    #[cold]
    fn latch(&self, reason: AbortReason) -> Option<AbortReason> {
        if self.aborted.set(reason)
            && let Some(notifier) = self.notifier.get()
        {
            notifier.notify(&self.explain(reason));
        }
        self.aborted.load()
    }

    /// Why the set was aborted, in full.
    #[must_use]
    pub fn aborted(&self) -> Option<Abort> {
        self.abort_reason().map(|reason| self.explain(reason))
    }

    /// The reason with the text that this process knows, else with that in the control segment.
    fn explain(&self, reason: AbortReason) -> Abort {
        let known = self.aborts().iter().find(|abort| abort.reason == reason).cloned();
        known.filter(|abort| !abort.text.is_empty()).unwrap_or_else(|| {
            let (code, text) = self.control.abort_text(reason).unwrap_or_default();
            Abort::new(reason, code, &text)
        })
    }

    fn aborts(&self) -> MutexGuard<'_, Vec<Abort>> {
        self.aborts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Aborts the set, and wakes everybody.
    pub(crate) fn abort_with(&self, abort: Abort) {
        let mut aborts = self.aborts();
        match aborts.iter().position(|known| known.reason == abort.reason) {
            Some(known) if aborts[known].text.is_empty() => aborts[known] = abort.clone(),
            None if aborts.len() < MAX_ABORTS => aborts.push(abort.clone()),
            _ => {}
        }
        let stands = self.control.abort(&abort);
        drop(aborts);
        self.latch(stands);
        // Sleepers of this process load the latch, which was set after the first notification.
        self.control.notify_all();
    }

    /// Aborts the set on behalf of `process`, and wakes everybody.
    pub fn abort_for(&self, process: Process, cause: Cause) {
        self.abort_with(AbortReason { process, cause }.into());
    }

    /// Aborts the set for something that this process did.
    pub fn abort(&self, cause: Cause) {
        self.abort_for(self.process, cause);
    }

    /// Aborts the set because this process cannot go on. `code` is the completion code, system error or status behind it, 0
    /// where there is none. `text` says why, and what to do. Every process of the set gets both; a text beyond
    /// [`vdi_proto::abort::MAX_REASON_BYTES`] is cut on its way.
    pub fn give_up(&self, code: u32, text: impl core::fmt::Display) {
        let reason = AbortReason { process: self.process, cause: Cause::GaveUp };
        self.abort_with(Abort::new(reason, code, &text.to_string()));
    }

    /// Aborts the set because `process` broke the protocol. Every process of the set gets the evidence.
    pub fn report_violation(&self, process: Process, evidence: impl core::fmt::Display) {
        let reason = AbortReason { process, cause: Cause::BrokeProtocol };
        self.abort_with(Abort::new(reason, 0, &evidence.to_string()));
    }

    // ---- joiners

    /// Primary: the processes that came to the set so far.
    #[must_use]
    pub fn joiners(&self) -> Joiners {
        self.joiners_mut().clone()
    }

    pub(crate) fn joiners_mut(&self) -> MutexGuard<'_, Joiners> {
        self.joiners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- cancelling and the end

    /// Ends the waits of this process, now and later, until [`Session::resume`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.control.notify_all();
    }

    /// Lets this process wait again.
    pub fn resume(&self) {
        self.cancelled.store(false, Ordering::Release);
    }

    /// Whether the waits of this process are cancelled.
    #[must_use]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether the work has ended in order: the server closed every device, and the set was not aborted.
    #[must_use]
    pub fn work_has_ended(&self) -> bool {
        self.abort_reason().is_none() && self.control.server_closed_all()
    }
}
