//! What the fuzz target of this crate asserts, over its seeds, over seeds that were damaged, and over the corpus that is kept in the
//! repository. Where the environment variable `VDI_FUZZ_SEEDS` names a folder, the seeds are written there.
#![allow(clippy::unwrap_used)]

mod common;
mod laws {
    pub(crate) mod mtf;
}

use std::path::Path;

use common::synthetic::{Shape, append, backup};
use laws::mtf::{compact, mtf};
use proptest::prelude::*;
use vdi_mtf::builder::Builder;
use vdi_mtf::inspector::Inspector;

/// Small backups of every kind of content, and appended sets.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let small = Shape { quiet: true, extents: 1, log_blocks: vec![1], ..Shape::default() };
    let shapes = [
        ("full", small.clone()),
        ("no-checksum-2005", Shape { checksum: false, major: 9, ..small.clone() }),
        ("torn-2008", Shape { torn_bits: true, checksum: false, major: 10, ..small.clone() }),
        ("two-passes", Shape { second_pass: true, ..small.clone() }),
        ("sector-4096", Shape { filemark_len: 4096, files: 2, ..small.clone() }),
        ("fillers", Shape { families: 2, ..small.clone() }),
    ];
    let mut seeds = Vec::new();
    for (name, shape) in shapes {
        for (family, medium) in backup(&shape).media.iter().enumerate() {
            seeds.push((format!("{name}-{family}"), compact(2, medium)));
            seeds.push((format!("{name}-{family}-mended"), compact(5, medium)));
        }
    }
    let mut media = backup(&small).media;
    let mut inspector = Inspector::new();
    inspector.read(&media[0]).unwrap();
    let mut builders = [Builder::append(inspector.medium())];
    append(&small, 2, &mut builders, &mut media);
    seeds.push(("appended".to_owned(), compact(3, &media[0])));
    seeds
}

#[test]
fn every_seed_is_taken() {
    for (name, bytes) in seeds() {
        assert!(bytes.len() <= 16384, "{name}: {} bytes are more than a fuzzer is given", bytes.len());
        assert!(mtf(&bytes), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_for_damaged_seeds(
        (which, at) in any::<(prop::sample::Index, prop::sample::Index)>(),
        (cut, bytes) in (0..6usize, prop::collection::vec(any::<u8>(), 0..6)),
    ) {
        let seeds = seeds();
        let mut damaged = which.get(&seeds).1.clone();
        let at = at.index(damaged.len());
        let end = damaged.len().min(at + cut);
        damaged.splice(at..end, bytes);
        mtf(&damaged);
    }
}

#[test]
fn the_laws_hold_for_the_corpora() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/mtf");
    let mut ran = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        mtf(&std::fs::read(entry.unwrap().path()).unwrap());
        ran += 1;
    }
    assert!(ran > 0, "{} is empty", folder.display());
}

#[test]
fn seeds_are_written_where_wanted() {
    let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") else { return };
    let folder = Path::new(&folder).join("mtf");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in seeds() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
