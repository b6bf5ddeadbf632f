//! The device machines: rule by rule, then at random against an independent model (`tests/laws/device.rs`, which the fuzz
//! targets use as well).

#![allow(clippy::unwrap_used)]

mod laws;

use law::{CODES, COMMANDS, Client, ClientEvent, Op, Pair, Seen, Server, ServerEvent, loan};
use laws::device as law;
use proptest::prelude::*;
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord};
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::device::{ClientDevice, Limits, QUEUE_DEPTH, Receipt, SendRefusal, ServerDevice, Violation};
use vdi_proto::status::VdError;

const LIMITS: Limits = Limits { max_transfer_size: 65536, block_size: 512 };

fn record(id: CommandId, code: CommandCode) -> CommandRecord {
    CommandRecord { code, id, size: 4096, position: 0, loan: code.is_transfer().then_some(loan(1, 1)) }
}

fn answer(id: CommandId, code: CompletionCode, bytes: u32) -> CompletionRecord {
    CompletionRecord { id, code, bytes, position: 0 }
}

#[test]
fn limits_are_those_of_the_configuration() {
    let config = VdConfig { max_transfer_size: 1 << 20, block_size: 4096, ..VdConfig::default() };
    assert_eq!(Limits::new(&config), Limits { max_transfer_size: 1 << 20, block_size: 4096 });
}

#[test]
fn queue_is_full_at_64() {
    let mut device = ServerDevice::new();
    for sent in 0..QUEUE_DEPTH {
        assert_eq!(device.outstanding(), sent);
        device.send(CommandCode::WRITE, 512).unwrap();
    }
    assert_eq!(device.send(CommandCode::WRITE, 512), Err(SendRefusal::QueueFull));
    assert_eq!(SendRefusal::QueueFull.callback_code(), CompletionCode::NO_SYSTEM_RESOURCES);
    assert_eq!(SendRefusal::QueueFull.status(), VdError::QueueFull);
}

#[test]
fn every_refusal_has_its_status_and_callback_code() {
    let rows = [
        (SendRefusal::QueueFull, 0x8077_f001u32, 1450u32),
        (SendRefusal::IoError, 0x8077_f002, 1117),
        (SendRefusal::NotActive, 0x8077_000c, 6),
        (SendRefusal::Aborted, 0x8077_0004, 995),
    ];
    for (refusal, status, code) in rows {
        assert_eq!((refusal.status().hresult(), refusal.callback_code().number()), (status, code), "{refusal:?}");
    }
}

#[test]
fn every_code_but_success_is_an_error() {
    for code in CompletionCode::NAMED.iter().copied().chain([CompletionCode::new(4711)]) {
        let mut device = ServerDevice::new();
        let id = device.send(CommandCode::READ, 4096).unwrap();
        device.completed(answer(id, code, 0)).unwrap();
        assert_eq!(device.in_io_error(), code != CompletionCode::SUCCESS, "{code}");
        let mut device = ClientDevice::new(LIMITS);
        device.received(record(id, CommandCode::READ)).unwrap();
        device.complete(id, code, 0, 0).unwrap();
        assert_eq!(device.in_io_error(), code != CompletionCode::SUCCESS, "{code}");
    }
}

#[test]
fn clear_error_waits_and_commands_queued_behind_an_error_are_rejected() {
    let ids: Vec<CommandId> = (0..4).map(CommandId).collect();
    let mut device = ClientDevice::new(LIMITS);
    for id in &ids[..2] {
        assert!(matches!(device.received(record(*id, CommandCode::WRITE)), Ok(Receipt::Deliver(_))));
    }
    device.complete(ids[0], CompletionCode::DISK_FULL, 0, 0).unwrap();
    let unseen = answer(ids[2], CompletionCode::IO_DEVICE, 0);
    assert_eq!(device.received(record(ids[2], CommandCode::WRITE)), Ok(Receipt::Reject(unseen)));
    let clear = record(ids[3], CommandCode::CLEAR_ERROR);
    assert_eq!(device.received(clear), Ok(Receipt::Hold));
    assert_eq!(device.released(), None);
    // The program may still complete the commands that it holds.
    device.complete(ids[1], CompletionCode::SUCCESS, 4096, 0).unwrap();
    assert!(device.in_io_error());
    assert_eq!(device.released(), Some(clear));
    assert_eq!(device.released(), None);
    device.complete(ids[3], CompletionCode::SUCCESS, 0, 0).unwrap();
    assert!(!device.in_io_error());
}

