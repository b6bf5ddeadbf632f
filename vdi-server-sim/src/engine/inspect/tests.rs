//! Result sets of made-up and of real backups. Values of real ones are never printed.

use crate::engine::made_backups::real_backups;
use crate::engine::made_backups::synthetic::{Shape, backup};
use vdi_mtf::inspector::Inspector;

use super::columns;
use super::*;
use crate::engine::feed::{Fed, Feed};
use crate::types::{Column, SqlType, Value};

#[derive(Default)]
struct Rows {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
}

impl Report for Rows {
    fn message(&mut self, _message: Message) {}

    fn columns(&mut self, columns: &[Column]) {
        assert!(self.columns.is_empty());
        self.columns = columns.to_vec();
    }

    fn row(&mut self, row: Vec<Value>) {
        assert_eq!(row.len(), self.columns.len());
        for (value, column) in row.iter().zip(&self.columns) {
            assert!(fits(value, column.sql_type), "{}: {value:?}", column.name);
        }
        self.rows.push(row);
    }
}

impl Rows {
    fn value(&self, row: usize, name: &str) -> String {
        let at = self.columns.iter().position(|column| column.name == name).unwrap();
        self.rows[row][at].to_string()
    }
}

fn fits(value: &Value, sql_type: SqlType) -> bool {
    match (value, sql_type) {
        (Value::Null, _)
        | (Value::Bit(_), SqlType::Bit)
        | (Value::TinyInt(_), SqlType::TinyInt)
        | (Value::SmallInt(_), SqlType::SmallInt)
        | (Value::Int(_), SqlType::Int)
        | (Value::BigInt(_), SqlType::BigInt)
        | (Value::DateTime(_), SqlType::DateTime)
        | (Value::UniqueIdentifier(_), SqlType::UniqueIdentifier) => true,
        (Value::Numeric { unscaled, scale: 0 }, SqlType::Numeric { precision, scale: 0 }) => {
            *unscaled < 10_i128.pow(precision.into())
        }
        (Value::Text(text), SqlType::NVarChar { length: Some(most) } | SqlType::Char { length: most }) => {
            text.encode_utf16().count() <= usize::from(most)
        }
        (Value::Binary(bytes), SqlType::VarBinary { length: Some(most) }) => bytes.len() <= usize::from(most),
        _ => false,
    }
}

/// Scans in pieces; what was read, and the bytes that were needed.
fn scanned(bytes: &[u8], until: Until, piece: usize) -> Result<(Medium, usize), Failure> {
    let (mut scan, mut taken) = (Scan::new("dev", until, false), 0);
    for mut piece in bytes.chunks(piece) {
        taken += piece.len();
        let more = scan.needs_more(piece);
        let fed = scan.feed(&mut piece)?;
        assert_eq!(fed == Fed::More, more);
        if fed == Fed::End {
            return Ok((scan.into_medium(), taken));
        }
    }
    scan.end_of_data()?;
    Ok((scan.into_medium(), taken))
}

fn headers(medium: &Medium) -> Rows {
    let mut rows = Rows::default();
    columns::headers(&medium.sets, DeviceType::Virtual, &mut rows);
    rows
}

#[test]
fn the_result_sets_show_what_a_backup_holds() {
    let made = backup(&Shape { families: 2, files: 2, ..Shape::default() });
    for piece in [1000, 65536] {
        let (medium, _) = scanned(&made.media[1], Until::Medium { ends_itself: true }, piece).unwrap();
        let rows = headers(&medium);
        assert_eq!((rows.columns.len(), rows.rows.len()), (59, 1));
        for (name, expected) in [
            ("BackupName", "nightly"),
            ("BackupDescription", "NULL"),
            ("BackupType", "1"),
            ("Position", "1"),
            ("DeviceType", "7"),
            ("UserName", "sa"),
            ("DatabaseName", "sales"),
            ("FirstLSN", "40000000001600001"),
            ("BackupStartDate", "2024-05-31 12:30:01.000"),
            ("HasBackupChecksums", "1"),
            ("Flags", "528"),
            ("RecoveryModel", "FULL"),
            ("BackupTypeDescription", "Database"),
            ("DifferentialBaseLSN", "NULL"),
            ("MachineName", "machine"),
        ] {
            assert_eq!(rows.value(0, name), expected, "{name}");
        }

        let (medium, _) = scanned(&made.media[1], Until::Label, piece).unwrap();
        let mut rows = Rows::default();
        columns::label(&medium, &mut rows);
        assert_eq!((rows.columns.len(), rows.rows.len()), (13, 1));
        for (name, expected) in [
            ("MediaName", "NULL"),
            ("FamilyCount", "2"),
            ("FamilySequenceNumber", "2"),
            ("SoftwareName", "Microsoft SQL Server"),
            ("SoftwareVendorId", "4608"),
            ("Mirror_Count", "1"),
        ] {
            assert_eq!(rows.value(0, name), expected, "{name}");
        }

        let (medium, _) = scanned(&made.media[1], Until::Configuration(1), piece).unwrap();
        let mut rows = Rows::default();
        columns::files(&medium.sets[0].leading, &mut rows);
        assert_eq!((rows.columns.len(), rows.rows.len()), (22, 3));
        let list: Vec<_> = (0..3)
            .map(|row| {
                ["LogicalName", "Type", "FileId", "FileGroupName", "IsPresent"].map(|name| rows.value(row, name))
            })
            .collect();
        assert_eq!(list[0], ["sales1", "D", "1", "PRIMARY", "1"]);
        assert_eq!(list[2], ["log", "L", "2", "NULL", "1"]);
        assert_eq!(rows.value(1, "Size"), "131072");
    }
}

