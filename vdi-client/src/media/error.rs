//! What a medium answers when a command fails.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind};

use rustix::io::Errno;
use thiserror::Error;
use vdi_proto::completion::CompletionCode;

/// Why a medium could not carry out a command, and what the command is completed with.
///
/// It displays what failed, its cause, the bytes transferred, the remedy, and the code.
///
/// # Final or not
///
/// An error is *final* unless its maker said otherwise: [`pump`](fn@crate::pump) answers every later command with it, ClearError
/// included, and the work has failed. Two kinds are not, and leave the media as good as it was:
///
/// - A *condition* of the medium ([`MediaError::condition`]): a filemark, the beginning, the end of the data, the warning
///   zone before the end. The server clears it and goes on, usually with another medium.
/// - An error that is *recoverable* ([`MediaError::recoverable`]): the media warrants that nothing was lost, and that the
///   same command may be tried again after ClearError.
///
/// Either way [`bytes`](MediaError::bytes) counts what was transferred all the same. Nothing of this holds for Flush, Complete,
/// Snapshot, MountSnapshot and ClearError, whose errors are always final: what they promise cannot be had halfway.
///
/// ```
/// use std::io;
/// use vdi_client::media::MediaError;
/// use vdi_proto::completion::CompletionCode;
///
/// let full = io::Error::from(io::ErrorKind::StorageFull);
/// let error = MediaError::io("cannot write to tape robot 7", full).with_bytes(512);
/// assert_eq!(error.code, CompletionCode::DISK_FULL);
/// assert_eq!(error.bytes, 512);
/// assert_eq!(MediaError::not_supported("VDC_Rewind").code, CompletionCode::NOT_SUPPORTED);
///
/// let mark = MediaError::condition(CompletionCode::FILEMARK_DETECTED, "reel 7 has a filemark at block 12").with_bytes(1024);
/// assert!(error.is_final() && !mark.is_final());
/// ```
#[derive(Error)]
#[non_exhaustive]
pub struct MediaError {
    /// The code that the command is completed with; never ERROR_SUCCESS.
    pub code: CompletionCode,
    /// Bytes that the command had transferred before it failed.
    pub bytes: u32,
    /// What failed: the operation, the path, the offset.
    pub what: String,
    /// What to do about it.
    pub remedy: Cow<'static, str>,
    /// The system's error, if there was one.
    pub source: Option<io::Error>,
    /// The media is as good as before: see "Final or not".
    passing: bool,
}

impl MediaError {
    /// An error without a cause in the system. ERROR_SUCCESS is no error; it is taken as ERROR_IO_DEVICE.
    #[must_use]
    pub fn new(code: CompletionCode, what: impl Into<String>) -> Self {
        let code = if code.is_success() { CompletionCode::IO_DEVICE } else { code };
        MediaError { code, bytes: 0, what: what.into(), remedy: Cow::Borrowed(""), source: None, passing: false }
    }

    /// An error of the system, with the remedy that it suggests: ERROR_DISK_FULL where room, quota, or the permitted file
    /// size is used up, else ERROR_IO_DEVICE.
    #[must_use]
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        let (code, remedy) = classify(&source);
        let remedy = Cow::Borrowed(remedy);
        MediaError { code, bytes: 0, what: what.into(), remedy, source: Some(source), passing: false }
    }

    /// A condition of the medium, and no failure: ERROR_FILEMARK_DETECTED, ERROR_SETMARK_DETECTED, ERROR_END_OF_MEDIA,
    /// ERROR_BEGINNING_OF_MEDIA, ERROR_NO_DATA_DETECTED or ERROR_HANDLE_EOF. A Write that stored all it was given and reached
    /// the warning zone is answered with ERROR_END_OF_MEDIA and all its bytes ([`MediaError::with_bytes`]).
    #[must_use]
    pub fn condition(code: CompletionCode, what: impl Into<String>) -> Self {
        MediaError::new(code, what).recoverable()
    }

    /// The same error of a medium that is as good as before. Servers try a Read, a Write, or a change of position once more
    /// if the code is ERROR_IO_DEVICE or ERROR_NO_SYSTEM_RESOURCES; other codes that are no condition fail the statement.
    #[must_use]
    pub fn recoverable(mut self) -> Self {
        self.passing = true;
        self
    }

    /// The same error of a medium that is not: see "Final or not" above.
    pub(crate) fn into_final(mut self) -> Self {
        self.passing = false;
        self
    }

    /// Whether the work cannot go on after this: see "Final or not" above.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !self.passing
    }

    /// ERROR_NOT_SUPPORTED: this medium does not know the request.
    #[must_use]
    pub fn not_supported(what: impl fmt::Display) -> Self {
        MediaError::new(CompletionCode::NOT_SUPPORTED, format!("{what} is not supported by this medium"))
            .with_remedy("use a medium that supports it, or do not ask for the feature that allows it")
    }

    /// The same error of a command that had transferred `bytes`.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// The same error with another remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl MediaError {
    /// What failed, and why, without code, bytes and remedy.
    pub(crate) fn cause(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.what),
            None => self.what.clone(),
        }
    }
}

/// As `Display`, which names the source already.
impl fmt::Debug for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if self.bytes > 0 {
            write!(f, "; {} bytes of the command were transferred before", self.bytes)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        write!(f, " [{}]", self.code)
    }
}

/// The completion code and the remedy of a system's error.
fn classify(error: &io::Error) -> (CompletionCode, &'static str) {
    let full = CompletionCode::DISK_FULL;
    let device = CompletionCode::IO_DEVICE;
    if Errno::from_io_error(error) == Some(Errno::LOOP) {
        return (
            device,
            "the path leads over symbolic links in a circle, or over too many: mend them, or choose another path",
        );
    }
    match error.kind() {
        ErrorKind::StorageFull => (full, "free some space there or write to another file system, then start again"),
        ErrorKind::QuotaExceeded => (full, "raise the quota of this user or write elsewhere, then start again"),
        ErrorKind::FileTooLarge => (
            full,
            "raise the limit on file sizes (ulimit -f), use a file system that takes larger files, or stripe over more devices",
        ),
        ErrorKind::PermissionDenied => {
            (device, "give the user of this process permission there, or run it as another user")
        }
        ErrorKind::NotFound => (device, "check the path; directories have to exist already"),
        ErrorKind::AlreadyExists => (device, "remove what is there, or choose another name"),
        ErrorKind::ReadOnlyFilesystem => (device, "mount the file system read-write, or choose a path on another"),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
            (device, "the reader at the other end went away; find out from it why")
        }
        ErrorKind::WouldBlock => (device, "put the stream into blocking mode"),
        _ => (device, "check the system's log for errors of that device, then start again"),
    }
}
