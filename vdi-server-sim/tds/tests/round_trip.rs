//! What the crate writes, a client reads; what a client writes, the crate reads: over any values, sizes and cuts.
#![allow(clippy::unwrap_used)]

mod common;

use common::tokens::{Token, contents, tokens};
use common::{call, headers, packets, pieces};
use proptest::prelude::*;
use vdi_tds::collation::Collation;
use vdi_tds::connection::{Connection, Event, Limits};
use vdi_tds::packet::{Assembler, Message, PacketType, PacketWriter, Reset};
use vdi_tds::request::Request;
use vdi_tds::tls::{Unwrapper, wrap};
use vdi_tds::token::{Column, Done, DoneKind, EnvChange, LoginAck, ServerMessage};
use vdi_tds::types::{DataType, Length};
use vdi_tds::value::{Date, Decimal, Guid, Time, Value};
use vdi_tds::version::{ProductVersion, TdsVersion};

const LATIN: Collation = Collation::SQL_LATIN1_GENERAL_CP1_CI_AS;
const UTF8: Collation = Collation::LATIN1_GENERAL_100_UTF8;

fn any_date() -> impl Strategy<Value = Date> {
    (0..=Date::MAX_DAYS).prop_map(|days| Date::from_days(days).unwrap())
}

/// A time with as many decimal places as the scale has.
fn any_time(scale: u8) -> impl Strategy<Value = Time> {
    let unit = 10u64.pow(7 - u32::from(scale));
    (0..Time::DAY / unit).prop_map(move |units| Time::from_ticks(units * unit).unwrap())
}

fn any_decimal() -> impl Strategy<Value = (u8, u8, Decimal)> {
    (1..=38u8, 0..=38u8, any::<(bool, u128)>()).prop_map(|(precision, scale, (is_negative, magnitude))| {
        let scale = scale % (precision + 1);
        (precision, scale, Decimal { is_negative, magnitude: magnitude % 10u128.pow(u32::from(precision)), scale })
    })
}

/// Texts of Latin-1 without the characters where code page 1252 differs.
fn latin(len: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![0x20..0x7Fu8, 0xA0..=0xFFu8], 0..len)
        .prop_map(|bytes| bytes.into_iter().map(char::from).collect())
}

fn unicode(len: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..len).prop_map(|characters| characters.into_iter().collect())
}

fn number() -> impl Strategy<Value = (DataType, Value)> {
    prop_oneof![
        any::<bool>().prop_map(|bit| (DataType::Bit, Value::Bit(bit))),
        any::<u8>().prop_map(|number| (DataType::TinyInt, Value::TinyInt(number))),
        any::<i16>().prop_map(|number| (DataType::SmallInt, Value::SmallInt(number))),
        any::<i32>().prop_map(|number| (DataType::Int, Value::Int(number))),
        any::<i64>().prop_map(|number| (DataType::BigInt, Value::BigInt(number))),
        any::<f32>().prop_map(|number| (DataType::Real, Value::Real(number))),
        any::<f64>().prop_map(|number| (DataType::Float, Value::Float(number))),
        any::<i32>().prop_map(|number| (DataType::SmallMoney, Value::Money(number.into()))),
        any::<i64>().prop_map(|number| (DataType::Money, Value::Money(number))),
        any_decimal().prop_map(|(precision, scale, decimal)| {
            (DataType::Decimal { precision, scale }, Value::Decimal(decimal))
        }),
        any_decimal().prop_map(|(precision, scale, decimal)| {
            (DataType::Numeric { precision, scale }, Value::Decimal(decimal))
        }),
    ]
}

fn point_in_time() -> impl Strategy<Value = (DataType, Value)> {
    prop_oneof![
        (any::<u16>(), 0..1440u16)
            .prop_map(|(days, minutes)| (DataType::SmallDateTime, Value::SmallDateTime { days, minutes })),
        (-53_690..=2_958_463, 0..25_920_000u32)
            .prop_map(|(days, ticks)| (DataType::DateTime, Value::DateTime { days, ticks })),
        any_date().prop_map(|date| (DataType::Date, Value::Date(date))),
        (0..=7u8)
            .prop_flat_map(|scale| any_time(scale).prop_map(move |time| (DataType::Time { scale }, Value::Time(time)))),
        (0..=7u8, any_date()).prop_flat_map(|(scale, date)| {
            any_time(scale).prop_map(move |time| (DataType::DateTime2 { scale }, Value::DateTime2(date, time)))
        }),
        (0..=7u8, any_date(), -840..=840i16).prop_flat_map(|(scale, date, offset)| {
            let value = move |time| Value::DateTimeOffset { date, time, offset };
            any_time(scale).prop_map(move |time| (DataType::DateTimeOffset { scale }, value(time)))
        }),
        any::<[u8; 16]>().prop_map(|bytes| (DataType::UniqueIdentifier, Value::Guid(Guid(bytes)))),
    ]
}

