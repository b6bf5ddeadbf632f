//! Devices as C++ programs use them: pointers that may be used at any time, and command blocks that stay readable.
//!
//! # Invariants
//!
//! 1. A block keeps its address and its contents from the GetCommand that returned it until its command is completed and
//!    [`SPARE_BLOCKS`] further commands have come, and at the least until the next GetCommand.
//! 2. While a command of a device is outstanding, its buffer stays mapped, also after the set was closed, until [`MAPPED`]
//!    further sets were: a thread may be at work on it.
//! 3. Devices that are over, by Close or by their destructors, are *buried*: they answer calls that come late, and keep their
//!    blocks. They are thrown away when [`BURIED`] further sets were closed. So programs that never destroy anything and
//!    never complete what they hold do not grow, and those that use what is over do not crash.
//! 4. The memory of a device's object is the program's from its destructor on. Until then it is the library's, which never
//!    frees it, but uses it for another device once the first one was thrown away.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_client::raw::{RawCommand, RawDevice};
use vdi_client::{CompletionCode, VdError};
use vdi_proto::command::CommandId;

use crate::abi::{Block, DeviceObject, Key, VdcCommand};
use crate::registry::{DEVICES, new_key};
use crate::report::Refusal;

/// How many blocks of completed commands a device keeps before it uses one again. One would be enough; with more, a pointer
/// that is completed twice rarely means another command by then.
const SPARE_BLOCKS: usize = 8;

/// The devices of how many closed sets are kept; a device that was destroyed on its own counts as a set.
const BURIED: usize = 64;

/// The buffers of how many closed sets stay mapped where commands are outstanding.
const MAPPED: usize = 16;

/// A device: what a ClientVirtualDevice stands for.
#[derive(Debug)]
pub(crate) struct Device {
    key: Key,
    name: String,
    set: String,
    /// The server has closed it, and the program knows.
    ended: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Gone when the device is over and holds no command.
    raw: Option<Arc<RawDevice>>,
    /// Gone when the program destroyed it.
    object: Option<DeviceObject>,
    buried: bool,
    /// In the order in which they were handed out.
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    block: Block,
    id: CommandId,
    outstanding: bool,
}

impl Inner {
    /// A block for a command that came.
    fn hand_out(&mut self, command: &RawCommand) -> *mut VdcCommand {
        let spare = self.slots.iter().filter(|slot| !slot.outstanding).count();
        let oldest = self.slots.iter().position(|slot| !slot.outstanding).filter(|_| spare >= SPARE_BLOCKS);
        let mut block = match oldest.and_then(|at| self.slots.remove(at)) {
            Some(slot) => slot.block,
            None => Block::new(),
        };
        block.fill(VdcCommand {
            code: command.code.number().cast_signed(),
            size: command.size,
            position: command.position.cast_signed(),
            buffer: command.buffer,
        });
        let address = block.address();
        self.slots.push_back(Slot { block, id: command.id, outstanding: true });
        address
    }

    fn slot(&mut self, address: *mut VdcCommand) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.block.address() == address)
    }

    /// What is to be dropped, outside of the lock, when the device is over.
    fn leftover(&mut self) -> Option<Arc<RawDevice>> {
        let over = self.buried && self.slots.iter().all(|slot| !slot.outstanding);
        if over { self.raw.take() } else { None }
    }
}

