//! The pump and the workers with media that misbehave, against a server in this process.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use common::bench::Bench;
use common::client::config;
use common::server::{BUFFER, Server, pair};
use common::tasks::{Task, task};
use common::{TEST_TIMEOUT, eventually};
use vdi_client::media::{Media, MediaError};
use vdi_client::pump::Report;
use vdi_client::workers::{self, WorkerPool};
use vdi_client::{
    ClientVirtualDevice, ClientVirtualDeviceSet, CommandCode, CompletionCode, Error, Features, VdConfig, VdError, pump,
};
use vdi_server_sim::vds::VdsCommand;

/// A medium that answers what it was told, in this order, then with success; it remembers no failure.
#[derive(Default)]
struct Answers {
    reads: VecDeque<Result<usize, MediaError>>,
    rest: VecDeque<Result<u64, MediaError>>,
}

impl Answers {
    fn to_reads(answer: Result<usize, MediaError>) -> Answers {
        Answers { reads: [answer].into(), rest: VecDeque::new() }
    }

    fn to_others(answers: impl IntoIterator<Item = Result<u64, MediaError>>) -> Answers {
        Answers { reads: VecDeque::new(), rest: answers.into_iter().collect() }
    }

    fn answer(&mut self) -> Result<u64, MediaError> {
        self.rest.pop_front().unwrap_or(Ok(0))
    }
}

impl Media for Answers {
    fn write(&mut self, _position: u64, _data: &[u8]) -> Result<(), MediaError> {
        self.answer().map(drop)
    }
    fn read(&mut self, _position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.reads.pop_front().unwrap_or(Ok(buffer.len()))
    }
    fn flush(&mut self) -> Result<(), MediaError> {
        self.answer().map(drop)
    }
    fn complete(&mut self) -> Result<(), MediaError> {
        self.answer().map(drop)
    }
    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.answer().map(drop)
    }
    fn other(&mut self, _code: CommandCode, _size: i32, _position: u64) -> Result<u64, MediaError> {
        self.answer()
    }
    fn close(&mut self) -> Result<(), MediaError> {
        self.answer().map(drop)
    }
}

fn broken(what: &str) -> MediaError {
    MediaError::new(CompletionCode::IO_DEVICE, what)
}

fn pumping(mut device: ClientVirtualDevice, mut media: Answers) -> Task<Result<Report, Error>> {
    task("the pump", move || pump(&mut device, &mut media))
}

/// The media's own error, by which the pump explains its.
#[track_caller]
fn media_error(error: &Error) -> &MediaError {
    assert_eq!(error.code(), VdError::Unexpected, "{error}");
    error.source().unwrap().downcast_ref().unwrap()
}

#[test]
fn a_media_that_reads_more_than_there_is_room_for_has_failed() {
    let bench = Bench::new();
    let (_set, server, device) = pair(&bench);
    let pumping = pumping(device, Answers::to_reads(Ok(BUFFER as usize + 1)));
    server.read(0);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    server.plain(0, CommandCode::CLEAR_ERROR);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    server.devices[0].close_device().unwrap();
    let error = pumping.result().unwrap_err();
    assert!(media_error(&error).what.contains("read 65537 bytes into a buffer of 65536"), "{error}");
}

#[test]
fn a_failure_is_told_as_it_is_whatever_it_says_of_bytes() {
    let nameless = |mut error: MediaError| {
        error.code = CompletionCode::SUCCESS;
        error
    };
    for (failure, completed) in [
        (broken("head crash").with_bytes(1 << 20), (CompletionCode::IO_DEVICE, BUFFER)),
        (broken("head crash").with_bytes(512), (CompletionCode::IO_DEVICE, 512)),
        (nameless(broken("head crash").with_bytes(BUFFER as usize)), (CompletionCode::IO_DEVICE, BUFFER)),
    ] {
        let bench = Bench::new();
        let (_set, server, device) = pair(&bench);
        let pumping = pumping(device, Answers::to_reads(Err(failure)));
        server.read(0);
        assert_eq!(server.completed(), completed);
        server.devices[0].close_device().unwrap();
        let error = pumping.result().unwrap_err();
        assert_eq!(media_error(&error).what, "head crash");
        assert_eq!(error.command(), Some(CommandCode::READ), "{error}");
    }
}

