//! SQL Server's own messages: their numbers, severities and wording.
//!
//! Backup agents watch the message stream of their BACKUP or RESTORE statement: message 3014 is the only proof of success
//! that existing clients look for, and a message above severity 10 is what makes `sqlcmd -b`, ODBC, ADO and SqlClient see
//! a failure. The simulator therefore answers with the numbers, severities and sentences of SQL Server wherever SQL
//! Server has one for the case. What SQL Server has no message for is said under [`OWN_NUMBER`].
//!
//! ```
//! use std::time::Duration;
//! use vdi_server_sim::messages::{Message, Verb};
//!
//! let done = Message::processed(Verb::Backup, 450, Duration::from_millis(46));
//! assert_eq!(done.number, 3014);
//! assert_eq!(
//!     done.display("SIM").to_string(),
//!     "BACKUP DATABASE successfully processed 450 pages in 0.046 seconds (76.427 MB/sec)."
//! );
//!
//! let failed = Message::terminating("BACKUP DATABASE");
//! assert_eq!(
//!     failed.display("SIM").to_string(),
//!     "Msg 3013, Level 16, State 1, Server SIM, Line 1\nBACKUP DATABASE is terminating abnormally."
//! );
//! ```

mod catalog;
mod os_error;

use std::fmt;
use std::time::Duration;

pub use catalog::{CATALOG, CatalogEntry};
pub use os_error::OsError;

/// Bytes of one database page, the unit in which messages 3014 and 4035 count.
pub const PAGE_BYTES: u64 = 8192;

/// The number that SQL Server gives to messages without a catalogued number of their own, as `RAISERROR` does with a
/// text. The simulator uses it for reasons that SQL Server does not know.
pub const OWN_NUMBER: u32 = 50000;

/// The highest severity ("level") that is information; anything above it is an error to every client.
pub const MAX_INFORMATION_SEVERITY: u8 = 10;

/// Which of the two statements a message speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// BACKUP.
    Backup,
    /// RESTORE.
    Restore,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "BACKUP",
            Self::Restore => "RESTORE",
        })
    }
}

/// One message as the server sends it to the client of a statement, or writes it into its error log.
///
/// The constructors named after a sentence belong to the entries of [`CATALOG`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message number, the column `message_id` of `sys.messages`; [`OWN_NUMBER`] where there is none.
    pub number: u32,
    /// Severity, which sqlcmd prints as the level: 0 to 25. Up to [`MAX_INFORMATION_SEVERITY`] it is information.
    pub severity: u8,
    /// The state: tells apart the places that raise one number.
    pub state: u8,
    /// Line of the batch that the message belongs to, from 1.
    pub line: u32,
    /// The sentence, without number or line break at its end.
    pub text: String,
}

impl Message {
    /// A message of any number, at state 1 and line 1.
    #[must_use]
    pub fn new(number: u32, severity: u8, text: impl Into<String>) -> Self {
        Self { number, severity, state: 1, line: 1, text: text.into() }
    }

    /// The same message, raised at the batch's line `line` (from 1).
    #[must_use]
    pub fn at_line(mut self, line: u32) -> Self {
        self.line = line;
        self
    }

    /// The same message with another state.
    #[must_use]
    pub fn in_state(mut self, state: u8) -> Self {
        self.state = state;
        self
    }

    /// An error (severity 16) for which SQL Server has no message: the simulator's own sentence under [`OWN_NUMBER`].
    #[must_use]
    pub fn own(text: impl Into<String>) -> Self {
        Self::new(OWN_NUMBER, 16, text)
    }

    /// An information (severity 0) for which SQL Server has no message.
    #[must_use]
    pub fn own_information(text: impl Into<String>) -> Self {
        Self::new(OWN_NUMBER, 0, text)
    }

    /// 3014: last message of every successful statement. `pages` are pages of [`PAGE_BYTES`], `elapsed` is the time
    /// that moving them took; it is rounded to milliseconds, and the rate, in MB of 1024 x 1024 bytes a second, is taken
    /// from the rounded time. A time below half a millisecond gives a rate of 0.
    #[must_use]
    pub fn processed(verb: Verb, pages: u64, elapsed: Duration) -> Self {
        let millis = elapsed.as_nanos().saturating_add(500_000) / 1_000_000;
        let seconds = millis as f64 / 1000.0;
        let megabytes = pages as f64 * PAGE_BYTES as f64 / (1024.0 * 1024.0);
        let rate = if millis == 0 { 0.0 } else { megabytes / seconds };
        Self::processed_at_rate(verb, pages, seconds, rate)
    }

    /// Whether this is an error to the client: severity above [`MAX_INFORMATION_SEVERITY`].
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity > MAX_INFORMATION_SEVERITY
    }

    /// Whether the number is one of those (3000 to 3999, and 4000 to 4999) that BACKUP and RESTORE themselves raise, which 3013
    /// follows.
    #[must_use]
    pub(crate) fn is_of_backup(&self) -> bool {
        (3000..5000).contains(&self.number)
    }

    /// The message as sqlcmd prints it: the sentence alone where it is information, else a line with number, level,
    /// state, the name of the server and the line of the batch, and the sentence below it.
    #[must_use]
    pub fn display<'a>(&'a self, server: &'a str) -> impl fmt::Display + 'a {
        SqlcmdStyle { message: self, server }
    }
}

struct SqlcmdStyle<'a> {
    message: &'a Message,
    server: &'a str,
}

impl fmt::Display for SqlcmdStyle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { number, severity, state, line, text } = self.message;
        if self.message.is_error() {
            writeln!(f, "Msg {number}, Level {severity}, State {state}, Server {}, Line {line}", self.server)?;
        }
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests;
