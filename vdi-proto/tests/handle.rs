//! Buffer handles: the codec is a bijection, and every handle of a buffer that is not lent is refused, in counted cases.

mod laws;

use std::collections::BTreeSet;

use laws::device::loan;
use proptest::prelude::*;
use vdi_proto::command::Loan;
use vdi_proto::handle::{self, BufferHandle, HandleCodec, SlotState};
use vdi_proto::index::{Generation, MAX_SLOTS, SlotIndex};
use vdi_proto::set::{SetPhase, client};
use vdi_proto::status::VdError;

/// splitmix64: the counted runs are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The handles of a set: its slots, and the client's state.
struct Set {
    codec: HandleCodec,
    state: client::State,
    slots: Vec<SlotState>,
    /// The handles of past loans.
    stale: Vec<BufferHandle>,
}

impl Set {
    fn new(secret: u64, slots: usize) -> Self {
        Set {
            codec: HandleCodec::new(secret),
            state: client::State::Active,
            slots: vec![SlotState::Free(Generation::default()); slots],
            stale: Vec::new(),
        }
    }

    fn generation(&self, slot: usize) -> Generation {
        let (SlotState::Free(generation) | SlotState::Lent(generation) | SlotState::Reclaiming(generation)) =
            self.slots[slot];
        generation
    }

    fn is_lent(&self, slot: usize) -> bool {
        matches!(self.slots[slot], SlotState::Lent(_))
    }

    fn lend(&mut self, slot: usize) {
        self.slots[slot] = SlotState::Lent(self.generation(slot).next());
    }

    /// CompleteCommand, or an abort: the loan of the slot ends.
    fn reclaim(&mut self, slot: usize) {
        self.stale.extend(self.handle(slot));
        self.slots[slot] = SlotState::Free(self.generation(slot));
    }

    fn handle(&self, slot: usize) -> Option<BufferHandle> {
        let held = self.codec.encode(loan(slot as u32, self.generation(slot).get()));
        handle::get(SetPhase::Open, self.is_lent(slot).then_some(held)).ok()
    }

    fn map(&self, handle: BufferHandle) -> Result<Loan, VdError> {
        let loan = self.codec.decode(handle);
        handle::map(self.state.phase(), loan, self.slots.get(loan.slot.as_usize()).copied()).map(|()| loan)
    }

    fn lent(&self) -> usize {
        (0..self.slots.len()).filter(|slot| self.is_lent(*slot)).count()
    }
}

/// How many handles of a kind were tried, and how many of them were those of a lent buffer by chance.
#[derive(Default, Debug)]
struct Count {
    tried: u64,
    hits: u64,
    /// Sum of n / 2^32: the expected number of hits.
    expected: f64,
}

impl Count {
    fn try_on(&mut self, set: &Set, handle: BufferHandle) {
        self.tried += 1;
        self.expected += set.lent() as f64 / 2f64.powi(32);
        match set.map(handle) {
            Err(status) => assert_eq!(status, VdError::Invalid),
            Ok(loan) => {
                // A hit is the handle of a lent buffer.
                assert_eq!(set.handle(loan.slot.as_usize()), Some(handle));
                self.hits += 1;
            }
        }
    }

    fn check(&self, kind: &str, at_least: u64) {
        assert!(self.tried >= at_least, "{kind}: only {self:?}");
        // Hits are a Poisson number; six standard deviations and one.
        let most = self.expected + 6.0 * self.expected.sqrt() + 1.0;
        assert!((self.hits as f64) < most, "{kind}: {self:?}, more than {most}");
    }
}

/// In every state but the open ones the answer is VD_E_PROTOCOL, for valid handles and others. Returns how many were
/// tried.
fn check_phases(set: &mut Set, slot: usize, random: BufferHandle) -> u64 {
    let mut refused = 0;
    for state in client::State::ALL {
        let open = matches!(state, client::State::Initializing | client::State::Active);
        set.state = state;
        for handle in set.handle(slot).into_iter().chain([random]) {
            assert_eq!(set.map(handle) == Err(VdError::Protocol), !open, "{state:?}");
            if !open {
                for held in [None, Some(handle)] {
                    assert_eq!(handle::get(state.phase(), held), Err(VdError::Protocol));
                }
                refused += 1;
            }
        }
    }
    set.state = client::State::Active;
    refused
}

