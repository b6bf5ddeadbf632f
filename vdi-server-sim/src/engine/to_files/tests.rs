use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::Medium;

use super::*;
use crate::faults::{Fault, Faults};
use crate::session::Answer;
use crate::storage::content;
use crate::vds::Options;

struct Server {
    folder: TempDir,
    engine: Engine,
}

impl Server {
    /// A server with a database `d` of so many bytes.
    fn new(bytes: u64) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(folder.path(), Options::default()).unwrap();
        content::create_sample(engine.folder(), "d", bytes, 7).unwrap();
        Server { folder, engine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a batch: the numbers of its messages.
    fn run(&self, sql: &str) -> Vec<u32> {
        let mut answer = Answer::default();
        let _ = self.engine.session().batch(sql, &[], &mut answer, &Cancel::new());
        answer.messages.iter().map(|message| message.number).filter(|number| ![4035, 50000].contains(number)).collect()
    }

    fn medium(&self, name: &str) -> Medium {
        inspected(&self.path(name))
    }

    /// Names in the folder that are no files of the databases or of the catalog.
    fn others(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("catalog.") && !name.ends_with("df"));
        names.sort();
        names
    }
}

fn inspected(path: &Path) -> Medium {
    let mut inspector = Inspector::new();
    inspector.read(&std::fs::read(path).unwrap()).unwrap();
    inspector.finish().unwrap();
    assert_eq!(inspector.damages(), []);
    inspector.into_medium()
}

/// The files of a database of another name.
const MOVE: &str = "MOVE 'd' TO 'e.mdf', MOVE 'd_1' TO 'e_1.ndf', MOVE 'd_log' TO 'e_log.ldf'";

#[test]
fn a_database_goes_to_files_and_comes_back() {
    for families in [1, 3, 8] {
        for checksum in ["CHECKSUM", "NO_CHECKSUM"] {
            let server = Server::new(3 << 20);
            let devices: Vec<_> = (0..families).map(|at| format!("DISK = '{at}.bak'")).collect();
            let devices = devices.join(", ");
            assert_eq!(server.run(&format!("BACKUP DATABASE d TO {devices} WITH {checksum}")), [3014]);
            for at in 0..families {
                let medium = server.medium(&format!("{at}.bak"));
                assert_eq!((medium.sets.len(), medium.label.filemark_len()), (1, 4096));
                assert_eq!(medium.sets[0].data[0].checksum.is_some(), checksum == "CHECKSUM");
            }
            assert_eq!(server.run(&format!("RESTORE DATABASE e FROM {devices} WITH {MOVE}")), [3014]);
            content::compare(server.engine.folder(), "d", "e").unwrap();
            content::check(server.engine.folder(), "e").unwrap();
            let backups = server.engine.folder().catalog().backups(Some("d")).unwrap();
            assert_eq!((backups.len(), backups[0].devices.len(), backups[0].devices[0].device_type), (1, families, 2));
        }
    }
}

#[test]
fn sets_are_appended_and_each_can_be_restored() {
    let server = Server::new(1 << 20);
    for number in 1..=3 {
        assert_eq!(
            server.run(&format!("BACKUP DATABASE d TO DISK = 'a', DISK = 'b' WITH NAME = 'set {number}'")),
            [3014]
        );
        for name in ["a", "b"] {
            let medium = server.medium(name);
            assert_eq!(medium.sets.len(), number);
            assert_eq!(medium.sets[number - 1].start.name.to_string(), format!("set {number}"));
        }
    }
    assert_eq!(server.run(&format!("RESTORE DATABASE e FROM DISK = 'b', DISK = 'a' WITH FILE = 2, {MOVE}")), [3014]);
    content::check(server.engine.folder(), "e").unwrap();
    // INIT keeps the media set, FORMAT makes another.
    let id = server.medium("a").media_set.id;
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'a', DISK = 'b' WITH INIT"), [3014]);
    let medium = server.medium("a");
    assert_eq!((medium.sets.len(), medium.media_set.id), (1, id));
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'a' WITH FORMAT, BLOCKSIZE = 512"), [3014]);
    let medium = server.medium("a");
    assert!(medium.media_set.id != id && medium.media_set.family_count == 1 && medium.label.filemark_len() == 512);
    assert_eq!(server.others(), ["a", "b"]);
}

