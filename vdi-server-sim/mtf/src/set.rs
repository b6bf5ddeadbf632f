//! The blocks of a backup set: start (`SSET`), volume (`VOLB`), end (`ESET`), and the set map (stream `TSMP`).

use crate::block::{Block, BlockHeader, BlockId};
use crate::error::Error;
use crate::layout::{get, put, record};
use crate::media::{VENDOR_SQL_SERVER, finish};
use crate::value::{DateTime, Guid, Tag};

/// Bits of [`SetStart::attributes`]. (Microsoft Tape Format 1.00a, "MTF_SSET".)
pub mod attributes {
    /// Copy: COPY_ONLY (reported by other readers of the format).
    pub const COPY: u32 = 2;
    /// Normal: a full backup, or a log backup.
    pub const NORMAL: u32 = 4;
    /// A differential backup.
    pub const DIFFERENTIAL: u32 = 8;
}

record! {
    /// The start of a backup set (block `SSET`). (Microsoft Tape Format 1.00a, "MTF_SSET".)
    pub struct SetStart(least 122) {
        /// Bits of [`attributes`].
        attributes: u32 = 52,
        /// 0.
        password_encryption: u16 = 56,
        /// 0.
        software_compression: u16 = 58,
        /// [`VENDOR_SQL_SERVER`].
        vendor: u16 = 60,
        /// The set's position on the medium, from 1.
        number: u16 = 62,
        /// Where this block begins on the medium. The builder writes the place that it has.
        physical_address: u64 = 80,
        /// When the backup began. Local time.
        date: DateTime = 88,
        /// Major version of the server: 9 for 2005, 10 for 2008, to 16 for 2022.
        software_major: u8 = 93,
        /// Minor version of the server: 50 for 2008 R2.
        software_minor: u8 = 94,
        /// Local time minus UTC, in quarters of an hour. 127: not known.
        time_zone: i8 = 95,
        /// The format's minor version: 0.
        minor_version: u8 = 96,
        /// The version of the media-based catalogue: 2.
        catalogue_version: u8 = 97,
        /// The GUID of the backup set, the same in all its families.
        id: Guid = 100,
        /// When the backup may be overwritten (EXPIREDATE, RETAINDAYS). None in all observed backups: the place is a guess.
        expiration: DateTime = 116,
    }
    texts(Zero) {
        /// NAME of the BACKUP statement.
        name = 64,
        /// DESCRIPTION of the BACKUP statement.
        description = 68,
        /// The backup password. Deprecated since SQL Server 2008.
        password = 72,
        /// The login that made the backup.
        user = 76,
    }
}

impl SetStart {
    /// The start of the set `number` of a medium: a normal set made by server version `major`.
    pub fn new(number: u16, id: Guid, date: DateTime, major: u8) -> Self {
        SetStart {
            attributes: attributes::NORMAL,
            vendor: VENDOR_SQL_SERVER,
            number,
            date,
            software_major: major,
            catalogue_version: 2,
            id,
            ..SetStart::default()
        }
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::UnexpectedBlock`], [`Error::Range`] and [`Error::Field`].
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        Self::read(&block.body(BlockId::SetStart)?, block.offset)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        finish(BlockHeader::new(BlockId::SetStart), self.write()?)
    }
}

record! {
    /// The volume of the database's primary file (block `VOLB`). (Microsoft Tape Format 1.00a, "MTF_VOLB".)
    pub struct Volume(least 73) {
        /// 2.
        attributes: u32 = 52,
        /// When the backup began. Local time.
        date: DateTime = 68,
    }
    texts(Position) {
        /// The drive, `C:` for example.
        device = 56,
        /// The label of the volume; often empty.
        label = 60,
        /// The name of the machine.
        machine = 64,
    }
}

impl Volume {
    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::UnexpectedBlock`], [`Error::Range`] and [`Error::Field`].
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        Self::read(&block.body(BlockId::Volume)?, block.offset)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        finish(BlockHeader::new(BlockId::Volume), self.write()?)
    }
}

record! {
    /// The end of a backup set (block `ESET`). Each set has two: the first holds the set map. (Microsoft Tape Format 1.00a,
    /// "MTF_ESET".)
    pub struct SetEnd(least 88) {
        /// As [`SetStart::attributes`].
        attributes: u32 = 52,
        /// 0.
        corrupt_objects: u32 = 56,
        /// In the first ESET 0. In the second: where the first begins (SQL Server 2008 on), or where the set map's stream
        /// begins (2005).
        map_address: u64 = 60,
        /// The set's position on the medium, from 1.
        number: u16 = 78,
        /// When the backup began. Local time.
        date: DateTime = 80,
    }
    texts(Zero) {}
}

