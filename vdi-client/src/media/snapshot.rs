//! Snapshots: a medium for their metadata, and the program's part that takes and mounts them.
//!
//! # Invariants
//!
//! 1. A snapshot is taken only when the metadata that describe it are durable.
//! 2. After a failure of a snapshot nothing is committed, and nothing succeeds.
//! 3. The metadata of a snapshot that was announced are committed only after it was taken, and are what they were then.
//! 4. No success is reported before the snapshot is committed, which happens after the commit of the metadata.

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;

use super::error::MediaError;
use super::interface::Media;
use super::target::failed_before;

/// Takes snapshots of the volumes that a database's files are on, and mounts them: see [`SnapshotMedia`].
///
/// All of it is called between two commands of the device; while [`take`](Snapshots::take) runs, the server holds back every
/// write to the database.
pub trait Snapshots: Send {
    /// VDC_PrepareToFreeze: a snapshot will follow, after more metadata perhaps. Whatever takes time belongs here. It comes
    /// only where [`Features::SNAPSHOT_PREPARE`](vdi_proto::features::Features::SNAPSHOT_PREPARE) was negotiated.
    ///
    /// # Errors
    /// The snapshot cannot be taken; the backup fails.
    fn prepare(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    /// A part of the list of frozen files: what one Write between FileInfoBegin and FileInfoEnd carried. The parts make up the
    /// list, which is complete when [`take`](Snapshots::take) is called; its form is the server's. It comes only where
    /// [`Features::ENUM_FROZEN_FILES`](vdi_proto::features::Features::ENUM_FROZEN_FILES) was negotiated.
    ///
    /// # Errors
    /// The list is no use; the backup fails.
    fn file_info(&mut self, bytes: &[u8]) -> Result<(), MediaError> {
        let _ = bytes;
        Ok(())
    }

    /// VDC_Snapshot: the database is frozen. Takes the snapshot and returns when the database may go on. An older snapshot stays
    /// as it is: this backup may still fail.
    ///
    /// # Errors
    /// There is no snapshot; the backup fails. ERROR_OPERATION_ABORTED says that it was given up on purpose.
    fn take(&mut self) -> Result<(), MediaError>;

    /// The metadata of a backup, with the snapshot if one was taken, have been committed. Puts both into the place of an older
    /// backup, durably and in one step: the server reports success after this. A backup that fails never gets here, and is
    /// dropped.
    ///
    /// # Errors
    /// The older backup is still the one that counts; the backup fails.
    fn commit(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    /// VDC_MountSnapshot: puts the files of the snapshot into their places, byte for byte as they were.
    ///
    /// # Errors
    /// The files are not in place; the restore fails. So it is answered, with ERROR_NOT_SUPPORTED, unless this is
    /// implemented.
    fn mount(&mut self) -> Result<(), MediaError> {
        Err(MediaError::not_supported(CommandCode::MOUNT_SNAPSHOT))
    }
}

/// A medium for `BACKUP` and `RESTORE` `WITH SNAPSHOT`: the metadata go to `M`, and the snapshot is for `S`:
/// [Snapshots](super#snapshots).
///
/// ```
/// use vdi_client::media::{FileMedia, Media, MediaError, SnapshotMedia, Snapshots};
/// use vdi_client::{CommandCode, CompletionCode};
///
/// /// Has a volume manager do it.
/// struct Volume {
///     ready: bool,
/// }
///
/// impl Snapshots for Volume {
///     fn take(&mut self) -> Result<(), MediaError> {
///         match self.ready {
///             true => Ok(()), // lvcreate --snapshot, for example
///             false => Err(MediaError::new(CompletionCode::OPERATION_ABORTED, "the volume group is full")),
///         }
///     }
///     fn mount(&mut self) -> Result<(), MediaError> {
///         Ok(()) // lvconvert --merge
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("sales.metadata");
/// let mut media = SnapshotMedia::new(FileMedia::create(&path)?, Volume { ready: true });
/// media.write(0, b"what is frozen")?;
/// media.other(CommandCode::SNAPSHOT, 0, 0)?;
/// media.close()?;
/// assert!(path.exists());
///
/// let mut media = SnapshotMedia::new(FileMedia::create(&path)?, Volume { ready: false });
/// media.write(0, b"never mind")?;
/// assert!(media.other(CommandCode::SNAPSHOT, 0, 0).is_err() && media.close().is_err());
/// assert_eq!(std::fs::read(&path)?, b"what is frozen");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SnapshotMedia<M, S> {
    metadata: M,
    snapshots: S,
    /// Between FileInfoBegin and FileInfoEnd.
    listing: bool,
    stage: Stage,
    /// What is to be committed: something was written, or a snapshot was taken.
    uncommitted: bool,
    /// What failed first.
    failed: Option<String>,
}

/// How far a backup has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It may be one without a snapshot.
    Metadata,
    /// A snapshot has to follow.
    Announced,
    Taken,
    Complete,
}

