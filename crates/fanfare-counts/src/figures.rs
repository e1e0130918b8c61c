//! What the hot paths cost when somebody last looked: `figures.toml`, the table made of it, and what is said where a path
//! costs something else now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::paths::PATHS;

/// Part of its instructions that a path may cost more or less. The same program counts the same within 1.2 %
/// (`docs/performance.md`); the rest is for the code around a path, which decides what the compiler inlines.
const INSTRUCTIONS_TOLERANCE: f64 = 0.03;

/// The same of its allocations, and how many it may be in any case: what grows by doubling is shared by some.
const ALLOCATIONS_TOLERANCE: f64 = 0.02;
const ALLOCATIONS_ALWAYS: f64 = 0.15;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.toml");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md");

const HEAD: &str = "\
# What one time of each hot path costs. Paths are explained in src/paths.rs, and the table in docs/performance.md is made
# of this file. To write both anew: cargo run --release -p fanfare-counts -- update
";

/// Around the table in the page.
const TABLE_BEGINS: &str = "<!-- made by fanfare-counts -->\n";
const TABLE_ENDS: &str = "<!-- until here -->\n";

/// What a path costs each time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    /// Instructions in user space. None: they were not counted.
    pub(crate) instructions: Option<f64>,
    /// How often it asks for memory.
    pub(crate) allocations: f64,
}

/// Figures of all paths.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// What compiled them, as `rustc --version` says.
    pub(crate) compiler: String,
    pub(crate) paths: BTreeMap<String, Figure>,
}

/// What compiles here, as `rustc --version` says.
///
/// # Errors
/// There is no `rustc` to be asked.
pub(crate) fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc can't be asked for its version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Figures {
    /// Those that were just counted.
    ///
    /// # Errors
    /// There is no `rustc` to be asked for its version.
    pub(crate) fn of(counted: &[(&str, Figure)]) -> anyhow::Result<Self> {
        let paths = counted.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect();
        Ok(Self { compiler: compiler()?, paths })
    }

    /// Those that are committed.
    ///
    /// # Errors
    /// The file isn't there or is no such file.
    pub(crate) fn committed() -> anyhow::Result<Self> {
        let text = fs::read_to_string(FILE).with_context(|| format!("reading {FILE}"))?;
        toml::from_str(&text).with_context(|| format!("reading {FILE}"))
    }

    /// Makes these the committed ones, in the file and in the page.
    ///
    /// # Errors
    /// One of them can't be written.
    pub(crate) fn commit(&self) -> anyhow::Result<()> {
        fs::write(FILE, self.to_toml()).with_context(|| format!("writing {FILE}"))?;
        let page = fs::read_to_string(PAGE).with_context(|| format!("reading {PAGE}"))?;
        let (before, _, after) = cut(&page)?;
        fs::write(PAGE, format!("{before}{}{after}", self.table())).with_context(|| format!("writing {PAGE}"))
    }

    /// Whether the page has the table of these.
    ///
    /// # Errors
    /// It can't be read, or has no place for a table.
    #[cfg(test)]
    fn are_in_page(&self) -> anyhow::Result<bool> {
        let page = fs::read_to_string(PAGE).with_context(|| format!("reading {PAGE}"))?;
        Ok(cut(&page)?.1 == self.table())
    }

    fn to_toml(&self) -> String {
        let mut text = format!("{HEAD}compiler = \"{}\"\n", self.compiler);
        for (name, figure) in self.in_order() {
            _ = write!(text, "\n[paths.{name}]\n");
            if let Some(instructions) = figure.instructions {
                _ = writeln!(text, "instructions = {instructions:.0}");
            }
            _ = writeln!(text, "allocations = {:.2}", figure.allocations);
        }
        text
    }

    fn table(&self) -> String {
        let mut table = "| path | one time of it | instructions | allocations |\n|---|---|---|---|\n".to_owned();
        for ((name, figure), (_, meaning)) in self.in_order().zip(PATHS) {
            let instructions = figure.instructions.map_or("not counted".to_owned(), grouped);
            _ = writeln!(table, "| `{name}` | {meaning} | {instructions} | {} |", rounded(figure.allocations));
        }
        table
    }

    fn in_order(&self) -> impl Iterator<Item = (&'static str, Figure)> {
        PATHS.into_iter().filter_map(|(name, _)| Some((name, *self.paths.get(name)?)))
    }

    /// Tells what each path costs now, beside what it cost. Answers whether all cost the same, as far as was counted.
    pub(crate) fn compare(&self, now: &Self) -> bool {
        let mut same = true;
        println!("{:<24}{:>14}{:>10}{:>14}{:>10}", "", "instructions", "before", "allocations", "before");
        for (name, figure) in now.in_order() {
            let Some(before) = self.paths.get(name) else {
                println!("{name:<24} is new");
                same = false;
                continue;
            };
            let instructions = |of: &Figure| of.instructions.map_or("-".to_owned(), grouped);
            println!(
                "{name:<24}{:>14}{:>10}{:>14}{:>10}{}",
                instructions(&figure),
                instructions(before),
                rounded(figure.allocations),
                rounded(before.allocations),
                match change(before, &figure) {
                    Some(change) => format!("  {change}"),
                    None => String::new(),
                }
            );
            same &= change(before, &figure).is_none();
        }
        for name in self.paths.keys().filter(|name| !now.paths.contains_key(*name)) {
            println!("{name:<24} is no path any more");
            same = false;
        }
        same
    }
}

