//! The slot table: one entry per buffer, in the control segment.
//!
//! | state | owner of the buffer | set by |
//! |---|---|---|
//! | `Free(g)` | the server | the client, when a completion reclaims the slot |
//! | `Lent(g)` | the holder of the command | the server, with SendCommand; `g` counts the loans |
//! | `Reclaiming(g)` | none, for a few instructions | the holder, while it checks for leases |
//!
//! A *lease* is one bit a member: that process has the buffer mapped by its handle.
//!
//! # Invariants
//!
//! 1. Map and complete are linearizable. For one loan, either a lease succeeds and `reclaim` returns `Leased`, or `reclaim`
//!    succeeds and the lease is refused.
//! 2. A free slot has no lease of its last loan, and gets none.
//! 3. A member writes only its own lease bit. The primary clears the bits of members that died.
//! 4. A thread that sees a lease bit cleared, or a slot free, sees all bytes that were written under the lease or the loan.
//!
//! # Why they hold
//!
//! [`Slot::lease`] sets its bit, then loads the state. [`Slot::reclaim`] writes `Reclaiming`, then loads the bits. A
//! sequentially consistent fence stands between the two steps of each, so at least one of them sees the other. A lease that
//! sees `Reclaiming` does not know the outcome: it keeps its bit and returns [`LeaseError::Reclaiming`], and the caller calls
//! [`Slot::confirm_lease`] until there is one. A reclaim that sees a bit restores `Lent`, which grants the lease. So a reclaim
//! is refused only for a lease that is granted. The loom tests `map_and_complete_are_linearizable` and its
//! neighbours in `loom_tests/slots.rs` check all interleavings, with a serial order for each outcome.
//!
//! One exception: a member that maps the handle of the last loan can set its bit after the slot was lent again, and clears it
//! at once. A reclaim can meet that bit and return `Leased` although no lease is granted. The caller of `reclaim` therefore
//! tries a few times before it reports VD_E_BUSY.

use thiserror::Error;
use vdi_proto::abort::Process;
use vdi_proto::command::Loan;
use vdi_proto::handle::SlotState;
use vdi_proto::index::{Generation, MAX_MEMBERS, MemberIndex};
use vdi_proto::wire::layout::{self, slot_word};

use crate::ipc::atomics::{AtomicU64, Ordering, fence, ordering};

const LEASE_WORDS: usize = (MAX_MEMBERS / u64::BITS) as usize;

/// An entry of the slot table. All zeros is a slot that was never lent.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Slot {
    state: AtomicU64,
    leases: [AtomicU64; LEASE_WORDS],
}

#[cfg(not(loom))]
const _: () = {
    assert!(core::mem::offset_of!(Slot, state) == layout::SLOT_WORD_OFFSET as usize);
    assert!(core::mem::offset_of!(Slot, leases) == layout::SLOT_LEASES_OFFSET as usize);
};

/// Why a lease is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// The loan is over (VD_E_INVALID). The member's bit is clear.
    #[error("the slot is not lent in generation {generation}")]
    NotLent {
        /// The generation of the loan.
        generation: Generation,
    },
    /// The holder is completing the command at this moment. The member's bit is set: the caller calls
    /// [`Slot::confirm_lease`] until there is an outcome, or gives up with [`Slot::release`].
    #[error("the slot is being reclaimed")]
    Reclaiming,
}

/// Why a slot was not reclaimed. The slot stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReclaimError {
    /// VD_E_BUSY: members have the buffer mapped.
    #[error("the buffer is still mapped by {}", show_members(*leases))]
    Leased {
        /// One bit a member.
        leases: u128,
    },
    /// VD_E_ABORT: the slot is not lent in this generation. Another process wrote over the word.
    #[error("the slot's word is {word:#x}, which is not a loan of generation {generation}")]
    NotLent {
        /// The generation that this process holds.
        generation: Generation,
        /// The word.
        word: u64,
    },
}

/// The names of members that are given as bits.
fn show_members(members: u128) -> String {
    let name = |member: MemberIndex| match member {
        MemberIndex::SERVER => Process::Server,
        MemberIndex::PRIMARY => Process::Primary,
        member => Process::Secondary(member),
    };
    let names: Vec<String> = (0..MAX_MEMBERS)
        .filter(|member| members >> member & 1 == 1)
        .filter_map(MemberIndex::new)
        .map(|member| name(member).to_string())
        .collect();
    names.join(", ")
}

