//! Clients that break the rules: a typed error at once, no memory for what they only claim.
#![allow(clippy::unwrap_used)]

mod common;

use common::{batch, headers, login, packets, pre_login};
use vdi_tds::Error;
use vdi_tds::connection::{Connection, Event, Limits};
use vdi_tds::login::Login;
use vdi_tds::packet::{Message, PacketType, Reset};
use vdi_tds::prelogin::{Encrypted, Encryption, EncryptionPolicy, PreLogin, negotiate};
use vdi_tds::request::Request;
use vdi_tds::tls::{Unwrapper, begins_with_tls, expect_tls};
use vdi_tds::version::TdsVersion;

/// The last result of a connection that gets these bytes.
fn result(limits: Limits, input: &[&[u8]]) -> Result<Option<Event>, Error> {
    let (mut connection, mut last) = (Connection::new(limits), None);
    for mut bytes in input.iter().copied() {
        while let Some(event) = connection.next(&mut bytes)? {
            if matches!(event, Event::Login(_)) {
                connection.log_in();
            }
            last = Some(event);
        }
    }
    Ok(last)
}

fn error(input: &[&[u8]]) -> Error {
    result(Limits::default(), input).expect_err("an error is expected")
}

#[test]
fn what_is_no_tds_is_refused_at_its_first_byte() {
    assert_eq!(error(&[b"\x16"]), Error::PacketType { offset: 0, found: 0x16 });
    assert!(error(&[b"\x16"]).to_string().contains("TLS"));
    assert_eq!(error(&[b"GET / HTTP/1.1"]), Error::PacketType { offset: 0, found: b'G' });
}

#[test]
fn lengths_of_packets_have_a_range() {
    let range = |least, found| Error::PacketLength { offset: 0, least, most: 32_767, found };
    assert_eq!(error(&[&[0x12, 1, 0, 7, 0, 0, 1, 0]]), range(8, 7));
    assert_eq!(error(&[&[0x12, 1, 0x80, 0, 0, 0, 1, 0]]), range(8, 32_768));
    // A packet that is not the last one has at least 512 bytes: none can be empty for ever.
    assert_eq!(error(&[&[0x12, 0, 0, 8, 0, 0, 1, 0]]), range(512, 8));
}

#[test]
fn the_order_of_messages_is_enforced() {
    let (pre_login, login) =
        (packets(0x12, 0, 512, &pre_login()), packets(0x10, 0, 512, &login(0x7400_0004, 0, "a", "b", &[])));
    let batch = packets(1, 0, 512, &batch("x"));
    let unexpected = |expected, found| Error::UnexpectedMessage { expected, found };
    assert_eq!(error(&[&login]), unexpected("pre-login", PacketType::Login));
    assert_eq!(error(&[&batch]), unexpected("pre-login", PacketType::SqlBatch));
    assert_eq!(error(&[&pre_login, &pre_login]), unexpected("login", PacketType::PreLogin));
    assert_eq!(error(&[&pre_login, &batch]), unexpected("login", PacketType::SqlBatch));
    assert_eq!(error(&[&pre_login, &login, &login]), unexpected("a request", PacketType::Login));
    for kind in [2, 4, 8, 17, 18] {
        assert!(matches!(error(&[&pre_login, &login, &packets(kind, 0, 512, &[])]), Error::UnexpectedMessage { .. }));
    }
    // Before the login is answered nothing may come.
    let mut connection = Connection::new(Limits::default());
    connection.next(&mut &pre_login[..]).unwrap();
    connection.next(&mut &login[..]).unwrap();
    assert!(matches!(connection.next(&mut &batch[..]), Err(Error::UnexpectedMessage { .. })));
}

#[test]
fn packets_of_two_messages_cannot_mix() {
    let mut bytes = packets(0x12, 0, 512, &[0; 504]);
    bytes[1] = 0;
    let expected = Error::MixedPackets { offset: 512, expected: PacketType::PreLogin, found: PacketType::Attention };
    assert_eq!(error(&[&bytes, &[6]]), expected);
}

#[test]
fn messages_are_limited_before_their_bytes_come() {
    // PRELOGIN: 4,096 bytes. Only the header of the packet beyond is there.
    let packet = |kind: u8, len: u16| [vec![kind, 0], len.to_be_bytes().to_vec(), vec![0, 0, 1, 0]].concat();
    let long = Error::MessageLength { message: PacketType::PreLogin, most: 4096 };
    assert_eq!(error(&[&packet(0x12, 4105)]), long);
    // Login: 128 KiB less one.
    let pre_login = packets(0x12, 0, 512, &pre_login());
    let full = [packet(0x10, 32_767), vec![0; 32_759]].concat();
    let long = Error::MessageLength { message: PacketType::Login, most: 131_071 };
    assert_eq!(error(&[&pre_login, &full, &full, &full, &full, &packet(0x10, 600)]), long);
    // Requests: what the server allows.
    let login = packets(0x10, 0, 512, &login(0x7400_0004, 0, "a", "b", &[]));
    let limits = Limits { request: 1000, ..Limits::default() };
    let fits = packets(1, 0, 512, &[0; 1000]);
    assert!(matches!(result(limits, &[&pre_login, &login, &fits]), Ok(Some(Event::Request(_)))));
    let long = Err(Error::MessageLength { message: PacketType::SqlBatch, most: 1000 });
    assert_eq!(result(limits, &[&pre_login, &login, &packets(1, 0, 512, &[0; 1001])]), long);
}

