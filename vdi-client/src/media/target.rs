//! What a medium works on, from its making to its end: open, then finished or failed.
//!
//! # Invariants
//!
//! 1. After a final failure everything is refused, ClearError included, with the reason of the first one.
//! 2. What was open is dropped with the failure: an uncommitted file vanishes at once.
//! 3. A backup is closed only when it is proven to be complete: see the [module above](super#the-invariant).

use std::fmt;

use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};

use super::error::MediaError;

#[derive(Debug)]
pub(super) struct Target<S> {
    pub(super) name: String,
    pub(super) direction: Direction,
    /// What becomes of the data of a backup that ends before it is complete.
    pub(super) fate: &'static str,
    pub(super) progress: Progress,
    /// Bytes written, or read in a restore.
    pub(super) bytes: u64,
    state: State<S>,
}

#[derive(Debug)]
enum State<S> {
    Open(S),
    /// Committed, or closed after reading.
    Done,
    /// Failed for this reason.
    Failed(String),
}

impl<S> Target<S> {
    pub(super) fn new(name: String, direction: Direction, fate: &'static str, open: S) -> Target<S> {
        let fate = if direction == Direction::Backup { fate } else { "" };
        Target { name, direction, fate, progress: Progress::default(), bytes: 0, state: State::Open(open) }
    }

    /// Checks that it can serve a set that was configured like this.
    pub(super) fn begin(&mut self, config: &VdConfig, kinds: &[DeviceKind]) -> Result<(), MediaError> {
        let checked = check(config, self.direction, kinds, &self.name);
        checked.map_err(|error| self.fail(error))?;
        self.progress.begin(config);
        Ok(())
    }

    pub(super) fn get(&self) -> Option<&S> {
        match &self.state {
            State::Open(open) => Some(open),
            State::Done | State::Failed(_) => None,
        }
    }

    /// What is open, for `what`, which is in the error else.
    pub(super) fn open(&mut self, what: impl fmt::Display) -> Result<&mut S, MediaError> {
        match &mut self.state {
            State::Open(open) => Ok(open),
            State::Failed(first) => Err(failed_before(&self.name, first)),
            State::Done => {
                let what = format!("{what} came after {} was finished", self.name);
                Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy(
                    "the server must not send it after Complete or close; report that with the server's version",
                ))
            }
        }
    }

    /// As [`Target::open`], for what a finished target need not do any more: `None`.
    pub(super) fn open_or_done(&mut self, what: impl fmt::Display) -> Result<Option<&mut S>, MediaError> {
        if matches!(self.state, State::Done) { Ok(None) } else { self.open(what).map(Some) }
    }

    /// ClearError.
    pub(super) fn clear_error(&self) -> Result<(), MediaError> {
        match &self.state {
            State::Failed(first) => Err(failed_before(&self.name, first)),
            State::Open(_) | State::Done => Ok(()),
        }
    }

    /// Fails for good.
    pub(super) fn fail(&mut self, mut error: MediaError) -> MediaError {
        if self.get().is_some() && !self.fate.is_empty() {
            error.what = format!("{} ({})", error.what, self.fate);
        }
        self.state = State::Failed(error.to_string());
        error
    }

    /// A final error fails for good; conditions, recoverable errors, and what is not supported do not.
    pub(super) fn settle<T>(&mut self, result: Result<T, MediaError>) -> Result<T, MediaError> {
        result.map_err(|error| match error.code {
            CompletionCode::NOT_SUPPORTED => error,
            _ if error.is_final() => self.fail(error),
            _ => error,
        })
    }

    /// Discard.
    pub(super) fn discard(&mut self) {
        self.state = State::Failed(format!("the server discarded the backup ({})", self.fate));
    }

    /// What is open, which is finished from now on.
    pub(super) fn finish(&mut self) -> Option<S> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Open(open) => Some(open),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// The server closed the device. True where the backup is to be committed now.
    pub(super) fn close(&mut self) -> Result<bool, MediaError> {
        if self.open_or_done("close")?.is_none() {
            return Ok(false);
        }
        if self.direction == Direction::Restore {
            drop(self.finish());
            return Ok(false);
        }
        self.progress.check_close().map(|()| true).map_err(|unproven| {
            let (name, bytes) = (&self.name, self.bytes);
            let what =
                format!("the server closed the device {unproven}, so {name} is not complete after {bytes} bytes");
            let error = MediaError::new(CompletionCode::IO_DEVICE, what);
            self.fail(error.with_remedy("see the server's error log for why it ended the backup"))
        })
    }
}

/// The error of all that follows a failure.
pub(super) fn failed_before(name: &str, first: &str) -> MediaError {
    let what = format!("{name} is of no use any more since an earlier failure: {first}");
    MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("remove the cause of that, then start again")
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Backup,
    Restore,
}

/// Checks that a medium made for `direction` and `kinds` can serve a set that was configured like this.
fn check(
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
    /// Complete was negotiated and will come.
    complete_negotiated: bool,
    /// A Flush came.
    flushed: bool,
    /// Something was written that no Flush has covered yet.
    uncovered: bool,
}

/// Why a closed device's backup is not proven to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unproven {
    NoComplete,
    NoFlush,
    WriteAfterFlush,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::NoComplete => "without the Complete that had been negotiated",
            Unproven::NoFlush => "without a Flush",
            Unproven::WriteAfterFlush => "without a Flush after the last Write",
        })
    }
}

impl Progress {
    fn begin(&mut self, config: &VdConfig) {
        self.complete_negotiated = config.features.contains(Features::COMPLETE_ENABLED);
    }

    pub(super) fn written(&mut self) {
        self.uncovered = true;
    }

    pub(super) fn flushed(&mut self) {
        self.flushed = true;
        self.uncovered = false;
    }

    /// Whether a close without a Complete before it may commit.
    fn check_close(&self) -> Result<(), Unproven> {
        if self.complete_negotiated {
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
