//! Types of columns and parameters (TYPE_INFO, \[MS-TDS\] 2.2.5.4 and 2.2.5.6).

use crate::collation::Collation;
use crate::error::Error;
use crate::read::Reader;

/// Tokens of the types.
pub(crate) mod token {
    pub(crate) const NULL: u8 = 0x1F;
    pub(crate) const IMAGE: u8 = 0x22;
    pub(crate) const TEXT: u8 = 0x23;
    pub(crate) const GUID: u8 = 0x24;
    pub(crate) const INT_N: u8 = 0x26;
    pub(crate) const DATE: u8 = 0x28;
    pub(crate) const TIME: u8 = 0x29;
    pub(crate) const DATETIME2: u8 = 0x2A;
    pub(crate) const DATETIMEOFFSET: u8 = 0x2B;
    pub(crate) const INT1: u8 = 0x30;
    pub(crate) const BIT: u8 = 0x32;
    pub(crate) const INT2: u8 = 0x34;
    pub(crate) const INT4: u8 = 0x38;
    pub(crate) const DATETIME4: u8 = 0x3A;
    pub(crate) const FLOAT4: u8 = 0x3B;
    pub(crate) const MONEY: u8 = 0x3C;
    pub(crate) const DATETIME: u8 = 0x3D;
    pub(crate) const FLOAT8: u8 = 0x3E;
    pub(crate) const VARIANT: u8 = 0x62;
    pub(crate) const NTEXT: u8 = 0x63;
    pub(crate) const BIT_N: u8 = 0x68;
    pub(crate) const DECIMAL_N: u8 = 0x6A;
    pub(crate) const NUMERIC_N: u8 = 0x6C;
    pub(crate) const FLOAT_N: u8 = 0x6D;
    pub(crate) const MONEY_N: u8 = 0x6E;
    pub(crate) const DATETIME_N: u8 = 0x6F;
    pub(crate) const MONEY4: u8 = 0x7A;
    pub(crate) const INT8: u8 = 0x7F;
    pub(crate) const VARBINARY: u8 = 0xA5;
    pub(crate) const VARCHAR: u8 = 0xA7;
    pub(crate) const BINARY: u8 = 0xAD;
    pub(crate) const CHAR: u8 = 0xAF;
    pub(crate) const NVARCHAR: u8 = 0xE7;
    pub(crate) const NCHAR: u8 = 0xEF;
}

/// The longest value of a type with a limited length, in bytes.
pub const MAX_LIMITED: u16 = 8000;

/// The length of sql_variant: 8,000 bytes, with the type and its properties.
const MAX_VARIANT: u32 = 8009;

/// The length of varchar, nvarchar and varbinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// At most this many: bytes (up to 8,000), or for nvarchar UTF-16 code units (up to 4,000).
    Limited(u16),
    /// `max`: up to 2 GiB.
    Max,
}

/// A type, with what belongs to it.
///
/// | type | kind of its values |
/// |---|---|
/// | `SmallMoney`, `Money` | [`Value::Money`](crate::value::Value::Money) |
/// | `Decimal`, `Numeric` | [`Value::Decimal`](crate::value::Value::Decimal), of the same scale |
/// | the types of characters | [`Value::Text`](crate::value::Value::Text) |
/// | the types of bytes | [`Value::Binary`](crate::value::Value::Binary) |
/// | `Variant` | most, see there |
/// | any other | that of its name |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of SQL Server's types")]
pub enum DataType {
    /// Of a parameter without a type. Its value is NULL.
    Null,
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Real,
    Float,
    SmallMoney,
    Money,
    SmallDateTime,
    DateTime,
    Date,
    /// With up to seven decimal places of a second.
    Time {
        scale: u8,
    },
    DateTime2 {
        scale: u8,
    },
    DateTimeOffset {
        scale: u8,
    },
    /// Of `precision` digits (1 to 38), of which `scale` follow the decimal point.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Numeric {
        precision: u8,
        scale: u8,
    },
    UniqueIdentifier,
    /// Of exactly `len` bytes. A shorter text is filled with blanks.
    Char {
        len: u16,
        collation: Collation,
    },
    VarChar {
        len: Length,
        collation: Collation,
    },
    /// Of exactly `len` UTF-16 code units. A shorter text is filled with blanks.
    NChar {
        len: u16,
        collation: Collation,
    },
    NVarChar {
        len: Length,
        collation: Collation,
    },
    /// Of exactly `len` bytes. A shorter value is filled with zeros.
    Binary {
        len: u16,
    },
    VarBinary {
        len: Length,
    },
    /// As a parameter only.
    Text {
        collation: Collation,
    },
    /// As a parameter only.
    NText {
        collation: Collation,
    },
    /// As a parameter only.
    Image,
    /// sql_variant, as a column only: some columns of catalog views have a type of its own in each row. It takes numbers, texts, bytes,
    /// smalldatetime, datetime and uniqueidentifier.
    Variant,
}

