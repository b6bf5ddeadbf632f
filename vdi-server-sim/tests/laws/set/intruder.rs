//! A member that does not keep to anything: it joins as a secondary, and writes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use vdi_client::CompletionCode;
use vdi_client::{Options, VdError};
use vdi_proto::abort::AbortReason;
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::handle::{SlotState, SlotWord};
use vdi_proto::join::{Message, Role};
use vdi_proto::layout::{self, RawPlace, device_offset, slot_offset};
use vdi_proto::seal::{Ring, Seals};
use vdi_shm::control::Control;
use vdi_shm::link::{Link, Received};
use vdi_shm::runtime::{Place, RuntimeDir};
use vdi_shm::segment::Segment;

pub(super) struct Intruder {
    link: Link,
    control: Control,
    seals: Seals,
    segment: OwnedFd,
    devices: u32,
}

/// Values that are more likely to be believed than any.
const VALUES: [u64; 12] = [0, 1, 2, 3, 64, 65, 0xFFFF_FFFF, 0x8000_0000, 0x1_0000_0001, u64::MAX, 1 << 63, 0x0403_0000];

impl Intruder {
    /// Joins, where the set takes secondaries; and takes nothing of its areas.
    pub(super) fn join(options: &Options, set: &str) -> Option<Intruder> {
        let place = Place::new("", set).expect("a good name");
        let runtime = RuntimeDir::open(options, false).ok()?;
        let link = runtime.connect(&place, &options.access).ok()?;
        link.send(&Message::Hello { role: Role::Secondary, instance: "", set }, None).ok()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let Ok(Received::Packet(mut packet)) = link.receive_until(deadline, "an answer") else { return None };
        let descriptor = packet.take_descriptor();
        let Ok(Message::Welcome { secret, asked, .. }) = packet.message() else { return None };
        let descriptor = descriptor.expect("a welcome has a segment");
        let segment = descriptor.try_clone().expect("a descriptor more");
        let len = layout::control_len(asked.device_count);
        let seals = Seals::new(secret);
        let received = Segment::from_peer(descriptor, len).expect("a sealed segment");
        let control = Control::attach(&received, seals).ok()?;
        Some(Intruder { link, control, seals, segment, devices: asked.device_count })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        rustix::io::pwrite(&self.segment, bytes, offset).is_ok()
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        rustix::io::pread(&self.segment, bytes, offset).is_ok()
    }

    /// Somewhere in the segment that means something.
    fn spot(&self, a: u8, b: u8) -> u64 {
        let (device, entry) = (u32::from(b) % self.devices, u64::from(b / 4 % 8));
        let block = device_offset(device);
        let slot = slot_offset(self.devices, u32::from(b % 8));
        let ring = if b & 64 == 0 { layout::SUBMISSION_OFFSET } else { layout::COMPLETION_OFFSET };
        let entry = block + ring + layout::RING_ENTRIES_OFFSET + entry * layout::RING_ENTRY_LEN;
        match a % 16 {
            0 => layout::ABORT_OFFSET,
            1 => layout::SET_DOORBELL_OFFSET,
            2 => layout::AGENT_DOORBELL_OFFSET,
            3 => layout::COUNTS_OFFSET,
            4 => layout::IDENTITY_OFFSET + u64::from(b % 24),
            5 => block + layout::DEVICE_SERVER_OFFSET,
            6 => block + layout::DEVICE_CLIENT_OFFSET,
            7 => block + layout::DEVICE_DOORBELL_OFFSET,
            8 => block + layout::DEVICE_NAME_OFFSET + u64::from(b % 16),
            9 => block + ring + layout::RING_HEAD_OFFSET,
            10 => entry,
            11 => entry + 8 + u64::from(b % 4) * 8,
            12 => slot + layout::SLOT_WORD_OFFSET,
            13 => slot + layout::SLOT_LEASES_OFFSET,
            14 => slot + layout::SLOT_PLACE_OFFSET + u64::from(b % 5) * 4,
            _ => u64::from(b) << 8 | u64::from(a),
        }
    }