#[test]
fn an_error_stands() {
    let mut connection = Connection::new(Limits::default());
    let first = connection.next(&mut &b"\x99"[..]);
    assert!(first.is_err());
    assert_eq!(connection.next(&mut &packets(0x12, 0, 512, &pre_login())[..]), first);
}

#[test]
fn counts_are_limited() {
    let message = |contents| Message { kind: PacketType::Rpc, reset: Reset::No, ignored: false, contents };
    let limits = Limits { parameters: 3, calls: 4, parameters_of_message: 5, ..Limits::default() };
    // A call with parameters without a type: no name, no flags, NULL.
    let call =
        |parameters: usize| [vec![0xFF, 0xFF, 10, 0, 0, 0], [0, 0, 0x1F].repeat(parameters), vec![0xFF]].concat();
    let decode = |calls: &[usize]| {
        let calls: Vec<u8> = calls.iter().flat_map(|parameters| call(*parameters)).collect();
        Request::decode(&message([headers(0), calls].concat()), &limits)
    };
    assert!(decode(&[3, 2, 0, 0]).is_ok());
    for (calls, limit) in [
        (&[4][..], "parameters of a call"),
        (&[3, 3], "parameters of a message"),
        (&[0, 0, 0, 0, 0], "calls in a message"),
    ] {
        assert!(matches!(decode(calls), Err(Error::Range { field, .. }) if field == limit), "{calls:?}");
    }
    let names =
        |len: u16| message([headers(0), len.to_le_bytes().to_vec(), [b'a', 0].repeat(2000), vec![0, 0]].concat());
    assert!(matches!(Request::decode(&names(2000), &limits), Err(Error::Range { .. })));
    assert!(matches!(Request::decode(&names(0), &limits), Err(Error::Range { .. })));
}

#[test]
fn headers_end_where_they_say() {
    let decode = |contents: &[u8]| {
        let contents = contents.to_vec();
        Request::decode(
            &Message { kind: PacketType::SqlBatch, reset: Reset::No, ignored: false, contents },
            &Limits::default(),
        )
    };
    let rows: [(&[u8], &str); 6] = [
        (&[], "length of the headers"),
        (&[3, 0, 0, 0], "length of the headers"),
        (&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0], "headers"),
        (&[10, 0, 0, 0, 7, 0, 0, 0, 2, 0], "length of a header"),
        (&[10, 0, 0, 0, 5, 0, 0, 0, 2, 0], "length of a header"),
        (&[10, 0, 0, 0, 6, 0, 0, 0, 9, 0], "type of a header"),
    ];
    for (contents, field) in rows {
        match decode(contents) {
            Err(
                Error::Truncated { field: found, .. }
                | Error::Range { field: found, .. }
                | Error::Field { field: found, .. }
                | Error::Unknown { field: found, .. },
            ) => assert_eq!(found, field, "{contents:?}"),
            other => panic!("{contents:?}: {other:?}"),
        }
    }
    assert!(matches!(decode(&[4, 0, 0, 0, 0, 0xD8]), Err(Error::Unicode { offset: 4, .. })), "a surrogate alone");
    assert!(matches!(decode(&[4, 0, 0, 0, b'x']), Err(Error::Unicode { offset: 4, .. })), "half a character");
}