impl DataType {
    /// nvarchar of `len` UTF-16 code units with the collation of an American server: what most columns of catalog views are.
    #[must_use]
    pub const fn nvarchar(len: u16) -> Self {
        Self::NVarChar { len: Length::Limited(len), collation: Collation::SQL_LATIN1_GENERAL_CP1_CI_AS }
    }

    /// The name of the type in Transact-SQL.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bit => "bit",
            Self::TinyInt => "tinyint",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Float => "float",
            Self::SmallMoney => "smallmoney",
            Self::Money => "money",
            Self::SmallDateTime => "smalldatetime",
            Self::DateTime => "datetime",
            Self::Date => "date",
            Self::Time { .. } => "time",
            Self::DateTime2 { .. } => "datetime2",
            Self::DateTimeOffset { .. } => "datetimeoffset",
            Self::Decimal { .. } => "decimal",
            Self::Numeric { .. } => "numeric",
            Self::UniqueIdentifier => "uniqueidentifier",
            Self::Char { .. } => "char",
            Self::VarChar { .. } => "varchar",
            Self::NChar { .. } => "nchar",
            Self::NVarChar { .. } => "nvarchar",
            Self::Binary { .. } => "binary",
            Self::VarBinary { .. } => "varbinary",
            Self::Text { .. } => "text",
            Self::NText { .. } => "ntext",
            Self::Image => "image",
            Self::Variant => "sql_variant",
        }
    }

    /// The length of a value that is not NULL, for the types where all have the same.
    pub(crate) const fn fixed_len(&self) -> Option<u8> {
        Some(match self {
            Self::Bit | Self::TinyInt => 1,
            Self::SmallInt => 2,
            Self::Int | Self::Real | Self::SmallMoney | Self::SmallDateTime => 4,
            Self::BigInt | Self::Float | Self::Money | Self::DateTime => 8,
            Self::Date => 3,
            Self::Time { scale } => time_len(*scale),
            Self::DateTime2 { scale } => time_len(*scale) + 3,
            Self::DateTimeOffset { scale } => time_len(*scale) + 5,
            Self::UniqueIdentifier => 16,
            _ => return None,
        })
    }

    /// Reads a TYPE_INFO. The second value: whether each value has a length before it (true), or always the length of its type.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<(Self, bool), Error> {
        let offset = reader.offset();
        let token = reader.u8("type")?;
        let fixed = match token {
            token::NULL => Some(Self::Null),
            token::INT1 => Some(Self::TinyInt),
            token::BIT => Some(Self::Bit),
            token::INT2 => Some(Self::SmallInt),
            token::INT4 => Some(Self::Int),
            token::INT8 => Some(Self::BigInt),
            token::FLOAT4 => Some(Self::Real),
            token::FLOAT8 => Some(Self::Float),
            token::MONEY4 => Some(Self::SmallMoney),
            token::MONEY => Some(Self::Money),
            token::DATETIME4 => Some(Self::SmallDateTime),
            token::DATETIME => Some(Self::DateTime),
            _ => None,
        };
        if let Some(fixed) = fixed {
            return Ok((fixed, false));
        }
        let with_len = match token {
            token::INT_N | token::BIT_N | token::FLOAT_N | token::MONEY_N | token::DATETIME_N | token::GUID => {
                Self::decode_byte_len(token, reader)?
            }
            token::DATE => Self::Date,
            token::TIME => Self::Time { scale: time_scale(reader)? },
            token::DATETIME2 => Self::DateTime2 { scale: time_scale(reader)? },
            token::DATETIMEOFFSET => Self::DateTimeOffset { scale: time_scale(reader)? },
            token::DECIMAL_N | token::NUMERIC_N => Self::decode_decimal(token, reader)?,
            token::CHAR => Self::Char { len: limited(reader)?, collation: Collation(reader.array("collation")?) },
            token::VARCHAR => {
                Self::VarChar { len: length(reader, 1)?, collation: Collation(reader.array("collation")?) }
            }
            token::NCHAR => {
                let at = reader.offset();
                let len = even(limited(reader)?, at)?;
                Self::NChar { len: len / 2, collation: Collation(reader.array("collation")?) }
            }
            token::NVARCHAR => {
                Self::NVarChar { len: length(reader, 2)?, collation: Collation(reader.array("collation")?) }
            }
            token::BINARY => Self::Binary { len: limited(reader)? },
            token::VARBINARY => Self::VarBinary { len: length(reader, 1)? },
            token::TEXT | token::NTEXT | token::IMAGE => {
                reader.u32("length of a type")?;
                match token {
                    token::TEXT => Self::Text { collation: Collation(reader.array("collation")?) },
                    token::NTEXT => Self::NText { collation: Collation(reader.array("collation")?) },
                    _ => Self::Image,
                }
            }
            found => return Err(refused(offset, found)),
        };
        Ok((with_len, true))
    }

    fn decode_byte_len(token: u8, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let offset = reader.offset();
        let len = reader.u8("length of a type")?;
        Ok(match (token, len) {
            (token::INT_N, 1) => Self::TinyInt,
            (token::INT_N, 2) => Self::SmallInt,
            (token::INT_N, 4) => Self::Int,
            (token::INT_N, 8) => Self::BigInt,
            (token::BIT_N, 1) => Self::Bit,
            (token::FLOAT_N, 4) => Self::Real,
            (token::FLOAT_N, 8) => Self::Float,
            (token::MONEY_N, 4) => Self::SmallMoney,
            (token::MONEY_N, 8) => Self::Money,
            (token::DATETIME_N, 4) => Self::SmallDateTime,
            (token::DATETIME_N, 8) => Self::DateTime,
            (token::GUID, 16) => Self::UniqueIdentifier,
            _ => return Err(Error::Unknown { offset, field: "length of a type", found: u64::from(len) }),
        })
    }

    fn decode_decimal(token: u8, reader: &mut Reader<'_>) -> Result<Self, Error> {
        // The length follows from the precision; clients differ in what they put here.
        reader.u8("length of a type")?;
        let offset = reader.offset();
        let precision = ranged(reader.u8("precision")?, 1, 38, offset, "precision")?;
        let scale = ranged(reader.u8("scale")?, 0, precision, offset + 1, "scale")?;
        Ok(if token == token::DECIMAL_N {
            Self::Decimal { precision, scale }
        } else {
            Self::Numeric { precision, scale }
        })
    }

    /// Writes a TYPE_INFO. `is_nullable` decides between the two forms that some types have.
    ///
    /// # Errors
    /// [`Error::ValueSize`]: a length, precision or scale that the type cannot have. [`Error::Unsupported`]: text, ntext and image, which
    /// are read as parameters only.
    pub(crate) fn encode(&self, is_nullable: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let data_type = self.name();
        let most = |found: u64, most: u64| {
            if found <= most { Ok(()) } else { Err(Error::ValueSize { data_type, most, found }) }
        };
        if let Some((fixed, with_len)) = self.number_tokens() {
            match self.fixed_len() {
                Some(len) if is_nullable => out.extend([with_len, len]),
                _ => out.push(fixed),
            }
            return Ok(());
        }
        match *self {
            Self::Date => out.push(token::DATE),
            Self::UniqueIdentifier => out.extend([token::GUID, 16]),
            Self::Variant => {
                out.push(token::VARIANT);
                out.extend(MAX_VARIANT.to_le_bytes());
            }
            Self::Time { scale } | Self::DateTime2 { scale } | Self::DateTimeOffset { scale } => {
                most(u64::from(scale), 7)?;
                out.extend([
                    match self {
                        Self::Time { .. } => token::TIME,
                        Self::DateTime2 { .. } => token::DATETIME2,
                        _ => token::DATETIMEOFFSET,
                    },
                    scale,
                ]);
            }
            Self::Decimal { precision, scale } | Self::Numeric { precision, scale } => {
                most(u64::from(precision), 38)?;
                most(u64::from(scale), u64::from(precision))?;
                let token = if matches!(self, Self::Decimal { .. }) { token::DECIMAL_N } else { token::NUMERIC_N };
                out.extend([token, decimal_len(precision), precision, scale]);
            }
            Self::Char { len, collation } => {
                most(u64::from(len), u64::from(MAX_LIMITED))?;
                put_string_type(out, token::CHAR, len, Some(collation));
            }
            Self::NChar { len, collation } => {
                most(u64::from(len), u64::from(MAX_LIMITED / 2))?;
                put_string_type(out, token::NCHAR, len * 2, Some(collation));
            }
            Self::Binary { len } => {
                most(u64::from(len), u64::from(MAX_LIMITED))?;
                put_string_type(out, token::BINARY, len, None);
            }
            Self::VarChar { len, collation } => {
                put_string_type(out, token::VARCHAR, bytes_of(len, 1, data_type)?, Some(collation));
            }
            Self::NVarChar { len, collation } => {
                put_string_type(out, token::NVARCHAR, bytes_of(len, 2, data_type)?, Some(collation));
            }
            Self::VarBinary { len } => put_string_type(out, token::VARBINARY, bytes_of(len, 1, data_type)?, None),
            _ => {
                return Err(Error::Unsupported {
                    offset: 0,
                    what: "text, ntext or image as a type that the server sends",
                });
            }
        }
        Ok(())
    }

    /// The tokens of a type whose values all have one length: without a length before each value, and with one.
    const fn number_tokens(&self) -> Option<(u8, u8)> {
        Some(match self {
            Self::Null => (token::NULL, token::NULL),
            Self::Bit => (token::BIT, token::BIT_N),
            Self::TinyInt => (token::INT1, token::INT_N),
            Self::SmallInt => (token::INT2, token::INT_N),
            Self::Int => (token::INT4, token::INT_N),
            Self::BigInt => (token::INT8, token::INT_N),
            Self::Real => (token::FLOAT4, token::FLOAT_N),
            Self::Float => (token::FLOAT8, token::FLOAT_N),
            Self::SmallMoney => (token::MONEY4, token::MONEY_N),
            Self::Money => (token::MONEY, token::MONEY_N),
            Self::SmallDateTime => (token::DATETIME4, token::DATETIME_N),
            Self::DateTime => (token::DATETIME, token::DATETIME_N),
            _ => return None,
        })
    }

    /// The bytes of NULL in a row.
    pub(crate) const fn null_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Variant => 4,
            Self::VarChar { len: Length::Max, .. }
            | Self::NVarChar { len: Length::Max, .. }
            | Self::VarBinary { len: Length::Max } => 8,
            Self::Char { .. }
            | Self::VarChar { .. }
            | Self::NChar { .. }
            | Self::NVarChar { .. }
            | Self::Binary { .. }
            | Self::VarBinary { .. } => 2,
            _ => 1,
        }
    }

    /// Whether values stand without a length before them, in a column that is not nullable.
    pub(crate) const fn has_bare_form(&self) -> bool {
        self.number_tokens().is_some()
    }
}

