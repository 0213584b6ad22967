//! The figures of all sides beside each other.

use crate::Outcome;
use crate::side::Kind;
use serde::Serialize;
use std::fmt::Write;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

/// One number of one side.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured; the same text on every side.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// The number.
    pub value: f64,
}

/// All figures of a run, in the order they were taken.
#[derive(Default)]
pub struct Report {
    sides: Vec<(Kind, Vec<Figure>)>,
}

#[derive(Serialize)]
struct SideJson<'a> {
    side: &'a str,
    figures: &'a [Figure],
}

impl Report {
    /// Adds a side.
    pub fn add(&mut self, kind: Kind, figures: Vec<Figure>) {
        self.sides.push((kind, figures));
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let rows = self.rows();
        let mut widths: Vec<usize> = Vec::new();
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                match widths.get_mut(column) {
                    Some(width) => *width = (*width).max(cell.chars().count()),
                    None => widths.push(cell.chars().count()),
                }
            }
        }
        let mut text = String::new();
        for row in &rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(text, "{cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// For docs/performance.md.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, row) in self.rows().iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|---|{}", "---:|".repeat(row.len() - 1));
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Outcome<String> {
        let sides: Vec<SideJson<'_>> = self
            .sides
            .iter()
            .map(|(kind, figures)| SideJson {
                side: kind.name(),
                figures,
            })
            .collect();
        Ok(serde_json::to_string_pretty(&sides)?)
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut head = vec!["figure".to_owned()];
        for (number, (kind, _)) in self.sides.iter().enumerate() {
            head.push(kind.title().to_owned());
            if number > 0 {
                head.push("ratio".to_owned());
            }
        }
        let mut rows = vec![head];
        let Some((_, first)) = self.sides.first() else {
            return rows;
        };
        for figure in first {
            let mut row = vec![
                format!("{}, {}", figure.name, figure.unit),
                number(figure.value),
            ];
            for (_, others) in self.sides.iter().skip(1) {
                let other = others.iter().find(|other| other.name == figure.name);
                row.push(other.map_or_else(|| "-".to_owned(), |other| number(other.value)));
                row.push(other.map_or_else(|| "-".to_owned(), |other| ratio(figure, other)));
            }
            rows.push(row);
        }
        rows
    }
}

/// How many times better the first is; below 1 it is worse.
fn ratio(own: &Figure, other: &Figure) -> String {
    let (top, bottom) = match own.better {
        Better::Higher => (own.value, other.value),
        Better::Lower => (other.value, own.value),
    };
    if bottom <= 0.0 {
        return "-".to_owned();
    }
    format!("{:.2}x", top / bottom)
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, value: f64) -> Figure {
        Figure {
            name: "mail".to_owned(),
            unit: "per s",
            better,
            value,
        }
    }

    #[test]
    fn a_ratio_above_one_is_better_whichever_way_the_figure_goes() {
        assert_eq!(
            ratio(&figure(Better::Higher, 10.0), &figure(Better::Higher, 5.0)),
            "2.00x"
        );
        assert_eq!(
            ratio(&figure(Better::Lower, 10.0), &figure(Better::Lower, 5.0)),
            "0.50x"
        );
        assert_eq!(
            ratio(&figure(Better::Lower, 0.0), &figure(Better::Lower, 5.0)),
            "-"
        );
    }

    #[test]
    fn tables_hold_every_side_and_its_ratio() {
        let mut report = Report::default();
        report.add(Kind::Posthouse, vec![figure(Better::Higher, 1500.0)]);
        report.add(Kind::PostfixDovecot, vec![figure(Better::Higher, 300.0)]);
        assert!(report.table().contains("5.00x"));
        assert_eq!(report.markdown().lines().count(), 3);
        assert!(report.json().is_ok_and(|text| text.contains("postfix")));
    }
}
