//! What one process knows of a set that it belongs to.
//!
//! # Invariants
//!
//! 1. An abort that this process has seen stays seen: [`Session::abort_reason`] latches it privately, and tells the others
//!    over the links, once. So clearing the shared word keeps nobody from hearing of it.
//! 2. The agreement comes once, over the link, was judged, and never changes.
//! 3. Whoever waits is woken by whatever can end the wait: an abort, a cancellation, closing, a message.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::handle::HandleCodec;
use vdi_proto::join::Agreement;
use vdi_proto::layout::BufferRules;

use crate::area::{Areas, ClientBuffers, Keep};
use crate::control::Control;
use crate::error::ShmError;
use crate::runtime::Place;
use crate::segment::{Mapping, Segment};

/// Tells the other processes of a set that it is aborted.
pub(crate) trait Teller: core::fmt::Debug + Send + Sync {
    /// Without waiting for anybody, and from any thread.
    fn tell(&self, reason: AbortReason);
}

/// What one process knows of a set.
#[derive(Debug)]
pub struct Session {
    control: Arc<Control>,
    areas: Arc<Areas>,
    place: Place,
    party: Party,
    member: u32,
    secret: u64,
    asked: VdConfig,
    agreement: OnceLock<Agreement>,
    buffers: OnceLock<Arc<ClientBuffers>>,
    /// What leases keep.
    keep: OnceLock<Weak<Keep>>,
    /// The abort word as this process first saw it.
    aborted: AtomicU32,
    /// What tells the other processes of an abort, beside the shared word.
    teller: OnceLock<Box<dyn Teller>>,
    /// Waits of this process are to end.
    cancelled: AtomicBool,
    /// The first protocol violation that this process found, or why it gave up: evidence for whoever asks why.
    violation: Mutex<Option<String>>,
}

impl Session {
    pub(crate) fn new(
        control: Control,
        place: Place,
        party: Party,
        member: u32,
        secret: u64,
        asked: VdConfig,
    ) -> Arc<Session> {
        Arc::new(Session {
            control: Arc::new(control),
            areas: Arc::default(),
            place,
            party,
            member,
            secret,
            asked,
            agreement: OnceLock::new(),
            buffers: OnceLock::new(),
            keep: OnceLock::new(),
            aborted: AtomicU32::new(0),
            teller: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            violation: Mutex::default(),
        })
    }

    /// The control segment.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// The buffer areas.
    #[must_use]
    pub fn areas(&self) -> &Arc<Areas> {
        &self.areas
    }

    /// The set's name.
    #[must_use]
    pub fn set_name(&self) -> &str {
        &self.place.set
    }

    /// The set's place in the runtime directory.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// This process's part in the set.
    #[must_use]
    pub fn party(&self) -> Party {
        self.party
    }

    /// This process's place among the members.
    #[must_use]
    pub fn member(&self) -> u32 {
        self.member
    }

    /// What the client asked for at Create.
    #[must_use]
    pub fn asked(&self) -> &VdConfig {
        &self.asked
    }

    /// What was agreed, once the server has configured the set.
    #[must_use]
    #[inline]
    pub fn agreement(&self) -> Option<&Agreement> {
        self.agreement.get()
    }

    /// Takes note of the agreement, after judging it.
    pub(crate) fn agree(&self, agreement: Agreement) -> Result<(), ShmError> {
        agreement.config.validate_answer(&self.asked)?;
        if self.agreement.set(agreement).is_err() {
            return Err(ShmError::OutOfTurn { found: "a second configuration", expected: "none" });
        }
        Ok(())
    }

    /// Tells what leases keep.
    pub(crate) fn set_keep(&self, keep: &Arc<Keep>) {
        // Once, right after creating or joining.
        let _ = self.keep.set(Arc::downgrade(keep));
    }

    /// What tells the others of an abort from now on.
    pub(crate) fn set_teller(&self, teller: Box<dyn Teller>) {
        // Once, right after creating or joining.
        let _ = self.teller.set(teller);
    }

