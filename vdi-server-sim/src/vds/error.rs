//! Errors of the server interface.

use std::error::Error;

use vdi_proto::status::VdError;
use vdi_shm::set::error::JoinError;

use crate::trace;

/// The error of a call of the server interface.
#[derive(Debug, thiserror::Error)]
#[error("{call}{} of set {set:?}: {} ({:#010x}): {what}", show_device(device.as_deref()), code.name(), code.hresult())]
pub struct VdsError {
    /// The call, by its published name.
    pub call: &'static str,
    /// The set's name; empty if no set is open.
    pub set: String,
    /// The device's name; `None` for a call of the set.
    pub device: Option<String>,
    /// The status of the call.
    pub code: VdError,
    /// The reason and a remedy.
    pub what: String,
    /// The error of the layer below that caused this one.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

fn show_device(device: Option<&str>) -> String {
    device.map(|device| format!(" on device {device:?}")).unwrap_or_default()
}

impl VdsError {
    /// An error. The constructors trace it, so that every error is traced.
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

    /// An error that an error of the layer below caused.
    pub(crate) fn lower(
        call: &'static str,
        set: &str,
        code: VdError,
        error: impl Error + Send + Sync + 'static,
    ) -> Self {
        let what = error.to_string();
        VdsError { call, set: set.to_owned(), device: None, code, what, source: Some(Box::new(error)) }.traced()
    }

    /// Whether Open failed because the set does not exist.
    pub(crate) fn is_no_such_set(&self) -> bool {
        let joining = self.source.as_deref().and_then(|source| source.downcast_ref::<JoinError>());
        self.call == "Open" && joining.is_none_or(|error| matches!(error, JoinError::NoSuchSet { .. }))
    }

    #[cold]
    fn traced(self) -> Self {
        trace::event!(
            DEBUG,
            call = self.call,
            set = &*self.set,
            device = self.device.as_deref(),
            code = self.code.name(),
            error = %self,
            "call refused"
        );
        self
    }
}
