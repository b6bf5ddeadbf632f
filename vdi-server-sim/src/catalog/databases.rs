//! Databases, their files, and files that belong to none yet.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction};
use vdi_mtf::sqlserver::config::{Config, RecoveryModel};

use super::record::RestoreRecord;
use super::rows::{DATABASE_COLUMNS, FileColumns, date, file_type_number, recovery_number};
use super::{Catalog, CatalogError, DatabaseRow, DatabaseState, Fault};

/// A database that is to be made, or to take the place of one.
#[derive(Debug, Clone)]
pub(crate) struct NewDatabase<'a> {
    /// Its number, from [`Catalog::begin_files`].
    pub(crate) id: u32,
    /// The name. A database that is replaced keeps the spelling of its own.
    pub(crate) name: &'a str,
    pub(crate) is_foreign: bool,
    pub(crate) generation: u64,
    pub(crate) configuration: &'a Config,
    /// One for each file of the configuration, in its order.
    pub(crate) files: &'a [PlacedFile],
}

/// Where a file of a new database is, and where it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedFile {
    /// Where it is to be.
    pub(crate) path: PathBuf,
    /// Where it is now. It has a row in `pending_file`.
    pub(crate) built: PathBuf,
    /// Whether a file of the old database may be there.
    pub(crate) replaces: bool,
}

/// A file of a database that has to get its name yet.
pub(crate) type Rename = PlacedFile;

/// Makes the files of a database pending. One that did not get its name yet is at its built path. What is at its place then is of the
/// database only if it was to be replaced: else it is a stranger's file, and stays.
const RELEASE_FILES: &str = "INSERT OR REPLACE INTO pending_file (path, database_name) \
    SELECT path, ?2 FROM files WHERE database_id = ?1 AND (built_path IS NULL OR replaces) \
    UNION SELECT built_path, ?2 FROM files WHERE database_id = ?1 AND built_path IS NOT NULL";

