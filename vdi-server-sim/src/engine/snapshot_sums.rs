//! What a backup WITH SNAPSHOT says of the frozen files, and where in its stream it says so.
//!
//! ```text
//! label, filemark | [list of the files] | SSET VOLB MSCI MSLS filemark ESET ESET filemark
//! ```
//!
//! The stream is a backup set without pages and log, with the flag [`SNAPSHOT`](vdi_mtf::sqlserver::config::database_flags::SNAPSHOT).
//!
//! # Sums
//!
//! The CRC-32 (IEEE 802.3) of all bytes of each frozen file. It is in the file's record (SFIN) of both configurations, in bytes that are
//! zero in all backups of SQL Server: at 384 the four letters `VSUM`, at 388 the sum, little-endian. A file without them has no sum
//! (NO_CHECKSUM).
//!
//! # The list of the files
//!
//! Between FileInfoBegin and FileInfoEnd the client gets text: for each file its absolute path and a line feed; then at least one NUL, up to
//! the next multiple of BLOCKSIZE. It is no part of the stream: addresses in the stream do not count it. A client may store these Writes
//! with the others or not, so a restore skips them where it finds them: what comes after the label's filemark begins with `SSET`, or with
//! the `/` of the list. The list ends with its NULs, since a block does not begin with one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vdi_mtf::sqlserver::config::FileRecord;

/// Where the sum is in a file's record.
const AT: usize = 384;
/// The letters before the sum.
const TAG: [u8; 4] = *b"VSUM";
/// Bytes of letters and sum.
const LEN: usize = 8;

/// The longest list: 32,767 files with the longest paths, and the NULs behind them.
const MAX_LIST: u64 = 32_767 * 4097 + 65_536;

/// Puts the sum of a file into its record.
pub(super) fn encode(record: &mut FileRecord, sum: u32) {
    if record.raw.len() < AT + LEN {
        record.raw.resize(AT + LEN, 0);
    }
    record.raw[AT..AT + 4].copy_from_slice(&TAG);
    record.raw[AT + 4..AT + LEN].copy_from_slice(&sum.to_le_bytes());
}

/// The sum in the record of a file, if it has one.
pub(super) fn decode(record: &FileRecord) -> Option<u32> {
    let bytes = record.raw.get(AT..AT + LEN)?.strip_prefix(&TAG)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The sum of the first `len` bytes of a file. `None` once `stop` says so.
///
/// # Errors
/// Those of reading; [`io::ErrorKind::UnexpectedEof`] for a shorter file.
pub(super) fn sum(file: &File, len: u64, stop: &dyn Fn() -> bool) -> io::Result<Option<u32>> {
    let mut buffer = vec![0; 1 << 20];
    let (mut hasher, mut at) = (crc32fast::Hasher::new(), 0);
    while at < len {
        if stop() {
            return Ok(None);
        }
        let piece = &mut buffer[..(len - at).min(1 << 20) as usize];
        file.read_exact_at(piece, at)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    Ok(Some(hasher.finalize()))
}

/// The list of the files, with its padding.
///
/// # Errors
/// A path that is not absolute, or has a line feed in it.
pub(super) fn list<'a>(paths: impl Iterator<Item = &'a Path>, block_size: u32) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for path in paths {
        let line = path.as_os_str().as_encoded_bytes();
        if !line.starts_with(b"/") || line.contains(&b'\n') {
            let what = format!("the path {} is not absolute, or has a line feed in it", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(0);
    text.resize(text.len().next_multiple_of(block_size as usize), 0);
    Ok(text)
}

/// Skips the list of the files where there is one: see the module.
#[derive(Debug)]
pub(super) struct ListSkipper {
    /// Bytes of the list so far.
    position: u64,
    /// The text has ended.
    nul: bool,
    done: bool,
}

/// What [`ListSkipper::skip`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skipped {
    /// The input is used up, and the list may go on.
    More,
    /// The stream goes on with the rest of the input.
    Done,
    /// The list is longer than any can be.
    TooLong,
}

impl ListSkipper {
    /// A skipper that begins behind the label's filemark.
    pub(super) fn new() -> ListSkipper {
        ListSkipper { position: 0, nul: false, done: false }
    }

    /// Takes bytes of the list from the front of `input`.
    pub(super) fn skip(&mut self, input: &mut &[u8]) -> Skipped {
        if self.position == 0 && input.first().is_some_and(|&first| first != b'/') {
            self.done = true;
        }
        if !self.done && !self.nul {
            let text = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
            self.nul = text < input.len();
            self.take(input, text);
        }
        if !self.done && self.nul {
            let nuls = input.iter().position(|&byte| byte != 0).unwrap_or(input.len());
            self.done = nuls < input.len();
            self.take(input, nuls);
        }
        match self.done {
            true => Skipped::Done,
            false if self.position > MAX_LIST => Skipped::TooLong,
            false => Skipped::More,
        }
    }

    fn take(&mut self, input: &mut &[u8], len: usize) {
        *input = input.get(len..).unwrap_or_default();
        self.position += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vdi_mtf::sqlserver::config::FileType;
    use vdi_mtf::value::FileId;

    use super::*;

    #[test]
    fn a_sum_comes_back_from_the_record() {
        for major in [9, 10, 16] {
            let mut record = FileRecord::new(major, FileId(1), FileType::Data);
            assert_eq!(decode(&record), None);
            encode(&mut record, 0x1234_5678);
            assert_eq!(decode(&record), Some(0x1234_5678));
        }
        let mut short = FileRecord::default();
        encode(&mut short, 7);
        assert_eq!(decode(&short), Some(7));
    }

    #[test]
    fn a_sum_is_of_the_bytes_that_were_asked_for() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0_u32..3_000_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        file.write_all(&bytes).unwrap();
        assert_eq!(sum(&file, 2_500_000, &|| false).unwrap(), Some(crc32fast::hash(&bytes[..2_500_000])));
        assert_eq!(sum(&file, 2_500_000, &|| true).unwrap(), None);
        assert_eq!(sum(&file, 3_000_001, &|| false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// With and without the list, in pieces of any size, the same rest comes.
    #[test]
    fn the_list_is_skipped_where_it_is() {
        for block_size in [512, 4096, 65536] {
            for name in [10, 500, 510, 511, 512, 4094, 4095] {
                let path = format!("/{}", "x".repeat(name));
                let list = list([Path::new(&path)].into_iter(), block_size).unwrap();
                assert!(list.len().is_multiple_of(block_size as usize) && list.ends_with(&[0]));
                let rest = b"SSET and more".as_slice();
                for bytes in [[list.as_slice(), rest].concat(), rest.to_vec()] {
                    for piece in [1, 7, 512, 100_000] {
                        let (mut skipper, mut found) = (ListSkipper::new(), Vec::new());
                        for mut input in bytes.chunks(piece) {
                            if skipper.skip(&mut input) == Skipped::Done {
                                found.extend_from_slice(input);
                            }
                        }
                        assert_eq!(found, rest, "{block_size}, {name}, {piece}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_list_without_an_end_is_refused() {
        let mut skipper = ListSkipper::new();
        let block = vec![b'/'; 1 << 20];
        let mut pieces = 0;
        while skipper.skip(&mut block.as_slice()) == Skipped::More {
            pieces += 1;
        }
        assert!(pieces < 130, "{pieces}");
        assert!(list([Path::new("/a\nb")].into_iter(), 512).is_err());
        assert!(list([Path::new("a")].into_iter(), 512).is_err());
    }
}
