//! What time it is, in the forms that a backup's header wants.

use rusqlite::Connection;
use vdi_mtf::value::DateTime;

use super::Failure;

/// Days from 1601-01-01, where FILETIME begins, to 1970-01-01.
const FILETIME_EPOCH_DAYS: u64 = 134_774;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Local time, as `TZ` or the system says.
    pub(super) date: DateTime,
    /// Local time minus UTC, in quarters of an hour.
    pub(super) time_zone: i8,
    /// 100 ns since 1601, UTC.
    pub(super) filetime: u64,
}

impl Moment {
    /// Now. The local time is SQLite's, which the catalog brings: it asks the C library.
    pub(super) fn now() -> Result<Moment, Failure> {
        let sql = "SELECT unixepoch(now), unixepoch(now, 'localtime'), strftime('%Y-%m-%d %H:%M:%S', now, 'localtime') \
                   FROM (SELECT datetime('now') AS now)";
        let ask = || {
            Connection::open_in_memory()?
                .query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?)))
        };
        let (utc, local, text) = ask().map_err(|source| not_told(std::io::Error::other(source)))?;
        let date = parse(&text).ok_or_else(|| not_told(std::io::Error::other(format!("the local time {text:?}"))))?;
        let seconds = u64::try_from(utc).unwrap_or(0) + FILETIME_EPOCH_DAYS * 86_400;
        Ok(Moment { date, time_zone: ((local - utc) / 900) as i8, filetime: seconds * 10_000_000 })
    }
}

/// The local time so many days from now.
pub(super) fn in_days(days: u32) -> Result<DateTime, Failure> {
    let sql = "SELECT strftime('%Y-%m-%d %H:%M:%S', 'now', 'localtime', ?1)";
    let ask = || Connection::open_in_memory()?.query_row(sql, [format!("+{days} days")], |row| row.get::<_, String>(0));
    let text = ask().map_err(|source| not_told(std::io::Error::other(source)))?;
    parse(&text).ok_or_else(|| not_told(std::io::Error::other(format!("the local time {text:?}"))))
}

fn not_told(source: std::io::Error) -> Failure {
    Failure::System { action: "tell the local time", source }
}

/// `YYYY-MM-DD hh:mm:ss`.
pub(super) fn parse(text: &str) -> Option<DateTime> {
    let mut numbers = text.split(['-', ' ', ':', 'T']).map(|part| part.parse::<u16>().ok());
    let mut next = || numbers.next().flatten();
    let year = next()?;
    let mut small = || next().and_then(|number| u8::try_from(number).ok());
    let (month, day) = (small()?, small()?);
    let (hour, minute, second) = (small()?, small()?, small()?);
    DateTime::new(year, month, day, hour, minute, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_now() {
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let now = Moment::now().unwrap();
        let seconds = now.filetime / 10_000_000 - FILETIME_EPOCH_DAYS * 86_400;
        assert!((system..system + 10).contains(&seconds), "{seconds}, {system}");
        assert!((-56..=56).contains(&now.time_zone), "{now:?}");
        assert!(now.date.year() >= 2024, "{now:?}");
        let later = in_days(400).unwrap();
        assert!(later.year() == now.date.year() + 1 || later.year() == now.date.year() + 2, "{later}");
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(parse("2024-02-29 23:59:58"), DateTime::new(2024, 2, 29, 23, 59, 58));
        for wrong in
            ["", "2024-02-29", "2024-13-01 00:00:00", "x-02-29 23:59:58", "2024-02-29 23:59:5x", "2024-02-29 300:00:00"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
