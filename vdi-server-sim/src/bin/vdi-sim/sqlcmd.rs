//! `vdi-sim` under the name `sqlcmd`: backup agents run it in place of SQL Server's program, without a change.
//!
//! Options, messages and exit status are those of sqlcmd. Batches run in a session of the engine.
//!
//! # Invariants
//!
//! 1. The exit status is 0 once the statements have run, even if they failed, unless `-b` or `-V` say otherwise.
//! 2. The exit status is 1 for an error before the first statement: options, files, the data folder, the database of the login.
//! 3. SIGINT (Ctrl-C) and SIGTERM cancel the statement that runs. No statement runs after it. **Decision**: published documents do
//!    not say how sqlcmd ends then; here the messages 3204 and 3013 count like other errors.
//! 4. A slow or closed standard output does not change a statement: see [`printer`].

mod options;
mod printer;
mod script;

use std::ffi::OsStr;
use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

use vdi_server_sim::messages::MAX_INFORMATION_SEVERITY;
use vdi_server_sim::session::Session;

use crate::interrupt::Interrupt;
use crate::server::{DATA, Server};
use options::{Options, Stop};
use printer::Printer;
use script::Directive;

/// The environment variable that statements cannot read.
const PASSWORD: &str = "SQLCMDPASSWORD";

/// Whether this process was started under the name `sqlcmd`.
pub(crate) fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("sqlcmd")))
}

/// Runs sqlcmd with the arguments of this process.
pub(crate) fn run() -> ExitCode {
    let options = match Options::read(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(Stop::Help(text)) => {
            // A closed standard output is no error.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Stop::Usage(text)) => return fail(&text),
    };
    match run_with(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("Sqlcmd: {error}\n").as_bytes());
    ExitCode::FAILURE
}

/// An environment variable; `None` if it is empty, or if `-X` hides the environment.
fn environment(options: &Options, name: &str) -> Option<String> {
    let value = || std::env::var(name).ok().filter(|value| !value.is_empty());
    if options.no_environment.is_some() { None } else { value() }
}

fn run_with(options: &Options) -> Result<u8, String> {
    let instance = match (&options.instance, environment(options, "SQLCMDSERVER")) {
        (Some(instance), _) => instance.clone(),
        (None, Some(server)) => options::instance(&server).map_err(|error| format!("SQLCMDSERVER: {error}"))?,
        (None, None) => String::new(),
    };
    let interrupt = Interrupt::watch().map_err(|error| format!("could not watch signals: {error}"))?;
    // All files are read before the first statement runs, so that a missing file cannot stop the run halfway.
    let texts: Vec<String> = match options.query.iter().chain(&options.first_query).cloned().collect::<Vec<_>>() {
        queries if queries.is_empty() => options.files.iter().map(|file| read(file)).collect::<Result<_, _>>()?,
        queries => queries,
    };
    let title = if texts.is_empty() { "(the standard input)".to_owned() } else { texts.join("\n") };
    let engine = Server::from_environment(instance)?.start(&title).map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let database = options.database.clone().or_else(|| environment(options, "SQLCMDDBNAME"));
    if let Some(name) = database
        && let Err(error) = session.use_database(&name)
    {
        let folder = engine.folder().path().display();
        return Err(format!("cannot open the database {name:?} that the login asks for: {error} {DATA} is {folder}"));
    }
    let printer = Printer::new(options, engine.server_name())?;
    let mut program = Program { options, session, interrupt, printer, batch: String::new(), status: 0, stop: false };
    let outcome = program.run(&texts);
    let Program { printer, status, .. } = program;
    printer.finish();
    outcome.map(|()| status)
}

fn read(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("could not read the input file {}: {error}", path.display()))?;
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// The state that lasts from batch to batch.
struct Program<'a> {
    options: &'a Options,
    session: Session<'a>,
    interrupt: Interrupt,
    printer: Printer,
    /// The lines of the batch so far.
    batch: String,
    status: u8,
    /// No further batch runs.
    stop: bool,
}

impl Program<'_> {
    /// Runs the texts, then the standard input if the options say so.
    fn run(&mut self, texts: &[String]) -> Result<(), String> {
        for text in texts {
            for line in text.lines() {
                self.line(line)?;
            }
            self.end_batch(1);
        }
        if self.options.query.is_none() && self.options.files.is_empty() && !self.stop {
            let mut lines = std::io::stdin().lock().lines();
            while let Some(line) = self.interrupt.idle(|| lines.next()).flatten() {
                self.line(&line.map_err(|error| format!("could not read the standard input: {error}"))?)?;
                if self.stop {
                    break;
                }
            }
            self.end_batch(1);
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if self.stop {
            return Ok(());
        }
        let directive = script::directive(line, &self.options.batch_end).filter(|_| !script::is_open(&self.batch));
        match directive {
            Some(Directive::Go(count)) => self.end_batch(count),
            Some(Directive::Quit) => {
                self.batch.clear();
                self.stop = true;
            }
            Some(Directive::Unknown) => {
                return Err("a command that begins with ':' or '!!' is not supported by this simulator".to_owned());
            }
            None => {
                let value = |name: &str| {
                    let given = self.options.variables.iter().rev().find(|(given, _)| given.eq_ignore_ascii_case(name));
                    let environment =
                        || environment(self.options, name).filter(|_| !name.eq_ignore_ascii_case(PASSWORD));
                    given.map(|(_, value)| value.clone()).or_else(environment)
                };
                let line = if self.options.no_variables {
                    line.to_owned()
                } else {
                    script::substitute(line, value).map_err(|name| {
                        format!("the variable $({name}) has no value; give it one by -v {name}=VALUE")
                    })?
                };
                self.batch.push_str(&line);
                self.batch.push('\n');
            }
        }
        Ok(())
    }

    /// Runs the lines so far as a batch.
    fn end_batch(&mut self, count: u32) {
        let batch = std::mem::take(&mut self.batch);
        if batch.trim().is_empty() {
            return;
        }
        for _ in 0..count {
            self.stop |= self.interrupt.cancel().is_cancelled();
            if self.stop {
                break;
            }
            if self.options.echo {
                self.printer.line(batch.trim_end());
            }
            // The messages have reported the outcome.
            let _ = self.session.batch(&batch, &[], &mut self.printer, self.interrupt.cancel());
            self.printer.take_severities().into_iter().for_each(|severity| self.count(severity));
        }
    }

    /// Applies the severity of a message to the exit status and to `stop`.
    fn count(&mut self, severity: u8) {
        let least = self.options.error_severity.filter(|least| *least > 0);
        let counts = least.map_or(severity > MAX_INFORMATION_SEVERITY, |least| i32::from(severity) >= least);
        if counts {
            match least {
                Some(_) => self.status = severity,
                None if self.options.stop_on_error => self.status = 1,
                None => {}
            }
            self.stop |= self.options.stop_on_error;
        }
    }
}
