//! What a BACKUP writes, byte by byte: the rules that hold in all backups of SQL Server (2005 to 2022), read without `vdi-mtf`, whose
//! writer and reader could be wrong in the same way.

use std::fs;
use std::sync::{Arc, Mutex};

use vdi_client::media::{Media, MediaError};
use vdi_client::{CommandCode, Features, VdConfig};

use crate::common::bench::Bench;
use crate::common::client::{backup_statement, config, restore_statement};
use crate::common::real::real_backups;

/// The streams of a block: identifier, media attributes, where the data begins, its length.
type Stream = ([u8; 4], u16, usize, usize);

struct Block {
    id: [u8; 4],
    at: usize,
    streams: Vec<Stream>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn xor(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, word| sum ^ u16_at(word, 0))
}

/// The checksum of pages, log blocks and streams, with the u32 at `hole` taken as 0.
fn sector_sum(bytes: &[u8], hole: Option<usize>) -> u32 {
    let words = |at: usize, sector: &[u8]| {
        let word = |(n, _): (usize, &[u8])| {
            if Some(at + n * 4) == hole { 0 } else { u32_at(sector, n * 4) }
        };
        sector.chunks(4).enumerate().map(word).fold(0, |sum, word| sum ^ word)
    };
    bytes.chunks(512).enumerate().fold(0_u32, |sum, (n, sector)| sum.rotate_left(1) ^ words(n * 512, sector))
}

/// Sections 1 and 2: the headers of blocks and streams, and where each begins and ends.
fn blocks(bytes: &[u8]) -> Vec<Block> {
    let sfm = usize::from(u16_at(bytes, 64)) * 512;
    let (mut blocks, mut at, mut set, mut control) = (Vec::new(), 0, 0, 0);
    while at < bytes.len() {
        let block = &bytes[at..];
        let id: [u8; 4] = block[..4].try_into().unwrap();
        let name = String::from_utf8_lossy(&id).into_owned();
        assert_eq!(xor(&block[..52]), 0, "{name} at {at}");
        let attributes = match &id {
            b"TAPE" => 0x30000,
            b"SFMB" => 0x8000_0000,
            _ => 0,
        };
        assert_eq!(u32_at(block, 4), attributes, "{name} at {at}");
        assert_eq!((block[10], block[11], u64_at(block, 12), u64_at(block, 28), u32_at(block, 40)), (14, 1, 0, 0, 0));
        if &id == b"SSET" {
            (set, control) = (at, 0);
            assert!(at.is_multiple_of(sfm));
        }
        let counted = !matches!(&id, b"TAPE" | b"SFMB" | b"ESET");
        let (address, number) = if counted { ((at - set) as u64 / 1024, control) } else { (0, 0) };
        assert_eq!((u64_at(block, 20), u32_at(block, 36)), (address, number), "{name} at {at}");
        control += u32::from(counted);
        assert_eq!((u16_at(block, 44), u16_at(block, 46)), if &id == b"SSET" { (21, 100) } else { (0, 0) });
        let has_text = matches!(&id, b"TAPE" | b"SSET" | b"VOLB" | b"MSCI" | b"MSLS");
        assert_eq!((block[48], block[49]), (if has_text { 2 } else { 0 }, 0), "{name} at {at}");
        let first = usize::from(u16_at(block, 8));
        let mut streams = Vec::new();
        let mut end = at + if &id == b"SFMB" { sfm } else { first };
        if &id == b"SFMB" {
            assert_eq!((first, at % sfm), (sfm, 0));
        } else {
            assert!(first.is_multiple_of(4));
            loop {
                let header = &bytes[end..end + 22];
                assert_eq!(xor(header), 0, "stream at {end}");
                let stream: [u8; 4] = header[..4].try_into().unwrap();
                let (media, len) = (u16_at(header, 6), u64_at(header, 8) as usize);
                assert_eq!((u16_at(header, 4), u32_at(header, 16)), (0, 0), "stream at {end}");
                let data = end + 22;
                assert_eq!(media & 0x80 != 0, &stream == b"APAD");
                if matches!(&stream, b"SPAD" | b"APAD" | b"OTCP") {
                    assert!(bytes[data..data + len].iter().all(|&byte| byte == 0), "pad at {end}");
                }
                streams.push((stream, media, data, len));
                end = data + len;
                if &stream == b"SPAD" {
                    break;
                }
                let next = end.next_multiple_of(4);
                assert!(bytes[end..next].iter().all(|&byte| byte == 0), "gap at {end}");
                end = next;
            }
            // The pads bring the next block to its alignment.
            let unit = sfm.max(1024);
            let aligned = match &id {
                b"TAPE" => end.is_multiple_of(unit),
                b"MSLS" => end.is_multiple_of(sfm),
                b"ESET" => (end - at).is_multiple_of(unit),
                _ => (end - set).is_multiple_of(1024),
            };
            assert!(aligned, "{name} at {at} ends at {end}");
        }
        blocks.push(Block { id, at, streams });
        at = end;
    }
    assert_eq!(at, bytes.len());
    blocks
}

