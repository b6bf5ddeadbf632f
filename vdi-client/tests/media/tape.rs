//! Tape images: the commands of tape-like devices, the file's format, and when it is committed.

use proptest::prelude::*;

use crate::*;

const BLOCK: usize = 512;

fn config(extra: Features) -> VdConfig {
    VdConfig { block_size: BLOCK as u32, features: Features::TAPE | extra, ..VdConfig::default() }
}

fn tape_backup(place: &Place) -> TapeImage {
    let mut tape = TapeImage::create(&place.target).unwrap();
    tape.begin(&config(Features::WRITE_MEDIA | Features::COMPLETE_ENABLED | Features::DISCARD)).unwrap();
    tape
}

fn tape_restore(place: &Place) -> TapeImage {
    let mut tape = TapeImage::open(&place.target).unwrap();
    tape.begin(&config(Features::READ_MEDIA)).unwrap();
    tape
}

fn do_it(tape: &mut TapeImage, code: CommandCode, size: i32) -> Result<u64, CompletionCode> {
    tape.other(code, size, 0).map_err(|error| {
        assert!(!error.is_final(), "{error}");
        tape.clear_error().unwrap();
        error.code
    })
}

fn position(tape: &mut TapeImage) -> u64 {
    tape.other(CommandCode::GET_POSITION, 0, 0).unwrap()
}

/// What a Read of so many blocks gives: the first byte of each, and the code.
fn blocks(tape: &mut TapeImage, count: usize) -> (Vec<u8>, CompletionCode) {
    let mut buffer = vec![0; count * BLOCK];
    let (bytes, code) = match tape.read(0, &mut buffer) {
        Ok(bytes) => (bytes, CompletionCode::SUCCESS),
        Err(error) => {
            assert!(!error.is_final(), "{error}");
            (error.bytes as usize, error.code)
        }
    };
    assert!(
        buffer[..bytes].chunks(BLOCK).all(|block| block.len() == BLOCK && block.iter().all(|byte| *byte == block[0]))
    );
    (buffer[..bytes].iter().step_by(BLOCK).copied().collect(), code)
}

/// A Write of blocks that are filled with these bytes.
fn put(tape: &mut TapeImage, content: &[u8]) {
    let data: Vec<u8> = content.iter().flat_map(|byte| [*byte; BLOCK]).collect();
    tape.write(0, &data).unwrap();
}

fn mark(tape: &mut TapeImage) {
    tape.other(CommandCode::WRITE_MARK, 0, 0).unwrap();
}

/// 1 2 3 | 4 5 | | 6
fn recorded(place: &Place) -> TapeImage {
    let mut tape = tape_backup(place);
    put(&mut tape, &[1, 2]);
    put(&mut tape, &[3]);
    mark(&mut tape);
    put(&mut tape, &[4, 5]);
    mark(&mut tape);
    mark(&mut tape);
    put(&mut tape, &[6]);
    assert_eq!(position(&mut tape), 9);
    tape
}

#[test]
fn reads_go_through_records_but_never_through_marks() {
    let place = Place::new(None);
    let mut tape = recorded(&place);
    do_it(&mut tape, CommandCode::REWIND, 0).unwrap();
    assert_eq!(blocks(&mut tape, 1), (vec![1], CompletionCode::SUCCESS));
    assert_eq!(blocks(&mut tape, 2), (vec![2, 3], CompletionCode::SUCCESS));
    assert_eq!(blocks(&mut tape, 2), (vec![], CompletionCode::FILEMARK_DETECTED));
    assert_eq!(blocks(&mut tape, 4), (vec![4, 5], CompletionCode::FILEMARK_DETECTED));
    assert_eq!(position(&mut tape), 7);
    assert_eq!(blocks(&mut tape, 4), (vec![], CompletionCode::FILEMARK_DETECTED));
    assert_eq!(blocks(&mut tape, 4), (vec![6], CompletionCode::NO_DATA_DETECTED));
    assert_eq!(blocks(&mut tape, 4), (vec![], CompletionCode::NO_DATA_DETECTED));
    assert_eq!(position(&mut tape), 9);
}

