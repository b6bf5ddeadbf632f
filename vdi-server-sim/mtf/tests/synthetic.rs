//! Backups that the builder wrote.
#![allow(clippy::unwrap_used)]

mod common;

use common::damage::{damages, each_cut_is_reported, each_flip_of_a_header_is_reported};
use common::synthetic::{Pages, Shape, Synthetic, append, backup, date};
use common::{Random, parse_in_pieces};
use proptest::prelude::*;
use vdi_mtf::Error;
use vdi_mtf::builder::Builder;
use vdi_mtf::families;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::listing::{Header, Label, file_list};
use vdi_mtf::media::{MediaSet, Tape};
use vdi_mtf::medium::Medium;
use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::parser::Event;
use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader, PREFIX_LEN};
use vdi_mtf::stream::{HEADER_LEN, StreamId};
use vdi_mtf::value::{Guid, PageAddress, PageId};
use vdi_mtf::writer::Writer;

fn inspected(bytes: &[u8]) -> Medium {
    let mut inspector = Inspector::new();
    inspector.read(bytes).unwrap();
    inspector.finish().unwrap();
    assert_eq!(inspector.damages(), []);
    inspector.into_medium()
}

/// What a restore does: pages by their extents' addresses, log bytes by the range of their virtual log file.
#[derive(Default)]
struct Restored {
    pages: Vec<Pages>,
    log: Vec<u8>,
}

fn restored(bytes: &[u8], seed: u64) -> Restored {
    let mut result = Restored::default();
    let (mut extents, mut at, mut stream) = (ExtentReader::new(0), None, None);
    let mut current: Vec<u8> = Vec::new();
    parse_in_pieces(bytes, seed, |event| match event {
        Event::Stream(found) => {
            stream = Some(found.header.id());
            if found.header.id() == StreamId::DATA && found.header.len > 0 {
                extents = ExtentReader::new(found.offset + HEADER_LEN as u64);
                result.pages.push(Pages::new());
            }
            current.clear();
        }
        Event::Data(data) if stream == Some(StreamId::DATA) => {
            let mut data = *data;
            while let Some(event) = extents.next(&mut data).unwrap() {
                match event {
                    ExtentEvent::Extent(first) => at = first,
                    ExtentEvent::Bytes(bytes) => {
                        let Some(address) = &mut at else { continue };
                        for &byte in bytes {
                            current.push(byte);
                            if current.len() == PAGE_LEN {
                                result.pages.last_mut().unwrap().insert(*address, std::mem::take(&mut current));
                                address.page = PageId(address.page.0 + 1);
                            }
                        }
                    }
                }
            }
        }
        Event::Data(data) if stream == Some(StreamId::LOG) => current.extend_from_slice(data),
        Event::StreamEnd(StreamId::LOG) => result.log.extend(&current[PREFIX_LEN as usize..]),
        _ => {}
    })
    .unwrap();
    result
}

fn shapes() -> impl Strategy<Value = Shape> {
    let numbers =
        (prop::sample::select(vec![9_u8, 10, 11, 16]), prop::sample::select(vec![512_u32, 4096]), 1..4_u16, 1..3_u16);
    let more =
        (1..4_u32, any::<(bool, bool, bool)>(), prop::collection::vec(1..9_u16, 1..4), "[a-zé]{1,12}", any::<u64>());
    (numbers, more).prop_map(|((major, filemark_len, families, files), (extents, flags, log_blocks, name, seed))| {
        let (checksum, second_pass, torn_bits) = flags;
        let quiet = false;
        Shape {
            major,
            filemark_len,
            checksum,
            torn_bits,
            families,
            files,
            extents,
            second_pass,
            log_blocks,
            name,
            quiet,
            seed,
        }
    })
}

