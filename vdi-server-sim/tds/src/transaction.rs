//! Transaction manager requests (\[MS-TDS\] 2.2.6.9).

use crate::error::Error;
use crate::read::{Reader, utf16};

/// How much a transaction sees of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of Transact-SQL")]
pub enum Isolation {
    /// That of the session.
    Current = 0,
    ReadUncommitted = 1,
    ReadCommitted = 2,
    RepeatableRead = 3,
    Serializable = 4,
    Snapshot = 5,
}

/// The start of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Its isolation level.
    pub isolation: Isolation,
    /// Its name; often empty.
    pub name: String,
}

/// A request about transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRequest {
    /// Begins a transaction.
    Begin(Begin),
    /// Commits it.
    Commit {
        /// Its name; often empty.
        name: String,
        /// A transaction that begins after it.
        then: Option<Begin>,
    },
    /// Rolls it back.
    Rollback {
        /// Its name, or that of a savepoint; often empty.
        name: String,
        /// A transaction that begins after it.
        then: Option<Begin>,
    },
    /// Sets a savepoint.
    Save {
        /// Its name, which is not empty.
        name: String,
    },
}

impl TransactionRequest {
    /// Reads the request behind the headers. Distributed transactions are refused.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let offset = reader.offset();
        match reader.u16("type of a transaction request")? {
            0 | 1 | 6 => Err(Error::Unsupported { offset, what: "a distributed transaction" }),
            5 => Ok(Self::Begin(begin(reader)?)),
            7 => Ok(Self::Commit { name: name(reader)?, then: then(reader)? }),
            8 => Ok(Self::Rollback { name: name(reader)?, then: then(reader)? }),
            9 => {
                let offset = reader.offset();
                let name = name(reader)?;
                if name.is_empty() {
                    let (least, most) = (1, 255);
                    return Err(Error::Range { offset, field: "length of a savepoint's name", least, most, found: 0 });
                }
                Ok(Self::Save { name })
            }
            found => Err(Error::Unknown { offset, field: "type of a transaction request", found: u64::from(found) }),
        }
    }
}

/// A name: UTF-16 after its length in bytes.
fn name(reader: &mut Reader<'_>) -> Result<String, Error> {
    const FIELD: &str = "name of a transaction";
    let offset = reader.offset();
    let len = reader.u8(FIELD)?;
    utf16(reader.take(usize::from(len), FIELD)?).ok_or(Error::Unicode { offset, field: FIELD })
}

fn begin(reader: &mut Reader<'_>) -> Result<Begin, Error> {
    let offset = reader.offset();
    let isolation = match reader.u8("isolation level")? {
        0 => Isolation::Current,
        1 => Isolation::ReadUncommitted,
        2 => Isolation::ReadCommitted,
        3 => Isolation::RepeatableRead,
        4 => Isolation::Serializable,
        5 => Isolation::Snapshot,
        found => return Err(Error::Unknown { offset, field: "isolation level", found: u64::from(found) }),
    };
    Ok(Begin { isolation, name: name(reader)? })
}

/// The transaction that begins at once. Clients may send its fields also where they ask for none.
fn then(reader: &mut Reader<'_>) -> Result<Option<Begin>, Error> {
    let flags = reader.u8("flags of a transaction request")?;
    let begin = if reader.is_empty() && flags & 1 == 0 { None } else { Some(begin(reader)?) };
    Ok(begin.filter(|_| flags & 1 != 0))
}
