//! Clients with a chosen behaviour, correct or faulty.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdi_client::media::{FileMedia, Media, MediaError, TapeImage, VolumeSet};
use vdi_client::{
    ClientVirtualDevice, ClientVirtualDeviceSet, Command, CommandCode, Completion, CompletionCode, Error, INFINITE,
    VdConfig, VdError, pump,
};

use super::bench::Bench;
use super::client::device_name;
use super::tasks::{Task, task};

/// The behaviour of a client on one device. Commands of the device count from 1. ClearErrors are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Runs [`pump`].
    Pump,
    /// Runs [`pump`] on a medium that takes up to this many microseconds for each command.
    Slow { micros: u64 },
    /// Holds up to this many commands, and completes them in random order.
    OutOfOrder { hold: usize },
    /// Runs [`pump`] on a medium that fails from this command on.
    MediaFails { at: u64, code: CompletionCode },
    /// Fails this command once, after a share (of 256) of its bytes in whole blocks. Continues when the error is cleared.
    FailsOnce { at: u64, code: CompletionCode, share: u8 },
    /// Reports fewer bytes for this command than were requested.
    Short { at: u64, share: u8 },
    /// Drops its device, without completing this command.
    Drops { at: u64 },
    /// Aborts the set instead of completing this command.
    Aborts { at: u64 },
}

impl Behaviour {
    /// Whether a backup or restore with this client must succeed.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Behaviour::Pump | Behaviour::Slow { .. } | Behaviour::OutOfOrder { .. })
    }
}

/// The result of a device for its client.
pub(crate) type Ended = Result<(), String>;

/// A client that serves a set in threads of this process.
pub(crate) struct Client {
    task: Option<Task<Result<Vec<Ended>, Error>>>,
    set: Arc<ClientVirtualDeviceSet>,
    completed: Arc<Mutex<Vec<u32>>>,
}

impl Client {
    /// The devices that have executed Complete, in ascending order. Their data is in place, even if other devices fail later.
    pub(crate) fn completed(&self) -> Vec<u32> {
        let mut completed = self.completed.lock().unwrap().clone();
        completed.sort_unstable();
        completed
    }

    /// Waits for the client. Returns the results of the devices, or an error if no device was opened.
    #[track_caller]
    pub(crate) fn result(&mut self) -> Result<Vec<Ended>, Error> {
        self.task.take().unwrap().result()
    }

    /// Cancels the waits of the client. An agent does this if its statement fails before the server opens the set.
    pub(crate) fn cancel(&self) {
        // A client that has ended has closed its set.
        if let Ok(canceller) = self.set.canceller() {
            canceller.cancel();
        }
    }
}

impl Bench {
    /// Creates a set and serves each of its devices in a thread.
    #[track_caller]
    pub(crate) fn serve(
        &self,
        name: &str,
        config: &VdConfig,
        seed: u64,
        device: impl Fn(u32) -> (Behaviour, Box<dyn Media>) + Send + Sync + 'static,
    ) -> Client {
        let set = self.create(name, config);
        let (name, count) = (name.to_owned(), config.device_count);
        let completed: Arc<Mutex<Vec<u32>>> = Arc::default();
        let task = task("the client", {
            let (set, completed) = (Arc::clone(&set), Arc::clone(&completed));
            move || {
                set.get_configuration(INFINITE)?;
                let opened = (0..count)
                    .map(|index| set.open_device(&device_name(&name, index)))
                    .collect::<Result<Vec<_>, _>>()?;
                let (set, device, completed) = (&*set, &device, &completed);
                let ends = std::thread::scope(|scope| {
                    let serving: Vec<_> = (0..)
                        .zip(opened)
                        .map(|(index, opened): (u32, _)| {
                            scope.spawn(move || {
                                let (behaviour, media) = device(index);
                                let hook = CompleteRecorder { device: index, completed: Arc::clone(completed) };
                                let media = Box::new(HookedMedia { media, hook });
                                let random = fastrand::Rng::with_seed(seed ^ u64::from(index) << 32);
                                serve(set, opened, media, behaviour, random)
                            })
                        })
                        .collect();
                    serving.into_iter().map(|device| device.join().unwrap()).collect()
                });
                // The results of the devices have more detail.
                let _ = set.close();
                Ok(ends)
            }
        });
        Client { task: Some(task), set, completed }
    }
}

