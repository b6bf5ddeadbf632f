//! The seam between the published interface and what carries a set.
//!
//! | back end | what it is |
//! |---|---|
//! | `shared_memory` | this library's own shared memory: everything of `vdi_shm` is used there |
//! | `sqlvdi` | SQL Server's library, loaded at run time (feature `sqlserver`) |
//!
//! Each part of a set is an enum of both back ends. Only this file distinguishes them. A part costs no allocation
//! beside what the back end itself needs.
//!
//! # What a back end does
//!
//! 1. It keeps the state table of the interface ([`vdi_proto::set::client`]), and answers with errors that name call and set.
//! 2. A command that it gives is completed by [`HeldCommand::complete`], or is still outstanding where that was refused so.
//! 3. It hands out no bytes twice, whatever a peer does.
//!
//! Events for `tracing` are sent by the published interface, but those of what the program does not see.

mod options;
mod shared_memory;
#[cfg(feature = "sqlserver")]
mod sqlvdi;

use core::ptr::NonNull;
use core::time::Duration;

use vdi_proto::command::CommandRecord;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::set::client::State;

pub use self::options::{BackEnd, SqlServer, TimeOutUnit};
pub use self::shared_memory::{Access, EnvironmentError, Options};
use crate::completion::{Outcome, Refused};
use crate::error::Error;
#[cfg(not(feature = "sqlserver"))]
use crate::error::ErrorKind;

/// Makes a call on either back end.
macro_rules! either {
    ($part:ident, $this:expr, $it:ident => $call:expr) => {
        match $this {
            $part::SharedMemory($it) => $call,
            #[cfg(feature = "sqlserver")]
            $part::SqlServer($it) => $call,
        }
    };
}

/// A call that gives another part of the set.
macro_rules! either_gives {
    ($part:ident, $this:expr, $it:ident => $call:expr, $given:expr, $given_by_vendor:expr) => {
        match $this {
            $part::SharedMemory($it) => $call.map($given),
            #[cfg(feature = "sqlserver")]
            $part::SqlServer($it) => $call.map($given_by_vendor),
        }
    };
}

