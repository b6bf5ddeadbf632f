//! The device that media are put into: what tape images and volume sets have in common.
//!
//! # Invariants
//!
//! 1. It commits by the rule of the [module above](super#the-invariant) only, and never after a final failure.
//! 2. A Write is stored within the medium's capacity, or is not answered with success: what is missing is counted.
//! 3. A medium that leaves the device in a backup is durable first.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};

use super::medium::{Medium, On};
use super::partial::{CommitError, Step, checkpoint};
use super::progress::{self, Direction, Progress};
use super::{Media, MediaError};

/// What became of the target if a backup ends now.
const FATE: &str = "the new data was discarded, and what was there before was kept";

/// Where the media of a device are kept; it is displayed as the path of the one in the device.
pub(super) trait Store: fmt::Debug + fmt::Display + Send {
    /// The way the bytes go.
    fn direction(&self) -> Direction;

    /// Whether it can serve a set with these features, of a kind that the device has.
    fn suits(&self, features: Features) -> Result<(), MediaError> {
        let _ = features;
        Ok(())
    }

    /// The medium in the device.
    fn file(&self) -> &File;

    /// Puts a medium into the device; whether it is another than before.
    fn load(&mut self, number: i32) -> Result<bool, MediaError>;

    /// Puts a backup into its place.
    fn commit(self) -> Result<(), CommitError>;
}

