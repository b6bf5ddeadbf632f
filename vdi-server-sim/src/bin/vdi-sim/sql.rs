//! `vdi-sim sql`: one batch, as the server.

use std::error::Error;
use std::fmt::Display;
use std::io::IsTerminal;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use vdi_server_sim::faults::TABLE;
use vdi_server_sim::messages::Message;
use vdi_server_sim::session::{Done, Output};
use vdi_server_sim::types::{Column, Value};

use crate::interrupt::Interrupt;
use crate::say;
use crate::server::Server;
use crate::table::{Style, Table};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// The statement or statements, for example: BACKUP DATABASE d TO VIRTUAL_DEVICE='set'
    #[arg(short = 'Q', long = "query", value_name = "STATEMENT")]
    query: String,
    /// The server's name in error messages
    #[arg(long, default_value = "vdi-sim")]
    server_name: String,
    /// End when the standard input closes
    #[arg(long, hide = true)]
    end_with_input: bool,
}

/// Runs the batch, and prints what it answers. Fails when a statement does; SIGINT and SIGTERM cancel the batch.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.end_with_input {
        crate::children::end_with_input();
    }
    let outcome = run_batch(arguments).unwrap_or_else(|error| {
        say::err(format_args!("vdi-sim: {error}"));
        false
    });
    if outcome { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether every statement succeeded.
fn run_batch(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let interrupt = Interrupt::watch()?;
    let engine = arguments.server.start(&arguments.query)?;
    let mut printer = Printer {
        server: &arguments.server_name,
        statements: 0,
        table: Table::default(),
        watched: std::io::stderr().is_terminal(),
        bar: None,
    };
    // The messages say what came of it.
    let outcome = engine.session().batch(&arguments.query, &[], &mut printer, interrupt.cancel());
    if outcome.is_ok() && printer.statements == 0 {
        return Err("the text holds no statement; give one with -Q".into());
    }
    Ok(outcome.is_ok())
}

/// Prints what the batch answers, as it arises.
struct Printer<'a> {
    server: &'a str,
    /// Statements that are over.
    statements: u64,
    /// The result set of the statement that runs.
    table: Table,
    /// The standard error is a terminal.
    watched: bool,
    /// The progress of the statement that runs, once there is some.
    bar: Option<ProgressBar>,
}

impl Printer<'_> {
    /// Prints lines above the progress.
    fn print<T: Display>(&self, lines: impl IntoIterator<Item = T>) {
        let print = || lines.into_iter().for_each(say::out);
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// The progress of a statement, on the standard error.
fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(100);
    match ProgressStyle::with_template("{wide_bar} {pos:>3} %  {elapsed_precise}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Output for Printer<'_> {
    fn message(&mut self, message: Message) {
        self.print([message.display(self.server)]);
    }

    fn columns(&mut self, columns: &[Column]) {
        self.table = Table::new(columns);
    }

    fn row(&mut self, row: Vec<Value>) {
        self.table.push(&row);
    }

    fn done(&mut self, _: Done) {
        self.statements += 1;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let table = std::mem::take(&mut self.table);
        self.print(table.lines(Style::default()));
    }

    fn wants_progress(&self) -> bool {
        self.watched
    }

    fn progress(&mut self, percent: u8) {
        self.bar.get_or_insert_with(new_bar).set_position(percent.into());
    }
}

/// Prints every fault with what it does.
pub(crate) fn list_faults() -> ExitCode {
    let usages: Vec<_> = TABLE.iter().map(ToString::to_string).collect();
    let width = usages.iter().map(String::len).max().unwrap_or_default();
    for (usage, help) in usages.iter().zip(TABLE) {
        say::out(format_args!("{usage:width$}  {}", help.effect));
    }
    ExitCode::SUCCESS
}
