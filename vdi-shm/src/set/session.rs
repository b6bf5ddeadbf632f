//! What one process knows of a set that it belongs to.
//!
//! # Invariants
//!
//! 1. An abort that this process has seen stays seen. [`Session::abort_reason`] latches it in private memory and reports it
//!    over the links once, so clearing the shared word hides it from nobody.
//! 2. The negotiated configuration arrives once, over the link. It is validated and never changes.
//! 3. Every event that can end a wait wakes the sleepers: an abort, a cancellation, closing, a message.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::config::VdConfig;
use vdi_proto::handle::HandleCodec;
use vdi_proto::index::{ClassIndex, MemberIndex};
use vdi_proto::wire::class::ClassSpec;

use super::abort_word::AbortLatch;
use super::buffers::ClientBuffers;
use super::claim::Claim;
use super::class_table::ClassTable;
use super::control::Control;
use super::error::{ConfigureError, Violation};
use super::name::SetName;
use crate::ipc::segment::Segment;

/// Reports an abort to the other processes of a set.
pub(crate) trait AbortNotifier: core::fmt::Debug + Send + Sync {
    /// Called from any thread. Does not wait.
    fn notify(&self, reason: AbortReason);
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
    process: Process,
    member: MemberIndex,
    founding: Founding,
    negotiated: OnceLock<VdConfig>,
    buffers: OnceLock<Arc<ClientBuffers>>,
    aborted: AbortLatch,
    notifier: OnceLock<Box<dyn AbortNotifier>>,
    cancelled: AtomicBool,
    /// The first violation that this process found, or why it gave up.
    evidence: Mutex<Option<String>>,
}

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
        member: MemberIndex,
        founding: Founding,
    ) -> Arc<Session> {
        Arc::new(Session {
            control: Arc::new(control),
            classes: Arc::new(ClassTable::new(founding.requested.prefix_zone_size, memory)),
            name,
            process: process_of(member),
            member,
            founding,
            negotiated: OnceLock::new(),
            buffers: OnceLock::new(),
            aborted: AbortLatch::default(),
            notifier: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            evidence: Mutex::default(),
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
            notifier.notify(reason);
        }
        self.aborted.load()
    }

    /// The reason that this process has seen. Does not load the shared word.
    pub(crate) fn latched_reason(&self) -> Option<AbortReason> {
        self.aborted.load()
    }

    /// Aborts the set on behalf of `process`, and wakes everybody.
    pub fn abort_for(&self, process: Process, cause: Cause) {
        let reason = self.control.abort(AbortReason { process, cause });
        self.latch(reason);
        // Sleepers of this process load the latch, which was set after the first notification.
        self.control.notify_all();
    }

    /// Aborts the set for something that this process did.
    pub fn abort(&self, cause: Cause) {
        self.abort_for(self.process, cause);
    }

    /// Aborts the set because `process` broke the protocol, and keeps the evidence.
    pub fn report_violation(&self, process: Process, evidence: impl core::fmt::Display) {
        self.keep_evidence(format!("{process}: {evidence}"));
        self.abort_for(process, Cause::BrokeProtocol);
    }

    /// Aborts the set because this process cannot go on, and keeps the reason.
    pub(crate) fn give_up(&self, reason: impl core::fmt::Display) {
        self.keep_evidence(reason.to_string());
        self.abort(Cause::ClosedEarly);
    }

    fn keep_evidence(&self, evidence: String) {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(evidence);
    }

    /// The first violation that this process found, or why it gave up.
    #[must_use]
    pub fn evidence(&self) -> Option<String> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
