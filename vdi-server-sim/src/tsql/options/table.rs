//! The table of options: what each is called, which statement may have it, where its value is kept, and what the simulator does
//! about it. `docs/statements.md` lists the same.

use super::Values;
use crate::messages::Verb;
use crate::tsql::Inspection;

/// The statement whose options are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tsql) enum Kind {
    Backup,
    Restore,
    Inspect(Inspection),
}

/// All kinds, with their names in the documentation.
pub(in crate::tsql) const KINDS: [(Kind, &str); 6] = [
    (Kind::Backup, "BACKUP"),
    (Kind::Restore, "RESTORE"),
    (Kind::Inspect(Inspection::Label), "LABELONLY"),
    (Kind::Inspect(Inspection::Header), "HEADERONLY"),
    (Kind::Inspect(Inspection::FileList), "FILELISTONLY"),
    (Kind::Inspect(Inspection::Verify), "VERIFYONLY"),
];

impl Kind {
    pub(in crate::tsql) fn verb(self) -> Verb {
        if self == Self::Backup { Verb::Backup } else { Verb::Restore }
    }

    fn bit(self) -> u8 {
        KINDS.iter().position(|(kind, _)| *kind == self).map_or(0, |at| 1 << at)
    }
}

/// Which statements may have an option: a bit for each of [`KINDS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::tsql) struct Statements(u8);

const BACKUP: Statements = Statements(1);
const RESTORE: Statements = Statements(2);
const VERIFY: Statements = Statements(32);
/// BACKUP DATABASE and RESTORE DATABASE.
const BOTH: Statements = Statements(1 | 2);
/// Those that move all data.
const MOVING: Statements = Statements(1 | 2 | 32);
/// RESTORE DATABASE and VERIFYONLY.
const RESTORING: Statements = Statements(2 | 32);
/// Those that look for one backup set.
const SETS: Statements = Statements(2 | 8 | 16 | 32);
/// Those that read.
const READING: Statements = Statements(2 | 4 | 8 | 16 | 32);
const ALL: Statements = Statements(1 | 2 | 4 | 8 | 16 | 32);
/// Only statements that the simulator does not have, such as BACKUP LOG.
const OTHERS: Statements = Statements(0);