impl Catalog {
    /// All databases, by their numbers.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn databases(&self) -> Result<Vec<DatabaseRow>, CatalogError> {
        self.read(|connection| {
            let sql = format!("SELECT {DATABASE_COLUMNS} FROM databases ORDER BY database_id");
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let mut databases = Vec::new();
            while let Some(row) = rows.next()? {
                databases.push(self.database_of(connection, row)?);
            }
            Ok(databases)
        })
    }

    /// The database of this name.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn find(&self, name: &str) -> Result<Option<DatabaseRow>, CatalogError> {
        self.read(|connection| self.find_in(connection, name))
    }

    /// As [`find`](Self::find), inside a transaction.
    pub(super) fn find_in(&self, connection: &Connection, name: &str) -> Result<Option<DatabaseRow>, Fault> {
        let sql = format!("SELECT {DATABASE_COLUMNS} FROM databases WHERE name = ?1");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([name])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        self.database_of(connection, row).map(Some)
    }

    /// The database that has the file `path`, if one has.
    pub(crate) fn owner_of(&self, path: &Path) -> Result<Option<String>, CatalogError> {
        self.read(|connection| owner_of(connection, &self.stored_path(path)?))
    }

    /// Files that a statement on the database `name` is about to make; see [`Catalog`]. Gives the number of the database that they are
    /// for: `id`, or a new one, which is never given again.
    pub(crate) fn begin_files(&self, name: &str, id: Option<u32>, paths: &[PathBuf]) -> Result<u32, CatalogError> {
        self.write(|transaction| {
            for path in paths {
                let sql = "INSERT INTO pending_file (path, database_name) VALUES (?1, ?2)";
                transaction.execute(sql, (self.stored_path(path)?, name))?;
            }
            id.map_or_else(|| new_id(transaction), Ok)
        })
    }

    /// Makes a database, and ends the one with the same number. Its files are no pending ones any more; files of the old one that are
    /// not replaced become pending. With a restore, its history.
    pub(crate) fn put_database(
        &self,
        new: &NewDatabase<'_>,
        restore: Option<&RestoreRecord<'_>>,
    ) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let id = i64::from(new.id);
            self.release_old_files(transaction, new)?;
            put_row(transaction, new)?;
            for (position, (record, placed)) in new.configuration.files.iter().zip(new.files).enumerate() {
                let (path, built) = (self.stored_path(&placed.path)?, self.stored_path(&placed.built)?);
                if let Some(database) = other_user(transaction, &path, new.name)? {
                    return Err(CatalogError::FileInUse { path: placed.path.clone(), database }.into());
                }
                let columns = FileColumns::of(record)?;
                transaction.execute(
                    "INSERT INTO files (database_id, position, file_id, type, data_space_id, logical_name, path, size, built_path, \
                     replaces, max_size, growth, is_percent_growth) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                    rusqlite::params![
                        id, position as i64, record.file_id.0, file_type_number(record.file_type()), record.filegroup,
                        record.logical_name.to_string(), path, columns.size, built, placed.replaces,
                        columns.max_size, columns.growth, columns.is_percent_growth,
                    ],
                )?;
                transaction.execute("DELETE FROM pending_file WHERE path IN (?1, ?2)", (&built, &path))?;
            }
            match restore {
                Some(record) => self.insert_restore(transaction, record, new),
                None => Ok(()),
            }
        })
    }

    /// The old database's files leave it, and are pending until they are removed or replaced.
    fn release_old_files(&self, transaction: &Transaction<'_>, new: &NewDatabase<'_>) -> Result<(), Fault> {
        transaction.execute(RELEASE_FILES, (new.id, new.name))?;
        transaction.execute("DELETE FROM files WHERE database_id = ?1", [new.id])?;
        Ok(())
    }

    /// Removes a database. Its files become pending.
    pub(crate) fn remove_database(&self, id: u32, name: &str) -> Result<(), CatalogError> {
        self.write(|transaction| {
            transaction.execute(RELEASE_FILES, (id, name))?;
            transaction.execute("DELETE FROM databases WHERE database_id = ?1", [id])?;
            Ok(())
        })
    }

    /// Changes the state of a database.
    pub(crate) fn set_state(&self, id: u32, state: DatabaseState) -> Result<(), CatalogError> {
        self.write(|transaction| {
            transaction.execute("UPDATE databases SET state = ?2 WHERE database_id = ?1", (id, state.number()))?;
            Ok(())
        })
    }

    /// Changes the recovery model of the database `name`, also in its configuration. `false`: there is no such database.
    pub(crate) fn set_recovery_model(&self, name: &str, model: RecoveryModel) -> Result<bool, CatalogError> {
        self.write(|transaction| {
            let Some(mut row) = self.find_in(transaction, name)? else { return Ok(false) };
            let status = &mut row.configuration.database.status;
            *status = *status & !0xC | super::rows::recovery_bits(model);
            put_configuration(transaction, row.id, &row.configuration)?;
            Ok(true)
        })
    }

    /// The names of databases that have pending files, or files that have to get their names.
    pub(crate) fn unsettled(&self) -> Result<Vec<String>, CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT DISTINCT database_name FROM pending_file UNION SELECT DISTINCT name FROM databases JOIN files USING (database_id) \
                 WHERE built_path IS NOT NULL",
            )?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
    }

    /// Whether the database `name` has pending files.
    pub(crate) fn has_pending(&self, name: &str) -> Result<bool, CatalogError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pending_file WHERE database_name = ?1)";
        self.read(|connection| Ok(connection.query_row(sql, [name], |row| row.get(0))?))
    }

    /// The files of the database `name` that have to get their names.
    pub(crate) fn renames(&self, name: &str) -> Result<Vec<Rename>, CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT path, built_path, replaces FROM databases JOIN files USING (database_id) WHERE name = ?1 \
                 AND built_path IS NOT NULL",
            )?;
            let mut rows = statement.query([name])?;
            let mut renames = Vec::new();
            while let Some(row) = rows.next()? {
                renames.push(PlacedFile {
                    path: self.absolute_path(&row.get::<_, String>(0)?),
                    built: self.absolute_path(&row.get::<_, String>(1)?),
                    replaces: row.get(2)?,
                });
            }
            Ok(renames)
        })
    }

    /// The files of the database `name` have their names.
    pub(crate) fn end_renames(&self, name: &str) -> Result<(), CatalogError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE files SET built_path = NULL, replaces = 0 WHERE database_id = \
                 (SELECT database_id FROM databases WHERE name = ?1)",
                [name],
            )?;
            Ok(())
        })
    }

    /// These files of the database `name` have their names.
    pub(crate) fn end_renames_of(&self, name: &str, paths: &[PathBuf]) -> Result<(), CatalogError> {
        self.write(|transaction| {
            for path in paths {
                transaction.execute(
                    "UPDATE files SET built_path = NULL, replaces = 0 WHERE path = ?2 AND database_id = \
                     (SELECT database_id FROM databases WHERE name = ?1)",
                    (name, self.stored_path(path)?),
                )?;
            }
            Ok(())
        })
    }

    /// The state of a database. `None`: it is gone, or another generation of it is there.
    pub(crate) fn state_of(&self, row: &DatabaseRow) -> Result<Option<DatabaseState>, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT state FROM databases WHERE database_id = ?1 AND generation = ?2";
            let generation = i64::try_from(row.generation).unwrap_or(-1);
            let mut statement = connection.prepare(sql)?;
            let found: Option<i64> = statement.query_row((row.id, generation), |row| row.get(0)).optional()?;
            let state = |number| {
                let unknown = || Fault::Damaged(format!("database {}: there is no state {number}", row.id));
                DatabaseState::from_number(number).ok_or_else(unknown)
            };
            found.map(state).transpose()
        })
    }

    /// Takes the pending files of `name` that no database has, to remove them. It writes in any case: a commit before this that failed
    /// cannot come back after it.
    pub(crate) fn take_pending(&self, name: &str) -> Result<Vec<PathBuf>, CatalogError> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM pending_file WHERE database_name = ?1 AND path IN (SELECT path FROM files UNION SELECT built_path FROM files)",
                [name],
            )?;
            let mut statement = transaction
                .prepare("UPDATE pending_file SET removals = removals + 1 WHERE database_name = ?1 RETURNING path")?;
            let paths = statement.query_map([name], |row| row.get::<_, String>(0))?;
            let paths: Vec<String> = paths.collect::<Result<_, _>>()?;
            Ok(paths.iter().map(|path| self.absolute_path(path)).collect())
        })
    }

    /// Pending files that are gone.
    pub(crate) fn end_pending(&self, paths: &[PathBuf]) -> Result<(), CatalogError> {
        self.write(|transaction| {
            for path in paths {
                transaction.execute("DELETE FROM pending_file WHERE path = ?1", [self.stored_path(path)?])?;
            }
            Ok(())
        })
    }

    /// Lets the catalog grow no more, as on a disk that is full, or lets it grow again.
    #[cfg(test)]
    pub(crate) fn limit_size(&self, limit: bool) {
        let limited = self.read(|connection| {
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
            let most = if limit { pages } else { i64::from(u32::MAX - 1) };
            Ok(connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))?)
        });
        limited.unwrap();
    }

    /// All pending files.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> Vec<PathBuf> {
        let paths = self.read(|connection| {
            let mut statement = connection.prepare("SELECT path FROM pending_file ORDER BY path")?;
            let paths = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(paths.collect::<Result<Vec<_>, _>>()?)
        });
        paths.unwrap().iter().map(|path| self.absolute_path(path)).collect()
    }
}

