//! Named pipes, devices, terminals, and what this process prints to.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use vdi_proto::completion::CompletionCode;

use super::super::file::OneFile;
use super::process::{TARGET, child};
use super::*;

#[test]
fn special_files_are_written_straight() {
    let mut null = FileMedia::create("/dev/null").unwrap();
    null.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    null.write(0, &[7; 100_000]).unwrap();
    null.flush().unwrap();
    null.complete().unwrap();
    null.close().unwrap();
    assert_eq!(null.bytes(), 100_000);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());

    let mut full = FileMedia::create("/dev/full").unwrap();
    let error = full.write(0, &[7; 4096]).unwrap_err();
    assert_eq!((error.code, error.bytes), (CompletionCode::DISK_FULL, 0));
    assert!(error.to_string().contains("/dev/full at byte 0 (what had been written to it cannot"), "{error}");
    assert!(full.close().is_err());

    // The conditions of success are the same as those of a file.
    let mut null = FileMedia::create("/dev/null").unwrap();
    null.write(0, b"x").unwrap();
    assert!(null.close().unwrap_err().to_string().contains("without a Flush"));
}

#[test]
fn a_named_pipe_carries_a_backup_into_a_restore() {
    let place = Place::new(None);
    mkfifoat(CWD, &place.target, Mode::RWXU).unwrap();
    let path = place.target.clone();
    let reader = thread::spawn(move || {
        let mut media = FileMedia::open(path).unwrap();
        let mut all = Vec::new();
        loop {
            let mut buffer = [0; 65536];
            let count = media.read(0, &mut buffer).unwrap();
            all.extend_from_slice(&buffer[..count]);
            if count < buffer.len() {
                return all;
            }
        }
    });
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut media = FileMedia::create(&place.target).unwrap();
    media.begin(&backup(Features::NONE)).unwrap();
    data.chunks(300_000).for_each(|chunk| media.write(0, chunk).unwrap());
    media.flush().unwrap();
    media.close().unwrap();
    assert_eq!(reader.join().unwrap(), data);
    assert_eq!(place.names(), ["a.bak"]);
    assert!(fs::symlink_metadata(&place.target).unwrap().file_type().is_fifo());
}

#[test]
fn a_named_pipe_without_its_other_end_is_waited_for_and_then_refused() {
    let place = Place::new(None);
    mkfifoat(CWD, &place.target, Mode::RWXU).unwrap();
    let short = Duration::from_millis(50);
    let error = OneFile::create(&place.target, Naming::Unnamed, short).unwrap_err().to_string();
    assert!(
        error.contains("a.bak: no process reads it after 0.05 s") && error.contains("start its reader first"),
        "{error}"
    );
    let error = OneFile::open(&place.target, short).unwrap_err().to_string();
    assert!(
        error.contains("a.bak: no process writes it after 0.05 s") && error.contains("start its writer first"),
        "{error}"
    );
}

/// A writer that has nothing yet is one, and an end before the first one is none.
#[test]
fn a_named_pipe_is_read_from_its_first_writer_on() {
    let place = Place::new(None);
    mkfifoat(CWD, &place.target, Mode::RWXU).unwrap();
    let writer = || OpenOptions::new().read(true).write(true).open(&place.target).unwrap();
    // Without a byte.
    let silent = writer();
    drop(OneFile::open(&place.target, Duration::ZERO).unwrap());
    drop(silent);
    // With some, none of which is lost, although more come later.
    let mut early = writer();
    early.write_all(b"first ").unwrap();
    let mut media = FileMedia::open(&place.target).unwrap();
    early.write_all(b"second").unwrap();
    drop(early);
    let mut buffer = [0; 64];
    assert_eq!(media.read(0, &mut buffer).unwrap(), 12);
    assert_eq!(&buffer[..12], b"first second");
}

#[test]
fn terminals_are_refused() {
    // Opening it makes a new terminal.
    let terminal = "/dev/ptmx";
    for error in [FileMedia::create(terminal).unwrap_err(), FileMedia::open(terminal).unwrap_err()] {
        assert!(error.to_string().contains("/dev/ptmx is a terminal"), "{error}");
    }
}

/// Tells what went wrong where the harness does not print.
fn tell(line: &str) {
    let mut log = OpenOptions::new().append(true).open(std::env::var_os("VDI_MEDIA_TEST_LOG").unwrap()).unwrap();
    log.write_all(line.as_bytes()).unwrap();
}

/// What a child told, and whether it ended well, having started with these redirections.
fn told(redirections: &str, test: &str, place: &Place) -> (bool, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = child(&format!("exec {redirections}"), &format!("special::{test}"), &place.target);
    let status = command.env("VDI_MEDIA_TEST_LOG", log.path()).stderr(Stdio::null()).status().unwrap();
    (status.success(), fs::read_to_string(log.path()).unwrap())
}

