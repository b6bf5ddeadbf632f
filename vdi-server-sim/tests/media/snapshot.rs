//! BACKUP and RESTORE WITH SNAPSHOT between real processes: the server and whoever writes to the database have one each, the
//! client is this one.

use crate::common;
use crate::writer;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{backup_statement, config, restore_statement};
use common::databases::{copy_files, set_len};
use common::processes::Outcome;
use common::tasks::{Task, task};
use rustix::process::Signal;
use vdi_client::media::{FileMedia, MediaError, SnapshotMedia, Snapshots, TapeImage};
use vdi_client::{ClientVirtualDeviceSet, CommandCode, Completion, CompletionCode, Error, Features, VdConfig, VdError};
use vdi_server_sim::storage::{DatabaseWriter, StorageError};
use writer::{PAGE, Writer, stamps, written};

const BYTES: u64 = 40 * PAGE as u64;

/// What a client has seen and stored.
struct Served {
    /// The commands in their order, without repetitions.
    codes: Vec<CommandCode>,
    stored: Vec<u8>,
    end: Error,
}

/// A client of one device, which holds these bytes; `act` answers what moves no data.
fn client(
    bench: &Bench,
    name: &str,
    config: &VdConfig,
    stored: Vec<u8>,
    mut act: impl FnMut(CommandCode) -> Completion + Send + 'static,
) -> (Arc<ClientVirtualDeviceSet>, Task<Served>) {
    let set = bench.create(name, config);
    let (serving, name) = (Arc::clone(&set), name.to_owned());
    let serve = task("the client", move || {
        serving.get_configuration(TEST_TIMEOUT).unwrap();
        let mut device = serving.open_device(&name).unwrap();
        let (mut codes, mut stored, mut at) = (Vec::new(), stored, 0);
        loop {
            let mut command = match device.get_command(TEST_TIMEOUT) {
                Ok(command) => command,
                Err(end) => return Served { codes, stored, end },
            };
            let code = command.code();
            if codes.last() != Some(&code) {
                codes.push(code);
            }
            let completion = match code {
                CommandCode::WRITE => {
                    stored.extend_from_slice(command.data());
                    Completion::transferred(command.data().len())
                }
                CommandCode::READ => {
                    let rest = &stored[at..];
                    let moved = rest.len().min(command.data().len());
                    command.data_mut()[..moved].copy_from_slice(&rest[..moved]);
                    at += moved;
                    Completion::transferred(moved)
                }
                CommandCode::SET_POSITION | CommandCode::CLEAR_ERROR => Completion::at(0),
                code => act(code),
            };
            if let Err(error) = command.complete(completion) {
                return Served { codes, stored, end: error.into() };
            }
        }
    });
    (set, serve)
}

/// A client that stops at a command: the test learns of it, and gives the answer.
struct Hold {
    reached: Receiver<CommandCode>,
    answer: Sender<Completion>,
}

fn hold(held: &'static [CommandCode]) -> (Hold, impl FnMut(CommandCode) -> Completion + Send + 'static) {
    let (tell, reached) = channel();
    let (answer, answers) = channel();
    let answers = Mutex::new(answers);
    let act = move |code| {
        if !held.contains(&code) {
            return Completion::done();
        }
        tell.send(code).unwrap();
        // A test that failed does not answer.
        answers.lock().unwrap().recv_timeout(TEST_TIMEOUT).unwrap_or(Completion::done())
    };
    (Hold { reached, answer }, act)
}

impl Hold {
    #[track_caller]
    fn wait(&self, code: CommandCode) {
        assert_eq!(self.reached.recv_timeout(TEST_TIMEOUT), Ok(code));
    }

    #[track_caller]
    fn answer(&self, completion: Completion) {
        self.answer.send(completion).unwrap();
    }
}

fn with(features: Features) -> VdConfig {
    VdConfig { features, ..config(1) }
}

