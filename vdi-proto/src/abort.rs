//! Why a set was aborted: which process, and what it did.
//!
//! Source: VDI specification, SignalAbort and "Abnormal termination". The interface reports only *that* a set was
//! aborted. The reason is an addition of this project. A process adds a short text ([`reason_text`]) where it knows more
//! than the cause says.

use core::fmt;

use crate::index::MemberIndex;

/// The process that caused an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    /// The server.
    Server,
    /// The process that created the set.
    Primary,
    /// A process that joined by OpenInSecondary.
    Secondary(MemberIndex),
    /// A process of the set; which one is unknown. Any member can write to shared memory.
    Unknown,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Server => f.write_str("the server"),
            Process::Primary => f.write_str("the primary client"),
            Process::Secondary(member) => write!(f, "secondary client {member}"),
            Process::Unknown => f.write_str("a process of the set"),
        }
    }
}

/// What the process did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It called SignalAbort.
    Signalled,
    /// It died, or its connection broke.
    Died,
    /// Its time-out passed with requests pending and none completing (see [`crate::timeout`]).
    TimedOut,
    /// It broke the protocol.
    BrokeProtocol,
    /// It closed the set before the work had ended.
    ClosedEarly,
    /// It dropped a command that could not be completed.
    AbandonedCommand,
    /// It dropped a device that the server had not closed.
    AbandonedDevice,
    /// It could not go on, for a reason of its own. The text of the abort says which.
    GaveUp,
    /// A cause that this version does not know.
    Unknown(u8),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Signalled => "called SignalAbort",
            Cause::Died => "died",
            Cause::TimedOut => "waited longer than serverTimeOut allows",
            Cause::BrokeProtocol => "broke the protocol",
            Cause::ClosedEarly => "closed the set before the work had ended",
            Cause::AbandonedCommand => "dropped a command that could not be completed",
            Cause::AbandonedDevice => "dropped a device that was still open",
            Cause::GaveUp => "gave up",
            Cause::Unknown(number) => return write!(f, "aborted it for a cause unknown here ({number})"),
        })
    }
}

/// Why a set was aborted.
///
/// ```
/// use vdi_proto::abort::{AbortReason, Cause, Process};
/// use vdi_proto::index::MemberIndex;
///
/// let member = MemberIndex::new(3).unwrap();
/// let reason = AbortReason { process: Process::Secondary(member), cause: Cause::Died };
/// assert_eq!(reason.to_string(), "secondary client 3 died");
/// assert_eq!(AbortReason::from_word(reason.to_word()), Some(reason));
/// assert_eq!(AbortReason::from_word(0), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbortReason {
    /// The process that caused it.
    pub process: Process,
    /// What that process did.
    pub cause: Cause,
}

impl AbortReason {
    /// The reason as one word; never 0, which means "not aborted".
    #[must_use]
    pub const fn to_word(self) -> u32 {
        let cause = match self.cause {
            Cause::Signalled => 1,
            Cause::Died => 2,
            Cause::TimedOut => 3,
            Cause::BrokeProtocol => 4,
            Cause::ClosedEarly => 5,
            Cause::AbandonedCommand => 6,
            Cause::AbandonedDevice => 7,
            Cause::GaveUp => 8,
            Cause::Unknown(number) => number as u32,
        };
        let (role, member) = match self.process {
            Process::Server => (1, 0),
            Process::Primary => (2, 0),
            Process::Secondary(member) => (3, member.get()),
            Process::Unknown => (4, 0),
        };
        cause << 24 | role << 16 | member
    }

    /// The reason of a word; `None` for 0. Every other word is a reason, so a stray write aborts the set as well.
    #[must_use]
    #[inline]
    pub const fn from_word(word: u32) -> Option<Self> {
        if word == 0 {
            return None;
        }
        let cause = match (word >> 24) as u8 {
            1 => Cause::Signalled,
            2 => Cause::Died,
            3 => Cause::TimedOut,
            4 => Cause::BrokeProtocol,
            5 => Cause::ClosedEarly,
            6 => Cause::AbandonedCommand,
            7 => Cause::AbandonedDevice,
            8 => Cause::GaveUp,
            number => Cause::Unknown(number),
        };
        let process = match ((word >> 16) as u8, MemberIndex::new(word & 0xffff)) {
            (1, _) => Process::Server,
            (2, _) => Process::Primary,
            (3, Some(member)) => Process::Secondary(member),
            _ => Process::Unknown,
        };
        Some(AbortReason { process, cause })
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.process, self.cause)
    }
}

/// The most bytes of the text of an abort, and of a refusal.
pub const MAX_REASON_BYTES: usize = 512;

/// The beginning of a text that fits into [`MAX_REASON_BYTES`]. Never cuts a character.
///
/// ```
/// use vdi_proto::abort::{MAX_REASON_BYTES, reason_text};
///
/// assert_eq!(reason_text("the disk is full"), "the disk is full");
/// assert_eq!(reason_text(&"ü".repeat(400)).len(), MAX_REASON_BYTES);
/// ```
#[must_use]
pub fn reason_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_word_but_zero_is_a_reason(word in 1u32..) {
            let reason = AbortReason::from_word(word).expect("only 0 is none");
            let again = reason.to_word();
            prop_assert_ne!(again, 0);
            prop_assert_eq!(AbortReason::from_word(again), Some(reason));
        }

        #[test]
        fn secondary_keeps_its_index(index in 0..crate::index::MAX_MEMBERS) {
            let process = Process::Secondary(MemberIndex::new(index).expect("below the limit"));
            let reason = AbortReason { process, cause: Cause::Died };
            prop_assert_eq!(AbortReason::from_word(reason.to_word()), Some(reason));
        }
    }
}
