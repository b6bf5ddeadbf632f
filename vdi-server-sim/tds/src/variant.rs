//! Values of sql_variant, as columns have them (\[MS-TDS\] 2.2.5.5.4).

use crate::codec;
use crate::collation::Collation;
use crate::error::Error;
use crate::types::{DataType, MAX_LIMITED, token};
use crate::value::Value;
use crate::write::put_utf16;

/// Writes a value with its length, its type and the type's properties.
pub(crate) fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let at = out.len();
    out.extend([0; 4]);
    match value {
        Value::Null => return Ok(()),
        Value::Text(text) => {
            out.extend([token::NVARCHAR, 7]);
            out.extend(Collation::SQL_LATIN1_GENERAL_CP1_CI_AS.0);
            out.extend(MAX_LIMITED.to_le_bytes());
            let start = out.len();
            put_utf16(out, text);
            is_short(out.len() - start)?;
        }
        Value::Binary(bytes) => {
            is_short(bytes.len())?;
            out.extend([token::VARBINARY, 2]);
            out.extend(MAX_LIMITED.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Value::Decimal(decimal) => {
            let data_type = DataType::Numeric { precision: 38, scale: decimal.scale };
            out.extend([token::NUMERIC_N, 2, 38, decimal.scale]);
            let start = out.len();
            codec::encode(value, &data_type, true, out)?;
            // The length of the number goes; the variant has one.
            out.remove(start);
        }
        _ => {
            let data_type = plain_type(value)?;
            // The bare form of the type is its token alone.
            data_type.encode(false, out)?;
            out.truncate(at + 5);
            out.push(0);
            codec::encode(value, &data_type, false, out)?;
        }
    }
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

fn plain_type(value: &Value) -> Result<DataType, Error> {
    Ok(match value {
        Value::Bit(_) => DataType::Bit,
        Value::TinyInt(_) => DataType::TinyInt,
        Value::SmallInt(_) => DataType::SmallInt,
        Value::Int(_) => DataType::Int,
        Value::BigInt(_) => DataType::BigInt,
        Value::Real(_) => DataType::Real,
        Value::Float(_) => DataType::Float,
        Value::Money(_) => DataType::Money,
        Value::SmallDateTime { .. } => DataType::SmallDateTime,
        Value::DateTime { .. } => DataType::DateTime,
        Value::Guid(_) => DataType::UniqueIdentifier,
        _ => return Err(Error::ValueKind { expected: DataType::Variant.name(), found: value.kind() }),
    })
}

fn is_short(len: usize) -> Result<(), Error> {
    let (most, found) = (u64::from(MAX_LIMITED), len as u64);
    if found <= most { Ok(()) } else { Err(Error::ValueSize { data_type: DataType::Variant.name(), most, found }) }
}
