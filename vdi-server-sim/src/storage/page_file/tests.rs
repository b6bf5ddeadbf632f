#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, reason = "tests; lists of ranges")]

use proptest::prelude::*;

use super::*;
use crate::storage::fixture::{self, flip};
use crate::storage::log_file::INITIAL_LSN;

const MB: u64 = 1 << 20;

fn fill(page: PageAddress, bytes: &mut Page) -> Result<(), StorageError> {
    *bytes = fixed_page::empty_page(page, INITIAL_LSN);
    Ok(())
}

/// Every page that PFS allocates is whole and in its place, and the first page of every allocated extent is.
fn check_pages(file: PageFile<'_>) {
    let mut found = 0;
    file.each_piece(|first, bytes| {
        for (number, page) in (first..).zip(bytes.as_chunks::<PAGE_LEN>().0) {
            let pfs = file.read_fixed(layout::pfs_page_of(number), page_type::PFS)?;
            let allocated = fixed_page::pfs(&pfs)[(number % vdi_mtf::page::PFS_INTERVAL) as usize] & 0x40 != 0;
            if allocated {
                verify(page, 0).unwrap();
            }
            if allocated || number % EXTENT_PAGES == 0 {
                assert_eq!(PageHeader::decode(page).unwrap().address(), file.address(number));
                found += 1;
            }
        }
        Ok(())
    })
    .unwrap();
    assert!(found >= 6);
}

#[test]
fn new_files_have_their_fixed_pages() {
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::row(dir.path(), &[8 * MB, MB]);
    let files = fixture::make(&row);
    for (row, handle) in row.files.iter().zip(&files).filter(|(row, _)| row.file_type == FileType::Data) {
        assert_eq!(handle.metadata().unwrap().len(), row.size);
        let file = PageFile::new(row, handle);
        for (page, page_type) in layout::fixed_pages(row.file_id, file.pages) {
            file.read_fixed(page, page_type).unwrap();
        }
        assert_eq!(file.extents().unwrap(), [0..if row.file_id == PRIMARY { 2 } else { 1 }]);
        assert_eq!(file.content_pages().unwrap(), []);
        check_pages(file);
    }
}

#[test]
fn a_large_file_has_repeats_and_takes_little_space() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::row(dir.path(), &[5 << 30]);
    let files = fixture::make(&row);
    let file = PageFile::new(&row.files[0], &files[0]);
    let repeats = file.pages / 8088;
    let extents: u32 = file.extents().unwrap().iter().map(|range| range.end - range.start).sum();
    // Two at the start, one for each PFS page, one for the second GAM page.
    assert_eq!(extents, 2 + repeats + 1);
    check_pages(file);
    assert!(files[0].metadata().unwrap().blocks() * 512 < 4 * MB);
}

#[test]
fn allocated_extents_are_content_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    // Two intervals of PFS.
    let row = fixture::row(dir.path(), &[80 * MB]);
    let files = fixture::make(&row);
    let file = PageFile::new(&row.files[0], &files[0]);
    file.allocate(5, INITIAL_LSN, fill).unwrap();
    assert_eq!(file.extents().unwrap(), [0..7, 1011..1012]);
    file.allocate(1100, INITIAL_LSN, fill).unwrap();
    let pages = file.content_pages().unwrap();
    assert_eq!(pages.len(), 1105 * 8);
    assert_eq!(file.extents().unwrap(), [0..2 + 1105 + 1]);
    assert!(pages.iter().all(|page| layout::is_content_extent(FileId(1), page.page.0 / 8)));
    check_pages(file);

    let error = file.allocate(1000, INITIAL_LSN, fill).unwrap_err();
    assert!(matches!(error, StorageError::Full { extents: 1000, free: 172, .. }), "{error}");
    file.allocate(172, INITIAL_LSN, fill).unwrap();
    assert_eq!(file.extents().unwrap(), [0..1280]);
}

