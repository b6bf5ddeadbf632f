//! The hostile process: it has joined a set as a secondary, so it has the control segment, and writes into it what it likes.
//!
//! Buffers it leaves alone: that nobody writes into a buffer that is another's is what the interface rests on, see the
//! documentation of `vdi_shm::set::buffers`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use vdi_client::Options;
use vdi_proto::config::VdConfig;
use vdi_proto::index::{ClassIndex, MAX_MEMBERS};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_proto::wire::layout::{
    ABORT_OFFSET, AGENT_EVENTS_OFFSET, DEVICE_CLIENT_OFFSET, DEVICE_EVENTS_OFFSET, DEVICE_NAME_OFFSET,
    DEVICE_SERVER_OFFSET, DEVICES_OPENED_OFFSET, RING_CAPACITY, SET_EVENTS_OFFSET, SLOT_LEASES_OFFSET,
    SLOT_WORD_OFFSET,
};
use vdi_shm::ipc::link::{Link, Received};
use vdi_shm::ipc::ring::FIRST;
use vdi_shm::ipc::runtime::{RuntimeDir, SocketName};

use super::case::{Act, Case, Verb};
use super::words::{ENTRY_WORDS, Ring, SLOTS_IN_USE, Words, device_offset};
use crate::common::TEST_TIMEOUT;
use crate::common::processes::RoleContext;

/// How long a flood of the event counts lasts.
const FLOOD: Duration = Duration::from_millis(30);

/// One who joined.
pub(crate) struct Raider {
    options: Options,
    set: String,
    link: Link,
    words: Words,
    member: u32,
    random: Rng,
    /// Words written, by what it did.
    written: BTreeMap<Act, u64>,
    /// Those who joined besides, and stay.
    crowd: Vec<Link>,
    /// Clears the abort word until this is set.
    clearing: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    dying: bool,
}

/// What a joiner gets.
pub(crate) struct Joined {
    pub(crate) link: Link,
    /// Its place among the members.
    pub(crate) member: u32,
    pub(crate) words: Words,
}

/// Sends a message. It is refused once the primary has closed its end.
pub(crate) fn send(link: &Link, message: &Message<'_>) {
    let _ = link.send(message.encode().bytes(), None);
}

/// Joins by hand.
pub(crate) fn join_by_hand(options: &Options, set: &str) -> Result<Joined, String> {
    let runtime = RuntimeDir::open(options, false).map_err(|error| error.to_string())?;
    let link = runtime.connect(&SocketName::new("", set), &options.access).map_err(|error| error.to_string())?;
    // A failure shows in the answer.
    send(&link, &Message::Hello { role: JoinRole::Secondary, instance: "", set });
    match link.receive_until(Instant::now() + TEST_TIMEOUT).map_err(|error| error.to_string())? {
        Received::Packet(mut packet) => {
            let descriptor = packet.take_descriptor();
            match Message::decode(packet.bytes()).unwrap() {
                Message::Welcome { member, requested, classes, .. } => {
                    let words = Words::new(descriptor.unwrap(), requested.device_count);
                    // It is a member once all of these were sent.
                    for _ in 0..classes {
                        let class = link.receive_until(Instant::now() + TEST_TIMEOUT);
                        class.map_err(|error| error.to_string())?;
                    }
                    Ok(Joined { link, member: member.get(), words })
                }
                Message::Refused(Refusal { status, .. }) => {
                    let fair = [VdError::Memory, VdError::Protocol];
                    assert!(fair.contains(&status), "refused with {status}");
                    Err(status.to_string())
                }
                Message::Aborted { reason, .. } => Err(reason.to_string()),
                other => panic!("{other:?} instead of a welcome"),
            }
        }
        Received::HungUp | Received::Nothing => Err("the set is no more".to_owned()),
    }
}

impl Raider {
    pub(crate) fn join(options: &Options, set: &str, seed: u64) -> Result<Raider, String> {
        let Joined { link, member, words, .. } = join_by_hand(options, set)?;
        Ok(Raider {
            options: options.clone(),
            set: set.to_owned(),
            link,
            words,
            member,
            random: Rng::with_seed(seed),
            written: BTreeMap::new(),
            crowd: Vec::new(),
            clearing: None,
            dying: false,
        })
    }

