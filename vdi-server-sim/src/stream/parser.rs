//! Reading one device's stream, however it is cut into pieces.

use std::ops::Range;
use std::sync::Arc;

use crc32fast::Hasher;

use super::snapshot::check_file_info;
use super::{Catalog, HEADER_BYTES, Identity, SegmentHeader, SegmentKind, Snapshot, StreamError, Totals};

/// What a RESTORE knows beforehand about the streams of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectations {
    /// The RESTORE's BLOCKSIZE, which must be the BACKUP's.
    pub block_size: u32,
    /// How many devices the RESTORE names, if that is to be the number of families.
    pub family_count: Option<u32>,
}

/// What is to be done with bytes of a device, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The catalog is complete. This comes before all data.
    Catalog(Arc<Catalog>),
    /// Bytes of a file. They lie within the file's length by the catalog, but are not verified yet.
    Data {
        /// The file's place in the catalog.
        file_index: usize,
        /// Where in the file they belong.
        file_offset: u64,
        /// Which bytes of the slice that was given to [`StreamParser::push`]; never empty.
        range: Range<usize>,
    },
    /// All bytes of a Data segment have come, and match its checksum if it has one.
    DataEnd {
        /// The file's place in the catalog.
        file_index: usize,
        /// Where in the file the segment's bytes begin.
        file_offset: u64,
        /// How many they are.
        length: u64,
    },
    /// The stream has ended, and its totals are right.
    End(Totals),
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    /// The header, of which so many bytes have been collected.
    Header(usize),
    /// The zeros of the header block behind the header: so many to come.
    HeaderRest { header: SegmentHeader, left: u32 },
    /// The payload: so many bytes to come.
    Payload { header: SegmentHeader, left: u32, hasher: Hasher },
    /// The zeros behind the payload: so many to come.
    Padding { header: SegmentHeader, left: u32 },
    /// Nothing: the End segment is complete.
    Finished,
}

/// What a stream is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Data,
    Snapshot,
}

/// A list that comes in parts: the catalog, the file info, or the snapshot.
#[derive(Debug)]
struct List {
    /// The code of its segments' kind.
    code: u16,
    /// Its length, as its first segment tells it.
    total: u64,
    bytes: Vec<u8>,
}

/// Takes one device's bytes in pieces of any length and says what to do with them, without copying any of the files' bytes.
///
/// It verifies all that one device can tell alone: headers, their sequence, that all segments are of one backup and device, the
/// block size, the catalog, checksums, padding, that data lies within the files, and the totals.
#[derive(Debug)]
pub struct StreamParser {
    expectations: Expectations,
    state: State,
    head: [u8; HEADER_BYTES],
    /// Bytes taken, trailing ones not included.
    offset: u64,
    /// Where the present segment begins.
    segment_at: u64,
    trailing: u64,
    identity: Option<Identity>,
    content: Content,
    /// The list that is not complete yet.
    list: Option<List>,
    catalog: Option<Arc<Catalog>>,
    /// The file info was there.
    file_info: bool,
    snapshot: Option<Arc<Snapshot>>,
    totals: Totals,
    failed: Option<StreamError>,
}

impl StreamParser {
    /// A parser at the beginning of a device's stream, which holds the database's data: a snapshot is refused
    /// ([`StreamError::IsSnapshot`]), so nobody takes it for a database without bytes.
    #[must_use]
    pub fn new(expectations: Expectations) -> Self {
        Self::with_content(expectations, Content::Data)
    }

