//! The law for snapshots: catalog and checksums come out as they went in, and neither kind of stream passes for the other.

use std::path::Path;

use super::*;

#[derive(Debug, Clone)]
struct SnapshotPlan {
    catalog: Catalog,
    snapshot: Snapshot,
    file_info: bool,
    block_size: u32,
    /// Blocks of payload in a buffer.
    blocks: usize,
}

const IDENTITY: Identity = Identity { set_id: [3; 16], family_index: 0, family_count: 1 };

fn snapshot_plans() -> impl Strategy<Value = SnapshotPlan> {
    let file = (any::<u64>(), prop::option::of(any::<u32>()));
    (prop::collection::vec(file, 1..150), any::<bool>(), 9..=11u32, 1..=3usize).prop_map(
        |(files, file_info, bits, blocks)| {
            let path = |index| format!("f/{index}.mdf");
            let listed = files.iter().enumerate();
            let listed =
                listed.map(|(index, file)| DatabaseFile { path: path(index), size: file.0 >> 16, mode: 0o640 });
            SnapshotPlan {
                catalog: Catalog::new(listed.collect()).unwrap(),
                snapshot: Snapshot { checksums: files.iter().map(|file| file.1).collect() },
                file_info,
                block_size: 1 << bits,
                blocks,
            }
        },
    )
}

fn plan() -> SnapshotPlan {
    let files = (0..3).map(|index| DatabaseFile { path: format!("{index}"), size: 10, mode: 0 }).collect();
    SnapshotPlan {
        catalog: Catalog::new(files).unwrap(),
        snapshot: Snapshot { checksums: vec![Some(1), None, Some(0)] },
        file_info: true,
        block_size: 512,
        blocks: 1,
    }
}

fn write(plan: &SnapshotPlan) -> Segments {
    let block = plan.block_size as usize;
    let mut writer = StreamWriter::new(IDENTITY, plan.block_size, plan.catalog.encode().into()).unwrap();
    let (mut header, mut payload) = (vec![0xEE; block], vec![0xEE; block * plan.blocks]);
    let (header, payload) = (&mut header[..], &mut payload[..]);
    let mut segments = Vec::new();
    while let Some(length) = writer.next_catalog(header, payload).unwrap() {
        segments.push([&*header, &payload[..length]].concat());
    }
    if plan.file_info {
        let text = file_info(Path::new("/data/db"), &plan.catalog).unwrap();
        while let Some(length) = writer.next_file_info(header, payload, &text).unwrap() {
            segments.push([&*header, &payload[..length]].concat());
        }
    }
    let encoded = plan.snapshot.encode();
    while let Some(length) = writer.next_snapshot(header, payload, &encoded).unwrap() {
        segments.push([&*header, &payload[..length]].concat());
    }
    writer.end(header).unwrap();
    segments.push(header.to_vec());
    segments
}

fn read(stream: &[u8], block_size: u32, most: usize) -> Result<(Catalog, Snapshot), String> {
    let mut parser = StreamParser::for_snapshot(Expectations { block_size, family_count: Some(1) });
    let mut verifier = SetVerifier::new(1);
    let mut actions = Vec::new();
    for slice in stream.chunks(most) {
        actions.clear();
        parser.push(slice, &mut actions).map_err(|error| error.to_string())?;
        for action in &actions {
            assert!(!matches!(action, Action::Data { .. } | Action::DataEnd { .. }));
            verifier.record(&parser.identity().unwrap(), action).map_err(|error| error.to_string())?;
        }
    }
    parser.finish().map_err(|error| error.to_string())?;
    if parser.trailing() > 0 {
        return Err("trailing bytes".to_owned());
    }
    let snapshot = parser.snapshot().unwrap();
    if snapshot.checksums.is_empty() {
        return Err("no files".to_owned());
    }
    // Unless the set is said to be a snapshot, its bytes are missing.
    if verifier.catalog().unwrap().total_bytes() > 0 {
        assert!(matches!(verifier.finish(), Err(SetError::Gap { .. })));
    }
    verifier.record_snapshot(&IDENTITY, snapshot).unwrap();
    assert_eq!(verifier.finish().map(|totals| totals.data_bytes), Ok(0));
    let snapshot = verifier.snapshot().unwrap();
    Ok((Catalog::clone(verifier.catalog().unwrap()), Snapshot::clone(snapshot)))
}