/// What is to be said of a path that costs something else than it did.
fn change(before: &Figure, now: &Figure) -> Option<String> {
    let verb = |before: f64, now: f64| if now > before { "ROSE" } else { "FELL" };
    let instructions = before.instructions.zip(now.instructions).and_then(|(before, now)| {
        let part = now / before - 1.0;
        (part.abs() > INSTRUCTIONS_TOLERANCE)
            .then(|| format!("{} by {:.1} % of its instructions", verb(before, now), part.abs() * 100.0))
    });
    let difference = now.allocations - before.allocations;
    let tolerated = (before.allocations * ALLOCATIONS_TOLERANCE).max(ALLOCATIONS_ALWAYS);
    let allocations = (difference.abs() > tolerated)
        .then(|| format!("{} by {} allocations", verb(before.allocations, now.allocations), rounded(difference.abs())));
    match (instructions, allocations) {
        (None, None) => None,
        (one, other) => Some(one.into_iter().chain(other).collect::<Vec<_>>().join(" and ")),
    }
}

/// The page before its table, the table, and the page after it.
fn cut(page: &str) -> anyhow::Result<(&str, &str, &str)> {
    let begin = page.find(TABLE_BEGINS).map(|at| at + TABLE_BEGINS.len());
    let end = page.find(TABLE_ENDS);
    let (begin, end) = begin.zip(end).with_context(|| format!("{PAGE} has no place for the table"))?;
    ensure!(begin <= end, "{PAGE} has the end of the table before its beginning");
    Ok((&page[..begin], &page[begin..end], &page[end..]))
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rounded(number: f64) -> String {
    let text = format!("{number:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(instructions: f64, allocations: f64) -> Figure {
        Figure { instructions: Some(instructions), allocations }
    }

    #[test]
    fn what_costs_more_or_less_than_it_did_is_told_with_how_much() {
        let before = figure(1000.0, 2.0);
        assert_eq!(change(&before, &figure(1029.0, 2.05)), None);
        let change = |now: Figure| change(&before, &now).expect("a change");
        assert_eq!(change(figure(1100.0, 2.0)), "ROSE by 10.0 % of its instructions");
        assert_eq!(change(figure(500.0, 1.5)), "FELL by 50.0 % of its instructions and FELL by 0.5 allocations");
        assert_eq!(change(Figure { instructions: None, allocations: 3.0 }), "ROSE by 1 allocations");
    }

    #[test]
    fn figures_are_read_as_they_were_written() {
        let of = |(index, (name, _)): (usize, (&str, &str))| (name.to_owned(), figure(1234.0 + index as f64, 0.25));
        let figures =
            Figures { compiler: "rustc 1.95.0".to_owned(), paths: PATHS.into_iter().enumerate().map(of).collect() };
        assert_eq!(toml::from_str::<Figures>(&figures.to_toml()).expect("TOML"), figures);
        assert!(figures.table().contains("| 1,236 | 0.25 |"), "{}", figures.table());
    }

    #[test]
    fn every_path_has_a_committed_figure_and_the_page_has_their_table() {
        let committed = Figures::committed().expect("a file of figures");
        assert!(committed.are_in_page().expect("a page"), "cargo run --release -p fanfare-counts -- update writes it");
        assert_eq!((committed.in_order().count(), committed.paths.len()), (PATHS.len(), PATHS.len()));
    }
}
