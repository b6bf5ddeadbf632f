//! Bytes written by hand from the specification, \[MS-TDS\]: each message and each token at least once.
#![allow(clippy::unwrap_used)]

mod common;

use common::packets;
use vdi_tds::Error;
use vdi_tds::collation::Collation;
use vdi_tds::connection::{Connection, Event, Limits};
use vdi_tds::feature::{Feature, FeatureAnswer};
use vdi_tds::login::{Login, Password};
use vdi_tds::packet::{Message, PacketType, Reset};
use vdi_tds::prelogin::{Encryption, PreLogin};
use vdi_tds::request::{Headers, Request};
use vdi_tds::response::Response;
use vdi_tds::rpc::{Procedure, ProcedureId};
use vdi_tds::token::{Column, Done, DoneKind, EnvChange, LoginAck, ReturnValue, ServerMessage, command};
use vdi_tds::transaction::{Begin, Isolation, TransactionRequest};
use vdi_tds::types::{DataType, Length};
use vdi_tds::value::{Date, Decimal, Guid, Time, Value};
use vdi_tds::version::{ProductVersion, TdsVersion};

/// Bytes of a text of hexadecimal digits. What follows `;` in a line is a comment.
fn hex(image: &str) -> Vec<u8> {
    let digits: Vec<u8> = (image.lines())
        .flat_map(|line| line.split(';').next().unwrap().bytes())
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn message(kind: PacketType, image: &str) -> Message {
    Message { kind, reset: Reset::No, ignored: false, contents: hex(image) }
}

/// Compares the one message of a response.
fn is(response: Response, image: &str) {
    let contents = common::tokens::contents(&response.finish()).0;
    assert_eq!(contents, hex(image), "\n{contents:02x?}\n{:02x?}", hex(image));
}

fn response() -> Response {
    Connection::new(Limits::default()).response()
}

#[test]
fn pre_login() {
    let image = hex("00 001A 0006 ; VERSION at 26, 6 bytes: numbers of options are big-endian
         01 0020 0001 ; ENCRYPTION
         02 0021 0001 ; INSTOPT
         03 0022 0004 ; THREADID
         04 0026 0001 ; MARS
         FF           ; the end of the list
         09 00 0102 0300 ; 9.0, build 258 (big-endian), sub-build 3 (little-endian)
         01           ; encryption is available and on
         00           ; no instance is named
         B80D0000     ; thread 3512
         01           ; several active results");
    let read = PreLogin::decode(&image).unwrap();
    let expected = PreLogin {
        version: ProductVersion { major: 9, minor: 0, build: 258, sub_build: 3 },
        encryption: Some(Encryption::On),
        instance: Some(vec![0]),
        thread_id: Some(Some(3512)),
        mars: Some(true),
        ..PreLogin::default()
    };
    assert_eq!(read, expected);
    assert_eq!(read.encode(), image);

    let server = ProductVersion { major: 16, minor: 0, build: 1000, sub_build: 0 };
    let answer = Connection::new(Limits::default()).answer(&read.answer(server, Encryption::On, true));
    let expected = hex("04 01 002B 0000 01 00 ; a response, the last packet, 43 bytes, no session, packet 1
         00 001A 0006  01 0020 0001  02 0021 0001  03 0022 0000  04 0022 0001  FF
         10 00 03E8 0000 ; 16.0.1000
         01              ; encryption is on
         00              ; this is the instance
         00              ; no MARS; a server's THREADID is empty");
    assert_eq!(answer, expected);
}

#[test]
fn login7() {
    let image = hex("82000000 ; length 130
         04000074 ; TDS 7.4
         00100000 ; packets of 4,096 bytes
         00000007 ; version of the library
         2A000000 ; process 42
         00000000 ; connection
         E0       ; USE is told, the database is needed, a language change is told
         03       ; language is needed, ODBC
         20       ; reads only
         10       ; with an extension
         C4FFFFFF ; time zone -60
         09040000 ; locale
         5E00 0100 ; host: at 94, 1 character
         6000 0200 ; user: at 96
         6400 0200 ; password: at 100
         6800 0100 ; application
         6A00 0100 ; server
         6C00 0400 ; extension: 4 bytes
         0000 0000 ; library
         0000 0000 ; language
         7000 0300 ; database
         005056C00001 ; the client's id
         0000 0000 ; SSPI
         0000 0000 ; attached file
         0000 0000 ; new password
         00000000  ; length of a long SSPI
         6800      ; h
         7300 6100 ; sa
         B1A5 83A5 ; Ab: 41 and 62 with halves exchanged are 14 and 26; combined with A5, B1 and 83
         7000      ; p
         7300      ; s
         76000000  ; features at 118
         6400 6200 3100 ; db1
         0A 01000000 01 ; UTF-8 support: 1 byte, yes
         01 00000000    ; session recovery, a first connection
         FF             ; the end of the features");
    let login = Login::decode(&image).unwrap();
    assert_eq!(
        login,
        Login {
            version: TdsVersion::V7_4,
            packet_size: 4096,
            client_version: ProductVersion { major: 7, minor: 0, build: 0, sub_build: 0 },
            client_process: 42,
            host: "h".to_owned(),
            user: "sa".to_owned(),
            password: Password::new("Ab"),
            application: "p".to_owned(),
            server: "s".to_owned(),
            library: String::new(),
            language: String::new(),
            database: "db1".to_owned(),
            attach_file: String::new(),
            client_id: [0, 0x50, 0x56, 0xC0, 0, 1],
            time_zone: -60,
            sspi: None,
            new_password: None,
            database_is_needed: true,
            tell_use: true,
            ansi_defaults: true,
            read_only: true,
            features: vec![Feature::Utf8(true), Feature::SessionRecovery(Vec::new())],
        }
    );
    assert_eq!(login.password.scramble(), image[100..104]);
    assert!(!format!("{login:?}").contains("Ab"), "a password is shown");
}

#[test]
fn batch() {
    let batch = message(
        PacketType::SqlBatch,
        "16000000 ; length of the headers: 22
         12000000 0200 ; a header of 18 bytes: transaction
         0700000000000000 01000000 ; transaction 7, one request
         6700 6F00 ; go",
    );
    let expected = Request::Batch {
        headers: Headers { transaction: 7, outstanding: 1, ..Headers::default() },
        text: "go".to_owned(),
    };
    assert_eq!(Request::decode(&batch, &Limits::default()), Ok(expected));
}

#[test]
fn rpc() {
    let rpc = message(
        PacketType::Rpc,
        "16000000 12000000 0200 0000000000000000 01000000 ; headers
         FFFF 0A00 ; by number: sp_executesql
         0000      ; options
         00 00     ; no name, by value
         E7 0200 0904D00034 0200 7800 ; nvarchar(1): 'x'
         02 4000 6100 01 ; @a, by reference
         26 04 04 FEFFFFFF ; int: -2
         FF        ; the next call
         0200 7000 7100 ; by name: pq
         0100      ; recompile
         00 02 68 01 00 ; the default value of a bit, NULL",
    );
    let Ok(Request::Rpc { calls, .. }) = Request::decode(&rpc, &Limits::default()) else { panic!("RPC expected") };
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&calls[0].procedure, calls[0].procedure.name()),
        (&Procedure::Id(ProcedureId::ExecuteSql), "sp_executesql")
    );
    let [text, number] = &calls[0].parameters[..] else { panic!("two parameters expected") };
    assert_eq!((text.name.as_str(), text.by_ref, &text.value), ("", false, &"x".into()));
    assert_eq!((number.name.as_str(), number.by_ref, &number.value), ("@a", true, &Value::Int(-2)));
    assert_eq!((calls[1].procedure.name(), calls[1].recompile), ("pq", true));
    let default = &calls[1].parameters[0];
    assert_eq!((default.is_default, default.data_type, &default.value), (true, DataType::Bit, &Value::Null));
}

/// A parameter's value, from its type and value as an image.
fn parameter(image: &str) -> Result<Value, Error> {
    let image = format!("04000000 FFFF 0A00 0000 00 00 {image}");
    match Request::decode(&message(PacketType::Rpc, &image), &Limits::default())? {
        Request::Rpc { calls, .. } => Ok(calls[0].parameters[0].value.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn types_of_parameters() {
    let date = Date::from_ymd(2024, 2, 29).unwrap();
    let rows = [
        ("1F", Value::Null),
        ("30 FF", Value::TinyInt(255)),
        ("32 01", Value::Bit(true)),
        ("34 FEFF", Value::SmallInt(-2)),
        ("38 01000000", Value::Int(1)),
        ("7F FFFFFFFFFFFFFFFF", Value::BigInt(-1)),
        ("26 08 00", Value::Null),
        ("26 08 08 0100000000000000", Value::BigInt(1)),
        ("6D 04 04 0000C03F", Value::Real(1.5)),
        ("6D 08 08 000000000000F83F", Value::Float(1.5)),
        ("6E 04 04 10270000", Value::Money(10_000)),
        ("6E 08 08 01000000 02000000 ; the high half comes first", Value::Money(0x1_0000_0002)),
        ("6F 04 04 0200 0300", Value::SmallDateTime { days: 2, minutes: 3 }),
        ("6F 08 08 FFFFFFFF 2C010000", Value::DateTime { days: -1, ticks: 300 }),
        ("28 03 80460B ; 738,944 days", Value::Date(date)),
        ("29 00 03 010000", Value::Time(Time::from_ticks(Time::SECOND).unwrap())),
        ("29 07 05 0100000000", Value::Time(Time::from_ticks(1).unwrap())),
        ("6A 05 09 02 05 00 39300000", decimal(true, 12_345, 2)),
        ("6C 11 26 00 11 01 01000000000000000000000000000000", decimal(false, 1, 0)),
        ("24 10 00", Value::Null),
        ("A7 0A00 0904D00034 0300 316280 ; code page 1252", "1b€".into()),
        ("A7 0A00 0904D02400 0200 C3A9 ; UTF-8", "é".into()),
        ("AF 0300 0904D00034 0200 6162", "ab".into()),
        ("E7 0400 0904D00034 FFFF", Value::Null),
        ("E7 FFFF 0904D00034 FEFFFFFFFFFFFFFF 02000000 6100 02000000 6200 00000000 ; two chunks", "ab".into()),
        ("A5 FFFF 0000000000000000 00000000", Value::Binary(Vec::new())),
        ("A5 FFFF FFFFFFFFFFFFFFFF", Value::Null),
        ("AD 0200 0200 0102", Value::Binary(vec![1, 2])),
        ("23 FFFFFF7F 0904D00034 02000000 6162", "ab".into()),
        ("63 FFFFFF7F 0904D00034 02000000 6100", "a".into()),
        ("22 FFFFFF7F FFFFFFFF", Value::Null),
    ];
    for (image, expected) in rows {
        assert_eq!(parameter(image), Ok(expected), "{image}");
    }
    assert_eq!(date.days(), 738_944);
    assert_eq!(
        parameter("2B 07 0A 0100000000 80460B A6FF"),
        Ok(Value::DateTimeOffset { date, time: Time::from_ticks(1).unwrap(), offset: -90 })
    );
    assert_eq!(
        parameter("2A 03 07 E8030000 80460B"),
        Ok(Value::DateTime2(date, Time::from_ticks(Time::SECOND).unwrap()))
    );
}

fn decimal(is_negative: bool, magnitude: u128, scale: u8) -> Value {
    Value::Decimal(Decimal { is_negative, magnitude, scale })
}

#[test]
fn refused_types_are_named() {
    let rows = [
        ("62 00000000 00000000", "sql_variant"),
        ("F0 00 00 00", "a user-defined type (CLR)"),
        ("F1 00", "xml"),
        ("F3 00 00 00", "a table-valued parameter"),
        ("F4", "json"),
        ("F5", "vector"),
        ("27 04 00", "a type for characters or bytes from before TDS 7"),
    ];
    for (image, what) in rows {
        // Headers, number and options of the call, name and flags of the parameter come before.
        assert_eq!(parameter(image), Err(Error::Unsupported { offset: 12, what }), "{image}");
    }
    assert_eq!(parameter("99"), Err(Error::Unknown { offset: 12, field: "type", found: 0x99 }));
}

#[test]
fn wrong_values_are_refused() {
    let rows = [
        ("26 03 00", "length of a type"),
        ("26 04 02 0000", "length of a value"),
        ("38 0000", "value"),
        ("E7 0300 0904D00034 0000", "length of a type"),
        ("E7 0200 0904D00034 0400 61006200", "length of a value"),
        ("E7 0400 0904D00034 0200 00D8", "text"),
        ("A7 421F 0904D00034 0000", "length of a type"),
        ("A7 0A00 0904D02400 0100 FF", "text"),
        ("6A 05 27 00 00", "precision"),
        ("6A 05 05 06 00", "scale"),
        ("6A 05 01 00 05 01 0A000000", "digits of a decimal"),
        ("6A 05 09 00 05 02 00000000", "sign of a decimal"),
        ("29 08 00", "scale"),
        ("29 00 03 805101", "time"),
        ("28 03 DBB937", "date"),
        ("6F 08 08 00000000 00828B01", "time of a datetime"),
        ("6F 04 04 0000 A005", "minutes of a smalldatetime"),
        ("2B 00 08 000000 000000 4903", "offset of a datetimeoffset, plus 840"),
        ("A5 FFFF 0300000000000000 01000000 00 00000000", "length of a max value"),
        ("A5 FFFF FEFFFFFFFFFFFFFF FFFFFF7F 00", "chunk"),
        ("22 FFFFFF7F FFFFFF7F 00", "value"),
    ];
    for (image, field) in rows {
        match parameter(image).expect_err(image) {
            Error::Truncated { field: found, .. }
            | Error::Field { field: found, .. }
            | Error::Range { field: found, .. }
            | Error::Unknown { field: found, .. }
            | Error::Unicode { field: found, .. } => assert_eq!(found, field, "{image}"),
            other => panic!("{image}: {other}"),
        }
    }
    // Greek, in its code page.
    let greek = parameter("A7 0A00 0804D00000 0100 E1");
    assert_eq!(greek, Err(Error::CodePage { offset: 20, lcid: 0x408 }));
}

#[test]
fn transactions() {
    let rows = [
        ("0500 02 00", TransactionRequest::Begin(Begin { isolation: Isolation::ReadCommitted, name: String::new() })),
        ("0700 00 00", TransactionRequest::Commit { name: String::new(), then: None }),
        (
            "0700 02 7400 01 05 00",
            TransactionRequest::Commit {
                name: "t".to_owned(),
                then: Some(Begin { isolation: Isolation::Snapshot, name: String::new() }),
            },
        ),
        ("0800 00 00", TransactionRequest::Rollback { name: String::new(), then: None }),
        ("0900 02 7300", TransactionRequest::Save { name: "s".to_owned() }),
    ];
    let decode = |image: &str| {
        let image = format!("16000000 12000000 0200 0900000000000000 01000000 {image}");
        Request::decode(&message(PacketType::TransactionManager, &image), &Limits::default())
    };
    for (image, expected) in rows {
        let headers = Headers { transaction: 9, outstanding: 1, ..Headers::default() };
        assert_eq!(decode(image), Ok(Request::Transaction { headers, request: expected }), "{image}");
    }
    assert_eq!(decode("0000 0000"), Err(Error::Unsupported { offset: 22, what: "a distributed transaction" }));
    assert!(matches!(decode("0900 00"), Err(Error::Range { .. })));
    assert!(matches!(decode("0500 06 00"), Err(Error::Unknown { field: "isolation level", .. })));
}

#[test]
fn bulk_load_is_refused() {
    let refused = Request::decode(&message(PacketType::BulkLoad, "81"), &Limits::default());
    assert_eq!(refused, Err(Error::Unsupported { offset: 0, what: "bulk load" }));
}

#[test]
fn login_ack() {
    let mut sent = response();
    let version = ProductVersion { major: 16, minor: 0, build: 1000, sub_build: 5 };
    sent.login_ack(&LoginAck { program: "ab".to_owned(), version });
    is(
        sent,
        "AD 0E00  ; 14 bytes
         01       ; Transact-SQL
         74000004 ; TDS 7.4, big-endian
         02 6100 6200
         10 00 03E8 ; 16.0.1000, big-endian",
    );
}

#[test]
fn env_change() {
    let mut sent = response();
    sent.env_change(&EnvChange::Database { new: "a".to_owned(), old: String::new() });
    sent.env_change(&EnvChange::Language { new: "b".to_owned(), old: "c".to_owned() });
    sent.env_change(&EnvChange::PacketSize { new: 8000, old: 4096 });
    sent.env_change(&EnvChange::Collation { new: Collation::SQL_LATIN1_GENERAL_CP1_CI_AS, old: None });
    sent.env_change(&EnvChange::Begin { transaction: 7 });
    sent.env_change(&EnvChange::Commit { transaction: 7 });
    sent.env_change(&EnvChange::Rollback { transaction: 7 });
    sent.env_change(&EnvChange::Reset);
    is(
        sent,
        "E3 0500 01 01 6100 00
         E3 0700 02 01 6200 01 6300
         E3 1300 04 04 3800300030003000 04 3400300039003600 ; sizes are texts
         E3 0800 07 05 0904D00034 00
         E3 0B00 08 08 0700000000000000 00
         E3 0B00 09 00 08 0700000000000000
         E3 0B00 0A 00 08 0700000000000000
         E3 0300 12 00 00",
    );
}

#[test]
fn info_and_error() {
    let message = ServerMessage {
        number: 3211,
        state: 1,
        severity: 10,
        text: "50".to_owned(),
        server: "s".to_owned(),
        procedure: "p".to_owned(),
        line: 258,
    };
    let mut sent = response();
    sent.info(&message);
    sent.error(&ServerMessage { number: -1, severity: 16, procedure: String::new(), ..message });
    is(
        sent,
        "AB 1600  8B0C0000 01 0A  0200 35003000  01 7300  01 7000  02010000
         AA 1400  FFFFFFFF 01 10  0200 35003000  01 7300  00       02010000",
    );
}

#[test]
fn done() {
    let mut sent = response();
    sent.done(DoneKind::Statement, Done { rows: Some(258), command: command::SELECT, more: true, ..Done::default() });
    sent.done(DoneKind::InProcedure, Done { error: true, in_transaction: true, more: true, ..Done::default() });
    sent.done(DoneKind::Procedure, Done { attention: true, server_error: true, ..Done::default() });
    is(
        sent,
        "FD 1100 C100 0201000000000000
         FF 0700 0000 0000000000000000
         FE 2001 0000 0000000000000000",
    );
}

#[test]
fn return_status_and_value() {
    let mut sent = response();
    sent.return_status(-6);
    let (name, data_type) = ("@a".to_owned(), DataType::Int);
    sent.return_value(&ReturnValue { name, ordinal: 2, data_type, value: Value::Int(5) }).unwrap();
    is(
        sent,
        "79 FAFFFFFF
         AC 0200    ; the third parameter
         02 4000 6100
         01         ; OUTPUT
         00000000   ; no type of a user
         0000       ; flags
         26 04 04 05000000",
    );
}

#[test]
fn feature_ext_ack() {
    let mut sent = response();
    sent.features(&[
        FeatureAnswer::Utf8(true),
        FeatureAnswer::AzureSqlDnsCaching(false),
        FeatureAnswer::DataClassification { version: 2, is_enabled: false },
    ]);
    is(sent, "AE  0A 01000000 01  0B 01000000 00  09 02000000 02 00  FF");
}

#[test]
fn features_are_answered() {
    assert_eq!(Feature::Utf8(true).answer(), Ok(Some(FeatureAnswer::Utf8(true))));
    assert_eq!(Feature::ColumnEncryption(1).answer(), Ok(None));
    assert_eq!(Feature::SessionRecovery(Vec::new()).answer(), Ok(None));
    assert!(matches!(Feature::FederatedAuthentication(vec![2]).answer(), Err(Error::Unsupported { .. })));
}

#[test]
fn columns_and_rows() {
    let mut sent = response();
    let mut id = Column::new("i", DataType::Int).not_null();
    id.is_identity = true;
    sent.columns(&[
        id,
        Column::new("n", DataType::nvarchar(2)),
        Column::new("v", DataType::VarBinary { len: Length::Max }),
        Column::new("d", DataType::Numeric { precision: 25, scale: 0 }),
    ])
    .unwrap();
    sent.order(&[1, 2]);
    sent.row(&[Value::Int(1), "ab".into(), Value::Binary(vec![7]), decimal(false, 258, 0)]).unwrap();
    sent.row(&[Value::Int(2), Value::Null, Value::Null, decimal(true, 1, 0)]).unwrap();
    sent.row(&[Value::Int(3), "".into(), Value::Binary(Vec::new()), Value::Null]).unwrap();
    is(
        sent,
        "81 0400
         00000000 1800 38 01 6900 ; not nullable: int without lengths; identity, update unknown
         00000000 0900 E7 0400 0904D00034 01 6E00
         00000000 0900 A5 FFFF 01 7600
         00000000 0900 6C 0D 19 00 01 6400
         A9 0400 0100 0200
         D1 01000000  0400 61006200  0100000000000000 01000000 07 00000000  0D 01 02010000 00000000 00000000
         D2 06        ; the second and third column are NULL
            02000000  0D 00 01000000 00000000 00000000
         D1 03000000  0000  0000000000000000 00000000  00 ; one byte saved is no gain over one byte of bits",
    );
}

#[test]
fn variants() {
    let mut sent = response();
    sent.columns(&[Column::new("v", DataType::Variant)]).unwrap();
    for value in [
        Value::Int(5),
        "ab".into(),
        Value::Binary(vec![1, 2]),
        decimal(true, 258, 2),
        Value::Guid(Guid([7; 16])),
        Value::Null,
    ] {
        sent.row(&[value]).unwrap();
    }
    assert!(matches!(sent.row(&[Value::Date(Date::from_days(1).unwrap())]), Err(Error::ValueKind { .. })));
    assert!(matches!(
        sent.row(&["x".repeat(4001).as_str().into()]),
        Err(Error::ValueSize { most: 8000, found: 8002, .. })
    ));
    is(
        sent,
        "81 0100  00000000 0900 62 491F0000 01 7600 ; at most 8,009 bytes
         D1 06000000 38 00 05000000                 ; int: no properties
         D1 0D000000 E7 07 0904D00034 401F 61006200 ; nvarchar: collation, the most bytes
         D1 06000000 A5 02 401F 0102
         D1 15000000 6C 02 26 02 00 02010000 00000000 00000000 00000000 ; numeric(38, 2): sign and number
         D1 12000000 24 00 07070707 07070707 07070707 07070707
         D2 01",
    );
}

#[test]
fn packets_of_a_client() {
    let mut connection = Connection::new(Limits::default());
    let mut next = |bytes: &[u8]| {
        let mut input = bytes;
        let event = connection.next(&mut input).unwrap().expect("a message");
        assert!(input.is_empty());
        if matches!(event, Event::Login(_)) {
            connection.log_in();
        }
        event
    };
    assert!(matches!(next(&packets(0x12, 0, 512, &common::pre_login())), Event::PreLogin(_)));
    let login = common::login(0x7400_0004, 512, "sa", "pw", &[]);
    assert!(matches!(next(&packets(0x10, 0, 512, &login)), Event::Login(_)));
    // An attention: no data. A request that is reset before. A request that is taken back in its second packet.
    assert_eq!(next(&hex("06 01 0008 0000 01 00")), Event::Attention);
    let batch = common::batch("select 1");
    for (bit, reset) in [(8, Reset::Session), (0x10, Reset::KeepTransaction), (0, Reset::No)] {
        match next(&packets(1, bit, 512, &batch)) {
            Event::Request(message) => assert_eq!(message.reset, reset),
            other => panic!("{other:?}"),
        }
    }
    let mut taken_back = packets(1, 0, 512, &[0; 504]);
    taken_back[1] = 0;
    taken_back.extend(hex("01 03 0008 0000 02 00"));
    assert_eq!(next(&taken_back), Event::Ignored);
}