impl Statements {
    pub(in crate::tsql) fn allow(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

/// A rule of a number: the range in words, and whether a value is in it.
pub(in crate::tsql) struct Range {
    pub(super) words: &'static str,
    pub(super) holds: fn(u32) -> bool,
    /// The value of the bare keyword, where it may stand alone.
    pub(super) bare: Option<u32>,
}

/// What follows an option's name, and where the value goes.
pub(in crate::tsql) enum Shape {
    /// Nothing follows; the name itself says yes or no. `opposite` is the option that says the other thing.
    Flag { slot: fn(&mut Values) -> &mut Option<bool>, says: bool, opposite: &'static str },
    /// A flag that says yes, and `(ALGORITHM = word [, LEVEL = word])` behind it or not.
    Compression,
    /// `= number`.
    Number { slot: fn(&mut Values) -> &mut Option<u32>, range: Range },
    /// `= 'text'` of at most so many characters.
    Text { slot: fn(&mut Values) -> &mut Option<String>, max: usize, words: &'static str },
    /// `= 'date'`: EXPIREDATE.
    Date,
    /// `'logical name' TO 'path'`: MOVE, which may come several times.
    Move,
    /// Nothing follows, and nothing is kept.
    Ignored,
    /// It changes the result, and the simulator cannot do that: refused by its name.
    Refused,
}

/// One option.
pub(in crate::tsql) struct Rule {
    pub(in crate::tsql) name: &'static str,
    pub(in crate::tsql) statements: Statements,
    pub(in crate::tsql) shape: Shape,
    /// What it means here; for one that is refused, what to do instead.
    pub(in crate::tsql) note: &'static str,
}

/// What the simulator does about an option.
#[cfg(test)]
impl Rule {
    pub(in crate::tsql) fn stance(&self) -> &'static str {
        match self.shape {
            _ if self.statements == OTHERS => "message 3032",
            Shape::Refused => "refused",
            Shape::Compression => "taken, with a remark",
            _ => "taken",
        }
    }

    /// The statements as the documentation names them.
    pub(in crate::tsql) fn for_statements(&self) -> String {
        match self.statements {
            OTHERS => return "none".to_owned(),
            ALL => return "all".to_owned(),
            READING => return "RESTORE, all ...ONLY".to_owned(),
            _ => {}
        }
        let names = KINDS.iter().filter(|(kind, _)| self.statements.allow(*kind)).map(|(_, name)| *name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// The option as it can stand in a statement.
    pub(in crate::tsql) fn example(&self) -> String {
        let value = match &self.shape {
            Shape::Flag { .. } | Shape::Ignored | Shape::Refused => "",
            Shape::Compression => " (ALGORITHM = ZSTD, LEVEL = HIGH)",
            Shape::Number { .. } if self.name == "MAXTRANSFERSIZE" => " = 65536",
            Shape::Number { .. } if self.name == "BLOCKSIZE" => " = 512",
            Shape::Number { .. } => " = 1",
            Shape::Text { .. } => " = N'x'",
            Shape::Date => " = '2030-12-31'",
            Shape::Move => " 'a' TO 'b'",
        };
        format!("{}{value}", self.name)
    }
}

const MEDIA: &str = "a DISK file is begun anew, or not; a virtual device always gets one new backup";
const SKIPPING: &str = "whether backups in a DISK file may be overwritten before they expire";
const TAPES: &str = "for tapes only";
const IN_HEADER: &str = "kept in the header of the backup";
const IN_LABEL: &str = "kept in the header of the media; RESTORE does not compare it";
const EXPIRES: &str = "kept in the header of the backup; of both RETAINDAYS counts";
const ERRORS: &str =
    "whether a damaged page is reported and the statement goes on, or fails; STOP_ON_ERROR is the default";
const NO_BROKER: &str = "no database here has a Service Broker";
const NO_OTHER_BACKUP: &str = "restore WITH RECOVERY: no other backup can follow";
const TO_THE_END: &str = "restore the database as it was at the end of the backup";
const NO_PASSWORD: &str = "leave it out: no backup here has a password";

const fn flag(
    name: &'static str,
    statements: Statements,
    slot: fn(&mut Values) -> &mut Option<bool>,
    (says, opposite): (bool, &'static str),
    note: &'static str,
) -> Rule {
    Rule { name, statements, shape: Shape::Flag { slot, says, opposite }, note }
}

const fn number(
    name: &'static str,
    statements: Statements,
    slot: fn(&mut Values) -> &mut Option<u32>,
    range: Range,
    note: &'static str,
) -> Rule {
    Rule { name, statements, shape: Shape::Number { slot, range }, note }
}

const fn text(
    name: &'static str,
    statements: Statements,
    slot: fn(&mut Values) -> &mut Option<String>,
    (max, words): (usize, &'static str),
    note: &'static str,
) -> Rule {
    Rule { name, statements, shape: Shape::Text { slot, max, words }, note }
}

const fn rule(name: &'static str, statements: Statements, shape: Shape, note: &'static str) -> Rule {
    Rule { name, statements, shape, note }
}

const fn refused(name: &'static str, statements: Statements, remedy: &'static str) -> Rule {
    Rule { name, statements, shape: Shape::Refused, note: remedy }
}

const SHORT: (usize, &str) = (128, "at most 128 characters");
const LONG: (usize, &str) = (255, "at most 255 characters");

/// Every option that Transact-SQL knows for `BACKUP DATABASE`, `RESTORE DATABASE`, and `RESTORE LABELONLY` and its like.
pub(in crate::tsql) static RULES: &[Rule] = &[
    flag("COPY_ONLY", BACKUP, |v| &mut v.copy_only, (true, "COPY_ONLY"), "recorded in the backup and in the history"),
    flag(
        "SNAPSHOT",
        BOTH,
        |v| &mut v.snapshot,
        (true, "SNAPSHOT"),
        "a snapshot backup or restore, over one virtual device",
    ),
    flag("REPLACE", RESTORE, |v| &mut v.replace, (true, "REPLACE"), "an existing database may be replaced"),
    flag(
        "CHECKSUM",
        ALL,
        |v| &mut v.checksum,
        (true, "NO_CHECKSUM"),
        "BACKUP verifies pages, and the backup carries checksums; RESTORE insists on them",
    ),
    flag(
        "NO_CHECKSUM",
        ALL,
        |v| &mut v.checksum,
        (false, "CHECKSUM"),
        "BACKUP: the default, as in SQL Server; RESTORE does not verify backup checksums, but pages as always",
    ),
    number(
        "MAXTRANSFERSIZE",
        ALL,
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
        ALL,
        |v| &mut v.block_size,
        Range {
            words: "a power of two from 512 to 65536",
            holds: |n| n.is_power_of_two() && (512..=65_536).contains(&n),
            bare: None,
        },
        "512 to 65536, a power of two; default 512, on DISK 4096. A RESTORE that gives it has to give that of the BACKUP (4096 and more count as one)",
    ),
    number(
        "BUFFERCOUNT",
        ALL,
        |v| &mut v.buffer_count,
        Range { words: "a whole number from 1 to 2147483647", holds: |n| (1..=0x7FFF_FFFF).contains(&n), bare: None },
        "buffers of MAXTRANSFERSIZE that all devices share; default 4 a device",
    ),
    number(
        "STATS",
        MOVING,
        |v| &mut v.stats,
        Range { words: "a whole number from 1 to 100", holds: |n| (1..=100).contains(&n), bare: Some(10) },
        "message 3211 each time that so many percent are done; 10 without a number",
    ),
    number(
        "FILE",
        SETS,
        |v| &mut v.file,
        Range { words: "a whole number from 1 to 2147483647", holds: |n| (1..=0x7FFF_FFFF).contains(&n), bare: None },
        "which backup set of the media, from 1; message 4038 where there is none of this number",
    ),
    flag("FORMAT", BACKUP, |v| &mut v.format, (true, "NOFORMAT"), MEDIA),
    flag("NOFORMAT", BACKUP, |v| &mut v.format, (false, "FORMAT"), MEDIA),
    flag("INIT", BACKUP, |v| &mut v.init, (true, "NOINIT"), MEDIA),
    flag("NOINIT", BACKUP, |v| &mut v.init, (false, "INIT"), MEDIA),
    flag("SKIP", BACKUP, |v| &mut v.skip, (true, "NOSKIP"), SKIPPING),
    flag("NOSKIP", BACKUP, |v| &mut v.skip, (false, "SKIP"), SKIPPING),
    rule("EXPIREDATE", BACKUP, Shape::Date, EXPIRES),
    number(
        "RETAINDAYS",
        BACKUP,
        |v| &mut v.retain_days,
        Range { words: "a whole number from 0 to 99999", holds: |n| n <= 99_999, bare: None },
        EXPIRES,
    ),
    flag("UNLOAD", ALL, |v| &mut v.unload, (true, "NOUNLOAD"), TAPES),
    flag("NOUNLOAD", ALL, |v| &mut v.unload, (false, "UNLOAD"), TAPES),
    flag("REWIND", ALL, |v| &mut v.rewind, (true, "NOREWIND"), TAPES),
    flag("NOREWIND", ALL, |v| &mut v.rewind, (false, "REWIND"), TAPES),
    text("NAME", BACKUP, |v| &mut v.name, SHORT, IN_HEADER),
    text("DESCRIPTION", BACKUP, |v| &mut v.description, LONG, IN_HEADER),
    text("MEDIANAME", ALL, |v| &mut v.media_name, SHORT, IN_LABEL),
    text("MEDIADESCRIPTION", BACKUP, |v| &mut v.media_description, LONG, "kept in the header of the media"),
    rule(
        "COMPRESSION",
        BACKUP,
        Shape::Compression,
        "the stream stays uncompressed; ALGORITHM and LEVEL have no effect",
    ),
    flag("NO_COMPRESSION", BACKUP, |v| &mut v.compression, (false, "COMPRESSION"), "the stream is not compressed"),
    flag("CONTINUE_AFTER_ERROR", ALL, |v| &mut v.continue_after_error, (true, "STOP_ON_ERROR"), ERRORS),
    flag("STOP_ON_ERROR", ALL, |v| &mut v.continue_after_error, (false, "CONTINUE_AFTER_ERROR"), ERRORS),
    rule("RESTART", BOTH, Shape::Ignored, "every statement begins at the beginning"),
    rule("MOVE", RESTORING, Shape::Move, "MOVE 'logical name' TO 'path', several times if need be: where files go"),
    rule("RECOVERY", RESTORE, Shape::Ignored, "a restored database can be used at once"),
    rule("KEEP_REPLICATION", RESTORE, Shape::Ignored, "no database here is replicated"),
    rule("KEEP_CDC", RESTORE, Shape::Ignored, "no database here captures changes"),
    rule("ENABLE_BROKER", RESTORE, Shape::Ignored, NO_BROKER),
    rule("NEW_BROKER", RESTORE, Shape::Ignored, NO_BROKER),
    rule("ERROR_BROKER_CONVERSATIONS", RESTORE, Shape::Ignored, NO_BROKER),
    refused("DIFFERENTIAL", BACKUP, "back up the whole database, without DIFFERENTIAL"),
    refused("ENCRYPTION", BACKUP, "let the client encrypt what it stores"),
    refused("FILE_SNAPSHOT", BACKUP, "use SNAPSHOT, or a backup that holds the data"),
    refused("METADATA_ONLY", ALL, "use SNAPSHOT"),
    refused("CREDENTIAL", ALL, "leave it out: a virtual device or a file needs no credential"),
    refused("BACKUP_OPTIONS", BACKUP, "leave it out: it is for a URL only"),
    refused("RESTORE_OPTIONS", READING, "leave it out: it is for a URL only"),
    refused("NORECOVERY", RESTORE, NO_OTHER_BACKUP),
    refused("STANDBY", RESTORE, NO_OTHER_BACKUP),
    refused("PARTIAL", RESTORE, "restore the whole database, without PARTIAL"),
    refused("STOPAT", RESTORE, TO_THE_END),
    refused("STOPATMARK", RESTORE, TO_THE_END),
    refused("STOPBEFOREMARK", RESTORE, TO_THE_END),
    refused("RESTRICTED_USER", RESTORE, "leave it out: there are no users who could be kept out"),
    refused("FILESTREAM", RESTORE, "leave it out: no database here has FILESTREAM data"),
    refused("PASSWORD", READING, NO_PASSWORD),
    refused("MEDIAPASSWORD", READING, NO_PASSWORD),
    refused("DBNAME", RESTORE, "name the database behind RESTORE DATABASE"),
    refused("LOADHISTORY", VERIFY, "leave it out: `vdi-sim history` shows the backups that were made here"),
    rule("NO_TRUNCATE", OTHERS, Shape::Ignored, "for BACKUP LOG"),
];
