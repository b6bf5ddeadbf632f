//! The grammar, rule by rule, and its two laws: no text makes it panic, and what is written is what is understood.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::options::Kind;
use super::*;
use crate::messages::OWN_NUMBER;

fn backup_of(sql: &str) -> Backup {
    match parse(sql) {
        Ok(Statement::Backup(backup)) => backup,
        other => panic!("{sql}: {other:?}"),
    }
}

fn restore_of(sql: &str) -> Restore {
    match parse(sql) {
        Ok(Statement::Restore(restore)) => restore,
        other => panic!("{sql}: {other:?}"),
    }
}

fn error_of(sql: &str) -> TsqlError {
    parse(sql).expect_err(sql)
}

#[test]
fn statements_of_well_known_clients() {
    let guid = "BACKUP DATABASE pubs TO VIRTUAL_DEVICE='{5A1C7D4E-0001-4A52-9F00-112233445566}'";
    assert_eq!(backup_of(guid).devices.names, ["{5A1C7D4E-0001-4A52-9F00-112233445566}"]);

    let two = backup_of("BACKUP DATABASE [d] TO VIRTUAL_DEVICE = N'a',VIRTUAL_DEVICE=N'dev1' WITH nounload , stats");
    assert_eq!(two.devices.names, ["a", "dev1"]);
    assert_eq!((two.options.unload, two.options.stats), (Some(false), Some(10)));

    let sizes = backup_of(
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH BLOCKSIZE=65536, BUFFERCOUNT=10, MAXTRANSFERSIZE=65536",
    );
    assert_eq!(sizes.options.block_size, Some(65536));
    assert_eq!(sizes.options.buffer_count, Some(10));
    assert_eq!(sizes.options.max_transfer_size, Some(65536));

    let restore = restore_of("restore database d from virtual_device='x' with replace, recovery, file = 1;;");
    assert!(restore.options.replace);
    assert_eq!(restore.options.file, Some(1));

    assert_eq!(backup_of(guid).options, BackupOptions::default());
    assert_eq!(parse(guid).map(|statement| statement.verb()), Ok(Verb::Backup));
}

#[test]
fn texts_are_kept() {
    let options = backup_of(
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH FORMAT, NOINIT, SKIP, REWIND, COPY_ONLY, CHECKSUM, STOP_ON_ERROR,
         NAME = 'it''s', DESCRIPTION = N'ünï', MEDIANAME = '', MEDIADESCRIPTION = 'm' -- done",
    )
    .options;
    assert!(options.copy_only);
    assert_eq!(
        (options.format, options.init, options.skip, options.rewind, options.checksum),
        (Some(true), Some(false), Some(true), Some(true), Some(true))
    );
    assert_eq!(options.name.as_deref(), Some("it's"));
    assert_eq!(options.description.as_deref(), Some("ünï"));
    assert_eq!(options.media_name.as_deref(), Some(""));
    assert_eq!(options.media_description.as_deref(), Some("m"));
}

#[test]
fn names_and_their_quoting() {
    for (written, name) in [
        ("d", "d"),
        ("[a]]b]", "a]b"),
        ("\"a\"\"b\"", "a\"b"),
        ("[with space]", "with space"),
        ("[TO]", "TO"),
        ("log", "log"),
        ("#d_1$", "#d_1$"),
        ("/* c */ d --", "d"),
    ] {
        let sql = format!("BACKUP DATABASE {written}\nTO VIRTUAL_DEVICE='x'");
        assert_eq!(backup_of(&sql).database, name, "{sql}");
    }
    let long = "é".repeat(128);
    assert_eq!(backup_of(&format!("BACKUP DATABASE {long} TO VIRTUAL_DEVICE='{long}'")).devices.names, [long]);
}