/// Sections 3, 4, 5 and 8: the sequence of blocks, filemarks, pages, log, checksums. Gives the lengths of the streams of pages.
fn check(bytes: &[u8], family: u16, families: u16, checksums: &[bool]) -> Vec<usize> {
    let blocks = blocks(bytes);
    let sfm = usize::from(u16_at(bytes, 64)) * 512;
    let mut order: Vec<String> = blocks.iter().map(|block| String::from_utf8_lossy(&block.id).into_owned()).collect();
    order.dedup_by(|next, before| next == before && next == "MSTL");
    let mut expected = vec!["TAPE", "SFMB"];
    for _ in checksums {
        expected.extend(["SSET", "VOLB", "MSCI", "MSDA", "MSTL", "MSLS", "SFMB", "ESET", "ESET", "SFMB"]);
    }
    assert_eq!(order, expected);
    // 3.1 and 8.11.
    assert_eq!((u32_at(bytes, 56), u16_at(bytes, 60), u16_at(bytes, 62), u16_at(bytes, 66)), (5, 1, 0, 3));
    assert_eq!((u16_at(bytes, 84), u16_at(bytes, 86), bytes[93]), (1024, 0x1200, 1));
    let (id, _, raid, len) = blocks[0].streams[0];
    assert_eq!((&id, len, u32_at(bytes, raid + 16)), (b"RAID", 32, 0xF000_00AD));
    let words = [20, 22, 24, 26, 28, 30].map(|at| u16_at(bytes, raid + at));
    assert_eq!(words, [families, 1, family, 0, 0, 1]);
    // 3.2 and 8.8: all earlier filemarks, the newest first.
    let mut marks: Vec<u64> = Vec::new();
    let (mut set, mut sets, mut data_lens) = (0, 0, Vec::new());
    let (mut first_end, mut pages) = (None, 0);
    for block in &blocks {
        let (body, at) = (&bytes[block.at..], block.at);
        match &block.id {
            b"SFMB" => {
                assert_eq!(
                    (u32_at(body, 52), u32_at(body, 56), u32_at(body, 60)),
                    ((sfm as u32 - 72) / 8, marks.len() as u32, 72)
                );
                let slots: Vec<u64> = body[72..sfm].chunks(8).map(|slot| u64_at(slot, 0)).collect();
                assert!(
                    marks
                        .iter()
                        .rev()
                        .copied()
                        .chain(std::iter::repeat(0))
                        .zip(&slots)
                        .all(|(mark, slot)| mark == *slot)
                );
                marks.push(at as u64);
            }
            b"SSET" => {
                (set, first_end) = (at, None);
                sets += 1;
                assert!(matches!(u32_at(body, 52), 2 | 4));
                assert_eq!((u32_at(body, 56), u16_at(body, 60), u16_at(body, 62)), (0, 0x1200, sets));
                assert_eq!((u64_at(body, 80), body[96], body[97], u16_at(body, 98)), (at as u64, 0, 2, 0));
            }
            b"VOLB" => assert_eq!(u32_at(body, 52), 2),
            b"MSCI" | b"MSLS" => {
                assert_eq!(u32_at(body, 52), 0);
                let (id, _, config, len) = block.streams[0];
                assert_eq!((&id, block.streams.len()), (b"MQCI", 2));
                // 6 and 8.9: SCIN, all SFGI, the data files, the log files, laid end to end.
                let (mut tags, mut next) = (Vec::new(), config);
                while next < config + len {
                    tags.push((bytes[next..next + 4].to_vec(), u32_at(bytes, next + 28)));
                    next += u32_at(bytes, next + 4) as usize;
                }
                assert_eq!(next, config + len);
                let rank = |(tag, kind): &(Vec<u8>, u32)| match &tag[..] {
                    b"SCIN" => 0,
                    b"SFGI" => 1,
                    b"SFIN" => 1 + *kind,
                    other => panic!("{other:?}"),
                };
                assert!(tags.iter().map(rank).is_sorted() && tags.iter().filter(|tag| rank(tag) == 0).count() == 1);
            }
            b"MSDA" | b"MSTL" => {
                let checked = checksums[usize::from(sets) - 1];
                assert_eq!((u32_at(body, 52), u16_at(body, 56), u16_at(body, 58)), (0, 0, 1));
                let ids: Vec<&[u8]> = block.streams.iter().map(|(id, ..)| &id[..]).collect();
                let is_data = &block.id == b"MSDA";
                let expected: &[&[u8]] = match (is_data, checked, ids.len() > 1) {
                    (true, false, _) => &[b"APAD", b"MQDA", b"MQDA", b"SPAD"],
                    (true, true, _) => &[b"APAD", b"MQDA", b"CSUM", b"MQDA", b"SPAD"],
                    (false, false, true) => &[b"APAD", b"MQTL", b"SPAD"],
                    (false, true, true) => &[b"APAD", b"MQTL", b"CSUM", b"SPAD"],
                    (false, _, false) => &[b"SPAD"],
                };
                assert_eq!(ids, expected, "block at {at}");
                let range = (u64_at(body, 60), u64_at(body, 68));
                assert!(is_data || family == 1 || ids.len() == 1, "log in family {family}");
                if ids.len() == 1 {
                    assert!(family != 1 || range.0 == range.1, "block at {at}");
                    continue;
                }
                let (_, media, start, len) = block.streams[1];
                assert_eq!(media, u16::from(is_data) * 2 + u16::from(checked) * 0x100);
                let data = &bytes[start + 2..start + len];
                assert!(bytes[start..start + 2] == [0, 0] && data.len().is_multiple_of(65536));
                assert!((start + 2 - set).is_multiple_of(sfm.max(1024)));
                if checked {
                    let (_, sum_media, sum, 4) = block.streams[2] else { panic!("CSUM at {at}") };
                    assert_eq!(
                        (sum_media, u32_at(bytes, sum)),
                        (0, sector_sum(data, None)),
                        "CSUM of the block at {at}"
                    );
                }
                if is_data {
                    let (_, media, _, len) = block.streams[block.streams.len() - 2];
                    assert_eq!((media, len), (6, 0));
                    pages = check_pages(data);
                    data_lens.push(data.len());
                } else {
                    check_log(&data[..(range.1 - range.0) as usize], body[114], (range.0 - u64_at(body, 104)) / 512);
                    assert!(data[(range.1 - range.0) as usize..].iter().all(|&byte| byte == 0));
                }
            }
            b"ESET" => {
                assert_eq!((u32_at(body, 56), u64_at(body, 68), u16_at(body, 76), u16_at(body, 78)), (0, 0, 0, sets));
                assert_eq!(u64_at(body, 60), first_end.unwrap_or(0));
                let ids: Vec<&[u8]> = block.streams.iter().map(|(id, ..)| &id[..]).collect();
                if first_end.replace(at as u64).is_none() {
                    assert_eq!(ids, [&b"OTCP"[..], b"TSMP", b"SPAD"]);
                    let (_, _, map, _) = block.streams[1];
                    assert!((map - 22 - at).is_multiple_of(sfm.max(1024)));
                    assert_eq!((u32_at(bytes, map), u16_at(bytes, map + 4)), (u32_at(bytes, 52), sets));
                } else {
                    assert_eq!(ids, [&b"SPAD"[..]]);
                }
            }
            _ => {}
        }
    }
    assert!(pages > 0 || families > 1);
    data_lens
}

