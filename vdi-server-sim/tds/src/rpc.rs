//! Calls of procedures (\[MS-TDS\] 2.2.6.6).

use crate::codec;
use crate::connection::Limits;
use crate::error::Error;
use crate::read::Reader;
use crate::types::DataType;
use crate::value::Value;

/// Instead of the length of a name: a number follows.
const BY_ID: u16 = u16::MAX;

/// What stands between two calls.
mod separator {
    /// The first form, of before 7.2.
    pub(super) const OLD: u8 = 0x80;
    pub(super) const BATCH: u8 = 0xFF;
    /// The call before it is not executed.
    pub(super) const NO_EXECUTE: u8 = 0xFE;
}

/// A procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Procedure {
    /// By its name.
    Name(String),
    /// One of those that have a number.
    Id(ProcedureId),
}

impl Procedure {
    /// The name, also of one with a number.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Id(id) => id.name(),
        }
    }
}

macro_rules! procedures {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// A procedure with a number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are those of the procedures")]
        pub enum ProcedureId {
            $($name = $number,)*
        }

        impl ProcedureId {
            /// The procedure with this number.
            #[must_use]
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name of the procedure.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

procedures! {
    Cursor = 1 "sp_cursor",
    CursorOpen = 2 "sp_cursoropen",
    CursorPrepare = 3 "sp_cursorprepare",
    CursorExecute = 4 "sp_cursorexecute",
    CursorPrepExec = 5 "sp_cursorprepexec",
    CursorUnprepare = 6 "sp_cursorunprepare",
    CursorFetch = 7 "sp_cursorfetch",
    CursorOption = 8 "sp_cursoroption",
    CursorClose = 9 "sp_cursorclose",
    ExecuteSql = 10 "sp_executesql",
    Prepare = 11 "sp_prepare",
    Execute = 12 "sp_execute",
    PrepExec = 13 "sp_prepexec",
    PrepExecRpc = 14 "sp_prepexecrpc",
    Unprepare = 15 "sp_unprepare",
}

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What is called.
    pub procedure: Procedure,
    /// The client wants it to be compiled again.
    pub recompile: bool,
    /// The client does not need COLMETADATA.
    pub no_metadata: bool,
    /// The call is answered with an error instead of being executed.
    pub no_execute: bool,
    /// The parameters, in the order in which they came.
    pub parameters: Vec<Parameter>,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The name with its `@`. Empty: by position.
    pub name: String,
    /// OUTPUT: its value comes back in a RETURNVALUE.
    pub by_ref: bool,
    /// The procedure's default value is wanted. The value here is of no meaning.
    pub is_default: bool,
    /// Its type.
    pub data_type: DataType,
    /// Its value.
    pub value: Value,
}

/// Reads all calls of a message.
pub(crate) fn decode(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<Call>, Error> {
    let (mut calls, mut parameters) = (Vec::new(), 0);
    loop {
        count(calls.len() + 1, limits.calls, reader, "calls in a message")?;
        let mut call = decode_call(reader, limits, &mut parameters)?;
        if let Some(separator) = reader.peek() {
            reader.u8("separator")?;
            call.no_execute = separator == separator::NO_EXECUTE;
        }
        calls.push(call);
        // A separator may also stand behind the last call.
        if reader.is_empty() {
            return Ok(calls);
        }
    }
}

fn count(found: usize, most: usize, reader: &Reader<'_>, field: &'static str) -> Result<(), Error> {
    if found <= most {
        return Ok(());
    }
    Err(Error::Range { offset: reader.offset(), field, least: 0, most: most as u64, found: found as u64 })
}

/// Reads a call. `total`: the parameters of all calls so far.
fn decode_call(reader: &mut Reader<'_>, limits: &Limits, total: &mut usize) -> Result<Call, Error> {
    let offset = reader.offset();
    let procedure = match reader.u16("name of a procedure")? {
        BY_ID => {
            let number = reader.u16("number of a procedure")?;
            let found = u64::from(number);
            let id = ProcedureId::from_u16(number);
            Procedure::Id(id.ok_or(Error::Unknown { offset, field: "number of a procedure", found })?)
        }
        // Four parts of 128 characters, in brackets and with points.
        units @ 1..=1046 => Procedure::Name(reader.utf16(usize::from(units), "name of a procedure")?),
        units => {
            let (least, most, found) = (1, 1046, u64::from(units));
            return Err(Error::Range { offset, field: "length of a procedure's name", least, most, found });
        }
    };
    let options = reader.u16("options of a call")?;
    let mut parameters = Vec::new();
    while let Some(byte) = reader.peek() {
        // A name has at most 128 characters, so that the separators cannot be its length.
        if matches!(byte, separator::BATCH | separator::NO_EXECUTE) || byte == separator::OLD && !is_name(reader) {
            break;
        }
        *total += 1;
        count(parameters.len() + 1, limits.parameters, reader, "parameters of a call")?;
        count(*total, limits.parameters_of_message, reader, "parameters of a message")?;
        parameters.push(decode_parameter(reader)?);
    }
    Ok(Call { procedure, recompile: options & 1 != 0, no_metadata: options & 2 != 0, no_execute: false, parameters })
}

/// Whether 0x80, the old separator, is the length of a name of 128 characters: then an `@` follows.
fn is_name(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.clone();
    ahead.array("name of a parameter").is_ok_and(|[_, low, high]: [u8; 3]| (low, high) == (b'@', 0))
}

fn decode_parameter(reader: &mut Reader<'_>) -> Result<Parameter, Error> {
    const ENCRYPTED: u8 = 0x08;
    let name = reader.b_varchar("name of a parameter")?;
    let offset = reader.offset();
    let flags = reader.u8("flags of a parameter")?;
    if flags & ENCRYPTED != 0 {
        return Err(Error::Unsupported { offset, what: "an encrypted parameter" });
    }
    let (data_type, has_len) = DataType::decode(reader)?;
    let value = codec::decode(reader, &data_type, has_len)?;
    Ok(Parameter { name, by_ref: flags & 1 != 0, is_default: flags & 2 != 0, data_type, value })
}