    /// Does what the case has for a moment; true when it is to die of it.
    pub(crate) fn act(&mut self, case: &Case, verb: Verb, burst: usize) -> bool {
        let Some(raid) = case.raid(verb) else { return false };
        for (act, times) in &raid.bursts[burst].acts {
            let words: u64 = match act {
                Act::Die => {
                    self.dying = true;
                    0
                }
                // Once is enough of these.
                Act::ClearAbort => self.clear_abort(),
                Act::EventCounts => self.flood(),
                Act::Joins => self.join_often(*times),
                Act::Leave | Act::Malformed | Act::OutOfTurn => self.talk(*act, *times),
                act => (0..*times).map(|_| self.scribble(*act)).sum(),
            };
            *self.written.entry(*act).or_default() += words;
        }
        self.dying
    }

    /// What it has done so far: `act:words`, with blanks between.
    pub(crate) fn account(&self) -> String {
        self.written.iter().map(|(act, words)| format!(" {act:?}:{words}")).collect()
    }

    fn device(&mut self) -> u64 {
        device_offset(self.random.u32(..self.words.devices))
    }

    fn ring(&mut self) -> Ring {
        Ring::of(self.random.u32(..self.words.devices), self.random.bool())
    }

    /// An entry that is in flight, or will be soon, or any.
    fn entry(&mut self, ring: Ring) -> u64 {
        let number = match self.random.u8(..5) {
            0 => self.random.u32(..RING_CAPACITY),
            _ => self.words.get_u32(ring.cursor()).wrapping_add(self.random.u32(..3)),
        };
        let number = u64::from(number);
        ring.entry(number)
    }

    fn slot(&mut self) -> u64 {
        let lent = self.words.lent();
        let slot = match self.random.choice(&lent) {
            Some(slot) if self.random.u8(..4) > 0 => *slot,
            _ => self.random.u32(..12),
        };
        self.words.slot(slot)
    }

    /// A word near another, or far from it.
    fn near(&mut self, word: u64) -> u64 {
        match self.random.u8(..8) {
            0 => word.wrapping_add(1),
            1 => word.wrapping_sub(1),
            2 => 0,
            3 => u64::MAX,
            4 => word ^ 1 << self.random.u32(..64),
            5 => word.wrapping_add(u64::from(RING_CAPACITY)),
            6 => word & u64::from(u32::MAX) | self.random.u64(..) << 32,
            _ => self.random.u64(..),
        }
    }

