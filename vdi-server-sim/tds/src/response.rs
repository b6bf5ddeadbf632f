//! A response: tokens, cut into packets.

use crate::codec;
use crate::error::Error;
use crate::feature::FeatureAnswer;
use crate::packet::{PacketType, PacketWriter};
use crate::token::{Column, Done, DoneKind, EnvChange, LoginAck, ReturnValue, ServerMessage, id};
use crate::types::DataType;
use crate::value::Value;
use crate::version::TdsVersion;
use crate::write::{put_b_varbyte, put_b_varchar, put_us_varchar, with_len16};

/// The longest text of a message, in UTF-16 code units: what PRINT can say in varchar.
const MAX_TEXT: u16 = 8000;
/// The most columns of a result, as in SQL Server.
const MAX_COLUMNS: u64 = 4096;

/// A response to a login or a request.
///
/// Tokens go in, packets come out: complete ones with [`packets`](Self::packets), all so far with [`flush`](Self::flush), the rest with
/// [`finish`](Self::finish). A token that fails leaves no trace, so that an ERROR can follow.
///
/// ```
/// use vdi_tds::connection::{Connection, Limits};
/// use vdi_tds::token::{Column, Done, DoneKind, command};
/// use vdi_tds::types::DataType;
/// use vdi_tds::value::Value;
///
/// let mut response = Connection::new(Limits::default()).response();
/// response.columns(&[Column::new("name", DataType::nvarchar(128)), Column::new("id", DataType::Int).not_null()])?;
/// response.row(&["master".into(), Value::Int(1)])?;
/// response.done(DoneKind::Statement, Done { rows: Some(1), command: command::SELECT, ..Done::default() });
/// let to_send = response.finish();
/// # assert_eq!(to_send[..2], [4, 1]);
/// # Ok::<(), vdi_tds::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    version: TdsVersion,
    writer: PacketWriter,
    /// The token that is being written.
    token: Vec<u8>,
    packets: Vec<u8>,
    /// The types of the columns, and whether their values have a length before them.
    columns: Vec<(DataType, bool)>,
}

impl Response {
    pub(crate) fn new(version: TdsVersion, packet_size: u16, spid: u16) -> Self {
        let writer = PacketWriter::new(PacketType::Response, packet_size, spid);
        Self { version, writer, token: Vec::new(), packets: Vec::new(), columns: Vec::new() }
    }

