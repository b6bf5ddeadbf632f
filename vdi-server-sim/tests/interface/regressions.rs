//! Defects that were found and mended, each by its name.

use crate::common;

use std::process::Command as Program;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement};
use common::processes::run_role;
use common::server::{BUFFER, Server, pair};
use common::tasks::task;
use common::{TEST_TIMEOUT, eventually};
use vdi_client::media::{Media, StreamMedia};
use vdi_client::raw::RawDevice;
use vdi_client::workers::{WorkerPool, serve};
use vdi_client::{
    ClientVirtualDevice, ClientVirtualDeviceSet, Command, CommandCode, Completion, CompletionCode, Features, INFINITE,
    VdConfig, VdError,
};
use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::config::ServerTerms;
use vdi_proto::set::client::State;
use vdi_server_sim::vds::{Completed, ServerVirtualDeviceSet, VdsCommand};
use vdi_shm::set::secondary::Secondary;

#[test]
fn child_entry() {
    run_role(&[]);
}

/// A disk-like set was served as if it were pipe-like: every Write went to position 0, and the backup was reported as good.
#[test]
fn writes_of_disk_like_sets_carry_their_positions() {
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    let disk = VdConfig { features: Features::RANDOM_ACCESS, ..config(1) };
    let script = bench.scripted("nightly", &disk, |mut device, _| {
        let mut end = 0;
        while let Ok(command) = device.get_command(INFINITE) {
            let completion = match command.code() {
                CommandCode::SET_POSITION => Completion::at(command.position()),
                CommandCode::WRITE => {
                    assert_eq!(command.position(), end);
                    end += command.data().len() as u64;
                    Completion::transferred(command.data().len())
                }
                _ => Completion::done(),
            };
            command.complete(completion).unwrap();
        }
        end
    });
    bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome().assert_success();
    assert!(script.result()[0] > 1_000_000);
}

/// A statement that failed before the configuration told the client nothing, who waited for ever.
#[test]
fn a_client_hears_of_a_failure_before_the_configuration() {
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    let set = bench.create("nightly", &config(1));
    let waiting = task("a client that waits", move || set.get_configuration(INFINITE).map(drop));
    bench.sql(&backup_statement("sales", "nightly", 2, "")).outcome().assert_failure(&["Msg 3261,"]);
    let error = waiting.result().unwrap_err();
    assert_eq!(error.code(), VdError::Abort);
    assert!(error.to_string().contains("the server gave up: the statement names 2 devices"), "{error}");
    bench.assert_nothing_left();
}

