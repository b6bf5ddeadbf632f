//! RESTORE FROM DISK of backups that servers made, and of made-up ones.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::engine::made_backups::real_backups;
use crate::engine::made_backups::synthetic::{Shape, backup};
use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::Medium;
use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::parser::{Event, Parser};
use vdi_mtf::sqlserver::config::BackupKind;
use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader};
use vdi_mtf::stream::{HEADER_LEN, StreamId};
use vdi_mtf::value::{PageAddress, PageId};

use crate::engine::{Cancel, Engine};
use crate::session::Answer;
use crate::vds::Options;

/// A server with a data folder of its own.
struct Server {
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Server {
        let folder = tempfile::tempdir().unwrap();
        Server { engine: Engine::new(folder.path(), Options::default()).unwrap(), folder }
    }

    /// The numbers of the messages, progress and explanations excepted.
    fn run(&self, sql: &str) -> (Vec<u32>, Answer) {
        let mut answer = Answer::default();
        let _ = self.engine.session().batch(sql, &[], &mut answer, &Cancel::new());
        let numbers = answer.messages.iter().map(|message| message.number);
        (numbers.filter(|number| ![3211, 50000].contains(number)).collect(), answer)
    }

    fn assert_runs(&self, sql: &str) -> Answer {
        let (numbers, answer) = self.run(sql);
        assert!(
            numbers.last() == Some(&3014) && answer.messages.iter().all(|message| !message.is_error()),
            "{numbers:?} {:?}",
            answer.messages
        );
        answer
    }

    /// Names of the files in the folder, the catalog's own excepted.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("catalog."));
        names.sort();
        names
    }
}

fn from_disk(paths: &[&Path]) -> String {
    let devices: Vec<_> = paths.iter().map(|path| format!("DISK = '{}'", path.display())).collect();
    devices.join(", ")
}

fn medium_of(bytes: &[u8]) -> Medium {
    let mut inspector = Inspector::headers_only();
    inspector.read(bytes).unwrap();
    inspector.into_medium()
}

/// The images of all pages of a medium's first set, pass after pass.
fn pages_of(bytes: &[u8]) -> Vec<BTreeMap<PageAddress, Vec<u8>>> {
    let (mut parser, mut rest, mut passes) = (Parser::new(), bytes, Vec::new());
    let (mut extents, mut at, mut is_data) = (ExtentReader::new(0), None, false);
    let mut page = Vec::new();
    while let Some(event) = parser.next(&mut rest).unwrap() {
        match event {
            Event::Stream(stream) => {
                is_data = stream.header.id() == StreamId::DATA && stream.header.len > 0;
                if is_data {
                    extents = ExtentReader::new(stream.offset + HEADER_LEN as u64);
                    passes.push(BTreeMap::new());
                }
            }
            Event::Data(mut data) if is_data => {
                while let Some(event) = extents.next(&mut data).unwrap() {
                    match event {
                        ExtentEvent::Extent(first) => at = first,
                        ExtentEvent::Bytes(bytes) => {
                            let Some(address) = &mut at else { continue };
                            for piece in bytes.chunks(PAGE_LEN) {
                                page.extend_from_slice(piece);
                                while page.len() >= PAGE_LEN {
                                    let image: Vec<u8> = page.drain(..PAGE_LEN).collect();
                                    passes.last_mut().unwrap().insert(*address, image);
                                    address.page = PageId(address.page.0 + 1);
                                }
                            }
                        }
                    }
                }
            }
            Event::SetEnd => break,
            _ => {}
        }
    }
    passes
}

/// The database has the last image of each page of the media.
fn assert_has_pages(server: &Server, name: &str, media: &[&[u8]]) -> usize {
    let database = server.engine.folder().database(name).unwrap();
    let mut expected = BTreeMap::new();
    let passes: Vec<_> = media.iter().map(|bytes| pages_of(bytes)).collect();
    for pass in 0..2 {
        for family in &passes {
            expected.extend(family.get(pass).cloned().unwrap_or_default());
        }
    }
    for (address, image) in &expected {
        let mut found = vec![0; PAGE_LEN];
        database.file(address.file).unwrap().read_exact_at(&mut found, address.file_offset()).unwrap();
        assert!(found == *image, "page {address} of {name}");
    }
    expected.len()
}

