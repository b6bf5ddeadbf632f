//! Pages of data files: header, protection, and a verifier.
//! (Observed in backups of SQL Server 2005 to 2022; the header's fields are described in many public texts on the storage engine.)

use crate::checksum::{SECTOR_LEN, SectorSum};
use crate::error::Error;
use crate::layout::{fields, get, put};
use crate::value::{FileId, Lsn, PageAddress, PageId};

/// The length of a page.
pub const PAGE_LEN: usize = 8192;
/// Pages of an extent.
pub const EXTENT_PAGES: u32 = 8;
/// Pages that one PFS page describes.
pub const PFS_INTERVAL: u32 = 8088;
/// The length of a page header. [`PageHeader`] reads its first 64 bytes; the rest is zero.
pub const HEADER_LEN: usize = 96;
/// The bytes of the header that are read.
const READ_LEN: usize = 64;
/// Where the checksum or the torn-page bits are.
const PROTECTION_AT: usize = 60;

/// Bits of [`PageHeader::flags`].
pub mod flags {
    /// The page has torn-page bits.
    pub const TORN_BITS: u16 = 0x100;
    /// The page has a checksum.
    pub const CHECKSUM: u16 = 0x200;
}

/// Values of [`PageHeader::page_type`].
pub mod page_type {
    /// Rows of a table.
    pub const DATA: u8 = 1;
    /// Rows of an index.
    pub const INDEX: u8 = 2;
    /// Allocated extents of a file, 511,232 pages.
    pub const GAM: u8 = 8;
    /// Extents with free mixed pages.
    pub const SGAM: u8 = 9;
    /// Extents of an object.
    pub const IAM: u8 = 10;
    /// Allocated pages and their free space, 8,088 pages.
    pub const PFS: u8 = 11;
    /// The database: page 9 of file 1.
    pub const BOOT: u8 = 13;
    /// The file: page 0 of each file.
    pub const FILE_HEADER: u8 = 15;
    /// Extents changed since the last full backup.
    pub const DIFFERENTIAL_MAP: u8 = 16;
    /// Extents changed by bulk operations since the last log backup.
    pub const BULK_MAP: u8 = 17;
    /// A page that fills a backup up. It belongs to no file.
    pub const FILLER: u8 = 101;
}

fields! {
    /// The header of a page.
    pub struct PageHeader {
        /// 1.
        version: u8 = 0,
        /// A value of [`page_type`].
        page_type: u8 = 1,
        /// Flags of the page's type.
        type_flags: u8 = 2,
        /// The level in an index, 0 for leaves.
        level: u8 = 3,
        /// Bits of [`flags`].
        flags: u16 = 4,
        /// The index.
        index_id: u16 = 6,
        /// The previous page at this level.
        previous_page: PageId = 8,
        /// The file of the previous page.
        previous_file: FileId = 12,
        /// The next page at this level.
        next_page: PageId = 16,
        /// The file of the next page.
        next_file: FileId = 20,
        /// Rows of the page.
        slots: u16 = 22,
        /// The object.
        object_id: u32 = 24,
        /// Free bytes.
        free_len: u16 = 28,
        /// Where the free bytes after the last row begin.
        free_offset: u16 = 30,
        /// The page's own number.
        page: PageId = 32,
        /// The page's own file.
        file: FileId = 36,
        /// The last log record that changed the page.
        lsn: Lsn = 40,
        /// The checksum, or the torn-page bits.
        protection: u32 = 60,
    }
}

impl PageHeader {
    /// Reads the header of a page. `None` if there are fewer than 64 bytes.
    pub fn decode(page: &[u8]) -> Option<Self> {
        Some(Self::get_fields(page.get(..READ_LEN)?))
    }

    /// Writes the header to the start of a page. The bytes that the header has no field for stay.
    pub fn encode_into(&self, page: &mut [u8]) {
        self.put_fields(page);
    }

    /// The page that the header names.
    pub fn address(&self) -> PageAddress {
        PageAddress { file: self.file, page: self.page }
    }

    /// Whether the page fills a backup up and belongs to no file.
    pub fn is_filler(&self) -> bool {
        self.page_type == page_type::FILLER && self.address() == PageAddress::default()
    }
}

/// The checksum of a page: [`SectorSum`] with the header's field at 60 taken as zero.
pub fn checksum(page: &[u8; PAGE_LEN]) -> u32 {
    SectorSum::of(page) ^ field_in_sum(get(page, PROTECTION_AT).unwrap_or(0))
}