/// Section 4 and 8.7: whole extents with headers that name their places, ascending in a file; then fillers. Gives the pages.
fn check_pages(data: &[u8]) -> usize {
    let (mut before, mut filled, mut count) = (None, false, 0);
    for extent in data.chunks(65536) {
        let place = (u16_at(extent, 36), u32_at(extent, 32));
        if extent[1] == 101 {
            assert_eq!(place, (0, 0));
            filled = true;
            continue;
        }
        assert!(!filled && place.1.is_multiple_of(8) && before < Some(place), "{before:?}, {place:?}");
        before = Some(place);
        for (n, page) in extent.chunks(8192).enumerate().filter(|(_, page)| page[0] == 1) {
            assert_eq!((u16_at(page, 36), u32_at(page, 32)), (place.0, place.1 + n as u32));
            if u16_at(page, 4) & 0x200 != 0 {
                // The function of a page goes the other way round: its first sector is rotated most.
                assert_eq!(u32_at(page, 60), sector_sum(page, Some(60)), "page {place:?} + {n}");
            }
            count += 1;
        }
    }
    count
}

/// Sections 5 and 8.6: the range is a chain of blocks with their sums.
fn check_log(mut log: &[u8], parity: u8, mut sector: u64) {
    let mut before = None;
    while !log.is_empty() {
        let size = usize::from(u16_at(log, 6));
        assert!(size > 0 && size.is_multiple_of(512) && size <= log.len());
        let block = &log[..size];
        assert_eq!(
            (block[0], u32_at(block, 16)),
            match size {
                512 => (parity | 0x18, sector as u32),
                _ => (parity | 0x10, sector as u32),
            }
        );
        if let Some(before) = before {
            assert_eq!(usize::from(u16_at(block, 10)), before);
        }
        if block[8] & 2 != 0 {
            assert_eq!(u32_at(block, 24), sector_sum(block, Some(24)));
        }
        (before, sector, log) = (Some(size), sector + size as u64 / 512, &log[size..]);
    }
}

