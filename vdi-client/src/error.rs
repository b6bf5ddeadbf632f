//! Errors that say which call of which set, device and command failed, why, and what to do.
//!
//! What people read is the same everywhere: `Display` with the sources that it does not name already. `Debug` of [`Error`] and of
//! [`MediaError`](crate::media::MediaError) prints that, so a `main` that returns one of them ends with a readable line.
//! [`ErrorReport`] does it for every other error.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;
use std::error::Error as StdError;

use vdi_proto::command::CommandCode;
use vdi_proto::status::VdError;

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller used the interface wrongly, or requested what is not available.
    Misuse,
    /// A peer broke the protocol; the set is aborted.
    Violation,
    /// The session is over: aborted, or (VD_E_CLOSE) ended in order.
    Ended,
    /// It did not come about in time, or has to wait: try again.
    NotYet,
    /// This process cancelled the wait, by a [`Canceller`](crate::Canceller). The code is VD_E_TIMEOUT.
    Cancelled,
    /// The system or the media failed.
    System,
}

/// An error of a layer below: what it is for a call of this library.
pub(crate) trait LowerError: StdError + Send + Sync + 'static {
    /// The status that the call returns.
    fn code(&self) -> VdError;
    fn kind(&self) -> ErrorKind;
}

/// A time-out, for messages: "0 s", "0.25 s", "10 s".
pub(crate) fn show_duration(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// An error of this library.
///
/// `Display` is one line: the call, what it was about, the `VD_E_*` code, what went wrong, what to do. `Debug` adds the sources
/// that the line does not name:
///
/// ```
/// use vdi_client::ClientVirtualDeviceSet;
///
/// let error = ClientVirtualDeviceSet::new().close().unwrap_err();
/// let text = "Close: VD_E_PROTOCOL (0x8077000c): this object has no set: create or join one first";
/// assert_eq!(error.to_string(), text);
/// assert_eq!(format!("{error:?}"), text);
/// ```
pub struct Error(Box<Details>);

struct Details {
    kind: ErrorKind,
    code: VdError,
    call: &'static str,
    set: String,
    device: Option<String>,
    command: Option<CommandCode>,
    what: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        code: VdError,
        call: &'static str,
        set: &str,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (set, what) = (set.to_owned(), what.into());
        Error(Box::new(Details { kind, code, call, set, device: None, command: None, what, source: None }))
    }

    /// An error of a call that has no set to work on.
    pub(crate) fn without_set(call: &'static str) -> Self {
        Error::new(ErrorKind::Misuse, VdError::Protocol, call, "", "this object has no set: create or join one first")
    }

    /// An error of a layer below.
    pub(crate) fn lower(call: &'static str, set: &str, error: impl LowerError) -> Self {
        Error::new(error.kind(), error.code(), call, set, error.to_string()).because(error)
    }

    pub(crate) fn with_code(mut self, code: VdError) -> Self {
        self.0.code = code;
        self
    }

    pub(crate) fn of_device(mut self, device: &str) -> Self {
        self.0.device = Some(device.to_owned());
        self
    }

    pub(crate) fn of_command(mut self, command: CommandCode) -> Self {
        self.0.command = Some(command);
        self
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status that the interface's function returns.
    #[must_use]
    pub fn code(&self) -> VdError {
        self.0.code
    }

    /// The call that failed, by its published name.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.0.call
    }

    /// The set's name; empty where there is no set.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.0.set
    }

    /// The device's name, where it is about one.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        self.0.device.as_deref()
    }

    /// The command, where it is about one.
    #[must_use]
    pub fn command(&self) -> Option<CommandCode> {
        self.0.command
    }

    /// Whether this is VD_E_CLOSE, the normal end of a device's work.
    #[must_use]
    pub fn is_close(&self) -> bool {
        self.0.code == VdError::Close
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_sources(self))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { code, call, set, device, command, what, .. } = &*self.0;
        write!(f, "{call}")?;
        if let Some(command) = command {
            write!(f, " of {command}")?;
        }
        if let Some(device) = device {
            write!(f, " on device {device:?}")?;
        }
        if !set.is_empty() {
            write!(f, " of set {set:?}")?;
        }
        write!(f, ": {} ({:#010x}): {what}", code.name(), code.hresult())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// An error and its sources as one line, for people: each text once, joined by ": ".
pub(crate) fn with_sources(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        // A Display often ends with its source already.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

/// Any error, as people read it: for `fn main() -> Result<(), ErrorReport>`.
///
/// Rust prints what `main` returns by `Debug`. That of this type is the error's `Display` and that of its sources, joined
/// by ": ", without what was said already. The operator `?` turns every error into one, and `into` a text.
///
/// ```
/// use vdi_client::ErrorReport;
///
/// fn parse(text: &str) -> Result<u16, ErrorReport> {
///     if text.is_empty() {
///         return Err("a number is missing".into());
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(format!("{:?}", parse("").unwrap_err()), "a number is missing");
/// assert_eq!(format!("{:?}", parse("7x").unwrap_err()), "invalid digit found in string");
/// ```
pub struct ErrorReport(Box<dyn StdError + Send + Sync>);

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for ErrorReport {
    fn from(error: E) -> Self {
        ErrorReport(error.into())
    }
}

impl fmt::Debug for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_sources(&*self.0))
    }
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_sources(&*self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::media::MediaError;

    fn disk_full() -> MediaError {
        MediaError::io("cannot write to /backup/a", io::Error::from_raw_os_error(28))
    }

    #[test]
    fn debug_is_what_people_read() {
        let medium = disk_full();
        assert_eq!(format!("{medium:?}"), medium.to_string());
        let error = Error::new(ErrorKind::System, VdError::Unexpected, "pump", "nightly", medium.to_string());
        let error = error.of_device("nightly").of_command(CommandCode::WRITE).because(medium);
        assert_eq!(format!("{error:?}"), error.to_string(), "the source is in the text already");
        for text in [error.to_string(), format!("{error:?}"), format!("{:?}", ErrorReport::from(error))] {
            assert_eq!(text.matches("No space left on device").count(), 1, "{text}");
            assert!(!text.contains("Details") && !text.contains("Some("), "{text}");
        }
    }

    #[test]
    fn sources_follow_that_the_text_does_not_name() {
        let error = Error::new(ErrorKind::System, VdError::Unexpected, "Create", "nightly", "no memory");
        let error = error.because(io::Error::from_raw_os_error(12));
        assert!(!error.to_string().contains("os error 12"));
        assert!(format!("{error:?}").ends_with(": no memory: Cannot allocate memory (os error 12)"), "{error:?}");
    }
}