/// Stale, forged, foreign and untimely handles in sets of every size, through many loans.
#[test]
fn only_handles_of_lent_buffers_are_accepted() {
    let mut numbers = Numbers(7);
    let (mut stale, mut forged, mut near, mut foreign) =
        (Count::default(), Count::default(), Count::default(), Count::default());
    let (mut good, mut untimely, mut reclaiming) = (0, 0, 0);
    for slots in [64, 128, 256, 512, 1024, 2048, 4096] {
        let mut sets = [Set::new(numbers.next(), slots), Set::new(numbers.next(), slots)];
        for round in 0..4_000 {
            let which = round % 2;
            let slot = numbers.below(slots);
            let set = &mut sets[which];
            if set.is_lent(slot) {
                set.reclaim(slot)
            } else {
                set.lend(slot)
            }
            let set = &sets[which];

            // A handle is valid while its buffer is lent, any number of times.
            if let Some(handle) = set.handle(slot) {
                let loan = loan(slot as u32, set.generation(slot).get());
                assert_eq!((set.map(handle), set.map(handle)), (Ok(loan), Ok(loan)));
                good += 1;
                // One bit off, one number off.
                near.try_on(set, BufferHandle::from_number(handle.number() ^ 1 << numbers.below(32)));
                near.try_on(set, BufferHandle::from_number(handle.number().wrapping_add(1)));
                foreign.try_on(&sets[1 - which], handle);
            }
            if !set.stale.is_empty() {
                let handle = set.stale[numbers.below(set.stale.len())];
                assert_eq!(set.map(handle), Err(VdError::Invalid), "a stale handle is always refused");
                stale.tried += 1;
                foreign.try_on(&sets[1 - which], handle);
            }
            for _ in 0..4 {
                forged.try_on(set, BufferHandle::from_number(numbers.next() as u32));
            }
            if round % 8 == 0 {
                let random = BufferHandle::from_number(numbers.next() as u32);
                untimely += check_phases(&mut sets[which], slot, random);
            }

            // A slot that is being reclaimed is still lent: the completion may yet fail.
            let set = &mut sets[which];
            if let Some(handle) = set.handle(slot) {
                set.slots[slot] = SlotState::Reclaiming(set.generation(slot));
                assert!(set.map(handle).is_ok());
                reclaiming += 1;
                set.slots[slot] = SlotState::Lent(set.generation(slot));
            }
        }
    }
    assert_eq!(stale.hits, 0);
    stale.check("stale", 10_000);
    forged.check("forged", 100_000);
    near.check("near misses", 20_000);
    foreign.check("foreign", 20_000);
    assert!(good >= 10_000 && untimely >= 10_000 && reclaiming >= 10_000, "{good} {untimely} {reclaiming}");
}

/// The documented odds of a forged handle: with all 4096 slots lent one number in 2^20 is valid.
#[test]
fn forged_handles_hit_as_rarely_as_documented() {
    let mut numbers = Numbers(11);
    let mut set = Set::new(numbers.next(), MAX_SLOTS as usize);
    for slot in 0..set.slots.len() {
        set.lend(slot);
    }
    assert_eq!(set.lent(), 4096);
    let tries = 4_000_000u64;
    let hits = (0..tries).filter(|_| set.map(BufferHandle::from_number(numbers.next() as u32)).is_ok()).count() as f64;
    let expected = tries as f64 * 4096.0 / 2f64.powi(32);
    assert!((hits - expected).abs() < 6.0 * expected.sqrt(), "{hits} hits, {expected} expected");
    assert!(hits > 0.0, "no hit at all");
}

