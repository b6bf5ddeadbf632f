#![allow(clippy::unwrap_used, reason = "tests")]

use super::catalog::CATALOG;
use super::*;

/// Number, severity, state and sentence of SQL Server for the sample of each entry.
const EXPECTED: &[(u32, u8, u8, &str)] = &[
    (102, 15, 1, "Incorrect syntax near 'FORM'."),
    (103, 15, 4, "The identifier that starts with 'aaaa' is too long. Maximum length is 128."),
    (105, 15, 1, "Unclosed quotation mark after the character string 'x'."),
    (113, 15, 1, "Missing end comment mark '*/'."),
    (137, 15, 2, "Must declare the scalar variable \"@d\"."),
    (155, 15, 1, "'FROB' is not a recognized BACKUP option."),
    (156, 15, 1, "Incorrect syntax near the keyword 'TO'."),
    (226, 16, 6, "CREATE DATABASE statement not allowed within multi-statement transaction."),
    (574, 16, 0, "DROP DATABASE statement cannot be used inside a user transaction."),
    (701, 17, 123, "There is insufficient system memory in resource pool 'default' to run this query."),
    (911, 16, 1, "Database 'd' does not exist. Make sure that the name is entered correctly."),
    (927, 14, 2, "Database 'd' cannot be opened. It is in the middle of a restore."),
    (942, 14, 4, "Database 'd' cannot be opened because it is offline."),
    (
        945,
        14,
        2,
        "Database 'd' cannot be opened due to inaccessible files or insufficient memory or disk space. See the SQL Server errorlog for details.",
    ),
    (1036, 15, 2, "File option FILENAME is required in this CREATE/ALTER DATABASE statement."),
    (
        1038,
        15,
        4,
        "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name. For other statements, look for empty alias names. Aliases defined as \"\" or [] are not allowed. Change the alias to a valid name.",
    ),
    (1801, 16, 3, "Database 'd' already exists. Choose a different database name."),
    (1802, 16, 4, "CREATE DATABASE failed. Some file names listed could not be created. Check related errors."),
    (1828, 16, 3, "The logical file name \"d_log\" is already in use. Choose a different name."),
    (1834, 16, 1, "The file '/data/d.mdf' cannot be overwritten.  It is being used by database 'd'."),
    (
        1842,
        16,
        1,
        "The file size, max size cannot be greater than 2147483647 in units of a page size. The file growth cannot be greater than 2147483647 in units of both page size and percentage.",
    ),
    (
        3009,
        0,
        1,
        "Could not insert a backup or restore history/detail record in the msdb database. This may indicate a problem with the msdb database. The backup/restore operation was still successful.",
    ),
    (3013, 16, 1, "BACKUP DATABASE is terminating abnormally."),
    (3014, 0, 1, "BACKUP DATABASE successfully processed 450 pages in 0.046 seconds (76.427 MB/sec)."),
    (3021, 16, 0, "Cannot perform a backup or restore operation within a transaction."),
    (
        3023,
        16,
        1,
        "Backup, file manipulation operations (such as ALTER DATABASE ADD FILE) and encryption changes on a database must be serialized. Reissue the statement after the current backup or file manipulation operation is completed.",
    ),
    (3027, 16, 1, "The filegroup \"g\" is not part of database \"d\"."),
    (
        3031,
        16,
        1,
        "Option 'noinit' conflicts with option(s) 'init'. Remove the conflicting option and reissue the statement.",
    ),
    (
        3032,
        16,
        1,
        "One or more of the options (replace) are not supported for this statement. Review the documentation for supported options.",
    ),
    (
        3041,
        16,
        1,
        "BACKUP failed to complete the command BACKUP DATABASE d. Check the backup application log for detailed messages.",
    ),
    (
        3042,
        0,
        1,
        "BACKUP WITH CONTINUE_AFTER_ERROR successfully generated a backup of the damaged database. Refer to the SQL Server error log for information about the errors that were encountered.",
    ),
    (3043, 16, 1, "BACKUP 'd' detected an error on page (1:264) in file '/data/d.mdf'."),
    (3044, 16, 1, "Invalid zero-length device name. Reissue the BACKUP statement with a valid device name."),
    (
        3057,
        16,
        1,
        "Invalid device name. The length of the device name provided exceeds supported limit (maximum length is:128). Reissue the BACKUP statement with a valid device name.",
    ),
    (3101, 16, 1, "Exclusive access could not be obtained because the database is in use."),
    (
        3108,
        16,
        1,
        "To restore the master database, the server must be running in single-user mode. For information on starting in single-user mode, see \"How to: Start an Instance of SQL Server (sqlservr.exe)\" in Books Online.",
    ),
    (
        3119,
        16,
        1,
        "Problems were identified while planning for the RESTORE statement. Previous messages provide details.",
    ),
    (3123, 16, 1, "Invalid database name 'a/b' specified for backup or restore operation."),
    (3132, 16, 1, "The media set has 3 media families but only 2 are provided. All members must be provided."),
    (3147, 16, 1, "Backup and restore operations are not allowed on database tempdb."),
    (3154, 16, 1, "The backup set holds a backup of a database other than the existing 'd' database."),
    (
        3156,
        16,
        4,
        "File 'd_log' cannot be restored to '/data/d.ldf'. Use WITH MOVE to identify a valid location for the file.",
    ),
    (
        3159,
        16,
        1,
        "The tail of the log for the database \"d\" has not been backed up. Use BACKUP LOG WITH NORECOVERY to backup the log if it contains work you do not want to lose. Use the WITH REPLACE or WITH STOPAT clause of the RESTORE statement to just overwrite the contents of the log.",
    ),
    (3167, 16, 1, "RESTORE could not start database 'd'."),
    (
        3182,
        16,
        1,
        "The backup set cannot be restored because the database was damaged when the backup occurred. Salvage attempts may exploit WITH CONTINUE_AFTER_ERROR.",
    ),
    (3183, 16, 1, "RESTORE detected an error on page (1:243) in database \"d\" as read from the backup set."),
    (
        3184,
        0,
        1,
        "RESTORE WITH CONTINUE_AFTER_ERROR was successful but some damage was encountered. Inconsistencies in the database are possible.",
    ),
    (
        3187,
        16,
        1,
        "RESTORE WITH CHECKSUM cannot be specified because the backup set does not contain checksum information.",
    ),
    (3189, 16, 1, "Damage to the backup set was detected."),
    (
        3201,
        16,
        7,
        "Cannot open backup device 'dev'. Operating system error 0x80070002(The system cannot find the file specified.).",
    ),
    (3202, 16, 1, "Write on \"dev\" failed: 112(There is not enough space on the disk.)"),
    (3203, 16, 1, "Read on \"dev\" failed: 38(Reached the end of the file.)"),
    (3204, 16, 1, "The backup or restore was aborted."),
    (3205, 16, 1, "Too many backup devices specified for backup or restore; only 64 are allowed."),
    (3211, 0, 1, "10 percent processed."),
    (3217, 16, 1, "Invalid value specified for STATS parameter."),
    (3224, 16, 1, "Cannot create worker thread."),
    (
        3227,
        16,
        1,
        "The backup media on \"dev1\" is part of media family 1 which has already been processed on \"dev\". Ensure that backup devices are correctly specified. For tape devices, ensure that the correct volumes are loaded.",
    ),
    (
        3231,
        16,
        1,
        "The media loaded on \"dev\" is formatted to support 2 media families, but 3 media families are expected according to the backup device specification.",
    ),
    (
        3234,
        16,
        2,
        "Logical file 'f' is not part of database 'd'. Use RESTORE FILELISTONLY to list the logical file names.",
    ),
    (
        3235,
        16,
        1,
        "The file \"f\" is not part of database \"d\". You can only list files that are members of this database.",
    ),
    (
        3241,
        16,
        1,
        "The media family on device 'dev' is incorrectly formed. SQL Server cannot process this media family.",
    ),
    (3254, 16, 1, "The volume on device 'dev' is empty."),
    (
        3258,
        16,
        1,
        "The volume on the device \"dev\" is not part of the media set that is currently being processed. Ensure that the backup devices are loaded with the correct media.",
    ),
    (3261, 16, 1, "SQL Server cannot use the virtual device configuration."),
    (3262, 0, 1, "The backup set on file 1 is valid."),
    (
        3266,
        16,
        1,
        "The backup data at the end of \"/backups/d.bak\" is incorrectly formatted. Backup sets on the media might be damaged and unusable. To determine the backup sets on the media, use RESTORE HEADERONLY. To determine the usability of the backup sets, run RESTORE VERIFYONLY. If all of the backup sets are incomplete, reformat the media using BACKUP WITH FORMAT, which destroys all the backup sets.",
    ),
    (
        3271,
        16,
        1,
        "A nonrecoverable I/O error occurred on file \"dev:\" 995(The I/O operation has been aborted because of either a thread exit or an application request.).",
    ),
    (
        3272,
        16,
        1,
        "The 'dev' device has a hardware sector size of 512, but the block size parameter specifies an incompatible override value of 4096. Reissue the statement using a compatible block size.",
    ),
    (3276, 16, 1, "WITH SNAPSHOT can be used only if the backup set was created WITH SNAPSHOT."),
    (3277, 16, 1, "WITH SNAPSHOT must be used with only one virtual device."),
    (
        3634,
        16,
        1,
        "The operating system returned the error '5(Access is denied.)' while attempting 'open' on '/data/d/d.mdf'.",
    ),
    (3701, 11, 1, "Cannot drop the database 'd', because it does not exist or you do not have permission."),
    (3702, 16, 3, "Cannot drop database \"d\" because it is currently in use."),
    (3708, 16, 5, "Cannot drop the database 'master' because it is a system database."),
    (3902, 16, 1, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION."),
    (3903, 16, 1, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."),
    (4030, 16, 1, "The medium on device '/backups/d.bak' expires on 2031-05-06 07:08:09 and cannot be overwritten."),
    (4035, 0, 1, "Processed 344 pages for database 'd', file 'd_log' on file 1."),
    (4038, 16, 1, "Cannot find file ID 2 on device 'dev'."),
    (
        5011,
        14,
        5,
        "User does not have permission to alter database 'd', the database does not exist, or the database is not in a state that allows access checks.",
    ),
    (5058, 16, 1, "Option 'OFFLINE' cannot be set in database 'master'."),
    (5061, 16, 1, "ALTER DATABASE failed because a lock could not be placed on database 'd'. Try again later."),
    (5069, 16, 1, "ALTER DATABASE statement failed."),
    (
        5105,
        16,
        2,
        "A file activation error occurred. The physical file name '' may be incorrect. Diagnose and correct additional errors, and retry the operation.",
    ),
    (
        5120,
        16,
        101,
        "Unable to open the physical file \"/data/d.mdf\". Operating system error 2(The system cannot find the file specified.).",
    ),
    (
        5123,
        16,
        1,
        "CREATE FILE encountered operating system error 5(Access is denied.) while attempting to open or create the physical file '/data/d.mdf'.",
    ),
    (
        5133,
        16,
        1,
        "Directory lookup for the file \"/data/d.mdf\" failed with the operating system error 3(The system cannot find the path specified.).",
    ),
    (
        5170,
        16,
        1,
        "Cannot create file '/data/d.mdf' because it already exists. Change the file path or the file name, and retry the operation.",
    ),
    (
        5172,
        16,
        15,
        "The header for file '/data/d.mdf' is not a valid database file header. The FILE SIZE property is incorrect.",
    ),
    (5174, 16, 1, "Each file size must be greater than or equal to 512 KB."),
    (5701, 0, 2, "Changed database context to 'd'."),
    (9002, 17, 1, "The transaction log for database 'd' is full due to 'ACTIVE_BACKUP_OR_RESTORE'."),
    (
        18210,
        16,
        1,
        "BackupVirtualDeviceSet::Initialize: Open failure on backup device 'dev'. Operating system error 0x80070002(The system cannot find the file specified.).",
    ),
];

#[test]
fn catalog_has_sql_servers_messages() {
    let found: Vec<_> = CATALOG
        .iter()
        .map(|entry| {
            let message = (entry.sample)();
            assert_eq!((message.number, message.severity, message.state), (entry.number, entry.severity, entry.state));
            assert!(!message.text.contains(['{', '}']), "{message:?} has a placeholder");
            (message.number, message.severity, message.state, message.text)
        })
        .collect();
    for (found, expected) in found.iter().zip(EXPECTED) {
        assert_eq!((found.0, found.1, found.2, &*found.3), *expected);
    }
    assert_eq!(found.len(), EXPECTED.len(), "one expectation an entry");
    assert!(found.is_sorted_by_key(|(number, ..)| *number));
}

#[test]
fn information_is_displayed_without_a_header() {
    for (message, expected) in [
        (Message::percent_processed(10), "10 percent processed."),
        (
            Message::processed(Verb::Restore, 1, Duration::ZERO),
            "RESTORE DATABASE successfully processed 1 pages in 0.000 seconds (0.000 MB/sec).",
        ),
    ] {
        assert!(!message.is_error());
        assert_eq!(message.display("S").to_string(), expected);
    }
}

#[test]
fn errors_are_displayed_with_a_header() {
    let message = Message::incorrect_syntax("FORM").at_line(3);
    assert!(message.is_error());
    assert_eq!(
        message.display("HOST").to_string(),
        "Msg 102, Level 15, State 1, Server HOST, Line 3\nIncorrect syntax near 'FORM'."
    );
}

#[test]
fn rate_follows_the_rounded_time() {
    let message = Message::processed(Verb::Backup, 128, Duration::from_micros(999_600));
    assert!(message.text.ends_with("128 pages in 1.000 seconds (1.000 MB/sec)."), "{}", message.text);
    // The largest values do not overflow.
    let _ = Message::processed(Verb::Backup, u64::MAX, Duration::MAX);
}

#[test]
fn win32_codes_are_decimal_and_hresults_hexadecimal() {
    assert_eq!(OsError(112).to_string(), "112(There is not enough space on the disk.)");
    assert_eq!(OsError::NO_SUCH_SET.to_string(), "0x80070002(The system cannot find the file specified.)");
}

#[test]
fn completion_codes_have_texts() {
    let unknown = OsError(u32::MAX).text();
    for code in [0, 6, 7, 38, 39, 50, 112, 995, 1100, 1101, 1102, 1103, 1104, 1117, 1129, 1450, 2, 5] {
        assert_ne!(OsError(code).text(), unknown, "{code}");
        assert_eq!(OsError(0x8007_0000 | code).text(), OsError(code).text());
    }
    assert_eq!(OsError(u32::MAX).to_string(), "0xFFFFFFFF(No text is known for this code.)");
}

#[test]
fn system_errors_have_win32_codes() {
    use rustix::io::Errno;
    for (errno, code) in [
        (Errno::NOENT, 2),
        (Errno::ACCESS, 5),
        (Errno::PERM, 5),
        (Errno::NOMEM, 8),
        (Errno::ROFS, 19),
        (Errno::NOSPC, 112),
        (Errno::DQUOT, 112),
        (Errno::MFILE, 4),
        (Errno::IO, 1117),
        (Errno::XDEV, 31),
    ] {
        assert_eq!(OsError::from(&std::io::Error::from(errno)), OsError(code), "{errno}");
    }
}
