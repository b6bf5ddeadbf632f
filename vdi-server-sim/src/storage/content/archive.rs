//! Files in the bodies of pages: the format.
//!
//! The body of a page, little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 96 | 8 | `VDIFILES` |
//! | 104 | 8 | number of the page in the archive, from 0 |
//! | 112 | 4 | bytes in use |
//! | 116 | 4 | 0 |
//! | 120 | 8072 | bytes of the archive, then zeros |
//!
//! The archive is a sequence of entries, by path, so that a folder comes before what is in it:
//!
//! | size | field |
//! |---|---|
//! | 1 | 1: file, 2: folder, 0: the end |
//! | 4 | permissions |
//! | 2, n | length of the path, path |
//! | 8 | file: its length |
//! | n | file: its bytes |
//! | 4 | file: their CRC-32 |

use vdi_mtf::page::{EXTENT_PAGES, HEADER_LEN, PAGE_LEN, PageHeader, page_type, protect, verify};
use vdi_mtf::value::{Lsn, PageAddress};

use crate::storage::fixed_page::{Page, content_header};
use crate::storage::page_file::PageFile;
use crate::storage::{Database, StorageError, layout};

/// The object that pages with files belong to.
const OBJECT: u32 = 1_000_002;
const MAGIC: [u8; 8] = *b"VDIFILES";
const NUMBER_AT: usize = HEADER_LEN + 8;
const USED_AT: usize = HEADER_LEN + 16;
const BYTES_AT: usize = HEADER_LEN + 24;
/// Bytes of an archive in a page.
pub(super) const CHUNK_LEN: usize = PAGE_LEN - BYTES_AT;

/// Kinds of entries.
pub(super) const FILE: u8 = 1;
pub(super) const FOLDER: u8 = 2;
pub(super) const END: u8 = 0;

/// The permissions that are kept. Set-user-id, set-group-id and sticky bits are not.
pub(super) const PERMISSIONS: u32 = 0o777;
/// The longest path, in bytes: what Linux takes in one call.
const MAX_PATH: usize = 4095;
/// The longest part of a path, in bytes.
const MAX_NAME: usize = 255;

/// Whether a page with this header carries files.
pub(super) fn is_header(header: &PageHeader) -> bool {
    header.page_type == page_type::DATA && header.object_id == OBJECT
}

/// Completes a page whose first `used` archive bytes are in `page[BYTES_AT..]`.
pub(super) fn finish_page(page: &mut Page, address: PageAddress, number: u64, used: usize, lsn: Lsn) {
    content_header(address, OBJECT, lsn).encode_into(page);
    page[HEADER_LEN..NUMBER_AT].copy_from_slice(&MAGIC);
    page[NUMBER_AT..USED_AT].copy_from_slice(&number.to_le_bytes());
    page[USED_AT..USED_AT + 4].copy_from_slice(&(used as u32).to_le_bytes());
    protect(page);
}

/// The place for archive bytes in a page.
pub(super) fn chunk_mut(page: &mut Page) -> &mut [u8] {
    &mut page[BYTES_AT..]
}

/// Whether a path stays below the folder that it is relative to.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err("its path is empty, or has more than 4095 bytes");
    }
    if path.contains('\0') {
        return Err("its path contains a NUL character");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > MAX_NAME) {
        return Err("its path is absolute, or has a part that is empty, '.', '..' or longer than 255 bytes");
    }
    Ok(())
}

/// What [`read`] finds.
pub(super) trait Visitor {
    /// A folder.
    fn folder(&mut self, path: &str, mode: u32) -> Result<(), StorageError>;
    /// A file begins.
    fn file(&mut self, path: &str, mode: u32, len: u64) -> Result<(), StorageError>;
    /// The next bytes of the file.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), StorageError>;
    /// The file is complete, and its bytes are those that were imported.
    fn end_file(&mut self, crc32: u32) -> Result<(), StorageError>;
}

/// Reads the archive of a database. Paths that `visitor` sees are [checked](check_path).
///
/// # Errors
/// [`StorageError::Content`] if there is no archive, or it is damaged; those of pages, and those of `visitor`.
pub(super) fn read(database: &Database, visitor: &mut impl Visitor) -> Result<(), StorageError> {
    let mut reader = Reader::new(database)?;
    loop {
        let [kind] = reader.array()?;
        if kind == END {
            return reader.end();
        }
        let mode = u32::from_le_bytes(reader.array()?);
        let mut path = vec![0; usize::from(u16::from_le_bytes(reader.array()?))];
        reader.exact(&mut path)?;
        let path = String::from_utf8(path).map_err(|_| reader.damaged("a path that is not UTF-8"))?;
        check_path(&path).map_err(|reason| reader.damaged(reason))?;
        if mode & !PERMISSIONS != 0 {
            return Err(reader.damaged("permissions above 0777"));
        }
        match kind {
            FOLDER => visitor.folder(&path, mode)?,
            FILE => {
                let len = u64::from_le_bytes(reader.array()?);
                visitor.file(&path, mode, len)?;
                let (mut left, mut hasher) = (len, crc32fast::Hasher::new());
                while left > 0 {
                    let bytes = reader.some(left)?;
                    hasher.update(bytes);
                    visitor.bytes(bytes)?;
                    left -= bytes.len() as u64;
                }
                let (expected, found) = (u32::from_le_bytes(reader.array()?), hasher.finalize());
                if expected != found {
                    return Err(
                        reader.damaged(&format!("the CRC-32 of {path} is {found:#010x}, expected {expected:#010x}"))
                    );
                }
                visitor.end_file(found)?;
            }
            kind => return Err(reader.damaged(&format!("an entry of kind {kind}"))),
        }
    }
}

