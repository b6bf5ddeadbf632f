//! A server that speaks TDS without TLS, and answers each batch with the same small results: for a first try with a driver.
//!
//! ```sh
//! cargo run -p vdi-tds --example hello -- 127.0.0.1:1433
//! tsql -H 127.0.0.1 -p 1433 -U sa -P anything
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use vdi_tds::collation::Collation;
use vdi_tds::connection::{Connection, Event, Limits};
use vdi_tds::feature::FeatureAnswer;
use vdi_tds::login::Login;
use vdi_tds::packet::{DEFAULT_PACKET_SIZE, Message, Reset};
use vdi_tds::prelogin::{Encryption, EncryptionPolicy, negotiate};
use vdi_tds::request::Request;
use vdi_tds::response::Response;
use vdi_tds::token::{Column, Done, DoneKind, EnvChange, LoginAck, ReturnValue, ServerMessage, command};
use vdi_tds::transaction::TransactionRequest;
use vdi_tds::types::{DataType, Length};
use vdi_tds::value::{Date, Decimal, Guid, Time, Value};
use vdi_tds::version::ProductVersion;

const SERVER: ProductVersion = ProductVersion { major: 16, minor: 0, build: 1000, sub_build: 0 };
const COLLATION: Collation = Collation::SQL_LATIN1_GENERAL_CP1_CI_AS;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1433".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listening at {}", listener.local_addr()?);
    for (stream, spid) in listener.incoming().zip(51..) {
        let stream = stream?;
        std::thread::spawn(move || match serve(stream, spid) {
            Ok(()) => println!("{spid}: closed"),
            Err(error) => println!("{spid}: {error}"),
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream, spid: u16) -> Result<(), Failure> {
    let mut connection = Connection::new(Limits::default());
    connection.set_spid(spid);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut input = &buffer[..len];
        while let Some(event) = connection.next(&mut input)? {
            let packets = match event {
                Event::PreLogin(client) => {
                    let negotiated =
                        negotiate(client.encryption.unwrap_or(Encryption::NotSupported), EncryptionPolicy::Unavailable);
                    println!("{spid}: encryption: {:?}, {negotiated:?}", client.encryption);
                    connection.answer(&client.answer(SERVER, negotiated.answer, true))
                }
                Event::Login(login) => {
                    println!("{spid}: {login:?}");
                    let packets = log_in(connection.response(), &login)?;
                    connection.log_in();
                    packets
                }
                Event::Request(message) => answer(&connection, &message)?,
                Event::Attention => done(&connection, Done { attention: true, ..Done::default() }),
                Event::Ignored => done(&connection, Done { error: true, ..Done::default() }),
            };
            stream.write_all(&packets)?;
        }
    }
}

fn log_in(mut response: Response, login: &Login) -> Result<Vec<u8>, Failure> {
    response.env_change(&EnvChange::Database { new: "master".to_owned(), old: String::new() });
    response.info(&message(5701, 10, "Changed database context to 'master'."));
    response.env_change(&EnvChange::Collation { new: COLLATION, old: None });
    response.env_change(&EnvChange::Language { new: "us_english".to_owned(), old: String::new() });
    response.info(&message(5703, 10, "Changed language setting to us_english."));
    response.login_ack(&LoginAck { program: "Microsoft SQL Server".to_owned(), version: SERVER });
    response.env_change(&EnvChange::PacketSize { new: login.packet_size, old: DEFAULT_PACKET_SIZE });
    let mut answers: Vec<FeatureAnswer> = Vec::new();
    for feature in &login.features {
        answers.extend(feature.answer()?);
    }
    response.features(&answers);
    response.done(DoneKind::Statement, Done::default());
    Ok(response.finish())
}

fn message(number: i32, severity: u8, text: &str) -> ServerMessage {
    let (text, server) = (text.to_owned(), "HELLO".to_owned());
    ServerMessage { number, state: 1, severity, text, server, line: 1, ..ServerMessage::default() }
}

fn done(connection: &Connection, done: Done) -> Vec<u8> {
    let mut response = connection.response();
    response.done(DoneKind::Statement, done);
    response.finish()
}

fn answer(connection: &Connection, message_: &Message) -> Result<Vec<u8>, Failure> {
    let request = Request::decode(message_, connection.limits());
    println!("{:?} {request:?}", message_.reset);
    let mut response = connection.response();
    if message_.reset != Reset::No {
        response.env_change(&EnvChange::Reset);
    }
    match request {
        Err(error) => {
            response.error(&message(50_000, 16, &error.to_string()));
            response.done(DoneKind::Statement, Done { error: true, ..Done::default() });
        }
        Ok(Request::Batch { text, .. }) if text.to_ascii_uppercase().contains("SELECT") => {
            let more = text.contains(';');
            results(&mut response, connection, more)?;
        }
        Ok(Request::Batch { text, .. }) if text.contains("fail") => {
            response.error(&message(50_001, 16, "This batch fails."));
            response.done(DoneKind::Statement, Done { error: true, ..Done::default() });
        }
        Ok(Request::Batch { .. }) => {
            response.info(&message(0, 0, "Nothing to do."));
            response.done(DoneKind::Statement, Done::default());
        }
        Ok(Request::Rpc { calls, .. }) => {
            for (number, call) in calls.iter().enumerate() {
                let columns: Vec<_> = (call.parameters.iter())
                    .map(|parameter| Column::new(parameter.name.clone(), parameter.data_type))
                    .collect();
                response.columns(&columns)?;
                response.row(&call.parameters.iter().map(|parameter| parameter.value.clone()).collect::<Vec<_>>())?;
                response.done(DoneKind::InProcedure, Done { more: true, rows: Some(1), ..Done::default() });
                response.return_status(0);
                for (ordinal, parameter) in call.parameters.iter().enumerate().filter(|(_, parameter)| parameter.by_ref)
                {
                    response.return_value(&ReturnValue {
                        name: parameter.name.clone(),
                        ordinal: ordinal as u16,
                        data_type: parameter.data_type,
                        value: parameter.value.clone(),
                    })?;
                }
                let more = number + 1 < calls.len();
                response.done(DoneKind::Procedure, Done { more, ..Done::default() });
            }
        }
        Ok(Request::Transaction { headers, request }) => {
            let transaction = headers.transaction.max(1);
            response.env_change(&match request {
                TransactionRequest::Begin(_) | TransactionRequest::Save { .. } => EnvChange::Begin { transaction },
                TransactionRequest::Commit { .. } => EnvChange::Commit { transaction },
                TransactionRequest::Rollback { .. } => EnvChange::Rollback { transaction },
            });
            response.done(DoneKind::Statement, Done::default());
        }
    }
    Ok(response.finish())
}

/// One row of one column; with `more`, also a row of each type and rows with NULL.
fn results(response: &mut Response, connection: &Connection, more: bool) -> Result<(), Failure> {
    response.columns(&[Column::new("", DataType::Int).not_null()])?;
    response.row(&[Value::Int(1)])?;
    let end = Done { rows: Some(1), command: command::SELECT, ..Done::default() };
    response.done(DoneKind::Statement, Done { more, ..end });
    if more {
        let (types, values): (Vec<_>, Vec<_>) = sample(connection).into_iter().unzip();
        let columns: Vec<_> = types.iter().map(|data_type| Column::new(data_type.name(), *data_type)).collect();
        response.columns(&columns)?;
        response.order(&[1]);
        response.row(&values)?;
        response.row(&vec![Value::Null; values.len()])?;
        response.done(DoneKind::Statement, Done { rows: Some(2), ..end });
    }
    Ok(())
}

/// A value of each type that the client knows.
fn sample(connection: &Connection) -> Vec<(DataType, Value)> {
    let (date, time) = (Date::from_ymd(2024, 2, 29), Time::from_ticks(45_296 * Time::SECOND + 1_234_567));
    let mut sample = vec![
        (DataType::Bit, Value::Bit(true)),
        (DataType::TinyInt, Value::TinyInt(255)),
        (DataType::SmallInt, Value::SmallInt(-32_768)),
        (DataType::Int, Value::Int(-2)),
        (DataType::BigInt, Value::BigInt(i64::MIN)),
        (DataType::Real, Value::Real(1.5)),
        (DataType::Float, Value::Float(-0.1)),
        (DataType::SmallMoney, Value::Money(-12_345)),
        (DataType::Money, Value::Money(1_234_567_890_123)),
        (
            DataType::Numeric { precision: 25, scale: 0 },
            Value::Decimal(Decimal { is_negative: false, magnitude: 37_000_000_123_400_001, scale: 0 }),
        ),
        (
            DataType::Decimal { precision: 9, scale: 2 },
            Value::Decimal(Decimal { is_negative: true, magnitude: 12_345, scale: 2 }),
        ),
        (DataType::SmallDateTime, Value::SmallDateTime { days: 45_349, minutes: 754 }),
        (DataType::DateTime, Value::DateTime { days: 45_349, ticks: 13_588_800 }),
        (DataType::UniqueIdentifier, Value::Guid(Guid(std::array::from_fn(|at| at as u8)))),
        (DataType::Char { len: 5, collation: COLLATION }, "chär".into()),
        (DataType::VarChar { len: Length::Limited(10), collation: COLLATION }, "1€".into()),
        (DataType::NChar { len: 5, collation: COLLATION }, "nchr".into()),
        (DataType::nvarchar(128), "naïve 日本 🦀".into()),
        (DataType::Binary { len: 3 }, Value::Binary(vec![1, 2])),
        (DataType::VarBinary { len: Length::Limited(32) }, Value::Binary(vec![0xAB; 4])),
        (DataType::VarChar { len: Length::Max, collation: COLLATION }, "m".repeat(9000).as_str().into()),
        (DataType::NVarChar { len: Length::Max, collation: COLLATION }, "max".into()),
        (DataType::VarBinary { len: Length::Max }, Value::Binary(Vec::new())),
        (DataType::Variant, Value::Int(-7)),
        (DataType::Variant, "variant é".into()),
        (DataType::Variant, Value::Decimal(Decimal { is_negative: true, magnitude: 12_345, scale: 2 })),
    ];
    if let (true, Some(date), Some(time)) = (connection.version().has_date_types(), date, time) {
        sample.extend([
            (DataType::Date, Value::Date(date)),
            (DataType::Time { scale: 7 }, Value::Time(time)),
            (DataType::DateTime2 { scale: 3 }, Value::DateTime2(date, time)),
            (DataType::DateTimeOffset { scale: 7 }, Value::DateTimeOffset { date, time, offset: -90 }),
        ]);
    }
    sample
}
