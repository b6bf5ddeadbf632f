//! The work of one device on a medium: how a command is carried out, and what follows when the medium fails.
//!
//! [`pump`](mod@crate::pump) and [`WorkerPool::drive`](crate::workers::WorkerPool::drive) share this state machine:
//!
//! | state | wait for the next command | a command is | the result is |
//! |---|---|---|---|
//! | working | without a time-out | carried out | the report, or the error of the set |
//! | failed | until [`FAILURE_GRACE`] has passed | refused with the failure's code | the failure |
//!
//! # Invariants
//!
//! 1. The first final failure of the medium is the result, whatever the set answers later: abort, close, time-out.
//! 2. A failure is recorded before its command is completed. So an aborted set, which refuses that completion, hides nothing.
//! 3. After a final failure no command succeeds.
//! 4. A server that does not end failed work in time finds the set aborted.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;

use crate::INFINITE;
use crate::completion::{Completion, Outcome};
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::media::{Media, MediaError};
use crate::progress::Counters;

/// How long the server has to end a device after its medium failed. The set is aborted then.
pub(crate) const FAILURE_GRACE: Duration = Duration::from_secs(10);

/// What the work of a device came to.
///
/// `Display` is `65536 bytes written, 0 bytes read, 12 commands`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Commands completed.
    pub commands: u64,
    /// Bytes written to the media, those of Writes that met a condition or a recoverable error included.
    pub bytes_written: u64,
    /// Bytes read from the media, counted in the same way.
    pub bytes_read: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { commands, bytes_written, bytes_read } = self;
        write!(f, "{bytes_written} bytes written, {bytes_read} bytes read, {commands} commands")
    }
}

/// The completion of a command that ended so on a medium.
pub(crate) fn completion(command: CommandCode, outcome: Outcome) -> Completion {
    let Outcome { code, bytes, position } = outcome;
    match code.is_success() {
        false => Completion::failed_after(code, bytes as usize),
        true if command.is_transfer() => Completion::transferred(bytes as usize),
        true if command.rules().is_some_and(|rules| rules.returns_position) => Completion::at(position),
        true => Completion::done(),
    }
}

/// How a command ended on a medium, and the failure if it was final.
pub(crate) type Performed = (Outcome, Option<MediaError>);

/// Carries out one command on a medium. `data` is the command's buffer.
pub(crate) fn perform(
    media: &mut dyn Media,
    code: CommandCode,
    size: i32,
    position: u64,
    data: &mut [u8],
) -> Performed {
    let done = |bytes, position| Outcome { code: CompletionCode::SUCCESS, bytes, position };
    let result = match code {
        CommandCode::WRITE => media.write(position, data).map(|()| done(data.len() as u32, 0)),
        CommandCode::READ => read(media, position, data).map(|bytes| done(bytes, 0)),
        CommandCode::FLUSH => media.flush().map(|()| done(0, 0)),
        CommandCode::COMPLETE => media.complete().map(|()| done(0, 0)),
        CommandCode::CLEAR_ERROR => media.clear_error().map(|()| done(0, 0)),
        code => media.other(code, size, position).map(|position| done(0, position)),
    };
    match result {
        Ok(outcome) => (outcome, None),
        Err(error) => {
            let error = checked(error, if code.is_transfer() { data.len() } else { 0 });
            let outcome = Outcome { bytes: error.bytes, ..Outcome::failed(error.code) };
            (outcome, ends_the_work(code, &error).then_some(error))
        }
    }
}

/// Closes a medium after the server has closed its device.
pub(crate) fn close(media: &mut dyn Media) -> Performed {
    match media.close() {
        Ok(()) => (Outcome::failed(CompletionCode::SUCCESS), None),
        Err(error) => {
            let error = checked(error, 0);
            (Outcome::failed(error.code), Some(error))
        }
    }
}

/// [`Media::read`]. A medium that claims more bytes than the buffer has is wrong about all of them.
fn read(media: &mut dyn Media, position: u64, buffer: &mut [u8]) -> Result<u32, MediaError> {
    let bytes = media.read(position, buffer)?;
    if bytes <= buffer.len() {
        return Ok(bytes as u32);
    }
    let what = format!("the medium claims to have read {bytes} bytes into a buffer of {}", buffer.len());
    Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("correct the program's implementation of Media"))
}

/// An error with the code of success is a final one of the device.
pub(crate) fn never_success(mut error: MediaError) -> MediaError {
    if error.code.is_success() {
        error.code = CompletionCode::IO_DEVICE;
        error = error.into_final();
    }
    error
}

/// The error of a command of `size` bytes as the server gets it. An error with the code of success, or with more bytes than
/// the command has, is final.
fn checked(error: MediaError, size: usize) -> MediaError {
    let mut error = never_success(error);
    if size > 0 && error.bytes as usize > size {
        error = error.into_final();
    }
    error.bytes = error.bytes.min(size as u32);
    error
}

/// Whether the work has failed with this error of a command.
fn ends_the_work(code: CommandCode, error: &MediaError) -> bool {
    match code {
        CommandCode::READ | CommandCode::WRITE => error.is_final(),
        // Their promise holds or does not: there is no recoverable error.
        CommandCode::FLUSH | CommandCode::COMPLETE | CommandCode::CLEAR_ERROR => true,
        // The medium did nothing: the server decides what that means.
        _ if error.code == CompletionCode::NOT_SUPPORTED => false,
        CommandCode::SNAPSHOT | CommandCode::MOUNT_SNAPSHOT => true,
        _ => error.is_final(),
    }
}

/// The work of one device.
#[derive(Debug, Default)]
pub(crate) struct Work {
    report: Report,
    failure: Option<Failure>,
    /// Where other threads read the report meanwhile.
    counters: Option<Arc<Counters>>,
}

