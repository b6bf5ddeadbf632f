//! Data files: pages, allocation.
//!
//! An extent is allocated when its bit in the GAM page is clear. A backup holds exactly the allocated extents. The first page of each
//! has a header that names its place, also in a new file.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vdi_mtf::checksum::SECTOR_LEN;
use vdi_mtf::page::{EXTENT_PAGES, PAGE_LEN, PageHeader, mend_torn_bits, page_type, protect, verify};
use vdi_mtf::sqlserver::config::{Config, FileRecord, FileType};
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::value::{FileId, Lsn, PageAddress, PageId};

use super::StorageError;
use super::fixed_page::{self, PFS_FULL, Page, bits, set_bit, set_pfs};
use super::layout::{self, BOOT_PAGE, GAM_EXTENTS, MAX_PAGES, PRIMARY};
use super::log_file;
use crate::catalog::{DatabaseRow, FileRow};

/// The most ranges of allocated extents that are kept: 32 MiB of them. A hostile backup could ask for sixty times as many.
const MAX_RANGES: usize = 1 << 22;

/// Extents that are written at a time: 1 MiB.
const BATCH: u32 = 16;

/// Formats the files of a new database: headers, fixed pages, an empty log. `files` are those of the row, in its order, empty. Only the
/// fixed pages are written, so the files take little space on the disk.
///
/// # Errors
/// [`StorageError::InvalidSize`] for a size that a file cannot have; [`StorageError::Io`].
pub(super) fn format(row: &DatabaseRow, files: &[File]) -> Result<(), StorageError> {
    for (file, handle) in row.files.iter().zip(files) {
        match file.file_type {
            FileType::Log => log_file::format(handle, file, row.configuration.database.software_major)?,
            _ => format_data(&row.configuration, file, handle)?,
        }
    }
    Ok(())
}

fn format_data(configuration: &Config, row: &FileRow, handle: &File) -> Result<(), StorageError> {
    let least = layout::pages_for(row.file_id, 0) * PAGE_LEN as u64;
    let most = u64::from(MAX_PAGES) * PAGE_LEN as u64;
    if !(least..=most).contains(&row.size) || !row.size.is_multiple_of(EXTENT_LEN) {
        return Err(StorageError::InvalidSize { path: row.path.clone(), size: row.size, least, most });
    }
    handle.set_len(row.size).map_err(|source| StorageError::io("set the length of", &row.path, source))?;
    let file = PageFile::new(row, handle);
    let lsn = log_file::INITIAL_LSN;
    let mut first = vec![0; 2 * EXTENT_LEN as usize];
    for (page, page_type) in layout::fixed_pages(row.file_id, file.pages) {
        let address = file.address(page);
        let bytes = match page_type {
            page_type::FILE_HEADER => {
                let mut record = FileRecord { file_id: row.file_id, size: row.size, ..FileRecord::default() };
                if let Some(known) = configuration.files.iter().find(|file| file.file_id == row.file_id) {
                    record = known.clone();
                }
                fixed_page::file_header_page(address, &record, configuration.database.binding_id, lsn)
            }
            page_type::PFS => fixed_page::pfs_page(address, file.pages, lsn),
            page_type::GAM => fixed_page::gam_page(address, file.pages, lsn),
            page_type::BOOT => fixed_page::boot_page(address, &configuration.database, lsn),
            other => fixed_page::bitmap_page(address, other, lsn, false, std::iter::empty()),
        };
        match first.chunks_exact_mut(PAGE_LEN).nth(page as usize) {
            Some(place) => place.copy_from_slice(&bytes),
            None => file.write_page(page, &bytes)?,
        }
    }
    let mut len = EXTENT_LEN as usize;
    if row.file_id == PRIMARY {
        let at = len;
        first[at..at + PAGE_LEN].copy_from_slice(&fixed_page::empty_page(file.address(EXTENT_PAGES), lsn));
        len *= 2;
    }
    file.write(0, &first[..len])
}

/// A data file that is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageFile<'a> {
    handle: &'a File,
    path: &'a Path,
    id: FileId,
    pages: u32,
}

