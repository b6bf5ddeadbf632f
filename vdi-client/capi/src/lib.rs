//! The C interface to `vdi-client`: for C, and for every language that can call C.
//!
//! What C sees is `include/vdi_c.h`, which is made from this crate; its beginning says what holds for all functions. This
//! crate is only a translation: the rules are those of `vdi-client`.
//!
//! # Invariants
//!
//! 1. No object is known to C by its address: a pointer to one is a number, looked up in a registry. NULL, freed, foreign
//!    and mistaken pointers are VD_E_INVALID.
//! 2. Nothing unwinds into C: a panic is VD_E_UNEXPECTED.
//! 3. Every command that C got is held here until it is completed, once, or its device is freed. Its buffer stays mapped
//!    until then, whatever becomes of the set.
//! 4. `unsafe` is only what reads and writes at the pointers of a caller, and what asks the system to hold a signal back.
//! 5. What a fork inherited is not found there: only the process that made an object uses and ends it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | what C sees of objects, configurations and commands |
//! | [`set`], [`buffers`], [`device`], [`errors`] | the functions |
//! | [`constants`] | the numbers |

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the numbers of objects must not be addresses of the program: this needs 64-bit pointers");

mod boundary;
pub mod buffers;
pub mod constants;
pub mod device;
pub mod errors;
mod registry;
pub mod set;
mod signals;
pub mod types;