#[test]
fn real_full_backups_are_restored_from_disk() {
    let mut media_sets: BTreeMap<_, Vec<crate::engine::made_backups::Real>> = BTreeMap::new();
    for real in real_backups("real_full_backups_are_restored_from_disk") {
        media_sets.entry(medium_of(&real.bytes).media_set.id.0).or_default().push(real);
    }
    let mut restored = 0;
    for mut family in media_sets.into_values() {
        // The families in the wrong order.
        family.reverse();
        let first = medium_of(&family[0].bytes);
        let server = Server::new();
        let paths: Vec<_> = family
            .iter()
            .enumerate()
            .map(|(n, real)| {
                let path = server.folder.path().join(format!("{n}.bak"));
                std::fs::write(&path, &real.bytes).unwrap();
                path
            })
            .collect();
        let devices = from_disk(&paths.iter().map(|path| path.as_path()).collect::<Vec<_>>());
        let names: Vec<_> = family.iter().map(|real| &real.name).collect();
        let (numbers, answer) = server.run(&format!("RESTORE VERIFYONLY FROM {devices}"));
        if usize::from(first.media_set.family_count) != family.len() {
            assert_eq!(numbers, [3132, 3013], "{names:?}");
            continue;
        }
        assert_eq!(numbers, [3262], "{names:?}");
        assert_eq!(answer.done[0].summary, None);
        let config = first.sets[0].config();
        let restore = format!("RESTORE DATABASE [copy] FROM {devices} WITH STATS = 10");
        if config.database.kind() != BackupKind::Full {
            assert_eq!(server.run(&restore).0, [3013], "{names:?}");
            assert!(server.engine.folder().catalog().databases().unwrap().is_empty());
            continue;
        }
        let answer = server.assert_runs(&restore);
        let reported = answer.messages.iter().filter(|message| message.number == 4035).count();
        assert_eq!(reported, config.files.len(), "{names:?}");
        assert_eq!(answer.messages.iter().filter(|message| message.number == 3211).count(), 10, "{names:?}");
        let media: Vec<_> = family.iter().map(|real| real.bytes.as_slice()).collect();
        assert!(assert_has_pages(&server, "copy", &media) > 0);
        crate::storage::content::check(server.engine.folder(), "copy").unwrap();
        // Again over itself.
        let simple = config.database.recovery_model() == vdi_mtf::sqlserver::config::RecoveryModel::Simple;
        let (numbers, _) = server.run(&restore);
        assert_eq!(numbers.first(), Some(if simple { &4035 } else { &3159 }), "{names:?}");
        server.assert_runs(&format!("{restore}, REPLACE"));
        restored += 1;
        assert_eq!(server.engine.folder().catalog().restores(None).unwrap().len(), if simple { 3 } else { 2 });
    }
    println!("{restored} databases were restored");
}

#[test]
fn refusals_of_a_restore_leave_nothing() {
    let server = Server::new();
    let made = backup(&Shape { files: 2, extents: 4, ..Shape::default() });
    let other = backup(&Shape { name: "other".to_owned(), ..Shape::default() });
    let (path, path_of_other) = (server.folder.path().join("a.bak"), server.folder.path().join("o.bak"));
    std::fs::write(&path, &made.media[0]).unwrap();
    let mut bytes = other.media[0].clone();
    // Another database has another family.
    for at in 0..bytes.len() - 16 {
        if bytes[at..at + 16] == [4; 16] {
            bytes[at..at + 16].fill(9);
        }
    }
    std::fs::write(&path_of_other, bytes).unwrap();
    let (a, o) = (from_disk(&[&path]), from_disk(&[&path_of_other]));
    server.assert_runs(&format!("RESTORE DATABASE sales FROM {a}"));
    let files = server.files();
    assert_eq!(assert_has_pages(&server, "sales", &[&made.media[0]]), 64);
    std::fs::write(server.folder.path().join("taken.ldf"), "someone's").unwrap();
    for (sql, expected) in [
        (format!("RESTORE DATABASE sales FROM {o}"), vec![3154, 3013]),
        (format!("RESTORE DATABASE sales FROM {a}"), vec![3159, 3013]),
        (format!("RESTORE DATABASE copy FROM {a}"), vec![1834, 3156, 3119, 3013]),
        (format!("RESTORE DATABASE copy FROM {a} WITH MOVE 'nothing' TO 'x.mdf'"), vec![3234, 3013]),
        (
            format!(
                "RESTORE DATABASE copy FROM {a} WITH MOVE 'sales1' TO 'x.mdf', MOVE 'sales3' TO 'y.ndf', MOVE 'log' TO 'taken.ldf'"
            ),
            vec![5170, 3156, 3119, 3013],
        ),
        (
            format!("RESTORE DATABASE copy FROM {a} WITH MOVE 'sales1' TO 'x.mdf', MOVE 'sales3' TO 'no/y.ndf'"),
            vec![5133, 3156, 3119, 3013],
        ),
        (format!("RESTORE DATABASE copy FROM {a} WITH FILE = 2"), vec![4038, 3013]),
        (format!("RESTORE DATABASE copy FROM {a}, DISK = 'missing.bak'"), vec![3201, 3013]),
        ("RESTORE DATABASE copy FROM DISK = 'missing.bak'".to_owned(), vec![3201, 3013]),
    ] {
        let (numbers, answer) = server.run(&sql);
        assert!(numbers == expected, "{sql}: {:?}", answer.messages);
    }
    std::fs::remove_file(server.folder.path().join("taken.ldf")).unwrap();
    assert_eq!(server.files(), files);
    assert_eq!(server.engine.folder().catalog().databases().unwrap().len(), 1);
    let moves = "MOVE 'sales1' TO 'x.mdf', MOVE 'sales3' TO 'y.ndf', MOVE 'log' TO 'z.ldf'";
    server.assert_runs(&format!("RESTORE DATABASE copy FROM {a} WITH {moves}"));
    assert_has_pages(&server, "copy", &[&made.media[0]]);
    server.assert_runs(&format!("RESTORE DATABASE sales FROM {o} WITH REPLACE"));
}