/// A device whose opener had left in order had nobody to answer it, and the server waited for ever.
#[test]
fn a_secondary_that_leaves_with_a_device_open_ends_the_set() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::open(&bench, "nightly", 2);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let secondary = Secondary::join(&bench.options(), "", "nightly").unwrap();
    let number = secondary.session().member();
    let control = secondary.client_control();
    assert!(control.open_device(control.device(1).unwrap()).unwrap().is_some());
    drop(secondary);
    let session = server.set.session().unwrap();
    let expected = AbortReason { process: Process::Secondary(number), cause: Cause::AbandonedDevice };
    eventually("the set is aborted", || match session.abort_reason() {
        Some(reason) if reason == expected => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The buffer of a command that CloseDevice had ended was lent again while the client still held it, and the server was accused
/// of breaking the protocol.
#[test]
fn a_buffer_of_a_closed_device_is_not_lent_again() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::with_features(&bench, "nightly", 2, Features::WRITE_MEDIA);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut first = set.open_device("nightly").unwrap();
    let mut second = set.open_device(server.devices[1].name()).unwrap();
    server.write(0, 1);
    let held = first.get_command(TEST_TIMEOUT).unwrap();
    server.devices[0].close_device().unwrap();
    let ended = server.ended();
    assert_eq!((ended.code, ended.buffer.is_none()), (CompletionCode::OPERATION_ABORTED, true));
    // All buffers that there are go round more than once on the other device.
    for byte in 2..20 {
        server.write(1, byte);
        let command = second.get_command(TEST_TIMEOUT).unwrap();
        assert_eq!(command.data()[0], byte);
        command.complete(Completion::transferred(BUFFER as usize)).unwrap();
        assert!(server.ended().code.is_success());
    }
    assert_eq!(held.data()[0], 1, "nobody wrote into it");
    held.complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert!(first.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    assert_eq!(server.set.session().unwrap().abort_reason(), None);
    server.devices[1].close_device().unwrap();
    assert!(second.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    server.set.close().unwrap();
}

/// A client that aborted after the end made the server's agent report a failure of what had ended well.
#[test]
fn an_abort_after_every_device_was_closed_is_no_failure() {
    let bench = Bench::new();
    let (set, mut server, mut device) = pair(&bench);
    server.devices[0].close_device().unwrap();
    assert!(device.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    set.signal_abort().unwrap();
    server.set.close().unwrap();
    assert!(server.agent_ended());
}

/// Two threads that ended the configuration at once made one of them panic.
#[test]
fn of_two_threads_that_end_the_configuration_one_is_refused() {
    let bench = Bench::new();
    for round in 0..20 {
        let name = format!("nightly {round}");
        let _client = bench.create(&name, &config(1));
        let server = Arc::new(ServerVirtualDeviceSet::with_options(bench.options()));
        server.open("", &name).unwrap();
        server.begin_configuration(&ServerTerms::default(), TEST_TIMEOUT).unwrap();
        server.request_buffers(BUFFER, 0, 1).unwrap();
        let start = Arc::new(Barrier::new(2));
        let ending = [0, 1].map(|_| {
            let (server, start) = (Arc::clone(&server), Arc::clone(&start));
            task("one that ends the configuration", move || {
                start.wait();
                server.end_configuration().map_err(|error| error.code)
            })
        });
        let mut results = ending.map(|task| task.result().map(drop));
        results.sort_by_key(Result::is_err);
        assert_eq!(results, [Ok(()), Err(VdError::Protocol)]);
    }
}

/// A block that was completed, or never was a command, answered VD_E_INVALID also when the set was aborted or closed.
#[test]
fn a_stale_block_answers_by_the_sets_state() {
    let bench = Bench::new();
    let (set, server, device) = pair(&bench);
    let device = RawDevice::new(device);
    server.plain(0, CommandCode::FLUSH);
    let block = device.get_command(TEST_TIMEOUT).unwrap();
    let complete = || device.complete_command(block.id, CompletionCode::SUCCESS, 0, 0).map_err(|error| error.code());
    assert_eq!(complete(), Ok(()));
    assert_eq!(complete(), Err(VdError::Invalid));
    set.signal_abort().unwrap();
    assert_eq!(complete(), Err(VdError::Abort));
    set.close().unwrap();
    assert_eq!(complete(), Err(VdError::Protocol));
}

/// A worker that is no worker: what a shell makes of its pipes.
fn pool(script: &str) -> WorkerPool {
    let mut worker = Program::new("sh");
    worker.args(["-c", script]);
    WorkerPool::start([worker]).unwrap()
}

/// A worker that answered what nobody had asked was left running, and waited for without end.
#[test]
fn a_worker_that_answers_nonsense_is_killed_and_its_commands_are_aborted() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    // Reads the request, answers another one, and would not end by itself.
    let pool = pool("head -c 32 > /dev/null; printf 0123456789abcdef01234567; exec sleep 1000");
    let driving = task("a device's driver", move || {
        let outcome = pool.drive(&mut device, 0, |_| {}).map(drop).map_err(|error| error.to_string());
        (outcome, pool.finish().unwrap())
    });
    server.read(0);
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    let closed = server.devices[0].close_device().unwrap_err();
    assert!(closed.to_string().contains("gave up: device \"nightly\": the worker process is gone"), "{closed}");
    let (outcome, ended) = driving.result();
    assert!(outcome.unwrap_err().contains("the worker process is gone"));
    assert!(ended.iter().all(|status| !status.unwrap().success()), "{ended:?}");
}

/// A worker whose primary was gone spoke of a broken pipe, whatever the set knew of it.
#[test]
fn a_worker_tells_why_its_pipe_broke() {
    struct Broken(Arc<ClientVirtualDeviceSet>);
    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            self.0.signal_abort().unwrap();
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bench = Bench::new();
    let (set, _server, _device) = pair(&bench);
    let worker = ClientVirtualDeviceSet::with_options(bench.options());
    worker.open_in_secondary("nightly").unwrap();
    // The request to close a medium.
    let media = |_| Ok(Box::new(StreamMedia::sink(std::io::sink())) as Box<dyn Media>);
    let error = serve(&worker, &[0; 32][..], Broken(set), media).unwrap_err();
    assert_eq!(error.code(), VdError::Abort);
    assert!(error.to_string().contains("the primary client called SignalAbort"), "{error}");
}

/// Who came to a set that had been aborted was told so, but not why.
#[test]
fn who_joins_a_set_that_was_aborted_is_told_why() {
    let bench = Bench::new();
    let (_set, server, _device) = pair(&bench);
    server.set.signal_abort().unwrap();
    let late = ClientVirtualDeviceSet::with_options(bench.options());
    let error = late.open_in_secondary("nightly").unwrap_err();
    assert_eq!(error.code(), VdError::Abort);
    assert!(error.to_string().contains("the server called SignalAbort"), "{error}");
}

/// A worker that never answered the last request of its device held the primary for ever, whatever became of the set.
#[test]
fn a_worker_that_is_silent_at_the_end_does_not_outlast_an_abort() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let pool = pool("cat > /dev/null");
    let driving = task("a device's driver", move || pool.drive(&mut device, 0, |_| {}).map(drop));
    server.devices[0].close_device().unwrap();
    eventually("the device has returned VD_E_CLOSE", || match set.state() {
        State::NormallyTerminated => Ok(()),
        other => Err(format!("{other:?}")),
    });
    set.signal_abort().unwrap();
    assert_eq!(driving.result().unwrap_err().code(), VdError::Abort);
}

/// A command was carried out.
fn succeeded(command: &Command) -> Completion {
    if command.code().is_transfer() { Completion::transferred(command.data().len()) } else { Completion::done() }
}

/// What a device was written until its end; whatever else comes is answered with success.
fn store(mut device: ClientVirtualDevice) -> Vec<u8> {
    let mut stored = Vec::new();
    while let Ok(command) = device.get_command(TEST_TIMEOUT) {
        stored.extend_from_slice(command.data());
        let completion = succeeded(&command);
        if command.complete(completion).is_err() {
            break;
        }
    }
    stored
}

/// The sizes of the Writes that a device got until its end; all commands are answered with success.
fn write_sizes(mut device: ClientVirtualDevice) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Ok(command) = device.get_command(TEST_TIMEOUT) {
        if command.code() == CommandCode::WRITE {
            sizes.push(command.data().len());
        }
        let completion = succeeded(&command);
        if command.complete(completion).is_err() {
            break;
        }
    }
    sizes
}

/// A tape that answered every Read with a filemark, and without a byte, kept the restore going for ever.
#[test]
fn a_tape_of_nothing_but_filemarks_ends_the_restore() {
    const ENDLESS: u64 = 1000;
    let tape = VdConfig { features: Features::TAPE, ..config(1) };
    let bench = Bench::new();
    bench.database("sales", 200_000);
    let script = bench.scripted("nightly", &config(1), |device, _| store(device));
    bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome().assert_success();
    let stored = script.result().remove(0);
    for options in ["", "SNAPSHOT"] {
        let header = stored[..512].to_vec();
        let script = bench.scripted("nightly", &tape, move |mut device, _| {
            let (mut marks, mut place, mut begun) = (0, 0, false);
            while let Ok(mut command) = device.get_command(TEST_TIMEOUT) {
                place += 1;
                let completion = match command.code() {
                    // The beginning of the label.
                    CommandCode::READ if !std::mem::replace(&mut begun, true) => {
                        command.data_mut()[..512].copy_from_slice(&header);
                        Completion::transferred(512)
                    }
                    CommandCode::READ if marks == ENDLESS => break,
                    CommandCode::READ => {
                        marks += 1;
                        Completion::failed(CompletionCode::FILEMARK_DETECTED)
                    }
                    CommandCode::GET_POSITION => Completion::at(place),
                    CommandCode::SET_POSITION => Completion::at(command.position()),
                    _ => Completion::done(),
                };
                command.complete(completion).unwrap();
            }
            marks
        });
        let statement = bench.sql(&copy_statement("sales", "copy", "nightly", 1, options));
        let marks = script.result()[0];
        assert!(marks < ENDLESS, "{options}: {marks} filemarks in a row");
        statement.outcome().assert_failure(&["Msg 3203,", "failed: 1101("]);
    }
}

/// A queue that was full refused Discard, so that the client never heard of it; and Writes came after it.
#[test]
fn discard_comes_behind_a_full_queue_and_nothing_comes_behind_discard() {
    let bench = Bench::new();
    bench.database("sales", 8_000_000);
    let asked = VdConfig { features: Features::DISCARD, ..config(1) };
    for round in 0..10 {
        let script = bench.scripted("nightly", &asked, |mut device, _| {
            // The headers.
            let command = device.get_command(TEST_TIMEOUT).unwrap();
            let completion = succeeded(&command);
            command.complete(completion).unwrap();
            // As many as the server sends while none completes; the readers have filled all other buffers meanwhile.
            let mut held = Vec::new();
            while let Ok(command) = device.get_command(Duration::from_millis(100)) {
                held.push(command);
            }
            // A buffer for the reader that will fail, and room for another Write.
            let data = held.pop().unwrap();
            let completion = succeeded(&data);
            data.complete(completion).unwrap();
            let mut seen = Vec::new();
            let mut patience = TEST_TIMEOUT;
            while let Ok(command) = device.get_command(patience) {
                seen.push(command.code());
                if command.code() == CommandCode::DISCARD {
                    // Whatever is sent behind it comes while the server waits for the answer.
                    patience = Duration::from_millis(100);
                }
                held.push(command);
            }
            (held.len(), seen)
        });
        let statement = bench.sql_with(&backup_statement("sales", "nightly", 1, "BUFFERCOUNT = 80"), |program| {
            program.args(["--fault", "read-error=81"]);
        });
        statement.outcome().assert_failure(&["os error 5"]);
        let (held, seen) = script.result().remove(0);
        assert_eq!(seen.last(), Some(&CommandCode::DISCARD), "round {round}: {held} commands, at last {seen:?}");
    }
}

/// Which sizes a seed gave to the pieces of a backup depended on which reader came first.
#[test]
fn the_same_seed_cuts_a_backup_into_the_same_pieces() {
    let bench = Bench::new();
    bench.database("sales", 20_000_000);
    let pieces = || {
        let script = bench.scripted("nightly", &config(1), |device, _| write_sizes(device));
        let statement = backup_statement("sales", "nightly", 1, "NO_CHECKSUM, BUFFERCOUNT = 64");
        let options = ["--fault", "small-transfers", "--seed", "7"];
        bench
            .sql_with(&statement, |program| {
                program.args(options);
            })
            .outcome()
            .assert_success();
        // The order is the readers' affair.
        let mut sizes = script.result().remove(0);
        sizes.sort_unstable();
        sizes
    };
    let first = pieces();
    for _ in 0..10 {
        assert_eq!(pieces(), first);
    }
}

/// Waits until a transcript has this.
#[track_caller]
fn wait_for_line(transcript: &std::path::Path, wanted: &str) {
    eventually(wanted, || {
        let text = std::fs::read_to_string(transcript).unwrap_or_default();
        if text.contains(wanted) { Ok(()) } else { Err(text) }
    });
}

/// A server that was told to be slow at the configuration sat its wait out, whatever became of the client.
#[test]
fn an_abort_ends_the_wait_of_a_slow_configuration() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    let transcript = bench.out().join("transcript");
    let set = bench.create("nightly", &config(1));
    let statement = bench.sql_with(&backup_statement("sales", "nightly", 1, ""), |program| {
        program.args(["--fault", "slow-configuration=3600000", "--transcript"]).arg(&transcript);
    });
    wait_for_line(&transcript, "set opened");
    set.signal_abort().unwrap();
    statement.outcome().assert_failure(&["Msg 3202,", "995(", "client called SignalAbort"]);
}

