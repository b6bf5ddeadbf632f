//! BACKUP: see [`crate::engine`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded, select};
use vdi_proto::command::CommandCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::Features;

use super::driver::{Driver, Ended};
use super::list::{Home, Homes, LEAST_SMALL, List};
use super::tally::Tally;
use super::work::{Gate, Stopped, Work};
use super::writes::Writes;
use super::{Cancel, Engine, Failure, Progress, Summary, default_buffers, new_set_id, report_files};
use crate::database::{Database, DatabaseError};
use crate::messages::{Message, PAGE_BYTES, Verb};
use crate::stream::{Catalog, Checksum, DataPiece, Identity, StreamWriter, payload_capacity};
use crate::tsql::Backup;
use crate::vds::{CompletionReader, ServerBuffer};

/// A buffer with a piece of a file in it.
struct Filled {
    buffer: ServerBuffer,
    piece: DataPiece,
    checksum: Option<u32>,
    home: Home,
}

/// How transfers are laid out.
#[derive(Clone, Copy)]
struct Sizes {
    transfer: u32,
    block: u32,
    /// Where the payload begins in a buffer: behind the header block, or at 0 where a transfer has room for only one block
    /// and headers travel in small buffers.
    payload_at: usize,
    /// Length of a small buffer.
    small: u32,
}

impl Sizes {
    fn new(transfer: u32, block: u32) -> Sizes {
        let payload_at = if transfer == block { 0 } else { block as usize };
        Sizes { transfer, block, payload_at, small: block.max(LEAST_SMALL) }
    }

    fn separate_headers(self) -> bool {
        self.payload_at == 0
    }

    /// Bytes of a transfer with so many bytes of a file, behind their header.
    fn padded(self, length: u32) -> u32 {
        self.block + length.next_multiple_of(self.block)
    }

    /// Most bytes of a file in a transfer: whole pages, so that no page comes in two pieces.
    fn capacity(self) -> u32 {
        let capacity = payload_capacity(self.transfer as usize - self.payload_at, self.block);
        // MAXTRANSFERSIZE is 64 KB or more, of which a header takes at most half.
        capacity - capacity % PAGE_BYTES as u32
    }
}

