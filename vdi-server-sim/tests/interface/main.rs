//! The two interfaces call by call: names, configurations, codes, handles, joining, and sharing a set among processes.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod errors;
mod handles;
mod misuse;
mod names_and_config;
mod regressions;
mod server_interface;
mod sharing;
