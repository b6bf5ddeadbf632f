//! When a file is committed, and when it is not.

use std::os::unix::fs::MetadataExt;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;

use super::*;

fn begun(place: &Place, naming: Naming, complete_agreed: bool) -> FileMedia {
    let mut media = FileMedia::create_as(&place.target, naming).unwrap();
    media.begin(&backup(if complete_agreed { Features::COMPLETE_ENABLED } else { Features::NONE })).unwrap();
    media
}

#[test]
fn a_dropped_media_leaves_nothing_and_keeps_the_old_file() {
    for naming in NAMINGS {
        let place = Place::new(None);
        let mut media = begun(&place, naming, true);
        media.write(0, b"new").unwrap();
        media.flush().unwrap();
        assert_eq!(place.names().len(), if naming == Naming::Hidden { 1 } else { 0 });
        drop(media);
        assert!(place.names().is_empty());

        let place = Place::new(Some(b"old"));
        let inode = fs::metadata(&place.target).unwrap().ino();
        let mut media = begun(&place, naming, false);
        media.write(0, b"new").unwrap();
        drop(media);
        assert_eq!(place.names(), ["a.bak"]);
        assert_eq!(place.content().unwrap(), b"old");
        assert_eq!(fs::metadata(&place.target).unwrap().ino(), inode);
    }
}

#[test]
fn complete_commits_before_it_answers_and_in_the_right_order() {
    for naming in NAMINGS {
        for old in [None, Some(&b"old"[..])] {
            let place = Place::new(old);
            let mut media = begun(&place, naming, true);
            media.write(99, b"new ").unwrap();
            media.flush().unwrap();
            media.write(0, b"data").unwrap();
            assert_eq!(place.content().as_deref(), old);
            trace();
            media.complete().unwrap();
            let steps = match naming {
                Naming::Unnamed => vec![Step::SyncFile, Step::Link, Step::Rename, Step::SyncDirectory],
                Naming::Hidden => vec![Step::SyncFile, Step::Rename, Step::SyncDirectory],
            };
            assert_eq!(trace(), steps);
            assert_eq!(place.content().unwrap(), b"new data");
            assert_eq!(place.names(), ["a.bak"]);
            assert_eq!(media.bytes(), 8);

            // Complete and Flush again change nothing; a Write is refused and harms nothing.
            media.complete().unwrap();
            media.flush().unwrap();
            let late = media.write(0, b"x").unwrap_err();
            assert_eq!((late.code, late.bytes), (CompletionCode::IO_DEVICE, 0));
            assert!(late.to_string().contains("a Write came after"), "{late}");
            media.close().unwrap();
            media.close().unwrap();
            assert!(trace().is_empty());
            assert_eq!(place.content().unwrap(), b"new data");
        }
    }
}

#[test]
fn a_close_commits_only_what_is_proven() {
    for (negotiated, writes_and_flushes, expected) in [
        (true, "wf", "without the Complete that had been negotiated, so"),
        (false, "w", "without a Flush, so"),
        (false, "wfw", "without a Flush after the last Write, so"),
        (false, "wfwf", ""),
    ] {
        let place = Place::new(Some(b"old"));
        let mut media = begun(&place, Naming::Unnamed, negotiated);
        for step in writes_and_flushes.chars() {
            if step == 'w' { media.write(0, b"new").unwrap() } else { media.flush().unwrap() }
        }
        assert_eq!(place.content().unwrap(), b"old");
        match media.close() {
            Ok(()) => assert!(expected.is_empty() && place.content().unwrap() == b"newnew"),
            Err(error) => {
                let text = error.to_string();
                assert!(!expected.is_empty() && text.contains(expected), "{text}");
                assert!(text.contains("a.bak is not complete after"), "{text}");
                assert!(text.contains("what was there before was kept"), "{text}");
                assert!(media.complete().is_err() && media.close().is_err());
                assert_eq!(place.content().unwrap(), b"old");
            }
        }
        assert_eq!(place.names(), ["a.bak"]);
    }
}

