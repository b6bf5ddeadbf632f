//! The law of the format: what comes out is what went in, and every accident is found.
#![allow(clippy::unwrap_used, reason = "tests")]

mod snapshot;

use proptest::prelude::*;

use super::*;
use crate::database::DatabaseFile;

type Contents = Vec<Vec<u8>>;

/// One segment of one device, as its bytes.
type Segments = Vec<Vec<u8>>;

#[derive(Debug, Clone)]
struct Plan {
    contents: Contents,
    block_size: u32,
    families: u32,
    /// Blocks of payload in a buffer.
    blocks: u32,
    checksum: Checksum,
    /// Where to cut, and which device gets what.
    seed: u64,
}

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Writes a backup: for each device its segments.
fn write(plan: &Plan) -> Vec<Segments> {
    let files = plan
        .contents
        .iter()
        .enumerate()
        .map(|(i, data)| DatabaseFile { path: format!("f/{i}"), size: data.len() as u64, mode: 0o640 })
        .collect();
    let catalog: std::sync::Arc<[u8]> = Catalog::new(files).unwrap().encode().into();
    let block = plan.block_size as usize;
    let mut buffer = vec![0xEE; block * (1 + plan.blocks as usize)];
    let mut devices: Vec<(StreamWriter, Segments)> = (0..plan.families)
        .map(|family_index| {
            let identity = Identity { set_id: [9; 16], family_index, family_count: plan.families };
            (StreamWriter::new(identity, plan.block_size, catalog.clone()).unwrap(), Vec::new())
        })
        .collect();
    for (writer, segments) in &mut devices {
        let (header, payload) = buffer.split_at_mut(block);
        while let Some(length) = writer.next_catalog(header, payload).unwrap() {
            segments.push([&*header, &payload[..length]].concat());
        }
    }
    let mut seed = plan.seed;
    let mut pieces = Vec::new();
    for (file_index, data) in plan.contents.iter().enumerate() {
        let mut at = 0;
        while at < data.len() {
            let most = (data.len() - at).min(block * plan.blocks as usize);
            let length = 1 + next(&mut seed) as usize % most;
            pieces.push((file_index, at, length));
            at += length;
        }
    }
    for i in (1..pieces.len()).rev() {
        pieces.swap(i, next(&mut seed) as usize % (i + 1));
    }
    for (file_index, at, length) in pieces {
        buffer.fill(0xEE);
        let (header, payload) = buffer.split_at_mut(block);
        payload[..length].copy_from_slice(&plan.contents[file_index][at..at + length]);
        let checksum = plan.checksum.of(&payload[..length]);
        let piece = DataPiece { file_index: file_index as u32, file_offset: at as u64, length: length as u32 };
        let device = next(&mut seed) as usize % devices.len();
        let (writer, segments) = &mut devices[device];
        let padded = writer.data(header, payload, piece, checksum).unwrap();
        segments.push([&*header, &payload[..padded]].concat());
    }
    for (writer, segments) in &mut devices {
        writer.end(&mut buffer).unwrap();
        segments.push(buffer[..block].to_vec());
        assert_eq!(writer.totals().segments, segments.len() as u64);
    }
    devices.into_iter().map(|(_, segments)| segments).collect()
}

/// Restores from whole streams, read in pieces of 1 to `most` bytes, the devices taking turns.
fn read(streams: &[Vec<u8>], block_size: u32, most: usize, mut seed: u64) -> Result<Contents, String> {
    let families = streams.len() as u32;
    let mut verifier = SetVerifier::new(families);
    let mut contents: Option<Contents> = None;
    let mut parsers: Vec<(StreamParser, usize)> = streams
        .iter()
        .map(|_| (StreamParser::new(Expectations { block_size, family_count: Some(families) }), 0))
        .collect();
    let mut actions = Vec::new();
    while parsers.iter().zip(streams).any(|((_, at), stream)| *at < stream.len()) {
        for ((parser, at), stream) in parsers.iter_mut().zip(streams) {
            let left = stream.len() - *at;
            if left == 0 {
                continue;
            }
            let slice = &stream[*at..*at + 1 + next(&mut seed) as usize % left.min(most)];
            *at += slice.len();
            actions.clear();
            let result = parser.push(slice, &mut actions).map_err(|error| error.to_string());
            if let Some(identity) = parser.identity() {
                for action in &actions {
                    verifier.record(&identity, action).map_err(|error| error.to_string())?;
                    match action {
                        Action::Catalog(catalog) => {
                            let empty = || catalog.files().iter().map(|file| vec![0; file.size as usize]).collect();
                            contents.get_or_insert_with(empty);
                        }
                        Action::Data { file_index, file_offset, range } => {
                            let file = &mut contents.as_mut().unwrap()[*file_index];
                            file[*file_offset as usize..][..range.len()].copy_from_slice(&slice[range.clone()]);
                        }
                        Action::DataEnd { .. } | Action::End(_) => {}
                    }
                }
            }
            if let Err(error) = result {
                assert_eq!(parser.push(b"x", &mut actions).unwrap_err().to_string(), error);
                assert!(parser.finish().is_err());
                return Err(error);
            }
        }
    }
    for (parser, _) in &parsers {
        parser.finish().map_err(|error| error.to_string())?;
        if parser.trailing() > 0 {
            return Err(format!("{} trailing bytes", parser.trailing()));
        }
    }
    let totals = verifier.finish().map_err(|error| error.to_string())?;
    let contents = contents.unwrap();
    assert_eq!(totals.data_bytes, contents.iter().map(|data| data.len() as u64).sum::<u64>());
    Ok(contents)
}

