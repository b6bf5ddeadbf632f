//! What the fuzz target `control` asserts, over its seeds, over damaged seeds, and over the corpus in the repository. Where
//! the variable `VDI_FUZZ_SEEDS` names a folder, the seeds are written there.
#![allow(clippy::unwrap_used)]

#[path = "laws/control.rs"]
mod control;

use std::path::Path;

use control::{control as law, seeds};
use proptest::prelude::*;

#[test]
fn every_seed_is_taken() {
    for (name, bytes) in seeds() {
        // The identity was overwritten.
        let damaged = ["write-00", "zero-6"].contains(&&*name);
        assert_eq!(law(&bytes), !damaged, "{name}");
    }
}

proptest! {
    #[test]
    fn the_law_holds_for_damaged_seeds(
        which in any::<prop::sample::Index>(),
        steps in prop::collection::vec(any::<[u8; control::STEP]>(), 1..20),
    ) {
        let seeds = seeds();
        let mut bytes = which.get(&seeds).1.clone();
        bytes.extend(steps.concat());
        law(&bytes);
    }
}

#[test]
fn the_law_holds_for_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/control");
    let mut ran = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        law(&std::fs::read(entry.unwrap().path()).unwrap());
        ran += 1;
    }
    assert!(ran > 0, "{} is empty", folder.display());
}

#[test]
fn seeds_are_written_where_wanted() {
    let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") else { return };
    let folder = Path::new(&folder).join("control");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in seeds() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
