//! `vdi-sim sql`: one statement, as the server.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vdi_server_sim::engine::Engine;
use vdi_server_sim::faults::{Fault, Faults, TABLE};
use vdi_server_sim::messages::Message;
use vdi_shm::runtime::{Access, Options};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data folder: a folder a database
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The statement, for example: BACKUP DATABASE d TO VIRTUAL_DEVICE='set'
    #[arg(short = 'Q', long = "query", value_name = "STATEMENT")]
    query: String,
    /// The instance that the set was created for; the default one when left out
    #[arg(long, default_value = "")]
    instance: String,
    /// The server's name in error messages
    #[arg(long, default_value = "vdi-sim")]
    server_name: String,
    /// A user, besides this one, whose sets may be used
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,
    /// A fault of the server, as `vdi-sim faults` lists them; may be given more than once
    #[arg(long = "fault", value_name = "NAME[=VALUE]")]
    faults: Vec<Fault>,
    /// The seed of what is random in the faults: the same seed repeats them
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Write what happens in the set into this file, a line an event
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// End when the standard input closes
    #[arg(long, hide = true)]
    end_with_input: bool,
}

/// Runs the statement, and prints the messages as they arise. Fails when the statement does.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.end_with_input {
        crate::children::end_with_input();
    }
    if let Some(path) = &arguments.transcript
        && let Err(error) = crate::transcript::begin(path, &arguments.query)
    {
        eprintln!("vdi-sim: {error}");
        return ExitCode::FAILURE;
    }
    let options = Options { runtime_dir: None, access: Access { uids: arguments.allow_uid.clone(), gids: Vec::new() } };
    let mut print = |message: Message| {
        // A reader that is gone does not stop the statement.
        let _ = writeln!(std::io::stdout(), "{}", message.display(&arguments.server_name));
    };
    let outcome = match Engine::new(&arguments.data, options) {
        Ok(engine) => {
            let faults = arguments.faults.iter().copied().fold(Faults::seeded(arguments.seed), Faults::with);
            let engine = engine.with_instance(&*arguments.instance).with_faults(faults);
            engine.execute(&arguments.query, &mut print).map(drop).map_err(drop)
        }
        Err(error) => {
            eprintln!("vdi-sim: {error}");
            Err(())
        }
    };
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints every fault with what it does.
pub(crate) fn list_faults() -> ExitCode {
    let usages: Vec<_> = TABLE.iter().map(ToString::to_string).collect();
    let width = usages.iter().map(String::len).max().unwrap_or_default();
    let mut output = std::io::stdout().lock();
    for (usage, help) in usages.iter().zip(TABLE) {
        // A reader that is gone has seen enough.
        let _ = writeln!(output, "{usage:width$}  {}", help.effect);
    }
    ExitCode::SUCCESS
}
