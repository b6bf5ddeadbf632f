//! What killed processes left behind under hidden names, and its removal.
//!
//! A file or directory that has a hidden name, or may get one, is locked (`flock`) by the process that works on it. The system
//! drops the lock when the process dies. So what has such a name and can be locked is a leftover. The next process that creates
//! the same target removes it. Where the file system knows no locks nothing is removed.
//!
//! Between getting its name and being locked a new file looks like a leftover. Its maker checks after locking that it is still
//! there, and makes another one if not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::places::{hidden_prefix, sync_if_possible};

/// Digits at the end of a hidden name.
const DIGITS: usize = 16;

/// Locks a new file or directory.
pub(super) fn lock(file: &File) -> bool {
    let locked = retry_on_intr(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive));
    // Where there are no locks, nothing is removed.
    locked != Err(Errno::WOULDBLOCK)
}

/// Locks what was just made under a hidden name; false if another process took it for a leftover.
pub(super) fn lock_named(directory: &File, name: &OsStr, made: &File) -> bool {
    lock(made) && rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Removes files that were left behind for this target. What cannot be removed stays: it costs space, but must not stop a backup.
pub(super) fn remove_files(directory: &File, target: &OsStr) {
    for name in left_behind(directory, target) {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(_file) =
            take(directory, &name, flags).filter(|file| file.metadata().is_ok_and(|found| found.is_file()))
        else {
            continue;
        };
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::empty());
    }
}

/// Removes directories that were left behind for this target, by `remove`.
pub(super) fn remove_directories(directory: &File, target: &OsStr, remove: impl Fn(OsString, File)) {
    let found = left_behind(directory, target);
    // One of them may be an old set, whose place the new one has taken, but not durably so before this.
    if found.is_empty() || sync_if_possible(directory).is_err() {
        return;
    }
    for name in found {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(left) = take(directory, &name, flags) else { continue };
        // Another process may have put the old set under this name since then: once more, and only what was locked.
        if sync_if_possible(directory).is_ok() && is_still(directory, &name, &left) {
            remove(name, left);
        }
    }
}

/// Whether a name still leads to what was opened by it.
fn is_still(directory: &File, name: &OsStr, opened: &File) -> bool {
    match (rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW), rustix::fs::fstat(opened)) {
        (Ok(there), Ok(own)) => (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino),
        _ => false,
    }
}

/// Opens and locks something that was left behind.
fn take(directory: &File, name: &OsStr, flags: OFlags) -> Option<File> {
    let file = File::from(retry_on_intr(|| rustix::fs::openat(directory, name, flags, Mode::empty())).ok()?);
    retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)).ok()?;
    Some(file)
}

/// The hidden names for this target.
fn left_behind(directory: &File, target: &OsStr) -> Vec<OsString> {
    let prefix = hidden_prefix(target);
    let is_one = |name: &[u8]| {
        let digits = name.strip_prefix(&*prefix).unwrap_or_default();
        digits.len() == DIGITS && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    let names = || -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A directory of its own: reading moves its position.
        let again = retry_on_intr(|| rustix::fs::openat(directory, ".", flags, Mode::empty()))?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(again)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if is_one(&name) {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    };
    names().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hidden_names_of_the_same_target_are_taken() {
        let place = tempfile::tempdir().unwrap();
        let hidden = format!(".a.bak.vdi-partial-{:016x}", 7);
        let others = [
            "a.bak".to_owned(),
            format!(".b.bak.vdi-partial-{:016x}", 7),
            ".a.bak.vdi-partial-7".to_owned(),
            format!(".a.bak.vdi-partial-{:016X}", 0xABC),
            format!(".a.bak.vdi-partial-{:016x}.old", 7),
        ];
        for name in others.iter().chain([&hidden]) {
            std::fs::write(place.path().join(name), b"x").unwrap();
        }
        let directory = File::open(place.path()).unwrap();
        assert_eq!(left_behind(&directory, OsStr::new("a.bak")), [OsStr::new(&hidden)]);

        // Not while a process works on it.
        let at_work = File::open(place.path().join(&hidden)).unwrap();
        assert!(lock_named(&directory, OsStr::new(&hidden), &at_work));
        remove_files(&directory, OsStr::new("a.bak"));
        assert!(place.path().join(&hidden).exists());
        drop(at_work);
        remove_files(&directory, OsStr::new("a.bak"));
        assert!(!place.path().join(&hidden).exists());
        assert!(others.iter().all(|name| place.path().join(name).exists()));
    }

    #[test]
    fn what_was_taken_away_before_it_was_locked_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        let name = OsStr::new("made");
        let made = File::create(place.path().join(name)).unwrap();
        std::fs::remove_file(place.path().join(name)).unwrap();
        assert!(!lock_named(&directory, name, &made));
    }
}
