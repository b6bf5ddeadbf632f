//! Where the answers of a batch go.

use crate::engine::Summary;
use crate::messages::Message;
use crate::types::{Column, Value};

/// Takes what a batch answers, in the order in which it arises.
///
/// # Order
///
/// ```text
/// batch      := refusal | {statement}
/// refusal    := message {message}
/// statement  := {message} [result set] done
/// result set := columns {row | message}
/// ```
///
/// A batch that is refused as a whole has messages only. A statement that has begun has exactly one `done`, whether it succeeds or
/// fails. A row has one value for each column, of the column's type. The end of the batch is the return of
/// [`Session::batch`](super::Session::batch).
///
/// # What an implementation may do
///
/// All calls come from the thread that called `batch`. A call that takes long delays the steps of the statement, not the data that
/// its devices are moving. A call cannot fail: an implementation whose reader is gone drops what comes, or ends the statement by
/// [`Cancel::cancel`](crate::engine::Cancel::cancel), which it may call from here. A panic cancels the statement, too, and goes on in the
/// caller of `batch` when the statement is over.
pub trait Output {
    /// A message. Its line is that of the batch.
    fn message(&mut self, message: Message);
    /// A result set begins.
    fn columns(&mut self, columns: &[Column]);
    /// The next row of the result set.
    fn row(&mut self, row: Vec<Value>);
    /// The statement is over.
    fn done(&mut self, done: Done);
    /// Whether [`progress`](Self::progress) is wanted. Asked before each BACKUP, RESTORE and VERIFYONLY.
    fn wants_progress(&self) -> bool {
        false
    }
    /// So many percent of the statement are done, 1 to 100 and ascending. It comes between the messages of a statement without STATS; of
    /// one with STATS its messages 3211 say the same.
    fn progress(&mut self, percent: u8) {
        let _ = percent;
    }
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// Whether it failed.
    pub failed: bool,
    /// Rows of its result set; `None` where it has none, or NOCOUNT is on.
    pub rows: Option<u64>,
    /// Whether a transaction is open behind it.
    pub in_transaction: bool,
    /// What a BACKUP or RESTORE did; `None` of other statements, and where it failed.
    pub summary: Option<Summary>,
}

/// A result set as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, of a value for each column.
    pub rows: Vec<Vec<Value>>,
}

/// Keeps all that is answered, for programs that look at it afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The messages.
    pub messages: Vec<Message>,
    /// The result sets.
    pub results: Vec<ResultSet>,
    /// How each statement ended.
    pub done: Vec<Done>,
}

impl Answer {
    /// What the last BACKUP or RESTORE that succeeded did.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        self.done.iter().rev().find_map(|done| done.summary)
    }
}

impl Output for Answer {
    fn message(&mut self, message: Message) {
        self.messages.push(message);
    }

    fn columns(&mut self, columns: &[Column]) {
        self.results.push(ResultSet { columns: columns.to_vec(), rows: Vec::new() });
    }

    fn row(&mut self, row: Vec<Value>) {
        if let Some(result) = self.results.last_mut() {
            result.rows.push(row);
        }
    }

    fn done(&mut self, done: Done) {
        self.done.push(done);
    }
}
