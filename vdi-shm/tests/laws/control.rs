//! The control segment after any writes: every word is validated as its own rules say.

use std::sync::Arc;

use rustix::io::{pread, pwrite};
use vdi_proto::abort::AbortReason;
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::handle::SlotState;
use vdi_proto::index::{DeviceIndex, Generation, MAX_MEMBERS, MemberIndex, SlotIndex};
use vdi_proto::name::{MAX_NAME_BYTES, check_name};
use vdi_proto::wire::checksum::{ChecksumKey, Checksums, DeviceWord, Ring};
use vdi_proto::wire::layout::{self, ClientWord, RawIdentity, ServerWord, device_offset, slot_word, slots_offset};
use vdi_proto::wire::record::{self, RecordError};
use vdi_shm::ipc::ring::{FIRST, PushError};
use vdi_shm::ipc::segment::Segment;
use vdi_shm::set::control::{ClientControl, ClientRings, Control, ServerControl, ServerRings};
use vdi_shm::set::record_ring::RecordViolation;
use vdi_shm::set::slots::{LeaseError, ReclaimError};

const SECRET: u64 = 0x0123_4567_89ab_cdef;
/// Slots that are written and checked.
const SLOTS: u32 = 4;
const CAPACITY: u64 = layout::RING_CAPACITY as u64;

/// The length of a step: what it does, and three arguments.
pub(crate) const STEP: usize = 4;

fn member(number: u32) -> MemberIndex {
    MemberIndex::new(number % MAX_MEMBERS).expect("below the limit")
}

fn slot_index(number: u32) -> SlotIndex {
    SlotIndex::new(number % SLOTS).expect("below the limit")
}

/// The words of the segment, read and written without the crate.
struct Raw(Segment);

impl Raw {
    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(pread(self.0.fd(), &mut bytes, at), Ok(N));
        bytes
    }

    fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        // Beyond the end it is refused: the segment is sealed.
        let _ = pwrite(self.0.fd(), bytes, at);
    }

    /// Like a stray `memset`.
    fn zero(&self, at: u64, len: u64) {
        self.write(at, &vec![0; len as usize]);
    }
}

/// What a sender of a ring knows.
struct Cursors {
    next: u64,
    consumed: u64,
}

/// A device, in the server's process and in the process that opened it.
struct Device {
    index: DeviceIndex,
    server: ServerRings,
    client: Option<ClientRings>,
    commands: Cursors,
    completions: Cursors,
}

struct Set {
    control: Arc<Control>,
    server: ServerControl,
    client: ClientControl,
    checksums: Checksums,
    raw: Raw,
    devices: Vec<Device>,
}

/// After any writes, with checksums and without, each word is validated as its own rules say, which are applied here to the
/// same bytes. No word with a wrong checksum is used, and no other word is refused. Returns whether the segment can still be
/// attached.
pub(crate) fn control(bytes: &[u8]) -> bool {
    let Some((devices, steps)) = bytes.split_first() else { return false };
    let mut set = Set::new(1 + u32::from(devices % 3));
    for step in steps.as_chunks::<STEP>().0.iter().take(200) {
        set.step(*step);
    }
    let attached = set.check_identity();
    assert_eq!(set.control.abort_reason(), AbortReason::from_word(set.raw.u32(layout::ABORT_OFFSET)));
    let mut devices = std::mem::take(&mut set.devices);
    for device in &mut devices {
        set.check_words(device.index);
        set.open(device);
        set.check_receivers(device);
        for number in 0..=CAPACITY {
            set.push_command(device, number as u8);
            set.push_completion(device, number as u8);
        }
        assert!(set.server.take_rings(device.index).is_none(), "ring ends are taken once");
    }
    (0..SLOTS).for_each(|slot| set.check_slot(slot_index(slot)));
    let reason = set.control.abort(&AbortReason::from_word(0x0101_0000).expect("a reason").into());
    assert_eq!(set.control.abort_reason(), Some(reason), "an abort stands");
    attached
}

impl Set {
    fn new(device_count: u32) -> Set {
        let checksums = Checksums::new(SECRET);
        let (control, segment) = Control::create(device_count, checksums).expect("memory");
        let control = Arc::new(control);
        let server = ServerControl::new(Arc::clone(&control));
        let cursors = || Cursors { next: FIRST, consumed: FIRST };
        let devices = control.devices().map(|index| Device {
            index,
            server: server.take_rings(index).expect("ring ends that were not taken"),
            client: None,
            commands: cursors(),
            completions: cursors(),
        });
        let devices = devices.collect();
        let client = ClientControl::new(Arc::clone(&control), member(2));
        Set { control, server, client, checksums, raw: Raw(segment), devices }
    }

