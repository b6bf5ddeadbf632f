//! The configuration of a set: `VDConfig`, its validation and its negotiation.
//!
//! Source: VDI specification, "Configuration".
//!
//! | step | role | function |
//! |---|---|---|
//! | Create | the client requests, the server validates | [`VdConfig::validate_client`] |
//! | BeginConfiguration | the server adds its terms | [`ServerTerms::negotiate`] |
//! | GetConfiguration | the client validates the result | [`VdConfig::validate_answer`] |
//!
//! As plain numbers: eleven unsigned 32-bit fields in the order of the struct ([`VdConfig::to_words`]).

use thiserror::Error;

use crate::features::{Features, UnsupportedFeatures};
pub use crate::index::MAX_DEVICES;
use crate::status::VdError;

/// The minimum and the default BLOCKSIZE, in bytes.
pub const MIN_BLOCK_SIZE: u32 = 512;
/// The greatest BLOCKSIZE and the greatest alignment, in bytes.
pub const MAX_BLOCK_SIZE: u32 = 64 * 1024;
/// MAXTRANSFERSIZE is a multiple of this, which is also its default, in bytes.
pub const TRANSFER_UNIT: u32 = 64 * 1024;
/// The greatest MAXTRANSFERSIZE, in bytes.
pub const MAX_TRANSFER_SIZE: u32 = 4 * 1024 * 1024;
/// The greatest prefix zone, in bytes. **Decision**: the documents give no limit.
pub const MAX_PREFIX_ZONE: u32 = 64 * 1024;
/// `maxIODepth` is deprecated and always this.
const MAX_IO_DEPTH: u32 = 4;

/// `VDConfig`: the configuration of a set, requested or negotiated.
///
/// ```
/// use vdi_proto::config::{ServerTerms, VdConfig};
/// use vdi_proto::features::Features;
///
/// let requested = VdConfig { device_count: 2, features: Features::REQUEST_COMPLETE, ..VdConfig::default() };
/// let terms = ServerTerms { features: Features::WRITE_MEDIA, max_transfer_size: 1 << 20, ..ServerTerms::default() };
/// let negotiated = terms.negotiate(&requested).unwrap();
/// assert!(negotiated.features.contains(Features::COMPLETE_ENABLED));
/// assert_eq!(negotiated.alignment, 512);
/// assert!(negotiated.validate_answer(&requested).is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "VDConfig")]
pub struct VdConfig {
    /// Set by the client: devices in the set, 1 to [`MAX_DEVICES`].
    #[doc(alias = "deviceCount")]
    pub device_count: u32,
    /// Set by the client, then by the server: feature bits.
    pub features: Features,
    /// Set by the client: bytes immediately before each buffer's data start, for the client's own use;
    /// 0 to [`MAX_PREFIX_ZONE`].
    #[doc(alias = "prefixZoneSize")]
    pub prefix_zone_size: u32,
    /// Set by the client, raised by the server: minimum alignment of each buffer's data start in bytes; 0 or a power of
    /// two up to [`MAX_BLOCK_SIZE`].
    pub alignment: u32,
    /// Set by the client, only with [`Features::FILE_MARKS`]: 0 for hard filemarks, else the size of a soft one, a
    /// power of two from [`MIN_BLOCK_SIZE`] to [`MAX_BLOCK_SIZE`].
    #[doc(alias = "softFileMarkBlockSize")]
    pub soft_file_mark_block_size: u32,
    /// Set by the client, only with [`Features::REMOVABLE`]: bytes of the end-of-media warning zone, 0 for none.
    #[doc(alias = "EOMWarningSize")]
    pub eom_warning_size: u32,
    /// Set by the client: the server's time-out in ms, 0 for none. See [`crate::timeout`].
    #[doc(alias = "serverTimeOut")]
    pub server_time_out: u32,
    /// Set by the server: every transfer is a multiple of this; a power of two from [`MIN_BLOCK_SIZE`] to
    /// [`MAX_BLOCK_SIZE`].
    #[doc(alias = "blockSize")]
    pub block_size: u32,
    /// Set by the server: always 4 (deprecated).
    #[doc(alias = "maxIODepth")]
    pub max_io_depth: u32,
    /// Set by the server: the largest transfer in bytes, a multiple of [`TRANSFER_UNIT`] up to [`MAX_TRANSFER_SIZE`].
    #[doc(alias = "maxTransferSize")]
    pub max_transfer_size: u32,
    /// Set by the server: all buffer space in bytes.
    #[doc(alias = "bufferAreaSize")]
    pub buffer_area_size: u32,
}

impl Default for VdConfig {
    /// One pipe-like device, everything else 0.
    fn default() -> Self {
        VdConfig::from_words([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}

/// The side that set a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    /// The client, in Create: VD_E_NOTSUPPORTED.
    Client,
    /// The server, in BeginConfiguration or EndConfiguration: VD_E_INVALID.
    Server,
}

impl core::fmt::Display for Author {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Author::Client => "the client",
            Author::Server => "the server",
        })
    }
}

