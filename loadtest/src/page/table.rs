//! Results in short: a table for each scenario, in Markdown that reads well in a terminal, too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::scenarios;
use crate::compare::number;
use crate::result::{Better, FIGURES, Results, ScenarioResult};

/// A table for each scenario: servers below each other, what is better or worse side by side.
pub fn markdown(results: &Results) -> String {
    let mut out = String::new();
    let files = [(String::new(), results.clone())];
    for (scenario, rows) in scenarios(&files) {
        let has = |name: &str| rows.iter().any(|(_, result)| result.medians.contains_key(name));
        let counts =
            |figure: &&_| matches!(figure, crate::result::Figure { better: Better::Higher | Better::Lower, .. });
        let figures = FIGURES.iter().filter(counts).filter(|figure| has(figure.name)).collect::<Vec<_>>();
        let mut lines = vec![vec![scenario.to_owned()], vec!["---".to_owned()]];
        for figure in &figures {
            let unit = if figure.unit.is_empty() { String::new() } else { format!(" [{}]", figure.unit) };
            lines[0].push(format!("{}{unit}", figure.name));
            lines[1].push("---:".to_owned());
        }
        lines[0].push("faults".to_owned());
        lines[1].push("---".to_owned());
        for (_, result) in &rows {
            let cell = |figure: &&crate::result::Figure| cell(result, figure.name);
            lines.push(
                [result.server.clone()].into_iter().chain(figures.iter().map(cell)).chain([faults(result)]).collect(),
            );
        }
        write_aligned(&lines, &mut out);
    }
    out
}

fn cell(result: &ScenarioResult, name: &str) -> String {
    let Some(median) = result.medians.get(name) else { return "–".to_owned() };
    let ratio = result.floor.as_ref().and_then(|floor| floor.ratios.get(name));
    ratio.map_or_else(|| number(*median), |ratio| format!("{} ({})", number(*median), number(*ratio)))
}

/// The kinds of faults, with the most that a run had of each.
fn faults(result: &ScenarioResult) -> String {
    let kinds = result.runs.iter().flat_map(|run| run.faults.keys()).collect::<BTreeSet<_>>();
    let words = kinds.into_iter().map(|kind| {
        let most = result.runs.iter().filter_map(|run| run.faults.get(kind)).max().copied().unwrap_or(0);
        format!("{} {kind}", number(most as f64))
    });
    let words = words.collect::<Vec<_>>();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn write_aligned(lines: &[Vec<String>], out: &mut String) {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    for line in lines {
        for (column, text) in line.iter().enumerate() {
            let width = width(column);
            let text = match &**text {
                "---" => "-".repeat(width),
                "---:" => format!("{}:", "-".repeat(width - 1)),
                text => text.to_owned(),
            };
            let aligned = if column == 0 || column + 1 == columns {
                format!("{text:<width$}")
            } else {
                format!("{text:>width$}")
            };
            write!(out, "| {aligned} ").expect("strings take everything");
        }
        out.push_str("|\n");
    }
    out.push('\n');
}
