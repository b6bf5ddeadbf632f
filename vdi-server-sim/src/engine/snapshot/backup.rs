//! BACKUP WITH SNAPSHOT.

use std::sync::Arc;
use std::time::Instant;

use vdi_proto::command::CommandCode;
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT, VdConfig};
use vdi_proto::features::Features;

use super::super::backup::output::{Output, SMALL_BUFFERS, SMALL_LEN};
use super::super::backup::refuse_unknown;
use super::super::completed::Completed;
use super::super::driver::Driver;
use super::super::free_list::{FreeList, FreeLists};
use super::super::operation::{Operation, Stopped};
use super::super::plan::{Cuts, Media, Plan, Terms};
use super::super::progress_counter::ProgressCounter;
use super::super::snapshot_sums as sums;
use super::super::writes::Writes;
use super::super::{Cancel, Engine, Failure, Progress, Summary, default_buffers};
use super::through;
use crate::catalog::FileRow;
use crate::messages::{Message, Verb};
use crate::storage::{Database, StorageError};
use crate::tsql::Backup;
use crate::vds::ServerVirtualDevice;

/// Carries out a BACKUP WITH SNAPSHOT.
pub(in crate::engine) fn run(
    engine: &Engine,
    statement: &Backup,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let options = &statement.options;
    refuse_unknown(engine, &statement.database)?;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(1)).max(1);

    Operation::with(engine, &statement.devices.names, cancel, |operation| {
        let _lock = engine.folder.lock(&statement.database, Verb::Backup)?;
        let database = engine.folder.database(&statement.database)?;
        let started = Instant::now();
        let terms =
            ServerTerms { features: Features::WRITE_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
        let wanted = [(transfer, buffers), (SMALL_LEN, SMALL_BUFFERS)];
        let (config, opened) = operation.configure(&terms, &wanted, &statement.devices.names)?;
        let counter = ProgressCounter::new(0, None);
        let mut plan = None;
        std::thread::scope(|scope| {
            operation.spawn(scope, || operation.run_agent());
            // The grammar lets no snapshot pass with another number of devices than one, and `open` wants the set to have as many.
            if let Some(device) = opened.into_iter().next() {
                let server = engine.server_name();
                let terms = Terms { statement, server, transfer, snapshot: None };
                let taker = Taker { operation, database: &database, terms, block_size };
                let (plan, counter) = (&mut plan, &counter);
                through(operation, scope, move || {
                    // The thread that met the failure has recorded it.
                    *plan = taker.take(device, config, counter).ok();
                });
            }
            // Ends the agent.
            operation.finish()
        })?;
        let plan = plan.ok_or_else(|| Failure::System {
            action: "take the snapshot",
            source: std::io::ErrorKind::NotConnected.into(),
        })?;
        Progress::new(0, options.stats).reached(0, report);
        let commands = counter.commands();
        Completed { statement, plan: &plan, damage: Vec::new(), block_size, commands, started }.report(engine, report)
    })
}

/// The thread of a backup.
struct Taker<'a> {
    operation: &'a Operation,
    database: &'a Database,
    /// Without the sums.
    terms: Terms<'a>,
    block_size: u32,
}

impl Taker<'_> {
    /// Takes the snapshot, and gives the plan of its stream.
    fn take(
        self,
        device: Arc<ServerVirtualDevice>,
        config: VdConfig,
        counter: &ProgressCounter,
    ) -> Result<Plan, Stopped> {
        let (operation, database) = (self.operation, self.database);
        let stop = |failure: Failure| operation.stop(failure);
        let media = Media::new(self.terms.statement, self.block_size, Cuts::Marks).map_err(stop)?;
        let small = FreeList::fill(operation, SMALL_LEN, SMALL_BUFFERS).map_err(stop)?;
        let lists = FreeLists::new(&small, &[]);
        let writes = Writes::new(Driver::new(operation, device, config, Some(lists.clone()), counter), lists);
        let stream = media.streams.first().cloned().ok_or(Stopped)?;
        let mut output = Output::new(operation, writes, stream, small);

        output.writes.driver.rewind()?;
        output.label(database.row().configuration.database.software_major)?;
        if output.writes.driver.has(Features::SNAPSHOT_PREPARE) {
            output.writes.command(CommandCode::PREPARE_TO_FREEZE)?;
        }
        let frozen = operation.freeze(database).map_err(stop)?;
        let source = frozen.checkpoint().map_err(|error| operation.stop(error))?;
        if output.writes.driver.has(Features::ENUM_FROZEN_FILES) {
            let paths = database.row().files.iter().map(|file| &*file.path);
            let list = sums::list(paths, self.block_size)
                .map_err(|source| operation.stop(Failure::System { action: "list the frozen files", source }))?;
            output.writes.command(CommandCode::FILE_INFO_BEGIN)?;
            output.apart(&list)?;
            output.writes.command(CommandCode::FILE_INFO_END)?;
        }
        let terms = Terms { snapshot: Some(self.sums()?), ..self.terms };
        let plan = Plan::new(source, &terms, &media).map_err(stop)?;
        output.headers(&plan)?;
        output.end(&plan, false)?;
        output.writes.command(CommandCode::SNAPSHOT)?;
        frozen.check_unchanged().map_err(|error| operation.stop(error))?;
        drop(frozen);
        if output.writes.driver.has(Features::COMPLETE_ENABLED) {
            output.writes.command(CommandCode::COMPLETE)?;
        }
        operation.decide()?;
        output.writes.driver.close()?;
        Ok(plan)
    }

    /// The sums of the frozen files; none with NO_CHECKSUM.
    fn sums(&self) -> Result<Vec<Option<u32>>, Stopped> {
        let operation = self.operation;
        if self.terms.statement.options.checksum == Some(false) {
            return Ok(Vec::new());
        }
        let sum = |row: &FileRow| {
            let failed = |source| StorageError::Io { action: "read", path: row.path.clone(), offset: None, source };
            let file = self.database.file(row.file_id).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
            sums::sum(file, row.size, &|| operation.is_aborted()).map_err(failed)
        };
        let sums = self.database.row().files.iter().map(sum).collect::<Result<Option<Vec<_>>, _>>();
        match sums.map_err(|error: StorageError| operation.stop(error))? {
            Some(sums) => Ok(sums.into_iter().map(Some).collect()),
            // The agent knows why.
            None => Err(operation.wait_until_over()),
        }
    }
}
