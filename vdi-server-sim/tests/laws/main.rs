//! Laws: functions that take any input at all and panic where the crate breaks a rule. The tests here run them on
//! chosen and on random inputs, the fuzz targets on everything that libFuzzer thinks of. Each answers whether the input
//! was taken for what it ought to be, so that a seed which is not can be told from one that is.

// Each test and each fuzz target takes what it needs.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

mod fault;
mod options;
mod script;
mod seeds;
mod set;
mod statement;

mod fuzz_laws;
mod fuzz_set;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests of this process take turns: the law of a set counts the process's descriptors and mappings.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
