//! The options behind WITH, read by the [table] of them.

mod table;

use super::MAX_PATH;
use super::cursor::Cursor;
use super::date;
use super::error::{Mark, PHYSICAL, TsqlError};
#[cfg(test)]
pub(super) use table::KINDS;
pub(super) use table::{Kind, RULES};
use table::{Range, Shape};

/// The options of a BACKUP. `None` means that the statement does not say; SQL Server's default is given with each field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupOptions {
    /// COPY_ONLY: the backup is the base of no differential backup.
    pub copy_only: bool,
    /// SNAPSHOT: only metadata goes to the device; the client itself copies the files while writes to them are suspended. The
    /// statement names one device then, see [`TsqlError::SnapshotDevices`].
    pub snapshot: bool,
    /// FORMAT (`true`) or NOFORMAT (`false`, the default): whether the medium is begun anew. A virtual device always is.
    pub format: Option<bool>,
    /// INIT (`true`) or NOINIT (`false`, the default): whether the backup sets on the medium are overwritten. Those on a virtual
    /// device always are.
    pub init: Option<bool>,
    /// SKIP (`true`) or NOSKIP (`false`, the default): whether backup sets may be overwritten before they expire.
    pub skip: Option<bool>,
    /// UNLOAD (`true`, the default) or NOUNLOAD (`false`): for tapes.
    pub unload: Option<bool>,
    /// REWIND (`true`, the default) or NOREWIND (`false`): for tapes.
    pub rewind: Option<bool>,
    /// CHECKSUM (`true`) or NO_CHECKSUM (`false`, the default): whether pages are verified, and the backup carries checksums of its own.
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
    /// CONTINUE_AFTER_ERROR (`true`) or STOP_ON_ERROR (`false`, the default): damaged pages do not end the backup.
    pub continue_after_error: bool,
    /// RETAINDAYS or EXPIREDATE: when the backup may be overwritten. Of both, RETAINDAYS counts.
    pub expires: Option<Expiry>,
}

/// When a backup set may be overwritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// RETAINDAYS: so many days after the backup, 0 to 99999.
    Days(u32),
    /// EXPIREDATE, as `YYYY-MM-DD hh:mm:ss` in local time.
    Date(String),
}

/// The options of a RESTORE, of whatever kind. `None` means that the statement does not say; SQL Server's default is given with each field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// REPLACE: an existing database of this name may be overwritten.
    pub replace: bool,
    /// SNAPSHOT: the backup was made WITH SNAPSHOT; the device gives only metadata, and the client itself puts the files into
    /// their places. The statement names one device then, see [`TsqlError::SnapshotDevices`].
    pub snapshot: bool,
    /// FILE: which backup set of the media is meant, from 1. The default is 1; HEADERONLY shows all sets without it.
    pub file: Option<u32>,
    /// UNLOAD (`true`, the default) or NOUNLOAD (`false`): for tapes.
    pub unload: Option<bool>,
    /// REWIND (`true`, the default) or NOREWIND (`false`): for tapes.
    pub rewind: Option<bool>,
    /// CHECKSUM (`true`): the backup must have checksums, and they are verified. NO_CHECKSUM (`false`): they are not. Without either,
    /// those that are there are verified. Pages are verified by their own checksums in each case.
    pub checksum: Option<bool>,
    /// STATS: progress is reported each time that this many percent (1 to 100) are done; 10 for STATS without a number.
    pub stats: Option<u8>,
    /// MEDIANAME, at most 128 characters.
    pub media_name: Option<String>,
    /// MAXTRANSFERSIZE in bytes: a multiple of 64 KB, 64 KB to 4 MB.
    pub max_transfer_size: Option<u32>,
    /// BLOCKSIZE in bytes: a power of two, 512 to 65536. If it is given, it has to be that of the backup.
    pub block_size: Option<u32>,
    /// BUFFERCOUNT: number of buffers of MAXTRANSFERSIZE for all devices together, at least 1.
    pub buffer_count: Option<u32>,
    /// MOVE: logical names of files, all different, and where they go.
    pub moves: Vec<(String, String)>,
    /// CONTINUE_AFTER_ERROR (`true`) or STOP_ON_ERROR (`false`, the default): damaged pages do not end the restore.
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