    /// Does something; whether it could.
    pub(super) fn act(&mut self, act: u8, [who, a, b]: [u8; 3]) -> bool {
        let device = u32::from(who) % self.devices;
        let value = VALUES[usize::from(b) % VALUES.len()].wrapping_add(u64::from(b) / 16);
        let spot = self.spot(who, a);
        match act % 19 {
            1 => self.write(spot, &value.to_le_bytes()),
            2 => self.write(spot, &[b]),
            3 => self.write(spot, &(value as u32).to_le_bytes()),
            4 => {
                // A bit of what is there.
                let mut bytes = [0; 8];
                let read = self.read(spot, &mut bytes);
                bytes[usize::from(b / 8 % 8)] ^= 1 << (b % 8);
                read && self.write(spot, &bytes)
            }
            5 => {
                // What lies elsewhere: a line of it.
                let mut line = [0; 64];
                self.read(self.spot(who, b), &mut line) && self.write(spot, &line)
            }
            6 => {
                // Slots as nobody left them.
                let state = [SlotState::Home, SlotState::Lent, SlotState::Returning][usize::from(b % 3)];
                let word = SlotWord { generation: u32::from(b / 3), state }.to_word();
                self.write(slot_offset(self.devices, u32::from(a % 8)), &word.to_le_bytes())
            }
            7 => {
                // A place with its seal. An area that may still be announced would be waited for.
                let area = [0, 64, u32::MAX][usize::from(who % 3)];
                let offset = [0, 512, 4096, 8192, 4096 * u64::from(a), u64::MAX - 100][usize::from(b % 6)];
                let len = [512, 4096, 0, u32::MAX][usize::from(b / 6 % 4)];
                self.control.set_place(u32::from(a % 8), RawPlace { area, len, offset });
                true
            }
            8 | 9 => self.forge(device, a, b),
            10 => self.control.open_device(device, u32::from(b % 8)),
            11 => {
                self.control.close_device(device);
                true
            }
            12 => {
                self.control.server_close_device(device);
                true
            }
            13 => {
                let name = format!("s{}", b % 4);
                self.control.announce_device(device, if b < 128 { &name } else { "other" });
                true
            }
            14 => {
                let reason = AbortReason::from_word(value as u32 | 1).expect("no word but 0 is none");
                self.control.abort(reason);
                true
            }
            15 => {
                // As if the abort had never been.
                self.write(layout::ABORT_OFFSET, &[0; 4])
            }
            16 => {
                let slot = self.control.slot(u32::from(a % 8));
                slot.is_some_and(|slot| match b % 3 {
                    0 => slot.lease(Loan { slot: u32::from(a % 8), generation: u32::from(b / 3) }, 5).is_ok(),
                    1 => slot.take_back(u32::from(b / 3)).is_ok(),
                    _ => {
                        slot.release(u32::from(b % 128));
                        true
                    }
                })
            }
            17 => {
                self.control.ring_all();
                true
            }
            _ => self.say(a, b),
        }
    }

    /// A record with its seal, at the place where the next one is awaited, or near it.
    fn forge(&self, device: u32, a: u8, b: u8) -> bool {
        let (ring, offset) = match a % 2 {
            0 => (Ring::Submission, layout::SUBMISSION_OFFSET),
            _ => (Ring::Completion, layout::COMPLETION_OFFSET),
        };
        let ring_at = device_offset(device) + offset;
        let mut cursor = [0; 4];
        if !self.read(ring_at + layout::RING_HEAD_OFFSET, &mut cursor) {
            return false;
        }
        let number = u64::from(u32::from_le_bytes(cursor)) + u64::from(a / 2 % 4);
        let id = CommandId((number as u32).wrapping_add(u32::from(a / 64)));
        let loan = Loan { slot: u32::from(b % 8), generation: u32::from(a / 8 % 8) };
        let words = match ring {
            Ring::Submission => {
                let code = CommandCode::ALL[usize::from(b) % CommandCode::ALL.len()];
                let size = [512, 4096, 0, -1, 100][usize::from(a) % 5];
                CommandRecord { code, id, size, position: u64::MAX, loan }.to_words()
            }
            Ring::Completion => {
                let code = [CompletionCode::SUCCESS, CompletionCode::IO_DEVICE, CompletionCode::new(u32::from(b))];
                let bytes = [0, 512, 4096, u32::MAX][usize::from(b / 3 % 4)];
                CompletionRecord { id, code: code[usize::from(b % 3)], bytes, position: 9 }.to_words()
            }
        };
        let entry =
            ring_at + layout::RING_ENTRIES_OFFSET + number % u64::from(layout::RING_CAPACITY) * layout::RING_ENTRY_LEN;
        let lap = number / u64::from(layout::RING_CAPACITY) + 1;
        let seal = u64::from(self.seals.ring(device, ring).record(number, words));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(entry + 8, &bytes) && self.write(entry, &(seal << 32 | lap & 0xFFFF_FFFF).to_le_bytes())
    }

    /// Says something that no member says.
    fn say(&self, a: u8, b: u8) -> bool {
        let message = match a % 5 {
            0 => Message::Leave,
            1 => Message::Area { index: u32::from(b), len: 4096 },
            2 => Message::AreaAnswer { index: 0, answer: Ok(()) },
            3 => Message::ConfiguredAnswer(Err(VdError::Memory)),
            _ => Message::Hello { role: Role::Server, instance: "", set: "s" },
        };
        self.link.send(&message, b.is_multiple_of(2).then_some(self.segment.as_fd())).is_ok()
    }
}
