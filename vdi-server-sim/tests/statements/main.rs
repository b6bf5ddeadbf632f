//! Statements and the programs that a user runs: `vdi-sim sql`, `sqlcmd`, the demo, the examples, transcripts, the READMEs.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod cancel;
mod demo;
mod examples;
mod numbers;
mod readers;
mod readme;
mod real;
mod reasons;
mod session;
mod session_model;
mod sqlcmd;
mod statements;
mod tracing;
mod views;
mod written;
mod written_bytes;
