//! A member that does not keep to anything: it joins as a secondary, and writes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdi_client::CompletionCode;
use vdi_client::{Options, VdError};
use vdi_proto::abort::AbortReason;
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::handle::SlotState;
use vdi_proto::index::{ClassIndex, DeviceIndex, Generation, MemberIndex, SlotIndex};
use vdi_proto::wire::checksum::{Checksums, Ring};
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_proto::wire::layout::{self, device_offset, slot_word};
use vdi_proto::wire::record;
use vdi_shm::ipc::link::{Link, Received};
use vdi_shm::ipc::ring::FIRST;
use vdi_shm::ipc::runtime::{RuntimeDir, SocketName};
use vdi_shm::ipc::segment::Segment;
use vdi_shm::set::control::{ClientControl, Control, ServerControl};

pub(super) struct Intruder {
    link: Arc<Link>,
    /// Maps no class, but says so at once: a server that had to wait for its answer would slow every run down.
    answers: Option<JoinHandle<()>>,
    /// The control segment in both roles: an intruder keeps to none.
    client: ClientControl,
    server: ServerControl,
    checksums: Checksums,
    segment: OwnedFd,
    devices: u32,
}

/// Values that are more likely to be believed than any.
const VALUES: [u64; 12] = [0, 1, 2, 3, 64, 65, 0xFFFF_FFFF, 0x8000_0000, 0x1_0000_0001, u64::MAX, 1 << 63, 0x0403_0000];

impl Intruder {
    /// Joins, where the set takes secondaries; and takes nothing of its areas.
    pub(super) fn join(options: &Options, set: &str) -> Option<Intruder> {
        let runtime = RuntimeDir::open(options, false).ok()?;
        let link = runtime.connect(&SocketName::new("", set), &options.access).ok()?;
        let hello = Message::Hello { role: JoinRole::Secondary, instance: "", set };
        link.send(hello.encode().bytes(), None).ok()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let Ok(Received::Packet(mut packet)) = link.receive_until(deadline) else { return None };
        let descriptor = packet.take_descriptor();
        let Ok(Message::Welcome { secret, requested, member, classes, .. }) = Message::decode(packet.bytes()) else {
            return None;
        };
        let descriptor = descriptor.expect("a welcome has a segment");
        let segment = descriptor.try_clone().expect("a descriptor more");
        let len = layout::control_len(requested.device_count);
        let checksums = Checksums::new(secret);
        let received = Segment::from_peer(descriptor, len).expect("a sealed segment");
        let control = Arc::new(Control::attach(&received, checksums).ok()?);
        let (client, server) = (ClientControl::new(Arc::clone(&control), member), ServerControl::new(control));
        let link = Arc::new(link);
        let answers = std::thread::spawn({
            let link = Arc::clone(&link);
            move || answer_classes(&link, classes)
        });
        let devices = requested.device_count;
        Some(Intruder { link, answers: Some(answers), client, server, checksums, segment, devices })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        rustix::io::pwrite(&self.segment, bytes, offset).is_ok()
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        rustix::io::pread(&self.segment, bytes, offset).is_ok()
    }

    fn device(&self, number: u8) -> DeviceIndex {
        DeviceIndex::new(u32::from(number) % self.devices).expect("a device of the set")
    }

    fn slot_offset(&self, number: u8) -> u64 {
        layout::slots_offset(self.devices) + u64::from(number % 8) * layout::SLOT_LEN
    }

    /// Somewhere in the segment that means something.
    fn spot(&self, a: u8, b: u8) -> u64 {
        let (device, entry) = (self.device(b), u64::from(b / 4 % 8));
        let block = device_offset(device);
        let slot = self.slot_offset(b);
        let ring = if b & 64 == 0 { layout::SUBMISSION_OFFSET } else { layout::COMPLETION_OFFSET };
        let entry = block + ring + layout::RING_ENTRIES_OFFSET + entry * layout::RING_ENTRY_LEN;
        match a % 15 {
            0 => layout::ABORT_OFFSET,
            1 => layout::SET_EVENTS_OFFSET,
            2 => layout::AGENT_EVENTS_OFFSET,
            3 => layout::DEVICES_OPENED_OFFSET,
            4 => layout::IDENTITY_OFFSET + u64::from(b % 24),
            5 => block + layout::DEVICE_SERVER_OFFSET,
            6 => block + layout::DEVICE_CLIENT_OFFSET,
            7 => block + layout::DEVICE_EVENTS_OFFSET,
            8 => block + layout::DEVICE_NAME_OFFSET + u64::from(b % 16),
            9 => block + ring + layout::RING_HEAD_OFFSET,
            10 => entry,
            11 => entry + 8 + u64::from(b % 4) * 8,
            12 => slot + layout::SLOT_WORD_OFFSET,
            13 => slot + layout::SLOT_LEASES_OFFSET,
            _ => u64::from(b) << 8 | u64::from(a),
        }
    }

