//! Backups that SQL Server wrote. Skipped where there are none.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::damage::{each_cut_is_reported, each_flip_of_a_header_is_reported, headers};
use common::{Random, parse_in_pieces, real_backups};
use vdi_mtf::Error;
use vdi_mtf::builder::Builder;
use vdi_mtf::families;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::listing::{Header, Label, file_list};
use vdi_mtf::medium::{BackupSet, Medium};
use vdi_mtf::page::{PAGE_LEN, Protection, verify};
use vdi_mtf::sqlserver::config::{BackupKind, FileType};
use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader, PREFIX_LEN};
use vdi_mtf::value::{PageAddress, PageId};
use vdi_mtf::writer::Writer;

#[test]
fn each_backup_parsed_and_written_gives_the_same_bytes() {
    for real in real_backups("each_backup_parsed_and_written_gives_the_same_bytes") {
        for seed in 1..=3 {
            let (mut writer, mut copy) = (Writer::new(), Vec::new());
            parse_in_pieces(&real.bytes, seed * 7919, |event| copy.extend_from_slice(writer.write(event).unwrap()))
                .unwrap_or_else(|error| panic!("{}: {error}", real.name));
            writer.finish().unwrap();
            assert!(copy == real.bytes, "{} differs", real.name);
        }
    }
}

#[test]
fn each_backup_is_sound() {
    for real in real_backups("each_backup_is_sound") {
        let mut inspector = Inspector::new();
        for piece in real.bytes.chunks(10_007) {
            inspector.read(piece).unwrap_or_else(|error| panic!("{}: {error}", real.name));
        }
        inspector.finish().unwrap();
        for set in &inspector.medium().sets {
            let log: u64 = set.log.iter().filter_map(|(_, stream)| Some(stream.as_ref()?.blocks)).sum();
            println!("{}: {:?} {log} log blocks", real.name, set.data.iter().map(|d| d.pages).collect::<Vec<_>>());
        }
        for damage in inspector.damages().iter().take(5) {
            println!("{}: {damage}", real.name);
        }
        assert_eq!(inspector.damage_count(), 0, "{}", real.name);
    }
}

/// Builds the medium again from what the inspector read of it, and from its bytes of pages and log.
fn rebuilt(medium: &Medium, bytes: &[u8], sets: usize) -> Vec<u8> {
    let mut builder = Builder::new(medium.label.clone(), medium.media_set.clone());
    let mut out = Vec::new();
    for set in &medium.sets[..sets] {
        build_set(&mut builder, set, bytes, &mut out);
    }
    out
}

fn build_set(builder: &mut Builder, set: &BackupSet, bytes: &[u8], out: &mut Vec<u8>) {
    let body = |offset: u64, len: u64| &bytes[offset as usize..(offset + len) as usize];
    builder.begin_set(set.start.clone(), set.volume.clone(), &set.leading, out).unwrap();
    for stream in &set.data {
        builder.begin_data(stream.len, stream.checksum.is_some(), out).unwrap();
        for piece in body(stream.offset, stream.len).chunks(100_000) {
            builder.bytes(piece).unwrap();
            out.extend_from_slice(piece);
        }
        builder.end_data(out).unwrap();
    }
    for (vlf, stream) in &set.log {
        let checksum = stream.as_ref().is_some_and(|stream| stream.checksum.is_some());
        builder.begin_log(vlf, stream.is_some(), checksum, out).unwrap();
        if let Some(stream) = stream {
            let log = body(stream.offset, vlf.range_len());
            builder.bytes(log).unwrap();
            out.extend_from_slice(log);
        }
        builder.end_log(out).unwrap();
    }
    assert_eq!(builder.position(), set.summary_offset);
    builder.end_set(set.trailing.as_ref().unwrap(), out).unwrap();
}

#[test]
fn each_backup_laid_out_again_gives_the_same_bytes() {
    for real in real_backups("each_backup_laid_out_again_gives_the_same_bytes") {
        let mut inspector = Inspector::new();
        inspector.read(&real.bytes).unwrap();
        let medium = inspector.into_medium();
        let built = rebuilt(&medium, &real.bytes, medium.sets.len());
        let differs = built.iter().zip(&real.bytes).position(|(a, b)| a != b);
        assert!(differs.is_none() && built.len() == real.bytes.len(), "{} differs at {differs:#x?}", real.name);
        if medium.media_set.family_count == 1 {
            let mut sizes = Builder::new(medium.label.clone(), medium.media_set.clone());
            let set = &medium.sets[0];
            sizes.begin_set(set.start.clone(), set.volume.clone(), &set.leading, &mut Vec::new()).unwrap();
            let size = sizes.size() + set.summary_offset - sizes.position();
            assert_eq!(size, set.config().database.backup_size, "{}", real.name);
        }
    }
}

