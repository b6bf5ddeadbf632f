//! Result sets as text tables.

use vdi_server_sim::types::{Column, Value};

/// A result set. It is kept until its last row, because the widths of the columns depend on all rows.
#[derive(Default)]
pub(crate) struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Table {
        Table { names: columns.iter().map(|column| column.name.clone()).collect(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: &[Value]) {
        self.rows.push(row.iter().map(ToString::to_string).collect());
    }

    /// The lines as `sqlcmd` prints them. With `headers`, the first two lines are the names of the columns and hyphens. Each column
    /// is as wide as its widest text; the last one is not padded. A space separates two columns. A table without columns has no
    /// lines.
    pub(crate) fn lines(&self, headers: bool) -> Vec<String> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let width = |at: usize| {
            let texts = self.rows.iter().chain([&self.names]).filter_map(|row| row.get(at));
            texts.map(|text| text.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.names.len()).map(width).collect();
        let hyphens = widths.iter().map(|width| "-".repeat(*width)).collect();
        let header = [&self.names, &hyphens].into_iter().filter(|_| headers);
        header.chain(&self.rows).map(|row| line(row, &widths)).collect()
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let last = row.len().saturating_sub(1);
    let cells = row.iter().zip(widths).enumerate();
    cells.map(|(at, (text, width))| if at == last { text.clone() } else { format!("{text:width$} ") }).collect()
}

#[cfg(test)]
mod tests {
    use vdi_server_sim::types::SqlType;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let column = |name: &str| Column { name: name.to_owned(), sql_type: SqlType::Int, nullable: true };
        let mut table = Table::new(&[column("a"), column("b")]);
        table.push(&[Value::Int(12345), Value::Null]);
        table.push(&[Value::Int(1), Value::Text("é".to_owned())]);
        assert_eq!(table.lines(true), ["a     b", "----- ----", "12345 NULL", "1     é"]);
        assert_eq!(table.lines(false), ["12345 NULL", "1     é"]);
        assert!(Table::default().lines(true).is_empty());
    }
}
