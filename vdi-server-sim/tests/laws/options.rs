//! The options of `sqlcmd`.

// They belong to the program, so they are not the library's to give.
#[path = "../../src/bin/vdi-sim/sqlcmd/options.rs"]
mod program;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use program::{Options, Stop};

/// A character that no message has but by repeating what was given.
pub(crate) const SECRET: char = '§';

/// Arguments, a line each, are read totally; what is wrong with them is said without repeating a value.
pub(crate) fn options(bytes: &[u8]) -> bool {
    let arguments = bytes.split(|byte| *byte == b'\n').map(|argument| OsString::from_vec(argument.to_vec()));
    match Options::read(arguments) {
        Ok(options) => {
            let instance = options.instance.as_deref().unwrap_or_default();
            assert!(instance.is_empty() || vdi_proto::name::check_instance(instance).is_ok(), "{instance:?}");
            assert!(options.variables.iter().all(|(name, _)| !name.is_empty() && !name.contains('=')));
            assert!(options.query.is_none() && options.first_query.is_none() || options.files.is_empty());
            true
        }
        Err(Stop::Help(text)) => {
            assert!(text.contains("-Q") && !text.contains(SECRET));
            true
        }
        Err(Stop::Wrong(text)) => {
            assert!(text.contains("Usage: sqlcmd"), "{text}");
            // The letter of an option that does not exist is no value.
            assert!(!text.replace(&format!("'-{SECRET}'"), "").contains(SECRET), "{text}");
            false
        }
    }
}
