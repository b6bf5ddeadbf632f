//! The numbers of SQL Server: what a real statement says to its client and to the error log in each situation, in order, with
//! number, state and text; and that both programs say the same.

use crate::common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use common::PATIENCE;
use common::bench::Bench;
use common::client::{backup_statement, config, restore_statement, stripe};
use common::conduct::{Conduct, Kept};
use common::processes::Outcome;
use vdi_client::media::{FileMedia, Media, MediaError};
use vdi_client::{CommandCode, CompletionCode, VdConfig};
use vdi_server_sim::vds::ServerVirtualDeviceSet;

/// A bench with a database `sales`, and an error log.
struct Trial(Bench);

impl Trial {
    fn new() -> Trial {
        let bench = Bench::new();
        bench.database("sales", 700_000);
        Trial(bench)
    }

    fn log(&self) -> PathBuf {
        self.0.runtime().parent().unwrap().join("errorlog")
    }

    fn run(&self, statement: &str) -> Outcome {
        self.run_with(statement, &[])
    }

    fn run_with(&self, statement: &str, arguments: &[&str]) -> Outcome {
        let statement = self.0.sql_with(statement, |command| {
            command.arg("--log").arg(self.log()).args(arguments);
        });
        statement.outcome()
    }

    /// Runs a statement for a client whose devices conduct themselves so.
    fn serve(&self, statement: &str, devices: u32, conduct: Conduct, restore: bool) -> Outcome {
        let out = self.0.out();
        let mut client = self.0.serve("nightly", &config(devices), 7, move |index| {
            (conduct, Kept::File.media(&stripe(&out, index), restore))
        });
        let outcome = self.run(statement);
        client.result().unwrap();
        outcome
    }

    /// Runs a backup for a client that answers some commands with an error.
    fn scripted(&self, options: &str, answer: fn(CommandCode) -> Option<CompletionCode>) -> Outcome {
        let out = self.0.out();
        let agent = self.0.agent("nightly", &config(1), move |index| {
            Ok(Scripted { media: FileMedia::create(stripe(&out, index))?, answer })
        });
        let outcome = self.run(&backup_statement("sales", "nightly", 1, options));
        assert_eq!(agent.result().is_ok(), outcome.status.success());
        outcome
    }

    /// Backs up to so many devices, spoils the files, and restores from so many.
    fn restored(&self, from: u32, to: u32, options: &str, spoil: impl FnOnce(&Trial)) -> Outcome {
        self.0.back_up("sales", from, "");
        spoil(self);
        let agent = self.0.reading_agent("nightly", &config(to));
        let outcome = self.run(&restore_statement("copy", "nightly", to, options));
        assert!(agent.result().is_err());
        outcome
    }

    fn truncate(&self, index: u32, keep: impl FnOnce(u64) -> u64) {
        let file = fs::OpenOptions::new().write(true).open(stripe(&self.0.out(), index)).unwrap();
        file.set_len(keep(file.metadata().unwrap().len())).unwrap();
    }

    fn copy_stripe(&self, from: u32, to: u32) {
        fs::copy(stripe(&self.0.out(), from), stripe(&self.0.out(), to)).unwrap();
    }
}

/// A file whose device answers some commands with an error, and takes a snapshot at once.
struct Scripted {
    media: FileMedia,
    answer: fn(CommandCode) -> Option<CompletionCode>,
}

impl Scripted {
    fn ask(&self, code: CommandCode) -> Result<(), MediaError> {
        match (self.answer)(code) {
            Some(answer) => Err(MediaError::new(answer, "the test says so")),
            None => Ok(()),
        }
    }
}

impl Media for Scripted {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.media.begin(config)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.ask(CommandCode::WRITE)?;
        self.media.write(position, data)
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.media.read(position, buffer)
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        self.ask(CommandCode::FLUSH)?;
        self.media.flush()
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.ask(CommandCode::COMPLETE)?;
        self.media.complete()
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.ask(CommandCode::CLEAR_ERROR)
    }

    fn other(&mut self, code: CommandCode, _: i32, _: u64) -> Result<u64, MediaError> {
        self.ask(code)?;
        Ok(0)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.media.close()
    }
}

/// A situation, and what a statement says in it.
struct Row {
    situation: &'static str,
    run: fn(&Trial) -> Outcome,
    /// Numbers and states of the errors that the client gets, in order.
    client: &'static [(u32, u8)],
    /// What the client's messages contain.
    says: &'static [&'static str],
    /// Numbers in the error log, in order.
    log: &'static [u32],
    /// What the log contains.
    logs: &'static [&'static str],
}

