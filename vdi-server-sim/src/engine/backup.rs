//! BACKUP: see [`crate::engine`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT, VdConfig};
use vdi_proto::device::QUEUE_DEPTH;
use vdi_proto::features::Features;
use vdi_proto::status::VdError;

use super::work::{Gate, Stopped, Work};
use super::{Engine, Failure, Progress, Summary, default_buffers, report_files};
use crate::database::{Database, DatabaseError};
use crate::messages::{Message, Verb};
use crate::stream::{Catalog, Checksum, DataPiece, Identity, StreamWriter, payload_capacity};
use crate::tsql::Backup;
use crate::vds::{Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, VdsCommand};

/// A buffer with a piece of a file in it.
struct Filled {
    buffer: ServerBuffer,
    piece: DataPiece,
    checksum: Option<u32>,
}

/// What writers tell the statement's own thread.
struct Written {
    /// Bytes of files; 0 for anything else.
    bytes: u64,
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

/// The least length of a small buffer, in bytes.
const LEAST_SMALL: u32 = 8192;

impl Sizes {
    fn new(transfer: u32, block: u32) -> Sizes {
        let payload_at = if transfer == block { 0 } else { block as usize };
        Sizes { transfer, block, payload_at, small: block.max(LEAST_SMALL) }
    }

    fn separate_headers(self) -> bool {
        self.payload_at == 0
    }

    fn capacity(self) -> u32 {
        payload_capacity(self.transfer as usize - self.payload_at, self.block)
    }
}

/// Carries out a BACKUP.
pub(super) fn run(engine: &Engine, statement: &Backup, report: &mut dyn FnMut(Message)) -> Result<Summary, Failure> {
    let options = &statement.options;
    if options.continue_after_error == Some(true) {
        return Err(Failure::Option { option: "CONTINUE_AFTER_ERROR" });
    }
    let database = engine.folder.open(&statement.database)?;
    let catalog: Arc<[u8]> = Catalog::new(database.files().to_vec())?.encode().into();
    let devices = &statement.devices;
    let sizes =
        Sizes::new(options.max_transfer_size.unwrap_or(TRANSFER_UNIT), options.block_size.unwrap_or(MIN_BLOCK_SIZE));
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(devices.len())).max(1);
    // What describes the data goes in small buffers that belong to one device: a writer that needs one never waits for
    // readers, who may have all the large ones. Two make a segment; two more let the next one begin.
    let small = if sizes.separate_headers() { 4 } else { 2 };
    let mut set_id = [0; 16];
    rustix::rand::getrandom(&mut set_id, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Failure::System { action: "get random numbers", source: errno.into() })?;

    let work = Work::open(engine, devices)?;
    let started = Instant::now();
    let terms = ServerTerms {
        features: Features::WRITE_MEDIA,
        alignment: 0,
        block_size: sizes.block,
        max_transfer_size: sizes.transfer,
    };
    let wanted = [(sizes.transfer, buffers), (sizes.small, small * devices.len() as u32)];
    let (config, opened) = work.configure(&terms, &wanted, devices)?;
    let free = List::fill(&work, sizes.transfer, buffers)?;
    let checksum = if options.checksum == Some(false) { Checksum::None } else { Checksum::Crc32 };

