//! The body of an exported function.
//!
//! # Invariants
//!
//! 1. Nothing unwinds into foreign code: a panic is VD_E_UNEXPECTED.
//! 2. Every failure is reported once, before the function returns its status.

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vdi_client::{Error, INFINITE, VdError};

/// Why a call fails.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    advice: &'static str,
}

#[derive(Debug)]
enum Kind {
    /// An error of the client library.
    Client(Error),
    /// An error that the binary interface found.
    Interface { code: VdError, subject: String, what: String },
}

impl Failure {
    /// A failure that the binary interface found: what is wrong, and what to do.
    pub fn new(code: VdError, what: impl Into<String>) -> Failure {
        Kind::Interface { code, subject: String::new(), what: what.into() }.into()
    }

    /// VD_E_INVALID.
    pub fn invalid(what: impl Into<String>) -> Failure {
        Failure::new(VdError::Invalid, what)
    }

    /// The same failure, about a device.
    #[must_use]
    pub fn of_device(mut self, device: &str, set: &str) -> Failure {
        if let Kind::Interface { subject, .. } = &mut self.kind {
            *subject = format!(" on device {device:?} of set {set:?}");
        }
        self
    }

    /// The same failure, with something more to try: a clause that follows the text.
    #[must_use]
    pub fn with_advice(mut self, advice: &'static str) -> Failure {
        self.advice = advice;
        self
    }

    /// The status to return.
    #[must_use]
    pub fn code(&self) -> VdError {
        match &self.kind {
            Kind::Client(error) => error.code(),
            Kind::Interface { code, .. } => *code,
        }
    }

    /// The failure of a function as a line of text. An error of the client library names the call of the interface; the
    /// function's name is put before it where it is another one.
    #[must_use]
    pub fn describe(&self, function: &str) -> String {
        let text = match &self.kind {
            Kind::Client(error) if error.call() == function => error.to_string(),
            Kind::Client(error) => format!("{function}: {error}"),
            Kind::Interface { code, subject, what } => {
                format!("{function}{subject}: {} ({:#010x}): {what}", code.name(), code.hresult())
            }
        };
        let separator = if self.advice.is_empty() { "" } else { "; " };
        text + separator + self.advice
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Kind::Client(error).into()
    }
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Failure {
        Failure { kind, advice: "" }
    }
}

/// Runs the body of an exported function, and returns its status: 0, or the code of its failure, which is reported
/// before. A panic is VD_E_UNEXPECTED.
pub fn call(body: impl FnOnce() -> Result<(), Failure>, report: impl FnOnce(&Failure)) -> i32 {
    let result = catch(body).unwrap_or_else(|| {
        let what = "the library failed; please report this, with what it printed on standard error";
        Err(Failure::new(VdError::Unexpected, what))
    });
    match result {
        Ok(()) => 0,
        Err(failure) => {
            let _ = catch(|| report(&failure));
            failure.code().hresult().cast_signed()
        }
    }
}

/// `None` for a panic.
fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    // Unwind safety: what calls share is behind locks that guard single steps, so no panic leaves it half updated. The
    // rest is the call's own and ends with it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // Its destructor is foreign to this crate, and may panic as well.
            core::mem::forget(payload);
            None
        }
    }
}

/// A time-out as foreign code passes it, in units of `unit`. Negative numbers and INFINITE, an unsigned 32-bit -1,
/// never pass.
#[must_use]
pub fn timeout(number: i64, unit: Duration) -> Duration {
    match u32::try_from(number) {
        Ok(u32::MAX) => INFINITE,
        Ok(number) => unit.saturating_mul(number),
        Err(_) if number < 0 => INFINITE,
        // 49 days and more.
        Err(_) => Duration::from_millis(number.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use super::*;

    #[test]
    fn a_panic_is_unexpected_and_reported() {
        let reported = RefCell::new(String::new());
        let status = call(|| panic!("on purpose"), |failure| *reported.borrow_mut() = failure.describe("Close"));
        assert_eq!(status, 0x8077_000b_u32.cast_signed());
        assert!(reported.borrow().starts_with("Close: VD_E_UNEXPECTED (0x8077000b): "), "{reported:?}");
    }

    #[test]
    fn a_panic_of_the_report_keeps_the_status() {
        let status = call(|| Err(Failure::new(VdError::Busy, "")), |_| panic!("on purpose"));
        assert_eq!(status, VdError::Busy.hresult().cast_signed());
        assert_eq!(call(|| Ok(()), |_| panic!("nothing to report")), 0);
    }

    #[test]
    fn a_failure_names_the_function_once() {
        let error = || Failure::from(vdi_client::ClientVirtualDeviceSet::new().signal_abort().unwrap_err());
        assert!(error().describe("SignalAbort").starts_with("SignalAbort: VD_E_PROTOCOL (0x8077000c): "));
        assert!(
            error().describe("vdi_set_signal_abort").starts_with("vdi_set_signal_abort: SignalAbort: VD_E_PROTOCOL")
        );
        let busy = Failure::new(VdError::Busy, "wait").of_device("d", "s");
        assert_eq!(busy.describe("Close"), "Close on device \"d\" of set \"s\": VD_E_BUSY (0x8077000f): wait");
    }

    #[test]
    fn negative_and_infinite_time_outs_never_pass() {
        let (ms, s) = (Duration::from_millis(1), Duration::from_secs(1));
        assert_eq!(timeout(0, ms), Duration::ZERO);
        assert_eq!(timeout(90, ms), Duration::from_millis(90));
        assert_eq!(timeout(90, s), Duration::from_secs(90));
        for never in [-1, i64::MIN, 0xffff_ffff] {
            assert_eq!(timeout(never, ms), INFINITE);
        }
        assert_eq!(timeout(0x1_0000_0000, ms), Duration::from_millis(0x1_0000_0000));
        assert!(timeout(i64::MAX, s) > Duration::from_secs(1 << 50));
    }
}
