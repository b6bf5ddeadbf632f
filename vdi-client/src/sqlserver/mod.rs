//! SQL Server as a back end: sets through Microsoft's libsqlvdi.so, loaded at run time.
//!
//! # Invariants
//!
//! 1. `unsafe` is in [`library`], which says what is taken on trust, and in the one line of [`buffers`] that vouches for a
//!    buffer. What the library gives is looked at before it is used: what can be seen to be wrong aborts the set and is a
//!    violation, and is never followed.
//! 2. No two buffers that this process has overlap, prefix zones included, whatever the library gives, and to whichever of
//!    the process's sets.
//! 3. The library's Close, which takes the memory of buffers away, waits until the program has dropped them; the set counts
//!    as closed before.
//! 4. The library is never asked to wait for long: waits are made of short ones, so that they can be ended from here.

mod buffers;
mod device;
mod elf;
mod library;
mod loading;
mod memory;
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

pub(crate) use self::buffers::Buffer;
pub(crate) use self::device::{Device, DeviceShared, Held};
use self::library::Library;
pub(crate) use self::session::Session;
use crate::back_end::{SqlServer, TimeOutUnit};
use crate::buffer::MappedBuffer;
use crate::canceller::Canceller;
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::trace;

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
        let library = Library::load(path).map_err(|error| {
            let kind = if error.code() == VdError::Invalid { ErrorKind::Misuse } else { ErrorKind::System };
            let error = Error::new(kind, error.code(), "with_back_end", "", error.to_string()).because(error);
            if std::env::var_os("VDI_LOG").is_some_and(|log| !log.is_empty() && log != "0") {
                eprintln!("vdi-client: {error}");
            }
            error
        })?;
        Ok(Set { library, get_command_unit: options.get_command_unit, session: RwLock::default() })
    }

    fn slot(&self) -> RwLockWriteGuard<'_, Option<Arc<Session>>> {
        // The slot is whole at every moment.
        self.session.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, call: &'static str) -> Result<Arc<Session>, Error> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            let what = "this object has no set: create or join one first";
            Error::new(ErrorKind::Misuse, VdError::Protocol, call, "", what)
        })
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.session("name").ok().map(|session| session.set_name().to_owned())
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
        *slot = Some(Session::create(&self.library, self.get_command_unit, call, name, config)?);
        trace::event!(
            DEBUG,
            call = call,
            set = name,
            instance = "",
            devices = config.device_count,
            features = %config.features,
            server_time_out_ms = config.server_time_out,
            "set created"
        );
        Ok(())
    }

    pub(crate) fn join(&self, call: &'static str, instance: Option<&str>, name: &str) -> Result<(), Error> {
        let mut slot = self.vacant(call, instance, name)?;
        *slot = Some(Session::join(&self.library, self.get_command_unit, call, name)?);
        trace::event!(DEBUG, call = call, set = name, instance = "", "set joined");
        Ok(())
    }

    pub(crate) fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        self.session("GetConfiguration")?.get_configuration(timeout)
    }

    pub(crate) fn open_device(&self, name: &str) -> Result<ClientVirtualDevice, Error> {
        Device::open(self.session("OpenDevice")?, name).map(ClientVirtualDevice::of_vendor)
    }

    pub(crate) fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        let session = self.session("GetBufferHandle")?;
        let handle = session.get_buffer_handle(address)?;
        trace::event!(TRACE, call = "GetBufferHandle", set = session.set_name(), handle = %handle, "handle given");
        Ok(handle)
    }

    pub(crate) fn map_buffer_handle(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        const CALL: &str = "MapBufferHandle";
        let session = self.session(CALL)?;
        let Some(bytes) = bytes else {
            let what = "SQL Server's library does not tell how many bytes a buffer has; use map_buffer_handle_sized, with the \
                        size of the command";
            return Err(Error::new(ErrorKind::Misuse, VdError::NotSupported, CALL, session.set_name(), what));
        };
        let buffer = session.map_buffer_handle(handle, bytes)?;
        trace::event!(TRACE, call = CALL, set = session.set_name(), handle = %handle, bytes = bytes, "buffer mapped");
        Ok(MappedBuffer::of_vendor(buffer, handle))
    }

    pub(crate) fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        self.session("MapBufferHandle")?.map_buffer_address(handle)
    }

    pub(crate) fn signal_abort(&self) -> Result<(), Error> {
        self.session("SignalAbort")?.signal_abort()
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        let session = self.slot().take();
        match session {
            Some(session) => session.close(),
            None => self.session("Close").map(drop),
        }
    }

    pub(crate) fn canceller(&self) -> Result<Canceller, Error> {
        self.session("canceller").map(Canceller::of_vendor)
    }

    pub(crate) fn state(&self) -> State {
        self.session("state").map_or(State::DoesNotExist, |session| session.state())
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let session = self.slot().take();
        if let Some(session) = session {
            // Nobody is left to hear that devices were open; the others hear it from the abort.
            let _ = session.close();
        }
    }
}
