//! Lays backups out as SQL Server does: addresses, alignment, filemarks, set map, checksums.
//!
//! The builder makes all bytes but pages and log. It does not take them: the caller sends them between two calls, from where they are,
//! and shows them to the builder, which counts them and computes the backup checksum. Their lengths have to be known before, since they
//! stand before the data.
//!
//! | alignment of | to |
//! |---|---|
//! | the first filemark | a multiple of the larger of logical block and filemark (the *unit*) |
//! | blocks SSET to MSLS | logical blocks from SSET on |
//! | the filemark after MSLS | as above, then a multiple of the filemark's length from the start of the medium |
//! | pages and log | units from SSET on: the bytes after the stream header and two zero bytes |
//! | the set map's stream | units from the first ESET on |
//! | the end of both ESETs | units from the ESET on |
//!
//! (Observed in backups of SQL Server 2005 to 2022: laid out again by these rules, each gives the same bytes.)
//!
//! Each padding takes the first place that its rule allows and that leaves room for its header. [`Builder::cut_at`] makes some take a later one.

use crate::block::{BlockId, reseal};
use crate::checksum::{SECTOR_LEN, SectorSum};
use crate::error::Error;
use crate::layout::put;
use crate::media::{Filemark, MediaSet, Tape, finish};
use crate::medium::Medium;
use crate::page::{PAGE_LEN, PageHeader, page_type, protect};
use crate::set::{MapSet, MapVolume, SetEnd, SetMap, SetStart, Volume};
use crate::sqlserver::config::Config;
use crate::sqlserver::data::{DataBlock, EXTENT_LEN, PREFIX_LEN, check_len};
use crate::sqlserver::log::{MAX_RANGE, Vlf};
use crate::stream::{self, StreamHeader, StreamId, attributes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between two sets.
    Set,
    /// Data, log, or the set's end.
    Content,
    /// Bytes of pages.
    Data { left: u64 },
    /// Bytes of log, then zeros.
    Log { left: u64, zeros: u64 },
}

/// Builds one family of a backup, set after set. Calls append the builder's bytes to `out`. After an error the builder cannot be used
/// further.
///
/// ```
/// use vdi_mtf::builder::Builder;
/// use vdi_mtf::media::{MediaSet, Tape};
/// use vdi_mtf::set::{SetStart, Volume};
/// use vdi_mtf::sqlserver::config::Config;
/// use vdi_mtf::sqlserver::log::Vlf;
/// use vdi_mtf::value::{DateTime, Guid};
/// # use vdi_mtf::sqlserver::config::Database;
///
/// # fn run(config: &Config, extents: &[u8], log: &[u8], vlf: &Vlf) -> Result<Vec<u8>, vdi_mtf::Error> {
/// let date = DateTime::new(2024, 5, 31, 12, 0, 0).unwrap();
/// let mut builder = Builder::new(Tape::new(4711, 512, date), MediaSet::new(Guid([1; 16]), 1, 1));
/// let mut medium = Vec::new();
///
/// builder.begin_set(SetStart::new(1, Guid([2; 16]), date, 16), Volume::default(), config, &mut medium)?;
/// builder.begin_data(extents.len() as u64, true, &mut medium)?;
/// builder.bytes(extents)?;             // counts them and computes the checksum
/// medium.extend_from_slice(extents);   // a program sends them from where they are
/// builder.end_data(&mut medium)?;
/// builder.begin_log(vlf, true, true, &mut medium)?;
/// builder.bytes(log)?;
/// medium.extend_from_slice(log);
/// builder.end_log(&mut medium)?;
///
/// let mut trailing = config.clone();
/// trailing.database.backup_size = builder.size();
/// builder.end_set(&trailing, &mut medium)?;
/// # Ok(medium) }
/// # let config = Config { database: Database::new(16), ..Config::default() };
/// # let mut vlf = Vlf::new(16, vdi_mtf::value::FileId(2), 8192, 1 << 20);
/// # (vlf.start, vlf.end) = (8192, 8192 + 512);
/// # assert!(run(&config, &[0; 65536], &[0; 512], &vlf).unwrap().len() > 131_072);
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    tape: Tape,
    media_set: MediaSet,
    position: u64,
    phase: Phase,
    filemarks: Vec<u64>,
    map: SetMap,
    /// Of the current set.
    start: SetStart,
    volume: Volume,
    set_offset: u64,
    next_id: u32,
    /// Where the label ends, in its first set; else 0.
    label_len: u64,
    sum: Option<SectorSum>,
    cuts: Cuts,
}

