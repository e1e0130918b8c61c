//! What a run leaves behind as JSON: everything that a report, a comparison or a reader of next year needs, and
//! nothing that has to be looked up elsewhere.
//!
//! The figures of all scenarios share one vocabulary ([`FIGURES`]), so that a reader of the file needs to know no
//! scenario: each [`Run`] is a map of names to numbers, and the file says what the names mean. Fields are only ever
//! added; [`VERSION`] moves when the meaning of one changes.

mod figures; // What is measured, by name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use figures::{FIGURES, Figure, meaning};

use crate::check::{Fault, FaultKind};

/// What a file of results calls itself.
pub const FORMAT: &str = "fanfare-loadtest";

/// The version of the schema.
pub const VERSION: u32 = 1;

/// Percentiles that are kept of every latency: enough for a plot over their logarithm.
pub const PERCENTILES: [f64; 18] =
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.99, 99.999, 100.0];

/// What a scenario is about: the first of these figures that it has. The run whose value is nearest the median stands
/// for all of them in plots.
const MAIN_FIGURES: [&str; 6] = [
    "deliveriesPerSecond",
    "eventsPerSecond",
    "connectionsPerSecond",
    "p99Millis",
    "caughtUpSeconds",
    "serverUserBytes",
];

/// A file of results.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// When the first scenario began, in ms since 1970.
    pub began_unix_millis: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Versions of what took part: `loadtest`, and what servers say of themselves, such as `fanfare` or `redis`.
    pub versions: BTreeMap<String, String>,
    /// What each name in `figures`, `medians` and `ratios` means.
    pub glossary: BTreeMap<String, Meaning>,
    /// One entry for each scenario and server, in the order in which they ran.
    pub scenarios: Vec<ScenarioResult>,
}

/// The machine that the load, and mostly the server too, ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Its kernel, as `uname -sr` tells.
    pub kernel: String,
    /// Name of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its memory.
    pub memory_bytes: u64,
    /// Descriptors that one process may have open at most.
    pub descriptors_max: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meaning {
    /// `1/s`, `ms`, `µs`, `s`, `B`, or nothing for a count.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// A sentence for people.
    pub text: String,
}

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The larger the better.
    Higher,
    /// The smaller the better.
    Lower,
    /// It only describes the run.
    Neither,
}

/// What one scenario found at one server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioResult {
    /// Name of the scenario, as typed.
    pub scenario: String,
    /// Who served: `fanfare`, `floor`, or a peer's name with what stands behind it, such as `nchan-redis`.
    pub server: String,
    /// How the server was set up, in a sentence; empty where this program only knew its URL.
    pub setup: String,
    /// The scenario's options, by their names without dashes.
    pub options: BTreeMap<String, serde_json::Value>,
    /// Each run, in order.
    pub runs: Vec<Run>,
    /// The median of each figure over the runs that have it.
    pub medians: BTreeMap<String, f64>,
    /// The yardstick on the same machine, right before and after each run, where it was asked for.
    pub floor: Option<Floor>,
}

/// What a bare `send(2)` loop reached, read by the same clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// Its runs: one before each run of the scenario and one after.
    pub runs: Vec<Run>,
    /// For each figure the median over the scenario's runs of the mean of the floor before and after.
    pub medians: BTreeMap<String, f64>,
    /// For each figure that both have: the median over the runs of the server's divided by that mean. 1 is the
    /// floor; whether more is better depends on the figure.
    pub ratios: BTreeMap<String, f64>,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// How long it took, connecting included.
    pub seconds: f64,
    /// What was measured, by names of the glossary.
    pub figures: BTreeMap<String, f64>,
    /// Latencies by what they are of, such as `delivery` or `publish`.
    pub latencies: BTreeMap<String, Latencies>,
    /// How figures moved during the run, by names of the glossary: pairs of seconds since its measured part began
    /// and the value there.
    pub series: BTreeMap<String, Vec<(f64, f64)>>,
    /// How figures grow with something, where the scenario measures that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
    /// CPU seconds of the measured part.
    pub cpu: Cpu,
    /// Bytes for each connection, where the scenario measures them.
    pub memory: Option<Memory>,
    /// Deliveries, every one of which was checked.
    pub checked: u64,
    /// Faults found, by kind: a run with any of them failed.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The first faults.
    pub first_faults: Vec<Fault>,
    /// Reasons to distrust the figures, such as a load generator that was itself the bottleneck.
    pub warnings: Vec<String>,
}