    /// A parser at the beginning of a device's stream, which is a snapshot: one with data is refused
    /// ([`StreamError::IsNoSnapshot`]). It gives no [`Action::Data`]; what it found is [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn for_snapshot(expectations: Expectations) -> Self {
        Self::with_content(expectations, Content::Snapshot)
    }

    fn with_content(expectations: Expectations, content: Content) -> Self {
        Self {
            expectations,
            state: State::Header(0),
            head: [0; HEADER_BYTES],
            offset: 0,
            segment_at: 0,
            trailing: 0,
            identity: None,
            content,
            list: None,
            catalog: None,
            file_info: false,
            snapshot: None,
            totals: Totals::default(),
            failed: None,
        }
    }

    /// Takes the next bytes of the device and appends to `actions` what is to be done; ranges in there are ranges of `input`.
    /// Bytes behind the End segment are counted, see [`trailing`](Self::trailing), and otherwise ignored.
    ///
    /// # Errors
    /// [`StreamError`] for the first thing that is wrong. `actions` then has what came before. The parser does not go on after an
    /// error: each further call gives the same one.
    pub fn push(&mut self, input: &[u8], actions: &mut Vec<Action>) -> Result<(), StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.take(input, actions);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Whether the End segment is complete: nothing more is to be read from the device.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// Says that the device has no more bytes.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] if the End segment has not come, or the error that [`push`](Self::push) gave.
    pub fn finish(&self) -> Result<Totals, StreamError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.is_finished() => Ok(self.totals),
            None => Err(StreamError::Truncated { offset: self.offset }),
        }
    }

    /// Whose stream it is, once the first header has come.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// What the stream says of the frozen files, once its Snapshot segments have come; it has a checksum, or none, for each
    /// file of the catalog. It is all there when the parser [is finished](Self::is_finished).
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Bytes of the stream so far, those behind its end not included.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that came behind the End segment.
    #[must_use]
    pub fn trailing(&self) -> u64 {
        self.trailing
    }

    fn take(&mut self, input: &[u8], actions: &mut Vec<Action>) -> Result<(), StreamError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if let State::Finished = self.state {
                self.trailing = self.trailing.saturating_add(rest.len() as u64);
                return Ok(());
            }
            if rest.is_empty() {
                return Ok(());
            }
            let taken = match &mut self.state {
                State::Finished => 0,
                State::Header(have) => {
                    let count = rest.len().min(HEADER_BYTES - *have);
                    self.head[*have..*have + count].copy_from_slice(&rest[..count]);
                    *have += count;
                    if *have == HEADER_BYTES {
                        let header = self.header()?;
                        let left = header.block_size - HEADER_BYTES as u32;
                        self.state = State::HeaderRest { header, left };
                    }
                    count
                }
                State::HeaderRest { header, left } | State::Padding { header, left } => {
                    let count = rest.len().min(*left as usize);
                    if let Some(at) = rest[..count].iter().position(|byte| *byte != 0) {
                        let offset = self.offset.saturating_add(at as u64);
                        return Err(StreamError::Padding { offset, sequence: header.sequence });
                    }
                    *left -= count as u32;
                    count
                }
                State::Payload { header, left, hasher } => {
                    let count = rest.len().min(*left as usize);
                    let bytes = &rest[..count];
                    if header.checksum.is_some() {
                        hasher.update(bytes);
                    }
                    match header.kind {
                        SegmentKind::Data { file_index, file_offset } => actions.push(Action::Data {
                            file_index: file_index as usize,
                            file_offset: file_offset + u64::from(header.payload_len - *left),
                            range: at..at + count,
                        }),
                        _ => {
                            if let Some(list) = &mut self.list {
                                list.bytes.extend_from_slice(bytes);
                            }
                        }
                    }
                    *left -= count as u32;
                    count
                }
            };
            at += taken;
            self.offset = self.offset.saturating_add(taken as u64);
            self.advance(actions)?;
        }
    }

    /// Goes on to the next state as long as the present one needs no more bytes.
    fn advance(&mut self, actions: &mut Vec<Action>) -> Result<(), StreamError> {
        loop {
            self.state = match &self.state {
                State::HeaderRest { header, left: 0 } => {
                    State::Payload { header: *header, left: header.payload_len, hasher: Hasher::new() }
                }
                State::Payload { header, left: 0, hasher } => {
                    let (header, found) = (*header, hasher.clone().finalize());
                    if let Some(expected) = header.checksum.filter(|expected| *expected != found) {
                        let (offset, sequence) = (self.offset, header.sequence);
                        return Err(StreamError::Payload { offset, sequence, expected, found });
                    }
                    State::Padding { header, left: header.padded_len() - header.payload_len }
                }
                State::Padding { header, left: 0 } => {
                    let header = *header;
                    self.segment_done(&header, actions)?;
                    match header.kind {
                        SegmentKind::End { .. } => State::Finished,
                        _ => State::Header(0),
                    }
                }
                _ => return Ok(()),
            };
        }
    }

    /// Reads the collected header and checks it against all that came before.
    fn header(&mut self) -> Result<SegmentHeader, StreamError> {
        let offset = self.segment_at;
        let header = SegmentHeader::decode(&self.head).map_err(|source| StreamError::Header { offset, source })?;
        let Expectations { block_size, family_count } = self.expectations;
        if header.block_size != block_size {
            return Err(StreamError::BlockSize { offset, expected: block_size, found: header.block_size });
        }
        let found = header.identity;
        if let Some(expected) = family_count.filter(|expected| *expected != found.family_count) {
            return Err(StreamError::FamilyCount { offset, expected, found: found.family_count });
        }
        let expected = *self.identity.get_or_insert(found);
        if expected != found {
            return Err(StreamError::Identity { offset, expected, found });
        }
        if header.sequence != self.totals.segments {
            return Err(StreamError::Sequence { offset, expected: self.totals.segments, found: header.sequence });
        }
        self.check_place(&header, offset)?;
        if let Some((_, total)) = part_of(header.kind) {
            self.list.get_or_insert_with(|| List { code: header.kind.code(), total, bytes: Vec::new() });
        }
        Ok(header)
    }

    /// Whether a segment of this kind may come here.
    fn check_place(&self, header: &SegmentHeader, offset: u64) -> Result<(), StreamError> {
        let misfit = |field, expected, found| Err(StreamError::Misfit { offset, field, expected, found });
        let code = header.kind.code();
        if let Some(List { code: open, .. }) = self.list.as_ref().filter(|list| list.code != code) {
            return misfit("its kind", u64::from(*open), u64::from(code));
        }
        if let Some((part, total)) = part_of(header.kind) {
            let (have, told) = self.list.as_ref().map_or((0, total), |list| (list.bytes.len() as u64, list.total));
            if part != have {
                return misfit("the offset of the part", have, part);
            }
            if total != told {
                return misfit("the length of the whole", told, total);
            }
        }
        self.check_content(header.kind, offset)?;
        match (header.kind, &self.catalog) {
            (SegmentKind::Catalog { .. }, None) => Ok(()),
            (SegmentKind::Catalog { .. }, Some(_)) => misfit("the number of catalogs before it", 0, 1),
            (SegmentKind::FileInfo { .. } | SegmentKind::Snapshot { .. }, Some(_)) => Ok(()),
            (_, None) => misfit("the length of the catalog before it", 1, 0),
            (SegmentKind::Data { file_index, file_offset }, Some(catalog)) => {
                let Some(file) = catalog.files().get(file_index as usize) else {
                    return misfit(
                        "the number of the file",
                        (catalog.files().len() as u64).saturating_sub(1),
                        u64::from(file_index),
                    );
                };
                let end = file_offset.saturating_add(u64::from(header.payload_len));
                if end > file.size { misfit("the piece's end in its file", file.size, end) } else { Ok(()) }
            }
            (SegmentKind::End { segments, data_bytes }, Some(_)) => {
                let counted = self.totals.segments.saturating_add(1);
                if segments != counted {
                    misfit("the total of segments", counted, segments)
                } else if data_bytes != self.totals.data_bytes {
                    misfit("the total of data bytes", self.totals.data_bytes, data_bytes)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Whether a segment of this kind goes with what the stream is to be, and with what came before.
    fn check_content(&self, kind: SegmentKind, offset: u64) -> Result<(), StreamError> {
        let misfit = |expected, found| Err(StreamError::Misfit { offset, field: "its kind", expected, found });
        let found = u64::from(kind.code());
        let (has_data, has_snapshot) = (self.totals.data_bytes > 0, self.snapshot.is_some());
        match (self.content, kind) {
            // Where the catalog may stand is another question.
            (_, SegmentKind::Catalog { .. }) => Ok(()),
            (Content::Data, SegmentKind::Data { .. } | SegmentKind::End { .. }) => Ok(()),
            (Content::Data, _) if has_data => misfit(2, found),
            (Content::Data, _) => Err(StreamError::IsSnapshot { offset }),
            (Content::Snapshot, SegmentKind::Data { .. } | SegmentKind::End { .. }) if !has_snapshot => {
                if self.file_info { misfit(5, found) } else { Err(StreamError::IsNoSnapshot { offset }) }
            }
            (Content::Snapshot, SegmentKind::End { .. }) => Ok(()),
            // The snapshot is complete, so the end has to follow.
            (Content::Snapshot, _) if has_snapshot => misfit(3, found),
            (Content::Snapshot, SegmentKind::FileInfo { .. }) if self.file_info => misfit(5, found),
            (Content::Snapshot, _) => Ok(()),
        }
    }

    /// A segment is complete, padding and all.
    fn segment_done(&mut self, header: &SegmentHeader, actions: &mut Vec<Action>) -> Result<(), StreamError> {
        self.totals.segments = self.totals.segments.saturating_add(1);
        self.segment_at = self.offset;
        let length = u64::from(header.payload_len);
        match header.kind {
            SegmentKind::Data { file_index, file_offset } => {
                self.totals.data_bytes = self.totals.data_bytes.saturating_add(length);
                actions.push(Action::DataEnd { file_index: file_index as usize, file_offset, length });
            }
            SegmentKind::End { .. } => actions.push(Action::End(self.totals)),
            _ => {
                if let Some(list) = self.list.take_if(|list| list.bytes.len() as u64 >= list.total) {
                    self.list_done(header.kind, &list.bytes, actions)?;
                }
            }
        }
        Ok(())
    }

    /// A list is complete: reads it.
    fn list_done(&mut self, kind: SegmentKind, bytes: &[u8], actions: &mut Vec<Action>) -> Result<(), StreamError> {
        let offset = self.offset;
        let files = self.catalog.as_ref().map_or(0, |catalog| catalog.files().len());
        match kind {
            SegmentKind::Catalog { .. } => {
                let catalog = Catalog::decode(bytes).map_err(|source| StreamError::Catalog { offset, source })?;
                let catalog = Arc::new(catalog);
                self.catalog = Some(Arc::clone(&catalog));
                actions.push(Action::Catalog(catalog));
            }
            SegmentKind::FileInfo { .. } => {
                check_file_info(bytes, files).map_err(|source| StreamError::Snapshot { offset, source })?;
                self.file_info = true;
            }
            SegmentKind::Snapshot { .. } => {
                let snapshot =
                    Snapshot::decode(bytes, files).map_err(|source| StreamError::Snapshot { offset, source })?;
                self.snapshot = Some(Arc::new(snapshot));
            }
            SegmentKind::Data { .. } | SegmentKind::End { .. } => {}
        }
        Ok(())
    }
}

/// Offset and length of the whole, for a segment that is a part of a list.
fn part_of(kind: SegmentKind) -> Option<(u64, u64)> {
    match kind {
        SegmentKind::Catalog { offset, total }
        | SegmentKind::FileInfo { offset, total }
        | SegmentKind::Snapshot { offset, total } => Some((offset, total)),
        SegmentKind::Data { .. } | SegmentKind::End { .. } => None,
    }
}
