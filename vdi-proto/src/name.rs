//! Names of sets, devices and server instances.
//!
//! Source: VDI specification, "Create" and the `VIRTUAL_DEVICE` clause: names are case-sensitive and may hold any
//! character but the backslash; a device's name is unique within its set; the first device has the set's name.
//!
//! **Decision**: a name has 1 to [`MAX_NAME_CHARS`] characters (a `sysname`), so at most [`MAX_NAME_BYTES`] bytes of
//! UTF-8. It has no control characters, since a statement cannot contain them. The documents give no limits.

use thiserror::Error;

use crate::status::VdError;

/// The most characters that a set's or device's name may have.
pub const MAX_NAME_CHARS: usize = 128;

/// The most bytes of UTF-8 that a set's or device's name may have.
pub const MAX_NAME_BYTES: usize = MAX_NAME_CHARS * 4;

/// The most characters that an instance name may have.
pub const MAX_INSTANCE_CHARS: usize = 16;

/// An invalid name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// A set's or device's name is empty: VD_E_INVALID.
    #[error("the name is empty; give it 1 to {MAX_NAME_CHARS} characters")]
    Empty,
    /// A set's or device's name is too long: VD_E_INVALID.
    #[error("the name has {chars} characters; at most {MAX_NAME_CHARS} are allowed")]
    TooLong {
        /// How many characters it has.
        chars: usize,
    },
    /// A set's or device's name contains a character that is not allowed: VD_E_INVALID.
    #[error("the name contains {character:?} at character {at}; backslashes and control characters are not allowed")]
    Character {
        /// The character.
        character: char,
        /// Its index in characters.
        at: usize,
    },
    /// Not the name of a server instance: VD_E_INSTANCE_NAME.
    #[error(
        "not an instance name: 1 to {MAX_INSTANCE_CHARS} letters, digits, '_', '$' or '#', beginning with a \
         letter, '_' or '#', without the machine's name; leave it empty for the default instance"
    )]
    Instance,
}

impl NameError {
    /// The status that the call returns.
    #[must_use]
    pub const fn code(self) -> VdError {
        match self {
            NameError::Empty | NameError::TooLong { .. } | NameError::Character { .. } => VdError::Invalid,
            NameError::Instance => VdError::InstanceName,
        }
    }
}

/// Validates the name of a set or a device.
///
/// ```
/// use vdi_proto::name::{check_name, NameError};
///
/// assert!(check_name("{0F8FAD5B-D9CB-469F-A165-70867728950E}").is_ok());
/// assert_eq!(check_name("a\\b"), Err(NameError::Character { character: '\\', at: 1 }));
/// ```
///
/// # Errors
/// [`NameError`] (VD_E_INVALID) for an empty name, a name of more than [`MAX_NAME_CHARS`] characters, and a name with a
/// backslash or a control character.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let mut chars = 0;
    for character in name.chars() {
        if character == '\\' || character.is_control() {
            return Err(NameError::Character { character, at: chars });
        }
        chars += 1;
    }
    if chars > MAX_NAME_CHARS {
        return Err(NameError::TooLong { chars });
    }
    Ok(())
}

/// Validates an instance name; the empty name is the default instance.
///
/// # Errors
/// [`NameError::Instance`] (VD_E_INSTANCE_NAME) for a name that no instance can have.
pub fn check_instance(instance: &str) -> Result<(), NameError> {
    if instance.is_empty() {
        return Ok(());
    }
    let mut chars = 0;
    for (at, character) in instance.chars().enumerate() {
        let first = character.is_alphabetic() || character == '_' || character == '#';
        if !first && (at == 0 || !(character.is_numeric() || character == '$')) {
            return Err(NameError::Instance);
        }
        chars += 1;
    }
    if chars > MAX_INSTANCE_CHARS {
        return Err(NameError::Instance);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_and_character() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        let longest: std::string::String = "\u{10348}".repeat(MAX_NAME_CHARS);
        assert_eq!(longest.len(), MAX_NAME_BYTES);
        assert_eq!(check_name(&longest), Ok(()));
        let longer = longest + "x";
        assert_eq!(check_name(&longer), Err(NameError::TooLong { chars: MAX_NAME_CHARS + 1 }));
        assert_eq!(check_name("a\0"), Err(NameError::Character { character: '\0', at: 1 }));
        for good in ["x", "dev 1", "Größe/1", "{guid}", "a'b", ".", ".."] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(NameError::Empty.code(), VdError::Invalid);
    }

    #[test]
    fn instances() {
        for good in ["", "SQLEXPRESS", "a", "_x$1", "#1", "ABCDEFGHIJKLMNOP"] {
            assert_eq!(check_instance(good), Ok(()), "{good}");
        }
        for bad in ["1a", "machine\\sql", "a b", "$a", "ABCDEFGHIJKLMNOPQ", "a\0"] {
            assert_eq!(check_instance(bad), Err(NameError::Instance), "{bad}");
        }
        assert_eq!(NameError::Instance.code(), VdError::InstanceName);
    }
}