/// Where a stream is cut besides the rules of the format: see [`Builder::cut_at`].
#[derive(Clone, Copy, Debug)]
struct Cuts {
    unit: u64,
    at_filemarks: bool,
}

impl Builder {
    /// A builder of a new medium.
    pub fn new(tape: Tape, media_set: MediaSet) -> Self {
        let map = SetMap { family_id: tape.family_id, sets: Vec::new() };
        Builder {
            tape,
            media_set,
            position: 0,
            phase: Phase::Set,
            filemarks: Vec::new(),
            map,
            start: SetStart::default(),
            volume: Volume::default(),
            set_offset: 0,
            next_id: 0,
            label_len: 0,
            sum: None,
            cuts: Cuts { unit: 1, at_filemarks: false },
        }
    }

    /// A builder that appends sets to a medium (NOINIT). Its bytes belong after the first [`Medium::len`] bytes of the medium.
    pub fn append(medium: &Medium) -> Self {
        let map = medium.sets.iter().rev().find(|set| set.complete).map(|set| set.map.clone());
        Builder {
            position: medium.len,
            filemarks: medium.filemarks.clone(),
            map: map.unwrap_or(SetMap { family_id: medium.label.family_id, sets: Vec::new() }),
            ..Builder::new(medium.label.clone(), medium.media_set.clone())
        }
    }

    /// The same builder for a device that takes multiples of `unit` bytes, a power of two. Pages begin at a multiple of it from the start of
    /// the medium, and each set ends at one. With `at_filemarks` the label and the summary end at one, too, each with its filemark.
    ///
    /// Padding takes the next place that the rules of the format allow. Without this it takes the first. So it does where no allowed place
    /// is such a multiple: where SSET lies at an odd sector, for example, since a filemark is shorter than a logical block.
    #[must_use]
    pub fn cut_at(mut self, unit: u64, at_filemarks: bool) -> Self {
        self.cuts = Cuts { unit: unit.max(1), at_filemarks };
        self
    }

    /// Where the next byte is on the medium.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The label of the medium.
    pub fn label(&self) -> &Tape {
        &self.tape
    }

    /// Where the filemarks so far begin on the medium.
    pub fn filemarks(&self) -> &[u64] {
        &self.filemarks
    }

    /// Begins a new medium: label and filemark, as server version `software_major` writes them. [`begin_set`](Self::begin_set) does it where
    /// it was not done.
    ///
    /// # Errors
    /// [`Error::Order`] if the medium has begun, or [`Error::Range`] for texts that do not fit.
    pub fn begin_medium(&mut self, software_major: u8, out: &mut Vec<u8>) -> Result<(), Error> {
        self.require(Phase::Set, "the label")?;
        if self.position != 0 {
            return Err(self.order("the label"));
        }
        Tape::lengths(&self.tape.encode()?, 0)?;
        self.push(self.tape.encode()?, out);
        self.stream(StreamId::MEDIA_SET, 0, &self.media_set.encode()?, out);
        let end = self.aligned(self.position + stream::HEADER_LEN as u64, 0, self.tape.unit());
        let end = self.before_filemark(end, self.tape.unit(), self.cuts.at_filemarks);
        self.pad(StreamId::PAD, 0, end, out);
        self.label_len = self.position;
        self.start.software_major = software_major;
        self.filemark(out)
    }

    /// Begins a set. On a new medium, the label comes first. [`SetStart::physical_address`] is set to the place that it has.
    ///
    /// # Errors
    /// [`Error::Order`], or [`Error::Range`] for texts that do not fit.
    pub fn begin_set(
        &mut self,
        start: SetStart,
        volume: Volume,
        leading: &Config,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.require(Phase::Set, "the start of a set")?;
        if self.position == 0 {
            self.begin_medium(start.software_major, out)?;
        } else {
            Tape::lengths(&self.tape.encode()?, 0)?;
        }
        if self.filemarks.len() != 1 {
            // Only the first set counts it.
            self.label_len = 0;
        }
        (self.start, self.volume) = (start, volume);
        self.set_offset = self.position;
        self.next_id = 0;
        self.start.physical_address = self.position;
        self.block(self.start.encode()?, out);
        self.end_block(out);
        self.block(self.volume.encode()?, out);
        self.end_block(out);
        self.configuration(BlockId::Configuration, leading, out)?;
        self.end_block(out);
        self.phase = Phase::Content;
        Ok(())
    }

