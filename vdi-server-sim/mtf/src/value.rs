//! Values of the format: names, texts, dates, log sequence numbers, addresses of pages.

use core::fmt;

/// A name of four ASCII letters: of a block, a stream or a record.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub [u8; 4]);

impl Tag {
    /// Whether all four bytes are printable ASCII characters.
    pub fn is_printable(self) -> bool {
        self.0.iter().all(u8::is_ascii_graphic)
    }
}

/// The letters, or the bytes in hexadecimal if they are not printable.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_printable() {
            return self.0.iter().try_for_each(|&byte| write!(f, "{}", byte as char));
        }
        write!(f, "bytes {:02x} {:02x} {:02x} {:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A GUID, as its 16 bytes are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Whether all bytes are zero: no GUID.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }
}

/// As SQL Server prints it: the first three groups are little-endian numbers.
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.0;
        write!(
            f,
            "{:02X}{:02X}{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}{:02X}{:02X}{:02X}{:02X}",
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]
        )
    }
}

/// A text in UTF-16, exactly as stored: unpaired surrogates and trailing NULs are kept.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(Vec<u16>);

impl Text {
    /// A text of these UTF-16 units.
    pub fn from_units(units: Vec<u16>) -> Self {
        Text(units)
    }

    /// The UTF-16 units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Whether the text has no units.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as the format stores them (UTF-16, little-endian).
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(text.encode_utf16().collect())
    }
}

/// Without trailing NULs. Unpaired surrogates are shown as U+FFFD.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().rposition(|&unit| unit != 0).map_or(0, |last| last + 1);
        let chars = char::decode_utf16(self.0[..end].iter().copied());
        chars.into_iter().try_for_each(|c| write!(f, "{}", c.unwrap_or(char::REPLACEMENT_CHARACTER)))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A date and time in the local time of the server, in 40 bits: year 14, month 4, day 5, hour 5, minute 6, second 6, most
/// significant first. All bits zero: no date. (Microsoft Tape Format 1.00a, "MTF_DATE_TIME".)
///
/// Any 40 bits are kept as they are; [`DateTime::new`] makes valid dates only.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DateTime(pub [u8; 5]);

impl DateTime {
    /// A date and time. `None` if a number is outside its range (years 1 to 9999).
    pub fn new(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        let valid = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !valid || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(u64::from);
        let bits = u64::from(year) << 26 | month << 22 | day << 17 | hour << 12 | minute << 6 | second;
        let bytes = bits.to_be_bytes();
        Some(DateTime([bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]))
    }

    /// Whether there is a date.
    pub fn is_set(self) -> bool {
        self.0 != [0; 5]
    }

    fn field(self, shift: u32, bits: u32) -> u16 {
        let all = self.0.iter().fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
        (all >> shift & ((1 << bits) - 1)) as u16
    }

    /// The year.
    pub fn year(self) -> u16 {
        self.field(26, 14)
    }

    /// The month, from 1.
    pub fn month(self) -> u8 {
        self.field(22, 4) as u8
    }

    /// The day of the month, from 1.
    pub fn day(self) -> u8 {
        self.field(17, 5) as u8
    }

    /// The hour, 0 to 23.
    pub fn hour(self) -> u8 {
        self.field(12, 5) as u8
    }

    /// The minute.
    pub fn minute(self) -> u8 {
        self.field(6, 6) as u8
    }

    /// The second.
    pub fn second(self) -> u8 {
        self.field(0, 6) as u8
    }
}

/// `2024-05-31 23:59:59`, or `none`.
impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_set() {
            return f.write_str("none");
        }
        write!(f, "{:04}-{:02}-{:02} ", self.year(), self.month(), self.day())?;
        write!(f, "{:02}:{:02}:{:02}", self.hour(), self.minute(), self.second())
    }
}

impl fmt::Debug for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A log sequence number: a record's place in the log.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn {
    /// The sequence number of the virtual log file.
    pub vlf: u32,
    /// The log block's place in the virtual log file, in units of 512 bytes.
    pub block: u32,
    /// The record in the block, from 1.
    pub slot: u16,
}

impl Lsn {
    /// Whether all parts are zero: no log sequence number.
    pub fn is_zero(self) -> bool {
        self == Lsn::default()
    }

    /// The number that HEADERONLY and msdb show, as numeric(25, 0): vlf * 10^15 + block * 10^5 + slot.
    ///
    /// ```
    /// use vdi_mtf::value::Lsn;
    /// assert_eq!(Lsn { vlf: 45, block: 168, slot: 1 }.to_number(), 45_000_000_016_800_001);
    /// ```
    pub fn to_number(self) -> u128 {
        u128::from(self.vlf) * 1_000_000_000_000_000 + u128::from(self.block) * 100_000 + u128::from(self.slot)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_number())
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{:08x}:{:04x}", self.vlf, self.block, self.slot)
    }
}

/// The number of a database file: 1 for the primary data file, 2 for the first log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u16);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a page in its file. The page begins at byte `8192 * number` of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(pub u32);

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A page of a database: its file and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageAddress {
    /// The file.
    pub file: FileId,
    /// The page in the file.
    pub page: PageId,
}

impl PageAddress {
    /// The byte of the file at which the page begins.
    pub fn file_offset(self) -> u64 {
        u64::from(self.page.0) * crate::page::PAGE_LEN as u64
    }
}

/// `file:page`, as SQL Server's messages have it.
impl fmt::Display for PageAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_keep_their_parts() {
        let date = DateTime::new(2022, 12, 31, 23, 59, 58).unwrap();
        let parts = (date.year(), date.month(), date.day(), date.hour(), date.minute(), date.second());
        assert_eq!(parts, (2022, 12, 31, 23, 59, 58));
        assert_eq!(date.to_string(), "2022-12-31 23:59:58");
        assert!(date > DateTime::new(2022, 12, 31, 23, 59, 57).unwrap());
        assert_eq!(DateTime::new(2022, 13, 1, 0, 0, 0), None);
        assert_eq!(DateTime::default().to_string(), "none");
    }

    #[test]
    fn guids_print_as_sql_server_prints_them() {
        let guid =
            Guid([0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF]);
        assert_eq!(guid.to_string(), "00112233-4455-6677-8899-AABBCCDDEEFF");
    }

    #[test]
    fn texts_keep_every_unit() {
        let text = Text::from_units(vec![0x41, 0xD800, 0, 0]);
        assert_eq!(text.to_string(), "A\u{FFFD}");
        assert_eq!(text.to_bytes(), [0x41, 0, 0, 0xD8, 0, 0, 0, 0]);
        assert_eq!(Text::from("é").units(), [0xE9]);
    }
}
