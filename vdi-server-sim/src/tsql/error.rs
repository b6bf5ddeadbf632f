//! Why a statement is refused, where, and with which of SQL Server's messages.

use crate::messages::{Message, OWN_NUMBER, Verb};

use super::cursor::excerpt;
use super::{DeviceType, MAX_DEVICES, MAX_NAME, MAX_PATH};

/// Why a statement cannot be carried out as it stands. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TsqlError {
    /// Something else stands where the grammar asks for `expected` (message 102).
    #[error("line {line}, column {column}: incorrect syntax near '{near}': expected {expected}")]
    Syntax {
        /// The word that does not fit; where the statement ends too early, its last word.
        near: String,
        /// What would fit.
        expected: String,
        /// Line of the word.
        line: u32,
        /// Column of the word.
        column: u32,
    },
    /// A reserved word stands where it may not (message 156).
    #[error(
        "line {line}, column {column}: incorrect syntax near the keyword '{keyword}': expected {expected}; \
         a name that is a reserved word must be written [{keyword}]"
    )]
    Keyword {
        /// The reserved word, in capitals.
        keyword: String,
        /// What would fit.
        expected: String,
        /// Line of the word.
        line: u32,
        /// Column of the word.
        column: u32,
    },
    /// A string or a quoted name is never closed (message 105).
    #[error(
        "line {line}, column {column}: unclosed quotation mark before '{text}': close it; a quote inside is written twice"
    )]
    UnclosedQuote {
        /// How the open text begins.
        text: String,
        /// Line of the opening quote.
        line: u32,
        /// Column of the opening quote.
        column: u32,
    },
    /// A comment is never closed (message 113).
    #[error("line {line}, column {column}: a comment is not closed: add */")]
    UnclosedComment {
        /// Line where the text ends.
        line: u32,
        /// Column where the text ends.
        column: u32,
    },
    /// SQL Server knows it, the simulator does not do it yet.
    #[error("line {line}, column {column}: {what} is not supported yet by this simulator: {remedy}")]
    NotSupportedYet {
        /// The part of the statement.
        what: String,
        /// What to do instead.
        remedy: &'static str,
        /// Line where it begins.
        line: u32,
        /// Column where it begins.
        column: u32,
    },
    /// A statement that the batches of this simulator do not have.
    #[error("{what}")]
    NotSupported {
        /// What is not supported, and what is.
        what: &'static str,
        /// Line where the statement begins.
        line: u32,
        /// Column where the statement begins.
        column: u32,
    },
    /// No parameter of the batch has this name (message 137).
    #[error("line {line}, column {column}: the variable {name} has no value: give it one as a parameter of the batch")]
    UndeclaredVariable {
        /// The name with its `@`.
        name: String,
        /// Line of the variable.
        line: u32,
        /// Column of the variable.
        column: u32,
    },
    /// A variable stands for a name, a text or a number, and holds something else.
    #[error("line {line}, column {column}: the variable {name} is {found}: give it {expected}")]
    VariableType {
        /// The name with its `@`.
        name: String,
        /// The type of its value, or NULL.
        found: &'static str,
        /// What it has to hold.
        expected: &'static str,
        /// Line of the variable.
        line: u32,
        /// Column of the variable.
        column: u32,
    },
    /// No option has this name (message 155).
    #[error("line {line}, column {column}: '{option}' is not a recognized {verb} option")]
    UnknownOption {
        /// The word.
        option: String,
        /// The statement's verb.
        verb: Verb,
        /// Line of the word.
        line: u32,
        /// Column of the word.
        column: u32,
    },
    /// The option exists, but not for this verb (message 3032).
    #[error("line {line}, column {column}: the option {option} makes no sense for {verb}: leave it out")]
    OptionNotForVerb {
        /// The option.
        option: &'static str,
        /// The statement's verb.
        verb: Verb,
        /// Line of the option.
        line: u32,
        /// Column of the option.
        column: u32,
    },
    /// An option is given twice, or together with its opposite (message 3031).
    #[error("line {line}, column {column}: the option {option} conflicts with {other}, given before: keep one of them")]
    ConflictingOptions {
        /// The later option.
        option: &'static str,
        /// The earlier one; the same name for an option given twice.
        other: &'static str,
        /// Line of the later option.
        line: u32,
        /// Column of the later option.
        column: u32,
    },
    /// The option's value is outside its range (message 3217).
    #[error("line {line}, column {column}: invalid value '{found}' for {option}: expected {expected}")]
    InvalidValue {
        /// The option.
        option: &'static str,
        /// The value as written.
        found: String,
        /// The range.
        expected: &'static str,
        /// Line of the value.
        line: u32,
        /// Column of the value.
        column: u32,
    },
    /// The name of a database or device breaks a rule.
    #[error("line {line}, column {column}: invalid {what} name '{found}': {reason}")]
    InvalidName {
        /// What is named.
        what: &'static str,
        /// The name.
        found: String,
        /// The rule that it breaks.
        reason: &'static str,
        /// Line of the name.
        line: u32,
        /// Column of the name.
        column: u32,
    },
    /// One device is named twice.
    #[error("line {line}, column {column}: the device '{name}' is named twice: give each device its own name")]
    DuplicateDevice {
        /// The name.
        name: String,
        /// Line of its second mention.
        line: u32,
        /// Column of its second mention.
        column: u32,
    },
    /// More than [`MAX_DEVICES`] devices (message 3205).
    #[error("line {line}, column {column}: more than {MAX_DEVICES} devices: name at most {MAX_DEVICES}")]
    TooManyDevices {
        /// Line of the first device too many.
        line: u32,
        /// Column of the first device too many.
        column: u32,
    },
    /// SNAPSHOT with anything but one virtual device (message 3277). Its source is the VDI specification: a snapshot goes to a single
    /// virtual device, since only metadata passes through it and there is nothing to spread.
    #[error(
        "line {line}, column {column}: SNAPSHOT with {found} device{}: a snapshot uses one virtual device only: name just one",
        match (found, device_type) { (1, DeviceType::Disk) => " of type DISK", _ => "s" }
    )]
    SnapshotDevices {
        /// How many devices are named.
        found: usize,
        /// Their type.
        device_type: DeviceType,
        /// Line of the WITH clause.
        line: u32,
        /// Column of the WITH clause.
        column: u32,
    },
    /// A file of CREATE DATABASE lacks NAME or FILENAME (message 1036).
    #[error("line {line}, column {column}: a file without {option}: give each file a NAME and a FILENAME")]
    FileOptionMissing {
        /// The option.
        option: &'static str,
        /// Line of the file.
        line: u32,
        /// Column of the file.
        column: u32,
    },
    /// Two files of CREATE DATABASE have one logical name (message 1828).
    #[error("line {line}, column {column}: the logical name '{name}' is used twice: give each file its own name")]
    DuplicateFile {
        /// The name.
        name: String,
        /// Line of the second file.
        line: u32,
        /// Column of the second file.
        column: u32,
    },
    /// The size of a file is too small (message 5174) or too large (message 1842).
    #[error("line {line}, column {column}: {option} of {found} bytes: {reason}")]
    FileSize {
        /// SIZE, MAXSIZE or FILEGROWTH.
        option: &'static str,
        /// The size in bytes.
        found: u128,
        /// The rule that it breaks.
        reason: &'static str,
        /// Line of the value.
        line: u32,
        /// Column of the value.
        column: u32,
    },
}

