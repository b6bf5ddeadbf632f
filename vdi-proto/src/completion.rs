//! The codes that a command is completed with: Win32 error numbers.
//!
//! Source: VDI specification, the commands' completion codes and "Command Error Handling".

use core::fmt;
use core::str::FromStr;

use crate::parse::{ParseError, decimal, in_brackets};

/// A Win32 error number as a command's completion code. Unknown numbers are kept.
///
/// ```
/// use vdi_proto::completion::CompletionCode;
///
/// assert!(CompletionCode::SUCCESS.is_success());
/// assert_eq!(CompletionCode::DISK_FULL.to_string(), "ERROR_DISK_FULL (112)");
/// assert_eq!(CompletionCode::new(4711).to_string(), "Win32 error 4711");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CompletionCode(u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $win32:literal;)*) => {
        impl CompletionCode {
            $($(#[$doc])* #[doc(alias = $win32)] pub const $name: CompletionCode = CompletionCode($number);)*

            /// Every code that has a name in the VDI documents.
            pub const NAMED: &'static [CompletionCode] = &[$(CompletionCode::$name),*];

            /// The Win32 name, `ERROR_DISK_FULL` for example; `None` for numbers that VDI does not use.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($win32),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// The command succeeded.
    SUCCESS = 0, "ERROR_SUCCESS";
    /// The server's callback for a command sent to a device that is not active.
    INVALID_HANDLE = 6, "ERROR_INVALID_HANDLE";
    /// The client found its own data structures destroyed.
    ARENA_TRASHED = 7, "ERROR_ARENA_TRASHED";
    /// Read: the end of the data. The reported bytes precede it.
    HANDLE_EOF = 38, "ERROR_HANDLE_EOF";
    /// As [`CompletionCode::DISK_FULL`].
    HANDLE_DISK_FULL = 39, "ERROR_HANDLE_DISK_FULL";
    /// The client does not support the command.
    NOT_SUPPORTED = 50, "ERROR_NOT_SUPPORTED";
    /// Write: no more room; the server aborts the backup.
    DISK_FULL = 112, "ERROR_DISK_FULL";
    /// The set was aborted while the command was outstanding.
    OPERATION_ABORTED = 995, "ERROR_OPERATION_ABORTED";
    /// Write: the end-of-media warning zone was reached.
    END_OF_MEDIA = 1100, "ERROR_END_OF_MEDIA";
    /// Read or skip: a filemark was met.
    FILEMARK_DETECTED = 1101, "ERROR_FILEMARK_DETECTED";
    /// A backward skip met the beginning of the medium.
    BEGINNING_OF_MEDIA = 1102, "ERROR_BEGINNING_OF_MEDIA";
    /// A setmark was met.
    SETMARK_DETECTED = 1103, "ERROR_SETMARK_DETECTED";
    /// Read: the end of the data; treated like [`CompletionCode::HANDLE_EOF`].
    NO_DATA_DETECTED = 1104, "ERROR_NO_DATA_DETECTED";
    /// The device failed. Commands queued behind a failed command complete with this code too.
    IO_DEVICE = 1117, "ERROR_IO_DEVICE";
    /// Write: beyond the end of the medium; the server aborts the backup.
    EOM_OVERFLOW = 1129, "ERROR_EOM_OVERFLOW";
    /// The server's callback for a command that did not fit the queue.
    NO_SYSTEM_RESOURCES = 1450, "ERROR_NO_SYSTEM_RESOURCES";
}

impl CompletionCode {
    /// Any Win32 error number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        CompletionCode(number)
    }

    /// The Win32 error number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether the command succeeded. Every other code puts the device into IO-ERROR (VDI specification, Command Error
    /// Handling).
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == Self::SUCCESS.0
    }

    /// Whether a Read met the end of the data.
    #[must_use]
    pub const fn is_end_of_data(self) -> bool {
        self.0 == Self::HANDLE_EOF.0 || self.0 == Self::NO_DATA_DETECTED.0
    }
}

impl fmt::Display for CompletionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "Win32 error {}", self.0),
        }
    }
}

impl FromStr for CompletionCode {
    type Err = ParseError;

    /// `ERROR_DISK_FULL`, `ERROR_DISK_FULL (112)`, or `Win32 error 4711`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let named = || {
            CompletionCode::NAMED.iter().copied().find(|code| {
                match code.name().and_then(|name| text.strip_prefix(name)) {
                    Some("") => true,
                    Some(rest) => {
                        in_brackets(rest).is_some_and(|(n, rest)| decimal(n) == Some(code.0) && rest.is_empty())
                    }
                    None => false,
                }
            })
        };
        let unnamed = || text.strip_prefix("Win32 error ").and_then(decimal).map(CompletionCode);
        let expected = "ERROR_DISK_FULL or ERROR_DISK_FULL (112) for example, or \"Win32 error 4711\"";
        named().or_else(unnamed).ok_or_else(|| ParseError::new("completion code", expected, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn win32_numbers_are_stable() {
        let numbers: std::vec::Vec<u32> = CompletionCode::NAMED.iter().map(|c| c.number()).collect();
        assert_eq!(numbers, [0, 6, 7, 38, 39, 50, 112, 995, 1100, 1101, 1102, 1103, 1104, 1117, 1129, 1450]);
    }

    #[test]
    fn only_zero_is_success_and_only_two_codes_end_the_data() {
        for code in CompletionCode::NAMED {
            assert_eq!(code.is_success(), code.number() == 0);
            assert_eq!(code.is_end_of_data(), [38, 1104].contains(&code.number()));
        }
    }
}
