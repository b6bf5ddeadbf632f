//! A whole client against a server over shared memory, and a member that writes into it whatever it likes.
//!
//! One thread plays all parts, in steps that the input chooses: the server, the primary, a secondary, and the *intruder*, who
//! joins as any secondary does and then writes over the control segment, forges what bears seals, and talks nonsense. No
//! call of a step waits for another step.
//!
//! # The laws
//!
//! 1. No call panics or hangs, and each fails only with the codes that it is documented to fail with.
//! 2. Every command that was given to the server ends in exactly one call of its routine, whatever anybody wrote.
//! 3. No two buffers that one process holds have a byte in common.
//! 4. While the intruder has done nothing, commands arrive once, in their order and with their bytes, and end as the client
//!    completed them, or as aborted.
//! 5. When all is dropped, nothing is left: no descriptor, no mapping, no socket.

// Each test and each fuzz target takes what it needs.
#![allow(dead_code)]

mod intruder;
mod ledger;
pub(crate) mod seeds;
mod world;

use world::World;

/// What a run came across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Commands that the client got.
    pub(crate) delivered: usize,
    /// Commands whose routine ran with a success.
    pub(crate) succeeded: usize,
    /// Buffers mapped by their handles.
    pub(crate) mapped: usize,
    /// Acts of the intruder.
    pub(crate) tampered: usize,
    /// The set was aborted.
    pub(crate) aborted: bool,
}

/// The most steps of a run.
const MOST: usize = 250;

/// The bytes of a step.
pub(crate) const STEP: usize = 4;

/// Plays the input: four bytes for the set ([`world::Shape`]), then steps of four bytes each: what is done, and three
/// numbers that say to what.
pub(crate) fn set(bytes: &[u8]) -> Seen {
    let before = census();
    let folder = tempfile::Builder::new().prefix("vdi-law-").tempdir().expect("a folder");
    let (shape, steps) = bytes.split_first_chunk::<4>().map_or((&[0; 4], &[][..]), |split| split);
    let mut world = World::new(folder.path(), *shape);
    for step in steps.as_chunks::<STEP>().0.iter().take(MOST) {
        world.step(*step);
    }
    let last = steps.last().copied().unwrap_or_default();
    let seen = world.end(last);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".vdi")), "left behind: {left:?}");
    drop(folder);
    let after = census();
    assert!(after.0 <= before.0 && after.1 <= before.1, "descriptors and mappings: {before:?} before, {after:?} after");
    seen
}

/// Descriptors, and mappings of sets, of this process.
fn census() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings");
    (std::fs::read_dir("/proc/self/fd").expect("the descriptors").count(), maps.matches("memfd:vdi-").count())
}