/// How a figure grows with something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Curve {
    /// Name of the figure.
    pub figure: String,
    /// With what: `connections` or `otherChannels`.
    pub over: String,
    /// How many of it, and the figure there.
    pub points: Vec<(f64, f64)>,
}

/// Latencies in milliseconds, each from when an event was *due*.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latencies {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Pairs of a percentile ([`PERCENTILES`]) and the latency that so many did not exceed.
    pub percentiles: Vec<(f64, f64)>,
}

/// CPU seconds, told apart by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// The server's processes together; `None` where they can't be seen.
    pub server: Option<CpuSplit>,
    /// This program's own processes together.
    pub load: CpuSplit,
}

/// Seconds in user space and in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuSplit {
    /// In user space.
    pub user: f64,
    /// In the kernel, on behalf of the process.
    pub system: f64,
}

/// Bytes for each connection, above what the empty process took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// User memory (`RssAnon` and `RssShmem`) of the server's processes; `None` where they can't be seen.
    pub server_user: Option<f64>,
    /// User memory of this program's processes.
    pub load_user: f64,
    /// Memory of the kernel of this machine (`Slab` and socket buffers), both ends of the connection where both are
    /// here.
    pub kernel: f64,
}

impl CpuSplit {
    /// Both together.
    pub fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Latencies {
    /// Of a histogram in µs.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |percentile| (percentile, millis(histogram.value_at_quantile(percentile / 100.0)));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            percentiles: if histogram.is_empty() { Vec::new() } else { PERCENTILES.map(at).to_vec() },
        }
    }

    /// One of [`PERCENTILES`]; `None` where nothing was measured, or it isn't one of them.
    pub fn percentile(&self, percentile: f64) -> Option<f64> {
        self.percentiles.iter().find(|(of, _)| *of == percentile).map(|(_, millis)| *millis)
    }
}

impl Run {
    /// Whether nothing was wrong.
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }
}

impl ScenarioResult {
    /// Whether nothing was wrong in any run.
    pub fn passed(&self) -> bool {
        self.runs.iter().all(Run::passed)
    }

    /// The curves, with the median over the runs at each point.
    pub fn curves(&self) -> Vec<Curve> {
        let Some(first) = self.runs.first() else { return Vec::new() };
        let of_runs = |curve: &Curve, x: f64| {
            let same = self.runs.iter().flat_map(|run| &run.curves);
            let same = same.filter(|other| (&other.figure, &other.over) == (&curve.figure, &curve.over));
            median(same.flat_map(|other| &other.points).filter(|point| point.0 == x).map(|point| point.1).collect())
        };
        let middle = |curve: &Curve| Curve {
            points: curve.points.iter().filter_map(|(x, _)| Some((*x, of_runs(curve, *x)?))).collect(),
            ..curve.clone()
        };
        first.curves.iter().map(middle).collect()
    }

    /// The run whose main figure is nearest the median.
    pub fn typical(&self) -> Option<&Run> {
        Some(&self.runs[self.typical_place()?])
    }

    fn typical_place(&self) -> Option<usize> {
        let main = MAIN_FIGURES.iter().find(|name| self.medians.contains_key(**name));
        let distance = |run: &Run| {
            let main = main.and_then(|name| Some((run.figures.get(*name)? - self.medians.get(*name)?).abs()));
            main.unwrap_or(f64::MAX)
        };
        let runs = self.runs.iter().enumerate();
        Some(runs.min_by(|(_, one), (_, other)| distance(one).total_cmp(&distance(other)))?.0)
    }

    /// Leaves out what only looks at single runs need: series, latencies of all but the typical run, and the floor's
    /// runs. Its medians and ratios stay as they are, and numbers keep the digits that count.
    fn shorten(&mut self) {
        let typical = self.typical_place();
        for (place, run) in self.runs.iter_mut().enumerate() {
            run.series.clear();
            run.first_faults.clear();
            if Some(place) != typical {
                run.latencies.clear();
            }
            run.figures.values_mut().for_each(shorten);
            run.latencies.values_mut().flat_map(|of| &mut of.percentiles).for_each(|(_, millis)| shorten(millis));
        }
        self.medians.values_mut().for_each(shorten);
        if let Some(floor) = &mut self.floor {
            floor.runs.clear();
            floor.medians.values_mut().chain(floor.ratios.values_mut()).for_each(shorten);
        }
    }

