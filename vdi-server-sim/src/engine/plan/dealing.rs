//! How the extents of a backup are dealt to its families: arithmetic, no list of extents.
//!
//! The lengths of the families' streams stand before the data, so what goes where is settled beforehand. The extents of all files have one
//! numbering: file after file, ascending. Runs of extents go to the families in turn. What is left for the last round is dealt in runs of
//! equal length, so that the families differ by less than one run of it. Fillers then make the streams equally long: multiples of 64 KiB,
//! or of 1 MiB where the data files are larger than 8 MiB together. (Observed in backups of SQL Server 2008 to 2022.)
//!
//! ```text
//! extents    0 1 2 3 | 4 5 6 7 | 8 9 A        runs of 4, two families: one round of 8, three are left: runs of 2
//! family 1   0 1 2 3   8 9
//! family 2   4 5 6 7   A F                    F: a filler
//! ```

use std::ops::Range;

use vdi_mtf::sqlserver::data::EXTENT_LEN;

use crate::storage::FileExtents;

/// Larger databases have streams in units of [`LARGE_UNIT`].
const SMALL_DATABASE: u64 = 8 << 20;
/// The unit of the streams of a large database.
const LARGE_UNIT: u64 = 1 << 20;

/// Extents that follow each other in a file.
#[derive(Debug, Clone)]
struct FileRun {
    /// The file's place in [`BackupSource::data`](crate::storage::BackupSource::data).
    file: usize,
    extents: Range<u32>,
    /// The number of its first extent among those of all files.
    first: u64,
}

/// Where bytes of a family's pages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Segment {
    /// From a file: its place in the source, the first byte, and how many.
    File { file: usize, offset: u64, len: u64 },
    /// So many bytes of filler extents.
    Filler { len: u64 },
}

impl Segment {
    pub(in crate::engine) fn len(&self) -> u64 {
        match self {
            Segment::File { len, .. } | Segment::Filler { len } => *len,
        }
    }
}

/// What each family gets.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Dealing {
    runs: Vec<FileRun>,
    total: u64,
    families: u64,
    /// Extents of a run.
    run: u64,
    /// Rounds in which every family gets a whole run.
    rounds: u64,
    /// Extents of a run of the last round.
    last: u64,
    /// Extents of each family's stream.
    len: u64,
}

impl Dealing {
    /// Deals the extents of `data` to `families` families, in runs of `transfer` bytes. `file_bytes`: the data files' lengths together.
    pub(in crate::engine) fn new(data: &[FileExtents], file_bytes: u64, families: u32, transfer: u32) -> Dealing {
        let (mut runs, mut total) = (Vec::new(), 0);
        for (file, extents) in data.iter().enumerate() {
            for range in &extents.extents {
                runs.push(FileRun { file, extents: range.clone(), first: total });
                total += u64::from(range.end - range.start);
            }
        }
        let (families, run) = (u64::from(families.max(1)), (u64::from(transfer) / EXTENT_LEN).max(1));
        let rounds = total / (families * run);
        let last = (total - rounds * families * run).div_ceil(families);
        let unit = if file_bytes > SMALL_DATABASE { LARGE_UNIT / EXTENT_LEN } else { 1 };
        let len = (rounds * run + last).max(1).next_multiple_of(unit);
        Dealing { runs, total, families, run, rounds, last, len }
    }

    /// Bytes of pages in each family's stream: at least one extent.
    pub(in crate::engine) fn stream_len(&self) -> u64 {
        self.len * EXTENT_LEN
    }

    /// Bytes of pages of the database, in all families together.
    pub(in crate::engine) fn total_len(&self) -> u64 {
        self.total * EXTENT_LEN
    }

    /// Where the bytes of a family's pages come from. `family` counts from 0.
    pub(in crate::engine) fn segments(&self, family: u32, bytes: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let mut at = bytes.start;
        std::iter::from_fn(move || {
            (at < bytes.end).then(|| {
                let segment = self.segment(u64::from(family), at, bytes.end - at);
                at += segment.len();
                segment
            })
        })
    }

