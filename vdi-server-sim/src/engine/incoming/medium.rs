//! The reader of one device: bytes of a medium in, pages and log to their places.

use crossbeam::channel::Receiver;
use vdi_mtf::Error;
use vdi_mtf::block::BlockId;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::BackupSet;
use vdi_mtf::parser::Event;
use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader, PREFIX_LEN};
use vdi_mtf::stream::{HEADER_LEN, StreamId};
use vdi_mtf::value::FileId;

use super::{Device, Incoming, check_range};
use crate::engine::Failure;
use crate::engine::feed::{Fed, Feed};
use crate::engine::medium_parser::{MediumParser, Scout, Until};

/// Reads one medium.
pub(in crate::engine) struct MediumReader<'a> {
    scout: Scout,
    parser: MediumParser,
    content: Content<'a>,
}

struct Content<'a> {
    incoming: &'a Incoming<'a>,
    device: Device,
    inspector: Inspector,
    /// The damages of which it is known what they mean.
    damages_seen: u64,
    /// Those that were passed over.
    passed_over: u64,
    block: BlockId,
    stream: Stream,
    /// Streams of pages of the wanted set that have begun.
    passes: usize,
    first_pass_ended: bool,
    moved: u64,
}

/// What the bytes of the current stream are.
enum Stream {
    Other,
    Pages {
        extents: ExtentReader,
        /// Where the next byte goes; nowhere in a filler.
        place: Option<(FileId, u64)>,
    },
    Log {
        file: FileId,
        offset: u64,
        /// Bytes before the log, and bytes of log, that are to come.
        prefix: u64,
        left: u64,
    },
}

impl<'a> MediumReader<'a> {
    pub(super) fn new(incoming: &'a Incoming<'a>, device: Device) -> MediumReader<'a> {
        let content = Content {
            incoming,
            device,
            inspector: Inspector::new(),
            damages_seen: 0,
            passed_over: 0,
            block: BlockId::Tape,
            stream: Stream::Other,
            passes: 0,
            first_pass_ended: false,
            moved: 0,
        };
        let scout = Scout::new(Until::Set(incoming.wanted.file));
        MediumReader { scout, parser: MediumParser::new(), content }
    }
}

impl Feed for MediumReader<'_> {
    fn needs_more(&mut self, bytes: &[u8]) -> bool {
        self.scout.needs_more(bytes)
    }

    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Fed, Failure> {
        let MediumReader { parser, content, .. } = self;
        loop {
            let next = parser.next(bytes).map_err(|error| content.broken(error))?;
            let Some(event) = next else { return Ok(Fed::More) };
            match content.event(&event)? {
                Fed::More => {}
                fed => return Ok(fed),
            }
        }
    }

    fn end_of_data(&mut self) -> Result<(), Failure> {
        self.parser.finish().map_err(|error| self.content.broken(error))?;
        // It ends behind another set.
        let (device, file) = (self.content.device.name.clone(), self.content.incoming.wanted.file);
        Err(Failure::NoSuchSet { device, file, sets: self.content.inspector.medium().sets.len() })
    }

    fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.content.moved)
    }

    fn second_pass(&self) -> Option<&Receiver<()>> {
        Some(self.content.incoming.first_pass_over())
    }
}