fn text() -> impl Strategy<Value = (DataType, Value)> {
    let limited = Length::Limited;
    prop_oneof![
        latin(60).prop_map(|text| {
            let len = text.chars().count() as u16;
            (DataType::Char { len, collation: LATIN }, Value::Text(text))
        }),
        latin(60).prop_map(move |text| (DataType::VarChar { len: limited(8000), collation: LATIN }, Value::Text(text))),
        unicode(60).prop_map(move |text| (DataType::VarChar { len: limited(240), collation: UTF8 }, Value::Text(text))),
        latin(9000).prop_map(|text| (DataType::VarChar { len: Length::Max, collation: LATIN }, Value::Text(text))),
        unicode(60).prop_map(|text| {
            let len = text.encode_utf16().count() as u16;
            (DataType::NChar { len, collation: LATIN }, Value::Text(text))
        }),
        unicode(60).prop_map(|text| (DataType::nvarchar(4000), Value::Text(text))),
        unicode(5000).prop_map(|text| (DataType::NVarChar { len: Length::Max, collation: LATIN }, Value::Text(text))),
        prop::collection::vec(any::<u8>(), 0..60)
            .prop_map(|bytes| (DataType::Binary { len: bytes.len() as u16 }, Value::Binary(bytes))),
        prop::collection::vec(any::<u8>(), 0..60)
            .prop_map(move |bytes| (DataType::VarBinary { len: limited(60) }, Value::Binary(bytes))),
        prop::collection::vec(any::<u8>(), 0..9000)
            .prop_map(|bytes| (DataType::VarBinary { len: Length::Max }, Value::Binary(bytes))),
    ]
}

/// A column with a value: its type, whether it is nullable, its value.
fn cell() -> impl Strategy<Value = (DataType, bool, Value)> {
    let value = prop_oneof![number(), point_in_time(), text()];
    (value, any::<(bool, bool)>()).prop_map(|((data_type, value), (is_nullable, is_null))| {
        (data_type, is_nullable, if is_nullable && is_null { Value::Null } else { value })
    })
}

/// Whether values are equal, with floating point numbers by their bits.
fn same(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        })
}

