//! Reads all that is typed on a medium, and verifies every checksum.

use crate::block::{Block, BlockId};
use crate::checksum::SectorSum;
use crate::error::Error;
use crate::layout::get;
use crate::media::{Filemark, MediaSet, Tape};
use crate::medium::{BackupSet, DataStream, LogStream, Medium};
use crate::page::{PageState, PageVerifier};
use crate::parser::{Event, Parser};
use crate::set::{MapSet, MapVolume, SetEnd, SetMap, SetStart, Volume};
use crate::sqlserver::config::{self, Config, Database, FileRecord, Filegroup};
use crate::sqlserver::data::{PREFIX_LEN, check_len};
use crate::sqlserver::log::{LogVerifier, Vlf};
use crate::stream::{StreamId, attributes};

/// Damages that are kept. More are counted only.
pub const MAX_DAMAGES: usize = 1000;

/// Bytes of headers and configurations that an inspector reads from a medium: a bound on its memory. A set has some kilobytes, and one
/// more for each virtual log file.
pub const MAX_HEADERS: u64 = 256 << 20;

/// What the current stream's data is given to.
#[derive(Debug)]
enum Target {
    Nothing,
    /// Zeros.
    Padding,
    Collect(StreamId, Vec<u8>),
    Data(PageVerifier),
    Log(LogVerifier),
}

/// Reads the events of a medium into a [`Medium`], and verifies pages, log blocks, backup checksums, and values that stand twice.
///
/// Two kinds of errors: what ends the reading is returned; what does not is a *damage*, and is kept. A backup is sound if
/// [`finish`](Inspector::finish) returns no error and [`damages`](Inspector::damages) is empty.
///
/// It keeps the typed values, of at most [`MAX_HEADERS`] bytes of the medium, and no pages.
///
/// ```
/// use vdi_mtf::inspector::Inspector;
///
/// # fn run(backup: &[u8]) -> Result<(), vdi_mtf::Error> {
/// let mut inspector = Inspector::new();
/// for piece in backup.chunks(65536) {
///     inspector.read(piece)?;
/// }
/// inspector.finish()?;
/// for set in &inspector.medium().sets {
///     println!("set {}: {} to {}", set.start.number, set.config().database.first_lsn, set.config().database.last_lsn);
/// }
/// # Ok(()) }
/// # assert!(run(&[0; 100]).is_err());
/// ```
#[derive(Debug)]
pub struct Inspector {
    parser: Parser,
    state: Contents,
}

#[derive(Debug)]
struct Contents {
    medium: Medium,
    block: BlockId,
    target: Target,
    /// Where the current stream's data begins, and how much of it came.
    data_offset: u64,
    position: u64,
    /// The sum of the stream that a CSUM is expected for, its name, and where it begins.
    sum: Option<(SectorSum, StreamId, u64)>,
    /// Whether pages, log and backup checksums are verified.
    verify: bool,
    /// Bytes that went into typed values, at most [`MAX_HEADERS`].
    headers: u64,
    damages: Vec<Error>,
    damage_count: u64,
}

impl Default for Inspector {
    fn default() -> Self {
        Self::new()
    }
}

impl Inspector {
    /// An inspector at the start of a medium that verifies everything.
    pub fn new() -> Self {
        Self::with(true)
    }

    /// An inspector at the start of a medium that verifies headers, but neither pages nor log nor backup checksums. It counts no pages
    /// and no log blocks.
    pub fn headers_only() -> Self {
        Self::with(false)
    }

    fn with(verify: bool) -> Self {
        Inspector {
            parser: Parser::new(),
            state: Contents {
                medium: Medium::default(),
                block: BlockId::Tape,
                target: Target::Nothing,
                data_offset: 0,
                position: 0,
                sum: None,
                verify,
                headers: 0,

                damages: Vec::new(),
                damage_count: 0,
            },
        }
    }

