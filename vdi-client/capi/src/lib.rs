// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[..]: ../vdi_client/index.html"]
#![doc = "[../sqlvdi]: ../sqlvdi/index.html"]
#![doc = "[examples/agent.c]: docs::examples#c"]
#![doc = "[examples/agent.py]: docs::examples#python"]
#![doc = "[../../vdi-shm/docs/runtime-directory.md#root-beside-a-service-user]: ../vdi_shm/docs/runtime_directory/index.html#root-beside-a-service-user"]
#![doc = "[vdi_c.pc]: docs::pkg_config"]
#![doc = "[include/vdi_c.h]: docs::header"]
#![doc = include_str!("../README.md")]
//! # The implementation
//!
//! What C sees is `include/vdi_c.h`, which is made from this crate. Its beginning says what holds for all functions;
//! its paragraph "MEMORY" is the contract of every `unsafe` function here. The rules of the interface are those of
//! `vdi-client`.
//!
//! # Invariants
//!
//! 1. C knows no object by its address: a pointer to one is a number, looked up in a registry ([`vdi_ffi::registry`]).
//!    NULL, freed, foreign and mistaken pointers are VD_E_INVALID.
//! 2. Nothing unwinds into C: a panic is VD_E_UNEXPECTED ([`vdi_ffi::call`](mod@vdi_ffi::call)).
//! 3. A command that C got is outstanding until it is completed, once, or its device is freed. Its buffer stays mapped
//!    until then, also when the set is closed.
//! 4. `unsafe` is only what makes an argument of a caller's pointer ([`vdi_ffi::Argument`]).
//! 5. A fork does not find what it inherited: only the process that made an object uses and ends it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | what C sees of objects, configurations and commands |
//! | [`set`], [`buffers`], [`device`], [`errors`] | the functions |
//! | [`constants`] | the numbers |
// Each would say what the header's paragraph "MEMORY" says of all.
#![allow(clippy::missing_safety_doc)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the numbers of objects must not be addresses of the program: this needs 64-bit pointers");

pub mod buffers;
pub mod constants;
pub mod device;
#[cfg(doc)]
pub mod docs;
pub mod errors;
mod objects;
pub mod set;
pub mod types;
