//! The state of a set: shared memory, the server's process and the clients' processes, with the real machines of both
//! sides.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::command::{CommandCode, CommandRecord, CompletionRecord, Loan};
use vdi_proto::device::{ClientDevice, ServerDevice};
use vdi_proto::handle::SlotState;
use vdi_proto::index::{Generation, MemberIndex};
use vdi_proto::set::server;
use vdi_proto::wire::layout::{ClientWord, ServerWord};

use super::client::{Client, Mapping};
use super::server::{Buffer, Server};

/// What a second client process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secondary {
    /// There is none.
    None,
    /// It opens the last device.
    Device,
    /// It maps buffers of the primary's commands.
    Mapper,
}

/// A rule that a test breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The server lends the buffers of a closed device again.
    RelendAfterClose,
    /// The server closes the last device although the set was aborted.
    CloseIgnoresAbort,
    /// The server does not expect completions after it closed a device.
    LateCompletionIsAViolation,
    /// The primary does not report the server's death.
    DeathUnnoticed,
    /// The client does not deliver a ClearError that was held back.
    ClearErrorForgotten,
    /// The client completes rejected commands, and keeps their buffers.
    RejectKeepsBuffer,
    /// A completion does not check the leases once more after it has marked the slot.
    LeasesCheckedOnce,
    /// A map that meets a slot being reclaimed waits for the outcome, also after the work has ended.
    MapWaitsAfterEnd,
    /// The devices of a secondary that died after the work had ended stay open.
    DeadSecondaryStaysOpen,
}

/// What a search runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) devices: u32,
    /// The commands that the server sends to each device.
    pub(crate) commands: &'static [CommandCode],
    pub(crate) buffers: usize,
    pub(crate) secondary: Secondary,
    /// How many commands of the set may fail.
    pub(crate) errors: u8,
    pub(crate) bug: Option<Bug>,
}

/// Which process makes a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Primary,
    Secondary,
}

/// A transition, for the way to a failure.
#[derive(Clone, Copy)]
pub(crate) struct Action {
    role: Role,
    what: &'static str,
    /// The device or slot.
    which: u8,
}

impl Action {
    pub(crate) const START: Action = Action { role: Role::Primary, what: "Create", which: 0 };
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} ({})", self.role, self.what, self.which)
    }
}

/// How a role has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Every device was closed.
    Normal,
    /// It left before the others, its own work done.
    Left,
    Aborted,
    Dead,
}

/// The shared memory of a device.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) server: ServerWord,
    pub(crate) client: ClientWord,
    pub(crate) submissions: VecDeque<CommandRecord>,
    pub(crate) completions: VecDeque<CompletionRecord>,
}

/// The shared memory of a buffer. Only one process maps buffers, so one lease bit is enough.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) state: SlotState,
    pub(crate) leased: bool,
}

/// What has happened, as no process needs to know it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// The server has closed its last device: the work has ended normally.
    pub(crate) committed: bool,
    /// A client aborted after that.
    pub(crate) aborted_late: bool,
    /// A rule that a transition broke.
    pub(crate) broken: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) abort: Option<AbortReason>,
    pub(crate) configured: bool,
    pub(crate) lines: Vec<Line>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) server: Server,
    /// The primary, and the secondary if there is one.
    pub(crate) clients: Vec<Client>,
    pub(crate) errors_left: u8,
    pub(crate) history: History,
}

/// Machines that many states share.
#[derive(Default)]
pub(crate) struct Shared {
    servers: HashSet<Rc<ServerDevice>>,
    clients: HashSet<Rc<ClientDevice>>,
}

fn share<T: Eq + Hash>(known: &mut HashSet<Rc<T>>, machine: &mut Rc<T>) {
    match known.get(machine) {
        Some(same) => *machine = Rc::clone(same),
        None => {
            known.insert(Rc::clone(machine));
        }
    }
}

