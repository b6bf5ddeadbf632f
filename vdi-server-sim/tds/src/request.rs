//! Requests of a client that is logged in: SQL batch, RPC, transaction manager requests (\[MS-TDS\] 2.2.6).

use crate::connection::Limits;
use crate::error::Error;
use crate::packet::{Message, PacketType};
use crate::read::{Reader, utf16};
use crate::rpc::{self, Call};
use crate::transaction::TransactionRequest;

/// What stands before every request (ALL_HEADERS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The transaction that the request belongs to: 0, or a number that the server gave with ENVCHANGE.
    pub transaction: u64,
    /// Requests of the connection that run. 1 without several active results.
    pub outstanding: u32,
    /// The client's activity and the number of its step.
    pub activity: Option<([u8; 16], u32)>,
    /// The client wants to be notified when the result changes.
    pub has_notification: bool,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Statements of Transact-SQL.
    Batch {
        /// What stands before it.
        headers: Headers,
        /// The statements.
        text: String,
    },
    /// Calls of procedures. The answers come in this order.
    Rpc {
        /// What stands before it.
        headers: Headers,
        /// The calls, at least one.
        calls: Vec<Call>,
    },
    /// Begins or ends a transaction.
    Transaction {
        /// What stands before it.
        headers: Headers,
        /// What is asked.
        request: TransactionRequest,
    },
}

impl Request {
    /// Reads a request from its message.
    ///
    /// An error concerns this message alone: the next one begins at a known place. A server may answer with an error and go on, or close
    /// the connection, as SQL Server does.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: bulk load, and types that are refused. [`Error::UnexpectedMessage`]: no request. Else the contents are
    /// malformed.
    pub fn decode(message: &Message, limits: &Limits) -> Result<Self, Error> {
        let mut reader = Reader::new(&message.contents);
        match message.kind {
            PacketType::SqlBatch => {
                let headers = Headers::decode(&mut reader)?;
                let offset = reader.offset();
                let text = utf16(reader.take(reader.left(), "text of a batch")?);
                let text = text.ok_or(Error::Unicode { offset, field: "text of a batch" })?;
                Ok(Self::Batch { headers, text })
            }
            PacketType::Rpc => {
                let headers = Headers::decode(&mut reader)?;
                Ok(Self::Rpc { headers, calls: rpc::decode(&mut reader, limits)? })
            }
            PacketType::TransactionManager => {
                let headers = Headers::decode(&mut reader)?;
                let request = TransactionRequest::decode(&mut reader)?;
                reader.finish()?;
                Ok(Self::Transaction { headers, request })
            }
            PacketType::BulkLoad => Err(Error::Unsupported { offset: 0, what: "bulk load" }),
            found => Err(Error::UnexpectedMessage { expected: "a request", found }),
        }
    }
}

impl Headers {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let offset = reader.offset();
        let total = reader.u32("length of the headers")?;
        let Some(left) = (total as usize).checked_sub(4) else {
            let (least, most, found) = (4, reader.left() as u64 + 4, u64::from(total));
            return Err(Error::Range { offset, field: "length of the headers", least, most, found });
        };
        let mut list = reader.clone();
        reader.take(left, "headers")?;
        let end = reader.offset();
        let mut headers = Self { outstanding: 1, ..Self::default() };
        while list.offset() < end {
            headers.decode_one(&mut list, end)?;
        }
        Ok(headers)
    }

    fn decode_one(&mut self, list: &mut Reader<'_>, end: u64) -> Result<(), Error> {
        let offset = list.offset();
        let found = u64::from(list.u32("length of a header")?);
        let (least, most) = (6, end - offset);
        if !(least..=most).contains(&found) {
            return Err(Error::Range { offset, field: "length of a header", least, most, found });
        }
        let (kind, at) = (list.u16("type of a header")?, list.offset());
        let mut data = Reader::new(list.take(found as usize - 6, "header")?);
        let len_is = |expected: u64| {
            let found = found - 6;
            if found == expected {
                Ok(())
            } else {
                Err(Error::Field { offset: at, field: "length of a header", expected, found })
            }
        };
        match kind {
            1 => self.has_notification = true,
            2 => {
                len_is(12)?;
                self.transaction = data.u64("transaction")?;
                self.outstanding = data.u32("outstanding requests")?;
            }
            3 => {
                len_is(20)?;
                self.activity = Some((data.array("activity")?, data.u32("activity")?));
            }
            found => return Err(Error::Unknown { offset: at - 2, field: "type of a header", found: u64::from(found) }),
        }
        Ok(())
    }
}
