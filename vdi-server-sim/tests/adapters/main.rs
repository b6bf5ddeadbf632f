//! The client's other faces: the C interface, the drop-in library for C++ programs, and SQL Server's library as a back end.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod agent_targets;
mod c_interface;
mod dropin;
mod other_users;
mod sqlserver;
mod sqlserver_libraries;