#[test]
fn backups_follow_the_rules_of_sql_server_byte_by_byte() {
    let bench = Bench::new();
    bench.database("sales", 9_000_000);
    bench.database("small", 500_000);
    let folder = bench.out();
    for database in ["sales", "small"] {
        for (families, options, checksum) in [
            (1_u16, "FORMAT", false),
            (1, "FORMAT, CHECKSUM, BLOCKSIZE = 512", true),
            (2, "FORMAT, BLOCKSIZE = 65536, NAME = 'night', DESCRIPTION = 'of the week'", false),
            (3, "FORMAT, CHECKSUM, COPY_ONLY, BLOCKSIZE = 2048, MAXTRANSFERSIZE = 65536", true),
            (8, "FORMAT, CHECKSUM", true),
        ] {
            let names: Vec<_> =
                (1..=families).map(|family| format!("DISK = '{}/{families}-{family}.bak'", folder.display())).collect();
            let statement = format!("BACKUP DATABASE {database} TO {} WITH {options}", names.join(", "));
            bench.sql(&statement).outcome().assert_success();
            let mut lens = Vec::new();
            for family in 1..=families {
                let bytes = fs::read(folder.join(format!("{families}-{family}.bak"))).unwrap();
                lens.extend(check(&bytes, family, families, &[checksum]));
            }
            // 8.11: equal lengths; 8.7: units of 1 MiB above 8 MiB.
            assert!(lens.iter().all(|len| *len == lens[0]), "{statement}");
            assert!(database == "small" || lens[0].is_multiple_of(1 << 20), "{statement}");
        }
    }
    for (database, options) in [("sales", "FORMAT"), ("small", "CHECKSUM"), ("sales", "COPY_ONLY")] {
        let statement =
            format!("BACKUP DATABASE {database} TO DISK = '{}/appended.bak' WITH {options}", folder.display());
        bench.sql(&statement).outcome().assert_success();
    }
    check(&fs::read(folder.join("appended.bak")).unwrap(), 1, 1, &[false, true, false]);
}

