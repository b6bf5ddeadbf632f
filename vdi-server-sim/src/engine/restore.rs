//! RESTORE: see [`crate::engine`].

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, select, unbounded};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::Features;

use super::work::{Gate, Stopped, Work};
use super::{Engine, Failure, Progress, Summary, default_buffers, report_files};
use crate::database::{DataFolder, DatabaseError, RestoreTarget};
use crate::messages::{Message, Verb};
use crate::stream::{Action, Catalog, Expectations, Identity, SetVerifier, StreamParser};
use crate::tsql::Restore;
use crate::vds::{Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, VdsCommand};

/// Carries out a RESTORE.
pub(super) fn run(engine: &Engine, statement: &Restore, report: &mut dyn FnMut(Message)) -> Result<Summary, Failure> {
    let options = &statement.options;
    for (asked, option) in [
        (options.recovery == Some(false), "NORECOVERY"),
        (options.continue_after_error == Some(true), "CONTINUE_AFTER_ERROR"),
    ] {
        if asked {
            return Err(Failure::Option { option });
        }
    }
    // The answer of RestoreTarget comes later; this one costs the client nothing.
    if !options.replace && engine.folder.contains(&statement.database)? {
        return Err(DatabaseError::Exists {
            name: statement.database.clone(),
            path: engine.folder.database_path(&statement.database),
        }
        .into());
    }
    let devices = &statement.devices;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    let work = Work::open(engine, devices)?;
    let started = Instant::now();
    let terms = ServerTerms { features: Features::READ_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
    // Two a device: one that the client fills while the other goes to the files.
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(devices.len())).max(2 * devices.len() as u32);
    let (_, opened) = work.configure(&terms, &[(transfer, buffers)], devices)?;

    let database = Incoming {
        folder: &engine.folder,
        name: &statement.database,
        replace: options.replace,
        verifier: Mutex::new(SetVerifier::new(devices.len() as u32)),
        target: RwLock::new(None),
    };
    let (tell, told) = unbounded();
    let read = Gate::new();
    let expectations = Expectations { block_size, family_count: Some(devices.len() as u32) };
    let mut commands = 0;
    let mut progress: Option<Progress> = None;
    let mut catalog = None;
    let reading = opened.len();
    std::thread::scope(|scope| {
        work.spawn(scope, || work.run_agent());
        for device in opened {
            let (ended_sender, ended) = unbounded();
            let reader = Reader {
                work: &work,
                database: &database,
                device,
                transfer,
                parser: StreamParser::new(expectations),
                routine: Arc::new(Routine { ended: ended_sender }),
                ended,
                tell: tell.clone(),
                read: &read,
            };
            work.spawn(scope, move || reader.run());
        }
        drop(tell);
        let (mut arrived, mut ended) = (0, false);
        while !ended {
            select! {
                recv(told) -> told => match told {
                    Ok(bytes) => {
                        commands += 1;
                        if progress.is_none() {
                            catalog = database.catalog();
                            progress = catalog.as_ref().map(|c| Progress::new(c.total_bytes(), options.stats));
                        }
                        if let Some(progress) = &mut progress {
                            progress.add(bytes, report);
                        }
                    }
                    // All readers are through.
                    Err(_) => ended = true,
                },
                recv(read.arrivals()) -> _ => {
                    arrived += 1;
                    if arrived == reading {
                        match database.commit() {
                            Ok(leftover) => {
                                if let Some(error) = leftover {
                                    report(Message::own_information(error.to_string()));
                                }
                                read.open();
                            }
                            Err(failure) => work.fail(failure),
                        }
                    }
                }
                recv(work.over()) -> _ => ended = true,
            }
        }
        // Ends the agent.
        work.finish()
    })?;
    let catalog = catalog.or_else(|| database.catalog());
    let bytes = catalog.as_ref().map_or(0, |catalog| catalog.total_bytes());
    if let Some(catalog) = &catalog {
        report_files(catalog.files(), &statement.database, report);
    }
    Ok(Summary { verb: Verb::Restore, bytes, commands, elapsed: started.elapsed() })
}

/// The database that is being restored.
struct Incoming<'a> {
    folder: &'a DataFolder,
    name: &'a str,
    replace: bool,
    verifier: Mutex<SetVerifier>,
    target: RwLock<Option<RestoreTarget>>,
}

