//! Lines: what a text for `sqlcmd` consists of, until its batches go to the server.
//!
//! # Invariants
//!
//! 1. Quotes and comments mean here what they mean to the server: both use one tokenizer. A `GO` inside of them ends nothing.
//! 2. The lines of a batch stay as they are but for `$(NAME)`, so a message's line is that in its batch.

use sqlparser::dialect::MsSqlDialect;
use sqlparser::tokenizer::Tokenizer;

/// A line that is for sqlcmd itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// The batch ends, and runs so many times.
    Go(u32),
    /// The program ends.
    Quit,
    /// One that is not done here.
    Unknown,
}

/// What a line is for sqlcmd itself, where it begins outside of quotes and comments. `batch_end` is `GO` or what stands for it.
pub(crate) fn directive(line: &str, batch_end: &str) -> Option<Directive> {
    let mut words = line.split_whitespace();
    let first = words.next()?;
    let is = |name: &str| first.eq_ignore_ascii_case(name);
    if is(batch_end) {
        return match (words.next(), words.next()) {
            (None, _) => Some(Directive::Go(1)),
            (Some(count), None) => count.parse().ok().map(Directive::Go),
            _ => None,
        };
    }
    let alone = words.next().is_none();
    match first.strip_prefix(':').unwrap_or(first).to_ascii_uppercase().as_str() {
        "QUIT" | "EXIT" if alone => Some(Directive::Quit),
        _ if first.starts_with(':') || first.starts_with("!!") => Some(Directive::Unknown),
        _ => None,
    }
}

/// Whether the text ends inside of quotes or a comment.
pub(crate) fn is_open(text: &str) -> bool {
    Tokenizer::new(&MsSqlDialect {}, text).tokenize().is_err()
}

/// Puts values in the place of `$(NAME)`. Text of this form that cannot be a name stays.
///
/// # Errors
/// The name without a value.
pub(crate) fn substitute(line: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), line);
    while let Some((before, behind)) = rest.split_once("$(") {
        done.push_str(before);
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
        match behind.split_once(')').filter(|(name, _)| is_name(name)) {
            Some((name, behind)) => {
                done.push_str(&value(name).ok_or_else(|| name.to_owned())?);
                rest = behind;
            }
            None => {
                done.push_str("$(");
                rest = behind;
            }
        }
    }
    Ok(done + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_lines_of_their_own() {
        for (line, expected) in [
            ("GO", Some(Directive::Go(1))),
            ("  go \t", Some(Directive::Go(1))),
            ("Go 3", Some(Directive::Go(3))),
            ("GOTO x", None),
            ("GO x", None),
            ("quit", Some(Directive::Quit)),
            (":Exit", Some(Directive::Quit)),
            (":r other.sql", Some(Directive::Unknown)),
            ("!! ls", Some(Directive::Unknown)),
            ("", None),
            ("BACKUP DATABASE d", None),
        ] {
            assert_eq!(directive(line, "GO"), expected, "{line:?}");
        }
        assert_eq!(directive("go", "END"), None);
        assert_eq!(directive("end", "END"), Some(Directive::Go(1)));
    }

    #[test]
    fn quotes_and_comments_are_open_until_they_are_closed() {
        for open in ["'a\n", "[a", "\"a", "/* a", "N'a''"] {
            assert!(is_open(open), "{open}");
        }
        for closed in ["", "'a'", "-- it's", "[a]", "/* ' */", "a''''b"] {
            assert!(!is_open(closed), "{closed}");
        }
    }

    #[test]
    fn variables_are_replaced() {
        let value = |name: &str| (name == "db").then(|| "sales".to_owned());
        assert_eq!(substitute("[$(db)] $(d b) $( $()", value).as_deref(), Ok("[sales] $(d b) $( $()"));
        assert_eq!(substitute("$(db)$(set)", value), Err("set".to_owned()));
    }
}