fn streams(devices: &[Segments]) -> Vec<Vec<u8>> {
    devices.iter().map(|segments| segments.concat()).collect()
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4000), 1..5),
        9..=11u32,
        1..=5u32,
        1..=3u32,
        any::<u64>(),
    )
        .prop_map(|(contents, bits, families, blocks, seed)| Plan {
            contents,
            block_size: 1 << bits,
            families,
            blocks,
            checksum: Checksum::Crc32,
            seed,
        })
}

fn plan() -> Plan {
    let contents = vec![(0..3000).map(|i| i as u8).collect(), Vec::new(), vec![7; 513]];
    Plan { contents, block_size: 512, families: 2, blocks: 1, checksum: Checksum::Crc32, seed: 5 }
}

proptest! {
    #[test]
    fn what_comes_out_is_what_went_in(mut plan in plans(), most in 1..5000usize, checked in any::<bool>(), order in any::<u64>()) {
        if !checked {
            plan.checksum = Checksum::None;
        }
        let mut streams = streams(&write(&plan));
        // The order of the devices in the RESTORE does not matter.
        let count = streams.len();
        streams.rotate_left(order as usize % count);
        prop_assert_eq!(read(&streams, plan.block_size, most, order), Ok(plan.contents));
    }

    #[test]
    fn a_flipped_bit_is_found(plan in plans(), most in 1..5000usize, at in any::<prop::sample::Index>(), bit in 0..8u8, device in any::<prop::sample::Index>()) {
        let mut streams = streams(&write(&plan));
        let stream = device.get_mut(&mut streams[..]);
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        prop_assert!(read(&streams, plan.block_size, most, 1).is_err());
    }

    #[test]
    fn a_truncated_stream_is_found(plan in plans(), most in 1..5000usize, at in any::<prop::sample::Index>(), device in any::<prop::sample::Index>()) {
        let mut streams = streams(&write(&plan));
        let stream = device.get_mut(&mut streams[..]);
        let at = at.index(stream.len());
        stream.truncate(at);
        prop_assert!(read(&streams, plan.block_size, most, 1).is_err());
    }

    #[test]
    fn lost_repeated_and_moved_segments_are_found(
        plan in plans(), most in 1..5000usize, kind in 0..4u8,
        device in any::<prop::sample::Index>(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let mut devices = write(&plan);
        let other = (device.index(devices.len()) + 1) % devices.len();
        let mine = device.index(devices.len());
        let segments = &mut devices[mine];
        let (i, j) = (a.index(segments.len()), b.index(segments.len()));
        match kind {
            0 => drop(segments.remove(i)),
            // A repeated End would only be bytes behind the end, which are not read.
            1 => { let i = i.min(segments.len() - 2); let again = segments[i].clone(); segments.insert(j, again); }
            2 => { prop_assume!(i != j); segments.swap(i, j); }
            _ => {
                prop_assume!(other != mine);
                let theirs = b.index(devices[other].len());
                let (x, y) = (devices[mine][i].clone(), devices[other][theirs].clone());
                devices[mine][i] = y;
                devices[other][theirs] = x;
            }
        }
        prop_assert!(read(&streams(&devices), plan.block_size, most, 1).is_err());
    }

    #[test]
    fn decoders_are_total(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let _ = SegmentHeader::decode(&bytes);
        let _ = Catalog::decode(&bytes);
        let mut parser = StreamParser::new(Expectations { block_size: 512, family_count: None });
        prop_assert!(bytes.len() < 8 || parser.push(&bytes, &mut Vec::new()).is_ok() == (bytes.len() < HEADER_BYTES));
    }

    /// Headers that have a right checksum but fields of any value: whatever is accepted is written the same again.
    #[test]
    fn a_header_has_one_encoding(at in 8..508usize, value in any::<[u8; 4]>(), kind in 1..=5u8) {
        let header = SegmentHeader {
            identity: Identity { set_id: [1; 16], family_index: 0, family_count: if kind < 4 { 2 } else { 1 } },
            block_size: 512,
            sequence: 3,
            kind: match kind {
                1 => SegmentKind::Catalog { offset: 0, total: 10 },
                2 => SegmentKind::Data { file_index: 1, file_offset: 2 },
                3 => SegmentKind::End { segments: 4, data_bytes: 5 },
                4 => SegmentKind::FileInfo { offset: 0, total: 10 },
                _ => SegmentKind::Snapshot { offset: 0, total: 10 },
            },
            payload_len: if kind == 3 { 0 } else { 10 },
            checksum: (kind != 3).then_some(77),
        };
        let mut block = [0xFF; 512];
        header.encode_into(&mut block).unwrap();
        prop_assert_eq!(SegmentHeader::decode(&block), Ok(header));
        let end = (at + 4).min(508);
        block[at..end].copy_from_slice(&value[..end - at]);
        let checksum = crc32fast::hash(&block[..508]);
        block[508..].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(header) = SegmentHeader::decode(&block) {
            // A larger block only adds zeros.
            let mut again = vec![0xFF; header.block_size as usize];
            header.encode_into(&mut again).unwrap();
            prop_assert_eq!(&again[..512], &block[..]);
        }
    }

    #[test]
    fn coverage_is_exact(cuts in prop::collection::btree_set(1..1000u64, 0..30), seed in any::<u64>()) {
        let catalog = Catalog::new(vec![DatabaseFile { path: "x".into(), size: 1000, mode: 0 }]).unwrap();
        let identity = Identity { set_id: [0; 16], family_index: 0, family_count: 1 };
        let mut verifier = SetVerifier::new(1);
        verifier.record(&identity, &Action::Catalog(catalog.into())).unwrap();
        let edges: Vec<u64> = [0].into_iter().chain(cuts).chain([1000]).collect();
        let mut pieces: Vec<(u64, u64)> = edges.windows(2).map(|edge| (edge[0], edge[1] - edge[0])).collect();
        let mut seed = seed;
        for i in (1..pieces.len()).rev() {
            pieces.swap(i, next(&mut seed) as usize % (i + 1));
        }
        let lost = pieces.pop().unwrap();
        let data = |(file_offset, length)| Action::DataEnd { file_index: 0, file_offset, length };
        for piece in &pieces {
            verifier.record(&identity, &data(*piece)).unwrap();
            let (offset, length) = (piece.0 + next(&mut seed) % piece.1, 1);
            prop_assert!(verifier.record(&identity, &data((offset, length))).is_err());
        }
        // Without the last piece the file is incomplete; with it, nothing more fits in.
        verifier.record(&identity, &data(lost)).unwrap();
        prop_assert!(verifier.record(&identity, &data((0, 1000))).is_err());
        verifier.record(&identity, &Action::End(Totals::default())).unwrap();
        prop_assert_eq!(verifier.finish().map(|totals| totals.data_bytes), Ok(1000));
    }
}

#[test]
fn errors_say_what_to_do() {
    let streams = streams(&write(&plan()));
    let error = read(&streams, 1024, 100, 1).unwrap_err();
    assert!(error.ends_with("restore WITH BLOCKSIZE = 512"), "{error}");
    let error = read(&streams[..1], 512, 100, 1).unwrap_err();
    assert!(error.ends_with("name all 2 devices and no others"), "{error}");
    let error = read(&[streams[0].clone(), streams[0].clone()], 512, 100, 1).unwrap_err();
    assert!(error.contains("device 1 of the backup was given twice"), "{error}");
    let error = read(&[streams[0].clone(), vec![0x55; 2000]], 512, 100, 1).unwrap_err();
    assert!(error.contains("no backup of this simulator"), "{error}");
    let error = read(&[streams[0].clone(), Vec::new()], 512, 100, 1).unwrap_err();
    assert!(error.contains("without an End segment"), "{error}");
}

#[test]
fn devices_of_two_backups_are_told_apart() {
    let ours = write(&plan());
    let mut theirs = write(&plan());
    for segment in &mut theirs[1] {
        let mut header = SegmentHeader::decode(segment).unwrap();
        header.identity.set_id = [8; 16];
        header.encode_into(segment).unwrap();
    }
    let error = read(&[ours[0].concat(), theirs[1].concat()], 512, 1000, 1).unwrap_err();
    assert!(error.contains("restore from the devices of one backup"), "{error}");
    let mixed = [&ours[1][..1], &theirs[1][1..]].concat().concat();
    let error = read(&[ours[0].concat(), mixed], 512, 1000, 1).unwrap_err();
    assert!(error.contains("streams were mixed up"), "{error}");
}

#[test]
fn totals_are_compared() {
    let mut devices = write(&plan());
    for lie in [(1, 0), (0, 1)] {
        let before = devices.clone();
        let last = devices[0].last_mut().unwrap();
        let mut header = SegmentHeader::decode(last).unwrap();
        let SegmentKind::End { segments, data_bytes } = &mut header.kind else { panic!() };
        (*segments, *data_bytes) = (*segments + lie.0, *data_bytes + lie.1);
        header.encode_into(last).unwrap();
        let error = read(&streams(&devices), 512, 1000, 1).unwrap_err();
        assert!(error.contains("the total of"), "{error}");
        devices = before;
    }
}

/// Once, the place that was told was where the piece began that had the damage in it.
#[test]
fn damaged_padding_is_told_by_its_place_however_the_stream_is_cut() {
    let mut stream = streams(&write(&Plan { families: 1, block_size: 1024, ..plan() })).remove(0);
    // In the block of the first header, behind the header.
    stream[700] = 1;
    for most in [1, 100, 512, 699, 5000] {
        let mut parser = StreamParser::new(Expectations { block_size: 1024, family_count: None });
        let told = stream.chunks(most).find_map(|piece| parser.push(piece, &mut Vec::new()).err());
        assert_eq!(told, Some(StreamError::Padding { offset: 700, sequence: 0 }), "in pieces of {most} bytes");
    }
}

#[test]
fn bytes_behind_the_end_are_counted_only() {
    let plan = Plan { families: 1, ..plan() };
    let mut stream = streams(&write(&plan)).remove(0);
    let length = stream.len() as u64;
    stream.extend_from_slice(b"behind");
    let mut parser = StreamParser::new(Expectations { block_size: 512, family_count: None });
    let mut actions = Vec::new();
    parser.push(&stream, &mut actions).unwrap();
    parser.push(b"more", &mut actions).unwrap();
    assert!(parser.is_finished());
    assert_eq!((parser.offset(), parser.trailing()), (length, 10));
    assert!(matches!(actions.last(), Some(Action::End(_))));
}

#[test]
fn data_never_leaves_its_file() {
    let plan = Plan { families: 1, ..plan() };
    let mut devices = write(&plan);
    for (index, offset) in [(3, 0), (0, 3000), (0, u64::MAX - 600), (1, 0)] {
        let before = devices.clone();
        let segment = devices[0]
            .iter_mut()
            .find(|bytes| matches!(SegmentHeader::decode(bytes).unwrap().kind, SegmentKind::Data { .. }))
            .unwrap();
        let mut header = SegmentHeader::decode(segment).unwrap();
        header.kind = SegmentKind::Data { file_index: index, file_offset: offset };
        header.encode_into(segment).unwrap();
        let error = read(&streams(&devices), 512, 1000, 1).unwrap_err();
        assert!(error.contains("the number of the file") || error.contains("end in its file"), "{error}");
        devices = before;
    }
}

#[test]
fn a_long_catalog_takes_several_segments() {
    let contents = vec![vec![1, 2, 3]; 200];
    let plan = Plan { contents, ..plan() };
    let devices = write(&plan);
    let catalogs = devices[0]
        .iter()
        .filter(|bytes| matches!(SegmentHeader::decode(bytes).unwrap().kind, SegmentKind::Catalog { .. }))
        .count();
    assert!(catalogs > 3, "{catalogs}");
    assert_eq!(read(&streams(&devices), 512, 700, 3), Ok(plan.contents));
}

#[test]
fn the_writer_keeps_order_and_limits() {
    let identity = Identity { set_id: [0; 16], family_index: 0, family_count: 1 };
    let catalog = Catalog::new(Vec::new()).unwrap().encode();
    let new = |identity, block| StreamWriter::new(identity, block, catalog.clone().into());
    for block in [0, 256, 1000, 131_072] {
        assert!(matches!(new(identity, block), Err(WriteError::Header(_))), "{block}");
    }
    assert!(new(Identity { family_index: 1, ..identity }, 512).is_err());
    assert!(new(Identity { family_count: 65, ..identity }, 512).is_err());

    let mut writer = new(identity, 512).unwrap();
    let (mut header, mut payload) = ([0; 512], [0; 512]);
    let piece = DataPiece { file_index: 0, file_offset: 0, length: 512 };
    let (header, payload) = (&mut header[..], &mut payload[..]);
    assert!(matches!(writer.data(header, payload, piece, None), Err(WriteError::Order { .. })));
    let short = writer.next_catalog(header, &mut payload[..511]);
    assert!(matches!(short, Err(WriteError::NoRoom { found: 511, needed: 512 })));
    let short = writer.next_catalog(&mut header[..511], payload);
    assert!(matches!(short, Err(WriteError::NoRoom { found: 511, needed: 512 })));
    assert_eq!(writer.next_catalog(header, payload), Ok(Some(512)));
    assert_eq!(writer.next_catalog(header, payload), Ok(None));
    for (length, fits) in [(0, false), (1, true), (512, true), (513, false), (u32::MAX, false)] {
        assert_eq!(writer.data(header, payload, DataPiece { length, ..piece }, None).is_ok(), fits, "{length}");
    }
    assert_eq!(writer.totals(), Totals { segments: 3, data_bytes: 513 });
    assert_eq!(writer.end(header), Ok(()));
    assert!(matches!(writer.end(header), Err(WriteError::Order { .. })));
}

#[test]
fn capacity_of_a_transfer() {
    assert_eq!(payload_capacity(65_536 - 512, 512), 65_024);
    assert_eq!(payload_capacity(4 << 20, 65_536), 4 << 20);
    assert_eq!(payload_capacity(1023, 512), 512);
    assert_eq!(payload_capacity(65_535, 65_536), 0);
    assert_eq!(payload_capacity(usize::MAX, 512), MAX_PAYLOAD);
    assert_eq!(payload_capacity(65_536, 1000), 0);
}

#[test]
fn a_catalog_keeps_to_its_format() {
    let file = |path: &str, size| DatabaseFile { path: path.to_owned(), size, mode: 0o600 };
    let catalog = Catalog::new(vec![file("ä/b", 7), file("c", 0)]).unwrap();
    let bytes = catalog.encode();
    assert_eq!(Catalog::decode(&bytes), Ok(catalog.clone()));
    assert_eq!(catalog.total_bytes(), 7);
    for length in 0..bytes.len() {
        assert!(matches!(Catalog::decode(&bytes[..length]), Err(CatalogError::Length { .. })), "{length}");
    }
    assert!(matches!(Catalog::decode(&[&bytes[..], &[0]].concat()), Err(CatalogError::Length { .. })));
    let mut broken = bytes.clone();
    broken[18] = 0xFF;
    assert_eq!(Catalog::decode(&broken), Err(CatalogError::Path { index: 0 }));
    assert!(matches!(
        Catalog::new(vec![file(&"x".repeat(65_536), 0)]),
        Err(CatalogError::PathTooLong { index: 0, .. })
    ));
    assert_eq!(Catalog::new(vec![file("a", u64::MAX), file("b", 1)]), Err(CatalogError::TooManyBytes));
    let folders = catalog.clone().with_empty_folders(vec!["a/ö".to_owned(), "d".to_owned()]).unwrap();
    let more = folders.encode();
    assert_eq!((&more[..bytes.len()], Catalog::decode(&more)), (&bytes[..], Ok(folders)));
    for length in bytes.len() + 1..more.len() {
        assert!(matches!(Catalog::decode(&more[..length]), Err(CatalogError::Length { .. })), "{length}");
    }
    for end in [&[0; 4][..], &[1, 0, 0, 0, 0], &[0xFF; 4]] {
        assert!(matches!(Catalog::decode(&[&bytes[..], end].concat()), Err(CatalogError::Length { .. })), "{end:?}");
    }
    let mut broken = more.clone();
    broken[bytes.len() + 6] = 0xFF;
    assert_eq!(Catalog::decode(&broken), Err(CatalogError::Path { index: 2 }));
    assert!(matches!(
        catalog.with_empty_folders(vec!["x".repeat(65_536)]),
        Err(CatalogError::PathTooLong { index: 2, .. })
    ));
    let many = vec![file(&"x".repeat(60_000), 0); 1200];
    assert!(matches!(Catalog::new(many), Err(CatalogError::TooLong { .. })));
}
