//! Sets through SQL Server's libsqlvdi.so, loaded at run time.
//!
//! | file | what it holds |
//! |---|---|
//! | `loading` | finding the library, and the errors of loading it |
//! | `library` | all `unsafe` calls |
//! | `session` | a set that this process created or joined |
//! | `buffers` | the registry of buffers |
//! | `device` | devices and their commands |
//!
//! # Trust
//!
//! A library that has the interface's functions is trusted to keep to the published layouts, and to give addresses of memory that
//! is there. Only nulls and sizes are checked: what is wrong with those aborts the set and is a violation.
//!
//! # Invariants
//!
//! 1. No two buffers that this process has overlap, prefix zones included, whatever the library gives, and to whichever of
//!    the process's sets.
//! 2. The library's Close, which takes the memory of buffers away, waits until the program has dropped them. The set counts
//!    as closed before.
//! 3. The library is never asked to wait for long: waits are made of short ones, so that they can be ended from here.

mod buffers;
mod device;
mod library;
mod loading;
mod session;

use std::path::Path;
use std::sync::Arc;

use vdi_proto::config::VdConfig;
use vdi_proto::name::check_name;
use vdi_proto::status::VdError;

pub(crate) use self::buffers::MappedBuffer;
pub(crate) use self::device::{Device, DeviceRef, HeldCommand};
use self::library::Library;
use super::options::{SqlServer, TimeOutUnit};
use crate::error::{Error, ErrorKind};

pub(crate) type Session = Arc<session::Session>;

/// What creates sets through a library, and joins them.
#[derive(Debug)]
pub(crate) struct Opener {
    library: Arc<Library>,
    get_command_unit: TimeOutUnit,
}

impl Opener {
    pub(crate) fn new(options: &SqlServer) -> Result<Opener, Error> {
        let path = options.library.as_deref().unwrap_or(Path::new(SqlServer::DEFAULT_LIBRARY));
        let library = Library::load(path).map_err(|error| Error::lower("with_back_end", "", error))?;
        Ok(Opener { library, get_command_unit: options.get_command_unit })
    }

    /// A session whose object is about to get its set.
    fn session(&self, call: &'static str, instance: Option<&str>, name: &str, primary: bool) -> Result<Session, Error> {
        let refused = |code, what: String| Err(Error::new(ErrorKind::Misuse, code, call, name, what));
        if let Some(instance) = instance.filter(|instance| !instance.is_empty()) {
            let what = format!("SQL Server on Linux has no instances, so none {instance:?}: leave the name away");
            return refused(VdError::InstanceName, what);
        }
        match check_name(name) {
            Ok(()) => Ok(session::Session::new(&self.library, self.get_command_unit, name, primary)),
            Err(error) => refused(error.code(), format!("set {name:?}: {error}")),
        }
    }

    pub(crate) fn create(
        &self,
        call: &'static str,
        instance: Option<&str>,
        name: &str,
        config: &VdConfig,
    ) -> Result<Session, Error> {
        let session = self.session(call, instance, name, true)?;
        session.check(call, session.object().create(name, config))?;
        Ok(session)
    }

    pub(crate) fn join(&self, call: &'static str, instance: Option<&str>, name: &str) -> Result<Session, Error> {
        let session = self.session(call, instance, name, false)?;
        session.check(call, session.object().open_in_secondary(name))?;
        Ok(session)
    }
}
