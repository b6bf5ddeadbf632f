use proptest::prelude::*;
use vdi_mtf::checksum::SectorSum;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::listing::{Header, file_list};
use vdi_mtf::page::{PAGE_LEN, PageHeader, page_type, protect};
use vdi_mtf::sqlserver::config::{BackupKind, Database, FileRecord, Filegroup};
use vdi_mtf::sqlserver::log::seal_log_block;
use vdi_mtf::value::{Lsn, PageId};

use super::*;
use crate::storage::FileExtents;
use crate::tsql::{BackupOptions, BackupPart, DeviceType, Devices};

/// A log block of 512 bytes.
fn log_block() -> Vec<u8> {
    let mut block = vec![7; 512];
    block[500..].fill(0);
    block[4..6].copy_from_slice(&500_u16.to_le_bytes());
    block[6..8].copy_from_slice(&512_u16.to_le_bytes());
    block[8] = 3;
    seal_log_block(&mut block, 0x80).unwrap();
    block
}

fn page(file: FileId, page: u64) -> [u8; PAGE_LEN] {
    let mut bytes = [page as u8; PAGE_LEN];
    let header =
        PageHeader { version: 1, page_type: page_type::DATA, page: PageId(page as u32), file, ..PageHeader::default() };
    header.encode_into(&mut bytes);
    protect(&mut bytes);
    bytes
}

/// A database of two data files in two filegroups, with so many extents each.
fn source(extents: [u32; 2]) -> BackupSource {
    let major = 16;
    let data = |id: u16, group: u16, extents: u32| FileRecord {
        filegroup: group,
        size: u64::from(extents) * 65536,
        size_again: u64::from(extents) * 65536,
        logical_name: format!("data{id}").as_str().into(),
        physical_name: format!("/d/data{id}").as_str().into(),
        ..FileRecord::new(major, FileId(id), FileType::Data)
    };
    let log =
        FileRecord { logical_name: "log".into(), size: 1 << 20, ..FileRecord::new(major, FileId(2), FileType::Log) };
    let lsn = |block| Lsn { vlf: 40, block, slot: 1 };
    let configuration = Config {
        database: Database {
            name: "sales".into(),
            first_lsn: lsn(16),
            last_lsn: lsn(18),
            checkpoint_lsn: lsn(16),
            data_files: 2,
            log_files: 1,
            ..Database::new(major)
        },
        filegroups: vec![Filegroup::new(major, 1, "PRIMARY"), Filegroup::new(major, 2, "second")],
        files: vec![data(1, 1, extents[0]), data(3, 2, extents[1]), log],
    };
    let file = |id, count: u32| FileExtents {
        file: FileId(id),
        extents: (count > 0).then_some(0..count).into_iter().collect(),
    };
    let used = Vlf {
        start: 8192 + 512,
        end: 8192 + 512 + 1024,
        sequence: 40,
        parity: 0x80,
        ..Vlf::new(major, FileId(2), 8192, 1 << 19)
    };
    let unused = Vlf::new(major, FileId(2), 8192 + (1 << 19), 1 << 19);
    BackupSource { configuration, data: vec![file(1, extents[0]), file(3, extents[1])], log: vec![used, unused] }
}

fn statement(families: u32, options: BackupOptions, parts: Vec<BackupPart>) -> Backup {
    let names = (0..families).map(|family| format!("device{family}")).collect();
    Backup {
        database: "sales".to_owned(),
        parts,
        devices: Devices { device_type: DeviceType::Virtual, names },
        options,
    }
}

fn terms(statement: &Backup, transfer: u32) -> Terms<'_> {
    Terms { statement, server: "server".to_owned(), transfer, snapshot: None }
}

/// A plan for new media.
fn planned(source: BackupSource, terms: &Terms<'_>, block_size: u32) -> Result<(Plan, Vec<FamilyStream>), Failure> {
    planned_with(source, terms, block_size, Cuts::Pages)
}

fn planned_with(
    source: BackupSource,
    terms: &Terms<'_>,
    block_size: u32,
    cuts: Cuts,
) -> Result<(Plan, Vec<FamilyStream>), Failure> {
    let media = Media::new(terms.statement, block_size, cuts)?;
    Ok((Plan::new(source, terms, &media)?, media.streams))
}