impl Content<'_> {
    fn broken(&self, error: Error) -> Failure {
        self.incoming.broken(&self.device.name, error)
    }

    /// The last set that has begun, if it is the wanted one.
    fn wanted(&self) -> Option<&BackupSet> {
        let sets = &self.inspector.medium().sets;
        sets.last().filter(|_| sets.len() == self.incoming.wanted.file as usize)
    }

    fn event(&mut self, event: &Event<'_>) -> Result<Fed, Failure> {
        self.inspector.event(event).map_err(|error| self.broken(error))?;
        if self.inspector.damage_count() != self.damages_seen {
            self.damaged()?;
        }
        match event {
            Event::Block(block) => {
                self.block = block.id;
                self.stream = Stream::Other;
                self.block()?;
            }
            Event::Stream(stream) => {
                self.stream = Stream::Other;
                return self.stream(stream.header.id(), stream.header.len, stream.offset);
            }
            Event::Data(bytes) => self.data(bytes)?,
            Event::StreamEnd(StreamId::CONFIGURATION) if self.block == BlockId::Configuration => {
                if let Some(set) = self.wanted() {
                    self.incoming.begin(&self.device, set)?;
                }
            }
            Event::StreamEnd(_) => {}
            Event::BlockEnd(BlockId::Tape) => self.incoming.label(&self.device, self.inspector.medium())?,
            Event::BlockEnd(BlockId::Data) if self.wanted().is_some() => self.end_first_pass(),
            Event::BlockEnd(_) => {}
            Event::SetEnd => {
                if let Some(set) = self.wanted() {
                    let family = self.inspector.medium().media_set.family_number;
                    self.incoming.end(&self.device.name, family, set, self.passed_over)?;
                    return Ok(Fed::End);
                }
            }
        }
        Ok(Fed::More)
    }

    fn block(&mut self) -> Result<(), Failure> {
        let Some(set) = self.wanted() else { return Ok(()) };
        match self.block {
            BlockId::Log => {
                let Some((vlf, _)) = set.log.last() else { return Ok(()) };
                check_range(vlf).map_err(|what| {
                    let what = format!("the virtual log file at {}: {what}", vlf.offset);
                    self.incoming.content(&self.device.name, what)
                })
            }
            // There need not be any pages.
            BlockId::Summary => {
                self.end_first_pass();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end_first_pass(&mut self) {
        if !std::mem::replace(&mut self.first_pass_ended, true) {
            self.incoming.first_pass.ended();
        }
    }

    fn stream(&mut self, id: StreamId, len: u64, offset: u64) -> Result<Fed, Failure> {
        let Some(set) = self.wanted().filter(|_| len > 0) else { return Ok(Fed::More) };
        match id {
            StreamId::DATA => {
                let extents = ExtentReader::new(offset + HEADER_LEN as u64);
                self.stream = Stream::Pages { extents, place: None };
                self.passes += 1;
                match self.passes {
                    1 => Ok(Fed::More),
                    2 => Ok(Fed::SecondPass),
                    _ => {
                        let expected = "a virtual log file or the end of the set";
                        Err(self.broken(Error::UnexpectedBlock { offset, expected, found: BlockId::Data }))
                    }
                }
            }
            StreamId::LOG => {
                if self.inspector.medium().media_set.family_number != 1 {
                    let what = "it has log, which belongs to family 1 only".to_owned();
                    return Err(self.incoming.content(&self.device.name, what));
                }
                if let Some((vlf, _)) = set.log.last() {
                    let (file, offset, left) = (vlf.file_id, vlf.start, vlf.range_len());
                    self.stream = Stream::Log { file, offset, prefix: PREFIX_LEN, left };
                }
                Ok(Fed::More)
            }
            _ => Ok(Fed::More),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Content { incoming, device, .. } = self;
        match &mut self.stream {
            Stream::Other => Ok(()),
            Stream::Pages { extents, place } => {
                let pass = self.passes - 1;
                let mut writer = RunWriter { incoming, bytes, run: None, moved: 0 };
                let result =
                    write_pages(extents, place, bytes, &mut writer, |first| incoming.extent(&device.name, pass, first));
                let moved = writer.moved;
                result.map_err(|error| match error {
                    WriteError::Failure(failure) => failure,
                    WriteError::Broken(error) => incoming.broken(&device.name, error),
                })?;
                self.moved += moved;
                Ok(())
            }
            Stream::Log { file, offset, prefix, left } => {
                let skipped = (*prefix).min(bytes.len() as u64);
                *prefix -= skipped;
                let rest = bytes.get(skipped as usize..).unwrap_or_default();
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                let log = rest.get(..len).unwrap_or_default();
                if !log.is_empty() {
                    incoming.destination.write_at(*file, *offset, log)?;
                    *offset += len as u64;
                    *left -= len as u64;
                    self.moved += len as u64;
                }
                Ok(())
            }
        }
    }

    /// The inspector has found damages: each fails the statement, unless it is to go on.
    fn damaged(&mut self) -> Result<(), Failure> {
        let count = self.inspector.damage_count();
        let new = count - std::mem::replace(&mut self.damages_seen, count);
        let damages = self.inspector.take_damages();
        let (wanted, sets) = (&self.incoming.wanted, self.inspector.medium().sets.len());
        if (1..wanted.file as usize).contains(&sets) {
            // Of a set that is passed over.
            return Ok(());
        }
        let counts = |error: &Error| wanted.checksum != Some(false) || !matches!(error, Error::BackupChecksum { .. });
        let ignored = damages.iter().filter(|error| !counts(error)).count() as u64;
        if wanted.continue_after_error {
            self.passed_over += new - ignored;
            return Ok(());
        }
        match damages.into_iter().find(counts) {
            Some(error) => Err(self.broken(error)),
            None => Ok(()),
        }
    }
}

/// Writes bytes that lie one behind the other, in the piece and in a file, at once.
struct RunWriter<'a> {
    incoming: &'a Incoming<'a>,
    bytes: &'a [u8],
    run: Option<Run>,
    moved: u64,
}

/// Bytes of the piece, and where they go.
struct Run {
    file: FileId,
    offset: u64,
    from: usize,
    to: usize,
}

impl RunWriter<'_> {
    /// The bytes of the piece from `from` to `to` go to a place.
    fn push(&mut self, file: FileId, offset: u64, from: usize, to: usize) -> Result<(), Failure> {
        if let Some(run) = &mut self.run
            && (run.file, run.offset + (run.to - run.from) as u64, run.to) == (file, offset, from)
        {
            run.to = to;
            return Ok(());
        }
        self.flush()?;
        self.run = Some(Run { file, offset, from, to });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let Some(Run { file, offset, from, to }) = self.run.take() else { return Ok(()) };
        let bytes = self.bytes.get(from..to).unwrap_or_default();
        self.moved += bytes.len() as u64;
        self.incoming.destination.write_at(file, offset, bytes)
    }

    /// Bytes that are not in the piece.
    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.flush()?;
        self.moved += bytes.len() as u64;
        self.incoming.destination.write_at(file, offset, bytes)
    }
}

