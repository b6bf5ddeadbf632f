//! A place to work in, and the check that nothing stays behind there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use vdi_client::Options;

use super::databases::{Databases, Image, Pages};
use super::eventually;

/// Tests of one process that have a bench take turns: each counts the process's descriptors, mappings and threads.
static TURN: Mutex<()> = Mutex::new(());

/// What sets and statements could leave behind in this process. Tests without a bench run beside one, so pipes and files of
/// theirs are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Census {
    /// Sockets, shared memory, event and process descriptors, and whatever lies below the bench's folder.
    descriptors: usize,
    /// Mappings of sets.
    mappings: usize,
    /// Threads of sets.
    threads: usize,
}

impl Census {
    fn take(root: &Path) -> Census {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let open = open.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
        let kinds = ["socket:", "anon_inode:", "/memfd:vdi-"];
        let counts = |target: &PathBuf| {
            let text = target.to_string_lossy();
            target.starts_with(root) || kinds.iter().any(|kind| text.starts_with(kind))
        };
        Census {
            descriptors: open.filter(counts).count(),
            mappings: fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:vdi-").count(),
            threads: names.filter(|name| name.starts_with("vdi-")).count(),
        }
    }

    fn exceeds(&self, before: &Census) -> bool {
        self.descriptors > before.descriptors || self.mappings > before.mappings || self.threads > before.threads
    }
}

/// A test's own runtime directory, data folder and output folder. Declare it before everything else: when it is dropped,
/// nothing may be left of the rest.
pub(crate) struct Bench {
    before: Census,
    root: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tempfile::Builder::new().prefix("vdi-test-").tempdir().unwrap();
        let before = Census::take(root.path());
        for folder in ["run", "data", "out"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Bench { before, root, _turn: turn }
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.root.path().join("run")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    pub(crate) fn options(&self) -> Options {
        Options { runtime_dir: Some(self.runtime()), ..Options::default() }
    }

    /// The databases of the data folder.
    pub(crate) fn databases(&self) -> Databases {
        Databases(self.data())
    }

    /// Makes a sample database.
    #[track_caller]
    pub(crate) fn database(&self, name: &str, bytes: u64) {
        self.databases().create(name, bytes, 7);
    }

    /// Makes the sample database that a restore replaces, or would replace: another one than [`Bench::database`] makes.
    #[track_caller]
    pub(crate) fn old_database(&self, name: &str) {
        self.databases().remove(name);
        self.databases().create(name, 100_000, 9);
    }

    /// Removes a database, if it is there.
    pub(crate) fn drop_database(&self, name: &str) {
        self.databases().remove(name);
    }

    /// All databases to the last byte: what a restore that fails must not change.
    pub(crate) fn images(&self) -> BTreeMap<String, Image> {
        self.databases().images()
    }

    /// The pages with content of a database.
    #[track_caller]
    pub(crate) fn pages(&self, name: &str) -> Pages {
        self.databases().pages(name)
    }

    /// Two databases have the same content, and all pages are whole.
    #[track_caller]
    pub(crate) fn assert_identical(&self, one: &str, other: &str) {
        self.databases().assert_identical(one, other);
    }

    /// The output folder holds these files and nothing else, hidden or not.
    #[track_caller]
    pub(crate) fn assert_output(&self, expected: &[&str]) {
        let mut expected: Vec<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        assert_eq!(names(&self.out()), expected, "the output folder");
    }

    /// There are these databases, and nothing else is in the data folder: neither a file that belongs to none of them, nor a row of
    /// one.
    #[track_caller]
    pub(crate) fn assert_databases(&self, expected: &[&str]) {
        assert_eq!(self.databases().litter(), Vec::<String>::new(), "the data folder");
        let mut expected: Vec<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        assert_eq!(self.databases().names(), expected, "the databases");
    }

    /// What is wrong with a bench where all work is said to be over.
    fn leftovers(&self) -> Result<(), String> {
        let processes = processes_of(&self.runtime());
        if !processes.is_empty() {
            return Err(format!("these processes live on: {processes:?}"));
        }
        let sockets = names(&self.runtime());
        if !sockets.is_empty() {
            return Err(format!("the runtime directory holds {sockets:?}"));
        }
        if let Some(hidden) = names(&self.out()).into_iter().find(|name| name.starts_with('.')) {
            return Err(format!("{} holds {hidden}", self.out().display()));
        }
        let litter = self.databases().litter();
        if !litter.is_empty() {
            return Err(format!("{} holds {litter:?}", self.data().display()));
        }
        let now = Census::take(self.root.path());
        if now.exceeds(&self.before) {
            return Err(format!("this process has {now:?}, and had {:?} before", self.before));
        }
        Ok(())
    }

    /// Nothing is left of the work so far: no process, socket, descriptor, mapping, or hidden file.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        eventually("nothing stays behind", || self.leftovers());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_left();
        }
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All files below a folder with their bytes; folders count as files of no bytes.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_dir() {
                walk(root, &path, found);
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// The processes that were started for this runtime directory: children, and their children.
fn processes_of(runtime: &Path) -> Vec<u32> {
    let mark = format!("VDI_RUNTIME_DIR={}", runtime.display());
    let belongs = |pid: &u32| {
        // A process that is gone, or gone but not yet waited for, has no environment.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(belongs)
        .collect()
}
