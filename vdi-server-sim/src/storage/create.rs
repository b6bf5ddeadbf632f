//! CREATE DATABASE: the header values and files of a new database.

use std::fs::File;
use std::path::PathBuf;

use vdi_mtf::sqlserver::config::{
    Config, Database, FileRecord, FileType, Filegroup, RecoveryModel, UNLIMITED_DATA, UNLIMITED_LOG, file_flags,
};
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::value::{FileId, Guid, Text};

use super::build::{NewFiles, Wanted, random};
use super::path::{check_user_database, given};
use super::{DataFolder, StorageError, page_file};
use crate::catalog::{DatabaseRow, DatabaseState, FileRow, NewDatabase, recovery_bits};
use crate::messages::Verb;

/// The server version whose formats are written: 16.0.1000, SQL Server 2022.
const MAJOR: u8 = 16;
const BUILD: u16 = 1000;
/// The internal version of its databases, and their compatibility level.
const DATABASE_VERSION: u16 = 957;
const COMPATIBILITY_LEVEL: u8 = 160;

/// Size and growth of a file for which nothing else is asked, in bytes.
const DEFAULT_SIZE: u64 = 8 << 20;
const DEFAULT_GROWTH: u64 = 64 << 20;
/// The least size of a file in bytes.
const LEAST_SIZE: u64 = 1 << 20;

/// The last bytes of the FamilyGUID of databases that this simulator made. The others are random.
const FAMILY_MARK: &[u8; 6] = b"vdisim";

/// What CREATE DATABASE asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDatabase {
    /// The name.
    pub name: String,
    /// Data files; the first is the primary one. None: one file `NAME.mdf` of 8 MiB.
    pub data_files: Vec<NewFile>,
    /// The log file. None: `NAME_log.ldf` of 8 MiB.
    pub log_file: Option<NewFile>,
    /// The recovery model. SQL Server takes FULL from `model`.
    pub recovery_model: RecoveryModel,
}

/// A file of a database to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The logical name.
    pub logical_name: String,
    /// Where it is to be; relative to the data folder.
    pub path: PathBuf,
    /// Its length in bytes, rounded up to whole extents; at least 1 MiB.
    pub size: u64,
    /// The filegroup's name; ignored for a log file. Empty: PRIMARY, which the first data file is always in.
    pub filegroup: String,
    /// FILEGROWTH in bytes, or in percent.
    pub growth: u64,
    /// Whether FILEGROWTH is in percent.
    pub is_percent_growth: bool,
    /// MAXSIZE in bytes; `None` is UNLIMITED.
    pub max_size: Option<u64>,
}

impl NewFile {
    /// A file of 8 MiB in the filegroup PRIMARY that grows by 64 MiB, without limit.
    pub fn new(logical_name: impl Into<String>, path: impl Into<PathBuf>) -> NewFile {
        NewFile {
            logical_name: logical_name.into(),
            path: path.into(),
            size: DEFAULT_SIZE,
            filegroup: String::new(),
            growth: DEFAULT_GROWTH,
            is_percent_growth: false,
            max_size: None,
        }
    }
}

/// Whether the database was made by this simulator, on any machine: its FamilyGUID, which stays the same in all backups and restores of
/// it, ends with the bytes `vdisim`. Those of SQL Server are random.
pub(super) fn is_own_family(family: Guid) -> bool {
    family.0.ends_with(FAMILY_MARK)
}

impl DataFolder {
    /// Makes a new, empty database.
    ///
    /// File ids are those that SQL Server gives: 1 for the primary data file, 2 for the log, 3 and on for the others. The collation is
    /// `SQL_Latin1_General_CP1_CI_AS`.
    ///
    /// # Errors
    /// [`StorageError::Exists`] (1801); [`StorageError::FileExists`] (5170) and [`StorageError::FileInUse`] (1834): no file is ever
    /// overwritten; [`StorageError::InvalidFile`], [`StorageError::NoSuchFolder`] (5133), [`StorageError::SamePath`],
    /// [`StorageError::InUse`], and others. Nothing has changed then.
    pub fn create_database(&self, request: &CreateDatabase) -> Result<(), StorageError> {
        self.create_formatted(request, page_file::format)
    }

