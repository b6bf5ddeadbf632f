//! Buffer handles: the codec is a bijection, and every handle that is not lent is refused, in counted cases.

mod laws;

use std::collections::BTreeSet;

use proptest::prelude::*;
use vdi_proto::command::Loan;
use vdi_proto::handle::{BufferHandle, HandleCodec, MAX_SLOT_BITS, MIN_SLOT_BITS, SlotState, SlotWord};
use vdi_proto::set::{View, client};
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

/// A set as far as handles go: its slots, and the client's state.
struct Set {
    codec: HandleCodec,
    state: client::State,
    slots: Vec<SlotWord>,
    /// The handles of past loans.
    stale: Vec<BufferHandle>,
}

impl Set {
    fn new(secret: u64, slot_bits: u32) -> Self {
        let home = SlotWord { generation: 0, state: SlotState::Home };
        Set {
            codec: HandleCodec::new(secret, slot_bits),
            state: client::State::Active,
            slots: vec![home; 1 << slot_bits],
            stale: Vec::new(),
        }
    }

    fn lend(&mut self, slot: usize) {
        let word = &mut self.slots[slot];
        *word = SlotWord { generation: word.generation.wrapping_add(1), state: SlotState::Lent };
    }

    /// CompleteCommand, or an abort: the loan of the slot ends.
    fn give_back(&mut self, slot: usize) {
        if let Some(handle) = self.handle(slot) {
            self.stale.push(handle);
        }
        self.slots[slot].state = SlotState::Home;
    }

    fn handle(&self, slot: usize) -> Option<BufferHandle> {
        let SlotWord { generation, state } = self.slots[slot];
        let held = || self.codec.encode(Loan { slot: slot as u32, generation });
        HandleCodec::get(View::Open, (state == SlotState::Lent).then(held)).ok()
    }

    fn map(&self, handle: BufferHandle) -> Result<Loan, VdError> {
        self.codec.map(self.state.view(), handle, |slot| self.slots.get(slot as usize).copied())
    }

    fn lent(&self) -> usize {
        self.slots.iter().filter(|word| word.state == SlotState::Lent).count()
    }
}

/// How many cases of a kind were tried, and how many of them met a buffer that happened to be lent.
#[derive(Default, Debug)]
struct Count {
    tried: u64,
    hits: u64,
    /// Sum of n / 2^32 over the cases: the hits that the documented odds let expect.
    expected: f64,
}

