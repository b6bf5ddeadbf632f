//! RESTORE: see [`crate::engine`].

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Instant;

use vdi_mtf::medium::BackupSet;
use vdi_mtf::sqlserver::config::Config;
use vdi_mtf::value::FileId;

use super::from_devices::Reading;
use super::incoming::{Destination, Incoming, Received, Wanted, data_bytes};
use super::progress_counter::ProgressCounter;
use super::{Cancel, Engine, Failure, Progress, Summary, from_files};
use crate::catalog::RestoreRecord;
use crate::messages::{Message, PAGE_BYTES, Verb};
use crate::storage::{Committed, DataFolder, RestoreRequest, RestoreTarget, StorageError};
use crate::tsql::{DeviceType, Restore};

/// Carries out a RESTORE.
pub(super) fn run(
    engine: &Engine,
    statement: &Restore,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let options = &statement.options;
    let (names, counter) = (&statement.devices.names, ProgressCounter::new(0, options.stats));
    let target = Target::new(&engine.folder, statement, &counter);
    let wanted = Wanted {
        file: options.file.unwrap_or(1),
        checksum: options.checksum,
        continue_after_error: options.continue_after_error,
        block_size: options.block_size,
        snapshot: Some(false),
        full: true,
    };
    let incoming = Incoming::new(wanted, &statement.database, names.len(), &target);
    let mut progress = Reported::new(&counter, options.stats);
    let due = || progress.report(target.total.get().copied(), report);
    let commit = || {
        let received = incoming.finish()?;
        let committed = target.commit(&received)?;
        Ok(Some((received, committed)))
    };
    let fails = engine.fails_after_close();
    let done = match statement.devices.device_type {
        DeviceType::Virtual => {
            let (devices, counter) = (names.as_slice(), &counter);
            let reading = Reading { engine, devices, options, cancel, counter, whole: true };
            reading.run(
                |index, device, _| Some(incoming.reader(index, device)),
                due,
                |operation, _| {
                    // Nothing has changed when it fails.
                    if fails { operation.decide().map(|()| None) } else { operation.settle(commit) }
                },
            )
        }
        DeviceType::Disk => {
            let feed = |index, name: &str| Some(incoming.reader(index, name));
            from_files::run(engine.folder.path(), names, cancel, &counter, feed, due, |_| {
                if fails { Ok(None) } else { commit() }
            })
        }
    }?;
    let mut bytes = 0;
    if let Some((received, committed)) = done {
        bytes = report_restored(&statement.database, &received, report) * PAGE_BYTES;
        if let Some(error) = committed.leftover {
            report(Message::own_information(error.to_string()));
        }
    }
    Ok(Summary { verb: Verb::Restore, bytes, commands: counter.commands(), elapsed: started.elapsed() })
}

/// Reports the files of a set, and what was passed over; gives the pages.
pub(super) fn report_restored(database: &str, received: &Received, report: &mut dyn FnMut(Message)) -> u64 {
    let position = received.set.start.number.into();
    for (file, pages) in &received.pages {
        report(Message::file_processed(*pages, database, file, position));
    }
    if received.damages > 0 {
        report(Message::restored_with_damage());
    }
    received.pages.iter().map(|(_, pages)| pages).sum()
}

/// Reports progress once it is known how much there is.
pub(super) struct Reported<'a> {
    counter: &'a ProgressCounter,
    stats: Option<u8>,
    progress: Option<Progress>,
}

impl<'a> Reported<'a> {
    pub(super) fn new(counter: &'a ProgressCounter, stats: Option<u8>) -> Reported<'a> {
        Reported { counter, stats, progress: None }
    }

    /// Reports what has been reached. `total`: bytes of files in all, if known.
    pub(super) fn report(&mut self, total: Option<u64>, report: &mut dyn FnMut(Message)) {
        if self.progress.is_none() {
            self.progress = total.map(|total| Progress::new(total, self.stats));
        }
        if let Some(progress) = &mut self.progress {
            self.counter.report(progress, report);
        }
    }
}

/// The database that is being restored: made when the header of the backup was read.
struct Target<'a> {
    folder: &'a DataFolder,
    statement: &'a Restore,
    counter: &'a ProgressCounter,
    files: RwLock<Option<RestoreTarget>>,
    /// Bytes of files in all, once the header was read.
    total: OnceLock<u64>,
}

impl<'a> Target<'a> {
    fn new(folder: &'a DataFolder, statement: &'a Restore, counter: &'a ProgressCounter) -> Target<'a> {
        Target { folder, statement, counter, files: RwLock::default(), total: OnceLock::new() }
    }

    /// Makes the files the database.
    fn commit(&self, received: &Received) -> Result<Committed, Failure> {
        let files = self.files.write().unwrap_or_else(PoisonError::into_inner).take();
        let record = RestoreRecord {
            database: &self.statement.database,
            start: &received.set.start,
            configuration: &received.trailing,
            replace: self.statement.options.replace,
        };
        match files {
            Some(files) => Ok(files.commit(&record, &received.log)?),
            // A set that was received has a header, which made the files.
            None => Ok(Committed { replaced: false, leftover: None }),
        }
    }
}

/// Adds the logical name of the file that an error is about.
pub(super) fn misplaced(statement: &Restore, backup: &Config, source: StorageError) -> Failure {
    let path = match &source {
        StorageError::FileInUse { path, .. }
        | StorageError::FileExists { path }
        | StorageError::SamePath { path }
        | StorageError::NoSuchFolder { path } => path.to_string_lossy(),
        StorageError::InvalidPath { path, .. } => path.into(),
        _ => return source.into(),
    };
    let moved = |name: &str| {
        let moves = statement.options.moves.iter();
        moves.rev().find(|(moved, _)| moved.eq_ignore_ascii_case(name)).map(|(_, path)| path.clone())
    };
    let last = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let mut names = backup.files.iter().map(|file| (file.logical_name.to_string(), file.physical_name.to_string()));
    let found = names.find(|(name, recorded)| last(&moved(name).unwrap_or_else(|| recorded.clone())) == last(&path));
    let logical_name = found.map_or_else(|| last(&path), |(name, _)| name);
    Failure::Placement { logical_name, source: Box::new(source) }
}

impl Destination for Target<'_> {
    fn begin(&self, set: &BackupSet) -> Result<(), Failure> {
        let Restore { database, options, .. } = self.statement;
        let total = data_bytes(&set.leading);
        // As in SQL Server, the database is not looked at before the set is open and its header read. So the client learns why it is
        // refused.
        let lock = self.folder.lock(database, Verb::Restore)?;
        let moves: Vec<_> = options.moves.iter().map(|(name, path)| (name.clone(), PathBuf::from(path))).collect();
        let request =
            RestoreRequest { name: database, configuration: &set.leading, replace: options.replace, moves: &moves };
        let files = RestoreTarget::create(self.folder, lock, &request)
            .map_err(|source| misplaced(self.statement, &set.leading, source))?;
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = Some(files);
        let _ = self.total.set(total);
        self.counter.expect(total);
        Ok(())
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        match &*self.files.read().unwrap_or_else(PoisonError::into_inner) {
            Some(files) => Ok(files.write_at(file, offset, bytes)?),
            // Nothing is written before the header was read.
            None => Ok(()),
        }
    }
}
