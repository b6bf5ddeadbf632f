//! Statuses, messages and time-outs of calls.

use core::time::Duration;
use std::sync::OnceLock;

use vdi_client::{EnvironmentError, Options, VdError};
use vdi_ffi::{Failure, call, log};

/// Runs the body of an exported function. Where VDI_LOG is set, its failure is a message on standard error.
pub(crate) fn answer(function: &str, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    call(body, |failure| {
        if log::is_enabled() {
            print(&failure.describe(function));
        }
    })
}

fn print(message: &str) {
    log::write(&format!("libsqlvdi: {message}"));
}

/// Reads the environment, unless it was read before. The first set's constructor calls it: a program may change its
/// environment later, while other threads call the library.
pub(crate) fn read_environment() {
    let _ = (log::is_enabled(), get_command_unit(), options());
}

/// The users that the environment allows.
///
/// # Errors
/// VD_E_INVALID: a variable cannot be understood.
pub(crate) fn options() -> Result<Options, Failure> {
    static OPTIONS: OnceLock<Result<Options, EnvironmentError>> = OnceLock::new();
    OPTIONS.get_or_init(Options::from_env).clone().map_err(|error| Failure::invalid(error.to_string()))
}

fn get_command_unit() -> Duration {
    static UNIT: OnceLock<Duration> = OnceLock::new();
    *UNIT.get_or_init(|| {
        let unit = std::env::var("VDI_GETCOMMAND_TIMEOUT_UNIT").unwrap_or_default();
        if log::is_enabled() && !matches!(&*unit, "" | "ms" | "s") {
            print(&format!(
                "VDI_GETCOMMAND_TIMEOUT_UNIT is {unit:?}, which is neither \"ms\" nor \"s\"; taken as \"ms\""
            ));
        }
        if unit == "s" { Duration::from_secs(1) } else { MILLISECOND }
    })
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// GetConfiguration's time-out: milliseconds.
pub(crate) fn configuration_timeout(number: i64) -> Duration {
    vdi_ffi::call::timeout(number, MILLISECOND)
}

/// GetCommand's time-out: milliseconds, or seconds where the environment says so.
pub(crate) fn command_timeout(number: i64) -> Duration {
    vdi_ffi::call::timeout(number, get_command_unit())
}

/// What to try when GetCommand fails: a program that means seconds waits for milliseconds only.
pub(crate) fn command_advice(timeout: Duration, failure: &Failure) -> &'static str {
    let short = !timeout.is_zero() && timeout < Duration::from_secs(1);
    if short && failure.code() == VdError::Timeout && get_command_unit() == MILLISECOND {
        "the number that the program passed was taken as milliseconds: if it means seconds, set \
         VDI_GETCOMMAND_TIMEOUT_UNIT=s"
    } else {
        ""
    }
}
