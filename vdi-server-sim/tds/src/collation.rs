//! Collations: how a text of one-byte characters is encoded, and how texts compare (\[MS-TDS\] 2.2.5.1.2).

use crate::error::Error;

/// A collation, as the protocol has it.
///
/// ```
/// use vdi_tds::collation::Collation;
///
/// let collation = Collation::SQL_LATIN1_GENERAL_CP1_CI_AS;
/// assert_eq!((collation.lcid(), collation.sort_id(), collation.is_utf8()), (0x409, 52, false));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Collation(pub [u8; 5]);

impl Collation {
    /// The collation of a server that was installed with United States English.
    pub const SQL_LATIN1_GENERAL_CP1_CI_AS: Self = Self([0x09, 0x04, 0xD0, 0x00, 0x34]);
    /// `Latin1_General_100_CI_AS_SC_UTF8`: varchar is UTF-8.
    pub const LATIN1_GENERAL_100_UTF8: Self = Self([0x09, 0x04, 0xD0, 0x24, 0x00]);

    /// The locale (LCID), 20 bits.
    #[must_use]
    pub const fn lcid(self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], 0]) & 0xF_FFFF
    }

    /// The sort order of collations whose name begins with `SQL_`, else 0.
    #[must_use]
    pub const fn sort_id(self) -> u8 {
        self.0[4]
    }

    /// Whether texts of one-byte characters are UTF-8.
    #[must_use]
    pub const fn is_utf8(self) -> bool {
        self.0[3] & 0x04 != 0
    }

    fn charset(self) -> Charset {
        // The languages of Western Europe, by the ten bits of an LCID that are the language.
        const WINDOWS_1252: [u32; 14] =
            [0x03, 0x06, 0x07, 0x09, 0x0A, 0x0B, 0x0C, 0x0F, 0x10, 0x13, 0x14, 0x16, 0x1D, 0x38];
        if self.is_utf8() {
            return Charset::Utf8;
        }
        // Sort orders 50 to 54, and those of Scandinavia, are of code page 1252; 30 to 61 else are of 437 and 850.
        match self.sort_id() {
            0 | 50..=54 | 71 | 72 | 183..=186 if WINDOWS_1252.contains(&(self.lcid() & 0x3FF)) => Charset::Windows1252,
            _ => Charset::Ascii,
        }
    }

    /// A text of one-byte characters.
    pub(crate) fn decode(self, bytes: &[u8], offset: u64) -> Result<String, Error> {
        match self.charset() {
            Charset::Utf8 => {
                let text = std::str::from_utf8(bytes);
                text.map(str::to_owned).map_err(|_| Error::Unicode { offset, field: "text" })
            }
            Charset::Windows1252 => Ok(bytes.iter().map(|&byte| from_1252(byte)).collect()),
            Charset::Ascii if bytes.is_ascii() => Ok(bytes.iter().map(|&byte| char::from(byte)).collect()),
            Charset::Ascii => Err(Error::CodePage { offset, lcid: self.lcid() }),
        }
    }

    /// The bytes of a text. As in SQL Server, a character that the code page lacks becomes a question mark.
    #[must_use]
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self.charset() {
            Charset::Utf8 => text.as_bytes().to_vec(),
            Charset::Windows1252 => text.chars().map(|character| to_1252(character).unwrap_or(b'?')).collect(),
            Charset::Ascii => {
                text.chars().map(|character| if character.is_ascii() { character as u8 } else { b'?' }).collect()
            }
        }
    }
}

enum Charset {
    /// All code pages have ASCII in common.
    Ascii,
    Windows1252,
    Utf8,
}

/// The characters 0x80 to 0x9F of code page 1252; all others are those of Unicode. The five that are not assigned stay control characters.
const UPPER: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

fn from_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => UPPER[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

fn to_1252(character: char) -> Option<u8> {
    match u8::try_from(u32::from(character)) {
        Ok(byte) if !(0x80..=0x9F).contains(&byte) => Some(byte),
        _ => UPPER.iter().position(|&upper| upper == character).map(|at| 0x80 + at as u8),
    }
}
