//! The loop of a backup agent: get a command, carry it out on a medium, complete it, until the server closes the device.

use std::sync::Arc;

use vdi_proto::completion::CompletionCode;

use crate::device::ClientVirtualDevice;
use crate::error::Error;
use crate::media::Media;
#[cfg(doc)]
use crate::media::MediaError;
use crate::progress::Counters;
use crate::trace;
pub use crate::work::Report;
use crate::work::{self, Work};

/// Serves a device until the server closes it, carrying its commands out on `media`.
///
/// **A set of several devices needs a thread a device.** A server sends to all devices at once and closes none before all
/// have answered. A loop that pumps one device after another waits for ever in the first.
/// [`ClientVirtualDeviceSet::serve`](crate::ClientVirtualDeviceSet::serve) opens all devices and has a thread pump each.
///
/// When this returns `Ok`, the medium has been closed: what it promises for a finished backup holds. A final failure of the
/// medium is reported to the server with its completion code, so that the statement's message says what happened. The server
/// then ends the work, and this returns the failure, also where the set was aborted meanwhile. A server that does not end the
/// work within 10 seconds finds the set aborted.
///
/// Conditions of the medium and recoverable errors ([`MediaError::is_final`]) are no failure: the command is completed with
/// the code and the bytes, and the work goes on with the server's ClearError, which goes to [`Media::clear_error`]. After a
/// final failure every command is refused, ClearError included.
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
/// VD_E_UNEXPECTED with the [`MediaError`] as its source when the medium failed; else VD_E_ABORT when the set was aborted, and
/// other errors of GetCommand and CompleteCommand.
pub fn pump(device: &mut ClientVirtualDevice, media: &mut dyn Media) -> Result<Report, Error> {
    pump_counted(device, media, None)
}

/// As [`pump`](fn@pump), with counters that other threads read meanwhile.
pub(crate) fn pump_counted(
    device: &mut ClientVirtualDevice,
    media: &mut dyn Media,
    counters: Option<Arc<Counters>>,
) -> Result<Report, Error> {
    trace::pump_span(device.set_name(), device.name()).within(|| {
        let mut work = Work::counted(counters);
        let end = serve(device, media, &mut work);
        work.end("pump", device, end)
    })
}

/// `Ok` when the server closed the device.
fn serve(device: &mut ClientVirtualDevice, media: &mut dyn Media, work: &mut Work) -> Result<(), Error> {
    if let Err(error) = media.begin(&device.config()) {
        work.fail(error, None);
    }
    loop {
        let mut command = match device.get_command(work.time_out()) {
            Ok(command) => command,
            Err(end) if !end.is_close() => return Err(end),
            Err(_) if work.refusal().is_some() => return Ok(()),
            Err(_) => {
                let (_, failure) = work::close(media);
                failure.into_iter().for_each(|error| work.fail(error, None));
                return Ok(());
            }
        };
        let code = command.code();
        if let Some(refusal) = work.refusal() {
            // Nothing depends on this answer but the server's message.
            let _ = command.complete(refusal);
            continue;
        }
        let (size, position) = (command.size(), command.position());
        let (outcome, failure) = work::perform(media, code, size, position, command.data_mut());
        match failure {
            None => work.count(code, outcome),
            Some(error) => work.fail(error, Some(code)),
        }
        if let Err(refused) = command.complete(work::completion(code, outcome))
            && work.refusal().is_none()
        {
            // Before the command is dropped: the server gets a reason, and not a command that failed without one.
            if let Some(command) = &refused.command {
                command.held().give_up(CompletionCode::IO_DEVICE, &refused.error.to_string());
            }
            return Err(refused.into());
        }
    }
}
