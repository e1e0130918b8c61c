//! What a run found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::check::{Fault, FaultKind};
use crate::result::{Run, ScenarioResult};
use crate::trouble::Recovery;

/// What a run found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `mixed` or `cuts`.
    pub scenario: String,
    /// What all choices of the run follow from.
    pub seed: u64,
    /// How many clients there were.
    pub clients: u32,
    /// How many partitions the deployment has, as its ids tell.
    pub partitions: u16,
    /// Time until all were connected.
    pub connect_seconds: f64,
    /// Length of the schedule.
    pub publish_seconds: f64,
    /// From the last answer to a publisher until every client had everything.
    pub drain_seconds: f64,
    /// Events that the server acknowledged.
    pub acknowledged: u64,
    /// Events without a 200 in the end.
    pub publish_failed: u64,
    /// Requests that were repeated with their idempotency key.
    pub publish_repeated: u64,
    /// Answers to publishers other than 200, by status.
    pub publish_refusals: BTreeMap<u16, u64>,
    /// Requests of publishers that were not answered at all.
    pub publish_unanswered: u64,
    /// Longest time from a publisher's request to its answer, whatever that was.
    pub slowest_answer_seconds: f64,
    /// Some of the failures, in words.
    pub publish_failures: Vec<String>,
    /// Events delivered, each of them checked.
    pub deliveries: u64,
    /// Of these, on a resumed connection and due before it was opened.
    pub replayed: u64,
    /// Deliveries that the acknowledged events ask for, by client and channel.
    pub expected: u64,
    /// Deliveries of events that others published.
    pub foreign: u64,
    /// Connections that we cut off.
    pub cuts: u64,
    /// Connections opened with a `Last-Event-ID`.
    pub resumes: u64,
    /// Connections that ended though we did not cut them.
    pub lost_connections: u64,
    /// Why the server ended connections.
    pub closings: BTreeMap<String, u64>,
    /// Answers other than 200.
    pub refusals: BTreeMap<u16, u64>,
    /// Gaps told.
    pub gaps: u64,
    /// Deliveries that a gap excuses.
    pub excused: u64,
    /// Where trouble was made: how it was got over.
    pub recovery: Option<Recovery>,
    /// From when an event to one user was due until the client had it, replays left out.
    pub delivery_to_user: Latency,
    /// The same of events to a shared channel.
    pub delivery_to_channel: Latency,
    /// The same of events to everybody.
    pub delivery_to_all: Latency,
    /// From when an event was due until it was acknowledged.
    pub publish: Latency,
    /// From when an event was due until it was sent: what the load generator itself is late.
    pub lateness: Latency,
    /// CPU seconds of this process.
    pub own_cpu_seconds: Option<f64>,
    /// CPU seconds of the server's processes.
    pub server_cpu_seconds: Option<f64>,
    /// Memory of the server's processes, at the end of publishing.
    pub server_resident_bytes: Option<u64>,
    /// Share of the busiest second that the swarm's thread worked.
    pub busiest_second: f64,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
    /// How many faults of each kind were found.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The first of them.
    pub first_faults: Vec<Fault>,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half are below it.
    pub p50: f64,
    /// 90 % are below it.
    pub p90: f64,
    /// 99 % are below it.
    pub p99: f64,
    /// None is above it.
    pub max: f64,
}

impl Report {
    /// Whether everything checked out.
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Report {
    /// The same in the words that all scenarios share. The whole report stands among the options, as `report`.
    pub fn result(&self, job: &crate::Job) -> ScenarioResult {
        let figure = |name: &str, value: Option<f64>| Some((name.to_owned(), value?));
        let deliveries = self.deliveries as f64;
        let per_million = |cpu: Option<f64>| cpu.filter(|_| self.deliveries > 0).map(|cpu| cpu / deliveries * 1e6);
        let figures = [
            figure("connections", Some(self.clients.into())),
            figure("connectSeconds", Some(self.connect_seconds)),
            figure("eventsPerSecond", Some(self.acknowledged as f64 / self.publish_seconds.max(1e-9))),
            figure("deliveriesPerSecond", Some(deliveries / self.publish_seconds.max(1e-9))),
            figure("serverCpuPerMillion", per_million(self.server_cpu_seconds)),
            figure("loadCpuPerMillion", per_million(self.own_cpu_seconds)),
            figure("p50Millis", Some(self.delivery_to_user.p50)),
            figure("p99Millis", Some(self.delivery_to_user.p99)),
            figure("maxMillis", Some(self.delivery_to_user.max)),
            figure("replayed", Some(self.replayed as f64)),
        ];
        let run = Run {
            seconds: self.connect_seconds + self.publish_seconds + self.drain_seconds,
            figures: figures.into_iter().flatten().collect(),
            checked: self.deliveries,
            faults: self.faults.clone(),
            first_faults: self.first_faults.clone(),
            warnings: self.warnings.clone(),
            ..Run::default()
        };
        let options = [
            ("clients", serde_json::json!(job.clients)),
            ("channels", serde_json::json!(job.channels)),
            ("rate", serde_json::json!(job.rate)),
            ("size", serde_json::json!(job.payload_bytes)),
            ("seed", serde_json::json!(job.seed)),
            ("report", serde_json::to_value(self).unwrap_or_default()),
        ];
        let mut result = ScenarioResult {
            scenario: self.scenario.clone(),
            server: "fanfare".to_owned(),
            options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            runs: vec![run],
            ..ScenarioResult::default()
        };
        result.conclude();
        result
    }
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() as f64 / 1000.0 }
    }
}

