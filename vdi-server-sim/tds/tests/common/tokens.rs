//! Tokens of a response, as a client reads them.

use vdi_tds::types::DataType;
use vdi_tds::value::Value;

use super::data::{get, get_type, get_value, take};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    LoginAck {
        interface: u8,
        version: u32,
        program: String,
        numbers: [u8; 4],
    },
    Features(Vec<(u8, Vec<u8>)>),
    EnvChange(Vec<u8>),
    /// Whether it is an error; number, state, severity, text, server, procedure, line.
    Message(bool, i32, u8, u8, String, String, String, u32),
    /// Name, flags, type.
    Columns(Vec<(String, u16, DataType)>),
    Row(Vec<Value>),
    Order(Vec<u16>),
    ReturnStatus(i32),
    /// Ordinal, name, type, value.
    ReturnValue(u16, String, DataType, Value),
    /// Token, status, command, rows.
    Done(u8, u16, u16, u64),
}

fn text(input: &mut &[u8], units: usize) -> String {
    let units: Vec<u16> = take(input, units * 2).chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    String::from_utf16(&units).unwrap()
}

fn b_varchar(input: &mut &[u8]) -> String {
    let units = get(input, 1);
    text(input, units as usize)
}

/// The contents of the one message in `packets`, and the sizes of the packets.
pub(crate) fn contents(packets: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut rest, mut contents, mut sizes) = (packets, Vec::new(), Vec::new());
    while !rest.is_empty() {
        assert_eq!(rest[0], 4);
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        assert_eq!(usize::from(rest[6]), (sizes.len() + 1) % 256, "packet numbers");
        let packet = take(&mut rest, len);
        assert_eq!(packet[1], u8::from(rest.is_empty()), "only the last packet ends the message");
        contents.extend(&packet[8..]);
        sizes.push(len);
    }
    (contents, sizes)
}

/// The tokens of a response in packets.
pub(crate) fn tokens(packets: &[u8]) -> Vec<Token> {
    let contents = contents(packets).0;
    let (mut input, mut tokens, mut columns) = (&contents[..], Vec::new(), Vec::new());
    while !input.is_empty() {
        let id = get(&mut input, 1) as u8;
        tokens.push(match id {
            0x79 => Token::ReturnStatus(get(&mut input, 4) as i32),
            0x81 => {
                let count = get(&mut input, 2);
                columns.clear();
                let listed = (0..count).map(|_| {
                    assert_eq!(get(&mut input, 4), 0, "type of a user");
                    let flags = get(&mut input, 2) as u16;
                    let (data_type, has_len) = get_type(&mut input);
                    columns.push((data_type, has_len));
                    (b_varchar(&mut input), flags, data_type)
                });
                Token::Columns(listed.collect())
            }
            0xD1 => Token::Row(
                columns.iter().map(|(data_type, has_len)| get_value(&mut input, data_type, *has_len)).collect(),
            ),
            0xD2 => {
                let bits = take(&mut input, columns.len().div_ceil(8));
                let values = columns.iter().enumerate().map(|(at, (data_type, has_len))| {
                    if bits[at / 8] >> (at % 8) & 1 == 1 {
                        Value::Null
                    } else {
                        get_value(&mut input, data_type, *has_len)
                    }
                });
                Token::Row(values.collect())
            }
            0xAC => {
                let (ordinal, name) = (get(&mut input, 2) as u16, b_varchar(&mut input));
                assert_eq!(take(&mut input, 7), [1, 0, 0, 0, 0, 0, 0]);
                let (data_type, has_len) = get_type(&mut input);
                Token::ReturnValue(ordinal, name, data_type, get_value(&mut input, &data_type, has_len))
            }
            0xAE => {
                let mut features = Vec::new();
                loop {
                    match get(&mut input, 1) {
                        0xFF => break Token::Features(features),
                        id => {
                            let len = get(&mut input, 4) as usize;
                            features.push((id as u8, take(&mut input, len).to_vec()));
                        }
                    }
                }
            }
            0xFD..=0xFF => Token::Done(id, get(&mut input, 2) as u16, get(&mut input, 2) as u16, get(&mut input, 8)),
            _ => {
                let len = get(&mut input, 2) as usize;
                let mut body = take(&mut input, len);
                let token = sized(id, &mut body);
                assert!(body.is_empty(), "{token:?} is longer than its fields");
                token
            }
        });
    }
    tokens
}

fn sized(id: u8, body: &mut &[u8]) -> Token {
    match id {
        0xA9 => {
            Token::Order(std::mem::take(body).chunks(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]])).collect())
        }
        0xAA | 0xAB => {
            let (number, state, severity) = (get(body, 4) as i32, get(body, 1) as u8, get(body, 1) as u8);
            let units = get(body, 2) as usize;
            let (text, server, procedure) = (text(body, units), b_varchar(body), b_varchar(body));
            Token::Message(id == 0xAA, number, state, severity, text, server, procedure, get(body, 4) as u32)
        }
        0xAD => Token::LoginAck {
            interface: get(body, 1) as u8,
            version: u32::from_be_bytes(take(body, 4).try_into().unwrap()),
            program: b_varchar(body),
            numbers: take(body, 4).try_into().unwrap(),
        },
        0xE3 => Token::EnvChange(std::mem::take(body).to_vec()),
        other => panic!("token {other:#x}"),
    }
}
