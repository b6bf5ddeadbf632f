//! Laws: functions that take any input at all and panic where the crate breaks a rule. The tests here run them on
//! chosen and on random inputs, the fuzz targets on everything that libFuzzer thinks of.

// Each test and each fuzz target takes what it needs.
#![allow(dead_code)]

pub(crate) mod bytes;
pub(crate) mod calls;
pub(crate) mod device;
pub(crate) mod seeds;
pub(crate) mod set;