    /// Works the medians out, and the floor's with their ratios. The floor has a run before and one after each run, or
    /// none.
    pub fn conclude(&mut self) {
        let figures = self.runs.iter().map(|run| run.figures.clone()).collect::<Vec<_>>();
        self.medians = medians(&figures);
        let Some(floor) = &mut self.floor else { return };
        let means = floor.runs.chunks(2).map(mean_of_figures).collect::<Vec<_>>();
        let ratios = figures.iter().zip(&means).map(|(figures, floor)| {
            let ratio = |(name, value): (&String, &f64)| {
                let floor = *floor.get(name)?;
                (floor > 0.0).then(|| (name.clone(), value / floor))
            };
            figures.iter().filter_map(ratio).collect()
        });
        floor.ratios = medians(&ratios.collect::<Vec<BTreeMap<_, _>>>());
        floor.ratios.retain(|name, _| meaning(name).is_none_or(|meaning| meaning.better != Better::Neither));
        floor.medians = medians(&means);
    }
}

/// Leaves a number the digits that count.
fn shorten(number: &mut f64) {
    *number = format!("{number:.4e}").parse().unwrap_or(*number);
}

fn mean_of_figures(runs: &[Run]) -> BTreeMap<String, f64> {
    let names = runs.iter().flat_map(|run| run.figures.keys());
    let mean = |name: &String| {
        let values = runs.iter().filter_map(|run| run.figures.get(name)).collect::<Vec<_>>();
        (name.clone(), values.iter().copied().sum::<f64>() / values.len() as f64)
    };
    names.map(mean).collect()
}

