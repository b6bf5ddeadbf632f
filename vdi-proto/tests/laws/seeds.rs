//! The first inputs of the fuzz targets.

use std::string::String;
use std::vec::Vec;

use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::features::Features;
use vdi_proto::handle::{HandleCodec, SlotState};
use vdi_proto::index::{ClassIndex, Generation, MemberIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinRole, Message, Refusal};
use vdi_proto::wire::layout::{RawIdentity, slot_word};

use super::bytes::LayoutInput;
use super::calls::{ClientStep, ServerStep};
use super::device::{ClientEvent, Op, ServerEvent, loan};

/// A name, and the input.
pub(crate) type Seed<T> = (String, T);

/// The fuzz targets, by the names of their files.
pub(crate) const TARGETS: [&str; 6] = ["join_message", "layout", "handle", "config", "client_calls", "server_calls"];

/// A message of every kind, and of every shape that a kind has.
pub(crate) fn join_message() -> Vec<Seed<Vec<u8>>> {
    let requested = VdConfig { device_count: 4, features: Features::REQUEST_COMPLETE, ..VdConfig::default() };
    let config = ServerTerms::default().negotiate(&requested).expect("usual terms");
    let (member, index) = (MemberIndex::new(2).expect("in range"), ClassIndex::new(1).expect("in range"));
    let secret = 0x0123_4567_89ab_cdef;
    let welcome = |negotiated| Message::Welcome { member, secret, requested, negotiated, classes: 1 };
    let spec = ClassSpec { buffer_len: 65536, alignment: 4096, count: 10 };
    let reason = AbortReason { process: Process::Secondary(member), cause: Cause::Died };
    let long = "\u{10348}".repeat(128);
    [
        ("server", Message::Hello { role: JoinRole::Server, instance: "", set: "nightly" }),
        ("secondary", Message::Hello { role: JoinRole::Secondary, instance: "SQLEXPRESS", set: "{0F8FAD5B-D9CB}" }),
        ("longest", Message::Hello { role: JoinRole::Server, instance: "ABCDEFGHIJKLMNOP", set: &long }),
        ("welcome", welcome(None)),
        ("welcome-configured", welcome(Some(config))),
        ("refused", Message::Refused(Refusal::new(VdError::Security, "uid 0 is not allowed"))),
        ("class", Message::Class { index, spec }),
        ("class-mapped", Message::ClassAnswer { index, answer: Ok(()) }),
        ("class-refused", Message::ClassAnswer { index, answer: Err(Refusal::new(VdError::Memory, "")) }),
        ("configured", Message::Configured(config)),
        ("configuration-accepted", Message::ConfiguredAnswer(Ok(()))),
        ("configuration-refused", Message::ConfiguredAnswer(Err(Refusal::new(VdError::NotSupported, "")))),
        ("leave", Message::Leave),
        ("aborted", Message::Aborted { reason, code: 0, text: "" }),
        ("gave-up", Message::Aborted { reason, code: 112, text: "the disk is full" }),
    ]
    .into_iter()
    .map(|(name, message)| (name.into(), message.encode().bytes().to_vec()))
    .collect()
}

/// Valid identities with valid classes.
pub(crate) fn layout() -> Vec<Seed<Vec<u8>>> {
    let mut seeds = Vec::new();
    for device_count in [1, 2, 64] {
        for (alignment, prefix, count) in [(512, 0, 1), (4096, 16, 60), (65536, 65536, 500)] {
            let identity = RawIdentity::new(device_count);
            let spec = ClassSpec { buffer_len: 65536, alignment, count };
            let class = spec.lay_out(prefix, device_count).expect("it fits");
            let input = LayoutInput {
                identity,
                mapped_len: identity.len,
                spec,
                prefix,
                first_slot: device_count,
                offset: class.data_offset() + (u64::from(count) - 1) * class.stride(),
            };
            seeds.push((std::format!("{device_count}-devices-{alignment}-{prefix}"), input.write()));
        }
    }
    seeds
}

/// Handles of slots in every state; those of lent slots are valid.
pub(crate) fn handle() -> Vec<Seed<Vec<u8>>> {
    let (secret, generation) = (0x0123_4567_89ab_cdef, Generation::from_bits(41));
    let codec = HandleCodec::new(secret);
    let mut seeds = Vec::new();
    for (name, state) in [("lent", SlotState::Lent(generation)), ("reclaiming", SlotState::Reclaiming(generation))] {
        for slot in [0, 63, 4095] {
            let loan = loan(slot, generation.get());
            let mut bytes = Vec::new();
            bytes.extend(secret.to_le_bytes());
            for number in [codec.encode(loan).number(), slot, generation.get()] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(slot_word::encode(state).to_le_bytes());
            for number in [slot + 1, 0] {
                bytes.extend(number.to_le_bytes());
            }
            seeds.push((std::format!("{name}-{slot}"), bytes));
        }
    }
    seeds
}