impl Device {
    /// Makes the object of a device that was opened.
    pub(crate) fn open(raw: RawDevice) -> Result<(Arc<Device>, DeviceObject), Refusal> {
        let object = graveyard().spare.pop_front();
        let object = object.map_or_else(DeviceObject::allocate, Ok)?;
        let key = new_key();
        let device = Arc::new(Device {
            key,
            name: raw.name().to_owned(),
            set: raw.set_name().to_owned(),
            ended: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                raw: Some(Arc::new(raw)),
                object: Some(object),
                buried: false,
                slots: VecDeque::new(),
            }),
        });
        DEVICES.insert(key, Arc::clone(&device));
        object.write(key);
        Ok((device, object))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole at every moment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, code: VdError, what: &str) -> Refusal {
        Refusal::of(code, &self.name, &self.set, what)
    }

    /// The answer of GetCommand once the server has closed the device, however often it is called.
    fn closed(&self) -> Refusal {
        self.refuse(VdError::Close, "the server closed the device; its work is done")
    }

    fn over(&self) -> Refusal {
        self.refuse(VdError::Protocol, "the set was closed in this process, or this device destroyed")
    }

    pub(crate) fn get_command(&self, timeout: Duration) -> Result<*mut VdcCommand, Refusal> {
        let raw = self.inner().raw.clone();
        // Whatever became of the set since.
        if self.ended.load(Ordering::Acquire) {
            return Err(self.closed());
        }
        let Some(raw) = raw else { return Err(self.over()) };
        match raw.get_command(timeout) {
            Ok(command) => {
                let mut inner = self.inner();
                let address = inner.hand_out(&command);
                // Buried a moment ago: the command came before.
                inner.raw.get_or_insert(raw);
                Ok(address)
            }
            Err(error) if error.is_close() => {
                self.ended.store(true, Ordering::Release);
                Err(error.into())
            }
            // Another thread was told meanwhile.
            Err(_) if self.ended.load(Ordering::Acquire) => Err(self.closed()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn complete_command(
        &self,
        command: *mut VdcCommand,
        code: i32,
        bytes: u64,
        position: i64,
    ) -> Result<(), Refusal> {
        let (raw, id) = {
            let mut inner = self.inner();
            let id = inner.slot(command).map(|slot| slot.id);
            (inner.raw.clone(), id)
        };
        let Some(raw) = raw else { return Err(self.over()) };
        let Some(id) = id else {
            return Err(raw.refuse_unknown("this pointer did not come from GetCommand of this device").into());
        };
        let code = CompletionCode::new(code.cast_unsigned());
        let answer = raw.complete_command(id, code, bytes, position.cast_unsigned());
        // VD_E_INVALID: for an argument, or for a command that is completed already. VD_E_BUSY: for now. Else it is done with.
        let stays = answer.as_ref().is_err_and(|error| matches!(error.code(), VdError::Invalid | VdError::Busy));
        if !stays {
            let leftover = {
                let mut inner = self.inner();
                if let Some(slot) = inner.slot(command).filter(|slot| slot.id == id) {
                    slot.outstanding = false;
                }
                inner.leftover()
            };
            drop(leftover);
        }
        Ok(answer?)
    }

    /// Marks the device as over; false when it was before.
    fn end(&self) -> bool {
        let (first, leftover) = {
            let mut inner = self.inner();
            (!core::mem::replace(&mut inner.buried, true), inner.leftover())
        };
        drop(leftover);
        first
    }

    /// Lets go of what is mapped, whatever is outstanding.
    fn release(&self) {
        let raw = self.inner().raw.take();
        drop(raw);
    }

    /// A set was closed, or a device of it destroyed.
    pub(crate) fn bury(mut devices: Vec<Arc<Device>>) {
        devices.retain(|device| device.end());
        if devices.is_empty() {
            return;
        }
        let (cold, thrown_away) = {
            let mut graveyard = graveyard();
            graveyard.buried.push_front(devices);
            (
                graveyard.buried.get(MAPPED).cloned(),
                (graveyard.buried.len() > BURIED).then(|| graveyard.buried.pop_back()).flatten(),
            )
        };
        cold.iter().flatten().for_each(|device| device.release());
        for device in thrown_away.iter().flatten() {
            DEVICES.remove(device.key);
            let object = device.inner().object.take();
            graveyard().spare.extend(object);
        }
    }

    /// The program destroys the object of this key, which lies at `address`.
    pub(crate) fn destroy(key: Key, address: usize) {
        // It may have been thrown away, and its memory be kept for another one.
        graveyard().spare.retain(|object| object.address() as usize != address);
        if let Some(device) = DEVICES.remove(key) {
            let raw = {
                let mut inner = device.inner();
                inner.object = None;
                inner.raw.clone()
            };
            if let Some(raw) = raw {
                raw.abandon();
            }
            Device::bury(vec![device]);
        }
    }
}

#[derive(Debug)]
struct Graveyard {
    /// The devices of a set each, the last one first.
    buried: VecDeque<Vec<Arc<Device>>>,
    /// Memory of objects that were thrown away.
    spare: VecDeque<DeviceObject>,
}

fn graveyard() -> MutexGuard<'static, Graveyard> {
    static GRAVEYARD: Mutex<Graveyard> = Mutex::new(Graveyard { buried: VecDeque::new(), spare: VecDeque::new() });
    // Whole at every moment.
    GRAVEYARD.lock().unwrap_or_else(PoisonError::into_inner)
}