/// A field of the configuration that is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A field is out of range.
    #[error("{author} set {field} to {found}; it must be {expected}")]
    Field {
        /// Who set it.
        author: Author,
        /// Its published name.
        field: &'static str,
        /// Its value.
        found: u32,
        /// What it may be.
        expected: &'static str,
    },
    /// The features describe no supported device kind.
    #[error(transparent)]
    Features(UnsupportedFeatures),
}

impl ConfigError {
    /// The status that the call returns: VD_E_NOTSUPPORTED for a client's field, and **Decision**, since the documents
    /// name none, VD_E_INVALID for a server's.
    #[must_use]
    pub const fn code(self) -> VdError {
        match self {
            ConfigError::Field { author: Author::Server, .. } => VdError::Invalid,
            ConfigError::Field { author: Author::Client, .. } | ConfigError::Features(_) => VdError::NotSupported,
        }
    }
}

const fn field(
    ok: bool,
    author: Author,
    field: &'static str,
    found: u32,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError::Field { author, field, found, expected }) }
}

const fn is_block_size(size: u32) -> bool {
    size.is_power_of_two() && size >= MIN_BLOCK_SIZE && size <= MAX_BLOCK_SIZE
}

const fn is_transfer_size(size: u32) -> bool {
    size != 0 && size.is_multiple_of(TRANSFER_UNIT) && size <= MAX_TRANSFER_SIZE
}

const BLOCK_SIZE_RULE: &str = "a power of two from 512 to 65536";
const TRANSFER_RULE: &str = "a multiple of 65536 up to 4194304";

impl VdConfig {
    /// The eleven fields in their published order.
    #[must_use]
    pub const fn to_words(&self) -> [u32; 11] {
        [
            self.device_count,
            self.features.bits(),
            self.prefix_zone_size,
            self.alignment,
            self.soft_file_mark_block_size,
            self.eom_warning_size,
            self.server_time_out,
            self.block_size,
            self.max_io_depth,
            self.max_transfer_size,
            self.buffer_area_size,
        ]
    }

    /// From the eleven fields in their published order; nothing is checked.
    #[must_use]
    pub const fn from_words(words: [u32; 11]) -> Self {
        VdConfig {
            device_count: words[0],
            features: Features::from_bits_retain(words[1]),
            prefix_zone_size: words[2],
            alignment: words[3],
            soft_file_mark_block_size: words[4],
            eom_warning_size: words[5],
            server_time_out: words[6],
            block_size: words[7],
            max_io_depth: words[8],
            max_transfer_size: words[9],
            buffer_area_size: words[10],
        }
    }

    /// Validates a client's request. The server's fields are ignored; it overwrites them (**Decision**: clients reuse the
    /// struct of an earlier set).
    ///
    /// # Errors
    /// [`ConfigError`] (VD_E_NOTSUPPORTED) names the first field that is not supported.
    pub const fn validate_client(&self) -> Result<(), ConfigError> {
        const CLIENT: Author = Author::Client;
        macro_rules! check {
            ($ok:expr, $name:literal, $value:expr, $rule:expr) => {
                if let Err(error) = field($ok, CLIENT, $name, $value, $rule) {
                    return Err(error);
                }
            };
        }
        let features = self.features;
        check!(
            self.device_count >= 1 && self.device_count <= MAX_DEVICES,
            "deviceCount",
            self.device_count,
            "from 1 to 64"
        );
        check!(
            !features.intersects(Features::SERVER),
            "features",
            features.bits(),
            "without the server's bits 0x10000, 0x20000 and 0x40000"
        );
        if let Err(error) = features.device_kind() {
            return Err(ConfigError::Features(error));
        }
        check!(self.prefix_zone_size <= MAX_PREFIX_ZONE, "prefixZoneSize", self.prefix_zone_size, "at most 65536");
        check!(
            self.alignment == 0 || (self.alignment.is_power_of_two() && self.alignment <= MAX_BLOCK_SIZE),
            "alignment",
            self.alignment,
            "0 or a power of two up to 65536"
        );
        check!(
            self.soft_file_mark_block_size == 0
                || (features.contains(Features::FILE_MARKS) && is_block_size(self.soft_file_mark_block_size)),
            "softFileMarkBlockSize",
            self.soft_file_mark_block_size,
            "0, or with VDF_FileMarks a power of two from 512 to 65536"
        );
        check!(
            self.eom_warning_size == 0 || features.contains(Features::REMOVABLE),
            "EOMWarningSize",
            self.eom_warning_size,
            "0 unless VDF_Removable is set"
        );
        Ok(())
    }

