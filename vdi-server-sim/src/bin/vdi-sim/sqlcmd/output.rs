//! What `sqlcmd` prints.
//!
//! # Invariants
//!
//! 1. Printing never holds a statement up, nor fails it: a thread of its own writes, so a pipe that nobody reads may be full, and
//!    one that is closed takes nothing.
//! 2. Everything is written before the program ends, as far as somebody takes it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use vdi_server_sim::messages::Message;

use super::options::Options;

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// The output, and which messages go where.
pub(crate) struct Output {
    lines: Sender<(Stream, String)>,
    writer: JoinHandle<()>,
    /// The name of the server in messages.
    server: String,
    least_severity: i32,
    to_stderr: Option<u8>,
}

impl Output {
    pub(crate) fn new(options: &Options, server: String) -> Result<Output, String> {
        let file = options.output.as_deref().map(create).transpose()?;
        let (lines, arriving) = channel::<(Stream, String)>();
        let write = move || {
            let mut file = file;
            for (stream, text) in arriving {
                let result = match (stream, &mut file) {
                    (Stream::Out, Some(file)) => file.write_all(text.as_bytes()),
                    // A reader that is gone has seen enough.
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
        Ok(Output { lines, writer, server, least_severity: options.message_severity, to_stderr: options.to_stderr })
    }

    /// A line that is no message.
    pub(crate) fn line(&self, text: &str) {
        self.send(Stream::Out, text);
    }

    /// A message of the server, if its severity is to be printed.
    pub(crate) fn message(&self, message: &Message) {
        if i32::from(message.severity) >= self.least_severity {
            let stream = match self.to_stderr {
                Some(0) if message.is_error() => Stream::Err,
                Some(1..) => Stream::Err,
                _ => Stream::Out,
            };
            self.send(stream, &message.display(&self.server).to_string());
        }
    }

    fn send(&self, stream: Stream, text: &str) {
        let _ = self.lines.send((stream, format!("{text}\n")));
    }

    /// Waits until everything is written or refused.
    pub(crate) fn finish(self) {
        drop(self.lines);
        let _ = self.writer.join();
    }
}

fn create(path: &Path) -> Result<File, String> {
    crate::transcript::refuse_stream(path, std::io::stderr().as_fd())
        .map_err(|error| format!("could not create the output file: {error}"))?;
    File::create(path).map_err(|error| format!("could not create the output file {}: {error}", path.display()))
}
