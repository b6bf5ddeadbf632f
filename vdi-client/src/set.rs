//! The virtual device set, as a client uses it.
//!
//! Source of the rules: VDI specification, IClientVirtualDeviceSet2.

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use vdi_proto::abort::Cause;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::join::Role;
use vdi_proto::layout::LayoutError;
use vdi_proto::name::check_name;
use vdi_proto::set::Opening;
use vdi_proto::set::client::{Call, State};
use vdi_proto::status::VdError;
use vdi_shm::area::{BufferError, Keep};
use vdi_shm::control::ClientWord;
use vdi_shm::host::Host;
use vdi_shm::member::Member;
use vdi_shm::runtime::Options;
use vdi_shm::wait;

use crate::back_end::BackEnd;
use crate::buffer::MappedBuffer;
pub use crate::canceller::Canceller;
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
#[cfg(feature = "sqlserver")]
use crate::sqlserver;
use crate::state::{Attached, Membership};
use crate::trace;

/// A virtual device set: IClientVirtualDeviceSet2.
///
/// The object may be used from any thread. It holds at most one set at a time and may be used for another one after
/// [`ClientVirtualDeviceSet::close`]. Dropping it closes the set.
///
/// The process that creates a set is its *primary*; others join it as *secondaries*.
///
/// Who carries the set is chosen when the object is made: see [`BackEnd`].
#[derive(Debug)]
pub struct ClientVirtualDeviceSet(Inner);

/// The back end of a set.
#[derive(Debug)]
enum Inner {
    Own(Own),
    #[cfg(feature = "sqlserver")]
    SqlServer(sqlserver::Set),
}

/// The same call of whichever back end.
macro_rules! either {
    ($set:expr, $it:ident => $call:expr) => {
        match &$set.0 {
            Inner::Own($it) => $call,
            #[cfg(feature = "sqlserver")]
            Inner::SqlServer($it) => $call,
        }
    };
}

/// Sets in this library's own shared memory.
#[derive(Debug, Default)]
struct Own {
    options: Options,
    present: RwLock<Option<Present>>,
}

impl Default for ClientVirtualDeviceSet {
    fn default() -> Self {
        Self::with_options(Options::default())
    }
}

