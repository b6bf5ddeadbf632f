//! The fixed pages of data files: what they say, as readers of the format expect it.
//! (Observed in backups of SQL Server 2005 to 2022.)

use vdi_mtf::page::{EXTENT_PAGES, HEADER_LEN, PAGE_LEN, PFS_INTERVAL, PageHeader, flags, page_type, protect};
use vdi_mtf::sqlserver::config::{Database, FileRecord, file_flags};
use vdi_mtf::value::{Guid, Lsn, PageAddress};

use super::layout::{self, GAM_EXTENTS, PRIMARY};

/// A page.
pub(super) type Page = [u8; PAGE_LEN];

/// The object that fixed pages belong to.
const OBJECT: u32 = 99;
/// Where the bits of a GAM, SGAM, DCM or BCM page begin.
const BITMAP_AT: usize = 194;
/// Where the bytes of a PFS page begin.
const PFS_AT: usize = 100;
/// PFS byte of a page that is in use and full.
pub(super) const PFS_FULL: u8 = 0x44;
/// PFS byte of a page that is in use and empty.
pub(super) const PFS_EMPTY: u8 = 0x40;

/// Places in the boot page.
mod boot {
    pub(super) const VERSION: usize = 100;
    pub(super) const STATUS: usize = 132;
    pub(super) const NAME: usize = 148;
    pub(super) const NAME_LEN: usize = 256;
    pub(super) const DATABASE_ID: usize = 408;
    pub(super) const COMPATIBILITY: usize = 410;
    pub(super) const DIFFERENTIAL_BASE_LSN: usize = 432;
    pub(super) const CHECKPOINT_LSN: usize = 444;
    pub(super) const FAMILY: usize = 504;
    pub(super) const RECOVERY_FORK: usize = 552;
    pub(super) const DIFFERENTIAL_BASE: usize = 596;
    /// Bytes of the record, from 96 on.
    pub(super) const RECORD_LEN: u16 = 1504;
}

/// Lengths of the variable columns of the file header's record.
const HEADER_COLUMNS: [usize; 46] = [
    16, 0, 2, 2, 4, 4, 4, 4, 10, 10, 10, 0, 4, 4, 4, 4, 10, 28, 10, 10, 10, 16, 10, 16, 4, 10, 0, 8, 16, 0, 0, 0, 0, 0,
    0, 16, 0, 0, 10, 10, 28, 10, 16, 28, 8, 600,
];

/// A record header of 4 bytes: status bits, and the length of the record's fixed part.
fn record(page: &mut Page, at: usize, status: u8, len: u16) {
    page[at..at + 4].copy_from_slice(&[status, 0, len as u8, (len >> 8) as u8]);
}

/// Writes the header, the slots and the checksum of a page whose records are there.
fn finish(page: &mut Page, header: PageHeader, slots: &[u16], free_offset: u16) {
    let free_len = PAGE_LEN as u16 - 2 * slots.len() as u16 - free_offset;
    let header =
        PageHeader { version: 1, slots: slots.len() as u16, free_len, free_offset, object_id: OBJECT, ..header };
    header.encode_into(page);
    for (index, slot) in slots.iter().enumerate() {
        let at = PAGE_LEN - 2 * (index + 1);
        page[at..at + 2].copy_from_slice(&slot.to_le_bytes());
    }
    protect(page);
}

fn header(address: PageAddress, page_type: u8, lsn: Lsn) -> PageHeader {
    PageHeader { page_type, page: address.page, file: address.file, lsn, ..PageHeader::default() }
}

/// A GAM, SGAM, DCM or BCM page. All bits are `bit` but those of the extents `other`, which are in its interval.
pub(super) fn bitmap_page(
    address: PageAddress,
    page_type: u8,
    lsn: Lsn,
    bit: bool,
    other: impl Iterator<Item = u32>,
) -> Page {
    let mut page = [0; PAGE_LEN];
    // The fixed part of the rows has 90 bytes.
    page[14] = 90;
    record(&mut page, HEADER_LEN, 0, 94);
    record(&mut page, BITMAP_AT - 4, 0, 4 + (GAM_EXTENTS / 8) as u16);
    page[BITMAP_AT..BITMAP_AT + (GAM_EXTENTS / 8) as usize].fill(if bit { 0xFF } else { 0 });
    for extent in other {
        set_bit(&mut page, extent % GAM_EXTENTS, !bit);
    }
    finish(&mut page, header(address, page_type, lsn), &[HEADER_LEN as u16, BITMAP_AT as u16 - 4], 8182);
    page
}

