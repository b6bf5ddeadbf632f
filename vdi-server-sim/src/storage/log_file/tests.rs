#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use vdi_mtf::sqlserver::log::LogVerifier;

use super::*;
use crate::storage::fixture::{self, MAJOR, flip, make_file};

const MB: u64 = 1 << 20;

struct Made {
    _dir: tempfile::TempDir,
    row: FileRow,
    file: File,
}

fn made(size: u64, major: u8) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::file_row(dir.path(), "log.ldf", 2, size);
    let file = make_file(&row.path);
    format(&file, &row, major).unwrap();
    Made { _dir: dir, row, file }
}

/// The bytes of a range.
fn range(file: &File, row: &FileRow, vlf: &Vlf) -> Vec<u8> {
    let mut bytes = vec![0; vlf.range_len() as usize];
    read_bytes(file, row, vlf.start, &mut bytes).unwrap();
    bytes
}

impl Made {
    fn open(&self) -> LogFile {
        LogFile::open(&self.file, &self.row, MAJOR).unwrap()
    }

    /// What the verifier of backups says of the active range.
    fn verify(&self, log: &LogFile) {
        let active = log.active();
        let vlf = &active[0];
        assert_eq!(vlf.sequence, log.last_lsn().vlf);
        assert_eq!(vlf.start, vlf.offset + 512 * u64::from(log.last_lsn().block));
        assert!(active[1..].iter().all(|vlf| vlf.sequence == 0 && vlf.range_len() == 0));
        let mut bytes = vec![0; 2];
        bytes.extend(range(&self.file, &self.row, vlf));
        bytes.resize(65536 + 2, 0);
        let mut verifier = LogVerifier::new(vlf, 0);
        verifier.update(&bytes, |error| panic!("{error}"));
        assert_eq!(verifier.blocks(), 1);
    }
}

#[test]
fn a_log_is_divided_as_sql_server_divides_it() {
    assert_eq!(vlf_sizes(MB), [253_952, 253_952, 253_952, 278_528]);
    assert_eq!(vlf_sizes(2 * MB), [458_752, 458_752, 458_752, 712_704]);
    assert_eq!(vlf_sizes(8 * MB), [2_031_616, 2_031_616, 2_031_616, 2_285_568]);
    for (size, count) in [(64 * MB, 4), (65 * MB, 8), (1024 * MB, 8), (1025 * MB, 16), (MAX_SIZE, 16)] {
        let sizes = vlf_sizes(size);
        assert_eq!(sizes.len(), count, "{size}");
        assert_eq!(sizes.iter().sum::<u64>() + 8192, size);
        assert!(sizes.iter().all(|size| size.is_multiple_of(8192)));
    }
}

#[test]
fn a_new_log_has_one_block() {
    for major in [9, 10, 11, 14, 15, 16] {
        let made = made(MB, major);
        let log = LogFile::open(&made.file, &made.row, major).unwrap();
        assert_eq!(log.last_lsn(), INITIAL_LSN);
        made.verify(&log);
    }
}

#[test]
fn checkpoints_follow_each_other_and_are_found_again() {
    let made = made(MB, MAJOR);
    let mut log = made.open();
    let mut before = log.last_lsn();
    for _ in 0..5 {
        let (first, next) = log.checkpoint(&made.file).unwrap();
        assert!(before < first && first < next);
        made.verify(&log);
        let again = made.open();
        assert_eq!((again.last_lsn(), again.end), (first, next.block));
        assert!(same(&again.active(), &log.active()));
        before = first;
    }
}

#[test]
fn the_circle_is_used_again_with_the_other_parity() {
    let made = made(8192 + 4 * LEAST_VLF, MAJOR);
    let mut log = made.open();
    let mut other = made.open();
    let blocks = (LEAST_VLF / 512) as u32 - FIRST_BLOCK;
    let mut before = log.last_lsn();
    // Three times round.
    for index in 0..12 * blocks + 5 {
        let (first, _) = log.checkpoint(&made.file).unwrap();
        assert!(before < first);
        before = first;
        if index % 97 == 0 {
            made.verify(&log);
            assert_eq!(made.open().last_lsn(), first);
            other.refresh(&made.file).unwrap();
            assert_eq!((other.last_lsn(), other.end), (first, log.end));
        }
    }
    let parities: Vec<_> =
        by_place(&made.file, &made.row).unwrap().iter().map(|vlf| (vlf.sequence, vlf.parity)).collect();
    assert_eq!(parities, [(45, 0x80), (42, 0x40), (43, 0x40), (44, 0x40)]);
}

#[test]
fn a_torn_tail_is_not_part_of_the_log() {
    let made = made(MB, MAJOR);
    let mut log = made.open();
    let (whole, _) = log.checkpoint(&made.file).unwrap();
    let (torn, _) = log.checkpoint(&made.file).unwrap();
    let at = 8192 + 512 * u64::from(torn.block);
    for byte in 0..512 {
        flip(&made.file, at + byte);
        assert_eq!(made.open().last_lsn(), whole, "byte {byte}");
        flip(&made.file, at + byte);
    }
    assert_eq!(made.open().last_lsn(), torn);
}

