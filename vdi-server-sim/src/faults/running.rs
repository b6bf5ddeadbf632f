//! The faults of one statement while it runs: what its threads ask before they do something.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use vdi_proto::config::MAX_DEVICES;
use vdi_proto::status::VdError;

use super::{Fault, Faults, ServerCall};

/// The faults of one statement. All threads share it.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` without faults: then every question costs a look at this.
    on: Option<Box<On>>,
}

#[derive(Debug)]
struct On {
    faults: Faults,
    /// Commands so far, and reads of database files.
    commands: AtomicU64,
    reads: AtomicU64,
    /// Pieces of a backup so far.
    pieces: AtomicU64,
    devices: [Device; MAX_DEVICES as usize],
}

/// What is counted for each device.
#[derive(Debug, Default)]
struct Device {
    commands: AtomicU64,
    read_sizes: AtomicU64,
    burst: AtomicBool,
}

/// What to do about a command: wait, then act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommandFault {
    pub(crate) delay: Duration,
    pub(crate) act: Act,
}

/// What to do instead of sending a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Send it.
    Send,
    /// Abort the set.
    Abort,
    /// [`Act::die`].
    Die,
    /// Fail as if SendCommand had answered this.
    Refuse(VdError),
}

impl Act {
    /// Ends this process at once, as a server that crashes: nothing is tidied up.
    pub(crate) fn die() -> ! {
        // It does not return unless the system refuses, which ends the process all the same.
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort()
    }
}

const NO_FAULT: CommandFault = CommandFault { delay: Duration::ZERO, act: Act::Send };

/// Writes of a device, at most, before its burst of Flushes: every device sends at least as many, however small the backup.
const LATEST_BURST: u64 = 3;

impl Running {
    pub(crate) fn new(faults: &Faults) -> Running {
        let on = || {
            Box::new(On {
                faults: faults.clone(),
                commands: AtomicU64::new(0),
                reads: AtomicU64::new(0),
                pieces: AtomicU64::new(0),
                devices: std::array::from_fn(|_| Device::default()),
            })
        };
        Running { on: (!faults.is_empty()).then(on) }
    }

    /// Before a call of the configuration: how long to wait, and the status that it then fails with. `call` is the published
    /// name, as in [`ServerCall::name`].
    pub(crate) fn configuration(&self, call: &'static str) -> (Duration, Option<VdError>) {
        let (mut wait, mut refused) = (Duration::ZERO, None);
        for fault in self.list() {
            match fault {
                // Open is how the server finds the set, before the configuration.
                Fault::SlowConfiguration { wait: ms } if call != ServerCall::Open.name() => wait += millis(*ms),
                Fault::Refuse { call: refuse, code } if refuse.name() == call => refused = refused.or(Some(*code)),
                _ => {}
            }
        }
        (wait, refused)
    }

    /// Before a command is sent. Counts it.
    pub(crate) fn before_command(&self, device: u32) -> CommandFault {
        let Some(on) = &self.on else { return NO_FAULT };
        let number = next(&on.commands);
        let of_device = next(&on.device(device).commands);
        let mut answer = NO_FAULT;
        for fault in &on.faults.list {
            let act = match fault {
                Fault::Delay { up_to } => {
                    let mut draw = on.draw(fault, device, of_device);
                    answer.delay += Duration::from_micros(draw.u64(0..=u64::from(*up_to) * 1000));
                    continue;
                }
                Fault::DelayAt { command, wait } if *command == number => {
                    answer.delay += millis(*wait);
                    continue;
                }
                Fault::AbortAt { command } if *command == number => Act::Abort,
                Fault::DieAt { command } if *command == number => Act::Die,
                Fault::Refuse { call: ServerCall::SendCommand, code } => Act::Refuse(*code),
                _ => continue,
            };
            // A death leaves nothing to abort, an abort nothing to refuse.
            answer.act = match (answer.act, act) {
                (Act::Die, _) | (_, Act::Die) => Act::Die,
                (Act::Abort, _) | (_, Act::Abort) => Act::Abort,
                (Act::Refuse(first), _) => Act::Refuse(first),
                (Act::Send, act) => act,
            };
        }
        answer
    }