/// Configurations of every kind of device that are negotiated.
pub(crate) fn config() -> Vec<Seed<Vec<u8>>> {
    let mut seeds = Vec::new();
    for (kind, features) in [("pipe", 0u32), ("removable-pipe", 1), ("disk", 0x2200), ("tape", 0x173 | 0x3c80)] {
        for (direction, bits) in [("backup", 0x1_0000u32), ("restore", 0x2_0000)] {
            let features = features & !0x1000;
            let tape = features & 0x100 != 0;
            let requested = [4, features, 64, 4096, if tape { 512 } else { 0 }, features & 1, 60_000, 0, 0, 0, 0];
            let (terms, change) = ([bits, 8192, 4096, 1 << 20], [3, 0x6000, 1 << 24]);
            let words = requested.into_iter().chain(terms).chain(change);
            seeds.push((std::format!("{kind}-{direction}"), words.flat_map(u32::to_le_bytes).collect()));
        }
    }
    seeds
}

fn write(id: u8) -> ClientEvent {
    ClientEvent::Received { command: 3, id, blocks: 128, odd: 255, slot: id % 64, position: 0 }
}

/// The work of a client, well and badly ended.
pub(crate) fn client_calls() -> Vec<Seed<Vec<ClientStep>>> {
    // Numbers in Call::ALL: Create, GetConfiguration, OpenDevice, GetCommand, CompleteCommand; VD_E_CLOSE, Close.
    let opened = [0u8, 2, 3].map(ClientStep::Call);
    let mut steps = opened.to_vec();
    for id in 0..4 {
        steps.extend([ClientStep::Call(7), ClientStep::Device(write(id))]);
        steps.push(ClientStep::Device(ClientEvent::CompleteHeld { which: 0, code: 0, bytes: 65536 }));
        steps.push(ClientStep::Call(11));
    }
    let mut normal = steps.clone();
    normal.extend([10, 13].map(ClientStep::Call));
    let mut aborted = steps.clone();
    aborted.extend([ClientStep::Observe(0), ClientStep::Device(ClientEvent::End(1)), ClientStep::Device(write(9))]);
    aborted.extend([ClientStep::Call(12), ClientStep::Call(14)]);
    let clear = ClientEvent::Received { command: 6, id: 10, blocks: 0, odd: 255, slot: 0, position: 0 };
    // A Read of 64 KiB with id 77, generation 3 of slot 63.
    let words = [77 << 32 | 1, 63 << 32 | 65536, 0, 3];
    let mut failed = steps;
    failed.extend(
        [
            write(8),
            write(9),
            ClientEvent::CompleteHeld { which: 0, code: 8, bytes: 512 },
            write(11),
            clear,
            ClientEvent::Complete { id: 9, code: 0, bytes: 65024, position: 0 },
            ClientEvent::Release,
            ClientEvent::CompleteHeld { which: 0, code: 0, bytes: 0 },
            ClientEvent::ReceivedWords(words),
            ClientEvent::CompleteHeld { which: 0, code: 0, bytes: 65024 },
            ClientEvent::End(0),
        ]
        .map(ClientStep::Device),
    );
    Vec::from([("normal".into(), normal), ("aborted".into(), aborted), ("device-error".into(), failed)])
}

/// The work of a server, well and badly ended.
pub(crate) fn server_calls() -> Vec<Seed<Vec<ServerStep>>> {
    // Numbers in Call::ALL: Open, BeginConfiguration, RequestBuffers, EndConfiguration, OpenDevice, the agent.
    let opened = [0u8, 2, 3, 5, 7, 11].map(ServerStep::Call);
    let send = |command| Op::Send { command, blocks: 127, position: 0 };
    let done = |code| Op::Complete { which: 0, code, bytes: 255, position: 0 };
    let mut normal = opened.to_vec();
    for _ in 0..4 {
        normal.push(ServerStep::Call(14));
        normal.extend([send(3), Op::Receive, done(0), Op::Take].map(ServerStep::Pair));
    }
    normal.extend([ServerStep::Pair(Op::End(0)), ServerStep::Call(16), ServerStep::Call(19)]);
    let mut failed = opened.to_vec();
    failed.extend(
        [send(3), send(3), send(3), Op::Receive, Op::Receive, done(8), Op::Receive, Op::Take, send(3), send(6)]
            .map(ServerStep::Pair),
    );
    failed.extend([Op::Receive, done(0), done(0), Op::Take, Op::Take, Op::Take, send(0)].map(ServerStep::Pair));
    let mut full = opened.to_vec();
    full.extend((0..70).map(|_| ServerStep::Pair(send(0))));
    full.extend([Op::Receive, Op::End(2), Op::Notice].map(ServerStep::Pair));
    let mut hostile = opened.to_vec();
    hostile.extend(
        [
            ServerEvent::Send { command: 3, bytes: 65536 },
            ServerEvent::Send { command: 3, bytes: 65536 },
            ServerEvent::CompletedOutstanding { which: 0, code: 0, bytes: 65537, position: 0 },
            ServerEvent::Completed { id: 64, code: 0, bytes: 0, position: 0 },
            ServerEvent::CompletedWords([0, 512, 0, 0]),
            ServerEvent::CompletedOutstanding { which: 0, code: 8, bytes: 512, position: 1 },
            ServerEvent::End(1),
        ]
        .map(ServerStep::Device),
    );
    Vec::from([
        ("normal".into(), normal),
        ("device-error".into(), failed),
        ("queue-full".into(), full),
        ("hostile-client".into(), hostile),
    ])
}