/// After the end no command is delivered, not even a ClearError that was held back.
#[test]
fn clear_error_is_not_delivered_after_the_end() {
    let (write, clear) = (record(CommandId(0), CommandCode::WRITE), record(CommandId(1), CommandCode::CLEAR_ERROR));
    type End = fn(&mut ClientDevice);
    let ends: [(End, VdError); 2] =
        [(ClientDevice::closed, VdError::Protocol), (ClientDevice::aborted, VdError::Abort)];
    for (end, status) in ends {
        let rejected = Receipt::Reject(answer(clear.id, CompletionCode::OPERATION_ABORTED, 0));
        let mut device = ClientDevice::new(LIMITS);
        end(&mut device);
        assert_eq!(device.received(clear), Ok(rejected));
        assert_eq!(device.outstanding(), 0);

        let mut device = ClientDevice::new(LIMITS);
        device.received(write).unwrap();
        assert_eq!(device.received(clear), Ok(Receipt::Hold));
        end(&mut device);
        assert_eq!(device.complete(write.id, CompletionCode::SUCCESS, 0, 0), Err(status));
        assert_eq!(device.released(), None);

        // Not even if it was due just before.
        let mut device = ClientDevice::new(LIMITS);
        device.received(write).unwrap();
        assert_eq!(device.received(clear), Ok(Receipt::Hold));
        device.complete(write.id, CompletionCode::SUCCESS, 4096, 0).unwrap();
        end(&mut device);
        assert_eq!(device.released(), None);
    }
}

/// A ClearError that is held back uses its index.
#[test]
fn command_with_the_index_of_a_held_clear_error_is_a_violation() {
    let mut device = ClientDevice::new(LIMITS);
    device.received(record(CommandId(0), CommandCode::WRITE)).unwrap();
    device.received(record(CommandId(1), CommandCode::CLEAR_ERROR)).unwrap();
    let intruder = CommandId(1 + QUEUE_DEPTH);
    assert_eq!(
        device.received(record(intruder, CommandCode::FLUSH)),
        Err(Violation::DuplicateCommand { id: intruder, outstanding: CommandId(1) })
    );
}

#[test]
fn violations_have_their_evidence() {
    let mut device = ServerDevice::new();
    let id = device.send(CommandCode::READ, 4096).unwrap();
    let other = CommandId(id.0 + QUEUE_DEPTH);
    let unknown = device.completed(answer(other, CompletionCode::SUCCESS, 0)).unwrap_err();
    assert_eq!(unknown, Violation::UnknownCompletion { id: other });
    let too_many = device.completed(answer(id, CompletionCode::SUCCESS, 4097)).unwrap_err();
    assert_eq!(too_many, Violation::TooManyBytes { id, bytes: 4097, size: 4096 });
    let nothing = device.send(CommandCode::READ, 0).unwrap();
    let too_many = device.completed(answer(nothing, CompletionCode::SUCCESS, 1)).unwrap_err();
    assert_eq!(too_many, Violation::TooManyBytes { id: nothing, bytes: 1, size: 0 });

    let mut device = ClientDevice::new(LIMITS);
    for size in [0, -1, 511, 513, 65537, 66048, i32::MIN, i32::MAX] {
        let wrong = CommandRecord { size, ..record(id, CommandCode::READ) };
        assert_eq!(device.received(wrong), Err(Violation::TransferSize { size, limit: 65536, block: 512 }));
        // The size of other commands has other meanings.
        let mut fresh = ClientDevice::new(LIMITS);
        let skip = CommandRecord { size, ..record(id, CommandCode::SKIP_MARKS) };
        assert_eq!(fresh.received(skip), Ok(Receipt::Deliver(skip)));
    }
    device.received(record(id, CommandCode::WRITE)).unwrap();
    let duplicate = device.received(record(other, CommandCode::WRITE)).unwrap_err();
    assert_eq!(duplicate, Violation::DuplicateCommand { id: other, outstanding: id });
    for violation in [unknown, too_many, duplicate] {
        assert_eq!(violation.code(), VdError::Abort);
    }
}

/// A Read or Write has a buffer, every other command has none.
#[test]
fn loan_without_transfer_and_transfer_without_loan_are_violations() {
    let id = CommandId(0);
    for number in 0..=20 {
        let code = CommandCode::new(number);
        let mut device = ClientDevice::new(LIMITS);
        let good = record(id, code);
        let loan = if good.loan.is_none() { Some(loan(1, 1)) } else { None };
        let violation = device.received(CommandRecord { loan, ..good }).unwrap_err();
        assert_eq!(violation, Violation::Loan { code, lent: loan.is_some() });
        let text = if loan.is_some() { "with a buffer, which it cannot have" } else { "without a buffer" };
        assert_eq!(violation.to_string(), format!("the server sent {code} {text}"));
        assert_eq!(device.received(good), Ok(Receipt::Deliver(good)));
    }
}

