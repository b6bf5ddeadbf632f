//! The parser of statements.

use vdi_server_sim::tsql::{
    Backup, BackupOptions, BackupPart, DeviceType, Devices, Expiry, Inspect, MAX_DEVICES, MAX_NAME, MAX_PATH, Restore,
    RestoreOptions, Statement, parse,
};

/// Parsing is total; what it takes keeps the rules, and is read again from the text that is written for it here; what it
/// refuses is refused in a place of the text, with something to say. A line before the text moves that place and nothing else.
pub(crate) fn statement(bytes: &[u8]) -> bool {
    let Ok(sql) = std::str::from_utf8(bytes) else { return false };
    let moved = parse(&format!("\n{sql}"));
    match parse(sql) {
        Ok(statement) => {
            check(&statement);
            let written = write(&statement);
            assert_eq!(parse(&written).as_ref(), Ok(&statement), "{written}");
            assert_eq!(moved, Ok(statement));
            true
        }
        Err(error) => {
            let (line, column) = error.position();
            assert!(line >= 1 && column >= 1, "{error}");
            assert!(line as usize <= sql.matches('\n').count() + 1, "{error} of {sql:?}");
            for message in error.messages(Some("BACKUP DATABASE")) {
                assert!(!message.text.is_empty() && message.line == line, "{message:?} of {error}");
            }
            let message = error.message();
            assert!(message.is_error() && !message.text.is_empty() && !error.to_string().is_empty());
            // What is repeated of the text has an end.
            assert!(message.text.chars().count() < 1000, "{}", message.text);
            let moved = moved.expect_err("a line before it makes nothing good");
            // Where there is no word at all, the fault has no place but the first.
            let nothing = (line, column) == (1, 1) && moved.position() == (1, 1);
            assert_eq!((moved.line(), moved.message().number), (line + u32::from(!nothing), message.number));
            false
        }
    }
}

