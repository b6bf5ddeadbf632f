//! The mirror of the parser: events in, bytes out.

use crate::block::{self, BlockId, reseal};
use crate::error::Error;
use crate::layout::{get, put};
use crate::parser::Event;
use crate::sequence::Sequence;
use crate::stream::StreamId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A block, or the end of a set.
    Block,
    /// A filemark's end.
    FilemarkEnd,
    /// A stream.
    Stream,
    /// So many bytes of a stream's data, then its end.
    Data(StreamId, u64),
    /// The block's end.
    BlockEnd,
}

/// Writes the bytes of one medium from events.
///
/// The writer computes the checksums of the headers and the padding between streams. It refuses events in a wrong order and data of
/// another length than the stream's header says. To lay a backup out (addresses, alignment, filemarks, set map), use the
/// [builder](crate::builder).
///
/// ```
/// use vdi_mtf::{parser::Parser, writer::Writer};
///
/// # fn run(backup: &[u8]) -> Result<Vec<u8>, vdi_mtf::Error> {
/// let (mut parser, mut writer, mut copy) = (Parser::new(), Writer::new(), Vec::new());
/// let mut input = backup;
/// while let Some(event) = parser.next(&mut input)? {
///     copy.extend_from_slice(writer.write(&event)?);
/// }
/// # Ok(copy) }
/// # assert!(run(&[]).unwrap().is_empty());
/// ```
#[derive(Debug)]
pub struct Writer {
    offset: u64,
    state: State,
    sequence: Sequence,
    block: BlockId,
    scratch: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A writer at the start of a medium.
    pub fn new() -> Self {
        Writer { offset: 0, state: State::Block, sequence: Sequence::Start, block: BlockId::Tape, scratch: Vec::new() }
    }

    /// Bytes written so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes of `event`: those of the event itself for data, else a few of the writer's own. Often none.
    ///
    /// # Errors
    /// [`Error::Order`], [`Error::UnexpectedBlock`], or [`Error::Range`] for data beyond the stream's length.
    pub fn write<'s>(&'s mut self, event: &Event<'s>) -> Result<&'s [u8], Error> {
        let offset = self.offset;
        self.scratch.clear();
        match (self.state, event) {
            (State::Block, Event::Block(block)) => {
                if block.bytes.len() < block::HEADER_LEN || get(block.bytes, 0) != Some(block.id.tag()) {
                    return Err(self.order("a block's bytes"));
                }
                self.sequence = self.sequence.next(block.id, offset)?;
                self.block = block.id;
                self.state = State::Stream;
                self.scratch.extend_from_slice(block.bytes);
                let len = block.bytes.len() as u16;
                if block.id == BlockId::Filemark {
                    self.state = State::FilemarkEnd;
                }
                put(&mut self.scratch, 8, &len);
                reseal(&mut self.scratch);
            }
            (State::Stream, Event::Stream(stream)) => {
                self.state = State::Data(stream.header.id(), stream.header.len);
                self.scratch.extend_from_slice(&stream.header.encode());
            }
            (State::Data(id, left), Event::Data(bytes)) => {
                let found = bytes.len() as u64;
                if found > left {
                    return Err(Error::Range { offset, field: "bytes of the stream", least: 0, most: left, found });
                }
                self.state = State::Data(id, left - found);
                self.offset += found;
                return Ok(bytes);
            }
            (State::Data(id, 0), Event::StreamEnd(end)) if *end == id => {
                if id == StreamId::PAD {
                    self.state = State::BlockEnd;
                } else {
                    self.state = State::Stream;
                    self.scratch.resize((offset.next_multiple_of(4) - offset) as usize, 0);
                }
            }
            (State::BlockEnd | State::FilemarkEnd, Event::BlockEnd(id)) if *id == self.block => {
                self.state = State::Block
            }
            (State::Block, Event::SetEnd) if self.sequence == Sequence::Complete => {}
            (_, event) => {
                let found = match event {
                    Event::Block(_) => "a block",
                    Event::Stream(_) => "a stream",
                    Event::Data(_) => "data",
                    Event::StreamEnd(_) => "the end of a stream",
                    Event::BlockEnd(_) => "the end of a block",
                    Event::SetEnd => "the end of a set",
                };
                return Err(self.order(found));
            }
        }
        self.offset += self.scratch.len() as u64;
        Ok(&self.scratch)
    }

    /// Checks that the medium is complete.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn finish(&self) -> Result<(), Error> {
        if self.sequence == Sequence::Complete && self.state == State::Block {
            return Ok(());
        }
        Err(Error::Truncated { offset: self.offset, inside: "what was written" })
    }

    fn order(&self, found: &'static str) -> Error {
        let expected = match self.state {
            State::Block => self.sequence.expected(),
            State::Stream => "a stream",
            State::Data(_, 0) => "the end of the stream",
            State::Data(..) => "data of the stream",
            State::BlockEnd | State::FilemarkEnd => "the end of the block",
        };
        Error::Order { offset: self.offset, expected, found }
    }
}
