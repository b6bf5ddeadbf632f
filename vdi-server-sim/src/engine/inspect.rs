//! RESTORE LABELONLY, HEADERONLY, FILELISTONLY and VERIFYONLY.

use super::{Cancel, Engine, Failure, Report};
use crate::tsql::Inspect;

/// Carries out an inspection.
pub(super) fn run(
    _engine: &Engine,
    _statement: &Inspect,
    _cancel: &Cancel,
    _answers: &mut dyn Report,
) -> Result<(), Failure> {
    todo!()
}