#[test]
fn skips_stop_where_they_should() {
    use CommandCode as C;
    use CompletionCode as E;
    let place = Place::new(None);
    let mut tape = recorded(&place);
    // From, the command, how many, the answer, to.
    let cases = [
        (0, C::SKIP_MARKS, 1, E::SUCCESS, 4),
        (0, C::SKIP_MARKS, 3, E::SUCCESS, 8),
        (3, C::SKIP_MARKS, 1, E::SUCCESS, 4),
        (4, C::SKIP_MARKS, 2, E::SUCCESS, 8),
        (2, C::SKIP_MARKS, 0, E::SUCCESS, 2),
        (4, C::SKIP_MARKS, 3, E::NO_DATA_DETECTED, 9),
        (9, C::SKIP_MARKS, 0, E::SUCCESS, 9),
        (9, C::SKIP_MARKS, i32::MAX, E::NO_DATA_DETECTED, 9),
        (9, C::SKIP_MARKS, -1, E::SUCCESS, 7),
        (9, C::SKIP_MARKS, -2, E::SUCCESS, 6),
        (7, C::SKIP_MARKS, -1, E::SUCCESS, 6),
        (9, C::SKIP_MARKS, -3, E::SUCCESS, 3),
        (9, C::SKIP_MARKS, -4, E::BEGINNING_OF_MEDIA, 0),
        (2, C::SKIP_MARKS, i32::MIN, E::BEGINNING_OF_MEDIA, 0),
        (0, C::SKIP_BLOCKS, 2, E::SUCCESS, 2),
        (1, C::SKIP_BLOCKS, 2, E::SUCCESS, 3),
        (1, C::SKIP_BLOCKS, 3, E::FILEMARK_DETECTED, 4),
        (6, C::SKIP_BLOCKS, 1, E::FILEMARK_DETECTED, 7),
        (8, C::SKIP_BLOCKS, 1, E::SUCCESS, 9),
        (8, C::SKIP_BLOCKS, 2, E::NO_DATA_DETECTED, 9),
        (9, C::SKIP_BLOCKS, 0, E::SUCCESS, 9),
        (9, C::SKIP_BLOCKS, -1, E::SUCCESS, 8),
        (9, C::SKIP_BLOCKS, -2, E::FILEMARK_DETECTED, 7),
        (5, C::SKIP_BLOCKS, -2, E::FILEMARK_DETECTED, 3),
        (3, C::SKIP_BLOCKS, -3, E::SUCCESS, 0),
        (3, C::SKIP_BLOCKS, -4, E::BEGINNING_OF_MEDIA, 0),
        (0, C::SKIP_BLOCKS, i32::MIN, E::BEGINNING_OF_MEDIA, 0),
    ];
    for (from, code, count, answer, to) in cases {
        assert_eq!(tape.other(C::SET_POSITION, 0, from).unwrap(), from);
        let code_given = do_it(&mut tape, code, count).map_or_else(|error| error, |_| E::SUCCESS);
        assert_eq!((code_given, position(&mut tape)), (answer, to), "{code} {count} from {from}");
    }
}

