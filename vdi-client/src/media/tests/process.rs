//! What needs a process of its own: limits, and sudden death.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use vdi_proto::completion::CompletionCode;

use super::*;

/// Names the target to the child: this test program, called again for one test.
pub(super) const TARGET: &str = "VDI_MEDIA_TEST_TARGET";
/// What the child does to it, and how many steps it may go.
const HOW: &str = "VDI_MEDIA_TEST_HOW";

/// A shell command that prepares, then becomes the child that runs `test`.
pub(super) fn child(prepare: &str, test: &str, target: &Path) -> Command {
    let module = module_path!().split_once("::").unwrap().1.rsplit_once("::").unwrap().0;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{prepare}; exec \"$0\" \"$@\""), std::env::current_exe().unwrap().to_str().unwrap()])
        .args([
            "--exact",
            "--nocapture",
            "--test-threads=1",
            &format!("{module}::{}", if test.contains("::") { test.to_owned() } else { format!("process::{test}") }),
        ])
        .env(TARGET, target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

#[test]
fn child_writes_beyond_the_limit() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let mut media = FileMedia::create(PathBuf::from(target)).unwrap();
    media.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    let mut stored = 0;
    let error = loop {
        match media.write(0, &[7; 3000]) {
            Ok(()) => stored += 3000,
            Err(error) => break error,
        }
    };
    stored += u64::from(error.bytes);
    assert_eq!(error.code, CompletionCode::DISK_FULL, "{error}");
    assert_eq!(stored, media.bytes());
    // Shells count in units of 512 or of 1024 bytes.
    assert!(stored == 8192 || stored == 16384, "{stored}");
    assert_ne!(error.bytes, 0);
    assert!(media.complete().is_err());
    println!("\nthe limit was met");
}

#[test]
fn a_limit_in_the_middle_of_a_write_is_a_full_disk_with_the_exact_count() {
    let place = Place::new(Some(b"old"));
    let mut command = child("trap '' XFSZ; ulimit -f 16", "child_writes_beyond_the_limit", &place.target);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("the limit was met"), "{text}");
    assert_eq!(place.names(), ["a.bak"]);
    assert_eq!(place.content().unwrap(), b"old");
}

#[test]
fn child_creates_beside() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let directory = PathBuf::from(target).parent().unwrap().to_owned();
    for (name, naming) in [("unnamed", Naming::Unnamed), ("hidden", Naming::Hidden)] {
        FileMedia::create_as(&directory.join(name), naming).unwrap().complete().unwrap();
    }
}

#[test]
fn the_umask_decides_on_the_permissions_of_new_files() {
    for (umask, mode) in [("000", 0o666), ("002", 0o664), ("027", 0o640), ("077", 0o600)] {
        let place = Place::new(None);
        assert!(child(&format!("umask {umask}"), "child_creates_beside", &place.target).status().unwrap().success());
        for name in ["unnamed", "hidden"] {
            let found = fs::metadata(place.directory.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name} with umask {umask}");
        }
    }
}

#[test]
fn child_writes_and_waits() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let mut media = FileMedia::create(PathBuf::from(target)).unwrap();
    media.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    media.write(0, &[7; 100_000]).unwrap();
    media.flush().unwrap();
    println!("\nwritten");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn child_writes_a_volume_set_and_waits() {
    let Some(target) = std::env::var_os(TARGET) else { return };
    let mut set = VolumeSet::create(PathBuf::from(target).with_extension("set"), 65536).unwrap();
    set.begin(&backup(Features::REMOVABLE | Features::COMPLETE_ENABLED)).unwrap();
    set.write(0, &[7; 60_000]).unwrap();
    set.other(vdi_proto::command::CommandCode::LOAD, 2, 0).unwrap();
    set.write(0, &[7; 60_000]).unwrap();
    println!("\nwritten");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// Starts such a child; it has written when this returns.
pub(super) fn at_work(test: &str, target: &Path) -> std::process::Child {
    let mut child = child(":", test, target).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "written"));
    child
}

#[test]
fn a_killed_process_leaves_nothing() {
    for old in [None, Some(&b"old"[..])] {
        let place = Place::new(old);
        let before = place.names();
        let probe = FileMedia::create(&place.target).unwrap();
        let unnamed = place.names() == before;
        drop(probe);
        if !unnamed {
            eprintln!("skipped: the file system of the temporary directory has no unnamed files");
            return;
        }
        for test in ["child_writes_and_waits", "child_writes_a_volume_set_and_waits"] {
            let mut child = at_work(test, &place.target);
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(place.names(), before);
            assert_eq!(place.content().as_deref(), old);
        }
    }
}

/// Makes a new backup over an old one: `kind keep steps` are what kind, where it is kept, and how long its process lives.
#[test]
fn child_commits_until_it_is_killed() {
    let (Some(target), Ok(how)) = (std::env::var_os(TARGET).map(PathBuf::from), std::env::var(HOW)) else { return };
    let how: Vec<_> = how.split(' ').collect();
    let [kind, keep, steps] = how[..] else { panic!("{how:?}") };
    let naming = if keep == "hidden" { Naming::Hidden } else { Naming::Unnamed };
    LIFE.set(Some(steps.parse().unwrap()));
    make(kind, &target, naming, 2);
    println!("\nalive");
}

