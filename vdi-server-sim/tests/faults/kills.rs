//! SIGKILL: whichever process of a set dies in whatever state, the others hear of it at once and by name, the statement
//! fails, nothing stays behind, and the name is free again.

use crate::common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, device_name, restore_statement, stripe};
use common::processes::{Part, RoleContext, run_role};
use common::{TEST_TIMEOUT, eventually, now_ns};
use rusqlite::Connection;
use vdi_client::media::{FileMedia, Media};
use vdi_client::{ClientVirtualDevice, ClientVirtualDeviceSet, Completion, Error, INFINITE, VdConfig};
use vdi_proto::command::CommandCode;
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_server_sim::catalog;
use vdi_server_sim::vds::{Completed, ServerVirtualDeviceSet, VdsCommand};

/// How long the death of one process may stay unknown to the others.
const LIMIT: Duration = Duration::from_millis(200);

/// The set of all these tests, of two devices: the primary has the first, a secondary the second.
const SET: &str = "mortal";
const DEVICES: u32 = 2;

#[test]
fn child_entry() {
    run_role(&[
        ("killed server", server),
        ("killed client", client),
        ("killed worker", worker),
        ("killed agent", agent),
        ("reader", reader),
        ("finisher", finisher),
    ]);
}

/// Says when a party heard of the end, and how.
fn say_ended(stage: &RoleContext, outcome: Result<String, (u32, String)>) {
    let now = now_ns();
    match outcome {
        Ok(well) => stage.say(&format!("ended {now} 0 {well}")),
        Err((code, text)) => stage.say(&format!("ended {now} {code} {text}")),
    }
}

fn say_error(stage: &RoleContext, error: &Error) {
    say_ended(stage, Err((error.code().hresult(), error.to_string())));
}

/// A server that goes as far as it is told: `connected`, `begun`, `configured`, `running`, `commanded`.
fn server(stage: &RoleContext) {
    let far = ["connected", "begun", "configured", "running", "commanded"];
    let far = far.iter().position(|name| *name == stage.argument(0)).unwrap();
    let set = Arc::new(ServerVirtualDeviceSet::new());
    set.open("", SET).unwrap();
    if far >= 1 {
        let terms = ServerTerms { features: Features::READ_MEDIA, ..ServerTerms::default() };
        set.begin_configuration(&terms, TEST_TIMEOUT).unwrap();
        set.request_buffers(65536, 0, 4).unwrap();
    }
    if far >= 2 {
        set.end_configuration().unwrap();
    }
    let mut devices = Vec::new();
    if far >= 3 {
        devices.extend((0..DEVICES).map(|index| set.open_device(&device_name(SET, index)).unwrap()));
    }
    let session = set.session().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.report_blocking("waiting");
            let ended = if far >= 3 {
                set.execute_completion_agent()
            } else {
                vdi_shm::ipc::wait::wait_until(session.control().set_event(), None, || session.abort_reason());
                set.get_configuration().map(drop)
            };
            say_ended(
                stage,
                ended.map(|()| "closed".to_owned()).map_err(|error| (error.code.hresult(), error.to_string())),
            );
        });
        if far >= 4 {
            // The agent has to run before anything is sent; that it does shows in the first completion only, and nobody
            // completes anything here.
            for device in &devices {
                let buffer = set.allocate_buffer(65536, 0).unwrap();
                let routine = Arc::new(|_: Completed| {});
                device.send_command(VdsCommand::transfer(CommandCode::READ, buffer, 65536, routine)).unwrap();
            }
        }
        while let Some(order) = stage.next_order() {
            match &*order {
                "close devices" => {
                    devices.iter().for_each(|device| device.close_device().unwrap());
                    stage.say("devices closed");
                }
                "close" => set.close().unwrap(),
                _ => panic!("{order}"),
            }
        }
        // Whoever still waits is not to wait for ever.
        drop(set.close());
    });
}