#[test]
fn a_write_discards_what_followed_even_within_a_record() {
    let place = Place::new(None);
    let mut tape = recorded(&place);
    tape.other(CommandCode::SET_POSITION, 0, 1).unwrap();
    put(&mut tape, &[7]);
    assert_eq!(blocks(&mut tape, 1), (vec![], CompletionCode::NO_DATA_DETECTED));
    tape.complete().unwrap();
    let mut expected = Vec::new();
    for byte in [1, 7] {
        expected.extend_from_slice(&[0, 2, 0, 0]);
        expected.extend_from_slice(&[byte; BLOCK]);
        expected.extend_from_slice(&[0, 2, 0, 0]);
    }
    assert_eq!(place.content().unwrap(), expected);

    let mut tape = tape_restore(&place);
    assert_eq!(blocks(&mut tape, 3), (vec![1, 7], CompletionCode::NO_DATA_DETECTED));
    assert_eq!(tape.bytes(), 2 * BLOCK as u64);
    assert_eq!(tape.write(0, &[0; BLOCK]).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    assert_eq!(tape.other(CommandCode::WRITE_MARK, 0, 0).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    tape.close().unwrap();
}

#[test]
fn positions_that_never_were_and_media_that_do_not_exist_are_refused() {
    let place = Place::new(None);
    let mut tape = recorded(&place);
    for wild in [10, u64::MAX] {
        let error = tape.other(CommandCode::SET_POSITION, 0, wild).unwrap_err();
        assert!(error.to_string().contains("data ends at block 9") && !error.is_final(), "{error}");
    }
    tape.other(CommandCode::LOAD, 1, 0).unwrap();
    assert_eq!(position(&mut tape), 0);
    let error = tape.other(CommandCode::LOAD, 2, 0).unwrap_err();
    assert!(error.to_string().contains("medium 2 cannot be loaded") && error.is_final(), "{error}");
    assert!(tape.clear_error().is_err() && tape.complete().is_err());
    assert!(place.is_empty());
}

/// Marks have to be covered by a Flush, too, and Discard has a tape vanish.
#[test]
fn a_tape_is_committed_like_any_other_file() {
    let place = Place::new(Some(b"old"));
    for (flush, expected) in [(false, "without a Flush after"), (true, "")] {
        let mut tape = TapeImage::create(&place.target).unwrap();
        tape.begin(&config(Features::WRITE_MEDIA)).unwrap();
        put(&mut tape, &[1]);
        tape.flush().unwrap();
        mark(&mut tape);
        if flush {
            tape.flush().unwrap();
        }
        match tape.close() {
            Ok(()) => assert!(flush),
            Err(error) => assert!(!flush && error.to_string().contains(expected), "{error}"),
        }
    }
    assert_eq!(place.content().unwrap().len(), BLOCK + 12);

    let mut tape = tape_backup(&place);
    put(&mut tape, &[2]);
    tape.other(CommandCode::DISCARD, 0, 0).unwrap();
    assert!(tape.complete().unwrap_err().to_string().contains("discarded the backup"));
    assert_eq!(place.content().unwrap()[4], 1);
}

#[test]
fn damaged_images_are_refused_with_the_place() {
    let record = |length: u32, bytes: usize, trailer: u32| {
        [&length.to_le_bytes()[..], &vec![1; bytes], &trailer.to_le_bytes()].concat()
    };
    let cases: [(Vec<u8>, &str); 8] = [
        (
            vec![0, 0, 0],
            "at byte 0 there has to be a record's length or a filemark, but there is the end of the file at byte 3",
        ),
        (
            record(512, 512, 513),
            "at byte 516 there has to be the length 512 again, of the record that begins at byte 0, but there is 513",
        ),
        (record(512, 100, 512), "begins at byte 0, but there is the end of the file at byte 108"),
        (record(512, 512, 512)[..518].to_vec(), "the end of the file at byte 518"),
        (
            [vec![0; 8], record(5, 5, 5)].concat(),
            "at byte 18 there has to be the length 5 again, of the record that begins at byte 8",
        ),
        (record(0x8000_0004, 4, 0x8000_0004), "there is 0x80000004"),
        (record(0x0100_0000, 4, 4), "a record's length up to 16777215"),
        (b"TAPE: no image".to_vec(), "is no whole tape image: at byte 0"),
    ];
    for (content, expected) in cases {
        let place = Place::new(Some(&content));
        let error = TapeImage::open(&place.target).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("a.bak") && error.is_final(), "{error}");
    }
}

#[test]
fn foreign_images_can_be_read() {
    // Odd lengths are padded, and nothing counts after the end of the medium.
    let mut content = [&3u32.to_le_bytes()[..], b"abc\0", &3u32.to_le_bytes(), &[0; 4]].concat();
    content.extend_from_slice(&[0xFF; 4]);
    content.extend_from_slice(b"garbage");
    let place = Place::new(Some(&content));
    let mut tape = TapeImage::open(&place.target).unwrap();
    let mut buffer = [0; 4];
    let error = tape.read(0, &mut buffer).unwrap_err();
    assert_eq!((error.code, error.bytes, &buffer[..3]), (CompletionCode::FILEMARK_DETECTED, 3, &b"abc"[..]));
    assert_eq!(tape.read(0, &mut buffer).unwrap_err().code, CompletionCode::NO_DATA_DETECTED);

    let error = TapeImage::open(&place.target).unwrap().begin(&config(Features::READ_MEDIA)).unwrap_err();
    assert!(error.to_string().contains("a record of 3 bytes at byte 0"), "{error}");
    assert!(error.to_string().contains("BLOCKSIZE that the backup was made with"), "{error}");
}

/// What is left of an image after a crash may be zeros to the end, a file of any length without any block on the disk.
#[test]
fn filemarks_without_end_are_refused() {
    let place = Place::new(Some(b""));
    let file = fs::File::options().write(true).open(&place.target).unwrap();
    file.set_len(4 << 16).unwrap();
    assert_eq!(TapeImage::open(&place.target).unwrap().other(CommandCode::SKIP_MARKS, 1 << 16, 0).unwrap(), 0);
    file.set_len((4 << 16) + 4).unwrap();
    let error = TapeImage::open(&place.target).unwrap_err();
    assert!(error.to_string().contains("at byte 262144 there has to be anything else"), "{error}");
}

/// A file that is cut while it is read: the bytes are missing, and that is said.
#[test]
fn an_image_that_shrinks_while_it_is_read_fails_for_good() {
    let place = Place::new(None);
    let mut tape = tape_backup(&place);
    put(&mut tape, &[1]);
    put(&mut tape, &[2]);
    tape.complete().unwrap();
    let mut tape = tape_restore(&place);
    let file = fs::File::options().write(true).open(&place.target).unwrap();
    file.set_len(BLOCK as u64 + 8 + 4 + 100).unwrap();
    let mut buffer = [0; 2 * BLOCK];
    let error = tape.read(0, &mut buffer).unwrap_err();
    assert!(error.is_final() && error.to_string().contains("at byte 624"), "{error}");
    assert_eq!((error.code, error.bytes as usize), (CompletionCode::IO_DEVICE, BLOCK + 100));
    assert!(tape.clear_error().is_err() && tape.read(0, &mut buffer).is_err());

    // One that grows is as long as it was.
    let place = Place::new(None);
    let mut tape = tape_backup(&place);
    put(&mut tape, &[1]);
    tape.complete().unwrap();
    let mut tape = tape_restore(&place);
    fs::File::options().write(true).open(&place.target).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(blocks(&mut tape, 3), (vec![1], CompletionCode::NO_DATA_DETECTED));
}

#[test]
fn odd_records_are_padded() {
    let place = Place::new(None);
    let mut tape = TapeImage::create(&place.target).unwrap();
    tape.write(0, b"abc").unwrap();
    tape.write(0, b"de").unwrap();
    tape.complete().unwrap();
    assert_eq!(place.content().unwrap(), b"\x03\0\0\0abc\0\x03\0\0\0\x02\0\0\0de\x02\0\0\0");
    let mut buffer = [0; 5];
    TapeImage::open(&place.target).unwrap().read(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"abcde");
}

#[test]
fn what_cannot_be_a_tape_is_refused() {
    let place = Place::new(None);
    let error = TapeImage::create("/dev/null").unwrap_err();
    assert!(error.to_string().contains("neither a file nor free"), "{error}");
    assert!(TapeImage::open("/dev/null").unwrap_err().to_string().contains("name a file"));
    assert!(TapeImage::open(place.directory.path()).unwrap_err().to_string().contains("not a directory"));
    assert!(TapeImage::create(place.directory.path()).unwrap_err().to_string().contains("not a directory"));
    assert!(TapeImage::open(&place.target).unwrap_err().to_string().contains("check the path"));
    for features in [Features::NONE, Features::RANDOM_ACCESS] {
        let error = TapeImage::create(&place.target).unwrap().begin(&backup(features)).unwrap_err();
        assert!(error.to_string().contains("kind of device"), "{error}");
    }
    let mut tape = tape_backup(&place);
    let error = tape.write(0, &[0; 100]).unwrap_err();
    assert!(error.is_final() && error.to_string().contains("no multiple of the block size 512"), "{error}");
}

/// A tape as a list: blocks, and `None` for marks.
#[derive(Debug, Clone, Default)]
struct Model {
    tape: Vec<Option<u8>>,
    at: usize,
}

#[derive(Debug, Clone)]
enum Op {
    Write(Vec<u8>),
    Mark,
    Read(usize),
    SkipMarks(i32),
    SkipBlocks(i32),
    Rewind,
    SetPosition(u64),
    Flush,
}

impl Model {
    fn apply(&mut self, op: &Op) -> (Vec<u8>, CompletionCode) {
        let answer = |code| (Vec::new(), code);
        match op {
            Op::Write(content) => {
                if !content.is_empty() {
                    self.tape.truncate(self.at);
                }
                self.tape.extend(content.iter().map(|byte| Some(*byte)));
                self.at += content.len();
            }
            Op::Mark => {
                self.tape.truncate(self.at);
                self.tape.push(None);
                self.at += 1;
            }
            Op::Read(count) => {
                let mut read = Vec::new();
                while read.len() < *count {
                    match self.tape.get(self.at) {
                        None => return (read, CompletionCode::NO_DATA_DETECTED),
                        Some(None) => {
                            self.at += 1;
                            return (read, CompletionCode::FILEMARK_DETECTED);
                        }
                        Some(Some(byte)) => read.push(*byte),
                    }
                    self.at += 1;
                }
                return (read, CompletionCode::SUCCESS);
            }
            Op::SkipMarks(count) | Op::SkipBlocks(count) => {
                let marks = matches!(op, Op::SkipMarks(_));
                let mut left = count.unsigned_abs();
                while left > 0 {
                    let next = if *count > 0 { Some(self.at) } else { self.at.checked_sub(1) };
                    let Some(next) = next else { return answer(CompletionCode::BEGINNING_OF_MEDIA) };
                    let Some(item) = self.tape.get(next) else { return answer(CompletionCode::NO_DATA_DETECTED) };
                    self.at = if *count > 0 { next + 1 } else { next };
                    if item.is_none() && !marks {
                        return answer(CompletionCode::FILEMARK_DETECTED);
                    }
                    left -= u32::from(item.is_none() || !marks);
                }
            }
            Op::Rewind => self.at = 0,
            Op::SetPosition(wild) => {
                // Mostly positions that exist.
                let target = wild % (self.tape.len() as u64 + 2);
                if target > self.tape.len() as u64 {
                    return answer(CompletionCode::IO_DEVICE);
                }
                self.at = target as usize;
            }
            Op::Flush => {}
        }
        answer(CompletionCode::SUCCESS)
    }

    fn apply_to(&self, tape: &mut TapeImage, op: &Op) -> (Vec<u8>, CompletionCode) {
        let other = match op {
            Op::Write(content) => {
                put(tape, content);
                return (Vec::new(), CompletionCode::SUCCESS);
            }
            Op::Read(count) => return blocks(tape, *count),
            Op::Flush => tape.flush().map(|()| 0).map_err(|error| error.code),
            Op::Mark => do_it(tape, CommandCode::WRITE_MARK, 0),
            Op::SkipMarks(count) => do_it(tape, CommandCode::SKIP_MARKS, *count),
            Op::SkipBlocks(count) => do_it(tape, CommandCode::SKIP_BLOCKS, *count),
            Op::Rewind => do_it(tape, CommandCode::REWIND, 0),
            Op::SetPosition(wild) => {
                let target = wild % (self.tape.len() as u64 + 2);
                tape.other(CommandCode::SET_POSITION, 0, target).map_err(|error| error.code)
            }
        };
        (Vec::new(), other.map_or_else(|code| code, |_| CompletionCode::SUCCESS))
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => proptest::collection::vec(any::<u8>(), 0..6).prop_map(Op::Write),
        3 => Just(Op::Mark),
        4 => (0usize..8).prop_map(Op::Read),
        3 => (-4i32..5).prop_map(Op::SkipMarks),
        3 => (-8i32..9).prop_map(Op::SkipBlocks),
        2 => Just(Op::Rewind),
        3 => any::<u64>().prop_map(Op::SetPosition),
        1 => Just(Op::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_tape_image_is_a_tape(
        ops in proptest::collection::vec(op(), 0..40),
        later in proptest::collection::vec(op(), 0..20),
    ) {
        let place = Place::new(None);
        let mut tape = tape_backup(&place);
        let mut model = Model::default();
        for op in &ops {
            let given = model.apply_to(&mut tape, op);
            prop_assert_eq!(given, model.apply(op), "{:?}", op);
            prop_assert_eq!(position(&mut tape), model.at as u64, "{:?}", op);
        }
        tape.complete().unwrap();

        let mut tape = tape_restore(&place);
        model.at = 0;
        for op in later.iter().filter(|op| !matches!(op, Op::Write(_) | Op::Mark)) {
            let given = model.apply_to(&mut tape, op);
            prop_assert_eq!(given, model.apply(op), "{:?}", op);
            prop_assert_eq!(position(&mut tape), model.at as u64, "{:?}", op);
        }
        model.at = 0;
        do_it(&mut tape, CommandCode::REWIND, 0).unwrap();
        while model.at < model.tape.len() {
            prop_assert_eq!(blocks(&mut tape, 3), model.apply(&Op::Read(3)));
        }
    }
}