    /// Reads the next bytes of the medium.
    ///
    /// # Errors
    /// What ends the reading. Every later call that parses returns an error again.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(event) = self.parser.next(&mut bytes)? {
            self.state.event(&event)?;
        }
        Ok(())
    }

    /// Skips bytes of pages or log, at most `most`, and returns how many: the next bytes that are [read](Inspector::read) begin so much
    /// later on the medium. 0 if the inspector verifies them, or is not inside such a stream.
    ///
    /// ```
    /// use vdi_mtf::inspector::Inspector;
    /// use vdi_mtf::medium::Medium;
    ///
    /// # fn run(backup: &[u8]) -> Result<Medium, vdi_mtf::Error> {
    /// let (mut inspector, mut at) = (Inspector::headers_only(), 0);
    /// while at < backup.len() {
    ///     let piece = &backup[at..(at + 4096).min(backup.len())];
    ///     inspector.read(piece)?;
    ///     at += piece.len() + inspector.skip((backup.len() - at - piece.len()) as u64) as usize;
    /// }
    /// inspector.finish()?;
    /// # Ok(inspector.into_medium()) }
    /// # assert!(run(&[0; 100]).is_err());
    /// ```
    pub fn skip(&mut self, most: u64) -> u64 {
        if self.state.verify { 0 } else { self.parser.skip(most) }
    }

    /// Takes an event of a parser of the caller's own, in place of [`read`](Inspector::read). The caller then asks its own parser
    /// whether the medium is complete ([`Parser::finish`]).
    ///
    /// # Errors
    /// What ends the reading. The inspector cannot be used further.
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        self.state.event(event)
    }

    /// Checks that the medium is complete.
    ///
    /// # Errors
    /// [`Error::Truncated`], or what ended the reading.
    pub fn finish(&self) -> Result<(), Error> {
        self.parser.finish()
    }

    /// What was read so far.
    pub fn medium(&self) -> &Medium {
        &self.state.medium
    }

    /// What was read.
    pub fn into_medium(self) -> Medium {
        self.state.medium
    }

    /// The first [`MAX_DAMAGES`] damages.
    pub fn damages(&self) -> &[Error] {
        &self.state.damages
    }

    /// The damages that were found since the last call, at most [`MAX_DAMAGES`] of them. They are kept no longer.
    pub fn take_damages(&mut self) -> Vec<Error> {
        core::mem::take(&mut self.state.damages)
    }

    /// All damages, those that were [taken](Self::take_damages) included.
    pub fn damage_count(&self) -> u64 {
        self.state.damage_count
    }
}

impl Contents {
    fn damage(&mut self, error: Error) {
        self.damage_count += 1;
        if self.damages.len() < MAX_DAMAGES {
            self.damages.push(error);
        }
    }

    fn check(&mut self, sound: bool, offset: u64, what: &'static str) {
        if !sound {
            self.damage(Error::Mismatch { offset, what });
        }
    }

    fn expect(&mut self, offset: u64, field: &'static str, expected: u64, found: u64) {
        if expected != found {
            self.damage(Error::Field { offset, field, expected, found });
        }
    }

    fn set(&mut self) -> &mut BackupSet {
        if self.medium.sets.is_empty() {
            // The parser gives no block of a set before its SSET.
            self.medium.sets.push(BackupSet::default());
        }
        let last = self.medium.sets.len() - 1;
        &mut self.medium.sets[last]
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event {
            Event::Block(block) => self.block(block),
            Event::Stream(stream) => {
                let (header, offset) = (&stream.header, stream.offset);
                self.data_offset = offset + crate::stream::HEADER_LEN as u64;
                self.position = 0;
                let id = header.id();
                if self.sum.is_some() && id != StreamId::SUM {
                    self.sum = None;
                    self.expect(offset, "backup checksums of the stream before", 1, 0);
                }
                if header.media_attributes & attributes::SUMMED != 0 {
                    self.sum = Some((SectorSum::new(), id, offset));
                }
                self.target = self.target(id, header.len, offset)?;
                Ok(())
            }
            Event::Data(bytes) => {
                self.data(bytes);
                Ok(())
            }
            Event::StreamEnd(_) => self.stream_end(),
            Event::BlockEnd(_) => Ok(()),
            Event::SetEnd => {
                let len =
                    self.medium.filemarks.last().copied().unwrap_or(0) + u64::from(self.medium.label.filemark_len());
                self.medium.len = len;
                self.set().complete = true;
                Ok(())
            }
        }
    }

    fn block(&mut self, block: &Block<'_>) -> Result<(), Error> {
        self.block = block.id;
        let offset = block.offset;
        self.keep(block.bytes.len() as u64, offset)?;
        match block.id {
            BlockId::Tape => self.medium.label = Tape::decode(block)?,
            BlockId::Filemark => {
                let mark = Filemark::decode(block)?;
                let sound = mark.earlier.iter().eq(self.medium.filemarks.iter().rev());
                self.check(sound, offset, "the list of filemarks");
                self.medium.filemarks.push(offset);
            }
            BlockId::SetStart => {
                let start = SetStart::decode(block)?;
                self.expect(offset, "address of the set's start", offset, start.physical_address);
                self.expect(offset, "position of the set", self.medium.sets.len() as u64 + 1, u64::from(start.number));
                self.medium.sets.push(BackupSet { offset, start, ..BackupSet::default() });
            }
            BlockId::Volume => {
                let volume = Volume::decode(block)?;
                let date = self.set().start.date;
                self.check(volume.date == date, offset, "the date of the volume");
                self.set().volume = volume;
            }
            BlockId::Configuration => {}
            BlockId::Summary => self.set().summary_offset = offset,
            BlockId::Data => drop(crate::sqlserver::data::DataBlock::decode(block)?),
            BlockId::Log => {
                let vlf = Vlf::decode(block)?;
                self.set().log.push((vlf, None));
            }
            BlockId::SetEnd => {
                let end = SetEnd::decode(block)?;
                let start = self.set().start.clone();
                self.expect(offset, "position of the set", u64::from(start.number), u64::from(end.number));
                self.expect(offset, "attributes of the set", u64::from(start.attributes), u64::from(end.attributes));
                self.check(start.date == end.date, offset, "the date of the set's end");
                self.set().end = end;
            }
        }
        Ok(())
    }