/// Declares a part of a set: what it is on each back end, and the calls that both have.
macro_rules! part {
    (
        $(#[$about:meta])*
        $part:ident {
            $(
                $(#[$doc:meta])*
                fn $call:ident($this:ident: $receiver:ty $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        pub(crate) enum $part {
            SharedMemory(shared_memory::$part),
            #[cfg(feature = "sqlserver")]
            SqlServer(sqlvdi::$part),
        }

        impl $part {
            $(
                $(#[$doc])*
                #[inline]
                pub(crate) fn $call($this: $receiver $(, $argument: $type)*) $(-> $result)? {
                    either!($part, $this, it => it.$call($($argument),*))
                }
            )*
        }
    };
}

part! {
    /// What creates sets and joins them.
    Opener {}
}

impl Opener {
    pub(crate) fn new(back_end: BackEnd) -> Result<Opener, Error> {
        match back_end {
            BackEnd::SharedMemory(options) => Ok(Opener::SharedMemory(options)),
            #[cfg(feature = "sqlserver")]
            BackEnd::SqlServer(vendor) => sqlvdi::Opener::new(&vendor).map(Opener::SqlServer),
            #[cfg(not(feature = "sqlserver"))]
            BackEnd::SqlServer(_) => {
                let what = "this program was built without SQL Server's library as a back end; build it with the feature \
                            `sqlserver` of vdi-client";
                let code = vdi_proto::status::VdError::NotSupported;
                Err(Error::new(ErrorKind::Misuse, code, "with_back_end", "", what))
            }
        }
    }

    pub(crate) fn create(
        &self,
        call: &'static str,
        instance: Option<&str>,
        name: &str,
        config: &VdConfig,
    ) -> Result<Session, Error> {
        match self {
            Opener::SharedMemory(options) => {
                shared_memory::create(options, call, instance, name, config).map(Session::SharedMemory)
            }
            #[cfg(feature = "sqlserver")]
            Opener::SqlServer(opener) => opener.create(call, instance, name, config).map(Session::SqlServer),
        }
    }

    pub(crate) fn join(&self, call: &'static str, instance: Option<&str>, name: &str) -> Result<Session, Error> {
        match self {
            Opener::SharedMemory(options) => {
                shared_memory::join(options, call, instance, name).map(Session::SharedMemory)
            }
            #[cfg(feature = "sqlserver")]
            Opener::SqlServer(opener) => opener.join(call, instance, name).map(Session::SqlServer),
        }
    }
}

part! {
    /// A set that this process created or joined.
    #[derive(Clone)]
    Session {
        fn set_name(self: &Self) -> &str;
        fn state(self: &Self) -> State;
        /// The number of this process among the set's, where there are numbers.
        fn member(self: &Self) -> Option<u32>;
        fn get_configuration(self: &Self, timeout: Duration) -> Result<VdConfig, Error>;
        fn get_buffer_handle(self: &Self, address: *const u8) -> Result<BufferHandle, Error>;
        fn map_buffer_address(self: &Self, handle: BufferHandle) -> Result<NonNull<u8>, Error>;
        fn signal_abort(self: &Self) -> Result<(), Error>;
        fn signal_abort_because(self: &Self, code: CompletionCode, why: &str) -> Result<(), Error>;
        fn close(self: &Self) -> Result<(), Error>;
        /// Ends the waits of this process, until `resume`.
        fn cancel(self: &Self);
        fn resume(self: &Self);
        /// Why a wait in this set must end now, if it must.
        fn interruption(self: &Self, call: &'static str) -> Option<Error>;
    }
}

impl Session {
    pub(crate) fn open_device(&self, name: &str) -> Result<Device, Error> {
        either_gives!(Session, self, set => set.open_device(name), Device::SharedMemory, Device::SqlServer)
    }

    /// `bytes` is how many of the buffer are wanted; all where it is `None`.
    pub(crate) fn map_buffer_handle(&self, handle: BufferHandle, bytes: Option<usize>) -> Result<MappedBuffer, Error> {
        either_gives!(
            Session, self, set => set.map_buffer_handle(handle, bytes),
            MappedBuffer::SharedMemory, MappedBuffer::SqlServer
        )
    }
}

part! {
    /// A device, as its one user has it.
    Device {
        fn name(self: &Self) -> &str;
        fn set_name(self: &Self) -> &str;
        fn config(self: &Self) -> VdConfig;
        /// Why a wait of this device must end now, if it must.
        fn interruption(self: &Self, call: &'static str) -> Option<Error>;
        fn outstanding(self: &Self) -> u32;
        /// The devices of the set that no process has opened, as far as the back end knows.
        fn unopened(self: &Self) -> Vec<String>;
        /// Aborts the set, unless it has ended, because this device's work failed: with what code, and why.
        fn give_up(self: &Self, code: CompletionCode, why: &str);
        /// Ends the work of this device, before its time unless the server has closed it.
        fn leave(self: &mut Self);
    }
}

/// A command as it came.
pub(crate) type Received = (CommandRecord, HeldCommand);

impl Device {
    #[inline]
    pub(crate) fn get_command(&mut self, timeout: Duration) -> Result<Received, Error> {
        either_gives!(
            Device, self, device => device.get_command(timeout),
            |(record, held)| (record, HeldCommand::SharedMemory(held)),
            |(record, held)| (record, HeldCommand::SqlServer(held))
        )
    }

    /// `None` while no command is there.
    #[inline]
    pub(crate) fn try_get_command(&mut self) -> Result<Option<Received>, Error> {
        either_gives!(
            Device, self, device => device.try_get_command(),
            |got| got.map(|(record, held)| (record, HeldCommand::SharedMemory(held))),
            |got| got.map(|(record, held)| (record, HeldCommand::SqlServer(held)))
        )
    }

    pub(crate) fn reference(&self) -> DeviceRef {
        match self {
            Device::SharedMemory(device) => DeviceRef::SharedMemory(device.reference()),
            #[cfg(feature = "sqlserver")]
            Device::SqlServer(device) => DeviceRef::SqlServer(device.reference()),
        }
    }

    /// Whether a command came to this device.
    pub(crate) fn gave(&self, command: &HeldCommand) -> bool {
        match (self, command) {
            (Device::SharedMemory(device), HeldCommand::SharedMemory(command)) => device.gave(command),
            #[cfg(feature = "sqlserver")]
            (Device::SqlServer(device), HeldCommand::SqlServer(command)) => device.gave(command),
            #[cfg(feature = "sqlserver")]
            _ => false,
        }
    }
}

part! {
    /// A device, for threads beside its user.
    DeviceRef {
        fn name(self: &Self) -> &str;
        fn set_name(self: &Self) -> &str;
        /// The error of completing something that is no command, unless the session is over.
        fn refuse_unknown(self: &Self, what: &str) -> Error;
        /// Aborts the set, unless it has ended, because the device is used no longer.
        fn abandon(self: &Self);
    }
}

part! {
    /// What a command holds until it is completed.
    HeldCommand {
        fn device_name(self: &Self) -> &str;
        fn set_name(self: &Self) -> &str;
        fn data(self: &Self) -> &[u8];
        fn data_mut(self: &mut Self) -> &mut [u8];
        fn prefix_mut(self: &mut Self) -> &mut [u8];
        /// Where the data starts; `None` without a buffer.
        fn address(self: &Self) -> Option<NonNull<u8>>;
        /// The handle of the buffer; `None` without one.
        fn handle(self: &Self) -> Result<Option<BufferHandle>, Error>;
        /// Why a wait for this command must end now, if it must.
        fn interruption(self: &Self, call: &'static str) -> Option<Error>;
        /// The error of a completion that comes when the set has ended.
        fn ended(self: &Self) -> Option<Error>;
        fn complete(self: &mut Self, record: &CommandRecord, outcome: Outcome) -> Result<(), Refused>;
        /// Aborts the set because this command can never be completed.
        fn abandon(self: &Self);
        /// The same, unless the set has ended, with a code and a reason.
        fn give_up(self: &Self, code: CompletionCode, why: &str);
    }
}

part! {
    /// A buffer that was mapped by its handle.
    MappedBuffer {
        fn data(self: &Self) -> &[u8];
        fn data_mut(self: &mut Self) -> &mut [u8];
        fn prefix_mut(self: &mut Self) -> &mut [u8];
        fn address(self: &Self) -> NonNull<u8>;
        fn handle(self: &Self) -> BufferHandle;
    }
}
