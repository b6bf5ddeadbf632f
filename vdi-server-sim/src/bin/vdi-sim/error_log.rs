//! `vdi-sim sql --log`: the error log of the server. A message has two lines, as in SQL Server's error log.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use vdi_server_sim::messages::Message;
use vdi_server_sim::types::DateTime;

/// Opens the log; messages are appended to an existing file. A write error does not change the statement. It ends the log, and is
/// reported on the standard error.
///
/// # Errors
/// The file cannot be opened. The error names it.
pub(crate) fn open(path: &Path) -> Result<impl Fn(&Message) + Send + Sync + use<>, String> {
    let failed = |error: std::io::Error| format!("could not open the log {}: {error}", path.display());
    let file = File::options().append(true).create(true).open(path).map_err(failed)?;
    let (file, path) = (Mutex::new(Some(file)), path.to_owned());
    Ok(move |message: &Message| {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write: several servers may append to one log.
        let entry = entry(SystemTime::now(), message);
        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(entry.as_bytes())) {
            *file = None;
            let _ = writeln!(std::io::stderr(), "vdi-sim: the log {} ends here: {error}", path.display());
        }
    })
}

fn entry(time: SystemTime, message: &Message) -> String {
    let Message { number, severity, state, text, .. } = message;
    let time = stamp(time);
    format!("{time} Backup      Error: {number}, Severity: {severity}, State: {state}.\n{time} Backup      {text}\n")
}

/// `2026-11-30 20:15:02.47`, in UTC.
fn stamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, hundredths) = (since.as_secs(), since.subsec_millis() / 10);
    // 25567 days from 1900-01-01 to 1970-01-01.
    let days = i32::try_from(seconds / 86_400 + 25_567).unwrap_or(i32::MAX);
    let (year, month, day) = DateTime { days, ticks: 0 }.date();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{hundredths:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_has_two_lines() {
        let time = UNIX_EPOCH + Duration::from_millis(1_796_069_702_470);
        assert_eq!(
            entry(time, &Message::new(3041, 16, "BACKUP failed to complete the command BACKUP DATABASE d.")),
            "2026-11-30 20:15:02.47 Backup      Error: 3041, Severity: 16, State: 1.\n2026-11-30 20:15:02.47 Backup      BACKUP \
             failed to complete the command BACKUP DATABASE d.\n"
        );
    }
}
