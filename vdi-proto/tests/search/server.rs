//! The server's process: it configures the set, opens the devices, sends each its commands, and closes it.

use std::rc::Rc;

use vdi_proto::abort::{Cause, Process};
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, Loan};
use vdi_proto::device::ServerDevice;
use vdi_proto::handle::SlotState;
use vdi_proto::index::SlotIndex;
use vdi_proto::set::Opening;
use vdi_proto::set::server::{Call, Closing, State, step};
use vdi_proto::wire::layout::ServerWord;

use super::world::{Bug, End, Setup, Successors, World, server_state};

/// Every transfer has this many bytes.
pub(crate) const BYTES: u32 = 512;

/// Commands and completions on their way: two commands and a ClearError.
const RING_CAPACITY: usize = 3;

/// A buffer, as the server's pool has it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Buffer {
    Free,
    Lent {
        device: usize,
        id: CommandId,
    },
    /// Not lent again in this set.
    Retired,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    pub(crate) machine: Rc<ServerDevice>,
    /// How many commands are left to send.
    left: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) state: State,
    pub(crate) end: Option<End>,
    /// It has seen the abort.
    aborted: bool,
    agent: bool,
    opened: usize,
    pub(crate) devices: Vec<Device>,
    pub(crate) buffers: Vec<Buffer>,
}

/// A call of the server. Returns whether it succeeded.
fn call(world: &mut World, call: Call) -> bool {
    let step = step(server_state(world), call);
    world.server.state = step.next;
    step.answer.is_ok()
}

/// Whether a call would succeed.
fn may(world: &World, call: Call) -> bool {
    step(server_state(world), call).answer.is_ok()
}

impl Server {
    pub(crate) fn new(setup: &Setup) -> Server {
        let device = Device { machine: Rc::new(ServerDevice::new()), left: setup.commands.len() };
        Server {
            state: step(State::DoesNotExist, Call::Open).next,
            end: None,
            aborted: false,
            agent: false,
            opened: 0,
            devices: vec![device; setup.devices as usize],
            buffers: vec![Buffer::Free; setup.buffers],
        }
    }

    fn has_ended(&self) -> bool {
        self.devices.iter().all(|device| device.machine.is_closed())
    }

    pub(crate) fn successors(all: &mut Successors<'_>) {
        let world = all.world;
        let server = &world.server;
        if server.end.is_some() {
            return;
        }
        all.choice("dies", 0, |world| world.server.end = Some(End::Dead));
        if world.clients[0].end.is_some() && !world.work_has_ended() && world.abort.is_none() {
            all.progress("notices that the primary is gone", 0, |world| world.abort(Process::Primary, Cause::Died));
        }
        if server.aborted {
            all.progress("Close after the abort", 0, |world| {
                call(world, Call::Close);
                world.server.end = Some(End::Aborted);
            });
            return;
        }
        if world.abort.is_some() && !server.has_ended() {
            all.progress("sees the abort", 0, Server::see_abort);
        }
        if world.abort.is_none() && !server.has_ended() {
            all.choice("SignalAbort", 0, |world| {
                call(world, Call::SignalAbort);
                world.abort(Process::Server, Cause::Signalled);
            });
            all.choice("Close before the end", 0, |world| {
                call(world, Call::Close);
                world.abort(Process::Server, Cause::ClosedEarly);
                Server::see_abort(world);
                world.server.end = Some(End::Aborted);
            });
        }
        if server.has_ended() {
            all.progress("Close", 0, |world| {
                call(world, Call::Close);
                world.server.end = Some(End::Normal);
            });
        }
        Server::configure(all);
        for device in 0..server.opened {
            Server::device_successors(all, device);
        }
    }

    fn configure(all: &mut Successors<'_>) {
        let (world, server) = (all.world, &all.world.server);
        if may(world, Call::BeginConfiguration) {
            all.progress("BeginConfiguration", 0, |world| {
                call(world, Call::BeginConfiguration);
            });
        }
        if may(world, Call::EndConfiguration { memory: true }) {
            all.progress("EndConfiguration", 0, |world| {
                world.configured = call(world, Call::EndConfiguration { memory: true });
            });
        }
        if !server.agent && may(world, Call::ExecuteCompletionAgent) {
            all.progress("ExecuteCompletionAgent", 0, |world| {
                world.server.agent = call(world, Call::ExecuteCompletionAgent);
            });
        }
        if server.opened < server.devices.len() && may(world, Call::OpenDevice(Opening::Unopened)) {
            all.progress("OpenDevice", server.opened, |world| {
                call(world, Call::OpenDevice(Opening::Unopened));
                world.lines[world.server.opened].server = ServerWord::Open;
                world.server.opened += 1;
            });
        }
    }

