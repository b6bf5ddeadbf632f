//! The limits of the machine: two processes that spin on a word each, and a ring of nothing but two counters.

use std::hint::spin_loop;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use vdi_shm::ipc::segment::Shared;

use super::memory::{LINE, Memory};
use super::{Answer, Ask, DEPTH, Give, Take, Words, sum};
use crate::processes::{Fallible, Start};

/// The word that the driver writes, and the word that the peer writes.
const THERE: usize = 0;
const BACK: usize = LINE;

type Counters = Shared<[AtomicU64; 2 * LINE]>;

// --- ping-pong --------------------------------------------------------------------------------------------------------

struct PingPong {
    words: Counters,
    last: u64,
}

impl Ask for PingPong {
    #[inline]
    fn ask(&mut self, [value, ..]: Words) -> Words {
        self.words[THERE].store(value, Ordering::Release);
        while self.words[BACK].load(Ordering::Acquire) != value {
            spin_loop();
        }
        [value; 4]
    }
}

impl Answer for PingPong {
    #[inline]
    fn answer(&mut self) -> Words {
        loop {
            let value = self.words[THERE].load(Ordering::Acquire);
            if value != self.last {
                self.words[BACK].store(value, Ordering::Release);
                self.last = value;
                return [value; 4];
            }
            spin_loop();
        }
    }
}

pub(crate) fn drive_ping_pong(dir: &Path) -> Fallible<()> {
    let (memory, path) = Memory::create(0, 0)?;
    let peer = Start::new("ping-pong-peer", dir).with(path).start()?;
    super::drive_records(PingPong { words: memory.counters()?, last: 0 }, peer)
}

pub(crate) fn ping_pong_peer(path: &Path) -> Fallible<()> {
    super::answer_records(PingPong { words: Memory::attach(path, 0)?.counters()?, last: 0 })
}

// --- ring -------------------------------------------------------------------------------------------------------------

struct Ring {
    memory: Memory,
    words: Counters,
    done: u64,
}

impl Ring {
    fn new(memory: Memory) -> Fallible<Ring> {
        Ok(Ring { words: memory.counters()?, memory, done: 0 })
    }
}

impl Give for Ring {
    #[inline]
    fn give(&mut self, chunk: &[u8]) {
        while self.done - self.words[BACK].load(Ordering::Acquire) >= DEPTH as u64 {
            spin_loop();
        }
        // SAFETY: the peer has summed the buffer's previous chunk, and does not read the buffer before THERE is increased.
        unsafe { self.memory.buffer_mut(self.done as usize % DEPTH) }.copy_from_slice(chunk);
        self.done += 1;
        self.words[THERE].store(self.done, Ordering::Release);
    }
}

impl Take for Ring {
    #[inline]
    fn take(&mut self) -> u64 {
        while self.words[THERE].load(Ordering::Acquire) == self.done {
            spin_loop();
        }
        // SAFETY: the driver has written this chunk, and does not write the buffer again before BACK is increased.
        let sum = sum(unsafe { self.memory.buffer(self.done as usize % DEPTH) });
        self.done += 1;
        self.words[BACK].store(self.done, Ordering::Release);
        sum
    }
}

pub(crate) fn drive_ring(dir: &Path, size: usize) -> Fallible<()> {
    let (memory, path) = Memory::create(DEPTH, size)?;
    let peer = Start::new("ring-peer", dir).with(path).with(size.to_string()).start()?;
    super::drive_data(Ring::new(memory)?, peer, size)
}

pub(crate) fn ring_peer(path: &Path, size: usize) -> Fallible<()> {
    super::take_data(Ring::new(Memory::attach(path, size)?)?)
}
