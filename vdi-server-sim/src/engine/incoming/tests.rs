//! Backups that the builder of `vdi-mtf` wrote, in pieces of any size and orders of any kind; and real ones.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::engine::made_backups::synthetic::{Shape, Synthetic, append, backup};
use crate::engine::made_backups::{Random, real_backups};
use crossbeam::channel::TryRecvError;
use proptest::prelude::*;
use vdi_mtf::builder::{Builder, filler_extent};
use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::{BackupSet, Medium};
use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::value::{FileId, PageAddress, PageId};

use super::*;
use crate::engine::feed::{Fed, Feed};
use crate::tsql::parse;

/// Files in memory.
#[derive(Default)]
struct Files {
    bytes: Mutex<BTreeMap<FileId, Vec<u8>>>,
    begun: Mutex<u32>,
}

impl Destination for Files {
    fn begin(&self, set: &BackupSet) -> Result<(), Failure> {
        *lock(&self.begun) += 1;
        let mut files = lock(&self.bytes);
        for file in &set.leading.files {
            // A damaged header may say anything.
            files.insert(file.file_id, vec![0; file.size.min(1 << 24) as usize]);
        }
        Ok(())
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut files = lock(&self.bytes);
        let at = offset as usize;
        let place = files.get_mut(&file).and_then(|file| file.get_mut(at..at + bytes.len()));
        place
            .ok_or_else(|| Failure::Content { device: String::new(), what: "beyond the end".to_owned() })?
            .copy_from_slice(bytes);
        Ok(())
    }
}

const WANTED: Wanted = Wanted {
    file: 1,
    checksum: None,
    continue_after_error: false,
    block_size: None,
    snapshot: Some(false),
    full: true,
};

/// Feeds media as devices would: pieces of any size, the devices in any order, each waiting where it has to.
fn receive(media: &[Vec<u8>], wanted: Wanted, files: &dyn Destination, seed: u64) -> Result<Received, Failure> {
    let incoming = Incoming::new(wanted, "sales", media.len(), files);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut readers: Vec<_> = media
        .iter()
        .enumerate()
        .map(|(n, bytes)| (incoming.reader(n, &format!("d{n}")), &bytes[..], &[][..], false))
        .collect();
    let mut running: Vec<usize> = (0..media.len()).collect();
    let mut waiting = vec![false; media.len()];
    while !running.is_empty() {
        let at = random.below(running.len());
        let device = running[at];
        let is_over = incoming.first_pass_over().try_recv() == Err(TryRecvError::Disconnected);
        let able = running.iter().any(|&device| !waiting[device]);
        assert!(able || is_over, "all devices wait for each other");
        if waiting[device] && !is_over {
            continue;
        }
        waiting[device] = false;
        let (reader, rest, piece, more) = &mut readers[device];
        if piece.is_empty() {
            if rest.is_empty() {
                reader.end_of_data()?;
                panic!("the set did not end");
            }
            let most = [40, 3000, 70_000, 400_000][random.below(4)];
            (*piece, *rest) = rest.split_at((1 + random.below(most)).min(rest.len()));
            *more = reader.needs_more(piece);
        }
        match reader.feed(piece)? {
            Fed::More => assert!(piece.is_empty() && *more, "the end was announced, and did not come"),
            Fed::SecondPass => waiting[device] = true,
            Fed::End => {
                assert!(!*more, "the end came and was not announced");
                running.remove(at);
            }
        }
    }
    incoming.finish()
}

/// SQL Server's number for what receiving these media ends with; 0 for success.
fn number(media: &[Vec<u8>], wanted: Wanted) -> u32 {
    match receive(media, wanted, &Files::default(), 5) {
        Ok(_) => 0,
        Err(failure) => {
            let statement = parse("RESTORE DATABASE sales FROM VIRTUAL_DEVICE = 's'").unwrap();
            failure.messages(&statement)[0].number
        }
    }
}

fn assert_came(made: &Synthetic, files: &Files, received: &Received) {
    let bytes = lock(&files.bytes);
    for (page, image) in &made.pages {
        let at = page.file_offset() as usize;
        assert!(bytes[&page.file][at..at + PAGE_LEN] == image[..], "page {page}");
    }
    let (vlf, log) = (&received.log[0], &bytes[&FileId(2)]);
    assert_eq!(log[vlf.start as usize..vlf.end as usize], made.log);
    assert!(log[vlf.end as usize..].iter().all(|&byte| byte == 0), "no padding of the stream");
    assert!(received.set.leading.encode() == made.leading.encode());
    assert!(received.trailing.encode() == made.trailing.encode());
    assert_eq!(*lock(&files.begun), 1);
}

