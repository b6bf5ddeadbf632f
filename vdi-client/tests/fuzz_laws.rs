//! What the fuzz targets of this crate assert, over their seeds, over seeds that were damaged, and over the corpora that are
//! kept in the repository. Where the environment variable `VDI_FUZZ_SEEDS` names a folder, the seeds are written there, in a
//! folder a target.
#![allow(clippy::unwrap_used)]

// Each fuzz target takes what it needs.
#[allow(dead_code)]
mod laws {
    pub(crate) mod tape;
    pub(crate) mod worker;
}

use std::path::Path;

use proptest::prelude::*;

/// A name, and the input.
type Seed = (String, Vec<u8>);
/// Whether it took the input.
type Law = fn(&[u8]) -> bool;

/// The targets by the names of their files: seeds, and the law.
fn targets() -> Vec<(&'static str, Vec<Seed>, Law)> {
    vec![("tape", laws::tape::seeds(), laws::tape::tape), ("worker", laws::worker::seeds(), laws::worker::worker)]
}

#[test]
fn every_seed_is_taken() {
    for (target, seeds, law) in targets() {
        for (name, bytes) in seeds {
            assert!(law(&bytes), "{target}: {name}");
        }
    }
}

proptest! {
    #[test]
    fn the_laws_hold_for_damaged_seeds(
        (which, at) in any::<(prop::sample::Index, prop::sample::Index)>(),
        (cut, bytes) in (0..6usize, prop::collection::vec(any::<u8>(), 0..6)),
    ) {
        for (_, seeds, law) in targets() {
            let mut damaged = which.get(&seeds).1.clone();
            let at = at.index(damaged.len());
            let end = damaged.len().min(at + cut);
            damaged.splice(at..end, bytes.clone());
            law(&damaged);
        }
    }
}

#[test]
fn the_laws_hold_for_the_corpora() {
    for (target, _, law) in targets() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut ran = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            law(&std::fs::read(entry.unwrap().path()).unwrap());
            ran += 1;
        }
        assert!(ran > 0, "{} is empty", folder.display());
    }
}

#[test]
fn seeds_are_written_where_wanted() {
    let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") else { return };
    for (target, seeds, _) in targets() {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}
