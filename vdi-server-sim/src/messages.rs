//! SQL Server's own messages: their numbers, severities and wording.
//!
//! Backup agents read the message stream of their BACKUP or RESTORE statement. Message 3014 is the proof of success. A message
//! above severity 10 is a failure for `sqlcmd -b`, ODBC, ADO and SqlClient. The simulator therefore answers with the numbers,
//! severities and sentences of SQL Server. A reason that SQL Server has no message for has the number 50000, which SQL Server
//! gives to `RAISERROR` with a text.
//!
//! ```
//! use vdi_server_sim::messages::Message;
//!
//! let progress = Message::new(3211, 0, "10 percent processed.");
//! assert_eq!(progress.display("SIM").to_string(), "10 percent processed.");
//!
//! let failed = Message::new(3013, 16, "BACKUP DATABASE is terminating abnormally.");
//! assert!(failed.is_error());
//! assert_eq!(
//!     failed.display("SIM").to_string(),
//!     "Msg 3013, Level 16, State 1, Server SIM, Line 1\nBACKUP DATABASE is terminating abnormally."
//! );
//! ```

mod catalog;
mod os_error;

use std::fmt;
use std::time::Duration;

pub(crate) use os_error::OsError;

/// Bytes of one database page, the unit of the page counts in messages 3014 and 4035.
pub(crate) const PAGE_BYTES: u64 = 8192;

/// The number of a message that SQL Server has no number for, as of `RAISERROR` with a text.
pub(crate) const OWN_NUMBER: u32 = 50000;

/// The highest severity ("level") of information. A higher severity is an error for every client.
pub const MAX_INFORMATION_SEVERITY: u8 = 10;

/// The verb of a statement.
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

/// A message that the server sends to the client of a statement, or writes into its error log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message number: the column `message_id` of `sys.messages`, or 50000 for a reason that SQL Server has no message for.
    pub number: u32,
    /// Severity, 0 to 25; sqlcmd prints it as the level. Up to [`MAX_INFORMATION_SEVERITY`] the message is information.
    pub severity: u8,
    /// The state, 0 to 255: distinguishes the causes of one number.
    pub state: u8,
    /// The line of the batch, from 1.
    pub line: u32,
    /// The sentence, without the number, and without a line break at its end.
    pub text: String,
}

impl Message {
    /// A message of any number, at state 1 and line 1.
    #[must_use]
    pub fn new(number: u32, severity: u8, text: impl Into<String>) -> Self {
        Self { number, severity, state: 1, line: 1, text: text.into() }
    }

    /// The same message at this line of the batch, from 1.
    #[must_use]
    pub fn at_line(mut self, line: u32) -> Self {
        self.line = line;
        self
    }

    /// The same message with another state.
    #[must_use]
    pub(crate) fn in_state(mut self, state: u8) -> Self {
        self.state = state;
        self
    }

    /// An error (severity 16) that SQL Server has no message for, with the number [`OWN_NUMBER`].
    #[must_use]
    pub(crate) fn own(text: impl Into<String>) -> Self {
        Self::new(OWN_NUMBER, 16, text)
    }

    /// Information (severity 0) that SQL Server has no message for, with the number [`OWN_NUMBER`].
    #[must_use]
    pub(crate) fn own_information(text: impl Into<String>) -> Self {
        Self::new(OWN_NUMBER, 0, text)
    }

    /// 3014: last message of every successful statement. `pages` are pages of [`PAGE_BYTES`]. `elapsed` is the time of their
    /// transfer, and is rounded to milliseconds. The rate, in MB of 1024 x 1024 bytes a second, follows from the rounded time;
    /// it is 0 if that is 0.
    #[must_use]
    pub(crate) fn processed(verb: Verb, pages: u64, elapsed: Duration) -> Self {
        let millis = elapsed.as_nanos().saturating_add(500_000) / 1_000_000;
        let seconds = millis as f64 / 1000.0;
        let megabytes = pages as f64 * PAGE_BYTES as f64 / (1024.0 * 1024.0);
        let rate = if millis == 0 { 0.0 } else { megabytes / seconds };
        Self::processed_at_rate(verb, pages, seconds, rate)
    }

    /// Whether the message is an error: its severity is above [`MAX_INFORMATION_SEVERITY`].
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity > MAX_INFORMATION_SEVERITY
    }

    /// Whether BACKUP or RESTORE itself raises the number (3000 to 4999). Message 3013 follows such an error.
    #[must_use]
    pub(crate) fn is_of_backup(&self) -> bool {
        (3000..5000).contains(&self.number)
    }

    /// The message as sqlcmd prints it. Information is the sentence alone. An error has a line with number, level, state, `server`
    /// (the name of the server) and the line of the batch, and the sentence below it.
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
