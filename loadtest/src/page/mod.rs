//! The report: results as one HTML file that needs no network, with plots, light and dark.
//!
//! It shows what is in the files and nothing else: every figure of every server, what each means, how each server was
//! set up, what went wrong. Servers keep their color through the whole page.

mod plot;
mod table; // The same in short, for terminals and README files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use crate::compare::number;
use crate::result::{Better, CpuSplit, Curve, FIGURES, Machine, Meaning, Results, Run, ScenarioResult};
use plot::{Bar, Ink, Line};

pub use table::markdown;

const STYLE: &str = include_str!("style.css");

/// Figures that are rates of throughput, each worth a plot.
const RATES: [&str; 3] = ["deliveriesPerSecond", "eventsPerSecond", "connectionsPerSecond"];

/// Figures that are CPU for a piece of work, each worth a plot.
const COSTS: [&str; 3] = ["serverCpuPerMillion", "serverCpuMicrosPerEvent", "serverCpuMicrosPerConnect"];

/// How long something took, each worth a plot.
const TIMES: [&str; 4] = ["backSeconds", "caughtUpSeconds", "broadcastSeconds", "stalledUserBytes"];

/// The report on files of results, each with the name that tells it from the others.
pub fn page(files: &[(String, Results)]) -> String {
    let mut page = Page { out: String::new(), glossary: BTreeMap::new(), inks: inks(files) };
    for (_, results) in files {
        page.glossary.extend(results.glossary.iter().map(|(name, meaning)| (name.as_str(), meaning)));
    }
    page.head(files);
    for (scenario, rows) in scenarios(files) {
        page.scenario(scenario, &rows);
    }
    page.method(files);
    page.out
}

/// A server in a scenario.
struct Row<'a> {
    label: String,
    ink: Ink,
    result: &'a ScenarioResult,
}

struct Page<'a> {
    out: String,
    glossary: BTreeMap<&'a str, &'a Meaning>,
    inks: BTreeMap<String, Ink>,
}

/// Puts formatted text into the page.
macro_rules! put {
    ($page:expr, $($text:tt)*) => { writeln!($page.out, $($text)*).expect("strings take everything") };
}

/// Every server's color, in the order in which they come.
fn inks(files: &[(String, Results)]) -> BTreeMap<String, Ink> {
    let mut inks = BTreeMap::from([("floor".to_owned(), Ink::Floor)]);
    let mut next = 0;
    for result in files.iter().flat_map(|(_, results)| &results.scenarios) {
        inks.entry(result.server.clone()).or_insert_with(|| {
            next += 1;
            Ink::Server((next - 1) % plot::SERVERS)
        });
    }
    inks
}

/// Scenarios in the order in which they come, each with its servers.
fn scenarios(files: &[(String, Results)]) -> Vec<(&str, Vec<(&str, &ScenarioResult)>)> {
    let mut scenarios = Vec::<(&str, Vec<(&str, &ScenarioResult)>)>::new();
    for (file, results) in files {
        for result in &results.scenarios {
            let row = (&**file, result);
            match scenarios.iter_mut().find(|(name, _)| *name == result.scenario) {
                Some((_, rows)) => rows.push(row),
                None => scenarios.push((&result.scenario, vec![row])),
            }
        }
    }
    scenarios
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn date(unix_millis: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_millis)).to_string();
    time.replace('T', " ").replace('Z', " UTC")
}

fn machine(machine: &Machine) -> String {
    let Machine { kernel, processor, cores, memory_bytes, descriptors_max } = machine;
    let gib = *memory_bytes as f64 / f64::from(1 << 30);
    format!(
        "{processor}, {cores} cores, {gib:.1} GiB, {kernel}, at most {} descriptors a process",
        number(*descriptors_max as f64)
    )
}

