//! A sample database to try backups with: made from a seed, so that the same call gives the same bytes everywhere, and able to
//! tell afterwards whether it is still intact.
//!
//! It consists of two data files and a log, each a sequence of pages of [`PAGE_BYTES`] bytes. A page begins with a header that
//! says which page of which file it is, and carries a checksum of the whole page; the rest is rows that are half random and half
//! constant, so that a compressor finds something to do, but not much. [`verify`] finds a flipped bit, a page in
//! the wrong place, and a file that is too short or too long.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("Sample");
//! use vdi_server_sim::sample;
//!
//! let made = sample::create(&dir, 1_000_000, 42)?;
//! assert_eq!(made.pages, 123); // rounded up to whole pages
//! assert_eq!(sample::verify(&dir)?, made);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of one page.
pub const PAGE_BYTES: usize = 8192;

/// The names of the files: the two data files, then the log.
pub const FILES: [&str; 3] = ["sample.mdf", "sample_1.ndf", "sample_log.ldf"];

/// Pages that are made or read at a time: 1 MB.
const BATCH: usize = (1 << 20) / PAGE_BYTES;

/// First bytes of every page.
const MAGIC: [u8; 8] = *b"SAMPLEPG";

/// Layout of the header, little-endian: magic, checksum (of the page without these four bytes), file, page, pages of the
/// file, seed, pages of all files.
const CHECKSUM_AT: usize = 8;
const FILE_AT: usize = 12;
const PAGE_AT: usize = 16;
const COUNT_AT: usize = 24;
const SEED_AT: usize = 32;
const TOTAL_AT: usize = 40;
const HEADER_BYTES: usize = 64;

/// A row: so many words of 8 random bytes, then the filler.
const ROW_BYTES: usize = 64;
const RANDOM_WORDS: usize = 4;
const FILLER: [u8; ROW_BYTES - RANDOM_WORDS * 8] = *b" | sample row | status: active |";

/// What a sample database consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Pages of all files together.
    pub pages: u64,
    /// Bytes of all files together: [`pages`](Self::pages) times [`PAGE_BYTES`].
    pub bytes: u64,
    /// The seed that the contents were made from.
    pub seed: u64,
}

/// Why a sample database is not intact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A page is not what it was made as.
    #[error(
        "page {page} of {} (offset {}) is damaged: {field} is {found:#x}, expected {expected:#x}",
        path.display(),
        page.saturating_mul(PAGE_BYTES as u64)
    )]
    Page {
        /// The file.
        path: PathBuf,
        /// The page's place in the file, from 0.
        page: u64,
        /// What is wrong: the magic, the checksum, the number of the file or page, the count of pages, or the seed.
        field: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A file is too short or too long, or all of them together are.
    #[error("{} has {found} bytes, expected {expected}", path.display())]
    Length {
        /// The file; the folder, if it is all files together.
        path: PathBuf,
        /// Its length by what its pages say.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// There is no page at all, so nothing can be said.
    #[error("the files in {} have no pages: this is no sample database, or an empty one", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// Makes a sample database of `bytes`, rounded up to whole pages, in the folder `dir`, which is made if there is none. Of nine
/// pages, about one is the log's and two are the second data file's. The same `bytes` and `seed` give the same files.
///
/// # Errors
/// Of kind `AlreadyExists` if the folder has one of the [`FILES`] already; else what the system answered, a full disk say.
/// The files made so far are removed, files that were there before are not touched.
pub fn create(dir: &Path, bytes: u64, seed: u64) -> io::Result<Sample> {
    fs::create_dir_all(dir)?;
    let pages = bytes.div_ceil(PAGE_BYTES as u64);
    let total = pages
        .checked_mul(PAGE_BYTES as u64)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a database cannot have more than 2^64 bytes"))?;
    let made = Sample { pages, bytes: total, seed };
    let (second, log) = (pages / 9 * 2, pages / 9);
    for (index, (name, count)) in FILES.iter().zip([pages - second - log, second, log]).enumerate() {
        let path = dir.join(name);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| (false, error))
            .and_then(|file| write_file(file, index as u32, count, made).map_err(|error| (true, error)));
        if let Err((opened, error)) = written {
            for ours in &FILES[..index + usize::from(opened)] {
                let _ = fs::remove_file(dir.join(ours));
            }
            return Err(io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display())));
        }
    }
    Ok(made)
}