#[test]
fn child_backs_up_to_what_it_prints_to() {
    let Some(target) = std::env::var_os(TARGET).map(PathBuf::from) else { return };
    for path in [target.as_path(), Path::new("/dev/fd/1"), Path::new("/dev/stdout"), Path::new("/dev/stderr")] {
        match FileMedia::create(path) {
            Ok(mut media) => tell(&format!("{}: {:?}\n", path.display(), media.complete().is_ok())),
            Err(error) => tell(&format!("{error}\n")),
        }
    }
}

#[test]
fn what_this_process_prints_to_is_no_target() {
    let test = "child_backs_up_to_what_it_prints_to";
    let place = Place::new(Some(b"log\n"));
    let (well, said) = told(r#">>"$VDI_MEDIA_TEST_TARGET" 2>/dev/null"#, test, &place);
    assert!(well && said.matches("this process's standard output goes").count() == 3, "{said}");
    let (well, said) = told(r#"2>>"$VDI_MEDIA_TEST_TARGET" >/dev/null"#, test, &place);
    assert!(well && said.matches("this process's standard error goes").count() == 2, "{said}");
    // What is printed to a device gets into no backup.
    assert!(said.contains("/dev/stdout: true"), "{said}");
    assert!(place.content().unwrap().starts_with(b"log\n"));
    assert_eq!(place.names(), ["a.bak"]);
}

#[test]
fn child_takes_standard_streams() {
    if std::env::var_os(TARGET).is_none() {
        return;
    }
    let config = VdConfig { features: Features::WRITE_MEDIA, ..VdConfig::default() };
    match FileMedia::stdout() {
        Ok(mut media) => {
            println!("printed");
            let again = FileMedia::stdout().unwrap_err().to_string();
            assert!(again.contains("/dev/stdout serves another device of this process already"), "{again}");
            media.begin(&config).unwrap();
            media.write(0, b"the backup").unwrap();
            media.flush().unwrap();
            media.close().unwrap();
            tell("backed up\n");
        }
        Err(error) => tell(&format!("{error}\n")),
    }
    match FileMedia::stdin() {
        Ok(mut media) => {
            assert!(FileMedia::stdin().is_err());
            let mut buffer = [0; 4096];
            let count = media.read(0, &mut buffer).unwrap();
            tell(&format!("read {}\n", String::from_utf8_lossy(&buffer[..count])));
            assert_eq!(std::io::stdin().read(&mut buffer).unwrap(), 0);
        }
        Err(error) => tell(&format!("{error}\n")),
    }
}

/// What was printed before is the harness's own; nothing comes after.
#[test]
fn standard_streams_are_media_that_nothing_else_gets_into() {
    let test = "child_takes_standard_streams";
    let place = Place::new(None);
    fs::write(&place.target, b"").unwrap();
    let redirections = r#"<"$VDI_MEDIA_TEST_TARGET" >>"$VDI_MEDIA_TEST_TARGET" 2>"$VDI_MEDIA_TEST_TARGET".log"#;
    let (well, said) = told(redirections, test, &place);
    assert!(well && said.contains("backed up") && said.contains("the backup\n"), "{said}");
    assert!(place.content().unwrap().ends_with(b"the backup"), "{:?}", place.content());
    let printed = fs::read_to_string(place.target.with_extension("bak.log")).unwrap();
    assert!(printed.contains("printed"), "{printed}");

    for (redirections, expected) in [
        (r#">"$VDI_MEDIA_TEST_TARGET" 2>&1"#, "standard output and standard error lead to the same file"),
        (">/dev/ptmx 2>/dev/null", "/dev/stdout is a terminal"),
        ("</dev/ptmx", "/dev/stdin is a terminal"),
        ("1</dev/null", "cannot use /dev/stdout"),
        ("0>/dev/null", "cannot use /dev/stdin"),
    ] {
        let (well, said) = told(redirections, test, &place);
        assert!(well && said.contains(expected), "{redirections}: {said}");
    }
}

/// A reader that went away is an error of the Write.
#[test]
fn a_reader_that_is_gone_fails_the_write() {
    let place = Place::new(None);
    mkfifoat(CWD, &place.target, Mode::RWXU).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let reader = File::from(rustix::fs::open(&place.target, flags, Mode::empty()).unwrap());
    let mut media = FileMedia::create(&place.target).unwrap();
    media.write(0, b"some").unwrap();
    drop(reader);
    let error = media.write(0, b"more").unwrap_err();
    assert_eq!(error.code, CompletionCode::IO_DEVICE);
    assert!(error.to_string().contains("the reader at the other end went away"), "{error}");
    assert!(media.close().is_err());
}