#[test]
fn each_cut_of_a_login_or_pre_login_is_an_error() {
    let login = login(0x7400_0004, 4096, "user", "password", &[(0x0A, &[1])]);
    assert!(Login::decode(&login).is_ok());
    for len in 0..login.len() {
        let mut cut = login[..len].to_vec();
        if len >= 4 {
            cut[..4].copy_from_slice(&(len as u32).to_le_bytes());
        }
        assert!(Login::decode(&cut).is_err(), "{len} bytes");
    }
    // What is behind the last option's data does not matter, so the cut is before it.
    let pre_login = pre_login();
    for len in 0..pre_login.len() {
        assert!(PreLogin::decode(&pre_login[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn logins_that_cannot_be_served_are_named() {
    for version in [0x7000_0000, 0x7100_0001, 0x0000_0070, 0] {
        let login = login(version, 4096, "a", "b", &[]);
        assert_eq!(Login::decode(&login), Err(Error::Version { found: version }));
    }
    let mut big_endian = login(0x7400_0004, 4096, "a", "b", &[]);
    big_endian[24] |= 1;
    assert!(matches!(Login::decode(&big_endian), Err(Error::Unsupported { offset: 24, .. })));
    let mut long = login(0x7400_0004, 4096, "a", "b", &[]);
    long[42..44].copy_from_slice(&129u16.to_le_bytes());
    assert!(matches!(Login::decode(&long), Err(Error::Range { field: "user name", most: 128, found: 129, .. })));
}

#[test]
fn versions_are_negotiated() {
    use TdsVersion::{V7_2, V7_3A, V7_3B, V7_4, V8_0};
    let rows = [
        (0x7209_0002, V7_2),
        (0x730A_0003, V7_3A),
        (0x730B_0003, V7_3B),
        (0x7400_0004, V7_4),
        (0x7500_0000, V7_4),
        (0x0800_0000, V8_0),
    ];
    for (requested, expected) in rows {
        assert_eq!(TdsVersion::negotiate(requested), Ok(expected), "{requested:#x}");
        assert_eq!(TdsVersion::negotiate(expected.number()), Ok(expected));
    }
}

#[test]
fn sizes_of_packets_are_brought_into_the_range() {
    for (requested, expected) in [(0, 4096), (1, 512), (512, 512), (8000, 8000), (32_767, 32_767), (u32::MAX, 32_767)] {
        let login = Login::decode(&login(0x7400_0004, requested, "a", "b", &[])).unwrap();
        assert_eq!(login.packet_size, expected);
    }
}

#[test]
fn encryption_is_negotiated_as_specified() {
    use Encrypted::{Everything, Login, Nothing};
    use Encryption::{NotSupported, Off, On, Required};
    use EncryptionPolicy as Policy;
    let rows = [
        (Off, Policy::Optional, Off, Some(Login)),
        (Off, Policy::Required, Required, Some(Everything)),
        (Off, Policy::Unavailable, NotSupported, Some(Nothing)),
        (On, Policy::Optional, On, Some(Everything)),
        (On, Policy::Required, On, Some(Everything)),
        (On, Policy::Unavailable, NotSupported, None),
        (NotSupported, Policy::Optional, NotSupported, Some(Nothing)),
        (NotSupported, Policy::Required, Required, None),
        (NotSupported, Policy::Unavailable, NotSupported, Some(Nothing)),
        (Required, Policy::Optional, On, Some(Everything)),
        (Required, Policy::Required, On, Some(Everything)),
        (Required, Policy::Unavailable, NotSupported, None),
    ];
    for (client, server, answer, encrypted) in rows {
        let negotiated = negotiate(client, server);
        assert_eq!((negotiated.answer, negotiated.encrypted), (answer, encrypted), "{client:?} and {server:?}");
    }
}

#[test]
fn options_of_a_pre_login_are_checked() {
    let rows: [(&[u8], &str); 6] = [
        (&[], "option of PRELOGIN"),
        (&[0xFF], "first option of PRELOGIN"),
        (&[0, 0, 6, 0, 5, 0xFF, 1, 2, 3, 4, 5], "length of VERSION"),
        (&[0, 0, 11, 0, 6, 0, 0, 11, 0, 6, 0xFF, 1, 2, 3, 4, 5, 6], "option of PRELOGIN that comes twice"),
        (&[0, 0xFF, 0xFF, 0, 6, 0xFF], "option of PRELOGIN"),
        (&[0, 0, 0, 0, 6, 1, 0, 4, 0, 1, 0xFF], "ENCRYPTION"),
    ];
    for (contents, field) in rows {
        match PreLogin::decode(contents) {
            Err(
                Error::Truncated { field: found, .. }
                | Error::Field { field: found, .. }
                | Error::Unknown { field: found, .. },
            ) => assert_eq!(found, field, "{contents:?}"),
            other => panic!("{contents:?}: {other:?}"),
        }
    }
}

#[test]
fn plain_packets_inside_of_a_handshake_are_refused() {
    let mut unwrapper = Unwrapper::new();
    let login = unwrapper.next(&mut &[0x10, 1, 0, 9][..]);
    assert!(matches!(login, Err(Error::UnexpectedMessage { found: PacketType::Login, .. })));
    let bare = Unwrapper::new().next(&mut &[0x17, 3, 3][..]).map(|_| ());
    assert_eq!(bare, Err(Error::PacketType { offset: 0, found: 0x17 }));
}

#[test]
fn a_strict_server_expects_tls() {
    assert!(begins_with_tls(0x16) && expect_tls(0x16).is_ok());
    assert_eq!(expect_tls(0x12), Err(Error::NotTls { found: 0x12 }));
}