#[test]
fn syntax_errors_name_the_word_and_its_place() {
    for (sql, near, line, column) in [
        ("BACKUP DATABASE d\n FORM VIRTUAL_DEVICE='x'", "FORM", 2, 2),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE", "VIRTUAL_DEVICE", 1, 36),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = x", "x", 1, 39),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x' 'y'", "y", 1, 43),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x'; x", "x", 1, 44),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x',", ",", 1, 43),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x' WITH STATS = '5'", "5", 1, 56),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x' WITH STATS = -5", "-", 1, 56),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x' WITH BLOCKSIZE", "BLOCKSIZE", 1, 57),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE = 'x' WITH FORMAT = 1", "=", 1, 55),
        ("BACKUP DATABASE a.b TO VIRTUAL_DEVICE = 'x'", ".", 1, 18),
        ("BACKUP DATABASE 'd' TO VIRTUAL_DEVICE = 'x'", "d", 1, 17),
        ("RESTORE DATABASE d TO1 VIRTUAL_DEVICE = 'x'", "TO1", 1, 20),
        ("FROBNICATE", "FROBNICATE", 1, 1),
        ("", "", 1, 1),
    ] {
        match error_of(sql) {
            TsqlError::Syntax { near: found, line: l, column: c, .. } => {
                assert_eq!((found.as_str(), l, c), (near, line, column), "{sql}");
            }
            other => panic!("{sql}: {other:?}"),
        }
        let message = error_of(sql).message();
        assert_eq!((message.number, message.severity, message.line), (102, 15, line));
        assert_eq!(message.text, format!("Incorrect syntax near '{near}'."));
    }
    let keyword = error_of("BACKUP DATABASE to VIRTUAL_DEVICE='x'").message();
    assert_eq!((keyword.number, keyword.text.as_str()), (156, "Incorrect syntax near the keyword 'TO'."));
    assert_eq!(error_of("BACKUP DATABASE d TO VIRTUAL_DEVICE='x").message().number, 105);
    assert_eq!(error_of("BACKUP DATABASE d TO VIRTUAL_DEVICE=N'x").message().number, 105);
    assert_eq!(error_of("BACKUP DATABASE [d TO VIRTUAL_DEVICE").message().number, 105);
    assert_eq!(error_of("BACKUP DATABASE d /* TO").message().number, 113);
}

#[test]
fn what_is_not_done_yet_is_no_syntax_error() {
    for sql in [
        "BACKUP LOG d TO VIRTUAL_DEVICE='x'",
        "RESTORE LOG d FROM VIRTUAL_DEVICE='x'",
        "RESTORE DATABASE d FILE = 'f' FROM VIRTUAL_DEVICE='x'",
        "RESTORE VERIFYONLY FROM VIRTUAL_DEVICE='x' WITH LOADHISTORY",
        "RESTORE DATABASE d WITH RECOVERY",
        "RESTORE DATABASE d",
        "BACKUP DATABASE d TO URL='x'",
        "BACKUP DATABASE d TO DISK='x', VIRTUAL_DEVICE='y'",
        "BACKUP DATABASE d TO dev1",
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='x' MIRROR TO VIRTUAL_DEVICE='y'",
        "BACKUP DATABASE d READ_WRITE_FILEGROUPS TO VIRTUAL_DEVICE='x'",
        "BACKUP DATABASE d TO @device",
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH DIFFERENTIAL",
        "RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH norecovery",
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH ENCRYPTION (ALGORITHM = AES_256)",
        "RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH STANDBY = 'a'",
        "RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH STOPAT = '2020-01-01'",
        "SELECT @@version",
        "use d",
    ] {
        let error = error_of(sql);
        assert!(matches!(error, TsqlError::NotSupportedYet { .. }), "{sql}: {error:?}");
        assert!(error.to_string().contains("not supported yet by this simulator: "), "{error}");
        assert!(error.message().is_error());
    }
}

