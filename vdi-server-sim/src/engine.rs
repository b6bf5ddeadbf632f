//! The engine: carries statements out as the server, with the databases of a data folder and the devices of a set.
//!
//! Statements reach it through a [`Session`](crate::session::Session).
//!
//! # Backup
//!
//! A plan settles beforehand which media family (device) gets which pages, since the stream of the Microsoft Tape Format has its lengths
//! before its data. It knows all headers but what is known only at the end: see the engine's `plan` module.
//!
//! ```text
//!              free lists             transfers, in the stream's order
//!  buffers ---------------> readers -------------------------------------> Write -> client
//!     ^        dealer: what to read '-- what would have to wait: writer --^            |
//!     '------------------------ completion routine, agent or reader <------------------'
//! ```
//!
//! Devices share the buffers. A reader takes a free buffer, and then the next transfer of the device that has the fewest on the way; so a
//! slow device does not take all buffers. It fills the buffer straight from the files, and sends all that is next in the order of the stream,
//! as long as the device takes it without a wait: no other thread has to wake for it. What would have to wait, the device's writer sends
//! (the engine's `backup::ordered` module has the rules). A reader that finds no free buffer handles completions itself, and sleeps
//! only if there are none: the completion agent stands by meanwhile, and need not wake for each of them. A writer sees to all else of its
//! device: what comes before and after the pages, errors, media. When all is written each writer flushes; when all devices are flushed they
//! get Complete (where it was agreed), and when all have completed they are closed. [Faults](crate::faults) act on this same way: a fault
//! that has a command wait leaves it to the writer.
//!
//! BACKUP TO DISK writes the same streams, a thread a file: see the engine's `to_files` module.
//!
//! | kind | what comes besides Write, Flush, Complete |
//! |---|---|
//! | pipe-like | nothing |
//! | tape-like | Rewind; a WriteMark behind the label, behind the last configuration (MSLS), and behind the end: where the soft filemarks are |
//! | disk-like | SetPosition to the beginning; every Write says where it goes |
//! | removable ones | after ERROR_END_OF_MEDIA: ClearError, what is not stored again, Flush, Load of the next medium |
//!
//! The database's writers wait from before the files are read until all devices are flushed. Then files that another program has
//! changed meanwhile are looked for. They fail the statement.
//!
//! # Restore
//!
//! A thread a device reads; what it reads is verified and goes straight from the shared buffer into the files of a [`RestoreTarget`], each
//! page to where its header says, while the next Read is under way. It never reads beyond the end that the content tells. When
//! all devices are through, and nothing is missing, the files are made durable and the catalog makes them the database; then the
//! devices are closed. The engine's `incoming` module has the rules for what devices bring, `from_devices` and `from_files` read them.
//!
//! | kind | what comes besides Read |
//! |---|---|
//! | pipe-like | nothing |
//! | tape-like | Rewind; GetPosition behind the label; SkipMarks to the end of the set, where the end is read; SkipBlocks and SkipMarks backwards; SetPosition to the set |
//! | disk-like | SetPosition and GetPosition; the label at 0 is read first, then all from 0 |
//! | removable ones | at the end of a medium's data: ClearError, Load of the next |
//!
//! The database is looked at when the first header is read. From then on the statement holds the database's
//! [lock](crate::storage::DataFolder::lock), as a BACKUP does from its beginning.
//!
//! RESTORE LABELONLY, HEADERONLY, FILELISTONLY and VERIFYONLY read in the same way, and change nothing.
//!
//! # Snapshots
//!
//! WITH SNAPSHOT only metadata goes through the one device. A backup stops the database's writers, has the client copy the files
//! (Snapshot), and lets the writers go on; a restore has the client put the files into place (MountSnapshot), and compares
//! them with what the backup says of them. The engine's `snapshot` module has the order of the commands.
//!
//! # Errors
//!
//! Which errors are recovered from, and how, is told in the engine's `driver` module: Read, Write and positioning are
//! repeated up to three times after ERROR_IO_DEVICE, everything else fails the statement.
//!
//! # Invariants
//!
//! 1. A statement succeeds only if every command succeeded, every byte of every file was moved exactly once, and (restore) the
//!    database is durable and in place. Anything else is a [`Failure`], and aborts the set. With snapshots no byte of a file is
//!    moved here: see the engine's `snapshot` module for what holds there.
//! 2. The first failure is the one that is reported: what follows from it (aborted commands) is not. A restore that is reported as
//!    failed has changed nothing: one transaction of the catalog makes the new database, and is the last that can fail.
//! 3. Every thread waits for its operation *and* for the end of the operation, so a failure anywhere ends all of them. A reader that waits for a
//!    buffer hears of the end by the abort or the close that comes with it.
//!
//! [`RestoreTarget`]: crate::storage::RestoreTarget

