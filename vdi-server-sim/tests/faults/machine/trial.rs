//! A statement with both sides in processes of their own, either of which may be hindered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vdi_client::{ClientVirtualDeviceSet, Features, VdConfig, VdError, pump};

use crate::common::behaviour::MediaKind;
use crate::common::bench::Bench;
use crate::common::client::{backup_statement, config, copy_statement, stripe};
use crate::common::processes::{Outcome, RoleContext};

/// How the agent keeps its data, the name of it, and the set it needs.
pub(crate) const KINDS: [(&str, MediaKind); 3] =
    [("file", MediaKind::File), ("volumes", MediaKind::Volumes(300_000)), ("tape", MediaKind::Tape)];

pub(crate) fn set_for(kept: MediaKind) -> VdConfig {
    let (kind, eom_warning_size) = match kept {
        MediaKind::File => (Features::NONE, 0),
        MediaKind::Tape => (Features::TAPE, 0),
        MediaKind::Volumes(_) => (Features::REMOVABLE, 131_072),
    };
    VdConfig { features: Features::REQUEST_COMPLETE | kind, eom_warning_size, ..config(1) }
}

/// The agent's part: `backup` or `restore`, the kind, the path, and a file that appears where the statement failed without having come
/// to the set.
pub(crate) fn agent(stage: &RoleContext) {
    match serve(stage) {
        Ok(()) => stage.say("done"),
        Err(error) => stage.say(&format!("failed {error}")),
    }
}

fn serve(stage: &RoleContext) -> Result<(), Box<dyn std::error::Error>> {
    let (_, kept) = KINDS.iter().find(|(name, _)| *name == stage.argument(1)).unwrap();
    let set = ClientVirtualDeviceSet::new();
    set.create("nightly", &set_for(*kept))?;
    stage.say("created");
    while let Err(error) = set.get_configuration(Duration::from_millis(20)) {
        if error.code() != VdError::Timeout || Path::new(stage.argument(3)).exists() {
            return Err(error.into());
        }
    }
    let mut device = set.open_device("nightly")?;
    let mut media = kept.try_media(Path::new(stage.argument(2)), stage.argument(0) == "restore")?;
    pump(&mut device, &mut media)?;
    set.close()?;
    Ok(())
}

/// What came of a statement.
#[derive(Debug)]
pub(crate) struct Trial {
    /// What the agent said of its work; of one that died, how.
    pub(crate) agent: Result<(), String>,
    /// `None`: there was no set that a statement could have been sent for.
    pub(crate) statement: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Of the database `sales`.
    Backup,
    /// Of the database `copy`, which may be replaced.
    Restore,
}

/// Carries out a statement, with what hinders either side.
#[track_caller]
pub(crate) fn attempt(
    bench: &Bench,
    verb: Verb,
    kind: &str,
    hinder_agent: impl FnOnce(&mut Command),
    hinder_server: impl FnOnce(&mut Command),
) -> Trial {
    attempt_with(bench, verb, kind, "", hinder_agent, hinder_server)
}

/// As [`attempt`], with more options; REPLACE is one already.
#[track_caller]
pub(crate) fn attempt_with(
    bench: &Bench,
    verb: Verb,
    kind: &str,
    options: &str,
    hinder_agent: impl FnOnce(&mut Command),
    hinder_server: impl FnOnce(&mut Command),
) -> Trial {
    let over = bench.out().with_file_name("over");
    let path = target(bench);
    let name = if verb == Verb::Backup { "backup" } else { "restore" };
    let arguments = [name, kind, path.to_str().unwrap(), over.to_str().unwrap()];
    let part = bench.part_with("machine agent", &arguments, hinder_agent);
    let mut last = part.last_report();
    let mut statement = None;
    if last.as_deref() == Some("created") {
        let text = match verb {
            Verb::Backup => backup_statement("sales", "nightly", 1, options),
            Verb::Restore => {
                let separator = if options.is_empty() { "" } else { ", " };
                copy_statement("sales", "copy", "nightly", 1, &format!("REPLACE{separator}{options}"))
            }
        };
        let outcome = bench.sql_with(&text, hinder_server).outcome();
        fs::write(&over, "").unwrap();
        statement = Some(outcome);
        last = part.last_report();
        fs::remove_file(&over).unwrap();
    }
    let (status, said) = part.ended();
    let agent = match last.as_deref() {
        Some("done") => Ok(()),
        Some(report) if report.starts_with("failed ") => Err(report.to_owned()),
        _ => Err(format!("ended with {status}: {said}")),
    };
    Trial { agent, statement }
}

/// Where the agent's data is.
pub(crate) fn target(bench: &Bench) -> PathBuf {
    stripe(&bench.out(), 0)
}

pub(crate) fn nothing(_: &mut Command) {}

impl Trial {
    /// Whether the statement succeeded; then the agent has to say so as well. A failure has to be told clearly by both.
    #[track_caller]
    pub(crate) fn judge(&self) -> bool {
        match &self.statement {
            Some(outcome) if outcome.status.success() => {
                outcome.assert_success();
                assert_eq!(self.agent, Ok(()), "the statement succeeded");
                true
            }
            failed => {
                if let Some(outcome) = failed {
                    let told = outcome.text.contains("Msg ") || outcome.text.contains("vdi-sim: ");
                    assert!(told && outcome.status.code() == Some(1), "the server gave no clear error: {self:#?}");
                    assert!(!outcome.text.contains("successfully processed"), "{self:#?}");
                }
                let told = self.agent.as_ref().expect_err("the statement failed");
                assert!(told.starts_with("failed "), "the agent gave no clear error: {self:#?}");
                false
            }
        }
    }

    /// What the statement printed.
    pub(crate) fn text(&self) -> &str {
        self.statement.as_ref().map_or("", |outcome| &outcome.text)
    }
}

/// Restores what the agent has now, undisturbed; whether that gives the database `sales`.
pub(crate) fn is_complete(bench: &Bench, kept: MediaKind) -> bool {
    let path = target(bench);
    let set = bench.create("check", &set_for(kept));
    let statement = bench.sql(&copy_statement("sales", "check", "check", 1, "REPLACE"));
    let serving = crate::common::tasks::task("the check", move || {
        set.get_configuration(crate::common::TEST_TIMEOUT)?;
        let mut device = set.open_device("check")?;
        let Ok(mut media) = kept.try_media(&path, true) else { return set.close() };
        pump(&mut device, &mut media).map(drop)
    });
    let outcome = statement.outcome();
    let _ = serving.result();
    if !outcome.status.success() {
        return false;
    }
    bench.assert_identical("sales", "check");
    bench.drop_database("check");
    true
}