#[test]
fn options_that_do_not_fit() {
    let with = |verb: &str, options: &str| match verb {
        "B" => error_of(&format!("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH {options}")),
        "L" => error_of(&format!("RESTORE LABELONLY FROM VIRTUAL_DEVICE='x' WITH {options}")),
        "V" => error_of(&format!("RESTORE VERIFYONLY FROM VIRTUAL_DEVICE='x' WITH {options}")),
        _ => error_of(&format!("RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH {options}")),
    };
    for (verb, options, number) in [
        ("B", "REPLACE", 3032),
        ("B", "NORECOVERY", 3032),
        ("R", "FORMAT", 3032),
        ("R", "NAME = 'x'", 3032),
        ("R", "DIFFERENTIAL", 3032),
        ("B", "STATS, STATS = 5", 3031),
        ("B", "copy_only, COPY_ONLY", 3031),
        ("B", "INIT, NOINIT", 3031),
        ("R", "SNAPSHOT, snapshot", 3031),
        ("R", "RECOVERY, RECOVERY", 3031),
        ("B", "COMPRESSION, NO_COMPRESSION", 3031),
        ("B", "NO_COMPRESSION, COMPRESSION (LEVEL = LOW)", 3031),
        ("B", "RETAINDAYS = 1, RETAINDAYS = 1", 3031),
        ("B", "RETAINDAYS = 100000", 3217),
        ("B", "COMPRESSION ()", 102),
        ("B", "COMPRESSION (ALGORITHM)", 102),
        ("B", "COMPRESSION (ALGORITHM = ZSTD", 102),
        ("B", "COMPRESSION (SPEED = LOW)", 102),
        ("B", "NO_TRUNCATE", 3032),
        ("R", "LOADHISTORY", 3032),
        ("L", "FILE = 1", 3032),
        ("L", "STATS", 3032),
        ("L", "REPLACE", 3032),
        ("V", "NORECOVERY", 3032),
        ("V", "FROB", 155),
        ("R", "MOVE 'a' TO 'b', MOVE 'a' TO 'c'", 3031),
        ("R", "MOVE 'a'", 102),
        ("R", "MOVE 'a' TO ''", 5105),
        ("R", "CONTINUE_AFTER_ERROR, STOP_ON_ERROR", 3031),
        ("B", "EXPIREDATE = 'tomorrow'", 3217),
        ("B", "EXPIREDATE = '2030-02-30'", 3217),
        ("B", "NAME = 'a', NAME = 'a'", 3031),
        ("B", "FROB", 155),
        ("B", "FROB = 1", 155),
        ("B", "STATS = 0", 3217),
        ("B", "STATS = 101", 3217),
        ("B", "STATS = 1.5", 3217),
        ("B", "MAXTRANSFERSIZE = 65535", 3217),
        ("B", "MAXTRANSFERSIZE = 0", 3217),
        ("B", "MAXTRANSFERSIZE = 4259840", 3217),
        ("B", "MAXTRANSFERSIZE = 99999999999999999999", 3217),
        ("B", "BLOCKSIZE = 256", 3217),
        ("B", "BLOCKSIZE = 1000", 3217),
        ("B", "BLOCKSIZE = 131072", 3217),
        ("B", "BUFFERCOUNT = 0", 3217),
        ("B", "BUFFERCOUNT = 2147483648", 3217),
        ("R", "FILE = 0", 3217),
    ] {
        assert_eq!(with(verb, options).message().number, number, "{verb} {options}");
    }
    let long = with("B", &format!("NAME = '{}'", "n".repeat(129)));
    assert!(matches!(long, TsqlError::InvalidValue { option: "NAME", .. }), "{long:?}");
}

#[test]
fn device_lists_have_their_limits() {
    let list = |count: usize| {
        let devices: Vec<String> = (0..count).map(|i| format!("VIRTUAL_DEVICE='{i}'")).collect();
        parse(&format!("BACKUP DATABASE d TO {}", devices.join(", ")))
    };
    assert!(list(64).is_ok());
    assert!(matches!(list(65), Err(TsqlError::TooManyDevices { .. })));
    assert!(matches!(
        error_of("BACKUP DATABASE d TO VIRTUAL_DEVICE='x', VIRTUAL_DEVICE=N'x'"),
        TsqlError::DuplicateDevice { line: 1, column: 57, .. }
    ));
    // The names of devices are case-sensitive.
    assert_eq!(backup_of("BACKUP DATABASE d TO VIRTUAL_DEVICE='x', VIRTUAL_DEVICE='X'").devices.names.len(), 2);
    for name in ["", "a\\b", &"x".repeat(129), "a\0b"] {
        let error = error_of(&format!("BACKUP DATABASE d TO VIRTUAL_DEVICE='{name}'"));
        assert!(matches!(error, TsqlError::InvalidName { what: "virtual device", .. }), "{error:?}");
    }
    for name in ["[]", &"x".repeat(129)] {
        let error = error_of(&format!("BACKUP DATABASE {name} TO VIRTUAL_DEVICE='x'"));
        assert!(matches!(error, TsqlError::InvalidName { what: "database", .. }), "{error:?}");
    }
}

