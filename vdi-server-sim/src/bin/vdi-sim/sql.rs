//! `vdi-sim sql`: one statement, as the server.

use std::error::Error;
use std::process::ExitCode;

use vdi_server_sim::faults::TABLE;
use vdi_server_sim::messages::Message;

use crate::interrupt::Interrupt;
use crate::say;
use crate::server::Server;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// The statement, for example: BACKUP DATABASE d TO VIRTUAL_DEVICE='set'
    #[arg(short = 'Q', long = "query", value_name = "STATEMENT")]
    query: String,
    /// The server's name in error messages
    #[arg(long, default_value = "vdi-sim")]
    server_name: String,
    /// End when the standard input closes
    #[arg(long, hide = true)]
    end_with_input: bool,
}

/// Runs the statement, and prints the messages as they arise. Fails when the statement does, which SIGINT and SIGTERM cancel.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.end_with_input {
        crate::children::end_with_input();
    }
    let mut print = |message: Message| say::out(message.display(&arguments.server_name));
    let watched = Interrupt::watch().map_err(Box::<dyn Error>::from);
    let started = watched.and_then(|interrupt| Ok((interrupt, arguments.server.start(&arguments.query)?)));
    let outcome = match started {
        Ok((interrupt, engine)) => {
            engine.execute_with(&arguments.query, interrupt.cancel(), &mut print).map(drop).map_err(drop)
        }
        Err(error) => {
            say::err(format_args!("vdi-sim: {error}"));
            Err(())
        }
    };
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