/// Serves a device with a medium until it ends.
pub(crate) fn serve(
    set: &ClientVirtualDeviceSet,
    mut device: ClientVirtualDevice,
    media: Box<dyn Media>,
    behaviour: Behaviour,
    random: fastrand::Rng,
) -> Ended {
    let pumped = |device: &mut ClientVirtualDevice, media: &mut dyn Media| {
        pump(device, media).map(drop).map_err(|error| error.to_string())
    };
    match behaviour {
        Behaviour::Pump => pumped(&mut device, &mut { media }),
        Behaviour::Slow { micros } => pumped(&mut device, &mut HookedMedia { media, hook: Slow { micros, random } }),
        Behaviour::MediaFails { at, code } => {
            pumped(&mut device, &mut HookedMedia { media, hook: Failing { at, code, count: 0 } })
        }
        _ => ManualClient { set, media, behaviour, random, count: 0 }.serve(device),
    }
}

/// Actions around the commands of a medium.
pub(crate) trait MediaHook: Send {
    /// Runs before each command except ClearError. `bytes` is the size of a transfer, otherwise 0.
    fn before(&mut self, code: CommandCode, bytes: usize) -> Result<(), MediaError> {
        let _ = (code, bytes);
        Ok(())
    }

    /// Runs after a successful Complete.
    fn completed(&mut self) {}

    /// Runs when the device was closed in order.
    fn closing(&mut self) {}
}

/// A medium with a hook.
pub(crate) struct HookedMedia<Q> {
    pub(crate) media: Box<dyn Media>,
    pub(crate) hook: Q,
}

impl<Q: MediaHook> Media for HookedMedia<Q> {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.media.begin(config)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.hook.before(CommandCode::WRITE, data.len())?;
        self.media.write(position, data)
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.hook.before(CommandCode::READ, buffer.len())?;
        self.media.read(position, buffer)
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        self.hook.before(CommandCode::FLUSH, 0)?;
        self.media.flush()
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.hook.before(CommandCode::COMPLETE, 0)?;
        self.media.complete()?;
        self.hook.completed();
        Ok(())
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.media.clear_error()
    }

    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        self.hook.before(code, 0)?;
        self.media.other(code, size, position)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.hook.closing();
        self.media.close()
    }
}

/// Delays each command by up to `micros` microseconds.
struct Slow {
    micros: u64,
    random: fastrand::Rng,
}

impl MediaHook for Slow {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        // Simulates a slow disk. No assertion depends on the time.
        std::thread::sleep(Duration::from_micros(self.random.u64(0..=self.micros)));
        Ok(())
    }
}

/// Fails from command `at` on.
struct Failing {
    at: u64,
    code: CompletionCode,
    count: u64,
}

impl MediaHook for Failing {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        self.count += 1;
        if self.count < self.at { Ok(()) } else { Err(MediaError::new(self.code, "this medium fails")) }
    }
}

/// Records the devices that have executed Complete.
struct CompleteRecorder {
    device: u32,
    completed: Arc<Mutex<Vec<u32>>>,
}

impl MediaHook for CompleteRecorder {
    fn completed(&mut self) {
        self.completed.lock().unwrap().push(self.device);
    }
}

/// A client that completes the commands of its device without [`pump`].
struct ManualClient<'a> {
    set: &'a ClientVirtualDeviceSet,
    media: Box<dyn Media>,
    behaviour: Behaviour,
    random: fastrand::Rng,
    count: u64,
}

