//! The options behind WITH: one table of what each is called, which verb may have it, and where its value is kept.

use crate::messages::Verb;

use super::cursor::Cursor;
use super::error::TsqlError;

/// The options of a BACKUP. `None` means that the statement does not say; SQL Server's default is given with each field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupOptions {
    /// COPY_ONLY: the backup leaves no trace in the sequence of backups. A full backup by a simulator never does.
    pub copy_only: bool,
    /// SNAPSHOT: only metadata goes to the device; the client itself copies the files while writes to them are suspended. The
    /// statement names one device then, see [`TsqlError::SnapshotDevices`].
    pub snapshot: bool,
    /// FORMAT (`true`) or NOFORMAT (`false`, the default). A virtual device always holds exactly one backup.
    pub format: Option<bool>,
    /// INIT (`true`) or NOINIT (`false`, the default). A virtual device always holds exactly one backup.
    pub init: Option<bool>,
    /// SKIP (`true`) or NOSKIP (`false`, the default): whether expiry dates on the media are looked at. There are none.
    pub skip: Option<bool>,
    /// UNLOAD (`true`, the default) or NOUNLOAD (`false`): for tapes.
    pub unload: Option<bool>,
    /// REWIND (`true`, the default) or NOREWIND (`false`): for tapes.
    pub rewind: Option<bool>,
    /// CHECKSUM (`true`) or NO_CHECKSUM (`false`).
    pub checksum: Option<bool>,
    /// CONTINUE_AFTER_ERROR (`true`) or STOP_ON_ERROR (`false`, the default): whether damaged pages end the backup.
    pub continue_after_error: Option<bool>,
    /// STATS: progress is reported each time that this many percent (1 to 100) are done; 10 for STATS without a number.
    pub stats: Option<u8>,
    /// NAME of the backup set, at most 128 characters.
    pub name: Option<String>,
    /// DESCRIPTION of the backup set, at most 255 characters.
    pub description: Option<String>,
    /// MEDIANAME, at most 128 characters.
    pub media_name: Option<String>,
    /// MEDIADESCRIPTION, at most 255 characters.
    pub media_description: Option<String>,
    /// MAXTRANSFERSIZE in bytes: a multiple of 64 KB, 64 KB to 4 MB.
    pub max_transfer_size: Option<u32>,
    /// BLOCKSIZE in bytes: a power of two, 512 to 65536.
    pub block_size: Option<u32>,
    /// BUFFERCOUNT: number of buffers of MAXTRANSFERSIZE for all devices together, at least 1.
    pub buffer_count: Option<u32>,
}

/// The options of a RESTORE. `None` means that the statement does not say; SQL Server's default is given with each field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// REPLACE: an existing database of this name may be overwritten.
    pub replace: bool,
    /// SNAPSHOT: the backup was made WITH SNAPSHOT; the device gives only metadata, and the client itself puts the files into
    /// their places. The statement names one device then, see [`TsqlError::SnapshotDevices`].
    pub snapshot: bool,
    /// RECOVERY (`true`, the default) or NORECOVERY (`false`): whether the database can be used after the RESTORE.
    pub recovery: Option<bool>,
    /// FILE: which backup set of the media to restore. A virtual device holds one, so only 1 is accepted.
    pub file: Option<u32>,
    /// UNLOAD (`true`, the default) or NOUNLOAD (`false`): for tapes.
    pub unload: Option<bool>,
    /// REWIND (`true`, the default) or NOREWIND (`false`): for tapes.
    pub rewind: Option<bool>,
    /// CHECKSUM (`true`) or NO_CHECKSUM (`false`).
    pub checksum: Option<bool>,
    /// CONTINUE_AFTER_ERROR (`true`) or STOP_ON_ERROR (`false`, the default): whether damage ends the restore.
    pub continue_after_error: Option<bool>,
    /// STATS: progress is reported each time that this many percent (1 to 100) are done; 10 for STATS without a number.
    pub stats: Option<u8>,
    /// MEDIANAME, at most 128 characters.
    pub media_name: Option<String>,
    /// MAXTRANSFERSIZE in bytes: a multiple of 64 KB, 64 KB to 4 MB.
    pub max_transfer_size: Option<u32>,
    /// BLOCKSIZE in bytes: a power of two, 512 to 65536. Must be what the backup was made with.
    pub block_size: Option<u32>,
    /// BUFFERCOUNT: number of buffers of MAXTRANSFERSIZE for all devices together, at least 1.
    pub buffer_count: Option<u32>,
}