    /// The segment that begins at a byte of a family's pages, of at most `most` bytes.
    fn segment(&self, family: u64, at: u64, most: u64) -> Segment {
        let (extent, within) = (at / EXTENT_LEN, at % EXTENT_LEN);
        let regular = self.rounds * self.run;
        let (first, in_run, run) = if extent < regular {
            let round = extent / self.run;
            ((round * self.families + family) * self.run, extent % self.run, self.run)
        } else {
            (regular * self.families + family * self.last, extent - regular, self.last)
        };
        let end = (first + run).min(self.total);
        let global = first + in_run;
        let place =
            self.runs.partition_point(|run| run.first <= global).checked_sub(1).and_then(|at| self.runs.get(at));
        let Some(place) = place.filter(|_| global < end) else { return Segment::Filler { len: most } };
        let in_file = global - place.first;
        let left = u64::from(place.extents.end - place.extents.start) - in_file;
        let len = (left.min(end - global) * EXTENT_LEN - within).min(most);
        let offset = (u64::from(place.extents.start) + in_file) * EXTENT_LEN + within;
        Segment::File { file: place.file, offset, len }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use vdi_mtf::value::FileId;

    use super::*;

    fn files(lengths: &[Vec<(u32, u32)>]) -> Vec<FileExtents> {
        let file = |(at, gaps): (usize, &Vec<(u32, u32)>)| {
            let mut next = 0;
            let extents = gaps.iter().map(|(gap, len)| {
                let start = next + gap;
                next = start + len;
                start..next
            });
            FileExtents { file: FileId(at as u16 + 1), extents: extents.collect() }
        };
        lengths.iter().enumerate().map(file).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn families_are_disjoint_complete_and_ascending(
            lengths in prop::collection::vec(prop::collection::vec((1..9_u32, 1..40_u32), 0..6), 1..5),
            families in 1..65_u32, transfer in 1..65_u32, large in any::<bool>(), cut in 1..200_u64,
        ) {
            let data = files(&lengths);
            let total: u64 = data.iter().flat_map(|file| &file.extents).map(|range| u64::from(range.end - range.start)).sum();
            let dealing = Dealing::new(&data, if large { 9 << 20 } else { 1 << 20 }, families, transfer << 16);
            prop_assert_eq!(dealing.total_len(), total * EXTENT_LEN);
            let unit = if large { 1 << 20 } else { 65536 };
            prop_assert!(dealing.stream_len() > 0 && dealing.stream_len().is_multiple_of(unit));
            // No family is longer than an equal share and the unit ask for, but for the remainder of one run.
            prop_assert!(dealing.stream_len() < total.div_ceil(u64::from(families)).max(1) * EXTENT_LEN + unit);
            let mut seen = BTreeSet::new();
            for family in 0..families {
                let (mut at, mut before, mut filled) = (0, None, false);
                while at < dealing.stream_len() {
                    let end = (at + cut * 8192).min(dealing.stream_len());
                    let mut sum = 0;
                    for segment in dealing.segments(family, at..end) {
                        sum += segment.len();
                        prop_assert!(segment.len() > 0);
                        let Segment::File { file, offset, len } = segment else { filled = true; continue };
                        prop_assert!(!filled, "pages after fillers");
                        prop_assert!(before < Some((file, offset)), "not ascending");
                        before = Some((file, offset));
                        for page in offset / 8192..(offset + len) / 8192 {
                            prop_assert!(data[file].extents.iter().any(|range| range.contains(&((page / 8) as u32))));
                            prop_assert!(seen.insert((file, page)), "page {} of file {} twice", page, file);
                        }
                    }
                    prop_assert_eq!(sum, end - at);
                    at = end;
                }
            }
            prop_assert_eq!(seen.len() as u64, total * 8);
        }
    }

    #[test]
    fn a_run_is_one_segment() {
        let data = files(&[vec![(0, 64), (3, 64)]]);
        let dealing = Dealing::new(&data, 1 << 20, 2, 1 << 20);
        let found: Vec<_> = dealing.segments(1, 0..dealing.stream_len()).collect();
        let file = |first: u64| Segment::File { file: 0, offset: first * EXTENT_LEN, len: 16 * EXTENT_LEN };
        assert_eq!(found, [file(16), file(48), file(83), file(115)]);
    }

    #[test]
    fn a_database_without_extents_has_fillers() {
        let dealing = Dealing::new(&[], 0, 3, 65536);
        assert_eq!(dealing.segments(2, 0..dealing.stream_len()).collect::<Vec<_>>(), [Segment::Filler { len: 65536 }]);
    }
}
