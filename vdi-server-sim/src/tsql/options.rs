//! The options behind WITH: one table of what each is called, which statement may have it, where its value is kept, and what
//! the simulator does about it. `docs/statements.md` lists the same table.

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
    /// COMPRESSION (`true`) or NO_COMPRESSION (`false`, the default). The stream is never compressed.
    pub compression: Option<bool>,
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
    /// FILE: which backup set of the media to restore. A virtual device holds one, so only 1 is accepted.
    pub file: Option<u32>,
    /// UNLOAD (`true`, the default) or NOUNLOAD (`false`): for tapes.
    pub unload: Option<bool>,
    /// REWIND (`true`, the default) or NOREWIND (`false`): for tapes.
    pub rewind: Option<bool>,
    /// CHECKSUM (`true`) or NO_CHECKSUM (`false`).
    pub checksum: Option<bool>,
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

impl BackupOptions {
    /// What the user is told of options that were taken and have no effect although they ask for one.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = &'static str> {
        (self.compression == Some(true)).then_some(COMPRESSION_REMARK).into_iter()
    }
}

/// What the user is told of COMPRESSION.
const COMPRESSION_REMARK: &str = "COMPRESSION: the stream stays uncompressed; ALGORITHM and LEVEL have no effect";

/// The values of a WITH clause while it is read, for either verb.
#[derive(Default)]
pub(super) struct Values {
    copy_only: Option<bool>,
    replace: Option<bool>,
    snapshot: Option<bool>,
    format: Option<bool>,
    init: Option<bool>,
    skip: Option<bool>,
    unload: Option<bool>,
    rewind: Option<bool>,
    checksum: Option<bool>,
    compression: Option<bool>,
    stats: Option<u32>,
    file: Option<u32>,
    max_transfer_size: Option<u32>,
    block_size: Option<u32>,
    buffer_count: Option<u32>,
    name: Option<String>,
    description: Option<String>,
    media_name: Option<String>,
    media_description: Option<String>,
    /// Options that were taken and have no value to keep.
    ignored: Vec<&'static str>,
}

impl Values {
    /// Whether SNAPSHOT is among the options.
    pub(super) fn snapshot(&self) -> bool {
        self.snapshot.unwrap_or(false)
    }

    /// The backup set that FILE asks for.
    pub(super) fn file(&self) -> u32 {
        self.file.unwrap_or(1)
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
            compression: self.compression,
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
            file: self.file,
            unload: self.unload,
            rewind: self.rewind,
            checksum: self.checksum,
            stats: self.stats.and_then(|percent| u8::try_from(percent).ok()),
            media_name: self.media_name,
            max_transfer_size: self.max_transfer_size,
            block_size: self.block_size,
            buffer_count: self.buffer_count,
        }
    }
}

/// Which statements may have an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Backup,
    Restore,
    Both,
    /// Only statements that the simulator does not have, such as BACKUP LOG.
    Others,
}

impl For {
    pub(super) fn allows(self, verb: Verb) -> bool {
        match self {
            Self::Both => true,
            Self::Backup => verb == Verb::Backup,
            Self::Restore => verb == Verb::Restore,
            Self::Others => false,
        }
    }
}

/// A rule of a number: the range in words, and whether a value is in it.
pub(super) struct Range {
    words: &'static str,
    holds: fn(u32) -> bool,
    /// The value of the bare keyword, where it may stand alone.
    bare: Option<u32>,
}

/// What follows an option's name, and where the value goes.
pub(super) enum Shape {
    /// Nothing follows; the name itself says yes or no. `opposite` is the option that says the other thing.
    Flag { slot: fn(&mut Values) -> &mut Option<bool>, says: bool, opposite: &'static str },
    /// A flag that says yes, and `(ALGORITHM = word [, LEVEL = word])` behind it or not.
    Compression,
    /// `= number`.
    Number { slot: fn(&mut Values) -> &mut Option<u32>, range: Range },
    /// `= 'text'` of at most so many characters.
    Text { slot: fn(&mut Values) -> &mut Option<String>, max: usize, words: &'static str },
    /// Nothing follows, and nothing is kept.
    Ignored,
    /// `= 'text'`, which is not kept.
    IgnoredText,
    /// `= number`, which is not kept.
    IgnoredNumber(Range),
    /// It changes the result, and the simulator cannot do that: refused by its name.
    Refused,
}

/// One option.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) verbs: For,
    pub(super) shape: Shape,
    /// What it means here; for one that is refused, what to do instead.
    pub(super) note: &'static str,
}

/// What the simulator does about an option.
#[cfg(test)]
impl Rule {
    pub(super) fn stance(&self) -> &'static str {
        match self.shape {
            _ if self.verbs == For::Others => "message 3032",
            Shape::Refused => "refused",
            Shape::Compression => "taken, with a remark",
            _ => "taken",
        }
    }