    /// The buffers as a client sees them, once the set is configured. The server has none: see
    /// [`crate::allocator::BufferPool`].
    ///
    /// # Panics
    /// When somebody made a pool over the areas of a client's session.
    #[must_use]
    #[inline]
    pub fn buffers(&self) -> Option<&Arc<ClientBuffers>> {
        self.buffers.get().or_else(|| self.make_buffers())
    }

    #[cold]
    fn make_buffers(&self) -> Option<&Arc<ClientBuffers>> {
        if self.party == Party::Server {
            return None;
        }
        let agreement = self.agreement.get()?;
        Some(self.buffers.get_or_init(|| {
            ClientBuffers::kept(
                Arc::clone(&self.control),
                &self.areas,
                BufferRules::new(&agreement.config),
                HandleCodec::new(self.secret, agreement.slot_bits),
                self.member,
                self.keep.get().cloned(),
            )
        }))
    }

    /// Maps an area that came with a message, as number `index`.
    pub(crate) fn add_area(&self, index: u32, segment: &Segment) -> Result<(), ShmError> {
        self.adopt_area(index, segment.map()?)
    }

    /// Takes over an area that is mapped, as number `index`.
    pub(crate) fn adopt_area(&self, index: u32, mapping: Mapping) -> Result<(), ShmError> {
        if self.areas.add(index, Arc::new(mapping)) {
            Ok(())
        } else {
            Err(ShmError::OutOfTurn { found: "an area that exists already", expected: "the next area" })
        }
    }

    /// Why the set was aborted, if it was.
    #[must_use]
    #[inline]
    pub fn abort_reason(&self) -> Option<AbortReason> {
        let latched = self.aborted.load(Ordering::Relaxed);
        if latched != 0 {
            return AbortReason::from_word(latched);
        }
        let reason = self.control.abort_reason()?;
        self.latch(reason)
    }

    #[cold]
    fn latch(&self, reason: AbortReason) -> Option<AbortReason> {
        // Who aborts has done something before that others are to see who see the abort.
        let first = self.aborted.compare_exchange(0, reason.to_word(), Ordering::Release, Ordering::Relaxed).is_ok();
        if first && let Some(teller) = self.teller.get() {
            teller.tell(reason);
        }
        AbortReason::from_word(self.aborted.load(Ordering::Relaxed))
    }

    /// Aborts the set on behalf of `party`, and wakes everybody.
    pub fn abort_for(&self, party: Party, cause: Cause) {
        let reason = self.control.abort(AbortReason { party, cause });
        self.latch(reason);
        // Those who wait in this process look at the latch, which was set after they were woken.
        self.control.ring_all();
    }

    /// The reason that this process has seen, without a look at the shared word.
    pub(crate) fn latched(&self) -> Option<AbortReason> {
        AbortReason::from_word(self.aborted.load(Ordering::Relaxed))
    }

    /// Aborts the set for something that this process did.
    pub fn abort(&self, cause: Cause) {
        self.abort_for(self.party, cause);
    }

    /// Aborts the set because `party` broke the protocol, and keeps the evidence.
    pub fn accuse(&self, party: Party, evidence: impl core::fmt::Display) {
        self.violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| format!("{party}: {evidence}"));
        self.abort_for(party, Cause::BrokeProtocol);
    }

    /// Aborts the set because this process cannot go on, and keeps the reason.
    pub(crate) fn give_up(&self, reason: impl core::fmt::Display) {
        self.violation.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_string());
        self.abort(Cause::ClosedEarly);
    }

    /// The evidence of the first violation that this process found.
    #[must_use]
    pub fn evidence(&self) -> Option<String> {
        self.violation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the waits of this process, now and from now on, until [`Session::resume`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.control.ring_all();
    }

    /// Waits may go on again.
    pub fn resume(&self) {
        self.cancelled.store(false, Ordering::Release);
    }

    /// Whether waits of this process are to end.
    #[must_use]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether the work has ended in order: the server closed every device.
    #[must_use]
    pub fn work_has_ended(&self) -> bool {
        self.abort_reason().is_none() && self.control.server_closed_all()
    }

    /// The error of a call after an abort.
    #[must_use]
    pub fn aborted(&self) -> Option<ShmError> {
        self.abort_reason().map(ShmError::Aborted)
    }
}
