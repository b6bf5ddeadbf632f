//! Who may use a set, as a user of the programs sees it: the statement of another user fails with the reason and what to do, the
//! set is none the worse for it, and the next statement of one who may is carried out. Only root can become another user;
//! elsewhere the tests say so.

use crate::common;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{backup_statement, config, stripe};
use common::processes::{Outcome, RoleContext, run_role};
use common::tasks::task;
use rustix::process::{Gid, Uid};
use vdi_client::media::FileMedia;
use vdi_client::{Access, ClientVirtualDeviceSet, Options, pump};
use vdi_proto::status::VdError;

const SET: &str = "guarded";
const STRANGER: u32 = 65534;

#[test]
fn child_entry() {
    run_role(&[("squatter", squatter)]);
}

/// Another user, who creates the set before its owner does.
fn squatter(stage: &RoleContext) {
    let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    let set = ClientVirtualDeviceSet::with_options(Options {
        access: Access { uids: vec![0], gids: Vec::new() },
        ..Options::default()
    });
    set.create(SET, &config(1)).unwrap();
    stage.say("squatting");
    stage.stay();
    set.close().unwrap();
}

/// Whether this process may become another user; says so where it may not.
fn may_become_another(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: only root can become another user");
    }
    root
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A bench that other users can look into, with a database and a copy of the program that they can run.
struct Shared {
    bench: Bench,
    programs: tempfile::TempDir,
}

impl Shared {
    fn new(mode: u32) -> Shared {
        let bench = Bench::new();
        bench.database("sales", 1 << 20);
        bench.databases().open_to_all();
        chmod(bench.runtime().parent().unwrap(), 0o755);
        chmod(&bench.runtime(), mode);
        let programs = tempfile::tempdir().unwrap();
        chmod(programs.path(), 0o755);
        // The one that was built may lie where only its owner can look.
        fs::copy(env!("CARGO_BIN_EXE_vdi-sim"), programs.path().join("vdi-sim")).unwrap();
        Shared { bench, programs }
    }

    fn program(&self) -> PathBuf {
        self.programs.path().join("vdi-sim")
    }

    /// A backup statement that this user sends.
    fn backs_up(&self, uid: u32, options: &[&str]) -> Outcome {
        let mut command = Command::new(self.program());
        command.arg("sql").arg("--data").arg(self.bench.data()).args(["-Q", &backup_statement("sales", SET, 1, "")]);
        command.args(options).current_dir("/").uid(uid).gid(uid);
        self.bench.run(command).outcome()
    }

    fn options(&self, access: Access) -> Options {
        Options { access, ..self.bench.options() }
    }
}

#[test]
fn the_statement_of_another_user_is_refused_with_the_reason() {
    if !may_become_another("the_statement_of_another_user_is_refused_with_the_reason") {
        return;
    }
    let shared = Shared::new(0o755);
    let set = ClientVirtualDeviceSet::with_options(shared.options(Access::default()));
    set.create(SET, &config(1)).unwrap();
    let who = format!("uid {STRANGER}");
    // Nobody else is allowed: the system lets nobody else knock.
    shared.backs_up(STRANGER, &["--allow-uid", "0"]).assert_failure(&[
        "VD_E_SECURITY",
        "of uid 0 (mode 600) may not be used by",
        &who,
        "set VDI_ALLOW_UID=65534 for the process of uid 0, and VDI_ALLOW_UID=0 for this one",
    ]);
    // Not even the directory may be looked at.
    chmod(&shared.bench.runtime(), 0o700);
    shared.backs_up(STRANGER, &["--allow-uid", "0"]).assert_failure(&[
        "VD_E_SECURITY",
        "of uid 0, gid 0 (mode 700) may not be read by",
        &who,
        "read and search permission",
    ]);
    chmod(&shared.bench.runtime(), 0o755);
    set.close().unwrap();
    // Somebody else is allowed.
    let set = ClientVirtualDeviceSet::with_options(shared.options(Access { uids: vec![65533], gids: Vec::new() }));
    set.create(SET, &config(1)).unwrap();
    shared.backs_up(STRANGER, &["--allow-uid", "0"]).assert_failure(&[
        "VD_E_SECURITY",
        "refused this process",
        "the set admits uid 0, uid 65533, not uid 65534",
    ]);
    // The server does not trust the set's creator.
    shared.backs_up(STRANGER, &[]).assert_failure(&[
        "VD_E_SECURITY",
        "of uid 0, whom this process does not trust",
        "set VDI_ALLOW_UID=0 for this process",
    ]);
    // All this is nothing to the set: the honest statement is carried out.
    let file = stripe(&shared.bench.out(), 0);
    let agent = task("the agent", move || {
        set.get_configuration(TEST_TIMEOUT)?;
        let mut device = set.open_device(SET)?;
        let report = pump(&mut device, &mut FileMedia::create(file).unwrap());
        drop(device);
        set.close()?;
        report
    });
    shared.backs_up(0, &[]).assert_success();
    agent.result().unwrap();
    shared.bench.assert_output(&["stripe-00"]);
}

/// Other letter case, and another instance. The set that is meant is named, and with its name the statement works.
#[test]
fn a_statement_for_a_set_that_is_not_there_names_near_misses() {
    let bench = Bench::new();
    bench.database("sales", 1 << 20);
    let set = bench.create("Nightly", &config(1));
    bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome().assert_failure(&[
        "no virtual device set \"nightly\" of the default instance at ",
        "there is a set \"Nightly\" of the default instance: upper and lower case differ",
    ]);
    let elsewhere = bench.sql_with(&backup_statement("sales", "Nightly", 1, ""), |command| {
        command.args(["--instance", "SQL2"]);
    });
    elsewhere.outcome().assert_failure(&[
        "no virtual device set \"Nightly\" of instance \"SQL2\"",
        "there is a set \"Nightly\" of the default instance: name the same instance on both sides",
    ]);
    // A worker that does not find its set is told the same.
    let worker = ClientVirtualDeviceSet::with_options(bench.options());
    let error = worker.open_in_secondary("NIGHTLY").unwrap_err();
    assert_eq!(error.code(), VdError::Protocol, "{error}");
    assert!(error.to_string().contains("there is a set \"Nightly\" of the default instance"), "{error}");
    let server = bench.sql(&backup_statement("sales", "Nightly", 1, ""));
    let file = stripe(&bench.out(), 0);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("Nightly").unwrap();
    pump(&mut device, &mut FileMedia::create(file).unwrap()).unwrap();
    drop(device);
    set.close().unwrap();
    server.outcome().assert_success();
}

#[test]
fn a_squatted_set_is_neither_created_nor_backed_up_to() {
    if !may_become_another("a_squatted_set_is_neither_created_nor_backed_up_to") {
        return;
    }
    let shared = Shared::new(0o1777);
    let squatter = shared.bench.part("squatter", &[]);
    assert_eq!(squatter.report(), "squatting");
    let who = format!("process {} of uid {STRANGER}", squatter.process.id());
    let set = ClientVirtualDeviceSet::with_options(shared.options(Access::default()));
    for error in [set.create(SET, &config(1)), set.open_in_secondary(SET)].map(Result::unwrap_err) {
        assert_eq!(error.code(), VdError::Security, "{error}");
        let text = error.to_string();
        assert!(text.contains(&who) && text.contains("whom this process does not trust"), "{text}");
    }
    shared.backs_up(0, &[]).assert_failure(&["VD_E_SECURITY", &who, "only trusted users can write to"]);
    // It was let alone, and its name is free when it is gone.
    squatter.end();
    set.create(SET, &config(1)).unwrap();
    set.close().unwrap();
}
