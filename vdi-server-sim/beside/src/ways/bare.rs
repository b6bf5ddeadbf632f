//! The limits: two processes that spin on two words, a ring of nothing but two counters, and those that sleep on futexes.

use std::hint::spin_loop;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::thread::futex;
use vdi_beside::processes::{Fallible, Start, rounds};
use vdi_beside::set::{DEPTH, sum};
use vdi_proto::seal::{Ring as RingOf, Seals};
use vdi_shm::ring::{Consumer, Producer, RingMemory};
use vdi_shm::segment::Shared;

use super::memory::{LINE, Memory};
use super::{Answer, AnswerMany, Ask, AskMany, Give, Take, Words};

type Line = Shared<[AtomicU64; 4096]>;
const THERE: usize = 0;
const BACK: usize = LINE;
/// Words of a way, of several.
const WAY: usize = 2 * LINE;

// --- ping-pong --------------------------------------------------------------------------------------------------------

struct PingPong {
    words: Line,
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
    super::drive_records(PingPong { words: memory.words()?, last: 0 }, peer, Default::default())
}

pub(crate) fn ping_pong_peer(path: &Path) -> Fallible<()> {
    super::answer_records(PingPong { words: Memory::attach(path, 0)?.words()?, last: 0 })
}

// --- rings ------------------------------------------------------------------------------------------------------------

/// The two rings that a device of a set has, with their seals, and nothing else of a set.
struct Rings {
    out: Producer<Shared<RingMemory>>,
    back: Consumer<Shared<RingMemory>>,
}

impl Rings {
    fn new(memory: &Memory, asks: bool) -> Fallible<Rings> {
        let seals = Seals::new(1);
        let (out, back) = if asks { (0, 1) } else { (1, 0) };
        let key = |which| seals.ring(0, if which == 0 { RingOf::Submission } else { RingOf::Completion });
        Ok(Rings {
            out: Producer::new(memory.ring(out)?, key(out)),
            back: Consumer::new(memory.ring(back)?, key(back)),
        })
    }

    #[inline]
    fn receive(&mut self) -> Words {
        loop {
            match self.back.pop() {
                Ok(Some(words)) => return words,
                Ok(None) => spin_loop(),
                Err(violation) => panic!("{violation}"),
            }
        }
    }
}

impl Ask for Rings {
    #[inline]
    fn ask(&mut self, record: Words) -> Words {
        self.out.push(record).expect("each record is answered before the next");
        self.receive()
    }
}

impl Answer for Rings {
    #[inline]
    fn answer(&mut self) -> Words {
        let words = self.receive();
        self.out.push(words).expect("each record is answered before the next");
        words
    }
}

pub(crate) fn drive_rings(dir: &Path) -> Fallible<()> {
    let (memory, path) = Memory::create(0, 0)?;
    let peer = Start::new("rings-peer", dir).with(path).start()?;
    super::drive_records(Rings::new(&memory, true)?, peer, Default::default())
}

pub(crate) fn rings_peer(path: &Path) -> Fallible<()> {
    super::answer_records(Rings::new(&Memory::attach(path, 0)?, false)?)
}

// --- futex ------------------------------------------------------------------------------------------------------------

/// A word each way that the other side sleeps on.
struct Futex {
    words: Shared<[AtomicU32; 32]>,
    sent: u32,
    seen: u32,
    there: usize,
    back: usize,
    last: Line,
    /// How long a sleep is at most.
    slice: Option<futex::Timespec>,
}

impl Futex {
    fn new(memory: &Memory, there: usize, back: usize, sliced: bool) -> Fallible<Futex> {
        let slice = futex::Timespec { tv_sec: 0, tv_nsec: vdi_shm::wait::SLICE.subsec_nanos().into() };
        let (words, last) = (memory.small_words()?, memory.words()?);
        Ok(Futex { words, sent: 0, seen: 0, there, back, last, slice: sliced.then_some(slice) })
    }

    #[inline]
    fn send(&mut self) {
        self.sent = self.sent.wrapping_add(1);
        self.words[self.there].store(self.sent, Ordering::Release);
        let _ = futex::wake(&self.words[self.there], futex::Flags::empty(), 1);
    }

    #[inline]
    fn receive(&mut self) {
        while self.words[self.back].load(Ordering::Acquire) == self.seen {
            let _ = futex::wait(&self.words[self.back], futex::Flags::empty(), self.seen, self.slice.as_ref());
        }
        self.seen = self.words[self.back].load(Ordering::Acquire);
    }
}

impl Ask for Futex {
    #[inline]
    fn ask(&mut self, record: Words) -> Words {
        self.last[THERE].store(record[0], Ordering::Relaxed);
        self.send();
        self.receive();
        record
    }
}

impl Answer for Futex {
    #[inline]
    fn answer(&mut self) -> Words {
        self.receive();
        let record = [self.last[THERE].load(Ordering::Relaxed); 4];
        self.send();
        record
    }
}

