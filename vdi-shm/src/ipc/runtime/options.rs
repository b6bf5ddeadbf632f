//! Where processes find each other, and whom they trust: as a program says it, or as its environment does.

use core::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::own_uid;
use crate::ipc::link::Peer;

/// Other users by their uids, separated by commas.
const ALLOW_UID: &str = "VDI_ALLOW_UID";
/// Groups by their gids, separated by commas.
const ALLOW_GID: &str = "VDI_ALLOW_GID";

/// The users that may connect, and whose sockets may be connected to.
///
/// The user of this process is always allowed. A gid is compared with the peer's effective one. Both sides of a connection
/// check each other, so each has to allow the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Other users. Their runtime directories are trusted as well.
    pub uids: Vec<u32>,
    /// Groups. A runtime directory that such a group can write to is trusted, where a trusted user or root owns it.
    pub gids: Vec<u32>,
}

impl Access {
    /// Whether a peer is allowed.
    #[must_use]
    pub fn allows(&self, peer: &Peer) -> bool {
        peer.uid == own_uid() || self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid)
    }

    /// Whether this rule trusts the files of a user. Nothing protects against root.
    pub(super) fn trusts_owner(&self, uid: u32) -> bool {
        uid == own_uid() || uid == 0 || self.uids.contains(&uid)
    }

    /// Whether only the user of this process is allowed.
    pub(super) fn is_exclusive(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

/// Where processes find each other, and which users are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The runtime directory; `None` for the default.
    pub runtime_dir: Option<PathBuf>,
    /// The users that are trusted.
    pub access: Access,
}

impl Options {
    /// The default runtime directory, and the users that the environment allows: `VDI_ALLOW_UID` and `VDI_ALLOW_GID` are
    /// numbers, separated by commas. A variable that is empty counts as not set.
    ///
    /// ```
    /// use vdi_shm::ipc::runtime::Options;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut options = Options::from_env()?;
    /// options.access.uids.push(0); // root as well
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EnvironmentError`]: a variable is no such list. Nothing of it is used then.
    pub fn from_env() -> Result<Options, EnvironmentError> {
        let access = Access { uids: numbers(ALLOW_UID)?, gids: numbers(ALLOW_GID)? };
        Ok(Options { runtime_dir: None, access })
    }

    /// The path of the runtime directory.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        if let Some(dir) = &self.runtime_dir {
            return dir.clone();
        }
        variable("VDI_RUNTIME_DIR")
            .or_else(|| variable("XDG_RUNTIME_DIR").map(|dir| dir.join("vdi")))
            .unwrap_or_else(|| std::env::temp_dir().join(format!("vdi-{}", own_uid())))
    }
}

/// A variable that holds a path, where it is set and not empty.
pub(super) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A variable of the environment has a value that cannot be used.
#[derive(Clone, PartialEq, Eq, Error)]
#[error(
    "{variable} is {value:?}; set it to the numbers of the {what} to allow, separated by commas, as in {variable}=0,999 \
     ({command} prints such a number), or unset it"
)]
pub struct EnvironmentError {
    /// The variable.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What it names.
    what: &'static str,
    /// What prints a number that it takes.
    command: &'static str,
}

/// As Display: a program whose `main` returns the error prints this.
impl fmt::Debug for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn numbers(variable: &'static str) -> Result<Vec<u32>, EnvironmentError> {
    parse(variable, &std::env::var_os(variable).unwrap_or_default().to_string_lossy())
}

/// The numbers of a list.
fn parse(variable: &'static str, value: &str) -> Result<Vec<u32>, EnvironmentError> {
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // The last number stands for no user.
        text.parse().ok().filter(|number| digits && *number != u32::MAX)
    };
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value.split(',').map(number).collect::<Option<_>>().ok_or_else(|| {
        let (what, command) = if variable == ALLOW_UID { ("users", "id -u NAME") } else { ("groups", "id -g NAME") };
        EnvironmentError { variable, value: value.to_owned(), what, command }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        for (value, expected) in
            [("", &[][..]), ("0", &[0]), ("0,999", &[0, 999]), (" 7 , 8 ", &[7, 8]), ("4294967294", &[4_294_967_294])]
        {
            assert_eq!(parse(ALLOW_UID, value).as_deref(), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_numbers_is_named_with_its_value() {
        for value in [" ", ",", "0,", "mssql", "+1", "-1", "0x1", "1 2", "1;2", "4294967295", "4294967296", "\u{663}"] {
            for (variable, what) in [(ALLOW_UID, "users"), (ALLOW_GID, "groups")] {
                let error = parse(variable, value).expect_err(value);
                assert_eq!((error.variable, &*error.value), (variable, value));
                let text = error.to_string();
                assert!(
                    text.starts_with(&format!("{variable} is {value:?}; set it to the numbers of the {what}")),
                    "{text}"
                );
            }
        }
    }
}
