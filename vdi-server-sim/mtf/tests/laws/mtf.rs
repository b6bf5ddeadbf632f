//! Any bytes as a backup.

use vdi_mtf::Error;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::page::PageVerifier;
use vdi_mtf::parser::{Event, Parser};
use vdi_mtf::sqlserver::config::Config;
use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader};
use vdi_mtf::sqlserver::log::{LogVerifier, Vlf};
use vdi_mtf::value::FileId;
use vdi_mtf::writer::Writer;

/// The longest medium.
const MAX_MEDIUM: usize = 1 << 20;

/// Expands a medium: again and again a number of zeros, a number of bytes (both u16), and the bytes.
fn expanded(mut bytes: &[u8]) -> Vec<u8> {
    let mut medium = Vec::new();
    while let Some((numbers, rest)) = bytes.split_first_chunk::<4>() {
        let zeros = usize::from(u16::from_le_bytes([numbers[0], numbers[1]]));
        let len = usize::from(u16::from_le_bytes([numbers[2], numbers[3]])).min(rest.len());
        if medium.len() + zeros + len > MAX_MEDIUM {
            break;
        }
        medium.resize(medium.len() + zeros, 0);
        medium.extend_from_slice(&rest[..len]);
        bytes = &rest[len..];
    }
    medium
}

/// The input that expands to `medium`. `options`: see [`mtf`].
pub(crate) fn compact(options: u8, medium: &[u8]) -> Vec<u8> {
    let mut bytes = vec![options];
    let mut at = 0;
    while at < medium.len() {
        let zeros = medium[at..].iter().take(0xFFFF).take_while(|&&byte| byte == 0).count();
        at += zeros;
        // Up to eight zeros in a row: a shorter run costs more than it saves.
        let len = (at..medium.len().min(at + 0xFFFF))
            .find(|&end| medium[end..].iter().take(8).filter(|&&byte| byte == 0).count() == 8)
            .unwrap_or(medium.len().min(at + 0xFFFF))
            - at;
        bytes.extend((zeros as u16).to_le_bytes());
        bytes.extend((len as u16).to_le_bytes());
        bytes.extend(&medium[at..at + len]);
        at += len;
    }
    bytes
}

/// Mends checksums and addresses of headers, so that what is behind them is reached.
fn mend(medium: &mut [u8]) {
    for _ in 0..64 {
        let (mut parser, mut input) = (Parser::new(), &medium[..]);
        let error = loop {
            match parser.next(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => break error,
            }
        };
        let (at, value): (u64, Vec<u8>) = match error {
            Error::BlockChecksum { offset, expected, .. } => (offset + 50, expected.to_le_bytes().to_vec()),
            Error::StreamChecksum { offset, expected, .. } => (offset + 20, expected.to_le_bytes().to_vec()),
            Error::Field { offset, field: "logical address of the block", expected, .. } => {
                (offset + 20, expected.to_le_bytes().to_vec())
            }
            Error::Field { offset, field: "control block id", expected, .. } => {
                (offset + 36, (expected as u32).to_le_bytes().to_vec())
            }
            _ => return,
        };
        medium[at as usize..at as usize + value.len()].copy_from_slice(&value);
    }
}

/// Pieces of sizes that `seed` chooses. Seed 0: one piece.
fn pieces(bytes: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, seed);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(seed != 0));
        let most = [1, 22, 60, 511, 8192, 40_000][(state >> 40) as usize % 6];
        let len = if seed == 0 { rest.len() } else { 1 + (state >> 48) as usize % most };
        let (piece, left) = rest.split_at(len.min(rest.len()));
        rest = left;
        Some(piece)
    })
}