fn came_back(shape: &Shape, made: &Synthetic) {
    let media: Vec<Medium> = made.media.iter().map(|bytes| inspected(bytes)).collect();
    // In any order: the last family first.
    let reversed: Vec<&Medium> = media.iter().rev().collect();
    let order = families::validate(&reversed).unwrap();
    assert_eq!(order, (0..media.len()).rev().collect::<Vec<_>>());

    let families: Vec<Restored> =
        made.media.iter().enumerate().map(|(n, bytes)| restored(bytes, shape.seed ^ n as u64)).collect();
    let mut pages = Pages::new();
    for pass in 0..=usize::from(shape.second_pass) {
        for family in &families {
            pages.extend(family.pages[pass].clone());
        }
    }
    assert!(pages == made.pages);
    assert_eq!(families[0].log[..made.log.len()], made.log);
    assert!(families[1..].iter().all(|family| family.log.is_empty()));

    for (medium, bytes) in media.iter().zip(&made.media) {
        let set = &medium.sets[0];
        assert_eq!(set.trailing.as_ref().unwrap().encode().unwrap(), made.trailing.encode().unwrap());
        assert_eq!(set.leading.encode().unwrap(), made.leading.encode().unwrap());
        let mut headers = Inspector::headers_only();
        headers.read(bytes).unwrap();
        assert_eq!(headers.damage_count(), 0);
        assert_eq!((&headers.medium().sets[0].trailing, &headers.medium().sets[0].map), (&set.trailing, &set.map));
        let header = Header::of(set);
        assert_eq!((header.database_name.as_str(), header.backup_name.as_str()), (shape.name.as_str(), "nightly"));
        assert_eq!((header.user_name.as_str(), header.machine_name.as_str()), ("sa", "machine"));
        assert_eq!((header.position, header.kind.number(), header.has_checksums), (1, 1, shape.checksum));
        let label = Label::of(medium);
        assert_eq!((label.family_count, label.software_name.as_str()), (shape.families, "Microsoft SQL Server"));
        let files = file_list(&set.leading);
        assert_eq!(files.len(), usize::from(shape.files) + 1);
        assert_eq!((files[0].filegroup_name.as_str(), files[0].size), ("PRIMARY", u64::from(shape.extents) * 65536));
        let counts = set.data[0].pages;
        assert_eq!(counts.pages + counts.fillers, set.data[0].len / 8192);
        let (mut writer, mut copy) = (Writer::new(), Vec::new());
        parse_in_pieces(bytes, 3, |event| copy.extend_from_slice(writer.write(event).unwrap())).unwrap();
        assert!(copy == *bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_backup_parses_to_what_went_in(shape in shapes()) {
        came_back(&shape, &backup(&shape));
    }

    #[test]
    fn a_flipped_bit_of_a_page_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u8, torn in any::<bool>()) {
        let shape = Shape { checksum: false, torn_bits: torn, extents: 1, ..Shape::default() };
        let made = backup(&shape);
        let stream = inspected(&made.media[0]).sets[0].data[0].clone();
        // Pages 0, 1, 2 and 3 are allocated. Torn-page bits protect two bits a sector.
        let mut place = at.index(4 * PAGE_LEN);
        let mut bit = bit;
        if torn {
            (place, bit) = (place / 512 * 512 + 511, bit % 2);
        }
        prop_assume!(!torn || place % PAGE_LEN > 511);
        let mut damaged = made.media[0].clone();
        damaged[stream.offset as usize + place] ^= 1 << bit;
        let found = damages(&damaged);
        prop_assert!(!found.is_empty(), "byte {place}, bit {bit}");
    }
}

/// A flip anywhere in pages and log is found by the backup checksum, also where it hits a free page.
#[test]
fn a_flipped_bit_of_a_stream_is_found_by_the_backup_checksum() {
    let made = backup(&Shape::default());
    let set = inspected(&made.media[0]).sets[0].clone();
    let mut random = Random(5);
    let log = set.log[0].1.as_ref().unwrap();
    for (offset, len) in [(set.data[0].offset, set.data[0].len), (log.offset, log.len)] {
        for _ in 0..20 {
            let mut damaged = made.media[0].clone();
            damaged[offset as usize + random.below(len as usize)] ^= 1 << random.below(8);
            let found = damages(&damaged);
            assert!(found.iter().any(|error| matches!(error, Error::BackupChecksum { .. })), "{found:?}");
        }
    }
}

#[test]
fn a_flipped_bit_of_a_log_block_is_found_by_its_own_checksum() {
    let made = backup(&Shape { checksum: false, ..Shape::default() });
    let set = inspected(&made.media[0]).sets[0].clone();
    let (vlf, Some(stream)) = &set.log[0] else { panic!("no log") };
    for at in (0..vlf.range_len() as usize).step_by(13) {
        // The length of a block is in bytes 6 and 7, the kind of its checksum in byte 8.
        let mut damaged = made.media[0].clone();
        damaged[stream.offset as usize + at] ^= 0x20;
        assert!(!damages(&damaged).is_empty(), "byte {at} of the log");
    }
}

#[test]
fn each_flip_of_a_header_is_reported_by_the_parser() {
    let made = backup(&Shape { second_pass: true, ..Shape::default() });
    each_flip_of_a_header_is_reported("synthetic", &made.media[0]);
}

#[test]
fn each_cut_is_reported_by_the_parser() {
    let made = backup(&Shape { extents: 1, ..Shape::default() });
    let bytes = &made.media[0];
    let small = (0..bytes.len()).filter(|at| at % 2048 < 160 || at % 97 == 0);
    each_cut_is_reported("synthetic", bytes, small);
}

#[test]
fn sets_are_appended() {
    let shape = Shape { families: 2, ..Shape::default() };
    let mut made = backup(&shape);
    for number in 2..=4 {
        let media: Vec<Medium> = made.media.iter().map(|bytes| inspected(bytes)).collect();
        let mut builders: Vec<Builder> = media.iter().map(Builder::append).collect();
        made =
            append(&Shape { seed: u64::from(number), ..shape.clone() }, number, &mut builders, &mut made.media.clone());
    }
    for bytes in &made.media {
        let medium = inspected(bytes);
        assert_eq!(medium.sets.iter().map(|set| set.start.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(medium.sets[3].map.sets.len(), 4);
        assert_eq!((medium.filemarks.len(), medium.len), (9, bytes.len() as u64));
        let expected: Vec<u64> = medium.sets.iter().map(|set| set.offset).collect();
        let found: Vec<u64> = medium.sets[3].map.sets.iter().map(|(set, _)| set.physical_address).collect();
        assert_eq!(expected, found);
    }
}

/// Cut as for a device that takes whole blocks, also where the medium began with other cuts, or with none.
#[test]
fn pages_begin_and_sets_end_at_cuts() {
    for (block, at_filemarks) in (9..17_u32).flat_map(|block| [(1_u64 << block, false), (1 << block, true)]) {
        let shape = Shape { filemark_len: 4096.min(block as u32), families: 2, second_pass: true, ..Shape::default() };
        let plain = backup(&shape);
        for first_is_cut in [false, true] {
            let builder = |family: u16| {
                let tape = Tape::new(4711 + u32::from(family), shape.filemark_len, date());
                let builder = Builder::new(tape, MediaSet::new(Guid([1; 16]), family, shape.families));
                builder.cut_at(block, at_filemarks)
            };
            let mut builders: Vec<Builder> = (1..=shape.families).map(builder).collect();
            let mut made = match first_is_cut {
                true => append(&shape, 1, &mut builders, &mut vec![Vec::new(); 2]),
                false => backup(&shape),
            };
            came_back(&shape, &made);
            // The second set has the cuts in either case.
            let media: Vec<Medium> = made.media.iter().map(|bytes| inspected(bytes)).collect();
            let mut builders: Vec<Builder> =
                media.iter().map(|medium| Builder::append(medium).cut_at(block, at_filemarks)).collect();
            made = append(&shape, 2, &mut builders, &mut made.media);
            for (bytes, plain) in made.media.iter().zip(&plain.media) {
                let medium = inspected(bytes);
                let filemark = u64::from(medium.label.filemark_len());
                let is_cut = |at: u64| at.is_multiple_of(block);
                for set in &medium.sets[usize::from(!first_is_cut)..] {
                    assert!(set.data.iter().all(|data| is_cut(data.offset)), "pages, {block}: {:?}", set.data);
                }
                // Each set has its last two filemarks: before its end, and at it.
                let ends: Vec<u64> = medium.filemarks.iter().map(|mark| mark + filemark).collect();
                assert!(is_cut(ends[4]) && is_cut(bytes.len() as u64), "ends, {block}: {ends:?}");
                assert!(!at_filemarks || is_cut(ends[3]), "the summary, {block}: {ends:?}");
                match first_is_cut {
                    true => {
                        assert!(is_cut(ends[2]) && (!at_filemarks || is_cut(ends[0]) && is_cut(ends[1])), "{ends:?}");
                    }
                    false => assert!(bytes.starts_with(plain), "a set that is there stays as it is"),
                }
            }
        }
    }
}

/// A filemark shorter than a logical block puts SSET where no alignment leads to the cut: the padding takes its first place.
#[test]
fn cuts_out_of_reach_leave_a_sound_medium() {
    let shape = Shape::default();
    let builder = Builder::new(Tape::new(4711, 512, date()), MediaSet::new(Guid([1; 16]), 1, 1)).cut_at(4096, true);
    let made = append(&shape, 1, &mut [builder], &mut [Vec::new()]);
    came_back(&shape, &made);
    let plain = backup(&shape);
    assert!(made.media[0].len() - plain.media[0].len() < 3 * 4096);
}

#[test]
fn pages_and_log_can_be_skipped() {
    let shape = Shape { extents: 20, second_pass: true, ..Shape::default() };
    let made = backup(&shape);
    let bytes = &made.media[0];
    let mut headers = Inspector::headers_only();
    headers.read(bytes).unwrap();
    for piece in [1, 100, 4096] {
        let (mut inspector, mut at, mut read) = (Inspector::headers_only(), 0, 0);
        while at < bytes.len() {
            let part = &bytes[at..(at + piece).min(bytes.len())];
            inspector.read(part).unwrap();
            read += part.len();
            at += part.len();
            at += inspector.skip((bytes.len() - at) as u64) as usize;
        }
        inspector.finish().unwrap();
        assert_eq!((inspector.medium(), inspector.damage_count()), (headers.medium(), 0));
        assert!(read < bytes.len() / 2, "{read} of {} bytes", bytes.len());
        assert_eq!(inspector.skip(1), 0);
    }
    let mut verifying = Inspector::new();
    verifying.read(&bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(verifying.skip(100), 0);
}

#[test]
fn families_that_do_not_belong_together_are_refused() {
    let three = backup(&Shape { families: 3, ..Shape::default() });
    let media: Vec<Medium> = three.media.iter().map(|bytes| inspected(bytes)).collect();
    assert_eq!(families::validate(&[&media[2], &media[0], &media[1]]), Ok(vec![1, 2, 0]));
    assert_eq!(families::validate(&[&media[0], &media[2]]), Err(Error::MissingFamily { number: 2, count: 3 }));
    assert_eq!(
        families::validate(&[&media[0], &media[1], &media[2], &media[1]]),
        Err(Error::RepeatedFamily { number: 2 })
    );
    let two = backup(&Shape { families: 2, ..Shape::default() });
    let foreign = inspected(&two.media[0]);
    assert!(matches!(families::validate(&[&media[0], &foreign]), Err(Error::ForeignFamily { number: 1, .. })));
    assert!(families::validate(&[]).is_err());
}

#[test]
fn an_extent_without_an_address_is_refused() {
    let made = backup(&Shape { checksum: false, ..Shape::default() });
    let offset = inspected(&made.media[0]).sets[0].data[0].offset as usize;
    let mut damaged = made.media[0].clone();
    damaged[offset + 32] = 1;
    let file = vdi_mtf::value::FileId(1);
    let found = PageAddress { file, page: PageId(1) };
    assert_eq!(damages(&damaged)[0], Error::ExtentAddress { offset: offset as u64, found });
    let mut extents = ExtentReader::new(offset as u64 - 2);
    let error = extents.next(&mut &damaged[offset - 2..]).unwrap_err();
    assert_eq!(error, Error::ExtentAddress { offset: offset as u64, found });
}

/// The bodies of blocks have no checksum. What stands twice in them is compared, and padding is zero.
#[test]
fn values_that_stand_twice_are_compared() {
    let made = backup(&Shape::default());
    let bytes = &made.media[0];
    let find = |tag: &[u8; 4]| bytes.windows(4).position(|window| window == tag).unwrap();
    let (start, volume, map) = (find(b"SSET"), find(b"VOLB"), find(b"TSMP"));
    let second = map + 4 + bytes[map + 4..].windows(4).position(|window| window == b"ESET").unwrap();
    let last_mark = bytes.len() - 512;
    let at = [
        ("padding", 800),
        ("attributes", start + 52),
        ("position", start + 62),
        ("address", start + 80),
        ("date", start + 88),
        ("time zone", start + 95),
        ("name", start + 122),
        ("machine", volume + 78),
        ("date of the volume", volume + 70),
        ("family", map + 22),
        ("entry", map + 22 + 8 + 52),
        ("position at the end", second + 78),
        ("filemarks", last_mark + 72),
        ("database", find(b"SCIN") + 400),
        ("file", find(b"SFIN") + 186),
    ];
    for (what, at) in at {
        let mut damaged = bytes.clone();
        damaged[at] ^= 2;
        assert!(!damages(&damaged).is_empty(), "{what}");
    }
}