#[test]
fn a_snapshot_has_one_device() {
    assert!(backup_of("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH COPY_ONLY, snapshot").options.snapshot);
    assert!(!backup_of("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH COPY_ONLY").options.snapshot);
    assert!(restore_of("RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH SNAPSHOT, REPLACE").options.snapshot);
    assert!(!restore_of("RESTORE DATABASE d FROM VIRTUAL_DEVICE='x'").options.snapshot);
    for statement in ["BACKUP DATABASE d TO", "RESTORE DATABASE d FROM"] {
        let error = error_of(&format!("{statement}\n VIRTUAL_DEVICE='x', VIRTUAL_DEVICE='y'\n WITH STATS, SNAPSHOT"));
        assert_eq!(
            error,
            TsqlError::SnapshotDevices { found: 2, device_type: DeviceType::Virtual, line: 3, column: 2 }
        );
        let message = error.message();
        assert_eq!((message.number, message.line), (3277, 3));
        assert!(error.to_string().contains("a snapshot uses one virtual device only"), "{error}");
        let error = error_of(&format!("{statement} DISK='x' WITH SNAPSHOT"));
        assert_eq!(error.message().number, 3277);
        assert!(error.to_string().contains("SNAPSHOT with 1 device of type DISK: a snapshot uses"), "{error}");
    }
}

#[test]
fn files_of_the_server_are_devices() {
    let backup = backup_of("BACKUP DATABASE d TO DISK = N'C:\\a.bak', disk='b'");
    assert_eq!(
        backup.devices,
        Devices { device_type: DeviceType::Disk, names: vec!["C:\\a.bak".to_owned(), "b".to_owned()] }
    );
    assert_eq!(restore_of("RESTORE DATABASE d FROM DISK='a'").devices.device_type, DeviceType::Disk);
    for (path, number) in [(String::new(), 3044), ("x".repeat(260), 3057), ("a\0b".to_owned(), OWN_NUMBER)] {
        let error = error_of(&format!("BACKUP DATABASE d TO DISK='{path}'"));
        assert_eq!(error.message().number, number, "{error}");
    }
    let mixed = error_of("BACKUP DATABASE d TO VIRTUAL_DEVICE='x',\n DISK='y'");
    assert!(mixed.to_string().contains("name devices of one type, VIRTUAL_DEVICE or DISK"), "{mixed}");
    assert_eq!(mixed.position(), (2, 2));
}

#[test]
fn parts_of_a_database_are_named() {
    let parts = |text: &str| {
        parse(&format!("BACKUP DATABASE d {text} TO DISK='x'")).map(|statement| match statement {
            Statement::Backup(backup) => backup.parts,
            other => panic!("{other:?}"),
        })
    };
    let (file, filegroup) = (BackupPart::File("a".to_owned()), BackupPart::Filegroup("it's".to_owned()));
    assert_eq!(parts(""), Ok(Vec::new()));
    assert_eq!(parts("FILE = 'a'"), Ok(vec![file.clone()]));
    assert_eq!(parts("filegroup=N'it''s' , FILE = 'a'"), Ok(vec![filegroup, file]));
    for text in ["FILE", "FILE = a", "FILE = 'a',", "FILE = 'a' FILE = 'b'", ", FILE = 'a'"] {
        assert!(matches!(parts(text), Err(TsqlError::Syntax { .. } | TsqlError::Keyword { .. })), "{text}");
    }
}