/// A set follows the filemarks of its medium, whatever device the medium was written by.
#[test]
fn sets_appended_to_media_of_each_block_size_follow_the_rules() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    let path = bench.out().join("appended.bak");
    for (block, features) in
        [(512, Features::NONE), (2048, Features::TAPE), (8192, Features::NONE), (65536, Features::TAPE)]
    {
        let families = stored(&bench, features, 1, &format!("BLOCKSIZE = {block}"));
        fs::write(&path, &families[0].bytes).unwrap();
        for options in ["NOINIT", "NOINIT, CHECKSUM"] {
            let statement = format!("BACKUP DATABASE sales TO DISK = '{}' WITH {options}", path.display());
            bench.sql(&statement).outcome().assert_success();
        }
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(&families[0].bytes), "{block}");
        check(&bytes, 1, 1, &[false, false, true]);
    }
}

/// What one device stored.
#[derive(Debug, Default)]
struct Stored {
    bytes: Vec<u8>,
    /// The length of each Write.
    writes: Vec<usize>,
    /// How many bytes stood before each WriteMark.
    marks: Vec<usize>,
    /// Bytes between FileInfoBegin and FileInfoEnd are no part of the stream.
    is_list: bool,
    list: Vec<u8>,
}

/// A device of any kind that keeps what it gets.
struct Keeper(Arc<Mutex<Stored>>);

impl Media for Keeper {
    fn write(&mut self, _position: u64, data: &[u8]) -> Result<(), MediaError> {
        let mut stored = self.0.lock().unwrap();
        stored.writes.push(data.len());
        if stored.is_list {
            stored.list.extend(data)
        } else {
            stored.bytes.extend(data)
        }
        Ok(())
    }

    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        panic!("a BACKUP reads nothing")
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn other(&mut self, code: CommandCode, _size: i32, position: u64) -> Result<u64, MediaError> {
        let mut stored = self.0.lock().unwrap();
        match code {
            CommandCode::WRITE_MARK => {
                let at = stored.bytes.len();
                stored.marks.push(at);
            }
            CommandCode::FILE_INFO_BEGIN => stored.is_list = true,
            CommandCode::FILE_INFO_END => stored.is_list = false,
            _ => {}
        }
        Ok(position)
    }
}

/// A backup of `sales` to devices with these features: what each has stored.
fn stored(bench: &Bench, features: Features, devices: u16, options: &str) -> Vec<Stored> {
    let kept: Vec<Arc<Mutex<Stored>>> = (0..devices).map(|_| Arc::default()).collect();
    let config = VdConfig { features: features | Features::REQUEST_COMPLETE, ..config(devices.into()) };
    let given = kept.clone();
    let agent = bench.agent("nightly", &config, move |index| Ok(Keeper(Arc::clone(&given[index as usize]))));
    bench.sql(&backup_statement("sales", "nightly", devices.into(), options)).outcome().assert_success();
    agent.result().unwrap();
    kept.iter().map(|stored| std::mem::take(&mut *stored.lock().unwrap())).collect()
}

