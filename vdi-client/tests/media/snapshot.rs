//! Snapshots: what goes where, and that nothing is committed after a failure.

use std::sync::{Arc, Mutex};

use crate::*;

/// Notes what it is told, beside a medium that does so, too.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    fails: &'static str,
}

impl Log {
    fn note(&self, line: &str) -> Result<(), MediaError> {
        self.lines.lock().unwrap().push(line.to_owned());
        if self.fails == line {
            // A recoverable error, which does not help.
            return Err(MediaError::new(CompletionCode::OPERATION_ABORTED, format!("no {line}")).recoverable());
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl Snapshots for Log {
    fn prepare(&mut self) -> Result<(), MediaError> {
        self.note("prepare")
    }
    fn file_info(&mut self, bytes: &[u8]) -> Result<(), MediaError> {
        self.note(&format!("file info {}", String::from_utf8_lossy(bytes)))
    }
    fn take(&mut self) -> Result<(), MediaError> {
        self.note("take")
    }
    fn commit(&mut self) -> Result<(), MediaError> {
        self.note("commit")
    }
    fn mount(&mut self) -> Result<(), MediaError> {
        self.note("mount")
    }
}

struct Only;

impl Snapshots for Only {
    fn take(&mut self) -> Result<(), MediaError> {
        Ok(())
    }
}

/// Metadata that store at most three bytes of a Write, and note it.
struct Metadata(Log);

impl Media for Metadata {
    fn write(&mut self, _position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.0.note(&format!("write {}", String::from_utf8_lossy(data)))?;
        if data.len() <= 3 {
            return Ok(());
        }
        Err(MediaError::condition(CompletionCode::END_OF_MEDIA, "three bytes are enough").with_bytes(3))
    }
    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.0.note("read").map(|()| 0)
    }
    fn flush(&mut self) -> Result<(), MediaError> {
        self.0.note("flush")
    }
    fn complete(&mut self) -> Result<(), MediaError> {
        self.0.note("complete")
    }
    fn other(&mut self, code: CommandCode, _size: i32, _position: u64) -> Result<u64, MediaError> {
        self.0.note(&code.to_string()).map(|()| 7)
    }
    fn close(&mut self) -> Result<(), MediaError> {
        self.0.note("close")
    }
}

fn media(fails: &'static str) -> (SnapshotMedia<Metadata, Log>, Log) {
    let log = Log { fails, ..Log::default() };
    (SnapshotMedia::new(Metadata(log.clone()), log.clone()), log)
}

#[test]
fn the_list_of_files_goes_both_ways_and_the_snapshot_follows_a_flush() {
    let (mut media, log) = media("");
    media.write(0, b"abc").unwrap();
    media.other(CommandCode::PREPARE_TO_FREEZE, 0, 0).unwrap();
    media.other(CommandCode::FILE_INFO_BEGIN, 0, 0).unwrap();
    media.write(0, b"/a").unwrap();
    // What a condition cut short is told as far as it was stored.
    assert_eq!(media.write(0, b"/bcd").unwrap_err().bytes, 3);
    media.clear_error().unwrap();
    media.write(0, b"d").unwrap();
    media.other(CommandCode::FILE_INFO_END, 0, 0).unwrap();
    media.write(0, b"xyz").unwrap();
    media.other(CommandCode::SNAPSHOT, 0, 0).unwrap();
    media.complete().unwrap();
    media.close().unwrap();
    assert_eq!(
        log.lines(),
        [
            "write abc",
            "prepare",
            "write /a",
            "file info /a",
            "write /bcd",
            "file info /bc",
            "write d",
            "file info d",
            "write xyz",
            "flush",
            "take",
            "complete",
            "commit",
            "close"
        ]
    );
}

#[test]
fn a_restore_mounts_and_everything_else_passes_through() {
    let (mut media, log) = media("");
    media.begin(&restore()).unwrap();
    media.read(0, &mut [0; 8]).unwrap();
    assert_eq!(media.other(CommandCode::GET_POSITION, 0, 0).unwrap(), 7);
    media.other(CommandCode::MOUNT_SNAPSHOT, 0, 0).unwrap();
    media.flush().unwrap();
    media.close().unwrap();
    assert_eq!(log.lines(), ["read", "VDC_GetPosition", "mount", "flush", "close"]);
}

#[test]
fn a_failure_is_final_and_nothing_follows_it() {
    for (code, fails) in [
        (CommandCode::PREPARE_TO_FREEZE, "prepare"),
        (CommandCode::SNAPSHOT, "flush"),
        (CommandCode::SNAPSHOT, "take"),
        (CommandCode::MOUNT_SNAPSHOT, "mount"),
        (CommandCode::WRITE, "file info x"),
    ] {
        let (mut media, log) = media(fails);
        let result = if code == CommandCode::WRITE {
            media.other(CommandCode::FILE_INFO_BEGIN, 0, 0).unwrap();
            media.write(0, b"x")
        } else {
            media.other(code, 0, 0).map(drop)
        };
        let error = result.unwrap_err();
        assert!(error.code == CompletionCode::OPERATION_ABORTED && error.is_final(), "{error}");
        assert!(fails != "flush" || !log.lines().contains(&"take".to_owned()));
        log.lines();
        for again in [
            media.write(0, b"x"),
            media.read(0, &mut [0]).map(drop),
            media.flush(),
            media.complete(),
            media.clear_error(),
            media.other(code, 0, 0).map(drop),
            media.close(),
        ] {
            assert!(again.unwrap_err().to_string().contains(&format!("no {fails}")));
        }
        assert!(log.lines().is_empty());
    }
}

/// Without Complete the close commits; a backup without a snapshot is committed, too.
#[test]
fn the_snapshot_is_committed_after_its_metadata_or_the_backup_fails() {
    for (before, end, expected) in [
        (CommandCode::SNAPSHOT, CommandCode::COMPLETE, "complete"),
        (CommandCode::SNAPSHOT, CLOSE, "close"),
        (CommandCode::WRITE, CommandCode::COMPLETE, "complete"),
        (CommandCode::WRITE, CLOSE, "close"),
    ] {
        let (mut media, log) = media("");
        act(&mut media, before).unwrap();
        log.lines();
        act(&mut media, end).unwrap();
        assert_eq!(log.lines(), [expected, "commit"]);

        let (mut media, log) = self::media("commit");
        act(&mut media, before).unwrap();
        let error = act(&mut media, end).unwrap_err();
        assert!(error.is_final() && error.to_string().contains("no commit"), "{error}");
        log.lines();
        assert!(act(&mut media, CommandCode::COMPLETE).is_err() && media.close().is_err() && log.lines().is_empty());

        // What failed before that is not committed.
        let (mut media, log) = self::media(expected);
        act(&mut media, before).unwrap();
        assert!(act(&mut media, end).is_err() && !log.lines().contains(&"commit".to_owned()));
    }
}

#[test]
fn a_snapshot_alone_commits_its_metadata_and_one_without_does_not() {
    let place = Place::new(Some(b"old"));
    let mut media = SnapshotMedia::new(FileMedia::create(&place.target).unwrap(), Only);
    media.begin(&backup(Features::NONE)).unwrap();
    media.write(0, b"new").unwrap();
    assert!(media.close().is_err());
    assert_eq!(place.content().unwrap(), b"old");

    let mut media = SnapshotMedia::new(FileMedia::create(&place.target).unwrap(), Only);
    media.begin(&backup(Features::NONE)).unwrap();
    for code in [CommandCode::PREPARE_TO_FREEZE, CommandCode::FILE_INFO_BEGIN] {
        media.other(code, 0, 0).unwrap();
    }
    media.write(0, b"new").unwrap();
    media.other(CommandCode::SNAPSHOT, 0, 0).unwrap();
    media.close().unwrap();
    assert_eq!(place.content().unwrap(), b"new");

    let (metadata, Only) = SnapshotMedia::new(FileMedia::open(&place.target).unwrap(), Only).into_parts();
    let mut media = SnapshotMedia::new(metadata, Only);
    let error = media.other(CommandCode::MOUNT_SNAPSHOT, 0, 0).unwrap_err();
    assert_eq!(error.code, CompletionCode::NOT_SUPPORTED);
}

/// What the order of a snapshot rules out: each command is refused for good, does nothing, and nothing is committed.
#[test]
fn commands_out_of_order_fail_the_snapshot() {
    use CommandCode as C;
    let cases: [(&[CommandCode], CommandCode, &str); 9] = [
        (&[C::SNAPSHOT], C::SNAPSHOT, "VDC_Snapshot came after the snapshot"),
        (&[C::SNAPSHOT], C::WRITE, "VDC_Write came after the snapshot"),
        (&[C::SNAPSHOT], C::PREPARE_TO_FREEZE, "VDC_PrepareToFreeze came after the snapshot"),
        (&[C::SNAPSHOT], C::FILE_INFO_BEGIN, "VDC_FileInfoBegin came after the snapshot"),
        (&[C::PREPARE_TO_FREEZE], C::COMPLETE, "without the snapshot that had been announced"),
        (&[C::FILE_INFO_BEGIN], C::COMPLETE, "without the snapshot that had been announced"),
        (&[C::PREPARE_TO_FREEZE], CLOSE, "without the snapshot that had been announced"),
        (&[C::FILE_INFO_BEGIN, C::FLUSH], CLOSE, "without the snapshot that had been announced"),
        (&[C::COMPLETE], C::SNAPSHOT, "VDC_Snapshot came after VDC_Complete"),
    ];
    for (before, code, expected) in cases {
        let (mut media, log) = media("");
        for code in before {
            act(&mut media, *code).unwrap();
        }
        log.lines();
        let error = act(&mut media, code).unwrap_err();
        assert!(error.is_final() && error.to_string().contains(expected), "{error}");
        for again in [C::WRITE, C::FLUSH, C::CLEAR_ERROR, C::COMPLETE, CLOSE, C::SNAPSHOT] {
            assert!(act(&mut media, again).unwrap_err().to_string().contains(expected));
        }
        assert!(log.lines().is_empty(), "{before:?} {code}");
    }
}

/// Stands for VD_E_CLOSE.
const CLOSE: CommandCode = CommandCode::new(99);

fn act(media: &mut impl Media, code: CommandCode) -> Result<(), MediaError> {
    match code {
        CommandCode::WRITE => media.write(0, b"x"),
        CommandCode::FLUSH => media.flush(),
        CommandCode::CLEAR_ERROR => media.clear_error(),
        CommandCode::COMPLETE => media.complete(),
        CLOSE => media.close(),
        code => media.other(code, 0, 0).map(drop),
    }
}
