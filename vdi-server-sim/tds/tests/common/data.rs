//! Types and values, as a client writes and reads them.

use vdi_tds::collation::Collation;
use vdi_tds::types::{DataType, Length};
use vdi_tds::value::{Date, Decimal, Guid, Time, Value};

use super::utf16;

/// The token without NULL, the token with NULL, and the length.
fn number(data_type: &DataType) -> Option<(u8, u8, u8)> {
    Some(match data_type {
        DataType::Bit => (0x32, 0x68, 1),
        DataType::TinyInt => (0x30, 0x26, 1),
        DataType::SmallInt => (0x34, 0x26, 2),
        DataType::Int => (0x38, 0x26, 4),
        DataType::BigInt => (0x7F, 0x26, 8),
        DataType::Real => (0x3B, 0x6D, 4),
        DataType::Float => (0x3E, 0x6D, 8),
        DataType::SmallMoney => (0x7A, 0x6E, 4),
        DataType::Money => (0x3C, 0x6E, 8),
        DataType::SmallDateTime => (0x3A, 0x6F, 4),
        DataType::DateTime => (0x3D, 0x6F, 8),
        _ => return None,
    })
}

pub(crate) fn put_type(out: &mut Vec<u8>, data_type: &DataType, is_nullable: bool) {
    if let Some((bare, nullable, len)) = number(data_type) {
        return if is_nullable { out.extend([nullable, len]) } else { out.push(bare) };
    }
    let mut string = |token: u8, bytes: u16, collation: Option<&Collation>| {
        out.push(token);
        out.extend(bytes.to_le_bytes());
        out.extend(collation.iter().flat_map(|collation| collation.0));
    };
    let of = |len: &Length, unit: u16| match len {
        Length::Max => 0xFFFF,
        Length::Limited(len) => len * unit,
    };
    match data_type {
        DataType::Null => out.push(0x1F),
        DataType::UniqueIdentifier => out.extend([0x24, 16]),
        DataType::Date => out.push(0x28),
        DataType::Time { scale } => out.extend([0x29, *scale]),
        DataType::DateTime2 { scale } => out.extend([0x2A, *scale]),
        DataType::DateTimeOffset { scale } => out.extend([0x2B, *scale]),
        DataType::Decimal { precision, scale } => out.extend([0x6A, 17, *precision, *scale]),
        DataType::Numeric { precision, scale } => out.extend([0x6C, 17, *precision, *scale]),
        DataType::Char { len, collation } => string(0xAF, *len, Some(collation)),
        DataType::VarChar { len, collation } => string(0xA7, of(len, 1), Some(collation)),
        DataType::NChar { len, collation } => string(0xEF, len * 2, Some(collation)),
        DataType::NVarChar { len, collation } => string(0xE7, of(len, 2), Some(collation)),
        DataType::Binary { len } => string(0xAD, *len, None),
        DataType::VarBinary { len } => string(0xA5, of(len, 1), None),
        DataType::Text { collation } => out.extend([&[0x23, 0xFF, 0xFF, 0xFF, 0x7F][..], &collation.0].concat()),
        DataType::NText { collation } => out.extend([&[0x63, 0xFE, 0xFF, 0xFF, 0x7F][..], &collation.0].concat()),
        DataType::Image => out.extend([0x22, 0xFF, 0xFF, 0xFF, 0x7F]),
        other => panic!("{other:?}"),
    }
}

fn ticks(scale: u8, time: &Time) -> Vec<u8> {
    let units = time.ticks() / 10u64.pow(7 - u32::from(scale));
    units.to_le_bytes()[..[3, 3, 3, 4, 4, 5, 5, 5][usize::from(scale)]].to_vec()
}

fn days(date: &Date) -> Vec<u8> {
    date.days().to_le_bytes()[..3].to_vec()
}