#[test]
fn each_flip_of_a_header_of_a_real_backup_is_reported() {
    for real in real_backups("each_flip_of_a_header_of_a_real_backup_is_reported") {
        each_flip_of_a_header_is_reported(&real.name, &real.bytes);
    }
}

#[test]
fn each_cut_of_a_real_backup_is_reported() {
    for real in real_backups("each_cut_of_a_real_backup_is_reported") {
        let mut random = Random(11);
        let len = real.bytes.len();
        // Around each header, at the end, and anywhere.
        let near = headers(&real.bytes).into_iter().flat_map(|(offset, len)| [offset, offset + 1, offset + len]);
        let cuts = near.chain((1..600).map(|back| len - back)).chain((0..500).map(|_| random.below(len)));
        each_cut_is_reported(&real.name, &real.bytes, cuts.filter(|&cut| cut < len));
    }
}

/// In pages with a checksum, whatever else the backup has.
#[test]
fn each_flip_of_a_page_of_a_real_backup_is_found_by_its_checksum() {
    let mut flips = 0;
    for real in real_backups("each_flip_of_a_page_of_a_real_backup_is_found_by_its_checksum") {
        let mut inspector = Inspector::new();
        inspector.read(&real.bytes).unwrap();
        let mut random = Random(23);
        for stream in inspector.medium().sets.iter().flat_map(|set| &set.data) {
            let pages = &real.bytes[stream.offset as usize..(stream.offset + stream.len) as usize];
            for page in pages.chunks_exact(PAGE_LEN) {
                let mut page: [u8; PAGE_LEN] = page.try_into().unwrap();
                if !matches!(verify(&page, 0), Ok(Protection::Checksum)) {
                    continue;
                }
                page[random.below(PAGE_LEN)] ^= 1 << random.below(8);
                assert!(verify(&page, 0).is_err(), "{}", real.name);
                flips += 1;
            }
        }
    }
    println!("{flips} flips");
}

/// The rules of the format that are no law of the parser: what each kind of backup holds.
#[test]
fn each_backup_keeps_the_rules_of_its_kind() {
    for real in real_backups("each_backup_keeps_the_rules_of_its_kind") {
        let mut inspector = Inspector::new();
        inspector.read(&real.bytes).unwrap();
        let medium = inspector.into_medium();
        for set in &medium.sets {
            let (name, database) = (&real.name, &set.config().database);
            let header = Header::of(set);
            let differential = header.kind == BackupKind::Differential;
            assert_eq!(set.start.attributes, if differential { 8 } else { 4 }, "{name}");
            assert_eq!(database.flags & 0x800 != 0, differential, "{name}");
            assert_eq!(set.data.is_empty(), header.kind == BackupKind::Log, "{name}");
            let sums = set
                .data
                .iter()
                .map(|s| s.checksum)
                .chain(set.log.iter().filter_map(|(_, s)| Some(s.as_ref()?.checksum)));
            assert!(sums.into_iter().all(|sum| sum.is_some() == header.has_checksums), "{name}");
            assert_eq!(differential, header.differential_base.is_some(), "{name}");
            assert!(header.first_lsn <= header.last_lsn && header.start <= header.finish, "{name}");
            let (leading, files) = (file_list(&set.leading), file_list(set.config()));
            assert_eq!(leading.len(), files.len(), "{name}");
            let counts = (database.data_files, database.log_files);
            let count = |kind| files.iter().filter(|file| file.file_type == kind).count() as u32;
            assert_eq!(counts, (count(FileType::Data), count(FileType::Log)), "{name}");
            let label = Label::of(&medium);
            assert_eq!((label.vendor_id, label.software_name.as_str()), (4608, "Microsoft SQL Server"), "{name}");
            if label.family_count == 1 && header.kind != BackupKind::Log {
                let pages: u64 =
                    set.config().files.iter().filter(|f| f.type_number == 1).map(|f| u64::from(f.pages)).sum();
                assert_eq!(pages, set.data.last().unwrap().pages.pages, "{name}");
            }
        }
    }
}

