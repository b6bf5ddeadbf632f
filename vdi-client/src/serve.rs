//! All devices of a set at once, with a thread a device.
//!
//! | stage | what happens | an error |
//! |---|---|---|
//! | configuring | GetConfiguration | is returned; the set is as it was, and may be served again |
//! | preparing | the media are made, one after another, in the calling thread; no device is open | aborts the set, with code and text of the failure |
//! | opening | OpenDevice for each name, in the calling thread | aborts the set |
//! | serving | [`pump`](fn@crate::pump), or other work, in a thread a device; the calling thread reports progress | aborts the set; all threads end |
//! | served | every thread has ended | |
//!
//! # Invariants
//!
//! 1. No thread of [`ClientVirtualDeviceSet::serve`] lives when it returns, however it ends.
//! 2. `Ok` means that the server closed every device and every medium has been closed.
//! 3. From the configuration on, every error and every panic aborts the set before anything else is undone. So the server and
//!    the other devices hear of it at once, and no device waits for one that has failed.
//! 4. The root cause is returned: of all errors the one with the highest rank ([`Rank`]), of these the one that came first.
//!    An abort that followed from another device's failure never hides that failure.
//! 5. A panic, in a medium's code or in the callback, is resumed in the calling thread once all threads have ended.
//!
//! A cancel ends the waits of the set's calls, in every stage, and a medium's wait for the other end of a named pipe while the media
//! are made; so does the end of the set. Code of the program is not interrupted: a medium that blocks keeps its thread, and so
//! `serve`, until it returns.

use core::any::Any;
use core::time::Duration;
use std::collections::HashSet;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Instant;

use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::status::VdError;

use crate::INFINITE;
use crate::back_end::Session;
#[cfg(doc)]
use crate::canceller::Canceller;
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::media::{Media, MediaError, waiting};
use crate::progress::{Progress, Watch};
use crate::pump::pump_counted;
use crate::set::ClientVirtualDeviceSet;
use crate::trace::trace_refused;
use crate::work::Report;

const CALL: &str = "serve";

/// How often the callback for the progress is called.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Which error of several is the root cause: the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A medium of this process failed.
    Medium,
    /// A process of the set broke the protocol.
    Violation,
    /// The system refused something, or the program used the set wrongly.
    Other,
    /// This process cancelled its waits.
    Cancelled,
    /// The set was aborted. The reason may be an error of a smaller rank.
    Followed,
}

fn rank(error: &Error) -> Rank {
    match error.kind() {
        _ if error.media_error().is_some() => Rank::Medium,
        ErrorKind::Violation => Rank::Violation,
        ErrorKind::System | ErrorKind::Misuse | ErrorKind::NotYet => Rank::Other,
        ErrorKind::Cancelled => Rank::Cancelled,
        ErrorKind::Ended => Rank::Followed,
    }
}

