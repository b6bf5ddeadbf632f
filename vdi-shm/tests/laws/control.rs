//! The control segment, as a process finds it that others have written over.

use rustix::io::{pread, pwrite};
use vdi_proto::abort::AbortReason;
use vdi_proto::command::Loan;
use vdi_proto::handle::{SlotState, SlotWord};
use vdi_proto::layout::{self, RawIdentity, RawPlace, ServerWord, device_offset, slot_offset};
use vdi_proto::name::check_name;
use vdi_proto::seal::{DeviceWord, Ring, Seals};
use vdi_shm::control::{ClientWord, Control};
use vdi_shm::ring::{CAPACITY, PushError};
use vdi_shm::segment::Segment;
use vdi_shm::slots::TakeBackError;

const SECRET: u64 = 0x0123_4567_89ab_cdef;
/// Slots that are looked at.
const SLOTS: u32 = 4;
const LESSEE: u32 = 77;

/// The words that lie somewhere, read apart from the crate.
struct Raw<'a>(&'a Segment);

impl Raw<'_> {
    fn u32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        assert_eq!(pread(self.0.fd(), &mut bytes, at), Ok(4));
        u32::from_le_bytes(bytes)
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        // Beyond the end it is refused: the segment is sealed.
        let _ = pwrite(self.0.fd(), bytes, at);
    }
}

/// What one write does, in four bytes: where, and what.
pub(crate) const STEP: usize = 4;

/// After any writes, with seals and without, every word is judged as its own rules say, looked at apart: nothing is believed that
/// does not bear its seal, and nothing is refused that does.
pub(crate) fn control(bytes: &[u8]) -> bool {
    let Some((devices, steps)) = bytes.split_first() else { return false };
    let devices = 1 + u32::from(devices % 3);
    let seals = Seals::new(SECRET);
    let (control, segment) = Control::create(devices, seals).expect("memory");
    let raw = Raw(&segment);
    for step in steps.as_chunks::<STEP>().0.iter().take(200) {
        tamper(&control, &seals, &raw, devices, *step);
    }
    let good = identity(&raw, &segment, seals);
    let reason = AbortReason::from_word(raw.u32(layout::ABORT_OFFSET));
    assert_eq!(control.abort_reason(), reason);
    for device in 0..devices {
        words(&control, &seals, &raw, device);
        receive(&control, &seals, &raw, device);
        send(&control, &raw, device);
    }
    for slot in 0..SLOTS {
        slots(&control, &seals, &raw, devices, slot);
    }
    let reason = control.abort(AbortReason::from_word(0x0101_0000).expect("a reason"));
    assert_eq!(control.abort_reason(), Some(reason), "once it was aborted it stays so");
    good
}

fn spot(devices: u32, a: u8, b: u8) -> u64 {
    let block = device_offset(u32::from(b) % devices);
    let ring = block + if b & 64 == 0 { layout::SUBMISSION_OFFSET } else { layout::COMPLETION_OFFSET };
    let slot = slot_offset(devices, u32::from(b) % SLOTS);
    match a % 12 {
        0 => layout::IDENTITY_OFFSET + u64::from(b % 24),
        1 => layout::ABORT_OFFSET,
        2 => layout::COUNTS_OFFSET,
        3 => block + layout::DEVICE_SERVER_OFFSET,
        4 => block + layout::DEVICE_CLIENT_OFFSET,
        5 => block + layout::DEVICE_NAME_OFFSET + u64::from(b % 24),
        6 => ring + layout::RING_HEAD_OFFSET,
        7 => ring + layout::RING_ENTRIES_OFFSET + u64::from(b % 10) * 8,
        8 => slot + layout::SLOT_WORD_OFFSET,
        9 => slot + layout::SLOT_LEASES_OFFSET + u64::from(b % 2) * 8,
        10 => slot + layout::SLOT_PLACE_OFFSET + u64::from(b % 5) * 4,
        _ => u64::from(a) << 12 | u64::from(b) << 2,
    }
}