/// Gives a page its checksum: sets the flag and the field. A page with torn-page bits has to be [mended](mend_torn_bits) first.
///
/// ```
/// use vdi_mtf::page::{PAGE_LEN, PageHeader, Protection, protect, verify};
/// use vdi_mtf::value::{FileId, PageId};
///
/// let mut page = [0; PAGE_LEN];
/// PageHeader { version: 1, page_type: 1, page: PageId(8), file: FileId(1), ..PageHeader::default() }.encode_into(&mut page);
/// protect(&mut page);
/// assert_eq!(verify(&page, 0), Ok(Protection::Checksum));
/// page[5000] ^= 1;
/// assert!(verify(&page, 0).is_err());
/// ```
pub fn protect(page: &mut [u8; PAGE_LEN]) {
    let flags = get::<u16>(page, 4).unwrap_or(0) & !flags::TORN_BITS | flags::CHECKSUM;
    put(page, 4, &flags);
    let sum = checksum(page);
    put(page, PROTECTION_AT, &sum);
}

/// How a page is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Not at all: PAGE_VERIFY NONE, and some of the fixed pages.
    None,
    /// By a mark in each sector: PAGE_VERIFY TORN_PAGE_DETECTION.
    TornBits,
    /// By a checksum: PAGE_VERIFY CHECKSUM.
    Checksum,
}

/// Verifies a page's checksum or torn-page bits. `offset` is for errors.
///
/// # Errors
/// [`Error::PageChecksum`] or [`Error::TornPage`]; [`Error::Field`] if only the flag of the protection is missing.
pub fn verify(page: &[u8; PAGE_LEN], offset: u64) -> Result<Protection, Error> {
    verify_summed(page, SectorSum::of(page), offset)
}

/// As [`verify`], for a page whose [`SectorSum`] is known: `sum` is that of all its bytes, the header's field at 60 included. So a page
/// that is also part of a backup checksum is summed once; see [`SectorSum::append`].
///
/// # Errors
/// Those of [`verify`].
pub fn verify_summed(page: &[u8; PAGE_LEN], sum: u32, offset: u64) -> Result<Protection, Error> {
    let header = PageHeader::get_fields(page);
    let mut marks = [0; 15];
    for (sector, mark) in marks.iter_mut().enumerate() {
        *mark = page[(sector + 2) * SECTOR_LEN - 1];
    }
    validate(&header, || sum ^ field_in_sum(header.protection), &marks, offset)
}

/// What a page's field at 60 adds to the sum of the page: it is in the first of 16 sectors.
fn field_in_sum(protection: u32) -> u32 {
    protection.rotate_left((PAGE_LEN / SECTOR_LEN - 1) as u32)
}

/// `marks`: the last bytes of sectors 1 to 15.
fn validate(header: &PageHeader, sum: impl Fn() -> u32, marks: &[u8; 15], offset: u64) -> Result<Protection, Error> {
    let page = header.address();
    if header.flags & flags::CHECKSUM != 0 {
        let (expected, found) = (sum(), header.protection);
        return if expected == found {
            Ok(Protection::Checksum)
        } else {
            Err(Error::PageChecksum { offset, page, expected, found })
        };
    }
    if header.flags & flags::TORN_BITS != 0 {
        let expected = (header.protection & 3) as u8;
        return match marks.iter().position(|mark| mark & 3 != expected) {
            None => Ok(Protection::TornBits),
            Some(at) => Err(Error::TornPage { offset, page, sector: at as u8 + 1, expected, found: marks[at] & 3 }),
        };
    }
    // A page without protection may have a stale field. But if the field is right, the flag is what is damaged.
    let lost = if header.protection == 0 {
        None
    } else if sum() ^ FLAG_IN_SUM == header.protection {
        Some(flags::CHECKSUM)
    } else if marks.iter().all(|mark| mark & 3 == (header.protection & 3) as u8) {
        Some(flags::TORN_BITS)
    } else {
        None
    };
    match lost {
        None => Ok(Protection::None),
        Some(flag) => {
            let (field, found) = ("flags of the page", u64::from(header.flags));
            Err(Error::Field { offset, field, expected: u64::from(header.flags | flag), found })
        }
    }
}

/// What the checksum flag adds to the checksum: it is in the first of 16 sectors.
const FLAG_IN_SUM: u32 = (flags::CHECKSUM as u32).rotate_left(15);

