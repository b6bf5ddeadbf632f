//! The device that media are put into: files, tape images and volume sets.
//!
//! # Invariants
//!
//! 1. It commits by the rule of the [module above](super#the-invariant) only, and never after a final failure.
//! 2. A Write is stored within the medium's capacity, or is not answered with success: what is missing is counted.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};

use super::error::MediaError;
use super::interface::Media;
use super::lock::TargetLock;
use super::medium::Medium;
use super::partial::CommitError;
use super::steps::{Step, checkpoint};
use super::target::{Direction, Target};
use super::transfer::On;

/// Where the media of a drive are kept. It is displayed as the path of the medium in the drive.
pub(super) trait Store: fmt::Debug + fmt::Display + Send {
    /// Whether it can serve a set with these features, of a kind that the drive has.
    fn check(&self, features: Features) -> Result<(), MediaError> {
        let _ = features;
        Ok(())
    }

    /// The medium in the drive.
    fn file(&self) -> &File;

    /// Whether the medium can only be written and read from its beginning to its end.
    fn is_stream(&self) -> bool {
        false
    }

    /// Makes durable what was written to the medium.
    fn sync(&self) -> io::Result<()> {
        checkpoint(Step::SyncFile)?;
        self.file().sync_data()
    }

    /// Puts a medium into the drive; whether it is another than before. A medium that leaves the drive in a backup is durable.
    fn load(&mut self, kind: DeviceKind, number: i32) -> Result<bool, MediaError>;

    /// Puts a backup into its place. The lock on the target, if it has one, is still held.
    fn commit(self) -> Result<Option<TargetLock>, CommitError>;
}

#[derive(Debug)]
pub(super) struct MediaDrive<S> {
    path: PathBuf,
    target: Target<S>,
    kinds: &'static [DeviceKind],
    /// Which of them it is.
    kind: DeviceKind,
    medium: Medium,
    /// Bytes of a block; 1 until that is negotiated.
    block: u64,
    /// Bytes of data that a medium takes.
    capacity: u64,
    /// Bytes before the capacity in which Writes are stored with a warning.
    zone: u64,
    /// Of a target that is committed already: until the device is closed, so that no other device of the same backup, whose
    /// medium is made late, can replace it.
    committed: Option<TargetLock>,
}

fn on<S: Store>(store: &S, kind: DeviceKind) -> On<'_> {
    On { file: store.file(), name: store, stream: store.is_stream() && kind != DeviceKind::DiskLike }
}