impl ManualClient<'_> {
    fn serve(&mut self, mut device: ClientVirtualDevice) -> Ended {
        let show = |error: Error| error.to_string();
        let block = device.config().block_size as usize;
        self.media.begin(&device.config()).map_err(|error| error.to_string())?;
        let hold = match self.behaviour {
            Behaviour::OutOfOrder { hold } => hold.max(1),
            _ => 1,
        };
        let mut held: Vec<(Command, Completion)> = Vec::new();
        loop {
            let timeout = if held.is_empty() { INFINITE } else { Duration::ZERO };
            match device.get_command(timeout) {
                Ok(command) => {
                    self.count += u64::from(command.code() != CommandCode::CLEAR_ERROR);
                    if command.code() != CommandCode::CLEAR_ERROR {
                        match self.behaviour {
                            Behaviour::Drops { at } if at == self.count => {
                                drop(device);
                                return Err("it dropped its device".to_owned());
                            }
                            Behaviour::Aborts { at } if at == self.count => {
                                // Fails if another process has aborted the set before.
                                let _ = self.set.signal_abort();
                                return Err("it aborted the set".to_owned());
                            }
                            _ => {}
                        }
                    }
                    held.push(self.execute(command, block));
                }
                Err(error) if error.code() == VdError::Timeout && !held.is_empty() => self.complete_one(&mut held)?,
                Err(error) if error.is_close() => return self.media.close().map_err(|error| error.to_string()),
                Err(error) => return Err(show(error)),
            }
            while held.len() >= hold {
                self.complete_one(&mut held)?;
            }
        }
    }

    fn complete_one(&mut self, held: &mut Vec<(Command, Completion)>) -> Ended {
        let (command, completion) = held.swap_remove(self.random.usize(..held.len()));
        command.complete(completion).map_err(|refused| refused.to_string())
    }

    /// Executes a command on the medium. Returns the command and its completion.
    fn execute(&mut self, mut command: Command, block: usize) -> (Command, Completion) {
        let (code, size) = (command.code(), command.data().len());
        let transfer = code.is_transfer();
        let part = |share: u8, unit: usize| size * usize::from(share) / 256 / unit * unit;
        // ClearError is not counted, so it has the number of the command before it.
        let due = |at: u64| at == self.count && code != CommandCode::CLEAR_ERROR;
        let (mut bytes, failure) = match self.behaviour {
            Behaviour::FailsOnce { at, code, share } if due(at) => (part(share, block), Some(code)),
            Behaviour::Short { at, share } if due(at) => (part(share, 1), None),
            _ => (size, None),
        };
        let position = command.position();
        let done = match code {
            CommandCode::WRITE => {
                self.media.write(position, &command.data()[..bytes]).map(|()| Completion::transferred(bytes))
            }
            CommandCode::READ => self.media.read(position, &mut command.data_mut()[..bytes]).map(|read| {
                bytes = read;
                Completion::transferred(read)
            }),
            _ if failure.is_some() => Ok(Completion::done()),
            CommandCode::FLUSH => self.media.flush().map(|()| Completion::done()),
            CommandCode::COMPLETE => self.media.complete().map(|()| Completion::done()),
            CommandCode::CLEAR_ERROR => self.media.clear_error().map(|()| Completion::done()),
            _ => self.media.other(code, command.size(), position).map(|position| {
                let returns = code.rules().is_some_and(|rules| rules.returns_position);
                if returns { Completion::at(position) } else { Completion::done() }
            }),
        };
        let completion = match (done, failure) {
            (Ok(_), Some(code)) => Completion::failed_after(code, bytes),
            (Ok(done), None) => done,
            (Err(error), _) => Completion::failed_after(error.code, if transfer { error.bytes as usize } else { 0 }),
        };
        (command, completion)
    }
}

/// The kind of medium for the data of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaKind {
    File,
    Tape,
    /// Volumes of this many bytes.
    Volumes(u64),
}

impl MediaKind {
    /// The media for a backup or a restore.
    pub(crate) fn media(self, path: &Path, restore: bool) -> Box<dyn Media> {
        self.try_media(path, restore).unwrap()
    }

    /// The media for a backup or a restore. Returns an error if it cannot be opened.
    pub(crate) fn try_media(self, path: &Path, restore: bool) -> Result<Box<dyn Media>, MediaError> {
        Ok(match (self, restore) {
            (MediaKind::File, false) => Box::new(FileMedia::create(path)?),
            (MediaKind::File, true) => Box::new(FileMedia::open(path)?),
            (MediaKind::Tape, false) => Box::new(TapeImage::create(path)?),
            (MediaKind::Tape, true) => Box::new(TapeImage::open(path)?),
            (MediaKind::Volumes(capacity), false) => Box::new(VolumeSet::create(path, capacity)?),
            (MediaKind::Volumes(_), true) => Box::new(VolumeSet::open(path)?),
        })
    }
}
