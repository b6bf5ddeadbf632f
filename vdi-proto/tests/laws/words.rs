//! Records as words: any words, with the checksum that they need to be decoded.

use vdi_proto::command::{CommandRecord, CompletionRecord};
use vdi_proto::index::DeviceIndex;
use vdi_proto::status::VdError;
use vdi_proto::wire::checksum::{ChecksumKey, Checksums, Ring};
use vdi_proto::wire::record::{RecordError, decode_command, decode_completion, encode_command, encode_completion};

/// The key of a ring of the laws' only device.
pub(crate) fn ring(ring: Ring) -> ChecksumKey {
    Checksums::new(7).ring(DeviceIndex::new(0).expect("in range"), ring)
}

/// Any words, with the checksum that they need to be decoded.
fn with_checksum(ring: &ChecksumKey, number: u64, words: [u64; 4]) -> [u64; 4] {
    let [a, b, c, d] = words;
    let d = d & 0xffff_ffff;
    [a, b, c, u64::from(ring.of(number, [a, b, c, d])) << 32 | d]
}

/// The command in any words: only words that a command encodes to are one.
pub(crate) fn any_command(words: [u64; 4]) -> Option<CommandRecord> {
    let (ring, number) = (ring(Ring::Submission), 9);
    let words = with_checksum(&ring, number, words);
    match decode_command(&ring, number, words) {
        Ok(record) => {
            assert_eq!(encode_command(&ring, number, &record), words);
            Some(record)
        }
        Err(error) => {
            assert!(!matches!(error, RecordError::Checksum { .. }), "{error}");
            assert_eq!(error.code(), VdError::Abort);
            None
        }
    }
}

/// The completion in any words.
pub(crate) fn any_completion(words: [u64; 4]) -> Option<CompletionRecord> {
    let (ring, number) = (ring(Ring::Completion), 9);
    let words = with_checksum(&ring, number, words);
    match decode_completion(&ring, number, words) {
        Ok(record) => {
            assert_eq!(encode_completion(&ring, number, &record), words);
            Some(record)
        }
        Err(error) => {
            assert!(matches!(error, RecordError::Padding { .. }), "{error}");
            None
        }
    }
}