    let pieces = Pieces { database: &database, next: Mutex::new((0, 0)), capacity: sizes.capacity() };
    let (queue, queued) = bounded(buffers as usize);
    let (tell, told) = unbounded();
    let flushed = Gate::new();
    let done = Gate::new();
    let mut writers = Vec::new();
    for (index, device) in opened.into_iter().enumerate() {
        let identity = Identity { set_id, family_index: index as u32, family_count: devices.len() as u32 };
        let stream = StreamWriter::new(identity, sizes.block, Arc::clone(&catalog))?;
        let shared = Shared {
            work: &work,
            config,
            sizes,
            free: &free,
            queued: &queued,
            tell: tell.clone(),
            flushed: &flushed,
            done: &done,
        };
        writers.push(Writer::new(shared, List::fill(&work, sizes.small, small)?, device, stream));
    }
    drop(tell);
    let mut progress = Progress::new(database.size(), options.stats);
    let mut commands = 0;
    std::thread::scope(|scope| {
        work.spawn(scope, || work.run_agent());
        for _ in 0..readers() {
            let queue = queue.clone();
            let reader = Reader { work: &work, pieces: &pieces, free: &free, queue, sizes, checksum };
            work.spawn(scope, move || reader.run());
        }
        drop(queue);
        let writing = writers.len();
        for writer in writers {
            work.spawn(scope, move || writer.run());
        }
        let mut arrived = [0; 2];
        let mut ended = false;
        while !ended {
            select! {
                recv(told) -> written => match written {
                    Ok(Written { bytes }) => {
                        commands += 1;
                        progress.add(bytes, report);
                    }
                    // All writers are through.
                    Err(_) => ended = true,
                },
                recv(flushed.arrivals()) -> _ => {
                    arrived[0] += 1;
                    if arrived[0] == writing {
                        flushed.open();
                    }
                }
                recv(done.arrivals()) -> _ => {
                    arrived[1] += 1;
                    if arrived[1] == writing {
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
    Ok(Summary { verb: Verb::Backup, bytes: database.size(), commands, elapsed: started.elapsed() })
}

/// Threads that read files: more than one keeps the disk busy while another checks its bytes.
fn readers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4)
}

/// A free list.
struct List {
    give: Sender<ServerBuffer>,
    take: Receiver<ServerBuffer>,
}

impl List {
    /// A list of `count` buffers of `size` bytes.
    fn fill(work: &Work, size: u32, count: u32) -> Result<List, Failure> {
        let (give, take) = bounded(count as usize);
        for _ in 0..count {
            // There is room for all of them.
            let buffer = work.set.allocate_buffer(size, 0).map_err(|error| work.explain(error.into()))?;
            let _ = give.send(buffer);
        }
        Ok(List { give, take })
    }
}

/// Hands out the pieces of the database's files in ascending order.
struct Pieces<'a> {
    database: &'a Database,
    next: Mutex<(usize, u64)>,
    capacity: u32,
}

impl Pieces<'_> {
    fn next(&self) -> Option<DataPiece> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, offset) = &mut *next;
        loop {
            let left = self.database.files().get(*index)?.size - *offset;
            if left > 0 {
                let length = left.min(u64::from(self.capacity)) as u32;
                let piece = DataPiece { file_index: *index as u32, file_offset: *offset, length };
                *offset += u64::from(length);
                return Some(piece);
            }
            (*index, *offset) = (*index + 1, 0);
        }
    }
}

/// Fills free buffers from the files and queues them.
struct Reader<'a> {
    work: &'a Work,
    pieces: &'a Pieces<'a>,
    free: &'a List,
    queue: Sender<Filled>,
    sizes: Sizes,
    checksum: Checksum,
}

impl Reader<'_> {
    fn run(&self) {
        // A failure is recorded by whoever met it.
        let _ = self.read();
    }

    fn read(&self) -> Result<(), Stopped> {
        let mut file: Option<(u32, File)> = None;
        while let Some(mut buffer) = self.work.receive(&self.free.take)? {
            let Some(piece) = self.pieces.next() else {
                let _ = self.free.give.send(buffer);
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
            file.read_exact_at(payload, piece.file_offset).map_err(|source| {
                let entry = &self.pieces.database.files()[index as usize];
                let path = self.pieces.database.path().join(&entry.path);
                self.work.stop(match (source.kind(), file.metadata()) {
                    (std::io::ErrorKind::UnexpectedEof, Ok(now)) => {
                        DatabaseError::Changed { path, expected: entry.size, found: now.len() }
                    }
                    _ => DatabaseError::Io { action: "read", path, offset: Some(piece.file_offset), source },
                })
            })?;
            let checksum = self.checksum.of(payload);
            // The queue has room for all buffers that there are.
            let _ = self.queue.send(Filled { buffer, piece, checksum });
        }
        Ok(())
    }
}

/// A command that has ended, as its writer learns of it.
struct Ended {
    command: CommandCode,
    code: CompletionCode,
    bytes: u32,
    size: u32,
    /// Bytes of files among them.
    payload: u32,
}

