//! Sessions: batches of T-SQL for an [`Engine`], one after the other, and what lasts between them.
//!
//! The programs `vdi-sim sql` and `sqlcmd` are faces of this module: they read texts and options, and write what the [`Output`] gets.
//!
//! ```
//! use vdi_server_sim::engine::{Cancel, Engine};
//! use vdi_server_sim::session::Answer;
//! use vdi_server_sim::types::{Parameter, Value};
//! use vdi_server_sim::vds::Options;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let data = tempfile::tempdir()?;
//! let engine = Engine::new(data.path(), Options::default())?;
//! let mut session = engine.session();
//!
//! let mut answer = Answer::default();
//! session.batch("CREATE DATABASE sales; USE sales; SELECT 5 AS five", &[], &mut answer, &Cancel::new())?;
//! assert_eq!(answer.messages[0].text, "Changed database context to 'sales'.");
//! assert_eq!(answer.results[0].rows, [[Value::Int(5)]]);
//! assert_eq!(session.database(), "sales");
//!
//! // No client has created this set.
//! let device = Parameter::new("@device", Value::Text("nightly".to_owned()));
//! let mut answer = Answer::default();
//! let backup = "BACKUP DATABASE sales TO VIRTUAL_DEVICE = @device";
//! session.batch(backup, &[device], &mut answer, &Cancel::new()).unwrap_err();
//! assert_eq!((answer.messages[0].number, answer.done[0].failed), (3201, true));
//! # Ok(()) }
//! ```
//!
//! # Invariants
//!
//! 1. A batch is understood as a whole before its first statement begins. What cannot be understood is refused, and nothing of it
//!    runs.
//! 2. The [`Output`] gets the answers in the order that is written there, from the thread that called [`Session::batch`].
//! 3. A statement that fails does not end the batch, but a USE that fails does, as with SQL Server.
//! 4. A session is usable after any batch, whether it was refused, failed or was cancelled. What its statements changed before
//!    that stays: the database, the transactions, SET.
//! 5. A cancel ends the BACKUP or RESTORE that runs ([`Cancel`] says how), and no statement begins after it. A batch that is
//!    cancelled before it begins still begins a BACKUP or RESTORE in its first place, which answers 3204 and touches no set.
//! 6. Parameters are variables of their batch only.
//! 7. Sessions of one engine do not see each other, and may run at the same time.

mod databases;
mod output;
#[cfg(test)]
mod tests;

pub use output::{Answer, Done, Output, ResultSet};

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use thiserror::Error;

use crate::engine::{Cancel, Engine, Failure, Report, Summary};
use crate::messages::Message;
use crate::storage::DataFolder;
use crate::tsql::{self, Action, Inspection, Refusal, Selected, Statement, Step};
use crate::types::{Column, Parameter, SqlType, Value};

/// One client's session with the server, made by [`Engine::session`]. To reset it, make a new one.
#[derive(Debug)]
pub struct Session<'engine> {
    engine: &'engine Engine,
    database: String,
    /// Transactions that were begun and not ended.
    transactions: u32,
    /// NOCOUNT is off.
    count_rows: bool,
}

/// Why a batch failed. The [`Output`] has got the messages.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It cannot be understood, and nothing of it has run.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A BACKUP or RESTORE failed; or the batch was cancelled ([`Failure::Cancelled`]).
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A statement other than BACKUP and RESTORE failed, or one of these within a transaction. The message is the first one of the error:
    /// 226, 574, 911, 942, 1801, 3021, 3701, 3702, 3902, 3903, 5011 or 5061, for example.
    #[error("{}", message.text)]
    State {
        /// The first message to the client.
        message: Message,
    },
}

/// Gives what a statement answers to the output. The engine knows nothing of the statement's place in the batch.
struct Relay<'a> {
    out: &'a mut dyn Output,
    line: u32,
    cancel: &'a Cancel,
    /// Rows of the result set, once it has begun.
    rows: Option<u64>,
    /// The percents so far, where messages 3211 are not the statement's wish, but the output's.
    percent: Option<u8>,
    /// The output's panic. It gets nothing more.
    panic: Option<Box<dyn std::any::Any + Send>>,
}

