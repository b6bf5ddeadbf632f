//! What backups hold, read by `vdi-mtf` alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vdi_mtf::families;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::Medium;
use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::sqlserver::config::BackupKind;
use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader, PREFIX_LEN};
use vdi_mtf::value::{FileId, PageAddress, PageId};

/// One family of a backup, in a file.
pub(crate) struct Family {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) medium: Medium,
}

impl Family {
    /// Reads and verifies a medium.
    #[track_caller]
    pub(crate) fn read(path: &Path) -> Family {
        let bytes = std::fs::read(path).unwrap();
        let mut inspector = Inspector::new();
        for piece in bytes.chunks(100_003) {
            inspector.read(piece).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        inspector.finish().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(inspector.damage_count(), 0, "{}: {:?}", path.display(), inspector.damages().first());
        Family { path: path.to_owned(), bytes, medium: inspector.into_medium() }
    }

    /// Whether it is of a full backup that is alone on its medium.
    pub(crate) fn is_full(&self) -> bool {
        let sets = &self.medium.sets;
        sets.len() == 1 && sets[0].config().database.kind() == BackupKind::Full
    }
}

/// All families of a backup, in their order.
pub(crate) struct Families(pub(crate) Vec<Family>);

impl Families {
    /// Reads the families of one backup, given in any order.
    #[track_caller]
    pub(crate) fn read<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Families {
        Families::of(paths.into_iter().map(Family::read).collect()).unwrap()
    }

    /// `None`: some are missing.
    pub(crate) fn of(found: Vec<Family>) -> Option<Families> {
        let media: Vec<&Medium> = found.iter().map(|family| &family.medium).collect();
        let order = families::validate(&media).ok()?;
        let mut found: Vec<_> = found.into_iter().map(Some).collect();
        Some(Families(order.into_iter().map(|at| found[at].take().unwrap()).collect()))
    }

    /// Groups families by their media sets. Sets of which one is missing are left out.
    pub(crate) fn group(found: Vec<Family>) -> Vec<Families> {
        let mut sets: BTreeMap<[u8; 16], Vec<Family>> = BTreeMap::new();
        for family in found {
            sets.entry(family.medium.media_set.id.0).or_default().push(family);
        }
        sets.into_values().filter_map(Families::of).collect()
    }

    /// The pages of the first set, with the last image of each.
    pub(crate) fn pages(&self) -> BTreeMap<PageAddress, Vec<u8>> {
        let mut pages = BTreeMap::new();
        for pass in 0..self.0[0].medium.sets[0].data.len() {
            for family in &self.0 {
                let stream = &family.medium.sets[0].data[pass];
                let (begin, end) = (stream.offset - PREFIX_LEN, stream.offset + stream.len);
                let mut data = &family.bytes[begin as usize..end as usize];
                let (mut extents, mut at) = (ExtentReader::new(0), None);
                while let Some(event) = extents.next(&mut data).unwrap() {
                    match event {
                        ExtentEvent::Extent(first) => at = first,
                        ExtentEvent::Bytes(bytes) => {
                            let Some(PageAddress { file, page }) = at else { continue };
                            for (index, bytes) in (0..).zip(bytes.chunks_exact(PAGE_LEN)) {
                                pages.insert(PageAddress { file, page: PageId(page.0 + index) }, bytes.to_vec());
                            }
                        }
                    }
                }
            }
        }
        pages
    }

    /// The ranges of the log of the first set: log file, where in it, bytes.
    pub(crate) fn log(&self) -> Vec<(FileId, u64, Vec<u8>)> {
        let family = &self.0[0];
        let log = family.medium.sets[0].log.iter();
        log.filter_map(|(vlf, stream)| {
            let begin = stream.as_ref()?.offset as usize;
            Some((vlf.file_id, vlf.start, family.bytes[begin..begin + vlf.range_len() as usize].to_vec()))
        })
        .collect()
    }
}