#[test]
fn a_failure_of_any_step_is_for_good() {
    for naming in NAMINGS {
        for step in [Step::Write, Step::SyncFile, Step::Link, Step::Rename, Step::SyncDirectory] {
            if naming == Naming::Hidden && step == Step::Link {
                continue;
            }
            let place = Place::new(Some(b"old"));
            let mut media = begun(&place, naming, true);
            media.write(0, b"new").unwrap();
            let error = failing(step, || match step {
                Step::Write => media.write(0, b"er"),
                Step::SyncFile => media.flush(),
                _ => media.complete(),
            })
            .unwrap_err();
            assert_eq!((error.code, error.bytes), (CompletionCode::IO_DEVICE, 0));
            assert!(error.to_string().contains("a.bak") && error.to_string().contains("os error 5"), "{error}");

            // What was written is gone already, without waiting for the drop.
            assert_eq!(place.names(), ["a.bak"], "{step:?}");
            let now: &[u8] = if step == Step::SyncDirectory { b"new" } else { b"old" };
            assert_eq!(place.content().unwrap(), now, "{step:?}");
            for (name, result) in [
                ("clear", media.clear_error()),
                ("write", media.write(0, b"x")),
                ("read", media.read(0, &mut [0]).map(drop)),
                ("flush", media.flush()),
                ("complete", media.complete()),
                ("close", media.close()),
            ] {
                let again = result.unwrap_err();
                assert!(again.to_string().contains(&error.what), "{name}: {again}");
            }
            assert_eq!(place.content().unwrap(), now, "{step:?}");
        }
    }
}