    /// Begins a stream of `len` bytes of pages: whole extents. A family without pages of its own has fillers, see [`filler_extent`].
    /// The pages follow. `checksum`: BACKUP WITH CHECKSUM.
    ///
    /// # Errors
    /// [`Error::Order`]; [`Error::Field`] if `len` is 0 or not a multiple of 65,536.
    pub fn begin_data(&mut self, len: u64, checksum: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        self.require(Phase::Content, "pages")?;
        let stream_len = len.saturating_add(PREFIX_LEN);
        check_len(stream_len.min(i64::MAX as u64), self.position, "length of the data stream")?;
        if len == 0 {
            let (field, expected) = ("length of the data stream", EXTENT_LEN + PREFIX_LEN);
            return Err(Error::Field { offset: self.position, field, expected, found: stream_len });
        }
        self.block(DataBlock::encode()?, out);
        self.begin_stream(StreamId::DATA, attributes::VARIABLE, stream_len, checksum, out);
        self.phase = Phase::Data { left: len };
        Ok(())
    }

    /// Counts the next bytes of pages or log, and computes the backup checksum. The caller writes the bytes.
    ///
    /// # Errors
    /// [`Error::Range`] for more bytes than announced.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.count(bytes.len() as u64)?;
        if let Some(sum) = &mut self.sum {
            sum.update(bytes);
        }
        Ok(())
    }

    /// Counts the next `len` bytes of pages or log, whole sectors of 512 bytes, whose sum is known ([`SectorSum::of`]). The caller writes
    /// the bytes. The sum counts only WITH CHECKSUM.
    ///
    /// # Errors
    /// [`Error::Range`] for more bytes than announced; [`Error::Field`] if `len` is no multiple of 512.
    pub fn summed(&mut self, len: u64, sum: u32) -> Result<(), Error> {
        let sector = SECTOR_LEN as u64;
        if !len.is_multiple_of(sector) {
            let (offset, field, expected) = (self.position, "bytes that were summed", len.next_multiple_of(sector));
            return Err(Error::Field { offset, field, expected, found: len });
        }
        self.count(len)?;
        if let Some(all) = &mut self.sum {
            all.append(sum, len / sector);
        }
        Ok(())
    }

    fn count(&mut self, found: u64) -> Result<(), Error> {
        let most = match &mut self.phase {
            Phase::Data { left } | Phase::Log { left, .. } => {
                if let Some(rest) = left.checked_sub(found) {
                    *left = rest;
                    self.position += found;
                    return Ok(());
                }
                *left
            }
            _ => 0,
        };
        Err(Error::Range { offset: self.position, field: "bytes of the stream", least: 0, most, found })
    }

    /// Ends the stream of pages.
    ///
    /// # Errors
    /// [`Error::Order`] if bytes are missing.
    pub fn end_data(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.require(Phase::Data { left: 0 }, "the end of the pages")?;
        self.gap(out);
        self.sum(out);
        self.stream(StreamId::DATA, attributes::VARIABLE | attributes::VARIABLE_END, &[], out);
        self.end_block(out);
        self.phase = Phase::Content;
        Ok(())
    }

    /// Begins the block of a virtual log file. Its log bytes follow, [`Vlf::range_len`] of them. In all families but the first there
    /// are none: `with_bytes` is false.
    ///
    /// # Errors
    /// [`Error::Order`], or [`Error::Range`] for a range that ends before it begins.
    pub fn begin_log(&mut self, vlf: &Vlf, with_bytes: bool, checksum: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        self.require(Phase::Content, "a virtual log file")?;
        let (least, most) = (vlf.start, vlf.start.saturating_add(MAX_RANGE));
        if !(least..=most).contains(&vlf.end) {
            let (offset, field, found) = (self.position, "end of the log range", vlf.end);
            return Err(Error::Range { offset, field, least, most, found });
        }
        self.block(vlf.encode()?, out);
        let left = if with_bytes { vlf.range_len() } else { 0 };
        if left > 0 {
            self.begin_stream(StreamId::LOG, 0, vlf.stream_len(), checksum, out);
        }
        self.phase = Phase::Log { left, zeros: if left > 0 { vlf.stream_len() - PREFIX_LEN - left } else { 0 } };
        Ok(())
    }

    /// Ends the block of a virtual log file.
    ///
    /// # Errors
    /// [`Error::Order`] if bytes are missing.
    pub fn end_log(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let Phase::Log { left: 0, zeros } = self.phase else { return Err(self.order("the end of the log")) };
        let padding = vec![0; zeros as usize];
        if let Some(sum) = &mut self.sum {
            sum.update(&padding);
        }
        self.push(padding, out);
        self.gap(out);
        self.sum(out);
        self.end_block(out);
        self.phase = Phase::Content;
        Ok(())
    }

    /// BackupSize of this family, once its data and log are written. The trailing configuration has the sum over all families.
    pub fn size(&self) -> u64 {
        let mark = if self.start.software_major < 10 { u64::from(self.tape.filemark_len()) } else { 0 };
        self.position - self.set_offset + self.label_len + if self.label_len > 0 { mark } else { 0 }
    }

    /// Ends the set: trailing configuration, set map, filemarks.
    ///
    /// # Errors
    /// [`Error::Order`]; [`Error::Range`] for texts that do not fit, or more filemarks than a filemark lists.
    pub fn end_set(&mut self, trailing: &Config, out: &mut Vec<u8>) -> Result<(), Error> {
        self.require(Phase::Content, "the end of the set")?;
        self.configuration(BlockId::Summary, trailing, out)?;
        let logical = u64::from(self.tape.logical_block_size);
        let end = self.aligned(self.position + stream::HEADER_LEN as u64, self.set_offset, logical);
        let filemark = u64::from(self.tape.filemark_len());
        let end = self.before_filemark(end.next_multiple_of(filemark), filemark, self.cuts.at_filemarks);
        self.pad(StreamId::PAD, 0, end, out);
        self.filemark(out)?;
        self.map.sets.push(SetMap::entry_of(&self.start, &self.volume, trailing.database.backup_size));

        let first = self.position;
        let mut end = SetEnd {
            attributes: self.start.attributes,
            number: self.start.number,
            date: self.start.date,
            ..SetEnd::default()
        };
        self.push(end.encode()?, out);
        let map_at = self.aligned(self.position + stream::HEADER_LEN as u64, first, self.tape.unit());
        self.pad(StreamId::MAP_PAD, 0, map_at, out);
        end.map_address = if self.start.software_major < 10 { self.position } else { first };
        self.stream(StreamId::SET_MAP, 0, &self.map.encode()?, out);
        let stop = self.aligned(self.position + stream::HEADER_LEN as u64, first, self.tape.unit());
        self.pad(StreamId::PAD, 0, stop, out);

        let second = self.position;
        self.push(end.encode()?, out);
        let stop = self.aligned(self.position + stream::HEADER_LEN as u64, second, self.tape.unit());
        let stop = self.before_filemark(stop, self.tape.unit(), true);
        self.pad(StreamId::PAD, 0, stop, out);
        self.filemark(out)?;
        self.phase = Phase::Set;
        Ok(())
    }

    /// The entries of the set map so far.
    pub fn map(&self) -> &[(MapSet, Vec<MapVolume>)] {
        &self.map.sets
    }

    fn order(&self, found: &'static str) -> Error {
        let expected = match self.phase {
            Phase::Set => "the start of a set",
            Phase::Content => "pages, a virtual log file, or the end of the set",
            Phase::Data { left: 0 } => "the end of the pages",
            Phase::Data { .. } => "bytes of pages",
            Phase::Log { left: 0, .. } => "the end of the log",
            Phase::Log { .. } => "bytes of log",
        };
        Error::Order { offset: self.position, expected, found }
    }

    fn require(&self, phase: Phase, what: &'static str) -> Result<(), Error> {
        if self.phase == phase { Ok(()) } else { Err(self.order(what)) }
    }

    /// The first multiple of `unit` from `origin` on that is not before `least`.
    fn aligned(&self, least: u64, origin: u64, unit: u64) -> u64 {
        origin + (least - origin).next_multiple_of(unit)
    }

    /// The first place from `place` on, in steps of `step`, where a filemark ends at a cut, if there is to be one.
    fn before_filemark(&self, place: u64, step: u64, cut: bool) -> u64 {
        if cut { self.later(place, step, self.tape.filemark_len().into()) } else { place }
    }

    /// The first place from `place` on, in steps of `step`, that lies `before` bytes before a cut; `place` where no step leads to one.
    fn later(&self, place: u64, step: u64, before: u64) -> u64 {
        let is_cut = |place: &u64| (place + before).is_multiple_of(self.cuts.unit);
        let steps = self.cuts.unit.div_ceil(step).min(1 << 16);
        (0..=steps).map(|count| place + count * step).find(is_cut).unwrap_or(place)
    }

    fn push(&mut self, bytes: Vec<u8>, out: &mut Vec<u8>) {
        self.position += bytes.len() as u64;
        out.extend(bytes);
    }

    /// An addressed block.
    fn block(&mut self, mut block: Vec<u8>, out: &mut Vec<u8>) {
        let address = (self.position - self.set_offset) / u64::from(self.tape.logical_block_size);
        put(&mut block, 20, &address);
        put(&mut block, 36, &self.next_id);
        reseal(&mut block);
        self.next_id += 1;
        self.push(block, out);
    }

    fn end_block(&mut self, out: &mut Vec<u8>) {
        let logical = u64::from(self.tape.logical_block_size);
        let end = self.aligned(self.position + stream::HEADER_LEN as u64, self.set_offset, logical);
        self.pad(StreamId::PAD, 0, end, out);
    }

    fn configuration(&mut self, id: BlockId, config: &Config, out: &mut Vec<u8>) -> Result<(), Error> {
        let block = finish(crate::block::BlockHeader::new(id), vec![0; 56])?;
        self.block(block, out);
        self.stream(StreamId::CONFIGURATION, 0, &config.encode()?, out);
        Ok(())
    }

    fn filemark(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let earlier: Vec<u64> = self.filemarks.iter().rev().copied().collect();
        let given = self.start.software_major >= 10;
        let block = Filemark::encode(&earlier, self.tape.filemark_len(), given, self.position)?;
        self.filemarks.push(self.position);
        self.push(block, out);
        Ok(())
    }

    fn stream(&mut self, id: StreamId, attributes: u16, data: &[u8], out: &mut Vec<u8>) {
        self.push(StreamHeader::new(id, attributes, data.len() as u64).encode().to_vec(), out);
        self.push(data.to_vec(), out);
        self.gap(out);
    }

    fn gap(&mut self, out: &mut Vec<u8>) {
        let zeros = self.position.next_multiple_of(4) - self.position;
        self.push(vec![0; zeros as usize], out);
    }

    /// A stream of zeros that ends at `end`.
    fn pad(&mut self, id: StreamId, attributes: u16, end: u64, out: &mut Vec<u8>) {
        let len = end - self.position - stream::HEADER_LEN as u64;
        self.push(StreamHeader::new(id, attributes, len).encode().to_vec(), out);
        self.push(vec![0; len as usize], out);
    }

    /// The padding before pages or log, the stream's header, and the two zero bytes.
    fn begin_stream(&mut self, id: StreamId, attributes: u16, len: u64, checksum: bool, out: &mut Vec<u8>) {
        let before = stream::HEADER_LEN as u64 + PREFIX_LEN;
        let least = self.position + stream::HEADER_LEN as u64 + before;
        let mut data = self.aligned(least, self.set_offset, self.tape.unit());
        if id == StreamId::DATA {
            data = self.later(data, self.tape.unit(), 0);
        }
        self.pad(StreamId::ALIGN, stream::attributes::ALIGNMENT, data - before, out);
        let attributes = if checksum { attributes | stream::attributes::SUMMED } else { attributes };
        self.push(StreamHeader::new(id, attributes, len).encode().to_vec(), out);
        self.push(vec![0; PREFIX_LEN as usize], out);
        self.sum = checksum.then(SectorSum::new);
    }

    fn sum(&mut self, out: &mut Vec<u8>) {
        if let Some(sum) = self.sum.take() {
            self.stream(StreamId::SUM, 0, &sum.value().to_le_bytes(), out);
        }
    }
}

/// An extent of filler pages with checksums: readers skip it. Fillers come after the last page of a stream. They make the streams of all
/// families equally long, and the stream a multiple of 1 MiB where the data files are larger than 8 MiB together.
/// (Observed in striped and in differential backups of SQL Server 2008 to 2022.)
pub fn filler_extent() -> Vec<u8> {
    let mut page = [0; PAGE_LEN];
    PageHeader { version: 1, page_type: page_type::FILLER, ..PageHeader::default() }.encode_into(&mut page);
    protect(&mut page);
    page.repeat((EXTENT_LEN / PAGE_LEN as u64) as usize)
}
