//! Codes and features read back from their `Display`, from transcripts and logs for example.
//!
//! [`VdError`](crate::status::VdError), [`CompletionCode`](crate::completion::CompletionCode),
//! [`CommandCode`](crate::command::CommandCode) and [`Features`](crate::features::Features) implement `FromStr`. Each takes exactly
//! what its `Display` prints, and the published name alone. Letter case counts. Where a text has a name and a number, both
//! have to agree.
//!
//! ```
//! use vdi_proto::command::CommandCode;
//! use vdi_proto::completion::CompletionCode;
//! use vdi_proto::features::Features;
//! use vdi_proto::status::VdError;
//!
//! assert_eq!("VDC_Write".parse(), Ok(CommandCode::WRITE));
//! assert_eq!("ERROR_DISK_FULL (112)".parse(), Ok(CompletionCode::DISK_FULL));
//! assert_eq!("VD_E_ABORT (0x80770004): the set was aborted".parse(), Ok(VdError::Abort));
//! assert_eq!("VDF_Removable|0x8".parse(), Ok(Features::from_bits_retain(0x9)));
//!
//! let error = "VDC_Wirte".parse::<CommandCode>().unwrap_err();
//! assert_eq!(error.to_string(), r#""VDC_Wirte" is no command; expected VDC_Write for example, or "command 77""#);
//! ```

use core::fmt;

/// How much of a text an error repeats, in bytes.
const EXCERPT: usize = 48;

/// A text that is no code or feature of the interface. It displays what was found and what was expected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    what: &'static str,
    expected: &'static str,
    /// The beginning of the text: whole characters.
    found: [u8; EXCERPT],
    len: usize,
    /// There was more.
    cut: bool,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, expected: &'static str, text: &str) -> ParseError {
        let mut len = text.len().min(EXCERPT);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let mut found = [0; EXCERPT];
        found[..len].copy_from_slice(&text.as_bytes()[..len]);
        ParseError { what, expected, found, len, cut: len < text.len() }
    }

    /// The text that was found, or its beginning.
    #[must_use]
    pub fn found(&self) -> &str {
        core::str::from_utf8(&self.found[..self.len]).unwrap_or_default()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.cut { " ..." } else { "" };
        write!(f, "{:?}{more} is no {}; expected {}", self.found(), self.what, self.expected)
    }
}

/// As `Display`.
impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for ParseError {}

/// A decimal number as `Display` prints it.
pub(crate) fn decimal(text: &str) -> Option<u32> {
    let plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    if plain { text.parse().ok() } else { None }
}

/// A hexadecimal number behind `0x`.
pub(crate) fn hexadecimal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
    if plain { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// What is in the brackets of ` (...)`, and what follows them.
pub(crate) fn in_brackets(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(" (")?.split_once(')')
}
