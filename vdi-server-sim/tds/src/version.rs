//! Versions of the protocol and of the server.

use std::fmt;

use crate::error::Error;

/// A version of the protocol.
///
/// 7.2 and 7.3 are accepted too: they differ from 7.4 only in what the server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TdsVersion {
    /// SQL Server 2005.
    V7_2,
    /// SQL Server 2008 (7.3.A).
    V7_3A,
    /// SQL Server 2008 R2 (7.3.B).
    V7_3B,
    /// SQL Server 2012 and later.
    V7_4,
    /// SQL Server 2022 and later, over TLS from the first byte (strict).
    V8_0,
}

impl TdsVersion {
    /// The version to speak with a client that asks for `requested`: the highest that both know.
    ///
    /// # Errors
    /// [`Error::Version`]: older than 7.2.
    pub const fn negotiate(requested: u32) -> Result<Self, Error> {
        // A version is compared by its first byte; TDS 8 has 0x08 there, and 7.x 0x7x.
        Ok(match requested {
            0x0800_0000..=0x6FFF_FFFF => Self::V8_0,
            0x7200_0000..=0x72FF_FFFF => Self::V7_2,
            0x7300_0000..=0x730A_FFFF => Self::V7_3A,
            0x730B_0000..=0x73FF_FFFF => Self::V7_3B,
            0x7400_0000.. => Self::V7_4,
            found => return Err(Error::Version { found }),
        })
    }

    /// The number of the version in LOGINACK.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V7_2 => 0x7209_0002,
            Self::V7_3A => 0x730A_0003,
            Self::V7_3B => 0x730B_0003,
            Self::V7_4 => 0x7400_0004,
            Self::V8_0 => 0x0800_0000,
        }
    }

    /// Whether the client knows date, time, datetime2 and datetimeoffset. To another client they go as texts.
    #[must_use]
    pub fn has_date_types(self) -> bool {
        self >= Self::V7_3A
    }

    /// Whether the client reads NBCROW.
    #[must_use]
    pub fn has_compressed_rows(self) -> bool {
        self >= Self::V7_3B
    }

    /// Whether the client reads FEATUREEXTACK.
    #[must_use]
    pub fn has_features(self) -> bool {
        self >= Self::V7_4
    }
}

impl fmt::Display for TdsVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V7_2 => "7.2",
            Self::V7_3A => "7.3.A",
            Self::V7_3B => "7.3.B",
            Self::V7_4 => "7.4",
            Self::V8_0 => "8.0",
        })
    }
}

/// The version of a program: of the server, or of a client's library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProductVersion {
    /// 16 is SQL Server 2022.
    pub major: u8,
    /// The second number.
    pub minor: u8,
    /// The third number.
    pub build: u16,
    /// The fourth number; only PRELOGIN has it.
    pub sub_build: u16,
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}.{}", self.major, self.minor, self.build, self.sub_build)
    }
}
