//! Statements: `vdi-sim sql` in a process of its own against clients in this one, in every size that the interface allows, and
//! with everything that can be wrong about a statement or a backup.

use crate::common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, restore_statement, stripe};
use vdi_client::media::FileMedia;
use vdi_client::{Features, VdConfig, VdError};
use vdi_server_sim::storage::content;

/// Bytes of the usual test database: more than one transfer of the greatest size.
const SIZE: u64 = 5_000_000;

/// Backs up and restores with these options, and compares.
#[track_caller]
fn cycle(size: u64, devices: u32, backup: &str, restore: &str) {
    let bench = Bench::new();
    bench.database("sales", size);
    bench.back_up("sales", devices, backup);
    bench.copy("sales", "copy", devices, restore);
    bench.databases().assert_same("sales", "copy");
    bench.assert_databases(&["copy", "sales"]);
}

#[test]
fn a_database_comes_back_over_one_device() {
    cycle(SIZE, 1, "", "");
}

#[test]
fn a_database_comes_back_over_two_devices() {
    cycle(
        SIZE,
        2,
        "FORMAT, MAXTRANSFERSIZE = 1048576, BLOCKSIZE = 4096, BUFFERCOUNT = 20",
        "REPLACE, BLOCKSIZE = 4096",
    );
}

#[test]
fn a_database_comes_back_over_five_devices() {
    cycle(SIZE, 5, "MAXTRANSFERSIZE = 131072", "");
}

#[test]
fn a_small_database_comes_back_over_64_devices() {
    cycle(300_000, 64, "", "");
}

#[test]
fn a_database_smaller_than_its_devices_comes_back() {
    cycle(1, 7, "", "");
}

#[test]
fn a_database_comes_back_with_the_greatest_transfers_and_the_least_blocks() {
    cycle(SIZE, 2, "MAXTRANSFERSIZE = 4194304, BLOCKSIZE = 512", "MAXTRANSFERSIZE = 4194304, BLOCKSIZE = 512");
}

#[test]
fn every_block_size_works() {
    for block in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        cycle(600_000, 2, &format!("BLOCKSIZE = {block}, MAXTRANSFERSIZE = 262144"), &format!("BLOCKSIZE = {block}"));
    }
}

#[test]
fn a_block_as_large_as_a_transfer_works() {
    cycle(600_000, 3, "BLOCKSIZE = 65536, MAXTRANSFERSIZE = 65536", "BLOCKSIZE = 65536, MAXTRANSFERSIZE = 65536");
}

#[test]
fn one_buffer_for_all_devices_works() {
    cycle(SIZE, 3, "BUFFERCOUNT = 1", "BUFFERCOUNT = 1");
}

#[test]
fn one_buffer_and_blocks_as_large_as_transfers_work() {
    cycle(600_000, 2, "BUFFERCOUNT = 1, BLOCKSIZE = 65536", "BUFFERCOUNT = 1, BLOCKSIZE = 65536");
}

#[test]
fn restore_may_transfer_in_other_sizes_than_the_backup() {
    cycle(SIZE, 2, "MAXTRANSFERSIZE = 1048576", "MAXTRANSFERSIZE = 65536");
    cycle(SIZE, 2, "MAXTRANSFERSIZE = 65536", "MAXTRANSFERSIZE = 4194304");
}

#[test]
fn a_backup_without_checksums_comes_back() {
    cycle(SIZE, 2, "NO_CHECKSUM", "NO_CHECKSUM");
}

#[test]
fn files_of_a_user_come_back() {
    let bench = Bench::new();
    let files = [vec![], vec![1], vec![7; 200_001], (0..100_000_u32).flat_map(u32::to_le_bytes).collect()];
    bench.databases().import("odd", &files);
    bench.back_up("odd", 2, "");
    bench.copy("odd", "copy", 2, "");
    bench.databases().assert_same("odd", "copy");
    content::export(&bench.databases().open(), "copy", &bench.out().join("exported")).unwrap();
    for (index, bytes) in files.iter().enumerate() {
        assert!(fs::read(bench.out().join(format!("exported/file-{index}"))).unwrap() == *bytes, "file {index}");
    }
}

#[test]
fn restore_with_replace_replaces_the_whole_database() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    bench.databases().import("old", &[b"only the old one has this".to_vec()]);
    bench.back_up("sales", 2, "");
    bench.copy("sales", "old", 2, "REPLACE");
    bench.databases().assert_same("sales", "old");
    bench.assert_databases(&["old", "sales"]);
}

