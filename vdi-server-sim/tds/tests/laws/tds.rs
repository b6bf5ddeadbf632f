//! Any bytes of a client.

use vdi_tds::Error;
use vdi_tds::connection::{Connection, Event, Limits};
use vdi_tds::login::Login;
use vdi_tds::packet::{Assembler, Message, PacketType, Reset};
use vdi_tds::prelogin::PreLogin;
use vdi_tds::request::Request;
use vdi_tds::rpc::Call;
use vdi_tds::tls::{Unwrapper, wrap};
use vdi_tds::token::{Done, DoneKind, ReturnValue};
use vdi_tds::types::DataType;
use vdi_tds::value::Value;

/// What the input is. Its first byte, modulo 5.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// All bytes of a connection.
    Connection = 0,
    /// The contents of a request. The next byte is its type.
    Request = 1,
    /// The contents of a login.
    Login = 2,
    /// The contents of a PRELOGIN.
    PreLogin = 3,
    /// A TLS handshake in packets.
    Tls = 4,
}

fn limits() -> Limits {
    Limits { request: 1 << 16, parameters: 20, calls: 5, parameters_of_message: 50 }
}

/// Pieces of sizes that `seed` chooses. Seed 0: one piece.
fn pieces(bytes: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
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

/// The events of a connection, and its error.
fn events(bytes: &[u8], seed: u64) -> (Vec<Event>, Option<Error>) {
    let (mut connection, mut events) = (Connection::new(limits()), Vec::new());
    for mut piece in pieces(bytes, seed) {
        loop {
            match connection.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    if matches!(event, Event::Login(_)) {
                        connection.log_in();
                    }
                    events.push(event);
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (events, Some(error));
                }
            }
        }
        assert!(piece.is_empty(), "bytes are left without a message");
    }
    (events, None)
}

/// A request that is understood is within the limits, and what it holds can be sent back.
fn request(message: &Message) -> bool {
    assert!(message.contents.len() <= limits().request);
    match Request::decode(message, &limits()) {
        Ok(Request::Rpc { calls, .. }) => {
            assert!((1..=limits().calls).contains(&calls.len()));
            let total: usize = calls.iter().map(|call| call.parameters.len()).sum();
            assert!(total <= limits().parameters_of_message);
            calls.iter().for_each(|call| echo(call, message.contents.len()));
            true
        }
        Ok(Request::Batch { text, .. }) => {
            assert!(text.len() <= message.contents.len() * 3 / 2);
            true
        }
        Ok(Request::Transaction { .. }) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Sends the parameters of a call back.
fn echo(call: &Call, len: usize) {
    assert!(call.parameters.len() <= limits().parameters && !call.procedure.name().is_empty());
    let mut response = Connection::new(limits()).response();
    for parameter in &call.parameters {
        let size = match &parameter.value {
            Value::Text(text) => text.len(),
            Value::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        assert!(size <= 3 * len, "{size} bytes from {len}");
        let (name, data_type, value) = (parameter.name.clone(), parameter.data_type, parameter.value.clone());
        let sent = response.return_value(&ReturnValue { name, ordinal: 0, data_type, value });
        // These are read only.
        if matches!(data_type, DataType::Text { .. } | DataType::NText { .. } | DataType::Image) {
            assert!(matches!(sent, Err(Error::Unsupported { .. })));
        } else {
            assert_eq!(sent, Ok(()), "{parameter:?}");
        }
    }
    response.done(DoneKind::Procedure, Done::default());
    let packets = response.finish();
    let mut input = &packets[..];
    let message = Assembler::new().next(&mut input).expect("packets of its own").expect("a message");
    assert!(message.kind == PacketType::Response && input.is_empty());
}

/// The data of a handshake, whether it ended between packets, and the error.
fn unwrapped(bytes: &[u8], seed: u64) -> (Vec<u8>, bool, Option<Error>) {
    let (mut unwrapper, mut data) = (Unwrapper::new(), Vec::new());
    for mut piece in pieces(bytes, seed) {
        loop {
            match unwrapper.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(bytes)) => {
                    assert!(!bytes.is_empty());
                    data.extend_from_slice(bytes);
                }
                Err(error) => return (data, false, Some(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (data, unwrapper.is_between_packets(), None)
}

/// Any input ends in messages or an error, the same in one piece and in many; what is understood is within the limits, and can be written.
///
/// The first byte: modulo 5 the kind, the whole the seed of the pieces. Returns whether all of it was understood.
pub(crate) fn tds(bytes: &[u8]) -> bool {
    let Some((&first, rest)) = bytes.split_first() else { return false };
    let seed = u64::from(first) + 1;
    match first % 5 {
        0 => {
            let (whole, error) = events(rest, 0);
            assert_eq!((&whole, &error), (&events(rest, seed).0, &events(rest, seed).1));
            let mut all = error.is_none() && !whole.is_empty();
            for event in &whole {
                if let Event::Request(message) = event {
                    all &= request(message);
                }
            }
            all
        }
        1 => {
            let Some((&kind, contents)) = rest.split_first() else { return false };
            let Some(kind) = PacketType::from_u8(kind) else { return false };
            let contents = contents[..contents.len().min(limits().request)].to_vec();
            request(&Message { kind, reset: Reset::No, ignored: false, contents })
        }
        2 => match Login::decode(rest) {
            Ok(login) => {
                assert!((512..=32_767).contains(&login.packet_size) && login.user.chars().count() <= 128);
                true
            }
            Err(error) => error.to_string().is_empty(),
        },
        3 => match PreLogin::decode(rest) {
            Ok(message) => {
                assert_eq!(PreLogin::decode(&message.encode()), Ok(message));
                true
            }
            Err(error) => error.to_string().is_empty(),
        },
        _ => {
            let whole = unwrapped(rest, 0);
            assert_eq!(whole, unwrapped(rest, seed));
            let mut packets = Vec::new();
            wrap(rest, &mut packets);
            assert_eq!(unwrapped(&packets, seed), (rest.to_vec(), true, None));
            whole.2.is_none() && whole.1
        }
    }
}