/// Both families of a striped backup belong together; one alone is not complete; families of two backups do not belong together.
#[test]
fn families_of_real_backups_are_told_apart() {
    let striped: Vec<Medium> = real_backups("families_of_real_backups_are_told_apart")
        .iter()
        .map(|real| {
            let mut inspector = Inspector::new();
            inspector.read(&real.bytes).unwrap();
            inspector.into_medium()
        })
        .filter(|medium| medium.media_set.family_count > 1)
        .collect();
    for medium in &striped {
        let set: Vec<&Medium> = striped.iter().filter(|other| other.media_set.id == medium.media_set.id).collect();
        let complete = set.len() == usize::from(medium.media_set.family_count);
        assert_eq!(families::validate(&set).is_ok(), complete);
        assert!(families::validate(&[medium]).is_err());
        assert!(set.iter().all(|other| other.sets[0].start.id == medium.sets[0].start.id));
        let foreign = striped.iter().find(|other| other.media_set.id != medium.media_set.id);
        if let Some(foreign) = foreign {
            assert!(matches!(families::validate(&[medium, foreign]), Err(Error::ForeignFamily { .. })));
        }
        assert_eq!(medium.sets[0].log.iter().any(|(_, s)| s.is_some()), medium.media_set.family_number == 1);
    }
}

/// The extents that the families of a media set have, by file, and the pages, with the last image of each.
fn placed(families: &[(&[u8], &Medium)]) -> BTreeMap<PageAddress, Vec<u8>> {
    let mut pages = BTreeMap::new();
    let passes = families[0].1.sets[0].data.len();
    for pass in 0..passes {
        for (bytes, medium) in families {
            let stream = &medium.sets[0].data[pass];
            let mut data = &bytes[(stream.offset - PREFIX_LEN) as usize..(stream.offset + stream.len) as usize];
            let (mut extents, mut at) = (ExtentReader::new(0), None);
            while let Some(event) = extents.next(&mut data).unwrap() {
                match event {
                    ExtentEvent::Extent(first) => at = first,
                    ExtentEvent::Bytes(bytes) => {
                        let Some(PageAddress { file, page }) = at else { continue };
                        for (index, bytes) in bytes.chunks_exact(PAGE_LEN).enumerate() {
                            pages.insert(PageAddress { file, page: PageId(page.0 + index as u32) }, bytes.to_vec());
                        }
                    }
                }
            }
        }
    }
    pages
}

/// A page per file says which extents a backup has: the GAM the allocated ones, the differential map the changed ones.
#[test]
fn the_extents_of_each_backup_are_those_of_its_maps() {
    let real = real_backups("the_extents_of_each_backup_are_those_of_its_maps");
    let media: Vec<(&[u8], Medium)> = real
        .iter()
        .map(|real| {
            let mut inspector = Inspector::new();
            inspector.read(&real.bytes).unwrap();
            (&real.bytes[..], inspector.into_medium())
        })
        .collect();
    let mut files = 0;
    for (_, medium) in media.iter().filter(|(_, medium)| !medium.sets[0].data.is_empty()) {
        let same = |other: &&(&[u8], Medium)| other.1.media_set.id == medium.media_set.id;
        let families: Vec<_> = media.iter().filter(same).map(|(bytes, medium)| (*bytes, medium)).collect();
        if families.len() < usize::from(medium.media_set.family_count) {
            continue;
        }
        let pages = placed(&families);
        let set = &medium.sets[0];
        let full = Header::of(set).kind == BackupKind::Full;
        for entry in file_list(set.config()).iter().filter(|file| file.file_type == FileType::Data) {
            let map = &pages[&PageAddress { file: entry.file_id, page: PageId(if full { 2 } else { 6 }) }];
            // The second row, behind its header of four bytes. A bit that is set: free in the GAM, changed in the differential map.
            let row = usize::from(u16::from_le_bytes([map[PAGE_LEN - 4], map[PAGE_LEN - 3]])) + 4;
            let bit = |extent: usize| map[row + extent / 8] >> (extent % 8) & 1;
            let extents = (entry.size / 65536) as usize;
            let mapped: BTreeSet<usize> = (0..extents).filter(|&extent| bit(extent) == u8::from(!full)).collect();
            let found: BTreeSet<usize> =
                pages.keys().filter(|page| page.file == entry.file_id).map(|page| page.page.0 as usize / 8).collect();
            assert_eq!(mapped, found, "file {} of {} families", entry.file_id, families.len());
            files += 1;
        }
    }
    assert!(files > 0 || real.is_empty());
}
