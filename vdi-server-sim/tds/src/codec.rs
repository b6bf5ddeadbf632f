//! Values on the wire (\[MS-TDS\] 2.2.5.2 and 2.2.5.5).

use crate::collation::Collation;
use crate::error::Error;
use crate::read::{Reader, utf16};
use crate::types::{DataType, Length, time_len};
use crate::value::{Date, Decimal, Guid, Time, Value};
use crate::variant;
use crate::write::put_utf16;

/// The length that says NULL, of types with a length of two bytes.
const NULL_16: u16 = u16::MAX;
/// The length that says NULL, of text, ntext and image.
const NULL_32: u32 = u32::MAX;
/// The length that says NULL, of `max` types.
const NULL_64: u64 = u64::MAX;
/// The length of a `max` value whose length is known only at its end.
const UNKNOWN_64: u64 = u64::MAX - 1;
/// The longest chunk of a `max` value that is written.
const MAX_CHUNK: usize = 1 << 20;

/// Reads a value of `data_type`. `has_len`: the value has a length before it, as the type says.
pub(crate) fn decode(reader: &mut Reader<'_>, data_type: &DataType, has_len: bool) -> Result<Value, Error> {
    let offset = reader.offset();
    match *data_type {
        DataType::Null => Ok(Value::Null),
        DataType::Decimal { precision, scale } | DataType::Numeric { precision, scale } => {
            decode_decimal(reader, precision, scale)
        }
        DataType::Char { len, collation } | DataType::VarChar { len: Length::Limited(len), collation } => {
            text(bytes_16(reader, len)?, Some(collation), offset)
        }
        DataType::NChar { len, .. } | DataType::NVarChar { len: Length::Limited(len), .. } => {
            text(bytes_16(reader, len.saturating_mul(2))?, None, offset)
        }
        DataType::VarChar { len: Length::Max, collation } => text(chunks(reader)?, Some(collation), offset),
        DataType::NVarChar { len: Length::Max, .. } => text(chunks(reader)?, None, offset),
        DataType::Text { collation } => text(bytes_32(reader)?, Some(collation), offset),
        DataType::NText { .. } => text(bytes_32(reader)?, None, offset),
        DataType::Binary { len } | DataType::VarBinary { len: Length::Limited(len) } => {
            Ok(bytes_16(reader, len)?.map_or(Value::Null, |bytes| Value::Binary(bytes.to_vec())))
        }
        DataType::VarBinary { len: Length::Max } => Ok(chunks(reader)?.map_or(Value::Null, Value::Binary)),
        DataType::Image => Ok(bytes_32(reader)?.map_or(Value::Null, Value::Binary)),
        _ => decode_fixed(reader, data_type, has_len),
    }
}