    fn slot_offset(&self, slot: SlotIndex) -> u64 {
        slots_offset(self.control.device_count()) + u64::from(slot.get()) * layout::SLOT_LEN
    }

    fn key(&self, device: DeviceIndex, ring: Ring) -> ChecksumKey {
        self.checksums.ring(device, ring)
    }

    // ---- steps

    /// An offset that matters.
    fn offset(&self, device: DeviceIndex, what: u8, which: u8) -> u64 {
        let block = device_offset(device);
        let ring = block + if which & 64 == 0 { layout::SUBMISSION_OFFSET } else { layout::COMPLETION_OFFSET };
        let slot = self.slot_offset(slot_index(u32::from(which)));
        match what % 12 {
            0 => layout::IDENTITY_OFFSET + u64::from(which % 24),
            1 => layout::ABORT_OFFSET,
            2 => layout::DEVICES_OPENED_OFFSET,
            3 => block + layout::DEVICE_SERVER_OFFSET,
            4 => block + layout::DEVICE_CLIENT_OFFSET,
            5 => block + layout::DEVICE_NAME_OFFSET + u64::from(which % 24),
            6 => ring + layout::RING_HEAD_OFFSET,
            7 => ring + layout::RING_ENTRIES_OFFSET + u64::from(which % 10) * 8,
            8 => slot + layout::SLOT_WORD_OFFSET,
            9 => slot + layout::SLOT_LEASES_OFFSET + u64::from(which % 2) * 8,
            10 => layout::SET_EVENTS_OFFSET,
            _ => u64::from(what) << 12 | u64::from(which) << 2,
        }
    }

    fn step(&mut self, [act, a, b, c]: [u8; STEP]) {
        let number = usize::from(a) % self.devices.len();
        let (index, slot) = (self.devices[number].index, slot_index(u32::from(a)));
        let values =
            [0, 1, 2, 3, FIRST, FIRST + 1, FIRST - CAPACITY, u64::MAX, 1 << 31, u64::from(c), u64::from(c) << 56];
        let value = values[usize::from(c) % values.len()];
        match act % 14 {
            0 => self.raw.write(self.offset(index, b, c), &value.to_le_bytes()),
            1 => self.raw.write(self.offset(index, b, c), &(value as u32).to_le_bytes()),
            2 => self.raw.write(self.offset(index, b, c), &[c]),
            3 => self.write_device_word(index, b, value as u32),
            4 => self.server.announce_device(index, ["s", "", "\u{fffd}\n", "a\\b"][usize::from(b % 4)]),
            5 => self.zero(index, slot, b),
            6 => {
                let generation = Generation::from_bits(u32::from(c));
                let state = [SlotState::Free, SlotState::Lent, SlotState::Reclaiming][usize::from(b % 3)](generation);
                self.raw.write(self.slot_offset(slot), &slot_word::encode(state).to_le_bytes());
            }
            7 => self.forge_completion(index, b, value),
            8 => self.close(index),
            9 => self.server.close_device(index),
            // Another member.
            10 => drop(ClientControl::new(Arc::clone(&self.control), member(u32::from(b))).open_device(index)),
            11 => {
                let loan = Loan { slot, generation: Generation::from_bits(u32::from(c)) };
                let _ = self.control.slot(slot).lease(loan, member(u32::from(b)));
            }
            act => {
                let mut devices = std::mem::take(&mut self.devices);
                if act == 12 {
                    self.push_command(&mut devices[number], c);
                } else {
                    self.open(&mut devices[number]);
                    self.push_completion(&mut devices[number], c);
                }
                self.devices = devices;
            }
        }
    }

    /// A word of a device, with its checksum.
    fn write_device_word(&self, device: DeviceIndex, which: u8, value: u32) {
        let (word, offset) = match which % 2 {
            0 => (DeviceWord::Server, layout::DEVICE_SERVER_OFFSET),
            _ => (DeviceWord::Client, layout::DEVICE_CLIENT_OFFSET),
        };
        let word = self.checksums.word(device, word, value);
        self.raw.write(device_offset(device) + offset, &word.to_le_bytes());
    }

