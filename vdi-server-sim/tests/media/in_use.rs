//! BACKUP of a database in use: what comes out is the database of one moment, or the backup fails.

use crate::common;
use crate::gated;
use crate::writer;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::bench::Bench;
use common::client::{backup_statement, config, stripe};
use common::databases::set_len;
use gated::{Gate, GatedFile};
use vdi_client::media::FileMedia;
use writer::{PAGE, Writer, stamps, written};

/// A writer waits from before the first page is read until all are stored.
#[test]
fn a_backup_of_a_database_in_use_is_of_one_moment() {
    let bench = Bench::new();
    bench.database("db", 256 * PAGE as u64);
    let mut writer = Writer::start(&bench, "db", &[]);
    let mut reported = 0;
    while reported < 256 {
        reported = writer.wrote();
    }
    for call in [1, 20] {
        let (gate, held) = Gate::at_call(call);
        let path = stripe(&bench.out(), 0);
        let client = bench.agent("nightly", &config(1), move |_| Ok(GatedFile::new(FileMedia::create(&path)?, &held)));
        let statement = bench.sql(&backup_statement("db", "nightly", 1, "BUFFERCOUNT = 4"));
        gate.wait();
        let at_first = stamps(&bench, "db");
        // Read what it had reported before, so that nothing but the backup can stop it.
        while reported + 64 <= written(&at_first) {
            reported = writer.wrote();
        }
        writer.wait_until_asleep();
        assert_eq!(stamps(&bench, "db"), at_first);
        gate.open();
        statement.outcome().assert_success();
        client.result().unwrap();
        reported = writer.goes_on(written(&at_first));
        bench.copy("db", "copy", 1, "REPLACE");
        assert_eq!(stamps(&bench, "copy"), at_first);
    }
    writer.end();
}

/// What another program does to a file of the database, and how the backup fails: with one of these texts.
type Change = (fn(&Path), &'static [&'static str]);

const CHANGES: &[Change] = &[
    // A reader may come before it is as long again.
    (|path| shorten(path, 0), &["was changed while", "the end of the file"]),
    (
        |path| OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"x", 100_000).unwrap(),
        &["was changed while the database was frozen: by a program that does not take the locks"],
    ),
    (
        |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        },
        &["was replaced by another file"],
    ),
    (|path| shorten(path, PAGE as u64), &["was changed while", "the end of the file"]),
];

/// Cuts a file, and makes it as long again except for `less`.
fn shorten(path: &Path, less: u64) {
    let length = fs::metadata(path).unwrap().len();
    set_len(path, 0);
    set_len(path, length - less);
}

#[test]
fn a_file_that_is_changed_during_its_backup_fails_it() {
    for (change, texts) in CHANGES {
        let bench = Bench::new();
        bench.database("sales", 5_000_000);
        let changed = bench.databases().data_file("sales", 0);
        let (gate, held) = Gate::at_call(2);
        let path = stripe(&bench.out(), 0);
        let client = bench.agent("nightly", &config(1), move |_| Ok(GatedFile::new(FileMedia::create(&path)?, &held)));
        let statement = bench.sql(&backup_statement("sales", "nightly", 1, ""));
        gate.wait();
        change(&changed);
        gate.open();
        let is_told = |told: &str| texts.iter().any(|text| told.to_lowercase().contains(text));
        let outcome = statement.outcome();
        outcome.assert_failure(&[changed.to_str().unwrap()]);
        assert!(is_told(&outcome.text), "{outcome:#?}");
        let told = client.result().unwrap_err().to_string();
        assert!(is_told(&told), "{told}");
        bench.assert_output(&[]);
    }
}