/// Reads the bytes of an archive out of the pages of a database.
struct Reader<'a> {
    name: &'a str,
    extents: Box<dyn Iterator<Item = (PageFile<'a>, u32)> + 'a>,
    /// The current extent, its bytes, and which of its pages comes next.
    extent: Option<(PageFile<'a>, u32)>,
    buffer: Vec<u8>,
    next_page: usize,
    /// Which bytes of the buffer are the rest of the current page's.
    left: std::ops::Range<usize>,
    number: u64,
}

impl<'a> Reader<'a> {
    fn new(database: &'a Database) -> Result<Reader<'a>, StorageError> {
        let mut extents = Vec::new();
        for (id, file) in database.data_files() {
            let content =
                file.extents()?.into_iter().flatten().filter(move |&extent| layout::is_content_extent(id, extent));
            extents.push(content.map(move |extent| (file, extent)));
        }
        Ok(Reader {
            name: &database.row().name,
            extents: Box::new(extents.into_iter().flatten()),
            extent: None,
            buffer: vec![0; PAGE_LEN * EXTENT_PAGES as usize],
            next_page: EXTENT_PAGES as usize,
            left: 0..0,
            number: 0,
        })
    }

    fn damaged(&self, what: &str) -> StorageError {
        let what = format!("{what}, in page {} of the archive of files", self.number.saturating_sub(1));
        StorageError::Content { name: self.name.to_owned(), what }
    }

    /// Goes to the next page that has bytes. `false`: there are none.
    fn page(&mut self) -> Result<bool, StorageError> {
        while self.left.is_empty() {
            if self.next_page == EXTENT_PAGES as usize {
                self.extent = self.extents.next();
                let Some((file, extent)) = &self.extent else { return Ok(false) };
                file.read(extent * EXTENT_PAGES, &mut self.buffer)?;
                self.next_page = 0;
            }
            let Some((file, extent)) = self.extent else { return Ok(false) };
            let at = self.next_page * PAGE_LEN;
            let number = extent * EXTENT_PAGES + self.next_page as u32;
            self.next_page += 1;
            let Some(page) = self.buffer[at..].first_chunk::<PAGE_LEN>() else { return Ok(false) };
            verify(page, u64::from(number) * PAGE_LEN as u64).map_err(|source| file.damaged(number, source))?;
            let header = PageHeader::decode(page).unwrap_or_default();
            if !is_header(&header) || page[HEADER_LEN..NUMBER_AT] != MAGIC || header.address() != file.address(number) {
                let what =
                    format!("page {} carries no files: the database was not made by an import", file.address(number));
                return Err(StorageError::Content { name: self.name.to_owned(), what });
            }
            let mut found = [0; 8];
            found.copy_from_slice(&page[NUMBER_AT..USED_AT]);
            let (found, mut used) = (u64::from_le_bytes(found), [0; 4]);
            used.copy_from_slice(&page[USED_AT..USED_AT + 4]);
            let used = u32::from_le_bytes(used) as usize;
            if found != self.number || used > CHUNK_LEN {
                return Err(self.damaged(&format!(
                    "page {} is number {found} with {used} bytes, expected number {} with at most {CHUNK_LEN}",
                    file.address(number),
                    self.number
                )));
            }
            self.number += 1;
            self.left = at + BYTES_AT..at + BYTES_AT + used;
        }
        Ok(true)
    }

    /// The next bytes, at least one and at most `most`.
    fn some(&mut self, most: u64) -> Result<&[u8], StorageError> {
        if !self.page()? {
            return Err(self.damaged("it ends too early"));
        }
        let len = self.left.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let start = self.left.start;
        self.left.start += len;
        Ok(&self.buffer[start..start + len])
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), StorageError> {
        let mut done = 0;
        while done < bytes.len() {
            let some = self.some((bytes.len() - done) as u64)?;
            bytes[done..done + some.len()].copy_from_slice(some);
            done += some.len();
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    /// After the end there are only pages without bytes.
    fn end(&mut self) -> Result<(), StorageError> {
        if self.page()? { Err(self.damaged("bytes after its end")) } else { Ok(()) }
    }
}
