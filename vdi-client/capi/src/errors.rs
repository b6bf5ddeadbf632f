//! Errors and the version, for C.

use core::ffi::c_char;

use crate::boundary;
use crate::constants::status_name;

/// The library's version, "0.1.0" for example. Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The name of a status, "VD_E_TIMEOUT" for example; "NOERROR" for 0, "unknown status" for other numbers. Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_error_name(status: i32) -> *const c_char {
    status_name(status).as_ptr()
}

/// The status of this thread's last call that failed; 0 if none has. Calls that succeed leave it.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_last_error_code() -> i32 {
    boundary::last_status()
}

/// What this thread's last call that failed was about: the function, the command, device and set, the VD_E_* name and number,
/// what is wrong, and what to do. Empty if none has failed, never NULL. UTF-8 without an end of line.
///
/// Lifetime: until this thread's next call that fails, or its end. Copy it to keep it.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_last_error_text() -> *const c_char {
    boundary::last_text()
}