#[test]
fn inspections_are_statements_of_their_own() {
    for (word, what, title) in [
        ("labelonly", Inspection::Label, "RESTORE LABELONLY"),
        ("HEADERONLY", Inspection::Header, "RESTORE HEADERONLY"),
        ("FILELISTONLY", Inspection::FileList, "RESTORE FILELIST"),
        ("VerifyOnly", Inspection::Verify, "VERIFY DATABASE"),
    ] {
        let statement = parse(&format!("restore {word} from virtual_device='x', virtual_device='y' with nounload;"));
        let statement = statement.unwrap();
        assert_eq!((statement.title(), statement.verb()), (title, Verb::Restore));
        let Statement::Inspect(inspect) = statement else { panic!("{word}: {statement:?}") };
        assert_eq!((inspect.what, inspect.devices.names.len(), inspect.options.unload), (what, 2, Some(false)));
        assert!(matches!(error_of(&format!("RESTORE {word} d FROM DISK='x'")), TsqlError::Syntax { .. }), "{word}");
    }
    let verify =
        "RESTORE VERIFYONLY FROM DISK='x' WITH FILE = 2, CHECKSUM, STATS, MOVE 'a' TO 'b', CONTINUE_AFTER_ERROR";
    let Ok(Statement::Inspect(Inspect { options, .. })) = parse(verify) else { panic!("{verify}") };
    assert_eq!((options.file, options.checksum, options.stats), (Some(2), Some(true), Some(10)));
    assert_eq!((options.moves.len(), options.continue_after_error), (1, true));
}

#[test]
fn files_are_moved_and_errors_passed_over() {
    let options = restore_of(
        "RESTORE DATABASE d FROM DISK='x' WITH MOVE 'a' TO '/data/b.mdf', FILE = 3, MOVE N'A' TO N'c', CONTINUE_AFTER_ERROR",
    )
    .options;
    let moves = [("a", "/data/b.mdf"), ("A", "c")].map(|(name, path)| (name.to_owned(), path.to_owned()));
    assert_eq!((options.moves, options.file, options.continue_after_error), (moves.to_vec(), Some(3), true));
    assert!(!restore_of("RESTORE DATABASE d FROM DISK='x' WITH STOP_ON_ERROR").options.continue_after_error);
    assert!(backup_of("BACKUP DATABASE d TO DISK='x' WITH CONTINUE_AFTER_ERROR").options.continue_after_error);
}

#[test]
fn a_backup_expires() {
    for (options, expected) in [
        ("COPY_ONLY", None),
        ("RETAINDAYS = 14", Some(Expiry::Days(14))),
        ("EXPIREDATE = '12/31/2030'", Some(Expiry::Date("2030-12-31 00:00:00".to_owned()))),
        ("EXPIREDATE = '12/31/2030', RETAINDAYS = 0", Some(Expiry::Days(0))),
    ] {
        assert_eq!(backup_of(&format!("BACKUP DATABASE d TO DISK='x' WITH {options}")).options.expires, expected);
    }
}

/// Every option does what the table says, in each statement that may have it.
#[test]
fn every_option_is_taken_or_refused_as_the_table_says() {
    for rule in options::RULES {
        for (kind, word) in options::KINDS {
            let sql = match kind {
                Kind::Backup => format!("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH {}", rule.example()),
                Kind::Restore => format!("RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH {}", rule.example()),
                Kind::Inspect(_) => format!("RESTORE {word} FROM VIRTUAL_DEVICE='x' WITH {}", rule.example()),
            };
            match (parse(&sql), rule.statements.allow(kind), rule.stance()) {
                (Err(error), false, _) => assert_eq!(error.message().number, 3032, "{sql}: {error}"),
                (Err(TsqlError::NotSupportedYet { remedy, .. }), true, "refused") => assert_eq!(remedy, rule.note),
                (Ok(Statement::Backup(backup)), true, stance @ ("taken" | "taken, with a remark")) => {
                    assert_eq!(backup.options.remarks().count(), usize::from(stance != "taken"), "{sql}");
                }
                (Ok(Statement::Restore(_) | Statement::Inspect(_)), true, "taken") => {}
                (found, ..) => panic!("{sql}: {found:?}"),
            }
        }
    }
}