/// Writes every family, as a program that sends the parts does, and says where marks stand.
fn write(plan: &Plan, streams: Vec<FamilyStream>, block_size: u64) -> Vec<(Vec<u8>, Vec<u64>)> {
    write_cut(plan, streams, block_size, Cuts::Pages)
}

/// The same. The stream is cut where `cuts` says.
fn write_cut(plan: &Plan, streams: Vec<FamilyStream>, block_size: u64, cuts: Cuts) -> Vec<(Vec<u8>, Vec<u64>)> {
    let write = |mut stream: FamilyStream| {
        let (mut out, mut marks) = (Vec::new(), Vec::new());
        let start = stream.position();
        loop {
            let part = stream.next(plan).unwrap();
            let is_cut = match part {
                Part::Pages | Part::End => cuts != Cuts::None,
                Part::Mark => cuts == Cuts::Marks,
                Part::Bytes(_) | Part::Log { .. } | Part::Summary => false,
            };
            if is_cut {
                assert!((out.len() as u64).is_multiple_of(block_size), "{part:?} at {}", out.len());
            }
            match part {
                Part::Bytes(bytes) => out.extend(bytes),
                Part::Mark => marks.push(out.len() as u64),
                Part::Pages => {
                    for segment in plan.dealing.segments(stream.family, 0..plan.dealing.stream_len()) {
                        let before = out.len();
                        match segment {
                            Segment::File { file, offset, len } => {
                                (offset / 8192..(offset + len) / 8192)
                                    .for_each(|number| out.extend(page(plan.files[file], number)));
                            }
                            Segment::Filler { len } => {
                                (0..len / 65536).for_each(|_| out.extend(vdi_mtf::builder::filler_extent()));
                            }
                        }
                        stream.pages(segment.len(), SectorSum::of(&out[before..])).unwrap();
                    }
                }
                Part::Log { bytes, .. } => {
                    assert_eq!(bytes, 8704..9728);
                    let log = [log_block(), log_block()].concat();
                    stream.log(&log).unwrap();
                    out.extend(log);
                }
                Part::Summary => out.extend(stream.end(&plan.trailing(false).unwrap()).unwrap()),
                Part::End => break,
            }
        }
        assert_eq!(stream.position(), start + out.len() as u64);
        (out, marks)
    };
    streams.into_iter().map(write).collect()
}

fn inspected(bytes: &[u8]) -> Medium {
    let mut inspector = Inspector::new();
    inspector.read(bytes).unwrap();
    inspector.finish().unwrap();
    assert_eq!(inspector.damages(), []);
    inspector.into_medium()
}

