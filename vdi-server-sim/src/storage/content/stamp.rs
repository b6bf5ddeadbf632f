//! Pages that say which one they are, and by which write they were written.
//!
//! The body of the page, little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 96 | 8 | `VDISTAMP` |
//! | 104 | 8 | sequence |
//! | 112 | 16 | words of the first row |
//! | 128 | | rows of 64 bytes: 32 that depend on sequence, file, page and place; 32 that are always the same |

use vdi_mtf::page::{HEADER_LEN, PAGE_LEN, PageHeader, page_type, protect};
use vdi_mtf::value::{Lsn, PageAddress};

use crate::storage::fixed_page::{Page, content_header};

/// The object that stamped pages belong to.
const OBJECT: u32 = 1_000_001;
const MAGIC: [u8; 8] = *b"VDISTAMP";
const SEQUENCE_AT: usize = HEADER_LEN + 8;
const ROWS_AT: usize = 128;
const ROW_LEN: usize = 64;
/// The second half of each row, so that a compressor finds something to do, but not much.
const CONSTANT: [u8; ROW_LEN / 2] = *b" | sample row | status: active |";

/// A page that says which one it is and by which write it was written.
///
/// Every 64 bytes of its body depend on both, so a page of two writes is damaged wherever they meet.
///
/// ```
/// use vdi_mtf::value::{FileId, Lsn, PageAddress, PageId};
/// use vdi_server_sim::storage::content::Stamp;
///
/// let mut page = [0; 8192];
/// let stamp = Stamp { page: PageAddress { file: FileId(1), page: PageId(24) }, sequence: 99 };
/// stamp.fill(Lsn::default(), &mut page);
/// assert_eq!(Stamp::read(&page), Some(stamp));
/// page[3000] ^= 1;
/// assert_eq!(Stamp::read(&page), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The page.
    pub page: PageAddress,
    /// Which write it was written by.
    pub sequence: u64,
}

impl Stamp {
    /// Makes the page: header, body, checksum.
    pub fn fill(&self, lsn: Lsn, page: &mut [u8; PAGE_LEN]) {
        page[..ROWS_AT].fill(0);
        content_header(self.page, OBJECT, lsn).encode_into(page);
        page[HEADER_LEN..SEQUENCE_AT].copy_from_slice(&MAGIC);
        page[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&self.sequence.to_le_bytes());
        let address = u64::from(self.page.file.0) << 32 | u64::from(self.page.page.0);
        let mut state = mix(self.sequence ^ mix(address ^ 0x5644_4953_5441_4D50));
        let mut next = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(state).to_le_bytes()
        };
        for word in page[SEQUENCE_AT + 8..ROWS_AT].chunks_exact_mut(8) {
            word.copy_from_slice(&next());
        }
        for row in page[ROWS_AT..].chunks_exact_mut(ROW_LEN) {
            let (words, constant) = row.split_at_mut(ROW_LEN / 2);
            for word in words.chunks_exact_mut(8) {
                word.copy_from_slice(&next());
            }
            constant.copy_from_slice(&CONSTANT);
        }
        protect(page);
    }

    /// Reads a page. `None` if it is no stamped page, or damaged. All its bytes are compared with those that the stamp gives.
    #[must_use]
    pub fn read(page: &[u8; PAGE_LEN]) -> Option<Stamp> {
        let header = PageHeader::decode(page).filter(Stamp::is_header)?;
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&page[SEQUENCE_AT..SEQUENCE_AT + 8]);
        let stamp = Stamp { page: header.address(), sequence: u64::from_le_bytes(sequence) };
        let mut expected: Page = [0; PAGE_LEN];
        stamp.fill(header.lsn, &mut expected);
        (expected == *page).then_some(stamp)
    }

    /// Whether a page with this header is to be a stamped one.
    pub(super) fn is_header(header: &PageHeader) -> bool {
        header.page_type == page_type::DATA && header.object_id == OBJECT
    }
}

/// The finishing function of the SplitMix64 generator: every bit of the result depends on every bit of `value`.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
