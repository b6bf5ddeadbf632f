//! Memory that processes share, and how they find and wake each other.
#![deny(unsafe_code)]

pub mod ipc;

#[cfg(all(test, loom))]
mod loom_tests;