impl ClientVirtualDeviceSet {
    /// Serves devices of the set until the server closes them, with a thread a device.
    ///
    /// Waits for the configuration, has `media` make the medium of each name, opens the devices, and carries their commands out
    /// as [`pump`](fn@crate::pump) does. `media` is called with the index of the name and with what was negotiated: whether
    /// this is a backup ([`Features::WRITE_MEDIA`](crate::Features::WRITE_MEDIA)) or a restore, and the sizes. It is called for
    /// all names before any device is open, so a target that cannot be opened fails the statement with that reason, before
    /// anything is written. Returns the report of each device, in the order of `names`.
    ///
    /// `names` are devices of the set, each once: all of them, or fewer where other processes serve the rest. The first is
    /// usually the set's own name.
    ///
    /// Each medium is committed on its own. A statement that fails between two commits leaves one target new and the other old, so
    /// a backup to several devices gets names of its own, and never those of a backup that is still needed.
    ///
    /// - **Time-out**: none. To limit the wait for the statement call [`ClientVirtualDeviceSet::get_configuration`] with a time-out
    ///   before; it may be repeated.
    /// - **Cancel**: [`ClientVirtualDeviceSet::canceller`], from any thread. The set is aborted if it was configured, and
    ///   the error's kind is [`ErrorKind::Cancelled`]. A device that had been closed by then stays finished. A medium that
    ///   blocks is not interrupted, nor is OpenDevice on [`BackEnd::SqlServer`](crate::BackEnd::SqlServer).
    /// - **Progress**: [`ClientVirtualDeviceSet::serve_with_progress`].
    ///
    /// Close the set afterwards.
    ///
    /// ```no_run
    /// use vdi_client::media::FileMedia;
    /// use vdi_client::{ClientVirtualDeviceSet, Error, Features, VdConfig};
    ///
    /// fn main() -> Result<(), Error> {
    ///     let set = ClientVirtualDeviceSet::new();
    ///     let features = Features::REQUEST_COMPLETE;
    ///     set.create("nightly", &VdConfig { device_count: 2, features, ..VdConfig::default() })?;
    ///     // BACKUP DATABASE ... TO VIRTUAL_DEVICE='nightly', VIRTUAL_DEVICE='nightly-1'
    ///     let reports = set.serve(&["nightly", "nightly-1"], |index, agreed| {
    ///         let path = format!("/backup/2031-01-31/stripe-{index}");
    ///         match agreed.features.contains(Features::WRITE_MEDIA) {
    ///             true => FileMedia::create(path),
    ///             false => FileMedia::open(path),
    ///         }
    ///     })?;
    ///     println!("{reports:?}");
    ///     set.close()
    /// }
    /// ```
    ///
    /// # Errors
    /// The root cause, and not the VD_E_ABORT that follows from it in the other threads. VD_E_UNEXPECTED with the [`MediaError`]
    /// as its source when a medium failed or could not be made; VD_E_INVALID for a name that is given twice or is no device of
    /// the set, for no name, and for more names than the set has devices; VD_E_TIMEOUT when the waits are cancelled
    /// ([`Canceller`]); VD_E_UNEXPECTED when the system has no more threads; else as GetConfiguration, OpenDevice, GetCommand
    /// and CompleteCommand. From the configuration on every error aborts the set.
    ///
    /// # Panics
    /// When a medium's code or `media` panics: the set is aborted, all threads end, and the panic goes on here.
    pub fn serve<M: Media>(
        &self,
        names: &[impl AsRef<str>],
        media: impl FnMut(usize, &VdConfig) -> Result<M, MediaError>,
    ) -> Result<Vec<Report>, Error> {
        self.serve_with_progress(names, media, |_| ())
    }

    /// As [`ClientVirtualDeviceSet::serve`]; calls `progress` once a second while the devices are served, in the calling thread, and
    /// once more when all are done.
    ///
    /// ```no_run
    /// # use vdi_client::{ClientVirtualDeviceSet, Error, media::FileMedia};
    /// # fn f(set: &ClientVirtualDeviceSet) -> Result<(), Error> {
    /// let media = |index, _: &_| FileMedia::create(format!("/backup/2031-01-31/stripe-{index}"));
    /// set.serve_with_progress(&["nightly", "nightly-1"], media, |progress| eprintln!("{progress}"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::serve`].
    ///
    /// # Panics
    /// As [`ClientVirtualDeviceSet::serve`], and when `progress` panics.
    pub fn serve_with_progress<M: Media>(
        &self,
        names: &[impl AsRef<str>],
        mut media: impl FnMut(usize, &VdConfig) -> Result<M, MediaError>,
        mut progress: impl FnMut(&Progress),
    ) -> Result<Vec<Report>, Error> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let mut watch = Watch::new(names.len());
        let counters = watch.counters();
        let prepare = |session: &Session, agreed: &VdConfig| {
            let works = names.iter().zip(counters).enumerate().map(|(index, (name, counters))| {
                let made = waiting::make_for(session, CALL, || media(index, agreed))?;
                let mut media = made.map_err(|failure| not_made(session, name, failure))?;
                Ok(move |device: &mut ClientVirtualDevice| pump_counted(device, &mut media, Some(counters)))
            });
            works.collect()
        };
        self.serve_all(&names, prepare, |begun, now| progress(&watch.progress(begun, now)))
    }

    /// As [`ClientVirtualDeviceSet::serve`], with other work than [`pump`](fn@crate::pump): `work` is called with the index of the
    /// name and with the device, in the device's thread. It returns when the server has closed the device, or with the error that
    /// ended the work.
    ///
    /// ```no_run
    /// # use vdi_client::{ClientVirtualDeviceSet, Error, workers::WorkerPool};
    /// # fn f(set: &ClientVirtualDeviceSet, pool: &WorkerPool) -> Result<(), Error> {
    /// // Worker processes get the buffers by their handles.
    /// set.serve_by(&["nightly", "nightly-1"], |index, device| pool.drive(device, index as u32, |_| ()))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientVirtualDeviceSet::serve`], and the errors of `work`; VD_E_PROTOCOL when `work` returns `Ok` before GetCommand has
    /// returned VD_E_CLOSE.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn serve_by(
        &self,
        names: &[impl AsRef<str>],
        work: impl Fn(usize, &mut ClientVirtualDevice) -> Result<Report, Error> + Sync,
    ) -> Result<Vec<Report>, Error> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let (work, devices) = (&work, names.len());
        let prepare = |_: &Session, _: &VdConfig| {
            Ok((0..devices).map(|index| move |device: &mut ClientVirtualDevice| work(index, device)).collect())
        };
        self.serve_all(&names, prepare, |_, _| ())
    }

    /// All stages. `prepare` makes the work of each device; `tick` gets the beginning of the work and the time, now and then.
    fn serve_all<W: DeviceWork>(
        &self,
        names: &[&str],
        prepare: impl FnOnce(&Session, &VdConfig) -> Result<Vec<W>, Error>,
        tick: impl FnMut(Instant, Instant),
    ) -> Result<Vec<Report>, Error> {
        let session = self.session(CALL)?;
        check_names(&session, names).inspect_err(trace_refused)?;
        let agreed = Self::configuration_of(&session, INFINITE)?;
        aborting_on_panic(&session, || {
            let works = check_count(&session, names, &agreed).and_then(|()| prepare(&session, &agreed));
            let works = works.inspect_err(|error| {
                abort_for(&session, error);
                trace_refused(error);
            })?;
            // The abort comes before the devices that are open are dropped.
            let open = |name| self.device_of(&session, name).inspect_err(|error| abort_for(&session, error));
            let devices = names.iter().map(|name| open(name)).collect::<Result<Vec<_>, _>>()?;
            run_all(&session, devices, works, tick)
        })
    }
}

