//! BACKUP TO DISK: a thread a file.
//!
//! | options | what happens to the file |
//! |---|---|
//! | none, NOINIT | the set is appended to the medium; if there is none, a new one is made |
//! | INIT | the sets are replaced, the label stays: name, description, media set. Not before they expire, but with SKIP |
//! | FORMAT | a new medium |
//!
//! The files are those of the data folder, or absolute paths. The backup is in the files when all of it is durable: see [`target::Target`].
//! **Decision**: files of several families are renamed one after the other. A process that dies between two renames leaves media of two
//! media sets, which a RESTORE refuses (3258).

mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, bounded, select};

use super::backup::refuse_unknown;
use super::completed::Completed;
use super::job::Job;
use super::operation::FREEZE_TIMEOUT;
use super::pages::Pages;
use super::plan::{Cuts, FamilyStream, Media, Part, Plan, Terms};
use super::progress_counter::ProgressCounter;
use super::reporting::START_A_THREAD;
use super::{Cancel, Engine, Failure, FamilyError, Progress, Summary};
use crate::faults::Running;
use crate::messages::{Message, Verb};
use crate::storage::StorageError;
use crate::tsql::Backup;
use target::Target;

#[cfg(test)]
mod tests;

/// MAXTRANSFERSIZE where the statement does not say.
const TRANSFER: u32 = 1 << 20;

/// BLOCKSIZE of new media where the statement does not say: the sectors of current disks.
const BLOCK_SIZE: u32 = 4096;

/// Carries out a BACKUP to files.
pub(super) fn run(
    engine: &Engine,
    statement: &Backup,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let options = &statement.options;
    refuse_unknown(engine, &statement.database)?;
    let job = Arc::new(Job::new());
    let _registered = cancel.on_cancel({
        let job = Arc::clone(&job);
        move || job.fail(Failure::Cancelled)
    });
    let _lock = engine.folder.lock(&statement.database, Verb::Backup)?;
    let database = engine.folder.database(&statement.database)?;
    let started = Instant::now();
    let places = places(engine, statement)?;
    let open = |(name, path): (&String, PathBuf)| Target::open(name, path, options, &job);
    let targets = statement.devices.names.iter().zip(places).map(open).collect::<Result<Vec<_>, _>>()?;
    let media = media(statement, &targets)?;
    let block_size = statement.options.block_size.unwrap_or_else(|| media.filemark_len());

    let frozen = database.freeze(FREEZE_TIMEOUT, || job.is_over()).map_err(|error| match error {
        StorageError::Stopped { .. } => job.decide().err().unwrap_or_else(|| error.into()),
        error => error.into(),
    })?;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER);
    let terms = Terms { statement, server: engine.server_name(), transfer, snapshot: None };
    let plan = Plan::new(frozen.checkpoint()?, &terms, &media)?;
    let faults = Running::new(&engine.faults);
    let pages = Pages::new(&plan, &database, &faults, options.continue_after_error)?;
    let counter = ProgressCounter::new(plan.bytes(), options.stats);
    let mut progress = Progress::new(plan.bytes(), options.stats);

    let (reading, all_read) = bounded::<()>(0);
    let (give, given) = bounded(targets.len());
    let targets = std::thread::scope(|scope| {
        for (target, stream) in targets.into_iter().zip(media.streams) {
            let (job, give, reading, all_read) = (&job, give.clone(), reading.clone(), all_read.clone());
            let writer = Writer { plan: &plan, pages: &pages, job, counter: &counter, transfer, all_read };
            let body = move || match writer.write(target, stream, reading) {
                // Those that are through are counted below.
                Ok(target) => drop(give.send(target)),
                Err(Some(failure)) => job.fail(failure),
                Err(None) => {}
            };
            if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, body) {
                job.fail(Failure::System { action: START_A_THREAD, source });
            }
        }
        drop((give, reading));
        let mut through = Vec::new();
        loop {
            select! {
                recv(counter.due()) -> _ => counter.report(&mut progress, report),
                recv(given) -> target => match target {
                    Ok(target) => through.push(target),
                    Err(_) => return through,
                },
            }
        }
    });
    if !job.is_over() {
        frozen.check_unchanged().unwrap_or_else(|error| job.fail(error.into()));
    }
    drop(frozen);
    job.decide()?;
    counter.report(&mut progress, report);
    targets.into_iter().try_for_each(Target::commit)?;
    let damage = pages.messages();
    Completed { statement, plan: &plan, damage, block_size, commands: 0, started }.report(engine, report)
}

/// Where the files are, each once.
fn places(engine: &Engine, statement: &Backup) -> Result<Vec<PathBuf>, Failure> {
    let names = &statement.devices.names;
    let mut places: Vec<PathBuf> = Vec::new();
    for name in names {
        let path = target::place(engine, name)?;
        if let Some(at) = places.iter().position(|earlier| *earlier == path) {
            let (device, earlier, family) = (name.clone(), names.get(at).cloned(), at as u16 + 1);
            return Err(Failure::Families { device, earlier, source: FamilyError::Repeated { family } });
        }
        places.push(path);
    }
    Ok(places)
}

