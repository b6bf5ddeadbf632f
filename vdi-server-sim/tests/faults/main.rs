//! Faults: of the server, of a member that writes what it must not, of the machine, and the death of each process.
//!
//! How much the random tests do is set by variables; without them they run for seconds.
//!
//! | module | variables |
//! |---|---|
//! | [`faults_seeds`] | `VDI_FAULT_SEEDS`, `VDI_FAULT_FIRST_SEED` |
//! | [`hostile_peer`] | `VDI_HOSTILE_SETS`, `VDI_HOSTILE_FIRST_SEED` |
//! | [`kill_rounds`] | `VDI_KILL_ROUNDS`, `VDI_KILL_FIRST_SEED` |
//! | [`machine_faults`] | `VDI_MACHINE_FAULTS=all` |
//! | [`soak`] | `VDI_SOAK_SECONDS`, `VDI_SOAK_SEED` |
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod hostile;
mod machine;
mod soaking;

mod faults;
mod faults_seeds;
mod hostile_peer;
mod kill_rounds;
mod kills;
mod machine_faults;
mod scribbles;
mod soak;