impl World {
    /// The client has created the set, the server has opened it, the secondary has joined.
    pub(crate) fn new(setup: &Setup) -> World {
        let line = Line {
            server: ServerWord::Unopened,
            client: ClientWord::Unopened,
            submissions: VecDeque::new(),
            completions: VecDeque::new(),
        };
        let slot = Slot { state: SlotState::Free(Generation::default()), leased: false };
        let mut clients = vec![Client::primary(setup)];
        clients.extend((setup.secondary != Secondary::None).then(|| Client::secondary(setup)));
        World {
            abort: None,
            configured: false,
            lines: vec![line; setup.devices as usize],
            slots: vec![slot; setup.buffers],
            server: Server::new(setup),
            clients,
            errors_left: setup.errors,
            history: History::default(),
        }
    }

    /// Replaces machines by equal ones of other states, to save memory.
    pub(crate) fn share(&mut self, shared: &mut Shared) {
        self.server.devices.iter_mut().for_each(|device| share(&mut shared.servers, &mut device.machine));
        let devices = self.clients.iter_mut().flat_map(|client| client.devices.iter_mut().flatten());
        devices.for_each(|device| share(&mut shared.clients, &mut device.machine));
    }

    pub(crate) fn broken(&mut self, rule: &'static str) {
        self.history.broken.get_or_insert(rule);
    }

    /// Sets the abort word. The first reason stays.
    pub(crate) fn abort(&mut self, process: Process, cause: Cause) {
        self.abort.get_or_insert(AbortReason { process, cause });
    }

    /// The server has closed all devices, and the set is not aborted. Deaths do not matter any more.
    pub(crate) fn work_has_ended(&self) -> bool {
        self.abort.is_none() && self.lines.iter().all(|line| line.server == ServerWord::Closed)
    }

    /// Every device has returned VD_E_CLOSE.
    pub(crate) fn all_closed(&self) -> bool {
        self.lines.iter().all(|line| matches!(line.client, ClientWord::Closed { .. }))
    }

    /// Whether a command that has not ended on the client's side has the buffer.
    pub(crate) fn client_may_hold(&self, slot: usize) -> bool {
        self.submitted(slot) + self.held(slot) > 0
    }

    fn submitted(&self, slot: usize) -> usize {
        let records = self.lines.iter().flat_map(|line| &line.submissions);
        records.filter(|record| has(record, slot)).count()
    }

    fn held(&self, slot: usize) -> usize {
        let devices = self.clients.iter().flat_map(|client| client.devices.iter().flatten());
        devices.flat_map(|device| &device.held).filter(|held| has(&held.record, slot)).count()
    }

    /// Completions on their way for the command that has the buffer.
    fn completed(&self, buffer: &Buffer) -> usize {
        match buffer {
            Buffer::Lent { device, id } => {
                self.lines[*device].completions.iter().filter(|record| record.id == *id).count()
            }
            Buffer::Free | Buffer::Retired => 0,
        }
    }

