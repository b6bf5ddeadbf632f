//! The boundary: results, the last error of a thread, and the pointers that a caller passes.
//!
//! # Invariants
//!
//! 1. Every function with a status goes through [`call`]: nothing unwinds into the caller, and what was refused is this
//!    thread's last error.
//! 2. A caller's pointer is looked at only here, after it was compared with NULL, by functions that are `unsafe` because
//!    they must believe that it points at what the header says. Nothing keeps such a pointer.
//! 3. Nothing here relies on a caller's pointer being aligned.

use core::cell::RefCell;
use core::ffi::{CStr, c_char};
use core::time::Duration;
use std::ffi::CString;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use vdi_client::{INFINITE, VdError};

use crate::signals::without_sigpipe;

/// The bytes within which a string must end, its zero byte included.
const MAX_STRING: usize = 1024;

/// Why a call is refused.
#[derive(Debug)]
pub(crate) struct Failure {
    code: VdError,
    text: String,
}

impl Failure {
    /// A failure that this crate found: what is wrong, and what to do.
    pub(crate) fn new(code: VdError, text: impl core::fmt::Display) -> Failure {
        Failure { code, text: format!("{} ({:#010x}): {text}", code.name(), code.hresult()) }
    }

    /// VD_E_INVALID.
    pub(crate) fn invalid(text: impl core::fmt::Display) -> Failure {
        Failure::new(VdError::Invalid, text)
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> VdError {
        self.code
    }
}

impl From<vdi_client::Error> for Failure {
    fn from(error: vdi_client::Error) -> Failure {
        Failure { code: error.code(), text: error.to_string() }
    }
}

/// What a thread was last refused.
struct Last {
    status: i32,
    text: CString,
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Does a function's work and makes its status. A panic is VD_E_UNEXPECTED.
pub(crate) fn call(function: &'static str, work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    // Unwind safety: what `work` shares with other calls are the registries and the objects, which are whole whenever their
    // locks are free, poisoned or not; see `registry` and `device`. The rest is the work's own and ends with it.
    let outcome = catch_unwind(AssertUnwindSafe(|| match work() {
        Ok(()) => 0,
        Err(failure) => remember(function, failure),
    }));
    outcome.unwrap_or_else(|payload| {
        let text = "the library failed; please report this, with what it printed on standard error";
        let failure = Failure::new(VdError::Unexpected, text);
        let outcome = catch_unwind(AssertUnwindSafe(|| remember(function, failure)));
        // What was thrown may itself panic when it is dropped.
        core::mem::forget(payload);
        outcome.unwrap_or(VdError::Unexpected.hresult() as i32)
    })
}

/// Makes a failure this thread's last error, and returns its status.
fn remember(function: &'static str, failure: Failure) -> i32 {
    let status = failure.code.hresult() as i32;
    let text = format!("{function}: {}", failure.text).replace('\0', "\u{fffd}");
    if logs() {
        // In one piece, so that lines of other threads do not get in between. Where nobody reads there is nobody to tell.
        without_sigpipe(|| drop(std::io::stderr().write_all(format!("{text}\n").as_bytes())));
    }
    // There is no zero byte left in it.
    let text = CString::new(text).unwrap_or_default();
    // In a thread that is ending there may be no place any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(Last { status, text }));
    status
}

/// Whether VDI_LOG is set, and not to 0. Asked once: the environment must not be read while the program changes it.
fn logs() -> bool {
    static LOGS: OnceLock<bool> = OnceLock::new();
    *LOGS.get_or_init(|| std::env::var_os("VDI_LOG").is_some_and(|value| !value.is_empty() && value != "0"))
}

/// This thread's last status; 0 without one.
pub(crate) fn last_status() -> i32 {
    LAST.try_with(|last| last.borrow().as_ref().map_or(0, |last| last.status)).unwrap_or(0)
}

/// The text of this thread's last error, valid until its next one; empty without one.
pub(crate) fn last_text() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ref().map_or(c"".as_ptr(), |last| last.text.as_ptr())).unwrap_or(c"".as_ptr())
}

/// A time-out as the caller gives it.
pub(crate) fn timeout(milliseconds: i64) -> Duration {
    u64::try_from(milliseconds).map_or(INFINITE, Duration::from_millis)
}

/// A string of the caller's.
///
/// # Errors
/// VD_E_INVALID for NULL, for no zero byte within [`MAX_STRING`], and for what is not UTF-8.
///
/// # Safety
/// `text` is NULL, or readable up to its zero byte or for [`MAX_STRING`] bytes; nobody changes it during `'a`.
pub(crate) unsafe fn string<'a>(what: &str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::invalid(format_args!("{what} is NULL; pass a string")));
    }
    // One byte after the other: behind the zero byte nothing need be readable.
    // SAFETY: `index` bytes have been read and none was zero, so that this one may be read as well, as the caller
    // promises, up to `MAX_STRING`.
    let byte_at = |index| unsafe { text.wrapping_add(index).read() };
    let Some(length) = (0..MAX_STRING).find(|index| byte_at(*index) == 0) else {
        return Err(Failure::invalid(format_args!(
            "{what} has no zero byte within {MAX_STRING} bytes; end it with one"
        )));
    };
    // SAFETY: these bytes have just been read, they end with the first zero byte, and the caller promises that nobody
    // changes them as long as the result is used.
    let bytes = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), length + 1) };
    let text = CStr::from_bytes_with_nul(bytes).ok().and_then(|text| text.to_str().ok());
    text.ok_or_else(|| Failure::invalid(format_args!("{what} is not UTF-8; convert it")))
}