    /// Counts bytes that go into typed values.
    fn keep(&mut self, len: u64, offset: u64) -> Result<(), Error> {
        self.headers = self.headers.saturating_add(len);
        let (field, found, most) = ("bytes of headers on the medium", self.headers, MAX_HEADERS);
        if found <= most { Ok(()) } else { Err(Error::Range { offset, field, least: 0, most, found }) }
    }

    fn target(&mut self, id: StreamId, len: u64, offset: u64) -> Result<Target, Error> {
        let mut bounded = |most: u64| {
            if len > most {
                return Err(Error::Range { offset, field: "length of the stream", least: 0, most, found: len });
            }
            self.keep(len, offset)?;
            Ok(Target::Collect(id, Vec::new()))
        };
        let first = offset + crate::stream::HEADER_LEN as u64 + PREFIX_LEN;
        Ok(match id {
            _ if id.is_padding() => Target::Padding,
            StreamId::MEDIA_SET => bounded(64)?,
            StreamId::SUM => bounded(4)?,
            StreamId::CONFIGURATION => bounded(config::MAX_LEN)?,
            StreamId::SET_MAP => bounded(config::MAX_LEN)?,
            StreamId::DATA if len > 0 => {
                check_len(len, offset, "length of the data stream")?;
                self.set().data.push(DataStream { offset: first, len: len - PREFIX_LEN, ..DataStream::default() });
                if self.verify { Target::Data(PageVerifier::new(first)) } else { Target::Nothing }
            }
            StreamId::LOG if len > 0 => {
                check_len(len, offset, "length of the log stream")?;
                let data_offset = self.data_offset;
                let Some((vlf, stream)) = self.set().log.last_mut() else { return Ok(Target::Nothing) };
                let verifier = LogVerifier::new(vlf, data_offset);
                *stream = Some(LogStream { offset: first, len: len - PREFIX_LEN, ..LogStream::default() });
                let needed = vlf.range_len();
                self.expect(
                    offset,
                    "length of the log stream",
                    needed.max(1).next_multiple_of(65536) + PREFIX_LEN,
                    len,
                );
                if self.verify { Target::Log(verifier) } else { Target::Nothing }
            }
            _ => Target::Nothing,
        })
    }

    fn data(&mut self, bytes: &[u8]) {
        let prefix = PREFIX_LEN.saturating_sub(self.position).min(bytes.len() as u64) as usize;
        let body = &bytes[prefix..];
        self.position += bytes.len() as u64;
        if let Some((sum, ..)) = &mut self.sum
            && matches!(self.target, Target::Data(_) | Target::Log(_))
        {
            sum.update(body);
        }
        let mut target = core::mem::replace(&mut self.target, Target::Nothing);
        match &mut target {
            Target::Nothing => {}
            Target::Padding => self.zeros(bytes, bytes),
            Target::Collect(_, collected) => collected.extend_from_slice(bytes),
            Target::Data(verifier) => {
                self.zeros(&bytes[..prefix], bytes);
                let mut counts = self.set().data.last().map(|stream| stream.pages).unwrap_or_default();
                verifier.update(body, |_, state| {
                    counts.add(&state);
                    if let PageState::Damaged(error) = state {
                        self.damage(error);
                    }
                });
                if let Some(stream) = self.set().data.last_mut() {
                    stream.pages = counts;
                }
            }
            Target::Log(verifier) => verifier.update(bytes, |error| self.damage(error)),
        }
        self.target = target;
    }

    /// Checks that `part`, the first bytes of the last `piece`, are zeros.
    fn zeros(&mut self, part: &[u8], piece: &[u8]) {
        if let Some(at) = part.iter().position(|&byte| byte != 0) {
            let offset = self.data_offset + self.position - piece.len() as u64 + at as u64;
            self.damage(Error::Padding { offset, found: part[at] });
        }
    }