    /// A record of a completion ring, with its checksum. Its fields can be wrong.
    fn forge_completion(&self, device: DeviceIndex, which: u8, value: u64) {
        let number = FIRST + u64::from(which % 4);
        let [mut words, plain] = [[u64::from(which), value, 7, value & 1]; 2];
        let checksum = self.key(device, Ring::Completion).of(number, plain);
        words[3] |= u64::from(checksum) << 32;
        let ring = device_offset(device) + layout::COMPLETION_OFFSET;
        let entry = ring + layout::RING_ENTRIES_OFFSET + u64::from(which % 4) * layout::RING_ENTRY_LEN;
        words.iter().zip(1..).for_each(|(word, at)| self.raw.write(entry + at * 8, &word.to_le_bytes()));
        self.raw.write(entry, &number.to_le_bytes());
    }

    fn zero(&self, device: DeviceIndex, slot: SlotIndex, which: u8) {
        let block = device_offset(device);
        match which % 7 {
            0 => self.raw.zero(block, layout::DEVICE_LEN),
            1 => self.raw.zero(block, layout::SUBMISSION_OFFSET),
            2 => self.raw.zero(block + layout::SUBMISSION_OFFSET, layout::RING_LEN),
            3 => self.raw.zero(block + layout::COMPLETION_OFFSET, layout::RING_LEN),
            4 => self.raw.zero(block + layout::DEVICE_NAME_OFFSET, 8 + MAX_NAME_BYTES as u64),
            5 => self.raw.zero(self.slot_offset(slot), layout::SLOT_LEN),
            _ => self.raw.zero(0, layout::HEADER_LEN),
        }
    }

    // ---- sending and opening, as honest processes do

    fn push_command(&self, device: &mut Device, number: u8) {
        let loan = Loan { slot: slot_index(u32::from(number)), generation: Generation::from_bits(u32::from(number)) };
        let command = CommandRecord {
            code: CommandCode::new(u32::from(number)),
            id: CommandId(u32::from(number)),
            size: i32::from(number),
            position: u64::from(number),
            loan: number.is_multiple_of(2).then_some(loan),
        };
        let cursor = self.raw.u64(device_offset(device.index) + layout::SUBMISSION_OFFSET);
        check_push(device.server.commands.push(&command), &mut device.commands, cursor);
    }

    /// If the device is open.
    fn push_completion(&self, device: &mut Device, number: u8) {
        let Some(client) = &mut device.client else { return };
        let completion = CompletionRecord {
            id: CommandId(u32::from(number)),
            code: CompletionCode::new(u32::from(number)),
            bytes: u32::from(number),
            position: u64::from(number),
        };
        let cursor = self.raw.u64(device_offset(device.index) + layout::COMPLETION_OFFSET);
        check_push(client.completions.push(&completion), &mut device.completions, cursor);
    }

    /// Opens the device, which succeeds exactly when its word says that no process has.
    fn open(&self, device: &mut Device) {
        let at = device_offset(device.index) + layout::DEVICE_CLIENT_OFFSET;
        let before = self.raw.u64(at);
        let word = self.checksums.check_word(device.index, DeviceWord::Client, before).and_then(ClientWord::from_word);
        let opened = self.client.open_device(device.index);
        match (word, opened) {
            (Some(ClientWord::Unopened), Ok(Some(rings))) => {
                assert_eq!(self.control.client_word(device.index), Ok(ClientWord::Open { member: member(2) }));
                device.completions = Cursors { next: FIRST, consumed: FIRST };
                device.client = Some(rings);
            }
            (Some(ClientWord::Open { .. } | ClientWord::Closed { .. }), Ok(None)) | (None, Err(_)) => {
                assert_eq!(self.raw.u64(at), before);
            }
            (word, opened) => panic!("{word:?}, {opened:?}"),
        }
    }

    /// Closes the device as a client, which changes the word only if this member opened it.
    fn close(&self, device: DeviceIndex) {
        let at = device_offset(device) + layout::DEVICE_CLIENT_OFFSET;
        let before = self.raw.u64(at);
        let word = self.checksums.check_word(device, DeviceWord::Client, before).and_then(ClientWord::from_word);
        self.client.close_device(device);
        if word == Some(ClientWord::Open { member: member(2) }) {
            assert_eq!(self.control.client_word(device), Ok(ClientWord::Closed { member: member(2) }));
        } else {
            assert_eq!(self.raw.u64(at), before);
        }
    }

    // ---- what is validated

    fn check_identity(&self) -> bool {
        let (raw, len) = (&self.raw, self.raw.0.len());
        let found = RawIdentity { magic: raw.u64(0), version: raw.u32(8), device_count: raw.u32(12), len: raw.u64(16) };
        let attached = Control::attach(&self.raw.0, self.checksums);
        let count = attached.as_ref().map(Control::device_count).ok();
        assert_eq!(count, found.check(len).map(|geometry| geometry.device_count()).ok());
        attached.is_ok()
    }

