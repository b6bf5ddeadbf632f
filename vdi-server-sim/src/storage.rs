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
//! | `layout` | where fixed pages are: pure arithmetic |
//! | `fixed_page` | what fixed pages say |
//! | `page_file` | data files: pages, allocation |
//! | `log_file` | log files: virtual log files, checkpoints |
//! | [`content`] | what pages hold: stamps that can be checked, and files of a user |
//! | `database` | a database that is open: reading, freezing, writing |
//! | `folder` | the data folder: opening, dropping and altering databases |
//! | `create` | CREATE DATABASE |
//! | `restore` | a database that comes out of a backup, all or nothing |
//! | `mount` | a database whose files a client puts into place |
//! | `build` | files of a database that is being made or restored |
//! | `settle` | ending what a statement began, also after its process died |
//! | `path` | names of databases, and where their files are |
//! | `owner` | the owner of the files that a statement makes |
//! | `lock` | which statement works on a database |

mod build;
pub mod content;
mod create;
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
mod mount;
mod owner;
mod page_file;
mod path;
mod restore;
mod settle;
#[cfg(test)]
mod tests;

pub use create::{CreateDatabase, NewFile};
pub use database::{BackupSource, Database, DatabaseWriter, FileExtents, Frozen, WriteGuard};
pub use error::StorageError;
pub use folder::DataFolder;
pub use lock::DatabaseLock;
pub use mount::MountTarget;
pub(crate) use path::is_system_database;
pub use path::{MAX_NAME_CHARS, check_name};
pub use restore::{Committed, RestoreRequest, RestoreTarget};