/// SQL Server reads no more of a device, and clients rely on it.
#[test]
fn label_and_file_list_need_64_kb_at_most() {
    let made = backup(&Shape { files: 3, extents: 8, ..Shape::default() });
    for until in [Until::Label, Until::Configuration(1)] {
        assert_eq!(scanned(&made.media[0], until, 65536).unwrap().1, 65536, "{until:?}");
        assert!(scanned(&made.media[0], until, 512).unwrap().1 < 20_000, "{until:?}");
    }
}

#[test]
fn a_set_that_is_not_there_and_a_medium_that_ends_are_told() {
    let made = backup(&Shape::default());
    for until in [Until::Set(2), Until::Configuration(2)] {
        assert!(matches!(scanned(&made.media[0], until, 65536), Err(Failure::NoSuchSet { file: 2, sets: 1, .. })));
    }
    for until in [Until::Set(1), Until::Configuration(1), Until::Label] {
        assert!(matches!(scanned(&made.media[0][..100], until, 65536), Err(Failure::Medium { .. })));
    }
    // A device that does not say where its data ends is read to the end of the set, and its rest is not looked at.
    let bytes = [&made.media[0][..], &[7; 100_000]].concat();
    let len = made.media[0].len();
    let (medium, taken) = scanned(&bytes[..len], Until::Medium { ends_itself: false }, len).unwrap();
    assert_eq!((medium.sets.len(), taken), (1, len));
}

/// As a BACKUP leaves them that was killed while it appended.
#[test]
fn complete_sets_are_shown_whatever_follows_them() {
    let made = backup(&Shape::default());
    let whole = &made.media[0];
    for rest in [&[0; 512][..], &[7; 100_000], b"x", &whole[1024..1100], &whole[..5000]] {
        for piece in [1000, 65536] {
            let bytes = [whole, rest].concat();
            let (medium, _) = scanned(&bytes, Until::Medium { ends_itself: true }, piece).unwrap();
            assert_eq!((medium.sets.len(), medium.len), (1, whole.len() as u64), "{} bytes", rest.len());
            assert_eq!(headers(&medium).rows.len(), 1);
        }
    }
    assert!(scanned(&whole[..whole.len() - 1], Until::Medium { ends_itself: true }, 65536).is_err(), "no complete set");
}

/// Every kind of backup that servers made has rows whose values fit their columns.
#[test]
fn real_backups_have_rows() {
    for real in real_backups("real_backups_have_rows") {
        let (medium, taken) = scanned(&real.bytes, Until::Medium { ends_itself: true }, 1 << 20).unwrap();
        assert_eq!(taken, real.bytes.len(), "{}", real.name);
        let rows = headers(&medium);
        assert_eq!(rows.rows.len(), medium.sets.len(), "{}", real.name);
        let mut inspector = Inspector::headers_only();
        inspector.read(&real.bytes).unwrap();
        let config = inspector.medium().sets[0].config().clone();
        assert!(rows.value(0, "LastLSN") == config.database.last_lsn.to_string(), "{}", real.name);
        assert!(rows.value(0, "DatabaseName") == config.database.name.to_string(), "{}", real.name);
        assert!(rows.value(0, "BackupSize") == config.database.backup_size.to_string(), "{}", real.name);
        let (medium, taken) = scanned(&real.bytes, Until::Configuration(1), 65536).unwrap();
        assert!(taken <= 65536, "{}", real.name);
        let mut rows = Rows::default();
        columns::files(&medium.sets[0].leading, &mut rows);
        assert_eq!(rows.rows.len(), config.files.len(), "{}", real.name);
        for (row, file) in config.files.iter().enumerate() {
            assert!(rows.value(row, "LogicalName") == file.logical_name.to_string(), "{}", real.name);
            assert!(rows.value(row, "Size") == file.size.to_string(), "{}", real.name);
        }
        let (medium, taken) = scanned(&real.bytes, Until::Label, 65536).unwrap();
        assert!(taken <= 65536);
        columns::label(&medium, &mut Rows::default());
    }
}
