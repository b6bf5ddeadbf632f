//! The parser of statements.

use vdi_server_sim::messages::Verb;
use vdi_server_sim::tsql::{BackupOptions, MAX_DEVICES, MAX_NAME, RestoreOptions, Statement, parse};

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
            for message in error.messages(Some(Verb::Backup)) {
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
    let (database, devices, snapshot, numbers) = match statement {
        Statement::Backup(backup) => {
            let BackupOptions { snapshot, stats, max_transfer_size, block_size, buffer_count, .. } = &backup.options;
            (
                &backup.database,
                &backup.devices,
                *snapshot,
                [stats.map(u32::from), *max_transfer_size, *block_size, *buffer_count],
            )
        }
        Statement::Restore(restore) => {
            let RestoreOptions { snapshot, stats, max_transfer_size, block_size, buffer_count, file, .. } =
                &restore.options;
            assert!(file.is_none_or(|file| file == 1));
            (
                &restore.database,
                &restore.devices,
                *snapshot,
                [stats.map(u32::from), *max_transfer_size, *block_size, *buffer_count],
            )
        }
        other => panic!("a statement of another kind: {other:?}"),
    };
    let good = |name: &str| (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains('\0');
    assert!(good(database), "{database:?}");
    assert!(devices.iter().all(|name| good(name) && !name.contains('\\')), "{devices:?}");
    assert!((1..=MAX_DEVICES).contains(&devices.len()) && (!snapshot || devices.len() == 1));
    assert!((1..devices.len()).all(|last| !devices[..last].contains(&devices[last])), "{devices:?}");
    let [stats, transfer, block, count] = numbers;
    assert!(stats.is_none_or(|stats| (1..=100).contains(&stats)));
    assert!(transfer.is_none_or(|bytes| (1..=64).any(|units| bytes == units << 16)));
    assert!(block.is_none_or(|bytes| (9..=16).any(|power| bytes == 1 << power)));
    assert!(count.is_none_or(|count| (1..1 << 31).contains(&count)));
}

/// The statement as text, with all that it says.
fn write(statement: &Statement) -> String {
    let (verb, to, database, devices) = match statement {
        Statement::Backup(backup) => ("BACKUP", "TO", &backup.database, &backup.devices),
        Statement::Restore(restore) => ("RESTORE", "FROM", &restore.database, &restore.devices),
        other => panic!("a statement of another kind: {other:?}"),
    };
    let devices: Vec<_> = devices.iter().map(|name| format!("VIRTUAL_DEVICE = {}", quoted(name))).collect();
    let mut options = Vec::new();
    let mut flag = |said: Option<bool>, yes: &str, no: &str| {
        options.extend(said.map(|said| if said { yes.to_owned() } else { no.to_owned() }));
    };
    match statement {
        Statement::Backup(backup) => {
            let o = &backup.options;
            flag(o.copy_only.then_some(true), "COPY_ONLY", "");
            flag(o.snapshot.then_some(true), "SNAPSHOT", "");
            flag(o.format, "FORMAT", "NOFORMAT");
            flag(o.init, "INIT", "NOINIT");
            flag(o.skip, "SKIP", "NOSKIP");
            flag(o.unload, "UNLOAD", "NOUNLOAD");
            flag(o.rewind, "REWIND", "NOREWIND");
            flag(o.checksum, "CHECKSUM", "NO_CHECKSUM");
            flag(o.compression, "COMPRESSION (ALGORITHM = ZSTD)", "NO_COMPRESSION");
            let numbers = [
                ("STATS", o.stats.map(u32::from)),
                ("MAXTRANSFERSIZE", o.max_transfer_size),
                ("BLOCKSIZE", o.block_size),
                ("BUFFERCOUNT", o.buffer_count),
            ];
            options.extend(numbers.iter().filter_map(|(name, number)| Some(format!("{name} = {}", (*number)?))));
            let texts = [
                ("NAME", &o.name),
                ("DESCRIPTION", &o.description),
                ("MEDIANAME", &o.media_name),
                ("MEDIADESCRIPTION", &o.media_description),
            ];
            options
                .extend(texts.iter().filter_map(|(name, text)| Some(format!("{name} = {}", quoted(text.as_ref()?)))));
        }
        Statement::Restore(restore) => {
            let o = &restore.options;
            flag(o.replace.then_some(true), "REPLACE", "");
            flag(o.snapshot.then_some(true), "SNAPSHOT", "");
            flag(o.unload, "UNLOAD", "NOUNLOAD");
            flag(o.rewind, "REWIND", "NOREWIND");
            flag(o.checksum, "CHECKSUM", "NO_CHECKSUM");
            let numbers = [
                ("FILE", o.file),
                ("STATS", o.stats.map(u32::from)),
                ("MAXTRANSFERSIZE", o.max_transfer_size),
                ("BLOCKSIZE", o.block_size),
                ("BUFFERCOUNT", o.buffer_count),
            ];
            options.extend(numbers.iter().filter_map(|(name, number)| Some(format!("{name} = {}", (*number)?))));
            options.extend(o.media_name.as_ref().map(|text| format!("MEDIANAME = {}", quoted(text))));
        }
        other => panic!("a statement of another kind: {other:?}"),
    }
    let with = if options.is_empty() { String::new() } else { format!(" WITH {}", options.join(", ")) };
    format!("{verb} DATABASE [{}] {to} {}{with};", database.replace(']', "]]"), devices.join(", "))
}

fn quoted(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}