    fn check_words(&self, device: DeviceIndex) {
        let block = device_offset(device);
        let found = self.raw.u64(block + layout::DEVICE_SERVER_OFFSET);
        let server = self.checksums.check_word(device, DeviceWord::Server, found).and_then(ServerWord::from_word);
        assert_eq!(self.control.server_word(device).ok(), server, "{found:#x}");
        assert!(found != 0 || server.is_none(), "a zeroed word is a violation");

        let name = match server {
            None => None,
            Some(ServerWord::Unopened) => Some(None),
            Some(ServerWord::Open | ServerWord::Closed) => self.name(device).map(Some),
        };
        assert_eq!(self.control.device_name(device).ok(), name);

        let found = self.raw.u64(block + layout::DEVICE_CLIENT_OFFSET);
        let client = self.checksums.check_word(device, DeviceWord::Client, found).and_then(ClientWord::from_word);
        assert_eq!(self.control.client_word(device).ok(), client, "{found:#x}");
        assert!(found != 0 || client.is_none(), "a zeroed word is a violation");
    }

    /// The name of an announced device.
    fn name(&self, device: DeviceIndex) -> Option<String> {
        let at = device_offset(device) + layout::DEVICE_NAME_OFFSET;
        let bytes: [u8; MAX_NAME_BYTES] = self.raw.bytes(at + 8);
        let bytes = bytes.get(..self.raw.u32(at) as usize)?;
        let name = String::from_utf8(bytes.to_vec()).ok()?;
        let valid = check_name(&name).is_ok() && self.checksums.name(device, bytes) == self.raw.u32(at + 4);
        valid.then_some(name)
    }

    fn check_receivers(&self, device: &mut Device) {
        let block = device_offset(device.index);
        let completions = &mut device.server.completions;
        let mut receive = || (completions.is_ready(), completions.pop());
        let key = self.key(device.index, Ring::Completion);
        self.check_receiver(block + layout::COMPLETION_OFFSET, &key, record::decode_completion, &mut receive);
        if let Some(client) = &mut device.client {
            let mut receive = || (client.commands.is_ready(), client.commands.pop());
            let key = self.key(device.index, Ring::Submission);
            self.check_receiver(block + layout::SUBMISSION_OFFSET, &key, record::decode_command, &mut receive);
        }
    }

    /// A receiver takes the records that have the next number and their checksum, in order. Anything else is a violation for
    /// ever. Only the number of the lap before means that nothing is there.
    fn check_receiver<T: PartialEq + core::fmt::Debug>(
        &self,
        ring: u64,
        key: &ChecksumKey,
        decode: impl Fn(&ChecksumKey, u64, [u64; 4]) -> Result<T, RecordError>,
        receive: &mut dyn FnMut() -> (bool, Result<Option<T>, RecordViolation>),
    ) {
        for number in FIRST..FIRST + CAPACITY {
            let entry = ring + layout::RING_ENTRIES_OFFSET + (number - FIRST) * layout::RING_ENTRY_LEN;
            let sequence = self.raw.u64(entry);
            let words = core::array::from_fn(|at| self.raw.u64(entry + 8 + at as u64 * 8));
            let expected = match sequence {
                found if found == number => decode(key, number, words).ok().map(Some),
                found if found == number - CAPACITY => Some(None),
                _ => None,
            };
            let (ready, received) = receive();
            assert_eq!(ready, expected != Some(None));
            assert!(sequence != 0 || received.is_err(), "a zeroed ring is a violation, not empty");
            match (received, expected) {
                (Ok(Some(found)), Some(Some(expected))) => assert_eq!(found, expected),
                (Ok(None), Some(None)) => return,
                (Err(violation), None) => {
                    assert_eq!(receive(), (true, Err(violation)), "it stays");
                    return;
                }
                other => panic!("record {number:#x}: {other:?}"),
            }
            assert_eq!(self.raw.u64(ring + layout::RING_HEAD_OFFSET), number + 1);
        }
    }

