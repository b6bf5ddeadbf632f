//! Pages of a backup: read from the files of the database, and verified WITH CHECKSUM.
//!
//! WITH CHECKSUM a page is verified as a restore does it: its checksum or torn-page bits, and whether its header names its place. A free page
//! of an allocated extent may hold anything; whether a page is free says its PFS page, which is read only for a page that looks damaged.
//! Without CHECKSUM no page is looked at.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use vdi_mtf::builder::filler_extent;
use vdi_mtf::checksum::{SECTOR_LEN, SectorSum};
use vdi_mtf::page::{EXTENT_PAGES, HEADER_LEN, PAGE_LEN, PFS_INTERVAL, PageHeader, verify_summed};
use vdi_mtf::value::{FileId, PageAddress, PageId};

use super::Failure;
use super::plan::{Plan, Segment};
use super::reporting::damaged_page;
use crate::catalog::FileRow;
use crate::faults::Running;
use crate::messages::Message;
use crate::storage::{Database, StorageError};

/// Damaged pages that get a message in the error log. More are counted only.
const MOST_MESSAGES: usize = 1000;

/// Reads the pages of a plan. All threads of the statement share it.
pub(super) struct Pages<'a> {
    plan: &'a Plan,
    faults: &'a Running,
    database: &'a Database,
    files: Vec<PageFile<'a>>,
    filler: Vec<u8>,
    /// CONTINUE_AFTER_ERROR.
    goes_on: bool,
    damaged: AtomicU64,
    messages: Mutex<Vec<Message>>,
}

struct PageFile<'a> {
    row: &'a FileRow,
    file: &'a File,
}