mod backup;
mod cancel;
mod clock;
mod completed;
mod driver;
mod failure;
mod feed;
mod free_list;
mod from_devices;
mod from_files;
mod incoming;
mod inspect;
mod job;
#[cfg(test)]
#[path = "../mtf/tests/common/mod.rs"]
mod made_backups;
mod medium_parser;
mod operation;
mod pages;
mod plan;
mod progress_counter;
mod reads;
mod reporting;
mod restore;
mod scan;
mod snapshot;
mod snapshot_sums;
mod to_files;
mod writes;

pub use cancel::Cancel;
pub use failure::{Failure, FamilyError};

use std::path::Path;
use std::time::Duration;

use vdi_proto::config::MAX_DEVICES;

use reporting::ErrorLog;

use crate::faults::{Fault, Faults};
use crate::messages::{Message, PAGE_BYTES, Verb};
use crate::storage::{DataFolder, StorageError, check_name, is_system_database};
use crate::trace::statement_span;
use crate::tsql::{Backup, DeviceType, Restore, Statement};
use crate::types::{Column, Value};
use crate::vds::Options;

/// A server instance: where its databases are, and how it finds sets.
#[derive(Debug)]
pub struct Engine {
    folder: DataFolder,
    instance: String,
    options: Options,
    faults: Faults,
    log: ErrorLog,
    /// How long a statement waits for its set to be created.
    set_timeout: Duration,
}

/// What a statement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Which statement.
    pub verb: Verb,
    /// Bytes of the database's files.
    pub bytes: u64,
    /// Commands that the devices completed.
    pub commands: u64,
    /// From the configuration of the set to the end.
    pub elapsed: Duration,
}

impl Summary {
    /// Pages of the database, rounded up.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.bytes.div_ceil(PAGE_BYTES)
    }
}

/// Takes what a statement answers while it runs, in the order in which it arises.
pub(crate) trait Report {
    /// A message. Its line is that of the statement.
    fn message(&mut self, message: Message);
    /// The result set begins.
    fn columns(&mut self, columns: &[Column]);
    /// The next row of the result set, a value for each column.
    fn row(&mut self, row: Vec<Value>);
}

impl Engine {
    /// A server with the databases below `data`.
    ///
    /// # Errors
    /// [`StorageError`] when that is no folder, or its catalog cannot be used.
    pub fn new(data: impl AsRef<Path>, options: Options) -> Result<Engine, StorageError> {
        let (instance, faults, log) = (String::new(), Faults::default(), ErrorLog::default());
        let folder = DataFolder::open(data)?;
        Ok(Engine { folder, instance, options, faults, log, set_timeout: Duration::ZERO })
    }

