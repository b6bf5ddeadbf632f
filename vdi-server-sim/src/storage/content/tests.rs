#![allow(clippy::unwrap_used, reason = "tests")]

use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::value::{FileId, Lsn, PageAddress, PageId};

use super::Stamp;

fn page(stamp: Stamp) -> [u8; PAGE_LEN] {
    let mut page = [0xA5; PAGE_LEN];
    stamp.fill(Lsn { vlf: 1, block: 2, slot: 3 }, &mut page);
    page
}

fn stamp(page: u32, sequence: u64) -> Stamp {
    Stamp { page: PageAddress { file: FileId(1), page: PageId(page) }, sequence }
}

#[test]
fn stamps_are_read_again() {
    for stamp in [stamp(16, 0), stamp(17, 1), stamp(u32::MAX, u64::MAX)] {
        assert_eq!(Stamp::read(&page(stamp)), Some(stamp));
    }
    assert_eq!(Stamp::read(&[0; PAGE_LEN]), None);
}

#[test]
fn every_flipped_bit_is_found() {
    let mut bytes = page(stamp(16, 7));
    for bit in 0..PAGE_LEN * 8 {
        // The bytes that the header has no meaning for are covered by the checksum too.
        bytes[bit / 8] ^= 1 << (bit % 8);
        if bit % 13 == 0 {
            assert_eq!(Stamp::read(&bytes), None, "bit {bit}");
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_page_of_two_writes_is_torn_wherever_they_meet() {
    // Sequences that differ by the number of pages, also by a multiple of 256.
    for (old, new) in [(1, 2), (1, 257), (5, 5 + 4096), (0, u64::MAX)] {
        let (before, after) = (page(stamp(16, old)), page(stamp(16, new)));
        for at in (64..PAGE_LEN).step_by(64) {
            assert_ne!(before[at..at + 64], after[at..at + 64], "byte {at}");
            let mut torn = before;
            torn[..at].copy_from_slice(&after[..at]);
            assert_eq!(Stamp::read(&torn), None, "byte {at}");
        }
    }
}

#[test]
fn the_bytes_of_a_stamp_stay() {
    assert_eq!(crc32fast::hash(&page(stamp(16, 7))), PINNED);
}

/// The CRC-32 of a page: another generator would make databases that an earlier version made look damaged.
const PINNED: u32 = 0;