#[test]
fn the_error_of_a_pump_names_the_command() {
    let bench = Bench::new();
    let (_set, server, device) = pair(&bench);
    let pumping = pumping(device, Answers::to_others([Err(broken("the volume group is full"))]));
    server.plain(0, CommandCode::SNAPSHOT);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    server.devices[0].close_device().unwrap();
    let error = pumping.result().unwrap_err();
    let beginning = r#"pump of VDC_Snapshot on device "nightly" of set "nightly": "#;
    assert!(error.to_string().starts_with(beginning), "{error}");
}

struct Panics;

impl Media for Panics {
    fn write(&mut self, _position: u64, _data: &[u8]) -> Result<(), MediaError> {
        panic!("on purpose")
    }
    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        panic!("on purpose")
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

#[test]
fn a_media_that_panics_fails_the_work_at_once() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let pumping = std::thread::spawn(move || pump(&mut device, &mut Panics).map(drop));
    server.read(0);
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    assert!(pumping.join().is_err());
    eventually("the set is aborted", || match set.get_configuration(TEST_TIMEOUT).map_err(|error| error.code()) {
        Err(VdError::Abort) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// A medium that fails with a full disk once the test lets it.
struct Fails {
    entered: Sender<()>,
    go_on: Receiver<()>,
    in_begin: bool,
}

impl Fails {
    fn fail(&mut self) -> MediaError {
        self.entered.send(()).unwrap();
        self.go_on.recv_timeout(TEST_TIMEOUT).unwrap();
        MediaError::new(CompletionCode::DISK_FULL, "no space left")
    }
}

impl Media for Fails {
    fn begin(&mut self, _config: &VdConfig) -> Result<(), MediaError> {
        if self.in_begin { Err(self.fail()) } else { Ok(()) }
    }
    fn write(&mut self, _position: u64, _data: &[u8]) -> Result<(), MediaError> {
        Err(self.fail())
    }
    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        Err(self.fail())
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

/// Several stripes on one full disk: the first aborts the set while the others are about to fail.
#[test]
fn media_error_is_returned_though_the_set_was_aborted_first() {
    for in_begin in [false, true] {
        let bench = Bench::new();
        let (set, server, mut device) = pair(&bench);
        let (entered, has_entered) = channel();
        let (let_go_on, go_on) = channel();
        let pumping = task("the pump", move || pump(&mut device, &mut Fails { entered, go_on, in_begin }));
        server.read(0);
        has_entered.recv_timeout(TEST_TIMEOUT).unwrap();
        set.signal_abort().unwrap();
        let_go_on.send(()).unwrap();
        let error = pumping.result().unwrap_err();
        assert_eq!(media_error(&error).code, CompletionCode::DISK_FULL);
        assert_eq!(error.command(), (!in_begin).then_some(CommandCode::READ), "{error}");
    }
}

/// A worker whose stripe cannot be opened. It says nothing on standard error, which belongs to the program.
fn pool_without_stripe(bench: &Bench) -> WorkerPool {
    let mut worker = Program::new(env!("CARGO_BIN_EXE_vdi-sim"));
    worker.args(["demo-worker", "--set", "nightly", "--restore", "--folder"]).arg(bench.out());
    worker.env("VDI_RUNTIME_DIR", bench.runtime());
    worker.stderr(std::fs::File::create(bench.out().join("stderr")).unwrap());
    WorkerPool::start([worker]).unwrap()
}

#[test]
fn failure_of_a_worker_reaches_the_primary_with_its_text() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let pool = pool_without_stripe(&bench);
    let driving = task("the driver", move || {
        let outcome = pool.drive(&mut device, 0, |_| {});
        pool.finish().unwrap();
        outcome
    });
    server.read(0);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    server.devices[0].close_device().unwrap();
    let error = driving.result().unwrap_err();
    let failure = media_error(&error);
    assert!(failure.what.contains("stripe-00.vdi for reading: No such file"), "{error}");
    assert_eq!(failure.remedy, "check the path; directories have to exist already");
    assert!(error.to_string().starts_with(r#"drive of VDC_Read on device "nightly" of set "nightly": "#), "{error}");
    assert_eq!(std::fs::read_to_string(bench.out().join("stderr")).unwrap(), "");
}

/// The server does not end the failed work, so the driver does, as the pump does.
#[test]
fn drive_aborts_the_set_when_the_server_does_not_end_failed_work() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let pool = pool_without_stripe(&bench);
    let driving = task("the driver", move || pool.drive(&mut device, 0, |_| {}));
    server.read(0);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    let error = driving.result().unwrap_err();
    assert!(media_error(&error).what.contains("stripe-00.vdi"), "{error}");
    assert_eq!(set.get_configuration(TEST_TIMEOUT).unwrap_err().code(), VdError::Abort);
}

#[test]
fn failure_of_a_worker_is_returned_though_the_set_was_aborted_first() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let (asked, go_on) = (bench.out().join("asked"), bench.out().join("go-on"));
    rustix::fs::mknodat(rustix::fs::CWD, &go_on, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // To the first request, whose tag is 0: ERROR_DISK_FULL, no bytes, final; "full", and no remedy.
    let answer = r"\0\0\0\0\0\0\0\0\160\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\4\0\0\0full\0\0\0\0";
    let mut worker = Program::new("sh");
    let script =
        format!("head -c 32 > /dev/null; : > asked; cat go-on > /dev/null; printf '{answer}'; cat > /dev/null");
    worker.args(["-c", &script]).current_dir(bench.out());
    let pool = WorkerPool::start([worker]).unwrap();
    let driving = task("the driver", move || pool.drive(&mut device, 0, |_| {}));
    server.read(0);
    eventually("the worker was asked", || if asked.exists() { Ok(()) } else { Err("not yet".to_owned()) });
    set.signal_abort().unwrap();
    std::fs::write(&go_on, "").unwrap();
    let error = driving.result().unwrap_err();
    assert_eq!((media_error(&error).code, &*media_error(&error).what), (CompletionCode::DISK_FULL, "full"));
}

/// The failure is known when the wait for the next command is cancelled.
#[test]
fn failure_of_a_worker_is_returned_though_the_wait_was_cancelled() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    // As above.
    let answer = r"\0\0\0\0\0\0\0\0\160\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\4\0\0\0full\0\0\0\0";
    let mut worker = Program::new("sh");
    worker.args(["-c", &format!("head -c 32 > /dev/null; printf '{answer}'; cat > /dev/null")]);
    let pool = WorkerPool::start([worker]).unwrap();
    let driving = task("the driver", move || pool.drive(&mut device, 0, |_| {}));
    server.read(0);
    assert_eq!(server.completed().0, CompletionCode::DISK_FULL);
    set.canceller().unwrap().cancel();
    let error = driving.result().unwrap_err();
    assert_eq!(media_error(&error).code, CompletionCode::DISK_FULL);
}

/// A medium whose error has the code of success fails all the same: no command is completed as good for it.
#[test]
fn a_worker_never_answers_success_for_a_medium_that_was_not_opened() {
    let open = |_| -> Result<Box<dyn Media>, MediaError> {
        let mut error = MediaError::new(CompletionCode::IO_DEVICE, "it has the wrong code");
        error.code = CompletionCode::SUCCESS;
        Err(error)
    };
    assert_eq!(serve(&[(CommandCode::FLUSH, 0)], open), [CompletionCode::IO_DEVICE]);
}

/// A worker's life in this process: the codes of its answers to these requests, each a command and its bytes.
fn serve(
    requests: &[(CommandCode, u32)],
    open: impl FnMut(u32) -> Result<Box<dyn Media>, MediaError>,
) -> Vec<CompletionCode> {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let server = Server::open(&bench, "nightly", 1);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let secondary = ClientVirtualDeviceSet::with_options(bench.options());
    secondary.open_in_secondary("nightly").unwrap();
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for (tag, (code, bytes)) in (0u64..).zip(requests) {
        input.extend_from_slice(&tag.to_le_bytes());
        for field in [code.number(), 0, 0, *bytes, 0, 0] {
            input.extend_from_slice(&field.to_le_bytes());
        }
    }
    let served = workers::serve(&secondary, &input[..], &mut output, open).unwrap();
    assert_eq!(served.requests, requests.len() as u64);
    drop(server);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let (mut codes, mut rest) = (Vec::new(), &output[..]);
    while !rest.is_empty() {
        let (answer, behind) = rest.split_at(24);
        codes.push(CompletionCode::new(number(&answer[8..])));
        rest = behind;
        // Two texts follow the answer of a final failure.
        let texts = if number(&answer[8..]) != 0 && answer[16] == 1 { 2 } else { 0 };
        for _ in 0..texts {
            rest = &rest[4 + number(rest) as usize..];
        }
    }
    codes
}

/// In a request of a worker: the end of a device.
const CLOSE: CommandCode = CommandCode::new(0);

#[test]
fn nothing_succeeds_for_a_worker_after_a_failure() {
    let (io_device, success) = (CompletionCode::IO_DEVICE, CompletionCode::SUCCESS);
    let all = [CommandCode::FLUSH, CommandCode::CLEAR_ERROR, CommandCode::FLUSH, CommandCode::COMPLETE, CLOSE];
    let all = all.map(|code| (code, 0));
    assert_eq!(serve(&all, |_| Ok(Box::new(Answers::default()))), [success; 5]);
    let fails = |_| -> Result<Box<dyn Media>, _> { Ok(Box::new(Answers::to_others([Err(broken("once"))]))) };
    assert_eq!(serve(&all, fails), [io_device; 5]);

    // A Write whose buffer is nowhere was not stored.
    let lost = [(CommandCode::WRITE, BUFFER), (CommandCode::CLEAR_ERROR, 0), (CLOSE, 0)];
    assert_eq!(serve(&lost, |_| Ok(Box::new(Answers::default()))), [io_device; 3]);

    // What could not be opened in time for the first Write is not opened for the second.
    let mut opened = 0;
    let late = |_| -> Result<Box<dyn Media>, _> {
        opened += 1;
        if opened == 1 { Err(broken("not yet")) } else { Ok(Box::new(Answers::default())) }
    };
    assert_eq!(serve(&all, late), [io_device; 5]);

    // A condition is no failure, and what a medium does not know is none.
    let mark = MediaError::condition(CompletionCode::FILEMARK_DETECTED, "a mark");
    let answers = [Err(mark), Ok(0), Err(MediaError::not_supported("this"))];
    let conditions = [
        (CommandCode::SKIP_BLOCKS, 1),
        (CommandCode::CLEAR_ERROR, 0),
        (CommandCode::GET_ERROR, 0),
        (CommandCode::FLUSH, 0),
        (CLOSE, 0),
    ];
    let mut answers = Some(answers);
    assert_eq!(
        serve(&conditions, |_| Ok(Box::new(Answers::to_others(answers.take().unwrap())))),
        [CompletionCode::FILEMARK_DETECTED, success, CompletionCode::NOT_SUPPORTED, success, success]
    );
}

/// What a worker answers reaches the server whole: positions of disks beyond 4 GiB, and the bytes that were really read.
#[test]
fn positions_and_bytes_come_back_from_a_worker_whole() {
    const LENGTH: u64 = (5 << 30) + 1000;
    let bench = Bench::new();
    std::fs::File::create(bench.out().join("stripe-00.vdi")).unwrap().set_len(LENGTH).unwrap();
    let asked = VdConfig { features: Features::RANDOM_ACCESS, ..config(1) };
    let set = bench.create("nightly", &asked);
    let server = Server::open(&bench, "nightly", 1);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    let mut worker = Program::new(env!("CARGO_BIN_EXE_vdi-sim"));
    worker.args(["demo-worker", "--set", "nightly", "--restore", "--folder"]).arg(bench.out());
    worker.env("VDI_RUNTIME_DIR", bench.runtime());
    let pool = WorkerPool::start([worker]).unwrap();
    let driving = task("the driver", move || {
        let report = pool.drive(&mut device, 0, |_| {});
        pool.finish().unwrap();
        report
    });

    let end = VdsCommand { size: 2, ..VdsCommand::plain(CommandCode::SET_POSITION, Arc::clone(&server.routine)) };
    server.devices[0].send_command(end).unwrap();
    let ended = server.ended();
    assert_eq!((ended.code, ended.position), (CompletionCode::SUCCESS, LENGTH));
    let buffer = server.set.allocate_buffer(BUFFER, 0).unwrap();
    let read = VdsCommand::transfer(CommandCode::READ, buffer, BUFFER, Arc::clone(&server.routine));
    server.devices[0].send_command(VdsCommand { position: LENGTH - 512, ..read }).unwrap();
    assert_eq!(server.completed(), (CompletionCode::HANDLE_EOF, 512));
    server.plain(0, CommandCode::CLEAR_ERROR);
    assert_eq!(server.completed().0, CompletionCode::SUCCESS);
    server.plain(0, CommandCode::GET_POSITION);
    assert_eq!(server.ended().position, LENGTH);
    server.devices[0].close_device().unwrap();
    let report = driving.result().unwrap();
    // ClearError is not counted.
    assert_eq!((report.commands, report.bytes_written, report.bytes_read), (3, 0, 512));
}
