//! What clients answer: every way to end the data, and every way to spoil a statement, against `vdi-sim sql` in a process of
//! its own.

use crate::common;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, stripe};
use common::processes::Outcome;
use vdi_client::raw::{RawCommand, RawDevice};
use vdi_client::{
    ClientVirtualDevice, CommandCode, Completion, CompletionCode, Error, Features, INFINITE, VdConfig, VdError,
};

/// Carries out every command in memory, and lists them until the end.
fn obey(mut device: ClientVirtualDevice) -> (Vec<CommandCode>, Error) {
    let mut seen = Vec::new();
    loop {
        match device.get_command(TEST_TIMEOUT) {
            Ok(command) => {
                seen.push(command.code());
                let bytes = command.data().len();
                let transfer = command.code().is_transfer();
                let answer = if transfer { Completion::transferred(bytes) } else { Completion::done() };
                if let Err(refused) = command.complete(answer) {
                    return (seen, refused.into());
                }
            }
            Err(end) => return (seen, end),
        }
    }
}

#[test]
fn a_backup_is_writes_then_flush_then_complete_then_close() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let asked = config(3);
    for (features, tail) in [
        (Features::REQUEST_COMPLETE, &[CommandCode::FLUSH, CommandCode::COMPLETE][..]),
        (Features::default(), &[CommandCode::FLUSH][..]),
    ] {
        let script = bench.scripted("nightly", &VdConfig { features, ..asked }, |device, _| obey(device));
        bench.sql(&backup_statement("sales", "nightly", 3, "")).outcome().assert_success();
        for (seen, end) in script.result() {
            assert!(end.is_close(), "{end}");
            let writes = seen.len() - tail.len();
            assert!(writes >= 2 && seen[..writes].iter().all(|code| *code == CommandCode::WRITE), "{seen:?}");
            assert_eq!(&seen[writes..], tail);
        }
    }
}

#[test]
fn the_configuration_tells_direction_and_sizes() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let script = bench.scripted("nightly", &config(1), |device, _| (device.config(), obey(device)));
    let options = "MAXTRANSFERSIZE = 262144, BLOCKSIZE = 1024, BUFFERCOUNT = 7";
    bench.sql(&backup_statement("sales", "nightly", 1, options)).outcome().assert_success();
    let (negotiated, _) = script.result().remove(0);
    assert!(negotiated.features.contains(Features::WRITE_MEDIA | Features::COMPLETE_ENABLED), "{negotiated:?}");
    assert!(!negotiated.features.contains(Features::READ_MEDIA), "{negotiated:?}");
    assert_eq!((negotiated.block_size, negotiated.max_transfer_size, negotiated.max_io_depth), (1024, 262_144, 4));
    assert!(negotiated.buffer_area_size >= 7 * 262_144, "{negotiated:?}");
}

/// Serves a restore from memory as a foreign client does: each Read gets as many bytes as `portion` says, with the code of
/// success, and the last data, or nothing after it, comes with what `last` says. Gives how many Reads came.
fn deliver(
    device: ClientVirtualDevice,
    data: &[u8],
    portion: fn(usize) -> usize,
    last: (Last, CompletionCode),
) -> usize {
    let device = RawDevice::new(device);
    let (mut done, mut reads) = (0, 0);
    loop {
        let command = match device.get_command(TEST_TIMEOUT) {
            Ok(command) => command,
            Err(_) => return reads,
        };
        assert_eq!(command.code, CommandCode::READ);
        assert_eq!(command.size, 65536, "every Read asks for all that there is room for");
        let bytes = portion(reads).clamp(1, command.size as usize).min(data.len() - done);
        reads += 1;
        fill(&command, &data[done..done + bytes]);
        done += bytes;
        let at_end = done == data.len() && (last.0 == Last::WithData || bytes == 0);
        let code = if at_end { last.1 } else { CompletionCode::SUCCESS };
        if device.complete_command(command.id, code, bytes as u64, 0).is_err() {
            return reads;
        }
    }
}

/// Where the end of the data is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    WithData,
    Alone,
}

fn fill(command: &RawCommand, data: &[u8]) {
    assert!(data.len() <= command.size as usize);
    // SAFETY: the buffer of a Read that is not completed yet belongs to this program, and has `size` bytes.
    unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), command.buffer, data.len()) };
}

const WHOLE: fn(usize) -> usize = |_| usize::MAX;
const ODD: fn(usize) -> usize = |read| [1, 511, 513, 7, 65535, 3, 30_001][read % 7];

/// Restores from what is left of a backup after `cut`.
#[track_caller]
fn restore(portion: fn(usize) -> usize, last: (Last, CompletionCode), cut: fn(&mut Vec<u8>)) -> Outcome {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    bench.back_up("sales", 1, "");
    let mut data = fs::read(stripe(&bench.out(), 0)).unwrap();
    cut(&mut data);
    let script = bench.scripted("nightly", &config(1), move |device, _| deliver(device, &data, portion, last));
    let outcome = bench.sql(&copy_statement("sales", "copy", "nightly", 1, "")).outcome();
    assert!(script.result()[0] > 0);
    if outcome.status.success() {
        bench.assert_identical("sales", "copy");
    } else {
        bench.assert_databases(&["sales"]);
    }
    outcome
}