fn medians(runs: &[BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::<String, Vec<f64>>::new();
    for (name, value) in runs.iter().flatten() {
        values.entry(name.clone()).or_default().push(*value);
    }
    values.into_iter().filter_map(|(name, values)| Some((name, median(values)?))).collect()
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Why a file of results can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The file system refuses.
    #[error("{path} can't be read or written")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON, or not of this schema.
    #[error("{path} holds no results of fanfare-loadtest")]
    Json {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It was written by another version.
    #[error("{path} has version {found} of the schema, this program reads {VERSION}")]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
    },
}

impl Results {
    /// Results of this machine, without any scenario yet, that begin now.
    pub fn begin(machine: Machine) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let glossary = FIGURES.iter().map(|figure| (figure.name.to_owned(), figure.meaning())).collect();
        let own = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            began_unix_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            machine,
            versions: BTreeMap::from([("loadtest".to_owned(), own)]),
            glossary,
            scenarios: Vec::new(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or is none of ours, or of another version.
    pub fn read(path: &Path) -> Result<Self, ResultsError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| ResultsError::Io { path: name.clone(), source })?;
        let results =
            serde_json::from_str::<Self>(&text).map_err(|source| ResultsError::Json { path: name.clone(), source })?;
        if results.version != VERSION {
            return Err(ResultsError::Version { path: name, found: results.version });
        }
        Ok(results)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, path: &Path) -> Result<(), ResultsError> {
        let mut text = serde_json::to_string_pretty(self).expect("results are JSON");
        text.push('\n');
        fs::write(path, text).map_err(|source| ResultsError::Io { path: path.display().to_string(), source })
    }

    /// Writes a file that is small enough to be kept beside code: no spaces, and without what only looks at single runs
    /// need.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_short(&self, path: &Path) -> Result<(), ResultsError> {
        let mut short = self.clone();
        short.scenarios.iter_mut().for_each(ScenarioResult::shorten);
        let mut text = serde_json::to_string(&short).expect("results are JSON");
        text.push('\n');
        fs::write(path, text).map_err(|source| ResultsError::Io { path: path.display().to_string(), source })
    }

    /// Adds a result. Its runs go to those of the same scenario, server and options, where there are some.
    pub fn add(&mut self, result: ScenarioResult) {
        let key = |of: &ScenarioResult| (of.scenario.clone(), of.server.clone(), of.options.clone());
        let found = self.scenarios.iter_mut().find(|before| key(before) == key(&result));
        let Some(found) = found else {
            self.scenarios.push(result);
            return;
        };
        found.runs.extend(result.runs);
        if let Some(floor) = result.floor {
            found.floor.get_or_insert_default().runs.extend(floor.runs);
        }
        found.conclude();
    }

    /// Whether nothing was wrong in any scenario.
    pub fn passed(&self) -> bool {
        self.scenarios.iter().all(ScenarioResult::passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(deliveries: f64) -> Run {
        Run { figures: BTreeMap::from([("deliveriesPerSecond".to_owned(), deliveries)]), ..Run::default() }
    }

    #[test]
    fn each_run_is_held_against_the_mean_of_the_floor_around_it() {
        let floor = Floor { runs: [100.0, 300.0, 50.0, 50.0, 10.0, 30.0].map(run).to_vec(), ..Floor::default() };
        let mut result = ScenarioResult {
            runs: [400.0, 50.0, 60.0].map(run).to_vec(),
            floor: Some(floor),
            ..ScenarioResult::default()
        };
        result.conclude();
        assert_eq!(result.medians["deliveriesPerSecond"], 60.0);
        let floor = result.floor.expect("it was given");
        assert_eq!((floor.medians["deliveriesPerSecond"], floor.ratios["deliveriesPerSecond"]), (50.0, 2.0));
    }

    #[test]
    fn a_curve_has_the_median_of_the_runs_at_each_of_its_points() {
        let curve = |points: [(f64, f64); 2]| Curve {
            figure: "serverUserBytes".to_owned(),
            over: "connections".to_owned(),
            points: points.to_vec(),
        };
        let runs = [[(10.0, 1.0), (20.0, 7.0)], [(10.0, 3.0), (20.0, 5.0)], [(10.0, 2.0), (20.0, 6.0)]];
        let runs = runs.map(|points| Run { curves: vec![curve(points)], ..Run::default() });
        let result = ScenarioResult { runs: runs.to_vec(), ..ScenarioResult::default() };
        assert_eq!(result.curves(), [curve([(10.0, 2.0), (20.0, 6.0)])]);
    }

    #[test]
    fn results_are_read_as_they_were_written_and_nothing_else_is_taken_for_them() {
        let mut results = Results::begin(Machine::default());
        let mut histogram = crate::report::new_histogram();
        histogram.record(1500).expect("in range");
        let latencies = BTreeMap::from([("delivery".to_owned(), Latencies::of(&histogram))]);
        let faults = BTreeMap::from([(FaultKind::Missing, 1)]);
        let run = Run { latencies, faults, ..run(1.0) };
        results.scenarios.push(ScenarioResult { runs: vec![run], ..ScenarioResult::default() });
        let text = serde_json::to_string(&results).expect("JSON");
        let read = serde_json::from_str::<Results>(&text).expect("its own");
        assert!(!read.passed());
        let delivery = &read.scenarios[0].runs[0].latencies["delivery"];
        assert_eq!((delivery.count, delivery.percentile(99.0)), (1, Some(1.5)));
        assert!(serde_json::from_str::<Results>(&text.replace("began", "begun")).is_err());
    }

    #[test]
    fn runs_of_the_same_are_put_together_and_a_short_file_says_the_same() {
        let result = |deliveries, floor: f64| {
            let floor = Floor { runs: vec![run(floor), run(floor)], ..Floor::default() };
            let runs = vec![Run { series: BTreeMap::from([("x".to_owned(), vec![(0.0, 1.0)])]), ..run(deliveries) }];
            let mut result = ScenarioResult { runs, floor: Some(floor), ..ScenarioResult::default() };
            result.conclude();
            result
        };
        let mut results = Results::begin(Machine::default());
        results.add(result(100.0, 10.0));
        results.add(ScenarioResult { server: "another".to_owned(), ..result(7.0, 1.0) });
        results.add(result(300.123_456, 10.0));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("short.json");
        results.write_short(&path).expect("written");
        let short = Results::read(&path).expect("its own");
        assert_eq!(short.scenarios.len(), 2);
        for result in [&results.scenarios[0], &short.scenarios[0]] {
            assert_eq!(
                (result.runs.len(), result.typical().map(|run| &run.figures)),
                (2, Some(&result.runs[0].figures))
            );
            assert!((result.medians["deliveriesPerSecond"] - 200.06).abs() < 0.01);
            assert!((result.floor.as_ref().expect("it had one").ratios["deliveriesPerSecond"] - 20.006).abs() < 0.001);
        }
        assert!(short.scenarios[0].runs.iter().all(|run| run.series.is_empty()));
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!([median(vec![]), median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0])], [None, Some(2.0), Some(2.5)]);
    }
}
