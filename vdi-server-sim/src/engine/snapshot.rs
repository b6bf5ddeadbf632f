//! BACKUP and RESTORE WITH SNAPSHOT: the client copies the files itself, and puts them back itself. Only what describes them goes
//! through the device.
//!
//! ```text
//! backup:   label; PrepareToFreeze*; [FileInfoBegin*; list of the files; FileInfoEnd*; sums; set; Snapshot] Complete*; close
//! restore:  label, set; [MountSnapshot; the files are compared with the sums] close
//!           []: the database is frozen     *: where the client asked for it
//! ```
//!
//! The module `snapshot_sums` says where the sums are in the stream, and what a restore does about the list of the files.
//!
//! Source: VDI specification, "Snapshot Backup": one device only; metadata is complete when Snapshot comes; writes to the database
//! are suspended until it completes; nothing but close follows. For the rest see `docs/decisions.md`.
//!
//! # Invariants
//!
//! 1. From before the checksums are taken until Snapshot has completed, nobody writes to the database.
//! 2. The database is thawed as soon as Snapshot has completed, and on every failure: also when the set is aborted while the
//!    client holds the command, and when this process dies (see [`Frozen`]).
//! 3. A restore succeeds only if the database's files are those of the catalog, and have the backup's checksums. Until the files are
//!    compared, nobody writes to them; only a database that did not exist before, or whose folder the client replaced, can be
//!    frozen no earlier than it is there. What the client put there is for the client to make durable.
//! 4. Before MountSnapshot the restore has read the stream to its end, and nothing of the database has changed.

mod backup;

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Sender, bounded};
use vdi_proto::command::CommandCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::Features;

use super::driver::Driver;
use super::reads::{Arrived, ReadEnd, Reads};
use super::tally::Tally;
pub(super) use backup::run as backup;

use super::work::{FREEZE_TIMEOUT, Stopped, Work};
use super::{Cancel, Engine, Failure, Progress, Summary, default_buffers, report_files};
use crate::database::{Database, DatabaseError, Frozen, check_name};
use crate::messages::{Message, Verb};
use crate::stream::{Catalog, Expectations, SetVerifier, Snapshot, StreamError, StreamParser};
use crate::tsql::Restore;

/// Does the work of the device in a thread of its own, and waits until it is through, or all is over.
fn through<'scope>(
    work: &'scope Work,
    scope: &'scope std::thread::Scope<'scope, '_>,
    run: impl FnOnce() + Send + 'scope,
) {
    let (end, ended) = bounded::<()>(0);
    work.spawn(scope, move || {
        run();
        drop(end);
    });
    // Nothing comes but the end.
    let _ = work.receive(&ended);
}

/// Stops the writers of a database. An abort meanwhile is what the statement fails by.
fn freeze<'a>(work: &Work, database: &'a Database) -> Result<Frozen<'a>, Stopped> {
    database.freeze(FREEZE_TIMEOUT, || work.is_aborted()).map_err(|error| stop(work, error))
}

fn stop(work: &Work, error: DatabaseError) -> Stopped {
    match error {
        // The agent knows why.
        DatabaseError::Stopped { .. } => work.wait_until_over(),
        error => work.stop(error),
    }
}

/// Carries out a RESTORE WITH SNAPSHOT.
pub(super) fn restore(
    engine: &Engine,
    statement: &Restore,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    check_name(&statement.database)?;
    let options = &statement.options;
    let incoming = Incoming { engine, name: &statement.database, replace: options.replace };
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(1)).max(1);
    Work::with(engine, &statement.devices.names, cancel, |work| {
        let started = Instant::now();
        let terms =
            ServerTerms { features: Features::READ_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
        let (config, opened) = work.configure(&terms, &[(transfer, buffers)], &statement.devices.names)?;
        let tally = Tally::new(0, None);
        let driver = opened.into_iter().next().map(|device| Driver::new(work, device, config, None, &tally));
        // Whatever the number of devices that the backup was made to, a backup with data is one, and that comes first.
        let parser = StreamParser::for_snapshot(Expectations { block_size, family_count: None });
        let catalog = std::thread::scope(|scope| {
            work.spawn(scope, || work.run_agent());
            let (give_catalog, catalog) = bounded(1);
            if let Some(driver) = driver {
                let mounter = Mounter { incoming: &incoming, transfer, reads: Reads::new(driver, transfer), parser };
                through(work, scope, move || mounter.run(&give_catalog));
            }
            // Ends the agent.
            work.finish().map(|()| catalog.try_recv().ok())
        })?;
        let bytes = catalog.as_ref().map_or(0, |catalog| catalog.total_bytes());
        Progress::new(bytes, options.stats).reached(bytes, report);
        if let Some(catalog) = &catalog {
            report_files(catalog.files(), &statement.database, report);
        }
        Ok(Summary { verb: Verb::Restore, bytes, commands: tally.commands(), elapsed: started.elapsed() })
    })
}