enum WriteError {
    Failure(Failure),
    Broken(Error),
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        WriteError::Failure(failure)
    }
}

/// Writes a piece of a stream of pages to where its extents belong. `begin` gets each extent's first page.
fn write_pages(
    extents: &mut ExtentReader,
    place: &mut Option<(FileId, u64)>,
    bytes: &[u8],
    writer: &mut RunWriter<'_>,
    begin: impl Fn(vdi_mtf::value::PageAddress) -> Result<(), Failure>,
) -> Result<(), WriteError> {
    let mut rest = bytes;
    loop {
        let from = bytes.len() - rest.len();
        let Some(event) = extents.next(&mut rest).map_err(WriteError::Broken)? else { break };
        match event {
            ExtentEvent::Extent(first) => {
                *place = first.map(|first| (first.file, first.file_offset()));
                first.map_or(Ok(()), &begin)?;
            }
            ExtentEvent::Bytes(data) => {
                let to = bytes.len() - rest.len();
                if let Some((file, offset)) = place {
                    // The first bytes of a header that came in pieces are not in this one.
                    match to - from == data.len() {
                        true => writer.push(*file, *offset, from, to)?,
                        false => writer.write(*file, *offset, data)?,
                    }
                    *offset += data.len() as u64;
                }
            }
        }
    }
    Ok(writer.flush()?)
}
