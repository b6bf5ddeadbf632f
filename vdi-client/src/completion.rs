//! How a command ended: as the program says it, and as the server gets it.

use vdi_proto::command::{Buffer, CommandRecord};
use vdi_proto::completion::CompletionCode;

use crate::error::Error;

/// How a command ended.
///
/// ```
/// use vdi_client::{Completion, CompletionCode};
///
/// Completion::transferred(65536); // Read, Write: this many bytes
/// Completion::done(); // any other command: carried out
/// Completion::at(4096); // GetPosition, SetPosition: carried out, and this is the position
/// Completion::failed(CompletionCode::NOT_SUPPORTED); // not carried out
/// Completion::failed_after(CompletionCode::DISK_FULL, 512); // a Write that got this far
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transferred(usize),
    Done,
    At(u64),
    Failed(CompletionCode, usize),
    /// The words of a foreign program; only [`crate::raw`] makes these.
    Raw(CompletionCode, u64, u64),
}

/// How a command ended, as the server gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: CompletionCode,
    pub(crate) bytes: u32,
    pub(crate) position: u64,
}

impl Outcome {
    pub(crate) const fn failed(code: CompletionCode) -> Outcome {
        Outcome { code, bytes: 0, position: 0 }
    }
}

/// A completion that was refused.
pub(crate) struct Refused {
    pub(crate) error: Error,
    /// The command may be completed in another way, or later.
    pub(crate) outstanding: bool,
}

impl Completion {
    /// A Read or Write moved `bytes` bytes. All of them: ERROR_SUCCESS. Fewer: a Write is reported with ERROR_DISK_FULL, a
    /// Read with ERROR_HANDLE_EOF, the end of the data.
    #[must_use]
    pub const fn transferred(bytes: usize) -> Self {
        Completion(Kind::Transferred(bytes))
    }

    /// A command without data was carried out.
    #[must_use]
    pub const fn done() -> Self {
        Completion(Kind::Done)
    }

    /// GetPosition or SetPosition was carried out: the position now.
    #[must_use]
    pub const fn at(position: u64) -> Self {
        Completion(Kind::At(position))
    }

    /// The command was not carried out.
    #[must_use]
    pub const fn failed(code: CompletionCode) -> Self {
        Completion(Kind::Failed(code, 0))
    }

    /// A Read or Write failed after `bytes` bytes.
    #[must_use]
    pub const fn failed_after(code: CompletionCode, bytes: usize) -> Self {
        Completion(Kind::Failed(code, bytes))
    }

    pub(crate) const fn raw(code: CompletionCode, bytes: u64, position: u64) -> Self {
        Completion(Kind::Raw(code, bytes, position))
    }

    /// What the server gets of a command. The error says why this completion does not fit the command.
    #[inline]
    pub(crate) fn resolve(self, record: &CommandRecord) -> Result<Outcome, &'static str> {
        let transfer = record.code.is_transfer();
        let size = record.size as u32;
        let bytes = match self.0 {
            Kind::Transferred(bytes) | Kind::Failed(_, bytes) => bytes as u64,
            Kind::Raw(_, bytes, _) if transfer => bytes,
            Kind::Raw(..) | Kind::Done | Kind::At(_) => 0,
        };
        let Some(bytes) = u32::try_from(bytes).ok().filter(|bytes| !transfer || *bytes <= size) else {
            return Err("more bytes than the command has");
        };
        let told = |code, position| Ok(Outcome { code, bytes, position });
        match self.0 {
            Kind::Raw(code, _, position) => told(code, position),
            Kind::Failed(code, _) if code.is_success() => Err("a failure with the code of success"),
            Kind::Failed(code, _) => told(code, 0),
            Kind::Transferred(_) if !transfer => Err("bytes for a command that transfers none"),
            Kind::Transferred(_) if bytes == size => told(CompletionCode::SUCCESS, 0),
            Kind::Transferred(_) if record.code.buffer() == Buffer::FromClient => told(CompletionCode::HANDLE_EOF, 0),
            Kind::Transferred(_) => told(CompletionCode::DISK_FULL, 0),
            Kind::Done | Kind::At(_) if transfer => Err("a transfer without the number of bytes transferred"),
            Kind::Done => told(CompletionCode::SUCCESS, 0),
            Kind::At(position) => told(CompletionCode::SUCCESS, position),
        }
    }
}