/// The other database that has the file, or is about to remove it.
fn other_user(connection: &Connection, path: &str, name: &str) -> Result<Option<String>, Fault> {
    if let Some(owner) = owner_of(connection, path)? {
        return Ok(Some(owner));
    }
    let sql = "SELECT database_name FROM pending_file WHERE path = ?1 AND database_name <> ?2";
    Ok(connection.query_row(sql, (path, name), |row| row.get(0)).optional()?)
}

/// The database that has the file.
fn owner_of(connection: &Connection, path: &str) -> Result<Option<String>, Fault> {
    let mut statement = connection
        .prepare("SELECT name FROM databases JOIN files USING (database_id) WHERE path = ?1 OR built_path = ?1")?;
    Ok(statement.query_row([path], |row| row.get(0)).optional()?)
}

/// A number for a new database.
fn new_id(transaction: &Transaction<'_>) -> Result<u32, Fault> {
    let sql = "UPDATE sqlite_sequence SET seq = max(seq, 4) + 1 WHERE name = 'databases' RETURNING seq";
    let id: i64 = transaction
        .query_row(sql, [], |row| row.get(0))
        .optional()?
        .ok_or_else(|| Fault::Damaged("sqlite_sequence has no row for databases".into()))?;
    u32::try_from(id).map_err(|_| Fault::Damaged(format!("the last number of a database is {id}")))
}

fn put_row(transaction: &Transaction<'_>, new: &NewDatabase<'_>) -> Result<(), Fault> {
    let database = &new.configuration.database;
    let generation = i64::try_from(new.generation)
        .map_err(|_| Fault::Damaged(format!("the new generation is {}", new.generation)))?;
    transaction.execute(
        "INSERT INTO databases (database_id, name, create_date, state, recovery_model, compatibility_level, family_guid, \
         recovery_fork_guid, is_foreign, generation, configuration) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (database_id) DO UPDATE SET state = excluded.state, recovery_model = excluded.recovery_model, \
         compatibility_level = excluded.compatibility_level, family_guid = excluded.family_guid, \
         recovery_fork_guid = excluded.recovery_fork_guid, is_foreign = excluded.is_foreign, generation = excluded.generation, \
         configuration = excluded.configuration",
        rusqlite::params![
            new.id, new.name, date(database.created), DatabaseState::Online.number(), recovery_number(database.recovery_model()),
            database.compatibility_level, database.family.to_string(), database.recovery_fork.to_string(), new.is_foreign,
            generation, encode(new.configuration)?,
        ],
    )?;
    Ok(())
}

pub(super) fn put_configuration(transaction: &Transaction<'_>, id: u32, configuration: &Config) -> Result<(), Fault> {
    let database = &configuration.database;
    transaction.execute(
        "UPDATE databases SET recovery_model = ?2, compatibility_level = ?3, family_guid = ?4, recovery_fork_guid = ?5, \
         configuration = ?6 WHERE database_id = ?1",
        rusqlite::params![
            id, recovery_number(database.recovery_model()), database.compatibility_level, database.family.to_string(),
            database.recovery_fork.to_string(), encode(configuration)?,
        ],
    )?;
    Ok(())
}

fn encode(configuration: &Config) -> Result<Vec<u8>, Fault> {
    configuration.encode().map_err(|error| Fault::Damaged(format!("the new configuration cannot be written: {error}")))
}