/// Carries out a BACKUP.
pub(super) fn run(
    engine: &Engine,
    statement: &Backup,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let options = &statement.options;
    refuse_unknown(engine, &statement.database)?;
    let devices = &statement.devices.names;
    let sizes =
        Sizes::new(options.max_transfer_size.unwrap_or(TRANSFER_UNIT), options.block_size.unwrap_or(MIN_BLOCK_SIZE));
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(devices.len())).max(1);
    // What describes the data goes in small buffers that belong to one device: a writer that needs one never waits for
    // readers, who may have all the large ones. Two make a segment; two more let the next one begin.
    let small = if sizes.separate_headers() { 4 } else { 2 };
    let set_id = new_set_id()?;

    Work::with(engine, devices, cancel, |work| {
        let _lock = engine.old.lock(&statement.database, Verb::Backup)?;
        let database = engine.old.open(&statement.database)?;
        let catalog: Arc<[u8]> = Catalog::of(&database)?.encode().into();
        // There is no log that would tell what writers do meanwhile, so they wait until all is read and flushed.
        let mut frozen = Some(work.freeze(&database)?);
        let started = Instant::now();
        let terms = ServerTerms {
            features: Features::WRITE_MEDIA,
            alignment: 0,
            block_size: sizes.block,
            max_transfer_size: sizes.transfer,
        };
        let wanted = [(sizes.transfer, buffers), (sizes.small, small * devices.len() as u32)];
        let (config, opened) = work.configure(&terms, &wanted, devices)?;
        // With faults there is one list for all waits for a buffer.
        let lists = if work.faults.is_off() { readers() } else { 1 };
        let free = List::fill_several(work, sizes.transfer, buffers, lists)?;
        let free: Vec<List> = free.into_iter().map(|list| list.for_readers(work)).collect();
        let checksum = if options.checksum == Some(false) { Checksum::None } else { Checksum::Crc32 };

        let pieces = Pieces { database: &database, next: Mutex::new((0, 0)) };
        let (queue, queued) = bounded(buffers as usize);
        let tally = Tally::new(database.size(), options.stats);
        let (through, all_through) = bounded::<()>(0);
        let flushed = Gate::new();
        let done = Gate::new();
        let mut outputs = Vec::new();
        for (index, device) in opened.into_iter().enumerate() {
            let identity = Identity { set_id, family_index: index as u32, family_count: devices.len() as u32 };
            let stream = StreamWriter::new(identity, sizes.block, Arc::clone(&catalog))?;
            let small = List::fill(work, sizes.small, small)?;
            let homes = Homes::new(&small, &free);
            let driver = Driver::new(work, device, config, Some(homes.clone()), &tally);
            let writes = Writes::new(driver, homes);
            let failed = writes.driver.failed.clone();
            let output = Output { work, sizes, small, writes, stream };
            outputs.push(Shared { output: Mutex::new(output), failed, open: AtomicBool::new(false) });
        }
        let outputs = &outputs[..];
        let turn = AtomicUsize::new(0);
        let mut progress = Progress::new(database.size(), options.stats);
        if readers() >= cpus() {
            work.set.want_cpus();
        }
        std::thread::scope(|scope| {
            work.spawn(scope, || work.run_agent());
            for reader in 0..readers() {
                let (queue, own) = (queue.clone(), reader % lists);
                let reader =
                    Reader { work, pieces: &pieces, free: &free, own, outputs, turn: &turn, queue, sizes, checksum };
                work.spawn(scope, move || reader.run());
            }
            drop(queue);
            for shared in outputs {
                let writer = Writer { work, queued: &queued, flushed: &flushed, done: &done, shared };
                let through = through.clone();
                work.spawn(scope, move || {
                    writer.run();
                    drop(through);
                });
            }
            drop(through);
            let writing = outputs.len();
            let mut arrived = [0; 2];
            let mut ended = false;
            while !ended {
                select! {
                    recv(tally.due()) -> _ => tally.report(&mut progress, report),
                    recv(all_through) -> _ => {
                        tally.report(&mut progress, report);
                        ended = true;
                    }
                    recv(flushed.arrivals()) -> _ => {
                        arrived[0] += 1;
                        if arrived[0] == writing {
                            match frozen.take().map_or(Ok(()), |frozen| frozen.check_unchanged()) {
                                Ok(()) => flushed.open(),
                                Err(error) => work.fail(error.into()),
                            }
                        }
                    }
                    recv(done.arrivals()) -> _ => {
                        arrived[1] += 1;
                        // A failure is recorded already.
                        if arrived[1] == writing && work.decide().is_ok() {
                            done.open();
                        }
                    }
                    recv(work.over()) -> _ => ended = true,
                }
            }
            // Ends the agent.
            work.finish()
        })?;
        report_files(database.files(), database.name(), report);
        Ok(Summary {
            verb: Verb::Backup,
            bytes: database.size(),
            commands: tally.commands(),
            elapsed: started.elapsed(),
        })
    })
}

/// **Decision**: as SQL Server does, BACKUP of an unknown database says 911 and does not open the set. What else is wrong with the
/// database is found after that, and the client learns it.
pub(super) fn refuse_unknown(engine: &Engine, name: &str) -> Result<(), DatabaseError> {
    match engine.old.contains(name) {
        Ok(false) => Err(DatabaseError::NotFound { name: name.to_owned(), folder: engine.old.path().to_owned() }),
        Err(error @ DatabaseError::InvalidName { .. }) => Err(error),
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Threads that read files: more than one keeps the disk busy while another checks its bytes.
fn readers() -> usize {
    cpus().min(4)
}

/// CPUs that this process has.
fn cpus() -> usize {
    // To find out, files are read each time.
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Hands out the pieces of the database's files in ascending order.
struct Pieces<'a> {
    database: &'a Database,
    next: Mutex<(usize, u64)>,
}

impl Pieces<'_> {
    /// The next piece, of at most `capacity` bytes, which is asked for in the order of the pieces, whichever reader comes first.
    fn next(&self, capacity: impl FnOnce() -> u32) -> Option<DataPiece> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, offset) = &mut *next;
        let capacity = capacity();
        loop {
            let left = self.database.files().get(*index)?.size - *offset;
            if left > 0 {
                let length = left.min(u64::from(capacity)) as u32;
                let piece = DataPiece { file_index: *index as u32, file_offset: *offset, length };
                *offset += u64::from(length);
                return Some(piece);
            }
            (*index, *offset) = (*index + 1, 0);
        }
    }
}

/// Fills free buffers from the files, and sends or queues them.
struct Reader<'a, 'b> {
    work: &'a Work,
    pieces: &'a Pieces<'a>,
    /// A list for each reader. What a reader has filled is likely still in its processor's cache, and another one's has to fetch it
    /// before it overwrites it; so a reader prefers its own list, and takes from those of others when that is empty.
    free: &'a [List],
    own: usize,
    outputs: &'a [Shared<'b>],
    /// Whose turn it is among the devices.
    turn: &'a AtomicUsize,
    queue: Sender<Filled>,
    sizes: Sizes,
    checksum: Checksum,
}