/// A value of a type whose values all have one length.
fn decode_fixed(reader: &mut Reader<'_>, data_type: &DataType, has_len: bool) -> Result<Value, Error> {
    let offset = reader.offset();
    let expected = data_type.fixed_len().unwrap_or_default();
    if has_len {
        match reader.u8("length of a value")? {
            0 => return Ok(Value::Null),
            len if len == expected => {}
            found => {
                let (expected, found) = (u64::from(expected), u64::from(found));
                return Err(Error::Field { offset, field: "length of a value", expected, found });
            }
        }
    }
    const FIELD: &str = "value";
    Ok(match *data_type {
        DataType::Bit => Value::Bit(reader.u8(FIELD)? != 0),
        DataType::TinyInt => Value::TinyInt(reader.u8(FIELD)?),
        DataType::SmallInt => Value::SmallInt(reader.i16(FIELD)?),
        DataType::Int => Value::Int(reader.i32(FIELD)?),
        DataType::BigInt => Value::BigInt(reader.i64(FIELD)?),
        DataType::Real => Value::Real(f32::from_bits(reader.u32(FIELD)?)),
        DataType::Float => Value::Float(f64::from_bits(reader.u64(FIELD)?)),
        DataType::SmallMoney => Value::Money(i64::from(reader.i32(FIELD)?)),
        DataType::Money => {
            let (high, low) = (reader.i32(FIELD)?, reader.u32(FIELD)?);
            Value::Money(i64::from(high) << 32 | i64::from(low))
        }
        DataType::SmallDateTime => {
            let days = reader.u16(FIELD)?;
            let minutes = range(u64::from(reader.u16(FIELD)?), 0, 1439, offset, "minutes of a smalldatetime")? as u16;
            Value::SmallDateTime { days, minutes }
        }
        DataType::DateTime => {
            let days = reader.i32(FIELD)?;
            if !(MIN_DATETIME..=MAX_DATETIME).contains(&days) {
                // As seen from the first day of 1753.
                let found = (i64::from(days) - i64::from(MIN_DATETIME)) as u64;
                let (field, most) = ("days of a datetime since 1753-01-01", (MAX_DATETIME - MIN_DATETIME) as u64);
                return Err(Error::Range { offset, field, least: 0, most, found });
            }
            let ticks =
                range(u64::from(reader.u32(FIELD)?), 0, DATETIME_TICKS - 1, offset, "time of a datetime")? as u32;
            Value::DateTime { days, ticks }
        }
        DataType::Date => Value::Date(date(reader)?),
        DataType::Time { scale } => Value::Time(time(reader, scale)?),
        DataType::DateTime2 { scale } => {
            let time = time(reader, scale)?;
            Value::DateTime2(date(reader)?, time)
        }
        DataType::DateTimeOffset { scale } => {
            let (time, date) = (time(reader, scale)?, date(reader)?);
            let offset = reader.offset();
            let minutes = reader.i16("offset of a datetimeoffset")?;
            let found = (i32::from(minutes) + MAX_OFFSET) as u64;
            range(found, 0, 2 * MAX_OFFSET as u64, offset, "offset of a datetimeoffset, plus 840")?;
            Value::DateTimeOffset { date, time, offset: minutes }
        }
        _ => Value::Guid(Guid(reader.array(FIELD)?)),
    })
}

/// The first day of datetime, 1753-01-01, in days since 1900-01-01.
const MIN_DATETIME: i32 = -53_690;
/// The last day of datetime, 9999-12-31.
const MAX_DATETIME: i32 = 2_958_463;
/// Three-hundredths of a second of a day.
const DATETIME_TICKS: u64 = 300 * 86_400;
/// The largest offset of a datetimeoffset, in minutes.
const MAX_OFFSET: i32 = 840;

fn range(found: u64, least: u64, most: u64, offset: u64, field: &'static str) -> Result<u64, Error> {
    if (least..=most).contains(&found) { Ok(found) } else { Err(Error::Range { offset, field, least, most, found }) }
}

fn date(reader: &mut Reader<'_>) -> Result<Date, Error> {
    let offset = reader.offset();
    let [a, b, c] = reader.array("date")?;
    let days = u32::from_le_bytes([a, b, c, 0]);
    let (most, found) = (u64::from(Date::MAX_DAYS), u64::from(days));
    Date::from_days(days).ok_or(Error::Range { offset, field: "date", least: 0, most, found })
}

fn time(reader: &mut Reader<'_>, scale: u8) -> Result<Time, Error> {
    let offset = reader.offset();
    let mut units = [0; 8];
    let len = usize::from(time_len(scale));
    units[..len].copy_from_slice(reader.take(len, "time")?);
    let (found, unit) = (u64::from_le_bytes(units), unit_of(scale));
    let time = found.checked_mul(unit).and_then(Time::from_ticks);
    time.ok_or(Error::Range { offset, field: "time", least: 0, most: Time::DAY / unit - 1, found })
}

/// How many units of 100 ns a unit of a time of `scale` has.
fn unit_of(scale: u8) -> u64 {
    10u64.pow(7 - u32::from(scale.min(7)))
}

