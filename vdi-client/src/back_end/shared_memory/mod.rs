//! Sets in this library's own shared memory.
//!
//! | file | what it holds |
//! |---|---|
//! | `attachment` | a set that this process created or joined: state, waits, errors |
//! | `device_core` | what a device and its commands share |
//! | `command` | completing commands |
//! | `device` | getting them |
//! | `calls` | the calls of a set |
//! | `errors` | the errors of `vdi_shm` for the calls of this library |

mod attachment;
mod calls;
mod command;
mod device;
mod device_core;
mod errors;

use std::sync::Arc;

use vdi_proto::config::VdConfig;
use vdi_proto::name::check_name;
use vdi_proto::set::client::State;
use vdi_proto::status::VdError;
pub use vdi_shm::ipc::runtime::{Access, EnvironmentError, Options};
/// A buffer mapped by its handle, with a lease on it.
pub(crate) use vdi_shm::set::mapped_buffer::MappedBuffer;
use vdi_shm::set::primary::Primary;
use vdi_shm::set::secondary::Secondary;

use self::attachment::{Attachment, Membership};
pub(crate) use self::command::HeldCommand;
pub(crate) use self::device::Device;
pub(crate) use self::device_core::DeviceRef;
use crate::error::Error;

pub(crate) type Opener = Options;
pub(crate) type Session = Arc<Attachment>;

pub(crate) fn create(
    options: &Options,
    call: &'static str,
    instance: Option<&str>,
    name: &str,
    config: &VdConfig,
) -> Result<Session, Error> {
    let primary = Primary::create(options, instance.unwrap_or(""), name, config);
    let primary = primary.map_err(|error| Error::lower(call, name, error))?;
    Ok(Attachment::new(Membership::Primary(primary), State::Configurable))
}

pub(crate) fn join(
    options: &Options,
    call: &'static str,
    instance: Option<&str>,
    name: &str,
) -> Result<Session, Error> {
    let secondary = Secondary::join(options, instance.unwrap_or(""), name).map_err(|error| {
        let error = Error::lower(call, name, error);
        // A set that does not exist was "not created": VD_E_PROTOCOL for a secondary.
        let no_such_set = error.code() == VdError::Invalid && check_name(name).is_ok();
        if no_such_set { error.with_code(VdError::Protocol) } else { error }
    })?;
    Ok(Attachment::new(Membership::Secondary(secondary), State::Initializing))
}