/// A handle is valid again only after 2^20 loans of its slot.
#[test]
fn generation_returns_only_after_all_others() {
    let codec = HandleCodec::new(5);
    let first = codec.encode(loan(3, 1));
    let map =
        |generation: Generation| handle::map(SetPhase::Open, codec.decode(first), Some(SlotState::Lent(generation)));
    let mut generation = Generation::from_bits(1);
    for later in 1..1u32 << Generation::BITS {
        generation = generation.next();
        assert_eq!(map(generation), Err(VdError::Invalid), "{later} loans later");
    }
    assert_eq!(map(generation.next()), Ok(()));
}

/// Processes of different builds share handles. If these change, the wire version must change.
#[test]
fn handles_of_a_secret_are_stable() {
    let codec = HandleCodec::new(0x0123_4567_89ab_cdef);
    let handles = [(0, 1), (7, 41), (4095, 0xf_ffff)].map(|(slot, generation)| codec.encode(loan(slot, generation)));
    assert_eq!(handles.map(BufferHandle::number), [0xea96_dce4, 0x8366_dd56, 0x6d11_8261]);
}

#[test]
fn different_loans_have_different_handles() {
    let codec = HandleCodec::new(0xfeed);
    let loans = (0..256).flat_map(|slot| (0..512).map(move |generation| loan(slot, generation)));
    let handles: BTreeSet<u32> = loans.map(|loan| codec.encode(loan).number()).collect();
    assert_eq!(handles.len(), 256 * 512);
}

#[test]
fn different_secrets_have_different_handles() {
    let mut numbers = Numbers(13);
    let mut same = 0;
    for _ in 0..10_000 {
        let secret = numbers.next();
        // Secrets that differ in one bit only.
        let (one, other) = (HandleCodec::new(secret), HandleCodec::new(secret ^ 1 << numbers.below(64)));
        let loan = loan(numbers.below(256) as u32, numbers.below(1000) as u32);
        same += u32::from(one.encode(loan) == other.encode(loan));
    }
    assert!(same <= 1, "{same} of 10000 handles were the same in two sets");
}

#[test]
fn map_follows_the_slot_state() {
    let (now, before) = (Generation::from_bits(7), Generation::from_bits(6));
    let loan = Loan { slot: SlotIndex::new(1).expect("in range"), generation: now };
    let rows = [
        (Some(SlotState::Lent(now)), Ok(())),
        (Some(SlotState::Reclaiming(now)), Ok(())),
        (Some(SlotState::Free(now)), Err(VdError::Invalid)),
        (Some(SlotState::Lent(before)), Err(VdError::Invalid)),
        (Some(SlotState::Reclaiming(before)), Err(VdError::Invalid)),
        (Some(SlotState::Free(before)), Err(VdError::Invalid)),
        (None, Err(VdError::Invalid)),
    ];
    for (state, answer) in rows {
        assert_eq!(handle::map(SetPhase::Open, loan, state), answer, "{state:?}");
        for phase in [SetPhase::Closed, SetPhase::Aborted] {
            assert_eq!(handle::map(phase, loan, state), Err(VdError::Protocol), "{state:?}");
        }
    }
}

/// Handles are shown as plain numbers; the secret is not shown.
#[test]
fn handles_are_shown_and_secrets_are_not() {
    let handle = BufferHandle::from_number(0xab);
    assert_eq!((handle.number(), handle.to_string().as_str()), (0xab, "0x000000ab"));
    assert_eq!(format!("{:?}", HandleCodec::new(0x1234_5678)), "HandleCodec { .. }");
}

proptest! {
    #[test]
    fn codec_is_a_bijection(secret: u64, number: u32, slot in 0..MAX_SLOTS, generation: u32) {
        let codec = HandleCodec::new(secret);
        let handle = BufferHandle::from_number(number);
        prop_assert_eq!(codec.encode(codec.decode(handle)), handle);
        let loan = loan(slot, generation);
        prop_assert_eq!(codec.decode(codec.encode(loan)), loan);
    }

    #[test]
    fn law_of_handles(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        laws::bytes::handle(&bytes);
    }
}
