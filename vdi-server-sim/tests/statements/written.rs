//! What a BACKUP writes, read by `vdi-mtf` alone: the format is that of SQL Server, whatever the sizes and the number of devices.

use std::path::PathBuf;

use vdi_mtf::page::EXTENT_PAGES;
use vdi_mtf::parser::Parser;
use vdi_mtf::sqlserver::config::FileType;
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::writer::Writer;

use crate::common::bench::Bench;
use crate::common::client::stripe;
use crate::common::databases::PAGE;
use crate::common::families::Families;

/// A backup of `sales` to so many devices.
fn written(bench: &Bench, devices: u32, options: &str) -> Families {
    bench.back_up("sales", devices, options);
    let paths: Vec<_> = (0..devices).map(|index| stripe(&bench.out(), index)).collect();
    Families::read(paths.iter().map(PathBuf::as_path))
}

/// Parsed, and written from what was parsed.
fn copied(bytes: &[u8]) -> Vec<u8> {
    let (mut parser, mut writer, mut copy) = (Parser::new(), Writer::new(), Vec::new());
    let mut rest = bytes;
    while let Some(event) = parser.next(&mut rest).unwrap() {
        copy.extend_from_slice(writer.write(&event).unwrap());
    }
    while let Some(event) = parser.next(&mut &[][..]).unwrap() {
        copy.extend_from_slice(writer.write(&event).unwrap());
    }
    parser.finish().unwrap();
    writer.finish().unwrap();
    copy
}

#[test]
fn backups_are_sound_media_with_the_pages_of_the_database() {
    let bench = Bench::new();
    bench.database("sales", 2_000_000);
    for (devices, options) in [
        (1, ""),
        (1, "CHECKSUM"),
        (2, "BLOCKSIZE = 512, MAXTRANSFERSIZE = 1048576"),
        (3, "BLOCKSIZE = 65536, CHECKSUM"),
        (8, "MAXTRANSFERSIZE = 4194304, BUFFERCOUNT = 1"),
        (64, ""),
    ] {
        let families = written(&bench, devices, options);
        let story = format!("{devices} devices, {options}");
        let first = &families.0[0].medium;
        let set = &first.sets[0];
        for family in &families.0 {
            assert!(copied(&family.bytes) == family.bytes, "{story}");
            let medium = &family.medium;
            let of_set = &medium.sets[0];
            assert!(of_set.complete && medium.sets.len() == 1 && medium.len == family.bytes.len() as u64, "{story}");
            assert_eq!(of_set.start.id, set.start.id, "{story}");
            // Equal lengths, by filler extents; whole extents; the sum is there where it was asked for.
            let data = &of_set.data[0];
            assert_eq!((of_set.data.len(), data.len), (1, set.data[0].len), "{story}");
            assert!(data.len.is_multiple_of(EXTENT_LEN), "{story}");
            assert_eq!(data.checksum.is_some(), options.contains("CHECKSUM"), "{story}");
            // The log is in the first family.
            let has_log = of_set.log.iter().any(|(_, stream)| stream.is_some());
            assert_eq!(has_log, medium.media_set.family_number == 1, "{story}");
        }
        // The allocated extents of all files, and nothing else; the content to the last byte.
        let (pages, content) = (families.pages(), bench.pages("sales"));
        assert!(pages.len().is_multiple_of(EXTENT_PAGES as usize), "{story}");
        for ((file, page), bytes) in &content {
            let found = pages.iter().find(|(at, _)| (at.file.0, at.page.0) == (*file, *page));
            assert!(found.is_some_and(|(_, found)| found == bytes), "page {file}:{page}, {story}");
        }
        let config = set.config();
        let counted: u64 = pages.len() as u64 * PAGE as u64;
        let sizes = config.files.iter().filter(|file| file.file_type() != FileType::Log);
        assert!(sizes.count() == 2 && counted <= bench.databases().data_bytes("sales"), "{story}");
        assert_eq!(config.database.name.to_string(), "sales", "{story}");
    }
}

/// The next full backup begins where all pages are older.
#[test]
fn log_sequence_numbers_grow_from_backup_to_backup() {
    let bench = Bench::new();
    bench.database("sales", 200_000);
    let mut before = None;
    for _ in 0..3 {
        let families = written(&bench, 1, "");
        let database = families.0[0].medium.sets[0].config().database.clone();
        assert!(database.first_lsn <= database.checkpoint_lsn && database.checkpoint_lsn <= database.last_lsn);
        if let Some(before) = before.replace(database.first_lsn) {
            assert!(before < database.first_lsn);
        }
        let newest = families.pages().values().map(|page| vdi_mtf::page::PageHeader::decode(page).unwrap().lsn).max();
        assert!(newest.unwrap() <= database.last_lsn);
    }
}
