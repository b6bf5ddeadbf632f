//! The end of waits, from another thread.

use crate::back_end::Session;

/// Ends the waits of a set's process from another thread, without aborting the set.
///
/// ```
/// use std::time::Duration;
/// use vdi_client::{ClientVirtualDeviceSet, ErrorKind, INFINITE, Options, VdConfig, VdError};
///
/// let runtime = tempfile::tempdir().unwrap();
/// let options = Options { runtime_dir: Some(runtime.path().into()), ..Options::default() };
/// let set = ClientVirtualDeviceSet::with_options(options);
/// set.create("doc-cancel", &VdConfig::default()).unwrap();
/// // The statement failed before the server came: there is nothing to wait for.
/// let canceller = set.canceller().unwrap();
/// std::thread::spawn(move || canceller.cancel());
/// let error = set.get_configuration(INFINITE).unwrap_err();
/// assert_eq!((error.code(), error.kind()), (VdError::Timeout, ErrorKind::Cancelled));
/// ```
#[derive(Debug, Clone)]
pub struct Canceller(Session);

impl Canceller {
    /// Ends every wait of this process in the set, now and until [`Canceller::resume`]: each returns VD_E_TIMEOUT, with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Lets this process wait again.
    pub fn resume(&self) {
        self.0.resume();
    }

    pub(crate) fn new(session: Session) -> Canceller {
        Canceller(session)
    }
}
