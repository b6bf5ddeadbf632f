//! Volume sets: what goes where, and that the whole set is committed or nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;

use super::*;

const BLOCK: usize = 512;
const PIPE: Features = Features::REMOVABLE;

fn disk() -> Features {
    Features::REMOVABLE | Features::RANDOM_ACCESS
}

fn config(features: Features, zone: u32) -> VdConfig {
    VdConfig { block_size: BLOCK as u32, eom_warning_size: zone, features, ..VdConfig::default() }
}

struct Sets {
    place: Place,
    target: PathBuf,
}

impl Sets {
    fn new() -> Sets {
        let place = Place::new(None);
        let target = place.directory.path().join("sales");
        Sets { place, target }
    }

    fn create(&self, kind: Features, blocks: usize, zone: usize) -> VolumeSet {
        self.create_as(kind, blocks, zone, Naming::Unnamed)
    }

    fn create_as(&self, kind: Features, blocks: usize, zone: usize, naming: Naming) -> VolumeSet {
        let mut set = VolumeSet::create_as(&self.target, (blocks * BLOCK) as u64, naming).unwrap();
        let features = kind | Features::WRITE_MEDIA | Features::COMPLETE_ENABLED | Features::DISCARD;
        set.begin(&config(features, (zone * BLOCK) as u32)).unwrap();
        set
    }

    fn open(&self, kind: Features) -> VolumeSet {
        let mut set = VolumeSet::open(&self.target).unwrap();
        set.begin(&config(kind | Features::READ_MEDIA, 0)).unwrap();
        set
    }

    /// The sizes of the media in blocks.
    fn sizes(&self) -> Vec<usize> {
        names(&self.target).iter().map(|name| fs::read(self.target.join(name)).unwrap().len() / BLOCK).collect()
    }

    /// A committed set of two media with these bytes.
    fn old(&self, byte: u8) {
        let mut set = self.create(PIPE, 2, 0);
        set.write(0, &[byte; BLOCK]).unwrap();
        load(&mut set, 2);
        set.write(0, &[byte; BLOCK]).unwrap();
        set.complete().unwrap();
    }
}

fn load(set: &mut VolumeSet, number: i32) {
    set.other(CommandCode::LOAD, number, 0).unwrap();
}

fn refused(set: &mut VolumeSet, data: usize) -> (CompletionCode, usize, bool) {
    let error = set.write(0, &vec![1; data * BLOCK]).unwrap_err();
    (error.code, error.bytes as usize / BLOCK, error.is_final())
}

#[test]
fn a_write_that_ends_in_the_warning_zone_is_stored_and_says_so() {
    let sets = Sets::new();
    let mut set = sets.create(PIPE, 10, 4);
    set.write(0, &[1; 6 * BLOCK]).unwrap();
    assert_eq!(refused(&mut set, 2), (CompletionCode::END_OF_MEDIA, 2, false));
    set.clear_error().unwrap();
    // What is on its way still fits.
    assert_eq!(refused(&mut set, 2), (CompletionCode::END_OF_MEDIA, 2, false));
    set.clear_error().unwrap();
    load(&mut set, 2);
    assert_eq!(set.medium(), Some(2));
    set.write(0, &[1; BLOCK]).unwrap();
    assert_eq!(set.bytes(), 11 * BLOCK as u64);
    set.complete().unwrap();
    assert_eq!(sets.sizes(), [10, 1]);
    assert_eq!(set.medium(), None);
}

#[test]
fn a_write_that_does_not_fit_is_stored_in_part_and_then_not_at_all() {
    let sets = Sets::new();
    let mut set = sets.create(PIPE, 10, 0);
    set.write(0, &[1; 8 * BLOCK]).unwrap();
    assert_eq!(refused(&mut set, 5), (CompletionCode::END_OF_MEDIA, 2, false));
    assert_eq!(refused(&mut set, 3), (CompletionCode::EOM_OVERFLOW, 0, true));
    assert!(set.clear_error().is_err() && set.complete().is_err());
    assert!(sets.place.names().is_empty());
}

#[test]
fn capacities_that_are_no_multiple_of_the_block_size_are_used_in_whole_blocks() {
    let sets = Sets::new();
    let mut set = VolumeSet::create(&sets.target, 1000).unwrap();
    set.begin(&config(PIPE | Features::WRITE_MEDIA | Features::COMPLETE_ENABLED, 0)).unwrap();
    assert_eq!(refused(&mut set, 2), (CompletionCode::END_OF_MEDIA, 1, false));
}

