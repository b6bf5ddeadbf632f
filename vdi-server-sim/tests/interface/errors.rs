//! The client's errors name the call, the set, the device and the command, and what was waited for.

use crate::common;

use std::io;
use std::time::Duration;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::config;
use common::server::{BUFFER, Server, pair};
use common::tasks::task;
use vdi_client::media::MediaError;
use vdi_client::raw::RawDevice;
use vdi_client::{ClientVirtualDeviceSet, CommandCode, Completion, CompletionCode, Error, INFINITE, VdError, workers};
use vdi_proto::command::CommandId;
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_server_sim::vds::ServerVirtualDeviceSet;

/// An error begins with where it happened, and tells this.
#[track_caller]
fn assert_told(error: &Error, beginning: &str, texts: &[&str]) {
    let told = error.to_string();
    let beginning = format!("{beginning}: {} (0x", error.code().name());
    assert!(told.starts_with(&beginning), "{told:?} does not begin with {beginning:?}");
    for text in texts {
        assert!(told.contains(text), "{text:?} is missing in {told:?}");
    }
}

const SET: &str = r#"of set "nightly""#;
const DEVICE: &str = r#"on device "nightly" of set "nightly""#;

#[test]
fn calls_without_a_set_and_with_one_already() {
    let bench = Bench::new();
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    let none = "this object has no set: create or join one first";
    assert_told(&set.get_configuration(INFINITE).unwrap_err(), "GetConfiguration", &[none]);
    assert_told(&set.open_device("nightly").unwrap_err(), "OpenDevice", &[none]);
    assert_told(&set.close().unwrap_err(), "Close", &[none]);
    let missing = set.open_in_secondary("nightly").unwrap_err();
    assert_told(&missing, &format!("OpenInSecondary {SET}"), &["create it before"]);
    set.create("nightly", &config(1)).unwrap();
    let again = "this object has this set already; close it first, or use another object";
    assert_told(&set.create("other", &config(1)).unwrap_err(), &format!("Create {SET}"), &[again]);
    assert_told(&set.open_in_secondary_ex(None, "x").unwrap_err(), &format!("OpenInSecondaryEx {SET}"), &[again]);
}

#[test]
fn waiting_for_the_configuration() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let error = set.get_configuration(Duration::from_millis(1)).unwrap_err();
    let told = ["no server configured the set within 0.001 s", "check that the statement was sent"];
    assert_told(&error, &format!("GetConfiguration {SET}"), &told);
    let early = set.open_device("nightly").unwrap_err();
    assert_told(&early, &format!("OpenDevice {DEVICE}"), &["state Configurable: call GetConfiguration first"]);
    set.canceller().unwrap().cancel();
    let told = ["the wait for the server to configure the set was cancelled by this process"];
    assert_told(&set.get_configuration(INFINITE).unwrap_err(), &format!("GetConfiguration {SET}"), &told);
}

#[test]
fn waiting_for_a_device() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = ServerVirtualDeviceSet::with_options(bench.options());
    server.open("", "nightly").unwrap();
    let terms = ServerTerms { features: Features::READ_MEDIA, ..ServerTerms::default() };
    server.begin_configuration(&terms, TEST_TIMEOUT).unwrap();
    server.end_configuration().unwrap();
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let opening = task("OpenDevice", {
        let set = std::sync::Arc::clone(&set);
        move || set.open_device("nightly").unwrap_err()
    });
    opening.wait_until_asleep();
    set.canceller().unwrap().cancel();
    let told = ["the wait for the server to announce its devices was cancelled by this process"];
    assert_told(&opening.result(), &format!("OpenDevice {DEVICE}"), &told);
    set.canceller().unwrap().resume();

    let devices = ["nightly", "nightly/1"].map(|name| server.open_device(name).unwrap());
    let device = set.open_device("nightly").unwrap();
    let told = ["the device is open already, here or in another process"];
    assert_told(&set.open_device("nightly").unwrap_err(), &format!("OpenDevice {DEVICE}"), &told);
    let beginning = r#"OpenDevice on device "nobody" of set "nightly""#;
    assert_told(
        &set.open_device("nobody").unwrap_err(),
        beginning,
        &["names no such device; names are case-sensitive"],
    );
    let other = set.open_device("nightly/1").unwrap();
    assert_told(&set.open_device("nobody").unwrap_err(), beginning, &["all devices of the set are open"]);
    drop((device, other, devices));
}