/// What [`Pages::fill`] put into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bytes of pages of the database; the rest are fillers.
    pub(super) payload: u32,
    /// The sum of all of them; 0 without CHECKSUM.
    pub(super) sum: u32,
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        database: &'a Database,
        faults: &'a Running,
        goes_on: bool,
    ) -> Result<Pages<'a>, Failure> {
        let files = plan.files.iter().map(|&id| PageFile::of(database, id)).collect::<Result<_, _>>()?;
        let (damaged, messages) = (AtomicU64::new(0), Mutex::default());
        Ok(Pages { plan, faults, database, files, filler: filler_extent(), goes_on, damaged, messages })
    }

    /// Fills a buffer with these bytes of a family's pages: whole pages.
    pub(super) fn fill(&self, family: u32, bytes: Range<u64>, buffer: &mut [u8]) -> Result<Contents, Failure> {
        let (mut rest, mut payload, mut sum) = (&mut *buffer, 0, SectorSum::new());
        for segment in self.plan.dealing.segments(family, bytes) {
            let (piece, after) = rest.split_at_mut(segment.len().min(rest.len() as u64) as usize);
            rest = after;
            match segment {
                Segment::File { file, offset, .. } => {
                    let file = &self.files[file];
                    file.read(self.faults, piece, offset)?;
                    payload += piece.len() as u32;
                    if self.plan.checksum {
                        self.verify(file, piece, offset, &mut sum)?;
                    }
                }
                // All pages of a filler extent are the same.
                Segment::Filler { .. } => {
                    piece.chunks_mut(PAGE_LEN).for_each(|page| page.copy_from_slice(&self.filler[..page.len()]));
                    if self.plan.checksum {
                        sum.update(piece);
                    }
                }
            }
        }
        Ok(Contents { payload, sum: sum.value() })
    }

    /// Reads bytes of a log file.
    pub(super) fn read_log(&self, id: FileId, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        PageFile::of(self.database, id)?.read(self.faults, buffer, offset)
    }

    /// Verifies pages, and adds them to the sum. A page's own checksum and that of the backup need the same sum of the page.
    fn verify(&self, file: &PageFile<'_>, pages: &[u8], offset: u64, sum: &mut SectorSum) -> Result<(), Failure> {
        for (at, page) in pages.as_chunks::<PAGE_LEN>().0.iter().enumerate() {
            let offset = offset + (at * PAGE_LEN) as u64;
            let address = PageAddress { file: file.row.file_id, page: PageId((offset / PAGE_LEN as u64) as u32) };
            let of_page = SectorSum::of(page);
            sum.append(of_page, (PAGE_LEN / SECTOR_LEN) as u64);
            let Some(source) = self.damage_of(file, page, of_page, address)? else { continue };
            if !self.goes_on {
                let database = self.database.row().name.clone();
                return Err(Failure::DamagedPage {
                    database,
                    path: file.row.path.clone(),
                    page: address,
                    source: Box::new(source),
                });
            }
            self.damaged.fetch_add(1, Ordering::Relaxed);
            let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
            if messages.len() < MOST_MESSAGES {
                messages.push(damaged_page(&self.database.row().name, &file.row.path, address));
            }
        }
        Ok(())
    }

    /// What is wrong with a page, whose sum this is.
    fn damage_of(
        &self,
        file: &PageFile<'_>,
        page: &[u8; PAGE_LEN],
        sum: u32,
        expected: PageAddress,
    ) -> Result<Option<vdi_mtf::Error>, Failure> {
        let (offset, found) = (expected.file_offset(), PageHeader::decode(page).map(|header| header.address()));
        let in_place = found == Some(expected);
        let verified = verify_summed(page, sum, offset);
        if in_place && verified.is_ok() {
            return Ok(None);
        }
        let found = found.unwrap_or_default();
        if !in_place && expected.page.0.is_multiple_of(EXTENT_PAGES) {
            // A restore would not find the place of the extent.
            return Ok(Some(vdi_mtf::Error::MisplacedPage { offset, expected, found }));
        }
        let allocated = self.is_allocated(file, expected.page.0)?;
        Ok(match verified {
            _ if !allocated => None,
            Err(error) if in_place => Some(error),
            _ => Some(vdi_mtf::Error::MisplacedPage { offset, expected, found }),
        })
    }

    /// Whether a page is allocated: bit 0x40 of its byte in the PFS page before it.
    fn is_allocated(&self, file: &PageFile<'_>, page: u32) -> Result<bool, Failure> {
        let pfs = (page - page % PFS_INTERVAL).max(1);
        let mut byte = [0];
        let offset = u64::from(pfs) * PAGE_LEN as u64 + HEADER_LEN as u64 + 4 + u64::from(page % PFS_INTERVAL);
        file.read(self.faults, &mut byte, offset)?;
        Ok(byte[0] & 0x40 != 0)
    }

    /// Whether there were damaged pages.
    pub(super) fn has_damage(&self) -> bool {
        self.damaged.load(Ordering::Relaxed) > 0
    }

    /// The messages for the error log: 3043 for each damaged page.
    pub(super) fn messages(self) -> Vec<Message> {
        self.messages.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> PageFile<'a> {
    fn of(database: &'a Database, id: FileId) -> Result<PageFile<'a>, Failure> {
        let row = database.row().files.iter().find(|file| file.file_id == id);
        let (Some(row), Some(file)) = (row, database.file(id)) else {
            return Err(StorageError::NoSuchFile { file: id }.into());
        };
        Ok(PageFile { row, file })
    }

    fn read(&self, faults: &Running, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        faults.read_exact_at(self.file, buffer, offset).map_err(|mut source| {
            let (path, expected) = (self.row.path.clone(), self.row.size);
            if source.kind() == ErrorKind::UnexpectedEof {
                let found = self.file.metadata().map_or(0, |metadata| metadata.len());
                let what =
                    format!("the file had {expected} bytes, and was cut by another program; it has {found} bytes now");
                source = std::io::Error::new(ErrorKind::UnexpectedEof, what);
            }
            StorageError::Io { action: "read", path, offset: Some(offset), source }.into()
        })
    }
}
