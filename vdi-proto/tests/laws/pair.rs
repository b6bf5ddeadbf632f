//! Both sides of a device, joined by two queues: the rules that need both sides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec::Vec;

use vdi_proto::command::{CommandCode, CommandRecord, CompletionRecord};
use vdi_proto::device::{Finished, Receipt, SendRefusal};
use vdi_proto::wire::checksum::{ChecksumKey, Ring};
use vdi_proto::wire::record::{decode_command, decode_completion, encode_command, encode_completion};

use super::super::words::ring;
use super::{CLEAR_ERROR, Client, LIMITS, Mode, Sent, Server, loan};

/// One step of a [`Pair`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum Op {
    /// The server calls SendCommand.
    Send { command: u8, blocks: u8, position: u64 },
    /// The client takes the next command from the queue.
    Receive,
    /// The client's program completes one of the commands that it holds.
    Complete { which: u8, code: u8, bytes: u8, position: u64 },
    /// The client's program completes a command that it may not hold.
    CompleteAny { id: u32, bytes: u32 },
    /// The server takes the next completion from the queue.
    Take,
    /// Both sides notice an abort.
    Notice,
    /// 0: the server closes the device, 1: the server aborts, 2: the client aborts, others: nothing.
    End(u8),
}

/// The commands that a [`Pair`] sends: all 19, the common ones more often, and one without a name.
pub(crate) const COMMANDS: [u32; 28] =
    [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 77, 2, 1];
/// The completion codes of a [`Pair`]'s program: mostly success.
pub(crate) const CODES: [u32; 12] = [0, 0, 0, 0, 0, 0, 0, 38, 112, 1117, 50, 4711];

/// What happened in a run of a [`Pair`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) finished: u64,
    pub(crate) delivered: u64,
    /// Rejected with ERROR_IO_DEVICE; the program never got them.
    pub(crate) unseen: u64,
    pub(crate) clear_errors_held: u64,
    pub(crate) clear_errors_done: u64,
    pub(crate) queue_full: u64,
    pub(crate) refused_in_error: u64,
    /// Ended by a close or an abort.
    pub(crate) ended: u64,
    pub(crate) closes: u64,
    pub(crate) aborts: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        for (sum, one) in [
            (&mut self.sent, other.sent),
            (&mut self.finished, other.finished),
            (&mut self.delivered, other.delivered),
            (&mut self.unseen, other.unseen),
            (&mut self.clear_errors_held, other.clear_errors_held),
            (&mut self.clear_errors_done, other.clear_errors_done),
            (&mut self.queue_full, other.queue_full),
            (&mut self.refused_in_error, other.refused_in_error),
            (&mut self.ended, other.ended),
            (&mut self.closes, other.closes),
            (&mut self.aborts, other.aborts),
        ] {
            *sum += one;
        }
    }
}

/// A queue of records as words, with the checksums of a ring.
struct Queue {
    key: ChecksumKey,
    /// Records pushed, and records popped.
    numbers: (u64, u64),
    words: VecDeque<[u64; 4]>,
}

impl Queue {
    fn new(key: ChecksumKey) -> Self {
        Queue { key, numbers: (0, 0), words: VecDeque::new() }
    }

    fn push<R>(&mut self, record: &R, encode: fn(&ChecksumKey, u64, &R) -> [u64; 4]) {
        self.words.push_back(encode(&self.key, self.numbers.0, record));
        self.numbers.0 += 1;
    }

    fn pop<R, E: std::fmt::Debug>(&mut self, decode: fn(&ChecksumKey, u64, [u64; 4]) -> Result<R, E>) -> Option<R> {
        let words = self.words.pop_front()?;
        let record = decode(&self.key, self.numbers.1, words).expect("it was encoded");
        self.numbers.1 += 1;
        Some(record)
    }
}