/// Each Write is a multiple of BLOCKSIZE, on each kind of device; and the padding that makes it so is SQL Server's, too.
#[test]
fn writes_are_whole_blocks_and_streams_follow_the_rules_with_each_block_size() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    for block in (9..17).map(|bits| 1_usize << bits) {
        for features in [Features::NONE, Features::RANDOM_ACCESS, Features::TAPE] {
            for (devices, more) in [(1, ""), (2, ", CHECKSUM, MAXTRANSFERSIZE = 262144")] {
                let families = stored(&bench, features, devices, &format!("BLOCKSIZE = {block}{more}"));
                let mut lens = Vec::new();
                for (family, Stored { bytes, writes, marks, .. }) in (1..).zip(&families) {
                    let story = format!("{features}, {block}{more}, family {family}: {writes:?}, {marks:?}");
                    assert!(writes.iter().all(|len| *len > 0 && len.is_multiple_of(block)), "{story}");
                    let sfm = usize::from(u16_at(bytes, 64)) * 512;
                    assert_eq!(sfm, block.min(4096), "{story}");
                    lens.extend(check(bytes, family, devices, &[!more.is_empty()]));
                    // A tape has its own filemark behind each soft one.
                    let blocks = blocks(bytes);
                    let soft: Vec<_> =
                        blocks.iter().filter(|block| &block.id == b"SFMB").map(|block| block.at + sfm).collect();
                    assert_eq!(*marks, if features == Features::TAPE { soft } else { Vec::new() }, "{story}");
                    let data = blocks.iter().find(|block| &block.id == b"MSDA").unwrap();
                    assert!((data.streams[1].2 + 2).is_multiple_of(block), "pages, {story}");
                    assert!(features == Features::TAPE || data.at < 65536, "headers, {story}");
                }
                assert!(lens.iter().all(|len| *len == lens[0]));
            }
        }
    }
}

/// The label goes out alone, then the list of files, then the rest: each is whole blocks.
#[test]
fn writes_of_a_snapshot_are_whole_blocks() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    let features = Features::SNAPSHOT_PREPARE | Features::ENUM_FROZEN_FILES;
    for block in (9..17).map(|bits| 1_usize << bits) {
        let families = stored(&bench, features, 1, &format!("SNAPSHOT, BLOCKSIZE = {block}"));
        let Stored { bytes, writes, list, .. } = &families[0];
        assert!(writes.iter().all(|len| *len > 0 && len.is_multiple_of(block)), "{block}: {writes:?}");
        assert!(list.len() > 1 && list.len().is_multiple_of(block), "{block}: {writes:?}");
        let blocks = blocks(bytes);
        let order: Vec<&[u8; 4]> = blocks.iter().map(|block| &block.id).collect();
        let expected = [b"TAPE", b"SFMB", b"SSET", b"VOLB", b"MSCI", b"MSLS", b"SFMB", b"ESET", b"ESET", b"SFMB"];
        let expected_log = order.iter().filter(|id| id[..] != b"MSTL"[..]).copied();
        assert!(expected_log.eq(expected), "{block}: {order:?}");
        assert_eq!(u16_at(&bytes[blocks[1].at..], 8) as usize, block.min(4096));
        // The set begins with a Write.
        assert_eq!(blocks[2].at, writes[0], "{block}: {writes:?}");
    }
}

/// A BLOCKSIZE of RESTORE counts as far as media show it.
#[test]
fn a_restore_may_give_each_block_size_with_the_same_filemark() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    let blocks = (9..17).map(|bits| 1_u32 << bits);
    for written in blocks.clone() {
        bench.back_up("sales", 1, &format!("BLOCKSIZE = {written}"));
        for given in blocks.clone() {
            let statement = restore_statement("sales", "nightly", 1, &format!("REPLACE, BLOCKSIZE = {given}"));
            let agent = bench.reading_agent("nightly", &config(1));
            let outcome = bench.sql(&statement).outcome();
            match written.min(4096) == given.min(4096) {
                true => {
                    outcome.assert_success();
                    agent.result().unwrap();
                }
                false => {
                    outcome.assert_failure(&["Msg 3272,"]);
                    agent.result().unwrap_err();
                }
            }
        }
    }
}

/// The rules are those of SQL Server: its own full backups of a database of one data file pass.
#[test]
fn backups_of_sql_server_follow_the_same_rules() {
    for real in real_backups("backups_of_sql_server_follow_the_same_rules") {
        if matches!(&*real.name, "pubs-2012.bak" | "northwind-2008.bak") {
            check(&fs::read(&real.path).unwrap(), 1, 1, &[false]);
        }
    }
}
