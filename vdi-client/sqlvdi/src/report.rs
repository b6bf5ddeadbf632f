//! What a refused call tells: a status to the program, and where VDI_LOG is set, a message on standard error.

use core::ffi::c_int;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io::Write;
use std::sync::OnceLock;

use vdi_client::{Error, INFINITE, VdError};

use crate::abi::{status, without_sigpipe};

/// What the environment says. It is looked at once, when the first set is constructed: a program may change its environment
/// later, while other threads are in here.
#[derive(Debug)]
struct Settings {
    log: bool,
    get_command_in_seconds: bool,
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let log = !matches!(&*variable("VDI_LOG"), "" | "0");
        let unit = variable("VDI_GETCOMMAND_TIMEOUT_UNIT");
        if log && !matches!(&*unit, "" | "ms" | "s") {
            print(&format!(
                "VDI_GETCOMMAND_TIMEOUT_UNIT is {unit:?}, which is neither \"ms\" nor \"s\"; taken as \"ms\""
            ));
        }
        Settings { log, get_command_in_seconds: unit == "s" }
    })
}

/// Looks at the environment now.
pub(crate) fn settle() {
    settings();
}

/// A time-out as programs pass it. Negative numbers and INFINITE, an unsigned 32-bit -1, wait for ever.
fn timeout(number: i64, unit: Duration) -> Duration {
    match u32::try_from(number) {
        Ok(u32::MAX) => INFINITE,
        Ok(number) => unit * number,
        Err(_) if number < 0 => INFINITE,
        // Beyond 49 days; seconds or not makes no difference any more.
        Err(_) => Duration::from_millis(number.unsigned_abs()),
    }
}

/// GetConfiguration's: milliseconds.
pub(crate) fn milliseconds(number: i64) -> Duration {
    timeout(number, Duration::from_millis(1))
}

/// GetCommand's: milliseconds, or seconds on request.
pub(crate) fn get_command_timeout(number: i64) -> Duration {
    timeout(number, if settings().get_command_in_seconds { Duration::from_secs(1) } else { Duration::from_millis(1) })
}

/// Why a call was refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// By the client library, which says everything.
    Client(Error),
    /// Here.
    Here { code: VdError, whose: Option<(String, String)>, what: String },
}

impl Refusal {
    pub(crate) fn new(code: VdError, what: impl Into<String>) -> Refusal {
        Refusal::Here { code, whose: None, what: what.into() }
    }

    /// With a device's name and its set's.
    pub(crate) fn of(code: VdError, device: &str, set: &str, what: impl Into<String>) -> Refusal {
        Refusal::Here { code, whose: Some((device.to_owned(), set.to_owned())), what: what.into() }
    }

    fn code(&self) -> VdError {
        match self {
            Refusal::Client(error) => error.code(),
            Refusal::Here { code, .. } => *code,
        }
    }

    fn describe(&self, call: &str) -> String {
        match self {
            Refusal::Client(error) => error.to_string(),
            Refusal::Here { code, whose, what } => {
                let whose = match whose {
                    Some((device, set)) => format!(" on device {device:?} of set {set:?}"),
                    None => String::new(),
                };
                format!("{call}{whose}: {} ({:#010x}): {what}", code.name(), code.hresult())
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Client(error)
    }
}

/// A message on standard error, in one piece.
fn print(message: &str) {
    // Nobody is left to hear that standard error is gone.
    without_sigpipe(|| drop(std::io::stderr().write_all(format!("libsqlvdi: {message}\n").as_bytes())));
}

/// The body of every exported function: 0, or the code of the refusal. A panic ends here, as VD_E_UNEXPECTED.
pub(crate) fn answer(call: &str, body: impl FnOnce() -> Result<(), Refusal>) -> c_int {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| match body() {
        Ok(()) => 0,
        Err(refusal) => {
            if settings().log {
                print(&refusal.describe(call));
            }
            status(refusal.code())
        }
    }));
    outcome.unwrap_or_else(|panic| {
        // Dropping it is the panicking code's business as well.
        core::mem::forget(panic);
        status(VdError::Unexpected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_milliseconds_and_negative_or_infinite_ones_never_pass() {
        assert_eq!(milliseconds(0), Duration::ZERO);
        assert_eq!(milliseconds(90), Duration::from_millis(90));
        assert_eq!(timeout(90, Duration::from_secs(1)), Duration::from_secs(90));
        for never in [-1, i64::MIN, 0xffff_ffff] {
            assert_eq!(milliseconds(never), INFINITE);
        }
        assert_eq!(milliseconds(0x1_0000_0000), Duration::from_millis(0x1_0000_0000));
        assert!(milliseconds(i64::MAX) > Duration::from_secs(1 << 50));
    }

    #[test]
    fn a_panic_becomes_unexpected() {
        std::panic::set_hook(Box::new(|_| {}));
        assert_eq!(answer("Create", || panic!("out of luck")), 0x8077_000b_u32.cast_signed());
        let _ = std::panic::take_hook();
    }
}
