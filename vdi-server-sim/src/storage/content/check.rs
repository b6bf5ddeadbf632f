//! Checking a database, and comparing two.

use std::time::Duration;

use vdi_mtf::page::{PAGE_LEN, PFS_INTERVAL, PageHeader, page_type, verify};
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::FileId;

use super::archive::{self, Visitor};
use super::{CarriedFile, Content, Stamp};
use crate::storage::fixed_page::{self, Page};
use crate::storage::layout::{BOOT_PAGE, PRIMARY, pfs_page_of};
use crate::storage::page_file::PageFile;
use crate::storage::{DataFolder, Database, StorageError, log_file};

/// How long a check waits for writers to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Checks every allocated page of a database by its checksum, and every stamp and carried file, and says what the database holds. Writers
/// wait meanwhile.
///
/// # Errors
/// [`StorageError::DamagedPage`], [`StorageError::Page`] or [`StorageError::Content`] for the first page that is damaged;
/// [`StorageError::NotFrozen`] if writers do not end, or a backup does not.
pub fn check(folder: &DataFolder, name: &str) -> Result<Content, StorageError> {
    let database = folder.database(name)?;
    let _frozen = match database.row().is_foreign {
        true => None,
        false => Some(database.freeze(TIMEOUT, || false)?),
    };
    let (mut content, mut carries) = (Content { first: u64::MAX, ..Content::default() }, false);
    for (_, file) in database.data_files() {
        carries |= check_file(&database, file, &mut content)?;
    }
    if content.stamps == 0 {
        content.first = 0;
    }
    if carries {
        archive::read(&database, &mut Files(&mut content.files))?;
    }
    Ok(content)
}

/// Checks the pages of a file. Returns whether there are pages that carry files.
fn check_file(database: &Database, file: PageFile<'_>, content: &mut Content) -> Result<bool, StorageError> {
    let mut carries = false;
    check_pages(file, |number, header, page| {
        if database.row().is_foreign {
            return Ok(());
        }
        carries |= archive::is_header(header);
        if Stamp::is_header(header) {
            let Some(stamp) = Stamp::read(page) else {
                let what = format!("page {} is not what its stamp says", file.address(number));
                return Err(StorageError::Content { name: database.row().name.clone(), what });
            };
            content.stamps += 1;
            content.first = content.first.min(stamp.sequence);
            content.last = content.last.max(stamp.sequence);
        }
        Ok(())
    })?;
    Ok(carries)
}

/// Checks the allocated pages of a file: their places, and their checksums or torn-page bits. Each is given to `take`.
///
/// # Errors
/// [`StorageError`] for the first page that is damaged, and those of `take`.
pub(in crate::storage) fn check_pages(
    file: PageFile<'_>,
    mut take: impl FnMut(u32, &PageHeader, &[u8; PAGE_LEN]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut pfs = None;
    file.each_piece(|first, bytes| {
        for (number, page) in (first..).zip(bytes.as_chunks::<PAGE_LEN>().0) {
            let at = pfs_page_of(number);
            if pfs.as_ref().is_none_or(|(current, _)| *current != at) {
                pfs = Some((at, file.read_fixed(at, page_type::PFS)?));
            }
            let byte = pfs.as_ref().map_or(0, |(_, page)| fixed_page::pfs(page)[(number % PFS_INTERVAL) as usize]);
            // Free pages of an allocated extent may be anything.
            if byte & fixed_page::PFS_EMPTY == 0 {
                continue;
            }
            verify(page, u64::from(number) * PAGE_LEN as u64).map_err(|source| file.damaged(number, source))?;
            let header = PageHeader::decode(page).unwrap_or_default();
            file.check_address(number, &header)?;
            take(number, &header, page)?;
        }
        Ok(())
    })
}

/// Lists the files of an archive.
struct Files<'a>(&'a mut Vec<CarriedFile>);

impl Visitor for Files<'_> {
    fn folder(&mut self, _path: &str, _mode: u32) -> Result<(), StorageError> {
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, len: u64) -> Result<(), StorageError> {
        self.0.push(CarriedFile { path: path.to_owned(), len, mode, crc32: 0 });
        Ok(())
    }

    fn bytes(&mut self, _bytes: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn end_file(&mut self, crc32: u32) -> Result<(), StorageError> {
        if let Some(file) = self.0.last_mut() {
            file.crc32 = crc32;
        }
        Ok(())
    }
}

