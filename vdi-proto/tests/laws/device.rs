//! The device machines beside an independent, slower and simpler model of the same rules: [`Server`] and [`Client`] do
//! everything twice and compare, also that a refused event leaves the machine as it was. [`Pair`] joins the two by two
//! queues, as the rings do, and watches over what no single side can see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::vec::Vec;

use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::{ClientDevice, Finished, Limits, QUEUE_DEPTH, Receipt, SendRefusal, ServerDevice, Violation};
use vdi_proto::status::VdError;

const CLEAR_ERROR: u32 = 3;

/// A command as the models remember it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u32,
    code: u32,
    bytes: u32,
}

impl Asked {
    fn is_transfer(&self) -> bool {
        self.code == 1 || self.code == 2
    }

    fn returns_position(&self) -> bool {
        self.code == 9 || self.code == 10
    }
}

/// Runs one event on a machine, and makes sure that a refusal changed nothing.
fn tried<M: Clone + Debug, T, E>(machine: &mut M, event: impl FnOnce(&mut M) -> Result<T, E>) -> Result<T, E> {
    let before = machine.clone();
    let answer = event(machine);
    if answer.is_err() {
        assert_eq!(std::format!("{before:?}"), std::format!("{machine:?}"), "a refused event changed the machine");
    }
    answer
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Active,
    IoError,
    Clearing,
    Closed,
    Aborted,
}

/// The server's machine beside its model.
pub(crate) struct Server {
    machine: ServerDevice,
    mode: Mode,
    /// By id.
    outstanding: BTreeMap<u32, Asked>,
    pub(crate) sent: u64,
    pub(crate) finished: u64,
}

impl Server {
    pub(crate) fn new() -> Self {
        let machine = ServerDevice::new();
        Server { machine, mode: Mode::Active, outstanding: BTreeMap::new(), sent: 0, finished: 0 }
    }

    fn over(&self) -> bool {
        matches!(self.mode, Mode::Closed | Mode::Aborted)
    }

    pub(crate) fn send(&mut self, code: u32, bytes: u32) -> Result<CommandId, SendRefusal> {
        let refusal = match self.mode {
            Mode::Closed => Some(SendRefusal::NotActive),
            Mode::Aborted => Some(SendRefusal::Aborted),
            Mode::Clearing => Some(SendRefusal::IoError),
            Mode::IoError if code != CLEAR_ERROR => Some(SendRefusal::IoError),
            Mode::IoError | Mode::Active => (self.outstanding.len() == 64).then_some(SendRefusal::QueueFull),
        };
        let answer = tried(&mut self.machine, |machine| machine.send(CommandCode::new(code), bytes));
        assert_eq!(answer.err(), refusal, "SendCommand of {code} in {:?}", self.mode);
        if let Ok(id) = answer {
            assert!(self.outstanding.keys().all(|other| other % 64 != id.0 % 64), "{id:?} has a place in use");
            self.outstanding.insert(id.0, Asked { id: id.0, code, bytes });
            self.sent += 1;
            if code == CLEAR_ERROR {
                self.mode = Mode::Clearing;
            }
        }
        self.check();
        answer
    }

    pub(crate) fn completed(&mut self, record: CompletionRecord) -> Result<Finished, Violation> {
        let CompletionRecord { id, code, bytes, position } = record;
        let expected = match self.outstanding.get(&id.0) {
            None => Err(Violation::UnknownCompletion { id }),
            Some(asked) if asked.is_transfer() && bytes > asked.bytes => {
                Err(Violation::TooManyBytes { id, bytes, size: asked.bytes })
            }
            Some(asked) => Ok(Finished {
                id,
                command: CommandCode::new(asked.code),
                code,
                bytes: if asked.is_transfer() { bytes } else { 0 },
                position: if asked.returns_position() { position } else { 0 },
            }),
        };
        let answer = tried(&mut self.machine, |machine| machine.completed(record));
        assert_eq!(answer, expected);
        if let Ok(finished) = answer {
            let asked = self.outstanding.remove(&id.0).expect("known to the model");
            assert!(finished.bytes <= asked.bytes);
            assert_eq!(finished.place(), id.0 as usize % 64);
            self.finished += 1;
            self.mode = match self.mode {
                Mode::Clearing if asked.code == CLEAR_ERROR && code.number() == 0 => Mode::Active,
                Mode::Clearing if asked.code == CLEAR_ERROR => Mode::IoError,
                Mode::Active if code.number() != 0 => Mode::IoError,
                mode => mode,
            };
        }
        self.check();
        answer
    }