proptest! {
    #[test]
    fn what_comes_out_is_what_went_in(plan in snapshot_plans(), most in 1..5000usize) {
        let stream = write(&plan).concat();
        prop_assert_eq!(read(&stream, plan.block_size, most), Ok((plan.catalog, plan.snapshot)));
    }

    #[test]
    fn a_flipped_bit_is_found(plan in snapshot_plans(), most in 1..5000usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut stream = write(&plan).concat();
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        prop_assert!(read(&stream, plan.block_size, most).is_err());
    }

    #[test]
    fn a_truncated_stream_is_found(plan in snapshot_plans(), most in 1..5000usize, at in any::<prop::sample::Index>()) {
        let stream = write(&plan).concat();
        prop_assert!(read(&stream[..at.index(stream.len())], plan.block_size, most).is_err());
    }

    #[test]
    fn lost_repeated_and_moved_segments_are_found(
        plan in snapshot_plans(), most in 1..5000usize, kind in 0..3u8,
        a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let mut segments = write(&plan);
        let (i, j) = (a.index(segments.len()), b.index(segments.len()));
        match kind {
            0 => drop(segments.remove(i)),
            1 => { let i = i.min(segments.len() - 2); let again = segments[i].clone(); segments.insert(j, again); }
            _ => { prop_assume!(i != j); segments.swap(i, j); }
        }
        prop_assert!(read(&segments.concat(), plan.block_size, most).is_err());
    }

    #[test]
    fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..40), files in 0..6usize) {
        if let Ok(snapshot) = Snapshot::decode(&bytes, files) {
            prop_assert_eq!(snapshot.encode(), bytes);
        }
    }
}

/// Renumbers segments that were put together anew, so that only their kinds and places are wrong.
fn renumber(mut segments: Segments) -> Vec<u8> {
    let count = segments.len() as u64;
    for (sequence, segment) in (0..).zip(&mut segments) {
        let mut header = SegmentHeader::decode(segment).unwrap();
        header.sequence = sequence;
        if let SegmentKind::End { segments, .. } = &mut header.kind {
            *segments = count;
        }
        header.encode_into(segment).unwrap();
    }
    segments.concat()
}

/// Data of file 0, as a whole segment.
fn data() -> Vec<u8> {
    let mut writer = StreamWriter::new(IDENTITY, 512, Vec::new().into()).unwrap();
    let (mut header, mut payload) = ([0; 512], [0; 512]);
    let piece = DataPiece { file_index: 0, file_offset: 0, length: 10 };
    writer.data(&mut header, &mut payload, piece, None).unwrap();
    [header, payload].concat()
}

