//! What changed from one file of results to another, and whether that is more than chance.
//!
//! A figure that runs beside the same yardstick is judged by its ratio to it, which takes the mood of the machine out;
//! any other by its value. It got better or worse only where *every* run after lies beyond *every* run before: with
//! three runs each, chance alone does that once in twenty times.

use std::fmt;

use anstyle::{AnsiColor, Color, Style};

use crate::result::{Better, Meaning, Results, ScenarioResult};

/// How far a figure of a single run is taken to stray, as a share of it: nothing tells how far it really does.
const STRAY: f64 = 0.1;

/// What changed.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Each figure that both files have, in their order.
    pub rows: Vec<Row>,
    /// What makes the comparison doubtful, or was left out of it.
    pub notes: Vec<String>,
    /// Scenarios, with their servers, that went wrong after and had not before.
    pub broken: Vec<String>,
}

/// A figure, before and after.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: String,
    /// Who served.
    pub server: String,
    /// Name of the figure.
    pub figure: String,
    /// Its unit.
    pub unit: String,
    /// Medians of the runs, before and after.
    pub medians: [f64; 2],
    /// The same as ratios to the floor, where both have one.
    pub ratios: Option<[f64; 2]>,
    /// What is judged, as a share of what was before: 0.1 is a tenth more. Infinite where nothing was before.
    pub change: f64,
    /// Whether it is more than chance.
    pub verdict: Verdict,
}

/// Whether a change is more than chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better in every run.
    Better,
    /// Worse in every run.
    Worse,
    /// Runs before and after overlap.
    WithinNoise,
    /// Neither direction is good or bad.
    Describes,
}

impl Comparison {
    /// Holds each figure of `after` against the same one of `before`.
    pub fn of(before: &Results, after: &Results) -> Self {
        let mut comparison = Self::default();
        if before.machine != after.machine {
            let note = "the machines differ: only ratios to the floor say something";
            comparison.notes.push(note.to_owned());
        }
        for new in &after.scenarios {
            let name = format!("{} · {}", new.scenario, new.server);
            let is_same = |old: &&ScenarioResult| (&old.scenario, &old.server) == (&new.scenario, &new.server);
            let Some(old) = before.scenarios.iter().find(is_same) else {
                comparison.notes.push(format!("{name} is only in the second file"));
                continue;
            };
            if old.options != new.options {
                comparison.notes.push(format!("{name} ran with other options"));
            }
            if old.passed() && !new.passed() {
                comparison.broken.push(name);
            }
            let figures = after.glossary.iter().filter(|(figure, _)| new.medians.contains_key(*figure));
            comparison.rows.extend(figures.filter_map(|(figure, meaning)| Row::of(old, new, figure, meaning)));
        }
        for old in &before.scenarios {
            if !after.scenarios.iter().any(|new| (&old.scenario, &old.server) == (&new.scenario, &new.server)) {
                comparison.notes.push(format!("{} · {} is only in the first file", old.scenario, old.server));
            }
        }
        comparison
    }

    /// Whether something got worse, beyond noise, by more than so many percent, or went wrong that had not before.
    pub fn is_worse_by(&self, percent: f64) -> bool {
        let worse = |row: &Row| row.verdict == Verdict::Worse && row.change.abs() * 100.0 > percent;
        !self.broken.is_empty() || self.rows.iter().any(worse)
    }
}

impl Row {
    fn of(old: &ScenarioResult, new: &ScenarioResult, figure: &str, meaning: &Meaning) -> Option<Self> {
        let medians = [*old.medians.get(figure)?, *new.medians.get(figure)?];
        let ratio =
            |result: &ScenarioResult| Some((ratios(result, figure)?, *result.floor.as_ref()?.ratios.get(figure)?));
        let (values, judged, ratios) = match (ratio(old), ratio(new)) {
            (Some((before, old)), Some((after, new))) => ([before, after], [old, new], Some([old, new])),
            _ => ([old, new].map(|result| values(result, figure)), medians, None),
        };
        let [before, after] = judged;
        let change = if before == after { 0.0 } else { (after - before) / before.abs() };
        Some(Self {
            scenario: new.scenario.clone(),
            server: new.server.clone(),
            figure: figure.to_owned(),
            unit: meaning.unit.clone(),
            medians,
            ratios,
            change,
            verdict: verdict(&values, meaning.better),
        })
    }
}