const ABORTED: &str =
    "995(The I/O operation has been aborted because of either a thread exit or an application request.)";

fn backup() -> String {
    backup_statement("sales", "nightly", 1, "")
}

fn restore(options: &str) -> String {
    restore_statement("copy", "nightly", 1, options)
}

const ROWS: &[Row] = &[
    Row {
        situation: "BACKUP to a set that is not there",
        run: |trial| trial.run(&backup()),
        client: &[(3201, 7), (3013, 1)],
        says: &[
            "\nCannot open backup device 'nightly'. Operating system error 0x80070002(The system cannot find the file specified.).\n",
            "no virtual device set \"nightly\"",
        ],
        log: &[18210, 3041],
        logs: &[
            "BackupVirtualDeviceSet::Initialize: Open failure on backup device 'nightly'. Operating system error 0x80070002(The \
             system cannot find the file specified.).",
            "BACKUP failed to complete the command BACKUP DATABASE sales. ",
        ],
    },
    Row {
        situation: "RESTORE from a set that is not there",
        run: |trial| trial.run(&restore("")),
        client: &[(3201, 7), (3013, 1)],
        says: &["Cannot open backup device 'nightly'."],
        log: &[18210],
        logs: &["BackupVirtualDeviceSet::Initialize: Open failure"],
    },
    Row {
        situation: "a set that another server has",
        run: |trial| {
            let _set = trial.0.create("nightly", &config(1));
            let first = ServerVirtualDeviceSet::with_options(trial.0.options());
            first.open("", "nightly").unwrap();
            trial.run(&backup())
        },
        client: &[(3201, 7), (3013, 1)],
        // It is there.
        says: &[
            "Operating system error 0x80770006(A parameter of the virtual device call is invalid.).",
            "the set has a server: ",
        ],
        log: &[18210, 3041],
        logs: &["BackupVirtualDeviceSet::Initialize: Open failure on backup device 'nightly'."],
    },
    Row {
        situation: "the client of a BACKUP closes its set early",
        run: |trial| {
            let set = trial.0.create("nightly", &config(1));
            let statement = trial.0.sql_with(&backup(), |command| _ = command.arg("--log").arg(trial.log()));
            set.get_configuration(PATIENCE).unwrap();
            let _ = set.close();
            statement.outcome()
        },
        client: &[(3202, 1), (3013, 1)],
        says: &["the primary client closed the set before the work had ended; look at the messages of that process"],
        log: &[18210, 3041],
        logs: &[ABORTED],
    },
    Row {
        situation: "a device that cannot be opened",
        run: |trial| {
            let _set = trial.0.create("nightly", &config(1));
            trial.run_with(&backup(), &["--fault", "refuse=OpenDevice:VD_E_OPEN"])
        },
        client: &[(3201, 6), (3013, 1)],
        says: &["Cannot open backup device 'nightly'. Operating system error 0x8077000D("],
        log: &[18210, 3041],
        logs: &["BackupVirtualDeviceSet::Initialize: OpenDevice failure on backup device 'nightly'."],
    },
    Row {
        situation: "a set with another number of devices",
        run: |trial| {
            let _set = trial.0.create("nightly", &config(2));
            trial.run(&backup())
        },
        client: &[(3261, 1), (3013, 1)],
        says: &[
            "SQL Server cannot use the virtual device configuration.",
            "the statement names 1 devices, the client created the set with 2",
        ],
        log: &[3041],
        logs: &[],
    },
    Row {
        situation: "features that cannot be had",
        run: |trial| {
            let _set = trial.0.create("nightly", &config(1));
            trial.run_with(&backup(), &["--fault", "refuse=BeginConfiguration:VD_E_NOTSUPPORTED"])
        },
        client: &[(3261, 1), (3013, 1)],
        says: &["VD_E_NOTSUPPORTED"],
        log: &[18210, 3041],
        logs: &["BeginConfiguration failure"],
    },
    Row {
        situation: "BUFFERCOUNT x MAXTRANSFERSIZE too large",
        run: |trial| {
            let _set = trial.0.create("nightly", &config(1));
            trial.run(&backup_statement("sales", "nightly", 1, "BUFFERCOUNT = 2000000, MAXTRANSFERSIZE = 4194304"))
        },
        client: &[(701, 123), (3013, 1)],
        says: &[
            "There is insufficient system memory in resource pool 'default' to run this query.",
            "lower BUFFERCOUNT",
        ],
        log: &[18210, 3041],
        logs: &[
            "BackupVirtualDeviceSet::SetBufferParms: Request large buffers failure on backup device 'nightly'. Operating system \
             error 0x8007000E(Not enough storage is available to complete this operation.).",
        ],
    },
    Row {
        situation: "more than 64 devices",
        run: |trial| trial.run(&backup_statement("sales", "nightly", 65, "")),
        client: &[(3205, 1), (3013, 1)],
        says: &["Too many backup devices specified for backup or restore; only 64 are allowed."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "the client of a BACKUP aborts",
        run: |trial| {
            let statement = backup_statement("sales", "nightly", 3, "");
            trial.serve(&statement, 3, Conduct::Aborts { at: 2 }, false)
        },
        client: &[(3202, 1), (3013, 1)],
        says: &["Write on \"nightly\" failed: 995(", "the set was aborted: "],
        log: &[18210, 18210, 18210, 3041],
        logs: &[
            "BackupIoRequest::ReportIoError: write failure on backup device 'nightly'. Operating system error 995(",
            "BackupIoRequest::ReportIoError: write failure on backup device 'nightly/1'. Operating system error 995(",
            "BackupIoRequest::ReportIoError: write failure on backup device 'nightly/2'. Operating system error 995(",
            ABORTED,
        ],
    },
    Row {
        situation: "the client of a RESTORE aborts",
        run: |trial| {
            trial.0.back_up("sales", 2, "");
            let statement = restore_statement("copy", "nightly", 2, "");
            trial.serve(&statement, 2, Conduct::Aborts { at: 2 }, true)
        },
        client: &[(3203, 1), (3013, 1)],
        says: &["Read on \"nightly\" failed: 995("],
        log: &[18210, 18210],
        logs: &[
            "BackupIoRequest::ReportIoError: read failure on backup device 'nightly/1'. Operating system error 995(",
        ],
    },
    Row {
        situation: "a Write fails",
        run: |trial| trial.scripted("", |code| (code == CommandCode::WRITE).then_some(CompletionCode::DISK_FULL)),
        client: &[(3202, 1), (3013, 1)],
        says: &[
            "\nWrite on \"nightly\" failed: 112(There is not enough space on the disk.)\n",
            "write on device \"nightly\" failed: ",
            "; look at the messages of the client",
        ],
        log: &[18210, 3041],
        logs: &[
            "BackupIoRequest::ReportIoError: write failure on backup device 'nightly'. Operating system error 112(",
        ],
    },
    Row {
        situation: "Flush fails",
        run: |trial| trial.scripted("", |code| (code == CommandCode::FLUSH).then_some(CompletionCode::IO_DEVICE)),
        client: &[(3271, 1), (3013, 1)],
        says: &[
            "A nonrecoverable I/O error occurred on file \"nightly:\" 1117(",
            "flush on device \"nightly\" failed: ",
        ],
        log: &[18210, 3041],
        logs: &[
            "BackupMedium::RequestDurableMedia: Flush failure on backup device 'nightly'. Operating system error 1117(",
        ],
    },
    Row {
        situation: "ClearError fails",
        run: |trial| {
            trial.scripted("", |code| match code {
                CommandCode::WRITE => Some(CompletionCode::IO_DEVICE),
                CommandCode::CLEAR_ERROR => Some(CompletionCode::NOT_SUPPORTED),
                _ => None,
            })
        },
        client: &[(3202, 1), (3013, 1)],
        says: &["Write on \"nightly\" failed: 1117(", "ClearError failed too: "],
        log: &[18210, 18210, 3041],
        logs: &[
            "BackupIoRequest::ReportIoError: write failure on backup device 'nightly'. Operating system error 1117(",
            // The operation is empty.
            "BackupVirtualDeviceFile::ClearError:  failure on backup device 'nightly'. Operating system error 1117(",
        ],
    },
    Row {
        situation: "Complete fails",
        run: |trial| trial.scripted("", |code| (code == CommandCode::COMPLETE).then_some(CompletionCode::DISK_FULL)),
        client: &[(3271, 1), (3013, 1)],
        says: &[
            "A nonrecoverable I/O error occurred on file \"nightly:\" 112(",
            "complete on device \"nightly\" failed: ",
        ],
        log: &[18210, 3041],
        logs: &["complete failure on backup device 'nightly'."],
    },
    Row {
        situation: "a file of the database cannot be read",
        run: |trial| {
            let agent = trial.0.writing_agent("nightly", &config(1));
            let outcome = trial.run_with(&backup(), &["--fault", "read-error=1"]);
            assert!(agent.result().is_err());
            outcome
        },
        client: &[(3203, 1), (3013, 1)],
        says: &["Read on \"/", "/sales/sample.mdf\" failed: 1117(", "look for errors of that disk"],
        log: &[3041],
        logs: &[],
    },
    Row {
        situation: "not all media families",
        run: |trial| trial.restored(3, 2, "", |_| {}),
        client: &[(3132, 1), (3013, 1)],
        says: &[
            "The media set has 3 media families but only 2 are provided. All members must be provided.",
            "name all 3 devices",
        ],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "more devices than media families",
        run: |trial| trial.restored(2, 3, "", |trial| trial.copy_stripe(0, 2)),
        client: &[(3231, 1), (3013, 1)],
        says: &[
            "is formatted to support 2 media families, but 3 media families are expected according to the backup device \
             specification.",
        ],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "the same family twice",
        run: |trial| trial.restored(2, 2, "", |trial| trial.copy_stripe(0, 1)),
        client: &[(3227, 1), (3013, 1)],
        says: &[
            "The backup media on \"nightly",
            "is part of media family 1 which has already been processed on \"nightly",
        ],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "families of two backups",
        run: |trial| {
            trial.restored(2, 2, "", |trial| {
                let kept = fs::read(stripe(&trial.0.out(), 0)).unwrap();
                trial.0.back_up("sales", 2, "");
                fs::write(stripe(&trial.0.out(), 0), kept).unwrap();
            })
        },
        client: &[(3258, 1), (3013, 1)],
        says: &[
            "is not part of the media set that is currently being processed.",
            "restore from the devices of one backup",
        ],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "an empty volume",
        run: |trial| trial.restored(1, 1, "", |trial| trial.truncate(0, |_| 0)),
        client: &[(3254, 1), (3013, 1)],
        says: &["The volume on device 'nightly' is empty."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "no backup",
        run: |trial| trial.restored(1, 1, "", |trial| fs::write(stripe(&trial.0.out(), 0), [0x5a; 70_000]).unwrap()),
        client: &[(3241, 1), (3013, 1)],
        says: &["The media family on device 'nightly' is incorrectly formed.", "it begins with 5a5a5a5a5a5a5a5a"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "a backup that ends too early",
        run: |trial| trial.restored(1, 1, "", |trial| trial.truncate(0, |length| length / 2)),
        client: &[(3203, 1), (3013, 1)],
        says: &["Read on \"nightly\" failed: 38(Reached the end of the file.)", "the backup is incomplete"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "another BLOCKSIZE",
        run: |trial| trial.restored(1, 1, "BLOCKSIZE = 4096", |_| {}),
        client: &[(3272, 1), (3013, 1)],
        says: &[
            "The 'nightly' device has a hardware sector size of 512, but the block size parameter specifies an incompatible override \
             value of 4096.",
            "restore WITH BLOCKSIZE = 512",
        ],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "a backup with data restored WITH SNAPSHOT",
        run: |trial| trial.restored(1, 1, "SNAPSHOT", |_| {}),
        client: &[(3276, 1), (3013, 1)],
        says: &[
            "WITH SNAPSHOT can be used only if the backup set was created WITH SNAPSHOT.",
            "restore without SNAPSHOT",
        ],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "a snapshot restored plainly",
        run: |trial| {
            trial.scripted("SNAPSHOT", |_| None).assert_success();
            let agent = trial.0.reading_agent("nightly", &config(1));
            let outcome = trial.run(&restore(""));
            assert!(agent.result().is_err());
            outcome
        },
        client: &[(3276, 2), (3013, 1)],
        says: &["restore WITH SNAPSHOT"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "SNAPSHOT with several devices",
        run: |trial| trial.run(&backup_statement("sales", "nightly", 2, "SNAPSHOT")),
        client: &[(3277, 1), (3013, 1)],
        says: &["WITH SNAPSHOT must be used with only one virtual device."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "another backup set than the first",
        run: |trial| trial.run(&restore("FILE = 2")),
        client: &[(4038, 1), (3013, 1)],
        says: &["Cannot find file ID 2 on device 'nightly'.", "restore WITH FILE = 1"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "RESTORE over a database that exists",
        run: |trial| {
            trial.0.back_up("sales", 1, "");
            let agent = trial.0.reading_agent("nightly", &config(1));
            let outcome = trial.run(&restore_statement("sales", "nightly", 1, ""));
            assert!(agent.result().is_err());
            outcome
        },
        client: &[(3159, 1), (3013, 1)],
        says: &["The tail of the log for the database \"sales\" has not been backed up.", "restore WITH REPLACE"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "RESTORE of master",
        run: |trial| trial.run(&restore_statement("Master", "nightly", 1, "REPLACE")),
        client: &[(3108, 1), (3013, 1)],
        says: &["To restore the master database, the server must be running in single-user mode."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "BACKUP of tempdb",
        run: |trial| trial.run(&backup_statement("tempdb", "nightly", 1, "")),
        client: &[(3147, 1), (3013, 1)],
        says: &["Backup and restore operations are not allowed on database tempdb."],
        log: &[3041],
        logs: &[],
    },
    Row {
        situation: "BACKUP of an unknown database",
        run: |trial| trial.run(&backup_statement("Sales", "nightly", 1, "")),
        client: &[(911, 1), (3013, 1)],
        says: &[
            "Database 'Sales' does not exist. Make sure that the name is entered correctly.",
            "upper and lower case differ",
        ],
        log: &[3041],
        logs: &["BACKUP failed to complete the command BACKUP DATABASE Sales."],
    },
    Row {
        situation: "RESTORE to a name that no database can have",
        run: |trial| trial.run(&restore_statement("a/b", "nightly", 1, "")),
        client: &[(3123, 1), (3013, 1)],
        says: &["Invalid database name 'a/b' specified for backup or restore operation."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "no statement",
        run: |trial| trial.run("BACKUP DATABASE sales TOO VIRTUAL_DEVICE = 'nightly'"),
        client: &[(102, 1)],
        says: &["Incorrect syntax near 'TOO'.", "expected TO"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "an option of another statement",
        run: |trial| trial.run(&backup_statement("sales", "nightly", 1, "REPLACE")),
        client: &[(3032, 1), (3013, 1)],
        says: &["One or more of the options (replace) are not supported for this statement."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "options that conflict",
        run: |trial| trial.run(&backup_statement("sales", "nightly", 1, "INIT, NOINIT")),
        client: &[(3031, 1), (3013, 1)],
        says: &["Option 'noinit' conflicts with option(s) 'init'."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "a value out of range",
        run: |trial| trial.run(&backup_statement("sales", "nightly", 1, "BLOCKSIZE = 1000")),
        client: &[(3217, 1), (3013, 1)],
        says: &["Invalid value specified for BLOCKSIZE parameter.", "a power of two from 512 to 65536"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "what SQL Server does and the simulator does not",
        run: |trial| trial.run(&backup_statement("sales", "nightly", 1, "DIFFERENTIAL")),
        client: &[(50000, 1)],
        says: &["the option DIFFERENTIAL is not supported yet by this simulator: back up the whole database"],
        log: &[],
        logs: &[],
    },
];

/// Number and state of each error that a program printed.
fn errors(text: &str) -> Vec<(u32, u8)> {
    let header = |line: &str| {
        let (number, rest) = line.strip_prefix("Msg ")?.split_once(", Level ")?;
        let (_, rest) = rest.split_once(", State ")?;
        Some((number.parse().ok()?, rest.split_once(',')?.0.parse().ok()?))
    };
    text.lines().filter_map(header).collect()
}

/// The numbers in an error log.
fn logged(text: &str) -> Vec<u32> {
    let number = |line: &str| line.split_once(" Error: ")?.1.split_once(',')?.0.parse().ok();
    text.lines().filter_map(number).collect()
}

#[test]
fn every_situation_has_sql_server_s_messages() {
    for row in ROWS {
        let trial = Trial::new();
        let Outcome { status, text } = (row.run)(&trial);
        let situation = row.situation;
        assert_eq!(status.code(), Some(1), "{situation}: {text}");
        assert_eq!(errors(&text), row.client, "{situation}: {text}");
        let log = fs::read_to_string(trial.log()).unwrap();
        assert_eq!(logged(&log), row.log, "{situation}: {log}");
        for (part, whole) in row.says.iter().map(|part| (part, &text)).chain(row.logs.iter().map(|part| (part, &log))) {
            assert!(whole.contains(part), "{situation}: {part:?} is missing in {whole}");
        }
        for sign in ["Some(", "None", "Details", "Error(", "Error {", "0ns", "VdsError"] {
            assert!(!text.contains(sign) && !log.contains(sign), "{situation}: {sign:?} in {text}{log}");
        }
        for line in text.lines() {
            let parts: Vec<_> = line.split(": ").collect();
            assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "{situation}: said twice: {line}");
        }
        // Not the bare numbers: the number of a process may be one of these.
        assert!(!text.contains("Msg 18210,") && !text.contains("Msg 3041,"), "{situation}: {text}");
        let explained = text.lines().filter(|line| !line.starts_with("Msg ")).count();
        assert!(row.client.len() < 2 || explained > row.client.len(), "{situation}: no evidence in {text}");
    }
}

/// `sqlcmd` prints what `vdi-sim sql` prints.
#[test]
fn both_programs_say_the_same() {
    let trial = Trial::new();
    let programs = tempfile::tempdir().unwrap();
    let sqlcmd = programs.path().join("sqlcmd");
    symlink(env!("CARGO_BIN_EXE_vdi-sim"), &sqlcmd).unwrap();
    let (bench, log) = (&trial.0, trial.log());
    for statement in [
        backup(),
        restore("MOVE 'a' TO 'b'"),
        backup_statement("Sales", "nightly", 1, "COMPRESSION"),
        backup_statement("sales", "nightly", 65, ""),
        restore_statement("master", "nightly", 1, ""),
        "BACKUP DATABASE sales TOO x".to_owned(),
        "BACKUP DATABASE sales TO VIRTUAL_DEVICE='x' WITH STATS = 0".to_owned(),
        "BACKUP DATABASE sales TO VIRTUAL_DEVICE='x".to_owned(),
    ] {
        let said = trial.run(&statement).text;
        let mut command = Command::new(&sqlcmd);
        command.args(["-b", "-Q", &statement]).env("VDI_SIM_DATA", bench.data()).env("VDI_SIM_LOG", &log);
        for variable in ["SQLCMDSERVER", "SQLCMDDBNAME"] {
            command.env_remove(variable);
        }
        let outcome = bench.run(command).outcome();
        assert_eq!((outcome.status.code(), outcome.text), (Some(1), said), "{statement}");
    }
    // Twice each: the log goes on.
    assert_eq!(logged(&fs::read_to_string(&log).unwrap()), [18210, 3041, 18210, 3041, 3041, 3041]);
}

#[test]
fn options_that_ask_for_nothing_are_taken() {
    let trial = Trial::new();
    let bench = &trial.0;
    let options = "COMPRESSION (ALGORITHM = ZSTD, LEVEL = HIGH), EXPIREDATE = '2030-01-01', RETAINDAYS = 7, MEDIANAME = 'm', NAME = 'n', \
                   DESCRIPTION = 'd', MEDIADESCRIPTION = 'md', FORMAT, INIT, SKIP, NOREWIND, NOUNLOAD, STOP_ON_ERROR, CHECKSUM, \
                   COPY_ONLY, RESTART, STATS = 50";
    let outcome = bench.back_up("sales", 1, options);
    let remark = "COMPRESSION: the stream stays uncompressed; ALGORITHM and LEVEL have no effect\n";
    assert!(outcome.text.starts_with(remark), "{outcome:#?}");
    let options = "FILE = 1, MEDIANAME = 'm', REPLACE, RECOVERY, RESTART, KEEP_REPLICATION, KEEP_CDC, NEW_BROKER, NOUNLOAD, REWIND, \
                   CHECKSUM, STOP_ON_ERROR, STATS";
    let outcome = bench.restore("copy", 1, options);
    assert!(!outcome.text.contains("COMPRESSION"), "{outcome:#?}");
    bench.assert_identical("sales", "copy");
    let outcome = bench.back_up("sales", 1, "NO_COMPRESSION, NOFORMAT, NOINIT, NOSKIP, REWIND, UNLOAD, NO_CHECKSUM");
    assert!(outcome.text.starts_with("Processed "), "{outcome:#?}");
}