/// A transfer may report up to all its bytes; other commands may report anything.
#[test]
fn completion_reports_no_more_bytes_than_were_requested() {
    let mut device = ClientDevice::new(LIMITS);
    let (write, flush) = (record(CommandId(0), CommandCode::WRITE), record(CommandId(1), CommandCode::FLUSH));
    for command in [write, flush] {
        device.received(command).unwrap();
    }
    for bytes in [4097, 65536, u32::MAX] {
        assert_eq!(device.may_complete(write.id, bytes), Err(VdError::Invalid));
        assert_eq!(device.complete(write.id, CompletionCode::SUCCESS, bytes, 0), Err(VdError::Invalid));
    }
    assert_eq!(device.outstanding(), 2);
    assert_eq!(device.may_complete(write.id, 4096), Ok(()));
    assert_eq!(device.complete(write.id, CompletionCode::SUCCESS, 4096, 0).unwrap().bytes, 4096);
    assert_eq!(device.complete(flush.id, CompletionCode::SUCCESS, u32::MAX, 0).unwrap().bytes, 0);
    // Commands that are completed, and ids that were never sent, are not outstanding.
    for id in [write.id, flush.id, CommandId(2), CommandId(QUEUE_DEPTH)] {
        assert_eq!(device.complete(id, CompletionCode::SUCCESS, 0, 0), Err(VdError::Invalid));
    }
}

/// Only Read and Write count bytes, only GetPosition and SetPosition return a position. A client's stale values of other
/// commands are ignored.
#[test]
fn completion_returns_what_its_command_returns() {
    let mut counted = 0;
    for number in 0..=20 {
        let command = CommandCode::new(number);
        let mut device = ServerDevice::new();
        let id = device.send(command, 4096).unwrap();
        let said = CompletionRecord { id, code: CompletionCode::SUCCESS, bytes: 4096, position: 99 };
        let finished = device.completed(said).unwrap();
        assert_eq!(finished.bytes, if matches!(number, 1 | 2) { 4096 } else { 0 }, "{command}");
        assert_eq!(finished.position, if matches!(number, 9 | 10) { 99 } else { 0 }, "{command}");
        counted += 1;
    }
    assert_eq!(counted, 21);
}

/// An id returns only after all sequence numbers, and never while it is in use.
#[test]
fn ids_are_not_reused_soon() {
    let mut device = ServerDevice::new();
    let held = device.send(CommandCode::WRITE, 512).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..100_000 {
        let id = device.send(CommandCode::FLUSH, 0).unwrap();
        assert!(id != held && ids.insert(id.0));
        device.completed(answer(id, CompletionCode::SUCCESS, 0)).unwrap();
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (any::<u8>(), any::<u8>(), any::<u64>())
            .prop_map(|(command, blocks, position)| Op::Send { command, blocks, position }),
        6 => Just(Op::Receive),
        5 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u64>())
            .prop_map(|(which, code, bytes, position)| Op::Complete { which, code, bytes, position }),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(id, bytes)| Op::CompleteAny { id, bytes }),
        1 => (0u32..200, any::<u32>()).prop_map(|(id, bytes)| Op::CompleteAny { id, bytes }),
        6 => Just(Op::Take),
        1 => Just(Op::Notice),
        1 => (0u8..60).prop_map(Op::End),
    ];
    prop::collection::vec(op, 0..400)
}

fn run(ops: &[Op]) -> Seen {
    let mut pair = Pair::new();
    for op in ops {
        pair.step(op);
    }
    pair.finish()
}

fn client_events() -> impl Strategy<Value = Vec<ClientEvent>> {
    let event = prop_oneof![
        8 => (any::<u8>(), any::<u8>(), any::<i16>(), any::<u8>(), any::<u8>(), any::<u64>()).prop_map(
            |(command, id, blocks, odd, slot, position)| {
                // Mostly a valid transfer.
                let (blocks, slot) = if odd < 200 { (blocks.rem_euclid(128) + 1, slot % 64) } else { (blocks, slot) };
                ClientEvent::Received { command, id, blocks, odd, slot, position }
            }
        ),
        1 => any::<[u64; 4]>().prop_map(ClientEvent::ReceivedWords),
        5 => (any::<u8>(), any::<u8>(), any::<u32>())
            .prop_map(|(which, code, bytes)| ClientEvent::CompleteHeld { which, code, bytes }),
        2 => (0u32..300, any::<u32>(), 0u32..70_000, any::<u64>())
            .prop_map(|(id, code, bytes, position)| ClientEvent::Complete { id, code, bytes, position }),
        2 => Just(ClientEvent::Release),
        1 => (0u8..30).prop_map(ClientEvent::End),
    ];
    prop::collection::vec(event, 0..200)
}

