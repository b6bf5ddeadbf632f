//! Kinds of devices: backup and restore over each, with the ready-made media, against `vdi-sim sql` in a process of its own.

use crate::common;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::bench::{Bench, names};
use common::client::{backup_statement, config, copy_statement, stripe};
use common::processes::Outcome;
use vdi_client::media::{FileMedia, Media, MediaError, StreamMedia, TapeImage, VolumeSet};
use vdi_client::{CommandCode, Error, Features, VdConfig, VdError};

const DISK: Features = Features::RANDOM_ACCESS;
const REMOVABLE_DISK: Features = Features::from_bits_retain(0x201);
const TAPE: Features = Features::TAPE;
const PIPE: Features = Features::NONE;
const REMOVABLE_PIPE: Features = Features::REMOVABLE;

fn asked(features: Features, devices: u32) -> VdConfig {
    let eom_warning_size = if features.contains(Features::REMOVABLE) { 256 * 1024 } else { 0 };
    VdConfig { features: features | Features::REQUEST_COMPLETE, eom_warning_size, ..config(devices) }
}

/// A command as a medium sees it: code, size, position.
type Seen = (CommandCode, i32, u64);

/// Everything that came to a device's media.
type Log = Arc<Mutex<Vec<Seen>>>;

/// A medium that keeps a log of what comes to another one.
struct Logged {
    inner: Box<dyn Media>,
    log: Log,
}

impl Logged {
    fn log(&self, code: CommandCode, size: usize, position: u64) {
        self.log.lock().unwrap().push((code, size as i32, position));
    }
}

impl Media for Logged {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.inner.begin(config)
    }
    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.log(CommandCode::WRITE, data.len(), position);
        self.inner.write(position, data)
    }
    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.log(CommandCode::READ, buffer.len(), position);
        self.inner.read(position, buffer)
    }
    fn flush(&mut self) -> Result<(), MediaError> {
        self.log(CommandCode::FLUSH, 0, 0);
        self.inner.flush()
    }
    fn complete(&mut self) -> Result<(), MediaError> {
        self.log(CommandCode::COMPLETE, 0, 0);
        self.inner.complete()
    }
    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.log(CommandCode::CLEAR_ERROR, 0, 0);
        self.inner.clear_error()
    }
    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        self.log.lock().unwrap().push((code, size, position));
        self.inner.other(code, size, position)
    }
    fn close(&mut self) -> Result<(), MediaError> {
        self.inner.close()
    }
}

/// What a statement came to, what the client's side came to, and what each device saw.
struct Run {
    outcome: Outcome,
    client: Result<(), Error>,
    logs: Vec<Vec<Seen>>,
}

impl Run {
    #[track_caller]
    fn assert_good(&self) -> &Run {
        self.outcome.assert_success();
        assert!(self.client.is_ok(), "{:?}", self.client);
        self
    }

    /// Both sides failed, the statement with these texts.
    #[track_caller]
    fn assert_failed(&self, texts: &[&str]) -> String {
        self.outcome.assert_failure(texts);
        self.client.as_ref().expect_err("the client's side fails too").to_string()
    }

    /// The first device's commands without the transfers, each with its size where that means something.
    fn plain(&self) -> Vec<(CommandCode, i32)> {
        let other = self.logs[0].iter().filter(|(code, ..)| !code.is_transfer());
        other.map(|(code, size, _)| (*code, *size)).collect()
    }
}

fn run<M: Media + 'static>(
    bench: &Bench,
    statement: &str,
    asked: &VdConfig,
    media: impl Fn(u32) -> Result<M, MediaError> + Send + 'static,
) -> Run {
    let logs: Vec<Log> = (0..asked.device_count).map(|_| Log::default()).collect();
    let kept = logs.clone();
    let agent = bench.agent("nightly", asked, move |index| {
        let log = Arc::clone(&kept[index as usize]);
        media(index).map(|inner| Logged { inner: Box::new(inner), log })
    });
    let outcome = bench.sql(statement).outcome();
    let client = agent.result().map(drop);
    let logs = logs.iter().map(|log| log.lock().unwrap().clone()).collect();
    Run { outcome, client, logs }
}

/// Where the media of a kind are kept, and how large each is.
#[derive(Debug, Clone, Copy)]
enum MediaKind {
    Files,
    Tapes,
    Volumes(u64),
}

impl MediaKind {
    fn create(self, path: &std::path::Path) -> Result<Box<dyn Media>, MediaError> {
        Ok(match self {
            MediaKind::Files => Box::new(FileMedia::create(path)?),
            MediaKind::Tapes => Box::new(TapeImage::create(path)?),
            MediaKind::Volumes(capacity) => Box::new(VolumeSet::create(path, capacity)?),
        })
    }

