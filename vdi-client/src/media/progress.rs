//! How far a backup has come, and what that proves: the rule of when it may be committed.

use std::fmt;

use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};

use super::MediaError;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Backup,
    Restore,
}

/// Checks that a media made for `direction` and `kinds` can serve a set that was configured like this.
pub(super) fn check(
    config: &VdConfig,
    direction: Direction,
    kinds: &[DeviceKind],
    name: &dyn fmt::Display,
) -> Result<(), MediaError> {
    let features = config.features;
    let (own, opposite, made_for, server) = match direction {
        Direction::Backup => (Features::WRITE_MEDIA, Features::READ_MEDIA, "written", "read (a restore)"),
        Direction::Restore => (Features::READ_MEDIA, Features::WRITE_MEDIA, "read", "write (a backup)"),
    };
    if features.contains(opposite) && !features.contains(own) {
        let mut error =
            MediaError::not_supported(format_args!("what the server is going to do with {name}, {server},"));
        error.remedy = format!("{name} was opened to be {made_for}: open it the other way").into();
        return Err(error);
    }
    match features.device_kind() {
        Ok(kind) if kinds.contains(&kind) => Ok(()),
        _ => Err(MediaError::not_supported(format_args!("the kind of device that {name} has to serve ({features})"))),
    }
}

/// What the server's commands have proven so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Complete was agreed on and will come.
    complete_agreed: bool,
    /// A Flush came.
    flushed: bool,
    /// Something was written that no Flush has covered yet.
    uncovered: bool,
}

/// Why a closed device's backup is not proven to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unproven {
    NoComplete,
    NoFlush,
    WriteAfterFlush,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::NoComplete => "without the Complete that had been agreed on",
            Unproven::NoFlush => "without a Flush",
            Unproven::WriteAfterFlush => "without a Flush after the last Write",
        })
    }
}

impl Progress {
    pub(super) fn begin(&mut self, config: &VdConfig) {
        self.complete_agreed = config.features.contains(Features::COMPLETE_ENABLED);
    }

    pub(super) fn written(&mut self) {
        self.uncovered = true;
    }

    pub(super) fn flushed(&mut self) {
        self.flushed = true;
        self.uncovered = false;
    }

    /// Whether a close without a Complete before it may commit.
    pub(super) fn check_close(&self) -> Result<(), Unproven> {
        if self.complete_agreed {
            Err(Unproven::NoComplete)
        } else if !self.flushed {
            Err(Unproven::NoFlush)
        } else if self.uncovered {
            Err(Unproven::WriteAfterFlush)
        } else {
            Ok(())
        }
    }
}
