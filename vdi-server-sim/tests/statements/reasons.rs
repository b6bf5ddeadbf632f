//! Both sides of a set learn why it ended: the statement's messages have the client's reason, the client's errors have the
//! server's.

use std::fs;

use vdi_client::{ClientVirtualDeviceSet, CompletionCode, INFINITE, VdConfig, VdError};

use crate::common::TEST_TIMEOUT;
use crate::common::bench::Bench;
use crate::common::client::{backup_statement, config, copy_statement, stripe};
use crate::common::databases::set_len;
use crate::common::examples::example;

/// What the client is told when the server gives up.
const GAVE_UP: &str = "the set was aborted: the server gave up: ";

/// A statement that fails for a reason of the server's: parts of its messages, and parts of what the client is told.
#[track_caller]
fn fails(bench: &Bench, statement: &str, devices: u32, reading: bool, messages: &[&str], told: &[&str]) {
    let agent = match reading {
        true => bench.reading_agent("nightly", &config(devices)),
        false => bench.writing_agent("nightly", &config(devices)),
    };
    bench.sql(statement).outcome().assert_failure(messages);
    let error = agent.result().expect_err("a set that was aborted").to_string();
    for text in [GAVE_UP].iter().chain(told) {
        assert!(error.contains(text), "{statement}: the client is told {error:?}, without {text:?}");
    }
    assert!(!error.contains("run the statement again"), "{error}");
}

#[test]
fn the_client_learns_why_the_server_gave_a_backup_up() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let backup = |count, options| backup_statement("sales", "nightly", count, options);
    fails(&bench, &backup(2, ""), 1, false, &["names 2 devices"], &["names 2 devices", "created the set with 1"]);
    fails(&bench, &backup(1, ""), 2, false, &["names 1 devices"], &["names 1 devices", "created the set with 2"]);
    fails(
        &bench,
        &backup(1, "BUFFERCOUNT = 100000"),
        1,
        false,
        &["100002 buffers are more", "lower BUFFERCOUNT or MAXTRANSFERSIZE"],
        &["100002 buffers are more", "lower BUFFERCOUNT or MAXTRANSFERSIZE"],
    );
    bench.assert_output(&[]);
    bench.assert_name_is_free("nightly");
}

#[test]
fn the_client_learns_why_the_server_gave_a_restore_up() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    bench.back_up("sales", 2, "");
    let restore = |count, options| copy_statement("sales", "copy", "nightly", count, options);
    fails(
        &bench,
        &restore(2, "BLOCKSIZE = 4096"),
        2,
        true,
        &["Msg 3272,"],
        &["BLOCKSIZE = 512", "restore WITH BLOCKSIZE = 512"],
    );
    fails(&bench, &restore(1, ""), 1, true, &["Msg 3132,"], &["2"]);
    // The backup is cut off, then foreign.
    let file = stripe(&bench.out(), 0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    fails(&bench, &restore(2, ""), 2, true, &["nightly"], &["nightly"]);
    fs::write(&file, vec![7; 200_000]).unwrap();
    fails(&bench, &restore(2, ""), 2, true, &["nightly"], &["nightly"]);
    bench.assert_databases(&["sales"]);
}

/// A file of the database vanishes while the backup runs.
#[test]
fn the_client_learns_of_a_read_error_of_the_database() {
    let bench = Bench::new();
    bench.database("sales", 4_000_000);
    let set = bench.create("nightly", &config(1));
    let statement = bench.sql(&backup_statement("sales", "nightly", 1, "BUFFERCOUNT = 1"));
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    bench.databases().files("sales").iter().for_each(|file| set_len(file, 1));
    held.complete(vdi_client::Completion::failed(CompletionCode::IO_DEVICE)).map_err(|error| error.error).unwrap();
    let end = loop {
        match device.get_command(INFINITE) {
            Ok(command) => {
                let bytes = if command.code().is_transfer() { command.data().len() } else { 0 };
                let done = match command.code().is_transfer() {
                    true => vdi_client::Completion::transferred(bytes),
                    false => vdi_client::Completion::done(),
                };
                // The server may be faster.
                let _ = command.complete(done);
            }
            Err(end) => break end.to_string(),
        }
    };
    statement.outcome().assert_failure(&["sales"]);
    assert!(end.contains(GAVE_UP) && end.contains("sales"), "{end}");
}