    pub(super) fn statements(&self) -> &'static str {
        match self.verbs {
            For::Backup => "BACKUP",
            For::Restore => "RESTORE",
            For::Both => "both",
            For::Others => "neither",
        }
    }

    /// The option as it can stand in a statement.
    pub(super) fn example(&self) -> String {
        let value = match &self.shape {
            Shape::Flag { .. } | Shape::Ignored | Shape::Refused => "",
            Shape::Compression => " (ALGORITHM = ZSTD, LEVEL = HIGH)",
            Shape::Number { .. } if self.name == "MAXTRANSFERSIZE" => " = 65536",
            Shape::Number { .. } if self.name == "BLOCKSIZE" => " = 512",
            Shape::Number { .. } | Shape::IgnoredNumber(_) => " = 1",
            Shape::Text { .. } | Shape::IgnoredText => " = N'x'",
        };
        format!("{}{value}", self.name)
    }
}

const MEDIA: &str = "a virtual device always gets one new backup";
const TAPES: &str = "for tapes only";
const NOT_KEPT: &str = "not kept: the stream has no place for it";
const NOTHING_EXPIRES: &str = "nothing expires on a virtual device";
const NO_BROKER: &str = "no database here has a Service Broker";
const NO_OTHER_BACKUP: &str = "restore WITH RECOVERY: no other backup can follow";
const NO_PASSWORD: &str = "leave it out: no backup here has a password";