/// The media that the files are, or become.
fn media(statement: &Backup, targets: &[Target]) -> Result<Media, Failure> {
    let media: Vec<_> =
        targets.iter().filter_map(|target| target.medium.as_ref().map(|medium| (target.name(), medium))).collect();
    let Some(&(other, first)) = media.first() else {
        return Media::new(statement, statement.options.block_size.unwrap_or(BLOCK_SIZE), Cuts::None);
    };
    let (families, provided) = (usize::from(first.media_set.family_count), targets.len());
    let unfit =
        |target: &Target, source| Err(Failure::Families { device: target.name().to_owned(), earlier: None, source });
    for target in targets {
        match &target.medium {
            _ if families != provided => return unfit(target, FamilyError::Count { families, provided }),
            None => return unfit(target, FamilyError::Count { families, provided: media.len() }),
            Some(medium) if medium.media_set.id != first.media_set.id => {
                let (expected, found) = (first.media_set.id, medium.media_set.id);
                return unfit(
                    target,
                    FamilyError::Foreign { what: "media set", other: other.to_owned(), expected, found },
                );
            }
            Some(medium) if target.appends() && medium.sets.len() != first.sets.len() => {
                let what = format!("it has {} backup sets, the devices before {}", medium.sets.len(), first.sets.len());
                return Err(Failure::NotAppendable { device: target.name().to_owned(), what });
            }
            Some(_) => {}
        }
    }
    for (at, target) in targets.iter().enumerate() {
        let number = |target: &Target| target.medium.as_ref().map(|medium| medium.media_set.family_number);
        if let Some(earlier) = targets[..at].iter().find(|earlier| number(earlier) == number(target)) {
            let source = FamilyError::Repeated { family: number(target).unwrap_or_default() };
            let (device, earlier) = (target.name().to_owned(), Some(earlier.name().to_owned()));
            return Err(Failure::Families { device, earlier, source });
        }
    }
    let media: Vec<_> = media.into_iter().map(|(_, medium)| medium.clone()).collect();
    match targets.iter().all(Target::appends) {
        true => Media::appended(&media),
        false => Media::overwritten(&media),
    }
}

/// Writes the file of one family.
struct Writer<'a> {
    plan: &'a Plan,
    pages: &'a Pages<'a>,
    job: &'a Job,
    counter: &'a ProgressCounter,
    transfer: u32,
    /// Disconnected once all families have their pages.
    all_read: Receiver<()>,
}

impl Writer<'_> {
    /// Writes all of it. `None`: the operation is over.
    fn write(
        &self,
        mut target: Target,
        mut stream: FamilyStream,
        reading: crossbeam::channel::Sender<()>,
    ) -> Result<Target, Option<Failure>> {
        let (plan, mut reading) = (self.plan, Some(reading));
        let mut buffer = vec![0; self.transfer as usize];
        loop {
            let layout = |error| Some(Failure::Layout(error));
            match stream.next(plan).map_err(layout)? {
                Part::Bytes(bytes) => target.write(&bytes)?,
                Part::Mark => {}
                Part::Pages => {
                    let (mut at, len) = (0, plan.dealing.stream_len());
                    while at < len {
                        let piece = self.piece(&mut buffer, len - at)?;
                        let end = at + piece.len() as u64;
                        let contents = self.pages.fill(stream.family, at..end, piece)?;
                        target.write(piece)?;
                        stream.pages(end - at, contents.sum).map_err(layout)?;
                        self.counter.add(contents.payload.into());
                        at = end;
                    }
                }
                Part::Log { file, bytes } => {
                    let mut at = bytes.start;
                    while at < bytes.end {
                        let piece = self.piece(&mut buffer, bytes.end - at)?;
                        self.pages.read_log(file, piece, at)?;
                        target.write(piece)?;
                        stream.log(piece).map_err(layout)?;
                        self.counter.add(piece.len() as u64);
                        at += piece.len() as u64;
                    }
                }
                Part::Summary => {
                    drop(reading.take());
                    // The summary is the same in all families.
                    self.job.wait(&self.all_read).map_err(|_| None)?;
                    let trailing = plan.trailing(self.pages.has_damage())?;
                    target.write(&stream.end(&trailing).map_err(layout)?)?;
                }
                Part::End => break,
            }
        }
        target.sync()?;
        Ok(target)
    }

    /// The beginning of the buffer, at most `most` bytes; nothing once the operation is over.
    fn piece<'b>(&self, buffer: &'b mut [u8], most: u64) -> Result<&'b mut [u8], Option<Failure>> {
        if self.job.is_over() {
            return Err(None);
        }
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&mut buffer[..len])
    }
}
