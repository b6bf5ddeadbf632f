//! `ClientVirtualDeviceSet::serve`: several devices, a thread each, against the engine and against a server that a test leads.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, device_name, execute, stripe};
use common::processes::{RoleContext, run_role};
use common::server::Server;
use common::tasks::{Task, task};
use common::{TEST_TIMEOUT, eventually};
use vdi_client::media::{FileMedia, Media, MediaError, StreamMedia};
use vdi_client::{
    ClientVirtualDeviceSet, CommandCode, CompletionCode, Error, ErrorKind, Features, INFINITE, Progress, Report,
    VdConfig, VdError, pump,
};
use vdi_proto::set::client::State;
use vdi_server_sim::engine::{Engine, Failure, Summary};

const SET: &str = "nightly";

fn names(count: u32) -> Vec<String> {
    (0..count).map(|index| device_name(SET, index)).collect()
}

/// The engine carries a statement out, in a thread of this process.
fn statement(bench: &Bench, sql: String) -> Task<Result<Summary, Failure>> {
    let engine = Engine::new(bench.data(), bench.options()).unwrap();
    task("the server", move || execute(&engine, &sql))
}

fn backup(bench: &Bench, devices: u32) -> Task<Result<Summary, Failure>> {
    statement(bench, backup_statement("db", SET, devices, ""))
}

/// A set that the server backs up to.
fn begin(bench: &Bench, devices: u32) -> (Arc<ClientVirtualDeviceSet>, Task<Result<Summary, Failure>>) {
    bench.database("db", 5_000_000);
    (bench.create(SET, &config(devices)), backup(bench, devices))
}

fn file(bench: &Bench, index: usize, negotiated: &VdConfig) -> Result<FileMedia, MediaError> {
    let path = stripe(&bench.out(), index as u32);
    if negotiated.features.contains(Features::WRITE_MEDIA) { FileMedia::create(path) } else { FileMedia::open(path) }
}

/// A medium that does something of its own with each Write. Everything else succeeds.
struct OnWrite<F>(F);

impl<F: FnMut(&[u8]) -> Result<(), MediaError> + Send> Media for OnWrite<F> {
    fn write(&mut self, _position: u64, data: &[u8]) -> Result<(), MediaError> {
        (self.0)(data)
    }
    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        Ok(0)
    }
    fn flush(&mut self) -> Result<(), MediaError> {
        Ok(())
    }
    fn complete(&mut self) -> Result<(), MediaError> {
        Ok(())
    }
    fn close(&mut self) -> Result<(), MediaError> {
        Ok(())
    }
}

fn failure() -> MediaError {
    MediaError::new(CompletionCode::DISK_FULL, "robot arm 7 is stuck")
}

/// The failure of a medium behind an error.
#[track_caller]
fn media_error(error: &Error) -> &MediaError {
    std::error::Error::source(error).and_then(|source| source.downcast_ref()).unwrap_or_else(|| panic!("{error}"))
}

// ---- success

#[test]
fn four_stripes_are_backed_up_and_restored() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 4);
    let mut lines = Vec::new();
    let reports = set
        .serve_with_progress(
            &names(4),
            |index, negotiated| {
                assert!(negotiated.features.contains(Features::WRITE_MEDIA | Features::COMPLETE_ENABLED));
                assert_eq!(negotiated.device_count, 4);
                file(&bench, index, negotiated)
            },
            |progress: &Progress| lines.push(progress.clone()),
        )
        .unwrap();
    server.result().unwrap();
    set.close().unwrap();
    assert_eq!(reports.len(), 4);
    assert!(reports.iter().all(|report| report.commands > 0 && report.bytes_read == 0), "{reports:?}");
    for (index, report) in reports.iter().enumerate() {
        let length = std::fs::metadata(stripe(&bench.out(), index as u32)).unwrap().len();
        assert_eq!(report.bytes_written, length, "stripe {index}");
    }
    let last = lines.last().unwrap();
    assert_eq!(last.devices, reports);
    assert!(last.total().bytes_written >= 5_000_000 && last.to_string().starts_with("4 devices: "), "{last}");

    let set = bench.create(SET, &config(4));
    let server = statement(&bench, copy_statement("db", "copy", SET, 4, ""));
    let restored = set.serve(&names(4), |index, negotiated| file(&bench, index, negotiated)).unwrap();
    server.result().unwrap();
    set.close().unwrap();
    let read: u64 = restored.iter().map(|report| report.bytes_read).sum();
    assert_eq!(read, last.total().bytes_written);
    bench.assert_identical("db", "copy");
}

