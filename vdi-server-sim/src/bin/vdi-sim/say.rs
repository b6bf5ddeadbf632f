//! Lines on the standard streams. A closed stream (`vdi-sim sql ... | head -1`) changes neither the work nor the exit status.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// A line on the standard output.
pub(crate) fn out(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// A line on the standard error.
pub(crate) fn err(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