    fn scribble(&mut self, act: Act) -> u64 {
        match act {
            Act::Anywhere => {
                let at = self.random.u64(..self.words.len() / 8) * 8;
                let value = self.near(self.words.get_u64(at));
                self.words.put_u64(at, value);
            }
            Act::Unused => {
                let from = self.words.slot(SLOTS_IN_USE);
                let at = from + self.random.u64(..(self.words.len() - from) / 8) * 8;
                let value = self.random.u64(..);
                self.words.put_u64(at, value);
            }
            Act::Sequence => {
                let ring = self.ring();
                let at = self.entry(ring);
                let value = self.near(self.words.get_u64(at));
                self.words.put_u64(at, value);
            }
            Act::Cursor => {
                let at = self.ring().cursor();
                let value = self.near(u64::from(self.words.get_u32(at)));
                self.words.put_u32(at, value as u32);
            }
            Act::Record => {
                let ring = self.ring();
                let at = self.entry(ring) + ENTRY_WORDS + 8 * self.random.u64(..4);
                let half = at + 4 * self.random.u64(..2);
                let value = self.near(u64::from(self.words.get_u32(half)));
                self.words.put_u32(half, value as u32);
            }
            Act::Replay => return self.replay(),
            Act::Invent => {
                let ring = self.ring();
                let next = self.words.get_u64(ring.cursor()).wrapping_add(self.random.u64(..2));
                let at = ring.entry(next.wrapping_sub(FIRST));
                let code = self.random.u64(..20);
                self.words.put_u64(at + ENTRY_WORDS, code | self.random.u64(..) << 32);
                self.words.put_u64(at, next);
                return 2;
            }
            Act::SlotWord => {
                let at = self.slot() + SLOT_WORD_OFFSET;
                let value = match self.random.bool() {
                    true => self.near(self.words.get_u64(at)),
                    false => self.words.get_u64(at) & !3 | self.random.u64(..4),
                };
                self.words.put_u64(at, value);
            }
            Act::Lease => {
                let at = self.slot() + SLOT_LEASES_OFFSET;
                let member = if self.random.u8(..4) > 0 { self.member } else { self.random.u32(..MAX_MEMBERS) };
                let set = 1u128 << member;
                let leases = if self.random.u8(..5) == 0 { 0 } else { set };
                self.words.put(at, &leases.to_le_bytes());
                return 2;
            }
            Act::ServerWord | Act::ClientWord => {
                let offset = if act == Act::ServerWord { DEVICE_SERVER_OFFSET } else { DEVICE_CLIENT_OFFSET };
                let at = self.device() + offset;
                match self.random.u8(..4) {
                    0 => {
                        let value = self.near(self.words.get_u64(at));
                        self.words.put_u64(at, value);
                    }
                    1 => self.words.put_u32(at, [0, 1, 2, 3, 1 << 31, 1 << 31 | 2][self.random.usize(..6)]),
                    2 => self.words.put_u64(at, 0),
                    // Another device's word.
                    _ => {
                        let other = self.device() + offset;
                        self.words.put_u64(at, self.words.get_u64(other));
                    }
                }
            }
            Act::Name => {
                let at = self.device() + DEVICE_NAME_OFFSET;
                match self.random.u8(..3) {
                    0 => {
                        let value = self.near(u64::from(self.words.get_u32(at)));
                        self.words.put_u32(at, value as u32);
                    }
                    1 => self.words.put(at + 4 + self.random.u64(..8), &[self.random.u8(..)]),
                    _ => {
                        let other = self.device() + DEVICE_NAME_OFFSET;
                        self.words.put(at, &self.words.bytes(other, 32));
                        return 4;
                    }
                }
            }
            Act::Counts => {
                let at = DEVICES_OPENED_OFFSET + 4 * self.random.u64(..2);
                let value = self.near(u64::from(self.words.get_u32(at)));
                self.words.put_u32(at, value as u32);
            }
            Act::Abort => {
                let word = match self.random.u8(..3) {
                    0 => 0,
                    1 => 1 << 24 | 1 << 16,
                    _ => self.random.u32(..),
                };
                self.words.put_u32(ABORT_OFFSET, word);
            }
            Act::Identity => {
                let at = 8 * self.random.u64(..3);
                let value = self.near(self.words.get_u64(at));
                self.words.put_u64(at, value);
            }
            Act::ClearAbort
            | Act::EventCounts
            | Act::Leave
            | Act::Malformed
            | Act::OutOfTurn
            | Act::Joins
            | Act::Die => {
                return 0;
            }
        }
        1
    }

    /// An earlier record in the entry of one that is in flight: with the sequence number of the earlier one, with that of the
    /// entry, or with the one that is expected there.
    fn replay(&mut self) -> u64 {
        let ring = self.ring();
        let cursor = self.words.get_u64(ring.cursor());
        let next = cursor.wrapping_add(self.random.u64(..2));
        let old = ring.entry(cursor.wrapping_sub(FIRST).wrapping_sub(self.random.u64(1..4)));
        let new = ring.entry(next.wrapping_sub(FIRST));
        let record = self.words.bytes(old + ENTRY_WORDS, 32);
        self.words.put(new + ENTRY_WORDS, &record);
        match self.random.u8(..3) {
            0 => return 4,
            1 => self.words.put_u64(new, self.words.get_u64(old)),
            _ => self.words.put_u64(new, next),
        }
        5
    }

