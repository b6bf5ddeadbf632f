//! The lines of a script for `sqlcmd`: directives, and variables in the lines of batches.
//!
//! # Invariants
//!
//! 1. A `GO` inside of quotes or a comment does not end a batch. The server's parser uses the same tokenizer, so both agree about
//!    quotes and comments.
//! 2. A line of a batch changes only where `$(NAME)` is replaced. So line numbers of messages are those of the batch.

use sqlparser::dialect::MsSqlDialect;
use sqlparser::tokenizer::Tokenizer;

/// A command line of sqlcmd.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Run the batch this many times.
    Go(u32),
    /// End the program.
    Quit,
    /// A command that is not supported.
    Unknown,
}

/// The directive in a line that begins outside of quotes and comments. `batch_end` is `GO`, or the word of `-c`.
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

/// Replaces `$(NAME)` by its value. Text of this form is not changed if NAME is not a valid name.
///
/// # Errors
/// A name has no value. The error is the name.
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
    fn directives_are_recognised() {
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
    fn open_quotes_and_comments_are_recognised() {
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
