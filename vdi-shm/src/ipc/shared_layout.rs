//! The types that may lie in memory that another process can write.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Types that may lie in memory that another process can write.
///
/// # Safety
/// The type is `repr(C)` and consists of atomics, or of arrays and structs of such. So any bytes are a valid value, and
/// a concurrent write by another process is no data race. It needs no drop.
pub unsafe trait SharedLayout: Send + Sync {}

// SAFETY: an atomic; any bytes are valid.
unsafe impl SharedLayout for AtomicU32 {}
// SAFETY: an atomic; any bytes are valid.
unsafe impl SharedLayout for AtomicU64 {}
// SAFETY: an array adds nothing to the layout of its elements.
unsafe impl<T: SharedLayout, const N: usize> SharedLayout for [T; N] {}