    /// Reads a piece of a database file. Every single read of the file counts, and each may be cut short.
    ///
    /// # Errors
    /// As [`FileExt::read_exact_at`]; EIO where a fault says so.
    pub(crate) fn read_exact_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(on) = &self.on else { return file.read_exact_at(buffer, offset) };
        let (mut rest, mut offset) = (buffer, offset);
        while !rest.is_empty() {
            let number = next(&on.reads);
            let mut most = rest.len();
            for fault in &on.faults.list {
                match fault {
                    Fault::ReadError { read } if *read == number => return Err(rustix::io::Errno::IO.into()),
                    Fault::ShortReads => most = on.draw(fault, 0, offset).usize(1..=most),
                    _ => {}
                }
            }
            match file.read_at(&mut rest[..most], offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    rest = &mut rest[got..];
                    offset += got as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes of the next transfer of a backup, where it could be `full`: a multiple of `block`, or `full` itself.
    pub(crate) fn payload_capacity(&self, full: u32, block: u32) -> u32 {
        self.smaller(&Fault::SmallTransfers, full, block, |on| (0, next(&on.pieces)))
    }

    /// Bytes that the next Read of a device asks for, where it could be `full`.
    pub(crate) fn read_size(&self, device: u32, full: u32, block: u32) -> u32 {
        self.smaller(&Fault::ReadSizes, full, block, |on| (device, next(&on.device(device).read_sizes)))
    }

    /// Where the fault is on: 1 to `full / block` blocks.
    fn smaller(&self, fault: &Fault, full: u32, block: u32, place: impl FnOnce(&On) -> (u32, u64)) -> u32 {
        let Some(on) = self.on.as_ref().filter(|on| on.faults.list.contains(fault)) else { return full };
        let (device, ordinal) = place(on);
        match full.checked_div(block) {
            None | Some(0) => full,
            Some(blocks) => on.draw(fault, device, ordinal).u32(1..=blocks) * block,
        }
    }

    /// Whether a Flush follows now that a device was sent this many Writes.
    pub(crate) fn flush_after(&self, writes: u64) -> bool {
        let follows = |fault: &Fault| match fault {
            Fault::Flushes { writes: every } => writes > 0 && writes.checked_rem(*every) == Some(0),
            _ => false,
        };
        self.list().iter().any(follows)
    }

    /// How many Flushes end a device's backup.
    pub(crate) fn final_flushes(&self) -> u32 {
        if self.list().iter().any(|fault| matches!(fault, Fault::Flushes { .. })) { 2 } else { 1 }
    }

    /// Whether a fault follows the Write of this number to a device.
    pub(crate) fn follow_write(&self, device: u32, number: u64) -> bool {
        self.flush_after(number) || self.burst_is_due(device, number)
    }

    /// Whether the burst of Flushes comes now that a device was sent this many Writes. Says so once a device.
    pub(crate) fn queue_full_burst(&self, device: u32, writes_so_far: u64) -> bool {
        let due = self.burst_is_due(device, writes_so_far);
        if due && let Some(on) = &self.on {
            on.device(device).burst.store(true, Ordering::Relaxed);
        }
        due
    }

    /// Whether the burst of Flushes is to come by now, and has not come.
    fn burst_is_due(&self, device: u32, writes_so_far: u64) -> bool {
        let Some(on) = self.on.as_ref().filter(|on| on.faults.list.contains(&Fault::QueueFull)) else { return false };
        let moment = on.draw(&Fault::QueueFull, device, 0).u64(1..=LATEST_BURST);
        writes_so_far >= moment && !on.device(device).burst.load(Ordering::Relaxed)
    }

    /// The time-out, in milliseconds, that takes the place of what the client asked for.
    pub(crate) fn server_time_out(&self) -> Option<u32> {
        let interval = |fault: &Fault| match fault {
            Fault::ServerTimeOut { interval } => Some(*interval),
            _ => None,
        };
        self.list().iter().filter_map(interval).min()
    }

    /// Which completion of the statement is to be ignored, counted from 1.
    pub(crate) fn ignored_completion(&self) -> Option<u64> {
        let ignored = |fault: &Fault| match fault {
            Fault::IgnoreCompletion { completion } => Some(*completion),
            _ => None,
        };
        self.list().iter().filter_map(ignored).min()
    }

    fn list(&self) -> &[Fault] {
        self.on.as_ref().map_or(&[], |on| &on.faults.list)
    }
}

impl On {
    fn device(&self, device: u32) -> &Device {
        // A set has no more devices than there are places.
        &self.devices[device as usize % self.devices.len()]
    }

    /// The random numbers of one place.
    fn draw(&self, fault: &Fault, device: u32, ordinal: u64) -> fastrand::Rng {
        // FNV-1a, so that neighbouring places get seeds that have nothing in common. The hash of the standard library may change
        // with its version, and then a seed would no longer repeat a run.
        let place = [self.faults.seed.to_le_bytes(), u64::from(device).to_le_bytes(), ordinal.to_le_bytes()];
        let bytes = fault.name().bytes().chain(place.into_iter().flatten());
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        fastrand::Rng::with_seed(hash)
    }
}

/// Counts from 1.
fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
