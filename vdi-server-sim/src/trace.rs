//! The events of this crate; see "Tracing" in the crate's documentation. [`vdi_shm::trace`] has the mechanism.

pub(crate) use vdi_shm::trace::{Clock, Span};
pub(crate) use vdi_shm::trace_listening as listening;

/// Emits an event: a level, fields (`%` before a value that is recorded with its `Display`), and a message.
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {
        vdi_shm::trace_event!("vdi_server_sim", $level, $($fields)+)
    };
}
pub(crate) use event;

/// The span of a statement.
pub(crate) fn statement_span(verb: &'static str, database: &str, set: &str) -> Span {
    vdi_shm::trace_span!("vdi_server_sim", "statement", verb = verb, database = database, set = set)
}
