//! A cursor over the contents of a message. Each read says which field it is for, so that errors name it.

use crate::error::Error;

#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($name:ident: $type:ty = $from:ident;)*) => {$(
        pub(crate) fn $name(&mut self, field: &'static str) -> Result<$type, Error> {
            self.array(field).map(<$type>::$from)
        }
    )*};
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The next byte, which stays.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let Some(bytes) = rest.get(..len) else {
            let (expected, found) = (len as u64, rest.len() as u64);
            return Err(Error::Truncated { offset: self.offset(), field, expected, found });
        };
        self.at += len;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Error> {
        self.array(field).map(|[byte]| byte)
    }

    numbers! {
        u16: u16 = from_le_bytes;
        u32: u32 = from_le_bytes;
        u64: u64 = from_le_bytes;
        i16: i16 = from_le_bytes;
        i32: i32 = from_le_bytes;
        i64: i64 = from_le_bytes;
        u16_be: u16 = from_be_bytes;
    }

    /// A text of `units` UTF-16 code units.
    pub(crate) fn utf16(&mut self, units: usize, field: &'static str) -> Result<String, Error> {
        let offset = self.offset();
        utf16(self.take(units * 2, field)?).ok_or(Error::Unicode { offset, field })
    }

    /// A text after its length in UTF-16 code units as one byte.
    pub(crate) fn b_varchar(&mut self, field: &'static str) -> Result<String, Error> {
        let units = self.u8(field)?;
        self.utf16(usize::from(units), field)
    }

    /// Refuses what is left.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        match self.left() {
            0 => Ok(()),
            left => Err(Error::Trailing { offset: self.offset(), found: left as u64 }),
        }
    }
}

/// A text from UTF-16 in little-endian order. `None`: an odd length, or a surrogate without its partner.
pub(crate) fn utf16(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))).collect::<Result<String, _>>();
    text.ok().filter(|_| rest.is_empty())
}