impl Reader<'_, '_> {
    fn run(&self) {
        // The thread that met the failure has recorded it.
        let _ = self.read();
    }

    fn read(&self) -> Result<(), Stopped> {
        let mut file: Option<(u32, File)> = None;
        let completions = if self.work.faults.is_off() { Some(self.work.completion_reader()?) } else { None };
        while let Some(mut buffer) = self.buffer(completions.as_ref())? {
            let capacity = || match self.sizes.capacity() {
                full if self.work.faults.is_off() => full,
                full => self.work.faults.payload_capacity(full, self.sizes.block),
            };
            let Some(piece) = self.pieces.next(capacity) else {
                self.free[self.own].give.back(buffer);
                return Ok(());
            };
            let index = piece.file_index;
            if file.as_ref().is_none_or(|(open, _)| *open != index) {
                let opened = self.pieces.database.open_file(index as usize);
                file = Some((index, opened.map_err(|error| self.work.stop(error))?));
            }
            let Some((_, file)) = &file else { return Ok(()) };
            let at = self.sizes.payload_at;
            let payload = &mut buffer.data_mut()[at..at + piece.length as usize];
            let read = if self.work.faults.is_off() {
                file.read_exact_at(payload, piece.file_offset)
            } else {
                self.work.faults.read_exact_at(file, payload, piece.file_offset)
            };
            read.map_err(|source| {
                let entry = &self.pieces.database.files()[index as usize];
                let path = self.pieces.database.path().join(&entry.path);
                self.work.stop(match (source.kind(), file.metadata()) {
                    (std::io::ErrorKind::UnexpectedEof, Ok(now)) if now.len() == entry.size => {
                        DatabaseError::Modified { path }
                    }
                    (std::io::ErrorKind::UnexpectedEof, Ok(now)) => {
                        DatabaseError::Changed { path, expected: entry.size, found: now.len() }
                    }
                    _ => DatabaseError::Io { action: "read", path, offset: Some(piece.file_offset), source },
                })
            })?;
            let checksum = self.checksum.of(payload);
            self.pass_on(Filled { buffer, piece, checksum, home: Home::large(self.own) })?;
        }
        Ok(())
    }

    /// The next free buffer.
    fn buffer(&self, completions: Option<&CompletionReader>) -> Result<Option<ServerBuffer>, Stopped> {
        // Faults have completions wait, and that is not for those who read.
        let Some(completions) = completions else { return self.work.receive(&self.free[self.own].take) };
        // Also where there are free buffers: a writer may wait for a failure.
        completions.process();
        let (earlier, from_own) = self.free.split_at(self.own);
        let ready = || match from_own.iter().chain(earlier).find_map(|list| list.take.try_recv().ok()) {
            Some(buffer) => Some(Ok(Some(buffer))),
            // The abort that comes with it wakes readers.
            None => self.work.is_over().then_some(Err(Stopped)),
        };
        // The agent reports an abort.
        completions.wait(ready).unwrap_or(Err(Stopped))
    }

    /// Sends a filled buffer to the first device that takes it at once, else queues it.
    fn pass_on(&self, filled: Filled) -> Result<(), Stopped> {
        // Faults may have a thread wait, and that is not for those who read.
        if self.work.faults.is_off() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.outputs.len();
            let (later, first) = self.outputs.split_at(turn);
            for shared in first.iter().chain(later) {
                if let Some(mut output) = shared.at_once(&filled) {
                    return output.write_data(filled);
                }
            }
        }
        // The queue has room for all buffers that there are.
        let _ = self.queue.send(filled);
        Ok(())
    }
}

/// One device's stream of bytes.
struct Output<'a> {
    work: &'a Work,
    sizes: Sizes,
    /// Small buffers of this device alone.
    small: List,
    writes: Writes<'a>,
    stream: StreamWriter,
}

/// What a device's writer and the readers share.
struct Shared<'a> {
    output: Mutex<Output<'a>>,
    /// Writes that failed.
    failed: Receiver<Ended>,
    /// Nobody has the output for longer than it takes to send a command, and data may be sent.
    open: AtomicBool,
}

impl<'a> Shared<'a> {
    fn locked(&self) -> MutexGuard<'_, Output<'a>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The output, if the device takes this without anything to wait for.
    fn at_once(&self, filled: &Filled) -> Option<MutexGuard<'_, Output<'a>>> {
        if !self.open.load(Ordering::Relaxed) {
            return None;
        }
        // A thread that holds the lock may wait for the device. The queue has room.
        let mut output = self.output.try_lock().ok()?;
        // It may have been closed meanwhile.
        (self.open.load(Ordering::Relaxed) && output.takes_at_once(filled)).then_some(output)
    }