/// Puts the true bits back that the torn-page marks of a page replaced. Returns whether the page had any.
///
/// Bits 2s and 2s+1 of the header's field are the true low bits of the last byte of sector s.
pub fn mend_torn_bits(page: &mut [u8; PAGE_LEN]) -> bool {
    let header = PageHeader::get_fields(page);
    if header.flags & flags::TORN_BITS == 0 {
        return false;
    }
    for sector in 1..PAGE_LEN / SECTOR_LEN {
        let last = &mut page[(sector + 1) * SECTOR_LEN - 1];
        *last = *last & !3 | (header.protection >> (2 * sector)) as u8 & 3;
    }
    true
}

/// What a page of a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Its header names its place, and its checksum or torn-page bits are right, if it has any.
    Sound(Protection),
    /// A free page of an allocated extent: zeros, an old image, or other bytes of the disk.
    Free,
    /// It fills the backup up.
    Filler,
    /// It is damaged.
    Damaged(Error),
}

/// Counts of [`PageState`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// All pages but fillers.
    pub pages: u64,
    /// Sound pages with a checksum.
    pub checksums: u64,
    /// Sound pages with torn-page bits.
    pub torn_bits: u64,
    /// Sound pages without protection.
    pub unprotected: u64,
    /// Free pages.
    pub free: u64,
    /// Damaged pages.
    pub damaged: u64,
    /// Filler pages.
    pub fillers: u64,
}

impl PageCounts {
    /// Counts a page.
    pub fn add(&mut self, state: &PageState) {
        let count = match state {
            PageState::Sound(Protection::Checksum) => &mut self.checksums,
            PageState::Sound(Protection::TornBits) => &mut self.torn_bits,
            PageState::Sound(Protection::None) => &mut self.unprotected,
            PageState::Free => &mut self.free,
            PageState::Damaged(_) => &mut self.damaged,
            PageState::Filler => {
                self.fillers += 1;
                return;
            }
        };
        *count += 1;
        self.pages += 1;
    }
}

/// Which pages of an interval are allocated, by the last PFS page.
#[derive(Clone, Debug)]
struct Allocation {
    file: FileId,
    first: u32,
    /// The bytes of the PFS page, one a page.
    bytes: Vec<u8>,
}

impl Allocation {
    fn is_allocated(&self, address: PageAddress) -> Option<bool> {
        let index = address.page.0.checked_sub(self.first)?;
        let byte = self.bytes.get(index as usize).filter(|_| self.file == address.file)?;
        Some(byte & 0x40 != 0)
    }
}

/// Verifies whole extents of pages, in pieces of any size.
///
/// The first page of an extent gives the extent's address. Each page is verified at its end. A page whose header names another place
/// is damaged if the PFS page before it says that it is allocated; else it is free. The verifier keeps the header of a page and one PFS
/// page.
#[derive(Clone, Debug)]
pub struct PageVerifier {
    /// Where the page begins on the medium.
    offset: u64,
    filled: usize,
    header: [u8; READ_LEN],
    marks: [u8; 15],
    sum: SectorSum,
    /// The page of the extent, 0 to 7, and the address of its first page. `None` in an extent without an address.
    index: u32,
    extent: Option<PageAddress>,
    filler: bool,
    allocation: Option<Allocation>,
    pfs: Vec<u8>,
}

impl PageVerifier {
    /// A verifier of extents that begin at `offset` on the medium.
    pub fn new(offset: u64) -> Self {
        PageVerifier {
            offset,
            filled: 0,
            header: [0; READ_LEN],
            marks: [0; 15],
            sum: SectorSum::new(),
            index: 0,
            extent: None,
            filler: false,
            allocation: None,
            pfs: Vec::new(),
        }
    }

