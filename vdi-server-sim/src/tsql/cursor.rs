//! The words of a statement, one after the other, each with its place in the text.

use sqlparser::dialect::MsSqlDialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use super::error::{Mark, TsqlError};
use super::reserved::RESERVED;
use crate::types::{DateTime, Parameter, Value};

/// Longest excerpt of the statement that an error repeats, in characters.
const EXCERPT: usize = 64;

/// A place in the words of one statement. Nothing is ever taken back: the grammar decides by looking at the next word.
pub(super) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    variables: &'a [Parameter],
    next: usize,
    end: Location,
}

/// Cuts a text into words and drops the space and the comments between them.
pub(super) fn words(sql: &str) -> Result<Vec<TokenWithSpan>, TsqlError> {
    let mut tokens = Tokenizer::new(&MsSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| unreadable(sql, error.location))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    Ok(tokens)
}

/// A word without quotes, as it is written.
pub(super) fn bare(token: &Token) -> Option<&str> {
    match token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value),
        _ => None,
    }
}

impl<'a> Cursor<'a> {
    /// At the first of the words, which may use these variables.
    pub(super) fn new(tokens: &'a [TokenWithSpan], variables: &'a [Parameter]) -> Self {
        let end = tokens.last().map_or(Location::new(1, 1), |token| token.span.end);
        Self { tokens, variables, next: 0, end }
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next).map(|token| &token.token)
    }

    /// The next word, if it is one that is not quoted: only such a word can be a keyword.
    fn peek_bare(&self) -> Option<&'a str> {
        self.peek().and_then(bare)
    }

    fn take_if(&mut self, wanted: bool) -> bool {
        self.next += usize::from(wanted);
        wanted
    }

    /// Where the next word begins.
    pub(super) fn mark(&self) -> Mark {
        let location = self.tokens.get(self.next).map_or(self.end, |token| token.span.start);
        Mark::new(location.line, location.column)
    }

    pub(super) fn at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    pub(super) fn peek_keyword(&self, keyword: &str) -> bool {
        self.peek_bare().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek_keyword(keyword);
        self.take_if(found)
    }

    pub(super) fn expect_keyword(&mut self, keyword: &str, expected: &str) -> Result<(), TsqlError> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.syntax(expected)) }
    }

    pub(super) fn take_comma(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::Comma));
        self.take_if(found)
    }

    pub(super) fn take_semicolon(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::SemiColon));
        self.take_if(found)
    }

    pub(super) fn take_opening(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::LParen));
        self.take_if(found)
    }

    pub(super) fn take_closing(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::RParen));
        self.take_if(found)
    }

    pub(super) fn take_percent(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::Mod));
        self.take_if(found)
    }

    pub(super) fn expect_opening(&mut self) -> Result<(), TsqlError> {
        if self.take_opening() { Ok(()) } else { Err(self.syntax("(")) }
    }

    pub(super) fn expect_closing(&mut self) -> Result<(), TsqlError> {
        if self.take_closing() { Ok(()) } else { Err(self.syntax(")")) }
    }

    pub(super) fn take_equals(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::Eq));
        self.take_if(found)
    }

    pub(super) fn expect_equals(&mut self) -> Result<(), TsqlError> {
        if self.take_equals() { Ok(()) } else { Err(self.syntax("=")) }
    }

    /// The next word in capitals, if it is a reserved word of Transact-SQL.
    pub(super) fn peek_reserved(&self) -> Option<String> {
        let word = self.peek_bare()?.to_ascii_uppercase();
        RESERVED.binary_search(&word.as_str()).is_ok().then_some(word)
    }

    /// Any bare word that is not reserved: the name of an option, say.
    pub(super) fn option_word(&mut self) -> Option<String> {
        let word = self.peek_bare()?.to_owned();
        self.next += 1;
        Some(word)
    }

    /// Whether the next word could name a logical device: a name that is neither reserved nor the keyword of a device type.
    pub(super) fn at_logical_device(&self) -> bool {
        let followed_by_equals = matches!(self.tokens.get(self.next + 1).map(|token| &token.token), Some(Token::Eq));
        matches!(self.peek(), Some(Token::Word(_))) && !followed_by_equals && self.peek_reserved().is_none()
    }

    /// A name: bare, in brackets or in double quotes.
    pub(super) fn identifier(&mut self, expected: &str) -> Result<String, TsqlError> {
        let is_variable = self.peek_variable().is_some();
        match self.peek() {
            Some(Token::Word(word))
                if !is_variable && (word.quote_style.is_some() || self.peek_reserved().is_none()) =>
            {
                let name = word.value.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.syntax(expected)),
        }
    }

    /// A string: `'x'` or `N'x'`, or a variable that holds one.
    pub(super) fn string(&mut self, expected: &str) -> Result<String, TsqlError> {
        match self.string_variable()? {
            Some(text) => Ok(text),
            None => self.literal(expected),
        }
    }

    /// A string: `'x'` or `N'x'`.
    pub(super) fn literal(&mut self, expected: &str) -> Result<String, TsqlError> {
        match self.peek() {
            Some(Token::SingleQuotedString(text) | Token::NationalStringLiteral(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.syntax(expected)),
        }
    }

    /// A name as [`Cursor::identifier`], or a string: the name of a file of a database, say.
    pub(super) fn name(&mut self, expected: &str) -> Result<String, TsqlError> {
        match self.peek() {
            Some(Token::SingleQuotedString(_) | Token::NationalStringLiteral(_)) => self.literal(expected),
            _ => self.identifier(expected),
        }
    }

    /// A number as it is written, or the value of a variable that holds a whole number.
    pub(super) fn number(&mut self, expected: &str) -> Result<String, TsqlError> {
        if let Some((name, value)) = self.variable()? {
            let is_number = matches!(
                value,
                Value::TinyInt(_)
                    | Value::SmallInt(_)
                    | Value::Int(_)
                    | Value::BigInt(_)
                    | Value::Numeric { scale: 0, .. }
            );
            if !is_number {
                return Err(self.mark().variable_type(excerpt(name), value.type_name(), "a whole number"));
            }
            self.next += 1;
            return Ok(value.to_string());
        }
        match self.peek() {
            Some(Token::Number(digits, _)) => {
                let digits = digits.clone();
                self.next += 1;
                Ok(digits)
            }
            _ => Err(self.syntax(expected)),
        }
    }

    /// The next word, if it is a variable: `@name`.
    fn peek_variable(&self) -> Option<&'a str> {
        self.peek_bare().filter(|word| word.starts_with('@'))
    }

    /// The variable that the next word is, if it is one: its name and value. The word is not taken.
    fn variable(&self) -> Result<Option<(&'a str, &'a Value)>, TsqlError> {
        let Some(name) = self.peek_variable() else { return Ok(None) };
        match self.variables.iter().find(|variable| variable.name.eq_ignore_ascii_case(name)) {
            Some(variable) => Ok(Some((name, &variable.value))),
            None => Err(self.mark().undeclared_variable(excerpt(name))),
        }
    }

    /// The string that the next word stands for, if that is a variable.
    pub(super) fn string_variable(&mut self) -> Result<Option<String>, TsqlError> {
        let Some((name, value)) = self.variable()? else { return Ok(None) };
        let Value::Text(text) = value else {
            return Err(self.mark().variable_type(excerpt(name), value.type_name(), "a string"));
        };
        self.next += 1;
        Ok(Some(text.clone()))
    }

    /// The time that the next word stands for, if that is a variable of type `datetime`.
    pub(super) fn time_variable(&mut self) -> Option<DateTime> {
        match self.variable() {
            Ok(Some((_, Value::DateTime(time)))) => {
                self.next += 1;
                Some(*time)
            }
            _ => None,
        }
    }

    /// The grammar cannot go on at the next word; where the statement ends too early, SQL Server blames its last word.
    pub(super) fn syntax(&self, expected: &str) -> TsqlError {
        let mark = self.mark();
        if let Some(keyword) = self.peek_reserved() {
            return mark.keyword(keyword, expected);
        }
        let near = match self.peek().or_else(|| self.tokens.last().map(|token| &token.token)) {
            Some(token) => excerpt(&token_text(token)),
            None => String::new(),
        };
        mark.syntax(near, expected)
    }

    pub(super) fn not_supported_yet(&self, what: String, remedy: &'static str) -> TsqlError {
        self.mark().not_supported_yet(what, remedy)
    }
}

/// A word without its quotes, as SQL Server repeats it.
fn token_text(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) | Token::NationalStringLiteral(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The beginning of a text, for repetition.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).collect()
}

/// The text cannot be cut into words. The character at the place that the tokenizer names tells the reason.
fn unreadable(sql: &str, location: Location) -> TsqlError {
    let mark = Mark::new(location.line, location.column);
    let line = usize::try_from(location.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let rest: String = sql.split('\n').skip(line).take(1).flat_map(|text| text.chars().skip(column)).collect();
    let unquoted = rest.trim_start_matches(['N', 'n']);
    if unquoted.starts_with(['\'', '"', '[']) {
        let text: String = unquoted.chars().skip(1).collect();
        mark.unclosed_quote(excerpt(&text))
    } else if rest.is_empty() || rest.starts_with('/') {
        // An open comment is only noticed where the text ends.
        mark.unclosed_comment()
    } else {
        mark.syntax(excerpt(&rest), "a word, a number or a string")
    }
}
