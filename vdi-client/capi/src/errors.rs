//! Errors and the version, for C.

use core::cell::RefCell;
use core::ffi::c_char;
use std::ffi::CString;

use vdi_ffi::{Failure, log};

use crate::constants::status_name;

/// What a thread's last failed call left.
struct LastError {
    status: i32,
    text: CString,
}

thread_local! {
    static LAST_ERROR: RefCell<Option<LastError>> = const { RefCell::new(None) };
}

/// Runs the body of a function. Its failure becomes the thread's last error, and where VDI_LOG is set, a message on
/// standard error.
pub(crate) fn call(function: &str, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    vdi_ffi::call(body, |failure| {
        let text = failure.describe(function).replace('\0', "\u{fffd}");
        if log::is_enabled() {
            log::write(&text);
        }
        let status = failure.code().hresult().cast_signed();
        // No zero byte is left in the text.
        let last = LastError { status, text: CString::new(text).unwrap_or_default() };
        // A thread that ends may have no last error any more.
        let _ = LAST_ERROR.try_with(|slot| *slot.borrow_mut() = Some(last));
    })
}

/// The library's version, "0.1.0" for example. Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The name of a status, "VD_E_TIMEOUT" for example; "NOERROR" for 0, "unknown status" for other numbers. Valid for
/// ever.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_error_name(status: i32) -> *const c_char {
    status_name(status).as_ptr()
}

/// The status of this thread's last call that failed; 0 if none has. Calls that succeed leave it.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_last_error_code() -> i32 {
    LAST_ERROR.try_with(|last| last.borrow().as_ref().map_or(0, |last| last.status)).unwrap_or(0)
}

/// The text of this thread's last call that failed: the function, the command, device and set, the VD_E_* name and
/// number, what is wrong, and what to do. Empty if none has failed, never NULL. UTF-8 without an end of line.
///
/// Lifetime: until this thread's next call that fails, or its end. Copy it to keep it.
#[unsafe(no_mangle)]
pub extern "C" fn vdi_last_error_text() -> *const c_char {
    let empty = c"".as_ptr();
    LAST_ERROR.try_with(|last| last.borrow().as_ref().map_or(empty, |last| last.text.as_ptr())).unwrap_or(empty)
}

#[cfg(test)]
mod tests {
    use core::ffi::CStr;

    use vdi_client::VdError;

    use super::*;

    fn last() -> (i32, String) {
        // SAFETY: the text ends with a zero byte, and is valid until this thread's next error.
        let text = unsafe { CStr::from_ptr(vdi_last_error_text()) };
        (vdi_last_error_code(), text.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_thread_has_its_own_last_error() {
        std::thread::spawn(|| {
            assert_eq!(last(), (0, String::new()));
            let status = call("vdi_test", || Err(Failure::invalid("a\0b")));
            let error = (status, "vdi_test: VD_E_INVALID (0x80770006): a\u{fffd}b".to_owned());
            assert_eq!(last(), error);
            assert_eq!(call("vdi_test", || Ok(())), 0);
            assert_eq!(last(), error, "success leaves it");
            std::thread::spawn(|| assert_eq!(last().0, 0)).join().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_panic_is_the_last_error() {
        let status = call("vdi_test", || panic!("on purpose"));
        assert_eq!(status, VdError::Unexpected.hresult().cast_signed());
        assert!(last().1.starts_with("vdi_test: VD_E_UNEXPECTED (0x8077000b): "), "{:?}", last());
    }
}
