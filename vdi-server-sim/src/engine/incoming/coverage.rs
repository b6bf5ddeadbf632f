//! Which extents of a backup set have come, over all devices.

use std::collections::BTreeMap;

use vdi_mtf::page::{EXTENT_PAGES, PAGE_LEN};
use vdi_mtf::sqlserver::config::{Config, FileType};
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::value::{FileId, PageAddress};

/// A set of extents. It grows with the extents that come, whatever the size that a backup gives a file.
#[derive(Debug, Default)]
struct Extents {
    /// 64 extents a word.
    bits: BTreeMap<u32, u64>,
    count: u64,
}

impl Extents {
    /// Whether the extent is new.
    fn insert(&mut self, extent: u32) -> bool {
        let (word, bit) = (self.bits.entry(extent / 64).or_default(), 1 << (extent % 64));
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    fn pages(&self) -> u64 {
        self.count * u64::from(EXTENT_PAGES)
    }
}

/// A data file.
#[derive(Debug)]
struct FileCoverage {
    name: String,
    /// Bytes of the file.
    size: u64,
    /// Pages that the first pass has to bring.
    pages: u64,
    passes: [Extents; 2],
}

/// The extents that came, of all data files of a set.
#[derive(Debug)]
pub(super) struct Coverage(BTreeMap<FileId, FileCoverage>);

impl Coverage {
    /// Nothing has come of the data files of this leading configuration.
    pub(super) fn new(leading: &Config) -> Coverage {
        let data = leading.files.iter().filter(|file| file.file_type() == FileType::Data);
        let file = |file: &vdi_mtf::sqlserver::config::FileRecord| FileCoverage {
            name: file.logical_name.to_string(),
            size: file.size,
            pages: file.pages.into(),
            passes: Default::default(),
        };
        Coverage(data.map(|record| (record.file_id, file(record))).collect())
    }

    /// Takes note of an extent in a pass, 0 or 1.
    ///
    /// # Errors
    /// Why no extent may come there.
    pub(super) fn add(&mut self, pass: usize, first: PageAddress) -> Result<(), String> {
        let Some(file) = self.0.get_mut(&first.file) else {
            return Err(format!("the extent of page {first} belongs to no data file of the backup"));
        };
        let (begin, size) = (first.file_offset(), file.size);
        if begin.saturating_add(EXTENT_LEN) > size {
            return Err(format!(
                "the extent of page {first} ends at {}, beyond the end of file '{}' at {size}",
                begin + EXTENT_LEN,
                file.name
            ));
        }
        let extent = first.page.0 / EXTENT_PAGES;
        match file.passes.get_mut(pass).is_some_and(|extents| extents.insert(extent)) {
            true => Ok(()),
            false => Err(format!("the extent of page {first} came twice")),
        }
    }

    /// Whether all extents have come. The first pass has as many as the leading configuration says, a second one as many as the
    /// trailing one says.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn check(&self, trailing: &Config) -> Result<(), String> {
        let second = self.0.values().any(|file| file.passes[1].count > 0);
        for (id, file) in &self.0 {
            let wrong = |found: u64, expected: u64, pass: &str| {
                format!("file '{}': {found} of {expected} pages came{pass}", file.name)
            };
            if file.passes[0].pages() != file.pages {
                return Err(wrong(file.passes[0].pages(), file.pages, ""));
            }
            let expected = trailing.files.iter().find(|record| record.file_id == *id).map_or(0, |record| record.pages);
            if second && file.passes[1].pages() != u64::from(expected) {
                return Err(wrong(file.passes[1].pages(), expected.into(), " in the second pass"));
            }
        }
        Ok(())
    }

    /// Pages of a file that came, in both passes.
    pub(super) fn pages(&self, file: FileId) -> u64 {
        self.0.get(&file).map_or(0, |file| file.passes.iter().map(Extents::pages).sum())
    }
}

/// Bytes of pages in the first pass of a set.
pub(in crate::engine) fn data_bytes(leading: &Config) -> u64 {
    let data = leading.files.iter().filter(|file| file.file_type() == FileType::Data);
    data.map(|file| u64::from(file.pages) * PAGE_LEN as u64).sum()
}