fn tamper(control: &Control, seals: &Seals, raw: &Raw<'_>, devices: u32, [act, a, b, c]: [u8; STEP]) {
    let (device, slot) = (u32::from(a) % devices, u32::from(a) % SLOTS);
    let values = [0, 1, 2, 3, 64, 65, u64::MAX, 1 << 31, 1 << 32, 0xFFFF_FFFF, u64::from(c), u64::from(c) << 56];
    let value = values[usize::from(c) % values.len()];
    match act % 12 {
        0 => raw.write(spot(devices, a, b), &value.to_le_bytes()),
        1 => raw.write(spot(devices, a, b), &(value as u32).to_le_bytes()),
        2 => raw.write(spot(devices, a, b), &[c]),
        3 => {
            let word = [DeviceWord::Server, DeviceWord::Client][usize::from(b % 2)];
            let offset = [layout::DEVICE_SERVER_OFFSET, layout::DEVICE_CLIENT_OFFSET][usize::from(b % 2)];
            let sealed = seals.seal_word(device, word, value as u32);
            raw.write(device_offset(device) + offset, &sealed.to_le_bytes());
        }
        4 => control.announce_device(device, ["s", "", "\u{fffd}\n", "a\\b"][usize::from(b % 4)]),
        5 => control.set_place(slot, RawPlace { area: u32::from(b), len: u32::from(c), offset: value }),
        6 => {
            let state = [SlotState::Home, SlotState::Lent, SlotState::Returning][usize::from(b % 3)];
            let word = SlotWord { generation: u32::from(c), state }.to_word();
            raw.write(slot_offset(devices, slot), &word.to_le_bytes());
        }
        7 => {
            // A record with its seal.
            let words = [u64::from(b), value, u64::from(c), 1];
            let number = u64::from(b % 4);
            let sealed = u64::from(seals.ring(device, Ring::Completion).record(number, words)) << 32 | 1;
            let entry = device_offset(device) + layout::COMPLETION_OFFSET + layout::RING_ENTRIES_OFFSET + number * 64;
            words.iter().zip(1..).for_each(|(word, at)| raw.write(entry + at * 8, &word.to_le_bytes()));
            raw.write(entry, &sealed.to_le_bytes());
        }
        8 => control.close_device(device),
        9 => control.server_close_device(device),
        10 => drop(control.open_device(device, u32::from(b % 128))),
        _ => control.void_leases(u32::from(b % 128)),
    }
}

/// Attaching judges the identity as it lies there.
fn identity(raw: &Raw<'_>, segment: &Segment, seals: Seals) -> bool {
    let found = RawIdentity { magic: raw.u64(0), version: raw.u32(8), device_count: raw.u32(12), len: raw.u64(16) };
    let expected = found.check(segment.len());
    let attached = Control::attach(segment, seals);
    assert_eq!(
        attached.as_ref().map(Control::device_count).ok(),
        expected.map(|geometry| geometry.device_count()).ok()
    );
    attached.is_ok()
}

