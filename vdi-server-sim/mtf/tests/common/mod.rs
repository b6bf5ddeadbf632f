//! Real backups, and inputs cut into pieces.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod damage;
pub(crate) mod synthetic;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use vdi_mtf::Error;
use vdi_mtf::parser::{Event, Parser};

/// A real backup. Tests print its name and counts, never its content.
pub(crate) struct Real {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The real backups in the folder that `VDI_REAL_BACKUPS` names, else in `../shared/data` beside the workspace.
/// Says that the test is skipped where there are none.
pub(crate) fn real_backups(test: &str) -> Vec<Real> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/data"));
    let beside = folders.into_iter().find(|folder| folder.is_dir()).unwrap_or_default();
    let root = std::env::var_os("VDI_REAL_BACKUPS").map_or(beside, PathBuf::from);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if matches!(extension, "bak" | "trn") {
                let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
                found.push(Real { name, bytes: std::fs::read(&path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        // Not captured by the test harness.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED {test}: no real backups; VDI_REAL_BACKUPS names a folder with some");
    }
    found
}

/// Numbers that depend on a seed only.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit.max(1)
    }
}

/// Gives `bytes` in pieces of random sizes, mostly small ones, to a parser, and each event to `each`.
pub(crate) fn parse_in_pieces(bytes: &[u8], seed: u64, mut each: impl FnMut(&Event<'_>)) -> Result<(), Error> {
    let mut random = Random(seed | 1);
    let mut parser = Parser::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = [1, 7, 60, 700, 5000, 70_000, 1_000_000][random.below(7)];
        let (mut piece, left) = rest.split_at((1 + random.below(most)).min(rest.len()));
        rest = left;
        while let Some(event) = parser.next(&mut piece)? {
            each(&event);
        }
        assert!(piece.is_empty(), "the parser asks for more and leaves bytes");
    }
    while let Some(event) = parser.next(&mut &[][..])? {
        each(&event);
    }
    parser.finish()
}

/// Parses the whole input in one piece.
pub(crate) fn parse(bytes: &[u8]) -> Result<(), Error> {
    let (mut parser, mut input) = (Parser::new(), bytes);
    while parser.next(&mut input)?.is_some() {}
    parser.finish()
}
