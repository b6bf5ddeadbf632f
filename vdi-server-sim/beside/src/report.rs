//! Rows of results: as text, as a table, and as JSON.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::measure::Spread;

/// What a row's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    GigabytesPerSecond,
    Calls,
    /// Of things that have no unit.
    Count,
    Kilobytes,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::GigabytesPerSecond => "GB/s",
            Unit::Calls => "calls",
            Unit::Count => "",
            Unit::Kilobytes => "KiB",
        }
    }

    fn show(self, value: f64) -> String {
        let digits = match value.abs() {
            value if value >= 100.0 => 0,
            value if value >= 10.0 => 1,
            value if value >= 0.1 || value == 0.0 => 2,
            _ => 5,
        };
        format!("{value:.digits$} {}", self.word()).trim_end().to_owned()
    }
}

/// What the middle of a row has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// The row is there to be seen.
    None,
}

impl Goal {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtMost(goal) => Some(value <= goal),
            Goal::AtLeast(goal) => Some(value >= goal),
            Goal::None => None,
        }
    }
}

/// What ours is compared with.
#[derive(Debug)]
struct Other {
    name: String,
    values: Vec<f64>,
    /// Ours by the other, or the other way round, as the row says; a value a round.
    ratios: Vec<f64>,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    part: &'static str,
    what: String,
    unit: Unit,
    ours: Vec<f64>,
    other: Option<Other>,
    goal: Goal,
}

fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    over.iter().zip(under).map(|(over, under)| over / under).collect()
}

fn scaled(values: &[f64], unit: Unit) -> Vec<f64> {
    let by = match unit {
        Unit::Microseconds => 1e3,
        Unit::Milliseconds => 1e6,
        _ => 1.0,
    };
    values.iter().map(|value| value / by).collect()
}

impl Row {
    /// Times in nanoseconds; the ratio is ours by the other.
    pub(crate) fn times(
        part: &'static str,
        what: &str,
        unit: Unit,
        ours: &[f64],
        other: (&str, &[f64]),
        goal: Goal,
    ) -> Row {
        let (name, values) = (other.0.to_owned(), scaled(other.1, unit));
        let other = Some(Other { name, values, ratios: ratios(ours, other.1) });
        Row { part, what: what.to_owned(), unit, ours: scaled(ours, unit), other, goal }
    }

    /// Times in nanoseconds; the ratio is how many times faster ours is.
    pub(crate) fn faster(
        part: &'static str,
        what: &str,
        unit: Unit,
        ours: &[f64],
        other: (&str, &[f64]),
        goal: Goal,
    ) -> Row {
        let mut row = Row::times(part, what, unit, ours, other, goal);
        row.other.iter_mut().for_each(|it| it.ratios = ratios(other.1, ours));
        row
    }

    /// Times in nanoseconds of so many bytes, shown as throughput; the ratio is ours by the other.
    pub(crate) fn throughput(
        part: &'static str,
        what: &str,
        bytes: u64,
        ours: &[f64],
        other: (&str, &[f64]),
        goal: Goal,
    ) -> Row {
        let speeds = |times: &[f64]| times.iter().map(|time| bytes as f64 / time).collect::<Vec<_>>();
        let mut row = Row::faster(part, what, Unit::GigabytesPerSecond, ours, other, goal);
        row.ours = speeds(ours);
        row.other.iter_mut().for_each(|it| it.values = speeds(other.1));
        row
    }

    /// Values that stand for themselves; the goal is theirs.
    pub(crate) fn alone(part: &'static str, what: &str, unit: Unit, values: &[f64], goal: Goal) -> Row {
        Row { part, what: what.to_owned(), unit, ours: values.to_vec(), other: None, goal }
    }

    /// What the goal is about.
    fn judged(&self) -> Spread {
        Spread::of(self.other.as_ref().map_or(&self.ours, |other| &other.ratios))
    }

    fn met(&self) -> Option<bool> {
        self.goal.met(self.judged().median)
    }