/// Brings buffers back to their lists, and tells the writer.
struct Routine {
    free: Sender<ServerBuffer>,
    small: Sender<ServerBuffer>,
    ended: Sender<Ended>,
}

impl CompletionRoutine for Routine {
    fn completed(&self, completed: Completed) {
        let Completed { command, code, bytes, buffer, context, .. } = completed;
        if let Some(buffer) = buffer {
            let list = if context & SMALL == 0 { &self.free } else { &self.small };
            // The list has room for all its buffers; if nobody takes from it any more, the buffer is freed.
            let _ = list.send(buffer);
        }
        let (size, payload) = (context as u32 & SIZE, (context >> 32) as u32);
        // The writer may be gone after a failure.
        let _ = self.ended.send(Ended { command, code, bytes, size, payload });
    }
}

/// In a command's context: its size (low half), the bytes of files in it (high half), and whether its buffer is a small one.
const SMALL: u64 = 1 << 31;
const SIZE: u32 = SMALL as u32 - 1;

/// What all writers share.
struct Shared<'a> {
    work: &'a Work,
    config: VdConfig,
    sizes: Sizes,
    free: &'a List,
    queued: &'a Receiver<Filled>,
    tell: Sender<Written>,
    flushed: &'a Gate,
    done: &'a Gate,
}

/// One device's writer.
struct Writer<'a> {
    shared: Shared<'a>,
    /// Small buffers of this device alone.
    small: List,
    device: ServerVirtualDevice,
    stream: StreamWriter,
    routine: Arc<Routine>,
    ended: Receiver<Ended>,
    in_flight: u32,
}

impl<'a> Writer<'a> {
    fn new(shared: Shared<'a>, small: List, device: ServerVirtualDevice, stream: StreamWriter) -> Self {
        let (tell_ended, ended) = unbounded();
        let routine = Routine { free: shared.free.give.clone(), small: small.give.clone(), ended: tell_ended };
        Writer { shared, small, device, stream, routine: Arc::new(routine), ended, in_flight: 0 }
    }

    fn run(mut self) {
        // A failure is recorded by whoever met it.
        let _ = self.write();
    }

    fn write(&mut self) -> Result<(), Stopped> {
        self.write_catalog()?;
        let queued = self.shared.queued;
        while let Some(filled) = self.wait_for(queued)? {
            self.write_data(filled)?;
        }
        self.write_end()?;
        self.settle()?;
        self.plain(CommandCode::FLUSH)?;
        self.shared.flushed.pass(self.shared.work)?;
        if self.shared.config.features.contains(Features::COMPLETE_ENABLED) {
            self.plain(CommandCode::COMPLETE)?;
        }
        self.shared.done.pass(self.shared.work)?;
        self.device.close_device().map_err(|error| self.shared.work.stop(error))
    }

