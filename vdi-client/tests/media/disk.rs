//! Files as media of disk-like devices.

use proptest::prelude::*;

use crate::*;

const GET: CommandCode = CommandCode::GET_POSITION;
const SET: CommandCode = CommandCode::SET_POSITION;

fn disk_backup(place: &Place) -> FileMedia {
    let mut media = FileMedia::create(&place.target).unwrap();
    media.begin(&backup(Features::RANDOM_ACCESS | Features::COMPLETE_ENABLED | Features::DISCARD)).unwrap();
    media
}

fn disk_restore(place: &Place) -> FileMedia {
    let mut media = FileMedia::open(&place.target).unwrap();
    media.begin(&VdConfig { features: Features::RANDOM_ACCESS | Features::READ_MEDIA, ..VdConfig::default() }).unwrap();
    media
}

#[test]
fn the_position_is_the_end_of_the_last_transfer_or_what_was_set() {
    let place = Place::new(None);
    let mut media = disk_backup(&place);
    assert_eq!(media.other(GET, 0, 0).unwrap(), 0);
    media.write(0, &[1; 100]).unwrap();
    assert_eq!(media.other(GET, 0, 0).unwrap(), 100);
    assert_eq!(media.read(10, &mut [0; 20]).unwrap(), 20);
    assert_eq!(media.other(GET, 0, 0).unwrap(), 30);
    for (whence, offset, expected) in
        [(0, 70u64, 70), (1, (-20i64) as u64, 50), (2, (-1i64) as u64, 99), (2, 0, 100), (0, 0, 0)]
    {
        assert_eq!(media.other(SET, whence, offset).unwrap(), expected);
        assert_eq!(media.other(GET, 0, 0).unwrap(), expected);
    }
    media.complete().unwrap();

    let mut media = disk_restore(&place);
    assert_eq!(media.other(GET, 0, 0).unwrap(), 0);
    assert_eq!(media.other(SET, 2, 0).unwrap(), 100);
    assert_eq!(media.read(90, &mut [0; 20]).unwrap(), 10);
    assert_eq!(media.other(GET, 0, 0).unwrap(), 100);
}

#[test]
fn positions_outside_the_medium_change_nothing_and_can_be_cleared() {
    let place = Place::new(None);
    let mut media = disk_backup(&place);
    media.write(0, &[1; 100]).unwrap();
    media.other(SET, 0, 40).unwrap();
    for (whence, offset) in
        [(0, 101), (0, u64::MAX), (1, 61), (1, (-41i64) as u64), (2, 1), (2, i64::MIN as u64), (3, 0), (-1, 0)]
    {
        let error = media.other(SET, whence, offset).unwrap_err();
        assert!(error.code == CompletionCode::IO_DEVICE && !error.is_final(), "{error}");
        media.clear_error().unwrap();
        assert_eq!(media.other(GET, 0, 0).unwrap(), 40);
    }
    const FAR: [u64; 3] = [u64::MAX, u64::MAX - 50, i64::MAX as u64 - 50];
    for position in FAR {
        let error = media.read(position, &mut [0; 100]).unwrap_err();
        assert!(error.to_string().contains("lie outside every file") && !error.is_final(), "{error}");
    }
    assert_eq!(media.read(5000, &mut [0; 100]).unwrap(), 0);
    media.complete().unwrap();
    assert_eq!(place.content().unwrap(), [1; 100]);
    drop(media);

    for position in FAR {
        let mut media = disk_backup(&place);
        let error = media.write(position, &[1; 100]).unwrap_err();
        assert!(error.is_final() && error.bytes == 0, "{error}");
        assert!(media.clear_error().is_err() && media.complete().is_err());
    }
}

#[test]
fn the_file_ends_at_the_highest_byte_written_even_after_a_new_header() {
    let place = Place::new(Some(&[9; 5000]));
    let mut media = disk_backup(&place);
    media.write(0, &[1; 512]).unwrap();
    media.write(512, &[2; 1024]).unwrap();
    media.write(0, &[3; 512]).unwrap();
    media.flush().unwrap();
    media.complete().unwrap();
    assert_eq!(place.content().unwrap(), [vec![3; 512], vec![2; 1024]].concat());
}

#[test]
fn pipe_like_sets_know_no_positions() {
    let place = Place::new(Some(b"old"));
    let mut media = FileMedia::create(&place.target).unwrap();
    media.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    for code in [GET, SET, CommandCode::LOAD] {
        assert_eq!(media.other(code, 0, 0).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    }
}

#[test]
fn discard_is_for_good() {
    let place = Place::new(Some(b"old"));
    let mut media = disk_backup(&place);
    media.write(0, b"new").unwrap();
    media.other(CommandCode::DISCARD, 0, 0).unwrap();
    for result in [media.flush(), media.complete(), media.clear_error(), media.close(), media.write(0, b"x")] {
        assert!(result.unwrap_err().to_string().contains("the server discarded the backup"));
    }
    assert_eq!(place.content().unwrap(), b"old");
    let mut media = disk_restore(&place);
    assert_eq!(media.other(CommandCode::DISCARD, 0, 0).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written and read where: it is as if it were an array of bytes.
    #[test]
    fn a_disk_is_an_array_of_bytes(
        ops in proptest::collection::vec((0u8..4, 0u64..3000, 0usize..900, any::<i32>(), any::<u64>()), 1..20),
    ) {
        let place = Place::new(None);
        let mut media = disk_backup(&place);
        let mut bytes: Vec<u8> = Vec::new();
        let mut position = 0u64;
        for (number, (op, at, length, whence, wild)) in ops.into_iter().enumerate() {
            let end = at as usize + length;
            match op {
                0 => {
                    media.write(at, &vec![number as u8 + 1; length]).unwrap();
                    if length > 0 {
                        bytes.resize(bytes.len().max(end), 0);
                        bytes[at as usize..end].fill(number as u8 + 1);
                    }
                    position = end as u64;
                }
                1 => {
                    let mut buffer = vec![0; length];
                    let count = media.read(at, &mut buffer).unwrap();
                    let expected = bytes.get(at as usize..).unwrap_or_default();
                    prop_assert_eq!(&buffer[..count], &expected[..expected.len().min(length)]);
                    position = at + count as u64;
                }
                2 => {
                    let base = [0, position as i128, bytes.len() as i128][whence.unsigned_abs() as usize % 3];
                    let target = base + i128::from(at as i64 - 1500);
                    let result = media.other(SET, (whence.unsigned_abs() % 3) as i32, (at as i64 - 1500) as u64);
                    if (0..=bytes.len() as i128).contains(&target) {
                        position = target as u64;
                        prop_assert_eq!(result.unwrap(), position);
                    } else {
                        prop_assert!(!result.unwrap_err().is_final());
                    }
                }
                // Never a panic.
                _ => {
                    let before = position;
                    if let Ok(now) = media.other(SET, whence, wild) {
                        position = now;
                    } else {
                        prop_assert_eq!(media.other(GET, 0, 0).unwrap(), before);
                    }
                }
            }
            prop_assert_eq!(media.other(GET, 0, 0).unwrap(), position);
        }
        media.complete().unwrap();
        prop_assert_eq!(place.content().unwrap(), bytes);
    }
}
