//! Backups that SQL Server wrote. Skipped where there are none.

mod common;

use common::{parse_in_pieces, real_backups};
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
