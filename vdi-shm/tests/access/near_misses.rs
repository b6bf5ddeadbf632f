//! A server that does not find its set is told which sets and directories may be meant.

use std::path::Path;

use vdi_proto::config::VdConfig;
use vdi_proto::status::VdError;
use vdi_shm::ipc::runtime::Options;
use vdi_shm::set::primary::Primary;
use vdi_shm::set::secondary::Secondary;
use vdi_shm::set::server::Server;

use super::common::{Child, is_root, options, skip};
use super::{NO_ROOT, chmod, directory};

fn create(options: &Options, instance: &str, set: &str) -> Primary {
    Primary::create(options, instance, set, &VdConfig::default()).expect("a set")
}

/// The errors of a server and of a secondary that do not find the set: the same text.
fn not_found(options: &Options, instance: &str, set: &str) -> String {
    let server = Server::join(options, instance, set).expect_err("no such set");
    assert_eq!(server.code(), VdError::Invalid, "{server}");
    let secondary = Secondary::join(options, instance, set).expect_err("no such set");
    assert_eq!(server.to_string(), secondary.to_string());
    server.to_string()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

const GUID: &str = "{0F8FAD5B-D9CB-469F-A165-70867728950E}";

#[test]
fn similar_sets_in_the_same_directory() {
    let dir = directory(0o700);
    let options = options(dir.path());
    let bare = GUID.trim_matches(|c| "{}".contains(c));
    let case = "there is a set \"Nightly\" of the default instance: upper and lower case differ";
    let instance = "there is a set \"nightly\" of instance \"SQL2\": name the same instance on both sides";
    for ((there_instance, there), (instance, set), hint) in [
        (("", "Nightly"), ("", "nightly"), case),
        (("SQL2", "nightly"), ("", "nightly"), instance),
        (("SQL2", "nightly"), ("SQL1", "nightly"), instance),
        (("sql2", "nightly"), ("SQL2", "nightly"), "of instance \"sql2\": upper and lower case of instances differ"),
        (("", GUID), ("", bare), "of the default instance: braces and blanks count"),
        (("", bare), ("", GUID), "of the default instance: braces and blanks count"),
        (
            ("", " nightly"),
            ("", "nightly"),
            "there is a set \" nightly\" of the default instance: braces and blanks count",
        ),
    ] {
        let primary = create(&options, there_instance, there);
        let text = not_found(&options, instance, set);
        has(&text, &[&format!("no virtual device set {set:?} of "), &format!("there is a set {there:?} of "), hint]);
        has(&text, &[&dir.path().display().to_string(), "create it before the statement is sent"]);
        // A set that is gone, and one whose process died, are named no more.
        drop(primary);
        assert!(!not_found(&options, instance, set).contains("there is a set"), "it is gone");
    }
}

/// What is dead, another program's, or differs in more, is not named. At most three are.
#[test]
fn only_live_and_few_sets_are_named() {
    let dir = directory(0o700);
    let options = options(dir.path());
    let mut killed = Child::new(dir.path());
    killed.ok("create NIGHTLY");
    has(&not_found(&options, "TEST", "nightly"), &["there is a set \"NIGHTLY\" of instance \"TEST\""]);
    killed.kill();
    let _others = [create(&options, "", "nightly-2"), create(&options, "", "weekly")];
    let text = not_found(&options, "TEST", "nightly");
    assert!(!text.contains("there is a set"), "{text}");
    let _many: Vec<_> =
        ["Nightly", "nIghtly", "niGhtly", "nigHtly", "nighTly"].map(|set| create(&options, "", set)).into();
    let text = not_found(&options, "", "nightly");
    assert_eq!(text.matches("there is a set").count(), 3, "{text}");
}

/// A child whose default directories are below this one, and that looks for its sets in `dir`.
fn at_home(dir: &Path, home: &Path) -> Child {
    Child::with_environment(dir, &[("TMPDIR", home), ("XDG_RUNTIME_DIR", &home.join("run"))])
}

fn make(path: &Path, mode: u32) {
    std::fs::create_dir_all(path).expect("a directory");
    chmod(path, mode);
}

/// VDI_RUNTIME_DIR on one side only, or XDG_RUNTIME_DIR on one side only.
#[test]
fn the_set_in_another_directory_of_this_user() {
    let home = directory(0o755);
    let own = rustix::process::geteuid().as_raw();
    let (xdg, temporary) = (home.path().join("run/vdi"), home.path().join(format!("vdi-{own}")));
    for there in [&xdg, &temporary] {
        make(there, 0o700);
        let mut primary = Child::new(there);
        primary.ok("create nightly");
        for used in [home.path().join("elsewhere"), xdg.clone(), temporary.clone()] {
            if used == *there {
                continue;
            }
            let set = format!("set VDI_RUNTIME_DIR={} for this process", there.display());
            let parts =
                ["no virtual device set \"nightly\"", "this user has the set in", &set, "differ between the two sides"];
            at_home(&used, home.path()).refused("join server nightly", "Invalid", &parts);
        }
    }
}

/// The variables that a message names are the ones that are needed: with them the other side is found.
#[test]
fn the_set_in_the_directory_of_another_user() {
    if !is_root() {
        return skip("the_set_in_the_directory_of_another_user", NO_ROOT);
    }
    let home = directory(0o1777);
    let theirs = home.path().join("vdi-65533");
    let mut primary = at_home(&theirs, home.path());
    primary.ok("become 65533");
    primary.ok("create nightly");
    let elsewhere = home.path().join("elsewhere");
    let mut server = at_home(&elsewhere, home.path());
    let here = format!("set VDI_RUNTIME_DIR={} and VDI_ALLOW_UID=65533 for this process", theirs.display());
    let parts = ["uid 65533 has a set of this name", &here, "VDI_ALLOW_UID=0 for the one that created the set"];
    server.refused("join server nightly", "Invalid", &parts);
    // A directory that is named for a user and is another's is not that user's.
    std::os::unix::fs::chown(&theirs, Some(65532), None).expect("root can");
    let answer = server.ask("join server nightly");
    assert!(answer.starts_with("err Invalid ") && !answer.contains("uid 65533"), "{answer}");
    std::os::unix::fs::chown(&theirs, Some(65533), None).expect("root can");
    // Another user may not look into it.
    let mut stranger = at_home(&elsewhere, home.path());
    stranger.ok("become 65532");
    let parts = [
        &format!("uid 65533 has the runtime directory {} (mode 700), which uid 65532 may not read", theirs.display())[..],
        "set VDI_RUNTIME_DIR to a directory that both may use, on both sides",
        "VDI_ALLOW_UID=65533 for this process, and VDI_ALLOW_UID=65532 for the one that creates the set",
    ];
    stranger.refused("join server nightly", "Invalid", &parts);
    // What was named for both sides is enough.
    primary.ok("close");
    primary.ok("allow 0");
    primary.ok("create nightly");
    let mut served = Child::new(&theirs);
    served.ok("allow 65533");
    assert_eq!(served.ok("join server nightly"), "0");
}