/// What is true of every backup of `extents` to media.
fn check(plan: &Plan, media: &[Medium], written: &[(Vec<u8>, Vec<u64>)], extents: [u32; 2]) {
    vdi_mtf::families::validate(&media.iter().collect::<Vec<_>>()).unwrap();
    let (mut pages, mut size) = (0, 0);
    for (family, (medium, (bytes, marks))) in media.iter().zip(written).enumerate() {
        let set = medium.sets.last().unwrap();
        assert_eq!(set.data.len(), 1);
        assert_eq!(set.data[0].len, plan.dealing.stream_len());
        assert_eq!(set.data[0].checksum.is_some(), plan.checksum);
        pages += set.data[0].pages.pages;
        let filemark = u64::from(medium.label.filemark_len());
        size += set.summary_offset - if set.start.number == 1 { filemark } else { set.offset };
        assert_eq!(set.log.len(), 2);
        assert_eq!(set.log[0].1.is_some(), family == 0);
        assert_eq!(set.config(), media[0].sets.last().unwrap().config(), "the families' configurations are equal");
        assert_eq!(set.leading, media[0].sets.last().unwrap().leading);
        if set.start.number == 1 {
            assert_eq!(medium.filemarks.iter().map(|mark| mark + filemark).collect::<Vec<_>>(), *marks);
            assert_eq!(medium.len, bytes.len() as u64);
        }
    }
    assert_eq!(pages, 8 * u64::from(extents[0] + extents[1]));
    let database = &media[0].sets.last().unwrap().config().database;
    assert_eq!(database.backup_size, size);
    assert!(database.finish.is_set());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_planned_is_a_sound_backup(
        families in 1..65_u32, block in 9..17_u32, transfer in 1..17_u32, checksum in any::<bool>(), extents in [0..40_u32, 0..40_u32],
        large in any::<bool>(), cuts in prop_oneof![Just(Cuts::None), Just(Cuts::Pages), Just(Cuts::Marks)],
    ) {
        // The large one is a sparse file.
        let mut source = source(extents);
        if large && families < 9 {
            source.configuration.files[0].size = 1 << 30;
        }
        let options = BackupOptions { checksum: Some(checksum), ..BackupOptions::default() };
        let statement = statement(families, options, Vec::new());
        let (plan, streams) = planned_with(source, &terms(&statement, transfer << 16), 1 << block, cuts).unwrap();
        let written = write_cut(&plan, streams, 1 << block, cuts);
        let media: Vec<Medium> = written.iter().map(|(bytes, _)| inspected(bytes)).collect();
        check(&plan, &media, &written, extents);
        for (bytes, _) in &written {
            // FILELISTONLY reads no more than 64 KiB: there is the configuration, and behind it the block of the pages.
            let data = bytes.windows(4).position(|name| name == b"MSDA");
            prop_assert!(cuts == Cuts::Marks || data.is_some_and(|at| at < 64 << 10), "{data:?}");
        }
        for medium in &media {
            prop_assert_eq!(medium.label.filemark_len(), (1 << block).min(4096));
            if cuts != Cuts::None {
                prop_assert_eq!(medium.sets[0].data[0].offset % (1 << block), 0);
            }
            if cuts != Cuts::Marks {
                prop_assert!(medium.sets[0].offset < 16 << 10);
            }
        }
    }
}

#[test]
fn sets_are_appended_to_media() {
    let extents = [5, 3];
    let options = BackupOptions { checksum: Some(true), ..BackupOptions::default() };
    let statement = statement(3, options, Vec::new());
    let (plan, streams) = planned(source(extents), &terms(&statement, 65536), 4096).unwrap();
    let mut all: Vec<Vec<u8>> = write(&plan, streams, 4096).into_iter().map(|(bytes, _)| bytes).collect();
    for number in 2..4 {
        let media: Vec<Medium> = all.iter().map(|bytes| inspected(bytes)).collect();
        let appended = Media::appended(&media).unwrap();
        let plan = Plan::new(source(extents), &terms(&statement, 65536), &appended).unwrap();
        let streams = appended.streams;
        let written = write(&plan, streams, 4096);
        for (medium, (bytes, _)) in all.iter_mut().zip(&written) {
            medium.extend_from_slice(bytes);
        }
        let media: Vec<Medium> = all.iter().map(|bytes| inspected(bytes)).collect();
        check(&plan, &media, &written, extents);
        assert_eq!(media[0].sets.len(), number);
        assert_eq!(media[0].sets[number - 1].start.number as usize, number);
    }
}

#[test]
fn the_header_shows_what_the_statement_says() {
    let options = BackupOptions {
        name: Some("nightly".to_owned()),
        description: Some("all of it".to_owned()),
        media_name: Some("shelf".to_owned()),
        media_description: Some("the left one".to_owned()),
        copy_only: true,
        checksum: Some(true),
        expires: Some(Expiry::Date("2031-05-06 07:08:09".to_owned())),
        ..BackupOptions::default()
    };
    let statement = statement(1, options, Vec::new());
    let (plan, streams) = planned(source([4, 2]), &terms(&statement, 65536), 512).unwrap();
    let medium = inspected(&write(&plan, streams, 512)[0].0);
    let set = &medium.sets[0];
    let header = Header::of(set);
    assert_eq!((header.backup_name.as_str(), header.backup_description.as_str()), ("nightly", "all of it"));
    assert_eq!((header.server_name.as_str(), header.database_name.as_str()), ("server", "sales"));
    assert!(header.has_checksums && header.kind == BackupKind::Full && !header.machine_name.is_empty());
    assert_eq!(set.start.attributes, attributes::COPY);
    assert_eq!(set.start.expiration.to_string(), "2031-05-06 07:08:09");
    assert_eq!(
        (medium.label.name.to_string(), medium.label.description.to_string()),
        ("shelf".into(), "the left one".into())
    );
    let files = file_list(set.config());
    let sizes: Vec<u64> = files.iter().map(|file| file.backup_bytes).collect();
    assert_eq!(sizes, [4 * 65536, 2 * 65536, 1024]);
    // COPY_ONLY is no base of differential backups.
    assert!(files.iter().all(|file| file.differential_base.is_none()));
    assert_eq!(set.leading.database.backup_size, 6 * 65536 + 1024);
}

