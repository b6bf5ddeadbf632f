//! Records as words: every record has one encoding, and every other word is refused with its reason.

use proptest::prelude::*;
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::index::{DeviceIndex, Generation, SlotIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::checksum::{ChecksumKey, Checksums, Ring};
use vdi_proto::wire::record::{RecordError, decode_command, decode_completion, encode_command, encode_completion};

fn key() -> ChecksumKey {
    Checksums::new(5).ring(DeviceIndex::new(3).expect("in range"), Ring::Submission)
}

fn loan(slot: u32, generation: u32) -> Loan {
    Loan { slot: SlotIndex::new(slot).expect("in range"), generation: Generation::from_bits(generation) }
}

const WRITE: CommandRecord = CommandRecord {
    code: CommandCode::WRITE,
    id: CommandId(0x1122_3344),
    size: -2,
    position: 0x0102_0304_0506_0708,
    loan: None,
};

const DISK_FULL: CompletionRecord =
    CompletionRecord { id: CommandId(0x1122_3344), code: CompletionCode::DISK_FULL, bytes: 0x77, position: 0x88 };

/// The words without their checksum, which is checked.
fn without_checksum(number: u64, words: [u64; 4]) -> [u64; 4] {
    let [a, b, c, d] = words;
    let plain = [a, b, c, d & 0xffff_ffff];
    assert_eq!((d >> 32) as u32, key().of(number, plain));
    plain
}

/// The words with a checksum.
fn with_checksum(number: u64, words: [u64; 4]) -> [u64; 4] {
    let [a, b, c, d] = words;
    [a, b, c, u64::from(key().of(number, words)) << 32 | d]
}

/// The position of each field in the words. Processes of different builds share them.
#[test]
fn words_of_records_are_stable() {
    let lent = CommandRecord { loan: Some(loan(0x55, 0x66)), ..WRITE };
    assert_eq!(
        without_checksum(7, encode_command(&key(), 7, &lent)),
        [0x1122_3344_0000_0002, 0x0000_0055_ffff_fffe, 0x0102_0304_0506_0708, 0x66]
    );
    assert_eq!(
        without_checksum(7, encode_command(&key(), 7, &WRITE)),
        [0x1122_3344_0000_0002, 0xffff_ffff_ffff_fffe, 0x0102_0304_0506_0708, 0]
    );
    assert_eq!(without_checksum(7, encode_completion(&key(), 7, &DISK_FULL)), [0x1122_3344_0000_0070, 0x77, 0x88, 0]);
}

#[test]
fn each_invalid_field_has_its_error() {
    let rows = [
        ([2, 4096 << 32, 0, 0], RecordError::Slot { found: 4096 }),
        ([2, 0xffff_fffe << 32, 0, 0], RecordError::Slot { found: u32::MAX - 1 }),
        ([2, 5 << 32, 0, 0x10_0000], RecordError::Generation { found: 0x10_0000 }),
        ([2, 5 << 32, 0, 0xffff_ffff], RecordError::Generation { found: u32::MAX }),
        ([2, 0xffff_ffff << 32, 0, 1], RecordError::Padding { found: 1 }),
    ];
    for (words, error) in rows {
        assert_eq!(decode_command(&key(), 9, with_checksum(9, words)), Err(error));
        assert_eq!(error.code(), VdError::Abort);
    }
    for words in [[0, 1 << 32, 0, 0], [0, 0, 0, 1]] {
        let found = decode_completion(&key(), 9, with_checksum(9, words));
        assert_eq!(found, Err(RecordError::Padding { found: 1 }));
    }
}

/// A cleared entry, a record that was copied, one that is repeated, and one of another ring.
#[test]
fn wrong_checksums_are_found() {
    let other = Checksums::new(5).ring(DeviceIndex::new(3).expect("in range"), Ring::Completion);
    let words = encode_command(&key(), 9, &WRITE);
    for (key, number, words) in [(key(), 9, [0; 4]), (key(), 8, words), (key(), 9 + 64, words), (other, 9, words)] {
        let error = decode_command(&key, number, words).expect_err("the checksum is wrong");
        let found = (words[3] >> 32) as u32;
        assert!(matches!(error, RecordError::Checksum { number: n, found: f, .. } if n == number && f == found));
        assert!(decode_completion(&key, number, words).is_err());
    }
}

proptest! {
    #[test]
    fn commands_decode_to_themselves(
        number: u64, code: u32, id: u32, size: i32, position: u64,
        loan in prop::option::of((0u32..4096, any::<u32>()).prop_map(|(slot, generation)| loan(slot, generation))),
    ) {
        let record = CommandRecord { code: CommandCode::new(code), id: CommandId(id), size, position, loan };
        prop_assert_eq!(decode_command(&key(), number, encode_command(&key(), number, &record)), Ok(record));
    }

    #[test]
    fn completions_decode_to_themselves(number: u64, id: u32, code: u32, bytes: u32, position: u64) {
        let record = CompletionRecord { id: CommandId(id), code: CompletionCode::new(code), bytes, position };
        prop_assert_eq!(decode_completion(&key(), number, encode_completion(&key(), number, &record)), Ok(record));
    }

    /// Any words with a valid checksum are refused, or are the encoding of the record.
    #[test]
    fn words_have_at_most_one_meaning(
        number: u64, first: u64, size: u32, slot in prop_oneof![0u32..5000, Just(u32::MAX), any::<u32>()],
        position: u64, last in prop_oneof![0u32..2, any::<u32>()],
    ) {
        let words = with_checksum(number, [first, u64::from(slot) << 32 | u64::from(size), position, u64::from(last)]);
        if let Ok(record) = decode_command(&key(), number, words) {
            prop_assert_eq!(encode_command(&key(), number, &record), words);
        }
        let words = with_checksum(number, [first, u64::from(size), position, u64::from(last % 2)]);
        match decode_completion(&key(), number, words) {
            Ok(record) => prop_assert_eq!(encode_completion(&key(), number, &record), words),
            Err(error) => prop_assert_eq!(error, RecordError::Padding { found: last % 2 }),
        }
    }

    /// A stray write to any words of an entry is found.
    #[test]
    fn changed_words_are_found(number: u64, slot in 0u32..4096, at in 0usize..4, change in 1u64..) {
        let mut words = encode_command(&key(), number, &CommandRecord { loan: Some(loan(slot, 1)), ..WRITE });
        words[at] ^= change;
        let error = decode_command(&key(), number, words).expect_err("it was changed");
        let is_checksum = matches!(error, RecordError::Checksum { .. });
        prop_assert!(is_checksum, "{}", error);
    }
}