/// Whether two databases have the same allocated extents, the same bytes in them, and the same log. Neither may be in use.
///
/// In databases of this program, a later checkpoint of one of them is no difference: the boot pages may name different checkpoints, and
/// then the log is not compared.
///
/// # Errors
/// [`StorageError::Different`] for the first difference; others for a file that cannot be read.
pub fn compare(folder: &DataFolder, one: &str, other: &str) -> Result<(), StorageError> {
    let (a, b) = (folder.database(one)?, folder.database(other)?);
    let different = |what| Err(StorageError::Different { one: one.to_owned(), other: other.to_owned(), what });
    if a.row().is_foreign != b.row().is_foreign {
        return different("one was made by SQL Server, the other by this program".to_owned());
    }
    let (extents, other_extents) = (a.extents()?, b.extents()?);
    if extents != other_extents {
        return different(format!("allocated extents: {extents:?} and {other_extents:?}"));
    }
    let (log, other_log) = (a.active_log()?, b.active_log()?);
    let is_foreign = a.row().is_foreign;
    let same_checkpoint = is_foreign || ranges(&log) == ranges(&other_log);
    for ((id, file), (_, other)) in a.data_files().zip(b.data_files()) {
        if let Some(what) = compare_file(id, file, other, same_checkpoint)? {
            return different(what);
        }
    }
    if is_foreign && !log_file::same(&log, &other_log) {
        return different(format!("virtual log files: {:?} and {:?}", ranges(&log), ranges(&other_log)));
    }
    if same_checkpoint {
        for vlf in &log {
            if let Some(piece) = compare_range(&a, &b, vlf)? {
                return different(format!("the log, in the 1 MiB at offset {piece}"));
            }
        }
    }
    Ok(())
}

/// The first piece of a log range that differs.
fn compare_range(one: &Database, other: &Database, vlf: &Vlf) -> Result<Option<u64>, StorageError> {
    const PIECE: u64 = 1 << 20;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut at = vlf.start;
    while at < vlf.end {
        let len = PIECE.min(vlf.end - at) as usize;
        a.resize(len, 0);
        b.resize(len, 0);
        one.read_log(at, &mut a)?;
        other.read_log(at, &mut b)?;
        if a != b {
            return Ok(Some(at));
        }
        at += len as u64;
    }
    Ok(None)
}

fn ranges(log: &[Vlf]) -> Vec<(u32, u64, u64)> {
    log.iter().filter(|vlf| vlf.range_len() > 0).map(|vlf| (vlf.sequence, vlf.start, vlf.end)).collect()
}

/// The first difference of two data files.
fn compare_file(
    id: FileId,
    one: PageFile<'_>,
    other: PageFile<'_>,
    boot: bool,
) -> Result<Option<String>, StorageError> {
    let (mut buffer, mut difference) = (Vec::new(), None);
    let without = |page: &Page| {
        let mut page = *page;
        fixed_page::without_checkpoint(&mut page);
        page
    };
    one.each_piece(|first, bytes| {
        if difference.is_some() {
            return Ok(());
        }
        buffer.resize(bytes.len(), 0);
        other.read(first, &mut buffer)?;
        if *bytes == *buffer {
            return Ok(());
        }
        let pages = bytes.as_chunks::<PAGE_LEN>().0.iter().zip(buffer.as_chunks::<PAGE_LEN>().0);
        for (number, (page, found)) in (first..).zip(pages) {
            let is_boot = id == PRIMARY && number == BOOT_PAGE && !boot;
            if page == found || is_boot && without(page) == without(found) {
                continue;
            }
            let at = page.iter().zip(found).position(|(a, b)| a != b).unwrap_or(0);
            let what = format!("page {}, byte {at}: {:#04x} and {:#04x}", one.address(number), page[at], found[at]);
            difference = Some(what);
            break;
        }
        Ok(())
    })?;
    Ok(difference)
}
