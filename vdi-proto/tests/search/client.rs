//! A client's process: it opens its devices, completes their commands, and closes the set. The primary also reports the
//! deaths of others.

use std::rc::Rc;

use vdi_proto::abort::{Cause, Process};
use vdi_proto::command::{CommandRecord, CompletionRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::{ClientDevice, Limits, Receipt};
use vdi_proto::handle::{self, SlotState};
use vdi_proto::index::MemberIndex;
use vdi_proto::set::client::{Call, CommandPoll, Observation, State, observe, step};
use vdi_proto::set::{Opening, SetPhase};
use vdi_proto::status::VdError;
use vdi_proto::wire::layout::{ClientWord, ServerWord};

use super::server::BYTES;
use super::world::{Bug, End, Secondary, Setup, Successors, World, secondary_index};

const LIMITS: Limits = Limits { max_transfer_size: BYTES, block_size: BYTES };

/// A command that the program holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) record: CommandRecord,
    completing: Completing,
}

/// How far the completion of a command with a buffer is. Where no process maps buffers, it is one step.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Completing {
    No,
    /// The buffer had no lease.
    Checked,
    /// The slot is marked. The leases are checked once more.
    Reclaiming,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    pub(crate) machine: Rc<ClientDevice>,
    pub(crate) held: Vec<Held>,
}

/// A buffer that a secondary maps by its handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mapping {
    /// It has the handle.
    Handle(Loan),
    /// It has set its lease bit, and is about to check the slot.
    Leasing(Loan),
    Mapped(Loan),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    member: MemberIndex,
    state: State,
    pub(crate) end: Option<End>,
    /// It has seen the abort.
    aborted: bool,
    /// The devices of the set; `None` for those that this process has not opened.
    pub(crate) devices: Vec<Option<Device>>,
    pub(crate) mapping: Option<Mapping>,
    maps_left: u8,
    /// The primary has noticed that the server, or the secondary, is gone.
    noticed: [bool; 2],
}

/// The state after what other processes did.
fn state(world: &World, index: usize) -> State {
    let mut state = world.clients[index].state;
    if world.abort.is_some() {
        state = observe(state, Observation::Aborted);
    }
    if world.lines.iter().any(|line| line.client != ClientWord::Unopened) {
        state = observe(state, Observation::DeviceOpened);
    }
    if world.all_closed() {
        state = observe(state, Observation::AllClosed);
    }
    state
}

fn call(world: &mut World, index: usize, call: Call) -> Result<(), VdError> {
    let step = step(state(world, index), call);
    world.clients[index].state = step.next;
    step.answer
}

fn may(world: &World, index: usize, call: Call) -> bool {
    step(state(world, index), call).answer.is_ok()
}

fn device(world: &mut World, index: usize, device: usize) -> Option<&mut Device> {
    world.clients[index].devices[device].as_mut()
}

impl Client {
    pub(crate) fn primary(setup: &Setup) -> Client {
        Client {
            member: MemberIndex::PRIMARY,
            state: step(State::DoesNotExist, Call::Create).next,
            end: None,
            aborted: false,
            devices: vec![None; setup.devices as usize],
            mapping: None,
            maps_left: 0,
            noticed: [false; 2],
        }
    }

    pub(crate) fn secondary(setup: &Setup) -> Client {
        Client {
            member: secondary_index(),
            state: step(State::DoesNotExist, Call::OpenInSecondary).next,
            maps_left: if setup.secondary == Secondary::Mapper { 2 } else { 0 },
            ..Client::primary(setup)
        }
    }

    fn process(&self) -> Process {
        if self.member == MemberIndex::PRIMARY { Process::Primary } else { Process::Secondary(self.member) }
    }

    /// Whether every device that this process has opened has returned VD_E_CLOSE.
    fn own_closed(&self) -> bool {
        self.devices.iter().flatten().all(|device| device.machine.is_closed())
    }

    /// Whether the process may have ended commands without returning their buffers.
    pub(crate) fn keeps_buffers(&self) -> bool {
        self.aborted || self.end.is_some()
    }

    /// Whether this process is to open the device. The primary opens what a secondary that is gone has left unopened.
    fn is_to_open(world: &World, setup: &Setup, index: usize, device: usize) -> bool {
        let of_secondary = setup.secondary == Secondary::Device && device + 1 == world.lines.len();
        match index {
            0 => !of_secondary || world.clients[1].end.is_some(),
            _ => of_secondary,
        }
    }

    fn ends(world: &mut World, index: usize, end: End) {
        let client = &mut world.clients[index];
        client.end = Some(end);
        client.devices.iter_mut().flatten().for_each(|device| device.held.clear());
        // Closing drops the mapping. The leases of a dead process stay until the primary voids them.
        let mapping = client.mapping.take();
        if end != End::Dead
            && let Some(Mapping::Leasing(loan) | Mapping::Mapped(loan)) = mapping
        {
            world.slots[loan.slot.as_usize()].leased = false;
        }
    }

