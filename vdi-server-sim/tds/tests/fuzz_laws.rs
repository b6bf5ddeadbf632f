//! What the fuzz target of this crate asserts, over its seeds, over seeds that were damaged, and over the corpus that is kept in the
//! repository. Where the environment variable `VDI_FUZZ_SEEDS` names a folder, the seeds are written there.
#![allow(clippy::unwrap_used)]

mod common;
mod laws {
    pub(crate) mod tds;
}

use std::path::Path;

use common::{batch, call, headers, login, packets, pre_login};
use laws::tds::{Kind, tds};
use proptest::prelude::*;
use vdi_tds::collation::Collation;
use vdi_tds::tls::wrap;
use vdi_tds::types::{DataType, Length};
use vdi_tds::value::{Date, Decimal, Guid, Time, Value};

const COLLATION: Collation = Collation::SQL_LATIN1_GENERAL_CP1_CI_AS;

/// Messages of every kind, and connections of several messages.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let login = login(0x7400_0004, 4096, "sa", "secret", &[(0x0A, &[1]), (0x0B, &[]), (0x09, &[2])]);
    let mut seeds = vec![
        ("pre-login".to_owned(), [&[Kind::PreLogin as u8][..], &pre_login()].concat()),
        ("login".to_owned(), [&[Kind::Login as u8][..], &login].concat()),
    ];
    let mut request = |name: &str, kind: u8, contents: Vec<u8>| {
        seeds.push((name.to_owned(), [&[Kind::Request as u8, kind][..], &contents].concat()));
        let connection =
            [packets(0x12, 0, 512, &pre_login()), packets(0x10, 0, 512, &login), packets(kind, 8, 512, &contents)];
        seeds.push((format!("{name}-connection"), [vec![Kind::Connection as u8], connection.concat()].concat()));
    };
    request("batch", 1, batch("BACKUP DATABASE [d] TO VIRTUAL_DEVICE = N'x' WITH STATS = 10;"));
    request("attention", 1, batch("WAITFOR DELAY '1:00'"));
    let text = DataType::nvarchar(40);
    let sql = ("", 0, text, true, "SELECT @p".into());
    let parameters = [sql, ("@p", 1, DataType::Int, true, Value::Int(1))];
    request("rpc", 3, [headers(0), call(Ok(10), &parameters)].concat());
    request("two-calls", 3, [headers(7), call(Err("sp_who"), &[]), vec![0xFF], call(Ok(13), &parameters)].concat());
    for (at, (data_type, value)) in values().into_iter().enumerate() {
        let parameters = [("@p", 0, data_type, true, value), ("@n", 0, data_type, true, Value::Null)];
        request(&format!("type-{at}"), 3, [headers(0), call(Ok(10), &parameters)].concat());
    }
    for (at, payload) in [&[5, 0, 2, 0][..], &[7, 0, 0, 1, 5, 0], &[9, 0, 2, b's', 0]].into_iter().enumerate() {
        request(&format!("transaction-{at}"), 14, [&headers(0)[..], payload].concat());
    }
    // With an attention behind the second batch.
    let (_, connection) = seeds.iter_mut().find(|(name, _)| name == "attention-connection").unwrap();
    connection.extend(packets(6, 0, 512, &[]));
    let mut handshake = vec![Kind::Tls as u8];
    wrap(&[0x16, 3, 1, 0, 4, 1, 2, 3, 4].repeat(600), &mut handshake);
    seeds.push(("tls".to_owned(), handshake));
    seeds
}

fn values() -> Vec<(DataType, Value)> {
    let (date, time) = (Date::from_ymd(2024, 2, 29).unwrap(), Time::from_ticks(12_345_670_000).unwrap());
    let decimal = Decimal { is_negative: true, magnitude: 12_345, scale: 2 };
    vec![
        (DataType::Bit, Value::Bit(true)),
        (DataType::TinyInt, Value::TinyInt(1)),
        (DataType::BigInt, Value::BigInt(-1)),
        (DataType::Real, Value::Real(1.5)),
        (DataType::Float, Value::Float(1.5)),
        (DataType::SmallMoney, Value::Money(5)),
        (DataType::Money, Value::Money(-5)),
        (DataType::SmallDateTime, Value::SmallDateTime { days: 1, minutes: 2 }),
        (DataType::DateTime, Value::DateTime { days: 45_000, ticks: 300 }),
        (DataType::Date, Value::Date(date)),
        (DataType::Time { scale: 7 }, Value::Time(time)),
        (DataType::DateTime2 { scale: 3 }, Value::DateTime2(date, time)),
        (DataType::DateTimeOffset { scale: 0 }, Value::DateTimeOffset { date, time, offset: 60 }),
        (DataType::Decimal { precision: 9, scale: 2 }, Value::Decimal(decimal)),
        (DataType::Numeric { precision: 38, scale: 2 }, Value::Decimal(decimal)),
        (DataType::UniqueIdentifier, Value::Guid(Guid([7; 16]))),
        (DataType::Char { len: 3, collation: COLLATION }, "é".into()),
        (DataType::VarChar { len: Length::Limited(9), collation: Collation::LATIN1_GENERAL_100_UTF8 }, "é".into()),
        (DataType::VarChar { len: Length::Max, collation: COLLATION }, "é".into()),
        (DataType::NChar { len: 3, collation: COLLATION }, "é".into()),
        (DataType::NVarChar { len: Length::Max, collation: COLLATION }, "🦀".into()),
        (DataType::Binary { len: 2 }, Value::Binary(vec![1])),
        (DataType::VarBinary { len: Length::Limited(2) }, Value::Binary(vec![1])),
        (DataType::VarBinary { len: Length::Max }, Value::Binary(vec![1; 5])),
        (DataType::Text { collation: COLLATION }, "t".into()),
        (DataType::NText { collation: COLLATION }, "t".into()),
        (DataType::Image, Value::Binary(vec![1])),
    ]
}

#[test]
fn every_seed_is_taken() {
    for (name, bytes) in seeds() {
        assert!(bytes.len() <= 16384, "{name}: {} bytes are more than a fuzzer is given", bytes.len());
        assert!(tds(&bytes), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_for_damaged_seeds(
        (which, at) in any::<(prop::sample::Index, prop::sample::Index)>(),
        (cut, bytes) in (0..6usize, prop::collection::vec(any::<u8>(), 0..6)),
    ) {
        let seeds = seeds();
        let mut damaged = which.get(&seeds).1.clone();
        let at = at.index(damaged.len());
        let end = damaged.len().min(at + cut);
        damaged.splice(at..end, bytes);
        tds(&damaged);
    }

    #[test]
    fn the_laws_hold_for_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        tds(&bytes);
    }
}

#[test]
fn the_laws_hold_for_each_damaged_byte() {
    for (_, seed) in seeds().iter().filter(|(_, seed)| seed[0] != Kind::Tls as u8 && seed.len() < 500) {
        for at in 1..seed.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFE, 0xFF] {
                let mut damaged = seed.clone();
                damaged[at] = value;
                tds(&damaged);
            }
            tds(&seed[..at]);
        }
    }
}

#[test]
fn the_laws_hold_for_the_corpora() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/tds");
    let mut ran = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        tds(&std::fs::read(entry.unwrap().path()).unwrap());
        ran += 1;
    }
    assert!(ran > 0, "{} is empty", folder.display());
}

#[test]
fn seeds_are_written_where_wanted() {
    let Some(folder) = std::env::var_os("VDI_FUZZ_SEEDS") else { return };
    let folder = Path::new(&folder).join("tds");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in seeds() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