/// The values of a WITH clause while it is read, for whichever verb.
#[derive(Default)]
pub(super) struct Values {
    copy_only: Option<bool>,
    replace: Option<bool>,
    snapshot: Option<bool>,
    recovery: Option<bool>,
    format: Option<bool>,
    init: Option<bool>,
    skip: Option<bool>,
    unload: Option<bool>,
    rewind: Option<bool>,
    checksum: Option<bool>,
    continue_after_error: Option<bool>,
    stats: Option<u32>,
    file: Option<u32>,
    max_transfer_size: Option<u32>,
    block_size: Option<u32>,
    buffer_count: Option<u32>,
    name: Option<String>,
    description: Option<String>,
    media_name: Option<String>,
    media_description: Option<String>,
}

impl Values {
    /// Whether SNAPSHOT is among the options.
    pub(super) fn snapshot(&self) -> bool {
        self.snapshot.unwrap_or(false)
    }

    pub(super) fn into_backup(self) -> BackupOptions {
        BackupOptions {
            copy_only: self.copy_only.unwrap_or(false),
            snapshot: self.snapshot(),
            format: self.format,
            init: self.init,
            skip: self.skip,
            unload: self.unload,
            rewind: self.rewind,
            checksum: self.checksum,
            continue_after_error: self.continue_after_error,
            stats: self.stats.and_then(|percent| u8::try_from(percent).ok()),
            name: self.name,
            description: self.description,
            media_name: self.media_name,
            media_description: self.media_description,
            max_transfer_size: self.max_transfer_size,
            block_size: self.block_size,
            buffer_count: self.buffer_count,
        }
    }

    pub(super) fn into_restore(self) -> RestoreOptions {
        RestoreOptions {
            replace: self.replace.unwrap_or(false),
            snapshot: self.snapshot(),
            recovery: self.recovery,
            file: self.file,
            unload: self.unload,
            rewind: self.rewind,
            checksum: self.checksum,
            continue_after_error: self.continue_after_error,
            stats: self.stats.and_then(|percent| u8::try_from(percent).ok()),
            media_name: self.media_name,
            max_transfer_size: self.max_transfer_size,
            block_size: self.block_size,
            buffer_count: self.buffer_count,
        }
    }
}

/// Which verbs may have an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Backup,
    Restore,
    Both,
}

impl For {
    fn allows(self, verb: Verb) -> bool {
        match self {
            Self::Both => true,
            Self::Backup => verb == Verb::Backup,
            Self::Restore => verb == Verb::Restore,
        }
    }
}

/// A rule of a number: the range in words, and whether a value is in it.
struct Range {
    words: &'static str,
    holds: fn(u32) -> bool,
    /// The value of the bare keyword, where it may stand alone.
    bare: Option<u32>,
}