    fn signal(world: &mut World, index: usize, cause: Cause) {
        world.history.aborted_late |= world.history.committed;
        let process = world.clients[index].process();
        world.abort(process, cause);
    }

    pub(crate) fn successors(all: &mut Successors<'_>, index: usize) {
        let (world, setup) = (all.world, all.setup);
        let client = &world.clients[index];
        if client.end.is_some() {
            return;
        }
        all.choice("dies", 0, |world| Client::ends(world, index, End::Dead));
        match index {
            0 => Client::report_deaths(all),
            _ if world.clients[0].end.is_some() && !world.work_has_ended() && world.abort.is_none() => {
                all.progress("notices that the primary is gone", 0, |world| world.abort(Process::Primary, Cause::Died));
            }
            _ => {}
        }
        if client.aborted {
            all.progress("Close after the abort", 0, |world| {
                let _ = call(world, index, Call::Close { devices_open: false });
                Client::ends(world, index, End::Aborted);
            });
        } else if world.abort.is_some() {
            all.progress("sees the abort", 0, |world| Client::see_abort(world, index));
        } else {
            all.choice("SignalAbort", 0, |world| {
                let _ = call(world, index, Call::SignalAbort);
                Client::signal(world, index, Cause::Signalled);
            });
            Client::close(all, index);
        }
        if may(world, index, Call::GetConfiguration) && client.state == State::Configurable && world.configured {
            all.progress("GetConfiguration", 0, |world| {
                let _ = call(world, index, Call::GetConfiguration);
            });
        }
        for device in 0..world.lines.len() {
            let line = &world.lines[device];
            let announced = line.server != ServerWord::Unopened && line.client == ClientWord::Unopened;
            if announced
                && Client::is_to_open(world, setup, index, device)
                && may(world, index, Call::OpenDevice(Opening::Unopened))
            {
                all.progress("OpenDevice", device, |world| {
                    let _ = call(world, index, Call::OpenDevice(Opening::Unopened));
                    let client = &mut world.clients[index];
                    world.lines[device].client = ClientWord::Open { member: client.member };
                    client.devices[device] =
                        Some(Device { machine: Rc::new(ClientDevice::new(LIMITS)), held: Vec::new() });
                });
            }
            if client.devices[device].is_some() {
                Client::device_successors(all, index, device);
            }
        }
        if setup.secondary == Secondary::Mapper && index == 1 {
            Client::map(all);
        }
    }

    /// Close: after the end, by a secondary whose work is done, or too early.
    fn close(all: &mut Successors<'_>, index: usize) {
        let (world, setup) = (all.world, all.setup);
        let client = &world.clients[index];
        let ended = state(world, index) == State::NormallyTerminated;
        // A secondary leaves when its own work is done: it does not wait for the devices of others.
        let opened = client.devices.iter().flatten().count() > 0;
        let done = match setup.secondary {
            Secondary::Device => index == 1 && opened && client.own_closed(),
            Secondary::Mapper => index == 1 && client.mapping.is_none(),
            Secondary::None => false,
        };
        // The primary waits for its secondary to end; then it closes the set even if a device is open. Close handles the
        // pending hang-ups of dead processes first.
        let gone = |other: &Client| match other.end {
            Some(End::Dead) => client.noticed[1],
            end => end.is_some(),
        };
        let alone = index == 0 && world.clients[1..].iter().all(gone);
        let all_opened = world.lines.iter().all(|line| line.client != ClientWord::Unopened);
        let stuck = alone && opened && all_opened && client.own_closed();
        if ended || done || stuck {
            all.progress("Close", 0, |world| {
                let devices_open = index == 0 && !world.all_closed();
                let end = match call(world, index, Call::Close { devices_open }) {
                    Ok(()) if ended => End::Normal,
                    Ok(()) => End::Left,
                    Err(_) => {
                        world.abort(Process::Primary, Cause::ClosedEarly);
                        End::Aborted
                    }
                };
                Client::ends(world, index, end);
            });
        } else {
            all.choice("Close before the end", 0, |world| {
                let _ = call(world, index, Call::Close { devices_open: true });
                Client::signal(world, index, Cause::ClosedEarly);
                Client::ends(world, index, End::Aborted);
            });
        }
    }

    fn see_abort(world: &mut World, index: usize) {
        world.clients[index].aborted = true;
        world.clients[index].state = observe(world.clients[index].state, Observation::Aborted);
        for device in world.clients[index].devices.iter_mut().flatten() {
            Rc::make_mut(&mut device.machine).aborted();
        }
    }

