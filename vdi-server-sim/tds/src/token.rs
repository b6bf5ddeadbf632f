//! What a response is made of (tokens, \[MS-TDS\] 2.2.7).

use crate::collation::Collation;
use crate::types::DataType;
use crate::value::Value;
use crate::version::ProductVersion;

/// Numbers of the tokens.
pub(crate) mod id {
    pub(crate) const RETURN_STATUS: u8 = 0x79;
    pub(crate) const COL_METADATA: u8 = 0x81;
    pub(crate) const ORDER: u8 = 0xA9;
    pub(crate) const ERROR: u8 = 0xAA;
    pub(crate) const INFO: u8 = 0xAB;
    pub(crate) const RETURN_VALUE: u8 = 0xAC;
    pub(crate) const LOGIN_ACK: u8 = 0xAD;
    pub(crate) const FEATURE_EXT_ACK: u8 = 0xAE;
    pub(crate) const ROW: u8 = 0xD1;
    pub(crate) const NBC_ROW: u8 = 0xD2;
    pub(crate) const ENV_CHANGE: u8 = 0xE3;
    pub(crate) const DONE: u8 = 0xFD;
    pub(crate) const DONE_PROC: u8 = 0xFE;
    pub(crate) const DONE_IN_PROC: u8 = 0xFF;
}

/// LOGINACK: the login succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAck {
    /// The server's program: `Microsoft SQL Server`, to which clients may compare.
    pub program: String,
    /// Its version.
    pub version: ProductVersion,
}

/// ENVCHANGE: something about the session changed. Names are cut to 255 UTF-16 code units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvChange {
    /// The current database.
    Database {
        /// The new one.
        new: String,
        /// The one before; empty in the answer to a login.
        old: String,
    },
    /// The language of messages.
    Language {
        /// The new one.
        new: String,
        /// The one before.
        old: String,
    },
    /// The size of packets.
    PacketSize {
        /// The new one.
        new: u16,
        /// The one before.
        old: u16,
    },
    /// The collation of the current database.
    Collation {
        /// The new one.
        new: Collation,
        /// The one before; `None` in the answer to a login.
        old: Option<Collation>,
    },
    /// A transaction began. Requests then name its number.
    Begin {
        /// Its number, which is not 0.
        transaction: u64,
    },
    /// It was committed.
    Commit {
        /// Its number.
        transaction: u64,
    },
    /// It was rolled back.
    Rollback {
        /// Its number.
        transaction: u64,
    },
    /// The session's settings are at their defaults, as the client asked with its request.
    Reset,
}

/// INFO or ERROR.
///
/// The text is cut to 8,000 UTF-16 code units, the names to 255.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMessage {
    /// The message's number.
    pub number: i32,
    /// Its state, which tells places that raise it apart.
    pub state: u8,
    /// Its severity: up to 10 for information, from 11 for errors.
    pub severity: u8,
    /// The text.
    pub text: String,
    /// The server.
    pub server: String,
    /// The procedure that runs; empty in a batch.
    pub procedure: String,
    /// The line in the batch or procedure, from 1; 0 if it belongs to none.
    pub line: u32,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name; cut to 255 UTF-16 code units. Empty: it has none.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether NULL may come.
    pub is_nullable: bool,
    /// Whether the server numbers it.
    pub is_identity: bool,
}

impl Column {
    /// A column that may be NULL.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), data_type, is_nullable: true, is_identity: false }
    }

    /// The same column without NULL.
    #[must_use]
    pub fn not_null(mut self) -> Self {
        self.is_nullable = false;
        self
    }
}

/// RETURNVALUE: what an OUTPUT parameter has in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct ReturnValue {
    /// The parameter's name with its `@`.
    pub name: String,
    /// The parameter's position in the call, from 0.
    pub ordinal: u16,
    /// Its type.
    pub data_type: DataType,
    /// Its value.
    pub value: Value,
}

/// What ends with a DONE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneKind {
    /// A statement of a batch: DONE.
    Statement,
    /// A statement inside of a procedure: DONEINPROC.
    InProcedure,
    /// A procedure: DONEPROC.
    Procedure,
}

/// The end of a statement or procedure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// More follows in this response. The last DONE of a response has it not.
    pub more: bool,
    /// The statement failed; its ERROR came before.
    pub error: bool,
    /// A transaction is active.
    pub in_transaction: bool,
    /// The number of rows that were returned or changed, if the statement counts.
    pub rows: Option<u64>,
    /// Answers an attention.
    pub attention: bool,
    /// The statement failed so that its result is to be discarded.
    pub server_error: bool,
    /// The kind of statement, see [`command`].
    pub command: u16,
}

impl Done {
    /// The bits of the status.
    pub(crate) fn status(self) -> u16 {
        u16::from(self.more)
            | u16::from(self.error) << 1
            | u16::from(self.in_transaction) << 2
            | u16::from(self.rows.is_some()) << 4
            | u16::from(self.attention) << 5
            | u16::from(self.server_error) << 8
    }
}

/// Kinds of statements in a DONE. The specification leaves them to the server. FreeTDS and its relatives know these.
pub mod command {
    /// SELECT.
    pub const SELECT: u16 = 0xC1;
    /// INSERT.
    pub const INSERT: u16 = 0xC3;
    /// DELETE.
    pub const DELETE: u16 = 0xC4;
    /// UPDATE.
    pub const UPDATE: u16 = 0xC5;
}
