//! Dates and times in strings, as SQL Server reads them in the language us_english.

/// The time as `YYYY-MM-DD hh:mm:ss`. Fractions of a second are dropped.
///
/// The date is `2030-12-31`, `20301231`, `12/31/2030` or `31 Dec 2030`, with `-`, `/`, `.`, space or comma between its parts. The time
/// behind it is `23:59`, `23:59:59` or `23:59:59.997`, with AM or PM or without.
pub(super) fn normalized(text: &str) -> Option<String> {
    let text = text.trim();
    let (date, time) = match text.find(':') {
        // The time begins behind the last space or T before its first colon.
        Some(colon) => text.get(..colon)?.rfind([' ', 'T', 't']).map(|at| (&text[..at], &text[at + 1..]))?,
        None => (text, ""),
    };
    let (year, month, day) = date_of(date)?;
    let (hour, minute, second) = if time.is_empty() { (0, 0, 0) } else { time_of(time)? };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let holds = (1753..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days).contains(&day);
    holds.then(|| format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const FULL_MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Year, month and day.
fn date_of(text: &str) -> Option<(u32, u32, u32)> {
    let parts: Vec<&str> = text.split(['-', '/', '.', ' ', ',']).filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [date] if date.len() == 8 => Some((number(date.get(..4)?)?, number(date.get(4..6)?)?, number(date.get(6..)?)?)),
        [first, second, third] => match (month(first), month(second)) {
            (Some(month), _) => Some((year(third)?, month, number(second)?)),
            (_, Some(month)) => Some((year(third)?, month, number(first)?)),
            _ if first.len() == 4 => Some((year(first)?, number(second)?, number(third)?)),
            _ => Some((year(third)?, number(first)?, number(second)?)),
        },
        _ => None,
    }
}

/// Hour, minute and second.
fn time_of(text: &str) -> Option<(u32, u32, u32)> {
    let lower = text.trim().to_ascii_lowercase();
    let (clock, half) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(clock), _) => (clock, Some(0)),
        (_, Some(clock)) => (clock, Some(12)),
        _ => (&*lower, None),
    };
    let clock = clock.trim().trim_end_matches('z');
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    number(fraction)?;
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (number(hour)?, number(minute)?, 0),
        [hour, minute, second] => (number(hour)?, number(minute)?, number(second)?),
        _ => return None,
    };
    let hour = match half {
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        Some(_) => return None,
        None => hour,
    };
    (hour < 24 && minute < 60 && second < 60).then_some((hour, minute, second))
}

fn month(text: &str) -> Option<u32> {
    let text = text.to_ascii_lowercase();
    let at = MONTHS.iter().zip(FULL_MONTHS).position(|(short, full)| *short == text || full == text)?;
    u32::try_from(at + 1).ok()
}

/// A year of four digits, for which no rule of a century is needed.
fn year(text: &str) -> Option<u32> {
    number(text).filter(|_| text.len() == 4)
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::normalized;

    #[test]
    fn dates_are_read_in_their_formats() {
        for (text, expected) in [
            ("2030-12-31", "2030-12-31 00:00:00"),
            ("20301231", "2030-12-31 00:00:00"),
            (" 12/31/2030 ", "2030-12-31 00:00:00"),
            ("31 Dec 2030", "2030-12-31 00:00:00"),
            ("december 31, 2030 11:59 PM", "2030-12-31 23:59:00"),
            ("2024-02-29T01:02:03.997", "2024-02-29 01:02:03"),
            ("20240229 12:00am", "2024-02-29 00:00:00"),
            ("2030.1.2 3:04", "2030-01-02 03:04:00"),
        ] {
            assert_eq!(normalized(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "x",
            "2030",
            "2030-13-01",
            "2030-02-29",
            "2030-04-31",
            "1752-12-31",
            "12/31/30",
            "2030-12-31 24:00",
            "2030-12-31 1:60",
            "2030-12-31 13:00 PM",
            "2030-12-31 1:2:3:4",
            "+030-12-31",
            "2030-12-31-1",
            ":",
            "é:",
            "2030-12-31 1:00.x",
            "9999999999-1-1",
        ] {
            assert_eq!(normalized(text), None, "{text}");
        }
    }
}
