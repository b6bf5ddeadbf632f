//! The slot table: who has a buffer, in which generation, and which processes have it mapped by its handle.
//!
//! A slot stands for one buffer. The server *lends* it to the client with a Read or Write command; the generation counts
//! the loans. A process that maps the buffer's handle takes a *lease*, one bit a member. Completing the command takes the
//! slot *back*.
//!
//! # Invariants
//!
//! 1. The word goes `Home(g) -> Lent(g + 1)` by the server, `Lent(g) -> Returning(g) -> Home(g)` or back to `Lent(g)` by the
//!    holder of the command. Nobody else writes it.
//! 2. *Taking back and leasing exclude each other.* [`Slot::take_back`] writes `Returning` and then looks at the leases;
//!    [`Slot::lease`] sets its bit and then looks at the word. Between writing and looking each has a sequentially consistent
//!    fence, so at least one sees the other. Both write by a read-modify-write, so that the fence is free on x86. So when a
//!    slot is back home, nobody has a lease on it, and nobody gets one for that generation.
//! 3. A lease that was refused leaves no bit; a return that was refused leaves the word `Lent(g)`.
//! 4. A member writes only its own bit; the primary clears the bits of the dead. The bytes that a lessee wrote are
//!    visible to whoever sees its bit cleared (release, acquire).
//!
//! The place of the buffer is written by the server before it lends the slot for the first time; readers load it once and
//! judge it, by its seal ([`vdi_proto::seal`]) and by its area ([`vdi_proto::layout::RawPlace::check`]). The loom tests
//! check 2, 3 and 4 over all interleavings.

use thiserror::Error;
use vdi_proto::abort::Party;
use vdi_proto::command::Loan;
use vdi_proto::handle::{SlotState, SlotWord};
use vdi_proto::layout::{MAX_MEMBERS, PRIMARY_MEMBER, RawPlace, SERVER_MEMBER};

use crate::atomics::{
    AtomicU32, AtomicU64, Ordering, compare_exchange_fenced, fetch_or_fenced, in_order, ordering, spin_loop, step,
    try_in_order,
};

const LEASE_WORDS: usize = (MAX_MEMBERS / u64::BITS) as usize;

/// A slot of the slot table: a cache line. All zeros is a slot that was never lent.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    word: AtomicU64,
    leases: [AtomicU64; LEASE_WORDS],
    area: AtomicU32,
    len: AtomicU32,
    offset: AtomicU64,
    seal: AtomicU32,
}

/// Why a lease was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the slot is not lent in generation {}", loan.generation)]
pub struct NotLent {
    /// The loan that was asked for.
    pub loan: Loan,
}

/// Why a slot could not be taken back; it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TakeBackError {
    /// Somebody has a lease: the members by their bits.
    #[error("the buffer is still mapped by {}", show_members(*leases))]
    Leased {
        /// A bit a member.
        leases: u128,
    },
    /// The slot is not lent in this generation: the peer wrote where it must not.
    #[error("the slot's word is {word:#x}, where generation {generation} should be lent")]
    NotLent {
        /// The generation that this process holds.
        generation: u32,
        /// The word.
        word: u64,
    },
}

/// Members by their bits, as others call them.
fn show_members(members: u128) -> String {
    let name = |member: u32| match member {
        SERVER_MEMBER => Party::Server,
        PRIMARY_MEMBER => Party::Primary,
        member => Party::Secondary(member as u16),
    };
    let names: Vec<String> =
        (0..MAX_MEMBERS).filter(|member| members >> member & 1 == 1).map(|member| name(member).to_string()).collect();
    names.join(", ")
}

/// How often a lease looks again while the slot is being returned. A return takes a few instructions; whoever dies in
/// between aborts the set, so giving up and refusing the lease is right.
#[cfg(not(loom))]
const RETURNING_LOOKS: u32 = 1000;
#[cfg(loom)]
const RETURNING_LOOKS: u32 = 2;

