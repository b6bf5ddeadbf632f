//! Checksums: every change of what they cover changes them. All counts are the same in each run.

use std::collections::BTreeSet;

use vdi_proto::index::DeviceIndex;
use vdi_proto::wire::checksum::{ChecksumKey, Checksums, DeviceWord, Ring};

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

fn device(index: u32) -> DeviceIndex {
    DeviceIndex::new(index).expect("in range")
}

fn key(secret: u64) -> ChecksumKey {
    Checksums::new(secret).ring(device(3), Ring::Completion)
}

/// A typical record: small numbers, many zeros.
fn record(numbers: &mut Numbers) -> [u64; 4] {
    let n = numbers.next();
    [n % 20, (n >> 8) % 70_000, (n >> 24) % 3 * 65536, n >> 40]
}

/// A record with one or two bits flipped, or with another number, has another checksum.
#[test]
fn small_changes_change_the_checksum() {
    let mut numbers = Numbers(1);
    let mut tried = 0u64;
    for round in 0..40 {
        let (key, words) = (key(numbers.next()), record(&mut numbers));
        let checksum = key.of(round, words);
        for first in 0..256 {
            for second in first..256 {
                let mut changed = words;
                changed[first / 64] ^= 1 << (first % 64);
                if second != first {
                    changed[second / 64] ^= 1 << (second % 64);
                }
                assert_ne!(key.of(round, changed), checksum, "bits {first} and {second} of {words:?}");
                tried += 1;
            }
        }
        for other in (0..2000).filter(|other| *other != round) {
            assert_ne!(key.of(other, words), checksum, "number {other} instead of {round}");
            tried += 1;
        }
    }
    assert!(tried > 1_300_000, "{tried}");
}

/// A checksum made without the key is right by chance only: once in 2^32.
#[test]
fn forged_checksums_pass_by_chance_only() {
    let mut numbers = Numbers(2);
    let mut low_bits = [0u32; 256];
    let mut passed = 0;
    for number in 0..4_000_000 {
        let words = record(&mut numbers);
        let checksum = key(5).of(number, words);
        low_bits[checksum as usize % 256] += 1;
        passed += u32::from(checksum == numbers.next() as u32);
    }
    assert!(passed <= 1, "{passed} of 4,000,000 forged checksums passed");
    // 15,625 of each are expected, with a deviation of 125.
    assert!(low_bits.iter().all(|count| (15_000..16_300).contains(count)), "{low_bits:?}");
}

/// The same words have another checksum in another set, ring or device.
#[test]
fn checksums_are_bound_to_what_they_cover() {
    let set = Checksums::new(1);
    let mut records = BTreeSet::new();
    for checksums in [set, Checksums::new(2)] {
        for device in DeviceIndex::all(64) {
            for ring in [Ring::Submission, Ring::Completion] {
                assert!(records.insert(checksums.ring(device, ring).of(9, [1, 2, 3, 4])));
            }
        }
    }
    assert_ne!(set.name(device(0), b"nightly"), set.name(device(1), b"nightly"));
    assert_ne!(set.name(device(0), b"nightly"), set.name(device(0), b"nightly\0"));
    assert_ne!(set.name(device(0), b""), set.name(device(0), b"\0"));
    let text = set.abort(0x0801_0000, 112, b"the disk is full");
    for other in [
        set.abort(0x0201_0000, 112, b"the disk is full"),
        set.abort(0x0801_0000, 0, b"the disk is full"),
        set.abort(0x0801_0000, 112, b"the disk is fulL"),
        Checksums::new(2).abort(0x0801_0000, 112, b"the disk is full"),
    ] {
        assert_ne!(text, other);
    }
}

/// Processes of different builds share checksums. If these change, the wire version must change.
#[test]
fn checksums_of_a_secret_are_stable() {
    let checksums = Checksums::new(0x0123_4567_89ab_cdef);
    assert_eq!(checksums.ring(device(3), Ring::Completion).of(9, [1, 2, 3, 4]), 0x8fee_2e44);
    assert_eq!(checksums.word(device(3), DeviceWord::Client, 2), 0xc75a_6468_0000_0002);
    assert_eq!(checksums.name(device(3), b"nightly"), 0x8b65_9b10);
    assert_eq!(checksums.abort(0x0801_0000, 112, b"nightly"), 0xe221_905c);
}

/// A word is valid for its own device and role only.
#[test]
fn words_are_valid_only_where_they_belong() {
    let checksums = Checksums::new(77);
    for index in [0, 1, 63] {
        let (this, neighbour) = (device(index), device(index ^ 1));
        for (word, other) in [(DeviceWord::Server, DeviceWord::Client), (DeviceWord::Client, DeviceWord::Server)] {
            for value in [0, 1, 2, 128, 1 << 31 | 5, u32::MAX] {
                let written = checksums.word(this, word, value);
                assert_eq!(checksums.check_word(this, word, written), Some(value));
                assert_eq!(checksums.check_word(this, other, written), None);
                assert_eq!(checksums.check_word(neighbour, word, written), None);
                assert_eq!(checksums.check_word(this, word, u64::from(value)), None, "a plain {value}");
                assert_eq!(checksums.check_word(this, word, written ^ 3), None);
            }
        }
    }
}

/// Memory that is all zeros is no valid word, name or record: a stray `memset` is found.
#[test]
fn zeros_are_not_valid() {
    for secret in 0..1000 {
        let checksums = Checksums::new(secret);
        for device in DeviceIndex::all(64) {
            for word in [DeviceWord::Server, DeviceWord::Client] {
                assert_eq!(checksums.check_word(device, word, 0), None);
            }
            assert_ne!(checksums.name(device, b""), 0);
        }
        for ring in [Ring::Submission, Ring::Completion] {
            assert_ne!(checksums.ring(device(0), ring).of(0, [0; 4]), 0);
        }
    }
}

#[test]
fn secrets_are_not_shown() {
    let checksums = Checksums::new(0x1234);
    assert_eq!(format!("{checksums:?}"), "Checksums { .. }");
    assert_eq!(format!("{:?}", checksums.ring(device(0), Ring::Submission)), "ChecksumKey { .. }");
}
