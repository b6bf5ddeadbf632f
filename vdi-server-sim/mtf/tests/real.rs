//! Backups that SQL Server wrote. Skipped where there are none.

mod common;

use common::{parse_in_pieces, real_backups};
use vdi_mtf::builder::Builder;
use vdi_mtf::inspector::{BackupSet, Inspector, Medium};
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