    /// CloseDevice; the commands that it ended.
    pub(crate) fn close(&mut self) -> Vec<Finished> {
        let expected = match self.mode {
            Mode::Closed => Err(VdError::Close),
            Mode::Aborted => Err(VdError::Abort),
            Mode::Active | Mode::IoError | Mode::Clearing => Ok(()),
        };
        if expected.is_ok() {
            assert_eq!(self.machine.next_aborted(), None, "nothing ends while the device is at work");
        }
        let answer = tried(&mut self.machine, ServerDevice::close);
        assert_eq!(answer, expected, "CloseDevice in {:?}", self.mode);
        if answer.is_ok() {
            self.mode = Mode::Closed;
        }
        self.drained()
    }

    /// The set was aborted; the commands that it ended.
    pub(crate) fn abort(&mut self) -> Vec<Finished> {
        self.machine.abort();
        self.mode = Mode::Aborted;
        self.drained()
    }

    fn drained(&mut self) -> Vec<Finished> {
        let mut ended = Vec::new();
        while let Some(finished) = self.machine.next_aborted() {
            let asked = self.outstanding.remove(&finished.id.0).expect("each ends once");
            assert_eq!((finished.command.number(), finished.code.number()), (asked.code, 995));
            assert_eq!((finished.bytes, finished.position), (0, 0));
            self.finished += 1;
            ended.push(finished);
        }
        assert!(self.outstanding.is_empty(), "everything ends with the device");
        self.check();
        ended
    }

    /// An outstanding id, by any number.
    pub(crate) fn outstanding_id(&self, which: usize) -> Option<u32> {
        self.outstanding.keys().nth(which % self.outstanding.len().max(1)).copied()
    }

    pub(crate) fn in_io_error(&self) -> bool {
        self.machine.in_io_error()
    }

