//! Databases: page files and log files in the data folder, and the catalog of them.
//!
//! ```text
//! DIR/
//!   catalog.sqlite     the catalog
//!   catalog.lock       locks of databases, one range of bytes a database
//!   Sales.mdf          data file 1 of the database "Sales"
//!   Sales_log.ldf      its log
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `layout` | where fixed pages are, and what they say: pure arithmetic |
//! | `page_file` | data files: pages, allocation |
//! | `log_file` | log files: virtual log files, checkpoints |
//! | [`content`] | what pages hold: stamps that can be checked, and files of a user |
//! | `database` | a database that is open: reading, freezing, writing |
//! | `restore` | a database that comes out of a backup, all or nothing |
//! | `lock` | who works on a database |

pub mod content;
mod database;
mod error;
mod fixed_page;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod fixture;
mod folder;
mod layout;
mod lock;
mod log_file;
mod page_file;
mod restore;

pub use database::{BackupSource, Database, DatabaseWriter, FileExtents, Frozen, WriteGuard};
pub use error::StorageError;
pub use folder::{CreateDatabase, DataFolder, NewFile};
pub use lock::DatabaseLock;
pub use restore::{Committed, RestoreRequest, RestoreTarget};
