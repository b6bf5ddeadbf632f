//! The states of a virtual device set, on either side.
//!
//! [`client::step`] and [`server::step`] are the specification's two state tables as total functions: each pair of
//! state and call has exactly one row, without a catch-all. What the tables leave to circumstances (is a device left to
//! open? was that the last one to close?) comes in as part of the call, found out by the caller.
//!
//! [`SetPhase`] is the coarse view that the rules of buffer handles need.

pub mod client;
pub mod server;

#[cfg(test)]
mod tests;

use crate::status::VdError;

/// The outcome of a call in a state: the state afterwards, and what the call returns. A call may both fail and move
/// the set on (Close with open devices returns VD_E_OPEN, and the set is gone all the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step<S> {
    /// The state after the call.
    pub next: S,
    /// `NOERROR` or the status that the call returns.
    pub answer: Result<(), VdError>,
}

impl<S> Step<S> {
    pub(crate) const fn ok(next: S) -> Self {
        Step { next, answer: Ok(()) }
    }

    pub(crate) const fn fail(next: S, status: VdError) -> Self {
        Step { next, answer: Err(status) }
    }
}

/// What the rules of buffer handles need to know of a set's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetPhase {
    /// There is no set, it is not configured yet, or its work has ended.
    Closed,
    /// The set is configured and its devices are, or can be, at work.
    Open,
    /// The set was aborted.
    Aborted,
}

impl SetPhase {
    /// Whether GetBufferHandle and MapBufferHandle may be called at all.
    ///
    /// Source: VDI specification, GetBufferHandle: VD_E_PROTOCOL when "the set is not currently open".
    /// **Decision**: an aborted set is not open either.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open.
    #[inline]
    pub const fn handles_allowed(self) -> Result<(), VdError> {
        match self {
            SetPhase::Open => Ok(()),
            SetPhase::Closed | SetPhase::Aborted => Err(VdError::Protocol),
        }
    }
}

/// What OpenDevice finds when it looks for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The device exists and nobody opened it yet.
    Unopened,
    /// The device is open already, others are not.
    AlreadyOpen,
    /// All devices are open.
    AllOpen,
    /// There is no device of this name, and some are not open yet (client side only).
    NoSuchDevice,
}