fn write_file(mut file: File, index: u32, count: u64, sample: Sample) -> io::Result<()> {
    let mut buffer = vec![0; BATCH * PAGE_BYTES];
    let mut page = 0;
    while page < count {
        let batch = usize::try_from(count - page).map_or(BATCH, |left| left.min(BATCH));
        let buffer = &mut buffer[..batch * PAGE_BYTES];
        for bytes in buffer.chunks_exact_mut(PAGE_BYTES) {
            fill(bytes, index, page, count, sample);
            page += 1;
        }
        file.write_all(buffer)?;
    }
    Ok(())
}

/// Makes one page.
fn fill(bytes: &mut [u8], file: u32, page: u64, count: u64, sample: Sample) {
    let (header, rows) = bytes.split_at_mut(HEADER_BYTES);
    header.fill(0);
    header[..8].copy_from_slice(&MAGIC);
    header[FILE_AT..FILE_AT + 4].copy_from_slice(&file.to_le_bytes());
    header[PAGE_AT..PAGE_AT + 8].copy_from_slice(&page.to_le_bytes());
    header[COUNT_AT..COUNT_AT + 8].copy_from_slice(&count.to_le_bytes());
    header[SEED_AT..SEED_AT + 8].copy_from_slice(&sample.seed.to_le_bytes());
    header[TOTAL_AT..TOTAL_AT + 8].copy_from_slice(&sample.pages.to_le_bytes());
    // Each page has a sequence of its own, so that no two pages are alike and each can be made without the others.
    let mut state = mix(sample.seed ^ mix(page ^ u64::from(file) << 56));
    for row in rows.chunks_exact_mut(ROW_BYTES) {
        let (random, filler) = row.split_at_mut(RANDOM_WORDS * 8);
        for word in random.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            word.copy_from_slice(&mix(state).to_le_bytes());
        }
        filler.copy_from_slice(&FILLER);
    }
    let checksum = checksum(bytes);
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// The finishing function of the SplitMix64 generator: every bit of the result depends on every bit of `value`.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// CRC-32 of the page without the field that the checksum is kept in.
fn checksum(page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page[..CHECKSUM_AT]);
    hasher.update(&page[CHECKSUM_AT + 4..]);
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half_word(bytes: &[u8], at: usize) -> u64 {
    word(bytes, at) & 0xFFFF_FFFF
}

/// Reads every page of the sample database in `dir` and checks it.
///
/// # Errors
/// [`SampleError`] for the first thing that is wrong.
pub fn verify(dir: &Path) -> Result<Sample, SampleError> {
    let mut told = None;
    let mut pages = 0;
    for (index, name) in FILES.iter().enumerate() {
        pages += verify_file(&dir.join(name), index as u64, &mut told)?;
    }
    let Some((seed, total)) = told else { return Err(SampleError::Empty { path: dir.to_owned() }) };
    let bytes = pages * PAGE_BYTES as u64;
    if pages != total {
        let expected = total.saturating_mul(PAGE_BYTES as u64);
        return Err(SampleError::Length { path: dir.to_owned(), expected, found: bytes });
    }
    Ok(Sample { pages, bytes, seed })
}