    /// Adds the next bytes. Each page that is complete is given to `report`, with its header.
    pub fn update(&mut self, mut bytes: &[u8], mut report: impl FnMut(&PageHeader, PageState)) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(PAGE_LEN - self.filled));
            self.piece(piece);
            if self.filled == PAGE_LEN {
                self.end(&mut report);
            }
            bytes = rest;
        }
    }

    fn piece(&mut self, piece: &[u8]) {
        let (start, end) = (self.filled, self.filled + piece.len());
        if start < READ_LEN {
            let len = (READ_LEN - start).min(piece.len());
            self.header[start..start + len].copy_from_slice(&piece[..len]);
        }
        for sector in 1..PAGE_LEN / SECTOR_LEN {
            let last = (sector + 1) * SECTOR_LEN - 1;
            if (start..end).contains(&last) {
                self.marks[sector - 1] = piece[last - start];
            }
        }
        // Bytes 100 to 8187 of a PFS page. Its type is known once the header is complete.
        if end >= READ_LEN && self.header[1] == page_type::PFS {
            let range = start.max(HEADER_LEN + 4)..end.min(HEADER_LEN + 4 + PFS_INTERVAL as usize);
            if !range.is_empty() {
                self.pfs.extend_from_slice(&piece[range.start - start..range.end - start]);
            }
        }
        self.sum.update(piece);
        self.filled = end;
    }

    fn end(&mut self, report: &mut impl FnMut(&PageHeader, PageState)) {
        let header = PageHeader::get_fields(&self.header);
        let state = self.state(&header);
        if matches!(state, PageState::Sound(_)) && header.page_type == page_type::PFS && !self.filler {
            let first = header.page.0 - header.page.0 % PFS_INTERVAL;
            let bytes = core::mem::take(&mut self.pfs);
            self.allocation = Some(Allocation { file: header.file, first, bytes });
        }
        report(&header, state);
        self.pfs.clear();
        self.sum = SectorSum::new();
        self.filled = 0;
        self.offset += PAGE_LEN as u64;
        self.index = (self.index + 1) % EXTENT_PAGES;
    }

    fn state(&mut self, header: &PageHeader) -> PageState {
        let found = header.address();
        let sum = || self.sum.value() ^ field_in_sum(header.protection);
        let validated = validate(header, sum, &self.marks, self.offset);
        if self.index == 0 {
            self.filler = header.is_filler();
            let valid = found.file.0 != 0 && found.page.0.is_multiple_of(EXTENT_PAGES);
            self.extent = valid.then_some(found);
            if !self.filler && !valid {
                return PageState::Damaged(Error::ExtentAddress { offset: self.offset, found });
            }
        }
        if self.filler {
            return PageState::Filler;
        }
        let Some(first) = self.extent else { return PageState::Free };
        let expected = PageAddress { file: first.file, page: PageId(first.page.0.saturating_add(self.index)) };
        let allocated = self.allocation.as_ref().and_then(|allocation| allocation.is_allocated(expected));
        match validated {
            Ok(protection) if found == expected => PageState::Sound(protection),
            Err(error) if found == expected && allocated != Some(false) => PageState::Damaged(error),
            _ if allocated == Some(true) => {
                PageState::Damaged(Error::MisplacedPage { offset: self.offset, expected, found })
            }
            _ => PageState::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> [u8; PAGE_LEN] {
        let mut page = [0; PAGE_LEN];
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0];
        }
        PageHeader { version: 1, page_type: 1, page: PageId(9), file: FileId(1), ..PageHeader::default() }
            .encode_into(&mut page);
        page
    }

    #[test]
    fn a_flip_of_any_bit_is_found_by_the_checksum() {
        let mut page = page();
        protect(&mut page);
        assert_eq!(verify(&page, 0), Ok(Protection::Checksum));
        for bit in (0..HEADER_LEN * 8).chain((HEADER_LEN * 8..PAGE_LEN * 8).step_by(61)) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&page, 0).is_err(), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn torn_bits_are_verified_and_mended() {
        let original = page();
        let mut torn = original;
        let mut field = 1;
        for sector in 1..16 {
            let last = &mut torn[(sector + 1) * SECTOR_LEN - 1];
            field |= u32::from(*last & 3) << (2 * sector);
            *last = *last & !3 | 1;
        }
        put(&mut torn, 4, &flags::TORN_BITS);
        put(&mut torn, PROTECTION_AT, &field);
        assert_eq!(verify(&torn, 0), Ok(Protection::TornBits));
        let mut unflagged = torn;
        put(&mut unflagged, 4, &0_u16);
        assert!(verify(&unflagged, 0).is_err());

        let mut old = torn;
        old[8 * SECTOR_LEN - 1] ^= 2;
        let page = PageAddress { file: FileId(1), page: PageId(9) };
        assert_eq!(verify(&old, 7), Err(Error::TornPage { offset: 7, page, sector: 7, expected: 1, found: 3 }));

        assert!(mend_torn_bits(&mut torn));
        assert_eq!(torn[HEADER_LEN..], original[HEADER_LEN..]);
    }
}
