//! What follows a BACKUP that has succeeded: the rows of the history, and the messages.

use std::time::Instant;

use super::plan::Plan;
use super::{Engine, Failure, Summary};
use crate::catalog::{BackupDevice, BackupRecord};
use crate::messages::{Message, PAGE_BYTES, Verb};
use crate::tsql::{Backup, DeviceType};

/// A BACKUP whose bytes are all stored.
pub(super) struct Completed<'a> {
    pub(super) statement: &'a Backup,
    pub(super) plan: &'a Plan,
    /// 3043 for each damaged page that CONTINUE_AFTER_ERROR has passed over.
    pub(super) damage: Vec<Message>,
    pub(super) block_size: u32,
    pub(super) commands: u64,
    pub(super) started: Instant,
}

impl Completed<'_> {
    /// Records the backup and reports its files. A backup that cannot be recorded is a good backup all the same: 3009 says so.
    pub(super) fn report(self, engine: &Engine, report: &mut dyn FnMut(Message)) -> Result<Summary, Failure> {
        let Completed { statement, plan, damage, block_size, commands, started } = self;
        let elapsed = started.elapsed();
        let trailing = plan.trailing(!damage.is_empty())?;
        let device_type = statement.devices.device_type.number();
        let devices = statement.devices.names.iter();
        // As SQL Server does, the history has whole paths: what a relative one means depends on the server.
        let name = |name: &String| match statement.devices.device_type {
            DeviceType::Virtual => name.clone(),
            DeviceType::Disk => {
                let path = engine.folder.path().join(name);
                std::path::absolute(&path).unwrap_or(path).display().to_string()
            }
        };
        let devices: Vec<_> = devices.map(|device| BackupDevice { device_type, name: name(device) }).collect();
        let record = BackupRecord {
            label: &plan.label,
            media_set: &plan.media_set,
            start: &plan.start,
            volume: &plan.volume,
            configuration: &trailing,
            devices: &devices,
            is_copy_only: statement.options.copy_only,
            is_snapshot: statement.options.snapshot,
            block_size,
        };
        if let Err(error) = engine.folder.catalog().record_backup(&record) {
            report(Message::history_not_recorded());
            report(Message::own_information(error.to_string()));
        }
        let (position, mut pages) = (u32::from(plan.start.number), 0);
        for file in &trailing.files {
            // A snapshot's files are in the client's hands; they count as a whole.
            let bytes = if plan.has_content() { file.backup_bytes } else { file.size };
            if bytes > 0 {
                let count = bytes.div_ceil(PAGE_BYTES);
                report(Message::file_processed(count, &statement.database, &file.logical_name.to_string(), position));
                pages += count;
            }
        }
        if !damage.is_empty() {
            engine.log.write(&damage);
            report(Message::backup_of_damaged_database());
        }
        Ok(Summary { verb: Verb::Backup, bytes: pages * PAGE_BYTES, commands, elapsed })
    }
}