/// The events of a medium with their data joined, what was written from them, and the end.
fn parsed(medium: &[u8], seed: u64) -> (Vec<String>, Vec<u8>, Result<(), Error>) {
    let (mut parser, mut writer) = (Parser::new(), Writer::new());
    let (mut events, mut copy, mut data) = (Vec::new(), Vec::new(), 0);
    let mut each = |event: &Event<'_>| {
        copy.extend_from_slice(writer.write(event).unwrap_or_else(|error| panic!("{error}: {event:?}")));
        match event {
            Event::Data(bytes) => {
                assert!(!bytes.is_empty());
                data += bytes.len();
            }
            Event::Block(block) => events.push(format!("{:?} at {} of {}", block.id, block.offset, block.bytes.len())),
            other => {
                events.push(format!("{data} bytes, then {other:?}"));
                data = 0;
            }
        }
    };
    let mut run = || {
        for mut piece in pieces(medium, seed) {
            while let Some(event) = parser.next(&mut piece)? {
                each(&event);
            }
            assert!(piece.is_empty());
        }
        while let Some(event) = parser.next(&mut &[][..])? {
            each(&event);
        }
        parser.finish()
    };
    let end = run();
    (events, copy, end)
}

fn inspected(medium: &[u8], seed: u64) -> (Inspector, Result<(), Error>) {
    let mut inspector = Inspector::new();
    for piece in pieces(medium, seed) {
        if let Err(error) = inspector.read(piece) {
            assert!(!error.to_string().is_empty());
            return (inspector, Err(error));
        }
    }
    let end = inspector.finish();
    (inspector, end)
}

/// Verifiers of pages and log, given any bytes: what they report does not depend on how the bytes come.
fn verified(bytes: &[u8], seed: u64) -> Vec<String> {
    let mut reports = Vec::new();
    let (mut pages, mut extents) = (PageVerifier::new(0), ExtentReader::new(0));
    let mut vlf = Vlf::new(16, FileId(2), 8192, 1 << 20);
    (vlf.start, vlf.end, vlf.parity) = (0, bytes.len() as u64 / 2, 0x40);
    let mut log = LogVerifier::new(&vlf, 0);
    let (mut placed, mut failed, mut total) = (0, false, 0);
    for mut piece in pieces(bytes, seed) {
        pages.update(piece, |header, state| reports.push(format!("{header:?} {state:?}")));
        log.update(piece, |error| match error {
            // Each piece has its own first wrong byte.
            Error::Padding { .. } => {}
            error => reports.push(error.to_string()),
        });
        total += piece.len();
        while !failed {
            match extents.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(ExtentEvent::Bytes(bytes))) => placed += bytes.len(),
                Ok(Some(ExtentEvent::Extent(first))) => reports.push(format!("{first:?} after {placed}")),
                Err(error) => {
                    failed = true;
                    reports.push(error.to_string());
                }
            }
        }
    }
    assert!(failed || placed <= total.saturating_sub(2) && placed + 40 >= total.min(40), "{placed} of {total}");
    reports.sort();
    reports
}

/// Any medium ends in a success or an error, the same in one piece and in many; what was parsed is written as it was.
///
/// The first byte: bit 0 mends headers first, the others choose the pieces. Returns whether the medium is complete.
pub(crate) fn mtf(bytes: &[u8]) -> bool {
    let Some((&options, rest)) = bytes.split_first() else { return false };
    let mut medium = expanded(rest);
    if options & 1 != 0 {
        mend(&mut medium);
    }
    let seed = u64::from(options | 1);
    let (events, copy, end) = parsed(&medium, 0);
    let (events_of_pieces, copy_of_pieces, end_of_pieces) = parsed(&medium, seed);
    assert_eq!(end, end_of_pieces);
    assert_eq!(events, events_of_pieces);
    assert!(copy == copy_of_pieces && medium.starts_with(&copy));
    assert!(end.is_err() || copy.len() == medium.len());

    let (whole, result) = inspected(&medium, 0);
    let (in_pieces, result_of_pieces) = inspected(&medium, seed);
    assert_eq!(result, result_of_pieces);
    assert!(end.is_ok() || result.is_err());
    if result.is_ok() {
        assert_eq!(whole.medium(), in_pieces.medium());
    }
    for set in &whole.medium().sets {
        // Writing settles the texts; from then on nothing changes.
        if let Ok(written) = set.leading.encode()
            && let Ok(again) = Config::decode(&written, 0)
        {
            assert_eq!(again.encode(), Ok(written));
        }
    }
    let loose = &rest[..rest.len().min(20_000)];
    assert_eq!(verified(loose, 0), verified(loose, seed));
    end.is_ok()
}