/// The first final failure.
#[derive(Debug)]
struct Failure {
    error: MediaError,
    /// The command that failed, if it was one.
    command: Option<CommandCode>,
    since: Instant,
}

impl Work {
    pub(crate) fn counted(counters: Option<Arc<Counters>>) -> Work {
        Work { counters, ..Work::default() }
    }

    /// The medium failed for good. Only the first failure counts.
    pub(crate) fn fail(&mut self, error: MediaError, command: Option<CommandCode>) {
        self.fail_at(error, command, Instant::now());
    }

    fn fail_at(&mut self, error: MediaError, command: Option<CommandCode>, since: Instant) {
        let error = never_success(error);
        self.failure.get_or_insert(Failure { error, command, since });
    }

    /// How every command is completed from now on, once the work has failed.
    pub(crate) fn refusal(&self) -> Option<Completion> {
        self.failure.as_ref().map(|failure| Completion::failed(failure.error.code))
    }

    /// How long to wait for the next command.
    pub(crate) fn time_out(&self) -> Duration {
        self.failure.as_ref().map_or(INFINITE, |failure| FAILURE_GRACE.saturating_sub(failure.since.elapsed()))
    }

    /// Counts a command that did not fail for good.
    pub(crate) fn count(&mut self, command: CommandCode, outcome: Outcome) {
        let Report { commands, bytes_written, bytes_read } = &mut self.report;
        *commands += u64::from(command != CommandCode::CLEAR_ERROR);
        match command {
            CommandCode::WRITE => *bytes_written += u64::from(outcome.bytes),
            CommandCode::READ => *bytes_read += u64::from(outcome.bytes),
            _ => {}
        }
        if let Some(counters) = &self.counters {
            counters.store(&self.report);
        }
    }

    /// The result of the work. `end` is what ended it besides: `Ok` where the server closed the device.
    pub(crate) fn end(
        self,
        call: &'static str,
        device: &ClientVirtualDevice,
        end: Result<(), Error>,
    ) -> Result<Report, Error> {
        let Some(Failure { error, command, .. }) = self.failure else { return end.map(|()| self.report) };
        device.give_up(error.code, &error.to_string());
        let failed = device.error(ErrorKind::System, call, error.to_string()).because(error);
        Err(command.into_iter().fold(failed, Error::of_command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(what: &str) -> MediaError {
        MediaError::new(CompletionCode::IO_DEVICE, what)
    }

    #[test]
    fn conditions_and_recoverable_errors_end_nothing() {
        let mark = MediaError::condition(CompletionCode::FILEMARK_DETECTED, "a mark");
        let busy = broken("busy").recoverable();
        for code in [CommandCode::READ, CommandCode::WRITE, CommandCode::SKIP_MARKS, CommandCode::SET_POSITION] {
            assert!(!ends_the_work(code, &mark) && !ends_the_work(code, &busy), "{code}");
            assert!(ends_the_work(code, &broken("broken")), "{code}");
        }
    }

    #[test]
    fn errors_that_contradict_themselves_are_final() {
        let mark = || MediaError::condition(CompletionCode::FILEMARK_DETECTED, "a mark");
        let told = |error: MediaError, size| {
            let error = checked(error, size);
            (error.code, error.bytes, error.is_final())
        };
        assert_eq!(told(mark().with_bytes(512), 512), (CompletionCode::FILEMARK_DETECTED, 512, false));
        assert_eq!(told(mark().with_bytes(513), 512), (CompletionCode::FILEMARK_DETECTED, 512, true));
        assert_eq!(told(mark().with_bytes(513), 0), (CompletionCode::FILEMARK_DETECTED, 0, false));
        let mut success = mark();
        success.code = CompletionCode::SUCCESS;
        assert_eq!(told(success, 512), (CompletionCode::IO_DEVICE, 0, true));
    }

    #[test]
    fn errors_of_promises_are_final() {
        let busy = broken("busy").recoverable();
        for code in [
            CommandCode::FLUSH,
            CommandCode::COMPLETE,
            CommandCode::CLEAR_ERROR,
            CommandCode::SNAPSHOT,
            CommandCode::MOUNT_SNAPSHOT,
        ] {
            assert!(ends_the_work(code, &busy), "{code}");
        }
    }

    #[test]
    fn unsupported_commands_end_nothing_but_transfers_do() {
        let unknown = MediaError::not_supported("this");
        for code in [CommandCode::LOAD, CommandCode::SNAPSHOT, CommandCode::REWIND, CommandCode::new(77)] {
            assert!(!ends_the_work(code, &unknown), "{code}");
        }
        for code in [CommandCode::READ, CommandCode::WRITE, CommandCode::FLUSH, CommandCode::COMPLETE] {
            assert!(ends_the_work(code, &unknown), "{code}");
        }
    }

    #[test]
    fn the_first_failure_counts_and_limits_the_wait() {
        let mut work = Work::default();
        assert_eq!((work.refusal(), work.time_out()), (None, INFINITE));
        let begun = Instant::now();
        work.fail(MediaError::new(CompletionCode::DISK_FULL, "the disk is full"), Some(CommandCode::WRITE));
        work.fail(broken("what followed from it"), None);
        assert_eq!(work.refusal(), Some(Completion::failed(CompletionCode::DISK_FULL)));
        let left = work.time_out();
        assert!(left <= FAILURE_GRACE && left >= FAILURE_GRACE.saturating_sub(begun.elapsed()), "{left:?}");

        let mut work = Work::default();
        if let Some(since) = Instant::now().checked_sub(FAILURE_GRACE) {
            work.fail_at(broken("long ago"), None, since);
            assert_eq!(work.time_out(), Duration::ZERO);
        }
    }
}