    /// Validates a server's answer to `requested`: the client's fields are unchanged, the server's in range.
    ///
    /// # Errors
    /// [`ConfigError`] (VD_E_INVALID) names the first field that breaks this.
    pub fn validate_answer(&self, requested: &VdConfig) -> Result<(), ConfigError> {
        const SERVER: Author = Author::Server;
        let same = "as the client set it";
        for (name, found, set) in [
            ("deviceCount", self.device_count, requested.device_count),
            ("prefixZoneSize", self.prefix_zone_size, requested.prefix_zone_size),
            ("softFileMarkBlockSize", self.soft_file_mark_block_size, requested.soft_file_mark_block_size),
            ("EOMWarningSize", self.eom_warning_size, requested.eom_warning_size),
            ("serverTimeOut", self.server_time_out, requested.server_time_out),
        ] {
            field(found == set, SERVER, name, found, same)?;
        }
        let added = self.features.difference(requested.features);
        let direction = added & (Features::WRITE_MEDIA | Features::READ_MEDIA);
        field(
            self.features.contains(requested.features)
                && !added.intersects(Features::from_bits_retain(!Features::SERVER.bits()))
                && direction != Features::NONE,
            SERVER,
            "features",
            self.features.bits(),
            "the client's bits and VDF_WriteMedia or VDF_ReadMedia",
        )?;
        field(
            !added.contains(Features::COMPLETE_ENABLED)
                || (requested.features.contains(Features::REQUEST_COMPLETE) && added.contains(Features::WRITE_MEDIA)),
            SERVER,
            "features",
            self.features.bits(),
            "without VDF_CompleteEnabled unless the client set VDF_RequestComplete and this is a backup",
        )?;
        field(is_block_size(self.block_size), SERVER, "blockSize", self.block_size, BLOCK_SIZE_RULE)?;
        field(
            self.alignment.is_power_of_two()
                && self.alignment >= self.block_size
                && self.alignment >= requested.alignment
                && self.alignment <= MAX_BLOCK_SIZE,
            SERVER,
            "alignment",
            self.alignment,
            "a power of two, at least blockSize and the client's alignment, at most 65536",
        )?;
        field(self.max_io_depth == MAX_IO_DEPTH, SERVER, "maxIODepth", self.max_io_depth, "4")?;
        field(
            is_transfer_size(self.max_transfer_size),
            SERVER,
            "maxTransferSize",
            self.max_transfer_size,
            TRANSFER_RULE,
        )
    }
}

/// A server's arguments of BeginConfiguration.
///
/// Source: VDI specification, BeginConfiguration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTerms {
    /// [`Features::WRITE_MEDIA`] for a backup, [`Features::READ_MEDIA`] for a restore, or both.
    pub features: Features,
    /// 0 for the block size, else a power of two from the block size to [`MAX_BLOCK_SIZE`].
    pub alignment: u32,
    /// A power of two from [`MIN_BLOCK_SIZE`] to [`MAX_BLOCK_SIZE`].
    pub block_size: u32,
    /// A multiple of [`TRANSFER_UNIT`] up to [`MAX_TRANSFER_SIZE`].
    pub max_transfer_size: u32,
}

impl Default for ServerTerms {
    /// A backup with the default BLOCKSIZE and MAXTRANSFERSIZE.
    fn default() -> Self {
        ServerTerms {
            features: Features::WRITE_MEDIA,
            alignment: 0,
            block_size: MIN_BLOCK_SIZE,
            max_transfer_size: TRANSFER_UNIT,
        }
    }
}

impl ServerTerms {
    /// Combines these terms with the client's request. The buffer area's size is added at EndConfiguration.
    ///
    /// VDF_CompleteEnabled is added if the client requests Complete and the devices will be written (**Decision**: a restore
    /// has nothing to finish, and clients answer its unexpected commands with errors).
    ///
    /// # Errors
    /// [`ConfigError`]: VD_E_NOTSUPPORTED for a field of the client, VD_E_INVALID for a term out of range.
    pub fn negotiate(&self, requested: &VdConfig) -> Result<VdConfig, ConfigError> {
        requested.validate_client()?;
        let direction = Features::WRITE_MEDIA | Features::READ_MEDIA;
        field(
            self.features.intersects(direction) && self.features.difference(direction) == Features::NONE,
            Author::Server,
            "features",
            self.features.bits(),
            "VDF_WriteMedia, VDF_ReadMedia or both",
        )?;
        field(is_block_size(self.block_size), Author::Server, "blockSize", self.block_size, BLOCK_SIZE_RULE)?;
        let mut negotiated = *requested;
        negotiated.features |= self.features;
        if requested.features.contains(Features::REQUEST_COMPLETE) && self.features.contains(Features::WRITE_MEDIA) {
            negotiated.features |= Features::COMPLETE_ENABLED;
        }
        field(
            self.alignment == 0
                || (self.alignment.is_power_of_two()
                    && self.alignment >= self.block_size
                    && self.alignment <= MAX_BLOCK_SIZE),
            Author::Server,
            "alignment",
            self.alignment,
            "0 or a power of two, at least blockSize, at most 65536",
        )?;
        negotiated.block_size = self.block_size;
        negotiated.alignment = self.alignment.max(self.block_size).max(requested.alignment);
        negotiated.max_io_depth = MAX_IO_DEPTH;
        negotiated.max_transfer_size = self.max_transfer_size;
        negotiated.buffer_area_size = 0;
        negotiated.validate_answer(requested)?;
        Ok(negotiated)
    }
}
