//! The medium's own blocks: label (`TAPE`), media set (`RAID`), soft filemarks (`SFMB`).

use crate::block::{Block, BlockHeader, BlockId, attributes};
use crate::error::Error;
use crate::layout::{get, put, record};
use crate::value::{DateTime, Guid, Text};

/// The longest filemark: a sector of 64 KiB.
pub const MAX_FILEMARK_LEN: u32 = 65536;

/// The software vendor id of SQL Server.
pub const VENDOR_SQL_SERVER: u16 = 0x1200;

record! {
    /// The label of a medium (block `TAPE`). (Microsoft Tape Format 1.00a, "MTF_TAPE".)
    pub struct Tape(least 94) {
        /// A random number that identifies the family. RESTORE LABELONLY shows it as the first group of MediaFamilyId.
        family_id: u32 = 52,
        /// Bit 0: soft filemarks, bit 2: data of the vendor. SQL Server writes 5.
        tape_attributes: u32 = 56,
        /// The number of the medium in its family, from 1.
        sequence_number: u16 = 60,
        /// How the media password is stored: 0 none, 5 a hash.
        password_encryption: u16 = 62,
        /// The length of a filemark in units of 512 bytes: the sector size of the target.
        filemark_size: u16 = 64,
        /// The type of the media-based catalogue: 3.
        catalogue_type: u16 = 66,
        /// The unit of logical addresses in bytes: 1024.
        logical_block_size: u16 = 84,
        /// [`VENDOR_SQL_SERVER`].
        vendor: u16 = 86,
        /// When the medium was written first. Local time.
        date: DateTime = 88,
        /// The format's major version: 1.
        major_version: u8 = 93,
    }
    texts(Zero) {
        /// MEDIANAME of the BACKUP statement.
        name = 68,
        /// MEDIADESCRIPTION of the BACKUP statement.
        description = 72,
        /// The media password, or its hash. Deprecated since SQL Server 2008.
        password = 76,
        /// `Microsoft SQL Server`, with two NULs.
        software = 80,
    }
}

