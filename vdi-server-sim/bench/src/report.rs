//! Rows of results: as text, as a table, and as JSON.

use serde_json::{Map, Value, json};

use crate::measure::Spread;

/// What the values of a row are. They are costs: less is better.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Time,
    /// Nanoseconds for so many bytes; shown as GB/s.
    Throughput(u64),
    /// CPU nanoseconds for so many bytes; shown as seconds per gigabyte.
    CpuPerGigabyte(u64),
    Kibibytes,
}

impl Unit {
    /// A value as it is shown, and its unit.
    fn scale(self, value: f64) -> (f64, &'static str) {
        match self {
            Unit::Time if value >= 1e9 => (value / 1e9, "s"),
            Unit::Time if value >= 1e6 => (value / 1e6, "ms"),
            Unit::Time if value >= 1e4 => (value / 1e3, "us"),
            Unit::Time => (value, "ns"),
            Unit::Throughput(bytes) => (bytes as f64 / value, "GB/s"),
            Unit::CpuPerGigabyte(bytes) => (value / bytes as f64, "s/GB"),
            Unit::Kibibytes => (value, "KiB"),
        }
    }

    fn show(self, value: f64) -> String {
        let (value, unit) = self.scale(value);
        let digits = match value.abs() {
            value if value >= 100.0 => 0,
            value if value >= 10.0 => 1,
            value if value >= 1.0 => 2,
            _ => 3,
        };
        format!("{value:.digits$} {unit}")
    }
}

/// What the median has to be: of the ratio where there is a baseline, else of the values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtMost(goal) => Some(value <= goal),
            Goal::AtLeast(goal) => Some(value >= goal),
            Goal::None => None,
        }
    }
}

/// What ours is compared with.
#[derive(Debug)]
struct Baseline {
    name: &'static str,
    values: Vec<f64>,
    /// A ratio a round.
    ratios: Vec<f64>,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    part: &'static str,
    what: String,
    unit: Unit,
    ours: Vec<f64>,
    baseline: Option<Baseline>,
    goal: Goal,
}

fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    over.iter().zip(under).map(|(over, under)| over / under).collect()
}

impl Row {
    /// A row without a baseline.
    pub(crate) fn new(part: &'static str, what: impl Into<String>, unit: Unit, ours: &[f64]) -> Row {
        Row { part, what: what.into(), unit, ours: ours.to_vec(), baseline: None, goal: Goal::None }
    }

    /// The ratio is the cost of ours by that of the baseline.
    pub(crate) fn cost_of(mut self, name: &'static str, values: &[f64]) -> Row {
        self.baseline = Some(Baseline { name, values: values.to_vec(), ratios: ratios(&self.ours, values) });
        self
    }

    /// The ratio says how many times as fast as the baseline ours is.
    pub(crate) fn speed_of(mut self, name: &'static str, values: &[f64]) -> Row {
        self.baseline = Some(Baseline { name, values: values.to_vec(), ratios: ratios(values, &self.ours) });
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Row {
        self.goal = goal;
        self
    }

    /// What the goal is about.
    fn judged(&self) -> Spread {
        Spread::of(self.baseline.as_ref().map_or(&self.ours, |baseline| &baseline.ratios))
    }

    fn is_met(&self) -> Option<bool> {
        self.goal.is_met(self.judged().median)
    }

    /// A value or ratio as its goal is shown.
    fn show(&self, value: f64) -> String {
        if self.baseline.is_some() { format!("{value:.2}") } else { self.unit.show(value) }
    }

    fn cells(&self) -> [String; 6] {
        let Spread { low, median, high } = self.judged();
        let barely = if self.goal.is_met(low) == self.goal.is_met(high) { "" } else { ", barely" };
        let verdict = match self.is_met() {
            Some(true) => format!("met{barely}"),
            Some(false) => format!("NOT MET{barely}"),
            None => String::new(),
        };
        let goal = match self.goal {
            Goal::AtMost(goal) => format!("<= {}", self.show(goal)),
            Goal::AtLeast(goal) => format!(">= {}", self.show(goal)),
            Goal::None => String::new(),
        };
        let quartiles = format!("[{} {}]", self.show(low), self.show(high));
        let (baseline, ratio) = match &self.baseline {
            Some(Baseline { name, values, .. }) => {
                (format!("{name} {}", self.unit.show(Spread::of(values).median)), format!("{median:.2} {quartiles}"))
            }
            None => (String::new(), quartiles),
        };
        [self.what.clone(), self.unit.show(Spread::of(&self.ours).median), baseline, ratio, goal, verdict]
    }

    fn json(&self) -> Value {
        // One unit for all values of a row.
        let unit = match self.unit {
            Unit::Time => "ns",
            unit => unit.scale(1.0).1,
        };
        let scaled = |values: &[f64]| -> Vec<f64> {
            values.iter().map(|value| if unit == "ns" { *value } else { self.unit.scale(*value).0 }).collect()
        };
        let Spread { low, median, high } = self.judged();
        let mut row = json!({
            "part": self.part,
            "what": self.what,
            "unit": unit,
            "ours": scaled(&self.ours),
            "judged": { "low": low, "median": median, "high": high },
        });
        if let Some(Baseline { name, values, ratios }) = &self.baseline {
            row["baseline"] = json!({ "name": name, "values": scaled(values), "ratios": ratios });
        }
        match self.goal {
            Goal::AtMost(goal) => row["at_most"] = json!(goal),
            Goal::AtLeast(goal) => row["at_least"] = json!(goal),
            Goal::None => {}
        }
        if let Some(met) = self.is_met() {
            row["met"] = json!(met);
        }
        row
    }
}

/// The rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

const HEADS: [&str; 6] = ["row", "ours", "baseline", "ratio [quartiles]", "goal", ""];
const WIDTHS: [usize; 6] = [46, 11, 36, 22, 12, 15];

fn line(cells: &[String; 6]) -> String {
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

impl Report {
    /// Prints the head of the report.
    pub(crate) fn begin(machine: &[(&'static str, String)]) {
        for (name, value) in machine {
            println!("{name}: {value}");
        }
        println!("\n{}", line(&HEADS.map(str::to_owned)));
    }

    /// Prints rows as they come, and keeps them.
    pub(crate) fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            if self.rows.last().is_none_or(|last| last.part != row.part) {
                println!("--- {}", row.part);
            }
            println!("{}", line(&row.cells()));
            self.rows.push(row);
        }
    }

    /// How many goals are met, and how many there are.
    pub(crate) fn goals(&self) -> (usize, usize) {
        let verdicts: Vec<bool> = self.rows.iter().filter_map(Row::is_met).collect();
        (verdicts.iter().filter(|met| **met).count(), verdicts.len())
    }

    /// All rows with all rounds.
    pub(crate) fn json(&self, machine: &[(&'static str, String)]) -> Value {
        let machine: Map<String, Value> =
            machine.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        json!({ "machine": machine, "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>() })
    }

    /// The rows as a table in Markdown.
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
