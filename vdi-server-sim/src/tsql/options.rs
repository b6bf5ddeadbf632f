//! The options behind WITH, read by the [table] of them.

mod table;

use crate::messages::Verb;

use super::cursor::Cursor;
use super::error::TsqlError;
pub(super) use table::RULES;
use table::{LONG, Range, Shape};

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
    /// CONTINUE_AFTER_ERROR: damaged pages do not end the backup.
    pub continue_after_error: bool,
    /// RETAINDAYS or EXPIREDATE: when the backup may be overwritten.
    pub expires: Option<Expiry>,
}

/// When a backup set may be overwritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// RETAINDAYS.
    Days(u32),
    /// EXPIREDATE, as `YYYY-MM-DD hh:mm:ss` in local time.
    Date(String),
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
    /// MOVE: logical names of files, and where they go.
    pub moves: Vec<(String, String)>,
    /// CONTINUE_AFTER_ERROR: damaged pages do not end the restore.
    pub continue_after_error: bool,
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
            continue_after_error: false,
            expires: None,
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
            moves: Vec::new(),
            continue_after_error: false,
        }
    }
}

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
