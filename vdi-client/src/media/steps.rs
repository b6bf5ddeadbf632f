//! The steps on the way to a committed backup. Tests watch them, have them fail, and kill the process between them.

#[cfg(not(test))]
use std::io;

#[cfg(test)]
pub(super) use super::tests::checkpoint;

/// A step that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Write,
    /// Of a volume set: a file for another medium.
    AddFile,
    SyncFile,
    /// Of a volume set: the hidden directory.
    Stage,
    Link,
    /// Of a volume set: the hidden directory becomes durable.
    SyncStage,
    Rename,
    SyncDirectory,
    /// Of a volume set: a file of the old one, or of one that failed, is removed. Tests are killed here, nothing fails.
    Remove,
}

#[cfg(not(test))]
#[inline]
pub(super) fn checkpoint(_step: Step) -> io::Result<()> {
    Ok(())
}