const SNAPSHOT: &[CommandCode] = &[CommandCode::SNAPSHOT];
const MOUNT: &[CommandCode] = &[CommandCode::MOUNT_SNAPSHOT];

/// Copies the files of a database, one way or the other.
#[derive(Clone)]
struct Copier {
    /// Where the database has them.
    database: Vec<PathBuf>,
    /// Where the snapshot has them.
    taken: Vec<PathBuf>,
}

impl Copier {
    /// For a database that is there. The snapshot is in the output folder's `copy`.
    fn of(bench: &Bench, database: &str) -> Copier {
        let folder = bench.out().join("copy");
        fs::create_dir_all(&folder).unwrap();
        let database = bench.databases().files(database);
        let taken = (0..database.len()).map(|index| folder.join(index.to_string())).collect();
        Copier { database, taken }
    }

    /// For the database `new`, which a snapshot of `db` is restored as.
    fn of_new(bench: &Bench) -> Copier {
        let Copier { taken, .. } = Copier::of(bench, "db");
        let database = (0..taken.len()).map(|index| bench.data().join(format!("new-{index}"))).collect();
        Copier { database, taken }
    }

    fn copy_out(&self) {
        copy_files(self.database.iter().map(PathBuf::as_path).zip(self.taken.iter().map(PathBuf::as_path)));
    }

    fn copy_back(&self) {
        copy_files(self.taken.iter().map(PathBuf::as_path).zip(self.database.iter().map(PathBuf::as_path)));
    }

    /// Removes what was copied back.
    fn remove(&self) {
        for path in &self.database {
            let _ = fs::remove_file(path);
        }
    }
}

/// The options of a restore as `new`, whose files [`Copier::of_new`] puts into place.
fn moved(bench: &Bench, options: &str) -> String {
    let files = bench.databases().row("db").files;
    let names = files.iter().map(|file| &file.logical_name).zip(Copier::of_new(bench).database);
    names.fold(options.to_owned(), |options, (name, path)| format!("{options}, MOVE '{name}' TO '{}'", path.display()))
}

