//! The table of messages: number, severity, state, and the sentence with its typed parameters.
//!
//! Each entry makes a constructor of [`Message`], and a row of `CATALOG` for the tests. Numbers, severities and sentences are
//! those of `sys.messages`. A severity of 10 there is 0 here, because the client of a statement receives 0.

use super::{Message, OsError, Verb};

/// A row of [`CATALOG`].
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) struct CatalogEntry {
    pub(super) number: u32,
    pub(super) severity: u8,
    pub(super) state: u8,
    /// The message with sample parameters.
    pub(super) sample: fn() -> Message,
}

macro_rules! catalog {
    ($(
        $(#[$doc:meta])*
        $number:literal, $severity:literal, $state:literal:
        $visibility:vis fn $name:ident($($parameter:ident: $type:ty = $sample:expr),*) => $template:literal;
    )*) => {
        impl Message {
            $(
                $(#[$doc])*
                #[must_use]
                $visibility fn $name($($parameter: $type),*) -> Message {
                    Message { state: $state, ..Message::new($number, $severity, format!($template)) }
                }
            )*
        }

        /// The messages of SQL Server that the simulator has, by number.
        #[cfg(test)]
        pub(super) static CATALOG: &[CatalogEntry] = &[$(
            CatalogEntry {
                number: $number,
                severity: $severity,
                state: $state,
                sample: || Message::$name($($sample),*),
            },
        )*];
    };
}

catalog! {
    /// 102: a syntax error at the word `near`.
    102, 15, 1: pub(crate) fn incorrect_syntax(near: &str = "FORM") => "Incorrect syntax near '{near}'.";

    /// 103: a name is longer than `most` characters.
    103, 15, 4: pub(crate) fn identifier_too_long(start: &str = "aaaa", most: usize = 128) =>
        "The identifier that starts with '{start}' is too long. Maximum length is {most}.";

    /// 105: the closing quotation mark of a string or name is missing.
    105, 15, 1: pub(crate) fn unclosed_quote(text: &str = "x") => "Unclosed quotation mark after the character string '{text}'.";

    /// 113: the end of a comment is missing.
    113, 15, 1: pub(crate) fn unclosed_comment() => "Missing end comment mark '*/'.";

    /// 137: the batch has no variable of this name.
    137, 15, 2: pub(crate) fn undeclared_variable(variable: &str = "@d") => "Must declare the scalar variable \"{variable}\".";

    /// 155: the option does not exist.
    155, 15, 1: pub(crate) fn unknown_option(option: &str = "FROB", verb: Verb = Verb::Backup) =>
        "'{option}' is not a recognized {verb} option.";

    /// 156: a syntax error at a reserved word.
    156, 15, 1: pub(crate) fn incorrect_syntax_keyword(keyword: &str = "TO") => "Incorrect syntax near the keyword '{keyword}'.";

    /// 226: the statement cannot stand between BEGIN TRANSACTION and its end.
    226, 16, 6: pub(crate) fn not_in_transaction(statement: &str = "CREATE DATABASE") =>
        "{statement} statement not allowed within multi-statement transaction.";

    /// 574: the statement cannot stand between BEGIN TRANSACTION and its end.
    574, 16, 0: pub(crate) fn not_in_user_transaction(statement: &str = "DROP DATABASE") =>
        "{statement} statement cannot be used inside a user transaction.";

    /// 701: memory for the statement cannot be allocated.
    701, 17, 123: pub(crate) fn out_of_memory(pool: &str = "default") =>
        "There is insufficient system memory in resource pool '{pool}' to run this query.";

    /// 911: there is no database of that name.
    911, 16, 1: pub(crate) fn no_such_database(database: &str = "d") =>
        "Database '{database}' does not exist. Make sure that the name is entered correctly.";

    /// 927: a RESTORE of the database is under way.
    927, 14, 2: pub(crate) fn database_in_restore(database: &str = "d") =>
        "Database '{database}' cannot be opened. It is in the middle of a restore.";

    /// 942: the database is OFFLINE.
    942, 14, 4: pub(crate) fn database_offline(database: &str = "d") => "Database '{database}' cannot be opened because it is offline.";

    /// 945: a file of the database is missing or damaged.
    945, 14, 2: pub(crate) fn database_inaccessible(database: &str = "d") =>
        "Database '{database}' cannot be opened due to inaccessible files or insufficient memory or disk space. See the SQL Server \
         errorlog for details.";

    /// 1036: a file of CREATE DATABASE lacks NAME or FILENAME.
    1036, 15, 2: pub(crate) fn file_option_missing(option: &str = "FILENAME") =>
        "File option {option} is required in this CREATE/ALTER DATABASE statement.";

    /// 1038: a name is empty.
    1038, 15, 4: pub(crate) fn name_missing() =>
        "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name. For other \
         statements, look for empty alias names. Aliases defined as \"\" or [] are not allowed. Change the alias to a valid name.";

    /// 1801: CREATE DATABASE of a database that exists.
    1801, 16, 3: pub(crate) fn database_exists(database: &str = "d") =>
        "Database '{database}' already exists. Choose a different database name.";

    /// 1802: behind the message that tells why.
    1802, 16, 4: pub(crate) fn create_database_failed() =>
        "CREATE DATABASE failed. Some file names listed could not be created. Check related errors.";

    /// 1828: two files of a database have one logical name.
    1828, 16, 3: pub(crate) fn logical_name_in_use(name: &str = "d_log") =>
        "The logical file name \"{name}\" is already in use. Choose a different name.";

    /// 1834: a file of the statement belongs to another database.
    1834, 16, 1: pub(crate) fn file_in_use(path: &str = "/data/d.mdf", database: &str = "d") =>
        "The file '{path}' cannot be overwritten.  It is being used by database '{database}'.";

    /// 1842: SIZE, MAXSIZE or FILEGROWTH of CREATE DATABASE is too large.
    1842, 16, 1: pub(crate) fn file_too_large() =>
        "The file size, max size cannot be greater than 2147483647 in units of a page size. The file growth cannot be greater than \
         2147483647 in units of both page size and percentage.";

    /// 3009: a backup or restore has succeeded, and could not be recorded. It is information here, so that no client takes the statement
    /// for a failure.
    3009, 0, 1: pub(crate) fn history_not_recorded() =>
        "Could not insert a backup or restore history/detail record in the msdb database. This may indicate a problem with the msdb \
         database. The backup/restore operation was still successful.";

    /// 3013: last message of every failed statement, which it names as [`Statement::title`](crate::tsql::Statement::title) does.
    3013, 16, 1: pub(crate) fn terminating(statement: &str = "BACKUP DATABASE") => "{statement} is terminating abnormally.";

    /// 3014: see [`Message::processed`]. `seconds` and `rate` (MB a second) are printed with three decimals.
    3014, 0, 1: pub(super) fn processed_at_rate(
        verb: Verb = Verb::Backup, pages: u64 = 450, seconds: f64 = 0.046, rate: f64 = 76.427
    ) => "{verb} DATABASE successfully processed {pages} pages in {seconds:.3} seconds ({rate:.3} MB/sec).";

    /// 3021: BACKUP or RESTORE between BEGIN TRANSACTION and its end.
    3021, 16, 0: pub(crate) fn within_transaction() => "Cannot perform a backup or restore operation within a transaction.";

    /// 3023: another backup, or a change of the database's files, is under way.
    3023, 16, 1: pub(crate) fn backup_must_be_serialized() =>
        "Backup, file manipulation operations (such as ALTER DATABASE ADD FILE) and encryption changes on a database must be \
         serialized. Reissue the statement after the current backup or file manipulation operation is completed.";

    /// 3027: FILEGROUP names no filegroup of the database.
    3027, 16, 1: pub(crate) fn unknown_filegroup(filegroup: &str = "g", database: &str = "d") =>
        "The filegroup \"{filegroup}\" is not part of database \"{database}\".";

    /// 3031: an option is given twice, or together with its opposite.
    3031, 16, 1: pub(crate) fn conflicting_options(option: &str = "noinit", other: &str = "init") =>
        "Option '{option}' conflicts with option(s) '{other}'. Remove the conflicting option and reissue the statement.";

    /// 3032: the option exists, but not for this statement.
    3032, 16, 1: pub(crate) fn options_not_supported(options: &str = "replace") =>
        "One or more of the options ({options}) are not supported for this statement. Review the documentation for supported \
         options.";

    /// 3041: in the error log, last message of every failed BACKUP. `command` is the statement without its devices and options.
    3041, 16, 1: pub(crate) fn backup_failed(command: &str = "BACKUP DATABASE d") =>
        "BACKUP failed to complete the command {command}. Check the backup application log for detailed messages.";

    /// 3042: a BACKUP WITH CONTINUE_AFTER_ERROR has found damaged pages, and has succeeded.
    3042, 0, 1: pub(crate) fn backup_of_damaged_database() =>
        "BACKUP WITH CONTINUE_AFTER_ERROR successfully generated a backup of the damaged database. Refer to the SQL Server error log \
         for information about the errors that were encountered.";

    /// 3043: a page of the database is damaged (BACKUP WITH CHECKSUM).
    3043, 16, 1: pub(crate) fn damaged_page(database: &str = "d", file: u16 = 1, page: u32 = 264, path: &str = "/data/d.mdf") =>
        "BACKUP '{database}' detected an error on page ({file}:{page}) in file '{path}'.";

    /// 3044: a device's name is empty.
    3044, 16, 1: pub(crate) fn device_name_empty() =>
        "Invalid zero-length device name. Reissue the BACKUP statement with a valid device name.";

    /// 3057: a device's name is longer than `most` characters.
    3057, 16, 1: pub(crate) fn device_name_too_long(most: usize = 128) =>
        "Invalid device name. The length of the device name provided exceeds supported limit (maximum length is:{most}). Reissue \
         the BACKUP statement with a valid device name.";

    /// 3101: another statement or process uses the database that is to be restored.
    3101, 16, 1: pub(crate) fn database_in_use() =>
        "Exclusive access could not be obtained because the database is in use.";

    /// 3108: RESTORE of `master`.
    3108, 16, 1: pub(crate) fn master_needs_single_user() =>
        "To restore the master database, the server must be running in single-user mode. For information on starting in \
         single-user mode, see \"How to: Start an Instance of SQL Server (sqlservr.exe)\" in Books Online.";

    /// 3119: behind the reasons why files cannot be restored to where they are to be.
    3119, 16, 1: pub(crate) fn problems_in_plan() =>
        "Problems were identified while planning for the RESTORE statement. Previous messages provide details.";

    /// 3123: the name is not valid for a database.
    3123, 16, 1: pub(crate) fn invalid_database_name(database: &str = "a/b") =>
        "Invalid database name '{database}' specified for backup or restore operation.";

    /// 3132: RESTORE names fewer devices than the media set has families.
    3132, 16, 1: pub(crate) fn media_families_missing(families: u32 = 3, provided: u32 = 2) =>
        "The media set has {families} media families but only {provided} are provided. All members must be provided.";

    /// 3147: BACKUP or RESTORE of `tempdb`.
    3147, 16, 1: pub(crate) fn tempdb_not_allowed() => "Backup and restore operations are not allowed on database tempdb.";

    /// 3154: RESTORE without REPLACE would overwrite a database that the backup does not come from.
    3154, 16, 1: pub(crate) fn backup_of_other_database(database: &str = "d") =>
        "The backup set holds a backup of a database other than the existing '{database}' database.";

    /// 3156: a file cannot be restored to a path.
    3156, 16, 4: pub(crate) fn cannot_be_restored_to(file: &str = "d_log", path: &str = "/data/d.ldf") =>
        "File '{file}' cannot be restored to '{path}'. Use WITH MOVE to identify a valid location for the file.";

    /// 3159: RESTORE without REPLACE would overwrite an existing database. SQL Server refuses this because the tail of the log
    /// would be lost, and its message names the remedy.
    3159, 16, 1: pub(crate) fn log_tail_not_backed_up(database: &str = "d") =>
        "The tail of the log for the database \"{database}\" has not been backed up. Use BACKUP LOG WITH NORECOVERY to backup the \
         log if it contains work you do not want to lose. Use the WITH REPLACE or WITH STOPAT clause of the RESTORE statement to \
         just overwrite the contents of the log.";

    /// 3167: the restored database cannot be brought online.
    3167, 16, 1: pub(crate) fn cannot_start_database(database: &str = "d") => "RESTORE could not start database '{database}'.";

    /// 3182: the backup was made of damaged pages.
    3182, 16, 1: pub(crate) fn backup_of_damaged_pages() =>
        "The backup set cannot be restored because the database was damaged when the backup occurred. Salvage attempts may exploit \
         WITH CONTINUE_AFTER_ERROR.";

    /// 3183: a page of the backup is damaged.
    3183, 16, 1: pub(crate) fn page_damaged_in_backup(file: u16 = 1, page: u32 = 243, database: &str = "d") =>
        "RESTORE detected an error on page ({file}:{page}) in database \"{database}\" as read from the backup set.";

    /// 3184: CONTINUE_AFTER_ERROR has passed over damages.
    3184, 0, 1: pub(crate) fn restored_with_damage() =>
        "RESTORE WITH CONTINUE_AFTER_ERROR was successful but some damage was encountered. Inconsistencies in the database are \
         possible.";

    /// 3187: RESTORE WITH CHECKSUM of a backup that has none.
    3187, 16, 1: pub(crate) fn no_backup_checksums() =>
        "RESTORE WITH CHECKSUM cannot be specified because the backup set does not contain checksum information.";

    /// 3189: the backup set is damaged, and the damage cannot be attributed to one device.
    3189, 16, 1: pub(crate) fn backup_set_damaged() => "Damage to the backup set was detected.";

    /// 3201: the device cannot be opened. State 7: the set cannot be joined; state 6: it cannot be configured or its device opened.
    3201, 16, 7: pub(crate) fn cannot_open_device(device: &str = "dev", error: OsError = OsError::NO_SUCH_SET) =>
        "Cannot open backup device '{device}'. Operating system error {error}.";

    /// 3202: a write to a device or to a database file failed.
    3202, 16, 1: pub(crate) fn write_failed(target: &str = "dev", error: OsError = OsError(112)) =>
        "Write on \"{target}\" failed: {error}";

    /// 3203: a read from a device or from a database file failed.
    3203, 16, 1: pub(crate) fn read_failed(source: &str = "dev", error: OsError = OsError::END_OF_FILE) =>
        "Read on \"{source}\" failed: {error}";

    /// 3204: the user cancelled the statement.
    3204, 16, 1: pub(crate) fn aborted() => "The backup or restore was aborted.";

    /// 3205: the statement names more than `most` devices.
    3205, 16, 1: pub(crate) fn too_many_devices(most: usize = 64) =>
        "Too many backup devices specified for backup or restore; only {most} are allowed.";

    /// 3211: progress, requested by STATS. `percent` is 1 to 100.
    3211, 0, 1: pub(crate) fn percent_processed(percent: u8 = 10) => "{percent} percent processed.";

    /// 3217: an option's value is out of its range.
    3217, 16, 1: pub(crate) fn invalid_value(option: &str = "STATS") => "Invalid value specified for {option} parameter.";

    /// 3224: the operating system refuses a new thread.
    3224, 16, 1: pub(crate) fn no_worker_thread() => "Cannot create worker thread.";

    /// 3227: two devices have the same media family. `family` counts from 1.
    3227, 16, 1: pub(crate) fn family_already_processed(device: &str = "dev1", family: u32 = 1, earlier: &str = "dev") =>
        "The backup media on \"{device}\" is part of media family {family} which has already been processed on \"{earlier}\". \
         Ensure that backup devices are correctly specified. For tape devices, ensure that the correct volumes are loaded.";

    /// 3231: RESTORE names more devices than the media set has families.
    3231, 16, 1: pub(crate) fn too_many_families_expected(device: &str = "dev", families: u32 = 2, expected: u32 = 3) =>
        "The media loaded on \"{device}\" is formatted to support {families} media families, but {expected} media families are \
         expected according to the backup device specification.";

    /// 3234: MOVE names a file that the backup does not have.
    3234, 16, 2: pub(crate) fn unknown_logical_file(file: &str = "f", database: &str = "d") =>
        "Logical file '{file}' is not part of database '{database}'. Use RESTORE FILELISTONLY to list the logical file names.";

    /// 3235: FILE names no file of the database.
    3235, 16, 1: pub(crate) fn unknown_file(file: &str = "f", database: &str = "d") =>
        "The file \"{file}\" is not part of database \"{database}\". You can only list files that are members of this database.";

    /// 3241: the data of the device is not a backup, or is damaged.
    3241, 16, 1: pub(crate) fn media_family_malformed(device: &str = "dev") =>
        "The media family on device '{device}' is incorrectly formed. SQL Server cannot process this media family.";

    /// 3254: the device has no data.
    3254, 16, 1: pub(crate) fn volume_empty(device: &str = "dev") => "The volume on device '{device}' is empty.";

    /// 3258: the device belongs to another media set than the devices before it.
    3258, 16, 1: pub(crate) fn other_media_set(device: &str = "dev") =>
        "The volume on the device \"{device}\" is not part of the media set that is currently being processed. Ensure that the \
         backup devices are loaded with the correct media.";

    /// 3261: the client's set has another number of devices than the statement, or requests features that are not supported.
    3261, 16, 1: pub(crate) fn unusable_configuration() => "SQL Server cannot use the virtual device configuration.";

    /// 3262: RESTORE VERIFYONLY has found no fault. `set_position` is the place of the backup set on its media, from 1.
    3262, 0, 1: pub(crate) fn backup_set_valid(set_position: u32 = 1) => "The backup set on file {set_position} is valid.";

    /// 3266: no backup set can be appended to the medium.
    3266, 16, 1: pub(crate) fn not_appendable(device: &str = "/backups/d.bak") =>
        "The backup data at the end of \"{device}\" is incorrectly formatted. Backup sets on the media might be damaged and unusable. To \
         determine the backup sets on the media, use RESTORE HEADERONLY. To determine the usability of the backup sets, run RESTORE \
         VERIFYONLY. If all of the backup sets are incomplete, reformat the media using BACKUP WITH FORMAT, which destroys all the \
         backup sets.";

    /// 3271: a command other than Read and Write failed on a device.
    3271, 16, 1: pub(crate) fn nonrecoverable_io_error(device: &str = "dev", error: OsError = OsError::ABORTED) =>
        "A nonrecoverable I/O error occurred on file \"{device}:\" {error}.";

    /// 3272: RESTORE works with another BLOCKSIZE than the backup was written with.
    3272, 16, 1: pub(crate) fn block_size_mismatch(device: &str = "dev", device_block_size: u32 = 512, requested: u32 = 4096) =>
        "The '{device}' device has a hardware sector size of {device_block_size}, but the block size parameter specifies an \
         incompatible override value of {requested}. Reissue the statement using a compatible block size.";

    /// 3276: RESTORE WITH SNAPSHOT of a backup without it (state 1), or without SNAPSHOT of a snapshot backup (state 2).
    3276, 16, 1: pub(crate) fn snapshot_mismatch() =>
        "WITH SNAPSHOT can be used only if the backup set was created WITH SNAPSHOT.";

    /// 3277: WITH SNAPSHOT and several devices.
    3277, 16, 1: pub(crate) fn snapshot_needs_one_device() => "WITH SNAPSHOT must be used with only one virtual device.";

    /// 3634: the operating system refused a call; `operation` with the file or folder `path`.
    3634, 16, 1: pub(crate) fn operating_system_error(
        error: OsError = OsError(5), operation: &str = "open", path: &str = "/data/d/d.mdf"
    ) => "The operating system returned the error '{error}' while attempting '{operation}' on '{path}'.";

    /// 3701: DROP DATABASE of a database that does not exist.
    3701, 11, 1: pub(crate) fn cannot_drop(database: &str = "d") =>
        "Cannot drop the database '{database}', because it does not exist or you do not have permission.";

    /// 3702: DROP DATABASE of a database in use.
    3702, 16, 3: pub(crate) fn cannot_drop_in_use(database: &str = "d") =>
        "Cannot drop database \"{database}\" because it is currently in use.";

    /// 3708: DROP DATABASE of a system database.
    3708, 16, 5: pub(crate) fn cannot_drop_system_database(database: &str = "master") =>
        "Cannot drop the database '{database}' because it is a system database.";

    /// 3902: COMMIT without BEGIN TRANSACTION.
    3902, 16, 1: pub(crate) fn commit_without_begin() =>
        "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.";

    /// 3903: ROLLBACK without BEGIN TRANSACTION.
    3903, 16, 1: pub(crate) fn rollback_without_begin() =>
        "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.";

    /// 4030: INIT would overwrite a backup set that has not expired.
    4030, 16, 1: pub(crate) fn not_expired(device: &str = "/backups/d.bak", date: &str = "2031-05-06 07:08:09") =>
        "The medium on device '{device}' expires on {date} and cannot be overwritten.";

    /// 4035: one file of the database is done. `set_position` is the position of the backup set on its media, from 1.
    4035, 0, 1: pub(crate) fn file_processed(pages: u64 = 344, database: &str = "d", file: &str = "d_log", set_position: u32 = 1) =>
        "Processed {pages} pages for database '{database}', file '{file}' on file {set_position}.";

    /// 4038: the device has no backup set of this number (FILE).
    4038, 16, 1: pub(crate) fn no_such_backup_set(file: u32 = 2, device: &str = "dev") => "Cannot find file ID {file} on device '{device}'.";

    /// 5011: ALTER DATABASE of a database that does not exist.
    5011, 14, 5: pub(crate) fn cannot_alter(database: &str = "d") =>
        "User does not have permission to alter database '{database}', the database does not exist, or the database is not in a state \
         that allows access checks.";

    /// 5058: an option of a system database cannot be set.
    5058, 16, 1: pub(crate) fn option_cannot_be_set(option: &str = "OFFLINE", database: &str = "master") =>
        "Option '{option}' cannot be set in database '{database}'.";

    /// 5061: ALTER DATABASE of a database in use.
    5061, 16, 1: pub(crate) fn no_database_lock(database: &str = "d") =>
        "ALTER DATABASE failed because a lock could not be placed on database '{database}'. Try again later.";

    /// 5069: behind the message that tells why.
    5069, 16, 1: pub(crate) fn alter_database_failed() => "ALTER DATABASE statement failed.";

    /// 5105: a file cannot have this path.
    5105, 16, 2: pub(crate) fn file_activation(path: &str = "") =>
        "A file activation error occurred. The physical file name '{path}' may be incorrect. Diagnose and correct additional errors, \
         and retry the operation.";

    /// 5120: a file of a database cannot be opened.
    5120, 16, 101: pub(crate) fn cannot_open_file(path: &str = "/data/d.mdf", error: OsError = OsError(2)) =>
        "Unable to open the physical file \"{path}\". Operating system error {error}.";

    /// 5123: a file of a database cannot be made.
    5123, 16, 1: pub(crate) fn cannot_create_file(error: OsError = OsError(5), path: &str = "/data/d.mdf") =>
        "CREATE FILE encountered operating system error {error} while attempting to open or create the physical file '{path}'.";

    /// 5133: the folder of a file does not exist.
    5133, 16, 1: pub(crate) fn no_such_directory(path: &str = "/data/d.mdf", error: OsError = OsError(3)) =>
        "Directory lookup for the file \"{path}\" failed with the operating system error {error}.";

    /// 5170: a file of a database exists already.
    5170, 16, 1: pub(crate) fn file_exists(path: &str = "/data/d.mdf") =>
        "Cannot create file '{path}' because it already exists. Change the file path or the file name, and retry the operation.";

    /// 5172: a file of a database is not what it should be.
    5172, 16, 15: pub(crate) fn invalid_file_header(path: &str = "/data/d.mdf", property: &str = "FILE SIZE") =>
        "The header for file '{path}' is not a valid database file header. The {property} property is incorrect.";

    /// 5174: SIZE of CREATE DATABASE is too small.
    5174, 16, 1: pub(crate) fn file_too_small() => "Each file size must be greater than or equal to 512 KB.";

    /// 5701: answer to USE.
    5701, 0, 2: pub(crate) fn changed_database(database: &str = "d") => "Changed database context to '{database}'.";

    /// 9002: the transaction log is full.
    9002, 17, 1: pub(crate) fn log_full(database: &str = "d") =>
        "The transaction log for database '{database}' is full due to 'ACTIVE_BACKUP_OR_RESTORE'.";

    /// 18210: in the error log, a call of the device interface failed. `function` is the server's function
    /// ("BackupVirtualDeviceSet::Initialize"). `operation` is the operation that failed ("Open"). `device` is the name of the
    /// device or set.
    18210, 16, 1: pub(crate) fn device_failure(
        function: &str = "BackupVirtualDeviceSet::Initialize", operation: &str = "Open", device: &str = "dev",
        error: OsError = OsError::NO_SUCH_SET
    ) => "{function}: {operation} failure on backup device '{device}'. Operating system error {error}.";
}