/// The bytes of a time of the day.
pub(crate) const fn time_len(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3 | 4 => 4,
        _ => 5,
    }
}

/// The bytes of a decimal, with its sign.
pub(crate) const fn decimal_len(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

fn ranged(value: u8, least: u8, most: u8, offset: u64, field: &'static str) -> Result<u8, Error> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let (least, most, found) = (u64::from(least), u64::from(most), u64::from(value));
    Err(Error::Range { offset, field, least, most, found })
}

fn time_scale(reader: &mut Reader<'_>) -> Result<u8, Error> {
    let offset = reader.offset();
    ranged(reader.u8("scale")?, 0, 7, offset, "scale")
}

fn even(len: u16, offset: u64) -> Result<u16, Error> {
    if len.is_multiple_of(2) {
        return Ok(len);
    }
    Err(Error::Field { offset, field: "length of a type", expected: u64::from(len) + 1, found: u64::from(len) })
}

/// The length of a type, in bytes, at most 8,000.
fn limited(reader: &mut Reader<'_>) -> Result<u16, Error> {
    let offset = reader.offset();
    let len = reader.u16("length of a type")?;
    if len <= MAX_LIMITED {
        return Ok(len);
    }
    let (most, found) = (u64::from(MAX_LIMITED), u64::from(len));
    Err(Error::Range { offset, field: "length of a type", least: 0, most, found })
}

/// The length of a type that may be `max`, in units of `unit` bytes.
fn length(reader: &mut Reader<'_>, unit: u16) -> Result<Length, Error> {
    let offset = reader.offset();
    if reader.clone().u16("length of a type")? == u16::MAX {
        reader.u16("length of a type")?;
        return Ok(Length::Max);
    }
    let len = limited(reader)?;
    Ok(Length::Limited(if unit == 2 { even(len, offset)? / 2 } else { len }))
}

fn bytes_of(len: Length, unit: u16, data_type: &'static str) -> Result<u16, Error> {
    match len {
        Length::Max => Ok(u16::MAX),
        Length::Limited(len) if len <= MAX_LIMITED / unit => Ok(len * unit),
        Length::Limited(len) => {
            Err(Error::ValueSize { data_type, most: u64::from(MAX_LIMITED / unit), found: u64::from(len) })
        }
    }
}

fn put_string_type(out: &mut Vec<u8>, token: u8, len: u16, collation: Option<Collation>) {
    out.push(token);
    out.extend(len.to_le_bytes());
    if let Some(collation) = collation {
        out.extend(collation.0);
    }
}

/// The error for a type that is known and refused, or unknown.
fn refused(offset: u64, token: u8) -> Error {
    let what = match token {
        0x25 | 0x27 | 0x2D | 0x2F => "a type for characters or bytes from before TDS 7",
        0x37 | 0x3F => "a type for decimals from before TDS 7",
        token::VARIANT => "sql_variant",
        0xF0 => "a user-defined type (CLR)",
        0xF1 => "xml",
        0xF3 => "a table-valued parameter",
        0xF4 => "json",
        0xF5 => "vector",
        found => return Error::Unknown { offset, field: "type", found: u64::from(found) },
    };
    Error::Unsupported { offset, what }
}