#[test]
fn the_options_are_those_of_the_documentation() {
    let document = include_str!("../../docs/statements.md");
    let listed: Vec<&str> = document
        .lines()
        .skip_while(|line| !line.starts_with("| option |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = options::RULES
        .chunk_by(|one, next| {
            (one.for_statements(), one.stance(), one.note) == (next.for_statements(), next.stance(), next.note)
        })
        .map(|rules| {
            let names: Vec<_> = rules.iter().map(|rule| rule.name).collect();
            let rule = &rules[0];
            format!("| {} | {} | {} | {} |", names.join(", "), rule.for_statements(), rule.stance(), rule.note)
        })
        .collect();
    assert_eq!(listed, expected, "docs/statements.md should have:\n{}", expected.join("\n"));
}

/// What a user can do about a refusal is not to leave out what he needs.
#[test]
fn leave_it_out_is_said_only_where_that_changes_nothing() {
    let may = [
        "CREDENTIAL",
        "BACKUP_OPTIONS",
        "RESTORE_OPTIONS",
        "RESTRICTED_USER",
        "FILESTREAM",
        "PASSWORD",
        "MEDIAPASSWORD",
        "LOADHISTORY",
    ];
    for rule in options::RULES.iter().filter(|rule| rule.stance() == "refused") {
        assert_eq!(rule.note.contains("leave it out"), may.contains(&rule.name), "{}: {}", rule.name, rule.note);
    }
}

/// Every error but a refusal has SQL Server's number first, then what was expected, then 3013 where BACKUP or RESTORE raised it.
#[test]
fn the_messages_of_an_error_come_in_their_order() {
    for (sql, expected) in [
        ("BACKUP DATABASE d FORM x", &[(102, 15), (50000, 0)][..]),
        ("BACKUP DATABASE to TO x", &[(156, 15), (50000, 0)]),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH FROB", &[(155, 15), (50000, 0)]),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH STATS=0", &[(3217, 16), (50000, 0), (3013, 16)]),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE='x' WITH REPLACE", &[(3032, 16), (50000, 0), (3013, 16)]),
        ("RESTORE DATABASE d FROM VIRTUAL_DEVICE='x' WITH PARTIAL", &[(50000, 16)]),
        ("BACKUP DATABASE [] TO VIRTUAL_DEVICE='x'", &[(1038, 15), (50000, 0)]),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE=''", &[(3044, 16), (50000, 0), (3013, 16)]),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE='x\\'", &[(50000, 16)]),
        ("BACKUP DATABASE d TO VIRTUAL_DEVICE='x', VIRTUAL_DEVICE='x'", &[(50000, 16)]),
    ] {
        let messages = parse_batch(sql, &[]).expect_err(sql).messages();
        let found: Vec<_> = messages.iter().map(|message| (message.number, message.severity)).collect();
        assert_eq!(found, expected, "{sql}: {messages:?}");
    }
    let refusal = parse_batch("RESTORE FILELISTONLY FROM DISK='x' WITH STATS", &[]).unwrap_err();
    assert_eq!(refusal.messages().last().unwrap().text, "RESTORE FILELIST is terminating abnormally.");
    for (name, number) in [("x".repeat(129), 103), ("a\0b".to_owned(), 3123)] {
        assert_eq!(error_of(&format!("BACKUP DATABASE [{name}] TO VIRTUAL_DEVICE='x'")).message().number, number);
    }
    let long = format!("BACKUP DATABASE d TO VIRTUAL_DEVICE='{}'", "x".repeat(129));
    assert_eq!(error_of(&long).message().number, 3057);
}