/// Whether a database can be frozen, so that no other process has it frozen, and is writing at most.
fn is_free(bench: &Bench, database: &str) -> bool {
    match bench.databases().open().database(database).unwrap().freeze(Duration::from_secs(1), || false) {
        Ok(_) => true,
        Err(StorageError::NotFrozen { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A snapshot of `db` into the output folder's `copy`, whose metadata comes back.
#[track_caller]
fn back_up(bench: &Bench, config: &VdConfig, options: &str) -> (Outcome, Served) {
    let copier = Copier::of(bench, "db");
    let (set, client) = client(bench, "nightly", config, Vec::new(), move |code| {
        if code == CommandCode::SNAPSHOT {
            copier.copy_out();
        }
        Completion::done()
    });
    let outcome = bench.sql(&backup_statement("db", "nightly", 1, options)).outcome();
    let served = client.result();
    let _ = set.close();
    (outcome, served)
}

/// A restore of this metadata; `mount` puts the files into place.
#[track_caller]
fn restore(
    bench: &Bench,
    config: &VdConfig,
    database: &str,
    options: &str,
    stored: Vec<u8>,
    mut mount: impl FnMut() + Send + 'static,
) -> (Outcome, Served) {
    let (set, client) = client(bench, "nightly", config, stored, move |code| {
        if code == CommandCode::MOUNT_SNAPSHOT {
            mount();
        }
        Completion::done()
    });
    let outcome = bench.sql(&restore_statement(database, "nightly", 1, options)).outcome();
    let served = client.result();
    let _ = set.close();
    (outcome, served)
}

/// While it waits for the writers of the database, and while the client takes the snapshot; the database is thawed at once.
#[test]
fn ctrl_c_ends_a_snapshot_backup_and_its_freeze() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let mut writer = DatabaseWriter::open(&bench.databases().open(), "db").unwrap();
    for held in [CommandCode::PREPARE_TO_FREEZE, CommandCode::SNAPSHOT] {
        let turn = (held == CommandCode::PREPARE_TO_FREEZE).then(|| writer.begin().unwrap());
        let (hold, act) = hold(&[CommandCode::PREPARE_TO_FREEZE, CommandCode::SNAPSHOT]);
        let features = Features::SNAPSHOT_PREPARE | Features::REQUEST_COMPLETE;
        let (set, client) = client(&bench, "nightly", &with(features), Vec::new(), act);
        let statement = bench.sql(&backup_statement("db", "nightly", 1, "SNAPSHOT"));
        hold.wait(CommandCode::PREPARE_TO_FREEZE);
        hold.answer(Completion::done());
        if turn.is_none() {
            hold.wait(CommandCode::SNAPSHOT);
        }
        statement.process.signal(Signal::INT);
        statement.outcome().assert_failure(&["Msg 3204, Level 16,"]);
        drop(turn);
        assert!(is_free(&bench, "db"));
        // It is answered too late.
        let _ = hold.answer.send(Completion::done());
        assert_eq!(client.result().end.code(), VdError::Abort);
        let _ = set.close();
    }
}

#[test]
fn nothing_is_written_while_the_client_takes_the_snapshot() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let mut writer = Writer::start(&bench, "db", &[]);
    let mut reported = writer.wrote();
    let (hold, act) = hold(SNAPSHOT);
    let all = Features::SNAPSHOT_PREPARE | Features::ENUM_FROZEN_FILES | Features::REQUEST_COMPLETE;
    let (set, client) = client(&bench, "nightly", &with(all), Vec::new(), act);
    let statement = bench.sql(&backup_statement("db", "nightly", 1, "SNAPSHOT"));
    hold.wait(CommandCode::SNAPSHOT);
    let copier = Copier::of(&bench, "db");
    let frozen = stamps(&bench, "db");
    writer.wait_until_asleep();
    // Once more, after all that it had reported has been read.
    while reported + 64 <= written(&frozen) {
        reported = writer.wrote();
    }
    writer.wait_until_asleep();
    assert_eq!(stamps(&bench, "db"), frozen);
    copier.copy_out();
    hold.answer(Completion::done());
    statement.outcome().assert_success();
    writer.goes_on(written(&frozen));
    let served = client.result();
    set.close().unwrap();
    assert!(served.end.is_close(), "{}", served.end);
    let names = [
        CommandCode::WRITE,
        CommandCode::PREPARE_TO_FREEZE,
        CommandCode::FILE_INFO_BEGIN,
        CommandCode::WRITE,
        CommandCode::FILE_INFO_END,
        CommandCode::WRITE,
        CommandCode::SNAPSHOT,
        CommandCode::COMPLETE,
    ];
    assert_eq!(served.codes, names);
    let listed: String = copier.database.iter().map(|path| format!("{}\n", path.display())).collect();
    assert!(served.stored.windows(listed.len()).any(|bytes| bytes == listed.as_bytes()));

    // Back it comes into the database in use, whose writer waits meanwhile, and into a new one.
    let (outcome, served) =
        restore(&bench, &config(1), "db", "SNAPSHOT, REPLACE", served.stored, move || copier.copy_back());
    outcome.assert_success();
    assert!(served.end.is_close(), "{}", served.end);
    // The only Read ended the data with an error, which is cleared before anything else.
    assert_eq!(served.codes, [CommandCode::READ, CommandCode::CLEAR_ERROR, CommandCode::MOUNT_SNAPSHOT]);
    writer.wrote();
    writer.end();
    stamps(&bench, "db");
    let (copier, options) = (Copier::of_new(&bench), moved(&bench, "SNAPSHOT"));
    let (outcome, _) = restore(&bench, &config(1), "new", &options, served.stored, move || copier.copy_back());
    outcome.assert_success();
    assert_eq!(stamps(&bench, "new"), frozen);
    bench.assert_databases(&["db", "new"]);
}

#[test]
fn a_restore_freezes_what_it_replaces() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let (outcome, served) = back_up(&bench, &config(1), "SNAPSHOT");
    outcome.assert_success();
    let mut writer = Writer::start(&bench, "db", &[]);
    writer.wrote();
    let (hold, act) = hold(MOUNT);
    let (set, client) = client(&bench, "nightly", &config(1), served.stored, act);
    let statement = bench.sql(&restore_statement("db", "nightly", 1, "SNAPSHOT, REPLACE"));
    hold.wait(CommandCode::MOUNT_SNAPSHOT);
    assert!(!is_free(&bench, "db"));
    let beside = bench.writing_agent("second", &config(1));
    bench.sql(&backup_statement("db", "second", 1, "")).outcome().assert_failure(&["Msg 927, Level 14, State 2,"]);
    assert!(beside.result().is_err());
    Copier::of(&bench, "db").copy_back();
    hold.answer(Completion::done());
    statement.outcome().assert_success();
    client.result();
    set.close().unwrap();
    // The files are the ones that it has open, so it may go on.
    for _ in 0..3 {
        writer.wrote();
    }
    writer.end();
}

#[test]
fn two_databases_are_prepared_before_either_is_frozen() {
    const HELD: &[CommandCode] = &[CommandCode::PREPARE_TO_FREEZE, CommandCode::SNAPSHOT];
    let bench = Bench::new();
    let names = ["db", "other"];
    let mut sets = Vec::new();
    for name in names {
        bench.database(name, BYTES);
        let (hold, act) = hold(HELD);
        let (set, client) = client(&bench, name, &with(Features::SNAPSHOT_PREPARE), Vec::new(), act);
        let statement = bench.sql(&backup_statement(name, name, 1, "SNAPSHOT"));
        sets.push((hold, set, client, statement, Writer::start(&bench, name, &[])));
    }
    for (hold, ..) in &sets {
        hold.wait(CommandCode::PREPARE_TO_FREEZE);
    }
    assert!(names.iter().all(|name| is_free(&bench, name)));
    for (hold, .., writer) in &mut sets {
        writer.wrote();
        writer.wrote();
        hold.answer(Completion::done());
    }
    for (hold, ..) in &sets {
        hold.wait(CommandCode::SNAPSHOT);
    }
    // Both at once: what is copied now is of one moment.
    assert!(!names.iter().any(|name| is_free(&bench, name)));
    for (hold, set, client, statement, mut writer) in sets {
        hold.answer(Completion::done());
        statement.outcome().assert_success();
        writer.wrote();
        writer.end();
        let served = client.result();
        let codes = [CommandCode::WRITE, CommandCode::PREPARE_TO_FREEZE, CommandCode::WRITE, CommandCode::SNAPSHOT];
        assert_eq!(served.codes, codes);
        assert!(served.end.is_close(), "{}", served.end);
        set.close().unwrap();
    }
}

/// Holds Snapshot, lets something happen to the statement, and finds that it failed and the writers go on.
fn thaws(config: &VdConfig, texts: &[&str], happen: impl FnOnce(&Hold, &ClientVirtualDeviceSet)) {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let mut writer = Writer::start(&bench, "db", &[]);
    // By now every page is one of its own.
    writer.wrote();
    let (hold, act) = hold(SNAPSHOT);
    let (set, client) = client(&bench, "nightly", config, Vec::new(), act);
    let statement = bench.sql(&backup_statement("db", "nightly", 1, "SNAPSHOT"));
    hold.wait(CommandCode::SNAPSHOT);
    let frozen = written(&stamps(&bench, "db"));
    happen(&hold, &set);
    // The client that still holds the command does not matter.
    writer.goes_on(frozen);
    statement.outcome().assert_failure(texts);
    let _ = hold.answer.send(Completion::done());
    let served = client.result();
    assert!(!served.end.is_close(), "{}", served.end);
    let _ = set.close();
    writer.end();
}

#[test]
fn a_client_that_aborts_thaws() {
    thaws(&config(1), &["the set was aborted"], |_, set| set.signal_abort().unwrap());
}

#[test]
fn a_client_that_gives_up_thaws() {
    let code = CompletionCode::OPERATION_ABORTED;
    thaws(&config(1), &["snapshot on device", "995"], |hold, _| hold.answer(Completion::failed(code)));
}

#[test]
fn a_client_without_support_fails_the_backup_on_both_sides() {
    let code = CompletionCode::NOT_SUPPORTED;
    thaws(&config(1), &["snapshot on device", "50("], |hold, _| hold.answer(Completion::failed(code)));
}

#[test]
fn the_server_s_time_out_thaws() {
    thaws(&VdConfig { server_time_out: 200, ..config(1) }, &["the set was aborted"], |_, _| {});
}

#[test]
fn a_killed_server_thaws() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let mut writer = Writer::start(&bench, "db", &[]);
    // By now every page is one of its own.
    writer.wrote();
    let (hold, act) = hold(SNAPSHOT);
    let (set, client) = client(&bench, "nightly", &config(1), Vec::new(), act);
    let mut statement = bench.sql(&backup_statement("db", "nightly", 1, "SNAPSHOT"));
    hold.wait(CommandCode::SNAPSHOT);
    let frozen = written(&stamps(&bench, "db"));
    statement.process.kill();
    writer.goes_on(frozen);
    hold.answer(Completion::done());
    assert!(!client.result().end.is_close());
    let _ = set.close();
    writer.end();
}

