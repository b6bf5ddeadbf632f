//! RESTORE: see [`crate::engine`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crossbeam::channel::{bounded, select};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::{DeviceKind, Features};

use super::driver::Driver;
use super::reads::{Arrived, ReadEnd, Reads};
use super::tally::Tally;
use super::work::{Gate, Stopped, Work};
use super::{Cancel, Engine, Failure, Progress, Summary, default_buffers, report_files};
use crate::database::{DataFolder, DatabaseError, DatabaseLock, RestoreTarget, check_name};
use crate::messages::{Message, Verb};
use crate::stream::{
    Action, Catalog, Expectations, Identity, SegmentHeader, SegmentKind, SetVerifier, StreamError, StreamParser,
};
use crate::tsql::Restore;
use crate::vds::ServerBuffer;

/// Carries out a RESTORE.
pub(super) fn run(
    engine: &Engine,
    statement: &Restore,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    check_name(&statement.database)?;
    let options = &statement.options;
    let devices = &statement.devices.names;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    Work::with(engine, devices, cancel, |work| {
        let started = Instant::now();
        let terms =
            ServerTerms { features: Features::READ_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
        // Two a device: one that the client fills while the other goes to the files.
        let buffers =
            options.buffer_count.unwrap_or_else(|| default_buffers(devices.len())).max(2 * devices.len() as u32);
        let (config, opened) = work.configure(&terms, &[(transfer, buffers)], devices)?;

        let database = Incoming {
            folder: &engine.old,
            name: &statement.database,
            replace: options.replace,
            families: Mutex::new(Families::new(devices.len() as u32)),
            target: RwLock::new(None),
            tally: Tally::new(0, options.stats),
        };
        let (through, all_through) = bounded::<()>(0);
        let read = Gate::new();
        let expectations = Expectations { block_size, family_count: Some(devices.len() as u32) };
        let mut progress: Option<Progress> = None;
        let reading = opened.len();
        std::thread::scope(|scope| {
            work.spawn(scope, || work.run_agent());
            for device in opened {
                let driver = Driver::new(work, device, config, None, &database.tally);
                let reader = Reader {
                    work,
                    database: &database,
                    transfer,
                    reads: Reads::new(driver, transfer),
                    expectations,
                    parser: StreamParser::new(expectations),
                    read: &read,
                };
                let through = through.clone();
                work.spawn(scope, move || {
                    reader.run();
                    drop(through);
                });
            }
            drop(through);
            let mut report_progress = |report: &mut dyn FnMut(Message)| {
                if progress.is_none() {
                    progress = database.catalog().map(|catalog| Progress::new(catalog.total_bytes(), options.stats));
                }
                if let Some(progress) = &mut progress {
                    database.tally.report(progress, report);
                }
            };
            let (mut arrived, mut ended) = (0, false);
            while !ended {
                select! {
                    recv(database.tally.due()) -> _ => report_progress(report),
                    recv(all_through) -> _ => {
                        report_progress(report);
                        ended = true;
                    }
                    recv(read.arrivals()) -> _ => {
                        arrived += 1;
                        if arrived == reading && work.faults.fails_after_close() {
                            // Nothing has changed when it fails.
                            if work.decide().is_ok() {
                                read.open();
                            }
                        } else if arrived == reading {
                            // A failure is recorded there.
                            if let Ok(leftover) = work.settle(|| database.commit()) {
                                if let Some(error) = leftover {
                                    report(Message::own_information(error.to_string()));
                                }
                                read.open();
                            }
                        }
                    }
                    recv(work.over()) -> _ => ended = true,
                }
            }
            // Ends the agent.
            work.finish()
        })?;
        let catalog = database.catalog();
        let bytes = catalog.as_ref().map_or(0, |catalog| catalog.total_bytes());
        if let Some(catalog) = &catalog {
            report_files(catalog.files(), &statement.database, report);
        }
        Ok(Summary { verb: Verb::Restore, bytes, commands: database.tally.commands(), elapsed: started.elapsed() })
    })
}

/// The database that is being restored.
struct Incoming<'a> {
    folder: &'a DataFolder,
    name: &'a str,
    replace: bool,
    families: Mutex<Families>,
    target: RwLock<Option<(DatabaseLock, RestoreTarget)>>,
    tally: Tally,
}

/// The media families that the devices bring.
struct Families {
    verifier: SetVerifier,
    /// Which device has brought which family.
    devices: BTreeMap<u32, String>,
}