/// A backup of two Writes of this byte; on media of their own where there are several.
fn make(kind: &str, target: &Path, naming: Naming, byte: u8) {
    let (mut media, extra): (Box<dyn Media>, _) = match kind {
        "file" => (Box::new(FileMedia::create_as(target, naming).unwrap()), Features::NONE),
        "tape" => (Box::new(TapeImage::create_as(target, naming).unwrap()), Features::TAPE),
        _ => (Box::new(VolumeSet::create_as(target, 4096, naming).unwrap()), Features::REMOVABLE),
    };
    media.begin(&backup(extra | Features::COMPLETE_ENABLED)).unwrap();
    media.write(0, &[byte; 1024]).unwrap();
    if kind == "set" {
        media.other(vdi_proto::command::CommandCode::LOAD, 2, 0).unwrap();
    }
    media.write(0, &[byte; 512]).unwrap();
    media.flush().unwrap();
    media.complete().unwrap();
}

/// All that is at a target: the files there, with their bytes.
fn content(target: &Path) -> Vec<(String, Vec<u8>)> {
    if target.is_dir() {
        return names(target).into_iter().map(|name| (name.clone(), fs::read(target.join(name)).unwrap())).collect();
    }
    fs::read(target).map(|bytes| (String::new(), bytes)).into_iter().collect()
}

#[test]
fn killed_between_any_two_steps_a_target_is_the_old_or_the_complete_new_one() {
    for kind in ["file", "tape", "set"] {
        let place = Place::new(None);
        make(kind, &place.target, Naming::Unnamed, 2);
        let new = content(&place.target);
        for (keep, kept) in [("unnamed", Naming::Unnamed), ("hidden", Naming::Hidden)] {
            for replaces in [false, true] {
                let (mut seen_new, mut survived) = (0, false);
                for steps in 0..40 {
                    let place = Place::new(None);
                    if replaces {
                        make(kind, &place.target, Naming::Unnamed, 1);
                    }
                    let old = content(&place.target);
                    let mut command = child(":", "child_commits_until_it_is_killed", &place.target);
                    let output = command.env(HOW, format!("{kind} {keep} {steps}")).output().unwrap();
                    survived = String::from_utf8_lossy(&output.stdout).contains("\nalive");
                    assert_eq!(survived, output.status.success(), "{output:?}");
                    let now = content(&place.target);
                    let after = format!("{kind}, {keep}, replaces: {replaces}, killed after {steps} steps");
                    assert!(now == new || (now == old && seen_new == 0), "{after}");
                    seen_new += u32::from(now == new);
                    let left: Vec<_> = place.names().into_iter().filter(|name| name != "a.bak").collect();
                    assert!(left.iter().all(|name| name.starts_with(".a.bak.vdi-partial-")), "{after}: {left:?}");
                    // Two empty directories are exchanged on trial at first.
                    assert!(left.len() <= 1 + usize::from(kind == "set" && replaces), "{after}: {left:?}");
                    // What is left does not stand in the way of the next, which removes it.
                    make(kind, &place.target, kept, 3);
                    assert!(content(&place.target) != now, "{after}");
                    assert_eq!(place.names(), ["a.bak"], "{after}");
                    if survived {
                        assert!(left.is_empty(), "{after}: {left:?}");
                        break;
                    }
                }
                assert!(survived && seen_new >= 2, "{kind}, {keep}, {replaces}");
            }
        }
    }
}

#[test]
fn child_fills_its_descriptors() {
    let (Some(target), Ok(how)) = (std::env::var_os(TARGET).map(PathBuf::from), std::env::var(HOW)) else { return };
    let (keep, end) = how.split_once(' ').unwrap();
    let naming = if keep == "hidden" { Naming::Hidden } else { Naming::Unnamed };
    let load = |set: &mut VolumeSet, number| set.other(vdi_proto::command::CommandCode::LOAD, number, 0);
    let begin = || {
        let mut set = VolumeSet::create_as(&target, 4096, naming).unwrap();
        set.begin(&backup(Features::REMOVABLE | Features::COMPLETE_ENABLED)).unwrap();
        set
    };
    let mut set = begin();
    let (most, error) = (2..).find_map(|number| load(&mut set, number).err().map(|error| (number - 1, error))).unwrap();
    assert!(error.to_string().contains("ulimit -n") && error.is_final(), "{error}");
    drop(set);
    assert!(names(target.parent().unwrap()).iter().all(|name| !name.starts_with('.')));

    let mut set = begin();
    (2..=most).for_each(|number| load(&mut set, number).map(drop).unwrap());
    if end == "commit" {
        set.write(0, &[2; 512]).unwrap();
        set.complete().unwrap();
        assert_eq!(names(&target).len(), most as usize);
    }
    drop(set);
    assert!(names(target.parent().unwrap()).iter().all(|name| !name.starts_with('.')));
    println!("\nas many as it may have: {most}");
}

/// The commit needs some descriptors of its own. That there are none left is not to be found out after hours of writing.
#[test]
fn a_set_that_takes_all_descriptors_is_committed_or_vanishes() {
    for keep in ["unnamed", "hidden"] {
        for end in ["commit", "drop"] {
            for replaces in [false, true] {
                let place = Place::new(None);
                if replaces {
                    make("set", &place.target, Naming::Unnamed, 1);
                }
                let mut command = child("ulimit -n 40", "child_fills_its_descriptors", &place.target);
                let output = command.env(HOW, format!("{keep} {end}")).stderr(Stdio::piped()).output().unwrap();
                let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (out, err) = (told(&output.stdout), told(&output.stderr));
                assert!(out.contains("as many as it may have"), "{keep}, {end}, {replaces}: {out}{err}");
            }
        }
    }
}
