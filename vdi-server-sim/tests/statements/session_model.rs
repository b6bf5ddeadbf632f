//! Sessions beside a model of them, over random batches and random texts.

use crate::common;

use common::bench::Bench;
use common::checked::{run, run_with};
use proptest::prelude::*;
use vdi_server_sim::engine::{Cancel, Engine};
use vdi_server_sim::types::{Parameter, Value};

/// Nobody creates this set.
const NOBODY: &str = "BACKUP DATABASE sales TO VIRTUAL_DEVICE='nobody'";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 8192);
    bench
}

fn engine(bench: &Bench) -> Engine {
    Engine::new(bench.data(), bench.options()).unwrap()
}

/// A session as it should be.
struct Model {
    database: &'static str,
    transactions: u32,
    count_rows: bool,
}

/// The statements of the model's batches.
const MENU: [&str; 11] = [
    "USE sales",
    "USE [master]",
    "USE gone",
    "SET NOCOUNT ON",
    "SET NOCOUNT OFF",
    "SET ANSI_NULLS ON",
    "BEGIN TRAN",
    "COMMIT",
    "ROLLBACK",
    "SELECT 5",
    NOBODY,
];

impl Model {
    /// The numbers of the errors, or 0, and what is counted; `None` behind what ends the batch.
    fn step(&mut self, statement: &str) -> (u32, Option<u64>) {
        match statement {
            "USE sales" => self.database = "sales",
            "USE [master]" => self.database = "master",
            "USE gone" => return (911, None),
            "SET NOCOUNT ON" => self.count_rows = false,
            "SET NOCOUNT OFF" => self.count_rows = true,
            "BEGIN TRAN" => self.transactions += 1,
            "COMMIT" if self.transactions == 0 => return (3902, None),
            "COMMIT" => self.transactions -= 1,
            "ROLLBACK" if self.transactions == 0 => return (3903, None),
            "ROLLBACK" => self.transactions = 0,
            "SELECT 5" => return (0, self.count_rows.then_some(1)),
            NOBODY if self.transactions > 0 => return (3021, None),
            NOBODY => return (3201, None),
            _ => {}
        }
        (0, None)
    }
}

#[test]
fn a_session_is_its_model() {
    let bench = bench();
    let engine = engine(&bench);
    let batches = prop::collection::vec(prop::collection::vec(prop::sample::select(&MENU[..]), 0..8), 0..6);
    proptest!(ProptestConfig::with_cases(64), |(batches in batches)| {
        let mut session = engine.session();
        let mut model = Model { database: "master", transactions: 0, count_rows: true };
        for batch in batches {
            let (outcome, answer) = run(&mut session, &batch.join("\n"));
            let mut expected = Vec::new();
            for statement in batch {
                let (error, rows) = model.step(statement);
                expected.push((error, rows, model.transactions > 0));
                if error == 911 {
                    break;
                }
            }
            let errors: Vec<_> = answer.messages.iter().filter(|message| message.is_error()).collect();
            // 3013 belongs to the error before it.
            let mut numbers = errors.iter().map(|message| message.number).filter(|number| *number != 3013);
            for (done, (error, rows, in_transaction)) in answer.done.iter().zip(&expected) {
                prop_assert_eq!((done.failed, done.rows, done.in_transaction), (*error > 0, *rows, *in_transaction));
                if *error > 0 {
                    prop_assert_eq!(numbers.next(), Some(*error));
                }
            }
            prop_assert_eq!((answer.done.len(), numbers.next()), (expected.len(), None));
            prop_assert_eq!(outcome.is_err(), expected.iter().any(|(error, ..)| *error > 0));
            prop_assert_eq!((session.database(), session.transactions()), (model.database, model.transactions));
        }
    });
}

#[test]
fn any_text_is_answered_in_order() {
    let bench = bench();
    let engine = engine(&bench);
    let words = prop::collection::vec(
        prop::sample::select(vec![
            "USE",
            "sales",
            "SET",
            "NOCOUNT",
            "ON",
            "BEGIN",
            "TRAN",
            "COMMIT",
            "PRINT",
            "SELECT",
            "'x'",
            "N'",
            "5.5",
            "@p",
            ";",
            "\n",
            "BACKUP",
            "RESTORE",
            "DATABASE",
            "TO",
            "FROM",
            "VIRTUAL_DEVICE",
            "=",
            "--",
            "/*",
            "@@VERSION",
            "AS",
            "é",
        ]),
        0..16,
    );
    proptest!(|(words in words, text in "\\PC{0,40}")| {
        let mut session = engine.session();
        let p = Parameter::new("@p", Value::Text("sales".to_owned()));
        let _ = run_with(&mut session, &words.join(" "), std::slice::from_ref(&p), &Cancel::new());
        let _ = run_with(&mut session, &text, &[], &Cancel::new());
    });
}
