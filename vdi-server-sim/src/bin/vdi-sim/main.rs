//! `vdi-sim`: a SQL Server that is none, for testing backup programs. Under the name `sqlcmd` it behaves as that does.
#![forbid(unsafe_code)]

mod children;
mod demo;
mod demo_client;
mod error_log;
mod interrupt;
mod sample;
mod say;
mod server;
mod sql;
mod sqlcmd;
mod table;
mod transcript;
mod view;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Plays SQL Server's side of the Virtual Device Interface.
#[derive(Parser)]
#[command(name = "vdi-sim", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs T-SQL as the server, for a set that another program has created
    Sql(sql::Arguments),
    /// Lists the faults that a statement can be given
    Faults,
    /// Lists the databases of a data folder
    Databases(view::DatabasesArguments),
    /// Lists the backups and restores of a data folder, the newest first
    History(view::HistoryArguments),
    /// Makes a database with content
    Sample(sample::Arguments),
    /// Overwrites pages of a database, as a database in use does, until the standard input closes
    Write(write::Arguments),
    /// Backs a database up and restores it through separate processes, and compares the result
    Demo(demo::Arguments),
    /// The demo's primary client
    #[command(hide = true)]
    DemoPrimary(demo_client::PrimaryArguments),
    /// One of the demo's workers
    #[command(hide = true)]
    DemoWorker(demo_client::WorkerArguments),
}

fn main() -> ExitCode {
    if sqlcmd::is_called() {
        return sqlcmd::run();
    }
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // `help` takes names of commands only, and would take the option for one.
    if let [_, command, option] = &mut arguments[..]
        && command == "help"
        && (option == "--help" || option == "-h")
    {
        *option = "help".into();
    }
    let outcome = match Arguments::parse_from(arguments).command {
        Command::Sql(arguments) => return sql::run(&arguments),
        Command::Faults => return sql::list_faults(),
        Command::Databases(arguments) => view::databases(&arguments),
        Command::History(arguments) => view::history(&arguments),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Write(arguments) => write::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoPrimary(arguments) => demo_client::run_primary(&arguments),
        Command::DemoWorker(arguments) => demo_client::run_worker(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::err(format_args!("vdi-sim: {error}"));
            ExitCode::FAILURE
        }
    }
}