impl<'a> PageFile<'a> {
    pub(super) fn new(row: &'a FileRow, handle: &'a File) -> PageFile<'a> {
        let pages = u32::try_from(row.size / PAGE_LEN as u64).unwrap_or(u32::MAX);
        PageFile { handle, path: &row.path, id: row.file_id, pages }
    }

    /// The address of a page of this file.
    pub(super) fn address(&self, page: u32) -> PageAddress {
        PageAddress { file: self.id, page: PageId(page) }
    }

    fn offset(page: u32) -> u64 {
        u64::from(page) * PAGE_LEN as u64
    }

    fn write(&self, page: u32, bytes: &[u8]) -> Result<(), StorageError> {
        let offset = Self::offset(page);
        self.handle
            .write_all_at(bytes, offset)
            .map_err(|source| StorageError::io_at("write to", self.path, offset, source))
    }

    /// Reads whole pages from `page` on.
    ///
    /// # Errors
    /// [`StorageError::Io`], also if the file ends before.
    pub(super) fn read(&self, page: u32, bytes: &mut [u8]) -> Result<(), StorageError> {
        let offset = Self::offset(page);
        self.handle
            .read_exact_at(bytes, offset)
            .map_err(|source| StorageError::io_at("read from", self.path, offset, source))
    }

    pub(super) fn write_page(&self, page: u32, bytes: &Page) -> Result<(), StorageError> {
        self.write(page, bytes)
    }

    /// Reads a page of a known type, and validates type, address, and checksum or torn-page bits. These bits are mended.
    ///
    /// # Errors
    /// [`StorageError::DamagedPage`], [`StorageError::Page`] or [`StorageError::Io`].
    pub(super) fn read_fixed(&self, page: u32, page_type: u8) -> Result<Page, StorageError> {
        let mut bytes = [0; PAGE_LEN];
        self.read(page, &mut bytes)?;
        let header = PageHeader::decode(&bytes).unwrap_or_default();
        self.expect(page, "type", page_type.into(), header.page_type.into())?;
        self.check_address(page, &header)?;
        verify(&bytes, Self::offset(page)).map_err(|source| self.damaged(page, source))?;
        mend_torn_bits(&mut bytes);
        Ok(bytes)
    }

    /// Whether a header names the page's own place.
    ///
    /// # Errors
    /// [`StorageError::Page`].
    pub(super) fn check_address(&self, page: u32, header: &PageHeader) -> Result<(), StorageError> {
        self.expect(page, "file", self.id.0.into(), header.file.0.into())?;
        self.expect(page, "number", page.into(), header.page.0.into())
    }

    fn expect(&self, page: u32, field: &'static str, expected: u64, found: u64) -> Result<(), StorageError> {
        let page = self.address(page);
        if expected == found {
            Ok(())
        } else {
            Err(StorageError::Page { path: self.path.to_owned(), page, field, expected, found })
        }
    }

    /// The page is damaged, as `source` says.
    pub(super) fn damaged(&self, page: u32, source: vdi_mtf::Error) -> StorageError {
        StorageError::DamagedPage { path: self.path.to_owned(), page: self.address(page), source }
    }

    /// The allocated extents: ranges, ascending, not touching. They are read from the GAM pages.
    ///
    /// # Errors
    /// [`StorageError::DamagedPage`] or [`StorageError::Page`] for a GAM page; [`StorageError::GamPastEnd`] if it allocates an extent
    /// that is not whole in the file; [`StorageError::Io`].
    pub(super) fn extents(&self) -> Result<Vec<Range<u32>>, StorageError> {
        let whole = self.pages / EXTENT_PAGES;
        let mut found: Vec<Range<u32>> = Vec::new();
        for first in (0..self.pages.div_ceil(EXTENT_PAGES)).step_by(GAM_EXTENTS as usize) {
            let gam = layout::gam_page_of(first);
            if gam >= self.pages {
                break;
            }
            let page = self.read_fixed(gam, page_type::GAM)?;
            for (extent, byte) in (first..).step_by(8).zip(bits(&page)) {
                for extent in (extent..extent + 8).filter(|at| byte >> (at - extent) & 1 == 0) {
                    if extent >= whole {
                        let (path, pages) = (self.path.to_owned(), self.pages);
                        return Err(StorageError::GamPastEnd { path, gam: self.address(gam), extent, pages });
                    }
                    let ranges = found.len();
                    match found.last_mut() {
                        Some(last) if last.end == extent => last.end += 1,
                        _ if ranges == MAX_RANGES => {
                            let reason = "its allocated extents lie in more than 4,194,304 pieces";
                            return Err(StorageError::Unsupported { path: self.path.to_owned(), reason });
                        }
                        _ => found.push(extent..extent + 1),
                    }
                }
            }
        }
        Ok(found)
    }

    /// Allocates `count` free extents, the first ones in the file, and writes all their pages: `fill` makes them, one after the other.
    ///
    /// Pages are written before the maps. If the process dies in between, the extents are still free.
    ///
    /// # Errors
    /// [`StorageError::Full`]: there are not so many; nothing was written. Those of [`extents`](Self::extents).
    pub(super) fn allocate(
        &self,
        count: u64,
        lsn: Lsn,
        mut fill: impl FnMut(PageAddress, &mut Page) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let free = self.free_extents(count)?;
        let mut buffer: Vec<u8> = Vec::new();
        for range in &free {
            for first in range.clone().step_by(BATCH as usize) {
                let extents = BATCH.min(range.end - first);
                buffer.clear();
                buffer.resize(extents as usize * EXTENT_LEN as usize, 0);
                let pages = buffer.as_chunks_mut::<PAGE_LEN>().0;
                for (page, bytes) in (first * EXTENT_PAGES..).zip(pages) {
                    fill(self.address(page), bytes)?;
                }
                self.write(first * EXTENT_PAGES, &buffer)?;
            }
        }
        let pages = |range: &Range<u32>| range.start * EXTENT_PAGES..range.end * EXTENT_PAGES;
        self.update(&free, page_type::PFS, lsn, pages, layout::pfs_page_of, |map, page| set_pfs(map, page, PFS_FULL))?;
        let gam = |map: &mut Page, extent| set_bit(map, extent % GAM_EXTENTS, false);
        self.update(&free, page_type::GAM, lsn, Range::clone, layout::gam_page_of, gam)
    }

    /// Changes the entries of `ranges` in the maps of a type.
    fn update(
        &self,
        ranges: &[Range<u32>],
        page_type: u8,
        lsn: Lsn,
        entries: impl Fn(&Range<u32>) -> Range<u32>,
        map_of: impl Fn(u32) -> u32,
        set: impl Fn(&mut Page, u32),
    ) -> Result<(), StorageError> {
        let mut current: Option<(u32, Page)> = None;
        let write = |(at, mut page): (u32, Page)| {
            if let Some(header) = PageHeader::decode(&page) {
                PageHeader { lsn, ..header }.encode_into(&mut page);
            }
            protect(&mut page);
            self.write_page(at, &page)
        };
        for entry in ranges.iter().flat_map(entries) {
            let at = map_of(entry);
            if current.as_ref().is_none_or(|(current, _)| *current != at)
                && let Some(done) = current.replace((at, self.read_fixed(at, page_type)?))
            {
                write(done)?;
            }
            if let Some((_, page)) = &mut current {
                set(page, entry);
            }
        }
        current.map_or(Ok(()), write)
    }

    fn free_extents(&self, count: u64) -> Result<Vec<Range<u32>>, StorageError> {
        let (allocated, end) = (self.extents()?, self.pages / EXTENT_PAGES);
        let mut found: Vec<Range<u32>> = Vec::new();
        let mut missing = count;
        let mut taken = allocated.iter().peekable();
        let mut extent = 0;
        while missing > 0 && extent < end {
            while taken.next_if(|range| range.end <= extent).is_some() {}
            match taken.peek() {
                Some(range) if range.contains(&extent) => extent = range.end,
                _ => {
                    if layout::is_content_extent(self.id, extent) {
                        missing -= 1;
                        match found.last_mut() {
                            Some(last) if last.end == extent => last.end += 1,
                            _ => found.push(extent..extent + 1),
                        }
                    }
                    extent += 1;
                }
            }
        }
        match missing {
            0 => Ok(found),
            _ => Err(StorageError::Full { path: self.path.to_owned(), extents: count, free: count - missing }),
        }
    }

    /// The pages of allocated extents that hold content: those of extents without fixed pages.
    ///
    /// # Errors
    /// Those of [`extents`](Self::extents).
    pub(super) fn content_pages(&self) -> Result<Vec<PageAddress>, StorageError> {
        let extents =
            self.extents()?.into_iter().flatten().filter(|&extent| layout::is_content_extent(self.id, extent));
        Ok(extents
            .flat_map(|extent| extent * EXTENT_PAGES..(extent + 1) * EXTENT_PAGES)
            .map(|page| self.address(page))
            .collect())
    }

    /// The log sequence number of the last checkpoint, in the boot page.
    pub(super) fn checkpoint_lsn(&self) -> Result<Lsn, StorageError> {
        Ok(fixed_page::checkpoint_lsn(&self.read_fixed(BOOT_PAGE, page_type::BOOT)?))
    }

    /// Sets the log sequence number of the last checkpoint in the boot page. `lsn`: that of the page.
    pub(super) fn set_checkpoint_lsn(&self, checkpoint: Lsn, lsn: Lsn) -> Result<(), StorageError> {
        let mut page = self.read_fixed(BOOT_PAGE, page_type::BOOT)?;
        fixed_page::set_checkpoint_lsn(&mut page, checkpoint, lsn);
        // All bytes that change are in the first sector, which the system writes whole or not at all.
        self.write(BOOT_PAGE, &page[..SECTOR_LEN])
    }

    /// Reads the allocated extents in pieces of at most 1 MiB, whole extents, ascending.
    ///
    /// # Errors
    /// Those of [`extents`](Self::extents), of `take`, and [`StorageError::Io`].
    pub(super) fn each_piece(
        &self,
        mut take: impl FnMut(u32, &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut buffer = vec![0; BATCH as usize * EXTENT_LEN as usize];
        for range in self.extents()? {
            for first in range.clone().step_by(BATCH as usize) {
                let extents = BATCH.min(range.end - first);
                let bytes = &mut buffer[..extents as usize * EXTENT_LEN as usize];
                self.read(first * EXTENT_PAGES, bytes)?;
                take(first * EXTENT_PAGES, bytes)?;
            }
        }
        Ok(())
    }
}
