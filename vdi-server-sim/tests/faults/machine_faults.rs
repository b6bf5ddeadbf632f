//! Faults of the machine: disks that are full or broken, too few descriptors, too little memory, shared memory refused, a clock that
//! jumps, a single CPU. Each ends in success with all that success promises, or in an error on both sides, and loses nothing.
//!
//! System calls are failed by number, each in its turn: a run that nothing disturbs tells how many there are. An ordinary run takes
//! the first and the last of every kind of call; all of them, with each error, take some minutes:
//!
//! ```sh
//! VDI_MACHINE_FAULTS=all cargo test -p vdi-server-sim --test faults -- machine --nocapture
//! ```

use crate::common;
use crate::machine;

#[test]
fn child_entry() {
    common::processes::run_role(&[("machine agent", machine::trial::agent)]);
}
