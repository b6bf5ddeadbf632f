//! What may be meant where nothing listens under a name: similar names, and other runtime directories.
//!
//! # Invariants
//!
//! 1. *These are hints for a message.* Nothing is trusted, created or changed for them, and no failure is reported.
//! 2. *Only sockets on which a process listens are named.* To find that out, a connection is made and closed at once.
//! 3. *The work is bounded*: [`MAX_ENTRIES`] entries of a directory are read, [`MAX_PROBES`] sockets are connected to, and
//!    [`MAX_FOUND`] near misses are returned.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::options::variable;
use super::trust::open_directory;
use super::{DirError, Options, RuntimeDir, SocketName, own_uid, socket_name};

/// The most near misses that are returned.
const MAX_FOUND: usize = 3;

/// The most entries of a directory that are read.
const MAX_ENTRIES: usize = 1000;

/// The most sockets of one directory that are connected to.
const MAX_PROBES: usize = 16;

/// What may be meant where nothing listens under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NearMiss {
    /// A process listens in the same directory under the same name in another namespace, or under a name that differs in the
    /// case of letters, in blanks around it, or in braces.
    Similar(SocketName),
    /// A process listens under this name in another runtime directory.
    Elsewhere {
        /// The directory: a default one, of this user or of another.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The default runtime directory of another user, which this user may not look into.
    Closed {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
}

/// The near misses of a name on which nothing listens, the best ones first.
#[must_use]
pub fn near_misses(options: &Options, name: &SocketName) -> Vec<NearMiss> {
    let used = options.runtime_dir();
    let (mut found, mut closed) = (Vec::new(), Vec::new());
    for (path, owner) in default_directories() {
        let Ok(stat) = std::fs::symlink_metadata(&path) else { continue };
        let is_used = std::fs::metadata(&used).is_ok_and(|used| (used.dev(), used.ino()) == (stat.dev(), stat.ino()));
        // One that is named for a user and is another's is not that user's.
        if !stat.is_dir() || stat.uid() != owner || is_used {
            continue;
        }
        match look_into(&path) {
            Ok(dir) if dir.listens(&name.file) => found.push(NearMiss::Elsewhere { path, owner }),
            Err(DirError::Untrusted(_)) => closed.push(NearMiss::Closed { path, owner, mode: stat.mode() & 0o7777 }),
            _ => {}
        }
    }
    if let Ok(dir) = look_into(&used) {
        found.extend(dir.similar(name).into_iter().map(NearMiss::Similar));
    }
    found.extend(closed);
    found.truncate(MAX_FOUND);
    found
}

/// A directory that is only read. It need not be trusted.
fn look_into(path: &Path) -> Result<RuntimeDir, DirError> {
    Ok(RuntimeDir { path: path.to_owned(), dir: open_directory(path)?, threads: Mutex::default() })
}

/// The default runtime directories of this user and of others, each with the user that it is named for, in the order of the
/// paths.
fn default_directories() -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    if let Some(own) = variable("XDG_RUNTIME_DIR") {
        found.push((own.join("vdi"), own_uid()));
    }
    // What XDG_RUNTIME_DIR is where a user has logged in. A program that a service or sudo starts does not have the variable.
    let logged_in = Path::new("/run/user");
    let users = numbered(logged_in, "").into_iter().map(|(path, uid)| (path.join("vdi"), uid));
    found.extend(users);
    found.extend(numbered(&std::env::temp_dir(), "vdi-"));
    found.sort();
    found.dedup();
    found
}

/// The entries of a directory that are called `prefix` and a number.
fn numbered(path: &Path, prefix: &str) -> Vec<(PathBuf, u32)> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let number = |file: &std::ffi::OsStr| file.to_str()?.strip_prefix(prefix)?.parse().ok();
    entries.take(MAX_ENTRIES).flatten().filter_map(|entry| Some((entry.path(), number(&entry.file_name())?))).collect()
}

impl RuntimeDir {
    /// Whether a process listens on a file.
    fn listens(&self, file: &str) -> bool {
        self.open_file(file).is_ok_and(|found| self.is_live(&found, file) == Some(true))
    }

    /// The similar names on which processes listen.
    fn similar(&self, name: &SocketName) -> Vec<SocketName> {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.dir) else { return Vec::new() };
        let files = entries.take(MAX_ENTRIES).flatten();
        let mut similar: Vec<_> = files
            .filter_map(|entry| similar_name(entry.file_name().to_str().ok()?, name))
            .take(MAX_PROBES)
            .filter(|found| self.listens(&found.file))
            .collect();
        similar.sort_by(|one, other| one.file.cmp(&other.file));
        similar
    }
}

/// The name that a file was made for, where it is similar to this one and not the same.
fn similar_name(file: &str, name: &SocketName) -> Option<SocketName> {
    if file == name.file {
        return None;
    }
    if let Some(found) = SocketName::of_file(file) {
        return Some(found).filter(|found| folded(found.name()) == folded(name.name()));
    }
    // Only the beginning of the name is there. Its hash tells whether the rest is as it is here.
    let (beginning, namespace) = socket_name::parts(file)?;
    let rest = name.name().chars().skip(beginning.chars().count()).collect::<String>();
    let guesses =
        [name.name(), name.name().trim(), &(beginning + &rest)].map(|guess| SocketName::new(&namespace, guess));
    guesses.into_iter().find(|guess| guess.file == file)
}

/// What similar names have in common.
fn folded(name: &str) -> String {
    name.trim_matches(|character: char| character.is_whitespace() || "{}".contains(character)).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_names_are_similar() {
        const GUID: &str = "{0F8FAD5B-D9CB-469F-A165-70867728950E}";
        let long = "backup-of-the-database-".repeat(4);
        let bare = &GUID[1..37];
        for ((namespace, name), (found_namespace, found), similar) in [
            (("", "nightly"), ("", "Nightly"), true),
            (("", "nightly"), ("SQL2", "nightly"), true),
            (("SQL2", "nightly"), ("", "NIGHTLY"), true),
            (("", GUID), ("", bare), true),
            (("", bare), ("", GUID), true),
            (("", bare), ("", &*format!(" {{{}}} ", bare.to_lowercase())), true),
            (("", "Größe"), ("", "größe"), true),
            (("", &*long), ("SQL2", &*long), true),
            // The file does not tell the end of the name, which is another one.
            (("", &*long), ("", &*long.to_uppercase()), false),
            (("", &*long), ("", &*long.replacen("backup", "Backup", 1)), true),
            (("", "nightly"), ("", "nightly"), false),
            (("", "nightly"), ("", "nightly2"), false),
            (("", "nightly"), ("", "weekly"), false),
            (("", &*long), ("", &*format!("{long}2")), false),
        ] {
            let (name, there) = (SocketName::new(namespace, name), SocketName::new(found_namespace, found));
            let expected = similar.then(|| there.clone());
            assert_eq!(similar_name(&there.file, &name), expected, "{name:?}, {there:?}");
        }
        for file in ["notes.txt", "-.vdi", "nightly.vdi", "%zz-9894f0eda2ce54f8.vdi", "Nightly-9894f0eda2ce54f8.vdi"] {
            assert_eq!(similar_name(file, &SocketName::new("", "nightly")), None, "{file}");
        }
    }
}