#[test]
fn what_was_mounted_is_compared() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    for (options, checked) in [("SNAPSHOT", true), ("SNAPSHOT, NO_CHECKSUM", false)] {
        let (outcome, served) = back_up(&bench, &config(1), options);
        outcome.assert_success();
        type Spoil = fn(&Copier);
        let spoil: [(Spoil, &str, bool); 3] = [
            (|copier| fs::remove_file(&copier.database[1]).unwrap(), "new-1", true),
            (|copier| set_len(&copier.database[0], 8192), "new-0", true),
            (
                |copier| {
                    // A free page, which no checksum of its own protects.
                    let path = &copier.database[0];
                    let mut bytes = fs::read(path).unwrap();
                    *bytes.last_mut().unwrap() ^= 1;
                    fs::write(path, bytes).unwrap();
                },
                "new-0",
                checked,
            ),
        ];
        for (spoil, text, is_found) in spoil {
            let (copier, options) = (Copier::of_new(&bench), moved(&bench, options));
            let mount = {
                let copier = copier.clone();
                move || {
                    copier.copy_back();
                    spoil(&copier);
                }
            };
            let (outcome, end) = restore(&bench, &config(1), "new", &options, served.stored.clone(), mount);
            if is_found {
                outcome.assert_failure(&[text]);
                assert!(!end.end.is_close());
            } else {
                outcome.assert_success();
            }
            bench.drop_database("new");
            copier.remove();
        }
        let options = moved(&bench, "SNAPSHOT");
        let (outcome, _) = restore(&bench, &config(1), "new", &options, served.stored.clone(), || {});
        outcome.assert_failure(&["new-0"]);
        bench.assert_databases(&["db"]);
    }
}

