//! Soak: backups and restores back to back, in two processes that live as long as the run. Nothing of them may grow: no memory, no
//! descriptor, no mapping, no thread, no time per round.
//!
//! ```sh
//! VDI_SOAK_SECONDS=1800 cargo test -p vdi-server-sim --release --test faults -- soak --nocapture
//! ```
//!
//! An ordinary run takes a few seconds. `VDI_SOAK_SEED` gives other rounds.

use crate::common;
use crate::soaking;

use std::time::Duration;

use common::number;
use common::processes::run_role;
use soaking::{Leak, parts, soak};

#[test]
fn child_entry() {
    run_role(&[("soaking agent", parts::agent), ("soaking server", parts::server)]);
}

/// Seconds of an ordinary run, at least.
const SECONDS: u64 = 2;

#[test]
fn nothing_grows_from_round_to_round() {
    let seconds = number("VDI_SOAK_SECONDS", SECONDS);
    let table = soak(Duration::from_secs(seconds), number("VDI_SOAK_SEED", 1), None);
    // Also where the harness captures output: this is what a soak is for.
    eprintln!("{}", table.unwrap_or_else(|found| panic!("{found}")));
}

#[test]
fn a_leaked_descriptor_is_found_at_once() {
    let found = soak(Duration::ZERO, 2, Some(Leak::Descriptor)).unwrap_err();
    assert!(found.contains("descriptors"), "{found}");
}

#[test]
fn a_slow_leak_of_memory_is_found() {
    let found = soak(Duration::ZERO, 3, Some(Leak::Memory)).unwrap_err();
    assert!(found.contains("agent: RssAnon"), "{found}");
}