    fn write_catalog(&mut self) -> Result<(), Stopped> {
        loop {
            let (mut header, mut payload) = (self.small_buffer()?, self.small_buffer()?);
            let part = self.stream.next_catalog(header.data_mut(), payload.data_mut());
            match part.map_err(|error| self.shared.work.stop(error))? {
                Some(padded) => {
                    self.send(header, self.shared.sizes.block, 0, SMALL)?;
                    self.send(payload, padded as u32, 0, SMALL)?;
                }
                None => {
                    for buffer in [header, payload] {
                        let _ = self.small.give.send(buffer);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn write_data(&mut self, filled: Filled) -> Result<(), Stopped> {
        let Filled { mut buffer, piece, checksum } = filled;
        let block = self.shared.sizes.block;
        if self.shared.sizes.separate_headers() {
            let mut header = self.small_buffer()?;
            let padded = self.stream.data(header.data_mut(), buffer.data_mut(), piece, checksum);
            let padded = padded.map_err(|error| self.shared.work.stop(error))?;
            self.send(header, block, 0, SMALL)?;
            return self.send(buffer, padded as u32, piece.length, 0);
        }
        let (header, payload) = buffer.data_mut().split_at_mut(block as usize);
        let padded = self.stream.data(header, payload, piece, checksum);
        let padded = padded.map_err(|error| self.shared.work.stop(error))?;
        self.send(buffer, block + padded as u32, piece.length, 0)
    }

    fn write_end(&mut self) -> Result<(), Stopped> {
        let mut buffer = self.small_buffer()?;
        self.stream.end(buffer.data_mut()).map_err(|error| self.shared.work.stop(error))?;
        self.send(buffer, self.shared.sizes.block, 0, SMALL)
    }

    fn small_buffer(&mut self) -> Result<ServerBuffer, Stopped> {
        let take = self.small.take.clone();
        self.wait_for(&take)?.ok_or(Stopped)
    }

    fn send(&mut self, buffer: ServerBuffer, bytes: u32, payload: u32, kind: u64) -> Result<(), Stopped> {
        while self.in_flight >= QUEUE_DEPTH {
            self.wait_ended()?;
        }
        let routine: Arc<Routine> = Arc::clone(&self.routine);
        let mut command = VdsCommand::transfer(CommandCode::WRITE, buffer, bytes, routine);
        command.context = u64::from(payload) << 32 | kind | u64::from(bytes);
        self.dispatch(command)
    }

    /// A command without data, and its completion.
    fn plain(&mut self, code: CommandCode) -> Result<(), Stopped> {
        let routine: Arc<Routine> = Arc::clone(&self.routine);
        self.dispatch(VdsCommand::plain(code, routine))?;
        self.settle()
    }

    fn dispatch(&mut self, command: VdsCommand) -> Result<(), Stopped> {
        self.in_flight += 1;
        // A refusal has run the routine, which tells what happened; that comes first.
        match self.device.send_command(command) {
            Ok(()) => Ok(()),
            Err(error) if error.code == VdError::IoError => Err(self.cause_of_io_error()),
            Err(error) => {
                self.settle()?;
                Err(self.shared.work.stop(error))
            }
        }
    }

    /// A command was refused because one before it had failed. The agent tells which, maybe only after the refusal was told.
    fn cause_of_io_error(&mut self) -> Stopped {
        let mut refusal_seen = false;
        loop {
            let ended = match self.shared.work.receive(&self.ended) {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(Stopped) => return Stopped,
            };
            if ended.code == CompletionCode::IO_DEVICE && !refusal_seen {
                refusal_seen = true;
                self.in_flight -= 1;
            } else if let Err(stopped) = self.judge(ended) {
                return stopped;
            }
        }
    }

    /// Waits until everything sent has ended well.
    fn settle(&mut self) -> Result<(), Stopped> {
        while self.in_flight > 0 {
            self.wait_ended()?;
        }
        Ok(())
    }

    fn wait_ended(&mut self) -> Result<(), Stopped> {
        match self.shared.work.receive(&self.ended)? {
            Some(ended) => self.judge(ended),
            None => Err(Stopped),
        }
    }

    /// Receives, judging what ends meanwhile.
    fn wait_for<T>(&mut self, channel: &Receiver<T>) -> Result<Option<T>, Stopped> {
        loop {
            select! {
                recv(self.ended) -> ended => match ended {
                    Ok(ended) => self.judge(ended)?,
                    Err(_) => return Err(Stopped),
                },
                recv(channel) -> received => return Ok(received.ok()),
                recv(self.shared.work.over()) -> _ => return Err(Stopped),
            }
        }
    }

    /// A command has ended: fewer bytes than asked for are a failure, whatever the code says.
    fn judge(&mut self, ended: Ended) -> Result<(), Stopped> {
        let Ended { command, code, bytes, size, payload } = ended;
        self.in_flight -= 1;
        let short = command == CommandCode::WRITE && bytes != size;
        if code.is_success() && !short {
            let _ = self.shared.tell.send(Written { bytes: u64::from(payload) });
            return Ok(());
        }
        if code == CompletionCode::OPERATION_ABORTED && self.shared.work.is_aborted() {
            return Err(self.shared.work.wait_until_over());
        }
        let operation = match command {
            CommandCode::WRITE => "write",
            CommandCode::FLUSH => "flush",
            _ => "complete",
        };
        // A short write under the code of success: the device had no room for the rest.
        let code = if code.is_success() { CompletionCode::DISK_FULL } else { code };
        let device = self.device.name().to_owned();
        Err(self.shared.work.stop(Failure::Device { device, operation, code, bytes, size }))
    }
}