/// A word with each letter's case chosen by the bits of `seed`.
fn random_case(word: &str, seed: u64) -> String {
    word.chars()
        .enumerate()
        .map(|(i, c)| if seed >> (i % 64) & 1 == 0 { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
        .collect()
}

fn spaces() -> impl Strategy<Value = String> {
    prop::sample::select(vec![" ", "  ", "\n", "\t \r\n", " /* TO */ ", " -- x'\n"]).prop_map(str::to_owned)
}

fn quoted_name() -> impl Strategy<Value = (String, String)> {
    ("[^\\\\\0]{1,20}", 0..3u8).prop_map(|(name, style)| match style {
        0 => (format!("[{}]", name.replace(']', "]]")), name),
        1 => (format!("\"{}\"", name.replace('"', "\"\"")), name),
        _ => {
            let bare: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            (format!("d_{bare}"), format!("d_{bare}"))
        }
    })
}

fn options() -> impl Strategy<Value = (String, BackupOptions)> {
    (
        any::<[bool; 3]>(),
        prop::option::of(1..=100u8),
        prop::option::of(1..=64u32),
        prop::option::of(9..=16u32),
        prop::option::of(1..=i32::MAX.unsigned_abs()),
        prop::option::of("[^\0]{0,20}"),
        any::<u64>(),
    )
        .prop_map(|(flags, stats, transfer, block, buffers, name, seed)| {
            let mut words = Vec::new();
            let mut options = BackupOptions { copy_only: flags[0], stats, name, ..BackupOptions::default() };
            if flags[0] {
                words.push(random_case("COPY_ONLY", seed));
            }
            if flags[1] {
                options.format = Some(flags[2]);
                words.push(random_case(if flags[2] { "FORMAT" } else { "NOFORMAT" }, seed));
            }
            if let Some(percent) = stats {
                words.push(format!("{}={percent}", random_case("STATS", seed)));
            }
            options.max_transfer_size = transfer.map(|n| n * 65536);
            if let Some(bytes) = options.max_transfer_size {
                words.push(format!("{} = {bytes}", random_case("MAXTRANSFERSIZE", seed)));
            }
            options.block_size = block.map(|n| 1 << n);
            if let Some(bytes) = options.block_size {
                words.push(format!("{}= {bytes}", random_case("BLOCKSIZE", seed)));
            }
            options.buffer_count = buffers;
            if let Some(count) = buffers {
                words.push(format!("{} ={count}", random_case("BUFFERCOUNT", seed)));
            }
            if let Some(name) = &options.name {
                let prefix = if seed % 2 == 0 { "N" } else { "" };
                words.push(format!("NAME = {prefix}'{}'", name.replace('\'', "''")));
            }
            if seed % 3 == 0 {
                words.reverse();
            }
            (words.join(if seed % 5 == 0 { "," } else { " , " }), options)
        })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(sql in "\\PC*") {
        let _ = parse(&sql).map_err(|error| (error.to_string(), error.message()));
    }

    #[test]
    fn no_mixture_of_words_makes_it_panic(words in prop::collection::vec(prop::sample::select(vec![
        "BACKUP", "RESTORE", "DATABASE", "LOG", "TO", "FROM", "WITH", "VIRTUAL_DEVICE", "=", ",", ";", "'x'", "N'", "[", "]", "\"",
        "STATS", "FORMAT", "MOVE", "DISK", "HEADERONLY", "FILE", "EXPIREDATE", "@p", "1", "-", "1e", "0x", "$", "/*", "*/", "--", "\n", "d", ".", "é", "\0", "\u{202e}", "1.e+",
    ]), 0..24), glue in prop::sample::select(vec!["", " "])) {
        let _ = parse(&words.join(glue)).map_err(|error| (error.to_string(), error.message()));
    }

    #[test]
    fn what_is_written_is_understood(
        backup in any::<bool>(),
        (written, database) in quoted_name(),
        devices in prop::collection::btree_set("[^\\\\\0]{1,16}", 1..8),
        (clause, options) in options(),
        space in spaces(),
        seed in any::<u64>(),
    ) {
        let devices = Devices { device_type: DeviceType::Virtual, names: devices.into_iter().collect() };
        let list: Vec<String> = devices
            .names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let prefix = if seed >> i & 1 == 0 { "N" } else { "" };
                format!("{}{space}={space}{prefix}'{}'", random_case("VIRTUAL_DEVICE", seed), name.replace('\'', "''"))
            })
            .collect();
        let (verb, to) = if backup { ("BACKUP", "TO") } else { ("RESTORE", "FROM") };
        let mut sql = format!(
            "{}{space}{}{space}{written}{space}{}{space}{}",
            random_case(verb, seed), random_case("DATABASE", seed >> 7), random_case(to, seed >> 3), list.join(","),
        );
        if backup && !clause.is_empty() {
            sql.push_str(&format!("{space}{}{space}{clause}", random_case("WITH", seed >> 11)));
        }
        if seed % 2 == 0 {
            sql.push(';');
        }
        let expected = if backup {
            let options = if clause.is_empty() { BackupOptions::default() } else { options };
            Statement::Backup(Backup { database, parts: Vec::new(), devices, options })
        } else {
            Statement::Restore(Restore { database, devices, options: RestoreOptions::default() })
        };
        prop_assert_eq!(parse(&sql), Ok(expected), "{}", sql);
    }
}