const fn lease_bit(member: MemberIndex) -> (usize, u64) {
    ((member.get() / u64::BITS) as usize % LEASE_WORDS, 1 << (member.get() % u64::BITS))
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    /// A slot in ordinary memory, for tests.
    #[must_use]
    pub fn new() -> Self {
        Slot { state: AtomicU64::new(0), leases: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The state; `None` for a word that no process of a set writes.
    #[must_use]
    #[inline]
    pub fn state(&self) -> Option<SlotState> {
        // SYNC slot.state: pairs with slot.free.
        slot_word::decode(self.state.load(ordering("slot.state", Ordering::Acquire)))
    }

    /// Server: lends the slot.
    #[inline]
    pub fn lend(&self, generation: Generation) {
        let lent = slot_word::encode(SlotState::Lent(generation));
        // SYNC slot.lend: pairs with slot.lease.load, for the bytes of a Write.
        self.state.store(lent, ordering("slot.lend", Ordering::Release));
    }

    /// Member: takes a lease on the loan. A stale loan is refused without a write to shared memory.
    ///
    /// # Errors
    /// [`LeaseError::NotLent`] when the loan is over, [`LeaseError::Reclaiming`] while the holder completes the command.
    #[inline]
    pub fn lease(&self, loan: Loan, member: MemberIndex) -> Result<(), LeaseError> {
        if let Err(stale @ LeaseError::NotLent { .. }) = self.check_lent(loan) {
            return Err(stale);
        }
        let (index, bit) = lease_bit(member);
        self.leases[index].fetch_or(bit, Ordering::Relaxed);
        // SYNC slot.lease: pairs with slot.reclaim.
        fence("slot.lease", Ordering::SeqCst);
        self.confirm_lease(loan, member)
    }

    /// Member: the outcome for a lease whose bit is set.
    ///
    /// # Errors
    /// As [`Slot::lease`].
    #[inline]
    pub fn confirm_lease(&self, loan: Loan, member: MemberIndex) -> Result<(), LeaseError> {
        self.check_lent(loan).inspect_err(|error| {
            if matches!(error, LeaseError::NotLent { .. }) {
                self.release(member);
            }
        })
    }

    /// Whether the slot is lent in this generation.
    ///
    /// # Errors
    /// As [`Slot::lease`].
    #[inline]
    pub fn check_lent(&self, loan: Loan) -> Result<(), LeaseError> {
        let generation = loan.generation;
        // SYNC slot.lease.load: pairs with slot.lend, for the bytes.
        match slot_word::decode(self.state.load(ordering("slot.lease.load", Ordering::Acquire))) {
            Some(SlotState::Lent(lent)) if lent == generation => Ok(()),
            Some(SlotState::Reclaiming(lent)) if lent == generation => Err(LeaseError::Reclaiming),
            _ => Err(LeaseError::NotLent { generation }),
        }
    }

    /// Member: gives up its lease.
    #[inline]
    pub fn release(&self, member: MemberIndex) {
        let (index, bit) = lease_bit(member);
        // SYNC slot.release: pairs with slot.reclaim.load, for the bytes.
        self.leases[index].fetch_and(!bit, ordering("slot.release", Ordering::Release));
    }

    /// Primary: clears the lease of a member that left or died, if it has one.
    pub fn void_lease(&self, member: MemberIndex) {
        if self.is_leased_by(member) {
            self.release(member);
        }
    }

    /// Whether the member's bit is set.
    #[must_use]
    pub fn is_leased_by(&self, member: MemberIndex) -> bool {
        let (index, bit) = lease_bit(member);
        self.leases[index].load(Ordering::Relaxed) & bit != 0
    }

    /// One bit a member that has a lease.
    #[inline]
    fn leases(&self) -> u128 {
        // SYNC slot.reclaim.load: pairs with slot.release.
        let load = |word: &AtomicU64| u128::from(word.load(ordering("slot.reclaim.load", Ordering::Acquire)));
        self.leases.iter().rev().fold(0, |leases, word| leases << u64::BITS | load(word))
    }

    /// Reclaims the slot for the server. Called by the holder of the command before it completes the command.
    ///
    /// # Errors
    /// [`ReclaimError::Leased`] while a member has a lease, [`ReclaimError::NotLent`] for a word that was overwritten.
    #[inline]
    pub fn reclaim(&self, generation: Generation) -> Result<(), ReclaimError> {
        // A slot that is leased anyway keeps its state, so that other maps need not try again.
        let leases = self.leases();
        if leases != 0 {
            return Err(ReclaimError::Leased { leases });
        }
        let lent = slot_word::encode(SlotState::Lent(generation));
        let reclaiming = slot_word::encode(SlotState::Reclaiming(generation));
        self.state
            .compare_exchange(lent, reclaiming, Ordering::Relaxed, Ordering::Relaxed)
            .map_err(|word| ReclaimError::NotLent { generation, word })?;
        // SYNC slot.reclaim: pairs with slot.lease.
        fence("slot.reclaim", Ordering::SeqCst);
        let leases = self.leases();
        if leases == 0 {
            let free = slot_word::encode(SlotState::Free(generation));
            // SYNC slot.free: pairs with slot.state, for the bytes.
            self.state.store(free, ordering("slot.free", Ordering::Release));
            Ok(())
        } else {
            // The fence above publishes the server's bytes to a process that loads this word.
            self.state.store(lent, Ordering::Relaxed);
            Err(ReclaimError::Leased { leases })
        }
    }
}