/// Refused with SQL Server's numbers, and every file stays as it was.
#[test]
fn media_that_do_not_fit_are_refused() {
    let server = Server::new(1 << 20);
    for sql in [
        "TO DISK = 'one'",
        "TO DISK = 'other'",
        "TO DISK = 'a', DISK = 'b'",
        "TO DISK = 'a', DISK = 'b'",
        "TO DISK = 'c', DISK = 'd'",
    ] {
        assert_eq!(server.run(&format!("BACKUP DATABASE d {sql}")), [3014]);
    }
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'kept' WITH RETAINDAYS = 3"), [3014]);
    std::fs::write(
        server.path("text"),
        "no backup at all, but long enough that its first bytes are taken for a header",
    )
    .unwrap();
    std::fs::write(server.path("hello"), "hello").unwrap();
    std::fs::write(server.path("empty"), "").unwrap();
    let cut = std::fs::read(server.path("one")).unwrap();
    std::fs::write(server.path("cut"), &cut[..cut.len() - 4096]).unwrap();
    std::fs::write(server.path("long"), [&cut, [0; 512].as_slice()].concat()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, server.path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let state = || -> Vec<_> {
        let names = server.others().into_iter().filter(|name| name != "pipe");
        names.map(|name| (crc32fast::hash(&std::fs::read(server.path(&name)).unwrap()), name)).collect()
    };
    let before = state();
    for (devices, options, expected) in [
        ("DISK = 'one', DISK = 'other'", "", 3231),
        ("DISK = 'a'", "", 3132),
        ("DISK = 'a', DISK = 'new'", "", 3132),
        ("DISK = 'a', DISK = 'c'", "", 3258),
        ("DISK = 'a', DISK = './a'", "", 3227),
        ("DISK = 'a', DISK = 'd'", "WITH INIT", 3258),
        ("DISK = 'kept'", "WITH INIT", 4030),
        ("DISK = 'one'", "WITH BLOCKSIZE = 512", 3272),
        ("DISK = 'text'", "", 3241),
        ("DISK = 'text'", "WITH INIT", 3241),
        ("DISK = 'hello'", "", 3241),
        ("DISK = 'cut'", "", 3266),
        ("DISK = 'long'", "", 3266),
        ("DISK = 'pipe'", "", 3201),
        ("DISK = 'pipe'", "WITH FORMAT", 3201),
        ("DISK = 'd.mdf'", "WITH FORMAT", 3201),
        ("DISK = './d_log.ldf'", "WITH FORMAT", 3201),
        ("DISK = 'catalog.sqlite'", "WITH FORMAT", 3201),
        ("DISK = 'none/x'", "", 3201),
    ] {
        let sql = format!("BACKUP DATABASE d TO {devices} {options}");
        assert_eq!(server.run(&sql), [expected, 3013], "{sql}");
        assert_eq!(state(), before, "{sql}");
    }
    // The set before the zeros is shown and sound.
    let mut answer = Answer::default();
    let _ = server.engine.session().batch("RESTORE HEADERONLY FROM DISK = 'long'", &[], &mut answer, &Cancel::new());
    let end = format!("ends at byte {}", cut.len());
    assert!(answer.messages.iter().all(|message| !message.is_error()), "{:?}", answer.messages);
    assert!(answer.messages.iter().any(|message| message.text.contains(&end)), "{:?}", answer.messages);
    assert_eq!(server.run("RESTORE VERIFYONLY FROM DISK = 'long' WITH FILE = 1"), [3262]);
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'kept' WITH INIT, SKIP"), [3014]);
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'text' WITH FORMAT"), [3014]);
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'empty'"), [3014]);
    assert_eq!(server.medium("empty").sets.len(), 1);
}

/// A failure while the file is written leaves the old one, and nothing else.
#[test]
fn a_failed_backup_leaves_the_old_medium() {
    let mut server = Server::new(3 << 20);
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'a'"), [3014]);
    let before = std::fs::read(server.path("a")).unwrap();
    server.engine = server.engine.with_faults(Faults::default().with(Fault::ReadError { read: 3 }));
    for (device, options) in [("a", ""), ("a", "WITH INIT"), ("a", "WITH FORMAT"), ("b", "")] {
        let sql = format!("BACKUP DATABASE d TO DISK = '{device}' {options}");
        assert_eq!(server.run(&sql), [3203, 3013], "{sql}");
        assert!(std::fs::read(server.path("a")).unwrap() == before);
        assert_eq!(server.others(), ["a"]);
    }
}

#[test]
fn a_cancelled_backup_leaves_nothing() {
    let server = Server::new(1 << 20);
    let cancel = Cancel::new();
    cancel.cancel();
    let mut answer = Answer::default();
    let _ = server.engine.session().batch("BACKUP DATABASE d TO DISK = 'a'", &[], &mut answer, &cancel);
    assert_eq!(answer.messages[0].number, 3204);
    assert_eq!(server.others(), Vec::<String>::new());
}

/// WITH CHECKSUM a damaged page ends the backup, or is passed over; without, no page is looked at.
#[test]
fn damaged_pages_are_found() {
    let server = Server::new(1 << 20);
    let file = server.path("d.mdf");
    let mut bytes = std::fs::read(&file).unwrap();
    let page = (8..).find(|page| bytes[page * 8192 + 1] == 1).unwrap();
    bytes[page * 8192 + 5000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'a' WITH CHECKSUM"), [3043, 3013]);
    assert_eq!(server.others(), Vec::<String>::new());
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'a' WITH CHECKSUM, CONTINUE_AFTER_ERROR"), [3042, 3014]);
    let mut inspector = Inspector::new();
    inspector.read(&std::fs::read(server.path("a")).unwrap()).unwrap();
    let [vdi_mtf::Error::PageChecksum { page: found, .. }] = inspector.damages() else {
        panic!("{:?}", inspector.damages())
    };
    assert_eq!(found.page.0 as usize, page);
    let flags = inspector.medium().sets[0].config().database.flags;
    assert_ne!(flags & vdi_mtf::sqlserver::config::database_flags::DAMAGED, 0);
    assert_eq!(server.run("BACKUP DATABASE d TO DISK = 'b'"), [3014]);
}