/// The bits of a GAM, SGAM, DCM or BCM page: lowest bit first.
pub(super) fn bits(page: &Page) -> &[u8] {
    &page[BITMAP_AT..BITMAP_AT + (GAM_EXTENTS / 8) as usize]
}

/// Sets a bit of such a page. The checksum has to be made anew.
pub(super) fn set_bit(page: &mut Page, index: u32, value: bool) {
    let (byte, mask) = (&mut page[BITMAP_AT + (index / 8) as usize], 1 << (index % 8));
    *byte = if value { *byte | mask } else { *byte & !mask };
}

/// A GAM page of a new file of `pages` pages: only the extents with fixed pages are allocated.
pub(super) fn gam_page(address: PageAddress, pages: u32, lsn: Lsn) -> Page {
    let first = address.page.0 / layout::GAM_INTERVAL * GAM_EXTENTS;
    let extents = first..(pages / EXTENT_PAGES).min(first + GAM_EXTENTS);
    let fixed = extents.filter(|&extent| !layout::is_content_extent(address.file, extent));
    bitmap_page(address, page_type::GAM, lsn, true, fixed)
}

/// A PFS page of a new file of `pages` pages.
pub(super) fn pfs_page(address: PageAddress, pages: u32, lsn: Lsn) -> Page {
    let mut page = [0; PAGE_LEN];
    record(&mut page, HEADER_LEN, 0, 4 + PFS_INTERVAL as u16);
    let first = address.page.0 / PFS_INTERVAL * PFS_INTERVAL;
    for fixed in
        (first..pages.min(first + PFS_INTERVAL)).filter(|&page| layout::fixed_page(address.file, page).is_some())
    {
        set_pfs(&mut page, fixed, PFS_FULL);
    }
    if address.file == PRIMARY && first == 0 {
        set_pfs(&mut page, EXTENT_PAGES, PFS_EMPTY);
    }
    finish(&mut page, header(address, page_type::PFS, lsn), &[HEADER_LEN as u16], 8188);
    page
}

/// The bytes of a PFS page, one for each page of its interval.
pub(super) fn pfs(page: &Page) -> &[u8] {
    &page[PFS_AT..PFS_AT + PFS_INTERVAL as usize]
}

/// Sets the byte of a page in its PFS page. The checksum has to be made anew.
pub(super) fn set_pfs(pfs: &mut Page, page: u32, byte: u8) {
    pfs[PFS_AT + (page % PFS_INTERVAL) as usize] = byte;
}

/// The header page of a file.
pub(super) fn file_header_page(address: PageAddress, file: &FileRecord, binding: Guid, lsn: Lsn) -> Page {
    let pages = |bytes: u64| u32::try_from(bytes / PAGE_LEN as u64).unwrap_or(u32::MAX).to_le_bytes();
    let mut page = [0; PAGE_LEN];
    let (count, fixed_end) = (HEADER_COLUMNS.len(), 8);
    record(&mut page, HEADER_LEN, 0x30, fixed_end);
    // The numbers of columns, a bitmap of those that are NULL, and where each variable column ends.
    let mut at = HEADER_LEN + usize::from(fixed_end);
    page[at] = count as u8 + 3;
    at += 2 + (count + 3).div_ceil(8);
    page[at] = count as u8;
    at += 2;
    let mut end = at + 2 * count;
    for (index, len) in HEADER_COLUMNS.into_iter().enumerate() {
        let value: &[u8] = match index {
            0 => &binding.0,
            2 => &file.file_id.0.to_le_bytes(),
            4 => &pages(file.size),
            5 => &pages(file.max_size),
            6 if file.flags & file_flags::PERCENT != 0 => &u32::try_from(file.growth).unwrap_or(u32::MAX).to_le_bytes(),
            6 => &pages(file.growth),
            12 => &pages(file.min_size),
            21 => &file.differential_base.0,
            23 => &file.unique_id.0,
            _ => &[],
        };
        page[end..end + value.len()].copy_from_slice(value);
        if index == 20 {
            put_lsn(&mut page, end, file.differential_base_lsn);
        }
        end += len;
        let offset = (end - HEADER_LEN) as u16;
        page[at + 2 * index..at + 2 * index + 2].copy_from_slice(&offset.to_le_bytes());
    }
    finish(&mut page, header(address, page_type::FILE_HEADER, lsn), &[HEADER_LEN as u16], end as u16);
    page
}

