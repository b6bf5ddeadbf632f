//! A process that joined a set legitimately and then breaks every rule, and those who have to bear it.

// Every test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod case;
pub(crate) mod cast;
pub(crate) mod honest;
pub(crate) mod raider;
pub(crate) mod words;