    /// The rules of every state.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(rule) = self.history.broken {
            return Err(rule.to_owned());
        }
        for (slot, buffer) in self.server.buffers.iter().enumerate() {
            let with_client = self.submitted(slot) + self.held(slot);
            let owners = match buffer {
                Buffer::Free => 1 + with_client,
                Buffer::Lent { .. } => with_client + self.completed(buffer),
                Buffer::Retired => with_client.max(1),
            };
            // A client that is dead, or drops its commands after an abort, does not return its buffers.
            let lost = matches!(buffer, Buffer::Lent { .. }) && self.clients.iter().any(Client::keeps_buffers);
            if owners != 1 && !(owners == 0 && lost) {
                return Err(format!("slot {slot} has {owners} owners"));
            }
        }
        for client in &self.clients {
            if let Some(Mapping::Mapped(loan)) = client.mapping {
                self.check_mapped(loan)?;
            }
            if client.end == Some(End::Normal) && !self.history.committed {
                return Err("a client ended normally, and the server had not closed all devices".to_owned());
            }
        }
        Ok(())
    }

    /// A mapped buffer stays lent.
    fn check_mapped(&self, loan: Loan) -> Result<(), String> {
        match self.slots[loan.slot.as_usize()].state {
            SlotState::Lent(generation) | SlotState::Reclaiming(generation) if generation == loan.generation => Ok(()),
            _ => Err("a buffer is mapped, and its slot is not lent".to_owned()),
        }
    }

    /// The rules of a state without progress. Returns how the roles have ended.
    pub(crate) fn check_end(&self) -> Result<String, String> {
        let server = self.server.end;
        let roles = [("the server", server)].into_iter();
        let clients = ["the primary", "the secondary"].into_iter().zip(self.clients.iter().map(|client| client.end));
        for (name, end) in roles.chain(clients.clone()) {
            let Some(end) = end else { return Err(format!("{name} waits for something that cannot come")) };
            let agreed = match end {
                End::Dead | End::Left => true,
                End::Normal => self.history.committed,
                // After the work has ended, only a client that aborts takes the others with it; never the server.
                End::Aborted => {
                    self.abort.is_some()
                        && (!self.history.committed || self.history.aborted_late && name != "the server")
                }
            };
            if !agreed {
                return Err(format!("{name} ended {end:?}, and the set otherwise"));
            }
        }
        let commands = self.server.devices.iter().map(|device| device.machine.outstanding()).sum::<u32>();
        if server != Some(End::Dead) && commands > 0 {
            return Err(format!("{commands} commands have not ended"));
        }
        let ends: Vec<String> = clients.map(|(_, end)| format!("{:?}", end.unwrap_or(End::Dead))).collect();
        Ok(format!("server {:?}, clients {}", server.unwrap_or(End::Dead), ends.join(" and ")))
    }
}

fn has(record: &CommandRecord, slot: usize) -> bool {
    record.loan.is_some_and(|loan| loan.slot.as_usize() == slot)
}

/// A transition and the state after it.
pub(crate) struct Successor {
    pub(crate) action: Action,
    pub(crate) progress: bool,
    pub(crate) world: World,
}

/// Collects the transitions of a state.
pub(crate) struct Successors<'a> {
    pub(crate) world: &'a World,
    pub(crate) setup: &'a Setup,
    role: Role,
    found: Vec<Successor>,
}

impl<'a> Successors<'a> {
    pub(crate) fn of(world: &'a World, setup: &'a Setup) -> Vec<Successor> {
        let mut all = Successors { world, setup, role: Role::Server, found: Vec::new() };
        Server::successors(&mut all);
        for (index, role) in (0..world.clients.len()).zip([Role::Primary, Role::Secondary]) {
            all.role = role;
            Client::successors(&mut all, index);
        }
        all.found
    }

    /// A transition that the role makes sooner or later.
    pub(crate) fn progress(&mut self, what: &'static str, which: usize, change: impl FnOnce(&mut World)) {
        self.push(what, which, true, change);
    }

    /// A transition that the role may or may not make.
    pub(crate) fn choice(&mut self, what: &'static str, which: usize, change: impl FnOnce(&mut World)) {
        self.push(what, which, false, change);
    }

    fn push(&mut self, what: &'static str, which: usize, progress: bool, change: impl FnOnce(&mut World)) {
        let mut world = self.world.clone();
        change(&mut world);
        let action = Action { role: self.role, what, which: which as u8 };
        self.found.push(Successor { action, progress, world });
    }
}

/// The server's state as its calls find it: an abort word ends every state but DNE.
pub(crate) fn server_state(world: &World) -> server::State {
    match world.server.state {
        server::State::DoesNotExist => server::State::DoesNotExist,
        _ if world.abort.is_some() => server::State::AbnormallyTerminated,
        state => state,
    }
}

/// The secondary's index in the set.
pub(crate) fn secondary_index() -> MemberIndex {
    MemberIndex::new(2).expect("in range")
}