/// The boot page.
pub(super) fn boot_page(address: PageAddress, database: &Database, lsn: Lsn) -> Page {
    let mut page = [0; PAGE_LEN];
    record(&mut page, HEADER_LEN, 0, boot::RECORD_LEN);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let version = database.database_version.to_le_bytes();
    put(boot::VERSION, &version);
    put(boot::VERSION + 2, &version);
    put(boot::STATUS, &database.status.to_le_bytes());
    // A name is filled up with blanks.
    put(boot::NAME, &[0x20, 0].repeat(boot::NAME_LEN / 2));
    let name = database.name.to_bytes();
    put(boot::NAME, &name[..name.len().min(boot::NAME_LEN)]);
    put(boot::DATABASE_ID, &database.database_id.to_le_bytes());
    put(boot::COMPATIBILITY, &[database.compatibility_level]);
    put(boot::FAMILY, &database.family.0);
    put(boot::RECOVERY_FORK, &database.recovery_fork.0);
    put(boot::DIFFERENTIAL_BASE, &database.full_backup_set.0);
    put_lsn(&mut page, boot::DIFFERENTIAL_BASE_LSN, database.full_backup_lsn);
    put_lsn(&mut page, boot::CHECKPOINT_LSN, lsn);
    finish(
        &mut page,
        header(address, page_type::BOOT, lsn),
        &[HEADER_LEN as u16],
        HEADER_LEN as u16 + boot::RECORD_LEN,
    );
    page
}

/// The log sequence number of the last checkpoint, in a boot page.
pub(super) fn checkpoint_lsn(page: &Page) -> Lsn {
    get_lsn(page, boot::CHECKPOINT_LSN)
}

/// Sets the log sequence number of the last checkpoint, and that of the page, in a boot page, and makes its checksum. All bytes that
/// change are in the first sector of the page, so the system writes them all or none.
pub(super) fn set_checkpoint_lsn(page: &mut Page, checkpoint: Lsn, lsn: Lsn) {
    put_lsn(page, boot::CHECKPOINT_LSN, checkpoint);
    if let Some(header) = PageHeader::decode(page) {
        PageHeader { lsn, ..header }.encode_into(page);
    }
    protect(page);
}

/// Blanks what a checkpoint changes in a boot page.
pub(super) fn without_checkpoint(page: &mut Page) {
    put_lsn(page, boot::CHECKPOINT_LSN, Lsn::default());
    if let Some(header) = PageHeader::decode(page) {
        PageHeader { lsn: Lsn::default(), protection: 0, ..header }.encode_into(page);
    }
}

/// An empty data page: the first page of an extent that no content is in.
pub(super) fn empty_page(address: PageAddress, lsn: Lsn) -> Page {
    let mut page = [0; PAGE_LEN];
    finish(&mut page, header(address, page_type::DATA, lsn), &[], HEADER_LEN as u16);
    page
}

/// The header of a page whose body is content: it has no rows and no free bytes.
pub(super) fn content_header(address: PageAddress, object_id: u32, lsn: Lsn) -> PageHeader {
    PageHeader {
        version: 1,
        object_id,
        flags: flags::CHECKSUM,
        free_offset: PAGE_LEN as u16,
        ..header(address, page_type::DATA, lsn)
    }
}

fn put_lsn(page: &mut Page, at: usize, lsn: Lsn) {
    page[at..at + 4].copy_from_slice(&lsn.vlf.to_le_bytes());
    page[at + 4..at + 8].copy_from_slice(&lsn.block.to_le_bytes());
    page[at + 8..at + 10].copy_from_slice(&lsn.slot.to_le_bytes());
}

fn get_lsn(page: &Page, at: usize) -> Lsn {
    let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    Lsn { vlf: word(at), block: word(at + 4), slot: u16::from_le_bytes([page[at + 8], page[at + 9]]) }
}
