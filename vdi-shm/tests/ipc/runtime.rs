//! Which runtime directories are trusted, and what is done in them.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use vdi_proto::config::VdConfig;
use vdi_proto::join::Role;
use vdi_proto::status::VdError;
use vdi_shm::error::ShmError;
use vdi_shm::host::Host;
use vdi_shm::member::Member;
use vdi_shm::runtime::{Access, Options};

fn options(dir: &Path) -> Options {
    Options { runtime_dir: Some(dir.to_owned()), access: Access::default() }
}

fn create(dir: &Path) -> Result<Host, ShmError> {
    Host::create(&options(dir), "", "nightly", &VdConfig::default())
}

fn join(dir: &Path) -> Result<Member, ShmError> {
    Member::join(&options(dir), Role::Server, "", "nightly")
}

fn refused_for(dir: &Path, why: &str) {
    for error in [create(dir).expect_err("untrusted"), join(dir).expect_err("untrusted")] {
        assert_eq!(error.code(), VdError::Security, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

fn works_in(dir: &Path) {
    let host = create(dir).expect("a set");
    let member = join(dir).expect("a member");
    assert_eq!(member.session().set_name(), "nightly");
    drop(member);
    drop(host);
    assert_eq!(std::fs::read_dir(dir).expect("a directory").count(), 0, "something is left behind");
}

fn mode(dir: &Path, mode: u32) {
    std::fs::set_permissions(dir, Permissions::from_mode(mode)).expect("our own directory");
}

#[test]
fn links_and_files_are_refused() {
    let parent = tempfile::tempdir().expect("a directory");
    let (real, link, file) = (parent.path().join("real"), parent.path().join("link"), parent.path().join("file"));
    std::fs::create_dir(&real).expect("a directory");
    symlink(&real, &link).expect("a link");
    std::fs::write(&file, "").expect("a file");
    refused_for(&link, "no directory but a link or a file");
    refused_for(&file, "no directory but a link or a file");
    // A slash at the end makes the system follow the link.
    let mut slashed = link.into_os_string();
    slashed.push("/");
    refused_for(&PathBuf::from(slashed), "no directory but a link or a file");
    works_in(&real);
}

#[test]
fn directories_that_others_can_change_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for open in [0o777, 0o770, 0o702, 0o720] {
        mode(dir.path(), open);
        refused_for(dir.path(), "writable by others");
    }
    for good in [0o700, 0o755, 0o1777, 0o1770] {
        mode(dir.path(), good);
        works_in(dir.path());
    }
}

#[test]
fn directories_of_others_are_refused() {
    if !rustix::process::geteuid().is_root() {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED directories_of_others_are_refused: only root can give one away");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(dir.path(), Some(65534), None).expect("root can");
    refused_for(dir.path(), "belongs to uid 65534");
    let allowed = Options { access: Access { uids: vec![65534], gids: Vec::new() }, ..options(dir.path()) };
    assert!(Host::create(&allowed, "", "nightly", &VdConfig::default()).is_ok());
}

/// A socket's address has room for 107 bytes; longer paths work all the same, and so does each length around.
#[test]
fn paths_of_every_length() {
    let parent = tempfile::tempdir().expect("a directory");
    let base = parent.path().as_os_str().len() + 1;
    for len in (60..=110).step_by(1).chain([300, 1000]) {
        let mut dir = parent.path().to_owned();
        let mut left = len - base;
        while left > 200 {
            dir.push("d".repeat(199));
            left -= 200;
        }
        dir.push("d".repeat(left));
        works_in(&dir);
    }
}

#[test]
fn names_are_their_own_files_and_any_name_will_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let names = ["a", "A", "..", "/etc/passwd", "a/b", "Größe", "\u{10348}", "{0F8FAD5B-D9CB-469F-A165-70867728950E}"];
    let mut hosts = Vec::new();
    for name in names.map(str::to_owned).into_iter().chain(["x".repeat(128), "\u{10348}".repeat(128)]) {
        for instance in ["", "SQLEXPRESS"] {
            let host = Host::create(&options(dir.path()), instance, &name, &VdConfig::default());
            hosts.push((host.expect("a set"), instance, name.clone()));
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), hosts.len());
    for (_, instance, name) in &hosts {
        let member = Member::join(&options(dir.path()), Role::Server, instance, name).expect("a member");
        assert_eq!(member.session().set_name(), name);
    }
    for bad in ["", "a\\b", "a\nb", &"x".repeat(129)] {
        let error = Host::create(&options(dir.path()), "", bad, &VdConfig::default()).expect_err("no name");
        assert_eq!(error.code(), VdError::Invalid);
    }
    let error = Host::create(&options(dir.path()), "machine\\sql", "a", &VdConfig::default()).expect_err("no instance");
    assert_eq!(error.code(), VdError::InstanceName);
    drop(hosts);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

/// Dead sockets are removed; nothing else is, whatever it is called.
#[test]
fn other_peoples_files_are_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("target");
    std::fs::write(&target, "mine").expect("a file");
    std::fs::write(dir.path().join("notes.vdi"), "mine").expect("a file");
    symlink(&target, dir.path().join("link.vdi")).expect("a link");
    std::fs::create_dir(dir.path().join("folder.vdi")).expect("a folder");
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("dead.vdi")).expect("a socket"));
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("other.sock")).expect("a socket"));
    let live = std::os::unix::net::UnixListener::bind(dir.path().join("live.vdi")).expect("a socket");
    drop(create(dir.path()).expect("a set"));
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["folder.vdi", "link.vdi", "live.vdi", "notes.vdi", "other.sock", "target"]);
    assert_eq!(std::fs::read(dir.path().join("notes.vdi")).expect("a file"), b"mine");
    drop(live);
}

/// A configuration that no server serves leaves no trace.
#[test]
fn a_refused_configuration_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    for device_count in [0, 65, u32::MAX] {
        let asked = VdConfig { device_count, ..VdConfig::default() };
        let error = Host::create(&options(dir.path()), "", "nightly", &asked).expect_err("no such set");
        assert_eq!(error.code(), VdError::NotSupported);
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

/// Many at once ask for one name: one gets it; then many join, and one is the server.
#[test]
fn one_winner() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..5 {
        let hosts: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| create(dir.path()))).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let lost = hosts.iter().filter_map(|host| host.as_ref().err());
        assert!(
            lost.clone().all(|error| matches!(error, ShmError::SetExists { .. })),
            "{:?}",
            lost.collect::<Vec<_>>()
        );
        assert_eq!(hosts.iter().filter(|host| host.is_ok()).count(), 1);
        // More than the system queues for one listener, and more than may be undecided at a time.
        let members: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..24).map(|_| scope.spawn(|| join(dir.path()))).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(members.iter().filter(|member| member.is_ok()).count(), 1);
        let lost = members.iter().filter_map(|member| member.as_ref().err());
        assert!(lost.clone().all(|error| error.code() == VdError::Invalid), "{:?}", lost.collect::<Vec<_>>());
        drop((members, hosts));
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }
}
