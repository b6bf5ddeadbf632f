//! Which transfer is read next.
//!
//! Readers take the next transfer of the family that has the fewest in flight: dealt, and not yet stored by its device. So a slow device
//! holds no more buffers than its share while others have data left.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A transfer that was dealt to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Counted from 0.
    pub(super) family: u32,
    /// Which bytes of the family's pages.
    pub(super) bytes: Range<u64>,
}

/// Deals transfers.
#[derive(Debug)]
pub(super) struct Dealer {
    /// Bytes of each family's pages.
    len: u64,
    /// Where the next transfer of each family begins.
    next: Mutex<Vec<u64>>,
    in_flight: Vec<Arc<AtomicU32>>,
}

impl Dealer {
    /// A dealer of `len` bytes a family.
    pub(super) fn new(families: usize, len: u64) -> Dealer {
        let in_flight = (0..families).map(|_| Arc::default()).collect();
        Dealer { len, next: Mutex::new(vec![0; families]), in_flight }
    }

    /// Transfers of a family that were dealt and are not stored. It counts down when the buffer of a transfer is freed.
    pub(super) fn in_flight(&self, family: usize) -> &Arc<AtomicU32> {
        &self.in_flight[family]
    }

    /// The next transfer. `length` says how long it is to be, at most; it is asked in the order of the transfers. `None`: all is dealt.
    pub(super) fn next(&self, length: impl FnOnce() -> u32) -> Option<Transfer> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let unfinished = next.iter().zip(&self.in_flight).enumerate().filter(|(_, (next, _))| **next < self.len);
        // Of those with as many, the one that is furthest behind.
        let (family, _) =
            unfinished.min_by_key(|(_, (next, in_flight))| (in_flight.load(Ordering::Relaxed), **next))?;
        let start = next[family];
        let end = (start + u64::from(length())).min(self.len);
        next[family] = end;
        self.in_flight[family].fetch_add(1, Ordering::Relaxed);
        Some(Transfer { family: family as u32, bytes: start..end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_whose_device_stores_nothing_gets_its_share_of_the_buffers_only() {
        let dealer = Dealer::new(4, 100);
        let mut of_slow = 0;
        // Eight buffers; all devices but the first store at once.
        for _ in 0..200 {
            let transfer = dealer.next(|| 1).unwrap();
            if transfer.family == 0 {
                of_slow += 1;
            } else {
                dealer.in_flight(transfer.family as usize).fetch_sub(1, Ordering::Relaxed);
            }
        }
        assert_eq!(of_slow, 1);
    }

    #[test]
    fn devices_that_are_equally_fast_get_equally_much() {
        let dealer = Dealer::new(3, 1000);
        let mut dealt = Vec::new();
        for _ in 0..300 {
            dealt.push(dealer.next(|| 10).unwrap().family);
        }
        for turn in dealt.chunks(3) {
            let mut turn = turn.to_vec();
            turn.sort_unstable();
            assert_eq!(turn, [0, 1, 2]);
        }
        assert_eq!(dealer.next(|| 10), None);
    }

    #[test]
    fn each_byte_is_dealt_once() {
        let dealer = Dealer::new(2, 25);
        let mut ends = [0, 0];
        while let Some(Transfer { family, bytes }) = dealer.next(|| 10) {
            assert_eq!(bytes.start, ends[family as usize]);
            ends[family as usize] = bytes.end;
        }
        assert_eq!(ends, [25, 25]);
    }
}