    /// The same server under an instance's name.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Engine {
        self.instance = instance.into();
        self
    }

    /// The same server with these faults in every statement: see [`crate::faults`].
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Engine {
        self.faults = faults;
        self
    }

    /// The same server with an error log: `write` gets every message that SQL Server writes there and does not send to the client.
    /// These are 18210 for each device that fails, and 3041 for each BACKUP that fails.
    #[must_use]
    pub fn with_log(mut self, write: impl Fn(&Message) + Send + Sync + 'static) -> Engine {
        self.log = ErrorLog::to(write);
        self
    }

    /// The same server, whose statements wait up to `timeout` for their set to be created. By default they do not wait.
    #[must_use]
    pub fn with_set_timeout(mut self, timeout: Duration) -> Engine {
        self.set_timeout = timeout;
        self
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// The server's name: `vdi-sim`, or `vdi-sim\INSTANCE`. Messages carry it, and `@@SERVERNAME` answers it.
    #[must_use]
    pub fn server_name(&self) -> String {
        if self.instance.is_empty() { "vdi-sim".to_owned() } else { format!(r"vdi-sim\{}", self.instance) }
    }

    /// Carries out one statement. Every message to the client is reported as it arises, those of a failure included. An inspection
    /// (RESTORE HEADERONLY and its like) has no summary.
    pub(crate) fn execute(
        &self,
        statement: &Statement,
        cancel: &Cancel,
        report: &mut dyn Report,
    ) -> Result<Option<Summary>, Failure> {
        self.run(statement, cancel, report).inspect_err(|failure| {
            self.log.write(&failure.log(statement));
            failure.messages(statement).into_iter().for_each(|message| report.message(message));
        })
    }

    /// The fault fail-after-close: statements fail once their devices are closed, and have changed nothing.
    fn fails_after_close(&self) -> bool {
        self.faults.list().contains(&Fault::FailAfterClose)
    }

    fn run(
        &self,
        statement: &Statement,
        cancel: &Cancel,
        answers: &mut dyn Report,
    ) -> Result<Option<Summary>, Failure> {
        let (verb, database, devices) = match statement {
            Statement::Backup(statement) => ("BACKUP", &*statement.database, &statement.devices),
            Statement::Restore(statement) => ("RESTORE", &*statement.database, &statement.devices),
            Statement::Inspect(statement) => ("RESTORE", "", &statement.devices),
        };
        let devices = &devices.names;
        if let Statement::Inspect(statement) = statement {
            let span = statement_span(verb, database, devices.first().map_or("", String::as_str));
            return span.within(|| inspect::run(self, statement, cancel, answers)).map(|()| None);
        }
        let report = &mut |message| answers.message(message);
        refuse_system_database(statement)?;
        refuse_name(statement)?;
        if let Statement::Backup(statement) = statement {
            statement.options.remarks().for_each(|remark| report(Message::own_information(remark)));
        }
        let span = statement_span(verb, database, devices.first().map_or("", String::as_str));
        let summary = span.within(|| match statement {
            Statement::Backup(statement) if statement.options.snapshot => {
                snapshot::backup(self, statement, cancel, report)
            }
            Statement::Restore(statement) if statement.options.snapshot => {
                snapshot::restore(self, statement, cancel, report)
            }
            Statement::Backup(statement) if statement.devices.device_type == DeviceType::Disk => {
                to_files::run(self, statement, cancel, report)
            }
            Statement::Backup(statement) => backup::run(self, statement, cancel, report),
            Statement::Restore(statement) => restore::run(self, statement, cancel, report),
            Statement::Inspect(_) => unreachable!(),
        })?;
        if self.fails_after_close() {
            return Err(Failure::AfterClose { database: database.to_owned() });
        }
        report(Message::processed(summary.verb, summary.pages(), summary.elapsed));
        Ok(Some(summary))
    }
}

/// What tells one backup from all others.
fn new_set_id() -> Result<[u8; 16], Failure> {
    let mut set_id = [0; 16];
    rustix::rand::getrandom(&mut set_id, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Failure::System { action: "get random numbers", source: errno.into() })?;
    Ok(set_id)
}

/// What no server could do with a RESTORE is refused before its set is opened. What depends on the backup is not: the client then
/// learns why.
fn refuse_name(statement: &Statement) -> Result<(), Failure> {
    match statement {
        Statement::Restore(restore) => Ok(check_name(&restore.database)?),
        Statement::Backup(_) | Statement::Inspect(_) => Ok(()),
    }
}

/// SQL Server restores `master` only while no other session uses the server, and `tempdb` never. The simulator has no content of the
/// others: only their names are there.
fn refuse_system_database(statement: &Statement) -> Result<(), Failure> {
    let (name, what) = match statement {
        Statement::Restore(restore) if restore.database.eq_ignore_ascii_case("master") => {
            (&restore.database, "cannot be restored while the server runs: restore it under another name")
        }
        Statement::Restore(Restore { database, .. }) | Statement::Backup(Backup { database, .. })
            if database.eq_ignore_ascii_case("tempdb") =>
        {
            (database, "is made anew at each start of the server: name another database")
        }
        Statement::Restore(Restore { database, .. }) if is_system_database(database) => (
            database,
            "has no content in this simulator, and cannot be restored: restore it under another name, with MOVE for its files",
        ),
        Statement::Backup(Backup { database, .. }) if is_system_database(database) => {
            (database, "has no content in this simulator, and cannot be backed up: back up a database of your own")
        }
        _ => return Ok(()),
    };
    Err(Failure::SystemDatabase { name: name.clone(), what })
}

/// Buffers that devices share when the statement does not say how many.
fn default_buffers(devices: usize) -> u32 {
    4 * (devices.min(MAX_DEVICES as usize) as u32)
}

/// Reports 3211 as the operation goes on.
struct Progress {
    total: u64,
    step: u64,
    next: u64,
}

impl Progress {
    fn new(total: u64, stats: Option<u8>) -> Self {
        let step = stats.map_or(0, u64::from);
        Progress { total, step, next: step }
    }

    /// So many bytes are done, all in all.
    fn reached(&mut self, done: u64, report: &mut dyn FnMut(Message)) {
        let percent = percent(done, self.total);
        while self.step > 0 && self.next <= percent {
            report(Message::percent_processed(self.next as u8));
            self.next += self.step;
        }
    }
}

/// How many percent of `total` are `done`, rounded down; of nothing all is done.
fn percent(done: u64, total: u64) -> u64 {
    (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100).min(100) as u64
}
