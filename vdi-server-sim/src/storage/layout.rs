//! Where the fixed pages of a data file are: pure arithmetic.
//!
//! | page | what it is | again |
//! |---|---|---|
//! | 0 | file header | |
//! | 1 | PFS: a byte for each page | each 8,088 pages |
//! | 2, 3 | GAM, SGAM: a bit for each extent | each 511,232 pages, at +0 and +1 |
//! | 6, 7 | DCM, BCM: a bit for each extent | each 511,232 pages, at +6 and +7 |
//! | 9 | boot page, in file 1 only | |
//!
//! Both distances are whole extents. So the first page of an extent that a repeat allocates has a header, and a backup can place it.
//! Content never shares an extent with a fixed page.

use vdi_mtf::page::{EXTENT_PAGES, PFS_INTERVAL, page_type};
use vdi_mtf::value::FileId;

/// Pages that one GAM page describes.
pub(super) const GAM_INTERVAL: u32 = 511_232;
/// Extents that one GAM page describes.
pub(super) const GAM_EXTENTS: u32 = GAM_INTERVAL / EXTENT_PAGES;
/// Extents between two PFS pages.
const PFS_EXTENTS: u32 = PFS_INTERVAL / EXTENT_PAGES;
/// The boot page of the primary data file.
pub(super) const BOOT_PAGE: u32 = 9;
/// The primary data file.
pub(super) const PRIMARY: FileId = FileId(1);
/// The most pages of a data file: 2 TiB. Within them no page is a PFS page and a GAM page at once.
pub(super) const MAX_PAGES: u32 = 1 << 28;

/// The [type](page_type) of a fixed page. `None` if the page is none.
pub(super) fn fixed_page(file: FileId, page: u32) -> Option<u8> {
    match (page, page % GAM_INTERVAL) {
        (0, _) => Some(page_type::FILE_HEADER),
        (1, _) => Some(page_type::PFS),
        (2, _) => Some(page_type::GAM),
        (3, _) => Some(page_type::SGAM),
        (BOOT_PAGE, _) if file == PRIMARY => Some(page_type::BOOT),
        (_, 6) => Some(page_type::DIFFERENTIAL_MAP),
        (_, 7) => Some(page_type::BULK_MAP),
        (_, 0) => Some(page_type::GAM),
        (GAM_INTERVAL.., 1) => Some(page_type::SGAM),
        _ if page.is_multiple_of(PFS_INTERVAL) => Some(page_type::PFS),
        _ => None,
    }
}

/// All fixed pages of a file of `pages` pages, ascending, with their types.
pub(super) fn fixed_pages(file: FileId, pages: u32) -> Vec<(u32, u8)> {
    let repeats = |interval: u32, at: u32| (1..=pages / interval).map(move |index| index * interval + at);
    let mut found: Vec<u32> = [0, 1, 2, 3, 6, 7, BOOT_PAGE]
        .into_iter()
        .chain(repeats(PFS_INTERVAL, 0))
        .chain([0, 1, 6, 7].into_iter().flat_map(|at| repeats(GAM_INTERVAL, at)))
        .filter(|&page| page < pages)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().filter_map(|page| Some((page, fixed_page(file, page)?))).collect()
}

/// The page with the GAM bit of an extent.
pub(super) fn gam_page_of(extent: u32) -> u32 {
    match extent / GAM_EXTENTS {
        0 => 2,
        interval => interval * GAM_INTERVAL,
    }
}

/// The page with the PFS byte of a page.
pub(super) fn pfs_page_of(page: u32) -> u32 {
    match page / PFS_INTERVAL {
        0 => 1,
        interval => interval * PFS_INTERVAL,
    }
}

/// Whether an extent can hold content: it has no fixed page.
pub(super) fn is_content_extent(file: FileId, extent: u32) -> bool {
    let first = if file == PRIMARY { 2 } else { 1 };
    extent >= first && !extent.is_multiple_of(PFS_EXTENTS) && !extent.is_multiple_of(GAM_EXTENTS)
}

