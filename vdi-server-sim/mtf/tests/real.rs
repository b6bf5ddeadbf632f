//! Backups that SQL Server wrote. Skipped where there are none.

mod common;

use common::{parse_in_pieces, real_backups};
use vdi_mtf::inspector::Inspector;
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
