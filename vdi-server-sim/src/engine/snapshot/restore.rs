//! RESTORE WITH SNAPSHOT.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use vdi_mtf::medium::BackupSet;
use vdi_mtf::value::FileId;
use vdi_proto::command::CommandCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::Features;

use super::super::driver::Driver;
use super::super::from_devices::Reader;
use super::super::incoming::{Destination, Incoming, MediumReader, Received, Wanted};
use super::super::operation::{Operation, Stopped};
use super::super::progress_counter::ProgressCounter;
use super::super::reads::Reads;
use super::super::restore::{misplaced, report_restored};
use super::super::snapshot_sums as sums;
use super::super::{Cancel, Engine, Failure, Progress, Summary, default_buffers};
use super::through;
use crate::catalog::RestoreRecord;
use crate::messages::{Message, PAGE_BYTES, Verb};
use crate::storage::{Committed, DataFolder, MountTarget, RestoreRequest, StorageError};
use crate::tsql::Restore;

/// Carries out a RESTORE WITH SNAPSHOT.
pub(in crate::engine) fn run(
    engine: &Engine,
    statement: &Restore,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let options = &statement.options;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(1)).max(2);
    Operation::with(engine, &statement.devices.names, cancel, |operation| {
        let started = Instant::now();
        let terms =
            ServerTerms { features: Features::READ_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
        let (config, opened) = operation.configure(&terms, &[(transfer, buffers)], &statement.devices.names)?;
        let counter = ProgressCounter::new(0, None);
        let target = Target { folder: &engine.folder, statement, mount: Mutex::default() };
        let wanted = Wanted {
            file: options.file.unwrap_or(1),
            checksum: options.checksum,
            continue_after_error: options.continue_after_error,
            block_size: options.block_size,
            snapshot: Some(true),
            full: true,
        };
        // The grammar lets no snapshot pass with another number of devices than one.
        let incoming = Incoming::new(wanted, &statement.database, 1, &target);
        let mut done = None;
        std::thread::scope(|scope| {
            operation.spawn(scope, || operation.run_agent());
            if let Some(device) = opened.into_iter().next() {
                let driver = Driver::new(operation, device, config, None, &counter);
                let feed = incoming.reader(0, driver.name());
                let reads = Reads::new(driver, transfer);
                let reader = Reader { operation, transfer, block_size, reads, whole: false, inspects: false };
                let fails = engine.fails_after_close();
                let mounter = Mounter { operation, incoming: &incoming, target: &target, reader, fails };
                let done = &mut done;
                through(operation, scope, move || {
                    // The thread that met the failure has recorded it.
                    *done = mounter.mount(feed).ok().flatten();
                });
            }
            // Ends the agent.
            operation.finish()
        })?;
        Progress::new(0, options.stats).reached(0, report);
        let mut pages = 0;
        if let Some((received, committed)) = done {
            pages = report_restored(&statement.database, &received, report);
            if let Some(error) = committed.leftover {
                report(Message::own_information(error.to_string()));
            }
        }
        let (bytes, commands) = (pages * PAGE_BYTES, counter.commands());
        Ok(Summary { verb: Verb::Restore, bytes, commands, elapsed: started.elapsed() })
    })
}

/// The database that is being restored.
struct Target<'a> {
    folder: &'a DataFolder,
    statement: &'a Restore,
    /// Once the header was read.
    mount: Mutex<Option<MountTarget>>,
}

impl Destination for Target<'_> {
    fn begin(&self, set: &BackupSet) -> Result<(), Failure> {
        let Restore { database, options, .. } = self.statement;
        let lock = self.folder.lock(database, Verb::Restore)?;
        let moves: Vec<_> = options.moves.iter().map(|(name, path)| (name.clone(), PathBuf::from(path))).collect();
        let request =
            RestoreRequest { name: database, configuration: &set.leading, replace: options.replace, moves: &moves };
        let mount = MountTarget::create(self.folder, lock, &request)
            .map_err(|source| misplaced(self.statement, &set.leading, source))?;
        *self.mount.lock().unwrap_or_else(PoisonError::into_inner) = Some(mount);
        Ok(())
    }

    fn write_at(&self, _file: FileId, _offset: u64, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}

/// The thread of a restore.
struct Mounter<'a> {
    operation: &'a Operation,
    incoming: &'a Incoming<'a>,
    target: &'a Target<'a>,
    reader: Reader<'a>,
    /// The fault fail-after-close is on: nothing has changed when the statement fails.
    fails: bool,
}

impl Mounter<'_> {
    fn mount(mut self, mut feed: MediumReader<'_>) -> Result<Option<(Received, Committed)>, Stopped> {
        let operation = self.operation;
        self.reader.pump(&mut feed)?;
        // A Read that ended with an error has to be cleared before the next command.
        self.reader.reads.resume()?;
        let received = self.incoming.finish().map_err(|failure| operation.stop(failure))?;
        let target = self.target.mount.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A set that was received has a header, which made the target.
        let target = target.ok_or(Stopped)?;
        let frozen = target.existing().map(|database| operation.freeze(database)).transpose();
        let _frozen = frozen.map_err(|failure| operation.stop(failure))?;
        self.reader.reads.driver.command(CommandCode::MOUNT_SNAPSHOT, 0, 0)?;
        let files = target.mounted().map_err(|error| operation.stop(error))?;
        self.compare(&received, &target, &files)?;
        let record = RestoreRecord {
            database: &self.target.statement.database,
            start: &received.set.start,
            configuration: &received.trailing,
            replace: self.target.statement.options.replace,
        };
        let adopted = match self.fails {
            true => operation.decide().map(|()| None)?,
            false => Some(operation.settle(|| Ok(target.adopt(&files, &record)?))?),
        };
        self.reader.reads.driver.close()?;
        Ok(adopted.map(|committed| (received, committed)))
    }

    /// Compares the files with what the backup says of them: by their sums, where the backup has them, and else page by page.
    fn compare(&self, received: &Received, target: &MountTarget, files: &[std::fs::File]) -> Result<(), Stopped> {
        let operation = self.operation;
        let mut summed = true;
        for ((record, path), file) in received.trailing.files.iter().zip(target.paths()).zip(files) {
            let Some(expected) = sums::decode(record) else {
                summed = false;
                continue;
            };
            let failed = |source| StorageError::Io { action: "read", path: path.clone(), offset: None, source };
            match sums::sum(file, record.size, &|| operation.is_aborted())
                .map_err(|error| operation.stop(failed(error)))?
            {
                Some(found) if found == expected => {}
                Some(found) => {
                    let (database, path) = (self.target.statement.database.clone(), path.clone());
                    return Err(operation.stop(Failure::SnapshotSum { database, path, expected, found }));
                }
                // The agent knows why.
                None => return Err(operation.wait_until_over()),
            }
        }
        if summed { Ok(()) } else { target.check(files).map_err(|error| operation.stop(error)) }
    }
}
