//! Databases of a data folder as tests make, read, damage and remove them.
//!
//! Nothing here reads or writes `catalog.sqlite` as a file: to close any descriptor of it drops the locks that SQLite holds in this
//! process.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rusqlite::{Connection, OpenFlags};
use vdi_mtf::page::{PAGE_LEN, PageHeader, page_type};
use vdi_mtf::sqlserver::config::{FileType, RecoveryModel};
use vdi_mtf::value::{FileId, PageAddress, PageId};
use vdi_server_sim::catalog::{self, Catalog, DatabaseRow, FileRow};
use vdi_server_sim::storage::content::{self, Stamp};
use vdi_server_sim::storage::{CreateDatabase, DataFolder, NewFile};

use super::client::moves;

/// Bytes of a page.
pub(crate) const PAGE: usize = PAGE_LEN;

/// The file of the locks in a data folder.
const LOCK_FILE: &str = "catalog.lock";

/// The pages of a database that hold content, each with all of its bytes. Two databases with the same content have the same pages, whatever
/// their names are; a checkpoint changes none of them.
pub(crate) type Pages = BTreeMap<(u16, u32), Vec<u8>>;

/// A database to the last byte: its row in the catalog, and all bytes of its files.
#[derive(Clone, PartialEq)]
pub(crate) struct Image {
    row: DatabaseRow,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths: BTreeMap<_, _> = self.files.iter().map(|(path, bytes)| (path, bytes.len())).collect();
        write!(f, "{:?}, {lengths:?}", self.row)
    }
}

/// A data folder of a test.
#[derive(Debug, Clone)]
pub(crate) struct Databases(pub(crate) PathBuf);

impl Databases {
    /// The data folder, opened as a server does.
    #[track_caller]
    pub(crate) fn open(&self) -> DataFolder {
        DataFolder::open(&self.0).unwrap()
    }

    /// The rows of the databases, read without what opening the folder does: it removes what killed processes left.
    fn rows(&self) -> Vec<DatabaseRow> {
        if !self.0.join(catalog::FILE_NAME).exists() {
            return Vec::new();
        }
        Catalog::open(&self.0).unwrap().databases().unwrap()
    }

