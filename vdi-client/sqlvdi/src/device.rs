//! Devices as C++ programs use them: pointers that may be used at any time, and command blocks that stay readable.
//!
//! # Invariants
//!
//! 1. A block keeps its address and its contents from the GetCommand that returned it until its command is completed
//!    and [`SPARE_BLOCKS`] further commands have come, and at least until the next GetCommand.
//! 2. While a command is outstanding its buffer stays mapped, also after the set was closed, until the devices of
//!    [`MAPPED`] further sets were retired: a thread may be at work on it.
//! 3. A device whose set was closed, or whose object was destroyed, is *retired*: late calls find it, and get an error.
//!    It is discarded when the devices of [`RETIRED_SETS`] further sets were retired. So a program that destroys
//!    nothing and completes nothing does not grow, and a program that uses a device too late does not crash.
//! 4. The memory of a device's object is the library's until the object's destructor runs, and the program's from then
//!    on. The library never frees it: it uses the memory of a discarded device for another one.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_client::raw::{RawCommand, RawDevice};
use vdi_client::{CompletionCode, VdError};
use vdi_ffi::{Failure, Key, Registry};
use vdi_proto::command::CommandId;

use crate::abi::{Block, DeviceObject, VdcCommand};

/// How many blocks of completed commands a device keeps before it uses one again. One would satisfy the interface. With
/// more, a pointer that is completed twice rarely means another command by then.
const SPARE_BLOCKS: usize = 8;

/// The devices of how many closed sets are kept; a device that was destroyed alone counts as a set.
const RETIRED_SETS: usize = 64;

/// The buffers of how many closed sets stay mapped where commands are outstanding.
const MAPPED: usize = 16;

/// All devices of the program, by the keys in its objects.
pub(crate) static DEVICES: Registry<Device> = Registry::new();

