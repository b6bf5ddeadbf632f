//! Batches, with checks of the calls of [`Output`].

use vdi_server_sim::engine::Cancel;
use vdi_server_sim::messages::Message;
use vdi_server_sim::session::{Answer, BatchError, Done, Output, Session};
use vdi_server_sim::types::{Column, Parameter, SqlType, Value};

/// An output that checks the order of its calls and the types of the rows.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) answer: Answer,
    columns: Option<Vec<Column>>,
    /// The answer of a statement has begun and is not done.
    pub(crate) open: bool,
}

impl Output for Checked {
    fn message(&mut self, message: Message) {
        assert!(message.line >= 1 && !message.text.is_empty(), "{message:?}");
        self.open = true;
        self.answer.message(message);
    }

    fn columns(&mut self, columns: &[Column]) {
        assert!(self.columns.is_none() && !columns.is_empty());
        self.open = true;
        self.columns = Some(columns.to_vec());
        self.answer.columns(columns);
    }

    fn row(&mut self, row: Vec<Value>) {
        let columns = self.columns.as_ref().expect("columns come before rows");
        assert_eq!(row.len(), columns.len());
        assert!(row.iter().zip(columns).all(|(value, column)| fits(value, column)), "{row:?} {columns:?}");
        self.answer.row(row);
    }

    fn done(&mut self, done: Done) {
        self.open = false;
        let rows = self.columns.take().map(|_| self.answer.results.last().unwrap().rows.len() as u64);
        assert!(done.rows.is_none() || done.rows == rows, "{done:?}");
        assert!(!(done.failed && done.summary.is_some()));
        self.answer.done(done);
    }
}

fn fits(value: &Value, column: &Column) -> bool {
    match (value, column.sql_type) {
        (Value::Null, _) => column.nullable,
        (Value::Int(_), SqlType::Int) => true,
        (Value::Numeric { unscaled, scale }, SqlType::Numeric { precision, scale: of_type }) => {
            *scale == of_type && scale <= &precision && unscaled.unsigned_abs() < 10_u128.pow(precision.into())
        }
        (Value::Text(text), SqlType::VarChar { length } | SqlType::NVarChar { length }) => {
            length.is_none_or(|length| text.chars().count() <= usize::from(length))
        }
        _ => false,
    }
}

/// Runs a batch without parameters, and checks its output.
pub(crate) fn run(session: &mut Session<'_>, sql: &str) -> (Result<(), BatchError>, Answer) {
    run_with(session, sql, &[], &Cancel::new())
}

pub(crate) fn run_with(
    session: &mut Session<'_>,
    sql: &str,
    parameters: &[Parameter],
    cancel: &Cancel,
) -> (Result<(), BatchError>, Answer) {
    let mut out = Checked::default();
    let outcome = session.batch(sql, parameters, &mut out, cancel);
    // A batch that is refused as a whole has only messages.
    let is_refused = matches!(outcome, Err(BatchError::Refused(_)));
    assert_eq!(out.open, is_refused, "{sql}: {outcome:?}");
    assert!(!is_refused || out.answer.done.is_empty(), "{sql}");
    (outcome, out.answer)
}
