//! The events of this crate; see `docs/tracing.md`. The mechanism is [`vdi_shm::trace`]'s.

use vdi_proto::status::VdError;
pub(crate) use vdi_shm::trace::{Clock, Span};
pub(crate) use vdi_shm::trace_listening as listening;

use crate::error::Error;

/// Sends an event: a level, fields (`%` before what is shown by its `Display`), and what happened.
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {
        vdi_shm::trace_event!("vdi_client", $level, $($fields)+)
    };
}
pub(crate) use event;

/// The span of a device's pump.
pub(crate) fn pump_span(set: &str, device: &str) -> Span {
    vdi_shm::trace_span!("vdi_client", "pump", set = set, device = device)
}

/// A call failed. The end of a device is no failure, and a time-out is of a lower level.
#[cold]
pub(crate) fn trace_refused(error: &Error) {
    match error.code() {
        VdError::Close => {}
        VdError::Timeout => event!(
            TRACE,
            call = error.call(),
            set = error.set(),
            device = error.device(),
            code = error.code().name(),
            error = %error,
            "call timed out"
        ),
        code => event!(
            DEBUG,
            call = error.call(),
            set = error.set(),
            device = error.device(),
            code = code.name(),
            error = %error,
            "call refused"
        ),
    }
}