    fn open(self, path: &std::path::Path) -> Result<Box<dyn Media>, MediaError> {
        Ok(match self {
            MediaKind::Files => Box::new(FileMedia::open(path)?),
            MediaKind::Tapes => Box::new(TapeImage::open(path)?),
            MediaKind::Volumes(_) => Box::new(VolumeSet::open(path)?),
        })
    }
}

fn backup(bench: &Bench, asked: &VdConfig, kept: MediaKind, options: &str) -> Run {
    let out = bench.out();
    let statement = backup_statement("sales", "nightly", asked.device_count, options);
    run(bench, &statement, asked, move |index| kept.create(&stripe(&out, index)))
}

fn restore(bench: &Bench, asked: &VdConfig, kept: MediaKind, options: &str) -> Run {
    let out = bench.out();
    let options = if options.is_empty() { "REPLACE".to_owned() } else { format!("REPLACE, {options}") };
    let statement = copy_statement("sales", "copy", "nightly", asked.device_count, &options);
    run(bench, &statement, asked, move |index| kept.open(&stripe(&out, index)))
}

/// Every command is one that the features allow.
#[track_caller]
fn assert_allowed(run: &Run, asked: &VdConfig, direction: Features) {
    let complete = if direction == Features::WRITE_MEDIA { Features::COMPLETE_ENABLED } else { Features::NONE };
    for (code, ..) in run.logs.iter().flatten() {
        assert!(code.is_allowed(asked.features | direction | complete), "{code} with {}", asked.features);
    }
}

/// A backup and a restore with these; the copy is identical.
#[track_caller]
fn cycle(features: Features, kept: MediaKind, devices: u32, bytes: u64, options: [&str; 2]) -> (Run, Run, Bench) {
    let bench = Bench::new();
    bench.database("sales", bytes);
    let asked = asked(features, devices);
    let written = backup(&bench, &asked, kept, options[0]);
    written.assert_good();
    assert_allowed(&written, &asked, Features::WRITE_MEDIA);
    let read = restore(&bench, &asked, kept, options[1]);
    read.assert_good();
    assert_allowed(&read, &asked, Features::READ_MEDIA);
    bench.assert_identical("sales", "copy");
    (written, read, bench)
}

/// The codes of the first device's commands, where several of the same follow each other only one.
fn outline(run: &Run) -> Vec<CommandCode> {
    let mut codes: Vec<_> = run.logs[0].iter().map(|(code, ..)| *code).collect();
    codes.dedup();
    codes
}

#[test]
fn a_tape_gets_marks_and_is_read_by_them() {
    use CommandCode as C;
    let (written, read, _bench) = cycle(TAPE, MediaKind::Tapes, 1, 1_000_000, [""; 2]);
    assert_eq!(
        outline(&written),
        [C::REWIND, C::WRITE, C::WRITE_MARK, C::WRITE, C::WRITE_MARK, C::WRITE, C::WRITE_MARK, C::FLUSH, C::COMPLETE]
    );
    // The header; the catalog to its mark; a look at the end, and back; the data to its mark; the end.
    let data = read.plain().iter().find(|(code, _)| *code == C::SET_POSITION).copied();
    assert_eq!(data, Some((C::SET_POSITION, 0)));
    assert_eq!(
        outline(&read),
        [
            C::REWIND,
            C::READ,
            C::REWIND,
            C::READ,
            C::CLEAR_ERROR,
            C::GET_POSITION,
            C::SKIP_MARKS,
            C::GET_POSITION,
            C::READ,
            C::SKIP_BLOCKS,
            C::GET_POSITION,
            C::SKIP_MARKS,
            C::SET_POSITION,
            C::READ,
            C::CLEAR_ERROR,
            C::READ
        ]
    );
    let skips: Vec<_> =
        read.plain().into_iter().filter(|(code, _)| [C::SKIP_MARKS, C::SKIP_BLOCKS].contains(code)).collect();
    assert_eq!(skips, [(C::SKIP_MARKS, 1), (C::SKIP_BLOCKS, -1), (C::SKIP_MARKS, -1)]);
}

#[test]
fn tapes_come_back_over_several_devices_and_with_all_sizes() {
    cycle(TAPE, MediaKind::Tapes, 4, 1_000_000, [""; 2]);
    cycle(TAPE, MediaKind::Tapes, 2, 1_000_000, ["BLOCKSIZE = 65536", "BLOCKSIZE = 65536"]);
    cycle(TAPE, MediaKind::Tapes, 1, 3_000_000, ["MAXTRANSFERSIZE = 1048576, BLOCKSIZE = 4096", "BLOCKSIZE = 4096"]);
    cycle(TAPE, MediaKind::Tapes, 1, 700_000, ["BUFFERCOUNT = 1", "MAXTRANSFERSIZE = 4194304"]);
}

