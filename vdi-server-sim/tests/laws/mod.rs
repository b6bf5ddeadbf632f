//! Laws: functions that take any input at all and panic where the crate breaks a rule. The tests here run them on
//! chosen and on random inputs, the fuzz targets on everything that libFuzzer thinks of. Each answers whether the input
//! was taken for what it ought to be, so that a seed which is not can be told from one that is.

// Each test and each fuzz target takes what it needs.
#![allow(dead_code)]

pub(crate) mod fault;
pub(crate) mod options;
pub(crate) mod script;
pub(crate) mod seeds;
pub(crate) mod statement;
pub(crate) mod stream;
