//! Whether memory is there: addresses that a foreign library gives are looked up before they are followed.
//!
//! What was found is kept, so that buffers which are used again and again cost nothing. A range that went away since would
//! still be believed in: this finds nonsense, and proves nothing.

use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Ranges>);

#[derive(Debug, Default)]
pub(super) struct Ranges {
    pub(super) readable: Vec<(usize, usize)>,
    pub(super) writable: Vec<(usize, usize)>,
}

impl Memory {
    pub(super) fn can_read(&self, start: usize, len: usize) -> bool {
        self.look(start, len, |ranges| &ranges.readable)
    }

    pub(super) fn can_write(&self, start: usize, len: usize) -> bool {
        self.look(start, len, |ranges| &ranges.writable)
    }

    fn look(&self, start: usize, len: usize, which: fn(&Ranges) -> &Vec<(usize, usize)>) -> bool {
        let Some(end) = start.checked_add(len).filter(|end| *end <= isize::MAX as usize && start > 0) else {
            return false;
        };
        let covers = |ranges: &Ranges| which(ranges).iter().any(|range| range.0 <= start && end <= range.1);
        // The ranges are whole at every moment.
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if covers(&ranges) {
            return true;
        }
        // Where the system does not tell, there is nothing to be seen.
        let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
        *ranges = parse(&maps);
        covers(&ranges)
    }
}

/// Reads lines like `7f00aa000-7f00bb000 rw-s ...`; neighbours are joined.
pub(super) fn parse(maps: &str) -> Ranges {
    let mut ranges = Ranges::default();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else { continue };
        let mut add = |list: fn(&mut Ranges) -> &mut Vec<(usize, usize)>| match list(&mut ranges).last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => list(&mut ranges).push((start, end)),
        };
        if rights.starts_with('r') {
            add(|ranges| &mut ranges.readable);
        }
        if rights.starts_with("rw") {
            add(|ranges| &mut ranges.writable);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_joined() {
        let ranges = parse(
            "1000-2000 r--p 00000000 00:00 0 /lib\n2000-4000 rw-p 00000000 00:00 0\n4000-5000 rw-s 0 00:05 1 /memfd:x\n\
             6000-7000 ---p 0 00:00 0\nnonsense\n8000-9000 rw-p 0 00:00 0",
        );
        assert_eq!(ranges.readable, [(0x1000, 0x5000), (0x8000, 0x9000)]);
        assert_eq!(ranges.writable, [(0x2000, 0x5000), (0x8000, 0x9000)]);
    }

    #[test]
    fn memory_is_found_and_nonsense_is_not() {
        let memory = Memory::default();
        let bytes = vec![1u8; 100_000];
        let start = bytes.as_ptr().addr();
        assert!(memory.can_write(start, bytes.len()) && memory.can_read(start, bytes.len()));
        assert!(!memory.can_read(0, 1) && !memory.can_read(0x10, 8) && !memory.can_read(start, usize::MAX));
        static CONSTANT: [u8; 4096] = [7; 4096];
        assert!(memory.can_read(CONSTANT.as_ptr().addr(), 4096));
        assert!(!memory.can_write(CONSTANT.as_ptr().addr(), 4096));
    }
}
