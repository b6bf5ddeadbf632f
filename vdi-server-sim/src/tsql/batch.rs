//! Batches: several statements in one text.
//!
//! ```text
//! batch     := {statement | ;}
//! statement := BACKUP ... | RESTORE ...
//!            | CREATE DATABASE ... | ALTER DATABASE ... | DROP DATABASE ...
//!            | USE name
//!            | SET option {, option} (ON | OFF) | SET option value
//!            | BEGIN TRAN[SACTION] [name]
//!            | (COMMIT | ROLLBACK) [WORK | TRAN[SACTION] [name]]
//!            | PRINT string
//!            | SELECT (string | number | @@VERSION | @@SERVERNAME) [[AS] name]
//! ```
//!
//! # Invariants
//!
//! 1. A batch that holds BACKUP or RESTORE alone has one step: that statement, as [`parse`](super::parse) understands it.
//! 2. A batch is understood as a whole before anything of it runs. What is not understood is refused in its place.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::{Cursor, bare, words};
use super::error::TsqlError;
use super::{AlterDatabase, CreateDatabase, DropDatabase, Inspection, Statement, database, end, statement};
use crate::messages::Message;
use crate::types::{Parameter, SqlType, Value};

/// A statement of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line of the batch where it begins, from 1.
    pub line: u32,
    /// What it does.
    pub action: Action,
}

/// What a statement of a batch does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// BACKUP or RESTORE.
    Statement(Box<Statement>),
    /// CREATE DATABASE.
    Create(CreateDatabase),
    /// ALTER DATABASE.
    Alter(AlterDatabase),
    /// DROP DATABASE.
    Drop(DropDatabase),
    /// USE: this is the database from now on.
    Use(String),
    /// SET NOCOUNT: whether rows are counted from now on.
    CountRows(bool),
    /// SET of another option. It changes nothing here.
    Set,
    /// BEGIN TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// PRINT.
    Print(String),
    /// SELECT of one value.
    Select {
        /// The value.
        value: Selected,
        /// The column's name; empty where there is none.
        column: String,
    },
}

/// What SELECT answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selected {
    /// A literal, and its type.
    Literal(SqlType, Value),
    /// `@@VERSION`.
    Version,
    /// `@@SERVERNAME`.
    ServerName,
}

/// A batch that cannot be carried out as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// What is wrong with the first statement at fault.
    pub error: TsqlError,
    /// What message 3013 calls this statement ([`Statement::title`]), where it is BACKUP or RESTORE.
    pub title: Option<&'static str>,
}

impl Refusal {
    /// All that the client of the batch gets to see.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.error.messages(self.title)
    }
}

/// The words that begin a statement and can stand nowhere else in those that are understood, but for the places of [`ends_statement`]:
/// where one comes, a statement ends, semicolon or not.
const BEGINNINGS: [&str; 12] =
    ["BACKUP", "RESTORE", "CREATE", "ALTER", "DROP", "USE", "SET", "PRINT", "SELECT", "BEGIN", "COMMIT", "ROLLBACK"];

/// Understands a batch. In BACKUP and RESTORE the names of databases and devices and the texts and numbers of options may be variables,
/// which have the values of `parameters`.
///
/// # Errors
/// [`Refusal`] of the first statement that cannot be understood. Total: no text makes it panic.
///
/// ```
/// use vdi_server_sim::tsql::{Action, Statement, parse_batch};
/// use vdi_server_sim::types::{Parameter, Value};
///
/// let device = Parameter::new("@device", Value::Text("nightly".to_owned()));
/// let steps = parse_batch("USE sales; BACKUP DATABASE sales\nTO VIRTUAL_DEVICE = @device", &[device])?;
/// let [_, step] = &steps[..] else { panic!("two statements: {steps:?}") };
/// let Action::Statement(statement) = &step.action else { panic!("a backup: {step:?}") };
/// assert!(matches!(&**statement, Statement::Backup(backup) if backup.devices.names == ["nightly"]));
/// # Ok::<(), vdi_server_sim::tsql::Refusal>(())
/// ```
pub fn parse_batch(sql: &str, parameters: &[Parameter]) -> Result<Vec<Step>, Refusal> {
    let tokens = words(sql).map_err(|error| Refusal { error, title: None })?;
    let mut steps = Vec::new();
    let mut rest = &tokens[..];
    while let Some(first) = rest.first() {
        if first.token == Token::SemiColon {
            rest = &rest[1..];
            continue;
        }
        let next = (1..rest.len()).find(|at| ends_statement(rest, *at)).unwrap_or(rest.len());
        let (this, behind) = rest.split_at(next);
        let line = u32::try_from(first.span.start.line).unwrap_or(u32::MAX).max(1);
        let action = action(this, parameters).map_err(|error| Refusal { error, title: title(this) })?;
        steps.push(Step { line, action });
        rest = behind;
    }
    Ok(steps)
}