/// What is done with a device, in its thread.
trait DeviceWork: FnOnce(&mut ClientVirtualDevice) -> Result<Report, Error> + Send {}

impl<F: FnOnce(&mut ClientVirtualDevice) -> Result<Report, Error> + Send> DeviceWork for F {}

/// What can be said of the names before the configuration.
fn check_names(session: &Session, names: &[&str]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(**name)) {
        let what = "the device is named twice: give each device of the set one name";
        return Err(invalid(session, what.to_owned()).of_device(twice));
    }
    if names.is_empty() {
        return Err(invalid(session, "no device is named: name at least one".to_owned()));
    }
    Ok(())
}

fn invalid(session: &Session, what: String) -> Error {
    Error::new(ErrorKind::Misuse, VdError::Invalid, CALL, session.set_name(), what)
}

/// What can be said of them then.
fn check_count(session: &Session, names: &[&str], agreed: &VdConfig) -> Result<(), Error> {
    // A library that leaves the field out has one device.
    let (devices, named) = (agreed.device_count.max(1), names.len());
    if named <= devices as usize {
        return Ok(());
    }
    let what = format!("{named} devices are named, and the set has {devices}: create it with as many as are served");
    Err(invalid(session, what))
}

/// The medium of a device could not be made.
fn not_made(session: &Session, device: &str, failure: MediaError) -> Error {
    let error = Error::new(ErrorKind::System, VdError::Unexpected, CALL, session.set_name(), failure.to_string());
    error.of_device(device).because(failure)
}

/// The work of a device says that it is done, and the server has not closed the device.
fn ended_early(device: &ClientVirtualDevice) -> Error {
    let what = "the work returned before the server had closed the device: get commands until VD_E_CLOSE";
    let error = Error::new(ErrorKind::Misuse, VdError::Protocol, CALL, device.set_name(), what);
    error.of_device(device.name())
}

/// How a device's work ended, with the device's index.
type End = (usize, Result<Report, Error>);

