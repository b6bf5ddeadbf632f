//! The end of waits, from another thread, on whichever back end.

use std::sync::Arc;

use vdi_shm::session::Session;

#[cfg(feature = "sqlserver")]
use crate::sqlserver;

/// Ends the waits of a set's process from another thread, without aborting the set.
///
/// ```
/// use std::time::Duration;
/// use vdi_client::{ClientVirtualDeviceSet, INFINITE, Options, VdConfig, VdError};
///
/// let runtime = tempfile::tempdir().unwrap();
/// let options = Options { runtime_dir: Some(runtime.path().into()), ..Options::default() };
/// let set = ClientVirtualDeviceSet::with_options(options);
/// set.create("doc-cancel", &VdConfig::default()).unwrap();
/// // The statement failed before the server came: nobody needs to wait for it any longer.
/// let canceller = set.canceller().unwrap();
/// std::thread::spawn(move || canceller.cancel());
/// let error = set.get_configuration(INFINITE).unwrap_err();
/// assert_eq!(error.code(), VdError::Timeout);
/// ```
#[derive(Debug, Clone)]
pub struct Canceller(Waits);

#[derive(Debug, Clone)]
enum Waits {
    Own(Arc<Session>),
    #[cfg(feature = "sqlserver")]
    SqlServer(Arc<sqlserver::Session>),
}

impl Canceller {
    /// Ends every wait of this process in the set, now and until [`Canceller::resume`]: each returns VD_E_TIMEOUT.
    pub fn cancel(&self) {
        match &self.0 {
            Waits::Own(session) => session.cancel(),
            #[cfg(feature = "sqlserver")]
            Waits::SqlServer(session) => session.cancel(),
        }
    }

    /// Lets this process wait again.
    pub fn resume(&self) {
        match &self.0 {
            Waits::Own(session) => session.resume(),
            #[cfg(feature = "sqlserver")]
            Waits::SqlServer(session) => session.resume(),
        }
    }

    pub(crate) const fn of_own(session: Arc<Session>) -> Canceller {
        Canceller(Waits::Own(session))
    }

    #[cfg(feature = "sqlserver")]
    pub(crate) fn of_vendor(session: Arc<sqlserver::Session>) -> Canceller {
        Canceller(Waits::SqlServer(session))
    }
}
