//! Tables of fields at fixed offsets, and the code that reads and writes them.
//!
//! A table is given once; reading and writing cannot disagree about an offset.

use crate::error::Error;
use crate::value::{DateTime, FileId, Guid, Lsn, PageId, Tag, Text};

/// A value with a fixed length.
pub(crate) trait Field: Sized {
    const LEN: usize;
    /// Reads from exactly `LEN` bytes.
    fn get(bytes: &[u8]) -> Self;
    /// Writes to exactly `LEN` bytes.
    fn put(&self, bytes: &mut [u8]);
}

macro_rules! number_fields {
    ($($type:ty)*) => {$(
        impl Field for $type {
            const LEN: usize = size_of::<$type>();
            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$type>()];
                raw.copy_from_slice(bytes);
                <$type>::from_le_bytes(raw)
            }
            fn put(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

number_fields!(u8 i8 u16 u32 u64);

impl<const N: usize> Field for [u8; N] {
    const LEN: usize = N;
    fn get(bytes: &[u8]) -> Self {
        let mut raw = [0; N];
        raw.copy_from_slice(bytes);
        raw
    }
    fn put(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(self);
    }
}

macro_rules! wrapped_fields {
    ($($type:ident($inner:ty))*) => {$(
        impl Field for $type {
            const LEN: usize = <$inner as Field>::LEN;
            fn get(bytes: &[u8]) -> Self {
                $type(<$inner>::get(bytes))
            }
            fn put(&self, bytes: &mut [u8]) {
                self.0.put(bytes);
            }
        }
    )*};
}

wrapped_fields!(Tag([u8; 4]) Guid([u8; 16]) DateTime([u8; 5]) FileId(u16) PageId(u32));

impl Field for Lsn {
    const LEN: usize = 10;
    fn get(bytes: &[u8]) -> Self {
        Lsn { vlf: u32::get(&bytes[..4]), block: u32::get(&bytes[4..8]), slot: u16::get(&bytes[8..]) }
    }
    fn put(&self, bytes: &mut [u8]) {
        self.vlf.put(&mut bytes[..4]);
        self.block.put(&mut bytes[4..8]);
        self.slot.put(&mut bytes[8..]);
    }
}

/// The field at `offset`, or `None` if `bytes` end before it.
pub(crate) fn get<F: Field>(bytes: &[u8], offset: usize) -> Option<F> {
    bytes.get(offset..offset.checked_add(F::LEN)?).map(F::get)
}

/// Writes a field, if `bytes` reach that far.
pub(crate) fn put<F: Field>(bytes: &mut [u8], offset: usize, value: &F) {
    if let Some(place) = bytes.get_mut(offset..offset + F::LEN) {
        value.put(place);
    }
}

/// Where the reference to an empty text points.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmptyText {
    /// Nowhere: length 0, offset 0.
    Zero,
    /// To the place where the text would begin: length 0.
    Position,
}

/// Reads a text by its reference (u16 length in bytes, u16 offset) at `at`. `begin` becomes the smallest start of a text.
pub(crate) fn read_text(
    bytes: &[u8],
    at: usize,
    least: usize,
    begin: &mut usize,
    offset: u64,
    field: &'static str,
) -> Result<Text, Error> {
    let (len, start) = (get::<u16>(bytes, at).unwrap_or(0), get::<u16>(bytes, at + 2).unwrap_or(0));
    if len == 0 {
        return Ok(Text::default());
    }
    let (len, start) = (usize::from(len), usize::from(start));
    let end = start + len;
    if start < least || end > bytes.len() {
        let (least, most) = (least as u64, bytes.len() as u64);
        return Err(Error::Range {
            offset,
            field,
            least,
            most,
            found: if start < least as usize { start } else { end } as u64,
        });
    }
    if len % 2 != 0 {
        return Err(Error::Field { offset, field, expected: len as u64 + 1, found: len as u64 });
    }
    *begin = (*begin).min(start);
    Ok(Text::from_units(bytes[start..end].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect()))
}

/// Appends a text to `out` and writes its reference to `at`.
pub(crate) fn write_text(
    out: &mut Vec<u8>,
    at: usize,
    text: &Text,
    empty: EmptyText,
    field: &'static str,
) -> Result<(), Error> {
    let bytes = text.to_bytes();
    let (start, end) = (out.len() as u64, (out.len() + bytes.len()) as u64);
    let most = u64::from(u16::MAX);
    if end > most {
        return Err(Error::Range { offset: 0, field, least: 0, most, found: end });
    }
    let start = if bytes.is_empty() && empty == EmptyText::Zero { 0 } else { start as u16 };
    put(out, at, &(bytes.len() as u16));
    put(out, at + 2, &start);
    out.extend(bytes);
    Ok(())
}

/// A structure whose fields are all its bytes that are of interest.
macro_rules! fields {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* $field:ident: $type:ty = $offset:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $type, )*
        }

        impl $name {
            /// Reads the fields. Fields beyond the end are zero.
            pub(crate) fn get_fields(bytes: &[u8]) -> Self {
                Self { $( $field: $crate::layout::get(bytes, $offset).unwrap_or_default(), )* }
            }

            /// Writes the fields that `bytes` have room for.
            pub(crate) fn put_fields(&self, bytes: &mut [u8]) {
                $( $crate::layout::put(bytes, $offset, &self.$field); )*
            }
        }
    };
}

/// A structure with texts, and with bytes that have no known meaning and are kept.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident(least $least:literal) {
            $( $(#[$fmeta:meta])* $field:ident: $type:ty = $offset:literal, )*
        }
        texts($empty:ident) {
            $( $(#[$tmeta:meta])* $text:ident = $toffset:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $type, )*
            $( $(#[$tmeta])* pub $text: $crate::value::Text, )*
            /// All bytes before the texts, as they were read. Writing changes the fields in them and keeps the others, whose
            /// meaning is not known. Empty in a new structure; the length is then the shortest that holds the fields.
            pub raw: Vec<u8>,
        }

        impl $name {
            /// The fewest bytes that hold the fields which every version writes.
            pub const LEAST_LEN: usize = $least;

            /// Reads from all bytes of the structure. `offset` is for errors.
            pub(crate) fn read(bytes: &[u8], offset: u64) -> Result<Self, $crate::error::Error> {
                if bytes.len() < $least {
                    let (least, most) = ($least as u64, u64::from(u32::MAX));
                    let field = concat!("length of ", stringify!($name));
                    return Err($crate::error::Error::Range { offset, field, least, most, found: bytes.len() as u64 });
                }
                #[allow(unused_mut)]
                let mut begin = bytes.len();
                $( let $text = $crate::layout::read_text(
                    bytes, $toffset, $least, &mut begin, offset, concat!(stringify!($name), ".", stringify!($text)),
                )?; )*
                let fixed = &bytes[..begin];
                Ok(Self {
                    $( $field: $crate::layout::get(fixed, $offset).unwrap_or_default(), )*
                    $( $text, )*
                    raw: fixed.to_vec(),
                })
            }

            /// All bytes of the structure.
            pub(crate) fn write(&self) -> Result<Vec<u8>, $crate::error::Error> {
                let mut out = self.raw.clone();
                if out.len() < $least {
                    out.resize($least, 0);
                }
                $( $crate::layout::put(&mut out, $offset, &self.$field); )*
                $( $crate::layout::write_text(
                    &mut out, $toffset, &self.$text, $crate::layout::EmptyText::$empty,
                    concat!(stringify!($name), ".", stringify!($text)),
                )?; )*
                Ok(out)
            }
        }
    };
}

pub(crate) use {fields, record};