/// A client, `primary` or `secondary`, that goes as far as it is told (`created`, `initializing`, `idle`, `holding`, `closed`)
/// and then waits in the call that belongs there. The third argument is its device's index.
fn client(stage: &RoleContext) {
    let (role, far, index) = (stage.argument(0), stage.argument(1), stage.number(2));
    let set = ClientVirtualDeviceSet::new();
    if role == "primary" {
        set.create(SET, &config(DEVICES)).unwrap();
        stage.say("created");
        if far == "created" {
            stage.report_blocking("waiting");
            return say_error(stage, &set.get_configuration(INFINITE).unwrap_err());
        }
        set.get_configuration(TEST_TIMEOUT).unwrap();
        stage.say("admitting");
    } else {
        set.open_in_secondary(SET).unwrap();
    }
    if far == "initializing" {
        stage.report_blocking("waiting");
        return say_error(stage, &set.open_device(&device_name(SET, index)).unwrap_err());
    }
    let mut device: ClientVirtualDevice = set.open_device(&device_name(SET, index)).unwrap();
    let mut held = Vec::new();
    if far == "holding" {
        held.push(device.get_command(TEST_TIMEOUT).unwrap());
    }
    stage.report_blocking("waiting");
    let end = loop {
        match device.get_command(INFINITE) {
            Ok(command) => held.push(command),
            Err(end) => break end,
        }
    };
    if far != "closed" {
        return say_error(stage, &end);
    }
    assert!(end.is_close(), "{end}");
    stage.say("device closed");
    if stage.next_order().as_deref() == Some("close") {
        match set.close() {
            Ok(()) => say_ended(stage, Ok("closed".to_owned())),
            Err(error) => say_error(stage, &error),
        }
    }
}

/// A secondary without a device, which has no call that waits: it looks again and again.
fn worker(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary(SET).unwrap();
    stage.report_blocking("waiting");
    loop {
        match set.get_configuration(Duration::ZERO) {
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return say_error(stage, &error),
        }
    }
}

/// Who there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Server,
    Primary,
    Secondary,
    Worker,
}

impl Who {
    /// How the others are told of this one's death.
    fn obituary(self) -> &'static [&'static str] {
        match self {
            Who::Server => &["the server died"],
            Who::Primary => &["the primary client died"],
            Who::Secondary | Who::Worker => &["secondary client ", " died"],
        }
    }
}

/// All parties in a state, each waiting in its call.
fn assemble(bench: &Bench, server: &str, client: &str) -> Vec<(Who, Part)> {
    let primary = bench.part("killed client", &["primary", client, "0"]);
    primary.expect("created");
    let server = bench.part("killed server", &[server]);
    let mut cast = vec![(Who::Server, server), (Who::Primary, primary)];
    if client != "created" {
        cast[1].1.expect("admitting");
        cast.push((Who::Secondary, bench.part("killed client", &["secondary", client, "1"])));
        cast.push((Who::Worker, bench.part("killed worker", &[])));
    }
    for (who, part) in &cast {
        if *who == Who::Worker {
            part.expect("waiting");
        } else {
            part.wait_until_blocked("waiting");
        }
    }
    cast
}

