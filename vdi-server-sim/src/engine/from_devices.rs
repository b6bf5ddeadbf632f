//! Reads the devices of a virtual device set: RESTORE and its like.
//!
//! A thread a device reads, and feeds what comes to a [`Feed`], while the next Read is under way. It never reads beyond the end that
//! the content tells. When all devices are through, the statement decides; then the devices are closed.
//!
//! Each Read asks for a whole transfer, also behind a short one: clients may need room for a record.

use crossbeam::channel::{Receiver, bounded, select};
use vdi_mtf::block::{BlockHeader, BlockId};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::{DeviceKind, Features};

use super::driver::Driver;
use super::feed::{Fed, Feed};
use super::medium_parser::MediumParser;
use super::operation::{Gate, Operation, Stopped};
use super::progress_counter::ProgressCounter;
use super::reads::{Arrived, ReadEnd, Reads};
use super::{Cancel, Engine, Failure, default_buffers};
use crate::tsql::RestoreOptions;
use crate::vds::ServerBuffer;

/// How devices are read.
pub(super) struct Reading<'a> {
    pub(super) engine: &'a Engine,
    /// The devices, in the statement's order.
    pub(super) devices: &'a [String],
    pub(super) options: &'a RestoreOptions,
    pub(super) cancel: &'a Cancel,
    /// Learns of commands and bytes.
    pub(super) counter: &'a ProgressCounter,
    /// All of a set is wanted: tapes are looked at for its end first, and several buffers are used.
    pub(super) whole: bool,
}

impl Reading<'_> {
    /// Reads. `feed` makes the feed of a device by its number, name and kind; a device without one is only closed. `due` is called on this
    /// thread when there is progress to report. `decide` is called when all devices are through, and takes the step that decides.
    pub(super) fn run<F: Feed, T>(
        &self,
        feed: impl Fn(usize, &str, DeviceKind) -> Option<F>,
        mut due: impl FnMut(),
        decide: impl FnOnce(&Operation, Vec<F>) -> Result<T, Stopped>,
    ) -> Result<T, Failure> {
        let Reading { engine, devices, options, cancel, counter, whole } = *self;
        let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
        let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
        Operation::with(engine, devices, cancel, |operation| {
            let terms =
                ServerTerms { features: Features::READ_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
            // Two a device: one that the client fills while the other goes to the files.
            let buffers =
                options.buffer_count.unwrap_or_else(|| default_buffers(devices.len())).max(2 * devices.len() as u32);
            let (config, opened) = operation.configure(&terms, &[(transfer, buffers)], devices)?;
            // Headers are short. Bytes behind them would be read and dropped.
            let transfer = if whole { transfer } else { TRANSFER_UNIT };
            let (through, all_through) = bounded::<()>(0);
            let read = Gate::new();
            let (give, given) = bounded(opened.len());
            let reading = opened.len();
            let mut decided = None;
            let mut decide = Some(decide);
            std::thread::scope(|scope| {
                operation.spawn(scope, || operation.run_agent());
                for (index, device) in opened.into_iter().enumerate() {
                    let driver = Driver::new(operation, device, config, None, counter);
                    let feed = feed(index, driver.name(), driver.kind);
                    let reads = Reads::new(driver, transfer);
                    let mut reader = Reader { operation, transfer, block_size, reads, whole, inspects: true };
                    let (read, through, give) = (&read, through.clone(), give.clone());
                    let body = move || {
                        if let Some(mut feed) = feed {
                            reader.pump(&mut feed)?;
                            drop(give.send(feed));
                        }
                        read.pass(operation)?;
                        reader.reads.driver.close()
                    };
                    operation.spawn(scope, move || {
                        // The thread that met the failure has recorded it.
                        let _: Result<(), Stopped> = body();
                        drop(through);
                    });
                }
                drop((through, give));
                let (mut arrived, mut ended) = (0, false);
                while !ended {
                    select! {
                        recv(counter.due()) -> _ => due(),
                        recv(all_through) -> _ => ended = true,
                        recv(read.arrivals()) -> _ => {
                            arrived += 1;
                            if arrived == reading && let Some(decide) = decide.take() {
                                due();
                                // A failure is recorded there.
                                if let Ok(done) = decide(operation, given.try_iter().collect()) {
                                    decided = Some(done);
                                    read.open();
                                }
                            }
                        }
                        recv(operation.over()) -> _ => ended = true,
                    }
                }
                // Ends the agent.
                operation.finish()
            })?;
            // Without a failure the devices came through, and that was decided.
            decided.ok_or_else(|| Failure::System {
                action: "read the devices",
                source: std::io::Error::other(
                    "the operation ended without a reason, which is a defect of this program",
                ),
            })
        })
    }
}

/// One device's reader.
pub(super) struct Reader<'a> {
    pub(super) operation: &'a Operation,
    /// Bytes of a buffer.
    pub(super) transfer: u32,
    pub(super) block_size: u32,
    pub(super) reads: Reads<'a>,
    /// As [`Reading::whole`].
    pub(super) whole: bool,
    /// Tapes and disks are looked at before they are read. Not where a snapshot is read, whose end the client was not asked to set.
    pub(super) inspects: bool,
}