/// A connection that is logged in.
fn logged_in(version: u32, packet_size: u32) -> Connection {
    let mut connection = Connection::new(Limits::default());
    let login = common::login(version, packet_size, "sa", "pw", &[]);
    for bytes in [packets(0x12, 0, 512, &common::pre_login()), packets(0x10, 0, 512, &login)] {
        connection.next(&mut &bytes[..]).unwrap().expect("an event");
    }
    connection.log_in();
    connection
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_reads_the_rows_that_are_written(
        cells in prop::collection::vec(cell(), 1..20),
        size in 512..32_768u32,
        (has_nbc, must_flush) in any::<(bool, bool)>(),
    ) {
        let connection = logged_in(if has_nbc { 0x7400_0004 } else { 0x730A_0003 }, size);
        let mut response = connection.response();
        let columns: Vec<Column> = cells.iter().enumerate()
            .map(|(at, (data_type, is_nullable, _))| {
                let column = Column::new(format!("c{at}"), *data_type);
                if *is_nullable { column } else { column.not_null() }
            })
            .collect();
        let values: Vec<Value> = cells.into_iter().map(|(_, _, value)| value).collect();
        response.columns(&columns).unwrap();
        let mut bytes = if must_flush { response.flush() } else { Vec::new() };
        for _ in 0..3 {
            response.row(&values).unwrap();
            bytes.extend(response.packets());
        }
        response.done(DoneKind::Statement, Done { rows: Some(3), ..Done::default() });
        bytes.extend(response.finish());

        let (_, sizes) = contents(&bytes);
        prop_assert!(sizes.iter().all(|len| *len <= size as usize));
        let read = tokens(&bytes);
        prop_assert_eq!(read.len(), 5);
        let listed: Vec<_> = columns.iter()
            .map(|column| (column.name.clone(), if column.is_nullable { 9 } else { 8 }, column.data_type))
            .collect();
        prop_assert_eq!(&read[0], &Token::Columns(listed));
        for token in &read[1..4] {
            let Token::Row(row) = token else { panic!("{token:?}") };
            prop_assert!(same(row, &values), "{:?}\n{:?}", row, values);
        }
        prop_assert_eq!(&read[4], &Token::Done(0xFD, 0x10, 0, 3));
    }

    #[test]
    fn parameters_are_read_as_a_client_writes_them(cells in prop::collection::vec(cell(), 1..20)) {
        let parameters: Vec<_> =
            cells.iter().map(|(data_type, is_nullable, value)| ("@p", 1, *data_type, *is_nullable, value.clone())).collect();
        let contents = [headers(3), call(Ok(10), &parameters)].concat();
        let message = Message { kind: PacketType::Rpc, reset: Reset::No, ignored: false, contents };
        let Request::Rpc { calls, headers } = Request::decode(&message, &Limits::default()).unwrap() else {
            panic!("RPC expected")
        };
        prop_assert_eq!(headers.transaction, 3);
        prop_assert_eq!(calls.len(), 1);
        let read: Vec<Value> = calls[0].parameters.iter().map(|parameter| parameter.value.clone()).collect();
        let written: Vec<Value> = cells.iter().map(|(_, _, value)| value.clone()).collect();
        prop_assert!(same(&read, &written), "{:?}\n{:?}", read, written);
        for (parameter, (data_type, ..)) in calls[0].parameters.iter().zip(&cells) {
            prop_assert_eq!((parameter.name.as_str(), parameter.by_ref, &parameter.data_type), ("@p", true, data_type));
        }
    }

    #[test]
    fn messages_survive_packets_of_any_size_and_any_cut(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..5),
        (size, seed) in (512..=32_767u16, any::<u64>()),
    ) {
        let mut writer = PacketWriter::new(PacketType::SqlBatch, size, 51);
        let (mut bytes, mut read) = (Vec::new(), Vec::new());
        for message in &messages {
            // In two parts, so that packets are filled across writes.
            let (head, tail) = message.split_at(message.len() / 3);
            writer.write(head, &mut bytes);
            writer.write(tail, &mut bytes);
            writer.finish(&mut bytes);
        }
        let mut assembler = Assembler::new();
        for mut piece in pieces(&bytes, seed | 1) {
            while let Some(message) = assembler.next(&mut piece).unwrap() {
                read.push(message.contents);
            }
        }
        prop_assert!(!assembler.is_inside());
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn a_handshake_survives_its_packets(records in prop::collection::vec(any::<u8>(), 0..20_000), seed in any::<u64>()) {
        let (mut packets, mut read, mut unwrapper) = (Vec::new(), Vec::new(), Unwrapper::new());
        wrap(&records, &mut packets);
        for mut piece in pieces(&packets, seed | 1) {
            while let Some(data) = unwrapper.next(&mut piece).unwrap() {
                read.extend_from_slice(data);
            }
        }
        prop_assert!(unwrapper.is_between_packets() && read == records);
    }

    #[test]
    fn any_text_makes_a_message_that_a_client_reads(text in "\\PC{0,40}", repeat in 1..400usize) {
        let text = text.repeat(repeat);
        let mut response = Connection::new(Limits::default()).response();
        let message = ServerMessage { text: text.clone(), server: text.clone(), procedure: text.clone(), ..ServerMessage::default() };
        response.info(&message);
        response.env_change(&EnvChange::Database { new: text.clone(), old: text.clone() });
        response.login_ack(&LoginAck { program: text.clone(), version: ProductVersion::default() });
        let read = tokens(&response.finish());
        let Token::Message(false, _, _, _, sent, server, ..) = &read[0] else { panic!("{read:?}") };
        prop_assert!(text.starts_with(sent.as_str()) && text.starts_with(server.as_str()));
        prop_assert!(sent.encode_utf16().count() <= 8000 && server.encode_utf16().count() <= 255);
        prop_assert!(*sent == text || sent.encode_utf16().count() >= 7999);
    }
}

/// All days, counted one by one: a day follows the day before it, and each is found by its parts.
#[test]
fn days_are_those_of_the_calendar() {
    let is_leap = |year: u16| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut days = 0;
    for year in 1..=9999 {
        let february = if is_leap(year) { 29 } else { 28 };
        for (month, len) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
            for day in [1, 2, len] {
                let date = Date::from_days(days + u32::from(day) - 1).unwrap();
                assert_eq!(date.ymd(), (year, month, day));
                assert_eq!(Date::from_ymd(year, month, day), Some(date));
            }
            assert_eq!(Date::from_ymd(year, month, len + 1), None);
            days += u32::from(len);
        }
    }
    assert_eq!(days, Date::MAX_DAYS + 1);
    assert_eq!(Date::from_days(days), None);
    assert_eq!((Date::from_ymd(0, 1, 1), Date::from_ymd(2024, 13, 1), Date::from_ymd(2024, 1, 0)), (None, None, None));
}