/// Whether a statement that begins with the first of the words ends before that at `at`.
fn ends_statement(words: &[TokenWithSpan], at: usize) -> bool {
    let (token, before) = (&words[at].token, &words[at - 1].token);
    // ALTER DATABASE name SET ... WITH ROLLBACK ...
    let belongs =
        is(&words[0].token, "ALTER") && (at == 3 && is(token, "SET") || is(token, "ROLLBACK") && is(before, "WITH"));
    *token == Token::SemiColon || !belongs && BEGINNINGS.iter().any(|word| is(token, word))
}

/// What message 3013 calls the statement, which may be at fault.
fn title(words: &[TokenWithSpan]) -> Option<&'static str> {
    let word = |at: usize, keyword| words.get(at).is_some_and(|word| is(&word.token, keyword));
    let inspections = [Inspection::Label, Inspection::Header, Inspection::FileList, Inspection::Verify];
    match inspections.into_iter().find(|what| word(1, what.keyword())) {
        _ if word(0, "BACKUP") => Some("BACKUP DATABASE"),
        Some(what) if word(0, "RESTORE") => Some(what.title()),
        None if word(0, "RESTORE") => Some("RESTORE DATABASE"),
        _ => None,
    }
}

fn is(token: &Token, keyword: &str) -> bool {
    bare(token).is_some_and(|word| word.eq_ignore_ascii_case(keyword))
}

/// What the words of one statement, which are some, mean.
fn action(statement_words: &[TokenWithSpan], parameters: &[Parameter]) -> Result<Action, TsqlError> {
    let mut cursor = Cursor::new(statement_words, parameters);
    let at = cursor.mark();
    let tokens: Vec<&Token> = statement_words.iter().skip(1).map(|token| &token.token).collect();
    // What makes and changes databases has no variables.
    let mut literal = Cursor::new(statement_words, &[]);
    if literal.take_keyword("CREATE") {
        return database::create(&mut literal).map(Action::Create);
    }
    if literal.take_keyword("ALTER") {
        return database::alter(&mut literal).map(Action::Alter);
    }
    if literal.take_keyword("DROP") {
        return database::remove(&mut literal).map(Action::Drop);
    }
    if cursor.take_keyword("USE") {
        let name = cursor.identifier("the name of a database")?;
        end(&mut cursor)?;
        return Ok(Action::Use(name));
    }
    let own = |action: Option<Action>, what| action.ok_or_else(|| at.not_supported(what));
    if cursor.take_keyword("SET") {
        return own(set(&tokens), "this SET is not supported by this simulator; SET OPTION ON or OFF is");
    }
    for (word, done) in [("BEGIN", Action::Begin), ("COMMIT", Action::Commit), ("ROLLBACK", Action::Rollback)] {
        if cursor.take_keyword(word) {
            let what = "of BEGIN, COMMIT and ROLLBACK only those of a TRANSACTION are supported by this simulator";
            return own(is_of_transaction(done == Action::Begin, &tokens).then_some(done), what);
        }
    }
    if cursor.take_keyword("PRINT") {
        let text = match tokens[..] {
            [Token::SingleQuotedString(text) | Token::NationalStringLiteral(text)] => Some(Action::Print(text.clone())),
            _ => None,
        };
        return own(text, "PRINT is supported for one string only by this simulator");
    }
    if cursor.take_keyword("SELECT") {
        let what = "this SELECT is not supported by this simulator; @@VERSION, @@SERVERNAME, a number and a string are";
        return own(select(&tokens), what);
    }
    Ok(Action::Statement(Box::new(statement(&mut cursor)?)))
}

/// `TRAN [name]`; nothing or `WORK`, too, where a transaction ends.
fn is_of_transaction(begins: bool, tokens: &[&Token]) -> bool {
    match tokens {
        [] => !begins,
        [what] if is(what, "WORK") => !begins,
        [what, name @ ..] if is(what, "TRAN") || is(what, "TRANSACTION") => match name {
            [] => true,
            [Token::Word(name)] => !name.value.starts_with('@'),
            _ => false,
        },
        _ => false,
    }
}

/// `OPTION {, OPTION} ON|OFF` or `OPTION VALUE`.
fn set(tokens: &[&Token]) -> Option<Action> {
    let (value, options) = tokens.split_last()?;
    let mut names = Vec::new();
    for (index, option) in options.iter().enumerate() {
        match (index % 2, option) {
            (0, option) => names.push(bare(option).filter(|name| !name.starts_with('@'))?),
            (_, Token::Comma) => {}
            _ => return None,
        }
    }
    let (on, off) = (is(value, "ON"), is(value, "OFF"));
    let is_value = bare(value).is_some() || matches!(value, Token::Number(..));
    match options.len() % 2 {
        1 if (on || off) && names.iter().any(|name| name.eq_ignore_ascii_case("NOCOUNT")) => {
            Some(Action::CountRows(off))
        }
        1 if on || off || is_value && names.len() == 1 => Some(Action::Set),
        _ => None,
    }
}

