//! `vdi-sim sql --log`: the error log of the server, two lines a message as SQL Server writes them.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use vdi_server_sim::messages::Message;

/// Opens the log; a file that exists goes on. What cannot be written is told on the standard error and ends the log, and changes
/// nothing about the statement.
///
/// # Errors
/// The file cannot be opened, with its path.
pub(crate) fn open(path: &Path) -> Result<impl Fn(&Message) + Send + Sync + use<>, String> {
    let failed = |error: std::io::Error| format!("could not open the log {}: {error}", path.display());
    let file = File::options().append(true).create(true).open(path).map_err(failed)?;
    let (file, path) = (Mutex::new(Some(file)), path.to_owned());
    Ok(move |message: &Message| {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // In one piece: several servers may write into one log.
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
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{hundredths:02}")
}

/// Year, month and day of so many days after 1970-01-01. The year is taken to begin on the first of March, so that a leap day is
/// its last day.
fn date(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01. 400 years have 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months of 31 and 30 days in turn have 153 days in five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (next, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_has_two_lines() {
        let time = UNIX_EPOCH + Duration::from_millis(1_796_069_702_470);
        assert_eq!(
            entry(time, &Message::backup_failed("BACKUP DATABASE d")),
            "2026-11-30 20:15:02.47 Backup      Error: 3041, Severity: 16, State: 1.\n2026-11-30 20:15:02.47 Backup      BACKUP \
             failed to complete the command BACKUP DATABASE d. Check the backup application log for detailed messages.\n"
        );
    }

    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (364, (1970, 12, 31)),
            (365, (1971, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