    /// The primary's monitor thread.
    fn report_deaths(all: &mut Successors<'_>) {
        let (world, setup) = (all.world, all.setup);
        let [server, secondary] = world.clients[0].noticed;
        if !server && world.server.end == Some(End::Dead) && setup.bug != Some(Bug::DeathUnnoticed) {
            all.progress("notices the server's death", 0, |world| {
                world.clients[0].noticed[0] = true;
                if !world.work_has_ended() {
                    world.abort(Process::Server, Cause::Died);
                }
            });
        }
        if !secondary && world.clients.get(1).is_some_and(|client| client.end == Some(End::Dead)) {
            all.progress("notices the secondary's death", 0, |world| {
                world.clients[0].noticed[1] = true;
                Client::secondary_died(world, setup);
            });
        }
    }

    fn secondary_died(world: &mut World, setup: &Setup) {
        world.slots.iter_mut().for_each(|slot| slot.leased = false);
        let died = ClientWord::Open { member: secondary_index() };
        let devices = world.clients[1].devices.iter().flatten().count();
        if world.work_has_ended() {
            // Its devices count as closed, so that the primary ends as the server did.
            if setup.bug != Some(Bug::DeadSecondaryStaysOpen) {
                let lines = world.lines.iter_mut().filter(|line| line.client == died);
                lines.for_each(|line| line.client = ClientWord::Closed { member: secondary_index() });
            }
        } else if devices == 0 || world.lines.iter().any(|line| line.client == died) {
            world.abort(Process::Secondary(secondary_index()), Cause::Died);
        }
    }

    fn device_successors(all: &mut Successors<'_>, index: usize, device: usize) {
        let (world, setup) = (all.world, all.setup);
        let (line, Some(own)) = (&world.lines[device], &world.clients[index].devices[device]) else { return };
        if own.machine.is_closed() {
            if !own.held.is_empty() {
                all.progress("drops its commands", device, |world| {
                    world.clients[index].devices[device].as_mut().map(|own| own.held.clear()).unwrap_or_default();
                });
            }
            return;
        }
        // After it has seen the abort, GetCommand returns VD_E_ABORT.
        if !line.submissions.is_empty() && !world.clients[index].aborted {
            all.progress("GetCommand", device, |world| Client::receive(world, setup, index, device));
        } else if line.server == ServerWord::Closed && world.abort.is_none() {
            all.progress("GetCommand returns VD_E_CLOSE", device, |world| Client::closed(world, index, device));
        }
        for (number, held) in own.held.iter().enumerate() {
            let leased = held.record.loan.is_some_and(|loan| world.slots[loan.slot.as_usize()].leased);
            if setup.secondary == Secondary::Mapper && held.record.loan.is_some() {
                match held.completing {
                    // VD_E_BUSY: without a change of the slot.
                    Completing::No if leased => continue,
                    Completing::No | Completing::Checked => {
                        all.progress("begins to complete", device, |world| {
                            Client::begin(world, index, device, number);
                        });
                        continue;
                    }
                    Completing::Reclaiming => {}
                }
            }
            let complete = |code| move |world: &mut World| Client::complete(world, setup, index, device, number, code);
            all.progress("completes", device, complete(CompletionCode::SUCCESS));
            if world.errors_left > 0 {
                all.choice("completes with an error", device, complete(CompletionCode::IO_DEVICE));
            }
        }
    }

    fn receive(world: &mut World, setup: &Setup, index: usize, device: usize) {
        let Some(record) = world.lines[device].submissions.pop_front() else { return };
        let Some(own) = world.clients[index].devices[device].as_mut() else { return };
        match Rc::make_mut(&mut own.machine).received(record) {
            Ok(Receipt::Deliver(record)) => own.held.push(Held { record, completing: Completing::No }),
            Ok(Receipt::Hold) => {}
            Ok(Receipt::Reject(completion)) => {
                if setup.bug != Some(Bug::RejectKeepsBuffer) {
                    Client::reclaim(world, record.loan);
                }
                world.lines[device].completions.push_back(completion);
            }
            Err(_) => world.broken("an honest server breaks a rule"),
        }
    }

    /// Returns the buffer to the server.
    fn reclaim(world: &mut World, loan: Option<Loan>) {
        let Some(Loan { slot, generation }) = loan else { return };
        let state = &mut world.slots[slot.as_usize()].state;
        match *state {
            SlotState::Lent(found) | SlotState::Reclaiming(found) if found == generation => {
                *state = SlotState::Free(generation);
            }
            _ => world.broken("a buffer is reclaimed that is not lent"),
        }
    }

