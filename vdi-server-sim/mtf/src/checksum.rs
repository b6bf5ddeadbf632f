//! Checksums of headers, pages, log blocks and whole streams.
//!
//! SQL Server uses one function of 512-byte sectors in three places ([`SectorSum`]):
//!
//! | what | covers | field taken as zero |
//! |---|---|---|
//! | page checksum | one page of 8192 bytes | the u32 at 60 |
//! | log block checksum | one log block | the u32 at 24 |
//! | backup checksum (`CSUM` stream) | all bytes of the data or log stream but its 2-byte prefix | none |
//!
//! Headers of blocks and streams have a checksum of 16 bits ([`xor16`]).

/// Bytes of a sector, as the checksums count them.
pub const SECTOR_LEN: usize = 512;

/// Exclusive or of the little-endian 16-bit words of `bytes`. A last odd byte counts as a word with a zero high byte.
///
/// A header whose last word is its checksum gives 0. (Microsoft Tape Format 1.00a, "Common Block Header" and "Stream Header".)
pub fn xor16(bytes: &[u8]) -> u16 {
    let mut words = bytes.chunks_exact(2);
    let sum = words.by_ref().fold(0, |sum, word| sum ^ u16::from_le_bytes([word[0], word[1]]));
    words.remainder().first().map_or(sum, |&last| sum ^ u16::from(last))
}

/// SQL Server's checksum over 512-byte sectors, computed piece by piece.
///
/// For each sector: rotate the sum left by one bit, then exclusive-or the 128 little-endian words of the sector into it.
/// (Observed in backups of SQL Server 2005 to 2022: pages with checksums, log blocks, and `CSUM` streams.)
///
/// ```
/// use vdi_mtf::checksum::SectorSum;
///
/// let bytes = vec![7; 8192];
/// let mut pieces = SectorSum::new();
/// pieces.update(&bytes[..1000]);
/// pieces.update(&bytes[1000..]);
/// assert_eq!(pieces.value(), SectorSum::of(&bytes));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectorSum {
    /// The sum of the whole sectors so far.
    sum: u32,
    /// Exclusive or of the current sector's words.
    sector: u32,
    /// Bytes of the current sector so far, below [`SECTOR_LEN`].
    filled: usize,
}

impl SectorSum {
    /// The sum of no bytes.
    pub const fn new() -> Self {
        SectorSum { sum: 0, sector: 0, filled: 0 }
    }

    /// The sum of `bytes`.
    pub fn of(bytes: &[u8]) -> u32 {
        let mut sum = Self::new();
        sum.update(bytes);
        sum.value()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == 0 && bytes.len() >= SECTOR_LEN {
                let (sector, rest) = bytes.split_at(SECTOR_LEN);
                let words = sector.chunks_exact(4);
                self.end_sector(words.fold(0, |sum, w| sum ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]])));
                bytes = rest;
                continue;
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(SECTOR_LEN - self.filled));
            for &byte in piece {
                self.sector ^= u32::from(byte) << (8 * (self.filled % 4));
                self.filled += 1;
            }
            if self.filled == SECTOR_LEN {
                let sector = core::mem::take(&mut self.sector);
                self.filled = 0;
                self.end_sector(sector);
            }
            bytes = rest;
        }
    }

    /// Adds bytes whose sum is known: `sum` of `sectors` whole sectors. So pieces can be summed where they are read, in any order.
    ///
    /// ```
    /// use vdi_mtf::checksum::SectorSum;
    ///
    /// let bytes = vec![7; 8192];
    /// let (first, second) = bytes.split_at(512);
    /// let (mut sum, second) = (SectorSum::new(), SectorSum::of(second));
    /// sum.append(SectorSum::of(first), 1);
    /// sum.append(second, 15);
    /// assert_eq!(sum.value(), SectorSum::of(&bytes));
    /// ```
    ///
    /// An unfinished sector before them counts as ended in zeros.
    pub fn append(&mut self, sum: u32, sectors: u64) {
        let before = self.value();
        *self = SectorSum { sum: before.rotate_left((sectors % 32) as u32) ^ sum, ..Self::new() };
    }

    /// Takes the effect of a word of a whole sector out of the sum again, as if it had been zero.
    ///
    /// `sectors_after`: whole sectors that followed the word's sector.
    pub fn without(&self, word: u32, sectors_after: u32) -> u32 {
        self.value() ^ word.rotate_left(sectors_after % 32)
    }

    /// The sum. Bytes of an unfinished sector count as a sector that ends in zeros.
    pub fn value(&self) -> u32 {
        match self.filled {
            0 => self.sum,
            _ => self.sum.rotate_left(1) ^ self.sector,
        }
    }

    fn end_sector(&mut self, words: u32) {
        self.sum = self.sum.rotate_left(1) ^ words;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let mut header = [0; 52];
        header[..4].copy_from_slice(b"TAPE");
        let sum = xor16(&header[..50]);
        header[50..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(xor16(&header), 0);
        assert_eq!(xor16(&[1, 2, 3]), 0x0201 ^ 3);
    }

    /// The definition, word by word.
    fn defined(bytes: &[u8]) -> u32 {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(SECTOR_LEN), 0);
        padded.chunks(SECTOR_LEN).fold(0_u32, |sum, sector| {
            let words = sector.chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
            sum.rotate_left(1) ^ words.fold(0, |a, b| a ^ b)
        })
    }

    #[test]
    fn pieces_of_any_size_give_the_same_sum() {
        let bytes: Vec<u8> = (0_u32..5000).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for piece in [1, 3, 511, 512, 513, 2000] {
            let mut sum = SectorSum::new();
            for part in bytes.chunks(piece) {
                sum.update(part);
            }
            assert_eq!(sum.value(), defined(&bytes), "pieces of {piece}");
        }
    }

    #[test]
    fn a_word_can_be_taken_out_again() {
        let bytes: Vec<u8> = (0_u32..8192).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut without = bytes.clone();
        without[60..64].fill(0);
        let word = u32::from_le_bytes([bytes[60], bytes[61], bytes[62], bytes[63]]);
        let mut sum = SectorSum::new();
        sum.update(&bytes);
        assert_eq!(sum.without(word, 15), SectorSum::of(&without));
    }
}