    /// Makes a sample database.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, bytes: u64, seed: u64) {
        content::create_sample(&self.open(), name, bytes, seed).unwrap();
    }

    /// Makes a database that carries files of these bytes, of a user.
    #[track_caller]
    pub(crate) fn import(&self, name: &str, files: &[Vec<u8>]) {
        let source = tempfile::tempdir().unwrap();
        for (index, bytes) in files.iter().enumerate() {
            fs::write(source.path().join(format!("file-{index}")), bytes).unwrap();
        }
        content::import(&self.open(), name, source.path()).unwrap();
    }

    /// Lets every user of the machine change the databases, so that a server of any of them works.
    pub(crate) fn open_to_all(&self) {
        fs::set_permissions(&self.0, Permissions::from_mode(0o777)).unwrap();
        for name in super::bench::names(&self.0) {
            fs::set_permissions(self.0.join(name), Permissions::from_mode(0o666)).unwrap();
        }
    }

    /// The names of the databases, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.rows().into_iter().map(|database| database.name).collect();
        names.sort();
        names
    }

    fn find(&self, name: &str) -> Option<DatabaseRow> {
        self.rows().into_iter().find(|row| row.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    #[track_caller]
    pub(crate) fn row(&self, name: &str) -> DatabaseRow {
        self.find(name).unwrap_or_else(|| panic!("there is no database {name}"))
    }

    /// Removes a database, if it is there.
    pub(crate) fn remove(&self, name: &str) {
        if self.contains(name) {
            self.open().drop_database(name).unwrap();
        }
    }

    /// The files of a database: the data files, then the log.
    #[track_caller]
    pub(crate) fn files(&self, name: &str) -> Vec<PathBuf> {
        self.row(name).files.into_iter().map(|file| file.path).collect()
    }

    /// The options by which a backup of a database is restored as `target` beside it: its files have other names.
    #[track_caller]
    pub(crate) fn moves(&self, source: &str, target: &str) -> String {
        let moved = |file: &FileRow| {
            let extension = file.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            format!("MOVE '{}' TO '{target}-{}.{extension}'", file.logical_name, file.file_id)
        };
        self.row(source).files.iter().map(moved).collect::<Vec<_>>().join(", ")
    }

    /// A data file of a database, from 0.
    #[track_caller]
    pub(crate) fn data_file(&self, name: &str, index: usize) -> PathBuf {
        self.data_files(name)[index].1.clone()
    }

    #[track_caller]
    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        let row = self.row(name);
        row.files.into_iter().find(|file| file.file_type == FileType::Log).unwrap().path
    }

    fn data_files(&self, name: &str) -> Vec<(FileId, PathBuf)> {
        let files = self.row(name).files.into_iter().filter(|file| file.file_type != FileType::Log);
        files.map(|file| (file.file_id, file.path)).collect()
    }

    /// Bytes of the data files.
    #[track_caller]
    pub(crate) fn data_bytes(&self, name: &str) -> u64 {
        self.data_files(name).iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum()
    }

    /// The pages of a database that hold content.
    #[track_caller]
    pub(crate) fn pages(&self, name: &str) -> Pages {
        let mut pages = Pages::new();
        for (file, path) in self.data_files(name) {
            for (number, page) in (0..).zip(fs::read(path).unwrap().chunks_exact(PAGE)) {
                // The fixed pages of files of this size are in the first extents.
                let first = if file.0 == 1 { 16 } else { 8 };
                let header = PageHeader::decode(page).unwrap();
                if number >= first && header.page_type == page_type::DATA {
                    pages.insert((file.0, number), page.to_vec());
                }
            }
        }
        pages
    }

    /// The stamps of all pages with content, in the order of the pages; each page is whole and in its place.
    #[track_caller]
    pub(crate) fn stamps(&self, name: &str) -> Vec<Stamp> {
        stamps(&self.pages(name))
    }

    /// All pages are whole.
    #[track_caller]
    pub(crate) fn check(&self, name: &str) {
        content::check(&self.open(), name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Two databases have the same content, and all pages are whole. Their logs and fixed pages may differ: a checkpoint changes those.
    #[track_caller]
    pub(crate) fn assert_identical(&self, one: &str, other: &str) {
        let folder = self.open();
        let [first, second] =
            [one, other].map(|name| content::check(&folder, name).unwrap_or_else(|error| panic!("{name}: {error}")));
        assert_eq!(first, second);
        assert!(self.pages(one) == self.pages(other), "pages of {one} and {other} differ");
    }

    /// Two databases have the same pages, fixed ones too, and the same log: nothing has written to the first since the backup that the second
    /// was restored from.
    #[track_caller]
    pub(crate) fn assert_same(&self, one: &str, other: &str) {
        self.assert_identical(one, other);
        content::compare(&self.open(), one, other).unwrap_or_else(|error| panic!("{one} and {other} differ: {error}"));
    }

    /// All databases, to the last byte.
    pub(crate) fn images(&self) -> BTreeMap<String, Image> {
        let image = |row: DatabaseRow| {
            let files = row.files.iter().map(|file| (file.path.clone(), fs::read(&file.path).unwrap())).collect();
            (row.name.clone(), Image { row, files })
        };
        self.rows().into_iter().map(image).collect()
    }

    #[track_caller]
    pub(crate) fn image(&self, name: &str) -> Image {
        self.images().remove(name).unwrap_or_else(|| panic!("there is no database {name}"))
    }

    /// The contents of all databases: what a backup must not change.
    pub(crate) fn contents(&self) -> BTreeMap<String, Pages> {
        self.names().into_iter().map(|name| (name.clone(), self.pages(&name))).collect()
    }

    /// What lies in the data folder and is neither the catalog's nor a file of a database; and what the catalog knows of files that
    /// belong to no database. What killed processes left is still there.
    pub(crate) fn litter(&self) -> Vec<String> {
        let found = super::bench::names(&self.0);
        if found.is_empty() {
            return Vec::new();
        }
        let mut litter = self.pending();
        let known: Vec<PathBuf> = self.rows().into_iter().flat_map(|row| row.files).map(|file| file.path).collect();
        let in_use = self.is_in_use();
        let own = |name: &str| {
            [catalog::FILE_NAME, LOCK_FILE].contains(&name)
                || in_use && ["-wal", "-shm"].iter().any(|end| name.strip_suffix(end) == Some(catalog::FILE_NAME))
        };
        let after = super::bench::names(&self.0);
        for name in found {
            // The catalog's own files beside it may be gone since it was opened and closed.
            let beside = name.starts_with(catalog::FILE_NAME);
            if !own(&name) && !known.contains(&self.0.join(&name)) && (!beside || after.contains(&name)) {
                litter.push(name);
            }
        }
        litter
    }

    /// Files that the catalog knows, and that belong to no database.
    fn pending(&self) -> Vec<String> {
        let path = self.0.join(catalog::FILE_NAME);
        if !path.exists() {
            return Vec::new();
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let catalog = Connection::open_with_flags(path, flags).unwrap();
        let mut query = catalog.prepare("SELECT path FROM pending_file").unwrap();
        let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(|row| format!("{} (pending)", row.unwrap())).collect()
    }

    /// Whether a process has the catalog open.
    fn is_in_use(&self) -> bool {
        let path = self.0.join(catalog::FILE_NAME);
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path().join("fd")));
        let mut open = processes.filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        open.any(|descriptor| descriptor.is_ok_and(|link| fs::read_link(link.path()).is_ok_and(|to| to == path)))
    }

    /// Changes a byte of a page of a data file, from 0, so that its checksum is wrong. Gives the page's number.
    #[track_caller]
    pub(crate) fn damage(&self, name: &str, index: usize, page: u32) -> u32 {
        let file = OpenOptions::new().read(true).write(true).open(self.data_file(name, index)).unwrap();
        let (mut byte, at) = ([0], u64::from(page) * PAGE as u64 + 5000);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        page
    }

    /// The first page of a data file, from 0, that holds content.
    #[track_caller]
    pub(crate) fn first_page(&self, name: &str, index: usize) -> u32 {
        let file = self.data_files(name)[index].0;
        self.pages(name).into_keys().find(|(of, _)| *of == file.0).unwrap().1
    }

    /// Writes a page with content anew: the database has another state. Not for a database with a writer.
    #[track_caller]
    pub(crate) fn change(&self, name: &str, sequence: u64) {
        let (id, path) = self.data_files(name).remove(0);
        let number = self.first_page(name, 0);
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut page = [0; PAGE];
        let address = PageAddress { file: id, page: PageId(number) };
        file.read_exact_at(&mut page, address.file_offset()).unwrap();
        let lsn = PageHeader::decode(&page).unwrap().lsn;
        Stamp { page: address, sequence }.fill(lsn, &mut page);
        file.write_all_at(&page, address.file_offset()).unwrap();
    }
}

/// What a random database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Nothing: it was created.
    Nothing,
    /// So many bytes of stamped pages.
    Sample(u64),
    /// Files of a user: how many, and bytes of each at most.
    Files(usize, usize),
}