    fn closed(world: &mut World, index: usize, device: usize) {
        if let Some(own) = world.clients[index].devices[device].as_mut() {
            Rc::make_mut(&mut own.machine).closed();
        }
        world.lines[device].client = ClientWord::Closed { member: world.clients[index].member };
        let poll = if world.all_closed() { CommandPoll::LastClosed } else { CommandPoll::Closed };
        let before = world.clients[index].state;
        // The state without AllClosed: that is what this call brings about.
        let step = step(observe(before, Observation::DeviceOpened), Call::GetCommand(poll));
        world.clients[index].state = step.next;
        if step.answer != Err(VdError::Close) && before != State::NormallyTerminated {
            world.broken("GetCommand does not return VD_E_CLOSE");
        }
    }

    fn begin(world: &mut World, index: usize, device: usize, number: usize) {
        let Some(own) = self::device(world, index, device) else { return };
        let held = &mut own.held[number];
        match (held.completing, held.record.loan) {
            (Completing::Checked, Some(Loan { slot, generation })) => {
                held.completing = Completing::Reclaiming;
                world.slots[slot.as_usize()].state = SlotState::Reclaiming(generation);
            }
            _ => held.completing = Completing::Checked,
        }
    }

    fn complete(world: &mut World, setup: &Setup, index: usize, device: usize, number: usize, code: CompletionCode) {
        let Some(own) = self::device(world, index, device) else { return };
        let Held { record, completing } = own.held[number].clone();
        let bytes = if record.code.is_transfer() { BYTES } else { 0 };
        let leased = record.loan.is_some_and(|loan| world.slots[loan.slot.as_usize()].leased);
        if completing == Completing::Reclaiming && leased && setup.bug != Some(Bug::LeasesCheckedOnce) {
            // A lease came in between: VD_E_BUSY.
            return Client::busy(world, index, device, number);
        }
        let Some(own) = self::device(world, index, device) else { return };
        let Ok(completion) = Rc::make_mut(&mut own.machine).complete(record.id, code, bytes, 0) else {
            // The device is aborted. The program drops the command.
            own.held.remove(number);
            return;
        };
        own.held.remove(number);
        if setup.bug != Some(Bug::ClearErrorForgotten)
            && let Some(record) = Rc::make_mut(&mut own.machine).released()
        {
            own.held.push(Held { record, completing: Completing::No });
        }
        world.errors_left -= u8::from(!code.is_success());
        Client::reclaim(world, record.loan);
        Client::push(world, device, completion);
    }

    fn push(world: &mut World, device: usize, completion: CompletionRecord) {
        world.lines[device].completions.push_back(completion);
    }

    fn busy(world: &mut World, index: usize, device: usize, number: usize) {
        let Some(own) = self::device(world, index, device) else { return };
        own.held[number].completing = Completing::No;
        if let Some(Loan { slot, generation }) = own.held[number].record.loan {
            world.slots[slot.as_usize()].state = SlotState::Lent(generation);
        }
    }

    /// The secondary that maps buffers by handles of the primary's commands.
    fn map(all: &mut Successors<'_>) {
        let (world, client) = (all.world, &all.world.clients[1]);
        let phase = if world.abort.is_some() { SetPhase::Aborted } else { SetPhase::Open };
        match client.mapping {
            None if client.maps_left > 0 => {
                let held = world.clients[0].devices.iter().flatten().flat_map(|device| &device.held);
                for loan in held.filter_map(|held| held.record.loan) {
                    all.choice("gets a handle", loan.slot.as_usize(), |world| {
                        world.clients[1].maps_left -= 1;
                        world.clients[1].mapping = Some(Mapping::Handle(loan));
                    });
                }
            }
            None => {}
            Some(Mapping::Handle(loan)) => all.progress("sets its lease bit", loan.slot.as_usize(), |world| {
                world.slots[loan.slot.as_usize()].leased = true;
                world.clients[1].mapping = Some(Mapping::Leasing(loan));
            }),
            Some(Mapping::Leasing(loan)) => {
                let slot = &world.slots[loan.slot.as_usize()];
                match slot.state {
                    // The completion's outcome decides. Once the work has ended the holder may be dead without an abort.
                    SlotState::Reclaiming(generation)
                        if generation == loan.generation
                            && (!world.work_has_ended() || all.setup.bug == Some(Bug::MapWaitsAfterEnd)) => {}
                    SlotState::Reclaiming(_) => all.progress("gives up", loan.slot.as_usize(), |world| {
                        world.slots[loan.slot.as_usize()].leased = false;
                        world.clients[1].mapping = None;
                    }),
                    state => all.progress("checks the slot", loan.slot.as_usize(), |world| {
                        let mapped = handle::map(phase, loan, Some(state)).is_ok();
                        world.slots[loan.slot.as_usize()].leased = mapped;
                        world.clients[1].mapping = mapped.then_some(Mapping::Mapped(loan));
                    }),
                }
            }
            Some(Mapping::Mapped(loan)) => all.progress("unmaps", loan.slot.as_usize(), |world| {
                world.slots[loan.slot.as_usize()].leased = false;
                world.clients[1].mapping = None;
            }),
        }
    }
}
