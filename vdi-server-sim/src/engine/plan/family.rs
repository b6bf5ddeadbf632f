//! The stream of one family, part after part.

use std::ops::Range;

use vdi_mtf::Error;
use vdi_mtf::builder::Builder;
use vdi_mtf::sqlserver::config::Config;
use vdi_mtf::value::FileId;

use super::Plan;

/// What comes next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A filemark of a tape stands here.
    Mark,
    /// The pages of the family: [`Dealing::stream_len`](super::Dealing::stream_len) bytes.
    /// [`FamilyStream::pages`] is to be told of them.
    Pages,
    /// These bytes of a log file. [`FamilyStream::log`] is to be told of them.
    Log { file: FileId, bytes: Range<u64> },
    /// The configuration at the end is wanted: see [`FamilyStream::end`].
    Summary,
    /// Nothing.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Label,
    LabelMark,
    /// The start of the set, up to the pages.
    Headers,
    Pages,
    AfterPages,
    /// The block of the virtual log file.
    Log(usize),
    /// Its bytes.
    LogBytes(usize),
    /// The end of its block.
    LogEnd(usize),
    Summary,
    SummaryMark,
    SetMap,
    LastMark,
    End,
}

/// The stream of one family.
#[derive(Debug, Clone)]
pub(in crate::engine) struct FamilyStream {
    builder: Builder,
    /// Counted from 0.
    pub(in crate::engine) family: u32,
    /// The log is in this family.
    has_log: bool,
    step: Step,
    /// Bytes that belong behind the next mark.
    rest: Vec<u8>,
}

impl FamilyStream {
    pub(super) fn new(builder: Builder, family: u32, has_log: bool) -> FamilyStream {
        FamilyStream { builder, family, has_log, step: Step::Label, rest: Vec::new() }
    }

    /// The next part. Parts of bytes follow each other; they end at a multiple of BLOCKSIZE where the stream is cut: see [`Cuts`](super::Cuts).
    pub(in crate::engine) fn next(&mut self, plan: &Plan) -> Result<Part, Error> {
        loop {
            let mut out = Vec::new();
            let (step, part) = match self.step {
                Step::Label => {
                    out = self.label(plan.start.software_major)?;
                    (Step::LabelMark, Part::Bytes(out))
                }
                Step::LabelMark => (Step::Headers, Part::Mark),
                Step::Headers => {
                    self.builder.begin_set(plan.start.clone(), plan.volume.clone(), &plan.leading, &mut out)?;
                    if plan.has_content() {
                        self.builder.begin_data(plan.dealing.stream_len(), plan.checksum, &mut out)?;
                        (Step::Pages, Part::Bytes(out))
                    } else {
                        (Step::Log(0), Part::Bytes(out))
                    }
                }
                Step::Pages => (Step::AfterPages, Part::Pages),
                Step::AfterPages => {
                    self.builder.end_data(&mut out)?;
                    (Step::Log(0), Part::Bytes(out))
                }
                Step::Log(at) => match plan.log.get(at) {
                    Some(vlf) => {
                        self.builder.begin_log(vlf, self.has_log, plan.checksum, &mut out)?;
                        (Step::LogBytes(at), Part::Bytes(out))
                    }
                    None => (Step::Summary, Part::Summary),
                },
                Step::LogBytes(at) => match plan.log.get(at).filter(|vlf| self.has_log && vlf.range_len() > 0) {
                    Some(vlf) => (Step::LogEnd(at), Part::Log { file: vlf.file_id, bytes: vlf.start..vlf.end }),
                    None => (Step::LogEnd(at), Part::Bytes(Vec::new())),
                },
                Step::LogEnd(at) => {
                    self.builder.end_log(&mut out)?;
                    (Step::Log(at + 1), Part::Bytes(out))
                }
                // `end` was not called.
                Step::Summary => return Ok(Part::Summary),
                Step::SummaryMark => (Step::SetMap, Part::Mark),
                Step::SetMap => (Step::LastMark, Part::Bytes(std::mem::take(&mut self.rest))),
                Step::LastMark => (Step::End, Part::Mark),
                Step::End => return Ok(Part::End),
            };
            self.step = step;
            if part != Part::Bytes(Vec::new()) {
                return Ok(part);
            }
        }
    }

    /// The bytes of the label, which need no plan, but the version of the server that made the database; none for an appended set. The
    /// stream goes on behind the mark that follows.
    pub(in crate::engine) fn label(&mut self, software_major: u8) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        if self.step == Step::Label {
            if self.builder.position() == 0 {
                self.builder.begin_medium(software_major, &mut out)?;
            }
            self.step = Step::Headers;
        }
        Ok(out)
    }

    /// The next `len` bytes of pages are written; their sum counts WITH CHECKSUM only.
    pub(in crate::engine) fn pages(&mut self, len: u64, sum: u32) -> Result<(), Error> {
        self.builder.summed(len, sum)
    }

    /// The next bytes of log are written.
    pub(in crate::engine) fn log(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.builder.bytes(bytes)
    }

    /// The answer to [`Part::Summary`]: the bytes up to the next mark.
    pub(in crate::engine) fn end(&mut self, trailing: &Config) -> Result<Vec<u8>, Error> {
        let (mut out, before) = (Vec::new(), self.builder.position());
        self.builder.end_set(trailing, &mut out)?;
        let marks = self.builder.filemarks().len();
        // Behind the last but one.
        let mark = marks.checked_sub(2).and_then(|at| self.builder.filemarks().get(at)).copied().unwrap_or(before);
        self.rest = out.split_off((mark - before) as usize + self.builder.label().filemark_len() as usize);
        self.step = Step::SummaryMark;
        Ok(out)
    }

    /// Where the next byte is on the medium.
    #[cfg(test)]
    pub(in crate::engine) fn position(&self) -> u64 {
        self.builder.position()
    }

    /// The BackupSize of the family: what its builder counts up to the end of the log.
    pub(super) fn size(&self, plan: &Plan) -> Result<u64, Error> {
        let mut dry = self.clone();
        loop {
            match dry.next(plan)? {
                Part::Pages => dry.pages(plan.dealing.stream_len(), 0)?,
                Part::Log { bytes, .. } => dry.builder.summed(bytes.end - bytes.start, 0)?,
                Part::Summary | Part::End => return Ok(dry.builder.size()),
                Part::Bytes(_) | Part::Mark => {}
            }
        }
    }
}
