//! The device machines compared with an independent, simpler model of the same rules. [`Server`] and [`Client`] run every
//! event on both, and check that a refused event does not change the machine. [`Pair`] joins the two by two queues of
//! words, as rings do, and checks the rules that need both sides.

use std::collections::BTreeMap;
use std::vec::Vec;

use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::{ClientDevice, Finished, Limits, QUEUE_DEPTH, Receipt, SendRefusal, ServerDevice, Violation};
use vdi_proto::index::{Generation, SlotIndex};
use vdi_proto::status::VdError;

use super::words::{any_command, any_completion};

#[path = "pair.rs"]
mod pair;

pub(crate) use pair::{CODES, COMMANDS, Op, Pair, Seen};

const CLEAR_ERROR: u32 = 3;

const LIMITS: Limits = Limits { max_transfer_size: 65536, block_size: 512 };

/// A command of the models.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: u32,
    code: u32,
    bytes: u32,
}

impl Sent {
    fn is_transfer(&self) -> bool {
        self.code == 1 || self.code == 2
    }

    fn returns_position(&self) -> bool {
        self.code == 9 || self.code == 10
    }
}

/// Runs one event on a machine, and checks that a refusal changes nothing.
fn checked<M: Clone + PartialEq, T, E>(machine: &mut M, event: impl FnOnce(&mut M) -> Result<T, E>) -> Result<T, E> {
    let before = machine.clone();
    let answer = event(machine);
    assert!(answer.is_ok() || before == *machine, "a refused event changed the machine");
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

/// The server's machine and its model.
pub(crate) struct Server {
    machine: ServerDevice,
    mode: Mode,
    /// By id.
    outstanding: BTreeMap<u32, Sent>,
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
        let answer = checked(&mut self.machine, |machine| machine.send(CommandCode::new(code), bytes));
        assert_eq!(answer.err(), refusal, "SendCommand of {code} in {:?}", self.mode);
        if let Ok(id) = answer {
            assert!(self.outstanding.keys().all(|other| other % 64 != id.0 % 64), "{id:?} has an index in use");
            self.outstanding.insert(id.0, Sent { id: id.0, code, bytes });
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
            Some(sent) if sent.is_transfer() && bytes > sent.bytes => {
                Err(Violation::TooManyBytes { id, bytes, size: sent.bytes })
            }
            Some(sent) => Ok(Finished {
                id,
                command: CommandCode::new(sent.code),
                code,
                bytes: if sent.is_transfer() { bytes } else { 0 },
                position: if sent.returns_position() { position } else { 0 },
            }),
        };
        let answer = checked(&mut self.machine, |machine| machine.completed(record));
        assert_eq!(answer, expected);
        if let Ok(finished) = answer {
            let sent = self.outstanding.remove(&id.0).expect("known to the model");
            assert!(finished.bytes <= sent.bytes);
            self.finished += 1;
            self.mode = match self.mode {
                Mode::Clearing if sent.code == CLEAR_ERROR && code.number() == 0 => Mode::Active,
                Mode::Clearing if sent.code == CLEAR_ERROR => Mode::IoError,
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
            assert_eq!(self.machine.next_aborted(), None, "nothing ends while the device is open");
        }
        let answer = checked(&mut self.machine, ServerDevice::close);
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
            let sent = self.outstanding.remove(&finished.id.0).expect("each ends once");
            assert_eq!((finished.command.number(), finished.code.number()), (sent.code, 995));
            assert_eq!((finished.bytes, finished.position), (0, 0));
            self.finished += 1;
            ended.push(finished);
        }
        assert!(self.outstanding.is_empty(), "everything ends with the device");
        self.check();
        ended
    }

    /// An outstanding id, chosen by any number.
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

/// The client's machine and its model.
pub(crate) struct Client {
    machine: ClientDevice,
    limits: Limits,
    /// The commands that the program holds, by index.
    program: BTreeMap<u32, Sent>,
    waiting: Option<CommandRecord>,
    error: bool,
    end: Option<End>,
}

impl Client {
    pub(crate) fn new(limits: Limits) -> Self {
        let machine = ClientDevice::new(limits);
        Client { machine, limits, program: BTreeMap::new(), waiting: None, error: false, end: None }
    }

    fn validate(&self, record: &CommandRecord) -> Result<(), Violation> {
        let Limits { max_transfer_size: limit, block_size: block } = self.limits;
        let sent = Sent { id: record.id.0, code: record.code.number(), bytes: 0 };
        let whole_blocks = (1..=limit / block.max(1)).any(|blocks| i64::from(record.size) == i64::from(blocks * block));
        match (sent.is_transfer(), record.loan) {
            (true, None) => return Err(Violation::Loan { code: record.code, lent: false }),
            (false, Some(_)) => return Err(Violation::Loan { code: record.code, lent: true }),
            (true, Some(_)) if !whole_blocks => {
                return Err(Violation::TransferSize { size: record.size, limit, block });
            }
            (true, Some(_)) | (false, None) => {}
        }
        if let Some(there) = self.program.get(&(sent.id % 64)) {
            return Err(Violation::DuplicateCommand { id: record.id, outstanding: CommandId(there.id) });
        }
        match self.waiting {
            Some(waiting) if sent.code == CLEAR_ERROR || waiting.id.0 % 64 == sent.id % 64 => {
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
        let expected = self.validate(&record).map(|()| {
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
        let answer = checked(&mut self.machine, |machine| machine.received(record));
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
        let mut sent = Sent { id: record.id.0, code: record.code.number(), bytes: 0 };
        if sent.is_transfer() {
            sent.bytes = record.size as u32;
        }
        assert!(self.end.is_none(), "nothing is delivered after the end");
        if sent.code == CLEAR_ERROR {
            assert!(self.program.is_empty(), "ClearError comes when the program holds nothing");
        } else {
            assert!(!self.error, "in IO-ERROR only ClearError gets through");
        }
        self.program.insert(sent.id % 64, sent);
    }

    pub(crate) fn complete(
        &mut self,
        id: u32,
        code: u32,
        bytes: u32,
        position: u64,
    ) -> Result<CompletionRecord, VdError> {
        let held = self.program.get(&(id % 64)).copied().filter(|sent| sent.id == id);
        let (id, code) = (CommandId(id), CompletionCode::new(code));
        let expected = match (self.end, held) {
            (Some(End::Aborted), _) => Err(VdError::Abort),
            (Some(End::Closed), _) => Err(VdError::Protocol),
            (None, None) => Err(VdError::Invalid),
            (None, Some(sent)) if sent.is_transfer() && bytes > sent.bytes => Err(VdError::Invalid),
            (None, Some(sent)) => {
                let bytes = if sent.is_transfer() { bytes } else { 0 };
                Ok(CompletionRecord { id, code, bytes, position })
            }
        };
        assert_eq!(self.machine.may_complete(id, bytes), expected.map(|_| ()));
        let answer = checked(&mut self.machine, |machine| machine.complete(id, code, bytes, position));
        assert_eq!(answer, expected, "CompleteCommand of {id:?}");
        if answer.is_ok() {
            let sent = self.program.remove(&(id.0 % 64)).expect("held");
            if code.number() != 0 {
                self.error = true;
            } else if sent.code == CLEAR_ERROR {
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

    /// A command that the program holds, chosen by any number.
    fn held(&self, which: usize) -> Option<Sent> {
        self.program.values().nth(which % self.program.len().max(1)).copied()
    }

    pub(crate) fn held_id(&self, which: usize) -> Option<u32> {
        self.held(which).map(|sent| sent.id)
    }

    fn check(&self) {
        assert_eq!(self.machine.outstanding() as usize, self.program.len());
        assert_eq!(self.machine.in_io_error(), self.error && self.end.is_none());
        assert_eq!(self.machine.is_closed(), self.end == Some(End::Closed));
    }
}

/// The events of a client's machine with any server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum ClientEvent {
    /// A command, mostly nearly right.
    Received { command: u8, id: u8, blocks: i16, odd: u8, slot: u8, position: u64 },
    /// A record of any words, with their checksum.
    ReceivedWords([u64; 4]),
    /// The program completes a command that it holds.
    CompleteHeld { which: u8, code: u8, bytes: u32 },
    /// The program completes any id.
    Complete { id: u32, code: u32, bytes: u32, position: u64 },
    /// The program fetches a ClearError that was held back.
    Release,
    /// 0: the device was closed, 1: the set was aborted, others: nothing.
    End(u8),
}

/// Runs an event on a client's machine.
pub(crate) fn hostile_to_client(client: &mut Client, event: &ClientEvent) {
    match *event {
        ClientEvent::Received { command, id, blocks, odd, slot, position } => {
            let size = i32::from(blocks) % 160 * 512 + if odd < 6 { i32::from(odd) } else { 0 };
            let code = CommandCode::new(COMMANDS[usize::from(command) % COMMANDS.len()]);
            // Now and then a transfer without a buffer, or another command with one.
            let lent = code.is_transfer() != (odd == 6);
            let loan = lent.then_some(loan(u32::from(slot), 0));
            let _ = client.received(CommandRecord { code, id: CommandId(u32::from(id)), size, position, loan });
        }
        ClientEvent::ReceivedWords(words) => {
            if let Some(record) = any_command(words) {
                let _ = client.received(record);
            }
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

/// The events of a server's machine with any client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum ServerEvent {
    /// SendCommand.
    Send { command: u8, bytes: u32 },
    /// A completion of an outstanding command.
    CompletedOutstanding { which: u8, code: u8, bytes: u32, position: u64 },
    /// A completion of any id.
    Completed { id: u32, code: u32, bytes: u32, position: u64 },
    /// A record of any words, with their checksum.
    CompletedWords([u64; 4]),
    /// 0: CloseDevice, 1: the set was aborted, others: nothing.
    End(u8),
}

/// Runs an event on a server's machine.
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
            if let Some(record) = any_completion(words) {
                let _ = server.completed(record);
            }
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

/// The limits of the laws' set.
pub(crate) const fn limits() -> Limits {
    LIMITS
}

/// A loan, its slot reduced to the slots of a set.
pub(crate) fn loan(slot: u32, generation: u32) -> Loan {
    let slot = SlotIndex::new(slot % 4096).expect("in range");
    Loan { slot, generation: Generation::from_bits(generation) }
}
