//! Features of a login beyond the fixed fields, and what the server answers (\[MS-TDS\] 2.2.6.4, 2.2.7.11).

use crate::error::Error;
use crate::read::Reader;

/// Numbers of the features.
mod id {
    pub(super) const SESSION_RECOVERY: u8 = 0x01;
    pub(super) const FEDERATED: u8 = 0x02;
    pub(super) const COLUMN_ENCRYPTION: u8 = 0x04;
    pub(super) const GLOBAL_TRANSACTIONS: u8 = 0x05;
    pub(super) const DATA_CLASSIFICATION: u8 = 0x09;
    pub(super) const UTF8: u8 = 0x0A;
    pub(super) const AZURE_SQL_DNS_CACHING: u8 = 0x0B;
    pub(super) const END: u8 = 0xFF;
}

/// A feature that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// The client restores a session on a new connection. The state, where this is such a connection; else empty.
    SessionRecovery(Vec<u8>),
    /// The client authenticates through a directory service, which this crate does not support.
    FederatedAuthentication(Vec<u8>),
    /// The client encrypts columns, in this version.
    ColumnEncryption(u8),
    /// The client knows global transactions.
    GlobalTransactions,
    /// The client reads classifications of data, in this version.
    DataClassification(u8),
    /// Whether the client reads UTF-8 in varchar.
    Utf8(bool),
    /// The client may keep the addresses of a name.
    AzureSqlDnsCaching,
    /// Another feature.
    Other {
        /// Its number.
        id: u8,
        /// Its data.
        data: Vec<u8>,
    },
}

impl Feature {
    /// Reads the list of features that begins at `offset`.
    pub(crate) fn decode_list(contents: &[u8], offset: u32) -> Result<Vec<Self>, Error> {
        let mut list = Reader::new(contents);
        list.take(offset as usize, "features")?;
        let mut features = Vec::new();
        loop {
            let id = list.u8("feature")?;
            if id == id::END {
                return Ok(features);
            }
            let len = list.u32("length of a feature")?;
            let at = list.offset();
            let data = list.take(len as usize, "feature")?;
            let byte = || match data {
                [byte] => Ok(*byte),
                _ => Err(Error::Field { offset: at, field: "length of a feature", expected: 1, found: u64::from(len) }),
            };
            features.push(match id {
                id::SESSION_RECOVERY => Self::SessionRecovery(data.to_vec()),
                id::FEDERATED => Self::FederatedAuthentication(data.to_vec()),
                id::COLUMN_ENCRYPTION => Self::ColumnEncryption(byte()?),
                id::GLOBAL_TRANSACTIONS => Self::GlobalTransactions,
                id::DATA_CLASSIFICATION => Self::DataClassification(byte()?),
                // Microsoft's driver for Java sends it without data.
                id::UTF8 => Self::Utf8(data.is_empty() || byte()? & 1 != 0),
                id::AZURE_SQL_DNS_CACHING => Self::AzureSqlDnsCaching,
                _ => Self::Other { id, data: data.to_vec() },
            });
        }
    }

    /// The answer of a server without anything special.
    ///
    /// UTF-8 is accepted; caching and classification are answered as off. The others are not acknowledged, which is how a server says
    /// that it lacks them: an acknowledged column encryption changes COLMETADATA, and session recovery obliges to restore sessions.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: authentication through a directory service, which a server cannot ignore.
    pub fn answer(&self) -> Result<Option<FeatureAnswer>, Error> {
        match self {
            Self::FederatedAuthentication(_) => {
                Err(Error::Unsupported { offset: 0, what: "authentication through a directory service (FEDAUTH)" })
            }
            Self::Utf8(_) => Ok(Some(FeatureAnswer::Utf8(true))),
            Self::AzureSqlDnsCaching => Ok(Some(FeatureAnswer::AzureSqlDnsCaching(false))),
            // Versions 1 and 2 are known.
            Self::DataClassification(version) => {
                Ok(Some(FeatureAnswer::DataClassification { version: (*version).clamp(1, 2), is_enabled: false }))
            }
            _ => Ok(None),
        }
    }
}

/// What a server answers to a feature. It may only answer what the client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeatureAnswer {
    /// Whether global transactions work.
    GlobalTransactions(bool),
    /// The version of data classification, and whether the server sends it.
    DataClassification {
        /// 1 or 2.
        version: u8,
        /// Whether it is on.
        is_enabled: bool,
    },
    /// Whether varchar may be UTF-8.
    Utf8(bool),
    /// Whether the client may keep the server's addresses.
    AzureSqlDnsCaching(bool),
    /// Another feature.
    Other {
        /// Its number.
        id: u8,
        /// The data of the answer.
        data: Vec<u8>,
    },
}

impl FeatureAnswer {
    /// Number and data.
    pub(crate) fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::GlobalTransactions(works) => (id::GLOBAL_TRANSACTIONS, vec![u8::from(*works)]),
            Self::DataClassification { version, is_enabled } => {
                (id::DATA_CLASSIFICATION, vec![*version, u8::from(*is_enabled)])
            }
            Self::Utf8(works) => (id::UTF8, vec![u8::from(*works)]),
            Self::AzureSqlDnsCaching(works) => (id::AZURE_SQL_DNS_CACHING, vec![u8::from(*works)]),
            Self::Other { id, data } => (*id, data.clone()),
        }
    }
}
