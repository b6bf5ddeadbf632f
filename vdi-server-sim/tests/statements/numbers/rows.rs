//! The situations in which a statement fails or succeeds, and the messages that SQL Server has for each.

use super::*;

pub(super) const ROWS: &[Row] = &[
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
            set.get_configuration(TEST_TIMEOUT).unwrap();
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
            trial.serve(&statement, 3, Behaviour::Aborts { at: 2 }, false)
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
            let statement = copy_statement("sales", "copy", "nightly", 2, "");
            trial.serve(&statement, 2, Behaviour::Aborts { at: 2 }, true)
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
        says: &["Read on \"/", ".mdf\" failed: 1117(", "look for errors of that disk"],
        log: &[3041],
        logs: &[],
    },
    Row {
        situation: "not all media families",
        run: |trial| trial.restored(3, 2, "", |_| {}),
        client: &[(3132, 1), (3013, 1)],
        says: &[
            "The media set has 3 media families but only 2 are provided. All members must be provided.",
            "the backup was written to 3 devices, the statement names 2; name as many",
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
            "connect all devices to parts of one backup",
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
        says: &["The media family on device 'nightly' is incorrectly formed.", "it begins with ZZZZ, not with TAPE"],
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
        run: |trial| trial.restored(1, 1, "FILE = 2", |_| {}),
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
        situation: "RESTORE over another database",
        run: |trial| {
            trial.0.old_database("copy");
            trial.restored(1, 1, "", |_| {})
        },
        client: &[(3154, 1), (3013, 1)],
        says: &["The backup set holds a backup of a database other than the existing 'copy' database.", "REPLACE"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "RESTORE beside the original without MOVE",
        run: |trial| trial.restored_as("copy", ""),
        client: &[(1834, 1), (3156, 4), (3119, 1), (3013, 1)],
        says: &["cannot be overwritten.  It is being used by database 'sales'."],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "MOVE of a file that the backup does not have",
        run: |trial| trial.restored_as("copy", "MOVE 'nobody' TO 'nobody.mdf'"),
        client: &[(3234, 2), (3013, 1)],
        says: &["Logical file 'nobody' is not part of database"],
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
        situation: "RESTORE of msdb",
        run: |trial| trial.run(&restore_statement("msdb", "nightly", 1, "REPLACE")),
        client: &[(50000, 1), (3013, 1)],
        says: &["the system database msdb has no content in this simulator", "restore it under another name"],
        log: &[],
        logs: &[],
    },
    Row {
        situation: "BACKUP of master",
        run: |trial| trial.run(&backup_statement("Master", "nightly", 1, "")),
        client: &[(50000, 1), (3013, 1)],
        says: &["the system database Master has no content in this simulator", "back up a database of your own"],
        log: &[3041],
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
        run: |trial| trial.run(&backup_statement("Sale", "nightly", 1, "")),
        client: &[(911, 1), (3013, 1)],
        says: &["Database 'Sale' does not exist. Make sure that the name is entered correctly."],
        log: &[3041],
        logs: &["BACKUP failed to complete the command BACKUP DATABASE Sale."],
    },
    Row {
        situation: "RESTORE to a name that no database can have",
        run: |trial| trial.restored_as("a/b", "REPLACE"),
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