/// A figure of each run.
fn values(result: &ScenarioResult, figure: &str) -> Vec<f64> {
    result.runs.iter().filter_map(|run| run.figures.get(figure).copied()).collect()
}

/// The same, each over the mean of the floor's before and after it.
fn ratios(result: &ScenarioResult, figure: &str) -> Option<Vec<f64>> {
    let floor = result.floor.as_ref()?.runs.chunks(2).map(|runs| {
        let values = runs.iter().filter_map(|run| run.figures.get(figure)).collect::<Vec<_>>();
        values.iter().copied().sum::<f64>() / values.len() as f64
    });
    let ratios = result.runs.iter().zip(floor).filter_map(|(run, floor)| Some(run.figures.get(figure)? / floor));
    let ratios = ratios.filter(|ratio| ratio.is_finite()).collect::<Vec<_>>();
    (!ratios.is_empty()).then_some(ratios)
}

fn verdict([before, after]: &[Vec<f64>; 2], better: Better) -> Verdict {
    let ([old_low, old_high], [new_low, new_high]) = (range(before), range(after));
    match better {
        Better::Neither => Verdict::Describes,
        Better::Higher if new_low > old_high => Verdict::Better,
        Better::Higher if new_high < old_low => Verdict::Worse,
        Better::Lower if new_high < old_low => Verdict::Better,
        Better::Lower if new_low > old_high => Verdict::Worse,
        Better::Higher | Better::Lower => Verdict::WithinNoise,
    }
}

/// Between which values a figure lies.
fn range(values: &[f64]) -> [f64; 2] {
    if let [value] = values {
        let stray = value.abs() * STRAY;
        return [value - stray, value + stray];
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    [low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max)]
}

impl Verdict {
    fn style(self) -> Style {
        let color = |color| Style::new().bold().fg_color(Some(Color::Ansi(color)));
        match self {
            Self::Better => color(AnsiColor::Green),
            Self::Worse => color(AnsiColor::Red),
            Self::WithinNoise | Self::Describes => Style::new().dimmed(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::WithinNoise => "within noise",
            Self::Describes => "",
        })
    }
}