impl ClientVirtualDeviceSet {
    /// An object without a set, with the default [`Options`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An object without a set.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        ClientVirtualDeviceSet(Inner::Own(Own { options, present: RwLock::default() }))
    }

    /// An object without a set, on a back end that is chosen at run time.
    ///
    /// ```no_run
    /// use vdi_client::{BackEnd, ClientVirtualDeviceSet};
    ///
    /// // What VDI_LIBRARY names, else the shared memory of this library.
    /// let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env())?;
    /// # Ok::<(), vdi_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// Only for [`BackEnd::SqlServer`]: VD_E_NOTSUPPORTED when the feature `sqlserver` is off, and for a library without the
    /// interface's functions; VD_E_INVALID when there is no such file, or it is no shared library for this machine;
    /// VD_E_UNEXPECTED when the system cannot load it, for want of another library for example.
    pub fn with_back_end(back_end: BackEnd) -> Result<Self, Error> {
        match back_end {
            BackEnd::SharedMemory(options) => Ok(Self::with_options(options)),
            #[cfg(feature = "sqlserver")]
            BackEnd::SqlServer(vendor) => match sqlserver::Set::new(&vendor) {
                Ok(set) => Ok(ClientVirtualDeviceSet(Inner::SqlServer(set))),
                Err(error) => Err(error),
            },
            #[cfg(not(feature = "sqlserver"))]
            BackEnd::SqlServer(_) => {
                let what = "this program was built without SQL Server's library as a back end; build it with the feature \
                            `sqlserver` of vdi-client";
                Err(Error::new(ErrorKind::Misuse, VdError::NotSupported, "with_back_end", "", what))
            }
        }
        .inspect_err(trace::trace_refused)
    }

    /// The set's name, if there is one.
    pub(crate) fn name(&self) -> Option<String> {
        either!(self, set => set.name())
    }

    /// Creates a set on the default instance: [`ClientVirtualDeviceSet::create_ex`].
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::create_ex`].
    pub fn create(&self, name: &str, config: &VdConfig) -> Result<(), Error> {
        either!(self, set => set.create("Create", None, name, config)).inspect_err(trace::trace_refused)
    }

    /// Creates a set for a server instance (`None` or empty: the default one), so that the server can find it when it gets
    /// `BACKUP|RESTORE ... VIRTUAL_DEVICE='name'`. This process becomes the set's primary.
    ///
    /// # Errors
    /// VD_E_NOTSUPPORTED for a configuration field that no server serves; VD_E_PROTOCOL when this object has a set already, or
    /// a live set of this name exists; VD_E_INVALID and VD_E_INSTANCE_NAME for bad names; VD_E_SECURITY when the runtime
    /// directory is not to be trusted; VD_E_MEMORY and VD_E_UNEXPECTED when the system refuses.
    pub fn create_ex(&self, instance: Option<&str>, name: &str, config: &VdConfig) -> Result<(), Error> {
        either!(self, set => set.create("CreateEx", instance, name, config)).inspect_err(trace::trace_refused)
    }

    /// Joins a set that another process created on the default instance:
    /// [`ClientVirtualDeviceSet::open_in_secondary_ex`].
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::open_in_secondary_ex`].
    pub fn open_in_secondary(&self, name: &str) -> Result<(), Error> {
        either!(self, set => set.join("OpenInSecondary", None, name)).inspect_err(trace::trace_refused)
    }

    /// Joins a set that another process created, to open devices of it here or to work on buffers by their handles.
    ///
    /// # Errors
    /// VD_E_PROTOCOL when this object has a set already, when there is no such set, when its primary has not got the
    /// configuration yet, and when its work has ended; VD_E_ABORT when it was aborted; VD_E_SECURITY when this process may
    /// not join, or does not trust the creator; VD_E_MEMORY when the set has as many processes as it can; VD_E_NOTSUPPORTED when
    /// its creator has another version of this library; VD_E_UNEXPECTED when somebody wrote over what tells the set's memory,
    /// and when the system refuses.
    pub fn open_in_secondary_ex(&self, instance: Option<&str>, name: &str) -> Result<(), Error> {
        either!(self, set => set.join("OpenInSecondaryEx", instance, name)).inspect_err(trace::trace_refused)
    }

    /// Waits for the server to configure the set, and returns what was agreed. Repeatable at once from then on, from any
    /// thread and in secondaries.
    ///
    /// # Errors
    /// VD_E_TIMEOUT when `timeout` passes first, or the wait is cancelled; VD_E_ABORT; VD_E_PROTOCOL without a set.
    pub fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        either!(self, set => set.get_configuration(timeout)).inspect_err(trace::trace_refused)
    }

    /// Opens a device by its name, for this process. Waits for the server to announce its devices, which it does right after
    /// it has configured the set.
    ///
    /// # Errors
    /// VD_E_OPEN when all devices are open; VD_E_PROTOCOL when this one is, and before the configuration; VD_E_INVALID when
    /// the set has no device of this name; VD_E_ABORT; VD_E_TIMEOUT when the wait is cancelled.
    pub fn open_device(&self, name: &str) -> Result<ClientVirtualDevice, Error> {
        either!(self, set => set.open_device(name)).inspect_err(trace::trace_refused)
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
    pub fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        either!(self, set => set.get_buffer_handle(address)).inspect_err(trace::trace_refused)
    }

    /// Maps the buffer that another process of this set got with a command. Until the [`MappedBuffer`] is dropped, that
    /// command cannot be completed (VD_E_BUSY).
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_BUSY when
    /// this process has the buffer already; VD_E_ABORT when the buffer cannot be where the server says, which aborts the set;
    /// VD_E_NOTSUPPORTED on [`BackEnd::SqlServer`], whose library does not tell how many bytes a buffer has: there, and so everywhere,
    /// [`ClientVirtualDeviceSet::map_buffer_handle_sized`] works.
    #[inline]
    pub fn map_buffer_handle(&self, handle: BufferHandle) -> Result<MappedBuffer, Error> {
        either!(self, set => set.map_buffer_handle(handle, None)).inspect_err(trace::trace_refused)
    }

    /// As [`ClientVirtualDeviceSet::map_buffer_handle`], with the number of bytes that the command has, which its holder
    /// tells ([`crate::Command::size`]). [`MappedBuffer::data`] has that many. Works on every back end.
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::map_buffer_handle`]; VD_E_INVALID when the buffer cannot have so many bytes.
    #[inline]
    pub fn map_buffer_handle_sized(&self, handle: BufferHandle, bytes: usize) -> Result<MappedBuffer, Error> {
        either!(self, set => set.map_buffer_handle(handle, Some(bytes))).inspect_err(trace::trace_refused)
    }

    /// MapBufferHandle as foreign interfaces have it, without an end of the mapping: the address of the buffer in this process,
    /// good until the set is closed here. It is no lease: nothing keeps the command from being completed while somebody
    /// works at the address, so whoever completes it has to wait for them.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_ABORT when
    /// the buffer cannot be where the server says, which aborts the set.
    #[inline]
    pub fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        either!(self, set => set.map_buffer_address(handle)).inspect_err(trace::trace_refused)
    }

    /// Aborts the set: every blocked call in every process returns VD_E_ABORT, and the statement fails.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn signal_abort(&self) -> Result<(), Error> {
        either!(self, set => set.signal_abort()).inspect_err(trace::trace_refused)
    }

    /// Closes the set in this process; the object may be used for another one. Waits of other threads end. Buffers that are
    /// still held stay mapped until they are dropped.
    ///
    /// A primary ends the set for everybody; a secondary leaves it.
    ///
    /// # Errors
    /// VD_E_OPEN when devices had not returned VD_E_CLOSE: the set was aborted, and is closed all the same. VD_E_PROTOCOL
    /// without a set.
    pub fn close(&self) -> Result<(), Error> {
        either!(self, set => set.close()).inspect_err(trace::trace_refused)
    }

    /// What ends the waits of this process from another thread.
    ///
    /// # Errors
    /// VD_E_PROTOCOL without a set.
    pub fn canceller(&self) -> Result<Canceller, Error> {
        either!(self, set => set.canceller()).inspect_err(trace::trace_refused)
    }

    /// The state of this process's object, by the specification's table.
    #[must_use]
    pub fn state(&self) -> State {
        either!(self, set => set.state())
    }
}

/// A set that the object has.
#[derive(Debug)]
struct Present {
    attached: Arc<Attached>,
    /// What leases keep, for those to come.
    keep: Arc<Keep>,
}

impl Present {
    fn new(membership: Membership, state: State) -> Present {
        let keep = Arc::clone(membership.keep());
        Present { attached: Attached::new(membership, state), keep }
    }
}

impl Own {
    /// The slot, to put a set in or take it out.
    fn slot(&self) -> RwLockWriteGuard<'_, Option<Present>> {
        // The slot is whole at every moment.
        self.present.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something short with the set, without the cost of holding on to it.
    #[inline]
    fn with<T>(&self, call: &'static str, work: impl FnOnce(&Present) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.present.read().unwrap_or_else(PoisonError::into_inner) {
            Some(present) => work(present),
            None => {
                let what = "this object has no set: create or join one first";
                Err(Error::new(ErrorKind::Misuse, VdError::Protocol, call, "", what))
            }
        }
    }

    /// Holds on to the set, for calls that wait.
    fn attached(&self, call: &'static str) -> Result<Arc<Attached>, Error> {
        self.with(call, |present| Ok(Arc::clone(&present.attached)))
    }

    fn create(&self, call: &'static str, instance: Option<&str>, name: &str, config: &VdConfig) -> Result<(), Error> {
        let mut slot = self.slot();
        if let Some(Present { attached, .. }) = &*slot {
            return attached.step(Call::Create).map_err(|code| attached.refuse(call, code));
        }
        let host = Host::create(&self.options, instance.unwrap_or(""), name, config)
            .map_err(|error| Error::from_shm(call, name, error))?;
        *slot = Some(Present::new(Membership::Primary(host), State::Configurable));
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
        let mut slot = self.slot();
        if let Some(Present { attached, .. }) = &*slot {
            return attached.step(Call::OpenInSecondary).map_err(|code| attached.refuse(call, code));
        }
        let member = Member::join(&self.options, Role::Secondary, instance.unwrap_or(""), name).map_err(|error| {
            let code = error.code();
            let error = Error::from_shm(call, name, error);
            // A set that does not exist was "not created": VD_E_PROTOCOL for a secondary.
            if code == VdError::Invalid && check_name(name).is_ok() {
                error.with_code(VdError::Protocol)
            } else {
                error
            }
        })?;
        let number = member.session().member();
        *slot = Some(Present::new(Membership::Secondary(member), State::Initializing));
        let instance = instance.unwrap_or("");
        trace::event!(DEBUG, call = call, set = name, instance = instance, member = number, "set joined");
        Ok(())
    }

    fn get_configuration(&self, timeout: Duration) -> Result<VdConfig, Error> {
        const CALL: &str = "GetConfiguration";
        let attached = self.attached(CALL)?;
        let deadline = wait::deadline(timeout);
        let outcome = wait::wait_until(attached.session.control().set_doorbell(), deadline, || {
            if let Some(interruption) = attached.interruption(CALL) {
                return Some(Err(interruption));
            }
            attached.config().map(|config| Ok(*config))
        });
        let config = outcome.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::NotYet,
                VdError::Timeout,
                CALL,
                attached.session.set_name(),
                format!(
                    "no server configured the set within {timeout:?}; check that the statement was sent, names this set in \
                     its first VIRTUAL_DEVICE, and did not fail"
                ),
            ))
        })?;
        attached.step(Call::GetConfiguration).map_err(|code| attached.refuse(CALL, code))?;
        if let Some(Membership::Primary(host)) = &*attached.membership.lock().unwrap_or_else(PoisonError::into_inner) {
            host.admit_secondaries();
        }
        trace::event!(
            DEBUG,
            call = CALL,
            set = attached.session.set_name(),
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

    fn open_device(&self, name: &str) -> Result<ClientVirtualDevice, Error> {
        const CALL: &str = "OpenDevice";
        let attached = self.attached(CALL)?;
        let of_device = |error: Error| error.of_device(name);
        attached
            .would_answer(Call::OpenDevice(Opening::Unopened))
            .map_err(|code| of_device(attached.refuse(CALL, code)))?;
        let control = attached.session.control();
        let found = wait::wait_until(control.set_doorbell(), None, || {
            if let Some(interruption) = attached.interruption(CALL) {
                return Some(Err(interruption));
            }
            find_device(&attached, name).transpose()
        });
        let (opening, index) = match found {
            Some(found) => found.map_err(of_device)?,
            // A wait without a deadline ends with something found.
            None => (Opening::NoSuchDevice, 0),
        };
        attached.step(Call::OpenDevice(opening)).map_err(|code| {
            let error = match code {
                VdError::Invalid => Error::new(
                    ErrorKind::Misuse,
                    code,
                    CALL,
                    attached.session.set_name(),
                    "the statement names no such device; names are case-sensitive",
                ),
                code => attached.refuse(CALL, code),
            };
            of_device(error)
        })?;
        let device = ClientVirtualDevice::new(attached, index, name).map_err(of_device)?;
        trace::event!(DEBUG, call = CALL, set = device.set_name(), device = name, "device opened");
        Ok(device)
    }

    #[inline]
    fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        const CALL: &str = "GetBufferHandle";
        self.with(CALL, |Present { attached, .. }| match attached.session.buffers() {
            Some(buffers) => {
                let handle = buffers.get_handle(attached.view(), address);
                let handle = handle.map_err(|error| handle_error(CALL, attached, error))?;
                trace::event!(TRACE, call = CALL, set = attached.session.set_name(), handle = %handle, "handle given");
                Ok(handle)
            }
            None => Err(handle_error(CALL, attached, BufferError::NotOpen)),
        })
    }

    #[inline]
    fn map_buffer_handle(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        const CALL: &str = "MapBufferHandle";
        self.with(CALL, |Present { attached, keep }| match attached.session.buffers() {
            Some(buffers) => {
                let refuse = |error| handle_error(CALL, attached, error);
                let mut buffer = buffers.map_kept(keep, attached.view(), handle, refuse)?;
                if let Some(bytes) = bytes {
                    if bytes > buffer.len() {
                        return Err(too_many(CALL, attached, bytes, buffer.len()));
                    }
                    buffer.truncate(bytes);
                }
                let set = attached.session.set_name();
                trace::event!(TRACE, call = CALL, set = set, handle = %handle, bytes = buffer.len(), "buffer mapped");
                Ok(MappedBuffer::own(buffer))
            }
            None => Err(handle_error(CALL, attached, BufferError::NotOpen)),
        })
    }

    #[inline]
    fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        const CALL: &str = "MapBufferHandle";
        self.with(CALL, |Present { attached, .. }| match attached.session.buffers() {
            Some(buffers) => {
                let address = buffers.map_address(attached.view(), handle);
                address.map_err(|error| handle_error(CALL, attached, error))
            }
            None => Err(handle_error(CALL, attached, BufferError::NotOpen)),
        })
    }

    fn signal_abort(&self) -> Result<(), Error> {
        const CALL: &str = "SignalAbort";
        let attached = self.attached(CALL)?;
        attached.step(Call::SignalAbort).map_err(|code| attached.refuse(CALL, code))?;
        attached.abort(Cause::Signalled);
        Ok(())
    }

    fn close(&self) -> Result<(), Error> {
        const CALL: &str = "Close";
        let Some(Present { attached, keep }) = self.slot().take() else {
            return self.attached(CALL).map(drop);
        };
        // Now leases and the membership have it alone.
        drop(keep);
        let session = &attached.session;
        let devices_open = if attached.primary { !attached.all_closed() } else { attached.has_open_devices() };
        let ended = attached.state() == State::NormallyTerminated;
        let answer = attached.step(Call::Close { devices_open });
        // Before the abort: a thread that it wakes is to hear of the close, not of what followed from it.
        attached.close();
        if devices_open && !ended {
            // Also where nobody has opened a device yet: a server may be waiting for this client.
            attached.abort(Cause::ClosedEarly);
        }
        session.cancel();
        let membership = attached.membership.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(membership);
        trace::event!(DEBUG, call = CALL, set = session.set_name(), "set closed");
        answer.map_err(|code| attached.refuse(CALL, code))
    }

    fn name(&self) -> Option<String> {
        self.with("name", |present| Ok(present.attached.session.set_name().to_owned())).ok()
    }

    fn canceller(&self) -> Result<Canceller, Error> {
        let attached = self.attached("canceller")?;
        Ok(Canceller::of_own(Arc::clone(&attached.session)))
    }

    fn state(&self) -> State {
        self.with("state", |present| Ok(present.attached.state())).unwrap_or(State::DoesNotExist)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.slot().is_some() {
            // Nobody is left to hear that devices were open; the others hear it from the abort.
            let _ = self.close();
        }
    }
}

/// Looks for a device to open: `None` while the server has not announced all its devices.
fn find_device(attached: &Attached, name: &str) -> Result<Option<(Opening, u32)>, Error> {
    let session = &attached.session;
    let control = session.control();
    let count = control.device_count();
    let violation = |error: LayoutError| {
        attached.accuse(vdi_proto::abort::Party::Somebody, error);
        attached.aborted("OpenDevice")
    };
    let all_open = || -> Result<bool, LayoutError> {
        for device in 0..count {
            if control.client_word(device)? == ClientWord::Unopened {
                return Ok(false);
            }
        }
        Ok(true)
    };
    if all_open().map_err(violation)? {
        return Ok(Some((Opening::AllOpen, 0)));
    }
    let mut announced = 0;
    for index in 0..count {
        match control.device_name(index) {
            Ok(Some(found)) if found == name => {
                let opening = if attached.open_device(index) {
                    Opening::Unopened
                } else if all_open().map_err(violation)? {
                    Opening::AllOpen
                } else {
                    Opening::AlreadyOpen
                };
                return Ok(Some((opening, index)));
            }
            Ok(Some(_)) => announced += 1,
            Ok(None) => {}
            Err(error) => return Err(violation(error)),
        }
    }
    Ok((announced == count).then_some((Opening::NoSuchDevice, 0)))
}

/// The error of a mapping that is to show more bytes than the buffer has.
#[cold]
fn too_many(call: &'static str, attached: &Attached, bytes: usize, all: usize) -> Error {
    let what = format!("{bytes} bytes of a buffer that has {all}: ask the command's holder");
    Error::new(ErrorKind::Misuse, VdError::Invalid, call, attached.session.set_name(), what)
}

/// The error of a handle call. Where the cheap view said "open", the full one may know better.
#[cold]
fn handle_error(call: &'static str, attached: &Attached, error: BufferError) -> Error {
    let set = attached.session.set_name();
    let open = attached.state().view().handles_allowed().is_ok();
    let error = if open { error } else { BufferError::NotOpen };
    let kind = match error.code() {
        VdError::Abort => ErrorKind::Violation,
        VdError::Busy => ErrorKind::NotYet,
        _ => ErrorKind::Misuse,
    };
    if kind == ErrorKind::Violation {
        attached.accuse(vdi_proto::abort::Party::Server, error);
    }
    Error::new(kind, error.code(), call, set, error.to_string()).because(error)
}