#[test]
fn a_disk_is_written_by_positions_and_its_header_is_read_first() {
    use CommandCode as C;
    let (written, read, _bench) = cycle(DISK, MediaKind::Files, 1, 1_000_000, [""; 2]);
    assert_eq!(outline(&written), [C::SET_POSITION, C::WRITE, C::FLUSH, C::COMPLETE]);
    let mut end = 0;
    for (_, size, position) in written.logs[0].iter().filter(|(code, ..)| *code == C::WRITE) {
        assert_eq!(*position, end);
        end += *size as u64;
    }
    assert_eq!(outline(&read), [C::SET_POSITION, C::GET_POSITION, C::SET_POSITION, C::READ]);
    let reads: Vec<_> = read.logs[0].iter().filter(|(code, ..)| *code == C::READ).collect();
    // Its header alone, then all from the beginning.
    assert_eq!((reads[0].1, reads[0].2), (512, 0));
    for (number, (_, _, position)) in reads[1..].iter().enumerate() {
        assert_eq!(*position, 65536 * number as u64);
    }
}

#[test]
fn disks_come_back_over_several_devices_and_with_all_sizes() {
    cycle(DISK, MediaKind::Files, 4, 1_000_000, [""; 2]);
    cycle(DISK, MediaKind::Files, 2, 1_000_000, ["BLOCKSIZE = 65536", "BLOCKSIZE = 65536"]);
    cycle(DISK, MediaKind::Files, 1, 3_000_000, ["MAXTRANSFERSIZE = 1048576, BLOCKSIZE = 4096", "BLOCKSIZE = 4096"]);
    cycle(DISK, MediaKind::Files, 1, 700_000, ["BUFFERCOUNT = 1", "MAXTRANSFERSIZE = 4194304"]);
}

/// What is on a disk's medium is the same stream that a pipe gets.
#[test]
fn a_backup_to_a_disk_restores_over_a_pipe_and_the_reverse() {
    let bench = Bench::new();
    bench.database("sales", 500_000);
    for (first, second) in [(DISK, PIPE), (PIPE, DISK)] {
        backup(&bench, &asked(first, 2), MediaKind::Files, "").assert_good();
        restore(&bench, &asked(second, 2), MediaKind::Files, "").assert_good();
        bench.assert_identical("sales", "copy");
    }
}

#[test]
fn removable_devices_change_their_media() {
    for features in [REMOVABLE_PIPE, REMOVABLE_DISK, TAPE] {
        for devices in [1, 3] {
            let (written, read, bench) = cycle(features, MediaKind::Volumes(600_000), devices, 3_000_000, [""; 2]);
            for run in [&written, &read] {
                for log in &run.logs {
                    let loads: Vec<_> =
                        log.iter().filter(|(code, ..)| *code == CommandCode::LOAD).map(|(_, size, _)| *size).collect();
                    let expected: Vec<_> = (2..).take(loads.len()).collect();
                    assert_eq!(loads, expected, "{features}");
                    // Which device gets how much is nobody's promise.
                    assert!(devices > 1 || loads.len() >= 4, "{features}: {loads:?}");
                }
            }
            let media = names(&stripe(&bench.out(), 0));
            assert!(media.contains(&"medium-001".to_owned()), "{media:?}");
        }
    }
}

#[test]
fn all_the_data_may_be_on_one_medium_of_a_removable_device() {
    for features in [REMOVABLE_PIPE, REMOVABLE_DISK, TAPE] {
        let (written, read, bench) = cycle(features, MediaKind::Volumes(100_000_000), 1, 500_000, [""; 2]);
        for run in [written, read] {
            assert!(run.logs[0].iter().all(|(code, ..)| *code != CommandCode::LOAD));
        }
        assert_eq!(names(&stripe(&bench.out(), 0)), ["medium-001"]);
    }
}

/// Pipes that are put together from media restore over one that is not removable.
#[test]
fn media_of_a_pipe_put_together_are_the_backup() {
    let bench = Bench::new();
    bench.database("sales", 2_000_000);
    backup(&bench, &asked(REMOVABLE_PIPE, 1), MediaKind::Volumes(600_000), "").assert_good();
    let folder = stripe(&bench.out(), 0);
    let whole: Vec<u8> = names(&folder).iter().flat_map(|name| fs::read(folder.join(name)).unwrap()).collect();
    let source = whole.clone();
    let statement = copy_statement("sales", "copy", "nightly", 1, "");
    run(&bench, &statement, &asked(PIPE, 1), move |_| Ok(StreamMedia::source(std::io::Cursor::new(source.clone()))))
        .assert_good();
    bench.assert_identical("sales", "copy");
}

