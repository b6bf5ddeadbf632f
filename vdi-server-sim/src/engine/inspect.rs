//! RESTORE LABELONLY, HEADERONLY, FILELISTONLY and VERIFYONLY.
//!
//! | statement | reads | of the devices |
//! |---|---|---|
//! | LABELONLY | the label | the first |
//! | FILELISTONLY | up to the leading configuration of the set | the first |
//! | HEADERONLY | all sets, or the one that FILE names, to its end | the first |
//! | VERIFYONLY | the set, and verifies all of it | all |
//!
//! The other devices are opened and closed. A header fits into the first Read of 64 KB. **Decision**: HEADERONLY without FILE reads a
//! pipe-like or tape-like device up to the end of the set that nothing follows in the same Read: a client may give anything behind the
//! end of its backup. A disk-like device and a file are read to their ends.
//! What follows the last complete set and is no set, as a BACKUP leaves it that was killed, is told behind the rows of the complete ones.

mod columns;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use vdi_mtf::medium::{BackupSet, Medium};
use vdi_mtf::sqlserver::config::Config;
use vdi_mtf::value::FileId;
use vdi_proto::features::DeviceKind;

use super::from_devices::Reading;
use super::incoming::{Destination, Incoming, Wanted, data_bytes};
use super::medium_parser::Until;
use super::progress_counter::ProgressCounter;
use super::restore::Reported;
use super::scan::Scan;
use super::{Cancel, Engine, Failure, Report, from_files};
use crate::messages::Message;
use crate::tsql::{DeviceType, Inspect, Inspection};

/// Carries out an inspection.
pub(super) fn run(
    engine: &Engine,
    statement: &Inspect,
    cancel: &Cancel,
    answers: &mut dyn Report,
) -> Result<(), Failure> {
    let file = statement.options.file.unwrap_or(1);
    let set_of = |medium: Medium| medium.sets.into_iter().find(|set| u32::from(set.start.number) == file);
    match statement.what {
        Inspection::Verify => return verify(engine, statement, cancel, answers),
        Inspection::Label => {
            let medium = scan(engine, statement, cancel, |_| Until::Label)?.0;
            columns::label(&medium, answers);
        }
        Inspection::FileList => {
            let medium = scan(engine, statement, cancel, |_| Until::Configuration(file))?.0;
            columns::files(&set_of(medium).map_or_else(Config::default, |set| set.leading), answers);
        }
        Inspection::Header => {
            let only = statement.options.file;
            let (medium, rest) = scan(engine, statement, cancel, |ends_itself| match only {
                Some(file) => Until::Set(file),
                None => Until::Medium { ends_itself },
            })?;
            let (device_type, end) = (statement.devices.device_type, medium.len);
            match only {
                Some(_) => columns::headers(set_of(medium).as_slice(), device_type, answers),
                None => columns::headers(&medium.sets, device_type, answers),
            }
            if let Some(rest) = rest {
                answers.message(Message::own_information(format!(
                    "the last complete backup set ends at byte {end}; what follows is none: {rest}. The sets before it can be restored; \
                     no BACKUP can append to this file (3266)"
                )));
            }
        }
    }
    Ok(())
}

/// Reads the first device, up to where `until` says. It gets whether the device says where its data ends. Returns also what follows
/// the last complete set, if that is no set.
fn scan(
    engine: &Engine,
    statement: &Inspect,
    cancel: &Cancel,
    until: impl Fn(bool) -> Until,
) -> Result<(Medium, Option<vdi_mtf::Error>), Failure> {
    let (names, options, counter) = (&statement.devices.names, &statement.options, ProgressCounter::new(0, None));
    let feed = |index: usize, name: &str, ends_itself: bool| {
        (index == 0).then(|| Scan::new(name, until(ends_itself), options.continue_after_error))
    };
    let mut scans = match statement.devices.device_type {
        DeviceType::Virtual => {
            let reading = Reading { engine, devices: names, options, cancel, counter: &counter, whole: false };
            let feed = |index, name: &str, kind| feed(index, name, kind == DeviceKind::DiskLike);
            reading.run(feed, || {}, |operation, scans| operation.decide().map(|()| scans))?
        }
        DeviceType::Disk => {
            let feed = |index, name: &str| feed(index, name, true);
            from_files::run(engine.folder.path(), names, cancel, &counter, feed, || {}, Ok)?
        }
    };
    // The devices came through, the first among them.
    Ok(scans.pop().map_or_else(Default::default, |scan| {
        let rest = scan.rest().cloned();
        (scan.into_medium(), rest)
    }))
}

/// RESTORE VERIFYONLY.
fn verify(engine: &Engine, statement: &Inspect, cancel: &Cancel, answers: &mut dyn Report) -> Result<(), Failure> {
    let (names, options) = (&statement.devices.names, &statement.options);
    let counter = ProgressCounter::new(0, options.stats);
    let nowhere = Nowhere { counter: &counter, total: OnceLock::new(), database: OnceLock::new() };
    let file = options.file.unwrap_or(1);
    let wanted = Wanted {
        file,
        checksum: options.checksum,
        continue_after_error: options.continue_after_error,
        block_size: options.block_size,
        snapshot: None,
        full: false,
    };
    let incoming = Incoming::new(wanted, "", names.len(), &nowhere);
    let mut progress = Reported::new(&counter, options.stats);
    let due = || progress.report(nowhere.total.get().copied(), &mut |message| answers.message(message));
    let received = match statement.devices.device_type {
        DeviceType::Virtual => {
            let reading = Reading { engine, devices: names, options, cancel, counter: &counter, whole: true };
            let feed = |index, device: &str, _| Some(incoming.reader(index, device));
            reading.run(feed, due, |operation, _| operation.settle(|| incoming.finish()))
        }
        DeviceType::Disk => {
            let feed = |index, name: &str| Some(incoming.reader(index, name));
            from_files::run(engine.folder.path(), names, cancel, &counter, feed, due, |_| incoming.finish())
        }
    };
    let received = received.map_err(|failure| nowhere.named(failure))?;
    if received.damages > 0 {
        let database = received.set.leading.database.name.to_string();
        return Err(Failure::Incomplete { database, what: format!("it has {} damages", received.damages) });
    }
    answers.message(Message::backup_set_valid(file));
    Ok(())
}

/// Where the content of a backup goes that is only verified.
struct Nowhere<'a> {
    counter: &'a ProgressCounter,
    /// Bytes of files in all, once the header was read.
    total: OnceLock<u64>,
    /// The name of the database, once the header was read.
    database: OnceLock<String>,
}

impl Nowhere<'_> {
    /// The failure with the name of the database that the header has: the statement names none.
    fn named(&self, mut failure: Failure) -> Failure {
        if let (Failure::Medium { database, .. } | Failure::Incomplete { database, .. }, Some(name)) =
            (&mut failure, self.database.get())
        {
            database.clone_from(name);
        }
        failure
    }
}

impl Destination for Nowhere<'_> {
    fn begin(&self, set: &BackupSet) -> Result<(), Failure> {
        let total = data_bytes(&set.leading);
        let _ = self.total.set(total);
        let _ = self.database.set(set.leading.database.name.to_string());
        self.counter.expect(total);
        Ok(())
    }

    fn write_at(&self, _file: FileId, _offset: u64, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}
