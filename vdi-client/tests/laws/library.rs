//! What is looked at before a foreign library is loaded, and before its addresses are followed.

// They are the crate's own affair, so they are not its to give.
#[path = "../../src/sqlserver/elf.rs"]
mod elf;
#[path = "../../src/sqlserver/memory.rs"]
mod memory;

use elf::{Header, judge, whole};

/// Judging a header and reading maps are total. A library is cut short exactly where a segment that is to be mapped ends behind
/// it; the ranges of memory are those of the lines.
pub(crate) fn library(bytes: &[u8]) -> bool {
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    if choice % 2 == 0 { header(bytes) } else { std::str::from_utf8(bytes).is_ok_and(maps) }
}

fn header(bytes: &[u8]) -> bool {
    // As long as nothing is read from it, a file may be of any length.
    let lengths = [0, bytes.len() as u64, 4096, 1 << 20, u64::MAX];
    let answers = lengths.map(|len| whole(bytes, len).is_some());
    let number = |at: usize, len: usize| {
        let bytes = bytes.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0u128, |number, byte| number << 8 | u128::from(*byte)))
    };
    if let (Some([2, 1]), Some(table), Some(size), Some(count)) =
        (bytes.get(4..6), number(32, 8), number(54, 2), number(56, 2))
    {
        let segments: Option<Vec<_>> = (0..count)
            .map(|segment| {
                let at = usize::try_from(table + segment * size).ok().filter(|at| *at < bytes.len())?;
                (at as u128 + size <= bytes.len() as u128)
                    .then_some(())
                    .and_then(|()| Some((number(at, 4)?, number(at + 8, 8)? + number(at + 32, 8)?)))
            })
            .collect();
        if let Some(segments) = segments {
            let end = segments.iter().filter(|(kind, _)| *kind == 1).map(|(_, end)| *end).max().unwrap_or(0);
            for (len, answer) in lengths.iter().zip(answers).skip(1) {
                let table_end = table + count * size;
                if table_end <= u128::from((*len).min(16384)) {
                    assert_eq!(answer, end <= u128::from(*len), "{len} bytes, segments to {end}");
                }
            }
        }
    }
    match judge(bytes) {
        Ok(()) => {
            assert!(bytes.starts_with(b"\x7fELF") && bytes.len() >= 20);
            true
        }
        Err(Header::Not(found)) => {
            assert!(!found.is_empty());
            false
        }
        Err(Header::Of(machine)) => {
            assert_ne!(machine, std::env::consts::ARCH);
            false
        }
    }
}

fn maps(text: &str) -> bool {
    let ranges = memory::parse(text);
    let mut expected = [0, 0];
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((range, rights)) = words.next().zip(words.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        if usize::from_str_radix(start, 16).is_ok() && usize::from_str_radix(end, 16).is_ok() {
            expected[0] += usize::from(rights.starts_with('r'));
            expected[1] += usize::from(rights.starts_with("rw"));
        }
    }
    for (list, lines) in [(&ranges.readable, expected[0]), (&ranges.writable, expected[1])] {
        // Neighbours are joined, so there are fewer, and none only where there was none.
        assert!(list.len() <= lines && list.is_empty() == (lines == 0), "{list:x?} of {lines} lines");
    }
    !ranges.readable.is_empty()
}

/// A name, the input.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    file.resize(64, 0);
    (file[32], file[52], file[54], file[56]) = (64, 64, 56, 2);
    for (kind, offset, len) in [(1u32, 0u64, 176u64), (2, 100, 50)] {
        let at = file.len();
        file.resize(at + 56, 0);
        file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&len.to_le_bytes());
    }
    let lines = "1000-2000 r--p 00000000 00:00 0 /lib\n2000-4000 rw-p 0 00:00 0\n6000-7000 ---p 0 00:00 0\n8000-9000 rw-s 0 00:05 1 /memfd:x";
    vec![
        ("whole".to_owned(), [&[0][..], &file].concat()),
        ("padded".to_owned(), [&[0][..], &file, &[0; 200]].concat()),
        ("maps".to_owned(), [&[1][..], lines.as_bytes()].concat()),
        ("map".to_owned(), [&[1][..], b"ffff-10000 rwxp"].concat()),
    ]
}