#[test]
fn waiting_for_a_command() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let beginning = format!("GetCommand {DEVICE}");
    let error = device.get_command(Duration::from_millis(1)).unwrap_err();
    assert_told(&error, &beginning, &["the server sent no command within 0.001 s"]);
    assert!(!error.to_string().contains("holds"), "{error}");
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    let error = device.get_command(Duration::from_millis(1)).unwrap_err();
    assert_told(&error, &beginning, &["; this program holds 1 of its commands, for which it may be waiting"]);
    set.canceller().unwrap().cancel();
    let told = ["the wait for the server's next command was cancelled by this process"];
    assert_told(&device.get_command(INFINITE).unwrap_err(), &beginning, &told);
    set.canceller().unwrap().resume();
    held.complete(Completion::transferred(BUFFER as usize)).unwrap();
    server.completed();
    server.devices[0].close_device().unwrap();
    let end = device.get_command(INFINITE).unwrap_err();
    assert_told(&end, &beginning, &["the server closed the device; its work is done"]);
    let late = set.open_device("nightly").unwrap_err();
    assert_told(&late, &format!("OpenDevice {DEVICE}"), &["every device has returned VD_E_CLOSE"]);
}

#[test]
fn completing_and_sharing_a_command() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    server.read(0);
    let read = device.get_command(TEST_TIMEOUT).unwrap();
    let refused = read.complete(Completion::done()).unwrap_err();
    let what = format!("a transfer without the number of bytes transferred; the command asks for {BUFFER} bytes");
    assert_told(&refused.error, &format!("CompleteCommand of VDC_Read {DEVICE}"), &[&what]);
    server.plain(0, CommandCode::FLUSH);
    let flush = device.get_command(TEST_TIMEOUT).unwrap();
    let no_buffer = flush.buffer_handle().unwrap_err();
    assert_told(&no_buffer, &format!("GetBufferHandle of VDC_Flush {DEVICE}"), &["this command has no buffer"]);
    let null = set.get_buffer_handle(std::ptr::null()).unwrap_err();
    assert_told(&null, &format!("GetBufferHandle {SET}"), &["0x0 is not the data start of a buffer"]);
    server.set.signal_abort().unwrap();
    let late = flush.complete(Completion::done()).unwrap_err();
    let aborted = "the set was aborted: the server called SignalAbort";
    assert_told(&late.error, &format!("CompleteCommand of VDC_Flush {DEVICE}"), &[aborted]);
    let late = refused.command.unwrap().buffer_handle().unwrap_err();
    assert_told(&late, &format!("GetBufferHandle of VDC_Read {DEVICE}"), &[]);
    let raw = RawDevice::new(device);
    let unknown = raw.complete_command(CommandId(77), CompletionCode::SUCCESS, 0, 0).unwrap_err();
    assert_eq!(unknown.code(), VdError::Abort);
    assert_told(&unknown, &format!("CompleteCommand {DEVICE}"), &[aborted]);
}

/// A pipe that breaks.
struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_worker_names_its_set() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let server = Server::open(&bench, "nightly", 1);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let secondary = ClientVirtualDeviceSet::with_options(bench.options());
    secondary.open_in_secondary("nightly").unwrap();
    let open = |_| Err(MediaError::new(CompletionCode::IO_DEVICE, "there is none"));
    let error = workers::serve(&secondary, Broken, io::sink(), open).unwrap_err();
    assert_told(&error, &format!("serve {SET}"), &["a pipe to the primary failed: broken pipe"]);
    drop(server);
}