#[test]
fn a_full_backup_is_the_base_of_differential_ones() {
    let mut source = source([4, 2]);
    source.configuration.files[0].differential_base = Guid([9; 16]);
    let statement = statement(1, BackupOptions::default(), Vec::new());
    let (plan, streams) = planned(source, &terms(&statement, 65536), 512).unwrap();
    let set = &inspected(&write(&plan, streams, 512)[0].0).sets[0];
    assert_eq!(set.leading.files[0].differential_base, Guid([9; 16]));
    for file in &set.config().files[..2] {
        assert_eq!(
            (file.differential_base, file.differential_base_lsn),
            (set.start.id, set.leading.database.first_lsn)
        );
        assert!(file.differential_base_time > 0);
    }
    assert!(set.config().files[2].differential_base.is_zero());
    assert_eq!(set.start.attributes, attributes::NORMAL);
}

#[test]
fn parts_of_a_database_are_backed_up() {
    for parts in [vec![BackupPart::File("DATA3".to_owned())], vec![BackupPart::Filegroup("Second".to_owned())]] {
        let statement = statement(2, BackupOptions::default(), parts);
        let (plan, streams) = planned(source([4, 2]), &terms(&statement, 65536), 512).unwrap();
        let written = write(&plan, streams, 512);
        let media: Vec<Medium> = written.iter().map(|(bytes, _)| inspected(bytes)).collect();
        check(&plan, &media, &written, [0, 2]);
        let config = media[0].sets[0].config();
        assert_eq!(config.database.kind(), BackupKind::Other(b'F'));
        assert_eq!((config.files[0].pages, config.files[1].pages), (0, 16));
        assert!(config.files[0].differential_base.is_zero() && !config.files[1].differential_base.is_zero());
    }
    let unknown = [BackupPart::File("log".to_owned()), BackupPart::Filegroup("third".to_owned())];
    for (part, number) in unknown.into_iter().zip([3235, 3027]) {
        let statement = statement(1, BackupOptions::default(), vec![part]);
        let failure = planned(source([4, 2]), &terms(&statement, 65536), 512).unwrap_err();
        let messages = failure.messages(&crate::tsql::Statement::Backup(statement));
        assert_eq!(messages[0].number, number);
    }
}

#[test]
fn a_snapshot_has_neither_pages_nor_log() {
    let statement = statement(1, BackupOptions::default(), Vec::new());
    let terms = Terms { snapshot: Some(vec![Some(1), None, Some(3)]), ..terms(&statement, 65536) };
    let (plan, streams) = planned(source([4, 2]), &terms, 4096).unwrap();
    let (bytes, marks) = &write(&plan, streams, 4096)[0];
    let medium = inspected(bytes);
    let set = &medium.sets[0];
    assert!(set.data.is_empty() && set.log.is_empty());
    assert_ne!(set.config().database.flags & vdi_mtf::sqlserver::config::database_flags::SNAPSHOT, 0);
    for config in [&set.leading, set.config()] {
        let sums: Vec<_> = config.files.iter().map(super::super::snapshot_sums::decode).collect();
        assert_eq!(sums, [Some(1), None, Some(3)]);
    }
    assert_eq!(marks.len(), 3);
    assert_eq!(&bytes[marks[0] as usize..][..4], b"SSET");
    assert!(!set.config().files[0].differential_base.is_zero(), "a snapshot is a base, too");
}
