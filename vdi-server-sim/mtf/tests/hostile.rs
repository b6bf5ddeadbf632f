//! Inputs that are no backups, or no backups that can be read.
#![allow(clippy::unwrap_used)]

mod common;

use common::parse;
use common::synthetic::{Shape, backup};
use proptest::prelude::*;
use vdi_mtf::block::Block;
use vdi_mtf::checksum::xor16;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::value::Tag;
use vdi_mtf::writer::Writer;
use vdi_mtf::{Error, parser::Event};

/// Computes the checksum of a header of `len` bytes anew.
fn reseal(header: &mut [u8]) {
    let end = header.len() - 2;
    let sum = xor16(&header[..end]);
    header[end..].copy_from_slice(&sum.to_le_bytes());
}

/// The backup with a change in the block header at `offset`.
fn with_header(bytes: &[u8], offset: usize, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes[offset..offset + 52]);
    reseal(&mut bytes[offset..offset + 52]);
    bytes
}

fn offset_of(bytes: &[u8], tag: &[u8; 4]) -> usize {
    bytes.windows(4).position(|window| window == tag).unwrap()
}

#[test]
fn compressed_containers_are_refused_by_name() {
    let mut container = b"MSSQLBAK".to_vec();
    container.extend(2_u32.to_le_bytes());
    container.extend(3_u32.to_le_bytes());
    container.resize(480, 0);
    let error = parse(&container).unwrap_err();
    assert_eq!(error, Error::CompressedContainer { version: 2, algorithm: 3 });
    let text = error.to_string();
    assert!(text.contains("MSSQLBAK") && text.contains("XPRESS") && text.contains("NO_COMPRESSION"), "{text}");
}

#[test]
fn encrypted_and_compressed_sets_are_refused_by_name() {
    let bytes = backup(&Shape::default()).media.remove(0);
    let set = offset_of(&bytes, b"SSET");
    let encrypted = with_header(&bytes, set, |header| header[6] |= 2);
    assert_eq!(parse(&encrypted), Err(Error::Encrypted { offset: set as u64, what: Tag(*b"SSET") }));
    let compressed = with_header(&bytes, set, |header| header[4] |= 4);
    assert_eq!(parse(&compressed), Err(Error::Compressed { offset: set as u64, what: Tag(*b"SSET") }));
    let continued = with_header(&bytes, set, |header| header[4] |= 1);
    assert_eq!(parse(&continued), Err(Error::Continued { offset: set as u64, what: Tag(*b"SSET") }));

    let stream = offset_of(&bytes, b"MQDA");
    let mut encrypted = bytes.clone();
    encrypted[stream + 16] = 1;
    reseal(&mut encrypted[stream..stream + 22]);
    assert_eq!(parse(&encrypted), Err(Error::Encrypted { offset: stream as u64, what: Tag(*b"MQDA") }));
}

#[test]
fn other_files_are_refused_by_their_first_bytes() {
    let error = parse(&[b'P'; 100]).unwrap_err();
    assert_eq!(error, Error::NotMtf { found: Tag(*b"PPPP") });
    assert!(matches!(parse(&[]), Err(Error::Empty)));
    assert!(matches!(parse(b"TA"), Err(Error::Truncated { offset: 2, .. })));
    for text in [&b"hello"[..], b"h", b"TApe", b"MSSQLBAK"] {
        assert!(matches!(parse(text), Err(Error::NotMtf { .. } | Error::CompressedContainer { .. })), "{text:?}");
    }
    assert!(matches!(parse(b"TAPE"), Err(Error::Truncated { offset: 4, .. })));
}

#[test]
fn a_length_beyond_all_media_is_refused() {
    let bytes = backup(&Shape::default()).media.remove(0);
    let stream = offset_of(&bytes, b"MQDA");
    let mut long = bytes.clone();
    long[stream + 8..stream + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    reseal(&mut long[stream..stream + 22]);
    assert!(matches!(parse(&long), Err(Error::Range { field: "length of the stream", .. })));
    // The configuration is collected: its length has a bound of its own.
    let stream = offset_of(&bytes, b"MQCI");
    let mut long = bytes.clone();
    long[stream + 8..stream + 16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    reseal(&mut long[stream..stream + 22]);
    assert!(matches!(Inspector::new().read(&long), Err(Error::Range { field: "length of the stream", .. })));
}

#[test]
fn a_block_that_is_missing_or_doubled_is_refused() {
    let bytes = backup(&Shape::default()).media.remove(0);
    let (volume, configuration) = (offset_of(&bytes, b"VOLB"), offset_of(&bytes, b"MSCI"));
    let without = [&bytes[..volume], &bytes[configuration..]].concat();
    assert!(matches!(parse(&without), Err(Error::UnexpectedBlock { .. })));
    let log = offset_of(&bytes, b"MSTL");
    let second = log + 4 + offset_of(&bytes[log + 4..], b"MSTL");
    let without = [&bytes[..log], &bytes[second..]].concat();
    assert!(matches!(parse(&without), Err(Error::Field { field: "logical address of the block", .. })));
}

#[test]
fn an_error_comes_again() {
    let mut inspector = Inspector::new();
    let first = inspector.read(&[1; 60]).unwrap_err();
    assert_eq!(inspector.read(&[0; 60]), Err(first.clone()));
    assert_eq!(inspector.finish(), Err(first));
}

#[test]
fn a_writer_refuses_events_in_a_wrong_order() {
    let mut writer = Writer::new();
    assert!(matches!(writer.write(&Event::Data(&[0])), Err(Error::Order { found: "data", .. })));
    let block = Block { offset: 0, id: vdi_mtf::block::BlockId::SetStart, bytes: &[0; 52] };
    assert!(writer.write(&Event::Block(block)).is_err());
    assert!(writer.finish().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(parse(&bytes).is_err());
        prop_assert!(Inspector::new().read(&bytes).is_err() || bytes.len() < 52);
    }
}