const fn flag(
    name: &'static str,
    verbs: For,
    slot: fn(&mut Values) -> &mut Option<bool>,
    (says, opposite): (bool, &'static str),
    note: &'static str,
) -> Rule {
    Rule { name, verbs, shape: Shape::Flag { slot, says, opposite }, note }
}

const fn number(
    name: &'static str,
    verbs: For,
    slot: fn(&mut Values) -> &mut Option<u32>,
    range: Range,
    note: &'static str,
) -> Rule {
    Rule { name, verbs, shape: Shape::Number { slot, range }, note }
}

const fn text(
    name: &'static str,
    verbs: For,
    slot: fn(&mut Values) -> &mut Option<String>,
    (max, words): (usize, &'static str),
) -> Rule {
    Rule { name, verbs, shape: Shape::Text { slot, max, words }, note: NOT_KEPT }
}

const fn ignored(name: &'static str, verbs: For, shape: Shape, note: &'static str) -> Rule {
    Rule { name, verbs, shape, note }
}

const fn refused(name: &'static str, verbs: For, remedy: &'static str) -> Rule {
    Rule { name, verbs, shape: Shape::Refused, note: remedy }
}

const SHORT: (usize, &str) = (128, "at most 128 characters");
const LONG: (usize, &str) = (255, "at most 255 characters");

/// Every option that Transact-SQL knows for `BACKUP DATABASE` and `RESTORE DATABASE`.
pub(super) static RULES: &[Rule] = &[
    flag(
        "COPY_ONLY",
        For::Backup,
        |v| &mut v.copy_only,
        (true, "COPY_ONLY"),
        "no backup here is the base of another one",
    ),
    flag(
        "SNAPSHOT",
        For::Both,
        |v| &mut v.snapshot,
        (true, "SNAPSHOT"),
        "a snapshot backup or restore, over one device",
    ),
    flag("REPLACE", For::Restore, |v| &mut v.replace, (true, "REPLACE"), "an existing database may be replaced"),
    flag(
        "CHECKSUM",
        For::Both,
        |v| &mut v.checksum,
        (true, "NO_CHECKSUM"),
        "the stream carries checksums of the data; the default",
    ),
    flag(
        "NO_CHECKSUM",
        For::Both,
        |v| &mut v.checksum,
        (false, "CHECKSUM"),
        "the stream carries no checksums of the data; RESTORE compares those that are there",
    ),
    number(
        "MAXTRANSFERSIZE",
        For::Both,
        |v| &mut v.max_transfer_size,
        Range {
            words: "a multiple of 65536 from 65536 to 4194304",
            holds: |n| n % 65_536 == 0 && (65_536..=4_194_304).contains(&n),
            bare: None,
        },
        "bytes of the largest transfer, 65536 to 4194304 in steps of 65536; default 65536",
    ),
    number(
        "BLOCKSIZE",
        For::Both,
        |v| &mut v.block_size,
        Range {
            words: "a power of two from 512 to 65536",
            holds: |n| n.is_power_of_two() && (512..=65_536).contains(&n),
            bare: None,
        },
        "512 to 65536, a power of two; default 512. RESTORE must use that of the BACKUP",
    ),
    number(
        "BUFFERCOUNT",
        For::Both,
        |v| &mut v.buffer_count,
        Range { words: "a whole number from 1 to 2147483647", holds: |n| (1..=0x7FFF_FFFF).contains(&n), bare: None },
        "buffers of MAXTRANSFERSIZE that all devices share; default 4 a device",
    ),
    number(
        "STATS",
        For::Both,
        |v| &mut v.stats,
        Range { words: "a whole number from 1 to 100", holds: |n| (1..=100).contains(&n), bare: Some(10) },
        "message 3211 each time that so many percent are done; 10 without a number",
    ),
    number(
        "FILE",
        For::Restore,
        |v| &mut v.file,
        Range { words: "a whole number from 1 to 2147483647", holds: |n| (1..=0x7FFF_FFFF).contains(&n), bare: None },
        "1; message 4038 for others, because a virtual device holds one backup set",
    ),
    flag("FORMAT", For::Backup, |v| &mut v.format, (true, "NOFORMAT"), MEDIA),
    flag("NOFORMAT", For::Backup, |v| &mut v.format, (false, "FORMAT"), MEDIA),
    flag("INIT", For::Backup, |v| &mut v.init, (true, "NOINIT"), MEDIA),
    flag("NOINIT", For::Backup, |v| &mut v.init, (false, "INIT"), MEDIA),
    flag("SKIP", For::Backup, |v| &mut v.skip, (true, "NOSKIP"), NOTHING_EXPIRES),
    flag("NOSKIP", For::Backup, |v| &mut v.skip, (false, "SKIP"), NOTHING_EXPIRES),
    ignored("EXPIREDATE", For::Backup, Shape::IgnoredText, NOTHING_EXPIRES),
    ignored(
        "RETAINDAYS",
        For::Backup,
        Shape::IgnoredNumber(Range { words: "a whole number from 0 to 99999", holds: |n| n <= 99_999, bare: None }),
        NOTHING_EXPIRES,
    ),
    flag("UNLOAD", For::Both, |v| &mut v.unload, (true, "NOUNLOAD"), TAPES),
    flag("NOUNLOAD", For::Both, |v| &mut v.unload, (false, "UNLOAD"), TAPES),
    flag("REWIND", For::Both, |v| &mut v.rewind, (true, "NOREWIND"), TAPES),
    flag("NOREWIND", For::Both, |v| &mut v.rewind, (false, "REWIND"), TAPES),
    text("NAME", For::Backup, |v| &mut v.name, SHORT),
    text("DESCRIPTION", For::Backup, |v| &mut v.description, LONG),
    text("MEDIANAME", For::Both, |v| &mut v.media_name, SHORT),
    text("MEDIADESCRIPTION", For::Backup, |v| &mut v.media_description, LONG),
    Rule {
        name: "COMPRESSION",
        verbs: For::Backup,
        shape: Shape::Compression,
        note: "the stream stays uncompressed; ALGORITHM and LEVEL have no effect",
    },
    flag("NO_COMPRESSION", For::Backup, |v| &mut v.compression, (false, "COMPRESSION"), "the stream is not compressed"),
    ignored("STOP_ON_ERROR", For::Both, Shape::Ignored, "damage ends the statement"),
    ignored("RESTART", For::Both, Shape::Ignored, "every statement begins at the beginning"),
    ignored("RECOVERY", For::Restore, Shape::Ignored, "a restored database can be used at once"),
    ignored("KEEP_REPLICATION", For::Restore, Shape::Ignored, "no database here is replicated"),
    ignored("KEEP_CDC", For::Restore, Shape::Ignored, "no database here captures changes"),
    ignored("ENABLE_BROKER", For::Restore, Shape::Ignored, NO_BROKER),
    ignored("NEW_BROKER", For::Restore, Shape::Ignored, NO_BROKER),
    ignored("ERROR_BROKER_CONVERSATIONS", For::Restore, Shape::Ignored, NO_BROKER),
    refused("DIFFERENTIAL", For::Backup, "back up the whole database, without DIFFERENTIAL"),
    refused("ENCRYPTION", For::Backup, "let the client encrypt what it stores"),
    refused("CONTINUE_AFTER_ERROR", For::Both, "use STOP_ON_ERROR, and mend what ends the statement"),
    refused("FILE_SNAPSHOT", For::Backup, "use SNAPSHOT, or a backup that holds the data"),
    refused("METADATA_ONLY", For::Both, "use SNAPSHOT"),
    refused("CREDENTIAL", For::Both, "leave it out: a virtual device needs no credential"),
    refused("BACKUP_OPTIONS", For::Backup, "leave it out: it is for a URL, and not for a virtual device"),
    refused("RESTORE_OPTIONS", For::Restore, "leave it out: it is for a URL, and not for a virtual device"),
    refused("NORECOVERY", For::Restore, NO_OTHER_BACKUP),
    refused("STANDBY", For::Restore, NO_OTHER_BACKUP),
    refused("MOVE", For::Restore, "restore under another name: the files go into the folder of that database"),
    refused("PARTIAL", For::Restore, "restore the whole database, without PARTIAL"),
    refused("STOPAT", For::Restore, "restore the database as it was at the end of the backup, without STOPAT"),
    refused("STOPATMARK", For::Restore, "restore the database as it was at the end of the backup, without STOPATMARK"),
    refused(
        "STOPBEFOREMARK",
        For::Restore,
        "restore the database as it was at the end of the backup, without STOPBEFOREMARK",
    ),
    refused("RESTRICTED_USER", For::Restore, "leave it out: there are no users who could be kept out"),
    refused("FILESTREAM", For::Restore, "leave it out: no database here has FILESTREAM data"),
    refused("PASSWORD", For::Restore, NO_PASSWORD),
    refused("MEDIAPASSWORD", For::Restore, NO_PASSWORD),
    refused("DBNAME", For::Restore, "name the database behind RESTORE DATABASE"),
    ignored("NO_TRUNCATE", For::Others, Shape::Ignored, "for BACKUP LOG"),
    ignored("LOADHISTORY", For::Others, Shape::Ignored, "for RESTORE VERIFYONLY"),
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
    let twice = at.conflicting_options(name, name);
    let is_new = match &rule.shape {
        Shape::Refused => return Err(at.not_supported_yet(format!("the option {name}"), rule.note)),
        Shape::Flag { slot, says, opposite } => match slot(values).replace(*says) {
            Some(said) if said != *says => return Err(at.conflicting_options(name, opposite)),
            said => said.is_none(),
        },
        Shape::Compression => {
            how_to_compress(cursor)?;
            match values.compression.replace(true) {
                Some(false) => return Err(at.conflicting_options(name, "NO_COMPRESSION")),
                said => said.is_none(),
            }
        }
        Shape::Number { slot, range } => slot(values).replace(number_in(cursor, name, range)?).is_none(),
        Shape::Text { slot, max, words } => slot(values).replace(text_of(cursor, name, *max, words)?).is_none(),
        Shape::Ignored => values.ignore(name),
        Shape::IgnoredText => {
            let (max, words) = LONG;
            text_of(cursor, name, max, words)?;
            values.ignore(name)
        }
        Shape::IgnoredNumber(range) => {
            number_in(cursor, name, range)?;
            values.ignore(name)
        }
    };
    if is_new { Ok(()) } else { Err(twice) }
}

impl Values {
    /// Takes note of an option without a value to keep; false if it was there already.
    fn ignore(&mut self, name: &'static str) -> bool {
        let is_new = !self.ignored.contains(&name);
        self.ignored.push(name);
        is_new
    }
}

/// `[(ALGORITHM = word [, LEVEL = word])]`.
fn how_to_compress(cursor: &mut Cursor) -> Result<(), TsqlError> {
    if !cursor.take_opening() {
        return Ok(());
    }
    loop {
        if !cursor.take_keyword("ALGORITHM") && !cursor.take_keyword("LEVEL") {
            return Err(cursor.syntax("ALGORITHM or LEVEL"));
        }
        cursor.expect_equals()?;
        let unexpected = cursor.syntax("the name of an algorithm or level");
        if cursor.option_word().is_none() {
            return Err(unexpected);
        }
        if !cursor.take_comma() {
            break;
        }
    }
    if cursor.take_closing() { Ok(()) } else { Err(cursor.syntax(")")) }
}

/// `= number`, or nothing where the keyword may stand alone.
fn number_in(cursor: &mut Cursor, name: &'static str, range: &Range) -> Result<u32, TsqlError> {
    if let Some(bare) = range.bare {
        if !cursor.take_equals() {
            return Ok(bare);
        }
    } else {
        cursor.expect_equals()?;
    }
    let at = cursor.mark();
    let digits = cursor.number(range.words)?;
    let value = digits.parse().ok().filter(|value| (range.holds)(*value));
    value.ok_or_else(|| at.invalid_value(name, digits, range.words))
}

/// `= 'text'`.
fn text_of(cursor: &mut Cursor, name: &'static str, max: usize, words: &'static str) -> Result<String, TsqlError> {
    cursor.expect_equals()?;
    let at = cursor.mark();
    let text = cursor.string("a text in quotes")?;
    if text.chars().count() > max { Err(at.invalid_value(name, text, words)) } else { Ok(text) }
}
