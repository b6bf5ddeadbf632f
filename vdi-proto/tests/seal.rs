//! Seals: whatever is changed in what they cover, they change. All counts are the same in each run.

use vdi_proto::layout::RawPlace;
use vdi_proto::seal::{DeviceWord, Ring, SealKey, Seals};

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
}

fn key(secret: u64) -> SealKey {
    Seals::new(secret).ring(3, Ring::Completion)
}

/// Records as they really are: small numbers, many zeros.
fn record(numbers: &mut Numbers) -> [u64; 4] {
    let n = numbers.next();
    [n % 20, (n >> 8) % 70_000, (n >> 24) % 3 * 65536, n >> 40]
}

/// Every record with one or two bits flipped, or with a number near its own, bears another seal.
#[test]
fn small_changes_change_the_seal() {
    let mut numbers = Numbers(1);
    let mut tried = 0u64;
    for round in 0..40 {
        let (key, words) = (key(numbers.next()), record(&mut numbers));
        let seal = key.record(round, words);
        for first in 0..256 {
            for second in first..256 {
                let mut changed = words;
                changed[first / 64] ^= 1 << (first % 64);
                if second != first {
                    changed[second / 64] ^= 1 << (second % 64);
                }
                assert_ne!(key.record(round, changed), seal, "bits {first} and {second} of {words:?}");
                tried += 1;
            }
        }
        for other in (0..2000).filter(|other| *other != round) {
            assert_ne!(key.record(other, words), seal, "number {other} instead of {round}");
            tried += 1;
        }
    }
    assert!(tried > 1_300_000, "{tried}");
}

/// What anybody writes without the key passes about as often as chance has it: once in 2^32.
#[test]
fn forged_seals_pass_by_chance_only() {
    let mut numbers = Numbers(2);
    let mut low_bits = [0u32; 256];
    let mut passed = 0;
    for number in 0..4_000_000 {
        let words = record(&mut numbers);
        let seal = key(5).record(number, words);
        low_bits[seal as usize % 256] += 1;
        passed += u32::from(seal == numbers.next() as u32);
    }
    assert!(passed <= 1, "{passed} of 4,000,000 forged seals passed");
    // 15,625 of each are expected, with a deviation of 125.
    assert!(low_bits.iter().all(|count| (15_000..16_300).contains(count)), "{low_bits:?}");
}

/// The same words elsewhere bear another seal: in another set, ring, slot, device, or under another name.
#[test]
fn seals_belong_to_their_place() {
    let set = Seals::new(1);
    let mut records = std::collections::BTreeSet::new();
    for seals in [set, Seals::new(2)] {
        for device in 0..64 {
            for ring in [Ring::Submission, Ring::Completion] {
                assert!(records.insert(seals.ring(device, ring).record(9, [1, 2, 3, 4])));
            }
        }
    }
    let place = RawPlace { area: 1, len: 65536, offset: 131_072 };
    let places: std::collections::BTreeSet<_> = (0..4096).map(|slot| set.place(slot, &place)).collect();
    // Among 4,096 numbers of 32 bits two may be alike by chance.
    assert!(places.len() >= 4094, "{}", places.len());
    assert_ne!(set.place(0, &place), set.place(0, &RawPlace { offset: 65536, ..place }));
    // A slot's number and an area's or a length lie in the same word of what is sealed, and do not stand for each other: of 2^17
    // seals two are alike by chance.
    let of = |slot, area, len| set.place(slot, &RawPlace { area, len, offset: 65536 });
    let areas = (0..4096).flat_map(|slot| (0..16).map(move |area| of(slot, area, 65536)));
    let lens = (0..4096).flat_map(|slot| (1..17).map(move |len| of(slot, 3, len * 512)));
    let seals: std::collections::BTreeSet<_> = areas.chain(lens).collect();
    assert!(seals.len() >= (1 << 17) - 10, "{}", seals.len());
    assert_ne!(set.name(0, b"nightly"), set.name(1, b"nightly"));
    assert_ne!(set.name(0, b"nightly"), set.name(0, b"nightly\0"));
    assert_ne!(set.name(0, b""), set.name(0, b"\0"));
}

/// Processes of different builds share seals: one that changes wants another [`vdi_proto::layout::VERSION`].
#[test]
fn the_seals_of_a_secret_hold() {
    let seals = Seals::new(0x0123_4567_89ab_cdef);
    let place = RawPlace { area: 1, len: 65536, offset: 131_072 };
    assert_eq!(seals.place(7, &place), 0x7918_079a);
    assert_eq!(seals.ring(3, Ring::Completion).record(9, [1, 2, 3, 4]), 0x8fee_2e44);
    assert_eq!(seals.seal_word(3, DeviceWord::Client, 2), 0xe857_22a1_0000_0002);
    assert_eq!(seals.name(3, b"nightly"), 0x08a3_8e39);
}

/// A word opens to what was sealed, for its own device and party alone; zero is valid, since new memory is.
#[test]
fn words_open_where_they_belong() {
    let seals = Seals::new(77);
    for device in [0, 1, 63] {
        for (word, other) in [(DeviceWord::Server, DeviceWord::Client), (DeviceWord::Client, DeviceWord::Server)] {
            assert_eq!(seals.open_word(device, word, 0), Some(0));
            for value in [1, 2, 128, 1 << 31 | 5, u32::MAX] {
                let sealed = seals.seal_word(device, word, value);
                assert_eq!(seals.open_word(device, word, sealed), Some(value));
                assert_eq!(seals.open_word(device, other, sealed), None);
                assert_eq!(seals.open_word(device ^ 1, word, sealed), None);
                assert_eq!(seals.open_word(device, word, u64::from(value)), None, "a plain {value}");
                assert_eq!(seals.open_word(device, word, sealed ^ 3), None);
                assert_eq!(seals.open_word(device, word, sealed & !0xffff_ffff), None, "a seal without a value");
            }
        }
    }
}