#[test]
fn a_backup_replaces_the_one_before_only_when_it_is_complete() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    let old = b"the backup of yesterday";
    fs::write(stripe(&bench.out(), 0), old).unwrap();
    let agent = bench.writing_agent("nightly", &config(1));
    bench.sql(&backup_statement("nothing", "nightly", 1, "")).outcome().assert_failure(&["Msg 911,"]);
    assert_eq!(fs::read(stripe(&bench.out(), 0)).unwrap(), old);
    // The statement failed before it came to the set, which waits for a better one.
    bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome().assert_success();
    agent.result().unwrap();
    assert_ne!(fs::read(stripe(&bench.out(), 0)).unwrap(), old);
    bench.assert_output(&["stripe-00"]);
}

#[test]
fn the_messages_of_a_success_count_files_and_percents() {
    let bench = Bench::new();
    bench.database("sales", 900_000);
    let outcome = bench.back_up("sales", 1, "STATS = 50");
    let files = bench.databases().row("sales").files;
    let files = files.iter().map(|file| format!("for database 'sales', file '{}' on file 1.", file.logical_name));
    let percents = ["50 percent processed.", "100 percent processed."].map(str::to_owned);
    for text in percents.into_iter().chain(files) {
        assert!(outcome.text.contains(&text), "{text}: {outcome:#?}");
    }
}

#[test]
fn complete_that_nobody_asked_for_does_not_come() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    let agent = bench.writing_agent("nightly", &VdConfig { features: Features::default(), ..config(2) });
    bench.sql(&backup_statement("sales", "nightly", 2, "")).outcome().assert_success();
    let reports = agent.result().unwrap();
    // The media committed at the close, as it may after a Flush.
    bench.assert_output(&["stripe-00", "stripe-01"]);
    bench.copy("sales", "copy", 2, "");
    bench.assert_identical("sales", "copy");
    assert_eq!(reports.len(), 2);
}

#[test]
fn a_set_that_nobody_created_fails_the_statement() {
    let bench = Bench::new();
    bench.database("sales", 10_000);
    let outcome = bench.sql(&backup_statement("sales", "nobody has it", 1, "")).outcome();
    outcome.assert_failure(&["Msg 3201,", "'nobody has it'", "0x80070002("]);
}

#[test]
fn a_set_in_other_letters_is_another_set() {
    let bench = Bench::new();
    bench.database("sales", 10_000);
    let _set = bench.create("Nightly", &config(1));
    bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome().assert_failure(&["Msg 3201,"]);
}

#[test]
fn a_database_that_does_not_exist_fails_the_statement() {
    let bench = Bench::new();
    bench.database("sales", 10_000);
    let outcome = bench.sql(&backup_statement("sale", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["Msg 911,", "Database 'sale' does not exist."]);
}

/// As with SQL Server's collation of the installation. The message has the name of the statement.
#[test]
fn a_name_in_other_letters_is_the_same_database() {
    let bench = Bench::new();
    bench.database("sales", 100_000);
    bench.back_up("SALES", 1, "");
    bench.restore("Sales", 1, "REPLACE");
    bench.copy("sales", "copy", 1, "");
    bench.assert_identical("sales", "copy");
    assert_eq!(bench.databases().names().len(), 2);
}

#[test]
fn another_number_of_devices_than_the_set_has_fails_the_statement() {
    let bench = Bench::new();
    bench.database("sales", 10_000);
    for count in [1, 3] {
        let agent = bench.writing_agent("nightly", &config(2));
        let outcome = bench.sql(&backup_statement("sales", "nightly", count, "")).outcome();
        outcome.assert_failure(&[&format!("names {count} devices, the client created the set with 2")]);
        // The client is not left waiting for a server that has given up.
        assert_eq!(agent.result().unwrap_err().code(), VdError::Abort);
        bench.assert_output(&[]);
    }
    bench.back_up("sales", 2, "");
}

/// The database of another name: the header says which one the backup is of, so the set is opened first.
#[test]
fn a_database_that_exists_is_not_replaced_without_replace() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    bench.back_up("sales", 1, "");
    bench.old_database("copy");
    let before = bench.images();
    for (database, number) in [("copy", "Msg 3154,"), ("sales", "Msg 3159,")] {
        let agent = bench.reading_agent("nightly", &config(1));
        bench.sql(&restore_statement(database, "nightly", 1, "")).outcome().assert_failure(&[number]);
        // The header was read, so the client waits no more and knows why.
        assert_eq!(agent.result().unwrap_err().code(), VdError::Abort);
        assert!(bench.images() == before);
    }
}

#[test]
fn a_syntax_error_is_102_and_touches_nothing() {
    let bench = Bench::new();
    let _set = bench.create("nightly", &config(1));
    let outcome = bench.sql("BACKUP DATABASE sales TOO VIRTUAL_DEVICE = 'nightly'").outcome();
    outcome.assert_refused(&["Msg 102, Level 15, State 1, Server vdi-sim, Line 1", "near 'TOO'"]);
    assert!(!outcome.text.contains("Msg 3013"), "{outcome:#?}");
}