/// The event that told of a time-out named the one that the client had asked for, not the one that had passed.
#[test]
fn the_transcript_tells_which_time_out_has_passed() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    let transcript = bench.out().join("transcript");
    let script = bench.scripted("nightly", &config(1), |mut device, _| {
        let _held = device.get_command(TEST_TIMEOUT).unwrap();
        // No other comes, because the set is aborted.
        while device.get_command(TEST_TIMEOUT).is_ok() {}
    });
    let statement = bench.sql_with(&backup_statement("sales", "nightly", 1, ""), |program| {
        program.args(["--fault", "server-timeout=53", "--transcript"]).arg(&transcript);
    });
    statement.outcome().assert_failure(&["Msg 3202,", "995("]);
    script.result();
    wait_for_line(&transcript, "serverTimeOut passed: set nightly, server_time_out_ms 53");
}

/// A completion that came in before the set was closed, and was looked at after that, was held against the client.
#[test]
fn a_completion_that_meets_an_abort_is_no_breach_of_the_protocol() {
    let bench = Bench::new();
    let (_set, mut server, mut device) = pair(&bench);
    let session = server.set.session().unwrap();
    let (tell, entered) = channel();
    let (leave, left) = channel::<()>();
    let (tell, left) = (Mutex::new(tell), Mutex::new(left));
    let holding = Arc::new(move |_: Completed| {
        tell.lock().unwrap().send(()).unwrap();
        let _ = left.lock().unwrap().recv_timeout(TEST_TIMEOUT);
    });
    server.devices[0].send_command(VdsCommand::plain(CommandCode::FLUSH, holding)).unwrap();
    server.plain(0, CommandCode::FLUSH);
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::done()).unwrap();
    entered.recv_timeout(TEST_TIMEOUT).unwrap();
    // The agent is busy with the first, and has not seen the second yet.
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::done()).unwrap();
    server.set.signal_abort().unwrap();
    server.set.close().unwrap();
    assert_eq!(server.ended().code, CompletionCode::OPERATION_ABORTED);
    leave.send(()).unwrap();
    assert!(!server.agent_ended());
    assert_eq!(session.aborted().map(|abort| abort.to_string()).as_deref(), Some("the server called SignalAbort"));
}