    /// Complete packets, which can be sent.
    #[must_use]
    pub fn packets(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.packets)
    }

    /// The bytes of complete packets that [`packets`](Self::packets) would return.
    #[must_use]
    pub fn packets_len(&self) -> usize {
        self.packets.len()
    }

    /// All so far, also where it does not fill a packet: for messages that a client is to see while a statement runs.
    #[must_use]
    pub fn flush(&mut self) -> Vec<u8> {
        self.writer.flush(&mut self.packets);
        self.packets()
    }

    /// Ends the response. Returns what was not taken yet.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.writer.finish(&mut self.packets);
        self.packets
    }

    fn end_token(&mut self) {
        self.writer.write(&self.token, &mut self.packets);
        self.token.clear();
    }

    /// Writes a token that may fail.
    fn try_token(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
        self.token.clear();
        write(&mut self.token)?;
        self.end_token();
        Ok(())
    }

    /// Writes a token with its length behind its number.
    fn sized_token(&mut self, id: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.token.clear();
        self.token.push(id);
        with_len16(&mut self.token, write);
        self.end_token();
    }

    /// LOGINACK.
    pub fn login_ack(&mut self, ack: &LoginAck) {
        let version = self.version.number();
        self.sized_token(id::LOGIN_ACK, |out| {
            // Transact-SQL.
            out.push(1);
            out.extend(version.to_be_bytes());
            put_b_varchar(out, &ack.program);
            out.extend([ack.version.major, ack.version.minor]);
            out.extend(ack.version.build.to_be_bytes());
        });
    }

    /// FEATUREEXTACK. Nothing if there are no answers, or if the client does not read them (before TDS 7.4).
    pub fn features(&mut self, answers: &[FeatureAnswer]) {
        if answers.is_empty() || !self.version.has_features() {
            return;
        }
        self.token.clear();
        self.token.push(id::FEATURE_EXT_ACK);
        for answer in answers {
            let (id, data) = answer.parts();
            self.token.push(id);
            self.token.extend((data.len() as u32).to_le_bytes());
            self.token.extend(data);
        }
        self.token.push(0xFF);
        self.end_token();
    }

    /// ENVCHANGE.
    pub fn env_change(&mut self, change: &EnvChange) {
        self.sized_token(id::ENV_CHANGE, |out| match change {
            EnvChange::Database { new, old } => put_texts(out, 1, new, old),
            EnvChange::Language { new, old } => put_texts(out, 2, new, old),
            EnvChange::PacketSize { new, old } => put_texts(out, 4, &new.to_string(), &old.to_string()),
            EnvChange::Collation { new, old } => {
                put_bytes(out, 7, &new.0, old.as_ref().map_or(&[], |old| &old.0));
            }
            EnvChange::Begin { transaction } => put_bytes(out, 8, &transaction.to_le_bytes(), &[]),
            EnvChange::Commit { transaction } => put_bytes(out, 9, &[], &transaction.to_le_bytes()),
            EnvChange::Rollback { transaction } => put_bytes(out, 10, &[], &transaction.to_le_bytes()),
            EnvChange::Reset => put_bytes(out, 18, &[], &[]),
        });
    }

    /// INFO: a message that is no error.
    pub fn info(&mut self, message: &ServerMessage) {
        self.message(id::INFO, message);
    }

    /// ERROR.
    pub fn error(&mut self, message: &ServerMessage) {
        self.message(id::ERROR, message);
    }

    fn message(&mut self, id: u8, message: &ServerMessage) {
        self.sized_token(id, |out| {
            out.extend(message.number.to_le_bytes());
            out.extend([message.state, message.severity]);
            put_us_varchar(out, &message.text, MAX_TEXT);
            put_b_varchar(out, &message.server);
            put_b_varchar(out, &message.procedure);
            out.extend(message.line.to_le_bytes());
        });
    }

    /// COLMETADATA: begins a result.
    ///
    /// # Errors
    /// More than 4,096 columns; a type with a length that it cannot have; text, ntext and image; types of dates that the client's version
    /// lacks ([`TdsVersion::has_date_types`]).
    pub fn columns(&mut self, columns: &[Column]) -> Result<(), Error> {
        let found = columns.len() as u64;
        if found > MAX_COLUMNS {
            return Err(Error::ValueSize { data_type: "result", most: MAX_COLUMNS, found });
        }
        let has_dates = self.version.has_date_types();
        self.try_token(|out| {
            out.push(id::COL_METADATA);
            out.extend((columns.len() as u16).to_le_bytes());
            for column in columns {
                if !has_dates && is_date_type(&column.data_type) {
                    return Err(Error::Unsupported { offset: 0, what: "a type of dates, for a client of TDS 7.2" });
                }
                // The type of a user: none.
                out.extend([0; 4]);
                // Whether the column can be updated is not known (8).
                let flags = u16::from(column.is_nullable) | 8 | u16::from(column.is_identity) << 4;
                out.extend(flags.to_le_bytes());
                column.data_type.encode(column.is_nullable, out)?;
                put_b_varchar(out, &column.name);
            }
            Ok(())
        })?;
        self.columns.clear();
        self.columns.extend(columns.iter().map(|column| (column.data_type, has_len(column))));
        Ok(())
    }

    /// ROW, or NBCROW where that is shorter and the client reads it: a row of the result that [`columns`](Self::columns) began.
    ///
    /// # Errors
    /// [`Error::RowLength`], [`Error::ValueKind`], [`Error::ValueSize`].
    pub fn row(&mut self, values: &[Value]) -> Result<(), Error> {
        let columns = std::mem::take(&mut self.columns);
        let (expected, found) = (columns.len(), values.len());
        let result = if expected == found {
            let is_compressed = self.version.has_compressed_rows() && saves(&columns, values);
            self.try_token(|out| put_row(out, &columns, values, is_compressed))
        } else {
            Err(Error::RowLength { expected, found })
        };
        self.columns = columns;
        result
    }

    /// ORDER: the columns that the rows are sorted by, from 1. It stands between columns and rows.
    pub fn order(&mut self, columns: &[u16]) {
        let most = columns.len().min(MAX_COLUMNS as usize);
        self.sized_token(id::ORDER, |out| out.extend(columns[..most].iter().flat_map(|column| column.to_le_bytes())));
    }

    /// RETURNSTATUS: what a procedure returned.
    pub fn return_status(&mut self, status: i32) {
        self.token.clear();
        self.token.push(id::RETURN_STATUS);
        self.token.extend(status.to_le_bytes());
        self.end_token();
    }

    /// RETURNVALUE: what an OUTPUT parameter has.
    ///
    /// # Errors
    /// The value does not belong to its type.
    pub fn return_value(&mut self, value: &ReturnValue) -> Result<(), Error> {
        self.try_token(|out| {
            out.push(id::RETURN_VALUE);
            out.extend(value.ordinal.to_le_bytes());
            put_b_varchar(out, &value.name);
            // An OUTPUT parameter (1); no type of a user; no flags.
            out.push(1);
            out.extend([0; 6]);
            value.data_type.encode(true, out)?;
            codec::encode(&value.value, &value.data_type, true, out)
        })
    }

    /// DONE, DONEINPROC or DONEPROC.
    pub fn done(&mut self, kind: DoneKind, done: Done) {
        self.token.clear();
        self.token.push(match kind {
            DoneKind::Statement => id::DONE,
            DoneKind::InProcedure => id::DONE_IN_PROC,
            DoneKind::Procedure => id::DONE_PROC,
        });
        self.token.extend(done.status().to_le_bytes());
        self.token.extend(done.command.to_le_bytes());
        self.token.extend(done.rows.unwrap_or(0).to_le_bytes());
        self.end_token();
    }
}

