//! Kinds of devices and their media: what clients answer, errors of devices, full disks, snapshots, the pump.

#[path = "../common/mod.rs"]
mod common;

mod writer;

mod clients;
mod device_errors;
mod devices;
mod disk;
mod freeze;
mod pumping;
mod snapshot;
