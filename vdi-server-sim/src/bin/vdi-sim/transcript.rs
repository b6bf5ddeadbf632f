//! `vdi-sim sql --transcript`: a file with the events of a statement's set, one line per event.
//!
//! # Invariants
//!
//! 1. A write error does not change the statement. It ends the transcript, and is reported on the standard error.
//! 2. Each line is written when its event occurs, with one write. So the transcript of a killed process has all events before.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

struct Transcript {
    path: PathBuf,
    started: Instant,
    /// `None` after a write error.
    file: Mutex<Option<File>>,
}

/// Begins a transcript of this process. An existing file is overwritten.
///
/// # Errors
/// The file cannot be created, or is the standard output or the standard error of this process.
pub(crate) fn begin(path: &Path, statement: &str) -> Result<(), Box<dyn std::error::Error>> {
    for stream in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        refuse_stream(path, stream).map_err(|error| format!("could not create the transcript: {error}"))?;
    }
    let file =
        File::create(path).map_err(|error| format!("could not create the transcript {}: {error}", path.display()))?;
    let transcript = Transcript { path: path.to_owned(), started: Instant::now(), file: Mutex::new(Some(file)) };
    transcript.write(|_| format!("# {}\n#     ms  device\n", one_line(statement)));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(transcript))?;
    Ok(())
}

/// Checks that `path` is not the regular file that `stream` writes to: each would overwrite the data of the other.
///
/// # Errors
/// It is the same file.
pub(crate) fn refuse_stream(path: &Path, stream: BorrowedFd<'_>) -> Result<(), String> {
    let is_same = || {
        let (found, stream) = (path.metadata().ok()?, File::from(stream.try_clone_to_owned().ok()?).metadata().ok()?);
        Some(found.is_file() && (found.dev(), found.ino()) == (stream.dev(), stream.ino()))
    };
    match is_same() {
        Some(true) => Err(format!("{} is where this program's messages go; name another file", path.display())),
        _ => Ok(()),
    }
}

impl Transcript {
    /// Writes the text that `lines` returns for the time since the start. The time is taken under the lock, so that times in the
    /// file never decrease.
    fn write(&self, lines: impl FnOnce(Duration) -> String) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines(self.started.elapsed());
        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(lines.as_bytes())) {
            *file = None;
            let _ = writeln!(std::io::stderr(), "vdi-sim: the transcript {} ends here: {error}", self.path.display());
        }
    }
}

impl<S: Subscriber> Layer<S> for Transcript {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == "vdi_server_sim"
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.write(|at| fields.line(at));
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

impl Fields {
    /// The value of a field; empty if there is no such field.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
    }

    fn line(&self, at: Duration) -> String {
        let command = || format!("{:<15} #{:<5} {:>7} bytes", self.get("command"), self.get("id"), self.get("bytes"));
        let event = self.get("message");
        let (arrow, mut what) = match event {
            "command sent" => ("->", command()),
            "command completed" => ("<-", command()),
            _ => ("--", event.to_owned()),
        };
        match event {
            "command sent" => {
                for name in ["size", "position"] {
                    // The size of a transfer is its bytes.
                    if ![self.get("bytes"), "0"].contains(&self.get(name)) {
                        let _ = write!(what, ", {name} {}", self.get(name));
                    }
                }
            }
            "command completed" => {
                if self.get("position") != "0" {
                    let _ = write!(what, ", position {}", self.get("position"));
                }
                let outstanding = self.get("outstanding_us").parse().map_or(0.0, |us: f64| us / 1000.0);
                let _ = write!(what, ", {}, after {outstanding:.3} ms", self.get("code"));
            }
            // The error has all further fields.
            "call refused" => what = format!("refused: {}", self.get("error")),
            _ => {
                let is_shown = |name, value: &str| !value.is_empty() && !["message", "call", "device"].contains(name);
                let rest = self.0.iter().filter(|(name, value)| is_shown(name, value));
                for (index, (name, value)) in rest.enumerate() {
                    let _ = write!(what, "{} {name} {value}", if index == 0 { ":" } else { "," });
                }
            }
        }
        let ms = at.as_secs_f64() * 1000.0;
        format!("{ms:>8.3}  {:<16} {arrow} {}\n", one_line(self.get("device")), one_line(&what))
    }
}

/// The text with its control characters escaped.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: &[(&'static str, &str)]) -> String {
        Fields(fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
            .line(Duration::from_micros(1234))
    }

    #[test]
    fn lines_of_all_kinds_of_events() {
        let command = [("device", "d"), ("id", "7"), ("command", "Write"), ("bytes", "512"), ("position", "0")];
        let with = |more: &[(&'static str, &'static str)]| line(&[&command[..], more].concat());
        assert_eq!(
            with(&[("size", "512"), ("message", "command sent")]),
            "   1.234  d                -> Write           #7         512 bytes\n"
        );
        assert_eq!(
            with(&[("code", "ERROR_SUCCESS (0)"), ("outstanding_us", "2500"), ("message", "command completed")]),
            "   1.234  d                <- Write           #7         512 bytes, ERROR_SUCCESS (0), after 2.500 ms\n"
        );
        let positioned = [("command", "SetPosition"), ("bytes", "0"), ("size", "2"), ("position", "9")];
        let positioned = line(&[&positioned[..], &[("message", "command sent")]].concat());
        assert!(positioned.ends_with("bytes, size 2, position 9\n"), "{positioned}");
        assert_eq!(
            line(&[("call", "Open"), ("set", "a\nb"), ("instance", ""), ("devices", "2"), ("message", "set opened")]),
            "   1.234                   -- set opened: set a\\nb, devices 2\n"
        );
        assert!(line(&[("error", "Open: no"), ("message", "call refused")]).ends_with("-- refused: Open: no\n"));
    }
}
