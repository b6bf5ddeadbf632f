//! A client that does what a well-behaved one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vdi_client::media::{FileMedia, Media, MediaError};
use vdi_client::pump::Report;
use vdi_client::{ClientVirtualDevice, ClientVirtualDeviceSet, Error, Features, VdConfig, pump};
use vdi_server_sim::engine::{Cancel, Engine, Failure, Summary};
use vdi_server_sim::session::{Answer, BatchError};

use super::TEST_TIMEOUT;
use super::bench::Bench;
use super::processes::Outcome;
use super::tasks::{Task, task};

/// The name of a set's device: the first has the set's.
pub(crate) fn device_name(set: &str, index: u32) -> String {
    if index == 0 { set.to_owned() } else { format!("{set}/{index}") }
}

fn devices(set: &str, count: u32) -> String {
    let clauses: Vec<_> = (0..count).map(|index| format!("VIRTUAL_DEVICE = '{}'", device_name(set, index))).collect();
    clauses.join(", ")
}

fn with(options: &str) -> String {
    if options.is_empty() { String::new() } else { format!(" WITH {options}") }
}

pub(crate) fn backup_statement(database: &str, set: &str, count: u32, options: &str) -> String {
    format!("BACKUP DATABASE [{database}] TO {}{}", devices(set, count), with(options))
}

pub(crate) fn restore_statement(database: &str, set: &str, count: u32, options: &str) -> String {
    format!("RESTORE DATABASE [{database}] FROM {}{}", devices(set, count), with(options))
}

/// The options by which a backup of the sample database `source` is restored as `target` beside it: its files have other names.
pub(crate) fn moves(source: &str, target: &str) -> String {
    let suffixes = [("", ".mdf"), ("_1", ".ndf"), ("_log", ".ldf")];
    let moves = suffixes.map(|(name, extension)| format!("MOVE '{source}{name}' TO '{target}{name}{extension}'"));
    moves.join(", ")
}

/// Restores a backup of the sample database `source` as `target`.
pub(crate) fn copy_statement(source: &str, target: &str, set: &str, count: u32, options: &str) -> String {
    let separator = if options.is_empty() { "" } else { ", " };
    restore_statement(target, set, count, &format!("{options}{separator}{}", moves(source, target)))
}

/// Carries out one BACKUP or RESTORE in a session of its own.
pub(crate) fn execute(engine: &Engine, statement: &str) -> Result<Summary, Failure> {
    let mut answer = Answer::default();
    match engine.session().batch(statement, &[], &mut answer, &Cancel::new()) {
        Ok(()) => Ok(answer.summary().unwrap()),
        Err(BatchError::Failed(failure)) => Err(failure),
        Err(error) => panic!("{statement}: {error}"),
    }
}

pub(crate) fn stripe(folder: &Path, index: u32) -> PathBuf {
    folder.join(format!("stripe-{index:02}"))
}

pub(crate) fn config(device_count: u32) -> VdConfig {
    VdConfig { device_count, features: Features::REQUEST_COMPLETE, ..VdConfig::default() }
}

