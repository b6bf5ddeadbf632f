//! Errors that several parts have in common.

use std::io;

use thiserror::Error;

pub use super::remedy::Operation;
use super::remedy::remedy;

/// The system refused something.
#[derive(Debug, Error)]
#[error("could not {action}: {source}{}", remedy(*operation, source))]
pub struct SystemError {
    /// What was tried.
    pub action: String,
    /// What it needs of the system: the remedy depends on it.
    pub operation: Operation,
    /// The system's reason.
    pub source: io::Error,
}

impl SystemError {
    /// An error of [`Operation::Object`].
    pub(crate) fn new(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        SystemError::of(Operation::Object, action, source)
    }

    pub(crate) fn of(operation: Operation, action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        SystemError { action: action.into(), operation, source: source.into() }
    }
}

/// Something in or above the runtime directory is not to be trusted or not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}; {remedy}")]
pub struct Untrusted {
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Untrusted {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Untrusted { what: what.into(), remedy: remedy.into() }
    }
}