#[test]
fn loads_out_of_turn_are_refused() {
    for wrong in [0, 1, 3, -1, i32::MIN, i32::MAX] {
        let sets = Sets::new();
        let mut set = sets.create(PIPE, 10, 0);
        let error = set.other(CommandCode::LOAD, wrong, 0).unwrap_err();
        assert!(error.to_string().contains("the next medium, which is 2") && error.is_final(), "{error}");
        assert!(set.complete().is_err());
    }
    let sets = Sets::new();
    sets.old(1);
    for wrong in [0, 3, -1] {
        let error = sets.open(PIPE).other(CommandCode::LOAD, wrong, 0).unwrap_err();
        assert!(error.to_string().contains(&format!("medium {wrong} of")), "{error}");
        assert!(error.to_string().contains("the set has media 1 to 2"), "{error}");
    }
}

#[test]
fn a_restore_loads_what_it_wants() {
    let sets = Sets::new();
    let mut set = sets.create(PIPE, 2, 0);
    // Full to the last byte.
    assert_eq!(refused(&mut set, 2), (CompletionCode::END_OF_MEDIA, 2, false));
    load(&mut set, 2);
    set.write(0, &[2; BLOCK]).unwrap();
    set.complete().unwrap();

    let mut set = sets.open(PIPE);
    let mut buffer = [0; 3 * BLOCK];
    assert_eq!(set.read(0, &mut buffer).unwrap(), 2 * BLOCK);
    assert_eq!(set.read(0, &mut buffer).unwrap(), 0);
    load(&mut set, 2);
    assert_eq!(set.read(0, &mut buffer).unwrap(), BLOCK);
    assert_eq!(buffer[0], 2);
    load(&mut set, 1);
    assert_eq!(set.read(0, &mut buffer[..BLOCK]).unwrap(), BLOCK);
    assert_eq!(buffer[0], 1);
    assert_eq!(set.bytes(), 4 * BLOCK as u64);
    assert_eq!(set.write(0, &[0; BLOCK]).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    set.close().unwrap();
}

#[test]
fn disk_like_media_have_positions_of_their_own() {
    let sets = Sets::new();
    let mut set = sets.create(disk(), 4, 0);
    set.write(0, &[1; 3 * BLOCK]).unwrap();
    let error = set.write(3 * BLOCK as u64, &[2; 2 * BLOCK]).unwrap_err();
    assert_eq!((error.code, error.bytes as usize), (CompletionCode::END_OF_MEDIA, BLOCK));
    // The header of the first medium is written anew, and read.
    set.write(0, &[3; BLOCK]).unwrap();
    let mut buffer = [0; BLOCK];
    assert_eq!(set.read(0, &mut buffer).unwrap(), BLOCK);
    assert_eq!(buffer, [3; BLOCK]);
    assert_eq!(set.write(u64::MAX, &[1; BLOCK]).unwrap_err().code, CompletionCode::EOM_OVERFLOW);

    let mut set = sets.create(disk(), 4, 0);
    assert_eq!(refused(&mut set, 4), (CompletionCode::END_OF_MEDIA, 4, false));
    load(&mut set, 2);
    assert_eq!(set.other(CommandCode::GET_POSITION, 0, 0).unwrap(), 0);
    set.write(0, &[2; BLOCK]).unwrap();
    assert_eq!(set.other(CommandCode::SET_POSITION, 2, 0).unwrap(), BLOCK as u64);
    set.complete().unwrap();
    assert_eq!(sets.sizes(), [4, 1]);
}

#[test]
fn tapes_keep_their_marks_on_each_medium() {
    let sets = Sets::new();
    let mut set = sets.create(Features::TAPE, 4, 2);
    set.write(0, &[1; BLOCK]).unwrap();
    set.other(CommandCode::WRITE_MARK, 0, 0).unwrap();
    assert_eq!(refused(&mut set, 2), (CompletionCode::END_OF_MEDIA, 2, false));
    // Going back makes room again.
    for (position, data, stored) in [(2, 3, 3), (3, 1, 1)] {
        set.other(CommandCode::SET_POSITION, 0, position).unwrap();
        assert_eq!(refused(&mut set, data), (CompletionCode::END_OF_MEDIA, stored, false));
    }
    assert_eq!(refused(&mut set, 2), (CompletionCode::END_OF_MEDIA, 1, false));
    set.other(CommandCode::WRITE_MARK, 0, 0).unwrap();
    load(&mut set, 2);
    set.write(0, &[2; BLOCK]).unwrap();
    set.complete().unwrap();

    let mut set = sets.open(Features::TAPE);
    let mut buffer = [0; 9 * BLOCK];
    for (bytes, code) in [
        (1, CompletionCode::FILEMARK_DETECTED),
        (3, CompletionCode::FILEMARK_DETECTED),
        (0, CompletionCode::NO_DATA_DETECTED),
    ] {
        let error = set.read(0, &mut buffer).unwrap_err();
        assert_eq!((error.bytes as usize, error.code), (bytes * BLOCK, code));
    }
    load(&mut set, 2);
    assert_eq!(set.other(CommandCode::GET_POSITION, 0, 0).unwrap(), 0);
    assert_eq!(set.read(0, &mut buffer).unwrap_err().bytes as usize, BLOCK);
    // Each is an image of its own.
    TapeImage::open(sets.target.join("medium-001")).unwrap();
    fs::write(sets.target.join("medium-002"), b"x").unwrap();
    let error = sets.open(Features::TAPE).other(CommandCode::LOAD, 2, 0).unwrap_err();
    assert!(error.to_string().contains("medium-002 is no whole tape image"), "{error}");
}

#[test]
fn the_set_is_committed_whole_and_in_one_step() {
    for naming in NAMINGS {
        for replaces in [false, true] {
            let sets = Sets::new();
            if replaces {
                sets.old(9);
            }
            let before = replaces.then(|| fs::metadata(&sets.target).unwrap().ino());
            let mut set = sets.create_as(PIPE, 2, 0, naming);
            set.write(0, &[1; BLOCK]).unwrap();
            trace();
            load(&mut set, 2);
            assert_eq!(trace(), [Step::SyncFile, Step::AddFile]);
            set.write(0, &[2; BLOCK]).unwrap();
            set.flush().unwrap();
            assert_eq!(fs::metadata(&sets.target).ok().map(|found| found.ino()), before);
            trace();
            set.complete().unwrap();
            let mut steps = vec![Step::SyncFile; 2];
            if naming == Naming::Unnamed {
                steps.extend([Step::Stage, Step::Link, Step::Link]);
            }
            steps.extend([Step::SyncStage, Step::Rename, Step::SyncDirectory]);
            // The old directory's two media, and itself; a new directory that took its name has nothing to be removed.
            steps.extend(if replaces { vec![Step::Remove; 3] } else { vec![Step::Remove] });
            assert_eq!(trace(), steps);
            assert_eq!(sets.place.names(), ["sales"]);
            assert_eq!(names(&sets.target), ["medium-001", "medium-002"]);
            assert_eq!(fs::read(sets.target.join("medium-002")).unwrap(), [2; BLOCK]);
            set.complete().unwrap();
            set.close().unwrap();
        }
    }
}

#[test]
fn a_failure_of_any_step_keeps_the_old_set() {
    for naming in NAMINGS {
        for replaces in [false, true] {
            for step in [
                Step::Write,
                Step::AddFile,
                Step::SyncFile,
                Step::Stage,
                Step::Link,
                Step::SyncStage,
                Step::Rename,
                Step::SyncDirectory,
            ] {
                if naming == Naming::Hidden && matches!(step, Step::Stage | Step::Link) {
                    continue;
                }
                let sets = Sets::new();
                if replaces {
                    sets.old(9);
                }
                let before = sets.place.names();
                let mut set = sets.create_as(PIPE, 3, 0, naming);
                set.write(0, &[1; BLOCK]).unwrap();
                let error = failing(step, || match step {
                    Step::Write => set.write(0, &[1; BLOCK]),
                    Step::AddFile => set.other(CommandCode::LOAD, 2, 0).map(drop),
                    Step::SyncFile => set.flush(),
                    _ => set.complete(),
                })
                .unwrap_err();
                assert!(error.is_final() && error.to_string().contains("os error 5"), "{error}");
                assert!(set.complete().is_err() && set.close().is_err() && set.clear_error().is_err());
                drop(set);
                if step == Step::SyncDirectory {
                    // The new one is there, and the old one as well: a crash could bring it back.
                    assert_eq!(sets.sizes(), [1]);
                    assert_eq!(sets.place.names().len(), 1 + usize::from(replaces));
                    assert!(error.to_string().contains("the new data is in its place"), "{error}");
                    continue;
                }
                assert_eq!(sets.place.names(), before, "{step:?}");
                if replaces {
                    assert_eq!(fs::read(sets.target.join("medium-002")).unwrap(), [9; BLOCK]);
                }
            }
        }
    }
}

#[test]
fn dropped_discarded_and_unproven_sets_leave_nothing() {
    for naming in NAMINGS {
        let sets = Sets::new();
        sets.old(9);
        let mut set = sets.create_as(PIPE, 2, 0, naming);
        set.write(0, &[1; BLOCK]).unwrap();
        load(&mut set, 2);
        drop(set);
        assert_eq!(sets.place.names(), ["sales"]);

        let mut set = sets.create_as(PIPE, 2, 0, naming);
        set.other(CommandCode::DISCARD, 0, 0).unwrap();
        assert_eq!(sets.place.names(), ["sales"]);
        assert!(set.complete().is_err());

        let mut set = sets.create_as(PIPE, 2, 0, naming);
        set.flush().unwrap();
        let error = set.close().unwrap_err();
        assert!(error.to_string().contains("without the Complete"), "{error}");
        assert_eq!(sets.place.names(), ["sales"]);
        assert_eq!(fs::read(sets.target.join("medium-001")).unwrap(), [9; BLOCK]);
    }
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_not_touched() {
    for foreign in ["notes.txt", "medium-1", "medium-0002", "medium-000", ".hidden", "medium-003.txt"] {
        let sets = Sets::new();
        sets.old(9);
        fs::write(sets.target.join(foreign), b"precious").unwrap();
        let error = VolumeSet::create(&sets.target, 1 << 20).unwrap_err();
        assert!(error.to_string().contains(&format!("it is no volume set: it has {foreign} in it")), "{error}");
        assert_eq!(names(&sets.target).len(), 3);
        // It can be read, though.
        sets.open(PIPE);
    }
    for make in [|path: &Path| fs::create_dir(path).unwrap(), |path: &Path| symlink("medium-001", path).unwrap()] {
        let sets = Sets::new();
        sets.old(9);
        make(&sets.target.join("medium-003"));
        assert!(VolumeSet::create(&sets.target, 1 << 20).unwrap_err().to_string().contains("medium-003 in it"));
    }
    // What came in while the backup was made is kept as well.
    for naming in NAMINGS {
        let sets = Sets::new();
        sets.old(9);
        let mut set = sets.create_as(PIPE, 2, 0, naming);
        fs::write(sets.target.join("notes.txt"), b"precious").unwrap();
        let error = set.complete().unwrap_err();
        assert!(error.to_string().contains("it has notes.txt in it"), "{error}");
        assert_eq!(names(&sets.target), ["medium-001", "medium-002", "notes.txt"]);
        assert_eq!(sets.place.names(), ["sales"]);
    }
    // So is a file that took the name.
    let sets = Sets::new();
    let mut set = sets.create(PIPE, 2, 0);
    fs::write(&sets.target, b"precious").unwrap();
    assert!(set.complete().unwrap_err().to_string().contains("putting its directory into place"));
    assert_eq!(fs::read(&sets.target).unwrap(), b"precious");
    assert_eq!(sets.place.names(), ["sales"]);
}

#[test]
fn what_cannot_be_a_set_is_refused_with_a_reason() {
    let sets = Sets::new();
    let directory = sets.place.directory.path();
    fs::write(directory.join("plain"), b"").unwrap();
    symlink("nowhere", directory.join("dangling")).unwrap();
    let create = |path: PathBuf| VolumeSet::create(path, 4096).unwrap_err().to_string();
    assert!(create(directory.join("plain")).contains("name a directory"));
    assert!(create(directory.join("dangling")).contains("symbolic link to nowhere"));
    assert!(create(directory.join("dangling/")).contains("symbolic link to nowhere"));
    assert!(create(directory.join("missing/sales")).contains("directories have to exist already"));
    assert!(create(PathBuf::from("")).contains("name a directory"));
    assert!(create(PathBuf::from("/")).contains("name a directory"));
    assert_eq!(sets.place.names(), ["dangling", "plain"]);

    fs::create_dir(&sets.target).unwrap();
    let open = || VolumeSet::open(&sets.target).unwrap_err().to_string();
    assert!(open().contains("medium-001 is missing (0 others are there)"));
    for name in ["medium-001", "medium-003"] {
        fs::write(sets.target.join(name), b"").unwrap();
    }
    assert!(open().contains("medium-002 is missing (2 others are there)"));
    assert!(VolumeSet::open(directory.join("no")).unwrap_err().to_string().contains("check the path"));

    fs::write(sets.target.join("medium-002"), b"").unwrap();
    for features in [Features::NONE, Features::RANDOM_ACCESS] {
        let error = VolumeSet::create(&sets.target, 4096).unwrap().begin(&backup(features)).unwrap_err();
        assert!(error.code == CompletionCode::NOT_SUPPORTED && error.to_string().contains("REMOVABLE"), "{error}");
    }
    let error = VolumeSet::open(&sets.target).unwrap().begin(&backup(PIPE)).unwrap_err();
    assert!(error.to_string().contains("open it the other way"), "{error}");
}

#[test]
fn permissions_are_kept_and_an_empty_directory_is_replaced() {
    for naming in NAMINGS {
        let sets = Sets::new();
        fs::create_dir(&sets.target).unwrap();
        sets.old(1);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let medium = |number| sets.target.join(format!("medium-00{number}"));
        fs::set_permissions(&sets.target, fs::Permissions::from_mode(0o2750)).unwrap();
        fs::set_permissions(medium(1), fs::Permissions::from_mode(0o640)).unwrap();
        let mut set = sets.create_as(PIPE, 2, 0, naming);
        load(&mut set, 2);
        set.complete().unwrap();
        assert_eq!([mode(&sets.target), mode(&medium(1)), mode(&medium(2))], [0o2750, 0o640, 0o640]);
    }
}

/// Writes as a server does: whatever is answered short is sent again, to the next medium.
fn write_as_a_server(set: &mut VolumeSet, kind: Features, data: &[u8], medium: &mut i32, at: &mut u64) -> bool {
    let mut rest = data;
    while !rest.is_empty() {
        let position = if kind == disk() { *at } else { 0 };
        match set.write(position, rest) {
            Ok(()) => {
                *at += rest.len() as u64;
                return true;
            }
            Err(error) if error.is_final() => {
                assert_eq!((error.code, error.bytes), (CompletionCode::EOM_OVERFLOW, 0), "{error}");
                return false;
            }
            Err(error) => {
                assert_eq!((error.code, error.bytes as usize % BLOCK), (CompletionCode::END_OF_MEDIA, 0), "{error}");
                rest = &rest[error.bytes as usize..];
                set.clear_error().unwrap();
                *medium += 1;
                load(set, *medium);
                *at = 0;
            }
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any capacity, zone and sizes: what is read from all media in their order is what was written.
    #[test]
    fn what_is_written_over_media_is_read_back_in_order(
        kind in prop_oneof![Just(PIPE), Just(disk()), Just(Features::TAPE)],
        capacity in 0u64..6000,
        zone in prop_oneof![Just(0u32), 0u32..8000],
        sizes in proptest::collection::vec(0usize..8, 0..12),
        read in 1usize..9,
    ) {
        let sets = Sets::new();
        let mut set = VolumeSet::create(&sets.target, capacity).unwrap();
        set.begin(&config(kind | Features::WRITE_MEDIA | Features::COMPLETE_ENABLED, zone)).unwrap();
        let (mut medium, mut at, mut written) = (1, 0, Vec::new());
        for (number, size) in sizes.into_iter().enumerate() {
            let data: Vec<u8> = (0..size).flat_map(|block| [(number * 8 + block) as u8; BLOCK]).collect();
            if !write_as_a_server(&mut set, kind, &data, &mut medium, &mut at) {
                // Only media that take no block at all.
                prop_assert!(capacity < BLOCK as u64);
                prop_assert!(set.complete().is_err());
                prop_assert!(sets.place.names().is_empty());
                return Ok(());
            }
            written.extend(data);
        }
        prop_assert_eq!(set.bytes(), written.len() as u64);
        set.complete().unwrap();

        let mut set = sets.open(kind);
        let (mut found, mut at) = (Vec::new(), 0);
        for number in 1..=medium {
            if number > 1 {
                load(&mut set, number);
                at = 0;
            }
            let mut on_medium = 0;
            loop {
                let mut buffer = vec![0; read * BLOCK];
                let bytes = match set.read(at, &mut buffer) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        prop_assert_eq!(error.code, CompletionCode::NO_DATA_DETECTED);
                        error.bytes as usize
                    }
                };
                on_medium += bytes as u64;
                at += bytes as u64;
                found.extend_from_slice(&buffer[..bytes]);
                if bytes < buffer.len() {
                    break;
                }
            }
            prop_assert!(on_medium <= capacity);
        }
        prop_assert_eq!(found, written);
        prop_assert!(set.other(CommandCode::LOAD, medium + 1, 0).is_err());
    }
}