impl Page<'_> {
    fn head(&mut self, files: &[(String, Results)]) {
        let runs = files.iter().flat_map(|(_, results)| &results.scenarios).flat_map(|result| &result.runs);
        let checked = runs.clone().map(|run| run.checked).sum::<u64>();
        let faults = runs.flat_map(|run| run.faults.values()).sum::<u64>();
        put!(self, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">");
        put!(self, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        put!(self, "<title>Fanfare: load test</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Load test</h1>");
        for (name, results) in files {
            let name = if files.len() > 1 { format!("{}: ", escape(name)) } else { String::new() };
            put!(self, "<p>{name}{} on {}.</p>", date(results.began_unix_millis), escape(&machine(&results.machine)));
        }
        let verdict = match faults {
            0 => "<span class=\"good\">none missing, double or out of order</span>".to_owned(),
            _ => format!("<span class=\"bad\">{} faults</span>, told below", number(faults as f64)),
        };
        put!(self, "<p>{} deliveries, every one of them checked: {verdict}.</p>", number(checked as f64));
    }

    fn scenario(&mut self, scenario: &str, rows: &[(&str, &ScenarioResult)]) {
        let is_twice = |server: &str| rows.iter().filter(|(_, result)| result.server == server).count() > 1;
        let rows = rows.iter().map(|(file, result)| {
            let server = &result.server;
            let label = if is_twice(server) { format!("{server} ({file})") } else { server.clone() };
            Row { label, ink: self.inks[server], result }
        });
        let rows = rows.collect::<Vec<_>>();
        put!(self, "<section>\n<h2>{}</h2>", escape(scenario));
        self.options(&rows);
        put!(self, "<div class=\"plots\">");
        for name in RATES {
            self.figure(name, &rows, "", |result| Some((vec![*result.medians.get(name)?], Vec::new())));
        }
        for name in COSTS {
            self.figure(name, &rows, CPU_KEY, |result| cost(result, name));
        }
        self.memory(&rows);
        for name in TIMES {
            self.figure(name, &rows, "", |result| Some((vec![*result.medians.get(name)?], Vec::new())));
        }
        self.latencies(&rows);
        self.series(&rows);
        self.curves(&rows);
        put!(self, "</div>");
        self.table(&rows);
        self.troubles(&rows);
        put!(self, "</section>");
    }

    fn options(&mut self, rows: &[Row<'_>]) {
        let mut options = BTreeMap::<&str, BTreeSet<String>>::new();
        for (name, value) in rows.iter().flat_map(|row| &row.result.options) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            options.entry(name).or_default().insert(value);
        }
        let word = |(name, values): (&str, BTreeSet<String>)| {
            escape(&format!("{name} {}", values.into_iter().collect::<Vec<_>>().join(" or ")))
        };
        let words = options.into_iter().map(word).collect::<Vec<_>>();
        let runs = rows.iter().map(|row| row.result.runs.len());
        let (few, many) = (runs.clone().min().unwrap_or(0), runs.max().unwrap_or(0));
        let runs = match (few, many) {
            (1, 1) => "one run".to_owned(),
            (few, many) if few == many => format!("medians of {many} runs"),
            (few, many) => format!("medians of {few} to {many} runs"),
        };
        put!(self, "<p class=\"faint\">{}</p>", [words.join(", "), runs].join(" · ").trim_start_matches(" · "));
    }

    /// A plot of bars, one for each server that has the figure, and one for the floor. Parts, where there are several,
    /// are those of CPU or memory.
    fn figure(
        &mut self,
        name: &str,
        rows: &[Row<'_>],
        key: &str,
        parts: impl Fn(&ScenarioResult) -> Option<(Vec<f64>, Vec<Ink>)>,
    ) {
        let unit = self.glossary.get(name).map_or("", |meaning| &meaning.unit).to_owned();
        let mut bars = Vec::new();
        let mut has_parts = false;
        for row in rows {
            let Some((values, inks)) = parts(row.result) else { continue };
            let ratio = row.result.floor.as_ref().and_then(|floor| floor.ratios.get(name));
            let ratio = ratio.map_or(String::new(), |ratio| format!(" · {} × floor", number(*ratio)));
            let sum = row.result.medians.get(name).copied().unwrap_or_else(|| values.iter().sum());
            has_parts |= values.len() > 1;
            let parts = values.into_iter().zip(inks.into_iter().chain([row.ink])).collect();
            bars.push(Bar { label: row.label.clone(), note: format!("{}{ratio}", value(sum, &unit)), parts });
        }
        if bars.is_empty() {
            return;
        }
        if let Some(floor) = floor(rows, name) {
            let parts = vec![(floor, Ink::Floor)];
            bars.push(Bar { label: "floor".to_owned(), note: value(floor, &unit), parts });
        }
        let text = self.glossary.get(name).map_or(name, |meaning| &meaning.text).to_owned();
        let key = if has_parts { key } else { "" };
        put!(self, "<figure>\n<h3>{}</h3>\n{}{key}</figure>", escape(&capital(&text)), plot::bars(&bars));
    }

    fn memory(&mut self, rows: &[Row<'_>]) {
        self.figure("serverUserBytes", rows, MEMORY_KEY, |result| {
            let memory = |name: &str| result.medians.get(name).copied();
            let user = memory("serverUserBytes")?;
            Some(match memory("kernelBytes") {
                None => (vec![user], Vec::new()),
                Some(kernel) => (vec![user, kernel], vec![Ink::Part(0), Ink::Part(1)]),
            })
        });
    }

    fn latencies(&mut self, rows: &[Row<'_>]) {
        let typical = rows.iter().filter_map(|row| Some((row, row.result.typical()?))).collect::<Vec<_>>();
        let names = typical.iter().flat_map(|(_, run)| run.latencies.keys()).collect::<BTreeSet<_>>();
        for name in names {
            let mut lines = Vec::new();
            for (row, run) in &typical {
                let Some(latencies) = run.latencies.get(name) else { continue };
                // A percentile says something only where some are above it.
                let says = |(percentile, _): &&(f64, f64)| (1.0 - percentile / 100.0) * latencies.count as f64 >= 1.0;
                let points = latencies.percentiles.iter().filter(says).copied().collect();
                lines.push(Line { label: row.label.clone(), ink: row.ink, points });
            }
            let mut floors = rows.iter().filter_map(|row| row.result.floor.as_ref()?.runs.first()?.latencies.get(name));
            if let Some(latencies) = floors.find(|latencies| latencies.count > 0) {
                let says = |(percentile, _): &&(f64, f64)| (1.0 - percentile / 100.0) * latencies.count as f64 >= 1.0;
                let points = latencies.percentiles.iter().filter(says).copied().collect();
                lines.push(Line { label: "floor".to_owned(), ink: Ink::Floor, points });
            }
            if lines.iter().all(|line| line.points.is_empty()) {
                continue;
            }
            let title = format!("Latency of {name}, by percentile");
            put!(self, "<figure class=\"wide\">\n<h3>{}</h3>\n{}</figure>", escape(&title), plot::percentiles(&lines));
        }
    }

    fn series(&mut self, rows: &[Row<'_>]) {
        let typical = rows.iter().filter_map(|row| Some((row, row.result.typical()?))).collect::<Vec<_>>();
        let names = typical.iter().flat_map(|(_, run)| run.series.keys()).collect::<BTreeSet<_>>();
        for name in names {
            let line = |(row, run): &(&Row<'_>, &Run)| {
                let points = run.series.get(name)?.clone();
                Some(Line { label: row.label.clone(), ink: row.ink, points })
            };
            let lines = typical.iter().filter_map(line).collect::<Vec<_>>();
            let text = self.glossary.get(&**name).map_or_else(|| (*name).clone(), |meaning| meaning.text.clone());
            let title = format!("{}, over time", capital(&text));
            put!(self, "<figure class=\"wide\">\n<h3>{}</h3>\n{}</figure>", escape(&title), plot::over_time(&lines));
        }
    }

    fn curves(&mut self, rows: &[Row<'_>]) {
        let mut plots = BTreeMap::<(String, String), Vec<Line>>::new();
        for row in rows {
            for Curve { figure, over, points } in row.result.curves() {
                let line = Line { label: row.label.clone(), ink: row.ink, points };
                plots.entry((over, figure)).or_default().push(line);
            }
        }
        for ((over, name), lines) in plots {
            let (text, unit) = match self.glossary.get(&*name) {
                Some(meaning) => (meaning.text.clone(), meaning.unit.clone()),
                None => (name, String::new()),
            };
            let title = format!("{} [{unit}], by {over}", capital(&text));
            put!(self, "<figure class=\"wide\">\n<h3>{}</h3>\n{}</figure>", escape(&title), plot::curve(&lines));
        }
    }

    /// Every figure of every server.
    fn table(&mut self, rows: &[Row<'_>]) {
        let names = rows.iter().flat_map(|row| row.result.medians.keys()).collect::<BTreeSet<_>>();
        let mut names = names.into_iter().map(String::as_str).collect::<Vec<_>>();
        names.sort_by_key(|name| FIGURES.iter().position(|figure| figure.name == *name).unwrap_or(usize::MAX));
        put!(self, "<div class=\"scroll\"><table>\n<thead><tr><th>server</th>");
        for name in &names {
            let unit = self.glossary.get(name).map_or("", |meaning| &meaning.unit).to_owned();
            let unit = if unit.is_empty() { String::new() } else { format!("<small>{}</small>", escape(&unit)) };
            put!(self, "<th>{}{unit}</th>", escape(name));
        }
        put!(self, "</tr></thead>\n<tbody>");
        for row in rows {
            put!(self, "<tr><th>{}</th>", escape(&row.label));
            for name in &names {
                self.cell(name, row, rows);
            }
            put!(self, "</tr>");
        }
        if names.iter().any(|name| floor(rows, name).is_some()) {
            put!(self, "<tr><th>floor</th>");
            for name in &names {
                put!(self, "<td>{}</td>", floor(rows, name).map_or_else(|| "–".to_owned(), number));
            }
            put!(self, "</tr>");
        }
        put!(self, "</tbody></table></div>");
    }

    fn cell(&mut self, name: &str, row: &Row<'_>, rows: &[Row<'_>]) {
        let Some(median) = row.result.medians.get(name) else {
            put!(self, "<td>–</td>");
            return;
        };
        let all = rows.iter().filter_map(|row| row.result.medians.get(name)).copied();
        let best = match self.glossary.get(name).map(|meaning| meaning.better) {
            _ if rows.len() < 2 => false,
            Some(Better::Higher) => all.fold(f64::MIN, f64::max) == *median,
            Some(Better::Lower) => all.fold(f64::MAX, f64::min) == *median,
            Some(Better::Neither) | None => false,
        };
        let class = if best { " class=\"best\"" } else { "" };
        let ratio = row.result.floor.as_ref().and_then(|floor| floor.ratios.get(name));
        let ratio = ratio.map_or(String::new(), |ratio| format!("<small>{} × floor</small>", number(*ratio)));
        put!(self, "<td{class}>{}{ratio}</td>", number(*median));
    }

    fn troubles(&mut self, rows: &[Row<'_>]) {
        let mut lines = BTreeSet::new();
        for row in rows {
            let label = escape(&row.label);
            for run in &row.result.runs {
                let warnings =
                    run.warnings.iter().map(|text| format!("<li class=\"warn\">{label}: {}</li>", escape(text)));
                lines.extend(warnings);
                let fault = |(kind, count): (_, &u64)| {
                    format!("<li class=\"bad\">{label}: {} {kind} in a run</li>", number(*count as f64))
                };
                lines.extend(run.faults.iter().map(fault));
            }
        }
        if !lines.is_empty() {
            put!(self, "<ul>{}</ul>", lines.into_iter().collect::<String>());
        }
    }

    /// How it was measured, and what the figures mean.
    fn method(&mut self, files: &[(String, Results)]) {
        put!(self, "<section>\n<h2>Method</h2>");
        put!(
            self,
            "<p>Clients, publishers and servers share one machine. Every delivery is checked by its number; a latency counts \
             from when its event was <em>due</em>, so that waiting to be sent is part of it. The floor is a bare loop of \
             <code>send</code> over the sockets of the same clients, run before and after; ratios are to what it reached \
             there. Figures are medians over runs; a plot of percentiles shows the run in the middle.</p>"
        );
        let mut setups = BTreeMap::new();
        let mut used = BTreeSet::new();
        for result in files.iter().flat_map(|(_, results)| &results.scenarios) {
            used.extend(result.medians.keys());
            if !result.setup.is_empty() {
                setups.insert(&result.server, &result.setup);
            }
        }
        if !setups.is_empty() {
            put!(self, "<h3>Servers</h3>\n<dl>");
            for (server, setup) in setups {
                put!(self, "<dt>{}</dt><dd>{}</dd>", escape(server), escape(setup));
            }
            put!(self, "</dl>");
        }
        put!(self, "<h3>Versions</h3>\n<dl>");
        let versions = files.iter().flat_map(|(_, results)| &results.versions).collect::<BTreeSet<_>>();
        for (program, version) in versions {
            put!(self, "<dt>{}</dt><dd>{}</dd>", escape(program), escape(version));
        }
        put!(self, "</dl>\n<h3>Figures</h3>\n<dl>");
        for (name, meaning) in self.glossary.clone() {
            if used.contains(&name.to_owned()) {
                let better = match meaning.better {
                    Better::Higher => "; more is better",
                    Better::Lower => "; less is better",
                    Better::Neither => "",
                };
                put!(self, "<dt>{}</dt><dd>{}{better}</dd>", escape(name), escape(&meaning.text));
            }
        }
        put!(self, "</dl>\n</section>\n</body>\n</html>");
    }
}

const CPU_KEY: &str = "<div class=\"key\"><span><i style=\"background:var(--part-0)\"></i>user</span>\
    <span><i style=\"background:var(--part-1)\"></i>kernel</span></div>";
const MEMORY_KEY: &str = "<div class=\"key\"><span><i style=\"background:var(--part-0)\"></i>user memory</span>\
    <span><i style=\"background:var(--part-1)\"></i>kernel, both ends</span></div>";

/// A figure of the server's CPU, in the shares of user and kernel that the run in the middle had.
fn cost(result: &ScenarioResult, name: &str) -> Option<(Vec<f64>, Vec<Ink>)> {
    let all = *result.medians.get(name)?;
    let Some(CpuSplit { user, system }) = result.typical().and_then(|run| run.cpu.server) else {
        return Some((vec![all], Vec::new()));
    };
    let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
    Some((vec![all * share, all * (1.0 - share)], vec![Ink::Part(0), Ink::Part(1)]))
}

/// The floor beside these servers: the median of what it reached beside each.
fn floor(rows: &[Row<'_>], name: &str) -> Option<f64> {
    let floors = rows.iter().filter_map(|row| row.result.floor.as_ref()?.medians.get(name).copied());
    crate::result::median(floors.collect())
}

fn value(value: f64, unit: &str) -> String {
    match unit {
        "" => number(value),
        "1/s" => format!("{}/s", number(value)),
        _ => format!("{} {unit}", number(value)),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