#[test]
fn damage_of_fixed_pages_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::row(dir.path(), &[MB]);
    let files = fixture::make(&row);
    let file = PageFile::new(&row.files[0], &files[0]);
    for (page, page_type) in layout::fixed_pages(FileId(1), file.pages) {
        for at in [1, 32, 36, 60, 96, 194, 4000, 8191] {
            flip(&files[0], u64::from(page) * 8192 + at);
            let error = file.read_fixed(page, page_type).unwrap_err();
            assert!(error.to_string().contains(&format!("1:{page}")), "{error}");
            if page == 2 {
                assert!(file.extents().is_err());
            }
            flip(&files[0], u64::from(page) * 8192 + at);
            file.read_fixed(page, page_type).unwrap();
        }
    }
    // A page in another page's place.
    let gam = file.read_fixed(2, page_type::GAM).unwrap();
    file.write_page(3, &gam).unwrap();
    let error = file.read_fixed(3, page_type::GAM).unwrap_err();
    assert!(matches!(error, StorageError::Page { field: "number", expected: 3, found: 2, .. }), "{error}");
}

#[test]
fn a_gam_page_that_allocates_past_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::row(dir.path(), &[MB]);
    let files = fixture::make(&row);
    let file = PageFile::new(&row.files[0], &files[0]);
    let mut gam = file.read_fixed(2, page_type::GAM).unwrap();
    set_bit(&mut gam, 16, false);
    protect(&mut gam);
    file.write_page(2, &gam).unwrap();
    let error = file.extents().unwrap_err();
    assert!(matches!(error, StorageError::GamPastEnd { extent: 16, pages: 128, .. }), "{error}");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 65536, MB + 8192, 3 << 40] {
        let mut row = fixture::row(dir.path(), &[size]);
        row.files[0].path = dir.path().join(size.to_string());
        let files = [fixture::make_file(&row.files[0].path)];
        let error = format(&row, &files).unwrap_err();
        assert!(matches!(error, StorageError::InvalidSize { .. }), "{size}: {error}");
    }
}

#[test]
fn the_boot_page_names_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let row = fixture::row(dir.path(), &[MB]);
    let files = fixture::make(&row);
    let file = PageFile::new(&row.files[0], &files[0]);
    assert_eq!(file.checkpoint_lsn().unwrap(), INITIAL_LSN);
    let lsn = Lsn { vlf: 40, block: 99, slot: 1 };
    file.set_checkpoint_lsn(lsn, lsn).unwrap();
    assert_eq!(file.checkpoint_lsn().unwrap(), lsn);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn allocations_follow_each_other(counts in proptest::collection::vec(0_u64..6, 0..5)) {
        let dir = tempfile::tempdir().unwrap();
        let row = fixture::row(dir.path(), &[MB, 2 * MB]);
        let files = fixture::make(&row);
        let file = PageFile::new(&row.files[1], &files[1]);
        let mut extents = 1;
        for count in counts {
            file.allocate(count, INITIAL_LSN, fill).unwrap();
            extents += count as u32;
            let expected = 0..extents;
            prop_assert_eq!(file.extents().unwrap(), [expected]);
        }
    }
}

#[test]
fn a_gam_page_in_too_many_pieces_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Enough extents for one range more than are kept, every other one allocated.
    let intervals = (2 * MAX_RANGES as u32).div_ceil(GAM_EXTENTS) + 1;
    let row =
        fixture::file_row(dir.path(), "one.mdf", 1, u64::from(intervals) * u64::from(layout::GAM_INTERVAL) * 8192);
    let handle = fixture::make_file(&row.path);
    handle.set_len(row.size).unwrap();
    let file = PageFile::new(&row, &handle);
    for interval in 0..intervals {
        let at = layout::gam_page_of(interval * GAM_EXTENTS);
        let odd = (0..GAM_EXTENTS).filter(|extent| extent % 2 == 1);
        let page = fixed_page::bitmap_page(file.address(at), page_type::GAM, INITIAL_LSN, false, odd);
        file.write_page(at, &page).unwrap();
    }
    let error = file.extents().unwrap_err();
    assert!(matches!(error, StorageError::Unsupported { .. }), "{error}");
}