/// The pages that a file needs, in whole extents, to have `extents` extents for content.
pub(super) fn pages_for(file: FileId, extents: u64) -> u64 {
    let reserved = |all: u64| {
        let repeats = |interval: u32| all.saturating_sub(1) / u64::from(interval);
        let first = if file == PRIMARY { 2 } else { 1 };
        first + repeats(PFS_EXTENTS) + repeats(GAM_EXTENTS)
    };
    let mut all = extents;
    while all - reserved(all).min(all) < extents {
        all = extents + reserved(all);
    }
    all.max(reserved(1)) * u64::from(EXTENT_PAGES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fixed_pages_of_a_small_file() {
        let types = |file| fixed_pages(FileId(file), 64).into_iter().map(|(page, _)| page).collect::<Vec<_>>();
        assert_eq!(types(1), [0, 1, 2, 3, 6, 7, 9]);
        assert_eq!(types(3), [0, 1, 2, 3, 6, 7]);
        assert_eq!(fixed_page(PRIMARY, 8088), Some(page_type::PFS));
        assert_eq!(fixed_page(PRIMARY, 16_176), Some(page_type::PFS));
        assert_eq!(fixed_page(PRIMARY, 511_232), Some(page_type::GAM));
        assert_eq!(fixed_page(PRIMARY, 511_233), Some(page_type::SGAM));
        assert_eq!(fixed_page(PRIMARY, 511_238), Some(page_type::DIFFERENTIAL_MAP));
        assert_eq!(fixed_page(PRIMARY, 511_239), Some(page_type::BULK_MAP));
        assert_eq!(fixed_page(PRIMARY, 4), None);
    }

    proptest! {
        #[test]
        fn list_and_predicate_agree(pages in 0..4 * GAM_INTERVAL, file in 1_u16..4) {
            // The last 20,000 pages: a whole list takes long.
            let from = pages.saturating_sub(20_000);
            let mut listed = fixed_pages(FileId(file), pages);
            listed.retain(|(page, _)| *page >= from);
            let found: Vec<_> = (from..pages).filter_map(|page| Some((page, fixed_page(FileId(file), page)?))).collect();
            prop_assert_eq!(listed, found);
        }

        #[test]
        fn content_extents_have_no_fixed_pages(extent in 0..MAX_PAGES / 8, file in 1_u16..4) {
            let fixed = (extent * 8..extent * 8 + 8).any(|page| fixed_page(FileId(file), page).is_some());
            let is_boot = file == 1 && extent == 1;
            let expected = !(fixed || is_boot);
            prop_assert_eq!(is_content_extent(FileId(file), extent), expected);
        }

        #[test]
        fn an_extent_of_repeats_begins_with_a_fixed_page(extent in 2..MAX_PAGES / 8) {
            if !is_content_extent(PRIMARY, extent) {
                prop_assert!(fixed_page(PRIMARY, extent * 8).is_some());
            }
        }

        #[test]
        fn maps_lie_in_the_interval_that_they_describe(page in 0..MAX_PAGES) {
            let (pfs, gam) = (pfs_page_of(page), gam_page_of(page / 8));
            prop_assert_eq!(fixed_page(PRIMARY, pfs), Some(page_type::PFS));
            prop_assert_eq!(fixed_page(PRIMARY, gam), Some(page_type::GAM));
            prop_assert_eq!(pfs / PFS_INTERVAL, page / PFS_INTERVAL);
            prop_assert_eq!(gam / GAM_INTERVAL, page / GAM_INTERVAL);
        }

        #[test]
        fn pages_for_is_enough_and_not_more(extents in 0_u64..200_000, file in 1_u16..3) {
            let pages = pages_for(FileId(file), extents) as u32;
            let content = |pages: u32| (0..pages / 8).filter(|&extent| is_content_extent(FileId(file), extent)).count() as u64;
            prop_assert_eq!(content(pages), extents);
            if extents > 0 {
                prop_assert!(content(pages - 8) < extents);
            }
        }
    }
}