pub(crate) fn put_value(out: &mut Vec<u8>, data_type: &DataType, is_nullable: bool, value: &Value) {
    use DataType as T;
    let bytes: Vec<u8> = match value {
        Value::Null => {
            return match data_type {
                T::Null => {}
                T::VarChar { len: Length::Max, .. }
                | T::NVarChar { len: Length::Max, .. }
                | T::VarBinary { len: Length::Max } => out.extend([0xFF; 8]),
                T::Text { .. } | T::NText { .. } | T::Image => out.extend([0xFF; 4]),
                T::Char { .. } | T::VarChar { .. } | T::NChar { .. } | T::NVarChar { .. } => out.extend([0xFF; 2]),
                T::Binary { .. } | T::VarBinary { .. } => out.extend([0xFF; 2]),
                _ => out.push(0),
            };
        }
        Value::Bit(bit) => vec![u8::from(*bit)],
        Value::TinyInt(number) => vec![*number],
        Value::SmallInt(number) => number.to_le_bytes().to_vec(),
        Value::Int(number) => number.to_le_bytes().to_vec(),
        Value::BigInt(number) => number.to_le_bytes().to_vec(),
        Value::Real(number) => number.to_le_bytes().to_vec(),
        Value::Float(number) => number.to_le_bytes().to_vec(),
        Value::Money(number) if *data_type == T::SmallMoney => number.to_le_bytes()[..4].to_vec(),
        Value::Money(number) => {
            let bytes = number.to_le_bytes();
            [&bytes[4..], &bytes[..4]].concat()
        }
        Value::Decimal(decimal) => {
            [vec![u8::from(!decimal.is_negative)], decimal.magnitude.to_le_bytes().to_vec()].concat()
        }
        Value::Date(date) => days(date),
        Value::SmallDateTime { days, minutes } => [days.to_le_bytes(), minutes.to_le_bytes()].concat(),
        Value::DateTime { days, ticks } => [days.to_le_bytes(), ticks.to_le_bytes()].concat(),
        Value::Time(time) => ticks(scale_of(data_type), time),
        Value::DateTime2(date, time) => [ticks(scale_of(data_type), time), days(date)].concat(),
        Value::DateTimeOffset { date, time, offset } => {
            [ticks(scale_of(data_type), time), days(date), offset.to_le_bytes().to_vec()].concat()
        }
        Value::Guid(guid) => guid.0.to_vec(),
        Value::Text(text) => match data_type {
            T::NChar { .. } | T::NVarChar { .. } | T::NText { .. } => utf16(text),
            T::Char { collation, .. } | T::VarChar { collation, .. } | T::Text { collation } => collation.encode(text),
            other => panic!("{other:?}"),
        },
        Value::Binary(bytes) => bytes.clone(),
    };
    match data_type {
        T::VarChar { len: Length::Max, .. }
        | T::NVarChar { len: Length::Max, .. }
        | T::VarBinary { len: Length::Max } => {
            // In two chunks, and without the length where that is even: both are allowed.
            let total = if bytes.len().is_multiple_of(4) { u64::MAX - 1 } else { bytes.len() as u64 };
            out.extend(total.to_le_bytes());
            let (first, second) = bytes.split_at(bytes.len() / 2);
            for chunk in [first, second].into_iter().filter(|chunk| !chunk.is_empty()) {
                out.extend((chunk.len() as u32).to_le_bytes());
                out.extend(chunk);
            }
            out.extend([0; 4]);
        }
        T::Text { .. } | T::NText { .. } | T::Image => {
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
        T::Char { .. }
        | T::VarChar { .. }
        | T::NChar { .. }
        | T::NVarChar { .. }
        | T::Binary { .. }
        | T::VarBinary { .. } => {
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(bytes);
        }
        other => {
            if is_nullable || number(other).is_none() {
                out.push(bytes.len() as u8);
            }
            out.extend(bytes);
        }
    }
}

fn scale_of(data_type: &DataType) -> u8 {
    match data_type {
        DataType::Time { scale } | DataType::DateTime2 { scale } | DataType::DateTimeOffset { scale } => *scale,
        other => panic!("{other:?}"),
    }
}

/// Takes bytes from the front.
pub(crate) fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (bytes, rest) = input.split_at(len);
    *input = rest;
    bytes
}

/// A number of up to eight bytes.
pub(crate) fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub(crate) fn get(input: &mut &[u8], len: usize) -> u64 {
    le(take(input, len))
}

/// A type, and whether its values have a length before them.
pub(crate) fn get_type(input: &mut &[u8]) -> (DataType, bool) {
    use DataType as T;
    let token = take(input, 1)[0];
    let all = [
        T::Bit,
        T::TinyInt,
        T::SmallInt,
        T::Int,
        T::BigInt,
        T::Real,
        T::Float,
        T::SmallMoney,
        T::Money,
        T::SmallDateTime,
        T::DateTime,
    ];
    for data_type in all {
        let (bare, nullable, len) = number(&data_type).unwrap();
        if token == bare {
            return (data_type, false);
        }
        if token == nullable && input[0] == len {
            *input = &input[1..];
            return (data_type, true);
        }
    }
    let len = |input: &mut &[u8], unit: u16| match get(input, 2) as u16 {
        0xFFFF => Length::Max,
        len => Length::Limited(len / unit),
    };
    let collation = |input: &mut &[u8]| Collation(take(input, 5).try_into().unwrap());
    let data_type = match token {
        0x1F => T::Null,
        0x24 => {
            assert_eq!(take(input, 1), [16]);
            T::UniqueIdentifier
        }
        0x28 => T::Date,
        0x29 => T::Time { scale: take(input, 1)[0] },
        0x2A => T::DateTime2 { scale: take(input, 1)[0] },
        0x2B => T::DateTimeOffset { scale: take(input, 1)[0] },
        0x6A | 0x6C => {
            let [len, precision, scale] = take(input, 3) else { unreachable!() };
            assert_eq!(*len, [5, 9, 13, 17][[9, 19, 28, 38].iter().position(|most| precision <= most).unwrap()]);
            let (precision, scale) = (*precision, *scale);
            if token == 0x6A { T::Decimal { precision, scale } } else { T::Numeric { precision, scale } }
        }
        0xAF => T::Char { len: get(input, 2) as u16, collation: collation(input) },
        0xA7 => T::VarChar { len: len(input, 1), collation: collation(input) },
        0xEF => T::NChar { len: get(input, 2) as u16 / 2, collation: collation(input) },
        0xE7 => T::NVarChar { len: len(input, 2), collation: collation(input) },
        0xAD => T::Binary { len: get(input, 2) as u16 },
        0xA5 => T::VarBinary { len: len(input, 1) },
        other => panic!("{other:#x}"),
    };
    (data_type, true)
}