fn decode_decimal(reader: &mut Reader<'_>, precision: u8, scale: u8) -> Result<Value, Error> {
    let offset = reader.offset();
    let len = reader.u8("length of a decimal")?;
    if len == 0 {
        return Ok(Value::Null);
    }
    // A sign, and a number of any length: FreeTDS sends as many bytes as the precision needs.
    range(u64::from(len), 2, 17, offset, "length of a decimal")?;
    let sign = range(u64::from(reader.u8("sign of a decimal")?), 0, 1, offset + 1, "sign of a decimal")?;
    let mut bytes = [0; 16];
    let len = usize::from(len) - 1;
    bytes[..len].copy_from_slice(reader.take(len, "decimal")?);
    let magnitude = u128::from_le_bytes(bytes);
    let digits = magnitude.checked_ilog10().map_or(0, |most| u64::from(most) + 1);
    range(digits, 0, u64::from(precision), offset, "digits of a decimal")?;
    Ok(Value::Decimal(Decimal { is_negative: sign == 0, magnitude, scale }))
}

/// The bytes of a value of a type of `most` bytes.
fn bytes_16<'a>(reader: &mut Reader<'a>, most: u16) -> Result<Option<&'a [u8]>, Error> {
    let offset = reader.offset();
    let len = reader.u16("length of a value")?;
    if len == NULL_16 {
        return Ok(None);
    }
    range(u64::from(len), 0, u64::from(most), offset, "length of a value")?;
    reader.take(usize::from(len), "value").map(Some)
}