impl Relay<'_> {
    fn give(&mut self, call: impl FnOnce(&mut dyn Output)) {
        if self.panic.is_none() {
            let taken = catch_unwind(AssertUnwindSafe(|| call(self.out)));
            // The threads of the statement would wait for this one for ever.
            self.panic = taken.inspect_err(|_| self.cancel.cancel()).err();
        }
    }
}

impl Report for Relay<'_> {
    fn message(&mut self, message: Message) {
        match &mut self.percent {
            Some(percent) if message.number == PROGRESS => {
                // One comes for each percent.
                *percent = percent.saturating_add(1);
                let percent = *percent;
                self.give(|out| out.progress(percent));
            }
            _ => {
                let message = message.at_line(self.line);
                self.give(|out| out.message(message));
            }
        }
    }

    fn columns(&mut self, columns: &[Column]) {
        self.rows = Some(0);
        self.give(|out| out.columns(columns));
    }

    fn row(&mut self, row: Vec<Value>) {
        self.rows = self.rows.map(|rows| rows + 1);
        self.give(|out| out.row(row));
    }
}

/// The number of the messages that STATS asks for.
const PROGRESS: u32 = 3211;

/// The statement with a message for each percent; `None` if it asks for messages itself, or moves no data.
fn with_stats(statement: &Statement) -> Option<Statement> {
    let mut statement = statement.clone();
    let stats = match &mut statement {
        Statement::Backup(backup) => &mut backup.options.stats,
        Statement::Restore(restore) => &mut restore.options.stats,
        Statement::Inspect(inspect) if inspect.what == Inspection::Verify => &mut inspect.options.stats,
        Statement::Inspect(_) => return None,
    };
    stats.replace(1).is_none().then_some(statement)
}

/// What a statement of a batch came to.
#[derive(Default)]
struct Outcome {
    rows: Option<u64>,
    summary: Option<Summary>,
}

impl Engine {
    /// A new session: its database is `master`, no transaction is open, NOCOUNT is off.
    #[must_use]
    pub fn session(&self) -> Session<'_> {
        Session { engine: self, database: "master".to_owned(), transactions: 0, count_rows: true }
    }
}

