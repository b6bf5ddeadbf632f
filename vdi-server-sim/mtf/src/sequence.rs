//! The order of the blocks on a medium, which reader and writer share.
//!
//! `TAPE SFMB`, then for each set `SSET VOLB MSCI MSDA* MSTL* MSLS SFMB ESET ESET SFMB`.
//! (Observed in backups of SQL Server 2005 to 2022.)

use crate::block::BlockId;
use crate::error::Error;

/// What stands before the next block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    Start,
    Tape,
    LabelMark,
    SetStart,
    Volume,
    Configuration,
    Data,
    Log,
    Summary,
    DataMark,
    FirstEnd,
    SecondEnd,
    /// A set is complete: another may follow, or the medium ends.
    Complete,
}

impl Sequence {
    /// What may come next, for errors.
    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Sequence::Start => "TAPE",
            Sequence::Tape | Sequence::Summary | Sequence::SecondEnd => "SFMB",
            Sequence::LabelMark => "SSET",
            Sequence::SetStart => "VOLB",
            Sequence::Volume => "MSCI",
            Sequence::Configuration | Sequence::Data => "MSDA, MSTL or MSLS",
            Sequence::Log => "MSTL or MSLS",
            Sequence::DataMark | Sequence::FirstEnd => "ESET",
            Sequence::Complete => "SSET, or the end",
        }
    }

    /// The state after a block `id`.
    pub(crate) fn next(self, id: BlockId, offset: u64) -> Result<Self, Error> {
        use BlockId as B;
        Ok(match (self, id) {
            (Sequence::Start, B::Tape) => Sequence::Tape,
            (Sequence::Tape, B::Filemark) => Sequence::LabelMark,
            (Sequence::LabelMark | Sequence::Complete, B::SetStart) => Sequence::SetStart,
            (Sequence::SetStart, B::Volume) => Sequence::Volume,
            (Sequence::Volume, B::Configuration) => Sequence::Configuration,
            (Sequence::Configuration | Sequence::Data, B::Data) => Sequence::Data,
            (Sequence::Configuration | Sequence::Data | Sequence::Log, B::Log) => Sequence::Log,
            (Sequence::Configuration | Sequence::Data | Sequence::Log, B::Summary) => Sequence::Summary,
            (Sequence::Summary, B::Filemark) => Sequence::DataMark,
            (Sequence::DataMark, B::SetEnd) => Sequence::FirstEnd,
            (Sequence::FirstEnd, B::SetEnd) => Sequence::SecondEnd,
            (Sequence::SecondEnd, B::Filemark) => Sequence::Complete,
            _ => return Err(Error::UnexpectedBlock { offset, expected: self.expected(), found: id }),
        })
    }
}
