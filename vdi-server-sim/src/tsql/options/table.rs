//! The table of options: what each is called, which statement may have it, where its value is kept, and what the simulator does
//! about it. `docs/statements.md` lists the same.

use super::Values;
use crate::messages::Verb;

/// Which statements may have an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::tsql) enum For {
    Backup,
    Restore,
    Both,
    /// Only statements that the simulator does not have, such as BACKUP LOG.
    Others,
}

impl For {
    pub(in crate::tsql) fn allows(self, verb: Verb) -> bool {
        match self {
            Self::Both => true,
            Self::Backup => verb == Verb::Backup,
            Self::Restore => verb == Verb::Restore,
            Self::Others => false,
        }
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
pub(in crate::tsql) struct Rule {
    pub(in crate::tsql) name: &'static str,
    pub(in crate::tsql) verbs: For,
    pub(in crate::tsql) shape: Shape,
    /// What it means here; for one that is refused, what to do instead.
    pub(in crate::tsql) note: &'static str,
}

/// What the simulator does about an option.
#[cfg(test)]
impl Rule {
    pub(in crate::tsql) fn stance(&self) -> &'static str {
        match self.shape {
            _ if self.verbs == For::Others => "message 3032",
            Shape::Refused => "refused",
            Shape::Compression => "taken, with a remark",
            _ => "taken",
        }
    }

    pub(in crate::tsql) fn statements(&self) -> &'static str {
        match self.verbs {
            For::Backup => "BACKUP",
            For::Restore => "RESTORE",
            For::Both => "both",
            For::Others => "neither",
        }
    }

    /// The option as it can stand in a statement.
    pub(in crate::tsql) fn example(&self) -> String {
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
const TO_THE_END: &str = "restore the database as it was at the end of the backup";
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
pub(super) const LONG: (usize, &str) = (255, "at most 255 characters");

/// Every option that Transact-SQL knows for `BACKUP DATABASE` and `RESTORE DATABASE`.
pub(in crate::tsql) static RULES: &[Rule] = &[
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
    refused("STOPAT", For::Restore, TO_THE_END),
    refused("STOPATMARK", For::Restore, TO_THE_END),
    refused("STOPBEFOREMARK", For::Restore, TO_THE_END),
    refused("RESTRICTED_USER", For::Restore, "leave it out: there are no users who could be kept out"),
    refused("FILESTREAM", For::Restore, "leave it out: no database here has FILESTREAM data"),
    refused("PASSWORD", For::Restore, NO_PASSWORD),
    refused("MEDIAPASSWORD", For::Restore, NO_PASSWORD),
    refused("DBNAME", For::Restore, "name the database behind RESTORE DATABASE"),
    ignored("NO_TRUNCATE", For::Others, Shape::Ignored, "for BACKUP LOG"),
    ignored("LOADHISTORY", For::Others, Shape::Ignored, "for RESTORE VERIFYONLY"),
];
