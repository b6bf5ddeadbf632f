//! The parser of a medium on a device, which may have the list of a snapshot behind its label: see [`super::snapshot_sums`].

use vdi_mtf::Error;
use vdi_mtf::block::BlockId;
use vdi_mtf::parser::{Event, Parser};

use super::snapshot_sums::{ListSkipper, Skipped};

/// Reads the bytes of a medium. What a client has stored between label and backup set is skipped.
#[derive(Debug)]
pub(super) struct MediumParser {
    parser: Parser,
    list: List,
}

#[derive(Debug)]
enum List {
    /// The label goes on. Where it has come, the length of a filemark, which is that of a block.
    Before {
        block_size: u32,
    },
    /// Behind the label.
    Skipping(ListSkipper),
    Behind,
}

impl MediumParser {
    /// A parser at the start of a medium.
    pub(super) fn new() -> MediumParser {
        MediumParser { parser: Parser::new(), list: List::Before { block_size: 512 } }
    }

    /// As [`Parser::next`].
    pub(super) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, Error> {
        if let List::Skipping(skipper) = &mut self.list {
            match skipper.skip(input) {
                Skipped::More => return Ok(None),
                // What is no list is no block either.
                Skipped::Done | Skipped::TooLong => self.list = List::Behind,
            }
        }
        let event = self.parser.next(input)?;
        if let List::Before { block_size } = &mut self.list {
            match &event {
                Some(Event::Block(block)) if block.id == BlockId::Filemark => *block_size = block.bytes.len() as u32,
                Some(Event::BlockEnd(BlockId::Filemark)) => {
                    self.list = List::Skipping(ListSkipper::new((*block_size).max(1)))
                }
                _ => {}
            }
        }
        Ok(event)
    }

    /// As [`Parser::finish`].
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.parser.finish()
    }

    /// As [`Parser::is_complete`].
    pub(super) fn is_complete(&self) -> bool {
        self.parser.is_complete()
    }
}