impl Families {
    fn new(count: u32) -> Families {
        Families { verifier: SetVerifier::new(count), devices: BTreeMap::new() }
    }

    /// As [`SetVerifier::record`].
    fn record(&mut self, device: &str, identity: &Identity, action: &Action) -> Result<(), Failure> {
        let Families { verifier, devices } = self;
        verifier.record(identity, action).map_err(|source| Failure::Devices {
            device: Some(device.to_owned()),
            earlier: devices.get(&identity.family_index).cloned(),
            source,
        })?;
        if let Action::Catalog(_) = action {
            devices.insert(identity.family_index, device.to_owned());
        }
        Ok(())
    }
}

impl Incoming<'_> {
    fn families(&self) -> MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalog(&self) -> Option<Arc<Catalog>> {
        self.families().verifier.catalog().cloned()
    }

    /// Carries out what a device's stream says; gives the bytes that went to files.
    fn carry_out(&self, device: &str, identity: &Identity, action: &Action, bytes: &[u8]) -> Result<u64, Failure> {
        self.families().record(device, identity, action)?;
        match action {
            Action::Catalog(catalog) => {
                let mut target = self.target.write().unwrap_or_else(PoisonError::into_inner);
                if target.is_none() {
                    // As in SQL Server, the database is not looked at before the set is open and its header read. So the client
                    // learns why it is refused.
                    let lock = self.folder.lock(self.name, Verb::Restore)?;
                    let made = RestoreTarget::create(self.folder, self.name, catalog.files(), self.replace)?;
                    *target = Some((lock, made.with_empty_folders(catalog.empty_folders())?));
                    self.tally.expect(catalog.total_bytes());
                }
                Ok(0)
            }
            Action::Data { file_index, file_offset, range } => {
                let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
                // The parser gives no data before the catalog.
                if let (Some((_, target)), Some(data)) = (&*target, bytes.get(range.clone())) {
                    target.write_at(*file_index, *file_offset, data)?;
                }
                Ok(range.len() as u64)
            }
            Action::DataEnd { .. } | Action::End(_) => Ok(0),
        }
    }

    /// Verifies that all of it came, makes it durable and puts it into its place.
    fn commit(&self) -> Result<Option<DatabaseError>, Failure> {
        let complete = self.families().verifier.finish();
        complete.map_err(|source| Failure::Devices { device: None, earlier: None, source })?;
        let target = self.target.write().unwrap_or_else(PoisonError::into_inner).take();
        match target {
            Some((_lock, target)) => Ok(target.commit()?.leftover),
            // A finished verifier has seen a catalog, which made the target.
            None => Ok(None),
        }
    }
}

/// One device's reader.
struct Reader<'a> {
    work: &'a Work,
    database: &'a Incoming<'a>,
    transfer: u32,
    reads: Reads<'a>,
    expectations: Expectations,
    parser: StreamParser,
    read: &'a Gate,
}

