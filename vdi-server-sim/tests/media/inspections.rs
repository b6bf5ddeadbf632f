//! RESTORE LABELONLY, HEADERONLY, FILELISTONLY and VERIFYONLY over virtual devices, of all kinds.

use std::fs;

use vdi_client::{Features, VdConfig};
use vdi_server_sim::engine::{Cancel, Engine};
use vdi_server_sim::session::Answer;

use crate::common::bench::Bench;
use crate::common::client::{config, device_name, stripe};

const SET: &str = "nightly";

fn statement(what: &str, devices: u32, options: &str) -> String {
    let clauses: Vec<_> = (0..devices).map(|index| format!("VIRTUAL_DEVICE = '{}'", device_name(SET, index))).collect();
    format!("RESTORE {what} FROM {}{options}", clauses.join(", "))
}

/// The answer, and the bytes that each device gave. The devices were closed in order.
#[track_caller]
fn inspected(bench: &Bench, config: &VdConfig, what: &str, options: &str) -> (Answer, Vec<u64>) {
    let agent = bench.reading_agent(SET, config);
    let engine = Engine::new(bench.data(), bench.options()).unwrap();
    let mut answer = Answer::default();
    let sql = statement(what, config.device_count, options);
    engine.session().batch(&sql, &[], &mut answer, &Cancel::new()).unwrap();
    let read = agent.result().unwrap().iter().map(|report| report.bytes_read).collect();
    (answer, read)
}

#[test]
fn headers_are_shown_and_little_is_read() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    for devices in [1, 3] {
        bench.back_up("sales", devices, "NAME = 'nightly', MAXTRANSFERSIZE = 1048576");
        for (what, columns, rows) in [("LABELONLY", 13, 1), ("FILELISTONLY", 22, 3)] {
            let (answer, read) = inspected(&bench, &config(devices), what, " WITH MAXTRANSFERSIZE = 1048576");
            assert_eq!((answer.results[0].columns.len(), answer.results[0].rows.len()), (columns, rows), "{what}");
            assert_eq!((read[0], read[1..].iter().sum::<u64>()), (65536, 0), "{what}: {read:?}");
            assert_eq!(answer.done[0].rows, Some(rows as u64));
            assert!(answer.messages.is_empty(), "{:?}", answer.messages);
        }
        let (answer, read) = inspected(&bench, &config(devices), "HEADERONLY", "");
        assert_eq!((answer.results[0].columns.len(), answer.results[0].rows.len()), (59, 1));
        assert_eq!(answer.results[0].rows[0][0].to_string(), "nightly");
        assert_eq!(read[0], fs::metadata(stripe(&bench.out(), 0)).unwrap().len(), "to the end of the set");
        let (answer, read) = inspected(&bench, &config(devices), "VERIFYONLY", "");
        assert_eq!(answer.messages[0].text, "The backup set on file 1 is valid.");
        assert!(answer.results.is_empty());
        let lengths: Vec<_> =
            (0..devices).map(|index| fs::metadata(stripe(&bench.out(), index)).unwrap().len()).collect();
        assert_eq!(read, lengths);
    }
    bench.assert_databases(&["sales"]);
}

/// The configuration is within the first 64 KiB of a pipe-like device, whatever BLOCKSIZE the backup and the statement have.
#[test]
fn the_file_list_is_at_the_beginning_with_each_block_size() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    for block in (9..17).map(|bits| 1 << bits) {
        bench.back_up("sales", 1, &format!("BLOCKSIZE = {block}"));
        for options in ["".to_owned(), format!(" WITH BLOCKSIZE = {block}, MAXTRANSFERSIZE = 4194304")] {
            for (what, rows) in [("LABELONLY", 1), ("FILELISTONLY", 3)] {
                let (answer, read) = inspected(&bench, &config(1), what, &options);
                assert_eq!(answer.results[0].rows.len(), rows, "{what}, {block}");
                assert!((1..=65536).contains(&read[0]), "{what}, {block}: {read:?}");
            }
        }
    }
}

#[test]
fn a_set_that_is_not_there_fails_on_both_sides() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    bench.back_up("sales", 1, "");
    for (what, title) in
        [("HEADERONLY", "RESTORE HEADERONLY"), ("FILELISTONLY", "RESTORE FILELIST"), ("VERIFYONLY", "VERIFY DATABASE")]
    {
        let agent = bench.reading_agent(SET, &config(1));
        let outcome = bench.sql(&statement(what, 1, " WITH FILE = 2")).outcome();
        outcome.assert_refused(&["Msg 4038,", &format!("{title} is terminating abnormally.")]);
        assert!(agent.result().is_err());
    }
}

/// Of a disk-like device the end is known: HEADERONLY shows all that is there.
#[test]
fn every_kind_of_device_is_inspected() {
    let bench = Bench::new();
    bench.database("sales", 300_000);
    for features in [Features::REMOVABLE, Features::RANDOM_ACCESS, Features::REMOVABLE | Features::RANDOM_ACCESS] {
        let config = VdConfig { features: features | Features::REQUEST_COMPLETE, ..config(1) };
        let agent = bench.writing_agent(SET, &config);
        bench.sql(&format!("BACKUP DATABASE sales TO VIRTUAL_DEVICE = '{SET}'")).outcome().assert_success();
        agent.result().unwrap();
        for (what, rows) in [("LABELONLY", 1), ("HEADERONLY", 1), ("FILELISTONLY", 3)] {
            let (answer, _) = inspected(&bench, &config, what, "");
            assert_eq!(answer.results[0].rows.len(), rows, "{what} of {features:?}");
        }
    }
}