const ENDS: [(Last, CompletionCode); 5] = [
    (Last::WithData, CompletionCode::HANDLE_EOF),
    (Last::Alone, CompletionCode::HANDLE_EOF),
    (Last::WithData, CompletionCode::NO_DATA_DETECTED),
    (Last::Alone, CompletionCode::SUCCESS),
    (Last::WithData, CompletionCode::SUCCESS),
];

#[test]
fn all_ways_to_end_the_data_are_understood() {
    for last in ENDS {
        restore(WHOLE, last, |_| {}).assert_success();
    }
}

#[test]
fn reads_may_come_back_with_any_number_of_bytes() {
    for last in ENDS {
        restore(ODD, last, |_| {}).assert_success();
    }
    restore(|_| 997, ENDS[0], |_| {}).assert_success();
}

#[test]
fn data_that_ends_too_early_is_an_error_however_the_end_is_told() {
    for last in ENDS {
        for portion in [WHOLE, ODD] {
            restore(portion, last, |data| data.truncate(100_000)).assert_failure(&["Msg 3203,", "38("]);
        }
    }
}

#[test]
fn what_follows_the_end_of_the_stream_is_not_read() {
    let outcome = restore(WHOLE, ENDS[0], |data| data.extend([0xee; 1000]));
    outcome.assert_success();
}

#[test]
fn a_read_that_fails_fails_the_restore_with_its_code() {
    let bench = Bench::new();
    let script = bench.scripted("nightly", &config(1), |mut device, _| {
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        command.complete(Completion::failed(CompletionCode::IO_DEVICE)).unwrap();
        // What cannot be cleared is the failure of the statement.
        let clear = device.get_command(TEST_TIMEOUT).unwrap();
        assert_eq!(clear.code(), CommandCode::CLEAR_ERROR);
        clear.complete(Completion::failed(CompletionCode::NOT_SUPPORTED)).unwrap();
        device.get_command(TEST_TIMEOUT).unwrap_err().code()
    });
    let outcome = bench.sql(&copy_statement("sales", "copy", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["Msg 3203,", "ClearError failed too", "Read on \"nightly\" failed: 1117("]);
    assert_eq!(script.result(), [VdError::Abort]);
    bench.assert_databases(&[]);
}

/// A backup whose client answers the first command of this kind in its own way. The rest of the set is aborted.
#[track_caller]
fn spoilt_backup(at: CommandCode, answer: fn(&RawDevice, &RawCommand), texts: &[&str]) {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let script = bench.scripted("nightly", &config(2), move |device, _| {
        let device = RawDevice::new(device);
        loop {
            match device.get_command(TEST_TIMEOUT) {
                Ok(command) if command.code == at => answer(&device, &command),
                Ok(command) => {
                    let _ = device.complete_command(command.id, CompletionCode::SUCCESS, command.size as u64, 0);
                }
                Err(end) => return end.code(),
            }
        }
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 2, "")).outcome();
    outcome.assert_failure(texts);
    assert_eq!(script.result(), [VdError::Abort; 2]);
    bench.assert_nothing_left();
    bench.assert_name_is_free("nightly");
}

#[test]
fn a_write_that_succeeded_with_fewer_bytes_fails_the_backup() {
    let short = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::SUCCESS, command.size as u64 - 1, 0);
    };
    spoilt_backup(CommandCode::WRITE, short, &["Msg 3202,", "112("]);
    let none = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::SUCCESS, 0, 0);
    };
    spoilt_backup(CommandCode::WRITE, none, &["Msg 3202,", "112("]);
}

/// Whoever reads a file and finds that one device stored less than it said gives the data to the other one. At the end the first is
/// waited for, though nothing of it is outstanding any more: on tapes, before the mark, a backup waited so for ever.
#[test]
fn a_write_of_data_that_succeeded_with_fewer_bytes_on_one_device_of_two_fails_the_backup() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    for features in [Features::TAPE, Features::NONE] {
        let asked = VdConfig { features: features | Features::REQUEST_COMPLETE, ..config(2) };
        for _ in 0..15 {
            let missing = AtomicU64::new(1);
            let script = bench.scripted("nightly", &asked, move |device, _| {
                let device = RawDevice::new(device);
                loop {
                    let command = match device.get_command(TEST_TIMEOUT) {
                        Ok(command) => command,
                        Err(end) => return end.code(),
                    };
                    // Headers are shorter.
                    let of_data = command.code == CommandCode::WRITE && command.size > 32_768;
                    let missing = if of_data { missing.swap(0, Ordering::Relaxed) } else { 0 };
                    let bytes = command.size as u64 - missing;
                    let _ = device.complete_command(command.id, CompletionCode::SUCCESS, bytes, 0);
                }
            });
            let statement = backup_statement("sales", "nightly", 2, "MAXTRANSFERSIZE = 65536");
            let outcome = bench.sql(&statement).outcome();
            outcome.assert_failure(&["Msg 3202,", "112("]);
            assert_eq!(script.result(), [VdError::Abort; 2]);
        }
    }
}

