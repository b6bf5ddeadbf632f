//! What may be a target, and what the new file takes over from the old.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use vdi_proto::completion::CompletionCode;

use super::*;

fn write_all(path: &Path, naming: Naming) {
    let mut media = FileMedia::create_as(path, naming).unwrap();
    media.write(0, b"new").unwrap();
    media.complete().unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_new_file_gets_ordinary_permissions_and_a_replaced_one_keeps_its_own() {
    for naming in NAMINGS {
        let place = Place::new(None);
        let ordinary = place.directory.path().join("ordinary");
        fs::write(&ordinary, b"").unwrap();
        write_all(&place.target, naming);
        assert_eq!(mode(&place.target), mode(&ordinary));

        for kept in [0o600, 0o640, 0o666, 0o777] {
            fs::set_permissions(&place.target, fs::Permissions::from_mode(kept)).unwrap();
            write_all(&place.target, naming);
            assert_eq!(mode(&place.target), kept);
        }
        assert_eq!(place.names(), ["a.bak", "ordinary"]);
    }
}

#[test]
fn the_owner_is_kept_where_that_may_be_set() {
    if !is_root() {
        eprintln!("skipped: only root may give files away");
        return;
    }
    for naming in NAMINGS {
        let place = Place::new(Some(b"old"));
        chown(&place.target, Some(4711), Some(4712)).unwrap();
        fs::set_permissions(&place.target, fs::Permissions::from_mode(0o640)).unwrap();
        write_all(&place.target, naming);
        let now = fs::metadata(&place.target).unwrap();
        assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (4711, 4712, 0o640));
    }
}

#[test]
fn another_group_gets_no_more_than_all_others() {
    for (old, new) in [(0o660, 0o600), (0o664, 0o644), (0o646, 0o646), (0o604, 0o604), (0o777, 0o777), (0o672, 0o622)] {
        assert_eq!(super::super::places::for_another_group(old), new, "{old:o}");
    }
}

#[test]
fn a_file_that_may_not_be_written_is_not_replaced() {
    if is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let place = Place::new(Some(b"old"));
    fs::set_permissions(&place.target, fs::Permissions::from_mode(0o444)).unwrap();
    let error = FileMedia::create(&place.target).unwrap_err();
    assert!(error.to_string().contains("exists and may not be overwritten"), "{error}");

    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let error = FileMedia::create(place.directory.path().join("b.bak")).unwrap_err();
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(error.to_string().contains("cannot create a file in"), "{error}");
    assert!(error.to_string().contains("permission"), "{error}");
}

#[test]
fn a_symbolic_link_stays_and_its_file_is_replaced() {
    for naming in NAMINGS {
        let place = Place::new(Some(b"old"));
        fs::create_dir(place.directory.path().join("links")).unwrap();
        let link = place.directory.path().join("links/b.bak");
        symlink("../a.bak", &link).unwrap();
        write_all(&link, naming);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(place.content().unwrap(), b"new");
        assert_eq!(names(link.parent().unwrap()), ["b.bak"]);
        assert_eq!(place.names(), ["a.bak", "links"]);
    }
}

#[test]
fn what_cannot_be_a_target_is_refused_with_a_reason() {
    let place = Place::new(None);
    let directory = place.directory.path();
    symlink("nowhere", directory.join("dangling")).unwrap();
    fs::write(directory.join("plain"), b"").unwrap();
    let without = |path: PathBuf| FileMedia::create(path).unwrap_err();
    let cases = [
        (without(directory.to_owned()), "not a directory"),
        (without(directory.join("new/")), "not a directory"),
        (without(directory.join("..")), "not a directory"),
        (without(directory.join("dangling")), "symbolic link to nowhere, which does not exist"),
        (without(directory.join("missing/a.bak")), "directories have to exist already"),
        (without(directory.join("plain/a.bak")), "Not a directory"),
        (without(PathBuf::from("")), "name a file"),
        (without(PathBuf::from("/proc/no-such-file.bak")), "cannot create a file in /proc"),
    ];
    for (error, expected) in cases {
        assert_eq!(error.code, CompletionCode::IO_DEVICE);
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(place.names(), ["dangling", "plain"]);
}

#[test]
fn what_cannot_be_restored_from_is_refused_with_a_reason() {
    let place = Place::new(None);
    let error = FileMedia::open(place.directory.path()).unwrap_err();
    assert!(error.to_string().contains("name a file, not a directory"), "{error}");
    let error = FileMedia::open(&place.target).unwrap_err();
    assert!(error.to_string().contains("a.bak for reading") && error.to_string().contains("check the path"), "{error}");
}

#[test]
fn names_up_to_the_longest_work() {
    for naming in NAMINGS {
        for name in ["n".repeat(255), "é".repeat(127), format!("{}é", "n".repeat(63)), "-rf".into(), ".hidden".into()]
        {
            let place = Place::new(None);
            let target = place.directory.path().join(&name);
            let mut media = FileMedia::create_as(&target, naming).unwrap();
            media.write(0, b"new").unwrap();
            for partial in place.names() {
                assert!(
                    partial.starts_with('.') && partial.contains(".vdi-partial-") && partial.len() < 110,
                    "{partial}"
                );
                assert!(!partial.contains('\u{FFFD}'), "{partial}");
            }
            media.complete().unwrap();
            assert_eq!(place.names(), [name]);
        }
    }
}

#[test]
fn the_target_is_found_again_after_its_directory_was_renamed() {
    for naming in NAMINGS {
        let place = Place::new(None);
        let (before, after) = (place.directory.path().join("before"), place.directory.path().join("after"));
        fs::create_dir(&before).unwrap();
        let mut media = FileMedia::create_as(&before.join("a.bak"), naming).unwrap();
        fs::rename(&before, &after).unwrap();
        media.write(0, b"new").unwrap();
        media.complete().unwrap();
        assert_eq!(names(&after), ["a.bak"]);
    }
}

#[test]
fn a_target_that_is_no_file_by_the_end_is_not_replaced() {
    let turn: [fn(&Path); 3] = [
        |target| fs::create_dir(target).unwrap(),
        |target| symlink("/dev/null", target).unwrap(),
        |target| rustix::fs::mkfifoat(rustix::fs::CWD, target, rustix::fs::Mode::RWXU).unwrap(),
    ];
    for (turn, old) in turn.into_iter().flat_map(|turn| [(turn, None), (turn, Some(&b"old"[..]))]) {
        for naming in NAMINGS {
            let place = Place::new(old);
            let mut media = FileMedia::create_as(&place.target, naming).unwrap();
            let _ = fs::remove_file(&place.target);
            turn(&place.target);
            let kind = fs::symlink_metadata(&place.target).unwrap().file_type();
            let error = media.complete().unwrap_err().to_string();
            for said in ["renaming it to its final name", "no regular file", "remove what is there"] {
                assert!(error.contains(said), "{error}");
            }
            assert_eq!(place.names(), ["a.bak"]);
            assert_eq!(fs::symlink_metadata(&place.target).unwrap().file_type(), kind);
        }
    }
}