/// The values of a WITH clause while it is read, for any statement.
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
    retain_days: Option<u32>,
    continue_after_error: Option<bool>,
    expire_date: Option<String>,
    moves: Vec<(String, String)>,
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
            continue_after_error: self.continue_after_error.unwrap_or(false),
            expires: self.retain_days.map(Expiry::Days).or(self.expire_date.map(Expiry::Date)),
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
            moves: self.moves,
            continue_after_error: self.continue_after_error.unwrap_or(false),
        }
    }
}

/// `[WITH option {, option}]`.
pub(super) fn with_clause(cursor: &mut Cursor, kind: Kind) -> Result<Values, TsqlError> {
    let mut values = Values::default();
    if cursor.take_keyword("WITH") {
        option(cursor, kind, &mut values)?;
        while cursor.take_comma() {
            option(cursor, kind, &mut values)?;
        }
    }
    Ok(values)
}

fn option(cursor: &mut Cursor, kind: Kind, values: &mut Values) -> Result<(), TsqlError> {
    let at = cursor.mark();
    let unexpected = cursor.syntax("an option");
    let Some(word) = cursor.option_word() else { return Err(unexpected) };
    let Some(rule) = RULES.iter().find(|rule| rule.name.eq_ignore_ascii_case(&word)) else {
        // A reserved word that is no option is a slip of syntax ("WITH TO"), any other word an unknown option.
        return Err(match unexpected {
            TsqlError::Keyword { .. } => unexpected,
            _ => at.unknown_option(word, kind.verb()),
        });
    };
    let name = rule.name;
    if !rule.statements.allow(kind) {
        return Err(at.option_not_for_verb(name, kind.verb()));
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
        Shape::Date => values.expire_date.replace(date_of(cursor, name)?).is_none(),
        Shape::Move => {
            let (logical_name, path) = file_move(cursor)?;
            let is_new = values.moves.iter().all(|(moved, _)| *moved != logical_name);
            values.moves.push((logical_name, path));
            is_new
        }
        Shape::Ignored => values.ignore(name),
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
            return cursor.expect_closing();
        }
    }
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

/// `= 'date'`: the time as [`Expiry::Date`] has it.
fn date_of(cursor: &mut Cursor, name: &'static str) -> Result<String, TsqlError> {
    cursor.expect_equals()?;
    let at = cursor.mark();
    if let Some(time) = cursor.time_variable() {
        // Without the fraction of the second.
        return Ok(time.to_string().chars().take(19).collect());
    }
    let text = cursor.string("a date in quotes")?;
    date::normalized(&text)
        .ok_or_else(|| at.invalid_value(name, text, "a date, such as '2030-12-31' or '2030-12-31 23:59:59'"))
}

/// `'logical name' TO 'path'`.
fn file_move(cursor: &mut Cursor) -> Result<(String, String), TsqlError> {
    let logical_name = cursor.string("the logical name of a file in quotes")?;
    cursor.expect_keyword("TO", "TO")?;
    let at = cursor.mark();
    let path = cursor.string("the path of the file in quotes")?;
    check_path(at, PHYSICAL, path).map(|path| (logical_name, path))
}

/// The path of a file, if it can be one. `what` tells errors what file it is.
pub(super) fn check_path(at: Mark, what: &'static str, path: String) -> Result<String, TsqlError> {
    let reason = if path.is_empty() {
        "it is empty; give the path of a file"
    } else if path.chars().count() > MAX_PATH {
        "it is longer than 259 characters; shorten it"
    } else if path.contains('\0') {
        "it contains a NUL character; take that out"
    } else {
        return Ok(path);
    };
    Err(at.invalid_name(what, path, reason))
}
