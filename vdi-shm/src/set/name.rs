//! The name of a set: its own name and the instance of the server.

use thiserror::Error;
use vdi_proto::name::{NameError, check_instance, check_name};
use vdi_proto::status::VdError;

use crate::ipc::runtime::SocketName;

/// A name that no set or instance can have: VD_E_INVALID, VD_E_INSTANCE_NAME.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {name:?}: {source}")]
pub struct SetNameError {
    /// What the name is of: "set" or "instance".
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub source: NameError,
}

impl SetNameError {
    /// The status that a call returns.
    #[must_use]
    pub const fn code(&self) -> VdError {
        self.source.code()
    }
}

/// The name of a set.
#[derive(Debug, Clone)]
pub struct SetName {
    set: String,
    instance: String,
    socket: SocketName,
}

impl SetName {
    /// Validates the names. An empty `instance` is the default instance.
    ///
    /// # Errors
    /// [`SetNameError`].
    pub fn new(instance: &str, set: &str) -> Result<SetName, SetNameError> {
        let error = |what, name: &str, source| SetNameError { what, name: name.to_owned(), source };
        check_instance(instance).map_err(|source| error("instance", instance, source))?;
        check_name(set).map_err(|source| error("set", set, source))?;
        let socket = SocketName::new(instance, set);
        Ok(SetName { set: set.to_owned(), instance: instance.to_owned(), socket })
    }

    /// The set's own name.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }

    /// The instance, empty for the default.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The set's socket in the runtime directory.
    #[must_use]
    pub fn socket(&self) -> &SocketName {
        &self.socket
    }
}

/// "the default instance", or the instance by its name.
pub(crate) fn show_instance(instance: &str) -> String {
    if instance.is_empty() { "the default instance".to_owned() } else { format!("instance {instance:?}") }
}