impl Incoming<'_> {
    fn catalog(&self) -> Option<Arc<Catalog>> {
        self.verifier.lock().unwrap_or_else(PoisonError::into_inner).catalog().cloned()
    }

    /// Carries out what a device's stream says; gives the bytes that went to files.
    fn carry_out(&self, identity: &Identity, action: &Action, bytes: &[u8]) -> Result<u64, Failure> {
        self.verifier.lock().unwrap_or_else(PoisonError::into_inner).record(identity, action)?;
        match action {
            Action::Catalog(catalog) => {
                let mut target = self.target.write().unwrap_or_else(PoisonError::into_inner);
                if target.is_none() {
                    *target = Some(RestoreTarget::create(self.folder, self.name, catalog.files(), self.replace)?);
                }
                Ok(0)
            }
            Action::Data { file_index, file_offset, range } => {
                let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
                // The parser gives no data before the catalog.
                if let (Some(target), Some(data)) = (&*target, bytes.get(range.clone())) {
                    target.write_at(*file_index, *file_offset, data)?;
                }
                Ok(range.len() as u64)
            }
            Action::DataEnd { .. } | Action::End(_) => Ok(0),
        }
    }

    /// Verifies that all of it came, makes it durable and puts it into its place.
    fn commit(&self) -> Result<Option<DatabaseError>, Failure> {
        self.verifier.lock().unwrap_or_else(PoisonError::into_inner).finish()?;
        let target = self.target.write().unwrap_or_else(PoisonError::into_inner).take();
        match target {
            Some(target) => Ok(target.commit()?.leftover),
            // A finished verifier has seen a catalog, which made the target.
            None => Ok(None),
        }
    }
}

/// A Read that has ended.
struct Ended {
    code: CompletionCode,
    bytes: u32,
    buffer: Option<ServerBuffer>,
}

struct Routine {
    ended: Sender<Ended>,
}

impl CompletionRoutine for Routine {
    fn completed(&self, completed: Completed) {
        let Completed { code, bytes, buffer, .. } = completed;
        // The reader may be gone after a failure; then the buffer is freed.
        let _ = self.ended.send(Ended { code, bytes, buffer });
    }
}

/// One device's reader.
struct Reader<'a> {
    work: &'a Work,
    database: &'a Incoming<'a>,
    device: ServerVirtualDevice,
    transfer: u32,
    parser: StreamParser,
    routine: Arc<Routine>,
    ended: Receiver<Ended>,
    tell: Sender<u64>,
    read: &'a Gate,
}

impl Reader<'_> {
    fn run(mut self) {
        // A failure is recorded by whoever met it.
        let _ = self.read();
    }

    fn read(&mut self) -> Result<(), Stopped> {
        let allocate = || self.work.set.allocate_buffer(self.transfer, 0).map_err(|error| self.work.stop(error));
        let mut spare = Some(allocate()?);
        self.ask(allocate()?)?;
        let mut actions = Vec::new();
        while !self.parser.is_finished() {
            let Some(ended) = self.work.receive(&self.ended)? else { return Err(Stopped) };
            let (buffer, bytes, at_end) = self.judge(ended)?;
            let data = &buffer.data()[..bytes];
            self.parser.push(data, &mut actions).map_err(|source| self.broken(source))?;
            if !self.parser.is_finished() {
                if at_end {
                    // Says what is missing.
                    self.parser.finish().map_err(|source| self.broken(source))?;
                }
                // The client fills the next buffer while this one goes to the files.
                if let Some(next) = spare.take() {
                    self.ask(next)?;
                }
            }
            let mut moved = 0;
            for action in actions.drain(..) {
                if let Some(identity) = self.parser.identity() {
                    moved +=
                        self.database.carry_out(&identity, &action, data).map_err(|failure| self.work.stop(failure))?;
                }
            }
            let _ = self.tell.send(moved);
            spare = Some(buffer);
        }
        self.read.pass(self.work)?;
        self.device.close_device().map_err(|error| self.work.stop(error))
    }

    fn broken(&self, source: crate::stream::StreamError) -> Stopped {
        self.work.stop(Failure::Stream { device: self.device.name().to_owned(), source })
    }

    fn ask(&self, buffer: ServerBuffer) -> Result<(), Stopped> {
        let routine: Arc<Routine> = Arc::clone(&self.routine);
        let command = VdsCommand::transfer(CommandCode::READ, buffer, self.transfer, routine);
        self.device.send_command(command).map_err(|error| self.work.stop(error))
    }

    /// The bytes of a Read, and whether the data ends after them. Clients say so in three ways: by a code, with or without
    /// bytes, or by success without bytes.
    fn judge(&self, ended: Ended) -> Result<(ServerBuffer, usize, bool), Stopped> {
        let Ended { code, bytes, buffer } = ended;
        if code == CompletionCode::OPERATION_ABORTED && self.work.is_aborted() {
            return Err(self.work.wait_until_over());
        }
        match buffer {
            Some(buffer) if code.is_success() || code.is_end_of_data() => {
                Ok((buffer, bytes as usize, !code.is_success() || bytes == 0))
            }
            _ => Err(self.work.stop(Failure::Device {
                device: self.device.name().to_owned(),
                operation: "read",
                code,
                bytes,
                size: self.transfer,
            })),
        }
    }
}