/// A thread a device, until all have ended.
fn run_all<W: DeviceWork>(
    session: &Session,
    devices: Vec<ClientVirtualDevice>,
    works: Vec<W>,
    mut tick: impl FnMut(Instant, Instant),
) -> Result<Vec<Report>, Error> {
    let mut reports = vec![Report::default(); devices.len()];
    // In the order in which they came.
    let mut errors = Vec::new();
    let begun = Instant::now();
    thread::scope(|scope| {
        let (tell, ends) = channel();
        let threads = start(scope, session, devices.into_iter().zip(works), tell);
        // After a panic of the callback the scope waits for the threads.
        aborting_on_panic(session, || {
            let mut next = begun + PROGRESS_INTERVAL;
            loop {
                match ends.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok((index, Ok(report))) => reports[index] = report,
                    Ok((_, Err(error))) => errors.push(error),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        let now = Instant::now();
                        next = now.max(next + PROGRESS_INTERVAL);
                        tick(begun, now);
                    }
                }
            }
        });
        // All are joined before a panic goes on. The scope itself would replace it by one of its own.
        let panics: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().err()).collect();
        if let Some(panic) = panics.into_iter().next() {
            resume_unwind(panic);
        }
    });
    tick(begun, Instant::now());
    match errors.into_iter().min_by_key(rank) {
        Some(root) => Err(root),
        None => Ok(reports),
    }
}

/// Starts the threads. Each tells how it ended, unless it panics.
fn start<'scope, W: DeviceWork + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    session: &'scope Session,
    devices: impl Iterator<Item = (ClientVirtualDevice, W)>,
    tell: Sender<End>,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    let mut threads = Vec::new();
    for (index, (mut device, work)) in devices.enumerate() {
        let told = tell.clone();
        let thread = thread::Builder::new().name(format!("vdi-device-{index}"));
        let spawned = thread.spawn_scoped(scope, move || {
            let end = aborting_on_panic(session, || work(&mut device));
            let end = end.and_then(|report| if device.is_closed() { Ok(report) } else { Err(ended_early(&device)) });
            // Before the device is dropped, which aborts without a text.
            let end = end.inspect_err(|error| abort_for(session, error));
            // Fails only after a panic of the callback, which drops the receiver.
            let _ = told.send((index, end));
        });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(refused) => {
                let what = format!("the system has no thread for device number {}: {refused}", index + 1);
                let error = Error::new(ErrorKind::System, VdError::Unexpected, CALL, session.set_name(), what);
                let error = error.because(refused);
                abort_for(session, &error);
                trace_refused(&error);
                let _ = tell.send((index, Err(error)));
                // The devices without a thread are dropped.
                break;
            }
        }
    }
    threads
}

/// Runs code of the program. A panic aborts the set, and goes on.
fn aborting_on_panic<T>(session: &Session, work: impl FnOnce() -> T) -> T {
    // Unwind safety: nothing that `work` uses is used after a panic, but the set, whose calls leave it whole.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        abort(session, CompletionCode::OPERATION_ABORTED, &format!("the client panicked: {}", message(&*panic)));
        resume_unwind(panic)
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Aborts the set because of an error of this process: the server gets code and text. The abort of another process stays the
/// reason.
fn abort_for(session: &Session, error: &Error) {
    match (error.media_error(), error.device()) {
        (Some(failure), Some(device)) => abort(session, failure.code, &format!("device {device:?}: {failure}")),
        _ if error.kind() == ErrorKind::Ended => {}
        _ if error.kind() == ErrorKind::Cancelled => {
            abort(session, CompletionCode::OPERATION_ABORTED, "its program cancelled the work");
        }
        _ => abort(session, CompletionCode::OPERATION_ABORTED, &error.to_string()),
    }
}

/// Aborts the set. Without effect on a set that was aborted before.
fn abort(session: &Session, code: CompletionCode, reason: &str) {
    // An error here means that the set is closed already.
    let _ = session.signal_abort_because(code, reason);
}

impl Error {
    /// The failure of a medium that this error is about.
    fn media_error(&self) -> Option<&MediaError> {
        self.source()?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, VdError::Unexpected, CALL, "nightly", "on purpose")
    }

    #[test]
    fn a_mediums_failure_goes_before_a_violation_before_what_follows() {
        let failed = error(ErrorKind::System).because(MediaError::not_supported("this"));
        let ranks = [
            rank(&failed),
            rank(&error(ErrorKind::Violation)),
            rank(&error(ErrorKind::System)),
            rank(&error(ErrorKind::Cancelled)),
            rank(&error(ErrorKind::Ended)),
        ];
        assert!(ranks.is_sorted() && ranks[0] == Rank::Medium && ranks[4] == Rank::Followed, "{ranks:?}");
        assert_eq!(rank(&error(ErrorKind::System)), rank(&error(ErrorKind::Misuse)));
    }

    #[test]
    fn the_message_of_a_panic_is_found() {
        assert_eq!(message(&"text"), "text");
        assert_eq!(message(&String::from("string")), "string");
        assert_eq!(message(&7), "without a message");
    }
}