/// Media may borrow: serve returns only when no thread is left.
#[test]
fn media_may_borrow() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 2);
    let bytes = AtomicU64::new(0);
    let count = |data: &[u8]| {
        bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    };
    let reports = set.serve(&names(2), |_, _| Ok(OnWrite(count))).unwrap();
    server.result().unwrap();
    set.close().unwrap();
    assert_eq!(reports.iter().map(|report| report.bytes_written).sum::<u64>(), bytes.into_inner());
}

#[test]
fn a_server_that_ends_the_work_at_once_is_success() {
    let bench = Bench::new();
    let set = bench.create(SET, &config(3));
    let serving = task("serve", move || {
        let end = set.serve(&names(3), |_, _| Ok(StreamMedia::source(std::io::empty())));
        set.close().unwrap();
        end
    });
    let server = Server::open(&bench, SET, 3);
    server.devices.iter().for_each(|device| device.close_device().unwrap());
    assert_eq!(serving.result().unwrap(), [Report::default(); 3]);
}

/// Two processes share the devices of a set.
#[test]
fn fewer_names_than_devices_leave_the_rest_to_other_processes() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 3);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let other = ClientVirtualDeviceSet::with_options(bench.options());
    other.open_in_secondary(SET).unwrap();
    let secondary = task("the secondary", move || {
        let end = other.serve(&names(3)[1..], |_, _| Ok(StreamMedia::sink(std::io::sink())));
        other.close().unwrap();
        end
    });
    set.serve(&names(1), |_, _| Ok(StreamMedia::sink(std::io::sink()))).unwrap();
    assert_eq!(secondary.result().unwrap().len(), 2);
    server.result().unwrap();
    set.close().unwrap();
}

// ---- failures

#[test]
fn the_medium_that_failed_is_the_root_cause() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 4);
    let error = set
        .serve(&names(4), |index, negotiated| {
            let mut file = file(&bench, index, negotiated)?;
            let mut writes = 0;
            Ok(OnWrite(move |data: &[u8]| {
                writes += 1;
                if index == 2 && writes == 2 { Err(failure()) } else { file.write(0, data) }
            }))
        })
        .unwrap_err();
    assert_eq!((error.code(), error.device()), (VdError::Unexpected, Some("nightly/2")), "{error}");
    assert_eq!(error.command(), Some(CommandCode::WRITE), "{error}");
    assert_eq!(media_error(&error).what, failure().what);
    let failure = server.result().unwrap_err();
    assert!(matches!(failure, Failure::Device { code: CompletionCode::DISK_FULL, .. }), "{failure}");
    assert!(set.close().is_ok());
    bench.assert_output(&[]);
}

