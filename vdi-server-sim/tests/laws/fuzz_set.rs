//! What the fuzz target `set` asserts, over its seeds, over seeds that were damaged, and over the corpus that is kept in the
//! repository.

use std::path::Path;

use crate::set::seeds::seeds;
use crate::set::{STEP, set as law};
use crate::turn;

#[test]
fn every_seed_gets_where_it_leads() {
    let _turn = turn();
    for (name, bytes) in seeds() {
        let seen = law(&bytes);
        let came = match name.split('-').next().unwrap() {
            "honest" => seen.succeeded == seen.delivered && seen.delivered >= 3 && !seen.aborted,
            "handles" => seen.mapped == 2 && seen.succeeded == 2 && !seen.aborted,
            "device" => seen.delivered == 2 && seen.succeeded == 1 && !seen.aborted,
            "aborted" => seen.delivered == 2 && seen.succeeded == 1 && seen.aborted,
            "dropped" => seen.delivered == 1 && seen.succeeded == 0 && !seen.aborted,
            "grown" => seen.succeeded == 1 && !seen.aborted,
            _ => seen.tampered > 0 && seen.delivered >= 2,
        };
        assert!(came, "{name}: {seen:?}");
    }
}

#[test]
fn the_law_holds_for_damaged_seeds() {
    let _turn = turn();
    let mut random = fastrand::Rng::with_seed(7);
    let seeds = seeds();
    let (mut aborted, mut whole) = (0, 0);
    for (_, seed) in seeds.iter().cycle().take(10 * seeds.len()) {
        let mut bytes = seed.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.splice(at..at, std::iter::repeat_with(|| random.u8(..)).take(STEP))),
                _ => {
                    let other = &seeds[random.usize(..seeds.len())].1;
                    bytes.extend_from_slice(&other[STEP..]);
                }
            }
        }
        let seen = law(&bytes);
        aborted += u32::from(seen.aborted);
        whole += u32::from(!seen.aborted);
    }
    assert!(aborted > 20 && whole > 20, "{aborted} aborted, {whole} whole");
}

#[test]
fn the_law_holds_for_the_corpus() {
    let _turn = turn();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/set");
    let mut ran = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        law(&std::fs::read(entry.unwrap().path()).unwrap());
        ran += 1;
    }
    assert!(ran > 0, "{} is empty", folder.display());
}

#[test]
fn seeds_are_written_where_wanted() {
    let _turn = turn();
    let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") else { return };
    let folder = Path::new(&folder).join("set");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in seeds() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
