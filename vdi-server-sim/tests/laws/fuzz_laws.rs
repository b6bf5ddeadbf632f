//! What the fuzz targets of this crate assert, over their seeds, over seeds that were damaged, and over the corpora that are
//! kept in the repository. Where the environment variable `VDI_FUZZ_SEEDS` names a folder, the seeds are written there, in a
//! folder a target.

use std::path::Path;

use crate::seeds::targets;
use crate::turn;

/// How often each seed is damaged.
const ROUNDS: usize = 60;

#[test]
fn every_seed_is_taken() {
    let _turn = turn();
    for (target, seeds, law) in targets() {
        assert!(seeds.len() >= 4, "{target}");
        for (name, bytes) in &seeds {
            assert!(law(bytes), "{target}: {name} is not taken");
            assert!(seeds.iter().filter(|(_, other)| other == bytes).count() == 1, "{target}: {name} is there twice");
        }
    }
}

#[test]
fn the_laws_hold_for_damaged_seeds() {
    let _turn = turn();
    for (target, seeds, law) in targets() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut refused = 0;
        for (_, seed) in seeds.iter().cycle().take(ROUNDS * seeds.len()) {
            let mut bytes = seed.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..=bytes.len());
                match random.u8(..4) {
                    0 => bytes.insert(at, random.u8(..)),
                    1 => bytes.truncate(at),
                    2 => bytes.extend_from_slice(&seed[at.min(seed.len())..]),
                    _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.u8(..)),
                }
            }
            refused += usize::from(!law(&bytes));
        }
        assert!(refused > 0, "{target}: no damage was ever noticed");
    }
}

#[test]
fn the_laws_hold_for_the_corpora() {
    let _turn = turn();
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
    let _turn = turn();
    let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") else { return };
    for (target, seeds, _) in targets() {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &seeds {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}