impl Bench {
    /// Creates a set in this process.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, config: &VdConfig) -> Arc<ClientVirtualDeviceSet> {
        let set = ClientVirtualDeviceSet::with_options(self.options());
        set.create(name, config).unwrap();
        Arc::new(set)
    }

    /// Creates a set and has a script serve each of its devices, in a thread a device.
    #[track_caller]
    pub(crate) fn scripted<T: Send + 'static>(
        &self,
        name: &str,
        config: &VdConfig,
        script: impl Fn(ClientVirtualDevice, u32) -> T + Send + Sync + 'static,
    ) -> Task<Vec<T>> {
        let set = self.create(name, config);
        let (name, count) = (name.to_owned(), config.device_count);
        task("the script", move || {
            set.get_configuration(TEST_TIMEOUT).unwrap();
            let opened: Vec<_> = (0..count).map(|index| set.open_device(&device_name(&name, index)).unwrap()).collect();
            let script = &script;
            std::thread::scope(|scope| {
                let running: Vec<_> =
                    (0..).zip(opened).map(|(index, device)| scope.spawn(move || script(device, index))).collect();
                running.into_iter().map(|script| script.join().unwrap()).collect()
            })
        })
    }

    /// Creates a set and serves its devices in this process, with a thread a device; `media` gives each device's.
    #[track_caller]
    pub(crate) fn agent<M: Media + 'static>(
        &self,
        name: &str,
        config: &VdConfig,
        media: impl Fn(u32) -> Result<M, MediaError> + Send + 'static,
    ) -> Task<Result<Vec<Report>, Error>> {
        let set = self.create(name, config);
        let (name, count) = (name.to_owned(), config.device_count);
        task("the agent", move || {
            set.get_configuration(TEST_TIMEOUT)?;
            let opened = (0..count)
                .map(|index| set.open_device(&device_name(&name, index)))
                .collect::<Result<Vec<ClientVirtualDevice>, _>>()?;
            let pumps: Vec<_> = (0..)
                .zip(opened)
                .map(|(index, mut device)| {
                    let mut media = media(index).unwrap();
                    std::thread::spawn(move || pump(&mut device, &mut media))
                })
                .collect();
            let reports: Vec<_> = pumps.into_iter().map(|pump| pump.join().unwrap()).collect();
            let reports = reports.into_iter().collect::<Result<Vec<_>, _>>();
            // After a failure the close tells of the abort, which the reports told better.
            let closed = set.close();
            reports.and_then(|reports| closed.map(|()| reports))
        })
    }

    /// An agent that writes a file a device into the output folder.
    #[track_caller]
    pub(crate) fn writing_agent(&self, name: &str, config: &VdConfig) -> Task<Result<Vec<Report>, Error>> {
        let out = self.out();
        self.agent(name, config, move |index| FileMedia::create(stripe(&out, index)))
    }

    /// An agent that reads a file a device from the output folder.
    #[track_caller]
    pub(crate) fn reading_agent(&self, name: &str, config: &VdConfig) -> Task<Result<Vec<Report>, Error>> {
        let out = self.out();
        self.agent(name, config, move |index| FileMedia::open(stripe(&out, index)))
    }

    /// A complete backup into the output folder.
    #[track_caller]
    pub(crate) fn back_up(&self, database: &str, count: u32, options: &str) -> Outcome {
        let agent = self.writing_agent("nightly", &config(count));
        let outcome = self.sql(&backup_statement(database, "nightly", count, options)).outcome();
        outcome.assert_success();
        agent.result().unwrap();
        outcome
    }

    /// A complete restore from the output folder, of the database that the backup is of.
    #[track_caller]
    pub(crate) fn restore(&self, database: &str, count: u32, options: &str) -> Outcome {
        self.restore_by(&restore_statement(database, "nightly", count, options), count)
    }

    /// A complete restore of a backup of the database `source`, which is there, as `target`.
    #[track_caller]
    pub(crate) fn copy(&self, source: &str, target: &str, count: u32, options: &str) -> Outcome {
        let separator = if options.is_empty() { "" } else { ", " };
        let options = format!("{options}{separator}{}", self.databases().moves(source, target));
        self.restore_by(&restore_statement(target, "nightly", count, &options), count)
    }

    #[track_caller]
    fn restore_by(&self, statement: &str, count: u32) -> Outcome {
        let agent = self.reading_agent("nightly", &config(count));
        let outcome = self.sql(statement).outcome();
        outcome.assert_success();
        agent.result().unwrap();
        outcome
    }

    /// A set of this name works now: a small backup over one device goes through it.
    #[track_caller]
    pub(crate) fn assert_name_is_free(&self, set: &str) {
        if !self.databases().contains("small") {
            self.database("small", 64 * 1024);
        }
        let agent = self.agent(set, &config(1), |_| Ok(vdi_client::media::StreamMedia::sink(std::io::sink())));
        self.sql(&backup_statement("small", set, 1, "")).outcome().assert_success();
        agent.result().unwrap();
    }
}
