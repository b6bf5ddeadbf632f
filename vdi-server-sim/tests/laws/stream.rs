//! The format of backups: its decoders over any bytes, and its readers over streams that were tampered with.

use std::sync::Arc;

use vdi_server_sim::database::DatabaseFile;
use vdi_server_sim::stream::{
    Action, BLOCK_SIZES, Catalog, Checksum, DataPiece, Expectations, HEADER_BYTES, Identity, SegmentHeader,
    SetVerifier, Snapshot, StreamParser, StreamWriter, file_info,
};

/// Bytes as numbers; zeros where they run out.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn word(&mut self) -> usize {
        self.byte() | self.byte() << 8
    }
}

/// What the first byte chooses, modulo their number.
pub(crate) const HEADER: u8 = 0;
pub(crate) const CATALOG: u8 = 1;
pub(crate) const CHECKSUMS: u8 = 2;
pub(crate) const STREAMS: u8 = 3;

/// The decoders of headers, catalogs and checksums, or whole streams.
pub(crate) fn stream(bytes: &[u8]) -> bool {
    let Some((choice, rest)) = bytes.split_first() else { return false };
    match choice % 4 {
        HEADER => header(rest),
        CATALOG => catalog(rest),
        CHECKSUMS => checksums(rest),
        _ => streams(rest),
    }
}