/// The database that is being restored.
struct Incoming<'a> {
    engine: &'a Engine,
    name: &'a str,
    replace: bool,
}

impl Incoming<'_> {
    /// The database that is to be replaced, if there is one; one without a file has nothing that could be frozen.
    fn existing(&self) -> Result<Option<Database>, DatabaseError> {
        let folder = &self.engine.old;
        if !folder.contains(self.name)? {
            return Ok(None);
        }
        if !self.replace {
            let (name, path) = (self.name.to_owned(), folder.database_path(self.name));
            return Err(DatabaseError::Exists { name, path });
        }
        match folder.open(self.name) {
            Ok(database) => Ok(Some(database)),
            Err(DatabaseError::Empty { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The thread of a restore.
struct Mounter<'a> {
    incoming: &'a Incoming<'a>,
    transfer: u32,
    reads: Reads<'a>,
    parser: StreamParser,
}

impl Mounter<'_> {
    fn run(mut self, catalog: &Sender<Arc<Catalog>>) {
        // The thread that met the failure has recorded it.
        let _ = self.mount(catalog);
    }

    fn mount(&mut self, done: &Sender<Arc<Catalog>>) -> Result<(), Stopped> {
        let work = self.reads.driver.work;
        let (catalog, snapshot) = self.read()?;
        let Incoming { engine, name, .. } = *self.incoming;
        let _lock = engine.old.lock(name, Verb::Restore).map_err(|error| work.stop(error))?;
        let existing = self.incoming.existing().map_err(|error| work.stop(error))?;
        let frozen = existing.as_ref().map(|database| freeze(work, database)).transpose()?;
        self.reads.driver.command(CommandCode::MOUNT_SNAPSHOT, 0, 0)?;
        // Writers look at the locks of the folder that is there now.
        let frozen = frozen.filter(Frozen::is_in_place);
        let mounted;
        let _frozen = if let Some(frozen) = frozen {
            frozen
        } else {
            mounted = self.incoming.engine.old.open(self.incoming.name).map_err(|error| work.stop(error))?;
            freeze(work, &mounted)?
        };
        self.incoming
            .engine
            .old
            .verify(self.incoming.name, catalog.files(), &snapshot.checksums, || work.is_aborted())
            .map_err(|error| stop(work, error))?;
        let _ = done.send(catalog);
        work.decide()?;
        self.reads.driver.close()
    }

    /// Reads the stream to its end.
    fn read(&mut self) -> Result<(Arc<Catalog>, Arc<Snapshot>), Stopped> {
        let work = self.reads.driver.work;
        let mut actions = Vec::new();
        self.reads.driver.rewind()?;
        let mut next = work.set.allocate_buffer(self.transfer, 0).map_err(|error| work.stop(error))?;
        while !self.parser.is_finished() {
            self.reads.ask(next)?;
            let Arrived { buffer, bytes, end } = self.reads.arrived()?;
            let data = buffer.data().get(..bytes).unwrap_or_default();
            self.parser.push(data, &mut actions).map_err(|source| self.broken(source))?;
            if end == ReadEnd::Data && !self.parser.is_finished() && !self.reads.next_medium()? {
                // Says what is missing.
                self.parser.finish().map_err(|source| self.broken(source))?;
            }
            self.reads.driver.succeeded(0);
            next = buffer;
        }
        // A Read that ended with an error has to be cleared before the next command.
        self.reads.resume()?;
        let mut verifier = SetVerifier::new(1);
        let (Some(identity), Some(snapshot)) = (self.parser.identity(), self.parser.snapshot()) else {
            // A finished parser has both.
            return Err(self.broken(StreamError::Truncated { offset: self.parser.offset() }));
        };
        let verified = actions
            .iter()
            .try_for_each(|action| verifier.record(&identity, action))
            .and_then(|()| verifier.record_snapshot(&identity, snapshot))
            .and_then(|()| verifier.finish());
        verified.map_err(|source| {
            let device = Some(self.reads.driver.name().to_owned());
            work.stop(Failure::Devices { device, earlier: None, source })
        })?;
        match verifier.catalog() {
            Some(catalog) => Ok((Arc::clone(catalog), Arc::clone(snapshot))),
            None => Err(self.broken(StreamError::Truncated { offset: self.parser.offset() })),
        }
    }

    fn broken(&self, source: StreamError) -> Stopped {
        self.reads.driver.work.stop(Failure::Stream { device: self.reads.driver.name().to_owned(), source })
    }
}