/// What a ClientVirtualDevice stands for.
#[derive(Debug)]
pub(crate) struct Device {
    key: Key,
    name: String,
    set: String,
    /// GetCommand has returned VD_E_CLOSE.
    closed: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` once the device is retired and has no outstanding command.
    raw: Option<Arc<RawDevice>>,
    /// `None` once the program has destroyed it.
    object: Option<DeviceObject>,
    retired: bool,
    /// In the order in which they were handed out.
    commands: VecDeque<HandedOut>,
}

/// A command that the program got.
#[derive(Debug)]
struct HandedOut {
    block: Block,
    id: CommandId,
    outstanding: bool,
}

impl Inner {
    /// A block for a command that came.
    fn hand_out(&mut self, command: &RawCommand) -> *mut VdcCommand {
        let completed = |handed_out: &HandedOut| !handed_out.outstanding;
        let spare = self.commands.iter().filter(|handed_out| completed(handed_out)).count();
        let oldest = if spare < SPARE_BLOCKS { None } else { self.commands.iter().position(completed) };
        let oldest = oldest.and_then(|index| self.commands.remove(index));
        let mut block = oldest.map_or_else(Block::new, |handed_out| handed_out.block);
        block.fill(VdcCommand {
            code: command.code.number().cast_signed(),
            size: command.size,
            position: command.position.cast_signed(),
            buffer: command.buffer,
        });
        let address = block.address();
        self.commands.push_back(HandedOut { block, id: command.id, outstanding: true });
        address
    }

    fn command(&mut self, address: *mut VdcCommand) -> Option<&mut HandedOut> {
        self.commands.iter_mut().find(|handed_out| handed_out.block.address() == address)
    }

    /// Takes the device out if it is not needed any more, for the caller to drop outside of the lock.
    fn take_unneeded(&mut self) -> Option<Arc<RawDevice>> {
        let unneeded = self.retired && self.commands.iter().all(|handed_out| !handed_out.outstanding);
        if unneeded { self.raw.take() } else { None }
    }
}

impl Device {
    /// Makes the object of a device that was opened.
    pub(crate) fn open(raw: RawDevice) -> Result<(Arc<Device>, DeviceObject), Failure> {
        let spare = retired().spare_objects.pop_front();
        let object = spare.map_or_else(DeviceObject::allocate, Ok)?;
        let (key, device) = DEVICES.insert(|key| Device {
            key,
            name: raw.name().to_owned(),
            set: raw.set_name().to_owned(),
            closed: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                raw: Some(Arc::new(raw)),
                object: Some(object),
                retired: false,
                commands: VecDeque::new(),
            }),
        });
        object.write(key);
        Ok((device, object))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No panic can leave it half updated, so a poisoned lock is safe to use.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, code: VdError, what: &str) -> Failure {
        Failure::new(code, what).of_device(&self.name, &self.set)
    }

    /// GetCommand's failure once it has returned VD_E_CLOSE, whatever became of the set since.
    fn closed(&self) -> Failure {
        self.failure(VdError::Close, "the server closed the device; its work is done")
    }

    fn retired(&self) -> Failure {
        self.failure(VdError::Protocol, "the set was closed in this process, or this device destroyed")
    }

    pub(crate) fn get_command(&self, timeout: Duration) -> Result<*mut VdcCommand, Failure> {
        let raw = self.inner().raw.clone();
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed());
        }
        let Some(raw) = raw else { return Err(self.retired()) };
        match raw.get_command(timeout) {
            Ok(command) => {
                let mut inner = self.inner();
                let address = inner.hand_out(&command);
                // The device may have been retired since: the command came before.
                inner.raw.get_or_insert(raw);
                Ok(address)
            }
            Err(error) if error.is_close() => {
                self.closed.store(true, Ordering::Release);
                Err(error.into())
            }
            // Another thread got VD_E_CLOSE meanwhile.
            Err(_) if self.closed.load(Ordering::Acquire) => Err(self.closed()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn complete_command(
        &self,
        command: *mut VdcCommand,
        code: i32,
        bytes: u64,
        position: i64,
    ) -> Result<(), Failure> {
        let (raw, id) = {
            let mut inner = self.inner();
            let id = inner.command(command).map(|handed_out| handed_out.id);
            (inner.raw.clone(), id)
        };
        let Some(raw) = raw else { return Err(self.retired()) };
        let Some(id) = id else {
            return Err(raw.refuse_unknown("this pointer did not come from GetCommand of this device").into());
        };
        let code = CompletionCode::new(code.cast_unsigned());
        let result = raw.complete_command(id, code, bytes, position.cast_unsigned());
        // VD_E_INVALID: a bad argument, or a command that is completed already. VD_E_BUSY: not now. All others end the
        // command.
        let unchanged = result.as_ref().is_err_and(|error| matches!(error.code(), VdError::Invalid | VdError::Busy));
        if !unchanged {
            let unneeded = {
                let mut inner = self.inner();
                if let Some(handed_out) = inner.command(command).filter(|handed_out| handed_out.id == id) {
                    handed_out.outstanding = false;
                }
                inner.take_unneeded()
            };
            drop(unneeded);
        }
        Ok(result?)
    }

    /// Retires the device; false if it was before.
    fn retire(&self) -> bool {
        let (first, unneeded) = {
            let mut inner = self.inner();
            (!core::mem::replace(&mut inner.retired, true), inner.take_unneeded())
        };
        drop(unneeded);
        first
    }

    /// Unmaps the buffers, whatever is outstanding.
    fn unmap(&self) {
        let raw = self.inner().raw.take();
        drop(raw);
    }

    /// The program destroys the object of this key, which lies at `address`.
    pub(crate) fn destroy(key: Key, address: usize) {
        // A discarded device's memory may be among the spare ones: from here on it is the program's.
        retired().spare_objects.retain(|object| object.address().addr() != address);
        let Ok(device) = DEVICES.remove(key) else { return };
        let raw = {
            let mut inner = device.inner();
            inner.object = None;
            inner.raw.clone()
        };
        if let Some(raw) = raw {
            raw.abandon();
        }
        retire(vec![device]);
    }
}

/// Devices that are retired.
#[derive(Debug)]
struct Retired {
    /// The devices of each set, the last set first.
    sets: VecDeque<Vec<Arc<Device>>>,
    /// Memory of objects whose devices were discarded.
    spare_objects: VecDeque<DeviceObject>,
}

fn retired() -> MutexGuard<'static, Retired> {
    static RETIRED: Mutex<Retired> = Mutex::new(Retired { sets: VecDeque::new(), spare_objects: VecDeque::new() });
    // Each change is one step, so a poisoned lock is safe to use.
    RETIRED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Retires the devices of a set that was closed, or one that was destroyed.
pub(crate) fn retire(mut devices: Vec<Arc<Device>>) {
    devices.retain(|device| device.retire());
    if devices.is_empty() {
        return;
    }
    let (to_unmap, to_discard) = {
        let sets = &mut retired().sets;
        sets.push_front(devices);
        (sets.get(MAPPED).cloned(), if sets.len() > RETIRED_SETS { sets.pop_back() } else { None })
    };
    to_unmap.iter().flatten().for_each(|device| device.unmap());
    for device in to_discard.iter().flatten() {
        // It is not there in a fork, or where the program has destroyed it.
        let _ = DEVICES.remove(device.key);
        let object = device.inner().object.take();
        retired().spare_objects.extend(object);
    }
}
