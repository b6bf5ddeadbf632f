//! Pointers that foreign code passes.
//!
//! # Invariants
//!
//! 1. An [`Argument`] comes from foreign code: as a parameter of an exported function, or from [`Argument::new`]. It is
//!    used during that call only.
//! 2. No access follows a null pointer, and none relies on alignment.

use core::ffi::c_char;

use crate::call::Failure;

/// The bytes within which a text must end, its zero byte included.
pub const TEXT_LIMIT: usize = 1024;

/// A pointer as foreign code passed it: null, or to memory that the call may use as the interface says.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Argument<T>(*mut T);

impl<T: Copy> Argument<T> {
    /// A pointer of the caller's.
    ///
    /// # Safety
    /// Until the call returns, `pointer` is null, or allows what is done with the argument: [`Argument::read`] needs a
    /// `T` there, [`Argument::write`] memory of a `T`'s size that no reference covers, [`Argument::text`] a text that
    /// ends with a zero byte or has at least [`TEXT_LIMIT`] bytes. It need not be aligned.
    pub const unsafe fn new(pointer: *const T) -> Self {
        Argument(pointer.cast_mut())
    }

    /// The pointer itself.
    #[must_use]
    pub fn address(self) -> *mut T {
        self.0
    }

    /// Refuses null.
    ///
    /// # Errors
    /// VD_E_INVALID for null; `name` says what is null.
    pub fn check(self, name: &str) -> Result<(), Failure> {
        if self.0.is_null() { Err(Failure::invalid(format!("{name} is null"))) } else { Ok(()) }
    }

    /// What the pointer points at.
    ///
    /// # Errors
    /// As [`Argument::check`].
    pub fn read(self, name: &str) -> Result<T, Failure> {
        self.check(name)?;
        // SAFETY: the pointer is not null. By invariant 1 the caller lets this call read a `T` there. It need not be
        // aligned.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// Writes a result. What was there is overwritten, not dropped: it may be uninitialized.
    ///
    /// # Errors
    /// As [`Argument::check`].
    pub fn write(self, name: &str, value: T) -> Result<(), Failure> {
        self.check(name)?;
        // SAFETY: the pointer is not null. By invariant 1 the caller lets this call write a `T` there. It need not be
        // aligned.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }
}

impl Argument<c_char> {
    /// A text that ends with a zero byte.
    ///
    /// # Errors
    /// VD_E_INVALID for null, for no zero byte within [`TEXT_LIMIT`] bytes, and for what is not UTF-8.
    pub fn text(self, name: &str) -> Result<String, Failure> {
        self.check(name)?;
        let mut bytes = Vec::new();
        // One byte after the other: the memory may end behind the zero byte.
        for index in 0..TEXT_LIMIT {
            // SAFETY: by invariant 1 the caller lets this call read a text up to its zero byte, or TEXT_LIMIT bytes.
            // The bytes before this one are not zero, and `index` is below the limit: the byte is the text's.
            match unsafe { self.0.wrapping_add(index).read() } {
                0 => {
                    return String::from_utf8(bytes)
                        .map_err(|error| Failure::invalid(format!("{name} is no UTF-8: {}", error.utf8_error())));
                }
                byte => bytes.push(byte as u8),
            }
        }
        Err(Failure::invalid(format!("{name} does not end within {TEXT_LIMIT} bytes; end it with a zero byte")))
    }

    /// A text that may be left out: `None` for null.
    ///
    /// # Errors
    /// As [`Argument::text`], but for null.
    pub fn optional_text(self, name: &str) -> Result<Option<String>, Failure> {
        if self.0.is_null() { Ok(None) } else { self.text(name).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use vdi_client::VdError;

    use super::*;

    fn text_of(bytes: &[u8]) -> Result<String, Failure> {
        // SAFETY: the tests pass bytes with a zero byte, or TEXT_LIMIT of them.
        unsafe { Argument::new(bytes.as_ptr().cast::<c_char>()) }.text("the name")
    }

    #[test]
    fn texts_end_within_the_limit_and_are_utf8() {
        assert_eq!(text_of(b"Gr\xc3\xb6\xc3\x9fe\0").unwrap(), "Größe");
        assert_eq!(text_of(b"\0").unwrap(), "");
        let mut longest = vec![b'x'; TEXT_LIMIT - 1];
        longest.push(0);
        assert_eq!(text_of(&longest).unwrap().len(), TEXT_LIMIT - 1);
        let endless = vec![b'x'; TEXT_LIMIT];
        for bad in [&b"\xff\0"[..], b"\xc3\0", &endless] {
            assert_eq!(text_of(bad).unwrap_err().code(), VdError::Invalid);
        }
    }

    #[test]
    fn null_is_refused() {
        // SAFETY: null is allowed.
        let null = unsafe { Argument::new(core::ptr::null::<c_char>()) };
        let failures = [null.check("it"), null.read("it").map(drop), null.write("it", 0), null.text("it").map(drop)];
        for failure in failures {
            assert_eq!(failure.unwrap_err().describe("Call"), "Call: VD_E_INVALID (0x80770006): it is null");
        }
        assert!(null.optional_text("it").unwrap().is_none());
    }

    #[test]
    fn no_access_needs_alignment() {
        let mut bytes = [0u8; 9];
        // SAFETY: eight bytes from there on are the array's, and nothing refers to them during the two calls.
        let argument = unsafe { Argument::new(bytes[1..].as_mut_ptr().cast::<u64>()) };
        argument.write("it", 77).unwrap();
        assert_eq!(argument.read("it").unwrap(), 77);
        assert_eq!(bytes[0], 0);
    }
}