#[test]
fn a_write_that_fails_fails_the_backup_with_its_code() {
    let full = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::DISK_FULL, 512, 0);
    };
    spoilt_backup(CommandCode::WRITE, full, &["Msg 3202,", "failed: 112(There is not enough space on the disk.)"]);
    let end = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::EOM_OVERFLOW, 0, 0);
    };
    spoilt_backup(CommandCode::WRITE, end, &["Msg 3202,", "failed: 1129("]);
    let unheard_of = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::new(0xdead_beef), 0, 0);
    };
    spoilt_backup(CommandCode::WRITE, unheard_of, &["Msg 3202,", "0xDEADBEEF("]);
}

#[test]
fn a_flush_that_is_not_supported_fails_the_backup() {
    let refuse = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::NOT_SUPPORTED, 0, 0);
    };
    spoilt_backup(CommandCode::FLUSH, refuse, &["Msg 3271,", "flush on device", "50("]);
}

#[test]
fn a_complete_that_fails_fails_the_backup() {
    let refuse = |device: &RawDevice, command: &RawCommand| {
        let _ = device.complete_command(command.id, CompletionCode::IO_DEVICE, 0, 0);
    };
    spoilt_backup(CommandCode::COMPLETE, refuse, &["Msg 3271,", "complete on device", "1117("]);
}

/// A backup whose client does something to a device, or to its first command.
#[track_caller]
fn abandoned_backup(act: fn(ClientVirtualDevice), texts: &[&str]) {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let script = bench.scripted("nightly", &config(2), move |device, index| match index {
        0 => act(device),
        _ => drop(obey(device)),
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 2, "")).outcome();
    outcome.assert_failure(&["Msg 3202,", "995("]);
    outcome.assert_failure(texts);
    script.result();
    bench.assert_nothing_left();
    bench.assert_name_is_free("nightly");
}

#[test]
fn a_command_that_is_dropped_fails_the_backup() {
    let drop_a_command = |mut device: ClientVirtualDevice| {
        drop(device.get_command(TEST_TIMEOUT).unwrap());
        while device.get_command(INFINITE).is_ok() {}
    };
    abandoned_backup(drop_a_command, &["Msg 3202,"]);
}

#[test]
fn a_device_that_is_dropped_fails_the_backup() {
    abandoned_backup(drop, &["the primary client dropped a device that was still open"]);
}

#[test]
fn a_device_dropped_while_its_command_is_held_fails_the_backup() {
    let act = |mut device: ClientVirtualDevice| {
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        drop(device);
        assert_eq!(command.complete(Completion::transferred(0)).unwrap_err().error.code(), VdError::Abort);
    };
    abandoned_backup(act, &["the primary client dropped a device that was still open"]);
}

#[test]
fn a_client_that_aborts_or_closes_fails_the_backup() {
    for (close, text) in
        [(false, "the primary client called SignalAbort"), (true, "the primary client closed the set before")]
    {
        let bench = Bench::new();
        bench.database("sales", 700_000);
        let set = bench.create("nightly", &config(1));
        let statement = bench.sql(&backup_statement("sales", "nightly", 1, ""));
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let mut device = set.open_device("nightly").unwrap();
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        if close {
            assert_eq!(set.close().unwrap_err().code(), VdError::Open);
        } else {
            set.signal_abort().unwrap();
        }
        // What is held stays mapped until it is dropped.
        assert!(!command.data().is_empty());
        statement.outcome().assert_failure(&["Msg 3202,", "995(", text]);
    }
}

#[test]
fn a_client_that_closes_without_opening_its_devices_fails_the_backup() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let set = bench.create("nightly", &config(1));
    let statement = bench.sql(&backup_statement("sales", "nightly", 1, ""));
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let closed = set.close();
    statement.outcome().assert_failure(&["Msg 3202,", "the primary client closed the set before"]);
    // No device was open in this process, so by the table this is no error of the call.
    closed.unwrap();
}

#[test]
fn a_client_that_does_not_answer_is_given_up_after_its_time_out() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let asked = VdConfig { server_time_out: 100, ..config(1) };
    let script = bench.scripted("nightly", &asked, |mut device, _| {
        let _held = device.get_command(TEST_TIMEOUT).unwrap();
        let mut more = Vec::new();
        loop {
            match device.get_command(INFINITE) {
                Ok(command) => more.push(command),
                Err(end) => return end.to_string(),
            }
        }
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["Msg 3202,", "the server waited longer than serverTimeOut allows"]);
    let end = script.result().remove(0);
    assert!(end.contains("VD_E_ABORT") && end.contains("raise serverTimeOut"), "{end}");
}