fn put_texts(out: &mut Vec<u8>, kind: u8, new: &str, old: &str) {
    out.push(kind);
    put_b_varchar(out, new);
    put_b_varchar(out, old);
}

fn put_bytes(out: &mut Vec<u8>, kind: u8, new: &[u8], old: &[u8]) {
    out.push(kind);
    put_b_varbyte(out, new);
    put_b_varbyte(out, old);
}

fn is_date_type(data_type: &DataType) -> bool {
    use DataType::{Date, DateTime2, DateTimeOffset, Time};
    matches!(data_type, Date | Time { .. } | DateTime2 { .. } | DateTimeOffset { .. })
}

/// Whether the values of a column have a length before them.
fn has_len(column: &Column) -> bool {
    column.is_nullable || !column.data_type.has_bare_form()
}

/// Whether the NULLs of a row take more bytes than NBCROW's bits.
fn saves(columns: &[(DataType, bool)], values: &[Value]) -> bool {
    let nulls = columns.iter().zip(values).filter(|(_, value)| **value == Value::Null);
    let saved: usize = nulls.map(|((data_type, _), _)| data_type.null_len()).sum();
    saved > columns.len().div_ceil(8)
}

fn put_row(
    out: &mut Vec<u8>,
    columns: &[(DataType, bool)],
    values: &[Value],
    is_compressed: bool,
) -> Result<(), Error> {
    out.push(if is_compressed { id::NBC_ROW } else { id::ROW });
    if is_compressed {
        let at = out.len();
        out.resize(at + columns.len().div_ceil(8), 0);
        for (column, value) in values.iter().enumerate() {
            out[at + column / 8] |= u8::from(*value == Value::Null) << (column % 8);
        }
    }
    for ((data_type, has_len), value) in columns.iter().zip(values) {
        if is_compressed && *value == Value::Null {
            if !has_len {
                return Err(Error::ValueKind { expected: data_type.name(), found: value.kind() });
            }
        } else {
            codec::encode(value, data_type, *has_len, out)?;
        }
    }
    Ok(())
}
