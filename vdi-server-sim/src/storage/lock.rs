//! Locks of databases, across processes.

/// The right of one statement to a database, until it is dropped: see [`DataFolder::lock`](super::DataFolder::lock).
#[derive(Debug)]
pub struct DatabaseLock {}