impl Holds {
    /// Something of at most so many bytes.
    pub(crate) fn random(random: &mut Rng, most: usize) -> Holds {
        match random.u8(..8) {
            0 => Holds::Nothing,
            1 => Holds::Sample(random.u64(1..2000)),
            2 => Holds::Sample(65536 * random.u64(1..8)),
            3 | 4 => Holds::Files(random.usize(1..=4), random.usize(..most / 4)),
            _ => Holds::Sample(random.u64(1..most as u64)),
        }
    }

    /// The options by which a backup of it, called `source`, is restored as `target` beside it.
    pub(crate) fn moves(self, source: &str, target: &str) -> String {
        match self {
            Holds::Sample(_) => moves(source, target),
            Holds::Nothing | Holds::Files(..) => {
                format!("MOVE '{source}' TO '{target}.mdf', MOVE '{source}_log' TO '{target}_log.ldf'")
            }
        }
    }
}

impl Databases {
    /// Makes a database, in place of one of the same name. The same seed gives the same content.
    pub(crate) fn make(&self, name: &str, holds: Holds, seed: u64) {
        self.remove(name);
        match holds {
            Holds::Nothing => self.create_empty(name),
            Holds::Sample(bytes) => self.create(name, bytes, seed),
            Holds::Files(count, most) => {
                let mut random = Rng::with_seed(seed);
                let mut file = |_| {
                    let mut bytes = vec![0; random.usize(..=most)];
                    random.fill(&mut bytes);
                    bytes
                };
                self.import(name, &(0..count).map(&mut file).collect::<Vec<_>>());
            }
        }
    }

    /// Makes a database without content, of the least size.
    pub(crate) fn create_empty(&self, name: &str) {
        self.create_empty_in(name, name);
    }

    /// The same with names of files that begin so.
    pub(crate) fn create_empty_in(&self, name: &str, files: &str) {
        let file = |logical_name: String, path: String| NewFile {
            logical_name,
            path: path.into(),
            size: 1 << 20,
            filegroup: "PRIMARY".to_owned(),
            growth: 1 << 20,
            is_percent_growth: false,
            max_size: None,
        };
        let request = CreateDatabase {
            name: name.to_owned(),
            data_files: vec![file(name.to_owned(), format!("{files}.mdf"))],
            log_file: Some(file(format!("{name}_log"), format!("{files}_log.ldf"))),
            recovery_model: RecoveryModel::Simple,
        };
        self.open().create_database(&request).unwrap();
    }
}

/// The stamps of pages; each is whole and in its place.
#[track_caller]
pub(crate) fn stamps(pages: &Pages) -> Vec<Stamp> {
    let read = |(&(file, number), page): (&(u16, u32), &Vec<u8>)| {
        let page: &[u8; PAGE] = page.as_slice().try_into().unwrap();
        let stamp = Stamp::read(page).unwrap_or_else(|| panic!("page {file}:{number} is torn"));
        assert_eq!(stamp.page, PageAddress { file: FileId(file), page: PageId(number) });
        stamp
    };
    pages.iter().map(read).collect()
}

/// Copies files of a database durably enough for a test: each is overwritten in its place if it is there.
pub(crate) fn copy_files<'a>(files: impl IntoIterator<Item = (&'a Path, &'a Path)>) {
    for (from, to) in files {
        let bytes = fs::read(from).unwrap();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(to).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    }
}

/// Sets the length of a file.
#[track_caller]
pub(crate) fn set_len(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}
