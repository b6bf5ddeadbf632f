//! Both sides of a device, joined: what no single side can see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec::Vec;

use vdi_proto::command::{CommandCode, CommandRecord, CompletionRecord, Loan};
use vdi_proto::device::{Finished, Receipt, SendRefusal};

use super::{Asked, CLEAR_ERROR, Client, LIMITS, Mode, Server};

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
    /// A side that has not noticed an abort by the other does so.
    Notice,
    /// Sometimes the end: 0 the server closes, 1 the server aborts, 2 the client aborts; others are nothing.
    End(u8),
}

/// The commands that a [`Pair`] sends: all 19, the common ones more often, and one without a name.
pub(crate) const COMMANDS: [u32; 28] =
    [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 77, 2, 1];
/// The codes that a [`Pair`]'s program completes with: mostly success.
pub(crate) const CODES: [u32; 12] = [0, 0, 0, 0, 0, 0, 0, 38, 112, 1117, 50, 4711];

/// What a run of a [`Pair`] came across, so that a test can tell whether it tried anything.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) finished: u64,
    pub(crate) delivered: u64,
    /// Rejected with ERROR_IO_DEVICE before the program saw them.
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

/// Both sides of a device in one thread, connected by two first-in-first-out queues of words.
pub(crate) struct Pair {
    server: Server,
    client: Client,
    /// Commands on their way.
    down: VecDeque<[u64; 4]>,
    /// Completions on their way.
    up: VecDeque<[u64; 4]>,
    /// What was ever sent under an id.
    commands: BTreeMap<u32, CommandRecord>,
    /// The ids of the commands that have not ended.
    open: BTreeSet<u32>,
    /// The outstanding commands that the program saw.
    shown: BTreeSet<u32>,
    /// How an outstanding command should end once its completion is taken.
    due: BTreeMap<u32, (u32, u32, u64)>,
    aborted: bool,
    seen: Seen,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Pair {
            server: Server::new(),
            client: Client::new(LIMITS),
            down: VecDeque::new(),
            up: VecDeque::new(),
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
                // The model knows the answer; a program's wrong call must never reach the server.
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
        let asked = Asked { id: 0, code: command, bytes: (u32::from(blocks) % 128 + 1) * LIMITS.block_size };
        let bytes = if asked.is_transfer() { asked.bytes } else { 0 };
        match self.server.send(command, bytes) {
            Ok(id) => {
                let loan = Loan { slot: id.0 % LIMITS.slots, generation: self.seen.sent as u32 };
                let code = CommandCode::new(command);
                let record = CommandRecord { code, id, size: asked.bytes as i32, position, loan };
                self.down.push_back(record.to_words());
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

    /// GetCommand; whether there was anything to do.
    fn receive(&mut self) -> bool {
        let Some(words) = self.down.pop_front() else {
            if self.server.mode == Mode::Closed {
                self.client.closed();
            }
            return false;
        };
        let record = CommandRecord::from_words(words);
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
        assert_eq!(self.commands.get(&record.id.0), Some(&record), "the program sees what was sent");
        self.shown.insert(record.id.0);
        self.seen.delivered += 1;
    }

    fn complete(&mut self, which: usize, code: u32, bytes: u8, position: u64) {
        let Some(held) = self.client.held(which) else { return };
        // Beyond a transfer's bytes only where they mean nothing.
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
        self.up.push_back(completion.to_words());
    }

    /// The server's completion agent; whether there was anything to do.
    fn take(&mut self) -> bool {
        let Some(words) = self.up.pop_front() else { return false };
        if self.server.over() {
            // What the client says after the end is ignored.
            return true;
        }
        let record = CompletionRecord::from_words(words);
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

    /// Moves everything on until nothing is under way; the program completes what it holds with `code`.
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

    /// Lets the work come to its end, with both sides in agreement, and tells what was seen.
    pub(crate) fn finish(mut self) -> Seen {
        self.notice();
        self.settle(0);
        if !self.server.over() {
            assert_eq!(self.server.in_io_error(), self.client.error, "both sides know the same");
            assert!(self.server.outstanding.is_empty() && self.open.is_empty());
            if self.server.in_io_error() {
                self.send(2, 0, 0);
                assert!(self.down.is_empty(), "in IO-ERROR a Write is refused at once");
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