impl Session<'_> {
    /// The current database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Transactions that were begun and not ended, as `@@TRANCOUNT` counts them.
    #[must_use]
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Makes a database the current one, as USE and a login do.
    ///
    /// # Errors
    /// [`BatchError::State`] with message 911: it is neither in the catalog nor a system database; 942: it is OFFLINE; 927 or 945: it
    /// cannot be used in its state. The current database stays.
    pub fn use_database(&mut self, name: &str) -> Result<(), BatchError> {
        let usable = databases::usable(self.engine.folder(), name);
        self.database = usable.map_err(|message| BatchError::State { message })?;
        Ok(())
    }

    /// Runs a batch. `out` gets the answers; `cancel` ends the batch from any thread.
    ///
    /// Variables in the text have the values of `parameters`. In BACKUP and RESTORE they may stand for the names of databases and devices
    /// and the texts and numbers of options.
    ///
    /// # Errors
    /// [`BatchError`] of the first statement that failed, after its messages. The statements behind it have run, unless it was
    /// USE or the batch was cancelled or refused as a whole.
    pub fn batch(
        &mut self,
        sql: &str,
        parameters: &[Parameter],
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<(), BatchError> {
        let steps = tsql::parse_batch(sql, parameters)
            .inspect_err(|refusal| refusal.messages().into_iter().for_each(|message| out.message(message)))?;
        let mut batch = Ok(());
        for (index, Step { line, action }) in steps.iter().enumerate() {
            let answers_itself = index == 0 && matches!(action, Action::Statement(_));
            if cancel.is_cancelled() && !answers_itself {
                return batch.and(Err(Failure::Cancelled.into()));
            }
            let outcome = self.step(*line, action, out, cancel);
            let (failed, Outcome { rows, summary }) = match outcome {
                Ok(outcome) => (false, outcome),
                Err(error) => {
                    batch = batch.and(Err(error));
                    (true, Outcome::default())
                }
            };
            let rows = rows.filter(|_| self.count_rows);
            out.done(Done { failed, rows, in_transaction: self.transactions > 0, summary });
            if failed && matches!(action, Action::Use(_)) {
                break;
            }
        }
        batch
    }

    fn step(
        &mut self,
        line: u32,
        action: &Action,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, BatchError> {
        let refused = |out: &mut dyn Output, message: Message| {
            let message = message.at_line(line);
            out.message(message.clone());
            Err(BatchError::State { message })
        };
        match action {
            Action::Statement(statement) if self.transactions > 0 => {
                let refused = refused(out, Message::within_transaction());
                let remedy = "a transaction is open: end it by COMMIT or ROLLBACK before the statement";
                for message in [Message::own_information(remedy), Message::terminating(statement.title())] {
                    out.message(message.at_line(line));
                }
                return refused;
            }
            Action::Statement(statement) => return self.statement(line, statement, out, cancel),
            Action::Create(statement) => {
                let refusal = Message::not_in_transaction("CREATE DATABASE");
                return self.change(line, out, refusal, |folder| databases::create(folder, statement));
            }
            Action::Alter(statement) => {
                let refusal = Message::not_in_transaction("ALTER DATABASE");
                return self.change(line, out, refusal, |folder| databases::alter(folder, statement, &self.database));
            }
            Action::Drop(statement) => {
                let refusal = Message::not_in_user_transaction("DROP DATABASE");
                return self.change(line, out, refusal, |folder| databases::remove(folder, statement, &self.database));
            }
            Action::Use(database) => match self.use_database(database) {
                Ok(()) => out.message(Message::changed_database(&self.database).at_line(line)),
                Err(BatchError::State { message }) => return refused(out, message),
                Err(error) => return Err(error),
            },
            Action::Set => {}
            Action::CountRows(count) => self.count_rows = *count,
            Action::Begin => self.transactions = self.transactions.saturating_add(1),
            Action::Commit if self.transactions > 0 => self.transactions -= 1,
            Action::Commit => return refused(out, Message::commit_without_begin()),
            Action::Rollback if self.transactions > 0 => self.transactions = 0,
            Action::Rollback => return refused(out, Message::rollback_without_begin()),
            Action::Print(text) => out.message(Message::new(0, 0, &**text).at_line(line)),
            Action::Select { value, column } => {
                let (sql_type, value) = self.selected(value);
                out.columns(&[Column { name: column.clone(), sql_type, nullable: false }]);
                out.row(vec![value]);
                return Ok(Outcome { rows: Some(1), summary: None });
            }
        }
        Ok(Outcome::default())
    }

    /// CREATE, ALTER or DROP DATABASE: the messages of `change`, or `refusal` within a transaction.
    fn change(
        &self,
        line: u32,
        out: &mut dyn Output,
        refusal: Message,
        change: impl FnOnce(&DataFolder) -> Result<Vec<Message>, Vec<Message>>,
    ) -> Result<Outcome, BatchError> {
        let done = if self.transactions > 0 { Err(vec![refusal]) } else { change(self.engine.folder()) };
        let (Ok(messages) | Err(messages)) = &done;
        messages.iter().for_each(|message| out.message(message.clone().at_line(line)));
        match done {
            Ok(_) => Ok(Outcome::default()),
            // There is at least one.
            Err(errors) => errors.into_iter().next().map_or_else(
                || Ok(Outcome::default()),
                |message| Err(BatchError::State { message: message.at_line(line) }),
            ),
        }
    }

    fn statement(
        &self,
        line: u32,
        statement: &Statement,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, BatchError> {
        let wanted = out.wants_progress().then(|| with_stats(statement)).flatten();
        let percent = wanted.as_ref().map(|_| 0);
        let mut relay = Relay { out, line, cancel, rows: None, percent, panic: None };
        let executed = self.engine.execute(wanted.as_ref().unwrap_or(statement), cancel, &mut relay);
        if let Some(panic) = relay.panic {
            resume_unwind(panic);
        }
        Ok(Outcome { rows: relay.rows, summary: executed? })
    }

    fn selected(&self, value: &Selected) -> (SqlType, Value) {
        match value {
            Selected::Literal(sql_type, value) => (*sql_type, value.clone()),
            // Agents take the build number from behind the first hyphen.
            Selected::Version => {
                let version =
                    format!("Microsoft SQL Server (simulated) - 16.0.0.0 (X64), vdi-sim {}", env!("CARGO_PKG_VERSION"));
                (SqlType::NVarChar { length: Some(300) }, Value::Text(version))
            }
            Selected::ServerName => (SqlType::NVarChar { length: Some(128) }, Value::Text(self.engine.server_name())),
        }
    }
}