#[test]
fn short_values_of_fixed_types_are_filled() {
    let mut response = Connection::new(Limits::default()).response();
    let types = [
        DataType::Char { len: 4, collation: LATIN },
        DataType::NChar { len: 3, collation: LATIN },
        DataType::Binary { len: 3 },
    ];
    response.columns(&types.map(|data_type| Column::new("c", data_type))).unwrap();
    response.row(&["ab".into(), "é".into(), Value::Binary(vec![1])]).unwrap();
    let read = tokens(&response.finish());
    assert_eq!(read[1], Token::Row(vec!["ab  ".into(), "é  ".into(), Value::Binary(vec![1, 0, 0])]));
}

#[test]
fn characters_that_a_code_page_lacks_become_question_marks() {
    assert_eq!(LATIN.encode("a€日"), [b'a', 0x80, b'?']);
    assert_eq!(Collation([0x08, 0x04, 0xD0, 0, 0]).encode("aé"), *b"a?");
}

#[test]
fn a_token_that_fails_leaves_no_trace() {
    let mut response = Connection::new(Limits::default()).response();
    response.columns(&[Column::new("a", DataType::nvarchar(2)), Column::new("b", DataType::Int).not_null()]).unwrap();
    for wrong in [
        vec!["abc".into(), Value::Int(1)],
        vec!["a".into(), Value::Null],
        vec!["a".into(), Value::BigInt(1)],
        vec!["a".into()],
        vec![Value::Null, Value::Null],
    ] {
        assert!(response.row(&wrong).is_err(), "{wrong:?}");
    }
    assert!(response.columns(&[Column::new("t", DataType::Image)]).is_err());
    response.row(&["ab".into(), Value::Int(1)]).unwrap();
    let read = tokens(&response.finish());
    assert_eq!(read.len(), 2);
    assert_eq!(read[1], Token::Row(vec!["ab".into(), Value::Int(1)]));
}

#[test]
fn the_answer_to_a_login_is_read_by_its_client() {
    let mut connection = Connection::new(Limits::default());
    connection.next(&mut &packets(0x12, 0, 512, &common::pre_login())[..]).unwrap();
    let login = common::login(0x7400_0004, 8000, "sa", "sécret", &[(0x0A, &[1]), (0x04, &[1])]);
    let Some(Event::Login(login)) = connection.next(&mut &packets(0x10, 0, 512, &login)[..]).unwrap() else {
        panic!("a login expected")
    };
    assert_eq!((login.user.as_str(), login.password.as_str(), login.database.as_str()), ("sa", "sécret", "master"));
    assert_eq!(
        (login.version, connection.requested_packet_size(), connection.packet_size()),
        (TdsVersion::V7_4, 8000, 4096)
    );
    let mut response = connection.response();
    let version = ProductVersion { major: 16, minor: 0, build: 4135, sub_build: 0 };
    response.login_ack(&LoginAck { program: "Microsoft SQL Server".to_owned(), version });
    let answers: Vec<_> = login.features.iter().filter_map(|feature| feature.answer().unwrap()).collect();
    response.features(&answers);
    response.done(DoneKind::Statement, Done::default());
    let read = tokens(&response.finish());
    let program = "Microsoft SQL Server".to_owned();
    assert_eq!(read[0], Token::LoginAck { interface: 1, version: 0x7400_0004, program, numbers: [16, 0, 0x10, 0x27] });
    assert_eq!(read[1..], [Token::Features(vec![(0x0A, vec![1])]), Token::Done(0xFD, 0, 0, 0)]);
    connection.log_in();
    assert_eq!(connection.packet_size(), 8000);
}

#[test]
fn old_clients_get_what_they_can_read() {
    let mut response = logged_in(0x7209_0002, 4096).response();
    assert!(response.columns(&[Column::new("d", DataType::Date)]).is_err());
    response.columns(&[Column::new("a", DataType::BigInt), Column::new("b", DataType::nvarchar(1))]).unwrap();
    response.row(&[Value::Null, Value::Null]).unwrap();
    let (sent, _) = contents(&response.finish());
    assert_eq!(sent[sent.len() - 4..], [0xD1, 0, 0xFF, 0xFF], "ROW, not NBCROW");
}