impl Count {
    fn try_on(&mut self, set: &Set, handle: BufferHandle) {
        self.tried += 1;
        self.expected += set.lent() as f64 / 2f64.powi(32);
        match set.map(handle) {
            Err(status) => assert_eq!(status, VdError::Invalid),
            Ok(loan) => {
                // A hit must be a buffer that is really lent, by the very number that its own handle has.
                assert_eq!(set.handle(loan.slot as usize), Some(handle));
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

/// Stale, forged, foreign and untimely handles in sets of every size, through many loans.
#[test]
fn every_handle_that_is_not_lent_is_refused() {
    let mut numbers = Numbers(7);
    let (mut stale, mut forged, mut near, mut foreign) =
        (Count::default(), Count::default(), Count::default(), Count::default());
    let (mut good, mut untimely, mut returning) = (0, 0, 0);
    for slot_bits in MIN_SLOT_BITS..=MAX_SLOT_BITS {
        let mut sets = [Set::new(numbers.next(), slot_bits), Set::new(numbers.next(), slot_bits)];
        for round in 0..4_000 {
            let which = round % 2;
            let slot = numbers.below(1 << slot_bits);
            let set = &mut sets[which];
            match set.slots[slot].state {
                SlotState::Lent => set.give_back(slot),
                // Lent again at once: the memory is the same, the handle of before is none any more.
                SlotState::Home | SlotState::Returning => set.lend(slot),
            }
            let set = &sets[which];

            // A handle is good while its buffer is lent, again and again.
            if let Some(handle) = set.handle(slot) {
                let loan = Loan { slot: slot as u32, generation: set.slots[slot].generation };
                assert_eq!((set.map(handle), set.map(handle)), (Ok(loan), Ok(loan)));
                good += 1;
                // One bit off, one number off.
                near.try_on(set, BufferHandle::from_number(handle.number() ^ 1 << numbers.below(32)));
                near.try_on(set, BufferHandle::from_number(handle.number().wrapping_add(1)));
                // In the other set it is nothing.
                foreign.try_on(&sets[1 - which], handle);
            }
            if !set.stale.is_empty() {
                let handle = set.stale[numbers.below(set.stale.len())];
                assert_eq!(set.map(handle), Err(VdError::Invalid), "a stale handle is refused, always");
                stale.tried += 1;
                foreign.try_on(&sets[1 - which], handle);
            }
            for _ in 0..4 {
                forged.try_on(set, BufferHandle::from_number(numbers.next() as u32));
            }

            // In any state but the open ones the answer is VD_E_PROTOCOL, for good handles and bad.
            if round % 8 == 0 {
                for state in client::State::ALL {
                    let open = matches!(state, client::State::Initializing | client::State::Active);
                    sets[which].state = state;
                    let set = &sets[which];
                    let random = BufferHandle::from_number(numbers.next() as u32);
                    for handle in set.handle(slot).into_iter().chain([random]) {
                        assert_eq!(set.map(handle) == Err(VdError::Protocol), !open, "{state:?}");
                        let look = |_| panic!("the slots of a set that is not open are nobody's business");
                        if !open {
                            assert_eq!(set.codec.map(state.view(), handle, look), Err(VdError::Protocol));
                            let held = set.codec.encode(Loan { slot: slot as u32, generation: 1 });
                            for held in [None, Some(held)] {
                                assert_eq!(HandleCodec::get(state.view(), held), Err(VdError::Protocol));
                            }
                            untimely += 1;
                        }
                    }
                }
                sets[which].state = client::State::Active;
            }

            // While the buffer is being given back its handle is no good either.
            let set = &mut sets[which];
            if let Some(handle) = set.handle(slot) {
                set.slots[slot].state = SlotState::Returning;
                assert_eq!(set.map(handle), Err(VdError::Invalid));
                returning += 1;
                set.slots[slot].state = SlotState::Lent;
                assert!(set.map(handle).is_ok());
            }
        }
    }
    assert_eq!(stale.hits, 0);
    stale.check("stale", 10_000);
    forged.check("forged", 100_000);
    near.check("near misses", 20_000);
    foreign.check("foreign", 20_000);
    assert!(good >= 10_000 && untimely >= 10_000 && returning >= 10_000, "{good} {untimely} {returning}");
}

/// The documented odds against forgery, measured: with all 4096 slots lent one number in 2^20 is a hit.
#[test]
fn forged_numbers_hit_as_seldom_as_documented() {
    let mut numbers = Numbers(11);
    let mut set = Set::new(numbers.next(), MAX_SLOT_BITS);
    for slot in 0..set.slots.len() {
        set.lend(slot);
    }
    assert_eq!(set.lent(), 4096);
    let tries = 8_000_000u64;
    let hits = (0..tries).filter(|_| set.map(BufferHandle::from_number(numbers.next() as u32)).is_ok()).count() as f64;
    let expected = tries as f64 * 4096.0 / 2f64.powi(32);
    assert!((hits - expected).abs() < 6.0 * expected.sqrt(), "{hits} hits, {expected} expected");
    assert!(hits > 0.0, "the bound was really met");
}

/// A handle is good again only after all generations of its slot: 2^20 loans at the least.
#[test]
fn a_generation_comes_round_only_after_all_others() {
    for slot_bits in [MIN_SLOT_BITS, 8, MAX_SLOT_BITS] {
        let codec = HandleCodec::new(5, slot_bits);
        let generations = u64::from(codec.generation_mask()) + 1;
        assert_eq!(generations, 1 << (32 - slot_bits));
        assert!(generations >= 1 << 20);
        let first = codec.encode(Loan { slot: 3, generation: 1 });
        let look = |generation| move |_| Some(SlotWord { generation, state: SlotState::Lent });
        // Powers of two, their neighbours, and the last before the round is complete.
        for later in (1..32 - slot_bits).flat_map(|bit| [1u32 << bit, (1 << bit) + 1]).chain([codec.generation_mask()])
        {
            let generation = 1u32.wrapping_add(later);
            assert_eq!(codec.map(View::Open, first, look(generation)), Err(VdError::Invalid), "{later} loans later");
        }
        let again = 1 + codec.generation_mask() + 1;
        assert_eq!(codec.map(View::Open, first, look(again)), Ok(Loan { slot: 3, generation: again }));
    }
}

/// Processes of different builds share handles: one that changes wants another [`vdi_proto::layout::VERSION`].
#[test]
fn the_handles_of_a_secret_hold() {
    let codec = HandleCodec::new(0x0123_4567_89ab_cdef, 8);
    let handles =
        [(0, 1), (7, 41), (255, 0xff_ffff)].map(|(slot, generation)| codec.encode(Loan { slot, generation }).number());
    assert_eq!(handles, [0x79de_be51, 0xf389_d037, 0x6d11_8261]);
}

/// All loans of a small field have different handles.
#[test]
fn no_two_loans_share_a_handle() {
    let codec = HandleCodec::new(0xfeed, 8);
    let loans = (0..256).flat_map(|slot| (0..512).map(move |generation| Loan { slot, generation }));
    let handles: BTreeSet<u32> = loans.map(|loan| codec.encode(loan).number()).collect();
    assert_eq!(handles.len(), 256 * 512);
}

/// Sets with different secrets number their buffers differently.
#[test]
fn secrets_make_a_difference() {
    let mut numbers = Numbers(13);
    let mut same = 0;
    for _ in 0..10_000 {
        let secret = numbers.next();
        // Secrets that differ in one bit only.
        let (one, other) = (HandleCodec::new(secret, 8), HandleCodec::new(secret ^ 1 << numbers.below(64), 8));
        let loan = Loan { slot: numbers.below(256) as u32, generation: numbers.below(1000) as u32 };
        same += u32::from(one.encode(loan) == other.encode(loan));
    }
    assert!(same <= 1, "{same} of 10000 handles were the same in two sets");
}

#[test]
fn slot_bits_are_enough_and_within_bounds() {
    for (buffers, bits) in
        [(0, 6), (1, 6), (64, 6), (65, 7), (128, 7), (129, 8), (4095, 12), (4096, 12), (4097, 12), (u32::MAX, 12)]
    {
        assert_eq!(HandleCodec::slot_bits_for(buffers), bits, "{buffers}");
    }
    for buffers in 1..=4096 {
        assert!(1u32 << HandleCodec::slot_bits_for(buffers) >= buffers);
    }
    for (asked, bits) in [(0, 6), (5, 6), (6, 6), (12, 12), (13, 12), (u32::MAX, 12)] {
        assert_eq!(HandleCodec::new(1, asked).slot_bits(), bits);
    }
}

#[test]
fn words_of_slots_with_an_unknown_state_are_nobodys() {
    let codec = HandleCodec::new(1, 6);
    for state in [3u64, 4, 0xffff_ffff, 0x8000_0001] {
        assert_eq!(SlotWord::from_word(7 << 32 | state), None);
    }
    let handle = codec.encode(Loan { slot: 1, generation: 7 });
    assert_eq!(codec.map(View::Open, handle, |_| SlotWord::from_word(7 << 32 | 3)), Err(VdError::Invalid));
    assert_eq!(codec.map(View::Open, handle, |_| None), Err(VdError::Invalid));
}

/// Handles travel as plain numbers and are shown as such; the secret is not.
#[test]
fn numbers_travel_and_secrets_do_not() {
    let handle = BufferHandle::from_number(0xab);
    assert_eq!((handle.number(), handle.to_string().as_str()), (0xab, "0x000000ab"));
    assert_eq!(format!("{:?}", HandleCodec::new(0x1234_5678, 8)), "HandleCodec { slot_bits: 8, .. }");
}

proptest! {
    /// Both ways, for every number and every width of the slot field.
    #[test]
    fn the_codec_is_a_bijection(secret: u64, number: u32) {
        for slot_bits in MIN_SLOT_BITS..=MAX_SLOT_BITS {
            let codec = HandleCodec::new(secret, slot_bits);
            let loan = codec.decode(BufferHandle::from_number(number));
            prop_assert!(loan.slot < 1 << slot_bits && loan.generation <= codec.generation_mask());
            prop_assert_eq!(codec.encode(loan).number(), number);
            let loan = Loan { slot: number & ((1 << slot_bits) - 1), generation: number >> slot_bits };
            prop_assert_eq!(codec.decode(codec.encode(loan)), loan);
        }
    }

    #[test]
    fn the_law_of_handles(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        laws::bytes::handle(&bytes);
    }

    #[test]
    fn slot_words(word: u64, generation: u32) {
        prop_assert_eq!(SlotWord::from_word(word).is_some(), word as u32 <= 2);
        if let Some(slot) = SlotWord::from_word(word) {
            prop_assert_eq!(slot.to_word(), word);
        }
        for state in [SlotState::Home, SlotState::Lent, SlotState::Returning] {
            let slot = SlotWord { generation, state };
            prop_assert_eq!(SlotWord::from_word(slot.to_word()), Some(slot));
        }
    }
}
