//! Databases with all that is in their files: made, opened, restored, replaced while they are read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use vdi_mtf::sqlserver::log::Vlf;

use super::*;
use crate::storage::log_file;

/// All bytes of a database.
struct Image {
    configuration: Config,
    files: Vec<(FileId, Vec<u8>)>,
    log: Vec<Vlf>,
}

impl Image {
    fn of(folder: &DataFolder, name: &str) -> Image {
        let row = folder.database(name).unwrap().row().clone();
        let files = row.files.iter().map(|file| (file.file_id, fs::read(&file.path).unwrap())).collect();
        let log = row.files.last().unwrap();
        let log = log_file::read_headers(&File::open(&log.path).unwrap(), log).unwrap();
        Image { configuration: row.configuration, files, log }
    }

    fn restore(&self, folder: &DataFolder, name: &str, number: u8) -> Committed {
        let lock = folder.lock(name, Verb::Restore).unwrap();
        let moves: Vec<(String, PathBuf)> = self
            .configuration
            .files
            .iter()
            .map(|file| (file.logical_name.to_string(), format!("{name}-{}", file.file_id).into()))
            .collect();
        let mut configuration = self.configuration.clone();
        configuration.database.kind_letter = b'D';
        configuration.database.next_object = number.into();
        let request = RestoreRequest { name, configuration: &configuration, replace: true, moves: &moves };
        let target = RestoreTarget::create(folder, lock, &request).unwrap();
        for (file, bytes) in &self.files {
            target.write_at(*file, 0, bytes).unwrap();
        }
        let last = self.files[0].1.len() as u64 - 1;
        target.write_at(FileId(1), last, &[number]).unwrap();
        let start = start(number);
        let record = RestoreRecord { database: name, start: &start, configuration: &configuration, replace: true };
        target.commit(&record, &self.log).unwrap()
    }
}

#[test]
fn a_database_is_made_opened_and_restored_under_another_name() {
    let (_directory, folder) = folder();
    folder.create_database(&create("New")).unwrap();
    let image = Image::of(&folder, "New");
    assert!(image.configuration.database.family.0.ends_with(b"vdisim"));
    image.restore(&folder, "Copy", 1);
    let copy = folder.database("copy").unwrap();
    assert!(!copy.row().is_foreign);
    assert_eq!(copy.row().configuration.database.name.to_string(), "Copy");
    assert_eq!(copy.row().configuration.database.full_backup_set, Guid([1; 16]));
    assert_eq!(fs::read(folder.path().join("Copy-3")).unwrap(), image.files[1].1);
    assert_no_litter(&folder);
}

#[test]
fn readers_see_one_database_while_it_is_replaced() {
    let (_directory, folder) = folder();
    folder.create_database(&create("New")).unwrap();
    let image = Image::of(&folder, "New");
    image.restore(&folder, "Copy", 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = || {
            // Another process has a connection of its own.
            let folder = DataFolder::open(folder.path()).unwrap();
            let mut opened = 0;
            while !done.load(Ordering::Relaxed) || opened == 0 {
                let database = folder.database("Copy").unwrap();
                let file = database.file(FileId(1)).unwrap();
                let mut last = [0];
                file.read_exact_at(&mut last, file.metadata().unwrap().len() - 1).unwrap();
                assert_eq!(u32::from(last[0]), database.row().configuration.database.next_object);
                opened += 1;
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for number in 1..=40 {
            assert!(image.restore(&folder, "Copy", number).leftover.is_none());
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_no_litter(&folder);
}
