//! The limit of a BACKUP: threads that read the files into buffers that another process counts, and nothing else of a backup. Each
//! thread has buffers of its own, which it fills in turn; whoever waits sleeps, so that the CPUs are there for reading.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::thread::futex::{self, Flags};
use vdi_beside::processes::{Fallible, Start, on_demand, rounds, tell};
use vdi_server_sim::stream::Checksum;
use vdi_shm::segment::Shared;

use crate::backup::{BLOCK, files};
use crate::ways::memory::Memory;

/// As many as a BACKUP to one device has, by default.
const BUFFERS: usize = 4;
const READERS: usize = 2;
/// Buffers of a reader.
const OWN: usize = BUFFERS / READERS;

/// What the two processes tell each other.
struct Counters {
    words: Shared<[AtomicU32; 32]>,
    lengths: Shared<[AtomicU64; 4096]>,
}

impl Counters {
    fn of(memory: &Memory) -> Fallible<Counters> {
        Ok(Counters { words: memory.small_words()?, lengths: memory.words()? })
    }

    /// Changes whenever a reader has given something.
    fn bell(&self) -> &AtomicU32 {
        &self.words[0]
    }

    /// Buffers that a reader has given.
    fn given(&self, reader: usize) -> &AtomicU32 {
        &self.words[8 * (1 + reader)]
    }

    /// Buffers of a reader that the peer has counted.
    fn taken(&self, reader: usize) -> &AtomicU32 {
        &self.words[8 * (1 + reader) + 4]
    }

    /// Sleeps until at most `most` of a reader's buffers are the peer's.
    fn wait(&self, reader: usize, most: u32) {
        loop {
            let taken = self.taken(reader).load(Ordering::Acquire);
            if self.given(reader).load(Ordering::Relaxed).wrapping_sub(taken) <= most {
                return;
            }
            let _ = futex::wait(self.taken(reader), Flags::empty(), taken, None);
        }
    }
}

/// Changes a word and wakes whoever sleeps on it.
fn count(word: &AtomicU32) {
    word.fetch_add(1, Ordering::Release);
    let _ = futex::wake(word, Flags::empty(), 1);
}

/// Reads the files once in each operation, with a checksum of each byte or without.
pub(crate) fn drive(dir: &Path, data: &Path, summed: bool) -> Fallible<()> {
    let (_memory, path) = Memory::create(BUFFERS, BLOCK)?;
    let mut peer = Start::new("bare-backup-peer", dir).with(&path).start()?;
    // The same memory, once for each reader, so that each writes into its own.
    let mut own = (0..READERS).map(|_| Memory::attach(&path, BLOCK)).collect::<Fallible<Vec<_>>>()?;
    let (paths, bytes) = files(data)?;
    rounds(|times| {
        let started = Instant::now();
        for _ in 0..times {
            peer.say(&bytes.to_string())?;
            let mut pieces = Vec::new();
            for path in &paths {
                let (file, mut at) = (Arc::new(File::open(path)?), 0);
                let size = file.metadata()?.len();
                while at < size {
                    let length = (size - at).min(BLOCK as u64);
                    pieces.push((file.clone(), at, length as usize));
                    at += length;
                }
            }
            let (pieces, next) = (&pieces, &AtomicUsize::new(0));
            std::thread::scope(|scope| -> Fallible<()> {
                let readers: Vec<_> = own
                    .iter_mut()
                    .enumerate()
                    .map(|(reader, memory)| {
                        scope.spawn(move || -> Fallible<()> {
                            let counters = Counters::of(memory)?;
                            while let Some((file, at, length)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                                counters.wait(reader, OWN as u32 - 1);
                                let buffer =
                                    reader * OWN + counters.given(reader).load(Ordering::Relaxed) as usize % OWN;
                                // SAFETY: the buffer is this reader's, and the peer has counted what was in it.
                                let piece = &mut unsafe { memory.buffer_mut(buffer) }[..*length];
                                file.read_exact_at(piece, *at)?;
                                if summed {
                                    black_box(Checksum::Crc32.of(piece));
                                }
                                counters.lengths[buffer].store(*length as u64, Ordering::Relaxed);
                                count(counters.given(reader));
                                count(counters.bell());
                            }
                            counters.wait(reader, 0);
                            Ok(())
                        })
                    })
                    .collect();
                readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| "a reader panicked")?)
            })?;
            peer.hear()?;
        }
        Ok(started.elapsed())
    })?;
    peer.end()
}

/// Counts as many bytes as it is told.
pub(crate) fn peer(path: &Path) -> Fallible<()> {
    let counters = Counters::of(&Memory::attach(path, BLOCK)?)?;
    on_demand(|line| {
        let mut left: u64 = line.parse()?;
        while left > 0 {
            let bell = counters.bell().load(Ordering::Acquire);
            let before = left;
            for reader in 0..READERS {
                let taken = counters.taken(reader).load(Ordering::Relaxed);
                if counters.given(reader).load(Ordering::Acquire) != taken {
                    left -= counters.lengths[reader * OWN + taken as usize % OWN].load(Ordering::Relaxed);
                    count(counters.taken(reader));
                }
            }
            if left == before {
                let _ = futex::wait(counters.bell(), Flags::empty(), bell, None);
            }
        }
        tell("counted")
    })
}
