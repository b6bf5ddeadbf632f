//! Errors of the server interface.

use thiserror::Error;
use vdi_proto::status::VdError;
use vdi_shm::error::ShmError;

use crate::trace;

/// A call of the server interface that failed.
#[derive(Debug, Error)]
#[error("{call}{} of set {set:?}: {} ({:#010x}): {what}", show_device(device.as_deref()), code.name(), code.hresult())]
pub struct VdsError {
    /// The call, by its published name.
    pub call: &'static str,
    /// The set's name, empty where there is none.
    pub set: String,
    /// The device's name, where it is about one.
    pub device: Option<String>,
    /// The status that the call returns.
    pub code: VdError,
    /// What went wrong, and what to do.
    pub what: String,
    /// The error below.
    pub source: Option<Box<ShmError>>,
}

fn show_device(device: Option<&str>) -> String {
    device.map(|device| format!(" on device {device:?}")).unwrap_or_default()
}

impl VdsError {
    /// A call that is refused. Making the error traces it, so that no refusal is left out.
    pub(crate) fn new(call: &'static str, set: &str, code: VdError, what: impl Into<String>) -> Self {
        VdsError { call, set: set.to_owned(), device: None, code, what: what.into(), source: None }.traced()
    }

    pub(crate) fn on_device(
        call: &'static str,
        set: &str,
        device: &str,
        code: VdError,
        what: impl Into<String>,
    ) -> Self {
        let device = Some(device.to_owned());
        VdsError { call, set: set.to_owned(), device, code, what: what.into(), source: None }.traced()
    }

    pub(crate) fn from_shm(call: &'static str, set: &str, error: ShmError) -> Self {
        let (code, what) = (error.code(), error.to_string());
        VdsError { call, set: set.to_owned(), device: None, code, what, source: Some(Box::new(error)) }.traced()
    }

    fn traced(self) -> Self {
        trace::refused(&self);
        self
    }
}