/// With `sliced`, no sleep is longer than those of our waits, which sets a timer each time.
pub(crate) fn drive_futex(dir: &Path, pause: Duration, sliced: bool) -> Fallible<()> {
    let (memory, path) = Memory::create(0, 0)?;
    let peer = Start::new("futex-peer", dir).with(path).with(sliced.to_string()).start()?;
    super::drive_records(Futex::new(&memory, 0, 16, sliced)?, peer, pause)
}

/// Two threads of the driver: this one sends, after each pause, and another sleeps on the word back, takes the time, and passes it
/// on: as a completion agent does whose commands are sent by others.
pub(crate) fn drive_futex_threads(dir: &Path, pause: Duration, sliced: bool) -> Fallible<()> {
    let (memory, path) = Memory::create(0, 0)?;
    let mut peer = Start::new("futex-peer", dir).with(path).with(sliced.to_string()).start()?;
    let (mut sender, mut receiver) = (Futex::new(&memory, 0, 16, sliced)?, Futex::new(&memory, 0, 16, sliced)?);
    let (done, wait) = channel();
    // It ends with the process.
    std::thread::spawn(move || {
        loop {
            receiver.receive();
            if done.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut ask = move |word: u64| {
        sender.last[THERE].store(word, Ordering::Relaxed);
        let started = Instant::now();
        sender.send();
        wait.recv().map(|ended| ended - started)
    };
    rounds(|count| {
        peer.say("go")?;
        ask(0)?;
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            std::thread::sleep(pause);
            elapsed += ask(0)?;
        }
        ask(super::LAST)?;
        Ok(elapsed)
    })
}

pub(crate) fn futex_peer(path: &Path, sliced: bool) -> Fallible<()> {
    super::answer_records(Futex::new(&Memory::attach(path, 0)?, 16, 0, sliced)?)
}

// --- ring -------------------------------------------------------------------------------------------------------------

struct Ring {
    memory: Memory,
    words: Line,
    done: u64,
}

impl Ring {
    fn new(memory: Memory) -> Fallible<Ring> {
        Ok(Ring { words: memory.words()?, memory, done: 0 })
    }
}

impl Give for Ring {
    #[inline]
    fn give(&mut self, chunk: &[u8]) {
        while self.done - self.words[BACK].load(Ordering::Acquire) >= DEPTH as u64 {
            spin_loop();
        }
        // SAFETY: the peer is done with the chunk that lay here before, and looks at this one only after the counter says so.
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
        // SAFETY: the driver has counted this chunk up, and writes here again only when it is counted as done.
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

// --- several ----------------------------------------------------------------------------------------------------------

/// Ways of two words each; the values count up.
struct Many {
    words: Line,
    /// Ways, and the last value of each that this side has written.
    last: Vec<(usize, u64)>,
    /// Of the driver: whether an answer is awaited.
    awaited: Vec<bool>,
}

impl AskMany for Many {
    #[inline]
    fn send(&mut self, way: usize, _: Words) {
        self.last[way].1 += 1;
        self.awaited[way] = true;
        self.words[way * WAY + THERE].store(self.last[way].1, Ordering::Release);
    }

    #[inline]
    fn receive(&mut self, way: usize) -> Option<Words> {
        let (at, sent) = self.last[way];
        if !self.awaited[way] || self.words[at * WAY + BACK].load(Ordering::Acquire) != sent {
            return None;
        }
        self.awaited[way] = false;
        Some([sent; 4])
    }
}

impl AnswerMany for Many {
    #[inline]
    fn look(&mut self) -> bool {
        let mut any = false;
        for (way, last) in &mut self.last {
            let value = self.words[*way * WAY + THERE].load(Ordering::Acquire);
            if value != *last {
                self.words[*way * WAY + BACK].store(value, Ordering::Release);
                *last = value;
                any = true;
            }
        }
        any
    }
}

pub(crate) fn drive_many(dir: &Path, ways: usize, threads: usize) -> Fallible<()> {
    let (memory, path) = Memory::create(0, 0)?;
    let start = Start::new("ping-pong-many-peer", dir).with(path).with(ways.to_string());
    let peer = start.with(threads.to_string()).start()?;
    let last = (0..ways).map(|way| (way, 0)).collect();
    let many = Many { words: memory.words()?, last, awaited: vec![false; ways] };
    super::drive_many(many, peer, ways)
}

pub(crate) fn many_peer(path: &Path, ways: usize, threads: usize) -> Fallible<()> {
    let words = Memory::attach(path, 0)?.words()?;
    super::answer_many(threads, move |thread| {
        let last = (thread..ways).step_by(threads).map(|way| (way, 0)).collect();
        Ok(Many { words: words.clone(), last, awaited: Vec::new() })
    })
}
