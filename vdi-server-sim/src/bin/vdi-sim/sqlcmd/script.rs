//! Batches and statements: what a text for `sqlcmd` consists of.
//!
//! # Invariants
//!
//! 1. Quotes and comments mean here what they mean to `tsql`: both use one tokenizer. A `GO` or `;` inside of them ends nothing.
//! 2. A statement keeps its place: line and column of whatever is said of it are those in its batch.
//! 3. What is not understood is refused with a message, and nothing of its batch runs.

use sqlparser::dialect::MsSqlDialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};
use vdi_server_sim::messages::Message;
use vdi_server_sim::tsql;

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

/// What a statement does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The engine's work: BACKUP or RESTORE, with space before it so that it stands in its place.
    Engine(String),
    /// USE: the database from now on.
    Use(String),
    /// SET of what changes nothing here.
    Nothing,
    /// SET NOCOUNT.
    CountRows(bool),
    /// BEGIN TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// PRINT.
    Print(String),
    /// SELECT of one value, and its column's name.
    Select { value: Value, column: String },
}

/// What can be selected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A literal.
    Literal(String),
    /// `@@VERSION`.
    Version,
    /// `@@SERVERNAME`.
    ServerName,
}

/// A step, and the line of the batch (from 1) where its statement begins.
pub(crate) type Placed = (u32, Step);

/// The words that begin a statement and can stand nowhere else in those that are understood: where one comes, a statement
/// ends, semicolon or not.
const BEGINNINGS: [&str; 9] = ["BACKUP", "RESTORE", "USE", "SET", "PRINT", "SELECT", "BEGIN", "COMMIT", "ROLLBACK"];

/// Takes a batch apart.
///
/// # Errors
/// What the server says to the first statement that cannot be understood.
pub(crate) fn steps(batch: &str) -> Result<Vec<Placed>, Vec<Message>> {
    let Ok(mut tokens) = Tokenizer::new(&MsSqlDialect {}, batch).tokenize_with_location() else {
        // The parser knows what to say to it.
        let error = tsql::parse(batch).err();
        return Err(error.map_or_else(|| vec![Message::incorrect_syntax("")], |error| error.messages(None)));
    };
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let mut statements: Vec<Vec<TokenWithSpan>> = vec![Vec::new()];
    for token in tokens {
        let begins = bare(&token.token).is_some_and(|word| BEGINNINGS.contains(&&*word));
        if begins || token.token == Token::SemiColon {
            statements.push(Vec::new());
        }
        if token.token != Token::SemiColon
            && let Some(statement) = statements.last_mut()
        {
            statement.push(token);
        }
    }
    statements.iter().filter_map(|statement| step(batch, statement).transpose()).collect()
}

/// A word without quotes, in capitals.
fn bare(token: &Token) -> Option<String> {
    match token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value.to_ascii_uppercase()),
        _ => None,
    }
}

fn step(batch: &str, statement: &[TokenWithSpan]) -> Result<Option<Placed>, Vec<Message>> {
    let (Some(first), Some(last)) = (statement.first(), statement.last()) else { return Ok(None) };
    let line = u32::try_from(first.span.start.line).unwrap_or(u32::MAX);
    let tokens: Vec<&Token> = statement.iter().map(|token| &token.token).collect();
    // The word that does not fit, or the last one where something is missing.
    let syntax = |index: usize| {
        let token = statement.get(index).unwrap_or(last);
        let line = u32::try_from(token.span.start.line).unwrap_or(u32::MAX);
        vec![Message::incorrect_syntax(&token.token.to_string()).at_line(line)]
    };
    let own = |text: &str| vec![Message::own(text).at_line(line)];
    let step = match bare(&first.token).as_deref() {
        Some("USE") => match tokens[1..] {
            [Token::Word(word)] => Step::Use(word.value.clone()),
            [Token::Word(_), _, ..] => return Err(syntax(2)),
            _ => return Err(syntax(1)),
        },
        Some("SET") => set(&tokens[1..])
            .ok_or_else(|| own("this SET is not supported by this simulator; SET OPTION ON or OFF is"))?,
        Some(word @ ("BEGIN" | "COMMIT" | "ROLLBACK")) => transaction(word, &tokens[1..]).ok_or_else(|| {
            own("of BEGIN, COMMIT and ROLLBACK only those of a TRANSACTION are supported by this simulator")
        })?,
        Some("PRINT") => match tokens[1..] {
            [Token::SingleQuotedString(text) | Token::NationalStringLiteral(text)] => Step::Print(text.clone()),
            _ => return Err(own("PRINT is supported for one string only by this simulator")),
        },
        Some("SELECT") => select(&tokens[1..]).ok_or_else(|| {
            let what =
                "this SELECT is not supported by this simulator; @@VERSION, @@SERVERNAME, a number and a string are";
            own(what)
        })?,
        _ => {
            let text = &batch[offset(batch, first.span.start)..offset(batch, last.span.end)];
            let lines = usize::try_from(first.span.start.line.saturating_sub(1)).unwrap_or_default();
            let columns = usize::try_from(first.span.start.column.saturating_sub(1)).unwrap_or_default();
            let placed = format!("{}{}{text}", "\n".repeat(lines), " ".repeat(columns));
            tsql::parse(&placed).map_err(|error| error.messages(tsql::verb(&placed)))?;
            Step::Engine(placed)
        }
    };
    Ok(Some((line, step)))
}

