//! Result sets as text tables.

use vdi_server_sim::types::{Column, SqlType, Value};

/// How a table is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// The columns' names and hyphens below them come first.
    pub(crate) headers: bool,
    /// What stands between two columns.
    pub(crate) separator: char,
    /// Columns are not filled up with spaces.
    pub(crate) trim: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style { headers: true, separator: ' ', trim: false }
    }
}

/// A result set. It is kept until its last row, because the widths of the columns depend on all rows.
#[derive(Default)]
pub(crate) struct Table {
    names: Vec<String>,
    /// Which columns hold numbers, whose last digits stand below each other.
    numbers: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Table {
        let numbers = columns.iter().map(|column| is_number(column.sql_type)).collect();
        Table { names: columns.iter().map(|column| column.name.clone()).collect(), numbers, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: &[Value]) {
        self.rows.push(row.iter().map(|value| value.to_string()).collect());
    }

    /// The lines as `sqlcmd` prints them. Each column is as wide as its widest text; numbers are right-aligned. The last column is not
    /// padded. A table without columns has no lines.
    pub(crate) fn lines(&self, style: Style) -> Vec<String> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let width = |at: usize| {
            let texts = self.rows.iter().chain([&self.names]).filter_map(|row| row.get(at));
            texts.map(|text| text.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.names.len()).map(width).collect();
        let hyphens: Vec<String> = widths
            .iter()
            .zip(&self.names)
            .map(|(width, name)| "-".repeat(if style.trim { name.chars().count() } else { *width }))
            .collect();
        let headers = [&self.names, &hyphens].into_iter().filter(|_| style.headers);
        let last = self.names.len() - 1;
        let line = |row: &Vec<String>, is_header: bool| {
            let mut line = String::new();
            for (at, text) in row.iter().enumerate() {
                if at > 0 {
                    line.push(style.separator);
                }
                let width = widths.get(at).copied().unwrap_or_default();
                let is_number = !is_header && self.numbers.get(at) == Some(&true);
                match (style.trim, is_number) {
                    (false, true) => line.push_str(&format!("{text:>width$}")),
                    (false, false) if at < last => line.push_str(&format!("{text:width$}")),
                    _ => line.push_str(text),
                }
            }
            line
        };
        headers.map(|row| line(row, true)).chain(self.rows.iter().map(|row| line(row, false))).collect()
    }
}

fn is_number(sql_type: SqlType) -> bool {
    use SqlType::{BigInt, Bit, Int, Numeric, SmallInt, TinyInt};
    matches!(sql_type, Bit | TinyInt | SmallInt | Int | BigInt | Numeric { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let column = |name: &str, sql_type| Column { name: name.to_owned(), sql_type, nullable: true };
        let text = SqlType::NVarChar { length: Some(128) };
        let mut table = Table::new(&[column("a", SqlType::Int), column("b", text), column("c", SqlType::BigInt)]);
        table.push(&[Value::Int(12345), Value::Null, Value::BigInt(1)]);
        table.push(&[Value::Int(1), Value::Text("é".to_owned()), Value::BigInt(23)]);
        let shown = |headers, separator, trim| table.lines(Style { headers, separator, trim });
        assert_eq!(table.lines(Style::default()), ["a     b    c", "----- ---- --", "12345 NULL  1", "    1 é    23"]);
        assert_eq!(shown(false, '|', false), ["12345|NULL| 1", "    1|é   |23"]);
        assert_eq!(shown(true, ',', true), ["a,b,c", "-,-,-", "12345,NULL,1", "1,é,23"]);
        assert!(Table::default().lines(Style::default()).is_empty());
    }
}