/// A database that took the frozen one's place while the client copied files was backed up, and nobody said so.
#[test]
fn a_database_that_is_replaced_while_the_snapshot_is_taken_fails_the_backup() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    bench.database("other", 100_000);
    let [sales, other] = ["sales", "other"].map(|name| bench.databases().data_file(name, 0));
    let script = bench.scripted("nightly", &config(1), move |mut device, _| {
        loop {
            let command = match device.get_command(TEST_TIMEOUT) {
                Ok(command) => command,
                Err(end) => return end.code(),
            };
            if command.code() == CommandCode::SNAPSHOT {
                std::fs::rename(&other, &sales).unwrap();
            }
            let completion = succeeded(&command);
            command.complete(completion).unwrap();
        }
    });
    let statement = backup_statement("sales", "nightly", 1, "SNAPSHOT, NO_CHECKSUM");
    bench.sql(&statement).outcome().assert_failure(&["was replaced"]);
    assert_eq!(script.result(), [VdError::Abort]);
}

/// A server that aborted while it filled a queue waited for itself: whoever closed the set waited for completions that were
/// held back by whoever waited for the close.
#[test]
fn an_abort_in_a_burst_of_flushes_ends_the_statement() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    for round in 0..60 {
        let script = bench.scripted("nightly", &config(2), |device, _| store(device));
        let statement = bench.sql_with(&backup_statement("sales", "nightly", 2, ""), |program| {
            program.args(["--fault", "queue-full", "--fault", "abort-at=14", "--seed", &round.to_string()]);
        });
        statement.outcome().assert_failure(&["the server called SignalAbort"]);
        script.result();
    }
}

/// A close with a device open aborted the set first, and was marked as a close then: a thread that looked in between was told
/// of an abort by nobody.
#[test]
fn who_waits_while_its_set_is_closed_hears_of_the_close() {
    let bench = Bench::new();
    for round in 0..100 {
        let (set, server, mut device) = pair(&bench);
        let (ready, waits) = channel();
        let waiter = task("one that asks for commands", move || {
            loop {
                let _ = ready.send(());
                // Half of them look all the time, the others are woken.
                let time_out = if round % 2 == 0 { Duration::ZERO } else { INFINITE };
                let error = device.get_command(time_out).map(drop).unwrap_err();
                if error.code() != VdError::Timeout {
                    return error.code();
                }
            }
        });
        waits.recv().unwrap();
        assert_eq!(set.close().unwrap_err().code(), VdError::Open);
        assert_eq!(waiter.result(), VdError::Protocol, "round {round}");
        drop(server);
    }
}
