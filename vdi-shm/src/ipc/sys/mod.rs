//! The system calls that need `unsafe` or care. One module a platform.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

mod pieces;

#[cfg(not(target_os = "linux"))]
compile_error!("vdi-shm runs on Linux: it needs memfd, futex and sealed descriptors");

#[cfg(not(target_pointer_width = "64"))]
compile_error!("vdi-shm needs 64-bit addresses: segments have up to 4 GiB");
