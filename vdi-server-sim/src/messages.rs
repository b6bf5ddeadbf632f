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
//! let failed = Message::terminating(Verb::Backup);
//! assert_eq!(
//!     failed.display("SIM").to_string(),
//!     "Msg 3013, Level 16, State 1, Server SIM, Line 1\nBACKUP DATABASE is terminating abnormally."
//! );
//! ```

use std::fmt;
use std::time::Duration;

/// Bytes of one database page, the unit in which messages 3014 and 4035 count.
pub const PAGE_BYTES: u64 = 8192;

/// The number that SQL Server gives to messages without a catalogued number of their own, as `RAISERROR` does with a
/// text. The simulator uses it for reasons that SQL Server does not know.
pub const OWN_NUMBER: u32 = 50000;

/// The highest severity ("level") that is information; anything above it is an error to every client.
pub const MAX_INFORMATION_SEVERITY: u8 = 10;

/// Which of the two statements a message speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// One message as the server sends it to the client of a statement.
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

    /// The same message, said of the batch's line `line` (from 1).
    #[must_use]
    pub fn at_line(mut self, line: u32) -> Self {
        self.line = line;
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

    /// Whether this is an error to the client: severity above [`MAX_INFORMATION_SEVERITY`].
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity > MAX_INFORMATION_SEVERITY
    }

    /// 102: the statement cannot be understood near the word `near`, on line `line`.
    #[must_use]
    pub fn incorrect_syntax(near: &str, line: u32) -> Self {
        Self::new(102, 15, format!("Incorrect syntax near '{near}'.")).at_line(line)
    }

    /// 156: a reserved word stands where it may not.
    #[must_use]
    pub fn incorrect_syntax_keyword(keyword: &str, line: u32) -> Self {
        Self::new(156, 15, format!("Incorrect syntax near the keyword '{keyword}'.")).at_line(line)
    }

    /// 911: there is no database of that name.
    #[must_use]
    pub fn no_such_database(database: &str) -> Self {
        Self::new(
            911,
            16,
            format!("Database '{database}' does not exist. Make sure that the name is entered correctly."),
        )
    }

    /// 3013: last message of every failed statement.
    #[must_use]
    pub fn terminating(verb: Verb) -> Self {
        Self::new(3013, 16, format!("{verb} DATABASE is terminating abnormally."))
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
        Self::new(
            3014,
            0,
            format!("{verb} DATABASE successfully processed {pages} pages in {seconds:.3} seconds ({rate:.3} MB/sec)."),
        )
    }

    /// 3132: RESTORE names fewer (or more) devices than the media set has families.
    #[must_use]
    pub fn media_families_missing(families: u32, provided: u32) -> Self {
        Self::new(
            3132,
            16,
            format!(
                "The media set has {families} media families but only {provided} are provided. All members must be provided."
            ),
        )
    }

    /// 3154: RESTORE would replace a database that the backup does not come from.
    #[must_use]
    pub fn backup_of_other_database(database: &str) -> Self {
        Self::new(
            3154,
            16,
            format!("The backup set holds a backup of a database other than the existing '{database}' database."),
        )
    }

    /// 3159: RESTORE without REPLACE would overwrite an existing database. SQL Server refuses this because the tail of
    /// the log would be lost, and its message names the remedy.
    #[must_use]
    pub fn database_exists(database: &str) -> Self {
        Self::new(
            3159,
            16,
            format!(
                "The tail of the log for the database \"{database}\" has not been backed up. Use BACKUP LOG WITH NORECOVERY \
                 to backup the log if it contains work you do not want to lose. Use the WITH REPLACE or WITH STOPAT clause \
                 of the RESTORE statement to just overwrite the contents of the log."
            ),
        )
    }

    /// 3201: the device cannot be opened. `code` is a Win32 code or an HRESULT, see [`os_error`].
    #[must_use]
    pub fn cannot_open_device(device: &str, code: u32) -> Self {
        Self::new(3201, 16, format!("Cannot open backup device '{device}'. Operating system error {}.", os_error(code)))
    }

    /// 3202: a write failed. `code` is a Win32 code or an HRESULT, see [`os_error`].
    #[must_use]
    pub fn write_failed(device: &str, code: u32) -> Self {
        Self::new(3202, 16, format!("Write on \"{device}\" failed: {}", os_error(code)))
    }

    /// 3203: a read failed. `code` is a Win32 code or an HRESULT, see [`os_error`].
    #[must_use]
    pub fn read_failed(device: &str, code: u32) -> Self {
        Self::new(3203, 16, format!("Read on \"{device}\" failed: {}", os_error(code)))
    }

    /// 3211: progress, asked for by STATS.
    #[must_use]
    pub fn percent_processed(percent: u8) -> Self {
        Self::new(3211, 0, format!("{percent} percent processed."))
    }

    /// 3241: what comes from the device is not a backup, or is damaged.
    #[must_use]
    pub fn media_family_malformed(device: &str) -> Self {
        Self::new(
            3241,
            16,
            format!(
                "The media family on device '{device}' is incorrectly formed. SQL Server cannot process this media family."
            ),
        )
    }

    /// 3272: RESTORE works with another BLOCKSIZE than the backup was written with.
    #[must_use]
    pub fn block_size_mismatch(device: &str, device_block_size: u32, requested: u32) -> Self {
        Self::new(
            3272,
            16,
            format!(
                "The '{device}' device has a hardware sector size of {device_block_size}, but the block size parameter \
                 specifies an incompatible override value of {requested}. Reissue the statement using a compatible block size."
            ),
        )
    }

    /// 4035: one file of the database is done. `set_position` is the place of the backup set on its media, from 1.
    #[must_use]
    pub fn file_processed(pages: u64, database: &str, file: &str, set_position: u32) -> Self {
        Self::new(
            4035,
            0,
            format!("Processed {pages} pages for database '{database}', file '{file}' on file {set_position}."),
        )
    }

    /// 18210: a call of the device interface failed. `function` is the server's function ("BackupVirtualDeviceSet::Initialize"),
    /// `operation` what it asked for ("Open"), `device` the device's or set's name, and `code` as for [`os_error`].
    #[must_use]
    pub fn device_failure(function: &str, operation: &str, device: &str, code: u32) -> Self {
        Self::new(
            18210,
            16,
            format!(
                "{function}: {operation} failure on backup device '{device}'. Operating system error {}.",
                os_error(code)
            ),
        )
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

/// An operating system error as it stands in a message: the code, and its text in brackets. Win32 codes are decimal;
/// codes with the top bit set are HRESULTs (the `VD_E_` codes among them) and are printed in hexadecimal.
///
/// ```
/// # use vdi_server_sim::messages::os_error;
/// assert!(os_error(112).starts_with("112("));
/// assert!(os_error(0x8077_0003).starts_with("0x80770003("));
/// ```
#[must_use]
pub fn os_error(code: u32) -> String {
    let text = os_error_text(code);
    if code & 0x8000_0000 == 0 { format!("{code}({text})") } else { format!("0x{code:08X}({text})") }
}

/// What a Win32 code, or a `VD_E_` code of the virtual device interface, means. Total: a code that is not known to occur
/// here has a text that says so.
#[must_use]
pub fn os_error_text(code: u32) -> &'static str {
    match code {
        0 => "The operation completed successfully.",
        2 => "The system cannot find the file specified.",
        5 => "Access is denied.",
        6 => "The handle is invalid.",
        7 => "The storage control blocks were destroyed.",
        8 => "Not enough memory.",
        21 => "The device is not ready.",
        31 => "The device is not functioning.",
        38 => "Reached the end of the file.",
        39 => "The disk is full.",
        50 => "The request is not supported.",
        87 => "A parameter is incorrect.",
        112 => "There is not enough space on the disk.",
        121 => "The time-out period has expired.",
        995 => "The I/O operation has been aborted because of either a thread exit or an application request.",
        1100 => "The physical end of the media has been reached.",
        1101 => "A filemark was reached.",
        1102 => "The beginning of the media was reached.",
        1103 => "A setmark was reached.",
        1104 => "No more data is on the media.",
        1117 => "The request could not be performed because of an I/O device error.",
        1129 => "The physical end of the media has been passed.",
        1450 => "Insufficient system resources exist to complete the requested service.",
        0x8007_0005 => "Access is denied.",
        0x8077_0002 => "The virtual device set is not open.",
        0x8077_0003 => "The virtual device operation timed out.",
        0x8077_0004 => "The virtual device set was aborted.",
        0x8077_0005 => "Access to the virtual device set is denied.",
        0x8077_0006 => "A parameter of the virtual device call is invalid.",
        0x8077_0007 => "The instance name is not recognised.",
        0x8077_0009 => "The configuration of the virtual device is not supported.",
        0x8077_000A => "Not enough memory for the virtual device set.",
        0x8077_000B => "Unexpected internal error of the virtual device interface.",
        0x8077_000C => "The virtual device call does not fit the present state.",
        0x8077_000D => "The virtual device set is still open.",
        0x8077_000E => "The virtual device is closed.",
        0x8077_000F => "The virtual device resource is busy.",
        _ => "No text is known for this code.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_is_the_sentence_alone() {
        for (message, expected) in [
            (Message::percent_processed(10), "10 percent processed."),
            (
                Message::file_processed(344, "db", "db_log", 1),
                "Processed 344 pages for database 'db', file 'db_log' on file 1.",
            ),
            (
                Message::processed(Verb::Restore, 1, Duration::ZERO),
                "RESTORE DATABASE successfully processed 1 pages in 0.000 seconds (0.000 MB/sec).",
            ),
        ] {
            assert!(!message.is_error());
            assert_eq!(message.display("S").to_string(), expected);
        }
    }

    #[test]
    fn errors_have_sqlcmd_s_first_line() {
        let message = Message::incorrect_syntax("FORM", 3);
        assert!(message.is_error());
        assert_eq!(
            message.display("HOST").to_string(),
            "Msg 102, Level 15, State 1, Server HOST, Line 3\nIncorrect syntax near 'FORM'."
        );
    }

    #[test]
    fn every_failure_is_an_error_and_names_its_device() {
        for (message, number) in [
            (Message::cannot_open_device("dev", 2), 3201),
            (Message::write_failed("dev", 112), 3202),
            (Message::read_failed("dev", 995), 3203),
            (Message::media_family_malformed("dev"), 3241),
            (Message::block_size_mismatch("dev", 512, 4096), 3272),
            (Message::device_failure("BackupVirtualDeviceSet::Initialize", "Open", "dev", 0x8077_0003), 18210),
        ] {
            assert_eq!((message.number, message.severity), (number, 16));
            assert!(message.text.contains("dev"), "{message:?}");
        }
        assert_eq!(
            Message::write_failed("dev", 112).text,
            "Write on \"dev\" failed: 112(There is not enough space on the disk.)"
        );
        for message in [
            Message::terminating(Verb::Backup),
            Message::no_such_database("d"),
            Message::database_exists("d"),
            Message::backup_of_other_database("d"),
            Message::media_families_missing(2, 1),
            Message::own("x"),
        ] {
            assert!(message.is_error());
        }
    }

    #[test]
    fn the_rate_follows_the_rounded_time() {
        let message = Message::processed(Verb::Backup, 128, Duration::from_micros(999_600));
        assert!(message.text.ends_with("128 pages in 1.000 seconds (1.000 MB/sec)."), "{}", message.text);
        // Nothing overflows, however long it took.
        let _ = Message::processed(Verb::Backup, u64::MAX, Duration::MAX);
    }

    #[test]
    fn every_completion_code_of_the_interface_has_a_text() {
        for code in [0, 6, 7, 38, 39, 50, 112, 995, 1100, 1101, 1102, 1103, 1104, 1117, 1129, 1450, 2, 5] {
            assert_ne!(os_error_text(code), os_error_text(u32::MAX), "{code}");
        }
        assert_eq!(os_error(u32::MAX), "0xFFFFFFFF(No text is known for this code.)");
    }
}