fn bytes_32(reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Error> {
    let len = reader.u32("length of a value")?;
    if len == NULL_32 { Ok(None) } else { Ok(Some(reader.take(len as usize, "value")?.to_vec())) }
}

/// The chunks of a `max` value, joined.
fn chunks(reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Error> {
    let offset = reader.offset();
    let expected = reader.u64("length of a max value")?;
    if expected == NULL_64 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    loop {
        let len = reader.u32("length of a chunk")?;
        if len == 0 {
            break;
        }
        bytes.extend_from_slice(reader.take(len as usize, "chunk")?);
    }
    let found = bytes.len() as u64;
    if expected != UNKNOWN_64 && found != expected {
        return Err(Error::Field { offset, field: "length of a max value", expected: found, found: expected });
    }
    Ok(Some(bytes))
}

/// A text, in the code page of `collation` or else in UTF-16.
fn text(bytes: Option<impl AsRef<[u8]>>, collation: Option<Collation>, offset: u64) -> Result<Value, Error> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    let text = match collation {
        Some(collation) => collation.decode(bytes.as_ref(), offset)?,
        None => utf16(bytes.as_ref()).ok_or(Error::Unicode { offset, field: "text" })?,
    };
    Ok(Value::Text(text))
}

/// Writes a value of `data_type`. `has_len`: with a length before it, as the type says.
///
/// # Errors
/// [`Error::ValueKind`], [`Error::ValueSize`]: it is no value of the type. Nothing was written then that the caller can use.
pub(crate) fn encode(value: &Value, data_type: &DataType, has_len: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    match (data_type, value) {
        (DataType::Null, Value::Null) => {}
        (DataType::Variant, _) => variant::encode(value, out)?,
        (DataType::Decimal { precision, scale } | DataType::Numeric { precision, scale }, _) => {
            encode_decimal(value, data_type, *precision, *scale, out)?;
        }
        (DataType::Char { len, collation }, Value::Text(text)) => {
            let mut bytes = collation.encode(text);
            at_most(bytes.len(), *len, data_type)?;
            bytes.resize(usize::from(*len), b' ');
            put_16(out, &bytes);
        }
        (DataType::NChar { len, .. }, Value::Text(text)) => {
            let mut bytes = utf16_of(text);
            at_most(bytes.len() / 2, *len, data_type)?;
            let missing = usize::from(*len) - bytes.len() / 2;
            bytes.extend([b' ', 0].repeat(missing));
            put_16(out, &bytes);
        }
        (DataType::Binary { len }, Value::Binary(bytes)) => {
            at_most(bytes.len(), *len, data_type)?;
            put_16(out, bytes);
            // The length goes with the filled value.
            let missing = usize::from(*len) - bytes.len();
            let at = out.len() - bytes.len() - 2;
            out[at..at + 2].copy_from_slice(&len.to_le_bytes());
            out.extend(std::iter::repeat_n(0, missing));
        }
        (DataType::VarChar { len, collation }, Value::Text(text)) => {
            put_var(out, &collation.encode(text), *len, 1, data_type)?;
        }
        (DataType::NVarChar { len: Length::Limited(most), .. }, Value::Text(text)) => {
            // The most frequent kind of value: without a buffer of its own.
            let at = out.len();
            out.extend([0; 2]);
            put_utf16(out, text);
            let len = out.len() - at - 2;
            at_most(len / 2, *most, data_type)?;
            out[at..at + 2].copy_from_slice(&(len as u16).to_le_bytes());
        }
        (DataType::NVarChar { len, .. }, Value::Text(text)) => put_var(out, &utf16_of(text), *len, 2, data_type)?,
        (DataType::VarBinary { len }, Value::Binary(bytes)) => put_var(out, bytes, *len, 1, data_type)?,
        (
            DataType::Char { .. }
            | DataType::NChar { .. }
            | DataType::Binary { .. }
            | DataType::VarChar { len: Length::Limited(_), .. }
            | DataType::NVarChar { len: Length::Limited(_), .. }
            | DataType::VarBinary { len: Length::Limited(_) },
            Value::Null,
        ) => out.extend(NULL_16.to_le_bytes()),
        (DataType::VarChar { .. } | DataType::NVarChar { .. } | DataType::VarBinary { .. }, Value::Null) => {
            out.extend(NULL_64.to_le_bytes());
        }
        _ => encode_fixed(value, data_type, has_len, out)?,
    }
    Ok(())
}

fn encode_fixed(value: &Value, data_type: &DataType, has_len: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    let mismatch = || Error::ValueKind { expected: data_type.name(), found: value.kind() };
    let len = data_type.fixed_len().ok_or_else(mismatch)?;
    match value {
        Value::Null if has_len => {
            out.push(0);
            return Ok(());
        }
        Value::Null => return Err(mismatch()),
        _ if has_len => out.push(len),
        _ => {}
    }
    let too_large = |found: i64| Error::ValueSize {
        data_type: data_type.name(),
        most: i32::MAX as u64,
        found: found.unsigned_abs(),
    };
    match (*data_type, value) {
        (DataType::Bit, Value::Bit(bit)) => out.push(u8::from(*bit)),
        (DataType::TinyInt, Value::TinyInt(number)) => out.push(*number),
        (DataType::SmallInt, Value::SmallInt(number)) => out.extend(number.to_le_bytes()),
        (DataType::Int, Value::Int(number)) => out.extend(number.to_le_bytes()),
        (DataType::BigInt, Value::BigInt(number)) => out.extend(number.to_le_bytes()),
        (DataType::Real, Value::Real(number)) => out.extend(number.to_le_bytes()),
        (DataType::Float, Value::Float(number)) => out.extend(number.to_le_bytes()),
        (DataType::SmallMoney, Value::Money(number)) => {
            out.extend(i32::try_from(*number).map_err(|_| too_large(*number))?.to_le_bytes());
        }
        (DataType::Money, Value::Money(number)) => {
            out.extend(((number >> 32) as i32).to_le_bytes());
            out.extend((*number as u32).to_le_bytes());
        }
        (DataType::SmallDateTime, Value::SmallDateTime { days, minutes }) => {
            limit(u64::from(*minutes), 1439, data_type)?;
            out.extend(days.to_le_bytes());
            out.extend(minutes.to_le_bytes());
        }
        (DataType::DateTime, Value::DateTime { days, ticks }) => {
            limit(
                (i64::from(*days) - i64::from(MIN_DATETIME)) as u64,
                (MAX_DATETIME - MIN_DATETIME) as u64,
                data_type,
            )?;
            limit(u64::from(*ticks), DATETIME_TICKS - 1, data_type)?;
            out.extend(days.to_le_bytes());
            out.extend(ticks.to_le_bytes());
        }
        (DataType::Date, Value::Date(date)) => put_date(out, *date),
        (DataType::Time { scale }, Value::Time(time)) => put_time(out, *time, scale),
        (DataType::DateTime2 { scale }, Value::DateTime2(date, time)) => {
            put_time(out, *time, scale);
            put_date(out, *date);
        }
        (DataType::DateTimeOffset { scale }, Value::DateTimeOffset { date, time, offset }) => {
            limit(u64::from(offset.unsigned_abs()), MAX_OFFSET as u64, data_type)?;
            put_time(out, *time, scale);
            put_date(out, *date);
            out.extend(offset.to_le_bytes());
        }
        (DataType::UniqueIdentifier, Value::Guid(guid)) => out.extend(guid.0),
        _ => return Err(mismatch()),
    }
    Ok(())
}

fn encode_decimal(
    value: &Value,
    data_type: &DataType,
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match value {
        Value::Null => out.push(0),
        Value::Decimal(decimal) if decimal.scale == scale => {
            if decimal.magnitude >= 10u128.pow(u32::from(precision.min(38))) {
                let found = u64::from(decimal.magnitude.max(1).ilog10()) + 1;
                return Err(Error::ValueSize { data_type: data_type.name(), most: u64::from(precision), found });
            }
            let len = crate::types::decimal_len(precision);
            out.extend([len, u8::from(!decimal.is_negative)]);
            out.extend(&decimal.magnitude.to_le_bytes()[..usize::from(len) - 1]);
        }
        _ => return Err(Error::ValueKind { expected: data_type.name(), found: value.kind() }),
    }
    Ok(())
}

fn limit(found: u64, most: u64, data_type: &DataType) -> Result<(), Error> {
    if found <= most { Ok(()) } else { Err(Error::ValueSize { data_type: data_type.name(), most, found }) }
}

fn at_most(len: usize, most: u16, data_type: &DataType) -> Result<(), Error> {
    limit(len as u64, u64::from(most), data_type)
}

fn put_date(out: &mut Vec<u8>, date: Date) {
    out.extend(&date.days().to_le_bytes()[..3]);
}

/// Decimal places that the scale lacks are cut.
fn put_time(out: &mut Vec<u8>, time: Time, scale: u8) {
    out.extend(&(time.ticks() / unit_of(scale)).to_le_bytes()[..usize::from(time_len(scale))]);
}

fn utf16_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 2);
    put_utf16(&mut bytes, text);
    bytes
}

/// Bytes after their length as two bytes. `bytes` are at most 8,000.
fn put_16(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A value of a type with a limited length or `max`. `unit`: the bytes of a unit of its length.
fn put_var(out: &mut Vec<u8>, bytes: &[u8], len: Length, unit: usize, data_type: &DataType) -> Result<(), Error> {
    match len {
        Length::Limited(most) => {
            at_most(bytes.len() / unit, most, data_type)?;
            put_16(out, bytes);
        }
        Length::Max => {
            out.extend((bytes.len() as u64).to_le_bytes());
            for chunk in bytes.chunks(MAX_CHUNK) {
                out.extend((chunk.len() as u32).to_le_bytes());
                out.extend_from_slice(chunk);
            }
            out.extend(0u32.to_le_bytes());
        }
    }
    Ok(())
}