/// Of µs, up to ten minutes, to three digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, max } = self;
        write!(f, "p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |seconds: Option<f64>| seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.1} s"));
        let (published, caught_up) = (after(self.published_again_seconds), after(self.caught_up_seconds));
        let lasted = self.trouble_seconds;
        write!(f, "for {lasted:.1} s; published again {published} after it, everybody caught up {caught_up} after it")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, clients, partitions, seed, .. } = self;
        let plural = if *partitions == 1 { "" } else { "s" };
        writeln!(f, "{scenario}: {clients} clients, {partitions} partition{plural}, seed {seed}")?;
        writeln!(
            f,
            "  all connected in {:.2} s, published for {:.1} s, drained in {:.2} s",
            self.connect_seconds, self.publish_seconds, self.drain_seconds
        )?;
        write!(f, "  published   {} acknowledged", self.acknowledged)?;
        if self.publish_failed + self.publish_repeated > 0 {
            write!(f, ", {} failed, {} repeated", self.publish_failed, self.publish_repeated)?;
        }
        writeln!(f, "; {}", self.publish)?;
        for failure in &self.publish_failures {
            writeln!(f, "              {failure}")?;
        }
        for (status, count) in &self.publish_refusals {
            writeln!(f, "              answered {status}: {count}")?;
        }
        if self.publish_unanswered > 0 {
            writeln!(f, "              not answered: {}", self.publish_unanswered)?;
        }
        if let Some(recovery) = &self.recovery {
            writeln!(f, "  trouble     {recovery}")?;
            writeln!(f, "              slowest answer to a publisher {:.2} s", self.slowest_answer_seconds)?;
        }
        write!(f, "  delivered   {} of {} expected, each checked", self.deliveries - self.foreign, self.expected)?;
        if self.foreign > 0 {
            write!(f, ", {} of other publishers", self.foreign)?;
        }
        writeln!(f, "\n  latency     from when each was due, to one user {}", self.delivery_to_user)?;
        writeln!(f, "              to a channel {}", self.delivery_to_channel)?;
        writeln!(f, "              to everybody {}", self.delivery_to_all)?;
        if self.cuts + self.resumes + self.lost_connections > 0 {
            writeln!(
                f,
                "  cut off     {} connections; {} resumed, {} events replayed; {} lost without our doing",
                self.cuts, self.resumes, self.replayed, self.lost_connections
            )?;
        }
        for (reason, count) in &self.closings {
            writeln!(f, "  closing     {reason}: {count}")?;
        }
        for (status, count) in &self.refusals {
            writeln!(f, "  refused     {status}: {count}")?;
        }
        if self.gaps > 0 {
            writeln!(f, "  gaps        {} told, {} deliveries excused by them", self.gaps, self.excused)?;
        }
        let seconds = |cpu: Option<f64>| cpu.map_or("unknown".to_owned(), |cpu| format!("{cpu:.2} s"));
        write!(f, "  CPU         own {}, server {}", seconds(self.own_cpu_seconds), seconds(self.server_cpu_seconds))?;
        if let Some(bytes) = self.server_resident_bytes {
            write!(f, " (resident {:.1} MiB)", bytes as f64 / (1 << 20) as f64)?;
        }
        writeln!(f, "; busiest second of the swarm {:.0} %", self.busiest_second * 100.0)?;
        for warning in &self.warnings {
            writeln!(f, "  warning     {warning}")?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "  FAULT       {kind}: {count}")?;
        }
        for fault in &self.first_faults {
            writeln!(f, "    {fault}")?;
        }
        f.write_str(if self.passed() { "  everything checked out" } else { "  FAILED" })
    }
}