    fn goal_text(&self) -> String {
        let show = |goal: f64| match self.other {
            Some(_) => format!("{goal}"),
            None => self.unit.show(goal),
        };
        match self.goal {
            Goal::AtMost(goal) => format!("<= {}", show(goal)),
            Goal::AtLeast(goal) => format!(">= {}", show(goal)),
            Goal::None => String::new(),
        }
    }

    fn cells(&self) -> [String; 6] {
        let Spread { low, median, high } = self.judged();
        // Where a quartile says otherwise than the median, the row is not sure.
        let sure = self.goal.met(low) == self.goal.met(high);
        let verdict = match (self.met(), sure) {
            (Some(true), true) => "met",
            (Some(true), false) => "met, barely",
            (Some(false), true) => "NOT MET",
            (Some(false), false) => "NOT MET, barely",
            (None, _) => "",
        };
        let (other, ratio) = match &self.other {
            Some(other) => {
                let value = self.unit.show(Spread::of(&other.values).median);
                (format!("{} {value}", other.name), format!("{median:.2} [{low:.2} {high:.2}]"))
            }
            None => (String::new(), format!("[{} {}]", self.unit.show(low), self.unit.show(high))),
        };
        let ours = self.unit.show(Spread::of(&self.ours).median);
        [self.what.clone(), ours, other, ratio, self.goal_text(), verdict.to_owned()]
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "part": self.part,
            "what": self.what,
            "unit": self.unit.word(),
            "ours": self.ours,
            "judged": self.judged(),
        });
        if let Some(Other { name, values, ratios }) = &self.other {
            row["other"] = json!({ "name": name, "values": values, "ratios": ratios });
        }
        match self.goal {
            Goal::AtMost(goal) => row["at_most"] = json!(goal),
            Goal::AtLeast(goal) => row["at_least"] = json!(goal),
            Goal::None => {}
        }
        if let Some(met) = self.met() {
            row["met"] = json!(met);
        }
        row
    }
}

/// A point of a plot.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Point {
    pub(crate) plot: &'static str,
    pub(crate) series: &'static str,
    pub(crate) x: f64,
    pub(crate) y: Spread,
}

/// All that a run has found out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    pub(crate) points: Vec<Point>,
}

const HEADS: [&str; 6] = ["row", "ours", "the other", "ratio [quartiles]", "goal", ""];
const WIDTHS: [usize; 6] = [50, 12, 38, 24, 12, 15];

fn line(cells: &[String; 6]) -> String {
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

impl Report {
    /// Prints what stands above the rows.
    pub(crate) fn begin(machine: &[(&'static str, String)]) {
        for (name, value) in machine {
            println!("{name}: {value}");
        }
        println!("\n{}", line(&HEADS.map(str::to_owned)));
    }

    /// Prints rows as they come, and keeps them.
    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        for row in rows {
            if self.rows.last().is_none_or(|last| last.part != row.part) {
                println!("--- {}", row.part);
            }
            println!("{}", line(&row.cells()));
            self.rows.push(row);
        }
    }

    /// How many goals there are, and how many were met.
    pub(crate) fn goals(&self) -> (usize, usize) {
        let verdicts: Vec<bool> = self.rows.iter().filter_map(Row::met).collect();
        (verdicts.len(), verdicts.iter().filter(|met| **met).count())
    }

    /// Everything, every round included.
    pub(crate) fn json(&self, machine: &[(&'static str, String)]) -> Value {
        let machine: Map<String, Value> =
            machine.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "machine": machine, "rows": rows, "points": self.points })
    }

    /// The rows as a table for a README.
    pub(crate) fn table(&self) -> String {
        let line = |cells: &[String; 6]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&HEADS.map(str::to_owned)) + "|---|---|---|---|---|---|\n";
        let mut part = "";
        for row in &self.rows {
            if row.part != part {
                part = row.part;
                text += &format!("| **{part}** | | | | | |\n");
            }
            text += &line(&row.cells());
        }
        text
    }
}
