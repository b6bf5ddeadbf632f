//! Locks on targets: one medium at a time writes to a name in a directory.
//!
//! A backup takes its target's place by a rename, so what is to be locked is the name and not the file that it leads to at present,
//! if there is one at all. The lock is a byte of the *directory*, at the offset that the name's hash gives, held by an open file
//! description (`F_OFD_SETLK`). It needs no file, the system drops it when the process dies, and two media of one process exclude
//! each other like those of two. Symbolic links are resolved before. Another hard link of a file is another name.
//!
//! A directory cannot be opened for writing, which an exclusive lock would need. So each medium takes a shared lock, and then tests
//! whether another medium has one there. Two that begin at the same moment see each other: both let go, and try again after pauses of
//! different lengths.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

/// How often a lock is tried for, and the longest pause between two tries.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// A name in a directory that no other medium writes to. Where the file system knows no such locks, it locks nothing.
#[derive(Debug)]
pub(super) struct TargetLock {
    /// An open file description of its own, to which the lock belongs.
    directory: File,
    offset: libc::off_t,
}

impl TargetLock {
    /// Locks a name; `None` if another medium, of this process or of another, has it.
    pub(super) fn acquire(directory: &File, name: &OsStr) -> io::Result<Option<TargetLock>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = File::from(retry_on_intr(|| rustix::fs::openat(directory, ".", flags, Mode::empty()))?);
        let lock = TargetLock { directory: own, offset: offset(name) };
        for _ in 0..TRIES {
            match lock.take() {
                Err(Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(Some(lock)),
                Err(error) => return Err(error.into()),
                Ok(true) => return Ok(Some(lock)),
                Ok(false) => {
                    let _ = lock.set(libc::F_UNLCK);
                    std::thread::sleep(PAUSE.mul_f64((RandomState::new().hash_one(0) % 1000) as f64 / 1000.0));
                }
            }
        }
        Ok(None)
    }

    /// Takes a shared lock; whether it is the only one.
    fn take(&self) -> Result<bool, Errno> {
        self.set(libc::F_RDLCK)?;
        let mut found = self.byte(libc::F_WRLCK);
        fcntl(&self.directory, FcntlArg::F_OFD_GETLK(&mut found)).map_err(to_rustix)?;
        Ok(i32::from(found.l_type) == libc::F_UNLCK)
    }

    fn set(&self, kind: i32) -> Result<(), Errno> {
        fcntl(&self.directory, FcntlArg::F_OFD_SETLK(&self.byte(kind))).map(drop).map_err(to_rustix)
    }

    fn byte(&self, kind: i32) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.offset,
            l_len: 1,
            l_pid: 0,
        }
    }
}

impl Drop for TargetLock {
    /// A process that is being started may have a copy of the descriptor for a moment: closing this one would not be enough.
    fn drop(&mut self) {
        let _ = self.set(libc::F_UNLCK);
    }
}

fn to_rustix(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// The byte of a name: FNV-1a, which is the same in every process. It stays below the largest offset.
fn offset(name: &OsStr) -> libc::off_t {
    let hash = name
        .as_bytes()
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    (hash >> 2) as libc::off_t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(directory: &File, name: &str) -> Option<TargetLock> {
        TargetLock::acquire(directory, OsStr::new(name)).unwrap()
    }

    #[test]
    fn a_name_is_locked_once_and_others_are_free() {
        let place = tempfile::tempdir().unwrap();
        let (one, other) = (File::open(place.path()).unwrap(), File::open(place.path()).unwrap());
        let locked = acquire(&one, "a.bak").unwrap();
        assert!(acquire(&one, "a.bak").is_none() && acquire(&other, "a.bak").is_none());
        assert!(acquire(&other, "b.bak").is_some());
        // A copy of the descriptor, as a process that is being started has one, does not keep the lock.
        let copy = locked.directory.try_clone().unwrap();
        drop(locked);
        assert!(acquire(&other, "a.bak").is_some());
        drop(copy);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_many_at_once_one_gets_the_lock() {
        let place = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(4);
        for _ in 0..50 {
            let locks: Vec<_> = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let directory = File::open(place.path()).unwrap();
                            barrier.wait();
                            acquire(&directory, "a.bak")
                        })
                    })
                    .collect();
                tries.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(locks.len(), 1);
        }
    }
}