#[test]
fn errors_that_are_no_failure_of_the_file_can_be_cleared() {
    let place = Place::new(None);
    let mut media = begun(&place, Naming::Unnamed, true);
    media.write(0, b"new").unwrap();
    let error = media.other(CommandCode::REWIND, 0, 0).unwrap_err();
    assert_eq!(error.code, CompletionCode::NOT_SUPPORTED);
    assert!(error.to_string().starts_with("VDC_Rewind is not supported"), "{error}");
    assert_eq!(media.read(0, &mut [0; 8]).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    media.clear_error().unwrap();
    media.complete().unwrap();
    assert_eq!(place.content().unwrap(), b"new");
}

#[test]
fn a_disk_like_set_writes_and_reads_at_positions() {
    let place = Place::new(None);
    let mut media = FileMedia::create(&place.target).unwrap();
    media.begin(&backup(Features::RANDOM_ACCESS | Features::COMPLETE_ENABLED)).unwrap();
    media.write(6, b"world").unwrap();
    media.write(0, b"hello ").unwrap();
    media.complete().unwrap();
    assert_eq!(place.content().unwrap(), b"hello world");

    let mut media = FileMedia::open(&place.target).unwrap();
    media.begin(&VdConfig { features: Features::RANDOM_ACCESS | Features::READ_MEDIA, ..VdConfig::default() }).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(media.read(6, &mut buffer).unwrap(), 5);
    assert_eq!(&buffer[..5], b"world");
    assert_eq!(media.read(u64::MAX, &mut buffer).unwrap_err().code, CompletionCode::IO_DEVICE);
}

#[test]
fn a_restore_reads_to_the_end_whatever_the_positions_say() {
    let place = Place::new(Some(b"0123456789"));
    let mut media = FileMedia::open(&place.target).unwrap();
    media.begin(&restore()).unwrap();
    let mut buffer = [0; 4];
    assert_eq!(media.read(7, &mut buffer).unwrap(), 4);
    assert_eq!(&buffer, b"0123");
    assert_eq!(media.read(0, &mut buffer).unwrap(), 4);
    assert_eq!(media.read(0, &mut buffer).unwrap(), 2);
    assert_eq!(&buffer[..2], b"89");
    assert_eq!(media.read(0, &mut buffer).unwrap(), 0);
    assert_eq!(media.bytes(), 10);

    let refused = media.write(0, b"x").unwrap_err();
    assert_eq!(refused.code, CompletionCode::NOT_SUPPORTED);
    assert!(refused.to_string().contains("with create for a backup"), "{refused}");
    media.clear_error().unwrap();
    media.flush().unwrap();
    media.complete().unwrap();
    media.close().unwrap();
    media.close().unwrap();
    assert!(media.read(0, &mut buffer).unwrap_err().to_string().contains("after"));
    assert_eq!(place.content().unwrap(), b"0123456789");
}

#[test]
fn a_failed_read_is_for_good() {
    // Reading a process's memory at address 0 fails with EIO.
    let mut media = FileMedia::open("/proc/self/mem").unwrap();
    let error = media.read(0, &mut [0; 8]).unwrap_err();
    assert_eq!((error.code, error.bytes), (CompletionCode::IO_DEVICE, 0));
    assert!(error.to_string().contains("cannot read /proc/self/mem at byte 0"), "{error}");
    assert!(media.clear_error().is_err() && media.read(0, &mut [0; 8]).is_err() && media.close().is_err());
}

#[test]
fn the_wrong_direction_and_device_kind_are_refused_at_the_beginning() {
    let place = Place::new(Some(b"old"));
    let mut writing = FileMedia::create(&place.target).unwrap();
    let error = writing.begin(&restore()).unwrap_err();
    assert_eq!(error.code, CompletionCode::NOT_SUPPORTED);
    assert!(error.to_string().contains("open it the other way"), "{error}");
    assert!(writing.write(0, b"x").is_err());

    let mut reading = FileMedia::open(&place.target).unwrap();
    assert_eq!(reading.begin(&backup(Features::NONE)).unwrap_err().code, CompletionCode::NOT_SUPPORTED);

    for features in [Features::TAPE, Features::FILE_MARKS] {
        let mut writing = FileMedia::create(&place.target).unwrap();
        let error = writing.begin(&backup(features)).unwrap_err();
        assert!(error.to_string().contains("kind of device"), "{error}");
    }
    assert_eq!(place.content().unwrap(), b"old");

    // "And/or": a set that does both may be begun either way.
    let both = backup(Features::READ_MEDIA);
    FileMedia::create(&place.target).unwrap().begin(&both).unwrap();
    FileMedia::open(&place.target).unwrap().begin(&both).unwrap();
}

#[test]
fn boxes_and_references_are_media_too() {
    let place = Place::new(None);
    let mut media = FileMedia::create(&place.target).unwrap();
    assert_eq!(media.path(), place.target);
    let mut boxed: Box<dyn Media + '_> = Box::new(&mut media);
    boxed.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    boxed.write(0, b"new").unwrap();
    boxed.flush().unwrap();
    boxed.clear_error().unwrap();
    assert!(boxed.other(CommandCode::new(77), 0, 0).is_err());
    assert!(boxed.read(0, &mut []).is_err());
    boxed.complete().unwrap();
    boxed.close().unwrap();
    drop(boxed);
    assert_eq!(media.bytes(), 3);
    assert_eq!(place.content().unwrap(), b"new");
}

/// Nothing is made, and the error says what to do.
#[test]
fn a_circle_of_links_and_an_empty_path_have_their_own_remedies() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    std::os::unix::fs::symlink(&other, &one).unwrap();
    std::os::unix::fs::symlink(&one, &other).unwrap();
    for error in [FileMedia::create(&one).unwrap_err(), FileMedia::open(&one).unwrap_err()] {
        assert!(error.to_string().contains("symbolic links in a circle"), "{error}");
    }
    let error = FileMedia::create("").unwrap_err().to_string();
    assert!(error.starts_with("no file is named; name a file"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
