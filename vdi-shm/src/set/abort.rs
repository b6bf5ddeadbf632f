//! An abort as a process knows it: the reason, the code behind it, and the text of the process that aborted the set.

use core::fmt;

use vdi_proto::abort::{AbortReason, reason_text};
use vdi_proto::wire::join::Message;

/// Why a set was aborted, in full.
///
/// Display gives one line: the reason, and the text behind a colon.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abort {
    /// Which process, and what it did.
    pub reason: AbortReason,
    /// The completion code, system error or status (HRESULT) behind it; 0 where there is none.
    pub code: u32,
    /// What the process that aborted the set knows about it; empty where the reason says it all. A peer wrote it: it has no
    /// control characters, but it may say anything.
    pub text: String,
}

impl Abort {
    pub(crate) fn new(reason: AbortReason, code: u32, text: &str) -> Abort {
        Abort { reason, code, text: printable(text) }
    }

    pub(crate) fn message(&self) -> Message<'_> {
        Message::Aborted { reason: self.reason, code: self.code, text: reason_text(&self.text) }
    }
}

/// A text of a peer for a line of a log: line breaks and other control characters are blanks.
pub(crate) fn printable(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<AbortReason> for Abort {
    fn from(reason: AbortReason) -> Self {
        Abort::new(reason, 0, "")
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.text {
            "" => write!(f, "{}", self.reason),
            text => write!(f, "{}: {text}", self.reason),
        }
    }
}