/// A backup whose restore fails: the old database stays as it was, and nothing else appears.
#[track_caller]
fn a_broken_restore(devices: u32, options: &str, spoil: impl FnOnce(&Bench), texts: &[&str]) {
    let bench = Bench::new();
    bench.database("sales", 700_000);
    bench.back_up("sales", devices, "");
    bench.old_database("copy");
    spoil(&bench);
    let old = bench.images();
    let agent = bench.reading_agent("nightly", &config(devices));
    let outcome =
        bench.sql(&copy_statement("sales", "copy", "nightly", devices, &format!("REPLACE{options}"))).outcome();
    outcome.assert_failure(texts);
    assert!(agent.result().is_err());
    assert!(bench.images() == old);
    bench.assert_databases(&["copy", "sales"]);
    bench.assert_nothing_left();
}

fn flip_a_byte(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn another_block_size_than_the_backup_s_fails_the_restore() {
    a_broken_restore(1, ", BLOCKSIZE = 4096", |_| {}, &["Msg 3272,"]);
}

#[test]
fn a_flipped_bit_anywhere_fails_the_restore() {
    // In the label, in the first header of the set, in the middle of a page, in the headers behind the data, and in the last block.
    type Place = fn(u64) -> u64;
    let places: [(Place, &str); 5] = [
        (|_| 4, "Msg 3241,"),
        (|_| 1050, "Msg 3241,"),
        (|length| length / 2, "Msg 3183,"),
        (|length| length - 3000, "Msg 3241,"),
        (|length| length - 500, "Msg 3241,"),
    ];
    for (place, number) in places {
        let flip = |bench: &Bench| {
            let path = stripe(&bench.out(), 1);
            flip_a_byte(&path, place(fs::metadata(&path).unwrap().len()));
        };
        a_broken_restore(2, "", flip, &[number]);
    }
}

#[test]
fn a_truncated_stripe_fails_the_restore() {
    // The whole length is not known beforehand: devices take data as they are ready for it.
    for keep in [|_| 0, |_| 1, |_| 511, |_| 512, |length| length / 2, |length| length - 512, |length: u64| length - 1] {
        let empty = keep(100_000) == 0;
        let truncate = move |bench: &Bench| {
            let file = fs::OpenOptions::new().write(true).open(stripe(&bench.out(), 1)).unwrap();
            file.set_len(keep(file.metadata().unwrap().len())).unwrap();
        };
        a_broken_restore(2, "", truncate, &[if empty { "Msg 3254," } else { "Msg 3203," }]);
    }
}

#[test]
fn the_same_stripe_twice_fails_the_restore() {
    let copy = |bench: &Bench| {
        fs::copy(stripe(&bench.out(), 0), stripe(&bench.out(), 1)).unwrap();
    };
    a_broken_restore(2, "", copy, &["Msg 3227,"]);
}

#[test]
fn stripes_of_two_backups_fail_the_restore() {
    let mix = |bench: &Bench| {
        let kept = fs::read(stripe(&bench.out(), 0)).unwrap();
        bench.back_up("sales", 2, "");
        fs::write(stripe(&bench.out(), 0), kept).unwrap();
    };
    a_broken_restore(2, "", mix, &["Msg 3258,"]);
}

#[test]
fn a_missing_stripe_fails_the_restore() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    bench.back_up("sales", 3, "");
    let agent = bench.reading_agent("nightly", &config(2));
    let outcome = bench.sql(&copy_statement("sales", "copy", "nightly", 2, "")).outcome();
    outcome.assert_failure(&["Msg 3132,", "has 3 media families but only 2 are provided"]);
    assert!(agent.result().is_err());
    bench.assert_databases(&["sales"]);
}

#[test]
fn stripes_in_another_order_come_back() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    bench.back_up("sales", 3, "");
    let out = bench.out();
    let agent = bench.agent("nightly", &config(3), move |index| FileMedia::open(stripe(&out, 2 - index)));
    bench.sql(&copy_statement("sales", "copy", "nightly", 3, "")).outcome().assert_success();
    agent.result().unwrap();
    bench.assert_identical("sales", "copy");
}

#[test]
fn a_restore_from_files_that_are_no_backup_fails() {
    let bench = Bench::new();
    fs::write(stripe(&bench.out(), 0), vec![0x5a; 1 << 20]).unwrap();
    let agent = bench.reading_agent("nightly", &config(1));
    let outcome = bench.sql(&copy_statement("sales", "copy", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["Msg 3241,"]);
    assert!(agent.result().is_err());
    bench.assert_databases(&[]);
}