impl TsqlError {
    /// Line and column, from 1.
    #[must_use]
    pub fn position(&self) -> (u32, u32) {
        match *self {
            Self::Syntax { line, column, .. }
            | Self::Keyword { line, column, .. }
            | Self::UnclosedQuote { line, column, .. }
            | Self::UnclosedComment { line, column }
            | Self::NotSupportedYet { line, column, .. }
            | Self::NotSupported { line, column, .. }
            | Self::UndeclaredVariable { line, column, .. }
            | Self::VariableType { line, column, .. }
            | Self::UnknownOption { line, column, .. }
            | Self::OptionNotForVerb { line, column, .. }
            | Self::ConflictingOptions { line, column, .. }
            | Self::InvalidValue { line, column, .. }
            | Self::InvalidName { line, column, .. }
            | Self::DuplicateDevice { line, column, .. }
            | Self::TooManyDevices { line, column }
            | Self::SnapshotDevices { line, column, .. }
            | Self::FileOptionMissing { line, column, .. }
            | Self::DuplicateFile { line, column, .. }
            | Self::FileSize { line, column, .. } => (line, column),
        }
    }

    /// Line in the statement's text, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.position().0
    }

    /// SQL Server's number and sentence where SQL Server refuses the same thing, else a message of the simulator's own.
    #[must_use]
    pub fn message(&self) -> Message {
        let message = match self {
            Self::Syntax { near, .. } => Message::incorrect_syntax(near),
            Self::Keyword { keyword, .. } => Message::incorrect_syntax_keyword(keyword),
            Self::UnclosedQuote { text, .. } => Message::unclosed_quote(text),
            Self::UnclosedComment { .. } => Message::unclosed_comment(),
            Self::UndeclaredVariable { name, .. } => Message::undeclared_variable(name),
            Self::UnknownOption { option, verb, .. } => Message::unknown_option(option, *verb),
            Self::OptionNotForVerb { option, .. } => Message::options_not_supported(&option.to_ascii_lowercase()),
            Self::ConflictingOptions { option, other, .. } => {
                Message::conflicting_options(&option.to_ascii_lowercase(), &other.to_ascii_lowercase())
            }
            Self::InvalidValue { option, .. } => Message::invalid_value(option),
            Self::TooManyDevices { .. } => Message::too_many_devices(MAX_DEVICES),
            Self::SnapshotDevices { .. } => Message::snapshot_needs_one_device(),
            Self::FileOptionMissing { option, .. } => Message::file_option_missing(option),
            Self::DuplicateFile { name, .. } => Message::logical_name_in_use(name),
            Self::FileSize { reason: TOO_SMALL, .. } => Message::file_too_small(),
            Self::FileSize { reason: TOO_LARGE, .. } => Message::file_too_large(),
            Self::InvalidName { what: DATABASE, found, .. } if found.is_empty() => Message::name_missing(),
            Self::InvalidName { what: DATABASE, found, .. } if is_long(found) => {
                Message::identifier_too_long(&excerpt(found), MAX_NAME)
            }
            Self::InvalidName { what: DATABASE, found, .. } => Message::invalid_database_name(&excerpt(found)),
            Self::InvalidName { what: PHYSICAL, found, .. } => Message::file_activation(&excerpt(found)),
            Self::InvalidName { what: DEVICE | FILE, found, .. } if found.is_empty() => Message::device_name_empty(),
            Self::InvalidName { what: DEVICE, found, .. } if is_long(found) => Message::device_name_too_long(MAX_NAME),
            Self::InvalidName { what: FILE, found, .. } if found.chars().count() > MAX_PATH => {
                Message::device_name_too_long(MAX_PATH)
            }
            Self::NotSupportedYet { .. }
            | Self::NotSupported { .. }
            | Self::VariableType { .. }
            | Self::InvalidName { .. }
            | Self::FileSize { .. }
            | Self::DuplicateDevice { .. } => Message::own(self.to_string()),
        };
        message.at_line(self.line())
    }

    /// All that the client of the statement gets to see: [`TsqlError::message`], what was expected and where, and 3013 behind those
    /// messages that BACKUP and RESTORE themselves raise. `title` is the statement's ([`Statement::title`](super::Statement::title)).
    #[must_use]
    pub fn messages(&self, title: Option<&str>) -> Vec<Message> {
        let message = self.message();
        let explained = message.number != OWN_NUMBER;
        let terminates = message.is_of_backup();
        let mut messages = vec![message];
        messages.extend(explained.then(|| Message::own_information(self.to_string())));
        messages.extend(title.filter(|_| terminates).map(Message::terminating));
        messages.into_iter().map(|message| message.at_line(self.line())).collect()
    }
}