#[test]
fn a_crash_between_header_and_block_leaves_a_log() {
    let made = made(MB, MAJOR);
    let mut log = made.open();
    let (before, _) = log.checkpoint(&made.file).unwrap();
    log.advance(&made.file).unwrap();
    let mut log = made.open();
    assert!(before < log.last_lsn());
    let last = log.last_lsn();
    let (first, _) = log.checkpoint(&made.file).unwrap();
    assert!(last < first);
    made.verify(&log);
}

#[test]
fn damage_of_headers_is_found() {
    let made = made(MB, MAJOR);
    let offsets: Vec<u64> = made.open().vlfs.iter().map(|vlf| vlf.offset).collect();
    for offset in offsets.iter().copied().chain([0]) {
        for at in [0, 9, 13, 16, 60, 108, 130, 700, 8191] {
            flip(&made.file, offset + at);
            let error = LogFile::open(&made.file, &made.row, MAJOR).unwrap_err();
            let found = matches!(&error, StorageError::Log { offset: found, .. } if *found == offset);
            assert!(found, "{offset}+{at}: {error}");
            flip(&made.file, offset + at);
        }
    }
    // A header in another's place.
    let mut header = [0; HEADER_LEN];
    made.file.read_exact_at(&mut header, offsets[0]).unwrap();
    made.file.write_all_at(&header, offsets[1]).unwrap();
    let error = LogFile::open(&made.file, &made.row, MAJOR).unwrap_err();
    assert!(error.to_string().contains("offset 8192"), "{error}");
}

#[test]
fn a_restored_log_goes_on_after_its_range() {
    let source = made(MB, MAJOR);
    let mut log = source.open();
    for _ in 0..3 {
        log.checkpoint(&source.file).unwrap();
    }
    let active = log.active();

    // A restore has the range and the rows only.
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::file_row(dir.path(), "log.ldf", 2, MB);
    let file = make_file(&row.path);
    file.set_len(MB).unwrap();
    let bytes = range(&source.file, &source.row, &active[0]);
    file.write_all_at(&bytes, active[0].start).unwrap();
    write_headers(&file, &row.path, &active).unwrap();
    assert!(same(&read_headers(&file, &row).unwrap(), &active));

    let restored = Made { _dir: dir, row, file };
    let mut log = restored.open();
    assert!(same(&log.active(), &active));
    let (first, _) = log.checkpoint(&restored.file).unwrap();
    assert_eq!((first.vlf, first.block), (33, FIRST_BLOCK + 4));
    restored.verify(&log);
    restored.verify(&restored.open());
}

#[test]
fn virtual_log_files_that_cannot_be_are_refused() {
    let made = made(MB, MAJOR);
    let vlfs = made.open().vlfs;
    type Change = fn(&mut Vec<Vlf>);
    let changes: [(&str, Change); 8] = [
        ("gap", |vlfs| vlfs[1].offset += 512),
        ("size", |vlfs| vlfs[3].size += 512),
        ("missing", |vlfs| drop(vlfs.pop())),
        ("none", Vec::clear),
        ("start", |vlfs| (vlfs[0].start, vlfs[0].end) = (8192, 16384)),
        ("end", |vlfs| (vlfs[0].start, vlfs[0].end) = (16384, u64::MAX)),
        ("file", |vlfs| vlfs[2].file_id = FileId(3)),
        ("row", |vlfs| vlfs[2].raw.resize(9000, 0)),
    ];
    for (name, change) in changes {
        let mut changed = vlfs.clone();
        change(&mut changed);
        let error = write_headers(&made.file, &made.row.path, &changed).unwrap_err();
        assert!(matches!(error, StorageError::Log { .. }), "{name}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_headers_never_panic(vlf in any::<usize>(), at in 0..600_usize, bytes in proptest::collection::vec(any::<u8>(), 1..16)) {
        let made = made(8192 + 4 * LEAST_VLF, MAJOR);
        let log = made.open();
        let offset = log.vlfs[vlf % 4].offset;
        let mut header = [0; HEADER_LEN];
        made.file.read_exact_at(&mut header, offset).unwrap();
        header[BLOCK_AT + at..BLOCK_AT + at + bytes.len()].copy_from_slice(&bytes);
        header[CHECKSUM_AT..BLOCK_AT].fill(0);
        let sum = SectorSum::of(&header);
        header[CHECKSUM_AT..BLOCK_AT].copy_from_slice(&sum.to_le_bytes());
        made.file.write_all_at(&header, offset).unwrap();
        if let Ok(mut log) = LogFile::open(&made.file, &made.row, MAJOR) {
            let _ = log.checkpoint(&made.file);
            let _ = log.refresh(&made.file);
        }
    }
}
