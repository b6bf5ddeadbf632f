//! The virtual device set, as a client uses it.
//!
//! Source of the rules: VDI specification, IClientVirtualDeviceSet2.

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
pub use vdi_proto::set::client::State;
use vdi_proto::status::VdError;

use crate::back_end::{BackEnd, Opener, Session};
use crate::buffer::MappedBuffer;
pub use crate::canceller::Canceller;
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::trace::{self, trace_refused};
use crate::unserved::Unserved;
use crate::{EnvironmentError, Options};

/// A virtual device set: IClientVirtualDeviceSet2.
///
/// The object may be used from any thread. It holds at most one set at a time and may be used for another one after
/// [`ClientVirtualDeviceSet::close`]. Dropping it closes the set.
///
/// The process that creates a set is its *primary*; others join it as *secondaries*.
///
/// The back end is chosen when the object is made: see [`BackEnd`].
#[derive(Debug)]
#[doc(alias("IClientVirtualDeviceSet2", "IClientVirtualDeviceSet"))]
pub struct ClientVirtualDeviceSet {
    /// The back end; an environment that cannot be understood is reported by the call that needs it.
    opener: Result<Opener, EnvironmentError>,
    session: RwLock<Option<Session>>,
    unserved: Arc<Unserved>,
}

impl Default for ClientVirtualDeviceSet {
    fn default() -> Self {
        Self::with_opener(Options::from_env().map(Opener::SharedMemory))
    }
}