impl<M: Media, S: Snapshots> SnapshotMedia<M, S> {
    /// A medium with `metadata` for what is written and read, and `snapshots` for the rest.
    #[must_use]
    pub fn new(metadata: M, snapshots: S) -> Self {
        SnapshotMedia { metadata, snapshots, listing: false, stage: Stage::Metadata, uncommitted: false, failed: None }
    }

    /// Both parts.
    #[must_use]
    pub fn into_parts(self) -> (M, S) {
        (self.metadata, self.snapshots)
    }

    fn check(&self) -> Result<(), MediaError> {
        self.failed.as_ref().map_or(Ok(()), |first| Err(failed_before("the snapshot", first)))
    }

    /// Refuses what comes out of order, and all that follows a failure.
    fn check_order(&mut self, code: CommandCode) -> Result<(), MediaError> {
        self.check()?;
        let what = match (self.stage, code) {
            (
                Stage::Taken,
                CommandCode::WRITE
                | CommandCode::WRITE_MARK
                | CommandCode::PREPARE_TO_FREEZE
                | CommandCode::FILE_INFO_BEGIN
                | CommandCode::FILE_INFO_END
                | CommandCode::SNAPSHOT,
            ) => format!("{code} came after the snapshot"),
            (Stage::Complete, CommandCode::SNAPSHOT) => format!("{code} came after {}", CommandCode::COMPLETE),
            _ => return Ok(()),
        };
        self.settle(Err(out_of_order(what)))
    }

    /// Refuses to commit what lacks its snapshot.
    fn check_end(&mut self) -> Result<(), MediaError> {
        self.check()?;
        match self.stage {
            Stage::Announced => self.settle(Err(out_of_order(
                "the server ended the backup without the snapshot that had been announced".to_owned(),
            ))),
            _ => Ok(()),
        }
    }

    /// After the metadata.
    fn commit(&mut self) -> Result<(), MediaError> {
        if self.uncommitted {
            let committed = self.snapshots.commit();
            self.settle(committed)?;
            self.uncommitted = false;
        }
        Ok(())
    }

    /// What the snapshot's own part answered: a failure is for good.
    fn settle(&mut self, result: Result<(), MediaError>) -> Result<(), MediaError> {
        result.map_err(|error| {
            self.failed = Some(error.to_string());
            error.into_final()
        })
    }
}

fn out_of_order(what: String) -> MediaError {
    MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("see the server's error log")
}

impl<M: Media, S: Snapshots> Media for SnapshotMedia<M, S> {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.metadata.begin(config)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.check_order(CommandCode::WRITE)?;
        let result = self.metadata.write(position, data);
        let stored = match &result {
            Ok(()) => data.len(),
            Err(error) if error.is_final() => return result,
            // A condition: what is missing comes once more.
            Err(error) => (error.bytes as usize).min(data.len()),
        };
        self.uncommitted |= stored > 0;
        if self.listing && stored > 0 {
            let (stored, _) = data.split_at(stored);
            let taken = self.snapshots.file_info(stored);
            self.settle(taken)?;
        }
        result
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.check()?;
        self.metadata.read(position, buffer)
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        self.check()?;
        self.metadata.flush()
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.check_end()?;
        self.metadata.complete()?;
        self.commit()?;
        self.stage = Stage::Complete;
        Ok(())
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.check()?;
        self.metadata.clear_error()
    }

    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        self.check_order(code)?;
        let result = match code {
            CommandCode::PREPARE_TO_FREEZE => self.snapshots.prepare(),
            CommandCode::FILE_INFO_BEGIN | CommandCode::FILE_INFO_END => {
                self.listing = code == CommandCode::FILE_INFO_BEGIN;
                Ok(())
            }
            CommandCode::SNAPSHOT => self.metadata.flush().and_then(|()| self.snapshots.take()),
            CommandCode::MOUNT_SNAPSHOT => self.snapshots.mount(),
            _ => return self.metadata.other(code, size, position),
        };
        self.settle(result)?;
        match code {
            CommandCode::PREPARE_TO_FREEZE | CommandCode::FILE_INFO_BEGIN => self.stage = Stage::Announced,
            CommandCode::SNAPSHOT => (self.stage, self.uncommitted) = (Stage::Taken, true),
            _ => {}
        }
        Ok(0)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.check_end()?;
        self.metadata.close()?;
        self.commit()
    }
}
