//! SQL types and typed values, for the columns and rows of result sets and for the parameters of batches.
//!
//! A [`Value`] is displayed as `sqlcmd` prints it:
//!
//! ```
//! use vdi_server_sim::types::{DateTime, Value};
//!
//! assert_eq!(Value::Numeric { unscaled: -150, scale: 2 }.to_string(), "-1.50");
//! assert_eq!(Value::DateTime(DateTime { days: 45_349, ticks: 300 }).to_string(), "2024-02-29 00:00:01.000");
//! assert_eq!(Value::Null.to_string(), "NULL");
//! ```

use std::fmt;

/// The type of a column. Lengths are in characters, for binary types in bytes. `None` is `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlType {
    /// `bit`.
    Bit,
    /// `tinyint`, 0 to 255.
    TinyInt,
    /// `smallint`, 16 bits with a sign.
    SmallInt,
    /// `int`, 32 bits with a sign.
    Int,
    /// `bigint`, 64 bits with a sign.
    BigInt,
    /// `numeric(precision, scale)`.
    Numeric {
        /// The number of digits, 1 to 38.
        precision: u8,
        /// The number of digits after the decimal point, 0 to `precision`.
        scale: u8,
    },
    /// `char(length)`.
    Char {
        /// The number of characters, 1 to 8000.
        length: u16,
    },
    /// `varchar(length)`.
    VarChar {
        /// The largest number of characters, 1 to 8000.
        length: Option<u16>,
    },
    /// `nvarchar(length)`.
    NVarChar {
        /// The largest number of characters, 1 to 4000.
        length: Option<u16>,
    },
    /// `varbinary(length)`.
    VarBinary {
        /// The largest number of bytes, 1 to 8000.
        length: Option<u16>,
    },
    /// `datetime`.
    DateTime,
    /// `uniqueidentifier`.
    UniqueIdentifier,
}

/// The name in T-SQL: `nvarchar(128)`, `numeric(25,0)`.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, length) = match self {
            SqlType::Bit => return f.write_str("bit"),
            SqlType::TinyInt => return f.write_str("tinyint"),
            SqlType::SmallInt => return f.write_str("smallint"),
            SqlType::Int => return f.write_str("int"),
            SqlType::BigInt => return f.write_str("bigint"),
            SqlType::Numeric { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            SqlType::DateTime => return f.write_str("datetime"),
            SqlType::UniqueIdentifier => return f.write_str("uniqueidentifier"),
            SqlType::Char { length } => ("char", Some(length)),
            SqlType::VarChar { length } => ("varchar", length.as_ref()),
            SqlType::NVarChar { length } => ("nvarchar", length.as_ref()),
            SqlType::VarBinary { length } => ("varbinary", length.as_ref()),
        };
        match length {
            Some(length) => write!(f, "{name}({length})"),
            None => write!(f, "{name}(max)"),
        }
    }
}

/// A column of a result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name; empty for a column without a name.
    pub name: String,
    /// The type of its values.
    pub sql_type: SqlType,
    /// Whether a value may be [`Value::Null`].
    pub nullable: bool,
}

/// A value of a row or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// NULL. It has no type.
    Null,
    /// A `bit`.
    Bit(bool),
    /// A `tinyint`.
    TinyInt(u8),
    /// A `smallint`.
    SmallInt(i16),
    /// An `int`.
    Int(i32),
    /// A `bigint`.
    BigInt(i64),
    /// A `numeric`: `unscaled` divided by 10 to the power of `scale`.
    Numeric {
        /// The digits without the decimal point.
        unscaled: i128,
        /// The number of digits after the decimal point, 0 to 38.
        scale: u8,
    },
    /// A `char`, `varchar` or `nvarchar`.
    Text(String),
    /// A `varbinary`.
    Binary(Vec<u8>),
    /// A `datetime`.
    DateTime(DateTime),
    /// A `uniqueidentifier`, in SQL Server's byte order: the first three groups are little-endian.
    UniqueIdentifier([u8; 16]),
}