#[test]
fn a_damaged_backup_is_restored_on_request_only() {
    let server = Server::new();
    let mut bytes = backup(&Shape::default()).media.remove(0);
    let mut inspector = Inspector::new();
    inspector.read(&bytes).unwrap();
    let pages = inspector.medium().sets[0].data[0].offset as usize;
    bytes[pages + 3 * PAGE_LEN + 500] ^= 1;
    let path = server.folder.path().join("a.bak");
    std::fs::write(&path, &bytes).unwrap();
    let device = from_disk(&[&path]);
    assert_eq!(server.run(&format!("RESTORE DATABASE d FROM {device}")).0, [3183, 3013]);
    let (numbers, answer) = server.run(&format!("RESTORE VERIFYONLY FROM {device}"));
    assert_eq!(numbers, [3183, 3013]);
    // The statement names no database: the name is that of the backup.
    assert!(answer.messages[0].text.contains("in database \"sales\" as read"), "{:?}", answer.messages);
    assert_eq!(server.files(), ["a.bak"]);
    let answer = server.assert_runs(&format!("RESTORE DATABASE d FROM {device} WITH CONTINUE_AFTER_ERROR"));
    assert!(answer.messages.iter().any(|message| message.number == 3184));
    assert_eq!(server.run(&format!("RESTORE VERIFYONLY FROM {device} WITH CONTINUE_AFTER_ERROR")).0, [3189, 3013]);
}

/// The remedy of a DISK file that cannot be opened is one for its reason.
#[test]
fn the_remedy_of_a_disk_file_fits_its_reason() {
    let server = Server::new();
    assert!(server.run("CREATE DATABASE sales").0.is_empty());
    for (sql, reason, remedy) in [
        ("BACKUP DATABASE sales TO DISK = 'sales.mdf'", " error 32(", "choose another file"),
        ("BACKUP DATABASE sales TO DISK = 'none/a.bak'", " error 2(", "make its folder"),
        ("RESTORE DATABASE other FROM DISK = 'none.bak'", " error 2(", "a relative path begins at the data folder"),
    ] {
        let (numbers, answer) = server.run(sql);
        assert_eq!(numbers, [3201, 3013], "{sql}");
        let has = |what: &str| answer.messages.iter().any(|message| message.text.contains(what));
        assert!(has(reason) && has(remedy), "{sql}: {:?}", answer.messages);
    }
}

#[test]
fn inspections_answer_with_result_sets() {
    let server = Server::new();
    let path = server.folder.path().join("a.bak");
    std::fs::write(&path, &backup(&Shape::default()).media[0]).unwrap();
    let device = from_disk(&[&path]);
    for (what, columns, rows) in [("LABELONLY", 13, 1), ("HEADERONLY", 59, 1), ("FILELISTONLY", 22, 2)] {
        let (numbers, answer) = server.run(&format!("RESTORE {what} FROM {device}"));
        assert_eq!(numbers, [0; 0], "{what}");
        assert_eq!((answer.results[0].columns.len(), answer.results[0].rows.len()), (columns, rows), "{what}");
        assert_eq!((answer.done[0].rows, answer.done[0].failed), (Some(rows as u64), false), "{what}");
        let (_, answer) = server.run(&format!("RESTORE {what} FROM DISK = 'missing.bak'"));
        let title = if what == "FILELISTONLY" { "FILELIST" } else { what };
        let last = answer.messages.last().unwrap();
        assert_eq!(last.text, format!("RESTORE {title} is terminating abnormally."));
        assert_eq!(
            answer.messages[0].text,
            "Cannot open backup device 'missing.bak'. Operating system error 2(The system cannot find the file specified.)."
        );
    }
}