    fn clear_abort(&mut self) -> u64 {
        if self.clearing.is_none() {
            let (words, stop) = (self.words.try_clone(), Arc::new(AtomicBool::new(false)));
            let clearing = std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        if words.get_u32(ABORT_OFFSET) != 0 {
                            words.put_u32(ABORT_OFFSET, 0);
                        }
                        std::thread::yield_now();
                    }
                }
            });
            self.clearing = Some((stop, clearing));
        }
        1
    }

    fn flood(&mut self) -> u64 {
        let devices = (0..self.words.devices).map(|device| device_offset(device) + DEVICE_EVENTS_OFFSET);
        let bells: Vec<u64> = [SET_EVENTS_OFFSET, AGENT_EVENTS_OFFSET].into_iter().chain(devices).collect();
        let begun = Instant::now();
        // All even is the worst: nobody is told to wake anybody.
        let even = self.random.bool();
        let mut value = 0u32;
        while begun.elapsed() < FLOOD {
            for bell in &bells {
                value = value.wrapping_add(if even { 2 } else { 1 });
                self.words.put_u32(*bell, value);
            }
        }
        bells.len() as u64
    }

    /// A thousand times and away again, or as often as there is room.
    fn join_often(&mut self, times: u32) -> u64 {
        let stays = times.is_multiple_of(2);
        for _ in 0..if stays { MAX_MEMBERS } else { 1000 } {
            let Ok(Joined { link, .. }) = join_by_hand(&self.options, &self.set) else { return 0 };
            if stays {
                self.crowd.push(link);
            } else {
                // Refused where the set has ended meanwhile.
                send(&link, &Message::Leave);
            }
        }
        0
    }

    fn talk(&mut self, act: Act, times: u32) -> u64 {
        let spec = ClassSpec { buffer_len: 4096, alignment: 512, count: 1 };
        for _ in 0..times.min(20) * 100 {
            match act {
                Act::Leave => send(&self.link, &Message::Leave),
                Act::OutOfTurn => {
                    let index = ClassIndex::new(1).unwrap();
                    let message = match self.random.u8(..5) {
                        0 => Message::Configured(VdConfig::default()),
                        1 => Message::Class { index, spec },
                        2 => Message::ClassAnswer { index, answer: Ok(()) },
                        3 => Message::Hello { role: JoinRole::Server, instance: "", set: &self.set },
                        _ => Message::ConfiguredAnswer(Ok(())),
                    };
                    send(&self.link, &message);
                }
                _ => {
                    let bytes: Vec<u8> = (0..self.random.usize(1..2000)).map(|_| self.random.u8(..)).collect();
                    let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
                    let _ = rustix::net::send(&self.link, &bytes, flags);
                }
            }
        }
        0
    }
}

impl Drop for Raider {
    fn drop(&mut self) {
        if let Some((stop, clearing)) = self.clearing.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = clearing.join();
        }
        // Those who cannot say so any more are sent away already.
        for link in self.crowd.iter().chain([&self.link]) {
            send(link, &Message::Leave);
        }
    }
}

/// The hostile part: takes orders, and may play the server or the primary besides.
pub(crate) fn hostile(stage: &RoleContext) {
    let options = Options::default();
    let raider: Arc<Mutex<Option<Raider>>> = Arc::default();
    let engine = super::honest::engine(stage);
    std::thread::scope(|scope| {
        while let Some(order) = stage.next_order() {
            let order: Vec<&str> = order.split('|').collect();
            match order[..] {
                ["join", seed, set] => match Raider::join(&options, set, seed.parse().unwrap()) {
                    Ok(joined) => {
                        *raider.lock().unwrap() = Some(joined);
                        stage.say("raid joined");
                    }
                    Err(refused) => stage.say(&format!("raid refused {refused}")),
                },
                ["act", seed, verb, burst] => {
                    let case = Case::new(seed.parse().unwrap());
                    act(stage, &raider, &case, Verb::of(verb), burst.parse().unwrap());
                    stage.say("raid acted");
                }
                ["leave"] => {
                    let left = raider.lock().unwrap().take();
                    let account = left.as_ref().map(Raider::account).unwrap_or_default();
                    drop(left);
                    stage.say(&format!("raid left{account}"));
                }
                ["run", tag, sql] => {
                    let (tag, sql, engine) = (tag.to_owned(), sql.to_owned(), &engine);
                    scope.spawn(move || super::honest::run(stage, engine, &tag, &sql));
                }
                ["serve", tag, set, seed, verb] => {
                    let (tag, set, verb) = (tag.to_owned(), set.to_owned(), Verb::of(verb));
                    let case = Case::new(seed.parse().unwrap());
                    let (options, raider) = (&options, &raider);
                    scope.spawn(move || {
                        let at = |burst: usize| {
                            if burst == usize::MAX {
                                *raider.lock().unwrap() = Raider::join(options, &set, case.seed).ok();
                            } else {
                                act(stage, raider, &case, verb, burst);
                            }
                        };
                        super::honest::serve(stage, &tag, &set, &case, verb, true, &at);
                    });
                }
                _ => panic!("{order:?}"),
            }
        }
    });
}

fn act(stage: &RoleContext, raider: &Mutex<Option<Raider>>, case: &Case, verb: Verb, burst: usize) {
    let mut raider = raider.lock().unwrap();
    let Some(raider) = raider.as_mut() else { return };
    if raider.act(case, verb, burst) {
        stage.say(&format!("raid dying{}", raider.account()));
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