impl Value {
    /// The name of the type in messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "NULL",
            Value::Bit(_) => "bit",
            Value::TinyInt(_) => "tinyint",
            Value::SmallInt(_) => "smallint",
            Value::Int(_) => "int",
            Value::BigInt(_) => "bigint",
            Value::Numeric { .. } => "numeric",
            Value::Text(_) => "string",
            Value::Binary(_) => "varbinary",
            Value::DateTime(_) => "datetime",
            Value::UniqueIdentifier(_) => "uniqueidentifier",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Bit(bit) => write!(f, "{}", u8::from(*bit)),
            Value::TinyInt(number) => write!(f, "{number}"),
            Value::SmallInt(number) => write!(f, "{number}"),
            Value::Int(number) => write!(f, "{number}"),
            Value::BigInt(number) => write!(f, "{number}"),
            Value::Numeric { unscaled, scale } => {
                let (sign, scale) = (if *unscaled < 0 { "-" } else { "" }, usize::from(*scale));
                let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
                let (whole, fraction) = digits.split_at(digits.len() - scale);
                write!(f, "{sign}{whole}{}{fraction}", if scale > 0 { "." } else { "" })
            }
            Value::Text(text) => f.write_str(text),
            Value::Binary(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
            Value::DateTime(time) => write!(f, "{time}"),
            Value::UniqueIdentifier(bytes) => {
                for (index, at) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].into_iter().enumerate() {
                    let hyphen = if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
                    write!(f, "{hyphen}{:02X}", bytes[at])?;
                }
                Ok(())
            }
        }
    }
}

/// A parameter of a batch: a variable that is declared with this value, in this batch only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name with its `@`. Names are compared without regard to case. If two parameters have one name, the first one is used.
    pub name: String,
    /// The value.
    pub value: Value,
}

impl Parameter {
    /// A parameter. `name` includes the `@`: `@device`.
    #[must_use]
    pub fn new(name: impl Into<String>, value: Value) -> Parameter {
        Parameter { name: name.into(), value }
    }
}

/// A `datetime`: a day, and a time of that day in steps of 1/300 s. The fields are not validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    /// Days since 1900-01-01: -53690 (1753-01-01) to 2958463 (9999-12-31).
    pub days: i32,
    /// Steps of 1/300 s since midnight, 0 to 25919999.
    pub ticks: u32,
}

impl DateTime {
    /// The year, the month (1 to 12) and the day of the month (1 to 31), in the Gregorian calendar.
    #[must_use]
    pub fn date(&self) -> (i64, i64, i64) {
        // Years begin on the first of March here, so that a leap day is the last day of a year. `days` counts from
        // 0000-03-01. 400 years have 146097 days.
        let days = i64::from(self.days) + 693_901;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Five months from March on have 153 days.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (next, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
        (era * 400 + year + next, month, day)
    }
}

/// `2024-02-29 20:15:02.470`.
impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (seconds, millis) = (self.ticks / 300, (self.ticks % 300 * 10 + 1) / 3);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        // Days since 1970-01-01.
        for (days, expected) in [
            (-79_257, (1753, 1, 1)),
            (-25_567, (1900, 1, 1)),
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (364, (1970, 12, 31)),
            (365, (1971, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (2_932_896, (9999, 12, 31)),
        ] {
            assert_eq!(DateTime { days: days + 25_567, ticks: 0 }.date(), expected, "{days}");
        }
    }

    #[test]
    fn values_are_displayed_as_sqlcmd_prints_them() {
        let guid = *b"\xFF\x19\x96\x6F\x86\x8B\x11\xD0\xB4\x2D\x00\xC0\x4F\xC9\x64\xFF";
        for (value, expected) in [
            (Value::Bit(true), "1"),
            (Value::TinyInt(255), "255"),
            (Value::BigInt(i64::MIN), "-9223372036854775808"),
            (Value::Numeric { unscaled: 42, scale: 0 }, "42"),
            (Value::Numeric { unscaled: -5, scale: 2 }, "-0.05"),
            (Value::Text("ü".to_owned()), "ü"),
            (Value::Binary(vec![0, 0xAB]), "0x00AB"),
            (Value::UniqueIdentifier(guid), "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
            (Value::DateTime(DateTime { days: 0, ticks: 1 }), "1900-01-01 00:00:00.003"),
            (Value::DateTime(DateTime { days: 0, ticks: 25_919_999 }), "1900-01-01 23:59:59.997"),
        ] {
            assert_eq!(value.to_string(), expected);
        }
    }

    #[test]
    fn types_are_displayed_as_in_t_sql() {
        for (sql_type, expected) in [
            (SqlType::NVarChar { length: Some(128) }, "nvarchar(128)"),
            (SqlType::VarBinary { length: None }, "varbinary(max)"),
            (SqlType::Numeric { precision: 25, scale: 0 }, "numeric(25,0)"),
            (SqlType::UniqueIdentifier, "uniqueidentifier"),
        ] {
            assert_eq!(sql_type.to_string(), expected);
        }
    }
}