    /// The output for as long as it is needed, with whatever has to be waited for.
    fn keep(&self) -> MutexGuard<'_, Output<'a>> {
        self.open.store(false, Ordering::Relaxed);
        self.locked()
    }

    /// Readers may send again.
    fn release(&self, output: MutexGuard<'_, Output<'a>>) {
        self.open.store(true, Ordering::Relaxed);
        drop(output);
    }
}

/// One device's writer.
struct Writer<'a, 'b> {
    work: &'a Work,
    queued: &'a Receiver<Filled>,
    flushed: &'a Gate,
    done: &'a Gate,
    shared: &'a Shared<'b>,
}

impl Writer<'_, '_> {
    fn run(&self) {
        // The thread that met the failure has recorded it.
        let _ = self.write();
    }

    fn write(&self) -> Result<(), Stopped> {
        let mut output = self.shared.keep();
        output.writes.driver.rewind()?;
        output.write_catalog()?;
        output.writes.mark()?;
        self.shared.release(output);
        self.write_data()?;
        // All readers are through.
        let mut output = self.shared.keep();
        output.writes.mark()?;
        output.write_end()?;
        output.writes.mark()?;
        for _ in 0..self.work.faults.final_flushes() {
            output.writes.flush()?;
        }
        self.flushed.pass(self.work)?;
        if output.writes.driver.has(Features::COMPLETE_ENABLED) {
            output.writes.command(CommandCode::COMPLETE)?;
        }
        self.done.pass(self.work)?;
        output.writes.driver.close()
    }

    /// Sends what readers could not, and sees to what fails, until there is no more data.
    fn write_data(&self) -> Result<(), Stopped> {
        loop {
            select! {
                recv(self.shared.failed) -> ended => {
                    let mut output = self.shared.keep();
                    output.writes.note_failed(ended.map_err(|_| Stopped)?)?;
                    self.shared.release(output);
                }
                recv(self.queued) -> filled => {
                    let Ok(filled) = filled else { return Ok(()) };
                    let mut output = self.shared.keep();
                    output.writes.repair()?;
                    output.write_data(filled)?;
                    self.shared.release(output);
                }
                recv(self.work.over()) -> _ => return Err(Stopped),
            }
        }
    }
}

impl Output<'_> {
    /// Whether [`Output::write_data`] would not have to wait.
    fn takes_at_once(&mut self, filled: &Filled) -> bool {
        // Headers of their own may have to wait for buffers of their own.
        !self.sizes.separate_headers() && self.writes.takes_at_once(self.sizes.padded(filled.piece.length))
    }

    fn write_catalog(&mut self) -> Result<(), Stopped> {
        loop {
            let (mut header, mut payload) = (self.small_buffer()?, self.small_buffer()?);
            let part = self.stream.next_catalog(header.data_mut(), payload.data_mut());
            match part.map_err(|error| self.work.stop(error))? {
                Some(padded) => {
                    self.writes.write(header, self.sizes.block, 0, Home::SMALL)?;
                    self.writes.write(payload, padded as u32, 0, Home::SMALL)?;
                }
                None => {
                    for buffer in [header, payload] {
                        self.small.give.back(buffer);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn write_data(&mut self, filled: Filled) -> Result<(), Stopped> {
        let Filled { mut buffer, piece, checksum, home } = filled;
        let block = self.sizes.block;
        if self.sizes.separate_headers() {
            let mut header = self.small_buffer()?;
            let padded = self.stream.data(header.data_mut(), buffer.data_mut(), piece, checksum);
            let padded = padded.map_err(|error| self.work.stop(error))?;
            self.writes.write(header, block, 0, Home::SMALL)?;
            return self.writes.write(buffer, padded as u32, piece.length, home);
        }
        let (header, payload) = buffer.data_mut().split_at_mut(block as usize);
        let padded = self.stream.data(header, payload, piece, checksum);
        let padded = padded.map_err(|error| self.work.stop(error))?;
        self.writes.write(buffer, block + padded as u32, piece.length, home)
    }

    fn write_end(&mut self) -> Result<(), Stopped> {
        let mut buffer = self.small_buffer()?;
        self.stream.end(buffer.data_mut()).map_err(|error| self.work.stop(error))?;
        self.writes.write(buffer, self.sizes.block, 0, Home::SMALL)
    }

    fn small_buffer(&mut self) -> Result<ServerBuffer, Stopped> {
        let take = self.small.take.clone();
        self.writes.wait_for(&take)?.ok_or(Stopped)
    }
}