impl Tape {
    /// The label of a medium with filemarks of `filemark_len` bytes (a multiple of 512, at most
    /// [`MAX_FILEMARK_LEN`]), as SQL Server 2008 and later write it.
    pub fn new(family_id: u32, filemark_len: u32, date: DateTime) -> Self {
        Tape {
            family_id,
            tape_attributes: 5,
            sequence_number: 1,
            filemark_size: (filemark_len.min(MAX_FILEMARK_LEN) / 512) as u16,
            catalogue_type: 3,
            logical_block_size: 1024,
            vendor: VENDOR_SQL_SERVER,
            date,
            major_version: 1,
            software: Text::from("Microsoft SQL Server\0\0"),
            ..Tape::default()
        }
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::UnexpectedBlock`], [`Error::Range`] and [`Error::Field`].
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        Self::lengths(block.bytes, block.offset)?;
        Self::read(&block.body(BlockId::Tape)?, block.offset)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        finish(BlockHeader::new(BlockId::Tape), self.write()?)
    }

    /// The length of a filemark in bytes.
    pub fn filemark_len(&self) -> u32 {
        u32::from(self.filemark_size) * 512
    }

    /// What the blocks after SSET are aligned to, and the data of pages and log: the larger of the two lengths.
    pub fn unit(&self) -> u64 {
        u64::from(self.filemark_len()).max(u64::from(self.logical_block_size))
    }

    /// The lengths of a filemark and of a logical block, validated.
    pub(crate) fn lengths(bytes: &[u8], offset: u64) -> Result<(u32, u64), Error> {
        let (filemark, logical) = (get::<u16>(bytes, 64).unwrap_or(0), get::<u16>(bytes, 84).unwrap_or(0));
        let range = |field, least, most, found: u16| {
            if (least..=most).contains(&u64::from(found)) {
                return Ok(());
            }
            Err(Error::Range { offset, field, least, most, found: u64::from(found) })
        };
        range("length of a filemark in 512 bytes", 1, u64::from(MAX_FILEMARK_LEN / 512), filemark)?;
        range("length of a logical block", 512, 32768, logical)?;
        if !logical.is_power_of_two() {
            let (expected, found) = (u64::from(logical.next_power_of_two()), u64::from(logical));
            return Err(Error::Field { offset, field: "length of a logical block", expected, found });
        }
        Ok((u32::from(filemark) * 512, u64::from(logical)))
    }
}

record! {
    /// The media set (stream `RAID` of the block `TAPE`): the families that belong together.
    /// (Observed in backups of SQL Server 2005 to 2022; sixteen sets of two families.)
    pub struct MediaSet(least 32) {
        /// The GUID of the media set, the same in all its families.
        id: Guid = 0,
        /// `0xF00000AD`.
        magic: u32 = 16,
        /// Families of the media set: the devices that the backup was written to.
        family_count: u16 = 20,
        /// 1 in all observed backups. Its meaning is not known.
        unknown_22: u16 = 22,
        /// The number of this family, from 1.
        family_number: u16 = 24,
        /// 0.
        unknown_26: u16 = 26,
        /// 0.
        unknown_28: u16 = 28,
        /// 1 in all observed backups: probably the number of the mirror.
        mirror: u16 = 30,
    }
    texts(Zero) {}
}

impl MediaSet {
    /// Family `family_number` of `family_count`.
    pub fn new(id: Guid, family_number: u16, family_count: u16) -> Self {
        let (magic, unknown_22, mirror) = (0xF000_00AD, 1, 1);
        MediaSet { id, magic, family_count, unknown_22, family_number, mirror, ..MediaSet::default() }
    }

    /// Reads the data of the stream.
    ///
    /// # Errors
    /// [`Error::Range`] for a wrong length, or a family number outside of the count.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Error> {
        let set = Self::read(bytes, offset)?;
        let (found, most) = (u64::from(set.family_number), u64::from(set.family_count));
        if !(1..=most).contains(&found) {
            return Err(Error::Range { offset, field: "family number", least: 1, most, found });
        }
        Ok(set)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        self.write()
    }
}

/// A soft filemark (block `SFMB`): one after the label and two after each set. It lists the filemarks before it.
/// (Microsoft Tape Format 1.00a, "MTF_SFMB"; the field at 60 observed in SQL Server 2008 and later.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filemark {
    /// Filemarks that the block has room for.
    pub capacity: u32,
    /// Where the earlier filemarks begin on the medium, the newest first.
    pub earlier: Vec<u64>,
}

impl Filemark {
    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::Range`] if the slots do not fit into the block.
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        let bytes = block.body(BlockId::Filemark)?;
        let field = |at| get::<u32>(&bytes, at).unwrap_or(0);
        let first = match block.header().attributes & attributes::FIRST_SLOT_GIVEN != 0 {
            true => field(60) as usize,
            false => 60,
        };
        let (capacity, used) = (field(52), field(56));
        let (offset, least) = (block.offset, 60);
        if !(60..=bytes.len()).contains(&first) {
            let (most, found) = (bytes.len() as u64, first as u64);
            return Err(Error::Range { offset, field: "offset of the first slot", least, most, found });
        }
        let most = ((bytes.len() - first) / 8) as u64;
        for (field, found, most) in
            [("slots of the filemark", capacity, most), ("used slots of the filemark", used, u64::from(capacity))]
        {
            if u64::from(found) > most {
                return Err(Error::Range { offset, field, least: 0, most, found: u64::from(found) });
            }
        }
        let earlier = (0..used as usize).map(|slot| get(&bytes, first + 8 * slot).unwrap_or(0)).collect();
        Ok(Filemark { capacity, earlier })
    }

    /// The block of `len` bytes that lists `earlier`. `given`: with the field at 60 (SQL Server 2008 on).
    ///
    /// # Errors
    /// [`Error::Range`] if there are more than the block has room for.
    pub(crate) fn encode(earlier: &[u64], len: u32, given: bool, offset: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len as usize];
        let first = if given { 72 } else { 60 };
        let capacity = (bytes.len() - first) / 8;
        if earlier.len() > capacity {
            let (field, most, found) = ("used slots of the filemark", capacity as u64, earlier.len() as u64);
            return Err(Error::Range { offset, field, least: 0, most, found });
        }
        put(&mut bytes, 52, &(capacity as u32));
        put(&mut bytes, 56, &(earlier.len() as u32));
        let mut header = BlockHeader::new(BlockId::Filemark);
        if given {
            put(&mut bytes, 60, &(first as u32));
            header.attributes = attributes::FIRST_SLOT_GIVEN;
        }
        for (slot, place) in earlier.iter().enumerate() {
            put(&mut bytes, first + 8 * slot, place);
        }
        header.first_stream = len as u16;
        header.encode_into(&mut bytes);
        Ok(bytes)
    }
}

/// Completes a block: pads it to its first stream and writes its header.
pub(crate) fn finish(mut header: BlockHeader, mut block: Vec<u8>) -> Result<Vec<u8>, Error> {
    block.resize(block.len().next_multiple_of(4), 0);
    header.first_stream = u16::try_from(block.len()).map_err(|_| Error::Range {
        offset: 0,
        field: "offset of the first stream",
        least: crate::block::HEADER_LEN as u64,
        most: u64::from(u16::MAX),
        found: block.len() as u64,
    })?;
    header.encode_into(&mut block);
    Ok(block)
}
