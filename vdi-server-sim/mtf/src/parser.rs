//! The push parser: bytes in, events out.

use crate::block::{self, Block, BlockHeader, BlockId, attributes};
use crate::error::Error;
use crate::layout::get;
use crate::media::{MAX_FILEMARK_LEN, Tape};
use crate::sequence::Sequence;
use crate::stream::{self, Stream, StreamHeader, StreamId};
use crate::value::Tag;

/// What the parser found. The events of a medium, written by a [`Writer`](crate::writer::Writer), give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A block begins. All its bytes before the first stream.
    Block(Block<'a>),
    /// A stream of the block begins.
    Stream(Stream),
    /// The next bytes of the stream's data, where the caller has them.
    Data(&'a [u8]),
    /// The stream is complete: its data, and the zeros after it up to a multiple of 4. `SPAD` has none.
    StreamEnd(StreamId),
    /// The block is complete.
    BlockEnd(BlockId),
    /// A backup set is complete: its last filemark was read. The medium ends here, or another set follows.
    SetEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    StreamHeader,
    Data(StreamId, u64),
    Gap(StreamId),
    BlockEnd,
    SetEnd,
}

/// What a step found, before the bytes' place is known.
enum Step<'i> {
    /// The block's bytes, or `None` if they are in the carry.
    Block(BlockId, u64, Option<&'i [u8]>),
    Other(Event<'i>),
}

/// Reads the bytes of one medium, in pieces of any size.
///
/// The parser validates the order of the blocks, their headers' checksums and addresses, and the headers of the streams. It looks at
/// no data. It keeps at most one block header: some hundred bytes, at most 64 KiB.
///
/// Recognised and refused by name: compressed backups (`MSSQLBAK`), encrypted sets, media that continue.
///
/// ```
/// use vdi_mtf::parser::{Event, Parser};
///
/// # fn run(backup: &[u8]) -> Result<u64, vdi_mtf::Error> {
/// let (mut parser, mut data) = (Parser::new(), 0);
/// for mut piece in backup.chunks(65536) {
///     while let Some(event) = parser.next(&mut piece)? {
///         if let Event::Data(bytes) = event {
///             data += bytes.len() as u64;
///         }
///     }
/// }
/// parser.finish()?;
/// # Ok(data) }
/// # assert!(run(b"no tape").is_err());
/// ```
#[derive(Debug)]
pub struct Parser {
    offset: u64,
    state: State,
    sequence: Sequence,
    block: BlockId,
    carry: Vec<u8>,
    /// The bytes in `carry` were given out.
    given: bool,
    /// Length of a filemark, and of a logical block, from TAPE.
    filemark_len: u32,
    logical_len: u64,
    /// Where the current set begins, and the next control block id in it.
    set_offset: u64,
    next_id: u32,
    failed: Option<Error>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the start of a medium.
    pub fn new() -> Self {
        Parser {
            offset: 0,
            state: State::Header,
            sequence: Sequence::Start,
            block: BlockId::Tape,
            carry: Vec::new(),
            given: false,
            filemark_len: 0,
            logical_len: 1,
            set_offset: 0,
            next_id: 0,
            failed: None,
        }
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether at least one set is complete and nothing of a further one was read: the medium may end here.
    pub fn is_complete(&self) -> bool {
        self.sequence == Sequence::Complete
            && self.state == State::Header
            && self.pending() == 0
            && self.failed.is_none()
    }

    /// The next event. Takes bytes from the front of `input`. `Ok(None)`: `input` is empty, more bytes are needed.
    ///
    /// # Errors
    /// What is wrong with the medium. Every later call returns the same error.
    #[allow(clippy::should_implement_trait)]
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.given {
            self.carry.clear();
            self.given = false;
        }
        match self.step(input) {
            Ok(None) => Ok(None),
            Ok(Some(Step::Other(event))) => Ok(Some(event)),
            Ok(Some(Step::Block(id, offset, bytes))) => {
                Ok(Some(Event::Block(Block { offset, id, bytes: bytes.unwrap_or(&self.carry) })))
            }
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Skips bytes of pages or log, at most `most`, and returns how many: the caller's next input begins so much later on the medium. No
    /// event is given for them. 0 if the parser is not inside such a stream.
    pub fn skip(&mut self, most: u64) -> u64 {
        match &mut self.state {
            State::Data(StreamId::DATA | StreamId::LOG, left) if self.failed.is_none() => {
                let skipped = most.min(*left);
                *left -= skipped;
                self.offset += skipped;
                skipped
            }
            _ => 0,
        }
    }

    /// Checks that the medium is complete: to be called when no more bytes come.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotMtf`] for what is no beginning of a backup, [`Error::Truncated`], or the error of an earlier call.
    pub fn finish(&self) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.is_complete() || (self.sequence == Sequence::Complete && self.state == State::SetEnd) {
            return Ok(());
        }
        // Too short for a header, it may still show that it is no backup.
        let (tape, pending) = (BlockId::Tape.tag().0, if self.given { &[][..] } else { &self.carry[..] });
        if self.sequence == Sequence::Start && !tape.iter().zip(pending).all(|(expected, found)| expected == found) {
            let mut found = Tag([0; 4]);
            found.0.iter_mut().zip(pending).for_each(|(to, from)| *to = *from);
            return Err(foreign(pending, found));
        }
        let inside = match self.state {
            State::Header if self.offset == 0 => return Err(Error::Empty),
            State::Header if self.pending() == 0 => "a backup set, between two blocks",
            State::Header => "a block header",
            State::StreamHeader => "a stream header",
            State::Data(..) => "the data of a stream",
            State::Gap(_) => "the padding of a stream",
            State::BlockEnd => "a block",
            State::SetEnd => "a backup set",
        };
        Err(Error::Truncated { offset: self.offset, inside })
    }

    /// Bytes in the carry that no event has given out.
    fn pending(&self) -> usize {
        if self.given { 0 } else { self.carry.len() }
    }

    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Step<'i>>, Error> {
        loop {
            match self.state {
                State::Header => return self.header(input),
                State::StreamHeader => {
                    let offset = self.offset - self.pending() as u64;
                    let bytes = match self.collect(input, stream::HEADER_LEN) {
                        None => return Ok(None),
                        Some(bytes) => bytes.unwrap_or(&self.carry),
                    };
                    let header = StreamHeader::decode(bytes, offset)?;
                    self.carry.clear();
                    // No sum of an offset and a length overflows from here on.
                    if header.len > i64::MAX as u64 - self.offset {
                        let (least, most) = (0, i64::MAX as u64 - self.offset);
                        return Err(Error::Range {
                            offset,
                            field: "length of the stream",
                            least,
                            most,
                            found: header.len,
                        });
                    }
                    self.state = State::Data(header.id(), header.len);
                    return Ok(Some(Step::Other(Event::Stream(Stream { offset, header }))));
                }
                State::Data(StreamId::PAD, 0) => {
                    self.state = State::BlockEnd;
                    return Ok(Some(Step::Other(Event::StreamEnd(StreamId::PAD))));
                }
                State::Data(id, 0) => self.state = State::Gap(id),
                State::Data(id, left) => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if len == 0 {
                        return Ok(None);
                    }
                    self.state = State::Data(id, left - len as u64);
                    return Ok(Some(Step::Other(Event::Data(self.take(input, len)))));
                }
                State::Gap(id) if self.offset.is_multiple_of(4) => {
                    self.state = State::StreamHeader;
                    return Ok(Some(Step::Other(Event::StreamEnd(id))));
                }
                State::Gap(_) => match input.first() {
                    None => return Ok(None),
                    Some(0) => {
                        self.take(input, 1);
                    }
                    Some(&found) => return Err(Error::Padding { offset: self.offset, found }),
                },
                State::BlockEnd => {
                    let complete = self.sequence == Sequence::Complete;
                    self.state = if complete { State::SetEnd } else { State::Header };
                    return Ok(Some(Step::Other(Event::BlockEnd(self.block))));
                }
                State::SetEnd => {
                    self.state = State::Header;
                    return Ok(Some(Step::Other(Event::SetEnd)));
                }
            }
        }
    }

    fn take<'i>(&mut self, input: &mut &'i [u8], len: usize) -> &'i [u8] {
        let (taken, rest) = input.split_at(len);
        *input = rest;
        self.offset += len as u64;
        taken
    }

    /// `len` bytes: from the input if it has them all, else `Some(None)` when they are in the carry. `None`: not there yet.
    fn collect<'i>(&mut self, input: &mut &'i [u8], len: usize) -> Option<Option<&'i [u8]>> {
        if self.carry.is_empty() && input.len() >= len {
            return Some(Some(self.take(input, len)));
        }
        let missing = len.saturating_sub(self.carry.len()).min(input.len());
        let taken = self.take(input, missing);
        self.carry.extend_from_slice(taken);
        (self.carry.len() >= len).then_some(None)
    }

    /// Collects a block up to its first stream.
    fn header<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Step<'i>>, Error> {
        let offset = self.offset - self.carry.len() as u64;
        // The length is in the header, so the header is looked at first, where it is.
        let header = if self.carry.is_empty() && input.len() >= block::HEADER_LEN {
            self.validate(&input[..block::HEADER_LEN], offset)?
        } else {
            if self.collect(input, block::HEADER_LEN).is_none() {
                return Ok(None);
            }
            self.validate(&self.carry[..block::HEADER_LEN], offset)?
        };
        let (id, sequence, len) = header;
        let Some(bytes) = self.collect(input, len) else { return Ok(None) };
        self.given = bytes.is_none();
        let whole = bytes.unwrap_or(&self.carry);
        if id == BlockId::Tape {
            (self.filemark_len, self.logical_len) = Tape::lengths(whole, offset)?;
        }
        self.block = id;
        self.sequence = sequence;
        if id == BlockId::SetStart {
            (self.set_offset, self.next_id) = (offset, 0);
        }
        if id.is_addressed() {
            self.next_id = self.next_id.wrapping_add(1);
        }
        self.state = if id == BlockId::Filemark { State::BlockEnd } else { State::StreamHeader };
        Ok(Some(Step::Block(id, offset, bytes)))
    }

    /// Validates a header in its place. Returns the kind, the state after it, and the length up to the first stream.
    fn validate(&self, bytes: &[u8], offset: u64) -> Result<(BlockId, Sequence, usize), Error> {
        let tag = get::<Tag>(bytes, 0).unwrap_or_default();
        if self.sequence == Sequence::Start && tag != BlockId::Tape.tag() {
            return Err(foreign(bytes, tag));
        }
        let header = BlockHeader::decode(bytes, offset)?;
        let Some(id) = BlockId::from_tag(tag) else {
            if tag.0 == *b"EOTM" {
                return Err(Error::Continued { offset, what: tag });
            }
            return Err(Error::UnknownBlock { offset, found: tag });
        };
        let sequence = self.sequence.next(id, offset)?;
        if header.attributes & (attributes::CONTINUATION | attributes::END_AT_END_OF_MEDIUM) != 0 {
            return Err(Error::Continued { offset, what: tag });
        }
        if id == BlockId::SetStart && header.attributes & attributes::ENCRYPTION != 0 {
            return Err(Error::Encrypted { offset, what: tag });
        }
        if header.attributes & attributes::COMPRESSION != 0 {
            return Err(Error::Compressed { offset, what: tag });
        }
        let field = |field, expected: u64, found: u64| {
            if expected == found { Ok(()) } else { Err(Error::Field { offset, field, expected, found }) }
        };
        let set_offset = if id == BlockId::SetStart { offset } else { self.set_offset };
        let (address, number) = match id.is_addressed() {
            true if !(offset - set_offset).is_multiple_of(self.logical_len) => {
                let (expected, found) = (0, (offset - set_offset) % self.logical_len);
                return Err(Error::Field { offset, field: "bytes of the set beyond a logical block", expected, found });
            }
            true => ((offset - set_offset) / self.logical_len, if id == BlockId::SetStart { 0 } else { self.next_id }),
            false => (0, 0),
        };
        field("logical address of the block", address, header.logical_address)?;
        field("control block id", u64::from(number), u64::from(header.control_block_id))?;
        if id == BlockId::Filemark {
            // A length of 65,536 does not fit into the field.
            field("length of the filemark", u64::from(self.filemark_len & 0xFFFF), u64::from(header.first_stream))?;
            return Ok((id, sequence, self.filemark_len as usize));
        }
        let (found, least) = (u64::from(header.first_stream), block::HEADER_LEN as u64);
        if found < least || !found.is_multiple_of(4) {
            let (field, most) = ("offset of the first stream", u64::from(u16::MAX - 3));
            return Err(Error::Range { offset, field, least, most, found });
        }
        Ok((id, sequence, usize::from(header.first_stream)))
    }
}

/// Names what an input is that does not begin with TAPE.
fn foreign(bytes: &[u8], tag: Tag) -> Error {
    if bytes.starts_with(b"MSSQLBAK") {
        let number = |at| get::<u32>(bytes, at).unwrap_or(0);
        return Error::CompressedContainer { version: number(8), algorithm: number(12) };
    }
    Error::NotMtf { found: tag }
}

const _: () = assert!(MAX_FILEMARK_LEN == 65536);
