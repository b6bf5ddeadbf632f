//! Errors of the server interface.

use std::error::Error;

use vdi_proto::status::VdError;
use vdi_shm::set::error::JoinError;

use crate::trace;

/// A call of the server interface that failed.
#[derive(Debug, thiserror::Error)]
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
    pub source: Option<Box<dyn Error + Send + Sync>>,
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

    /// An error of the layer below.
    pub(crate) fn lower(
        call: &'static str,
        set: &str,
        code: VdError,
        error: impl Error + Send + Sync + 'static,
    ) -> Self {
        let what = error.to_string();
        VdsError { call, set: set.to_owned(), device: None, code, what, source: Some(Box::new(error)) }.traced()
    }

    /// Whether there is no such set. A set that refuses this process is there.
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
