//! BACKUP and RESTORE WITH SNAPSHOT: the client copies the files itself, and puts them back itself. Only what describes them goes
//! through the device.
//!
//! ```text
//! backup:   label; PrepareToFreeze*; [FileInfoBegin*; list of the files; FileInfoEnd*; sums; set; Snapshot] Complete*; close
//! restore:  label, set; [MountSnapshot; the files are compared with the sums] close
//!           []: the database is frozen     *: where the client asked for it
//! ```
//!
//! The module `snapshot_sums` says where the sums are in the stream, and what a restore does about the list of the files.
//!
//! Source: VDI specification, "Snapshot Backup": one device only; metadata is complete when Snapshot comes; writes to the database
//! are suspended until it completes; nothing but close follows. For the rest see `docs/decisions.md`.
//!
//! # Invariants
//!
//! 1. From before the checksums are taken until Snapshot has completed, no process writes to the database.
//! 2. The database is thawed as soon as Snapshot has completed, and on every failure: also when the set is aborted while the
//!    client holds the command, and when this process dies (see [`Frozen`](crate::storage::Frozen)).
//! 3. A restore succeeds only if the files have the lengths and sums of the backup, or, without sums, pages that are sound. Until the
//!    catalog has the new database, no process writes to the old one. What the client puts there is not undone by a failure.
//! 4. Before MountSnapshot the restore has read the stream to its end, knows where the files are to be, and nothing has changed.

mod backup;
mod restore;

use crossbeam::channel::bounded;

use super::operation::Operation;
pub(super) use backup::run as backup;
pub(super) use restore::run as restore;

/// Does what is to be done with the device in a thread of its own, and waits until it is through, or all is over.
fn through<'scope>(
    operation: &'scope Operation,
    scope: &'scope std::thread::Scope<'scope, '_>,
    run: impl FnOnce() + Send + 'scope,
) {
    let (end, ended) = bounded::<()>(0);
    operation.spawn(scope, move || {
        run();
        drop(end);
    });
    // Nothing comes but the end.
    let _ = operation.receive(&ended);
}