/// Checks one file and gives its number of pages. All pages must tell the same seed and total.
fn verify_file(path: &Path, index: u64, told: &mut Option<(u64, u64)>) -> Result<u64, SampleError> {
    let io_error = |source| SampleError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    let count = length / PAGE_BYTES as u64;
    let mut buffer = vec![0; BATCH * PAGE_BYTES];
    let mut page = 0;
    while page < count {
        let batch = usize::try_from(count - page).map_or(BATCH, |left| left.min(BATCH));
        let buffer = &mut buffer[..batch * PAGE_BYTES];
        file.read_exact(buffer).map_err(io_error)?;
        for bytes in buffer.chunks_exact(PAGE_BYTES) {
            let told_count = word(bytes, COUNT_AT);
            let (told_seed, told_total) = (word(bytes, SEED_AT), word(bytes, TOTAL_AT));
            let (seed, total) = *told.get_or_insert((told_seed, told_total));
            for (field, expected, found) in [
                ("the magic", u64::from_le_bytes(MAGIC), word(bytes, 0)),
                ("the checksum", u64::from(checksum(bytes)), half_word(bytes, CHECKSUM_AT)),
                ("the number of the file", index, half_word(bytes, FILE_AT)),
                ("the number of the page", page, word(bytes, PAGE_AT)),
                ("the seed", seed, told_seed),
                ("the number of all pages", total, told_total),
            ] {
                if expected != found {
                    return Err(SampleError::Page { path: path.to_owned(), page, field, expected, found });
                }
            }
            if told_count != count {
                let expected = told_count.saturating_mul(PAGE_BYTES as u64);
                return Err(SampleError::Length { path: path.to_owned(), expected, found: length });
            }
            page += 1;
        }
    }
    let whole = count * PAGE_BYTES as u64;
    if length == whole {
        Ok(count)
    } else {
        Err(SampleError::Length { path: path.to_owned(), expected: whole, found: length })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn database(bytes: u64, seed: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), bytes, seed).unwrap();
        dir
    }

    fn contents(dir: &Path) -> Vec<Vec<u8>> {
        FILES.iter().map(|name| fs::read(dir.join(name)).unwrap()).collect()
    }

    #[test]
    fn the_size_is_rounded_up_to_pages() {
        for (bytes, pages) in [(1, 1), (8192, 1), (8193, 2), (100_000, 13), (3 << 20, 384)] {
            let dir = database(bytes, 7);
            let sum: usize = contents(dir.path()).iter().map(Vec::len).sum();
            assert_eq!(sum, pages * PAGE_BYTES);
            let sample = Sample { pages: pages as u64, bytes: sum as u64, seed: 7 };
            assert_eq!(verify(dir.path()).unwrap(), sample);
        }
        let empty = database(0, 7);
        assert!(matches!(verify(empty.path()), Err(SampleError::Empty { .. })));
    }

    #[test]
    fn the_seed_decides_the_contents() {
        let (a, b, c) = (database(200_000, 1), database(200_000, 1), database(200_000, 2));
        assert_eq!(contents(a.path()), contents(b.path()));
        assert_ne!(contents(a.path()), contents(c.path()));
        // The bytes are part of the promise: a change of the generator must be a decision.
        let all: Vec<u8> = contents(a.path()).concat();
        assert_eq!(crc32fast::hash(&all), PINNED);
    }

    /// CRC-32 of the files of `create(.., 200_000, 1)` one after the other.
    const PINNED: u32 = 1_822_176_702;

    #[test]
    fn damage_is_found() {
        let dir = database(300_000, 3);
        let path = dir.path().join(FILES[0]);
        let file = OpenOptions::new().write(true).read(true).open(&path).unwrap();
        for at in [0, 9, 13, 17, 25, 33, 60, 500, 8191, 8192 * 3 + 77] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            let error = verify(dir.path()).unwrap_err();
            assert!(matches!(&error, SampleError::Page { page, .. } if *page == at / 8192), "{at}: {error}");
            assert!(error.to_string().contains("sample.mdf"), "{error}");
            file.write_all_at(&byte, at).unwrap();
            verify(dir.path()).unwrap();
        }
        // A page in another page's place.
        let mut page = vec![0; PAGE_BYTES];
        file.read_exact_at(&mut page, 0).unwrap();
        file.write_all_at(&page, 8192).unwrap();
        let error = verify(dir.path()).unwrap_err();
        assert!(matches!(error, SampleError::Page { page: 1, field: "the number of the page", .. }), "{error}");
    }

    #[test]
    fn wrong_lengths_and_foreign_files_are_found() {
        let dir = database(300_000, 3);
        let file = OpenOptions::new().write(true).open(dir.path().join(FILES[2])).unwrap();
        file.set_len(PAGE_BYTES as u64).unwrap();
        assert!(matches!(verify(dir.path()), Err(SampleError::Length { .. })));
        file.set_len(0).unwrap();
        assert!(matches!(verify(dir.path()), Err(SampleError::Length { expected: 303_104, .. })));
        drop(file);
        let (dir, other) = (database(300_000, 3), database(300_000, 4));

        fs::copy(other.path().join(FILES[1]), dir.path().join(FILES[1])).unwrap();
        assert!(matches!(verify(dir.path()), Err(SampleError::Page { field: "the seed", page: 0, .. })));
        fs::remove_file(dir.path().join(FILES[1])).unwrap();
        assert!(matches!(verify(dir.path()), Err(SampleError::Io { .. })));
    }

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILES[1]), b"mine").unwrap();
        let error = create(dir.path(), 100_000, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(FILES[1]), "{error}");
        assert!(!dir.path().join(FILES[0]).exists());
        assert_eq!(fs::read(dir.path().join(FILES[1])).unwrap(), b"mine");
    }
}
