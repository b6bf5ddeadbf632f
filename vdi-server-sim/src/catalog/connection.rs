//! Opening the catalog; transactions.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use vdi_mtf::value::DateTime;

use super::{Catalog, CatalogError, FILE_NAME, Fault};

/// How long a statement waits for the transaction of another process. Transactions are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

impl Catalog {
    /// Opens the catalog of a data folder, and makes it if there is none.
    ///
    /// # Errors
    /// [`CatalogError`]: [`Version`](CatalogError::Version) for a newer catalog, [`Damaged`](CatalogError::Damaged) for a file that is no
    /// catalog. The file stays as it is.
    pub fn open(folder: &Path) -> Result<Catalog, CatalogError> {
        let path = folder.join(FILE_NAME);
        check_not_cut(&path)?;
        let failed = |source| CatalogError::sqlite(&path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        prepare_connection(&connection).map_err(failed)?;
        let catalog = Catalog { folder: folder.to_owned(), path, connection: Mutex::new(connection) };
        catalog.prepare()?;
        Ok(catalog)
    }

    /// The time now: local time, and local time minus UTC in quarters of an hour.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn now(&self) -> Result<(DateTime, i8), CatalogError> {
        self.read(|connection| {
            let sql = "SELECT strftime('%Y %m %d %H %M %S', 'now', 'localtime'), \
                       round((julianday('now', 'localtime') - julianday('now')) * 96)";
            let (text, quarters): (String, f64) =
                connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut numbers = text.split(' ').map(|number| number.parse::<u16>().unwrap_or(0));
            let mut next = || numbers.next().unwrap_or(0);
            let (year, mut small) = (next(), [0_u8; 5]);
            small.fill_with(|| next().try_into().unwrap_or(0));
            let [month, day, hour, minute, second] = small;
            let date = DateTime::new(year, month, day, hour, minute, second.min(59)).unwrap_or_default();
            Ok((date, quarters as i8))
        })
    }

    /// Reads in one transaction: all rows are of one moment.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, CatalogError> {
        let mut connection = self.lock();
        let read = || {
            let transaction = connection.transaction()?;
            work(&transaction)
        };
        (read)().map_err(|fault: Fault| fault.at(&self.path))
    }

    /// Changes the catalog in one transaction. It is durable when this returns; after an error nothing has changed.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, CatalogError> {
        let mut connection = self.lock();
        let write = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        (write)().map_err(|fault: Fault| fault.at(&self.path))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic drops its transaction, which rolls it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SQLite throws a write-ahead log away if its database has no pages. A catalog gets its first page before there is such a log, so
/// then the catalog was damaged by hand, and the log is the best that is left of it.
fn check_not_cut(path: &Path) -> Result<(), CatalogError> {
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let log = path.with_file_name(format!("{FILE_NAME}-wal"));
    // The log first: what it says holds for every later moment.
    if len(&log) > 0 && len(path) == 0 {
        let what =
            format!("it is empty, but its write-ahead log {} is not: put a copy of the catalog there", log.display());
        return Err(Fault::Damaged(what).at(path));
    }
    Ok(())
}

fn prepare_connection(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In KiB, as a negative number. By default it is 2 MB, which a server would take bit by bit as the history grows.
    connection.pragma_update(None, "cache_size", -256)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // SQLite does not wait for other processes in each case in which it changes the mode.
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let mode =
            connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).and_then(|mode| {
                match mode == "wal" {
                    true => Ok(()),
                    false => connection.pragma_update(None, "journal_mode", "WAL"),
                }
            });
        match mode.as_ref().map_err(|error| error.sqlite_error_code()) {
            Err(Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => return mode,
        }
    }
}
