//! `vdi-sim databases` and `vdi-sim history`: the catalog of a data folder, for people.

use std::error::Error;
use std::path::{Path, PathBuf};

use vdi_mtf::sqlserver::config::RecoveryModel;
use vdi_server_sim::catalog::{BackupDevice, FILE_NAME};
use vdi_server_sim::storage::DataFolder;
use vdi_server_sim::types::{Column, SqlType, Value};

use crate::say;
use crate::table::{Style, Table};

#[derive(clap::Args)]
pub(crate) struct DatabasesArguments {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct HistoryArguments {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only what was done with this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

/// Each data folder that was used has it.
const LOCK_FILE: &str = "catalog.lock";

/// Opens a data folder that has a catalog. Looking makes none.
fn open(data: &Path) -> Result<DataFolder, Box<dyn Error>> {
    if !data.join(FILE_NAME).exists() {
        let has_lock = data.join(LOCK_FILE).exists();
        let data = data.display();
        if has_lock {
            return Err(format!(
                "the catalog {FILE_NAME} of {data} is missing, though statements have used this folder: put it back from a copy"
            )
            .into());
        }
        return Err(format!("{data} has no catalog: it is no data folder, or no statement has used it yet").into());
    }
    Ok(DataFolder::open(data)?)
}

/// Shows each database: its state, its recovery model, the size of its files, and when it was backed up last.
pub(crate) fn databases(arguments: &DatabasesArguments) -> Result<(), Box<dyn Error>> {
    let folder = open(&arguments.data)?;
    let catalog = folder.catalog();
    let mut table =
        table(&[("name", TEXT), ("state", TEXT), ("recovery", TEXT), ("size", SIZE), ("last full backup", TEXT)]);
    for row in catalog.databases()? {
        let last = catalog.last_backup(&row.name)?;
        table.push(&[
            text(row.name),
            text(row.state.to_string()),
            text(recovery_model(row.recovery_model)),
            text(size(row.files.iter().map(|file| file.size).sum())),
            text(last.full.unwrap_or_else(|| "never".to_owned())),
        ]);
    }
    table.lines(Style::default()).iter().for_each(say::out);
    Ok(())
}

/// Shows backups and restores, the newest first.
pub(crate) fn history(arguments: &HistoryArguments) -> Result<(), Box<dyn Error>> {
    let folder = open(&arguments.data)?;
    let (catalog, database) = (folder.catalog(), arguments.database.as_deref());
    let backups = catalog.backups(database)?.into_iter().map(|backup| {
        let mut what = match backup.kind {
            'D' => "full".to_owned(),
            'I' => "differential".to_owned(),
            'L' => "log".to_owned(),
            other => format!("kind {other}"),
        };
        for (is_so, word) in [(backup.is_copy_only, ", copy only"), (backup.is_snapshot, ", snapshot")] {
            what.push_str(if is_so { word } else { "" });
        }
        let row =
            [backup.database, "backup".to_owned(), what, size(backup.bytes), backup.name, devices(&backup.devices)];
        (backup.finished, row)
    });
    let restores = catalog.restores(database)?.into_iter().map(|restore| {
        let what = format!("of {}{}", restore.source, if restore.replace { ", with replace" } else { "" });
        let row = [restore.database, "restore".to_owned(), what, String::new(), String::new(), String::new()];
        (restore.finished, row)
    });
    // Times of one format. What has the same time stays in its order, with a restore as the newer one.
    let mut rows: Vec<_> = restores.chain(backups).collect();
    rows.sort_by(|(one, _), (other, _)| other.cmp(one));
    let mut table = table(&[
        ("finished", TEXT),
        ("database", TEXT),
        ("statement", TEXT),
        ("what", TEXT),
        ("size", SIZE),
        ("backup set", TEXT),
        ("devices", TEXT),
    ]);
    for (finished, row) in rows {
        table.push(&[text(finished)].into_iter().chain(row.map(text)).collect::<Vec<_>>());
    }
    table.lines(Style::default()).iter().for_each(say::out);
    Ok(())
}

const TEXT: SqlType = SqlType::NVarChar { length: None };
/// Stands on the right side of its column.
const SIZE: SqlType = SqlType::BigInt;

fn table(columns: &[(&str, SqlType)]) -> Table {
    let column =
        |(name, sql_type): &(&str, SqlType)| Column { name: (*name).to_owned(), sql_type: *sql_type, nullable: false };
    Table::new(&columns.iter().map(column).collect::<Vec<_>>())
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn recovery_model(model: RecoveryModel) -> &'static str {
    match model {
        RecoveryModel::Full => "FULL",
        RecoveryModel::BulkLogged => "BULK_LOGGED",
        RecoveryModel::Simple => "SIMPLE",
    }
}

/// The first device, and how many more there are: `virtual device nightly, and 3 more`, or the path of a file.
fn devices(devices: &[BackupDevice]) -> String {
    let Some((first, others)) = devices.split_first() else { return String::new() };
    let of_type = if first.device_type == 2 { "" } else { "virtual device " };
    let more = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
    format!("{of_type}{}{more}", first.name)
}

/// `1.5 GB`, as SQL Server counts: in powers of 1024.
fn size(bytes: u64) -> String {
    let units = ["KB", "MB", "GB", "TB"];
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_device_stands_for_all() {
        let device = |device_type, name: &str| BackupDevice { device_type, name: name.to_owned() };
        assert_eq!(devices(&[device(2, "/a.bak")]), "/a.bak");
        assert_eq!(devices(&[device(7, "s"), device(7, "s1"), device(7, "s2")]), "virtual device s, and 2 more");
        assert_eq!(devices(&[]), "");
    }

    #[test]
    fn sizes_have_units() {
        for (bytes, expected) in [
            (0, "0.0 KB"),
            (1 << 19, "512.0 KB"),
            (3 << 19, "1.5 MB"),
            (5 << 40, "5.0 TB"),
            (u64::MAX, "16777216.0 TB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
