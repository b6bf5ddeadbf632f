//! Pages that say of themselves who they are and whether they are whole: what `vdi-sim write` fills a database with.
//!
//! Little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `VDISIMPG` |
//! | 8 | 4 | number of the file in its database, from 0 |
//! | 12 | 4 | CRC-32 of the page with zeros in this field |
//! | 16 | 8 | number of the page in its file, from 0 |
//! | 24 | 8 | sequence: which write this was |
//! | 32 | | words of 8 bytes, each of which depends on the sequence and on its place |
//!
//! ```
//! use vdi_server_sim::database::page::Stamp;
//!
//! let mut page = [0; 512];
//! let stamp = Stamp { file: 1, page: 7, sequence: 99 };
//! stamp.fill(&mut page);
//! assert_eq!(Stamp::read(&page), Some(stamp));
//! page[300] ^= 1;
//! assert_eq!(Stamp::read(&page), None);
//! ```

use crate::sample::mix;

/// Bytes of the header, and of the smallest page.
pub const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"VDISIMPG";

/// Which page it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The file's place in the database, from 0.
    pub file: u32,
    /// The page's place in the file, from 0.
    pub page: u64,
    /// Which write it was written by.
    pub sequence: u64,
}

impl Stamp {
    /// Fills all of `page`. One of fewer than [`HEADER_BYTES`] bytes is filled with zeros, which is no page.
    pub fn fill(&self, page: &mut [u8]) {
        // Every eight bytes depend on the whole sequence: a page of two writes is damaged wherever they meet.
        for (index, word) in (0..).zip(page.chunks_mut(8)) {
            let bytes = mix(self.sequence ^ mix(index)).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
        let Some(header) = page.first_chunk_mut::<HEADER_BYTES>() else { return page.fill(0) };
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&self.file.to_le_bytes());
        header[12..16].fill(0);
        header[16..24].copy_from_slice(&self.page.to_le_bytes());
        header[24..].copy_from_slice(&self.sequence.to_le_bytes());
        let checksum = crc32fast::hash(page);
        page[12..16].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a page; `None` if it is none, or damaged.
    #[must_use]
    pub fn read(page: &[u8]) -> Option<Self> {
        let header = page.first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&page[..12]);
        hasher.update(&[0; 4]);
        hasher.update(&page[16..]);
        let whole = header[..8] == MAGIC && hasher.finalize() == word(12);
        whole.then(|| Self { file: word(8), page: long(16), sequence: long(24) })
    }
}