    fn stream_end(&mut self) -> Result<(), Error> {
        let offset = self.data_offset;
        match core::mem::replace(&mut self.target, Target::Nothing) {
            Target::Collect(StreamId::MEDIA_SET, bytes) => self.medium.media_set = MediaSet::decode(&bytes, offset)?,
            Target::Collect(StreamId::SUM, bytes) => self.checksum(&bytes),
            Target::Collect(StreamId::CONFIGURATION, bytes) => self.config(Config::decode(&bytes, offset)?, offset),
            Target::Collect(StreamId::SET_MAP, bytes) => self.map(SetMap::decode(&bytes, offset)?, offset),
            Target::Log(verifier) => {
                if let Some((_, Some(stream))) = self.set().log.last_mut() {
                    stream.blocks = verifier.blocks();
                }
            }
            Target::Nothing | Target::Padding | Target::Collect(..) | Target::Data(_) => {}
        }
        Ok(())
    }

    fn checksum(&mut self, bytes: &[u8]) {
        let (offset, found) = (self.data_offset, get::<u32>(bytes, 0).unwrap_or(0));
        let Some((sum, id, stream_offset)) = self.sum.take() else {
            return self.expect(offset, "streams that the backup checksum is of", 1, 0);
        };
        let expected = sum.value();
        if self.verify && expected != found {
            self.damage(Error::BackupChecksum { offset: stream_offset, stream: id.0, expected, found });
        }
        match id {
            StreamId::DATA => self.set().data.last_mut().map(|stream| stream.checksum = Some(found)),
            _ => self.set().log.last_mut().and_then(|(_, s)| s.as_mut()).map(|stream| stream.checksum = Some(found)),
        };
    }

    fn config(&mut self, config: Config, offset: u64) {
        if self.block == BlockId::Configuration {
            self.set().leading = config;
            return;
        }
        let sound = constants(&self.set().leading) == constants(&config);
        self.check(sound, offset, "the configuration at the end");
        self.set().trailing = Some(config);
    }

    fn map(&mut self, map: SetMap, offset: u64) {
        let expected: Vec<_> =
            self.medium.sets.iter().map(|set| (set.offset, set.start.number, set.start.date)).collect();
        let found: Vec<_> = map.sets.iter().map(|(set, _)| (set.physical_address, set.number, set.date)).collect();
        self.check(expected == found, offset, "the set map");
        self.expect(offset, "family of the set map", u64::from(self.medium.label.family_id), u64::from(map.family_id));
        let set = self.set();
        let size = set.config().database.backup_size;
        let expected = SetMap::entry_of(&set.start, &set.volume, size);
        let sound = map.sets.last().is_some_and(|found| same_entry(found, &expected));
        self.check(sound, offset, "the set in the set map");
        self.set().map = map;
    }
}

/// Whether two entries of a set map say the same.
fn same_entry(found: &(MapSet, Vec<MapVolume>), expected: &(MapSet, Vec<MapVolume>)) -> bool {
    // The length and the unknown bytes are the written entry's own.
    let set = |set: &MapSet| MapSet { len: 0, raw: Vec::new(), ..set.clone() };
    let volume = |volume: &MapVolume| MapVolume { len: 0, raw: Vec::new(), ..volume.clone() };
    set(&found.0) == set(&expected.0) && found.1.iter().map(volume).eq(expected.1.iter().map(volume))
}

/// What does not change from the start of a backup to its end.
fn constants(config: &Config) -> (Database, Vec<Filegroup>, Vec<FileRecord>) {
    let d = &config.database;
    let database = Database {
        // That there are damaged pages is known at the end.
        flags: d.flags & !config::database_flags::DAMAGED,
        software_build: d.software_build,
        software_minor: d.software_minor,
        software_major: d.software_major,
        created: d.created,
        start: d.start,
        kind_letter: d.kind_letter,
        database_id: d.database_id,
        database_version: d.database_version,
        unicode_locale: d.unicode_locale,
        unicode_comparison: d.unicode_comparison,
        binding_id: d.binding_id,
        recovery_fork: d.recovery_fork,
        collation: d.collation,
        family: d.family,
        name: d.name.clone(),
        server: d.server.clone(),
        ..Database::default()
    };
    let group = |g: &Filegroup| Filegroup { id: g.id, guid: g.guid, name: g.name.clone(), ..Filegroup::default() };
    let file = |f: &FileRecord| FileRecord {
        page_len: f.page_len,
        file_id: f.file_id,
        type_number: f.type_number,
        source_block: f.source_block,
        filegroup: f.filegroup,
        unique_id: f.unique_id,
        logical_name: f.logical_name.clone(),
        physical_name: f.physical_name.clone(),
        ..FileRecord::default()
    };
    (database, config.filegroups.iter().map(group).collect(), config.files.iter().map(file).collect())
}