/// What follows an option's name, and where the value goes.
enum Shape {
    /// Nothing follows; the name itself says yes or no. `opposite` is the option that says the other thing.
    Flag { slot: fn(&mut Values) -> &mut Option<bool>, says: bool, opposite: &'static str },
    /// `= number`.
    Number { slot: fn(&mut Values) -> &mut Option<u32>, range: Range },
    /// `= 'text'` of at most so many characters.
    Text { slot: fn(&mut Values) -> &mut Option<String>, max: usize, words: &'static str },
    /// SQL Server would have to honour it and the simulator cannot: refused by name.
    NotYet,
}

/// One option.
struct Rule {
    name: &'static str,
    verbs: For,
    shape: Shape,
}

macro_rules! flag {
    ($name:literal, $verbs:ident, $field:ident = $says:literal, not $opposite:literal) => {
        Rule {
            name: $name,
            verbs: For::$verbs,
            shape: Shape::Flag { slot: |values| &mut values.$field, says: $says, opposite: $opposite },
        }
    };
    ($name:literal, $verbs:ident, $field:ident) => {
        flag!($name, $verbs, $field = true, not $name)
    };
}

macro_rules! number {
    ($name:literal, $verbs:ident, $field:ident, $words:literal, $holds:expr, bare $bare:expr) => {
        Rule {
            name: $name,
            verbs: For::$verbs,
            shape: Shape::Number {
                slot: |values| &mut values.$field,
                range: Range { words: $words, holds: $holds, bare: $bare },
            },
        }
    };
}

macro_rules! text {
    ($name:literal, $verbs:ident, $field:ident, 128) => {
        text!(@ $name, $verbs, $field, 128, "at most 128 characters")
    };
    ($name:literal, $verbs:ident, $field:ident, 255) => {
        text!(@ $name, $verbs, $field, 255, "at most 255 characters")
    };
    (@ $name:literal, $verbs:ident, $field:ident, $max:literal, $words:literal) => {
        Rule {
            name: $name,
            verbs: For::$verbs,
            shape: Shape::Text { slot: |values| &mut values.$field, max: $max, words: $words },
        }
    };
}

macro_rules! not_yet {
    ($name:literal, $verbs:ident) => {
        Rule { name: $name, verbs: For::$verbs, shape: Shape::NotYet }
    };
}

/// Every option that Transact-SQL knows for `BACKUP DATABASE` and `RESTORE DATABASE`.
static RULES: &[Rule] = &[
    flag!("COPY_ONLY", Backup, copy_only),
    flag!("FORMAT", Backup, format = true, not "NOFORMAT"),
    flag!("NOFORMAT", Backup, format = false, not "FORMAT"),
    flag!("INIT", Backup, init = true, not "NOINIT"),
    flag!("NOINIT", Backup, init = false, not "INIT"),
    flag!("SKIP", Backup, skip = true, not "NOSKIP"),
    flag!("NOSKIP", Backup, skip = false, not "SKIP"),
    flag!("REPLACE", Restore, replace),
    flag!("RECOVERY", Restore, recovery = true, not "NORECOVERY"),
    // Also an option of BACKUP LOG, but not of BACKUP DATABASE.
    flag!("NORECOVERY", Restore, recovery = false, not "RECOVERY"),
    flag!("SNAPSHOT", Both, snapshot),
    flag!("UNLOAD", Both, unload = true, not "NOUNLOAD"),
    flag!("NOUNLOAD", Both, unload = false, not "UNLOAD"),
    flag!("REWIND", Both, rewind = true, not "NOREWIND"),
    flag!("NOREWIND", Both, rewind = false, not "REWIND"),
    flag!("CHECKSUM", Both, checksum = true, not "NO_CHECKSUM"),
    flag!("NO_CHECKSUM", Both, checksum = false, not "CHECKSUM"),
    flag!("CONTINUE_AFTER_ERROR", Both, continue_after_error = true, not "STOP_ON_ERROR"),
    flag!("STOP_ON_ERROR", Both, continue_after_error = false, not "CONTINUE_AFTER_ERROR"),
    number!("STATS", Both, stats, "a whole number from 1 to 100", |n| (1..=100).contains(&n), bare Some(10)),
    number!(
        "MAXTRANSFERSIZE",
        Both,
        max_transfer_size,
        "a multiple of 65536 from 65536 to 4194304",
        |n| n % 65_536 == 0 && (65_536..=4_194_304).contains(&n),
        bare None
    ),
    number!(
        "BLOCKSIZE",
        Both,
        block_size,
        "a power of two from 512 to 65536",
        |n| n.is_power_of_two() && (512..=65_536).contains(&n),
        bare None
    ),
    number!(
        "BUFFERCOUNT",
        Both,
        buffer_count,
        "a whole number from 1 to 2147483647",
        |n| (1..=0x7FFF_FFFF).contains(&n),
        bare None
    ),
    number!("FILE", Restore, file, "1, because a virtual device holds one backup set", |n| n == 1, bare None),
    text!("NAME", Backup, name, 128),
    text!("DESCRIPTION", Backup, description, 255),
    text!("MEDIANAME", Both, media_name, 128),
    text!("MEDIADESCRIPTION", Backup, media_description, 255),
    not_yet!("DIFFERENTIAL", Backup),
    not_yet!("COMPRESSION", Backup),
    not_yet!("NO_COMPRESSION", Backup),
    not_yet!("ENCRYPTION", Backup),
    not_yet!("CREDENTIAL", Both),
    not_yet!("EXPIREDATE", Backup),
    not_yet!("RETAINDAYS", Backup),
    not_yet!("FILE_SNAPSHOT", Backup),
    not_yet!("METADATA_ONLY", Both),
    not_yet!("PASSWORD", Both),
    not_yet!("MEDIAPASSWORD", Both),
    not_yet!("RESTART", Both),
    not_yet!("MOVE", Restore),
    not_yet!("STANDBY", Restore),
    not_yet!("PARTIAL", Restore),
    not_yet!("STOPAT", Restore),
    not_yet!("STOPATMARK", Restore),
    not_yet!("STOPBEFOREMARK", Restore),
    not_yet!("RESTRICTED_USER", Restore),
    not_yet!("LOADHISTORY", Restore),
    not_yet!("KEEP_REPLICATION", Restore),
    not_yet!("KEEP_CDC", Restore),
    not_yet!("FILESTREAM", Restore),
    not_yet!("ENABLE_BROKER", Restore),
    not_yet!("NEW_BROKER", Restore),
    not_yet!("ERROR_BROKER_CONVERSATIONS", Restore),
    not_yet!("DBNAME", Restore),
];

/// `[WITH option {, option}]`.
pub(super) fn with_clause(cursor: &mut Cursor, verb: Verb) -> Result<Values, TsqlError> {
    let mut values = Values::default();
    if cursor.take_keyword("WITH") {
        option(cursor, verb, &mut values)?;
        while cursor.take_comma() {
            option(cursor, verb, &mut values)?;
        }
    }
    Ok(values)
}

fn option(cursor: &mut Cursor, verb: Verb, values: &mut Values) -> Result<(), TsqlError> {
    let at = cursor.mark();
    let unexpected = cursor.syntax("an option");
    let Some(word) = cursor.option_word() else { return Err(unexpected) };
    let Some(rule) = RULES.iter().find(|rule| rule.name.eq_ignore_ascii_case(&word)) else {
        // A reserved word that is no option is a slip of syntax ("WITH TO"), any other word an unknown option.
        return Err(match unexpected {
            TsqlError::Keyword { .. } => unexpected,
            _ => at.unknown_option(word, verb),
        });
    };
    let name = rule.name;
    if !rule.verbs.allows(verb) {
        return Err(at.option_not_for_verb(name, verb));
    }
    match &rule.shape {
        Shape::NotYet => Err(at.not_supported_yet(format!("the option {name}"))),
        Shape::Flag { slot, says, opposite } => match slot(values).replace(*says) {
            None => Ok(()),
            Some(said) => Err(at.conflicting_options(name, if said == *says { name } else { opposite })),
        },
        Shape::Number { slot, range } => {
            let value = match range.bare {
                Some(bare) if !cursor.take_equals() => bare,
                bare => {
                    if bare.is_none() {
                        cursor.expect_equals()?;
                    }
                    let value_at = cursor.mark();
                    let digits = cursor.number(range.words)?;
                    match digits.parse::<u32>().ok().filter(|value| (range.holds)(*value)) {
                        Some(value) => value,
                        None => return Err(value_at.invalid_value(name, digits, range.words)),
                    }
                }
            };
            match slot(values).replace(value) {
                None => Ok(()),
                Some(_) => Err(at.conflicting_options(name, name)),
            }
        }
        Shape::Text { slot, max, words } => {
            cursor.expect_equals()?;
            let value_at = cursor.mark();
            let text = cursor.string("a text in quotes")?;
            if text.chars().count() > *max {
                return Err(value_at.invalid_value(name, text, words));
            }
            match slot(values).replace(text) {
                None => Ok(()),
                Some(_) => Err(at.conflicting_options(name, name)),
            }
        }
    }
}
