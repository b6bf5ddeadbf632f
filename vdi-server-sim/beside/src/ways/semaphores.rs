//! POSIX semaphores around shared memory, as the vendor's library for Linux is built: who waits sleeps.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use vdi_beside::processes::{Fallible, Start};
use vdi_beside::set::{DEPTH, sum};
use vdi_shm::segment::Shared;

use super::memory::{LINE, Memory};
use super::{Answer, Ask, Give, Take, Words};

/// Two semaphores in shared memory; each side posts one and waits for the other.
struct Pair {
    memory: Memory,
    words: Shared<[AtomicU64; 4096]>,
    post: NonNull<libc::sem_t>,
    wait: NonNull<libc::sem_t>,
    done: usize,
}

impl Pair {
    /// The driver's ends; so many chunks may be given before the peer has taken one.
    fn create(count: usize, size: usize) -> Fallible<(Pair, std::path::PathBuf)> {
        let (memory, path) = Memory::create(count, size)?;
        let pair = Pair::over(memory, 0, 1)?;
        for (semaphore, value) in [(pair.post, 0), (pair.wait, count as u32)] {
            // SAFETY: the place is memory of the mapping that nothing else uses, aligned for it, and nobody knows it yet.
            if unsafe { libc::sem_init(semaphore.as_ptr(), 1, value) } != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        Ok((pair, path))
    }

    /// The peer's ends.
    fn attach(path: &Path, size: usize) -> Fallible<Pair> {
        Pair::over(Memory::attach(path, size)?, 1, 0)
    }

    fn over(memory: Memory, post: usize, wait: usize) -> Fallible<Pair> {
        let place = |index: usize| {
            // SAFETY: a page has room for two cache lines.
            unsafe { memory.free_page().add(index * 64) }.cast()
        };
        Ok(Pair { post: place(post), wait: place(wait), words: memory.words()?, memory, done: 0 })
    }

    #[inline]
    fn post(&self) {
        // SAFETY: `create` has made a semaphore there, and the mapping lives as long as `self`.
        let result = unsafe { libc::sem_post(self.post.as_ptr()) };
        assert_eq!(result, 0, "sem_post: {}", std::io::Error::last_os_error());
    }

    #[inline]
    fn wait(&self) {
        // SAFETY: as for `post`.
        while unsafe { libc::sem_wait(self.wait.as_ptr()) } != 0 {
            // Interrupted by a signal.
        }
    }

    fn write(&self, at: usize, record: Words) {
        self.words[at..].iter().zip(record).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    }

    fn read(&self, at: usize) -> Words {
        std::array::from_fn(|index| self.words[at + index].load(Ordering::Relaxed))
    }
}

impl Ask for Pair {
    #[inline]
    fn ask(&mut self, record: Words) -> Words {
        self.write(0, record);
        self.post();
        self.wait();
        self.read(LINE)
    }
}

impl Answer for Pair {
    #[inline]
    fn answer(&mut self) -> Words {
        self.wait();
        let record = self.read(0);
        self.write(LINE, record);
        self.post();
        record
    }
}

impl Give for Pair {
    #[inline]
    fn give(&mut self, chunk: &[u8]) {
        self.wait();
        // SAFETY: the peer has posted for this buffer, so it is done with it, and waits for this side's post before it looks.
        unsafe { self.memory.buffer_mut(self.done % DEPTH) }.copy_from_slice(chunk);
        self.done += 1;
        self.post();
    }
}

impl Take for Pair {
    #[inline]
    fn take(&mut self) -> u64 {
        self.wait();
        // SAFETY: the driver has posted for this buffer, and waits for this side's post before it writes there again.
        let sum = sum(unsafe { self.memory.buffer(self.done % DEPTH) });
        self.done += 1;
        self.post();
        sum
    }
}

pub(crate) fn drive_records(dir: &Path, pause: std::time::Duration) -> Fallible<()> {
    let (pair, path) = Pair::create(0, 0)?;
    let peer = Start::new("semaphores-peer", dir).with(path).start()?;
    super::drive_records(pair, peer, pause)
}

pub(crate) fn records_peer(path: &Path) -> Fallible<()> {
    super::answer_records(Pair::attach(path, 0)?)
}

pub(crate) fn drive_data(dir: &Path, size: usize) -> Fallible<()> {
    let (pair, path) = Pair::create(DEPTH, size)?;
    let peer = Start::new("semaphores-data-peer", dir).with(path).with(size.to_string()).start()?;
    super::drive_data(pair, peer, size)
}

pub(crate) fn data_peer(path: &Path, size: usize) -> Fallible<()> {
    super::take_data(Pair::attach(path, size)?)
}
