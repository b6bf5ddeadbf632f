//! Damaged backups.

use vdi_mtf::Error;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::parser::{Event, Parser};

/// Where the headers are: offset and length of each block header and stream header.
pub(crate) fn headers(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut parser, mut input, mut found) = (Parser::new(), bytes, Vec::new());
    while let Some(event) = parser.next(&mut input).unwrap() {
        match event {
            Event::Block(block) => found.push((block.offset as usize, vdi_mtf::block::HEADER_LEN)),
            Event::Stream(stream) => found.push((stream.offset as usize, vdi_mtf::stream::HEADER_LEN)),
            _ => {}
        }
    }
    found
}

/// Flips each bit of each header in turn; the parser has to refuse each.
pub(crate) fn each_flip_of_a_header_is_reported(name: &str, bytes: &[u8]) {
    let mut damaged = bytes.to_vec();
    let mut flips = 0;
    for (offset, len) in headers(bytes) {
        for bit in 0..len * 8 {
            damaged[offset + bit / 8] ^= 1 << (bit % 8);
            assert!(super::parse(&damaged).is_err(), "{name}: bit {bit} of the header at {offset:#x}");
            damaged[offset + bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
    }
    assert!(flips > 1000, "{name}: {flips} flips");
}

/// Cuts the end off, at each of `cuts`; the parser has to report each.
pub(crate) fn each_cut_is_reported(name: &str, bytes: &[u8], cuts: impl Iterator<Item = usize>) {
    for cut in cuts {
        let error = super::parse(&bytes[..cut]).expect_err(name);
        assert!(
            matches!(&error, Error::Truncated { offset, .. } if *offset == cut as u64)
                || matches!((cut, &error), (0, Error::Empty)),
            "{name} cut at {cut:#x}: {error}"
        );
    }
}

/// All damages of a medium.
pub(crate) fn damages(bytes: &[u8]) -> Vec<Error> {
    let mut inspector = Inspector::new();
    for piece in bytes.chunks(4099) {
        inspector.read(piece).unwrap();
    }
    inspector.finish().unwrap();
    inspector.damages().to_vec()
}