/// The client has no memory for the buffers. Its own error and the statement say so.
#[test]
fn a_client_without_memory_for_the_buffers_is_named_on_both_sides() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let mut agent = std::process::Command::new("sh");
    agent.args(["-c", "ulimit -v 300000; exec \"$0\" \"$@\""]).arg(example("agent"));
    agent.arg("nightly").arg(bench.out().join("sales.bak"));
    let agent = bench.run(agent);
    let options = "BUFFERCOUNT = 200, MAXTRANSFERSIZE = 4194304";
    let statement = backup_statement("sales", "nightly", 1, options);
    let statement = bench.sql_with(&statement, |command| _ = command.args(["--wait", "60"])).outcome();
    let client = agent.outcome().text;
    for text in ["VD_E_MEMORY", "Cannot allocate memory", "ulimit -v"] {
        assert!(statement.text.contains(text), "{statement:#?}");
        assert!(client.contains(text), "{client}");
    }
    assert!(!statement.status.success() && client.contains(GAVE_UP), "{client}");
}

#[test]
fn the_statement_has_the_reason_of_the_client() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let set = bench.create("nightly", &config(1));
    let statement = bench.sql(&backup_statement("sales", "nightly", 1, ""));
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let reason = "/backup/sales.bak: access is denied\nto user 7";
    set.signal_abort_because(CompletionCode::new(5), reason).unwrap();
    let told = "the primary client gave up: /backup/sales.bak: access is denied to user 7";
    statement.outcome().assert_failure(&[told]);
    let own = set.get_configuration(TEST_TIMEOUT).unwrap_err();
    assert_eq!(own.code(), VdError::Abort);
    assert!(own.to_string().contains(told), "{own}");
    set.close().unwrap();
}

/// A server comes to a set that its client has aborted. It learns why, and the client learns that it came.
#[test]
fn a_server_that_comes_after_an_abort_learns_why() {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    let set = bench.create("nightly", &config(1));
    set.signal_abort_because(CompletionCode::DISK_FULL, "the disk is full").unwrap();
    let told = "the primary client gave up: the disk is full";
    bench
        .sql(&backup_statement("sales", "nightly", 1, ""))
        .outcome()
        .assert_failure(&[told, "have its client create a new one"]);
    let error = set.get_configuration(TEST_TIMEOUT).unwrap_err().to_string();
    for text in [told, "tried to join as the server and was refused: VD_E_ABORT: the set was aborted before"] {
        assert!(error.contains(text), "{error}");
    }
    set.close().unwrap();
}

/// GetConfiguration says where it waited, and what came.
#[test]
fn a_time_out_of_get_configuration_says_where_it_waited() {
    let bench = Bench::new();
    let time_out = |set: &ClientVirtualDeviceSet| {
        let error = set.get_configuration(std::time::Duration::ZERO).unwrap_err();
        assert_eq!(error.code(), VdError::Timeout);
        error.to_string()
    };
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    set.create_ex(Some("PROD"), "nightly", &VdConfig::default()).unwrap();
    let error = time_out(&set);
    let user = format!("uid {}", rustix::process::geteuid().as_raw());
    let socket = bench.runtime().join("nightly");
    for text in [
        "within 0 s",
        &socket.to_string_lossy(),
        "set \"nightly\"",
        "instance \"PROD\"",
        &user,
        "no process has tried to join",
        "letter case",
        "VDI_RUNTIME_DIR, else XDG_RUNTIME_DIR, else TMPDIR",
        "VDI_ALLOW_UID",
    ] {
        assert!(error.contains(text), "{error:?} without {text:?}");
    }
    set.close().unwrap();

    // A server that is there, and one that is too many.
    let set = bench.create("nightly", &config(1));
    let server = vdi_server_sim::vds::ServerVirtualDeviceSet::with_options(bench.options());
    server.open("", "nightly").unwrap();
    let me = format!("{user} (process {})", std::process::id());
    let second = vdi_server_sim::vds::ServerVirtualDeviceSet::with_options(bench.options());
    let refused = second.open("", "nightly").unwrap_err().to_string();
    assert!(refused.contains(&format!("VD_E_INVALID: the set has a server: {me}")), "{refused}");
    let error = time_out(&set);
    let tried = format!("{me} tried to join as the server and was refused: VD_E_INVALID: the set has a server: {me}");
    for text in [&format!("{me} has joined as the server"), &tried, "look at the messages of the statement"] {
        assert!(error.contains(text), "{error:?} without {text:?}");
    }
    server.close().unwrap();
    set.close().unwrap();
}
