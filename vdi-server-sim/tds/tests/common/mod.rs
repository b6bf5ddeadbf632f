//! The client's side of the protocol, written apart from the crate: what it reads and writes is what the specification says, not what the
//! crate does. Types and values are the crate's, as data only.
#![allow(dead_code)]

pub(crate) mod data;
pub(crate) mod tokens;

use data::{put_type, put_value};
use vdi_tds::types::DataType;
use vdi_tds::value::Value;

/// A message in packets of `size` bytes. `first`: bits of the first packet's status.
pub(crate) fn packets(kind: u8, first: u8, size: usize, contents: &[u8]) -> Vec<u8> {
    let mut chunks: Vec<&[u8]> = contents.chunks(size - 8).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let mut out = Vec::new();
    let last = chunks.len() - 1;
    for (at, chunk) in chunks.iter().enumerate() {
        let status = u8::from(at == last) | if at == 0 { first } else { 0 };
        out.extend([kind, status]);
        out.extend(((chunk.len() + 8) as u16).to_be_bytes());
        out.extend([0, 0, (at + 1) as u8, 0]);
        out.extend(*chunk);
    }
    out
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// PRELOGIN with VERSION, ENCRYPTION (off), INSTOPT (empty), THREADID and MARS (off).
pub(crate) fn pre_login() -> Vec<u8> {
    let mut out = Vec::new();
    let options: [(u8, &[u8]); 5] = [(0, &[17, 0, 0, 1, 0, 0]), (1, &[0]), (2, &[0]), (3, &[1, 2, 3, 4]), (4, &[0])];
    let mut offset = options.len() as u16 * 5 + 1;
    for (token, data) in options {
        out.push(token);
        out.extend(offset.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        offset += data.len() as u16;
    }
    out.push(0xFF);
    out.extend(options.iter().flat_map(|(_, data)| *data));
    out
}

/// LOGIN7 of a user and a database, with these features.
pub(crate) fn login(version: u32, packet_size: u32, user: &str, password: &str, features: &[(u8, &[u8])]) -> Vec<u8> {
    let scrambled: Vec<u8> = utf16(password).iter().map(|byte| byte.rotate_left(4) ^ 0xA5).collect();
    let texts: [Vec<u8>; 5] = [utf16("host"), utf16(user), scrambled, utf16("program"), utf16("server")];
    let (library, language, database) = (utf16("library"), utf16(""), utf16("master"));
    let mut data = Vec::new();
    let mut slots = Vec::new();
    let mut slot = |bytes: &[u8], units: usize| {
        slots.extend((94 + data.len() as u16).to_le_bytes());
        slots.extend((units as u16).to_le_bytes());
        data.extend(bytes);
    };
    texts.iter().for_each(|text| slot(text, text.len() / 2));
    // Where the list of features begins: behind all else.
    let before: usize = texts.iter().chain([&library, &language, &database]).map(Vec::len).sum();
    slot(&(94 + before as u32 + 4).to_le_bytes(), 4);
    [&library, &language, &database].iter().for_each(|text| slot(text, text.len() / 2));
    slots.extend([2, 0, 0, 0, 0, 1]);
    // SSPI, attached file, new password, long SSPI.
    slots.extend([0; 16]);
    for (id, feature) in features {
        data.push(*id);
        data.extend((feature.len() as u32).to_le_bytes());
        data.extend(*feature);
    }
    data.push(0xFF);
    let mut out = Vec::new();
    out.extend((94 + data.len() as u32).to_le_bytes());
    out.extend(version.to_le_bytes());
    out.extend(packet_size.to_le_bytes());
    // Version of the library, process, connection.
    out.extend([0, 1, 0, 7, 0x39, 0x30, 0, 0, 0, 0, 0, 0]);
    // Options: USE is told, the database is needed; ODBC; reads only; extension.
    out.extend([0xE0, 0x03, 0x20, 0x10]);
    // Time zone and locale.
    out.extend([0x88, 0xFF, 0xFF, 0xFF, 9, 4, 0, 0]);
    out.extend(slots);
    out.extend(data);
    out
}

/// ALL_HEADERS with a transaction.
pub(crate) fn headers(transaction: u64) -> Vec<u8> {
    let mut out = vec![22, 0, 0, 0, 18, 0, 0, 0, 2, 0];
    out.extend(transaction.to_le_bytes());
    out.extend([1, 0, 0, 0]);
    out
}

pub(crate) fn batch(text: &str) -> Vec<u8> {
    [headers(0), utf16(text)].concat()
}

/// A parameter of a call: name, flags, type, whether its type is the nullable one, value.
pub(crate) type Parameter = (&'static str, u8, DataType, bool, Value);

/// A call of a procedure by its number or name.
pub(crate) fn call(procedure: Result<u16, &str>, parameters: &[Parameter]) -> Vec<u8> {
    let mut out = Vec::new();
    match procedure {
        Ok(number) => {
            out.extend([0xFF, 0xFF]);
            out.extend(number.to_le_bytes());
        }
        Err(name) => {
            out.extend((name.encode_utf16().count() as u16).to_le_bytes());
            out.extend(utf16(name));
        }
    }
    out.extend([0, 0]);
    for (name, flags, data_type, is_nullable, value) in parameters {
        out.push(name.encode_utf16().count() as u8);
        out.extend(utf16(name));
        out.push(*flags);
        put_type(&mut out, data_type, *is_nullable);
        put_value(&mut out, data_type, *is_nullable, value);
    }
    out
}

/// Cuts bytes into pieces of sizes that `seed` chooses. Seed 0: one piece.
pub(crate) fn pieces(bytes: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, seed);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let most = [1, 7, 8, 9, 511, 5000][(state >> 40) as usize % 6];
        let len = if seed == 0 { rest.len() } else { 1 + (state >> 48) as usize % most };
        let (piece, left) = rest.split_at(len.min(rest.len()));
        rest = left;
        Some(piece)
    })
}
