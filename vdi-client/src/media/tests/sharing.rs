//! One target has one medium at a time.

use std::os::unix::fs::symlink;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use super::process::at_work;
use super::*;

type Make = fn(&Path, Naming) -> Result<Box<dyn Media>, MediaError>;

const MAKERS: [(&str, Make, Features); 3] = [
    ("file", |path, naming| FileMedia::create_as(path, naming).map(|media| Box::new(media) as _), Features::NONE),
    ("tape", |path, naming| TapeImage::create_as(path, naming).map(|media| Box::new(media) as _), Features::TAPE),
    (
        "set",
        |path, naming| VolumeSet::create_as(path, 4096, naming).map(|media| Box::new(media) as _),
        Features::REMOVABLE,
    ),
];

#[track_caller]
fn assert_taken<T>(second: Result<T, MediaError>, path: &Path) {
    let Err(error) = second else { panic!("{} got a second medium", path.display()) };
    let error = error.to_string();
    for said in [path.to_str().unwrap(), "is being written by another backup", "a target of its own"] {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_second_medium_for_one_target_is_refused() {
    for (kind, make, features) in MAKERS {
        for naming in NAMINGS {
            let place = Place::new(None);
            let begin = || {
                let mut media = make(&place.target, naming).unwrap();
                media.begin(&backup(features | Features::COMPLETE_ENABLED)).unwrap();
                media.write(0, &[7; 512]).unwrap();
                media
            };
            let mut media = begin();
            assert_taken(make(&place.target, naming), &place.target);
            media.complete().unwrap();
            // Another device of the same backup may be late.
            assert_taken(make(&place.target, naming), &place.target);
            media.close().unwrap();

            // Over what is there now, by other ways to it.
            let media = begin();
            let (link, around) = (
                place.directory.path().join("link"),
                place.directory.path().join("../").join(place.directory.path().file_name().unwrap()).join("a.bak"),
            );
            symlink(&place.target, &link).unwrap();
            for path in [&place.target, &link, &around] {
                assert!(make(path, naming).is_err_and(|error| error.to_string().contains("another backup")), "{kind}");
            }
            let other = make(&place.directory.path().join("b.bak"), naming).unwrap();
            drop((media, other));
            drop(begin());
            assert_eq!(place.names(), ["a.bak", "link"], "{kind}");
        }
    }
}

/// Each backup has its own file in the end.
#[test]
fn two_hard_links_of_a_file_are_two_targets() {
    let place = Place::new(Some(b"old"));
    let link = place.directory.path().join("b.bak");
    fs::hard_link(&place.target, &link).unwrap();
    let [mut one, mut other] = [&place.target, &link].map(|path| FileMedia::create(path).unwrap());
    one.write(0, b"one").unwrap();
    other.write(0, b"other").unwrap();
    one.complete().unwrap();
    other.complete().unwrap();
    assert_eq!((place.content().unwrap(), fs::read(link).unwrap()), (b"one".to_vec(), b"other".to_vec()));
}

#[test]
fn a_medium_that_failed_releases_its_target() {
    for naming in NAMINGS {
        let place = Place::new(Some(b"old"));
        let mut media = FileMedia::create_as(&place.target, naming).unwrap();
        failing(Step::Write, || media.write(0, b"new")).unwrap_err();
        drop(FileMedia::create_as(&place.target, naming).unwrap());
    }
}

#[test]
fn a_target_of_another_process_is_free_when_that_is_killed() {
    for (test, target, make) in [
        ("child_writes_and_waits", "a.bak", MAKERS[0].1),
        ("child_writes_a_volume_set_and_waits", "a.set", MAKERS[2].1),
    ] {
        let place = Place::new(None);
        let path = place.directory.path().join(target);
        let mut child = at_work(test, &place.target);
        assert_taken(make(&path, Naming::Unnamed), &path);
        child.kill().unwrap();
        child.wait().unwrap();
        make(&path, Naming::Unnamed).unwrap();
    }
}

#[test]
fn a_named_pipe_has_one_writer_and_devices_have_any_number() {
    let nulls = [FileMedia::create("/dev/null").unwrap(), FileMedia::create("/dev/null").unwrap()];
    drop(nulls);

    let place = Place::new(None);
    mkfifoat(CWD, &place.target, Mode::RWXU).unwrap();
    let _reader = rustix::fs::open(&place.target, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    let media = FileMedia::create(&place.target).unwrap();
    assert_taken(FileMedia::create(&place.target), &place.target);
    drop(media);
    FileMedia::create(&place.target).unwrap();
}