fn server_events() -> impl Strategy<Value = Vec<ServerEvent>> {
    let event = prop_oneof![
        6 => (any::<u8>(), 0u32..70_000).prop_map(|(command, bytes)| ServerEvent::Send { command, bytes }),
        4 => (any::<u8>(), any::<u8>(), 0u32..70_000, any::<u64>()).prop_map(|(which, code, bytes, position)| {
            ServerEvent::CompletedOutstanding { which, code, bytes, position }
        }),
        2 => (0u32..300, any::<u32>(), any::<u32>(), any::<u64>())
            .prop_map(|(id, code, bytes, position)| ServerEvent::Completed { id, code, bytes, position }),
        1 => any::<[u64; 4]>().prop_map(ServerEvent::CompletedWords),
        1 => (0u8..30).prop_map(ServerEvent::End),
    ];
    prop::collection::vec(event, 0..300)
}

proptest! {
    /// Two honest machines: every command ends exactly once, and there is no violation.
    #[test]
    fn pair_keeps_the_rules(ops in ops()) {
        run(&ops);
    }

    /// For every record of a server the client's machine does what the model does.
    #[test]
    fn client_machine_equals_its_model(events in client_events()) {
        let mut client = Client::new(law::limits());
        for event in &events {
            law::hostile_to_client(&mut client, event);
        }
    }

    /// For every record of a client the server's machine does what the model does.
    #[test]
    fn server_machine_equals_its_model(events in server_events()) {
        let mut server = Server::new();
        for event in &events {
            law::hostile_to_server(&mut server, event);
        }
    }

    /// Limits that no configuration has are handled as well.
    #[test]
    fn any_limits(limit in 0u32..1 << 20, block in 0u32..1 << 17, size: i32, id: u32) {
        let mut client = Client::new(Limits { max_transfer_size: limit, block_size: block });
        for code in [CommandCode::FLUSH, CommandCode::WRITE] {
            let _ = client.received(CommandRecord { size, ..record(CommandId(id), code) });
        }
    }
}

/// A generator of numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33 ^ self.0 >> 13
    }
}

/// Random runs of a pair reach every situation.
#[test]
fn random_pairs_reach_everything() {
    let mut numbers = Numbers(1);
    let mut seen = Seen::default();
    for run_number in 0..400 {
        // Runs differ in the speed of the client, so that queues are full or empty. Every fourth has no errors and a fast
        // server.
        let (eager, smooth) = (run_number % 3, run_number % 4 == 0);
        let ops: Vec<Op> = (0..300)
            .map(|_| {
                let (n, position) = (numbers.next(), numbers.next());
                let byte = |shift: u32| (n >> shift) as u8;
                if smooth {
                    return match (n >> 24) % 12 {
                        0..=8 => Op::Send { command: byte(0) % 6, blocks: byte(8), position },
                        9 => Op::Receive,
                        10 => Op::Complete { which: byte(0), code: byte(8) % 7, bytes: byte(16), position },
                        _ => Op::Take,
                    };
                }
                match (n >> 24) % (12 + 4 * eager) {
                    0..=6 => Op::Send { command: byte(0), blocks: byte(8), position },
                    7 | 12 | 13 | 16 => Op::Receive,
                    8 | 14 | 17 => Op::Complete { which: byte(0), code: byte(8), bytes: byte(16), position },
                    9 | 15 | 18 | 19 => Op::Take,
                    10 => Op::Notice,
                    _ => Op::End(byte(0)),
                }
            })
            .collect();
        seen.add(&run(&ops));
    }
    assert_eq!(seen.sent, seen.finished);
    for (what, count, at_least) in [
        ("sent", seen.sent, 10_000),
        ("delivered", seen.delivered, 5_000),
        ("rejected unseen", seen.unseen, 500),
        ("ClearErrors held back", seen.clear_errors_held, 100),
        ("ClearErrors done", seen.clear_errors_done, 500),
        ("refused for a full queue", seen.queue_full, 500),
        ("refused in IO-ERROR", seen.refused_in_error, 5_000),
        ("ended by close or abort", seen.ended, 200),
        ("closes", seen.closes, 300),
        ("aborts", seen.aborts, 50),
    ] {
        assert!(count >= at_least, "{what}: {count} of {at_least}; {seen:?}");
    }
    assert_eq!((COMMANDS.iter().filter(|code| (1..=19).contains(*code)).count(), CODES[0]), (27, 0));
}