/// Where a result goes, known not to be NULL.
pub(crate) struct Out<T> {
    place: *mut T,
}

impl<T> Out<T> {
    /// A place for a result.
    ///
    /// # Errors
    /// VD_E_INVALID for NULL.
    ///
    /// # Safety
    /// `place` is NULL, or may be written to as a `T`, aligned or not, until the result is dropped.
    pub(crate) unsafe fn new(what: &str, place: *mut T) -> Result<Out<T>, Failure> {
        if place.is_null() {
            return Err(Failure::invalid(format_args!("{what} is NULL; pass the place where the result goes")));
        }
        Ok(Out { place })
    }

    /// Writes it.
    pub(crate) fn set(&self, value: T) {
        // SAFETY: the place is not NULL, and whoever made this promised that it may be written to, for as long as this
        // lives. What was there has no destructor: it is the caller's memory, perhaps uninitialized.
        unsafe { self.place.write_unaligned(value) };
    }
}

/// What a pointer of the caller's points at.
///
/// # Errors
/// VD_E_INVALID for NULL.
///
/// # Safety
/// `place` is NULL or holds a `T`, aligned or not.
pub(crate) unsafe fn value<T: Copy>(what: &str, place: *const T) -> Result<T, Failure> {
    if place.is_null() {
        return Err(Failure::invalid(format_args!("{what} is NULL; pass a pointer to it")));
    }
    // SAFETY: it is not NULL, and the caller promises that a `T` can be read there.
    Ok(unsafe { place.read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        // SAFETY: the text is ended by a zero byte and valid until this thread's next error.
        unsafe { CStr::from_ptr(last_text()) }.to_str().unwrap().to_owned()
    }

    fn string_of(bytes: &[u8]) -> Result<String, Failure> {
        // SAFETY: the tests pass bytes with a zero byte, or at least `MAX_STRING` of them.
        unsafe { string("the name", bytes.as_ptr().cast()) }.map(str::to_owned)
    }

    #[test]
    fn no_panic_crosses() {
        let status = call("vdi_test", || panic!("on purpose"));
        assert_eq!(status, VdError::Unexpected.hresult() as i32);
        assert_eq!(last_status(), status);
        assert!(text().starts_with("vdi_test: VD_E_UNEXPECTED (0x8077000b): "), "{}", text());
    }

    #[test]
    fn each_thread_has_its_own_last_error() {
        std::thread::spawn(|| {
            assert_eq!((last_status(), text()), (0, String::new()));
            let status = call("vdi_test", || Err(Failure::invalid("a\0b")));
            assert_eq!(text(), "vdi_test: VD_E_INVALID (0x80770006): a\u{fffd}b");
            // Success leaves it.
            assert_eq!(call("vdi_test", || Ok(())), 0);
            assert_eq!(last_status(), status);
            std::thread::spawn(|| assert_eq!(last_status(), 0)).join().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn strings_of_every_kind() {
        assert_eq!(string_of(b"Gr\xc3\xb6\xc3\x9fe\0").unwrap(), "Größe");
        assert_eq!(string_of(b"\0").unwrap(), "");
        let mut longest = vec![b'x'; MAX_STRING - 1];
        longest.push(0);
        assert_eq!(string_of(&longest).unwrap().len(), MAX_STRING - 1);
        let endless = vec![b'x'; MAX_STRING];
        for bad in [&b"\xff\0"[..], b"\xc3\0", &endless] {
            assert_eq!(string_of(bad).unwrap_err().code(), VdError::Invalid);
        }
        // SAFETY: NULL is allowed.
        let null = unsafe { string("the name", core::ptr::null()) };
        assert_eq!(null.unwrap_err().code(), VdError::Invalid);
    }

    #[test]
    fn nothing_needs_to_be_aligned() {
        let mut bytes = [0u8; 9];
        let place = bytes[1..].as_mut_ptr().cast::<u64>();
        // SAFETY: eight bytes from there on are the array's.
        unsafe { Out::new("it", place) }.unwrap().set(77);
        // SAFETY: as above.
        assert_eq!(unsafe { value("it", place.cast_const()) }.unwrap(), 77);
        assert_eq!(bytes[0], 0);
    }

    #[test]
    fn negative_time_outs_are_for_ever() {
        assert_eq!(timeout(-1), INFINITE);
        assert_eq!(timeout(i64::MIN), INFINITE);
        assert_eq!(timeout(0), Duration::ZERO);
        assert_eq!(timeout(1500), Duration::from_millis(1500));
    }
}
