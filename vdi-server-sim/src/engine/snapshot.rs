//! BACKUP and RESTORE WITH SNAPSHOT: the client copies the files itself, and puts them back itself. Only what describes them goes
//! through the device.
//!
//! ```text
//! backup:   catalog; PrepareToFreeze*; [FileInfoBegin*; file info; FileInfoEnd*; checksums, end; Snapshot] Complete*; close
//! restore:  catalog, checksums, end; [MountSnapshot; the files are compared with catalog and checksums] close
//!           []: the database is frozen     *: where the client asked for it
//! ```
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

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Sender, bounded};
use vdi_proto::command::CommandCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::Features;

use super::backup::refuse_unknown;
use super::driver::Driver;
use super::list::{Home, Homes, LEAST_SMALL, List};
use super::reads::{Arrived, ReadEnd, Reads};
use super::tally::Tally;
use super::work::{FREEZE_TIMEOUT, Stopped, Work};
use super::writes::Writes;
use super::{Cancel, Engine, Failure, Progress, Summary, default_buffers, new_set_id, report_files};
use crate::database::{Database, DatabaseError, Frozen, check_name};
use crate::messages::{Message, Verb};
use crate::stream::{
    Catalog, Expectations, Identity, SetVerifier, Snapshot, StreamError, StreamParser, StreamWriter, WriteError,
    file_info,
};
use crate::tsql::{Backup, Restore};

/// A segment takes a small buffer and a large one; a second small one lets the end follow at once.
const SMALL_BUFFERS: u32 = 2;

/// Carries out a BACKUP WITH SNAPSHOT.
pub(super) fn backup(
    engine: &Engine,
    statement: &Backup,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let options = &statement.options;
    refuse_unknown(engine, &statement.database)?;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    let small = block_size.max(LEAST_SMALL);
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(1)).max(1);
    let set_id = new_set_id()?;
    let identity = Identity { set_id, family_index: 0, family_count: 1 };

    Work::with(engine, &statement.devices.names, cancel, |work| {
        let _lock = engine.old.lock(&statement.database, Verb::Backup)?;
        let database = engine.old.open(&statement.database)?;
        let catalog = Catalog::of(&database)?;
        let stream = StreamWriter::new(identity, block_size, catalog.encode().into())?;
        let started = Instant::now();
        let terms =
            ServerTerms { features: Features::WRITE_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
        let (config, opened) =
            work.configure(&terms, &[(transfer, buffers), (small, SMALL_BUFFERS)], &statement.devices.names)?;
        let tally = Tally::new(database.size(), None);
        let (large, small) = (List::fill(work, transfer, buffers)?, List::fill(work, small, SMALL_BUFFERS)?);
        let homes = Homes::new(&small, std::slice::from_ref(&large));
        // The grammar lets no snapshot pass with another number of devices than one, and `open` wants the set to have as many.
        let driver =
            opened.into_iter().next().map(|device| Driver::new(work, device, config, Some(homes.clone()), &tally));
        std::thread::scope(|scope| {
            work.spawn(scope, || work.run_agent());
            if let Some(driver) = driver {
                let writes = Writes::new(driver, homes);
                let checksums = options.checksum != Some(false);
                let taker = Taker {
                    database: &database,
                    catalog: &catalog,
                    checksums,
                    block_size,
                    large,
                    small,
                    writes,
                    stream,
                };
                through(work, scope, move || taker.run());
            }
            // Ends the agent.
            work.finish()
        })?;
        Progress::new(database.size(), options.stats).reached(database.size(), report);
        report_files(database.files(), database.name(), report);
        Ok(Summary {
            verb: Verb::Backup,
            bytes: database.size(),
            commands: tally.commands(),
            elapsed: started.elapsed(),
        })
    })
}

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

/// The thread of a backup.
struct Taker<'a> {
    database: &'a Database,
    catalog: &'a Catalog,
    /// Whether the files' checksums are to be taken.
    checksums: bool,
    block_size: u32,
    large: List,
    small: List,
    writes: Writes<'a>,
    stream: StreamWriter,
}

impl Taker<'_> {
    fn run(mut self) {
        // The thread that met the failure has recorded it.
        let _ = self.take();
    }

    fn take(&mut self) -> Result<(), Stopped> {
        let work = self.writes.driver.work;
        self.writes.driver.rewind()?;
        self.list(StreamWriter::next_catalog)?;
        self.writes.mark()?;
        if self.writes.driver.has(Features::SNAPSHOT_PREPARE) {
            self.writes.command(CommandCode::PREPARE_TO_FREEZE)?;
        }
        let frozen = freeze(work, self.database)?;
        if self.writes.driver.has(Features::ENUM_FROZEN_FILES) {
            let text = file_info(self.database.path(), self.catalog).map_err(|error| {
                let source = std::io::Error::other(error);
                work.stop(Failure::System { action: "list the frozen files", source })
            })?;
            self.writes.command(CommandCode::FILE_INFO_BEGIN)?;
            self.list(|stream, header, payload| stream.next_file_info(header, payload, &text))?;
            self.writes.command(CommandCode::FILE_INFO_END)?;
        }
        let checksums = if self.checksums {
            let checksums = frozen.checksums(|| work.is_aborted()).map_err(|error| stop(work, error))?;
            checksums.into_iter().map(Some).collect()
        } else {
            vec![None; self.database.files().len()]
        };
        let encoded = Snapshot { checksums }.encode();
        self.list(|stream, header, payload| stream.next_snapshot(header, payload, &encoded))?;
        self.writes.mark()?;
        self.end()?;
        self.writes.mark()?;
        self.writes.command(CommandCode::SNAPSHOT)?;
        if !frozen.is_in_place() {
            // A restore can replace the database, whose writers alone are stopped. Who knows which files the client found.
            return Err(work.stop(DatabaseError::Replaced { path: self.database.path().to_owned() }));
        }
        drop(frozen);
        if self.writes.driver.has(Features::COMPLETE_ENABLED) {
            self.writes.command(CommandCode::COMPLETE)?;
        }
        work.decide()?;
        self.writes.driver.close()
    }

    /// Writes the segments of a list, each by a Write of its header and one of its part of the list.
    fn list(
        &mut self,
        mut next: impl FnMut(&mut StreamWriter, &mut [u8], &mut [u8]) -> Result<Option<usize>, WriteError>,
    ) -> Result<(), Stopped> {
        let (small, large) = (self.small.take.clone(), self.large.take.clone());
        loop {
            let mut header = self.writes.wait_for(&small)?.ok_or(Stopped)?;
            let mut payload = self.writes.wait_for(&large)?.ok_or(Stopped)?;
            let part = next(&mut self.stream, header.data_mut(), payload.data_mut());
            match part.map_err(|error| self.writes.driver.work.stop(error))? {
                Some(padded) => {
                    self.writes.write(header, self.block_size, 0, Home::SMALL)?;
                    self.writes.write(payload, padded as u32, 0, Home::large(0))?;
                }
                None => {
                    // There is room for all of them.
                    self.small.give.back(header);
                    self.large.give.back(payload);
                    return Ok(());
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Stopped> {
        let small = self.small.take.clone();
        let mut buffer = self.writes.wait_for(&small)?.ok_or(Stopped)?;
        self.stream.end(buffer.data_mut()).map_err(|error| self.writes.driver.work.stop(error))?;
        self.writes.write(buffer, self.block_size, 0, Home::SMALL)
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
