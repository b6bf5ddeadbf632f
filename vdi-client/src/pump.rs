//! The loop of a backup agent: get a command, carry it out on a media, complete it, until the server closes the device.

use core::time::Duration;
use std::time::Instant;

use vdi_proto::command::CommandCode;

use crate::INFINITE;
use crate::command::{Command, Completion};
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::media::{Media, MediaError};

/// How long the server has to end a device after its media failed, before the set is aborted.
const FAILURE_GRACE: Duration = Duration::from_secs(10);

/// What a device's work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Commands completed.
    pub commands: u64,
    /// Bytes written to the media.
    pub bytes_written: u64,
    /// Bytes read from the media.
    pub bytes_read: u64,
}

/// Serves a device until the server closes it, carrying its commands out on `media`.
///
/// When this returns `Ok`, the media has been closed: what it promises for a finished backup holds. A failure of the media
/// is reported to the server with its completion code, so that the statement's message says what happened; the server then
/// ends the work, and this returns the failure. A server that does not end it is answered by aborting the set.
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
    let mut report = Report::default();
    let mut failure = media.begin(&device.config()).err().map(|error| (error, Instant::now()));
    loop {
        let patience = match &failure {
            None => INFINITE,
            Some((_, since)) => FAILURE_GRACE.saturating_sub(since.elapsed()),
        };
        let command = match device.get_command(patience) {
            Ok(command) => command,
            Err(end) => return ended(device, media, report, failure.map(|(error, _)| error), end),
        };
        let code = command.code();
        let outcome = match &failure {
            // Once it has failed, nothing that the media says counts.
            Some((error, _)) => refuse(command, error),
            None => carry_out(command, media, &mut report)?,
        };
        match outcome {
            Some(error) if failure.is_none() => failure = Some((error, Instant::now())),
            _ => report.commands += u64::from(code != CommandCode::CLEAR_ERROR),
        }
    }
}

/// GetCommand gave no more command.
fn ended(
    device: &ClientVirtualDevice,
    media: &mut dyn Media,
    report: Report,
    failure: Option<MediaError>,
    end: Error,
) -> Result<Report, Error> {
    match failure {
        Some(error) => {
            device.abandon();
            Err(media_failed(device, error))
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

/// Carries a command out and completes it; the media's failure, if it failed. Commands that the media does not support are
/// no failure of the media: the server decides what that means.
fn carry_out(mut command: Command, media: &mut dyn Media, report: &mut Report) -> Result<Option<MediaError>, Error> {
    let position = command.position();
    let result = match command.code() {
        CommandCode::WRITE => media.write(position, command.data()).map(|()| {
            let bytes = command.data().len();
            report.bytes_written += bytes as u64;
            Completion::transferred(bytes)
        }),
        CommandCode::READ => media.read(position, command.data_mut()).map(|bytes| {
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
            let transfer = command.code().is_transfer();
            let supported = error.code != vdi_proto::completion::CompletionCode::NOT_SUPPORTED || transfer;
            let bytes = if transfer { error.bytes as usize } else { 0 };
            command.complete(Completion::failed_after(error.code, bytes))?;
            Ok(supported.then_some(error))
        }
    }
}