#[test]
fn a_medium_that_is_missing_fails_both_sides() {
    for features in [REMOVABLE_PIPE, REMOVABLE_DISK, TAPE] {
        let bench = Bench::new();
        bench.database("sales", 2_000_000);
        let asked = asked(features, 1);
        backup(&bench, &asked, MediaKind::Volumes(600_000), "").assert_good();
        let folder = stripe(&bench.out(), 0);
        let last = names(&folder).pop().unwrap();
        fs::remove_file(folder.join(&last)).unwrap();
        let client = restore(&bench, &asked, MediaKind::Volumes(0), "").assert_failed(&["Msg 3271,", "load on device"]);
        let number = last.rsplit('-').next().unwrap().trim_start_matches('0');
        assert!(client.contains(&format!("medium {number} of ")) && client.contains("cannot be loaded"), "{client}");
        bench.assert_databases(&["sales"]);
    }
}

/// A set of another kind than the media can serve: both sides say so, and nothing is written.
#[test]
fn media_of_another_kind_than_the_set_fail_both_sides() {
    let bench = Bench::new();
    bench.database("sales", 500_000);
    for (features, kept) in [
        (PIPE, MediaKind::Tapes),
        (DISK, MediaKind::Tapes),
        (TAPE, MediaKind::Files),
        (PIPE, MediaKind::Volumes(600_000)),
    ] {
        let client = backup(&bench, &asked(features, 1), kept, "").assert_failed(&["50("]);
        assert!(client.contains("is not supported by this medium"), "{client}");
        bench.assert_output(&[]);
    }
}

/// Combinations of features that make up no kind of device are refused when the set is created, so no server ever sees them.
#[test]
fn features_that_make_up_no_kind_are_refused_at_once() {
    let bench = Bench::new();
    let set = vdi_client::ClientVirtualDeviceSet::with_options(bench.options());
    for bits in [0x2, 0x100, 0x173 | 0x200, 0x202, 0x171, 0x1000] {
        let error = set.create("nightly", &asked(Features::from_bits_retain(bits), 1)).unwrap_err();
        assert_eq!(error.code(), VdError::NotSupported, "{bits:#x}");
        assert!(error.to_string().contains("none of the supported device kinds"), "{error}");
    }
}

/// Damage on any medium, in any kind of image, is found.
#[test]
fn a_damaged_medium_fails_the_restore() {
    for (features, kept, file) in [
        (TAPE, MediaKind::Tapes, None),
        (DISK, MediaKind::Files, None),
        (TAPE, MediaKind::Volumes(600_000), Some("medium-002")),
        (REMOVABLE_DISK, MediaKind::Volumes(600_000), Some("medium-002")),
    ] {
        let bench = Bench::new();
        bench.database("sales", 2_000_000);
        let asked = asked(features, 1);
        backup(&bench, &asked, kept, "").assert_good();
        let mut path = stripe(&bench.out(), 0);
        path.extend(file);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 2 + 100;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        // A page says by its checksum that it is damaged.
        restore(&bench, &asked, kept, "").assert_failed(&["Msg 3183,"]);
        bench.assert_databases(&["sales"]);
    }
}

/// A file that is not opened before its device is served, so that another device may be done already.
struct Late {
    path: PathBuf,
    opened: Option<FileMedia>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Late {
    fn file(&mut self) -> &mut FileMedia {
        self.opened.as_mut().unwrap()
    }
}

impl Media for Late {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        let refused = |error: &MediaError| self.refused.lock().unwrap().push(error.to_string());
        self.opened.insert(FileMedia::create(&self.path).inspect_err(refused)?).begin(config)
    }
    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.file().write(position, data)
    }
    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.file().read(position, buffer)
    }
    fn flush(&mut self) -> Result<(), MediaError> {
        self.file().flush()
    }
    fn complete(&mut self) -> Result<(), MediaError> {
        self.file().complete()
    }
    fn close(&mut self) -> Result<(), MediaError> {
        self.file().close()
    }
}

#[test]
fn two_devices_with_one_file_fail_the_backup() {
    for _ in 0..10 {
        let bench = Bench::new();
        bench.database("db", 1 << 20);
        let (path, refusals) = (stripe(&bench.out(), 0), Arc::<Mutex<Vec<String>>>::default());
        let refused = Arc::clone(&refusals);
        let agent = bench.agent("stripes", &config(2), move |_| {
            Ok(Late { path: path.clone(), opened: None, refused: Arc::clone(&refused) })
        });
        bench.sql(&backup_statement("db", "stripes", 2, "")).outcome().assert_failure(&[]);
        assert!(agent.result().is_err());
        let refusals = refusals.lock().unwrap();
        assert!(
            refusals.len() == 1 && refusals[0].contains("stripe-00 is being written by another backup"),
            "{refusals:?}"
        );
    }
}
