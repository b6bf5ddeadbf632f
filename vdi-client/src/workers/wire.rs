//! What goes over the pipes between a primary and its workers: records of fixed length, little-endian, and the texts of failures.
//!
//! An answer of a final failure is followed by [`FailureText`]: two texts, each behind its length.

use std::io::{self, Read};

/// What the primary asks: 32 bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) tag: u64,
    /// A command's code, or [`CLOSE`].
    pub(crate) code: u32,
    pub(crate) stripe: u32,
    pub(crate) handle: u32,
    pub(crate) bytes: u32,
    pub(crate) position: u64,
}

/// In a request: the device was closed, so the stripe's medium is to be closed. No command has this number.
pub(crate) const CLOSE: u32 = 0;

/// What the worker answers: 24 bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) tag: u64,
    pub(crate) code: u32,
    pub(crate) bytes: u32,
    /// Of a success the position. Of any other answer 0, or [`FINAL`] where a text follows.
    pub(crate) position: u64,
}

/// In [`Answer::position`]: the stripe has failed for good with this answer, and the text of the failure follows.
pub(crate) const FINAL: u64 = 1;

/// What a medium said when it failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FailureText {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// The longest text, in bytes.
const LONGEST_TEXT: usize = 4096;

/// Two numbers in one word, the first in its lower half.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Records as bytes: little-endian words.
fn to_bytes<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

fn from_bytes<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
    core::array::from_fn(|word| bytes.as_chunks::<8>().0.get(word).map_or(0, |word| u64::from_le_bytes(*word)))
}

impl Request {
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let Request { tag, code, stripe, handle, bytes, position } = self;
        to_bytes([tag, pair(code, stripe), pair(handle, bytes), position])
    }

    pub(crate) fn from_bytes(record: &[u8; 32]) -> Self {
        let [tag, what, buffer, position] = from_bytes(record);
        let ((code, stripe), (handle, bytes)) = (halves(what), halves(buffer));
        Request { tag, code, stripe, handle, bytes, position }
    }
}

impl Answer {
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        to_bytes([self.tag, pair(self.code, self.bytes), self.position])
    }

    pub(crate) fn from_bytes(record: &[u8; 24]) -> Self {
        let [tag, what, position] = from_bytes(record);
        let (code, bytes) = halves(what);
        Answer { tag, code, bytes, position }
    }
}

impl FailureText {
    /// Texts that are too long are cut.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in [&self.what, &self.remedy] {
            let text = &text[..text.floor_char_boundary(LONGEST_TEXT)];
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    pub(crate) fn read(input: &mut impl Read) -> io::Result<FailureText> {
        Ok(FailureText { what: read_text(input)?, remedy: read_text(input)? })
    }
}

fn read_text(input: &mut impl Read) -> io::Result<String> {
    let length = read_record::<4>(input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_TEXT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads a record; `None` at the end.
pub(crate) fn read_record<const N: usize>(input: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut record = [0; N];
    let mut got = 0;
    while got < N {
        match input.read(&mut record[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => got += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What one side writes the other reads.
        #[test]
        fn records_survive_the_pipe(
            (tag, code, stripe, handle, bytes, position) in any::<(u64, u32, u32, u32, u32, u64)>(),
            (what, remedy) in (".{0,2000}", ".{0,20}"),
        ) {
            let request = Request { tag, code, stripe, handle, bytes, position };
            prop_assert_eq!(Request::from_bytes(&request.to_bytes()), request);
            let answer = Answer { tag, code, bytes, position };
            prop_assert_eq!(Answer::from_bytes(&answer.to_bytes()), answer);
            let text = FailureText { what, remedy };
            let read = FailureText::read(&mut &text.to_bytes()[..]).unwrap();
            prop_assert!(text.what.starts_with(&read.what));
            prop_assert!(read.what.len() > LONGEST_TEXT - 4 || read.what == text.what);
            prop_assert_eq!(read.remedy, text.remedy);
        }
    }

    #[test]
    fn a_record_cut_short_is_an_error_and_none_the_end() {
        assert_eq!(read_record::<4>(&mut &[][..]).unwrap(), None);
        assert_eq!(read_record::<4>(&mut &[1, 2, 3, 4][..]).unwrap(), Some([1, 2, 3, 4]));
        assert_eq!(read_record::<4>(&mut &[1, 2][..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(FailureText::read(&mut &[1, 0, 0, 0, b'x'][..]).is_err());
        assert!(FailureText::read(&mut &[0xFF, 0xFF, 0, 0][..]).is_err());
    }
}
