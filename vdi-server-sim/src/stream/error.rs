//! What can be wrong with a stream, and where.

use super::{MAX_CATALOG_BYTES, MAX_PAYLOAD};

/// Why bytes are no segment header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("{found} bytes are no segment header, which has {needed}")]
    TooShort {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// It does not begin like one.
    #[error("no segment header: it begins with {:016x}; this is no backup of this simulator, or it is damaged", u64::from_be_bytes(*found))]
    Magic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// It is damaged.
    #[error("the segment header is damaged: its checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// The checksum of the bytes.
        expected: u32,
        /// The checksum that the header tells.
        found: u32,
    },
    /// It is of a later version of the format.
    #[error(
        "the stream has version {found}, this simulator reads version {supported}: restore it with a later simulator"
    )]
    Version {
        /// The header's version.
        found: u16,
        /// The one that is read here.
        supported: u16,
    },
    /// A field has a value that no writer gives it.
    #[error("the segment header's {field} is {found}, expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The values that it can have.
        expected: &'static str,
    },
}

/// Why a list of files is no catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// It ends too early, or goes on behind its end.
    #[error("the catalog is damaged: it has {found} bytes, but its entries take {needed}")]
    Length {
        /// Bytes it has.
        found: usize,
        /// Bytes that its entries take, as far as they were read.
        needed: usize,
    },
    /// A path is not UTF-8.
    #[error("the catalog is damaged: the path of entry {index} is not UTF-8")]
    Path {
        /// The entry's number, from 0: files, then empty folders.
        index: usize,
    },
    /// A path is longer than the format can tell.
    #[error("the path of entry {index} has {length} bytes, more than the 65535 that a catalog can hold: shorten it")]
    PathTooLong {
        /// The entry's number, from 0: files, then empty folders.
        index: usize,
        /// The path's length.
        length: usize,
    },
    /// All files together have more bytes than 64 bits can count.
    #[error("the files of the catalog have more than 2^64 bytes together")]
    TooManyBytes,
    /// The list is longer than [`MAX_CATALOG_BYTES`].
    #[error("the catalog needs {needed} bytes, more than the {MAX_CATALOG_BYTES} of the format: back up fewer files")]
    TooLong {
        /// Bytes needed.
        needed: u64,
    },
}

/// Why something is no description of frozen files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It is not as long as the catalog's files make it.
    #[error("the snapshot is damaged: its checksums have {found} bytes, but those of {files} files take {needed}")]
    Length {
        /// Bytes it has.
        found: usize,
        /// Bytes of as many entries as the catalog has files.
        needed: usize,
        /// Files of the catalog.
        files: usize,
    },
    /// An entry is neither a checksum nor none.
    #[error(
        "the snapshot is damaged: the entry of file {index} is {flag} and {checksum:#010x}, expected 0 and 0, or 1 and a checksum"
    )]
    Entry {
        /// The file's number, from 0.
        index: usize,
        /// The first half of the entry.
        flag: u32,
        /// The second half.
        checksum: u32,
    },
    /// A file's path cannot be told to the client.
    #[error("the path {} cannot be told to the client because {reason}: rename it", path.display())]
    Path {
        /// The path.
        path: std::path::PathBuf,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The list of paths is longer than the format allows.
    #[error(
        "the paths of the frozen files take {needed} bytes, more than the {MAX_CATALOG_BYTES} of the format: back up fewer files"
    )]
    TooLong {
        /// Bytes needed.
        needed: u64,
    },
    /// The list of paths makes no sense.
    #[error("the list of the frozen files is damaged: {reason}")]
    Text {
        /// The rule that it breaks.
        reason: &'static str,
    },
}

/// Why a segment cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The block size, the identity or a number is out of range.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The buffer is too small.
    #[error(
        "a buffer of {found} bytes has no room for a segment of {needed}: use a larger MAXTRANSFERSIZE or a smaller BLOCKSIZE"
    )]
    NoRoom {
        /// The buffer's length.
        found: usize,
        /// What is needed at least.
        needed: usize,
    },
    /// Data has a length that no segment has.
    #[error("a piece of {length} bytes is no segment: expected 1 to {MAX_PAYLOAD}")]
    Piece {
        /// The piece's length.
        length: u32,
    },
    /// The segments of a device come in the order Catalog, Data, End, or Catalog, FileInfo, Snapshot, End.
    #[error(
        "{what} was to be written {when}: write the catalog, then the data (or the file info, if at all, and the snapshot), \
         then the end"
    )]
    Order {
        /// What was to be written.
        what: &'static str,
        /// What is wrong with the moment.
        when: &'static str,
    },
}