fn shapes() -> impl Strategy<Value = Shape> {
    let numbers =
        (prop::sample::select(vec![9_u8, 11, 16]), prop::sample::select(vec![512_u32, 4096]), 1..5_u16, 1..3_u16);
    (numbers, 1..5_u32, any::<(bool, bool, bool, u64)>()).prop_map(
        |((major, filemark_len, families, files), extents, rest)| {
            let (checksum, torn_bits, second_pass, seed) = rest;
            Shape {
                major,
                filemark_len,
                families,
                files,
                extents,
                checksum,
                torn_bits,
                second_pass,
                seed,
                ..Shape::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn families_in_any_order_and_pieces_give_the_database(shape in shapes(), seed in any::<u64>(), turn in 0..4_usize) {
        let mut made = backup(&shape);
        made.media.rotate_left(turn % usize::from(shape.families));
        let files = Files::default();
        let received = receive(&made.media, WANTED, &files, seed).unwrap();
        assert_came(&made, &files, &received);
        prop_assert_eq!(received.damages, 0);
    }
}

/// Where the pages of a medium begin, and how many bytes they have.
fn pages_of(medium: &[u8]) -> std::ops::Range<usize> {
    let mut inspector = Inspector::new();
    inspector.read(medium).unwrap();
    let stream = &inspector.medium().sets[0].data[0];
    stream.offset as usize..(stream.offset + stream.len) as usize
}

fn log_of(medium: &[u8]) -> usize {
    let mut inspector = Inspector::new();
    inspector.read(medium).unwrap();
    inspector.medium().sets[0].log[0].1.as_ref().unwrap().offset as usize
}

#[test]
fn each_damage_has_its_number() {
    let plain = backup(&Shape { checksum: false, ..Shape::default() });
    let summed = backup(&Shape::default());
    let flipped = |made: &Synthetic, at: usize| {
        let mut media = made.media.clone();
        media[0][at] ^= 0x10;
        media
    };
    let (pages, log) = (pages_of(&plain.media[0]).start, log_of(&plain.media[0]));
    let free = pages_of(&summed.media[0]).end - 100;
    assert_eq!(number(&flipped(&plain, pages + 3 * PAGE_LEN + 500), WANTED), 3183, "a page");
    assert_eq!(number(&flipped(&plain, log + 500), WANTED), 3189, "a log block");
    assert_eq!(number(&flipped(&summed, free), WANTED), 3189, "a free page, by the backup checksum");
    assert_eq!(number(&flipped(&plain, 4), WANTED), 3241, "a header");
    assert_eq!(number(&flipped(&plain, 800), WANTED), 3241, "padding");
    assert_eq!(number(&[vec![0x5a; 70_000]], WANTED), 3241, "no backup");
    assert_eq!(number(&[b"MSSQLBAK\x02\0\0\0\x03\0\0\0".repeat(10)], WANTED), 3241, "a compressed one");
    assert_eq!(number(&[Vec::new()], WANTED), 3254, "nothing");
    for keep in [1, 511, 4000, pages + 10, plain.media[0].len() - 1] {
        assert_eq!(number(&[plain.media[0][..keep].to_vec()], WANTED), 3203, "{keep} bytes");
    }
}

#[test]
fn what_the_options_say_of_damages() {
    let summed = backup(&Shape::default());
    let pages = pages_of(&summed.media[0]);
    let mut free = summed.media.clone();
    free[0][pages.end - 100] ^= 1;
    assert_eq!(number(&free, Wanted { checksum: Some(false), ..WANTED }), 0, "NO_CHECKSUM");
    let mut page = summed.media.clone();
    page[0][pages.start + 3 * PAGE_LEN + 500] ^= 1;
    assert_eq!(number(&page, Wanted { checksum: Some(false), ..WANTED }), 3183, "pages are verified always");
    let wanted = Wanted { continue_after_error: true, ..WANTED };
    let received = receive(&page, wanted, &Files::default(), 1).unwrap();
    assert_eq!(received.damages, 2, "the page, and the backup checksum");
    let plain = backup(&Shape { checksum: false, ..Shape::default() });
    assert_eq!(number(&plain.media, Wanted { checksum: Some(true), ..WANTED }), 3187);
    assert_eq!(number(&summed.media, Wanted { checksum: Some(true), ..WANTED }), 0);
    assert_eq!(number(&plain.media, Wanted { block_size: Some(4096), ..WANTED }), 3272);
    assert_eq!(number(&plain.media, Wanted { block_size: Some(512), ..WANTED }), 0);
    assert_eq!(number(&plain.media, Wanted { snapshot: Some(true), ..WANTED }), 3276);
}

/// BACKUP WITH CONTINUE_AFTER_ERROR knows of a damage only when the pages are written: the flag is in the last configuration.
#[test]
fn a_backup_that_says_at_its_end_that_it_is_damaged_is_refused() {
    let made = backup(&Shape::default());
    let mut inspector = Inspector::new();
    inspector.read(&made.media[0]).unwrap();
    let mut set = inspector.medium().sets[0].clone();
    set.trailing.as_mut().unwrap().database.flags |= database_flags::DAMAGED;
    let ended = |wanted| {
        let files = Files::default();
        Incoming::new(wanted, "sales", 1, &files).end("d", 1, &set, 0)
    };
    assert!(matches!(ended(WANTED), Err(Failure::DamagedBackup { .. })));
    ended(Wanted { continue_after_error: true, ..WANTED }).unwrap();
}

#[test]
fn families_that_do_not_fit_have_their_numbers() {
    let three = backup(&Shape { families: 3, extents: 4, ..Shape::default() }).media;
    let media = |families: &[usize]| families.iter().map(|&family| three[family].clone()).collect::<Vec<_>>();
    assert_eq!(number(&media(&[2, 0, 1]), WANTED), 0);
    assert_eq!(number(&media(&[0, 1]), WANTED), 3132);
    assert_eq!(number(&media(&[0, 1, 2, 2]), WANTED), 3231);
    assert_eq!(number(&media(&[0, 1, 0]), WANTED), 3227);
    let two = backup(&Shape { families: 2, ..Shape::default() }).media;
    assert_eq!(number(&[three[0].clone(), two[0].clone()], WANTED), 3132);
    // The media set of the second is another one, of as many families.
    let mut other = three[1].clone();
    let id = other.windows(4).position(|window| window == b"RAID").unwrap() + 22;
    other[id] ^= 1;
    let media = [three[0].clone(), other, three[2].clone()];
    assert_eq!(number(&media, WANTED), 3258);
    // In whatever order they are read.
    for seed in 0..16 {
        match receive(&media, WANTED, &Files::default(), seed).unwrap_err() {
            Failure::Families { device, source: FamilyError::Foreign { other, .. }, .. } => {
                assert!(device > other && [&device, &other].contains(&&"d1".to_owned()), "{device} {other}");
            }
            failure => panic!("{failure}"),
        }
    }
    // The stranger is the last.
    for seed in 0..16 {
        let media = [media[2].clone(), media[0].clone(), media[1].clone()];
        match receive(&media, WANTED, &Files::default(), seed).unwrap_err() {
            Failure::Families { device, .. } => assert_eq!(device, "d2", "seed {seed}"),
            failure => panic!("{failure}"),
        }
    }
}

#[test]
fn an_extent_that_is_missing_or_came_twice_is_found() {
    let made = backup(&Shape { checksum: false, extents: 4, ..Shape::default() });
    let pages = pages_of(&made.media[0]);
    let extent = |n: usize| pages.start + n * 65536..pages.start + (n + 1) * 65536;
    let mut missing = made.media.clone();
    missing[0][extent(3)].copy_from_slice(&filler_extent());
    assert_eq!(number(&missing, WANTED), 3189);
    let mut twice = made.media.clone();
    let second = twice[0][extent(2)].to_vec();
    twice[0][extent(3)].copy_from_slice(&second);
    assert_eq!(number(&twice, WANTED), 3241);
}

#[test]
fn an_extent_outside_of_the_database_is_refused() {
    let mut coverage = Coverage::new(&backup(&Shape { extents: 4, ..Shape::default() }).leading);
    let page = |file, page| PageAddress { file: FileId(file), page: PageId(page) };
    assert_eq!(coverage.add(0, page(1, 24)), Ok(()));
    assert_eq!(coverage.add(1, page(1, 24)), Ok(()));
    for page in [page(1, 32), page(1, u32::MAX - 7), page(2, 0), page(9, 0)] {
        assert!(coverage.add(0, page).is_err(), "{page}");
    }
}

#[test]
fn the_set_that_file_names_is_taken_and_nothing_behind_it() {
    let shape = Shape::default();
    let mut sets = vec![backup(&shape)];
    for number in 2..=3_u16 {
        let before = &sets[sets.len() - 1];
        let media: Vec<Medium> = before
            .media
            .iter()
            .map(|bytes| {
                let mut inspector = Inspector::new();
                inspector.read(bytes).unwrap();
                inspector.into_medium()
            })
            .collect();
        let mut builders: Vec<Builder> = media.iter().map(Builder::append).collect();
        let shape = Shape { seed: number.into(), ..shape.clone() };
        sets.push(append(&shape, number, &mut builders, &mut before.media.clone()));
    }
    let media = sets[2].media.clone();
    for (file, made) in (1..).zip(&sets) {
        let files = Files::default();
        let received = receive(&media, Wanted { file, ..WANTED }, &files, 3).unwrap();
        assert_came(made, &files, &received);
        assert_eq!(u32::from(received.set.start.number), file);
    }
    assert_eq!(number(&media, Wanted { file: 4, ..WANTED }), 4038);
    // A damage of another set is no damage of this one.
    let mut damaged = media.clone();
    damaged[0][pages_of(&media[0]).start + 3 * PAGE_LEN + 500] ^= 1;
    assert_eq!(number(&damaged, WANTED), 3183);
    assert_eq!(number(&damaged, Wanted { file: 2, ..WANTED }), 0);

    let files = Files::default();
    let incoming = Incoming::new(WANTED, "sales", 1, &files);
    let mut reader = incoming.reader(0, "d");
    let mut bytes = [&sets[0].media[0][..], b"something else"].concat();
    bytes.extend_from_slice(&[0; 9]);
    assert!(!reader.needs_more(&bytes));
    let mut rest = &bytes[..];
    assert_eq!(reader.feed(&mut rest).unwrap(), Fed::End);
    assert_eq!(rest.len(), 14 + 9);
}

/// All kinds are complete by the rules of this module: of each full, differential and log backup that a server made.
#[test]
fn real_backups_are_complete() {
    let mut media_sets: BTreeMap<_, Vec<(String, Vec<u8>)>> = BTreeMap::new();
    for real in real_backups("real_backups_are_complete") {
        let mut headers = Inspector::headers_only();
        headers.read(&real.bytes).unwrap();
        let id = headers.medium().media_set.id.0;
        media_sets.entry(id).or_default().push((real.name, real.bytes));
    }
    for files in media_sets.into_values() {
        let (names, media): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let count = {
            let mut headers = Inspector::headers_only();
            headers.read(&media[0]).unwrap();
            usize::from(headers.medium().media_set.family_count)
        };
        let wanted = Wanted { full: false, ..WANTED };
        let received = receive(&media, wanted, &Nowhere, 9);
        match received {
            Ok(received) => assert!(!received.pages.is_empty()),
            Err(Failure::Families { source: FamilyError::Count { families, provided }, .. }) => {
                assert_eq!((families, provided), (count, media.len()));
                assert_ne!(families, provided);
            }
            Err(failure) => panic!("{names:?}: {failure}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is damaged, the restore is refused, or every page is what it was.
    #[test]
    fn damaged_media_are_refused_or_change_nothing(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        seed in any::<u64>(),
    ) {
        let made = backup(&Shape { families: 2, files: 2, second_pass: seed % 2 == 0, ..Shape::default() });
        let mut media = made.media.clone();
        for (at, byte, in_headers) in flips {
            let medium = &mut media[usize::from(byte) % 2];
            // Half of them in the headers, which are few.
            let at = if in_headers { at.index(8192) } else { at.index(medium.len()) };
            medium[at] ^= byte | 1;
        }
        if let Some(cut) = cut {
            let len = media[0].len();
            media[0].truncate(cut.index(len));
        }
        let files = Files::default();
        if receive(&media, WANTED, &files, seed).is_ok() {
            let bytes = lock(&files.bytes);
            for (page, image) in &made.pages {
                let at = page.file_offset() as usize;
                prop_assert!(bytes[&page.file][at..at + PAGE_LEN] == image[..], "page {}", page);
            }
        }
    }
}

struct Nowhere;

impl Destination for Nowhere {
    fn begin(&self, _set: &BackupSet) -> Result<(), Failure> {
        Ok(())
    }

    fn write_at(&self, _file: FileId, _offset: u64, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}