/// Kills one, and lets the others tell when they heard of it, and how.
fn kill(cast: Vec<(Who, Part)>, victim: Who) -> Duration {
    let mut others = Vec::new();
    let mut killed_at = 0;
    for (who, mut part) in cast {
        if who == victim {
            killed_at = now_ns();
            part.process.kill();
        } else {
            others.push((who, part));
        }
    }
    let mut slowest = Duration::ZERO;
    for (who, part) in others {
        let ended = part.expect("ended");
        let mut words = ended.splitn(3, ' ');
        let (at, code): (u64, u32) = (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
        let text = words.next().unwrap();
        assert_eq!(code, 0x8077_0004, "{who:?} after the death of {victim:?}: {text}");
        for part in victim.obituary() {
            assert!(text.contains(part), "{who:?} does not name {victim:?}: {text}");
        }
        slowest = slowest.max(Duration::from_nanos(at.saturating_sub(killed_at)));
        part.end();
    }
    slowest
}

/// In this state, whoever dies: everybody hears of it within the limit, and nothing is left. A busy machine can make any single
/// try slow, so the best of three counts.
fn whoever_dies(server: &str, client: &str, victims: &[Who]) {
    let bench = Bench::new();
    for victim in victims {
        let mut tries = Vec::new();
        while tries.iter().all(|slowest| *slowest >= LIMIT) {
            assert!(tries.len() < 3, "the death of {victim:?} was heard of after {tries:?}");
            tries.push(kill(assemble(&bench, server, client), *victim));
            bench.assert_nothing_left();
        }
        bench.assert_name_is_free(SET);
    }
}

const ALL: [Who; 4] = [Who::Server, Who::Primary, Who::Secondary, Who::Worker];

#[test]
fn a_death_before_the_configuration_is_heard_of() {
    whoever_dies("connected", "created", &[Who::Server, Who::Primary]);
}

#[test]
fn a_death_during_the_configuration_is_heard_of() {
    whoever_dies("begun", "created", &[Who::Server, Who::Primary]);
}

#[test]
fn a_death_while_initializing_is_heard_of() {
    whoever_dies("configured", "initializing", &ALL);
}

#[test]
fn a_death_while_active_and_idle_is_heard_of() {
    whoever_dies("running", "idle", &ALL);
}

#[test]
fn a_death_while_commands_are_held_is_heard_of() {
    whoever_dies("commanded", "holding", &ALL);
}

#[test]
fn a_death_after_the_devices_were_closed_changes_nothing() {
    let bench = Bench::new();
    for victim in ALL {
        let mut cast = assemble(&bench, "running", "closed");
        cast[0].1.order("close devices");
        cast[0].1.expect("devices closed");
        cast[1].1.expect("device closed");
        cast[2].1.expect("device closed");
        let (_, mut dead) = cast.remove(ALL.iter().position(|who| *who == victim).unwrap());
        dead.process.kill();
        drop(dead);
        for (who, mut part) in cast {
            if who != Who::Worker {
                part.order("close");
                let ended = part.expect("ended");
                assert!(ended.ends_with(" 0 closed"), "{who:?} after the death of {victim:?}: {ended}");
                part.end();
            }
        }
        bench.assert_nothing_left();
        bench.assert_name_is_free(SET);
    }
}

#[test]
fn a_primary_that_dies_alone_leaves_its_name_free() {
    let bench = Bench::new();
    let mut primary = bench.part("killed client", &["primary", "created", "0"]);
    primary.expect("created");
    primary.wait_until_blocked("waiting");
    primary.process.kill();
    // Nobody is left to remove its socket; the next one who creates a set does.
    bench.assert_name_is_free(SET);
}

#[test]
fn everybody_dying_at_once_leaves_the_name_free() {
    let bench = Bench::new();
    for (_, mut part) in assemble(&bench, "commanded", "holding") {
        part.process.kill();
    }
    bench.assert_name_is_free(SET);
}

/// The clients of a statement, holding a command each: a primary with the first device, a secondary with the second, a worker.
fn clients(bench: &Bench, sql: &str) -> (common::processes::Statement, Vec<(Who, Part)>) {
    let primary = bench.part("killed client", &["primary", "holding", "0"]);
    primary.expect("created");
    let statement = bench.sql(sql);
    primary.expect("admitting");
    let secondary = bench.part("killed client", &["secondary", "holding", "1"]);
    let worker = bench.part("killed worker", &[]);
    worker.expect("waiting");
    primary.wait_until_blocked("waiting");
    secondary.wait_until_blocked("waiting");
    (statement, vec![(Who::Primary, primary), (Who::Secondary, secondary), (Who::Worker, worker)])
}

/// A statement one of whose clients is killed fails and says so, and so do the others.
fn a_statement_fails_when_a_client_dies(bench: &Bench, sql: &str, operation: &str) {
    for victim in [Who::Primary, Who::Secondary, Who::Worker] {
        let (statement, cast) = clients(bench, sql);
        kill(cast, victim);
        let outcome = statement.outcome();
        outcome.assert_failure(&[&format!("\n{operation} on \"{SET}\" failed: 995(")]);
        outcome.assert_failure(victim.obituary());
        bench.assert_nothing_left();
    }
    bench.assert_name_is_free(SET);
}

#[test]
fn a_backup_fails_when_a_client_dies() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    a_statement_fails_when_a_client_dies(&bench, &backup_statement("sales", SET, DEVICES, ""), "Write");
}

