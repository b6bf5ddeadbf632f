//! A process that joined a set legitimately and then breaks every rule, and those who have to bear it.

pub(crate) mod case;
pub(crate) mod cast;
pub(crate) mod honest;
pub(crate) mod raider;
pub(crate) mod words;
