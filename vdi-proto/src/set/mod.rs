//! The states of a virtual device set, on either side.
//!
//! [`client::step`] and [`server::step`] are the specification's two state tables as total functions. Every pair of state
//! and call is one row; there is no catch-all. Where an answer depends on circumstances (is a device left to open? was
//! this the last device to close?), the caller determines them and passes them in with the call.

pub mod client;
pub mod server;

#[cfg(test)]
mod tests;

use crate::status::VdError;

/// The outcome of a call: the state after it, and what it returns. A call may fail and change the state: Close with open
/// devices returns VD_E_OPEN, and the set is closed.
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

/// A set's state, as far as the rules of buffer handles ([`crate::handle`]) depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetPhase {
    /// There is no set, it is not configured yet, or its work has ended.
    Closed,
    /// The set is configured, and its work has not ended.
    Open,
    /// The set was aborted.
    Aborted,
}

impl SetPhase {
    /// Whether GetBufferHandle and MapBufferHandle may be called.
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

/// The circumstances of OpenDevice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The device exists and is not open.
    Unopened,
    /// The device is already open; others are not.
    AlreadyOpen,
    /// All devices are open.
    AllOpen,
    /// No device has this name, and some are not open (client side only).
    NoSuchDevice,
}