#[test]
fn the_two_kinds_of_backup_are_told_apart() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let (outcome, snapshot) = back_up(&bench, &config(1), "SNAPSHOT");
    outcome.assert_success();
    let (outcome, served) = restore(&bench, &config(1), "new", "", snapshot.stored.clone(), || panic!("mounted"));
    outcome.assert_failure(&["restore WITH SNAPSHOT"]);
    assert!(!served.end.is_close());
    let (outcome, plain) = back_up(&bench, &config(1), "");
    outcome.assert_success();
    let (outcome, served) = restore(&bench, &config(1), "new", "SNAPSHOT", plain.stored, || panic!("mounted"));
    outcome.assert_failure(&["restore without SNAPSHOT"]);
    assert!(!served.end.is_close());

    // What is wrong is found before anything is mounted.
    let cut = snapshot.stored[..snapshot.stored.len() - 512].to_vec();
    let (outcome, _) = restore(&bench, &config(1), "new", &moved(&bench, "SNAPSHOT"), cut, || panic!("mounted"));
    outcome.assert_failure(&["Msg 3203,", "38("]);
    let (outcome, served) = restore(&bench, &config(1), "db", "SNAPSHOT", snapshot.stored, || panic!("mounted"));
    outcome.assert_failure(&["Use the WITH REPLACE"]);
    let told = served.end.to_string();
    assert!(told.contains("restore WITH REPLACE"), "{told}");
    bench.assert_databases(&["db"]);
}

