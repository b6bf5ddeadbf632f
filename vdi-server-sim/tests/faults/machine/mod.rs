//! Faults of the machine, by what fails.

mod calls;
mod clock;
mod databases;
mod joining;
mod limits;
mod media;
pub(crate) mod trial;
