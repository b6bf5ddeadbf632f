//! Kinds of devices and their media: what clients answer, errors of devices, full disks, snapshots, the pump.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod gated;
mod writer;

mod clients;
mod device_errors;
mod devices;
mod disk;
mod freeze;
mod in_use;
mod inspections;
mod locks;
mod pumping;
mod serving;
mod snapshot;