fn check(statement: &Statement) {
    let good = |name: &str| (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains('\0');
    let good_path = |path: &str| (1..=MAX_PATH).contains(&path.chars().count()) && !path.contains('\0');
    let (devices, snapshot, numbers) = match statement {
        Statement::Backup(backup) => {
            let o = &backup.options;
            assert!(good(&backup.database), "{:?}", backup.database);
            assert!(!matches!(o.expires, Some(Expiry::Days(100_000..))), "{:?}", o.expires);
            (&backup.devices, o.snapshot, [o.stats.map(u32::from), o.max_transfer_size, o.block_size, o.buffer_count])
        }
        Statement::Restore(Restore { database, devices, options }) => {
            assert!(good(database), "{database:?}");
            (devices, options.snapshot, restored(options))
        }
        Statement::Inspect(Inspect { devices, options, .. }) => {
            assert!(!options.replace && !options.snapshot && options.moves.is_empty(), "{options:?}");
            (devices, false, restored(options))
        }
        other => panic!("a statement of another kind: {other:?}"),
    };
    if let Statement::Restore(Restore { options: RestoreOptions { moves, .. }, .. }) = statement {
        assert!(moves.iter().all(|(name, path)| !name.is_empty() && good_path(path)), "{moves:?}");
        assert!((1..moves.len()).all(|last| moves[..last].iter().all(|(name, _)| *name != moves[last].0)), "{moves:?}");
    }
    let Devices { device_type, names } = devices;
    assert!(names.iter().all(|name| match device_type {
        DeviceType::Virtual => good(name) && !name.contains('\\'),
        DeviceType::Disk => good_path(name),
    }));
    assert!((1..=MAX_DEVICES).contains(&names.len()));
    assert!(!snapshot || names.len() == 1 && *device_type == DeviceType::Virtual);
    assert!((1..names.len()).all(|last| !names[..last].contains(&names[last])), "{names:?}");
    let [stats, transfer, block, count] = numbers;
    assert!(stats.is_none_or(|stats| (1..=100).contains(&stats)));
    assert!(transfer.is_none_or(|bytes| (1..=64).any(|units| bytes == units << 16)));
    assert!(block.is_none_or(|bytes| (9..=16).any(|power| bytes == 1 << power)));
    assert!(count.is_none_or(|count| (1..1 << 31).contains(&count)));
}

/// The numbers of a RESTORE that have ranges.
fn restored(options: &RestoreOptions) -> [Option<u32>; 4] {
    assert!(options.file.is_none_or(|file| file >= 1));
    [options.stats.map(u32::from), options.max_transfer_size, options.block_size, options.buffer_count]
}

/// Options as text.
#[derive(Default)]
struct Options(Vec<String>);

impl Options {
    fn flag(&mut self, said: Option<bool>, yes: &str, no: &str) {
        self.0.extend(said.map(|said| if said { yes.to_owned() } else { no.to_owned() }));
    }

    fn number(&mut self, name: &str, number: Option<u32>) {
        self.0.extend(number.map(|number| format!("{name} = {number}")));
    }

    fn text(&mut self, name: &str, text: Option<&String>) {
        self.0.extend(text.map(|text| format!("{name} = {}", quoted(text))));
    }

    fn of_backup(&mut self, o: &BackupOptions) {
        self.flag(o.copy_only.then_some(true), "COPY_ONLY", "");
        self.flag(o.snapshot.then_some(true), "SNAPSHOT", "");
        self.flag(o.format, "FORMAT", "NOFORMAT");
        self.flag(o.init, "INIT", "NOINIT");
        self.flag(o.skip, "SKIP", "NOSKIP");
        self.flag(o.unload, "UNLOAD", "NOUNLOAD");
        self.flag(o.rewind, "REWIND", "NOREWIND");
        self.flag(o.checksum, "CHECKSUM", "NO_CHECKSUM");
        self.flag(o.compression, "COMPRESSION (ALGORITHM = ZSTD)", "NO_COMPRESSION");
        self.flag(o.continue_after_error.then_some(true), "CONTINUE_AFTER_ERROR", "");
        self.number("STATS", o.stats.map(u32::from));
        self.number("MAXTRANSFERSIZE", o.max_transfer_size);
        self.number("BLOCKSIZE", o.block_size);
        self.number("BUFFERCOUNT", o.buffer_count);
        match &o.expires {
            Some(Expiry::Days(days)) => self.number("RETAINDAYS", Some(*days)),
            Some(Expiry::Date(date)) => self.text("EXPIREDATE", Some(date)),
            None => {}
        }
        self.text("NAME", o.name.as_ref());
        self.text("DESCRIPTION", o.description.as_ref());
        self.text("MEDIANAME", o.media_name.as_ref());
        self.text("MEDIADESCRIPTION", o.media_description.as_ref());
    }

    fn of_restore(&mut self, o: &RestoreOptions) {
        self.flag(o.replace.then_some(true), "REPLACE", "");
        self.flag(o.snapshot.then_some(true), "SNAPSHOT", "");
        self.flag(o.unload, "UNLOAD", "NOUNLOAD");
        self.flag(o.rewind, "REWIND", "NOREWIND");
        self.flag(o.checksum, "CHECKSUM", "NO_CHECKSUM");
        self.flag(o.continue_after_error.then_some(true), "CONTINUE_AFTER_ERROR", "");
        self.number("FILE", o.file);
        self.number("STATS", o.stats.map(u32::from));
        self.number("MAXTRANSFERSIZE", o.max_transfer_size);
        self.number("BLOCKSIZE", o.block_size);
        self.number("BUFFERCOUNT", o.buffer_count);
        self.text("MEDIANAME", o.media_name.as_ref());
        self.0.extend(o.moves.iter().map(|(name, path)| format!("MOVE {} TO {}", quoted(name), quoted(path))));
    }
}

/// The statement as text, with all that it says.
fn write(statement: &Statement) -> String {
    let named = |name: &str| format!("[{}]", name.replace(']', "]]"));
    let mut options = Options::default();
    let (beginning, devices) = match statement {
        Statement::Backup(Backup { database, parts, devices, options: said }) => {
            options.of_backup(said);
            let parts = parts.iter().map(|part| match part {
                BackupPart::File(name) => format!("FILE = {}", quoted(name)),
                BackupPart::Filegroup(name) => format!("FILEGROUP = {}", quoted(name)),
            });
            let parts: Vec<_> = parts.collect();
            (format!("BACKUP DATABASE {} {} TO", named(database), parts.join(", ")), devices)
        }
        Statement::Restore(Restore { database, devices, options: said }) => {
            options.of_restore(said);
            (format!("RESTORE DATABASE {} FROM", named(database)), devices)
        }
        Statement::Inspect(Inspect { what, devices, options: said }) => {
            options.of_restore(said);
            (format!("RESTORE {} FROM", what.keyword()), devices)
        }
        other => panic!("a statement of another kind: {other:?}"),
    };
    let device_type = match devices.device_type {
        DeviceType::Virtual => "VIRTUAL_DEVICE",
        DeviceType::Disk => "DISK",
    };
    let devices: Vec<_> = devices.names.iter().map(|name| format!("{device_type} = {}", quoted(name))).collect();
    let with = if options.0.is_empty() { String::new() } else { format!(" WITH {}", options.0.join(", ")) };
    format!("{beginning} {}{with};", devices.join(", "))
}

fn quoted(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}
