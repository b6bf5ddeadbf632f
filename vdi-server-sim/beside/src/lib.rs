//! Virtual device sets beside the raw limits of the machine, and beside every other way to do the same: what the programs of
//! this package have in common.
//!
//! `beside` asks; *drivers* measure, and each starts the *peer* that it talks to. All three are this program, in processes of
//! their own.

pub mod pollers;
pub mod processes;
pub mod set;