/// What is wrong with one device's stream. Offsets count bytes from the beginning of what the device delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A segment was expected, and this is none.
    #[error("at offset {offset}: {source}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The backup was made with another BLOCKSIZE.
    #[error(
        "at offset {offset}: the backup was made with BLOCKSIZE = {found}, but is restored with {expected}: restore WITH BLOCKSIZE = {found}"
    )]
    BlockSize {
        /// Where the header begins.
        offset: u64,
        /// The RESTORE's.
        expected: u32,
        /// The stream's.
        found: u32,
    },
    /// The backup has another number of families than devices are named.
    #[error(
        "at offset {offset}: the backup was made to {found} devices, but is restored from {expected}: name all {found} devices and no others"
    )]
    FamilyCount {
        /// Where the header begins.
        offset: u64,
        /// The RESTORE's.
        expected: u32,
        /// The stream's.
        found: u32,
    },
    /// A segment of another backup, or of another device.
    #[error("at offset {offset}: a segment of {} among those of {}: streams were mixed up", describe(.found), describe(.expected))]
    Identity {
        /// Where the header begins.
        offset: u64,
        /// Whose stream it is by its first segment.
        expected: super::Identity,
        /// Whose segment this is.
        found: super::Identity,
    },
    /// Segments are missing, come twice or in another order.
    #[error(
        "at offset {offset}: segment {found} where segment {expected} was expected: parts of the stream are missing, repeated or moved"
    )]
    Sequence {
        /// Where the header begins.
        offset: u64,
        /// The number expected.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A segment's kind or place does not fit what came before.
    #[error("at offset {offset}: the segment does not fit: {field} is {found}, expected {expected}")]
    Misfit {
        /// Where the header begins.
        offset: u64,
        /// What does not fit.
        field: &'static str,
        /// What would fit.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// The complete catalog makes no sense.
    #[error("at offset {offset}: {source}")]
    Catalog {
        /// Where the catalog's last segment ends.
        offset: u64,
        /// What is wrong with it.
        source: CatalogError,
    },
    /// The backup holds no data, but only what a snapshot needs.
    #[error(
        "at offset {offset}: the backup was made WITH SNAPSHOT, so it does not hold the database's files: restore WITH SNAPSHOT"
    )]
    IsSnapshot {
        /// Where the header begins.
        offset: u64,
    },
    /// The backup holds the data itself.
    #[error("at offset {offset}: the backup was made without SNAPSHOT, so it is no snapshot: restore without SNAPSHOT")]
    IsNoSnapshot {
        /// Where the header begins.
        offset: u64,
    },
    /// What the stream says of the frozen files makes no sense.
    #[error("at offset {offset}: {source}")]
    Snapshot {
        /// Where its last segment ends.
        offset: u64,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// A payload is damaged.
    #[error(
        "the payload of segment {sequence}, which ends at offset {offset}, is damaged: its checksum is {found:#010x}, expected {expected:#010x}"
    )]
    Payload {
        /// Where the payload ends.
        offset: u64,
        /// The segment.
        sequence: u64,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// Padding has something in it.
    #[error("the padding of segment {sequence} is not zero at offset {offset}: the stream is damaged")]
    Padding {
        /// The first byte that is not zero.
        offset: u64,
        /// The segment.
        sequence: u64,
    },
    /// The stream stops before its End segment.
    #[error(
        "the stream ends after {offset} bytes without an End segment: the backup is incomplete, or the device stopped too early"
    )]
    Truncated {
        /// Bytes seen.
        offset: u64,
    },
}

fn describe(identity: &super::Identity) -> String {
    let set = u128::from_be_bytes(identity.set_id);
    format!("backup {set:032x}, device {} of {}", u64::from(identity.family_index) + 1, identity.family_count)
}

/// What is wrong with the devices of a restore taken together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// A device belongs to another backup than the first one did.
    #[error("{} was given together with {}: restore from the devices of one backup", describe(.found), describe(.expected))]
    OtherBackup {
        /// The first device.
        expected: super::Identity,
        /// The other one.
        found: super::Identity,
    },
    /// The backup has another number of devices than the restore.
    #[error(
        "the backup was made to {found} devices, but is restored from {expected}: name all {found} devices and no others"
    )]
    FamilyCount {
        /// The restore's.
        expected: u32,
        /// The backup's.
        found: u32,
    },
    /// One device of the backup is given twice.
    #[error("device {} of the backup was given twice: name each of its devices once", u64::from(*family) + 1)]
    FamilyTwice {
        /// The family, from 0.
        family: u32,
    },
    /// A device's stream was not seen from beginning to end.
    #[error("device {} of the backup is missing or incomplete: name all of its devices", u64::from(*family) + 1)]
    FamilyMissing {
        /// The family, from 0.
        family: u32,
    },
    /// Devices of one backup have different catalogs.
    #[error("device {} lists other files than the first device: the backup is damaged", u64::from(*family) + 1)]
    CatalogDiffers {
        /// The family, from 0.
        family: u32,
    },
    /// There is no such file in the catalog, or not of this length.
    #[error("{length} bytes at offset {offset} of file {file_index} are not in the catalog: the backup is damaged")]
    OutOfRange {
        /// The file's number, from 0.
        file_index: usize,
        /// Where the piece begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// A snapshot does not go with what the devices gave: more devices than one, data, or another number of files.
    #[error("a snapshot with {what}: {found}, expected {expected}: the backup is damaged")]
    Snapshot {
        /// What does not go with it.
        what: &'static str,
        /// What would go with it.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// Bytes of a file come more than once.
    #[error("{length} bytes at offset {offset} of {path} come more than once: the backup is damaged")]
    Overlap {
        /// The file.
        path: String,
        /// Where the second piece begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// Bytes of a file do not come at all.
    #[error("{path} is incomplete from offset {offset} on, it has {size} bytes: the backup is damaged")]
    Gap {
        /// The file.
        path: String,
        /// The first byte that is missing.
        offset: u64,
        /// The file's length.
        size: u64,
    },
}