#[test]
fn a_restore_fails_when_a_client_dies() {
    let bench = Bench::new();
    bench.database("sales", 20_000);
    let before = bench.databases().image("sales");
    a_statement_fails_when_a_client_dies(&bench, &restore_statement("sales", SET, DEVICES, "REPLACE"), "Read");
    assert!(bench.databases().image("sales") == before);
}

#[test]
fn clients_hear_of_the_server_s_death_and_their_target_is_as_before() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    fs::write(stripe(&bench.out(), 0), b"old").unwrap();
    let primary = bench.part("killed agent", &[bench.out().to_str().unwrap()]);
    primary.expect("created");
    let mut statement = bench.sql(&backup_statement("sales", SET, 1, ""));
    primary.expect("half done");
    statement.process.kill();
    let ended = primary.expect("ended");
    assert!(ended.contains("VD_E_ABORT") && ended.contains("the server died"), "{ended}");
    primary.end();
    bench.assert_output(&["stripe-00"]);
    assert_eq!(fs::read(stripe(&bench.out(), 0)).unwrap(), b"old");
    bench.assert_nothing_left();
    bench.assert_name_is_free(SET);
}

#[test]
fn an_agent_that_is_killed_leaves_its_target_as_before() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    fs::write(stripe(&bench.out(), 0), b"old").unwrap();
    let mut primary = bench.part("killed agent", &[bench.out().to_str().unwrap()]);
    primary.expect("created");
    let statement = bench.sql(&backup_statement("sales", SET, 1, ""));
    primary.expect("half done");
    primary.process.kill();
    statement.outcome().assert_failure(&["Msg 3202,", "995(", "the primary client died"]);
    bench.assert_output(&["stripe-00"]);
    assert_eq!(fs::read(stripe(&bench.out(), 0)).unwrap(), b"old");
}

/// A primary's set of one device, from its creation on: the device is open.
fn only_device(stage: &RoleContext) -> (ClientVirtualDeviceSet, ClientVirtualDevice, VdConfig) {
    let set = ClientVirtualDeviceSet::new();
    set.create(SET, &config(1)).unwrap();
    stage.say("created");
    let negotiated = set.get_configuration(TEST_TIMEOUT).unwrap();
    let device = set.open_device(SET).unwrap();
    (set, device, negotiated)
}

/// An agent that stops half-way: it holds one Write, and waits for more.
fn agent(stage: &RoleContext) {
    let (_set, mut device, negotiated) = only_device(stage);
    let mut media = FileMedia::create(stripe(Path::new(stage.argument(0)), 0)).unwrap();
    media.begin(&negotiated).unwrap();
    for _ in 0..10 {
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        media.write(0, command.data()).unwrap();
        let bytes = command.data().len();
        command.complete(Completion::transferred(bytes)).unwrap();
    }
    let mut held = Vec::new();
    stage.say("half done");
    loop {
        match device.get_command(INFINITE) {
            Ok(command) => held.push(command),
            Err(end) => return say_error(stage, &end),
        }
    }
}