/// The media are made before any device is open, and the first that cannot be made ends the statement.
#[test]
fn a_target_that_cannot_be_opened_fails_before_any_device_is_taken() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 4);
    let mut asked = Vec::new();
    let error = set
        .serve(&names(4), |index, negotiated| {
            assert_eq!(set.state(), State::Initializing, "no device is open");
            asked.push(index);
            if index == 3 { Err(failure()) } else { file(&bench, index, negotiated) }
        })
        .unwrap_err();
    assert_eq!(asked, [0, 1, 2, 3]);
    assert_eq!((error.code(), error.device()), (VdError::Unexpected, Some("nightly/3")), "{error}");
    assert_eq!(media_error(&error).what, failure().what);
    assert_eq!(set.state(), State::Abort);
    // The server has the code and the text.
    let told = server.result().unwrap_err();
    assert_eq!(told.status(), Some(VdError::Abort), "{told}");
    assert!(told.to_string().contains(r#"device "nightly/3": robot arm 7 is stuck [ERROR_DISK_FULL (112)]"#), "{told}");
    set.close().unwrap();
    bench.assert_output(&[]);
}

#[test]
fn the_servers_abort_is_returned_when_nothing_else_failed() {
    let bench = Bench::new();
    let set = bench.create(SET, &config(2));
    let serving = {
        let set = Arc::clone(&set);
        task("serve", move || set.serve(&names(2), |_, _| Ok(StreamMedia::sink(std::io::sink()))))
    };
    let server = Server::with_features(&bench, SET, 2, Features::WRITE_MEDIA);
    server.write(0, 7);
    assert_eq!(server.completed().0, CompletionCode::SUCCESS);
    server.set.signal_abort().unwrap();
    let error = serving.result().unwrap_err();
    assert_eq!((error.code(), error.kind()), (VdError::Abort, ErrorKind::Ended), "{error}");
    assert!(error.to_string().contains("the server called SignalAbort"), "{error}");
    set.close().unwrap();
}

/// What fails when the server has closed the device already is still the result.
#[test]
fn a_medium_that_fails_at_its_close_is_the_root_cause() {
    struct FailsAtClose;
    impl Media for FailsAtClose {
        fn write(&mut self, _position: u64, _data: &[u8]) -> Result<(), MediaError> {
            Ok(())
        }
        fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
            Ok(0)
        }
        fn flush(&mut self) -> Result<(), MediaError> {
            Ok(())
        }
        fn complete(&mut self) -> Result<(), MediaError> {
            Ok(())
        }
        fn close(&mut self) -> Result<(), MediaError> {
            Err(failure())
        }
    }
    let bench = Bench::new();
    let set = bench.create(SET, &config(2));
    let serving = {
        let set = Arc::clone(&set);
        task("serve", move || {
            set.serve(&names(2), |index, _| -> Result<Box<dyn Media>, MediaError> {
                if index == 1 { Ok(Box::new(FailsAtClose)) } else { Ok(Box::new(StreamMedia::sink(std::io::sink()))) }
            })
        })
    };
    let mut server = Server::with_features(&bench, SET, 2, Features::WRITE_MEDIA);
    // The second device alone: the first still waits for commands, and hears of the abort.
    server.devices[1].close_device().unwrap();
    let error = serving.result().unwrap_err();
    assert_eq!((error.device(), &*media_error(&error).what), (Some("nightly/1"), &*failure().what), "{error}");
    assert!(!server.agent_ended());
    set.close().unwrap();
}

#[test]
fn names_that_cannot_be_are_refused() {
    let bench = Bench::new();
    let sink = |_: usize, _: &VdConfig| Ok(StreamMedia::sink(std::io::sink()));
    let set = bench.create(SET, &config(2));
    let refused = |names: &[&str]| {
        let error = set.serve(names, sink).unwrap_err();
        assert_eq!((error.code(), error.kind(), error.call()), (VdError::Invalid, ErrorKind::Misuse, "serve"));
        error.to_string()
    };
    // What can be known before the configuration leaves the set as it is.
    assert!(refused(&[SET, "other", SET]).contains(r#"on device "nightly" of set "nightly": "#));
    assert!(refused(&[]).contains("no device is named"));
    assert_eq!(set.state(), State::Configurable);
    let server = backup_of_nothing(&bench, 2);
    let text = refused(&[SET, "other", "third"]);
    assert!(text.contains("3 devices are named, and the set has 2"), "{text}");
    assert_eq!(server.result().unwrap_err().status(), Some(VdError::Abort));
    set.close().unwrap();

    let set = bench.create(SET, &config(2));
    let server = backup_of_nothing(&bench, 2);
    let error = set.serve(&[SET, "unknown"], sink).unwrap_err();
    assert_eq!((error.code(), error.device()), (VdError::Invalid, Some("unknown")), "{error}");
    assert_eq!(server.result().unwrap_err().status(), Some(VdError::Abort));
    set.close().unwrap();

    let error = ClientVirtualDeviceSet::new().serve(&[SET], sink).unwrap_err();
    assert_eq!((error.code(), error.call()), (VdError::Protocol, "serve"));
}

/// A statement on a small database, which is made where it is not there.
fn backup_of_nothing(bench: &Bench, devices: u32) -> Task<Result<Summary, Failure>> {
    if !bench.databases().contains("db") {
        bench.database("db", 65536);
    }
    backup(bench, devices)
}

/// Work that ends before the server has closed the device is an error, also where it says that all is well.
#[test]
fn work_that_ends_early_is_an_error() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 2);
    let error = set
        .serve_by(&names(2), |index, device| match index {
            0 => Ok(Report::default()),
            _ => pump(device, &mut StreamMedia::sink(std::io::sink())),
        })
        .unwrap_err();
    assert_eq!((error.code(), error.device()), (VdError::Protocol, Some(SET)), "{error}");
    let told = server.result().unwrap_err().to_string();
    assert!(told.contains("the work returned before the server had closed the device"), "{told}");
    set.close().unwrap();
}

// ---- panics

