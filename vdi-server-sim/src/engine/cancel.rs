//! Cancelling a statement from another thread.
//!
//! # Invariants
//!
//! 1. A cancelled statement has one of two ends. Either it fails with [`Failure::Cancelled`](super::Failure::Cancelled): its set is
//!    aborted for that reason, no device was closed in order, and a restore has changed nothing. Or it had decided before
//!    ([`Operation::decide`](super::operation::Operation::decide)), and the cancel changes nothing, on neither side.
//! 2. A failure that came before the cancel stays the statement's.
//! 3. [`Cancel::cancel`] waits for nothing. It ends every wait of the statement, also one that begins later. One wait is not ended but
//!    limited: a client that has created its set and does not answer the server that joins has ten seconds.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends statements from any thread, as the attention of SQL Server's clients does: Ctrl-C in `sqlcmd`, for example.
///
/// Clones cancel the same statements. A BACKUP or RESTORE that begins after the cancel fails at once, so each batch wants a `Cancel`
/// of its own.
///
/// ```
/// use vdi_server_sim::engine::{Cancel, Engine};
/// use vdi_server_sim::session::Answer;
/// use vdi_server_sim::vds::Options;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = tempfile::tempdir()?;
/// # std::fs::create_dir(data.path().join("sales"))?;
/// # std::fs::write(data.path().join("sales/sales.mdf"), b"123456789")?;
/// let engine = Engine::new(data.path(), Options::default())?;
/// let cancel = Cancel::new();
/// let statement = std::thread::spawn({
///     let cancel = cancel.clone();
///     move || {
///         let sql = "BACKUP DATABASE sales TO VIRTUAL_DEVICE = 'nightly'";
///         engine.session().batch(sql, &[], &mut Answer::default(), &cancel)
///     }
/// });
/// cancel.cancel();
/// assert!(statement.join().unwrap().is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Cancel {
    shared: Arc<Mutex<Shared>>,
}

/// What cancels one statement.
type Hook = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Shared {
    cancelled: bool,
    next: u64,
    statements: Vec<(u64, Hook)>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Cancel {
    /// For statements to come.
    #[must_use]
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Cancels every statement that was given this, now and later. A statement that has taken its last step succeeds all the same.
    pub fn cancel(&self) {
        let hooks: Vec<Hook> = {
            let mut shared = self.shared();
            shared.cancelled = true;
            shared.statements.iter().map(|(_, hook)| Arc::clone(hook)).collect()
        };
        hooks.iter().for_each(|hook| hook());
    }

    /// Whether it was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared().cancelled
    }

    /// Has `hook` called by a cancel, at once if there was one, until what is returned is dropped. The hook may still run then.
    pub(super) fn on_cancel(&self, hook: impl Fn() + Send + Sync + 'static) -> Registered {
        let hook: Hook = Arc::new(hook);
        let (number, cancelled) = {
            let mut shared = self.shared();
            let number = shared.next;
            shared.next += 1;
            shared.statements.push((number, Arc::clone(&hook)));
            (number, shared.cancelled)
        };
        if cancelled {
            hook();
        }
        Registered { cancel: self.clone(), number }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A statement that can be cancelled.
pub(super) struct Registered {
    cancel: Cancel,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancel.shared().statements.retain(|(number, _)| *number != self.number);
    }
}