/// One value, and `AS NAME`, `NAME` or nothing behind it.
fn select(tokens: &[&Token]) -> Option<Action> {
    let (value, name) = tokens.split_first()?;
    // What is longer than a length can be is of length `max`.
    let length = |text: &str, most| u16::try_from(text.chars().count().max(1)).ok().filter(|length| *length <= most);
    let value = match value {
        Token::SingleQuotedString(text) => {
            Selected::Literal(SqlType::VarChar { length: length(text, 8000) }, Value::Text(text.clone()))
        }
        Token::NationalStringLiteral(text) => {
            Selected::Literal(SqlType::NVarChar { length: length(text, 4000) }, Value::Text(text.clone()))
        }
        Token::Number(digits, _) => number(digits)?,
        word if is(word, "@@VERSION") => Selected::Version,
        word if is(word, "@@SERVERNAME") => Selected::ServerName,
        _ => return None,
    };
    let column = match name {
        [] => String::new(),
        [Token::Word(name)] => name.value.clone(),
        [word, Token::Word(name)] if is(word, "AS") => name.value.clone(),
        _ => return None,
    };
    Some(Action::Select { value, column })
}

/// A number of up to 38 digits: an `int`, or a `numeric` where it has a point or is too large.
fn number(text: &str) -> Option<Selected> {
    if let Ok(number) = text.parse() {
        return Some(Selected::Literal(SqlType::Int, Value::Int(number)));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('0'));
    let precision = u8::try_from(digits.len().max(1)).ok().filter(|precision| *precision <= 38)?;
    let scale = u8::try_from(fraction.len()).ok()?;
    let unscaled = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(Selected::Literal(SqlType::Numeric { precision, scale }, Value::Numeric { unscaled, scale }))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::types::DateTime;

    fn actions(batch: &str) -> Vec<Action> {
        parse_batch(batch, &[]).expect(batch).into_iter().map(|step| step.action).collect()
    }

    #[test]
    fn a_batch_is_taken_apart() {
        let batch = "use [sales]; set nocount on\nSET ANSI_NULLS, QUOTED_IDENTIFIER ON SET LOCK_TIMEOUT 5;;\n  BACKUP DATABASE \
                     [use;] -- é;\n TO VIRTUAL_DEVICE=N'ü;set' WITH STATS=5 PRINT 'it''s';select @@version as v";
        let backup = parse("BACKUP DATABASE [use;] TO VIRTUAL_DEVICE='ü;set' WITH STATS=5").expect("a backup");
        let expected = [
            (1, Action::Use("sales".to_owned())),
            (1, Action::CountRows(false)),
            (2, Action::Set),
            (2, Action::Set),
            (3, Action::Statement(Box::new(backup))),
            (4, Action::Print("it's".to_owned())),
            (4, Action::Select { value: Selected::Version, column: "v".to_owned() }),
        ];
        assert_eq!(parse_batch(batch, &[]), Ok(expected.map(|(line, action)| Step { line, action }).to_vec()));
        let [begin, commit, rollback] = [Action::Begin, Action::Commit, Action::Rollback];
        let found =
            actions("begin tran BEGIN TRANSACTION [a] commit COMMIT WORK commit tran a rollback Rollback Transaction");
        assert!(found[..2].iter().all(|step| *step == begin) && found[2..5].iter().all(|step| *step == commit));
        assert!(found[5..].iter().all(|step| *step == rollback) && found.len() == 7, "{found:?}");
        assert_eq!(actions(" ;; -- nothing\n"), []);
    }

    #[test]
    fn literals_have_sql_server_s_types() {
        for (literal, sql_type, shown) in [
            ("2147483647", SqlType::Int, "2147483647"),
            ("007", SqlType::Int, "7"),
            ("2147483648", SqlType::Numeric { precision: 10, scale: 0 }, "2147483648"),
            ("1.50", SqlType::Numeric { precision: 3, scale: 2 }, "1.50"),
            ("0.05", SqlType::Numeric { precision: 2, scale: 2 }, "0.05"),
            ("'ü'", SqlType::VarChar { length: Some(1) }, "ü"),
            ("N''", SqlType::NVarChar { length: Some(1) }, ""),
        ] {
            let actions = actions(&format!("SELECT {literal}"));
            let [Action::Select { value: Selected::Literal(found, value), .. }] = &actions[..] else {
                panic!("{literal}: {actions:?}")
            };
            assert_eq!((*found, &*value.to_string()), (sql_type, shown), "{literal}");
        }
        let long = format!("SELECT N'{}'", "x".repeat(4001));
        let [Action::Select { value: Selected::Literal(SqlType::NVarChar { length: None }, _), .. }] =
            &actions(&long)[..]
        else {
            panic!("a text of length max")
        };
    }

    #[test]
    fn variables_stand_for_databases_devices_and_texts() {
        let parameters = [
            Parameter::new("@db", Value::Text("it's [a]".to_owned())),
            Parameter::new("@Device", Value::Text("nightly".to_owned())),
            Parameter::new("@n", Value::Int(5)),
            Parameter::new("@empty", Value::Text(String::new())),
            Parameter::new("@file", Value::Numeric { unscaled: 2, scale: 0 }),
            Parameter::new("@half", Value::Numeric { unscaled: 5, scale: 1 }),
            Parameter::new("@when", Value::DateTime(DateTime { days: 47_846, ticks: 299 })),
        ];
        let sql = "RESTORE DATABASE @DB FROM VIRTUAL_DEVICE=@device, VIRTUAL_DEVICE='b' WITH MEDIANAME=@empty";
        let steps = parse_batch(sql, &parameters).expect(sql);
        let literal =
            "RESTORE DATABASE [it's [a]]] FROM VIRTUAL_DEVICE='nightly', VIRTUAL_DEVICE='b' WITH MEDIANAME=''";
        let statement = Box::new(parse(literal).expect(literal));
        assert_eq!(steps, [Step { line: 1, action: Action::Statement(statement) }]);
        for (sql, literal) in [
            (
                "BACKUP DATABASE d FILE=@db TO DISK=@device WITH STATS=@n",
                "BACKUP DATABASE d FILE='it''s [a]' TO DISK='nightly' WITH STATS=5",
            ),
            (
                "BACKUP DATABASE d TO DISK='x' WITH EXPIREDATE=@when",
                "BACKUP DATABASE d TO DISK='x' WITH EXPIREDATE='2030-12-31'",
            ),
            (
                "RESTORE DATABASE d FROM DISK='x' WITH FILE=@file, MOVE @db TO @device",
                "RESTORE DATABASE d FROM DISK='x' WITH FILE=2, MOVE 'it''s [a]' TO 'nightly'",
            ),
        ] {
            let statement = Box::new(parse(literal).expect(literal));
            assert_eq!(parse_batch(sql, &parameters).expect(sql)[0].action, Action::Statement(statement), "{sql}");
        }
        for (sql, number, text) in [
            ("BACKUP DATABASE @gone TO VIRTUAL_DEVICE='s'", 137, "\"@gone\""),
            ("BACKUP DATABASE d TO VIRTUAL_DEVICE=@gone", 137, "\"@gone\""),
            ("BACKUP DATABASE @n TO VIRTUAL_DEVICE='s'", 50000, "the variable @n is int: give it a string"),
            ("BACKUP DATABASE @empty TO VIRTUAL_DEVICE='s'", 1038, "missing or empty"),
            ("BACKUP DATABASE d TO VIRTUAL_DEVICE=@empty", 3044, "zero-length"),
            (
                "BACKUP DATABASE d TO VIRTUAL_DEVICE='s' WITH STATS=@db",
                50000,
                "the variable @db is string: give it a whole number",
            ),
            (
                "BACKUP DATABASE d TO VIRTUAL_DEVICE='s' WITH STATS=@half",
                50000,
                "the variable @half is numeric: give it a whole number",
            ),
            ("BACKUP DATABASE d TO VIRTUAL_DEVICE='s' WITH STATS=@gone", 137, "\"@gone\""),
            ("BACKUP DATABASE d TO VIRTUAL_DEVICE='s' WITH BLOCKSIZE=@n", 3217, "BLOCKSIZE"),
            ("CREATE DATABASE @db", 102, "near '@db'"),
            ("DROP DATABASE @db", 102, "near '@db'"),
            ("USE @db", 102, "near '@db'"),
        ] {
            let messages = parse_batch(sql, &parameters).expect_err(sql).messages();
            assert_eq!(messages[0].number, number, "{sql}: {messages:?}");
            assert!(messages[0].text.contains(text), "{sql}: {messages:?}");
        }
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
            ("SELECT 1e5", 1, 50000, "SELECT"),
            ("\nEXEC p", 2, 50000, "EXEC"),
            ("BACKUP DATABASE d TO VIRTUAL_DEVICE='s' x", 1, 102, "near 'x'"),
            ("\n'a", 2, 105, "Unclosed quotation mark"),
            ("hello", 1, 102, "near 'hello'"),
        ] {
            let message = parse_batch(batch, &[]).expect_err(batch).messages().swap_remove(0);
            assert_eq!((message.line, message.number), (line, number), "{batch}: {message:?}");
            assert!(message.text.contains(text), "{batch}: {message:?}");
        }
    }
}