/// Both sides of a device in one thread.
pub(crate) struct Pair {
    server: Server,
    client: Client,
    /// Commands on their way to the client.
    submissions: Queue,
    /// Completions on their way to the server.
    completions: Queue,
    /// All commands sent, by id.
    commands: BTreeMap<u32, CommandRecord>,
    /// The ids of the commands that have not ended.
    open: BTreeSet<u32>,
    /// The outstanding commands that the program got.
    shown: BTreeSet<u32>,
    /// The expected end of an outstanding command, once it is completed.
    due: BTreeMap<u32, (u32, u32, u64)>,
    aborted: bool,
    seen: Seen,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Pair {
            server: Server::new(),
            client: Client::new(LIMITS),
            submissions: Queue::new(ring(Ring::Submission)),
            completions: Queue::new(ring(Ring::Completion)),
            commands: BTreeMap::new(),
            open: BTreeSet::new(),
            shown: BTreeSet::new(),
            due: BTreeMap::new(),
            aborted: false,
            seen: Seen::default(),
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match *op {
            Op::Send { command, blocks, position } => {
                self.send(COMMANDS[usize::from(command) % COMMANDS.len()], blocks, position);
            }
            Op::Receive => {
                self.receive();
            }
            Op::Complete { which, code, bytes, position } => {
                self.complete(usize::from(which), CODES[usize::from(code) % CODES.len()], bytes, position);
            }
            Op::CompleteAny { id, bytes } => {
                // The completion of a command that the program does not hold is refused.
                if self.client.program.get(&(id % 64)).is_none_or(|held| held.id != id) {
                    assert!(self.client.complete(id, 0, bytes, 0).is_err());
                }
            }
            Op::Take => {
                self.take();
            }
            Op::Notice => self.notice(),
            Op::End(0) => self.close(),
            Op::End(1) => {
                self.aborted = true;
                let ended = self.server.abort();
                self.ended(ended);
                self.seen.aborts += 1;
            }
            Op::End(2) => {
                self.aborted = true;
                self.client.aborted();
                self.seen.aborts += 1;
            }
            Op::End(_) => {}
        }
    }

    fn send(&mut self, command: u32, blocks: u8, position: u64) {
        let sent = Sent { id: 0, code: command, bytes: (u32::from(blocks) % 128 + 1) * LIMITS.block_size };
        let bytes = if sent.is_transfer() { sent.bytes } else { 0 };
        match self.server.send(command, bytes) {
            Ok(id) => {
                let loan = sent.is_transfer().then(|| loan(id.0, self.seen.sent as u32));
                let code = CommandCode::new(command);
                let record = CommandRecord { code, id, size: sent.bytes as i32, position, loan };
                self.submissions.push(&record, encode_command);
                assert!(self.commands.insert(id.0, record).is_none() && self.open.insert(id.0));
                self.seen.sent += 1;
            }
            Err(SendRefusal::QueueFull) => {
                assert_eq!(self.server.outstanding.len(), 64);
                self.seen.queue_full += 1;
            }
            Err(SendRefusal::IoError) => self.seen.refused_in_error += 1,
            Err(SendRefusal::NotActive | SendRefusal::Aborted) => assert!(self.server.over()),
        }
    }

    /// GetCommand. Returns whether there was a command.
    fn receive(&mut self) -> bool {
        let Some(record) = self.submissions.pop(decode_command) else {
            if self.server.mode == Mode::Closed {
                self.client.closed();
            }
            return false;
        };
        match self.client.received(record).expect("an honest server breaks no rule") {
            Receipt::Deliver(record) => self.show(record),
            Receipt::Hold => self.seen.clear_errors_held += 1,
            Receipt::Reject(completion) => {
                if self.client.end.is_none() {
                    assert_eq!((completion.code.number(), completion.bytes), (1117, 0));
                    self.seen.unseen += 1;
                }
                self.reply(completion);
            }
        }
        true
    }

    fn show(&mut self, record: CommandRecord) {
        assert_eq!(self.commands.get(&record.id.0), Some(&record), "the program gets what was sent");
        self.shown.insert(record.id.0);
        self.seen.delivered += 1;
    }

    fn complete(&mut self, which: usize, code: u32, bytes: u8, position: u64) {
        let Some(held) = self.client.held(which) else { return };
        // More bytes than a transfer has only for other commands.
        let bytes = if held.is_transfer() { held.bytes / 255 * u32::from(bytes) } else { u32::from(bytes) << 24 };
        match self.client.complete(held.id, code, bytes, position) {
            Ok(completion) => self.reply(completion),
            Err(_) => assert!(self.client.end.is_some()),
        }
        if let Some(record) = self.client.released() {
            self.show(record);
        }
    }

