//! Laws: functions that take any input and panic if the crate breaks a rule. The tests run them on chosen and on random
//! inputs, the fuzz targets on the inputs of libFuzzer.

// Each test and each fuzz target uses a part.
#![allow(dead_code)]

pub(crate) mod bytes;
pub(crate) mod calls;
pub(crate) mod device;
pub(crate) mod seeds;
pub(crate) mod set;
pub(crate) mod words;