#[test]
fn a_restore_whose_server_is_killed_leaves_the_old_database() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    bench.back_up("sales", 1, "");
    bench.database("copy", 20_000);
    let old = bench.databases().image("copy");

    let primary = bench.part("reader", &[bench.out().to_str().unwrap()]);
    primary.expect("created");
    let mut statement = bench.sql(&copy_statement("sales", "copy", SET, 1, "REPLACE"));
    primary.expect("half done");
    statement.process.kill();
    let ended = primary.expect("ended");
    assert!(ended.contains("the server died"), "{ended}");
    primary.end();
    assert!(bench.databases().image("copy") == old);

    // The next statement removes what is left.
    bench.copy("sales", "copy", 1, "REPLACE");
    bench.assert_identical("sales", "copy");
    bench.assert_databases(&["copy", "sales"]);
}

/// A client that died while the server, which had all the data, was putting the database into its place made the statement report a
/// failure of what then took place.
#[test]
fn a_restore_whose_client_dies_while_it_is_put_into_place_succeeds() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    bench.back_up("sales", 1, "");
    bench.database("copy", 20_000);
    let mut primary = bench.part("finisher", &[bench.out().to_str().unwrap()]);
    primary.expect("created");
    let transcript = bench.out().join("transcript");
    let statement = bench.sql_with(&copy_statement("sales", "copy", SET, 1, "REPLACE"), |command| {
        command.arg("--transcript").arg(&transcript);
    });
    primary.expect("half done");
    // The server waits for the catalog when all the data is there.
    let catalog = Connection::open(bench.data().join(catalog::FILE_NAME)).unwrap();
    catalog.execute_batch("BEGIN IMMEDIATE").unwrap();
    primary.order("go on");
    eventually("the server waits for the catalog", || {
        // SQLite sleeps before it tries again.
        let threads = fs::read_dir(format!("/proc/{}/task", statement.process.id())).unwrap();
        let threads = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("wchan")).ok());
        let threads: Vec<_> = threads.collect();
        if threads.iter().any(|wait| wait.contains("nanosleep")) { Ok(()) } else { Err(format!("{threads:?}")) }
    });
    primary.process.kill();
    eventually("the server has heard of the death", || {
        let said = fs::read_to_string(&transcript).unwrap();
        if said.contains("the primary client died") { Ok(()) } else { Err(said) }
    });
    catalog.execute_batch("ROLLBACK").unwrap();
    drop(catalog);
    statement.outcome().assert_success();
    bench.assert_identical("sales", "copy");
    bench.assert_databases(&["copy", "sales"]);
    bench.assert_name_is_free(SET);
}

/// An agent that delivers the first half of a backup, and when told so the rest.
fn finisher(stage: &RoleContext) {
    let (_set, mut device, negotiated) = only_device(stage);
    let mut media = FileMedia::open(stripe(Path::new(stage.argument(0)), 0)).unwrap();
    media.begin(&negotiated).unwrap();
    for count in 1.. {
        let Ok(mut command) = device.get_command(INFINITE) else { return };
        let bytes = media.read(0, command.data_mut()).unwrap();
        command.complete(Completion::transferred(bytes)).unwrap();
        if count == 10 {
            stage.say("half done");
            stage.next_order();
        }
    }
}

/// An agent that delivers the first half of a backup, holds the next Reads, and waits for more.
fn reader(stage: &RoleContext) {
    let (_set, mut device, negotiated) = only_device(stage);
    let mut media = FileMedia::open(stripe(Path::new(stage.argument(0)), 0)).unwrap();
    media.begin(&negotiated).unwrap();
    for _ in 0..10 {
        let mut command = device.get_command(TEST_TIMEOUT).unwrap();
        let bytes = media.read(0, command.data_mut()).unwrap();
        command.complete(Completion::transferred(bytes)).unwrap();
    }
    let mut held = Vec::new();
    stage.say("half done");
    loop {
        match device.get_command(INFINITE) {
            Ok(command) => held.push(command),
            Err(end) => return say_error(stage, &end),
        }
    }
}