    fn reply(&mut self, completion: CompletionRecord) {
        let id = completion.id.0;
        let before = self.due.insert(id, (completion.code.number(), completion.bytes, completion.position));
        assert!(before.is_none() || self.server.over(), "a command is answered once");
        self.completions.push(&completion, encode_completion);
    }

    /// The server's completion agent. Returns whether there was a completion.
    fn take(&mut self) -> bool {
        let Some(record) = self.completions.pop(decode_completion) else { return false };
        if self.server.over() {
            // Completions after the end are ignored.
            return true;
        }
        let finished = self.server.completed(record).expect("an honest client breaks no rule");
        let (code, bytes, position) = self.due.remove(&finished.id.0).expect("it was answered");
        let sent = self.commands[&finished.id.0];
        assert!(self.open.remove(&finished.id.0), "a command ends once");
        assert_eq!((finished.command, finished.code.number(), finished.bytes), (sent.code, code, bytes));
        let returns_position = matches!(sent.code.number(), 9 | 10);
        assert_eq!(finished.position, if returns_position { position } else { 0 });
        if !self.shown.remove(&finished.id.0) {
            assert!(matches!(code, 1117 | 995), "an unseen command ends with ERROR_IO_DEVICE or by the end");
        }
        if finished.command.number() == CLEAR_ERROR && code == 0 {
            self.seen.clear_errors_done += 1;
        }
        self.seen.finished += 1;
        true
    }

    fn notice(&mut self) {
        if self.aborted {
            self.client.aborted();
            let ended = self.server.abort();
            self.ended(ended);
        }
    }

    fn close(&mut self) {
        let was_over = self.server.over();
        let ended = self.server.close();
        assert!(!was_over || ended.is_empty());
        self.ended(ended);
        self.seen.closes += u64::from(!was_over);
    }

    fn ended(&mut self, ended: Vec<Finished>) {
        for finished in ended {
            assert!(self.open.remove(&finished.id.0), "a command ends once");
            assert_eq!(self.commands[&finished.id.0].code, finished.command);
            self.seen.ended += 1;
            self.seen.finished += 1;
        }
    }

    /// Runs both sides until no record is on its way. The program completes its commands with `code`.
    fn settle(&mut self, code: u32) {
        loop {
            let moved = self.receive() | self.take();
            let holds = !self.client.program.is_empty() && self.client.end.is_none();
            if holds {
                self.complete(0, code, 255, 0);
            }
            if !moved && !holds {
                return;
            }
        }
    }

    /// Ends the work, and checks that both sides agree. Returns what happened.
    pub(crate) fn finish(mut self) -> Seen {
        self.notice();
        self.settle(0);
        if !self.server.over() {
            assert_eq!(self.server.in_io_error(), self.client.error, "both sides have the same state");
            assert!(self.server.outstanding.is_empty() && self.open.is_empty());
            if self.server.in_io_error() {
                self.send(2, 0, 0);
                assert!(self.submissions.words.is_empty(), "in IO-ERROR a Write is refused at once");
                self.send(CLEAR_ERROR, 0, 0);
                self.settle(1117);
                assert!(self.server.in_io_error() && self.client.error, "a failed ClearError clears nothing");
                self.send(CLEAR_ERROR, 0, 0);
                self.settle(0);
            }
            assert!(!self.server.in_io_error() && !self.client.error);
            let delivered = self.seen.delivered;
            self.send(2, 0, 0);
            self.settle(0);
            assert_eq!(self.seen.delivered, delivered + 1, "the device is Active again");
            self.close();
            self.settle(0);
        }
        if self.client.end.is_none() {
            assert!(!self.receive());
        }
        assert!(self.client.end.is_some() && self.server.over());
        assert_eq!((self.server.sent, self.server.finished), (self.seen.sent, self.seen.finished));
        assert_eq!(self.seen.sent, self.seen.finished, "every command sent is finished exactly once");
        assert!(self.open.is_empty());
        self.seen
    }
}
