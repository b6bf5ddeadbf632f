//! Foreign tape images.

use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, memfd_create};
use vdi_client::media::{Media, MediaError, TapeImage};
use vdi_client::{CommandCode, CompletionCode, Features, VdConfig};

/// What the first byte chooses: the size of a block.
const BLOCKS: [usize; 4] = [1, 2, 4, 512];

/// The image as a list: records, and `None` for marks; `None` where it is no whole image.
fn items(image: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (mut items, mut rest) = (Vec::new(), image);
    while !rest.is_empty() {
        let (number, behind) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*number) as usize;
        rest = behind;
        match length {
            0 => items.push(None),
            0xFFFF_FFFF => break,
            1..=0xFF_FFFF => {
                let (record, behind) = rest.split_at_checked(length)?;
                let (_, behind) = behind.split_at_checked(length % 2)?;
                let (again, behind) = behind.split_first_chunk::<4>()?;
                if again != number {
                    return None;
                }
                items.push(Some(record));
                rest = behind;
            }
            _ => return None,
        }
    }
    Some(items)
}

/// A tape of blocks, and `None` for marks.
struct Model<'a> {
    tape: Vec<Option<&'a [u8]>>,
    at: usize,
}

impl Model<'_> {
    fn read(&mut self, blocks: usize) -> (Vec<u8>, CompletionCode) {
        let mut read = Vec::new();
        for _ in 0..blocks {
            let Some(unit) = self.tape.get(self.at) else { return (read, CompletionCode::NO_DATA_DETECTED) };
            self.at += 1;
            let Some(block) = unit else { return (read, CompletionCode::FILEMARK_DETECTED) };
            read.extend_from_slice(block);
        }
        (read, CompletionCode::SUCCESS)
    }

    fn skip(&mut self, count: i32, marks: bool) -> CompletionCode {
        let mut left = count.unsigned_abs();
        while left > 0 {
            let next = if count > 0 { Some(self.at) } else { self.at.checked_sub(1) };
            let Some(next) = next else { return CompletionCode::BEGINNING_OF_MEDIA };
            let Some(unit) = self.tape.get(next) else { return CompletionCode::NO_DATA_DETECTED };
            self.at = if count > 0 { next + 1 } else { next };
            if unit.is_none() && !marks {
                return CompletionCode::FILEMARK_DETECTED;
            }
            left -= u32::from(unit.is_none() || !marks);
        }
        CompletionCode::SUCCESS
    }
}

fn code<T>(answer: Result<T, MediaError>) -> CompletionCode {
    match answer {
        Ok(_) => CompletionCode::SUCCESS,
        Err(error) => {
            assert!(!error.is_final(), "{error}");
            error.code
        }
    }
}

/// An image is opened exactly where it is whole, and a tape that is read, skipped over and positioned on does what a list of
/// its blocks and marks does.
pub(crate) fn tape(bytes: &[u8]) -> bool {
    let Some(([block, count], rest)) = bytes.split_first_chunk::<2>() else { return false };
    let block = BLOCKS[usize::from(block % 4)];
    let (commands, image) = rest.split_at(rest.len().min(usize::from(count % 16) * 2));
    let file = memfd_create("image", MemfdFlags::CLOEXEC).expect("memory");
    assert_eq!(rustix::io::pwrite(&file, image, 0), Ok(image.len()));
    let opened = TapeImage::open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let items = items(image);
    assert_eq!(opened.is_ok(), items.is_some(), "{:?}", opened.err());
    let (Ok(mut tape), Some(items)) = (opened, items) else { return false };
    let features = Features::TAPE | Features::READ_MEDIA;
    let begun = tape.begin(&VdConfig { block_size: block as u32, features, ..VdConfig::default() });
    let fits = items.iter().flatten().all(|record| record.len() % block == 0);
    assert_eq!(begun.is_ok(), fits, "{begun:?}");
    if !fits {
        return false;
    }
    let blocks = items.into_iter().flat_map(|item| match item {
        Some(record) => record.chunks(block).map(Some).collect(),
        None => vec![None],
    });
    let mut model = Model { tape: blocks.collect(), at: 0 };
    let mut given = 0;
    for [act, number] in commands.as_chunks::<2>().0 {
        let count = i32::from(*number as i8);
        match act % 6 {
            0 | 1 => {
                let mut buffer = vec![0; usize::from(number % 32) * block];
                let read = tape.read(0, &mut buffer);
                let len = read.as_ref().map_or_else(|error| error.bytes as usize, |bytes| *bytes);
                assert_eq!((buffer[..len].to_vec(), code(read)), model.read(usize::from(number % 32)));
                given += len;
            }
            2 => assert_eq!(code(tape.other(CommandCode::SKIP_MARKS, count, 0)), model.skip(count, true)),
            3 => assert_eq!(code(tape.other(CommandCode::SKIP_BLOCKS, count, 0)), model.skip(count, false)),
            4 => {
                let there = usize::from(*number) <= model.tape.len();
                let answer = code(tape.other(CommandCode::SET_POSITION, 0, u64::from(*number)));
                assert_eq!(answer, if there { CompletionCode::SUCCESS } else { CompletionCode::IO_DEVICE });
                if there {
                    model.at = usize::from(*number);
                }
            }
            _ => {
                assert_eq!(code(tape.other(CommandCode::REWIND, 0, 0)), CompletionCode::SUCCESS);
                model.at = 0;
            }
        }
        let position = tape.other(CommandCode::GET_POSITION, 0, 0).expect("a position");
        assert_eq!(position, model.at as u64, "after {act} {number}");
        assert_eq!(tape.bytes(), given as u64);
    }
    tape.close().expect("a restore has nothing to lose");
    true
}

/// A name, the input.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let record = |bytes: &[u8]| {
        let length = (bytes.len() as u32).to_le_bytes();
        [&length, bytes, &[0][..bytes.len() % 2], &length].concat()
    };
    let (mark, end) = (vec![0; 4], vec![0xFF; 4]);
    let image =
        [record(b"head"), mark.clone(), record(b"da"), record(b"ta"), record(b"more"), mark.clone(), mark.clone()]
            .concat();
    let commands = [[0, 9], [0, 3], [2, 1], [3, 0xFE], [2, 0xFF], [4, 4], [0, 31], [5, 0], [3, 200], [4, 99]];
    let run = |block: u8, image: &[u8]| [&[block, commands.len() as u8][..], &commands.concat(), image].concat();
    vec![
        ("empty".to_owned(), run(0, &[])),
        ("blocks-1".to_owned(), run(0, &image)),
        ("blocks-2".to_owned(), run(1, &image)),
        ("odd".to_owned(), run(0, &[record(b"odd"), record(b"odder"), mark.clone()].concat())),
        ("ended".to_owned(), run(1, &[image, end, b"and so on".to_vec()].concat())),
        ("marks".to_owned(), run(3, &mark.repeat(40))),
        ("large".to_owned(), run(3, &[record(&[7; 1024]), mark, record(&[8; 512])].concat())),
    ]
}
