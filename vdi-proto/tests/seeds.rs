//! The first inputs of the fuzz targets: each is valid for the law of its target. If the environment variable
//! `VDI_FUZZ_SEEDS` names a folder, they are written there, in one folder per target.

#![allow(clippy::unwrap_used)]

mod laws;

use std::collections::BTreeMap;
use std::path::Path;

use laws::seeds::{self, Seed, TARGETS};

fn bytes_for(target: &str) -> Vec<Seed<Vec<u8>>> {
    match target {
        "join_message" => seeds::join_message(),
        "layout" => seeds::layout(),
        "handle" => seeds::handle(),
        "config" => seeds::config(),
        "client_calls" => {
            seeds::client_calls().into_iter().map(|(name, steps)| (name, seeds::encoded(&steps))).collect()
        }
        "server_calls" => {
            seeds::server_calls().into_iter().map(|(name, steps)| (name, seeds::encoded(&steps))).collect()
        }
        other => panic!("no target is called {other}"),
    }
}

type Law = fn(&[u8]) -> bool;

/// The laws over plain bytes.
const LAWS: [(&str, Law); 4] = [
    ("join_message", laws::bytes::join_message),
    ("layout", laws::bytes::layout),
    ("handle", laws::bytes::handle),
    ("config", laws::bytes::config),
];

#[test]
fn laws_hold_for_the_corpora() {
    for (target, law) in LAWS {
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
fn seeds_are_valid() {
    let mut valid = 0;
    for (target, law) in LAWS {
        for (name, bytes) in bytes_for(target) {
            assert!(law(&bytes), "{target}: {name} is not valid");
            valid += 1;
        }
    }
    for (name, steps) in seeds::client_calls() {
        let (calls, held) = laws::calls::client_calls(&steps);
        assert!(calls >= 11 && held >= 4, "client_calls: {name} gets no further than {calls} calls, {held} commands");
        valid += 1;
    }
    for (name, steps) in seeds::server_calls() {
        let (calls, seen) = laws::calls::server_calls(&steps);
        assert!(calls >= 6, "server_calls: {name} gets no further than {calls} calls");
        let came = match name.as_str() {
            "normal" => seen.delivered >= 4,
            "device-error" => seen.unseen == 1 && seen.clear_errors_held == 1 && seen.refused_in_error == 1,
            "queue-full" => seen.queue_full == 6,
            _ => true,
        };
        assert!(came, "server_calls: {name} comes across {seen:?}");
        valid += 1;
    }
    assert_eq!(valid, 15 + 9 + 6 + 8 + 3 + 4);
}

#[test]
fn seeds_are_written_on_request() {
    let mut written = BTreeMap::new();
    for target in TARGETS {
        let seeds = bytes_for(target);
        if let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") {
            let folder = Path::new(&folder).join(target);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &seeds {
                std::fs::write(folder.join(name), bytes).unwrap();
            }
        }
        let distinct: std::collections::BTreeSet<_> = seeds.iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(distinct.len(), seeds.len(), "{target}: two seeds are the same");
        written.insert(target, seeds.len());
    }
    assert!(written.values().all(|count| *count >= 3), "{written:?}");
}