    /// As [`create_database`](Self::create_database); `format` writes what is in the files.
    pub(super) fn create_formatted(
        &self,
        request: &CreateDatabase,
        format: impl FnOnce(&DatabaseRow, &[File]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        check_user_database(&request.name)?;
        let lock = self.lock(&request.name, Verb::Restore)?;
        if let Some(existing) = self.catalog().find(&request.name)? {
            return Err(StorageError::Exists { name: existing.name });
        }
        let files = files(request)?;
        let mut configuration = configuration(self, request, &files)?;
        let mut wanted = Vec::with_capacity(files.len());
        for file in &files {
            wanted.push(Wanted { path: given(self, &file.new.path)?, size: file.size()? });
        }
        for (record, wanted) in configuration.files.iter_mut().zip(&wanted) {
            record.physical_name = Text::from(wanted.path.to_string_lossy().as_ref());
        }
        let built = NewFiles::create(self, lock, &wanted, None)?;
        let id = built.id();
        configuration.database.database_id = u16::try_from(id).unwrap_or(u16::MAX);
        let row = DatabaseRow {
            id,
            name: request.name.clone(),
            state: DatabaseState::Online,
            recovery_model: request.recovery_model,
            is_foreign: false,
            generation: u64::from_le_bytes(random()?) >> 1,
            files: rows(&configuration, &wanted),
            configuration,
        };
        format(&row, built.files())?;
        let placed = built.placed().to_vec();
        let new = NewDatabase {
            id,
            name: &row.name,
            is_foreign: false,
            generation: row.generation,
            configuration: &row.configuration,
            files: &placed,
        };
        // The database is there. Files that have not their names yet get them from the next statement.
        built.commit(&new, None).map(drop)
    }
}

/// A file of the request with its number, in the order of a configuration: data files, then the log.
struct Numbered {
    id: FileId,
    new: NewFile,
    filegroup: u16,
}

impl Numbered {
    fn size(&self) -> Result<u64, StorageError> {
        let (size, name) = (self.new.size, &self.new.logical_name);
        let most = self.new.max_size.unwrap_or(if self.filegroup == 0 { UNLIMITED_LOG } else { UNLIMITED_DATA });
        if !(LEAST_SIZE..=most).contains(&size) {
            let reason = format!("its size is {size} bytes, expected {LEAST_SIZE} to {most}");
            return Err(StorageError::InvalidFile { logical_name: name.clone(), reason });
        }
        Ok(size.next_multiple_of(EXTENT_LEN))
    }
}

/// The files of the request, with defaults, validated.
fn files(request: &CreateDatabase) -> Result<Vec<Numbered>, StorageError> {
    let name = &request.name;
    let mut data = request.data_files.clone();
    if data.is_empty() {
        data.push(NewFile::new(name, format!("{name}.mdf")));
    }
    let log = request.log_file.clone();
    let log = log.unwrap_or_else(|| NewFile::new(format!("{name}_log"), format!("{name}_log.ldf")));
    let mut groups: Vec<String> = vec!["PRIMARY".to_owned()];
    let mut files = Vec::with_capacity(data.len() + 1);
    for (at, new) in data.into_iter().enumerate() {
        let wanted = if new.filegroup.is_empty() { "PRIMARY" } else { new.filegroup.as_str() };
        let known = groups.iter().position(|group| group.eq_ignore_ascii_case(wanted));
        let group = known.unwrap_or_else(|| {
            groups.push(wanted.to_owned());
            groups.len() - 1
        });
        let logical_name = new.logical_name.clone();
        if at == 0 && group != 0 {
            let reason = format!("the first data file is in PRIMARY, not in {wanted}");
            return Err(StorageError::InvalidFile { logical_name, reason });
        }
        let number = if at == 0 { 1 } else { at + 2 };
        let (Some(id), Ok(filegroup)) = (file_id(number), u16::try_from(group + 1)) else {
            let reason = "a database has at most 32,767 files".to_owned();
            return Err(StorageError::InvalidFile { logical_name, reason });
        };
        files.push(Numbered { id, new, filegroup });
    }
    files.push(Numbered { id: FileId(2), new: log, filegroup: 0 });
    check_logical_names(&files)?;
    Ok(files)
}

fn file_id(number: usize) -> Option<FileId> {
    u16::try_from(number).ok().filter(|&number| number <= 32767).map(FileId)
}

fn check_logical_names(files: &[Numbered]) -> Result<(), StorageError> {
    let mut names = std::collections::BTreeSet::new();
    for file in files {
        for (what, name, may_be_empty) in
            [("name", &file.new.logical_name, false), ("filegroup", &file.new.filegroup, true)]
        {
            let units = name.encode_utf16().count();
            if units > 128 || (units == 0 && !may_be_empty) {
                let reason = format!("its {what} has {units} characters, expected 1 to 128");
                return Err(StorageError::InvalidFile { logical_name: file.new.logical_name.clone(), reason });
            }
        }
        if !names.insert(file.new.logical_name.to_lowercase()) {
            let reason = "another file has the same logical name".to_owned();
            return Err(StorageError::InvalidFile { logical_name: file.new.logical_name.clone(), reason });
        }
    }
    Ok(())
}

/// The header values of a new database. Its log sequence numbers come with the first checkpoint.
fn configuration(folder: &DataFolder, request: &CreateDatabase, files: &[Numbered]) -> Result<Config, StorageError> {
    let family = family()?;
    let mut database = Database {
        data_files: (files.len() - 1) as u32,
        log_files: 1,
        software_build: BUILD,
        created: folder.catalog().now()?.0,
        // SQL_Latin1_General_CP1_CI_AS: locale 1033, sort id 52.
        sort_order: 52,
        unicode_locale: 1033,
        unicode_comparison: 0x3_0001,
        collation: 0x00D0_0409,
        collation_sort_id: 52,
        compatibility_level: COMPATIBILITY_LEVEL,
        database_version: DATABASE_VERSION,
        binding_id: guid()?,
        recovery_fork: family,
        family,
        // PAGE_VERIFY CHECKSUM, and the recovery model.
        status: 0x1_0000 | recovery_bits(request.recovery_model),
        name: Text::from(request.name.as_str()),
        ..Database::new(MAJOR)
    };
    // 1 in all observed backups.
    for at in [89, 242] {
        if let Some(byte) = database.raw.get_mut(at) {
            *byte = 1;
        }
    }
    let mut config = Config { database, ..Config::default() };
    for file in files {
        let group = u32::from(file.filegroup);
        if group as usize > config.filegroups.len() {
            let name = if group == 1 { "PRIMARY" } else { file.new.filegroup.as_str() };
            let guid = if group == 1 { Guid::default() } else { guid()? };
            config.filegroups.push(Filegroup { guid, ..Filegroup::new(MAJOR, group, name) });
        }
        let file_type = if group == 0 { FileType::Log } else { FileType::Data };
        let record = FileRecord::new(MAJOR, file.id, file_type);
        let size = file.size()?;
        config.files.push(FileRecord {
            filegroup: file.filegroup,
            size,
            size_again: size,
            min_size: size,
            growth: file.new.growth,
            flags: record.flags | if file.new.is_percent_growth { file_flags::PERCENT } else { 0 },
            max_size: file.new.max_size.unwrap_or(record.max_size),
            unique_id: guid()?,
            logical_name: Text::from(file.new.logical_name.as_str()),
            ..record
        });
    }
    Ok(config)
}

fn rows(configuration: &Config, wanted: &[Wanted]) -> Vec<FileRow> {
    let files = configuration.files.iter().zip(wanted);
    files
        .map(|(record, wanted)| FileRow {
            file_id: record.file_id,
            file_type: record.file_type(),
            filegroup: record.filegroup,
            logical_name: record.logical_name.to_string(),
            path: wanted.path.clone(),
            size: wanted.size,
        })
        .collect()
}

/// A random GUID (version 4).
pub(super) fn guid() -> Result<Guid, StorageError> {
    let mut bytes: [u8; 16] = random()?;
    bytes[7] = bytes[7] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    Ok(Guid(bytes))
}

fn family() -> Result<Guid, StorageError> {
    let mut guid = guid()?;
    guid.0[10..].copy_from_slice(FAMILY_MARK);
    Ok(guid)
}