#[test]
fn segments_keep_their_order() {
    let [catalog, file_info, snapshot, end] = write(&plan()).try_into().unwrap();
    let refused = |segments: &[&Vec<u8>], words: &str| {
        let stream = renumber(segments.iter().map(|segment| (*segment).clone()).collect());
        let error = read(&stream, 512, 700).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    let data = data();
    refused(&[&catalog, &data, &snapshot, &end], "restore without SNAPSHOT");
    refused(&[&catalog, &end], "restore without SNAPSHOT");
    refused(&[&catalog, &snapshot, &data, &end], "its kind is 2, expected 3");
    refused(&[&catalog, &file_info, &data, &end], "its kind is 2, expected 5");
    refused(&[&catalog, &file_info, &end], "its kind is 3, expected 5");
    refused(&[&catalog, &file_info, &file_info, &snapshot, &end], "its kind is 4, expected 5");
    refused(&[&catalog, &snapshot, &file_info, &end], "its kind is 4, expected 3");
    refused(&[&catalog, &snapshot, &snapshot, &end], "its kind is 5, expected 3");
    refused(&[&snapshot, &end], "the length of the catalog before it is 0");
    let well = renumber(vec![catalog.clone(), snapshot.clone(), end.clone()]);
    assert_eq!(read(&well, 512, 700).map(|found| found.1), Ok(plan().snapshot));

    // A list that has begun goes on to its end.
    let long = SnapshotPlan { snapshot: Snapshot { checksums: vec![Some(9); 100] }, ..plan() };
    let files = (0..100).map(|index| DatabaseFile { path: format!("{index}"), size: 10, mode: 0 }).collect();
    let long = write(&SnapshotPlan { catalog: Catalog::new(files).unwrap(), file_info: false, ..long });
    let at = |i: usize| SegmentHeader::decode(&long[i]).unwrap().kind;
    let first = (0..long.len()).find(|i| matches!(at(*i), SegmentKind::Snapshot { .. })).unwrap();
    assert!(matches!(at(first + 1), SegmentKind::Snapshot { offset: 512, total: 800 }));
    let cut = renumber([&long[..=first], &long[first + 2..]].concat());
    assert!(read(&cut, 512, 700).unwrap_err().contains("its kind is 3, expected 5"));
}

#[test]
fn a_snapshot_passes_for_no_database() {
    let refused = |segments: Segments, words: &str| {
        let error = super::read(&[renumber(segments)], 512, 700, 1).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    let segments = write(&plan());
    refused(segments.clone(), "the backup was made WITH SNAPSHOT");
    refused([&segments[..1], &segments[2..]].concat(), "restore WITH SNAPSHOT");
    refused([&segments[..1], &[data()], &segments[2..]].concat(), "its kind is 5, expected 2");
    // A snapshot is of one device.
    let mut header = SegmentHeader::decode(&segments[2]).unwrap();
    header.identity.family_count = 2;
    assert!(header.encode_into(&mut [0; 512]).is_err());
}

#[test]
fn what_is_said_of_the_files_fits_the_catalog() {
    let catalog = plan().catalog;
    for (checksums, words) in
        [(vec![None; 2], "have 16 bytes, but those of 3 files take 24"), (vec![None; 4], "take 24")]
    {
        let stream = write(&SnapshotPlan { snapshot: Snapshot { checksums }, ..plan() }).concat();
        let error = read(&stream, 512, 700).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    for (bytes, valid) in [([0_u32, 0], true), ([1, 0], true), ([1, 7], true), ([0, 7], false), ([2, 0], false)] {
        let bytes = bytes.map(u32::to_le_bytes).concat();
        assert_eq!(Snapshot::decode(&bytes, 1).is_ok(), valid, "{bytes:?}");
    }
    assert_eq!(file_info(Path::new("/d b"), &catalog).unwrap(), "/d b/0\n/d b/1\n/d b/2\n");
    for folder in ["relative", "/line\nfeed"] {
        assert!(matches!(file_info(Path::new(folder), &catalog), Err(SnapshotError::Path { .. })), "{folder}");
    }
    for text in ["/a\n/b\n", "/a\n/b\n/c", "/a\n/b\nc\n", "/a\n/b\n/c\n/d\n", "/a\n\n/c\n"] {
        let mut writer = StreamWriter::new(IDENTITY, 512, catalog.encode().into()).unwrap();
        let (mut header, mut payload) = ([0; 512], [0; 512]);
        writer.next_catalog(&mut header, &mut payload).unwrap();
        let mut stream = [header, payload].concat();
        writer.next_file_info(&mut header, &mut payload, text).unwrap();
        stream.extend([header, payload].concat());
        let error = read(&stream, 512, 700).unwrap_err();
        assert!(error.contains("the list of the frozen files is damaged"), "{error}");
    }
}

#[test]
fn a_verifier_takes_one_snapshot_of_one_device() {
    let stream = write(&plan()).concat();
    let mut parser = StreamParser::for_snapshot(Expectations { block_size: 512, family_count: None });
    let mut actions = Vec::new();
    parser.push(&stream, &mut actions).unwrap();
    let snapshot = parser.snapshot().unwrap();
    let mut verifier = SetVerifier::new(1);
    assert!(matches!(verifier.record_snapshot(&IDENTITY, snapshot), Err(SetError::FamilyMissing { family: 0 })));
    verifier.record(&IDENTITY, &actions[0]).unwrap();
    let other = Snapshot { checksums: vec![None] };
    assert!(matches!(
        verifier.record_snapshot(&IDENTITY, &other.into()),
        Err(SetError::Snapshot { expected: 3, found: 1, .. })
    ));
    let data = Action::DataEnd { file_index: 0, file_offset: 0, length: 10 };
    verifier.record_snapshot(&IDENTITY, snapshot).unwrap();
    assert!(matches!(verifier.record(&IDENTITY, &data), Err(SetError::Snapshot { found: 10, .. })));
    assert!(matches!(verifier.finish(), Err(SetError::FamilyMissing { family: 0 })));

    let mut late = SetVerifier::new(1);
    late.record(&IDENTITY, &actions[0]).unwrap();
    late.record(&IDENTITY, &data).unwrap();
    assert!(matches!(late.record_snapshot(&IDENTITY, snapshot), Err(SetError::Snapshot { found: 10, .. })));
}

#[test]
fn the_writer_keeps_the_order() {
    let catalog = plan().catalog.encode();
    let piece = DataPiece { file_index: 0, file_offset: 0, length: 1 };
    let (mut header, mut payload) = ([0; 512], [0; 512]);
    let (header, payload) = (&mut header[..], &mut payload[..]);
    let (text, checksums) = ("/a\n".repeat(300), vec![0; 800]);
    macro_rules! refused {
        ($($call:expr),*) => { $(assert!(matches!($call, Err(WriteError::Order { .. })), stringify!($call));)* };
    }
    let mut writer = StreamWriter::new(IDENTITY, 512, catalog.clone().into()).unwrap();
    refused!(writer.next_file_info(header, payload, &text), writer.next_snapshot(header, payload, &checksums));
    writer.next_catalog(header, payload).unwrap();
    assert!(matches!(writer.next_file_info(header, &mut payload[..1], &text), Err(WriteError::NoRoom { .. })));
    assert_eq!(writer.next_file_info(header, payload, &text), Ok(Some(512)));
    refused!(
        writer.next_snapshot(header, payload, &checksums),
        writer.data(header, payload, piece, None),
        writer.end(header)
    );
    assert_eq!(writer.next_file_info(header, payload, &text), Ok(Some(512)));
    assert_eq!(writer.next_file_info(header, payload, &text), Ok(None));
    refused!(writer.data(header, payload, piece, None), writer.end(header));
    assert_eq!(writer.next_snapshot(header, payload, &checksums), Ok(Some(512)));
    refused!(
        writer.next_file_info(header, payload, &text),
        writer.data(header, payload, piece, None),
        writer.end(header)
    );
    assert_eq!(writer.next_snapshot(header, payload, &checksums), Ok(Some(512)));
    assert_eq!(writer.next_snapshot(header, payload, &checksums), Ok(None));
    assert_eq!(writer.next_catalog(header, payload), Ok(None));
    refused!(writer.next_file_info(header, payload, &text), writer.data(header, payload, piece, None));
    assert_eq!(writer.end(header), Ok(()));
    refused!(writer.next_snapshot(header, payload, &checksums), writer.end(header));

    let mut writer = StreamWriter::new(IDENTITY, 512, catalog.clone().into()).unwrap();
    writer.next_catalog(header, payload).unwrap();
    writer.data(header, payload, piece, None).unwrap();
    refused!(writer.next_file_info(header, payload, &text), writer.next_snapshot(header, payload, &checksums));

    let two = Identity { family_count: 2, ..IDENTITY };
    let mut writer = StreamWriter::new(two, 512, catalog.into()).unwrap();
    writer.next_catalog(header, payload).unwrap();
    assert!(matches!(writer.next_snapshot(header, payload, &checksums), Err(WriteError::Header(_))));
}