pub(crate) fn get_value(input: &mut &[u8], data_type: &DataType, has_len: bool) -> Value {
    use DataType as T;
    let bytes: Vec<u8> = match data_type {
        T::Null => return Value::Null,
        T::VarChar { len: Length::Max, .. }
        | T::NVarChar { len: Length::Max, .. }
        | T::VarBinary { len: Length::Max } => {
            let total = get(input, 8);
            if total == u64::MAX {
                return Value::Null;
            }
            let mut bytes = Vec::new();
            loop {
                match get(input, 4) {
                    0 => break,
                    len => bytes.extend(take(input, len as usize)),
                }
            }
            assert_eq!(bytes.len() as u64, total);
            bytes
        }
        T::Char { .. }
        | T::VarChar { .. }
        | T::NChar { .. }
        | T::NVarChar { .. }
        | T::Binary { .. }
        | T::VarBinary { .. } => match get(input, 2) {
            0xFFFF => return Value::Null,
            len => take(input, len as usize).to_vec(),
        },
        _ if has_len => match get(input, 1) {
            0 => return Value::Null,
            len => take(input, len as usize).to_vec(),
        },
        other => take(input, usize::from(number(other).unwrap().2)).to_vec(),
    };
    let b = &bytes[..];
    let time = |scale: &u8, bytes: &[u8]| Time::from_ticks(le(bytes) * 10u64.pow(7 - u32::from(*scale))).unwrap();
    let date = |bytes: &[u8]| Date::from_days(le(bytes) as u32).unwrap();
    match data_type {
        T::Bit => Value::Bit(b[0] == 1),
        T::TinyInt => Value::TinyInt(b[0]),
        T::SmallInt => Value::SmallInt(le(b) as i16),
        T::Int => Value::Int(le(b) as i32),
        T::BigInt => Value::BigInt(le(b) as i64),
        T::Real => Value::Real(f32::from_bits(le(b) as u32)),
        T::Float => Value::Float(f64::from_bits(le(b))),
        T::SmallMoney => Value::Money(i64::from(le(b) as i32)),
        T::Money => Value::Money((le(&b[..4]) << 32 | le(&b[4..])) as i64),
        T::SmallDateTime => Value::SmallDateTime { days: le(&b[..2]) as u16, minutes: le(&b[2..]) as u16 },
        T::DateTime => Value::DateTime { days: le(&b[..4]) as i32, ticks: le(&b[4..]) as u32 },
        T::Date => Value::Date(date(b)),
        T::Time { scale } => Value::Time(time(scale, b)),
        T::DateTime2 { scale } => Value::DateTime2(date(&b[b.len() - 3..]), time(scale, &b[..b.len() - 3])),
        T::DateTimeOffset { scale } => {
            let (rest, offset) = b.split_at(b.len() - 2);
            let (clock, day) = rest.split_at(rest.len() - 3);
            Value::DateTimeOffset { date: date(day), time: time(scale, clock), offset: le(offset) as i16 }
        }
        T::Decimal { scale, .. } | T::Numeric { scale, .. } => {
            let mut magnitude = [0; 16];
            magnitude[..b.len() - 1].copy_from_slice(&b[1..]);
            let magnitude = u128::from_le_bytes(magnitude);
            Value::Decimal(Decimal { is_negative: b[0] == 0, magnitude, scale: *scale })
        }
        T::UniqueIdentifier => Value::Guid(Guid(b.try_into().unwrap())),
        T::NChar { .. } | T::NVarChar { .. } => {
            let units: Vec<u16> = b.chunks(2).map(|unit| le(unit) as u16).collect();
            Value::Text(String::from_utf16(&units).unwrap())
        }
        // The tests' texts of one-byte characters are Latin-1, without the 32 characters where code page 1252 differs, or UTF-8.
        T::Char { collation, .. } | T::VarChar { collation, .. } if collation.is_utf8() => {
            Value::Text(String::from_utf8(bytes).unwrap())
        }
        T::Char { .. } | T::VarChar { .. } => Value::Text(b.iter().map(|byte| char::from(*byte)).collect()),
        _ => Value::Binary(bytes),
    }
}