    fn check(&self) {
        assert!(self.outstanding.len() <= QUEUE_DEPTH as usize);
        assert_eq!(self.machine.outstanding() as usize, self.outstanding.len());
        assert_eq!(self.sent, self.finished + self.outstanding.len() as u64, "a command was lost, or ended twice");
        assert_eq!(self.machine.in_io_error(), matches!(self.mode, Mode::IoError | Mode::Clearing));
        assert_eq!(self.machine.is_closed(), self.mode == Mode::Closed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Closed,
    Aborted,
}

/// The client's machine beside its model.
pub(crate) struct Client {
    machine: ClientDevice,
    limits: Limits,
    /// What the program holds, by place.
    program: BTreeMap<u32, Asked>,
    waiting: Option<CommandRecord>,
    error: bool,
    end: Option<End>,
}

impl Client {
    pub(crate) fn new(limits: Limits) -> Self {
        let machine = ClientDevice::new(limits);
        Client { machine, limits, program: BTreeMap::new(), waiting: None, error: false, end: None }
    }

    fn judge(&self, record: &CommandRecord) -> Result<(), Violation> {
        let Limits { max_transfer_size: limit, block_size: block, slots } = self.limits;
        let asked = Asked { id: record.id.0, code: record.code.number(), bytes: 0 };
        let whole_blocks = (1..=limit / block.max(1)).any(|blocks| i64::from(record.size) == i64::from(blocks * block));
        if asked.is_transfer() && !whole_blocks {
            return Err(Violation::TransferSize { size: record.size, limit, block });
        }
        if asked.is_transfer() && record.loan.slot >= slots {
            return Err(Violation::NoSuchSlot { slot: record.loan.slot, slots });
        }
        if let Some(there) = self.program.get(&(asked.id % 64)) {
            return Err(Violation::DuplicateCommand { id: record.id, outstanding: CommandId(there.id) });
        }
        match self.waiting {
            Some(waiting) if asked.code == CLEAR_ERROR || waiting.id.0 % 64 == asked.id % 64 => {
                Err(Violation::DuplicateCommand { id: record.id, outstanding: waiting.id })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn received(&mut self, record: CommandRecord) -> Result<Receipt, Violation> {
        let clear = record.code.number() == CLEAR_ERROR;
        let reject = |code| {
            Receipt::Reject(CompletionRecord { id: record.id, code: CompletionCode::new(code), bytes: 0, position: 0 })
        };
        let expected = self.judge(&record).map(|()| {
            if self.end.is_some() {
                reject(995)
            } else if clear && !self.program.is_empty() {
                Receipt::Hold
            } else if !clear && (self.error || self.waiting.is_some()) {
                reject(1117)
            } else {
                Receipt::Deliver(record)
            }
        });
        let answer = tried(&mut self.machine, |machine| machine.received(record));
        assert_eq!(answer, expected, "{record:?}");
        match answer {
            Ok(Receipt::Hold) => self.waiting = Some(record),
            Ok(Receipt::Deliver(delivered)) => self.delivered(delivered),
            Ok(Receipt::Reject(_)) | Err(_) => {}
        }
        self.check();
        answer
    }

    pub(crate) fn released(&mut self) -> Option<CommandRecord> {
        let due = self.end.is_none() && self.program.is_empty();
        let expected = if due { self.waiting.take() } else { None };
        assert_eq!(self.machine.released(), expected);
        if let Some(record) = expected {
            self.delivered(record);
        }
        self.check();
        expected
    }

    fn delivered(&mut self, record: CommandRecord) {
        let mut asked = Asked { id: record.id.0, code: record.code.number(), bytes: 0 };
        if asked.is_transfer() {
            asked.bytes = record.size as u32;
        }
        assert!(self.end.is_none(), "nothing is delivered after the end");
        if asked.code == CLEAR_ERROR {
            assert!(self.program.is_empty(), "ClearError comes when the program holds nothing");
        } else {
            assert!(!self.error, "in IO-ERROR only ClearError gets through");
        }
        self.program.insert(asked.id % 64, asked);
    }

    pub(crate) fn complete(
        &mut self,
        id: u32,
        code: u32,
        bytes: u32,
        position: u64,
    ) -> Result<CompletionRecord, VdError> {
        let held = self.program.get(&(id % 64)).copied().filter(|asked| asked.id == id);
        let (id, code) = (CommandId(id), CompletionCode::new(code));
        let expected = match (self.end, held) {
            (Some(End::Aborted), _) => Err(VdError::Abort),
            (Some(End::Closed), _) => Err(VdError::Protocol),
            (None, None) => Err(VdError::Invalid),
            (None, Some(asked)) if asked.is_transfer() && bytes > asked.bytes => Err(VdError::Invalid),
            (None, Some(asked)) => {
                let bytes = if asked.is_transfer() { bytes } else { 0 };
                Ok(CompletionRecord { id, code, bytes, position })
            }
        };
        assert_eq!(self.machine.may_complete(id, bytes), expected.map(|_| ()));
        let answer = tried(&mut self.machine, |machine| machine.complete(id, code, bytes, position));
        assert_eq!(answer, expected, "CompleteCommand of {id:?}");
        if answer.is_ok() {
            let asked = self.program.remove(&(id.0 % 64)).expect("held");
            if code.number() != 0 {
                self.error = true;
            } else if asked.code == CLEAR_ERROR {
                self.error = false;
            }
        }
        self.check();
        answer
    }

    pub(crate) fn closed(&mut self) {
        self.machine.closed();
        self.end.get_or_insert(End::Closed);
        self.check();
    }

    pub(crate) fn aborted(&mut self) {
        self.machine.aborted();
        self.end = Some(End::Aborted);
        self.check();
    }

    /// A command that the program holds, by any number.
    fn held(&self, which: usize) -> Option<Asked> {
        self.program.values().nth(which % self.program.len().max(1)).copied()
    }

    pub(crate) fn held_id(&self, which: usize) -> Option<u32> {
        self.held(which).map(|asked| asked.id)
    }

    fn check(&self) {
        assert_eq!(self.machine.outstanding() as usize, self.program.len());
        assert_eq!(self.machine.in_io_error(), self.error && self.end.is_none());
        assert_eq!(self.machine.is_closed(), self.end == Some(End::Closed));
    }
}

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

const LIMITS: Limits = Limits { max_transfer_size: 65536, block_size: 512, slots: 64 };

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

/// What may happen to a client's machine when its server is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum ClientEvent {
    /// A command as a server might have thought of it: most of them nearly right.
    Received { command: u8, id: u8, blocks: i16, odd: u8, slot: u8, position: u64 },
    /// Any words at all.
    ReceivedWords([u64; 4]),
    /// The program completes a command that it holds.
    CompleteHeld { which: u8, code: u8, bytes: u32 },
    /// The program completes whatever it thinks of.
    Complete { id: u32, code: u32, bytes: u32, position: u64 },
    /// The program asks for a ClearError that was held back.
    Release,
    /// Sometimes the end: 0 closed, 1 aborted; others are nothing.
    End(u8),
}

/// A client's machine against any server.
pub(crate) fn hostile_to_client(client: &mut Client, event: &ClientEvent) {
    match *event {
        ClientEvent::Received { command, id, blocks, odd, slot, position } => {
            let size = i32::from(blocks) % 160 * 512 + if odd < 6 { i32::from(odd) } else { 0 };
            let _ = client.received(CommandRecord {
                code: CommandCode::new(COMMANDS[usize::from(command) % COMMANDS.len()]),
                id: CommandId(u32::from(id)),
                size,
                position,
                loan: Loan { slot: u32::from(slot), generation: 0 },
            });
        }
        ClientEvent::ReceivedWords(words) => {
            let _ = client.received(CommandRecord::from_words(words));
        }
        ClientEvent::CompleteHeld { which, code, bytes } => {
            if let Some(id) = client.held_id(usize::from(which)) {
                let _ = client.complete(id, CODES[usize::from(code) % CODES.len()], bytes % 70_000, 0);
            }
        }
        ClientEvent::Complete { id, code, bytes, position } => {
            let _ = client.complete(id, code, bytes, position);
        }
        ClientEvent::Release => {
            let _ = client.released();
        }
        ClientEvent::End(0) => client.closed(),
        ClientEvent::End(1) => client.aborted(),
        ClientEvent::End(_) => {}
    }
}

/// What may happen to a server's machine when its client is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum ServerEvent {
    /// SendCommand.
    Send { command: u8, bytes: u32 },
    /// A completion of something outstanding, with whatever the client says.
    CompletedOutstanding { which: u8, code: u8, bytes: u32, position: u64 },
    /// A completion of anything.
    Completed { id: u32, code: u32, bytes: u32, position: u64 },
    /// Any words at all.
    CompletedWords([u64; 4]),
    /// Sometimes the end: 0 close, 1 abort; others are nothing.
    End(u8),
}

/// A server's machine against any client.
pub(crate) fn hostile_to_server(server: &mut Server, event: &ServerEvent) {
    match *event {
        ServerEvent::Send { command, bytes } => {
            let _ = server.send(COMMANDS[usize::from(command) % COMMANDS.len()], bytes);
        }
        ServerEvent::CompletedOutstanding { which, code, bytes, position } => {
            if let Some(id) = server.outstanding_id(usize::from(which)) {
                let code = CompletionCode::new(CODES[usize::from(code) % CODES.len()]);
                let _ = server.completed(CompletionRecord { id: CommandId(id), code, bytes, position });
            }
        }
        ServerEvent::Completed { id, code, bytes, position } => {
            let code = CompletionCode::new(code);
            let _ = server.completed(CompletionRecord { id: CommandId(id), code, bytes, position });
        }
        ServerEvent::CompletedWords(words) => {
            let _ = server.completed(CompletionRecord::from_words(words));
        }
        ServerEvent::End(0) => {
            server.close();
        }
        ServerEvent::End(1) => {
            server.abort();
        }
        ServerEvent::End(_) => {}
    }
}

/// The limits of a set with little in it.
pub(crate) const fn limits() -> Limits {
    LIMITS
}