#[test]
fn all_devices_and_sizes_take_snapshots() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let disk = with(Features::RANDOM_ACCESS | Features::ENUM_FROZEN_FILES | Features::REQUEST_COMPLETE);
    for (config, options) in [(&disk, ""), (&with(Features::ENUM_FROZEN_FILES), ", BLOCKSIZE = 65536, BUFFERCOUNT = 1")]
    {
        let options = format!("SNAPSHOT{options}");
        let (outcome, served) = back_up(&bench, config, &options);
        outcome.assert_success();
        let (copier, options) = (Copier::of_new(&bench), moved(&bench, &options));
        let mount = move || copier.copy_back();
        let (outcome, served) = restore(&bench, config, "new", &options, served.stored, mount);
        outcome.assert_success();
        assert!(served.end.is_close(), "{}", served.end);
        bench.assert_identical("db", "new");
        bench.drop_database("new");
    }
}

impl Snapshots for Copier {
    fn take(&mut self) -> Result<(), MediaError> {
        self.copy_out();
        Ok(())
    }

    fn mount(&mut self) -> Result<(), MediaError> {
        self.copy_back();
        Ok(())
    }
}

#[test]
fn the_ready_made_media_keep_the_metadata() {
    let bench = Bench::new();
    bench.database("db", BYTES);
    let path = bench.out().join("metadata");
    let all = Features::SNAPSHOT_PREPARE | Features::ENUM_FROZEN_FILES | Features::REQUEST_COMPLETE;
    for (features, tape) in
        [(Features::NONE, false), (all, false), (Features::TAPE | all, true), (Features::TAPE, true)]
    {
        let (file, snapshots) = (path.clone(), Copier::of(&bench, "db"));
        let statement = backup_statement("db", "nightly", 1, "SNAPSHOT");
        let outcome = match tape {
            false => {
                let media = move |_| Ok(SnapshotMedia::new(FileMedia::create(&file)?, snapshots.clone()));
                let agent = bench.agent("nightly", &with(features), media);
                (bench.sql(&statement).outcome(), agent.result())
            }
            true => {
                let media = move |_| Ok(SnapshotMedia::new(TapeImage::create(&file)?, snapshots.clone()));
                let agent = bench.agent("nightly", &with(features), media);
                (bench.sql(&statement).outcome(), agent.result())
            }
        };
        outcome.0.assert_success();
        outcome.1.unwrap();
        let (file, snapshots) = (path.clone(), Copier::of_new(&bench));
        let statement = restore_statement("new", "nightly", 1, &moved(&bench, "SNAPSHOT"));
        let outcome = match tape {
            false => {
                let media = move |_| Ok(SnapshotMedia::new(FileMedia::open(&file)?, snapshots.clone()));
                let agent = bench.agent("nightly", &with(features), media);
                (bench.sql(&statement).outcome(), agent.result())
            }
            true => {
                let media = move |_| Ok(SnapshotMedia::new(TapeImage::open(&file)?, snapshots.clone()));
                let agent = bench.agent("nightly", &with(features), media);
                (bench.sql(&statement).outcome(), agent.result())
            }
        };
        outcome.0.assert_success();
        outcome.1.unwrap();
        bench.assert_identical("db", "new");
        bench.drop_database("new");
        fs::remove_file(&path).unwrap();
    }
}
