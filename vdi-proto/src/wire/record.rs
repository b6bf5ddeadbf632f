//! Commands and completions as the four 64-bit words of a ring entry.
//!
//! | word | lower half of a command | upper half | lower half of a completion | upper half |
//! |---|---|---|---|---|
//! | 0 | code | id | code | id |
//! | 1 | size | slot, or `u32::MAX` for no loan | bytes | 0 |
//! | 2 | position | position | position | position |
//! | 3 | generation, 0 for no loan | checksum | 0 | checksum |
//!
//! The checksum ([`super::checksum`]) covers the words with its own half 0. It is keyed by the set, the device and the
//! ring, and bound to the record's number. Every record has exactly one encoding: decoding refuses all other words.

use thiserror::Error;

use super::checksum::ChecksumKey;
use crate::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use crate::completion::CompletionCode;
use crate::index::{Generation, SlotIndex};
use crate::status::VdError;

/// The slot field of a command without a loan.
const NO_LOAN: u32 = u32::MAX;

/// Words that are not a record. A process wrote to shared memory by mistake; the set is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The checksum is wrong.
    #[error("record {number} of a ring has the checksum {found:#010x}, not {expected:#010x}: it was overwritten")]
    Checksum {
        /// The record's number.
        number: u64,
        /// Its checksum.
        found: u32,
        /// The checksum of its words.
        expected: u32,
    },
    /// There is no such slot.
    #[error("a command's buffer is in slot {found}, which no set has")]
    Slot {
        /// The slot.
        found: u32,
    },
    /// There is no such generation.
    #[error("a command's buffer has generation {found}, which no slot has")]
    Generation {
        /// The generation.
        found: u32,
    },
    /// An unused field is not 0.
    #[error("an unused field of a record is {found:#x}, not 0")]
    Padding {
        /// The field.
        found: u32,
    },
}

impl RecordError {
    /// The status by which the end of the set shows: VD_E_ABORT.
    #[must_use]
    pub const fn code(&self) -> VdError {
        VdError::Abort
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The words with their checksum in the upper half of the last.
const fn protect(key: &ChecksumKey, number: u64, words: [u64; 4]) -> [u64; 4] {
    let [a, b, c, d] = words;
    [a, b, c, pair(low(d), key.of(number, words))]
}

/// Checks the checksum. Returns the words without it.
const fn check(key: &ChecksumKey, number: u64, words: [u64; 4]) -> Result<[u64; 4], RecordError> {
    let [a, b, c, d] = words;
    let plain = [a, b, c, low(d) as u64];
    let (found, expected) = (high(d), key.of(number, plain));
    if found == expected { Ok(plain) } else { Err(RecordError::Checksum { number, found, expected }) }
}

/// The words of command number `number` in a submission ring.
#[must_use]
#[inline]
pub const fn encode_command(key: &ChecksumKey, number: u64, record: &CommandRecord) -> [u64; 4] {
    let (slot, generation) = match record.loan {
        Some(Loan { slot, generation }) => (slot.get(), generation.get()),
        None => (NO_LOAN, 0),
    };
    let words =
        [pair(record.code.number(), record.id.0), pair(record.size as u32, slot), record.position, pair(generation, 0)];
    protect(key, number, words)
}

/// The command in the words of record number `number` of a submission ring.
///
/// # Errors
/// [`RecordError`] unless [`encode_command`] made the words.
#[inline]
pub const fn decode_command(key: &ChecksumKey, number: u64, words: [u64; 4]) -> Result<CommandRecord, RecordError> {
    let [first, second, position, last] = match check(key, number, words) {
        Ok(words) => words,
        Err(error) => return Err(error),
    };
    let (slot, bits) = (high(second), low(last));
    let loan = if slot == NO_LOAN {
        if bits != 0 {
            return Err(RecordError::Padding { found: bits });
        }
        None
    } else {
        let generation = Generation::from_bits(bits);
        if generation.get() != bits {
            return Err(RecordError::Generation { found: bits });
        }
        match SlotIndex::new(slot) {
            Some(slot) => Some(Loan { slot, generation }),
            None => return Err(RecordError::Slot { found: slot }),
        }
    };
    let (code, id) = (CommandCode::new(low(first)), CommandId(high(first)));
    Ok(CommandRecord { code, id, size: low(second) as i32, position, loan })
}

/// The words of completion number `number` in a completion ring.
#[must_use]
#[inline]
pub const fn encode_completion(key: &ChecksumKey, number: u64, record: &CompletionRecord) -> [u64; 4] {
    let words = [pair(record.code.number(), record.id.0), pair(record.bytes, 0), record.position, 0];
    protect(key, number, words)
}

/// The completion in the words of record number `number` of a completion ring.
///
/// # Errors
/// [`RecordError`] unless [`encode_completion`] made the words.
#[inline]
pub const fn decode_completion(
    key: &ChecksumKey,
    number: u64,
    words: [u64; 4],
) -> Result<CompletionRecord, RecordError> {
    let [first, second, position, last] = match check(key, number, words) {
        Ok(words) => words,
        Err(error) => return Err(error),
    };
    let padding = high(second) | low(last);
    if padding != 0 {
        return Err(RecordError::Padding { found: padding });
    }
    let (code, id) = (CompletionCode::new(low(first)), CommandId(high(first)));
    Ok(CompletionRecord { id, code, bytes: low(second), position })
}
