//! The loop of a backup agent: get a command, carry it out on a media, complete it, until the server closes the device.

use core::time::Duration;
use std::time::Instant;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;

use crate::INFINITE;
use crate::command::{Command, Completion};
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::media::{Media, MediaError};
use crate::trace;

/// How long the server has to end a device after its media failed, before the set is aborted.
const FAILURE_GRACE: Duration = Duration::from_secs(10);

/// What a device's work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Commands completed.
    pub commands: u64,
    /// Bytes written to the media, those of Writes that met a condition or a recoverable error included.
    pub bytes_written: u64,
    /// Bytes read from the media, counted in the same way.
    pub bytes_read: u64,
}

/// Serves a device until the server closes it, carrying its commands out on `media`.
///
/// When this returns `Ok`, the media has been closed: what it promises for a finished backup holds. A failure of the media
/// is reported to the server with its completion code, so that the statement's message says what happened; the server then
/// ends the work, and this returns the failure. A server that does not end it is answered by aborting the set.
///
/// Conditions of the medium and recoverable errors ([`MediaError::is_final`]) are no failure: the command is completed with
/// the code and the bytes, and the work goes on with the server's ClearError, which goes to [`Media::clear_error`]. No final
/// failure is ever followed by success: even ClearError is refused from then on.
///
/// ```no_run
/// # use vdi_client::{ClientVirtualDevice, Error, media::FileMedia, pump};
/// # fn serve(mut device: ClientVirtualDevice) -> Result<(), Box<dyn std::error::Error>> {
/// let report = pump(&mut device, &mut FileMedia::create("nightly.bak")?)?;
/// println!("{} bytes are durable", report.bytes_written);
/// # Ok(()) }
/// ```
///
/// # Errors
/// VD_E_ABORT when the set was aborted before; VD_E_UNEXPECTED with the [`MediaError`] as its source when the media failed;
/// other errors of GetCommand and CompleteCommand.
pub fn pump(device: &mut ClientVirtualDevice, media: &mut dyn Media) -> Result<Report, Error> {
    let (set, name) = (device.set_name().to_owned(), device.name().to_owned());
    trace::pumping(&set, &name, || serve(device, media))
}

/// What ended the work.
struct Failure {
    error: MediaError,
    /// Of this command, if it was one.
    command: Option<CommandCode>,
    since: Instant,
}

impl Failure {
    fn new(error: MediaError, command: Option<CommandCode>) -> Failure {
        Failure { error, command, since: Instant::now() }
    }
}

fn serve(device: &mut ClientVirtualDevice, media: &mut dyn Media) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut failure = media.begin(&device.config()).err().map(|error| Failure::new(error, None));
    loop {
        let patience = match &failure {
            None => INFINITE,
            Some(failure) => FAILURE_GRACE.saturating_sub(failure.since.elapsed()),
        };
        let command = match device.get_command(patience) {
            Ok(command) => command,
            Err(end) => return ended(device, media, report, failure, end),
        };
        let code = command.code();
        let outcome = match &failure {
            // Once it has failed, nothing that the media says counts.
            Some(failure) => refuse(command, &failure.error),
            None => carry_out(command, media, &mut report)?,
        };
        match outcome {
            Some(error) if failure.is_none() => failure = Some(Failure::new(error, Some(code))),
            _ => report.commands += u64::from(code != CommandCode::CLEAR_ERROR),
        }
    }
}

/// GetCommand gave no more command.
fn ended(
    device: &ClientVirtualDevice,
    media: &mut dyn Media,
    report: Report,
    failure: Option<Failure>,
    end: Error,
) -> Result<Report, Error> {
    match failure {
        Some(Failure { error, command, .. }) => {
            device.abandon();
            let error = media_failed(device, error);
            Err(command.into_iter().fold(error, Error::of_command))
        }
        None if end.is_close() => match media.close() {
            Ok(()) => Ok(report),
            Err(error) => Err(media_failed(device, error)),
        },
        None => Err(end),
    }
}

fn media_failed(device: &ClientVirtualDevice, error: MediaError) -> Error {
    device.error(ErrorKind::System, "pump", error.to_string()).because(error)
}

/// Completes a command with the code of an earlier failure.
fn refuse(command: Command, error: &MediaError) -> Option<MediaError> {
    // After the failure nothing depends on this answer but the server's message.
    let _ = command.complete(Completion::failed(error.code));
    None
}

