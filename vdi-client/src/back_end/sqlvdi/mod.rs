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

use core::ptr::NonNull;
use core::time::Duration;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::name::check_name;
use vdi_proto::set::client::State;
use vdi_proto::status::VdError;

pub(crate) use self::buffers::MappedBuffer;
pub(crate) use self::device::{Device, DeviceRef, HeldCommand};
use self::library::Library;
use self::session::Session;
use super::options::{SqlServer, TimeOutUnit};
use crate::error::{Error, ErrorKind};

/// What ends the waits of this process.
pub(crate) type Waits = Arc<Session>;

/// A set object on SQL Server's library.
#[derive(Debug)]
pub(crate) struct Set {
    library: Arc<Library>,
    get_command_unit: TimeOutUnit,
    session: RwLock<Option<Arc<Session>>>,
}

impl Set {
    pub(crate) fn new(options: &SqlServer) -> Result<Set, Error> {
        let path = options.library.as_deref().unwrap_or(Path::new(SqlServer::DEFAULT_LIBRARY));
        let library = Library::load(path).map_err(|error| Error::lower("with_back_end", "", error))?;
        Ok(Set { library, get_command_unit: options.get_command_unit, session: RwLock::default() })
    }

    fn slot(&self) -> RwLockWriteGuard<'_, Option<Arc<Session>>> {
        // The option is whole at every moment.
        self.session.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, call: &'static str) -> Result<Arc<Session>, Error> {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner).clone();
        session.ok_or_else(|| Error::without_set(call))
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.session("name").ok().map(|session| session.set_name().to_owned())
    }

    pub(crate) fn state(&self) -> State {
        self.session("state").map_or(State::DoesNotExist, |session| session.state())
    }

    /// The slot, for a call that puts a set into it.
    fn vacant(
        &self,
        call: &'static str,
        instance: Option<&str>,
        name: &str,
    ) -> Result<RwLockWriteGuard<'_, Option<Arc<Session>>>, Error> {
        let refused = |code, what: String| Err(Error::new(ErrorKind::Misuse, code, call, name, what));
        let slot = self.slot();
        if let Some(session) = &*slot {
            let what =
                format!("this object has set {:?} already: close it first, or use another object", session.set_name());
            return refused(VdError::Protocol, what);
        }
        if let Some(instance) = instance.filter(|instance| !instance.is_empty()) {
            let what = format!("SQL Server on Linux has no instances, so none {instance:?}: leave the name away");
            return refused(VdError::InstanceName, what);
        }
        match check_name(name) {
            Ok(()) => Ok(slot),
            Err(error) => refused(error.code(), format!("set {name:?}: {error}")),
        }
    }

    pub(crate) fn create(
        &self,
        call: &'static str,
        instance: Option<&str>,
        name: &str,
        config: &VdConfig,
    ) -> Result<(), Error> {
        let mut slot = self.vacant(call, instance, name)?;
        let session = Session::new(&self.library, self.get_command_unit, name, true);
        session.check(call, session.object().create(name, config))?;
        *slot = Some(session);
        Ok(())
    }

    pub(crate) fn join(&self, call: &'static str, instance: Option<&str>, name: &str) -> Result<Option<u32>, Error> {
        let mut slot = self.vacant(call, instance, name)?;
        let session = Session::new(&self.library, self.get_command_unit, name, false);
        session.check(call, session.object().open_in_secondary(name))?;
        *slot = Some(session);
        Ok(None)
    }

    pub(crate) fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        self.session("GetConfiguration")?.get_configuration(timeout)
    }

    pub(crate) fn open_device(&self, name: &str) -> Result<Device, Error> {
        Device::open(self.session("OpenDevice")?, name).map_err(|error| error.of_device(name))
    }

    pub(crate) fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        self.session("GetBufferHandle")?.get_buffer_handle(address)
    }

    pub(crate) fn map_buffer_handle(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        let session = self.session("MapBufferHandle")?;
        session.map_buffer_handle(handle, bytes).map(|buffer| MappedBuffer::new(buffer, handle))
    }

    pub(crate) fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        self.session("MapBufferHandle")?.map_buffer_address(handle)
    }

    pub(crate) fn signal_abort(&self) -> Result<(), Error> {
        self.session("SignalAbort")?.signal_abort()
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        let session = self.slot().take();
        session.ok_or_else(|| Error::without_set("Close"))?.close()
    }

    pub(crate) fn canceller(&self) -> Result<Waits, Error> {
        self.session("canceller")
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // The program hears no more that devices were open; the other processes hear it from the abort.
        let _ = self.close();
    }
}