    /// Does something; whether it could.
    pub(super) fn act(&mut self, act: u8, [who, a, b]: [u8; 3]) -> bool {
        let device = self.device(who);
        let value = VALUES[usize::from(b) % VALUES.len()].wrapping_add(u64::from(b) / 16);
        let spot = self.spot(who, a);
        match act % 18 {
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
                // Slots as no process left them.
                let generation = Generation::from_bits(u32::from(b / 3));
                let state = [SlotState::Free, SlotState::Lent, SlotState::Reclaiming][usize::from(b % 3)];
                self.write(self.slot_offset(a), &slot_word::encode(state(generation)).to_le_bytes())
            }
            7 | 8 => self.forge(device, a, b),
            9 => self.client.open_device(device).is_ok_and(|rings| rings.is_some()),
            10 => {
                self.client.close_device(device);
                true
            }
            11 => {
                self.server.close_device(device);
                true
            }
            12 => {
                let name = format!("s{}", b % 4);
                self.server.announce_device(device, if b < 128 { &name } else { "other" });
                true
            }
            13 => {
                let reason = AbortReason::from_word(value as u32 | 1).expect("no word but 0 is none");
                self.client.abort(&reason.into());
                true
            }
            14 => {
                // As if the abort had never been.
                self.write(layout::ABORT_OFFSET, &[0; 4])
            }
            15 => {
                let slot = SlotIndex::new(u32::from(a % 8)).expect("a slot");
                let (shared, generation) = (self.client.slot(slot), Generation::from_bits(u32::from(b / 3)));
                let member = |number: u8| MemberIndex::new(u32::from(number % 128)).expect("a member");
                match b % 3 {
                    0 => shared.lease(Loan { slot, generation }, member(5)).is_ok(),
                    1 => shared.reclaim(generation).is_ok(),
                    _ => {
                        shared.release(member(b));
                        true
                    }
                }
            }
            16 => {
                self.client.notify_all();
                true
            }
            _ => self.say(a, b),
        }
    }

    /// A record with its checksum, in the entry of the next record or near it.
    fn forge(&self, device: DeviceIndex, a: u8, b: u8) -> bool {
        let (ring, offset) = match a % 2 {
            0 => (Ring::Submission, layout::SUBMISSION_OFFSET),
            _ => (Ring::Completion, layout::COMPLETION_OFFSET),
        };
        let ring_at = device_offset(device) + offset;
        let mut cursor = [0; 8];
        if !self.read(ring_at + layout::RING_HEAD_OFFSET, &mut cursor) {
            return false;
        }
        let number = u64::from_le_bytes(cursor).wrapping_add(u64::from(a / 2 % 4));
        let id = CommandId((number.wrapping_sub(FIRST) as u32).wrapping_add(u32::from(a / 64)));
        let slot = SlotIndex::new(u32::from(b % 8)).expect("a slot");
        let loan = Some(Loan { slot, generation: Generation::from_bits(u32::from(a / 8 % 8)) });
        let key = self.checksums.ring(device, ring);
        let words = match ring {
            Ring::Submission => {
                let code = CommandCode::ALL[usize::from(b) % CommandCode::ALL.len()];
                let size = [512, 4096, 0, -1, 100][usize::from(a) % 5];
                record::encode_command(&key, number, &CommandRecord { code, id, size, position: u64::MAX, loan })
            }
            Ring::Completion => {
                let code = [CompletionCode::SUCCESS, CompletionCode::IO_DEVICE, CompletionCode::new(u32::from(b))];
                let (code, bytes) = (code[usize::from(b % 3)], [0, 512, 4096, u32::MAX][usize::from(b / 3 % 4)]);
                record::encode_completion(&key, number, &CompletionRecord { id, code, bytes, position: 9 })
            }
        };
        let entry = number % u64::from(layout::RING_CAPACITY);
        let entry = ring_at + layout::RING_ENTRIES_OFFSET + entry * layout::RING_ENTRY_LEN;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(entry + 8, &bytes) && self.write(entry, &number.to_le_bytes())
    }

    /// Sends what no member sends.
    fn say(&self, a: u8, b: u8) -> bool {
        let index = |number: u8| ClassIndex::new(u32::from(number % 64)).expect("a class");
        let message = match a % 5 {
            0 => Message::Leave,
            1 => Message::Class { index: index(b), spec: ClassSpec { buffer_len: 4096, alignment: 512, count: 1 } },
            2 => Message::ClassAnswer { index: index(0), answer: Ok(()) },
            3 => Message::ConfiguredAnswer(Err(Refusal::new(VdError::Memory, ""))),
            _ => Message::Hello { role: JoinRole::Server, instance: "", set: "s" },
        };
        self.link.send(message.encode().bytes(), b.is_multiple_of(2).then_some(self.segment.as_fd())).is_ok()
    }
}

/// Answers each class but the `known` ones, which came with the Welcome, until the link ends.
fn answer_classes(link: &Link, mut known: u32) {
    while let Ok(Received::Packet(packet)) = link.receive_until(Instant::now() + Duration::from_secs(600)) {
        let Ok(Message::Class { index, .. }) = Message::decode(packet.bytes()) else { continue };
        if known > 0 {
            known -= 1;
        } else if link.send(Message::ClassAnswer { index, answer: Ok(()) }.encode().bytes(), None).is_err() {
            return;
        }
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.link.shut_down();
        if let Some(answers) = self.answers.take() {
            answers.join().expect("the intruder's answers");
        }
    }
}
