//! The output of `sqlcmd`.
//!
//! # Invariants
//!
//! 1. Output neither delays nor fails a statement: a separate thread writes it. So a statement runs on while a pipe is full or
//!    closed.
//! 2. All output is written before the program ends, unless its stream is closed.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use vdi_server_sim::messages::Message;
use vdi_server_sim::session::{Done, Output};
use vdi_server_sim::types::{Column, Value};

use super::options::Options;
use crate::table::{Style, Table};

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// Prints the answers of batches, and collects the severities of their messages.
pub(crate) struct Printer {
    lines: Sender<(Stream, String)>,
    writer: JoinHandle<()>,
    /// The server's name in messages.
    server: String,
    least_severity: i32,
    to_stderr: Option<u8>,
    style: Style,
    /// The severities of the messages since [`Printer::take_severities`] was last called.
    severities: Vec<u8>,
    /// The result set of the statement that runs.
    table: Table,
}

impl Printer {
    pub(crate) fn new(options: &Options, server: String) -> Result<Printer, String> {
        let file = options.output.as_deref().map(create).transpose()?;
        let (lines, arriving) = channel::<(Stream, String)>();
        let write = move || {
            let mut file = file;
            for (stream, text) in arriving {
                let result = match (stream, &mut file) {
                    (Stream::Out, Some(file)) => file.write_all(text.as_bytes()),
                    // A closed standard output is no error.
                    (Stream::Out, None) => {
                        let mut out = std::io::stdout();
                        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                        Ok(())
                    }
                    (Stream::Err, _) => {
                        let _ = std::io::stderr().write_all(text.as_bytes());
                        Ok(())
                    }
                };
                if let Err(error) = result {
                    file = None;
                    let _ = writeln!(
                        std::io::stderr(),
                        "Sqlcmd: the output file ends, the rest is on the standard output: {error}"
                    );
                }
            }
        };
        let writer =
            std::thread::Builder::new().spawn(write).map_err(|error| format!("could not start a thread: {error}"))?;
        Ok(Printer {
            lines,
            writer,
            server,
            least_severity: options.message_severity,
            to_stderr: options.to_stderr,
            style: Style { headers: options.headers >= 0, separator: options.separator, trim: options.trim },
            severities: Vec::new(),
            table: Table::default(),
        })
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) {
        self.send(Stream::Out, text);
    }

    /// The severities of all messages since the last call, including messages that were not printed.
    pub(crate) fn take_severities(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.severities)
    }

    fn send(&self, stream: Stream, text: &str) {
        let _ = self.lines.send((stream, format!("{text}\n")));
    }

    /// Waits until all output is written, or refused by its stream.
    pub(crate) fn finish(self) {
        drop(self.lines);
        let _ = self.writer.join();
    }
}

impl Output for Printer {
    fn message(&mut self, message: Message) {
        self.severities.push(message.severity);
        if i32::from(message.severity) >= self.least_severity {
            let stream = match self.to_stderr {
                Some(0) if message.is_error() => Stream::Err,
                Some(1..) => Stream::Err,
                _ => Stream::Out,
            };
            self.send(stream, &message.display(&self.server).to_string());
        }
    }

    fn columns(&mut self, columns: &[Column]) {
        self.table = Table::new(columns);
    }

    fn row(&mut self, row: Vec<Value>) {
        self.table.push(&row);
    }

    fn done(&mut self, done: Done) {
        let table = std::mem::take(&mut self.table);
        table.lines(self.style).iter().for_each(|line| self.line(line));
        if let Some(rows) = done.rows {
            self.line(&format!("\n({rows} rows affected)"));
        }
    }
}

fn create(path: &Path) -> Result<File, String> {
    crate::transcript::refuse_stream(path, std::io::stderr().as_fd())
        .map_err(|error| format!("could not create the output file: {error}"))?;
    File::create(path).map_err(|error| format!("could not create the output file {}: {error}", path.display()))
}
