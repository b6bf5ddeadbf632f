//! Sets in this library's own shared memory.
//!
//! | file | what it holds |
//! |---|---|
//! | `attachment` | a set that this process created or joined |
//! | `calls` | the calls of a set |
//! | `device` | getting commands |
//! | `command` | completing them |
//! | `errors` | the errors of `vdi_shm` for the calls of this library |

mod attachment;
mod calls;
mod command;
mod device;
mod errors;

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use vdi_proto::config::VdConfig;
use vdi_proto::join::Role;
use vdi_proto::name::check_name;
use vdi_proto::set::client::State;
use vdi_proto::status::VdError;
use vdi_shm::doorbell::Doorbell;
use vdi_shm::host::Host;
use vdi_shm::member::Member;
pub use vdi_shm::runtime::{Access, Options};
use vdi_shm::wait;

use self::attachment::{Attachment, Membership};
pub(crate) use self::command::HeldCommand;
pub(crate) use self::device::{Device, DeviceRef};
use crate::error::Error;

pub(crate) type Opener = Options;
pub(crate) type Session = Arc<Attachment>;
/// A buffer mapped by its handle, with a lease on it.
pub(crate) type MappedBuffer = vdi_shm::area::MappedBuffer;

pub(crate) fn create(
    options: &Options,
    call: &'static str,
    instance: Option<&str>,
    name: &str,
    config: &VdConfig,
) -> Result<Session, Error> {
    let host = Host::create(options, instance.unwrap_or(""), name, config);
    let host = host.map_err(|error| Error::lower(call, name, error))?;
    Ok(Attachment::new(Membership::Primary(host), State::Configurable))
}

pub(crate) fn join(
    options: &Options,
    call: &'static str,
    instance: Option<&str>,
    name: &str,
) -> Result<Session, Error> {
    let member = Member::join(options, Role::Secondary, instance.unwrap_or(""), name).map_err(|error| {
        let error = Error::lower(call, name, error);
        // A set that does not exist was "not created": VD_E_PROTOCOL for a secondary.
        let no_such_set = error.code() == VdError::Invalid && check_name(name).is_ok();
        if no_such_set { error.with_code(VdError::Protocol) } else { error }
    })?;
    Ok(Attachment::new(Membership::Secondary(member), State::Initializing))
}

/// Waits until `ready` gives something; `None` when `deadline` has passed. `window` is how long each part of the wait spins.
fn wait_for<T>(
    event: &Doorbell,
    window: Duration,
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        let found = wait::wait_once(event, window, deadline, &mut ready);
        if found.is_some() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return found;
        }
    }
}
