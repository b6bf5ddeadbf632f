//! The parser of a medium on a device, which may have the list of a snapshot behind its label: see [`super::snapshot_sums`].

use vdi_mtf::Error;
use vdi_mtf::block::BlockId;
use vdi_mtf::parser::{Event, Parser};
use vdi_mtf::stream::StreamId;

use super::snapshot_sums::{ListSkipper, Skipped};

/// Reads the bytes of a medium. What a client has stored between label and backup set is skipped.
#[derive(Debug)]
pub(super) struct MediumParser {
    parser: Parser,
    list: FileList,
}

#[derive(Debug)]
enum FileList {
    /// The label goes on.
    Before,
    /// Behind the label.
    Skipping(ListSkipper),
    Behind,
}

impl MediumParser {
    /// A parser at the start of a medium.
    pub(super) fn new() -> MediumParser {
        MediumParser { parser: Parser::new(), list: FileList::Before }
    }

    /// As [`Parser::next`].
    pub(super) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Event<'s>>, Error> {
        if let FileList::Skipping(skipper) = &mut self.list {
            match skipper.skip(input) {
                Skipped::More => return Ok(None),
                // What is no list is no block either.
                Skipped::Done | Skipped::TooLong => self.list = FileList::Behind,
            }
        }
        let event = self.parser.next(input)?;
        if matches!((&self.list, &event), (FileList::Before, Some(Event::BlockEnd(BlockId::Filemark)))) {
            self.list = FileList::Skipping(ListSkipper::new());
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

/// Where reading a medium ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Behind the label.
    Label,
    /// Behind the leading configuration of the set at this position, from 1.
    Configuration(u32),
    /// Behind the set at this position.
    Set(u32),
    /// Behind the last set.
    Medium {
        /// Whether the device says where its data ends. Else the medium ends with the set that nothing follows in the bytes at hand,
        /// since a client may give anything behind the end of its backup.
        ends_itself: bool,
    },
}

/// Follows events up to where reading ends.
#[derive(Debug)]
pub(super) struct Progression {
    until: Until,
    sets: u32,
    block: BlockId,
}

impl Progression {
    /// At the start of a medium.
    pub(super) fn new(until: Until) -> Progression {
        Progression { until, sets: 0, block: BlockId::Tape }
    }

    /// Whether reading ends with this event.
    pub(super) fn ends_with(&mut self, event: &Event<'_>) -> bool {
        match (event, self.until) {
            (Event::Block(block), _) => {
                self.block = block.id;
                self.sets += u32::from(block.id == BlockId::SetStart);
                false
            }
            (Event::BlockEnd(BlockId::Tape), Until::Label) => true,
            (Event::StreamEnd(StreamId::CONFIGURATION), Until::Configuration(set)) => {
                self.sets == set && self.block == BlockId::Configuration
            }
            (Event::SetEnd, Until::Set(set)) => self.sets == set,
            _ => false,
        }
    }

    /// Whether reading ends where the bytes at hand do.
    pub(super) fn ends_here(&self, parser: &MediumParser) -> bool {
        self.until == Until::Medium { ends_itself: false } && parser.is_complete()
    }
}

/// Finds out whether a medium has to be read further, before its bytes are worked on. It looks at nothing else.
#[derive(Debug)]
pub(super) struct Scout {
    parser: MediumParser,
    progression: Progression,
    ended: bool,
}

impl Scout {
    /// At the start of a medium.
    pub(super) fn new(until: Until) -> Scout {
        Scout { parser: MediumParser::new(), progression: Progression::new(until), ended: false }
    }

    /// Whether the last set may have ended with the last bytes.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.progression.until, Until::Medium { .. }) && self.parser.is_complete()
    }

    /// Whether reading goes on behind these bytes, the next of the medium.
    pub(super) fn needs_more(&mut self, mut bytes: &[u8]) -> bool {
        while !self.ended {
            match self.parser.next(&mut bytes) {
                Ok(None) => {
                    self.ended = self.progression.ends_here(&self.parser);
                    return !self.ended;
                }
                Ok(Some(event)) => self.ended = self.progression.ends_with(&event),
                // The other parser will say so, too.
                Err(_) => self.ended = true,
            }
        }
        false
    }
}