impl Reader<'_> {
    /// Reads to the end of the content. The last Read's error is not cleared.
    pub(super) fn pump(&mut self, feed: &mut impl Feed) -> Result<(), Stopped> {
        let operation = self.operation;
        let allocate = || operation.set.allocate_buffer(self.transfer, 0).map_err(|error| operation.stop(error));
        let (mut spare, mut next) = (Some(allocate()?), allocate()?);
        match self.reads.driver.kind {
            DeviceKind::PipeLike => {}
            DeviceKind::DiskLike | DeviceKind::TapeLike if !self.inspects => self.reads.driver.rewind()?,
            DeviceKind::DiskLike => next = self.inspect_disk(next)?,
            DeviceKind::TapeLike => next = self.inspect_tape(next)?,
        }
        let mut label_ends = self.whole;
        self.reads.ask(next)?;
        loop {
            let Arrived { buffer, bytes, end } = self.reads.arrived()?;
            let data = buffer.data().get(..bytes).unwrap_or_default();
            let mut last = false;
            if feed.needs_more(data) {
                match end {
                    ReadEnd::More => {}
                    ReadEnd::Mark => {
                        if std::mem::take(&mut label_ends)
                            && let Some(buffer) = spare.take()
                        {
                            spare = Some(self.look_ahead(buffer)?);
                        }
                    }
                    ReadEnd::Data => {
                        label_ends = false;
                        last = feed.may_end() || !self.reads.next_medium()?;
                    }
                }
                // The client fills the next buffer while this one goes to the files.
                if let Some(next) = spare.take_if(|_| !last) {
                    self.reads.ask(next)?;
                }
            }
            let fed = feed_all(feed, data, |over| operation.receive(over).map(drop));
            let fed = fed.map_err(|failure| failure.map_or(Stopped, |failure| operation.stop(failure)))?;
            self.reads.driver.succeeded(feed.take_moved());
            if fed == Fed::End {
                return Ok(());
            }
            if last {
                return feed.end_of_data().map_err(|failure| operation.stop(failure));
            }
            spare = Some(buffer);
        }
    }

    fn broken(&self, source: vdi_mtf::Error) -> Stopped {
        let device = self.reads.driver.name().to_owned();
        self.operation.stop(Failure::Medium { device, database: String::new(), source })
    }

    /// Reads one block where the device is, and finds out whether a backup begins there.
    fn inspect_header(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        self.reads.ask_for(buffer, self.block_size)?;
        let Arrived { buffer, bytes, .. } = self.reads.arrived()?;
        self.reads.driver.succeeded(0);
        let mut header = buffer.data().get(..bytes).unwrap_or_default();
        let mut probe = MediumParser::new();
        while probe.next(&mut header).map_err(|source| self.broken(source))?.is_some() {}
        if bytes < self.block_size as usize {
            // Says what is missing.
            probe.finish().map_err(|source| self.broken(source))?;
        }
        Ok(buffer)
    }

    /// Disk-like: the label is looked at before all is read from the beginning.
    fn inspect_disk(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        let (length, block) = (self.reads.driver.medium_length()?, self.block_size);
        if length < u64::from(block) {
            let what = format!("the medium has {length} bytes, less than a block of {block}");
            return Err(self.reads.driver.protocol_error(CommandCode::GET_POSITION, what));
        }
        self.reads.driver.rewind()?;
        let buffer = self.inspect_header(buffer)?;
        self.reads.restarted();
        Ok(buffer)
    }

    /// Tape-like: the label is looked at before all is read from the beginning.
    fn inspect_tape(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        self.reads.driver.rewind()?;
        let buffer = self.inspect_header(buffer)?;
        self.reads.resume()?;
        self.reads.driver.rewind()?;
        self.reads.restarted();
        Ok(buffer)
    }

    /// Tape-like, behind the label: looks whether the end of the set is there before anything is restored, and comes back. A backup
    /// that goes on on another medium has no end on this one.
    fn look_ahead(&mut self, buffer: ServerBuffer) -> Result<ServerBuffer, Stopped> {
        self.reads.resume()?;
        let driver = &mut self.reads.driver;
        let set_begins = driver.block_address()?;
        let skipped = driver.attempt(CommandCode::SKIP_MARKS, 1, 0)?;
        if !skipped.code.is_success() {
            if !skipped.code.is_end_of_data() && skipped.code != CompletionCode::END_OF_MEDIA {
                return Err(driver.failed(CommandCode::SKIP_MARKS, skipped.code, 0, 0));
            }
            driver.return_to(set_begins)?;
            return Ok(buffer);
        }
        let end_begins = driver.block_address()?;
        if end_begins <= set_begins {
            let what = format!("the address behind the mark is {end_begins}, in front of it {set_begins}");
            return Err(driver.protocol_error(CommandCode::GET_POSITION, what));
        }
        self.reads.ask_for(buffer, self.block_size)?;
        let Arrived { buffer, bytes, .. } = self.reads.arrived()?;
        let header = buffer.data().get(..bytes).unwrap_or_default();
        let is_end = header.starts_with(&BlockId::SetEnd.tag().0) && BlockHeader::decode(header, 0).is_ok();
        if !is_end {
            // The medium was changed behind the mark: the end is on another one.
            return self.back_to_set(buffer, set_begins);
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
        self.back_to_set(buffer, set_begins)
    }

    fn back_to_set(&mut self, buffer: ServerBuffer, address: u64) -> Result<ServerBuffer, Stopped> {
        self.reads.resume()?;
        self.reads.driver.return_to(address)?;
        Ok(buffer)
    }
}

/// Feeds bytes to their end, or that of the content. `wait` waits until a channel is disconnected, or the operation is over: then the error is
/// `None`.
pub(super) fn feed_all(
    feed: &mut impl Feed,
    mut bytes: &[u8],
    wait: impl Fn(&Receiver<()>) -> Result<(), Stopped>,
) -> Result<Fed, Option<Failure>> {
    loop {
        match feed.feed(&mut bytes).map_err(Some)? {
            Fed::SecondPass => {
                if let Some(over) = feed.second_pass() {
                    wait(over).map_err(|Stopped| None)?;
                }
            }
            fed => return Ok(fed),
        }
    }
}