impl ClientVirtualDeviceSet {
    /// An object without a set, with the options of the environment ([`Options::from_env`]). Where that cannot be understood,
    /// creating and joining a set fail with VD_E_INVALID and the name of the variable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An object without a set. `VDI_ALLOW_UID` and `VDI_ALLOW_GID` are not read: begin with [`Options::from_env`] to add to
    /// them.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        Self::with_opener(Ok(Opener::SharedMemory(options)))
    }

    /// An object without a set, on a back end that is chosen at run time.
    ///
    /// ```no_run
    /// use vdi_client::{BackEnd, ClientVirtualDeviceSet};
    ///
    /// // What VDI_LIBRARY names, else the shared memory of this library.
    /// let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Only for [`BackEnd::SqlServer`]: VD_E_NOTSUPPORTED when the feature `sqlserver` is off, and for a library without the
    /// interface's functions; VD_E_INVALID when there is no such file, or it is no shared library for this machine;
    /// VD_E_UNEXPECTED when the system cannot load it, for want of another library for example.
    pub fn with_back_end(back_end: BackEnd) -> Result<Self, Error> {
        let opener = Opener::new(back_end).inspect_err(trace_refused)?;
        Ok(Self::with_opener(Ok(opener)))
    }

    fn with_opener(opener: Result<Opener, EnvironmentError>) -> Self {
        ClientVirtualDeviceSet { opener, session: RwLock::default(), unserved: Arc::default() }
    }

    /// The set's name, if there is one.
    pub(crate) fn name(&self) -> Option<String> {
        self.with("name", |session| Ok(session.set_name().to_owned())).ok()
    }

    /// Does something short with the set.
    #[inline]
    fn with<T>(&self, call: &'static str, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let result = match &*self.session.read().unwrap_or_else(PoisonError::into_inner) {
            Some(session) => work(session),
            None => Err(Error::without_set(call)),
        };
        result.inspect_err(trace_refused)
    }

    /// The set, for calls that wait.
    pub(crate) fn session(&self, call: &'static str) -> Result<Session, Error> {
        self.with(call, |session| Ok(session.clone()))
    }

    /// The back end, for a call that makes a session.
    fn opener(&self, call: &'static str, name: &str) -> Result<&Opener, Error> {
        let invalid =
            |error: &EnvironmentError| Error::new(ErrorKind::Misuse, VdError::Invalid, call, name, error.to_string());
        self.opener.as_ref().map_err(invalid)
    }

    fn slot(&self) -> RwLockWriteGuard<'_, Option<Session>> {
        // The option is whole at every moment.
        self.session.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot, for a call that puts a set into it.
    fn vacant(&self, call: &'static str) -> Result<RwLockWriteGuard<'_, Option<Session>>, Error> {
        let slot = self.slot();
        let Some(session) = &*slot else { return Ok(slot) };
        let what = format!(
            "this call does not belong into state {:?}: this object has this set already; close it first, or use another \
             object",
            session.state()
        );
        Err(Error::new(ErrorKind::Misuse, VdError::Protocol, call, session.set_name(), what))
    }

    /// Creates a set on the default instance: [`ClientVirtualDeviceSet::create_ex`].
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::create_ex`].
    #[doc(alias = "Create")]
    pub fn create(&self, name: &str, config: &VdConfig) -> Result<(), Error> {
        self.create_as("Create", None, name, config).inspect_err(trace_refused)
    }

    /// Creates a set for a server instance (`None` or empty: the default one), so that the server can find it when it gets
    /// `BACKUP|RESTORE ... VIRTUAL_DEVICE='name'`. This process becomes the set's primary.
    ///
    /// # Errors
    /// VD_E_NOTSUPPORTED for a configuration field that no server serves; VD_E_PROTOCOL when this object has a set already, or
    /// a live set of this name exists; VD_E_INVALID and VD_E_INSTANCE_NAME for bad names; VD_E_SECURITY when the runtime
    /// directory is not to be trusted; VD_E_MEMORY and VD_E_UNEXPECTED when the system refuses.
    #[doc(alias = "CreateEx")]
    pub fn create_ex(&self, instance: Option<&str>, name: &str, config: &VdConfig) -> Result<(), Error> {
        self.create_as("CreateEx", instance, name, config).inspect_err(trace_refused)
    }

    /// Joins a set that another process created on the default instance:
    /// [`ClientVirtualDeviceSet::open_in_secondary_ex`].
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::open_in_secondary_ex`].
    #[doc(alias = "OpenInSecondary")]
    pub fn open_in_secondary(&self, name: &str) -> Result<(), Error> {
        self.join("OpenInSecondary", None, name).inspect_err(trace_refused)
    }

    /// Joins a set that another process created, to open devices of it here or to work on buffers by their handles.
    ///
    /// # Errors
    /// VD_E_PROTOCOL when this object has a set already, when there is no such set, when its primary has not got the
    /// configuration yet, and when its work has ended; VD_E_ABORT when it was aborted; VD_E_SECURITY when this process may
    /// not join, or does not trust the creator; VD_E_MEMORY when the set has as many processes as it can; VD_E_NOTSUPPORTED when
    /// its creator has another version of this library; VD_E_UNEXPECTED when the description of the set's memory was overwritten,
    /// and when the system refuses.
    #[doc(alias = "OpenInSecondaryEx")]
    pub fn open_in_secondary_ex(&self, instance: Option<&str>, name: &str) -> Result<(), Error> {
        self.join("OpenInSecondaryEx", instance, name).inspect_err(trace_refused)
    }

    /// Waits for the server to configure the set, and returns what was negotiated. Repeatable at once from then on, from any
    /// thread and in secondaries.
    ///
    /// # Errors
    /// VD_E_TIMEOUT when `timeout` passes first, or the wait is cancelled ([`ErrorKind::Cancelled`]); VD_E_ABORT; VD_E_PROTOCOL
    /// without a set.
    #[doc(alias = "GetConfiguration")]
    pub fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        Self::configuration_of(&self.session("GetConfiguration")?, timeout)
    }

    /// GetConfiguration of a set that this object has, or had until a moment ago.
    pub(crate) fn configuration_of(session: &Session, timeout: Duration) -> Result<VdConfig, Error> {
        let config = session.get_configuration(timeout).inspect_err(trace_refused)?;
        trace::event!(
            DEBUG,
            call = "GetConfiguration",
            set = session.set_name(),
            devices = config.device_count,
            features = %config.features,
            block_size = config.block_size,
            max_transfer_size = config.max_transfer_size,
            alignment = config.alignment,
            buffer_area_size = config.buffer_area_size,
            "configuration agreed"
        );
        Ok(config)
    }

    /// Opens a device by its name, for this process. Waits for the server to announce its devices, which it does right after
    /// it has configured the set.
    ///
    /// Every device needs a thread of its own that gets and completes its commands: a server sends to all devices at once.
    /// [`ClientVirtualDeviceSet::serve`] opens all devices and starts the threads.
    ///
    /// # Errors
    /// VD_E_OPEN when all devices are open; VD_E_PROTOCOL when this one is, and before the configuration; VD_E_INVALID when
    /// the set has no device of this name; VD_E_ABORT; VD_E_TIMEOUT when the wait is cancelled.
    #[doc(alias = "OpenDevice")]
    pub fn open_device(&self, name: &str) -> Result<ClientVirtualDevice, Error> {
        self.device_of(&self.session("OpenDevice")?, name)
    }

    /// OpenDevice of a set that this object has, or had until a moment ago.
    pub(crate) fn device_of(&self, session: &Session, name: &str) -> Result<ClientVirtualDevice, Error> {
        let device = session.open_device(name).inspect_err(trace_refused)?;
        trace::event!(DEBUG, call = "OpenDevice", set = device.set_name(), device = name, "device opened");
        Ok(ClientVirtualDevice::new(device, Arc::clone(&self.unserved)))
    }

    /// The handle of a buffer, by which other processes of the set can map it. The caller stays responsible for completing
    /// the command. See also [`crate::Command::buffer_handle`].
    ///
    /// ```no_run
    /// # use vdi_client::{ClientVirtualDeviceSet, Command};
    /// # fn f(set: &ClientVirtualDeviceSet, command: &Command) -> Result<(), vdi_client::Error> {
    /// if let Some(address) = command.buffer_address() {
    ///     let handle = set.get_buffer_handle(address)?;
    ///     println!("{}", handle.number()); // to the other process, which calls map_buffer_handle
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID unless `address` is the data start of a buffer that an outstanding
    /// command of this process holds.
    #[inline]
    #[doc(alias = "GetBufferHandle")]
    pub fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        const CALL: &str = "GetBufferHandle";
        self.with(CALL, |session| {
            let handle = session.get_buffer_handle(address)?;
            trace::event!(TRACE, call = CALL, set = session.set_name(), handle = %handle, "handle given");
            Ok(handle)
        })
    }

    /// Maps the buffer that another process of this set got with a command. Until the [`MappedBuffer`] is dropped, that
    /// command cannot be completed (VD_E_BUSY).
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_BUSY when
    /// this process has the buffer already, or when the command's holder stands still in the middle of a completion for
    /// a second; VD_E_ABORT when the server lent a buffer that cannot be, which aborts the set;
    /// VD_E_NOTSUPPORTED on [`BackEnd::SqlServer`], whose library does not give the length of a buffer:
    /// [`ClientVirtualDeviceSet::map_buffer_handle_sized`] works on every back end.
    #[inline]
    #[doc(alias = "MapBufferHandle")]
    pub fn map_buffer_handle(&self, handle: BufferHandle) -> Result<MappedBuffer, Error> {
        self.map(handle, None)
    }

    /// As [`ClientVirtualDeviceSet::map_buffer_handle`], with the number of bytes that the command has, which its holder
    /// knows ([`crate::Command::size`]). [`MappedBuffer::data`] has that many. Works on every back end.
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::map_buffer_handle`]; VD_E_INVALID when the buffer cannot have so many bytes.
    #[inline]
    #[doc(alias = "MapBufferHandle")]
    pub fn map_buffer_handle_sized(&self, handle: BufferHandle, bytes: usize) -> Result<MappedBuffer, Error> {
        self.map(handle, Some(bytes))
    }

    /// MapBufferHandle as foreign interfaces have it, without an end of the mapping: the address of the buffer in this process,
    /// good until the set is closed here. It is no lease: nothing keeps the command from being completed while a
    /// thread works at the address. Complete it only after that.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_ABORT when
    /// the buffer cannot be where the server says, which aborts the set.
    #[inline]
    #[doc(alias = "MapBufferHandle")]
    pub fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        self.session("MapBufferHandle")?.map_buffer_address(handle).inspect_err(trace_refused)
    }

    /// Aborts the set: every blocked call in every process returns VD_E_ABORT, and the statement fails.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    #[doc(alias = "SignalAbort")]
    pub fn signal_abort(&self) -> Result<(), Error> {
        self.session("SignalAbort")?.signal_abort().inspect_err(trace_refused)
    }

    /// As [`ClientVirtualDeviceSet::signal_abort`], and says why: the server's messages and the errors of the other processes
    /// have `reason`. `code` is the completion code that stands for it, such as [`CompletionCode::DISK_FULL`]. The reason is
    /// cut at 512 bytes.
    ///
    /// On [`BackEnd::SqlServer`] the reason stays here: the interface has no place for it.
    ///
    /// ```no_run
    /// # use vdi_client::{ClientVirtualDeviceSet, CompletionCode};
    /// # fn f(set: &ClientVirtualDeviceSet) -> Result<(), vdi_client::Error> {
    /// set.signal_abort_because(CompletionCode::DISK_FULL, "/backup/sales.bak: the disk is full")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn signal_abort_because(&self, code: CompletionCode, reason: &str) -> Result<(), Error> {
        self.session("SignalAbort")?.signal_abort_because(code, reason).inspect_err(trace_refused)
    }

    /// Closes the set in this process; the object may be used for another one. Waits of other threads end. Buffers that are
    /// still held stay mapped until they are dropped.
    ///
    /// A primary ends the set for all processes; a secondary leaves it.
    ///
    /// # Errors
    /// VD_E_OPEN when devices had not returned VD_E_CLOSE: the set was aborted, and is closed all the same. VD_E_PROTOCOL
    /// without a set.
    #[doc(alias = "Close")]
    pub fn close(&self) -> Result<(), Error> {
        const CALL: &str = "Close";
        let session = self.slot().take();
        let closed = session.ok_or_else(|| Error::without_set(CALL)).and_then(|session| {
            let closed = session.close();
            self.unserved.clear();
            trace::event!(DEBUG, call = CALL, set = session.set_name(), "set closed");
            closed
        });
        closed.inspect_err(trace_refused)
    }

    /// What ends the waits of this process from another thread.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn canceller(&self) -> Result<Canceller, Error> {
        self.session("canceller").map(Canceller::new)
    }

    /// The state of this process's object, by the specification's table.
    #[must_use]
    pub fn state(&self) -> State {
        self.session.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(State::DoesNotExist, Session::state)
    }

    fn create_as(
        &self,
        call: &'static str,
        instance: Option<&str>,
        name: &str,
        config: &VdConfig,
    ) -> Result<(), Error> {
        let mut slot = self.vacant(call)?;
        *slot = Some(self.opener(call, name)?.create(call, instance, name, config)?);
        trace::event!(
            DEBUG,
            call = call,
            set = name,
            instance = instance.unwrap_or(""),
            devices = config.device_count,
            features = %config.features,
            server_time_out_ms = config.server_time_out,
            "set created"
        );
        Ok(())
    }

    fn join(&self, call: &'static str, instance: Option<&str>, name: &str) -> Result<(), Error> {
        let mut slot = self.vacant(call)?;
        let session = self.opener(call, name)?.join(call, instance, name)?;
        let member = session.member();
        *slot = Some(session);
        trace::event!(DEBUG, call = call, set = name, instance = instance.unwrap_or(""), member = member, "set joined");
        Ok(())
    }

    #[inline]
    fn map(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        const CALL: &str = "MapBufferHandle";
        let session = self.session(CALL)?;
        let buffer = session.map_buffer_handle(handle, bytes).inspect_err(trace_refused)?;
        let (set, bytes) = (session.set_name(), buffer.data().len());
        trace::event!(TRACE, call = CALL, set = set, handle = %handle, bytes = bytes, "buffer mapped");
        Ok(MappedBuffer::new(buffer))
    }
}

impl Drop for ClientVirtualDeviceSet {
    fn drop(&mut self) {
        // The program hears no more that devices were open; the other processes hear it from the abort.
        if self.slot().is_some() {
            let _ = self.close();
        }
    }
}