/// Steps as the `arbitrary` crate's derived decoders read them: a variant is chosen by a `u32` that is scaled to their
/// number, integers are little-endian.
pub(crate) trait ToBytes {
    /// Appends the bytes.
    fn to_bytes(&self, bytes: &mut Vec<u8>);
}

fn variant(bytes: &mut Vec<u8>, number: u64, of: u64) {
    bytes.extend(((number << 32).div_ceil(of) as u32).to_le_bytes());
}

macro_rules! put {
    ($bytes:ident, $number:literal of $of:literal $(, $field:expr)*) => {{
        variant($bytes, $number, $of);
        $($bytes.extend($field.to_le_bytes());)*
    }};
}

fn words(bytes: &mut Vec<u8>, words: &[u64; 4]) {
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

impl ToBytes for ClientStep {
    fn to_bytes(&self, bytes: &mut Vec<u8>) {
        match self {
            ClientStep::Call(number) => put!(bytes, 0 of 3, number),
            ClientStep::Observe(number) => put!(bytes, 1 of 3, number),
            ClientStep::Device(event) => {
                variant(bytes, 2, 3);
                match event {
                    ClientEvent::Received { command, id, blocks, odd, slot, position } => {
                        put!(bytes, 0 of 6, command, id, blocks, odd, slot, position);
                    }
                    ClientEvent::ReceivedWords(received) => {
                        variant(bytes, 1, 6);
                        words(bytes, received);
                    }
                    ClientEvent::CompleteHeld { which, code, bytes: count } => {
                        put!(bytes, 2 of 6, which, code, count);
                    }
                    ClientEvent::Complete { id, code, bytes: count, position } => {
                        put!(bytes, 3 of 6, id, code, count, position);
                    }
                    ClientEvent::Release => put!(bytes, 4 of 6),
                    ClientEvent::End(how) => put!(bytes, 5 of 6, how),
                }
            }
        }
    }
}

impl ToBytes for ServerStep {
    fn to_bytes(&self, bytes: &mut Vec<u8>) {
        match self {
            ServerStep::Call(number) => put!(bytes, 0 of 3, number),
            ServerStep::Device(event) => {
                variant(bytes, 1, 3);
                match event {
                    ServerEvent::Send { command, bytes: count } => put!(bytes, 0 of 5, command, count),
                    ServerEvent::CompletedOutstanding { which, code, bytes: count, position } => {
                        put!(bytes, 1 of 5, which, code, count, position);
                    }
                    ServerEvent::Completed { id, code, bytes: count, position } => {
                        put!(bytes, 2 of 5, id, code, count, position);
                    }
                    ServerEvent::CompletedWords(completed) => {
                        variant(bytes, 3, 5);
                        words(bytes, completed);
                    }
                    ServerEvent::End(how) => put!(bytes, 4 of 5, how),
                }
            }
            ServerStep::Pair(op) => {
                variant(bytes, 2, 3);
                match op {
                    Op::Send { command, blocks, position } => put!(bytes, 0 of 7, command, blocks, position),
                    Op::Receive => put!(bytes, 1 of 7),
                    Op::Complete { which, code, bytes: count, position } => {
                        put!(bytes, 2 of 7, which, code, count, position);
                    }
                    Op::CompleteAny { id, bytes: count } => put!(bytes, 3 of 7, id, count),
                    Op::Take => put!(bytes, 4 of 7),
                    Op::Notice => put!(bytes, 5 of 7),
                    Op::End(how) => put!(bytes, 6 of 7, how),
                }
            }
        }
    }
}

/// The bytes of a sequence of steps.
pub(crate) fn encoded<T: ToBytes>(steps: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in steps {
        step.to_bytes(&mut bytes);
    }
    bytes
}