    fn device_successors(all: &mut Successors<'_>, device: usize) {
        let (world, setup) = (all.world, all.setup);
        let Device { machine, left } = &world.server.devices[device];
        if world.server.agent && !world.lines[device].completions.is_empty() {
            all.progress("takes a completion", device, |world| Server::take(world, setup, device));
        }
        if machine.is_closed() {
            return;
        }
        let accepts = |code| ServerDevice::clone(machine).send(code, 0).is_ok();
        if machine.in_io_error() && accepts(CommandCode::CLEAR_ERROR) {
            all.progress("sends ClearError", device, |world| {
                Server::send(world, device, CommandCode::CLEAR_ERROR, None);
            });
        } else if *left > 0 && accepts(setup.commands[setup.commands.len() - left]) {
            Server::next_command(all, device, setup.commands[setup.commands.len() - left]);
        }
        let closing = match world.server.devices.iter().filter(|device| !device.machine.is_closed()).count() {
            1 => Closing::Last,
            _ => Closing::One,
        };
        let allowed = may(world, Call::CloseDevice(closing)) || setup.bug == Some(Bug::CloseIgnoresAbort);
        // CloseDevice of the last device ends the set, so all are opened before.
        if allowed && world.server.opened == world.server.devices.len() {
            let done = *left == 0 && machine.outstanding() == 0 && !machine.in_io_error();
            let close = |world: &mut World| Server::close_device(world, setup, device, closing);
            match done {
                true => all.progress("CloseDevice", device, close),
                false => all.choice("CloseDevice before its commands have ended", device, close),
            }
        }
    }

    fn next_command(all: &mut Successors<'_>, device: usize, code: CommandCode) {
        let buffers = &all.world.server.buffers;
        if !code.is_transfer() {
            all.progress("sends a command", device, |world| Server::send(world, device, code, None));
        } else if let Some(slot) = buffers.iter().position(|buffer| *buffer == Buffer::Free) {
            all.progress("sends a transfer", device, |world| Server::send(world, device, code, Some(slot)));
        } else if buffers.iter().all(|buffer| *buffer == Buffer::Retired) && all.world.abort.is_none() {
            // AllocateBuffer returns VD_E_MEMORY: no buffer will come back.
            all.progress("SignalAbort for lack of buffers", device, |world| {
                call(world, Call::SignalAbort);
                world.abort(Process::Server, Cause::Signalled);
            });
        }
    }

    fn send(world: &mut World, device: usize, code: CommandCode, slot: Option<usize>) {
        let bytes = if code.is_transfer() { BYTES } else { 0 };
        let sender = &mut world.server.devices[device];
        let Ok(id) = Rc::make_mut(&mut sender.machine).send(code, bytes) else {
            return world.broken("the machine refuses a command that it accepted before");
        };
        if code != CommandCode::CLEAR_ERROR {
            sender.left -= 1;
        }
        let loan = slot.map(|slot| Server::lend(world, slot, device, id));
        let record = CommandRecord { code, id, size: bytes as i32, position: 0, loan };
        world.lines[device].submissions.push_back(record);
        if world.lines[device].submissions.len() > RING_CAPACITY {
            world.broken("the submission ring overflows");
        }
    }

    fn lend(world: &mut World, slot: usize, device: usize, id: CommandId) -> Loan {
        if world.client_may_hold(slot) {
            world.broken("a buffer is lent while the client may hold it");
        }
        let (SlotState::Free(last) | SlotState::Lent(last) | SlotState::Reclaiming(last)) = world.slots[slot].state;
        if !matches!(world.slots[slot].state, SlotState::Free(_)) {
            world.broken("a slot is lent that is not free");
        }
        let generation = last.next();
        world.slots[slot].state = SlotState::Lent(generation);
        world.server.buffers[slot] = Buffer::Lent { device, id };
        Loan { slot: SlotIndex::new(slot as u32).expect("in range"), generation }
    }

    fn take(world: &mut World, setup: &Setup, device: usize) {
        let Some(record) = world.lines[device].completions.pop_front() else { return };
        let machine = Rc::make_mut(&mut world.server.devices[device].machine);
        let ignored = machine.is_closed() || machine.is_aborted();
        if ignored && setup.bug != Some(Bug::LateCompletionIsAViolation) {
            return;
        }
        let Ok(finished) = machine.completed(record) else {
            return world.broken("an honest client breaks a rule");
        };
        let lent = Buffer::Lent { device, id: finished.id };
        if let Some(slot) = world.server.buffers.iter().position(|buffer| *buffer == lent) {
            world.server.buffers[slot] = Buffer::Free;
            if !matches!(world.slots[slot].state, SlotState::Free(_)) {
                world.broken("a command completes before its buffer is reclaimed");
            }
        }
    }

    fn close_device(world: &mut World, setup: &Setup, device: usize, closing: Closing) {
        if !call(world, Call::CloseDevice(closing)) && setup.bug != Some(Bug::CloseIgnoresAbort) {
            return;
        }
        world.lines[device].server = ServerWord::Closed;
        if Rc::make_mut(&mut world.server.devices[device].machine).close().is_err() {
            world.broken("an open device cannot be closed");
        }
        world.history.committed |= closing == Closing::Last;
        let origin = if setup.bug == Some(Bug::RelendAfterClose) { Buffer::Free } else { Buffer::Retired };
        Server::drain(world, device, &origin);
    }

    fn see_abort(world: &mut World) {
        world.server.aborted = true;
        for device in 0..world.server.devices.len() {
            if !world.server.devices[device].machine.is_closed() {
                Rc::make_mut(&mut world.server.devices[device].machine).abort();
                Server::drain(world, device, &Buffer::Retired);
            }
        }
    }

    /// Ends the outstanding commands of a closed or aborted device.
    fn drain(world: &mut World, device: usize, buffers_become: &Buffer) {
        while let Some(finished) = Rc::make_mut(&mut world.server.devices[device].machine).next_aborted() {
            let lent = Buffer::Lent { device, id: finished.id };
            let buffers = world.server.buffers.iter_mut().filter(|buffer| **buffer == lent);
            buffers.for_each(|buffer| *buffer = buffers_become.clone());
        }
    }
}
