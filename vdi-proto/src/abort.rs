//! Why a set was aborted, in one word that every process of the set can read.
//!
//! Source: VDI specification, SignalAbort and "Abnormal termination". The interface knows only *that* a set was
//! aborted; the reason is this project's addition, so that nobody has to guess which process died.

use core::fmt;

/// Who caused an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// The server.
    Server,
    /// The process that created the set.
    Primary,
    /// A process that joined by OpenInSecondary; the number is its place in the set.
    Secondary(u16),
    /// One of its processes, and nobody can tell which: it wrote where it must not.
    Somebody,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Server => f.write_str("the server"),
            Party::Primary => f.write_str("the primary client"),
            Party::Secondary(member) => write!(f, "secondary client {member}"),
            Party::Somebody => f.write_str("a process of the set"),
        }
    }
}

/// What made a party abort the set, or made others abort it on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
            Cause::Unknown(number) => return write!(f, "aborted it for a cause unknown here ({number})"),
        })
    }
}

/// Why a set was aborted.
///
/// ```
/// use vdi_proto::abort::{AbortReason, Cause, Party};
///
/// let reason = AbortReason { party: Party::Secondary(3), cause: Cause::Died };
/// assert_eq!(reason.to_string(), "secondary client 3 died");
/// assert_eq!(AbortReason::from_word(reason.to_word()), Some(reason));
/// assert_eq!(AbortReason::from_word(0), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbortReason {
    /// Who caused it.
    pub party: Party,
    /// What it did.
    pub cause: Cause,
}

impl AbortReason {
    /// The word for the control segment; never 0, which stands for "not aborted".
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
            Cause::Unknown(number) => number as u32,
        };
        let (side, member) = match self.party {
            Party::Server => (1, 0),
            Party::Primary => (2, 0),
            Party::Secondary(member) => (3, member as u32),
            Party::Somebody => (4, 0),
        };
        cause << 24 | side << 16 | member
    }

    /// From the word; `None` for 0. Any other word is a reason: a scribbled one aborts the set as well.
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
            number => Cause::Unknown(number),
        };
        let party = match (word >> 16) as u8 {
            1 => Party::Server,
            2 => Party::Primary,
            4 => Party::Somebody,
            _ => Party::Secondary(word as u16),
        };
        Some(AbortReason { party, cause })
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.party, self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every word but 0 is a reason, and a reason's own word leads back to it.
        #[test]
        fn words_and_reasons(word in 1u32..) {
            let reason = AbortReason::from_word(word).expect("no word but 0 is none");
            let again = reason.to_word();
            prop_assert_ne!(again, 0);
            prop_assert_eq!(AbortReason::from_word(again), Some(reason));
        }
    }
}
