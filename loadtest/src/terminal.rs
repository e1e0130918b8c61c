//! A result for people, on a terminal: a table of figures with the floor beside them, latencies as bars, and in words
//! what was wrong.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};

use crate::result::{Better, CpuSplit, FIGURES, Latencies, Results, Run, ScenarioResult};

/// Columns of a latency's longest bar.
const BAR_COLUMNS: f64 = 30.0;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = AnsiColor::Cyan.on_default().bold();

/// All results, with styles that `anstream` takes out where nobody can see them.
pub fn render(results: &Results) -> String {
    let mut out = String::new();
    for scenario in &results.scenarios {
        write_scenario(&mut out, scenario).expect("strings take everything");
    }
    let machine = &results.machine;
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    let (kernel, processor, cores) = (&machine.kernel, &machine.processor, machine.cores);
    _ = writeln!(out, "{DIM}{processor}, {cores} cores, {gib:.0} GiB, {kernel}{DIM:#}");
    out
}

fn write_scenario(out: &mut String, result: &ScenarioResult) -> fmt::Result {
    let ScenarioResult { scenario, server, runs, medians, floor, .. } = result;
    let of = if runs.len() > 1 { format!("medians of {} runs", runs.len()) } else { "one run".to_owned() };
    writeln!(out, "\n{TITLE}{scenario}{TITLE:#} {BOLD}{server}{BOLD:#} {DIM}{of}{DIM:#}")?;
    if !result.setup.is_empty() {
        writeln!(out, "  {DIM}{}{DIM:#}", result.setup)?;
    }
    let known = FIGURES.iter().filter_map(|figure| Some((figure, *medians.get(figure.name)?)));
    let rows = known.collect::<Vec<_>>();
    let width = rows.iter().map(|(figure, _)| figure.text.chars().count()).max().unwrap_or(0);
    if floor.is_some() {
        writeln!(out, "  {:width$}  {:>14}  {DIM}{:>14}  {:>8}{DIM:#}", "", server, "floor", "ratio")?;
    }
    for (figure, value) in rows {
        let style = if figure.better == Better::Neither { DIM } else { BOLD };
        write!(out, "  {:width$}  {style}{:>14}{style:#}", figure.text, with_unit(value, figure.unit))?;
        if let Some(floor) = floor
            && let (Some(of), Some(ratio)) = (floor.medians.get(figure.name), floor.ratios.get(figure.name))
        {
            let style = match figure.better {
                Better::Higher if *ratio < 0.5 => DOUBTFUL,
                Better::Lower if *ratio > 2.0 => DOUBTFUL,
                _ => GOOD,
            };
            write!(out, "  {DIM}{:>14}{DIM:#}  {style}{ratio:>7.2}×{style:#}", with_unit(*of, figure.unit))?;
        }
        writeln!(out)?;
    }
    for curve in result.curves() {
        let figure = crate::result::meaning(&curve.figure);
        let (text, unit) = figure.map_or((&*curve.figure, ""), |figure| (figure.text, figure.unit));
        writeln!(out, "  {text}, by {}", curve.over)?;
        for (x, value) in curve.points {
            writeln!(out, "    {:>12} {BOLD}{:>14}{BOLD:#}", thousands(x), with_unit(value, unit))?;
        }
    }
    if let Some(run) = runs.last() {
        write_run(out, run)?;
    }
    let mut faults = std::collections::BTreeMap::new();
    for (kind, count) in runs.iter().flat_map(|run| &run.faults) {
        *faults.entry(*kind).or_insert(0) += count;
    }
    let warnings = runs.iter().flat_map(|run| &run.warnings).collect::<std::collections::BTreeSet<_>>();
    for warning in warnings {
        writeln!(out, "  {DOUBTFUL}warning{DOUBTFUL:#}  {warning}")?;
    }
    for (kind, count) in &faults {
        writeln!(out, "  {BAD}FAULT{BAD:#}    {kind}: {count}")?;
    }
    for fault in runs.iter().flat_map(|run| &run.first_faults).take(20) {
        writeln!(out, "             {fault}")?;
    }
    let checked = thousands(runs.iter().map(|run| run.checked).sum::<u64>() as f64);
    if result.passed() {
        writeln!(
            out,
            "  {GOOD}✔ {checked} deliveries, each of them checked: none missing, none double, all in order{GOOD:#}"
        )
    } else {
        writeln!(out, "  {BAD}✘ FAILED{BAD:#} ({checked} deliveries, each of them checked)")
    }
}

fn write_run(out: &mut String, run: &Run) -> fmt::Result {
    for (name, latencies) in run.latencies.iter().filter(|(_, latencies)| latencies.count > 0) {
        write_latencies(out, name, latencies)?;
    }
    let split = |split: CpuSplit| format!("{:.2} s user + {:.2} s system", split.user, split.system);
    if run.cpu.load.total() > 0.0 {
        let server = run.cpu.server.map_or("unknown (tell --server-pid)".to_owned(), split);
        writeln!(out, "  {DIM}CPU: server {server}, load {}{DIM:#}", split(run.cpu.load))?;
    }
    Ok(())
}

fn write_latencies(out: &mut String, name: &str, latencies: &Latencies) -> fmt::Result {
    let shown = [50.0, 90.0, 99.0, 99.9, 100.0].map(|percentile| (percentile, latencies.percentile(percentile)));
    let most = latencies.percentile(100.0).unwrap_or(1.0).max(0.001);
    writeln!(out, "  latency of {name}, from when each was due")?;
    for (percentile, millis) in shown {
        let millis = millis.unwrap_or_default();
        let columns = (millis / most * BAR_COLUMNS).round() as usize;
        let label = if percentile == 100.0 { "max".to_owned() } else { format!("p{percentile}") };
        writeln!(out, "    {label:>6} {:>12} {GOOD}{}{GOOD:#}", with_unit(millis, "ms"), "▆".repeat(columns.max(1)))?;
    }
    Ok(())
}

/// A number as people read it, with about three digits that count.
fn with_unit(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "B" if value.abs() >= 10_000_000.0 => (value / 1e6, "MB"),
        "B" if value.abs() >= 20_000.0 => (value / 1e3, "kB"),
        _ => (value, unit),
    };
    let number = match value.abs() {
        large if large >= 100.0 || value.fract() == 0.0 => thousands(value),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let cases = [(1_234_567.0, "1/s", "1,234,567 1/s"), (523.4, "B", "523 B"), (64_200.0, "B", "64.2 kB")];
        for (value, unit, expected) in cases {
            assert_eq!(with_unit(value, unit), expected);
        }
        assert_eq!([with_unit(5.123, "s"), with_unit(0.0, ""), with_unit(12.34, "ms")], ["5.12 s", "0", "12.3 ms"]);
    }
}