/// Whatever decodes encodes to exactly the same bytes. The checksum, which nobody guesses, is put right first.
fn header(bytes: &[u8]) -> bool {
    let mut block = [0; HEADER_BYTES];
    let len = bytes.len().min(HEADER_BYTES - 4);
    block[..len].copy_from_slice(&bytes[..len]);
    seal(&mut block);
    match SegmentHeader::decode(&block) {
        Ok(header) => {
            assert!(BLOCK_SIZES.contains(&header.block_size) && header.block_size.is_power_of_two());
            assert!(header.padded_len() >= header.payload_len && header.padded_len().is_multiple_of(header.block_size));
            let mut encoded = vec![0xEE; header.block_size as usize];
            header.encode_into(&mut encoded).expect("what was decoded");
            assert_eq!(encoded[..HEADER_BYTES], block);
            assert!(encoded[HEADER_BYTES..].iter().all(|byte| *byte == 0));
            assert!(SegmentHeader::decode(&block[..HEADER_BYTES - 1]).is_err());
            // Any other bit, and its checksum is wrong.
            block[len % HEADER_BYTES] ^= 1;
            assert!(SegmentHeader::decode(&block).is_err());
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn seal(block: &mut [u8]) {
    let checksum = Checksum::Crc32.of(&block[..HEADER_BYTES - 4]).unwrap_or_default();
    block[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn catalog(bytes: &[u8]) -> bool {
    match Catalog::decode(bytes) {
        Ok(catalog) => {
            assert_eq!(catalog.encode(), bytes);
            let sizes = catalog.files().iter().map(|file| u128::from(file.size));
            assert_eq!(sizes.sum::<u128>(), u128::from(catalog.total_bytes()));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn checksums(bytes: &[u8]) -> bool {
    let Some((files, bytes)) = bytes.split_first() else { return false };
    match Snapshot::decode(bytes, usize::from(*files)) {
        Ok(snapshot) => {
            assert_eq!((snapshot.checksums.len(), snapshot.encode()), (usize::from(*files), bytes.to_vec()));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

type Files = Vec<Vec<u8>>;
type Segments = Vec<Vec<u8>>;

/// A backup as it was before anybody tampered with it.
struct Backup {
    block: usize,
    snapshot: bool,
    files: Files,
    devices: Vec<Segments>,
}

impl Backup {
    fn write(n: &mut Numbers<'_>) -> Backup {
        let block = 512 << (n.byte() % 3);
        let snapshot = n.byte().is_multiple_of(4);
        let families = if snapshot { 1 } else { 1 + n.byte() % 3 };
        let files: Files =
            (0..n.byte() % 4).map(|file| (0..n.word() % 3000).map(|at| (at * 7 + file) as u8).collect()).collect();
        let described = files.iter().enumerate();
        let described =
            described.map(|(i, bytes)| DatabaseFile { path: format!("f/{i}"), size: bytes.len() as u64, mode: 0o640 });
        let catalog = Catalog::new(described.collect()).expect("a small catalog");
        let encoded: Arc<[u8]> = catalog.encode().into();
        let mut buffer = vec![0xEE; block * (2 + n.byte() % 3)];
        let (header, payload) = buffer.split_at_mut(block);
        let mut devices = Vec::new();
        for family in 0..families {
            let identity = Identity { set_id: [9; 16], family_index: family as u32, family_count: families as u32 };
            let mut writer = StreamWriter::new(identity, block as u32, encoded.clone()).expect("a good identity");
            let mut segments = Vec::new();
            while let Some(length) = writer.next_catalog(header, payload).expect("room") {
                segments.push([&*header, &payload[..length]].concat());
            }
            devices.push((writer, segments));
        }
        if snapshot {
            let (writer, segments) = &mut devices[0];
            if n.byte().is_multiple_of(2) && !files.is_empty() {
                let text = file_info("/data".as_ref(), &catalog).expect("short paths");
                while let Some(length) = writer.next_file_info(header, payload, &text).expect("room") {
                    segments.push([&*header, &payload[..length]].concat());
                }
            }
            let checksums =
                Snapshot { checksums: files.iter().map(|bytes| Checksum::Crc32.of(bytes)).collect() }.encode();
            while let Some(length) = writer.next_snapshot(header, payload, &checksums).expect("room") {
                segments.push([&*header, &payload[..length]].concat());
            }
            let ends = !checksums.is_empty();
            if ends {
                writer.end(header).expect("the end");
                segments.push(header.to_vec());
            }
        } else {
            for (index, bytes) in files.iter().enumerate() {
                for (part, piece) in bytes.chunks(payload.len()).enumerate() {
                    payload[..piece.len()].copy_from_slice(piece);
                    let (writer, segments) = &mut devices[(index + part + n.byte()) % families];
                    let file_offset = (part * payload.len()) as u64;
                    let place = DataPiece { file_index: index as u32, file_offset, length: piece.len() as u32 };
                    let length = writer.data(header, payload, place, Checksum::Crc32.of(piece)).expect("room");
                    segments.push([&*header, &payload[..length]].concat());
                }
            }
            for (writer, segments) in &mut devices {
                writer.end(header).expect("the end");
                segments.push(header.to_vec());
            }
        }
        Backup { block, snapshot, files, devices: devices.into_iter().map(|(_, segments)| segments).collect() }
    }

    /// Does one thing to one segment.
    fn tamper(&mut self, n: &mut Numbers<'_>) {
        let (device, act) = (n.byte() % self.devices.len(), n.byte());
        let other = n.byte() % self.devices.len();
        let (at, value) = (n.word(), n.byte() as u8);
        let segments = &mut self.devices[device];
        if segments.is_empty() {
            return;
        }
        let (which, with) = (at % segments.len(), usize::from(value) % segments.len());
        let segment = &mut segments[which];
        match act % 9 {
            0 => drop(segments.remove(which)),
            1 => {
                let twice = segment.clone();
                segments.insert(which, twice);
            }
            2 => segments.swap(which, with),
            // A number of the header, and its checksum put right.
            3 | 4 if segment.len() >= HEADER_BYTES => {
                segment[usize::from(value) % 84] = n.byte() as u8;
                seal(segment);
            }
            // A byte of the payload; and the payload's checksum put right, which stands behind the flag.
            5 if !segment.is_empty() => {
                let byte = at % segment.len();
                segment[byte] ^= value;
            }
            6 if segment.len() > self.block => {
                let byte = self.block + at % (segment.len() - self.block);
                segment[byte] ^= value;
                let length = u32::from_le_bytes(segment[48..52].try_into().expect("4 bytes")) as usize;
                let payload = segment[self.block..].get(..length).unwrap_or_default();
                let checksum = Checksum::Crc32.of(payload).unwrap_or_default();
                segment[60..64].copy_from_slice(&checksum.to_le_bytes());
                seal(segment);
            }
            7 if !segment.is_empty() => {
                let end = at % segment.len();
                segment.truncate(end);
            }
            _ => {
                let moved = segments.remove(which);
                let to = usize::from(value) % (self.devices[other].len() + 1);
                self.devices[other].insert(to, moved);
            }
        }
    }
}

/// What came of reading: the files, and for each byte how often it was said to be there.
type Outcome = Result<(Files, Vec<Vec<u8>>), String>;

/// Reads streams in pieces of at most `most` bytes, the devices taking turns; `most` 0 gives each stream as a whole.
fn read(backup: &Backup, most: usize) -> Outcome {
    let streams: Vec<Vec<u8>> = backup.devices.iter().map(|segments| segments.concat()).collect();
    let families = streams.len() as u32;
    let expectations = Expectations { block_size: backup.block as u32, family_count: Some(families) };
    let parser =
        || if backup.snapshot { StreamParser::for_snapshot(expectations) } else { StreamParser::new(expectations) };
    let mut verifier = SetVerifier::new(families);
    let (mut contents, mut covered): (Files, Vec<Vec<u8>>) = Default::default();
    let mut failed = None;
    for stream in &streams {
        let mut parser = parser();
        let mut actions = Vec::new();
        for piece in stream.chunks(if most == 0 { stream.len().max(1) } else { most }) {
            actions.clear();
            let pushed = parser.push(piece, &mut actions);
            for action in &actions {
                match action {
                    Action::Catalog(catalog) if contents.is_empty() => {
                        // A size that was tampered with costs no memory before the bytes come.
                        contents =
                            catalog.files().iter().map(|file| vec![0; file.size.min(1 << 16) as usize]).collect();
                        covered = contents.clone();
                    }
                    Action::Data { file_index, file_offset, range } => {
                        let place =
                            contents.get_mut(*file_index).and_then(|file| file.get_mut(*file_offset as usize..));
                        if let Some(place) = place.and_then(|place| place.get_mut(..range.len())) {
                            place.copy_from_slice(&piece[range.clone()]);
                        }
                    }
                    Action::DataEnd { file_index, file_offset, length } => {
                        let file = covered.get_mut(*file_index).into_iter().flatten();
                        file.skip(*file_offset as usize).take(*length as usize).for_each(|byte| *byte += 1);
                    }
                    _ => {}
                }
                let identity = parser.identity().expect("an action has a segment");
                let recorded = verifier.record(&identity, action);
                failed = failed.or(recorded.err().map(|error| error.to_string()));
            }
            if let Err(error) = pushed {
                assert_eq!(parser.push(&[], &mut Vec::new()), Err(error.clone()), "it does not go on after an error");
                return Err(error.to_string());
            }
        }
        parser.finish().map_err(|error| error.to_string())?;
        if backup.snapshot {
            let snapshot = parser.snapshot().expect("a snapshot that is complete").clone();
            let identity = parser.identity().expect("a header came");
            let recorded = verifier.record_snapshot(&identity, &snapshot);
            failed = failed.or(recorded.err().map(|error| error.to_string()));
        }
        if failed.is_some() {
            break;
        }
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let totals = verifier.finish().map_err(|error| error.to_string())?;
    let bytes: usize = contents.iter().map(Vec::len).sum();
    assert_eq!(totals.data_bytes, if backup.snapshot { 0 } else { bytes as u64 });
    Ok((contents, covered))
}

/// A backup that nobody touched is read as it was written. Of one that was, the outcome does not depend on how its bytes
/// are cut, and success means that each byte of each file came once.
fn streams(bytes: &[u8]) -> bool {
    let mut n = Numbers(bytes);
    let mut backup = Backup::write(&mut n);
    let most = 1 + n.byte();
    let untouched = n.0.is_empty();
    let mut acts = 0;
    while !n.0.is_empty() && acts < 40 {
        backup.tamper(&mut n);
        acts += 1;
    }
    let outcome = read(&backup, 0);
    assert_eq!(read(&backup, most), outcome, "in pieces of {most} bytes");
    if untouched && !(backup.snapshot && backup.files.is_empty()) {
        let (contents, _) = outcome.as_ref().expect("nobody touched it");
        if !backup.snapshot {
            assert_eq!(*contents, backup.files);
        }
    }
    if let Ok((_, covered)) = &outcome {
        let times = u8::from(!backup.snapshot);
        assert!(covered.iter().flatten().all(|byte| *byte == times), "a byte came not at all, or twice");
    }
    outcome.is_ok() || !untouched
}