/// The message of a panic that serve let through; the statement failed and no thread is left.
#[track_caller]
fn panicking<M: Media>(
    bench: &Bench,
    media: impl FnMut(usize, &VdConfig) -> Result<M, MediaError>,
    progress: impl FnMut(&Progress),
) -> String {
    let (set, server) = begin(bench, 3);
    let panic = catch_unwind(AssertUnwindSafe(|| set.serve_with_progress(&names(3), media, progress))).unwrap_err();
    assert_eq!(set.state(), State::Abort);
    let (message, failure) = (panic.downcast_ref::<&str>().copied().unwrap(), server.result().unwrap_err());
    assert_eq!(failure.status(), Some(VdError::Abort), "{failure}");
    assert!(failure.to_string().contains(&format!("the client panicked: {message}")), "{failure}");
    set.close().unwrap();
    message.to_owned()
}

#[test]
fn a_panic_in_a_mediums_code_aborts_the_set_and_goes_on() {
    let bench = Bench::new();
    let media = |index, _: &VdConfig| {
        Ok(OnWrite(move |_: &[u8]| if index == 1 { panic!("in the medium, on purpose") } else { Ok(()) }))
    };
    assert_eq!(panicking(&bench, media, |_| ()), "in the medium, on purpose");
}

#[test]
fn a_panic_of_the_one_that_makes_media_aborts_the_set_and_goes_on() {
    let bench = Bench::new();
    let media = |index, negotiated: &VdConfig| {
        if index == 2 { panic!("in the closure, on purpose") } else { file(&bench, index, negotiated) }
    };
    assert_eq!(panicking(&bench, media, |_| ()), "in the closure, on purpose");
    bench.assert_output(&[]);
}

#[test]
fn a_panic_of_the_callback_aborts_the_set_and_goes_on() {
    let bench = Bench::new();
    let set = bench.create(SET, &config(2));
    let serving = {
        let set = Arc::clone(&set);
        task("serve", move || {
            let media = |_: usize, _: &VdConfig| Ok(StreamMedia::sink(std::io::sink()));
            let progress = |_: &Progress| panic!("in the callback, on purpose");
            catch_unwind(AssertUnwindSafe(|| set.serve_with_progress(&names(2), media, progress))).is_err()
        })
    };
    // It sends nothing and closes nothing, so only the abort ends the threads.
    let mut server = Server::open(&bench, SET, 2);
    assert!(!server.agent_ended());
    assert!(serving.result());
    set.close().unwrap();
}

// ---- cancelling

#[track_caller]
fn assert_cancelled(error: &Error) {
    assert_eq!((error.code(), error.kind()), (VdError::Timeout, ErrorKind::Cancelled), "{error}");
    assert!(error.to_string().contains("cancelled by this process"), "{error}");
}

#[test]
fn a_cancel_before_the_configuration_leaves_the_set_as_it_is() {
    let bench = Bench::new();
    bench.database("db", 1_000_000);
    let set = bench.create(SET, &config(2));
    let serve = |set: &Arc<ClientVirtualDeviceSet>| {
        let set = Arc::clone(set);
        task("serve", move || set.serve(&names(2), |_, _| Ok(StreamMedia::sink(std::io::sink()))))
    };
    let serving = serve(&set);
    serving.wait_until_asleep();
    let canceller = set.canceller().unwrap();
    canceller.cancel();
    assert_cancelled(&serving.result().unwrap_err());
    assert_eq!(set.state(), State::Configurable);

    canceller.resume();
    let serving = serve(&set);
    backup(&bench, 2).result().unwrap();
    serving.result().unwrap();
    set.close().unwrap();
}

#[test]
fn a_cancel_while_media_are_made_aborts_the_set() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 2);
    let error = set
        .serve(&names(2), |index, negotiated| {
            set.canceller().unwrap().cancel();
            file(&bench, index, negotiated)
        })
        .unwrap_err();
    assert_cancelled(&error);
    assert_eq!(server.result().unwrap_err().status(), Some(VdError::Abort));
    set.close().unwrap();
    bench.assert_output(&[]);
}

/// The error of serving a named pipe whose reader never comes, while `end` happens.
fn serve_without_reader(end: impl FnOnce(&ClientVirtualDeviceSet, &Server)) -> Error {
    let bench = Bench::new();
    let path = stripe(&bench.out(), 0);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let set = bench.create(SET, &config(1));
    let (making, made) = std::sync::mpsc::channel();
    let serving = {
        let set = Arc::clone(&set);
        task("serve", move || {
            set.serve(&names(1), |_, _| {
                making.send(()).unwrap();
                FileMedia::create(&path)
            })
        })
    };
    let server = Server::with_features(&bench, SET, 1, Features::WRITE_MEDIA);
    made.recv_timeout(TEST_TIMEOUT).unwrap();
    end(&set, &server);
    let error = serving.result().unwrap_err();
    set.close().unwrap();
    error
}