const fn lease_bit(member: u32) -> (usize, u64) {
    ((member / u64::BITS) as usize % LEASE_WORDS, 1 << (member % u64::BITS))
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
        Slot {
            word: AtomicU64::new(0),
            leases: core::array::from_fn(|_| AtomicU64::new(0)),
            area: AtomicU32::new(0),
            len: AtomicU32::new(0),
            offset: AtomicU64::new(0),
            seal: AtomicU32::new(0),
        }
    }

    /// Server: says where the buffer is. Only while the slot is home.
    pub fn set_place(&self, place: RawPlace, seal: u32) {
        self.area.store(place.area, Ordering::Relaxed);
        self.len.store(place.len, Ordering::Relaxed);
        self.offset.store(place.offset, Ordering::Relaxed);
        self.seal.store(seal, Ordering::Relaxed);
    }

    /// Where the slot says that the buffer is: to be judged, first by the seal that has to be with it.
    #[must_use]
    #[inline]
    pub fn place(&self) -> RawPlace {
        RawPlace {
            area: self.area.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            offset: self.offset.load(Ordering::Relaxed),
        }
    }

    /// The seal of the place.
    #[must_use]
    #[inline]
    pub fn seal(&self) -> u32 {
        self.seal.load(Ordering::Relaxed)
    }

    /// The word as it is now; `None` for one that nobody writes.
    #[must_use]
    #[inline]
    pub fn look(&self) -> Option<SlotWord> {
        // SYNC slot.look: pairs with slot.home.
        SlotWord::from_word(self.word.load(ordering("slot.look", Ordering::Acquire)))
    }

    /// Server: lends the slot in this generation.
    #[inline]
    pub fn lend(&self, generation: u32) {
        let lent = SlotWord { generation, state: SlotState::Lent }.to_word();
        // SYNC slot.lend: pairs with slot.lease.look, for the place.
        self.word.store(lent, ordering("slot.lend", Ordering::Release));
    }

    /// Member: takes a lease on the loan.
    ///
    /// # Errors
    /// [`NotLent`] when the slot is not lent in this generation (any more).
    #[inline]
    pub fn lease(&self, loan: Loan, member: u32) -> Result<(), NotLent> {
        let lent = SlotWord { generation: loan.generation, state: SlotState::Lent }.to_word();
        let returning = SlotWord { generation: loan.generation, state: SlotState::Returning }.to_word();
        let (index, bit) = lease_bit(member);
        let set = || {
            // SYNC slot.lease: pairs with slot.take-back; both write first and look then.
            fetch_or_fenced("slot.lease", &self.leases[index], bit);
        };
        let look = || {
            for _ in 0..RETURNING_LOOKS {
                // SYNC slot.lease.look: pairs with slot.lend, and with slot.take-back where the loan was kept.
                let word = self.word.load(ordering("slot.lease.look", Ordering::Acquire));
                if word != returning {
                    return word == lent;
                }
                // The holder is looking at the leases this moment, and may find another's and keep the loan.
                spin_loop();
            }
            false
        };
        if let ((), true) = in_order("slot.lease.set-look", set, look) {
            return Ok(());
        }
        step("slot.lease.refused", || self.release(member));
        Err(NotLent { loan })
    }

    /// Member: gives up its lease.
    #[inline]
    pub fn release(&self, member: u32) {
        let (index, bit) = lease_bit(member);
        // SYNC slot.release: pairs with slot.take-back.look, for the bytes.
        self.leases[index].fetch_and(!bit, ordering("slot.release", Ordering::Release));
    }

    /// Primary: gives up the lease of a member that left or died, if it has one.
    pub fn void_lease(&self, member: u32) {
        if self.is_leased_by(member) {
            self.release(member);
        }
    }

    /// Whether the member's bit is set.
    #[must_use]
    pub fn is_leased_by(&self, member: u32) -> bool {
        let (index, bit) = lease_bit(member);
        self.leases[index].load(Ordering::Relaxed) & bit != 0
    }

    /// Holder of the command: takes the slot back, so that the command can be completed.
    ///
    /// # Errors
    /// [`TakeBackError::Leased`] while somebody has a lease, [`TakeBackError::NotLent`] when the word was tampered with.
    #[inline]
    pub fn take_back(&self, generation: u32) -> Result<(), TakeBackError> {
        let word = |state| SlotWord { generation, state }.to_word();
        let (lent, returning) = (word(SlotState::Lent), word(SlotState::Returning));
        let say = || {
            // SYNC slot.take-back: pairs with slot.lease. Its fence also stands before `lent` below, for the place.
            compare_exchange_fenced("slot.take-back", &self.word, lent, returning)
        };
        let look = || {
            let mut leases = 0u128;
            for (index, bits) in self.leases.iter().enumerate() {
                // SYNC slot.take-back.look: pairs with slot.release.
                let bits = bits.load(ordering("slot.take-back.look", Ordering::Acquire));
                leases |= u128::from(bits) << (index as u32 * u64::BITS);
            }
            leases
        };
        let (_, leases) = try_in_order("slot.take-back.say-look", say, look)
            .map_err(|word| TakeBackError::NotLent { generation, word })?;
        if leases == 0 {
            // SYNC slot.home: pairs with slot.look, for the bytes.
            self.word.store(word(SlotState::Home), ordering("slot.home", Ordering::Release));
            Ok(())
        } else {
            step("slot.take-back.kept", || self.word.store(lent, Ordering::Relaxed));
            Err(TakeBackError::Leased { leases })
        }
    }
}