fn words(control: &Control, seals: &Seals, raw: &Raw<'_>, device: u32) {
    let block = device_offset(device);
    let found = raw.u64(block + layout::DEVICE_SERVER_OFFSET);
    let value = seals.open_word(device, DeviceWord::Server, found).and_then(ServerWord::from_word);
    assert_eq!(control.server_word(device).ok(), value, "{found:#x}");
    let found = raw.u64(block + layout::DEVICE_CLIENT_OFFSET);
    let value = seals.open_word(device, DeviceWord::Client, found);
    assert_eq!(control.opener(device).is_ok(), value.is_some());
    match (control.client_word(device), value) {
        (Ok(ClientWord::Unopened), Some(0)) | (Err(_), None) => {}
        (Ok(ClientWord::Open { member }), Some(value)) => assert_eq!(member + 1, value),
        (Ok(ClientWord::Closed), Some(value)) => assert!(value & layout::CLIENT_CLOSED != 0),
        other => panic!("{other:?}"),
    }
    let len = raw.u32(block + layout::DEVICE_NAME_OFFSET);
    let seal = raw.u32(block + layout::DEVICE_NAME_OFFSET + 4);
    match control.device_name(device) {
        Ok(None) => assert_eq!(control.server_word(device), Ok(ServerWord::Unopened)),
        Ok(Some(name)) => {
            assert!(check_name(&name).is_ok() && name.len() == len as usize, "{name:?}");
            assert_eq!(seals.name(device, name.as_bytes()), seal);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A consumer takes what bears its seal and its lap, in order, and stays at the first that does not.
fn receive(control: &Control, seals: &Seals, raw: &Raw<'_>, device: u32) {
    let mut consumer = control.completion_consumer(device).expect("a ring");
    let key = seals.ring(device, Ring::Completion);
    let entries = device_offset(device) + layout::COMPLETION_OFFSET + layout::RING_ENTRIES_OFFSET;
    for number in 0..CAPACITY as u64 {
        let entry = entries + number * layout::RING_ENTRY_LEN;
        let words: [u64; 4] = core::array::from_fn(|at| raw.u64(entry + 8 + at as u64 * 8));
        let (lap, seal) = (raw.u32(entry), raw.u32(entry + 4));
        let popped = consumer.pop();
        match popped {
            Ok(None) => assert!(lap == 0 && !consumer.is_ready()),
            Ok(Some(found)) => assert_eq!((found, lap, seal), (words, 1, key.record(number, words))),
            Err(_) => {
                assert!(lap > 1 || lap == 1 && seal != key.record(number, words), "{popped:?}");
                assert!(consumer.is_ready() && consumer.pop() == popped, "it stays so");
            }
        }
        if !matches!(popped, Ok(Some(_))) {
            break;
        }
    }
}

/// A producer fills its ring, and goes on only where the cursor can be true.
fn send(control: &Control, raw: &Raw<'_>, device: u32) {
    let mut producer = control.submission_producer(device).expect("a ring");
    for number in 0..CAPACITY as u64 {
        assert_eq!(producer.push([number; 4]), Ok(()), "an entry that was never used");
    }
    let cursor = raw.u32(device_offset(device) + layout::SUBMISSION_OFFSET);
    match producer.push([9; 4]) {
        Ok(()) => assert!((1..=CAPACITY as u32).contains(&cursor)),
        Err(PushError::Full) => assert_eq!(cursor, 0),
        Err(PushError::Violation(_)) => assert!(cursor > CAPACITY as u32),
    }
}

fn slots(control: &Control, seals: &Seals, raw: &Raw<'_>, devices: u32, number: u32) {
    let at = slot_offset(devices, number);
    let place = at + layout::SLOT_PLACE_OFFSET;
    let found = RawPlace { area: raw.u32(place), len: raw.u32(place + 4), offset: raw.u64(place + 8) };
    let sealed = raw.u32(place + 16) == seals.place(number, &found);
    assert_eq!(control.place(number).ok(), sealed.then_some(found));

    let slot = control.slot(number).expect("a slot");
    let word = raw.u64(at);
    assert_eq!(slot.look(), SlotWord::from_word(word));
    let lent = match slot.look() {
        Some(SlotWord { generation, state: SlotState::Lent }) => Some(generation),
        _ => None,
    };
    let generation = lent.unwrap_or(3);
    assert_eq!(slot.lease(Loan { slot: number, generation }, LESSEE).is_ok(), lent.is_some());
    // A lease that was refused leaves no bit.
    assert_eq!(slot.is_leased_by(LESSEE), lent.is_some());
    assert!(slot.lease(Loan { slot: number, generation: generation.wrapping_add(1) }, LESSEE + 1).is_err());
    assert!(!slot.is_leased_by(LESSEE + 1));
    match slot.take_back(generation) {
        Err(TakeBackError::Leased { leases }) => assert!(lent.is_some() && leases & 1 << LESSEE != 0),
        Err(TakeBackError::NotLent { .. }) => assert!(lent.is_none()),
        Ok(()) => panic!("it is leased"),
    }
    slot.release(LESSEE);
    let leased = (0..layout::MAX_MEMBERS).any(|member| slot.is_leased_by(member));
    assert_eq!(slot.take_back(generation).is_ok(), lent.is_some() && !leased);
}

/// A name, the input.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let run = |steps: &[[u8; STEP]]| [&[1][..], &steps.concat()].concat();
    let mut seeds = vec![("untouched".to_owned(), run(&[]))];
    let work = [[4, 0, 0, 0], [10, 0, 1, 0], [5, 0, 0, 9], [6, 0, 1, 5], [7, 0, 0, 3], [7, 0, 1, 4], [7, 0, 2, 5]];
    seeds.push(("work".to_owned(), run(&work)));
    seeds.push(("closed".to_owned(), run(&[&work[..], &[[9, 0, 0, 0], [8, 0, 0, 0]]].concat())));
    for place in 0..12 {
        let writes = [[0, place, 1, 11], [2, place, 65, 77]];
        seeds.push((format!("write-{place:02}"), run(&[&work[..], &writes].concat())));
    }
    for (value, name) in [(1, "one"), (6, "all"), (7, "high")] {
        let sealed = [[3, 0, 0, value], [3, 0, 1, value], [1, 6, 0, value]];
        seeds.push((format!("sealed-{name}"), run(&[&work[..], &sealed].concat())));
    }
    seeds
}