/// What an invalid name is the name of.
pub(super) const DATABASE: &str = "database";
/// As [`DATABASE`].
pub(super) const DEVICE: &str = "virtual device";
/// As [`DATABASE`]: the path of a backup.
pub(super) const FILE: &str = "file";
/// As [`DATABASE`]: the path of a file of a database.
pub(super) const PHYSICAL: &str = "physical file";
/// As [`DATABASE`].
pub(super) const LOGICAL: &str = "logical file";

/// Which rule [`TsqlError::FileSize`] is about.
pub(super) const TOO_SMALL: &str = "a file has at least 512 KB";
/// As [`TOO_SMALL`].
pub(super) const TOO_LARGE: &str = "a file has at most 2147483647 pages of 8 KB";
/// As [`TOO_SMALL`].
pub(super) const ABOVE_MAXIMUM: &str = "it is more than MAXSIZE";

fn is_long(name: &str) -> bool {
    name.chars().count() > MAX_NAME
}

/// A place in the text, and the errors that can be said of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    line: u32,
    column: u32,
}

impl Mark {
    pub(super) fn new(line: u64, column: u64) -> Self {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).max(1);
        Self { line: narrow(line), column: narrow(column) }
    }

    pub(super) fn syntax(self, near: String, expected: &str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::Syntax { near, expected: expected.to_owned(), line, column }
    }

    pub(super) fn keyword(self, keyword: String, expected: &str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::Keyword { keyword, expected: expected.to_owned(), line, column }
    }

    pub(super) fn unclosed_quote(self, text: String) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::UnclosedQuote { text, line, column }
    }

    pub(super) fn unclosed_comment(self) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::UnclosedComment { line, column }
    }

    pub(super) fn not_supported_yet(self, what: String, remedy: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::NotSupportedYet { what, remedy, line, column }
    }

    pub(super) fn not_supported(self, what: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::NotSupported { what, line, column }
    }

    pub(super) fn undeclared_variable(self, name: String) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::UndeclaredVariable { name, line, column }
    }

    pub(super) fn variable_type(self, name: String, found: &'static str, expected: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::VariableType { name, found, expected, line, column }
    }

    pub(super) fn unknown_option(self, option: String, verb: Verb) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::UnknownOption { option, verb, line, column }
    }

    pub(super) fn option_not_for_verb(self, option: &'static str, verb: Verb) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::OptionNotForVerb { option, verb, line, column }
    }

    pub(super) fn conflicting_options(self, option: &'static str, other: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::ConflictingOptions { option, other, line, column }
    }

    pub(super) fn invalid_value(self, option: &'static str, found: String, expected: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::InvalidValue { option, found, expected, line, column }
    }

    pub(super) fn invalid_name(self, what: &'static str, found: String, reason: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::InvalidName { what, found, reason, line, column }
    }

    pub(super) fn duplicate_device(self, name: String) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::DuplicateDevice { name, line, column }
    }

    pub(super) fn too_many_devices(self) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::TooManyDevices { line, column }
    }

    pub(super) fn snapshot_devices(self, found: usize, device_type: DeviceType) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::SnapshotDevices { found, device_type, line, column }
    }

    pub(super) fn file_option_missing(self, option: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::FileOptionMissing { option, line, column }
    }

    pub(super) fn duplicate_file(self, name: String) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::DuplicateFile { name, line, column }
    }

    pub(super) fn file_size(self, option: &'static str, found: u128, reason: &'static str) -> TsqlError {
        let Self { line, column } = self;
        TsqlError::FileSize { option, found, reason, line, column }
    }
}
