//! The choice of a back end: this library's own shared memory, or SQL Server's library.

use std::path::PathBuf;

use super::shared_memory::{EnvironmentError, Options};

/// What carries a set: chosen at run time, by [`crate::ClientVirtualDeviceSet::with_back_end`]. Everything else is the same
/// for a program; see `docs/back-ends.md`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BackEnd {
    /// This library's own shared memory, for servers that use it too: `vdi-sim`, for example.
    SharedMemory(Options),
    /// SQL Server, through Microsoft's libsqlvdi.so. Takes the feature `sqlserver`.
    SqlServer(SqlServer),
}

impl Default for BackEnd {
    fn default() -> Self {
        BackEnd::SharedMemory(Options::default())
    }
}

impl BackEnd {
    /// What the environment asks for: where `VDI_LIBRARY` names a library, [`BackEnd::SqlServer`] with that, and with
    /// time-outs of GetCommand in seconds where `VDI_GETCOMMAND_TIMEOUT_UNIT` is `s`; else this library's shared memory with
    /// [`Options::from_env`].
    ///
    /// # Errors
    /// [`EnvironmentError`]: `VDI_ALLOW_UID` or `VDI_ALLOW_GID` is no list of numbers. SQL Server's library needs neither, and
    /// they are not read for it.
    pub fn from_env() -> Result<BackEnd, EnvironmentError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Ok(match set("VDI_LIBRARY") {
            None => BackEnd::SharedMemory(Options::from_env()?),
            Some(library) => {
                let seconds = set("VDI_GETCOMMAND_TIMEOUT_UNIT").is_some_and(|unit| unit == "s");
                let get_command_unit = if seconds { TimeOutUnit::Seconds } else { TimeOutUnit::Milliseconds };
                BackEnd::SqlServer(SqlServer { library: Some(library.into()), get_command_unit })
            }
        })
    }
}

/// Which library is SQL Server's, and how it is to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlServer {
    /// The library; `None` for [`SqlServer::DEFAULT_LIBRARY`].
    pub library: Option<PathBuf>,
    /// The unit of GetCommand's time-outs in that library.
    pub get_command_unit: TimeOutUnit,
}

impl SqlServer {
    /// Where SQL Server on Linux has its library.
    pub const DEFAULT_LIBRARY: &str = "/opt/mssql/lib/libsqlvdi.so";
}

/// The unit in which a library takes the time-outs of GetCommand.
///
/// The documents say milliseconds; a published sample for Linux passes 90 and says seconds. Commands come at once whatever
/// the unit. What a wrong one does: waits that should end, by their time-out, a [`crate::Canceller`] or another thread's
/// completion, end late (milliseconds chosen, seconds meant) or poll too often (the other way round).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeOutUnit {
    /// As the documents say.
    #[default]
    Milliseconds,
    /// As the sample says.
    Seconds,
}
