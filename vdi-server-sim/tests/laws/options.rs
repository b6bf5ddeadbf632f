//! The options of `sqlcmd`.

// A part of the program, not of the library.
#[path = "../../src/bin/vdi-sim/sqlcmd/options.rs"]
mod program;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use program::{Options, Stop};

/// A character that is in a message only if the message contains an argument.
pub(crate) const SECRET: char = '§';

/// Arguments, one per line, are parsed without a panic. An error does not contain a value.
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
        Err(Stop::Usage(text)) => {
            assert!(text.contains("Usage: sqlcmd"), "{text}");
            // The letter of an unknown option is not a value.
            assert!(!text.replace(&format!("'-{SECRET}'"), "").contains(SECRET), "{text}");
            false
        }
    }
}
