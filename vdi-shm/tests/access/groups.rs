//! Two users that share a group's directory: root beside a service user is the usual pair.

use std::path::Path;

use super::common::{Child, OTHER_GID, is_root, names, skip};
use super::{NO_ROOT, chmod, directory, socket_in};

/// A directory of root that the group of the other users can write to.
fn group_directory() -> tempfile::TempDir {
    let dir = directory(0o700);
    std::os::unix::fs::chown(dir.path(), Some(0), Some(OTHER_GID)).expect("root can");
    chmod(dir.path(), 0o2770);
    dir
}

/// Root, and a service user of the group, with the access rules that the documentation of the runtime directory names.
fn pair(dir: &Path) -> (Child, Child) {
    let (mut root, mut service) = (Child::new(dir), Child::new(dir));
    service.ok("become 65533");
    for child in [&mut root, &mut service] {
        child.ok("allow 0");
        child.ok(&format!("allow-group {OTHER_GID}"));
    }
    (root, service)
}

/// Either side creates the set, with the same rule on both sides.
#[test]
fn root_beside_a_service_user_in_a_group_directory() {
    if !is_root() {
        return skip("root_beside_a_service_user_in_a_group_directory", NO_ROOT);
    }
    let dir = group_directory();
    let (mut root, mut service) = pair(dir.path());
    for (creator, joiner) in [(0, 1), (1, 0)] {
        let both = [&mut root, &mut service];
        both[creator].ok("create nightly");
        assert_eq!(both[joiner].ok("join server nightly"), "0");
        both[joiner].ok("class 4096 4096 4");
        both[joiner].ok("leave");
        both[creator].ok("close");
        assert_eq!(names(dir.path()), [""; 0]);
    }
    // What the one leaves when it is killed the other removes.
    service.ok("create nightly");
    service.kill();
    root.ok("create nightly");
    let mut again = pair(dir.path()).1;
    again.refused("create nightly", "Protocol", &["exists already"]);
    assert_eq!(again.ok("join server nightly"), "0");
}

/// Each variable that is missing is named by the side that misses it, with the number of the other side.
#[test]
fn what_is_missing_for_a_pair_is_named_with_the_number() {
    if !is_root() {
        return skip("what_is_missing_for_a_pair_is_named_with_the_number", NO_ROOT);
    }
    let dir = group_directory();
    // The group is not named.
    let (mut root, mut service) = (Child::new(dir.path()), Child::new(dir.path()));
    service.ok("become 65533");
    for child in [&mut root, &mut service] {
        child.ok("allow 0");
        let parts = ["writable by the group 65534 (mode 2770)", "set VDI_ALLOW_GID=65534 for both sides"];
        for command in ["create nightly", "join server nightly"] {
            child.refused(command, "Security", &parts);
        }
    }
    // The creator is not allowed.
    let (mut root, mut service) = (pair(dir.path()).0, Child::new(dir.path()));
    service.ok("become 65533");
    service.ok(&format!("allow-group {OTHER_GID}"));
    root.ok("create nightly");
    let parts = ["of uid 0, whom this process does not trust", "set VDI_ALLOW_UID=0 for this process"];
    service.refused("join server nightly", "Security", &parts);
    root.ok("close");
    // The creator allows nobody else, in a directory that is open to all.
    let open = directory(0o755);
    let (mut root, mut service) = (Child::new(open.path()), pair(open.path()).1);
    root.ok("create nightly");
    service.refused(
        "join server nightly",
        "Security",
        &[
            "of uid 0 (mode 600) may not be used by uid 65533",
            "set VDI_ALLOW_UID=65533 for the process of uid 0, and VDI_ALLOW_UID=0 for this one",
        ],
    );
}

/// A member of the group can take a name first or remove a socket. It cannot play another user.
#[test]
fn members_of_a_group_disturb_and_do_not_deceive() {
    if !is_root() {
        return skip("members_of_a_group_disturb_and_do_not_deceive", NO_ROOT);
    }
    let dir = group_directory();
    let (mut root, mut service) = (Child::new(dir.path()), pair(dir.path()).1);
    root.ok("allow 65533");
    root.ok(&format!("allow-group {OTHER_GID}"));
    // A member that is not allowed by its effective group: the group is one of its others.
    let mut member = Child::new(dir.path());
    member.ok("become-member 65532");
    let socket = socket_in(dir.path());
    member.ok(&format!("listen {}", socket.display()));
    let who = format!("process {} of uid 65532", member.pid());
    root.refused("create nightly", "Security", &["the name is taken", &who, "whom this process does not trust"]);
    service.refused("join server nightly", "Security", &[&who, "set VDI_ALLOW_UID=65532 for this process if that is"]);
    member.kill();
    // Its socket is a dead one.
    root.ok("create nightly");
    assert_eq!(service.ok("join server nightly"), "0");
    service.ok("leave");
    // A socket that a member removes is not found, and comes to no harm otherwise.
    let mut member = Child::new(dir.path());
    member.ok("become-member 65532");
    member.ok(&format!("remove {}", socket.display()));
    service.refused("join server nightly", "Invalid", &["no virtual device set \"nightly\""]);
    root.ok("close");
    assert_eq!(names(dir.path()), [""; 0]);
}