/// `BEGIN TRAN [name]`, `COMMIT [TRAN [name]]` or `ROLLBACK [TRAN [name]]`, without the first word.
fn transaction(first: &str, tokens: &[&Token]) -> Option<Step> {
    let (what, name) = match tokens {
        [] => (None, None),
        [what] => (Some(bare(what)?), None),
        [what, name] => (Some(bare(what)?), Some(name)),
        _ => return None,
    };
    let is_transaction = matches!(what.as_deref(), Some("TRAN" | "TRANSACTION"));
    let is_name = name.is_none_or(|name| matches!(name, Token::Word(word) if !word.value.starts_with('@')));
    match first {
        "BEGIN" if is_transaction && is_name => Some(Step::Begin),
        "BEGIN" => None,
        _ if !(is_transaction && is_name || name.is_none() && matches!(what.as_deref(), None | Some("WORK"))) => None,
        "COMMIT" => Some(Step::Commit),
        _ => Some(Step::Rollback),
    }
}

/// `SET OPTION {, OPTION} ON|OFF` and `SET OPTION VALUE`.
fn set(tokens: &[&Token]) -> Option<Step> {
    let (value, options) = tokens.split_last()?;
    let mut names = Vec::new();
    for (index, option) in options.iter().enumerate() {
        match (index % 2, option) {
            (0, option) => names.push(bare(option).filter(|name| !name.starts_with('@'))?),
            (_, Token::Comma) => {}
            _ => return None,
        }
    }
    let value = match value {
        Token::Number(..) => None,
        word => Some(bare(word)?),
    };
    match (options.len() % 2, value.as_deref()) {
        (1, Some(value @ ("ON" | "OFF"))) if names.iter().any(|name| name == "NOCOUNT") => {
            Some(Step::CountRows(value == "OFF"))
        }
        (1, Some("ON" | "OFF")) => Some(Step::Nothing),
        (1, _) if names.len() == 1 => Some(Step::Nothing),
        _ => None,
    }
}

/// One value, and `AS NAME` or nothing behind it.
fn select(tokens: &[&Token]) -> Option<Step> {
    let (value, name) = tokens.split_first()?;
    let value = match value {
        Token::SingleQuotedString(text) | Token::NationalStringLiteral(text) => Value::Literal(text.clone()),
        Token::Number(digits, _) => Value::Literal(digits.clone()),
        word => match bare(word)?.as_str() {
            "@@VERSION" => Value::Version,
            "@@SERVERNAME" => Value::ServerName,
            _ => return None,
        },
    };
    let column = match name {
        [] => String::new(),
        [Token::Word(name)] => name.value.clone(),
        [word, Token::Word(name)] if bare(word).as_deref() == Some("AS") => name.value.clone(),
        _ => return None,
    };
    Some(Step::Select { value, column })
}

/// The byte of a place that the tokenizer names.
fn offset(text: &str, at: Location) -> usize {
    let lines = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let columns = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let line = text.get(start..).unwrap_or_default();
    start + line.char_indices().nth(columns).map_or(line.len(), |(at, _)| at)
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

    #[test]
    fn a_batch_is_taken_apart() {
        let batch = "use [sales]; set nocount on\nSET ANSI_NULLS, QUOTED_IDENTIFIER ON SET LOCK_TIMEOUT 5;;\n  BACKUP DATABASE \
                     [use;] -- é;\n TO VIRTUAL_DEVICE=N'ü;set' WITH STATS=5 PRINT 'it''s';select @@version as v";
        let backup = "\n\n  BACKUP DATABASE [use;] -- é;\n TO VIRTUAL_DEVICE=N'ü;set' WITH STATS=5";
        assert_eq!(
            steps(batch),
            Ok(vec![
                (1, Step::Use("sales".to_owned())),
                (1, Step::CountRows(false)),
                (2, Step::Nothing),
                (2, Step::Nothing),
                (3, Step::Engine(backup.to_owned())),
                (4, Step::Print("it's".to_owned())),
                (4, Step::Select { value: Value::Version, column: "v".to_owned() }),
            ])
        );
        let batch = "begin tran BEGIN TRANSACTION [a] commit COMMIT WORK commit tran a rollback Rollback Transaction";
        let [begin, commit, rollback] = [Step::Begin, Step::Commit, Step::Rollback];
        let found: Vec<_> = steps(batch).expect(batch).into_iter().map(|(_, step)| step).collect();
        assert!(found[..2].iter().all(|step| *step == begin) && found[2..5].iter().all(|step| *step == commit));
        assert!(found[5..].iter().all(|step| *step == rollback) && found.len() == 7, "{found:?}");
        assert_eq!(steps(" ;; -- nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_refused_in_its_place() {
        for (batch, line, number, text) in [
            ("USE d\nUSE", 2, 102, "near 'USE'"),
            ("USE d x", 1, 102, "near 'x'"),
            ("PRINT 'a'\n\nBACKUP DATABASE d\nFORM x", 4, 102, "near 'FORM'"),
            ("PRINT 'a' +\n 'b'", 1, 50000, "PRINT"),
            ("SET @a = 1", 1, 50000, "SET"),
            ("BEGIN PRINT 'a'", 1, 50000, "TRANSACTION"),
            ("BEGIN TRAN a b", 1, 50000, "TRANSACTION"),
            ("COMMIT WORK a", 1, 50000, "TRANSACTION"),
            ("SET NOCOUNT ON EXEC p", 1, 50000, "SET"),
            ("SELECT name FROM sys.databases", 1, 50000, "SELECT"),
            ("\nEXEC p", 2, 50000, "EXEC"),
            ("BACKUP DATABASE d TO VIRTUAL_DEVICE='s' x", 1, 102, "near 'x'"),
            ("\n'a", 2, 105, "Unclosed quotation mark"),
            ("hello", 1, 102, "near 'hello'"),
        ] {
            let message = steps(batch).expect_err(batch).swap_remove(0);
            assert_eq!((message.line, message.number), (line, number), "{batch}: {message:?}");
            assert!(message.text.contains(text), "{batch}: {message:?}");
        }
    }
}