impl SetEnd {
    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::UnexpectedBlock`] and [`Error::Range`].
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        Self::read(&block.body(BlockId::SetEnd)?, block.offset)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        finish(BlockHeader::new(BlockId::SetEnd), self.write()?)
    }
}

record! {
    /// A backup set in the set map. (Microsoft Tape Format 1.00a, "Media Based Catalog".)
    pub struct MapSet(least 92) {
        /// Bytes of the entry, without its volumes. Set when the entry is written.
        len: u16 = 0,
        /// The medium of the family on which the set begins: 1.
        sequence_number: u16 = 2,
        /// As [`SetStart::attributes`].
        attributes: u32 = 8,
        /// Where the set's SSET begins on the medium.
        physical_address: u64 = 12,
        /// The set's position on the medium.
        number: u16 = 30,
        /// BackupSize of the set, as the trailing configuration has it.
        size: u64 = 52,
        /// Volume entries that follow: 1.
        volumes: u16 = 60,
        /// When the backup began. Local time.
        date: DateTime = 80,
        /// As [`SetStart::time_zone`].
        time_zone: i8 = 85,
        /// The operating system: 14.
        os_id: u8 = 86,
        /// The version of the operating system's data: 1.
        os_version: u8 = 87,
        /// 2: UTF-16.
        string_type: u8 = 88,
        /// The version of the catalogue: 2.
        catalogue_version: u8 = 90,
    }
    texts(Zero) {
        /// As [`SetStart::name`].
        name = 64,
        /// As [`SetStart::password`].
        password = 68,
        /// As [`SetStart::description`].
        description = 72,
        /// As [`SetStart::user`].
        user = 76,
    }
}

record! {
    /// A volume of a backup set in the set map.
    pub struct MapVolume(least 62) {
        /// Bytes of the entry. Set when the entry is written.
        len: u16 = 0,
        /// `VOLB`.
        tag: Tag = 2,
        /// 1.
        sequence_number: u16 = 6,
        /// The logical address of the set's VOLB: 1.
        logical_address: u64 = 12,
        /// The operating system: 14.
        os_id: u8 = 32,
        /// The version of the operating system's data: 1.
        os_version: u8 = 33,
        /// 2: UTF-16.
        string_type: u8 = 34,
        /// As [`Volume::attributes`].
        attributes: u32 = 36,
        /// When the backup began. Local time.
        date: DateTime = 56,
    }
    texts(Zero) {
        /// As [`Volume::device`].
        device = 40,
        /// As [`Volume::label`].
        label = 44,
        /// As [`Volume::machine`].
        machine = 48,
    }
}

/// The set map (stream `TSMP`): all sets of the medium up to this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetMap {
    /// The family, as in [`Tape::family_id`](crate::media::Tape::family_id).
    pub family_id: u32,
    /// The sets in their order, each with its volumes.
    pub sets: Vec<(MapSet, Vec<MapVolume>)>,
}

impl SetMap {
    /// Reads the data of the stream. `offset` is for errors.
    ///
    /// # Errors
    /// [`Error::Range`] and [`Error::Field`] where lengths do not agree.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Error> {
        let count: u16 = get(bytes, 4).ok_or(Error::Truncated { offset, inside: "the set map" })?;
        let mut map = SetMap { family_id: get(bytes, 0).unwrap_or(0), sets: Vec::new() };
        let mut at = 8;
        for _ in 0..count {
            let (entry, next) = entry(bytes, at, MapSet::LEAST_LEN, offset)?;
            let set = MapSet::read(entry, offset + at as u64)?;
            at = next;
            let mut volumes = Vec::new();
            for _ in 0..set.volumes {
                let (entry, next) = self::entry(bytes, at, MapVolume::LEAST_LEN, offset)?;
                volumes.push(MapVolume::read(entry, offset + at as u64)?);
                at = next;
            }
            map.sets.push((set, volumes));
        }
        if at != bytes.len() {
            let (expected, found) = (at as u64, bytes.len() as u64);
            return Err(Error::Field { offset, field: "length of the set map", expected, found });
        }
        Ok(map)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; 8];
        put(&mut bytes, 0, &self.family_id);
        put(&mut bytes, 4, &(self.sets.len() as u16));
        for (set, volumes) in &self.sets {
            let mut entry = MapSet { volumes: volumes.len() as u16, ..set.clone() }.write()?;
            let len = entry.len() as u16;
            put(&mut entry, 0, &len);
            bytes.extend(entry);
            for volume in volumes {
                let mut entry = volume.write()?;
                let len = entry.len() as u16;
                put(&mut entry, 0, &len);
                bytes.extend(entry);
            }
        }
        Ok(bytes)
    }

    /// The entry of a set: what the map repeats of its start and its volume.
    pub(crate) fn entry_of(start: &SetStart, volume: &Volume, size: u64) -> (MapSet, Vec<MapVolume>) {
        let (os_id, os_version, string_type) = (14, 1, 2);
        let set = MapSet {
            sequence_number: 1,
            attributes: start.attributes,
            physical_address: start.physical_address,
            number: start.number,
            size,
            volumes: 1,
            date: start.date,
            time_zone: start.time_zone,
            os_id,
            os_version,
            string_type,
            catalogue_version: start.catalogue_version,
            name: start.name.clone(),
            password: start.password.clone(),
            description: start.description.clone(),
            user: start.user.clone(),
            ..MapSet::default()
        };
        let volume = MapVolume {
            tag: BlockId::Volume.tag(),
            sequence_number: 1,
            logical_address: 1,
            os_id,
            os_version,
            string_type,
            attributes: volume.attributes,
            date: volume.date,
            device: volume.device.clone(),
            label: volume.label.clone(),
            machine: volume.machine.clone(),
            ..MapVolume::default()
        };
        (set, vec![volume])
    }
}

/// The entry at `at`, and where the next begins.
fn entry(bytes: &[u8], at: usize, least: usize, offset: u64) -> Result<(&[u8], usize), Error> {
    let len = usize::from(get::<u16>(bytes, at).unwrap_or(0));
    match bytes.get(at..at + len) {
        Some(entry) if len >= least => Ok((entry, at + len)),
        _ => {
            let (offset, field) = (offset + at as u64, "length of the set map's entry");
            let (least, most, found) = (least as u64, bytes.len().saturating_sub(at) as u64, len as u64);
            Err(Error::Range { offset, field, least, most, found })
        }
    }
}