impl<S: Store> MediaDrive<S> {
    /// A drive of the first of `kinds` until [`Media::begin`] decides.
    pub(super) fn new(
        path: PathBuf,
        store: S,
        direction: Direction,
        fate: &'static str,
        kinds: &'static [DeviceKind],
        capacity: u64,
    ) -> Result<MediaDrive<S>, MediaError> {
        let kind = kinds.first().copied().unwrap_or(DeviceKind::PipeLike);
        let medium = Medium::open(kind, on(&store, kind), 1, direction)?;
        let target = Target::new(path.display().to_string(), direction, fate, store);
        Ok(MediaDrive { path, target, kinds, kind, medium, block: 1, capacity, zone: 0, committed: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.target.bytes
    }

    pub(super) fn store(&self) -> Option<&S> {
        self.target.get()
    }

    /// Does something with what is open, in a backup only if so; a final error is for good.
    fn act<T>(
        &mut self,
        what: impl fmt::Display,
        backup_only: bool,
        act: impl FnOnce(&mut S, &mut Medium) -> Result<T, MediaError>,
    ) -> Result<T, MediaError> {
        let restore = self.target.direction == Direction::Restore;
        let store = self.target.open(&what)?;
        if backup_only && restore {
            let remedy = format!("open {store} with create for a backup");
            return Err(MediaError::not_supported(format_args!("{what} in a restore")).with_remedy(remedy));
        }
        let result = act(store, &mut self.medium);
        self.target.settle(result)
    }

    fn load(&mut self, number: i32) -> Result<(), MediaError> {
        let (kind, block, direction) = (self.kind, self.block, self.target.direction);
        self.act("Load", false, |store, medium| {
            if store.load(kind, number)? {
                *medium = Medium::open(kind, on(store, kind), block, direction)?;
            } else {
                medium.rewind();
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<(), MediaError> {
        let Some(store) = self.target.finish().filter(|_| self.target.direction == Direction::Backup) else {
            return self.target.clear_error();
        };
        self.committed = store.commit().map_err(|CommitError { doing, in_place, source }| {
            let fate = if in_place {
                "the new data is in its place, but may not survive a crash of the system"
            } else {
                self.target.fate
            };
            let what = format!("cannot finish {} ({doing}; {fate})", self.target.name);
            self.target.fail(MediaError::io(what, source))
        })?;
        Ok(())
    }
}

fn overflow(medium: &impl fmt::Display, capacity: u64, start: u64) -> MediaError {
    let what = format!("{medium} is full: it takes {capacity} bytes, and a Write would begin at byte {start}");
    MediaError::new(CompletionCode::EOM_OVERFLOW, what)
        .with_remedy("have a warning zone (eomWarningSize) of what the server sends at a time, or larger media")
}

impl<S: Store> Media for MediaDrive<S> {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.target.begin(config, self.kinds)?;
        let kind = config.features.device_kind().unwrap_or(self.kind);
        let block = u64::from(config.block_size).max(1);
        let another = kind != self.kind;
        (self.kind, self.block, self.zone) = (kind, block, u64::from(config.eom_warning_size));
        if let Err(error) = self.store().map_or(Ok(()), |store| store.check(config.features)) {
            return Err(self.target.fail(error));
        }
        let direction = self.target.direction;
        self.act("the beginning", false, |store, medium| {
            let on = on(store, kind);
            match medium {
                Medium::Tape(tape) if !another => tape.set_block(block, on),
                _ => Medium::open(kind, on, block, direction).map(|opened| *medium = opened),
            }
        })
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        let (capacity, zone, block, kind) = (self.capacity, self.zone, self.block, self.kind);
        let result = self.act("a Write", true, |store, medium| {
            let start = medium.start(position);
            let room = capacity.saturating_sub(start);
            let fits = if data.len() as u64 <= room { data.len() } else { (room - room % block) as usize };
            if fits == 0 && !data.is_empty() {
                return Err(overflow(store, capacity, start));
            }
            let (data, _) = data.split_at(fits);
            medium.write(on(store, kind), position, data)?;
            let end = start.saturating_add(fits as u64);
            // Where not one more block fits, the server has to know now: the next Write could not be stored at all.
            let warned = end > capacity.saturating_sub(zone.max(block));
            Ok((fits, warned.then(|| format!("{store} has {end} of the {capacity} bytes that it takes"))))
        });
        let (stored, warning) = result.inspect_err(|error| self.target.bytes += u64::from(error.bytes))?;
        self.target.bytes += stored as u64;
        self.target.progress.written();
        let short = (stored < data.len())
            .then(|| format!("{} bytes did not fit on a medium of {}", data.len() - stored, self.target.name));
        match short.or(warning) {
            Some(what) => Err(MediaError::condition(CompletionCode::END_OF_MEDIA, what)
                .with_bytes(stored)
                .with_remedy("the next medium has to be loaded")),
            None => Ok(()),
        }
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        let kind = self.kind;
        let restore = self.target.direction == Direction::Restore;
        let remedy = format_args!("open {} with open for a restore", self.path.display()).to_string();
        let result = self.act("a Read", false, |store, medium| {
            // What a pipe-like device wrote cannot be read before it is finished.
            if kind == DeviceKind::PipeLike && !restore {
                return Err(MediaError::not_supported("a Read in a backup").with_remedy(remedy));
            }
            medium.read(on(store, kind), position, buffer)
        });
        if restore {
            self.target.bytes += result.as_ref().map_or_else(|error| u64::from(error.bytes), |done| *done as u64);
        }
        result
    }

    /// In a restore, and after Complete, there is nothing to be synced.
    fn flush(&mut self) -> Result<(), MediaError> {
        let (restore, bytes) = (self.target.direction == Direction::Restore, self.target.bytes);
        let Some(store) = self.target.open_or_done("a Flush")?.filter(|_| !restore) else { return Ok(()) };
        let synced = store.sync();
        let synced = synced.map_err(|error| MediaError::io(format!("cannot sync {store} after {bytes} bytes"), error));
        self.target.settle(synced)?;
        self.target.progress.flushed();
        Ok(())
    }

    /// Commits, whether Complete was negotiated or not. In a restore, and the second time, there is nothing to be done.
    fn complete(&mut self) -> Result<(), MediaError> {
        self.commit()
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.target.clear_error()
    }

    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        let kind = self.kind;
        match code {
            CommandCode::LOAD => self.load(size).map(|()| 0),
            CommandCode::DISCARD => {
                self.act(code, true, |_, _| Ok(()))?;
                self.target.discard();
                Ok(0)
            }
            _ => {
                let writes = code == CommandCode::WRITE_MARK;
                let result =
                    self.act(code, writes, |store, medium| medium.other(on(store, kind), code, size, position))?;
                if writes {
                    self.target.progress.written();
                }
                Ok(result)
            }
        }
    }

    fn close(&mut self) -> Result<(), MediaError> {
        let closed = if self.target.close()? { self.commit() } else { Ok(()) };
        self.committed = None;
        closed
    }
}