/// Carries a command out and completes it; the media's failure, if it failed.
fn carry_out(mut command: Command, media: &mut dyn Media, report: &mut Report) -> Result<Option<MediaError>, Error> {
    let code = command.code();
    let position = command.position();
    let result = match code {
        CommandCode::WRITE => media.write(position, command.data()).map(|()| {
            let bytes = command.data().len();
            report.bytes_written += bytes as u64;
            Completion::transferred(bytes)
        }),
        CommandCode::READ => read(media, position, command.data_mut()).map(|bytes| {
            report.bytes_read += bytes as u64;
            Completion::transferred(bytes)
        }),
        CommandCode::FLUSH => media.flush().map(|()| Completion::done()),
        CommandCode::COMPLETE => media.complete().map(|()| Completion::done()),
        CommandCode::CLEAR_ERROR => media.clear_error().map(|()| Completion::done()),
        code => media.other(code, command.size(), position).map(|position| {
            let returns_position = code.rules().is_some_and(|rules| rules.returns_position);
            if returns_position { Completion::at(position) } else { Completion::done() }
        }),
    };
    match result {
        Ok(completion) => {
            command.complete(completion)?;
            Ok(None)
        }
        Err(error) => {
            let (error, bytes) = sensible(error, if code.is_transfer() { command.data().len() } else { 0 });
            let ends = ends_the_work(code, &error);
            match code {
                CommandCode::WRITE if !ends => report.bytes_written += bytes as u64,
                CommandCode::READ if !ends => report.bytes_read += bytes as u64,
                _ => {}
            }
            command.complete(Completion::failed_after(error.code, bytes))?;
            Ok(ends.then_some(error))
        }
    }
}

/// [`Media::read`]; one that tells of more bytes than there is room for is wrong about all of them.
pub(crate) fn read(media: &mut dyn Media, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
    let bytes = media.read(position, buffer)?;
    if bytes <= buffer.len() {
        return Ok(bytes);
    }
    let what = format!("the media claims to have read {bytes} bytes into a buffer of {}", buffer.len());
    Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("correct the program's implementation of Media"))
}

/// A media's error and its bytes as they may be told to the server, of a command of `size` bytes. The code of success is none of
/// a failure, and an error that counts more bytes than the command has is not one to go on after.
pub(crate) fn sensible(mut error: MediaError, size: usize) -> (MediaError, usize) {
    let bytes = error.bytes as usize;
    if error.code.is_success() {
        error.code = CompletionCode::IO_DEVICE;
        error = error.into_final();
    }
    if size > 0 && bytes > size {
        error = error.into_final();
    }
    (error, bytes.min(size))
}

/// Whether nothing that the media says counts after this error of a command.
pub(crate) fn ends_the_work(code: CommandCode, error: &MediaError) -> bool {
    match code {
        CommandCode::READ | CommandCode::WRITE => error.is_final(),
        // What these promise holds or does not, whatever the media thinks of its state.
        CommandCode::FLUSH | CommandCode::COMPLETE | CommandCode::CLEAR_ERROR => true,
        // The media did nothing at all: the server decides what that means.
        _ if error.code == CompletionCode::NOT_SUPPORTED => false,
        CommandCode::SNAPSHOT | CommandCode::MOUNT_SNAPSHOT => true,
        _ => error.is_final(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_recoverable_errors_end_nothing() {
        let mark = MediaError::condition(CompletionCode::FILEMARK_DETECTED, "a mark");
        let busy = MediaError::new(CompletionCode::IO_DEVICE, "busy").recoverable();
        for code in [CommandCode::READ, CommandCode::WRITE, CommandCode::SKIP_MARKS, CommandCode::SET_POSITION] {
            assert!(!ends_the_work(code, &mark) && !ends_the_work(code, &busy), "{code}");
            assert!(ends_the_work(code, &MediaError::new(CompletionCode::IO_DEVICE, "broken")), "{code}");
        }
    }

    #[test]
    fn errors_that_contradict_themselves_are_final() {
        let mark = || MediaError::condition(CompletionCode::FILEMARK_DETECTED, "a mark");
        let told = |error: MediaError, size| {
            let (error, bytes) = sensible(error, size);
            (error.code, bytes, error.is_final())
        };
        assert_eq!(told(mark().with_bytes(512), 512), (CompletionCode::FILEMARK_DETECTED, 512, false));
        assert_eq!(told(mark().with_bytes(513), 512), (CompletionCode::FILEMARK_DETECTED, 512, true));
        assert_eq!(told(mark().with_bytes(513), 0), (CompletionCode::FILEMARK_DETECTED, 0, false));
        let mut success = mark();
        success.code = CompletionCode::SUCCESS;
        assert_eq!(told(success, 512), (CompletionCode::IO_DEVICE, 0, true));
    }

    #[test]
    fn promises_are_not_kept_halfway() {
        let busy = MediaError::new(CompletionCode::IO_DEVICE, "busy").recoverable();
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
}