/// A number with three digits that count, its thousands set apart.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(whole.len() - whole.trim_start_matches('-').len());
    let mut out = sign.to_owned();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// With ANSI colors: print it by way of `anstream`, which leaves them out where they aren't wanted.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = None;
        for row in &self.rows {
            let of = (&row.scenario, &row.server);
            if group.replace(of) != Some(of) {
                let bold = Style::new().bold();
                let title = format!("{} · {}", row.scenario, row.server);
                writeln!(
                    f,
                    "\n{bold}{title:<34}{bold:#}{:>14} {:>14} {:>17} {:>9}",
                    "before", "after", "× floor", "change"
                )?;
            }
            let [before, after] = row.medians.map(number);
            let unit = if row.unit.is_empty() { String::new() } else { format!(" [{}]", row.unit) };
            let ratios = row.ratios.map_or(String::new(), |[old, new]| format!("{old:.2} → {new:.2}"));
            let change =
                if row.change.is_finite() { format!("{:+.1} %", row.change * 100.0) } else { "new".to_owned() };
            let (figure, style) = (format!("  {}{unit}", row.figure), row.verdict.style());
            let Row { verdict, .. } = row;
            writeln!(f, "{figure:<34}{before:>14} {after:>14} {ratios:>17} {change:>9}  {style}{verdict}{style:#}")?;
        }
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        for name in &self.broken {
            let style = Verdict::Worse.style();
            writeln!(f, "\n{style}{name} went wrong, and had not before{style:#}")?;
        }
        let count = |verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        let [better, worse, noise] = [Verdict::Better, Verdict::Worse, Verdict::WithinNoise].map(count);
        write!(f, "\n{better} better, {worse} worse, {noise} within noise")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::check::FaultKind;
    use crate::result::{Floor, Machine, Run};

    fn runs(values: &[f64]) -> Vec<Run> {
        let run = |value: &f64| Run {
            figures: BTreeMap::from([("deliveriesPerSecond".to_owned(), *value)]),
            ..Run::default()
        };
        values.iter().map(run).collect()
    }

    fn results(values: &[f64], floor: Option<&[f64]>) -> Results {
        let floor = floor.map(|values| Floor { runs: runs(values), ..Floor::default() });
        let mut result =
            ScenarioResult { scenario: "fanout".to_owned(), runs: runs(values), floor, ..Default::default() };
        result.conclude();
        Results { scenarios: vec![result], ..Results::begin(Machine::default()) }
    }

    fn verdict_of(before: &Results, after: &Results) -> (Verdict, f64) {
        let comparison = Comparison::of(before, after);
        (comparison.rows[0].verdict, (comparison.rows[0].change * 100.0).round())
    }

    #[test]
    fn only_what_lies_beyond_every_run_before_is_better_or_worse() {
        let before = results(&[90.0, 100.0, 110.0], None);
        assert_eq!(verdict_of(&before, &results(&[115.0, 120.0, 130.0], None)), (Verdict::Better, 20.0));
        assert_eq!(verdict_of(&before, &results(&[108.0, 120.0, 130.0], None)), (Verdict::WithinNoise, 20.0));
        assert_eq!(verdict_of(&before, &results(&[70.0, 80.0, 85.0], None)), (Verdict::Worse, -20.0));
    }

    #[test]
    fn a_single_run_must_differ_by_more_than_runs_stray() {
        let before = results(&[100.0], None);
        assert_eq!(verdict_of(&before, &results(&[115.0], None)), (Verdict::WithinNoise, 15.0));
        assert_eq!(verdict_of(&before, &results(&[130.0], None)), (Verdict::Better, 30.0));
    }

    #[test]
    fn beside_a_floor_it_is_the_ratio_that_counts() {
        let before = results(&[100.0; 3], Some(&[100.0; 6]));
        let slower_machine = results(&[50.0; 3], Some(&[50.0; 6]));
        assert_eq!(verdict_of(&before, &slower_machine), (Verdict::WithinNoise, 0.0));
        let slower_server = results(&[50.0; 3], Some(&[100.0; 6]));
        assert_eq!(verdict_of(&before, &slower_server), (Verdict::Worse, -50.0));
    }

    #[test]
    fn it_fails_above_what_is_allowed_and_for_what_went_wrong() {
        let before = results(&[100.0; 3], None);
        let mut after = results(&[80.0; 3], None);
        assert!(Comparison::of(&before, &after).is_worse_by(19.0));
        assert!(!Comparison::of(&before, &after).is_worse_by(21.0));
        after.scenarios[0].runs[0].faults = BTreeMap::from([(FaultKind::Missing, 1)]);
        assert!(Comparison::of(&before, &after).is_worse_by(21.0));
        assert!(!Comparison::of(&after, &after).is_worse_by(0.0));
    }

    #[test]
    fn what_only_one_file_has_is_named() {
        let mut other = results(&[1.0], None);
        other.scenarios[0].server = "nchan".to_owned();
        let comparison = Comparison::of(&results(&[1.0], None), &other);
        assert!(comparison.rows.is_empty());
        assert_eq!(comparison.notes.len(), 2, "{:?}", comparison.notes);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!(
            [1_234_567.8, 123.4, 12.34, 1.234, 0.0, -1234.5].map(number),
            ["1,234,568", "123", "12.3", "1.23", "0", "-1,234"]
        );
    }
}