#[test]
fn a_cancel_and_the_end_of_the_set_end_the_wait_for_a_pipes_reader() {
    let cancelled = serve_without_reader(|set, _| set.canceller().unwrap().cancel());
    assert_cancelled(&cancelled);
    let error = serve_without_reader(|_, server| server.set.signal_abort().unwrap());
    assert_eq!((error.code(), error.kind()), (VdError::Abort, ErrorKind::Ended), "{error}");
}

#[test]
fn a_cancel_in_the_middle_aborts_the_set() {
    let bench = Bench::new();
    let set = bench.create(SET, &config(4));
    let canceller = set.canceller().unwrap();
    let serving = {
        let set = Arc::clone(&set);
        task("serve", move || set.serve(&names(4), |_, _| Ok(StreamMedia::sink(std::io::sink()))))
    };
    let mut server = Server::with_features(&bench, SET, 4, Features::WRITE_MEDIA);
    server.write(0, 1);
    server.write(3, 1);
    assert_eq!([server.completed().0, server.completed().0], [CompletionCode::SUCCESS; 2]);
    // From another thread than the one that serves.
    canceller.cancel();
    assert_cancelled(&serving.result().unwrap_err());
    assert_eq!(set.state(), State::Abort);
    assert!(!server.agent_ended());
    set.close().unwrap();
}

/// The reason stays the medium's, whatever the program does then.
#[test]
fn a_cancel_after_a_failure_hides_nothing() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 2);
    let canceller = set.canceller().unwrap();
    let error = set
        .serve(&names(2), |index, _| {
            let canceller = canceller.clone();
            Ok(OnWrite(move |_: &[u8]| {
                if index == 0 {
                    return Ok(());
                }
                canceller.cancel();
                Err(failure())
            }))
        })
        .unwrap_err();
    assert_eq!(media_error(&error).what, failure().what);
    server.result().unwrap_err();
    set.close().unwrap();
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    let bench = Bench::new();
    let (set, server) = begin(&bench, 2);
    let canceller = set.canceller().unwrap();
    set.serve(&names(2), |index, negotiated| file(&bench, index, negotiated)).unwrap();
    canceller.cancel();
    server.result().unwrap();
    set.close().unwrap();
    assert_eq!(set.state(), State::DoesNotExist);
}

// ---- without serve

/// A process runs this when it is started as a part: see `run_role`.
#[test]
fn child_entry() {
    run_role(&[("one-thread", one_thread)]);
}

/// The obvious loop: a device after another in one thread. The last one is opened when its turn comes.
fn one_thread(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    set.create(SET, &config(3)).unwrap();
    stage.say("created");
    set.get_configuration(INFINITE).unwrap();
    let devices: Vec<_> = names(2).iter().map(|name| set.open_device(name).unwrap()).collect();
    for mut device in devices.into_iter().chain(std::iter::once_with(|| set.open_device(&names(3)[2]).unwrap())) {
        pump(&mut device, &mut OnWrite(|_: &[u8]| Ok(()))).unwrap();
    }
    set.close().unwrap();
}

/// It hangs, as nothing is wrong with any of its calls; but not without a word.
#[test]
fn a_loop_over_devices_is_warned() {
    let bench = Bench::new();
    let part = bench.part("one-thread", &[]);
    part.expect("created");
    let server = Server::with_features(&bench, SET, 3, Features::WRITE_MEDIA);
    server.write(1, 7);
    let warned = "vdi-client: GetCommand on device \"nightly\" of set \"nightly\" has waited 10 s for a command. Device \
                  \"nightly/1\" is open in this process, and no thread gets its commands. Device \"nightly/2\" is not open. The server";
    eventually("the warning", || {
        let _ = part.report_within(Duration::from_millis(100));
        match part.log().iter().any(|line| line.starts_with(warned)) {
            true => Ok(()),
            false => Err(format!("it said {:?}", part.log())),
        }
    });
    server.devices[0].close_device().unwrap();
    assert_eq!(server.completed().0, CompletionCode::SUCCESS);
    server.devices[1].close_device().unwrap();
    server.devices[2].close_device().unwrap();
    part.end();
}
