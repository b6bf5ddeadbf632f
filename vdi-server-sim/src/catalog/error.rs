//! Why the catalog could not be used.

use std::path::PathBuf;

/// Why the catalog could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// SQLite refused a statement, or the file is damaged.
    #[error("the catalog {} cannot be used: {source}", path.display())]
    Sqlite {
        /// The catalog.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A version of this program that knows more than this one made it.
    #[error("the catalog {} has version {found} of its tables, this program knows {known}: use a newer vdi-sim", path.display())]
    Version {
        /// The catalog.
        path: PathBuf,
        /// The version of its tables.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// A value in it cannot be: the catalog was damaged or changed by hand.
    #[error("the catalog {} is damaged: {what}", path.display())]
    Damaged {
        /// The catalog.
        path: PathBuf,
        /// What is wrong with which row.
        what: String,
    },
}