    fn check_slot(&self, index: SlotIndex) {
        let (slot, at) = (self.control.slot(index), self.slot_offset(index));
        let state = slot_word::decode(self.raw.u64(at + layout::SLOT_WORD_OFFSET));
        assert_eq!(slot.state(), state);
        let generation = match state {
            Some(SlotState::Lent(generation) | SlotState::Reclaiming(generation) | SlotState::Free(generation)) => {
                generation
            }
            None => Generation::from_bits(3),
        };
        let lessee = member(77);
        let loan = Loan { slot: index, generation };
        let had = slot.is_leased_by(lessee);
        let leased = slot.lease(loan, lessee);
        let expected = match state {
            Some(SlotState::Lent(_)) => Ok(()),
            Some(SlotState::Reclaiming(_)) => Err(LeaseError::Reclaiming),
            Some(SlotState::Free(_)) | None => Err(LeaseError::NotLent { generation }),
        };
        assert_eq!(leased, expected);
        let refused = matches!(leased, Err(LeaseError::NotLent { .. }));
        assert_eq!(slot.is_leased_by(lessee), had || !refused, "a refused lease changes no bit");
        let stale = generation.next();
        assert_eq!(
            slot.lease(Loan { generation: stale, ..loan }, lessee),
            Err(LeaseError::NotLent { generation: stale })
        );

        self.check_reclaim(index, generation);
        slot.release(lessee);
        assert!(!slot.is_leased_by(lessee));
        self.check_reclaim(index, generation);
        // Void leases do not keep a command from being completed.
        (0..MAX_MEMBERS).for_each(|number| slot.void_lease(member(number)));
        self.check_reclaim(index, generation);
    }

    /// A slot is reclaimed exactly when it is lent in this generation and nobody has a lease.
    fn check_reclaim(&self, index: SlotIndex, generation: Generation) {
        let at = self.slot_offset(index);
        let word = self.raw.u64(at + layout::SLOT_WORD_OFFSET);
        let leases = u128::from_le_bytes(self.raw.bytes(at + layout::SLOT_LEASES_OFFSET));
        let lent = slot_word::encode(SlotState::Lent(generation));
        let expected = match leases {
            0 if word == lent => Ok(()),
            0 => Err(ReclaimError::NotLent { generation, word }),
            leases => Err(ReclaimError::Leased { leases }),
        };
        assert_eq!(self.control.slot(index).reclaim(generation), expected);
        let after = if expected.is_ok() { slot_word::encode(SlotState::Free(generation)) } else { word };
        assert_eq!(self.raw.u64(at + layout::SLOT_WORD_OFFSET), after);
    }
}

/// A sender fills its ring. Then it goes on only while the receiver's cursor is possible.
fn check_push(pushed: Result<(), PushError>, cursors: &mut Cursors, cursor: u64) {
    let is_full = |cursors: &Cursors| cursors.next - cursors.consumed == CAPACITY;
    if is_full(cursors) {
        if !(cursors.next - CAPACITY..=cursors.next).contains(&cursor) {
            return assert!(matches!(pushed, Err(PushError::Violation(_))), "{pushed:?} with cursor {cursor:#x}");
        }
        cursors.consumed = cursor;
        if is_full(cursors) {
            return assert_eq!(pushed, Err(PushError::Full));
        }
    }
    assert_eq!(pushed, Ok(()));
    cursors.next += 1;
}

/// A name, the input.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let run = |steps: &[[u8; STEP]]| [&[1][..], &steps.concat()].concat();
    let mut seeds = vec![("untouched".to_owned(), run(&[]))];
    let work = [[4, 0, 0, 0], [12, 0, 0, 3], [12, 0, 0, 4], [13, 0, 0, 5], [13, 0, 0, 6], [6, 0, 1, 5], [11, 0, 9, 5]];
    seeds.push(("work".to_owned(), run(&work)));
    seeds.push(("closed".to_owned(), run(&[&work[..], &[[9, 0, 0, 0], [8, 0, 0, 0]]].concat())));
    seeds.push(("other-member".to_owned(), run(&[[4, 0, 0, 0], [10, 0, 5, 0], [13, 0, 0, 1], [8, 0, 0, 0]])));
    for offset in 0..12 {
        let writes = [[0, 0, offset, 9], [2, 0, offset, 77]];
        seeds.push((format!("write-{offset:02}"), run(&[&work[..], &writes].concat())));
    }
    for range in 0..7 {
        seeds.push((format!("zero-{range}"), run(&[&work[..], &[[5, 0, range, 0]]].concat())));
    }
    for (value, name) in [(1, "one"), (3, "three"), (8, "high")] {
        let words = [[3, 0, 0, value], [3, 0, 1, value], [0, 0, 6, value]];
        seeds.push((format!("checksum-{name}"), run(&[&work[..], &words].concat())));
    }
    seeds.push(("leases-of-a-free-slot".to_owned(), run(&[[0, 0, 9, 7]])));
    for (value, name) in [(1, "good"), (7, "padding")] {
        let records = [[7, 0, 0, 0], [7, 0, 1, value], [7, 0, 2, 0]];
        seeds.push((format!("record-{name}"), run(&records)));
    }
    seeds
}