impl Reader<'_> {
    fn run(mut self) {
        // The thread that met the failure has recorded it.
        let _ = self.read();
    }

    fn read(&mut self) -> Result<(), Stopped> {
        let allocate = || self.work.set.allocate_buffer(self.transfer, 0).map_err(|error| self.work.stop(error));
        let (mut spare, mut next) = (Some(allocate()?), allocate()?);
        match self.reads.driver.kind {
            DeviceKind::PipeLike => {}
            DeviceKind::DiskLike => next = self.inspect_disk(next)?,
            DeviceKind::TapeLike => next = self.inspect_tape(next)?,
        }
        let mut catalog_ends = true;
        self.reads.ask(next)?;
        let mut actions = Vec::new();
        while !self.parser.is_finished() {
            let Arrived { buffer, bytes, end } = self.reads.arrived()?;
            let data = buffer.data().get(..bytes).unwrap_or_default();
            self.parser.push(data, &mut actions).map_err(|source| self.broken(source))?;
            if !self.parser.is_finished() {
                match end {
                    ReadEnd::More => {}
                    ReadEnd::Mark => {
                        if std::mem::take(&mut catalog_ends)
                            && let Some(buffer) = spare.take()
                        {
                            spare = Some(self.look_ahead(buffer)?);
                        }
                    }
                    // Says what is missing.
                    ReadEnd::Data if !self.reads.next_medium()? => {
                        self.parser.finish().map_err(|source| self.broken(source))?;
                    }
                    ReadEnd::Data => catalog_ends = false,
                }
                // The client fills the next buffer while this one goes to the files.
                if let Some(next) = spare.take() {
                    self.reads.ask(next)?;
                }
            }
            let mut moved = 0;
            for action in actions.drain(..) {
                if let Some(identity) = self.parser.identity() {
                    let done = self.database.carry_out(self.reads.driver.name(), &identity, &action, data);
                    moved += done.map_err(|failure| self.work.stop(failure))?;
                }
            }
            self.reads.driver.succeeded(moved);
            spare = Some(buffer);
        }
        self.read.pass(self.work)?;
        self.reads.driver.close()
    }

    fn broken(&self, source: StreamError) -> Stopped {
        self.work.stop(Failure::Stream { device: self.reads.driver.name().to_owned(), source })
    }

    /// Reads one block where the device is, and finds out whether a stream that this restore can read begins there.
    fn inspect_header(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        let block = self.expectations.block_size;
        self.reads.ask_for(buffer, block)?;
        let Arrived { buffer, bytes, .. } = self.reads.arrived()?;
        self.reads.driver.succeeded(0);
        let mut probe = StreamParser::new(self.expectations);
        let header = buffer.data().get(..bytes).unwrap_or_default();
        probe.push(header, &mut Vec::new()).map_err(|source| self.broken(source))?;
        if bytes < block as usize {
            // Says what is missing.
            probe.finish().map_err(|source| self.broken(source))?;
        }
        Ok(buffer)
    }

    /// Disk-like: the header is looked at before all is read from the beginning.
    fn inspect_disk(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        let length = self.reads.driver.medium_length()?;
        let block = self.expectations.block_size;
        if length < u64::from(block) {
            let what = format!("the medium has {length} bytes, less than a block of {block}");
            return Err(self.reads.driver.protocol_error(CommandCode::GET_POSITION, what));
        }
        self.reads.driver.rewind()?;
        let buffer = self.inspect_header(buffer)?;
        self.reads.restarted();
        Ok(buffer)
    }

    /// Tape-like: the header is looked at before all is read from the beginning.
    fn inspect_tape(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        self.reads.driver.rewind()?;
        let buffer = self.inspect_header(buffer)?;
        self.reads.resume()?;
        self.reads.driver.rewind()?;
        self.reads.restarted();
        Ok(buffer)
    }

    /// Tape-like, behind the catalog: looks whether the end is there before anything is restored, and comes back. A backup
    /// that goes on on another medium has no end on this one.
    fn look_ahead(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        self.reads.resume()?;
        let driver = &mut self.reads.driver;
        let data_begins = driver.block_address()?;
        let skipped = driver.attempt(CommandCode::SKIP_MARKS, 1, 0)?;
        if !skipped.code.is_success() {
            if !skipped.code.is_end_of_data() && skipped.code != CompletionCode::END_OF_MEDIA {
                return Err(driver.failed(CommandCode::SKIP_MARKS, skipped.code, 0, 0));
            }
            driver.return_to(data_begins)?;
            return Ok(buffer);
        }
        let end_begins = driver.block_address()?;
        if end_begins <= data_begins {
            let what = format!("the address behind the mark is {end_begins}, in front of it {data_begins}");
            return Err(driver.protocol_error(CommandCode::GET_POSITION, what));
        }
        self.reads.ask_for(buffer, self.expectations.block_size)?;
        let Arrived { buffer, bytes, .. } = self.reads.arrived()?;
        let header = buffer.data().get(..bytes).unwrap_or_default();
        let found = SegmentHeader::decode(header).map(|header| header.kind);
        if !matches!(found, Ok(SegmentKind::End { .. })) {
            // The medium was changed behind the mark: the end is on another one.
            return self.back_to_data(buffer, data_begins);
        }
        self.reads.resume()?;
        let driver = &mut self.reads.driver;
        driver.command(CommandCode::SKIP_BLOCKS, -1, 0)?;
        let again = driver.block_address()?;
        if again != end_begins {
            let what = format!("one block back from {end_begins} + 1 is {again}");
            return Err(driver.protocol_error(CommandCode::SKIP_BLOCKS, what));
        }
        driver.command(CommandCode::SKIP_MARKS, -1, 0)?;
        self.back_to_data(buffer, data_begins)
    }

    fn back_to_data(&mut self, buffer: ServerBuffer, address: u64) -> Result<ServerBuffer, Stopped> {
        self.reads.resume()?;
        self.reads.driver.return_to(address)?;
        Ok(buffer)
    }
}
