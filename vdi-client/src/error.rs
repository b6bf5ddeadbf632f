//! Errors that say which call of which set, device and command failed, why, and what to do.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;
use std::error::Error as StdError;

use vdi_proto::command::CommandCode;
use vdi_proto::status::VdError;

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller used the interface wrongly, or requested what is not available.
    Misuse,
    /// A peer broke the protocol; the set is aborted.
    Violation,
    /// The session is over: aborted, or (VD_E_CLOSE) ended in order.
    Ended,
    /// It did not come about in time, or was cancelled, or has to wait: try again.
    NotYet,
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
#[derive(Debug)]
pub struct Error(Box<Details>);

#[derive(Debug)]
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