#[derive(Debug)]
enum State<S> {
    Open(S),
    /// Committed, or closed after reading.
    Done,
    /// Failed for this reason: never committed, and good for nothing any more.
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Deck<S> {
    path: PathBuf,
    state: State<S>,
    kinds: &'static [DeviceKind],
    /// Which of them it is.
    kind: DeviceKind,
    medium: Medium,
    /// Bytes of a block; 1 until that is agreed on.
    block: u64,
    /// Bytes of data that a medium takes.
    capacity: u64,
    /// Bytes before the capacity in which Writes are stored with a warning.
    zone: u64,
    progress: Progress,
    bytes: u64,
}

impl<S: Store> Deck<S> {
    /// A device of the first of `kinds` until [`Media::begin`] tells which it is.
    pub(super) fn new(
        path: PathBuf,
        store: S,
        kinds: &'static [DeviceKind],
        capacity: u64,
    ) -> Result<Deck<S>, MediaError> {
        let kind = kinds.first().copied().unwrap_or(DeviceKind::PipeLike);
        let medium = Medium::open(kind, On { file: store.file(), name: &store }, 1)?;
        let state = State::Open(store);
        Ok(Deck {
            path,
            state,
            kinds,
            kind,
            medium,
            block: 1,
            capacity,
            zone: 0,
            progress: Progress::default(),
            bytes: 0,
        })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn store(&self) -> Option<&S> {
        match &self.state {
            State::Open(store) => Some(store),
            _ => None,
        }
    }

    fn too_late(&self, what: impl fmt::Display) -> MediaError {
        MediaError::new(CompletionCode::IO_DEVICE, format!("{what} came after {} was finished", self.path.display()))
            .with_remedy("the server must not send it after Complete or close; report that with the server's version")
    }

    fn failed_before(&self, first: &str) -> MediaError {
        let what = format!("{} is of no use any more since an earlier failure: {first}", self.path.display());
        MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("remove the cause of that, then start again")
    }

    /// Fails for good: what was written vanishes now.
    pub(super) fn fail(&mut self, mut error: MediaError) -> MediaError {
        if self.store().is_some_and(|store| store.direction() == Direction::Backup) {
            error.what = format!("{} ({FATE})", error.what);
        }
        self.state = State::Failed(error.to_string());
        error
    }

    /// Does something with what is open, for `direction` only if one is given; a final error is for good.
    fn act<T>(
        &mut self,
        what: impl fmt::Display,
        direction: Option<Direction>,
        act: impl FnOnce(&mut S, &mut Medium) -> Result<T, MediaError>,
    ) -> Result<T, MediaError> {
        // Twice, because the errors of the other states need all of this.
        match &self.state {
            State::Open(_) => {}
            State::Done => return Err(self.too_late(what)),
            State::Failed(first) => return Err(self.failed_before(first)),
        }
        let State::Open(store) = &mut self.state else { return Err(MediaError::not_supported(what)) };
        if direction.is_some_and(|direction| direction != store.direction()) {
            let remedy = format!("open {} with create for a backup", self.path.display());
            return Err(MediaError::not_supported(format_args!("{what} in a restore")).with_remedy(remedy));
        }
        act(store, &mut self.medium).map_err(|error| match error.code {
            CompletionCode::NOT_SUPPORTED => error,
            _ if error.is_final() => self.fail(error),
            _ => error,
        })
    }

    fn sync(&mut self, what: &str) -> Result<(), MediaError> {
        self.act(what, None, |store, _| {
            let synced = checkpoint(Step::SyncFile).and_then(|()| store.file().sync_data());
            synced.map_err(|error| MediaError::io(format!("cannot sync {store}"), error))
        })
    }

    fn load(&mut self, number: i32) -> Result<(), MediaError> {
        if self.store().is_some_and(|store| store.direction() == Direction::Backup) {
            self.sync("Load")?;
        }
        let (kind, block) = (self.kind, self.block);
        self.act("Load", None, |store, medium| {
            if store.load(number)? {
                *medium = Medium::open(kind, On { file: store.file(), name: store }, block)?;
            } else {
                medium.rewind();
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<(), MediaError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Open(store) if store.direction() == Direction::Backup => store.commit().map_err(|error| {
                let fate = if error.in_place {
                    "the new data is in its place, but may not survive a crash of the system"
                } else {
                    FATE
                };
                let what = format!("cannot finish {} ({}; {fate})", self.path.display(), error.doing);
                self.fail(MediaError::io(what, error.source))
            }),
            other => {
                self.state = other;
                Ok(())
            }
        }
    }
}

fn overflow(medium: &impl fmt::Display, capacity: u64, start: u64) -> MediaError {
    let what = format!("{medium} is full: it takes {capacity} bytes, and a Write would begin at byte {start}");
    MediaError::new(CompletionCode::EOM_OVERFLOW, what)
        .with_remedy("have a warning zone (eomWarningSize) of what the server sends at a time, or larger media")
}

impl<S: Store> Media for Deck<S> {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        let direction = self.store().map_or(Direction::Backup, Store::direction);
        progress::check(config, direction, self.kinds, &self.path.display()).map_err(|error| self.fail(error))?;
        let kind = config.features.device_kind().unwrap_or(self.kind);
        let block = u64::from(config.block_size).max(1);
        let another = kind != self.kind;
        (self.kind, self.block, self.zone) = (kind, block, u64::from(config.eom_warning_size));
        self.progress.begin(config);
        let suits = self.store().map_or(Ok(()), |store| store.suits(config.features));
        suits.map_err(|error| self.fail(error))?;
        self.act("the beginning", None, |store, medium| {
            let on = On { file: store.file(), name: store };
            match medium {
                Medium::Tape(tape) if !another => tape.set_block(block, on),
                _ => Medium::open(kind, on, block).map(|opened| *medium = opened),
            }
        })
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        let (capacity, zone, block) = (self.capacity, self.zone, self.block);
        let (stored, warning) = self
            .act("a Write", Some(Direction::Backup), |store, medium| {
                let start = medium.start(position);
                let room = capacity.saturating_sub(start);
                let fits = if data.len() as u64 <= room { data.len() } else { (room - room % block) as usize };
                if fits == 0 && !data.is_empty() {
                    return Err(overflow(store, capacity, start));
                }
                let (data, _) = data.split_at(fits);
                medium.write(On { file: store.file(), name: store }, position, data)?;
                let end = start.saturating_add(fits as u64);
                // Where not one more block fits, the server has to know now: the next Write could not be stored at all.
                let warned = end > capacity.saturating_sub(zone.max(block));
                Ok((fits, warned.then(|| format!("{store} has {end} of the {capacity} bytes that it takes"))))
            })
            .inspect_err(|error| self.bytes += u64::from(error.bytes))?;
        self.bytes += stored as u64;
        self.progress.written();
        let short = (stored < data.len())
            .then(|| format!("{} bytes did not fit on a medium of {}", data.len() - stored, self.path.display()));
        match short.or(warning) {
            Some(what) => Err(MediaError::condition(CompletionCode::END_OF_MEDIA, what)
                .with_bytes(stored)
                .with_remedy("the next medium has to be loaded")),
            None => Ok(()),
        }
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        // What a pipe wrote cannot be read before it is finished.
        let restore = self.store().is_some_and(|store| store.direction() == Direction::Restore);
        if self.kind == DeviceKind::PipeLike && !restore && self.store().is_some() {
            return Err(MediaError::not_supported("a Read in a backup")
                .with_remedy(format!("open {} with open for a restore", self.path.display())));
        }
        let result = self
            .act("a Read", None, |store, medium| medium.read(On { file: store.file(), name: store }, position, buffer));
        if restore {
            self.bytes += result.as_ref().map_or_else(|error| u64::from(error.bytes), |done| *done as u64);
        }
        result
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Done => return Ok(()),
            State::Open(store) if store.direction() == Direction::Restore => return Ok(()),
            _ => self.sync("Flush")?,
        }
        self.progress.flushed();
        Ok(())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Failed(first) => Err(self.failed_before(first)),
            _ => self.commit(),
        }
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Failed(first) => Err(self.failed_before(first)),
            _ => Ok(()),
        }
    }

    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        match code {
            CommandCode::LOAD => self.load(size).map(|()| 0),
            CommandCode::DISCARD => {
                self.act(code, Some(Direction::Backup), |_, _| Ok(()))?;
                self.state = State::Failed(format!("the server discarded the backup ({FATE})"));
                Ok(0)
            }
            _ => {
                let writes = code == CommandCode::WRITE_MARK;
                let direction = writes.then_some(Direction::Backup);
                let result = self.act(code, direction, |store, medium| {
                    medium.other(On { file: store.file(), name: store }, code, size, position)
                })?;
                if writes {
                    self.progress.written();
                }
                Ok(result)
            }
        }
    }

    fn close(&mut self) -> Result<(), MediaError> {
        match &self.state {
            State::Done => Ok(()),
            State::Failed(first) => Err(self.failed_before(first)),
            State::Open(store) if store.direction() == Direction::Restore => {
                self.state = State::Done;
                Ok(())
            }
            State::Open(_) => match self.progress.judge_close() {
                Ok(()) => self.commit(),
                Err(unproven) => {
                    let (path, bytes) = (self.path.display(), self.bytes);
                    let what = format!(
                        "the server closed the device {unproven}, so {path} is not complete after {bytes} bytes"
                    );
                    let error = MediaError::new(CompletionCode::IO_DEVICE, what)
                        .with_remedy("look in the server's error log why it ended the backup");
                    Err(self.fail(error))
                }
            },
        }
    }
}
